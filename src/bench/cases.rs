//! What is measured: every distinct (operation, shapes) of a recorded training step, or shapes that the caller gives.
//! A case is one operation alone in a graph, with random inputs of the kind that the step would give it.

use std::collections::HashMap;
use std::str::FromStr;

use rand_distr::{Distribution, StandardNormal};

use crate::ier::spec::StepSpec;
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::ops::conv2d::Conv2d;
use crate::ops::matmul::Matmul;
use crate::ops::step_block::StepBlock;
use crate::ops::{self, Cost, Elements, Op};
use crate::random::{Rng, Stream};
use crate::settings::Config;
use crate::tape::backward::backward_from;
use crate::tape::passes::Passes;
use crate::tape::{Element, Graph, Node, Type, ValueId};
use crate::train::inputs::Rows;
use crate::train::record::{DataShape, spec, training_passes, training_step, views_of};
use crate::{Error, Result};

/// The contents of an input.
#[derive(Clone, Debug, PartialEq)]
enum Content {
    /// Standard normal floats.
    Normal,
    /// Floats from a half to one and a half: scales and variances.
    Positive,
    /// Floats that are 1 with probability 0.9, else 0.
    Mask,
    /// Integers below this.
    Below(u32),
    /// These words.
    Words(Vec<u32>),
    /// These floats.
    Floats(Vec<f32>),
}

/// The elements of an input as the device gets them.
#[derive(Clone, Debug)]
pub enum Data {
    /// Floats.
    F32(Vec<f32>),
    /// Unsigned integers.
    U32(Vec<u32>),
}

impl Data {
    /// The elements as a twin sees them.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Data::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
            Data::U32(values) => values.iter().map(|&v| f64::from(v)).collect(),
        }
    }
}

/// One operation at one size.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the operation.
    pub name: String,
    /// Shapes of its inputs and of its result.
    pub shape: String,
    /// The first layer that has it; the name of a backward operation's layer ends in '.
    pub layer: String,
    /// Number of times that the step has it.
    pub count: usize,
    /// The least work that it can be done with.
    pub cost: Cost,
    /// The operation alone; its inputs and targets are in arenas of their own.
    pub graph: Graph,
    contents: Vec<(ValueId, Content)>,
}

/// A shape that the caller gives, written as `conv:NxCxHxW:OUTPUTS:KERNEL[:STRIDE]` or
/// `matmul:ROWSxINNERxCOLUMNS`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A convolution with its gradients: x, output channels, side of the kernel, stride; padded by half the kernel.
    Conv {
        /// Images, channels, height, width.
        x: [usize; 4],
        /// Output channels.
        outputs: usize,
        /// Height and width of the kernel.
        kernel: usize,
        /// Step of the window.
        stride: usize,
    },
    /// A matrix product with its gradients: rows, inner size, columns.
    Matmul([usize; 3]),
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Argument {
            what: "request.shapes",
            got: text.to_owned(),
            wanted: "conv:NxCxHxW:OUTPUTS:KERNEL[:STRIDE] or matmul:ROWSxINNERxCOLUMNS".into(),
        };
        let sizes = |text: &str| -> Option<Vec<usize>> {
            text.split('x').map(|n| n.parse().ok().filter(|n| (1..=1 << 20).contains(n))).collect()
        };
        let one = |text: &str| sizes(text).and_then(|s| <[usize; 1]>::try_from(s).ok()).map(|[n]| n);
        let parse = || match text.split(':').collect::<Vec<_>>()[..] {
            ["conv", x, outputs, kernel] => Some(Shape::Conv {
                x: sizes(x)?.try_into().ok()?,
                outputs: one(outputs)?,
                kernel: one(kernel)?,
                stride: 1,
            }),
            ["conv", x, outputs, kernel, stride] => Some(Shape::Conv {
                x: sizes(x)?.try_into().ok()?,
                outputs: one(outputs)?,
                kernel: one(kernel)?,
                stride: one(stride)?,
            }),
            ["matmul", product] => Some(Shape::Matmul(sizes(product)?.try_into().ok()?)),
            _ => None,
        };
        parse().ok_or_else(wrong)
    }
}

