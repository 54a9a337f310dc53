//! The seam between the commands and the jobs: one function a command, called with judged settings only.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::check::CheckJob;
use super::distill::DistillJob;
use super::embed::EmbedJob;
use super::eval::EvalJob;
use super::plan::PlanJob;
use super::train::TrainJob;
use crate::config::{Config, Progress};
use crate::{Error, Result};

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
    pub limits: Vec<(String, u64)>,
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
    /// Last loss.
    pub loss: f64,
    /// Wall time of this process's share of the steps, seconds.
    pub seconds: f64,
    /// Images a second over these steps.
    pub images_per_second: f64,
    /// Scores of the initial network on the novel classes, 1-shot by logistic regression first; empty with
    /// `--no-eval`.
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
    /// Inputs left out, each with the reason; they are warned of, too.
    pub skipped: Vec<(PathBuf, String)>,
}

/// A planned step.
#[derive(Clone, Debug, Serialize)]
pub struct PlanOutcome {
    /// Rows a step.
    pub rows: usize,
    /// Trained parameters.
    pub parameters: u64,
    /// Most bytes on the device at once.
    pub peak_bytes: u64,
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
    /// Slot that holds the output.
    pub slot: usize,
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

fn not_wired<T>(what: &str) -> Result<T> {
    Err(Error::Internal(format!("{what} is not wired yet")))
}

/// The adapters of this machine; `adapter` is the user's choice.
pub fn devices(_adapter: Option<&str>) -> Result<Vec<DeviceEntry>> {
    not_wired("devices")
}

/// The configuration inside a checkpoint.
pub fn checkpoint_config(_checkpoint: &Path) -> Result<Config> {
    not_wired("reading a checkpoint")
}

/// Trains, and scores the novel classes before and after unless told not to.
pub fn train(_job: &TrainJob, _adapter: Option<&str>, _progress: &mut dyn Progress) -> Result<TrainOutcome> {
    not_wired("train")
}

/// Trains the generations one after the other; one outcome each.
pub fn distill(_job: &DistillJob, _adapter: Option<&str>, _progress: &mut dyn Progress) -> Result<Vec<TrainOutcome>> {
    not_wired("distill")
}

/// Scores a checkpoint.
pub fn eval(_job: &EvalJob, _adapter: Option<&str>, _progress: &mut dyn Progress) -> Result<EvalOutcome> {
    not_wired("eval")
}

/// Embeds images and writes the array and its list.
pub fn embed(_job: &EmbedJob, _adapter: Option<&str>, _progress: &mut dyn Progress) -> Result<EmbedOutcome> {
    not_wired("embed")
}

/// Plans a step.
pub fn plan(_job: &PlanJob) -> Result<PlanOutcome> {
    not_wired("plan")
}

/// Compares shaders with their twins; an empty list means that no name matched the filter.
pub fn check(_job: &CheckJob, _adapter: Option<&str>, _progress: &mut dyn Progress) -> Result<Vec<CheckEntry>> {
    not_wired("check")
}
