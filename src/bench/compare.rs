//! Compares two runs: what became slower by more than the threshold and the noise.

use std::path::Path;

use serde::Serialize;

use super::{Run, Spread};
use crate::{Error, Result};

/// One time in both runs.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// What was timed.
    pub what: String,
    /// Median seconds of the earlier run.
    pub before: f64,
    /// Median seconds of this run.
    pub now: f64,
    /// How much slower this run is, percent; negative: faster.
    pub slower_pct: f64,
    /// Whether the median is slower by more than the threshold, and the middle half of the samples
    /// ([`Spread::middle`]) lies above that of the earlier run.
    pub regressed: bool,
}

/// Everything that both runs timed.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The threshold, percent.
    pub threshold_pct: f64,
    /// Each time.
    pub changes: Vec<Change>,
    /// How many of them regressed.
    pub regressed: usize,
    /// Whether both runs are of one adapter and driver.
    pub same_device: bool,
}

/// The times of a run by name.
fn times(run: &Run) -> Vec<(String, Spread)> {
    let kernels = run.kernels.iter().filter_map(|k| Some((format!("{} {}", k.name, k.shape), k.seconds?)));
    let step = |s: &super::StepResult| {
        format!("step of {}, widths {:?}, {} rows at {} px", s.preset, s.widths, s.rows, s.side)
    };
    kernels.chain(run.steps.iter().map(|s| (step(s), s.seconds))).collect()
}

/// Compares a run with an earlier one.
///
/// # Errors
/// [`Error::Argument`] when the two runs timed nothing in common.
pub fn compare(before: &Run, now: &Run, threshold_pct: f64) -> Result<Comparison> {
    let old = times(before);
    let mut changes = Vec::new();
    for (what, new) in times(now) {
        let Some((_, old)) = old.iter().find(|(name, _)| *name == what) else { continue };
        let slower_pct = 100.0 * (new.median / old.median - 1.0);
        // Written so that a time that is not a number is a regression.
        let regressed = !(slower_pct <= threshold_pct) && !(new.middle().0 <= old.middle().1);
        changes.push(Change { what, before: old.median, now: new.median, slower_pct, regressed });
    }
    if changes.is_empty() {
        return Err(Error::Argument {
            what: "the earlier run",
            got: "one that timed nothing that this one timed".into(),
            wanted: "one of the same shapes, sides, rows and preset".into(),
        });
    }
    let regressed = changes.iter().filter(|change| change.regressed).count();
    Ok(Comparison { threshold_pct, changes, regressed, same_device: before.device == now.device })
}

/// Reads the document of an earlier `bench --json`.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] when there is none.
pub fn read(path: &Path) -> Result<Run> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "cannot read the earlier run", e))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::data(path, format!("this is no earlier run ({e}): give the JSON document that `bench` printed"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Device;
    use crate::bench::kernels::{Check, KernelResult};

    fn run(median: f64) -> Run {
        run_of(Spread::of([0.95, 0.95, 1.0, 1.05, 1.05].map(|factor| factor * median).to_vec()))
    }

    fn run_of(spread: Spread) -> Run {
        let check = Check { what: "all".into(), made: true, error: Some(0.0), tolerance: 1e-5, passed: true };
        let kernel = KernelResult {
            name: "conv2d.forward".into(),
            shape: "1x1".into(),
            layer: String::new(),
            count: 1,
            flops: 1,
            executed: 1,
            algorithm: String::new(),
            bytes: 1,
            launches: 1,
            check,
            seconds: Some(spread),
            bound: None,
            share: None,
        };
        let device = Device { name: "x".into(), backend: "vulkan".into(), driver: "1".into(), software: true };
        let (version, clock) = (String::new(), String::new());
        Run { version, device, clock, ceilings: None, kernels: vec![kernel], steps: Vec::new() }
    }

    #[test]
    fn slower_beyond_threshold_and_noise_is_a_regression() {
        let regressed = |before, now| compare(&run(before), &run(now), 10.0).expect("both have the kernel").regressed;
        assert_eq!(regressed(1.0, 1.0), 0);
        assert_eq!(regressed(1.0, 0.5), 0);
        assert_eq!(regressed(1.0, 1.09), 0, "within the threshold");
        assert_eq!(regressed(1.0, 1.1001), 0, "the samples overlap");
        assert_eq!(regressed(1.0, 1.3), 1);
        assert_eq!(regressed(1.0, f64::NAN), 1);
        let mut other = run(1.0);
        other.kernels.clear();
        assert!(compare(&other, &run(1.0), 10.0).is_err());
    }

    /// One outlier among five samples, in either run and on either side, hides nothing and makes up nothing.
    #[test]
    fn an_outlier_hides_no_regression() {
        let fast = [37.21, 37.30, 37.37, 37.40, 37.45];
        let slow = fast.map(|ms| 1.47 * ms);
        let with = |mut samples: [f64; 5], at: usize, ms: f64| {
            samples[at] = ms;
            samples
        };
        let without_middle = |samples: [f64; 5]| {
            let mut run = run_of(Spread::of(samples.to_vec()));
            for kernel in &mut run.kernels {
                kernel.seconds = kernel.seconds.map(|spread| Spread { low: None, high: None, ..spread });
            }
            run
        };
        for old in [fast, with(fast, 4, 59.55), with(fast, 0, 12.0)] {
            for new in [slow, with(slow, 0, 37.0), with(slow, 4, 90.0)] {
                for before in [run_of(Spread::of(old.to_vec())), without_middle(old)] {
                    let regressed = |now: &[f64; 5]| {
                        let now = run_of(Spread::of(now.to_vec()));
                        compare(&before, &now, 10.0).expect("both have the kernel").regressed
                    };
                    assert_eq!(regressed(&new), 1, "{old:?} {new:?}");
                    assert_eq!(regressed(&old), 0, "{old:?}");
                    assert_eq!(regressed(&with(fast, 4, 200.0)), 0, "{old:?}");
                }
            }
        }
        // Two speeds, three samples to two, are noise.
        let two = run_of(Spread::of(vec![1.0, 1.0, 1.0, 1.5, 1.5]));
        let other = run_of(Spread::of(vec![1.0, 1.0, 1.5, 1.5, 1.5]));
        assert_eq!(compare(&two, &other, 10.0).expect("both have the kernel").regressed, 0);
    }
}