impl Shape {
    /// Its tensors by name: the operands, and an upper bound of the result.
    fn tensors(&self) -> [(&'static str, Vec<usize>); 3] {
        match *self {
            Shape::Conv { x, outputs, kernel, stride } => {
                // The padding of half a kernel adds at most one pixel to a side.
                let side = |n: usize| n.div_ceil(stride.max(1)).saturating_add(1);
                let weight = vec![outputs, x[1], kernel, kernel];
                [("x", x.to_vec()), ("weight", weight), ("result", vec![x[0], outputs, side(x[2]), side(x[3])])]
            }
            Shape::Matmul([rows, inner, columns]) => {
                [("a", vec![rows, inner]), ("b", vec![inner, columns]), ("result", vec![rows, columns])]
            }
        }
    }

    /// Whether all tensors have at least one element, and no more than the indices of a shader reach.
    fn check(&self) -> Result<()> {
        let op = match self {
            Shape::Conv { .. } => "conv2d",
            Shape::Matmul(_) => "matmul",
        };
        for (name, shape) in self.tensors() {
            let elements = shape.iter().try_fold(1_u64, |all, &n| all.checked_mul(n as u64));
            if !elements.is_some_and(|n| (1..=MAX_ELEMENTS).contains(&n)) {
                let message = format!("{name} of shape {shape:?} must have 1 to {MAX_ELEMENTS} elements");
                return Err(Error::shape(op, format!("{message}; give smaller sizes")));
            }
        }
        Ok(())
    }

    /// The operation and its gradients, each alone, rewritten as the settings say.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sizes do not fit together, or a tensor is larger than a shader can index.
    pub fn cases(&self, config: &Config) -> Result<Vec<Case>> {
        self.check()?;
        let mut graph = Graph::new();
        let input = |graph: &mut Graph, name: &str, shape: &[usize]| graph.in_arena(name, name, Type::f32(shape), true);
        let y = match *self {
            Shape::Conv { x, outputs, kernel, stride } => {
                let weight = [outputs, x[1], kernel, kernel];
                let ids = [input(&mut graph, "x", &x), input(&mut graph, "weight", &weight)];
                graph.one(Conv2d::new(stride, kernel / 2), &ids)?
            }
            Shape::Matmul([rows, inner, columns]) => {
                let ids = [input(&mut graph, "a", &[rows, inner]), input(&mut graph, "b", &[inner, columns])];
                graph.one(Matmul::new(false, false), &ids)?
            }
        };
        let dy = graph.in_arena("dy", "dy", graph.value(y).ty.clone(), false);
        backward_from(&mut graph, &[(y, dy)])?;
        Passes { half: false, recompute: 0, ..training_passes(config) }.apply(&mut graph)?;
        distinct(&graph, &|_, value| content_of(&graph, value, None))
    }
}

/// The most elements of a tensor here: a quarter of what 32 bits count, as a graph allows.
const MAX_ELEMENTS: u64 = (u32::MAX / 4) as u64 - 1;

/// A training step that was recorded for measuring.
pub struct Recording {
    /// Its settings: a preset's with this side and batch.
    pub config: Config,
    /// What a data set determines.
    pub data: DataShape,
    /// Images with all their transforms.
    pub rows: usize,
    spec: StepSpec,
    graph: Graph,
}

/// Number of classes of the noise that stands in for a data set; CIFAR-FS and miniImageNet have as many.
const CLASSES: usize = 64;

impl Recording {
    /// Records the step of `config` at this side with at least this many rows.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Shape`] when the settings do not fit.
    pub fn new(config: &Config, side: usize, rows: usize) -> Result<Self> {
        let mut config = config.clone();
        // A run's first phase stands for it.
        config.method.phases.clear();
        config.optimiser.batch = (1..=rows).find(|&images| config.method.rows_of(images) >= rows).unwrap_or(1);
        config.data.side = Some(side);
        config.validate()?;
        config.check_side(side)?;
        // The fewest images that leave all negatives to draw from.
        let images = (config.method.negatives + 2 * config.optimiser.batch).max(CLASSES);
        let data = DataShape { side, classes: CLASSES, images };
        let (graph, _) = training_step(&config, data, false, false)?;
        let spec = spec(&config, data, false);
        let rows = spec.rows() * spec.parts;
        Ok(Recording { config, data, rows, spec, graph })
    }

