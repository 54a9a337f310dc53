//! Layers, backbones and heads as functions that append to a graph.
//!
//! Parameters live in one arena in the order they are named, running statistics in another; a graph that
//! names a prefix of them (the backbone alone) shares the buffers with one that names all. Names are those
//! of the authors' PyTorch modules, so a checkpoint loads there (`docs/method.md`, section 2).

use rand_distr::{Distribution, StandardNormal};

use crate::ops::batch_norm::{BatchNorm, BatchNormGiven, BatchNormMoments, BatchNormRunning};
use crate::ops::conv2d::Conv2d;
use crate::ops::dropout;
use crate::ops::elementwise::Reshape;
use crate::ops::matmul::linear;
use crate::ops::pool::{GlobalAveragePool, MaxPool};
use crate::random::{Rng, Stream};
use crate::settings::{Backbone, ModelConfig};
use crate::tape::{Graph, Type, ValueId};
use crate::{Error, Result};

/// The arena of the trained tensors of a network.
pub const PARAMETERS: &str = "parameters";
/// The arena of its running statistics.
pub const STATISTICS: &str = "statistics";

/// Slope of every LeakyReLU of ResNet-12.
pub const SLOPE: f32 = 0.1;

/// Whether a tensor, or a part of a network, of this name belongs to the blocks, not to a head.
pub fn in_backbone(name: &str) -> bool {
    name.starts_with("layer")
}

/// How a parameter or statistic starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
    /// Uniform in plus and minus this bound.
    Uniform(f32),
    /// This value.
    Constant(f32),
}

/// A named tensor of a model.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in PyTorch's state dict.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// The value in the graph it was recorded into.
    pub value: ValueId,
}

impl Entry {
    /// The initial elements: a pure function of the seed, the entry's position and its shape.
    pub fn initial(&self, seed: u64, position: usize) -> Vec<f32> {
        let mut rng = Rng::new(seed, Stream::Weights, 0, position as u32);
        let n = self.shape.iter().product();
        match self.init {
            Init::Constant(value) => vec![value; n],
            Init::Uniform(bound) => (0..n).map(|_| bound * (2.0 * rng.unit() - 1.0)).collect(),
            Init::Normal(sd) => (0..n)
                .map(|_| {
                    let z: f32 = StandardNormal.sample(&mut rng);
                    sd * z
                })
                .collect(),
        }
    }
}

/// Whether batch norm uses the batch (and moves the running statistics) or the running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; gradients wanted.
    Train,
    /// Running statistics; nothing is trained.
    Eval,
}

/// Regularisation at the end of the blocks.
#[derive(Clone, Debug)]
pub enum Drop {
    /// None.
    Off,
    /// Dropout in the first half of the blocks, DropBlock in the rest, drawn on the device for each step.
    Random {
        /// The step block.
        step: ValueId,
        /// Dropout probability; 0 leaves it out.
        dropout: f32,
        /// Side of a dropped square; 0 leaves DropBlock out.
        block: usize,
    },
    /// Given keep masks and factors, one per block.
    Given(Vec<(ValueId, f32)>),
}

/// The shape of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetSpec {
    /// Backbone.
    pub backbone: Backbone,
    /// Channels of each of its blocks, of which there is at least one.
    pub widths: Vec<usize>,
    /// Classes of the classifier.
    pub n_classes: usize,
    /// Outputs of the equivariant head; without it if `None`.
    pub n_transforms: Option<usize>,
    /// Outputs of the invariant head; without it if `None`.
    pub projection: Option<usize>,
}

impl NetSpec {
    /// The network of a configuration.
    pub fn new(model: &ModelConfig, n_classes: usize, n_transforms: Option<usize>, invariant: bool) -> Self {
        NetSpec {
            backbone: model.backbone,
            widths: model.widths.clone(),
            n_classes,
            n_transforms,
            projection: invariant.then_some(model.projection),
        }
    }
}

/// Which heads are computed, of those that a network has. The others only have their place among the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// The equivariant head.
    pub transform: bool,
    /// The invariant head.
    pub invariant: bool,
}

impl Heads {
    /// All that the network has.
    pub const ALL: Heads = Heads { transform: true, invariant: true };
}

