//! Times a whole training step, its phases, and the training loop with its data.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cases::Recording;
use super::{Options, Spread};
use crate::data::ImageSet;
use crate::gpu::clock::Clock;
use crate::gpu::kernel::Kernels;
use crate::gpu::profile::{Encode, PassTimer};
use crate::progress::Progress;
use crate::random::{Rng, Stream};
use crate::tape::Graph;
use crate::tape::exec::Executor;
use crate::train::Trainer;
use crate::{Error, Result};

/// A measured step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepResult {
    /// The preset that its settings come from.
    pub preset: String,
    /// Channels per block.
    pub widths: Vec<usize>,
    /// Side of the images.
    pub side: usize,
    /// Images per step.
    pub images: usize,
    /// Rows per step: images times transforms.
    pub rows: usize,
    /// Dispatches.
    pub launches: usize,
    /// Floating-point operations of the products.
    pub flops: u64,
    /// Those that are executed for them; 0 in runs of earlier versions.
    #[serde(default)]
    pub executed: u64,
    /// Whether some of them are executed by matrix units, whose ceiling is not measured.
    #[serde(default)]
    pub on_matrix_units: bool,
    /// Seconds per step, unprofiled, from submission to completion.
    pub seconds: Spread,
    /// Seconds per phase, each in passes of its own; they do not add up to the step.
    pub phases: Vec<(String, Spread)>,
    /// Images per second of the training loop: batches and views drawn, uploaded, trained, losses read.
    pub images_per_second: Spread,
}

/// The phases of a step, in their order.
pub const PHASES: [&str; 5] = ["views", "forward", "losses", "backward", "optimiser"];

/// The phase of a node, from the layer that it belongs to.
fn phase(scope: &str) -> &'static str {
    match scope {
        "views" => "views",
        "losses" | "bank" => "losses",
        "optimiser" => "optimiser",
        _ if scope.ends_with('\'') => "backward",
        _ => "forward",
    }
}

/// Consecutive nodes of one phase.
fn runs(graph: &Graph) -> Vec<(&'static str, Range<usize>)> {
    let mut runs: Vec<(&'static str, Range<usize>)> = Vec::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let phase = phase(&node.scope);
        match runs.last_mut() {
            Some((last, range)) if *last == phase => range.end = i + 1,
            _ => runs.push((phase, i..i + 1)),
        }
    }
    runs
}

/// Images of noise, in memory, so that the loop reads no files.
pub fn noise(recording: &Recording) -> ImageSet {
    let data = recording.data;
    let mut rng = Rng::new(20_260, Stream::Order, 1, 0);
    let pixels = (0..data.images * data.side * data.side).map(|_| rng.next_bits() | 0xff00_0000).collect();
    ImageSet {
        side: data.side,
        pixels,
        labels: (0..data.images).map(|i| (i % data.classes) as u32).collect(),
        class_names: (0..data.classes).map(|c| format!("class {c}")).collect(),
        names: (0..data.images).map(|i| format!("image {i}")).collect(),
        ..ImageSet::default()
    }
}

/// Executes until the executor no longer times its own dispatches, and once more; returns the seconds of that last
/// execution.
///
/// The first executions compile pipelines and, where `run.slice_ms` limits a submission, go dispatch by dispatch with a
/// wait after each: their times are not those of a step.
///
/// # Errors
/// [`crate::Error::Device`] when the device fails.
pub async fn warm_up_async(executor: &Executor, clock: Clock) -> Result<f64> {
    while executor.is_measuring() {
        let submission = executor.submit_async().await?;
        executor.gpu().wait_for_async(&submission).await?;
    }
    sample_async(executor, clock).await
}

/// Seconds of one execution, from submission to completion.
///
/// # Errors
/// [`crate::Error::Internal`] before [`warm_up_async`], [`crate::Error::Device`] when the device fails.
pub async fn sample_async(executor: &Executor, clock: Clock) -> Result<f64> {
    if executor.is_measuring() {
        return Err(Error::Internal("a step was timed while its executor timed each dispatch".into()));
    }
    let begun = clock();
    let submission = executor.submit_async().await?;
    executor.gpu().wait_for_async(&submission).await?;
    Ok((clock() - begun).as_secs_f64())
}

