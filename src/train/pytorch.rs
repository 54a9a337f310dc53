//! Checkpoints that `torch.save` wrote: the zip that PyTorch writes since 1.6, and the older stream of pickles.
//!
//! Nothing in a file is executed: the reader of pickles knows the few functions that make tensors, and looks into nothing
//! else. Numbers are read only of the tensors of the network; there are no more of them than the file has bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::checkpoint::{Checkpoint, Tensor, TensorData, check_finite, decode};
use super::names;
use crate::data::unpickle::{Id, Pickle, StoredTensor};
use crate::data::zip_archive::explain;
use crate::{Error, Result};

/// What a zip begins with.
const ZIP: &[u8] = b"PK\x03\x04";
/// What a file from before PyTorch 1.6 begins with: a pickle of the number 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The pickle in a zip.
const PICKLE: &str = "data.pkl";
/// Says in which order of bytes the numbers of a zip are, where it is there.
const BYTE_ORDER: &str = "byteorder";
/// What only a program of TorchScript has.
const SCRIPT: &str = "constants.pkl";

/// The keys under which programs put the state of their network, the averaged one first: timm's, Lightning's, the method's
/// authors', and those of other few-shot code. They nest.
const STATES: [&str; 11] = [
    "state_dict_ema",
    "model_ema",
    "state_dict",
    STATE,
    "model_state_dict",
    "model_state",
    "model_sd",
    "params",
    "network",
    "net",
    "module",
];
const MOST_NESTED: usize = 4;
/// The key of the network in files of the method's authors, and in those that `export` writes.
pub(super) const STATE: &str = "model";
/// The key of what `export` says of a network besides its tensors.
pub(super) const METADATA: &str = "metadata";

/// Whether a file that begins with `head` is one that `torch.save` may have written.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.starts_with(ZIP) || head.starts_with(MAGIC)
}

/// Refuses a zip that is none of PyTorch's before it is read whole: an archive of pictures may be large.
pub(super) fn check(path: &Path, file: &File, head: &[u8]) -> Result<()> {
    if !head.starts_with(ZIP) {
        return Ok(());
    }
    let archive = ZipArchive::new(file).map_err(|error| explain(path, &error))?;
    let mut names = archive.file_names().filter_map(std::result::Result::ok);
    if names.any(|name| is_pickle(&name)) { Ok(()) } else { Err(no_pickle(path)) }
}

fn is_pickle(name: &str) -> bool {
    name == PICKLE || name.ends_with("/data.pkl")
}

fn no_pickle(path: &Path) -> Error {
    Error::data(
        path,
        "is a zip archive, as PyTorch files are, but has no data.pkl; name a file that torch.save or `ieq-wgpu train` wrote",
    )
}

/// Where the numbers are.
enum Storages<'a> {
    Zip {
        archive: ZipArchive<Cursor<&'a [u8]>>,
        /// The folder of the pickle, with a slash, or nothing.
        folder: String,
        big_endian: bool,
    },
    Stream(BTreeMap<String, &'a [u8]>),
}

/// What one file may still take of memory.
struct Rest {
    bytes: usize,
    numbers: usize,
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::data(path, format!("is cut off or damaged: {what}; copy or download it again"))
}

impl Checkpoint {
    /// The network in the bytes of a file that `torch.save` wrote: a state dict, alone or as an entry of a dict as the
    /// method's authors, Lightning and timm write it; `path` is for messages. Half and double precision become f32, and
    /// what wrappers add to names is removed.
    ///
    /// # Errors
    /// [`Error::Data`] with what is wrong with the bytes.
    pub fn from_pytorch(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let path = path.as_ref();
        if bytes.starts_with(MAGIC) {
            return from_stream(path, bytes);
        }
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| explain(path, &error))?;
        let found = archive.file_names().filter_map(|name| name.ok().map(Cow::into_owned));
        let mut found = found.filter(|name| is_pickle(name));
        let folder = match (found.next(), found.next()) {
            (Some(name), None) => name[..name.len() - PICKLE.len()].to_owned(),
            (None, _) => return Err(no_pickle(path)),
            (Some(_), Some(_)) => {
                return Err(Error::data(path, "has two files data.pkl; save it again with torch.save"));
            }
        };
        drop(found);
        if archive.index_for_name(&format!("{folder}{SCRIPT}")).is_some() {
            return Err(Error::data(
                path,
                "is a program of TorchScript, not weights; save its state: torch.save(torch.jit.load(..).state_dict(), ..)",
            ));
        }
        let mut rest = Rest { bytes: bytes.len(), numbers: bytes.len() };
        let pickled = entry(path, &mut archive, &format!("{folder}{PICKLE}"), &mut rest)?;
        let order = format!("{folder}{BYTE_ORDER}");
        let big_endian =
            archive.index_for_name(&order).is_some() && entry(path, &mut archive, &order, &mut rest)? == b"big";
        let (pickle, _) = Pickle::parse_torch(path, &pickled)?;
        checkpoint(path, &pickle, Storages::Zip { archive, folder, big_endian }, rest)
    }
}

