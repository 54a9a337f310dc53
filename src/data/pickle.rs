//! Data sets in pickles, written by Python 2 or 3: a dict with images (uint8, N x S x S x 3) under `data`, `images`,
//! `image_data` or `x`, and labels under `labels`, `y`, `fine_labels`, or as `class_dict`, from a class's name to its
//! images; a pair (images, labels); or a list of encoded image files beside a pickle of labels.

use std::borrow::Cow;
use std::path::Path;

use super::arrays::{ImageArray, Part, Pixels, Stream};
use super::labels::Label;
use super::parts::{self, Keys};
use super::unpickle::{Id, Pickle};
use crate::{Error, Result};

/// The images and labels of a parsed pickle at `path`; the labels `beside` it where there are some.
pub(super) fn parts<'p>(path: &Path, pickle: &'p Pickle<'_>, beside: Option<Vec<Label>>) -> Result<Vec<Part<'p>>> {
    let part = |split, images: (&str, Id), labels: Option<(&str, Id)>| -> Result<Part<'p>> {
        let (pixels, per_class) = pixels(path, pickle, images.0, images.1)?;
        let labels = match (&beside, labels, per_class) {
            (Some(labels), ..) => labels.clone(),
            (None, Some((key, id)), _) => pickle.labels(key, id)?,
            (None, None, Some(each)) => parts::by_position(&pixels, each),
            (None, None, None) => return Err(missing(path, "labels", pickle)),
        };
        Ok(Part { path: path.to_path_buf(), split, pixels, labels })
    };
    let Some(dict) = pickle.dict(pickle.root()) else {
        return match pickle.items(pickle.root()) {
            Some(&[images, labels]) if pickle.array("images", images).is_ok() => {
                Ok(vec![part(None, ("images", images), Some(("labels", labels)))?])
            }
            // A list of image files.
            Some(items) if beside.is_some() && !items.is_empty() => {
                Ok(vec![part(None, ("images", pickle.root()), None)?])
            }
            _ => {
                Err(Error::data(path, format!("holds {}, not a dict of arrays and labels", pickle.kind(pickle.root()))))
            }
        };
    };
    let keys: Vec<&str> = dict.keys().map(String::as_str).collect();
    let found = parts::of_keys(&keys);
    if found.is_empty() {
        return Err(missing(path, "data", pickle));
    }
    let mut all = Vec::new();
    for Keys { split, images, labels } in found {
        match (labels, dict.get("class_dict")) {
            (None, Some(&classes)) if beside.is_none() => {
                let (pixels, _) = pixels(path, pickle, images, dict[images])?;
                let labels = by_class(path, pickle, classes, pixels.len())?;
                all.push(Part { path: path.to_path_buf(), split, pixels, labels });
            }
            (labels, _) => all.push(part(split, (images, dict[images]), labels.map(|key| (key, dict[key])))?),
        }
    }
    Ok(all)
}

fn pixels<'p>(path: &Path, pickle: &'p Pickle<'_>, key: &str, id: Id) -> Result<(Pixels<'p>, Option<usize>)> {
    if let Some(items) = pickle.items(id) {
        let files: Option<Vec<Cow<'p, [u8]>>> = items.iter().map(|&item| pickle.bytes(item)).collect();
        let files = files.filter(|files| files.iter().all(|file| image::guess_format(file).is_ok()));
        return match files {
            Some(files) => Ok((Pixels::Files(files), None)),
            None => Err(Error::data(
                path,
                format!("{key:?} is {}, not one array of numbers; save numpy.stack(..) of the images", pickle.kind(id)),
            )),
        };
    }
    let array = pickle.array(key, id)?;
    let layout = ImageArray::of(path, &array.shape, &array.code, array.big_endian)?;
    let content = Box::new(Stream(std::io::Cursor::new(array.bytes)));
    Ok((Pixels::Array(layout, content), layout.per_class))
}

/// Labels from a dict of class names to positions.
fn by_class(path: &Path, pickle: &Pickle, classes: Id, n: usize) -> Result<Vec<Label>> {
    let wrong = |why: String| Error::data(path, format!("class_dict {why}; each image belongs to one class"));
    let dict = pickle
        .dict(classes)
        .ok_or_else(|| wrong(format!("is {}, not a dict of class names to positions", pickle.kind(classes))))?;
    let mut labels = vec![None; n];
    for (class, positions) in &dict {
        for position in pickle.labels("class_dict", *positions)? {
            let Label::Number(at) = position else { return Err(wrong(format!("has the position {position}"))) };
            let slot = usize::try_from(at).ok().and_then(|at| labels.get_mut(at));
            let slot = slot.ok_or_else(|| wrong(format!("puts image {at} of {n} into {class}")))?;
            if slot.replace(Label::Name(class.clone())).is_some() {
                return Err(wrong(format!("has image {at} twice")));
            }
        }
    }
    let missing = labels.iter().position(Option::is_none);
    labels
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| wrong(format!("has no class for image {}", missing.unwrap_or_default())))
}

/// Reads only the labels of `path`: the half of tieredImageNet that is a pickle.
pub(super) fn labels(path: &Path) -> Result<Vec<Label>> {
    let bytes = super::kind::read_unpacked(path, "pickle")?;
    let pickle = Pickle::parse(path, &bytes)?;
    let Some(dict) = pickle.dict(pickle.root()) else { return pickle.labels("labels", pickle.root()) };
    let keys: Vec<&str> = dict.keys().map(String::as_str).collect();
    let key = parts::labels_key(&keys).ok_or_else(|| missing(path, "labels", &pickle))?;
    pickle.labels(key, dict[key])
}

fn missing(path: &Path, key: &str, pickle: &Pickle) -> Error {
    let keys: Vec<String> = pickle.dict(pickle.root()).unwrap_or_default().into_keys().take(8).collect();
    Error::data(path, format!("has no key {key:?} (it has {keys:?}); a data set has the keys data and labels"))
}
