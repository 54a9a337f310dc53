//! `plan`: memory and operations of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::fit::{Fit, Given, Run, Timing, described, load};
use super::forecast::{Expected, expected};
use super::link::{Shared, Sharing};
use super::ranks::split;
use super::score::novel_classes;
use super::{Session, data_options, init, within};
use crate::data::{self, Split, Statistics};
use crate::ier::spec::StepSpec;
use crate::ops;
use crate::progress::Progress;
use crate::settings::Config;
use crate::tape::plan::Plan;
use crate::train::budget::{Fitted, Room};
use crate::train::exchange::{Exchanged, check_shares};
use crate::train::memory::Memory;
use crate::train::phases::Phases;
use crate::train::recipe::{self, Choice};
use crate::train::record::{DataShape, phase_spec, phase_step, validate};
use crate::{Error, Result};

/// A plan to make.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest {
    /// The settings.
    pub config: Config,
    /// As [`TrainRequest::given`](super::train::TrainRequest::given).
    pub given: Option<Given>,
    /// Whether a run with a time is to be scored within it, as it is unless the caller of `train` says otherwise.
    pub score: bool,
    /// Plan a step of distillation: teacher and student.
    pub distill: bool,
    /// Training classes and images; none: as the data has them.
    pub size: Option<(usize, usize)>,
}

/// A planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanOutcome {
    /// The settings in effect.
    pub config: Config,
    /// What the recipe and `run.time` chose, each with its reason.
    pub chosen: Vec<Choice>,
    /// What a run with a time comes to.
    pub forecast: Option<Forecast>,
    /// What the memory budget chose, and what it costs; one sentence per choice.
    pub choices: Vec<String>,
    /// Micro-batches per step; `ops` are those of one.
    pub parts: usize,
    /// Whether the whole training set is on the device.
    pub resident: bool,
    /// Rows per step.
    pub rows: usize,
    /// Rows per step, the mean over the run, where one of a smaller picture counts by its area.
    pub full_rows: f64,
    /// The parts of the run, one at least.
    pub phases: Vec<PlannedPhase>,
    /// Trained parameters.
    pub parameters: u64,
    /// Most bytes on the device at once.
    pub peak_bytes: u64,
    /// Bytes of everything that outlives a step, by the name of its buffer.
    pub arenas: BTreeMap<String, u64>,
    /// Bytes of activations, gradients of activations and workspace: of all slots of a micro-batch.
    pub activations_bytes: u64,
    /// Position of the operation at which most bytes are alive.
    pub peak_node: usize,
    /// All bytes by what they are for.
    pub memory: Memory,
    /// Multiply-adds per step.
    pub multiply_adds: u64,
    /// Those that are executed for them: fewer by Winograd's algorithm, more where a factor is in two parts.
    pub executed_multiply_adds: u64,
    /// What it comes to among several ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
    /// Every operation in order.
    pub ops: Vec<PlanEntry>,
}

/// A part of a planned run.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedPhase {
    /// Its first step, counted from 1.
    pub from: u32,
    /// Side of the pictures that the network sees.
    pub side: usize,
    /// Rows per step.
    pub rows: usize,
    /// Multiply-adds per step.
    pub multiply_adds: u64,
}

/// What a run with a time comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Forecast {
    /// The time, and what of it the steps get.
    pub timing: Timing,
    /// Steps.
    pub steps: u32,
    /// Passes over the training images.
    pub epochs: f64,
    /// Rows through the network.
    pub rows: u64,
    /// The accuracy to expect; none where no kept run has its losses.
    pub expected: Option<Expected>,
}

/// An operation of a planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEntry {
    /// The operation, such as `conv2d.forward`.
    pub op: String,
    /// How it is computed, where there are several ways that give other numbers, such as `Winograd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<&'static str>,
    /// Shape of its output.
    pub shape: Vec<usize>,
    /// Layer that it belongs to; backward operations end in '.
    pub scope: String,
    /// Slot that holds the output; none where it outlives the step.
    pub slot: Option<usize>,
    /// Bytes of the output.
    pub bytes: u64,
}

/// Plans a step without a device: for buffers of 2 GiB, and for Winograd as on a software adapter, which takes slightly
/// more memory. A training run plans for its own device. A recipe chooses as it does on a software adapter.
///
/// Where `run.time` is set the session's device is opened: what it was measured to do is taken from the calibration in
/// `session.cache`, or measured and kept there.
///
/// # Errors
/// As for training: settings that contradict each other or the data, and data that cannot be read.
pub fn run(request: &PlanRequest, session: &Session, progress: &mut dyn Progress) -> Result<PlanOutcome> {
    run_among(request, None, session, progress)
}

