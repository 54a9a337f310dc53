//! `embed`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{EmbedArgs, Layer, SplitFile, checkpoint_file};
use super::engine::{self, EmbedOutcome};
use super::output_file;
use super::report::Report;
use crate::{Error, Result};

/// An embedding job with judged settings.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedJob {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// The images.
    pub input: Input,
    /// The array to write.
    pub out: PathBuf,
    /// The list to write: one path a line, in the order of the rows.
    pub list: PathBuf,
    /// Which output of the network.
    pub layer: Layer,
    /// Scale every row to length 1.
    pub normalise: bool,
}

/// The images of an embedding job.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Folders, zip files and image files, in the order given.
    Paths(Vec<PathBuf>),
    /// A split of a data set.
    Split {
        /// `glyphs` or a path.
        data: String,
        /// The split's name.
        split: String,
        /// The split file in place of the run's own.
        split_file: Option<SplitFile>,
    },
}

impl EmbedJob {
    /// Judges the flags.
    pub fn new(args: &EmbedArgs) -> Result<EmbedJob> {
        output_file("out", &args.out, "embeddings.npy")?;
        let list = args.out.with_extension("txt");
        if list == args.out {
            return Err(Error::usage(format!(
                "--out {} is also the name of the list that goes beside it: end it in .npy",
                args.out.display()
            )));
        }
        output_file("out", &list, "embeddings.npy")?;
        if list.exists() && !args.out.exists() {
            return Err(Error::data(
                list,
                "this file is no list of an array beside it, and --out would replace it: name another --out, or move it",
            ));
        }
        let input = match &args.data {
            Some(data) if data.is_empty() => {
                return Err(Error::usage("--data is empty (try glyphs, or a folder)"));
            }
            Some(data) => {
                Input::Split { data: data.clone(), split: args.split.clone(), split_file: args.split_file.clone() }
            }
            None => {
                if let Some(missing) = args.inputs.iter().find(|path| !path.exists()) {
                    return Err(Error::data(missing, "there is no such file or folder to embed"));
                }
                Input::Paths(args.inputs.clone())
            }
        };
        let sources = match &input {
            Input::Paths(paths) => paths.clone(),
            Input::Split { data, .. } => vec![data.into()],
        };
        if let Some(spoilt) = [&args.out, &list].into_iter().find(|path| sources.iter().any(|own| is_of(path, own))) {
            return Err(Error::data(
                spoilt,
                "this file is one of the inputs, and --out would replace it: name another",
            ));
        }
        Ok(EmbedJob {
            checkpoint: checkpoint_file(&args.checkpoint)?,
            input,
            out: args.out.clone(),
            list,
            layer: args.layer,
            normalise: args.normalise,
        })
    }
}

/// Whether a file is `source`, or in that folder; the array and the list of an earlier call may be.
fn is_of(file: &Path, source: &Path) -> bool {
    let (Ok(file), Ok(source)) = (file.canonicalize(), source.canonicalize()) else { return false };
    let made = file.extension().is_some_and(|extension| extension == "npy" || extension == "txt");
    file == source || (file.starts_with(source) && !made)
}

#[derive(Serialize)]
struct Body<'a> {
    checkpoint: &'a Path,
    array: &'a Path,
    list: &'a Path,
    #[serde(flatten)]
    outcome: &'a EmbedOutcome,
}

/// Embeds and says what was written.
pub fn run(args: &EmbedArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = EmbedJob::new(args)?;
    let mut live = report.live();
    let outcome = engine::embed(&job, adapter, &mut live);
    live.finish();
    let outcome = outcome?;
    let body = Body { checkpoint: &job.checkpoint, array: &job.out, list: &job.list, outcome: &outcome };
    report.result("embed", &body, || {
        format!(
            "{} x {} float32 in {}, paths in {}",
            outcome.rows,
            outcome.columns,
            job.out.display(),
            job.list.display()
        )
    })
}
