//! A run in a folder: the loop of [`Trainer::train`] with its checkpoint file, its metric log and what is said about it,
//! and the way back from a lost device.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoint;
use super::metrics::{self, MetricsLog, Record};
use super::phases::Phases;
use super::tensorboard::EventLog;
use super::trainer::{Observer, Trainer, Unobserved};
use super::validation::Validated;
use crate::gpu::kernel::Kernels;
use crate::progress::{Progress, StepReport};
use crate::settings::{BEST_FILE, CHECKPOINT_FILE, OnDeviceLost, RunConfig};
use crate::{Error, Result};

/// Times that a lost device is opened again in one run: one that continues to fail will not be cured by it.
const REOPENINGS: u32 = 3;
/// A system that resets a device needs a moment, longer each time.
const PAUSE: Duration = Duration::from_millis(500);

/// How a loop over the remaining steps ended.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Last loss; none where no step was left to do and the log of those before is gone.
    pub loss: Option<f64>,
    /// Steps that this call did.
    pub steps: u32,
    /// Wall seconds of these steps.
    pub seconds: f64,
}

/// Trains to the end of the run, saving checkpoints and metrics in `folder`; `resume_command` is what the user is told
/// when the run is interrupted. Where `run.on_device_lost` says so, a lost device is opened again with `reopen` and the
/// run continues from its last checkpoint; `trainer` is on another device then.
///
/// # Errors
/// [`Error::Interrupted`] after saving when the caller asked to stop; [`Error::Diverged`], [`Error::Io`] with the
/// last checkpoint intact; [`Error::DeviceLost`], [`Error::Device`] with the same and the way to continue; what `reopen`
/// fails with.
pub fn run_reopening(
    trainer: &mut Trainer,
    reopen: &dyn Fn(&mut dyn Progress) -> Result<Kernels>,
    folder: &Path,
    resume_command: &str,
    progress: &mut dyn Progress,
) -> Result<Finished> {
    let (start, first) = (Instant::now(), trainer.steps_done());
    // A run that goes on was restored from its checkpoint.
    let mut saved = (first > 0).then_some(first);
    if let Some(sentence) = trainer.schedule().warning() {
        progress.warn(&sentence);
    }
    for phase in trainer.phases().all().iter().skip(1) {
        let (from, batch) = (phase.from + 1, phase.config.optimiser.batch);
        let scale = phase.config.method.scale;
        let seen = if scale < 1.0 { format!(" at {scale} of the side") } else { String::new() };
        progress.note(&format!("from step {from} on a phase with batches of {batch} images{seen} (method.phases)"));
    }
    for opening in 1.. {
        let error = match run(trainer, folder, resume_command, &mut saved, progress) {
            Ok(loss) => {
                let steps = trainer.steps_done() - first;
                return Ok(Finished { loss, steps, seconds: start.elapsed().as_secs_f64() });
            }
            Err(error) => error,
        };
        let resume = trainer.fitted().config.run.on_device_lost == OnDeviceLost::Resume;
        if !(matches!(error, Error::DeviceLost(_)) && resume && opening <= REOPENINGS) {
            return Err(error);
        }
        progress.warn(&format!("{error}; opening the device again ({opening} of {REOPENINGS})"));
        std::thread::sleep(PAUSE * opening);
        if let Some(ranks) = trainer.ranks() {
            ranks.recover();
        }
        let mut again = trainer.on_device(reopen(progress)?)?;
        if saved.is_some() {
            let file = folder.join(CHECKPOINT_FILE);
            again.restore(&file, &Checkpoint::load(&file)?)?;
        }
        again.share()?;
        progress.note(&format!("continuing at step {} of {}", again.steps_done(), again.total_steps()));
        *trainer = again;
    }
    Err(Error::Internal("a loop without an end has ended".into()))
}

/// Computes the share of a rank other than the first to the end of the run, which [`run_reopening`] does on rank 0.
///
/// # Errors
/// The failure of any rank, which all know; what `reopen` fails with.
pub fn follow_reopening(trainer: &mut Trainer, reopen: &dyn Fn() -> Result<Kernels>) -> Result<()> {
    let resume = trainer.fitted().config.run.on_device_lost == OnDeviceLost::Resume;
    for opening in 1.. {
        match trainer.train(&mut Unobserved) {
            Ok(_) => break,
            Err(Error::DeviceLost(_)) if resume && opening <= REOPENINGS => {}
            Err(error) => return Err(error),
        }
        if let Some(ranks) = trainer.ranks() {
            ranks.recover();
        }
        std::thread::sleep(PAUSE * opening);
        *trainer = trainer.on_device(reopen()?)?;
        trainer.share()?;
    }
    Ok(())
}

