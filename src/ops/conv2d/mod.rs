//! 2-D convolution without bias, and its gradients to the input and the weight.
//!
//! This file has the three operations, `geometry` their sizes, `tiles` their launches, `winograd` other launches with fewer
//! multiplications, and `matrix` those for units that multiply matrices.

use std::borrow::Cow;
use std::ops::Range;

use super::batch_norm::{activated, check_statistics};
use super::factors::Factors;
use super::matrix::without_scales;
use super::operand::{ROW, WHOLE, by_rows};
use super::rows::gcd;
use super::{ByMatrix, ByRows, Cost, Host, Op, Operand, Operation, PartialSums, Pieces, Rewrites, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};
use geometry::Sizes;

mod cases;
mod geometry;
mod matrix;
mod tiles;
mod winograd;

pub use cases::cases;

/// How the products of a convolution are computed. The numbers of any two differ within rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Each product once, in f32.
    #[default]
    Direct,
    /// By Winograd's minimal filtering, for 3 x 3 kernels of stride 1; the workspace is then its transforms and products.
    Winograd,
    /// By units that multiply matrices. Two further inputs, the last, are the [`Scale`](super::scale::Scale)s of x or dy and
    /// of the other factor.
    Matrix(Factors),
}

impl Algorithm {
    /// As [`Operation::algorithm`].
    fn name(self) -> Option<&'static str> {
        match self {
            Algorithm::Direct => None,
            Algorithm::Winograd => Some("Winograd"),
            Algorithm::Matrix(factors) => Some(factors.algorithm()),
        }
    }

    /// How factors are rounded, where they are.
    fn factors(self) -> Option<Factors> {
        if let Algorithm::Matrix(factors) = self { Some(factors) } else { None }
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
    /// How it is computed; its gradients, too.
    pub algorithm: Algorithm,
}

