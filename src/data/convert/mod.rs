//! A data set in another format: what [`super::load`] reads, written as what it reads again as the same classes, pictures
//! and splits.
//!
//! Pictures pass one by one; those of files keep their bytes in files. What is written lies beside its place until it is
//! whole, and is then renamed.

mod arrays;
mod folders;
mod group;
mod shards;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::split::Split;
use super::{DataOptions, Warning};
use crate::files::Workplace;
use crate::progress::Progress;
use crate::{Error, Result};
use folders::Tree;
use group::Group;

/// What a data set is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Class folders, below split folders where there are splits.
    Folder,
    /// The same in a zip.
    Zip,
    /// Webdataset's shards.
    Tar,
    /// A NumPy archive per split.
    Npz,
    /// A pickle per split.
    Pickle,
    /// MNIST's files, per split.
    Idx,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 6] = [Format::Folder, Format::Zip, Format::Tar, Format::Npz, Format::Pickle, Format::Idx];
    /// Their names.
    pub const NAMES: &[&str] = &["folder", "zip", "tar", "npz", "pickle", "idx"];

    /// The name in requests.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Format::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("one of {} is wanted, got `{text}`", Format::NAMES.join(", ")))
    }
}

/// What was written of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The split's name; none where the data set has no splits.
    pub split: Option<&'static str>,
    /// Number of classes.
    pub classes: usize,
    /// Number of pictures.
    pub pictures: usize,
}

/// The name of a split in files and folders.
fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Novel => "test",
        Split::All => "all",
    }
}

/// Writes the data set `source`, read as `options` say, to `out`: a zip, or else a folder. Where pictures have to be of one
/// size, they are as large as [`DataOptions::side`] says. A tar has at most `shard_size` pictures.
///
/// # Errors
/// [`Error::Data`] and [`Error::Io`] for a source that cannot be read, an `out` that is there or lies inside the source,
/// and what the format cannot hold.
pub fn convert(
    source: &str,
    format: Format,
    out: &Path,
    (options, shard_size): (&DataOptions, usize),
    progress: &mut dyn Progress,
) -> Result<Vec<Written>> {
    super::options::check_side(options)?;
    // A killed call may have ended between the renaming and the removal of its folder.
    check_target(source, format, out).inspect_err(|_| Workplace::sweep(out))?;
    // Before anything is made.
    let found = group::find(source)?;
    let failed = |e| Error::io(out, "cannot be written", e);
    let place = Workplace::open(out)?;
    let whole = place.whole();
    let mut writer = Writer::new(format, &whole, out, shard_size).map_err(failed)?;
    let (mut written, mut warned, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    group::for_each(found.as_ref(), options, &mut |group| {
        for Warning { message, .. } in &group.warnings {
            if warned.insert(message.clone()) {
                progress.warn(message);
            }
        }
        for note in differences(&group, format, &seen) {
            progress.warn(&format!("{}: {note}", out.display()));
        }
        seen.extend(group.classes.iter().cloned());
        let n = group.labels.len();
        let split = group.split.map(split_name);
        let what = split.map_or("pictures".to_owned(), |split| format!("pictures of {split}"));
        progress.advance(&what, 0, n as u64);
        writer.group(&group, &mut |i| {
            progress.advance(&what, i as u64 + 1, n as u64);
            progress.go_on()
        })?;
        written.push(Written { split, classes: group.classes.len(), pictures: n });
        Ok(())
    })?;
    if written.is_empty() {
        return Err(Error::data(source, "has no picture in any split"));
    }
    for note in writer.finish()? {
        progress.warn(&note);
    }
    if let [Written { split: Some(split), .. }] = written.as_slice()
        && matches!(format, Format::Npz | Format::Pickle | Format::Idx)
    {
        progress.warn(&format!(
            "{}: arrays of {split} alone are split by seed when they are read; a folder, a zip or a tar keeps it as it is",
            out.display()
        ));
    }
    // What was put there meanwhile stays.
    check_target(source, format, out)?;
    // Some systems rename nothing over a folder, even an empty one.
    if out.is_dir() {
        std::fs::remove_dir(out).map_err(failed)?;
    }
    std::fs::rename(&whole, out).map_err(failed)?;
    Ok(written)
}

/// Whether something can be written at `out` and nothing is lost by it.
fn check_target(source: &str, format: Format, out: &Path) -> Result<()> {
    let is_empty = match out.symlink_metadata() {
        Err(_) => true,
        Ok(about) if about.is_dir() => std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()),
        Ok(about) => about.is_file() && about.len() == 0 && format == Format::Zip,
    };
    if !is_empty {
        return Err(Error::data(out, "is there already, and is not empty; name another place, or remove it"));
    }
    // Of a place that is not there yet, the nearest folder that is.
    let absolute = std::path::absolute(out).map_err(|e| Error::io(out, "cannot be written", e))?;
    let there = absolute.ancestors().find_map(|above| Some((above.canonicalize().ok()?, above)));
    let folder = Path::new(source).canonicalize().ok().filter(|folder| source != "glyphs" && folder.is_dir());
    if let (Some((there, above)), Some(folder)) = (there, folder) {
        let out_real = absolute.strip_prefix(above).map_or(there.clone(), |rest| there.join(rest));
        if out_real.starts_with(&folder) {
            return Err(Error::data(out, "lies inside of what is converted; name a place outside"));
        }
    }
    Ok(())
}

