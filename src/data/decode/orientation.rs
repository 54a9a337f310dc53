//! Which way up a picture is: the orientation tag of EXIF or XMP, as cameras and phones set it.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::jpeg;

const TAG: u16 = 0x112;

/// The picture turned and mirrored as the tag of the file says.
pub(super) fn upright(picture: RgbImage, bytes: &[u8]) -> RgbImage {
    match of_file(bytes).and_then(Orientation::from_exif) {
        None | Some(Orientation::NoTransforms) => picture,
        Some(orientation) => {
            let mut picture = DynamicImage::ImageRgb8(picture);
            picture.apply_orientation(orientation);
            picture.into_rgb8()
        }
    }
}

/// The tag's value, from 1 to 8. XMP counts where EXIF says nothing, as in Pillow.
fn of_file(bytes: &[u8]) -> Option<u8> {
    let (exif, xmp) = if bytes.starts_with(&[0xff, 0xd8]) {
        in_jpeg(bytes)
    } else if bytes.starts_with(b"\x89PNG") {
        in_png(bytes)
    } else if bytes.starts_with(b"RIFF") {
        in_webp(bytes)
    } else {
        // A TIFF file is what EXIF is made of.
        (of_exif(bytes), None)
    };
    exif.or(xmp)
}

/// The orientations that EXIF and XMP give.
type Both = (Option<u8>, Option<u8>);

fn in_jpeg(bytes: &[u8]) -> Both {
    let app1 = || jpeg::segments(bytes).filter(|(marker, _)| *marker == 0xe1).map(|(_, content)| content);
    let exif = app1().find(|content| content.starts_with(b"Exif\0")).and_then(of_exif);
    let xmp = app1().find(|content| content.starts_with(b"http://ns.adobe.com/xap/1.0/\0")).and_then(of_xmp);
    (exif, xmp)
}

fn in_png(bytes: &[u8]) -> Both {
    let (mut exif, mut xmp) = (None, None);
    for (kind, content) in super::png::chunks(bytes) {
        match &kind {
            b"eXIf" => exif = of_exif(content),
            b"zTXt" | b"tEXt" | b"iTXt" if content.starts_with(b"Raw profile type exif\0") => {
                exif = exif.or_else(|| of_exif(&super::png::raw_profile(&kind, content)?));
            }
            b"iTXt" if content.starts_with(b"XML:com.adobe.xmp\0") => xmp = of_xmp(content),
            _ => {}
        }
    }
    (exif, xmp)
}

fn in_webp(bytes: &[u8]) -> Both {
    let (mut exif, mut xmp) = (None, None);
    for (kind, content) in super::webp::chunks(bytes.get(12..).unwrap_or_default()) {
        match kind {
            b"EXIF" => exif = of_exif(content),
            b"XMP " => xmp = of_xmp(content),
            _ => {}
        }
    }
    (exif, xmp)
}

/// The tag in the first directory of a TIFF structure.
fn of_exif(content: &[u8]) -> Option<u8> {
    let content = content.strip_prefix(b"Exif\0\0").unwrap_or(content);
    let big = content.starts_with(b"MM");
    if !big && !content.starts_with(b"II") {
        return None;
    }
    let number = |at: usize, n: usize| -> Option<u64> {
        let bytes = content.get(at..at.checked_add(n)?)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Some(if big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    };
    // A big TIFF has wider counts and offsets.
    let wide = number(2, 2)? == 43;
    let directory = if wide { number(8, 8)? } else { number(4, 4)? } as usize;
    let (count_bytes, entry_bytes, value_at) = if wide { (8, 20, 12) } else { (2, 12, 8) };
    let entries = number(directory, count_bytes)?.min(content.len() as u64) as usize;
    (0..entries).map(|i| directory + count_bytes + i * entry_bytes).find_map(|entry| {
        if number(entry, 2)? != u64::from(TAG) {
            return None;
        }
        let bytes = match number(entry + 2, 2)? {
            1 => 1,
            3 => 2,
            4 => 4,
            _ => return None,
        };
        number(entry + value_at, bytes).and_then(valid)
    })
}

fn of_xmp(content: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    content.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME).find_map(|(at, _)| {
        let rest = &content[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?.first()?;
        valid(u64::from(digit.checked_sub(b'0')?))
    })
}

fn valid(value: u64) -> Option<u8> {
    (1..=8).contains(&value).then_some(value as u8)
}
