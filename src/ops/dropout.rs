//! Dropout, DropBlock and the random masks behind them: pure functions of (seed, layer, step).

use super::case::{Case, Elements, Input};
use super::elementwise::Fill;
use super::operand::{ROW, WHOLE, by_rows};
use super::step_block::StepBlock;
use super::{ByRows, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::gpu::kernel::WORKGROUP;
use crate::random::{Rng, Stream, unit_f32};
use crate::tape::{Graph, Node, Type, ValueId};
use crate::{Error, Result};

const SHADER: &str = "dropout";

/// Values of the shader's `Params`; each launch sets what it uses.
#[derive(Clone, Copy, Default)]
struct Params {
    n: usize,
    layer: u32,
    stream: u32,
    scheduled: bool,
    probability: f32,
    scale: f32,
    block: usize,
    side: usize,
    groups: usize,
}

fn launch(entry: &'static str, groups: usize, params: Params) -> Launch<ValueId> {
    Launch::groups(SHADER, entry, groups)
        .param("n", params.n)
        .param("layer", params.layer)
        .param("stream", params.stream)
        .param("scheduled", u32::from(params.scheduled))
        .param("probability", params.probability)
        .param("scale", params.scale)
        .param("block", params.block)
        .param("side", params.side)
        .param("groups", params.groups)
}

fn groups_of(invocations: usize) -> usize {
    invocations.div_ceil(WORKGROUP as usize)
}

/// The uniform draws of a layer at a step, in the order of the elements.
fn draws(step: &StepBlock, layer: u32, stream: Stream, n: usize) -> Vec<f32> {
    let mut rng = Rng::new(step.seed(), stream, step.draw, layer);
    (0..n).map(|_| unit_f32(rng.next_bits())).collect()
}

/// How likely a 1 is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Probability {
    /// This, always.
    Constant(f32),
    /// DropBlock's gamma for the keep rate in the step block: (1 - keep) / block^2 * side^2 / (side - block + 1)^2.
    Gamma {
        /// Side of a dropped square.
        block: usize,
        /// Side of the feature map.
        side: usize,
    },
}

impl Probability {
    /// What the scheduled drop rate is multiplied by.
    fn factor(self) -> f64 {
        match self {
            Probability::Constant(_) => 0.0,
            Probability::Gamma { block, side } => {
                let (block, side) = (block as f64, side as f64);
                (side / (block * (side - block + 1.0))).powi(2)
            }
        }
    }
}

/// A random mask: 1 with a probability, else 0. Input: the step block.
#[derive(Clone, Debug)]
pub struct Bernoulli {
    /// Which mask of the step: layers with the same number share their draws.
    pub layer: u32,
    /// [`Stream::Dropout`] or [`Stream::DropBlock`].
    pub stream: Stream,
    /// Of a 1.
    pub probability: Probability,
    /// Shape of the mask.
    pub shape: Vec<usize>,
}

impl Operation for Bernoulli {
    fn name(&self) -> &'static str {
        "dropout.bernoulli"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [step] = shape::exactly(self.name(), inputs, ["step block"])?;
        StepBlock::check(self.name(), step)?;
        Ok(vec![Type::f32(self.shape.clone())])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let step = StepBlock::of(&inputs[0]);
        let p = match self.probability {
            Probability::Constant(p) => f64::from(p),
            gamma @ Probability::Gamma { .. } => f64::from(step.drop_rate) * gamma.factor(),
        };
        let n = self.shape.iter().product();
        let draws = draws(&step, self.layer, self.stream, n);
        vec![draws.into_iter().map(|u| f64::from(u8::from(f64::from(u) < p))).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = outputs[0].len();
        let (scheduled, probability) = match self.probability {
            Probability::Constant(p) => (false, p),
            Probability::Gamma { .. } => (true, 0.0),
        };
        let scale = self.probability.factor() as f32;
        let (layer, stream) = (self.layer, self.stream as u32);
        let params = Params { n, layer, stream, scheduled, probability, scale, ..Params::default() };
        vec![launch("bernoulli", groups_of(n.div_ceil(4)), params).bind("step", inputs[0].id).bind("y", outputs[0].id)]
    }
    fn output_elements(&self, _: usize) -> Elements {
        Elements::Mask(0.9)
    }
}

/// y = x / keep where the layer's draw is below `keep`, else 0. Inputs: x, the step block.
///
/// The mask is not stored: the gradient draws it again.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Which mask of the step.
    pub layer: u32,
    /// The probability to keep an element.
    pub keep: f32,
}

impl Dropout {
    fn scale(&self) -> f32 {
        if self.keep > 0.0 { 1.0 / self.keep } else { 0.0 }
    }
}

