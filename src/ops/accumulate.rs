//! The sum of what the micro-batches of a step make: gradients and losses.

use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::step_block::StepBlock;
use super::{ByRows, Host, Operand, Operation, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};

/// y = `share` x in the first micro-batch of a step, y + `share` x in the others, in place.
///
/// Inputs: x, floats of any shape; step block u32 `[8]`; target: y, as x.
#[derive(Clone, Debug)]
pub struct Accumulate {
    /// The share of one micro-batch: one over their number.
    pub share: f32,
}

impl Operation for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, step, y] = shape::exactly(self.name(), inputs, ["x", "step block", "y"])?;
        shape::any_floats(self.name(), x, "x")?;
        StepBlock::check(self.name(), step)?;
        shape::floats_as(self.name(), y, "the sum", &x.shape)?;
        Ok(vec![y.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let first = StepBlock::of(&inputs[1]).part == 0;
        let pairs = inputs[0].data.iter().zip(inputs[2].data);
        vec![pairs.map(|(x, y)| if first { 0.0 } else { *y } + f64::from(self.share) * x).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items("accumulate", "accumulate", inputs[0].len())
                .param("share", self.share)
                .bind("step", inputs[1].id)
                .bind("x", inputs[0].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE], &[ROW])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let vector = |n: usize| Input::constant([n], Elements::Normal(0.0, 1.0));
    let block = |part: u32| StepBlock::new(3, 7, 0.05, 0.0).part(part).input();
    let op = Accumulate { share: 0.25 };
    let mut cases = Vec::new();
    for n in [1, 63, 64, 65, 997, 64 * 65_536 + 3] {
        for (part, what) in [(0, "the first"), (2, "a later")] {
            let inputs = vec![vector(n), block(part), vector(n)];
            cases.push(Case::new(format!("{n} elements of {what} micro-batch"), op.clone(), inputs));
        }
    }
    cases
}