    /// Floating-point operations of the step's products.
    pub fn flops(&self) -> u64 {
        ops::flops(&self.graph)
    }

    /// Those that are executed for them.
    pub fn executed(&self) -> u64 {
        ops::executed(&self.graph)
    }

    /// Whether any of them is executed by matrix units.
    pub fn on_matrix_units(&self) -> bool {
        self.graph.nodes.iter().any(|node| node.op.operation().factors().is_some())
    }

    /// Bytes of the largest tensor that grows with the rows.
    pub fn largest_bytes(&self) -> u64 {
        let made = self.graph.nodes.iter().filter(|n| !n.op.operation().in_place()).map(|n| n.outputs[0]);
        made.map(|id| self.graph.value(id).ty.bytes()).max().unwrap_or(0)
    }

    /// Every distinct operation of the step, in its order.
    ///
    /// # Errors
    /// [`Error::Shape`]: a defect, for the step itself was recorded.
    pub fn cases(&self) -> Result<Vec<Case>> {
        distinct(&self.graph, &|graph, id| content_of(graph, id, Some(self)))
    }

    fn words(&self, name: &str) -> Option<Content> {
        let batch = self.spec.batch;
        let spread = |n: usize| (0..batch).map(|i| (i * n / batch) as u32).collect();
        Some(match name {
            "images" => Content::Below(u32::MAX),
            "view index" => Content::Words(self.rows(|rows| rows.view_index(&self.spec, |slot| slot as u32))),
            "index" => Content::Words(spread(self.data.images)),
            "negatives" => Content::Below(self.data.images as u32),
            "classes" => Content::Below(self.spec.net.n_classes as u32),
            "transforms" => Content::Words(self.rows(|rows| rows.transforms.clone())),
            "step" => Content::Words(StepBlock::new(1, 1, 0.05, 0.1).words().to_vec()),
            "health" => Content::Below(1),
            "view parameters" => Content::Words(self.rows(|rows| rows.view_words.clone())),
            _ => return None,
        })
    }

    /// Something of the rows of a step.
    fn rows(&self, of: impl Fn(&Rows) -> Vec<u32>) -> Vec<u32> {
        let (set, ..) = views_of(&self.config);
        let (side, seed) = (self.data.side, self.config.run.seed);
        let padding = self.config.data.crop_padding_for(side);
        let sampler = ViewSampler::new(set, side, padding, seed, Augmentation::default());
        of(&Rows::new(&self.spec, &sampler, 1, 0))
    }
}

/// The kind of contents of a value of a step: what makes its kernels as fast, and its twin as exact, as in the step.
fn content_of(graph: &Graph, id: ValueId, step: Option<&Recording>) -> Content {
    let value = graph.value(id);
    if value.ty.element == Element::U32 {
        // No operation of a step reads words that another made; small ones would suit any that did.
        return step.and_then(|step| step.words(&value.name)).unwrap_or(Content::Below(2));
    }
    let maker = graph.nodes.iter().find_map(|n| Some((n, n.outputs.iter().position(|&output| output == id)?)));
    match maker.map(|(node, index)| node.op.operation().output_elements(index)) {
        Some(Elements::Mask(_)) => Content::Mask,
        Some(Elements::Uniform(..)) => Content::Positive,
        Some(Elements::Values(values)) => Content::Floats(values.iter().map(|&v| v as f32).collect()),
        _ if value.ty.len() == 1 || value.name.ends_with("running_var") => Content::Positive,
        _ => Content::Normal,
    }
}

/// The distinct operations of a graph, each alone.
fn distinct(graph: &Graph, content: &dyn Fn(&Graph, ValueId) -> Content) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for node in &graph.nodes {
        let (name, shape) = (node.op.operation().name(), shapes(graph, node));
        if let Some(&at) = seen.get(&(name, shape.clone())) {
            cases[at].count += 1;
            continue;
        }
        seen.insert((name, shape.clone()), cases.len());
        cases.push(alone(graph, node, shape, content)?);
    }
    Ok(cases)
}

