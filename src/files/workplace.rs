//! A folder beside what is written, in which that becomes whole. One process at a time has it; what a killed one left
//! there goes when the next opens it. Where the file system has no locks, nothing tells a killed process from a live one,
//! and the next is refused.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::TEMPORARY_PREFIX;
use super::journal::{Unusable, lock};
use crate::{Error, Result};

/// The file that is locked, and the one that there is instead of a lock.
const LOCK: &str = "lock";
const OWNER: &str = "owner";
/// How often it is tried again where another process removes the folder meanwhile.
const TRIES: usize = 100;

/// The folder, as long as this process has it.
pub struct Workplace {
    folder: PathBuf,
    /// None where the file system has no locks: there the file `owner` is what others find.
    lock: Option<File>,
}

impl Workplace {
    /// Makes the folder for `out`, and those above, and removes what a killed process had begun.
    ///
    /// # Errors
    /// [`Error::Data`] where another process is writing `out`, or may be on a file system without locks; [`Error::Io`] where
    /// nothing can be written there.
    pub fn open(out: &Path) -> Result<Workplace> {
        Workplace::open_by(out, lock)
    }

    fn open_by(out: &Path, lock: impl Fn(&File, &Path) -> std::result::Result<bool, Unusable>) -> Result<Workplace> {
        let failed = |e| Error::io(out, "cannot be written", e);
        let folder = folder_of(out);
        let lock_file = folder.join(LOCK);
        for _ in 0..TRIES {
            std::fs::create_dir_all(&folder).map_err(failed)?;
            let opened = File::options().create(true).truncate(false).write(true).open(&lock_file);
            let locked = opened.map_err(Unusable::Io).and_then(|file| match lock(&file, &lock_file)? {
                true => Ok(Some(file)),
                false => own(&folder).map(|()| None),
            });
            match locked {
                Ok(lock) => {
                    let place = Workplace { folder, lock };
                    place.clear().map_err(failed)?;
                    return Ok(place);
                }
                // Its owner has just removed it.
                Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let process = std::fs::read_to_string(folder.join(OWNER)).unwrap_or_default();
                    let process =
                        process.trim().parse::<u32>().map_or("another process".into(), |id| format!("process {id}"));
                    let why = format!(
                        "was begun by {process}, and this file system has no locks by which it would be known whether that is \
                         still writing: wait for its end, or where it has ended remove {}, or name another place",
                        folder.display()
                    );
                    return Err(Error::data(out, why));
                }
                Err(Unusable::Io(error)) => return Err(failed(error)),
                Err(Unusable::Busy | Unusable::Foreign) => {
                    let why = "is being written by another process; wait for its end, or name another place";
                    return Err(Error::data(out, why));
                }
            }
        }
        Err(failed(io::ErrorKind::ResourceBusy.into()))
    }

    /// Removes what a killed process had begun for `out`, where there is such; makes nothing.
    pub fn sweep(out: &Path) {
        if folder_of(out).is_dir() {
            // It goes with its owner. Harmless if it stays.
            drop(Workplace::open(out));
        }
    }

    /// Where the file or folder is written that is to be renamed once it is whole.
    pub fn whole(&self) -> PathBuf {
        self.folder.join("whole")
    }

    fn clear(&self) -> io::Result<()> {
        let whole = self.whole();
        let removed = match whole.symlink_metadata() {
            Ok(about) if about.is_dir() => std::fs::remove_dir_all(&whole),
            Ok(_) => std::fs::remove_file(&whole),
            Err(error) => Err(error),
        };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.lock.is_some() {
            // While it is locked, so that nobody else's goes. Some systems keep a file that is open until it is closed.
            let _ = std::fs::remove_dir_all(&self.folder);
            self.lock = None;
        } else {
            // That of the owner goes last: from then on all is somebody else's.
            let _ = self.clear();
            let _ = std::fs::remove_file(self.folder.join(LOCK));
            let _ = std::fs::remove_file(self.folder.join(OWNER));
        }
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Makes the file that says whose the folder is, with the number of this process.
fn own(folder: &Path) -> std::result::Result<(), Unusable> {
    let mut file = File::options().create_new(true).write(true).open(folder.join(OWNER))?;
    Ok(writeln!(file, "{}", std::process::id())?)
}

/// Of a fixed length, for the name of `out` may be as long as names can be.
fn folder_of(out: &Path) -> PathBuf {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().unwrap_or_default().as_encoded_bytes();
    parent.join(format!("{TEMPORARY_PREFIX}{:016x}.d", xxh3_64(name)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn without_locks_nobody_s_work_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let open = || Workplace::open_by(&out, |_, _| Ok(false));
        let place = open().unwrap();
        std::fs::write(place.whole(), "begun").unwrap();
        let refusal = open().err().unwrap().to_string();
        let folder = folder_of(&out);
        let process = format!("process {}", std::process::id());
        for words in [process.as_str(), "no locks", "remove", &folder.display().to_string()] {
            assert!(refusal.contains(words), "{refusal}");
        }
        assert_eq!(std::fs::read(place.whole()).unwrap(), b"begun");
        // Finished, it leaves nothing; killed, it leaves what the sentence names.
        drop(place);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        std::mem::forget(open().unwrap());
        assert!(open().is_err());
        std::fs::remove_dir_all(&folder).unwrap();
        drop(open().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
