//! Stochastic gradient descent with momentum and weight decay.

use super::case::{Case, Elements, Input};
use super::health::{self, raise};
use super::operand::{ROW, WHOLE, by_rows};
use super::step_block::StepBlock;
use super::{ByRows, Host, Operand, Operation, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::graph::BLOCK;
use crate::tape::{Type, ValueId};

const SHADER: &str = "sgd";

/// d = g + decay p; v = `momentum` v + d; p = p - learning rate factor v, in place (`torch.optim.SGD`). With `nesterov`
/// the last is p - learning rate factor (d + `momentum` v).
///
/// Inputs: gradient g `[blocks, 64]`; (factor, decay) of each block `[blocks, 2]`, since a block is of one tensor
/// ([`BLOCK`]); step block u32 `[8]`; targets: parameters p and momentum v as g, health u32 `[4]`. Where g is not finite p
/// and v stay as they are, and [`health::GRADIENT`] is raised.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// Share of the old velocity that is kept.
    pub momentum: f32,
    /// Whether a step goes where the momentum will have led.
    pub nesterov: bool,
}

impl Operation for Sgd {
    fn name(&self) -> &'static str {
        "sgd.step"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["gradient", "rates", "step block", "parameters", "momentum", "health"];
        let [gradient, rates, step, parameters, velocity, health] = shape::exactly(self.name(), inputs, names)?;
        let [blocks, width] = shape::floats(self.name(), gradient, "the gradient")?;
        shape::same(self.name(), "a block of the gradient", &[width], &[BLOCK])?;
        shape::floats_as(self.name(), rates, "the table of rates", &[blocks, 2])?;
        StepBlock::check(self.name(), step)?;
        shape::floats_as(self.name(), parameters, "the parameters", &[blocks, BLOCK])?;
        shape::floats_as(self.name(), velocity, "the momentum", &[blocks, BLOCK])?;
        health::check_type(self.name(), health)?;
        Ok(inputs[3..].to_vec())
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let mu = f64::from(self.momentum);
        let rate = f64::from(StepBlock::of(&inputs[2]).learning_rate);
        let [mut p, mut v, mut health] = [3, 4, 5].map(|i| inputs[i].data.to_vec());
        for (i, &g) in inputs[0].data.iter().enumerate() {
            let [factor, decay] = [0, 1].map(|column| inputs[1].data[2 * (i / BLOCK) + column]);
            if g.is_finite() {
                let d = g + decay * p[i];
                v[i] = mu * v[i] + d;
                p[i] -= rate * factor * if self.nesterov { d + mu * v[i] } else { v[i] };
            } else {
                raise(&mut health, health::GRADIENT);
            }
        }
        vec![p, v, health]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "step", inputs[0].len() / 4)
                .param("momentum", self.momentum)
                .param("nesterov", u32::from(self.nesterov))
                .param("health_mask", 1u32 << health::GRADIENT)
                .bind("gradient", inputs[0].id)
                .bind("rates", inputs[1].id)
                .bind("step_block", inputs[2].id)
                .bind("parameter", outputs[0].id)
                .bind("velocity", outputs[1].id)
                .bind("health", outputs[2].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW, WHOLE], &[ROW, ROW, WHOLE])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let vector = |blocks: usize| Input::constant([blocks, BLOCK], Elements::Normal(0.0, 1.0));
    let block = StepBlock::new(7, 1 << 40 | 3, 0.05, 0.1).input();
    let inputs = |gradient: Input| {
        let blocks = gradient.ty.shape[0];
        let rates = Input::constant([blocks, 2], Elements::Uniform(0.0, 1.0));
        let health = Input::integers([health::WORDS], Elements::Values(vec![2.0, 0.0, 0.0, 0.0]));
        vec![gradient, rates, block.clone(), vector(blocks), vector(blocks), health]
    };
    let mut cases = Vec::new();
    for (nesterov, kind) in [(false, "heavy ball"), (true, "Nesterov")] {
        let sgd = Sgd { momentum: 0.9, nesterov };
        for blocks in [1, 3, 17] {
            cases.push(Case::new(format!("{kind}, {blocks} blocks"), sgd.clone(), inputs(vector(blocks))));
        }
    }
    let sgd = Sgd { momentum: 0.9, nesterov: false };
    let many = inputs(vector(65_539));
    cases.push(Case::new("more groups than one axis holds", sgd.clone(), many));
    let mut odd = vec![1.0, f64::NAN, f64::INFINITY, -2.0, f64::NEG_INFINITY];
    odd.resize(BLOCK, 0.5);
    let odd = Input::constant([1, BLOCK], Elements::Values(odd));
    cases.push(Case::new("gradients that are not finite", sgd, inputs(odd)));
    cases
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_rates_is_for_a_block() {
        let text = &crate::gpu::shader::find(SHADER).unwrap().text;
        let module = naga::front::wgsl::parse_str(text).unwrap();
        assert_eq!(crate::ops::tile::tests::constant(&module, "VECTORS"), Some(BLOCK / 4));
    }
}
