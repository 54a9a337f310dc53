//! Matrix product, bias and bias gradient: the linear layer and the contrastive similarities.

use super::case::{Case, Elements, Input};
use super::factors::Factors;
use super::matrix::{self, TILE, without_scales};
use super::tile::Tile;
use super::{ByMatrix, Cost, Host, Operand, Operation, Pieces, Rewrites, shape};
use crate::gpu::Launch;
use crate::gpu::kernel::{WORKGROUP, fold};
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "matmul";

/// What one invocation computes.
const PRODUCT: Tile = Tile { entry: "product", down: 16, across: 4, lanes: 4, accumulators: 64, memory: 0 };

/// The same for software adapters, where terms and columns are multiples of four, and rows more than the other has.
const PRODUCT_BY_FOUR: Tile =
    Tile { entry: "product_by_four", down: 32, across: 4, lanes: 8, accumulators: 128, memory: 0 };

/// The fewest multiply-adds for it: those of smaller products take less time than another pipeline takes to compile.
const MANY: usize = 1 << 22;

/// What a workgroup computes that brings both operands to its memory: 32 terms of 32 rows, spread over the banks.
const PRODUCT_TILED: Tile =
    Tile { entry: "product_tiled", down: 32, across: 32, lanes: 0, accumulators: 4, memory: 2 * 4 * 32 * 34 };

fn launch(entry: &'static str, n: usize, rows: usize, columns: usize) -> Launch<ValueId> {
    Launch::items(SHADER, entry, n)
        .param("rows", rows)
        .param("columns", columns)
        .param("blocks", rows.div_ceil(PRODUCT.down))
}

fn without_strides(launch: Launch<ValueId>) -> Launch<ValueId> {
    ["inner", "a_m", "a_k", "b_k", "b_n"].into_iter().fold(launch, |l, name| l.param(name, 0_u32))
}

/// C = A B with A [m, k] (stored [k, m] if `trans_a`) and B [k, n] (stored [n, k] if `trans_b`).
#[derive(Clone, Debug)]
pub struct Matmul {
    /// The first input holds A transposed.
    pub trans_a: bool,
    /// The second input holds B transposed.
    pub trans_b: bool,
    /// By units that multiply matrices. Two further inputs are the [`Scale`](super::scale::Scale)s of A and B.
    pub factors: Option<Factors>,
}

impl Matmul {
    /// A product in f32.
    pub fn new(trans_a: bool, trans_b: bool) -> Self {
        Matmul { trans_a, trans_b, factors: None }
    }

