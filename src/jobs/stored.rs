//! A checkpoint and its configuration, read once for a job.

use std::path::{Path, PathBuf};

use super::support_file::Labelled;
use crate::data::GLYPH_SIDE;
use crate::files::run_folder::{CONFIG_FILE, checkpoint_file};
use crate::settings::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::state::{CLASSES_KEY, CONFIG_KEY, SIDE_KEY, stored_config, stored_side};
use crate::{Error, Result};

/// The classifier's weight, `[outputs, embedding]`: its rows say how many classes a network was trained with.
const CLASSIFIER: &str = "classifier.weight";

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
    /// where there is one, and else the last. Where the file has no settings, because other
    /// software saved its tensors again, those of the `config.toml` beside it count.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] when there is no checkpoint, or none that can be used.
    pub fn open(path: &Path) -> Result<Stored> {
        let file = checkpoint_file(path)?;
        let checkpoint = Checkpoint::load(&file)?;
        Stored::of((file, checkpoint))
    }

    /// A checkpoint that was read from `file`.
    ///
    /// # Errors
    /// [`Error::Data`] when it cannot be used.
    pub(super) fn of((file, mut checkpoint): (PathBuf, Checkpoint)) -> Result<Stored> {
        if !checkpoint.metadata.contains_key(CONFIG_KEY) {
            supply_metadata(&file, &mut checkpoint)?;
        }
        let config = stored_config(&file, &checkpoint)?;
        let support = Labelled::take(&file, &mut checkpoint)?;
        Ok(Stored { file, checkpoint, config, support })
    }

    /// Side of the images that the network takes, pixels.
    ///
    /// # Errors
    /// [`Error::Data`] when the checkpoint does not say it, or says what no network takes.
    pub fn side(&self) -> Result<usize> {
        stored_side(&self.file, &self.checkpoint, &self.config)
    }

    /// The folder that the checkpoint lies in.
    pub fn folder(&self) -> &Path {
        self.file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
    }
}

/// Settings, classes and side of a checkpoint without metadata: from the `config.toml` beside it and from the tensors.
fn supply_metadata(file: &Path, checkpoint: &mut Checkpoint) -> Result<()> {
    let beside = file.with_file_name(CONFIG_FILE);
    if !beside.is_file() {
        return Err(Error::data(
            file,
            "its metadata has no \"config\", and no config.toml lies beside it: put that of the run there, or name a \
             checkpoint that `ieq-wgpu train` wrote",
        ));
    }
    let config = Config::from_layers(None, &beside)?;
    let outputs = checkpoint.tensors.get(CLASSIFIER).and_then(|tensor| tensor.shape.first()).copied();
    let classes = outputs.map(|outputs| outputs / config.method.class_rotations());
    let classes = classes.ok_or_else(|| {
        Error::data(
            file,
            format!("it has neither settings in its metadata nor the tensor {CLASSIFIER}: name a whole checkpoint"),
        )
    })?;
    let side = match config.data.side {
        Some(side) => side,
        None if config.data.is_glyphs() => GLYPH_SIDE,
        None => {
            return Err(Error::data(
                beside,
                "it sets no data.side, and the checkpoint has lost it: add `side` under [data], as the run's images \
                 had it",
            ));
        }
    };
    let mut put = |key: &str, value: String| drop(checkpoint.metadata.insert(key.into(), value));
    put(CONFIG_KEY, config.to_json()?);
    put(CLASSES_KEY, classes.to_string());
    put(SIDE_KEY, side.to_string());
    Ok(())
}
