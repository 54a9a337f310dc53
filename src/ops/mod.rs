//! The operations: one file each, with its shape rule, f64 twin, gradient rule and launches.
//!
//! The WGSL of `ops/NAME.rs` is `shaders/NAME.wgsl`. To add an operation: write the two files, add the
//! variant below and its cases to [`check::cases`].

use std::ops::Range;

use crate::gpu::Launch;
use crate::tape::{Element, Graph, Node, Type, ValueId};
use crate::{Error, Result};

pub mod accumulate;
pub mod bank;
pub mod batch_norm;
pub mod check;
pub mod contrast;
pub mod conv2d;
pub mod distill;
pub mod dropout;
pub mod elementwise;
pub mod health;
pub mod matmul;
pub mod pool;
pub mod reduce;
pub mod rows;
pub mod sgd;
pub mod softmax_xent;
pub mod views;
mod winograd;

/// A tensor on the host as a twin sees it; unsigned integers are exact in f64.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Elements, contiguous.
    pub data: &'a [f64],
}

/// Value ids with their shapes, as launches need them.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The value.
    pub id: ValueId,
    /// Its shape.
    pub shape: &'a [usize],
    /// Its element.
    pub element: Element,
}

impl Operand<'_> {
    /// Whether it is stored in half precision, as a shader's constant.
    fn half(&self) -> u32 {
        u32::from(self.element == Element::F16)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What every operation knows about itself.
pub trait Operation {
    /// `file.entry`-like name for plans, errors and reports.
    fn name(&self) -> &'static str;

    /// Shape rule. For an operation in place the last inputs are the values it updates.
    ///
    /// Outputs after those that the twin returns are workspace: scratch between the launches of the node.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the operation, what it wanted and what it got.
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>>;

    /// Whether the outputs are persistent values that are updated in place.
    fn in_place(&self) -> bool {
        false
    }

    /// The plainest correct computation, in f64. For an operation in place the last inputs are the old
    /// values of its targets, and the result is their new values.
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>>;

    /// Appends the nodes of the gradient, given the gradients of the outputs; returns one for each input.
    ///
    /// # Errors
    /// [`Error::Shape`] from the nodes it appends.
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let _ = (graph, upstream);
        Ok(vec![None; node.inputs.len()])
    }

    /// For a batch norm whose first output, y, can be left to its readers.
    fn normalises(&self) -> Option<Normalises> {
        None
    }

    /// The same operation reading x and its statistics (as a further, last input) where it now reads their y with
    /// this slope as input `index`; none where it cannot compute y itself. See [`crate::tape::fuse`].
    fn absorbing(&self, index: usize, slope: f32) -> Option<Op> {
        let _ = (index, slope);
        None
    }

    /// The same operation with its output in the place of its last input; none where it needs both.
    fn replacing_last_input(&self) -> Option<Op> {
        None
    }

    /// Whether its first output may be made again instead of being kept: it depends on the inputs alone, and costs
    /// little for its size. See [`crate::tape::recompute`].
    fn recomputable(&self) -> bool {
        false
    }

    /// The same operation with less than half of the multiplications, where it has one that gains by that; its result
    /// stays its first output. See [`crate::tape::winograd`].
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let _ = inputs;
        None
    }

    /// Whether it reads input `index` in half precision, too. See [`crate::tape::half_precision`].
    fn reads_half(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// Whether it can write its first output in half precision.
    fn writes_half(&self) -> bool {
        false
    }

    /// The dispatches, in order.
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>>;

    /// For an operation that first sums parts of its rows, each by itself, and then joins the sums: the rows of a part.
    /// Its launches are then [`Operation::part_launches`] of all rows and [`Operation::joining_launches`]; see [`rows`].
    fn part_rows(&self, inputs: &[Operand]) -> Option<usize> {
        let _ = inputs;
        None
    }

    /// The sums of the parts in these rows, to which the operands that go by rows are cut.
    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let _ = (inputs, outputs, rows);
        Vec::new()
    }

    /// What follows when all parts have their sums.
    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let _ = (inputs, outputs);
        Vec::new()
    }

    /// The least work there is in it, by which `bench` judges its speed. Unless told otherwise: no arithmetic
    /// worth counting, every input read and every output written once. An operation with convolutions or products
    /// counts them; one with workspace, or that reads part of an input, counts its own bytes.
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(outputs)).and_moving(if self.in_place() { outputs } else { &[] })
    }

    /// How it falls apart into smaller ones of the same kind, so that its twin can be run on a part of what
    /// the device computed; none where it does not.
    fn pieces(&self) -> Option<Pieces> {
        None
    }
}

/// The least work that an operation can be done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations of the products; a multiply-add counts two.
    pub flops: u64,
    /// Bytes that must be read from or written to memory once.
    pub bytes: u64,
}

