//! `embed`: images to rows of numbers, in memory that does not grow with their number.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::eval::{SplitFile, load_as_trained};
use super::extraction::Extraction;
use super::part::{Begun, Earlier, Part, Source};
use super::rows::warn_of_one;
use super::{Session, data_options, look_options, model, output_file, portability, source, warn_of};
use crate::data::embeddings::{self, Format, LACKS_PARQUET, Reader};
use crate::data::{self, DataOptions, ImageSet, LeftOut, Pictures};
use crate::files::replace_with;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

pub use super::extraction::Pace;
pub use super::portability::Comparison;

/// The largest relative difference to an earlier extraction, unless a request says another: rounding of f32 in sums of
/// another order stays below it, another network does not.
pub const TOLERANCE: f64 = 1e-4;

/// What lists everything that is left out.
const LIST: &str = "the file beside the embeddings";

/// An embedding job.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The checkpoint, or the run folder that holds it.
    pub checkpoint: PathBuf,
    /// The images.
    pub input: Input,
    /// The file to write; beside an array goes the list of the rows as .txt.
    pub out: PathBuf,
    /// Its format; none: as its ending says, and .npy for other endings.
    pub format: Option<Format>,
    /// Which output of the network.
    pub layer: Layer,
    /// Scale every row to length 1.
    pub normalise: bool,
    /// Refuse everything where one file cannot be read; else it is left out.
    pub strict: bool,
    /// Go on with the part file of a call that was stopped, where there is one.
    pub resume: bool,
    /// An earlier extraction to compare with.
    pub compare: Option<PathBuf>,
    /// The largest relative difference to it.
    pub tolerance: f64,
}

/// The images of an embedding job.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Folders, zip and tar files and image files, in the order given.
    Paths(Vec<PathBuf>),
    /// A split of a data set.
    Split {
        /// `glyphs` or a path.
        data: String,
        /// The split's name.
        split: String,
        /// The split file in place of the run's own.
        split_file: SplitFile,
    },
}

impl Input {
    /// Some of the images.
    fn look(&self) -> Result<ImageSet> {
        match self {
            Input::Paths(paths) => data::sample_unlabelled(paths, &look_options()),
            Input::Split { data, split, split_file } => {
                let split_file = match split_file {
                    SplitFile::File(file) => Some(file.clone()),
                    SplitFile::OfRun | SplitFile::None => None,
                };
                data::load(data, split.parse()?, &DataOptions { split_file, ..look_options() })
            }
        }
    }
}

/// Embeddings that were written.
#[derive(Clone, Debug, Serialize)]
pub struct EmbedOutcome {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// The file, float32 `[rows, columns]`.
    pub array: PathBuf,
    /// Its format.
    pub format: Format,
    /// The list beside an array: one path per line, in the order of the rows. Other formats have the paths themselves.
    pub list: Option<PathBuf>,
    /// Rows: images.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Files among the inputs that could not be read.
    pub left_out: Vec<LeftOut>,
    /// The list of these, path and reason separated by a tab; none where there are none.
    pub left_out_list: Option<PathBuf>,
    /// Rows that an earlier call had finished.
    pub resumed: usize,
    /// Pictures of this call, its seconds, and the share of them in which the device may have waited.
    pub pace: Pace,
    /// How far the embeddings are from the earlier extraction.
    pub comparison: Option<Comparison>,
}

impl EmbedOutcome {
    /// Fails where a file was left out, or the embeddings are not those of the earlier extraction.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are, or how far they are apart.
    pub fn complete(&self) -> Result<()> {
        self.comparison.as_ref().map_or(Ok(()), Comparison::within)?;
        match self.left_out.len() {
            0 => Ok(()),
            n => Err(Error::TargetMissed(format!(
                "{n} of {} files could not be read and have no row in {}: replace them or take them away",
                n + self.rows,
                self.array.display()
            ))),
        }
    }
}

impl EmbedRequest {
    /// The format that is written.
    pub fn format(&self) -> Format {
        self.format.or_else(|| Format::of_ending(&self.out)).unwrap_or(Format::Npy)
    }

    /// The list to write, beside an array.
    pub fn list(&self) -> Option<PathBuf> {
        embeddings::list_of(self.format(), &self.out)
    }

    /// The list of what is left out.
    fn left_out_list(&self) -> PathBuf {
        let mut name = self.out.as_os_str().to_owned();
        name.push(".left-out.txt");
        name.into()
    }

    fn validate(&self) -> Result<()> {
        let out = &self.out;
        output_file("request.out", out, "embeddings.npy")?;
        if !self.format().is_built() {
            return Err(Error::data(out, LACKS_PARQUET));
        }
        let list = self.list();
        if let Some(list) = &list {
            if list == out {
                return Err(Error::usage(format!(
                    "`request.out` {} is also the name of the list that goes beside it: end it in .npy",
                    out.display()
                )));
            }
            output_file("request.out", list, "embeddings.npy")?;
            if list.exists() && !out.exists() {
                return Err(Error::data(
                    list,
                    "this file is no list of an array beside it, and `request.out` would replace it: name another \
                     `request.out`, or move it",
                ));
            }
        } else if out.metadata().is_ok_and(|about| about.len() > 0) && Reader::open_as(out, self.format()).is_err() {
            // A table or checkpoint of the user's own.
            return Err(Error::data(
                out,
                "this file holds no embeddings, and `request.out` would replace it: name another `request.out`, or move it",
            ));
        }
        let tolerance = self.tolerance;
        if !(tolerance >= 0.0) {
            let (got, wanted) = (tolerance.to_string(), "at least 0, as in 0.0001".into());
            return Err(Error::Argument { what: "request.tolerance", got, wanted });
        }
        if let Some(earlier) = &self.compare {
            if super::same_path(earlier, out) {
                return Err(Error::data(
                    earlier,
                    "this is the file that `request.out` would replace: name another `request.out`",
                ));
            }
            Reader::open(earlier)?;
        }
        let sources = match &self.input {
            Input::Paths(paths) => {
                if let Some(missing) = paths.iter().find(|path| !path.exists()) {
                    return Err(Error::data(missing, "there is no such file or folder to embed"));
                }
                paths.clone()
            }
            Input::Split { data, .. } => {
                source(data)?;
                vec![data.into()]
            }
        };
        match [Some(out), list.as_ref()].into_iter().flatten().find(|path| sources.iter().any(|own| is_of(path, own))) {
            Some(spoilt) => Err(Error::data(
                spoilt,
                "this file is one of the inputs, and `request.out` would replace it: name another",
            )),
            None => Ok(()),
        }
    }
}

