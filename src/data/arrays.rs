//! Images that a file holds as arrays beside labels.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::choose::{Chosen, choose};
use super::image_set::few;
use super::labels::Label;
use super::split::Split;
use super::square::{square, word};
use super::{DataOptions, ImageSet, WarningKind, decode, listing};
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
    /// Bytes of one value.
    item: usize,
    big_endian: bool,
    /// Images per class, where the first axis is the class.
    pub(super) per_class: Option<usize>,
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
    /// Understands a shape and a NumPy type: integers of any size with values of 0 to 255. Three channels may come last
    /// or first; last wins where both would do. Five axes are classes, images of each, and the image.
    ///
    /// # Errors
    /// [`Error::Data`] for another shape or type.
    pub(super) fn of(path: &Path, shape: &[usize], code: &str, big_endian: bool) -> Result<Self> {
        let (n, per_class, image) = match *shape {
            [classes, each, ref image @ ..] if image.len() == 3 => (classes.checked_mul(each), Some(each), image),
            [n, ref image @ ..] => (Some(n), None, image),
            [] => (None, None, shape),
        };
        let layout = match *image {
            // A row of CIFAR: three planes of 32 x 32.
            [3072] => Some((32, 32, Channels::First)),
            [h, w] | [h, w, 1] | [1, h, w] => Some((h, w, Channels::Gray)),
            [h, w, 3] => Some((h, w, Channels::Last)),
            [3, h, w] => Some((h, w, Channels::First)),
            _ => None,
        };
        let (Some(n), Some((height, width, channels))) = (n, layout) else {
            return Err(Error::data(
                path,
                format!(
                    "holds an array of shape {shape:?}; images are N x S x S x 3, N x 3 x S x S or N x S x S, without \
                     an alpha channel"
                ),
            ));
        };
        if n == 0 || height == 0 || width == 0 || height > MAX_EDGE || width > MAX_EDGE || u32::try_from(n).is_err() {
            return Err(Error::data(
                path,
                format!(
                    "holds an array of shape {shape:?}; every side must lie in 1..={MAX_EDGE} and there must be images"
                ),
            ));
        }
        let item = match code {
            "u1" | "i1" => 1,
            "u2" | "i2" => 2,
            "u4" | "i4" => 4,
            "u8" | "i8" => 8,
            _ => {
                return Err(Error::data(
                    path,
                    format!(
                        "holds images of type {code}; save them as uint8 (u1), floats of 0 to 1 as \
                         (255 * x).round().astype(\"uint8\")"
                    ),
                ));
            }
        };
        Ok(ImageArray { n, height, width, channels, item, big_endian, per_class })
    }

    /// Bytes of one image.
    fn image_bytes(&self) -> usize {
        // Below 2^28 pixels of at most 24 bytes.
        let channels = if self.channels == Channels::Gray { 1 } else { 3 };
        self.height * self.width * channels * self.item
    }

    /// Bytes of the array.
    pub(super) fn bytes(&self) -> u64 {
        self.n as u64 * self.image_bytes() as u64
    }

    /// The image in `bytes`; `None` where a value is no byte.
    fn rgb(&self, bytes: &[u8]) -> Option<RgbImage> {
        let narrow: Cow<'_, [u8]> = if self.item == 1 {
            Cow::Borrowed(bytes)
        } else {
            let byte = |item: &[u8]| {
                let (low, rest) = if self.big_endian {
                    item.split_last().map(|(low, rest)| (*low, rest))?
                } else {
                    item.split_first().map(|(low, rest)| (*low, rest))?
                };
                rest.iter().all(|&byte| byte == 0).then_some(low)
            };
            Cow::Owned(bytes.chunks_exact(self.item).map(byte).collect::<Option<Vec<u8>>>()?)
        };
        let plane = self.height * self.width;
        let pixels = match self.channels {
            Channels::Gray => narrow.iter().flat_map(|&value| [value; 3]).collect(),
            Channels::Last => narrow.into_owned(),
            Channels::First => (0..plane).flat_map(|i| [narrow[i], narrow[plane + i], narrow[2 * plane + i]]).collect(),
        };
        RgbImage::from_raw(self.width as u32, self.height as u32, pixels)
    }
}

