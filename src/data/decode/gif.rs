//! The first frame of a GIF on its canvas, as Pillow shows it.

use std::borrow::Cow;

use image::RgbImage;

use super::{MAX_DECODE_BYTES, Refusal, check_size};

/// Decodes the first frame to RGB. Around it is the transparent colour, or colour 0, as in Pillow.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, Refusal> {
    let bytes = &*with_palette(bytes);
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::Indexed);
    if let Some(limit) = std::num::NonZeroU64::new(MAX_DECODE_BYTES) {
        options.set_memory_limit(gif::MemoryLimit::Bytes(limit));
    }
    let mut decoder = options.read_info(bytes).map_err(explain)?;
    let frame = decoder.next_frame_info().map_err(explain)?.ok_or_else(|| Refusal::broken("it has no frame"))?.clone();
    // A frame that exceeds the canvas enlarges it.
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let width = u32::from(decoder.width()).max(left + u32::from(frame.width));
    let height = u32::from(decoder.height()).max(top + u32::from(frame.height));
    check_size(width, height)?;
    check_size(frame.width.into(), frame.height.into())?;
    let mut indices = vec![0; decoder.buffer_size()];
    decoder.read_into_buffer(&mut indices).map_err(explain)?;

    let palette = frame.palette.as_deref().or(decoder.global_palette()).unwrap_or_default();
    // A colour that the palette lacks is gray.
    let colour = |index: u8| {
        let at = usize::from(index) * 3;
        palette.get(at..at + 3).map_or([index; 3], |c| [c[0], c[1], c[2]])
    };
    let mut picture = RgbImage::from_pixel(width, height, image::Rgb(colour(frame.transparent.unwrap_or(0))));
    for (y, row) in (top..).zip(indices.chunks_exact(usize::from(frame.width))) {
        for (x, &index) in (left..).zip(row) {
            picture.put_pixel(x, y, image::Rgb(colour(index)));
        }
    }
    Ok(picture)
}

/// The file with a gray palette where it has none for all frames: the `gif` crate wants one.
fn with_palette(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.get(10) {
        Some(flags) if flags & 0x80 == 0 && bytes.len() > 13 => {
            let grays: Vec<u8> = (0..=255).flat_map(|gray| [gray; 3]).collect();
            let mut whole = [&bytes[..13], &grays, &bytes[13..]].concat();
            whole[10] |= 0x87;
            Cow::Owned(whole)
        }
        _ => Cow::Borrowed(bytes),
    }
}

fn explain(error: gif::DecodingError) -> Refusal {
    match error {
        gif::DecodingError::UnexpectedEof => Refusal::early(),
        gif::DecodingError::MemoryLimit => Refusal::TooLarge(0, 0),
        gif::DecodingError::Io(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => Refusal::early(),
        other => Refusal::broken(&other.to_string()),
    }
}
