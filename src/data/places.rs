//! Classes and splits of pictures by the folders that they lie in, without refusing any layout.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::split::Split;

/// Which class and split each picture has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Names of the classes, sorted bytewise.
    pub classes: Vec<String>,
    /// Of each picture its class; none where it lies in no folder.
    pub class: Vec<Option<u32>>,
    /// Of each picture its split; none where the folders are no splits.
    pub split: Vec<Option<Split>>,
}

impl Places {
    /// By `names`, paths below one folder with `/` between folders. A class is the outermost folder that directly holds
    /// pictures, with all that is below it; its name is the path below the split. Folders at the top that are named like
    /// splits are splits where nothing lies beside them; a single folder around everything is looked through. A class of
    /// one name in several splits is one class.
    pub fn of(names: &[&str]) -> Places {
        let folders: Vec<&str> =
            names.iter().map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
        let prefix = around(&folders);
        let below: Vec<&str> =
            folders.iter().map(|folder| folder[prefix.min(folder.len())..].trim_start_matches('/')).collect();
        let tops: BTreeSet<&str> = below.iter().map(|folder| top(folder).0).collect();
        let has_splits = !tops.is_empty() && tops.iter().all(|top| Split::from_name(top).is_some());
        let of_split = |folder: &str| if has_splits { Split::from_name(top(folder).0) } else { None };
        let inner: Vec<&str> = below.iter().map(|folder| if has_splits { top(folder).1 } else { folder }).collect();
        let holding: HashSet<(Option<Split>, &str)> =
            below.iter().zip(&inner).map(|(folder, inner)| (of_split(folder), *inner)).collect();
        let class_of = |split: Option<Split>, folder: &str| -> Option<String> {
            let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
            let mut outer = ends.map(|end| &folder[..end]).filter(|outer| !outer.is_empty());
            outer.find(|outer| holding.contains(&(split, *outer))).map(str::to_owned)
        };
        let named: Vec<Option<String>> =
            below.iter().zip(&inner).map(|(folder, inner)| class_of(of_split(folder), inner)).collect();
        let split = below.iter().map(|folder| of_split(folder)).collect();
        Places::named(&named, split)
    }

    /// Those of `n` pictures of which nothing is known.
    pub fn none(n: usize) -> Places {
        Places { classes: Vec::new(), class: vec![None; n], split: vec![None; n] }
    }

    /// With the classes that are said of pictures otherwise, in the same order; those of the others stay.
    pub fn with_classes(self, said: &[Option<String>]) -> Places {
        let own = |class: &Option<u32>| class.and_then(|class| self.classes.get(class as usize)).cloned();
        let said = said.iter().map(Option::as_ref).chain(std::iter::repeat(None));
        let named: Vec<Option<String>> =
            self.class.iter().zip(said).map(|(class, said)| said.cloned().or_else(|| own(class))).collect();
        Places::named(&named, self.split)
    }

    /// With the class of each picture by its name.
    fn named(named: &[Option<String>], split: Vec<Option<Split>>) -> Places {
        let classes: BTreeSet<String> = named.iter().flatten().cloned().collect();
        let ranks: BTreeMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        Places {
            class: named.iter().map(|name| name.as_deref().and_then(|name| ranks.get(name).copied())).collect(),
            split,
            classes: classes.into_iter().collect(),
        }
    }
}

/// The first folder of a path, and the rest.
fn top(folder: &str) -> (&str, &str) {
    folder.split_once('/').unwrap_or((folder, ""))
}

/// Length of the folders around everything, of which at least one folder is left that tells pictures apart.
fn around(folders: &[&str]) -> usize {
    let Some((first, rest)) = folders.split_first() else { return 0 };
    let same = rest.iter().fold(first.len(), |same, folder| {
        first.bytes().zip(folder.bytes()).take(same).take_while(|(a, b)| a == b).count()
    });
    // Whole folders only; where all pictures lie in one folder, that is their class if anything is.
    let whole = |end: usize| folders.iter().all(|folder| folder.as_bytes().get(end) == Some(&b'/'));
    (0..=same).rev().find(|&end| end == 0 || whole(end)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_classes_and_splits() {
        let say = |names: &[&str]| -> String {
            let places = Places::of(names);
            let one = |i: usize| {
                let class = places.class[i].map_or("-", |class| places.classes[class as usize].as_str());
                places.split[i].map_or(class.to_owned(), |split| format!("{split}:{class}"))
            };
            (0..names.len()).map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(say(&["a.png", "b.png"]), "- -");
        assert_eq!(say(&["cat/1.png", "dog/1.png", "x.png"]), "cat dog -");
        assert_eq!(say(&["all/cat/1.png", "all/dog/1.png"]), "cat dog");
        assert_eq!(say(&["cat/1.png", "cat/young/2.png", "dog/old/3.png"]), "cat cat dog/old");
        assert_eq!(say(&["train/cat/1.png", "val/cat/2.png", "test/dog/3.png"]), "train:cat val:cat novel:dog");
        assert_eq!(say(&["set/train/a/x/1.png", "set/novel/b/y/1.png"]), "train:a/x novel:b/y");
        // One folder alone is a class, and a class may be named like a split.
        assert_eq!(say(&["cat/1.png", "cat/2.png"]), "cat cat");
        assert_eq!(say(&["train/1.png", "cat/2.png"]), "train cat");
        assert_eq!(say(&["train/1.png", "train/2.png"]), "train:- train:-");
        assert_eq!(say(&[]), "");
    }

    #[test]
    fn classes_that_are_said_go_before_folders() {
        let said = |name: &str| Some(name.to_owned());
        let places = Places::of(&["1.png", "2.png", "cat/3.png", "dog/4.png"]);
        let places = places.with_classes(&[said("x/y"), None, said("ant"), None]);
        assert_eq!(places.classes, ["ant", "dog", "x/y"]);
        assert_eq!(places.class, [Some(2), None, Some(0), Some(1)]);
    }
}
