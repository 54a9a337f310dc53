//! Labels as files of arrays give them: numbers or names.

use std::fmt;
use std::path::Path;

use super::unpickle::integer;
use crate::{Error, Result};

/// The class of an image, before classes have ranks. Numbers come before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Label {
    Number(i64),
    Name(String),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label::Number(number) => number.fmt(f),
            Label::Name(name) => name.fmt(f),
        }
    }
}

/// The most labels one file may hold.
pub(super) const MAX_LABELS: usize = 1 << 28;

/// Bytes of one value of a NumPy type such as `u1`, `f4` or `U5`; `None` for types that are no labels or pixels.
pub(super) fn item_bytes(code: &str) -> Option<usize> {
    let (kind, size) = code.split_at_checked(1)?;
    let size: usize = size.parse().ok()?;
    match (kind, size) {
        ("u" | "i", 1 | 2 | 4 | 8) | ("f", 2 | 4 | 8) | ("b", 1) => Some(size),
        ("S" | "a", 1..=4096) => Some(size),
        ("U", 1..=4096) => Some(4 * size),
        _ => None,
    }
}

/// The labels in an array of any integers, whole floats or strings: N, N x 1 or 1 x N of them.
///
/// # Errors
/// [`Error::Data`] for another shape, another type or values that are no labels.
pub(super) fn of_array(
    path: &Path,
    what: &str,
    code: &str,
    big_endian: bool,
    shape: &[usize],
    bytes: &[u8],
) -> Result<Vec<Label>> {
    let wrong = |why: String| Error::data(path, format!("{what} {why}"));
    check_shape(path, what, shape)?;
    let size = item_bytes(code)
        .ok_or_else(|| wrong(format!("has type {code}; save the labels as int64 (a list of int) or as strings")))?;
    let label = |bytes: &[u8]| match &code[..1] {
        "u" | "b" => integer(bytes, false, big_endian).map(Label::Number),
        "i" => integer(bytes, true, big_endian).map(Label::Number),
        "f" => whole(float(bytes, big_endian)),
        "U" => {
            let (words, _) = bytes.as_chunks::<4>();
            let read = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
            let text: Option<String> =
                words.iter().map(|&word| read(word)).take_while(|&c| c != 0).map(char::from_u32).collect();
            text.map(Label::Name)
        }
        _ => std::str::from_utf8(bytes).ok().map(|text| Label::Name(text.trim_end_matches('\0').to_owned())),
    };
    bytes
        .chunks_exact(size)
        .map(label)
        .collect::<Option<Vec<Label>>>()
        .ok_or_else(|| wrong("holds a label that is no 64-bit integer and no text; save the labels as int64".into()))
}

/// Labels are one list.
///
/// # Errors
/// [`Error::Data`] for several axes that are longer than 1.
pub(super) fn check_shape(path: &Path, what: &str, shape: &[usize]) -> Result<()> {
    if shape.iter().filter(|&&n| n != 1).count() > 1 {
        return Err(Error::data(
            path,
            format!(
                "{what} has shape {shape:?}; write a flat list of one label per image, as labels.argmax(1) makes of \
                 scores or of 0 and 1"
            ),
        ));
    }
    Ok(())
}

/// A whole number as a label.
pub(super) fn whole(number: f64) -> Option<Label> {
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(Label::Number(number as i64))
}

fn float(bytes: &[u8], big_endian: bool) -> f64 {
    let mut little = bytes.to_vec();
    if big_endian {
        little.reverse();
    }
    match *little.as_slice() {
        [a, b] => half::f16::from_le_bytes([a, b]).to_f64(),
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => f64::NAN,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn labels_of_every_type() {
        let read = |code: &str, big: bool, shape: &[usize], bytes: &[u8]| {
            of_array(Path::new("x"), "labels", code, big, shape, bytes)
                .map(|labels| labels.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("u1", false, &[2, 1], &[7, 255]).unwrap(), "7 255");
        assert_eq!(read("i2", true, &[1, 2], &[0, 7, 255, 255]).unwrap(), "7 -1");
        assert_eq!(read("f4", false, &[1], &3f32.to_le_bytes()).unwrap(), "3");
        assert_eq!(read("S3", false, &[2], b"cat\0\0\0").unwrap(), "cat ");
        assert_eq!(read("U2", true, &[1], &[0, 0, 0, b'a', 0, 0, 0, 0]).unwrap(), "a");
        for (code, shape, bytes, words) in [
            ("f4", &[1][..], &0.5f32.to_le_bytes()[..], "int64"),
            ("u1", &[2, 2], &[0; 4], "argmax"),
            ("M8", &[1], &[0; 8], "type M8"),
            ("U1", &[1], &[0xff; 4], "int64"),
        ] {
            assert!(read(code, false, shape, bytes).unwrap_err().to_string().contains(words), "{code}");
        }
    }
}
