//! The seam between the commands and the jobs: one function a command, called with judged settings only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Scoring;
use super::args::SplitFile;
use super::bench::BenchJob;
use super::check::CheckJob;
use super::distill::DistillJob;
use super::embed::EmbedJob;
use super::embed::Input;
use super::eval::Episodes;
use super::eval::EvalJob;
use super::plan::PlanJob;
use super::report::{bytes, shell_word};
use super::train::{OpenFolder, TrainJob};
use super::tuning;
use crate::data::{self, DataOptions, Episode, ImageSet, Split, read_episodes};
use crate::fewshot::{self, Classifier, EpisodeSize, Features, MeanInterval, l2_normalise};
use crate::files::replace_file;
use crate::gpu::adapter::{self, AdapterChoice};
use crate::gpu::device::{Gpu, Options, WANTED_FEATURES};
use crate::gpu::kernel::Kernels;
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::ops;
use crate::progress::Progress;
use crate::random::Stream;
use crate::settings::{Config, DataConfig, TransformSet, Tune};
use crate::tape::plan::Plan;
use crate::train::Teacher;
use crate::train::budget::{Fitted, Room, fit};
use crate::train::checkpoint::Checkpoint;
use crate::train::features::Layer;
use crate::train::memory::Memory;
use crate::train::record::{DataShape, spec, training_step, validate};
use crate::train::run::run_reopening;
use crate::train::state::{stored_config, stored_side};
use crate::train::{Extractor, Trainer};
use crate::{Error, Result};
use npyz::WriterBuilder;

/// An adapter of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceEntry {
    /// The number that `--adapter` takes.
    pub index: usize,
    /// The name that `--adapter` takes a part of.
    pub name: String,
    /// vulkan, metal, dx12 or gl.
    pub backend: String,
    /// discrete, integrated, virtual, cpu or other.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Whether the commands use it as things stand.
    pub chosen: bool,
    /// Limits that decide what fits, by their WebGPU names.
    pub limits: BTreeMap<&'static str, u64>,
    /// Features that the engine can make use of, where the adapter has them.
    pub features: Vec<String>,
}

/// Accuracy over episodes.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The classifier's name on the command line.
    pub classifier: String,
    /// Classes an episode.
    pub ways: usize,
    /// Labelled images a class.
    pub shots: usize,
    /// Images to classify a class.
    pub queries: usize,
    /// Number of episodes.
    pub episodes: usize,
    /// Mean accuracy, percent.
    pub accuracy_pct: f64,
    /// Half of the 95 % interval, percent.
    pub interval_pct: f64,
}

/// A finished training run.
#[derive(Clone, Debug, Serialize)]
pub struct TrainOutcome {
    /// The final checkpoint.
    pub checkpoint: PathBuf,
    /// Steps of the run.
    pub steps: u32,
    /// Last loss; none where no step was left to do and the run's metrics are gone.
    pub loss: Option<f64>,
    /// Wall time of this process's share of the steps, seconds.
    pub seconds: f64,
    /// Images a second over these steps.
    pub images_per_second: f64,
    /// Scores of the initial network on the novel classes, 1-shot by logistic regression first; empty where the
    /// run is not scored.
    pub untrained: Vec<Score>,
    /// Scores of the trained network, in the same order.
    pub trained: Vec<Score>,
}

/// A finished evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct EvalOutcome {
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

/// Embeddings that were written.
#[derive(Clone, Debug, Serialize)]
pub struct EmbedOutcome {
    /// Rows of the array: images.
    pub rows: usize,
    /// Columns of the array.
    pub columns: usize,
}

