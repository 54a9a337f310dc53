//! 2-D convolution without bias, and its gradients to the input and the weight.

use std::borrow::Cow;
use std::ops::Range;

use super::batch_norm::{activated, check_statistics};
use super::check::{Case, Fill, Input};
use super::rows::gcd;
use super::{Cost, Host, Op, Operand, Operation, Pieces, axes};
use crate::gpu::Launch;
use crate::gpu::kernel::{Alternative, WORKGROUP, fold, lanes_for};
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "conv2d";

/// Rows of packed weights and partial sums are padded to whole tiles of the widest kernels that read or write them.
const NARROW_TILE: usize = 16;
const WIDE_TILE: usize = 32;
const WEIGHT_TILE: usize = 16;

/// Terms that are summed before they join the total. Rounding then grows with the root of two short sums, not of one
/// long one. The tiles in workgroup memory are made for it: four channels of 3 x 3 taps, or 36 of one.
pub(super) const CHAIN: usize = 36;

/// The same for a weight gradient, in pixels: whole rows of runs of four. Its tiles in workgroup memory hold as many.
const WEIGHT_CHAIN: usize = 32;

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
    fn new(op: &'static str, x: &[usize], weight: &[usize], stride: usize, padding: usize) -> Result<Self> {
        let four = |shape: &[usize], what: &str| axes::<4>(op, &[Type::f32(shape)], 0, what);
        let [batch, c_in, h_in, w_in] = four(x, "x")?;
        let [c_out, c_weight, k_h, k_w] = four(weight, "weight")?;
        if c_weight != c_in {
            return Err(Error::shape(
                op,
                format!("weight has {c_weight} input channels, x has {c_in} (x: {x:?}, weight: {weight:?})"),
            ));
        }
        if stride == 0 || k_h == 0 || k_w == 0 || h_in + 2 * padding < k_h || w_in + 2 * padding < k_w {
            return Err(Error::shape(
                op,
                format!("a {k_h}x{k_w} kernel with stride {stride} and padding {padding} does not fit x {x:?}"),
            ));
        }
        let h_out = (h_in + 2 * padding - k_h) / stride + 1;
        let w_out = (w_in + 2 * padding - k_w) / stride + 1;
        Ok(Sizes { batch, c_in, h_in, w_in, c_out, h_out, w_out, k_h, k_w, stride, padding })
    }

    /// As [`Sizes::new`] after the shapes were checked.
    fn of(x: &[usize], weight: &[usize], stride: usize, padding: usize) -> Self {
        let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
        Sizes {
            batch: at(x, 0),
            c_in: at(x, 1),
            h_in: at(x, 2),
            w_in: at(x, 3),
            c_out: at(weight, 0),
            h_out: (at(x, 2) + 2 * padding - at(weight, 2)) / stride + 1,
            w_out: (at(x, 3) + 2 * padding - at(weight, 3)) / stride + 1,
            k_h: at(weight, 2),
            k_w: at(weight, 3),
            stride,
            padding,
        }
    }

    /// The convolution that computes dx from dy: channels swapped, the kernel mirrored, stride 1 over dy
    /// spread out by the stride.
    fn mirrored(&self) -> Self {
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

    fn taps(&self) -> usize {
        self.k_h * self.k_w
    }

    /// A multiply-add for every output, input channel and tap; the packed weights and partial sums are no cost
    /// of the convolution itself.
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        let outputs_n = self.batch * self.c_out * self.h_out * self.w_out;
        Cost::moving(inputs.iter().chain(&outputs[..1])).multiply_adds(outputs_n * self.c_in * self.taps())
    }

    /// Vectors of output channels in a row of packed weights: whole tiles of any width that may read them.
    fn packed_row(&self) -> usize {
        self.c_out.next_multiple_of(if self.c_out > NARROW_TILE { WIDE_TILE } else { NARROW_TILE }) / 4
    }

    /// Packed weights: a row of all output channels for each input channel and tap.
    fn packed(&self) -> Type {
        Type::f32([self.c_in * self.taps(), 4 * self.packed_row()])
    }

    /// Vectors of output channels in a row of backward_weight's partial sums.
    fn partial_row(&self) -> usize {
        self.c_out.next_multiple_of(WEIGHT_TILE) / 4
    }

    /// Workgroups along the input channels in backward_weight, and their size: no more lanes than channels.
    fn columns(&self) -> (usize, usize) {
        let lanes = lanes_for(self.c_in);
        (self.c_in.div_ceil(lanes), lanes)
    }

    /// The most vectors of four pixels in the patch, with its border, under so many runs of four neighbouring pixels.
    fn patch_vectors(&self, runs: usize) -> usize {
        let per_row = self.w_out.div_ceil(4);
        // Where so many fill whole rows or images, they begin with one.
        let spanned = |of: usize, parts: usize| {
            if of.is_multiple_of(parts) { of / parts } else { (of - 1).div_ceil(parts) + 1 }
        };
        let rows = spanned(runs, per_row);
        let images = spanned(runs, per_row * self.h_out);
        (rows + 2 * images) * (per_row + 1)
    }

    /// The same under the output rows that backward_weight adds up at once, or under eight runs of a longer row.
    fn weight_patch_vectors(&self) -> usize {
        let runs = self.w_out.div_ceil(4);
        let rows = (8 / runs).max(1);
        let images = (rows - 1).div_ceil(self.h_out) + 1;
        (rows + 2 * images) * (runs.min(8) + 1)
    }

    /// Independent pieces of work in one split of backward_weight.
    fn groups_per_split(&self, tile: usize) -> usize {
        self.columns().0 * self.c_out.div_ceil(tile) * self.k_h.div_ceil(3) * self.k_w.div_ceil(3)
    }

    /// Parts of batch x h_out that backward_weight sums separately, and rows of a part: enough workgroups to fill a
    /// device, sums of 4096 terms at most for accuracy and of 256 at least to be worth their own result, and no more
    /// partial sums than 64 MiB hold.
    fn splits(&self) -> (usize, usize) {
        let rows = self.batch * self.h_out;
        let weight_bytes = 16 * self.partial_row() * self.c_in * self.taps();
        let room = ((64 << 20) / weight_bytes).max(1);
        let terms = rows * self.w_out;
        let wanted =
            (1024 / self.groups_per_split(8)).clamp(terms.div_ceil(4096), terms.div_ceil(256)).min(room).min(rows);
        let split_rows = rows.div_ceil(wanted);
        (rows.div_ceil(split_rows), split_rows)
    }

    /// The tiles of the forward kernels that go through workgroup memory: output channels x pixels of a workgroup.
    /// `dense`: the stride is 1, and x is not spread out.
    fn shared_tiles(&self, dense: bool) -> Vec<Alternative> {
        let tile = |entry, channels: usize, items: usize, of: usize, sums, memory: usize| {
            let groups = fold(items.div_ceil(of) * self.c_out.div_ceil(channels));
            Alternative { entry, groups, lanes: 0, accumulators: sums, memory: (4 * CHAIN * channels + memory) as u32 }
        };
        match (self.k_h, self.k_w) {
            (3, 3) if dense => {
                let runs = self.batch * self.h_out * self.w_out.div_ceil(4);
                let patch = |entry, channels, of, sums, room| {
                    let fits = self.patch_vectors(of) <= room;
                    fits.then(|| tile(entry, channels, runs, of, sums, 4 * 16 * room))
                };
                let mut tiles = [
                    patch("forward_3x3_64x128", 64, 32, 32, 192),
                    patch("forward_3x3_32x256", 32, 64, 64, 192),
                    patch("forward_3x3_32x128", 32, 32, 32, 160),
                ];
                if (self.c_out - 1) % 64 < 32 {
                    // Half of the last 64 channels would be computed for nothing.
                    tiles.swap(0, 1);
                }
                tiles.into_iter().flatten().collect()
            }
            (1, 1) => {
                let pixels = self.batch * self.h_out * self.w_out;
                vec![tile("forward_1x1_32x128", 32, pixels, 128, 32, 4 * CHAIN * 128)]
            }
            _ => Vec::new(),
        }
    }

    /// The tiles of backward_weight that go through workgroup memory: output x input channels of a workgroup.
    fn shared_weight_tiles(&self, splits: usize) -> Vec<Alternative> {
        let tile = |entry, [outputs, inputs]: [usize; 2], sums, memory| {
            let groups = fold(splits * self.c_out.div_ceil(outputs) * self.c_in.div_ceil(inputs));
            Alternative { entry, groups, lanes: 0, accumulators: sums, memory }
        };
        // Elements of a stage: of the 32 pixels each output channel, and a vector in 16 that spreads them over the banks.
        let upstream = |outputs: usize| 32 * (outputs + 4);
        match (self.k_h, self.k_w, self.stride) {
            (3, 3, 1) if self.weight_patch_vectors() <= 32 => {
                let memory = |outputs| 4 * (32 * 4 * 17 + upstream(outputs)) as u32;
                vec![
                    tile("backward_weight_3x3_64x16", [64, 16], 36, memory(64)),
                    tile("backward_weight_3x3_32x16", [32, 16], 36, memory(32)),
                ]
            }
            (1, 1, _) => {
                let memory = 4 * (32 * 17 * 80 / 16 + upstream(32)) as u32;
                vec![tile("backward_weight_1x1_32x80", [32, 80], 20, memory)]
            }
            _ => Vec::new(),
        }
    }

    fn launch(&self, entry: &'static str, n: usize, padding: (i32, i32), slope: Option<f32>) -> Launch<ValueId> {
        let (splits, split_rows) = self.splits();
        let forward = !(entry.starts_with("backward_weight") || entry == "reduce");
        let rows = (WEIGHT_CHAIN / self.w_out.next_multiple_of(4)).max(1);
        let chain = if forward { CHAIN.div_ceil(self.taps()) } else { rows };
        Launch::items(SHADER, entry, n)
            .param("batch", self.batch)
            .param("c_in", self.c_in)
            .param("h_in", self.h_in)
            .param("w_in", self.w_in)
            .param("c_out", self.c_out)
            .param("h_out", self.h_out)
            .param("w_out", self.w_out)
            .param("k_h", self.k_h)
            .param("k_w", self.k_w)
            .param("pad_y", padding.0)
            .param("pad_x", padding.1)
            .param("packed_row", if forward { self.packed_row() } else { self.partial_row() })
            .param("splits", splits)
            .param("first_split", 0_u32)
            .param("split_rows", split_rows)
            .param("columns", self.columns().0)
            .param("chain", chain)
            .param("slope", slope.unwrap_or(1.0))
            .constant("NORMED", u32::from(slope.is_some()))
    }

    /// Packing and the convolution itself, forward or mirrored. `inputs`: x, weight, statistics of x where it is
    /// normalised on the way; `outputs`: y, packed weights.
    fn convolve(
        &self,
        pack: &'static str,
        inputs: &[Operand],
        outputs: &[Operand],
        (stride, dilate): (usize, usize),
        padding: (i32, i32),
        slope: Option<f32>,
    ) -> Vec<Launch<ValueId>> {
        let (x, weight, y, packed) = (inputs[0].id, inputs[1].id, outputs[0].id, outputs[1].id);
        let vectors = self.c_in * self.taps() * self.packed_row();
        let grid = |tile: usize, pixels: usize| {
            let runs = self.batch * self.h_out * self.w_out.div_ceil(pixels);
            fold(runs.div_ceil(WORKGROUP as usize) * self.c_out.div_ceil(tile))
        };
        let mut forward = self
            .launch("forward_8x4", 0, padding, slope)
            .constant("STRIDE", stride as u32)
            .constant("DILATE", dilate as u32)
            .constant("X_HALF", inputs[0].half())
            .constant("Y_HALF", outputs[0].half())
            .bind("x", x)
            .bind("packed", packed)
            .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
            .bind("y", y);
        forward.groups = grid(8, 4);
        let tile = |entry, channels: usize, pixels: usize, lanes| {
            let sums = (channels * pixels) as u32;
            Alternative { entry, groups: grid(channels, pixels), lanes, accumulators: sums, memory: 0 }
        };
        let mut tiles = self.shared_tiles(stride == 1 && dilate == 1);
        // A tile that hangs over the edge computes what is thrown away.
        if self.c_out > NARROW_TILE {
            tiles.push(tile("forward_32x4", 32, 4, 8));
        } else if self.w_out > 16 || self.w_out.next_multiple_of(8) == self.w_out.next_multiple_of(4) {
            tiles.push(tile("forward_16x8", 16, 8, 4));
        }
        if self.c_out > 8 {
            tiles.push(tile("forward_16x4", 16, 4, 4));
        }
        forward.alternatives = tiles;
        let pack = self.launch(pack, vectors, padding, None).bind("weight", weight).bind("packed_out", packed);
        vec![pack, forward]
    }
}