/// What a network computes from a batch.
#[derive(Clone, Copy, Debug)]
pub struct Outputs {
    /// The embedding [rows, d].
    pub feat: ValueId,
    /// Class logits [rows, classes].
    pub class: ValueId,
    /// Transform logits [rows, transforms].
    pub transform: Option<ValueId>,
    /// Invariant embedding [rows, projection].
    pub invariant: Option<ValueId>,
}

/// Appends a network to a graph.
pub struct Net<'g> {
    /// The graph.
    pub graph: &'g mut Graph,
    /// Trained tensors in order.
    pub parameters: Vec<Entry>,
    /// Running statistics in order.
    pub statistics: Vec<Entry>,
    /// The running statistics that are to be moved, where [`Net::with_statistics_in`] leaves that to another graph.
    pub moves: Vec<Move>,
    arenas: [String; 2],
    mode: Mode,
    frozen: usize,
    left_in: Option<String>,
    parts: usize,
}

/// Running statistics of a batch norm, and the statistics of a batch that move them.
#[derive(Clone, Debug)]
pub struct Move {
    /// Statistics of the batch.
    pub statistics: ValueId,
    /// Running mean and running variance.
    pub running: [ValueId; 2],
    /// Values of a channel in the batch.
    pub count: usize,
}

impl Move {
    /// Appends it to a graph in which its values are `statistics` and `running`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not fit together.
    pub fn record(&self, graph: &mut Graph, statistics: ValueId, running: [ValueId; 2]) -> Result<()> {
        graph.update(BatchNormRunning { count: self.count }, &[statistics], &running)
    }
}

impl<'g> Net<'g> {
    /// A network whose parameters live in the arenas `{prefix}parameters` and `{prefix}statistics`.
    pub fn new(graph: &'g mut Graph, prefix: &str, mode: Mode) -> Self {
        let arenas = [PARAMETERS, STATISTICS].map(|a| format!("{prefix}{a}"));
        let (moves, left_in) = (Vec::new(), None);
        Net { graph, parameters: Vec::new(), statistics: Vec::new(), moves, arenas, mode, frozen: 0, left_in, parts: 1 }
    }

    /// With the statistics of the batch left in `arena` instead of moving the running ones: see [`Net::moves`].
    pub fn with_statistics_in(self, arena: impl Into<String>) -> Self {
        Net { left_in: Some(arena.into()), ..self }
    }

    /// As one of `parts` parts of a batch, of one size, with the statistics of the whole batch:
    /// [`BatchNormMoments`]. More parts than one have to be computed at once.
    pub fn with_joined_parts(self, parts: usize) -> Self {
        Net { parts: parts.max(1), ..self }
    }

    /// With the first `blocks` blocks as they are: not trained, and in evaluation mode, without dropout and with the
    /// running statistics, which do not move.
    pub fn with_frozen(self, blocks: usize) -> Self {
        Net { frozen: blocks, ..self }
    }

    fn parameter(&mut self, name: String, shape: &[usize], init: Init) -> ValueId {
        let trained = self.mode == Mode::Train;
        let value = self.graph.in_arena(&self.arenas[0], name.clone(), Type::f32(shape), trained);
        self.parameters.push(Entry { name, shape: shape.to_vec(), init, value });
        value
    }

    fn statistic(&mut self, name: String, channels: usize, init: f32) -> ValueId {
        let value = self.graph.in_arena(&self.arenas[1], name.clone(), Type::f32([channels]), false);
        self.statistics.push(Entry { name, shape: vec![channels], init: Init::Constant(init), value });
        value
    }

    fn conv(&mut self, name: &str, x: ValueId, channels: usize, kernel: usize) -> Result<ValueId> {
        self.graph.set_scope(name);
        let c_in = self.graph.shape(x)[1];
        let sd = (2.0 / (channels * kernel * kernel) as f32).sqrt();
        let weight = self.parameter(format!("{name}.weight"), &[channels, c_in, kernel, kernel], Init::Normal(sd));
        self.graph.one(Conv2d::new(1, kernel / 2), &[x, weight])
    }

