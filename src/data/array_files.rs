//! Data sets as files of arrays: one file per split, such as `train.pickle`, `FC100_val.pickle`,
//! `miniImageNet_category_split_train_phase_train.pickle`, `mini-imagenet-cache-test.pkl`, tieredImageNet's
//! `test_images.npz` beside `test_labels.pkl`, or `x_train.npy` beside `y_train.npy`; or one file for all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::arrays::{self, Choice, Part};
use super::image_set::few;
use super::kind::{self, FileKind};
use super::labels::Label;
use super::listing::{self, file_name};
use super::split::{Split, words};
use super::unpickle::Pickle;
use super::{DataOptions, ImageSet, WarningKind, npz, parts, pickle};
use crate::{Error, Result};

/// The files of images in a folder, each with the split that it is named after, in order.
pub(super) fn find(folder: &Path) -> Result<Vec<(Option<Split>, PathBuf)>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
    let mut files: Vec<(Option<Split>, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !listing::is_noise(&file_name(path)) && path.is_file() && may_hold_images(path))
        .map(|path| (split_of(&path), path))
        .collect();
    files.sort();
    Ok(files)
}

/// Whether a file may hold images, by its name and, where that is cheap, its content.
fn may_hold_images(path: &Path) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    let stem = stem(path);
    let is_labels = stem.to_ascii_lowercase().ends_with("_labels");
    match listing::extension(name.strip_suffix(".gz").unwrap_or(&name)).as_str() {
        "npz" => npz::has_images(path),
        "npy" => parts::is_images(&stem),
        "pickle" | "pkl" | "pk" => {
            // Held-out images of the training classes, as miniImageNet has them, are no split of classes.
            !is_labels && (!stem.contains("_train_phase_") || stem.ends_with("_train_phase_train"))
        }
        _ => false,
    }
}

/// Reads `split` of the `files` of `folder`, of which at least one is named after a split.
pub(super) fn load_folder(
    folder: &Path,
    files: &[(Option<Split>, PathBuf)],
    split: Split,
    options: &DataOptions,
) -> Result<ImageSet> {
    let files: Vec<(Split, &Path)> = files.iter().filter_map(|(of, path)| Some(((*of)?, path.as_path()))).collect();
    if let Some(file) = &options.split_file {
        return Err(Error::data(
            file,
            format!("cannot be used: {} has one file per split already; leave the split file out", folder.display()),
        ));
    }
    let mut by_split: BTreeMap<Split, &Path> = BTreeMap::new();
    for &(of, path) in files.iter().filter(|(of, _)| split == Split::All || *of == split) {
        if let Some(other) = by_split.insert(of, path) {
            return Err(Error::data(
                folder,
                format!("has two files for the {of} split, {} and {}; keep one", file_name(other), file_name(path)),
            ));
        }
    }
    let families: BTreeMap<String, &Path> = files.iter().rev().map(|&(_, path)| (family(path), path)).collect();
    let named: Vec<String> = families.values().map(|path| file_name(path)).collect();
    if named.len() > 1 {
        return Err(Error::data(
            folder,
            format!(
                "holds files of several data sets, such as {}; move each set into a folder of its own",
                named.join(" and ")
            ),
        ));
    }
    if split == Split::All {
        return all(folder, &files, options);
    }
    let Some(path) = by_split.get(&split) else {
        let found: BTreeSet<String> = files.iter().map(|(_, path)| file_name(path)).collect();
        let found: Vec<String> = found.into_iter().collect();
        return Err(Error::no_split(
            folder,
            format!(
                "has no file for the {split} split (it has {}); add one whose name ends in {split}",
                found.join(", ")
            ),
        ));
    };
    let mut set = read(path, Choice::All, options)?;
    let train = files.iter().find(|(of, _)| *of == Split::Train && split != Split::Train);
    if let Some((_, train)) = train {
        warn_of_shared(&mut set, path, train, split)?;
    }
    Ok(set)
}

/// Every class of every file. Labels of different files are different classes.
fn all(folder: &Path, files: &[(Split, &Path)], options: &DataOptions) -> Result<ImageSet> {
    let mut whole: Option<ImageSet> = None;
    for &(split, path) in files {
        let set = read(path, Choice::All, options)?;
        let whole = whole.get_or_insert_with(|| ImageSet { side: set.side, ..ImageSet::default() });
        if set.side != whole.side {
            return Err(Error::data(
                path,
                format!("holds images of side {}, the files before it {}; set the side", set.side, whole.side),
            ));
        }
        let mut labels: BTreeMap<u32, u32> = BTreeMap::new();
        for (label, name) in set.class_names.iter().enumerate() {
            // A number means another class in every file, a name the same.
            let name = if name.parse::<i64>().is_ok() { format!("{split}/{name}") } else { name.clone() };
            let known = whole.class_names.iter().position(|other| *other == name);
            let own = known.unwrap_or_else(|| {
                whole.class_names.push(name);
                whole.class_names.len() - 1
            });
            labels.insert(label as u32, own as u32);
        }
        whole.labels.extend(set.labels.iter().filter_map(|label| labels.get(label)));
        whole.pixels.extend(set.pixels);
        whole.names.extend(set.names);
        whole.warnings.extend(set.warnings);
    }
    let set = whole.ok_or_else(|| Error::data(folder, "holds no images"))?;
    set.validate()?;
    Ok(set)
}

