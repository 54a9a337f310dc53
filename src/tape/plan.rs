//! Liveness, slots and bytes of a graph. Pure: needs no device, and answers before the first step.
//!
//! WebGPU tracks usage per buffer: one buffer bound for reading and for writing in the same dispatch is
//! an error even where the ranges are disjoint. So transient values are placed in *slots*, several buffers,
//! instead of one arena: what one operation writes shares a slot with nothing else that it touches. Values
//! that no operation brings together may lie side by side in a slot.

use std::collections::{HashMap, HashSet};

use super::graph::ARENA_ALIGNMENT;
use super::{Graph, Storage, ValueId};
use crate::{Error, Result};

/// The memory layout of a graph.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Slot of every transient value.
    pub slot_of: HashMap<ValueId, usize>,
    /// Its first byte there.
    pub offset_of: HashMap<ValueId, u64>,
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

/// The values that must not share a slot with each value: an operation writes one of the two and touches the other.
fn conflicts(graph: &Graph) -> HashMap<ValueId, HashSet<ValueId>> {
    let mut conflicts: HashMap<ValueId, HashSet<ValueId>> = HashMap::new();
    for node in &graph.nodes {
        for &written in &node.outputs {
            for &other in node.inputs.iter().chain(&node.outputs).filter(|&&other| other != written) {
                conflicts.entry(written).or_default().insert(other);
                conflicts.entry(other).or_default().insert(written);
            }
        }
    }
    conflicts
}

/// A value with its place in a slot.
struct Placed {
    id: ValueId,
    life: (usize, usize),
    offset: u64,
    bytes: u64,
}

impl Placed {
    fn lives_with(&self, other: &Placed) -> bool {
        self.life.0 <= other.life.1 && other.life.0 <= self.life.1
    }
}

/// The slot and the first byte for a value; none: a new slot.
type Choose<'a> = &'a dyn Fn(&Placed, &[Slot]) -> Option<(usize, u64)>;

/// A buffer while values are placed in it.
struct Slot {
    bytes: u64,
    values: Vec<Placed>,
}

impl Slot {
    /// The first byte and the size of the smallest gap, during a value's life, that holds it.
    fn gap(&self, placed: &Placed) -> Option<(u64, u64)> {
        let mut taken: Vec<(u64, u64)> =
            self.values.iter().filter(|v| v.lives_with(placed)).map(|v| (v.offset, v.offset + v.bytes)).collect();
        taken.sort_unstable();
        taken.push((self.bytes, self.bytes));
        let (mut from, mut best) = (0_u64, None);
        for (begin, end) in taken {
            let size = begin.saturating_sub(from);
            if size >= placed.bytes && best.is_none_or(|(_, smallest)| size < smallest) {
                best = Some((from, size));
            }
            from = from.max(end.next_multiple_of(ARENA_ALIGNMENT));
        }
        best
    }
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
    /// Assigns places, the largest value first: each goes to a gap in a slot, or becomes a new slot. Of two rules,
    /// the first slot with a gap and the tightest gap of all, the one that needs less memory is taken.
    pub fn new(graph: &Graph) -> Plan {
        let conflicts = conflicts(graph);
        let gap = |slot: &Slot, placed: &Placed| {
            let kept_apart = |other: &Placed| conflicts.get(&placed.id).is_some_and(|set| set.contains(&other.id));
            if slot.values.iter().any(kept_apart) { None } else { slot.gap(placed) }
        };
        let first = Plan::assign(graph, &|placed, slots| {
            slots.iter().enumerate().find_map(|(i, slot)| gap(slot, placed).map(|(offset, _)| (i, offset)))
        });
        let tightest = Plan::assign(graph, &|placed, slots| {
            let gaps = slots.iter().enumerate().filter_map(|(i, slot)| gap(slot, placed).map(|gap| (i, gap)));
            gaps.min_by_key(|&(i, (_, size))| (size, i)).map(|(i, (offset, _))| (i, offset))
        });
        if tightest.transient_bytes() < first.transient_bytes() { tightest } else { first }
    }

    /// As [`Plan::new`], with no two values that are alive together in one slot: behind a value lies nothing.
    pub fn apart(graph: &Graph) -> Plan {
        Plan::assign(graph, &|placed, slots| {
            let free = |slot: &Slot| slot.values.iter().all(|other| !other.lives_with(placed));
            slots.iter().position(free).map(|i| (i, 0))
        })
    }

    fn assign(graph: &Graph, choose: Choose) -> Plan {
        let lifetime = lifetimes(graph);
        let mut order: Vec<ValueId> = lifetime.keys().copied().collect();
        // Ties by id: the plan is the same on every run.
        order.sort_by_key(|&id| (std::cmp::Reverse(graph.value(id).ty.bytes()), id));
        let mut slots: Vec<Slot> = Vec::new();
        let mut plan = Plan::default();
        for id in order {
            let mut placed = Placed { id, life: lifetime[&id], offset: 0, bytes: graph.value(id).ty.bytes() };
            let (slot, offset) = choose(&placed, &slots).unwrap_or((slots.len(), 0));
            if slot == slots.len() {
                slots.push(Slot { bytes: placed.bytes, values: Vec::new() });
            }
            placed.offset = offset;
            slots[slot].values.push(placed);
            plan.slot_of.insert(id, slot);
            plan.offset_of.insert(id, offset);
        }
        plan.slot_bytes = slots.into_iter().map(|slot| slot.bytes).collect();
        plan.lifetime = lifetime;
        plan
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

    /// Proves from the graph alone that every transient value has a place that it fits, that no two that are alive
    /// together overlap, and that no operation reads and writes, or writes twice, in one slot.
    ///
    /// # Errors
    /// [`Error::Internal`] naming the values.
    pub fn verify(&self, graph: &Graph) -> Result<()> {
        let name = |id: ValueId| &graph.value(id).name;
        let mut by_slot: HashMap<usize, Vec<Placed>> = HashMap::new();
        for (&id, &life) in &lifetimes(graph) {
            let slot = self.slot_of.get(&id).copied();
            let Some((slot, &size)) = slot.and_then(|slot| Some((slot, self.slot_bytes.get(slot)?))) else {
                return Err(Error::Internal(format!("{} has no slot", name(id))));
            };
            let offset = self.offset_of.get(&id).copied().unwrap_or(0);
            let bytes = graph.value(id).ty.bytes();
            if offset + bytes > size || !offset.is_multiple_of(ARENA_ALIGNMENT) {
                return Err(Error::Internal(format!("{} does not fit its slot", name(id))));
            }
            by_slot.entry(slot).or_default().push(Placed { id, life, offset, bytes });
        }
        let conflicts = conflicts(graph);
        for placed in by_slot.values() {
            for (i, a) in placed.iter().enumerate() {
                for b in &placed[i + 1..] {
                    let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                    let conflict = conflicts.get(&a.id).is_some_and(|set| set.contains(&b.id));
                    if conflict || (a.lives_with(b) && !apart) {
                        return Err(Error::Internal(format!("{} and {} share a slot", name(a.id), name(b.id))));
                    }
                }
            }
        }
        Ok(())
    }
}
