//! Training: the loop, its state, checkpoints and the metric log.

pub mod checkpoint;
pub mod features;
pub mod metrics;
pub mod record;
pub mod trainer;

pub use features::Extractor;
pub use trainer::Trainer;
