//! Truevision TGA: palette, true colour and gray, plain or run-length coded, from any corner.

use image::RgbImage;

use super::{Refusal, check_size};

type Result<T> = std::result::Result<T, Refusal>;

/// Decodes to RGB; alpha is dropped.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let header = bytes.get(..18).ok_or_else(Refusal::early)?;
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (width, height) = (u32::from(u16_at(12)), u32::from(u16_at(14)));
    let (kind, depth, flags) = (header[2], header[16], header[17]);
    let palette_kind = header[1];
    let is_known = palette_kind <= 1
        && match kind & !8 {
            1 => palette_kind == 1 && matches!(depth, 8 | 16),
            2 => matches!(depth, 15 | 16 | 24 | 32),
            3 => matches!(depth, 8 | 16),
            _ => false,
        };
    if !is_known {
        return Err(Refusal::broken(&format!("it is no TGA of a known kind (kind {kind}, {depth} bits per pixel)")));
    }
    check_size(width, height)?;

    // The palette, of which the first colours may be left out.
    let (first, n, entry_bits) = (usize::from(u16_at(3)), usize::from(u16_at(5)), header[7]);
    let entry_bytes = usize::from(entry_bits).div_ceil(8);
    let palette_at = 18 + usize::from(header[0]);
    let palette_end = palette_at + if palette_kind == 1 { n * entry_bytes } else { 0 };
    let palette = bytes.get(palette_at..palette_end).ok_or_else(Refusal::early)?;
    if kind & !8 == 1 && !matches!(entry_bits, 15 | 16 | 24 | 32) {
        return Err(Refusal::broken(&format!("its palette has {entry_bits} bits per colour")));
    }

    let pixel_bytes = usize::from(depth).div_ceil(8);
    let n_pixels = width as usize * height as usize;
    let body = &bytes[palette_end..];
    let unpacked;
    let body = if kind & 8 != 0 {
        unpacked = unpack(body, n_pixels * pixel_bytes, pixel_bytes)?;
        &unpacked[..]
    } else {
        body.get(..n_pixels * pixel_bytes).ok_or_else(Refusal::early)?
    };

    let colour = |pixel: &[u8]| match kind & !8 {
        1 => {
            let index = pixel.iter().rev().fold(0, |index, &byte| index << 8 | usize::from(byte));
            let at = index.checked_sub(first).map(|index| index * entry_bytes);
            at.and_then(|at| palette.get(at..at + entry_bytes)).map_or([0; 3], true_colour)
        }
        2 => true_colour(pixel),
        // With 16 bits the second byte is alpha.
        _ => [pixel[0]; 3],
    };
    let mut picture = RgbImage::new(width, height);
    for (i, pixel) in body.chunks_exact(pixel_bytes).enumerate() {
        let (x, y) = (i as u32 % width, i as u32 / width);
        let x = if flags & 0x10 != 0 { width - 1 - x } else { x };
        let y = if flags & 0x20 != 0 { y } else { height - 1 - y };
        picture.put_pixel(x, y, image::Rgb(colour(pixel)));
    }
    Ok(picture)
}

/// Red, green and blue of a colour of 2, 3 or 4 bytes.
fn true_colour(bytes: &[u8]) -> [u8; 3] {
    match *bytes {
        [low, high] => {
            let value = u32::from(u16::from_le_bytes([low, high]));
            [10, 5, 0].map(|shift| ((value >> shift & 31) * 255 / 31) as u8)
        }
        [b, g, r, ..] => [r, g, b],
        _ => [0; 3],
    }
}

/// Undoes run-length coding.
fn unpack(packed: &[u8], wanted: usize, pixel_bytes: usize) -> Result<Vec<u8>> {
    // A packet of one pixel more gives at most 128.
    if packed.len() * 128 < wanted {
        return Err(Refusal::early());
    }
    let mut out = Vec::with_capacity(wanted);
    let mut pos = 0;
    while out.len() < wanted {
        let head = *packed.get(pos).ok_or_else(Refusal::early)?;
        let n = usize::from(head & 0x7f) + 1;
        let length = if head & 0x80 != 0 { pixel_bytes } else { n * pixel_bytes };
        let pixels = packed.get(pos + 1..pos + 1 + length).ok_or_else(Refusal::early)?;
        pos += 1 + length;
        for _ in 0..if head & 0x80 != 0 { n } else { 1 } {
            out.extend_from_slice(pixels);
        }
    }
    out.truncate(wanted);
    Ok(out)
}
