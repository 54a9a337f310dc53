//! Distillation: Kullback-Leibler divergence at a temperature, and squared error.

use super::case::{Case, Elements, Input};
use super::{Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "distill";

fn same_shape(op: &'static str, student: &Type, teacher: &Type) -> Result<()> {
    shape::any_floats(op, student, "the student")?;
    shape::floats_as(op, teacher, "the teacher", &student.shape)
}

fn check_temperature(op: &'static str, temperature: f32) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        return Err(Error::shape(op, format!("the temperature must be > 0, got {temperature}")));
    }
    Ok(())
}

/// Largest logit of a row and the sum of exponentials relative to it, at a temperature.
fn softmax_stats(row: &[f64], temperature: f64) -> [f64; 2] {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [largest, row.iter().map(|v| ((v - largest) / temperature).exp()).sum()]
}

/// y\[r\] = T^2 sum_c p_c (log p_c - log q_c), p = softmax(teacher\[r\] / T), q = softmax(student\[r\] / T).
///
/// Inputs: student, teacher `[rows, columns]`; the gradient is the student's alone. Second output, for the
/// gradient: largest logit and sum of exponentials of the student's and the teacher's rows, `[rows, 4]`.
#[derive(Clone, Debug)]
pub struct KlDivergence {
    /// T.
    pub temperature: f32,
}

impl Operation for KlDivergence {
    fn name(&self) -> &'static str {
        "distill.kl"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        check_temperature(self.name(), self.temperature)?;
        let [student, teacher] = shape::exactly(self.name(), inputs, ["student", "teacher"])?;
        let [rows, _] = shape::floats(self.name(), student, "the student")?;
        same_shape(self.name(), student, teacher)?;
        Ok(vec![Type::f32([rows]), Type::f32([rows, 4])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let t = f64::from(self.temperature);
        let columns = inputs[0].shape[1];
        let (mut loss, mut stats) = (Vec::new(), Vec::new());
        for (student, teacher) in inputs[0].data.chunks(columns).zip(inputs[1].data.chunks(columns)) {
            let ([max_s, sum_s], [max_t, sum_t]) = (softmax_stats(student, t), softmax_stats(teacher, t));
            let mut total = 0.0;
            for (s, w) in student.iter().zip(teacher) {
                let log_q = (s - max_s) / t - sum_s.ln();
                let log_p = (w - max_t) / t - sum_t.ln();
                total += log_p.exp() * (log_p - log_q);
            }
            loss.push(t * t * total);
            stats.extend([max_s, sum_s, max_t, sum_t]);
        }
        vec![loss, stats]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        let op = KlDivergenceBackward { temperature: self.temperature };
        let inputs = [node.inputs[0], node.inputs[1], node.outputs[1], dy];
        Ok(vec![Some(graph.one(op, &inputs)?), None])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            Launch::groups(SHADER, "kl", rows)
                .param("n", rows)
                .param("columns", columns)
                .param("temperature", self.temperature)
                .param("inverse_temperature", inverse(self.temperature))
                .bind("student", inputs[0].id)
                .bind("teacher", inputs[1].id)
                .bind("y", outputs[0].id)
                .bind("stats", outputs[1].id),
        ]
    }
}

fn inverse(temperature: f32) -> f32 {
    (1.0 / f64::from(temperature)) as f32
}

/// ds = T (q - p) dy. Inputs: student, teacher, the forward pass's statistics, dy.
#[derive(Clone, Debug)]
pub struct KlDivergenceBackward {
    /// T.
    pub temperature: f32,
}

impl Operation for KlDivergenceBackward {
    fn name(&self) -> &'static str {
        "distill.kl_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        check_temperature(self.name(), self.temperature)?;
        let names = ["student", "teacher", "statistics", "dy"];
        let [student, teacher, statistics, dy] = shape::exactly(self.name(), inputs, names)?;
        let [rows, _] = shape::floats(self.name(), student, "the student")?;
        same_shape(self.name(), student, teacher)?;
        shape::floats_as(self.name(), statistics, "the saved statistics", &[rows, 4])?;
        shape::floats_as(self.name(), dy, "the upstream gradient", &[rows])?;
        Ok(vec![student.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let t = f64::from(self.temperature);
        let mut ds = Vec::new();
        for (i, (s, w)) in inputs[0].data.iter().zip(inputs[1].data).enumerate() {
            let r = i / inputs[0].shape[1];
            let stats = &inputs[2].data[4 * r..4 * r + 4];
            let q = ((s - stats[0]) / t).exp() / stats[1];
            let p = ((w - stats[2]) / t).exp() / stats[3];
            ds.push(t * (q - p) * inputs[3].data[r]);
        }
        vec![ds]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Launch::items(SHADER, "kl_backward", outputs[0].len())
                .param("columns", outputs[0].shape[1])
                .param("temperature", self.temperature)
                .param("inverse_temperature", inverse(self.temperature))
                .bind("student", inputs[0].id)
                .bind("teacher", inputs[1].id)
                .bind("stats_in", inputs[2].id)
                .bind("dy", inputs[3].id)
                .bind("y", outputs[0].id),
        ]
    }
}

