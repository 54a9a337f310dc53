//! What folders around images mean, by their names alone: the folder around everything, splits, classes.
//!
//! A class is the outermost folder that directly holds images, with all that is below it; its name is the path below the
//! split, so Omniglot's `alphabet/character` works.

use std::collections::{BTreeSet, HashSet};

use super::split::Split;

/// Length of the folders (with their slashes) that hold everything and are neither split nor class.
pub(super) fn common_folder<'a>(names: impl Iterator<Item = &'a str> + Clone) -> usize {
    let mut prefix = 0;
    loop {
        let mut inner = names.clone().map(|name| &name[prefix..]);
        let Some((top, _)) = inner.next().and_then(|name| name.split_once('/')) else { return prefix };
        let below = |name: &'a str| name[prefix..].strip_prefix(top)?.strip_prefix('/');
        let around = names.clone().all(|name| below(name).is_some_and(|rest| rest.contains('/')));
        // A folder `test` around train/, val/ and test/ is no split.
        let splits_below = || {
            let mut found = BTreeSet::new();
            let all = names.clone().all(|name| {
                let rest = below(name).unwrap_or_default();
                let split = rest.split_once('/').and_then(|(top, _)| Split::from_name(top));
                found.extend(split);
                split.is_some() && rest.split('/').count() >= 3
            });
            all && found.len() >= 2
        };
        if !around || (Split::from_name(top).is_some() && !splits_below()) {
            return prefix;
        }
        prefix += top.len() + 1;
    }
}

/// The folders that directly hold images, of their names below the folder around everything.
pub(super) fn holding<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    names.filter_map(|name| Some(name.rsplit_once('/')?.0)).collect()
}

/// The class of the image `name`: the outermost folder above it of those that directly hold images, below its split.
pub(super) fn class_folder<'a>(name: &'a str, holding: &HashSet<&str>, has_splits: bool) -> &'a str {
    let ends = name.match_indices('/').map(|(end, _)| &name[..end]);
    let folder = ends.into_iter().find(|folder| holding.contains(folder)).unwrap_or_default();
    if has_splits { folder.split_once('/').map_or("", |(_, class)| class) } else { folder }
}

/// For each of the names of images, with `/` between folders, the class that its folders say, as `train --data` reads a
/// folder of them; none for one that lies outside the class folders. Where a folder is refused there, as it mixes classes and
/// splits, it has classes here.
pub fn folder_classes(names: &[&str]) -> Vec<Option<String>> {
    let prefix = common_folder(names.iter().copied());
    let names: Vec<&str> = names.iter().map(|name| &name[prefix..]).collect();
    let is_split = |name: &str| {
        let folders: Vec<&str> = name.split('/').collect();
        folders.len() >= 3 && Split::from_name(folders[0]).is_some()
    };
    let inside: Vec<&str> = names.iter().copied().filter(|name| name.contains('/')).collect();
    let has_splits = !inside.is_empty() && inside.iter().all(|name| is_split(name));
    let holding = holding(names.iter().copied());
    let class = |name| class_folder(name, &holding, has_splits);
    names.into_iter().map(class).map(|class| Some(class.to_owned()).filter(|class| !class.is_empty())).collect()
}

#[cfg(test)]
mod tests {
    use super::folder_classes;

    fn classes(names: &[&str]) -> Vec<String> {
        folder_classes(names).into_iter().map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn folders_say_classes_as_a_data_folder_does() {
        // A folder around everything is none, one alone is a class.
        assert_eq!(classes(&["all/cats/1.png", "all/dogs/2.png"]), ["cats", "dogs"]);
        assert_eq!(classes(&["cats/1.png", "cats/2.png"]), ["cats", "cats"]);
        assert_eq!(classes(&["x/cats/1.png"]), ["cats"]);
        // Classes lie at any depth, and are told apart by the case of their letters.
        assert_eq!(
            classes(&["o/Greek/a/1.png", "o/Greek/A/1.png", "o/Latin/a/1.png"]),
            ["Greek/a", "Greek/A", "Latin/a"]
        );
        // What lies below a class is its own.
        assert_eq!(classes(&["a/cats/1.png", "a/cats/more/2.png", "a/dogs/3.png"]), ["cats", "cats", "dogs"]);
        // Splits are none.
        assert_eq!(classes(&["d/train/cats/1.png", "d/test/dogs/2.png"]), ["cats", "dogs"]);
        assert_eq!(classes(&["train/1.png", "dogs/2.png"]), ["train", "dogs"]);
        assert_eq!(classes(&["1.png", "dogs/2.png"]), ["", "dogs"]);
        assert_eq!(folder_classes(&[]), Vec::<Option<String>>::new());
    }
}
