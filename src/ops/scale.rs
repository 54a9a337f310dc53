//! The power of two with which a factor uses the range of half precision.

use std::ops::Range;

use super::batch_norm::{activated, check_statistics};
use super::case::{Case, Elements, Input};
use super::operand::{ROW, WHOLE, by_rows};
use super::{ByRows, Cost, Host, Operand, Operation, PartialSums, Rewrites, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};

const SHADER: &str = "scale";

/// About as many parts as fill a device; each has its largest element found by itself.
const PARTS: usize = 1024;

/// The fewest elements that are worth a part.
const LEAST_ELEMENTS: usize = 4096;

/// Invocations of a workgroup.
const LANES: u32 = 256;

/// y = (2^e, 2^-e), where the largest |x| 2^e lies in [2^14, 2^15), just below what half precision holds. Inputs: x, and with
/// a slope the statistics of the batch norm behind x. Workspace: the largest element of each part.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Of x not itself but its batch norm and the LeakyReLU of this slope behind it.
    pub slope: Option<f32>,
}

/// How x falls into parts: some rows each, or some parts to each row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Parts {
    /// Elements of a row.
    row: usize,
    /// Rows of a part; 1 where a row has several.
    rows: usize,
    /// Parts of such rows.
    per_rows: usize,
}

impl Parts {
    fn of(shape: &[usize]) -> Parts {
        let all = shape.first().copied().unwrap_or(1).max(1);
        let row = shape.iter().skip(1).product::<usize>().max(1);
        let rows = all.div_ceil(PARTS).max(LEAST_ELEMENTS.div_ceil(row)).min(all);
        let per_rows = if rows == 1 { (PARTS / all).min(row / LEAST_ELEMENTS).max(1) } else { 1 };
        Parts { row, rows, per_rows }
    }

    /// Parts of so many rows.
    fn count(&self, rows: usize) -> usize {
        rows.div_ceil(self.rows) * self.per_rows
    }

    /// Elements of a part, but for the last.
    fn size(&self) -> usize {
        (self.rows * self.row).div_ceil(self.per_rows)
    }
}

/// The scale of numbers of which none is larger, and its inverse; both are normal numbers of f32.
pub(super) fn of(largest: f64) -> [f64; 2] {
    let exponent = if largest > 0.0 { 14 - largest.log2().floor() as i32 } else { i32::MAX };
    let exponent = exponent.clamp(-126, 126);
    [2_f64.powi(exponent), 2_f64.powi(-exponent)]
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "scale.scale"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let x = match self.slope {
            None => shape::exactly(self.name(), inputs, ["x"])?[0],
            Some(_) => {
                let [x, statistics] = shape::exactly(self.name(), inputs, ["x", "statistics"])?;
                shape::stored::<4>(self.name(), x, "x")?;
                check_statistics(self.name(), statistics, x)?;
                x
            }
        };
        shape::any_stored(self.name(), x, "x")?;
        let rows = x.shape.first().copied().unwrap_or(1);
        Ok(vec![Type::f32([2]), Type::f32([Parts::of(&x.shape).count(rows)])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let x = match self.slope {
            Some(slope) => activated(&inputs[0], inputs[1].data, slope).into(),
            None => std::borrow::Cow::from(inputs[0].data),
        };
        vec![of(x.iter().fold(0.0, |most, v| v.abs().max(most))).to_vec()]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let rows = inputs[0].shape.first().copied().unwrap_or(1);
        [self.part_launches(inputs, outputs, 0..rows), self.joining_launches(inputs, outputs)].concat()
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(&outputs[..1]))
    }

    /// As of normal numbers.
    fn output_elements(&self, index: usize) -> Elements {
        // Batch norm with normal statistics, of normal numbers, makes numbers up to some fifty.
        let largest = if self.slope.is_some() { 60.0 } else { 5.0 };
        if index == 0 { Elements::Values(of(largest).to_vec()) } else { Elements::Uniform(0.5, 1.5) }
    }

    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, WHOLE], &[WHOLE, WHOLE])
    }

    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        Some(self)
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Scale {
    fn reads_half(&self, index: usize) -> bool {
        index == 0
    }
}

impl Scale {
    fn launch(&self, entry: &'static str, inputs: &[Operand], groups: usize) -> Launch<ValueId> {
        let shape = inputs[0].shape;
        let channels = shape.get(1).copied().unwrap_or(1);
        let plane = shape.iter().skip(2).product::<usize>();
        let mut launch = Launch::groups(SHADER, entry, groups)
            .param("elements", inputs[0].len())
            .param("part_size", 0u32)
            .param("parts", 0u32)
            .param("first_part", 0u32)
            .param("c_in", channels)
            .param("plane", plane)
            .param("slope", self.slope.unwrap_or(1.0));
        launch.set_workgroup(LANES);
        launch
    }
}

