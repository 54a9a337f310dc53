//! The values of a graph, their types and where they live.

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

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        // A zero behind sizes that overflow is still a zero.
        let empty = self.shape.contains(&0);
        let size = |bytes: u64, &size: &usize| bytes.saturating_mul(size as u64);
        if empty { 0 } else { self.shape.iter().fold(self.element.bytes(), size) }
    }
}

/// A value of a graph; it means nothing to another graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position of the value in [`super::Graph::values`].
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
