//! Data sets: reading the field's formats into host memory, splitting classes, ordering epochs, and
//! sampling episodes.
//!
//! Every random choice is a pure function of (seed, epoch or episode index): nothing here keeps
//! generator state. One file per format; [`load`] tells them apart by content and layout.

#[cfg(feature = "formats")]
mod array_files;
#[cfg(feature = "formats")]
mod arrays;
#[cfg(feature = "formats")]
mod decode;
mod episodes;
#[cfg(feature = "formats")]
mod glyphs;
#[cfg(feature = "formats")]
mod idx;
#[cfg(feature = "formats")]
mod image_folder;
#[cfg_attr(not(feature = "formats"), allow(dead_code, reason = "what readers warn of"))]
mod image_set;
#[cfg(feature = "formats")]
mod listing;
#[cfg(feature = "formats")]
mod npz;
#[cfg(feature = "formats")]
mod oneshot;
mod order;
#[cfg(feature = "formats")]
mod pickle;
#[cfg(feature = "formats")]
mod split;
#[cfg(feature = "formats")]
mod unpickle;
#[cfg(feature = "formats")]
mod zip_archive;

#[cfg(feature = "formats")]
use std::path::Path;
use std::path::PathBuf;

#[cfg(feature = "formats")]
use crate::{Error, Result};
pub use episodes::{Episode, draw, read_episodes, shortage};
#[cfg(feature = "formats")]
pub use glyphs::{GLYPH_CLASSES, GLYPH_INSTANCES, GLYPH_SIDE};
pub use image_set::{ImageSet, Warning, WarningKind};
#[cfg(feature = "formats")]
pub use oneshot::{OneShotRun, read_oneshot_runs};
pub use order::epoch_order;
#[cfg(feature = "formats")]
pub use split::{Split, class_split};

#[cfg(feature = "formats")]
use listing::{FolderListing, Listing};
#[cfg(feature = "formats")]
use zip_archive::ZipListing;

/// The largest side an image may be resized to.
#[cfg(feature = "formats")]
const MAX_SIDE: usize = 4096;

/// How to read a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataOptions {
    /// Side of the square images in pixels; `None`: the images' own size, which must then be square
    /// and equal (for `glyphs`: [`GLYPH_SIDE`]). An image that already has it is kept bit for bit, of any other the
    /// centre square is resized.
    pub side: Option<usize>,
    /// Seed of the class split where the data has none of its own, and of the embedded glyphs.
    pub split_seed: u64,
    /// A JSON file `{"train": [class names], "val": [..], "novel": [..]}`, or one of a group of CSV
    /// files `train.csv`, `val.csv`, `test.csv` with the columns `filename,label`, that decides the
    /// split instead of folder names or the seed.
    pub split_file: Option<PathBuf>,
}

/// Reads one split of a data set.
///
/// `source` is `glyphs` (the embedded procedural set; write `./glyphs` for a folder of that name) or
/// a path, told apart by content and layout:
///
/// - a folder or zip of class folders, with split folders above them or not;
/// - a folder with one pickle (or `.npz` and labels pickle) per split, or a single such file;
/// - a folder of idx files, or one idx file of images beside its labels.
///
/// Where the data has no splits, its classes are split by seed ([`class_split`]).
#[cfg(feature = "formats")]
pub fn load(source: &str, split: Split, options: &DataOptions) -> Result<ImageSet> {
    check_side(options)?;
    if source == "glyphs" {
        return glyphs::load(split, options);
    }
    let path = Path::new(source);
    if is_folder(path)? {
        if let Some(set) = array_files::load_folder(path, split, options)? {
            return Ok(set);
        }
        if let Some(files) = idx::find(path)? {
            return idx::load(path, &files, split, options);
        }
        return image_folder::load(&FolderListing::open(path)?, split, options);
    }
    match sniff(path)? {
        FileKind::Zip if npz::is_npz(path)? => array_files::load_file(path, split, options),
        FileKind::Zip => image_folder::load(&ZipListing::open(path)?, split, options),
        FileKind::Pickle => array_files::load_file(path, split, options),
        FileKind::Idx => idx::load(path, &[path.to_path_buf()], split, options),
        FileKind::Image => Err(Error::data(path, "is one image; give the folder that holds the class folders")),
        FileKind::Unknown => Err(Error::data(
            path,
            "is neither a zip, a pickle, an .npz nor an idx file; give one of these, a folder, or the word glyphs",
        )),
    }
}

