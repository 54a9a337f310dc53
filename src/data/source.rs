//! What a data set on disk is, by content and layout: picture files, or arrays.

use std::path::{Path, PathBuf};

use super::braces::{self, braces};
use super::image_set::ImageSet;
use super::kind::{self, FileKind, is_folder};
use super::listing::{self, FolderListing, Listing};
use super::options::DataOptions;
use super::selection::{self, Selection};
use super::split::Split;
use super::tar_archive::TarListing;
use super::webdataset::{self, Shards};
use super::zip_archive::ZipListing;
use super::{array_files, idx, image_folder, npz};
use crate::{Error, Result};

/// A data set.
pub(super) enum Source {
    /// Class folders, in whatever they lie.
    Folders(Box<dyn Listing>),
    /// Webdataset's samples.
    Shards(Box<Shards>),
    /// One file of arrays.
    Arrays(PathBuf),
    /// A folder with a file of arrays per split.
    SplitArrays(PathBuf, Vec<(Option<Split>, PathBuf)>),
    /// Idx files of images, and where they were found.
    Idx(PathBuf, Vec<PathBuf>),
}

/// What `source` is: a path, or a pattern of shards.
///
/// # Errors
/// As [`super::load`], except for the splits.
pub(super) fn find(source: &str) -> Result<Source> {
    let path = Path::new(source);
    if braces::is_pattern(source) && !path.exists() {
        return match braces(source)?.as_slice() {
            [one] => of_file(Path::new(one)),
            paths => Ok(Source::Shards(Box::new(Shards::of_paths(paths)?))),
        };
    }
    if is_folder(path)? { of_folder(path) } else { of_file(path) }
}

fn of_file(path: &Path) -> Result<Source> {
    match kind::of(path)? {
        FileKind::Zip if npz::is_npz(path)? => Ok(Source::Arrays(path.to_path_buf())),
        FileKind::Zip => Ok(Source::Folders(Box::new(ZipListing::open(path)?))),
        FileKind::Tar => of_tar(path),
        FileKind::Pickle | FileKind::Npy => Ok(Source::Arrays(path.to_path_buf())),
        FileKind::Idx => Ok(Source::Idx(path.to_path_buf(), vec![path.to_path_buf()])),
        FileKind::Image => Err(Error::data(path, "is one image; give the folder that holds the class folders")),
        FileKind::Unknown => Err(Error::data(
            path,
            "is neither a zip, a tar, a pickle, an .npz nor an idx file; give one of these, a folder, or the word glyphs",
        )),
    }
}

fn of_tar(path: &Path) -> Result<Source> {
    let listing = TarListing::open(path, 1)?;
    if webdataset::holds_samples(&listing) {
        return Ok(Source::Shards(Box::new(Shards::open(path, &[(String::new(), path.to_path_buf())])?)));
    }
    Ok(Source::Folders(Box::new(listing)))
}

/// Tells the kinds of data sets in a folder apart. Several are refused: the same images may be in each.
fn of_folder(folder: &Path) -> Result<Source> {
    let raw = folder.join("raw");
    // torchvision puts MNIST's files there.
    let mut idx = idx::find(folder)?;
    if idx.is_empty() && raw.is_dir() {
        idx = idx::find(&raw)?;
    }
    let arrays = array_files::find(folder)?;
    let has_splits = arrays.iter().any(|(split, _)| split.is_some());
    let listing = FolderListing::open(folder)?;
    let image = || {
        let mut files = (0..listing.files().len()).filter(|&i| listing.files()[i].contains('/'));
        files.find(|&i| listing::is_image(&listing, i)).map(|i| listing.files()[i].clone())
    };
    if idx.is_empty() && arrays.is_empty() {
        let shards = webdataset::find(&listing);
        // An archive may lie beside what was unpacked from it.
        return match shards.as_slice() {
            [] => Ok(Source::Folders(Box::new(listing))),
            _ if image().is_some() => Ok(Source::Folders(Box::new(listing))),
            [(_, one)] => of_tar(one),
            shards => Ok(Source::Shards(Box::new(Shards::open(folder, shards)?))),
        };
    }
    let image = image();
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
        (false, ..) => Ok(Source::Idx(folder.to_path_buf(), idx)),
        (_, true, ..) => Ok(Source::SplitArrays(folder.to_path_buf(), arrays)),
        // Arrays that are named after no split lie beside class folders, as embeddings do.
        (.., Some(_), _) => Ok(Source::Folders(Box::new(listing))),
        (.., [(_, one)]) => Ok(Source::Arrays(one.clone())),
        (.., all) => {
            let names: Vec<String> = all.iter().map(|(_, path)| listing::file_name(path)).collect();
            Err(Error::data(folder, format!("holds several files of arrays, {}; give one of them", names.join(", "))))
        }
    }
}

impl Source {
    /// The files of pictures; `None` where the pictures lie in arrays.
    pub(super) fn files(&self) -> Option<&dyn Listing> {
        match self {
            Source::Folders(listing) => Some(listing.as_ref()),
            Source::Shards(shards) => Some(shards.as_ref()),
            _ => None,
        }
    }

    /// The pictures of a split among [`Source::files`]; none where there are no files.
    pub(super) fn select(&self, split: Split, options: &DataOptions) -> Result<Selection> {
        match self {
            Source::Folders(listing) => image_folder::select(listing.as_ref(), split, options),
            Source::Shards(shards) => shards.select(split, options),
            _ => Ok(Selection::default()),
        }
    }

    /// Reads one split.
    pub(super) fn load(&self, split: Split, options: &DataOptions) -> Result<ImageSet> {
        if let Some(files) = self.files() {
            return selection::load(files, split, options, |split| self.select(split, options));
        }
        match self {
            Source::Idx(origin, files) => idx::load(origin, files, split, options),
            Source::SplitArrays(folder, files) => array_files::load_folder(folder, files, split, options),
            Source::Arrays(file) => array_files::load_file(file, split, options),
            Source::Folders(_) | Source::Shards(_) => Err(Error::Internal("files are read as such".into())),
        }
    }
}
