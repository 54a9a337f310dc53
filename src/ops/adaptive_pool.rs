//! Adaptive average pooling: images averaged down to a given side, as PyTorch's `adaptive_avg_pool2d` does.

use std::ops::Range;

use super::case::{Case, Elements, Input};
use super::operand::{ROW, by_rows};
use super::{ByRows, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

/// x `[n,c,h,w]` -> `[n,c,side,side]`: element (i, j) is the mean over the rows from floor(i h / side) to
/// ceil((i + 1) h / side) and the columns likewise, ends not included. Of h and w neither is smaller than the side.
///
/// For the views of a step, which are data: there is no gradient.
#[derive(Clone, Debug)]
pub struct AdaptiveAveragePool {
    /// Height and width of the result.
    pub side: usize,
}

/// The places of window `i` of `windows` over `size` places.
fn window(i: usize, size: usize, windows: usize) -> Range<usize> {
    i * size / windows..((i + 1) * size).div_ceil(windows)
}

impl Operation for AdaptiveAveragePool {
    fn name(&self) -> &'static str {
        "adaptive_pool.mean"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let [n, c, h, w] = shape::floats(self.name(), x, "x")?;
        if self.side == 0 || self.side > h.min(w) {
            return Err(Error::shape(
                self.name(),
                format!("x is {h}x{w} and can be averaged down to a side of 1 to {}, not {}", h.min(w), self.side),
            ));
        }
        Ok(vec![Type::f32([n, c, self.side, self.side])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let &[_, _, h, w] = inputs[0].shape else { return Vec::new() };
        let mut y = Vec::new();
        for plane in inputs[0].data.chunks(h * w) {
            for i in 0..self.side {
                for j in 0..self.side {
                    let (rows, columns) = (window(i, h, self.side), window(j, w, self.side));
                    let sum: f64 = rows.clone().map(|row| plane[row * w..][columns.clone()].iter().sum::<f64>()).sum();
                    y.push(sum / (rows.len() * columns.len()) as f64);
                }
            }
        }
        vec![y]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let launch = Launch::items("adaptive_pool", "mean", outputs[0].len())
            .param("height", inputs[0].shape[2])
            .param("width", inputs[0].shape[3])
            .param("out_height", self.side)
            .param("out_width", self.side);
        vec![launch.bind("x", inputs[0].id).bind("y", outputs[0].id)]
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[ROW])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let case = |shape: [usize; 4], side: usize| {
        let x = Input::constant(shape, Elements::Normal(0.0, 1.0));
        Case::new(format!("{shape:?} to {side}"), AdaptiveAveragePool { side }, vec![x])
    };
    vec![
        case([1, 1, 1, 1], 1),
        case([2, 3, 32, 32], 20),
        case([2, 3, 28, 28], 18),
        case([3, 2, 7, 7], 7),
        case([2, 3, 9, 13], 4),
        case([1, 5, 21, 21], 1),
        case([1, 2, 3, 64], 3),
    ]
}
