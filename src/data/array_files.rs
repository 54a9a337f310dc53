//! Folders with one file of arrays per split: `train.pickle`, `FC100_val.pickle`,
//! `miniImageNet_category_split_train_phase_train.pickle`, or tieredImageNet's `test_images.npz` beside
//! `test_labels.pkl`. The split is the last word of the name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::arrays::Choice;
use super::split::Split;
use super::{DataOptions, ImageSet, listing, npz, pickle};
use crate::{Error, Result};

/// Reads the file of `split` in `folder`; `None` when no file there is named after a split.
pub(super) fn load_folder(folder: &Path, split: Split, options: &DataOptions) -> Result<Option<ImageSet>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
    let mut files: Vec<(Split, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter_map(|path| split_of(&path).map(|split| (split, path)))
        .collect();
    files.sort();
    if files.is_empty() {
        return Ok(None);
    }
    if let Some(file) = &options.split_file {
        return Err(Error::data(
            file,
            format!("cannot be used: {} has one file per split already; leave the split file out", folder.display()),
        ));
    }
    let mut of_split = files.iter().filter(|(of, _)| *of == split).map(|(_, path)| path);
    match (of_split.next(), of_split.next()) {
        (Some(path), None) => read(path, &Choice::All, options).map(Some),
        (Some(first), Some(second)) => Err(Error::data(
            folder,
            format!("has two files for the {split} split, {} and {}; keep one", file_name(first), file_name(second)),
        )),
        (None, _) => {
            let found: BTreeSet<String> = files.iter().map(|(_, path)| file_name(path)).collect();
            let found: Vec<String> = found.into_iter().collect();
            Err(Error::no_split(
                folder,
                format!(
                    "has no file for the {split} split (it has {}); add one whose name ends in {split}",
                    found.join(", ")
                ),
            ))
        }
    }
}

/// Reads `split` of a single file: all of it when the file is named after that split, else the classes
/// that the seed or the split file gives to it.
pub(super) fn load_file(path: &Path, split: Split, options: &DataOptions) -> Result<ImageSet> {
    let own = split_of(path);
    if let (Some(_), Some(file)) = (own, &options.split_file) {
        return Err(Error::data(
            file,
            format!(
                "cannot be used: {} is named after one split; rename that or leave the split file out",
                path.display()
            ),
        ));
    }
    match own {
        Some(own) if own == split => read(path, &Choice::All, options),
        Some(own) => Err(Error::no_split(
            path,
            format!("is the {own} split by its name, and the {split} split is wanted; give the folder that holds both"),
        )),
        None => read(path, &Choice::OfSplit(split), options),
    }
}

fn read(path: &Path, choice: &Choice, options: &DataOptions) -> Result<ImageSet> {
    if !matches!(super::sniff(path)?, super::FileKind::Zip) {
        return pickle::load(path, choice, options);
    }
    let stem = stem(path);
    let base = stem.strip_suffix("_images").unwrap_or(&stem);
    let labels = ["pkl", "pickle"]
        .into_iter()
        .map(|extension| path.with_file_name(format!("{base}_labels.{extension}")))
        .find(|path| path.is_file());
    npz::load(path, labels.as_deref(), choice, options)
}

/// The split that a file of images is named after.
fn split_of(path: &Path) -> Option<Split> {
    let stem = stem(path);
    let stem = match listing::extension(&file_name(path)).as_str() {
        "npz" => stem.strip_suffix("_images").unwrap_or(&stem),
        "pickle" | "pkl" if !stem.ends_with("_labels") => &stem,
        _ => return None,
    };
    // miniImageNet's held-out images of the training classes are no split of classes.
    if stem.contains("_train_phase_") && !stem.ends_with("_train_phase_train") {
        return None;
    }
    stem.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().and_then(Split::from_name)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