impl Operation for Dropout {
    fn name(&self) -> &'static str {
        "dropout.dropout"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, step] = shape::exactly(self.name(), inputs, ["x", "step block"])?;
        shape::any_floats(self.name(), x, "x")?;
        StepBlock::check(self.name(), step)?;
        Ok(vec![x.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let draws = draws(&StepBlock::of(&inputs[1]), self.layer, Stream::Dropout, inputs[0].data.len());
        let scale = f64::from(self.scale());
        vec![draws.iter().zip(inputs[0].data).map(|(&u, x)| if u < self.keep { x * scale } else { 0.0 }).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(graph.one(self.clone(), &[dy, node.inputs[1]])?), None])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = outputs[0].len();
        let (layer, stream) = (self.layer, Stream::Dropout as u32);
        let params = Params { n, layer, stream, probability: self.keep, scale: self.scale(), ..Params::default() };
        vec![
            launch("dropout", groups_of(n.div_ceil(4)), params)
                .bind("a", inputs[0].id)
                .bind("step", inputs[1].id)
                .bind("y", outputs[0].id),
        ]
    }
}

/// Seeds [N, C, side-block+1, side-block+1] to keep masks [N, C, side, side]: 0 in the `block` x `block`
/// square whose top left corner is a seed, 1 outside all of them.
#[derive(Clone, Debug)]
pub struct DropBlockKeep {
    /// Side of a dropped square.
    pub block: usize,
}

impl Operation for DropBlockKeep {
    fn name(&self) -> &'static str {
        "dropout.block_keep"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [seeds] = shape::exactly(self.name(), inputs, ["seeds"])?;
        let [n, c, rows, cols] = shape::floats(self.name(), seeds, "the seeds")?;
        // A side of 2^16 or more has more pixels than a tensor may have.
        if rows != cols || self.block == 0 || self.block > usize::from(u16::MAX) {
            return Err(Error::shape(
                self.name(),
                format!("wants square seeds and a block of at least 1, got {rows}x{cols} and {}", self.block),
            ));
        }
        let side = rows + self.block - 1;
        Ok(vec![Type::f32([n, c, side, side])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let corners = inputs[0].shape[3];
        let side = corners + self.block - 1;
        let planes = inputs[0].data.len() / (corners * corners);
        let mut keep = vec![1.0; planes * side * side];
        for (i, &seed) in inputs[0].data.iter().enumerate() {
            let (plane, top, left) = (i / (corners * corners), i / corners % corners, i % corners);
            if seed != 0.0 {
                for row in top..top + self.block {
                    for col in left..left + self.block {
                        keep[(plane * side + row) * side + col] = 0.0;
                    }
                }
            }
        }
        vec![keep]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = outputs[0].len();
        let params = Params { n, block: self.block, side: outputs[0].shape[3], ..Params::default() };
        vec![launch("block_keep", groups_of(n), params).bind("a", inputs[0].id).bind("y", outputs[0].id)]
    }
    fn output_elements(&self, _: usize) -> Elements {
        Elements::Mask(0.9)
    }
}

/// elements / kept elements of a mask, `[1]`; 0 when nothing is kept.
#[derive(Clone, Debug)]
pub struct KeepScale;

impl KeepScale {
    /// Workgroups that count; few, so that one workgroup adds their counts.
    fn groups(n: usize) -> usize {
        n.div_ceil(16 * WORKGROUP as usize).clamp(1, 1024)
    }
}

impl Operation for KeepScale {
    fn name(&self) -> &'static str {
        "dropout.scale_kept"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [mask] = shape::exactly(self.name(), inputs, ["mask"])?;
        shape::any_floats(self.name(), mask, "the mask")?;
        Ok(vec![Type::f32([1]), Type::u32([Self::groups(mask.len())])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let kept = inputs[0].data.iter().filter(|&&m| m != 0.0).count();
        vec![vec![if kept == 0 { 0.0 } else { inputs[0].data.len() as f64 / kept as f64 }]]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let groups = outputs[1].len();
        let params = Params { n: inputs[0].len(), groups, ..Params::default() };
        vec![
            launch("count_kept", groups, params).bind("a", inputs[0].id).bind("counts", outputs[1].id),
            launch("scale_kept", 1, params).bind("counts", outputs[1].id).bind("y", outputs[0].id),
        ]
    }
}

/// y = x * mask * `scale[0]`. Inputs: x, the mask of the same shape, the scale `[1]`.
#[derive(Clone, Debug)]
pub struct ApplyMask;

impl Operation for ApplyMask {
    fn name(&self) -> &'static str {
        "dropout.apply_mask"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, mask, scale] = shape::exactly(self.name(), inputs, ["x", "mask", "scale"])?;
        shape::any_floats(self.name(), x, "x")?;
        shape::floats_as(self.name(), mask, "the mask", &x.shape)?;
        shape::floats_as(self.name(), scale, "the scale", &[1])?;
        Ok(vec![x.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let scale = inputs[2].data[0];
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(x, m)| x * m * scale).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None; 3]) };
        Ok(vec![Some(graph.one(ApplyMask, &[dy, node.inputs[1], node.inputs[2]])?), None, None])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let n = outputs[0].len();
        vec![
            launch("apply_mask", groups_of(n), Params { n, ..Params::default() })
                .bind("a", inputs[0].id)
                .bind("b", inputs[1].id)
                .bind("factor", inputs[2].id)
                .bind("y", outputs[0].id),
        ]
    }
    fn by_rows(&self, _: usize) -> Option<ByRows> {
        by_rows(&[ROW, ROW, WHOLE], &[ROW])
    }
}

