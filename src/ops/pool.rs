//! 2x2 max pooling, with the sum and LeakyReLU at the end of a block, and global average pooling of NCHW images.

use super::batch_norm::{activated, check_statistics};
use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::{ByRows, Host, Op, Operand, Operation, Rewrites, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "pool";

/// Planes, height and width of an NCHW shape.
fn planes(x: &[usize]) -> (usize, usize, usize) {
    let at = |i: usize| x.get(i).copied().unwrap_or(1);
    (at(0) * at(1), at(2), at(3))
}

fn launch(entry: &'static str, n: usize, height: usize, width: usize) -> Launch<ValueId> {
    Launch::items(SHADER, entry, n)
        .param("height", height)
        .param("width", width)
        .param("out_height", height / 2)
        .param("out_width", width / 2)
}

fn mean_launch(entry: &'static str, n: usize, height: usize, width: usize) -> Launch<ValueId> {
    launch(entry, n, height, width).param("channels", 1_u32).param("slope", 1.0_f32)
}

/// The position in a plane of the first maximum of the window at (row, column).
fn first_maximum(x: &[f64], plane: usize, width: usize, row: usize, column: usize) -> usize {
    let at = plane + 2 * row * width + 2 * column;
    let mut best = at;
    for candidate in [at + 1, at + width, at + width + 1] {
        // The first NaN wins and stays.
        if !x[best].is_nan() && !(x[candidate] <= x[best]) {
            best = candidate;
        }
    }
    best
}

const WANTED: &str = "wants one or two images and the statistics of those that are normalised";

/// What is pooled: v = leaky_relu(x), or of x + x2 at the end of a residual block.
///
/// Inputs: x and maybe x2, then for each that is `normed` the statistics of the batch norm behind it.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// Slope of the LeakyReLU; 1 for none.
    pub slope: f32,
    /// Whether x, x2 are given before their batch norms.
    pub normed: [bool; 2],
}

impl Pooled {
    /// Operands and statistics among `inputs`: one of the former or two, as many of the latter as are normed.
    fn split<'i, T>(&self, inputs: &'i [T]) -> (&'i [T], [Option<&'i T>; 2]) {
        let (operands, statistics) = inputs.split_at(self.operands(inputs.len()));
        let mut rest = statistics.iter();
        (operands, self.normed.map(|normed| if normed { rest.next() } else { None }))
    }

    /// Operands among `inputs` inputs: one or two.
    fn operands(&self, inputs: usize) -> usize {
        inputs.saturating_sub(self.normed.iter().filter(|n| **n).count())
    }

    fn check(&self, op: &'static str, inputs: &[Type]) -> Result<[usize; 4]> {
        let (operands, statistics) = self.split(inputs);
        let [x, ..] = operands else { return Err(Error::shape(op, WANTED)) };
        if operands.len() > 2 || (self.normed[1] && operands.len() < 2) {
            return Err(Error::shape(op, WANTED));
        }
        let sizes = shape::stored::<4>(op, x, "x")?;
        for (operand, statistics) in operands.iter().zip(statistics) {
            shape::stored::<4>(op, operand, "x")?;
            shape::same(op, "the second image", &operand.shape, &sizes)?;
            statistics.map_or(Ok(()), |s| check_statistics(op, s, operand))?;
        }
        Ok(sizes)
    }

    /// u of every element.
    fn sum(&self, inputs: &[Host]) -> Vec<f64> {
        let (operands, statistics) = self.split(inputs);
        let mut sum = vec![0.0; operands[0].data.len()];
        for (operand, statistics) in operands.iter().zip(statistics) {
            let value = statistics.map_or_else(|| operand.data.to_vec(), |s| activated(operand, s.data, 1.0));
            sum.iter_mut().zip(value).for_each(|(s, v)| *s += v);
        }
        sum
    }

    fn leaky(&self, u: f64) -> f64 {
        if u > 0.0 { u } else { f64::from(self.slope) * u }
    }

    /// Over planes of `rows` rows of windows: by `by_four` where the rows and images of x are whole vectors, else by `entry` with
    /// `across` windows in a row.
    fn launch(
        &self,
        [entry, by_four]: [&'static str; 2],
        rows: usize,
        across: usize,
        inputs: &[Operand],
    ) -> Launch<ValueId> {
        let (operands, statistics) = self.split(inputs);
        let (planes, h, w) = planes(operands[0].shape);
        // By what an image has, so that every part of the batch is done in the same way.
        let image = operands[0].shape[1] * h * w;
        let is_whole = w.is_multiple_of(4) && operands.iter().all(|x| image.is_multiple_of(4 << x.half()));
        let (entry, across) = if is_whole { (by_four, w / 4) } else { (entry, across) };
        let (first, second) = (operands[0].id, operands.last().map_or(operands[0].id, |o| o.id));
        // What is not there is not read; something must be bound.
        let statistics = statistics.map(|s| s.map_or(first, |s| s.id));
        launch(entry, planes * rows * across, h, w)
            .param("channels", operands[0].shape[1])
            .param("slope", self.slope)
            .constant("TWO", u32::from(operands.len() == 2))
            .constant("X_HALF", operands[0].half())
            .constant("X2_HALF", operands[operands.len() - 1].half())
            .constant("NORMED", u32::from(self.normed[0]))
            .constant("NORMED2", u32::from(self.normed[1]))
            .bind("x", first)
            .bind("x2", second)
            .bind("statistics", statistics[0])
            .bind("statistics2", statistics[1])
    }

    /// As [`Rewrites::with_fused_norm`]: the statistics of x come before those of x2.
    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Pooled> {
        let mut normed = self.normed;
        let free = slope == 1.0 && index < 2 && !normed[index] && !(index == 0 && normed[1]);
        free.then(|| {
            normed[index] = true;
            Pooled { normed, ..self.clone() }
        })
    }
}

