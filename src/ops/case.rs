//! A case: one operation on inputs of one size, and how far the device may be from the twin.
//!
//! `ops/NAME.rs` has its cases in a function `cases`; [`super::check`] runs them.

use half::f16;

use super::Op;
pub use super::elements::Elements;
use crate::random::{Rng, Stream};
use crate::tape::{Element, Type};

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Input {
    /// Shape and element.
    pub ty: Type,
    /// How its elements are made.
    pub elements: Elements,
    /// Whether its gradient is checked.
    pub grad: bool,
}

impl Input {
    /// A float input with a gradient, standard normal.
    pub fn normal(shape: impl Into<Vec<usize>>) -> Self {
        Input { ty: Type::f32(shape), elements: Elements::Normal(0.0, 1.0), grad: true }
    }

    /// A float input without a gradient.
    pub fn constant(shape: impl Into<Vec<usize>>, elements: Elements) -> Self {
        Input { ty: Type::f32(shape), elements, grad: false }
    }

    /// An integer input.
    pub fn integers(shape: impl Into<Vec<usize>>, elements: Elements) -> Self {
        Input { ty: Type::u32(shape), elements, grad: false }
    }

    /// The same input in half precision.
    pub fn half(mut self) -> Self {
        self.ty.element = Element::F16;
        self
    }

    /// The same input with other elements.
    pub fn with(mut self, elements: Elements) -> Self {
        self.elements = elements;
        self
    }

    /// The numbers of input `index`, rounded to what its element holds: device and twin start from the same ones.
    pub(super) fn numbers(&self, index: usize) -> Vec<f64> {
        let n = self.ty.len();
        let values = self.elements.make(n, &mut Rng::new(20_260, Stream::Order, n as u32, index as u32));
        match self.ty.element {
            Element::F32 => values.into_iter().map(|v| f64::from(v as f32)).collect(),
            Element::F16 => values.into_iter().map(|v| f64::from(f16::from_f64(v))).collect(),
            Element::U32 => values,
        }
    }
}

/// One operation on inputs of one size.
#[derive(Clone, Debug)]
pub struct Case {
    /// `operation: what is special about it`.
    pub name: String,
    /// The operation.
    pub op: Op,
    /// Its inputs; for an operation in place the last ones are its targets.
    pub inputs: Vec<Input>,
    /// Whether the device writes the result in half precision.
    pub half: bool,
    /// Largest allowed `|device - twin| / max |twin|` of any element. From the length of the sums: a sum
    /// of n terms in f32 errs by about `sqrt(n) 2^-24` of its terms' size, and by `n 2^-24` at worst.
    pub tolerance: f64,
}

impl Case {
    /// A case with the tolerance for short sums.
    pub fn new(what: impl std::fmt::Display, op: impl Into<Op>, inputs: Vec<Input>) -> Self {
        let op = op.into();
        Case { name: format!("{}: {what}", op.operation().name()), op, inputs, half: false, tolerance: 2e-6 }
    }

    /// The same case with another tolerance.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// The same case with its result in half precision, rounded once.
    pub fn into_half(self) -> Self {
        Case { half: true, tolerance: 5e-4, ..self }
    }
}