    /// Scale, shift, running mean and running variance.
    fn batch_norm_tensors(&mut self, name: &str, channels: usize) -> [ValueId; 4] {
        let gamma = self.parameter(format!("{name}.weight"), &[channels], Init::Constant(1.0));
        let beta = self.parameter(format!("{name}.bias"), &[channels], Init::Constant(0.0));
        let mean = self.statistic(format!("{name}.running_mean"), channels, 0.0);
        let var = self.statistic(format!("{name}.running_var"), channels, 1.0);
        [gamma, beta, mean, var]
    }

    /// Batch norm and the LeakyReLU of this slope behind it; 1 for none, 0 for a ReLU.
    fn batch_norm(&mut self, name: &str, x: ValueId, slope: f32) -> Result<ValueId> {
        self.graph.set_scope(name);
        let shape = self.graph.shape(x).to_vec();
        let channels = shape[1];
        let [gamma, beta, mean, var] = self.batch_norm_tensors(name, channels);
        match self.mode {
            Mode::Eval => {
                self.graph.one(BatchNormGiven { slope, apply: true, joined: false }, &[x, gamma, beta, mean, var])
            }
            Mode::Train => {
                let made = match self.parts {
                    1 => self.graph.apply(BatchNorm { slope, apply: true }, &[x, gamma, beta])?,
                    _ => {
                        let moments = self.graph.apply(BatchNormMoments, &[x])?;
                        let op = BatchNormGiven { slope, apply: true, joined: true };
                        self.graph.apply(op, &[x, gamma, beta, moments[0], moments[1]])?
                    }
                };
                let count = shape.iter().product::<usize>() / channels * self.parts;
                let moved = Move { statistics: made[1], running: [mean, var], count };
                match &self.left_in {
                    None => moved.record(self.graph, moved.statistics, moved.running)?,
                    Some(arena) => {
                        self.graph.persist(moved.statistics, arena)?;
                        self.moves.push(moved);
                    }
                }
                Ok(made[0])
            }
        }
    }

    /// Weight and bias.
    fn linear_tensors(&mut self, name: &str, inputs: usize, outputs: usize) -> [ValueId; 2] {
        let init = Init::Uniform(1.0 / (inputs as f32).sqrt());
        let weight = self.parameter(format!("{name}.weight"), &[outputs, inputs], init);
        let bias = self.parameter(format!("{name}.bias"), &[outputs], init);
        [weight, bias]
    }

    fn linear(&mut self, name: &str, x: ValueId, outputs: usize) -> Result<ValueId> {
        self.graph.set_scope(name);
        let inputs = self.graph.shape(x)[1];
        let [weight, bias] = self.linear_tensors(name, inputs, outputs);
        linear(self.graph, x, weight, bias)
    }

    /// Block `b` (from 1) of ResNet-12: three 3x3 convolutions with a 1x1 shortcut, then 2x2 max pooling.
    fn residual_block(&mut self, b: usize, x: ValueId, channels: usize) -> Result<ValueId> {
        let name = |part: &str| format!("layer{b}.0.{part}");
        let mut h = x;
        for i in 1..=3 {
            h = self.conv(&name(&format!("conv{i}")), h, channels, 3)?;
            h = self.batch_norm(&name(&format!("bn{i}")), h, if i < 3 { SLOPE } else { 1.0 })?;
        }
        let shortcut = self.conv(&name("downsample.0"), x, channels, 1)?;
        let shortcut = self.batch_norm(&name("downsample.1"), shortcut, 1.0)?;
        self.graph.set_scope(format!("layer{b}.0"));
        self.graph.one(MaxPool::new(SLOPE), &[h, shortcut])
    }

    /// Block `b` (from 1) of Conv4: 3x3 convolution, batch norm, ReLU, 2x2 max pooling.
    fn plain_block(&mut self, b: usize, x: ValueId, channels: usize) -> Result<ValueId> {
        let h = self.conv(&format!("layer{b}.0"), x, channels, 3)?;
        let h = self.batch_norm(&format!("layer{b}.1"), h, 1.0)?;
        self.graph.one(MaxPool::new(0.0), &[h])
    }