/// Maximum over 2x2 windows, stride 2; an odd last row or column is left out. Inputs: as [`Pooled`] says,
/// x `[n,c,h,w]`. Output: [n,c,h/2,w/2].
#[derive(Clone, Debug)]
pub struct MaxPool(pub Pooled);

impl MaxPool {
    /// Of one image, or of the sum of two, behind a LeakyReLU; slope 1 for none.
    pub fn new(slope: f32) -> Self {
        MaxPool(Pooled { slope, normed: [false; 2] })
    }
}

impl Operation for MaxPool {
    fn name(&self) -> &'static str {
        "pool.max"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [n, c, h, w] = self.0.check(self.name(), inputs)?;
        if h < 2 || w < 2 {
            return Err(Error::shape(
                self.name(),
                format!("x is {h}x{w}, smaller than its 2x2 window; the images are too small for this backbone"),
            ));
        }
        Ok(vec![Type::f32([n, c, h / 2, w / 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let v: Vec<f64> = self.0.sum(inputs).into_iter().map(|u| self.0.leaky(u)).collect();
        let (planes, h, w) = planes(inputs[0].shape);
        let mut y = Vec::new();
        for p in 0..planes {
            for i in 0..h / 2 {
                for j in 0..w / 2 {
                    y.push(v[first_maximum(&v, p * h * w, w, i, j)]);
                }
            }
        }
        vec![y]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None; node.inputs.len()]) };
        if self.0.normed != [false; 2] {
            return Err(Error::Internal("a pooling that normalises its input is differentiated before".into()));
        }
        // The choice is recomputed from x: keeping it would cost a map as large as the output. Both terms of a sum
        // have the same gradient.
        let inputs: Vec<ValueId> = [dy].into_iter().chain(node.inputs.iter().copied()).collect();
        Ok(vec![Some(graph.one(MaxPoolBackward(self.0.clone()), &inputs)?); node.inputs.len()])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (_, h, w) = planes(inputs[0].shape);
        vec![self.0.launch(["max_2x2", "max_2x2_by_four"], h / 2, w / 2, inputs).bind("y", outputs[0].id)]
    }

