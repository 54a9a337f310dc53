//! Health bits: what the device saw go wrong, read by the host together with the loss.

use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::{ByRows, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "health";

/// Words of the health value; the bits are in the first.
pub const WORDS: usize = 4;
/// Bit that the optimiser raises for a gradient that is not finite.
pub const GRADIENT: u32 = 0;
/// Bit for a loss that is not finite.
pub const LOSS: u32 = 1;

/// The word with `bit` raised, as a twin keeps it.
pub(super) fn raise(health: &mut [f64], bit: u32) {
    health[0] = f64::from(health[0] as u32 | 1 << bit);
}

/// Fails unless `ty` is a health value.
pub(super) fn check_type(op: &'static str, ty: &Type) -> Result<()> {
    let words = shape::words::<1>(op, ty, "the health value")?;
    shape::same(op, "the health value", &words, &[WORDS])
}

/// Raises `bit` when any element of x is not finite. Input: x, floats of any shape; target: health u32 `[4]`.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// Number of the bit: [`GRADIENT`], [`LOSS`].
    pub bit: u32,
}

impl Operation for HealthCheck {
    fn name(&self) -> &'static str {
        "health.inspect"
    }
    fn in_place(&self) -> bool {
        true
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, health] = shape::exactly(self.name(), inputs, ["x", "health"])?;
        shape::any_floats(self.name(), x, "x")?;
        check_type(self.name(), health)?;
        if self.bit > 31 {
            return Err(Error::shape(self.name(), format!("a word has bits 0 to 31, not {}", self.bit)));
        }
        Ok(vec![health.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let mut health = inputs[1].data.to_vec();
        if inputs[0].data.iter().any(|v| !v.is_finite()) {
            raise(&mut health, self.bit);
        }
        vec![health]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "inspect", inputs[0].len())
                .param("mask", 1u32 << self.bit)
                .bind("x", inputs[0].id)
                .bind("health", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[WHOLE])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let health = || Input::integers([WORDS], Elements::Values(vec![4.0, 0.0, 7.0, 0.0]));
    let mut cases = vec![
        Case::new(
            "finite",
            HealthCheck { bit: LOSS },
            vec![Input::constant([997], Elements::Normal(0.0, 1e30)), health()],
        )
        .tolerance(0.0),
    ];
    for (what, odd) in [("NaN", f64::NAN), ("inf", f64::INFINITY), ("-inf", f64::NEG_INFINITY)] {
        for n in [1, 65] {
            let mut x = vec![f64::from(f32::MAX); n];
            x[n - 1] = odd;
            let x = Input::constant([n], Elements::Values(x));
            let case = Case::new(format!("{what} last of {n}"), HealthCheck { bit: LOSS }, vec![x, health()]);
            cases.push(case.tolerance(0.0));
        }
    }
    cases
}
