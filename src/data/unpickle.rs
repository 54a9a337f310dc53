//! Pickles, protocols 0 to 5, parsed and never executed.
//!
//! A pickle is a program for a stack machine that can call any Python function. This reader knows the
//! handful of functions that NumPy arrays need, and turns everything else into an error. Values live
//! in one arena and refer to each other by index, so neither cycles nor nesting cost any stack; their
//! number is bounded, and text and bytes are borrowed from the file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use crate::{Error, Result};

/// The most values, memo entries and stack slots of one file.
const MAX_VALUES: usize = 1 << 24;

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
        let mut machine = Machine {
            path,
            bytes,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        match &machine.values[root as usize] {
            Value::Dict(_) => Ok(Pickle { path, values: machine.values, root }),
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

/// The number in up to eight bytes; `None` when it does not fit.
pub(super) fn integer(bytes: &[u8], signed: bool, big_endian: bool) -> Option<i64> {
    let mut little: Vec<u8> = bytes.to_vec();
    if big_endian {
        little.reverse();
    }
    // Longer numbers may still be small: Python pads nothing, but allows it.
    let negative = signed && little.last().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    while little.len() > 8 {
        if little.pop() != Some(fill) {
            return None;
        }
    }
    let full = little.len() == 8;
    little.resize(8, fill);
    let number = i64::from_le_bytes(little.try_into().ok()?);
    (negative || number >= 0 || (full && signed)).then_some(number).filter(|number| negative == (*number < 0))
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

/// The stack machine.
struct Machine<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// Runs to the STOP instruction; the top value.
    fn run(&mut self) -> Result<Id> {
        loop {
            let start = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code, start)?;
            if self.values.len().max(self.stack.len()).max(self.marks.len()).max(self.memo.len()) > MAX_VALUES {
                return Err(
                    self.error(format!("holds more than {MAX_VALUES} values; save the images as one uint8 array"))
                );
            }
        }
    }

    fn step(&mut self, code: u8, start: usize) -> Result<()> {
        match code {
            // Protocol and frames: nothing to do.
            0x80 => match self.take(1)?[0] {
                0..=5 => Ok(()),
                other => Err(self.error(format!("is a pickle of protocol {other}; 0 to 5 are read"))),
            },
            0x95 => self.take(8).map(drop),
            // Constants.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => self.fixed(4, true),
            b'K' => self.fixed(1, false),
            b'M' => self.fixed(2, false),
            0x8a => {
                let n = self.size(1)?;
                self.fixed(n, true)
            }
            0x8b => {
                let n = self.size(4)?;
                self.fixed(n, true)
            }
            b'I' => match self.line()? {
                "00" => self.push(Value::Bool(false)),
                "01" => self.push(Value::Bool(true)),
                digits => self.decimal(digits),
            },
            b'L' => {
                let digits = self.line()?;
                self.decimal(digits.strip_suffix('L').unwrap_or(digits))
            }
            b'F' => {
                self.line()?;
                self.push(Value::Float)
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)
            }
            // Text and bytes. What Python 2 called a string is bytes.
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'U' | b'C' => self.blob(1),
            b'T' | b'B' => self.blob(4),
            0x8e | 0x96 => self.blob(8),
            b'S' => {
                let line = self.raw_line()?;
                let bytes = unquote(line).ok_or_else(|| self.error("has a string without its quotes".into()))?;
                self.push(Value::Bytes(bytes.into()))
            }
            b'V' => {
                let line = self.raw_line()?;
                let text = unescape(line).ok_or_else(|| self.error("has a malformed string escape".into()))?;
                self.push(Value::Text(text.into()))
            }
            // Containers.
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            0x85..=0x87 => {
                let items = self.pop_n(usize::from(code - 0x84))?;
                self.push(Value::Tuple(items))
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items))
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items))
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(pairs(&items)))
            }
            b'a' => {
                let items = self.pop_n(1)?;
                self.extend(&items)
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(&items)
            }
            b's' => {
                let items = self.pop_n(2)?;
                self.set_items(&items)
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)
            }
            // Stack and memo.
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'p' => {
                let index = self.memo_index()?;
                self.put(index)
            }
            b'q' => {
                let index = self.size(1)?;
                self.put(index as u32)
            }
            b'r' => {
                let index = self.size(4)?;
                self.put(index as u32)
            }
            0x94 => self.put(self.memo.len() as u32),
            b'g' => {
                let index = self.memo_index()?;
                self.fetch(index)
            }
            b'h' => {
                let index = self.size(1)?;
                self.fetch(index as u32)
            }
            b'j' => {
                let index = self.size(4)?;
                self.fetch(index as u32)
            }
            // Functions.
            b'c' | b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
                if code == b'i' { Err(self.malformed(code, start)) } else { Ok(()) }
            }
            0x93 => {
                let names = self.pop_n(2)?;
                let (module, name) = (text(&self.values, names[0]), text(&self.values, names[1]));
                self.global(&module.unwrap_or_default(), &name.unwrap_or_default())
            }
            // `cls.__new__(cls, *args)` is the same as a call for the types that are read.
            b'R' | 0x81 => self.call(),
            b'b' => self.build(),
            _ => Err(self.malformed(code, start)),
        }
    }

    fn error(&self, message: String) -> Error {
        Error::data(self.path, message)
    }

    fn malformed(&self, code: u8, at: usize) -> Error {
        self.error(format!(
            "has the pickle instruction 0x{code:02x} at byte {at}, which is out of place or not one that arrays, lists and dicts need; save it again with pickle.dump"
        ))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if n > rest.len() {
            return Err(self.error(format!(
                "is cut off or damaged: it wants {n} bytes at byte {} and has {}; copy or download it again",
                self.at,
                rest.len()
            )));
        }
        self.at += n;
        Ok(&rest[..n])
    }

    /// An unsigned length of `n` bytes.
    fn size(&mut self, n: usize) -> Result<usize> {
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(self.take(n)?);
        Ok(usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX))
    }

    fn raw_line(&mut self) -> Result<&'a [u8]> {
        let n = self.bytes[self.at..].iter().position(|&byte| byte == b'\n').unwrap_or(usize::MAX);
        let line = self.take(n)?;
        self.at += 1;
        Ok(line)
    }

    fn line(&mut self) -> Result<&'a str> {
        let line = self.raw_line()?;
        std::str::from_utf8(line)
            .map_err(|_| self.error(format!("has a name that is not UTF-8 before byte {}", self.at)))
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        self.stack.push(self.values.len() as Id);
        self.values.push(value);
        Ok(())
    }

    fn fixed(&mut self, n: usize, signed: bool) -> Result<()> {
        let number = integer(self.take(n)?, signed, false);
        let number = number.ok_or_else(|| self.error("holds an integer of more than 64 bits".into()))?;
        self.push(Value::Int(number))
    }

    fn decimal(&mut self, digits: &str) -> Result<()> {
        let number = digits
            .trim()
            .parse()
            .map_err(|_| self.error(format!("holds {digits:?} where a 64-bit integer belongs")))?;
        self.push(Value::Int(number))
    }

    fn text(&mut self, length_bytes: usize) -> Result<()> {
        let n = self.size(length_bytes)?;
        let text = std::str::from_utf8(self.take(n)?);
        let text = text.map_err(|_| self.error(format!("has text that is not UTF-8 before byte {}", self.at)))?;
        self.push(Value::Text(text.into()))
    }

    fn blob(&mut self, length_bytes: usize) -> Result<()> {
        let n = self.size(length_bytes)?;
        let bytes = self.take(n)?;
        self.push(Value::Bytes(bytes.into()))
    }

    fn empty_stack(&self) -> Error {
        self.error(format!(
            "is damaged: it takes a value that is not there before byte {}; copy or download it again",
            self.at
        ))
    }

    fn pop(&mut self) -> Result<Id> {
        self.stack.pop().ok_or_else(|| self.empty_stack())
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| self.empty_stack())
    }

    fn pop_n(&mut self, n: usize) -> Result<Vec<Id>> {
        let start = self.stack.len().checked_sub(n).ok_or_else(|| self.empty_stack())?;
        Ok(self.stack.split_off(start))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let start = self.marks.pop().filter(|&start| start <= self.stack.len()).ok_or_else(|| self.empty_stack())?;
        Ok(self.stack.split_off(start))
    }

    fn extend(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => list.extend(items),
            other => {
                let kind = kind(other);
                return Err(self.error(format!("is damaged: it appends to {kind}; copy or download it again")));
            }
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => dict.extend(pairs(items)),
            other => {
                let kind = kind(other);
                return Err(self.error(format!("is damaged: it sets a key of {kind}; copy or download it again")));
            }
        }
        Ok(())
    }

    fn memo_index(&mut self) -> Result<u32> {
        let line = self.line()?;
        line.parse()
            .map_err(|_| self.error(format!("is damaged: {line:?} is not a memo index; copy or download it again")))
    }

    fn put(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn fetch(&mut self, index: u32) -> Result<()> {
        let id = self.memo.get(&index).copied();
        let id =
            id.ok_or_else(|| self.error(format!("is damaged: memo {index} was never set; copy or download it again")))?;
        self.stack.push(id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        match Global::named(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(self.error(format!(
                "refers to {}.{}; only NumPy arrays, lists and dicts are read",
                shown(module),
                shown(name)
            ))),
        }
    }

    fn call(&mut self) -> Result<()> {
        let operands = self.pop_n(2)?;
        let (callee, args) = (operands[0], operands[1]);
        let (Value::Global(global), Value::Tuple(args)) = (&self.values[callee as usize], &self.values[args as usize])
        else {
            return Err(self.error(format!(
                "calls {}; only NumPy arrays, lists and dicts are read",
                kind(&self.values[callee as usize])
            )));
        };
        let unusual = || self.error(format!("calls {global:?} with unusual arguments; save it again with pickle.dump"));
        let value = match (global, args.as_slice()) {
            (Global::Reconstruct, [_, _, _]) => Value::NewArray,
            (Global::Dtype, [code, ..]) => {
                let code = text(&self.values, *code).filter(|code| code.len() < 64).ok_or_else(unusual)?;
                // `|u1`, `<i8` and `>i8` also occur as the code itself.
                let big_endian = code.starts_with('>');
                Value::Dtype { code: code.trim_start_matches(['|', '<', '>', '=']).to_string(), big_endian }
            }
            (Global::Scalar, [dtype, data]) => {
                let Value::Dtype { code, big_endian } = &self.values[*dtype as usize] else { return Err(unusual()) };
                let array = Array {
                    shape: Vec::new(),
                    code: code.clone(),
                    big_endian: *big_endian,
                    bytes: self.short(*data).ok_or_else(unusual)?,
                };
                match (code.as_str(), array.integers().as_deref()) {
                    ("i1" | "i2" | "i4" | "i8" | "u1" | "u2" | "u4" | "u8", Some([number])) => Value::Int(*number),
                    ("f2" | "f4" | "f8", _) => Value::Float,
                    _ => return Err(unusual()),
                }
            }
            (Global::FromBuffer, [data, dtype, shape, order]) => Value::Array {
                shape: self.shape(*shape).ok_or_else(unusual)?,
                dtype: *dtype,
                fortran: text(&self.values, *order).ok_or_else(unusual)? == "F",
                data: *data,
            },
            (Global::Encode, [source, codec]) | (Global::ByteArray, [source, codec]) => {
                let codec = text(&self.values, *codec).unwrap_or_default();
                if !matches!(codec.as_str(), "latin1" | "latin-1") {
                    return Err(unusual());
                }
                if !matches!(self.values[*source as usize], Value::Text(_)) {
                    return Err(unusual());
                }
                Value::Latin1(*source)
            }
            (Global::Bytes | Global::ByteArray, []) => Value::Bytes(Cow::Borrowed(&[])),
            (Global::ByteArray, [source]) => match &self.values[*source as usize] {
                // Only what borrows from the file, so that copies cannot pile up.
                Value::Bytes(Cow::Borrowed(bytes)) => Value::Bytes(Cow::Borrowed(bytes)),
                _ => return Err(unusual()),
            },
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::OrderedDict, [list]) => {
                let Value::List(items) = &self.values[*list as usize] else { return Err(unusual()) };
                let pair = |id: &Id| match &self.values[*id as usize] {
                    Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                    _ => None,
                };
                let (list, dict) = (*list, items.iter().map(pair).collect::<Option<_>>().ok_or_else(unusual)?);
                // Used up, so that one list cannot become any number of dicts.
                self.values[list as usize] = Value::None;
                Value::Dict(dict)
            }
            _ => return Err(unusual()),
        };
        self.push(value)
    }

    /// The bytes of one number.
    fn short(&self, id: Id) -> Option<Cow<'_, [u8]>> {
        match &self.values[id as usize] {
            Value::Latin1(source) if !matches!(&self.values[*source as usize], Value::Text(text) if text.len() <= 16) => {
                None
            }
            _ => raw(&self.values, id).filter(|bytes| bytes.len() <= 8),
        }
    }

    fn shape(&self, id: Id) -> Option<Vec<usize>> {
        let Value::Tuple(items) = &self.values[id as usize] else { return None };
        if items.len() > 8 {
            return None;
        }
        let length = |id: &Id| match self.values[*id as usize] {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        items.iter().map(length).collect()
    }

    /// Gives an array or a type its state.
    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let object = self.top()?;
        let unusual = || self.error("gives an object an unusual state; save it again with pickle.dump".into());
        let Value::Tuple(state) = &self.values[state as usize] else { return Err(unusual()) };
        let value = match (&self.values[object as usize], state.as_slice()) {
            // (version,) shape, type, Fortran order, values.
            (Value::NewArray, [.., shape, dtype, fortran, data]) => Value::Array {
                shape: self.shape(*shape).ok_or_else(unusual)?,
                dtype: *dtype,
                fortran: matches!(self.values[*fortran as usize], Value::Bool(true) | Value::Int(1)),
                data: *data,
            },
            // version, byte order, and parts that plain types do not have.
            (Value::Dtype { code, .. }, [_, order, ..]) => {
                Value::Dtype { code: code.clone(), big_endian: text(&self.values, *order).ok_or_else(unusual)? == ">" }
            }
            _ => return Err(unusual()),
        };
        self.values[object as usize] = value;
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// A name from the file, fit for one line.
fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_default).collect()
}

