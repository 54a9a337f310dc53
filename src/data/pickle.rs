//! The pickles of CIFAR-FS, FC100 and miniImageNet: a dict with `data` (uint8, N x S x S x 3) and
//! `labels` (integers, not contiguous), written by Python 2 or 3.

use std::path::Path;

use super::arrays::{self, Choice, ImageArray};
use super::unpickle::Pickle;
use super::{DataOptions, ImageSet};
use crate::{Error, Result};

/// Reads the images and labels of `path`.
pub(super) fn load(path: &Path, choice: &Choice, options: &DataOptions) -> Result<ImageSet> {
    let bytes = read(path)?;
    let pickle = Pickle::parse(path, &bytes)?;
    let Some(data) = pickle.array("data")? else { return Err(missing(path, "data", &pickle)) };
    let Some(labels) = pickle.integers("labels")? else { return Err(missing(path, "labels", &pickle)) };
    if data.code != "u1" {
        return Err(Error::data(path, format!("holds images of type {}; save them as uint8 (u1)", data.code)));
    }
    let array = ImageArray::of_shape(path, &data.shape)?;
    arrays::read(path, array, &labels, choice, &mut &*data.bytes, options)
}

/// Reads only the labels of `path`: the half of tieredImageNet that is a pickle.
pub(super) fn labels(path: &Path) -> Result<Vec<i64>> {
    let bytes = read(path)?;
    let pickle = Pickle::parse(path, &bytes)?;
    pickle.integers("labels")?.ok_or_else(|| missing(path, "labels", &pickle))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::io(path, "cannot read the pickle", source))
}

fn missing(path: &Path, key: &str, pickle: &Pickle) -> Error {
    let keys: Vec<String> = pickle.keys().into_iter().take(8).collect();
    Error::data(path, format!("has no key {key:?} (it has {keys:?}); a data set has the keys data and labels"))
}
