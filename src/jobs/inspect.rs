//! `inspect`: what is in a run folder, a checkpoint, a data set or a file of embeddings, and what a careful colleague would
//! say about it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::facts::{Facts, utc};
use super::stored::Stored;
use super::supply::Network;
use super::{Session, data_options};
use crate::data::embeddings::npy;
use crate::data::{self, DataOptions, ImageSet, Split, Statistics};
use crate::files::run_folder::{CHECKPOINT_FILE, is_held, is_run};
use crate::progress::Progress;
use crate::settings::{Config, Schedule};
use crate::train::checkpoint::{Checkpoint, TRAINING_PREFIX};
use crate::train::metrics::{self, Record};
use crate::train::phases::Phases;
use crate::train::record::DataShape;
use crate::train::state::{CLASSES_KEY, CONFIG_KEY, IMAGES_KEY, STEP_KEY};
use crate::train::validation::Validations;
use crate::{Error, Result};

/// Something to look into.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectRequest {
    /// A run folder, a checkpoint, a data set (`glyphs`, a folder or a file), or an `.npy` array of embeddings.
    pub path: PathBuf,
}

/// What is in it.
#[derive(Clone, Debug, Serialize)]
pub struct InspectOutcome {
    /// The path.
    pub path: PathBuf,
    /// `run`, `checkpoint`, `tensors`, `data` or `embeddings`.
    pub kind: &'static str,
    /// Names and values.
    pub about: Vec<(String, String)>,
    /// What is probably not as it should be, a sentence each.
    pub warnings: Vec<String>,
}

/// Names, values and warnings as they are found.
#[derive(Default)]
struct Findings {
    about: Vec<(String, String)>,
    warnings: Vec<String>,
}

/// The largest side at which pictures are read.
const MOST_SIDE: usize = 84;
/// Largest class per smallest from which on classes are called uneven.
const UNEVEN: usize = 5;
/// Difference of means or deviations, on a scale of 0 to 1, that is said.
const APART: f64 = 0.05;
/// Points of validation that a last network may lack to the best one.
const LOST: f64 = 2.0;

impl Findings {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.about.push((name.into(), value.to_string()));
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.warnings.push(sentence.into());
    }
}

/// Looks into a path.
///
/// # Errors
/// A path that is not there, or that holds nothing of these kinds.
pub fn run(request: &InspectRequest, _: &Session, progress: &mut dyn Progress) -> Result<InspectOutcome> {
    let path = &request.path;
    let mut found = Findings::default();
    let is_glyphs = path.as_os_str() == "glyphs";
    if !is_glyphs && !path.exists() {
        return Err(Error::data(
            path,
            "there is no such file or folder: name a run folder, a checkpoint, a data set or an array of embeddings",
        ));
    }
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase()).unwrap_or_default();
    let kind = if is_run(path) {
        look_at_run(path, progress, &mut found)?;
        "run"
    } else if path.is_dir() && path.join(CHECKPOINT_FILE).is_file() {
        look_at_checkpoint(&path.join(CHECKPOINT_FILE), &mut found)?
    } else if ending == "safetensors" || Checkpoint::is_pytorch(path) {
        look_at_checkpoint(path, &mut found)?
    } else if ending == "npy" && look_at_array(path, &mut found)? {
        "embeddings"
    } else {
        look_at_data(path, progress, &mut found)?;
        "data"
    };
    Ok(InspectOutcome { path: path.clone(), kind, about: found.about, warnings: found.warnings })
}

/// The settings that tell networks apart.
fn describe_network(config: &Config, found: &mut Findings) {
    let widths: Vec<String> = config.model.widths.iter().map(usize::to_string).collect();
    found.add("network", format!("{}, widths {}", config.model.backbone, widths.join(",")));
    let length = crate::settings::setting("optimiser.length").map_or(String::new(), |row| row.shown(config));
    found.add("training", format!("{length}, batches of {}, rate {}", config.optimiser.batch, config.optimiser.lr));
    if let Some(preset) = &config.preset {
        found.add("preset", preset);
    }
}

