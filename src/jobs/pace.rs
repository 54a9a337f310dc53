//! How long the steps that are left will take.

use std::time::Instant;

use crate::progress::{Progress, StepReport};
use crate::settings::TimeSpan;
use crate::train::phases::Phases;

/// Passes everything on, and says once how long the steps will take: at the beginning where that was not known, and as
/// soon as the machine turns out to be slower than it was measured to be.
pub(super) struct Pace<'a> {
    inner: &'a mut dyn Progress,
    phases: Phases,
    /// What a step of each phase costs: seconds where they were measured, else its rows by their area.
    costs: Vec<f64>,
    measured: bool,
    first: Option<(Instant, u32)>,
    said: bool,
}

/// Slower than this is said.
const SLOWER: f64 = 1.05;

/// A part of a run.
#[derive(Clone, Copy)]
struct Part {
    steps: u32,
    /// The sum of what they cost.
    cost: f64,
}

impl<'a> Pace<'a> {
    /// `expected`: seconds of a step, the mean over the run, and of a step of each phase, where they were measured.
    pub fn new(inner: &'a mut dyn Progress, phases: &Phases, expected: Option<(f64, &[f64])>, total: u32) -> Pace<'a> {
        let work: Vec<f64> = phases.all().iter().map(|phase| phase.work).collect();
        let costs = match expected {
            Some((_, seconds)) if seconds.len() == work.len() => seconds.to_vec(),
            // In proportion to the work, with that mean.
            Some((mean, _)) => {
                let all = phases.work_between(0, total, work.iter().copied());
                work.iter().map(|work| work * mean * f64::from(total) / all.max(1e-9)).collect()
            }
            None => work,
        };
        Pace { inner, phases: phases.clone(), costs, measured: expected.is_some(), first: None, said: false }
    }

    fn part(&self, from: u32, to: u32) -> Part {
        Part { steps: to.saturating_sub(from), cost: self.phases.work_between(from, to, self.costs.iter().copied()) }
    }

    /// What is to be said where the steps `seen` took `seconds`, if anything.
    fn sentence(measured: bool, seconds: f64, seen: Part, left: Part) -> Option<String> {
        let minutes = |seconds: f64| TimeSpan((seconds.round() as u64).max(1)).to_string();
        let rest = left.cost * seconds / seen.cost;
        let ms = |seconds: f64, steps: u32| 1e3 * seconds / f64::from(steps.max(1));
        match measured {
            false if seen.steps >= 10 => Some(format!(
                "the {} steps that are left will take about {}, at {:.0} ms a step",
                left.steps,
                minutes(rest),
                ms(rest, left.steps)
            )),
            // Some time for what comes and goes.
            true if seconds > SLOWER * seen.cost && seconds > 10.0 => Some(format!(
                "the machine is slower than it was measured to be, {:.0} ms a step where {:.0} ms were expected: the {} \
                 steps that are left will take about {} instead of {}, and no step is left out",
                ms(seconds, seen.steps),
                ms(seen.cost, seen.steps),
                left.steps,
                minutes(rest),
                minutes(left.cost)
            )),
            _ => None,
        }
    }
}

impl Progress for Pace<'_> {
    fn step(&mut self, report: &StepReport) {
        self.inner.step(report);
        let (begun, first) = *self.first.get_or_insert((Instant::now(), report.step));
        let (seen, left) = (self.part(first, report.step), self.part(report.step, report.total_steps));
        if self.said || seen.steps == 0 || left.steps == 0 {
            return;
        }
        if let Some(sentence) = Pace::sentence(self.measured, begun.elapsed().as_secs_f64(), seen, left) {
            self.said = true;
            self.inner.note(&sentence);
        }
    }

    fn advance(&mut self, what: &str, done: u64, total: u64) {
        self.inner.advance(what, done, total);
    }

    fn memory(&mut self, bytes: u64) {
        self.inner.memory(bytes);
    }

    fn note(&mut self, sentence: &str) {
        self.inner.note(sentence);
    }

    fn warn(&mut self, sentence: &str) {
        self.inner.warn(sentence);
    }

    fn stop_requested(&self) -> bool {
        self.inner.stop_requested()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::settings::{Config, Length, Method, MethodConfig};
    use crate::train::record::DataShape;

    #[test]
    fn a_pace_is_said_when_it_is_worth_saying() {
        // A cost in seconds, or of 1 where it is not known.
        let sentence = |expected: Option<f64>, step_s: f64, seen: u32, left: u32| {
            let part = |steps: u32| Part { steps, cost: f64::from(steps) * expected.unwrap_or(1.0) };
            Pace::sentence(expected.is_some(), f64::from(seen) * step_s, part(seen), part(left))
        };
        assert_eq!(sentence(None, 0.1, 9, 100), None);
        assert_eq!(
            sentence(None, 0.1, 10, 1000).unwrap(),
            "the 1000 steps that are left will take about 1m40s, at 100 ms a step"
        );
        assert_eq!(sentence(Some(0.1), 0.104, 1000, 100), None);
        assert_eq!(sentence(Some(0.1), 0.2, 10, 100), None, "too early");
        assert!(sentence(Some(0.1), 0.2, 100, 100).unwrap().contains("20s instead of 10s"));
    }

    #[test]
    fn a_phase_has_a_pace_of_its_own() {
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { kind: Method::Baseline, scale: 0.5, ..MethodConfig::default() };
        // Four fifths of the run in steps of a quarter of the arithmetic.
        config.method.phases = vec!["0.2: scale = 1".into()];
        config.optimiser.length = Length::Steps(1000);
        let phases = Phases::new(&config, DataShape { side: 28, classes: 8, images: 100 }).unwrap();
        let mut silent = Silent;
        let pace = Pace::new(&mut silent, &phases, None, 1000);
        let text = Pace::sentence(false, 1.0, pace.part(0, 10), pace.part(10, 1000)).unwrap();
        // 49 s for the other 490 small steps, and four times 50 s.
        assert_eq!(text, "the 990 steps that are left will take about 4m9s, at 252 ms a step");
        let pace = Pace::new(&mut silent, &phases, Some((0.2, &[0.1, 0.3])), 1000);
        assert_eq!((pace.part(0, 500).cost, pace.part(500, 1000).cost), (50.0, 150.0));
        let pace = Pace::new(&mut silent, &phases, Some((0.25, &[])), 1000);
        assert!((pace.part(0, 1000).cost - 250.0).abs() < 1e-9 && (pace.part(0, 500).cost - 50.0).abs() < 1e-9);
    }
}
