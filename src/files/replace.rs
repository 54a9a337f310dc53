//! Atomic replacement of a file: the one way in which this crate writes a file that may be there already.

use std::fs::File;
use std::io::Write;
use std::path::Path;

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
    // A rename would put a plain file in the place of a device such as /dev/full.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(path, format!("{what}: there is a folder or a device; name a file")));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    // Private by default; a checkpoint is an ordinary file under the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder).map_err(io)?;
    write(temporary.as_file_mut()).map_err(io)?;
    temporary.as_file().sync_all().map_err(io)?;
    temporary.persist(path).map_err(|e| io(e.error))?;
    // The rename itself is on the disk once the folder is. The file is complete either way, and some file
    // systems cannot sync a folder: no reason to call the save a failure.
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder) {
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
}