    /// Regularises the output of block `b` (from 1) of `blocks`.
    fn drop(&mut self, b: usize, blocks: usize, x: ValueId, drop: &Drop) -> Result<ValueId> {
        match drop {
            Drop::Off => Ok(x),
            Drop::Random { step, dropout: p, .. } if 2 * b <= blocks => {
                if *p > 0.0 {
                    dropout::dropout(self.graph, x, *step, b as u32, *p)
                } else {
                    Ok(x)
                }
            }
            Drop::Random { step, block, .. } => {
                if *block > 0 {
                    dropout::drop_block(self.graph, x, *step, b as u32, *block)
                } else {
                    Ok(x)
                }
            }
            Drop::Given(masks) => {
                let (mask, scale) =
                    *masks.get(b - 1).ok_or_else(|| Error::Internal(format!("no mask for block {b}")))?;
                dropout::apply_given_mask(self.graph, x, mask, scale)
            }
        }
    }

    /// The embedding of images x [rows, 3, s, s]: [rows, d]. ResNet-12 averages its last map, Conv4 flattens it.
    /// Also returns the outputs of the blocks, each half as large as the one before, with as many channels as `widths` says.
    ///
    /// # Errors
    /// [`Error::Shape`] when there is no block, or the images are too small for the number of poolings.
    pub fn embed(
        &mut self,
        x: ValueId,
        backbone: Backbone,
        widths: &[usize],
        drop: &Drop,
    ) -> Result<(ValueId, Vec<ValueId>)> {
        if widths.is_empty() {
            return Err(Error::shape("embedding", "a backbone has at least one block"));
        }
        let (mut h, mut maps, mode) = (x, Vec::new(), self.mode);
        for (i, &channels) in widths.iter().enumerate() {
            let frozen = i < self.frozen;
            self.mode = if frozen { Mode::Eval } else { mode };
            h = match backbone {
                Backbone::Resnet12 => self.residual_block(i + 1, h, channels)?,
                Backbone::Conv4 => self.plain_block(i + 1, h, channels)?,
            };
            h = self.drop(i + 1, widths.len(), h, if frozen { &Drop::Off } else { drop })?;
            maps.push(h);
        }
        self.mode = mode;
        self.graph.set_scope("embedding");
        let feat = match backbone {
            Backbone::Resnet12 => self.graph.one(GlobalAveragePool, &[h])?,
            Backbone::Conv4 => {
                let [rows, c, s, t] = [0, 1, 2, 3].map(|i| self.graph.shape(h)[i]);
                self.graph.one(Reshape { shape: vec![rows, c * s * t] }, &[h])?
            }
        };
        Ok((feat, maps))
    }

    /// A head of three layers; where it is not `used` it only has its tensors.
    fn head(&mut self, name: &str, x: ValueId, outputs: usize, used: bool) -> Result<Option<ValueId>> {
        let d = self.graph.shape(x)[1];
        let (hidden, last) = ([(0, 1), (3, 4)], format!("{name}.6"));
        if !used {
            for (i, j) in hidden {
                self.linear_tensors(&format!("{name}.{i}"), d, d);
                self.batch_norm_tensors(&format!("{name}.{j}"), d);
            }
            self.linear_tensors(&last, d, outputs);
            return Ok(None);
        }
        let mut h = x;
        for (i, j) in hidden {
            h = self.linear(&format!("{name}.{i}"), h, d)?;
            h = self.batch_norm(&format!("{name}.{j}"), h, 0.0)?;
        }
        self.linear(&last, h, outputs).map(Some)
    }

    /// Backbone and heads; of the heads that the network has, those that are `used` are computed.
    ///
    /// # Errors
    /// [`Error::Shape`] when the images are too small.
    pub fn forward(&mut self, x: ValueId, spec: &NetSpec, used: Heads, drop: &Drop) -> Result<(Outputs, Vec<ValueId>)> {
        let (feat, maps) = self.embed(x, spec.backbone, &spec.widths, drop)?;
        let class = self.linear("classifier", feat, spec.n_classes)?;
        let transform = spec.n_transforms.map(|n| self.head("eq_head", feat, n, used.transform)).transpose()?;
        let invariant = spec.projection.map(|n| self.head("inv_head", feat, n, used.invariant)).transpose()?;
        let (transform, invariant) = (transform.flatten(), invariant.flatten());
        self.graph.set_scope("");
        Ok((Outputs { feat, class, transform, invariant }, maps))
    }
}