/// Reads `split` of a single file: all of it when the file is named after that split, else the classes that its arrays,
/// the seed or the split file give to it.
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
        Some(own) if own == split || split == Split::All => read(path, Choice::All, options),
        Some(own) => Err(Error::no_split(
            path,
            format!("is the {own} split by its name, and the {split} split is wanted; give the folder that holds both"),
        )),
        None => read(path, Choice::OfSplit(split), options),
    }
}

/// Calls `then` with the images and labels of `path`.
fn with_parts<T>(path: &Path, then: impl FnOnce(Vec<Part>) -> Result<T>) -> Result<T> {
    match kind::of(path)? {
        FileKind::Npy => then(vec![npz::npy_part(path, None)?]),
        FileKind::Zip => {
            let beside = labels_beside(path).map(|labels| pickle::labels(&labels)).transpose()?;
            then(npz::parts(path, beside)?)
        }
        _ => {
            let bytes = kind::read_unpacked(path, "pickle")?;
            let pickle = Pickle::parse(path, &bytes)?;
            let beside = labels_beside(path).map(|labels| pickle::labels(&labels)).transpose()?;
            then(pickle::parts(path, &pickle, beside)?)
        }
    }
}

fn read(path: &Path, choice: Choice, options: &DataOptions) -> Result<ImageSet> {
    let mut shared = None;
    let mut set = with_parts(path, |parts| {
        let (parts, choice) = match choice {
            Choice::All => (parts, choice),
            Choice::OfSplit(split) => {
                let (parts, own) = arrays::of_split(path, parts, split, options)?;
                shared = (own == Choice::All && matches!(split, Split::Val | Split::Novel)).then_some(split);
                (parts, own)
            }
        };
        arrays::read(path, parts, choice, options)
    })?;
    if let Some(split) = shared {
        let prints = |split| {
            with_parts(path, |parts| {
                arrays::prints(parts.into_iter().filter(|part| part.split == Some(split)).collect())
            })
        };
        arrays::warn_of_shared(&mut set, path, prints(split)?, &prints(Split::Train)?, split);
    }
    Ok(set)
}

/// Warns of classes and pictures of `set`, from the file `own`, that the file of the training split has, too.
fn warn_of_shared(set: &mut ImageSet, own: &Path, train: &Path, split: Split) -> Result<()> {
    let classes = |path: &Path| {
        with_parts(path, |parts| Ok(parts.into_iter().flat_map(|part| part.labels).collect::<BTreeSet<Label>>()))
    };
    // A training file that cannot be read is reported when it is.
    let Ok(train_classes) = classes(train) else { return Ok(()) };
    let own_classes = classes(own)?;
    let names: Vec<String> = own_classes
        .intersection(&train_classes)
        .filter(|label| matches!(label, Label::Name(_)))
        .map(Label::to_string)
        .collect();
    if !names.is_empty() {
        set.warn(
            WarningKind::SharedClasses,
            format!(
                "{}: {} of the {} classes of the {split} split are also in {} ({}): accuracy on them is not that of a \
                 few-shot learner; keep each class in one split",
                own.display(),
                names.len(),
                own_classes.len(),
                file_name(train),
                few(&names)
            ),
        );
    } else if own_classes == train_classes {
        set.warn(
            WarningKind::Ambiguous,
            format!(
                "{}: has the same labels as {}; if they are the same classes, the {split} split is not novel",
                own.display(),
                file_name(train)
            ),
        );
    }
    let prints = |path: &Path| with_parts(path, arrays::prints);
    arrays::warn_of_shared(set, own, prints(own)?, &prints(train)?, split);
    Ok(())
}

/// The labels of a file of images that has none.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let stem = stem(path);
    let base = stem.strip_suffix("_images_png").or_else(|| stem.strip_suffix("_images"))?;
    ["pkl", "pickle"]
        .into_iter()
        .map(|extension| path.with_file_name(format!("{base}_labels.{extension}")))
        .find(|path| path.is_file())
}

/// The split that a file of images is named after.
fn split_of(path: &Path) -> Option<Split> {
    let stem = stem(path);
    // Held-out images of the training classes.
    if stem.contains("_train_phase_") && !stem.ends_with("_train_phase_train") {
        return None;
    }
    Split::of_stem(&stem).map(|(split, _)| split)
}

/// What the files of one data set have in common in their names.
fn family(path: &Path) -> String {
    let rest = Split::of_stem(&stem(path)).map(|(_, rest)| rest).unwrap_or_default();
    let is_own = |word: &String| !matches!(word.as_str(), "train" | "phase");
    words(&rest).into_iter().filter(is_own).collect::<Vec<_>>().join(" ")
}

/// The name without its extension, and without `.gz`.
fn stem(path: &Path) -> String {
    let name = file_name(path);
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned()
}