/// A planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanOutcome {
    /// The settings in effect.
    pub config: Config,
    /// What `--memory-budget` chose, and what it costs; a sentence each.
    pub choices: Vec<String>,
    /// Micro-batches of a step; `ops` are those of one.
    pub parts: usize,
    /// Whether the whole training set is on the device.
    pub resident: bool,
    /// Rows a step.
    pub rows: usize,
    /// Trained parameters.
    pub parameters: u64,
    /// Most bytes on the device at once.
    pub peak_bytes: u64,
    /// Bytes of everything that outlives a step, by the name of its buffer.
    pub arenas: BTreeMap<String, u64>,
    /// Bytes of activations, gradients of activations and workspace: of all slots.
    pub activations_bytes: u64,
    /// Position of the operation at which most bytes are alive.
    pub peak_node: usize,
    /// All bytes by what they are for.
    pub memory: Memory,
    /// Multiply-adds of a step.
    pub multiply_adds: u64,
    /// Every operation in order.
    pub ops: Vec<PlanEntry>,
}

/// An operation of a planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEntry {
    /// The operation, such as `conv2d.forward`.
    pub op: String,
    /// Shape of its output.
    pub shape: Vec<usize>,
    /// Layer that it belongs to; backward operations end in '.
    pub scope: String,
    /// Slot that holds the output; none where it outlives the step.
    pub slot: Option<usize>,
    /// Bytes of the output.
    pub bytes: u64,
}

/// A shader compared with its CPU twin.
#[derive(Clone, Debug, Serialize)]
pub struct CheckEntry {
    /// The check, such as `conv2d.backward_weight 3x3 stride 2`.
    pub name: String,
    /// Largest difference found.
    pub error: f64,
    /// Largest difference allowed where it was found.
    pub tolerance: f64,
    /// Whether every number is within its tolerance.
    pub passed: bool,
}

fn open_device(adapter: Option<&str>, tune: Tune, progress: &mut dyn Progress) -> Result<Arc<Gpu>> {
    let gpu = Gpu::open(&Options { choice: AdapterChoice::parse(adapter), ..Options::default() })?;
    tuning::begin(&gpu, tune, crate::train::clock);
    progress.note(&format!("adapter: {}", gpu.describe()));
    Ok(gpu)
}

/// A device for features alone: with the kernels that training chose on it, and without measuring more.
fn open_for_features(adapter: Option<&str>, progress: &mut dyn Progress) -> Result<Arc<Gpu>> {
    let gpu = open_device(adapter, Tune::Auto, progress)?;
    gpu.tuning(|tuning| tuning.measure = None);
    Ok(gpu)
}

fn data_options(data: &DataConfig, side: Option<usize>) -> DataOptions {
    DataOptions { side: side.or(data.side), split_seed: data.split_seed, split_file: data.split_file.clone() }
}

/// The adapters of this machine; `adapter` is the user's choice.
pub fn devices(adapter: Option<&str>) -> Result<Vec<DeviceEntry>> {
    let all = adapter::list();
    let (chosen, _) = adapter::position(&all, &AdapterChoice::parse(adapter))?;
    let entries = all.into_iter().enumerate().map(|(index, listed)| {
        let limits = listed.adapter.limits();
        let features = listed.adapter.features();
        let mut names: Vec<String> = features
            .iter_names()
            .filter(|(_, f)| WANTED_FEATURES.contains(*f))
            .map(|(n, _)| n.to_lowercase())
            .collect();
        names.sort();
        DeviceEntry {
            index,
            name: listed.info.name.clone(),
            backend: format!("{:?}", listed.info.backend).to_lowercase(),
            kind: match listed.info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "cpu",
                wgpu::DeviceType::Other => "other",
            }
            .into(),
            driver: format!("{} {}", listed.info.driver, listed.info.driver_info).trim().to_owned(),
            chosen: index == chosen,
            limits: [
                ("maxBufferSize", limits.max_buffer_size),
                ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size),
                ("maxStorageBuffersPerShaderStage", u64::from(limits.max_storage_buffers_per_shader_stage)),
                ("maxComputeWorkgroupStorageSize", u64::from(limits.max_compute_workgroup_storage_size)),
                ("maxComputeInvocationsPerWorkgroup", u64::from(limits.max_compute_invocations_per_workgroup)),
                ("maxComputeWorkgroupsPerDimension", u64::from(limits.max_compute_workgroups_per_dimension)),
                ("minSubgroupSize", u64::from(listed.info.subgroup_min_size)),
                ("maxSubgroupSize", u64::from(listed.info.subgroup_max_size)),
            ]
            .into(),
            features: names,
        }
    });
    Ok(entries.collect())
}