/// Numbers of elements of a checkpoint's network and of its training state.
fn describe_tensors(checkpoint: &Checkpoint, found: &mut Findings) {
    let size = |training: bool| -> usize {
        let of_kind = checkpoint.tensors.iter().filter(|(name, _)| name.starts_with(TRAINING_PREFIX) == training);
        of_kind.map(|(_, tensor)| tensor.data.len()).sum()
    };
    found.add("tensors", format!("{}, {} numbers of the network", checkpoint.tensors.len(), size(false)));
    match size(true) {
        0 => found.warn(
            "it has no state of a training, so no run can go on from it; it can be embedded with, and begun with",
        ),
        n => found.add("training state", format!("{n} numbers: momentum and memory bank")),
    }
    for (name, tensor) in &checkpoint.tensors {
        if let crate::train::checkpoint::TensorData::F32(values) = &tensor.data
            && !values.is_empty()
            && values.iter().all(|value| *value == 0.0)
            && !name.ends_with("bias")
            && !name.starts_with(TRAINING_PREFIX)
            && !name.ends_with("running_mean")
        {
            found.warn(format!("every number of {name} is 0"));
        }
    }
}

fn look_at_checkpoint(path: &Path, found: &mut Findings) -> Result<&'static str> {
    let checkpoint = Checkpoint::load(path)?;
    let has_settings = checkpoint.metadata.contains_key(CONFIG_KEY);
    let stored = Stored::of((path.to_owned(), checkpoint.clone()));
    if let (Err(error), false) = (&stored, has_settings) {
        if let Some(network) = Network::of(&checkpoint) {
            found.add("network", network.words());
        }
        describe_tensors(&checkpoint, found);
        let first = checkpoint.tensors.iter().take(12);
        first.for_each(|(name, tensor)| found.add(name, format!("{:?}", tensor.shape)));
        found.warn(format!("another program saved it, and it cannot be used as it is: {error}"));
        return Ok("tensors");
    }
    let stored = stored?;
    describe_network(&stored.config, found);
    found.add("images", format!("{0} x {0} pixels", stored.side()?));
    for (name, key) in
        [("training classes", CLASSES_KEY), ("training images", IMAGES_KEY), ("finished steps", STEP_KEY)]
    {
        if let Some(value) = stored.checkpoint.metadata.get(key) {
            found.add(name, value);
        }
    }
    found.add("data", &stored.config.data.source);
    found.add("seed", stored.config.run.seed);
    describe_tensors(&checkpoint, found);
    look_at_progress(&stored, found);
    Ok("checkpoint")
}

/// Whether all steps are done, and what validation has found.
fn look_at_progress(stored: &Stored, found: &mut Findings) {
    let number = |key: &str| stored.checkpoint.metadata.get(key).and_then(|text| text.parse::<u64>().ok());
    let (done, images) = (number(STEP_KEY).unwrap_or(0), number(IMAGES_KEY).unwrap_or(0));
    let validations = Validations::of(&stored.file, &stored.checkpoint).unwrap_or_default();
    // Phases differ in their batches.
    let shape = stored.side().ok().map(|side| {
        let classes = number(CLASSES_KEY).unwrap_or(2) as usize;
        DataShape { side, classes, images: images.max(1) as usize }
    });
    let phases = shape.and_then(|shape| Phases::new(&stored.config, shape).ok());
    let shown = phases.map(|phases| phases.images_of(done as u32));
    let schedule = Schedule::new(&stored.config.optimiser, images.max(1) as usize).ok();
    if let Some(total) = schedule.map(|schedule| u64::from(schedule.total_steps)) {
        found.add("steps", format!("{done} of {total}"));
        if done < total && validations.ended.is_none() {
            found.warn(format!(
                "the run has done {done} of {total} steps: with a rate that falls until the end, an unfinished network is \
                 worse than a shorter run's"
            ));
        }
        let passes = shown.unwrap_or(done * stored.config.optimiser.batch as u64) as f64 / images.max(1) as f64;
        found.add("passes over the images", format!("{passes:.1}"));
        if done == total && passes < 1.0 {
            found.warn(format!("the run has seen only {:.0} % of its images: give it more steps", 100.0 * passes));
        }
    }
    if let Some(why) = &validations.ended {
        found.warn(format!("the run ended early: {why}"));
    }
    match &validations.best {
        Some(best) => found.add(
            "best in validation",
            format!(
                "{:.1} % 1-shot, {:.1} % 5-shot (± {:.1} of their mean) after step {}",
                best.one_shot_pct, best.five_shot_pct, best.interval_pct, best.step
            ),
        ),
        None => found.warn(
            "the run was not validated, so its last network is kept, and nothing says when it was best: \
             run.validate_every = 100, where the data has a val split",
        ),
    }
}

