//! How a data set is read.

use std::path::PathBuf;

use super::square::fitted_side;
use crate::{Error, Result};

/// The largest side an image may be resized to.
const MAX_SIDE: usize = 4096;

/// How to read a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataOptions {
    /// Side of the square images in pixels; `None`: the images' own size, which must then be square
    /// and equal (for `glyphs`: [`super::GLYPH_SIDE`]). An image that already has it is kept bit for bit, of any other the
    /// centre square is resized.
    pub side: Option<usize>,
    /// Where there is no side: it follows from the pictures' own sizes, [`fitted_side`] with at most this many pixels.
    pub side_most: Option<usize>,
    /// Seed of the class split where the data has none of its own, and of the embedded glyphs.
    pub split_seed: u64,
    /// A JSON file `{"train": [class names], "val": [..], "novel": [..]}`, or one of a group of CSV
    /// files `train.csv`, `val.csv`, `test.csv` with the columns `filename,label`, that decides the
    /// split instead of folder names or the seed.
    pub split_file: Option<PathBuf>,
}

impl DataOptions {
    /// The side of pictures whose shorter side is `shorter` pixels; none where they keep their own.
    pub(super) fn side_for(&self, shorter: usize) -> Option<usize> {
        self.side.or_else(|| self.side_most.map(|most| fitted_side(shorter, most)))
    }
}

pub(super) fn check_side(options: &DataOptions) -> Result<()> {
    match options.side {
        Some(side) if side == 0 || side > MAX_SIDE => Err(Error::Setting {
            key: "data.side",
            got: side.to_string(),
            wanted: format!("an image side in 1..={MAX_SIDE} (try 84)"),
            suggestion: Vec::new(),
        }),
        _ => Ok(()),
    }
}