/// As [`run`], of a run that ranks share where `sharing` says so.
///
/// # Errors
/// As [`run`], and those of a number of ranks that cannot share a batch.
pub fn run_among(
    request: &PlanRequest,
    sharing: Option<&Sharing>,
    session: &Session,
    progress: &mut dyn Progress,
) -> Result<PlanOutcome> {
    request.config.validate()?;
    if let Some(sharing) = sharing {
        within("request.ranks", sharing.ranks, 2, 65_536)?;
        // What they do not do is refused before any work.
        split(&mut request.config.clone(), request.given.as_ref(), sharing.ranks, &mut Fit::default())?;
    }
    let given = request.given.as_ref();
    given.map_or(Ok(()), |given| given.check(&request.config, sharing.map_or(1, |sharing| sharing.ranks)))?;
    if request.config.run.time.is_some() && given.is_some() {
        return timed(request, session, progress);
    }
    let mut config = request.config.clone();
    let mut fit = Fit::default();
    init::resolve(&mut config, progress)?;
    let given = init::given(&mut config, given, &mut fit.choices)?;
    let given = given.as_ref();
    let shape = match request.size {
        Some((classes, images)) => {
            within("request.classes", classes, 2, 1_000_000)?;
            // The memory bank has a row per image, and what an operation makes has fewer than 2^30 elements.
            let most = ((1 << 30) / config.model.projection - 1).min(100_000_000);
            within("request.images", images, 1, most)?;
            let side = config.data.side;
            let side =
                side.ok_or_else(|| Error::usage("`request.classes` and `request.images` want `data.side` as well"))?;
            if let Some(given) = given.filter(|given| given.recipe) {
                given.settings(&mut config, (DataShape { side, classes, images }, false), true, &mut fit)?;
            }
            DataShape { side, classes, images }
        }
        None if given.is_some_and(|given| given.recipe) => {
            let begun = Instant::now();
            let data = Arc::new(load(&config, given, true)?);
            if let Some(given) = given {
                Run { given, data: &data, novel: None, validation: None, begun }.settings(
                    &mut config,
                    true,
                    &mut fit,
                )?;
            }
            DataShape::of(&data)
        }
        None => {
            // Their number is wanted, not the pixels: where the side is known, the smallest images will do.
            let smallest = config.data.side.map(|_| 1);
            let data = data::load(&config.data.source, Split::Train, &data_options(&config.data, smallest))?;
            let side = config.data.side.unwrap_or(data.side);
            DataShape { side, ..DataShape::of(&data) }
        }
    };
    if let Some(given) = given.filter(|given| !given.recipe) {
        given.rows(&mut config, shape, &mut fit)?;
    }
    if let Some(sharing) = sharing {
        split(&mut config, given, sharing.ranks, &mut fit)?;
    }
    config.validate()?;
    validate(&config, shape)?;
    let room = Room { ranks: sharing.map_or(1, |sharing| sharing.ranks), ..Room::LARGE };
    let fitted = crate::train::budget::fit(&config, shape, request.distill, room)?;
    let plan = outcome(&fitted, shape, request.distill)?;
    let shared = sharing.map(|sharing| shared(sharing, &plan, shape)).transpose()?;
    Ok(PlanOutcome { chosen: fit.choices, shared, ..plan })
}

/// What ranks exchange in the step of the run's first phase.
fn shared(sharing: &Sharing, plan: &PlanOutcome, shape: DataShape) -> Result<Shared> {
    let phases = Phases::new(&plan.config, shape)?;
    let config = phases.all().first().map_or(&plan.config, |phase| &phase.config);
    let spec = StepSpec { exchanged: true, ..phase_spec(&phases.net, config, shape, false) };
    check_shares(&spec, sharing.ranks)?;
    let (graph, _) = phase_step(&spec, config, shape, plan.resident)?;
    // A word a pixel.
    let pictures = 4 * (shape.images as u64).saturating_mul((shape.side * shape.side) as u64);
    sharing.plan(spec.batch, spec.parts, Exchanged::of(&graph, &spec), pictures)
}