fn look_at_run(folder: &Path, progress: &mut dyn Progress, found: &mut Findings) -> Result<()> {
    let config = match Stored::open(&folder.join(CHECKPOINT_FILE)) {
        Ok(stored) => {
            describe_network(&stored.config, found);
            found.add("images", format!("{0} x {0} pixels", stored.side()?));
            look_at_progress(&stored, found);
            stored.config
        }
        Err(error) => {
            found.warn(format!("it has no network to use: {error}"));
            let config = Config::from_layers(None, &folder.join(crate::files::run_folder::CONFIG_FILE))?;
            describe_network(&config, found);
            config
        }
    };
    found.add("data", &config.data.source);
    found.add("seed", config.run.seed);
    if is_held(folder) {
        found.add("state", "a process is training here");
    }
    match metrics::read(folder) {
        Ok(records) => look_at_metrics(&records, found),
        Err(error) => found.warn(error.to_string()),
    }
    match Facts::read(folder) {
        Ok(Some(facts)) => look_at_facts(&facts, found),
        Ok(None) => {
            found.warn("it has no report.json, as runs of earlier versions: its scores and device are not known")
        }
        Err(error) => found.warn(error.to_string()),
    }
    progress.note(&format!("reading {}, to compare it with the settings", config.data.source));
    match data::load(&config.data.source, Split::Train, &data_options(&config.data, None)) {
        Ok(images) => look_at_settings(&config, &Statistics::of(&images), found),
        Err(error) => found.warn(format!("its data cannot be read where it was: {error}")),
    }
    Ok(())
}

fn look_at_metrics(records: &[Record], found: &mut Findings) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return found.warn("its metric log is empty");
    };
    found.add("metrics", format!("{} records, to step {}", records.len(), last.step));
    let total = |record: &Record| record.losses.get("total").copied();
    if let (Some(begun), Some(ended)) = (total(first), total(last)) {
        found.add("loss", format!("{begun:.4} at step {}, {ended:.4} at step {}", first.step, last.step));
        if records.len() >= 5 && !(ended < begun) {
            found.warn("the loss at the end is no lower than at the beginning: it has not learnt; try a lower rate");
        }
    }
    let tail = &records[records.len().saturating_sub(5)..];
    if records.len() >= 5 && tail.iter().all(|record| record.accuracy >= 1.0) {
        found.warn(
            "the last steps had no row wrong: the training images are learnt by heart, and more steps teach nothing",
        );
    }
    let last = records.iter().rev().find_map(|record| record.validation);
    if let (Some(best), Some(last)) = (metrics::best(records), last)
        && best.mean_pct() > last.mean_pct() + LOST
    {
        found.warn(format!(
            "the last network validates {:.1} points below that of step {}: it is the best one that folders mean",
            best.mean_pct() - last.mean_pct(),
            best.step
        ));
    }
}

fn look_at_facts(facts: &Facts, found: &mut Findings) {
    found.add("written by", format!("ieq-wgpu {}, {}", facts.version, utc(facts.written)));
    found.add("device", &facts.device);
    for score in &facts.trained {
        let half = score.interval_pct.map_or(String::new(), |half| format!(" ± {half:.1}"));
        let name = format!("{}-way {}-shot", score.ways, score.shots);
        found.add(&name, format!("{:.1}{half} % ({})", score.accuracy_pct, score.classifier));
    }
    for (before, after) in facts.untrained.iter().zip(&facts.trained) {
        let noise = before.interval_pct.unwrap_or(0.0) + after.interval_pct.unwrap_or(0.0);
        if after.accuracy_pct < before.accuracy_pct + noise {
            found.warn(format!(
                "{}-shot accuracy on novel classes is not above that of the untrained network by more than noise",
                after.shots
            ));
        }
    }
    if facts.state == "finished" && facts.trained.is_empty() {
        found.warn("it was not scored on novel classes: `eval` does that");
    }
    facts.warnings.iter().for_each(|warning| found.warn(warning.clone()));
}

/// Settings that do not suit the images.
fn look_at_settings(config: &Config, statistics: &Statistics, found: &mut Findings) {
    let apart = |set: [f64; 3], measured: [f64; 3]| (0..3).any(|c| !((set[c] - measured[c]).abs() <= APART));
    let shown = |values: [f64; 3]| values.map(|value| format!("{value:.3}")).join(",");
    for (key, set, measured) in
        [("data.mean", config.data.mean, statistics.mean), ("data.std", config.data.std, statistics.std)]
    {
        if apart(set, measured) {
            found.warn(format!("{key} is {}, and the training images have {}", shown(set), shown(measured)));
        }
    }
    sizes(statistics.per_class, "train", found);
}

/// Classes of very different sizes.
fn sizes((least, most): (usize, usize), split: &str, found: &mut Findings) {
    if least > 0 && most >= UNEVEN * least {
        found.warn(format!(
            "{split}: classes are uneven, from {least} to {most} images: large ones weigh more in the loss"
        ));
    }
}

