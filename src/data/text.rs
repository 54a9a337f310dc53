//! Text files as Windows and Unix write them.

use std::path::Path;

use crate::{Error, Result};

/// The text of `path`.
///
/// # Errors
/// [`Error::Io`] when it cannot be read, [`Error::Data`] when it is no text.
pub(super) fn read(path: &Path, what: &str) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, format!("cannot read the {what}"), source))?;
    decode(path, &bytes)
}

/// UTF-8 with or without a byte order mark, or UTF-16 with one.
///
/// # Errors
/// [`Error::Data`] when it is neither.
pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<String> {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let (words, rest) = bytes.as_chunks::<2>();
        String::from_utf16(&words.iter().map(|&word| read(word)).collect::<Vec<_>>()).ok().filter(|_| rest.is_empty())
    };
    let text = match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => std::str::from_utf8(rest).ok().map(str::to_owned),
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    text.ok_or_else(|| Error::data(path, "is not UTF-8 text; save it as UTF-8"))
}
