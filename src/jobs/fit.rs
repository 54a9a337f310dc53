//! What a run is given beyond its settings: those that its recipe chooses, and a length that fits its time.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use toml::Table;

use super::calibrate::{Calibration, Decision, Measured, REPORT_SHARE, data_text, measure};
use super::data_options;
use super::score::{Score, score_run};
use crate::data::{self, DataOptions, ImageSet, Split, Statistics};
use crate::error::Change;
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::settings::{BatchStatistics, Config, DecayAt, LrSchedule, Recipe, TimeSpan, at};
use crate::train::Trainer;
use crate::train::recipe::{self, Choice, TIERS, Tier, VALIDATIONS};
use crate::train::record::DataShape;
use crate::{Error, Result};

/// What the caller of a job gave, so that the rest may be chosen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// The settings that were given, of the form that a file has: they stay. `config` has them, too.
    pub layer: Table,
    /// Whether `config.recipe` chooses what they leave out. Otherwise nothing but a length that fits `run.time` is chosen.
    pub recipe: bool,
}

impl Given {
    /// Refuses a layer that says the length of the run in two ways, and where one process does the run, one that splits the
    /// batch and does not say whose statistics batch norm then has.
    ///
    /// # Errors
    /// [`Error::Conflict`].
    pub fn check(&self, config: &Config, ranks: usize) -> Result<()> {
        check_length(&self.layer)?;
        if ranks > 1 { Ok(()) } else { self.check_statistics(config) }
    }

    /// Refuses a layer that splits the batch and does not say whose statistics batch norm then has.
    pub(super) fn check_statistics(&self, config: &Config) -> Result<()> {
        let says = |key: &str| recipe::is_given(&self.layer, key);
        let exact = config.run.batch_norm == BatchStatistics::Exact;
        let batch = config.optimiser.batch;
        match config.run.micro_batch {
            Some(images) if images < batch && exact && says("run.micro_batch") && !says("run.batch_norm") => {
                Err(Error::Conflict {
                    keys: vec!["run.micro_batch", "run.batch_norm"],
                    why: format!(
                        "run.micro_batch {images} splits the batch of {batch}, and run.batch_norm does not say whose \
                         statistics a micro-batch has: micro is its own, which needs less memory, and exact the whole \
                         batch's, which needs no less"
                    ),
                    changes: vec![Change::Set("run.batch_norm", "micro".into()), Change::Unset("run.micro_batch")],
                })
            }
            _ => Ok(()),
        }
    }

    /// Chooses what the recipe chooses for such images, strokes or not, without looking at them.
    pub(super) fn settings(
        &self,
        config: &mut Config,
        (data, ink): (DataShape, bool),
        software: bool,
        fit: &mut Fit,
    ) -> Result<()> {
        let given = &self.layer;
        let mut choices = recipe::from_recipe(config.recipe, config, given, (data.images, ink))?;
        // Points at which the rate falls are of a schedule that has such points.
        if ["optimiser.decay_at", "optimiser.decay"].into_iter().any(|key| recipe::is_given(given, key)) {
            choices.retain(|choice| choice.key != "optimiser.schedule");
        }
        fit.choices.extend(recipe::lay(config, given, choices)?);
        if config.run.time.is_some() {
            return Ok(());
        }
        if config.recipe != Recipe::Auto {
            return self.rows(config, data, fit);
        }
        fit.choices.extend(recipe::auto_length(config, given, data, software)?);
        Ok(())
    }

    /// The length of `run.rows`, where no recipe chooses more than that.
    pub(super) fn rows(&self, config: &mut Config, data: DataShape, fit: &mut Fit) -> Result<()> {
        let Some(rows) = config.run.rows else { return Ok(()) };
        self.keep_decay(config, data, fit)?;
        let length = recipe::length(config, data, rows, recipe::RUN_ROWS);
        fit.choices.extend(recipe::lay(config, &Table::new(), vec![length])?);
        Ok(())
    }

    /// Falls of the rate at the same shares of the run as before its length was chosen.
    fn keep_decay(&self, config: &mut Config, data: DataShape, fit: &mut Fit) -> Result<()> {
        if recipe::is_given(&self.layer, "optimiser.decay_at")
            || config.optimiser.schedule != LrSchedule::Steps
            || matches!(config.optimiser.decay_at, DecayAt::Fractions(_))
        {
            return Ok(());
        }
        let schedule = config.schedule(data.side, data.images)?;
        let total = f64::from(schedule.total_steps.max(1));
        let shares = schedule.decay_steps.iter().map(|&at| schedule.progress(at) / total);
        let shares: Vec<toml::Value> = shares
            .map(|share| (share * 1e4).round() / 1e4)
            .filter(|share| *share > 0.0 && *share < 1.0)
            .map(Into::into)
            .collect();
        let why = "the same shares of the run as before its length was chosen";
        let choice = Choice::new("optimiser.decay_at.fractions", shares, why);
        fit.choices.extend(recipe::lay(config, &self.layer, vec![choice])?);
        Ok(())
    }

