//! Checkpoints: the bytes of a safetensors file that PyTorch reads, equal bytes for equal state. Files are read and
//! written by [`super::checkpoint_file`], PyTorch's own are read by `super::pytorch`.
//!
//! Weights carry PyTorch's state-dict names (`docs/method.md`, section 2). Whatever else a run needs to resume
//! (momentum, memory bank, ...) goes under [`TRAINING_PREFIX`]; settings and counters are strings in the
//! file's metadata.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, View};

use super::names;
use crate::{Error, Result};

/// Names that start so are training state, not part of the network.
pub const TRAINING_PREFIX: &str = "train.";

/// PyTorch's counter beside each batch norm's running statistics: nothing here depends on it.
const IGNORED_SUFFIX: &str = ".num_batches_tracked";
/// The metadata key that tells readers which library's conventions the file follows.
const FORMAT: (&str, &str) = ("format", "pt");
/// The header key of the metadata, reserved by the format.
const METADATA: &str = "__metadata__";
/// How many names of each kind a sentence about a misfit lists.
const NAMES_SHOWN: usize = 3;

/// The numbers of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// Real numbers. F16, BF16 and F64 become this when read.
    F32(Vec<f32>),
    /// Whole numbers and truth values. All narrower integer types become this when read.
    I64(Vec<i64>),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(values) => values.len(),
            TensorData::I64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many numbers as the shape says.
    pub data: TensorData,
}

impl Tensor {
    /// A tensor of real numbers.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Tensor { shape: shape.into(), data: TensorData::F32(data) }
    }

    /// A tensor of whole numbers.
    pub fn i64(shape: impl Into<Vec<usize>>, data: Vec<i64>) -> Self {
        Tensor { shape: shape.into(), data: TensorData::I64(data) }
    }

    /// The numbers, little-endian.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.data {
            TensorData::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            TensorData::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }
}