/// Reads images without labels, for embedding: every path is an image, a zip, or a folder that is
/// searched recursively. Images keep the order of `paths`, and are sorted bytewise by name inside
/// each.
#[cfg(feature = "formats")]
pub fn load_unlabelled(paths: &[PathBuf], options: &DataOptions) -> Result<ImageSet> {
    check_side(options)?;
    let mut listings: Vec<Box<dyn Listing>> = Vec::new();
    for path in paths {
        listings.push(if is_folder(path)? {
            Box::new(FolderListing::open(path)?)
        } else {
            match sniff(path)? {
                FileKind::Zip => Box::new(ZipListing::open(path)?),
                FileKind::Pickle | FileKind::Idx => {
                    return Err(Error::data(path, "holds arrays; give images, folders of images, or a zip of images"));
                }
                FileKind::Image | FileKind::Unknown => Box::new(listing::OneFile::new(path)),
            }
        });
    }
    let mut items = Vec::new();
    for listing in &listings {
        let before = items.len();
        for i in 0..listing.files().len() {
            if listing::is_image_or_note(listing.as_ref(), i)? {
                items.push((listing.as_ref(), i));
            }
        }
        if items.len() == before {
            return Err(Error::data(listing.origin(), format!("holds no image ({} are read)", listing::IMAGE_KINDS)));
        }
    }
    if items.is_empty() {
        return Err(Error::usage("no images given; give images, folders of images, or zips of images"));
    }
    let names = items.iter().map(|&(listing, i)| listing.locate(i).display().to_string()).collect();
    let (side, pixels) = decode::decode_all(&items, options)?;
    ImageSet::new(side, pixels, Vec::new(), Vec::new(), names)
}

#[cfg(feature = "formats")]
fn check_side(options: &DataOptions) -> Result<()> {
    match options.side {
        Some(side) if side == 0 || side > MAX_SIDE => {
            Err(Error::usage(format!("the image side must lie in 1..={MAX_SIDE}, got {side} (try 84)")))
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "formats")]
fn is_folder(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(source) => Err(Error::io(
            path,
            "cannot read the data (give a folder, a .zip, .pickle, .npz or idx file, or the word glyphs)",
            source,
        )),
    }
}

/// What a file is, by its first bytes.
#[cfg(feature = "formats")]
enum FileKind {
    Zip,
    Pickle,
    Idx,
    Image,
    Unknown,
}

#[cfg(feature = "formats")]
fn sniff(path: &Path) -> Result<FileKind> {
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(path, "is a device or a pipe; give a file or a folder"));
    }
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, 16), &mut head))
        .map_err(|source| Error::io(path, "cannot read the data", source))?;
    let extension = listing::extension(&path.to_string_lossy());
    Ok(match head.as_slice() {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => FileKind::Zip,
        [0x1f, 0x8b, ..] | [0, 0, 8, 1..=4, ..] => FileKind::Idx,
        // Protocols 0 and 1 have no signature: there the name has to say it.
        [0x80, 2..=5, ..] => FileKind::Pickle,
        _ if matches!(extension.as_str(), "pickle" | "pkl") => FileKind::Pickle,
        _ if image::guess_format(&head).is_ok() || listing::is_image_name(&path.to_string_lossy()) => FileKind::Image,
        _ => FileKind::Unknown,
    })
}
