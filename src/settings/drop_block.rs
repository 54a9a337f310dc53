//! The size of DropBlock's squares.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Side of DropBlock's squares, in pixels of the feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropBlockSize {
    /// By image side: 2 up to 32 pixels, 5 at 84, in proportion between and beyond.
    Auto,
    /// As given.
    Fixed(usize),
}

impl DropBlockSize {
    /// The size for images of `side` pixels (before it is clipped to the feature map).
    pub fn for_side(self, side: usize) -> usize {
        match self {
            DropBlockSize::Auto => ((2 * side + 17) / 34).max(2),
            DropBlockSize::Fixed(size) => size,
        }
    }
}

impl fmt::Display for DropBlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DropBlockSize::Auto => f.write_str("auto"),
            DropBlockSize::Fixed(size) => size.fmt(f),
        }
    }
}

impl FromStr for DropBlockSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(DropBlockSize::Auto),
            (_, Ok(size)) => Ok(DropBlockSize::Fixed(size)),
            _ => Err(format!("`auto` or a whole number of pixels is wanted, got `{text}`")),
        }
    }
}

impl Serialize for DropBlockSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            DropBlockSize::Auto => serializer.serialize_str("auto"),
            DropBlockSize::Fixed(size) => size.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DropBlockSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = DropBlockSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a whole number of pixels")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DropBlockSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, size: u64) -> Result<DropBlockSize, E> {
                usize::try_from(size).map(DropBlockSize::Fixed).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, size: i64) -> Result<DropBlockSize, E> {
                usize::try_from(size)
                    .map(DropBlockSize::Fixed)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(size), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