    /// Whether the side is chosen by the pictures.
    pub(super) fn chooses_side(&self) -> bool {
        self.recipe && !recipe::is_given(&self.layer, "data.side")
    }

    /// Whether the run's device is to be known before the data is read.
    pub(super) fn needs_device(&self, config: &Config) -> bool {
        self.recipe || config.run.time.is_some()
    }
}

/// Reads the training images; where the recipe chooses their side, at that which suits the pictures and the device.
pub(super) fn load(config: &Config, given: Option<&Given>, software: bool) -> Result<ImageSet> {
    let seconds = config.run.time.map(|time| time.seconds());
    let most = given.filter(|given| given.chooses_side()).map(|_| recipe::side_most(software, seconds));
    let options = DataOptions { side_most: most, ..data_options(&config.data, None) };
    data::load(&config.data.source, Split::Train, &options)
}

/// A sentence on what a run trains on.
pub(super) fn described(source: &str, data: &ImageSet) -> String {
    let drawn = match data.drawn_from {
        Some(all) => format!(" ({} of the {all} classes, drawn by data.split_seed)", data.n_classes()),
        None => String::new(),
    };
    let (n, classes, side) = (data.len(), data.n_classes(), data.side);
    format!("{source}: {n} training images of {classes} classes{drawn}, {side} x {side} pixels")
}

/// The ways to say the length of a run, of which a layer has one.
pub const LENGTHS: [&str; 3] = ["run.time", "run.rows", "optimiser.length"];

/// Refuses a layer with two of [`LENGTHS`].
///
/// # Errors
/// [`Error::Conflict`].
pub fn check_length(layer: &Table) -> Result<()> {
    let found: Vec<&'static str> = LENGTHS.into_iter().filter(|key| at(layer, key).is_some()).collect();
    let [first, second, ..] = found[..] else { return Ok(()) };
    let epochs = at(layer, second).is_some_and(|length| length.get("epochs").is_some());
    let (key, how) = match (second, epochs) {
        ("run.rows", _) => ("run.rows", "and so does run.rows".to_owned()),
        (_, true) => ("optimiser.length.epochs", "and optimiser.length.epochs says it".to_owned()),
        (_, false) => ("optimiser.length.steps", "and optimiser.length.steps says it".to_owned()),
    };
    Err(Error::Conflict {
        keys: vec![first, key],
        why: format!("{first} chooses the number of steps, {how}"),
        changes: vec![Change::Unset(first), Change::Unset(key)],
    })
}

/// The time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timing {
    /// `run.time`, seconds.
    pub wanted_s: f64,
    /// What the steps were expected to take, seconds.
    pub training_s: f64,
    /// What a step was expected to take, seconds.
    pub step_s: f64,
    /// Whether it was measured for this run; else for an earlier one, on the same device.
    pub measured_now: bool,
}

/// What was chosen for a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Fit {
    /// Each setting with its reason.
    pub choices: Vec<Choice>,
    /// Where the run has a time.
    pub timing: Option<Timing>,
    /// Then, seconds of a step of each phase.
    pub phase_s: Vec<f64>,
    /// The scores of the untrained network, where measuring the time of a score has made them.
    pub untrained: Option<Vec<Score>>,
}

/// Seconds between the checkpoints of a run with a time.
const CHECKPOINT_S: f64 = 60.0;

/// The run that is fitted.
pub(super) struct Run<'a> {
    pub given: &'a Given,
    pub data: &'a Arc<ImageSet>,
    /// What it is scored on.
    pub novel: Option<&'a ImageSet>,
    /// What it is validated on.
    pub validation: Option<&'a Arc<ImageSet>>,
    /// When the job began.
    pub begun: Instant,
}

