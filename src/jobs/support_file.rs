//! A support with the network that embedded it, as one file: a checkpoint with the support's rows besides.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::train::checkpoint::{Checkpoint, TRAINING_PREFIX, Tensor, TensorData};
use crate::{Error, Result};

/// The rows, `[pictures, columns]`, and the class of each.
const FEATURES: &str = "support.features";
const LABELS: &str = "support.labels";
/// Metadata key of the names, as JSON.
const NAMES_KEY: &str = "support";

#[derive(Serialize, Deserialize)]
struct Names {
    classes: Vec<String>,
    pictures: Vec<String>,
    /// As hexadecimal digits: JSON numbers hold less.
    pixels: Vec<String>,
}

/// Embedded pictures with their classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labelled {
    /// Numbers per row.
    pub columns: usize,
    /// `[pictures, columns]`.
    pub features: Vec<f32>,
    /// The class of each picture, in `0..classes.len()`.
    pub labels: Vec<u32>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Paths of the pictures.
    pub pictures: Vec<String>,
    /// A hash of the pixels of each picture as the network saw them, by which it is known when it is seen again.
    pub pixels: Vec<u128>,
}

impl Labelled {
    /// Adds a picture; its class is new where there is none of this name. False for one that the class has already: it
    /// would count twice, and be its own support.
    pub(super) fn push(&mut self, class: &str, picture: String, pixels: u128, features: &[f32]) -> bool {
        let label = match self.classes.iter().position(|own| own == class) {
            Some(label) => label,
            None => {
                self.classes.push(class.to_owned());
                self.classes.len() - 1
            }
        };
        let label = label as u32;
        if self.pixels.iter().zip(&self.labels).any(|own| own == (&pixels, &label)) {
            return false;
        }
        self.labels.push(label);
        self.pictures.push(picture);
        self.pixels.push(pixels);
        self.features.extend_from_slice(features);
        true
    }

    /// Takes the support out of a checkpoint, so that a network is left.
    ///
    /// # Errors
    /// [`Error::Data`] when its parts do not fit together.
    pub(super) fn take(file: &Path, checkpoint: &mut Checkpoint) -> Result<Option<Labelled>> {
        let Some(text) = checkpoint.metadata.remove(NAMES_KEY) else { return Ok(None) };
        let broken = |why: &str| Error::data(file, format!("its support cannot be used ({why}): save it again"));
        let names: Names = serde_json::from_str(&text).map_err(|e| broken(&e.to_string()))?;
        let (features, labels) = (checkpoint.tensors.remove(FEATURES), checkpoint.tensors.remove(LABELS));
        let (
            Some(Tensor { shape, data: TensorData::F32(features) }),
            Some(Tensor { data: TensorData::I64(labels), .. }),
        ) = (features, labels)
        else {
            return Err(broken("it has no rows or no labels"));
        };
        let &[rows, columns] = shape.as_slice() else { return Err(broken("its rows are no matrix")) };
        let pixels: Option<Vec<u128>> =
            names.pixels.iter().map(|digits| u128::from_str_radix(digits, 16).ok()).collect();
        let pixels = pixels.ok_or_else(|| broken("a hash of its pixels is none"))?;
        let counts = [labels.len(), names.pictures.len(), pixels.len()];
        if counts.iter().any(|&count| count != rows) || columns == 0 || rows == 0 {
            return Err(broken("rows, labels and names differ in number"));
        }
        let of = |label: &i64| u32::try_from(*label).ok().filter(|&label| (label as usize) < names.classes.len());
        let labels: Option<Vec<u32>> = labels.iter().map(of).collect();
        let labels = labels.ok_or_else(|| broken("a label has no class"))?;
        Ok(Some(Labelled { columns, features, labels, classes: names.classes, pictures: names.pictures, pixels }))
    }

    /// The network of `checkpoint`, without what only its training needs, and this support.
    ///
    /// # Errors
    /// [`Error::Internal`] when the names cannot be written.
    pub(super) fn with_network(&self, checkpoint: &Checkpoint) -> Result<Checkpoint> {
        let mut file = checkpoint.clone();
        file.tensors.retain(|name, _| !name.starts_with(TRAINING_PREFIX));
        let labels = self.labels.iter().map(|&label| i64::from(label)).collect();
        file.tensors.insert(FEATURES.into(), Tensor::f32([self.labels.len(), self.columns], self.features.clone()));
        file.tensors.insert(LABELS.into(), Tensor::i64([self.labels.len()], labels));
        let pixels = self.pixels.iter().map(|hash| format!("{hash:032x}")).collect();
        let names = Names { classes: self.classes.clone(), pictures: self.pictures.clone(), pixels };
        let names = serde_json::to_string(&names).map_err(|e| Error::Internal(e.to_string()))?;
        file.metadata.insert(NAMES_KEY.into(), names);
        Ok(file)
    }
}

/// Whether a file is one that may be replaced by another support.
pub(super) fn is_support(file: &Path) -> bool {
    Checkpoint::load(file).is_ok_and(|checkpoint| checkpoint.metadata.contains_key(NAMES_KEY))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_support_comes_back_whole_or_is_refused() {
        let mut support = Labelled { columns: 2, ..Labelled::default() };
        support.push("b", "x/b/1.png".into(), 1, &[1.0, 2.0]);
        support.push("a", "x/a/1.png".into(), 2, &[3.0, 4.0]);
        assert!(support.push("b", "x/b/2.png".into(), u128::MAX, &[5.0, 6.0]));
        assert!(!support.push("b", "x/b/copy.png".into(), 1, &[1.0, 2.0]) && support.labels.len() == 3);
        assert_eq!((support.labels.as_slice(), support.classes.len()), (&[0, 1, 0][..], 2));
        let mut network = Checkpoint::default();
        network.tensors.insert("layer1.weight".into(), Tensor::f32([1], vec![1.0]));
        network.tensors.insert("train.bank".into(), Tensor::f32([1], vec![1.0]));
        let saved = support.with_network(&network).unwrap();
        let file = Path::new("support.safetensors");
        let mut read = Checkpoint::from_bytes(file, &saved.to_bytes().unwrap()).unwrap();
        assert_eq!(Labelled::take(file, &mut read).unwrap().unwrap(), support);
        assert_eq!((read.tensors.len(), read.metadata.len()), (1, 0));
        assert!(Labelled::take(file, &mut read).unwrap().is_none());
        for break_it in [
            (|c| drop(c.tensors.remove(LABELS))) as fn(&mut Checkpoint),
            |c| drop(c.tensors.insert(LABELS.into(), Tensor::i64([3], vec![0, 2, 0]))),
            |c| drop(c.tensors.insert(LABELS.into(), Tensor::i64([3], vec![0, -1, 0]))),
            |c| drop(c.tensors.insert(LABELS.into(), Tensor::i64([2], vec![0, 1]))),
            |c| drop(c.tensors.insert(FEATURES.into(), Tensor::f32([6], vec![0.0; 6]))),
            |c| drop(c.metadata.insert(NAMES_KEY.into(), "{}".into())),
        ] {
            let mut broken = saved.clone();
            break_it(&mut broken);
            assert!(Labelled::take(file, &mut broken).unwrap_err().to_string().contains("save it again"));
        }
    }
}
