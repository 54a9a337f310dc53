//! Class folders below split folders, on disk or in a zip.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use xxhash_rust::xxh3::xxh3_64;

use super::group::Group;
use super::{are_numbers, are_sorted_as_numbers, split_name};
use crate::data::listing::{self, Listing};
use crate::data::split::Split;
use crate::data::{DataOptions, image_folder};
use crate::{Error, Result};

/// The longest name of a file, in bytes, that every system takes.
const MAX_NAME: usize = 200;

/// Where pictures go.
pub(super) enum Tree {
    Folder(PathBuf),
    Zip(Box<ZipWriter<BufWriter<File>>>),
}

impl Tree {
    pub(super) fn zip(file: File) -> Tree {
        Tree::Zip(Box::new(ZipWriter::new(BufWriter::new(file))))
    }

    /// Makes the folder of a class, which must be a new one.
    fn folder(&self, out: &Path, name: &str) -> Result<()> {
        let Tree::Folder(root) = self else { return Ok(()) };
        let path = root.join(name);
        let failed = |source| Error::io(out.join(name), "cannot make the folder", source);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed)?;
        }
        match fs::create_dir(&path) {
            // Where a class lies below another, the outer one may come second.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && is_empty_but_folders(&path) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::data(
                out.join(name),
                "is the folder of two classes on this file system, which takes their names for one; write a tar or npz",
            )),
            made => made.map_err(failed),
        }
    }

    fn picture(&mut self, out: &Path, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |source| Error::io(out.join(name), "cannot write the picture", source);
        match self {
            Tree::Folder(root) => match File::create_new(root.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::data(
                    out.join(name),
                    "is the file of two pictures on this file system, which takes their names for one; write a zip or tar",
                )),
                made => made.and_then(|mut file| file.write_all(bytes)).map_err(failed),
            },
            Tree::Zip(zip) => {
                // As they are: pictures do not get smaller.
                let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
                zip.start_file(name, options).map_err(|error| failed(error.into()))?;
                zip.write_all(bytes).map_err(failed)
            }
        }
    }

    pub(super) fn finish(self, out: &Path) -> Result<()> {
        let failed = |source| Error::io(out, "cannot write the zip", source);
        match self {
            Tree::Folder(_) => Ok(()),
            Tree::Zip(zip) => {
                let file = zip.finish().map_err(|error| failed(error.into()))?;
                let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
                file.sync_all().map_err(failed)
            }
        }
    }
}

fn is_empty_but_folders(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}

/// Writes the pictures of a group, and says after each that it is done.
pub(super) fn write(
    group: &Group,
    tree: &mut Tree,
    out: &Path,
    renamed: &mut Vec<String>,
    done: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let names = plan(group, out, renamed)?;
    let mut made = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if let Some((folder, _)) = name.rsplit_once('/')
            && made.insert(folder)
        {
            tree.folder(out, folder)?;
        }
        tree.picture(out, name, &group.file(i)?.bytes)?;
        done(i)?;
    }
    Ok(())
}

/// The path of every picture. It is read back here before anything is written: what a folder is called has meanings.
fn plan(group: &Group, out: &Path, renamed: &mut Vec<String>) -> Result<Vec<String>> {
    let files = file_names(group);
    // Classes as they are called; then with every `/` written out, which a class of a folder below another needs.
    let mut last = String::new();
    for nested in [true, false] {
        let digits = digits_of_all(&group.classes);
        let folder = |class: &String| match digits {
            // Folders are in the order of their names, and numbers in that of numbers: so it is the same.
            Some(digits) => format!("{class:0>digits$}"),
            None => folder_name(class, nested),
        };
        let folders: Vec<String> = group.classes.iter().map(folder).collect();
        let before = group.split.map_or(String::new(), |split| format!("{}/", split_name(split)));
        let path = |(i, file): (usize, &String)| format!("{before}{}/{file}", folders[group.labels[i] as usize]);
        let names: Vec<String> = files.iter().enumerate().map(path).collect();
        match misread(group.split, &names, &folders, &group.labels) {
            None => {
                let pairs = group.classes.iter().zip(&folders).filter(|(class, folder)| class != folder);
                renamed.extend(pairs.map(|(class, folder)| format!("{class} is {folder}")));
                return Ok(names);
            }
            Some(why) => last = why,
        }
    }
    Err(Error::data(
        out,
        format!("class folders do not suit this data: {last}; write a tar or npz, whose classes are text"),
    ))
}

/// The most digits of the classes, where all are whole numbers in the order of numbers; none where their names do.
fn digits_of_all(classes: &[String]) -> Option<usize> {
    let (least, most) = (classes.iter().map(String::len).min()?, classes.iter().map(String::len).max()?);
    (least < most && are_numbers(classes) && are_sorted_as_numbers(classes)).then_some(most)
}