/// Whether a file is `source`, or in that folder; the files of an earlier call may be.
fn is_of(file: &Path, source: &Path) -> bool {
    let (Ok(file), Ok(source)) = (file.canonicalize(), source.canonicalize()) else { return false };
    let made = Format::of_ending(&file).is_some() || file.extension().is_some_and(|extension| extension == "txt");
    file == source || (file.starts_with(source) && !made)
}

/// Embeds images and writes the rows.
///
/// # Errors
/// A request, checkpoint or images that cannot be used; files that cannot be written; what the device refuses. What was
/// finished by then is in a part file beside the output, unless it is little.
pub fn run(request: &EmbedRequest, session: &Session, progress: &mut dyn Progress) -> Result<EmbedOutcome> {
    request.validate()?;
    let stored = model::open(&request.checkpoint, &mut || request.input.look(), progress)?;
    let side = stored.side()?;
    let options = data_options(&stored.config.data, Some(side));
    let pictures = match &request.input {
        Input::Paths(paths) => Source::Files(Pictures::open(paths, request.strict)?),
        Input::Split { data, split, split_file } => {
            let images = load_as_trained(&stored.config.data, side, data, split.parse()?, split_file)?;
            warn_of(&images, progress);
            Source::Set(images)
        }
    };
    let first = pictures.left_out().iter().enumerate();
    first.for_each(|(before, file)| warn_of_one(before, file, LIST, progress));
    let kernels = session.open_for_features(progress)?;
    let adapter = kernels.gpu().describe();
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let EmbedRequest { layer, normalise, strict, .. } = *request;
    let begun = Begun::new(&stored, adapter, extractor.width(layer), layer, normalise, strict)?.with(&pictures);
    let earlier = if request.resume { Earlier::GoOn } else { Earlier::Refuse };
    let mut part = Part::open(&request.out, &begun, &pictures, earlier)?.ok_or_else(|| Part::busy(&request.out))?;
    let resumed = part.rows;
    if part.done > 0 {
        progress.note(&format!("{} of {} pictures were embedded before", part.done, pictures.len()));
    } else if request.resume {
        progress.note("there is nothing to go on with: this call begins with the first picture");
    }
    let finished = finish(request, &extractor, &options, &mut part, &begun, progress);
    let (pace, left_out_list) = match finished {
        Ok(finished) => finished,
        Err(error) => {
            if let Some(how) = part.leave(&error, request.strict) {
                progress.note(&how);
            }
            return Err(error);
        }
    };
    let (rows, columns, left_out) = (part.rows, begun.columns, part.all_left_out());
    part.discard();
    let comparison = request.compare.as_ref().map(|earlier| {
        progress.note(&format!("comparing with {}", earlier.display()));
        portability::compare(&request.out, request.format(), earlier, request.tolerance)
    });
    Ok(EmbedOutcome {
        checkpoint: stored.file,
        array: request.out.clone(),
        format: request.format(),
        list: request.list(),
        rows,
        columns,
        left_out,
        left_out_list,
        resumed,
        pace,
        comparison: comparison.transpose()?,
    })
}

/// Embeds what is left, and writes all files from the part file.
fn finish(
    request: &EmbedRequest,
    extractor: &Extractor,
    options: &DataOptions,
    part: &mut Part,
    begun: &Begun,
    progress: &mut dyn Progress,
) -> Result<(Pace, Option<PathBuf>)> {
    let EmbedRequest { layer, normalise, strict, ref out, .. } = *request;
    let extraction = Extraction {
        extractor,
        layer,
        normalise,
        strict,
        options,
        out,
        list: LIST,
        what: "embedding",
        fail_on_io: false,
    };
    let pace = extraction.run(part, progress)?;
    let left_out = part.all_left_out();
    if part.rows == 0
        && let Some(first) = left_out.first()
    {
        return Err(Error::data(&first.path, first.why.clone()));
    }
    part.write(out, request.format(), begun, None)?;
    let beside = request.left_out_list();
    if left_out.is_empty() {
        // That of an earlier call is not that of these rows.
        let _ = std::fs::remove_file(&beside);
        return Ok((pace, None));
    }
    replace_with(&beside, "cannot write the list of what is left out", |file| {
        let mut buffered = BufWriter::new(file);
        for LeftOut { path, why } in &left_out {
            writeln!(buffered, "{}\t{}", embeddings::line(&path.display().to_string()), embeddings::line(why))?;
        }
        buffered.flush()
    })?;
    Ok((pace, Some(beside)))
}
