//! How a 3 x 3 convolution of stride 1 and its gradients are launched by Winograd's minimal filtering F(2x2, 3x3):
//! `shaders/winograd.wgsl`. The operations are those of [`super`], which hold the shape rules, twins and gradients.

use std::ops::Range;

use super::geometry::Sizes;
use super::tiles::CHAIN;
use crate::gpu::Launch;
use crate::gpu::kernel::{fold, lanes_for};
use crate::ops::Operand;
use crate::ops::tile::Tile;
use crate::tape::{Type, ValueId};

const SHADER: &str = "winograd";

/// Elements of a transformed tile, each of which is a product of its own.
const ELEMENTS: usize = 16;

/// Bytes of transformed images at a time, or as many as the transformed weights have, which every slice reads again: what
/// fits the caches of a processor.
const SLICE_BYTES: u64 = 4 << 20;

/// The fewest channels with which the products outweigh the transforms: on llvmpipe 32 to 64 channels take as long either
/// way, 64 to 64 a tenth less forward and a third less backward.
const LEAST_CHANNELS: usize = 64;

/// The most bytes of one transformed image: a slice is one at the least, and every adapter binds as much.
const MOST_IMAGE_BYTES: u64 = 64 << 20;

/// The tiles of the products, the smallest first: rows of `packed` by rows of `vectors`.
const PRODUCTS: [Tile; 5] = [
    product("product_8x4", 8, 4),
    product("product_16x4", 16, 4),
    product("product_32x4", 32, 8),
    product("product_64x4", 64, 8),
    product("product_80x4", 80, 8),
];

const fn product(entry: &'static str, down: usize, lanes: u32) -> Tile {
    Tile { entry, down, across: 4, lanes, accumulators: 4 * down as u32, memory: 0 }
}

impl Sizes {
    /// Whether the formulas hold for this convolution.
    pub(super) fn is_winograd(&self) -> bool {
        (self.k_h, self.k_w, self.stride) == (3, 3, 1)
    }

    /// Whether x and y have what their transforms read at once: 16 bytes, eight elements of half precision.
    pub(super) fn fills_vectors(&self) -> bool {
        self.batch * self.c_in * self.h_in * self.w_in >= 8 && self.batch * self.c_out * self.h_out * self.w_out >= 8
    }

    /// Whether they also save time.
    pub(super) fn gains_by_winograd(&self) -> bool {
        let channels = self.c_in.min(self.c_out);
        self.is_winograd() && channels >= LEAST_CHANNELS && self.image_bytes() <= MOST_IMAGE_BYTES
    }

    /// Bytes of one image's transformed inputs and products.
    fn image_bytes(&self) -> u64 {
        4 * ELEMENTS as u64 * self.tiles_of(1) as u64 * (self.c_in + self.c_out) as u64
    }

    /// Sizes of the products of all images.
    pub(super) fn winograd_products(&self) -> [usize; 4] {
        [ELEMENTS, self.tiles_of(self.batch), self.c_in, self.c_out]
    }

    /// Tiles of an image, down and across.
    fn tiles(&self) -> (usize, usize) {
        (self.h_out.div_ceil(2), self.w_out.div_ceil(2))
    }

    fn tiles_of(&self, images: usize) -> usize {
        images * self.tiles().0 * self.tiles().1
    }

    /// Rows of `packed` that tiles of `tile` channels read.
    fn row_of(&self, tile: usize) -> usize {
        self.c_out.next_multiple_of(tile)
    }

    /// Rows of `packed`: whole tiles of every width that wastes less than half of itself.
    fn row(&self) -> usize {
        PRODUCTS[1..].iter().map(|tile| self.row_of(tile.down)).filter(|&row| 2 * self.c_out > row).max().unwrap_or(16)
    }

