//! Which arrays of a file are images, and which their labels: by their names.

use super::arrays::Pixels;
use super::labels::Label;
use super::split::{Split, split_word, words};

/// The names of images and of their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys<'k> {
    pub(super) split: Option<Split>,
    pub(super) images: &'k str,
    pub(super) labels: Option<&'k str>,
}

const IMAGES: [&str; 8] = ["images", "image", "data", "x", "imgs", "img", "pixels", "inputs"];
const LABELS: [&str; 7] = ["labels", "label", "y", "targets", "target", "classes", "class"];
/// Words beside a word for labels, from the best to the worst: a class, and what several classes have in common.
const QUALIFIERS: [&str; 9] = ["", "class", "image", "data", "fine", "specific", "coarse", "general", "super"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Images(usize),
    Labels(usize),
}

/// The split in a name, and what the name says that the array is, the best first.
fn role(key: &str) -> Option<(Option<Split>, Role)> {
    let mut split = None;
    let mut rest = Vec::new();
    for word in words(key) {
        match split_word(&word) {
            Some(own) => split = Some(own),
            None => rest.push(word),
        }
    }
    let position = |list: &[&str], word: &String| list.iter().position(|known| known == word);
    if let Some(at) = rest.iter().rposition(|word| LABELS.contains(&word.as_str())) {
        rest.remove(at);
        let worst = rest.iter().map(|word| position(&QUALIFIERS, word)).try_fold(0, |worst, at| Some(worst.max(at?)));
        return worst.map(|worst| (split, Role::Labels(worst)));
    }
    let best = rest.iter().map(|word| position(&IMAGES, word)).try_fold(usize::MAX, |best, at| Some(best.min(at?)));
    best.filter(|&best| best != usize::MAX).map(|best| (split, Role::Images(best)))
}

/// Whether a name is that of images.
pub(super) fn is_images(key: &str) -> bool {
    matches!(role(key), Some((_, Role::Images(_))))
}

/// The images among `keys`, of each split the best name, with their labels.
pub(super) fn of_keys<'k>(keys: &[&'k str]) -> Vec<Keys<'k>> {
    let mut roles: Vec<(Option<Split>, Role, &'k str)> =
        keys.iter().filter_map(|&key| role(key).map(|(split, role)| (split, role, key))).collect();
    roles.sort();
    let mut found: Vec<Keys<'k>> = Vec::new();
    for &(split, role, images) in &roles {
        if matches!(role, Role::Images(_)) && found.iter().all(|keys| keys.split != split) {
            let labels = roles.iter().find(|(own, role, _)| *own == split && matches!(role, Role::Labels(_)));
            found.push(Keys { split, images, labels: labels.map(|&(.., key)| key) });
        }
    }
    // Arrays without a split beside those with one are something else.
    if found.iter().any(|keys| keys.split.is_some() && keys.labels.is_some()) {
        found.retain(|keys| keys.split.is_some());
    }
    found
}

/// The best name of labels.
pub(super) fn labels_key<'k>(keys: &[&'k str]) -> Option<&'k str> {
    let labels = keys.iter().filter_map(|&key| match role(key) {
        Some((_, Role::Labels(rank))) => Some((rank, key)),
        _ => None,
    });
    labels.min().map(|(_, key)| key)
}

/// Labels of images that lie class by class, `each` of one.
pub(super) fn by_position(pixels: &Pixels, each: usize) -> Vec<Label> {
    (0..pixels.len()).map(|i| Label::Number((i / each.max(1)) as i64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_arrays() {
        let find = |keys: &[&'static str]| {
            of_keys(keys).iter().map(|k| format!("{:?} {} {:?}", k.split, k.images, k.labels)).collect::<Vec<_>>()
        };
        assert_eq!(find(&["labels", "data", "catname2label"]), ["None data Some(\"labels\")"]);
        assert_eq!(find(&["image_data", "class_dict"]), ["None image_data None"]);
        assert_eq!(
            find(&["batch_label", "coarse_labels", "data", "filenames", "fine_labels"]),
            ["None data Some(\"fine_labels\")"]
        );
        assert_eq!(
            find(&["test_images", "test_labels", "train_images", "train_labels"]),
            ["Some(Train) train_images Some(\"train_labels\")", "Some(Novel) test_images Some(\"test_labels\")"]
        );
        assert_eq!(find(&["x_train", "y_train"]), ["Some(Train) x_train Some(\"y_train\")"]);
        assert_eq!(labels_key(&["label_general", "label_specific", "label_specific_str"]), Some("label_specific"));
        assert!(is_images("X_test") && !is_images("test_labels") && !is_images("embeddings_test"));
    }
}
