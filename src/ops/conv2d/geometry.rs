//! The sizes of a convolution, and what follows from them alone: shapes, workspace, and the sum itself.

use super::Algorithm;
use crate::gpu::kernel::lanes_for;
use crate::ops::{Cost, Operand, shape};
use crate::tape::Type;
use crate::{Error, Result};

/// Rows of packed weights and partial sums are padded to whole tiles of the widest kernels that read or write them.
pub(super) const NARROW_TILE: usize = 16;
const WIDE_TILE: usize = 32;
const WEIGHT_TILE: usize = 16;

/// The most bytes of backward_weight's partial sums.
const MOST_PARTIAL: u64 = 64 << 20;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) c_in: usize,
    pub(super) h_in: usize,
    pub(super) w_in: usize,
    pub(super) c_out: usize,
    pub(super) h_out: usize,
    pub(super) w_out: usize,
    pub(super) k_h: usize,
    pub(super) k_w: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Sizes {
    /// The sizes of a convolution of x by a weight.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not fit together, or where a tensor is larger than a shader can index.
    pub(super) fn new(
        op: &'static str,
        x: [usize; 4],
        weight: [usize; 4],
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let [batch, c_in, h_in, w_in] = x;
        let [c_out, c_weight, k_h, k_w] = weight;
        if c_weight != c_in {
            return Err(Error::shape(
                op,
                format!("weight has {c_weight} input channels, x has {c_in} (x: {x:?}, weight: {weight:?})"),
            ));
        }
        // Positions are i32 in the shader.
        let out = |size: usize, kernel: usize| {
            let padded = padding.checked_mul(2)?.checked_add(size)?;
            i32::try_from(padded).ok()?;
            padded.checked_sub(kernel)?.checked_div(stride)?.checked_add(1)
        };
        let (Some(h_out), Some(w_out)) = (out(h_in, k_h), out(w_in, k_w)) else {
            return Err(Error::shape(
                op,
                format!("a {k_h}x{k_w} kernel with stride {stride} and padding {padding} does not fit x {x:?}"),
            ));
        };
        for ty in [x, weight, [batch, c_out, h_out, w_out]].map(Type::f32) {
            shape::output(op, &ty)?;
        }
        Ok(Sizes { batch, c_in, h_in, w_in, c_out, h_out, w_out, k_h, k_w, stride, padding })
    }

    /// As [`Sizes::new`] after the shapes were checked.
    pub(super) fn of(x: &[usize], weight: &[usize], stride: usize, padding: usize) -> Self {
        let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
        let out = |size: usize, kernel: usize| (size + 2 * padding).saturating_sub(kernel) / stride.max(1) + 1;
        Sizes {
            batch: at(x, 0),
            c_in: at(x, 1),
            h_in: at(x, 2),
            w_in: at(x, 3),
            c_out: at(weight, 0),
            h_out: out(at(x, 2), at(weight, 2)),
            w_out: out(at(x, 3), at(weight, 3)),
            k_h: at(weight, 2),
            k_w: at(weight, 3),
            stride,
            padding,
        }
    }

    /// Fails where an algorithm is asked for that is not for these sizes.
    pub(super) fn check_algorithm(&self, op: &'static str, algorithm: Algorithm) -> Result<()> {
        if algorithm != Algorithm::Winograd || self.is_winograd() && self.fills_vectors() {
            return Ok(());
        }
        if self.is_winograd() {
            return Err(Error::shape(op, "by Winograd's formulas x and y must have eight elements or more"));
        }
        let Sizes { k_h, k_w, stride, .. } = self;
        Err(Error::shape(op, format!("Winograd's formulas are for 3x3 and stride 1, not for {k_h}x{k_w} and {stride}")))
    }

    /// The workspace of the convolution, forward or mirrored.
    pub(super) fn workspace(&self, algorithm: Algorithm) -> Vec<Type> {
        match algorithm {
            Algorithm::Winograd => self.winograd_workspace().into(),
            Algorithm::Direct | Algorithm::Matrix(_) => vec![self.packed()],
        }
    }

    /// The convolution that computes dx from dy: channels swapped, the kernel mirrored, stride 1 over dy
    /// spread out by the stride.
    pub(super) fn mirrored(&self) -> Self {
        Sizes {
            c_in: self.c_out,
            h_in: self.h_out,
            w_in: self.w_out,
            c_out: self.c_in,
            h_out: self.h_in,
            w_out: self.w_in,
            ..*self
        }
    }

    /// The parameters that every kernel of a convolution has.
    pub(super) fn params(&self) -> [(&'static str, usize); 9] {
        [
            ("batch", self.batch),
            ("c_in", self.c_in),
            ("h_in", self.h_in),
            ("w_in", self.w_in),
            ("c_out", self.c_out),
            ("h_out", self.h_out),
            ("w_out", self.w_out),
            ("k_h", self.k_h),
            ("k_w", self.k_w),
        ]
    }

    /// The shape of y.
    pub(super) fn y(&self) -> [usize; 4] {
        [self.batch, self.c_out, self.h_out, self.w_out]
    }

    /// Elements of the kernel for a pair of channels.
    pub(super) fn taps(&self) -> usize {
        self.k_h * self.k_w
    }

    /// A multiply-add for every output, input channel and tap; the packed weights and partial sums are no cost
    /// of the convolution itself.
    pub(super) fn cost(&self, inputs: &[Operand], outputs: &[Operand], algorithm: Algorithm) -> Cost {
        let [batch, c_out, h_out, w_out] = self.y();
        let cost = Cost::moving(inputs.iter().chain(&outputs[..1]))
            .multiply_adds(&[batch, c_out, h_out, w_out, self.c_in, self.k_h, self.k_w]);
        match algorithm {
            Algorithm::Direct => cost,
            Algorithm::Winograd => cost.executing(cost.multiply_adds(&self.winograd_products()).flops),
            Algorithm::Matrix(factors) => cost.executing(cost.flops.saturating_mul(factors.products())),
        }
    }

    /// Vectors of output channels in a row of packed weights: whole tiles of any width that may read them.
    pub(super) fn packed_row(&self) -> usize {
        self.c_out.next_multiple_of(if self.c_out > NARROW_TILE { WIDE_TILE } else { NARROW_TILE }) / 4
    }

    /// Packed weights: a row of all output channels for each input channel and tap.
    pub(super) fn packed(&self) -> Type {
        Type::f32([self.c_in * self.taps(), 4 * self.packed_row()])
    }

    /// Vectors of output channels in a row of backward_weight's partial sums.
    pub(super) fn partial_row(&self) -> usize {
        self.c_out.next_multiple_of(WEIGHT_TILE) / 4
    }

    /// Partial sums of backward_weight: [split, tap x input channel, output channel].
    pub(super) fn partial(&self) -> Type {
        Type::f32([self.splits().0, self.taps() * self.c_in, 4 * self.partial_row()])
    }

    /// Workgroups along the input channels in backward_weight, and their size: no more lanes than channels.
    pub(super) fn columns(&self) -> (usize, usize) {
        let lanes = lanes_for(self.c_in);
        (self.c_in.div_ceil(lanes), lanes)
    }

    /// Independent pieces of work in one split of backward_weight.
    pub(super) fn groups_per_split(&self, tile: usize) -> usize {
        self.columns().0 * self.c_out.div_ceil(tile) * self.k_h.div_ceil(3) * self.k_w.div_ceil(3)
    }

    /// Parts of batch x h_out that backward_weight sums separately, and rows of a part: enough workgroups to fill a
    /// device, sums of 4096 terms at most for accuracy and of 256 at least to be worth their own result, and no more
    /// partial sums than 64 MiB hold.
    pub(super) fn splits(&self) -> (usize, usize) {
        let rows = self.batch * self.h_out;
        let weight_bytes = 16 * self.partial_row() as u64 * self.c_in as u64 * self.taps() as u64;
        // At most 64 Mi: it fits any usize.
        let room = (MOST_PARTIAL / weight_bytes).max(1) as usize;
        let terms = rows * self.w_out;
        let wanted =
            (1024 / self.groups_per_split(8)).clamp(terms.div_ceil(4096), terms.div_ceil(256)).min(room).min(rows);
        let split_rows = rows.div_ceil(wanted);
        (rows.div_ceil(split_rows), split_rows)
    }

    /// Calls `f(y, x, w)` with the positions of every term of the sum: the definition, for the twins.
    pub(super) fn each_term(&self, mut f: impl FnMut(usize, usize, usize)) {
        for n in 0..self.batch {
            for o in 0..self.c_out {
                for i in 0..self.h_out {
                    for j in 0..self.w_out {
                        let y_at = ((n * self.c_out + o) * self.h_out + i) * self.w_out + j;
                        for c in 0..self.c_in {
                            for k in 0..self.k_h {
                                for l in 0..self.k_w {
                                    let (v, h) = (i * self.stride + k, j * self.stride + l);
                                    let inside =
                                        |at: usize, size: usize| at >= self.padding && at < size + self.padding;
                                    if inside(v, self.h_in) && inside(h, self.w_in) {
                                        let row = (n * self.c_in + c) * self.h_in + v - self.padding;
                                        let w_at = ((o * self.c_in + c) * self.k_h + k) * self.k_w + l;
                                        f(y_at, row * self.w_in + h - self.padding, w_at);
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
