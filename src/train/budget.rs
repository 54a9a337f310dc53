//! Fits a run into memory: tries what costs nothing first, and says what it chose and what that costs.
//! Needs no device, so `plan` answers the same as `train`.

use super::memory::Memory;
use super::record::DataShape;
use crate::config::{BatchStatistics, ByteSize, Config};
use crate::{Error, Result};

/// What a device or a budget has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that one buffer may have.
    pub buffer: u64,
}

impl Room {
    /// That of an adapter with the largest buffers in use, where none is at hand.
    pub const LARGE: Room = Room { buffer: (1 << 31) - 1 };

    /// That of a device.
    pub fn of(limits: &wgpu::Limits) -> Room {
        Room { buffer: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) }
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
    /// What was chosen beyond the settings, and what it costs; a sentence each.
    pub choices: Vec<String>,
}

/// A way to run: settings, and whether the images are on the device.
#[derive(Clone)]
struct Attempt {
    config: Config,
    resident: bool,
    choices: Vec<String>,
}

/// What may be done about a run that does not fit: from what was done so far to what to try next, mildest first.
type Remedy = fn(&Attempt, DataShape) -> Vec<Attempt>;

/// In the order of preference. A remedy that does not suffice alone stays while the next is tried.
const REMEDIES: &[Remedy] = &[stream, micro_batches];

/// The same bits, and a copy of each batch's pixels a step.
fn stream(so_far: &Attempt, data: DataShape) -> Vec<Attempt> {
    if !so_far.resident {
        return Vec::new();
    }
    if !so_far.resident {
        return Vec::new();
    }
    let mut next = so_far.clone();
    next.resident = false;
    next.choices.push(format!(
        "the images are streamed: {:.1} MiB of pixels are copied to the device each step instead of {:.1} MiB once; \
         the numbers stay the same",
        mebibytes((4 * data.side * data.side * so_far.config.optimiser.batch) as u64),
        mebibytes((4 * data.side * data.side * data.images) as u64),
    ));
    vec![next]
}

/// Other numbers: batch norm sees a part of the batch at a time.
fn micro_batches(so_far: &Attempt, _: DataShape) -> Vec<Attempt> {
    let (run, batch) = (&so_far.config.run, so_far.config.optimiser.batch);
    if run.micro_batch.is_some() || run.batch_norm == BatchStatistics::Exact {
        return Vec::new();
    }
    let sizes = (1..batch).rev().filter(|images| batch.is_multiple_of(*images));
    sizes
        .map(|images| {
            let mut next = so_far.clone();
            next.config.run.micro_batch = Some(images);
            next.choices.push(format!(
                "micro-batches of {images} of the {batch} images (--micro-batch {images}): {} passes a step, each with \
                 batch statistics of its own",
                batch / images
            ));
            next
        })
        .collect()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// The first way to run that is within `run.memory_budget` and the device's buffers. Without a budget only the images
/// give way, and a step that is too large for the device is the device's to refuse.
///
/// # Errors
/// [`Error::Usage`] with numbers, and the settings that would fit, when nothing that is allowed fits the budget;
/// otherwise as [`Memory::of`].
pub fn fit(config: &Config, data: DataShape, distill: bool, room: Room) -> Result<Fitted> {
    let set_bytes = (4 * data.images * data.side * data.side) as u64;
    let mut base = Attempt { config: config.clone(), resident: true, choices: Vec::new() };
    if set_bytes > room.buffer {
        base = stream(&base, data).into_iter().next().unwrap_or(base);
    }
    let Some(budget) = config.run.memory_budget else {
        let memory = Memory::of(config, data, distill, base.resident)?;
        return Ok(Fitted { config: base.config, resident: base.resident, memory, choices: base.choices });
    };
    let fits = |memory: &Memory| memory.peak_bytes <= budget.0 && memory.largest_buffer <= room.buffer;
    match search(&base, data, distill, &fits)? {
        Ok(fitted) => Ok(fitted),
        Err(least) => Err(refusal(&base, data, distill, budget, &least, &fits)?),
    }
}

/// The first attempt that fits, or the memory of the smallest that was tried.
fn search(
    base: &Attempt,
    data: DataShape,
    distill: bool,
    fits: &dyn Fn(&Memory) -> bool,
) -> Result<std::result::Result<Fitted, Memory>> {
    let weigh = |attempt: &Attempt| Memory::of(&attempt.config, data, distill, attempt.resident);
    let done = |attempt: Attempt, memory| {
        let Attempt { config, resident, choices } = attempt;
        Fitted { config, resident, memory, choices }
    };
    let mut least = weigh(base)?;
    if fits(&least) {
        return Ok(Ok(done(base.clone(), least)));
    }
    let mut so_far = base.clone();
    for remedy in REMEDIES {
        let mut strongest = so_far.clone();
        for attempt in remedy(&so_far, data) {
            let memory = weigh(&attempt)?;
            if fits(&memory) {
                // What an earlier remedy gave up may fit again.
                let mut eased = attempt.clone();
                eased.resident = base.resident;
                eased.choices.retain(|choice| !(eased.resident && choice.starts_with("the images are streamed")));
                let easier = weigh(&eased)?;
                return Ok(Ok(if fits(&easier) { done(eased, easier) } else { done(attempt, memory) }));
            }
            if memory.peak_bytes < least.peak_bytes {
                (least, strongest) = (memory, attempt);
            }
        }
        so_far = strongest;
    }
    Ok(Err(least))
}

/// Why nothing fits, and what would.
fn refusal(
    base: &Attempt,
    data: DataShape,
    distill: bool,
    budget: ByteSize,
    least: &Memory,
    fits: &dyn Fn(&Memory) -> bool,
) -> Result<Error> {
    let whole = Memory::of(&base.config, data, distill, base.resident)?;
    let parts: Vec<String> = least
        .classes()
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {:.1}", mebibytes(*bytes)))
        .collect();
    let mut ways = Vec::new();
    let mut allowed = base.clone();
    allowed.config.run.batch_norm = BatchStatistics::Micro;
    if base.config.run.batch_norm == BatchStatistics::Exact
        && let Ok(fitted) = search(&allowed, data, distill, fits)?
    {
        ways.push(format!(
            "--bn micro would fit with --micro-batch {} in {:.1} MiB",
            fitted.config.run.micro_batch.unwrap_or(fitted.config.optimiser.batch),
            mebibytes(fitted.memory.peak_bytes)
        ));
    }
    let mut smaller = base.clone();
    smaller.config.run.micro_batch = None;
    while ways.is_empty() && smaller.config.optimiser.batch > 1 {
        smaller.config.optimiser.batch /= 2;
        if let Ok(fitted) = search(&smaller, data, distill, fits)? {
            ways.push(format!(
                "--batch {} would fit in {:.1} MiB",
                smaller.config.optimiser.batch,
                mebibytes(fitted.memory.peak_bytes)
            ));
        }
    }
    if ways.is_empty() {
        ways.push("a smaller network (--widths) or smaller images (--side) would need less".into());
    }
    Ok(Error::usage(format!(
        "--memory-budget {budget} (run.memory_budget) is {:.1} MiB, and a step needs {:.1} MiB, at the least {:.1} MiB \
         ({}; MiB): {}",
        mebibytes(budget.0),
        mebibytes(whole.peak_bytes),
        mebibytes(least.peak_bytes),
        parts.join(", "),
        ways.join(", or ")
    )))
}
