//! Training: the loop, its state, checkpoints and the metric log.

pub mod budget;
pub mod checkpoint;
pub mod checkpoint_file;
pub mod exchange;
pub mod features;
pub mod init;
pub mod inputs;
mod joint;
pub mod memory;
pub mod metrics;
mod names;
pub mod onnx;
pub mod phases;
#[cfg(feature = "formats")]
pub mod pytorch;
#[cfg(feature = "formats")]
pub mod pytorch_writer;
pub mod recipe;
pub mod record;
pub mod reference;
#[cfg(not(target_arch = "wasm32"))]
pub mod run;
pub mod shown;
mod stage;
pub mod state;
#[cfg(not(target_arch = "wasm32"))]
pub mod tensorboard;
pub mod trainer;
pub mod validation;

pub use features::Extractor;
pub use trainer::{Observer, Teacher, Trainer};

use std::time::Duration;

use crate::gpu::clock::Clock;
use crate::settings::Config;
use crate::tape::exec::Executor;

/// The system's clock: the time since it was first asked. A web page has none that the standard library knows, and
/// passes its own.
#[cfg(not(target_arch = "wasm32"))]
pub fn clock() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

/// Cuts the executions of `executor` into submissions as the configuration says. Without a clock they stay whole.
fn limit_submission_time(executor: &mut Executor, config: &Config, clock: Option<Clock>) {
    if let (Some(clock), 1..) = (clock, config.run.slice_ms) {
        executor.limit_submission_time(Duration::from_millis(config.run.slice_ms.into()), clock);
    }
}
