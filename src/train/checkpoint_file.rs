//! Checkpoints as files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::checkpoint::{Checkpoint, foreign};
#[cfg(feature = "formats")]
use super::pytorch;
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

    /// Reads the checkpoint at `path`, as [`Checkpoint::from_bytes`] does; with the feature `formats` also a file that
    /// `torch.save` wrote, as `Checkpoint::from_pytorch` does.
    ///
    /// # Errors
    /// As those; [`Error::Io`] when the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        #[cfg(feature = "formats")]
        if pytorch::is_one(&bytes) {
            return Checkpoint::from_pytorch(path, &bytes);
        }
        Checkpoint::from_bytes(path, &bytes)
    }

    /// Whether the file at `path` is one that `torch.save` wrote, by its first bytes and what a zip says that it holds.
    #[cfg(feature = "formats")]
    pub fn is_pytorch(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        let Ok(mut file) = File::open(path) else { return false };
        let mut head = Vec::new();
        let read = (&mut file).take(16).read_to_end(&mut head);
        read.is_ok() && pytorch::is_one(&head) && pytorch::check(path, &file, &head).is_ok()
    }
}

/// Whether a file begins so whose tensors are read.
#[cfg_attr(not(feature = "formats"), allow(unused_variables, reason = "the file is looked into"))]
fn check_head(path: &Path, file: &File, head: &[u8], length: u64) -> Result<()> {
    #[cfg(feature = "formats")]
    if pytorch::is_one(head) {
        return pytorch::check(path, file, head);
    }
    foreign(head, length).map_or(Ok(()), |message| Err(Error::data(path, message)))
}

/// The bytes of `path`, once its first ones can be those of a checkpoint: a wrong file may be large.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io(path, "cannot read the checkpoint", e);
    let mut file = File::open(path).map_err(io)?;
    let about = file.metadata().map_err(io)?;
    if !about.is_file() {
        let what = if about.is_dir() { "a folder" } else { "a device or pipe" };
        return Err(Error::data(path, format!("is {what}; name a .safetensors or .pth file")));
    }
    let mut bytes = Vec::new();
    (&mut file).take(16).read_to_end(&mut bytes).map_err(io)?;
    check_head(path, &file, &bytes, about.len())?;
    file.seek(SeekFrom::Start(bytes.len() as u64)).map_err(io)?;
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
