//! Which classes belong to training, validation and novel: by name, by seed, or by a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rand::seq::SliceRandom;

use super::DataOptions;
use crate::random::{Rng, Stream};
use crate::{Error, Result};

/// One of the three disjoint groups of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The base classes that the network is trained on.
    Train,
    /// The classes for choosing settings.
    Val,
    /// The classes that nothing was fitted on: where few-shot accuracy is measured.
    Novel,
}

impl Split {
    /// All splits, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Novel];

    /// The split that a folder, a file or a user calls `name`, in any case: `train`, `base`,
    /// `background`; `val`, `valid`, `validation`; `novel`, `test`, `eval`, `evaluation`; and the two
    /// folders of the original Omniglot, `images_background` and `images_evaluation`.
    pub fn from_name(name: &str) -> Option<Split> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "base" | "background" | "images_background" => Some(Split::Train),
            "val" | "valid" | "validation" => Some(Split::Val),
            "novel" | "test" | "eval" | "evaluation" | "images_evaluation" => Some(Split::Novel),
            _ => None,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Novel => "novel",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Split> {
        Split::from_name(name)
            .ok_or_else(|| Error::usage(format!("unknown split {name:?}; choose train, val or novel")))
    }
}

/// Splits `n_classes` classes by seed: a seeded shuffle, then 64 % to train, 16 % to val and 20 % to
/// novel, rounded, each at least one. `None` below three classes. Indexed by `Split as usize`, each
/// part ascending.
pub fn class_split(n_classes: usize, seed: u64) -> Option<[Vec<u32>; 3]> {
    if n_classes < 3 {
        return None;
    }
    let mut order: Vec<u32> = (0..n_classes as u32).collect();
    order.shuffle(&mut Rng::new(seed, Stream::Split, 0, 0));
    let part = |share: f64| ((n_classes as f64 * share).round() as usize).max(1);
    let mut novel = order.split_off(n_classes - part(0.20));
    let mut val = order.split_off(order.len() - part(0.16));
    let mut train = order;
    for part in [&mut train, &mut val, &mut novel] {
        part.sort_unstable();
    }
    Some([train, val, novel])
}

/// Which of `classes` belong to `split`, by the split file or by seed.
pub(super) fn choose(source: &Path, classes: &[String], split: Split, options: &DataOptions) -> Result<Vec<bool>> {
    if let Some(file) = &options.split_file {
        return choose_by_file(source, classes, split, file);
    }
    let parts = class_split(classes.len(), options.split_seed).ok_or_else(|| {
        Error::data(
            source,
            format!(
                "has {} class{}, too few to split by seed; give at least 3, or split folders train/, val/ and novel/",
                classes.len(),
                if classes.len() == 1 { "" } else { "es" }
            ),
        )
    })?;
    let mut chosen = vec![false; classes.len()];
    for &class in &parts[split as usize] {
        chosen[class as usize] = true;
    }
    Ok(chosen)
}

fn choose_by_file(source: &Path, classes: &[String], split: Split, file: &Path) -> Result<Vec<bool>> {
    if is_csv(file) {
        return Err(Error::data(
            file,
            format!("names image files, but {} holds arrays; give a JSON file of classes", source.display()),
        ));
    }
    let wanted = read_json(file)?;
    let known: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
    for (split, names) in &wanted {
        if let Some(name) = names.iter().find(|name| !known.contains(name.as_str())) {
            return Err(Error::data(
                file,
                format!("puts {name:?} into {split}, but {} has no such class; correct the name", source.display()),
            ));
        }
    }
    let Some(names) = wanted.get(&split).filter(|names| !names.is_empty()) else {
        return Err(Error::no_split(file, format!("lists no classes for the {split} split; add \"{split}\": [..]")));
    };
    Ok(classes.iter().map(|class| names.contains(class)).collect())
}

