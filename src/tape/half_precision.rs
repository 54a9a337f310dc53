//! Stores activations in half precision: what is computed with stays f32, what lies in memory until the backward pass
//! needs half of it.

use super::{Element, Graph, Storage, ValueId};

/// Stores the results of convolutions in half precision, where whoever reads them can read that. Two halves share a
/// word that one invocation writes, so rows of an odd length stay f32.
pub fn store_half(graph: &mut Graph) {
    let half: Vec<ValueId> =
        graph.nodes.iter().filter(|n| n.op.operation().rewrites().writes_half()).map(|n| n.outputs[0]).collect();
    for y in half {
        let value = graph.value(y);
        let even = value.ty.shape.last().is_some_and(|width| width.is_multiple_of(2));
        if !even || value.storage != Storage::Transient || graph.kept.contains(&y) {
            continue;
        }
        let readable = graph.nodes.iter().all(|node| {
            node.inputs.iter().enumerate().all(|(i, &input)| input != y || node.op.operation().rewrites().reads_half(i))
                && (!node.op.operation().in_place() || !node.outputs.contains(&y))
        });
        if readable {
            graph.values[y.0 as usize].ty.element = Element::F16;
        }
    }
}
