//! The few-shot classifiers: from a labelled support to the classes of the queries.

use std::fmt;
use std::str::FromStr;

use super::logistic::{DEFAULT_C, LogisticRegression};
use crate::{Error, Result};

/// A matrix of features, `[rows, dim]`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    /// Number of images.
    pub rows: usize,
    /// Features per image.
    pub dim: usize,
    /// `rows * dim` numbers.
    pub data: &'a [f32],
}

impl<'a> Features<'a> {
    /// `data` cut into rows of `dim`.
    pub fn new(data: &'a [f32], dim: usize) -> Result<Self> {
        let features = Features { rows: data.len() / dim.max(1), dim, data };
        features.check_shape("few_shot", "feature")?;
        Ok(features)
    }

    /// Row `i`, `[dim]`; the caller keeps `i < rows`.
    fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.dim..(i + 1) * self.dim]
    }

    fn check_shape(&self, op: &'static str, what: &str) -> Result<()> {
        let Features { rows, dim, data } = *self;
        if rows == 0 || dim == 0 || rows.checked_mul(dim) != Some(data.len()) {
            return Err(Error::shape(
                op,
                format!("the {what} matrix is said to be {rows} x {dim} and holds {} numbers", data.len()),
            ));
        }
        Ok(())
    }

    /// Shape and finiteness; a NaN would lose every comparison in silence.
    pub(crate) fn check(&self, op: &'static str, what: &str) -> Result<()> {
        self.check_shape(op, what)?;
        match self.data.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::NonFinite(format!(
                "{op}: feature {} of {what} row {} is not finite; use a checkpoint from before the training diverged",
                i % self.dim,
                i / self.dim
            ))),
        }
    }
}

/// Divides every row of `data` `[rows, dim]` by its Euclidean norm; a row of zeros stays.
pub fn l2_normalise(data: &mut [f32], dim: usize) {
    for row in data.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
}

/// How queries are classified from a support set.
///
/// All of them expect L2-normalised rows, as the field evaluates; [`super::score_episode`] and
/// [`super::score_run`] normalise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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

    /// The name in requests and reports.
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
    pub fn predict(self, support: Features, labels: &[u32], ways: usize, query: Features) -> Result<Vec<u32>> {
        const OP: &str = "few_shot";
        support.check(OP, "support")?;
        query.check(OP, "query")?;
        check_labels(OP, labels, support.rows, ways)?;
        if support.dim != query.dim {
            return Err(Error::shape(
                OP,
                format!(
                    "the query has {} features a row, the support has {}; embed both with one network",
                    query.dim, support.dim
                ),
            ));
        }
        let queries = query.data.chunks_exact(query.dim);
        match self {
            Classifier::LogisticRegression => LogisticRegression::fit(support, labels, ways, DEFAULT_C)?.predict(query),
            Classifier::Cosine => {
                let means = class_means(support, labels, ways);
                // A mean of length zero has no direction: cosine 0.
                let lengths: Vec<f64> = means
                    .chunks_exact(query.dim)
                    .map(|m| m.iter().map(|x| x * x).sum::<f64>().sqrt())
                    .map(|length| if length > 0.0 { length } else { 1.0 })
                    .collect();
                let score = |row: &[f32]| {
                    let cosines: Vec<f64> = means
                        .chunks_exact(query.dim)
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
                        .chunks_exact(query.dim)
                        .map(|m| -m.iter().zip(row).map(|(a, &b)| (a - f64::from(b)).powi(2)).sum::<f64>())
                        .collect();
                    arg_max(&nearness)
                };
                Ok(queries.map(score).collect())
            }
            Classifier::NearestNeighbour => {
                let score = |row: &[f32]| {
                    let nearness: Vec<f64> = (0..support.rows)
                        .map(|i| {
                            let pairs = support.row(i).iter().zip(row);
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
        Classifier::ALL.into_iter().find(|c| c.name() == name).ok_or_else(|| {
            Error::usage(format!("there is no few-shot classifier {name:?}; choose lr, cosine, centroid or nn"))
        })
    }
}

/// Means of the support rows of each class, `[ways, dim]`; every class has a row.
fn class_means(support: Features, labels: &[u32], ways: usize) -> Vec<f64> {
    let mut means = vec![0.0; ways * support.dim];
    let mut counts = vec![0.0_f64; ways];
    for (i, &label) in labels.iter().enumerate() {
        let class = label as usize;
        counts[class] += 1.0;
        let mean = &mut means[class * support.dim..(class + 1) * support.dim];
        mean.iter_mut().zip(support.row(i)).for_each(|(m, &x)| *m += f64::from(x));
    }
    for (mean, count) in means.chunks_exact_mut(support.dim).zip(&counts) {
        mean.iter_mut().for_each(|m| *m /= count);
    }
    means
}

/// One label a row, all in `0..ways`, and no class without a row.
pub(crate) fn check_labels(op: &'static str, labels: &[u32], rows: usize, ways: usize) -> Result<()> {
    if labels.len() != rows {
        return Err(Error::shape(op, format!("{} labels for {rows} support rows; give one a row", labels.len())));
    }
    if ways < 2 {
        return Err(Error::shape(op, format!("an episode of {ways} ways; it takes 2 or more")));
    }
    let mut seen = vec![false; ways];
    for &label in labels {
        match seen.get_mut(label as usize) {
            Some(seen) => *seen = true,
            None => return Err(Error::shape(op, format!("support label {label} is not below the {ways} ways"))),
        }
    }
    match seen.iter().position(|&seen| !seen) {
        Some(class) => Err(Error::shape(op, format!("class {class} of {ways} has no support row; give it one"))),
        None => Ok(()),
    }
}

/// Index of the largest score, the first of equals.
pub(crate) fn arg_max(scores: &[f64]) -> u32 {
    let mut best = 0;
    for (i, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = i;
        }
    }
    best as u32
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
        assert!("svm".parse::<Classifier>().unwrap_err().to_string().contains("choose lr"));
    }

    #[test]
    fn normalising_keeps_zero_rows() {
        let mut data = [3.0, 4.0, 0.0, 0.0, 1e-30, 0.0, 3e38, 3e38];
        l2_normalise(&mut data, 2);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(data, [0.6, 0.8, 0.0, 0.0, 1.0, 0.0, half, half]);
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