/// The configuration inside a checkpoint.
pub fn checkpoint_config(checkpoint: &Path) -> Result<Config> {
    stored_config(checkpoint, &Checkpoint::load(checkpoint)?)
}

/// Episodes on the novel classes that a run is scored with before and after: 5-way, 1 and 5 shots.
const RUN_EPISODES: (usize, [usize; 2], usize, usize) = (5, [1, 5], 15, 600);

/// The scores of features over episodes drawn by seed, or read.
fn score(
    features: &[f32],
    width: usize,
    episodes: &[Episode],
    classifiers: &[Classifier],
    copies: &[Vec<f32>],
    progress: &dyn Progress,
) -> Result<Vec<Score>> {
    let Some(first) = episodes.first() else { return Ok(Vec::new()) };
    // Augmented copies of the support follow the images as further rows.
    let rows = features.len() / width;
    let mut all = features.to_vec();
    copies.iter().for_each(|copy| all.extend_from_slice(copy));
    let supports: Vec<Vec<u32>> = episodes
        .iter()
        .map(|e| {
            let class = |c: usize| &e.support[c * e.shots..(c + 1) * e.shots];
            let with_copies =
                |c: usize| (0..=copies.len()).flat_map(move |k| class(c).iter().map(move |i| i + (k * rows) as u32));
            (0..e.ways).flat_map(with_copies).collect()
        })
        .collect();
    let size = EpisodeSize { ways: first.ways, shots: first.shots * (1 + copies.len()), queries: first.queries };
    let pairs = supports.iter().zip(episodes).map(|(s, e)| (s.as_slice(), e.query.as_slice()));
    let pairs = pairs.take_while(|_| !progress.stop_requested());
    let scores = fewshot::score_episodes(Features::new(&all, width)?, pairs, size, classifiers);
    progress.go_on()?;
    Ok(scores?
        .into_iter()
        .map(|s| Score {
            classifier: s.classifier.name().into(),
            ways: first.ways,
            shots: first.shots,
            queries: first.queries,
            episodes: s.accuracy.n,
            accuracy_pct: 100.0 * s.accuracy.mean,
            interval_pct: 100.0 * s.accuracy.half_width.unwrap_or(0.0),
        })
        .collect())
}

/// Passes on what is suspicious about a data set.
fn say_warnings(data: &ImageSet, progress: &mut dyn Progress) {
    data.warnings.iter().for_each(|warning| progress.warn(&warning.to_string()));
}

