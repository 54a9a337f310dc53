//! `neighbors`.

use std::path::PathBuf;

use super::Context;
use super::args::count;
use super::report::{shell_word, table};
use crate::Result;
use crate::jobs::neighbors::{self, NeighborsOutcome, NeighborsRequest};

/// Find the pictures most similar to one
///
/// Every row is compared, on the device: the result is exact. Embeddings that are there already are searched a part at a
/// time, so there may be more of them than fit the memory.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "neighbours",
    after_long_help = "Examples:\n  ieq-wgpu neighbors cat.png --in photos/\n  \
    ieq-wgpu embed runs/mine photos/ --out photos.npy\n  \
    ieq-wgpu neighbors cat.png --in photos.npy --model runs/mine -k 20"
)]
pub struct Args {
    /// The picture
    picture: PathBuf,
    /// Embeddings, or pictures
    ///
    /// What `embed` wrote: a file in any of its formats, or a folder of shards; or pictures, a folder, a zip or a tar.
    #[arg(long = "in", value_name = "EMBEDDINGS|DIR")]
    among: PathBuf,
    /// Checkpoint or run folder
    ///
    /// Of embeddings that which made them. `shipped` chooses by the pictures, `shipped:strokes` is for letters and signs,
    /// `shipped:pictures` for all others. A .pth of PyTorch's will do, too: `export --help` says how.
    #[arg(long, value_name = "MODEL", default_value = "shipped")]
    model: PathBuf,
    /// How many to find
    #[arg(long, short, value_name = "N", default_value_t = 10, value_parser = count)]
    k: usize,
    /// Table: rank, path, similarity
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Contact sheet (PNG)
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
}

/// Searches and says what was found.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { picture, among, model, k, csv, sheet } = args;
    let request = NeighborsRequest { picture, among, model, k, csv, sheet };
    context.interruptible("stopping")?;
    let outcome = context.with_progress(|progress| neighbors::run(&request, &context.session, progress))?;
    context.report.result("neighbors", &outcome, || text(&outcome))?;
    if request.among.is_dir() && !outcome.embedded {
        context.note(&format!(
            "next: `ieq-wgpu embed {} {}` keeps the embeddings, so that the next search need not make them again",
            shell_word(&request.model),
            shell_word(&request.among)
        ));
    } else {
        context.note(&format!(
            "next: `ieq-wgpu predict --model {} --support DIR PICTURES` gives pictures the names of classes",
            shell_word(&request.model)
        ));
    }
    outcome.complete()
}

fn text(outcome: &NeighborsOutcome) -> String {
    let head = vec!["similarity".to_owned(), "path".to_owned()];
    let rows = outcome.neighbors.iter().map(|one| vec![format!("{:.4}", one.similarity), one.path.clone()]);
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
