//! Image folders inside a tar, as a listing: one pass over the headers finds the members, which are then read where they
//! lie. Nothing is extracted to disk, and a gzipped tar is not unpacked whole (`gzip`).
//!
//! Headers of the old, the POSIX (ustar, PAX) and GNU's kind are read. Only regular files have content; a link, a device
//! or a sparse file is listed, and refused when it is read. As for other programs, an archive ends at its first block of
//! zeros, so of several joined with `cat` the first counts.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tar::{EntryType, Header};

use super::gzip::{self, Gzip, Pass};
use super::index::{Index, Members};
use super::listing::{HEAD_BYTES, Listing, MAX_FILE_BYTES};
use crate::{Error, Result};

/// Headers and contents begin at multiples of this.
const BLOCK: u64 = 512;
/// The longest list of attributes, or name, before a header.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// The files of a tar archive.
pub(super) struct TarListing {
    archive: Archive,
    index: Index<Member>,
}

/// A tar, gzipped or not.
#[derive(Clone)]
pub(super) struct Archive {
    pub path: PathBuf,
    gzip: Option<Arc<Gzip>>,
}

impl Archive {
    /// Content from `offset` on. The file is opened each time: a data set may have more shards than a process may have open.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if let Some(gzip) = &self.gzip {
            return gzip.read_at(offset, out);
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }
}

/// Where the content of a file lies.
#[derive(Clone, Copy)]
pub(super) struct Member {
    offset: u64,
    pub bytes: u64,
    content: Content,
}

impl Member {
    /// The first bytes of the file, `most` of them or all, from the archive that it lies in; `path` is for messages.
    fn first(&self, archive: &Archive, path: &Path, most: u64) -> Result<Vec<u8>> {
        if let Some(why) = self.content.refusal() {
            return Err(Error::data(path, why));
        }
        let mut content = vec![0; self.bytes.min(most) as usize];
        let read = archive.read_at(self.offset, &mut content);
        read.map(|()| content).map_err(|source| Error::io(path, "cannot be read from the tar", source))
    }

    /// As [`Listing::lies_at`], within the archive.
    pub(super) fn lies_at(&self, archive: &Archive) -> u64 {
        if archive.gzip.is_some() { self.offset } else { 0 }
    }

    /// As [`Listing::head`].
    pub(super) fn head(&self, archive: &Archive, path: &Path) -> Result<Vec<u8>> {
        self.first(archive, path, HEAD_BYTES)
    }

    /// As [`Listing::read`].
    pub(super) fn read(&self, archive: &Archive, path: &Path) -> Result<Vec<u8>> {
        if self.bytes > MAX_FILE_BYTES {
            let message = format!("has more than {} MiB; make the image smaller", MAX_FILE_BYTES >> 20);
            return Err(Error::data(path, message));
        }
        self.first(archive, path, MAX_FILE_BYTES)
    }
}

/// What a member is, folders apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    File,
    Sparse,
    Link,
    /// A device, a pipe, or of a type that no standard has.
    Other,
}

impl Content {
    /// Why there is nothing to read.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Content::File => None,
            Content::Sparse => {
                Some("is a sparse file inside the tar, which is not read; repack it with `tar` without --sparse")
            }
            Content::Link => Some(
                "is a link inside the tar, which is not followed; repack it with `tar --dereference --hard-dereference`",
            ),
            Content::Other => Some("is no regular file inside the tar; repack it without this member"),
        }
    }
}

/// Whether the first bytes of a file called `name`, in lower case, are those of a tar: by POSIX's signature; where that is
/// missing, as in the oldest, by the name and a header that is right, or an archive of nothing.
pub(super) fn is_tar(head: &[u8], name: &str) -> bool {
    if head.get(257..262) == Some(b"ustar") {
        return true;
    }
    let Ok(block) = <&[u8; BLOCK as usize]>::try_from(head) else { return false };
    name.ends_with(".tar") && (block.iter().all(|&byte| byte == 0) || sum_is_right(Header::from_byte_slice(block)))
}

/// The name of a tar without the ending that says so, `.tar`, `.tar.gz` or `.tgz`; none for other names.
pub(crate) fn stem(name: &str) -> Option<&str> {
    [".tar", ".tar.gz", ".tgz"].iter().find_map(|ending| {
        let at = name.len().checked_sub(ending.len())?;
        name.get(at..).filter(|own| own.eq_ignore_ascii_case(ending)).map(|_| &name[..at])
    })
}

