//! The training step as a graph: forward, losses, bank, backward, optimiser (`docs/method.md`, sections 2 to 4).

use super::losses;
use crate::nn::{Drop, Entry, Mode, Net, NetSpec, Outputs, PARAMETERS};
use crate::ops::accumulate::Accumulate;
use crate::ops::bank::{BankUpdate, GatherRows};
use crate::ops::elementwise::Add;
use crate::ops::health::{self, HealthCheck};
use crate::ops::sgd::Sgd;
use crate::ops::step_block::StepBlock;
use crate::tape::backward::{backward, place_gradients};
use crate::tape::{Graph, Storage, Type, ValueId};
use crate::{Error, Result};

/// Prefix of the teacher's arenas.
pub const TEACHER: &str = "teacher ";

/// The arena of the gradients.
pub const GRADIENTS: &str = "gradients";
/// The arena of the optimiser's momentum.
pub const MOMENTUM: &str = "momentum";

/// Prefix of the arenas of the scalars that the host reads back: losses, accuracy.
pub const METRICS: &str = "metrics";

/// Prefix of the arenas of what one micro-batch makes, where a step has several: its gradients and scalars.
pub const PART: &str = "part ";

/// Weights of the distillation terms; `docs/method.md`, section 3.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillSpec {
    /// Softmax temperature of both divergences.
    pub temperature: f32,
    /// Weight of the student's own loss.
    pub weight_loss: f32,
    /// Weight of all terms that compare with the teacher.
    pub weight_distill: f32,
    /// Weight of the divergence of the class logits.
    pub kl_class: f32,
    /// Weight of the divergence of the transform logits.
    pub kl_transform: f32,
    /// Weight of the squared difference of the invariant embeddings.
    pub mse_invariant: f32,
    /// Weight of the squared difference of the embeddings.
    pub mse_feature: f32,
}

/// Everything that shapes a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// The network that is trained.
    pub net: NetSpec,
    /// Images of a batch.
    pub batch: usize,
    /// Micro-batches that a batch is split into, each with forward and backward passes of its own.
    pub parts: usize,
    /// Transformed copies of each image.
    pub copies: usize,
    /// Rows of the memory bank: training images.
    pub bank_rows: usize,
    /// Contrastive negatives of a step.
    pub negatives: usize,
    /// Whether the class loss is trained.
    pub cross_entropy: bool,
    /// Weight of the equivariant and the invariant loss.
    pub gamma: f32,
    /// Temperature of the contrastive loss.
    pub tau: f32,
    /// Share of the old row in the bank's moving average.
    pub bank_momentum: f32,
    /// Momentum of the optimiser.
    pub momentum: f32,
    /// Weight decay, on every parameter.
    pub weight_decay: f32,
    /// A teacher with the same network, and how much it counts.
    pub distill: Option<DistillSpec>,
}

impl StepSpec {
    /// Images of one forward pass: of the batch, or of a micro-batch.
    pub fn images(&self) -> usize {
        self.batch / self.parts
    }

    /// Rows of one forward pass.
    pub fn rows(&self) -> usize {
        self.images() * self.copies
    }
}

/// Values that the host writes before a step. `x` comes from the view generator or from the host.
#[derive(Clone, Debug)]
pub struct StepInputs {
    /// Transformed images [copies images, 3, s, s]; row m images + i is image i under transform m.
    pub x: ValueId,
    /// Class of each row.
    pub classes: ValueId,
    /// Transform of each row.
    pub transforms: ValueId,
    /// Training image of each batch slot: rows of the bank.
    pub index: ValueId,
    /// Bank rows that serve as negatives.
    pub negatives: ValueId,
    /// The step block.
    pub step: ValueId,
    /// The memory bank.
    pub bank: ValueId,
}

impl StepInputs {
    /// Declares the inputs in the graph; `x` was made before.
    pub fn declare(graph: &mut Graph, spec: &StepSpec, x: ValueId, step: ValueId, index: ValueId) -> Self {
        let rows = spec.rows();
        let width = spec.net.projection.unwrap_or(1);
        StepInputs {
            x,
            classes: graph.input("classes", Type::u32([rows])),
            transforms: graph.input("transforms", Type::u32([rows])),
            index,
            negatives: graph.input("negatives", Type::u32([spec.negatives.max(1)])),
            step,
            bank: graph.input("bank", Type::f32([spec.bank_rows, width])),
        }
    }
}

/// All parameters, all gradients and all momentum of a step as vectors, with every tensor at the same offset in all three.
#[derive(Clone, Copy, Debug)]
pub struct FlatVectors {
    /// The trained tensors.
    pub parameters: ValueId,
    /// Their gradients.
    pub gradients: ValueId,
    /// The optimiser's momentum.
    pub momentum: ValueId,
}