/// `inputs -> result`, each as `16x64x32x32`, without the scales that matrix units need: the shape is that of the product.
fn shapes(graph: &Graph, node: &Node) -> String {
    let one = |&id: &ValueId| graph.shape(id).iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let scales = if node.op.operation().factors().is_some() { 2 } else { 0 };
    let inputs: Vec<String> = node.inputs[..node.inputs.len() - scales].iter().map(one).collect();
    format!("{} -> {}", inputs.join(", "), node.outputs.first().map(one).unwrap_or_default()).trim().to_owned()
}

/// A node in a graph of its own.
fn alone(graph: &Graph, node: &Node, shape: String, content: &dyn Fn(&Graph, ValueId) -> Content) -> Result<Case> {
    let mut own = Graph::new();
    let mut contents = Vec::new();
    let mut moved: HashMap<ValueId, ValueId> = HashMap::new();
    let mut take = |own: &mut Graph, id: &ValueId| {
        *moved.entry(*id).or_insert_with(|| {
            let name = format!("value {}", id.0);
            let new = own.in_arena(&name, name.clone(), graph.value(*id).ty.clone(), false);
            contents.push((new, content(graph, *id)));
            new
        })
    };
    let inputs: Vec<ValueId> = node.inputs.iter().map(|id| take(&mut own, id)).collect();
    if node.op.operation().in_place() {
        let targets: Vec<ValueId> = node.outputs.iter().map(|id| take(&mut own, id)).collect();
        own.update(node.op.clone(), &inputs, &targets)?;
    } else {
        own.kept = own.apply(node.op.clone(), &inputs)?;
    }
    let cost = ops::cost(&own, &own.nodes[0]);
    let (name, layer) = (node.op.operation().name().to_owned(), node.scope.clone());
    Ok(Case { name, shape, layer, count: 1, cost, graph: own, contents })
}

impl Case {
    /// The operation.
    pub fn op(&self) -> &Op {
        &self.graph.nodes[0].op
    }

    /// The elements of every input and target.
    pub fn data(&self) -> Vec<(ValueId, Data)> {
        // Drawing random numbers is slow. A prime number of them, repeated from another place for each input, is as
        // good for a kernel and its twin.
        const BLOCK: usize = 65_537;
        let mut rng = Rng::new(20_260, Stream::Order, 0, 0);
        let bits: Vec<u32> = (0..BLOCK).map(|_| rng.next_bits()).collect();
        let unit = |i: usize| crate::random::unit_f32(bits[i % BLOCK]);
        let normals: Vec<f32> = (0..BLOCK).map(|_| StandardNormal.sample(&mut rng)).collect();
        let fill = |k: usize, (id, content): &(ValueId, Content)| {
            let n = self.graph.value(*id).ty.len();
            let at = |i: usize| i + 7919 * k;
            let data = match content {
                Content::Normal => Data::F32((0..n).map(|i| normals[at(i) % BLOCK]).collect()),
                Content::Positive => Data::F32((0..n).map(|i| 0.5 + unit(at(i))).collect()),
                Content::Mask => Data::F32((0..n).map(|i| f32::from(u8::from(unit(at(i)) < 0.9))).collect()),
                Content::Below(bound) => Data::U32((0..n).map(|i| bits[at(i) % BLOCK] % bound).collect()),
                Content::Words(words) => Data::U32(words.clone()),
                Content::Floats(floats) => Data::F32(floats.clone()),
            };
            (*id, data)
        };
        self.contents.iter().enumerate().map(|(k, entry)| fill(k, entry)).collect()
    }
}

/// Parses shapes.
///
/// # Errors
/// [`Error::Argument`] with the text that was not understood; [`Error::Shape`] when a tensor is larger than a shader can
/// index.
pub fn parse_shapes(texts: &[String]) -> Result<Vec<Shape>> {
    let parse = |text: &String| {
        let shape: Shape = text.parse()?;
        shape.check().map(|()| shape)
    };
    texts.iter().map(parse).collect()
}
