//! Matrices of features with their labels, and what every classifier asks of them.

use crate::{Error, Result};

/// A matrix of features, `[rows, dim]`, row-major; at least one row and one feature.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    dim: usize,
    data: &'a [f32],
}

impl<'a> Features<'a> {
    /// `data` cut into rows of `dim` features.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no row, no feature, or a part of a row.
    pub fn new(data: &'a [f32], dim: usize) -> Result<Self> {
        if data.is_empty() || dim == 0 || !data.len().is_multiple_of(dim) {
            let n = data.len();
            return Err(Error::shape("few_shot", format!("{n} numbers are no whole number of rows of {dim} features")));
        }
        Ok(Features { dim, data })
    }

    /// Number of rows: images.
    pub fn rows(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Number of features per row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All numbers, row after row.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }

    /// Every row in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'a, f32> {
        self.data.chunks_exact(self.dim)
    }

    /// Row `i`; none where there are fewer.
    pub fn row(&self, i: usize) -> Option<&'a [f32]> {
        self.iter().nth(i)
    }

    /// Refuses numbers that are not finite: a NaN would lose every comparison in silence.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the first of them.
    pub(super) fn check(&self, op: &'static str, what: &str) -> Result<()> {
        match self.data.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::NonFinite(format!(
                "{op}: feature {} of {what} row {} is not finite; use a checkpoint from before the training diverged",
                i % self.dim,
                i / self.dim
            ))),
        }
    }

    /// Refuses rows that are not as long as those of a support with `dim` features.
    ///
    /// # Errors
    /// [`Error::Shape`] with both numbers.
    pub(super) fn check_dim(&self, op: &'static str, dim: usize) -> Result<()> {
        match self.dim == dim {
            true => Ok(()),
            false => Err(Error::shape(
                op,
                format!(
                    "the query has {} features per row, the support has {dim}; embed both with one network",
                    self.dim
                ),
            )),
        }
    }
}

/// Divides every row of `data` `[rows, dim]` by its Euclidean norm; a row of zeros stays, and so does what is left
/// behind the last whole row.
pub fn l2_normalise(data: &mut [f32], dim: usize) {
    for row in data.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
        }
    }
}

/// Refuses labels that are not one per row, all in `0..ways`, with a row for each class.
///
/// # Errors
/// [`Error::Shape`] with the first that is wrong.
pub(super) fn check_labels(op: &'static str, labels: &[u32], rows: usize, ways: usize) -> Result<()> {
    if labels.len() != rows {
        return Err(Error::shape(op, format!("{} labels for {rows} support rows; give one per row", labels.len())));
    }
    if ways < 2 {
        return Err(Error::shape(op, format!("an episode of {ways} ways; it takes 2 or more")));
    }
    if let Some(label) = labels.iter().find(|&&label| label as usize >= ways) {
        return Err(Error::shape(op, format!("support label {label} is not below the {ways} ways")));
    }
    // A class without a row is among the first `rows` + 1, so no more are looked at, whatever `ways` claims.
    let mut seen = vec![false; ways.min(rows + 1)];
    for &label in labels {
        if let Some(seen) = seen.get_mut(label as usize) {
            *seen = true;
        }
    }
    match seen.iter().position(|&seen| !seen) {
        Some(class) => Err(Error::shape(op, format!("class {class} of {ways} has no support row; give it one"))),
        None => Ok(()),
    }
}

/// Index of the largest score, the first of equals.
pub(super) fn arg_max(scores: &[f64]) -> u32 {
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
    fn normalising_keeps_zero_rows() {
        let mut data = [3.0, 4.0, 0.0, 0.0, 1e-30, 0.0, 3e38, 3e38];
        l2_normalise(&mut data, 2);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert_eq!(data, [0.6, 0.8, 0.0, 0.0, 1.0, 0.0, half, half]);
    }

    #[test]
    fn labels_name_every_class_and_no_other() {
        let say = |labels: &[u32], rows, ways| check_labels("op", labels, rows, ways).unwrap_err().to_string();
        check_labels("op", &[1, 0, 1], 3, 2).unwrap();
        assert!(say(&[0, 1], 3, 2).contains("2 labels for 3"));
        assert!(say(&[0, 1], 2, 0).contains("2 or more"));
        assert!(say(&[0, 2], 2, 2).contains("label 2"));
        assert!(say(&[0, u32::MAX], 2, 2).contains("label 4294967295"));
        assert!(say(&[0, 2], 2, 3).contains("class 1 of 3"));
        assert!(say(&[0, 1], 2, usize::MAX).contains("class 2 of"));
    }
}
