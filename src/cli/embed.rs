//! `embed`.

use std::path::PathBuf;

use super::Context;
use super::args::choice;
use super::eval::split_file;
use crate::Result;
use crate::jobs::embed::{self, EmbedRequest, Input};
use crate::jobs::eval::SplitFile;
use crate::train::features::Layer;

const DATA: &str = "Data";
const OUTPUT: &str = "Output";

/// Write the embeddings of images as .npy
///
/// One row per image, in the order of the list that is written beside it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu embed runs/demo photos/ --out photos.npy")]
pub struct Args {
    /// Checkpoint or run folder
    ///
    /// Of a run folder the network that validated best (best.safetensors), or else the last one. The path of its
    /// checkpoint.safetensors means the last one. `shipped` is the network of the program's own that suits the pictures,
    /// `shipped:strokes` that for letters and signs.
    checkpoint: PathBuf,
    /// Images: folders, zip files, image files
    #[arg(value_name = "INPUT", required_unless_present = "data")]
    inputs: Vec<PathBuf>,
    /// Embed a data set's split instead of files
    #[arg(long, value_name = "SRC", conflicts_with = "inputs", help_heading = DATA)]
    data: Option<String>,
    /// Split of --data
    ///
    /// train, val or novel; all: every class, whatever its split.
    #[arg(long, value_name = "NAME", default_value = "novel", conflicts_with = "inputs", help_heading = DATA)]
    split: String,
    /// File that lists the split's classes, or none
    ///
    /// Default: that of the run.
    #[arg(long, value_name = "FILE", conflicts_with = "inputs", help_heading = DATA, value_parser = split_file,
        hide_short_help = true)]
    split_file: Option<SplitFile>,
    /// Array, and a list beside it
    #[arg(long, short, value_name = "FILE", default_value = "embeddings.npy", help_heading = OUTPUT)]
    out: PathBuf,
    /// feat, class, transform or invariant
    #[arg(long, value_name = "NAME", value_parser = choice::<Layer>(Layer::NAMES), default_value_t = Layer::Feature,
        help_heading = OUTPUT, hide_possible_values = true)]
    layer: Layer,
    /// Scale every row to length 1
    #[arg(long, visible_alias = "normalize", help_heading = OUTPUT)]
    normalise: bool,
    /// Refuse all files where one cannot be read
    ///
    /// Otherwise such a file is left out with a warning, and the exit code is 1.
    #[arg(long, conflicts_with = "data", help_heading = OUTPUT)]
    strict: bool,
}

/// Embeds and says what was written.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { split, inputs, .. } = args;
    let input = match args.data {
        Some(data) => Input::Split { data, split, split_file: args.split_file.unwrap_or_default() },
        None => Input::Paths(inputs),
    };
    let Args { checkpoint, out, layer, normalise, strict, .. } = args;
    let request = EmbedRequest { checkpoint, input, out, layer, normalise, strict };
    let outcome = context.with_progress(|progress| embed::run(&request, &context.session, progress))?;
    context.report.result("embed", &outcome, || {
        let (array, list) = (outcome.array.display(), outcome.list.display());
        format!("{} x {} float32 in {array}, paths in {list}", outcome.rows, outcome.columns)
    })?;
    outcome.complete()
}
