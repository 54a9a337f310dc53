//! What the ranges of the table do not say: rules that several settings share, or settings and images.

use super::layers::preset_text;
use super::row::Flag;
use super::table::{Config, Setting, setting, settings};
use super::{Backbone, LrSchedule, MAX_ROWS, MAX_SIDE, Method, Recipe};
use crate::error::Change;
use crate::{Error, Result};

impl Setting {
    /// Checks the value in `config` against its range.
    ///
    /// # Errors
    /// [`Error::Setting`] with the range when it is outside.
    pub fn check(&self, config: &Config) -> Result<()> {
        let form = (self.form)(config);
        let Some(flag) = self.flags.iter().find(|flag| flag.form == form) else { return Ok(()) };
        match flag.range.refuses(&(self.leaves)(config)) {
            Some((got, wanted)) => Err(self.error(flag, got, wanted)),
            None => Ok(()),
        }
    }

    fn error(&self, flag: &Flag, got: String, wanted: String) -> Error {
        let key = if flag.form_key.is_empty() { self.key } else { flag.form_key };
        let suggestion = flag.examples.iter().map(|value| Change::Set(key, (*value).to_owned())).collect();
        Error::Setting { key, got, wanted, suggestion }
    }
}

impl Config {
    /// Checks every setting, alone and together: what passes can be recorded for any data that suits it.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Conflict`] for the first that cannot be used.
    pub fn validate(&self) -> Result<()> {
        if let Some(name) = &self.preset {
            preset_text(name)?;
            if self.recipe == Recipe::Auto {
                return Err(Error::Conflict {
                    keys: vec!["preset", "recipe"],
                    why: format!(
                        "the preset {name} has its own settings, and `recipe` = auto chooses them by the pictures"
                    ),
                    changes: vec![Change::Unset("preset"), Change::Unset("recipe")],
                });
            }
        }
        self.check_scale()?;
        for setting in settings() {
            setting.check(self)?;
        }
        self.check_freeze()?;
        self.check_method()?;
        self.check_optimiser()?;
        self.check_micro_batch()?;
        self.check_phases()?;
        self.data.side.map_or(Ok(()), |side| self.check_side(side))
    }

    /// Checks what the settings of `[method]` decide, without its phases.
    pub(super) fn check_method(&self) -> Result<()> {
        for setting in settings().filter(|setting| setting.key.starts_with("method.")) {
            setting.check(self)?;
        }
        self.check_terms()?;
        self.check_views()?;
        self.check_rows()
    }

    /// Checks whether images of `side` pixels suit the network and the crop.
    ///
    /// # Errors
    /// [`Error::Setting`] or [`Error::Conflict`] when they do not.
    pub fn check_side(&self, side: usize) -> Result<()> {
        let blocks = self.model.widths.len();
        // Each block halves the image.
        let least = 1_usize.checked_shl(blocks as u32).unwrap_or(usize::MAX);
        if side < least {
            return Err(Error::Setting {
                key: "data.side",
                got: side.to_string(),
                wanted: format!("at least {least} ({blocks} blocks with 2x2 pooling leave nothing of a smaller image)"),
                suggestion: vec![Change::Set("data.side", least.max(32).to_string())],
            });
        }
        if side > MAX_SIDE {
            return Err(Error::Setting {
                key: "data.side",
                got: side.to_string(),
                wanted: format!("from {least} to {MAX_SIDE}"),
                suggestion: vec![Change::Set("data.side", "32".into())],
            });
        }
        self.check_network_side(side, least)?;
        match self.data.crop_padding {
            Some(padding) if padding > side => Err(Error::Setting {
                key: "data.crop_padding",
                got: padding.to_string(),
                wanted: format!("at most the image side {side}"),
                suggestion: vec![Change::Set("data.crop_padding", (side / 8).min(8).to_string())],
            }),
            _ => Ok(()),
        }
    }

