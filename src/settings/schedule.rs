//! How many steps a run has, and the learning rate at each.

use super::choices::{DecayAt, Length, LrSchedule};
use super::table::{Config, OptimiserConfig};
use crate::error::Change;
use crate::{Error, Result};

/// `OneCycleLR`'s `pct_start`: the share of a run in which one cycle rises.
const RISE: f64 = 0.3;
/// Its `div_factor`: the highest rate is this many times the first one.
const FIRST: f64 = 25.0;
/// Its `final_div_factor`: the first rate is this many times the last one.
const LAST: f64 = 1e4;

/// The steps of a run and its learning rate at each, once the number of training images is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of one pass over the images.
    pub steps_per_epoch: u32,
    /// Steps of the whole run.
    pub total_steps: u32,
    /// Steps from which the rate is lower by one more factor; none where it does not fall in steps.
    pub decay_steps: Vec<u32>,
    /// Steps of the warm-up.
    pub warmup_steps: u32,
    /// The first step of each phase, where the run has phases.
    pub phase_steps: Vec<u32>,
    course: LrSchedule,
    lr: f64,
    decay: f64,
    /// Where phases differ in how much arithmetic a step is.
    stretches: Vec<Stretch>,
}

/// Steps of equal arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    from: u32,
    /// Progress of the run where it begins, in steps of mean arithmetic.
    done: f64,
    /// Progress of each of its steps.
    each: f64,
}

impl Config {
    /// The schedule of a run over `images` training images of `side` pixels. The shares at which phases begin and the rate
    /// falls, warm-up and cosines count a step by its arithmetic, the network's side squared, where phases differ in it;
    /// else every step is one.
    ///
    /// # Errors
    /// As [`Schedule::new`] and [`Config::phases`].
    pub fn schedule(&self, side: usize, images: usize) -> Result<Schedule> {
        let schedule = Schedule::new(&self.optimiser, images)?;
        if self.method.phases.is_empty() {
            return Ok(schedule);
        }
        let phases = self.phases()?;
        let shares: Vec<f64> = phases.iter().map(|(share, _)| *share).collect();
        let work = phases.iter().map(|(_, phase)| phase.method.area(side)).collect::<Vec<_>>();
        Ok(schedule.with_phases(&shares, &work, &self.optimiser))
    }
}

impl Schedule {
    /// The schedule of `optimiser` over `n_images` training images.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the batch is larger than the data, or the run too long to count its steps.
    pub fn new(optimiser: &OptimiserConfig, n_images: usize) -> Result<Schedule> {
        let steps_per_epoch = n_images / optimiser.batch.max(1);
        if steps_per_epoch == 0 {
            return Err(Error::Conflict {
                keys: vec!["optimiser.batch"],
                why: format!(
                    "optimiser.batch {} is more than the {n_images} training images: take {n_images} or fewer, or more data",
                    optimiser.batch
                ),
                changes: Vec::new(),
            });
        }
        let too_long = || Error::Conflict {
            keys: vec!["optimiser.length"],
            why: format!("optimiser.length is more than {} steps", u32::MAX),
            changes: vec![Change::Lower("optimiser.length.epochs")],
        };
        let steps_per_epoch = u32::try_from(steps_per_epoch).map_err(|_| too_long())?;
        let total_steps = match optimiser.length {
            Length::Epochs(epochs) => epochs.checked_mul(steps_per_epoch).ok_or_else(too_long)?,
            Length::Steps(steps) => steps,
        };
        let decay_steps = match &optimiser.decay_at {
            DecayAt::Epochs(epochs) => epochs.iter().map(|epoch| epoch.saturating_mul(steps_per_epoch)).collect(),
            DecayAt::Steps(steps) => steps.clone(),
            DecayAt::Fractions(shares) => decay_at_shares(shares, |share| share * f64::from(total_steps)),
        };
        let course = optimiser.schedule;
        Ok(Schedule {
            steps_per_epoch,
            total_steps,
            decay_steps: if course == LrSchedule::Steps { decay_steps } else { Vec::new() },
            phase_steps: Vec::new(),
            stretches: Vec::new(),
            // A step is left for what follows.
            warmup_steps: ((optimiser.warmup * f64::from(total_steps)).round() as u32)
                .min(total_steps.saturating_sub(1)),
            course,
            lr: optimiser.lr,
            decay: optimiser.decay,
        })
    }

