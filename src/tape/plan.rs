//! Liveness, slots and bytes of a graph. Pure: needs no device, and answers before the first step.
//!
//! WebGPU tracks usage per buffer: one buffer bound for reading and for writing in the same dispatch is
//! an error even where the ranges are disjoint. So transient values are coloured into *slots*, whole
//! buffers, instead of offsets in one arena: what is alive at one node is in different buffers.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::graph::{Graph, Storage, ValueId};
use crate::{Error, Result};

/// The memory layout of a graph.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Slot of every transient value.
    pub slot_of: HashMap<ValueId, usize>,
    /// Bytes of every slot.
    pub slot_bytes: Vec<u64>,
    /// First and last node at which each transient value is alive.
    pub lifetime: HashMap<ValueId, (usize, usize)>,
}

/// Bytes of the transient values that are alive at one node, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Made before the backward pass and read in it.
    pub kept: u64,
    /// On their way from one operation to the next.
    pub passing: u64,
    /// Scratch of the operation itself: no other touches them.
    pub workspace: u64,
}

impl Live {
    /// All of them.
    pub fn total(self) -> u64 {
        self.kept + self.passing + self.workspace
    }
}

/// First and last node at which each transient value is alive; kept ones live past the last node.
fn lifetimes(graph: &Graph) -> HashMap<ValueId, (usize, usize)> {
    let mut lifetime: HashMap<ValueId, (usize, usize)> = HashMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for &id in node.inputs.iter().chain(&node.outputs) {
            if graph.value(id).storage == Storage::Transient {
                lifetime.entry(id).or_insert((index, index)).1 = index;
            }
        }
    }
    for id in &graph.kept {
        if let Some(life) = lifetime.get_mut(id) {
            life.1 = graph.nodes.len();
        }
    }
    lifetime
}

/// Where each wanted slot goes in a pool of buffers that other graphs have left: the smallest one not yet taken
/// that holds it, else a new one at the pool's end. Wanted slots come largest first, as plans have them.
pub fn pooled(existing: &[u64], wanted: &[u64]) -> Vec<usize> {
    let mut free: Vec<usize> = (0..existing.len()).collect();
    let mut end = existing.len();
    let mut place = |bytes: u64| {
        let fitting = (0..free.len()).filter(|&i| existing[free[i]] >= bytes).min_by_key(|&i| existing[free[i]]);
        match fitting {
            Some(i) => free.swap_remove(i),
            None => {
                end += 1;
                end - 1
            }
        }
    };
    wanted.iter().map(|&bytes| place(bytes)).collect()
}

impl Plan {
    /// Assigns slots: the largest value first, each to the first slot that is free during its lifetime.
    pub fn new(graph: &Graph) -> Plan {
        let lifetime = lifetimes(graph);
        let mut order: Vec<ValueId> = lifetime.keys().copied().collect();
        // Ties by id: the plan is the same on every run.
        order.sort_by_key(|&id| (std::cmp::Reverse(graph.value(id).ty.bytes()), id));
        let mut slots: Vec<(u64, Vec<(usize, usize)>)> = Vec::new();
        let mut slot_of = HashMap::new();
        for id in order {
            let (first, last) = lifetime[&id];
            let free = |taken: &[(usize, usize)]| taken.iter().all(|&(a, b)| last < a || b < first);
            let slot = match slots.iter().position(|(_, taken)| free(taken)) {
                Some(slot) => slot,
                None => {
                    slots.push((graph.value(id).ty.bytes(), Vec::new()));
                    slots.len() - 1
                }
            };
            slots[slot].1.push((first, last));
            slot_of.insert(id, slot);
        }
        let slot_bytes = slots.into_iter().map(|(bytes, _)| bytes).collect();
        Plan { slot_of, slot_bytes, lifetime }
    }

    /// Bytes of all slots together: the transient memory of a step.
    pub fn transient_bytes(&self) -> u64 {
        self.slot_bytes.iter().sum()
    }

