//! Chooses among the alternatives of a launch by measuring them on the device, once for each size.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kernel::Launch;

/// Tells the time since some fixed moment. The core has no clock of its own: a web page has another one.
pub type Clock = fn() -> Duration;

/// What was chosen so far on a device, and how more is chosen.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// The entry point by [`site`].
    pub chosen: BTreeMap<String, String>,
    /// Of these, the sites that were measured since the device was opened.
    pub measured: BTreeSet<String>,
    /// Measures what was not chosen yet. None: the alternatives' own order decides.
    pub measure: Option<Measure>,
}

/// How alternatives are measured.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Times of each; the shortest counts.
    pub samples: usize,
    /// Whether those are tried, too, whose sums are too many, or whose workgroup memory too far, for such a device.
    pub all: bool,
    /// What tells the time.
    pub clock: Clock,
}

/// What a choice is valid for: the launch but for its alternatives and its buffers.
pub fn site<B>(launch: &Launch<B>) -> String {
    let constants = launch.constants.iter().map(|(name, value)| format!(" {name}={value}"));
    // Neither a padding or a slope nor these change how much there is to do.
    let sizes = launch.params.iter().filter(|(name, _)| !["chain", "first_split"].contains(name));
    let sizes = sizes.filter_map(|(name, value)| value.size().map(|n| format!(" {name}={n}")));
    [launch.label()].into_iter().chain(sizes).chain(constants).collect()
}

/// The position of the fastest of `count` ways, of which `run` executes one so many times.
///
/// Each is executed until it is long against the cost of a submission. They take turns, and the shortest time of each
/// counts: a device that was idle while they were compiled raises its clock during the first turns.
///
/// # Errors
/// What `run` returns.
pub fn fastest(
    measure: Measure,
    count: usize,
    run: &mut dyn FnMut(usize, usize) -> crate::Result<()>,
) -> crate::Result<usize> {
    const LONG: Duration = Duration::from_millis(2);
    let mut time = |which: usize, times: usize| {
        let begun = (measure.clock)();
        run(which, times)?;
        Ok::<_, crate::Error>((measure.clock)().saturating_sub(begun) / times as u32)
    };
    // The first execution may compile.
    (0..count).try_for_each(|which| time(which, 1).map(drop))?;
    let mut best = (0..count).map(|which| time(which, 1)).collect::<crate::Result<Vec<_>>>()?;
    for _ in 0..measure.samples {
        for (which, least) in best.iter_mut().enumerate() {
            let times = (LONG.as_nanos() / least.as_nanos().max(1)).clamp(1, 64) as usize;
            *least = time(which, times)?.min(*least);
        }
    }
    Ok((0..count).min_by_key(|&which| best[which]).unwrap_or(0))
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
        let won = fastest(measure, 3, &mut |which, times| {
            executed += 1;
            // The device is three times slower at first; the second way is the fastest.
            let slow = if executed <= 6 { 3 } else { 1 };
            NOW.with(|now| now.set(now.get() + slow * times as u64 * [500, 400, 450][which]));
            Ok(())
        });
        assert_eq!(won.ok(), Some(1));
        assert_eq!(executed, 3 * (2 + 3));
    }
}
