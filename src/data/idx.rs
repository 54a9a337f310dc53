//! MNIST's idx files, plain or gzipped: `train-images-idx3-ubyte(.gz)` beside `train-labels-idx1-ubyte(.gz)`, and `t10k-*`
//! likewise. The content decides what a file is, and the names which belong together. The digits' own split is by image;
//! few-shot needs one by class, so files with the same classes are pooled and the classes are split by seed.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::arrays::{self, ImageArray, Part, Pixels, Stream};
use super::kind::{self, FileKind};
use super::labels::{Label, MAX_LABELS};
use super::listing::{self, file_name};
use super::split::{Split, split_word, words};
use super::{DataOptions, ImageSet};
use crate::{Error, Result};

/// The idx files of images in a folder, sorted by name; empty when there are none.
pub(super) fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let (images, _) = list(folder)?;
    Ok(images)
}

/// The idx files of images and of labels in a folder, of a file and its copies the first.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = file_name(path);
            !listing::is_noise(&name)
                && may_be_idx(&name)
                && path.is_file()
                && kind::of_array(path) == Some(FileKind::Idx)
        })
        .collect();
    files.sort();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        // A damaged file counts as what its name says, so that it is not passed over.
        let says = |word: &str| file_name(&path).to_ascii_lowercase().contains(word);
        match open(&path) {
            Ok((shape, _)) if shape.len() >= 3 => images.push(path),
            Err(_) if says("image") => images.push(path),
            Err(_) if !says("label") => {}
            _ => labels.push(path),
        }
    }
    Ok((without_copies(images)?, labels))
}

/// A folder may hold large files of other kinds, so the name has a say, too.
fn may_be_idx(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    stem.contains("ubyte") || stem.contains("idx") || !stem.contains('.')
}

/// The name without `.gz`.
fn plain(path: &Path) -> String {
    let name = file_name(path);
    name.strip_suffix(".gz").map_or(name.clone(), str::to_owned)
}

/// Of a file and its copy the first, as torchvision leaves `train-images-idx3-ubyte` beside its `.gz`, and others
/// `train-images.idx3-ubyte`.
fn without_copies(files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut own: Vec<PathBuf> = Vec::new();
    for path in files {
        match own.iter().find(|other| family(other) == family(&path)) {
            None => own.push(path),
            Some(other) if same_content(other, &path)? => {}
            Some(other) => {
                let gzipped = if plain(other) == plain(&path) { "gzipped " } else { "same as " };
                return Err(Error::data(
                    &path,
                    format!("is not the {gzipped}{}; keep one of the two", file_name(other)),
                ));
            }
        }
    }
    Ok(own)
}

