//! Batch normalisation of images (per channel) and vectors (per feature): training, evaluation, running
//! statistics and gradients (Ioffe and Szegedy 2015; PyTorch's conventions).

use super::check::{Case, Fill, Input};
use super::{Cost, Host, Operand, Operation, same};
use crate::gpu::Launch;
use crate::gpu::kernel::{WORKGROUP, fold};
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "batch_norm";

/// Added to the variance before the root.
pub const EPSILON: f32 = 1e-5;

/// Weight of the new batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

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

    fn check(op: &'static str, inputs: &[Type], vectors: std::ops::Range<usize>) -> Result<Self> {
        let x = &inputs[0].shape;
        if x.len() != 2 && x.len() != 4 {
            return Err(Error::shape(op, format!("x must be [batch, features] or NCHW, it has shape {x:?}")));
        }
        for (i, input) in inputs.iter().enumerate().take(vectors.end).skip(vectors.start) {
            same(op, &format!("input {i}"), &input.shape, &[x[1]])?;
        }
        Ok(Sizes::of(x))
    }

    fn count(&self) -> usize {
        self.batch * self.size
    }

    /// Chunks of a channel and images of a chunk: about 4096 elements each.
    fn chunks(&self) -> (usize, usize) {
        let images = (4096 / self.size).clamp(1, self.batch.max(1));
        (self.batch.div_ceil(images), images)
    }

    fn launch(&self, entry: &'static str, n: usize) -> Launch<ValueId> {
        let (chunks, images) = self.chunks();
        let lanes = WORKGROUP as usize;
        Launch::items(SHADER, entry, n)
            .param("batch", self.batch)
            .param("channels", self.channels)
            .param("size", self.size)
            .param("chunks", chunks)
            .param("chunk_images", images)
            .param("step_plane", lanes / self.size)
            .param("step_size", lanes % self.size)
            .param("step_channel", (lanes / self.size) % self.channels)
            .param("epsilon", EPSILON)
            .param("momentum", MOMENTUM)
    }

    fn by_chunk(&self, entry: &'static str) -> Launch<ValueId> {
        let mut launch = self.launch(entry, 0);
        launch.groups = fold(self.channels * self.chunks().0);
        launch
    }

    fn by_element(&self, entry: &'static str) -> Launch<ValueId> {
        let n = self.batch * self.channels * self.size;
        let mut launch = self.launch(entry, n);
        launch.groups = fold(n.div_ceil(16 * WORKGROUP as usize));
        launch
    }

    fn by_channel(&self, entry: &'static str) -> Launch<ValueId> {
        self.launch(entry, self.channels)
    }

    /// Elements of channel `c`.
    fn elements(self, c: usize) -> impl Iterator<Item = usize> {
        (0..self.batch).flat_map(move |n| {
            let start = (n * self.channels + c) * self.size;
            start..start + self.size
        })
    }

    fn apply(&self, x: &[f64], gamma: &[f64], beta: &[f64], mean: &[f64], rstd: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for c in 0..self.channels {
            for i in self.elements(c) {
                y[i] = (x[i] - mean[c]) * rstd[c] * gamma[c] + beta[c];
            }
        }
        y
    }
}

fn rstd(variance: f64) -> f64 {
    1.0 / (variance + f64::from(EPSILON)).sqrt()
}

