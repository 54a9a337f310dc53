//! Cases of the convolution and its gradients.

use super::{Conv2d, Conv2dBackwardWeight};
use crate::ops::case::{Case, Elements, Input};

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
        for winograd in [false, true] {
            if winograd && (k_h, k_w, stride) != (3, 3, 1) {
                continue;
            }
            let what = if winograd { format!("by Winograd, {what}") } else { what.clone() };
            let op = Conv2d { winograd, ..Conv2d::new(stride, padding) };
            let normed = Conv2d { slope, ..op.clone() };
            let normed = Case::new(format!("normalised {what}"), normed, inputs.clone());
            let weight = Conv2dBackwardWeight { stride, padding, k_h, k_w, slope, winograd };
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
    .collect()
}
