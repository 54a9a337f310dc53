//! The contrastive loss between bank rows, views and negatives: normalisation, anchors, loss.

use super::case::{Case, Elements, Input};
use super::{Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::gpu::kernel::WORKGROUP;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "contrast";

/// What is added to a norm before a row is divided by it.
pub const NORM_EPSILON: f32 = 1e-6;

/// What the loss adds to the sum of exponentials.
const SUM_EPSILON: f64 = 1e-6;

/// `Params` of a launch; a member that an entry point does not use is 0.
#[derive(Default)]
struct Params {
    columns: usize,
    batch: usize,
    viewed: usize,
    negatives: usize,
    epsilon: f32,
    tau: Option<f32>,
}

impl Params {
    fn launch(&self, launch: Launch<ValueId>) -> Launch<ValueId> {
        let (inverse, floor) = match self.tau.map(f64::from) {
            Some(tau) => (1.0 / tau, tau * SUM_EPSILON.ln()),
            None => (0.0, 0.0),
        };
        launch
            .param("columns", self.columns)
            .param("batch", self.batch)
            .param("viewed", self.viewed)
            .param("negatives", self.negatives)
            .param("epsilon", self.epsilon)
            .param("inverse_tau", inverse as f32)
            .param("floor_score", floor as f32)
    }
    fn rows(&self, entry: &'static str, rows: usize) -> Launch<ValueId> {
        self.launch(Launch::groups(SHADER, entry, rows).param("n", rows))
    }
    fn elements(&self, entry: &'static str, n: usize) -> Launch<ValueId> {
        self.launch(Launch::items(SHADER, entry, n))
    }
}

/// n(x) = x / (||x|| + `epsilon`) of every row of x `[rows, columns]`.
///
/// Second output, for the gradient: the norms, `[rows]`.
#[derive(Clone, Debug)]
pub struct RowNormalise {
    /// Added to the norm.
    pub epsilon: f32,
}

impl Operation for RowNormalise {
    fn name(&self) -> &'static str {
        "contrast.normalise"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let [rows, _] = shape::floats(self.name(), x, "x")?;
        Ok(vec![x.clone(), Type::f32([rows])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (mut y, mut norms) = (Vec::new(), Vec::new());
        for x in inputs[0].data.chunks(inputs[0].shape[1]) {
            let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            y.extend(x.iter().map(|v| v / (norm + f64::from(self.epsilon))));
            norms.push(norm);
        }
        vec![y, norms]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        let op = RowNormaliseBackward { epsilon: self.epsilon };
        Ok(vec![Some(graph.one(op, &[node.inputs[0], node.outputs[1], dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        let launch = Params { columns, epsilon: self.epsilon, ..Params::default() }.rows("normalise", rows);
        vec![of_columns(launch, columns).bind("x", inputs[0].id).bind("y", outputs[0].id).bind("stats", outputs[1].id)]
    }
}

/// One workgroup per row, sized so that every invocation has at least eight columns: the bank's rows are many and short.
fn of_columns(mut launch: Launch<ValueId>, columns: usize) -> Launch<ValueId> {
    launch.set_workgroup(columns.div_ceil(8).next_power_of_two().clamp(8, WORKGROUP as usize) as u32);
    launch
}

/// Gradient of [`RowNormalise`]; the derivative of a norm at 0 is taken as 0, as PyTorch does.
///
/// Inputs: x, its rows' norms, dy.
#[derive(Clone, Debug)]
pub struct RowNormaliseBackward {
    /// Added to the norm.
    pub epsilon: f32,
}

impl Operation for RowNormaliseBackward {
    fn name(&self) -> &'static str {
        "contrast.normalise_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, norms, dy] = shape::exactly(self.name(), inputs, ["x", "norms", "dy"])?;
        let [rows, _] = shape::floats(self.name(), x, "x")?;
        shape::floats_as(self.name(), norms, "the saved norms", &[rows])?;
        shape::floats_as(self.name(), dy, "the upstream gradient", &x.shape)?;
        Ok(vec![x.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let columns = inputs[0].shape[1];
        let mut dx = Vec::new();
        let rows = inputs[0].data.chunks(columns).zip(inputs[2].data.chunks(columns));
        for ((x, dy), &norm) in rows.zip(inputs[1].data) {
            let length = norm + f64::from(self.epsilon);
            let dot: f64 = x.iter().zip(dy).map(|(a, b)| a * b).sum();
            let along = if norm > 0.0 { dot / (norm * length * length) } else { 0.0 };
            dx.extend(x.iter().zip(dy).map(|(a, b)| b / length - a * along));
        }
        vec![dx]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        let launch = Params { columns, epsilon: self.epsilon, ..Params::default() }.rows("normalise_backward", rows);
        vec![
            of_columns(launch, columns)
                .bind("x", inputs[0].id)
                .bind("stats_in", inputs[1].id)
                .bind("dy", inputs[2].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// Fails unless `rows` are those of a batch and whole sets of further views of its first `viewed` images.
fn whole_sets(op: &'static str, rows: usize, batch: usize, viewed: usize) -> Result<()> {
    let further = rows.checked_sub(batch).filter(|_| batch > 0 && (1..=batch).contains(&viewed));
    if further.is_some_and(|further| further.is_multiple_of(viewed)) {
        return Ok(());
    }
    let what = match viewed == batch {
        true => format!("{rows} embeddings are not a whole number of batches of {batch}"),
        false => {
            format!("{rows} embeddings are not a batch of {batch} and whole sets of views of {viewed} of its images")
        }
    };
    Err(Error::shape(op, what))
}

/// The anchor of every row: row r < batch meets its bank row, row batch + k meets z\[k mod viewed\].
///
/// Inputs: bank rows `[batch, columns]`, z `[batch + a multiple of viewed, columns]`; output as z.
#[derive(Clone, Debug)]
pub struct ContrastAnchors {
    /// Images that have further views: the first ones of the batch.
    pub viewed: usize,
}

impl Operation for ContrastAnchors {
    fn name(&self) -> &'static str {
        "contrast.anchors"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [bank, z] = shape::exactly(self.name(), inputs, ["bank rows", "z"])?;
        let [batch, columns] = shape::floats(self.name(), bank, "the bank rows")?;
        let [rows, wanted] = shape::floats(self.name(), z, "the embeddings")?;
        shape::same(self.name(), "a bank row", &[columns], &[wanted])?;
        whole_sets(self.name(), rows, batch, self.viewed)?;
        Ok(vec![z.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (block, set) = (inputs[0].data.len(), self.viewed * inputs[0].shape[1]);
        let anchor = |i: usize| if i < block { inputs[0].data[i] } else { inputs[1].data[(i - block) % set] };
        vec![(0..inputs[1].data.len()).map(anchor).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        let batch = graph.shape(node.inputs[0])[0];
        let wants = |graph: &Graph, i: usize| graph.value(node.inputs[i]).requires_grad;
        let bank = wants(graph, 0).then(|| graph.one(FirstRows { rows: batch }, &[dy])).transpose()?;
        let z = wants(graph, 1)
            .then(|| graph.one(ContrastAnchorsBackward { batch, viewed: self.viewed }, &[dy]))
            .transpose()?;
        Ok(vec![bank, z])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[batch, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            Params { columns, batch, viewed: self.viewed, ..Params::default() }
                .elements("anchors", outputs[0].len())
                .bind("anchor", inputs[0].id)
                .bind("x", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// dz\[i\] = sum over m >= 0 of dy\[batch + m viewed + i\] for i < viewed, 0 for the other rows. Input: dy.
#[derive(Clone, Debug)]
pub struct ContrastAnchorsBackward {
    /// Images of a batch.
    pub batch: usize,
    /// Images that have further views: the first ones of the batch.
    pub viewed: usize,
}

impl Operation for ContrastAnchorsBackward {
    fn name(&self) -> &'static str {
        "contrast.anchors_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [dy] = shape::exactly(self.name(), inputs, ["dy"])?;
        let [rows, _] = shape::floats(self.name(), dy, "the upstream gradient")?;
        whole_sets(self.name(), rows, self.batch, self.viewed)?;
        Ok(vec![dy.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (block, set) = (self.batch * inputs[0].shape[1], self.viewed * inputs[0].shape[1]);
        let mut dz = vec![0.0; inputs[0].data.len()];
        for (i, dy) in inputs[0].data.iter().skip(block).enumerate() {
            dz[i % set] += dy;
        }
        vec![dz]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Params { columns: outputs[0].shape[1], batch: self.batch, viewed: self.viewed, ..Params::default() }
                .elements("anchors_backward", outputs[0].len())
                .bind("dy", inputs[0].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// The first `rows` rows of a matrix: the gradient of [`ContrastAnchors`] in its bank rows.
#[derive(Clone, Debug)]
pub struct FirstRows {
    /// Rows of the result.
    pub rows: usize,
}

impl Operation for FirstRows {
    fn name(&self) -> &'static str {
        "contrast.first_rows"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let [rows, columns] = shape::floats(self.name(), x, "x")?;
        if rows < self.rows || self.rows == 0 {
            return Err(Error::shape(self.name(), format!("there are {rows} rows, {} wanted", self.rows)));
        }
        Ok(vec![Type::f32([self.rows, columns])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data[..self.rows * inputs[0].shape[1]].to_vec()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            Params::default().elements("first_rows", outputs[0].len()).bind("x", inputs[0].id).bind("y", outputs[0].id),
        ]
    }
}

/// loss\[r\] = -log( e^(p/tau) / (e^(p/tau) + sum_k e^(s\[r,k\]/tau) + 1e-6) ), p = a\[r\] . o\[r\].
///
/// Inputs: anchors a and others o, both normalised, `[rows, columns]`; scores s `[rows, negatives]`, the
/// others' products with the normalised negatives, not divided by tau. Computed as a log-sum-exp over the
/// positive, the negatives and ln 1e-6, so that it stays finite for small tau. Second output, for the
/// gradient: the largest of tau times those, the sum of exponentials relative to it, and that sum without
/// the positive, `[rows, 3]`.
#[derive(Clone, Debug)]
pub struct Nce {
    /// The temperature.
    pub tau: f32,
}

/// The number of rows, after checking anchors, others and scores against each other.
fn nce_rows(op: &'static str, [anchors, others, scores]: [&Type; 3], tau: f32) -> Result<usize> {
    if !(tau > 0.0 && tau.is_finite()) {
        return Err(Error::shape(op, format!("the temperature must be > 0, got {tau}")));
    }
    let [rows, _] = shape::floats(op, anchors, "the anchors")?;
    shape::floats_as(op, others, "the others", &anchors.shape)?;
    let [scores, _] = shape::floats(op, scores, "the scores")?;
    shape::same(op, "a column of the scores", &[scores], &[rows])?;
    Ok(rows)
}

impl Operation for Nce {
    fn name(&self) -> &'static str {
        "contrast.nce"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let rows =
            nce_rows(self.name(), shape::exactly(self.name(), inputs, ["anchors", "others", "scores"])?, self.tau)?;
        Ok(vec![Type::f32([rows]), Type::f32([rows, 3])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let tau = f64::from(self.tau);
        let [columns, negatives] = [inputs[0].shape[1], inputs[2].shape[1]];
        let (mut loss, mut stats) = (Vec::new(), Vec::new());
        for r in 0..inputs[0].shape[0] {
            let p: f64 = (r * columns..(r + 1) * columns).map(|i| inputs[0].data[i] * inputs[1].data[i]).sum();
            let mut others = inputs[2].data[r * negatives..(r + 1) * negatives].to_vec();
            others.push(tau * SUM_EPSILON.ln());
            let largest = others.iter().copied().fold(p, f64::max);
            let rest: f64 = others.iter().map(|s| ((s - largest) / tau).exp()).sum();
            let sum = rest + ((p - largest) / tau).exp();
            loss.push(if p == largest { rest.ln_1p() } else { sum.ln() + (largest - p) / tau });
            stats.extend([largest, sum, rest]);
        }
        vec![loss, stats]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dloss) = upstream[0] else { return Ok(vec![None; 3]) };
        let inputs = [node.inputs[0], node.inputs[1], node.inputs[2], node.outputs[1], dloss];
        let gradients = graph.apply(NceBackward { tau: self.tau }, &inputs)?;
        Ok(gradients.into_iter().map(Some).collect())
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let &[rows, columns] = inputs[0].shape else { unreachable!("checked by the shape rule") };
        vec![
            Params { columns, negatives: inputs[2].shape[1], tau: Some(self.tau), ..Params::default() }
                .rows("nce", rows)
                .bind("anchor", inputs[0].id)
                .bind("other", inputs[1].id)
                .bind("scores", inputs[2].id)
                .bind("y", outputs[0].id)
                .bind("stats", outputs[1].id),
        ]
    }
}

/// Gradients of [`Nce`] in its three inputs. Inputs: those three, its statistics, dloss.
#[derive(Clone, Debug)]
pub struct NceBackward {
    /// The temperature.
    pub tau: f32,
}

impl Operation for NceBackward {
    fn name(&self) -> &'static str {
        "contrast.nce_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let names = ["anchors", "others", "scores", "statistics", "dloss"];
        let [anchors, others, scores, statistics, dloss] = shape::exactly(self.name(), inputs, names)?;
        let rows = nce_rows(self.name(), [anchors, others, scores], self.tau)?;
        shape::floats_as(self.name(), statistics, "the saved statistics", &[rows, 3])?;
        shape::floats_as(self.name(), dloss, "the upstream gradient", &[rows])?;
        Ok(inputs[..3].to_vec())
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let tau = f64::from(self.tau);
        let [rows, columns] = [inputs[0].shape[0], inputs[0].shape[1]];
        let negatives = inputs[2].shape[1];
        let (mut da, mut d_other, mut ds) = (Vec::new(), Vec::new(), Vec::new());
        for r in 0..rows {
            let [largest, sum, rest] = [0, 1, 2].map(|i| inputs[3].data[3 * r + i]);
            let dloss = inputs[4].data[r];
            for i in r * columns..(r + 1) * columns {
                da.push(-dloss * rest / sum / tau * inputs[1].data[i]);
                d_other.push(-dloss * rest / sum / tau * inputs[0].data[i]);
            }
            for i in r * negatives..(r + 1) * negatives {
                ds.push(dloss * ((inputs[2].data[i] - largest) / tau).exp() / sum / tau);
            }
        }
        vec![da, d_other, ds]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (columns, negatives) = (inputs[0].shape[1], inputs[2].shape[1]);
        let params = Params { columns, negatives, tau: Some(self.tau), ..Params::default() };
        let mut launches = vec![
            params
                .elements("nce_backward_vectors", outputs[0].len())
                .bind("anchor", inputs[0].id)
                .bind("other", inputs[1].id)
                .bind("stats_in", inputs[3].id)
                .bind("dy", inputs[4].id)
                .bind("y", outputs[0].id)
                .bind("dother", outputs[1].id),
        ];
        launches.push(
            params
                .elements("nce_backward_scores", outputs[2].len())
                .bind("scores", inputs[2].id)
                .bind("stats_in", inputs[3].id)
                .bind("dy", inputs[4].id)
                .bind("y", outputs[2].id),
        );
        launches
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns) in [(1, 1), (1, 64), (7, 16), (13, 64), (5, 65), (131, 3), (67, 640)] {
        let what = format!("{rows} rows of {columns}");
        cases.push(Case::new(what, RowNormalise { epsilon: NORM_EPSILON }, vec![Input::normal([rows, columns])]));
    }
    let many = vec![Input::normal([65_537, 1])];
    cases.push(Case::new("more rows than one axis holds", RowNormalise { epsilon: 0.5 }, many));
    let zeros = Input::constant([3, 4], Elements::Values([[0.0; 4], [1.0, -2.0, 0.5, 3.0], [0.0; 4]].concat()));
    let norms = Input::constant([3], Elements::Values(vec![0.0, 14.25_f64.sqrt(), 0.0]));
    let dy = Input::constant([3, 4], Elements::Normal(0.0, 1.0));
    let epsilon = NORM_EPSILON;
    cases.push(Case::new("a row of zeros", RowNormalise { epsilon }, vec![zeros.clone()]));
    cases.push(Case::new("a row of zeros", RowNormaliseBackward { epsilon }, vec![zeros, norms, dy]));
    for (batch, viewed, copies, columns) in [
        (1, 1, 1, 1),
        (1, 1, 4, 64),
        (7, 7, 16, 16),
        (5, 5, 1, 3),
        (33, 33, 4, 64),
        (28, 4, 2, 64),
        (7, 3, 4, 5),
        (5, 1, 3, 1),
        (9, 2, 1, 3),
    ] {
        let what = format!("{viewed} of {batch} images with {copies} views of {columns}");
        let z = Input::normal([batch + (copies - 1) * viewed, columns]);
        let bank = Input::normal([batch, columns]);
        cases.push(Case::new(what, ContrastAnchors { viewed }, vec![bank, z]));
    }
    for (rows, columns, negatives, tau) in [
        (1, 1, 1, 1.0),
        (7, 16, 1, 0.5),
        (5, 64, 257, 0.1),
        (13, 64, 64, 0.01),
        (67, 16, 100, 1.0),
        (3, 64, 2003, 0.07),
        (131, 1, 5, 0.01),
    ] {
        let what = format!("{rows} rows of {columns}, {negatives} negatives, tau {tau}");
        // Products of rows of length one.
        let unit = || Input::normal([rows, columns]).with(Elements::Normal(0.0, (columns as f64).sqrt().recip()));
        let scores = Input::normal([rows, negatives]).with(Elements::Uniform(-1.0, 1.0));
        // An exponent of 1 / tau turns a score's rounding, 2^-24, into 2^-24 / tau.
        let tolerance = 2e-6 + 1.2e-7 / f64::from(tau);
        cases.push(Case::new(what, Nce { tau }, vec![unit(), unit(), scores]).tolerance(tolerance));
    }
    for p in [1.0, -1.0] {
        // The positive alone at one end, the negatives at the other.
        let inputs = vec![
            Input::normal([2, 2]).with(Elements::Values(vec![p, 0.0, 0.0, p])),
            Input::normal([2, 2]).with(Elements::Values(vec![1.0, 0.0, 0.0, 1.0])),
            Input::normal([2, 3]).with(Elements::Values(vec![-p; 6])),
        ];
        cases.push(Case::new(format!("products of {p} and {}, tau 0.01", -p), Nce { tau: 0.01 }, inputs));
    }
    cases
}