    /// Images that are transformed at a time.
    pub(super) fn slice_images(&self) -> usize {
        let weights = 4 * ELEMENTS as u64 * self.c_in as u64 * self.row() as u64;
        let images = SLICE_BYTES.max(weights) / self.image_bytes();
        // No more than the batch, which is a usize.
        images.clamp(1, self.batch.max(1) as u64) as usize
    }

    /// Transformed weights [16, c_in, row], inputs [16, c_in, tiles] and products [16, c_out, tiles] of the forward
    /// convolution.
    pub(super) fn winograd_workspace(&self) -> [Type; 3] {
        let tiles = self.tiles_of(self.slice_images()).next_multiple_of(4);
        let [weights, inputs, products] = [[self.c_in, self.row()], [self.c_in, tiles], [self.c_out, tiles]];
        [weights, inputs, products].map(|[terms, row]| Type::f32([ELEMENTS, terms, row]))
    }

    /// Transformed inputs [16, tiles, c_in] and upstream gradients [16, tiles, row], and products [16, c_out, c_in] of the
    /// weight gradient.
    pub(super) fn winograd_weight_workspace(&self) -> [Type; 3] {
        let (tiles, channels) = (self.tiles_of(self.slice_images()), self.c_in.next_multiple_of(4));
        let [inputs, upstream, products] = [[tiles, channels], [tiles, self.row()], [self.c_out, channels]];
        [inputs, upstream, products].map(|[terms, row]| Type::f32([ELEMENTS, terms, row]))
    }

    /// A launch of `n` items over some of the images that are bound; a product has `terms` terms and `row` vectors per row.
    fn of_images(
        &self,
        entry: &'static str,
        n: usize,
        images: &Range<usize>,
        terms: usize,
        row: usize,
    ) -> Launch<ValueId> {
        Launch::items(SHADER, entry, n)
            .param("vector_row", row)
            .param("terms", terms)
            .param("mirrored", 0_u32)
            .param("by_channel", 0_u32)
            .param("add", 0_u32)
            .param("normed", 0_u32)
            .param("slope", 1.0)
            .param("pad_y", 0_i32)
            .param("pad_x", 0_i32)
            .param("batch", images.len())
            .param("first_image", images.start)
            .param("c_in", self.c_in)
            .param("h_in", self.h_in)
            .param("w_in", self.w_in)
            .param("c_out", self.c_out)
            .param("h_out", self.h_out)
            .param("w_out", self.w_out)
            .param("tiles_y", self.tiles().0)
            .param("tiles_x", self.tiles().1)
            .param("packed_row", self.row() / 4)
            .param("chain", CHAIN)
    }