/// The novel classes that a run is scored on; none where it is not, which is said.
fn novel_classes(run: &Run, side: usize, progress: &mut dyn Progress) -> Result<Option<ImageSet>> {
    if run.scoring == Scoring::Off {
        return Ok(None);
    }
    let source = &run.config.data.source;
    let (ways, shots, queries, _) = RUN_EPISODES;
    let novel = data::load(source, Split::Novel, &data_options(&run.config.data, Some(side)));
    if let Ok(novel) = &novel {
        say_warnings(novel, progress);
    }
    let why = match novel {
        Ok(novel) => match data::shortage(&novel, ways, shots[1], queries) {
            None => return Ok(Some(novel)),
            Some(why) => format!("{source}: {why}"),
        },
        Err(error @ Error::NoSplit { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    if run.scoring == Scoring::Required {
        return Err(Error::usage(format!(
            "--min-acc wants a score on novel classes, and there can be none ({why}): add to them, or leave it out"
        )));
    }
    progress.warn(&format!("the run is not scored on novel classes: {why}"));
    Ok(None)
}

/// Scores a run's network as it is; nothing to score it on gives nothing.
fn score_run(
    trainer: &mut Trainer,
    novel: Option<&ImageSet>,
    what: &str,
    progress: &mut dyn Progress,
) -> Result<Vec<Score>> {
    let Some(novel) = novel else { return Ok(Vec::new()) };
    let which = if novel.is_trained_on() { "of the novel split" } else { "that it does not train on" };
    progress.note(&format!("scoring the {what} network on {} classes {which}", novel.n_classes()));
    let extractor = trainer.extractor()?;
    let features = extractor.features(novel, Layer::Feature, None, progress)?;
    let width = features.len() / novel.len();
    let (ways, shots, queries, n) = RUN_EPISODES;
    let mut scores = Vec::new();
    for shots in shots {
        let episodes = data::draw(novel, ways, shots, queries, n, 0)?;
        scores.extend(score(&features, width, &episodes, &[Classifier::LogisticRegression], &[], progress)?);
    }
    Ok(scores)
}

/// The interruption of a run's scoring, with what is saved of the run.
fn interrupted(error: Error, saved: impl FnOnce() -> String) -> Error {
    match error {
        Error::Interrupted(_) => Error::Interrupted(saved()),
        other => other,
    }
}

/// What a run needs besides its settings.
struct Run<'a> {
    config: &'a Config,
    folder: &'a Path,
    resume: bool,
    scoring: Scoring,
    teacher: Option<Arc<Teacher>>,
    resume_command: String,
}

/// Trains one network in `run.folder`; `open_folder` is called once the data and the device are known good.
fn train_one(
    run: &Run,
    adapter: Option<&str>,
    progress: &mut dyn Progress,
    open_folder: &dyn Fn(&Config) -> Result<OpenFolder>,
) -> Result<TrainOutcome> {
    let config = run.config;
    let options = data_options(&config.data, None);
    let data = Arc::new(data::load(&config.data.source, Split::Train, &options)?);
    say_warnings(&data, progress);
    validate(config, DataShape::of(&data))?;
    let novel = novel_classes(run, data.side, progress)?;
    progress.note(&format!(
        "{}: {} training images of {} classes, {} x {} pixels",
        config.data.source,
        data.len(),
        data.n_classes(),
        data.side,
        data.side
    ));
    let open = |goes_on: bool, progress: &mut dyn Progress| {
        let gpu = open_device(adapter, config.run.tune, progress)?;
        if goes_on && matches!(config.run.tune, Tune::Auto | Tune::Quick) {
            tuning::take(&gpu, run.folder);
        }
        Ok(gpu)
    };
    let mut trainer = Trainer::new(open(run.resume, progress)?, config, data.clone(), run.teacher.clone())?;
    let memory = &trainer.fitted().memory;
    progress.note(&format!("memory: {} at the most, in {}", bytes(memory.peak_bytes), memory.peak_operation));
    trainer.fitted().choices.iter().for_each(|choice| progress.note(choice));
    let file = run.folder.join(crate::settings::CHECKPOINT_FILE);
    let begun = if run.resume { Some(Checkpoint::load(&file)?) } else { None };
    if let Some(checkpoint) = &begun {
        trainer.check(&file, checkpoint)?;
    }
    let untrained = score_run(&mut trainer, novel.as_ref(), "untrained", progress).map_err(|error| {
        interrupted(error, || match run.resume {
            true => format!("{} stays as it was; `{}` continues", file.display(), run.resume_command),
            false => format!("no step was done, and nothing was written to {}", run.folder.display()),
        })
    })?;
    if let Some(checkpoint) = &begun {
        trainer.restore(&file, checkpoint)?;
        progress.note(&format!("continuing at step {} of {}", trainer.steps_done(), trainer.total_steps()));
    }
    let _open = open_folder(&trainer.fitted().config)?;
    tuning::keep(trainer.gpu(), Some(run.folder), &mut |text| progress.note(text))?;
    let reopen = &|progress: &mut dyn Progress| open(true, progress);
    let finished = run_reopening(&mut trainer, reopen, run.folder, &run.resume_command, progress)?;
    let trained = score_run(&mut trainer, novel.as_ref(), "trained", progress).map_err(|error| {
        interrupted(error, || {
            let (steps, command) = (trainer.total_steps(), &run.resume_command);
            format!("all {steps} steps are done and saved in {}; `{command}` scores them", file.display())
        })
    })?;
    Ok(TrainOutcome {
        checkpoint: file,
        steps: trainer.total_steps(),
        loss: finished.loss,
        seconds: finished.seconds,
        images_per_second: f64::from(finished.steps) * config.optimiser.batch as f64 / finished.seconds.max(1e-9),
        untrained,
        trained,
    })
}

/// Trains, and scores the novel classes before and after unless told not to.
pub fn train(job: &TrainJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<TrainOutcome> {
    let run = Run {
        config: &job.config,
        folder: &job.out,
        resume: job.resume,
        scoring: job.scoring,
        teacher: None,
        resume_command: format!("ieq-wgpu train --resume {}", shell_word(&job.out)),
    };
    train_one(&run, adapter, progress, &|config| job.open_folder(config))
}

/// Trains the generations one after the other; one outcome each.
pub fn distill(job: &DistillJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<Vec<TrainOutcome>> {
    let mut outcomes = Vec::new();
    let mut teacher = job.teacher.clone();
    for generation in 1..=job.config.distill.generations {
        let folder = job.folder(generation);
        let resume = job.resume && folder.join(crate::settings::CHECKPOINT_FILE).is_file();
        progress.note(&format!("generation {generation}: the teacher is {}", teacher.display()));
        let weights = Checkpoint::load(&teacher)?;
        let run = Run {
            config: &job.config,
            folder: &folder,
            resume,
            scoring: job.scoring,
            teacher: Some(Arc::new(Teacher { path: teacher.clone(), weights })),
            resume_command: format!(
                "ieq-wgpu distill --resume --teacher {} --out {}",
                shell_word(&job.teacher),
                shell_word(&job.out)
            ),
        };
        let outcome = train_one(&run, adapter, progress, &|config| job.open_folder(config, generation, resume))?;
        teacher = outcome.checkpoint.clone();
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Reads a split for a checkpoint as its run would have, but for the split file that the user names: that way no class
/// which the network was trained on counts as novel.
fn load_as_trained(
    stored: &DataConfig,
    side: usize,
    source: &str,
    split: Split,
    split_file: Option<&SplitFile>,
) -> Result<ImageSet> {
    let mut options = data_options(stored, Some(side));
    if let Some(SplitFile(named)) = split_file {
        options.split_file.clone_from(named);
        return data::load(source, split, &options);
    }
    data::load(source, split, &options).map_err(|error| {
        const OTHERS: &str = "it is the split file of the run: --split-file names another, or none";
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
pub fn eval(job: &EvalJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<EvalOutcome> {
    let checkpoint = Checkpoint::load(&job.checkpoint)?;
    let stored = stored_config(&job.checkpoint, &checkpoint)?;
    let side = stored_side(&job.checkpoint, &checkpoint, &stored)?;
    let source = job.data.clone().unwrap_or_else(|| stored.data.source.clone());
    if job.episodes == Episodes::OmniglotOneshot {
        let runs = data::read_oneshot_runs(&source, &data_options(&stored.data, Some(side)))?.ok_or_else(|| {
            Error::data(&source, "there is no `oneshot` folder with run01, run02, ... in it for --oneshot")
        })?;
        let gpu = open_for_features(adapter, progress)?;
        let (extractor, _) = Extractor::open(gpu, &job.checkpoint, &checkpoint, job.untrained)?;
        return oneshot(&extractor, &runs, job, source, progress);
    }
    let split: Split = job.split.parse()?;
    let images = load_as_trained(&stored.data, side, &source, split, job.split_file.as_ref())?;
    say_warnings(&images, progress);
    let mut batches = Vec::new();
    match &job.episodes {
        Episodes::Drawn { ways, shots, queries, n_episodes, seed } => {
            for &shots in shots {
                batches.push(data::draw(&images, *ways, shots, *queries, *n_episodes, *seed)?);
            }
        }
        Episodes::File { path, shots } => {
            for &shots in shots {
                batches.push(read_episodes(path, shots, images.len())?);
            }
        }
        Episodes::OmniglotOneshot => {}
    }
    let gpu = open_for_features(adapter, progress)?;
    let (extractor, config) = Extractor::open(gpu, &job.checkpoint, &checkpoint, job.untrained)?;
    let features = extractor.features(&images, Layer::Feature, None, progress)?;
    let width = features.len() / images.len().max(1);
    let augment = Augmentation { jitter: 0.0, ..Augmentation::default() };
    let padding = config.data.crop_padding_for(side);
    let sampler = ViewSampler::new(TransformSet::Rot4, side, padding, config.run.seed, augment);
    let sampler = sampler.with_stream(Stream::Support);
    let mut copies = Vec::new();
    for copy in 1..job.support_copies as u32 {
        copies.push(extractor.features(&images, Layer::Feature, Some((&sampler, copy)), progress)?);
    }
    let mut scores = Vec::new();
    for episodes in &batches {
        scores.extend(score(&features, width, episodes, &job.classifiers, &copies, progress)?);
    }
    Ok(EvalOutcome {
        data: source,
        split: split.to_string(),
        classes: images.n_classes(),
        images: images.len(),
        scores,
    })
}

/// The official Omniglot runs: each test drawing goes to one of the run's training drawings.
fn oneshot(
    extractor: &Extractor,
    runs: &[data::OneShotRun],
    job: &EvalJob,
    source: String,
    progress: &mut dyn Progress,
) -> Result<EvalOutcome> {
    let mut accuracies = vec![Vec::new(); job.classifiers.len()];
    for run in runs {
        let train = extractor.features(&run.train, Layer::Feature, None, progress)?;
        let test = extractor.features(&run.test, Layer::Feature, None, progress)?;
        let width = train.len() / run.train.len().max(1);
        for (classifier, all) in job.classifiers.iter().zip(&mut accuracies) {
            let (train, test) = (Features::new(&train, width)?, Features::new(&test, width)?);
            all.push(fewshot::score_run(train, test, &run.answer, *classifier)?);
        }
    }
    let ways = runs.first().map_or(0, |run| run.train.len());
    let mut scores = Vec::new();
    for (classifier, all) in job.classifiers.iter().zip(&accuracies) {
        let accuracy = MeanInterval::of(all)?;
        scores.push(Score {
            classifier: classifier.name().into(),
            ways,
            shots: 1,
            queries: 1,
            episodes: accuracy.n,
            accuracy_pct: 100.0 * accuracy.mean,
            interval_pct: 100.0 * accuracy.half_width.unwrap_or(0.0),
        });
    }
    let images = runs.iter().map(|run| run.train.len() + run.test.len()).sum();
    Ok(EvalOutcome { data: source, split: "oneshot".into(), classes: ways * runs.len(), images, scores })
}

/// Embeds images and writes the array and its list.
pub fn embed(job: &EmbedJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<EmbedOutcome> {
    let checkpoint = Checkpoint::load(&job.checkpoint)?;
    let stored = stored_config(&job.checkpoint, &checkpoint)?;
    let side = stored_side(&job.checkpoint, &checkpoint, &stored)?;
    let images = match &job.input {
        Input::Paths(paths) => data::load_unlabelled(paths, &data_options(&stored.data, Some(side)))?,
        Input::Split { data, split, split_file } => {
            load_as_trained(&stored.data, side, data, split.parse()?, split_file.as_ref())?
        }
    };
    say_warnings(&images, progress);
    let gpu = open_for_features(adapter, progress)?;
    let (extractor, _) = Extractor::open(gpu, &job.checkpoint, &checkpoint, false)?;
    let mut features = extractor.features(&images, job.layer, None, progress)?;
    let columns = extractor.width(job.layer).unwrap_or(1);
    if job.normalise {
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
    // One line a row, whatever is in a name.
    let line = |name: &String| name.replace('\n', "\\n").replace('\r', "\\r") + "\n";
    let list: String = images.names.iter().map(line).collect();
    replace_file(&job.out, "cannot write the embeddings", &array)?;
    replace_file(&job.list, "cannot write the list of paths", list.as_bytes())?;
    Ok(EmbedOutcome { rows: images.len(), columns })
}

/// Plans a step.
pub fn plan(job: &PlanJob) -> Result<PlanOutcome> {
    let config = &job.config;
    let shape = match job.size {
        Some((classes, images)) => {
            let side = config.data.side.ok_or_else(|| Error::usage("--classes and --images want --side as well"))?;
            DataShape { side, classes, images }
        }
        None => {
            // Their number is wanted, not the pixels: where the side is known, the smallest images will do.
            let smallest = config.data.side.map(|_| 1);
            let data = data::load(&config.data.source, Split::Train, &data_options(&config.data, smallest))?;
            let side = config.data.side.unwrap_or(data.side);
            DataShape { side, ..DataShape::of(&data) }
        }
    };
    validate(config, shape)?;
    let Fitted { config, resident, memory, choices } = fit(config, shape, job.distill, Room::LARGE)?;
    let spec = spec(&config, shape, job.distill);
    let (graph, recorded) = training_step(&config, shape, job.distill, resident)?;
    let plan = Plan::new(&graph);
    plan.verify(&graph)?;
    let ops = graph.nodes.iter().map(|node| {
        let first = node.outputs[0];
        PlanEntry {
            op: node.op.operation().name().into(),
            scope: node.scope.clone(),
            shape: graph.shape(first).to_vec(),
            slot: plan.slot_of.get(&first).copied(),
            bytes: graph.value(first).ty.bytes(),
        }
    });
    Ok(PlanOutcome {
        parts: spec.parts,
        resident,
        choices,
        config,
        rows: spec.batch * spec.copies,
        parameters: recorded.step.parameters.iter().map(|e| e.shape.iter().product::<usize>() as u64).sum(),
        peak_bytes: memory.peak_bytes,
        arenas: graph.arenas.clone(),
        activations_bytes: plan.transient_bytes(),
        peak_node: memory.peak_node,
        memory,
        multiply_adds: ops::flops(&graph) / 2 * spec.parts as u64,
        ops: ops.collect(),
    })
}

/// Compares shaders with their twins; an empty list means that no name matched the filter.
pub fn check(job: &CheckJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<Vec<CheckEntry>> {
    let gpu = open_device(adapter, Tune::Off, progress)?;
    let mut kernels = Kernels::new(gpu);
    let filter = job.filter.as_deref().unwrap_or_default();
    let cases: Vec<_> = ops::check::cases().into_iter().filter(|case| case.name.contains(filter)).collect();
    let mut entries = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let outcome = ops::check::run(case, &mut kernels)?;
        let passed = outcome.passed();
        entries.push(CheckEntry { name: outcome.name, error: outcome.error, tolerance: outcome.tolerance, passed });
        progress.advance("check", i as u64 + 1, cases.len() as u64);
    }
    Ok(entries)
}

/// Measures kernels and steps.
pub fn bench(job: &BenchJob, adapter: Option<&str>, progress: &mut dyn Progress) -> Result<crate::bench::Run> {
    let gpu = open_device(adapter, job.options.config.run.tune, progress)?;
    let run = crate::bench::run(&job.options, gpu.clone(), progress)?;
    tuning::keep(&gpu, None, &mut |text| progress.note(text))?;
    Ok(run)
}