/// The bytes of an array, from the first image on.
pub(super) trait Content {
    /// Calls `read` with them.
    fn open(self: Box<Self>, read: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()>;
}

/// Bytes that are at hand.
pub(super) struct Stream<R>(pub(super) R);

impl<R: Read> Content for Stream<R> {
    fn open(mut self: Box<Self>, read: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        read(&mut self.0)
    }
}

/// Where the pixels of a part come from, one image at a time: a set may be larger than what is kept of it.
pub(super) enum Pixels<'a> {
    /// An array.
    Array(ImageArray, Box<dyn Content + 'a>),
    /// Image files.
    Files(Vec<Cow<'a, [u8]>>),
}

impl Pixels<'_> {
    /// Number of images.
    pub(super) fn len(&self) -> usize {
        match self {
            Pixels::Array(array, _) => array.n,
            Pixels::Files(files) => files.len(),
        }
    }

    /// Calls `each` with every image in order; `None` for those that `wanted` does not want.
    fn for_each(
        self,
        path: &Path,
        wanted: impl Fn(usize) -> bool,
        mut each: impl FnMut(usize, RgbImage) -> Result<()>,
    ) -> Result<()> {
        match self {
            Pixels::Files(files) => {
                for (i, file) in files.iter().enumerate().filter(|(i, _)| wanted(*i)) {
                    let location = PathBuf::from(format!("{}#{i}", path.display()));
                    each(i, decode::decode_rgb(&location, file)?)?;
                }
                Ok(())
            }
            Pixels::Array(array, content) => content.open(&mut |content| {
                let mut bytes = vec![0; array.image_bytes()];
                for i in 0..array.n {
                    content.read_exact(&mut bytes).map_err(|source| short(path, i, array.n, &source))?;
                    if wanted(i) {
                        let image = array.rgb(&bytes).ok_or_else(|| {
                            Error::data(path, format!("image {i} has values outside 0 to 255; save them as uint8 (u1)"))
                        })?;
                        each(i, image)?;
                    }
                }
                // Also makes a zip compare its checksum.
                match content.read(&mut [0]) {
                    Ok(0) => Ok(()),
                    Ok(_) => Err(Error::data(path, "has more bytes than its shape says; copy or download it again")),
                    Err(source) => Err(short(path, array.n, array.n, &source)),
                }
            }),
        }
    }
}

fn short(path: &Path, i: usize, n: usize, source: &std::io::Error) -> Error {
    Error::data(path, format!("ends early or is damaged after {i} of {n} images ({source}); copy or download it again"))
}

/// Images and labels that lie together.
pub(super) struct Part<'a> {
    /// The file, for names and messages.
    pub(super) path: PathBuf,
    /// The split that it is named after.
    pub(super) split: Option<Split>,
    pub(super) pixels: Pixels<'a>,
    pub(super) labels: Vec<Label>,
}

/// Which classes of the parts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// All.
    All,
    /// Those that the split file or the seed gives to a split.
    OfSplit(Split),
}

/// What the parts' own splits mean for `split`: parts that are named after splits and have classes of their own are
/// splits; parts with the same classes, as of a data set for classification, are pooled and split by class.
///
/// # Errors
/// [`Error::Data`] when it cannot be told whether equal labels are the same class, [`Error::NoSplit`] without the split.
pub(super) fn of_split<'a>(
    source: &Path,
    parts: Vec<Part<'a>>,
    split: Split,
    options: &DataOptions,
) -> Result<(Vec<Part<'a>>, Choice)> {
    let mut classes: BTreeMap<Option<Split>, BTreeSet<&Label>> = BTreeMap::new();
    for part in &parts {
        classes.entry(part.split).or_default().extend(&part.labels);
    }
    let sets: Vec<&BTreeSet<&Label>> = classes.values().collect();
    let pairs = || (0..sets.len()).flat_map(|i| (0..i).map(move |k| (i, k)));
    if pairs().all(|(i, k)| sets[i] == sets[k])
        || (options.split_file.is_some() && pairs().all(|(i, k)| sets[i].is_disjoint(sets[k])))
    {
        return Ok((parts, Choice::OfSplit(split)));
    }
    if pairs().any(|(i, k)| !sets[i].is_disjoint(sets[k])) {
        let each = classes.iter().map(|(split, labels)| {
            let split = split.map_or_else(String::new, |split| split.to_string());
            format!(
                "{} classes ({}) in {split}",
                labels.len(),
                few(&labels.iter().map(|l| l.to_string()).collect::<Vec<_>>())
            )
        });
        return Err(Error::data(
            source,
            format!(
                "has {}: whether equal labels are the same class cannot be told; give every class a label of its own \
                 over all of them",
                each.collect::<Vec<_>>().join(" and ")
            ),
        ));
    }
    if split == Split::All {
        return Ok((parts, Choice::All));
    }
    let found: Vec<String> = classes.keys().flatten().map(Split::to_string).collect();
    let own: Vec<Part<'a>> = parts.into_iter().filter(|part| part.split == Some(split)).collect();
    if own.is_empty() {
        return Err(Error::no_split(
            source,
            format!("has nothing for the {split} split (it has {}); add it or choose another", found.join(" and ")),
        ));
    }
    Ok((own, Choice::All))
}

