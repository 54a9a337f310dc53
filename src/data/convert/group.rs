//! The pictures of one split of any data set, each as a file or as pixels.

use std::path::PathBuf;

use image::{ImageFormat, RgbImage};

use crate::data::listing::{self, Listing};
use crate::data::source::{self, Source};
use crate::data::split::{FEWEST_TO_SPLIT, Split};
use crate::data::square::square;
use crate::data::{DataOptions, ImageSet, Warning, decode, glyphs};
use crate::{Error, Result};

/// The pictures of one split, or of a data set that has none.
pub(super) struct Group<'a> {
    pub split: Option<Split>,
    pub classes: Vec<String>,
    /// Of each picture; they are in the order of the data set.
    pub labels: Vec<u32>,
    pub warnings: Vec<Warning>,
    content: Content<'a>,
    side: Option<usize>,
}

enum Content<'a> {
    Files(&'a dyn Listing, Vec<usize>),
    Pixels(ImageSet),
}

/// A picture as a file: the ending of its name, and its bytes.
pub(super) struct File {
    pub ending: String,
    pub bytes: Vec<u8>,
}

impl Group<'_> {
    /// Whether the pictures are of an array.
    pub(super) fn is_array(&self) -> bool {
        matches!(self.content, Content::Pixels(_))
    }

    /// The name of picture `i` without folders; none in an array.
    pub(super) fn name(&self, i: usize) -> Option<&str> {
        match &self.content {
            Content::Files(listing, files) => listing.files()[files[i]].rsplit('/').next(),
            Content::Pixels(_) => None,
        }
    }

    /// The path of picture `i` below the data set, without the ending; none in an array.
    pub(super) fn path(&self, i: usize) -> PathBuf {
        match &self.content {
            Content::Files(listing, files) => listing.locate(files[i]),
            Content::Pixels(set) => PathBuf::from(&set.names[i]),
        }
    }

    /// The ending of the file that picture `i` is written as.
    pub(super) fn ending(&self, i: usize) -> String {
        match (&self.content, self.side) {
            (Content::Files(listing, files), None) => {
                let ending = listing::extension(&listing.files()[files[i]]);
                if listing::is_image_name(&format!(".{ending}")) {
                    return ending;
                }
                // Such a picture was known by its content.
                let head = listing.head(files[i]).unwrap_or_default();
                let known = image::guess_format(&head).ok().and_then(|format| format.extensions_str().first());
                known.map_or_else(|| "png".to_owned(), |ending| (*ending).to_owned())
            }
            _ => "png".into(),
        }
    }

    /// Picture `i` as a file: its own bytes, or, of an array or where a side is wanted, a PNG.
    pub(super) fn file(&self, i: usize) -> Result<File> {
        let ending = self.ending(i);
        let bytes = match (&self.content, self.side) {
            (Content::Files(listing, files), None) => listing.read(files[i])?,
            _ => encode(&self.pixels(i)?)?,
        };
        Ok(File { ending, bytes })
    }

    /// The pixels of picture `i`: square, and of the side that is wanted.
    pub(super) fn pixels(&self, i: usize) -> Result<RgbImage> {
        match &self.content {
            Content::Files(listing, files) => {
                let path = listing.locate(files[i]);
                square(&path, decode::decode_rgb(&path, &listing.read(files[i])?)?, self.side)
            }
            Content::Pixels(set) => {
                let bytes = set.image(i).iter().flat_map(|word| word.to_le_bytes().into_iter().take(3)).collect();
                let side = set.side as u32;
                RgbImage::from_raw(side, side, bytes).ok_or_else(|| Error::Internal("an image of another size".into()))
            }
        }
    }
}

/// Whether every pixel is gray.
pub(super) fn is_gray(picture: &RgbImage) -> bool {
    picture.pixels().all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2])
}

fn encode(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let written = if is_gray(picture) {
        let gray: Vec<u8> = picture.pixels().map(|rgb| rgb[0]).collect();
        let gray = image::GrayImage::from_raw(picture.width(), picture.height(), gray);
        gray.map_or(Ok(()), |gray| gray.write_to(&mut bytes, ImageFormat::Png))
    } else {
        picture.write_to(&mut bytes, ImageFormat::Png)
    };
    written.map_err(|error| Error::Internal(format!("a picture cannot be written as PNG: {error}")))?;
    Ok(bytes.into_inner())
}

/// What `source` is; none for the glyphs.
///
/// # Errors
/// As [`source::find`].
pub(super) fn find(source: &str) -> Result<Option<Source>> {
    if source == "glyphs" { Ok(None) } else { source::find(source).map(Some) }
}

/// Calls `each` with the groups of what [`find`] found: one per split that it has, or one of all classes where it has none,
/// and the seed would split them.
pub(super) fn for_each(
    found: Option<&Source>,
    options: &DataOptions,
    each: &mut dyn FnMut(Group) -> Result<()>,
) -> Result<()> {
    let train = group(found, Split::Train, options)?;
    let mut is_whole = train.as_ref().is_some_and(|(_, drawn)| *drawn);
    if let Some((train, false)) = &train
        && train.classes.len() < FEWEST_TO_SPLIT
        && options.split_file.is_none()
    {
        // So few classes without splits are all trained on.
        let others = [Split::Val, Split::Novel].map(|split| is_there(found, split, options));
        is_whole = !others.into_iter().collect::<Result<Vec<bool>>>()?.contains(&true);
    }
    if is_whole {
        drop(train);
        let whole = group(found, Split::All, options)?;
        return whole.map_or(Ok(()), |(whole, _)| each(Group { split: None, ..whole }));
    }
    if let Some((train, _)) = train {
        each(train)?;
    }
    for split in [Split::Val, Split::Novel] {
        if let Some((group, _)) = group(found, split, options)? {
            each(group)?;
        }
    }
    Ok(())
}

/// `None` where the data has no such split.
fn is_there(found: Option<&Source>, split: Split, options: &DataOptions) -> Result<bool> {
    group(found, split, options).map(|group| group.is_some())
}

/// The pictures of a split, and whether a seed chose its classes; `None` where the data has no such split.
fn group<'a>(found: Option<&'a Source>, split: Split, options: &DataOptions) -> Result<Option<(Group<'a>, bool)>> {
    let read = || -> Result<(Group<'a>, bool)> {
        let of_set = |set: ImageSet| {
            let drawn = set.drawn_from.is_some();
            let (classes, labels, warnings) = (set.class_names.clone(), set.labels.clone(), set.warnings.clone());
            (Group { split: Some(split), classes, labels, warnings, content: Content::Pixels(set), side: None }, drawn)
        };
        let Some(source) = found else { return glyphs::load(split, options).map(of_set) };
        let Some(listing) = source.files() else { return source.load(split, options).map(of_set) };
        let selection = source.select(split, options)?;
        let (mut classes, mut labels, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for (label, (class, of_class)) in selection.classes.into_iter().enumerate() {
            classes.push(class);
            labels.extend(std::iter::repeat_n(label as u32, of_class.len()));
            files.extend(of_class);
        }
        let content = Content::Files(listing, files);
        let warnings = selection.warnings;
        let drawn = selection.drawn_from.is_some();
        Ok((Group { split: Some(split), classes, labels, warnings, content, side: options.side }, drawn))
    };
    match read() {
        Ok(group) => Ok(Some(group)),
        Err(Error::NoSplit { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
