//! Accuracy over few-shot episodes: of an evaluation, and of a run before and after its training.

use serde::{Deserialize, Serialize};

use super::{data_options, warn_of};
use crate::data::{self, Episode, ImageSet, Split};
use crate::fewshot::{self, Classifier, EpisodeSize, Features, MeanInterval};
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::features::Layer;
use crate::train::{Extractor, Trainer};
use crate::{Error, Result};

/// Accuracy over episodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The classifier's name.
    pub classifier: String,
    /// Classes per episode.
    pub ways: usize,
    /// Labelled images per class.
    pub shots: usize,
    /// Images to classify per class.
    pub queries: usize,
    /// Number of episodes.
    pub episodes: usize,
    /// Mean accuracy, percent.
    pub accuracy_pct: f64,
    /// Half of the 95 % interval, percent; none where one episode leaves it unknown.
    pub interval_pct: Option<f64>,
}

impl Score {
    /// Of `size`, from accuracies in 0..1.
    pub(super) fn new(classifier: Classifier, size: EpisodeSize, accuracy: MeanInterval) -> Self {
        Score {
            classifier: classifier.name().into(),
            ways: size.ways,
            shots: size.shots,
            queries: size.queries,
            episodes: accuracy.n,
            accuracy_pct: 100.0 * accuracy.mean,
            interval_pct: accuracy.half_width.map(|half| 100.0 * half),
        }
    }
}

/// A target that a job's first score is compared with; missing it is an error.
///
/// # Errors
/// [`Error::TargetMissed`].
pub fn meets(target: Option<f64>, scores: &[Score]) -> Result<()> {
    let Some(target) = target else { return Ok(()) };
    match scores.first() {
        Some(score) if score.accuracy_pct >= target => Ok(()),
        Some(score) => Err(Error::TargetMissed(format!(
            "{}-way {}-shot accuracy ({}) is {:.1} %, below `request.min_acc` {target}",
            score.ways, score.shots, score.classifier, score.accuracy_pct
        ))),
        None => Err(Error::TargetMissed(format!("there is no score to compare with `request.min_acc` {target}"))),
    }
}

/// What the support of an episode is made of, besides what classes and images it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Support<'a> {
    /// Features of augmented copies of all images, `[images, width]` each.
    pub copies: &'a [Vec<f32>],
    /// Whether the images themselves belong to it, too.
    pub plain: bool,
}

impl Support<'_> {
    /// The images as they are.
    pub(super) const PLAIN: Support<'static> = Support { copies: &[], plain: true };
}

/// The scores of features `[images, width]` over episodes.
pub(super) fn score(
    features: &[f32],
    width: usize,
    episodes: &[Episode],
    classifiers: &[Classifier],
    Support { copies, plain }: Support,
    progress: &dyn Progress,
) -> Result<Vec<Score>> {
    let Some(first) = episodes.first() else { return Ok(Vec::new()) };
    // Augmented copies of the support follow the images as further rows.
    let rows = features.len() / width;
    let mut all = features.to_vec();
    copies.iter().for_each(|copy| all.extend_from_slice(copy));
    let supports: Vec<Vec<u32>> = episodes
        .iter()
        .map(|e| {
            let class = |c: usize| &e.support[c * e.shots..(c + 1) * e.shots];
            let first = usize::from(!plain);
            let with_copies = |c: usize| {
                (first..=copies.len()).flat_map(move |k| class(c).iter().map(move |i| i + (k * rows) as u32))
            };
            (0..e.ways).flat_map(with_copies).collect()
        })
        .collect();
    let size = EpisodeSize { ways: first.ways, shots: first.shots, queries: first.queries };
    let with_copies = EpisodeSize { shots: first.shots * (usize::from(plain) + copies.len()), ..size };
    let pairs = supports.iter().zip(episodes).map(|(s, e)| (s.as_slice(), e.query.as_slice()));
    let pairs = pairs.take_while(|_| !progress.stop_requested());
    let scores = fewshot::score_episodes(Features::new(&all, width)?, pairs, with_copies, classifiers);
    progress.go_on()?;
    Ok(scores?.into_iter().map(|s| Score::new(s.classifier, size, s.accuracy)).collect())
}

/// Episodes on the novel classes that a run is scored with before and after: 5-way, 1 and 5 shots; fewer ways and queries
/// where the classes have less.
const RUN_EPISODES: (usize, [usize; 2], usize, usize) = (5, [1, 5], 15, 600);

