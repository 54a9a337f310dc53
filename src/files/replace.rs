//! Atomic replacement of a file: the one way in which this crate writes a file that may be there already.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;
use xxhash_rust::xxh3::xxh3_64;

use super::TEMPORARY_PREFIX;
use crate::{Error, Result};

/// Puts `bytes` at `path` in one step: written to a temporary file in the same folder, brought to the
/// disk, renamed over the old one. On any failure the old file is intact and the temporary one is gone;
/// `what` says what failed, as in "cannot write the checkpoint".
pub fn replace_file(path: &Path, what: &str, bytes: &[u8]) -> Result<()> {
    replace_with(path, what, |file| file.write_all(bytes))
}

/// As [`replace_file`], with the bytes that `write` writes.
///
/// # Errors
/// [`Error::Io`] for what `write` returns, and where the file cannot be written.
pub fn replace_with(path: &Path, what: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let io = |e| Error::io(path, what, e);
    let folder = folder_for(path, what)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // Private by default; a checkpoint is an ordinary file under the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    commit(builder.tempfile_in(folder).map_err(io)?, path, what, write)
}

/// As [`replace_with`], for a caller that no other process does the same work beside, as a lock can see to: what an
/// earlier one that was killed had begun is written over, and does not stay.
///
/// # Errors
/// As [`replace_with`].
pub fn replace_alone(path: &Path, what: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let io = |e| Error::io(path, what, e);
    let folder = folder_for(path, what)?;
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let temporary = folder.join(format!("{TEMPORARY_PREFIX}{:016x}", xxh3_64(name)));
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let file = File::create_new(&temporary).map_err(io)?;
    let temporary = tempfile::TempPath::try_from_path(&temporary).map_err(io)?;
    commit(NamedTempFile::from_parts(file, temporary), path, what, write)
}

/// The folder of a file that is to be replaced.
fn folder_for<'p>(path: &'p Path, what: &str) -> Result<&'p Path> {
    // A rename would put a plain file in the place of a device such as /dev/full.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(path, format!("{what}: there is a folder or a device; name a file")));
    }
    Ok(match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    })
}

/// Writes `temporary`, and puts it at `path`.
fn commit(
    mut temporary: NamedTempFile,
    path: &Path,
    what: &str,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<()> {
    let io = |e| Error::io(path, what, e);
    write(temporary.as_file_mut()).map_err(io)?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|e| io(e.error))?;
    // The rename itself is on the disk once the folder is. The file is complete either way, and some file
    // systems cannot sync a folder: no reason to call the save a failure.
    #[cfg(unix)]
    if let Ok(folder) = folder_for(path, what).and_then(|folder| File::open(folder).map_err(io)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_half_way_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.safetensors");
        std::fs::write(&path, "old").unwrap();
        let error = replace_with(&path, "cannot write the checkpoint", |file| {
            file.write_all(b"half")?;
            Err(std::io::ErrorKind::StorageFull.into())
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("last.safetensors: cannot write the checkpoint: "), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_had_begun_is_written_over_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        for round in 0..2 {
            // As a process leaves it that is killed while it writes.
            replace_alone(&path, "cannot write", |file| {
                file.write_all(b"half")?;
                let begun = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
                let begun = begun.filter(|entry| *entry != path).last().unwrap();
                std::fs::copy(&begun, begun.with_extension("copy")).map(|_| ())
            })
            .unwrap();
            for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "copy") {
                    std::fs::rename(entry.path(), entry.path().with_extension("")).unwrap();
                }
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
            replace_alone(&path, "cannot write", |file| file.write_all(&[round])).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), [round]);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}
