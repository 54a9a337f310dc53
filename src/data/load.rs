//! Reads a data set, or images without labels, from any of the formats.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::image_set::ImageSet;
use super::left_out;
use super::listing::{self, Listing};
use super::options::{DataOptions, check_side};
use super::pictures::Pictures;
use super::split::Split;
use super::{archive, decode, glyphs, source};
use crate::{Error, Result};

/// Reads one split of a data set.
///
/// `source` is `glyphs` (the embedded procedural set; write `./glyphs` for a folder of that name) or
/// a path, told apart by content and layout, or a pattern of shards:
///
/// - a folder, zip or tar of class folders, with split folders above them or not;
/// - a folder with one pickle, `.npz` or `.npy` per split, its labels in it or in a file beside it, or a single such
///   file;
/// - a folder of idx files, or one idx file of images beside its labels;
/// - webdataset's shards with classes: a tar, a folder of them, or a pattern as [`super::braces`] takes it.
///
/// Where the data has no splits, its classes are split by seed ([`super::class_split`]).
///
/// What is suspicious (a class or picture in two splits, a picture twice) is in the set's `warnings`.
///
/// # Errors
/// [`Error::NoSplit`] when the data has splits but not this one; [`Error::Data`] and [`Error::Io`] for files that are not
/// there, are damaged, or can be understood in two ways.
pub fn load(source: &str, split: Split, options: &DataOptions) -> Result<ImageSet> {
    check_side(options)?;
    if source == "glyphs" {
        return glyphs::load(split, options);
    }
    let mut set = source::find(source)?.load(split, options)?;
    set.warn_of_duplicates(source);
    Ok(set)
}

/// Reads images without labels, for embedding: every path is an image, a zip, a tar, or a folder that is
/// searched recursively. Images keep the order of `paths`, and are sorted bytewise by name inside
/// each.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] for the first file that cannot be read as an image.
pub fn load_unlabelled(paths: &[PathBuf], options: &DataOptions) -> Result<ImageSet> {
    unlabelled(paths, options, true, usize::MAX)
}

/// Pictures of a sample.
const SAMPLE: usize = 32;

/// As [`load_unlabelled`], a sample of the images that is spread evenly over them. Files that cannot be read as images
/// are left out.
///
/// # Errors
/// As [`load_unlabelled`] where no image is left.
pub fn sample_unlabelled(paths: &[PathBuf], options: &DataOptions) -> Result<ImageSet> {
    unlabelled(paths, options, false, SAMPLE)
}

/// Archives that a [`Finder`] has open, as far as memory is planned for.
const FOUND_IN: usize = 64;

/// Finds pictures by the names that [`load_unlabelled`] gives them. An archive is opened once, however many of them lie in
/// it.
#[derive(Default)]
pub struct Finder {
    archives: HashMap<PathBuf, Box<dyn Listing>>,
}

impl Finder {
    /// The bytes of a picture, which may lie in an archive.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] when it cannot be read.
    pub fn read(&mut self, picture: &Path) -> Result<Vec<u8>> {
        let around = picture.ancestors().skip(1).find(|path| path.is_file());
        let Some(around) = around else { return listing::OneFile::new(picture).read(0) };
        let listing = match self.archives.entry(around.to_path_buf()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => place.insert(
                archive::open(around, FOUND_IN)?
                    .ok_or_else(|| Error::data(picture, "lies in no folder and no archive; look at the path"))?,
            ),
        };
        match (0..listing.files().len()).find(|&file| listing.locate(file) == picture) {
            Some(file) => listing.read(file),
            None => Err(Error::data(picture, "is not in the archive any more; look at the path")),
        }
    }
}

/// At most `most` of the images.
fn unlabelled(paths: &[PathBuf], options: &DataOptions, strict: bool, most: usize) -> Result<ImageSet> {
    check_side(options)?;
    let pictures = Pictures::open(paths, strict)?;
    let (mut items, mut left_out) = (pictures.items(), pictures.left_out().to_vec());
    if items.len() > most {
        items = (0..most).map(|i| items[i * items.len() / most]).collect();
    }
    let (side, pixels) = if strict {
        decode::decode_all(&items, options)?
    } else {
        let decoded = left_out::decode_readable(&items, options)?;
        left_out.extend(decoded.left_out);
        items = decoded.items;
        (decoded.side, decoded.pixels)
    };
    if items.is_empty()
        && let Some(first) = left_out.first()
    {
        return Err(Error::data(&first.path, first.why.clone()));
    }
    let names = items.iter().map(|&(listing, i)| listing.locate(i).display().to_string()).collect();
    ImageSet::new(side, pixels, Vec::new(), Vec::new(), names)
}
