//! How a convolution and its weight gradient are launched: which tiles there are, which of them fit, and in which order a
//! device should prefer them. The tables are compared with the shader by a test ([`crate::ops::tile`]).

use std::ops::Range;

use super::geometry::{NARROW_TILE, Sizes};
use crate::gpu::Launch;
use crate::gpu::kernel::{Alternative, WORKGROUP, fold};
use crate::ops::Operand;
use crate::ops::tile::Tile;
use crate::tape::ValueId;

const SHADER: &str = "conv2d";

/// Terms that are summed before they join the total. Rounding then grows with the root of two short sums, not of one
/// long one. The tiles in workgroup memory are made for it: four channels of 3 x 3 taps, or 36 of one.
pub(super) const CHAIN: usize = 36;

/// The same for a weight gradient, in pixels: whole rows of runs of four. Its tiles in workgroup memory hold as many.
const WEIGHT_CHAIN: usize = 32;

/// A tile of the forward kernel that one invocation computes in registers.
const fn plain(entry: &'static str, down: usize, across: usize, lanes: u32) -> Tile {
    Tile { entry, down, across, lanes, accumulators: (down * across) as u32, memory: 0 }
}

const FORWARD_8X4: Tile = plain("forward_8x4", 8, 4, 4);
const FORWARD_16X4: Tile = plain("forward_16x4", 16, 4, 4);
const FORWARD_16X8: Tile = plain("forward_16x8", 16, 8, 4);
const FORWARD_32X4: Tile = plain("forward_32x4", 32, 4, 8);

/// Tiles of 3 x 3 kernels of stride 1 for software adapters, where x is whole vectors, with the rows of pixels that each has:
/// few output channels, and many.
const UNROLLED: [(Tile, usize); 2] =
    [(plain("forward_unrolled_16x16", 16, 16, 8), 2), (plain("forward_unrolled_32x8", 32, 8, 8), 1)];

/// The same of 1 x 1 kernels.
const UNROLLED_1X1: [Tile; 2] =
    [plain("forward_1x1_unrolled_16x16", 16, 16, 4), plain("forward_1x1_unrolled_32x8", 32, 8, 8)];

/// Tiles of 3 x 3 kernels of stride 1 in workgroup memory, with the vectors of four pixels that their patch holds.
const FORWARD_3X3: [(Tile, usize); 3] = [
    forward_3x3("forward_3x3_64x128", 64, 128, 32, 192),
    forward_3x3("forward_3x3_32x256", 32, 256, 64, 192),
    forward_3x3("forward_3x3_32x128", 32, 128, 32, 160),
];

const fn forward_3x3(
    entry: &'static str,
    down: usize,
    across: usize,
    accumulators: u32,
    patch: usize,
) -> (Tile, usize) {
    // The weights of a stage, and the patches of its four channels.
    (Tile { entry, down, across, lanes: 0, accumulators, memory: (4 * CHAIN * down + 4 * 16 * patch) as u32 }, patch)
}

const FORWARD_1X1: Tile = Tile {
    entry: "forward_1x1_32x128",
    down: 32,
    across: 128,
    lanes: 0,
    accumulators: 32,
    memory: (4 * CHAIN * (32 + 128)) as u32,
};

/// A tile of the weight gradient that one invocation computes in registers: output channels for 3 x 3 taps of one input
/// channel.
const fn weight(entry: &'static str, down: usize, lanes: u32) -> Tile {
    Tile { entry, down, across: 1, lanes, accumulators: 9 * down as u32, memory: 0 }
}

const WEIGHT_4: Tile = weight("backward_weight_4", 4, 4);
const WEIGHT_8: Tile = weight("backward_weight_8", 8, 4);
const WEIGHT_16: Tile = weight("backward_weight_16", 16, 8);

/// Vectors of four pixels in the patch of a stage of `backward_weight_3x3_...`.
const WEIGHT_PATCH: usize = 32;

