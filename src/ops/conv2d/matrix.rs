//! How a convolution and its gradients are launched on units that multiply matrices of half precision: see
//! [`crate::ops::matrix`]. Weights are packed, and the weight gradient's partial sums joined, as by [`super::tiles`].

use std::ops::Range;

use super::geometry::Sizes;
use crate::gpu::Launch;
use crate::ops::Operand;
use crate::ops::factors::Factors;
use crate::ops::matrix::{TILE, launch};
use crate::tape::ValueId;

impl Sizes {
    /// The least of channels on either side and pixels.
    pub(super) fn least(&self) -> usize {
        self.c_in.min(self.c_out).min(self.batch * self.h_out * self.w_out)
    }

    /// As [`Sizes::convolve`]; `inputs` end with the scales of x and weight.
    pub(super) fn convolve_by_matrix(
        &self,
        pack: &'static str,
        inputs: &[Operand],
        outputs: &[Operand],
        (stride, dilate): (usize, usize),
        padding: (i32, i32),
        (slope, factors): (Option<f32>, Factors),
    ) -> Vec<Launch<ValueId>> {
        let pixels = self.batch * self.h_out * self.w_out;
        let tiles = self.c_out.div_ceil(TILE) * pixels.div_ceil(TILE);
        let [x_scale, weight_scale] = scales(inputs);
        let mut convolve = launch("convolve", tiles, factors, [weight_scale, x_scale], &self.params())
            .constant("STRIDE", stride as u32)
            .constant("DILATE", dilate as u32)
            .constant("X_HALF", inputs[0].half())
            .constant("Y_HALF", outputs[0].half())
            .constant("NORMED", u32::from(slope.is_some()))
            .bind("x", inputs[0].id)
            .bind("packed", outputs[1].id)
            .bind("statistics", statistics(inputs, slope))
            .bind("y", outputs[0].id);
        convolve.set("pad_y", padding.0);
        convolve.set("pad_x", padding.1);
        convolve.set("packed_row", self.packed_row());
        convolve.set("slope", slope.unwrap_or(1.0));
        vec![self.packing(pack, padding, inputs[1].id, outputs[1].id), convolve]
    }

    /// As [`Sizes::weight_parts`]; `inputs` end with the scales of x and dy.
    pub(super) fn weight_parts_by_matrix(
        &self,
        inputs: &[Operand],
        outputs: &[Operand],
        images: Range<usize>,
        slope: Option<f32>,
        factors: Factors,
    ) -> Vec<Launch<ValueId>> {
        let split_rows = self.splits().1;
        let splits = (images.len() * self.h_out).div_ceil(split_rows);
        let tiles = splits * self.taps() * self.c_in.div_ceil(TILE) * self.c_out.div_ceil(TILE);
        let mut sums = launch("backward_weight", tiles, factors, scales(inputs), &self.params())
            .constant("STRIDE", self.stride as u32)
            .constant("X_HALF", inputs[0].half())
            .constant("NORMED", u32::from(slope.is_some()))
            .bind("x", inputs[0].id)
            .bind("dy", inputs[1].id)
            .bind("statistics", statistics(inputs, slope))
            .bind("partial_out", outputs[1].id);
        sums.set("batch", images.len());
        sums.set("pad_y", self.padding as i32);
        sums.set("pad_x", self.padding as i32);
        sums.set("packed_row", self.partial_row());
        sums.set("splits", splits);
        sums.set("first_split", images.start * self.h_out / split_rows);
        sums.set("split_rows", split_rows);
        sums.set("slope", slope.unwrap_or(1.0));
        vec![sums]
    }
}

/// The last two inputs.
fn scales(inputs: &[Operand]) -> [ValueId; 2] {
    let [.., first, second] = inputs else { return [inputs[0].id; 2] };
    [first.id, second.id]
}

/// The statistics of a normalised x; else anything that is bound already.
fn statistics(inputs: &[Operand], slope: Option<f32>) -> ValueId {
    if slope.is_some() { inputs[2].id } else { inputs[0].id }
}