    /// Steps between the rows and the terms of A, and between the terms and the columns of B.
    fn strides(&self, m: usize, k: usize, n: usize) -> [(&'static str, usize); 4] {
        let (a_m, a_k) = if self.trans_a { (1, m) } else { (k, 1) };
        let (b_k, b_n) = if self.trans_b { (1, k) } else { (n, 1) };
        [("a_m", a_m), ("a_k", a_k), ("b_k", b_k), ("b_n", b_n)]
    }

    fn sizes(&self, a: &[usize], b: &[usize]) -> (usize, usize, usize, usize) {
        let at = |shape: &[usize], i: usize| shape.get(i).copied().unwrap_or(1);
        let (m, k) = if self.trans_a { (at(a, 1), at(a, 0)) } else { (at(a, 0), at(a, 1)) };
        let (inner, n) = if self.trans_b { (at(b, 1), at(b, 0)) } else { (at(b, 0), at(b, 1)) };
        (m, k, inner, n)
    }
}

impl Operation for Matmul {
    fn name(&self) -> &'static str {
        "matmul.product"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let inputs = without_scales(self.name(), self.factors, inputs)?;
        let [a, b] = shape::exactly(self.name(), inputs, ["a", "b"])?;
        shape::floats::<2>(self.name(), a, "the first matrix")?;
        shape::floats::<2>(self.name(), b, "the second matrix")?;
        let (m, k, inner, n) = self.sizes(&a.shape, &b.shape);
        if k != inner {
            let (a, b) = (&a.shape, &b.shape);
            return Err(Error::shape(self.name(), format!("the inner sizes {k} and {inner} differ ({a:?}, {b:?})")));
        }
        Ok(vec![Type::f32([m, n])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (a, b) = (inputs[0].data, inputs[1].data);
        let (m, k, _, n) = self.sizes(inputs[0].shape, inputs[1].shape);
        let mut c = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                for l in 0..k {
                    let left = if self.trans_a { a[l * m + i] } else { a[i * k + l] };
                    let right = if self.trans_b { b[j * k + l] } else { b[l * n + j] };
                    c[i * n + j] += left * right;
                }
            }
        }
        vec![c]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dc) = upstream[0] else { return Ok(vec![None, None]) };
        if self.factors.is_some() {
            return Err(Error::Internal("a product is differentiated before a graph's passes rewrite it".into()));
        }
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let (ta, tb) = (self.trans_a, self.trans_b);
        let wanted = [graph.value(a).requires_grad, graph.value(b).requires_grad];
        let mut product = |wanted: bool, left: (ValueId, bool), right: (ValueId, bool)| {
            let op = Matmul::new(left.1, right.1);
            if wanted { graph.one(op, &[left.0, right.0]).map(Some) } else { Ok(None) }
        };
        // dA = dC B', dB = A' dC, each transposed where the operand is stored so.
        let (left, right) = if ta { ((b, tb), (dc, true)) } else { ((dc, false), (b, !tb)) };
        let da = product(wanted[0], left, right)?;
        let (left, right) = if tb { ((dc, true), (a, ta)) } else { ((a, !ta), (dc, false)) };
        let db = product(wanted[1], left, right)?;
        Ok(vec![da, db])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (m, k, _, n) = self.sizes(inputs[0].shape, inputs[1].shape);
        if let Some(factors) = self.factors {
            let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
            let [a_m, a_k, b_k, b_n] = self.strides(m, k, n);
            let sizes = [("rows", m), ("columns", n), ("inner", k), a_m, a_k, b_k, b_n];
            let product = matrix::launch("product", tiles, factors, [inputs[2].id, inputs[3].id], &sizes);
            let product = product.bind("a", inputs[0].id).bind("b", inputs[1].id).bind("y", outputs[0].id);
            return vec![product];
        }
        let lanes = n.div_ceil(PRODUCT.across).next_power_of_two().clamp(8, WORKGROUP as usize);
        let mut product = launch(PRODUCT.entry, 0, m, n)
            .param("inner", k)
            .bind("a", inputs[0].id)
            .bind("b", inputs[1].id)
            .bind("y", outputs[0].id);
        for (name, size) in self.strides(m, k, n) {
            product.set(name, size);
        }
        product.set_divisible_workgroup(lanes as u32);
        let grid = |tile: Tile, lanes: usize| fold(m.div_ceil(tile.down) * n.div_ceil(tile.across * lanes));
        product.groups = grid(PRODUCT, lanes);
        product.alternatives = vec![PRODUCT_TILED.alternative(grid(PRODUCT_TILED, 1))];
        let is_large = m.saturating_mul(k).saturating_mul(n) >= MANY && m > PRODUCT.down;
        if is_large && k.is_multiple_of(4) && n.is_multiple_of(4) {
            product.alternatives.push(PRODUCT_BY_FOUR.alternative(grid(PRODUCT_BY_FOUR, lanes)));
        }
        vec![product]
    }

    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        let (m, k, _, n) = self.sizes(inputs[0].shape, inputs[1].shape);
        let cost = Cost::moving(inputs.iter().chain(outputs)).multiply_adds(&[m, k, n]);
        cost.executing(cost.flops.saturating_mul(self.factors.map_or(1, Factors::products)))
    }

    fn algorithm(&self) -> Option<&'static str> {
        self.factors.map(Factors::algorithm)
    }

    fn factors(&self) -> Option<Factors> {
        self.factors
    }

    fn pieces(&self) -> Option<Pieces> {
        let rows: &[Option<usize>] =
            if self.trans_a { &[Some(1), None, None, None] } else { &[Some(0), None, None, None] };
        Some(Pieces { inputs: rows, outputs: &[0] })
    }

    fn rewrites(&self) -> &dyn Rewrites {
        self
    }
}

impl Rewrites for Matmul {
    fn by_matrix(&self, inputs: &[Type], factors: Factors) -> Option<ByMatrix> {
        let (m, k, _, n) = self.sizes(&inputs[0].shape, &inputs[1].shape);
        let op = || Matmul { factors: Some(factors), ..self.clone() }.into();
        self.factors.is_none().then(|| ByMatrix { op: op(), slope: None, least: m.min(n).min(k) })
    }
}

/// y = x + bias on every row. Inputs: x [r, c], bias `[c]`.
#[derive(Clone, Debug)]
pub struct AddRow;

impl Operation for AddRow {
    fn name(&self) -> &'static str {
        "matmul.add_row"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, bias] = shape::exactly(self.name(), inputs, ["x", "bias"])?;
        let [_, c] = shape::floats(self.name(), x, "x")?;
        shape::floats_as(self.name(), bias, "bias", &[c])?;
        Ok(vec![x.clone()])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let (x, bias) = (inputs[0].data, inputs[1].data);
        vec![x.iter().enumerate().map(|(i, v)| v + bias[i % bias.len()]).collect()]
    }

    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        let wanted = graph.value(node.inputs[1]).requires_grad;
        let bias = wanted.then(|| graph.one(ColumnSum, &[dy])).transpose()?;
        Ok(vec![Some(dy), bias])
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (rows, columns) = (inputs[0].shape[0], inputs[0].shape[1]);
        let launch = without_strides(launch("add_row", inputs[0].len(), rows, columns));
        vec![launch.bind("a", inputs[0].id).bind("b", inputs[1].id).bind("y", outputs[0].id)]
    }
}

