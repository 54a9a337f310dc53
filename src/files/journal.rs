//! A file that grows by whole records: what a process had written when it was killed can be read back, and no more.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64;

/// What such a file begins with.
const MAGIC: &[u8; 8] = b"IEQPART1";

/// Bytes before each record: its length, and its check sum.
const FRAME: usize = 4 + 8;

/// How often what was written is brought to the disk: a loss of power costs no more than this.
const SYNC_EVERY: Duration = Duration::from_secs(10);

/// A journal that this process writes to: no other process can, as long as this lives.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of the whole records.
    end: u64,
    records: usize,
    synced: Instant,
}

/// Why there is no journal.
#[derive(Debug)]
pub enum Unusable {
    /// The file is something else.
    Foreign,
    /// Another process writes to it.
    Busy,
    /// The system's own reason.
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Unusable::Io(error)
    }
}

/// Locks the file, which is to be the one at `path`, for this process alone; `false`: the file system has no locks.
pub(super) fn lock(file: &File, path: &Path) -> Result<bool, Unusable> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Unusable::Busy),
        // Its owner has removed it since it was opened: the lock is on no file.
        _ if !is_at(file, path)? => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        locked => Ok(locked.is_ok()),
    }
}

/// Whether the open file is the one at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let (own, there) = (file.metadata()?, path.metadata()?);
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

impl Journal {
    /// Makes the file, which must not be there.
    ///
    /// # Errors
    /// [`Unusable::Io`] where it cannot be written.
    pub fn create(path: &Path) -> Result<Journal, Unusable> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        lock(&file, path)?;
        let mut journal = Journal { path: path.to_owned(), file, end: 0, records: 0, synced: Instant::now() };
        if let Err(error) = journal.file.write_all(MAGIC) {
            let _ = journal.remove();
            return Err(error.into());
        }
        journal.end = MAGIC.len() as u64;
        Ok(journal)
    }

    /// Opens a file that is there, and cuts off what is no whole record at its end.
    ///
    /// # Errors
    /// [`Unusable::Foreign`] for another file, [`Unusable::Busy`] for one in use.
    pub fn open(path: &Path) -> Result<Journal, Unusable> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        lock(&file, path)?;
        let mut magic = Vec::new();
        (&file).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if !MAGIC.starts_with(&magic) {
            return Err(Unusable::Foreign);
        }
        if magic.len() < MAGIC.len() {
            // Of a process that was killed as it made the file.
            (&file).write_all(&MAGIC[magic.len()..])?;
        }
        let mut journal =
            Journal { path: path.to_owned(), file, end: MAGIC.len() as u64, records: 0, synced: Instant::now() };
        let size = journal.file.metadata()?.len();
        let (mut end, mut records) = (journal.end, 0);
        journal.scan(size, &mut |record| {
            end += (FRAME + record.len()) as u64;
            records += 1;
            Ok(())
        })?;
        (journal.end, journal.records) = (end, records);
        journal.file.set_len(end)?;
        journal.file.seek(SeekFrom::Start(end))?;
        Ok(journal)
    }

    /// Number of whole records.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Bytes of the whole records.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Adds a record. One that cannot be written whole is taken back.
    ///
    /// # Errors
    /// The system's own reason.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let length = u32::try_from(record.len()).map_err(io::Error::other)?;
        let mut frame = Vec::with_capacity(FRAME + record.len());
        frame.extend(length.to_le_bytes());
        frame.extend(xxh3_64(record).to_le_bytes());
        frame.extend(record);
        if let Err(error) = self.file.write_all(&frame) {
            let _ = self.file.set_len(self.end);
            let _ = self.file.seek(SeekFrom::Start(self.end));
            return Err(error);
        }
        self.end += frame.len() as u64;
        self.records += 1;
        if self.synced.elapsed() >= SYNC_EVERY {
            self.file.sync_data()?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// Removes all records.
    ///
    /// # Errors
    /// The system's own reason.
    pub fn clear(&mut self) -> io::Result<()> {
        (self.end, self.records) = (MAGIC.len() as u64, 0);
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(self.end))?;
        Ok(())
    }

    /// Calls `each` with every record, in order.
    ///
    /// # Errors
    /// What `each` returns, and where a record cannot be read.
    pub fn visit(&mut self, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let (end, records) = (self.end, self.records);
        let mut n = 0;
        self.file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
        self.scan(end, &mut |record| {
            n += 1;
            each(record)
        })?;
        self.file.seek(SeekFrom::Start(end))?;
        if n == records { Ok(()) } else { Err(io::Error::other("its records were changed while it was open")) }
    }

    /// Reads from where the file stands up to `end`, as long as records are whole.
    fn scan(&self, end: u64, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut left = end.saturating_sub(MAGIC.len() as u64);
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        let mut record = Vec::new();
        while left >= FRAME as u64 {
            let (mut length, mut sum) = ([0; 4], [0; 8]);
            reader.read_exact(&mut length)?;
            reader.read_exact(&mut sum)?;
            left -= FRAME as u64;
            let length = u32::from_le_bytes(length);
            if u64::from(length) > left {
                break;
            }
            record.resize(length as usize, 0);
            reader.read_exact(&mut record)?;
            left -= u64::from(length);
            if xxh3_64(&record) != u64::from_le_bytes(sum) {
                break;
            }
            each(&record)?;
        }
        Ok(())
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The system's own reason.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn records(journal: &mut Journal) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut keep = |record: &[u8]| {
            all.push(record.to_vec());
            Ok(())
        };
        journal.visit(&mut keep).unwrap();
        all
    }

    #[test]
    fn what_was_written_whole_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.part");
        let mut journal = Journal::create(&path).unwrap();
        assert!(Journal::create(&path).is_err(), "no file is replaced");
        #[cfg(unix)]
        assert!(matches!(Journal::open(&path), Err(Unusable::Busy)));
        for record in [&b"first"[..], b"", b"third"] {
            journal.append(record).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let wanted: [&[u8]; 3] = [b"first", b"", b"third"];
        // Wherever it was cut off, the records before that are there, and it goes on behind them.
        for cut in MAGIC.len()..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            let n = journal.records();
            assert_eq!(n, [8 + 17, 8 + 17 + 12, whole.len()].iter().filter(|end| **end <= cut).count());
            assert_eq!(records(&mut journal), wanted[..n]);
            journal.append(b"more").unwrap();
            assert_eq!(records(&mut journal).len(), n + 1);
            drop(journal);
            assert_eq!(records(&mut Journal::open(&path).unwrap()).pop().unwrap(), b"more");
        }
        let mut journal = Journal::open(&path).unwrap();
        journal.clear().unwrap();
        journal.append(b"anew").unwrap();
        assert_eq!((journal.records(), records(&mut journal)), (1, vec![b"anew".to_vec()]));
        drop(journal);
        // A record that was changed ends it; another file is none.
        let mut changed = whole.clone();
        changed[8 + FRAME] ^= 1;
        std::fs::write(&path, changed).unwrap();
        assert_eq!(Journal::open(&path).unwrap().records(), 0);
        // One that was killed before it had written the first bytes.
        for begun in 0..MAGIC.len() {
            std::fs::write(&path, &MAGIC[..begun]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            journal.append(b"first").unwrap();
            drop(journal);
            assert_eq!(records(&mut Journal::open(&path).unwrap()), [b"first"]);
        }
        std::fs::write(&path, "a diary").unwrap();
        assert!(matches!(Journal::open(&path), Err(Unusable::Foreign)));
        assert_eq!(std::fs::read(&path).unwrap(), b"a diary", "it stays as it is");
    }
}
