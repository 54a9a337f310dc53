//! Validation during a run: the network as it is, scored on fixed episodes of classes that it does not train on. It
//! changes no number of the training.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::features::{Extractor, Layer};
use crate::data::{Episode, ImageSet, draw, room};
use crate::fewshot::{Classifier, EpisodeSize, Features, MeanInterval, score_episode};
use crate::progress::Silent;
use crate::{Error, Result};

/// Metadata key of what validation has found so far, as JSON; none in a run without validation.
pub const VALIDATION_KEY: &str = "validation";

/// Most classes and images per class that are embedded: enough for the episodes, and little beside the training.
const MOST: (usize, usize) = (20, 20);
/// Classes, shots and queries per class of the episodes, fewer where the classes have less, and their number.
const WAYS: usize = 5;
const SHOTS: [usize; 2] = [1, 5];
const QUERIES: usize = 15;
const EPISODES: usize = 600;
/// Validations in a row at which every row of the step was classified rightly, and nothing was gained: the training loss
/// has nothing left to teach.
const FITTED: u32 = 2;

/// The score of one validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validated {
    /// Finished steps.
    pub step: u32,
    /// 1-shot accuracy by the nearest mean of the support, which costs next to nothing, percent.
    pub one_shot_pct: f64,
    /// 5-shot accuracy by the same, percent.
    pub five_shot_pct: f64,
    /// Half of the 95 % interval of the mean of both over the episodes, points.
    pub interval_pct: f64,
}

impl Validated {
    /// What networks are compared by: the mean of both accuracies, percent.
    pub fn mean_pct(&self) -> f64 {
        0.5 * (self.one_shot_pct + self.five_shot_pct)
    }
}

/// What the validations of a run have found so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validations {
    /// The best network, by the mean of its accuracies; the earliest of equals.
    pub best: Option<Validated>,
    /// The last one that was better than its predecessor in this place by more than the noise.
    gained: Option<Validated>,
    /// Validations since then.
    without_gain: u32,
    /// Those at the end of them at which the step had no row wrong.
    fitted: u32,
    /// Why the run ended before its last step.
    pub ended: Option<String>,
}

impl Validations {
    /// Takes a score in, and says whether it is the best so far. With a patience the run ends once that many validations
    /// in a row bring no gain. Episodes are the same each time, so that half of the interval of one network, which is of
    /// independent episodes, is taken for noise. `accuracy` is that of the training step, 0 to 1.
    fn add(&mut self, new: Validated, accuracy: f64, patience: u32) -> bool {
        let beats = |old: &Option<Validated>, by: f64| old.is_none_or(|old| new.mean_pct() > old.mean_pct() + by);
        if beats(&self.gained, 0.5 * new.interval_pct) {
            (self.gained, self.without_gain, self.fitted) = (Some(new), 0, 0);
        } else {
            self.without_gain += 1;
            self.fitted = if accuracy >= 1.0 { self.fitted + 1 } else { 0 };
        }
        let best = beats(&self.best, 0.0);
        if best {
            self.best = Some(new);
        }
        if patience > 0 && (self.without_gain >= patience || self.fitted >= FITTED) {
            let since = self.gained.map_or(0, |gained| gained.step);
            self.ended = Some(match self.without_gain >= patience {
                true => format!("{} validations in a row were no better than that of step {since}", self.without_gain),
                false => format!(
                    "the steps of {FITTED} validations in a row had no row wrong, which leaves nothing to learn, and \
                     none was better than that of step {since}"
                ),
            });
        }
        best
    }

    /// As the checkpoint has it.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::Internal(e.to_string()))
    }

    /// That of a checkpoint; the beginning where it has none.
    ///
    /// # Errors
    /// [`Error::Data`] when it cannot be read.
    pub fn of(path: &Path, checkpoint: &Checkpoint) -> Result<Validations> {
        let Some(text) = checkpoint.metadata.get(VALIDATION_KEY) else { return Ok(Validations::default()) };
        let mut found: Validations = serde_json::from_str(text)
            .map_err(|e| Error::data(path, format!("its {VALIDATION_KEY:?} cannot be read ({e}): copy it again")))?;
        // A number in JSON may come back in another last bit.
        for score in [&mut found.best, &mut found.gained].into_iter().flatten() {
            *score = rounded(*score);
        }
        Ok(found)
    }
}

/// With three decimals.
fn rounded(score: Validated) -> Validated {
    let round = |number: f64| (1e3 * number).round() / 1e3;
    let Validated { step, one_shot_pct, five_shot_pct, interval_pct } = score;
    let [one_shot_pct, five_shot_pct, interval_pct] = [one_shot_pct, five_shot_pct, interval_pct].map(round);
    Validated { step, one_shot_pct, five_shot_pct, interval_pct }
}

/// Images and episodes of the validation of a run, with the network that is trained.
pub(super) struct Validator {
    pub images: Arc<ImageSet>,
    episodes: [Vec<Episode>; 2],
    extractor: Extractor,
}

/// The images that validation embeds: the first ones of each class, of classes spread over all that have enough.
///
/// # Errors
/// A sentence that says why there can be no episodes.
pub fn chosen(images: &ImageSet) -> std::result::Result<ImageSet, String> {
    let few = images.spread(SHOTS[1] + 1, MOST);
    if few.n_classes() < 2 {
        return Err(format!(
            "5-shot episodes want 2 classes of {} images or more, and the validation split has {} of them among {} \
             class{}",
            SHOTS[1] + 1,
            few.n_classes(),
            images.n_classes(),
            if images.n_classes() == 1 { "" } else { "es" }
        ));
    }
    Ok(few)
}

