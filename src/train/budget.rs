//! Fits a run into memory: tries what costs nothing first, and says what it chose and what that costs. Needs no device,
//! only its [`Room`].

use super::memory::Memory;
use super::record::{DataShape, training_step};
use crate::gpu::kernel::Kernels;
use crate::ops::flops;
use crate::settings::{Activations, BatchStatistics, ByteSize, Config};
use crate::tape::Graph;
use crate::tape::recompute::candidates;
use crate::{Error, Result};

/// What decides how a run is done, of its device and of those who share the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that one buffer may have.
    pub buffer: u64,
    /// Whether it is a program on the CPU.
    pub software: bool,
    /// Whether its kernels have a matrix unit that is right, and faster where they chose themselves.
    pub matrix_unit: bool,
    /// The ranks that share the micro-batches of each batch; 1 for a run that is not shared.
    pub ranks: usize,
}

impl Room {
    /// Used without a device: 2 GiB buffers, and Winograd as on software adapters, which takes slightly more memory.
    pub const LARGE: Room = Room { buffer: (1 << 31) - 1, software: true, matrix_unit: false, ranks: 1 };

    /// That of a device, for a run that is not shared.
    pub fn of(kernels: &Kernels) -> Room {
        let gpu = kernels.gpu();
        let buffer = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
        Room { buffer, software: gpu.is_software(), matrix_unit: kernels.matrix_unit().is_some(), ranks: 1 }
    }
}

/// A run that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The settings in effect.
    pub config: Config,
    /// Whether the whole training set is on the device; else each batch's pixels are streamed to it.
    pub resident: bool,
    /// What the run holds on the device.
    pub memory: Memory,
    /// What was chosen beyond the settings, and what it costs; one sentence per choice, with settings by their keys.
    pub choices: Vec<String>,
}

/// A way to run.
#[derive(Clone, PartialEq)]
struct Attempt {
    config: Config,
    /// Whether the images are on the device.
    resident: bool,
    data: DataShape,
    /// Whether there is a teacher; as the data, the same in every attempt.
    distill: bool,
    /// As [`Room::ranks`].
    ranks: usize,
}

impl Attempt {
    fn memory(&self) -> Result<Memory> {
        Memory::among(&self.config, self.data, self.distill, self.resident, self.ranks)
    }

    fn step(&self) -> Result<Graph> {
        training_step(&self.config, self.data, self.distill, self.resident).map(|(step, _)| step)
    }

    /// What this does beyond the settings of `config`, and what it costs.
    fn choices(&self, config: &Config) -> Result<Vec<String>> {
        let (chosen, batch, data) = (&self.config.run, config.optimiser.batch, self.data);
        let mut choices = Vec::new();
        if !self.resident {
            choices.push(format!(
                "the images are streamed: {:.1} MiB of pixels are copied to the device each step instead of {:.1} MiB \
                 once; the numbers stay the same",
                mebibytes((4 * data.side * data.side * batch) as u64),
                mebibytes((4 * data.side * data.side * data.images) as u64),
            ));
        }
        if chosen.recompute != config.run.recompute {
            let mut before = self.clone();
            before.config.run.recompute = config.run.recompute;
            let (now, before) = (flops(&self.step()?) as f64, flops(&before.step()?) as f64);
            choices.push(format!(
                "run.recompute = {}: the backward pass computes the cheapest convolutions again instead of keeping them; \
                 {:.1} % more arithmetic per step, the numbers stay the same",
                chosen.recompute,
                100.0 * (now / before - 1.0)
            ));
        }
        if chosen.activations != config.run.activations {
            choices.push(
                "run.activations = f16: the outputs of convolutions are stored in half precision; the numbers change \
                 within its rounding"
                    .into(),
            );
        }
        if chosen.micro_batch != config.run.micro_batch {
            let images = chosen.micro_batch.unwrap_or(batch);
            choices.push(format!(
                "run.micro_batch = {images}: {} passes per step over {images} of the {batch} images, each with batch \
                 statistics of its own",
                batch / images
            ));
        }
        let own = self.config.parts() / self.ranks.max(1);
        if own > 1 && chosen.batch_norm == BatchStatistics::Exact {
            choices.push(format!(
                "run.batch_norm = exact: {own} micro-batches are on the device at once, so they need no less memory than \
                 their images in one piece; with run.batch_norm = micro they would"
            ));
        }
        Ok(choices)
    }