/// y = x * weight. Inputs: x [n, c_in, h, w], weight [c_out, c_in, k_h, k_w], and with a slope the statistics of the
/// batch norm behind x. Output: y [n, c_out, h', w'] with h' = (h + 2 padding - k_h) / stride + 1; workspace: packed
/// weights.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// Step of the window, equal on both axes.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
    /// Convolve not x but its batch norm and the LeakyReLU of this slope behind it.
    pub slope: Option<f32>,
    /// By Winograd's minimal filtering, its gradients, too; the workspace is then its transforms and products.
    pub winograd: bool,
}

impl Conv2d {
    /// A convolution of x as it is.
    pub fn new(stride: usize, padding: usize) -> Self {
        Conv2d { stride, padding, slope: None, winograd: false }
    }
}

/// x, or what its batch norm and LeakyReLU make of it.
fn operand<'a>(x: &Host<'a>, statistics: Option<&Host>, slope: Option<f32>) -> Cow<'a, [f64]> {
    match (statistics, slope) {
        (Some(statistics), Some(slope)) => activated(x, statistics.data, slope).into(),
        _ => x.data.into(),
    }
}

/// Splits the inputs into two and the statistics that a slope asks for.
fn two_and_statistics<'t>(op: &'static str, inputs: &'t [Type], slope: Option<f32>) -> Result<[&'t Type; 2]> {
    match (inputs, slope) {
        ([a, b], None) => Ok([a, b]),
        ([a, b, statistics], Some(_)) => check_statistics(op, statistics, a).map(|()| [a, b]),
        _ => Err(Error::shape(op, "wants two tensors, and the statistics of the first where that is normalised")),
    }
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d.forward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, weight] = two_and_statistics(self.name(), inputs, self.slope)?;
        let s = Sizes::new(self.name(), &x.shape, &weight.shape, self.stride, self.padding)?;
        s.check_winograd(self.name(), self.winograd)?;
        let y = Type::f32([s.batch, s.c_out, s.h_out, s.w_out]);
        Ok(if self.winograd { [vec![y], s.winograd_workspace().into()].concat() } else { vec![y, s.packed()] })
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, w) = (operand(&inputs[0], inputs.get(2), self.slope), inputs[1]);
        let s = Sizes::of(inputs[0].shape, w.shape, self.stride, self.padding);
        let mut y = vec![0.0; s.batch * s.c_out * s.h_out * s.w_out];
        s.each_term(|y_at, x_at, w_at| y[y_at] += x[x_at] * w.data[w_at]);
        vec![y]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        if self.slope.is_some() {
            return Err(Error::Internal("a convolution that normalises its input is differentiated before".into()));
        }
        let (Some(dy), x, weight) = (upstream[0], node.inputs[0], node.inputs[1]) else { return Ok(vec![None, None]) };
        let (stride, padding, winograd) = (self.stride, self.padding, self.winograd);
        let dx = if graph.value(x).requires_grad {
            let [h, w] = [graph.shape(x)[2], graph.shape(x)[3]];
            Some(graph.one(Conv2dBackwardInput { stride, padding, h, w, winograd }, &[dy, weight])?)
        } else {
            None
        };
        let dw = if graph.value(weight).requires_grad {
            let [k_h, k_w] = [graph.shape(weight)[2], graph.shape(weight)[3]];
            let op = Conv2dBackwardWeight { stride, padding, k_h, k_w, slope: None, winograd };
            Some(graph.one(op, &[x, dy])?)
        } else {
            None
        };
        Ok(vec![dx, dw])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape, inputs[1].shape, self.stride, self.padding);
        let p = self.padding as i32;
        if self.winograd {
            return s.winograd(inputs, outputs, false, (p, p), self.slope);
        }
        s.convolve("pack", inputs, outputs, (self.stride, 1), (p, p), self.slope)
    }

    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = Sizes::of(&inputs[0].shape, &inputs[1].shape, self.stride, self.padding);
        (!self.winograd && s.gains_by_winograd()).then(|| Conv2d { winograd: true, ..self.clone() }.into())
    }

    fn absorbing(&self, index: usize, slope: f32) -> Option<Op> {
        (index == 0 && self.slope.is_none()).then(|| Conv2d { slope: Some(slope), ..self.clone() }.into())
    }

    fn recomputable(&self) -> bool {
        true
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }

    fn writes_half(&self) -> bool {
        true
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Sizes::of(inputs[0].shape, inputs[1].shape, self.stride, self.padding).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }
}

