//! What PyTorch's files say of tensors: which numbers of which storage. The numbers themselves lie outside the pickle.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{Global, Id, Value, text};

/// The most axes of a tensor that is looked at.
const MAX_AXES: usize = 8;

/// The longest name of a storage; they are numbers.
const MAX_KEY: usize = 64;

/// What may be referred to in a file of PyTorch's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Torch {
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`: storage, offset, shape, strides.
    RebuildTensor,
    /// `_rebuild_tensor_v3`: the same of a storage without a type, with the type behind.
    RebuildTyped,
    /// `_rebuild_parameter`: a tensor, and whether it is trained.
    RebuildParameter,
    /// `_rebuild_from_type_v2`: one of the above, a subclass, its arguments and state.
    RebuildFromType,
    /// A class of storages.
    Storage(Option<Dtype>),
    /// A type of numbers.
    Type(Option<Dtype>),
    /// `torch.Size`, a tuple.
    Size,
}

impl Torch {
    pub(super) fn named(module: &str, name: &str) -> Option<Torch> {
        Some(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Torch::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Torch::RebuildTyped,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Torch::RebuildParameter,
            ("torch._tensor", "_rebuild_from_type_v2") => Torch::RebuildFromType,
            ("torch", "Size") => Torch::Size,
            ("torch" | "torch.cuda", "FloatStorage") => Torch::Storage(Some(Dtype::F32)),
            ("torch" | "torch.cuda", "DoubleStorage") => Torch::Storage(Some(Dtype::F64)),
            ("torch" | "torch.cuda", "HalfStorage") => Torch::Storage(Some(Dtype::F16)),
            ("torch" | "torch.cuda", "BFloat16Storage") => Torch::Storage(Some(Dtype::BF16)),
            ("torch" | "torch.cuda", "LongStorage") => Torch::Storage(Some(Dtype::I64)),
            ("torch" | "torch.cuda", "IntStorage") => Torch::Storage(Some(Dtype::I32)),
            ("torch" | "torch.cuda", "ShortStorage") => Torch::Storage(Some(Dtype::I16)),
            ("torch" | "torch.cuda", "CharStorage") => Torch::Storage(Some(Dtype::I8)),
            ("torch" | "torch.cuda", "ByteStorage") => Torch::Storage(Some(Dtype::U8)),
            ("torch" | "torch.cuda", "BoolStorage") => Torch::Storage(Some(Dtype::BOOL)),
            ("torch" | "torch.cuda" | "torch.storage", other) if other.ends_with("Storage") => Torch::Storage(None),
            ("torch", "float32") => Torch::Type(Some(Dtype::F32)),
            ("torch", "float64") => Torch::Type(Some(Dtype::F64)),
            ("torch", "float16") => Torch::Type(Some(Dtype::F16)),
            ("torch", "bfloat16") => Torch::Type(Some(Dtype::BF16)),
            ("torch", "int64") => Torch::Type(Some(Dtype::I64)),
            ("torch", "int32") => Torch::Type(Some(Dtype::I32)),
            ("torch", "int16") => Torch::Type(Some(Dtype::I16)),
            ("torch", "int8") => Torch::Type(Some(Dtype::I8)),
            ("torch", "uint8") => Torch::Type(Some(Dtype::U8)),
            ("torch", "bool") => Torch::Type(Some(Dtype::BOOL)),
            _ => return None,
        })
    }

    /// What a call with these arguments makes; nothing that is looked into where they are unusual.
    pub(super) fn call<'a>(self, values: &[Value<'a>], args: &[Id]) -> Made<'a> {
        let rebuilt = |function: Torch, args: &[Id]| match (function, args) {
            (Torch::RebuildTensor, &[storage, offset, shape, strides, ..]) => {
                Some(View { storage, offset, shape, strides, dtype: None })
            }
            (Torch::RebuildTyped, &[storage, offset, shape, strides, _, _, dtype, ..]) => {
                Some(View { storage, offset, shape, strides, dtype: Some(dtype) })
            }
            _ => None,
        };
        match (self, args) {
            (Torch::RebuildParameter | Torch::Size, &[same, ..]) => Made::Same(same),
            (Torch::RebuildFromType, &[function, _, args, ..]) => {
                match (&values[function as usize], &values[args as usize]) {
                    (Value::Global(Global::Torch(function)), Value::Tuple(args)) => match (function, args.as_slice()) {
                        (Torch::RebuildParameter, &[same, ..]) => Made::Same(same),
                        (function, args) => Made::of(rebuilt(*function, args)),
                    },
                    _ => Made::New(Value::Other),
                }
            }
            (function, args) => Made::of(rebuilt(function, args)),
        }
    }
}

/// What a call makes.
pub(super) enum Made<'a> {
    New(Value<'a>),
    /// One of its arguments.
    Same(Id),
}

impl Made<'_> {
    fn of(view: Option<View>) -> Self {
        Made::New(view.map_or(Value::Other, Value::Tensor))
    }
}

/// A tensor as its call has it: ids of the arguments, read when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    storage: Id,
    offset: Id,
    shape: Id,
    strides: Id,
    dtype: Option<Id>,
}

/// A storage as the pickle names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    dtype: Option<Dtype>,
    key: Id,
    /// Numbers in it; bytes where it has no type.
    length: u64,
    /// Where it begins in the storage of that key, as files from before PyTorch 0.4 may have it.
    begins: u64,
}

fn whole(values: &[Value], id: Id) -> Option<u64> {
    match values[id as usize] {
        Value::Int(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

/// The storage that a persistent id names: `("storage", class, key, device, length)`, in older files with a view of another
/// behind. Other things that lie outside the pickle, such as sources of modules, are of no use.
pub(super) fn storage<'a>(values: &[Value<'a>], id: Id) -> Option<Value<'a>> {
    let Value::Tuple(parts) = &values[id as usize] else { return None };
    let (&kind, parts) = parts.split_first()?;
    match (text(values, kind)?.as_str(), parts) {
        ("module", _) => Some(Value::Unknown("a module".into())),
        ("storage", &[class, key, _, length, ref view @ ..]) => {
            let Value::Global(Global::Torch(Torch::Storage(dtype))) = values[class as usize] else { return None };
            let (begins, length) = match view {
                [view] => match &values[*view as usize] {
                    Value::Tuple(view) if view.len() == 3 => (whole(values, view[1])?, whole(values, view[2])?),
                    Value::None => (0, whole(values, length)?),
                    _ => return None,
                },
                [] => (0, whole(values, length)?),
                _ => return None,
            };
            text(values, key).filter(|key| key.len() <= MAX_KEY)?;
            Some(Value::Storage(Storage { dtype, key, length, begins }))
        }
        _ => None,
    }
}

/// The name of every storage, with the type of its numbers.
pub(super) fn storages(values: &[Value]) -> BTreeMap<String, Option<Dtype>> {
    let one = |value: &Value| match value {
        Value::Storage(storage) => Some((text(values, storage.key)?, storage.dtype)),
        _ => None,
    };
    // One by one: a name that is there a million times is kept once.
    let mut all = BTreeMap::new();
    for (name, dtype) in values.iter().filter_map(one) {
        all.insert(name, dtype);
    }
    all
}

/// A tensor whose numbers lie outside the pickle. Nothing of it was compared with the storage yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    /// The name of the storage.
    pub(crate) key: String,
    /// What it holds.
    pub(crate) dtype: Dtype,
    /// The first number that belongs to the tensor.
    pub(crate) offset: u64,
    /// Lengths of the axes.
    pub(crate) shape: Vec<usize>,
    /// From one index of an axis to the next, in numbers.
    pub(crate) strides: Vec<usize>,
}

/// The tensor that a value is.
pub(super) fn tensor(values: &[Value], id: Id) -> Option<StoredTensor> {
    let Value::Tensor(view) = values[id as usize] else { return None };
    let Value::Storage(storage) = values[view.storage as usize] else { return None };
    let dtype = match view.dtype.map(|id| &values[id as usize]) {
        None => storage.dtype?,
        Some(Value::Global(Global::Torch(Torch::Type(dtype)))) => (*dtype)?,
        Some(_) => return None,
    };
    let list = |id: Id| -> Option<Vec<usize>> {
        let Value::Tuple(items) = &values[id as usize] else { return None };
        let all = items.iter().map(|&item| usize::try_from(whole(values, item)?).ok());
        (items.len() <= MAX_AXES).then(|| all.collect())?
    };
    let (shape, strides) = (list(view.shape)?, list(view.strides)?);
    let offset = whole(values, view.offset)?;
    let fits = shape.len() == strides.len() && (storage.dtype.is_none() || offset <= storage.length);
    let offset = fits.then(|| offset.checked_add(storage.begins))??;
    Some(StoredTensor { key: text(values, storage.key)?, dtype, offset, shape, strides })
}
