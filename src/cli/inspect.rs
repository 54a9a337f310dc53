//! `inspect`.

use std::path::PathBuf;

use super::Context;
use super::report::table;
use super::sentence::named;
use crate::Result;
use crate::jobs::inspect::{self, InspectRequest};

/// Say what is in a run, checkpoint, data set or array
///
/// With warnings that a careful colleague would give: no validation, a run that was stopped, classes of very different
/// sizes, a mean that is not the images', rows that are not finite, and the like.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu inspect runs/demo")]
pub struct Args {
    /// Run, checkpoint (.safetensors, .pth), data set, or .npy array
    ///
    /// An array is one of embeddings, as `embed` writes it.
    path: PathBuf,
}

/// Looks and prints.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let request = InspectRequest { path: args.path };
    let outcome = context.with_progress(|progress| inspect::run(&request, &context.session, progress))?;
    context.report.result("inspect", &outcome, || {
        let mut rows = vec![vec!["kind".into(), outcome.kind.into()]];
        rows.extend(outcome.about.iter().map(|(name, value)| vec![name.clone(), value.clone()]));
        let warnings = outcome.warnings.iter().map(|sentence| format!("\nwarning: {}", named(sentence)));
        format!("{}{}", table(&rows), warnings.collect::<String>())
    })
}
