//! PNG files whose last bytes are missing, and their text chunks.

use std::borrow::Cow;
use std::io::Read;

/// The longest EXIF profile that is unpacked.
const MAX_PROFILE_BYTES: u64 = 1 << 20;

/// Kind and content of the chunks that are whole.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut pos = 8;
    std::iter::from_fn(move || {
        let (kind, length) = chunk_head(bytes, pos)?;
        let content = bytes.get(pos + 8..(pos + 8).checked_add(length)?)?;
        bytes.get(pos + 8 + length..pos + 12 + length)?;
        pos += 12 + length;
        Some((kind, content))
    })
}

fn chunk_head(bytes: &[u8], pos: usize) -> Option<([u8; 4], usize)> {
    let head = bytes.get(pos..pos + 8)?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    Some(([head[4], head[5], head[6], head[7]], length))
}

/// The file with an end chunk where it has none. A chunk of pixels that is cut off is closed, so that the
/// decoder decides whether all pixels are there.
pub(super) fn with_end(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut end = 8;
    let mut has_pixels = false;
    for (kind, content) in chunks(bytes) {
        if kind == *b"IEND" {
            return Cow::Borrowed(bytes);
        }
        has_pixels |= kind == *b"IDAT";
        end += content.len() + 12;
    }
    let mut whole = bytes[..end.min(bytes.len())].to_vec();
    if let Some((kind, length)) = chunk_head(bytes, end)
        && kind == *b"IDAT"
    {
        let content = &bytes[end + 8..];
        append(&mut whole, kind, &content[..length.min(content.len())]);
        has_pixels = true;
    }
    if !has_pixels {
        return Cow::Borrowed(bytes);
    }
    append(&mut whole, *b"IEND", &[]);
    Cow::Owned(whole)
}

fn append(file: &mut Vec<u8>, kind: [u8; 4], content: &[u8]) {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(content);
    file.extend((content.len() as u32).to_be_bytes());
    file.extend(kind);
    file.extend(content);
    file.extend(crc.sum().to_be_bytes());
}

/// The EXIF data that ImageMagick and others write as hexadecimal text.
pub(super) fn raw_profile(kind: &[u8; 4], content: &[u8]) -> Option<Vec<u8>> {
    let keyword = content.iter().position(|&byte| byte == 0)?;
    let rest = &content[keyword + 1..];
    let unpack = |packed: &[u8]| {
        let mut text = Vec::new();
        flate2::read::ZlibDecoder::new(packed).take(MAX_PROFILE_BYTES).read_to_end(&mut text).ok()?;
        Some(text)
    };
    let text = match kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => unpack(rest.get(1..)?)?,
        // Compression flag and method, then language and translated keyword, each ended by zero.
        _ => {
            let packed = *rest.first()? != 0;
            let mut parts = rest.get(2..)?.splitn(3, |&byte| byte == 0);
            let text = parts.nth(2)?;
            if packed { unpack(text)? } else { text.to_vec() }
        }
    };
    // A line break, the name, a line break, the length, a line break, and the digits.
    let digits: Vec<u8> = text.split(|&byte| byte == b'\n').skip(3).flatten().copied().collect();
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
