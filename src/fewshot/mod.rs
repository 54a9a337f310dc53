//! Few-shot evaluation: frozen features and episodes to accuracies and their intervals.
//!
//! Nothing here knows of networks, data sets or devices: features come in as plain matrices, episodes as
//! lists of row indices in class-major order (all of class 0, then all of class 1, ...).

pub mod classifier;
pub mod logistic;
pub mod statistics;

pub use classifier::{Classifier, Features, l2_normalise};
pub use logistic::LogisticRegression;
pub use statistics::MeanInterval;

use crate::{Error, Result};

/// The size of an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EpisodeSize {
    /// Classes.
    pub ways: usize,
    /// Support rows a class; augmented copies count.
    pub shots: usize,
    /// Query rows a class.
    pub queries: usize,
}

/// What one classifier reached over all episodes.
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
        for (what, rows, each) in [("support", support.len(), shots), ("query", query.len(), queries)] {
            if each == 0 || ways.checked_mul(each) != Some(rows) {
                return Err(Error::shape(
                    "episode",
                    format!("{rows} {what} indices for {ways} ways of {each}; give ways times that many, at least one"),
                ));
            }
        }
        let pick = |indices: &[u32]| -> Result<Vec<f32>> {
            let mut rows = Vec::with_capacity(indices.len() * features.dim);
            for &index in indices {
                let start = index as usize * features.dim;
                match features.data.get(start..start + features.dim) {
                    Some(row) => rows.extend_from_slice(row),
                    None => {
                        return Err(Error::shape(
                            "episode",
                            format!(
                                "image {index} is asked for and the split has {}; use the episodes of this split",
                                features.rows
                            ),
                        ));
                    }
                }
            }
            l2_normalise(&mut rows, features.dim);
            Ok(rows)
        };
        let labels = |each: usize| (0..ways * each).map(|i| (i / each) as u32).collect();
        Ok(Episode {
            size,
            dim: features.dim,
            support: pick(support)?,
            support_labels: labels(shots),
            query: pick(query)?,
            query_labels: labels(queries),
        })
    }

    fn score(&self, classifier: Classifier) -> Result<f64> {
        let support = Features { rows: self.support_labels.len(), dim: self.dim, data: &self.support };
        let query = Features { rows: self.query_labels.len(), dim: self.dim, data: &self.query };
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
pub fn score_run(train: Features, test: Features, answer: &[u32], classifier: Classifier) -> Result<f64> {
    if answer.len() != test.rows {
        return Err(Error::shape(
            "one_shot_run",
            format!("{} answers for {} test images; give one an image", answer.len(), test.rows),
        ));
    }
    if let Some(wrong) = answer.iter().find(|&&a| a as usize >= train.rows) {
        return Err(Error::shape(
            "one_shot_run",
            format!("answer {wrong} names no training image, there are {}", train.rows),
        ));
    }
    let (mut train_rows, mut test_rows) = (train.data.to_vec(), test.data.to_vec());
    l2_normalise(&mut train_rows, train.dim);
    l2_normalise(&mut test_rows, test.dim);
    let labels: Vec<u32> = (0..train.rows as u32).collect();
    let predicted = classifier.predict(
        Features { data: &train_rows, ..train },
        &labels,
        train.rows,
        Features { data: &test_rows, ..test },
    )?;
    Ok(accuracy(&predicted, answer))
}