/// What reading the folders gives other than what is meant.
fn misread(split: Option<Split>, names: &[String], folders: &[String], labels: &[u32]) -> Option<String> {
    let mut seen = HashSet::new();
    if let Some(twice) = folders.iter().find(|folder| !seen.insert(*folder)) {
        return Some(format!("two classes would be called {twice}"));
    }
    let planned = Planned::new(names);
    let read = match image_folder::select(&planned, split.unwrap_or(Split::All), &DataOptions::default()) {
        Ok(read) => read,
        Err(Error::Data { message, .. } | Error::NoSplit { message, .. }) => return Some(message),
        Err(other) => return Some(other.to_string()),
    };
    let mut wanted: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, &label) in names.iter().zip(labels) {
        wanted.entry(&folders[label as usize]).or_default().insert(name);
    }
    let found: BTreeMap<&str, BTreeSet<&str>> = read
        .classes
        .iter()
        .map(|(class, files)| (class.as_str(), files.iter().map(|&file| planned.files[file].as_str()).collect()))
        .collect();
    let odd = wanted.iter().find(|(class, files)| found.get(*class) != Some(files));
    odd.map(|(class, _)| format!("the folder {class} would be read as something else"))
}

/// The files that are to be written, as a listing.
struct Planned {
    files: Vec<String>,
}

impl Planned {
    fn new(names: &[String]) -> Self {
        let mut files = names.to_vec();
        files.sort();
        Planned { files }
    }
}

impl Listing for Planned {
    fn origin(&self) -> &Path {
        Path::new("")
    }
    fn files(&self) -> &[String] {
        &self.files
    }
    fn folders(&self) -> &[String] {
        &[]
    }
    fn read(&self, _: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn head(&self, _: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    fn size(&self, _: usize) -> u64 {
        0
    }
}

/// The names of the files: their own where they are names of a class of its own each, in the order of the data; else
/// numbers.
fn file_names(group: &Group) -> Vec<String> {
    let own = |i: usize| {
        let name = group.name(i)?;
        let is_named = listing::is_image_name(name) && listing::extension(name) == group.ending(i);
        (is_named && name.len() <= MAX_NAME && !listing::is_noise(name) && is_portable(name)).then_some(name)
    };
    let mut last: Vec<Option<&str>> = vec![None; group.classes.len()];
    let mut ascends = |i: usize| {
        let name = own(i)?;
        let last = &mut last[group.labels[i] as usize];
        let is_next = last.is_none_or(|last| last < name);
        *last = Some(name);
        is_next.then(|| name.to_owned())
    };
    let names: Option<Vec<String>> = (0..group.labels.len()).map(&mut ascends).collect();
    names.unwrap_or_else(|| (0..group.labels.len()).map(|i| format!("{i:08}.{}", group.ending(i))).collect())
}

/// Characters that Windows has in no name.
const NOT_ON_WINDOWS: &[char] = &['<', '>', ':', '"', '|', '?', '*', '\\'];
/// Devices there, whatever ending follows.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// Whether Windows takes one name for a device.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
    DEVICES.contains(&stem.as_str())
        || port.is_some_and(|number| number.len() == 1 && number.bytes().all(|byte| matches!(byte, b'1'..=b'9')))
}

/// Whether every system takes a name of a file as it is.
fn is_portable(name: &str) -> bool {
    !name.contains(NOT_ON_WINDOWS)
        && !name.contains(char::is_control)
        && !name.ends_with(['.', ' '])
        && !is_device(name)
}

/// A folder for a class: its name, where every system takes that, and it is read again as this class; what is not is written
/// as `%` and two digits. Of a name that is too long the beginning is kept, with a sum of all.
fn folder_name(class: &str, nested: bool) -> String {
    let part = |part: &str| {
        let mut name = String::new();
        for (at, c) in part.char_indices() {
            let is_last = at + c.len_utf8() == part.len();
            let is_edge = (c == '.' && (at == 0 || is_last)) || (c == ' ' && is_last);
            let odd = c == '/' || c.is_control() || NOT_ON_WINDOWS.contains(&c) || is_edge;
            if odd {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes).bytes().for_each(|byte| name += &format!("%{byte:02X}"));
            } else {
                name.push(c);
            }
        }
        if listing::is_noise(&name) || name.is_empty() || is_device(&name) {
            name.insert(0, '%');
        }
        if name.len() > MAX_NAME {
            let sum = format!("%{:016x}", xxh3_64(name.as_bytes()));
            name.truncate(name.floor_char_boundary(MAX_NAME - sum.len()));
            name += &sum;
        }
        name
    };
    if nested { class.split('/').map(part).collect::<Vec<_>>().join("/") } else { part(class) }
}
