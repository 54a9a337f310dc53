//! The moving average of weights.

use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::step_block::StepBlock;
use super::{ByRows, Host, Operand, Operation, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};

/// y = x in the first step of a run, y + `take` (x - y) in the others, in place
/// (`torch.optim.swa_utils.get_ema_multi_avg_fn`).
///
/// Inputs: x, floats of any shape; step block u32 `[8]`; target: y, as x.
#[derive(Clone, Debug)]
pub struct MovingAverage {
    /// The share of the new weights: one minus the decay.
    pub take: f32,
}

impl Operation for MovingAverage {
    fn name(&self) -> &'static str {
        "average"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, step, y] = shape::exactly(self.name(), inputs, ["x", "step block", "y"])?;
        shape::any_floats(self.name(), x, "x")?;
        StepBlock::check(self.name(), step)?;
        shape::floats_as(self.name(), y, "the average", &x.shape)?;
        Ok(vec![y.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let first = StepBlock::of(&inputs[1]).step == 0;
        let take = f64::from(self.take);
        let pairs = inputs[0].data.iter().zip(inputs[2].data);
        vec![pairs.map(|(&x, &y)| if first { x } else { y + take * (x - y) }).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items("average", "average", inputs[0].len())
                .param("take", self.take)
                .bind("step_block", inputs[1].id)
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
    let block = |step: u32| StepBlock::new(3 * step, 7, 0.05, 0.0).at(step).input();
    let op = MovingAverage { take: 0.125 };
    let mut cases = Vec::new();
    for n in [1, 63, 64, 65, 997, 64 * 65_536 + 3] {
        cases.push(Case::new(
            format!("{n} elements of a later step"),
            op.clone(),
            vec![vector(n), block(4), vector(n)],
        ));
    }
    let first = vec![vector(65), block(0), vector(65)];
    cases.push(Case::new("65 elements of the first step", op, first).tolerance(0.0));
    cases
}
