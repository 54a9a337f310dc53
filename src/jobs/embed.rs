//! `embed`: images to rows of an array.

use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use serde::Serialize;

use super::eval::{SplitFile, load_as_trained};
use super::{Session, data_options, look_options, model, output_file, source, warn_of};
use crate::data::{self, DataOptions, ImageSet, LeftOut};
use crate::fewshot::l2_normalise;
use crate::files::replace_file;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// An embedding job.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedRequest {
    /// The checkpoint, or the run folder that holds it.
    pub checkpoint: PathBuf,
    /// The images.
    pub input: Input,
    /// The array to write; the list of the rows goes beside it as .txt.
    pub out: PathBuf,
    /// Which output of the network.
    pub layer: Layer,
    /// Scale every row to length 1.
    pub normalise: bool,
    /// Refuse everything where one file cannot be read; else it is left out.
    pub strict: bool,
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
    /// The array, float32 `[rows, columns]`.
    pub array: PathBuf,
    /// The list: one path per line, in the order of the rows.
    pub list: PathBuf,
    /// Rows of the array: images.
    pub rows: usize,
    /// Columns of the array.
    pub columns: usize,
    /// Files among the inputs that could not be read.
    pub left_out: Vec<LeftOut>,
}

impl EmbedOutcome {
    /// Fails where a file was left out.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are.
    pub fn complete(&self) -> Result<()> {
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
    /// The list to write.
    pub fn list(&self) -> PathBuf {
        self.out.with_extension("txt")
    }

    fn validate(&self) -> Result<()> {
        let (out, list) = (&self.out, &self.list());
        output_file("request.out", out, "embeddings.npy")?;
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
        match [out, list].into_iter().find(|path| sources.iter().any(|own| is_of(path, own))) {
            Some(spoilt) => Err(Error::data(
                spoilt,
                "this file is one of the inputs, and `request.out` would replace it: name another",
            )),
            None => Ok(()),
        }
    }
}

/// Whether a file is `source`, or in that folder; the array and the list of an earlier call may be.
fn is_of(file: &Path, source: &Path) -> bool {
    let (Ok(file), Ok(source)) = (file.canonicalize(), source.canonicalize()) else { return false };
    let made = file.extension().is_some_and(|extension| extension == "npy" || extension == "txt");
    file == source || (file.starts_with(source) && !made)
}

/// Embeds images and writes the array and its list.
///
/// # Errors
/// A request, checkpoint or images that cannot be used; files that cannot be written; what the device refuses.
pub fn run(request: &EmbedRequest, session: &Session, progress: &mut dyn Progress) -> Result<EmbedOutcome> {
    request.validate()?;
    let stored = model::open(&request.checkpoint, &mut || request.input.look(), progress)?;
    let side = stored.side()?;
    let options = data_options(&stored.config.data, Some(side));
    let (images, left_out) = match &request.input {
        Input::Paths(paths) if request.strict => (data::load_unlabelled(paths, &options)?, Vec::new()),
        Input::Paths(paths) => data::load_readable(paths, &options)?,
        Input::Split { data, split, split_file } => {
            (load_as_trained(&stored.config.data, side, data, split.parse()?, split_file)?, Vec::new())
        }
    };
    left_out.iter().for_each(|file| progress.warn(&format!("left out {}: {}", file.path.display(), file.why)));
    warn_of(&images, progress);
    let kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let columns = extractor
        .width(request.layer)
        .ok_or_else(|| Error::usage("the network was trained without this head: choose another `request.layer`"))?;
    let mut features = extractor.features(&images, request.layer, None, progress)?;
    if request.normalise {
        l2_normalise(&mut features, columns);
    }
    let mut array = Vec::new();
    let internal = |e: std::io::Error| Error::Internal(format!("the array cannot be encoded: {e}"));
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[images.len() as u64, columns as u64])
        .writer(&mut array)
        .begin_nd()
        .map_err(internal)?;
    writer.extend(features.iter().copied()).map_err(internal)?;
    writer.finish().map_err(internal)?;
    // One line per row, whatever is in a name.
    let line = |name: &String| name.replace('\n', "\\n").replace('\r', "\\r") + "\n";
    let text: String = images.names.iter().map(line).collect();
    let list = request.list();
    replace_file(&request.out, "cannot write the embeddings", &array)?;
    replace_file(&list, "cannot write the list of paths", text.as_bytes()).inspect_err(|_| {
        // Neither is of use without the other, and an older list is that of another array.
        for half in [&request.out, &list] {
            let _ = std::fs::remove_file(half);
        }
    })?;
    let (array, rows) = (request.out.clone(), images.len());
    Ok(EmbedOutcome { checkpoint: stored.file, array, list, rows, columns, left_out })
}
