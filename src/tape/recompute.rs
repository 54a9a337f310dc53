//! Lets a graph make values again in its backward pass instead of keeping them from the forward pass until then
//! (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost). The same operations read the same numbers, so
//! not a bit changes; what it costs is their time.

use std::collections::HashMap;
use std::ops::Range;

use super::{Graph, Node, Storage, ValueId};
use crate::ops::cost;

/// The nodes whose result need not be kept for the backward pass, those with the least arithmetic per byte first.
pub fn candidates(graph: &Graph) -> Vec<usize> {
    let Some(backward_at) = graph.backward_at else { return Vec::new() };
    let possible = |at: &usize| {
        let node = &graph.nodes[*at];
        let y = node.outputs[0];
        if !node.op.operation().rewrites().recomputable() || place(graph, y).is_some() || graph.kept.contains(&y) {
            return false;
        }
        // What is read again must not have changed in between.
        let read: Vec<_> = node.inputs.iter().filter_map(|&id| place(graph, id)).collect();
        let written = |id: &ValueId| place(graph, *id).is_some_and(|at| read.iter().any(|own| overlap(own, &at)));
        let changed = |node: &Node| node.outputs.iter().any(written);
        let reader = graph.nodes[backward_at..].iter().position(|node| node.inputs.contains(&y));
        reader.is_some_and(|reader| !graph.nodes[*at..backward_at + reader].iter().any(changed))
    };
    let mut nodes: Vec<usize> = (0..backward_at).filter(possible).collect();
    let per_byte = |at: usize| {
        let node = &graph.nodes[at];
        cost(graph, node).flops as f64 / graph.value(node.outputs[0]).ty.bytes() as f64
    };
    nodes.sort_by(|&a, &b| per_byte(a).total_cmp(&per_byte(b)));
    nodes
}

/// The arena of a value and its bytes there.
pub(super) fn place(graph: &Graph, id: ValueId) -> Option<(&str, Range<u64>)> {
    let value = graph.value(id);
    match &value.storage {
        Storage::Arena { arena, offset } => Some((arena, *offset..offset.saturating_add(value.ty.bytes()))),
        Storage::Transient => None,
    }
}

/// Whether two places share bytes.
pub(super) fn overlap((arena, own): &(&str, Range<u64>), (other, bytes): &(&str, Range<u64>)) -> bool {
    arena == other && bytes.start < own.end && own.start < bytes.end
}

/// Makes the results of these nodes, some of [`candidates`], again before they are first read in the backward pass.
pub fn recompute(graph: &mut Graph, nodes: &[usize]) {
    let Some(backward_at) = graph.backward_at else { return };
    let makers = nodes.iter().map(|&at| (graph.nodes[at].outputs[0], graph.nodes[at].clone())).collect();
    let backward = graph.nodes.split_off(backward_at);
    let mut again = Again { graph, makers, made: HashMap::new() };
    for mut node in backward {
        node.inputs.iter_mut().for_each(|input| *input = again.value(*input));
        again.graph.nodes.push(node);
    }
}

struct Again<'g> {
    graph: &'g mut Graph,
    /// The nodes to repeat, by what they make.
    makers: HashMap<ValueId, Node>,
    /// What was made again, and as what.
    made: HashMap<ValueId, ValueId>,
}

impl Again<'_> {
    /// The value that stands for `id` in the backward pass, made here at its first use.
    fn value(&mut self, id: ValueId) -> ValueId {
        if let Some(&made) = self.made.get(&id) {
            return made;
        }
        let Some(mut node) = self.makers.get(&id).cloned() else { return id };
        node.inputs.iter_mut().for_each(|input| *input = self.value(*input));
        for output in &mut node.outputs {
            self.graph.values.push(self.graph.value(*output).clone());
            *output = ValueId(self.graph.values.len() as u32 - 1);
        }
        node.scope.push('\'');
        self.made.insert(id, node.outputs[0]);
        self.graph.nodes.push(node);
        self.made[&id]
    }
}
