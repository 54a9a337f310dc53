//! Which labels are probably wrong: every row is classified by the mean directions of the classes, its own class's
//! without the row itself.
//!
//! As in confident learning (Northcutt, Jiang and Chuang 2021, the library cleanlab) a label is judged by probabilities
//! that were computed without it. Here they are a softmax of cosines, scaled so that the given labels are most likely.

use super::Features;
use crate::{Error, Result};

/// Rows by which the scale is chosen.
const SAMPLE: usize = 2000;

/// The mean directions of classes.
#[derive(Clone, Debug)]
pub struct Prototypes {
    dim: usize,
    /// Sum of the unit rows of each class, `[classes, dim]`.
    sums: Vec<f32>,
    /// Its direction.
    units: Vec<f32>,
    counts: Vec<u32>,
    scale: f64,
}

/// What the other rows say of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Cosine of the row and the mean direction of the others of its class.
    pub cosine: f32,
    /// Probability of the class that it has.
    pub given: f64,
    /// The most likely class.
    pub likely: u32,
    /// Probability of that.
    pub probability: f64,
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which a processor does at once.
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn unit(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x /= length);
    }
}

impl Prototypes {
    /// Of `rows` `[rows, dim]`, each of length 1, with one label per row; none for rows without.
    ///
    /// # Errors
    /// [`Error::Shape`] when labels and rows do not fit together; [`Error::NonFinite`] for a number that is not finite.
    pub fn new(rows: Features, labels: &[Option<u32>], classes: usize) -> Result<Prototypes> {
        rows.check("prototypes", "rows")?;
        let wrong = labels.iter().flatten().any(|&label| label as usize >= classes);
        if labels.len() != rows.rows() || wrong {
            let (n, rows) = (labels.len(), rows.rows());
            return Err(Error::shape(
                "prototypes",
                format!("{n} labels below {classes} for {rows} rows; give one per row"),
            ));
        }
        let dim = rows.dim();
        let mut prototypes =
            Prototypes { dim, sums: vec![0.0; classes * dim], units: Vec::new(), counts: vec![0; classes], scale: 1.0 };
        for (row, label) in rows.iter().zip(labels) {
            let Some(label) = label.map(|label| label as usize) else { continue };
            prototypes.counts[label] += 1;
            let sum = &mut prototypes.sums[label * dim..(label + 1) * dim];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        prototypes.units = prototypes.sums.clone();
        prototypes.units.chunks_exact_mut(dim).for_each(unit);
        prototypes.scale = prototypes.likeliest_scale(rows, labels);
        Ok(prototypes)
    }

    /// Rows of a class.
    pub fn count(&self, class: u32) -> u32 {
        self.counts.get(class as usize).copied().unwrap_or(0)
    }

    /// What cosines are multiplied by before the softmax.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Cosine of `row` and the mean direction of each class, that of `own` without the row; negative infinity where a class
    /// has no other row.
    fn cosines(&self, row: &[f32], own: u32) -> Vec<f32> {
        let mut cosines: Vec<f32> = self.units.chunks_exact(self.dim).map(|unit| dot(unit, row)).collect();
        for (cosine, count) in cosines.iter_mut().zip(&self.counts) {
            if *count == 0 {
                *cosine = f32::NEG_INFINITY;
            }
        }
        let at = own as usize;
        let mut others: Vec<f32> = self.sums[at * self.dim..(at + 1) * self.dim].to_vec();
        others.iter_mut().zip(row).for_each(|(sum, x)| *sum -= x);
        unit(&mut others);
        cosines[at] = if self.counts[at] > 1 { dot(&others, row) } else { f32::NEG_INFINITY };
        cosines
    }

    /// The scale with which the given labels of a sample are most likely.
    fn likeliest_scale(&self, rows: Features, labels: &[Option<u32>]) -> f64 {
        let labelled: Vec<(&[f32], u32)> =
            rows.iter().zip(labels).filter_map(|(row, label)| Some((row, (*label)?))).collect();
        let judged: Vec<(&[f32], u32)> =
            labelled.into_iter().filter(|(_, label)| self.counts[*label as usize] > 1).collect();
        let n = judged.len().min(SAMPLE);
        let sample: Vec<(Vec<f32>, u32)> = (0..n)
            .map(|i| judged[i * judged.len() / n])
            .map(|(row, label)| (self.cosines(row, label), label))
            .collect();
        let likelihood = |scale: f64| -> f64 {
            sample.iter().map(|(cosines, label)| probabilities(cosines, scale)[*label as usize].max(1e-12).ln()).sum()
        };
        // From 1 to 128, a quarter of an octave at a time.
        let scales = (0..=28).map(|i| 2.0_f64.powf(f64::from(i) / 4.0));
        let best = scales
            .map(|scale| (scale, likelihood(scale)))
            .fold((1.0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best });
        best.0
    }

    /// What the other rows say of a unit `row` that has the label `own`; none where its class has no other row.
    pub fn judge(&self, row: &[f32], own: u32) -> Option<Verdict> {
        if row.len() != self.dim || self.count(own) < 2 {
            return None;
        }
        let cosines = self.cosines(row, own);
        let probabilities = probabilities(&cosines, self.scale);
        let mut likely = own as usize;
        for (class, p) in probabilities.iter().enumerate() {
            if *p > probabilities[likely] {
                likely = class;
            }
        }
        Some(Verdict {
            cosine: cosines[own as usize],
            given: probabilities[own as usize],
            likely: likely as u32,
            probability: probabilities[likely],
        })
    }
}

/// The softmax of scaled cosines.
fn probabilities(cosines: &[f32], scale: f64) -> Vec<f64> {
    let top = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<f64> = cosines.iter().map(|&x| (scale * f64::from(x - top)).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::fewshot::l2_normalise;

    #[test]
    fn a_swapped_label_is_found_and_the_row_does_not_vouch_for_itself() {
        // Three classes along three axes; the last row of class 0 looks like class 1.
        let mut rows = Vec::new();
        let mut labels = Vec::new();
        for class in 0..3 {
            for i in 0..4 {
                let axis = if (class, i) == (0, 3) { 1 } else { class };
                rows.extend((0..3).map(|k| if k == axis { 1.0 } else { 0.1 * ((i + k) % 3) as f32 }));
                labels.push(Some(class as u32));
            }
        }
        // Alone in its class, and without a class.
        rows.extend([0.5, 0.5, 0.5, 0.1, 0.9, 0.2]);
        labels.extend([Some(3), None]);
        l2_normalise(&mut rows, 3);
        let features = Features::new(&rows, 3).unwrap();
        let prototypes = Prototypes::new(features, &labels, 5).unwrap();
        for (i, label) in labels.iter().enumerate().take(12) {
            let verdict = prototypes.judge(features.row(i).unwrap(), label.unwrap()).unwrap();
            let right = if i == 3 { 1 } else { label.unwrap() };
            assert_eq!(verdict.likely, right, "row {i}: {verdict:?}");
            assert!((verdict.probability > 0.5) && (i == 3) == (verdict.given < 0.2), "row {i}: {verdict:?}");
        }
        assert_eq!(prototypes.judge(features.row(12).unwrap(), 3), None);
        assert_eq!(prototypes.judge(features.row(12).unwrap(), 4), None);
        assert!(prototypes.scale() > 1.0);
        // Two rows of a class that point elsewhere: each is judged by the other alone.
        let two = Features::new(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        let pair = Prototypes::new(two, &[Some(0), Some(0)], 1).unwrap();
        assert_eq!(pair.judge(&[1.0, 0.0], 0).unwrap().cosine, 0.0);
        let refused = |labels: &[Option<u32>]| Prototypes::new(two, labels, 1).unwrap_err().to_string();
        assert!(refused(&[Some(0)]).contains("1 labels") && refused(&[Some(0), Some(1)]).contains("below 1"));
        assert!(Prototypes::new(Features::new(&[f32::NAN], 1).unwrap(), &[None], 1).is_err());
    }
}
