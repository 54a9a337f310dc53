//! `check`: every shader compared with its CPU twin on this device.

use serde::Serialize;

use super::{Session, matrix};
use crate::gpu::device::Options;
use crate::ops;
use crate::progress::Progress;
use crate::settings::{Matrix, Tune};
use crate::{Error, Result};

/// Which checks to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckRequest {
    /// Only those whose name contains this; empty: all.
    pub filter: String,
}

/// The checks that were made.
#[derive(Clone, Debug, Serialize)]
pub struct CheckOutcome {
    /// Each of them.
    pub checks: Vec<CheckEntry>,
    /// How many are off.
    pub failed: usize,
}

/// A shader compared with its CPU twin.
#[derive(Clone, Debug, Serialize)]
pub struct CheckEntry {
    /// The check, such as `conv2d.backward_weight 3x3 stride 2`.
    pub name: String,
    /// Largest difference found, relative to the largest element of its tensor; none where anything is not finite or
    /// lies past the end of its tensor.
    pub error: Option<f64>,
    /// Largest difference allowed where it was found.
    pub tolerance: f64,
    /// Whether every number is within its tolerance.
    pub passed: bool,
}

impl CheckOutcome {
    /// Fails where a check is off.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are.
    pub fn passed(&self) -> Result<()> {
        match self.failed {
            0 => Ok(()),
            failed => Err(Error::TargetMissed(format!(
                "{failed} of {} checks are off on this device: please report them with `ieq-wgpu devices --json`",
                self.checks.len()
            ))),
        }
    }
}

/// Compares shaders with their twins.
///
/// # Errors
/// [`Error::Usage`] when no check has the filter in its name, [`Error::Device`] when the device fails.
pub fn run(request: &CheckRequest, session: &Session, progress: &mut dyn Progress) -> Result<CheckOutcome> {
    let cases: Vec<_> = ops::check::cases().into_iter().filter(|case| case.name.contains(&request.filter)).collect();
    // The device first: where there is none, that is the fault.
    let gpu = Options { matrix_units: true, ..session.gpu.clone() };
    let mut kernels = Session { gpu, ..session.clone() }.open(Tune::Off, Matrix::Off, progress)?;
    if cases.is_empty() {
        return Err(Error::usage(format!(
            "no check has `{}` in its name (`request.filter`): `check` lists all",
            request.filter
        )));
    }
    let unit = match matrix::find(&mut kernels, progress) {
        // A driver that fails at its units is checked without them.
        Err(Error::Device(why) | Error::DeviceLost(why)) => {
            progress.note(&format!("the matrix units are not used: {why}"));
            kernels = session.open(Tune::Off, Matrix::Off, progress)?;
            None
        }
        found => found?,
    };
    match unit {
        Some(unit) => progress.note(&format!("matrix units of {unit}")),
        None => progress.note("no matrix units are used: their kernels are checked by ordinary arithmetic"),
    }
    let mut checks = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let outcome = ops::check::run(case, &mut kernels)?;
        checks.push(CheckEntry::of(outcome));
        progress.advance("check", i as u64 + 1, cases.len() as u64);
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    Ok(CheckOutcome { checks, failed })
}

impl CheckEntry {
    fn of(outcome: ops::check::Outcome) -> Self {
        CheckEntry {
            passed: outcome.passed(),
            // NaN and infinity are no numbers of JSON; `bench` says it in the same way.
            error: Some(outcome.error).filter(|error| error.is_finite()),
            name: outcome.name,
            tolerance: outcome.tolerance,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_no_number_is_null_and_fails() {
        for (error, json, passed) in
            [(1e-7, "1e-7", true), (1.0, "1.0", false), (f64::NAN, "null", false), (f64::INFINITY, "null", false)]
        {
            let outcome =
                ops::check::Outcome { name: "x".into(), error, tolerance: 2e-6, worst: "y".into(), made: Vec::new() };
            let entry = CheckEntry::of(outcome);
            assert_eq!(entry.passed, passed, "{error}");
            let text = serde_json::to_string(&entry).unwrap();
            assert!(text.contains(&format!("\"error\":{json},")), "{text}");
        }
    }
}