    /// With phases that begin at these shares of the run, where a step of each is as much arithmetic as `work` says.
    fn with_phases(mut self, shares: &[f64], work: &[f64], optimiser: &OptimiserConfig) -> Schedule {
        let total = f64::from(self.total_steps);
        let ends = shares.iter().skip(1).copied().chain([1.0]);
        let equal = work.windows(2).all(|pair| pair[0] == pair[1]);
        // Steps of each phase, up to a factor.
        let steps: Vec<f64> = shares.iter().zip(ends).zip(work).map(|((from, to), work)| (to - from) / work).collect();
        let all: f64 = steps.iter().sum();
        // The step before which a share of the run is done.
        let step_of = |share: f64| {
            if equal {
                return share * total;
            }
            let i = shares.iter().rposition(|from| *from <= share).unwrap_or(0);
            (steps[..i].iter().sum::<f64>() + (share - shares[i]) / work[i]) / all * total
        };
        self.phase_steps = shares.iter().map(|share| step_of(*share).round() as u32).collect();
        if let (LrSchedule::Steps, DecayAt::Fractions(at)) = (self.course, &optimiser.decay_at) {
            self.decay_steps = decay_at_shares(at, step_of);
        }
        if !equal {
            let ends = self.phase_steps.iter().skip(1).copied().chain([self.total_steps]);
            let steps: Vec<f64> = self.phase_steps.iter().zip(ends).map(|(from, to)| f64::from(to - from)).collect();
            let mean = steps.iter().zip(work).map(|(steps, work)| steps * work).sum::<f64>() / total;
            let mut done = 0.0;
            for ((&from, steps), work) in self.phase_steps.iter().zip(steps).zip(work) {
                self.stretches.push(Stretch { from, done, each: work / mean });
                done += steps * work / mean;
            }
        }
        self
    }

    /// Progress of the run before `step`, in steps of mean arithmetic: `step` itself where all are alike.
    pub fn progress(&self, step: u32) -> f64 {
        match self.stretches.iter().rfind(|stretch| stretch.from <= step) {
            Some(stretch) => stretch.done + f64::from(step - stretch.from) * stretch.each,
            None => f64::from(step),
        }
    }

    /// The learning rate of `step`, counted from 0. With r = `optimiser.lr`, n steps in all and w = `optimiser.warmup` n of
    /// them for the warm-up, rounded, it is
    ///
    /// - in a warm-up r (step + 1) / (w + 1): PyTorch's `LinearLR(start_factor=1 / (w + 1), total_iters=w)`;
    /// - for `steps` r `optimiser.decay`^(points passed): `MultiStepLR`; points within a warm-up lower it, too, as chained
    ///   schedulers do;
    /// - for `cosine` r (1 + cos(pi (step - w) / (n - w))) / 2: `CosineAnnealingLR(T_max=n - w)` after the warm-up
    ///   (`SequentialLR`);
    /// - for `one-cycle` r (1 - cos(pi step / a)) / 2, from r / 25 instead of 0, up to a = 0.3 n - 1, and then
    ///   r (1 + cos(pi (step - a) / (n - 1 - a))) / 2, to r / 250,000 instead of 0:
    ///   `OneCycleLR(max_lr=r, total_steps=n, cycle_momentum=False)`.
    ///
    /// A cosine stays at the rate of the last step after the run. Where phases differ in the arithmetic of a step, `step` is
    /// what [`Schedule::progress`] makes of it in all but the points of `steps`.
    pub fn lr_at(&self, step: u32) -> f64 {
        let last = self.total_steps.saturating_sub(1);
        let (now, warmup) = (self.progress(step), f64::from(self.warmup_steps));
        let warm = if now < warmup { (now + 1.0) / (warmup + 1.0) } else { 1.0 };
        match self.course {
            LrSchedule::Steps => {
                let n_decays = self.decay_steps.iter().filter(|&&at| step >= at).count();
                self.lr * self.decay.powi(n_decays as i32) * warm
            }
            LrSchedule::Cosine if now < warmup => self.lr * warm,
            LrSchedule::Cosine => {
                let done = self.progress(step.min(last)) - warmup;
                between(self.lr, 0.0, done.max(0.0) / (f64::from(self.total_steps) - warmup))
            }
            LrSchedule::OneCycle => {
                let (step, end) = (self.progress(step.min(last)), self.progress(last));
                let (first, rise) = (self.lr / FIRST, RISE * f64::from(self.total_steps) - 1.0);
                match step <= rise {
                    true => between(first, self.lr, step / rise),
                    false => between(self.lr, first / LAST, (step - rise) / (end - rise)),
                }
            }
        }
    }

