//! How values of flags are read. Ranges are the business of jobs and settings.

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

type Parsed<T> = std::result::Result<T, String>;

/// A whole number.
pub fn count(text: &str) -> Parsed<usize> {
    text.parse().map_err(|_| "a whole number, 0 or more, is wanted".to_owned())
}

/// A seed, which a file of settings can hold.
pub fn seed(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(seed) if seed <= i64::MAX as u64 => Ok(seed),
        _ => Err(format!("a whole number from 0 to {} is wanted", i64::MAX)),
    }
}

/// A real number.
pub fn number(text: &str) -> Parsed<f64> {
    text.parse().map_err(|_| "a number, such as 0.05 or 5e-4, is wanted".to_owned())
}

/// A parser of one of `names`; clap then suggests near ones.
pub fn choice<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}
