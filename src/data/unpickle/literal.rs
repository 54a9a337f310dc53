//! Numbers and strings as pickles and arrays spell them.

/// The number in up to eight bytes; `None` when it does not fit.
pub(in super::super) fn integer(bytes: &[u8], signed: bool, big_endian: bool) -> Option<i64> {
    let mut little: Vec<u8> = bytes.to_vec();
    if big_endian {
        little.reverse();
    }
    // Longer numbers may still be small: Python pads nothing, but allows it.
    let negative = signed && little.last().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    while little.len() > 8 {
        if little.pop() != Some(fill) {
            return None;
        }
    }
    let full = little.len() == 8;
    little.resize(8, fill);
    let number = i64::from_le_bytes(little.try_into().ok()?);
    (negative || number >= 0 || (full && signed)).then_some(number).filter(|number| negative == (*number < 0))
}

/// The bytes of Python 2's `repr` of a string.
pub(super) fn unquote(line: &[u8]) -> Option<Vec<u8>> {
    let (&quote, rest) = line.trim_ascii_end().split_first()?;
    let inner = rest.strip_suffix(&[quote]).filter(|_| matches!(quote, b'\'' | b'"'))?;
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'x' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other @ (b'\\' | b'\'' | b'"') => other,
            _ => return None,
        });
    }
    Some(out)
}

/// The text of Python's raw-unicode-escape: Latin-1 with `\u` and four hexadecimal digits, `\U` and eight.
pub(super) fn unescape(line: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = match (byte, after.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                out.push(char::from(byte));
                rest = after;
                continue;
            }
        };
        let hex = std::str::from_utf8(after.get(1..=digits)?).ok()?;
        out.push(char::from_u32(u32::from_str_radix(hex, 16).ok()?)?);
        rest = &after[digits + 1..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width() {
        assert_eq!(integer(&[], true, false), Some(0));
        assert_eq!(integer(&[0xff], true, false), Some(-1));
        assert_eq!(integer(&[0xff], false, false), Some(255));
        assert_eq!(integer(&[1, 0], false, true), Some(256));
        assert_eq!(integer(&[0xff; 8], true, false), Some(-1));
        assert_eq!(integer(&[0xff; 8], false, false), None);
        assert_eq!(integer(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0], true, false), None);
        assert_eq!(integer(&[1, 0, 0, 0, 0, 0, 0, 0, 0], true, false), Some(1));
    }

    #[test]
    fn strings_of_protocol_0() {
        assert_eq!(unquote(br"'a\x00\\\n\''"), Some(b"a\0\\\n'".to_vec()));
        assert_eq!(unquote(b"'a"), None);
        assert_eq!(unquote(b"'"), None);
        assert_eq!(unescape(b"a\\u00e9\xe9"), Some("a\u{e9}\u{e9}".into()));
        assert_eq!(unescape(b"\\u00"), None);
    }
}
