//! Pictures that cannot be read among many that can.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::DataOptions;
use super::decode::{decode_one, reserve};
use super::listing::Listing;
use super::square::words;
use crate::{Error, Result};

/// A file that is not in the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

impl LeftOut {
    /// The file that `error` is about.
    ///
    /// # Errors
    /// The error itself where it is about no file.
    pub fn of(error: Error) -> Result<LeftOut> {
        match error {
            Error::Data { path, message } => Ok(LeftOut { path, why: message }),
            Error::Io { path, what, source } => Ok(LeftOut { path, why: format!("{what}: {source}") }),
            other => Err(other),
        }
    }
}

/// What could be decoded, and what could not.
pub(super) struct Decoded<'a> {
    pub side: usize,
    /// As [`super::ImageSet::pixels`].
    pub pixels: Vec<u32>,
    pub items: Vec<(&'a dyn Listing, usize)>,
    pub left_out: Vec<LeftOut>,
}

/// Decodes one file of each pair in order, on all cores, and leaves out those that it refuses.
/// Where no side is set the first image decides.
pub(super) fn decode_readable<'a>(items: &[(&'a dyn Listing, usize)], options: &DataOptions) -> Result<Decoded<'a>> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = items.len().div_ceil(workers).max(1);
    let decode_share = |items: &[(&dyn Listing, usize)]| -> Vec<Result<(usize, Vec<u32>)>> {
        let decode = |&(listing, file): &(&dyn Listing, usize)| {
            decode_one(listing, file, options).map(|image| (image.width() as usize, words(&image).collect()))
        };
        items.iter().map(decode).collect()
    };
    let pixels = match (items.first(), options.side) {
        (Some((listing, _)), Some(side)) => reserve(listing.origin(), items.len(), side)?,
        _ => Vec::new(),
    };
    let results = std::thread::scope(|scope| {
        let running: Vec<_> = items.chunks(share).map(|items| scope.spawn(move || decode_share(items))).collect();
        let joined = running.into_iter().map(|worker| worker.join());
        joined.collect::<std::thread::Result<Vec<_>>>()
    });
    let results = results.map_err(|_| Error::Internal("an image decoder panicked".into()))?;
    let mut decoded = Decoded { side: options.side.unwrap_or(0), pixels, items: Vec::new(), left_out: Vec::new() };
    for (&(listing, file), result) in items.iter().zip(results.into_iter().flatten()) {
        match result {
            Ok((side, pixels)) if decoded.items.is_empty() || side == decoded.side => {
                decoded.side = side;
                decoded.pixels.extend(pixels);
                decoded.items.push((listing, file));
            }
            Ok((side, _)) => decoded.left_out.push(LeftOut {
                path: listing.locate(file),
                why: format!(
                    "is {side} x {side} but the first image is {0} x {0}; set the side to resize all",
                    decoded.side
                ),
            }),
            Err(error) => decoded.left_out.push(LeftOut::of(error)?),
        }
    }
    Ok(decoded)
}