/// `y[c]` = sum over rows of x [r, c]: the gradient of a bias.
#[derive(Clone, Debug)]
pub struct ColumnSum;

impl Operation for ColumnSum {
    fn name(&self) -> &'static str {
        "matmul.column_sum"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        let [_, c] = shape::floats(self.name(), x, "x")?;
        Ok(vec![Type::f32([c])])
    }

    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let columns = inputs[0].shape[1];
        let mut sums = vec![0.0; columns];
        inputs[0].data.iter().enumerate().for_each(|(i, v)| sums[i % columns] += v);
        vec![sums]
    }

    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let (rows, columns) = (inputs[0].shape[0], inputs[0].shape[1]);
        let launch = without_strides(launch("column_sum", columns, rows, columns));
        vec![launch.bind("a", inputs[0].id).bind("y", outputs[0].id)]
    }
}

/// y = x W' + b, the linear layer: x [r, in], weight [out, in], bias `[out]`.
///
/// # Errors
/// [`Error::Shape`] when the sizes differ.
pub fn linear(graph: &mut Graph, x: ValueId, weight: ValueId, bias: ValueId) -> Result<ValueId> {
    let product = graph.one(Matmul::new(false, true), &[x, weight])?;
    graph.one(AddRow, &[product, bias])
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let normal = |shape: [usize; 2]| Input::constant(shape, Elements::Normal(0.0, 1.0));
    let mut cases = Vec::new();
    let transposed = [(false, false), (false, true), (true, false), (true, true)];
    let shapes = |[m, k, n]: [usize; 3], (trans_a, trans_b)| {
        (if trans_a { [k, m] } else { [m, k] }, if trans_b { [n, k] } else { [k, n] })
    };
    for (m, k, n) in [(1, 1, 1), (7, 13, 5), (17, 64, 65), (33, 5, 300), (64, 257, 10)] {
        for (trans_a, trans_b) in transposed {
            let (a, b) = shapes([m, k, n], (trans_a, trans_b));
            let what = format!("{m}x{k} by {k}x{n}, transposed {trans_a} {trans_b}");
            cases.push(Case::new(what, Matmul::new(trans_a, trans_b), vec![Input::normal(a), Input::normal(b)]));
        }
    }
    for (trans_a, trans_b) in transposed {
        let (a, b) = shapes([602, 12, 584], (trans_a, trans_b));
        let what = format!("large, transposed {trans_a} {trans_b}");
        cases.push(Case::new(what, Matmul::new(trans_a, trans_b), vec![normal(a), normal(b)]));
    }
    for (m, k, n) in [(1, 1, 1), (7, 13, 5), (64, 16, 64), (65, 70, 130), (33, 257, 70)] {
        for (trans_a, trans_b) in transposed {
            let (a, b) = shapes([m, k, n], (trans_a, trans_b));
            for factors in [Factors::F16, Factors::F32x3] {
                let what = format!("{factors:?}, {m}x{k} by {k}x{n}, transposed {trans_a} {trans_b}");
                let inputs = matrix::scaled(vec![normal(a), normal(b)], [1.0, 1.0]);
                let op = Matmul { trans_a, trans_b, factors: Some(factors) };
                cases.push(Case::new(what, op, inputs).tolerance(matrix::tolerance(factors)));
            }
        }
    }
    for factors in [Factors::F16, Factors::F32x3] {
        // As small as gradients are: half precision alone holds nothing below 6e-8.
        let (a, b) = (Elements::Normal(0.0, 1e-12), Elements::Normal(0.0, 3e-9));
        let inputs = vec![Input::constant([40, 90], a), Input::constant([90, 70], b)];
        let op = Matmul { factors: Some(factors), ..Matmul::new(false, false) };
        let case = Case::new(format!("{factors:?}, small factors"), op, matrix::scaled(inputs, [1e-12, 3e-9]));
        cases.push(case.tolerance(matrix::tolerance(factors)));
    }
    cases.push(Case::new("7x5", AddRow, vec![Input::normal([7, 5]), Input::normal([5])]));
    cases.push(Case::new("129x70", AddRow, vec![Input::normal([129, 70]), Input::normal([70])]));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tile::tests::agree;

    #[test]
    fn tiles_are_those_of_the_shader() {
        for shader in [SHADER, "matmul_subgroup"] {
            agree(shader, &[(PRODUCT, 1), (PRODUCT_BY_FOUR, 1), (PRODUCT_TILED, 1)]);
        }
    }
}
