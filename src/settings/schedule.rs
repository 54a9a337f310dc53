//! How many steps a run has, and the learning rate at each.

use super::choices::{DecayAt, Length, LrSchedule};
use super::table::OptimiserConfig;
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
    course: LrSchedule,
    lr: f64,
    decay: f64,
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
            // At step 0 the run would begin with the lowered rate.
            DecayAt::Fractions(shares) => {
                shares.iter().map(|share| ((share * f64::from(total_steps)).round() as u32).max(1)).collect()
            }
        };
        let course = optimiser.schedule;
        Ok(Schedule {
            steps_per_epoch,
            total_steps,
            decay_steps: if course == LrSchedule::Steps { decay_steps } else { Vec::new() },
            // A step is left for what follows.
            warmup_steps: ((optimiser.warmup * f64::from(total_steps)).round() as u32)
                .min(total_steps.saturating_sub(1)),
            course,
            lr: optimiser.lr,
            decay: optimiser.decay,
        })
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
    /// A cosine stays at the rate of the last step after the run.
    pub fn lr_at(&self, step: u32) -> f64 {
        let last = self.total_steps.saturating_sub(1);
        let warm = match step < self.warmup_steps {
            true => f64::from(step + 1) / f64::from(self.warmup_steps + 1),
            false => 1.0,
        };
        match self.course {
            LrSchedule::Steps => {
                let n_decays = self.decay_steps.iter().filter(|&&at| step >= at).count();
                self.lr * self.decay.powi(n_decays as i32) * warm
            }
            LrSchedule::Cosine if step < self.warmup_steps => self.lr * warm,
            LrSchedule::Cosine => {
                let done = f64::from(step.min(last) - self.warmup_steps);
                between(self.lr, 0.0, done / f64::from(self.total_steps - self.warmup_steps))
            }
            LrSchedule::OneCycle => {
                let (step, end) = (f64::from(step.min(last)), f64::from(last));
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
