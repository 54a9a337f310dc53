//! The clock that a caller passes in. The core has none of its own: a web page has another one than a program.

use std::time::Duration;

/// Tells the time since some fixed moment; it never goes back.
pub type Clock = fn() -> Duration;
