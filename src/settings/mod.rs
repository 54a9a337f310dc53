//! Every setting of a run: its type, its default, its range, its flags, and what a resumed run may change.
//!
//! A configuration is a preset, under a TOML file, under flags; [`Config::validate`] checks the result once, before any
//! work. The effective configuration goes back to TOML or JSON, is saved with the run, and loads to the same value.
//!
//! [`settings()`] is the table: one row per setting. To change a [`Config`], assign its fields:
//!
//! ```
//! use ieq_wgpu::settings::{Backbone, Config, Length};
//!
//! let mut config = Config::from_preset("omniglot")?;
//! config.model.backbone = Backbone::Conv4;
//! config.model.widths = vec![32; 4];
//! config.optimiser.length = Length::Steps(100);
//! config.validate()?;
//! # Ok::<(), ieq_wgpu::Error>(())
//! ```

mod byte_size;
mod choices;
mod drop_block;
mod layers;
mod macros;
mod names;
mod phases;
mod row;
mod schedule;
mod share;
mod table;
mod time_span;
mod transforms;
mod validate;
mod values;

use std::path::Path;

use crate::{Error, Result};

pub use crate::files::run_folder::{BEST_FILE, CHECKPOINT_FILE, CONFIG_FILE, METRICS_FILE};
pub use byte_size::ByteSize;
pub use choices::{
    Activations, Backbone, BatchStatistics, DecayAt, Length, LrSchedule, Matrix, Method, OnDeviceLost, Recipe, Tune,
    Winograd,
};
pub use drop_block::DropBlockSize;
pub use layers::{DEFAULT_PRESET, PRESETS, at, merge, put, remove};
#[allow(unused_imports, reason = "for the enums of the layers above")]
pub(crate) use names::named;
pub use phases::PHASE_KEYS;
pub use row::{Chooser, Effect, Flag};
pub use schedule::Schedule;
pub use table::{
    Config, DataConfig, DistillConfig, DropBlockConfig, MAX_BLOCKS, MAX_SIDE, MethodConfig, ModelConfig,
    OptimiserConfig, RunConfig, Setting, flags_for_resume, may_change_on_resume, setting, settings,
};
pub use time_span::TimeSpan;
pub use transforms::TransformSet;
pub use values::{End, Range, Read};

/// The most rows (views of images) that a step may hold.
pub const MAX_ROWS: usize = 65_536;

impl DataConfig {
    /// The crop padding for images of `side` pixels: the setting, or an eighth of the side, at most 8
    /// (28: 3, 32: 4, 84: 8).
    pub fn crop_padding_for(&self, side: usize) -> usize {
        self.crop_padding.unwrap_or((side / 8).min(8))
    }

    /// Whether the embedded glyphs are the source.
    pub fn is_glyphs(&self) -> bool {
        self.source == "glyphs"
    }
}

impl DropBlockConfig {
    /// The share kept after `t` training steps: max(1 - rate / ramp_steps * t, 1 - rate).
    pub fn keep_at(&self, t: u32) -> f64 {
        1.0 - self.rate * (f64::from(t) / f64::from(self.ramp_steps.max(1))).min(1.0)
    }
}

/// The loss terms in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Class cross-entropy.
    pub cross_entropy: bool,
    /// Transform cross-entropy.
    pub equivariance: bool,
    /// Memory-bank contrastive loss.
    pub invariance: bool,
}

impl MethodConfig {
    /// The loss terms in effect: the baseline has the class loss alone, and images that are only shown plain have no
    /// transform to tell. A weight of 0 switches a term off; `gamma` only scales.
    pub fn terms(&self) -> Terms {
        let ier = self.kind == Method::Ier;
        Terms {
            cross_entropy: self.cross_entropy && self.weight_class != 0.0,
            equivariance: ier
                && self.equivariance
                && self.weight_equivariance != Some(0.0)
                && self.views_per_image() > 1,
            invariance: ier && self.invariance && self.weight_invariance != Some(0.0),
        }
    }

    /// The weights of the terms, of those that are off, too: class, transform and contrastive loss.
    pub fn weights(&self) -> [f64; 3] {
        [
            self.weight_class,
            self.weight_equivariance.unwrap_or(self.gamma),
            self.weight_invariance.unwrap_or(self.gamma),
        ]
    }

    /// Views of an image per step, the plain one among them: at most the transforms.
    pub fn views_per_image(&self) -> usize {
        let all = self.n_transforms();
        self.views.map_or(all, |views| views.clamp(1, all))
    }

