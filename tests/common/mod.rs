//! Shared by the test binaries.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod evalcls;
pub mod golden;
pub mod golden_losses;
pub mod golden_views;
