//! Chooses among the alternatives of a launch by measuring them on the device, once per size.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::Clock;
use super::launch::Launch;
use crate::{Error, Result};

/// What was chosen so far on a device, and how more is chosen. It belongs to a
/// [`Kernels`](super::kernel::Kernels).
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The entry point by [`site`].
    pub chosen: BTreeMap<String, String>,
    /// Of these, the sites that these kernels measured.
    pub measured: BTreeSet<String>,
    /// Measures what was not chosen yet. None: the alternatives' own order decides.
    pub measure: Option<Measure>,
    /// Of the entry points that were fastest somewhere, by [`kind`], whether their numbers are right.
    pub verified: BTreeMap<String, bool>,
}

/// How alternatives are measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Number of times that each is measured; the shortest time counts.
    pub samples: usize,
    /// Also measure variants that the heuristics would reject (too many accumulators, slow workgroup memory).
    pub all: bool,
    /// What tells the time.
    pub clock: Clock,
}

/// What a choice is valid for: the launch except its alternatives and its buffers.
pub fn site<B>(launch: &Launch<B>) -> String {
    // Padding, slope, `chain` and `first_split` do not affect the work, so they are not part of the key.
    let sizes = launch.params.iter().filter(|(name, _)| !["chain", "first_split"].contains(name));
    let sizes = sizes.filter_map(|(name, value)| value.size().map(|n| format!(" {name}={n}")));
    [launch.label()].into_iter().chain(sizes).chain(constants(launch)).collect()
}

/// What has one pipeline, whatever its sizes: entry point and constants.
pub fn kind<B>(launch: &Launch<B>) -> String {
    [launch.label()].into_iter().chain(constants(launch)).collect()
}

fn constants<B>(launch: &Launch<B>) -> impl Iterator<Item = String> {
    launch.constants.iter().map(|(name, value)| format!(" {name}={value}"))
}

/// The positions of `count` ways, the fastest first. `run` executes one of them a number of times and waits for it.
///
/// The ways take turns, so that what changes meanwhile on the device meets all of them. The shortest time of each
/// counts: a device that was idle while they were compiled raises its clock during the first turns.
///
/// # Errors
/// What `run` returns.
pub async fn by_speed(
    measure: Measure,
    count: usize,
    mut run: impl AsyncFnMut(usize, usize) -> Result<()>,
) -> Result<Vec<usize>> {
    const LONG: Duration = Duration::from_millis(2);
    let mut time = async |which: usize, times: usize| {
        let begun = (measure.clock)();
        run(which, times).await?;
        Ok::<_, Error>((measure.clock)().saturating_sub(begun) / times as u32)
    };
    // The first execution may compile.
    for which in 0..count {
        time(which, 1).await?;
    }
    let mut best = Vec::new();
    for which in 0..count {
        best.push(time(which, 1).await?);
    }
    for _ in 0..measure.samples {
        for (which, least) in best.iter_mut().enumerate() {
            let times = (LONG.as_nanos() / least.as_nanos().max(1)).clamp(1, 64) as usize;
            *least = time(which, times).await?.min(*least);
        }
    }
    let mut ways: Vec<usize> = (0..count).collect();
    ways.sort_by_key(|&which| best[which]);
    Ok(ways)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    #[test]
    fn the_fastest_wins_while_the_clock_rises() {
        let measure = Measure { samples: 3, all: true, clock: || NOW.with(|now| Duration::from_micros(now.get())) };
        let mut executed = 0;
        let won = pollster::block_on(by_speed(measure, 3, async |which, times: usize| {
            executed += 1;
            // The device is three times slower at first; the second way is the fastest.
            let slow = if executed <= 6 { 3 } else { 1 };
            NOW.with(|now| now.set(now.get() + slow * times as u64 * [500, 400, 450][which]));
            Ok(())
        }));
        assert_eq!(won.ok(), Some(vec![1, 2, 0]));
        assert_eq!(executed, 3 * (2 + 3));
    }
}
