//! Shared by the test binaries.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod golden;
pub mod golden_cases;
pub mod golden_classifiers;
pub mod golden_models;
pub mod golden_views;
