//! 2-D convolution without bias, and its gradients to the input and the weight.
//!
//! This file has the three operations, `geometry` their sizes, `tiles` their launches, and `winograd` other launches with
//! fewer multiplications.

use std::borrow::Cow;
use std::ops::Range;

use super::batch_norm::{activated, check_statistics};
use super::operand::{ROW, WHOLE, by_rows};
use super::rows::gcd;
use super::{ByRows, Cost, Host, Op, Operand, Operation, PartialSums, Pieces, Rewrites, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};
use geometry::Sizes;

mod cases;
mod geometry;
mod tiles;
mod winograd;

pub use cases::cases;

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

/// The shapes of x and of the input behind it, `what`; the statistics of x, where a slope asks for them, are checked.
fn x_and(op: &'static str, inputs: &[Type], what: &str, slope: Option<f32>) -> Result<[[usize; 4]; 2]> {
    let [x, other] = match slope {
        None => shape::exactly(op, inputs, ["x", what])?,
        Some(_) => {
            let [x, other, statistics] = shape::exactly(op, inputs, ["x", what, "statistics"])?;
            check_statistics(op, statistics, x)?;
            [x, other]
        }
    };
    Ok([shape::stored(op, x, "x")?, shape::floats(op, other, what)?])
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d.forward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, weight] = x_and(self.name(), inputs, "weight", self.slope)?;
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        s.check_winograd(self.name(), self.winograd)?;
        let y = Type::f32(s.y());
        Ok(if self.winograd { [vec![y], s.winograd_workspace().into()].concat() } else { vec![y, s.packed()] })
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, w) = (operand(&inputs[0], inputs.get(2), self.slope), inputs[1]);
        let s = Sizes::of(inputs[0].shape, w.shape, self.stride, self.padding);
        let mut y = vec![0.0; s.y().iter().product()];
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

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Sizes::of(inputs[0].shape, inputs[1].shape, self.stride, self.padding).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE, WHOLE], &[ROW, WHOLE])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Conv2d {
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = Sizes::of(&inputs[0].shape, &inputs[1].shape, self.stride, self.padding);
        (!self.winograd && s.gains_by_winograd()).then(|| Conv2d { winograd: true, ..self.clone() }.into())
    }

    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
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
}

/// Every image is convolved by itself.
const BY_IMAGE: Pieces = Pieces { inputs: &[Some(0), None, None], outputs: &[0] };

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
        let [dy, weight] = shape::exactly(self.name(), inputs, ["dy", "weight"])?;
        let [batch, ..] = shape::floats::<4>(self.name(), dy, "dy")?;
        let weight = shape::floats::<4>(self.name(), weight, "weight")?;
        let x = [batch, weight[1], self.h, self.w];
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        shape::same(self.name(), "dy", &dy.shape, &s.y())?;
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

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        self.sizes(inputs[0].shape, inputs[1].shape).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE, WHOLE], &[ROW, WHOLE])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Conv2dBackwardInput {
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = self.sizes(&inputs[0].shape, &inputs[1].shape);
        (!self.winograd && s.gains_by_winograd()).then(|| Conv2dBackwardInput { winograd: true, ..self.clone() }.into())
    }
}

/// dw of [`Conv2d`]. Inputs: x, dy, and with a slope the statistics of the batch norm behind x. Output: dw [c_out, c_in, k_h,
/// k_w]; workspace: the splits' sums.
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
        let [x, dy] = x_and(self.name(), inputs, "dy", self.slope)?;
        let weight = self.weight(&x, &dy);
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        shape::same(self.name(), "dy", &dy, &s.y())?;
        s.check_winograd(self.name(), self.winograd)?;
        let dw = Type::f32(weight);
        if self.winograd {
            return Ok([vec![dw], s.winograd_weight_workspace().into()].concat());
        }
        Ok(vec![dw, s.partial()])
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

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        self.sizes(inputs).cost(inputs, outputs)
    }

    fn pieces(&self) -> Option<Pieces> {
        // Every output channel has a gradient of its own.
        Some(Pieces { inputs: &[None, Some(1), None], outputs: &[0] })
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW, WHOLE], &[WHOLE, WHOLE])
    }

    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        Some(self)
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Conv2dBackwardWeight {
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let weight = self.weight(&inputs[0].shape, &inputs[1].shape);
        let s = Sizes::of(&inputs[0].shape, &weight, self.stride, self.padding);
        (!self.winograd && s.gains_by_winograd())
            .then(|| Conv2dBackwardWeight { winograd: true, ..self.clone() }.into())
    }

    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
        (index == 0 && self.slope.is_none()).then(|| Conv2dBackwardWeight { slope: Some(slope), ..self.clone() }.into())
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

impl PartialSums for Conv2dBackwardWeight {
    /// The fewest images that are whole splits.
    fn rows_per_part(&self, inputs: &[Operand]) -> usize {
        let s = self.sizes(inputs);
        if self.winograd {
            return s.slice_images();
        }
        let rows = s.splits().1;
        rows / gcd(rows as u64, s.h_out as u64) as usize
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        if self.winograd {
            return s.winograd_weight_parts(inputs, outputs, rows, self.slope);
        }
        s.weight_parts(inputs, outputs, rows, self.slope)
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        if self.winograd {
            return s.winograd_weight_joining(outputs);
        }
        s.weight_joining(outputs)
    }
}