const WEIGHT_3X3: [Tile; 2] =
    [weight_3x3("backward_weight_3x3_64x16", 64), weight_3x3("backward_weight_3x3_32x16", 32)];

const fn weight_3x3(entry: &'static str, down: usize) -> Tile {
    let memory = (4 * (WEIGHT_PATCH * 4 * 17 + upstream(down))) as u32;
    Tile { entry, down, across: 16, lanes: 0, accumulators: 36, memory }
}

const WEIGHT_1X1: Tile = Tile {
    entry: "backward_weight_1x1_32x80",
    down: 32,
    across: 80,
    lanes: 0,
    accumulators: 20,
    memory: (4 * (WEIGHT_CHAIN * 17 * 80 / 16 + upstream(32))) as u32,
};

/// The tile of 3 x 3 weight gradients for software adapters, where rows are runs of four pixels.
const WEIGHT_UNROLLED: Tile = weight("backward_weight_unrolled_16", 16, 8);

/// The same of 1 x 1 kernels: output channels for some input channels.
const WEIGHT_1X1_UNROLLED: Tile = plain("backward_weight_1x1_unrolled_32x4", 32, 4, 8);

/// Elements of a stage's upstream gradients: each output channel of its pixels, and a vector that spreads them over the
/// memory's banks.
const fn upstream(channels: usize) -> usize {
    WEIGHT_CHAIN * (channels + 4)
}

impl Sizes {
    /// Upper bound on the vectors of input, border included, that `runs` groups of four output pixels need.
    fn patch_vectors(&self, runs: usize) -> usize {
        let per_row = self.w_out.div_ceil(4);
        // Where the runs fill whole rows or images, they begin with one.
        let spanned = |of: usize, parts: usize| {
            if of.is_multiple_of(parts) { of / parts } else { (of - 1).div_ceil(parts) + 1 }
        };
        let rows = spanned(runs, per_row);
        let images = spanned(runs, per_row * self.h_out);
        (rows + 2 * images) * (per_row + 1)
    }

    /// The same for the output rows that backward_weight adds up at once, or for eight runs of a longer row.
    fn weight_patch_vectors(&self) -> usize {
        let runs = self.w_out.div_ceil(4);
        let rows = (8 / runs).max(1);
        let images = (rows - 1).div_ceil(self.h_out) + 1;
        (rows + 2 * images) * (runs.min(8) + 1)
    }

    /// The tiles of the forward kernels that go through workgroup memory. `dense`: the stride is 1, and x is not spread
    /// out.
    fn shared_tiles(&self, dense: bool) -> Vec<Alternative> {
        let alternative = |tile: &Tile, places: usize| tile.alternative(fold(places * self.c_out.div_ceil(tile.down)));
        match (self.k_h, self.k_w) {
            (3, 3) if dense => {
                let runs = self.batch * self.h_out * self.w_out.div_ceil(4);
                let mut tiles = FORWARD_3X3;
                if (self.c_out - 1) % 64 < 32 {
                    // Half of the last 64 channels would be computed for nothing.
                    tiles.swap(0, 1);
                }
                let fitting = tiles.iter().filter(|(tile, patch)| self.patch_vectors(tile.across / 4) <= *patch);
                fitting.map(|(tile, _)| alternative(tile, runs.div_ceil(tile.across / 4))).collect()
            }
            (1, 1) => {
                let pixels = self.batch * self.h_out * self.w_out;
                vec![alternative(&FORWARD_1X1, pixels.div_ceil(FORWARD_1X1.across))]
            }
            _ => Vec::new(),
        }
    }

    /// The tile for software adapters that fits the output channels.
    fn unrolled_tile(&self) -> Alternative {
        let (tile, rows) = UNROLLED[usize::from(self.c_out > NARROW_TILE)];
        let runs = self.batch * self.h_out.div_ceil(rows) * self.w_out.div_ceil(tile.across / rows);
        tile.alternative(fold(runs.div_ceil(WORKGROUP as usize) * self.c_out.div_ceil(tile.down)))
    }