/// Whether all classes are called by whole numbers.
fn are_numbers(classes: &[String]) -> bool {
    classes.iter().all(|class| !class.is_empty() && class.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether whole numbers are in their order, as arrays and shards have them; folders have names in theirs.
fn are_sorted_as_numbers(classes: &[String]) -> bool {
    classes.is_sorted_by_key(|class| (class.len(), class))
}

/// What is not the same when the classes of a group are read from `format`; `seen` are those of the splits before.
fn differences(group: &Group, format: Format, seen: &BTreeSet<String>) -> Vec<String> {
    let (mut notes, classes) = (Vec::new(), &group.classes);
    if !are_numbers(classes) {
        return notes;
    }
    let is_text = matches!(format, Format::Folder | Format::Zip | Format::Tar);
    if group.split.is_none() && !matches!(format, Format::Folder | Format::Zip) && !are_sorted_as_numbers(classes) {
        notes.push(
            "its classes are numbers, which folders have in the order of their names and this format in that of the \
             numbers, so a split by seed is another one; a split file gives both the same"
                .into(),
        );
    }
    let shared: Vec<String> = classes.iter().filter(|class| seen.contains(*class)).cloned().collect();
    if is_text && group.is_array() && !shared.is_empty() {
        notes.push(format!(
            "the numbers {} are classes of several splits, which arrays count for each split and this format over all: in \
             the split all they are one class",
            super::image_set::few(&shared)
        ));
    }
    notes
}

/// Writes group by group.
struct Writer<'a> {
    format: Format,
    /// Where it is written, and where it will be.
    whole: &'a Path,
    out: &'a Path,
    shard_size: usize,
    tree: Option<Tree>,
    renamed: Vec<String>,
    numbered: Numbered,
}

impl<'a> Writer<'a> {
    fn new(format: Format, whole: &'a Path, out: &'a Path, shard_size: usize) -> std::io::Result<Writer<'a>> {
        let tree = match format {
            Format::Zip => Some(Tree::zip(std::fs::File::create_new(whole)?)),
            _ => {
                std::fs::create_dir(whole)?;
                (format == Format::Folder).then(|| Tree::Folder(PathBuf::from(whole)))
            }
        };
        let numbered = Numbered::default();
        Ok(Writer { format, whole, out, shard_size: shard_size.max(1), tree, renamed: Vec::new(), numbered })
    }

    fn group(&mut self, group: &Group, done: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
        let (whole, out) = (self.whole, self.out);
        match (self.format, &mut self.tree) {
            (Format::Folder | Format::Zip, Some(tree)) => folders::write(group, tree, out, &mut self.renamed, done),
            (Format::Npz, _) => arrays::npz(group, whole, out, done),
            (Format::Pickle, _) => arrays::pickle(group, whole, out, done),
            (Format::Idx, _) => {
                let numbers = self.numbered.numbers(&group.classes, out)?;
                arrays::idx(group, whole, out, &numbers, done)
            }
            _ => shards::write(group, whole, out, self.shard_size, done),
        }
    }

    /// Finishes; sentences on what is not as in the source.
    fn finish(self) -> Result<Vec<String>> {
        self.tree.map_or(Ok(()), |tree| tree.finish(self.out))?;
        let mut notes = Vec::new();
        if !self.renamed.is_empty() {
            notes.push(format!(
                "{}: {} classes are folders of other names, as theirs cannot be: {}",
                self.out.display(),
                self.renamed.len(),
                super::image_set::few(&self.renamed)
            ));
        }
        if !self.numbered.names.is_empty() {
            notes.push(format!(
                "{}: idx files know classes by numbers: {}",
                self.out.display(),
                super::image_set::few(&self.numbered.names)
            ));
        }
        Ok(notes)
    }
}

/// Numbers of classes over all splits: their own where they are called by such, else in order.
#[derive(Default)]
struct Numbered {
    used: BTreeSet<u8>,
    /// What is called otherwise, as `NUMBER is CLASS`.
    names: Vec<String>,
}

impl Numbered {
    fn numbers(&mut self, classes: &[String], out: &Path) -> Result<Vec<u8>> {
        let own = |class: &String| class.parse::<u8>().ok().filter(|number| number.to_string() == *class);
        let owned: Option<Vec<u8>> = classes.iter().map(own).collect();
        let owned = owned.filter(|_| self.names.is_empty());
        let mut numbers = Vec::new();
        for (at, class) in classes.iter().enumerate() {
            let number = owned.as_ref().map_or(self.used.len(), |owned| usize::from(owned[at]));
            let Some(number) = u8::try_from(number).ok() else {
                let most = arrays::MAX_IDX_CLASSES;
                return Err(Error::data(
                    out,
                    format!("idx files hold at most {most} classes, and this data has more; write npz"),
                ));
            };
            if !self.used.insert(number) {
                let why =
                    format!("the class {class} is in two splits, which idx files cannot say; write a tar or folders");
                return Err(Error::data(out, why));
            }
            if owned.is_none() {
                self.names.push(format!("{number} is {class}"));
            }
            numbers.push(number);
        }
        Ok(numbers)
    }
}
