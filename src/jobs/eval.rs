//! `eval`: a checkpoint on few-shot episodes.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::score::{Score, Support, score};
use super::{Session, data_options, look_options, model, moved, percentage, source, warn_of, within};
use crate::data::{self, DataOptions, ImageSet, Split, read_episodes};
use crate::error::Change;
use crate::fewshot::{self, Classifier, EpisodeSize, Features, MeanInterval};
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::progress::Progress;
use crate::random::Stream;
use crate::settings::{DataConfig, TransformSet};
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// An evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalRequest {
    /// The checkpoint, or the run folder that holds it.
    pub checkpoint: PathBuf,
    /// Source of the images; none: the checkpoint's own.
    pub data: Option<String>,
    /// The split's name.
    pub split: String,
    /// The split file in place of the run's own.
    pub split_file: SplitFile,
    /// Which episodes.
    pub episodes: Episodes,
    /// Classifiers; repeats count once.
    pub classifiers: Vec<Classifier>,
    /// Copies of each support image; 1 leaves them as they are. The first is the image itself, except of official episodes:
    /// there all are augmented, as the method's authors do it.
    pub support_copies: usize,
    /// Score the initial network of the checkpoint's seed.
    pub untrained: bool,
    /// Accuracy that the first score is to reach, percent.
    pub min_acc: Option<f64>,
}

/// Ways, queries and number of the method's authors' episodes.
const OFFICIAL: (usize, usize, u32) = (5, 15, 600);

/// Which file lists the classes of the splits.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SplitFile {
    /// That of the run, so that no class which it trained on counts as novel.
    #[default]
    OfRun,
    /// None: the data decides.
    None,
    /// This one.
    File(PathBuf),
}

/// Which episodes an evaluation is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Episodes {
    /// Drawn by seed.
    Drawn {
        /// Classes per episode.
        ways: usize,
        /// Labelled images per class: a result for each; repeats count once.
        shots: Vec<usize>,
        /// Images to classify per class.
        queries: usize,
        /// Episodes for each number of shots.
        n_episodes: usize,
        /// Seed.
        seed: u64,
    },
    /// Read from a file.
    File {
        /// The .safetensors file.
        path: PathBuf,
        /// Which of its tensors, by number of shots.
        shots: Vec<usize>,
    },
    /// The method's authors' own 600: 5-way, 15 queries of a class.
    Official {
        /// Labelled images per class: a result for each; repeats count once.
        shots: Vec<usize>,
    },
    /// The official Omniglot 20-way one-shot runs of the `oneshot` split.
    OmniglotOneshot,
}

/// A finished evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct EvalOutcome {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// Whether the initial network was scored.
    pub untrained: bool,
    /// Seed of the episodes, where they were drawn.
    pub seed: Option<u64>,
    /// Copies of each support image.
    pub support_copies: usize,
    /// Where the images came from.
    pub data: String,
    /// The split's name.
    pub split: String,
    /// Its classes.
    pub classes: usize,
    /// Its images.
    pub images: usize,
    /// One score for each number of shots and classifier, shots outermost, in the order asked for.
    pub scores: Vec<Score>,
}

/// The items without repeats, in order.
fn distinct<T: PartialEq + Clone>(items: &[T]) -> Vec<T> {
    items.iter().enumerate().filter(|(i, item)| !items[..*i].contains(item)).map(|(_, item)| item.clone()).collect()
}

impl EvalRequest {
    fn validate(&self) -> Result<()> {
        percentage(self.min_acc)?;
        if let Episodes::Drawn { ways, queries, n_episodes, .. } = self.episodes {
            within("request.ways", ways, 2, 1000)?;
            within("request.queries", queries, 1, 1000)?;
            within("request.n_episodes", n_episodes, 2, 1_000_000)?;
        }
        if let Episodes::Drawn { shots, .. } | Episodes::File { shots, .. } | Episodes::Official { shots } =
            &self.episodes
        {
            shots.iter().try_for_each(|&shots| within("request.shots", shots, 1, 1000))?;
        }
        if let Episodes::File { path, .. } = &self.episodes
            && !path.is_file()
        {
            return Err(Error::data(path, "there is no such file: `request.episodes` wants a .safetensors file"));
        }
        within("request.support_copies", self.support_copies, 1, 100)?;
        self.data.as_deref().map_or(Ok(()), source)
    }