    /// Whether y has the pixels of x, and `pixels` of them are runs of four, of which x holds whole vectors.
    fn has_runs(&self, pixels: usize, x: &Operand) -> bool {
        (self.stride, self.k_h, self.k_w) == (1, 2 * self.padding + 1, 2 * self.padding + 1)
            && pixels.is_multiple_of(4)
            && x.is_whole()
    }

    /// The same for 1 x 1 kernels.
    fn unrolled_pointwise_tile(&self) -> Alternative {
        let tile = UNROLLED_1X1[usize::from(self.c_out > NARROW_TILE)];
        let pieces = self.batch * (self.h_out * self.w_out).div_ceil(tile.across);
        tile.alternative(fold(pieces.div_ceil(WORKGROUP as usize) * self.c_out.div_ceil(tile.down)))
    }

    /// The tiles of backward_weight that go through workgroup memory.
    fn shared_weight_tiles(&self, splits: usize) -> Vec<Alternative> {
        let alternative = |tile: &Tile| {
            tile.alternative(fold(splits * self.c_out.div_ceil(tile.down) * self.c_in.div_ceil(tile.across)))
        };
        match (self.k_h, self.k_w, self.stride) {
            (3, 3, 1) if self.weight_patch_vectors() <= WEIGHT_PATCH => WEIGHT_3X3.iter().map(alternative).collect(),
            (1, 1, _) => vec![alternative(&WEIGHT_1X1)],
            _ => Vec::new(),
        }
    }

    /// A launch with every parameter. `packed_row`: vectors of output channels in a row; `chain`: what joins the total at
    /// once.
    fn launch(
        &self,
        entry: &'static str,
        n: usize,
        padding: (i32, i32),
        [packed_row, chain]: [usize; 2],
        slope: Option<f32>,
    ) -> Launch<ValueId> {
        let (splits, split_rows) = self.splits();
        let launch = Launch::items(SHADER, entry, n);
        let launch = self.params().into_iter().fold(launch, |launch, (name, size)| launch.param(name, size));
        launch
            .param("pad_y", padding.0)
            .param("pad_x", padding.1)
            .param("packed_row", packed_row)
            .param("splits", splits)
            .param("first_split", 0_u32)
            .param("split_rows", split_rows)
            .param("chain", chain)
            .param("normed", u32::from(slope.is_some()))
            .param("slope", slope.unwrap_or(1.0))
            .constant("NORMED", u32::from(slope.is_some()))
    }

    /// Launches of packing and of the convolution itself, forward or mirrored. `inputs`: x, weight, statistics of x where
    /// it is normalised on the way; `outputs`: y, packed weights.
    pub(super) fn convolve(
        &self,
        pack: &'static str,
        inputs: &[Operand],
        outputs: &[Operand],
        (stride, dilate): (usize, usize),
        padding: (i32, i32),
        slope: Option<f32>,
    ) -> Vec<Launch<ValueId>> {
        let (x, y, packed) = (inputs[0].id, outputs[0].id, outputs[1].id);
        let rows = [self.packed_row(), CHAIN.div_ceil(self.taps())];
        let grid = |tile: &Tile| {
            let runs = self.batch * self.h_out * self.w_out.div_ceil(tile.across);
            fold(runs.div_ceil(WORKGROUP as usize) * self.c_out.div_ceil(tile.down))
        };
        let mut forward = self
            .launch(FORWARD_8X4.entry, 0, padding, rows, slope)
            .constant("STRIDE", stride as u32)
            .constant("DILATE", dilate as u32)
            .constant("X_HALF", inputs[0].half())
            .constant("Y_HALF", outputs[0].half())
            .bind("x", x)
            .bind("packed", packed)
            .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
            .bind("y", y);
        forward.set_divisible_workgroup(WORKGROUP);
        forward.groups = grid(&FORWARD_8X4);
        let tile = |tile: Tile| tile.alternative(grid(&tile));
        let dense = stride == 1 && dilate == 1;
        let mut tiles = self.shared_tiles(dense);
        if dense && (self.k_h, self.k_w) == (3, 3) && inputs[0].is_whole() {
            tiles.push(self.unrolled_tile());
        }
        if dense && self.k_w == 1 && self.has_runs(self.h_out * self.w_out, &inputs[0]) {
            tiles.push(self.unrolled_pointwise_tile());
        }
        // A tile that hangs over the edge computes what is thrown away.
        if self.c_out > NARROW_TILE {
            tiles.push(tile(FORWARD_32X4));
        } else if self.w_out > 16 || self.w_out.next_multiple_of(8) == self.w_out.next_multiple_of(4) {
            tiles.push(tile(FORWARD_16X8));
        }
        if self.c_out > 8 {
            tiles.push(tile(FORWARD_16X4));
        }
        forward.alternatives = tiles;
        vec![self.packing(pack, padding, inputs[1].id, packed), forward]
    }

