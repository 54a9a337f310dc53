//! What shape rules share: the number of inputs, their elements, axes and sizes, checked before anything indexes them.
//!
//! Every error is an [`Error::Shape`] that names the operation, the input, what it must be and what it is.

use crate::tape::{Element, Type};
use crate::{Error, Result};

/// An output has fewer elements than 2 to this power, so that byte offsets have 32 bits, too.
const OUTPUT_BITS: u32 = 30;

/// An input has fewer elements than 2 to this power: a shader's index has 32 bits.
const INPUT_BITS: u32 = 32;

/// The product of sizes; none where it exceeds 64 bits.
pub fn product(sizes: &[usize]) -> Option<u64> {
    sizes.iter().try_fold(1_u64, |n, &size| n.checked_mul(size as u64))
}

/// The inputs, if there are as many as there are names.
///
/// # Errors
/// [`Error::Shape`] listing the names.
pub fn exactly<'t, const N: usize>(op: &'static str, inputs: &'t [Type], names: [&str; N]) -> Result<[&'t Type; N]> {
    let given: Vec<&Type> = inputs.iter().collect();
    given.try_into().map_err(|given: Vec<&Type>| {
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Error::shape(op, format!("wants {N} inputs ({names}), got {}", given.len()))
    })
}

/// The sizes of a tensor of f32 with `N` axes.
///
/// # Errors
/// [`Error::Shape`] for another element, number of axes, or a size of 0.
pub fn floats<const N: usize>(op: &'static str, ty: &Type, what: &str) -> Result<[usize; N]> {
    check(op, ty, what, &[Element::F32])?;
    axes(op, ty, what)
}

/// As [`floats`], for what may be stored in half precision, too.
///
/// # Errors
/// As [`floats`].
pub fn stored<const N: usize>(op: &'static str, ty: &Type, what: &str) -> Result<[usize; N]> {
    check(op, ty, what, &[Element::F32, Element::F16])?;
    axes(op, ty, what)
}

/// The sizes of a tensor of u32 with `N` axes.
///
/// # Errors
/// As [`floats`].
pub fn words<const N: usize>(op: &'static str, ty: &Type, what: &str) -> Result<[usize; N]> {
    check(op, ty, what, &[Element::U32])?;
    axes(op, ty, what)
}

/// Fails unless a tensor holds f32; it may have any number of axes.
///
/// # Errors
/// As [`floats`].
pub fn any_floats(op: &'static str, ty: &Type, what: &str) -> Result<()> {
    check(op, ty, what, &[Element::F32])
}

/// As [`any_floats`], for what may be stored in half precision, too.
///
/// # Errors
/// As [`floats`].
pub fn any_stored(op: &'static str, ty: &Type, what: &str) -> Result<()> {
    check(op, ty, what, &[Element::F32, Element::F16])
}

/// Fails unless two shapes are equal.
///
/// # Errors
/// [`Error::Shape`] naming both.
pub fn same(op: &'static str, what: &str, got: &[usize], wanted: &[usize]) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    Err(Error::shape(op, format!("{what} has shape {got:?}, it must be {wanted:?}")))
}

/// Fails unless a tensor of f32 has this shape.
///
/// # Errors
/// [`Error::Shape`] naming both.
pub fn floats_as(op: &'static str, ty: &Type, what: &str, wanted: &[usize]) -> Result<()> {
    check(op, ty, what, &[Element::F32])?;
    same(op, what, &ty.shape, wanted)
}

/// What no input may be: without axes, with a size of 0, larger than a shader can index.
///
/// # Errors
/// [`Error::Shape`] naming the shape.
pub fn input(op: &'static str, ty: &Type, what: &str) -> Result<()> {
    sized(op, ty, what, INPUT_BITS)
}

/// What no output may be.
///
/// # Errors
/// As [`input`].
pub fn output(op: &'static str, ty: &Type) -> Result<()> {
    sized(op, ty, "an output", OUTPUT_BITS)
}

fn sized(op: &'static str, ty: &Type, what: &str, bits: u32) -> Result<()> {
    let shape = &ty.shape;
    if shape.is_empty() || shape.contains(&0) {
        return Err(Error::shape(op, format!("{what} of shape {shape:?} has no elements or no axes")));
    }
    match product(shape) {
        Some(n) if n < 1 << bits => Ok(()),
        _ => Err(Error::shape(
            op,
            format!("{what} of shape {shape:?} exceeds 2^{bits} elements; use a smaller batch or narrower layers"),
        )),
    }
}

fn check(op: &'static str, ty: &Type, what: &str, elements: &[Element]) -> Result<()> {
    if !elements.contains(&ty.element) {
        let name = |element: &Element| match element {
            Element::F32 => "f32",
            Element::F16 => "f16",
            Element::U32 => "u32",
        };
        let wanted: Vec<_> = elements.iter().map(name).collect();
        let message = format!("{what} must hold {}, not {}", wanted.join(" or "), name(&ty.element));
        return Err(Error::shape(op, message));
    }
    input(op, ty, what)
}

fn axes<const N: usize>(op: &'static str, ty: &Type, what: &str) -> Result<[usize; N]> {
    let shape = ty.shape.as_slice();
    shape.try_into().map_err(|_| Error::shape(op, format!("{what} must have {N} axes, it has shape {shape:?}")))
}
