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
    /// Whether those are tried, too, whose sums are too many for such a device.
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

/// The shortest time of one execution: repeated until it is long against the cost of a submission, and so often again.
pub fn shortest(measure: Measure, run: &mut dyn FnMut(usize) -> crate::Result<()>) -> crate::Result<Duration> {
    const LONG: Duration = Duration::from_millis(2);
    let mut time = |times: usize| {
        let begun = (measure.clock)();
        run(times)?;
        Ok::<_, crate::Error>((measure.clock)().saturating_sub(begun) / times as u32)
    };
    // The first execution compiles.
    time(1)?;
    let once = time(1)?.max(Duration::from_nanos(1));
    let times = (LONG.as_nanos() / once.as_nanos()).clamp(1, 64) as usize;
    let mut best = once;
    for _ in 0..measure.samples {
        best = best.min(time(times)?);
    }
    Ok(best)
}
