//! The losses as graph builders: each appends the nodes and returns a scalar, shape `[1]`.

use crate::Result;
use crate::ops::contrast::{ContrastAnchors, NORM_EPSILON, Nce, RowNormalise};
use crate::ops::distill::{KlDivergence, SquaredError};
use crate::ops::dropout::apply_given_mask;
use crate::ops::matmul::{AddRow, Matmul};
use crate::ops::reduce::Mean;
use crate::ops::softmax_xent::{Correct, CrossEntropy};
use crate::tape::{Graph, ValueId};

/// Mean cross-entropy of logits `[rows, classes]` and targets u32 `[rows]`.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn cross_entropy(graph: &mut Graph, logits: ValueId, targets: ValueId) -> Result<ValueId> {
    smoothed_cross_entropy(graph, logits, targets, 0.0)
}

/// As [`cross_entropy`], with the share `smoothing` of each target spread over all classes.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit, or the share is not within 0 and 1.
pub fn smoothed_cross_entropy(graph: &mut Graph, logits: ValueId, targets: ValueId, smoothing: f32) -> Result<ValueId> {
    let rows = graph.one(CrossEntropy { smoothing }, &[logits, targets])?;
    graph.one(Mean, &[rows])
}

/// Share of the rows of logits `[rows, classes]` whose first largest logit is the target's; no gradient.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn accuracy(graph: &mut Graph, logits: ValueId, targets: ValueId) -> Result<ValueId> {
    let rows = graph.one(Correct, &[logits, targets])?;
    graph.one(Mean, &[rows])
}

/// How the rows of a contrastive loss are paired and counted.
#[derive(Clone, Copy, Debug)]
pub struct Contrast {
    /// Temperature.
    pub tau: f32,
    /// Images of the batch that have further views: the first ones.
    pub viewed: usize,
    /// Where only some rows and negatives count.
    pub counted: Option<Counted>,
}

/// Which rows and negatives count.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// `[rows]`: 1 for a row whose loss counts, 0 for one that does not.
    pub rows: ValueId,
    /// `[k]`: 0 for a negative, [`NO_NEGATIVE`] for a place without one.
    pub negatives: ValueId,
}

/// Added to the scores of a place without a negative: its exponential is 0 at every temperature.
pub const NO_NEGATIVE: f32 = -1e30;

/// L_inv of embeddings z `[batch + a multiple of viewed, d]`, bank rows `[batch, d]` and negatives `[k, d]`: the mean
/// over all rows of -log h(anchor, row), where the anchor of the first batch is its bank row and that of every other is
/// its image in the first batch. A row that does not count adds 0 to the mean.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn contrastive_loss(
    graph: &mut Graph,
    z: ValueId,
    bank_rows: ValueId,
    negatives: ValueId,
    contrast: &Contrast,
) -> Result<ValueId> {
    let [z, bank_rows, negatives] = normalised(graph, [z, bank_rows, negatives])?;
    let anchors = graph.one(ContrastAnchors { viewed: contrast.viewed }, &[bank_rows, z])?;
    let mut scores = graph.one(Matmul::new(false, true), &[z, negatives])?;
    if let Some(counted) = contrast.counted {
        scores = graph.one(AddRow, &[scores, counted.negatives])?;
    }
    let mut rows = graph.one(Nce { tau: contrast.tau }, &[anchors, z, scores])?;
    if let Some(counted) = contrast.counted {
        rows = apply_given_mask(graph, rows, counted.rows, 1.0)?;
    }
    graph.one(Mean, &[rows])
}

/// Mean over the rows of -log h(anchor, other) with the negatives `[k, d]`; gradients to all three.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn nce(graph: &mut Graph, anchor: ValueId, other: ValueId, negatives: ValueId, tau: f32) -> Result<ValueId> {
    let [anchor, other, negatives] = normalised(graph, [anchor, other, negatives])?;
    let scores = graph.one(Matmul::new(false, true), &[other, negatives])?;
    let rows = graph.one(Nce { tau }, &[anchor, other, scores])?;
    graph.one(Mean, &[rows])
}

fn normalised<const N: usize>(graph: &mut Graph, mut values: [ValueId; N]) -> Result<[ValueId; N]> {
    for value in &mut values {
        *value = graph.one(RowNormalise { epsilon: NORM_EPSILON }, &[*value])?;
    }
    Ok(values)
}

/// Kullback-Leibler divergence of the student's from the teacher's softmax at a temperature T, times T^2,
/// mean over rows; gradient to the student.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn kl_divergence(graph: &mut Graph, student: ValueId, teacher: ValueId, temperature: f32) -> Result<ValueId> {
    let rows = graph.one(KlDivergence { temperature }, &[student, teacher])?;
    graph.one(Mean, &[rows])
}

/// Mean squared difference over all elements; gradient to the student.
///
/// # Errors
/// [`crate::Error::Shape`] when the shapes do not fit.
pub fn mean_squared_error(graph: &mut Graph, student: ValueId, teacher: ValueId) -> Result<ValueId> {
    let squares = graph.one(SquaredError, &[student, teacher])?;
    graph.one(Mean, &[squares])
}
