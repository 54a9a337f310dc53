//! The kernels of a run as comma-separated values: one line per kernel, after a line of names.

use serde::Serialize;

use super::Run;
use super::kernels::Check;
use crate::{Error, Result};

/// A line. Values that were not measured are empty.
#[derive(Serialize)]
struct Line<'a> {
    kernel: &'a str,
    shape: &'a str,
    layer: &'a str,
    in_step: usize,
    algorithm: &'a str,
    executed: u64,
    flops: u64,
    bytes: u64,
    launches: usize,
    median_s: Option<f64>,
    min_s: Option<f64>,
    max_s: Option<f64>,
    samples: Option<usize>,
    gflop_per_s: Option<f64>,
    gb_per_s: Option<f64>,
    bound: &'a str,
    share: Option<f64>,
    check: &'a str,
    error: Option<f64>,
    tolerance: f64,
}

/// The outcome of a check in a word.
fn word(check: &Check) -> &'static str {
    match (check.made, check.passed) {
        (false, _) => "none",
        (true, true) => "passed",
        (true, false) => "failed",
    }
}

/// The table of a run's kernels.
///
/// # Errors
/// [`Error::Internal`] when a value cannot be written as text.
pub fn csv(run: &Run) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for kernel in &run.kernels {
        let seconds = kernel.seconds;
        let per_second = |n: u64| seconds.map(|s| n as f64 / s.median / 1e9);
        let line = Line {
            kernel: &kernel.name,
            shape: &kernel.shape,
            layer: &kernel.layer,
            in_step: kernel.count,
            algorithm: &kernel.algorithm,
            executed: kernel.executed,
            flops: kernel.flops,
            bytes: kernel.bytes,
            launches: kernel.launches,
            median_s: seconds.map(|s| s.median),
            min_s: seconds.map(|s| s.min),
            max_s: seconds.map(|s| s.max),
            samples: seconds.map(|s| s.samples),
            gflop_per_s: per_second(kernel.flops),
            gb_per_s: per_second(kernel.bytes),
            bound: kernel.bound.map_or("", |b| b.name()),
            share: kernel.share,
            check: word(&kernel.check),
            error: kernel.check.error,
            tolerance: kernel.check.tolerance,
        };
        writer.serialize(line).map_err(|e| Error::Internal(e.to_string()))?;
    }
    writer.into_inner().map_err(|e| Error::Internal(e.to_string()))
}
