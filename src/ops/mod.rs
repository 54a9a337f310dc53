//! The operations: one file each, with its shape rule, f64 twin, gradient rule, launches and cases.
//!
//! The WGSL of `ops/NAME.rs` is `shaders/NAME.wgsl`. A new operation is four places: these two files, a row in
//! `operations!` below, and a row in `BREAKS` of `tests/mutation.rs`. The compiler or a test says which is missing.
//! What [`Operation`] has defaults for is written only where the default is wrong. An operation from outside the crate is an
//! [`Op::custom`].
//!
//! `cargo fmt` does not see modules that a macro makes: `.ci/run` checks `src/ops` with rustfmt by itself.

use std::sync::Arc;

use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};

pub mod case;
pub mod check;
pub mod operation;
pub mod rows;
pub mod shape;
pub mod step_block;
mod tile;

pub use case::{Case, Elements};
pub use operation::{ByRows, Cost, Host, Norm, Operand, Operation, PartialSums, Pieces, Rewrites};

/// A row is a file and the operations in it. It makes the module, a variant of [`Op`] for each operation, and the
/// file's part of [`cases`].
macro_rules! operations {
    ($($module:ident: $($name:ident),+;)*) => {
        $(pub mod $module;)*

        /// Every operation, as plain data.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each variant is documented at its struct")]
        pub enum Op {
            $($($name($module::$name),)+)*
            /// An operation from outside the crate.
            Custom(Arc<dyn Operation + Send + Sync>),
        }

        impl Op {
            /// The names of the variants for the crate's own operations.
            pub const VARIANTS: &[&str] = &[$($(stringify!($name)),+),*];

            /// The behaviour behind the data.
            pub fn operation(&self) -> &dyn Operation {
                match self {
                    $($(Op::$name(op) => op,)+)*
                    Op::Custom(op) => &**op,
                }
            }
        }

        $($(impl From<$module::$name> for Op {
            fn from(op: $module::$name) -> Self {
                Op::$name(op)
            }
        })+)*

        /// Every case of every operation.
        pub fn cases() -> Vec<Case> {
            [$($module::cases()),*].concat()
        }
    };
}

operations! {
    elementwise: Scale, Reshape, Add, Fill, LeakyRelu, LeakyReluBackward;
    reduce: Mean, MeanBackward;
    softmax_xent: CrossEntropy, CrossEntropyBackward, Correct;
    contrast: RowNormalise, RowNormaliseBackward, ContrastAnchors, ContrastAnchorsBackward, FirstRows, Nce, NceBackward;
    distill: KlDivergence, KlDivergenceBackward, SquaredError, SquaredErrorBackward;
    bank: GatherRows, BankUpdate;
    health: HealthCheck;
    sgd: Sgd;
    accumulate: Accumulate;
    conv2d: Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight;
    matmul: Matmul, AddRow, ColumnSum;
    batch_norm: BatchNorm, BatchNormEval, BatchNormSums, BatchNormBackward, BatchNormRunning;
    pool: MaxPool, MaxPoolBackward, GlobalAveragePool, GlobalAveragePoolBackward;
    dropout: Bernoulli, Dropout, DropBlockKeep, KeepScale, ApplyMask;
    views: Views;
}

impl Op {
    /// An operation from outside the crate.
    pub fn custom(op: impl Operation + Send + Sync + 'static) -> Self {
        Op::Custom(Arc::new(op))
    }

    /// The types of the outputs, as [`Operation::outputs`], with what holds for every operation checked before and after:
    /// no tensor is empty or larger than a shader can index.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] naming the operation, what it wanted and what it got.
    pub fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let operation = self.operation();
        let name = operation.name();
        inputs.iter().enumerate().try_for_each(|(i, ty)| shape::input(name, ty, &format!("input {i}")))?;
        let outputs = operation.outputs(inputs)?;
        outputs.iter().try_for_each(|ty| shape::output(name, ty))?;
        Ok(outputs)
    }
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

/// The launches of a node.
pub fn launches(graph: &Graph, node: &Node) -> Vec<Launch<ValueId>> {
    rows::RowRange::default().launches(graph, node)
}
