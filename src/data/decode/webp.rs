//! The first frame of an animated WebP on its canvas, as Pillow shows it.
//!
//! The `image` crate blends it with a transparent canvas: the colours of transparent pixels are lost, and those of opaque
//! ones may be off by one. libwebp takes the first frame as it is.

use image::{ImageFormat, RgbImage, imageops};

use super::{Refusal, check_size, read_format};

/// The first frame of an animation.
pub(super) struct Frame {
    canvas: (u32, u32),
    place: (u32, u32),
    /// The frame as a file of its own.
    still: Vec<u8>,
}

/// Kind and content of the chunks that are whole.
pub(super) fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(8)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (content, after) = after.split_at_checked(length)?;
        rest = after.get(length % 2..).unwrap_or_default();
        Some((&head[..4], content))
    })
}

impl Frame {
    /// The first frame of an animation; `None` for another file, and for one that ends within the frame.
    pub(super) fn first(bytes: &[u8]) -> Option<Frame> {
        let mut chunks = chunks(bytes.get(12..)?);
        let (_, head) =
            chunks.next().filter(|(kind, head)| *kind == b"VP8X" && head.len() >= 10 && head[0] & 2 != 0)?;
        let (_, frame) = chunks.find(|(kind, frame)| *kind == b"ANMF" && frame.len() >= 16)?;
        let three = |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0]);
        let mut still = b"RIFF\0\0\0\0WEBP".to_vec();
        if frame[16..].starts_with(b"ALPH") {
            still.extend_from_slice(b"VP8X\x0a\0\0\0\x10\0\0\0");
            still.extend_from_slice(&frame[6..12]);
        }
        still.extend_from_slice(&frame[16..]);
        let length = u32::try_from(still.len() - 8).ok()?;
        still[4..8].copy_from_slice(&length.to_le_bytes());
        Some(Frame {
            canvas: (three(head, 4) + 1, three(head, 7) + 1),
            place: (2 * three(frame, 0), 2 * three(frame, 3)),
            still,
        })
    }

    /// Decodes the frame to RGB, with black around it.
    pub(super) fn decode(&self) -> Result<RgbImage, Refusal> {
        check_size(self.canvas.0, self.canvas.1)?;
        let picture = read_format(&self.still, ImageFormat::WebP)?;
        let (width, height) = picture.dimensions();
        if self.place.0 + width > self.canvas.0 || self.place.1 + height > self.canvas.1 {
            return Err(Refusal::broken("its first frame exceeds its canvas"));
        }
        if picture.dimensions() == self.canvas {
            return Ok(picture);
        }
        let mut whole = RgbImage::new(self.canvas.0, self.canvas.1);
        imageops::replace(&mut whole, &picture, self.place.0.into(), self.place.1.into());
        Ok(whole)
    }
}