    fn by_rows(&self, inputs: usize) -> Option<ByRows> {
        // One image or two, then the statistics.
        let inputs: &[bool] = if self.0.operands(inputs) == 1 { &[ROW, WHOLE] } else { &[ROW, ROW, WHOLE, WHOLE] };
        by_rows(inputs, &[ROW])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for MaxPool {
    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
        self.0.with_fused_norm(index, slope).map(|pooled| MaxPool(pooled).into())
    }

    fn reads_half(&self, index: usize) -> bool {
        index < 2
    }
}

/// du of [`MaxPool`]: dy goes to the first maximum of its window. Inputs: dy, then those of the pooling. Output: du.
#[derive(Clone, Debug)]
pub struct MaxPoolBackward(pub Pooled);

impl Operation for MaxPoolBackward {
    fn name(&self) -> &'static str {
        "pool.max_backward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let Some((dy, rest)) = inputs.split_first() else { return Err(Error::shape(self.name(), "wants dy and x")) };
        let [n, c, h, w] = self.0.check(self.name(), rest)?;
        shape::floats_as(self.name(), dy, "dy", &[n, c, h / 2, w / 2])?;
        Ok(vec![Type::f32([n, c, h, w])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (dy, rest) = (inputs[0].data, &inputs[1..]);
        let (u, (planes, h, w)) = (self.0.sum(rest), planes(rest[0].shape));
        let v: Vec<f64> = u.iter().map(|&u| self.0.leaky(u)).collect();
        let mut du = vec![0.0; u.len()];
        for p in 0..planes {
            for i in 0..h / 2 {
                for j in 0..w / 2 {
                    let at = first_maximum(&v, p * h * w, w, i, j);
                    let factor = if u[at] > 0.0 { 1.0 } else { f64::from(self.0.slope) };
                    du[at] = factor * dy[(p * (h / 2) + i) * (w / 2) + j];
                }
            }
        }
        vec![du]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (dy, rest) = (inputs[0].id, &inputs[1..]);
        let (_, h, w) = planes(rest[0].shape);
        let entries = ["max_2x2_backward", "max_2x2_backward_by_four"];
        let launch = self.0.launch(entries, h.div_ceil(2), w.div_ceil(2), rest);
        vec![launch.bind("dy", dy).bind("y", outputs[0].id)]
    }

    fn by_rows(&self, inputs: usize) -> Option<ByRows> {
        let one = self.0.operands(inputs.saturating_sub(1)) == 1;
        by_rows(if one { &[ROW, ROW, WHOLE] } else { &[ROW, ROW, ROW, WHOLE, WHOLE] }, &[ROW])
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for MaxPoolBackward {
    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
        self.0.with_fused_norm(index.checked_sub(1)?, slope).map(|pooled| MaxPoolBackward(pooled).into())
    }

    fn reads_half(&self, index: usize) -> bool {
        index == 1 || index == 2
    }
}

/// Mean over height and width: x `[n,c,h,w]` -> `[n,c]`.
#[derive(Clone, Debug)]
pub struct GlobalAveragePool;

impl Operation for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "pool.mean"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let [n, c, ..] = shape::floats::<4>(self.name(), x, "x")?;
        Ok(vec![Type::f32([n, c])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (_, h, w) = planes(inputs[0].shape);
        vec![inputs[0].data.chunks(h * w).map(|plane| plane.iter().sum::<f64>() / (h * w) as f64).collect()]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        let [h, w] = [graph.shape(node.inputs[0])[2], graph.shape(node.inputs[0])[3]];
        Ok(vec![Some(graph.one(GlobalAveragePoolBackward { h, w }, &[dy])?)])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (planes, h, w) = planes(inputs[0].shape);
        vec![mean_launch("mean", planes, h, w).bind("x", inputs[0].id).bind("y", outputs[0].id)]
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[ROW])
    }
}

/// dx of [`GlobalAveragePool`]: dy / (h w) everywhere. Input: dy `[n,c]`.
#[derive(Clone, Debug)]
pub struct GlobalAveragePoolBackward {
    /// Height of x.
    pub h: usize,
    /// Width of x.
    pub w: usize,
}

impl Operation for GlobalAveragePoolBackward {
    fn name(&self) -> &'static str {
        "pool.mean_backward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [dy] = shape::exactly(self.name(), inputs, ["dy"])?;
        let [n, c] = shape::floats(self.name(), dy, "dy")?;
        Ok(vec![Type::f32([n, c, self.h, self.w])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let size = self.h * self.w;
        vec![inputs[0].data.iter().flat_map(|g| std::iter::repeat_n(g / size as f64, size)).collect()]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            mean_launch("mean_backward", outputs[0].len(), self.h, self.w)
                .bind("dy", inputs[0].id)
                .bind("y", outputs[0].id),
        ]
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[ROW])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [[2, 3, 8, 8], [2, 5, 7, 5], [1, 4, 21, 21], [2, 3, 3, 3], [1, 1, 2, 2], [3, 2, 2, 9]] {
        let apart = Input::normal(shape).with(Elements::Permutation);
        cases.push(Case::new(format!("{shape:?}"), MaxPool::new(1.0), vec![apart.clone()]));
        let other = Input::normal(shape).with(Elements::Uniform(-0.001, 0.001));
        cases.push(Case::new(format!("sum {shape:?}"), MaxPool::new(0.1), vec![apart, other]));
        cases.push(Case::new(format!("{shape:?}"), GlobalAveragePool, vec![Input::normal(shape)]));
    }
    let given = |shape: &[usize]| Input::constant(shape.to_vec(), Elements::Normal(0.2, 1.0));
    let dy_of = |[n, c, h, w]: [usize; 4]| given(&[n, c, h / 2, w / 2]);
    for shape in [[2, 3, 6, 6], [2, 3, 5, 8]] {
        let ties = Input::constant(shape, Elements::Below(3));
        let plain = MaxPool::new(1.0).0;
        let what = format!("ties go to the first, {shape:?}");
        cases.push(Case::new(what, MaxPoolBackward(plain), vec![dy_of(shape), ties]));
    }
    // Rows of whole vectors, and others.
    for shape in [[2, 3, 5, 7], [2, 3, 5, 8], [2, 2, 4, 12], [2, 1, 2, 4]] {
        for (operands, normed) in [(1, [true, false]), (2, [true, false]), (2, [false, true]), (2, [true, true])] {
            let pooled = Pooled { slope: 0.1, normed };
            let statistics = normed.iter().filter(|n| **n).map(|_| given(&[5, shape[1]]));
            let inputs: Vec<Input> = (0..operands).map(|_| given(&shape)).chain(statistics).collect();
            let what = format!("{operands} images {shape:?}, normalised {normed:?}");
            let with_dy = [dy_of(shape)].into_iter().chain(inputs.clone()).collect();
            cases.push(Case::new(&what, MaxPool(pooled.clone()), inputs));
            cases.push(Case::new(&what, MaxPoolBackward(pooled), with_dy));
        }
    }
    for (shape, halves) in
        [[2, 3, 5, 6], [2, 4, 5, 8], [1, 2, 3, 4], [1, 1, 5, 4]].into_iter().flat_map(|s| [(s, 1), (s, 2)])
    {
        let image = |i: usize| if i < halves { given(&shape).half() } else { given(&shape) };
        let images: Vec<Input> = (0..2).map(image).collect();
        let pooled = Pooled { slope: 0.1, normed: [false; 2] };
        let with_dy = [dy_of(shape)].into_iter().chain(images.clone()).collect();
        let what = format!("{halves} images of two in half precision, {shape:?}");
        cases.push(Case::new(&what, MaxPool(pooled.clone()), images));
        cases.push(Case::new(&what, MaxPoolBackward(pooled), with_dy));
    }
    cases
}
