//! Cross-entropy of logits and class labels, and which rows are right.

use super::case::{Case, Elements, Input};
use super::{Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "softmax_xent";

/// Rows and columns of the logits, after checking the targets against them.
fn sizes(op: &'static str, logits: &Type, targets: &Type) -> Result<[usize; 2]> {
    let [rows, columns] = shape::floats(op, logits, "the logits")?;
    let given = shape::words::<1>(op, targets, "the targets")?;
    shape::same(op, "the list of targets", &given, &[rows])?;
    Ok([rows, columns])
}

/// loss\[r\] = log sum_c exp(x\[r,c\]) - (1 - e) x\[r,t\] - e / columns sum_c x\[r,c\] for logits x `[rows, columns]`,
/// targets t `[rows]` and the smoothing e (`torch.nn.functional.cross_entropy`).
///
/// Second output, for the gradient: the largest logit of each row, the sum of exponentials relative to it,
/// and that sum without the target's, `[rows, 3]`.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// Label smoothing: the share of the target that is spread over all columns, 0 to 1.
    pub smoothing: f32,
}

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        "softmax_xent.forward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [logits, targets] = shape::exactly(self.name(), inputs, ["logits", "targets"])?;
        let [rows, _] = sizes(self.name(), logits, targets)?;
        if !(0.0..=1.0).contains(&self.smoothing) {
            return Err(Error::shape(self.name(), format!("the smoothing must be 0 to 1, got {}", self.smoothing)));
        }
        Ok(vec![Type::f32([rows]), Type::f32([rows, 3])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (mut loss, mut stats) = (Vec::new(), Vec::new());
        for (x, &t) in inputs[0].data.chunks(inputs[0].shape[1]).zip(inputs[1].data) {
            let largest = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let wrong: f64 = (0..x.len()).filter(|&c| c as f64 != t).map(|c| (x[c] - largest).exp()).sum();
            let right = x.get(t as usize).copied().unwrap_or(f64::NEG_INFINITY);
            let sum = wrong + (right - largest).exp();
            let mut own = if right == largest { wrong.ln_1p() } else { sum.ln() + largest - right };
            if self.smoothing > 0.0 {
                let mean = x.iter().sum::<f64>() / x.len() as f64;
                own += f64::from(self.smoothing) * (right - mean);
            }
            loss.push(own);
            stats.extend([largest, sum, wrong]);
        }
        vec![loss, stats]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dloss) = upstream[0] else { return Ok(vec![None, None]) };
        let inputs = [node.inputs[0], node.inputs[1], node.outputs[1], dloss];
        let backward = CrossEntropyBackward { smoothing: self.smoothing };
        Ok(vec![Some(graph.one(backward, &inputs)?), None])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            Launch::groups(SHADER, "forward", rows)
                .param("n", rows)
                .param("columns", columns)
                .param("smoothing", self.smoothing)
                .bind("x", inputs[0].id)
                .bind("targets", inputs[1].id)
                .bind("y", outputs[0].id)
                .bind("stats", outputs[1].id),
        ]
    }
}

/// dx = (softmax(x) - (1 - e) onehot(t) - e / columns) dloss with the smoothing e. Inputs: logits, targets, the forward pass's statistics, dloss.
#[derive(Clone, Debug)]
pub struct CrossEntropyBackward {
    /// As [`CrossEntropy::smoothing`].
    pub smoothing: f32,
}

