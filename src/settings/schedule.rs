//! How many steps a run has, and the learning rate at each.

use super::choices::{DecayAt, Length};
use super::table::OptimiserConfig;
use crate::error::Change;
use crate::{Error, Result};

/// The steps of a run and its learning rate at each, once the number of training images is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Steps of one pass over the images.
    pub steps_per_epoch: u32,
    /// Steps of the whole run.
    pub total_steps: u32,
    /// Steps from which the rate is lower by one more factor.
    pub decay_steps: Vec<u32>,
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
        Ok(Schedule { steps_per_epoch, total_steps, decay_steps, lr: optimiser.lr, decay: optimiser.decay })
    }

    /// The learning rate of `step`, counted from 0.
    pub fn lr_at(&self, step: u32) -> f64 {
        let n_decays = self.decay_steps.iter().filter(|&&at| step >= at).count();
        self.lr * self.decay.powi(n_decays as i32)
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
}
