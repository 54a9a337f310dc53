//! Batch normalisation of images (per channel) and vectors (per feature) with the LeakyReLU behind it: training,
//! evaluation, running statistics, joined statistics of a batch in parts, and gradients (Ioffe and Szegedy 2015; PyTorch's
//! conventions).
//!
//! The statistics [5, channels] (mean, rstd, biased variance, scale, shift) are all that a reader needs to make y from
//! x where it loads x: [`crate::tape::fuse`] gives convolutions and pooling x and the statistics, and y is never stored.

use std::ops::Range;

use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::{ByRows, Cost, Host, Joined, Norm, Op, Operand, Operation, PartialSums, Rewrites, shape};
use crate::gpu::Launch;
use crate::gpu::kernel::{WORKGROUP, fold};
use crate::tape::{Element, Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "batch_norm";

/// Added to the variance before the root.
pub const EPSILON: f32 = 1e-5;

/// Weight of the new batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// Images over which an invocation takes one unit.
const COLUMN: usize = 16;

/// x as [batch, channels, size].
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    channels: usize,
    size: usize,
}

impl Sizes {
    fn of(x: &[usize]) -> Self {
        let at = |i: usize| x.get(i).copied().unwrap_or(1);
        Sizes { batch: at(0), channels: at(1), size: x.iter().skip(2).product() }
    }

    /// The sizes of x, after checking it and the `vectors`, one number per channel each.
    fn check(op: &'static str, x: &Type, vectors: &[(&str, &Type)]) -> Result<Self> {
        match x.shape.len() {
            2 => shape::stored::<2>(op, x, "x").map(drop)?,
            4 => shape::stored::<4>(op, x, "x").map(drop)?,
            _ => {
                let what = format!("x must be [batch, features] or NCHW, it has shape {:?}", x.shape);
                return Err(Error::shape(op, what));
            }
        }
        for (name, vector) in vectors {
            shape::floats_as(op, vector, name, &[x.shape[1]])?;
        }
        Ok(Sizes::of(&x.shape))
    }

    fn count(&self) -> usize {
        self.batch * self.size
    }

    /// What a launch takes of x and of tensors of its shape.
    fn units(&self, x: Element) -> Units {
        let by_four = self.size.is_multiple_of(4) && x == Element::F32;
        Units { of_plane: if by_four { self.size / 4 } else { self.size }, by_four }
    }

    /// Chunks of a channel and images of a chunk: about 64 elements for each lane that f32 has. They do not depend on how x is
    /// stored.
    fn chunks(&self) -> (usize, usize) {
        let images = ((64 << self.units(Element::F32).lane_bits()) / self.size.max(1)).clamp(1, self.batch.max(1));
        (self.batch.div_ceil(images), images)
    }

    fn launch(&self, entry: &'static str, n: usize, slope: f32, units: Units) -> Launch<ValueId> {
        let (chunks, images) = self.chunks();
        Launch::items(SHADER, entry, n)
            .param("batch", self.batch)
            .param("channels", self.channels)
            .param("size", self.size)
            .param("units", units.of_plane)
            .param("chunks", chunks)
            .param("first_chunk", 0_u32)
            .param("chunk_images", images)
            .param("lane_bits", units.lane_bits())
            .param("epsilon", EPSILON)
            .param("momentum", MOMENTUM)
            .param("slope", slope)
    }

