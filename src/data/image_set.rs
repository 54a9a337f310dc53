//! The images of one split in host memory, with what is suspicious about them.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher;

use crate::{Error, Result};

/// How many names a sentence lists.
const NAMES_SHOWN: usize = 3;

/// Square RGB images of one split, resident in host memory. [`ImageSet::validate`] says what must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSet {
    /// Width and height of every image in pixels.
    pub side: usize,
    /// One RGBA8 word per pixel (R in the low byte, A = 255), row-major, images back to back:
    /// `len() * side * side` words.
    pub pixels: Vec<u32>,
    /// One label per image in `0..n_classes()`: the rank of its class. Empty for unlabelled images.
    pub labels: Vec<u32>,
    /// The class of each label: a folder's name or the name or number that a file gives it.
    pub class_names: Vec<String>,
    /// One display name or path per image, in the same order.
    pub names: Vec<String>,
    /// What is probably not what the user wants, for whoever loads the set to pass on.
    pub warnings: Vec<Warning>,
    /// Number of classes of the whole data set, where its split was drawn by seed.
    pub drawn_from: Option<usize>,
    /// The pictures' own shorter side, in the middle of a sample of them, where it was looked at.
    pub original_side: Option<usize>,
}

/// What is suspicious about a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningKind {
    /// A class of this split is in the training split, too.
    SharedClasses,
    /// A picture of this split is in the training split, too.
    SharedPictures,
    /// A picture is there twice, with the same label.
    Duplicates,
    /// A picture is there twice, with different labels.
    Contradictions,
    /// Files or folders are left out.
    LeftOut,
    /// The labels can be understood in two ways.
    Ambiguous,
}

