//! `report`.

use std::path::PathBuf;

use super::Context;
use super::report::shell_word;
use crate::Result;
use crate::jobs::report::{self, ReportRequest};
use crate::page::bytes_text;

/// Make the page about a run again
///
/// A run writes report.html into its folder while it trains and at its end: curves, accuracy with intervals, confusion, a
/// map of the embeddings, neighbours, views, settings, memory, provenance, in one file that needs no network. This makes
/// it again, also for the folder of an earlier version's run or one that was stopped. What is missing is said on the page.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu report runs/demo")]
pub struct Args {
    /// Run folder
    run: PathBuf,
    /// Page to write [default: report.html in the run folder]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Read no data, open no device: only what is in the folder
    #[arg(long)]
    files_only: bool,
}

/// Makes the page and says where it is.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { run, out, files_only } = args;
    let request = ReportRequest { run, out, files_only };
    let outcome = context.with_progress(|progress| report::run(&request, &context.session, progress))?;
    context.report.result("report", &outcome, || {
        let missing = outcome.missing.iter().map(|(section, why)| format!("\nno {section}: {why}"));
        format!("{}: {}{}", shell_word(&outcome.report), bytes_text(outcome.bytes as u64), missing.collect::<String>())
    })?;
    context.note("next: open it in a browser; `ieq-wgpu compare RUN RUN` sets runs side by side");
    Ok(())
}