    /// The 16 products over `terms` with `row` vectors in a row.
    fn product(&self, terms: usize, row: usize) -> Launch<ValueId> {
        let lanes = lanes_for(row);
        let grid = |tile: &Tile| fold(ELEMENTS * row.div_ceil(lanes) * self.c_out.div_ceil(tile.down));
        let [smallest, larger @ ..] = PRODUCTS;
        let mut product = self.of_images(smallest.entry, 0, &NONE, terms, row);
        product.set_divisible_workgroup(lanes as u32);
        product.groups = grid(&smallest);
        let mut tiles: Vec<_> = larger.into_iter().rev().filter(|t| self.row_of(t.down) <= self.row()).collect();
        // The largest first, but what hangs over the edge is computed for nothing.
        tiles.sort_by_key(|tile| self.row_of(tile.down));
        product.alternatives = tiles.iter().map(|tile| tile.alternative(grid(tile))).collect();
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
        let mut pack = reading(self.of_images("pack", n, &NONE, self.c_in, 0), &inputs[1]);
        pack.set("mirrored", u32::from(mirrored));
        let mut launches = vec![pack.bind("x_quads", inputs[1].id).bind("vectors_out", weights)];
        for images in slices(0..self.batch, self.slice_images()) {
            let row = self.tiles_of(images.len()).div_ceil(4);
            let of = |entry, n| self.of_images(entry, n, &images, self.c_in, row);
            let input = if self.tiles().1.is_multiple_of(4) {
                of("input_side_by_side", self.c_in * row).bind("x_quads", inputs[0].id).bind("vectors_out", vectors)
            } else {
                of("input", self.c_in * 4 * row).bind("y", vectors)
            };
            launches.push(reading_x(input, inputs, padding, slope));
            launches.push(
                self.product(self.c_in, row)
                    .bind("vectors", vectors)
                    .bind("packed", weights)
                    .bind("vectors_out", products),
            );
            let half = outputs[0].half();
            let output = if self.w_out.is_multiple_of(4) && half == 0 {
                of("output_by_four", self.c_out * row).bind("vectors_out", y)
            } else {
                of("output", self.c_out * row).constant("Y_HALF", half).bind("y", y)
            };
            launches.push(output.bind("vectors", products));
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
            let of = |entry, n| self.of_images(entry, n, &bound, tiles, row);
            let mut input = reading_x(of("input", tiles * 4 * row), inputs, padding, slope);
            input.set("by_channel", 1_u32);
            launches.push(input.bind("y", vectors));
            let even = inputs[1].is_whole() && self.w_out.is_multiple_of(2);
            let dy = reading(of("upstream", tiles * self.row() / 4), &inputs[1]).bind("x_quads", inputs[1].id);
            launches.push(dy.constant("EVEN", even).bind("vectors_out", upstream));
            let mut product = self.product(tiles, row);
            product.set("add", u32::from(images.start > 0));
            launches.push(product.bind("vectors", vectors).bind("packed", upstream).bind("vectors_out", products));
        }
        launches
    }

    /// dw of all products.
    pub(super) fn winograd_weight_joining(&self, outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let row = self.c_in.div_ceil(4);
        let of = |entry| self.of_images(entry, self.c_out * row, &NONE, 0, row).bind("vectors", outputs[3].id);
        let dw = outputs[0].id;
        vec![if self.c_in.is_multiple_of(4) {
            of("weight_gradient_by_four").bind("vectors_out", dw)
        } else {
            of("weight_gradient").bind("y", dw)
        }]
    }
}

/// The images of a launch that reads none.
const NONE: Range<usize> = 0..0;

/// A launch that reads an operand as `x`.
fn reading(launch: Launch<ValueId>, operand: &Operand) -> Launch<ValueId> {
    launch.constant("X_HALF", operand.half()).constant("WHOLE", operand.is_whole()).bind("x", operand.id)
}

/// A launch that reads x as the convolution does.
fn reading_x(launch: Launch<ValueId>, inputs: &[Operand], padding: (i32, i32), slope: Option<f32>) -> Launch<ValueId> {
    let mut launch = reading(launch, &inputs[0]);
    launch.set("pad_y", padding.0);
    launch.set("pad_x", padding.1);
    launch.set("normed", u32::from(slope.is_some()));
    launch.set("slope", slope.unwrap_or(1.0));
    launch.bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
}

/// Ranges of `step` at most.
fn slices(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(step).map(move |first| first..(first + step).min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::Algorithm;
    use crate::ops::tile::tests::agree;

    /// A shader that reads vectors cannot be given less than one.
    #[test]
    fn tensors_smaller_than_a_vector_are_refused() {
        let refused = |x: [usize; 4], padding| {
            let sizes = Sizes::of(&x, &[1, 1, 3, 3], 1, padding);
            sizes.check_algorithm("conv2d.forward", Algorithm::Winograd).is_err()
        };
        assert!(refused([1, 1, 3, 3], 0) && refused([1, 1, 1, 1], 4));
        assert!(!refused([1, 1, 2, 4], 1));
    }

    #[test]
    fn tiles_are_those_of_the_shader() {
        for shader in [SHADER, "winograd_subgroup"] {
            agree(shader, &PRODUCTS.map(|tile| (tile, 1)));
        }
    }
}