    /// Checks whether the network takes what it sees of images of `side` pixels in each phase: at least `least` of them.
    fn check_network_side(&self, side: usize, least: usize) -> Result<()> {
        for (number, (_, phase)) in self.phases()?.iter().enumerate() {
            let (scale, seen) = (phase.method.scale, phase.method.network_side(side));
            let flat = phase.model.backbone == Backbone::Conv4 && seen / least != side / least;
            let why = match (seen < least, flat) {
                (true, _) => format!(
                    "shows the network at least {least} pixels a side ({} blocks with 2x2 pooling leave nothing of a smaller \
                     picture): at least {} of the {side} pixels",
                    phase.model.widths.len(),
                    scale_of(least, side)
                ),
                (_, true) => format!(
                    "leaves a last map as large as that of the full {side} pixels, which evaluation sees: model.backbone = \
                     conv4 flattens it (resnet12 averages it and takes any side)"
                ),
                _ => continue,
            };
            let enough = if seen < least { scale_of(least, side) } else { 1.0 };
            let got = format!("{scale}, which is {seen} pixels");
            return Err(match number {
                0 => Error::Setting {
                    key: "method.scale",
                    got,
                    wanted: format!("one that {why}"),
                    suggestion: vec![Change::Set("method.scale", enough.to_string())],
                },
                _ => Error::Setting {
                    key: "method.phases",
                    got,
                    wanted: format!("one whose scale {why}"),
                    suggestion: vec![Change::Set("method.phases", "0.5: scale = 1".into())],
                },
            });
        }
        Ok(())
    }

    /// Means and deviations are those of images in 0..1; many tables have them of 0..255.
    fn check_scale(&self) -> Result<()> {
        for (key, channels) in [("data.mean", self.data.mean), ("data.std", self.data.std)] {
            let most = channels.iter().copied().fold(0.0, f64::max);
            if most > 1.0 && most <= 255.0 {
                let list = |scale: f64| channels.map(|x| ((x / scale * 1e4).round() / 1e4).to_string()).join(",");
                return Err(Error::Setting {
                    key,
                    got: list(1.0),
                    wanted: "that of images in 0..1, not in 0..255: divided by 255".into(),
                    suggestion: vec![Change::Set(key, list(255.0))],
                });
            }
        }
        Ok(())
    }

    fn check_freeze(&self) -> Result<()> {
        let (freeze, blocks) = (self.optimiser.freeze, self.model.widths.len());
        if freeze <= blocks {
            return Ok(());
        }
        Err(Error::Setting {
            key: "optimiser.freeze",
            got: freeze.to_string(),
            wanted: format!("at most {blocks}, the number of blocks"),
            suggestion: vec![Change::Set("optimiser.freeze", blocks.to_string())],
        })
    }

    fn check_terms(&self) -> Result<()> {
        let terms = self.method.terms();
        if terms.cross_entropy || terms.equivariance || terms.invariance {
            return Ok(());
        }
        let on = |key| Change::Set(key, "true".into());
        let switched_on = self.method.cross_entropy || self.method.equivariance || self.method.invariance;
        Err(match self.method.kind {
            Method::Ier if switched_on => Error::Conflict {
                keys: vec!["method.weight_class", "method.weight_equivariance", "method.weight_invariance"],
                why:
                    "every loss term is off: those that are not switched off have a weight of 0, or are the transform \
                      loss, which method.views = 1 leaves without a transform to tell"
                        .into(),
                changes: match self.method.cross_entropy {
                    true => vec![Change::Set("method.weight_class", "1".into())],
                    false => vec![Change::Unset("method.weight_invariance")],
                },
            },
            Method::Ier => Error::Conflict {
                keys: vec!["method.cross_entropy", "method.equivariance", "method.invariance"],
                why: "every loss term is off: method.cross_entropy = false, method.equivariance = false and \
                      method.invariance = false"
                    .into(),
                changes: vec![on("method.cross_entropy"), on("method.equivariance"), on("method.invariance")],
            },
            Method::Baseline if self.method.cross_entropy => Error::Conflict {
                keys: vec!["method.kind", "method.weight_class"],
                why: "method.kind = baseline has no loss except cross-entropy, and method.weight_class = 0".into(),
                changes: vec![Change::Set("method.weight_class", "1".into()), Change::Set("method.kind", "ier".into())],
            },
            Method::Baseline => Error::Conflict {
                keys: vec!["method.kind", "method.cross_entropy"],
                why: "method.kind = baseline has no loss except cross-entropy, and method.cross_entropy = false".into(),
                changes: vec![on("method.cross_entropy"), Change::Set("method.kind", "ier".into())],
            },
        })
    }

    fn check_views(&self) -> Result<()> {
        let (method, ier) = (&self.method, self.method.kind == Method::Ier);
        let most = method.n_transforms();
        match method.views {
            Some(views) if ier && views > most => {
                return Err(Error::Setting {
                    key: "method.views",
                    got: views.to_string(),
                    wanted: format!("from 1 to {most} (the transforms of {})", method.transforms),
                    suggestion: vec![Change::Set("method.views", most.to_string())],
                });
            }
            _ => {}
        }
        if method.joint_labels && ier && method.transforms.rotations() == 1 {
            return Err(Error::Conflict {
                keys: vec!["method.joint_labels", "method.transforms"],
                why: format!("method.joint_labels needs rotations, and {} has none", method.transforms),
                changes: vec![
                    Change::Set("method.transforms", "rot4".into()),
                    Change::Set("method.joint_labels", "false".into()),
                ],
            });
        }
        Ok(())
    }