/// The plan of a run with a time, on the session's device.
fn timed(request: &PlanRequest, session: &Session, progress: &mut dyn Progress) -> Result<PlanOutcome> {
    let begun = Instant::now();
    if request.size.is_some() || request.distill {
        let what = if request.distill { "request.distill" } else { "request.classes" };
        return Err(Error::usage(format!(
            "`run.time` is measured on the run's own data and step, and `{what}` plans another: leave one of them out"
        )));
    }
    let mut config = request.config.clone();
    config.run.out = None;
    let mut fit = Fit::default();
    init::resolve(&mut config, progress)?;
    let given = init::given(&mut config, request.given.as_ref(), &mut fit.choices)?;
    let Some(given) = &given else { return Err(Error::Internal("nothing is given".into())) };
    let mut kernels = session.open(config.run.tune, config.run.matrix, progress)?;
    let software = kernels.gpu().is_software();
    let data = Arc::new(load(&config, Some(given), software)?);
    let mut run = Run { given, data: &data, novel: None, validation: None, begun };
    run.settings(&mut config, software, &mut fit)?;
    let shape = DataShape::of(&data);
    validate(&config, shape)?;
    let novel = if request.score { novel_classes(&config, data.side, false, progress)? } else { None };
    progress.note(&described(&config.data.source, &data));
    run.novel = novel.as_ref();
    let validation = super::validate::classes(&config, data.side)?.ok();
    run.validation = validation.as_ref().map(|(images, _)| images);
    run.time(&mut config, &mut kernels, session.cache.as_deref(), &mut fit, progress)?;
    config.validate()?;
    let schedule = validate(&config, shape)?;
    let fitted = crate::train::budget::fit(&config, shape, false, Room::of(&kernels))?;
    let rows = recipe::rows_of(&config, data.side, schedule.total_steps.into());
    let forecast = fit.timing.map(|timing| Forecast {
        timing,
        steps: schedule.total_steps,
        epochs: f64::from(schedule.total_steps) * config.optimiser.batch as f64 / data.len() as f64,
        rows,
        expected: expected(&config, Statistics::of(&data).gray, rows),
    });
    Ok(PlanOutcome { chosen: fit.choices, forecast, ..outcome(&fitted, shape, false)? })
}

/// The plan of a step whose settings are fitted to a device.
pub(super) fn outcome(fitted: &Fitted, shape: DataShape, distill: bool) -> Result<PlanOutcome> {
    let Fitted { config, resident, memory, choices } = fitted.clone();
    let phases = Phases::new(&config, shape)?;
    // The step that holds most.
    let largest = phases.all().get(memory.peak_phase).map_or(&config, |phase| &phase.config);
    let spec = phase_spec(&phases.net, largest, shape, distill);
    let (graph, recorded) = phase_step(&spec, largest, shape, resident)?;
    let plan = Plan::new(&graph);
    plan.verify(&graph)?;
    let planned = phases.all().iter().map(|phase| {
        let spec = phase_spec(&phases.net, &phase.config, shape, distill);
        let (graph, _) = phase_step(&spec, &phase.config, shape, resident)?;
        Ok(PlannedPhase {
            from: phase.from + 1,
            side: phase.config.method.network_side(shape.side),
            rows: spec.rows() * spec.parts,
            multiply_adds: ops::flops(&graph) / 2 * spec.parts as u64,
        })
    });
    let planned: Vec<PlannedPhase> = planned.collect::<Result<_>>()?;
    let ops = graph.nodes.iter().map(|node| {
        let first = node.outputs[0];
        PlanEntry {
            op: node.op.operation().name().into(),
            algorithm: node.op.operation().algorithm(),
            scope: node.scope.clone(),
            shape: graph.shape(first).to_vec(),
            slot: plan.slot_of.get(&first).copied(),
            bytes: graph.value(first).ty.bytes(),
        }
    });
    Ok(PlanOutcome {
        parts: spec.parts,
        resident,
        chosen: Vec::new(),
        forecast: None,
        shared: None,
        choices,
        rows: spec.rows() * spec.parts,
        full_rows: config.full_rows(shape.side),
        phases: planned,
        parameters: recorded.step.parameters.iter().map(|e| e.shape.iter().product::<usize>() as u64).sum(),
        peak_bytes: memory.peak_bytes,
        arenas: graph.arenas.clone(),
        activations_bytes: plan.transient_bytes(),
        peak_node: memory.peak_node,
        memory,
        multiply_adds: ops::flops(&graph) / 2 * spec.parts as u64,
        executed_multiply_adds: ops::executed(&graph) / 2 * spec.parts as u64,
        ops: ops.collect(),
        config,
    })
}
