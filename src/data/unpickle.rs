//! Pickles, protocols 0 to 5, parsed and never executed.
//!
//! A pickle is a program for a stack machine that can call any Python function. This reader knows the
//! handful of functions that NumPy arrays need, and turns everything else into an error. Values live
//! in one arena and refer to each other by index, so neither cycles nor nesting cost any stack; their
//! number is bounded, and text and bytes are borrowed from the file.

mod literal;
mod machine;

use std::borrow::Cow;
use std::path::Path;

use crate::{Error, Result};
pub(super) use literal::integer;
use machine::Machine;

/// The longest key or name that is looked at.
const MAX_NAME_BYTES: usize = 1024;

/// Index of a value in the arena.
type Id = u32;

#[derive(Debug)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float,
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// `_codecs.encode(text, "latin1")`: how Python 3 writes bytes below protocol 3.
    Latin1(Id),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Dtype {
        /// NumPy's code, e.g. `u1`.
        code: String,
        big_endian: bool,
    },
    Array {
        shape: Vec<usize>,
        dtype: Id,
        fortran: bool,
        data: Id,
    },
    /// `_reconstruct` without its state yet.
    NewArray,
}

/// The functions and types that may be referred to.
#[derive(Clone, Copy, Debug)]
enum Global {
    Reconstruct,
    NdArray,
    Dtype,
    Scalar,
    FromBuffer,
    Encode,
    OrderedDict,
    Bytes,
    ByteArray,
}

impl Global {
    fn named(module: &str, name: &str) -> Option<Global> {
        Some(match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Global::Scalar,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Global::FromBuffer,
            ("numpy", "ndarray") => Global::NdArray,
            ("numpy", "dtype") => Global::Dtype,
            ("_codecs", "encode") => Global::Encode,
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("builtins" | "__builtin__", "bytes") => Global::Bytes,
            ("builtins" | "__builtin__", "bytearray") => Global::ByteArray,
            _ => return None,
        })
    }
}

/// An array as the file holds it.
pub(super) struct Array<'p> {
    /// Lengths of the axes.
    pub(super) shape: Vec<usize>,
    /// NumPy's type code without byte order, e.g. `u1`.
    pub(super) code: String,
    big_endian: bool,
    /// The values' bytes in C order.
    pub(super) bytes: Cow<'p, [u8]>,
}

/// A parsed file whose top value is a dict.
pub(super) struct Pickle<'a> {
    path: &'a Path,
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Parses `bytes`, the content of `path`.
    pub(super) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let mut machine = Machine::new(path, bytes);
        let root = machine.run()?;
        match machine.value(root) {
            Value::Dict(_) => Ok(Pickle { path, values: machine.into_values(), root }),
            other => Err(Error::data(path, format!("holds {}, not a dict of arrays and labels", kind(other)))),
        }
    }

    /// The pairs of the dict.
    fn items(&self) -> &[(Id, Id)] {
        match &self.values[self.root as usize] {
            Value::Dict(items) => items,
            _ => &[],
        }
    }

    /// The keys of the dict.
    pub(super) fn keys(&self) -> Vec<String> {
        self.items().iter().filter_map(|&(key, _)| text(&self.values, key)).collect()
    }

    /// The last value under `key`.
    fn get(&self, key: &str) -> Option<Id> {
        self.items()
            .iter()
            .rev()
            .find(|&&(id, _)| text(&self.values, id).is_some_and(|text| text == key))
            .map(|&(_, id)| id)
    }

    /// The array under `key`; `None` without the key.
    pub(super) fn array(&self, key: &str) -> Result<Option<Array<'_>>> {
        self.get(key).map(|id| self.array_at(key, id)).transpose()
    }

    fn array_at(&self, key: &str, id: Id) -> Result<Array<'_>> {
        let wrong = |why: String| Error::data(self.path, format!("{key:?} {why}"));
        let Value::Array { shape, dtype, fortran, data } = &self.values[id as usize] else {
            return Err(wrong(format!("is {}, not a NumPy array", kind(&self.values[id as usize]))));
        };
        let Value::Dtype { code, big_endian } = &self.values[*dtype as usize] else {
            return Err(wrong("is an array without a NumPy type".into()));
        };
        let item: usize = match code.as_str() {
            "u1" | "i1" | "b1" => 1,
            "u2" | "i2" => 2,
            "u4" | "i4" | "f4" => 4,
            "u8" | "i8" | "f8" => 8,
            _ => return Err(wrong(format!("is an array of type {code}; arrays of numbers are read"))),
        };
        let bytes = raw(&self.values, *data)
            .ok_or_else(|| wrong("is an array whose values are not plain bytes; save it again as uint8".into()))?;
        let expected = shape.iter().try_fold(item, |bytes, &n| bytes.checked_mul(n));
        if expected != Some(bytes.len()) {
            return Err(wrong(format!(
                "says it is a {code} array of shape {shape:?} but has {} bytes; copy or download the file again",
                bytes.len()
            )));
        }
        let bytes = if *fortran && shape.len() > 1 { Cow::Owned(c_order(&bytes, shape, item)) } else { bytes };
        Ok(Array { shape: shape.clone(), code: code.clone(), big_endian: *big_endian, bytes })
    }

    /// The integers under `key`, a list, tuple or array; `None` without the key.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(id) = self.get(key) else { return Ok(None) };
        match &self.values[id as usize] {
            Value::List(items) | Value::Tuple(items) => {
                let numbers = items.iter().map(|&item| match &self.values[item as usize] {
                    Value::Int(number) => Ok(*number),
                    other => Err(Error::data(
                        self.path,
                        format!("{key:?} holds {} among its integers; write a list of int", kind(other)),
                    )),
                });
                numbers.collect::<Result<Vec<_>>>().map(Some)
            }
            _ => {
                let array = self.array_at(key, id)?;
                if array.shape.iter().filter(|&&n| n != 1).count() > 1 {
                    return Err(Error::data(
                        self.path,
                        format!("{key:?} has shape {:?}; write a flat list", array.shape),
                    ));
                }
                array.integers().map(Some).ok_or_else(|| {
                    Error::data(self.path, format!("{key:?} has type {}; write a list of int", array.code))
                })
            }
        }
    }
}