impl Cost {
    /// Every element of these values once.
    pub fn moving<'a>(values: impl IntoIterator<Item = &'a Operand<'a>>) -> Self {
        Cost { flops: 0, bytes: values.into_iter().map(|v| v.element.bytes() * v.len() as u64).sum() }
    }

    /// And every element of these once more.
    pub fn and_moving(self, values: &[Operand]) -> Self {
        Cost { bytes: self.bytes + Cost::moving(values).bytes, ..self }
    }

    /// With so many multiply-adds.
    pub fn multiply_adds(self, n: usize) -> Self {
        Cost { flops: 2 * n as u64, ..self }
    }
}

/// Axes along which an operation is independent computations: cutting the same range out of the named axes of
/// the inputs gives that range of the named axes of the outputs. An input without an axis is needed whole.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// Axis of each input.
    pub inputs: &'static [Option<usize>],
    /// Axis of each output that the twin returns.
    pub outputs: &'static [usize],
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
    graph.nodes.iter().map(|node| cost(graph, node).flops).sum()
}

/// A batch norm seen by those who read its y.
pub struct Normalises {
    /// Slope of the LeakyReLU in y.
    pub slope: f32,
    /// The operation without the output y; the statistics are then its first output.
    pub without_y: Op,
}

/// The launches of a node.
pub fn launches(graph: &Graph, node: &Node) -> Vec<Launch<ValueId>> {
    rows::Slice::default().launches(graph, node)
}

macro_rules! operations {
    ($($variant:ident: $path:path),* $(,)?) => {
        /// Every operation, as plain data.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "each variant is documented at its struct")]
        pub enum Op { $($variant($path)),* }

        impl Op {
            /// The behaviour behind the data.
            pub fn operation(&self) -> &dyn Operation {
                match self { $(Op::$variant(op) => op),* }
            }
        }

        $(impl From<$path> for Op {
            fn from(op: $path) -> Self { Op::$variant(op) }
        })*
    };
}

operations! {
    Scale: elementwise::Scale,
    Reshape: elementwise::Reshape,
    Add: elementwise::Add,
    Fill: elementwise::Fill,
    LeakyRelu: elementwise::LeakyRelu,
    LeakyReluBackward: elementwise::LeakyReluBackward,
    Mean: reduce::Mean,
    MeanBackward: reduce::MeanBackward,
    CrossEntropy: softmax_xent::CrossEntropy,
    CrossEntropyBackward: softmax_xent::CrossEntropyBackward,
    Correct: softmax_xent::Correct,
    RowNormalise: contrast::RowNormalise,
    RowNormaliseBackward: contrast::RowNormaliseBackward,
    ContrastAnchors: contrast::ContrastAnchors,
    ContrastAnchorsBackward: contrast::ContrastAnchorsBackward,
    FirstRows: contrast::FirstRows,
    Nce: contrast::Nce,
    NceBackward: contrast::NceBackward,
    KlDivergence: distill::KlDivergence,
    KlDivergenceBackward: distill::KlDivergenceBackward,
    SquaredError: distill::SquaredError,
    SquaredErrorBackward: distill::SquaredErrorBackward,
    GatherRows: bank::GatherRows,
    BankUpdate: bank::BankUpdate,
    HealthCheck: health::HealthCheck,
    Accumulate: accumulate::Accumulate,
    Sgd: sgd::Sgd,
    Conv2d: conv2d::Conv2d,
    Conv2dBackwardInput: conv2d::Conv2dBackwardInput,
    Conv2dBackwardWeight: conv2d::Conv2dBackwardWeight,
    Matmul: matmul::Matmul,
    AddRow: matmul::AddRow,
    ColumnSum: matmul::ColumnSum,
    BatchNorm: batch_norm::BatchNorm,
    BatchNormEval: batch_norm::BatchNormEval,
    BatchNormSums: batch_norm::BatchNormSums,
    BatchNormBackward: batch_norm::BatchNormBackward,
    BatchNormRunning: batch_norm::BatchNormRunning,
    MaxPool: pool::MaxPool,
    MaxPoolBackward: pool::MaxPoolBackward,
    GlobalAveragePool: pool::GlobalAveragePool,
    GlobalAveragePoolBackward: pool::GlobalAveragePoolBackward,
    Bernoulli: dropout::Bernoulli,
    Dropout: dropout::Dropout,
    DropBlockKeep: dropout::DropBlockKeep,
    KeepScale: dropout::KeepScale,
    ApplyMask: dropout::ApplyMask,
    Views: views::Views,
}

/// The shape `[d0, d1, ...]` of input `index` if it has `N` axes of floats.
///
/// # Errors
/// [`Error::Shape`] saying what was wanted.
pub fn axes<const N: usize>(op: &'static str, inputs: &[Type], index: usize, what: &str) -> Result<[usize; N]> {
    let shape = inputs.get(index).map(|t| t.shape.as_slice()).unwrap_or_default();
    shape.try_into().map_err(|_| Error::shape(op, format!("{what} must have {N} axes, it has shape {shape:?}")))
}

/// Fails unless two shapes are equal.
///
/// # Errors
/// [`Error::Shape`] naming both.
pub fn same(op: &'static str, what: &str, got: &[usize], wanted: &[usize]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    Err(Error::shape(op, format!("{what} has shape {got:?}, it must be {wanted:?}")))
}