/// Training mode. Inputs: x, gamma, beta. Outputs: y; statistics [3, channels] (mean, rstd, biased variance).
#[derive(Clone, Debug)]
pub struct BatchNorm;

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm.train"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let s = Sizes::check(self.name(), inputs, 1..3)?;
        if s.count() < 2 {
            return Err(Error::shape(
                self.name(),
                format!("one value a channel has no variance (x: {:?}); use a batch of two or more", inputs[0].shape),
            ));
        }
        Ok(vec![inputs[0].clone(), Type::f32([3, s.channels]), Type::f32([s.channels, s.chunks().0, 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, count) = (inputs[0].data, s.count() as f64);
        let mean: Vec<f64> = (0..s.channels).map(|c| s.elements(c).map(|i| x[i]).sum::<f64>() / count).collect();
        let var: Vec<f64> =
            (0..s.channels).map(|c| s.elements(c).map(|i| (x[i] - mean[c]).powi(2)).sum::<f64>() / count).collect();
        let rstd: Vec<f64> = var.iter().map(|&v| rstd(v)).collect();
        let y = s.apply(x, inputs[1].data, inputs[2].data, &mean, &rstd);
        vec![y, [mean, rstd, var].concat()]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        gradients(graph, node, upstream, true)
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, statistics, partial) = (inputs[0].id, outputs[1].id, outputs[2].id);
        vec![
            s.by_chunk("partial_statistics").bind("x", x).bind("partial_out", partial),
            s.by_channel("combine_statistics").bind("partial", partial).bind("y", statistics),
            apply(&s, inputs, outputs),
        ]
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // x is read twice: its statistics are known only at its end.
        Cost::moving(inputs.iter().chain(&outputs[..2])).and_moving(&inputs[..1])
    }
}

fn apply(s: &Sizes, inputs: &[Operand], outputs: &[Operand]) -> Launch<ValueId> {
    s.by_element("apply")
        .bind("x", inputs[0].id)
        .bind("gamma", inputs[1].id)
        .bind("beta", inputs[2].id)
        .bind("statistics", outputs[1].id)
        .bind("y", outputs[0].id)
}

fn gradients(
    graph: &mut Graph,
    node: &Node,
    upstream: &[Option<ValueId>],
    train: bool,
) -> Result<Vec<Option<ValueId>>> {
    let mut all = vec![None; node.inputs.len()];
    if let Some(dy) = upstream[0] {
        let made = graph.apply(BatchNormBackward { train }, &[node.inputs[0], dy, node.inputs[1], node.outputs[1]])?;
        for i in 0..3 {
            all[i] = Some(made[i]);
        }
    }
    Ok(all)
}

/// Evaluation mode. Inputs: x, gamma, beta, running mean, running variance. Outputs: y; statistics [3, channels].
#[derive(Clone, Debug)]
pub struct BatchNormEval;

impl Operation for BatchNormEval {
    fn name(&self) -> &'static str {
        "batch_norm.eval"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let s = Sizes::check(self.name(), inputs, 1..5)?;
        Ok(vec![inputs[0].clone(), Type::f32([3, s.channels])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let (mean, var) = (inputs[3].data.to_vec(), inputs[4].data.to_vec());
        let rstd: Vec<f64> = var.iter().map(|&v| rstd(v)).collect();
        let y = s.apply(inputs[0].data, inputs[1].data, inputs[2].data, &mean, &rstd);
        vec![y, [mean, rstd, var].concat()]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        gradients(graph, node, upstream, false)
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape);
        vec![
            s.by_channel("from_running")
                .bind("running_mean_in", inputs[3].id)
                .bind("running_var_in", inputs[4].id)
                .bind("y", outputs[1].id),
            apply(&s, inputs, outputs),
        ]
    }
}

/// Gradients of both modes. Inputs: x, dy, gamma, statistics. Outputs: dx, dgamma, dbeta.
#[derive(Clone, Debug)]
pub struct BatchNormBackward {
    /// The statistics were those of the batch, so they depend on x.
    pub train: bool,
}

