//! Training: the loop, its state, checkpoints and the metric log.

pub mod budget;
pub mod checkpoint;
pub mod checkpoint_file;
pub mod features;
pub mod memory;
pub mod metrics;
pub mod record;
pub mod run;
pub mod state;
pub mod trainer;

pub use features::Extractor;
pub use trainer::{Observer, Teacher, Trainer};

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::settings::Config;
use crate::tape::exec::Executor;

/// The clock that the core has none of: the time since it was first asked.
pub fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Cuts the executions of `executor` into submissions as the configuration says.
fn limit_submission_time(executor: &mut Executor, config: &Config) {
    if config.run.slice_ms > 0 {
        executor.limit_submission_time(Duration::from_millis(config.run.slice_ms.into()), clock);
    }
}
