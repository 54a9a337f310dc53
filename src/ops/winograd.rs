//! How a 3 x 3 convolution of stride 1 and its gradients are launched by Winograd's minimal filtering F(2x2, 3x3):
//! `shaders/winograd.wgsl`. The operations are those of [`super::conv2d`], which hold the shape rules, twins and gradients.

use std::ops::Range;

use super::Operand;
use super::conv2d::Sizes;
use crate::gpu::Launch;
use crate::gpu::kernel::{Alternative, fold, lanes_for};
use crate::tape::{Type, ValueId};

const SHADER: &str = "winograd";

/// Elements of a transformed tile: so many products are independent.
const ELEMENTS: usize = 16;

/// Terms that are summed before they join the total.
const CHAIN: usize = 36;

/// Bytes of transformed images at a time, or as many as the transformed weights have, which every slice reads again: what
/// fits the caches of a processor.
const SLICE_BYTES: usize = 4 << 20;

/// The fewest channels with which the products outweigh the transforms. Measured: benches/results.
const LEAST_CHANNELS: usize = 64;

impl Sizes {
    /// Whether the formulas hold for this convolution.
    pub(super) fn is_winograd(&self) -> bool {
        (self.k_h, self.k_w, self.stride) == (3, 3, 1)
    }

    /// Whether they also save time.
    pub(super) fn gains_by_winograd(&self) -> bool {
        self.is_winograd() && self.c_in.min(self.c_out) >= LEAST_CHANNELS
    }

    /// Tiles of an image, down and across.
    fn tiles(&self) -> (usize, usize) {
        (self.h_out.div_ceil(2), self.w_out.div_ceil(2))
    }

    fn tiles_of(&self, images: usize) -> usize {
        images * self.tiles().0 * self.tiles().1
    }

    /// Rows of `packed` that tiles of so many channels read.
    fn row_of(&self, tile: usize) -> usize {
        self.c_out.next_multiple_of(tile)
    }

    /// Rows of `packed`: whole tiles of every width that wastes less than half of itself.
    fn row(&self) -> usize {
        [80, 64, 32, 16]
            .map(|tile| self.row_of(tile))
            .into_iter()
            .filter(|&row| 2 * self.c_out > row)
            .max()
            .unwrap_or(16)
    }

    /// Images that are transformed at a time.
    pub(super) fn slice_images(&self) -> usize {
        let bytes = 4 * ELEMENTS * self.tiles_of(1) * (self.c_in + self.c_out);
        let weights = 4 * ELEMENTS * self.c_in * self.row();
        (SLICE_BYTES.max(weights) / bytes).clamp(1, self.batch.max(1))
    }

    /// Transformed weights, inputs, and products of the forward convolution.
    pub(super) fn winograd_workspace(&self) -> [Type; 3] {
        let tiles = self.tiles_of(self.slice_images()).next_multiple_of(4);
        let [weights, inputs, products] = [[self.c_in, self.row()], [self.c_in, tiles], [self.c_out, tiles]];
        [weights, inputs, products].map(|[terms, row]| Type::f32([ELEMENTS, terms, row]))
    }

    /// Transformed inputs and upstream gradients, and products of the weight gradient.
    pub(super) fn winograd_weight_workspace(&self) -> [Type; 3] {
        let (tiles, channels) = (self.tiles_of(self.slice_images()), self.c_in.next_multiple_of(4));
        let [inputs, upstream, products] = [[tiles, channels], [tiles, self.row()], [self.c_out, channels]];
        [inputs, upstream, products].map(|[terms, row]| Type::f32([ELEMENTS, terms, row]))
    }

    /// A launch over some images, from `first` of those that are bound.
    fn slice_launch(
        &self,
        entry: &'static str,
        n: usize,
        images: Range<usize>,
        padding: (i32, i32),
    ) -> Launch<ValueId> {
        Launch::items(SHADER, entry, n)
            .param("batch", images.len())
            .param("first_image", images.start)
            .param("c_in", self.c_in)
            .param("h_in", self.h_in)
            .param("w_in", self.w_in)
            .param("c_out", self.c_out)
            .param("h_out", self.h_out)
            .param("w_out", self.w_out)
            .param("pad_y", padding.0)
            .param("pad_x", padding.1)
            .param("tiles_y", self.tiles().0)
            .param("tiles_x", self.tiles().1)
            .param("packed_row", self.row() / 4)
            .param("chain", CHAIN)
    }

