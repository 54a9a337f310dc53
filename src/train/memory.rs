//! What a run holds on the device, byte by byte, known before it begins. Needs no device.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::features::evaluation;
use super::joint::own_arenas;
use super::phases::Phases;
use super::record::{DataShape, UPLOADS, phase_spec, phase_step};
use crate::Result;
use crate::ier::step::record_update;
use crate::settings::Config;
use crate::tape::exec::params_bytes;
use crate::tape::plan::{Plan, pooled};

/// Bytes on the device by what they are for. The classes add up to [`Memory::peak_bytes`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Parameters and running statistics, of the teacher and of the average, too.
    pub weights: u64,
    /// Gradients of the parameters.
    pub gradients: u64,
    /// Momentum.
    pub optimiser: u64,
    /// The memory bank.
    pub bank: u64,
    /// Pixels: the training set, or where it is streamed a pass of it and its staging buffers.
    pub images: u64,
    /// What the host writes and reads for each step, and the parameters of the launches.
    pub inputs: u64,
    /// At the peak: values made in the forward pass that the backward pass reads.
    pub kept_activations: u64,
    /// At the peak: values on their way from one operation to the next.
    pub transient: u64,
    /// At the peak: scratch of the operation itself.
    pub workspace: u64,
    /// What the slots, whole buffers, hold beyond the values alive at the peak.
    pub unfilled_slots: u64,
    /// All of it: the most that is on the device at once.
    pub peak_bytes: u64,
    /// Number of the phase, from 0, whose step holds most at once.
    pub peak_phase: usize,
    /// Position of that step's operation at which most bytes are alive.
    pub peak_node: usize,
    /// That operation, with its layer.
    pub peak_operation: String,
    /// The largest buffer: what one binding must hold.
    pub largest_buffer: u64,
}

impl Memory {
    /// The classes by name, in the order they are listed to people.
    pub fn classes(&self) -> [(&'static str, u64); 10] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimiser", self.optimiser),
            ("memory bank", self.bank),
            ("images", self.images),
            ("inputs and losses", self.inputs),
            ("kept activations", self.kept_activations),
            ("transient", self.transient),
            ("workspace", self.workspace),
            ("unfilled slots", self.unfilled_slots),
        ]
    }

    /// The memory of a training run that also scores its network; `resident`: the whole training set is on the
    /// device.
    ///
    /// # Errors
    /// As [`training_step`](super::record::training_step).
    pub fn of(config: &Config, data: DataShape, distill: bool, resident: bool) -> Result<Memory> {
        Memory::among(config, data, distill, resident, 1)
    }

