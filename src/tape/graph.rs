//! The recorded step: values and the nodes that make them. Plain data, printable, no device.

use std::collections::BTreeMap;

use crate::Result;
use crate::ops::{Op, Operation};

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

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.element.bytes() * self.len() as u64
    }
}

/// A value of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

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
    pub values: Vec<Value>,
    /// All nodes in execution order.
    pub nodes: Vec<Node>,
    /// Bytes of each arena.
    pub arenas: BTreeMap<String, u64>,
    /// Transient values that must survive until the end of the step.
    pub kept: Vec<ValueId>,
    /// The number of nodes before the backward pass, once there is one: what is alive across it was kept for it.
    pub backward_at: Option<usize>,
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

    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.value(id).ty.shape
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId(self.values.len() as u32 - 1)
    }

    /// A new value at the end of the named arena.
    pub fn in_arena(&mut self, arena: &str, name: impl Into<String>, ty: Type, requires_grad: bool) -> ValueId {
        let end = self.arenas.entry(arena.to_string()).or_insert(0);
        let offset = *end;
        *end = (offset + ty.bytes()).next_multiple_of(ARENA_ALIGNMENT);
        let storage = Storage::Arena { arena: arena.to_string(), offset };
        self.push(Value { name: name.into(), ty, storage, requires_grad })
    }

    /// A value that the host writes: an arena of its own with the value's name.
    pub fn input(&mut self, name: &str, ty: Type) -> ValueId {
        self.in_arena(name, name, ty, false)
    }

    /// One value that covers a whole arena as a vector of floats, as the optimiser sees it.
    pub fn whole_arena(&mut self, arena: &str) -> ValueId {
        let bytes = self.arenas.get(arena).copied().unwrap_or(0);
        let storage = Storage::Arena { arena: arena.to_string(), offset: 0 };
        let ty = Type::f32([(bytes / 4) as usize]);
        self.push(Value { name: arena.to_string(), ty, storage, requires_grad: false })
    }

    /// Moves a transient value into an arena, so that it survives the step (losses, embeddings).
    pub fn persist(&mut self, id: ValueId, arena: &str) {
        let bytes = self.value(id).ty.bytes();
        let end = self.arenas.entry(arena.to_string()).or_insert(0);
        let offset = *end;
        *end = (offset + bytes).next_multiple_of(ARENA_ALIGNMENT);
        self.values[id.0 as usize].storage = Storage::Arena { arena: arena.to_string(), offset };
    }

    /// Keeps a transient value until the end of the step, so that it can be read back.
    pub fn keep(&mut self, id: ValueId) {
        self.kept.push(id);
    }

    /// Appends an operation; returns its outputs.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the inputs do not fit the operation.
    pub fn apply(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let op = op.into();
        let types: Vec<Type> = inputs.iter().map(|&i| self.value(i).ty.clone()).collect();
        let outputs = op.outputs(&types)?;
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

    /// Appends an operation and returns its first output.
    ///
    /// # Errors
    /// As [`Graph::apply`].
    pub fn one(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        Ok(self.apply(op, inputs)?[0])
    }

    /// Appends an operation that updates persistent values in place.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the values do not fit the operation.
    pub fn update(&mut self, op: impl Into<Op>, inputs: &[ValueId], targets: &[ValueId]) -> Result<()> {
        let op = op.into();
        let types: Vec<Type> = inputs.iter().chain(targets).map(|&i| self.value(i).ty.clone()).collect();
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
