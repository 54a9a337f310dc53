//! What a finished run notes in its checkpoint for answers on small supports: how similar pictures are to it.

use std::path::Path;

use super::validate::{self, Best};
use crate::Result;
use crate::data::ImageSet;
use crate::fewshot::reference::{LEAST, Reference, Source};
use crate::fewshot::{Features, l2_normalise};
use crate::progress::Silent;
use crate::train::checkpoint::Checkpoint;
use crate::train::features::Layer;
use crate::train::{Extractor, Trainer, reference};

/// Most classes and images per class that are embedded: a moment beside the training.
const MOST: (usize, usize) = (20, 12);

/// Some images of some classes that have enough; none where fewer than two have.
fn some(images: &ImageSet) -> Option<ImageSet> {
    Some(images.spread(LEAST, MOST)).filter(|few| few.n_classes() > 1)
}

fn measured(extractor: &Extractor, few: &ImageSet, source: Source) -> Result<Option<Reference>> {
    let mut features = extractor.features(few, Layer::Feature, None, &mut Silent)?;
    let width = features.len() / few.len().max(1);
    l2_normalise(&mut features, width);
    Reference::measure(Features::new(&features, width)?, &few.labels, few.n_classes(), source)
}

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
    let last = measured(&trainer.extractor()?, &few, source)?;
    keep(file, last.clone())?;
    match best {
        // The same network.
        Some(best) if best.validation.step == trainer.steps_done() => keep(&best.checkpoint, last),
        Some(best) => keep(&best.checkpoint, measured(&validate::network(trainer, best)?, &few, source)?),
        None => Ok(()),
    }
}