/// The bytes of Python 2's `repr` of a string.
fn unquote(line: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = line.trim_ascii_end().split_first()?;
    let inner = rest.strip_suffix(&[quote]).filter(|_| matches!(quote, b'\'' | b'"'))?;
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other @ (b'\\' | b'\'' | b'"') => other,
            _ => return None,
        });
    }
    Some(out)
}

/// The text of Python's raw-unicode-escape: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                out.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let hex = std::str::from_utf8(after.get(1..=digits)?).ok()?;
        out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = &after[digits + 1..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width() {
        assert_eq!(integer(&[], true, false), Some(0));
        assert_eq!(integer(&[0xff], true, false), Some(-1));
        assert_eq!(integer(&[0xff], false, false), Some(255));
        assert_eq!(integer(&[1, 0], false, true), Some(256));
        assert_eq!(integer(&[0xff; 8], true, false), Some(-1));
        assert_eq!(integer(&[0xff; 8], false, false), None);
        assert_eq!(integer(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0], true, false), None);
        assert_eq!(integer(&[1, 0, 0, 0, 0, 0, 0, 0, 0], true, false), Some(1));
    }

    #[test]
    fn strings_of_protocol_0() {
        assert_eq!(unquote(br"'a\x00\\\n\''"), Some(b"a\0\\\n'".to_vec()));
        assert_eq!(unquote(b"'a"), None);
        assert_eq!(unquote(b"'"), None);
        assert_eq!(unescape(b"a\\u00e9\xe9"), Some("a\u{e9}\u{e9}".into()));
        assert_eq!(unescape(b"\\u00"), None);
    }

    #[test]
    fn fortran_order_is_undone() {
        // [[1, 2, 3], [4, 5, 6]] column by column.
        assert_eq!(c_order(&[1, 4, 2, 5, 3, 6], &[2, 3], 1), [1, 2, 3, 4, 5, 6]);
    }
}
