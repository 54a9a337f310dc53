//! The recorded step: values and the nodes that make them. Printable, no device.
//!
//! A graph holds operations, and the gradient of an [`Operation`] is more of the graph: both are defined here.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::value::{Storage, Type, Value, ValueId};
use crate::gpu::Launch;
use crate::ops::elements::Elements;
use crate::ops::factors::Factors;
use crate::ops::operand::{ByRows, Cost, Host, Operand, PartialSums, Pieces};
use crate::ops::shape;
use crate::{Error, Result};

/// What every operation knows about itself.
///
/// An operation from outside the crate implements `name`, `outputs`, `twin`, `launches` and, where it has a gradient,
/// `backward`; it enters a graph as the crate's own do.
pub trait Operation: fmt::Debug + Any + Send + Sync {
    /// `file.entry`-like name for plans, errors and reports.
    fn name(&self) -> &'static str;

    /// Shape rule. For an operation in place the last inputs are the values it updates.
    ///
    /// Outputs after those that the twin returns are workspace: scratch between the launches of the node.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] naming the operation, what it wanted and what it got, for any other number of inputs,
    /// elements, axes and sizes than it can compute with. It must not panic.
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>>;

    /// Whether the outputs are persistent values that are updated in place.
    fn in_place(&self) -> bool {
        false
    }

    /// The plainest correct computation, in f64, of inputs whose types [`Operation::outputs`] accepted. For an operation
    /// in place the last inputs are the old values of its targets, and the result is their new values.
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>>;

    /// Appends the nodes of the gradient, given the gradients of the outputs; returns one for each input.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] from the nodes it appends.
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let _ = (graph, upstream);
        Ok(vec![None; node.inputs.len()])
    }

    /// The dispatches, in order, over operands whose types [`Operation::outputs`] accepted and made.
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>>;

    /// The least work there is in it, with which `bench` compares its time. Unless told otherwise: no arithmetic
    /// worth counting, every input read and every output written once. An operation with convolutions or products
    /// counts them; one with workspace, or that reads part of an input, counts its own bytes.
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        Cost::moving(inputs.iter().chain(outputs)).and_moving(if self.in_place() { outputs } else { &[] })
    }

    /// How it is computed, where there are several ways that give other numbers: a word or two for `bench` and `plan`.
    fn algorithm(&self) -> Option<&'static str> {
        None
    }

    /// How its factors are rounded for matrix units; none where it has no factors or they are f32.
    fn factors(&self) -> Option<Factors> {
        None
    }

    /// How it falls apart into smaller ones of the same kind, so that its twin can be run on a part of what
    /// the device computed; none where it does not.
    fn pieces(&self) -> Option<Pieces> {
        None
    }

    /// Which of its `inputs` inputs and of its outputs go by rows, where every row of the latter comes from the same row
    /// of the former: it can then be computed a few rows at a time. None where it cannot. See [`crate::ops::rows`].
    fn by_rows(&self, inputs: usize) -> Option<ByRows> {
        let _ = inputs;
        None
    }

    /// For an operation that first sums parts of its rows, each by itself, and then joins the sums.
    fn partial_sums(&self) -> Option<&dyn PartialSums> {
        None
    }

    /// The forms of it that the passes of [`crate::tape`] may put in its place.
    fn rewrites(&self) -> &dyn Rewrites {
        &NoRewrites
    }

    /// What the parts of a batch have in common, where a batch is computed in several at once; none where each has its own.
    /// Alone an operation leaves what its own part makes. See `train::joint`.
    fn joined(&self) -> Option<Joined> {
        None
    }

    /// What output `index` holds, roughly: `bench` makes the inputs of the operations behind it alike. Unless told
    /// otherwise the first is normal; what is made beside it is saved for a gradient, and positive: norms, deviations,
    /// sums of exponentials.
    fn output_elements(&self, index: usize) -> Elements {
        if index == 0 { Elements::Normal(0.0, 1.0) } else { Elements::Uniform(0.5, 1.5) }
    }
}

/// Makes of the floats of each part, in order, those that all parts then have. All parts have as many; a part alone is what
/// it was.
pub type Join = fn(&[&[f32]]) -> Vec<f32>;

/// Outputs of an operation that all parts of a batch have in common: see [`Operation::joined`].
#[derive(Clone, Debug)]
pub struct Joined {
    /// The outputs, all of them floats.
    pub outputs: Range<usize>,
    /// How they are joined, one output behind the other.
    pub join: Join,
}

/// An operation of a graph, whichever it is.
#[derive(Clone)]
pub struct Op(Arc<dyn Operation>);

