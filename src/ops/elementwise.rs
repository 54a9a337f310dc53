//! Scale, sum, constant and (leaky) ReLU of float tensors of any shape.

use super::case::{Case, Elements, Input};
use super::operand::{ROW, by_rows};
use super::{ByRows, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "elementwise";

fn launch(entry: &'static str, n: usize, alpha: f32, beta: f32) -> Launch<ValueId> {
    Launch::items(SHADER, entry, n).param("alpha", alpha).param("beta", beta)
}

fn two_equal(op: &'static str, inputs: &[Type]) -> Result<Vec<Type>> {
    let [a, b] = shape::exactly(op, inputs, ["a", "b"])?;
    shape::any_floats(op, a, "a")?;
    shape::floats_as(op, b, "b", &a.shape)?;
    Ok(vec![a.clone()])
}

fn one(op: &'static str, inputs: &[Type]) -> Result<Vec<Type>> {
    let [a] = shape::exactly(op, inputs, ["a"])?;
    shape::any_floats(op, a, "a")?;
    Ok(vec![a.clone()])
}

/// y = `alpha` a.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The factor.
    pub alpha: f32,
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "elementwise.scale"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        one(self.name(), inputs)
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().map(|a| f64::from(self.alpha) * a).collect()]
    }
    fn backward(&self, graph: &mut Graph, _: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let dy = upstream.iter().flatten().copied().collect::<Vec<_>>();
        Ok(vec![Some(graph.one(self.clone(), &dy)?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![launch("scale", inputs[0].len(), self.alpha, 0.0).bind("a", inputs[0].id).bind("y", outputs[0].id)]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[ROW])
    }
}

/// The same elements under another shape (a copy).
#[derive(Clone, Debug)]
pub struct Reshape {
    /// The new shape.
    pub shape: Vec<usize>,
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "elementwise.reshape"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [a] = shape::exactly(self.name(), inputs, ["a"])?;
        shape::any_floats(self.name(), a, "a")?;
        let new = Type::f32(self.shape.clone());
        shape::output(self.name(), &new)?;
        if shape::product(&a.shape) != shape::product(&new.shape) {
            let what = format!("{:?} and {:?} differ in their number of elements", a.shape, self.shape);
            return Err(Error::shape(self.name(), what));
        }
        Ok(vec![new])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.to_vec()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        let shape = graph.shape(node.inputs[0]).to_vec();
        Ok(vec![Some(graph.one(Reshape { shape }, &[dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![launch("scale", inputs[0].len(), 1.0, 0.0).bind("a", inputs[0].id).bind("y", outputs[0].id)]
    }
}

/// y = `alpha` a + `beta` b.
#[derive(Clone, Debug)]
pub struct Add {
    /// Factor of the first input.
    pub alpha: f32,
    /// Factor of the second input.
    pub beta: f32,
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "elementwise.add"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        two_equal(self.name(), inputs)
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(a, b)| alpha * a + beta * b).collect()]
    }
    fn backward(&self, graph: &mut Graph, _: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        let mut scaled = |alpha: f32| -> Result<Option<ValueId>> {
            // A factor of one passes the gradient on as it is.
            Ok(Some(if alpha == 1.0 { dy } else { graph.one(Scale { alpha }, &[dy])? }))
        };
        Ok(vec![scaled(self.alpha)?, scaled(self.beta)?])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            launch("add", inputs[0].len(), self.alpha, self.beta)
                .bind("a", inputs[0].id)
                .bind("b", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW], &[ROW])
    }
}

/// A constant tensor.
#[derive(Clone, Debug)]
pub struct Fill {
    /// The value of every element.
    pub value: f32,
    /// Type of the result.
    pub ty: Type,
}

impl Operation for Fill {
    fn name(&self) -> &'static str {
        "elementwise.fill"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [] = shape::exactly(self.name(), inputs, [])?;
        shape::any_floats(self.name(), &self.ty, "the constant")?;
        Ok(vec![self.ty.clone()])
    }
    fn twin(&self, _: &[Host]) -> Vec<Vec<f64>> {
        vec![vec![f64::from(self.value); self.ty.len()]]
    }
    fn launches(&self, _: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![launch("fill", outputs[0].len(), self.value, 0.0).bind("y", outputs[0].id)]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[], &[ROW])
    }
}

/// y = a where a > 0, else `slope` a. ReLU is slope 0; the derivative at 0 is the slope, as in PyTorch.
#[derive(Clone, Debug)]
pub struct LeakyRelu {
    /// Slope on the negative side.
    pub slope: f32,
}

impl Operation for LeakyRelu {
    fn name(&self) -> &'static str {
        "elementwise.leaky_relu"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        one(self.name(), inputs)
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let slope = f64::from(self.slope);
        vec![inputs[0].data.iter().map(|&a| if a > 0.0 { a } else { slope * a }).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        // The output has the input's sign for any slope > 0, and its zeros for slope 0: keeping the
        // output instead of the input frees the input.
        Ok(vec![Some(graph.one(LeakyReluBackward { slope: self.slope }, &[node.outputs[0], dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![launch("leaky_relu", inputs[0].len(), self.slope, 0.0).bind("a", inputs[0].id).bind("y", outputs[0].id)]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW], &[ROW])
    }
}

/// dx = dy where a > 0, else `slope` dy. Inputs: the forward output (or input) a, dy.
#[derive(Clone, Debug)]
pub struct LeakyReluBackward {
    /// Slope on the negative side.
    pub slope: f32,
}

impl Operation for LeakyReluBackward {
    fn name(&self) -> &'static str {
        "elementwise.leaky_relu_backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        two_equal(self.name(), inputs)
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let slope = f64::from(self.slope);
        let pairs = inputs[0].data.iter().zip(inputs[1].data);
        vec![pairs.map(|(&a, &dy)| if a > 0.0 { dy } else { slope * dy }).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![
            launch("leaky_relu_backward", inputs[0].len(), self.slope, 0.0)
                .bind("a", inputs[0].id)
                .bind("b", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW], &[ROW])
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let apart = |n: usize| Input::normal([n]).with(Elements::Permutation);
    let mut cases = vec![
        Case::new("one element", Scale { alpha: -0.5 }, vec![Input::normal([1])]),
        Case::new("2x3x4 to 2x12", Reshape { shape: vec![2, 12] }, vec![Input::normal([2, 3, 4])]),
        Case::new("weighted", Add { alpha: 0.7, beta: -1.3 }, vec![Input::normal([5, 7]), Input::normal([5, 7])]),
        Case::new("sum", Add { alpha: 1.0, beta: 1.0 }, vec![Input::normal([130]), Input::normal([130])]),
        Case::new("constant", Fill { value: 0.3, ty: Type::f32([67]) }, vec![]),
        Case::new("more groups than one axis holds", Scale { alpha: 2.0 }, vec![Input::normal([64 * 65_536 + 3])]),
    ];
    for n in [1, 63, 64, 65, 997] {
        cases.push(Case::new(format!("{n} elements"), LeakyRelu { slope: 0.1 }, vec![apart(n)]));
        cases.push(Case::new(format!("{n} elements, slope 0"), LeakyRelu { slope: 0.0 }, vec![apart(n)]));
    }
    cases
}