impl Run<'_> {
    /// Chooses what the recipe chooses without a device's times: all, where the run has no time.
    pub fn settings(&self, config: &mut Config, software: bool, fit: &mut Fit) -> Result<()> {
        let shape = DataShape::of(self.data);
        if !self.given.recipe {
            return self.given.rows(config, shape, fit);
        }
        let statistics = Statistics::of(self.data);
        let choices = recipe::from_pictures(config.recipe, config, &statistics);
        fit.choices.extend(recipe::lay(config, &self.given.layer, choices)?);
        self.given.settings(config, (shape, recipe::is_ink(&statistics)), software, fit)
    }

    /// Chooses what fits `run.time`: the widths, where the recipe may, and the number of steps. What this device was
    /// measured to do is taken from the calibration, or measured and kept there.
    pub fn time(
        &self,
        config: &mut Config,
        kernels: &mut Kernels,
        cache: Option<&std::path::Path>,
        fit: &mut Fit,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let Some(time) = config.run.time else { return Ok(()) };
        crate::train::record::validate(&self.without_time(config), DataShape::of(self.data))?;
        let text = data_text(self.data, self.novel.is_some(), self.validation);
        let mut calibration = Calibration::open(kernels, cache);
        let known = calibration.decided(config, &[&text, &self.open(config)], time)?.cloned();
        let measured_now = known.is_none();
        let decision = match known {
            Some(decision) => decision,
            None => self.decide(config, time, kernels, &mut calibration, fit, progress)?,
        };
        let rows = recipe::rows_of(config, self.data.side, decision.steps.into());
        let how = if measured_now { "measured" } else { "measured before" };
        let ms = 1e3 * decision.step_s;
        if let Some(tier) = self.tiers(config).iter().find(|tier| *decision.widths == tier.widths) {
            fit.choices.extend(recipe::lay(config, &self.given.layer, vec![recipe::widths(tier, rows)])?);
        }
        self.given.keep_decay(config, DataShape::of(self.data), fit)?;
        let why = format!("{time} in all, {ms:.*} ms a step, {how} on this device", usize::from(ms < 100.0));
        let mut length = recipe::length(config, DataShape::of(self.data), rows, &why);
        length.value = i64::from(decision.steps).into();
        fit.choices.extend(recipe::lay(config, &Table::new(), vec![length])?);
        if self.given.recipe {
            // Often enough to lose little, seldom enough to cost nothing.
            let every = (CHECKPOINT_S / decision.step_s).clamp(1.0, 1e6).round() as i64;
            let mut choices = vec![Choice::new("run.checkpoint_every", every, "about once a minute")];
            if config.recipe == Recipe::Auto {
                choices.push(recipe::validation(decision.steps));
            }
            fit.choices.extend(recipe::lay(config, &self.given.layer, choices)?);
        }
        let (wanted_s, training_s, step_s) = (time.seconds(), decision.training_s, decision.step_s);
        fit.phase_s = decision.phase_s;
        fit.timing = Some(Timing { wanted_s, training_s, step_s, measured_now });
        Ok(())
    }

    /// The settings with a length that any batch allows, to check the others.
    fn without_time(&self, config: &Config) -> Config {
        Config {
            optimiser: crate::settings::OptimiserConfig {
                length: crate::settings::Length::Steps(1),
                ..config.optimiser.clone()
            },
            ..config.clone()
        }
    }

    /// Whether the recipe chooses `key` for a run with a time.
    fn chooses(&self, config: &Config, key: &str) -> bool {
        self.given.recipe && config.recipe == Recipe::Auto && !recipe::is_given(&self.given.layer, key)
    }

    /// What is left to be decided, and what decides it besides the settings of a step, as text.
    fn open(&self, config: &Config) -> String {
        let chosen = ["run.checkpoint_every", "run.validate_every"].map(|key| self.chooses(config, key));
        format!(
            "{} networks, {chosen:?}, {}, validated on {} images",
            self.tiers(config).len(),
            config.run.checkpoint_every,
            self.validated(config).map_or(0, |images| images.len())
        )
    }

    /// What the run is validated on, where it is.
    fn validated(&self, config: &Config) -> Option<&'_ Arc<ImageSet>> {
        self.validation.filter(|_| config.run.validate_every > 0 || self.chooses(config, "run.validate_every"))
    }

    /// Seconds of a step with its share of checkpoints and validations, and those of the validations that the recipe adds.
    fn cost(&self, config: &Config, measured: &Measured) -> (f64, f64) {
        let share = |seconds: f64, every: u32| if every == 0 { 0.0 } else { seconds / f64::from(every) };
        let checkpoints = match self.chooses(config, "run.checkpoint_every") {
            true => measured.step_s * measured.checkpoint_s / CHECKPOINT_S,
            false => share(measured.checkpoint_s, config.run.checkpoint_every),
        };
        let step_s = measured.step_s * (1.0 + 1.0 / f64::from(REPORT_SHARE)) + checkpoints;
        let Some(images) = self.validated(config) else { return (step_s, 0.0) };
        // Most are the best so far, and saved.
        let validation_s = measured.validation(config, self.data.side, images.len()) + measured.checkpoint_s;
        match self.chooses(config, "run.validate_every") {
            // Half a score more: whether the best network is the last one shows at the end. One more for the similarities
            // of as many pictures that a run measures when it is over.
            true => {
                let score_s = 0.5 * measured.score_s.unwrap_or(0.0);
                (step_s, f64::from(VALIDATIONS + 1) * validation_s + score_s)
            }
            false => (step_s + share(validation_s, config.run.validate_every), validation_s),
        }
    }

    /// The networks that the recipe may choose among; none where they are given.
    fn tiers(&self, config: &Config) -> &'static [Tier] {
        let given = |key| recipe::is_given(&self.given.layer, key);
        let open = self.chooses(config, "model.widths") && !given("model.backbone");
        if open { &TIERS } else { &[] }
    }

    /// Rows through the network in `seconds` of a run.
    fn rows_in(&self, seconds: f64, config: &Config, measured: &Measured) -> u64 {
        let (step_s, validations_s) = self.cost(config, measured);
        ((seconds - measured.overhead_s() - validations_s).max(0.0) / step_s * config.full_rows(self.data.side)) as u64
    }

    /// Measures what is not known, and decides; keeps what the same command decides from now on.
    fn decide(
        &self,
        config: &Config,
        time: TimeSpan,
        kernels: &mut Kernels,
        calibration: &mut Calibration,
        fit: &mut Fit,
        progress: &mut dyn Progress,
    ) -> Result<Decision> {
        let text = data_text(self.data, self.novel.is_some(), self.validation);
        let begin_s = self.begun.elapsed().as_secs_f64();
        let share = (0.03 * time.seconds()).clamp(0.5, 30.0);
        progress.note(&format!("measuring how long a step takes, for run.time = {time}"));
        let tiers = self.tiers(config);
        let candidates: Vec<Config> = match tiers {
            [] => vec![config.clone()],
            tiers => tiers.iter().map(|tier| with_widths(config, tier)).collect(),
        };
        let mut all: Vec<(Config, Measured)> = Vec::new();
        for (i, candidate) in candidates.iter().enumerate() {
            if let Some((smaller, measured)) = all.last() {
                // Twice: wider kernels use a device better.
                let guess =
                    self.rows_in(time.seconds(), smaller, measured) as f64 * 2.0 * work(smaller) / work(candidate);
                if recipe::tier(guess as u64, self.data.len()).rows < tiers[i].rows {
                    break;
                }
            }
            let measured = match calibration.measured(candidate, &text)? {
                Some(measured) => measured,
                None => {
                    let measured = Measured { begin_s, ..measure(kernels, candidate, self.data, share, progress)? };
                    calibration.learn(candidate, &text, measured.clone())?;
                    measured
                }
            };
            all.push((candidate.clone(), measured));
        }
        // The widest that has its rows; a score takes the same for all.
        let suits = |(i, (candidate, measured)): &(usize, &(Config, Measured))| {
            let rows = self.rows_in(time.seconds(), candidate, measured);
            tiers.is_empty() || recipe::tier(rows, self.data.len()).rows >= tiers[*i].rows
        };
        let chosen = all.iter().enumerate().rfind(suits).map_or(0, |(i, _)| i);
        let Some((candidate, mut measured)) = all.get(chosen).cloned() else {
            return Err(Error::Internal("no network is left to choose".into()));
        };
        let mut again_s = 0.0;
        let wants_score = measured.score_s.is_none() && self.novel.is_some();
        let to_validate = self.validated(&candidate).filter(|_| measured.validation_s.is_none());
        if wants_score || to_validate.is_some() {
            let begun = Instant::now();
            let mut trainer = Trainer::new(kernels.clone(), &self.without_time(&candidate), self.data.clone(), None)?;
            again_s = begun.elapsed().as_secs_f64();
            if let Some(images) = to_validate {
                trainer.validate_on(images.clone())?;
                // The first may compile.
                trainer.validated()?;
                let begun = Instant::now();
                trainer.validated()?;
                measured.validation_s = Some(begun.elapsed().as_secs_f64());
            }
            if wants_score {
                let begun = Instant::now();
                let (scores, _) = score_run(&mut trainer, self.novel, "untrained", progress)?;
                measured.score_s = Some(begun.elapsed().as_secs_f64());
                // A run that begins with another network is scored with that.
                fit.untrained = Some(scores).filter(|_| config.run.init.is_none());
            }
            *kernels = trainer.kernels().clone();
            calibration.learn(&candidate, &text, measured.clone())?;
        }
        let (step_s, validations_s) = self.cost(&candidate, &measured);
        let decision = |seconds: f64| {
            let seconds = seconds - validations_s;
            let steps = (seconds / step_s).floor().clamp(0.0, 1e9) as u32;
            // With what each has of checkpoints and validations.
            let phase_s = measured.phase_s.iter().map(|seconds| seconds * step_s / measured.step_s).collect();
            Decision { widths: candidate.model.widths.clone(), steps, training_s: seconds, step_s, phase_s }
        };
        let next = decision(time.seconds() - measured.overhead_s());
        if next.steps == 0 {
            // What was measured need not be measured again.
            calibration.keep(progress);
            let least = (measured.overhead_s() + validations_s + step_s).ceil() as u64 + 1;
            return Err(Error::Conflict {
                keys: vec!["run.time"],
                why: format!(
                    "run.time = {time} is too short: to read the data, to plan and to score take about {:.1} s here, and a \
                     step {:.2} s",
                    measured.overhead_s() + validations_s,
                    step_s
                ),
                changes: vec![Change::Set("run.time", TimeSpan(least).to_string())],
            });
        }
        calibration.decide(config, &[&text, &self.open(config)], time, next.clone())?;
        calibration.keep(progress);
        // This run has spent time on measuring; what is left to do is the step, the end's score and its checkpoint.
        let scores = if fit.untrained.is_some() { 1.0 } else { 2.0 };
        let rest = again_s + scores * measured.score_s.unwrap_or(0.0) + measured.checkpoint_s;
        let now = decision(time.seconds() - self.begun.elapsed().as_secs_f64() - rest);
        if now.steps >= 1 && now.steps * 2 >= next.steps {
            return Ok(now);
        }
        progress.warn(&format!(
            "measuring took more than half of run.time = {time}, so this first run takes longer; later ones do not measure"
        ));
        Ok(next)
    }
}