impl View for &Tensor {
    fn dtype(&self) -> Dtype {
        match self.data {
            TensorData::F32(_) => Dtype::F32,
            TensorData::I64(_) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes().into()
    }

    fn data_len(&self) -> usize {
        self.data.len() * self.dtype().bitsize() / 8
    }
}

/// Everything in a checkpoint file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Settings and counters. The key `format` belongs to the file: written as `pt`, dropped when read.
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// The bytes of a safetensors file. Equal checkpoints give equal bytes. Numbers that are not finite are refused, so
    /// that a diverged run cannot replace the last good state.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for those; [`Error::Internal`] when a tensor's shape and numbers do not fit together.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        for (name, tensor) in &self.tensors {
            let size = tensor.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            if size != Some(tensor.data.len()) || name == METADATA {
                return Err(Error::Internal(format!(
                    "tensor {name:?} of shape {:?} holds {} numbers",
                    tensor.shape,
                    tensor.data.len()
                )));
            }
            if let Some(i) = not_finite(&tensor.data) {
                return Err(Error::NonFinite(format!(
                    "not written, {name} is not finite at element {i}; lower the learning rate and resume"
                )));
            }
        }
        let internal = |e: &dyn std::fmt::Display| Error::Internal(format!("cannot encode a checkpoint: {e}"));
        let plain = safetensors::serialize(&self.tensors, None).map_err(|e| internal(&e))?;
        // The library takes the metadata as a HashMap and writes it in that map's random order. Its header
        // is one JSON object, so the metadata goes in front of the tensors here, sorted.
        let (length, rest) = plain.split_first_chunk::<8>().ok_or_else(|| internal(&"no header"))?;
        let (header, body) = rest
            .split_at_checked(u64::from_le_bytes(*length) as usize)
            .ok_or_else(|| internal(&"the header is cut short"))?;
        let tensors = header.trim_ascii_end().strip_prefix(b"{").ok_or_else(|| internal(&"the header is no object"))?;
        let mut metadata = self.metadata.clone();
        metadata.insert(FORMAT.0.to_owned(), FORMAT.1.to_owned());
        let mut header = format!("{{{METADATA:?}:").into_bytes();
        serde_json::to_writer(&mut header, &metadata).map_err(|e| internal(&e))?;
        if tensors != b"}" {
            header.push(b',');
        }
        header.extend_from_slice(tensors);
        // The format aligns the numbers to 8 bytes with spaces.
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(body);
        Ok(bytes)
    }

    /// A checkpoint from the bytes of any safetensors file of real and whole numbers; `path` is for messages. Half and
    /// double precision become f32. What PyTorch's wrappers add to names (`module.`, `_orig_mod.` and the like) is
    /// removed.
    ///
    /// # Errors
    /// [`Error::Data`] with what is wrong with the bytes.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let path = path.as_ref();
        if let Some(message) = foreign(bytes, bytes.len() as u64) {
            return Err(Error::data(path, message));
        }
        let broken = |e: &dyn std::fmt::Display| {
            Error::data(path, format!("is not a complete safetensors file ({e}); copy it again or use an earlier one"))
        };
        let file = SafeTensors::deserialize(bytes).map_err(|e| broken(&e))?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| broken(&e))?;
        let mut metadata: BTreeMap<String, String> =
            header.metadata().clone().unwrap_or_default().into_iter().collect();
        metadata.remove(FORMAT.0);
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let data = decode(view.dtype(), view.data())
                .map_err(|message| Error::data(path, format!("tensor {name} {message}")))?;
            check_finite(path, name, &data)?;
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
        }
        Ok(Checkpoint { tensors: unwrapped(path, tensors)?, metadata })
    }

    /// Whether the network's tensors are exactly `expected` (name, shape), all of real numbers; `path` is
    /// for the message. Training state and PyTorch's batch counters may be there besides.
    pub fn check_against(&self, path: impl AsRef<Path>, expected: &[(String, Vec<usize>)]) -> Result<()> {
        let known: std::collections::BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let unexpected = self.tensors.keys().filter(|name| {
            !known.contains(name.as_str()) && !name.starts_with(TRAINING_PREFIX) && !name.ends_with(IGNORED_SUFFIX)
        });
        self.check(path.as_ref(), expected, unexpected.cloned().collect())
    }

    /// Whether every one of `expected` (name, shape) is there, of real numbers; more may be. For the
    /// backbone of a network whose heads do not matter.
    pub fn check_contains(&self, path: impl AsRef<Path>, expected: &[(String, Vec<usize>)]) -> Result<()> {
        self.check(path.as_ref(), expected, Vec::new())
    }

    fn check(&self, path: &Path, expected: &[(String, Vec<usize>)], unexpected: Vec<String>) -> Result<()> {
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        for (name, shape) in expected {
            match self.tensors.get(name) {
                None => missing.push(name.clone()),
                Some(tensor) if tensor.shape != *shape => {
                    wrong.push(format!("{name} ({:?} in the file, {shape:?} in the network)", tensor.shape));
                }
                Some(Tensor { data: TensorData::I64(_), .. }) => {
                    wrong.push(format!("{name} (whole numbers in the file, real ones in the network)"));
                }
                Some(_) => {}
            }
        }
        let kinds = [("missing", missing), ("of another shape or type", wrong), ("unexpected", unexpected)];
        let found: Vec<String> = kinds.iter().filter(|(_, names)| !names.is_empty()).map(list).collect();
        if found.is_empty() {
            return Ok(());
        }
        Err(Error::data(
            path,
            format!(
                "does not fit the network: {}; set the backbone, widths, classes, transforms and embedding it was trained with",
                found.join("; ")
            ),
        ))
    }
}

/// The tensors under the network's own names; training state keeps its names.
fn unwrapped(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let (mut all, network): (BTreeMap<_, _>, BTreeMap<_, _>) =
        tensors.into_iter().partition(|(name, _)| name.starts_with(TRAINING_PREFIX));
    for (name, tensor) in names::network(path, network, false)? {
        if all.insert(name.clone(), tensor).is_some() {
            return Err(names::twice(path, &name));
        }
    }
    Ok(all)
}

