//! The operations: one file each, with its shape rule, f64 twin, gradient rule, launches and cases.
//!
//! The WGSL of `ops/NAME.rs` is `shaders/NAME.wgsl`. A new operation is four places: these two files, a row in
//! `operations!` below, and a row in `BREAKS` of `tests/mutation.rs`. A test says which is missing.
//! What [`Operation`] has defaults for is written only where the default is wrong. An operation from outside the crate is
//! used as the crate's own are.
//!
//! `cargo fmt` does not see modules that a macro makes: `.ci/run` checks `src/ops` with rustfmt by itself.

use crate::gpu::Launch;
use crate::tape::{Graph, Node, ValueId};

pub mod case;
pub mod check;
pub mod elements;
pub mod factors;
pub mod matrix;
pub mod operand;
pub mod rows;
pub mod shape;
pub mod step_block;
mod tile;

pub use crate::tape::graph::{ByMatrix, Joined, Norm, Op, Operation, Rewrites};
pub use case::Case;
pub use elements::Elements;
pub use factors::Factors;
pub use operand::{ByRows, Cost, Host, Operand, PartialSums, Pieces};

/// A row is a file of operations: its module, and its part of [`cases`].
macro_rules! operations {
    ($($module:ident;)*) => {
        $(pub mod $module;)*

        /// Every case of every operation.
        pub fn cases() -> Vec<Case> {
            [$($module::cases()),*].concat()
        }
    };
}

operations! {
    elementwise;
    reduce;
    softmax_xent;
    contrast;
    distill;
    bank;
    health;
    clip;
    sgd;
    accumulate;
    average;
    scale;
    conv2d;
    matmul;
    batch_norm;
    pool;
    adaptive_pool;
    dropout;
    views;
}

/// A value as an operand.
fn operand(graph: &Graph, id: ValueId) -> Operand<'_> {
    Operand { id, shape: graph.shape(id), element: graph.value(id).ty.element }
}

/// The cost of a node.
pub fn cost(graph: &Graph, node: &Node) -> Cost {
    let [inputs, outputs] =
        [&node.inputs, &node.outputs].map(|ids| ids.iter().map(|&id| operand(graph, id)).collect::<Vec<_>>());
    node.op.operation().cost(&inputs, &outputs)
}

/// Floating-point operations of a graph's products.
pub fn flops(graph: &Graph) -> u64 {
    graph.nodes.iter().fold(0, |sum, node| sum.saturating_add(cost(graph, node).flops))
}

/// As [`flops`], of what their algorithms execute.
pub fn executed(graph: &Graph) -> u64 {
    graph.nodes.iter().fold(0, |sum, node| sum.saturating_add(cost(graph, node).executed))
}

/// The launches of a node.
pub fn launches(graph: &Graph, node: &Node) -> Vec<Launch<ValueId>> {
    rows::RowRange::default().launches(graph, node)
}
