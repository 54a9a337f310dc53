//! A checkpoint and its configuration, read once for a job.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::supply::supply;
use super::support_file::Labelled;
use crate::files::run_folder::checkpoint_file;
use crate::settings::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::state::{CONFIG_KEY, stored_config, stored_side};
use crate::{Error, Result};

/// A checkpoint that was read, and its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The file.
    pub file: PathBuf,
    /// Its tensors and metadata.
    pub checkpoint: Checkpoint,
    /// The settings of the run that wrote it.
    pub config: Config,
    /// The support that `predict` saved with it.
    pub support: Option<Labelled>,
}

impl Stored {
    /// Reads the checkpoint that `path` names: a file, or a run folder, of which the network that validated best is meant
    /// where there is one, and else the last. Where the file has no settings, because another
    /// program saved it, they are those of a file of settings beside it (`net.toml` for `net.pth`, or `config.toml`), under
    /// what the tensors say.
    ///
    /// # Errors
    /// [`crate::Error::Data`] or [`crate::Error::Io`] when there is no checkpoint, or none that can be used.
    pub fn open(path: &Path) -> Result<Stored> {
        let file = checkpoint_file(path)?;
        let checkpoint = Checkpoint::load(&file)?;
        Stored::of((file, checkpoint))
    }

    /// As [`Stored::open`], a checkpoint of another program with the settings that are `given`.
    ///
    /// # Errors
    /// [`Error::Data`] where it has settings of its own; as [`Stored::open`].
    pub fn open_with(path: &Path, given: &Config) -> Result<Stored> {
        let file = checkpoint_file(path)?;
        let checkpoint = Checkpoint::load(&file)?;
        Stored::with((file, checkpoint), given)
    }

    /// A checkpoint of another program, read from `file`, with the settings that are `given`.
    ///
    /// # Errors
    /// [`Error::Data`] where it has settings of its own, or cannot be used.
    pub(super) fn with((file, mut checkpoint): (PathBuf, Checkpoint), given: &Config) -> Result<Stored> {
        if checkpoint.metadata.contains_key(CONFIG_KEY) {
            return Err(Error::data(
                file,
                "it has settings of its own, and those that are given are for networks of other programs: leave them out",
            ));
        }
        supply(&file, &mut checkpoint, Some(given))?;
        Stored::of((file, checkpoint))
    }

    /// A checkpoint that was read from `file`.
    ///
    /// # Errors
    /// [`crate::Error::Data`] when it cannot be used.
    pub(super) fn of((file, mut checkpoint): (PathBuf, Checkpoint)) -> Result<Stored> {
        if !checkpoint.metadata.contains_key(CONFIG_KEY) {
            supply(&file, &mut checkpoint, None)?;
        }
        let config = stored_config(&file, &checkpoint)?;
        let support = Labelled::take(&file, &mut checkpoint)?;
        Ok(Stored { file, checkpoint, config, support })
    }

    /// A hash of the checkpoint, XXH3 of 128 bits: what was made by it is told by that.
    ///
    /// # Errors
    /// [`Error::Data`] when the tensors cannot be written as bytes.
    pub fn fingerprint(&self) -> Result<String> {
        Ok(format!("{:032x}", xxh3_128(&self.checkpoint.to_bytes()?)))
    }

    /// Side of the images that the network takes, pixels.
    ///
    /// # Errors
    /// [`crate::Error::Data`] when the checkpoint does not say it, or says what no network takes.
    pub fn side(&self) -> Result<usize> {
        stored_side(&self.file, &self.checkpoint, &self.config)
    }

    /// The folder that the checkpoint lies in.
    pub fn folder(&self) -> &Path {
        self.file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
    }
}