/// `missing a, b, c and 4 more`.
fn list((kind, names): &(&str, Vec<String>)) -> String {
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => format!("{kind} {shown}"),
        more => format!("{kind} {shown} and {more} more"),
    }
}

/// Refuses a tensor `name` of the file that is read in which a number is not finite.
pub(super) fn check_finite(path: &Path, name: &str, data: &TensorData) -> Result<()> {
    match not_finite(data) {
        None => Ok(()),
        Some(i) => Err(Error::data(
            path,
            format!("tensor {name} is not finite in f32 at element {i}; use a checkpoint from before that"),
        )),
    }
}

fn not_finite(data: &TensorData) -> Option<usize> {
    match data {
        TensorData::F32(values) => values.iter().position(|v| !v.is_finite()),
        TensorData::I64(_) => None,
    }
}

/// What a file of `length` bytes is that starts with `head`, if it is no safetensors file.
pub(super) fn foreign(head: &[u8], length: u64) -> Option<String> {
    const CONVERT: &str = "convert it in Python with safetensors.torch.save_file(state_dict, \
                           \"checkpoint.safetensors\"), where state_dict is torch.load(...) or the entry \"model\" of \
                           it, and put the config.toml of its run beside it";
    if head.is_empty() {
        return Some("is empty; copy it again or use an earlier checkpoint".to_owned());
    }
    // A zip holds a PyTorch file since 1.6; before that, and in plain Python, it is a bare pickle.
    if head.starts_with(b"PK\x03\x04") {
        return Some(format!("is a zip archive, as PyTorch files are, not a safetensors file; {CONVERT}"));
    }
    if head[0] == 0x80 && head.get(1).is_some_and(|version| (1..=5).contains(version)) && head.get(8) != Some(&b'{') {
        return Some(format!("is a PyTorch or Python pickle, not a safetensors file; {CONVERT}"));
    }
    let (size, rest) = head.split_first_chunk::<8>().map(|(size, rest)| (u64::from_le_bytes(*size), rest))?;
    if rest.first().is_some_and(|&first| first != b'{') {
        return Some("is not a safetensors file; name a checkpoint of this program or a converted one".to_owned());
    }
    if size > length.saturating_sub(8) {
        return Some(format!(
            "is cut short: it has {length} bytes and announces a header of {size}; copy it again or use an earlier one"
        ));
    }
    None
}

/// The numbers in `bytes`, little-endian, as f32 or i64; what is wrong with them otherwise.
pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> std::result::Result<TensorData, String> {
    fn all<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| read(chunk)).collect()
    }
    Ok(match dtype {
        Dtype::F32 => TensorData::F32(all(bytes, f32::from_le_bytes)),
        Dtype::F64 => TensorData::F32(all(bytes, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F16 => TensorData::F32(all(bytes, |b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => TensorData::F32(all(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        Dtype::I64 => TensorData::I64(all(bytes, i64::from_le_bytes)),
        Dtype::I32 => TensorData::I64(all(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        Dtype::I16 => TensorData::I64(all(bytes, |b| i64::from(i16::from_le_bytes(b)))),
        Dtype::I8 => TensorData::I64(all(bytes, |b| i64::from(i8::from_le_bytes(b)))),
        Dtype::U32 => TensorData::I64(all(bytes, |b| i64::from(u32::from_le_bytes(b)))),
        Dtype::U16 => TensorData::I64(all(bytes, |b| i64::from(u16::from_le_bytes(b)))),
        Dtype::U8 | Dtype::BOOL => TensorData::I64(all(bytes, |[b]: [u8; 1]| i64::from(b))),
        other => return Err(format!("has the number type {other}; save it as float32 or int64")),
    })
}
