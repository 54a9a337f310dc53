//! Which classes of a data set belong to a split: by a file, or by seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::split::{FEWEST_TO_SPLIT, Split, class_split};
use super::{DataOptions, table, text};
use crate::{Error, Result};

/// Classes that a split was chosen from.
pub(super) struct Chosen {
    /// Whether each class belongs to the split.
    pub(super) keep: Vec<bool>,
    /// Number of classes, where the seed chose.
    pub(super) drawn_from: Option<usize>,
}

/// Which of `classes` belong to `split`, by the split file or by seed.
pub(super) fn choose(source: &Path, classes: &[String], split: Split, options: &DataOptions) -> Result<Chosen> {
    if split == Split::All {
        return Ok(Chosen { keep: vec![true; classes.len()], drawn_from: None });
    }
    if let Some(file) = &options.split_file {
        return Ok(Chosen { keep: choose_by_file(source, classes, split, file)?, drawn_from: None });
    }
    let Some(parts) = class_split(classes.len(), options.split_seed) else {
        let few = classes.len();
        if split == Split::Train {
            return Ok(Chosen { keep: vec![true; few], drawn_from: None });
        }
        return Err(Error::no_split(
            source,
            format!(
                "has {few} class{} without splits, too few to keep some apart as {split}: all of them are trained on (from \
                 {FEWEST_TO_SPLIT} on the seed splits them; folders train/, val/ and novel/ split any number)",
                if few == 1 { "" } else { "es" }
            ),
        ));
    };
    let mut keep = vec![false; classes.len()];
    for &class in parts.get(split as usize).into_iter().flatten() {
        keep[class as usize] = true;
    }
    Ok(Chosen { keep, drawn_from: Some(classes.len()) })
}

fn choose_by_file(source: &Path, classes: &[String], split: Split, file: &Path) -> Result<Vec<bool>> {
    if table::is_table(file) {
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
    let text = text::read(file, "split file")?;
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
                let remedy = if other == split { "remove one" } else { "a class belongs to one split" };
                return Err(Error::data(file, format!("lists {name:?} twice ({other} and {split}); {remedy}")));
            }
            names.insert(name);
        }
        if splits.insert(split, names).is_some() {
            return Err(wrong(format!("names the {split} split twice")));
        }
    }
    Ok(splits)
}