/// Every image is convolved by itself.
const BY_IMAGE: Pieces = Pieces { inputs: &[Some(0), None, None], outputs: &[0] };

impl Sizes {
    /// Calls `f(y, x, w)` with the positions of every term of the sum: the definition, for the twins.
    fn each_term(&self, mut f: impl FnMut(usize, usize, usize)) {
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

/// dx of [`Conv2d`]. Inputs: dy, weight. Output: dx [n, c_in, h, w]; workspace: mirrored packed weights.
#[derive(Clone, Debug)]
pub struct Conv2dBackwardInput {
    /// Step of the forward window.
    pub stride: usize,
    /// Zeros on every side of the forward input.
    pub padding: usize,
    /// Height of x.
    pub h: usize,
    /// Width of x.
    pub w: usize,
    /// As [`Conv2d::winograd`].
    pub winograd: bool,
}

impl Conv2dBackwardInput {
    fn sizes(&self, dy: &[usize], weight: &[usize]) -> Sizes {
        let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
        Sizes::of(&[at(dy, 0), at(weight, 1), self.h, self.w], weight, self.stride, self.padding)
    }
}

impl Operation for Conv2dBackwardInput {
    fn name(&self) -> &'static str {
        "conv2d.backward_input"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [dy, weight] = inputs else { return Err(Error::shape(self.name(), "wants dy and weight")) };
        axes::<4>(self.name(), inputs, 0, "dy")?;
        let [_, c_in, _, _] = axes::<4>(self.name(), inputs, 1, "weight")?;
        let x = [dy.shape[0], c_in, self.h, self.w];
        let s = Sizes::new(self.name(), &x, &weight.shape, self.stride, self.padding)?;
        super::same(self.name(), "dy", &dy.shape, &[s.batch, s.c_out, s.h_out, s.w_out])?;
        s.check_winograd(self.name(), self.winograd)?;
        let dx = Type::f32(x);
        let s = s.mirrored();
        Ok(if self.winograd { [vec![dx], s.winograd_workspace().into()].concat() } else { vec![dx, s.packed()] })
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (dy, w) = (inputs[0], inputs[1]);
        let s = self.sizes(dy.shape, w.shape);
        let mut dx = vec![0.0; s.batch * s.c_in * s.h_in * s.w_in];
        s.each_term(|y_at, x_at, w_at| dx[x_at] += dy.data[y_at] * w.data[w_at]);
        vec![dx]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs[0].shape, inputs[1].shape);
        let padding = (s.k_h as i32 - 1 - self.padding as i32, s.k_w as i32 - 1 - self.padding as i32);
        if self.winograd {
            return s.mirrored().winograd(inputs, outputs, true, padding, None);
        }
        s.mirrored().convolve("pack_mirrored", inputs, outputs, (1, self.stride), padding, None)
    }

    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = self.sizes(&inputs[0].shape, &inputs[1].shape);
        (!self.winograd && s.gains_by_winograd()).then(|| Conv2dBackwardInput { winograd: true, ..self.clone() }.into())
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        self.sizes(inputs[0].shape, inputs[1].shape).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }
}

