//! What the table of settings knows of each type: how a flag's word becomes a value, and what a range looks at.

use std::fmt;
use std::path::PathBuf;

use super::byte_size::ByteSize;
use super::choices::{
    Activations, Backbone, BatchStatistics, DecayAt, Length, LrSchedule, Matrix, Method, OnDeviceLost, Recipe, Tune,
    Winograd,
};
use super::drop_block::DropBlockSize;
use super::time_span::TimeSpan;
use super::transforms::TransformSet;

/// Reads a flag's word; the error says what is wanted instead.
pub type Read = fn(&str) -> Result<toml::Value, String>;

/// A part of a value that a range looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    /// A whole number.
    Whole(u64),
    /// A number.
    Real(f64),
    /// A text or a path.
    Text(String),
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Leaf::Whole(n) => n.fmt(f),
            Leaf::Real(x) => x.fmt(f),
            Leaf::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// The type of a setting.
pub trait Value {
    /// The names that it may have, where it has one.
    const NAMES: &'static [&'static str] = &[];

    /// The value that a flag's word means, as a file would hold it; the error says what is wanted instead.
    fn read(word: &str) -> Result<toml::Value, String>;

    /// The parts that a range looks at, in order.
    fn leaves(&self) -> Vec<Leaf> {
        Vec::new()
    }

    /// The key of its form in a file, where it has one of several forms.
    fn form(&self) -> &'static str {
        ""
    }
}

/// Which values a setting may have. Not-a-number is in no range.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// All that its type can hold.
    Any,
    /// Whole numbers from the first to the second, both of them included.
    Whole(u64, u64),
    /// Numbers between two ends.
    Real(End, End),
    /// Every text except the empty one.
    NotEmpty,
    /// A list.
    List {
        /// Fewest items.
        least: usize,
        /// Most items.
        most: usize,
        /// Whether each is larger than the one before.
        rising: bool,
        /// The range of each.
        each: &'static Range,
    },
}

/// An end of a range of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// This number is in it.
    With(f64),
    /// This number is not.
    Without(f64),
}

impl Range {
    /// `None` where every leaf is in the range, else what was got and what is wanted.
    pub fn refuses(&self, leaves: &[Leaf]) -> Option<(String, String)> {
        if let Range::List { least, most, rising, each } = self {
            if !(*least..=*most).contains(&leaves.len()) {
                return Some((leaves.len().to_string(), format!("{least} to {most} numbers")));
            }
            let list = leaves.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if *rising && !(leaves.is_sorted_by(rises) && leaves.iter().all(|leaf| each.holds(leaf))) {
                return Some((format!("[{list}]"), format!("rising numbers, each {}", each.wanted())));
            }
            return each.refuses(leaves);
        }
        let leaf = leaves.iter().find(|leaf| !self.holds(leaf))?;
        Some((leaf.to_string(), self.wanted()))
    }

    fn holds(&self, leaf: &Leaf) -> bool {
        match (self, leaf) {
            (Range::Whole(low, high), Leaf::Whole(n)) => (low..=high).contains(&n),
            (Range::Real(low, high), Leaf::Real(x)) => {
                let above = match low {
                    End::With(end) => x >= end,
                    End::Without(end) => x > end,
                };
                let below = match high {
                    End::With(end) => x <= end,
                    End::Without(end) => x < end,
                };
                above && below
            }
            (Range::NotEmpty, Leaf::Text(text)) => !text.is_empty(),
            (Range::List { each, .. }, leaf) => each.holds(leaf),
            (Range::Any, _) => true,
            _ => false,
        }
    }

    fn wanted(&self) -> String {
        match self {
            Range::Any => "any value".into(),
            Range::Whole(low, high) => format!("from {low} to {high}"),
            Range::Real(low, high) => {
                let low = match low {
                    End::With(end) => format!("at least {end}"),
                    End::Without(end) => format!("above {end}"),
                };
                match high {
                    End::With(end) => format!("{low} and at most {end}"),
                    End::Without(end) => format!("{low} and below {end}"),
                }
            }
            Range::NotEmpty => "a word that is not empty".into(),
            Range::List { least, most, each, .. } => format!("{least} to {most} numbers {}", each.wanted()),
        }
    }
}

fn rises(a: &Leaf, b: &Leaf) -> bool {
    match (a, b) {
        (Leaf::Whole(a), Leaf::Whole(b)) => a < b,
        (Leaf::Real(a), Leaf::Real(b)) => a < b,
        _ => false,
    }
}

fn integer(word: &str, most: u64) -> Result<toml::Value, String> {
    // TOML has no larger ones.
    let most = most.min(i64::MAX as u64);
    match word.parse::<i64>() {
        Ok(n) if (0..=most).contains(&n.cast_unsigned()) => Ok(toml::Value::Integer(n)),
        _ => Err(format!("a whole number from 0 to {most} is wanted")),
    }
}

/// Reads a list with commas, `none` for the empty one.
pub fn list<T: Value>(word: &str) -> Result<toml::Value, String> {
    if word == "none" {
        return Ok(toml::Value::Array(Vec::new()));
    }
    let items: Result<Vec<_>, _> = word.split(',').map(|item| T::read(item.trim())).collect();
    items.map(toml::Value::Array).map_err(|_| "numbers with commas between them, or none, are wanted".to_owned())
}

/// Reads a word that is checked as `T` and kept as text.
fn text<T: std::str::FromStr<Err = String>>(word: &str) -> Result<toml::Value, String> {
    word.parse::<T>().map(|_| toml::Value::String(word.to_owned()))
}