    /// A sentence where the learning rate is to fall, but only after the end of the run.
    pub fn warning(&self) -> Option<String> {
        let first = self.decay_steps.iter().min()?;
        (*first >= self.total_steps).then(|| {
            format!(
                "the learning rate never falls: the run ends after step {}, and the first fall is after step {first} \
                 (optimiser.decay_at)",
                self.total_steps
            )
        })
    }

    /// The epoch of `step`, both counted from 0.
    pub fn epoch_of(&self, step: u32) -> u32 {
        step / self.steps_per_epoch
    }
}

/// The steps from which a rate is lower that falls after these shares of a run.
fn decay_at_shares(shares: &[f64], step_of: impl Fn(f64) -> f64) -> Vec<u32> {
    // At step 0 the run would begin with the lowered rate.
    shares.iter().map(|share| (step_of(*share).round() as u32).max(1)).collect()
}

/// From `start` to `end` along half a cosine wave, of which `share` is done.
fn between(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_counts_whole_batches() {
        let mut optimiser = OptimiserConfig { batch: 16, ..OptimiserConfig::default() };
        let schedule = Schedule::new(&optimiser, 2725).unwrap();
        assert_eq!((schedule.steps_per_epoch, schedule.total_steps), (170, 65 * 170));
        assert_eq!(schedule.decay_steps, [60 * 170]);
        assert_eq!(schedule.lr_at(60 * 170 - 1), 0.05);
        assert!((schedule.lr_at(60 * 170) - 0.005).abs() < 1e-12);
        assert_eq!((schedule.epoch_of(169), schedule.epoch_of(170)), (0, 1));

        optimiser.length = Length::Steps(400);
        optimiser.decay_at = DecayAt::Fractions(vec![0.6, 0.8]);
        let schedule = Schedule::new(&optimiser, 2725).unwrap();
        assert_eq!((schedule.total_steps, schedule.decay_steps.as_slice()), (400, &[240, 320][..]));
        assert!((schedule.lr_at(399) - 0.0005).abs() < 1e-12);
        optimiser.length = Length::Steps(1);
        optimiser.decay_at = DecayAt::Fractions(vec![0.01]);
        assert_eq!(Schedule::new(&optimiser, 2725).unwrap().lr_at(0), 0.05, "a run begins with its rate");
        optimiser.length = Length::Steps(10);
        optimiser.decay_at = DecayAt::Steps(vec![100]);
        let warning = Schedule::new(&optimiser, 2725).unwrap().warning().unwrap();
        assert!(warning.contains("after step 10") && warning.contains("after step 100"), "{warning}");
        optimiser.decay_at = DecayAt::Steps(vec![9, 100]);
        assert_eq!(Schedule::new(&optimiser, 2725).unwrap().warning(), None);
        optimiser.decay_at = DecayAt::Steps(vec![]);
        assert_eq!(Schedule::new(&optimiser, 2725).unwrap().warning(), None);
        assert!(Schedule::new(&optimiser, 15).unwrap_err().to_string().contains("15 training images"));
    }

    /// Half of the arithmetic at half of the side is four fifths of the steps, and the rate is at its middle after it.
    #[test]
    fn a_step_counts_by_its_arithmetic() {
        use crate::settings::{Method, MethodConfig};
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { kind: Method::Baseline, scale: 0.5, ..MethodConfig::default() };
        config.method.phases = vec!["0.5: scale = 1".into()];
        config.optimiser.length = Length::Steps(1000);
        (config.optimiser.schedule, config.optimiser.warmup, config.optimiser.lr) = (LrSchedule::Cosine, 0.0, 1.0);
        let schedule = config.schedule(28, 100).unwrap();
        assert_eq!(schedule.phase_steps, [0, 800]);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a}, {b}");
        near(schedule.progress(400), 250.0);
        near(schedule.progress(800), 500.0);
        near(schedule.progress(1000), 1000.0);
        near(schedule.lr_at(800), 0.5);
        near(schedule.lr_at(400), Schedule::new(&config.optimiser, 100).unwrap().lr_at(250));
        config.optimiser.warmup = 0.1;
        let warm = config.schedule(28, 100).unwrap();
        // A tenth of the arithmetic is 160 steps.
        near(warm.lr_at(159), (0.625 * 159.0 + 1.0) / 101.0);
        assert!(warm.lr_at(160) > 0.9999 && warm.lr_at(160) <= 1.0);
        let rates: Vec<f64> = (0..1003).map(|step| warm.lr_at(step)).collect();
        assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 1.0) && rates[999] == rates[1002]);
        (config.optimiser.schedule, config.optimiser.warmup) = (LrSchedule::Steps, 0.0);
        config.optimiser.decay_at = DecayAt::Fractions(vec![0.25, 0.5, 0.9]);
        assert_eq!(config.schedule(28, 100).unwrap().decay_steps, [400, 800, 960]);
        config.optimiser.schedule = LrSchedule::OneCycle;
        let cycle = config.schedule(28, 100).unwrap();
        assert!(cycle.lr_at(478) > 0.999 && cycle.lr_at(999) < 1e-5);
        // Phases of one side leave every rate as it is, to the bit.
        config.method.scale = 1.0;
        config.method.phases = vec!["0.5: label_smoothing = 0.1".into()];
        for course in [LrSchedule::Steps, LrSchedule::Cosine, LrSchedule::OneCycle] {
            config.optimiser.schedule = course;
            let (phased, plain) = (config.schedule(28, 100).unwrap(), Schedule::new(&config.optimiser, 100).unwrap());
            assert_eq!((&phased.phase_steps[..], &phased.decay_steps), (&[0, 500][..], &plain.decay_steps));
            assert!((0..1003).all(|step| phased.lr_at(step).to_bits() == plain.lr_at(step).to_bits()));
        }
    }

    /// The numbers are compared with PyTorch's in `tests/golden.rs`; here what every length must have.
    #[test]
    fn a_rate_rises_from_above_zero_and_ends_near_zero() {
        for steps in [1, 2, 3, 4, 7, 10, 400] {
            for (schedule, warmup) in [
                (LrSchedule::Steps, 0.2),
                (LrSchedule::Cosine, 0.0),
                (LrSchedule::Cosine, 0.1),
                (LrSchedule::Cosine, 0.999),
                (LrSchedule::OneCycle, 0.0),
            ] {
                let optimiser = OptimiserConfig {
                    batch: 16,
                    length: Length::Steps(steps),
                    decay_at: DecayAt::Fractions(vec![0.5]),
                    schedule,
                    warmup,
                    ..OptimiserConfig::default()
                };
                let schedule = Schedule::new(&optimiser, 2725).unwrap();
                let rates: Vec<f64> = (0..steps + 3).map(|step| schedule.lr_at(step)).collect();
                let what = format!("{optimiser:?}: {rates:?}");
                assert!(rates.iter().all(|rate| *rate > 0.0 && *rate <= 0.05 + 1e-15), "{what}");
                let most = rates.iter().copied().fold(0.0, f64::max);
                if steps > 3 {
                    assert!(most > 0.03, "{what}");
                }
                if optimiser.schedule != LrSchedule::Steps {
                    assert_eq!((schedule.warning(), &schedule.decay_steps), (None, &vec![]));
                    let last = rates[steps as usize - 1];
                    assert!(rates[steps as usize..].iter().all(|rate| *rate == last), "{what}");
                    assert!(warmup > 0.5 || steps < 400 || last < 1e-5 * 0.05 * 10.0, "{what}");
                }
            }
        }
    }
}
