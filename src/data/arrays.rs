//! Images that a file holds as one uint8 array beside a list of labels.

use std::io::Read;
use std::path::Path;

use image::RgbImage;

use super::split::{self, Split};
use super::{DataOptions, ImageSet, decode};
use crate::{Error, Result};

/// The largest side of an image in an array.
const MAX_EDGE: usize = 16_384;

/// The layout of an image array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ImageArray {
    n: usize,
    height: usize,
    width: usize,
    channels: Channels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    /// N x H x W, or with one channel: gray.
    Gray,
    /// N x H x W x 3.
    Last,
    /// N x 3 x H x W.
    First,
}

impl ImageArray {
    /// Understands a shape. Three channels may come last or first; last wins where both would do.
    pub(super) fn of_shape(path: &Path, shape: &[usize]) -> Result<Self> {
        let (n, height, width, channels) = match *shape {
            [n, h, w] | [n, h, w, 1] | [n, 1, h, w] => (n, h, w, Channels::Gray),
            [n, h, w, 3] => (n, h, w, Channels::Last),
            [n, 3, h, w] => (n, h, w, Channels::First),
            _ => {
                return Err(Error::data(
                    path,
                    format!("holds an array of shape {shape:?}; images are N x S x S x 3, N x 3 x S x S or N x S x S"),
                ));
            }
        };
        if n == 0 || height == 0 || width == 0 || height > MAX_EDGE || width > MAX_EDGE || u32::try_from(n).is_err() {
            return Err(Error::data(
                path,
                format!(
                    "holds an array of shape {shape:?}; every side must lie in 1..={MAX_EDGE} and there must be images"
                ),
            ));
        }
        Ok(ImageArray { n, height, width, channels })
    }

    /// Bytes of one image.
    pub(super) fn image_bytes(&self) -> usize {
        self.height * self.width * if self.channels == Channels::Gray { 1 } else { 3 }
    }

    /// Number of images.
    pub(super) fn len(&self) -> usize {
        self.n
    }
}

/// Which of the classes in a file belong to the set.
pub(super) enum Choice {
    /// All: the file is one split.
    All,
    /// Those that the seed or the split file gives to the split.
    OfSplit(Split),
}

/// Reads the images one by one (a set may be larger than what is kept of it) and keeps those of the
/// chosen classes. Labels may be any integers; a class's rank is that of its number.
pub(super) fn read(
    path: &Path,
    array: ImageArray,
    ids: &[i64],
    choice: &Choice,
    content: &mut dyn Read,
    options: &DataOptions,
) -> Result<ImageSet> {
    if ids.len() != array.n {
        return Err(Error::data(
            path,
            format!("has {} images but {} labels; there must be one label per image", array.n, ids.len()),
        ));
    }
    let mut classes = ids.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let mut class_names: Vec<String> = classes.iter().map(i64::to_string).collect();
    if let Choice::OfSplit(split) = choice {
        let chosen = split::choose(path, &class_names, *split, options)?;
        let mut keep = chosen.iter();
        classes.retain(|_| keep.next() == Some(&true));
        let mut keep = chosen.iter();
        class_names.retain(|_| keep.next() == Some(&true));
    }
    if array.height != array.width && options.side.is_none() {
        return Err(Error::data(
            path,
            format!(
                "holds images of {} x {}, not square; set the side to crop and resize them",
                array.width, array.height
            ),
        ));
    }

    let n_kept = ids.iter().filter(|id| classes.binary_search(id).is_ok()).count();
    let side = options.side.unwrap_or(array.height);
    let mut set = ImageSet { side, pixels: decode::reserve(path, n_kept, side)?, class_names, ..ImageSet::default() };
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut bytes = vec![0; array.image_bytes()];
    for (i, id) in ids.iter().enumerate() {
        content.read_exact(&mut bytes).map_err(|source| short(path, i, array.n, &source))?;
        let Ok(label) = classes.binary_search(id) else { continue };
        append(path, &mut set.pixels, &array, &bytes, options)?;
        set.labels.push(label as u32);
        set.names.push(format!("{file_name}#{i}"));
    }
    // Also makes a zip compare its checksum.
    match content.read(&mut [0]) {
        Ok(0) => Ok(set),
        Ok(_) => Err(Error::data(path, "has more bytes than its shape says; copy or download it again")),
        Err(source) => Err(short(path, array.n, array.n, &source)),
    }
}

fn short(path: &Path, i: usize, n: usize, source: &std::io::Error) -> Error {
    Error::data(path, format!("ends early or is damaged after {i} of {n} images ({source}); copy or download it again"))
}

fn append(path: &Path, pixels: &mut Vec<u32>, array: &ImageArray, bytes: &[u8], options: &DataOptions) -> Result<()> {
    let plane = array.height * array.width;
    let rgb = |i: usize| match array.channels {
        Channels::Gray => [bytes[i]; 3],
        Channels::Last => [bytes[3 * i], bytes[3 * i + 1], bytes[3 * i + 2]],
        Channels::First => [bytes[i], bytes[plane + i], bytes[2 * plane + i]],
    };
    if options.side.is_none_or(|side| (side, side) == (array.width, array.height)) {
        pixels.extend((0..plane).map(rgb).map(|[r, g, b]| decode::word(r, g, b)));
        return Ok(());
    }
    let interleaved: Vec<u8> = (0..plane).flat_map(rgb).collect();
    let image = RgbImage::from_raw(array.width as u32, array.height as u32, interleaved)
        .ok_or_else(|| Error::Internal("an image array has the wrong number of bytes".into()))?;
    let image = decode::square(path, image, options.side)?;
    pixels.extend(image.pixels().map(|rgb| decode::word(rgb[0], rgb[1], rgb[2])));
    Ok(())
}
