//! A length of time as people write it: the one formatter and parser of the crate.

use std::fmt;
use std::str::FromStr;

use super::names::serde_as_text;

/// Whole seconds, read from `90s`, `20m`, `8h`, `1.5h`, `1h30m` or `2d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub u64);

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

impl TimeSpan {
    /// The seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, size) in UNITS {
            if rest >= size {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("a time with its unit, such as 90s, 20m, 8h or 1h30m, is wanted, got `{text}`");
        let mut total = 0.0;
        let mut rest = text.trim();
        let mut larger = u64::MAX;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wanted)?;
            let (number, from) = rest.split_at(end);
            let letter = from.chars().next().ok_or_else(wanted)?;
            let (_, size) = UNITS.into_iter().find(|(unit, _)| *unit == letter).ok_or_else(wanted)?;
            let number = number.trim();
            let digits = number.chars().all(|c| c.is_ascii_digit() || c == '.');
            let n = number.parse::<f64>().ok().filter(|_| digits && size < larger).ok_or_else(wanted)?;
            total += n * size as f64;
            larger = size;
            rest = from[1..].trim_start();
        }
        // 2^53: beyond it an f64 skips whole numbers.
        match total.round() {
            seconds if (1.0..=(1_u64 << 53) as f64).contains(&seconds) => Ok(TimeSpan(seconds as u64)),
            _ => Err(wanted()),
        }
    }
}

serde_as_text!(TimeSpan);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds, again) in [
            ("90s", 90, "1m30s"),
            ("20m", 1200, "20m"),
            ("8h", 28_800, "8h"),
            ("1.5h", 5400, "1h30m"),
            ("1h30m", 5400, "1h30m"),
            (" 2d 1 s ", 172_801, "2d1s"),
            ("0.6s", 1, "1s"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.0, span.to_string().as_str()), (seconds, again), "{text}");
            assert_eq!(span.to_string().parse::<TimeSpan>().unwrap(), span);
        }
        for text in [
            "",
            "5",
            "0",
            "0s",
            "0.2s",
            "-5m",
            "m",
            "5 apples",
            "5min",
            "nan s",
            "infs",
            "1e9h",
            "1m1h",
            "1m2m",
            "1.2.3s",
            "99999999999999999999d",
            "5m3",
            "5ü",
        ] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text}");
        }
    }
}
