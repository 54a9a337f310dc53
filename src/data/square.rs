//! Pictures to square RGBA words: the side that suits them, and the middle resized to it.

use std::path::Path;

use image::RgbImage;
use image::imageops::{self, FilterType};

use crate::{Error, Result};

/// One RGBA8 word.
pub(super) fn word(r: u8, g: u8, b: u8) -> u32 {
    u32::from_le_bytes([r, g, b, 255])
}

/// The pixels as RGBA8 words.
pub(super) fn words(image: &RgbImage) -> impl Iterator<Item = u32> {
    image.pixels().map(|rgb| word(rgb[0], rgb[1], rgb[2]))
}

/// Sides that a network of four or five blocks halves with little waste.
const SIDES: [usize; 10] = [16, 20, 24, 28, 32, 40, 48, 56, 64, 84];

/// The side for pictures whose shorter side is `shorter` pixels, in the middle of the set: the largest usual one that
/// enlarges nothing, from 16 (four blocks leave one pixel of it) to `most`.
pub fn fitted_side(shorter: usize, most: usize) -> usize {
    let fits = |side: &&usize| **side <= shorter && **side <= most;
    SIDES.iter().rev().find(fits).copied().unwrap_or(SIDES[0])
}

/// The image as a square: itself when it already has `side` (or is square and `side` is `None`).
pub(super) fn square(path: &Path, image: RgbImage, side: Option<usize>) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    let Some(side) = side.map(|side| side as u32) else {
        if width == height {
            return Ok(image);
        }
        return Err(Error::data(
            path,
            format!("is {width} x {height}, not square; set the side to crop and resize it"),
        ));
    };
    if (width, height) == (side, side) {
        return Ok(image);
    }
    // Cutting before resizing keeps the work bounded for very long images.
    let short = width.min(height);
    let (left, top) = (((width - short) / 2) as usize, ((height - short) / 2) as usize);
    let mut pixels = Vec::with_capacity(short as usize * short as usize * 3);
    for row in image.as_raw().chunks_exact(width as usize * 3).skip(top).take(short as usize) {
        pixels.extend_from_slice(&row[left * 3..(left + short as usize) * 3]);
    }
    let image = RgbImage::from_raw(short, short, pixels).unwrap_or_default();
    Ok(if image.dimensions() == (side, side) {
        image
    } else {
        imageops::resize(&image, side, side, FilterType::Triangle)
    })
}

/// A picture that the caller has decoded, `rgba` `[height, width, 4]`, as the square of `side` that a file with these pixels
/// becomes: the words of an image of [`ImageSet::pixels`](super::ImageSet::pixels). Opacity is dropped.
///
/// # Errors
/// [`Error::Argument`] when there is no pixel, or not one for each place.
pub fn square_words(rgba: &[u8], (width, height): (u32, u32), side: usize) -> Result<Vec<u32>> {
    let places = u64::from(width) * u64::from(height);
    if places == 0 || side == 0 || rgba.len() as u64 != 4 * places {
        let (what, got) = ("the bytes of a picture", rgba.len().to_string());
        return Err(Error::Argument { what, got, wanted: format!("4 for each pixel of {width} x {height}") });
    }
    let rgb = rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let picture = RgbImage::from_raw(width, height, rgb).unwrap_or_default();
    Ok(words(&square(Path::new("picture"), picture, Some(side))?).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_decoded_picture_becomes_what_its_file_becomes() {
        let (width, height) = (7, 5);
        let rgba: Vec<u8> = (0..width * height * 4).map(|i| (i * 37 % 251) as u8).collect();
        let picture = RgbImage::from_fn(width, height, |x, y| {
            let at = (4 * (y * width + x)) as usize;
            image::Rgb([rgba[at], rgba[at + 1], rgba[at + 2]])
        });
        for side in [1, 3, 5, 16] {
            let wanted: Vec<u32> = words(&square(Path::new("a"), picture.clone(), Some(side)).unwrap()).collect();
            assert_eq!(square_words(&rgba, (width, height), side).unwrap(), wanted);
        }
        for (bytes, size) in
            [(&rgba[..rgba.len() - 1], (width, height)), (&[][..], (0, 0)), (&rgba[..], (u32::MAX, u32::MAX))]
        {
            assert!(square_words(bytes, size, 4).unwrap_err().to_string().contains("4 for each pixel"));
        }
        assert!(square_words(&rgba, (width, height), 0).is_err());
    }

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
