//! Cases of the convolution and its gradients.

use super::{Algorithm, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
use crate::ops::case::{Case, Elements, Input};
use crate::ops::factors::Factors;
use crate::ops::matrix::{scaled, tolerance};

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    // batch, c_in, h, w, c_out, k_h, k_w, stride, padding
    [
        (1, 1, 1, 1, 1, 1, 1, 1, 0),
        (2, 3, 8, 8, 16, 3, 3, 1, 1),
        (3, 5, 7, 9, 6, 3, 3, 1, 1),
        (2, 8, 21, 21, 16, 1, 1, 1, 0),
        (2, 6, 15, 15, 10, 3, 3, 2, 1),
        (1, 17, 5, 5, 33, 3, 3, 1, 1),
        (2, 7, 1, 1, 9, 3, 3, 1, 1),
        (2, 10, 9, 9, 7, 1, 1, 2, 0),
        // Runs of four pixels: of rows, of images alone, fewer than a tile has, an odd number.
        (3, 37, 6, 8, 50, 1, 1, 1, 0),
        (5, 3, 2, 6, 20, 1, 1, 1, 0),
        (2, 5, 3, 4, 9, 1, 1, 1, 0),
        (1, 1, 2, 2, 3, 1, 1, 1, 0),
        (2, 12, 3, 4, 9, 1, 1, 1, 0),
        // Rows that begin anywhere in a vector, of images that are whole vectors together.
        (4, 20, 5, 13, 36, 3, 3, 1, 1),
        (4, 5, 7, 9, 6, 3, 3, 1, 1),
        (2, 20, 4, 10, 36, 3, 3, 1, 1),
        (2, 4, 11, 6, 5, 5, 5, 1, 2),
        (2, 3, 10, 13, 4, 2, 4, 3, 1),
        (1, 2, 6, 6, 3, 3, 3, 1, 0),
        (1, 2, 7, 5, 3, 1, 3, 1, 1),
        (2, 70, 4, 4, 20, 3, 3, 1, 1),
        (1, 3, 9, 9, 2, 7, 7, 2, 3),
        (1, 1, 4, 4, 1, 2, 2, 1, 2),
        (5, 16, 28, 28, 16, 3, 3, 1, 1),
        // By Winograd it takes two slices.
        (3, 1, 80, 80, 15, 3, 3, 1, 1),
        // Four of its tiles lie side by side in an x that is not whole vectors of four words, nor of eight halves.
        (1, 3, 5, 7, 5, 3, 3, 1, 1),
        (1, 3, 5, 10, 5, 3, 3, 1, 0),
        // Far beyond the edges of x, and with gradients within those of dy.
        (2, 4, 6, 12, 5, 3, 3, 1, 3),
        (2, 4, 3, 8, 3, 3, 3, 1, 3),
        // Tiles that are even in number, but not whole fours.
        (1, 8, 5, 4, 12, 3, 3, 1, 1),
    ]
    .into_iter()
    .flat_map(|(n, c, h, w, o, k_h, k_w, stride, padding)| {
        let what = format!("x {n}x{c}x{h}x{w}, weight {o}x{c}x{k_h}x{k_w}, stride {stride}, padding {padding}");
        let (h_out, w_out) = ((h + 2 * padding - k_h) / stride + 1, (w + 2 * padding - k_w) / stride + 1);
        let given = |shape: &[usize]| Input::constant(shape.to_vec(), Elements::Normal(0.2, 1.0));
        let (x, statistics) = (given(&[n, c, h, w]), given(&[5, c]));
        let slope = Some(0.1);
        let weight_inputs = vec![x.clone(), given(&[n, o, h_out, w_out]), statistics.clone()];
        let inputs = vec![x, given(&[o, c, k_h, k_w]), statistics];
        let plain = vec![Input::normal([n, c, h, w]), Input::normal([o, c, k_h, k_w])];
        let mut cases = Vec::new();
        for algorithm in [Algorithm::Direct, Algorithm::Winograd] {
            let winograd = algorithm == Algorithm::Winograd;
            if winograd && (k_h, k_w, stride) != (3, 3, 1) {
                continue;
            }
            let what = if winograd { format!("by Winograd, {what}") } else { what.clone() };
            let op = Conv2d { algorithm, ..Conv2d::new(stride, padding) };
            let normed = Conv2d { slope, ..op.clone() };
            let normed = Case::new(format!("normalised {what}"), normed, inputs.clone());
            let weight = Conv2dBackwardWeight { stride, padding, k_h, k_w, slope, algorithm };
            let weight = Case::new(format!("normalised {what}"), weight, weight_inputs.clone());
            // Rows of an odd length are not stored in half precision.
            let halved = |case: &Case| {
                let mut case = case.clone();
                case.inputs[0] = case.inputs[0].clone().half();
                case.name += ", x in half precision";
                case
            };
            let half = w.is_multiple_of(2).then(|| [halved(&normed), halved(&weight)]);
            if w_out.is_multiple_of(2) {
                let y = half.as_ref().map_or(&normed, |[normed, _]| normed).clone().into_half();
                cases.push(Case { name: format!("{}, y in half precision", y.name), ..y });
            }
            cases.extend([Case::new(what, op, plain.clone()), normed, weight]);
            cases.extend(half.into_iter().flatten());
        }
        cases
    })
    .chain(by_matrix())
    .collect()
}

