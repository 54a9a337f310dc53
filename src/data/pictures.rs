//! Picture files among paths that are given, without labels: which they are, and each of them read when it is wanted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::DataOptions;
use super::archive;
use super::decode::decode_rgb;
use super::kind::{self, FileKind};
use super::left_out::LeftOut;
use super::listing::{self, Listing, OneFile};
use super::look::Look;
use super::square::{square, words};
use super::webdataset;
use crate::{Error, Result};

/// Picture files: paths and no pixels, so a hundred thousand of them take a few MB.
pub struct Pictures {
    listings: Vec<Box<dyn Listing>>,
    /// Of each picture its listing, and its place in that.
    items: Vec<(u32, u32)>,
    left_out: Vec<LeftOut>,
}

impl Pictures {
    /// The pictures at `paths`: every path is an image, a zip, a tar, or a folder that is searched recursively. They keep the
    /// order of `paths`, and are sorted bytewise by name inside each. With `strict` a file that is neither a picture nor
    /// a note beside pictures is an error; else it is left out.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] for a path that cannot be read or holds no picture.
    pub fn open(paths: &[PathBuf], strict: bool) -> Result<Pictures> {
        let pictures = Pictures::collect(paths, strict, false)?;
        if pictures.items.is_empty() {
            return Err(Error::usage("no images given; give images, folders of images, or zips or tars of images"));
        }
        Ok(pictures)
    }

    /// As [`Pictures::open`]; a folder or an archive may hold none.
    ///
    /// # Errors
    /// As [`Pictures::open`], but for that.
    pub fn open_any(paths: &[PathBuf], strict: bool) -> Result<Pictures> {
        Pictures::collect(paths, strict, true)
    }

    fn collect(paths: &[PathBuf], strict: bool, may_be_empty: bool) -> Result<Pictures> {
        let mut pictures = Pictures { listings: Vec::new(), items: Vec::new(), left_out: Vec::new() };
        for path in paths {
            let archive = archive::open(path, paths.len())?;
            let may_be_empty = may_be_empty && archive.is_some();
            let (listing, is_image) = match archive {
                Some(listing) => (listing, false),
                None => match kind::of(path)? {
                    FileKind::Pickle | FileKind::Idx | FileKind::Npy => {
                        let why = "holds arrays; give images, folders of images, or a zip or tar of images";
                        return Err(Error::data(path, why));
                    }
                    // One image by its content, whatever its name.
                    kind => (Box::new(OneFile::new(path)) as Box<dyn Listing>, kind == FileKind::Image),
                },
            };
            if pictures.add(listing, is_image, strict)? == 0 && !may_be_empty {
                return Err(Error::data(path, format!("holds no image ({} are read)", listing::IMAGE_KINDS)));
            }
        }
        Ok(pictures)
    }

    /// Adds what a listing has; the number of its pictures.
    fn add(&mut self, listing: Box<dyn Listing>, is_image: bool, strict: bool) -> Result<usize> {
        let before = self.items.len();
        let at = self.listings.len() as u32;
        for file in 0..listing.files().len() {
            let wanted = if is_image { Ok(true) } else { listing::is_image_or_note(listing.as_ref(), file) };
            match wanted {
                Ok(true) => self.items.push((at, file as u32)),
                Ok(false) => {}
                Err(error) if strict => return Err(error),
                Err(error) => self.left_out.push(LeftOut::of(error)?),
            }
        }
        self.listings.push(listing);
        Ok(self.items.len() - before)
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Files among them that are no pictures.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Listing and file of every picture.
    pub(super) fn items(&self) -> Vec<(&dyn Listing, usize)> {
        (0..self.len()).map(|i| self.item(i)).collect()
    }

    fn item(&self, i: usize) -> (&dyn Listing, usize) {
        let (listing, file) = self.items[i];
        (self.listings[listing as usize].as_ref(), file as usize)
    }

    /// The path of picture `i`, below [`Pictures::len`]; in an archive, its name behind the archive's path.
    pub fn path(&self, i: usize) -> PathBuf {
        let (listing, file) = self.item(i);
        listing.locate(file)
    }

    /// What was given of which picture `i` is a part: a folder, an archive, or the picture itself.
    pub fn origin(&self, i: usize) -> &Path {
        self.item(i).0.origin()
    }

    /// The name of picture `i` below its [`Pictures::origin`], with `/` between folders.
    pub fn name(&self, i: usize) -> &str {
        let (listing, file) = self.item(i);
        &listing.files()[file]
    }

    /// The class of each picture of a tar of samples, as webdataset has them: by the `.cls` or the `.json` beside it, where that
    /// says one as it is to be. None where none does.
    pub fn classes(&self) -> Option<Vec<Option<String>>> {
        let is_tar = |listing: &dyn Listing| kind::of(listing.origin()).is_ok_and(|kind| kind == FileKind::Tar);
        let of = |listing: &dyn Listing| if is_tar(listing) { webdataset::classes(listing) } else { None };
        let mut classes: Vec<Option<HashMap<usize, String>>> =
            self.listings.iter().map(|listing| of(listing.as_ref())).collect();
        let mut class = |(listing, file): &(u32, u32)| classes[*listing as usize].as_mut()?.remove(&(*file as usize));
        let said: Vec<Option<String>> = self.items.iter().map(&mut class).collect();
        said.iter().any(Option::is_some).then_some(said)
    }

    /// Bytes of the file, and when it was changed last in nanoseconds since 1970, where that is known. It changes with
    /// the picture, without being read.
    pub fn stamp(&self, i: usize) -> (u64, u128) {
        let (listing, file) = self.item(i);
        let path = if listing.origin().is_file() { listing.origin().to_owned() } else { listing.locate(file) };
        let changed = std::fs::metadata(path).and_then(|about| about.modified()).ok();
        let since = changed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        (listing.size(file), since.map_or(0, |since| since.as_nanos()))
    }

    /// The file of picture `i`.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where it cannot be read or is too large.
    pub fn read(&self, i: usize) -> Result<Vec<u8>> {
        let (listing, file) = self.item(i);
        listing.read(file)
    }

    /// Picture `i` as a network takes it: as [`DataOptions::side`] says.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where the file cannot be read as an image.
    pub fn decode(&self, i: usize, options: &DataOptions) -> Result<RgbImage> {
        let path = self.path(i);
        square(&path, decode_rgb(&path, &self.read(i)?)?, options.side)
    }

    /// What can be said of picture `i`, and its pixels as [`Pictures::words`] gives them.
    ///
    /// # Errors
    /// As [`Pictures::decode`].
    pub fn look(&self, i: usize, options: &DataOptions) -> Result<(Look, Vec<u32>)> {
        let (path, file) = (self.path(i), self.read(i)?);
        let picture = decode_rgb(&path, &file)?;
        let look = Look::of(&file, &picture);
        Ok((look, words(&square(&path, picture, options.side)?).collect()))
    }

    /// As [`Pictures::decode`], one RGBA8 word per pixel as [`super::ImageSet::pixels`] has them.
    ///
    /// # Errors
    /// As [`Pictures::decode`].
    pub fn words(&self, i: usize, options: &DataOptions) -> Result<Vec<u32>> {
        Ok(words(&self.decode(i, options)?).collect())
    }
}