    /// `given`: the settings before anything was chosen.
    fn fitted(mut self, given: &Config, memory: Memory) -> Result<Fitted> {
        let choices = self.choices(given)?;
        self.config.note_choices(given);
        Ok(Fitted { config: self.config, resident: self.resident, memory, choices })
    }
}

/// What may be done about a run that does not fit: from how it began and what was done so far to what to try next,
/// mildest first.
type Remedy = fn(&Attempt, &Attempt) -> Result<Vec<Attempt>>;

/// In the order of preference. A remedy that does not suffice alone stays while the next is tried.
const REMEDIES: &[Remedy] = &[stream, recompute, store_half, micro_batches];

/// The same bits, and a copy of each batch's pixels per step.
fn stream(_: &Attempt, so_far: &Attempt) -> Result<Vec<Attempt>> {
    Ok(if so_far.resident { vec![Attempt { resident: false, ..so_far.clone() }] } else { Vec::new() })
}

/// The same bits, and some arithmetic twice.
fn recompute(_: &Attempt, so_far: &Attempt) -> Result<Vec<Attempt>> {
    let done = so_far.config.run.recompute;
    let with = |more: usize| {
        let mut next = so_far.clone();
        next.config.run.recompute = done + more;
        next
    };
    Ok((1..=candidates(&so_far.step()?).len()).map(with).collect())
}

/// Other numbers, within the rounding of what is stored. What is smaller need not be computed again so often.
fn store_half(base: &Attempt, so_far: &Attempt) -> Result<Vec<Attempt>> {
    if so_far.config.run.activations == Activations::F16 {
        return Ok(Vec::new());
    }
    let mut next = so_far.clone();
    next.config.run.activations = Activations::F16;
    next.config.run.recompute = base.config.run.recompute;
    let mut attempts = vec![next.clone()];
    attempts.extend(recompute(base, &next)?);
    Ok(attempts)
}

