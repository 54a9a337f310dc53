//! The range of every setting, and the sentence for a value outside it.

use std::fmt;

use super::{
    BatchStatistics, ByteSize, Config, DecayAt, DropBlockSize, Length, MAX_ROWS, Method, SETTINGS, TransformSet,
    preset_text,
};
use crate::{Error, Result};

impl Config {
    /// Whether images of `side` pixels suit the network and the crop.
    pub fn check_side(&self, side: usize) -> Result<()> {
        count("data.side", side, 1, 1024, 32)?;
        if side < 16 {
            return Err(Error::usage(format!(
                "{} must be at least 16, got {side}: four 2x2 poolings leave nothing of a smaller image",
                setting("data.side")
            )));
        }
        if let Some(padding) = self.data.crop_padding
            && padding > side
        {
            return Err(Error::usage(format!(
                "{} must be at most the image side {side}, got {padding} (try {})",
                setting("data.crop_padding"),
                (side / 8).min(8)
            )));
        }
        Ok(())
    }

    /// Judges every setting; the first that cannot be used gets a sentence.
    pub fn validate(&self) -> Result<()> {
        if let Some(name) = &self.preset {
            preset_text(name)?;
        }
        self.validate_data()?;
        self.validate_model()?;
        self.validate_method()?;
        self.validate_distill()?;
        self.validate_optimiser()?;
        count("run.seed", self.run.seed, 0, i64::MAX as u64, 0)?;
        count("run.log_every", self.run.log_every, 1, 1_000_000, 10)?;
        count("run.slice_ms", self.run.slice_ms, 0, 60_000, 100)?;
        self.validate_micro_batch()?;
        if let Some(ByteSize(bytes)) = self.run.memory_budget {
            number("run.memory_budget", bytes as f64, Range::closed(1.0, (1_u64 << 53) as f64), 4e9)?;
        }
        if let Some(out) = &self.run.out
            && out.as_os_str().is_empty()
        {
            return Err(Error::usage(format!("{} is empty (try runs/mine)", setting("run.out"))));
        }
        Ok(())
    }

    fn validate_micro_batch(&self) -> Result<()> {
        let batch = self.optimiser.batch;
        let Some(images) = self.run.micro_batch else { return Ok(()) };
        count("run.micro_batch", images, 1, batch, batch.div_ceil(2))?;
        if !batch.is_multiple_of(images) {
            let divisors: Vec<_> = (1..=batch).filter(|n| batch.is_multiple_of(*n)).map(|n| n.to_string()).collect();
            return Err(Error::usage(format!(
                "{} must divide the batch of {batch}, got {images} (try one of {})",
                setting("run.micro_batch"),
                divisors.join(", ")
            )));
        }
        if images < batch && self.run.batch_norm == BatchStatistics::Exact {
            return Err(Error::usage(format!(
                "{} {images} splits the batch of {batch}, and --bn exact (run.batch_norm) wants statistics over all of \
                 it, which needs the whole batch in one pass: add --bn micro for statistics of each micro-batch, or \
                 leave --micro-batch out",
                setting("run.micro_batch")
            )));
        }
        Ok(())
    }

    fn validate_data(&self) -> Result<()> {
        let data = &self.data;
        if data.source.is_empty() {
            return Err(Error::usage(format!("{} is empty (try glyphs, or a folder)", setting("data.source"))));
        }
        if let Some(side) = data.side {
            self.check_side(side)?;
        }
        if let Some(padding) = data.crop_padding {
            count("data.crop_padding", padding, 0, 1024, 4)?;
        }
        for channel in 0..3 {
            number("data.mean", data.mean[channel], Range::closed(-1000.0, 1000.0), 0.5)?;
            number("data.std", data.std[channel], Range::closed(1e-6, 1000.0), 0.25)?;
        }
        count("data.split_seed", data.split_seed, 0, i64::MAX as u64, 0).map(|_| ())
    }

    fn validate_model(&self) -> Result<()> {
        let model = &self.model;
        for width in model.widths {
            count("model.widths", width, 1, 4096, 64)?;
        }
        count("model.projection", model.projection, 1, 4096, 64)?;
        number("model.dropout", model.dropout, Range::below(0.0, 1.0), 0.1)?;
        number("model.drop_block.rate", model.drop_block.rate, Range::below(0.0, 1.0), 0.1)?;
        if let DropBlockSize::Fixed(size) = model.drop_block.size {
            count("model.drop_block.size", size, 1, 1024, 2)?;
        }
        count("model.drop_block.ramp_steps", model.drop_block.ramp_steps, 1, 100_000_000, 40_000).map(|_| ())
    }