/// dw of [`Conv2d`]. Inputs: x, dy, and with a slope the statistics of the batch norm behind x. Output: dw [c_out, c_in, k_h, k_w]; workspace: the splits' sums.
#[derive(Clone, Debug)]
pub struct Conv2dBackwardWeight {
    /// Step of the forward window.
    pub stride: usize,
    /// Zeros on every side of x.
    pub padding: usize,
    /// Height of the kernel.
    pub k_h: usize,
    /// Width of the kernel.
    pub k_w: usize,
    /// x is not the input itself but its batch norm and the LeakyReLU of this slope behind it are.
    pub slope: Option<f32>,
    /// As [`Conv2d::winograd`].
    pub winograd: bool,
}

impl Conv2dBackwardWeight {
    fn weight(&self, x: &[usize], dy: &[usize]) -> [usize; 4] {
        [dy.get(1).copied().unwrap_or(1), x.get(1).copied().unwrap_or(1), self.k_h, self.k_w]
    }

    fn sizes(&self, inputs: &[Operand]) -> Sizes {
        let weight = self.weight(inputs[0].shape, inputs[1].shape);
        Sizes::of(inputs[0].shape, &weight, self.stride, self.padding)
    }
}

impl Operation for Conv2dBackwardWeight {
    fn name(&self) -> &'static str {
        "conv2d.backward_weight"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, dy] = two_and_statistics(self.name(), inputs, self.slope)?;
        let weight = self.weight(&x.shape, &dy.shape);
        let s = Sizes::new(self.name(), &x.shape, &weight, self.stride, self.padding)?;
        super::same(self.name(), "dy", &dy.shape, &[s.batch, s.c_out, s.h_out, s.w_out])?;
        s.check_winograd(self.name(), self.winograd)?;
        let dw = Type::f32(weight);
        if self.winograd {
            return Ok([vec![dw], s.winograd_weight_workspace().into()].concat());
        }
        Ok(vec![dw, Type::f32([s.splits().0, s.taps() * s.c_in, 4 * s.partial_row()])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, dy) = (operand(&inputs[0], inputs.get(2), self.slope), inputs[1]);
        let weight = self.weight(inputs[0].shape, dy.shape);
        let mut dw = vec![0.0; weight.iter().product()];
        let s = Sizes::of(inputs[0].shape, &weight, self.stride, self.padding);
        s.each_term(|y_at, x_at, w_at| dw[w_at] += x[x_at] * dy.data[y_at]);
        vec![dw]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let batch = self.sizes(inputs).batch;
        [self.part_launches(inputs, outputs, 0..batch), self.joining_launches(inputs, outputs)].concat()
    }

    /// The fewest images that are whole splits.
    fn part_rows(&self, inputs: &[Operand]) -> Option<usize> {
        let s = self.sizes(inputs);
        if self.winograd {
            return Some(s.slice_images());
        }
        let rows = s.splits().1;
        Some(rows / gcd(rows as u64, s.h_out as u64) as usize)
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        if self.winograd {
            return s.winograd_weight_parts(inputs, outputs, rows, self.slope);
        }
        let p = (self.padding as i32, self.padding as i32);
        let split_rows = s.splits().1;
        let splits = (rows.len() * s.h_out).div_ceil(split_rows);
        let mut sums = s
            .launch("backward_weight_4", 0, p, self.slope)
            .constant("STRIDE", self.stride as u32)
            .constant("TAP_ROWS", if self.k_h == 1 { 1_u32 } else { 3 })
            .constant("TAP_COLUMNS", if self.k_w == 1 { 1_u32 } else { 3 })
            .constant("X_HALF", inputs[0].half())
            .bind("x", inputs[0].id)
            .bind("dy", inputs[1].id)
            .bind("statistics", inputs.get(2).unwrap_or(&inputs[0]).id)
            .bind("packed_out", outputs[1].id);
        sums.set("batch", rows.len());
        sums.set("splits", splits);
        sums.set("first_split", rows.start * s.h_out / split_rows);
        sums.set_workgroup(s.columns().1 as u32);
        let grid = |tile: usize| fold(s.groups_per_split(tile) * splits);
        sums.groups = grid(4);
        let tile = |entry, channels, lanes| {
            let sums = 9 * channels as u32;
            Alternative { entry, groups: grid(channels), lanes, accumulators: sums, memory: 0 }
        };
        sums.alternatives = s.shared_weight_tiles(splits);
        if s.c_out > 8 {
            sums.alternatives.push(tile("backward_weight_16", 16, 8));
        }
        if s.c_out > 4 {
            sums.alternatives.push(tile("backward_weight_8", 8, 4));
        }
        vec![sums]
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        if self.winograd {
            return s.winograd_weight_joining(outputs);
        }
        let n = s.c_out * s.c_in * s.k_h;
        vec![s.launch("reduce", n, (0, 0), None).bind("partial", outputs[1].id).bind("y", outputs[0].id)]
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }

    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let weight = self.weight(&inputs[0].shape, &inputs[1].shape);
        let s = Sizes::of(&inputs[0].shape, &weight, self.stride, self.padding);
        (!self.winograd && s.gains_by_winograd())
            .then(|| Conv2dBackwardWeight { winograd: true, ..self.clone() }.into())
    }

    fn absorbing(&self, index: usize, slope: f32) -> Option<Op> {
        (index == 0 && self.slope.is_none()).then(|| Conv2dBackwardWeight { slope: Some(slope), ..self.clone() }.into())
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        self.sizes(inputs).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        // Every output channel has a gradient of its own.
        Some(Pieces { inputs: &[None, Some(1), None], outputs: &[0] })
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    // batch, c_in, h, w, c_out, k_h, k_w, stride, padding
    [
        (1, 1, 1, 1, 1, 1, 1, 1, 0),
        (2, 3, 8, 8, 16, 3, 3, 1, 1),
        (3, 5, 7, 9, 6, 3, 3, 1, 1),
        (2, 8, 21, 21, 16, 1, 1, 1, 0),
        (2, 6, 15, 15, 10, 3, 3, 2, 1),
        (1, 17, 5, 5, 33, 3, 3, 1, 1),
        (2, 7, 1, 1, 9, 3, 3, 1, 1),
        (2, 10, 9, 9, 7, 1, 1, 2, 0),
        (2, 4, 11, 6, 5, 5, 5, 1, 2),
        (2, 3, 10, 13, 4, 2, 4, 3, 1),
        (1, 2, 6, 6, 3, 3, 3, 1, 0),
        (1, 2, 7, 5, 3, 1, 3, 1, 1),
        (2, 70, 4, 4, 20, 3, 3, 1, 1),
        (1, 3, 9, 9, 2, 7, 7, 2, 3),
        (1, 1, 4, 4, 1, 2, 2, 1, 2),
        (5, 16, 28, 28, 16, 3, 3, 1, 1),
        // By Winograd it takes two slices.
        (3, 1, 80, 80, 15, 3, 3, 1, 1),
    ]
    .into_iter()
    .flat_map(|(n, c, h, w, o, k_h, k_w, stride, padding)| {
        let what = format!("x {n}x{c}x{h}x{w}, weight {o}x{c}x{k_h}x{k_w}, stride {stride}, padding {padding}");
        let (h_out, w_out) = ((h + 2 * padding - k_h) / stride + 1, (w + 2 * padding - k_w) / stride + 1);
        let given = |shape: &[usize]| Input::constant(shape.to_vec(), Fill::Normal(0.2, 1.0));
        let (x, statistics) = (given(&[n, c, h, w]), given(&[5, c]));
        let slope = Some(0.1);
        let weight_inputs = vec![x.clone(), given(&[n, o, h_out, w_out]), statistics.clone()];
        let inputs = vec![x, given(&[o, c, k_h, k_w]), statistics];
        let plain = vec![Input::normal([n, c, h, w]), Input::normal([o, c, k_h, k_w])];
        let mut cases = Vec::new();
        for winograd in [false, true] {
            if winograd && (k_h, k_w, stride) != (3, 3, 1) {
                continue;
            }
            let what = if winograd { format!("by Winograd, {what}") } else { what.clone() };
            let op = Conv2d { winograd, ..Conv2d::new(stride, padding) };
            let normed = Conv2d { slope, ..op.clone() };
            let normed = Case::new(format!("normalised {what}"), normed, inputs.clone());
            let weight = Conv2dBackwardWeight { stride, padding, k_h, k_w, slope, winograd };
            let weight = Case::new(format!("normalised {what}"), weight, weight_inputs.clone());
            // Rows of an odd length are not stored in half precision.
            let halved = |case: &Case| {
                let mut case = case.clone();
                case.inputs[0] = case.inputs[0].clone().half();
                case.name += ", x in half precision";
                case
            };
            let half = w.is_multiple_of(2).then(|| [halved(&normed), halved(&weight)]);
            if w_out.is_multiple_of(2) {
                let y = half.as_ref().map_or(&normed, |[normed, _]| normed).clone().into_half();
                cases.push(Case { name: format!("{}, y in half precision", y.name), ..y });
            }
            cases.extend([Case::new(what, op, plain.clone()), normed, weight]);
            cases.extend(half.into_iter().flatten());
        }
        cases
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
