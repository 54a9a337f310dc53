//! Reverse-mode differentiation: the gradient of a graph is more graph.

use std::collections::HashMap;

use super::{Graph, Storage, Type, ValueId};
use crate::ops::elementwise::{Add, Fill, Scale};
use crate::ops::shape::same;
use crate::{Error, Result};

/// Appends the nodes that compute d `loss` / d v for every value v that requires it.
///
/// The first contribution to a gradient is the gradient; later ones are added. Returns the gradients by
/// value. `loss` must be a scalar, shape `[1]`.
///
/// # Errors
/// [`Error::Shape`] when the loss is not a scalar or an operation cannot be differentiated.
pub fn backward(graph: &mut Graph, loss: ValueId) -> Result<HashMap<ValueId, ValueId>> {
    graph.check_id(loss)?;
    if graph.shape(loss) != [1] {
        return Err(Error::shape("backward", format!("the loss has shape {:?}, it must be [1]", graph.shape(loss))));
    }
    graph.backward_at.get_or_insert(graph.nodes.len());
    let seed = graph.one(Fill { value: 1.0, ty: Type::f32([1]) }, &[])?;
    backward_from(graph, &[(loss, seed)])
}

/// As [`backward`], from given upstream gradients.
///
/// # Errors
/// As [`backward`]; also when a gradient has another shape than its value.
pub fn backward_from(graph: &mut Graph, seeds: &[(ValueId, ValueId)]) -> Result<HashMap<ValueId, ValueId>> {
    for &(value, gradient) in seeds {
        graph.check_id(value).and(graph.check_id(gradient))?;
        same("backward", "a gradient", graph.shape(gradient), graph.shape(value))?;
    }
    graph.backward_at.get_or_insert(graph.nodes.len());
    let mut gradients: HashMap<ValueId, ValueId> = seeds.iter().copied().collect();
    for index in (0..graph.nodes.len()).rev() {
        let node = graph.nodes[index].clone();
        let upstream: Vec<Option<ValueId>> = node.outputs.iter().map(|o| gradients.get(o).copied()).collect();
        let wanted = node.inputs.iter().any(|&i| graph.value(i).requires_grad);
        if !wanted || upstream.iter().all(Option::is_none) {
            continue;
        }
        graph.set_scope(format!("{}'", node.scope));
        let contributions = node.op.operation().backward(graph, &node, &upstream)?;
        for (&input, contribution) in node.inputs.iter().zip(contributions) {
            let Some(new) = contribution else { continue };
            if !graph.value(input).requires_grad {
                continue;
            }
            let total = match gradients.get(&input) {
                None => new,
                Some(&old) => graph.one(Add { alpha: 1.0, beta: 1.0 }, &[old, new])?,
            };
            gradients.insert(input, total);
        }
    }
    graph.set_scope("");
    Ok(gradients)
}

/// Lays the gradients of all values of arena `of` out in arena `into`, at the same offsets, so that the
/// optimiser sees parameters and gradients as two equal vectors. Returns the values that have a gradient; what is in
/// `into` beside their gradients is 0.
///
/// A gradient that several values share, or that lies elsewhere already, is copied.
///
/// # Errors
/// As [`Graph::apply`], from the copies.
pub fn place_gradients(
    graph: &mut Graph,
    gradients: &HashMap<ValueId, ValueId>,
    of: &str,
    into: &str,
) -> Result<Vec<ValueId>> {
    let parameters: Vec<(ValueId, u64)> = graph
        .ids()
        .filter_map(|id| match &graph.value(id).storage {
            Storage::Arena { arena, offset } if arena == of && graph.value(id).requires_grad => Some((id, *offset)),
            _ => None,
        })
        .collect();
    let mut placed = Vec::new();
    for &(parameter, offset) in &parameters {
        let Some(&gradient) = gradients.get(&parameter) else { continue };
        let mut target = gradient;
        // The copies are made from a value that is in no arena: one dispatch cannot read and write one buffer.
        let sharers = parameters.iter().filter(|(other, _)| gradients.get(other) == Some(&gradient)).count();
        if sharers > 1 || graph.value(gradient).storage != Storage::Transient {
            graph.set_scope(format!("{}'", graph.value(parameter).name));
            target = graph.one(Scale { alpha: 1.0 }, &[gradient])?;
        }
        let name = format!("d {}", graph.value(parameter).name);
        let value = &mut graph.values[target.0 as usize];
        value.storage = Storage::Arena { arena: into.to_string(), offset };
        value.name = name;
        placed.push(parameter);
    }
    graph.set_scope("");
    let bytes = graph.arenas.get(of).copied().unwrap_or(0);
    graph.arenas.insert(into.to_string(), bytes);
    Ok(placed)
}