macro_rules! whole {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn read(word: &str) -> Result<toml::Value, String> {
                integer(word, <$type>::MAX as u64)
            }

            fn leaves(&self) -> Vec<Leaf> {
                vec![Leaf::Whole(*self as u64)]
            }
        }
    )+};
}

whole!(u32, u64, usize);

macro_rules! names {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const NAMES: &'static [&'static str] = <$type>::NAMES;

            fn read(word: &str) -> Result<toml::Value, String> {
                text::<$type>(word)
            }
        }
    )+};
}

names!(Backbone, Matrix, Method, OnDeviceLost, Recipe, Tune, Activations, Winograd, BatchStatistics, LrSchedule);

impl Value for f64 {
    fn read(word: &str) -> Result<toml::Value, String> {
        word.parse().map(toml::Value::Float).map_err(|_| "a number, such as 0.05 or 5e-4, is wanted".to_owned())
    }

    fn leaves(&self) -> Vec<Leaf> {
        vec![Leaf::Real(*self)]
    }
}

impl Value for bool {
    fn read(word: &str) -> Result<toml::Value, String> {
        word.parse().map(toml::Value::Boolean).map_err(|_| "true or false is wanted".to_owned())
    }
}

impl Value for String {
    fn read(word: &str) -> Result<toml::Value, String> {
        Ok(toml::Value::String(word.to_owned()))
    }

    fn leaves(&self) -> Vec<Leaf> {
        vec![Leaf::Text(self.clone())]
    }
}

impl Value for PathBuf {
    fn read(word: &str) -> Result<toml::Value, String> {
        Ok(toml::Value::String(word.to_owned()))
    }

    fn leaves(&self) -> Vec<Leaf> {
        vec![Leaf::Text(self.display().to_string())]
    }
}

impl<T: Value> Value for Option<T> {
    const NAMES: &'static [&'static str] = T::NAMES;

    fn read(word: &str) -> Result<toml::Value, String> {
        T::read(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.as_ref().map(T::leaves).unwrap_or_default()
    }
}

impl Value for [f64; 3] {
    fn read(word: &str) -> Result<toml::Value, String> {
        match list::<f64>(word) {
            Ok(toml::Value::Array(all)) if all.len() == 3 => Ok(toml::Value::Array(all)),
            Ok(toml::Value::Array(all)) if all.len() == 1 => Ok(toml::Value::Array([&all[..]; 3].concat())),
            _ => Err("one number, or three with commas between them, is wanted".to_owned()),
        }
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.iter().copied().map(Leaf::Real).collect()
    }
}

impl Value for Vec<usize> {
    fn read(word: &str) -> Result<toml::Value, String> {
        let items: Result<Vec<_>, _> = word.split(',').map(|item| usize::read(item.trim())).collect();
        let wanted = "whole numbers with commas between them are wanted, such as 16,32,64,128";
        items.map(toml::Value::Array).map_err(|_| wanted.to_owned())
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.iter().map(|&n| Leaf::Whole(n as u64)).collect()
    }
}

/// Texts with semicolons between them, `none` for no text.
impl Value for Vec<String> {
    fn read(word: &str) -> Result<toml::Value, String> {
        let items = word.split(';').map(str::trim).filter(|item| !item.is_empty() && *item != "none");
        Ok(toml::Value::Array(items.map(|item| toml::Value::String(item.to_owned())).collect()))
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.iter().cloned().map(Leaf::Text).collect()
    }
}

impl Value for DropBlockSize {
    fn read(word: &str) -> Result<toml::Value, String> {
        text::<Self>(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        match self {
            DropBlockSize::Auto => Vec::new(),
            DropBlockSize::Fixed(size) => size.leaves(),
        }
    }
}

impl Value for TransformSet {
    fn read(word: &str) -> Result<toml::Value, String> {
        text::<Self>(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        match self {
            TransformSet::Affine(k) | TransformSet::Projective(k) => k.leaves(),
            TransformSet::Rot4 | TransformSet::Crop4 | TransformSet::Rot4Crop4 => Vec::new(),
        }
    }
}

impl Value for ByteSize {
    fn read(word: &str) -> Result<toml::Value, String> {
        text::<Self>(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.0.leaves()
    }
}

impl Value for TimeSpan {
    fn read(word: &str) -> Result<toml::Value, String> {
        text::<Self>(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        self.0.leaves()
    }
}

impl Value for Length {
    fn read(word: &str) -> Result<toml::Value, String> {
        u32::read(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        match self {
            Length::Epochs(n) | Length::Steps(n) => n.leaves(),
        }
    }

    fn form(&self) -> &'static str {
        match self {
            Length::Epochs(_) => "epochs",
            Length::Steps(_) => "steps",
        }
    }
}

impl Value for DecayAt {
    fn read(word: &str) -> Result<toml::Value, String> {
        list::<u32>(word)
    }

    fn leaves(&self) -> Vec<Leaf> {
        match self {
            DecayAt::Epochs(at) | DecayAt::Steps(at) => at.iter().flat_map(Value::leaves).collect(),
            DecayAt::Fractions(at) => at.iter().flat_map(Value::leaves).collect(),
        }
    }

    fn form(&self) -> &'static str {
        match self {
            DecayAt::Epochs(_) => "epochs",
            DecayAt::Fractions(_) => "fractions",
            DecayAt::Steps(_) => "steps",
        }
    }
}
