//! NumPy's `.npy`, and `.npz`, a zip of them. Images are read one at a time.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use npyz::{DType, NpyHeader, Order};

use super::arrays::{Content, ImageArray, Part, Pixels};
use super::labels::{self, Label, MAX_LABELS};
use super::parts::{self, Keys};
use super::split::Split;
use super::unpickle::{Pickle, transposed};
use super::zip_archive;
use crate::{Error, Result};

/// NumPy writes headers of some 120 bytes; larger or deeply nested ones are not worth a parser's stack.
const MAX_HEADER_BYTES: u32 = 4096;
/// The largest array that is not read image by image.
const MAX_WHOLE_BYTES: u64 = 8 << 30;

/// Whether the zip holds arrays rather than images.
pub(super) fn is_npz(path: &Path) -> Result<bool> {
    let archive = zip_archive::open(path)?;
    let all_npy = archive.file_names().all(|name| name.is_ok_and(|name| name.ends_with(".npy")));
    Ok(all_npy && !archive.is_empty())
}

/// Whether the `.npz` has an array of images; a damaged one may have.
pub(super) fn has_images(path: &Path) -> bool {
    keys(path).is_ok_and(|keys| keys.iter().any(|key| parts::is_images(key))) || zip_archive::open(path).is_err()
}

fn keys(path: &Path) -> Result<Vec<String>> {
    let archive = zip_archive::open(path)?;
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned()));
    Ok(names.collect())
}

/// The images and labels of a `.npz`; the labels `beside` it where there are some.
pub(super) fn parts(path: &Path, beside: Option<Vec<Label>>) -> Result<Vec<Part<'static>>> {
    let names = keys(path)?;
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = parts::of_keys(&keys);
    if found.is_empty() {
        return Err(Error::data(path, format!("has no array images (it has {keys:?}); save it with images=...")));
    }
    let mut all = Vec::new();
    for Keys { split, images, labels } in found {
        let entry = |key: &str| Npy::Entry(path.to_path_buf(), format!("{key}.npy"));
        let (pixels, per_class) = entry(images).pixels()?;
        let labels = match (&beside, labels, per_class) {
            (Some(labels), ..) => labels.clone(),
            (None, Some(key), _) => entry(key).labels()?,
            (None, None, Some(each)) => parts::by_position(&pixels, each),
            (None, None, None) => {
                return Err(Error::data(
                    path,
                    "has no labels: neither an array labels nor a file ..._labels.pkl beside it; add one",
                ));
            }
        };
        all.push(Part { path: path.to_path_buf(), split, pixels, labels });
    }
    Ok(all)
}

/// The images of a `.npy`, with labels from the file beside it: `labels.npy` beside `images.npy`, `y_test.npy` beside
/// `x_test.npy`.
pub(super) fn npy_part(path: &Path, split: Option<Split>) -> Result<Part<'static>> {
    let (pixels, per_class) = Npy::File(path.to_path_buf()).pixels()?;
    let labels = match (labels_beside(path), per_class) {
        (Some(beside), _) => Npy::File(beside).labels()?,
        (None, Some(each)) => parts::by_position(&pixels, each),
        (None, None) => {
            return Err(Error::data(path, "has no labels beside it; save them as labels.npy beside images.npy"));
        }
    };
    Ok(Part { path: path.to_path_buf(), split, pixels, labels })
}

/// The labels that belong to a `.npy` of images.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    const PAIRS: [(&str, &str); 6] =
        [("images", "labels"), ("image", "label"), ("imgs", "labels"), ("data", "labels"), ("x", "y"), ("X", "y")];
    let name = path.file_stem()?.to_string_lossy().into_owned();
    PAIRS.iter().find_map(|(images, labels)| {
        let at = name.rfind(images)?;
        let beside = path.with_file_name(format!("{}{labels}{}.npy", &name[..at], &name[at + images.len()..]));
        beside.is_file().then_some(beside)
    })
}

/// One array: a file, or an entry of an archive.
#[derive(Clone)]
enum Npy {
    File(PathBuf),
    Entry(PathBuf, String),
}

/// The values of an array in C order.
struct Body(Npy);

impl Content for Body {
    fn open(self: Box<Self>, read: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        let location = self.0.location();
        self.0.open(&mut |content, size| {
            let header = Header::read(&location, content)?;
            let (true, Some(item)) = (header.fortran, labels::item_bytes(&header.code)) else { return read(content) };
            let bytes = header.whole(&location, content, size, item)?;
            let base: Vec<usize> = header.shape.iter().rev().copied().collect();
            let axes: Vec<usize> = (0..base.len()).rev().collect();
            read(&mut Cursor::new(transposed(&bytes, &base, &axes, item)))
        })
    }
}

impl Npy {
    fn location(&self) -> PathBuf {
        match self {
            Npy::File(path) => path.clone(),
            Npy::Entry(path, name) => path.join(name),
        }
    }

