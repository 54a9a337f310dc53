//! How long a run takes on a device: measured once, kept beside the tuning results, so that the same command makes the
//! same run again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::tuning::Machine;
use crate::data::ImageSet;
use crate::files::replace_file;
use crate::gpu::kernel::Kernels;
use crate::progress::{Progress, StepReport};
use crate::settings::{Config, Length, TimeSpan};
use crate::train::phases::Phases;
use crate::train::record::DataShape;
use crate::train::{Observer, Trainer};
use crate::{Error, Result};

/// Seconds of a run on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// To read the data and open the device.
    pub begin_s: f64,
    /// To plan the step, and make its buffers and kernels.
    pub create_s: f64,
    /// A step, the mean over the run.
    pub step_s: f64,
    /// A step of each phase.
    #[serde(default)]
    pub phase_s: Vec<f64>,
    /// A checkpoint.
    pub checkpoint_s: f64,
    /// To score a network on the novel classes; none where it was not measured.
    pub score_s: Option<f64>,
    /// To score it on the validation classes; none where it was not measured.
    #[serde(default)]
    pub validation_s: Option<f64>,
}

impl Measured {
    /// Seconds of everything but the steps and their checkpoints.
    pub fn overhead_s(&self) -> f64 {
        self.begin_s + self.create_s + 2.0 * self.score_s.unwrap_or(0.0) + self.checkpoint_s
    }

    /// Seconds of a validation of `images` images. Where it was not measured: an image of the full `side` that is embedded
    /// costs about a third of a row of a step at that side.
    pub fn validation(&self, config: &Config, side: usize, images: usize) -> f64 {
        let guess = self.step_s * images as f64 / (3.0 * config.full_rows(side).max(1e-3));
        self.validation_s.unwrap_or(guess)
    }
}

/// What was decided for a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Channels per block.
    pub widths: Vec<usize>,
    /// Number of steps.
    pub steps: u32,
    /// Seconds that these were estimated to leave for the steps.
    pub training_s: f64,
    /// Seconds of a step, the mean over the run.
    pub step_s: f64,
    /// Seconds of a step of each phase.
    #[serde(default)]
    pub phase_s: Vec<f64>,
}

/// The file of an adapter: what it holds is of this driver, these shaders and this version alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    machine: Machine,
    version: String,
    /// By what decides a step.
    measured: BTreeMap<String, Measured>,
    /// By what decides a run.
    decided: BTreeMap<String, Decision>,
}

/// What is known about an adapter, and where it is kept.
pub struct Calibration {
    file: Option<PathBuf>,
    kept: Kept,
}

/// A number that stands for `parts`.
fn key(parts: &[&str]) -> String {
    let words: Vec<u32> = parts.iter().flat_map(|part| part.bytes().chain([0])).map(u32::from).collect();
    crate::train::state::fingerprint([words.as_slice()])
}

/// What of a run decides the time of a step: neither its length nor what it is called.
fn step_text(config: &Config) -> Result<String> {
    let (mut plain, unset) = (config.clone(), Config::default());
    plain.recipe = unset.recipe;
    plain.preset = None;
    plain.optimiser.length = unset.optimiser.length;
    plain.optimiser.decay_at = unset.optimiser.decay_at.clone();
    plain.run = crate::settings::RunConfig { out: None, time: None, rows: None, seed: 0, ..plain.run };
    (plain.run.checkpoint_every, plain.run.on_device_lost) = (unset.run.checkpoint_every, unset.run.on_device_lost);
    plain.run.reasons.clear();
    plain.run.chosen.clear();
    plain.to_json()
}

fn decision_key(config: &Config, rest: &[&str], time: TimeSpan) -> Result<String> {
    Ok(key(&[&[step_text(config)?.as_str(), &time.to_string()], rest].concat()))
}

/// What decides how long a run takes beside its settings.
pub fn data_text(data: &ImageSet, scored: bool, validation: Option<&Arc<ImageSet>>) -> String {
    let validated = validation.map_or(0, |images| images.len());
    let (images, classes, side) = (data.len(), data.n_classes(), data.side);
    format!("{images} images of {classes} classes, {side} px, scored {scored}, validated on {validated}")
}

/// Counts nothing, and stops after some time.
struct Stopwatch<'a> {
    begun: Instant,
    seconds: f64,
    read: f64,
    progress: &'a dyn Progress,
}

impl Observer for Stopwatch<'_> {
    fn on_step(&mut self, _: &StepReport) -> Result<()> {
        self.read = self.begun.elapsed().as_secs_f64();
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.begun.elapsed().as_secs_f64() >= self.seconds || self.progress.stop_requested()
    }
}

impl Calibration {
    /// What the cache in `folder` holds of this device.
    pub fn open(kernels: &Kernels, folder: Option<&Path>) -> Calibration {
        let machine = Machine::of(kernels);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let file = folder.map(|folder| machine.file(folder, "calibration"));
        let read = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let kept = read.and_then(|text| toml::from_str::<Kept>(&text).ok());
        let fits = |kept: &Kept| kept.machine == machine && kept.version == version;
        let new = || Kept {
            machine: machine.clone(),
            version: version.clone(),
            measured: BTreeMap::new(),
            decided: BTreeMap::new(),
        };
        Calibration { file, kept: kept.filter(fits).unwrap_or_else(new) }
    }