impl Operation for BatchNormBackward {
    fn name(&self) -> &'static str {
        "batch_norm.backward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let s = Sizes::check(self.name(), inputs, 2..3)?;
        same(self.name(), "dy", &inputs[1].shape, &inputs[0].shape)?;
        same(self.name(), "statistics", &inputs[3].shape, &[3, s.channels])?;
        let vector = Type::f32([s.channels]);
        let partial = Type::f32([s.channels, s.chunks().0, 2]);
        Ok(vec![inputs[0].clone(), vector.clone(), vector, partial, Type::f32([s.channels, 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, dy, gamma, statistics) = (inputs[0].data, inputs[1].data, inputs[2].data, inputs[3].data);
        let (mut dx, mut dgamma, mut dbeta) = (vec![0.0; x.len()], vec![0.0; s.channels], vec![0.0; s.channels]);
        for c in 0..s.channels {
            let (mean, rstd) = (statistics[c], statistics[s.channels + c]);
            let hat = |i: usize| (x[i] - mean) * rstd;
            dgamma[c] = s.elements(c).map(|i| dy[i] * hat(i)).sum();
            dbeta[c] = s.elements(c).map(|i| dy[i]).sum();
            let share = if self.train { 1.0 / s.count() as f64 } else { 0.0 };
            for i in s.elements(c) {
                dx[i] = gamma[c] * rstd * (dy[i] - share * (dbeta[c] + hat(i) * dgamma[c]));
            }
        }
        vec![dx, dgamma, dbeta]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape);
        let (x, dy, gamma, statistics) = (inputs[0].id, inputs[1].id, inputs[2].id, inputs[3].id);
        let (dx, partial, means) = (outputs[0].id, outputs[3].id, outputs[4].id);
        let mut backward = s
            .by_element("backward")
            .constant("TRAIN", u32::from(self.train))
            .bind("dy", dy)
            .bind("gamma", gamma)
            .bind("statistics", statistics)
            .bind("y", dx);
        backward = backward.bind("x", x).bind("partial", means);
        vec![
            s.by_chunk("partial_gradients")
                .bind("x", x)
                .bind("dy", dy)
                .bind("statistics", statistics)
                .bind("partial_out", partial),
            s.by_channel("combine_gradients")
                .bind("partial", partial)
                .bind("dgamma", outputs[1].id)
                .bind("dbeta", outputs[2].id)
                .bind("partial_out", means),
            backward,
        ]
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // x and dy are read twice: their sums are known only at their end.
        Cost::moving(inputs.iter().chain(&outputs[..3])).and_moving(&inputs[..2])
    }
}

/// Moves the running statistics, in place. Inputs: statistics [3, channels]; targets: running mean, running
/// variance. PyTorch's rule: the running variance takes the unbiased batch variance.
#[derive(Clone, Debug)]
pub struct BatchNormRunning {
    /// Values of a channel in the batch: batch x height x width.
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
        let [statistics, mean, var] = inputs else { return Err(Error::shape(self.name(), "wants three inputs")) };
        same(self.name(), "running variance", &var.shape, &mean.shape)?;
        same(self.name(), "statistics", &statistics.shape, &[3, mean.len()])?;
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
    let positive = |c: usize| Input::normal([c]).with(Fill::Uniform(0.5, 2.0));
    let mut cases = Vec::new();
    for shape in [vec![3, 1], vec![16, 10], vec![3, 130], vec![4, 6, 5, 7], vec![9, 3, 28, 28], vec![70, 5, 1, 1]] {
        let c = shape[1];
        let affine = || vec![Input::normal(shape.clone()), positive(c), Input::normal([c])];
        cases.push(Case::new(format!("{shape:?}"), BatchNorm, affine()).tolerance(1e-5));
        let running = [Input::constant([c], Fill::Normal(0.0, 0.3)), Input::constant([c], Fill::Uniform(0.5, 2.0))];
        let all = affine().into_iter().chain(running).collect();
        cases.push(Case::new(format!("{shape:?}"), BatchNormEval, all).tolerance(5e-6));
    }
    // x has 7 digits and a mean of 60 deviations: 2 digits are gone before the kernel starts.
    let far = Input::normal([8, 5, 3, 3]).with(Fill::Normal(30.0, 0.5));
    cases.push(Case::new("mean 60 sd from 0", BatchNorm, vec![far, positive(5), Input::normal([5])]).tolerance(1e-4));
    let targets = vec![
        Input::constant([3, 7], Fill::Uniform(0.2, 2.0)),
        Input::constant([7], Fill::Normal(0.0, 1.0)),
        Input::constant([7], Fill::Uniform(0.5, 2.0)),
    ];
    cases.push(Case::new("7 channels", BatchNormRunning { count: 12 }, targets));
    cases
}