impl Validator {
    /// On images that [`chosen`] made.
    pub(super) fn new(images: Arc<ImageSet>, extractor: Extractor) -> Result<Validator> {
        let (ways, queries) = room(&images, WAYS, SHOTS[1], QUERIES).unwrap_or_default();
        let [one, five] = SHOTS.map(|shots| draw(&images, ways, shots, queries, EPISODES, 0));
        Ok(Validator { images, episodes: [one?, five?], extractor })
    }

    /// Scores the network as it is after `step` steps.
    pub(super) async fn score(&self, step: u32) -> Result<Validated> {
        let features = self.extractor.features_async(&self.images, Layer::Feature, None, &mut Silent).await?;
        let features = Features::new(&features, features.len() / self.images.len().max(1))?;
        let score = |episode: &Episode| {
            let size = EpisodeSize { ways: episode.ways, shots: episode.shots, queries: episode.queries };
            score_episode(features, &episode.support, &episode.query, size, Classifier::NearestCentroid)
        };
        let mut accuracies = [Vec::new(), Vec::new()];
        for (accuracies, episodes) in accuracies.iter_mut().zip(&self.episodes) {
            for episode in episodes {
                accuracies.push(score(episode)?);
            }
        }
        let [one, five] = &accuracies;
        let both: Vec<f64> = one.iter().zip(five).map(|(a, b)| 0.5 * (a + b)).collect();
        let (one, five, both) = (MeanInterval::of(one)?, MeanInterval::of(five)?, MeanInterval::of(&both)?);
        Ok(rounded(Validated {
            step,
            one_shot_pct: 100.0 * one.mean,
            five_shot_pct: 100.0 * five.mean,
            interval_pct: 100.0 * both.half_width.unwrap_or(0.0),
        }))
    }
}

/// What a trainer keeps of its validation.
#[derive(Default)]
pub(super) struct Watch {
    pub validator: Option<Validator>,
    pub found: Validations,
}

impl Watch {
    /// Whether there is one after `step` of `total` steps.
    pub(super) fn is_due(&self, every: u32, step: u32, total: u32) -> bool {
        self.validator.is_some() && every > 0 && (step.is_multiple_of(every) || step == total)
    }

    /// Scores the network; whether it is the best so far.
    pub(super) async fn validate(&mut self, step: u32, accuracy: f64, patience: u32) -> Result<(Validated, bool)> {
        let Some(validator) = &self.validator else { return Err(Error::Internal("there is no validation".into())) };
        let score = validator.score(step).await?;
        Ok((score, self.found.add(score, accuracy, patience)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn score(step: u32, pct: f64) -> Validated {
        Validated { step, one_shot_pct: pct - 5.0, five_shot_pct: pct + 5.0, interval_pct: 0.8 }
    }

    #[test]
    fn the_best_is_kept_and_patience_counts_what_is_beyond_noise() {
        let mut found = Validations::default();
        assert!(found.add(score(10, 50.0), 0.5, 3));
        assert!(found.add(score(20, 50.3), 1.0, 3), "better by less than noise is still the best");
        assert!(!found.add(score(30, 50.1), 0.9, 3));
        assert!(found.add(score(40, 50.5), 0.9, 3), "and in the long run a gain");
        assert_eq!((found.without_gain, found.ended.as_deref()), (0, None));
        for step in [50, 60] {
            assert!(!found.add(score(step, 50.5), 0.9, 3));
            assert_eq!(found.ended, None);
        }
        found.add(score(70, 40.0), 0.9, 3);
        assert_eq!(found.ended.as_deref(), Some("3 validations in a row were no better than that of step 40"));
        assert_eq!(found.best.unwrap().step, 40);
        let mut checkpoint = Checkpoint::default();
        checkpoint.metadata.insert(VALIDATION_KEY.into(), found.to_json().unwrap());
        assert_eq!(Validations::of(Path::new("a"), &checkpoint).unwrap(), found);
        checkpoint.metadata.insert(VALIDATION_KEY.into(), "{".into());
        assert!(Validations::of(Path::new("a"), &checkpoint).is_err());
    }

    #[test]
    fn a_loss_without_anything_left_to_learn_ends_a_run_only_with_patience() {
        for (patience, ends) in [(0, false), (9, true)] {
            let mut found = Validations::default();
            for step in 1..=3 {
                found.add(score(step, 50.0), 1.0, patience);
            }
            assert_eq!(found.ended.is_some(), ends, "{:?}", found.ended);
        }
    }

    #[test]
    fn images_are_chosen_of_classes_spread_over_all() {
        let (classes, each) = (45, 30);
        let labels: Vec<u32> = (0..classes * each).map(|i| i / each).collect();
        let images = ImageSet {
            side: 1,
            pixels: labels.clone(),
            names: labels.iter().map(u32::to_string).collect(),
            class_names: (0..classes).map(|i| i.to_string()).collect(),
            labels,
            ..ImageSet::default()
        };
        let few = chosen(&images).unwrap();
        few.validate_labelled().unwrap();
        assert_eq!((few.n_classes(), few.len()), (20, 400));
        assert_eq!((few.class_names[19].as_str(), few.pixels[399]), ("42", 42));
        let one = ImageSet { class_names: vec!["a".into()], labels: vec![0; 1350], ..images };
        assert!(chosen(&one).unwrap_err().contains("1 of them among 1 class"));
    }
}
