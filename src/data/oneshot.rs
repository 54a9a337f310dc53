//! Omniglot's published 20-way one-shot runs: `run01/training/*.png`, `run01/test/*.png` and
//! `run01/class_labels.txt`, whose lines name a test image and the training image of its class.

use std::collections::HashMap;
use std::path::Path;

use super::listing::{self, Listing};
use super::{DataOptions, ImageSet, archive, braces, decode};
use crate::{Error, Result};

/// One run: which training image shows the same character as each test image?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneShotRun {
    /// Name of the run's folder, e.g. `run01`.
    pub name: String,
    /// One image per class; image `i` has label `i`.
    pub train: ImageSet,
    /// The images to be classified, labelled with the answer.
    pub test: ImageSet,
    /// For each test image the index of its training image.
    pub answer: Vec<u32>,
}

/// Reads the one-shot runs anywhere in a folder, zip or tar, in order of their names; `None` when `source`
/// holds none.
pub fn read_oneshot_runs(source: &str, options: &DataOptions) -> Result<Option<Vec<OneShotRun>>> {
    super::options::check_side(options)?;
    let path = Path::new(source);
    if source == "glyphs" || (braces::is_pattern(source) && !path.exists()) {
        return Ok(None);
    }
    let Some(listing) = archive::open(path, 1)? else { return Ok(None) };
    let mut runs = Vec::new();
    for (file, name) in listing.files().iter().enumerate() {
        let Some(folder) = name.strip_suffix("/class_labels.txt") else { continue };
        let run = folder.rsplit('/').next().unwrap_or(folder);
        if run
            .strip_prefix("run")
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        {
            runs.push(read_run(listing.as_ref(), file, folder, run, options)?);
        }
    }
    Ok((!runs.is_empty()).then_some(runs))
}

fn read_run(
    listing: &dyn Listing,
    labels: usize,
    folder: &str,
    run: &str,
    options: &DataOptions,
) -> Result<OneShotRun> {
    let location = listing.locate(labels);
    let images = |part: &str| -> Result<Vec<usize>> {
        let prefix = format!("{folder}/{part}/");
        let found: Vec<usize> = (0..listing.files().len())
            .filter(|&i| listing.files()[i].starts_with(&prefix) && listing::is_image_name(&listing.files()[i]))
            .collect();
        if found.is_empty() {
            return Err(Error::data(&location, format!("has no images in {part}/ beside it; restore the folder")));
        }
        Ok(found)
    };
    let (train, test) = (images("training")?, images("test")?);

    let text = super::text::decode(&location, &listing.read(labels)?)?;
    // Names are relative to the folder above the run.
    let above = folder.strip_suffix(run).unwrap_or_default();
    let position = |files: &[usize]| -> HashMap<&str, u32> {
        files.iter().enumerate().map(|(i, &file)| (&listing.files()[file][above.len()..], i as u32)).collect()
    };
    let (train_at, test_at) = (position(&train), position(&test));
    let mut answer = vec![None; test.len()];
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let item = words.next().and_then(|name| test_at.get(name));
        let class = words.next().and_then(|name| train_at.get(name));
        let (Some(&item), Some(&class), None) = (item, class, words.next()) else {
            return Err(Error::data(
                &location,
                format!(
                    "line {} does not name a test and a training image that are there: {:?}; restore the file",
                    i + 1,
                    line
                ),
            ));
        };
        answer[item as usize] = Some(class);
    }
    let answer = answer.iter().enumerate().map(|(i, answer)| {
        answer.ok_or_else(|| {
            Error::data(&location, format!("has no line for {}; restore the file", listing.files()[test[i]]))
        })
    });
    let answer = answer.collect::<Result<Vec<u32>>>()?;

    let class_names: Vec<String> = train.iter().map(|&file| listing.files()[file][above.len()..].to_string()).collect();
    let read = |files: &[usize], labels: Vec<u32>| -> Result<ImageSet> {
        let items: Vec<(&dyn Listing, usize)> = files.iter().map(|&file| (listing, file)).collect();
        let (side, pixels) = decode::decode_all(&items, options)?;
        let names = files.iter().map(|&file| listing.files()[file].clone()).collect();
        ImageSet::new(side, pixels, labels, class_names.clone(), names)
    };
    let train_labels = (0..train.len() as u32).collect();
    Ok(OneShotRun {
        name: run.to_string(),
        train: read(&train, train_labels)?,
        test: read(&test, answer.clone())?,
        answer,
    })
}