impl PartialSums for Scale {
    fn rows_per_part(&self, inputs: &[Operand]) -> usize {
        Parts::of(inputs[0].shape).rows
    }

    fn part_launches(&self, inputs: &[Operand], outputs: &[Operand], rows: Range<usize>) -> Vec<Launch<ValueId>> {
        let parts = Parts::of(inputs[0].shape);
        let count = parts.count(rows.len());
        let mut launch = self
            .launch("largest", inputs, count)
            .constant("NORMED", u32::from(self.slope.is_some()))
            .constant("X_HALF", inputs[0].half())
            .bind("x", inputs[0].id)
            .bind("statistics", inputs.get(1).unwrap_or(&inputs[0]).id)
            .bind("y", outputs[1].id);
        launch.set("elements", rows.len() * parts.row);
        launch.set("part_size", parts.size());
        launch.set("parts", count);
        launch.set("first_part", parts.count(rows.start));
        vec![launch]
    }

    fn joining_launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let mut launch = self.launch("scale", inputs, 1).bind("part", outputs[1].id).bind("y", outputs[0].id);
        launch.set("parts", outputs[1].len());
        vec![launch]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let case = |what: &str, input: Input| Case::new(what, Scale { slope: None }, vec![input]).tolerance(0.0);
    let values = |values: &[f64]| Input::constant([values.len()], Elements::Values(values.to_vec()));
    let normal = |shape: &[usize], sd: f64| Input::constant(shape.to_vec(), Elements::Normal(0.0, sd));
    let mut cases = vec![
        case("zeros", values(&[0.0, -0.0])),
        case("the largest is negative", values(&[1.0, -2.5, 0.0])),
        case("a power of two", values(&[1.0, -0.25])),
        case("the smallest numbers", values(&[1e-40, 2e-42])),
        case("the largest numbers", values(&[3.4e38, -1.0])),
        case("a matrix of small numbers", normal(&[37, 65], 1e-12)),
        case("more rows than parts", normal(&[2051, 3], 1.0)),
        case("several parts to a row", normal(&[3, 8200], 1.0)),
        case("the largest comes last", {
            let mut values = vec![0.5; 3 * 8200];
            values[3 * 8200 - 1] = 40.0;
            Input::constant([3, 8200], Elements::Values(values))
        }),
        case("half precision", normal(&[3, 5, 4, 6], 0.01).half()),
    ];
    for (shape, half) in [([2, 7, 5, 5], false), ([3, 4, 6, 6], true)] {
        let x = Input::constant(shape, Elements::Normal(0.2, 1.0));
        let x = if half { x.half() } else { x };
        let statistics = Input::constant([5, shape[1]], Elements::Normal(0.2, 1.0));
        let what = if half { "normalised, in half precision" } else { "normalised" };
        cases.push(Case::new(what, Scale { slope: Some(0.1) }, vec![x, statistics]).tolerance(0.0));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_rows() {
        for (shape, parts, count) in [
            (vec![16, 64, 32, 32], Parts { row: 65_536, rows: 1, per_rows: 16 }, 256),
            (vec![1024, 64, 84, 84], Parts { row: 451_584, rows: 1, per_rows: 1 }, 1024),
            (vec![5000, 64], Parts { row: 64, rows: 64, per_rows: 1 }, 79),
            (vec![7], Parts { row: 1, rows: 7, per_rows: 1 }, 1),
        ] {
            assert_eq!((Parts::of(&shape), Parts::of(&shape).count(shape[0])), (parts, count), "{shape:?}");
            assert!(parts.size() * count >= shape.iter().product(), "{shape:?}");
        }
    }

    #[test]
    fn the_largest_number_is_just_below_what_half_precision_holds() {
        for (largest, exponent) in [(1.0, 14), (1.999, 14), (2.0, 13), (0.5, 15), (1e-12, 54), (3e38, -113)] {
            assert_eq!(of(largest), [2_f64.powi(exponent), 2_f64.powi(-exponent)], "{largest}");
            let scaled = largest * of(largest)[0];
            assert!((16_384.0..32_768.0).contains(&scaled), "{largest}: {scaled}");
        }
        assert_eq!(of(0.0)[0], 2_f64.powi(126));
        assert_eq!(of(1e-40)[0], 2_f64.powi(126));
    }
}
