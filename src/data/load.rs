//! Reads a data set, or images without labels, from any of the formats.

use std::path::{Path, PathBuf};

use super::image_set::ImageSet;
use super::kind::{self, FileKind, is_folder};
use super::left_out;
use super::listing::{self, FolderListing, Listing};
use super::options::{DataOptions, check_side};
use super::pictures::Pictures;
use super::split::Split;
use super::tar_archive::TarListing;
use super::zip_archive::ZipListing;
use super::{archive, array_files, decode, glyphs, idx, image_folder, npz};
use crate::{Error, Result};

/// Reads one split of a data set.
///
/// `source` is `glyphs` (the embedded procedural set; write `./glyphs` for a folder of that name) or
/// a path, told apart by content and layout:
///
/// - a folder, zip or tar of class folders, with split folders above them or not;
/// - a folder with one pickle, `.npz` or `.npy` per split, its labels in it or in a file beside it, or a single such
///   file;
/// - a folder of idx files, or one idx file of images beside its labels.
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
    let mut set = load_path(Path::new(source), split, options)?;
    set.warn_of_duplicates(source);
    Ok(set)
}

fn load_path(path: &Path, split: Split, options: &DataOptions) -> Result<ImageSet> {
    if is_folder(path)? {
        return load_folder(path, split, options);
    }
    match kind::of(path)? {
        FileKind::Zip if npz::is_npz(path)? => array_files::load_file(path, split, options),
        FileKind::Zip => image_folder::load(&ZipListing::open(path)?, split, options),
        FileKind::Tar => image_folder::load(&TarListing::open(path)?, split, options),
        FileKind::Pickle | FileKind::Npy => array_files::load_file(path, split, options),
        FileKind::Idx => idx::load(path, &[path.to_path_buf()], split, options),
        FileKind::Image => Err(Error::data(path, "is one image; give the folder that holds the class folders")),
        FileKind::Unknown => Err(Error::data(
            path,
            "is neither a zip, a tar, a pickle, an .npz nor an idx file; give one of these, a folder, or the word glyphs",
        )),
    }
}

/// Tells the kinds of data sets in a folder apart. Several are refused: the same images may be in each.
fn load_folder(folder: &Path, split: Split, options: &DataOptions) -> Result<ImageSet> {
    let raw = folder.join("raw");
    // torchvision puts MNIST's files there.
    let mut idx = idx::find(folder)?;
    if idx.is_empty() && raw.is_dir() {
        idx = idx::find(&raw)?;
    }
    let arrays = array_files::find(folder)?;
    let has_splits = arrays.iter().any(|(split, _)| split.is_some());
    if idx.is_empty() && arrays.is_empty() {
        return image_folder::load(&FolderListing::open(folder)?, split, options);
    }
    let listing = FolderListing::open(folder)?;
    let image = (0..listing.files().len())
        .find(|&i| listing.files()[i].contains('/') && listing::is_image(&listing, i))
        .map(|i| listing.files()[i].clone());
    let array = arrays.iter().map(|(_, path)| listing::file_name(path)).min();
    let two = match (idx.first(), array.as_ref().filter(|_| has_splits || image.is_none()), &image) {
        (Some(idx), Some(array), _) => Some((listing::file_name(idx), array)),
        (Some(idx), None, Some(image)) => Some((listing::file_name(idx), image)),
        (None, Some(array), Some(image)) => Some((array.clone(), image)),
        _ => None,
    };
    if let Some((one, other)) = two {
        return Err(Error::data(
            folder,
            format!("holds two data sets, {one} and {other}; move one of them into a folder of its own"),
        ));
    }
    match (idx.is_empty(), has_splits, image, arrays.as_slice()) {
        (false, ..) => idx::load(folder, &idx, split, options),
        (_, true, ..) => array_files::load_folder(folder, &arrays, split, options),
        // Arrays that are named after no split lie beside class folders, as embeddings do.
        (.., Some(_), _) => image_folder::load(&listing, split, options),
        (.., [(_, one)]) => array_files::load_file(one, split, options),
        (.., all) => {
            let names: Vec<String> = all.iter().map(|(_, path)| listing::file_name(path)).collect();
            Err(Error::data(folder, format!("holds several files of arrays, {}; give one of them", names.join(", "))))
        }
    }
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

/// The bytes of a picture as [`load_unlabelled`] names it, which may lie in an archive.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] when it cannot be read.
pub fn picture_bytes(picture: &Path) -> Result<Vec<u8>> {
    let around = picture.ancestors().skip(1).find(|path| path.is_file());
    let Some(around) = around else { return listing::OneFile::new(picture).read(0) };
    let Some(listing) = archive::open(around)? else {
        return Err(Error::data(picture, "lies in no folder and no archive; look at the path"));
    };
    match (0..listing.files().len()).find(|&file| listing.locate(file) == picture) {
        Some(file) => listing.read(file),
        None => Err(Error::data(picture, "is not in the archive any more; look at the path")),
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