fn elements(entry: &'static str, n: usize) -> Launch<ValueId> {
    Launch::items(SHADER, entry, n)
        .param("columns", 1u32)
        .param("temperature", 1.0f32)
        .param("inverse_temperature", 1.0f32)
}

/// y = (student - teacher)^2 of each element; the gradient is the student's alone.
#[derive(Clone, Debug)]
pub struct SquaredError;

impl Operation for SquaredError {
    fn name(&self) -> &'static str {
        "distill.square"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [student, teacher] = shape::exactly(self.name(), inputs, ["student", "teacher"])?;
        same_shape(self.name(), student, teacher)?;
        Ok(vec![student.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(s, t)| (s - t) * (s - t)).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(graph.one(SquaredErrorBackward, &[node.inputs[0], node.inputs[1], dy])?), None])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            elements("square", outputs[0].len())
                .bind("student", inputs[0].id)
                .bind("teacher", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// ds = 2 (student - teacher) dy. Inputs: student, teacher, dy.
#[derive(Clone, Debug)]
pub struct SquaredErrorBackward;

impl Operation for SquaredErrorBackward {
    fn name(&self) -> &'static str {
        "distill.square_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [student, teacher, dy] = shape::exactly(self.name(), inputs, ["student", "teacher", "dy"])?;
        same_shape(self.name(), student, teacher)?;
        shape::floats_as(self.name(), dy, "the upstream gradient", &student.shape)?;
        Ok(vec![student.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let [s, t, dy] = [inputs[0].data, inputs[1].data, inputs[2].data];
        vec![(0..s.len()).map(|i| 2.0 * (s[i] - t[i]) * dy[i]).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            elements("square_backward", outputs[0].len())
                .bind("student", inputs[0].id)
                .bind("teacher", inputs[1].id)
                .bind("dy", inputs[2].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let student = |shape: [usize; 2]| Input::normal(shape).with(Elements::Normal(0.0, 3.0));
    let teacher = |shape: [usize; 2]| Input::constant(shape, Elements::Normal(0.5, 3.0));
    for (rows, columns, temperature) in
        [(1, 2, 4.0), (7, 16, 4.0), (13, 64, 1.0), (67, 10, 0.5), (5, 300, 4.0), (130, 65, 2.0)]
    {
        let shape = [rows, columns];
        let what = format!("{rows} rows of {columns}, temperature {temperature}");
        cases.push(Case::new(what, KlDivergence { temperature }, vec![student(shape), teacher(shape)]));
        let what = format!("{rows} x {columns}");
        cases.push(Case::new(what, SquaredError, vec![student(shape), teacher(shape)]));
    }
    for size in [80.0, 1e4] {
        let ends = Elements::Uniform(-size, size);
        let inputs = vec![student([17, 23]).with(ends.clone()), teacher([17, 23]).with(ends)];
        cases.push(Case::new(format!("logits to {size}"), KlDivergence { temperature: 1.0 }, inputs));
    }
    let hot = vec![teacher([9, 64]), teacher([9, 64]).with(Elements::Normal(0.0, 3.0))];
    cases.push(Case::new("temperature 10000", KlDivergence { temperature: 1e4 }, hot));
    // Close to each other, as at the end of a distillation: the divergence is of second order, and
    // the gradient, T (q - p), keeps 2^-24 p of rounding where q - p is a thousandth of p.
    let logits: Vec<f64> = (0..6 * 40).map(|i| f64::from((f64::from(i) * 0.37).sin() as f32)).collect();
    let near = logits.iter().enumerate().map(|(i, v)| v + 1e-3 * (i as f64 * 1.7).cos()).collect();
    let inputs = vec![student([6, 40]).with(Elements::Values(near)), teacher([6, 40]).with(Elements::Values(logits))];
    cases.push(Case::new("close logits", KlDivergence { temperature: 4.0 }, inputs).tolerance(1e-3));
    cases
}
