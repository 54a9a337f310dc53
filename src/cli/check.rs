//! `check`.

use serde::Serialize;

use super::args::CheckArgs;
use super::engine::{self, CheckEntry};
use super::report::{Report, table};
use crate::{Error, Result};

/// Which checks to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckJob {
    /// Only those whose name contains this.
    pub filter: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    checks: &'a [CheckEntry],
    failed: usize,
}

/// Checks and prints; one that is off makes the exit code 1.
pub fn run(args: &CheckArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = CheckJob { filter: args.filter.clone() };
    let mut live = report.live();
    let checks = engine::check(&job, adapter, &mut live);
    live.finish();
    let checks = checks?;
    if checks.is_empty() {
        let filter = job.filter.as_deref().unwrap_or_default();
        return Err(Error::usage(format!("no check has `{filter}` in its name (--filter): `check` lists all")));
    }
    let failed = checks.iter().filter(|check| !check.passed).count();
    report.result("check", &Body { checks: &checks, failed }, || {
        let mut rows = vec![["", "check", "error", "allowed"].map(String::from).to_vec()];
        for check in &checks {
            rows.push(vec![
                if check.passed { "ok" } else { "FAILED" }.into(),
                check.name.clone(),
                format!("{:.2e}", check.error),
                format!("{:.2e}", check.tolerance),
            ]);
        }
        format!("{}\n{} of {} checks passed", table(&rows), checks.len() - failed, checks.len())
    })?;
    match failed {
        0 => Ok(()),
        _ => Err(Error::TargetMissed(format!(
            "{failed} of {} checks are off on this device: please report them with `ieq-wgpu devices --json`",
            checks.len()
        ))),
    }
}
