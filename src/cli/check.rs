//! `check`.

use super::Context;
use super::report::table;
use crate::Result;
use crate::jobs::check::{self, CheckOutcome, CheckRequest};

/// Compare every shader with its CPU twin on this device
///
/// Forward and backward, each compared with plain loops in double precision; exit 1 if one is off.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu check --filter conv2d")]
pub struct Args {
    /// Only checks whose name contains TEXT
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

/// Checks and prints; one that is off makes the exit code 1.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let request = CheckRequest { filter: args.filter };
    let outcome = context.with_progress(|progress| check::run(&request, &context.session, progress))?;
    context.report.result("check", &outcome, || text(&outcome))?;
    outcome.passed()
}

fn text(outcome: &CheckOutcome) -> String {
    let mut rows = vec![["", "check", "error", "allowed"].map(String::from).to_vec()];
    for check in &outcome.checks {
        rows.push(vec![
            if check.passed { "ok" } else { "FAILED" }.into(),
            check.name.clone(),
            check.error.map_or("no number".into(), |error| format!("{error:.2e}")),
            format!("{:.2e}", check.tolerance),
        ]);
    }
    let n = outcome.checks.len();
    format!("{}\n{} of {n} checks passed", table(&rows), n - outcome.failed)
}