    /// As [`Memory::of`], of one of `ranks` that share the micro-batches of each batch, without what they exchange. It matters
    /// where all micro-batches of a process are computed at once.
    ///
    /// # Errors
    /// As [`Memory::of`].
    pub fn among(config: &Config, data: DataShape, distill: bool, resident: bool, ranks: usize) -> Result<Memory> {
        let phases = Phases::new(config, data)?;
        let mut memory = Memory::default();
        let (mut graphs, mut alive, mut rows, mut images) = (Vec::new(), 0, None, 0);
        // Micro-batches beside the first, and the arenas of which each has its own.
        let (mut beside, mut own) = (Vec::new(), BTreeSet::new());
        for (number, phase) in phases.all().iter().enumerate() {
            let spec = phase_spec(&phases.net, &phase.config, data, distill);
            let (step, recorded) = phase_step(&spec, &phase.config, data, resident)?;
            let plan = Plan::new(&step);
            let parts = if spec.is_joined() { spec.parts_of(ranks) } else { 1 };
            if parts > 1 {
                beside.push((plan.slot_bytes.clone(), parts - 1));
                own.extend(own_arenas(&step, &recorded));
            }
            memory.inputs += (parts as u64 - 1) * params_bytes(&step);
            let (most, node) = plan.peak_live(&step);
            let most = parts as u64 * most;
            if number == 0 || most > alive {
                let live = plan.live_at(&step, node);
                (alive, memory.peak_phase, memory.peak_node) = (most, number, node);
                [memory.kept_activations, memory.transient, memory.workspace] =
                    [live.kept, live.passing, live.workspace].map(|bytes| parts as u64 * bytes);
                let operation =
                    step.nodes.get(node).map(|node| format!("{} {}", node.scope, node.op.operation().name()));
                memory.peak_operation = operation.unwrap_or_default().trim().to_owned();
            }
            if spec.parts > 1 {
                // The optimiser's graph of a split batch has no memory but the other graphs'; only its launches count.
                memory.inputs += params_bytes(&record_update(&step, &recorded.step, &spec)?);
            }
            rows.get_or_insert(spec.rows());
            images = images.max(spec.images());
            graphs.push((step, plan));
        }
        let (scoring, _) = evaluation(config, &phases.net, data.side, rows.unwrap_or(1))?;
        let plan = Plan::new(&scoring);
        graphs.push((scoring, plan));
        let mut arenas: BTreeMap<&str, u64> = BTreeMap::new();
        let mut slots: Vec<u64> = Vec::new();
        for (graph, plan) in &graphs {
            for (name, &bytes) in &graph.arenas {
                let arena = arenas.entry(name).or_default();
                *arena = (*arena).max(bytes);
            }
            add_slots(&mut slots, &plan.slot_bytes);
            memory.inputs += params_bytes(graph);
        }
        let most = beside.iter().map(|(_, parts)| *parts).max().unwrap_or(0);
        for part in 0..most {
            let mut further = Vec::new();
            beside.iter().filter(|(_, parts)| part < *parts).for_each(|(wanted, _)| add_slots(&mut further, wanted));
            slots.extend(further);
        }
        for (&name, &bytes) in &arenas {
            let times = if own.contains(name) { 1 + most as u64 } else { 1 };
            *memory.class_of(name) += times * bytes;
        }
        if !resident {
            memory.images += (UPLOADS * 4 * images * data.side * data.side) as u64;
        }
        memory.unfilled_slots = slots.iter().sum::<u64>() - alive;
        memory.largest_buffer = arenas.values().chain(&slots).copied().max().unwrap_or(0);
        memory.peak_bytes = memory.classes().iter().map(|(_, bytes)| bytes).sum();
        Ok(memory)
    }

    /// The class of an arena.
    fn class_of(&mut self, arena: &str) -> &mut u64 {
        match arena {
            _ if arena.ends_with("parameters") && !arena.ends_with("view parameters") => &mut self.weights,
            _ if arena.ends_with("statistics") => &mut self.weights,
            _ if arena.ends_with("gradients") => &mut self.gradients,
            "momentum" => &mut self.optimiser,
            "bank" => &mut self.bank,
            _ if arena.ends_with("images") => &mut self.images,
            _ => &mut self.inputs,
        }
    }
}

/// Makes the slots that a graph wants and `slots` do not have yet.
fn add_slots(slots: &mut Vec<u64>, wanted: &[u64]) {
    for (&bytes, place) in wanted.iter().zip(pooled(slots, wanted)) {
        if place == slots.len() {
            slots.push(bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::record::{spec, training_step};
    use super::*;
    use crate::settings::BatchStatistics;

    #[test]
    fn the_launches_of_all_three_graphs_of_a_split_batch_count() {
        let mut config = Config::from_preset("demo").unwrap();
        (config.run.micro_batch, config.run.batch_norm) = (Some(8), BatchStatistics::Micro);
        let data = DataShape { side: 28, classes: 64, images: 1280 };
        let (step, recorded) = training_step(&config, data, false, true).unwrap();
        let spec = spec(&config, data, false);
        let (scoring, _) = evaluation(&config, &spec.net, data.side, spec.rows()).unwrap();
        let update = record_update(&step, &recorded.step, &spec).unwrap();
        let mut arenas = Memory::default();
        for (name, bytes) in step.arenas.iter().chain(&scoring.arenas) {
            *arenas.class_of(name) += bytes;
        }
        let launches: u64 = [&step, &scoring, &update].into_iter().map(params_bytes).sum();
        assert_eq!(Memory::of(&config, data, false, true).unwrap().inputs, arenas.inputs + launches);
    }
}