    fn check_optimiser(&self) -> Result<()> {
        let optimiser = &self.optimiser;
        if optimiser.schedule == LrSchedule::OneCycle && optimiser.warmup > 0.0 {
            return Err(Error::Conflict {
                keys: vec!["optimiser.schedule", "optimiser.warmup"],
                why: format!(
                    "optimiser.schedule = one-cycle rises by itself, and optimiser.warmup = {} would come on top",
                    optimiser.warmup
                ),
                changes: vec![Change::Set("optimiser.warmup", "0".into())],
            });
        }
        if optimiser.nesterov && optimiser.momentum == 0.0 {
            return Err(Error::Conflict {
                keys: vec!["optimiser.nesterov", "optimiser.momentum"],
                why: "optimiser.nesterov looks ahead along the momentum, and optimiser.momentum is 0".into(),
                changes: vec![Change::Set("optimiser.nesterov", "false".into()), Change::Raise("optimiser.momentum")],
            });
        }
        Ok(())
    }

    /// Checks whether what `given` gives, a layer that was laid over the rest by hand, has an effect here.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another setting leaves it without one.
    pub fn check_given(&self, given: &toml::Table) -> Result<()> {
        let schedule = self.optimiser.schedule;
        if schedule == LrSchedule::Steps {
            return Ok(());
        }
        let section = given.get("optimiser").and_then(|section| section.as_table());
        for key in ["optimiser.decay_at", "optimiser.decay"] {
            let name = key.trim_start_matches("optimiser.");
            let Some(value) = section.and_then(|section| section.get(name)) else { continue };
            let forms = setting(key).map_or(&[][..], |row| row.flags);
            let form = forms.iter().find(|flag| value.as_table().is_some_and(|table| table.contains_key(flag.form)));
            let key = form.map_or(key, |flag| flag.form_key);
            return Err(Error::Conflict {
                keys: vec![key, "optimiser.schedule"],
                why: format!("{key} has no effect with optimiser.schedule = {schedule}, which has no steps"),
                changes: vec![Change::Unset(key)],
            });
        }
        Ok(())
    }

    fn check_rows(&self) -> Result<()> {
        let (batch, rows, transforms) = (self.optimiser.batch, self.rows(), self.method.n_transforms());
        if rows <= MAX_ROWS {
            return Ok(());
        }
        if rows < batch.saturating_mul(transforms) {
            let per_image = self.method.rows_of(batch) as f64 / batch as f64;
            return Err(Error::Conflict {
                keys: vec!["optimiser.batch", "method.views"],
                why: format!(
                    "optimiser.batch {batch} with method.views {} is {rows} rows per step, and {MAX_ROWS} is the most: {} \
                     images or fewer",
                    self.method.views_per_image(),
                    (MAX_ROWS as f64 / per_image) as usize
                ),
                changes: vec![],
            });
        }
        Err(Error::Conflict {
            keys: vec!["optimiser.batch", "method.transforms"],
            why: format!(
                "optimiser.batch {batch} x {transforms} transforms is {rows} rows per step, and {MAX_ROWS} is the most: {} \
                 images or fewer",
                MAX_ROWS / transforms
            ),
            changes: vec![],
        })
    }

    fn check_micro_batch(&self) -> Result<()> {
        let batch = self.optimiser.batch;
        let Some(images) = self.run.micro_batch else { return Ok(()) };
        if images == 0 || !batch.is_multiple_of(images) {
            let divisors: Vec<_> = (1..=batch).filter(|n| batch.is_multiple_of(*n)).map(|n| n.to_string()).collect();
            return Err(Error::Conflict {
                keys: vec!["run.micro_batch", "optimiser.batch"],
                why: format!(
                    "run.micro_batch must divide the batch of {batch}, got {images} (try one of {})",
                    divisors.join(", ")
                ),
                changes: vec![],
            });
        }
        Ok(())
    }
}