/// A sentence on something that is probably not what the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// The sentence, with the file or folder.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ImageSet {
    /// A set of images, validated; without labels and class names where both are empty.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`ImageSet::validate`] says.
    pub fn new(
        side: usize,
        pixels: Vec<u32>,
        labels: Vec<u32>,
        class_names: Vec<String>,
        names: Vec<String>,
    ) -> Result<ImageSet> {
        let set = ImageSet { side, pixels, labels, class_names, names, ..ImageSet::default() };
        set.validate()?;
        Ok(set)
    }

    /// Whether the parts fit together: `len() * side * side` pixels, and one label below `n_classes()` per image,
    /// or neither labels nor classes.
    ///
    /// # Errors
    /// [`Error::Argument`] names the part that does not fit.
    pub fn validate(&self) -> Result<()> {
        let wrong = |what, got: String, wanted: String| Err(Error::Argument { what, got, wanted });
        let n = self.len();
        let pixels = self.side.checked_mul(self.side).and_then(|pixels| pixels.checked_mul(n));
        if pixels != Some(self.pixels.len()) || (n > 0 && self.side == 0) {
            return wrong(
                "the number of pixels",
                self.pixels.len().to_string(),
                format!("that of {n} images of {0} x {0}", self.side),
            );
        }
        if u32::try_from(n).is_err() {
            return wrong("the number of images", n.to_string(), "below 2^32".into());
        }
        if self.labels.len() != n && !(self.labels.is_empty() && self.class_names.is_empty()) {
            return wrong("the number of labels", self.labels.len().to_string(), format!("that of the {n} images"));
        }
        match self.labels.iter().max() {
            Some(&label) if label as usize >= self.n_classes() => {
                wrong("every label", label.to_string(), format!("below the number of classes, {}", self.n_classes()))
            }
            _ => Ok(()),
        }
    }

    /// As [`ImageSet::validate`], and that every image has a label.
    ///
    /// # Errors
    /// [`Error::Argument`] names the part that does not fit.
    pub fn validate_labelled(&self) -> Result<()> {
        self.validate()?;
        if self.labels.len() == self.len() {
            return Ok(());
        }
        let (got, wanted) = ("none".into(), format!("one for each of the {} images", self.len()));
        Err(Error::Argument { what: "the labels of the images", got, wanted })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Number of classes; 0 for unlabelled images.
    pub fn n_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The pixels of image `i`; empty beyond the last image.
    pub fn image(&self, i: usize) -> &[u32] {
        let words = self.side * self.side;
        self.pixels.get(i * words..(i + 1) * words).unwrap_or_default()
    }

    /// The images of each class, in ascending order: the table that [`super::draw`] draws from.
    pub fn by_class(&self) -> Vec<Vec<u32>> {
        let mut classes = vec![Vec::new(); self.n_classes()];
        for (i, &label) in self.labels.iter().enumerate() {
            if let Some(class) = classes.get_mut(label as usize) {
                class.push(i as u32);
            }
        }
        classes
    }

    /// Some images of some classes, by class and the numbers of its images, as [`ImageSet::by_class`] has them; without
    /// warnings. A class or an image that is not there is left out.
    pub fn subset<'a>(&self, chosen: impl IntoIterator<Item = (usize, &'a [u32])>) -> ImageSet {
        let mut few = ImageSet { side: self.side, drawn_from: self.drawn_from, ..ImageSet::default() };
        for (class, images) in chosen {
            let Some(name) = self.class_names.get(class) else { continue };
            let label = few.class_names.len() as u32;
            few.class_names.push(name.clone());
            for &image in images {
                let Some(name) = self.names.get(image as usize) else { continue };
                few.labels.push(label);
                few.names.push(name.clone());
                few.pixels.extend_from_slice(self.image(image as usize));
            }
        }
        few
    }

    /// Of at most `classes` classes, spread over those of `least` images or more, the first `images` images.
    pub(crate) fn spread(&self, least: usize, (classes, images): (usize, usize)) -> ImageSet {
        let by_class = self.by_class();
        let enough: Vec<usize> = (0..by_class.len()).filter(|&class| by_class[class].len() >= least).collect();
        let n = enough.len().min(classes);
        let spread = (0..n).map(|i| enough[i * enough.len() / n]);
        self.subset(spread.map(|class| (class, &by_class[class][..by_class[class].len().min(images)])))
    }

    /// Whether a class or a picture of the set is known to be in the training split, too.
    pub fn is_trained_on(&self) -> bool {
        let shared = [WarningKind::SharedClasses, WarningKind::SharedPictures];
        self.warnings.iter().any(|warning| shared.contains(&warning.kind))
    }

    pub(super) fn warn(&mut self, kind: WarningKind, message: String) {
        self.warnings.push(Warning { kind, message });
    }

    /// Warns of pictures that are there more than once: one in support and query at once answers itself.
    /// Not below a side of 4, where different pictures shrink to the same pixels.
    pub(super) fn warn_of_duplicates(&mut self, source: &str) {
        if self.side < 4 {
            return;
        }
        let mut first: HashMap<u64, usize> = HashMap::with_capacity(self.len());
        let (mut same, mut other) = (Vec::new(), Vec::new());
        for i in 0..self.len() {
            let earlier = *first.entry(fingerprint(self.image(i))).or_insert(i);
            if earlier == i || self.image(earlier) != self.image(i) {
                continue;
            }
            let twins = if self.labels.get(earlier) == self.labels.get(i) { &mut same } else { &mut other };
            twins.push((earlier, i));
        }
        let pair =
            |twins: &[(usize, usize)]| twins.first().map(|&(a, b)| (self.names[a].clone(), self.names[b].clone()));
        if let Some((a, b)) = pair(&same) {
            let n = same.len();
            self.warn(
                WarningKind::Duplicates,
                format!("{source}: {n} of {} images are there twice, as {a} and {b}; remove the copies", self.len()),
            );
        }
        let pair =
            |twins: &[(usize, usize)]| twins.first().map(|&(a, b)| (self.names[a].clone(), self.names[b].clone()));
        if let Some((a, b)) = pair(&other) {
            let n = other.len();
            self.warn(
                WarningKind::Contradictions,
                format!(
                    "{source}: {n} of {} images are there twice with different classes, as {a} and {b}; remove the wrong ones",
                    self.len()
                ),
            );
        }
    }
}

/// A hash of an image's pixels.
pub(super) fn fingerprint(pixels: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytemuck::cast_slice(pixels));
    hasher.finish()
}

/// The first names, and how many more there are.
pub(super) fn few<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
