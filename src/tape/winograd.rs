//! Computes convolutions by Winograd's minimal filtering, with less than half of the multiplications; see
//! `ops::winograd`. The numbers change within rounding.

use super::{Graph, Storage, Value, ValueId};
use crate::Result;
use crate::tape::Type;

/// Rewrites every convolution, and every gradient of one, that gains by it.
///
/// # Errors
/// None that the convolution itself did not have.
pub fn use_winograd(graph: &mut Graph) -> Result<()> {
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        let types: Vec<Type> = node.inputs.iter().map(|&id| graph.value(id).ty.clone()).collect();
        let Some(op) = node.op.operation().rewrites().by_winograd(&types) else { continue };
        let outputs = op.outputs(&types)?;
        let (result, scope) = (node.outputs[0], node.scope.clone());
        // The result stays the value it is; the workspace is another.
        let mut ids = vec![result];
        for ty in outputs.into_iter().skip(1) {
            let name = format!("{scope}.{}", op.operation().name());
            graph.values.push(Value { name, ty, storage: Storage::Transient, requires_grad: false });
            ids.push(ValueId(graph.values.len() as u32 - 1));
        }
        (graph.nodes[at].op, graph.nodes[at].outputs) = (op, ids);
    }
    Ok(())
}