    /// How many of `images` get more than the plain view: at least one of them.
    pub fn viewed_of(&self, images: usize) -> usize {
        ((self.view_share * images as f64).round() as usize).clamp(1, images.max(1))
    }

    /// Rows of a pass over this many images.
    pub fn rows_of(&self, images: usize) -> usize {
        (self.views_per_image() - 1).saturating_mul(self.viewed_of(images)).saturating_add(images)
    }

    /// Side of what the network sees of images of `side` pixels: this share of it, in whole pixels, at least 1.
    pub fn network_side(&self, side: usize) -> usize {
        ((self.scale * side as f64).round() as usize).clamp(1, side.max(1))
    }

    /// Pixels that the network sees of images of `side` pixels, as a share of theirs: what the arithmetic of a row goes by.
    pub fn area(&self, side: usize) -> f64 {
        let share = self.network_side(side) as f64 / side.max(1) as f64;
        share * share
    }

    /// Rotations that the class head tells apart: 1 where labels are classes alone.
    pub fn class_rotations(&self) -> usize {
        if self.joint_labels && self.kind == Method::Ier { self.transforms.rotations() } else { 1 }
    }

    /// Transforms of an image, the plain one among them: 1 for the baseline.
    pub fn n_transforms(&self) -> usize {
        match self.kind {
            Method::Ier => self.transforms.n_transforms(),
            Method::Baseline => 1,
        }
    }
}