    /// The images, where the checkpoint need not be known to read them.
    fn look(&self) -> Result<ImageSet> {
        let Some(data) = &self.data else {
            return Err(Error::usage(
                "`request.data` is wanted, by which a shipped network is chosen and on which it is scored",
            ));
        };
        if self.episodes == Episodes::OmniglotOneshot {
            let runs = data::read_oneshot_runs(data, &look_options())?.unwrap_or_default();
            return Ok(runs.into_iter().next().map(|run| run.train).unwrap_or_default());
        }
        let split_file = match &self.split_file {
            SplitFile::File(file) => Some(file.clone()),
            SplitFile::OfRun | SplitFile::None => None,
        };
        data::load(data, self.split.parse()?, &DataOptions { split_file, ..look_options() })
    }
}

/// Reads a split for a checkpoint as its run would have, except for a split file that the request names: that way no
/// class which the network was trained on counts as novel.
pub(super) fn load_as_trained(
    stored: &DataConfig,
    side: usize,
    source: &str,
    split: Split,
    split_file: &SplitFile,
) -> Result<ImageSet> {
    let mut options = data_options(stored, Some(side));
    match split_file {
        SplitFile::OfRun => {}
        SplitFile::None => options.split_file = None,
        SplitFile::File(file) => options.split_file = Some(file.clone()),
    }
    let result = data::load(source, split, &options);
    if *split_file != SplitFile::OfRun {
        return result;
    }
    result.map_err(|error| {
        const OTHERS: &str = "it is the split file of the run: `request.split_file` names another, or none";
        // A table of images is one of several in its folder.
        let table = |path: &Path| path.extension().is_some_and(|extension| extension == "csv");
        let own = |path: &Path| {
            let file = options.split_file.as_deref();
            file.is_some_and(|file| path == file || (table(path) && table(file) && path.parent() == file.parent()))
        };
        match error {
            Error::Data { path, message } if own(&path) => Error::data(path, format!("{message}; {OTHERS}")),
            Error::NoSplit { path, message } if own(&path) => Error::no_split(path, format!("{message}; {OTHERS}")),
            Error::Io { path, what, source } if own(&path) => Error::io(path, format!("{what} ({OTHERS})"), source),
            other => other,
        }
    })
}

