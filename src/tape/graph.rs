//! The recorded step: values and the nodes that make them. Plain data, printable, no device.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::ops::{Op, Operation};
use crate::{Error, Result};

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// `f32`
    F32,
    /// `f16`, two to a word: how activations may be stored, never what is computed with. Rows have an even length.
    F16,
    /// `u32`: labels, indices, packed pixels, random counters.
    U32,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> u64 {
        if self == Element::F16 { 2 } else { 4 }
    }
}

/// Shape and element of a value. Tensors are contiguous, images NCHW.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Sizes, outermost first; a scalar is `[1]`.
    pub shape: Vec<usize>,
    /// Element.
    pub element: Element,
}

impl Type {
    /// Floats of a shape.
    pub fn f32(shape: impl Into<Vec<usize>>) -> Self {
        Type { shape: shape.into(), element: Element::F32 }
    }

    /// Unsigned integers of a shape.
    pub fn u32(shape: impl Into<Vec<usize>>) -> Self {
        Type { shape: shape.into(), element: Element::U32 }
    }

    /// Number of elements; the largest number there is where it is larger, which no graph takes.
    pub fn len(&self) -> usize {
        self.shape.iter().fold(1, |n, &size| n.saturating_mul(size))
    }

    /// Number of elements, also of a tensor that the host cannot address.
    fn elements(&self) -> u64 {
        // A zero behind sizes that overflow is still a zero.
        let zero = self.shape.contains(&0);
        if zero { 0 } else { self.shape.iter().fold(1, |n, &size| n.saturating_mul(size as u64)) }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.element.bytes().saturating_mul(self.elements())
    }

    /// Fails unless there are elements, and no more than `most`.
    fn check(&self, op: &'static str, what: &str, most: u64) -> Result<()> {
        let shape = &self.shape;
        match self.elements() {
            0 => Err(Error::shape(op, format!("{what} of shape {shape:?} has no elements"))),
            n if n > most => {
                let power = (most + 1).next_power_of_two().ilog2();
                Err(Error::shape(
                    op,
                    format!(
                        "{what} of shape {shape:?} exceeds 2^{power} elements; use a smaller batch or narrower layers"
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The most elements that an operation makes: their bytes can be counted in 32 bits.
const MOST_MADE: u64 = u32::MAX as u64 / 4 - 1;
/// The most elements that an operation reads: their positions can be counted in 32 bits.
const MOST_READ: u64 = u32::MAX as u64;

/// A value of a graph; it means nothing to another graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position of the value in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a value lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In a slot that the plan chooses; alive from its producer to its last reader.
    Transient,
    /// In a named arena that outlives the step and may be shared between graphs.
    Arena {
        /// Name of the arena.
        arena: String,
        /// First byte in it.
        offset: u64,
    },
}

/// A tensor of the step.
#[derive(Clone, Debug)]
pub struct Value {
    /// What it is, for plans and errors.
    pub name: String,
    /// Shape and element.
    pub ty: Type,
    /// Where it lives.
    pub storage: Storage,
    /// Whether a gradient is wanted for it or for something it is made from.
    pub requires_grad: bool,
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

    /// The place of so many bytes at the end of the named arena.
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

    /// One value that covers a whole arena as a vector of floats `[bytes / 4]`, as the optimiser sees it.
    pub fn whole_arena(&mut self, arena: &str) -> ValueId {
        let bytes = self.arenas.get(arena).copied().unwrap_or(0);
        self.part_of_arena(arena, 0..bytes)
    }

    /// One value that covers these bytes of an arena as a vector of floats. They must begin and end where values do.
    pub(crate) fn part_of_arena(&mut self, arena: &str, bytes: Range<u64>) -> ValueId {
        let storage = Storage::Arena { arena: arena.to_string(), offset: bytes.start };
        let ty = Type::f32([(bytes.end.saturating_sub(bytes.start) / 4) as usize]);
        self.push(Value { name: arena.to_string(), ty, storage, requires_grad: false })
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
        let types = self.types(&op, inputs)?;
        let outputs = op.outputs(&types)?;
        outputs.iter().try_for_each(|ty| ty.check(op.operation().name(), "an output", MOST_MADE))?;
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

    /// The types of what an operation reads.
    fn types(&self, op: &Op, inputs: &[ValueId]) -> Result<Vec<Type>> {
        inputs.iter().try_for_each(|&id| self.check_id(id))?;
        let types: Vec<Type> = inputs.iter().map(|&id| self.value(id).ty.clone()).collect();
        types.iter().try_for_each(|ty| ty.check(op.operation().name(), "an input", MOST_READ))?;
        Ok(types)
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
        let types = self.types(&op, &[inputs, targets].concat())?;
        op.outputs(&types)?;
        let scope = self.scope.clone();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: targets.to_vec(), scope });
        Ok(())
    }

    /// The operation of a node.
    pub fn operation<'a>(&self, node: &'a Node) -> &'a dyn Operation {
        node.op.operation()
    }
}
