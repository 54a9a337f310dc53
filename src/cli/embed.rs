//! `embed`.

use std::path::{Path, PathBuf};

use super::Context;
use super::args::{choice, number};
use super::eval::split_file;
use super::report::{duration, shell_word};
use crate::Result;
use crate::data::embeddings::Format;
use crate::jobs::embed::{self, EmbedOutcome, EmbedRequest, Input, Pace, TOLERANCE};
use crate::jobs::eval::SplitFile;
use crate::jobs::shards::{self, PartOf, ShardsOutcome, ShardsRequest};
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
/// With --shards a file per archive: any number of processes, each with its --part, on any number of machines. A finished
/// shard is skipped, so a call that was stopped is given again as it was. What cannot be read is counted, and listed in the
/// shard's .stats.json (in .parquet also as rows without an embedding).
///
/// Exit: 0 done; 1 a picture was left out, or --compare found a difference beyond --tolerance. With --shards: 0 all shards
/// of the part are finished, whatever was left out of them; 1 some are not.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ieq-wgpu embed runs/demo photos/ --out photos.npy\n  \
    ieq-wgpu embed runs/demo --shards 'web-{000000..000099}.tar' --part 3/8 --out embedded")]
pub struct Args {
    /// Checkpoint or run folder
    ///
    /// Of a run folder the network that validated best (best.safetensors), or else the last one. The path of its
    /// checkpoint.safetensors means the last one. `shipped` is the network of the program's own that suits the pictures,
    /// `shipped:strokes` that for letters and signs. A .pth of PyTorch's will do, too: `export --help` says how.
    checkpoint: PathBuf,
    /// Images: folders, zip and tar files, image files
    #[arg(value_name = "INPUT", required_unless_present_any = ["data", "shards"])]
    inputs: Vec<PathBuf>,
    /// Embed a data set's split instead of files
    #[arg(long, value_name = "SRC", conflicts_with = "inputs", help_heading = DATA)]
    data: Option<String>,
    /// Split of --data
    ///
    /// train, val or novel; all: every class, whatever its split.
    #[arg(long, value_name = "NAME", default_value = "novel", conflicts_with_all = ["inputs", "shards"],
        hide_short_help = true, help_heading = DATA)]
    split: String,
    /// File that lists the split's classes, or none
    ///
    /// Default: that of the run.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "shards"], help_heading = DATA,
        value_parser = split_file,
        hide_short_help = true)]
    split_file: Option<SplitFile>,
    /// Archives to embed into a file each
    ///
    /// Tars (.tar.gz, too), zips or folders of pictures, or patterns of their names: web-{000000..000099}.tar. --out is
    /// the folder of the results, --format their format.
    #[arg(long, value_name = "SHARD", num_args = 1.., conflicts_with_all = ["inputs", "data", "resume", "compare"],
        requires = "out", help_heading = DATA)]
    shards: Vec<String>,
    /// Of --shards the I-th part of N
    ///
    /// From 1/N to N/N: every N-th shard from the I-th on.
    #[arg(long, value_name = "I/N", requires = "shards", help_heading = DATA)]
    part: Option<PartOf>,
    /// File; its ending is its format [default: embeddings.npy]
    ///
    /// .npy, .safetensors, .csv, .jsonl or .parquet; any other is an array as .npy is. With --shards a folder.
    #[arg(long, short, value_name = "FILE", help_heading = OUTPUT)]
    out: Option<PathBuf>,
    /// Format in place of that of the ending
    ///
    /// npy, safetensors, csv, jsonl or parquet. With --shards npy if not given.
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
    /// FILE.left-out.txt, and the exit code is 1. Of --shards it refuses the shard.
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
    #[arg(long, value_name = "FILE", help_heading = OUTPUT, hide_short_help = true)]
    compare: Option<PathBuf>,
    /// Largest relative difference of --compare
    ///
    /// Of a row: its largest difference over its largest number. Beyond it the exit code is 1.
    #[arg(long, value_name = "F", default_value_t = TOLERANCE, value_parser = number, help_heading = OUTPUT,
        conflicts_with = "shards", hide_short_help = true)]
    tolerance: f64,
}

