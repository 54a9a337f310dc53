//! What a job tells its caller while it works, and what the caller may ask of it.

use serde::Serialize;

/// What a training job tells its caller each time it has read the losses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done, counted from 1.
    pub step: u32,
    /// Steps of the whole run.
    pub total_steps: u32,
    /// Epoch under way, counted from 1.
    pub epoch: u32,
    /// Learning rate of the step.
    pub lr: f64,
    /// The loss that is minimised.
    pub loss: f64,
    /// Its terms by short name, unweighted, and `grad_norm` where gradients are clipped: their norm before that.
    pub terms: Vec<(&'static str, f64)>,
    /// Share of the rows whose class is right, 0 to 1.
    pub accuracy: Option<f64>,
    /// Images seen since the run began (not rows).
    pub images: u64,
    /// Steps to come, counted in steps that take as long as this one: by the rows of each and their size.
    pub to_come: f64,
}

/// The caller of a long job: is told of progress, and may ask the job to stop.
pub trait Progress {
    /// The losses were read.
    fn step(&mut self, report: &StepReport);

    /// Part `done` of `total` of a job without losses is finished (images embedded, episodes scored).
    fn advance(&mut self, what: &str, done: u64, total: u64);

    /// A sentence on what happens, for people.
    fn note(&mut self, sentence: &str);

    /// A sentence on something that is probably not what the user wants.
    fn warn(&mut self, sentence: &str);

    /// Whether the job is asked to finish its step, save, and return [`crate::Error::Interrupted`].
    fn stop_requested(&self) -> bool;

    /// [`crate::Error::Interrupted`] once the job is asked to stop; for jobs that have nothing to save.
    fn go_on(&self) -> crate::Result<()> {
        match self.stop_requested() {
            true => Err(crate::Error::Interrupted("stopped before the end, so there is no result".into())),
            false => Ok(()),
        }
    }
}

/// A caller that wants to hear nothing and never stops the job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &StepReport) {}

    fn advance(&mut self, _: &str, _: u64, _: u64) {}

    fn note(&mut self, _: &str) {}

    fn warn(&mut self, _: &str) {}

    fn stop_requested(&self) -> bool {
        false
    }
}
