//! Measures a device: what it can do at best ([`ceilings`]), what every kernel of a training step reaches
//! ([`cases`], [`kernels`]), and the step as a whole ([`step`]). [`compare`] compares two runs, [`picture`] draws one
//! and [`table`] writes its kernels as CSV.
//!
//! Each kernel is compared with its f64 twin at the timed size before it is timed, through the code that trains.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;
use crate::gpu::clock::Clock;
use crate::gpu::kernel::Kernels;
use crate::gpu::profile::PassTimer;
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::trainer::refuse_without_unit;
use crate::{Error, Result};

pub mod cases;
pub mod ceilings;
pub mod compare;
pub mod kernels;
pub mod picture;
pub mod step;
pub mod table;

pub use ceilings::Ceilings;
pub use kernels::KernelResult;
pub use step::StepResult;

/// What to measure, with validated settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// Settings of the training steps.
    pub config: Config,
    /// Image sides, one step per side. Empty: 32, and 84 too on a GPU.
    pub sides: Vec<usize>,
    /// Rows of a step. None: as many as the device computes in about half a second.
    pub rows: Option<usize>,
    /// Kernels at these shapes, instead of the kernels of the steps.
    pub shapes: Vec<cases::Shape>,
    /// Whether single kernels are measured.
    pub kernels: bool,
    /// Only kernels whose name or shape contains this.
    pub filter: String,
    /// Whether the whole step is measured.
    pub step: bool,
    /// Number of samples per time. None: five, or three for a step that takes longer than a second.
    pub samples: Option<usize>,
    /// Whether kernels are compared with their twins.
    pub check: bool,
    /// Whether anything is timed.
    pub time: bool,
}

impl Options {
    /// Number of samples of a time of about `seconds`.
    fn samples_of(&self, seconds: f64) -> usize {
        self.samples.unwrap_or(if seconds > 1.0 { 3 } else { 5 })
    }
}

/// A set of samples, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// Lower end of [`Spread::middle`]; runs of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of [`Spread::middle`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Number of samples.
    pub samples: usize,
}

impl Spread {
    /// Sums up samples.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let Some((&min, &max)) = values.first().zip(values.last()) else { return Self::default() };
        let median = if n % 2 == 1 { values[n / 2] } else { (values[n / 2 - 1] + values[n / 2]) / 2.0 };
        // Other work of the machine makes samples slower, never faster: of three, the slowest is left out already.
        let slow = (n / 4).max(1).min((n - 1) / 2);
        Spread { median, min, max, low: Some(values[n / 4]), high: Some(values[n - 1 - slow]), samples: n }
    }

    /// The range of the middle half of the samples. One slow outlier of three samples does not move it, nor does a fast
    /// one of four.
    ///
    /// For a run that did not keep it: as far on both sides of the median as the nearer of the two extremes.
    pub fn middle(&self) -> (f64, f64) {
        let nearer = (self.median - self.min).min(self.max - self.median);
        (self.low.unwrap_or(self.median - nearer), self.high.unwrap_or(self.median + nearer))
    }
}

/// The adapter that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// vulkan, metal, dx12 or gl.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Whether it is a software adapter.
    pub software: bool,
}

/// Everything that one call measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Version of this program.
    pub version: String,
    /// The adapter.
    pub device: Device,
    /// Where the kernels' times come from: timestamps or the wall clock. Steps are always by the wall clock.
    pub clock: String,
    /// The device's own limits; none where nothing was timed.
    pub ceilings: Option<Ceilings>,
    /// Single kernels.
    pub kernels: Vec<KernelResult>,
    /// Whole steps.
    pub steps: Vec<StepResult>,
}

impl Run {
    /// Number of kernels that differ from their twins at the timed size.
    pub fn failed(&self) -> usize {
        self.kernels.iter().filter(|kernel| kernel.check.failed()).count()
    }
}

/// Time that one sample should take: long compared with the clock's resolution and the cost of a submission.
const TARGET_SECONDS: f64 = 0.03;

/// The most repetitions within one sample.
const MAX_REPEATS: f64 = 4096.0;

/// The most rounds of warm-up.
const MAX_ROUNDS: usize = 12;

/// Times `encode` alone: runs it until the device is warm, then takes `samples` samples, each of as many repetitions in
/// one pass as 30 ms hold. Returns seconds per repetition.
///
/// # Errors
/// [`Error::Device`] when the device failed.
pub async fn measure_async(
    timer: &mut PassTimer,
    samples: usize,
    encode: &dyn Fn(&mut wgpu::ComputePass),
) -> Result<Spread> {
    let repeats_for = |seconds: f64| (TARGET_SECONDS / seconds.max(1e-9)).ceil().clamp(1.0, MAX_REPEATS) as usize;
    let mut repeats = 1;
    let mut before = f64::INFINITY;
    // The first round compiles, and its time is mostly the cost of a submission. A device that was idle raises its
    // clock meanwhile: it is warm when it gets no faster. Where one repetition takes far longer than the target, there
    // is no number of repetitions to find.
    for round in 0..MAX_ROUNDS {
        let many = |pass: &mut wgpu::ComputePass| (0..repeats).for_each(|_| encode(pass));
        let one = timer.time_async(&[&many]).await?[0] / repeats as f64;
        repeats = repeats_for(one);
        if one > 10.0 * TARGET_SECONDS || (round > 1 && one > 0.97 * before) {
            break;
        }
        before = one;
    }
    let many = |pass: &mut wgpu::ComputePass| (0..repeats).for_each(|_| encode(pass));
    let mut times = Vec::new();
    for _ in 0..samples {
        times.push(timer.time_async(&[&many]).await?[0] / repeats as f64);
    }
    Ok(Spread::of(times))
}