    /// The launch that packs the weights: `pack`, or `pack_mirrored`.
    pub(super) fn packing(
        &self,
        pack: &'static str,
        padding: (i32, i32),
        weight: ValueId,
        packed: ValueId,
    ) -> Launch<ValueId> {
        let vectors = self.c_in * self.taps() * self.packed_row();
        let launch = self.launch(pack, vectors, padding, [self.packed_row(), 0], None);
        launch.bind("weight", weight).bind("packed_out", packed)
    }

    /// Launches of the partial sums of the weight gradient over some images, to which x and dy are cut. `inputs`: x, dy,
    /// statistics of x where it is normalised on the way; `outputs`: dw, partial sums.
    pub(super) fn weight_parts(
        &self,
        inputs: &[Operand],
        outputs: &[Operand],
        images: Range<usize>,
        slope: Option<f32>,
    ) -> Vec<Launch<ValueId>> {
        let p = (self.padding as i32, self.padding as i32);
        let split_rows = self.splits().1;
        let splits = (images.len() * self.h_out).div_ceil(split_rows);
        let mut sums = self
            .launch(WEIGHT_4.entry, 0, p, [self.partial_row(), self.weight_chain()], slope)
            .constant("STRIDE", self.stride as u32)
            .constant("TAP_ROWS", if self.k_h == 1 { 1_u32 } else { 3 })
            .constant("TAP_COLUMNS", if self.k_w == 1 { 1_u32 } else { 3 })
            .constant("X_HALF", inputs[0].half())
            .bind("x", inputs[0].id)
            .bind("dy", inputs[1].id)
            .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
            .bind("packed_out", outputs[1].id);
        sums.set("batch", images.len());
        sums.set("splits", splits);
        sums.set("first_split", images.start * self.h_out / split_rows);
        sums.set_divisible_workgroup(self.columns().1 as u32);
        let grid = |tile: &Tile| fold(self.groups_per_split(tile.down) * splits);
        sums.groups = grid(&WEIGHT_4);
        sums.alternatives = self.shared_weight_tiles(splits);
        match self.k_w {
            // Lanes are input channels, four of them each: of fewer than eight most lanes have none.
            1 if self.c_out > 8 && self.c_in > 8 && self.has_runs(self.w_out, &inputs[0]) => {
                let tile = WEIGHT_1X1_UNROLLED;
                let columns = self.c_in.div_ceil(tile.across * self.columns().1);
                sums.alternatives.push(tile.alternative(fold(splits * self.c_out.div_ceil(tile.down) * columns)));
            }
            3 if self.c_out > 8 && self.has_runs(self.w_out, &inputs[0]) => {
                sums.alternatives.push(WEIGHT_UNROLLED.alternative(grid(&WEIGHT_UNROLLED)));
            }
            _ => {}
        }
        if self.c_out > 8 {
            sums.alternatives.push(WEIGHT_16.alternative(grid(&WEIGHT_16)));
        }
        if self.c_out > 4 {
            sums.alternatives.push(WEIGHT_8.alternative(grid(&WEIGHT_8)));
        }
        vec![sums]
    }