impl<T: Operation> From<T> for Op {
    fn from(operation: T) -> Self {
        Op(Arc::new(operation))
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Op {
    /// What it does.
    pub fn operation(&self) -> &dyn Operation {
        &*self.0
    }

    /// The operation itself, where it is a `T`.
    pub fn downcast_ref<T: Operation>(&self) -> Option<&T> {
        let any: &dyn Any = self.operation();
        any.downcast_ref()
    }

    /// The types of the outputs, as [`Operation::outputs`], with what holds for every operation checked before and after:
    /// no tensor is empty or larger than a shader can index.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the operation, what it wanted and what it got.
    pub fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let operation = self.operation();
        let name = operation.name();
        inputs.iter().enumerate().try_for_each(|(i, ty)| shape::input(name, ty, &format!("input {i}")))?;
        let outputs = operation.outputs(inputs)?;
        outputs.iter().try_for_each(|ty| shape::output(name, ty))?;
        Ok(outputs)
    }
}

/// Forms of an operation that compute the same with less memory or time; none unless told otherwise.
pub trait Rewrites {
    /// For a batch norm whose first output, y, can be left to its readers.
    fn as_norm(&self) -> Option<Norm> {
        None
    }

    /// The same operation reading x and its statistics (as a further, last input) where it now reads their y with
    /// this slope as input `index`; none where it cannot compute y itself. See [`crate::tape::fuse`].
    fn with_fused_norm(&self, index: usize, slope: f32) -> Option<Op> {
        let _ = (index, slope);
        None
    }

    /// The same operation with its output in the place of its last input; none where it needs both.
    fn in_place_variant(&self) -> Option<Op> {
        None
    }

    /// Whether its first output may be made again instead of being kept: it depends on the inputs alone, and costs
    /// little for its size. See [`crate::tape::recompute`].
    fn recomputable(&self) -> bool {
        false
    }

    /// The same operation with less than half of the multiplications, where it has one that gains by that; its result
    /// stays its first output. See [`crate::tape::winograd`].
    fn by_winograd(&self, inputs: &[Type]) -> Option<Op> {
        let _ = inputs;
        None
    }

    /// The same operation on units that multiply matrices, where it has a form for them. See [`crate::tape::matrix`].
    fn by_matrix(&self, inputs: &[Type], factors: Factors) -> Option<ByMatrix> {
        let _ = (inputs, factors);
        None
    }

    /// Whether it reads input `index` in half precision, too. See [`crate::tape::half_precision`].
    fn reads_half(&self, index: usize) -> bool {
        let _ = index;
        false
    }

    /// Whether it can write its first output in half precision.
    fn writes_half(&self) -> bool {
        false
    }
}

/// The rewrites of an operation that has none.
struct NoRewrites;

impl Rewrites for NoRewrites {}

/// A batch norm as those see it who read its y.
pub struct Norm {
    /// Slope of the LeakyReLU in y.
    pub slope: f32,
    /// The operation without the output y; the statistics are then its first output.
    pub without_y: Op,
}

/// An operation on units that multiply matrices: its first two inputs are the factors, and their scales follow its inputs.
pub struct ByMatrix {
    /// The operation.
    pub op: Op,
    /// The slope behind the batch norm of the first factor, where its third input is the statistics of one.
    pub slope: Option<f32>,
    /// The least of the product's rows, columns and terms: where there are few, a unit multiplies mostly zeros.
    pub least: usize,
}

/// One operation of the step.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it writes; for an operation in place also read.
    pub outputs: Vec<ValueId>,
    /// Layer it belongs to, for plans and errors.
    pub scope: String,
}

/// Values in an arena start at multiples of this many bytes (WebGPU's storage offset alignment).
pub const ARENA_ALIGNMENT: u64 = 256;

/// Floats between the places where values of an arena may start: what lies within such a block is of one value.
pub const BLOCK: usize = ARENA_ALIGNMENT as usize / 4;

