//! The validation of a training run: its classes, and what came of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::data_options;
use crate::data::{self, ImageSet, Split};
use crate::files::run_folder::BEST_FILE;
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::checkpoint::Checkpoint;
use crate::train::validation::{Validated, chosen};
use crate::train::{Extractor, Trainer};
use crate::{Error, Result};

/// The network that validated best.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// Its checkpoint.
    pub checkpoint: PathBuf,
    /// Its score on the validation classes, by the nearest mean of the support.
    pub validation: Validated,
}

/// Gives the trainer the validation classes of its data where `run.validate_every` asks for validation. Data without
/// such classes is trained on without it, and that is said. `read`: the classes, where they were read before.
pub(super) fn begin(
    trainer: &mut Trainer,
    side: usize,
    read: Option<Classes>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let config = &trainer.fitted().config;
    if config.run.validate_every == 0 {
        return Ok(());
    }
    match read.map_or_else(|| classes(config, side), Ok)? {
        Ok((few, warnings)) => {
            warnings.iter().for_each(|warning| progress.warn(warning));
            let (n, classes) = (few.len(), few.n_classes());
            trainer.validate_on(few)?;
            progress.note(&format!("validating on {n} images of {classes} classes that it does not train on"));
        }
        Err(why) => progress.warn(&format!("the run is not validated: {why}")),
    }
    Ok(())
}

/// The validation images of the data, with what is suspicious about them; or why there are none.
pub(super) type Classes = std::result::Result<(Arc<ImageSet>, Vec<String>), String>;

/// Reads the validation classes of the data.
///
/// # Errors
/// Data that cannot be read.
pub(super) fn classes(config: &Config, side: usize) -> Result<Classes> {
    let source = &config.data.source;
    match data::load(source, Split::Val, &data_options(&config.data, Some(side))) {
        Ok(images) => {
            let warnings = images.warnings.iter().map(|warning| warning.message.clone()).collect();
            Ok(chosen(&images).map(|few| (Arc::new(few), warnings)).map_err(|why| format!("{source}: {why}")))
        }
        Err(error @ Error::NoSplit { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The best network of a run that is over, where it was validated.
pub(super) fn best(trainer: &Trainer, folder: &Path) -> Option<Best> {
    let checkpoint = folder.join(BEST_FILE);
    let validation = trainer.validations().best.filter(|_| checkpoint.is_file())?;
    Some(Best { checkpoint, validation })
}

/// The network of the best checkpoint, on the trainer's device.
pub(super) fn network(trainer: &Trainer, best: &Best) -> Result<Extractor> {
    let stored = Checkpoint::load(&best.checkpoint)?;
    Ok(Extractor::open(trainer.kernels().clone(), &best.checkpoint, &stored, false)?.0)
}