    /// Over the chunks of these images, to which x is cut.
    fn by_chunk(&self, entries: [&'static str; 2], x: &Operand, slope: f32, images: Range<usize>) -> Launch<ValueId> {
        let units = self.units(x.element);
        let chunk_images = self.chunks().1;
        let part = images.len().div_ceil(chunk_images);
        let mut launch = self.launch(units.pick(entries), 0, slope, units);
        launch.groups = groups_of((self.channels * part) << units.lane_bits());
        launch.set("batch", images.len());
        launch.set("first_chunk", images.start / chunk_images);
        launch.constant("X_HALF", x.half()).bind("x", x.id)
    }

    /// Over all elements.
    fn by_element(&self, entries: [&'static str; 2], x: &Operand, y: ValueId, slope: f32) -> Launch<ValueId> {
        let units = self.units(x.element);
        let chunks = self.batch.div_ceil(COLUMN);
        let mut launch = self.launch(units.pick(entries), 0, slope, units);
        launch.groups = groups_of(chunks * self.channels * units.of_plane);
        launch.set("chunk_images", COLUMN);
        launch.constant("X_HALF", x.half()).bind("x", x.id).bind("y", y)
    }

    fn by_channel(&self, entry: &'static str) -> Launch<ValueId> {
        self.launch(entry, self.channels, 1.0, self.units(Element::F32))
    }

    /// Elements of channel `c`.
    fn elements(self, c: usize) -> impl Iterator<Item = usize> {
        (0..self.batch).flat_map(move |n| {
            let start = (n * self.channels + c) * self.size;
            start..start + self.size
        })
    }

    /// Mean and biased variance of every channel.
    fn moments(&self, x: &[f64]) -> [Vec<f64>; 2] {
        let count = self.count() as f64;
        let mean: Vec<f64> = (0..self.channels).map(|c| self.elements(c).map(|i| x[i]).sum::<f64>() / count).collect();
        let squares = |c: usize| self.elements(c).map(|i| (x[i] - mean[c]).powi(2)).sum::<f64>();
        let var = (0..self.channels).map(|c| squares(c) / count).collect();
        [mean, var]
    }

    /// u of every element, before the LeakyReLU.
    fn normalised(&self, x: &[f64], statistics: &[f64]) -> Vec<f64> {
        let mut u = vec![0.0; x.len()];
        for c in 0..self.channels {
            let of = |row: usize| statistics[row * self.channels + c];
            for i in self.elements(c) {
                u[i] = (x[i] - of(0)) * of(3) + of(4);
            }
        }
        u
    }

    /// The outputs of both modes, y left out unless it is wanted.
    fn outputs(
        &self,
        wanted: bool,
        x: &Host,
        mean: &[f64],
        var: &[f64],
        affine: [&[f64]; 2],
        slope: f32,
    ) -> Vec<Vec<f64>> {
        let rstd: Vec<f64> = var.iter().map(|&v| 1.0 / (v + f64::from(EPSILON)).sqrt()).collect();
        let scale: Vec<f64> = rstd.iter().zip(affine[0]).map(|(r, g)| r * g).collect();
        let statistics = [mean, &rstd, var, &scale, affine[1]].concat();
        let y = wanted.then(|| activated(x, &statistics, slope));
        y.into_iter().chain([statistics]).collect()
    }
}

/// Workgroups of so many invocations, which find by the sizes of x which of them there are.
fn groups_of(invocations: usize) -> [u32; 3] {
    fold(invocations.div_ceil(WORKGROUP as usize))
}

/// What a launch takes of x and of tensors of its shape: one element, or a vector of four neighbours.
#[derive(Clone, Copy)]
struct Units {
    of_plane: usize,
    by_four: bool,
}

impl Units {
    /// Lanes that sum a chunk of a channel, as a power of two: the largest power of four that leaves none idle.
    fn lane_bits(self) -> u32 {
        self.of_plane.clamp(1, WORKGROUP as usize).ilog2() / 2 * 2
    }

    /// The entry point, of one that takes single elements and one that takes four.
    fn pick(self, entries: [&'static str; 2]) -> &'static str {
        entries[usize::from(self.by_four)]
    }
}

/// y of x and the statistics of its batch norm, as a reader computes it that is given both.
pub(super) fn activated(x: &Host, statistics: &[f64], slope: f32) -> Vec<f64> {
    let leaky = |u: f64| if u > 0.0 { u } else { f64::from(slope) * u };
    Sizes::of(x.shape).normalised(x.data, statistics).into_iter().map(leaky).collect()
}

/// Fails unless `statistics` are those of a batch norm over x.
pub(super) fn check_statistics(op: &'static str, statistics: &Type, x: &Type) -> Result<()> {
    shape::floats_as(op, statistics, "statistics", &[ROWS, Sizes::of(&x.shape).channels])
}

/// Rows of the statistics: mean, rstd, variance, scale, shift.
const ROWS: usize = 5;

/// Training mode. Inputs: x, gamma, beta. Outputs: y, unless every reader computes it itself; statistics [5, channels].
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Slope of the LeakyReLU behind it: 1 for none, 0 for a ReLU.
    pub slope: f32,
    /// Whether y is an output.
    pub apply: bool,
}

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm.train"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, gamma, beta] = shape::exactly(self.name(), inputs, ["x", "gamma", "beta"])?;
        let s = Sizes::check(self.name(), x, &[("gamma", gamma), ("beta", beta)])?;
        if s.count() < 2 {
            return Err(Error::shape(
                self.name(),
                format!("one value per channel has no variance (x: {:?}); use a batch of two or more", x.shape),
            ));
        }
        let y = self.apply.then(|| Type::f32(x.shape.clone()));
        Ok(y.into_iter().chain([Type::f32([ROWS, s.channels]), Type::f32([s.channels, s.chunks().0, 2])]).collect())
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let [mean, var] = s.moments(inputs[0].data);
        s.outputs(self.apply, &inputs[0], &mean, &var, [inputs[1].data, inputs[2].data], self.slope)
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        gradients(graph, node, upstream, self.slope, Statistics::Batch)
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape);
        let mut launches = self.part_launches(inputs, outputs, 0..s.batch);
        launches.extend(self.joining_launches(inputs, outputs));
        launches.extend(self.apply.then(|| apply(&s, inputs, outputs, self.slope)));
        launches
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // x is read again for y: its statistics are known only at its end.
        let again = if self.apply { &inputs[..1] } else { &[] };
        Cost::moving(inputs.iter().chain(&outputs[..outputs.len() - 1])).and_moving(again)
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        // The statistics alone: y needs them complete.
        if self.apply { None } else { by_rows(&[ROW, WHOLE, WHOLE], &[WHOLE, WHOLE]) }
    }

    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        if self.apply { None } else { Some(self) }
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl PartialSums for BatchNorm {
    fn rows_per_part(&self, inputs: &[Operand]) -> usize {
        Sizes::of(inputs[0].shape).chunks().1
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let partial = outputs[usize::from(self.apply) + 1].id;
        vec![partial_statistics(&inputs[0], partial, rows)]
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let [statistics, partial] = [0, 1].map(|i| outputs[usize::from(self.apply) + i].id);
        let launch = Sizes::of(inputs[0].shape)
            .by_channel("combine_statistics")
            .bind("partial", partial)
            .bind("gamma", inputs[1].id)
            .bind("beta", inputs[2].id)
            .bind("y", statistics);
        vec![launch]
    }
}

impl Rewrites for BatchNorm {
    fn as_norm(&self) -> Option<Norm> {
        let op = BatchNorm { apply: false, ..self.clone() }.into();
        self.apply.then_some(Norm { slope: self.slope, without_y: op })
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

fn partial_statistics(x: &Operand, partial: ValueId, rows: Range<usize>) -> Launch<ValueId> {
    Sizes::of(x.shape)
        .by_chunk(["partial_statistics", "partial_statistics_4"], x, 1.0, rows)
        .bind("partial_out", partial)
}

fn apply(s: &Sizes, inputs: &[Operand], outputs: &[Operand], slope: f32) -> Launch<ValueId> {
    s.by_element(["apply", "apply_4"], &inputs[0], outputs[0].id, slope).bind("statistics", outputs[1].id)
}

/// Whose statistics a batch norm has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    /// Those of its x.
    Batch,
    /// Those of its x and of the other parts of the batch.
    Joined,
    /// The running ones, which do not depend on x.
    Running,
}

fn gradients(
    graph: &mut Graph,
    node: &Node,
    upstream: &[Option<ValueId>],
    slope: f32,
    of: Statistics,
) -> Result<Vec<Option<ValueId>>> {
    let mut all = vec![None; node.inputs.len()];
    if let Some(dy) = upstream[0] {
        let (x, statistics) = (node.inputs[0], node.outputs[1]);
        let sums = graph.apply(BatchNormSums { slope, joined: of == Statistics::Joined }, &[x, dy, statistics])?;
        let backward = BatchNormBackward { slope, train: of != Statistics::Running, in_place: false };
        all[0] = Some(graph.one(backward, &[x, statistics, sums[2], dy])?);
        all[1] = Some(sums[0]);
        all[2] = Some(sums[1]);
    }
    Ok(all)
}

/// Mean and biased variance of each channel, in training mode where a batch is computed in several parts at once: the parts
/// are of one size, and their moments are joined. Input: x. Outputs: mean and variance, vectors of the channels.
#[derive(Clone, Debug)]
pub struct BatchNormMoments;

impl Operation for BatchNormMoments {
    fn name(&self) -> &'static str {
        "batch_norm.moments"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let s = Sizes::check(self.name(), x, &[])?;
        let vector = Type::f32([s.channels]);
        Ok(vec![vector.clone(), vector, Type::f32([s.channels, s.chunks().0, 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        Sizes::of(inputs[0].shape).moments(inputs[0].data).into()
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let batch = Sizes::of(inputs[0].shape).batch;
        [self.part_launches(inputs, outputs, 0..batch), self.joining_launches(inputs, outputs)].concat()
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(&outputs[..2]))
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[WHOLE, WHOLE, WHOLE])
    }

    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        Some(self)
    }

