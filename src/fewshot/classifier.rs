//! The few-shot classifiers: from a labelled support to the classes of the queries.

use std::fmt;
use std::str::FromStr;

use super::features::{Features, arg_max, check_labels};
use super::logistic::{DEFAULT_C, LogisticRegression};
use crate::{Error, Result};

/// How queries are classified from a support set.
///
/// All of them expect L2-normalised rows, as the field evaluates; [`super::score_episode`] and
/// [`super::score_run`] normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Classifier {
    /// Multinomial logistic regression with C = 1 on the support.
    #[serde(rename = "lr")]
    LogisticRegression,
    /// Largest cosine with the mean of a class's support rows. Unlike `centroid` it ignores the length of
    /// the mean; with one shot both and `nn` agree.
    #[serde(rename = "cosine")]
    Cosine,
    /// Smallest Euclidean distance to the mean of a class's support rows, the mean not re-normalised.
    #[serde(rename = "centroid")]
    NearestCentroid,
    /// Class of the support row at the smallest Euclidean distance, which for unit rows is the largest
    /// cosine.
    #[serde(rename = "nn")]
    NearestNeighbour,
}

impl Classifier {
    /// Every classifier, in the order of reports.
    pub const ALL: [Classifier; 4] =
        [Classifier::LogisticRegression, Classifier::Cosine, Classifier::NearestCentroid, Classifier::NearestNeighbour];

    /// Their names, in the same order.
    pub const NAMES: &[&str] = &["lr", "cosine", "centroid", "nn"];

    /// The short name, which [`Classifier::from_str`] takes.
    pub fn name(self) -> &'static str {
        match self {
            Classifier::LogisticRegression => "lr",
            Classifier::Cosine => "cosine",
            Classifier::NearestCentroid => "centroid",
            Classifier::NearestNeighbour => "nn",
        }
    }

    /// Classes `[query.rows]`, in `0..ways`, of the `query` rows, from `support` rows with `labels`
    /// `[support.rows]`; every class needs a support row. Sums are in f64; of equals the first class wins.
    ///
    /// # Errors
    /// [`Error::Shape`] when labels, ways or sizes do not fit together, [`Error::NonFinite`] when a feature is not
    /// finite or the logistic regression does not converge.
    pub fn predict(self, support: Features, labels: &[u32], ways: usize, query: Features) -> Result<Vec<u32>> {
        const OP: &str = "few_shot";
        support.check(OP, "support")?;
        query.check(OP, "query")?;
        check_labels(OP, labels, support.rows(), ways)?;
        query.check_dim(OP, support.dim())?;
        let (dim, queries) = (query.dim(), query.iter());
        match self {
            Classifier::LogisticRegression => LogisticRegression::fit(support, labels, ways, DEFAULT_C)?.predict(query),
            Classifier::Cosine => {
                let means = class_means(support, labels, ways);
                // A mean of length zero has no direction: cosine 0.
                let lengths: Vec<f64> = means
                    .chunks_exact(dim)
                    .map(|m| m.iter().map(|x| x * x).sum::<f64>().sqrt())
                    .map(|length| if length > 0.0 { length } else { 1.0 })
                    .collect();
                let score = |row: &[f32]| {
                    let cosines: Vec<f64> = means
                        .chunks_exact(dim)
                        .zip(&lengths)
                        .map(|(m, length)| m.iter().zip(row).map(|(a, &b)| a * f64::from(b)).sum::<f64>() / length)
                        .collect();
                    arg_max(&cosines)
                };
                Ok(queries.map(score).collect())
            }
            Classifier::NearestCentroid => {
                let means = class_means(support, labels, ways);
                let score = |row: &[f32]| {
                    let nearness: Vec<f64> = means
                        .chunks_exact(dim)
                        .map(|m| -m.iter().zip(row).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>())
                        .collect();
                    arg_max(&nearness)
                };
                Ok(queries.map(score).collect())
            }
            Classifier::NearestNeighbour => {
                let score = |row: &[f32]| {
                    let nearness: Vec<f64> = support
                        .iter()
                        .map(|near| {
                            let pairs = near.iter().zip(row);
                            -pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum::<f64>()
                        })
                        .collect();
                    labels[arg_max(&nearness) as usize]
                };
                Ok(queries.map(score).collect())
            }
        }
    }
}

