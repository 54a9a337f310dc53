//! Image folders inside a zip, stored or deflated. Nothing is extracted to disk.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::index::{Index, Members};
use super::listing::{HEAD_BYTES, Listing, MAX_FILE_BYTES};
use crate::{Error, Result};

/// What one reading may unpack in all.
const MAX_TOTAL_BYTES: u64 = 16 << 30;
/// An entry above `RATIO_FREE_BYTES` may not unpack to more than this many times its stored size.
const MAX_RATIO: u64 = 200;
/// Small entries may be as empty as they like.
const RATIO_FREE_BYTES: u64 = 16 << 20;

/// The files of a zip archive.
pub(super) struct ZipListing {
    path: PathBuf,
    /// The place of a file is its number in the archive.
    index: Index<usize>,
    state: Mutex<State>,
}

struct State {
    archive: ZipArchive<BufReader<File>>,
    /// Bytes of the entries that were read.
    unpacked: u64,
    /// These, since some are read twice.
    read: HashSet<usize>,
}

/// Opens an archive.
pub(super) fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|source| Error::io(path, "cannot open the zip", source))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| explain(path, &error))
}

/// What is wrong with an archive or an entry, in words that say what to do.
pub(crate) fn explain(path: &Path, error: &ZipError) -> Error {
    match error {
        ZipError::UnsupportedArchive(why) if *why == ZipError::PASSWORD_REQUIRED => {
            Error::data(path, "is encrypted; repack it without a password")
        }
        ZipError::UnsupportedArchive(why) => {
            Error::data(path, format!("cannot be unpacked ({why}); repack it with the deflate or stored method"))
        }
        ZipError::CompressionMethodNotSupported(method) => {
            Error::data(path, format!("uses zip method {method}; repack it with the deflate or stored method"))
        }
        other => Error::data(path, format!("is not a whole zip ({other}); copy or download it again")),
    }
}

fn damaged(path: &Path, source: &std::io::Error) -> Error {
    Error::data(path, format!("cannot be unpacked ({source}); copy or download the zip again"))
}

/// Whether an entry can be unpacked.
///
/// # Errors
/// [`Error::Data`] for a method that is not read.
pub(super) fn check_method(path: &Path, archive: &mut ZipArchive<BufReader<File>>, entry: usize) -> Result<()> {
    let method = archive.by_index_raw(entry).map_err(|error| explain(path, &error))?.compression();
    match method {
        CompressionMethod::Stored | CompressionMethod::Deflated => Ok(()),
        other => {
            const NAMES: [(CompressionMethod, &str); 6] = [
                (CompressionMethod::DEFLATE64, "Deflate64"),
                (CompressionMethod::BZIP2, "bzip2"),
                (CompressionMethod::LZMA, "LZMA"),
                (CompressionMethod::ZSTD, "Zstandard"),
                (CompressionMethod::XZ, "XZ"),
                (CompressionMethod::AES, "AES"),
            ];
            let name =
                NAMES.iter().find(|(method, _)| *method == other).map_or("of another program", |&(_, name)| name);
            Err(Error::data(
                path,
                format!("is packed by the zip method {name}; repack it with the deflate or stored method"),
            ))
        }
    }
}

impl ZipListing {
    /// Lists the archive at `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let archive = open(path)?;
        let mut members = Members::new();
        for entry in 0..archive.len() {
            let Some(name) = archive.name_for_index(entry) else { continue };
            let raw = name.map_err(|error| explain(path, &error))?.replace('\\', "/");
            members.add(path, &raw, (!raw.ends_with('/')).then_some(entry))?;
        }
        let state = Mutex::new(State { archive, unpacked: 0, read: HashSet::new() });
        Ok(ZipListing { path: path.to_path_buf(), index: members.index(path)?, state })
    }
}

impl Listing for ZipListing {
    fn origin(&self) -> &Path {
        &self.path
    }
    fn files(&self) -> &[String] {
        &self.index.files
    }
    fn folders(&self) -> &[String] {
        &self.index.folders
    }

    fn runs(&self) -> &[String] {
        &self.index.runs
    }

    fn size(&self, file: usize) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.archive.by_index_raw(self.index.places[file]).map_or(0, |entry| entry.size())
    }

    fn head(&self, file: usize) -> Result<Vec<u8>> {
        let path = self.locate(file);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        check_method(&path, &mut state.archive, self.index.places[file])?;
        let entry = state.archive.by_index(self.index.places[file]).map_err(|error| explain(&path, &error))?;
        let mut head = Vec::new();
        let read = entry.take(HEAD_BYTES).read_to_end(&mut head);
        read.map(|_| head).map_err(|source| damaged(&path, &source))
    }

    /// Counts the bytes that come out: what the header promises is not trusted.
    fn read(&self, file: usize) -> Result<Vec<u8>> {
        let path = self.locate(file);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { archive, unpacked, read } = &mut *state;
        check_method(&path, archive, self.index.places[file])?;
        let entry = archive.by_index(self.index.places[file]).map_err(|error| explain(&path, &error))?;
        let by_ratio = entry.compressed_size().saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
        let limit = MAX_FILE_BYTES.min(by_ratio);
        let mut content = Vec::new();
        entry.take(limit + 1).read_to_end(&mut content).map_err(|source| damaged(&path, &source))?;
        if content.len() as u64 > limit {
            let why = if limit == MAX_FILE_BYTES { "256 MiB" } else { "200 times its stored size" };
            return Err(Error::data(
                &path,
                format!("unpacks to more than {why}; a zip of images never does, remove it"),
            ));
        }
        if read.insert(file) {
            *unpacked += content.len() as u64;
        }
        if *unpacked > MAX_TOTAL_BYTES {
            return Err(Error::data(
                &self.path,
                format!("unpacks to more than {} GiB; unpack it to a folder first", MAX_TOTAL_BYTES >> 30),
            ));
        }
        Ok(content)
    }
}