    /// The 16 products over `terms` with `row` vectors in a row.
    fn product(&self, terms: usize, row: usize) -> Launch<ValueId> {
        let lanes = lanes_for(row);
        let grid = |tile: usize| fold(ELEMENTS * row.div_ceil(lanes) * self.c_out.div_ceil(tile));
        let mut product = self
            .slice_launch("product_8x4", 0, 0..1, (0, 0))
            .param("vector_row", row)
            .param("terms", terms)
            .param("slope", 1.0);
        product.set_workgroup(lanes as u32);
        product.groups = grid(8);
        let tiles =
            [("product_80x4", 80, 8), ("product_64x4", 64, 8), ("product_32x4", 32, 8), ("product_16x4", 16, 4)];
        let mut tiles: Vec<_> =
            tiles.into_iter().filter(|(_, channels, _)| self.row_of(*channels) <= self.row()).collect();
        // The largest first, but what hangs over the edge is computed for nothing.
        tiles.sort_by_key(|(_, channels, _)| self.row_of(*channels));
        product.alternatives = tiles
            .into_iter()
            .map(|(entry, channels, lanes)| {
                let sums = 4 * channels as u32;
                Alternative { entry, groups: grid(channels), lanes, sums, memory: 0 }
            })
            .collect();
        product
    }

    /// y = x * weight. `inputs`: x, weight, the statistics of x where it is normalised on the way; `outputs`: y and
    /// [`Sizes::winograd_workspace`].
    pub(super) fn winograd(
        &self,
        inputs: &[Operand],
        outputs: &[Operand],
        mirrored: bool,
        padding: (i32, i32),
        slope: Option<f32>,
    ) -> Vec<Launch<ValueId>> {
        let [y, weights, vectors, products] = [0, 1, 2, 3].map(|i| outputs[i].id);
        let n = self.c_in * self.row() / 4;
        let pack = self
            .slice_launch("pack", n, 0..1, padding)
            .param("vector_row", 1_u32)
            .param("terms", self.c_in)
            .param("slope", 1.0)
            .constant("MIRRORED", u32::from(mirrored))
            .bind("weight", inputs[1].id)
            .bind("vectors_out", weights);
        let mut launches = vec![pack];
        for images in slices(0..self.batch, self.slice_images()) {
            let tiles = self.tiles_of(images.len());
            let row = tiles.div_ceil(4);
            let of = |entry, n| {
                self.slice_launch(entry, n, images.clone(), padding)
                    .param("vector_row", row)
                    .param("terms", self.c_in)
                    .param("slope", slope.unwrap_or(1.0))
            };
            launches.push(
                of("input", self.c_in * 4 * row)
                    .constant("NORMED", u32::from(slope.is_some()))
                    .constant("X_HALF", inputs[0].half())
                    .bind("x", inputs[0].id)
                    .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
                    .bind("y", vectors),
            );
            launches.push(
                self.product(self.c_in, row)
                    .bind("vectors", vectors)
                    .bind("packed", weights)
                    .bind("vectors_out", products),
            );
            launches.push(
                of("output", self.c_out * tiles)
                    .constant("Y_HALF", outputs[0].half())
                    .bind("products", products)
                    .bind("y", y),
            );
        }
        launches
    }

    /// The products of dw over some images; x and dy are bound from the first of them on. `outputs`: dw and
    /// [`Sizes::winograd_weight_workspace`].
    pub(super) fn winograd_weight_parts(
        &self,
        inputs: &[Operand],
        outputs: &[Operand],
        rows: Range<usize>,
        slope: Option<f32>,
    ) -> Vec<Launch<ValueId>> {
        let [vectors, upstream, products] = [1, 2, 3].map(|i| outputs[i].id);
        let padding = (self.padding as i32, self.padding as i32);
        let row = self.c_in.div_ceil(4);
        let mut launches = Vec::new();
        for images in slices(rows.clone(), self.slice_images()) {
            let tiles = self.tiles_of(images.len());
            let bound = images.start - rows.start..images.end - rows.start;
            let of = |entry, n| {
                self.slice_launch(entry, n, bound.clone(), padding)
                    .param("vector_row", row)
                    .param("terms", tiles)
                    .param("slope", slope.unwrap_or(1.0))
            };
            launches.push(
                of("input", tiles * 4 * row)
                    .constant("BY_CHANNEL", 1_u32)
                    .constant("NORMED", u32::from(slope.is_some()))
                    .constant("X_HALF", inputs[0].half())
                    .bind("x", inputs[0].id)
                    .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
                    .bind("y", vectors),
            );
            launches.push(of("upstream", tiles * self.row()).bind("dy", inputs[1].id).bind("y", upstream));
            launches.push(
                self.product(tiles, row)
                    .constant("ADD", u32::from(images.start > 0))
                    .bind("vectors", vectors)
                    .bind("packed", upstream)
                    .bind("vectors_out", products),
            );
        }
        launches
    }

    /// dw of all products.
    pub(super) fn winograd_weight_joining(&self, outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let joining = self
            .slice_launch("weight_gradient", self.c_out * self.c_in, 0..1, (0, 0))
            .param("vector_row", self.c_in.div_ceil(4))
            .param("terms", 0_u32)
            .param("slope", 1.0);
        vec![joining.bind("products", outputs[3].id).bind("y", outputs[0].id)]
    }
}

/// Ranges of `step` at most.
fn slices(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(step).map(move |first| first..(first + step).min(range.end))
}
