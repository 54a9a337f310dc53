//! What the optimiser does with the gradients of a step (`docs/method.md`, section 4).

use std::ops::Range;

use super::spec::StepSpec;
use crate::Result;
use crate::nn::{Entry, PARAMETERS, in_backbone};
use crate::ops::sgd::Sgd;
use crate::settings::OptimiserConfig;
use crate::tape::graph::ARENA_ALIGNMENT;
use crate::tape::{Graph, Storage, Type, ValueId};

/// The arena of the gradients.
pub const GRADIENTS: &str = "gradients";
/// The arena of the optimiser's momentum.
pub const MOMENTUM: &str = "momentum";
/// The arena of the tables of rates.
const RATES: &str = "rates";

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

/// How fast a tensor is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Factor on the learning rate.
    pub factor: f32,
    /// Weight decay.
    pub decay: f32,
}

impl Rate {
    /// That of a parameter: a tensor with one dimension, of a batch norm or a bias, decays only where `decay_norm` says
    /// so.
    pub fn of(parameter: &Entry, optimiser: &OptimiserConfig) -> Self {
        let decays = optimiser.decay_norm || parameter.shape.len() > 1;
        let factor = if in_backbone(&parameter.name) { optimiser.backbone_rate as f32 } else { 1.0 };
        Rate { factor, decay: if decays { optimiser.weight_decay as f32 } else { 0.0 } }
    }
}

/// The rates of parameters that lie one behind the other: an input of the optimiser that stays as it is.
#[derive(Clone, Debug)]
pub struct Rates {
    /// The input, floats `[blocks, 2]`.
    pub value: ValueId,
    /// The blocks of each parameter, and its rate.
    pub tensors: Vec<(usize, Rate)>,
}

impl Rates {
    /// The elements of the input.
    pub fn table(&self) -> Vec<f32> {
        self.tensors.iter().flat_map(|(blocks, rate)| [rate.factor, rate.decay].repeat(*blocks)).collect()
    }
}

/// Parameters, gradients and momentum as vectors of `bytes` bytes each.
pub(super) fn flat_vectors(graph: &mut Graph, bytes: u64) -> FlatVectors {
    let mut whole = |arena: &str| {
        graph.arenas.insert(arena.into(), bytes);
        graph.whole_arena(arena)
    };
    FlatVectors { parameters: whole(PARAMETERS), gradients: whole(GRADIENTS), momentum: whole(MOMENTUM) }
}

/// The bytes of each parameter in its arena, with the padding behind it.
fn extents(graph: &Graph, parameters: &[Entry]) -> Vec<Range<u64>> {
    let end = graph.arenas().get(PARAMETERS).copied().unwrap_or(0);
    let offset = |entry: &Entry| match &graph.value(entry.value).storage {
        Storage::Arena { offset, .. } => *offset,
        Storage::Transient => end,
    };
    let next = parameters.iter().skip(1).map(offset).chain([end]);
    parameters.iter().zip(next).map(|(entry, next)| offset(entry)..next).collect()
}

/// The bytes of the parameters that have a gradient: one range where all have one.
pub(super) fn trained_bytes(graph: &Graph, parameters: &[Entry], with_gradient: &[ValueId]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let all = parameters.iter().zip(extents(graph, parameters));
    for (_, bytes) in all.filter(|(entry, _)| with_gradient.contains(&entry.value)) {
        match ranges.last_mut() {
            Some(last) if last.end == bytes.start => last.end = bytes.end,
            _ => ranges.push(bytes),
        }
    }
    ranges
}

/// Declares the rates of each range of parameters that are trained.
pub(super) fn declare_rates(
    graph: &mut Graph,
    parameters: &[Entry],
    trained: &[Range<u64>],
    optimiser: &OptimiserConfig,
) -> Vec<Rates> {
    let extents = extents(graph, parameters);
    let mut declare = |bytes: &Range<u64>| {
        let inside =
            parameters.iter().zip(&extents).filter(|(_, own)| bytes.start <= own.start && own.end <= bytes.end);
        let blocks = |own: &Range<u64>| ((own.end - own.start) / ARENA_ALIGNMENT) as usize;
        let tensors: Vec<_> = inside.map(|(entry, own)| (blocks(own), Rate::of(entry, optimiser))).collect();
        Rates { value: rates_input(graph, &tensors), tensors }
    };
    trained.iter().map(&mut declare).collect()
}

/// An input of rates, for [`Rates::table`].
pub(super) fn rates_input(graph: &mut Graph, tensors: &[(usize, Rate)]) -> ValueId {
    let blocks = tensors.iter().map(|(blocks, _)| blocks).sum();
    graph.in_arena(RATES, RATES, Type::f32([blocks, 2]), false)
}

/// What the optimiser works on.
pub(super) struct Update<'a> {
    pub spec: &'a StepSpec,
    pub flat: FlatVectors,
    pub trained: &'a [Range<u64>],
    /// Of each range that is trained.
    pub rates: Vec<ValueId>,
    /// The step block.
    pub step: ValueId,
    pub health: ValueId,
}

/// Updates what is trained. A parameter without a gradient stays as it is: it does not even decay, as in PyTorch.
pub(super) fn optimise(graph: &mut Graph, update: &Update) -> Result<()> {
    let optimiser = &update.spec.optimiser;
    let sgd = Sgd { momentum: optimiser.momentum as f32, nesterov: optimiser.nesterov };
    let all = graph.arenas().get(PARAMETERS).copied().unwrap_or(0);
    for (bytes, &rates) in update.trained.iter().zip(&update.rates) {
        let mut part = |whole: ValueId, arena: &str| match *bytes == (0..all) {
            true => whole,
            false => graph.part_of_arena(arena, bytes.clone()),
        };
        let gradients = part(update.flat.gradients, GRADIENTS);
        let targets = [part(update.flat.parameters, PARAMETERS), part(update.flat.momentum, MOMENTUM), update.health];
        graph.update(sgd.clone(), &[gradients, rates, update.step], &targets)?;
    }
    Ok(())
}