/// Cases on units that multiply matrices.
fn by_matrix() -> Vec<Case> {
    let mut cases = Vec::new();
    // batch, c_in, h, w, c_out, k_h, k_w, stride, padding
    for (n, c, h, w, o, k_h, k_w, stride, padding) in [
        (1, 1, 1, 1, 1, 1, 1, 1, 0),
        (3, 5, 7, 9, 6, 3, 3, 1, 1),
        (2, 8, 21, 21, 16, 1, 1, 1, 0),
        (2, 6, 15, 15, 10, 3, 3, 2, 1),
        (2, 10, 9, 9, 7, 1, 1, 2, 0),
        (2, 3, 10, 13, 4, 2, 4, 3, 1),
        (1, 2, 6, 6, 3, 3, 3, 1, 0),
        (2, 70, 6, 4, 130, 3, 3, 1, 1),
        (5, 40, 8, 8, 66, 3, 3, 1, 1),
        (3, 40, 18, 18, 48, 3, 3, 2, 1),
    ] {
        let (h_out, w_out) = ((h + 2 * padding - k_h) / stride + 1, (w + 2 * padding - k_w) / stride + 1);
        let normal = |shape: &[usize]| Input::constant(shape.to_vec(), Elements::Normal(0.0, 1.0));
        let (x, weight, dy) = (normal(&[n, c, h, w]), normal(&[o, c, k_h, k_w]), normal(&[n, o, h_out, w_out]));
        let statistics = Input::constant([5, c], Elements::Normal(0.2, 1.0));
        for factors in [Factors::F16, Factors::F32x3] {
            let algorithm = Algorithm::Matrix(factors);
            let mut add = |what: &str, op: crate::ops::Op, inputs: Vec<Input>, y_half: bool| {
                let sizes =
                    format!("x {n}x{c}x{h}x{w}, weight {o}x{c}x{k_h}x{k_w}, stride {stride}, padding {padding}");
                // What batch norm makes of x is larger than x.
                let sd = if what.contains("normalised") { 4.0 } else { 1.0 };
                let case = Case::new(format!("{factors:?}, {what}{sizes}"), op, scaled(inputs, [sd, 1.0]));
                let case = if y_half { case.into_half() } else { case };
                let allowed = tolerance(factors).max(case.tolerance);
                cases.push(case.tolerance(allowed));
            };
            let forward = |slope| Conv2d { algorithm, slope, ..Conv2d::new(stride, padding) };
            let gradient = |slope| Conv2dBackwardWeight { stride, padding, k_h, k_w, slope, algorithm };
            add("", forward(None).into(), vec![x.clone(), weight.clone()], false);
            add("", gradient(None).into(), vec![x.clone(), dy.clone()], false);
            let input = Conv2dBackwardInput { stride, padding, h, w, algorithm };
            add("", input.into(), vec![dy.clone(), weight.clone()], false);
            let x = if w % 2 == 0 { x.clone().half() } else { x.clone() };
            let what = if w % 2 == 0 { "normalised, x in half precision, " } else { "normalised, " };
            let normed = vec![x.clone(), weight.clone(), statistics.clone()];
            add(what, forward(Some(0.1)).into(), normed, w_out % 2 == 0);
            add(what, gradient(Some(0.1)).into(), vec![x, dy.clone(), statistics.clone()], false);
        }
    }
    cases
}