impl Operation for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "softmax_xent.backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["logits", "targets", "statistics", "dloss"];
        let [logits, targets, statistics, dloss] = shape::exactly(self.name(), inputs, names)?;
        let [rows, columns] = sizes(self.name(), logits, targets)?;
        shape::floats_as(self.name(), statistics, "the saved statistics", &[rows, 3])?;
        shape::floats_as(self.name(), dloss, "the upstream gradient", &[rows])?;
        Ok(vec![Type::f32([rows, columns])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (mut dx, smoothing) = (Vec::new(), f64::from(self.smoothing));
        for (r, x) in inputs[0].data.chunks(inputs[0].shape[1]).enumerate() {
            let [largest, sum, wrong] = [0, 1, 2].map(|i| inputs[2].data[3 * r + i]);
            for (c, v) in x.iter().enumerate() {
                let target = inputs[1].data[r] == c as f64;
                let share = if target { -wrong } else { (v - largest).exp() };
                let moved = if target { smoothing } else { 0.0 } - smoothing / x.len() as f64;
                dx.push((share / sum + moved) * inputs[3].data[r]);
            }
        }
        vec![dx]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "backward", outputs[0].len())
                .param("columns", outputs[0].shape[1])
                .param("smoothing", self.smoothing)
                .bind("x", inputs[0].id)
                .bind("targets", inputs[1].id)
                .bind("stats_in", inputs[2].id)
                .bind("dloss", inputs[3].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// y\[r\] = 1 where the first of the largest logits of row r is its target, else 0; a row with a NaN is wrong.
#[derive(Clone, Debug)]
pub struct Correct;

impl Operation for Correct {
    fn name(&self) -> &'static str {
        "softmax_xent.correct"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [logits, targets] = shape::exactly(self.name(), inputs, ["logits", "targets"])?;
        let [rows, _] = sizes(self.name(), logits, targets)?;
        Ok(vec![Type::f32([rows])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let rows = inputs[0].data.chunks(inputs[0].shape[1]).zip(inputs[1].data);
        let correct = rows.map(|(x, &t)| {
            let mut best = 0;
            for c in 0..x.len() {
                if x[c] > x[best] {
                    best = c;
                }
            }
            f64::from(u8::from(best as f64 == t && x.iter().all(|v| !v.is_nan())))
        });
        vec![correct.collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            Launch::groups(SHADER, "correct", rows)
                .param("n", rows)
                .param("columns", columns)
                .param("smoothing", 0.0_f32)
                .bind("x", inputs[0].id)
                .bind("targets", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let logits = |rows: usize, columns: usize| Input::normal([rows, columns]).with(Elements::Normal(0.0, 2.0));
    let targets = |rows: usize, columns: usize| Input::integers([rows], Elements::Below(columns as u32));
    let mut cases = Vec::new();
    for (rows, columns) in
        [(1, 2), (1, 1), (7, 16), (13, 64), (5, 63), (3, 65), (67, 10), (130, 97), (11, 300), (2, 2003)]
    {
        let inputs = vec![logits(rows, columns), targets(rows, columns)];
        cases.push(Case::new(format!("{rows} rows of {columns}"), CrossEntropy::default(), inputs.clone()));
        cases.push(Case::new(format!("{rows} rows of {columns}"), Correct, without_gradient(inputs)).tolerance(0.0));
    }
    for (rows, columns, smoothing) in [(1, 2, 0.1), (3, 1, 0.1), (7, 16, 0.1), (13, 65, 0.5), (5, 130, 1.0)] {
        let smooth = CrossEntropy { smoothing };
        let inputs = vec![logits(rows, columns), targets(rows, columns)];
        cases.push(Case::new(format!("smoothed by {smoothing}, {rows} rows of {columns}"), smooth, inputs));
    }
    let spread = logits(31, 40).with(Elements::Uniform(-80.0, 80.0));
    let smooth = CrossEntropy { smoothing: 0.1 };
    cases.push(Case::new("smoothed, logits to 80", smooth, vec![spread, targets(31, 40)]));
    for size in [80.0, 1e4] {
        let spread = logits(31, 40).with(Elements::Uniform(-size, size));
        cases.push(Case::new(format!("logits to {size}"), CrossEntropy::default(), vec![spread, targets(31, 40)]));
        let row = [size, -size, 0.0, size, size, -size, -size, -size, 1.0 - size];
        let ends = logits(3, 3).with(Elements::Values(row.to_vec()));
        let first = Input::integers([3], Elements::Values(vec![1.0, 0.0, 2.0]));
        cases.push(Case::new(format!("logits at {size}"), CrossEntropy::default(), vec![ends, first]));
    }
    // Close together, far from zero: a log-sum-exp kept as one number has no digits left for the softmax.
    let far = logits(19, 12).with(Elements::Normal(1e4, 1.0));
    cases.push(Case::new("logits around 1e4", CrossEntropy::default(), vec![far, targets(19, 12)]));
    let many = vec![logits(65_537, 2), targets(65_537, 2)];
    cases.push(Case::new("more rows than one axis holds", CrossEntropy::default(), many.clone()));
    cases.push(Case::new("more rows than one axis holds", Correct, without_gradient(many)).tolerance(0.0));
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let odd = [
        [1.0, 1.0, 0.0], // a tie: the first wins
        [1.0, 1.0, 0.0],
        [nan, 0.0, 1.0],
        [0.0, nan, 1.0],
        [-inf, 0.0, inf],
        [3.0, 2.0, 1.0], // a target beyond the columns
    ];
    let ties = Input::constant([6, 3], Elements::Values(odd.concat()));
    let wanted = Input::integers([6], Elements::Values(vec![0.0, 1.0, 2.0, 1.0, 2.0, 3.0]));
    cases.push(Case::new("ties and NaN", Correct, vec![ties, wanted]).tolerance(0.0));
    cases
}

fn without_gradient(mut inputs: Vec<Input>) -> Vec<Input> {
    for input in &mut inputs {
        input.grad = false;
    }
    inputs
}