/// Scores a checkpoint.
///
/// # Errors
/// A request, checkpoint or data that cannot be used, and what the device refuses.
pub fn run(request: &EvalRequest, session: &Session, progress: &mut dyn Progress) -> Result<EvalOutcome> {
    request.validate()?;
    let stored = model::open(&request.checkpoint, &mut || request.look(), progress)?;
    let side = stored.side()?;
    let source = request.data.clone().unwrap_or_else(|| stored.config.data.source.clone());
    let own_data = |error| if request.data.is_none() { moved(error, &source, "request.data") } else { error };
    let classifiers = distinct(&request.classifiers);
    let mut outcome = EvalOutcome {
        checkpoint: stored.file.clone(),
        untrained: request.untrained,
        seed: None,
        support_copies: request.support_copies,
        data: source.clone(),
        split: "oneshot".into(),
        classes: 0,
        images: 0,
        scores: Vec::new(),
    };
    let open = |progress: &mut dyn Progress| {
        let kernels = session.open_for_features(progress)?;
        Extractor::open(kernels, &stored.file, &stored.checkpoint, request.untrained)
    };
    if request.episodes == Episodes::OmniglotOneshot {
        let runs = data::read_oneshot_runs(&source, &data_options(&stored.config.data, Some(side)));
        let runs = runs.map_err(own_data)?.ok_or_else(|| {
            Error::data(&source, "there is no `oneshot` folder with run01, run02, ... in it for `request.oneshot`")
        })?;
        outcome.classes = runs.iter().map(|run| run.train.len()).sum();
        outcome.images = runs.iter().map(|run| run.train.len() + run.test.len()).sum();
        outcome.scores = oneshot(&open(progress)?.0, &runs, &classifiers, progress)?;
        return Ok(outcome);
    }
    let split: Split = request.split.parse()?;
    let images = load_as_trained(&stored.config.data, side, &source, split, &request.split_file).map_err(own_data)?;
    warn_of(&images, progress);
    let mut batches = Vec::new();
    match &request.episodes {
        Episodes::Drawn { ways, shots, queries, n_episodes, seed } => {
            outcome.seed = Some(*seed);
            for shots in distinct(shots) {
                let drawn = data::draw(&images, *ways, shots, *queries, *n_episodes, *seed);
                batches.push(drawn.map_err(another_split)?);
            }
        }
        Episodes::File { path, shots } => {
            for shots in distinct(shots) {
                batches.push(read_episodes(path, shots, images.len())?);
            }
        }
        Episodes::Official { shots } => {
            let (ways, queries, n) = OFFICIAL;
            if let Some(all) = images.drawn_from {
                return Err(Error::usage(format!(
                    "the classes of split {split} were drawn from {all} by seed, and the authors' episodes are of their \
                     split: name data that has it, or draw them, without `request.episodes`"
                )));
            }
            if images.names.first().is_some_and(|name| data::is_image_name(name)) {
                progress.warn(
                    "these are episodes drawn as the authors draw theirs, and not the same: pictures in folders stand in \
                     another order than in the authors' files",
                );
            }
            for shots in distinct(shots) {
                batches.push(data::official(&images, ways, shots, queries, n)?);
            }
        }
        Episodes::OmniglotOneshot => {}
    }
    let (extractor, config) = open(progress)?;
    let features = extractor.features(&images, Layer::Feature, None, progress)?;
    let width = features.len() / images.len().max(1);
    // The method's authors' copies have other colours, too, and there is none without changes.
    let is_official = matches!(request.episodes, Episodes::Official { .. }) && request.support_copies > 1;
    let jitter = if is_official { Augmentation::default().jitter } else { 0.0 };
    let augment = Augmentation { jitter, ..Augmentation::default() };
    let padding = config.data.crop_padding_for(side);
    let sampler = ViewSampler::new(TransformSet::Rot4, side, padding, config.run.seed, augment);
    let sampler = sampler.with_stream(Stream::Support);
    let mut copies = Vec::new();
    for copy in u32::from(!is_official)..request.support_copies as u32 {
        copies.push(extractor.features(&images, Layer::Feature, Some((&sampler, copy)), progress)?);
    }
    let support = Support { copies: &copies, plain: !is_official };
    for episodes in &batches {
        outcome.scores.extend(score(&features, width, episodes, &classifiers, support, progress)?);
    }
    (outcome.split, outcome.classes, outcome.images) = (split.to_string(), images.n_classes(), images.len());
    Ok(outcome)
}

/// The error of a split that is too small, whose way out is another split: a member of the request.
fn another_split(error: Error) -> Error {
    let Error::Conflict { keys, why, changes } = error else { return error };
    let of_request = |change| match change {
        Change::Set("split", name) => Change::Set("request.split", name),
        other => other,
    };
    let keys = keys.into_iter().map(|key| if key == "split" { "request.split" } else { key }).collect();
    Error::Conflict { keys, why, changes: changes.into_iter().map(of_request).collect() }
}

/// The official Omniglot runs: each test drawing goes to one of the run's training drawings.
fn oneshot(
    extractor: &Extractor,
    runs: &[data::OneShotRun],
    classifiers: &[Classifier],
    progress: &mut dyn Progress,
) -> Result<Vec<Score>> {
    let mut accuracies = vec![Vec::new(); classifiers.len()];
    for run in runs {
        let train = extractor.features(&run.train, Layer::Feature, None, progress)?;
        let test = extractor.features(&run.test, Layer::Feature, None, progress)?;
        let width = train.len() / run.train.len().max(1);
        for (classifier, all) in classifiers.iter().zip(&mut accuracies) {
            let (train, test) = (Features::new(&train, width)?, Features::new(&test, width)?);
            all.push(fewshot::score_run(train, test, &run.answer, *classifier)?);
        }
    }
    let size = EpisodeSize { ways: runs.first().map_or(0, |run| run.train.len()), shots: 1, queries: 1 };
    let scores = classifiers.iter().zip(&accuracies);
    scores.map(|(classifier, all)| Ok(Score::new(*classifier, size, MeanInterval::of(all)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_dropped_in_order() {
        assert_eq!(distinct(&[5, 1, 5, 1, 2]), [5, 1, 2]);
    }
}
