//! The similarities of a network's pictures, as its checkpoint keeps them.

use std::path::Path;

use super::checkpoint::Checkpoint;
use super::features::{Extractor, Layer};
use crate::data::{ImageSet, Statistics};
use crate::fewshot::reference::{LEAST, Reference, Source};
use crate::fewshot::{Features, l2_normalise};
use crate::progress::Silent;
use crate::{Error, Result};

/// Metadata key of the similarities, as JSON; none in checkpoints of earlier versions and of unfinished runs.
const REFERENCE_KEY: &str = "similarities";

/// Most classes and images per class that are embedded: a moment beside the training.
const MOST: (usize, usize) = (20, 12);

/// Some images of some classes that have enough; none where fewer than two have.
pub fn some(images: &ImageSet) -> Option<ImageSet> {
    Some(images.spread(LEAST, MOST)).filter(|few| few.n_classes() > 1)
}

/// Whether what a shipped network says of its similarities holds for such pictures. They were trained on drawings: photos,
/// which have no empty ground, are all more similar to them.
pub fn holds_for(pictures: &Statistics) -> bool {
    // Of emoji it is 0.5, of photos 0.1 to 0.2.
    const GROUND: f64 = 0.3;
    pictures.ground >= GROUND
}

/// How similar the images that [`some`] chose are to a network; none where that cannot be said.
///
/// # Errors
/// As [`Extractor::features_async`] and [`Reference::measure`].
pub async fn measure_async(extractor: &Extractor, few: &ImageSet, source: Source) -> Result<Option<Reference>> {
    let mut features = extractor.features_async(few, Layer::Feature, None, &mut Silent).await?;
    let width = features.len() / few.len().max(1);
    l2_normalise(&mut features, width);
    Reference::measure(Features::new(&features, width)?, &few.labels, few.n_classes(), source)
}

/// As [`measure_async`]; blocks.
///
/// # Errors
/// As [`measure_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn measure(extractor: &Extractor, few: &ImageSet, source: Source) -> Result<Option<Reference>> {
    pollster::block_on(measure_async(extractor, few, source))
}

/// What a checkpoint keeps, if anything.
///
/// # Errors
/// [`Error::Data`] when it cannot be read.
pub fn of(path: &Path, checkpoint: &Checkpoint) -> Result<Option<Reference>> {
    let Some(text) = checkpoint.metadata.get(REFERENCE_KEY) else { return Ok(None) };
    let broken =
        |why: String| Error::data(path, format!("its {REFERENCE_KEY:?} cannot be used ({why}): copy it again"));
    let found: Reference = serde_json::from_str(text).map_err(|e| broken(e.to_string()))?;
    let sound = |of: &crate::fewshot::reference::ByShots| {
        let spreads = [of.own, of.other].iter().all(|spread| spread.mean.is_finite() && spread.deviation > 0.0);
        spreads && of.temperature > 0.0 && of.shots > 0
    };
    let rising = found.by_shots.windows(2).all(|pair| pair[0].shots < pair[1].shots);
    if found.by_shots.is_empty() || !rising || !found.by_shots.iter().all(sound) {
        return Err(broken("a number in it is out of its range".into()));
    }
    Ok(Some(found))
}

/// Puts it into a checkpoint.
///
/// # Errors
/// [`Error::Internal`] when it cannot be written.
pub fn put(reference: &Reference, checkpoint: &mut Checkpoint) -> Result<()> {
    let text = serde_json::to_string(reference).map_err(|e| Error::Internal(e.to_string()))?;
    checkpoint.metadata.insert(REFERENCE_KEY.into(), text);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_or_is_refused() {
        let mut checkpoint = Checkpoint::default();
        let file = Path::new("a.safetensors");
        assert!(of(file, &checkpoint).unwrap().is_none());
        put(&Reference::typical(true), &mut checkpoint).unwrap();
        assert_eq!(of(file, &checkpoint).unwrap().unwrap(), Reference::typical(true));
        let text = checkpoint.metadata[REFERENCE_KEY].clone();
        for (from, to) in [("0.045", "0.0"), ("\"shots\":2", "\"shots\":1"), ("0.28", "-0.28"), ("{", "[")] {
            checkpoint.metadata.insert(REFERENCE_KEY.into(), text.replacen(from, to, 1));
            assert!(of(file, &checkpoint).unwrap_err().to_string().contains("copy it again"), "{to}");
        }
    }
}
