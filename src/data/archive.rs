//! Folders and archives as listings, whichever of them a path is.

use std::path::Path;

use super::kind::{self, FileKind, is_folder};
use super::listing::{FolderListing, Listing};
use super::tar_archive::TarListing;
use super::zip_archive::ZipListing;
use crate::Result;

/// The files below `path`, one of `among` that are open together: a folder, a zip or a tar; `None` where it is another
/// file.
///
/// # Errors
/// [`crate::Error::Data`] or [`crate::Error::Io`] where it is not there, or is damaged.
pub(super) fn open(path: &Path, among: usize) -> Result<Option<Box<dyn Listing>>> {
    if is_folder(path)? {
        return Ok(Some(Box::new(FolderListing::open(path)?)));
    }
    Ok(match kind::of(path)? {
        FileKind::Zip => Some(Box::new(ZipListing::open(path)?)),
        FileKind::Tar => Some(Box::new(TarListing::open(path, among)?)),
        _ => None,
    })
}