/// A file of a zip. PyTorch packs none, so that no file is larger than its zip.
fn entry(path: &Path, archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, rest: &mut Rest) -> Result<Vec<u8>> {
    let at = archive.index_for_name(name).ok_or_else(|| damaged(path, &format!("it has no {name}")))?;
    if archive.by_index_raw(at).map_err(|error| explain(path, &error))?.compression() != CompressionMethod::Stored {
        return Err(Error::data(path, "was packed by another program; save it again with torch.save"));
    }
    let entry = archive.by_index(at).map_err(|error| explain(path, &error))?;
    let mut content = Vec::new();
    let read = entry.take(rest.bytes as u64 + 1).read_to_end(&mut content);
    read.map_err(|error| damaged(path, &format!("{name}: {error}")))?;
    rest.bytes = rest.bytes.checked_sub(content.len()).ok_or_else(|| damaged(path, "its parts are larger than it"))?;
    Ok(content)
}

/// Five pickles (a magic number, the version, the machine, the object, the names of the storages), then the storages.
fn from_stream(path: &Path, bytes: &[u8]) -> Result<Checkpoint> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>> {
        let (pickle, end) = Pickle::parse_torch(path, &bytes[at..])?;
        at += end;
        Ok(pickle)
    };
    for _ in 0..3 {
        next()?;
    }
    let (object, keys) = (next()?, next()?);
    let dtypes = object.storages();
    let mut storages = BTreeMap::new();
    for &key in keys.items(keys.root()).unwrap_or_default() {
        let key = keys.string(key).map(str::to_owned).or_else(|| {
            let bytes = keys.bytes(key)?;
            String::from_utf8(bytes.into_owned()).ok()
        });
        let key = key.ok_or_else(|| damaged(path, "a storage has no name"))?;
        let dtype = dtypes.get(&key).copied().flatten();
        let dtype = dtype.ok_or_else(|| {
            Error::data(
                path,
                "holds numbers of a type that weights do not have; save the weights alone with torch.save",
            )
        })?;
        let (length, rest) = bytes[at..]
            .split_first_chunk::<8>()
            .ok_or_else(|| damaged(path, &format!("storage {key} is not there")))?;
        let wanted = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|n| n.checked_mul(dtype.bitsize() / 8));
        let storage = wanted.and_then(|wanted| rest.get(..wanted));
        let storage = storage.ok_or_else(|| damaged(path, &format!("storage {key} has {} bytes", rest.len())))?;
        at += 8 + storage.len();
        storages.insert(key, storage);
    }
    let rest = Rest { bytes: bytes.len(), numbers: bytes.len() };
    checkpoint(path, &object, Storages::Stream(storages), rest)
}

/// The network that a pickle describes, with its numbers.
fn checkpoint(path: &Path, pickle: &Pickle, mut storages: Storages, mut rest: Rest) -> Result<Checkpoint> {
    let (tensors, metadata) = state(path, pickle)?;
    let mut read: BTreeMap<String, Cow<'_, [u8]>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (name, stored) in names::network(path, tensors, true)? {
        let big_endian = match &mut storages {
            Storages::Zip { archive, folder, big_endian } => {
                if !read.contains_key(&stored.key) {
                    let content = entry(path, archive, &format!("{folder}data/{}", stored.key), &mut rest)?;
                    read.insert(stored.key.clone(), content.into());
                }
                *big_endian
            }
            Storages::Stream(storages) => {
                if let Some(storage) = storages.get(&stored.key) {
                    read.insert(stored.key.clone(), (*storage).into());
                }
                false
            }
        };
        let bytes = read.get(&stored.key).ok_or_else(|| damaged(path, &format!("{name} has no numbers")))?;
        let data = gather(&stored, bytes, big_endian, &mut rest.numbers);
        let data = data.map_err(|why| damaged(path, &format!("tensor {name} {why}")))?;
        check_finite(path, &name, &data)?;
        all.insert(name, Tensor { shape: stored.shape, data });
    }
    Ok(Checkpoint { tensors: all, metadata })
}