/// A recorded step.
#[derive(Clone, Debug)]
pub struct Step {
    /// The inputs.
    pub inputs: StepInputs,
    /// Trained tensors.
    pub parameters: Vec<Entry>,
    /// Running statistics.
    pub statistics: Vec<Entry>,
    /// The teacher's tensors, parameters then statistics.
    pub teacher: Vec<Entry>,
    /// What the network computed.
    pub outputs: Outputs,
    /// What the teacher computed.
    pub teacher_outputs: Option<Outputs>,
    /// Outputs of the four blocks.
    pub maps: Vec<ValueId>,
    /// Loss terms by name, `total` first; in arenas of their own.
    pub losses: Vec<(&'static str, ValueId)>,
    /// Share of the rows whose class was right; in arenas of their own.
    pub accuracy: ValueId,
    /// All parameters, all gradients and all momentum as vectors.
    pub flat: FlatVectors,
    /// Bits that the device raises: [`health`].
    pub health: ValueId,
}

/// a x + b y over scalars, leaving out what has no weight.
fn weighted(graph: &mut Graph, terms: &[(f32, ValueId)]) -> Result<Option<ValueId>> {
    let mut sum: Option<(f32, ValueId)> = None;
    for &(weight, term) in terms.iter().filter(|(weight, _)| *weight != 0.0) {
        sum = Some(match sum {
            None => (weight, term),
            Some((alpha, so_far)) => (1.0, graph.one(Add { alpha, beta: weight }, &[so_far, term])?),
        });
    }
    match sum {
        Some((alpha, only)) if alpha != 1.0 => Ok(Some(graph.one(crate::ops::elementwise::Scale { alpha }, &[only])?)),
        other => Ok(other.map(|(_, value)| value)),
    }
}

/// Records the step. Order: forward (running statistics move), losses with the old bank, bank update,
/// backward, optimiser.
///
/// Where the batch is split, this is the step of one micro-batch: it ends by adding its share of the gradients and
/// losses to their sums, and [`record_update`] is the optimiser's graph, to be run after the last one. Each
/// micro-batch normalises with its own statistics and moves the running ones, as accumulating gradients does in
/// PyTorch. The bank is as old for the last one as for the first: a batch's images are distinct, and its negatives
/// are none of them, so no micro-batch reads a row that another has written.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit; [`Error::Usage`] when no loss term is on.
pub fn record(graph: &mut Graph, spec: &StepSpec, inputs: StepInputs, drop: &Drop) -> Result<Step> {
    let teacher = match &spec.distill {
        None => None,
        Some(_) => {
            let mut net = Net::new(graph, TEACHER, Mode::Eval);
            let (outputs, _) = net.forward(inputs.x, &spec.net, &Drop::Off)?;
            Some((outputs, [net.parameters, net.statistics].concat()))
        }
    };
    let mut net = Net::new(graph, "", Mode::Train);
    let (outputs, maps) = net.forward(inputs.x, &spec.net, drop)?;
    let (parameters, statistics) = (net.parameters, net.statistics);

    graph.set_scope("losses");
    let ce = losses::cross_entropy(graph, outputs.class, inputs.classes)?;
    let accuracy = losses::accuracy(graph, outputs.class, inputs.classes)?;
    let mut all = vec![("ce", ce)];
    let mut terms = vec![(if spec.cross_entropy { 1.0 } else { 0.0 }, ce)];
    if let Some(q) = outputs.transform {
        let eq = losses::cross_entropy(graph, q, inputs.transforms)?;
        all.push(("eq", eq));
        terms.push((spec.gamma, eq));
    }
    if let Some(z) = outputs.invariant {
        let own = graph.one(GatherRows, &[inputs.bank, inputs.index])?;
        let negatives = graph.one(GatherRows, &[inputs.bank, inputs.negatives])?;
        let inv = losses::contrastive_loss(graph, z, own, negatives, spec.tau)?;
        all.push(("inv", inv));
        terms.push((spec.gamma, inv));
    }
    let mut total = weighted(graph, &terms)?;
    if let (Some(d), Some((t, _))) = (&spec.distill, &teacher) {
        let mut terms = Vec::new();
        let kl = losses::kl_divergence(graph, outputs.class, t.class, d.temperature)?;
        all.push(("kl_cls", kl));
        terms.push((d.kl_class, kl));
        if let (Some(q), Some(t)) = (outputs.transform, t.transform) {
            let kl = losses::kl_divergence(graph, q, t, d.temperature)?;
            all.push(("kl_eq", kl));
            terms.push((d.kl_transform, kl));
        }
        if let (Some(z), Some(t)) = (outputs.invariant, t.invariant) {
            let mse = losses::mean_squared_error(graph, z, t)?;
            all.push(("mse_inv", mse));
            terms.push((d.mse_invariant, mse));
        }
        let mse = losses::mean_squared_error(graph, outputs.feat, t.feat)?;
        all.push(("mse_feat", mse));
        terms.push((d.mse_feature, mse));
        let distance = weighted(graph, &terms)?;
        let both: Vec<(f32, ValueId)> =
            total.map(|l| (d.weight_loss, l)).into_iter().chain(distance.map(|l| (d.weight_distill, l))).collect();
        total = weighted(graph, &both)?;
    }
    let total = total.ok_or_else(|| Error::usage("every loss term is off: leave one of them on"))?;
    all.insert(0, ("total", total));

    if let Some(z) = outputs.invariant {
        graph.set_scope("bank");
        graph.update(BankUpdate { momentum: spec.bank_momentum }, &[inputs.index, z], &[inputs.bank])?;
    }
    let gradients = backward(graph, total)?;
    let split = spec.parts > 1;
    let prefix = if split { PART } else { "" };
    place_gradients(graph, &gradients, PARAMETERS, &format!("{prefix}{GRADIENTS}"))?;

    graph.set_scope("optimiser");
    let bytes = graph.arenas.get(PARAMETERS).copied().unwrap_or(0);
    let health = graph.input("health", Type::u32([health::WORDS]));
    graph.update(HealthCheck { bit: health::LOSS }, &[total], &[health])?;
    let flat = flat_vectors(graph, bytes);
    if !split {
        optimise(graph, spec, flat, inputs.step, health)?;
    }
    let mut scalars: Vec<ValueId> = all.iter().map(|(_, scalar)| *scalar).chain([accuracy]).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).chain(["accuracy"]).collect();
    for (name, &scalar) in names.iter().zip(&scalars) {
        // A single term with weight 1 is the total itself and is placed once. Each scalar has an arena of its
        // own: sums read some of them and write another, and a dispatch may not do both with one buffer.
        if graph.value(scalar).storage == Storage::Transient {
            graph.persist(scalar, &format!("{prefix}{METRICS} {name}"));
        }
    }
    if split {
        graph.set_scope("accumulation");
        let add = Accumulate { share: 1.0 / spec.parts as f32 };
        let part = graph.whole_arena(&format!("{PART}{GRADIENTS}"));
        graph.update(add.clone(), &[part, inputs.step], &[flat.gradients])?;
        for (name, scalar) in names.iter().zip(&mut scalars) {
            let sum = graph.input(&format!("{METRICS} {name}"), Type::f32([1]));
            graph.update(add.clone(), &[*scalar, inputs.step], &[sum])?;
            *scalar = sum;
        }
    }
    graph.set_scope("");
    let accuracy = scalars.pop().unwrap_or(accuracy);
    let all = all.into_iter().zip(scalars).map(|((name, _), scalar)| (name, scalar)).collect();
    let (teacher_outputs, teacher) = teacher.map_or((None, Vec::new()), |(o, e)| (Some(o), e));
    Ok(Step {
        inputs,
        parameters,
        statistics,
        teacher,
        outputs,
        teacher_outputs,
        maps,
        losses: all,
        accuracy,
        flat,
        health,
    })
}

