//! What an operation is: the trait [`Operation`], and what its methods speak of.

use std::fmt::Debug;
use std::ops::Range;

use super::{Elements, Op};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Element, Graph, Node, Type, ValueId};

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
    pub(super) fn half(&self) -> u32 {
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

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.element.bytes() * self.len() as u64
    }
}

/// What every operation knows about itself.
///
/// An operation from outside the crate implements `name`, `outputs`, `twin`, `launches` and, where it has a gradient,
/// `backward`; it enters a graph as [`Op::custom`].
pub trait Operation: Debug {
    /// `file.entry`-like name for plans, errors and reports.
    fn name(&self) -> &'static str;

    /// Shape rule. For an operation in place the last inputs are the values it updates.
    ///
    /// Outputs after those that the twin returns are workspace: scratch between the launches of the node.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] naming the operation, what it wanted and what it got, for any other number of inputs,
    /// elements, axes and sizes than it can compute with. It must not panic.
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>>;

    /// Whether the outputs are persistent values that are updated in place.
    fn in_place(&self) -> bool {
        false
    }

    /// The plainest correct computation, in f64, of inputs whose types [`Operation::outputs`] accepted. For an operation
    /// in place the last inputs are the old values of its targets, and the result is their new values.
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>>;

    /// Appends the nodes of the gradient, given the gradients of the outputs; returns one for each input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] from the nodes it appends.
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let _ = (graph, upstream);
        Ok(vec![None; node.inputs.len()])
    }

    /// The dispatches, in order, over operands whose types [`Operation::outputs`] accepted and made.
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>>;

    /// The least work there is in it, with which `bench` compares its time. Unless told otherwise: no arithmetic
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

    /// Which of its `inputs` inputs and of its outputs go by rows, where every row of the latter comes from the same row
    /// of the former: it can then be computed a few rows at a time. None where it cannot. See [`super::rows`].
    fn by_rows(&self, inputs: usize) -> Option<ByRows> {
        let _ = inputs;
        None
    }

    /// For an operation that first sums parts of its rows, each by itself, and then joins the sums.
    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        None
    }

    /// The forms of it that the passes of [`crate::tape`] may put in its place.
    fn rewrites(&self) -> &dyn Rewrites {
        &NoRewrites
    }

    /// What output `index` holds, roughly: `bench` makes the inputs of the operations behind it alike. Unless told
    /// otherwise the first is normal; what is made beside it is saved for a gradient, and positive: norms, deviations,
    /// sums of exponentials.
    fn output_elements(&self, index: usize) -> Elements {
        if index == 0 { Elements::Normal(0.0, 1.0) } else { Elements::Uniform(0.5, 1.5) }
    }
}

/// Forms of an operation that compute the same with less memory or time; none unless told otherwise.
pub trait Rewrites {
    /// For a batch norm whose first output, y, can be left to its readers.
    fn as_norm(&self) -> Option<Norm> {
        None
    }

    /// The same operation reading x and its statistics (as a further, last input) where it now reads their y with
    /// this slope as input `index`; none where it cannot compute y itself. See [`crate::tape::fuse`].
    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
        let _ = (index, slope);
        None
    }

    /// The same operation with its output in the place of its last input; none where it needs both.
    fn in_place_variant(&self) -> Option<Op> {
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
}

/// The rewrites of an operation that has none.
struct NoRewrites;

impl Rewrites for NoRewrites {}

/// Sums over rows, made in parts. The launches of such an operation are [`PartialSums::part_launches`] of all rows and then
/// [`PartialSums::joining_launches`]; see [`super::rows`].
pub trait PartialSums {
    /// Rows of a part.
    fn rows_per_part(&self, inputs: &[Operand]) -> usize;

    /// The sums of the parts in these rows, to which the operands that go by rows are cut.
    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>>;

    /// What follows when all parts have their sums.
    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>>;
}

/// Whether each input and each output goes by rows; what does not is bound whole for every few rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByRows {
    /// For each input.
    pub inputs: &'static [bool],
    /// For each output.
    pub outputs: &'static [bool],
}

/// An operand that goes by rows.
pub(super) const ROW: bool = true;

/// An operand that is needed whole.
pub(super) const WHOLE: bool = false;

/// For `by_rows` of an operation that can be computed a few rows at a time.
pub(super) fn by_rows(inputs: &'static [bool], outputs: &'static [bool]) -> Option<ByRows> {
    Some(ByRows { inputs, outputs })
}

/// A batch norm as those see it who read its y.
pub struct Norm {
    /// Slope of the LeakyReLU in y.
    pub slope: f32,
    /// The operation without the output y; the statistics are then its first output.
    pub without_y: Op,
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
        Cost { flops: 0, bytes: values.into_iter().map(Operand::bytes).sum() }
    }

    /// And every element of these once more.
    pub fn and_moving(self, values: &[Operand]) -> Self {
        Cost { bytes: self.bytes + Cost::moving(values).bytes, ..self }
    }

    /// With a multiply-add for every combination of these sizes; at most 2^64 - 1 operations are counted.
    pub fn multiply_adds(self, sizes: &[usize]) -> Self {
        let n = sizes.iter().fold(1_u64, |n, &size| n.saturating_mul(size as u64));
        Cost { flops: n.saturating_mul(2), ..self }
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
