//! Pickles, protocols 0 to 5, parsed and never executed.
//!
//! A pickle is a program for a stack machine that can call any Python function. This reader knows the
//! few functions that NumPy arrays and PyTorch's tensors need. A call of anything else is an error, or in a file of
//! PyTorch's a value that is never looked into, as an object of any other type is. Values live in one arena and refer to each other by index, so neither cycles nor nesting
//! cost any stack. Their number is bounded, and text and bytes are borrowed from the file.

mod literal;
mod machine;
mod torch;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::labels::{self, Label};
use crate::{Error, Result};
pub(super) use literal::integer;
use machine::Machine;
pub(crate) use torch::StoredTensor;
use torch::Torch;

/// The longest key or name that is looked at.
const MAX_NAME_BYTES: usize = 1024;

/// Index of a value in the arena.
pub(crate) type Id = u32;

#[derive(Debug)]
enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    /// `_codecs.encode(text, "latin1")`: how Python 3 writes bytes below protocol 3.
    Latin1(Id),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    /// A class or function that nothing is known of, as `module.name`. It is never called.
    Unknown(String),
    /// A value that is no part of a data set, such as a path, a date or a set.
    Other,
    Dtype {
        /// NumPy's code, e.g. `u1`.
        code: String,
        big_endian: bool,
    },
    Array {
        shape: Vec<usize>,
        dtype: Id,
        order: Order,
        /// Bytes, or the list of an array of objects.
        data: Id,
    },
    /// `_reconstruct` without its state yet.
    NewArray,
    /// The numbers of a file of PyTorch's that one or several tensors look at.
    Storage(torch::Storage),
    Tensor(torch::View),
}

/// Whose file it is: what may be in it, and how it is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Python's, with NumPy's arrays.
    Data,
    /// PyTorch's: tensors, among values of which nothing is known.
    Torch,
}

impl Dialect {
    /// How the user writes the file again.
    fn again(self) -> &'static str {
        match self {
            Dialect::Data => "pickle.dump",
            Dialect::Torch => "torch.save(model.state_dict(), ..)",
        }
    }

    /// The sentence about something that is not read.
    fn refers_to(self, name: &str) -> String {
        let kinds = match self {
            Dialect::Data => "; only NumPy arrays, lists and dicts are read; save those",
            Dialect::Torch => ", which weights do not need and may do harm in Python; save the weights alone",
        };
        format!("refers to {name}{kinds} with {}", self.again())
    }
}

/// How the bytes of an array run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// The last axis runs fastest.
    C,
    /// The first axis runs fastest.
    Fortran,
    /// The shape is that of the bytes in C order; axis `i` of the array is axis `axes[i]` of it.
    Axes(Vec<usize>),
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
    /// `dict`, and dicts that are made with a function for missing keys.
    Dict,
    /// `copyreg._reconstructor`: how protocols 0 and 1 make objects.
    Reconstructor,
    /// A type of Python's whose values are no part of a data set.
    Other,
    Torch(Torch),
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
            ("collections", "defaultdict") | ("builtins" | "__builtin__", "dict") => Global::Dict,
            ("copyreg" | "copy_reg", "_reconstructor") => Global::Reconstructor,
            ("datetime" | "decimal" | "fractions" | "uuid" | "pathlib" | "pathlib._local" | "zoneinfo", _) => {
                Global::Other
            }
            (
                "builtins" | "__builtin__",
                "list" | "tuple" | "set" | "frozenset" | "int" | "long" | "float" | "bool" | "complex" | "str"
                | "unicode" | "slice" | "range" | "xrange" | "object",
            ) => Global::Other,
            ("collections", "Counter" | "deque") => Global::Other,
            (
                "numpy",
                "float16" | "float32" | "float64" | "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16"
                | "uint32" | "uint64" | "bool_" | "str_" | "bytes_",
            ) => Global::Other,
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
    pub(super) big_endian: bool,
    /// The values' bytes in C order.
    pub(super) bytes: Cow<'p, [u8]>,
}