/// Parameters, gradients and momentum as vectors of `bytes` bytes each.
fn flat_vectors(graph: &mut Graph, bytes: u64) -> FlatVectors {
    let mut whole = |arena: &str| {
        graph.arenas.insert(arena.into(), bytes);
        graph.whole_arena(arena)
    };
    FlatVectors { parameters: whole(PARAMETERS), gradients: whole(GRADIENTS), momentum: whole(MOMENTUM) }
}

fn optimise(graph: &mut Graph, spec: &StepSpec, flat: FlatVectors, step: ValueId, health: ValueId) -> Result<()> {
    let FlatVectors { parameters, gradients, momentum } = flat;
    graph.update(
        Sgd { momentum: spec.momentum, weight_decay: spec.weight_decay },
        &[gradients, step],
        &[parameters, momentum, health],
    )
}

/// The optimiser's graph for a step of several micro-batches, which `step` is one of; the graphs share their arenas.
///
/// # Errors
/// [`Error::Shape`] when the arenas of `step` do not fit together.
pub fn record_update(step: &Graph, spec: &StepSpec) -> Result<Graph> {
    let mut graph = Graph::new();
    let block = graph.input("step", StepBlock::ty());
    let health = graph.input("health", Type::u32([health::WORDS]));
    let flat = flat_vectors(&mut graph, step.arenas.get(PARAMETERS).copied().unwrap_or(0));
    graph.set_scope("optimiser");
    optimise(&mut graph, spec, flat, block, health)?;
    Ok(graph)
}