impl Array<'_> {
    fn integers(&self) -> Option<Vec<i64>> {
        let size = self.code[1..].parse::<usize>().ok()?;
        let signed = match &self.code[..1] {
            "i" => true,
            "u" | "b" => false,
            _ => return None,
        };
        self.bytes.chunks_exact(size).map(|bytes| integer(bytes, signed, self.big_endian)).collect()
    }
}

/// Reorders values whose first axis runs fastest.
fn c_order(bytes: &[u8], shape: &[usize], item: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut strides = Vec::new();
    let mut stride = item;
    for n in shape {
        strides.push(stride);
        stride *= n;
    }
    let mut index = vec![0; shape.len()];
    while out.len() < bytes.len() {
        let at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
        out.extend_from_slice(&bytes[at..at + item]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// What a value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a bool",
        Value::Int(_) => "an int",
        Value::Float => "a float",
        Value::Text(_) => "a str",
        Value::Bytes(_) | Value::Latin1(_) => "bytes",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
        Value::Dict(_) => "a dict",
        Value::Global(_) => "a type",
        Value::Dtype { .. } => "a NumPy type",
        Value::Array { .. } | Value::NewArray => "a NumPy array",
    }
}

/// A str, or the bytes that Python 2 called so: a key, a name or a type, so never a long one.
fn text(values: &[Value], id: Id) -> Option<String> {
    match &values[id as usize] {
        Value::Text(text) if text.len() <= MAX_NAME_BYTES => Some(text.to_string()),
        Value::Bytes(bytes) if bytes.len() <= MAX_NAME_BYTES => String::from_utf8(bytes.to_vec()).ok(),
        Value::Latin1(source) => text(values, *source),
        _ => None,
    }
}

/// The bytes of a value.
fn raw<'v>(values: &'v [Value], id: Id) -> Option<Cow<'v, [u8]>> {
    match &values[id as usize] {
        Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
        Value::Latin1(source) => match &values[*source as usize] {
            Value::Text(text) => {
                text.chars().map(|c| u8::try_from(c as u32).ok()).collect::<Option<Vec<u8>>>().map(Cow::Owned)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fortran_order_is_undone() {
        // [[1, 2, 3], [4, 5, 6]] column by column.
        assert_eq!(c_order(&[1, 4, 2, 5, 3, 6], &[2, 3], 1), [1, 2, 3, 4, 5, 6]);
    }
}