/// Embeds and says what was written.
pub fn run(args: Args, context: &Context) -> Result<()> {
    if !args.shards.is_empty() {
        return run_shards(args, context);
    }
    let Args { split, inputs, .. } = args;
    let input = match args.data {
        Some(data) => Input::Split { data, split, split_file: args.split_file.unwrap_or_default() },
        None => Input::Paths(inputs),
    };
    let Args { checkpoint, out, format, layer, normalise, strict, resume, compare, tolerance, .. } = args;
    let out = out.unwrap_or_else(|| "embeddings.npy".into());
    let request = EmbedRequest { checkpoint, input, out, format, layer, normalise, strict, resume, compare, tolerance };
    context.interruptible("stopping after this batch; Ctrl-C again stops at once")?;
    let outcome = context.with_progress(|progress| embed::run(&request, &context.session, progress))?;
    context.report.result("embed", &outcome, || text(&outcome))?;
    // `neighbors` knows a file of embeddings by its ending, and compares features.
    if request.layer == Layer::Feature && Format::of_ending(&outcome.array).is_some() {
        context.note(&next(&outcome.array, &request.checkpoint));
    }
    outcome.complete()
}

/// Embeds shards and says what became of them.
fn run_shards(args: Args, context: &Context) -> Result<()> {
    let Args { checkpoint, shards, part, out, format, layer, normalise, strict, .. } = args;
    let request = ShardsRequest {
        checkpoint,
        shards,
        part: part.unwrap_or(PartOf { part: 1, of: 1 }),
        out: out.unwrap_or_default(),
        format: format.unwrap_or(Format::Npy),
        layer,
        normalise,
        strict,
    };
    context.interruptible("stopping after this batch; Ctrl-C again stops at once")?;
    let outcome = context.with_progress(|progress| shards::run(&request, &context.session, progress))?;
    context.report.result("embed-shards", &outcome, || text_of_shards(&outcome))?;
    if request.layer == Layer::Feature && outcome.rows > 0 {
        context.note(&next(&request.out, &request.checkpoint));
    }
    outcome.complete()
}

/// What to do with embeddings.
fn next(embeddings: &Path, checkpoint: &Path) -> String {
    format!(
        "next: `ieq-wgpu neighbors PICTURE --in {} --model {}` finds the pictures most similar to one",
        shell_word(embeddings),
        shell_word(checkpoint)
    )
}

fn text_of_shards(outcome: &ShardsOutcome) -> String {
    let ShardsOutcome { shards, embedded, finished_before, elsewhere, failed, rows, columns, left_out, .. } = outcome;
    let out = outcome.out.display();
    let PartOf { part, of } = outcome.part;
    let mut lines = vec![format!("{rows} x {columns} float32 of {} shards in {out}", embedded + finished_before)];
    let mut counts = vec![format!("{embedded} embedded now"), format!("{finished_before} finished before")];
    for (n, what) in [(elsewhere.len(), "in work by another process"), (failed.len(), "could not be read")] {
        if n > 0 {
            counts.push(format!("{n} {what}"));
        }
    }
    lines.push(format!("part {part} of {of}, {shards} shards: {}", counts.join(", ")));
    lines.extend(pace(&outcome.pace));
    if *left_out > 0 {
        lines.push(format!("{left_out} files left out, listed in {out}/*.stats.json"));
    }
    lines.join("\n")
}

fn pace(pace: &Pace) -> Option<String> {
    let idle = 100.0 * pace.device_idle;
    let (pictures, rate) = (pace.pictures, pace.rate());
    (pictures > 0).then(|| {
        format!(
            "{pictures} pictures in {}, {rate:.0} per second; the device waited at most {idle:.0} % of it",
            duration(pace.seconds)
        )
    })
}

fn text(outcome: &EmbedOutcome) -> String {
    let EmbedOutcome { rows, columns, .. } = outcome;
    let file = outcome.array.display();
    let mut lines = vec![match &outcome.list {
        Some(list) => format!("{rows} x {columns} float32 in {file}, paths in {}", list.display()),
        None => format!("{rows} x {columns} float32 with their paths in {file}"),
    }];
    lines.extend(pace(&outcome.pace));
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