impl fmt::Display for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Classifier {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Classifier::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| Error::Argument {
            what: "the few-shot classifier",
            got: format!("{name:?}"),
            wanted: "lr, cosine, centroid or nn".into(),
        })
    }
}

/// Means of the support rows of each class, `[ways, dim]`; every class has a row.
fn class_means(support: Features, labels: &[u32], ways: usize) -> Vec<f64> {
    let dim = support.dim();
    let mut means = vec![0.0; ways * dim];
    let mut counts = vec![0.0_f64; ways];
    for (row, &label) in support.iter().zip(labels) {
        let class = label as usize;
        counts[class] += 1.0;
        let mean = &mut means[class * dim..(class + 1) * dim];
        mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x));
    }
    for (mean, count) in means.chunks_exact_mut(dim).zip(&counts) {
        mean.iter_mut().for_each(|m| *m /= count);
    }
    means
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for classifier in Classifier::ALL {
            assert_eq!(classifier.name().parse::<Classifier>().unwrap(), classifier);
            assert_eq!(classifier.to_string(), classifier.name());
            assert!(Classifier::NAMES.contains(&classifier.name()));
            assert_eq!(serde_json::to_value(classifier).unwrap(), classifier.name());
        }
        let error = "svm".parse::<Classifier>().unwrap_err().to_string();
        assert!(error.contains("lr, cosine, centroid or nn, got \"svm\""), "{error}");
    }

    /// Every classifier separates what is separable; `centroid` and `cosine` differ where they should.
    #[test]
    fn each_rule_is_its_own() {
        let support = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
        let support = Features::new(&support, 2).unwrap();
        let query = [0.9, 0.1, -0.1, 0.8, -0.7, -0.2];
        let query = Features::new(&query, 2).unwrap();
        for classifier in Classifier::ALL {
            assert_eq!(classifier.predict(support, &[0, 1, 2], 3, query).unwrap(), [0, 1, 2], "{classifier}");
        }
        // Class 0 at +-60 degrees has the mean (0.5, 0), class 1 sits at 70 degrees.
        let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let support = [at(60.0), at(-60.0), at(70.0), at(70.0)].concat();
        let support = Features::new(&support, 2).unwrap();
        let query = at(34.0);
        let query = Features::new(&query, 2).unwrap();
        let of = |c: Classifier| c.predict(support, &[0, 0, 1, 1], 2, query).unwrap()[0];
        assert_eq!(of(Classifier::Cosine), 0);
        assert_eq!(of(Classifier::NearestCentroid), 1);
        assert_eq!(of(Classifier::NearestNeighbour), 0);
    }

    #[test]
    fn bad_input_is_refused_with_a_sentence() {
        let data = [1.0, 0.0, 0.0, f32::INFINITY];
        assert!(Features::new(&data, 3).is_err());
        assert!(Features::new(&data, 0).is_err());
        assert!(Features::new(&[], 2).is_err());
        let good = Features::new(&data[..2], 1).unwrap();
        let bad = Features::new(&data[2..], 1).unwrap();
        for classifier in Classifier::ALL {
            let say = |s, l: &[u32], w, q| classifier.predict(s, l, w, q).unwrap_err().to_string();
            assert!(say(good, &[0, 1], 2, bad).contains("query row 1 is not finite"));
            assert!(say(bad, &[0, 1], 2, good).contains("support row 1 is not finite"));
            assert!(say(good, &[0, 0], 2, good).contains("class 1"));
            assert!(say(good, &[0, 0], 1, good).contains("2 or more"));
        }
    }
}
