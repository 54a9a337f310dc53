//! ier.

pub mod negatives;
