//! What the optimiser does with the gradients of a step (`docs/method.md`, section 4).

use std::ops::Range;

use super::spec::StepSpec;
use crate::Result;
use crate::nn::{Entry, PARAMETERS, STATISTICS, in_backbone};
use crate::ops::average::MovingAverage;
use crate::ops::clip::{ClipNorm, GlobalNorm};
use crate::ops::health::{self, HealthCheck};
use crate::ops::sgd::Sgd;
use crate::settings::OptimiserConfig;
use crate::tape::graph::ARENA_ALIGNMENT;
use crate::tape::{Graph, Storage, Type, ValueId};

/// The arena of the gradients.
pub const GRADIENTS: &str = "gradients";
/// The arena of the optimiser's momentum.
pub const MOMENTUM: &str = "momentum";
/// The arena of the norm of the gradients, where they are clipped.
pub(super) const NORM: &str = "metrics grad_norm";
/// Prefix of the arenas of the moving averages of the weights and running statistics.
pub const AVERAGE: &str = "average ";
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

/// The averages of the parameters and running statistics, each where its own lies in the arena of that; none where the
/// weights are not averaged.
pub(super) fn declare_averages(
    graph: &mut Graph,
    parameters: &[Entry],
    statistics: &[Entry],
    optimiser: &OptimiserConfig,
) -> Vec<Entry> {
    if optimiser.average == 0.0 {
        return Vec::new();
    }
    let arenas = [(PARAMETERS, parameters), (STATISTICS, statistics)];
    let entries = arenas.into_iter().flat_map(|(arena, entries)| entries.iter().map(move |entry| (arena, entry)));
    let mut declare = |(arena, entry): (&str, &Entry)| {
        let ty = Type::f32(entry.shape.clone());
        Entry { value: graph.in_arena(&format!("{AVERAGE}{arena}"), &*entry.name, ty, false), ..entry.clone() }
    };
    entries.map(&mut declare).collect()
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

/// Updates what is trained, by gradients that are clipped first where the settings say so, and then the averages. A
/// parameter without a gradient stays as it is: it does not even decay, as in PyTorch. Returns the norm of the gradients
/// where they are clipped.
pub(super) fn optimise(graph: &mut Graph, update: &Update) -> Result<Option<ValueId>> {
    let optimiser = &update.spec.optimiser;
    let mut clipped = None;
    if let Some(most) = optimiser.clip_norm {
        // What has no gradient holds zeros.
        let norm = graph.one(GlobalNorm, &[update.flat.gradients])?;
        graph.persist(norm, NORM)?;
        clipped = Some(norm);
        // Gradients whose squares overflow would all become 0.
        graph.update(HealthCheck { bit: health::GRADIENT }, &[norm], &[update.health])?;
        graph.update(ClipNorm { most: most as f32 }, &[norm], &[update.flat.gradients])?;
    }
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
    if optimiser.average > 0.0 {
        let average = MovingAverage { take: (1.0 - optimiser.average) as f32 };
        for arena in [PARAMETERS, STATISTICS] {
            let [own, mean] = [arena.to_owned(), format!("{AVERAGE}{arena}")].map(|arena| graph.whole_arena(&arena));
            if !graph.value(own).ty.is_empty() {
                graph.update(average.clone(), &[own, update.step], &[mean])?;
            }
        }
    }
    Ok(clipped)
}
