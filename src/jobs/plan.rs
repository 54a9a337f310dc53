//! `plan`: memory and operations of a configuration.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{data_options, within};
use crate::data::{self, Split};
use crate::ops;
use crate::settings::Config;
use crate::tape::plan::Plan;
use crate::train::budget::{Fitted, Room, fit};
use crate::train::memory::Memory;
use crate::train::phases::Phases;
use crate::train::record::{DataShape, phase_spec, phase_step, validate};
use crate::{Error, Result};

/// A plan to make.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRequest {
    /// The settings.
    pub config: Config,
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
    /// What the memory budget chose, and what it costs; one sentence per choice.
    pub choices: Vec<String>,
    /// Micro-batches per step; `ops` are those of one.
    pub parts: usize,
    /// Whether the whole training set is on the device.
    pub resident: bool,
    /// Rows per step.
    pub rows: usize,
    /// Trained parameters.
    pub parameters: u64,
    /// Most bytes on the device at once.
    pub peak_bytes: u64,
    /// Bytes of everything that outlives a step, by the name of its buffer.
    pub arenas: BTreeMap<String, u64>,
    /// Bytes of activations, gradients of activations and workspace: of all slots.
    pub activations_bytes: u64,
    /// Position of the operation at which most bytes are alive.
    pub peak_node: usize,
    /// All bytes by what they are for.
    pub memory: Memory,
    /// Multiply-adds per step.
    pub multiply_adds: u64,
    /// Every operation in order.
    pub ops: Vec<PlanEntry>,
}

/// An operation of a planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEntry {
    /// The operation, such as `conv2d.forward`.
    pub op: String,
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
/// more memory. A training run plans for its own device.
///
/// # Errors
/// As for training: settings that contradict each other or the data, and data that cannot be read.
pub fn run(request: &PlanRequest) -> Result<PlanOutcome> {
    let config = &request.config;
    config.validate()?;
    let shape = match request.size {
        Some((classes, images)) => {
            within("request.classes", classes, 2, 1_000_000)?;
            // The memory bank has a row per image, and what an operation makes has fewer than 2^30 elements.
            let most = ((1 << 30) / config.model.projection - 1).min(100_000_000);
            within("request.images", images, 1, most)?;
            let side = config.data.side;
            let side =
                side.ok_or_else(|| Error::usage("`request.classes` and `request.images` want `data.side` as well"))?;
            DataShape { side, classes, images }
        }
        None => {
            // Their number is wanted, not the pixels: where the side is known, the smallest images will do.
            let smallest = config.data.side.map(|_| 1);
            let data = data::load(&config.data.source, Split::Train, &data_options(&config.data, smallest))?;
            let side = config.data.side.unwrap_or(data.side);
            DataShape { side, ..DataShape::of(&data) }
        }
    };
    validate(config, shape)?;
    outcome(&fit(config, shape, request.distill, Room::LARGE)?, shape, request.distill)
}

/// The plan of a step whose settings are fitted to a device.
pub(super) fn outcome(fitted: &Fitted, shape: DataShape, distill: bool) -> Result<PlanOutcome> {
    let Fitted { config, resident, memory, choices } = fitted.clone();
    let phases = Phases::new(&config, shape)?;
    // The step that holds most.
    let largest = phases.all().get(memory.peak_phase).map_or(&config, |phase| &phase.config);
    let spec = phase_spec(&phases.net, largest, shape, distill);
    let (graph, recorded) = phase_step(&phases.net, largest, shape, distill, resident)?;
    let plan = Plan::new(&graph);
    plan.verify(&graph)?;
    let ops = graph.nodes.iter().map(|node| {
        let first = node.outputs[0];
        PlanEntry {
            op: node.op.operation().name().into(),
            scope: node.scope.clone(),
            shape: graph.shape(first).to_vec(),
            slot: plan.slot_of.get(&first).copied(),
            bytes: graph.value(first).ty.bytes(),
        }
    });
    Ok(PlanOutcome {
        parts: spec.parts,
        resident,
        choices,
        rows: spec.rows() * spec.parts,
        parameters: recorded.step.parameters.iter().map(|e| e.shape.iter().product::<usize>() as u64).sum(),
        peak_bytes: memory.peak_bytes,
        arenas: graph.arenas.clone(),
        activations_bytes: plan.transient_bytes(),
        peak_node: memory.peak_node,
        memory,
        multiply_adds: ops::flops(&graph) / 2 * spec.parts as u64,
        ops: ops.collect(),
        config,
    })
}