/// Measures one step.
///
/// # Errors
/// [`crate::Error::Device`] when the step does not fit the device or the device fails, [`crate::Error::NonFinite`]
/// when its loss is not finite.
pub async fn run_async(
    recording: &Recording,
    options: &Options,
    timer: &mut PassTimer,
    kernels: &mut Kernels,
    progress: &mut dyn Progress,
) -> Result<StepResult> {
    let clock = timer.clock();
    let data = Arc::new(noise(recording));
    let mut trainer = Trainer::new_async(kernels.clone(), &recording.config, data, None, Some(clock)).await?;
    kernels.tuning_mut().clone_from(trainer.kernels().tuning());
    // The first step writes the inputs. Of micro-batches that are computed at once each has an executor.
    trainer.submit_async().await?;
    while trainer.is_measuring() {
        trainer.submit_async().await?;
    }
    trainer.read_metrics_async().await?;
    let samples = options.samples_of(warm_up_async(trainer.executor(), clock).await?);
    let what = format!("step of {} rows at {} px, sample", recording.rows, recording.data.side);
    let total = 3 * samples as u64;
    let mut done = 0;
    let mut advance = |progress: &mut dyn Progress| {
        done += 1;
        progress.advance(&what, done, total);
        progress.go_on()
    };

    let mut seconds = Vec::new();
    for _ in 0..samples {
        seconds.push(sample_async(trainer.executor(), clock).await?);
        advance(progress)?;
    }
    let seconds = Spread::of(seconds);

    let executor = trainer.executor();
    let runs = runs(executor.graph());
    let encode = |(_, range): &(&str, Range<usize>)| {
        let range = range.clone();
        move |pass: &mut wgpu::ComputePass| executor.encode(pass, range.clone())
    };
    let encoders: Vec<_> = runs.iter().map(encode).collect();
    let passes: Vec<Encode> = encoders.iter().map(|encode| encode as Encode).collect();
    let mut by_phase: Vec<Vec<f64>> = vec![Vec::new(); PHASES.len()];
    for _ in 0..samples {
        let times = timer.time_async(&passes).await?;
        for (phase, all) in PHASES.iter().zip(&mut by_phase) {
            all.push(runs.iter().zip(&times).filter(|((p, _), _)| p == phase).map(|(_, t)| t).sum());
        }
        advance(progress)?;
    }
    let phases = PHASES.iter().zip(by_phase).map(|(phase, times)| (phase.to_string(), Spread::of(times))).collect();
    let (launches, batch) = (executor.dispatches(), recording.config.optimiser.batch);

    // As the training loop does it: two steps in flight, the losses read once in a while.
    let steps = (1.0 / seconds.median).ceil().clamp(1.0, 64.0) as usize;
    let mut rates = Vec::new();
    for _ in 0..samples {
        let begun = clock();
        let mut in_flight = std::collections::VecDeque::new();
        for _ in 0..steps {
            in_flight.push_back(trainer.submit_async().await?);
            if in_flight.len() > 2
                && let Some(oldest) = in_flight.pop_front()
            {
                trainer.gpu().wait_for_async(&oldest).await?;
            }
        }
        trainer.read_metrics_async().await?;
        rates.push((steps * batch) as f64 / (clock() - begun).as_secs_f64());
        advance(progress)?;
    }
    Ok(StepResult {
        preset: recording.config.preset.clone().unwrap_or_default(),
        widths: recording.config.model.widths.clone(),
        side: recording.data.side,
        images: batch,
        rows: recording.rows,
        launches,
        flops: recording.flops(),
        executed: recording.executed(),
        on_matrix_units: recording.on_matrix_units(),
        seconds,
        phases,
        images_per_second: Spread::of(rates),
    })
}