/// The tensors of the network's state dict by name, and what `export` wrote beside it.
fn state(path: &Path, pickle: &Pickle) -> Result<(BTreeMap<String, StoredTensor>, BTreeMap<String, String>)> {
    let (mut at, mut metadata) = (pickle.root(), BTreeMap::new());
    for _ in 0..MOST_NESTED {
        let Some(dict) = pickle.dict(at) else { break };
        let own = dict.get(METADATA).and_then(|&id| pickle.dict(id)).unwrap_or_default();
        metadata.extend(own.into_iter().filter_map(|(key, id)| Some((key, pickle.string(id)?.to_owned()))));
        let is_dict = |id: &Id| pickle.dict(*id).is_some_and(|dict| !dict.is_empty());
        match STATES.iter().find_map(|key| dict.get(*key).copied().filter(is_dict)) {
            Some(inner) => at = inner,
            None => break,
        }
    }
    let dict = pickle.dict(at).unwrap_or_default();
    let mut tensors = BTreeMap::new();
    for (name, id) in dict.into_iter().filter(|(_, id)| pickle.is_tensor(*id)) {
        let Some(tensor) = pickle.tensor(id) else {
            return Err(Error::data(
                path,
                format!(
                    "its tensor {} is of a kind that is not read (float8, complex, sparse, quantised, more than 8 \
                     axes, or damaged): save it as float32",
                    name.escape_debug()
                ),
            ));
        };
        tensors.insert(name, tensor);
    }
    if tensors.is_empty() {
        return Err(Error::data(
            path,
            format!(
                "holds {} without tensors of a network under their names; save those with \
                 torch.save(model.state_dict(), ..)",
                pickle.kind(at)
            ),
        ));
    }
    Ok((tensors, metadata))
}

/// The positions of a tensor's numbers in its storage, in C order.
fn positions(offset: usize, shape: &[usize], strides: &[usize]) -> impl Iterator<Item = usize> {
    let count = shape.iter().product::<usize>();
    let mut index = vec![0_usize; shape.len()];
    // An axis of one index may have any stride: what is added is taken away again.
    let mut at = offset;
    (0..count).map(move |_| {
        let own = at;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at = at.wrapping_add(strides[axis]);
            if index[axis] < shape[axis] {
                break;
            }
            at = at.wrapping_sub(index[axis].wrapping_mul(strides[axis]));
            index[axis] = 0;
        }
        own
    })
}

/// A tensor's numbers out of its storage; what is wrong with them otherwise.
fn gather(
    stored: &StoredTensor,
    storage: &[u8],
    big_endian: bool,
    rest: &mut usize,
) -> std::result::Result<TensorData, String> {
    let StoredTensor { dtype, shape, strides, .. } = stored;
    let size = dtype.bitsize() / 8;
    let count = shape.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis));
    let count = count.filter(|&n| n <= *rest).ok_or_else(|| format!("of shape {shape:?} is larger than the file"))?;
    *rest -= count;
    let offset = usize::try_from(stored.offset).unwrap_or(usize::MAX);
    // Of the last number.
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(offset, |at, (&axis, &stride)| at.checked_add(axis.saturating_sub(1).checked_mul(stride)?));
    let available = storage.len() / size.max(1);
    if count > 0 && last.is_none_or(|last| last >= available) {
        return Err(format!("of shape {shape:?} reaches beyond its {available} numbers"));
    }
    let mut bytes = Vec::with_capacity(count * size);
    for at in positions(offset, shape, strides) {
        let own = &storage[at * size..][..size];
        match big_endian {
            true => bytes.extend(own.iter().rev()),
            false => bytes.extend_from_slice(own),
        }
    }
    decode(*dtype, &bytes)
}