/// Other numbers: batch norm sees a part of the batch at a time.
fn micro_batches(_: &Attempt, so_far: &Attempt) -> Result<Vec<Attempt>> {
    let (run, batch) = (&so_far.config.run, so_far.config.optimiser.batch);
    if run.micro_batch.is_some() || run.batch_norm == BatchStatistics::Exact {
        return Ok(Vec::new());
    }
    let phases = so_far.config.phases()?;
    // Batch norm needs two rows.
    let suits = |images: &usize| {
        let fits = |phase: &Config| phase.optimiser.batch.is_multiple_of(*images) && phase.method.rows_of(*images) > 1;
        phases.iter().all(|(_, phase)| fits(phase))
    };
    let with = |images| {
        let mut next = so_far.clone();
        next.config.run.micro_batch = Some(images);
        next
    };
    Ok((1..batch).rev().filter(suits).map(with).collect())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// The first way to run that is within `run.memory_budget` and the device's buffers. Without a budget only the images
/// give way, and the device refuses a step that is too large for it. What was chosen before is chosen
/// anew, except what decides the numbers of a run that continues.
///
/// # Errors
/// [`Error::Conflict`] with sizes, and the settings that would fit, when nothing that is allowed fits the budget;
/// otherwise as [`Memory::of`].
pub fn fit(config: &Config, data: DataShape, distill: bool, room: Room) -> Result<Fitted> {
    let set_bytes = (4 * data.images * data.side * data.side) as u64;
    let given = config.as_given()?;
    let mut base =
        Attempt { config: given.clone(), resident: set_bytes <= room.buffer, data, distill, ranks: room.ranks };
    base.config.run.micro_batch = config.run.micro_batch;
    base.config.run.activations = config.run.activations;
    base.config.run.winograd = config.run.winograd.resolved(room.software);
    base.config.run.matrix = config.run.matrix.resolved(room.matrix_unit);
    let Some(budget) = config.run.memory_budget else {
        let memory = base.memory()?;
        return base.fitted(&given, memory);
    };
    let fits = |memory: &Memory| memory.peak_bytes <= budget.0 && memory.largest_buffer <= room.buffer;
    match search(&base, &fits)? {
        Ok((attempt, memory)) => attempt.fitted(&given, memory),
        Err(least) => Err(refusal(&base, &given, budget, &least, &fits)?),
    }
}

/// The first attempt that fits, or the memory of the smallest that was tried.
fn search(base: &Attempt, fits: &dyn Fn(&Memory) -> bool) -> Result<std::result::Result<(Attempt, Memory), Memory>> {
    let mut least = base.memory()?;
    if fits(&least) {
        return Ok(Ok((base.clone(), least)));
    }
    let mut so_far = base.clone();
    for remedy in REMEDIES {
        let mut strongest = so_far.clone();
        for attempt in remedy(base, &so_far)? {
            let memory = attempt.memory()?;
            if fits(&memory) {
                return ease(base, attempt, memory, fits).map(Ok);
            }
            if memory.peak_bytes < least.peak_bytes {
                (least, strongest) = (memory, attempt);
            }
        }
        so_far = strongest;
    }
    Ok(Err(least))
}

/// Takes back what an earlier remedy did and is not needed after the last one.
fn ease(base: &Attempt, attempt: Attempt, memory: Memory, fits: &dyn Fn(&Memory) -> bool) -> Result<(Attempt, Memory)> {
    for activations in [base.config.run.activations, attempt.config.run.activations] {
        for recompute in base.config.run.recompute..=attempt.config.run.recompute {
            for resident in [base.resident, false] {
                let mut easier = Attempt { resident, ..attempt.clone() };
                (easier.config.run.recompute, easier.config.run.activations) = (recompute, activations);
                let memory = easier.memory()?;
                if fits(&memory) {
                    return Ok((easier, memory));
                }
            }
        }
    }
    Ok((attempt, memory))
}

/// Why nothing fits, and what would.
fn refusal(
    base: &Attempt,
    given: &Config,
    budget: ByteSize,
    least: &Memory,
    fits: &dyn Fn(&Memory) -> bool,
) -> Result<Error> {
    let whole = base.memory()?;
    let parts: Vec<String> = least
        .classes()
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {:.1}", mebibytes(*bytes)))
        .collect();
    let mut ways = Vec::new();
    if base.config.run.micro_batch != given.run.micro_batch {
        ways.push(format!(
            "the run goes on with the micro-batches of {} that were chosen for it, so give it the least that they need, \
             or more",
            base.config.optimiser.batch / base.config.parts()
        ));
    }
    let mut split = base.clone();
    (split.config.run.batch_norm, split.config.run.micro_batch) = (BatchStatistics::Micro, None);
    if ways.is_empty()
        && split != *base
        && let Ok((way, memory)) = search(&split, fits)?
    {
        let images = way.config.run.micro_batch.unwrap_or(way.config.optimiser.batch);
        let exact = base.config.run.batch_norm == BatchStatistics::Exact;
        ways.push(format!(
            "{}run.micro_batch = {images} would fit in {:.1} MiB",
            if exact { "run.batch_norm = micro with " } else { "" },
            mebibytes(memory.peak_bytes)
        ));
    }
    let mut smaller = base.clone();
    smaller.config.run.micro_batch = None;
    while ways.is_empty() && smaller.config.optimiser.batch > 1 {
        smaller.config.optimiser.batch /= 2;
        if let Ok((way, memory)) = search(&smaller, fits)? {
            ways.push(format!(
                "optimiser.batch = {} would fit in {:.1} MiB",
                way.config.optimiser.batch,
                mebibytes(memory.peak_bytes)
            ));
        }
    }
    if ways.is_empty() {
        ways.push(format!(
            "give it {:.0} MiB or more; narrower model.widths or a smaller data.side would need less",
            mebibytes(least.peak_bytes).ceil()
        ));
    }
    let why = format!(
        "{budget} is {:.1} MiB, and a step needs {:.1} MiB, at least {:.1} MiB ({}; MiB): {}",
        mebibytes(budget.0),
        mebibytes(whole.peak_bytes),
        mebibytes(least.peak_bytes),
        parts.join(", "),
        ways.join(", or ")
    );
    Ok(Error::Conflict { keys: vec!["run.memory_budget"], why, changes: Vec::new() })
}
