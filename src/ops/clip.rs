//! Clipping of gradients by their norm.

use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::reduce::{climb, tree};
use super::{ByRows, Cost, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "clip";

/// Added to the norm that is divided by, as in `torch.nn.utils.clip_grad_norm_`; the shader's `EPSILON`.
const EPSILON: f64 = 1e-6;

/// y = square root of the sum of squares of all elements of x, shape `[1]`.
#[derive(Clone, Debug)]
pub struct GlobalNorm;

impl Operation for GlobalNorm {
    fn name(&self) -> &'static str {
        "clip.norm"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        shape::any_floats(self.name(), x, "x")?;
        Ok(tree(x.len()))
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![vec![inputs[0].data.iter().map(|x| x * x).sum::<f64>().sqrt()]]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        climb((SHADER, "norm"), inputs, outputs, |launch, level, last| {
            launch.param("square", u32::from(level == 0)).param("root", u32::from(last)).param("most", 0.0_f32)
        })
    }
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(&outputs[..1]))
    }
}

/// y = y min(1, `most` / (norm + 1e-6)) in place (`torch.nn.utils.clip_grad_norm_`). Input: norm `[1]`; target: y, floats of
/// any shape. A norm that is NaN makes all NaN.
#[derive(Clone, Debug)]
pub struct ClipNorm {
    /// The largest norm that y keeps; above 0.
    pub most: f32,
}

impl Operation for ClipNorm {
    fn name(&self) -> &'static str {
        "clip.scale"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [norm, y] = shape::exactly(self.name(), inputs, ["norm", "y"])?;
        shape::floats_as(self.name(), norm, "the norm", &[1])?;
        shape::any_floats(self.name(), y, "y")?;
        if !(self.most > 0.0 && self.most.is_finite()) {
            return Err(Error::shape(self.name(), format!("the largest norm must be > 0, got {}", self.most)));
        }
        Ok(vec![y.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let share = f64::from(self.most) / (inputs[0].data[0] + EPSILON);
        // Not `min`, which drops NaN.
        let share = if share > 1.0 { 1.0 } else { share };
        vec![inputs[1].data.iter().map(|y| y * share).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "scale", outputs[0].len())
                .param("most", self.most)
                .param("square", 0u32)
                .param("root", 0u32)
                .bind("x", inputs[0].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[WHOLE], &[ROW])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let vector = |n: usize| Input::constant([n], Elements::Normal(0.5, 1.0));
    let mut cases = Vec::new();
    use super::reduce::CHUNK;
    for n in [1, 63, 64, 65, 997, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * CHUNK, CHUNK * CHUNK + 1] {
        cases.push(Case::new(format!("{n} elements"), GlobalNorm, vec![vector(n)]).tolerance(5e-7));
    }
    cases.push(Case::new("a matrix", GlobalNorm, vec![Input::constant([37, 64], Elements::Normal(0.0, 3.0))]));
    let scale = |what: &str, norm: f64, n: usize| {
        let norm = Input::constant([1], Elements::Values(vec![norm]));
        Case::new(format!("{what}, {n} elements"), ClipNorm { most: 2.0 }, vec![norm, vector(n)])
    };
    for n in [1, 63, 64, 65, 997, 64 * 65_536 + 3] {
        cases.push(scale("clipped", 7.0, n));
    }
    cases.push(scale("within the norm", 1.5, 65).tolerance(0.0));
    cases.push(scale("a norm of zero", 0.0, 65).tolerance(0.0));
    // Of the size of what is added to it.
    let tiny = vec![Input::constant([1], Elements::Values(vec![2e-6])), vector(65)];
    cases.push(Case::new("a tiny norm", ClipNorm { most: 1e-6 }, tiny));
    cases
}
