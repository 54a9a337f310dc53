//! Runs a graph on the CPU in f64 with the operations' twins: slow, plain, the reference for the device.

use std::collections::HashMap;

use super::{Graph, Node, Storage, ValueId};
use crate::ops::Host;
use crate::{Error, Result};

/// Executes every node in order; `values` holds the inputs and persistent values and receives the rest.
///
/// # Errors
/// [`Error::Internal`] when an input is missing, or a twin makes too few outputs or the wrong number of elements.
pub fn run(graph: &Graph, values: &mut HashMap<ValueId, Vec<f64>>) -> Result<()> {
    for node in &graph.nodes {
        let in_place = node.op.operation().in_place();
        let read: Vec<ValueId> =
            if in_place { node.inputs.iter().chain(&node.outputs).copied().collect() } else { node.inputs.clone() };
        let hosts = read
            .iter()
            .map(|id| {
                let data = values
                    .get(id)
                    .ok_or_else(|| Error::Internal(format!("{} was not given", graph.value(*id).name)))?;
                Ok(Host { shape: graph.shape(*id), data })
            })
            .collect::<Result<Vec<_>>>()?;
        let results = node.op.operation().twin(&hosts);
        // What the twin does not make is workspace, which nobody else wants.
        for &output in node.outputs.iter().skip(results.len()) {
            let read = |other: &Node| !std::ptr::eq(other, node) && other.inputs.contains(&output);
            if graph.value(output).storage != Storage::Transient
                || graph.kept.contains(&output)
                || graph.nodes.iter().any(read)
            {
                return Err(Error::Internal(format!(
                    "the twin of {} made no {}",
                    node.op.operation().name(),
                    graph.value(output).name
                )));
            }
        }
        for (&output, result) in node.outputs.iter().zip(results) {
            if result.len() != graph.value(output).ty.len() {
                return Err(Error::Internal(format!(
                    "the twin of {} made {} elements for shape {:?}",
                    node.op.operation().name(),
                    result.len(),
                    graph.shape(output)
                )));
            }
            values.insert(output, result);
        }
    }
    Ok(())
}

/// The values that the host must give before [`run`]: arena values that no node makes first.
pub fn inputs(graph: &Graph) -> Vec<ValueId> {
    let mut made = std::collections::HashSet::new();
    let mut wanted = Vec::new();
    for node in &graph.nodes {
        let in_place = node.op.operation().in_place();
        for &id in node.inputs.iter().chain(if in_place { node.outputs.as_slice() } else { &[] }) {
            if graph.value(id).storage != Storage::Transient && made.insert(id) {
                wanted.push(id);
            }
        }
        made.extend(&node.outputs);
    }
    wanted
}