/// A scale with few digits that makes at least `least` of `side` pixels.
fn scale_of(least: usize, side: usize) -> f64 {
    ((least as f64 / side.max(1) as f64 * 1e3).ceil() / 1e3).min(1.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::PathBuf;

    use super::super::{ByteSize, DecayAt, DropBlockSize, Length, TransformSet};
    use super::*;

    #[test]
    fn values_out_of_range_get_a_sentence() {
        type Spoil = fn(&mut Config);
        let cases: &[(&str, Spoil)] = &[
            ("preset", |c| c.preset = Some("cifar".into())),
            ("data.source", |c| c.data.source.clear()),
            ("data.split_file", |c| c.data.split_file = Some(PathBuf::new())),
            (
                "data.mean must be that of images in 0..1, not in 0..255: divided by 255, got 123.7,116.3,103.5; set data.mean = 0.4851,0.4561,0.4059",
                |c| {
                    c.data.mean = [123.7, 116.3, 103.5];
                },
            ),
            ("data.std must be that of images in 0..1", |c| c.data.std[0] = 58.4),
            ("data.mean must be at least 0", |c| c.data.mean[0] = -1.0),
            ("data.mean must be at least 0", |c| c.data.mean[0] = 1000.0),
            ("data.std", |c| c.data.std[0] = f64::INFINITY),
            ("data.crop_padding", |c| c.data.crop_padding = Some(1025)),
            ("model.widths", |c| c.model.widths.clear()),
            ("model.widths", |c| c.model.widths = vec![4; 9]),
            ("model.widths", |c| c.model.widths = vec![4097]),
            ("data.side must be at least 32 (5 blocks", |c| {
                (c.model.widths, c.data.side) = (vec![4; 5], Some(31));
            }),
            ("run.recompute", |c| c.run.recompute = usize::MAX),
            ("run.micro_batch", |c| c.run.micro_batch = Some(usize::MAX)),
            ("data.side", |c| c.data.side = Some(0)),
            ("data.side", |c| c.data.side = Some(1025)),
            ("data.side", |c| c.data.side = Some(15)),
            ("data.crop_padding", |c| (c.data.side, c.data.crop_padding) = (Some(32), Some(33))),
            ("data.mean", |c| c.data.mean[1] = f64::NAN),
            ("data.std", |c| c.data.std[2] = 0.0),
            ("data.split_seed", |c| c.data.split_seed = u64::MAX),
            ("model.widths", |c| c.model.widths[3] = 0),
            ("model.projection", |c| c.model.projection = 0),
            ("model.dropout", |c| c.model.dropout = 1.0),
            ("model.drop_block.rate", |c| c.model.drop_block.rate = -0.1),
            ("model.drop_block.size", |c| c.model.drop_block.size = DropBlockSize::Fixed(0)),
            ("model.drop_block.ramp_steps", |c| c.model.drop_block.ramp_steps = 0),
            ("method.transforms", |c| c.method.transforms = TransformSet::Affine(1)),
            ("method.gamma", |c| c.method.gamma = f64::INFINITY),
            ("method.tau", |c| c.method.tau = 0.0),
            ("method.negatives", |c| c.method.negatives = 0),
            ("method.bank_momentum", |c| c.method.bank_momentum = 1.5),
            ("method.bank_recent", |c| c.method.bank_recent = Some(0)),
            ("method.weight_class", |c| c.method.weight_class = -1.0),
            ("method.weight_equivariance", |c| c.method.weight_equivariance = Some(f64::NAN)),
            ("method.weight_invariance", |c| c.method.weight_invariance = Some(1e7)),
            ("method.view_share", |c| c.method.view_share = 0.0),
            ("method.views must be from 1 to 16 (the transforms of rot4xcrop4), got 17; set method.views = 16", |c| {
                (c.method.transforms, c.method.views) = (TransformSet::Rot4Crop4, Some(17));
            }),
            ("method.views 8 is 131072 rows per step, and 65536 is the most: 8192 images or fewer", |c| {
                (c.optimiser.batch, c.method.transforms, c.method.views) = (16_384, TransformSet::Rot4Crop4, Some(8));
            }),
            ("method.joint_labels needs rotations, and crop4 has none", |c| {
                (c.method.joint_labels, c.method.transforms) = (true, TransformSet::Crop4);
            }),
            ("every loss term is off", |c| {
                (c.method.weight_class, c.method.views, c.method.weight_invariance) = (0.0, Some(1), Some(0.0));
            }),
            ("method.label_smoothing", |c| c.method.label_smoothing = 1.0),
            ("method.invariance", |c| {
                (c.method.cross_entropy, c.method.equivariance, c.method.invariance) = (false, false, false);
            }),
            ("method.kind = baseline", |c| (c.method.kind, c.method.cross_entropy) = (Method::Baseline, false)),
            ("distill.generations", |c| c.distill.generations = 0),
            ("distill.temperature", |c| c.distill.temperature = -4.0),
            ("distill.mse_feature", |c| c.distill.mse_feature = -1.0),
            ("optimiser.batch", |c| c.optimiser.batch = 0),
            ("optimiser.batch", |c| c.optimiser.batch = 4097),
            ("optimiser.batch", |c| c.optimiser.batch = usize::MAX),
            ("optimiser.length.epochs", |c| c.optimiser.length = Length::Epochs(0)),
            ("optimiser.length.steps", |c| c.optimiser.length = Length::Steps(0)),
            ("optimiser.lr", |c| c.optimiser.lr = f64::NAN),
            ("optimiser.lr", |c| c.optimiser.lr = -0.05),
            ("optimiser.lr", |c| c.optimiser.lr = 0.0),
            ("optimiser.momentum", |c| c.optimiser.momentum = 1.0),
            ("optimiser.clip_norm", |c| c.optimiser.clip_norm = Some(0.0)),
            ("optimiser.average", |c| c.optimiser.average = 1.0),
            ("optimiser.weight_decay", |c| c.optimiser.weight_decay = -1.0),
            ("optimiser.decay", |c| c.optimiser.decay = 0.0),
            ("optimiser.freeze must be at most 4", |c| c.optimiser.freeze = 5),
            ("optimiser.backbone_rate", |c| c.optimiser.backbone_rate = -1.0),
            ("run.init", |c| c.run.init = Some(PathBuf::new())),
            ("optimiser.decay_at.epochs", |c| c.optimiser.decay_at = DecayAt::Epochs(vec![60, 30])),
            ("optimiser.decay_at.steps", |c| c.optimiser.decay_at = DecayAt::Steps(vec![0, 30])),
            ("optimiser.decay_at.fractions", |c| c.optimiser.decay_at = DecayAt::Fractions(vec![0.6, f64::NAN])),
            ("optimiser.schedule = one-cycle rises by itself", |c| {
                (c.optimiser.schedule, c.optimiser.warmup) = (LrSchedule::OneCycle, 0.1);
            }),
            ("optimiser.warmup must be at least 0 and below 1", |c| c.optimiser.warmup = 1.0),
            ("optimiser.nesterov looks ahead", |c| (c.optimiser.nesterov, c.optimiser.momentum) = (true, 0.0)),
            ("run.seed", |c| c.run.seed = u64::MAX),
            ("run.out", |c| c.run.out = Some(PathBuf::new())),
            ("run.log_every", |c| c.run.log_every = 0),
            ("run.micro_batch", |c| c.run.micro_batch = Some(0)),
            ("run.micro_batch must divide the batch of 16, got 5 (try one of 1, 2, 4, 8, 16)", |c| {
                c.run.micro_batch = Some(5);
            }),
            ("run.memory_budget", |c| c.run.memory_budget = Some(ByteSize(0))),
            ("run.slice_ms", |c| c.run.slice_ms = 60_001),
        ];
        for (i, (key, spoil)) in cases.iter().enumerate() {
            let mut config = Config::from_preset("omniglot").unwrap();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(matches!(error, Error::Setting { .. } | Error::Conflict { .. }), "case {i}: {error}");
            let text = error.to_string();
            assert!(text.contains(key) && !text.contains("--"), "case {i}, {key}: {text}");
        }
    }

    #[test]
    fn points_of_decay_on_a_cosine_get_a_sentence() {
        let mut config = Config::from_preset("omniglot").unwrap();
        let given: toml::Table = toml::from_str("[optimiser]\ndecay_at = { steps = [3] }").unwrap();
        config.check_given(&given).unwrap();
        config.optimiser.schedule = LrSchedule::Cosine;
        config.check_given(&toml::Table::new()).unwrap();
        let error = config.check_given(&given).unwrap_err().to_string();
        assert!(error.contains("optimiser.decay_at.steps has no effect with optimiser.schedule = cosine"), "{error}");
    }

    #[test]
    fn the_least_side_follows_the_number_of_blocks() {
        for (blocks, least) in [(1, 2), (4, 16), (8, 256)] {
            let mut config = Config::default();
            config.model.widths = vec![8; blocks];
            config.check_side(least).unwrap();
            let error = config.check_side(least - 1).unwrap_err();
            assert!(matches!(&error, Error::Setting { key: "data.side", .. }), "{error}");
        }
    }
}
