//! 2x2 max pooling and global average pooling of NCHW images.

use super::check::{Case, Fill, Input};
use super::{Host, Operand, Operation, axes, same};
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

/// The position in a plane of the first maximum of the window at (row, column).
fn first_maximum(x: &[f64], plane: usize, width: usize, row: usize, column: usize) -> usize {
    let at = plane + 2 * row * width + 2 * column;
    let mut best = at;
    for candidate in [at + 1, at + width, at + width + 1] {
        if x[candidate] > x[best] {
            best = candidate;
        }
    }
    best
}

/// Maximum over 2x2 windows, stride 2; an odd last row or column is left out. x `[n,c,h,w]` -> [n,c,h/2,w/2].
#[derive(Clone, Debug)]
pub struct MaxPool;

impl Operation for MaxPool {
    fn name(&self) -> &'static str {
        "pool.max"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [n, c, h, w] = axes::<4>(self.name(), inputs, 0, "x")?;
        if h < 2 || w < 2 {
            return Err(Error::shape(
                self.name(),
                format!("x is {h}x{w}, smaller than its 2x2 window; the images are too small for this backbone"),
            ));
        }
        Ok(vec![Type::f32([n, c, h / 2, w / 2])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, (planes, h, w)) = (inputs[0].data, planes(inputs[0].shape));
        let mut y = Vec::new();
        for p in 0..planes {
            for i in 0..h / 2 {
                for j in 0..w / 2 {
                    y.push(x[first_maximum(x, p * h * w, w, i, j)]);
                }
            }
        }
        vec![y]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        // The choice is recomputed from x: keeping it would cost a map as large as the output.
        Ok(vec![Some(graph.one(MaxPoolBackward, &[node.inputs[0], dy])?)])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (_, h, w) = planes(inputs[0].shape);
        vec![launch("max_2x2", outputs[0].len(), h, w).bind("x", inputs[0].id).bind("y", outputs[0].id)]
    }
}

/// dx of [`MaxPool`]: dy goes to the first maximum of its window. Inputs: x, dy.
#[derive(Clone, Debug)]
pub struct MaxPoolBackward;

impl Operation for MaxPoolBackward {
    fn name(&self) -> &'static str {
        "pool.max_backward"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [n, c, h, w] = axes::<4>(self.name(), inputs, 0, "x")?;
        let dy = inputs.get(1).map(|t| t.shape.as_slice()).unwrap_or_default();
        same(self.name(), "dy", dy, &[n, c, h / 2, w / 2])?;
        Ok(inputs[..1].to_vec())
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, dy, (planes, h, w)) = (inputs[0].data, inputs[1].data, planes(inputs[0].shape));
        let mut dx = vec![0.0; x.len()];
        for p in 0..planes {
            for i in 0..h / 2 {
                for j in 0..w / 2 {
                    dx[first_maximum(x, p * h * w, w, i, j)] = dy[(p * (h / 2) + i) * (w / 2) + j];
                }
            }
        }
        vec![dx]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (planes, h, w) = planes(inputs[0].shape);
        let windows = planes * h.div_ceil(2) * w.div_ceil(2);
        vec![
            launch("max_2x2_backward", windows, h, w)
                .bind("x", inputs[0].id)
                .bind("dy", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
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
        let [n, c, h, w] = axes::<4>(self.name(), inputs, 0, "x")?;
        if h * w == 0 {
            return Err(Error::shape(self.name(), "x has no pixels"));
        }
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
        vec![launch("mean", planes, h, w).bind("x", inputs[0].id).bind("y", outputs[0].id)]
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
        let [n, c] = axes::<2>(self.name(), inputs, 0, "dy")?;
        Ok(vec![Type::f32([n, c, self.h, self.w])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let size = self.h * self.w;
        vec![inputs[0].data.iter().flat_map(|g| std::iter::repeat_n(g / size as f64, size)).collect()]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            launch("mean_backward", outputs[0].len(), self.h, self.w).bind("dy", inputs[0].id).bind("y", outputs[0].id),
        ]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [[2, 3, 8, 8], [2, 5, 7, 5], [1, 4, 21, 21], [2, 3, 3, 3], [1, 1, 2, 2], [3, 2, 2, 9]] {
        let apart = Input::normal(shape).with(Fill::Permutation);
        cases.push(Case::new(format!("{shape:?}"), MaxPool, vec![apart]));
        cases.push(Case::new(format!("{shape:?}"), GlobalAveragePool, vec![Input::normal(shape)]));
    }
    let ties = Input::constant([2, 3, 6, 6], Fill::Below(3));
    let dy = Input::constant([2, 3, 3, 3], Fill::Normal(0.0, 1.0));
    cases.push(Case::new("ties go to the first", MaxPoolBackward, vec![ties, dy]));
    cases
}
