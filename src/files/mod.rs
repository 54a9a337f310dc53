//! Files that the program writes.

pub mod replace;

pub use replace::{TEMPORARY_PREFIX, replace_file};
