//! The training step as a graph: forward, losses, bank, backward, optimiser (`docs/method.md`, sections 2 to 4).

use std::ops::Range;

use super::losses;
use super::optimise::{
    AVERAGE, FlatVectors, GRADIENTS, NORM, Rates, Update, declare_averages, declare_rates, flat_vectors, optimise,
    rates_input, trained_bytes,
};
use super::spec::{StepInputs, StepSpec};
use super::terms::{Given, LOSSES, Side};
use crate::nn::{Drop, Entry, Mode, Move, Net, Outputs, PARAMETERS, STATISTICS};
use crate::ops::accumulate::Accumulate;
use crate::ops::bank::BankUpdate;
use crate::ops::elementwise::Add;
use crate::ops::health::{self, HealthCheck};
use crate::ops::step_block::StepBlock;
use crate::tape::backward::{backward, place_gradients};
use crate::tape::{Graph, Storage, Type, ValueId};
use crate::{Error, Result};

/// Prefix of the teacher's arenas.
pub const TEACHER: &str = "teacher ";

/// Prefix of the arenas of the scalars that the host reads back: losses, accuracy.
pub const METRICS: &str = "metrics";

/// Prefix of the arenas of what one micro-batch makes, where a step has several: its gradients and scalars.
pub const PART: &str = "part ";

/// What a micro-batch leaves in arenas, where ranks exchange it: see [`record_join`].
#[derive(Clone, Debug)]
pub struct Made {
    /// Its scalars, each with the sum that it joins: the losses, the total first, and the accuracy.
    pub scalars: Vec<(ValueId, ValueId)>,
}

/// The arena of a micro-batch's embeddings for the bank, behind [`PART`].
pub(crate) const EMBEDDINGS: &str = "embeddings";