    /// Bytes alive at each node, and thereby the least that any plan needs: `(bytes, node)` at its peak.
    pub fn peak_live(&self, graph: &Graph) -> (u64, usize) {
        let mut live = vec![0; graph.nodes.len() + 1];
        for (id, &(first, last)) in &self.lifetime {
            for bytes in &mut live[first..=last] {
                *bytes += graph.value(*id).ty.bytes();
            }
        }
        let node = (0..live.len()).max_by_key(|&i| (live[i], std::cmp::Reverse(i))).unwrap_or(0);
        (live.get(node).copied().unwrap_or(0), node)
    }

    /// What is alive at a node, by purpose.
    pub fn live_at(&self, graph: &Graph, node: usize) -> Live {
        let backward = graph.backward_at.unwrap_or(usize::MAX);
        let mut live = Live::default();
        for (&id, &(first, last)) in self.lifetime.iter().filter(|(_, life)| (life.0..=life.1).contains(&node)) {
            let purpose = match () {
                () if first < backward && last >= backward => &mut live.kept,
                () if first == last => &mut live.workspace,
                () => &mut live.passing,
            };
            *purpose += graph.value(id).ty.bytes();
        }
        live
    }

    /// Proves from the graph alone that every transient value has a slot that it fits, and that no two that
    /// are alive together share one.
    ///
    /// # Errors
    /// [`Error::Internal`] naming the values.
    pub fn verify(&self, graph: &Graph) -> Result<()> {
        let lifetime = lifetimes(graph);
        let name = |id: ValueId| &graph.value(id).name;
        let mut by_slot: HashMap<usize, Vec<ValueId>> = HashMap::new();
        for &id in lifetime.keys() {
            let slot = self.slot_of.get(&id).copied();
            let Some((slot, &bytes)) = slot.and_then(|slot| Some((slot, self.slot_bytes.get(slot)?))) else {
                return Err(Error::Internal(format!("{} has no slot", name(id))));
            };
            if graph.value(id).ty.bytes() > bytes {
                return Err(Error::Internal(format!("{} does not fit its slot", name(id))));
            }
            by_slot.entry(slot).or_default().push(id);
        }
        for ids in by_slot.values_mut() {
            // In order of their first nodes, two that overlap make two neighbours overlap.
            ids.sort_by_key(|id| lifetime[id]);
            for pair in ids.windows(2) {
                if lifetime[&pair[0]].1 >= lifetime[&pair[1]].0 {
                    return Err(Error::Internal(format!("{} and {} share a slot", name(pair[0]), name(pair[1]))));
                }
            }
        }
        Ok(())
    }

    /// The plan as text: every node with its shapes, slots and bytes, then the totals.
    pub fn explain(&self, graph: &Graph) -> String {
        let mut text = String::new();
        let place = |id: &ValueId| match (&graph.value(*id).storage, self.slot_of.get(id)) {
            (Storage::Arena { arena, offset }, _) => format!("{arena}+{offset}"),
            (Storage::Transient, Some(slot)) => format!("slot {slot}"),
            (Storage::Transient, None) => "unused".to_string(),
        };
        for (index, node) in graph.nodes.iter().enumerate() {
            let outputs: Vec<String> = node
                .outputs
                .iter()
                .map(|id| format!("{:?} {} B {}", graph.shape(*id), graph.value(*id).ty.bytes(), place(id)))
                .collect();
            let name = node.op.operation().name();
            let _ = writeln!(text, "{index:4} {:<28} {name:<28} {}", node.scope, outputs.join(", "));
        }
        let (peak, node) = self.peak_live(graph);
        let _ = writeln!(
            text,
            "{} nodes, {} slots, {} bytes of slots; {peak} bytes alive at the peak, node {node}",
            graph.nodes.len(),
            self.slot_bytes.len(),
            self.transient_bytes()
        );
        text
    }
}
