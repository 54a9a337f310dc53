//! Image files to square RGBA words: bounded decoding to upright RGB, resize and crop.

mod gif;
mod jpeg;
mod orientation;
mod png;
mod pnm;
mod tga;
mod tiff;
mod webp;

use std::io::Cursor;
use std::path::Path;

use image::codecs::bmp::BmpDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::DataOptions;
use super::listing::Listing;
use super::square::{square, words};
use crate::{Error, Result};

/// The largest width and height that is decoded.
const MAX_EDGE: u32 = 16_384;
/// The largest number of pixels that is decoded.
const MAX_PIXELS: u64 = 100_000_000;
/// What a decoder may allocate: the largest image at 16 bits and four channels.
const MAX_DECODE_BYTES: u64 = MAX_PIXELS * 8;
/// The largest set that is held in memory.
const MAX_SET_BYTES: u64 = 32 << 30;

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

/// Decodes one file to a square.
pub(super) fn decode_one(listing: &dyn Listing, file: usize, options: &DataOptions) -> Result<RgbImage> {
    let path = listing.locate(file);
    square(&path, decode_rgb(&path, &listing.read(file)?)?, options.side)
}

/// Pictures that are looked at for the side that suits all.
const SAMPLE: usize = 32;

/// The shorter side of the pictures in the middle of a sample, which is spread evenly over them where the side follows
/// from it and is the first picture elsewhere. What cannot be decoded is left for [`decode_all`] to refuse.
pub(super) fn shorter_side(items: &[(&dyn Listing, usize)], options: &DataOptions) -> Option<usize> {
    let wanted = if options.side.is_none() && options.side_most.is_some() { SAMPLE } else { 1 };
    let n = wanted.min(items.len());
    let mut sides: Vec<usize> = (0..n)
        .filter_map(|i| {
            let (listing, file) = *items.get(i * items.len() / n)?;
            let (width, height) = decode_rgb(&listing.locate(file), &listing.read(file).ok()?).ok()?.dimensions();
            Some(width.min(height) as usize)
        })
        .collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied()
}

/// A file, and where the pixels of its picture go.
type Item<'a> = (&'a (&'a dyn Listing, usize), &'a mut [u32]);

/// Decodes one file of each pair in order, on all cores; the side, and the pixels back to back.
pub(super) fn decode_all(items: &[(&dyn Listing, usize)], options: &DataOptions) -> Result<(usize, Vec<u32>)> {
    let Some(&(first, file)) = items.first() else { return Ok((options.side.unwrap_or(0), Vec::new())) };
    let side = match options.side {
        Some(side) => side,
        None => decode_one(first, file, options)?.width() as usize,
    };
    let area = side * side;
    let mut pixels = reserve(first.origin(), items.len(), side)?;
    pixels.resize(items.len() * area, 0);

    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let share = items.len().div_ceil(workers);
    let decode_share = |share: &mut [Item]| -> Result<()> {
        for ((listing, file), out) in share {
            let (listing, file) = (*listing, *file);
            let image = decode_one(listing, file, options)?;
            if image.width() as usize != side {
                return Err(Error::data(
                    listing.locate(file),
                    format!(
                        "is {0} x {0} but the images before it are {side} x {side}; set the side to resize them all",
                        image.width()
                    ),
                ));
            }
            out.iter_mut().zip(words(&image)).for_each(|(out, word)| *out = word);
        }
        Ok(())
    };
    let mut work: Vec<Item> = items.iter().zip(pixels.chunks_exact_mut(area)).collect();
    work.sort_by_key(|((listing, file), _)| listing.lies_at(*file));
    std::thread::scope(|scope| {
        let running: Vec<_> = work.chunks_mut(share).map(|share| scope.spawn(move || decode_share(share))).collect();
        // In order, so that the error reported is the same on every run.
        running.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Error::Internal("an image decoder panicked".into())))
        })
    })?;
    Ok((side, pixels))
}

/// Why a file gives no picture.
#[derive(Debug)]
enum Refusal {
    /// The file is damaged, for this reason.
    Broken(String),
    /// The file is whole but of a kind that is not read: a clause that starts with a verb.
    Kind(String),
    /// Width and height, or zeros where only the decoder knows them.
    TooLarge(u32, u32),
}

impl Refusal {
    fn broken(why: &str) -> Self {
        Refusal::Broken(why.into())
    }

    fn early() -> Self {
        Refusal::broken("the file ends early")
    }

    fn kind(what: &str) -> Self {
        Refusal::Kind(what.into())
    }

    fn of_image(error: &ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Refusal::TooLarge(0, 0),
            other => {
                // A decoder's message may have several lines, and that of a wrong checksum shows the library's types.
                let why = other.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                Refusal::Broken(if why.contains("CRC error") { "one of its checksums is wrong".into() } else { why })
            }
        }
    }

    fn of_file(self, path: &Path) -> Error {
        Error::data(
            path,
            match self {
                Refusal::Broken(why) => format!("cannot be decoded as an image ({why}); replace it or remove it"),
                Refusal::Kind(what) => format!("{what}; save it again as PNG or remove it"),
                Refusal::TooLarge(width, height) => {
                    let size = if width == 0 { String::new() } else { format!(" ({width} x {height})") };
                    format!(
                        "is too large{size}: at most {MAX_EDGE} pixels on a side and {MAX_PIXELS} in all; shrink it first"
                    )
                }
            },
        )
    }
}