/// Trains to the end on one device; the last loss. `saved` becomes the step of the last checkpoint in the folder.
fn run(
    trainer: &mut Trainer,
    folder: &Path,
    resume_command: &str,
    saved: &mut Option<u32>,
    progress: &mut dyn Progress,
) -> Result<Option<f64>> {
    let (first, total) = (trainer.steps_done(), trainer.total_steps());
    let resumed = (first > 0).then_some(u64::from(first));
    let log = MetricsLog::open(folder, resumed)?;
    let events = match trainer.fitted().config.run.tensorboard && !trainer.is_over() {
        true => Some(EventLog::open(folder, resumed)?),
        false => None,
    };
    let mut observer = InFolder {
        file: folder.join(CHECKPOINT_FILE),
        log,
        events,
        settings: trainer.fitted().config.run.clone(),
        phases: trainer.phases().clone(),
        since: (Instant::now(), first),
        loss: None,
        validation: None,
        saved,
        progress,
    };
    if trainer.is_over() {
        // Nothing left to do: the last loss is the log's.
        let last = metrics::read(folder)?.pop();
        observer.loss = last.and_then(|record| record.losses.get("total").copied()).map(f64::from);
    }
    let result = trainer.train(&mut observer);
    let InFolder { file, loss, saved, progress, .. } = observer;
    let saved = *saved;
    let way_on = || {
        let held = match saved {
            Some(step) => {
                format!("{} holds step {step} whole, and `{resume_command}` continues from it", file.display())
            }
            None => "no checkpoint had been saved, so the run starts anew".into(),
        };
        format!("step {} of {total} was under way; {held}", trainer.steps_done().max(1))
    };
    match result {
        Ok(true) => {
            if let Some(why) = &trainer.validations().ended {
                progress.note(&format!(
                    "the run ended after step {} of {total}: {why} (run.patience = 0 switches this off)",
                    trainer.steps_done()
                ));
            }
            Ok(loss)
        }
        Ok(false) => Err(Error::Interrupted(format!(
            "saved step {} of {total} in {}; `{resume_command}` continues",
            trainer.steps_done(),
            file.display()
        ))),
        Err(Error::DeviceLost(what)) => Err(Error::DeviceLost(format!("{what}; {}", way_on()))),
        Err(Error::Device(what)) => Err(Error::Device(format!("{what}; {}", way_on()))),
        Err(Error::Diverged { what, step, lr, .. }) => Err(Error::Diverged { what, step, lr, saved }),
        Err(other) => Err(other),
    }
}

/// Writes what it is told into a run's folder, and passes it on.
struct InFolder<'a> {
    file: PathBuf,
    log: MetricsLog,
    /// The same for TensorBoard.
    events: Option<EventLog>,
    settings: RunConfig,
    phases: Phases,
    /// When the losses were last read, and after which step.
    since: (Instant, u32),
    loss: Option<f64>,
    /// The score of the step under way.
    validation: Option<Validated>,
    saved: &'a mut Option<u32>,
    progress: &'a mut dyn Progress,
}

impl Observer for InFolder<'_> {
    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        let seconds = self.since.0.elapsed().as_secs_f64().max(1e-9);
        let images = report.images - self.phases.images_of(self.since.1);
        self.since = (Instant::now(), report.step);
        self.loss = Some(report.loss);
        self.progress.step(report);
        let validation = self.validation.take();
        // The step of an interruption gets no line of its own: the log is that of an uninterrupted run.
        let every = self.settings.log_every;
        let due = report.step == report.total_steps || (every > 0 && report.step.is_multiple_of(every));
        if !due && validation.is_none() {
            return Ok(());
        }
        let losses = [("total", report.loss)].into_iter().chain(report.terms.iter().copied());
        let record = Record {
            step: u64::from(report.step),
            epoch: self.phases.position_of(report.step).0,
            lr: report.lr as f32,
            losses: losses.map(|(name, value)| (name.to_string(), value as f32)).collect(),
            accuracy: report.accuracy.unwrap_or_default() as f32,
            images_per_second: (images as f64 / seconds) as f32,
            validation,
        };
        self.log.write(&record)?;
        self.events.as_mut().map_or(Ok(()), |events| events.write(&record))
    }

    fn on_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        self.log.sync()?;
        checkpoint.save(&self.file)?;
        *self.saved = checkpoint.metadata.get(super::state::STEP_KEY).and_then(|step| step.parse().ok());
        Ok(())
    }

    fn on_validation(&mut self, score: &Validated, best: bool) -> Result<()> {
        self.validation = Some(*score);
        let kept = if best { ", the best so far" } else { "" };
        self.progress.note(&format!(
            "validation after step {}: {:.1} % 1-shot, {:.1} % 5-shot{kept}",
            score.step, score.one_shot_pct, score.five_shot_pct
        ));
        Ok(())
    }

    fn on_best(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        checkpoint.save(self.file.with_file_name(BEST_FILE))
    }

    fn on_long_dispatch(&mut self, dispatch: &str, time: Duration) {
        self.progress.warn(&format!(
            "{dispatch} alone holds the device for {} ms, longer than run.slice_ms = {}: a smaller optimiser.batch or \
             run.micro_batch makes it shorter",
            time.as_millis(),
            self.settings.slice_ms
        ));
    }

    fn stop_requested(&self) -> bool {
        self.progress.stop_requested()
    }
}