    fn validate_method(&self) -> Result<()> {
        let method = &self.method;
        if let TransformSet::Affine(k) | TransformSet::Projective(k) = method.transforms {
            count("method.transforms", k, 2, 64, 8)?;
        }
        number("method.gamma", method.gamma, Range::closed(0.0, 1e6), 1.0)?;
        // Below this the exponents of the loss leave what f32 holds.
        number("method.tau", method.tau, Range::closed(1e-4, 1e6), 1.0)?;
        count("method.negatives", method.negatives, 1, 1_000_000, 6400)?;
        number("method.bank_momentum", method.bank_momentum, Range::closed(0.0, 1.0), 0.99)?;
        let terms = method.terms();
        if !(terms.cross_entropy || terms.equivariance || terms.invariance) {
            return Err(Error::usage(match method.kind {
                Method::Ier => {
                    "every loss term is off: drop one of --no-cross-entropy, --no-equivariance and \
                     --no-invariance (method.cross_entropy, method.equivariance, method.invariance)"
                }
                Method::Baseline => {
                    "--method baseline has no loss but cross-entropy: drop --no-cross-entropy \
                     (method.cross_entropy)"
                }
            }));
        }
        Ok(())
    }

    fn validate_distill(&self) -> Result<()> {
        let distill = &self.distill;
        count("distill.generations", distill.generations, 1, 1000, 1)?;
        number("distill.temperature", distill.temperature, Range::closed(1e-3, 1e6), 4.0)?;
        for (key, weight) in [
            ("distill.weight_loss", distill.weight_loss),
            ("distill.weight_distill", distill.weight_distill),
            ("distill.kl_class", distill.kl_class),
            ("distill.kl_transform", distill.kl_transform),
            ("distill.mse_invariant", distill.mse_invariant),
            ("distill.mse_feature", distill.mse_feature),
        ] {
            number(key, weight, Range::closed(0.0, 1e6), 1.0)?;
        }
        Ok(())
    }