/// Whether a header is as long as the sum in it says. The field of the sum counts as blanks.
fn sum_is_right(header: &Header) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let bytes = header.as_bytes();
    header.cksum().is_ok_and(|said| said == sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]))
}

/// What lies before a header and says more of its member.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    bytes: Option<u64>,
    is_sparse: bool,
}

impl Extension {
    /// Takes over PAX's records, `LENGTH KEY=VALUE` and a line break each.
    fn take_records(&mut self, mut records: &[u8]) -> std::result::Result<(), String> {
        let wrong = || "a list of attributes cannot be read".to_owned();
        while !records.is_empty() {
            let digits = records.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
            let length = std::str::from_utf8(&records[..digits]).ok().and_then(|digits| digits.parse::<usize>().ok());
            let length = length.filter(|&length| length > digits + 1).ok_or_else(wrong)?;
            let record = records.get(digits + 1..length).and_then(|record| record.strip_suffix(b"\n"));
            let record = record.ok_or_else(wrong)?;
            records = &records[length..];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(wrong)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" if !self.is_sparse => self.name = Some(value.to_vec()),
                b"size" => {
                    let bytes = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    self.bytes = Some(bytes.ok_or_else(|| "a size among the attributes is no number".to_owned())?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    self.is_sparse = true;
                    if key == b"GNU.sparse.name" {
                        self.name = Some(value.to_vec());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What headers are read from.
trait Stream: Read {
    /// Goes `bytes` forwards, as far as the content reaches.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl Stream for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // Within the buffer nothing is read again.
        self.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    }
}

impl Stream for Pass {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        io::copy(&mut self.take(bytes), &mut io::sink()).map(|_| ())
    }
}

/// Reads headers one after the other.
struct Headers<'a, S> {
    path: &'a Path,
    stream: S,
    /// Bytes that were read or skipped.
    position: u64,
    /// Where the next header begins.
    at: u64,
    /// Of the content, where that is known.
    length: Option<u64>,
}

/// An archive that cannot be read: damaged, or by the system.
fn unreadable(path: &Path, source: io::Error) -> Error {
    let whole =
        |why: &dyn Display| Error::data(path, format!("is no whole gzip file ({why}); copy or download it again"));
    match source.kind() {
        io::ErrorKind::InvalidData => whole(&source),
        io::ErrorKind::UnexpectedEof => whole(&"it ends early"),
        io::ErrorKind::FileTooLarge => Error::data(path, format!("{source}; gunzip it if it is to be trusted")),
        _ => Error::io(path, "cannot read the tar", source),
    }
}

impl<S: Stream> Headers<'_, S> {
    fn damaged(&self, why: &str) -> Error {
        let message = format!("is not a whole tar (at byte {}: {why}); copy or download it again", self.at);
        Error::data(self.path, message)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("the file ends early"),
            _ => unreadable(self.path, source),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.length.is_some_and(|length| self.at >= length) {
            return Err(self.damaged("the file ends early, without the block of zeros that closes a tar"));
        }
        let mut header = Header::new_old();
        self.read(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if !sum_is_right(&header) {
            return Err(self.damaged("there is no header, by its check sum"));
        }
        Ok(Some(header))
    }

    /// What lies before the header and is `bytes` long.
    fn extension(&mut self, bytes: u64) -> Result<Vec<u8>> {
        if bytes > MAX_EXTENSION_BYTES {
            return Err(self.damaged(&format!("a name or a list of attributes of {bytes} bytes")));
        }
        let mut content = vec![0; bytes as usize];
        self.read(&mut content)?;
        Ok(content)
    }

    /// Goes to the header behind content that begins at `offset`.
    fn skip(&mut self, offset: u64, bytes: u64) -> Result<()> {
        let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(BLOCK));
        let end = end.filter(|_| self.length.is_none_or(|length| bytes <= length.saturating_sub(offset)));
        self.at = end.ok_or_else(|| self.damaged("a member is larger than what is left of the file"))?;
        self.stream.skip(self.at - self.position).map_err(|source| unreadable(self.path, source))?;
        self.position = self.at;
        Ok(())
    }

    /// The place of the content behind a header whose list of parts goes on in blocks of its own.
    fn behind_parts(&mut self, header: &Header) -> Result<u64> {
        let mut offset = self.at + BLOCK;
        let mut goes_on = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
        while goes_on {
            let mut parts = tar::GnuExtSparseHeader::new();
            self.read(parts.as_mut_bytes())?;
            offset += BLOCK;
            goes_on = parts.is_extended();
        }
        Ok(offset)
    }

    fn members(&mut self) -> Result<Members<Member>> {
        let mut members = Members::new();
        let mut extension = Extension::default();
        while let Some(header) = self.header()? {
            let said = header.entry_size().map_err(|error| self.damaged(&error.to_string()))?;
            let kind = header.entry_type();
            match kind.as_byte() {
                b'L' => {
                    let mut name = self.extension(said)?;
                    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                    extension.name = Some(name);
                    self.skip(self.at + BLOCK, said)?;
                    continue;
                }
                // Solaris wrote X.
                b'x' | b'X' => {
                    let records = self.extension(said)?;
                    extension.take_records(&records).map_err(|why| self.damaged(&why))?;
                    self.skip(self.at + BLOCK, said)?;
                    continue;
                }
                // The target of a link, attributes of all members, the name of a volume.
                b'K' | b'g' | b'V' => {
                    self.skip(self.at + BLOCK, said)?;
                    continue;
                }
                _ => {}
            }
            let Extension { name, bytes, is_sparse } = std::mem::take(&mut extension);
            let name = name.unwrap_or_else(|| header.path_bytes().into_owned());
            let name = String::from_utf8_lossy(&name).into_owned();
            let bytes = bytes.unwrap_or(said);
            let mut offset = self.at + BLOCK;
            // Links, folders and devices have no content, whatever their size says.
            let (content, bytes) = match kind {
                EntryType::Directory => (None, 0),
                // The oldest tars have no other sign of a folder.
                EntryType::Regular if name.ends_with('/') => (None, bytes),
                EntryType::Regular | EntryType::Continuous if is_sparse => (Some(Content::Sparse), bytes),
                EntryType::Regular | EntryType::Continuous => (Some(Content::File), bytes),
                EntryType::GNUSparse => {
                    offset = self.behind_parts(&header)?;
                    (Some(Content::Sparse), bytes)
                }
                EntryType::Link | EntryType::Symlink => (Some(Content::Link), 0),
                EntryType::Char | EntryType::Block | EntryType::Fifo => (Some(Content::Other), 0),
                _ => (Some(Content::Other), bytes),
            };
            members.add(self.path, &name, content.map(|content| Member { offset, bytes, content }))?;
            self.skip(offset, bytes)?;
        }
        Ok(members)
    }
}

impl TarListing {
    /// Lists the archive at `path`, one of `among` that are open together.
    pub(super) fn open(path: &Path, among: usize) -> Result<Self> {
        let failed = |source| Error::io(path, "cannot open the tar", source);
        let (members, gzip) = if gzip::is_gzip(path).map_err(failed)? {
            let pass = Pass::open(path, among).map_err(failed)?;
            let mut headers = Headers { path, stream: pass, position: 0, at: 0, length: None };
            let members = headers.members();
            // Of a damaged file that is what is said, whatever it does to the headers.
            let gzip = headers.stream.finish().map_err(|source| unreadable(path, source))?;
            (members?, Some(Arc::new(gzip)))
        } else {
            let file = File::open(path).map_err(failed)?;
            let length = Some(file.metadata().map_err(failed)?.len());
            (Headers { path, stream: BufReader::new(file), position: 0, at: 0, length }.members()?, None)
        };
        Ok(TarListing { archive: Archive { path: path.to_path_buf(), gzip }, index: members.index(path)? })
    }

    /// The archive, for [`Member::read`].
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Where the content of a file lies.
    pub(super) fn member(&self, file: usize) -> Member {
        self.index.places[file]
    }
}

impl Listing for TarListing {
    fn origin(&self) -> &Path {
        &self.archive.path
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
        self.index.places[file].bytes
    }
    fn lies_at(&self, file: usize) -> (usize, u64) {
        (0, self.member(file).lies_at(&self.archive))
    }
    fn head(&self, file: usize) -> Result<Vec<u8>> {
        self.member(file).head(&self.archive, &self.locate(file))
    }
    fn read(&self, file: usize) -> Result<Vec<u8>> {
        self.member(file).read(&self.archive, &self.locate(file))
    }
}
