//! What a finished run notes in its checkpoint for answers on small supports: how similar pictures are to it.

use std::path::Path;

use super::validate::{self, Best};
use crate::Result;
use crate::data::ImageSet;
use crate::fewshot::reference::{Reference, Source};
use crate::train::Trainer;
use crate::train::checkpoint::Checkpoint;
use crate::train::reference::{self, measure, some};

fn keep(file: &Path, reference: Option<Reference>) -> Result<()> {
    let Some(found) = reference else { return Ok(()) };
    let mut checkpoint = Checkpoint::load(file)?;
    if reference::of(file, &checkpoint).ok().flatten().as_ref() == Some(&found) {
        return Ok(());
    }
    reference::put(&found, &mut checkpoint)?;
    checkpoint.save(file)
}

/// Measures the similarities of the validation classes, or without them of training classes, and keeps them in the
/// checkpoint at `file` and in that of the network that validated best.
///
/// # Errors
/// What the device refuses; files that cannot be read or written.
pub(super) fn note(trainer: &mut Trainer, data: &ImageSet, file: &Path, best: Option<&Best>) -> Result<()> {
    let held_out = trainer.validation_images().and_then(|images| some(images));
    let (few, source) = match held_out {
        Some(few) => (few, Source::HeldOut),
        None => match some(data) {
            Some(few) => (few, Source::TrainedOn),
            None => return Ok(()),
        },
    };
    let last = measure(&trainer.extractor()?, &few, source)?;
    keep(file, last.clone())?;
    match best {
        // The same network.
        Some(best) if best.validation.step == trainer.steps_done() => keep(&best.checkpoint, last),
        Some(best) => keep(&best.checkpoint, measure(&validate::network(trainer, best)?, &few, source)?),
        None => Ok(()),
    }
}
