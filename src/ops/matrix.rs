//! Products whose factors are rounded to half precision, for units that multiply matrices: `shaders/matrix.wgsl` and, a file
//! for each kind of unit, `shaders/matrix_SIDExLANES.wgsl`. The operations are [`super::conv2d`]'s and [`super::matmul`]'s.

use super::case::{Elements, Input};
use super::factors::Factors;
use super::{scale, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

pub(super) const SHADER: &str = "matrix";

/// Rows and columns of the product that a workgroup computes; the shader's constant.
pub(super) const TILE: usize = 64;

/// Stages of 16 terms that are summed before they join the total: units may round sums towards zero, and a total of two short
/// sums errs less than one long sum.
const CHAIN: u32 = 2;

/// A launch of `tiles` tiles. `left` and `right`: the scales of the factors; `sizes`: those that the entry point has, the
/// others are 0.
pub(super) fn launch(
    entry: &'static str,
    tiles: usize,
    factors: Factors,
    [left, right]: [ValueId; 2],
    sizes: &[(&'static str, usize)],
) -> Launch<ValueId> {
    const SIZES: [&str; 20] = [
        "batch",
        "c_in",
        "h_in",
        "w_in",
        "c_out",
        "h_out",
        "w_out",
        "k_h",
        "k_w",
        "packed_row",
        "splits",
        "first_split",
        "split_rows",
        "rows",
        "columns",
        "inner",
        "a_m",
        "a_k",
        "b_k",
        "b_n",
    ];
    let mut launch = Launch::groups(SHADER, entry, tiles)
        .constant("SPLIT", u32::from(factors == Factors::F32x3))
        .constant("CHAIN", CHAIN)
        .bind("left", left)
        .bind("right", right);
    for name in SIZES {
        let given = sizes.iter().find(|(own, _)| *own == name);
        launch = launch.param(name, given.map_or(0, |(_, size)| *size));
    }
    launch.param("pad_y", 0_i32).param("pad_x", 0_i32).param("slope", 1.0_f32)
}

/// The inputs of an operation before the two scales of its factors, where it has any: those are checked.
///
/// # Errors
/// [`Error::Shape`] when they are missing or no scales.
pub(super) fn without_scales<'t>(op: &'static str, factors: Option<Factors>, inputs: &'t [Type]) -> Result<&'t [Type]> {
    if factors.is_none() {
        return Ok(inputs);
    }
    let Some((rest, scales)) = inputs.split_last_chunk::<2>() else {
        return Err(Error::shape(op, format!("two scales follow the inputs, got {} inputs", inputs.len())));
    };
    for (scale, what) in scales.iter().zip(["the scale of the first input", "the scale of the second input"]) {
        shape::floats_as(op, scale, what, &[2])?;
    }
    Ok(rest)
}

/// How far a product may be from that of its factors, as a share of its largest element, in the cases of operations.
pub(super) fn tolerance(factors: Factors) -> f64 {
    2e-6_f64.max(2.0 * factors.rounding())
}

/// The inputs of a case and, behind them, the scales of its factors: those of normal numbers of these deviations, of which
/// the largest are four to eight times as large.
pub(super) fn scaled(mut inputs: Vec<Input>, deviations: [f64; 2]) -> Vec<Input> {
    for sd in deviations {
        inputs.push(Input::constant([2], Elements::Values(scale::of(7.0 * sd).to_vec())));
    }
    inputs
}
