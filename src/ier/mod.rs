//! ier.

pub mod losses;
pub mod negatives;