    fn validate_optimiser(&self) -> Result<()> {
        let optimiser = &self.optimiser;
        if optimiser.batch == 0 {
            return Err(Error::usage(format!("{} must be at least 1, got 0 (try 16)", setting("optimiser.batch"))));
        }
        if self.rows() > MAX_ROWS {
            let n_transforms = self.method.n_transforms();
            return Err(Error::usage(format!(
                "{} {} x {n_transforms} transforms is {} rows a step, and {MAX_ROWS} is the most: {} images or fewer",
                setting("optimiser.batch"),
                optimiser.batch,
                self.rows(),
                MAX_ROWS / n_transforms
            )));
        }
        match optimiser.length {
            Length::Epochs(n) => range_error("--epochs (optimiser.length)", n, 1, 1_000_000, 65)?,
            Length::Steps(n) => range_error("--steps (optimiser.length)", n, 1, 1_000_000_000, 400)?,
        }
        number("optimiser.lr", optimiser.lr, Range::above(0.0, 100.0), 0.05)?;
        number("optimiser.momentum", optimiser.momentum, Range::below(0.0, 1.0), 0.9)?;
        number("optimiser.weight_decay", optimiser.weight_decay, Range::closed(0.0, 1.0), 5e-4)?;
        number("optimiser.decay", optimiser.decay, Range::above(0.0, 1.0), 0.1)?;
        match &optimiser.decay_at {
            DecayAt::Epochs(at) => rising("--decay-at-epochs", at, "30,40,50")?,
            DecayAt::Steps(at) => rising("--decay-at-steps", at, "960,1280")?,
            DecayAt::Fractions(shares) => {
                let inside = shares.iter().all(|&share| share > 0.0 && share < 1.0);
                if !inside || !shares.is_sorted_by(|a, b| a < b) {
                    return Err(Error::usage(format!(
                        "--decay-at-fractions (optimiser.decay_at) must be rising numbers between 0 and 1, got \
                         {shares:?} (try 0.6,0.8)"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Judges the epochs or steps after which the rate falls.
fn rising(flag: &str, at: &[u32], example: &str) -> Result<()> {
    if at.contains(&0) || !at.is_sorted_by(|a, b| a < b) {
        return Err(Error::usage(format!(
            "{flag} (optimiser.decay_at) must be rising numbers from 1, got {at:?} (try {example})"
        )));
    }
    Ok(())
}

/// The setting as people meet it: `--lr (optimiser.lr)`.
pub(super) fn setting(key: &str) -> String {
    match SETTINGS.iter().find(|(known, _)| *known == key) {
        Some((_, flags)) => format!("--{} ({key})", flags[0]),
        None => key.to_owned(),
    }
}

/// The numbers a setting may be.
struct Range {
    low: f64,
    low_open: bool,
    high: f64,
    high_open: bool,
}

impl Range {
    /// low <= x <= high.
    fn closed(low: f64, high: f64) -> Range {
        Range { low, low_open: false, high, high_open: false }
    }

    /// low < x <= high.
    fn above(low: f64, high: f64) -> Range {
        Range { low, low_open: true, high, high_open: false }
    }

    /// low <= x < high.
    fn below(low: f64, high: f64) -> Range {
        Range { low, low_open: false, high, high_open: true }
    }

    /// NaN is outside every range.
    fn contains(&self, x: f64) -> bool {
        let low = if self.low_open { x > self.low } else { x >= self.low };
        let high = if self.high_open { x < self.high } else { x <= self.high };
        low && high
    }
}

fn number(key: &str, x: f64, range: Range, example: f64) -> Result<()> {
    if range.contains(x) {
        return Ok(());
    }
    let low = if range.low_open { "above" } else { "at least" };
    let high = if range.high_open { "below" } else { "at most" };
    Err(Error::usage(format!(
        "{} must be {low} {} and {high} {}, got {x} (try {example})",
        setting(key),
        range.low,
        range.high
    )))
}

fn count<T: PartialOrd + fmt::Display>(key: &str, n: T, low: T, high: T, example: T) -> Result<()> {
    range_error(&setting(key), n, low, high, example)
}

fn range_error<T: PartialOrd + fmt::Display>(name: &str, n: T, low: T, high: T, example: T) -> Result<()> {
    if n >= low && n <= high {
        return Ok(());
    }
    Err(Error::usage(format!("{name} must be from {low} to {high}, got {n} (try {example})")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn values_out_of_range_get_a_sentence() {
        type Spoil = fn(&mut Config);
        let cases: &[(&str, Spoil)] = &[
            ("--data (data.source)", |c| c.data.source.clear()),
            ("--side (data.side)", |c| c.data.side = Some(0)),
            ("--side (data.side)", |c| c.data.side = Some(1025)),
            ("--side (data.side)", |c| c.data.side = Some(15)),
            ("--crop-padding", |c| (c.data.side, c.data.crop_padding) = (Some(32), Some(33))),
            ("--mean", |c| c.data.mean[1] = f64::NAN),
            ("--std", |c| c.data.std[2] = 0.0),
            ("--split-seed", |c| c.data.split_seed = u64::MAX),
            ("--widths", |c| c.model.widths[3] = 0),
            ("--projection", |c| c.model.projection = 0),
            ("--dropout", |c| c.model.dropout = 1.0),
            ("--drop-block-rate", |c| c.model.drop_block.rate = -0.1),
            ("--drop-block-size", |c| c.model.drop_block.size = DropBlockSize::Fixed(0)),
            ("--drop-block-ramp-steps", |c| c.model.drop_block.ramp_steps = 0),
            ("--transforms", |c| c.method.transforms = TransformSet::Affine(1)),
            ("--gamma", |c| c.method.gamma = f64::INFINITY),
            ("--tau", |c| c.method.tau = 0.0),
            ("--negatives", |c| c.method.negatives = 0),
            ("--bank-momentum", |c| c.method.bank_momentum = 1.5),
            ("--no-invariance", |c| {
                (c.method.cross_entropy, c.method.equivariance, c.method.invariance) = (false, false, false);
            }),
            ("baseline", |c| (c.method.kind, c.method.cross_entropy) = (Method::Baseline, false)),
            ("--generations", |c| c.distill.generations = 0),
            ("--distill-temperature", |c| c.distill.temperature = -4.0),
            ("--mse-feature", |c| c.distill.mse_feature = -1.0),
            ("--batch", |c| c.optimiser.batch = 0),
            ("--batch", |c| c.optimiser.batch = 4097),
            ("--batch", |c| c.optimiser.batch = usize::MAX),
            ("--epochs", |c| c.optimiser.length = Length::Epochs(0)),
            ("--steps", |c| c.optimiser.length = Length::Steps(0)),
            ("--lr", |c| c.optimiser.lr = f64::NAN),
            ("--lr", |c| c.optimiser.lr = -0.05),
            ("--lr", |c| c.optimiser.lr = 0.0),
            ("--momentum", |c| c.optimiser.momentum = 1.0),
            ("--weight-decay", |c| c.optimiser.weight_decay = -1.0),
            ("--decay (", |c| c.optimiser.decay = 0.0),
            ("--decay-at-epochs", |c| c.optimiser.decay_at = DecayAt::Epochs(vec![60, 30])),
            ("--decay-at-steps", |c| c.optimiser.decay_at = DecayAt::Steps(vec![0, 30])),
            ("--decay-at-fractions", |c| c.optimiser.decay_at = DecayAt::Fractions(vec![0.6, f64::NAN])),
            ("--seed", |c| c.run.seed = u64::MAX),
            ("--out", |c| c.run.out = Some(PathBuf::new())),
            ("--log-every", |c| c.run.log_every = 0),
            ("--micro-batch", |c| c.run.micro_batch = Some(0)),
            ("--micro-batch (run.micro_batch) must divide the batch of 16, got 5 (try one of 1, 2, 4, 8, 16)", |c| {
                c.run.micro_batch = Some(5);
            }),
            ("--bn micro", |c| c.run.micro_batch = Some(4)),
            ("--memory-budget", |c| c.run.memory_budget = Some(ByteSize(0))),
            ("--slice-ms", |c| c.run.slice_ms = 60_001),
        ];
        for (i, (flag, spoil)) in cases.iter().enumerate() {
            let mut config = Config::from_preset("omniglot").unwrap();
            spoil(&mut config);
            match config.validate() {
                Err(error @ Error::Usage(_)) => {
                    assert!(error.to_string().contains(flag), "case {i}: {error}");
                }
                other => panic!("case {i}, {flag}: {other:?}"),
            }
        }
    }
}
