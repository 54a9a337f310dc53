//! What the methods of an operation speak of: tensors on the host and on the device, and how a computation is cut.

use std::ops::Range;

use crate::gpu::Launch;
use crate::tape::{Element, ValueId};

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

    /// Whether it is whole vectors of four words; then so is every part of it that is bound, which begins at one.
    pub(super) fn is_whole(&self) -> bool {
        self.len().is_multiple_of(4 << self.half())
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

/// The least work that an operation can be done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations of the products; a multiply-add counts two.
    pub flops: u64,
    /// Those that its algorithm executes for them: fewer by Winograd's, more where a factor is in two parts.
    pub executed: u64,
    /// Bytes that must be read from or written to memory once.
    pub bytes: u64,
}

impl Cost {
    /// Every element of these values once.
    pub fn moving<'a>(values: impl IntoIterator<Item = &'a Operand<'a>>) -> Self {
        Cost { flops: 0, executed: 0, bytes: values.into_iter().map(Operand::bytes).sum() }
    }

    /// And every element of these once more.
    pub fn and_moving(self, values: &[Operand]) -> Self {
        Cost { bytes: self.bytes + Cost::moving(values).bytes, ..self }
    }

    /// With a multiply-add for every combination of these sizes; at most 2^64 - 1 operations are counted.
    pub fn multiply_adds(self, sizes: &[usize]) -> Self {
        let n = sizes.iter().fold(1_u64, |n, &size| n.saturating_mul(size as u64));
        let flops = n.saturating_mul(2);
        Cost { flops, executed: flops, ..self }
    }

    /// With another number of executed operations.
    pub fn executing(self, executed: u64) -> Self {
        Cost { executed, ..self }
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