    /// The launch that adds the partial sums to dw.
    pub(super) fn weight_joining(&self, outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = self.c_out * self.c_in * self.k_h;
        let launch = self.launch("reduce", n, (0, 0), [self.partial_row(), self.weight_chain()], None);
        vec![launch.bind("partial", outputs[1].id).bind("y", outputs[0].id)]
    }

    /// Image rows whose terms join the total of a weight gradient at once.
    fn weight_chain(&self) -> usize {
        (WEIGHT_CHAIN / self.w_out.next_multiple_of(4)).max(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::gpu::shader::find;
    use crate::ops::tile::tests::{agree, constant};

    #[test]
    fn tiles_are_those_of_the_shader() {
        let forward = [FORWARD_8X4, FORWARD_16X4, FORWARD_16X8, FORWARD_32X4, FORWARD_1X1];
        let dense = FORWARD_3X3.into_iter().chain(UNROLLED).map(|(tile, _)| tile);
        let forward = forward.into_iter().chain(dense).map(|tile| (tile, 1));
        let forward = forward.chain(UNROLLED_1X1.into_iter().chain([WEIGHT_1X1_UNROLLED]).map(|tile| (tile, 1)));
        let weight =
            [WEIGHT_4, WEIGHT_8, WEIGHT_16, WEIGHT_UNROLLED].into_iter().chain(WEIGHT_3X3).map(|tile| (tile, 9));
        let tiles: Vec<_> = forward.chain(weight).chain([(WEIGHT_1X1, 1)]).collect();
        for shader in ["conv2d", "conv2d_subgroup"] {
            agree(shader, &tiles);
            let module = naga::front::wgsl::parse_str(&find(shader).unwrap().text).unwrap();
            for (tile, patch) in FORWARD_3X3 {
                assert_eq!(constant(&module, &format!("{}_PATCH", tile.entry)), Some(patch), "{}", tile.entry);
            }
            for (tile, rows) in UNROLLED {
                assert_eq!(constant(&module, &format!("{}_ROWS", tile.entry)), Some(rows), "{}", tile.entry);
            }
        }
    }

    /// What a kernel would bring for each of its tiles never exceeds what `fits`.
    #[test]
    fn no_patch_is_larger_than_foreseen() {
        for (h, w) in (1..14).flat_map(|h| [1, 2, 4, 5, 8, 10, 16, 21, 32, 33, 42, 84].map(|w| (h, w))) {
            let s = Sizes::of(&[9, 3, h, w], &[8, 3, 3, 3], 1, 1);
            let per_row = w.div_ceil(4);
            let padded = |row: usize| row + 2 * (row / h);
            let vectors = |first: usize, last: usize, pitch: usize| (padded(last) - padded(first) + 3) * pitch;
            let total = 9 * h * per_row;
            for of in [16, 32, 64] {
                let tiles = (0..total).step_by(of);
                let patches =
                    tiles.map(|first| vectors(first / per_row, (first + of - 1).min(total - 1) / per_row, per_row + 1));
                assert!(patches.max() <= Some(s.patch_vectors(of)), "{h}x{w}, {of} runs");
            }
            let rows = WEIGHT_CHAIN / w.next_multiple_of(4);
            let stages = (0..9 * h - rows.max(1)).map(|row| vectors(row, row + rows.max(1) - 1, per_row.min(8) + 1));
            assert!(stages.max() <= Some(s.weight_patch_vectors()), "{h}x{w}");
        }
    }
}
