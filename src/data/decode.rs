//! Image files to square RGBA words: bounded decoding, gray and 16-bit to RGB, resize and crop.

use std::io::Cursor;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::DataOptions;
use super::listing::Listing;
use crate::{Error, Result};

/// The largest width and height that is decoded.
const MAX_EDGE: u32 = 16_384;
/// The largest number of pixels that is decoded.
const MAX_PIXELS: u64 = 100_000_000;
/// What a decoder may allocate: the largest image at 16 bits and four channels.
const MAX_DECODE_BYTES: u64 = MAX_PIXELS * 8;
/// The largest set that is held in memory.
const MAX_SET_BYTES: u64 = 32 << 30;

/// One RGBA8 word.
pub(super) fn word(r: u8, g: u8, b: u8) -> u32 {
    u32::from_le_bytes([r, g, b, 255])
}

/// Room for `n` images, or a sentence about how much memory they would take.
pub(super) fn reserve(path: &Path, n: usize, side: usize) -> Result<Vec<u32>> {
    let bytes = n as u64 * (side * side) as u64 * 4;
    let mut pixels = Vec::new();
    if bytes > MAX_SET_BYTES || pixels.try_reserve_exact(n * side * side).is_err() {
        return Err(Error::data(
            path,
            format!(
                "{n} images of {side} x {side} take {:.1} GiB of host memory; choose a smaller side or fewer images",
                bytes as f64 / (1u64 << 30) as f64
            ),
        ));
    }
    Ok(pixels)
}

/// Decodes one file of each pair in order, on all cores; the side, and the pixels back to back.
pub(super) fn decode_all(items: &[(&dyn Listing, usize)], options: &DataOptions) -> Result<(usize, Vec<u32>)> {
    let Some(&(first, file)) = items.first() else { return Ok((options.side.unwrap_or(0), Vec::new())) };
    let decode = |&(listing, file): &(&dyn Listing, usize)| {
        let path = listing.locate(file);
        let image = square(&path, decode_rgb(&path, &listing.read(file)?)?, options.side)?;
        Ok::<_, Error>((path, image))
    };
    let side = match options.side {
        Some(side) => side,
        None => decode(&(first, file))?.1.width() as usize,
    };
    let words = side * side;
    let mut pixels = reserve(first.origin(), items.len(), side)?;
    pixels.resize(items.len() * words, 0);

    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = items.len().div_ceil(workers);
    let decode_share = |items: &[(&dyn Listing, usize)], out: &mut [u32]| -> Result<()> {
        for (item, out) in items.iter().zip(out.chunks_exact_mut(words)) {
            let (path, image) = decode(item)?;
            if image.width() as usize != side {
                return Err(Error::data(
                    path,
                    format!(
                        "is {0} x {0} but the images before it are {side} x {side}; set the side to resize them all",
                        image.width()
                    ),
                ));
            }
            for (out, rgb) in out.iter_mut().zip(image.pixels()) {
                *out = word(rgb[0], rgb[1], rgb[2]);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = items
            .chunks(share)
            .zip(pixels.chunks_mut(share * words))
            .map(|(items, out)| scope.spawn(move || decode_share(items, out)))
            .collect();
        // In order, so that the error reported is the same on every run.
        running.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Error::Internal("an image decoder panicked".into())))
        })
    })?;
    Ok((side, pixels))
}

/// Decodes one image as PIL's `convert("RGB")` does: gray is repeated, alpha is dropped, 16 bits
/// become 8. Of an animation the first frame; rotation tags are not applied.
pub(super) fn decode_rgb(path: &Path, bytes: &[u8]) -> Result<RgbImage> {
    let mut reader = ImageReader::new(Cursor::new(bytes));
    // The content decides; only TGA has no signature and goes by its name.
    match image::guess_format(bytes).ok().or_else(|| ImageFormat::from_path(path).ok()) {
        Some(format) => reader.set_format(format),
        None => return Err(Error::data(path, format!("is not an image; {} are read", super::listing::IMAGE_KINDS))),
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_is_complete(bytes) {
        return Err(undecodable(path, "the file ends early"));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| explain(path, &error))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(undecodable(path, "it has no pixels"));
    }
    if width > MAX_EDGE || height > MAX_EDGE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(too_large(path, &format!(" ({width} x {height})")));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|error| explain(path, &error))?;
    Ok(image.into_rgb8())
}

fn explain(path: &Path, error: &ImageError) -> Error {
    match error {
        ImageError::Limits(_) => too_large(path, ""),
        other => undecodable(path, &other.to_string()),
    }
}

fn too_large(path: &Path, size: &str) -> Error {
    Error::data(
        path,
        format!("is too large{size}: at most {MAX_EDGE} pixels on a side and {MAX_PIXELS} in all; shrink it first"),
    )
}

fn undecodable(path: &Path, why: &str) -> Error {
    Error::data(path, format!("cannot be decoded as an image ({why}); replace it or remove it"))
}

/// The decoder fills a cut-off JPEG with gray; entropy-coded data never contains a marker, so the
/// end marker must come after the last start of scan.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let last = |marker: u8| bytes.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
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
    let image = imageops::crop_imm(&image, (width - short) / 2, (height - short) / 2, short, short).to_image();
    Ok(if image.dimensions() == (side, side) {
        image
    } else {
        imageops::resize(&image, side, side, FilterType::Triangle)
    })
}
