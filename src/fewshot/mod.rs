//! Few-shot evaluation: from frozen features and episodes to accuracies and their intervals, and to answers.
//!
//! Nothing here depends on networks or data sets, and only the search of [`nearest`] on devices: features come in as
//! plain matrices, episodes as lists of row indices in class-major order (all of class 0, then all of class 1, ...).
//!
//! ```
//! use ieq_wgpu::fewshot::{Classifier, EpisodeSize, Features, score_episode};
//!
//! // Two classes, a support row and a query row each.
//! let features = [1.0, 0.1, 0.9, 0.2, 0.1, 1.0, 0.3, 0.8];
//! let features = Features::new(&features, 2)?;
//! let size = EpisodeSize { ways: 2, shots: 1, queries: 1 };
//! assert_eq!(score_episode(features, &[0, 2], &[1, 3], size, Classifier::LogisticRegression)?, 1.0);
//! # Ok::<(), ieq_wgpu::Error>(())
//! ```

pub mod classifier;
pub mod features;
pub mod logistic;
pub mod nearest;
pub mod projection;
pub mod prototypes;
pub mod reference;
pub mod statistics;
pub mod support;

pub use classifier::Classifier;
pub use features::{Features, l2_normalise};
pub use logistic::LogisticRegression;
pub use nearest::Nearest;
pub use prototypes::Prototypes;
pub use reference::Reference;
pub use statistics::MeanInterval;
pub use support::{Answer, Support};

use crate::{Error, Result};

/// The size of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EpisodeSize {
    /// Classes, at least 2.
    pub ways: usize,
    /// Support rows per class, augmented copies included.
    pub shots: usize,
    /// Query rows per class.
    pub queries: usize,
}

/// The accuracy of one classifier over all episodes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Score {
    /// The classifier.
    pub classifier: Classifier,
    /// Accuracy in 0..1 over the episodes.
    pub accuracy: MeanInterval,
}

/// The L2-normalised rows of one episode.
struct Episode {
    size: EpisodeSize,
    dim: usize,
    support: Vec<f32>,
    support_labels: Vec<u32>,
    query: Vec<f32>,
    query_labels: Vec<u32>,
}

impl Episode {
    fn gather(features: Features, support: &[u32], query: &[u32], size: EpisodeSize) -> Result<Self> {
        let EpisodeSize { ways, shots, queries } = size;
        if ways < 2 {
            return Err(Error::shape("episode", format!("an episode of {ways} ways; it takes 2 or more")));
        }
        for (what, rows, each) in [("support", support.len(), shots), ("query", query.len(), queries)] {
            if each == 0 || ways.checked_mul(each) != Some(rows) {
                return Err(Error::shape(
                    "episode",
                    format!("{rows} {what} indices for {ways} ways of {each}; give ways times that many, at least one"),
                ));
            }
        }
        let pick = |indices: &[u32]| -> Result<Vec<f32>> {
            let mut rows = Vec::new();
            for &index in indices {
                let row = features.row(index as usize).ok_or_else(|| {
                    let n = features.rows();
                    let message = format!("image {index} is asked for and the split has {n}");
                    Error::shape("episode", format!("{message}; use the episodes of this split"))
                })?;
                rows.extend_from_slice(row);
            }
            l2_normalise(&mut rows, features.dim());
            Ok(rows)
        };
        let labels = |each: usize| (0..ways * each).map(|i| (i / each) as u32).collect();
        Ok(Episode {
            size,
            dim: features.dim(),
            support: pick(support)?,
            support_labels: labels(shots),
            query: pick(query)?,
            query_labels: labels(queries),
        })
    }

    fn score(&self, classifier: Classifier) -> Result<f64> {
        let support = Features::new(&self.support, self.dim)?;
        let query = Features::new(&self.query, self.dim)?;
        let predicted = classifier.predict(support, &self.support_labels, self.size.ways, query)?;
        Ok(accuracy(&predicted, &self.query_labels))
    }
}

/// Share of equal entries.
fn accuracy(predicted: &[u32], truth: &[u32]) -> f64 {
    let right = predicted.iter().zip(truth).filter(|(a, b)| a == b).count();
    right as f64 / truth.len() as f64
}

/// Accuracy in 0..1 of `classifier` in one episode over `features` `[images, dim]`, which are
/// L2-normalised first. `support` `[ways * shots]` and `query` `[ways * queries]` are rows of `features`,
/// class-major.
///
/// # Errors
/// [`Error::Shape`] when the indices do not fit `size` or `features`, and as [`Classifier::predict`].
pub fn score_episode(
    features: Features,
    support: &[u32],
    query: &[u32],
    size: EpisodeSize,
    classifier: Classifier,
) -> Result<f64> {
    Episode::gather(features, support, query, size)?.score(classifier)
}

/// Every classifier over every episode, as [`score_episode`]: `episodes` yields (support, query), the
/// result is in the order of `classifiers`.
///
/// # Errors
/// As [`score_episode`]; [`Error::Argument`] when there are no episodes.
pub fn score_episodes<'a>(
    features: Features,
    episodes: impl IntoIterator<Item = (&'a [u32], &'a [u32])>,
    size: EpisodeSize,
    classifiers: &[Classifier],
) -> Result<Vec<Score>> {
    let mut accuracies = vec![Vec::new(); classifiers.len()];
    for (support, query) in episodes {
        let episode = Episode::gather(features, support, query, size)?;
        for (classifier, accuracies) in classifiers.iter().zip(&mut accuracies) {
            accuracies.push(episode.score(*classifier)?);
        }
    }
    let scores = classifiers.iter().zip(&accuracies);
    scores.map(|(&classifier, values)| Ok(Score { classifier, accuracy: MeanInterval::of(values)? })).collect()
}

/// Accuracy in 0..1 of a one-shot run (Omniglot's 20-way task): each row of `train` `[classes, dim]` is a
/// class of its own, `answer` `[test.rows]` the row of `train` that shows what `test` row shows. Rows are
/// L2-normalised first.
///
/// # Errors
/// [`Error::Shape`] when the answers do not fit `train` and `test`, and as [`Classifier::predict`].
pub fn score_run(train: Features, test: Features, answer: &[u32], classifier: Classifier) -> Result<f64> {
    if answer.len() != test.rows() {
        return Err(Error::shape(
            "one_shot_run",
            format!("{} answers for {} test images; give one per image", answer.len(), test.rows()),
        ));
    }
    if let Some(wrong) = answer.iter().find(|&&a| a as usize >= train.rows()) {
        return Err(Error::shape(
            "one_shot_run",
            format!("answer {wrong} names no training image, there are {}", train.rows()),
        ));
    }
    let (mut train_rows, mut test_rows) = (train.data().to_vec(), test.data().to_vec());
    l2_normalise(&mut train_rows, train.dim());
    l2_normalise(&mut test_rows, test.dim());
    let labels: Vec<u32> = (0..train.rows() as u32).collect();
    let predicted = classifier.predict(
        Features::new(&train_rows, train.dim())?,
        &labels,
        train.rows(),
        Features::new(&test_rows, test.dim())?,
    )?;
    Ok(accuracy(&predicted, answer))
}