/// Whether a picture of this size may be decoded.
fn check_size(width: u32, height: u32) -> std::result::Result<(), Refusal> {
    if width == 0 || height == 0 {
        return Err(Refusal::broken("it has no pixels"));
    }
    if width > MAX_EDGE || height > MAX_EDGE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Refusal::TooLarge(width, height));
    }
    Ok(())
}

/// Decodes the content of one image file, upright: EXIF and XMP orientation is applied. The pixels are those
/// of Pillow's `ImageOps.exif_transpose` and `convert("RGB")`: gray is repeated, alpha is dropped. Gray of 16
/// bits is scaled to 8, where Pillow cuts it off at 255. Of an animation or a document the first picture counts.
///
/// The content decides the format; `path` is for messages, and names the format where the content has no signature (TGA).
///
/// # Errors
/// One sentence where the file is no image, is damaged, is of a kind that is not read, or is too large.
pub fn decode_rgb(path: &Path, bytes: &[u8]) -> Result<RgbImage> {
    // A decoder of hostile files may still have a panic in it.
    let decode = || decode_content(path, bytes).map(|picture| orientation::upright(picture, bytes));
    std::panic::catch_unwind(decode)
        .unwrap_or_else(|_| Err(Refusal::broken("its content confuses the decoder")))
        .map_err(|refusal| refusal.of_file(path))
}

fn decode_content(path: &Path, bytes: &[u8]) -> std::result::Result<RgbImage, Refusal> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => return jpeg::decode(bytes),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => return tiff::decode(bytes),
        [b'G', b'I', b'F', b'8', ..] => return gif::decode(bytes),
        [b'P', b'1'..=b'7', blank, ..] if blank.is_ascii_whitespace() || *blank == b'#' => return pnm::decode(bytes),
        [b'R', b'I', b'F', b'F', ..] => {
            if let Some(frame) = webp::Frame::first(bytes) {
                return frame.decode();
            }
        }
        _ => {}
    }
    let named = || ImageFormat::from_path(path).ok().filter(|&format| format == ImageFormat::Tga);
    let format = match image::guess_format(bytes).ok().filter(ImageFormat::reading_enabled).or_else(named) {
        Some(ImageFormat::Tga) => return tga::decode(bytes),
        Some(format) => format,
        None if is_bare_bitmap(bytes) => {
            let bitmap = BmpDecoder::new_without_file_header(Cursor::new(bytes));
            return read(bitmap.map_err(|error| Refusal::of_image(&error))?);
        }
        None => return Err(unknown(path, bytes)),
    };
    let bytes = if format == ImageFormat::Png { png::with_end(bytes) } else { bytes.into() };
    read_format(&bytes, format)
}

/// Decodes by the `image` crate.
fn read_format(bytes: &[u8], format: ImageFormat) -> std::result::Result<RgbImage, Refusal> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_EDGE);
    limits.max_image_height = Some(MAX_EDGE);
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    read(reader.into_decoder().map_err(|error| Refusal::of_image(&error))?)
}

/// Why content that starts as none of the formats is refused.
fn unknown(path: &Path, bytes: &[u8]) -> Refusal {
    let box_kind = bytes.get(4..12).unwrap_or_default();
    let name = match bytes {
        _ if box_kind.starts_with(b"ftypavi") => "an AVIF picture",
        _ if [&b"ftypheic"[..], b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"].contains(&box_kind) => {
            "a HEIC picture"
        }
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => "a JPEG XL picture",
        [0, 0, 0, 12, b'j', b'P', ..] | [0xff, 0x4f, 0xff, 0x51, ..] => "a JPEG 2000 picture",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop document",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [0, 0, 1 | 2, 0, 1..=255, 0, ..] => "a Windows icon",
        _ if super::listing::is_image_name(&path.to_string_lossy()) => {
            return Refusal::broken("its content starts as none of the formats that are read");
        }
        _ => return Refusal::Kind(format!("is not an image ({} are read)", super::listing::IMAGE_KINDS)),
    };
    Refusal::Kind(format!("is {name}, and {} are read", super::listing::IMAGE_KINDS))
}

fn read(decoder: impl ImageDecoder) -> std::result::Result<RgbImage, Refusal> {
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let image = DynamicImage::from_decoder(decoder).map_err(|error| Refusal::of_image(&error))?;
    Ok(image.into_rgb8())
}

/// Whether the file is a Windows bitmap without the file header, as `.dib` files may be.
fn is_bare_bitmap(bytes: &[u8]) -> bool {
    matches!(bytes, [40 | 108 | 124, 0, 0, 0, ..]) && bytes.get(12..14) == Some(&[1, 0])
}