fn look_at_data(path: &Path, progress: &mut dyn Progress, found: &mut Findings) -> Result<()> {
    let source = path.display().to_string();
    let options = DataOptions { side_most: Some(MOST_SIDE), ..DataOptions::default() };
    let mut any = None;
    for split in [Split::Train, Split::Val, Split::Novel] {
        progress.note(&format!("reading the {split} split"));
        match data::load(&source, split, &options) {
            Ok(images) => {
                look_at_split(&images, split, found);
                any.get_or_insert(split);
            }
            Err(Error::NoSplit { .. }) if any.is_some() || split != Split::Novel => {
                found.warn(match split {
                    Split::Train => "there is no train split: nothing can be trained on it",
                    Split::Val => "there is no val split: a run on it is not validated, and keeps its last network",
                    _ => "there is no novel split: a run on it is not scored on classes that it has not seen",
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn look_at_split(images: &ImageSet, split: Split, found: &mut Findings) {
    let statistics = Statistics::of(images);
    let (least, most) = statistics.per_class;
    let name = split.to_string();
    let drawn = images.drawn_from.map_or(String::new(), |all| format!(", drawn from {all} by seed"));
    let original = images.original_side.map_or(String::new(), |side| format!(" (pictures of {side})"));
    let colour = if statistics.gray { "gray" } else { "colour" };
    found.add(
        &name,
        format!(
            "{} images of {} classes{drawn}, {least} to {most} of each, {side} x {side} pixels{original}, {colour}",
            images.len(),
            images.n_classes(),
            side = images.side
        ),
    );
    let shown = |values: [f64; 3]| values.map(|value| format!("{value:.4}")).join(",");
    found.add(&format!("{name}, mean and std"), format!("{}; {}", shown(statistics.mean), shown(statistics.std)));
    sizes((least, most), &name, found);
    if split != Split::Train && least < 6 {
        found.warn(format!("{name}: the smallest class has {least} images, and 5-shot episodes want 6 or more"));
    }
    if split != Split::Train && images.n_classes() < 5 {
        found.warn(format!("{name}: {} classes, and 5-way episodes want 5", images.n_classes()));
    }
    if split == Split::Train && images.n_classes() < 20 {
        found.warn(format!(
            "{name}: {} classes: features that tell new classes apart come from many classes, 50 and more",
            images.n_classes()
        ));
    }
    images.warnings.iter().for_each(|warning| found.warn(warning.message.clone()));
}

/// An array of rows of floats; whether it is one.
fn look_at_array(path: &Path, found: &mut Findings) -> Result<bool> {
    let cannot =
        |e: std::io::Error| Error::data(path, format!("is no .npy array that can be read ({e}): copy it again"));
    let file = npy::open(path)?;
    let &[rows, columns] = file.shape() else { return Ok(false) };
    let Some(values) = npy::values(path, file)? else { return Ok(false) };
    let (mut not_finite, mut zeros, mut unit) = (0_u64, 0_u64, 0_u64);
    let (mut square, mut at, mut sum, mut fine) = (0.0_f64, 0_u64, 0.0_f64, true);
    let mut read = 0_u64;
    for value in values {
        let value = value.map_err(cannot)?;
        fine &= value.is_finite();
        square += f64::from(value) * f64::from(value);
        (at, read) = (at + 1, read + 1);
        if at == columns {
            not_finite += u64::from(!fine);
            zeros += u64::from(fine && square == 0.0);
            unit += u64::from(fine && (square.sqrt() - 1.0).abs() < 1e-3);
            sum += if fine { square.sqrt() } else { 0.0 };
            (square, at, fine) = (0.0, 0, true);
        }
    }
    found.add("rows", rows);
    found.add("columns", columns);
    found.add("mean length of a row", format!("{:.4}", sum / (rows.max(1) as f64)));
    found.add("rows of length 1", unit);
    if not_finite > 0 {
        found.warn(format!("{not_finite} rows have a number that is not finite"));
    }
    if zeros > 0 {
        found.warn(format!("{zeros} rows are all 0: they have no direction, and are like nothing"));
    }
    let list = path.with_extension("txt");
    match std::fs::read_to_string(&list) {
        Ok(text) if text.lines().count() as u64 == rows => found.add("paths", list.display()),
        Ok(text) => found.warn(format!(
            "{} has {} lines for {rows} rows: it is the list of another array",
            list.display(),
            text.lines().count()
        )),
        Err(_) => found.warn(format!("there is no list of the rows' pictures beside it ({})", list.display())),
    }
    Ok(true)
}
