//! A folder beside what is written, in which that becomes whole. One process at a time has it; what a killed one left
//! there goes when the next opens it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::TEMPORARY_PREFIX;
use super::journal::{Unusable, lock};
use crate::{Error, Result};

/// How often it is tried again where another process removes the folder meanwhile.
const TRIES: usize = 100;

/// The folder, as long as this process has it.
pub struct Workplace {
    folder: PathBuf,
    lock: Option<File>,
}

impl Workplace {
    /// Makes the folder for `out`, and those above, and removes what a killed process had begun.
    ///
    /// # Errors
    /// [`Error::Data`] where another process is writing `out`; [`Error::Io`] where nothing can be written there.
    pub fn open(out: &Path) -> Result<Workplace> {
        let failed = |e| Error::io(out, "cannot be written", e);
        let folder = folder_of(out);
        let lock_file = folder.join("lock");
        for _ in 0..TRIES {
            std::fs::create_dir_all(&folder).map_err(failed)?;
            let opened = File::options().create(true).truncate(false).write(true).open(&lock_file);
            let locked = opened.map_err(Unusable::Io).and_then(|file| lock(&file, &lock_file).map(|()| file));
            match locked {
                Ok(file) => {
                    let place = Workplace { folder, lock: Some(file) };
                    place.clear().map_err(failed)?;
                    return Ok(place);
                }
                // Its owner has just removed it.
                Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
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
        // While it is locked, so that nobody else's goes. Some systems keep a file that is open until it is closed.
        let _ = std::fs::remove_dir_all(&self.folder);
        self.lock = None;
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Of a fixed length, for the name of `out` may be as long as names can be.
fn folder_of(out: &Path) -> PathBuf {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().unwrap_or_default().as_encoded_bytes();
    parent.join(format!("{TEMPORARY_PREFIX}{:016x}.d", xxh3_64(name)))
}