/// The arena of the piece of the gradients that a rank sums; that of one micro-batch behind [`PART`].
const PIECE: &str = "piece";

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
    /// Outputs of the blocks.
    pub maps: Vec<ValueId>,
    /// Loss terms by name, `total` first, and behind them `grad_norm` where gradients are clipped: their norm before that.
    /// In arenas of their own.
    pub losses: Vec<(&'static str, ValueId)>,
    /// Share of the rows whose class was right; in arenas of their own.
    pub accuracy: ValueId,
    /// All parameters, all gradients and all momentum as vectors.
    pub flat: FlatVectors,
    /// The bytes of these vectors that are trained: the parameters that have a gradient.
    pub trained: Vec<Range<u64>>,
    /// The rates of what is trained, a table for each of these ranges; the host writes them once.
    pub rates: Vec<Rates>,
    /// The moving averages of the parameters, then of the running statistics; empty where there are none.
    pub average: Vec<Entry>,
    /// Bits that the device raises: [`health`].
    pub health: ValueId,
    /// What a micro-batch leaves for all ranks to have, where they exchange it.
    pub made: Option<Made>,
    /// The running statistics that its batch norms do not move themselves: where ranks exchange what a micro-batch makes
    /// [`record_join`] moves them for each, and where all micro-batches have one statistics [`record_update`], once.
    pub moves: Vec<Move>,
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

/// Losses by name, unweighted.
type Terms = Vec<(&'static str, ValueId)>;

/// The losses of one side, and their weighted sum; none where no loss has a weight.
fn record_terms(graph: &mut Graph, given: &Given, side: Side) -> Result<(Option<ValueId>, Terms)> {
    let (mut terms, mut named) = (Vec::new(), Vec::new());
    for loss in LOSSES.iter().filter(|loss| loss.side == side) {
        if let Some(term) = (loss.record)(graph, given)? {
            terms.push(((loss.weight)(given.spec), term));
            named.push((loss.name, term));
        }
    }
    Ok((weighted(graph, &terms)?, named))
}

/// Records the step. Order: forward (running statistics move), losses with the old bank, bank update,
/// backward, optimiser.
///
/// Where the batch is split, this is the step of one micro-batch: it ends by adding its share of the gradients and
/// losses to their sums, and [`record_update`] is the optimiser's graph, to be run after the last one. Each
/// micro-batch normalises with its own statistics and moves the running ones, as accumulating gradients does in
/// PyTorch; or with those of the whole batch ([`StepSpec::joined`]), by which the optimiser's graph moves the running ones.
/// The bank is as old for the last one as for the first: a batch's images are distinct, and its negatives
/// are none of them, so no micro-batch reads a row that another has written.
///
/// Where ranks share the micro-batches out, a pass changes nothing but arenas that begin with [`PART`]; [`record_join`]
/// and [`record_sum`] are the graphs that make of them, on every rank and in the order of the micro-batches, what the pass
/// of a single process makes at once.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit; [`Error::Usage`] when no loss term is on.
pub fn record(graph: &mut Graph, spec: &StepSpec, inputs: StepInputs, drop: &Drop) -> Result<Step> {
    let teacher = match &spec.distill {
        None => None,
        Some(_) => {
            let mut net = Net::new(graph, TEACHER, Mode::Eval);
            let (outputs, _) = net.forward(inputs.x, &spec.net, spec.heads(), &Drop::Off)?;
            Some((outputs, [net.parameters, net.statistics].concat()))
        }
    };
    let mut net = Net::new(graph, "", Mode::Train).with_frozen(spec.optimiser.freeze);
    if spec.is_joined() {
        net = net.with_joined_parts(spec.parts);
    }
    if spec.exchanged || spec.is_joined() {
        net = net.with_statistics_in(format!("{PART}{STATISTICS}"));
    }
    let (outputs, maps) = net.forward(inputs.x, &spec.net, spec.heads(), drop)?;
    let (parameters, statistics, moves) = (net.parameters, net.statistics, net.moves);

    graph.set_scope("losses");
    let given = Given { spec, inputs: &inputs, own: &outputs, teacher: teacher.as_ref().map(|(outputs, _)| outputs) };
    let (own, mut all) = record_terms(graph, &given, Side::Own)?;
    let accuracy = losses::accuracy(graph, outputs.class, inputs.classes)?;
    let mut total = own;
    if let Some(d) = &spec.distill {
        let (distance, terms) = record_terms(graph, &given, Side::Distillation)?;
        all.extend(terms);
        let both = [(d.weight_loss as f32, own), (d.weight_distill as f32, distance)];
        let both: Vec<(f32, ValueId)> = both.into_iter().filter_map(|(weight, sum)| Some((weight, sum?))).collect();
        total = weighted(graph, &both)?;
    }
    let total = total.ok_or_else(|| Error::usage("every loss term is off: leave one of them on"))?;
    all.insert(0, ("total", total));

    if let Some(z) = outputs.invariant {
        graph.set_scope("bank");
        match spec.exchanged {
            true => graph.persist(z, &format!("{PART}{EMBEDDINGS}"))?,
            false => {
                let given = [Some(inputs.index), Some(z), inputs.counted.map(|counted| counted.rows)];
                update_bank(graph, spec, given.into_iter().flatten().collect(), inputs.bank)?;
            }
        }
    }
    let gradients = backward(graph, total)?;
    let split = spec.parts > 1;
    let prefix = if split { PART } else { "" };
    let with_gradient = place_gradients(graph, &gradients, PARAMETERS, &format!("{prefix}{GRADIENTS}"))?;
    let trained = trained_bytes(graph, &parameters, &with_gradient);

    graph.set_scope("optimiser");
    let bytes = graph.arenas.get(PARAMETERS).copied().unwrap_or(0);
    let health = graph.input("health", Type::u32([health::WORDS]));
    if !spec.exchanged {
        graph.update(HealthCheck { bit: health::LOSS }, &[total], &[health])?;
    }
    let flat = flat_vectors(graph, bytes);
    let rates = declare_rates(graph, &parameters, &trained, &spec.optimiser);
    let average = declare_averages(graph, &parameters, &statistics, &spec.optimiser);
    let mut norm = None;
    if !split {
        let rates = rates.iter().map(|rates| rates.value).collect();
        norm = optimise(graph, &Update { spec, flat, trained: &trained, rates, step: inputs.step, health })?;
    } else if spec.optimiser.clip_norm.is_some() {
        // The optimiser's graph writes it.
        norm = Some(graph.input(NORM, Type::f32([1])));
    }
    let mut scalars: Vec<ValueId> = all.iter().map(|(_, scalar)| *scalar).chain([accuracy]).collect();
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).chain(["accuracy"]).collect();
    for (name, &scalar) in names.iter().zip(&scalars) {
        // A single term with weight 1 is the total itself and is placed once. Each scalar has an arena of its
        // own: sums read some of them and write another, and a dispatch may not do both with one buffer.
        if graph.value(scalar).storage == Storage::Transient {
            graph.persist(scalar, &format!("{prefix}{METRICS} {name}"))?;
        }
    }
    let mut made = None;
    if split {
        graph.set_scope("accumulation");
        let add = share(spec);
        if !spec.exchanged {
            let part = graph.whole_arena(&format!("{PART}{GRADIENTS}"));
            graph.update(add.clone(), &[part, inputs.step], &[flat.gradients])?;
        }
        let own = scalars.clone();
        for (name, scalar) in names.iter().zip(&mut scalars) {
            let sum = graph.input(&format!("{METRICS} {name}"), Type::f32([1]));
            if !spec.exchanged {
                graph.update(add.clone(), &[*scalar, inputs.step], &[sum])?;
            }
            *scalar = sum;
        }
        if spec.exchanged {
            made = Some(Made { scalars: own.into_iter().zip(scalars.iter().copied()).collect() });
        }
    }
    graph.set_scope("");
    let accuracy = scalars.pop().unwrap_or(accuracy);
    let all = all
        .into_iter()
        .zip(scalars)
        .map(|((name, _), scalar)| (name, scalar))
        .chain(norm.map(|id| ("grad_norm", id)))
        .collect();
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
        trained,
        rates,
        average,
        health,
        made,
        moves,
    })
}

