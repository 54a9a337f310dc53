//! A checkpoint and its configuration, read once for a job.

use std::path::{Path, PathBuf};

use super::supply::supply;
use super::support_file::Labelled;
use crate::Result;
use crate::files::run_folder::checkpoint_file;
use crate::settings::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::state::{CONFIG_KEY, stored_config, stored_side};

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

    /// As [`Stored::open`]; a file without settings has those that are `given`.
    ///
    /// # Errors
    /// As [`Stored::open`].
    pub fn open_with(path: &Path, given: &Config) -> Result<Stored> {
        let file = checkpoint_file(path)?;
        let mut checkpoint = Checkpoint::load(&file)?;
        if !checkpoint.metadata.contains_key(CONFIG_KEY) {
            supply(&file, &mut checkpoint, Some(given))?;
        }
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
