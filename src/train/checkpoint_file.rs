//! Checkpoints as files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::checkpoint::{Checkpoint, foreign};
use crate::files::replace_file;
use crate::{Error, Result};

impl Checkpoint {
    /// Writes the checkpoint to `path`, replacing a file there in one step: on any failure the old file
    /// is intact and nothing new is left.
    ///
    /// # Errors
    /// As [`Checkpoint::to_bytes`]; [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes = self.to_bytes().map_err(|error| match error {
            Error::NonFinite(what) => Error::NonFinite(format!("{}: {what}", path.display())),
            other => other,
        })?;
        replace_file(path, "cannot write the checkpoint", &bytes)
    }

    /// Reads the checkpoint at `path`, as [`Checkpoint::from_bytes`] does.
    ///
    /// # Errors
    /// As [`Checkpoint::from_bytes`]; [`Error::Io`] when the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Checkpoint::from_bytes(path, &read_file(path)?)
    }
}

/// The bytes of `path`, once its first ones can be those of a safetensors file: a wrong file may be large.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io(path, "cannot read the checkpoint", e);
    let mut file = File::open(path).map_err(io)?;
    let about = file.metadata().map_err(io)?;
    if !about.is_file() {
        let what = if about.is_dir() { "a folder" } else { "a device or pipe" };
        return Err(Error::data(path, format!("is {what}; name a .safetensors file")));
    }
    let mut bytes = Vec::new();
    (&mut file).take(16).read_to_end(&mut bytes).map_err(io)?;
    if let Some(message) = foreign(&bytes, about.len()) {
        return Err(Error::data(path, message));
    }
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
