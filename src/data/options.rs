//! How a data set is read.

use std::path::PathBuf;

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

/// Sides that a network of four or five blocks halves with little waste.
const SIDES: [usize; 10] = [16, 20, 24, 28, 32, 40, 48, 56, 64, 84];

/// The side for pictures whose shorter side is `shorter` pixels, in the middle of the set: the largest usual one that
/// enlarges nothing, from 16 (four blocks leave one pixel of it) to `most`.
pub fn fitted_side(shorter: usize, most: usize) -> usize {
    let fits = |side: &&usize| **side <= shorter && **side <= most;
    SIDES.iter().rev().find(fits).copied().unwrap_or(SIDES[0])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_enlarges_little_and_has_a_limit() {
        for (shorter, most, side) in [
            (5, 32, 16),
            (16, 32, 16),
            (28, 32, 28),
            (32, 32, 32),
            (105, 32, 32),
            (36, 84, 32),
            (84, 84, 84),
            (3000, 64, 64),
            (3000, 84, 84),
            (usize::MAX, 1, 16),
        ] {
            assert_eq!(fitted_side(shorter, most), side, "{shorter}, {most}");
        }
    }
}