/// Appends dropout with drop probability `p`; `layer` must differ between the layers of a step.
///
/// # Errors
/// [`Error::Shape`] when `p` is not in [0, 1] or `step` is not a step block.
pub fn dropout(graph: &mut Graph, x: ValueId, step: ValueId, layer: u32, p: f32) -> Result<ValueId> {
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::shape("dropout.dropout", format!("the drop probability is {p}, it must be in [0, 1]")));
    }
    graph.one(Dropout { layer, keep: 1.0 - p }, &[x, step])
}

/// Appends DropBlock with squares of side `block`, or of the map's side where that is smaller; the drop rate
/// is that of the step block. `layer` must differ between the layers of a step.
///
/// # Errors
/// [`Error::Shape`] when `x` is not a batch of square maps.
pub fn drop_block(graph: &mut Graph, x: ValueId, step: ValueId, layer: u32, block: usize) -> Result<ValueId> {
    let [n, c, side, width] = shape::floats("dropout.bernoulli", &graph.value(x).ty, "x")?;
    let block = block.min(side);
    if side != width || block == 0 {
        let message = format!("DropBlock wants square maps and a block of at least 1, got {side}x{width} and {block}");
        return Err(Error::shape("dropout.bernoulli", message));
    }
    let corners = side - block + 1;
    let probability = Probability::Gamma { block, side };
    let shape = vec![n, c, corners, corners];
    let seeds = graph.one(Bernoulli { layer, stream: Stream::DropBlock, probability, shape }, &[step])?;
    drop_blocks_at(graph, x, seeds, block)
}

/// DropBlock with given seeds [N, C, side-block+1, side-block+1].
///
/// # Errors
/// [`Error::Shape`] when the seeds do not fit x.
pub fn drop_blocks_at(graph: &mut Graph, x: ValueId, seeds: ValueId, block: usize) -> Result<ValueId> {
    let keep = graph.one(DropBlockKeep { block }, &[seeds])?;
    let scale = graph.one(KeepScale, &[keep])?;
    graph.one(ApplyMask, &[x, keep, scale])
}

/// Appends x * mask * `scale` for a mask of the caller.
///
/// # Errors
/// [`Error::Shape`] when the mask has another shape than x.
pub fn apply_given_mask(graph: &mut Graph, x: ValueId, mask: ValueId, scale: f32) -> Result<ValueId> {
    let scale = graph.one(Fill { value: scale, ty: Type::f32([1]) }, &[])?;
    graph.one(ApplyMask, &[x, mask, scale])
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    let step = |draw: u32, drop: f32| StepBlock::new(draw, 0x0123_4567_89ab_cdef, 0.05, drop).input();
    let mut cases = Vec::new();
    for (n, p) in [(1, 0.5), (3, 0.9), (64, 0.1), (259, 0.9), (1021, 0.0), (1022, 1.0), (40_000, 0.9)] {
        let op = |stream, layer| {
            let probability = Probability::Constant(p);
            Bernoulli { layer, stream, probability, shape: vec![n] }
        };
        let what = format!("{n} elements, p {p}");
        cases.push(Case::new(&what, op(Stream::Dropout, 3), vec![step(7, 0.0)]).tolerance(0.0));
        cases.push(Case::new(&what, op(Stream::DropBlock, u32::MAX), vec![step(u32::MAX, 0.0)]).tolerance(0.0));
        cases.push(Case::new(&what, Dropout { layer: 1, keep: p }, vec![Input::normal([n]), step(11, 0.0)]));
    }
    for (block, side) in [(1, 4), (2, 5), (5, 5), (5, 21), (3, 11), (2, 2)] {
        let corners = side - block + 1;
        for drop in [0.0, 0.1, 1.0] {
            let probability = Probability::Gamma { block, side };
            let shape = vec![3, 5, corners, corners];
            let seeds = Bernoulli { layer: 2, stream: Stream::DropBlock, probability, shape };
            let what = format!("block {block} in {side}x{side}, drop rate {drop}");
            cases.push(Case::new(what, seeds, vec![step(40_000, drop)]).tolerance(0.0));
        }
        for p in [0.0, 0.07, 0.6] {
            let seeds = Input::constant([2, 3, corners, corners], Elements::Mask(p));
            let what = format!("block {block} in {side}x{side}, seed rate {p}");
            cases.push(Case::new(what, DropBlockKeep { block }, vec![seeds]).tolerance(0.0));
        }
    }
    for (n, p) in [(1, 1.0), (63, 0.5), (65, 0.0), (1025, 0.9), (70_001, 0.9), (1_100_000, 0.5)] {
        cases.push(Case::new(
            format!("{n} elements, {p} kept"),
            KeepScale,
            vec![Input::constant([n], Elements::Mask(p))],
        ));
    }
    for n in [1, 64, 997] {
        let scale = Input::constant([1], Elements::Values(vec![1.25]));
        let mask = Input::constant([n], Elements::Mask(0.7));
        cases.push(Case::new(format!("{n} elements"), ApplyMask, vec![Input::normal([n]), mask, scale]));
    }
    cases
}
