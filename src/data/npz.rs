//! NumPy's `.npz`: a zip of `.npy` arrays, read one image at a time.

use std::io::Read;
use std::path::{Path, PathBuf};

use npyz::{DType, NpyHeader, Order};

use super::arrays::{self, Choice, ImageArray};
use super::{DataOptions, ImageSet, pickle, zip_archive};
use crate::{Error, Result};

/// NumPy writes headers of some 120 bytes; larger or deeply nested ones are not worth a parser's stack.
const MAX_HEADER_BYTES: u32 = 4096;
/// The most labels one file may hold.
const MAX_LABELS: usize = 1 << 28;

/// Whether the zip holds arrays rather than images.
pub(super) fn is_npz(path: &Path) -> Result<bool> {
    let archive = zip_archive::open(path)?;
    let all_npy = archive.file_names().all(|name| name.is_ok_and(|name| name.ends_with(".npy")));
    Ok(all_npy && !archive.is_empty())
}

/// Reads the array `images` (or `data`) of `path`, with the labels from the pickle `labels` or, without
/// one, from the array `labels`.
pub(super) fn load(path: &Path, labels: Option<&Path>, choice: &Choice, options: &DataOptions) -> Result<ImageSet> {
    let mut archive = zip_archive::open(path)?;
    let names: Vec<String> = archive.file_names().filter_map(|name| name.ok().map(|name| name.into_owned())).collect();
    let find = |array: &str| names.iter().find(|name| name.strip_suffix(".npy") == Some(array));
    let Some(images) = find("images").or_else(|| find("data")) else {
        return Err(Error::data(path, format!("has no array images (it has {names:?}); save it with images=...")));
    };
    let ids = match (labels, find("labels")) {
        (Some(pickle), _) => pickle::labels(pickle)?,
        (None, Some(name)) => {
            let mut entry = archive.by_name(name).map_err(|error| zip_archive::explain(path, &error))?;
            integers(&path.join(name), &mut entry)?
        }
        (None, None) => {
            return Err(Error::data(
                path,
                "has no labels: neither an array labels nor a file ..._labels.pkl beside it",
            ));
        }
    };
    let mut entry = archive.by_name(images).map_err(|error| zip_archive::explain(path, &error))?;
    let location: PathBuf = path.join(images);
    let header = header(&location, &mut entry)?;
    if code(&header) != "u1" {
        return Err(Error::data(location, format!("has type {}; save the images as uint8", header.dtype().descr())));
    }
    let shape = shape(&location, &header)?;
    let array = ImageArray::of_shape(&location, &shape)?;
    // The header's promise against the archive's, before any memory is taken.
    let promised = array.len() as u64 * array.image_bytes() as u64;
    if entry.size() < promised {
        return Err(Error::data(
            location,
            format!("has {} bytes but its shape {shape:?} wants {promised}; copy or download it again", entry.size()),
        ));
    }
    arrays::read(path, array, &ids, choice, &mut entry, options)
}

/// A C-ordered header, bounded before it is parsed.
fn header(path: &Path, content: &mut dyn Read) -> Result<NpyHeader> {
    let damaged =
        |why: String| Error::data(path, format!("is not a whole .npy array ({why}); save it again with NumPy"));
    let mut read = |n: usize| {
        let mut bytes = vec![0; n];
        content.read_exact(&mut bytes).map(|()| bytes).map_err(|source| damaged(source.to_string()))
    };
    let mut head = read(8)?;
    let length = read(if head[6] == 1 { 2 } else { 4 })?;
    let n = length.iter().rev().fold(0u32, |n, &byte| n << 8 | u32::from(byte));
    if !head.starts_with(b"\x93NUMPY") || n > MAX_HEADER_BYTES {
        return Err(damaged("its header is malformed".into()));
    }
    let text = read(n as usize)?;
    // 19 digits keep the product of the shape below 2^64.
    let count = |wanted: fn(&u8) -> bool| text.iter().filter(|byte| wanted(byte)).count();
    if count(|byte| matches!(byte, b'(' | b'[' | b'{')) > 8 || count(u8::is_ascii_digit) > 19 {
        return Err(damaged("its shape or type is not that of images or labels".into()));
    }
    head.extend(length);
    head.extend(text);
    let header = NpyHeader::from_reader(head.as_slice()).map_err(|source| damaged(source.to_string()))?;
    if header.order() != Order::C && header.shape().len() > 1 {
        return Err(Error::data(path, "is in Fortran order; save numpy.ascontiguousarray(..) of it"));
    }
    Ok(header)
}

/// The type's code without byte order, e.g. `u1`; empty for structures.
fn code(header: &NpyHeader) -> String {
    match header.dtype() {
        DType::Plain(plain) => plain.to_string().trim_start_matches(['|', '<', '>', '=']).to_string(),
        _ => String::new(),
    }
}

fn shape(path: &Path, header: &NpyHeader) -> Result<Vec<usize>> {
    let shape: Option<Vec<usize>> = header.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
    shape.ok_or_else(|| Error::data(path, format!("has the impossible shape {:?}", header.shape())))
}

fn integers(path: &Path, content: &mut dyn Read) -> Result<Vec<i64>> {
    let header = header(path, content)?;
    let code = code(&header);
    let (signed, size) = match code.as_str() {
        "u1" => (false, 1),
        "u2" => (false, 2),
        "u4" => (false, 4),
        "u8" => (false, 8),
        "i1" => (true, 1),
        "i2" => (true, 2),
        "i4" => (true, 4),
        "i8" => (true, 8),
        _ => return Err(Error::data(path, format!("has type {}; save the labels as int64", header.dtype().descr()))),
    };
    let big_endian = header.dtype().descr().contains('>');
    let [n] = shape(path, &header)?[..] else {
        return Err(Error::data(path, format!("has shape {:?}; labels are one flat list", header.shape())));
    };
    if n > MAX_LABELS {
        return Err(Error::data(path, format!("says that it holds {n} labels, more than {MAX_LABELS}")));
    }
    let mut bytes = Vec::new();
    content
        .take((n * size) as u64)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::data(path, format!("cannot be unpacked ({source}); copy or download it again")))?;
    let numbers: Option<Vec<i64>> =
        bytes.chunks_exact(size).map(|bytes| super::unpickle::integer(bytes, signed, big_endian)).collect();
    match numbers {
        Some(numbers) if numbers.len() == n => Ok(numbers),
        Some(numbers) => {
            Err(Error::data(path, format!("has {} of its {n} labels; copy or download it again", numbers.len())))
        }
        None => Err(Error::data(path, "holds a label beyond 64-bit signed integers; save the labels as int64")),
    }
}
