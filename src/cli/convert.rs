//! `convert`.

use std::path::PathBuf;

use super::Context;
use super::args::{choice, count};
use super::report::shell_word;
use crate::Result;
use crate::jobs::convert::{self, ConvertOutcome, ConvertRequest, Format};

/// Write a data set in another format
///
/// Reads what `train --data` reads, and writes all its splits, which `train` then reads as the same classes and pictures.
/// Pictures that are files keep their bytes in a folder, zip or tar, and are not looked into; others become PNG. Notes beside
/// pictures, such as captions, are left out.
///
/// folder, zip: class folders, below train/, val/ and test/ where the data has splits.
///
/// tar: webdataset's shards, train-000000.tar and so on, in the order of the classes (shuffle where they are streamed). Its
/// decoders take the classes: numbers are in a .cls, names are the label in a .json.
///
/// npz, pickle: train.npz with images (N x S x S x 3, uint8) and labels, train.pickle with data and labels.
///
/// idx: MNIST's files, for gray pictures.
///
/// Nothing lies at --out before it is whole. What a call that was killed had begun lies beside it as .writing-...; the next
/// call with this --out removes it. What a format cannot say is refused or warned of.
///
/// Pictures that are files pass one by one. Of data that is an array (npz, pickle, idx) a split is in memory: 4 bytes a pixel,
/// and the file itself while it is read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ieq-wgpu convert photos/ --to tar --out shards\n  \
    ieq-wgpu convert 'shards/train-{000000..000009}.tar' --to npz --side 84 --out arrays")]
pub struct Args {
    /// Data to read
    ///
    /// Folders of pictures, a zip or tar of them, webdataset's shards, idx files, pickles, .npz or .npy files, or glyphs.
    #[arg(value_name = "SRC")]
    data: String,
    /// folder, zip, tar, npz, pickle or idx
    #[arg(long, value_name = "FORMAT", value_parser = choice::<Format>(Format::NAMES), hide_possible_values = true)]
    to: Format,
    /// Zip or folder to write
    #[arg(long, short, value_name = "PATH")]
    out: PathBuf,
    /// Image side, pixels
    ///
    /// Arrays have pictures of one size. In a folder, zip or tar every picture becomes a PNG of this side.
    #[arg(long, value_name = "S", value_parser = count)]
    side: Option<usize>,
    /// JSON or CSV file that splits the classes
    #[arg(long, value_name = "FILE")]
    split_file: Option<PathBuf>,
    /// Pictures per tar [default: 10000]
    #[arg(long, value_name = "N", value_parser = count)]
    shard_size: Option<usize>,
}

/// Writes and says what.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { data, to, out, side, split_file, shard_size } = args;
    let request = ConvertRequest { data, to, out, side, split_file, shard_size };
    let outcome = context.with_progress(|progress| convert::run(&request, &context.session, progress))?;
    context.report.result("convert", &outcome, || text(&outcome))?;
    context.note(&format!("next: `ieq-wgpu train --data {}` trains on it", shell_word(&outcome.out)));
    Ok(())
}

fn text(outcome: &ConvertOutcome) -> String {
    let splits = outcome.splits.iter().map(|written| {
        let of = written.split.map_or(String::new(), |split| format!("{split}: "));
        format!("{of}{} pictures of {} classes", written.pictures, written.classes)
    });
    format!("{}: {}", outcome.out.display(), splits.collect::<Vec<_>>().join("; "))
}