/// A parsed file.
pub(crate) struct Pickle<'a> {
    path: &'a Path,
    values: Vec<Value<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Parses `bytes`, the content of `path`.
    pub(super) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        Self::parse_as(Dialect::Data, path, bytes).map(|(pickle, _)| pickle)
    }

    /// Parses the pickle that `bytes`, the content of `path` or a part of it, begin with, written by PyTorch; and where it
    /// ends.
    pub(crate) fn parse_torch(path: &'a Path, bytes: &'a [u8]) -> Result<(Self, usize)> {
        Self::parse_as(Dialect::Torch, path, bytes)
    }

    fn parse_as(dialect: Dialect, path: &'a Path, bytes: &'a [u8]) -> Result<(Self, usize)> {
        let mut machine = Machine::new(dialect, path, bytes);
        let root = machine.run()?;
        if let Value::Unknown(name) = machine.value(root) {
            return Err(Error::data(path, dialect.refers_to(name)));
        }
        let end = machine.position();
        Ok((Pickle { path, values: machine.into_values(), root }, end))
    }

    /// A text that the file holds as one; `None` for another value.
    pub(crate) fn string(&self, id: Id) -> Option<&str> {
        match &self.values[id as usize] {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name of every storage of PyTorch's that is referred to, with the type of its numbers.
    pub(crate) fn storages(&self) -> BTreeMap<String, Option<safetensors::Dtype>> {
        torch::storages(&self.values)
    }

    /// Whether a value is a tensor, of whatever kind.
    pub(crate) fn is_tensor(&self, id: Id) -> bool {
        matches!(self.values[id as usize], Value::Tensor(_))
    }

    /// The tensor that a value is; none for another value, and for a tensor that no file of PyTorch's can hold.
    pub(crate) fn tensor(&self, id: Id) -> Option<StoredTensor> {
        torch::tensor(&self.values, id)
    }

    /// The top value.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    /// What a value is, for messages.
    pub(crate) fn kind(&self, id: Id) -> &'static str {
        kind(&self.values[id as usize])
    }

    /// The pairs of a dict whose keys are text, the last of each key; `None` for another value.
    pub(crate) fn dict(&self, id: Id) -> Option<BTreeMap<String, Id>> {
        let Value::Dict(items) = &self.values[id as usize] else { return None };
        // One by one: a key that is there a million times is kept once.
        let mut dict = BTreeMap::new();
        for &(key, value) in items {
            if let Some(key) = text(&self.values, key) {
                dict.insert(key, value);
            }
        }
        Some(dict)
    }

    /// The items of a list, a tuple or an array of objects; `None` for another value.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id as usize] {
            Value::List(items) | Value::Tuple(items) => Some(items),
            Value::Array { dtype, data, .. } => match (&self.values[*dtype as usize], &self.values[*data as usize]) {
                (Value::Dtype { code, .. }, Value::List(items)) if code.starts_with('O') => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    /// The bytes of a value, or of an array of bytes.
    pub(crate) fn bytes(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        match &self.values[id as usize] {
            Value::Array { .. } => self.array("", id).ok().filter(|array| array.code == "u1").map(|array| array.bytes),
            _ => raw(&self.values, id),
        }
    }

    /// The array `what`, with its values in C order.
    ///
    /// # Errors
    /// [`Error::Data`] for another value.
    pub(super) fn array(&self, what: &str, id: Id) -> Result<Array<'_>> {
        let wrong = |why: String| Error::data(self.path, format!("{what:?} {why}"));
        let Value::Array { shape, dtype, order, data } = &self.values[id as usize] else {
            return Err(match &self.values[id as usize] {
                Value::Unknown(name) => wrong(Dialect::Data.refers_to(name)),
                other => wrong(format!("is {}, not a NumPy array", kind(other))),
            });
        };
        let Value::Dtype { code, big_endian } = &self.values[*dtype as usize] else {
            return Err(wrong("is an array without a NumPy type".into()));
        };
        let item = labels::item_bytes(code).ok_or_else(|| {
            wrong(format!("is an array of type {code:?}; arrays of numbers are read, save it as uint8"))
        })?;
        let bytes = raw(&self.values, *data)
            .ok_or_else(|| wrong("is an array whose values are not plain bytes; save it again as uint8".into()))?;
        let expected = shape.iter().try_fold(item, |bytes, &n| bytes.checked_mul(n));
        if expected != Some(bytes.len()) {
            return Err(wrong(format!(
                "says it is a {code} array of shape {shape:?} but has {} bytes; copy or download the file again",
                bytes.len()
            )));
        }
        let axes: Vec<usize> = match order {
            Order::C => (0..shape.len()).collect(),
            Order::Fortran => (0..shape.len()).rev().collect(),
            Order::Axes(axes) => axes.clone(),
        };
        // Bytes in Fortran order are those of the reversed shape in C order.
        let base: Vec<usize> =
            if *order == Order::Fortran { shape.iter().rev().copied().collect() } else { shape.clone() };
        let shape: Vec<usize> = axes.iter().map(|&axis| base[axis]).collect();
        let bytes = if axes.is_sorted() { bytes } else { Cow::Owned(transposed(&bytes, &base, &axes, item)) };
        Ok(Array { shape, code: code.clone(), big_endian: *big_endian, bytes })
    }

    /// The labels in a list, a tuple or an array.
    ///
    /// # Errors
    /// [`Error::Data`] for another value, and for items that are no labels.
    pub(super) fn labels(&self, what: &str, id: Id) -> Result<Vec<Label>> {
        let Some(items) = self.items(id) else {
            let array = self.array(what, id)?;
            return labels::of_array(
                self.path,
                &format!("{what:?}"),
                &array.code,
                array.big_endian,
                &array.shape,
                &array.bytes,
            );
        };
        if let Value::Array { shape, .. } = &self.values[id as usize] {
            labels::check_shape(self.path, &format!("{what:?}"), shape)?;
        }
        items.iter().map(|&item| self.label(what, item)).collect()
    }

    fn label(&self, what: &str, item: Id) -> Result<Label> {
        let found = match &self.values[item as usize] {
            Value::Int(number) => Some(Label::Number(*number)),
            Value::Bool(truth) => Some(Label::Number(i64::from(*truth))),
            Value::Float(number) => labels::whole(*number),
            // One label in a list of its own.
            Value::List(one) | Value::Tuple(one) if one.len() == 1 => match &self.values[one[0] as usize] {
                Value::Int(number) => Some(Label::Number(*number)),
                _ => text(&self.values, one[0]).map(Label::Name),
            },
            Value::Array { shape, .. } if shape.iter().all(|&n| n == 1) => {
                self.labels_of_one(what, item).and_then(|mut labels| labels.pop())
            }
            _ => text(&self.values, item).map(Label::Name),
        };
        found.ok_or_else(|| {
            Error::data(
                self.path,
                format!("{what:?} holds {} among its integers; write a list of int", self.kind(item)),
            )
        })
    }

    fn labels_of_one(&self, what: &str, id: Id) -> Option<Vec<Label>> {
        let array = self.array(what, id).ok()?;
        labels::of_array(self.path, what, &array.code, array.big_endian, &array.shape, &array.bytes).ok()
    }
}

/// The values of an array whose axis `i` is axis `axes[i]` of the C-ordered `bytes` of shape `base`, in C order.
pub(super) fn transposed(bytes: &[u8], base: &[usize], axes: &[usize], item: usize) -> Vec<u8> {
    let mut strides = vec![item; base.len()];
    for axis in (1..base.len()).rev() {
        strides[axis - 1] = strides[axis] * base[axis];
    }
    let shape: Vec<usize> = axes.iter().map(|&axis| base[axis]).collect();
    let strides: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
    let mut out = Vec::with_capacity(bytes.len());
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
        Value::Float(_) => "a float",
        Value::Text(_) => "a str",
        Value::Bytes(_) | Value::Latin1(_) => "bytes",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
        Value::Dict(_) => "a dict",
        Value::Global(_) | Value::Unknown(_) => "a type",
        Value::Other => "another object",
        Value::Dtype { .. } => "a NumPy type",
        Value::Array { .. } | Value::NewArray => "a NumPy array",
        Value::Storage(_) | Value::Tensor(_) => "a tensor",
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
        assert_eq!(transposed(&[1, 4, 2, 5, 3, 6], &[3, 2], &[1, 0], 1), [1, 2, 3, 4, 5, 6]);
    }
}
