//! The stack machine: one instruction at a time, with the few calls that arrays need.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::super::labels::{self, Label};
use super::literal::{integer, unescape, unquote};
use super::torch::{self, Torch};
use super::{Dialect, Global, Id, Order, Value, kind, raw, text};
use crate::{Error, Result};

/// The most values, memo entries and stack slots of one file.
const MAX_VALUES: usize = 1 << 24;

/// Bytes of the names of unknown types beyond those of the file: optimisers and schedules have few.
const MAX_NAMES: usize = 1 << 20;

/// The longest NumPy scalar that is looked at. Its text is a copy, and copies must not pile up.
const MAX_SCALAR_BYTES: usize = 256;
/// Modules whose functions no data set needs, for an early and clear message.
const NEVER_DATA: [&str; 12] = [
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "builtins",
    "__builtin__",
    "numpy",
    "torch",
    "importlib",
    "shutil",
    "socket",
];

/// The stack machine.
pub(super) struct Machine<'a> {
    dialect: Dialect,
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Bytes of the names of unknown types.
    named: usize,
}

impl<'a> Machine<'a> {
    /// The machine before the first byte of `bytes`, the content of `path`.
    pub(super) fn new(dialect: Dialect, path: &'a Path, bytes: &'a [u8]) -> Self {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Machine { dialect, path, bytes, at: 0, values, stack, marks, memo, named: 0 }
    }

