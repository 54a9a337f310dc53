//! The pictures of one split by class, whatever says which class a picture has, and the set that they make.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::Hasher;

use super::image_set::few;
use super::listing::Listing;
use super::split::Split;
use super::{DataOptions, ImageSet, Warning, WarningKind, decode};
use crate::Result;

/// The pictures of one split.
#[derive(Default)]
pub(super) struct Selection {
    /// Class names and the files of each, in order.
    pub classes: Vec<(String, Vec<usize>)>,
    pub warnings: Vec<Warning>,
    /// Number of all classes, where a seed chose.
    pub drawn_from: Option<usize>,
}

impl Selection {
    fn files(&self) -> impl Iterator<Item = usize> {
        self.classes.iter().flat_map(|(_, files)| files.iter().copied())
    }
}

/// Reads the pictures of `listing` that `select` gives for `split`, with warnings of what the training split has, too.
pub(super) fn load(
    listing: &dyn Listing,
    split: Split,
    options: &DataOptions,
    select: impl Fn(Split) -> Result<Selection>,
) -> Result<ImageSet> {
    let own = select(split)?;
    let mut warnings = own.warnings.clone();
    if matches!(split, Split::Val | Split::Novel)
        && let Ok(train) = select(Split::Train)
    {
        warnings.extend(shared(listing, split, &own, &train)?);
    }
    for run in listing.runs() {
        warnings.push(Warning {
            kind: WarningKind::LeftOut,
            message: format!("{}: is the folder of a training run, and no class", listing.origin().join(run).display()),
        });
    }

    let (mut labels, mut class_names, mut names, mut items) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (label, (class, files)) in own.classes.into_iter().enumerate() {
        class_names.push(class);
        for file in files {
            labels.push(label as u32);
            names.push(listing.files()[file].clone());
            items.push((listing, file));
        }
    }
    let original_side = decode::shorter_side(&items, options);
    let side = original_side.and_then(|shorter| options.side_for(shorter)).or(options.side);
    let (side, pixels) = decode::decode_all(&items, &DataOptions { side, ..options.clone() })?;
    let mut set = ImageSet::new(side, pixels, labels, class_names, names)?;
    set.original_side = original_side;
    set.warnings = warnings;
    set.drawn_from = own.drawn_from;
    Ok(set)
}

/// Warnings of classes and pictures that the training split has, too.
fn shared(listing: &dyn Listing, split: Split, own: &Selection, train: &Selection) -> Result<Vec<Warning>> {
    let origin = listing.origin().display();
    let mut warnings = Vec::new();
    // `Cat` is hardly another class than `cat`.
    let of_train: HashSet<String> = train.classes.iter().map(|(class, _)| class.to_lowercase()).collect();
    let classes: Vec<&String> =
        own.classes.iter().map(|(class, _)| class).filter(|class| of_train.contains(&class.to_lowercase())).collect();
    if !classes.is_empty() {
        warnings.push(Warning {
            kind: WarningKind::SharedClasses,
            message: format!(
                "{origin}: {} of the {} classes of the {split} split are also in the train split ({}): accuracy on \
                 them is not that of a few-shot learner; keep each class in one split",
                classes.len(),
                own.classes.len(),
                few(&classes)
            ),
        });
    }

    let mut by_size: HashMap<u64, Vec<usize>> = HashMap::new();
    for file in train.files() {
        by_size.entry(listing.size(file)).or_default().push(file);
    }
    let mut prints: HashMap<usize, u64> = HashMap::new();
    let mut print = |file: usize| -> Result<u64> {
        if let Some(&known) = prints.get(&file) {
            return Ok(known);
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(&listing.read(file)?);
        let print = hasher.finish();
        prints.insert(file, print);
        Ok(print)
    };
    let mut n = 0;
    let mut first = None;
    for file in own.files() {
        let mut twin = None;
        for &other in by_size.get(&listing.size(file)).into_iter().flatten() {
            if file == other || print(file)? == print(other)? {
                twin = Some(other);
                break;
            }
        }
        if let Some(other) = twin {
            n += 1;
            first.get_or_insert((file, other));
        }
    }
    if let Some((file, other)) = first {
        let files = listing.files();
        let example = if file == other {
            format!("as {}", files[file])
        } else {
            format!("{} is also {}", files[file], files[other])
        };
        warnings.push(Warning {
            kind: WarningKind::SharedPictures,
            message: format!(
                "{origin}: {n} of the {} pictures of the {split} split are also in the train split ({example}); keep \
                 each in one split",
                own.files().count()
            ),
        });
    }
    Ok(warnings)
}
