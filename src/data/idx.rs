//! MNIST's idx files, plain or gzipped: `train-images-idx3-ubyte(.gz)` beside
//! `train-labels-idx1-ubyte(.gz)`, and `t10k-*` likewise. The digits' own split is by image; few-shot
//! needs one by class, so all files are pooled and the classes are split by seed.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::arrays::{self, Choice, ImageArray};
use super::split::Split;
use super::{DataOptions, ImageSet};
use crate::{Error, Result};

/// The most labels one file may hold.
const MAX_LABELS: usize = 1 << 28;

/// The idx files of images in a folder, sorted by name; `None` when there are none.
pub(super) fn find(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_image_file(&file_name(path)) && path.is_file())
        .collect();
    files.sort();
    Ok((!files.is_empty()).then_some(files))
}

fn is_image_file(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.contains("images") && (name.ends_with("idx3-ubyte") || name.ends_with("idx4-ubyte"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads the classes of `split` from the pooled `files`.
pub(super) fn load(source: &Path, files: &[PathBuf], split: Split, options: &DataOptions) -> Result<ImageSet> {
    let mut ids = Vec::new();
    let mut first: Option<Vec<usize>> = None;
    let mut contents: Vec<Box<dyn Read>> = Vec::new();
    for path in files {
        let (shape, content) = open(path)?;
        if shape.len() < 3 {
            return Err(Error::data(path, "holds labels, not images; give the file of images beside it"));
        }
        let labels = labels_of(path)?;
        if labels.len() != shape[0] {
            return Err(Error::data(path, format!("has {} images but its labels file {}", shape[0], labels.len())));
        }
        match &mut first {
            None => first = Some(shape),
            Some(first) if first[1..] == shape[1..] => first[0] += shape[0],
            Some(first) => {
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
        ids.extend(labels);
        contents.push(content);
    }
    let array = ImageArray::of_shape(source, &first.unwrap_or_default())?;
    let mut all: Box<dyn Read> = Box::new(std::io::empty());
    for content in contents {
        all = Box::new(all.chain(content));
    }
    arrays::read(source, array, &ids, &Choice::OfSplit(split), &mut all, options)
}

/// The labels file that belongs to a file of images.
fn labels_of(images: &Path) -> Result<Vec<i64>> {
    let name = file_name(images);
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    let labels = plain.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let found = [labels.clone(), format!("{labels}.gz")]
        .into_iter()
        .map(|name| images.with_file_name(name))
        .find(|path| path.is_file() && path != images);
    let Some(path) = found else {
        return Err(Error::data(images, format!("has no labels beside it; put {labels} or {labels}.gz there")));
    };
    let (shape, mut content) = open(&path)?;
    let [n] = shape[..] else {
        return Err(Error::data(path, format!("holds an array of shape {shape:?}, not labels")));
    };
    if n > MAX_LABELS {
        return Err(Error::data(path, format!("says that it holds {n} labels, more than {MAX_LABELS}")));
    }
    let mut bytes = Vec::new();
    content.by_ref().take(n as u64).read_to_end(&mut bytes).map_err(|source| damaged(&path, &source.to_string()))?;
    if bytes.len() != n {
        return Err(damaged(&path, &format!("{} of {n} labels", bytes.len())));
    }
    Ok(bytes.into_iter().map(i64::from).collect())
}

/// The shape, and the values that follow it.
fn open(path: &Path) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let failed = |source| Error::io(path, "cannot read the file", source);
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = Vec::new();
    file.by_ref().take(2).read_to_end(&mut magic).map_err(failed)?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let file = BufReader::new(file);
    let mut content: Box<dyn Read> =
        if magic == [0x1f, 0x8b] { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) };
    let mut word = || {
        let mut bytes = [0; 4];
        content.read_exact(&mut bytes).map(|()| bytes).map_err(|source| damaged(path, &source.to_string()))
    };
    let [0, 0, kind, n_dims] = word()? else {
        return Err(Error::data(
            path,
            "is not an idx file (its first two bytes are not 0); unpack other archives first",
        ));
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