    /// Keeps it for later runs. A cache that cannot be written is a note: the next run measures again.
    pub fn keep(&self, progress: &mut dyn Progress) {
        let Some(file) = &self.file else { return };
        let write = || -> Result<()> {
            let text = toml::to_string(&self.kept).map_err(|e| Error::Internal(format!("calibration: {e}")))?;
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder).map_err(|e| Error::io(file, "cannot keep the calibration", e))?;
            }
            replace_file(file, "cannot keep the calibration", text.as_bytes())
        };
        if let Err(error) = write() {
            progress.note(&format!("{error}; the next run will measure again"));
        }
    }

    /// What is known of the steps of `config` over data as `data_text` says.
    pub fn measured(&self, config: &Config, data: &str) -> Result<Option<Measured>> {
        Ok(self.kept.measured.get(&key(&[&step_text(config)?, data])).cloned())
    }

    /// Notes what was measured.
    pub fn learn(&mut self, config: &Config, data: &str, measured: Measured) -> Result<()> {
        self.kept.measured.insert(key(&[&step_text(config)?, data]), measured);
        Ok(())
    }

    /// What was decided for the run of `config`, before widths and length were chosen, in this time. `rest`: what else
    /// decides it.
    pub fn decided(&self, config: &Config, rest: &[&str], time: TimeSpan) -> Result<Option<&Decision>> {
        Ok(self.kept.decided.get(&decision_key(config, rest, time)?))
    }

    /// Notes a decision.
    pub fn decide(&mut self, config: &Config, rest: &[&str], time: TimeSpan, decision: Decision) -> Result<()> {
        self.kept.decided.insert(decision_key(config, rest, time)?, decision);
        Ok(())
    }
}

/// The page of a run is made again in no more than one of so many seconds.
pub const REPORT_SHARE: u32 = 200;

/// Steps over which the shares of phases are counted.
const MANY: u32 = 100_000;

/// Makes the steps of the phases of `config` and repeats each for its share of `seconds`; `kernels` learn the kernels that
/// were made. A phase is measured without the heads that only others train.
pub fn measure(
    kernels: &mut Kernels,
    config: &Config,
    data: &Arc<ImageSet>,
    seconds: f64,
    progress: &dyn Progress,
) -> Result<Measured> {
    let mut config = config.clone();
    config.optimiser.length = Length::Steps(MANY);
    let phases = Phases::new(&config, DataShape::of(data))?;
    let ends = phases.all().iter().skip(1).map(|phase| phase.from).chain([MANY]);
    let mut all = Measured::default();
    for (phase, end) in phases.all().iter().zip(ends) {
        let share = f64::from(end.saturating_sub(phase.from)) / f64::from(MANY);
        let one = measure_phase(kernels, &phase.config, data, share * seconds, progress)?;
        all.create_s += one.create_s;
        all.step_s += share * one.step_s;
        all.phase_s.push(one.step_s);
        all.checkpoint_s = all.checkpoint_s.max(one.checkpoint_s);
    }
    Ok(all)
}

fn measure_phase(
    kernels: &mut Kernels,
    config: &Config,
    data: &Arc<ImageSet>,
    seconds: f64,
    progress: &dyn Progress,
) -> Result<Measured> {
    let mut config = config.clone();
    config.optimiser.length = Length::Steps(1_000_000_000);
    config.run.checkpoint_every = 0;
    let begun = Instant::now();
    let mut trainer = Trainer::new(kernels.clone(), &config, data.clone(), None)?;
    // The first step may compile, and measures how long its parts take.
    trainer.step()?;
    let create_s = begun.elapsed().as_secs_f64();
    for _ in 0..2 {
        trainer.step()?;
    }
    let first = trainer.steps_done();
    let mut watch = Stopwatch { begun: Instant::now(), seconds, read: 0.0, progress };
    trainer.train(&mut watch)?;
    let steps = trainer.steps_done() - first;
    let step_s = watch.read / f64::from(steps.max(1));
    let begun = Instant::now();
    trainer.checkpoint()?.to_bytes()?;
    let checkpoint_s = begun.elapsed().as_secs_f64();
    *kernels = trainer.kernels().clone();
    progress.go_on()?;
    Ok(Measured { create_s, step_s, phase_s: vec![step_s], checkpoint_s, ..Measured::default() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_again_by_what_decides_it() {
        let config = Config::from_preset("demo").unwrap();
        let mut same = config.clone();
        same.optimiser.length = Length::Steps(7);
        (same.run.seed, same.run.time) = (3, Some("5m".parse().unwrap()));
        same.run.reasons = vec!["data.mean: measured".into()];
        assert_eq!(step_text(&same).unwrap(), step_text(&config).unwrap());
        let mut other = config.clone();
        other.model.widths[0] += 1;
        assert_ne!(step_text(&other).unwrap(), step_text(&config).unwrap());
        assert_ne!(key(&["a", "b"]), key(&["ab", ""]));
    }

    #[test]
    fn a_run_is_more_than_its_steps() {
        let phase_s = vec![0.1];
        let measured = Measured {
            begin_s: 1.0,
            create_s: 2.0,
            step_s: 0.1,
            phase_s,
            checkpoint_s: 0.5,
            score_s: Some(3.0),
            ..Measured::default()
        };
        assert_eq!(measured.overhead_s(), 9.5);
        // A third of a row of the full side for each of 400 images, whatever the side of the steps.
        let mut config = Config::from_preset("demo").unwrap();
        config.method = crate::settings::MethodConfig { kind: crate::settings::Method::Baseline, ..config.method };
        let full = measured.validation(&config, 28, 400);
        config.method.scale = 0.5;
        assert!((measured.validation(&config, 28, 400) / full - 4.0).abs() < 1e-9);
        assert_eq!(Measured { validation_s: Some(7.0), ..measured }.validation(&config, 28, 400), 7.0);
    }
}