    fn joined(&self) -> Option<Joined> {
        Some(Joined { outputs: 0..2, join: join_moments })
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl PartialSums for BatchNormMoments {
    fn rows_per_part(&self, inputs: &[Operand]) -> usize {
        Sizes::of(inputs[0].shape).chunks().1
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        vec![partial_statistics(&inputs[0], outputs[2].id, rows)]
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let launch = Sizes::of(inputs[0].shape)
            .by_channel("combine_moments")
            .bind("partial", outputs[2].id)
            .bind("running_mean", outputs[0].id)
            .bind("running_var", outputs[1].id);
        vec![launch]
    }
}

impl Rewrites for BatchNormMoments {
    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

/// Means and variances of parts of one size, as those of all of them (Chan's formula), in f64.
fn join_moments(parts: &[&[f32]]) -> Vec<f32> {
    let channels = parts.first().map_or(0, |part| part.len() / 2);
    let n = parts.len() as f64;
    let mean_of = |values: &dyn Fn(&[f32]) -> f64| parts.iter().map(|part| values(part)).sum::<f64>() / n;
    let means: Vec<f64> = (0..channels).map(|c| mean_of(&|part| f64::from(part[c]))).collect();
    let variance = |c: usize| mean_of(&|part| f64::from(part[channels + c]) + (f64::from(part[c]) - means[c]).powi(2));
    let variances: Vec<f64> = (0..channels).map(variance).collect();
    means.into_iter().chain(variances).map(|value| value as f32).collect()
}

/// The means of parts of one size, as those of all of them, in f64.
fn join_means(parts: &[&[f32]]) -> Vec<f32> {
    let elements = parts.first().map_or(0, |part| part.len());
    let mean = |i: usize| parts.iter().map(|part| f64::from(part[i])).sum::<f64>() / parts.len() as f64;
    (0..elements).map(|i| mean(i) as f32).collect()
}

/// With a given mean and variance. Inputs: x, gamma, beta, mean, variance. Outputs: as [`BatchNorm`].
#[derive(Clone, Debug)]
pub struct BatchNormGiven {
    /// Slope of the LeakyReLU behind it: 1 for none, 0 for a ReLU.
    pub slope: f32,
    /// Whether y is an output.
    pub apply: bool,
    /// Whether mean and variance are those that [`BatchNormMoments`] makes of x and the other parts of the batch, in training
    /// mode; the gradient of x is then that through them, too, and they have none of their own. Else they are the running
    /// ones, in evaluation mode.
    pub joined: bool,
}

impl Operation for BatchNormGiven {
    fn name(&self) -> &'static str {
        if self.joined { "batch_norm.joined" } else { "batch_norm.eval" }
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["x", "gamma", "beta", "mean", "variance"];
        let [x, gamma, beta, mean, var] = shape::exactly(self.name(), inputs, names)?;
        let vectors = [("gamma", gamma), ("beta", beta), ("the mean", mean), ("the variance", var)];
        let s = Sizes::check(self.name(), x, &vectors)?;
        let y = self.apply.then(|| Type::f32(x.shape.clone()));
        Ok(y.into_iter().chain([Type::f32([ROWS, s.channels])]).collect())
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let affine = [inputs[1].data, inputs[2].data];
        s.outputs(self.apply, &inputs[0], inputs[3].data, inputs[4].data, affine, self.slope)
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let of = if self.joined { Statistics::Joined } else { Statistics::Running };
        gradients(graph, node, upstream, self.slope, of)
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape);
        let statistics = s
            .by_channel("from_running")
            .bind("running_mean_in", inputs[3].id)
            .bind("running_var_in", inputs[4].id)
            .bind("gamma", inputs[1].id)
            .bind("beta", inputs[2].id)
            .bind("y", outputs[usize::from(self.apply)].id);
        let y = self.apply.then(|| apply(&s, inputs, outputs, self.slope));
        [statistics].into_iter().chain(y).collect()
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        let outputs: &[bool] = if self.apply { &[ROW, WHOLE] } else { &[WHOLE] };
        by_rows(&[ROW, WHOLE, WHOLE, WHOLE, WHOLE], outputs)
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for BatchNormGiven {
    fn as_norm(&self) -> Option<Norm> {
        let op = BatchNormGiven { apply: false, ..self.clone() }.into();
        self.apply.then_some(Norm { slope: self.slope, without_y: op })
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

/// The sums over a channel in the gradients of both modes. Inputs: x, dy, statistics. Outputs: dgamma, dbeta and
/// their means over the batch [channels, 2].
#[derive(Clone, Debug)]
pub struct BatchNormSums {
    /// Slope of the LeakyReLU between y and u.
    pub slope: f32,
    /// Whether the means are those of all parts of a batch that is computed in several at once.
    pub joined: bool,
}

impl Operation for BatchNormSums {
    fn name(&self) -> &'static str {
        "batch_norm.sums"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, dy, statistics] = shape::exactly(self.name(), inputs, ["x", "dy", "statistics"])?;
        let s = Sizes::check(self.name(), x, &[])?;
        shape::floats_as(self.name(), dy, "dy", &x.shape)?;
        check_statistics(self.name(), statistics, x)?;
        let vector = Type::f32([s.channels]);
        Ok(vec![vector.clone(), vector, Type::f32([s.channels, 2]), Type::f32([s.channels, s.chunks().0, 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, statistics) = (inputs[0].data, inputs[2].data);
        let du = through_activation(&s, x, inputs[1].data, statistics, self.slope);
        let (mut dgamma, mut dbeta, mut means) = (Vec::new(), Vec::new(), Vec::new());
        for c in 0..s.channels {
            let (mean, rstd) = (statistics[c], statistics[s.channels + c]);
            dgamma.push(s.elements(c).map(|i| du[i] * (x[i] - mean) * rstd).sum::<f64>());
            dbeta.push(s.elements(c).map(|i| du[i]).sum::<f64>());
            means.extend([dgamma[c] / s.count() as f64, dbeta[c] / s.count() as f64]);
        }
        vec![dgamma, dbeta, means]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let batch = Sizes::of(inputs[0].shape).batch;
        [self.part_launches(inputs, outputs, 0..batch), self.joining_launches(inputs, outputs)].concat()
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(&outputs[..3]))
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW, WHOLE], &[WHOLE, WHOLE, WHOLE, WHOLE])
    }

    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        Some(self)
    }

    fn joined(&self) -> Option<Joined> {
        self.joined.then_some(Joined { outputs: 2..3, join: join_means })
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl PartialSums for BatchNormSums {
    fn rows_per_part(&self, inputs: &[Operand]) -> usize {
        Sizes::of(inputs[0].shape).chunks().1
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let launch = Sizes::of(inputs[0].shape)
            .by_chunk(["partial_gradients", "partial_gradients_4"], &inputs[0], self.slope, rows)
            .bind("dy", inputs[1].id)
            .bind("statistics", inputs[2].id)
            .bind("partial_out", outputs[3].id);
        vec![launch]
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let launch = Sizes::of(inputs[0].shape)
            .by_channel("combine_gradients")
            .bind("partial", outputs[3].id)
            .bind("dgamma", outputs[0].id)
            .bind("dbeta", outputs[1].id)
            .bind("partial_out", outputs[2].id);
        vec![launch]
    }
}

impl Rewrites for BatchNormSums {
    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

/// du of every element.
fn through_activation(s: &Sizes, x: &[f64], dy: &[f64], statistics: &[f64], slope: f32) -> Vec<f64> {
    let u = s.normalised(x, statistics);
    dy.iter().zip(u).map(|(&g, u)| if u > 0.0 { g } else { f64::from(slope) * g }).collect()
}

/// dx of both modes. Inputs: x, statistics, means of the sums, dy, which it may replace. Output: dx.
#[derive(Clone, Debug)]
pub struct BatchNormBackward {
    /// Slope of the LeakyReLU between y and u.
    pub slope: f32,
    /// The statistics were those of the batch, so they depend on x.
    pub train: bool,
    /// dx takes the place of dy.
    pub in_place: bool,
}

impl Operation for BatchNormBackward {
    fn name(&self) -> &'static str {
        "batch_norm.backward"
    }

    fn in_place(&self) -> bool {
        self.in_place
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, statistics, means, dy] = shape::exactly(self.name(), inputs, ["x", "statistics", "means", "dy"])?;
        let s = Sizes::check(self.name(), x, &[])?;
        check_statistics(self.name(), statistics, x)?;
        shape::floats_as(self.name(), means, "means", &[s.channels, 2])?;
        shape::floats_as(self.name(), dy, "dy", &x.shape)?;
        Ok(vec![Type::f32(x.shape.clone())])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, statistics, means) = (inputs[0].data, inputs[1].data, inputs[2].data);
        let mut dx = through_activation(&s, x, inputs[3].data, statistics, self.slope);
        for c in 0..s.channels {
            let of = |row: usize| statistics[row * s.channels + c];
            for i in s.elements(c) {
                if self.train {
                    dx[i] -= means[2 * c + 1] + (x[i] - of(0)) * of(1) * means[2 * c];
                }
                dx[i] *= of(3);
            }
        }
        vec![dx]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let entries = match self.in_place {
            true => ["backward_in_place", "backward_in_place_4"],
            false => ["backward", "backward_4"],
        };
        let launch = Sizes::of(inputs[0].shape)
            .by_element(entries, &inputs[0], outputs[0].id, self.slope)
            .constant("TRAIN", u32::from(self.train))
            .bind("statistics", inputs[1].id)
            .bind("partial", inputs[2].id);
        vec![if self.in_place { launch } else { launch.bind("dy", inputs[3].id) }]
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE, WHOLE, ROW], &[ROW])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for BatchNormBackward {
    fn in_place_variant(&self) -> Option<Op> {
        (!self.in_place).then(|| BatchNormBackward { in_place: true, ..self.clone() }.into())
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

/// Moves the running statistics, in place. Inputs: statistics; targets: running mean, running
/// variance. PyTorch's rule: the running variance takes the unbiased batch variance.
#[derive(Clone, Debug)]
pub struct BatchNormRunning {
    /// Values of a channel in the batch: batch x height x width, at least 2.
    pub count: usize,
}

impl Operation for BatchNormRunning {
    fn name(&self) -> &'static str {
        "batch_norm.running"
    }

    fn in_place(&self) -> bool {
        true
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["statistics", "running mean", "running variance"];
        let [statistics, mean, var] = shape::exactly(self.name(), inputs, names)?;
        let [channels] = shape::floats(self.name(), mean, "the running mean")?;
        shape::floats_as(self.name(), var, "the running variance", &[channels])?;
        shape::floats_as(self.name(), statistics, "statistics", &[ROWS, channels])?;
        if self.count < 2 {
            return Err(Error::shape(self.name(), format!("{} values have no variance", self.count)));
        }
        Ok(vec![mean.clone(), var.clone()])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (statistics, channels) = (inputs[0].data, inputs[1].data.len());
        let (count, m) = (self.count as f64, f64::from(MOMENTUM));
        let mix = |old: &[f64], new: &dyn Fn(usize) -> f64| -> Vec<f64> {
            old.iter().enumerate().map(|(c, o)| (1.0 - m) * o + m * new(c)).collect()
        };
        let mean = mix(inputs[1].data, &|c| statistics[c]);
        let var = mix(inputs[2].data, &|c| statistics[2 * channels + c] * count / (count - 1.0));
        vec![mean, var]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes { batch: self.count, channels: outputs[0].len(), size: 1 };
        vec![
            s.by_channel("running")
                .bind("statistics", inputs[0].id)
                .bind("running_mean", outputs[0].id)
                .bind("running_var", outputs[1].id),
        ]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let positive = |c: usize| Input::normal([c]).with(Elements::Uniform(0.5, 2.0));
    let mut cases = Vec::new();
    // A chunk of a channel is summed by 1, 4, 16 or 64 lanes, over single elements or over four neighbours; some have several
    // chunks, of which the last is short.
    let shapes: [(&[usize], f32); 11] = [
        (&[3, 1], 1.0),
        (&[16, 10], 0.0),
        (&[3, 130], 0.1),
        (&[4, 6, 5, 7], 0.1),
        (&[9, 3, 28, 28], 1.0),
        (&[70, 5, 1, 1], 0.0),
        (&[3, 2, 9, 9], 0.1),
        (&[18, 21, 2, 2], 0.1),
        (&[19, 5, 4, 4], 0.1),
        (&[18, 5, 8, 8], 0.1),
        (&[3, 7, 10, 10], 0.0),
    ];
    for (shape, slope) in shapes {
        let shape = shape.to_vec();
        let c = shape[1];
        let affine = || vec![Input::normal(shape.clone()), positive(c), Input::normal([c])];
        let what = format!("{shape:?}, slope {slope}");
        cases.push(Case::new(&what, BatchNorm { slope, apply: true }, affine()).tolerance(1e-5));
        let running =
            [Input::constant([c], Elements::Normal(0.0, 0.3)), Input::constant([c], Elements::Uniform(0.5, 2.0))];
        let all: Vec<Input> = affine().into_iter().chain(running).collect();
        cases.push(Case::new(&what, BatchNormGiven { slope, apply: true, joined: false }, all).tolerance(5e-6));
    }
    // Parts of a batch: x is constant, since its gradient goes through the moments, too.
    for (shape, slope) in [(vec![1, 3], 1.0), (vec![6, 9], 0.0), (vec![4, 6, 5, 7], 0.1), (vec![9, 3, 28, 28], 1.0)] {
        let (what, c) = (format!("{shape:?}, slope {slope}"), shape[1]);
        let x = Input::constant(shape, Elements::Normal(0.3, 1.0));
        cases.push(Case::new(&what, BatchNormMoments, vec![x.clone()]).tolerance(1e-5));
        let moments =
            [Input::constant([c], Elements::Normal(0.0, 0.3)), Input::constant([c], Elements::Uniform(0.5, 2.0))];
        let inputs = [vec![x, positive(c), Input::normal([c])], moments.to_vec()].concat();
        cases.push(Case::new(&what, BatchNormGiven { slope, apply: true, joined: true }, inputs).tolerance(5e-6));
    }
    // What is left of them where y is not stored, and the gradient that takes the place of dy.
    let constants = |shapes: &[&[usize]]| -> Vec<Input> {
        shapes.iter().map(|s| Input::constant(s.to_vec(), Elements::Uniform(0.2, 2.0))).collect()
    };
    let x: &[usize] = &[5, 7, 3, 3];
    let statistics_only = BatchNorm { slope: 0.1, apply: false };
    cases.push(Case::new("statistics only", statistics_only, constants(&[x, &[7], &[7]])).tolerance(1e-5));
    let statistics_only = BatchNormGiven { slope: 0.1, apply: false, joined: false };
    cases.push(Case::new("statistics only", statistics_only, constants(&[x, &[7], &[7], &[7], &[7]])));
    for (x, train) in [x, &[9, 7, 5, 8]].into_iter().flat_map(|x| [(x, true), (x, false)]) {
        let op = BatchNormBackward { slope: 0.1, train, in_place: true };
        let inputs = constants(&[x, &[ROWS, 7], &[7, 2], x]);
        cases.push(Case::new(format!("{x:?} in place, batch statistics {train}"), op, inputs));
    }
    let x = || Input::constant([5, 7, 3, 4], Elements::Normal(0.5, 1.0)).half();
    let [statistics, means] = [&[ROWS, 7][..], &[7, 2]].map(|s| Input::constant(s, Elements::Uniform(0.2, 2.0)));
    let dy = Input::constant([5, 7, 3, 4], Elements::Normal(0.0, 1.0));
    let affine = constants(&[&[7], &[7]]);
    let norm = BatchNorm { slope: 0.1, apply: true };
    cases.push(Case::new("x in half precision", norm, [vec![x()], affine].concat()).tolerance(1e-5));
    cases.push(Case::new("x in half precision", BatchNormMoments, vec![x()]).tolerance(1e-5));
    let inputs = vec![x(), dy.clone(), statistics.clone()];
    cases.push(Case::new("x in half precision", BatchNormSums { slope: 0.1, joined: false }, inputs).tolerance(1e-5));
    for in_place in [false, true] {
        let op = BatchNormBackward { slope: 0.1, train: true, in_place };
        let inputs = vec![x(), statistics.clone(), means.clone(), dy.clone()];
        cases.push(Case::new(format!("x in half precision, in place {in_place}"), op, inputs));
    }
    // x has 7 digits and a mean of 60 deviations: 2 digits are gone before the kernel starts.
    for side in [3, 4] {
        let far = Input::normal([8, 5, side, side]).with(Elements::Normal(30.0, 0.5));
        let inputs = vec![far, positive(5), Input::normal([5])];
        let what = format!("mean 60 sd from 0, side {side}");
        cases.push(Case::new(what, BatchNorm { slope: 1.0, apply: true }, inputs).tolerance(1e-4));
    }
    let far = Input::constant([8, 5, 3, 3], Elements::Normal(30.0, 0.5));
    cases.push(Case::new("mean 60 sd from 0", BatchNormMoments, vec![far]).tolerance(1e-4));
    let targets = vec![
        Input::constant([ROWS, 7], Elements::Uniform(0.2, 2.0)),
        Input::constant([7], Elements::Normal(0.0, 1.0)),
        Input::constant([7], Elements::Uniform(0.5, 2.0)),
    ];
    cases.push(Case::new("7 channels", BatchNormRunning { count: 12 }, targets));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments and means of parts are joined to those of the whole, also where a mean is far from 0; alone they stay.
    #[test]
    fn parts_are_joined_to_the_whole() {
        let whole = Sizes { batch: 6, channels: 3, size: 4 };
        let x: Vec<f64> = (0..72_u32).map(|i| 50.0 + f64::from(i * 7919 % 101) / 16.0).collect();
        let part = Sizes { batch: 2, ..whole };
        let parts: Vec<Vec<f32>> =
            x.chunks(24).map(|x| part.moments(x).concat().into_iter().map(|v| v as f32).collect()).collect();
        let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        for (got, wanted) in join_moments(&parts).into_iter().zip(whole.moments(&x).concat()) {
            assert!((f64::from(got) - wanted).abs() <= 1e-5 * wanted, "{got} and {wanted}");
        }
        assert_eq!(join_moments(&parts[..1]), parts[0]);
        assert_eq!(join_means(&[&[1.0, 5.0], &[2.0, -1.0], &[6.0, 2.0]]), [3.0, 2.0]);
        assert_eq!(join_means(&parts[..1]), parts[0]);
        assert!(join_means(&[&[1.0], &[f32::NAN]])[0].is_nan());
    }
}