/// Loads the novel classes that a run is scored on: those with enough images. Where it cannot be scored: none and a
/// warning, or with `required` an error.
pub(super) fn novel_classes(
    config: &Config,
    side: usize,
    required: bool,
    progress: &mut dyn Progress,
) -> Result<Option<ImageSet>> {
    let source = &config.data.source;
    let why = match data::load(source, Split::Novel, &data_options(&config.data, Some(side))) {
        Ok(novel) => {
            warn_of(&novel, progress);
            match scored_classes(novel, source, progress) {
                Ok(novel) => return Ok(Some(novel)),
                Err(why) => format!("{source}: {why}"),
            }
        }
        Err(error @ Error::NoSplit { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    if required {
        return Err(Error::usage(format!(
            "`request.min_acc` wants a score on novel classes, and there can be none ({why}): add to them, or leave it \
             out"
        )));
    }
    progress.warn(&format!("the run is not scored on novel classes: {why}"));
    Ok(None)
}

/// The classes that have room for episodes of the most shots, or else of the fewest; what they lack is said. The error
/// says why there are none.
fn scored_classes(novel: ImageSet, source: &str, progress: &mut dyn Progress) -> std::result::Result<ImageSet, String> {
    let (ways, shots, queries, _) = RUN_EPISODES;
    let by_class = novel.by_class();
    let with = |shots| -> Vec<usize> { (0..by_class.len()).filter(|&class| by_class[class].len() > shots).collect() };
    let kept = match with(shots[1]) {
        few if few.len() < 2 => with(shots[0]),
        enough => enough,
    };
    if kept.len() < 2 {
        let why = data::shortage(&novel, 2, shots[0], 1);
        return Err(why.unwrap_or_else(|| "fewer than two classes have two images".into()));
    }
    let chosen = match kept.len() == by_class.len() {
        true => novel,
        false => novel.subset(kept.iter().map(|&class| (class, by_class[class].as_slice()))),
    };
    let room = shots.map(|shots| data::room(&chosen, ways, shots, queries));
    if room != [Some((ways, queries)); 2] {
        let said = shots.iter().zip(room).filter_map(|(shots, room)| {
            room.map(|(ways, queries)| format!("{ways}-way {shots}-shot with {queries} queries of a class"))
        });
        let (said, all) = (said.collect::<Vec<_>>().join(", "), by_class.len());
        progress.note(&format!("{source}: {} of {all} novel classes have room for {said}", kept.len()));
    }
    Ok(chosen)
}

/// Scores a run's network as it is, and gives the features of the novel images that the scores are of; nothing to score it
/// on gives nothing.
pub(super) fn score_run(
    trainer: &mut Trainer,
    novel: Option<&ImageSet>,
    what: &str,
    progress: &mut dyn Progress,
) -> Result<(Vec<Score>, Vec<f32>)> {
    let Some(novel) = novel else { return Ok(Default::default()) };
    let which = if novel.is_trained_on() { "of the novel split" } else { "that it does not train on" };
    progress.note(&format!("scoring the {what} network on {} classes {which}", novel.n_classes()));
    embed_and_score(&trainer.extractor()?, novel, true, progress)
}

/// The features that a network has of the novel classes of its run, and with `wanted` its scores on them.
pub(super) fn embed_and_score(
    extractor: &Extractor,
    novel: &ImageSet,
    wanted: bool,
    progress: &mut dyn Progress,
) -> Result<(Vec<Score>, Vec<f32>)> {
    let features = extractor.features(novel, Layer::Feature, None, progress)?;
    let width = features.len() / novel.len();
    let (ways, shots, queries, n) = RUN_EPISODES;
    let mut scores = Vec::new();
    for shots in shots.into_iter().filter(|_| wanted) {
        let Some((ways, queries)) = data::room(novel, ways, shots, queries) else { continue };
        let episodes = data::draw(novel, ways, shots, queries, n, 0)?;
        scores.extend(score(&features, width, &episodes, &[Classifier::LogisticRegression], Support::PLAIN, progress)?);
    }
    Ok((scores, features))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const SIZE: EpisodeSize = EpisodeSize { ways: 5, shots: 1, queries: 15 };

    #[test]
    fn a_target_is_met_or_missed() {
        let score = |mean| {
            Score::new(Classifier::LogisticRegression, SIZE, MeanInterval { mean, half_width: Some(0.008), n: 600 })
        };
        assert!(meets(Some(60.0), &[score(0.6)]).is_ok());
        assert!(meets(None, &[]).is_ok());
        for missed in [meets(Some(60.0), &[score(0.599)]), meets(Some(60.0), &[score(f64::NAN)]), meets(Some(1.0), &[])]
        {
            assert!(matches!(&missed, Err(Error::TargetMissed(_))), "{missed:?}");
        }
        assert!(super::super::percentage(Some(f64::NAN)).is_err());
    }

    #[test]
    fn an_unknown_spread_is_null() {
        let score = Score::new(Classifier::NearestNeighbour, SIZE, MeanInterval::of(&[0.5]).unwrap());
        assert_eq!(score.interval_pct, None);
        assert!(serde_json::to_string(&score).unwrap().contains("\"interval_pct\":null"));
    }
}