impl Config {
    /// The whole configuration as TOML.
    ///
    /// # Errors
    /// [`Error::Internal`] when a value has no form in TOML, which [`Config::validate`] rules out.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("the configuration does not serialise: {e}")))
    }

    /// The configuration as one line of JSON, as checkpoints keep it.
    ///
    /// # Errors
    /// [`Error::Internal`] when a value has no form in JSON, which [`Config::validate`] rules out.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::Internal(format!("the configuration does not serialise: {e}")))
    }

    /// A configuration from [`Config::to_json`]; errors name `origin`.
    ///
    /// # Errors
    /// [`Error::Data`] when the text is not one.
    pub fn from_json(text: &str, origin: &Path) -> Result<Config> {
        serde_json::from_str(text)
            .map_err(|e| Error::data(origin, format!("its configuration cannot be understood: {e}")))
    }

    /// Rows of a training step: views of images.
    pub fn rows(&self) -> usize {
        let parts = self.parts();
        self.method.rows_of(self.optimiser.batch / parts).saturating_mul(parts)
    }

    /// Rows of a step where one counts as much as its arithmetic, for images of `side` pixels: the share of them that the
    /// network sees. The mean over the steps of the run, where it has phases that can be understood.
    pub fn full_rows(&self, side: usize) -> f64 {
        let phases = match self.method.phases.is_empty() {
            true => Vec::new(),
            false => self.phases().unwrap_or_default(),
        };
        if phases.is_empty() {
            return self.rows() as f64 * self.method.area(side);
        }
        // A share of the run is one of its arithmetic, as the schedule counts it, and has the more steps the smaller they are.
        let ends = phases.iter().skip(1).map(|(from, _)| *from).chain([1.0]);
        let parts = phases.iter().zip(ends).map(|((from, config), end)| (end - from, config));
        let (rows, steps) = parts.fold((0.0, 0.0), |(rows, steps), (share, config)| {
            (rows + share * config.rows() as f64, steps + share / config.method.area(side))
        });
        rows / steps
    }

    /// Micro-batches of a step.
    pub fn parts(&self) -> usize {
        self.run.micro_batch.map_or(1, |images| self.optimiser.batch / images.max(1)).max(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Config> {
        Config::from_toml(text, Path::new("test.toml"))
    }

    #[test]
    fn every_preset_parses_validates_and_round_trips() {
        for (name, _) in PRESETS {
            let config = Config::from_preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config.preset.as_deref(), Some(name));
            assert_eq!(from(&config.to_toml().unwrap()).unwrap(), config, "{name} through TOML");
            assert_eq!(Config::from_json(&config.to_json().unwrap(), Path::new("x")).unwrap(), config, "{name}: JSON");
        }
        Config::default().validate().unwrap();
        assert_eq!(from(&Config::default().to_toml().unwrap()).unwrap(), Config::default());
    }

    /// Whether everything in `part` stands in `whole`, too.
    fn holds(whole: &serde_json::Value, part: &serde_json::Value) -> bool {
        match (whole, part) {
            (serde_json::Value::Object(whole), serde_json::Value::Object(part)) => {
                part.iter().all(|(key, value)| whole.get(key).is_some_and(|own| holds(own, value)))
            }
            _ => whole == part,
        }
    }

    /// The text in checkpoints of runs that are done: it reads, and all of it is written again; what it lacks is off.
    #[test]
    fn a_configuration_of_a_checkpoint_is_written_as_it_was() {
        const TEXT: &str = concat!(
            r#"{"preset":"demo","data":{"source":"glyphs","side":28,"crop_padding":null,"mean":[0.1,0.1,0.1],"std":"#,
            r#"[0.25,0.25,0.25],"split_seed":0,"split_file":null},"model":{"backbone":"resnet12","widths":[8,16,32,"#,
            r#"64],"projection":64,"dropout":0.0,"drop_block":{"rate":0.0,"size":"auto","ramp_steps":40000}},"metho"#,
            r#"d":{"kind":"ier","transforms":"crop4","gamma":1.0,"tau":1.0,"negatives":6400,"bank_momentum":0.99,"c"#,
            r#"ross_entropy":true,"equivariance":true,"invariance":true},"distill":{"generations":1,"temperature":4"#,
            r#".0,"weight_loss":1.0,"weight_distill":1.0,"kl_class":1.0,"kl_transform":1.0,"mse_invariant":1.0,"mse"#,
            r#"_feature":1.0},"optimiser":{"batch":16,"length":{"steps":40},"lr":0.05,"momentum":0.9,"weight_decay""#,
            r#":0.0005,"decay_at":{"fractions":[0.6,0.8]},"decay":0.1},"run":{"seed":0,"out":null,"checkpoint_every"#,
            r#"":100,"log_every":10,"slice_ms":100,"micro_batch":null,"recompute":0,"activations":"f32","batch_norm"#,
            r#"":"exact","winograd":"on","tune":"auto","memory_budget":null,"on_device_lost":"stop","chosen":["wino"#,
            r#"grad"]}}"#,
        );
        let config = Config::from_json(TEXT, Path::new("x")).unwrap();
        let [written, text] = [&config.to_json().unwrap(), TEXT].map(|json| serde_json::from_str(json).unwrap());
        assert!(holds(&written, &text), "{written}");
        // Without the preset, which sets today what the text has not yet.
        let config = Config { preset: None, ..config };
        assert_eq!(from(&config.to_toml().unwrap()).unwrap(), config);
    }

    /// Of the numbers of 17 digits one in ten is read one bit off by a reader of JSON that is not asked to be exact.
    #[test]
    fn a_number_is_read_back_as_it_was_written() {
        let mut config = Config::from_preset("demo").unwrap();
        for i in 1..1000 {
            config.optimiser.lr = 1.0 / f64::from(i);
            let text = config.to_json().unwrap();
            assert_eq!(Config::from_json(&text, Path::new("x")).unwrap(), config, "{text}");
        }
    }

    #[test]
    fn presets_hold_the_published_numbers() {
        for (name, side, batch, epochs, decay) in [
            ("cifar-fs", 32, 64, 65, vec![60]),
            ("fc100", 32, 64, 65, vec![60]),
            ("mini-imagenet", 84, 32, 65, vec![60]),
            ("tiered-imagenet", 84, 32, 60, vec![30, 40, 50]),
        ] {
            let config = Config::from_preset(name).unwrap();
            assert_eq!(config.data.side, Some(side), "{name}");
            assert_eq!(config.optimiser.batch, batch, "{name}");
            assert_eq!(config.optimiser.length, Length::Epochs(epochs), "{name}");
            assert_eq!(config.optimiser.decay_at, DecayAt::Epochs(decay), "{name}");
            assert_eq!(config.method, MethodConfig::default(), "{name}");
            assert_eq!(config.distill, DistillConfig::default(), "{name}");
            assert_eq!(config.model.widths, [64, 160, 320, 640], "{name}");
            assert_eq!(DropBlockSize::Auto.for_side(side), config.model.drop_block.size.for_side(side), "{name}");
        }
    }

    #[test]
    fn rules_by_side_meet_the_published_points() {
        let data = DataConfig::default();
        assert_eq!([28, 32, 84, 224].map(|side| data.crop_padding_for(side)), [3, 4, 8, 8]);
        assert_eq!([16, 28, 32, 64, 84].map(|side| DropBlockSize::Auto.for_side(side)), [2, 2, 2, 4, 5]);
        let drop_block = DropBlockConfig::default();
        assert_eq!([0, 20_000, 40_000, 80_000].map(|t| drop_block.keep_at(t)), [1.0, 0.95, 0.9, 0.9]);
    }
}