/// The addition of one micro-batch's share to a sum.
fn share(spec: &StepSpec) -> Accumulate {
    Accumulate { share: 1.0 / spec.parts as f32 }
}

/// Blends new rows into the bank: `given` are indices, embeddings, and where it matters which rows were written before.
fn update_bank(graph: &mut Graph, spec: &StepSpec, given: Vec<ValueId>, bank: ValueId) -> Result<()> {
    graph.update(BankUpdate { momentum: spec.method.bank_momentum as f32 }, &given, &[bank])
}

/// The graph that joins what one micro-batch made, but for its gradients, to the sums and the state, where ranks exchange
/// it: to be run for each micro-batch of the batch in their order, with its step block, indices and arenas. `step` is
/// recorded in `graph_of_step`; the graphs share their arenas.
///
/// # Errors
/// [`Error::Internal`] when the step was not recorded for that.
pub fn record_join(graph_of_step: &Graph, step: &Step, spec: &StepSpec) -> Result<Graph> {
    let Some(made) = &step.made else { return Err(Error::Internal("a step leaves nothing to join".into())) };
    let mut graph = Graph::new();
    let graph = &mut graph;
    let same = |graph: &mut Graph, id: ValueId| graph.shared(graph_of_step, id);
    let block = same(graph, step.inputs.step)?;
    let health = same(graph, step.health)?;
    if !spec.is_joined() {
        record_moves(graph, graph_of_step, step)?;
    }
    if let Some(z) = step.outputs.invariant {
        graph.set_scope("bank");
        let mut given = vec![same(graph, step.inputs.index)?, same(graph, z)?];
        if let Some(counted) = step.inputs.counted {
            given.push(same(graph, counted.rows)?);
        }
        let bank = same(graph, step.inputs.bank)?;
        update_bank(graph, spec, given, bank)?;
    }
    graph.set_scope("accumulation");
    if let Some(&(total, _)) = made.scalars.first() {
        let total = same(graph, total)?;
        graph.update(HealthCheck { bit: health::LOSS }, &[total], &[health])?;
    }
    for &(own, sum) in &made.scalars {
        let (own, sum) = (same(graph, own)?, same(graph, sum)?);
        graph.update(share(spec), &[own, block], &[sum])?;
    }
    Ok(std::mem::take(graph))
}

/// Moves the running statistics of `step`, recorded in `graph_of_step`, by those that it left.
fn record_moves(graph: &mut Graph, graph_of_step: &Graph, step: &Step) -> Result<()> {
    for moved in &step.moves {
        let statistics = graph.shared(graph_of_step, moved.statistics)?;
        let [mean, variance] = moved.running;
        let running = [graph.shared(graph_of_step, mean)?, graph.shared(graph_of_step, variance)?];
        moved.record(graph, statistics, running)?;
    }
    Ok(())
}

/// The graph that adds a micro-batch's share of a piece of the gradients, floats `[elements]`, to their sum, where each
/// rank sums a piece: it, the piece of one micro-batch, and the sum.
///
/// # Errors
/// [`Error::Shape`] for an empty piece.
pub fn record_sum(spec: &StepSpec, elements: usize) -> Result<(Graph, ValueId, ValueId)> {
    let mut graph = Graph::new();
    let block = graph.input("step", StepBlock::ty());
    let part = graph.input(&format!("{PART}{PIECE}"), Type::f32([elements]));
    let sum = graph.input(PIECE, Type::f32([elements]));
    graph.set_scope("accumulation");
    graph.update(share(spec), &[part, block], &[sum])?;
    Ok((graph, part, sum))
}

/// The optimiser's graph for a step of several micro-batches, of which `step` is one, recorded in `graph_of_step`; the
/// graphs share their arenas.
///
/// # Errors
/// [`Error::Shape`] when the arenas of `step` do not fit together.
pub fn record_update(graph_of_step: &Graph, step: &Step, spec: &StepSpec) -> Result<Graph> {
    let mut graph = Graph::new();
    let block = graph.input("step", StepBlock::ty());
    let health = graph.input("health", Type::u32([health::WORDS]));
    for arena in [STATISTICS.to_owned(), format!("{AVERAGE}{PARAMETERS}"), format!("{AVERAGE}{STATISTICS}")] {
        if let Some(&bytes) = graph_of_step.arenas().get(&arena).filter(|_| !step.average.is_empty()) {
            graph.arenas.insert(arena, bytes);
        }
    }
    if spec.is_joined() {
        record_moves(&mut graph, graph_of_step, step)?;
    }
    let flat = flat_vectors(&mut graph, graph_of_step.arenas().get(PARAMETERS).copied().unwrap_or(0));
    let rates = step.rates.iter().map(|rates| rates_input(&mut graph, &rates.tensors)).collect();
    graph.set_scope("optimiser");
    optimise(&mut graph, &Update { spec, flat, trained: &step.trained, rates, step: block, health })?;
    Ok(graph)
}
