//! Computes products on units that multiply matrices, whose factors are rounded: see `ops::matrix`. The numbers change within
//! the rounding of the factors.

use std::collections::HashMap;

use super::recompute::{overlap, place};
use super::{Graph, Type, ValueId};
use crate::Result;
use crate::ops::factors::Factors;
use crate::ops::scale::Scale;

/// The fewest rows, columns and terms of a product with which a unit's tiles are half full.
pub const LEAST: usize = 32;

/// Rewrites every convolution, gradient of one, and product of at least this many rows, columns and terms. Each factor gets a
/// node that finds its scale, before its first reader; others that read the same numbers share it.
///
/// # Errors
/// None that the operations themselves did not have.
pub fn use_matrix(graph: &mut Graph, factors: Factors, least: usize) -> Result<()> {
    let nodes = std::mem::take(&mut graph.nodes);
    let (count, backward_at) = (nodes.len(), graph.backward_at);
    let mut scales = HashMap::new();
    for (at, mut node) in nodes.into_iter().enumerate() {
        if backward_at == Some(at) {
            graph.backward_at = Some(graph.nodes.len());
        }
        let types: Vec<Type> = node.inputs.iter().map(|&id| graph.value(id).ty.clone()).collect();
        let by_matrix = node.op.operation().rewrites().by_matrix(&types, factors);
        if let Some(by_matrix) = by_matrix.filter(|by_matrix| by_matrix.least >= least) {
            let first = by_matrix.slope.map_or_else(|| vec![node.inputs[0]], |_| vec![node.inputs[0], node.inputs[2]]);
            for (inputs, slope) in [(first, by_matrix.slope), (vec![node.inputs[1]], None)] {
                let key = (inputs.clone(), slope.map(f32::to_bits));
                let scale = match scales.get(&key) {
                    Some(&scale) => scale,
                    None => {
                        graph.set_scope(node.scope.clone());
                        graph.one(Scale { slope }, &inputs)?
                    }
                };
                scales.insert(key, scale);
                node.inputs.push(scale);
            }
            node.op = by_matrix.op;
        }
        // What is written again is another factor from here on, under whatever name it is written.
        let changes = |read: ValueId| node.outputs.iter().any(|&written| share(graph, read, written));
        scales.retain(|(inputs, _): &(Vec<ValueId>, _), _| !inputs.iter().any(|&id| changes(id)));
        graph.nodes.push(node);
    }
    if backward_at == Some(count) {
        graph.backward_at = Some(graph.nodes.len());
    }
    Ok(())
}

/// Whether two values share bytes.
fn share(graph: &Graph, a: ValueId, b: ValueId) -> bool {
    a == b || place(graph, a).zip(place(graph, b)).is_some_and(|(a, b)| overlap(&a, &b))
}