/// Reads the images of the chosen classes. A class's rank is that of its number or name.
///
/// # Errors
/// [`Error::Data`] when images and labels do not fit together, or a file is damaged.
pub(super) fn read(source: &Path, parts: Vec<Part>, choice: Choice, options: &DataOptions) -> Result<ImageSet> {
    for part in &parts {
        if part.labels.len() != part.pixels.len() {
            return Err(Error::data(
                &part.path,
                format!(
                    "has {} images but {} labels; there must be one label per image",
                    part.pixels.len(),
                    part.labels.len()
                ),
            ));
        }
    }
    let mut classes: Vec<Label> =
        parts.iter().flat_map(|part| &part.labels).cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let mut set = ImageSet::default();
    if let Choice::OfSplit(split) = choice {
        let names: Vec<String> = classes.iter().map(Label::to_string).collect();
        let Chosen { keep, drawn_from } = choose(source, &names, split, options)?;
        classes = classes.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(class, _)| class).collect();
        set.drawn_from = drawn_from;
    }
    set.class_names = classes.iter().map(Label::to_string).collect();

    let kept = |label: &Label| classes.binary_search(label).ok();
    let n_kept = parts.iter().flat_map(|part| &part.labels).filter(|label| kept(label).is_some()).count();
    let (mut side, mut wanted) = (options.side, options.side);
    for part in parts {
        let Part { path, pixels, labels, .. } = part;
        let file_name = listing::file_name(&path);
        pixels.for_each(&path, |i| kept(&labels[i]).is_some(), |i, image| {
            if set.original_side.is_none() {
                let shorter = image.width().min(image.height()) as usize;
                (set.original_side, wanted) = (Some(shorter), options.side_for(shorter));
                side = wanted;
            }
            let image = square(&path, image, wanted)?;
            let own = image.width() as usize;
            if side.is_none_or(|side| side != own) && !set.names.is_empty() {
                return Err(Error::data(
                    &path,
                    format!("holds images of {own} x {own} after others of another size; set the side to resize them all"),
                ));
            }
            if set.names.is_empty() {
                side = Some(own);
                set.pixels = decode::reserve(&path, n_kept, own)?;
            }
            set.pixels.extend(image.pixels().map(|rgb| word(rgb[0], rgb[1], rgb[2])));
            set.labels.extend(kept(&labels[i]).map(|label| label as u32));
            set.names.push(format!("{file_name}#{i}"));
            Ok(())
        })?;
    }
    set.side = side.unwrap_or(0);
    set.validate()?;
    Ok(set)
}

/// Hashes of the images of the parts, as [`warn_of_shared`] compares them.
pub(super) fn prints(parts: Vec<Part>) -> Result<HashSet<u64>> {
    let mut all = HashSet::new();
    for part in parts {
        part.pixels.for_each(
            &part.path,
            |_| true,
            |_, image| {
                all.insert(print(&image));
                Ok(())
            },
        )?;
    }
    Ok(all)
}

fn print(image: &RgbImage) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(image.as_raw());
    hasher.finish()
}

/// Warns of images of the parts that the training split has, too.
pub(super) fn warn_of_shared(set: &mut ImageSet, source: &Path, own: HashSet<u64>, train: &HashSet<u64>, split: Split) {
    let n = own.intersection(train).count();
    if n > 0 {
        set.warn(
            WarningKind::SharedPictures,
            format!(
                "{}: {n} of the {} pictures of the {split} split are also in the train split; keep each in one split",
                source.display(),
                own.len()
            ),
        );
    }
}