/// Whether two files unpack to the same bytes.
fn same_content(a: &Path, b: &Path) -> Result<bool> {
    let (mut a, mut b) = (unpack(a)?, unpack(b)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let fill = |content: &mut dyn Read, bytes: &mut [u8]| -> Option<usize> {
            let mut n = 0;
            while n < bytes.len() {
                match content.read(&mut bytes[n..]).ok()? {
                    0 => break,
                    more => n += more,
                }
            }
            Some(n)
        };
        let (n, m) = (fill(&mut a, &mut left), fill(&mut b, &mut right));
        let (Some(n), Some(m)) = (n, m) else { return Ok(false) };
        if left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// What the files of one data set have in common in their names, and the split of this one.
fn family(path: &Path) -> (String, Option<Split>) {
    let mut split = None;
    let mut rest = Vec::new();
    for word in words(&plain(path)) {
        match (word.as_str(), split_word(&word)) {
            ("t10k", _) => split = Some(Split::Novel),
            (_, Some(own)) => split = Some(own),
            ("images" | "image" | "labels" | "label" | "ubyte" | "idx" | "idx1" | "idx2" | "idx3" | "idx4", _) => {}
            _ => rest.push(word),
        }
    }
    (rest.join("-"), split)
}

/// Reads the classes of `split` from `files`.
pub(super) fn load(source: &Path, files: &[PathBuf], split: Split, options: &DataOptions) -> Result<ImageSet> {
    let (parts, choice) = arrays::of_split(source, parts_of(source, files)?, split, options)?;
    let mut set = arrays::read(source, parts, choice, options)?;
    if choice == arrays::Choice::All && matches!(split, Split::Val | Split::Novel) {
        let prints = |split| {
            let of_split = parts_of(source, files)?.into_iter().filter(|part| part.split == Some(split));
            arrays::prints(of_split.collect())
        };
        arrays::warn_of_shared(&mut set, source, prints(split)?, &prints(Split::Train)?, split);
    }
    Ok(set)
}

fn parts_of(source: &Path, files: &[PathBuf]) -> Result<Vec<Part<'static>>> {
    let mut parts = Vec::new();
    let mut first: Option<(Vec<usize>, String)> = None;
    for path in files {
        let (shape, content) = open(path)?;
        if shape.len() < 3 {
            return Err(Error::data(path, "holds labels, not images; give the file of images beside it"));
        }
        let labels = labels_of(path)?;
        if labels.len() != shape[0] {
            return Err(Error::data(path, format!("has {} images but its labels file {}", shape[0], labels.len())));
        }
        let (family, split) = family(path);
        if let Some((first, own)) = &first {
            if *own != family {
                return Err(Error::data(
                    source,
                    format!(
                        "holds several data sets, {own:?} and {family:?}; give the file of images of one, or move each \
                         into a folder of its own"
                    ),
                ));
            }
            if first[1..] != shape[1..] {
                return Err(Error::data(
                    path,
                    format!(
                        "holds images of shape {:?}, the files before it {:?}; give one file",
                        &shape[1..],
                        &first[1..]
                    ),
                ));
            }
        }
        let array = ImageArray::of(path, &shape, "u1", true)?;
        first.get_or_insert((shape, family));
        parts.push(Part { path: path.clone(), split, pixels: Pixels::Array(array, Box::new(Stream(content))), labels });
    }
    Ok(parts)
}

/// The labels that belong to a file of images: of the same name except for what says which is which.
fn labels_of(images: &Path) -> Result<Vec<Label>> {
    let name = plain(images);
    let folder = images.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (others, found) = list(folder)?;
    let own = family(images);
    let mut path = found.iter().find(|path| family(path) == own);
    if path.is_none() && found.len() == 1 && others.len() <= 1 {
        path = found.first();
    }
    let Some(path) = path else {
        let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
        return Err(Error::data(images, format!("has no labels beside it; put {labels} or {labels}.gz there")));
    };
    let (shape, mut content) = open(path)?;
    let n = match shape[..] {
        [n] | [n, 1] => n,
        _ => return Err(Error::data(path, format!("holds an array of shape {shape:?}, not one label per image"))),
    };
    if n > MAX_LABELS {
        return Err(Error::data(path, format!("says that it holds {n} labels, more than {MAX_LABELS}")));
    }
    let mut bytes = Vec::new();
    content.by_ref().take(n as u64).read_to_end(&mut bytes).map_err(|source| damaged(path, &source.to_string()))?;
    if bytes.len() != n {
        return Err(damaged(path, &format!("{} of {n} labels", bytes.len())));
    }
    Ok(bytes.into_iter().map(|byte| Label::Number(i64::from(byte))).collect())
}

/// The content, unpacked.
fn unpack(path: &Path) -> Result<Box<dyn Read>> {
    let failed = |source| Error::io(path, "cannot read the file", source);
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = Vec::new();
    file.by_ref().take(2).read_to_end(&mut magic).map_err(failed)?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let file = BufReader::new(file);
    Ok(if magic == [0x1f, 0x8b] { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// The shape, and the values that follow it.
fn open(path: &Path) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let mut content = unpack(path)?;
    let mut word = || {
        let mut bytes = [0; 4];
        content.read_exact(&mut bytes).map(|()| bytes).map_err(|source| damaged(path, &source.to_string()))
    };
    let [0, 0, kind, n_dims] = word()? else {
        return Err(Error::data(path, "is not an idx file: its first two bytes are not 0; copy or download it again"));
    };
    if kind != 8 || !(1..=4).contains(&n_dims) {
        return Err(Error::data(
            path,
            format!("holds type {kind} in {n_dims} dimensions; uint8 (8) in 1 to 4 is read"),
        ));
    }
    let shape = (0..n_dims).map(|_| Ok(u32::from_be_bytes(word()?) as usize)).collect::<Result<Vec<_>>>()?;
    Ok((shape, content))
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::data(path, format!("ends early or is damaged ({why}); copy or download it again"))
}
