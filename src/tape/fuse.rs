//! Rewrites a recorded graph, forward and backward, so that less of it is stored: what a step keeps of a convolutional
//! network is the outputs of its convolutions.
//!
//! - A reader that can compute y = leaky_relu(batch_norm(x)) where it loads x gets x and the statistics, a few numbers
//!   a channel; where all readers can, y is not made at all.
//! - A gradient that is read for the last time where the next one is made from it is replaced in place.
//!
//! The rewritten graph computes the same; its operations have twins, too. It is rewritten after it was differentiated.

use std::collections::HashMap;

use super::{Graph, Storage, ValueId};

/// Rewrites the graph; a second time changes nothing.
pub fn fuse(graph: &mut Graph) {
    absorb_batch_norms(graph);
    replace_in_place(graph);
}

/// Node that makes each value.
fn producers(graph: &Graph) -> HashMap<ValueId, usize> {
    let nodes = graph.nodes.iter().enumerate();
    nodes.flat_map(|(at, node)| node.outputs.iter().map(move |&output| (output, at))).collect()
}

/// Whether nobody but the graph's own nodes wants a value.
fn private(graph: &Graph, id: ValueId) -> bool {
    graph.value(id).storage == Storage::Transient && !graph.kept.contains(&id)
}

fn absorb_batch_norms(graph: &mut Graph) {
    let producers = producers(graph);
    for at in 0..graph.nodes.len() {
        // Inputs that are appended are statistics.
        for index in 0..graph.nodes[at].inputs.len() {
            let (node, input) = (&graph.nodes[at], graph.nodes[at].inputs[index]);
            let Some(maker) = producers.get(&input).map(|&p| &graph.nodes[p]) else { continue };
            let Some(norm) = maker.op.operation().rewrites().as_norm() else { continue };
            if maker.outputs[0] != input {
                continue;
            }
            let Some(op) = node.op.operation().rewrites().with_fused_norm(index, norm.slope) else { continue };
            let (x, statistics) = (maker.inputs[0], maker.outputs[1]);
            let node = &mut graph.nodes[at];
            node.op = op;
            node.inputs[index] = x;
            node.inputs.push(statistics);
        }
    }
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let Some(norm) = node.op.operation().rewrites().as_norm() else { continue };
        let y = node.outputs[0];
        if private(graph, y) && !graph.nodes.iter().any(|node| node.inputs.contains(&y)) {
            let node = &mut graph.nodes[at];
            node.op = norm.without_y;
            node.outputs.remove(0);
        }
    }
}

fn replace_in_place(graph: &mut Graph) {
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let (Some(op), Some(&old)) = (node.op.operation().rewrites().in_place_variant(), node.inputs.last()) else {
            continue;
        };
        let new = node.outputs[0];
        let later = &graph.nodes[at + 1..];
        let read_again = later.iter().any(|node| node.inputs.contains(&old) || node.outputs.contains(&old));
        if read_again || !private(graph, old) || !private(graph, new) {
            continue;
        }
        let node = &mut graph.nodes[at];
        node.op = op;
        node.inputs.pop();
        node.outputs = vec![old];
        for node in &mut graph.nodes[at + 1..] {
            node.inputs.iter_mut().chain(&mut node.outputs).filter(|id| **id == new).for_each(|id| *id = old);
        }
    }
}
