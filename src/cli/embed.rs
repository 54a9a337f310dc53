//! `embed`.

use std::path::PathBuf;

use super::Context;
use super::args::{choice, number};
use super::eval::split_file;
use super::report::{duration, shell_word};
use crate::Result;
use crate::data::embeddings::Format;
use crate::jobs::embed::{self, EmbedOutcome, EmbedRequest, Input, TOLERANCE};
use crate::jobs::eval::SplitFile;
use crate::train::features::Layer;

const DATA: &str = "Data";
const OUTPUT: &str = "Output";

/// Write the embeddings of images: .npy, .csv and others
///
/// One row per image. Threads decode pictures ahead of the device, and memory does not grow with their number. Rows
/// are kept in FILE.part until all are there, so that a call which was stopped can go on (--resume); the result is the
/// same, byte for byte.
///
/// Formats: .npy, with the list of paths beside it as .txt; .safetensors, with the tensors embeddings and paths (one path
/// per line); .csv, with the columns path, e0, e1, ...; .jsonl, an object with path and embedding per line; .parquet, with
/// the columns path and embedding, in a build with that feature.
///
/// Exit: 0 done, 1 a picture was left out or --compare found a difference beyond --tolerance.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu embed runs/demo photos/ --out photos.npy")]
pub struct Args {
    /// Checkpoint or run folder
    ///
    /// Of a run folder the network that validated best (best.safetensors), or else the last one. The path of its
    /// checkpoint.safetensors means the last one. `shipped` is the network of the program's own that suits the pictures,
    /// `shipped:strokes` that for letters and signs. A .pth of PyTorch's will do, too: `export --help` says how.
    checkpoint: PathBuf,
    /// Images: folders, zip and tar files, image files
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
    /// File; its ending is its format
    ///
    /// .npy, .safetensors, .csv, .jsonl or .parquet; any other is an array as .npy is.
    #[arg(long, short, value_name = "FILE", default_value = "embeddings.npy", help_heading = OUTPUT)]
    out: PathBuf,
    /// Format in place of that of the ending
    ///
    /// npy, safetensors, csv, jsonl or parquet.
    #[arg(long, value_name = "NAME", value_parser = choice::<Format>(Format::NAMES), help_heading = OUTPUT,
        hide_possible_values = true, hide_short_help = true)]
    format: Option<Format>,
    /// feat, class, transform or invariant
    #[arg(long, value_name = "NAME", value_parser = choice::<Layer>(Layer::NAMES), default_value_t = Layer::Feature,
        help_heading = OUTPUT, hide_possible_values = true)]
    layer: Layer,
    /// Scale every row to length 1
    #[arg(long, visible_alias = "normalize", help_heading = OUTPUT)]
    normalise: bool,
    /// Refuse all files where one cannot be read
    ///
    /// Otherwise such a file is left out with a warning, a list of them is written beside the output as
    /// FILE.left-out.txt, and the exit code is 1.
    #[arg(long, conflicts_with = "data", help_heading = OUTPUT)]
    strict: bool,
    /// Go on where a call that was stopped had come to
    ///
    /// It takes the same checkpoint, pictures and flags; where something is different it says what. Where nothing was
    /// stopped it begins with the first picture.
    #[arg(long, help_heading = OUTPUT)]
    resume: bool,
    /// Compare with an earlier extraction
    ///
    /// The portability check between two machines: rows are matched by path, and the largest differences and the least
    /// cosine are said. Where the folders have moved, paths count below what all of them have in common.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    compare: Option<PathBuf>,
    /// Largest relative difference of --compare
    ///
    /// Of a row: its largest difference over its largest number. Beyond it the exit code is 1.
    #[arg(long, value_name = "F", default_value_t = TOLERANCE, value_parser = number, help_heading = OUTPUT,
        hide_short_help = true)]
    tolerance: f64,
}

/// Embeds and says what was written.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { split, inputs, .. } = args;
    let input = match args.data {
        Some(data) => Input::Split { data, split, split_file: args.split_file.unwrap_or_default() },
        None => Input::Paths(inputs),
    };
    let Args { checkpoint, out, format, layer, normalise, strict, resume, compare, tolerance, .. } = args;
    let request = EmbedRequest { checkpoint, input, out, format, layer, normalise, strict, resume, compare, tolerance };
    context.interruptible("stopping after this batch; Ctrl-C again stops at once")?;
    let outcome = context.with_progress(|progress| embed::run(&request, &context.session, progress))?;
    context.report.result("embed", &outcome, || text(&outcome))?;
    // `neighbors` knows a file of embeddings by its ending, and compares features.
    if request.layer == Layer::Feature && Format::of_ending(&outcome.array).is_some() {
        context.note(&format!(
            "next: `ieq-wgpu neighbors PICTURE --in {} --model {}` finds the pictures most similar to one",
            shell_word(&outcome.array),
            shell_word(&request.checkpoint)
        ));
    }
    outcome.complete()
}

fn text(outcome: &EmbedOutcome) -> String {
    let EmbedOutcome { rows, columns, pace, .. } = outcome;
    let file = outcome.array.display();
    let mut lines = vec![match &outcome.list {
        Some(list) => format!("{rows} x {columns} float32 in {file}, paths in {}", list.display()),
        None => format!("{rows} x {columns} float32 with their paths in {file}"),
    }];
    if pace.pictures > 0 {
        let idle = 100.0 * pace.device_idle;
        let (pictures, rate) = (pace.pictures, pace.rate());
        lines.push(format!(
            "{pictures} pictures in {}, {rate:.0} per second; the device waited at most {idle:.0} % of it",
            duration(pace.seconds)
        ));
    }
    if let Some(list) = &outcome.left_out_list {
        lines.push(format!("{} files left out, listed in {}", outcome.left_out.len(), list.display()));
    }
    if let Some(found) = &outcome.comparison {
        lines.push(format!(
            "against {}: {} rows in common, {} only here, {} only there; largest difference {:.2e}, relative {:.2e}, \
             least cosine {:.9}",
            found.file.display(),
            found.rows,
            found.only_here,
            found.only_there,
            found.largest_difference,
            found.largest_relative,
            found.least_cosine
        ));
    }
    lines.join("\n")
}