/// `{"train": [..], "val": [..], "novel": [..]}`; class names may be strings or integers.
fn read_json(file: &Path) -> Result<BTreeMap<Split, BTreeSet<String>>> {
    let text = read_text(file)?;
    let wrong = |why: String| {
        Error::data(
            file,
            format!("{why}; a split file is {{\"train\": [class names], \"val\": [..], \"novel\": [..]}}"),
        )
    };
    let json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("is not a JSON object ({error})")))?;
    let mut splits = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (key, value) in &json {
        let split = Split::from_name(key).ok_or_else(|| wrong(format!("has the unknown key {key:?}")))?;
        let list = value.as_array().ok_or_else(|| wrong(format!("has no list under {key:?}")))?;
        let mut names = BTreeSet::new();
        for value in list {
            let name = match value {
                serde_json::Value::String(name) => name.clone(),
                serde_json::Value::Number(number) => number.to_string(),
                _ => return Err(wrong(format!("has something that is not a class name under {key:?}"))),
            };
            if let Some(other) = seen.insert(name.clone(), split) {
                return Err(Error::data(
                    file,
                    format!("lists {name:?} twice ({other} and {split}); a class belongs to one split"),
                ));
            }
            names.insert(name);
        }
        if splits.insert(split, names).is_some() {
            return Err(wrong(format!("names the {split} split twice")));
        }
    }
    Ok(splits)
}

/// Whether a split file lists image files rather than classes.
pub(super) fn is_csv(file: &Path) -> bool {
    super::listing::extension(&file.to_string_lossy()) == "csv"
}

/// The rows (file name, label) of `split`, from `file` or its sibling of the split's name, as
/// mini-ImageNet's `train.csv`, `val.csv` and `test.csv` have them.
pub(super) fn read_csv(file: &Path, split: Split) -> Result<(PathBuf, Vec<(String, String)>)> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let own = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).and_then(Split::from_name);
    if own(file).is_none() {
        return Err(Error::data(
            file,
            "is a CSV split file without a split's name; call it train.csv, val.csv or test.csv",
        ));
    }
    let mut path = Some(file.to_path_buf());
    if own(file) != Some(split) {
        let entries =
            std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
        path =
            entries.flatten().map(|entry| entry.path()).filter(|path| is_csv(path) && own(path) == Some(split)).min();
    }
    let path =
        path.ok_or_else(|| Error::no_split(folder, format!("has no {split}.csv beside {}; add it", file.display())))?;
    let text = read_text(&path)?;
    let mut lines = text.lines().map(str::trim_end).enumerate();
    let header: Vec<String> = lines
        .next()
        .map(|(_, line)| cells(line).into_iter().map(str::to_ascii_lowercase).collect())
        .unwrap_or_default();
    let column = |name: &str| {
        header
            .iter()
            .position(|cell| cell == name)
            .ok_or_else(|| Error::data(&path, format!("has no column {name:?}; its first line must be filename,label")))
    };
    let (name_column, label_column) = (column("filename")?, column("label")?);
    let mut rows = Vec::new();
    for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let cells = cells(line);
        match (cells.get(name_column), cells.get(label_column)) {
            (Some(name), Some(label)) if !name.is_empty() && !label.is_empty() => {
                rows.push(((*name).to_string(), (*label).to_string()));
            }
            _ => return Err(Error::data(&path, format!("line {} has no file name or no label; complete it", i + 1))),
        }
    }
    if rows.is_empty() {
        return Err(Error::data(&path, "lists no images; add lines filename,label"));
    }
    Ok((path, rows))
}

/// The cells of one line. These files quote nothing that contains a comma.
fn cells(line: &str) -> Vec<&str> {
    line.trim_start_matches('\u{feff}').split(',').map(|cell| cell.trim().trim_matches('"')).collect()
}

fn read_text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).map_err(|source| Error::io(file, "cannot read the split file", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        for split in Split::ALL {
            assert_eq!(split.to_string().parse::<Split>().ok(), Some(split));
        }
        assert_eq!(Split::from_name("Base"), Some(Split::Train));
        assert_eq!(Split::from_name("oneshot"), None);
        assert!("tset".parse::<Split>().is_err_and(|error| error.to_string().contains("train, val or novel")));
    }

    #[test]
    fn the_class_split_covers_each_class_once() {
        assert!(class_split(2, 0).is_none());
        for n in [3, 4, 5, 10, 100, 1623] {
            let parts = class_split(n, 7).expect("three classes or more");
            assert!(parts.iter().all(|part| !part.is_empty()), "{n}");
            let mut all = parts.concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..n as u32), "{n}");
        }
        let sizes = class_split(100, 7).expect("enough").map(|part| part.len());
        assert_eq!(sizes, [64, 16, 20]);
        assert_ne!(class_split(100, 7), class_split(100, 8));
    }
}