    /// How many bytes it has read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// A value of the arena.
    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The arena.
    pub(super) fn into_values(self) -> Vec<Value<'a>> {
        self.values
    }

    /// Runs to the STOP instruction; the top value.
    pub(super) fn run(&mut self) -> Result<Id> {
        loop {
            let start = self.at;
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code, start)?;
            if self.values.len().max(self.stack.len()).max(self.marks.len()).max(self.memo.len()) > MAX_VALUES {
                let what = match self.dialect {
                    Dialect::Data => "save the images as one uint8 array",
                    Dialect::Torch => "save the weights alone",
                };
                return Err(self.error(format!("holds more than {MAX_VALUES} values; {what}")));
            }
        }
    }

    fn step(&mut self, code: u8, start: usize) -> Result<()> {
        match code {
            // Protocol and frames: nothing to do.
            0x80 => match self.take(1)?[0] {
                0..=5 => Ok(()),
                other => Err(self.error(format!(
                    "is a pickle of protocol {other}, but 0 to 5 are read; save it again with protocol=4"
                ))),
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
                let digits = self.line()?;
                self.push(Value::Float(digits.trim().parse().unwrap_or(f64::NAN)))
            }
            b'G' => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                self.push(Value::Float(f64::from_be_bytes(bytes)))
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
            // Sets: what is in them is of no use.
            0x8f => self.push(Value::Other),
            0x90 => self.pop_mark().map(drop),
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Other)
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
            // What lies outside the pickle: PyTorch's storages.
            b'Q' if self.dialect == Dialect::Torch => {
                let id = self.pop()?;
                let storage = torch::storage(&self.values, id);
                let unusual =
                    || self.error("names its numbers in an unusual way; save it again with torch.save".into());
                self.push(storage.ok_or_else(unusual)?)
            }
            // Functions.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Err(self.refuses(&format!("{}.{}", shown(module), shown(name))))
            }
            0x93 => {
                let names = self.pop_n(2)?;
                let (module, name) = (text(&self.values, names[0]), text(&self.values, names[1]));
                self.global(&module.unwrap_or_default(), &name.unwrap_or_default())
            }
            // `cls.__new__(cls, *args)` is the same as a call for the types that are read.
            b'R' => self.call(false),
            0x81 => self.call(true),
            0x92 => {
                self.pop()?;
                self.call(true)
            }
            b'b' => self.build(),
            _ => Err(self.malformed(code, start)),
        }
    }

    fn error(&self, message: String) -> Error {
        Error::data(self.path, message)
    }

    fn refuses(&self, name: &str) -> Error {
        self.error(self.dialect.refers_to(name))
    }

    fn malformed(&self, code: u8, at: usize) -> Error {
        self.error(format!(
            "has the pickle instruction 0x{code:02x} at byte {at}, which is out of place or not one that arrays, lists and dicts need; save it again with {}",
            self.dialect.again()
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
        let rest = &self.bytes[self.at..];
        let n = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len() + 1);
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
        self.push(number.map_or(Value::Other, Value::Int))
    }

    fn decimal(&mut self, digits: &str) -> Result<()> {
        let digits = digits.trim();
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(
                self.error(format!("holds {:?} where an integer belongs; copy or download it again", shown(digits)))
            );
        }
        self.push(digits.parse().map_or(Value::Other, Value::Int))
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
            // A subclass of list is made like any object.
            Value::Dict(pairs) if pairs.is_empty() => {
                self.values[list as usize] = Value::List(items.to_vec());
            }
            Value::Other => {}
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
            Value::Other => {}
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
        let is_torch = self.dialect == Dialect::Torch;
        let torch = Torch::named(module, name).filter(|_| is_torch).map(Global::Torch);
        let value = match torch.or_else(|| Global::named(module, name)) {
            Some(global) => Value::Global(global),
            None => {
                let full = format!("{}.{}", shown(module), shown(name));
                let room = module.split('.').next().unwrap_or_default();
                // Beside the weights lie optimisers, schedules and random states of many types.
                if NEVER_DATA.contains(&room) && !(is_torch && matches!(room, "numpy" | "torch")) {
                    return Err(self.refuses(&full));
                }
                // Two short texts may be joined to ever more names.
                self.named += full.len();
                if self.named > self.bytes.len() + MAX_NAMES {
                    return Err(
                        self.error(format!("refers to too many types; save it again with {}", self.dialect.again()))
                    );
                }
                Value::Unknown(full)
            }
        };
        self.push(value)
    }

    /// Calls a function, or makes an object (`new`) of a type.
    fn call(&mut self, new: bool) -> Result<()> {
        let operands = self.pop_n(2)?;
        let (callee, args) = (operands[0], operands[1]);
        let (global, args) = match (&self.values[callee as usize], &self.values[args as usize]) {
            (Value::Global(global), Value::Tuple(args)) => (global, args),
            // An object of an unknown type, such as a subclass of dict, is empty until it is filled.
            (Value::Unknown(_), Value::Tuple(_)) if new => return self.push(Value::Dict(Vec::new())),
            (Value::Global(Global::Torch(_)), _) | (Value::Unknown(_) | Value::Other, _)
                if self.dialect == Dialect::Torch =>
            {
                return self.push(Value::Other);
            }
            (Value::Unknown(name), _) => return Err(self.refuses(name)),
            (other, _) => {
                let kind = kind(other);
                return Err(self.error(format!("calls {kind}; only NumPy arrays, lists and dicts are read")));
            }
        };
        if let Global::Torch(function) = *global {
            let value = function.call(&self.values, args);
            return match value {
                torch::Made::New(value) => self.push(value),
                torch::Made::Same(id) => {
                    self.stack.push(id);
                    Ok(())
                }
            };
        }
        let unusual = || {
            let again = self.dialect.again();
            self.error(format!("calls {global:?} with unusual arguments; save it again with {again}"))
        };
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
                let one = |bytes: &[u8]| labels::of_array(self.path, "", code, *big_endian, &[1], bytes).ok()?.pop();
                match (code.as_bytes().first(), self.short(*data)) {
                    (Some(b'U' | b'S' | b'a'), Some(bytes)) => match one(&bytes) {
                        Some(Label::Name(name)) => Value::Text(name.into()),
                        _ => Value::Other,
                    },
                    (Some(b'i' | b'u' | b'b'), Some(bytes)) => match one(&bytes) {
                        Some(Label::Number(number)) if code == "b1" => Value::Bool(number != 0),
                        Some(Label::Number(number)) => Value::Int(number),
                        _ => Value::Other,
                    },
                    (Some(b'f'), Some(bytes)) => match one(&bytes) {
                        Some(Label::Number(number)) => Value::Float(number as f64),
                        _ => Value::Float(f64::NAN),
                    },
                    _ => Value::Other,
                }
            }
            (Global::FromBuffer, [data, dtype, shape, order, rest @ ..]) => {
                let shape = self.shape(*shape).ok_or_else(unusual)?;
                let axes = rest.first().and_then(|axes| self.shape(*axes));
                let order = match (text(&self.values, *order).ok_or_else(unusual)?.as_str(), axes) {
                    ("F", _) => Order::Fortran,
                    ("K", Some(axes)) => {
                        let mut sorted = axes.clone();
                        sorted.sort_unstable();
                        if !sorted.into_iter().eq(0..shape.len()) {
                            return Err(unusual());
                        }
                        Order::Axes(axes)
                    }
                    _ => Order::C,
                };
                Value::Array { shape, dtype: *dtype, order, data: *data }
            }
            (Global::Encode, [source, codec]) | (Global::ByteArray, [source, codec]) => {
                let codec = text(&self.values, *codec).unwrap_or_default();
                if !matches!(codec.as_str(), "latin1" | "latin-1" | "iso-8859-1" | "iso8859-1") {
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
            (Global::OrderedDict | Global::Dict, []) => Value::Dict(Vec::new()),
            // A dict with a function for missing keys; its items follow.
            (Global::Dict, [factory]) if !matches!(self.values[*factory as usize], Value::List(_) | Value::Dict(_)) => {
                Value::Dict(Vec::new())
            }
            // What is taken over is used up, so that one dict cannot become any number of them.
            (Global::Reconstructor, [_, _, state]) => {
                let state = *state as usize;
                if matches!(self.values[state], Value::Dict(_) | Value::List(_)) {
                    std::mem::replace(&mut self.values[state], Value::None)
                } else {
                    Value::Dict(Vec::new())
                }
            }
            (Global::Other, _) => Value::Other,
            (Global::OrderedDict | Global::Dict, [list]) => {
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
            Value::Latin1(source) if !matches!(&self.values[*source as usize], Value::Text(text) if text.len() <= 2 * MAX_SCALAR_BYTES) => {
                None
            }
            _ => raw(&self.values, id).filter(|bytes| bytes.len() <= MAX_SCALAR_BYTES),
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
        // The attributes of other objects are of no use.
        if matches!(
            self.values[object as usize],
            Value::Dict(_) | Value::List(_) | Value::Other | Value::Tensor(_) | Value::Storage(_)
        ) {
            return Ok(());
        }
        let again = self.dialect.again();
        let unusual = || self.error(format!("gives an object an unusual state; save it again with {again}"));
        let Value::Tuple(state) = &self.values[state as usize] else { return Err(unusual()) };
        let value = match (&self.values[object as usize], state.as_slice()) {
            // (version,) shape, type, Fortran order, values.
            (Value::NewArray, [.., shape, dtype, fortran, data]) => {
                let fortran = matches!(self.values[*fortran as usize], Value::Bool(true) | Value::Int(1));
                Value::Array {
                    shape: self.shape(*shape).ok_or_else(unusual)?,
                    dtype: *dtype,
                    order: if fortran { Order::Fortran } else { Order::C },
                    data: *data,
                }
            }
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
