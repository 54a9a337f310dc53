//! The three groups of classes, their names, and the split by seed.

use std::fmt;
use std::str::FromStr;

use rand::seq::SliceRandom;

use crate::random::{Rng, Stream};
use crate::{Error, Result};

/// A group of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// The base classes that the network is trained on.
    Train,
    /// The classes for choosing settings.
    Val,
    /// The classes that nothing was fitted on: where few-shot accuracy is measured.
    Novel,
    /// Every class, whatever its split.
    All,
}

impl Split {
    /// The three disjoint splits, in order.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Novel];

    /// The split that a folder, a key or a user calls `name`, in any case: `train`, `training`, `base`, `background`;
    /// `val`, `valid`, `validation`, `dev`; `novel`, `test`, `testing`, `eval`, `evaluation`; each with `meta`,
    /// `images`, `data` or `set` around it, as in `meta-train`, `metatest` and Omniglot's `images_background`.
    pub fn from_name(name: &str) -> Option<Split> {
        let mut words = words(name).into_iter().filter(|word| !FILLERS.contains(&word.as_str()));
        let split = split_word(&words.next()?)?;
        words.next().is_none().then_some(split)
    }

    /// The split that one word of `name` means, whatever the others: `cars_train`, `train2017`. Words that mean other things,
    /// too, as in `clip-base-patch32`, only as the first or the last word that is no number. None where words mean several.
    pub(super) fn resembled(name: &str) -> Option<Split> {
        let words = words(name);
        let stems = words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()));
        let stems: Vec<&str> = stems.filter(|stem| !stem.is_empty() && !FILLERS.contains(stem)).collect();
        let is_outer = |at: usize| at == 0 || at + 1 == stems.len();
        let means = |(at, stem): (usize, &&str)| split_word(stem).filter(|_| is_outer(at) || !AMBIGUOUS.contains(stem));
        let mut found = stems.iter().enumerate().filter_map(means);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }

    /// The split that a file is named after, by the last word of its name without extension: `FC100_val`,
    /// `mini-imagenet-cache-test`, `train_images`; and the rest of the name, which says what it is a split of.
    pub(super) fn of_stem(stem: &str) -> Option<(Split, String)> {
        let mut words = words(stem);
        while words.last().is_some_and(|word| FILLERS.contains(&word.as_str()) || CONTENTS.contains(&word.as_str())) {
            words.pop();
        }
        let split = split_word(&words.pop()?)?;
        words.retain(|word| !FILLERS.contains(&word.as_str()));
        Some((split, words.join(" ")))
    }
}

/// Words that say nothing about the split.
const FILLERS: [&str; 8] = ["images", "image", "img", "imgs", "set", "data", "meta", "split"];
/// Words for splits that are words for other things, too.
const AMBIGUOUS: [&str; 6] = ["base", "background", "dev", "novel", "eval", "evaluation"];
/// What a file of a split holds.
const CONTENTS: [&str; 5] = ["labels", "label", "png", "x", "y"];

/// The words of a name in lower case.
pub(super) fn words(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect()
}

/// The split that one word in lower case means.
pub(super) fn split_word(word: &str) -> Option<Split> {
    let word = word.strip_prefix("meta").unwrap_or(word);
    match word.strip_suffix("set").unwrap_or(word) {
        "train" | "training" | "base" | "background" => Some(Split::Train),
        "val" | "valid" | "validation" | "dev" => Some(Split::Val),
        "novel" | "test" | "testing" | "eval" | "evaluation" => Some(Split::Novel),
        _ => None,
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Novel => "novel",
            Split::All => "all",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(name: &str) -> Result<Split> {
        if name.eq_ignore_ascii_case("all") {
            return Ok(Split::All);
        }
        Split::from_name(name)
            .ok_or_else(|| Error::usage(format!("unknown split {name:?}; choose train, val or novel, or all classes")))
    }
}

/// The fewest classes of which some are kept apart: of fewer, there would be one novel class, and nothing to tell it
/// from.
pub const FEWEST_TO_SPLIT: usize = 8;

/// Splits `n_classes` classes by seed: a seeded shuffle, then 64 % to train, 16 % to val and 20 % to
/// novel, rounded, each at least one. `None` below eight classes, which all are to train on. Indexed by
/// `Split as usize`, each part ascending.
pub fn class_split(n_classes: usize, seed: u64) -> Option<[Vec<u32>; 3]> {
    if n_classes < FEWEST_TO_SPLIT {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        for split in [Split::Train, Split::Val, Split::Novel, Split::All] {
            assert_eq!(split.to_string().parse::<Split>().ok(), Some(split));
        }
        assert_eq!(Split::from_name("Base"), Some(Split::Train));
        for name in ["oneshot", "all", "images", "trains", "train_cars", "images_background_small1", "set", ""] {
            assert_eq!(Split::from_name(name), None, "{name}");
        }
        let names =
            ["Training", "meta-train", "metatrain", "META_TRAIN", "trainset", "images_background", "train images"];
        assert!(names.iter().all(|name| Split::from_name(name) == Some(Split::Train)));
        let names = ["valid", "meta-val", "metaval", "Validation", "dev", "meta-valid", "val_set"];
        assert!(names.iter().all(|name| Split::from_name(name) == Some(Split::Val)));
        let names = ["TEST", "testing", "meta-test", "metatest", "images_evaluation", "test-images", "eval"];
        assert!(names.iter().all(|name| Split::from_name(name) == Some(Split::Novel)));
        assert_eq!("All".parse::<Split>().ok(), Some(Split::All));
        for (stem, split, rest) in [
            ("FC100_val", Split::Val, "fc100"),
            ("mini-imagenet-cache-test", Split::Novel, "mini imagenet cache"),
            ("train_images_png", Split::Train, ""),
            ("x_train", Split::Train, "x"),
            ("miniImageNet_category_split_train_phase_train", Split::Train, "miniimagenet category train phase"),
        ] {
            assert_eq!(Split::of_stem(stem), Some((split, rest.into())), "{stem}");
        }
        for (name, split) in [
            ("train-000000", Some(Split::Train)),
            ("imagenet-val-000001", Some(Split::Val)),
            ("coco_train2017_part_3", Some(Split::Train)),
            ("cars_eval", Some(Split::Novel)),
            ("novel-000", Some(Split::Novel)),
            ("clip-base-patch32-000000", None),
            ("my-dev-set-of-cats", None),
            ("train-test-000", None),
            ("000000", None),
        ] {
            assert_eq!(Split::resembled(name), split, "{name}");
        }
        assert!("tset".parse::<Split>().is_err_and(|error| error.to_string().contains("train, val or novel")));
    }

    #[test]
    fn the_class_split_covers_each_class_once() {
        assert!(class_split(FEWEST_TO_SPLIT - 1, 0).is_none());
        for n in [FEWEST_TO_SPLIT, 10, 100, 1623] {
            let parts = class_split(n, 7).expect("eight classes or more");
            assert!(parts[Split::Novel as usize].len() > 1, "{n}");
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