impl Conv2d {
    /// A convolution of x as it is.
    pub fn new(stride: usize, padding: usize) -> Self {
        Conv2d { stride, padding, slope: None, algorithm: Algorithm::Direct }
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
        let inputs = without_scales(self.name(), self.algorithm.factors(), inputs)?;
        let [x, weight] = x_and(self.name(), inputs, "weight", self.slope)?;
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        s.check_algorithm(self.name(), self.algorithm)?;
        Ok([vec![Type::f32(s.y())], s.workspace(self.algorithm)].concat())
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, w) = (operand(&inputs[0], inputs.get(2), self.slope), inputs[1]);
        let s = Sizes::of(inputs[0].shape, w.shape, self.stride, self.padding);
        let mut y = vec![0.0; s.y().iter().product()];
        s.each_term(|y_at, x_at, w_at| y[y_at] += x[x_at] * w.data[w_at]);
        vec![y]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        if self.slope.is_some() || self.algorithm.factors().is_some() {
            return Err(Error::Internal("a convolution is differentiated before a graph's passes rewrite it".into()));
        }
        let (Some(dy), x, weight) = (upstream[0], node.inputs[0], node.inputs[1]) else { return Ok(vec![None, None]) };
        let (stride, padding, algorithm) = (self.stride, self.padding, self.algorithm);
        let dx = if graph.value(x).requires_grad {
            let [h, w] = [graph.shape(x)[2], graph.shape(x)[3]];
            Some(graph.one(Conv2dBackwardInput { stride, padding, h, w, algorithm }, &[dy, weight])?)
        } else {
            None
        };
        let dw = if graph.value(weight).requires_grad {
            let [k_h, k_w] = [graph.shape(weight)[2], graph.shape(weight)[3]];
            let op = Conv2dBackwardWeight { stride, padding, k_h, k_w, slope: None, algorithm };
            Some(graph.one(op, &[x, dy])?)
        } else {
            None
        };
        Ok(vec![dx, dw])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = Sizes::of(inputs[0].shape, inputs[1].shape, self.stride, self.padding);
        let p = self.padding as i32;
        let stride = (self.stride, 1);
        match self.algorithm {
            Algorithm::Direct => s.convolve("pack", inputs, outputs, stride, (p, p), self.slope),
            Algorithm::Winograd => s.winograd(inputs, outputs, false, (p, p), self.slope),
            Algorithm::Matrix(factors) => {
                s.convolve_by_matrix("pack", inputs, outputs, stride, (p, p), (self.slope, factors))
            }
        }
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Sizes::of(inputs[0].shape, inputs[1].shape, self.stride, self.padding).cost(inputs, outputs, self.algorithm)
    }

    fn algorithm(&self) -> Option<&'static str> {
        self.algorithm.name()
    }

    fn factors(&self) -> Option<Factors> {
        self.algorithm.factors()
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE, WHOLE, WHOLE, WHOLE], &[ROW, WHOLE])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Conv2d {
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = Sizes::of(&inputs[0].shape, &inputs[1].shape, self.stride, self.padding);
        (self.algorithm == Algorithm::Direct && s.gains_by_winograd())
            .then(|| Conv2d { algorithm: Algorithm::Winograd, ..self.clone() }.into())
    }

    fn by_matrix(&self, inputs: &[Type], factors: Factors) -> Option<ByMatrix> {
        let s = Sizes::of(&inputs[0].shape, &inputs[1].shape, self.stride, self.padding);
        let op = || Conv2d { algorithm: Algorithm::Matrix(factors), ..self.clone() }.into();
        (self.algorithm == Algorithm::Direct).then(|| ByMatrix { op: op(), slope: self.slope, least: s.least() })
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
const BY_IMAGE: Pieces = Pieces { inputs: &[Some(0), None, None, None, None], outputs: &[0] };

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
    /// As [`Conv2d::algorithm`].
    pub algorithm: Algorithm,
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
        let inputs = without_scales(self.name(), self.algorithm.factors(), inputs)?;
        let [dy, weight] = shape::exactly(self.name(), inputs, ["dy", "weight"])?;
        let [batch, ..] = shape::floats::<4>(self.name(), dy, "dy")?;
        let weight = shape::floats::<4>(self.name(), weight, "weight")?;
        let x = [batch, weight[1], self.h, self.w];
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        shape::same(self.name(), "dy", &dy.shape, &s.y())?;
        s.check_algorithm(self.name(), self.algorithm)?;
        Ok([vec![Type::f32(x)], s.mirrored().workspace(self.algorithm)].concat())
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
        let (s, spread) = (s.mirrored(), (1, self.stride));
        match self.algorithm {
            Algorithm::Direct => s.convolve("pack_mirrored", inputs, outputs, spread, padding, None),
            Algorithm::Winograd => s.winograd(inputs, outputs, true, padding, None),
            Algorithm::Matrix(factors) => {
                s.convolve_by_matrix("pack_mirrored", inputs, outputs, spread, padding, (None, factors))
            }
        }
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        self.sizes(inputs[0].shape, inputs[1].shape).cost(inputs, outputs, self.algorithm)
    }

    fn algorithm(&self) -> Option<&'static str> {
        self.algorithm.name()
    }

    fn factors(&self) -> Option<Factors> {
        self.algorithm.factors()
    }

    fn pieces(&self) -> Option<Pieces> {
        Some(BY_IMAGE)
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE, WHOLE, WHOLE, WHOLE], &[ROW, WHOLE])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Conv2dBackwardInput {
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let s = self.sizes(&inputs[0].shape, &inputs[1].shape);
        (self.algorithm == Algorithm::Direct && s.gains_by_winograd())
            .then(|| Conv2dBackwardInput { algorithm: Algorithm::Winograd, ..self.clone() }.into())
    }

    fn by_matrix(&self, inputs: &[Type], factors: Factors) -> Option<ByMatrix> {
        let s = self.sizes(&inputs[0].shape, &inputs[1].shape).mirrored();
        let op = || Conv2dBackwardInput { algorithm: Algorithm::Matrix(factors), ..self.clone() }.into();
        (self.algorithm == Algorithm::Direct).then(|| ByMatrix { op: op(), slope: None, least: s.least() })
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
    /// As [`Conv2d::algorithm`].
    pub algorithm: Algorithm,
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
        let inputs = without_scales(self.name(), self.algorithm.factors(), inputs)?;
        let [x, dy] = x_and(self.name(), inputs, "dy", self.slope)?;
        let weight = self.weight(&x, &dy);
        let s = Sizes::new(self.name(), x, weight, self.stride, self.padding)?;
        shape::same(self.name(), "dy", &dy, &s.y())?;
        s.check_algorithm(self.name(), self.algorithm)?;
        let workspace = match self.algorithm {
            Algorithm::Winograd => s.winograd_weight_workspace().into(),
            Algorithm::Direct | Algorithm::Matrix(_) => vec![s.partial()],
        };
        Ok([vec![Type::f32(weight)], workspace].concat())
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
        self.sizes(inputs).cost(inputs, outputs, self.algorithm)
    }

    fn algorithm(&self) -> Option<&'static str> {
        self.algorithm.name()
    }

    fn factors(&self) -> Option<Factors> {
        self.algorithm.factors()
    }

    fn pieces(&self) -> Option<Pieces> {
        // Every output channel has a gradient of its own.
        Some(Pieces { inputs: &[None, Some(1), None, None, None], outputs: &[0] })
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW, WHOLE, WHOLE, WHOLE], &[WHOLE, WHOLE])
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
        (self.algorithm == Algorithm::Direct && s.gains_by_winograd())
            .then(|| Conv2dBackwardWeight { algorithm: Algorithm::Winograd, ..self.clone() }.into())
    }

    fn by_matrix(&self, inputs: &[Type], factors: Factors) -> Option<ByMatrix> {
        let weight = self.weight(&inputs[0].shape, &inputs[1].shape);
        let s = Sizes::of(&inputs[0].shape, &weight, self.stride, self.padding);
        let op = || Conv2dBackwardWeight { algorithm: Algorithm::Matrix(factors), ..self.clone() }.into();
        (self.algorithm == Algorithm::Direct).then(|| ByMatrix { op: op(), slope: self.slope, least: s.least() })
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
        if self.algorithm == Algorithm::Winograd {
            return s.slice_images();
        }
        let rows = s.splits().1;
        rows / gcd(rows as u64, s.h_out as u64) as usize
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        match self.algorithm {
            Algorithm::Direct => s.weight_parts(inputs, outputs, rows, self.slope),
            Algorithm::Winograd => s.winograd_weight_parts(inputs, outputs, rows, self.slope),
            Algorithm::Matrix(factors) => s.weight_parts_by_matrix(inputs, outputs, rows, self.slope, factors),
        }
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let s = self.sizes(inputs);
        match self.algorithm {
            Algorithm::Winograd => s.winograd_weight_joining(outputs),
            Algorithm::Direct | Algorithm::Matrix(_) => s.weight_joining(outputs),
        }
    }
}
