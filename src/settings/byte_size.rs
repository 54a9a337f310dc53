//! A number of bytes as people write it: the one formatter and parser of the crate.

use std::fmt;
use std::str::FromStr;

use super::names::serde_as_text;

/// Bytes, read from `4GiB`, `512MiB`, `1.5 GiB` or `1073741824`.
///
/// `Display` loses nothing (`1536MiB`) and is what files and flags hold; [`ByteSize::rounded`] is for people (`1.5 GiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    /// The size for people, with one digit after the point: `1.5 GiB`.
    pub fn rounded(self) -> String {
        match UNITS.into_iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) if size > 1 => format!("{:.1} {unit}", self.0 as f64 / size as f64),
            _ => format!("{} B", self.0),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that loses nothing: what is written is read back as it was.
        let (unit, size) = UNITS.into_iter().find(|(_, size)| self.0.is_multiple_of(*size)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("bytes with KiB, MiB or GiB, such as 4GiB, are wanted, got `{text}`");
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(unit, size)| Some((text.trim().strip_suffix(unit)?, size)))
            .unwrap_or((text.trim(), 1));
        if let Ok(whole) = number.trim().parse::<u64>() {
            return whole.checked_mul(unit).map(ByteSize).ok_or_else(wanted);
        }
        let bytes = number.trim().parse::<f64>().map_err(|_| wanted())? * unit as f64;
        // 2^53: beyond it an f64 skips whole numbers. NaN is refused, too.
        if !(bytes >= 0.0 && bytes <= (1_u64 << 53) as f64) {
            return Err(wanted());
        }
        Ok(ByteSize(bytes as u64))
    }
}

serde_as_text!(ByteSize);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, again) in [
            ("4GiB", 4 << 30, "4GiB"),
            ("1.5 GiB", 3 << 29, "1536MiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("77", 77, "77B"),
            ("9007199254740993", (1 << 53) + 1, "9007199254740993B"),
            ("3KiB", 3072, "3KiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, again), "{text}");
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        for text in
            ["", "GiB", "-1", "nan", "4GB", "1e300", "4 apples", "18446744073709551616", "18446744073709551615KiB"]
        {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (12_897_485, "12.3 MiB"),
            (3 << 29, "1.5 GiB"),
            (5 << 40, "5.0 TiB"),
        ] {
            assert_eq!(ByteSize(bytes).rounded(), text);
        }
    }
}
