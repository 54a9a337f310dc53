//! Schedules over training steps: learning rate and DropBlock, pure functions of the step number.

use crate::{Error, Result};

/// A learning rate that drops by a factor at given steps (METHOD section 4).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct LrSchedule {
    base: f64,
    milestones: Vec<u64>,
    factor: f64,
}

impl LrSchedule {
    /// Rate `base` > 0 from step 0, times `factor` in (0, 1] from each of the increasing `milestones`
    /// (steps) on.
    pub fn new(base: f64, milestones: Vec<u64>, factor: f64) -> Result<Self> {
        if !(base > 0.0 && base.is_finite()) {
            return Err(Error::usage(format!("the learning rate is {base}, it must be positive, such as 0.05")));
        }
        if !(factor > 0.0 && factor <= 1.0) {
            return Err(Error::usage(format!(
                "the learning rate's decay factor is {factor}, it must be above 0 and at most 1, such as 0.1"
            )));
        }
        if let Some(pair) = milestones.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(Error::usage(format!(
                "the learning rate's decay points {} and {} are out of order; list each once, in increasing order",
                pair[0], pair[1]
            )));
        }
        Ok(LrSchedule { base, milestones, factor })
    }

    /// Milestones given as finished epochs of `steps_per_epoch` steps: `[60]` decays from epoch 61 on.
    pub fn after_epochs(base: f64, epochs: &[u32], steps_per_epoch: u64, factor: f64) -> Result<Self> {
        if steps_per_epoch == 0 {
            return Err(Error::usage("an epoch has no steps: the batch is larger than the training split"));
        }
        Self::new(base, epochs.iter().map(|&e| u64::from(e) * steps_per_epoch).collect(), factor)
    }

    /// Milestones given as fractions of `steps`, in [0, 1]: `[0.6, 0.8]` decays after 60 and 80 per cent.
    pub fn after_fractions(base: f64, fractions: &[f64], steps: u64, factor: f64) -> Result<Self> {
        if let Some(wrong) = fractions.iter().find(|f| !(**f >= 0.0 && **f <= 1.0)) {
            return Err(Error::usage(format!("the decay point {wrong} is not a fraction of the run between 0 and 1")));
        }
        Self::new(base, fractions.iter().map(|f| (f * steps as f64).round() as u64).collect(), factor)
    }

    /// The rate of step `step`, counted from 0; computed in f64, rounded once.
    pub fn at(&self, step: u64) -> f32 {
        let passed = self.milestones.iter().filter(|&&m| step >= m).count();
        (self.base * self.factor.powi(passed as i32)) as f32
    }
}

/// DropBlock's schedule (METHOD section 2; Ghiasi et al. 2018).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct DropBlockSchedule {
    rate: f64,
    ramp_steps: u64,
    block: u32,
}

impl DropBlockSchedule {
    /// Steps over which the authors' drop rate rises to its full value.
    pub const RAMP_STEPS: u64 = 20 * 2000;

    /// Drop rate `rate` in [0, 1), reached after `ramp_steps` >= 1 steps, with squares of side `block` >= 1.
    pub fn new(rate: f64, ramp_steps: u64, block: u32) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::usage(format!(
                "the drop rate is {rate}, it must be at least 0 and below 1, such as 0.1"
            )));
        }
        if ramp_steps == 0 || block == 0 {
            return Err(Error::usage(format!(
                "DropBlock has a block side of {block} and a ramp of {ramp_steps} steps; both must be at least 1"
            )));
        }
        Ok(DropBlockSchedule { rate, ramp_steps, block })
    }

    /// The keep rate after `t` training batches: `max(1 - rate / ramp_steps * t, 1 - rate)`.
    pub fn keep(&self, t: u64) -> f64 {
        (1.0 - self.rate / self.ramp_steps as f64 * t as f64).max(1.0 - self.rate)
    }

    /// The side of the squares on a map of side `side`: the largest that fits, at most the setting.
    pub fn block(&self, side: u32) -> u32 {
        self.block.min(side).max(1)
    }

    /// The probability that one of the `(side - block + 1)^2` corners starts a square after `t` training
    /// batches: `(1 - keep) / block^2 * side^2 / (side - block + 1)^2`.
    pub fn gamma(&self, t: u64, side: u32) -> f32 {
        let block = f64::from(self.block(side));
        let side = f64::from(side.max(1));
        ((1.0 - self.keep(t)) / (block * block) * side * side / (side - block + 1.0).powi(2)) as f32
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_rate_drops_at_its_milestones() {
        let lr = LrSchedule::after_epochs(0.05, &[30, 40, 50], 10, 0.1).unwrap();
        for (step, want) in [(0, 0.05), (299, 0.05), (300, 0.005), (399, 0.005), (400, 5e-4), (500, 5e-5)] {
            assert_eq!(lr.at(step), want, "{step}");
        }
        assert_eq!(LrSchedule::new(0.05, vec![], 0.1).unwrap().at(u64::MAX), 0.05);
        let lr = LrSchedule::after_fractions(0.05, &[0.6, 0.8], 1600, 0.1).unwrap();
        assert_eq!([lr.at(959), lr.at(960), lr.at(1279), lr.at(1280)], [0.05, 0.005, 0.005, 5e-4]);
    }

    #[test]
    fn bad_rates_are_refused() {
        for (base, milestones, factor) in [
            (0.0, vec![], 0.1),
            (f64::NAN, vec![], 0.1),
            (f64::INFINITY, vec![], 0.1),
            (0.05, vec![], 0.0),
            (0.05, vec![], 1.5),
            (0.05, vec![], f64::NAN),
            (0.05, vec![5, 5], 0.1),
            (0.05, vec![6, 5], 0.1),
        ] {
            assert!(LrSchedule::new(base, milestones, factor).is_err());
        }
        assert!(LrSchedule::after_epochs(0.05, &[1], 0, 0.1).is_err());
        assert!(LrSchedule::after_fractions(0.05, &[f64::NAN], 10, 0.1).is_err());
        for (rate, ramp, block) in [(1.0, 1, 1), (-0.1, 1, 1), (f64::NAN, 1, 1), (0.1, 0, 1), (0.1, 1, 0)] {
            assert!(DropBlockSchedule::new(rate, ramp, block).is_err());
        }
    }

    #[test]
    fn drop_block_follows_the_formula() {
        let drop = DropBlockSchedule::new(0.1, DropBlockSchedule::RAMP_STEPS, 5).unwrap();
        assert_eq!(drop.keep(0), 1.0);
        assert!((drop.keep(20_000) - 0.95).abs() <= 1e-12);
        assert_eq!(drop.keep(40_000), 0.9);
        assert_eq!(drop.keep(u64::MAX), 0.9);
        assert_eq!(drop.gamma(0, 21), 0.0);
        let want = 0.1 / 25.0 * 441.0 / 289.0;
        assert!((f64::from(drop.gamma(40_000, 21)) - want).abs() <= 1e-9);
        // A map no larger than the block is dropped whole, with probability 1 - keep.
        for side in 1..=5 {
            assert_eq!(drop.block(side), side);
            assert!((drop.gamma(40_000, side) - 0.1).abs() <= 1e-7);
        }
        assert_eq!(drop.block(6), 5);
        // A probability, whatever the setting.
        for block in 1..12 {
            let drop = DropBlockSchedule::new(0.999, 1, block).unwrap();
            assert!((1..40).all(|side| (0.0..=1.0).contains(&drop.gamma(9, side))));
        }
    }
}
