//! Training: schedules, checkpoints and the metric log.

pub mod checkpoint;
pub mod metrics;
pub mod schedule;