/// Rows of a step that the device computes in about half a second at a fifth of its peak arithmetic, with no tensor
/// larger than its bindings: a power of two, at least 16.
fn rows_for(options: &Options, side: usize, gpu: &Gpu, ceilings: Option<&Ceilings>) -> Result<usize> {
    const LEAST: usize = 16;
    const MOST: usize = 256;
    let limit = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
    let mut rows = LEAST;
    let step = cases::Recording::new(&options.config, side, rows)?;
    let per_row = step.flops() as f64 / step.rows as f64;
    let largest = step.largest_bytes() / step.rows as u64;
    let room = ceilings.map_or(0.0, |c| 0.1 * c.flops_per_second / per_row);
    while rows < MOST && 2.0 * rows as f64 <= room && 2 * rows as u64 * largest <= limit {
        rows *= 2;
    }
    Ok(rows)
}

/// Measures on the device of `kernels`, by `clock` where it has no timestamps. They also learn what is chosen on the way.
///
/// # Errors
/// [`Error::Usage`] or [`Error::Shape`] when a shape or a filter fits nothing, [`Error::Device`] when the device
/// refuses or fails.
pub async fn run_async(
    options: &Options,
    kernels: &mut Kernels,
    clock: Clock,
    progress: &mut dyn Progress,
) -> Result<Run> {
    let gpu = kernels.gpu().clone();
    let software = gpu.is_software();
    let mut options = options.clone();
    options.config.run.winograd = options.config.run.winograd.resolved(software);
    options.config.run.matrix = options.config.run.matrix.resolved(kernels.matrix_unit().is_some());
    refuse_without_unit(&options.config, kernels)?;
    let options = &options;
    let mut timer = PassTimer::new_async(gpu.clone(), clock).await?;
    let mut ceilings = None;
    if options.time {
        progress.note("measuring what the device can do at best");
        ceilings = Some(ceilings::find_async(&mut timer, kernels, options.samples_of(0.0)).await?);
    }
    let sides = match (options.sides.as_slice(), software) {
        ([], true) => vec![32],
        ([], false) => vec![32, 84],
        (sides, _) => sides.to_vec(),
    };
    let mut cases = Vec::new();
    for shape in &options.shapes {
        cases.extend(shape.cases(&options.config)?);
    }
    let mut recordings = Vec::new();
    if options.step || options.shapes.is_empty() {
        for side in sides {
            let rows = match options.rows {
                Some(rows) => rows,
                None => rows_for(options, side, &gpu, ceilings.as_ref())?,
            };
            recordings.push(cases::Recording::new(&options.config, side, rows)?);
        }
    }
    if options.kernels && options.shapes.is_empty() {
        for recording in &recordings {
            cases.extend(recording.cases()?);
        }
    }
    cases.retain(|case| case.name.contains(&options.filter) || case.shape.contains(&options.filter));
    if options.kernels && cases.is_empty() {
        return Err(Error::usage(format!(
            "no kernel of the step has `{}` in its name or shape; without a filter all are measured",
            options.filter
        )));
    }
    let mut results = Vec::new();
    let total = cases.len() as u64;
    for (i, case) in cases.iter().enumerate() {
        progress.go_on()?;
        results.push(kernels::run_async(case, options, &mut timer, kernels, ceilings.as_ref()).await?);
        progress.advance("kernel", i as u64 + 1, total);
    }
    let mut steps = Vec::new();
    if options.step && options.time {
        for recording in &recordings {
            steps.push(step::run_async(recording, options, &mut timer, kernels, progress).await?);
        }
    }
    Ok(Run {
        version: env!("CARGO_PKG_VERSION").into(),
        device: Device {
            name: gpu.info().name.clone(),
            backend: format!("{:?}", gpu.info().backend).to_lowercase(),
            driver: format!("{} {}", gpu.info().driver, gpu.info().driver_info).trim().to_owned(),
            software,
        },
        clock: timer.source().into(),
        ceilings,
        kernels: results,
        steps,
    })
}

/// As [`run_async`], by the system's clock; blocks.
///
/// # Errors
/// As [`run_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn run(options: &Options, kernels: &mut Kernels, progress: &mut dyn Progress) -> Result<Run> {
    pollster::block_on(run_async(options, kernels, crate::train::clock, progress))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_a_middle() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        let (low, high) = (Some(1.0), Some(2.0));
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0, low, high, samples: 3 });
        assert_eq!(spread(&[4.0, 1.0]).median, 2.5);
        assert_eq!(spread(&[4.0, 1.0]).middle(), (1.0, 4.0));
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 99.0]).middle(), (2.0, 4.0));
        let old = Spread { low: None, high: None, ..spread(&[1.0, 2.0, 3.0, 4.0, 99.0]) };
        assert_eq!(old.middle(), (1.0, 5.0));
        assert_eq!(spread(&[]), Spread::default());
    }
}