/// The recorded step.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All values; a [`ValueId`] is a position.
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) arenas: BTreeMap<String, u64>,
    /// Transient values that must survive until the end of the step.
    pub(crate) kept: Vec<ValueId>,
    pub(crate) backward_at: Option<usize>,
    scope: String,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the layer that the following nodes belong to.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// The ids of all values.
    pub fn ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// All values, in the order of [`Graph::ids`].
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// All nodes in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Bytes of each arena, by name.
    pub fn arenas(&self) -> &BTreeMap<String, u64> {
        &self.arenas
    }

    /// Transient values that survive until the end of the step.
    pub fn kept(&self) -> &[ValueId] {
        &self.kept
    }

    /// The number of nodes before the backward pass, once there is one: what is alive across it was kept for it.
    pub fn backward_at(&self) -> Option<usize> {
        self.backward_at
    }

    /// Fails unless the id can be one of this graph's.
    ///
    /// # Errors
    /// [`Error::Argument`] when the graph has fewer values.
    pub fn check_id(&self, id: ValueId) -> Result<()> {
        if (id.0 as usize) < self.values.len() {
            return Ok(());
        }
        Err(Error::Argument {
            what: "a value",
            got: format!("number {}", id.0),
            wanted: format!("one of the graph's own {}", self.values.len()),
        })
    }

    /// The value behind an id.
    ///
    /// # Panics
    /// For an id of another graph, where this one has fewer values: see [`Graph::check_id`].
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The shape of a value.
    ///
    /// # Panics
    /// As [`Graph::value`].
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.value(id).ty.shape
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    /// The place of this number of bytes at the end of the named arena.
    fn place(&mut self, arena: &str, bytes: u64) -> Storage {
        let end = self.arenas.entry(arena.to_string()).or_insert(0);
        let offset = *end;
        // An arena that is too large stays so: no device has it.
        let most = u64::MAX - (ARENA_ALIGNMENT - 1);
        *end = offset.saturating_add(bytes).min(most).next_multiple_of(ARENA_ALIGNMENT);
        Storage::Arena { arena: arena.to_string(), offset }
    }

    /// A new value at the end of the named arena. One that is empty, or has more than 2^32 elements, is refused by the
    /// operation that reads it.
    pub fn in_arena(&mut self, arena: &str, name: impl Into<String>, ty: Type, requires_grad: bool) -> ValueId {
        let storage = self.place(arena, ty.bytes());
        self.push(Value { name: name.into(), ty, storage, requires_grad })
    }

    /// A value that the host writes: an arena of its own with the value's name.
    pub fn input(&mut self, name: &str, ty: Type) -> ValueId {
        self.in_arena(name, name, ty, false)
    }

    /// One value that covers a whole arena as floats `[blocks, 64]`, as the optimiser sees it: see [`BLOCK`].
    pub fn whole_arena(&mut self, arena: &str) -> ValueId {
        let bytes = self.arenas.get(arena).copied().unwrap_or(0);
        self.part_of_arena(arena, 0..bytes)
    }

    /// One value that covers these bytes of an arena as floats `[blocks, 64]`. They must begin and end where values do.
    pub(crate) fn part_of_arena(&mut self, arena: &str, bytes: Range<u64>) -> ValueId {
        let storage = Storage::Arena { arena: arena.to_string(), offset: bytes.start };
        let ty = Type::f32([(bytes.end.saturating_sub(bytes.start) / ARENA_ALIGNMENT) as usize, BLOCK]);
        self.push(Value { name: arena.to_string(), ty, storage, requires_grad: false })
    }

    /// A value of `other`'s that lies in an arena, as a value of this graph: the two graphs share the arena.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is none of `other`'s; [`Error::Internal`] when it is in no arena.
    pub fn shared(&mut self, other: &Graph, id: ValueId) -> Result<ValueId> {
        other.check_id(id)?;
        let value = other.value(id).clone();
        let Storage::Arena { arena, .. } = &value.storage else {
            return Err(Error::Internal(format!("{} is in no arena", value.name)));
        };
        self.arenas.insert(arena.clone(), other.arenas.get(arena).copied().unwrap_or(0));
        Ok(self.push(value))
    }

    /// Moves a transient value into an arena, so that it survives the step (losses, embeddings). One that is in an arena
    /// stays there.
    ///
    /// # Errors
    /// [`Error::Argument`] when the value is none of the graph's.
    pub fn persist(&mut self, id: ValueId, arena: &str) -> Result<()> {
        self.check_id(id)?;
        if self.value(id).storage == Storage::Transient {
            self.values[id.0 as usize].storage = self.place(arena, self.value(id).ty.bytes());
        }
        Ok(())
    }

    /// Keeps a transient value until the end of the step, so that it can be read back.
    pub fn keep(&mut self, id: ValueId) {
        self.kept.push(id);
    }

    /// Appends an operation; returns its outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inputs do not fit the operation, or it would make a value that is empty or has 2^30
    /// elements or more; [`Error::Argument`] when an input is none of the graph's.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let op = op.into();
        if op.operation().in_place() {
            return Err(Error::shape(op.operation().name(), "updates values in place: record it with `update`"));
        }
        let outputs = op.outputs(&self.types(inputs)?)?;
        let requires_grad = inputs.iter().any(|&i| self.value(i).requires_grad);
        let name = op.operation().name();
        let outputs: Vec<ValueId> = outputs
            .into_iter()
            .map(|ty| {
                let name = if self.scope.is_empty() { name.to_string() } else { format!("{}.{name}", self.scope) };
                self.push(Value { name, ty, storage: Storage::Transient, requires_grad })
            })
            .collect();
        let scope = self.scope.clone();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone(), scope });
        Ok(outputs)
    }

    /// The types of values.
    fn types(&self, ids: &[ValueId]) -> Result<Vec<Type>> {
        ids.iter().map(|&id| self.check_id(id).map(|()| self.value(id).ty.clone())).collect()
    }

    /// Appends an operation and returns its first output.
    ///
    /// # Errors
    /// As [`Graph::apply`].
    pub fn one(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let outputs = self.apply(op, inputs)?;
        outputs.first().copied().ok_or_else(|| Error::Internal("an operation without an output was recorded".into()))
    }

    /// Appends an operation that updates persistent values in place.
    ///
    /// # Errors
    /// [`Error::Shape`] when the values do not fit the operation; [`Error::Argument`] when one is none of the graph's.
    pub fn update(&mut self, op: impl Into<Op>, inputs: &[ValueId], targets: &[ValueId]) -> Result<()> {
        let op = op.into();
        if !op.operation().in_place() {
            return Err(Error::shape(op.operation().name(), "makes new values: record it with `apply`"));
        }
        op.outputs(&self.types(&[inputs, targets].concat())?)?;
        let scope = self.scope.clone();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: targets.to_vec(), scope });
        Ok(())
    }
}
