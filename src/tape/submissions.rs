//! Cuts the dispatches of an execution into submissions by measured time, so that none holds the device for long:
//! a desktop draws between two submissions, and its watchdog resets a device that is held for seconds.

use std::ops::Range;
use std::time::Duration;

use crate::gpu::clock::Clock;

/// Executions that are measured; each dispatch counts with its shortest time, for the first execution meets cold
/// caches and untouched memory.
const MEASUREMENTS: usize = 3;

/// Where the submissions of an execution end.
#[derive(Clone, Debug)]
pub struct SubmissionCuts {
    target: Duration,
    clock: Option<Clock>,
    left: usize,
    times: Vec<Duration>,
    /// Of the execution that is being measured.
    noted: Vec<Duration>,
    ranges: Vec<Range<usize>>,
}

impl SubmissionCuts {
    /// All `n` dispatches in one submission.
    pub fn whole(n: usize) -> SubmissionCuts {
        let ranges = std::iter::once(0..n).collect();
        SubmissionCuts { target: Duration::MAX, clock: None, left: 0, times: Vec::new(), noted: Vec::new(), ranges }
    }

    /// To be measured first.
    pub fn measured(n: usize, target: Duration, clock: Clock) -> SubmissionCuts {
        let times = vec![Duration::MAX; n];
        SubmissionCuts { target, clock: Some(clock), left: MEASUREMENTS, times, ..SubmissionCuts::whole(n) }
    }

    /// The clock to measure with, while measurements are wanted.
    pub fn measuring(&self) -> Option<Clock> {
        self.clock.filter(|_| self.left > 0)
    }

    /// Notes what the dispatches from number `first` on took in a measured execution. The last of them end it: from
    /// the last measured execution on every submission is the longest run of dispatches within the target.
    pub fn note(&mut self, first: usize, times: Vec<Duration>) {
        // An execution may have been left in the middle.
        self.noted.truncate(first);
        self.noted.extend(times);
        if self.noted.len() >= self.times.len() {
            let times = std::mem::take(&mut self.noted);
            self.cut(&times);
        }
    }

    /// Ends a measured execution, whose dispatches took `times`. From now on every submission is the longest run of
    /// dispatches within the target. A dispatch that exceeds it alone is a submission of its own.
    fn cut(&mut self, times: &[Duration]) {
        self.left = self.left.saturating_sub(1);
        self.times.iter_mut().zip(times).for_each(|(least, time)| *least = (*least).min(*time));
        self.ranges.clear();
        let (mut begin, mut sum) = (0, Duration::ZERO);
        for (i, &time) in self.times.iter().enumerate() {
            if i > begin && sum.saturating_add(time) > self.target {
                self.ranges.push(begin..i);
                (begin, sum) = (i, Duration::ZERO);
            }
            sum = sum.saturating_add(time);
        }
        self.ranges.push(begin..self.times.len());
    }

    /// The dispatches of each submission.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// The longest dispatch and its time, if it alone exceeds the target; none before the last measurement.
    pub fn over_target(&self) -> Option<(usize, Duration)> {
        let measured = self.times.iter().copied().enumerate().filter(|_| self.left == 0);
        measured.max_by_key(|(_, time)| *time).filter(|(_, time)| *time > self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(times: &[u64], target: u64) -> (Vec<Range<usize>>, Option<usize>) {
        let mut cuts = SubmissionCuts::measured(times.len(), Duration::from_millis(target), || Duration::ZERO);
        for slower in [3, 1, 2] {
            assert!(cuts.measuring().is_some());
            let measured: Vec<_> = times.iter().map(|t| Duration::from_millis(slower * t)).collect();
            // In two segments.
            let (first, second) = measured.split_at(measured.len() / 2);
            cuts.note(0, vec![Duration::MAX; first.len() / 2]);
            cuts.note(0, first.to_vec());
            cuts.note(first.len(), second.to_vec());
            assert!(cuts.measuring().is_none() || cuts.over_target().is_none());
        }
        assert!(cuts.measuring().is_none());
        (cuts.ranges().to_vec(), cuts.over_target().map(|(i, _)| i))
    }

    #[test]
    fn submissions_are_as_long_as_the_target_allows_and_cover_everything() {
        assert_eq!(cut(&[40, 40, 30, 70, 1], 100), (vec![0..2, 2..4, 4..5], None));
        assert_eq!(cut(&[10, 150, 10, 90], 100), (vec![0..1, 1..2, 2..4], Some(1)));
        assert_eq!(cut(&[150], 100).0.len(), 1);
        assert_eq!(cut(&[1; 7], 100), (std::iter::once(0..7).collect(), None));
        let (ranges, _) = cut(&[3; 100], 10);
        assert_eq!(ranges.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(ranges[..33].iter().all(|range| range.len() == 3), "{ranges:?}");
    }
}
