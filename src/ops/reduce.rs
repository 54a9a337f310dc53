//! Mean of all elements of a float tensor.

use super::case::{Case, Elements, Input};
use super::{Cost, Host, Operand, Operation, shape};
use crate::Result;
use crate::gpu::Launch;
use crate::gpu::kernel::WORKGROUP;
use crate::tape::{Graph, Node, Type, ValueId};

const SHADER: &str = "reduce";

/// Elements that one invocation adds; passed to the shader as `ITEMS`.
const ITEMS: usize = 16;

/// Elements that one workgroup adds.
pub(super) const CHUNK: usize = ITEMS * WORKGROUP as usize;

/// The outputs of a tree of sums over `n` elements: the result, `[1]`, and the sums between.
pub(super) fn tree(n: usize) -> Vec<Type> {
    let mut outputs = vec![Type::f32([1])];
    let mut left = n;
    while left > CHUNK {
        left = left.div_ceil(CHUNK);
        outputs.push(Type::f32([left]));
    }
    outputs
}

/// The launches of `entry` that climb such a tree: each sums the chunks of one operand into the next. `level` adds what
/// else a launch says: it is given its number, and whether it is the last.
pub(super) fn climb(
    (shader, entry): (&'static str, &'static str),
    inputs: &[Operand],
    outputs: &[Operand],
    level: impl Fn(Launch<ValueId>, usize, bool) -> Launch<ValueId>,
) -> Vec<Launch<ValueId>> {
    let (result, partial) = (&outputs[..1], &outputs[1..]);
    let (sources, targets) = (inputs[..1].iter().chain(partial), partial.iter().chain(result));
    let launch = |(number, (x, y)): (usize, (&Operand, &Operand))| {
        let launch = Launch::groups(shader, entry, x.len().div_ceil(CHUNK))
            .constant("ITEMS", ITEMS as u32)
            .param("n", x.len())
            .bind("x", x.id)
            .bind("y", y.id);
        level(launch, number, y.id == result[0].id)
    };
    sources.zip(targets).enumerate().map(launch).collect()
}

/// y = mean of all elements of x, shape `[1]`.
#[derive(Clone, Debug)]
pub struct Mean;

impl Operation for Mean {
    fn name(&self) -> &'static str {
        "reduce.mean"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        shape::any_floats(self.name(), x, "x")?;
        Ok(tree(x.len()))
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![vec![inputs[0].data.iter().sum::<f64>() / inputs[0].data.len() as f64]]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        let shape = graph.shape(node.inputs[0]).to_vec();
        Ok(vec![Some(graph.one(MeanBackward { shape }, &[dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let count = inputs[0].len() as f32;
        climb((SHADER, "sum_chunks"), inputs, outputs, |launch, _, last| {
            launch.param("divisor", if last { count } else { 1.0 })
        })
    }
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(&outputs[..1]))
    }
}

/// dx = dy / n for each of the n elements.
#[derive(Clone, Debug)]
pub struct MeanBackward {
    /// Shape of the forward input.
    pub shape: Vec<usize>,
}

impl Operation for MeanBackward {
    fn name(&self) -> &'static str {
        "reduce.mean_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [dy] = shape::exactly(self.name(), inputs, ["dy"])?;
        shape::floats_as(self.name(), dy, "dy", &[1])?;
        Ok(vec![Type::f32(self.shape.clone())])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let n: usize = self.shape.iter().product();
        vec![vec![inputs[0].data[0] / n as f64; n]]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = outputs[0].len();
        vec![
            Launch::items(SHADER, "broadcast", n)
                .param("divisor", n as f32)
                .bind("x", inputs[0].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    // Away from a mean of zero, where an error relative to the result says nothing about the sum.
    let x = |shape: Vec<usize>| vec![Input::normal(shape).with(Elements::Normal(1.0, 0.5))];
    let around = [1, 63, 64, 65, 997, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * CHUNK, CHUNK * CHUNK + 1];
    let mut cases: Vec<Case> =
        around.into_iter().map(|n| Case::new(format!("{n} elements"), Mean, x(vec![n])).tolerance(5e-7)).collect();
    cases.push(Case::new("a matrix", Mean, x(vec![37, 53])).tolerance(5e-7));
    let many = 64 * 65_536 + 3;
    cases.push(Case::new("more groups than one axis holds", Mean, x(vec![many])).tolerance(5e-7));
    cases
}
