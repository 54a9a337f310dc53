//! Stochastic gradient descent with momentum and weight decay.

use super::case::{Case, Elements, Input};
use super::health::{self, raise};
use super::operand::{ROW, WHOLE, by_rows};
use super::step_block::StepBlock;
use super::{ByRows, Host, Operand, Operation, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};

const SHADER: &str = "sgd";

/// v = `momentum` v + (g + `weight_decay` p); p = p - learning rate v, in place (PyTorch's form).
///
/// Inputs: gradient g `[n]`, step block u32 `[8]`; targets: parameters p `[n]`, momentum v `[n]`, health
/// u32 `[4]`. Where g is not finite p and v stay as they are, and [`health::GRADIENT`] is raised.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// Share of the old velocity that is kept.
    pub momentum: f32,
    /// Share of the parameter that is added to its gradient.
    pub weight_decay: f32,
}

impl Operation for Sgd {
    fn name(&self) -> &'static str {
        "sgd.step"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["gradient", "step block", "parameters", "momentum", "health"];
        let [gradient, step, parameters, velocity, health] = shape::exactly(self.name(), inputs, names)?;
        let [n] = shape::floats(self.name(), gradient, "the gradient")?;
        StepBlock::check(self.name(), step)?;
        shape::floats_as(self.name(), parameters, "the parameters", &[n])?;
        shape::floats_as(self.name(), velocity, "the momentum", &[n])?;
        health::check_type(self.name(), health)?;
        Ok(inputs[2..].to_vec())
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (mu, decay) = (f64::from(self.momentum), f64::from(self.weight_decay));
        let rate = f64::from(StepBlock::of(&inputs[1]).learning_rate);
        let [mut p, mut v, mut health] = [2, 3, 4].map(|i| inputs[i].data.to_vec());
        for (i, &g) in inputs[0].data.iter().enumerate() {
            if g.is_finite() {
                v[i] = mu * v[i] + (g + decay * p[i]);
                p[i] -= rate * v[i];
            } else {
                raise(&mut health, health::GRADIENT);
            }
        }
        vec![p, v, health]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "step", inputs[0].len())
                .param("momentum", self.momentum)
                .param("weight_decay", self.weight_decay)
                .param("health_mask", 1u32 << health::GRADIENT)
                .bind("gradient", inputs[0].id)
                .bind("step_block", inputs[1].id)
                .bind("parameter", outputs[0].id)
                .bind("velocity", outputs[1].id)
                .bind("health", outputs[2].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE], &[ROW, ROW, WHOLE])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let vector = |n: usize| Input::constant([n], Elements::Normal(0.0, 1.0));
    let block = StepBlock::new(7, 1 << 40 | 3, 0.05, 0.1).input();
    let inputs = |gradient: Input| {
        let n = gradient.ty.len();
        let health = Input::integers([health::WORDS], Elements::Values(vec![2.0, 0.0, 0.0, 0.0]));
        vec![gradient, block.clone(), vector(n), vector(n), health]
    };
    let sgd = Sgd { momentum: 0.9, weight_decay: 5e-4 };
    let mut cases = Vec::new();
    for n in [1, 63, 64, 65, 997, 64 * 65_536 + 3] {
        cases.push(Case::new(format!("{n} parameters"), sgd.clone(), inputs(vector(n))));
    }
    let odd = Input::constant([5], Elements::Values(vec![1.0, f64::NAN, f64::INFINITY, -2.0, f64::NEG_INFINITY]));
    cases.push(Case::new("gradients that are not finite", sgd, inputs(odd)));
    cases
}
