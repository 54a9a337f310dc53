//! What a file is, by its first bytes: the content decides, and the name only where the content has no signature.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::{listing, tar_archive};
use crate::{Error, Result};

/// Enough for the signature of a tar archive.
const HEAD_BYTES: u64 = 512;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Zip,
    /// A tar, gzipped or not.
    Tar,
    /// A pickle, gzipped or not.
    Pickle,
    /// An idx file, gzipped or not.
    Idx,
    /// One NumPy array.
    Npy,
    Image,
    Unknown,
}

/// What `path` is.
///
/// # Errors
/// [`Error::Data`] for what is known and cannot be read, with what to do about it.
pub(super) fn of(path: &Path) -> Result<FileKind> {
    let (kind, name) = look(path)?;
    match name {
        Some(name) => Err(Error::data(path, name)),
        None => Ok(kind),
    }
}

/// What `path` is; `None` when it cannot be read, or is nothing that holds a data set.
pub(super) fn of_array(path: &Path) -> Option<FileKind> {
    let kind = look(path).ok()?.0;
    matches!(kind, FileKind::Zip | FileKind::Pickle | FileKind::Idx | FileKind::Npy).then_some(kind)
}

/// The kind, and what is wrong with it.
fn look(path: &Path) -> Result<(FileKind, Option<String>)> {
    let failed = |source| Error::io(path, "cannot read the data", source);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Ok((FileKind::Unknown, Some("is a device or a pipe; give a file or a folder".into())));
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
    let name = path.to_string_lossy().to_ascii_lowercase();
    if !head.starts_with(&[0x1f, 0x8b]) {
        let kind = by_content(&head, &name);
        let unreadable = if kind == FileKind::Unknown { archive(&head).map(|what| repack(what, "")) } else { None };
        return Ok((kind, unreadable));
    }
    file.rewind().map_err(failed)?;
    let mut inner = Vec::new();
    let is_damaged = MultiGzDecoder::new(file).take(HEAD_BYTES).read_to_end(&mut inner).is_err();
    let name = match tar_archive::stem(&name) {
        // The reader of tars says what is wrong with it.
        Some(_) if is_damaged => return Ok((FileKind::Tar, None)),
        Some(stem) => format!("{stem}.tar"),
        // The reader of idx files says what is wrong with a gzip file.
        None if is_damaged && inner.len() < 4 => return Ok((FileKind::Idx, None)),
        None => name.strip_suffix(".gz").unwrap_or(&name).to_owned(),
    };
    Ok(match by_content(&inner, &name) {
        kind @ (FileKind::Idx | FileKind::Pickle | FileKind::Tar) => (kind, None),
        FileKind::Zip => (FileKind::Unknown, Some(gunzip("zip archive"))),
        FileKind::Npy => (FileKind::Unknown, Some(gunzip("NumPy array"))),
        FileKind::Image => (FileKind::Unknown, Some(gunzip("image"))),
        FileKind::Unknown => {
            let what = archive(&inner).map(|what| repack(what, "gzipped "));
            (
                FileKind::Unknown,
                Some(what.unwrap_or_else(|| {
                    "is gzipped, and what is in it is neither an idx file nor a pickle; unpack it with gunzip".into()
                })),
            )
        }
    })
}

fn gunzip(what: &str) -> String {
    format!("is a gzipped {what}; unpack it with gunzip")
}

fn repack(what: &str, gzipped: &str) -> String {
    let article = if gzipped.is_empty() && what.starts_with(['H', 'X', 'a', 'R']) { "an" } else { "a" };
    let remedy = match what {
        "HDF5 file" | "MATLAB file" | "Parquet file" => {
            "save its images and labels with numpy.savez(.., images=.., labels=..)"
        }
        _ => "unpack it and give the folder, or repack it as a zip",
    };
    format!("is {article} {gzipped}{what}, which is not read; {remedy}")
}

fn by_content(head: &[u8], name: &str) -> FileKind {
    let extension = listing::extension(name);
    match head {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => FileKind::Zip,
        [0, 0, 8..=14, 1..=4, ..] => FileKind::Idx,
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => FileKind::Npy,
        [0x80, 2..=5, ..] => FileKind::Pickle,
        _ if tar_archive::is_tar(head, name) => FileKind::Tar,
        _ if archive(head).is_some() => FileKind::Unknown,
        _ if image::guess_format(head).is_ok() || listing::is_image_name(name) => FileKind::Image,
        // Protocols 0 and 1 have no signature: there the name has to say it.
        _ if matches!(extension.as_str(), "pickle" | "pkl" | "pk" | "p") => FileKind::Pickle,
        _ => FileKind::Unknown,
    }
}

/// Archives and containers that are not read.
fn archive(head: &[u8]) -> Option<&'static str> {
    Some(match head {
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "7z archive",
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => "RAR archive",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "XZ file",
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => "bzip2 file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "Zstandard file",
        [0x89, b'H', b'D', b'F', ..] => "HDF5 file",
        [b'M', b'A', b'T', b'L', b'A', b'B', b' ', ..] => "MATLAB file",
        [b'P', b'A', b'R', b'1', ..] => "Parquet file",
        _ => return None,
    })
}

/// The content of `path`, gunzipped where it is a gzip file.
///
/// # Errors
/// [`Error::Data`] when a gzip file unpacks to more than a pickle or a table ever does.
pub(super) fn read_unpacked(path: &Path, what: &str) -> Result<Vec<u8>> {
    const MAX_RATIO: u64 = 200;
    const RATIO_FREE_BYTES: u64 = 64 << 20;
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, format!("cannot read the {what}"), source))?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
    let mut content = Vec::new();
    MultiGzDecoder::new(bytes.as_slice()).take(limit + 1).read_to_end(&mut content).map_err(|source| {
        Error::data(path, format!("ends early or is damaged ({source}); copy or download it again"))
    })?;
    if content.len() as u64 > limit {
        return Err(Error::data(path, "unpacks to more than 200 times its size; gunzip it if it is to be trusted"));
    }
    Ok(content)
}

/// Whether there is a folder at `path`.
pub(super) fn is_folder(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(source) => Err(Error::io(
            path,
            "cannot read the data (give a folder, a .zip, .tar, .pickle, .npz or idx file, or the word glyphs)",
            source,
        )),
    }
}