/// The settings with the network of `tier`.
fn with_widths(config: &Config, tier: &Tier) -> Config {
    let mut config = config.clone();
    config.model.widths = tier.widths.to_vec();
    config
}

/// Multiply-adds of a row, but for a factor that networks of as many blocks share: three convolutions per block, whose
/// maps have a quarter of the pixels of those of the block before.
fn work(config: &Config) -> f64 {
    let mut before = 3.0;
    let of = |(i, &width): (usize, &usize)| {
        let width = width as f64;
        let work = width * (before + 2.0 * width) / 4_f64.powi(i as i32);
        before = width;
        work
    };
    config.model.widths.iter().enumerate().map(of).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_time_and_a_length_contradict_each_other() {
        for (text, key) in [
            ("[run]\ntime = \"5m\"\n[optimiser]\nlength = { steps = 3 }", "optimiser.length.steps"),
            ("[run]\ntime = \"5m\"\n[optimiser]\nlength = { epochs = 3 }", "optimiser.length.epochs"),
        ] {
            let error = check_length(&toml::from_str(text).unwrap()).unwrap_err();
            assert!(matches!(&error, Error::Conflict { keys, .. } if keys[1] == key), "{error}");
        }
        let error = check_length(&toml::from_str("[run]\ntime = \"5m\"\nrows = 7").unwrap()).unwrap_err();
        assert!(matches!(&error, Error::Conflict { keys, .. } if keys == &["run.time", "run.rows"]), "{error}");
        let error = check_length(&toml::from_str("[run]\nrows = 7\n[optimiser]\nlength = { steps = 3 }").unwrap());
        assert!(matches!(&error, Err(Error::Conflict { keys, .. }) if keys[0] == "run.rows"), "{error:?}");
        check_length(&toml::from_str("[run]\ntime = \"5m\"").unwrap()).unwrap();
        check_length(&Table::new()).unwrap();
    }

    #[test]
    fn wider_networks_are_more_work() {
        let mut config = Config::default();
        config.model.widths = vec![16, 32, 64, 128];
        let small = work(&config);
        config.model.widths = vec![32, 64, 128, 256];
        assert!((3.5..4.0).contains(&(work(&config) / small)));
    }
}