    /// Calls `read` with the content and its size in bytes.
    fn open(&self, read: &mut dyn FnMut(&mut dyn Read, u64) -> Result<()>) -> Result<()> {
        match self {
            Npy::File(path) => {
                let failed = |source| Error::io(path, "cannot read the array", source);
                let file = File::open(path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                read(&mut BufReader::new(file), size)
            }
            Npy::Entry(path, name) => {
                let mut archive = zip_archive::open(path)?;
                if let Some(entry) = archive.index_for_name(name) {
                    zip_archive::check_method(path, &mut archive, entry)?;
                }
                let mut entry = archive.by_name(name).map_err(|error| zip_archive::explain(path, &error))?;
                let size = entry.size();
                read(&mut entry, size)
            }
        }
    }

    fn pixels(&self) -> Result<(Pixels<'static>, Option<usize>)> {
        let location = self.location();
        let mut array = None;
        self.open(&mut |content, size| {
            let header = Header::read(&location, content)?;
            let layout = ImageArray::of(&location, &header.shape, &header.code, header.big_endian)?;
            // The header's promise against the archive's, before any memory is taken.
            if size < layout.bytes() {
                return Err(Error::data(
                    &location,
                    format!(
                        "has {size} bytes but its shape {:?} wants {}; copy or download it again",
                        header.shape,
                        layout.bytes()
                    ),
                ));
            }
            array = Some(layout);
            Ok(())
        })?;
        let array = array.ok_or_else(|| Error::Internal("an array was not read".into()))?;
        Ok((Pixels::Array(array, Box::new(Body(self.clone()))), array.per_class))
    }

    fn labels(&self) -> Result<Vec<Label>> {
        let location = self.location();
        let mut found = Vec::new();
        self.open(&mut |content, size| {
            let header = Header::read(&location, content)?;
            if header.code.starts_with('O') {
                let mut bytes = Vec::new();
                let read = content.take(MAX_WHOLE_BYTES.min(size)).read_to_end(&mut bytes);
                read.map_err(|source| unpacked(&location, &source))?;
                let pickle = Pickle::parse(&location, &bytes)?;
                found = pickle.labels("labels", pickle.root())?;
                return Ok(());
            }
            let what = "the array of labels";
            labels::check_shape(&location, what, &header.shape)?;
            // Of another type no byte is read, and the next call says what is wrong.
            let item = labels::item_bytes(&header.code).unwrap_or(0);
            let n = header.shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
            if n.is_none_or(|n| n > MAX_LABELS) {
                return Err(Error::data(
                    &location,
                    format!("says that it holds labels of shape {:?}, more than {MAX_LABELS}", header.shape),
                ));
            }
            let bytes = header.whole(&location, content, size, item)?;
            found = labels::of_array(&location, what, &header.code, header.big_endian, &header.shape, &bytes)?;
            Ok(())
        })?;
        Ok(found)
    }
}

fn unpacked(path: &Path, source: &std::io::Error) -> Error {
    Error::data(path, format!("cannot be unpacked ({source}); copy or download it again"))
}

/// What stands before the values.
struct Header {
    shape: Vec<usize>,
    /// NumPy's code without byte order, e.g. `u1`; empty for structures.
    code: String,
    big_endian: bool,
    /// Whether the first axis runs fastest, and there are several.
    fortran: bool,
}

impl Header {
    /// Reads a header, bounded before it is parsed.
    fn read(path: &Path, content: &mut dyn Read) -> Result<Self> {
        let damaged = |why: String| {
            // The parser draws what it stopped at in further lines.
            let why = why.lines().next().unwrap_or_default();
            Error::data(path, format!("is not a whole .npy array ({why}); save it again with NumPy"))
        };
        let mut read = |n: usize| {
            let mut bytes = vec![0; n];
            content.read_exact(&mut bytes).map(|()| bytes).map_err(|source| damaged(source.to_string()))
        };
        let mut head = read(8)?;
        let length = read(if head[6] == 1 { 2 } else { 4 })?;
        let n = length.iter().rev().fold(0u32, |n, &byte| n << 8 | u32::from(byte));
        if !head.starts_with(b"\x93NUMPY") || n > MAX_HEADER_BYTES {
            return Err(damaged("its header is malformed".into()));
        }
        let text = read(n as usize)?;
        // Python's objects: a pickle follows.
        if text.windows(4).any(|bytes| bytes == b"'|O'") {
            return Ok(Header { shape: Vec::new(), code: "O8".into(), big_endian: false, fortran: false });
        }
        // 19 digits keep the product of the shape below 2^64.
        let count = |wanted: fn(&u8) -> bool| text.iter().filter(|byte| wanted(byte)).count();
        if count(|byte| matches!(byte, b'(' | b'[' | b'{')) > 8 || count(u8::is_ascii_digit) > 19 {
            return Err(damaged("its shape or type is not that of images or labels".into()));
        }
        head.extend(length);
        head.extend(text);
        let header = NpyHeader::from_reader(head.as_slice()).map_err(|source| damaged(source.to_string()))?;
        let shape: Option<Vec<usize>> = header.shape().iter().map(|&n| usize::try_from(n).ok()).collect();
        let shape = shape.ok_or_else(|| Error::data(path, format!("has the impossible shape {:?}", header.shape())))?;
        let code = match header.dtype() {
            DType::Plain(plain) => plain.to_string().trim_start_matches(['|', '<', '>', '=']).to_string(),
            _ => String::new(),
        };
        let fortran = header.order() != Order::C && shape.len() > 1;
        Ok(Header { shape, code, big_endian: header.dtype().descr().contains('>'), fortran })
    }

    /// All values, as many as the shape says.
    fn whole(&self, path: &Path, content: &mut dyn Read, size: u64, item: usize) -> Result<Vec<u8>> {
        let wanted = self.shape.iter().try_fold(item as u64, |bytes, &n| bytes.checked_mul(n as u64));
        let Some(wanted) = wanted.filter(|&wanted| wanted <= size.min(MAX_WHOLE_BYTES)) else {
            return Err(Error::data(
                path,
                format!("has {size} bytes, fewer than its shape {:?} wants; copy or download it again", self.shape),
            ));
        };
        let mut bytes = Vec::new();
        content.take(wanted).read_to_end(&mut bytes).map_err(|source| unpacked(path, &source))?;
        if bytes.len() as u64 != wanted {
            return Err(Error::data(
                path,
                format!("ends after {} of {wanted} bytes; copy or download it again", bytes.len()),
            ));
        }
        Ok(bytes)
    }
}
