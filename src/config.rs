//! Every setting of a run: its type, its default, its range, and the sentence for a value outside it.
//!
//! A configuration is a preset, under a TOML file, under flags; [`Config::validate`] judges the result
//! once, before any work. The effective configuration goes back to TOML or JSON, is saved with the run,
//! and loads to the same value. [`Progress`] is the other half of the contract between a job and its
//! caller: settings go in, [`StepReport`]s come out.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Table;

use crate::{Error, Result};

/// The presets by name, in the order they are listed to people; `demo` is the default of `train`.
pub const PRESETS: [(&str, &str); 6] = [
    ("demo", include_str!("../assets/presets/demo.toml")),
    ("omniglot", include_str!("../assets/presets/omniglot.toml")),
    ("cifar-fs", include_str!("../assets/presets/cifar-fs.toml")),
    ("fc100", include_str!("../assets/presets/fc100.toml")),
    ("mini-imagenet", include_str!("../assets/presets/mini-imagenet.toml")),
    ("tiered-imagenet", include_str!("../assets/presets/tiered-imagenet.toml")),
];

/// The preset of a run that names none.
pub const DEFAULT_PRESET: &str = "demo";

/// The most rows (images x transforms) a step may hold.
pub const MAX_ROWS: usize = 65_536;

/// Name of the checkpoint inside a run folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// Name of the effective configuration inside a run folder.
pub const CONFIG_FILE: &str = "config.toml";

/// Name of the metrics, one JSON object a line, inside a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Every setting with the flags that set it. Sentences, help texts and the test that no setting lacks a
/// flag are all made from this list.
pub const SETTINGS: &[(&str, &[&str])] = &[
    ("preset", &["preset"]),
    ("data.source", &["data"]),
    ("data.side", &["side"]),
    ("data.crop_padding", &["crop-padding"]),
    ("data.mean", &["mean"]),
    ("data.std", &["std"]),
    ("data.split_seed", &["split-seed"]),
    ("data.split_file", &["split-file"]),
    ("model.backbone", &["backbone"]),
    ("model.widths", &["widths"]),
    ("model.projection", &["projection"]),
    ("model.dropout", &["dropout"]),
    ("model.drop_block.rate", &["drop-block-rate"]),
    ("model.drop_block.size", &["drop-block-size"]),
    ("model.drop_block.ramp_steps", &["drop-block-ramp-steps"]),
    ("method.kind", &["method"]),
    ("method.transforms", &["transforms"]),
    ("method.gamma", &["gamma"]),
    ("method.tau", &["tau"]),
    ("method.negatives", &["negatives"]),
    ("method.bank_momentum", &["bank-momentum"]),
    ("method.cross_entropy", &["no-cross-entropy"]),
    ("method.equivariance", &["no-equivariance"]),
    ("method.invariance", &["no-invariance"]),
    ("distill.generations", &["generations"]),
    ("distill.temperature", &["distill-temperature"]),
    ("distill.weight_loss", &["weight-loss"]),
    ("distill.weight_distill", &["weight-distill"]),
    ("distill.kl_class", &["kl-class"]),
    ("distill.kl_transform", &["kl-transform"]),
    ("distill.mse_invariant", &["mse-invariant"]),
    ("distill.mse_feature", &["mse-feature"]),
    ("optimiser.batch", &["batch"]),
    ("optimiser.length", &["epochs", "steps"]),
    ("optimiser.lr", &["lr"]),
    ("optimiser.momentum", &["momentum"]),
    ("optimiser.weight_decay", &["weight-decay"]),
    ("optimiser.decay_at", &["decay-at-epochs", "decay-at-fractions"]),
    ("optimiser.decay", &["decay"]),
    ("run.seed", &["seed"]),
    ("run.out", &["out"]),
    ("run.checkpoint_every", &["checkpoint-every"]),
    ("run.log_every", &["log-every"]),
];

/// Settings whose table is a choice of one key: a later layer replaces it whole.
const CHOICES: [&str; 2] = ["length", "decay_at"];

/// Everything a run depends on besides its data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The preset the other settings started from.
    pub preset: Option<String>,
    /// Which images, and how they are prepared.
    pub data: DataConfig,
    /// The network.
    pub model: ModelConfig,
    /// Transforms and losses.
    pub method: MethodConfig,
    /// Distillation from a teacher.
    pub distill: DistillConfig,
    /// Batch, length and learning rate.
    pub optimiser: OptimiserConfig,
    /// Seed, folder and rhythm of a run.
    pub run: RunConfig,
}

/// Which images, and how they are prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `glyphs` (embedded), or the path of a folder, zip, idx file, or folder of pickles.
    pub source: String,
    /// Image side in pixels; none: the images' own.
    pub side: Option<usize>,
    /// Zero padding before the random crop, in pixels; none: [`DataConfig::crop_padding_for`].
    pub crop_padding: Option<usize>,
    /// Channel means subtracted from images scaled to 0..1.
    pub mean: [f64; 3],
    /// Channel deviations divided by afterwards.
    pub std: [f64; 3],
    /// Seed of the class split where the data has none of its own.
    pub split_seed: u64,
    /// File that lists the split's classes.
    pub split_file: Option<PathBuf>,
}

impl Default for DataConfig {
    fn default() -> Self {
        DataConfig {
            source: "glyphs".into(),
            side: None,
            crop_padding: None,
            mean: [0.472141, 0.453308, 0.409961],
            std: [0.277184, 0.26775, 0.28449],
            split_seed: 0,
            split_file: None,
        }
    }
}

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

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Which backbone.
    pub backbone: Backbone,
    /// Channels of the four blocks; the last is the size of the embedding.
    pub widths: [usize; 4],
    /// Outputs of the invariance head.
    pub projection: usize,
    /// Dropout probability after blocks 1 and 2.
    pub dropout: f64,
    /// DropBlock after blocks 3 and 4.
    pub drop_block: DropBlockConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        ModelConfig {
            backbone: Backbone::Resnet12,
            widths: Backbone::Resnet12.default_widths(),
            projection: 64,
            dropout: 0.1,
            drop_block: DropBlockConfig::default(),
        }
    }
}

/// DropBlock after blocks 3 and 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropBlockConfig {
    /// Share of the map dropped once the ramp is over; 0 switches DropBlock off.
    pub rate: f64,
    /// Side of a dropped square.
    pub size: DropBlockSize,
    /// Training steps over which the share grows from 0 to `rate`.
    pub ramp_steps: u32,
}

impl Default for DropBlockConfig {
    fn default() -> Self {
        DropBlockConfig { rate: 0.1, size: DropBlockSize::Auto, ramp_steps: 40_000 }
    }
}

impl DropBlockConfig {
    /// The share kept after `t` training steps: max(1 - rate / ramp_steps * t, 1 - rate).
    pub fn keep_at(&self, t: u32) -> f64 {
        1.0 - self.rate * (f64::from(t) / f64::from(self.ramp_steps.max(1))).min(1.0)
    }
}

/// Side of DropBlock's squares, in pixels of the feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropBlockSize {
    /// By image side: 2 up to 32 pixels, 5 at 84, in proportion between and beyond.
    Auto,
    /// As given.
    Fixed(usize),
}

impl DropBlockSize {
    /// The size for images of `side` pixels (before it is clipped to the feature map).
    pub fn for_side(self, side: usize) -> usize {
        match self {
            DropBlockSize::Auto => ((2 * side + 17) / 34).max(2),
            DropBlockSize::Fixed(size) => size,
        }
    }
}

impl fmt::Display for DropBlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DropBlockSize::Auto => f.write_str("auto"),
            DropBlockSize::Fixed(size) => size.fmt(f),
        }
    }
}

impl FromStr for DropBlockSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(DropBlockSize::Auto),
            (_, Ok(size)) => Ok(DropBlockSize::Fixed(size)),
            _ => Err(format!("`auto` or a whole number of pixels is wanted, got `{text}`")),
        }
    }
}

impl Serialize for DropBlockSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            DropBlockSize::Auto => serializer.serialize_str("auto"),
            DropBlockSize::Fixed(size) => size.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DropBlockSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = DropBlockSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"auto\" or a whole number of pixels")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<DropBlockSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, size: u64) -> std::result::Result<DropBlockSize, E> {
                usize::try_from(size).map(DropBlockSize::Fixed).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, size: i64) -> std::result::Result<DropBlockSize, E> {
                usize::try_from(size)
                    .map(DropBlockSize::Fixed)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(size), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Gives an enum of plain names its list, its `Display` and its `FromStr`.
macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// Every name, in the order they are listed to people.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name in files and flags.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> std::result::Result<Self, String> {
                match text {
                    $($name => Ok($type::$variant),)+
                    _ => Err(format!("one of {} is wanted, got `{text}`", Self::NAMES.join(", "))),
                }
            }
        }
    };
}

/// The feature extractor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backbone {
    /// Four residual blocks of three 3x3 convolutions.
    Resnet12,
    /// Four blocks of one 3x3 convolution.
    Conv4,
}

named!(Backbone { Resnet12 = "resnet12", Conv4 = "conv4" });

impl Backbone {
    /// The widths of the literature: 64,160,320,640 for ResNet-12 and 64 four times for Conv4.
    pub fn default_widths(self) -> [usize; 4] {
        match self {
            Backbone::Resnet12 => [64, 160, 320, 640],
            Backbone::Conv4 => [64; 4],
        }
    }
}

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Class, transform and instance losses over all transforms of an image.
    Ier,
    /// Cross-entropy on one augmented view of an image.
    Baseline,
}

named!(Method { Ier = "ier", Baseline = "baseline" });

/// Transforms and losses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodConfig {
    /// The full method, or cross-entropy alone.
    pub kind: Method,
    /// The transforms every image is shown under.
    pub transforms: TransformSet,
    /// Weight of the equivariance and invariance losses.
    pub gamma: f64,
    /// Temperature of the contrastive loss.
    pub tau: f64,
    /// Negatives drawn from the bank each step (fewer where the data set is smaller).
    pub negatives: usize,
    /// Share of a bank row that an update keeps.
    pub bank_momentum: f64,
    /// Whether the class loss counts.
    pub cross_entropy: bool,
    /// Whether the transform loss counts.
    pub equivariance: bool,
    /// Whether the instance loss counts.
    pub invariance: bool,
}

impl Default for MethodConfig {
    fn default() -> Self {
        MethodConfig {
            kind: Method::Ier,
            transforms: TransformSet::Rot4Crop4,
            gamma: 1.0,
            tau: 1.0,
            negatives: 6400,
            bank_momentum: 0.99,
            cross_entropy: true,
            equivariance: true,
            invariance: true,
        }
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
    /// The loss terms in effect: the baseline has the class loss alone.
    pub fn terms(&self) -> Terms {
        let ier = self.kind == Method::Ier;
        Terms {
            cross_entropy: self.cross_entropy,
            equivariance: ier && self.equivariance,
            invariance: ier && self.invariance,
        }
    }

    /// Rows each image makes: the number of transforms, or 1 for the baseline.
    pub fn n_transforms(&self) -> usize {
        match self.kind {
            Method::Ier => self.transforms.n_transforms(),
            Method::Baseline => 1,
        }
    }
}

/// The transforms every image is shown under; the transform head tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformSet {
    /// Rotations by 0, 90, 180 and 270 degrees.
    Rot4,
    /// The whole image and three windows of two thirds.
    Crop4,
    /// Every window under every rotation.
    Rot4Crop4,
    /// That many fixed affine warps.
    Affine(u32),
    /// That many fixed projective warps.
    Projective(u32),
}

impl TransformSet {
    /// The number of transforms.
    pub fn n_transforms(self) -> usize {
        match self {
            TransformSet::Rot4 | TransformSet::Crop4 => 4,
            TransformSet::Rot4Crop4 => 16,
            TransformSet::Affine(k) | TransformSet::Projective(k) => k as usize,
        }
    }
}

impl fmt::Display for TransformSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransformSet::Rot4 => f.write_str("rot4"),
            TransformSet::Crop4 => f.write_str("crop4"),
            TransformSet::Rot4Crop4 => f.write_str("rot4xcrop4"),
            TransformSet::Affine(k) => write!(f, "affine-{k}"),
            TransformSet::Projective(k) => write!(f, "projective-{k}"),
        }
    }
}

impl FromStr for TransformSet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let count = |k: &str| match k.parse() {
            Ok(k @ 2..=64) => Ok(k),
            _ => Err(format!("the number of warps must be from 2 to 64, got `{k}`")),
        };
        match (text, text.split_once('-')) {
            ("rot4", _) => Ok(TransformSet::Rot4),
            ("crop4", _) => Ok(TransformSet::Crop4),
            ("rot4xcrop4", _) => Ok(TransformSet::Rot4Crop4),
            (_, Some(("affine", k))) => count(k).map(TransformSet::Affine),
            (_, Some(("projective", k))) => count(k).map(TransformSet::Projective),
            _ => Err(format!(
                "rot4, crop4, rot4xcrop4, affine-K or projective-K (as in affine-8) is wanted, got `{text}`"
            )),
        }
    }
}

impl Serialize for TransformSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TransformSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Distillation: a student learns from its own losses and from a teacher's outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillConfig {
    /// Students trained one after the other, each the next one's teacher.
    pub generations: u32,
    /// Temperature of both divergences.
    pub temperature: f64,
    /// Weight of the student's own losses.
    pub weight_loss: f64,
    /// Weight of the sum of the four terms below.
    pub weight_distill: f64,
    /// Weight of the divergence between class outputs.
    pub kl_class: f64,
    /// Weight of the divergence between transform outputs.
    pub kl_transform: f64,
    /// Weight of the squared difference of the invariance head's outputs.
    pub mse_invariant: f64,
    /// Weight of the squared difference of embeddings (in the authors' code, not in their paper).
    pub mse_feature: f64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        DistillConfig {
            generations: 1,
            temperature: 4.0,
            weight_loss: 1.0,
            weight_distill: 1.0,
            kl_class: 1.0,
            kl_transform: 1.0,
            mse_invariant: 1.0,
            mse_feature: 1.0,
        }
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Passes over the training images; an incomplete last batch is dropped.
    Epochs(u32),
    /// Training steps.
    Steps(u32),
}

/// After what the learning rate falls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayAt {
    /// After these many passes over the training images.
    Epochs(Vec<u32>),
    /// After these shares of the run.
    Fractions(Vec<f64>),
}

/// Batch, length, and stochastic gradient descent with momentum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserConfig {
    /// Images a step; each makes as many rows as there are transforms.
    pub batch: usize,
    /// `{ epochs = N }` or `{ steps = N }`.
    pub length: Length,
    /// Learning rate at the start.
    pub lr: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay, on every parameter.
    pub weight_decay: f64,
    /// `{ epochs = [60] }` or `{ fractions = [0.6, 0.8] }`; an empty list keeps the rate.
    pub decay_at: DecayAt,
    /// Factor on the learning rate at each of these points.
    pub decay: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        OptimiserConfig {
            batch: 64,
            length: Length::Epochs(65),
            lr: 0.05,
            momentum: 0.9,
            weight_decay: 5e-4,
            decay_at: DecayAt::Epochs(vec![60]),
            decay: 0.1,
        }
    }
}

/// Seed, folder and rhythm of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// Run folder; none: [`Config::out_folder`].
    pub out: Option<PathBuf>,
    /// Steps between checkpoints; 0 saves at the end alone.
    pub checkpoint_every: u32,
    /// Steps between readings of the losses.
    pub log_every: u32,
}

impl Default for RunConfig {
    fn default() -> Self {
        RunConfig { seed: 0, out: None, checkpoint_every: 200, log_every: 10 }
    }
}

/// Lays `over` on `base`: tables key by key, everything else (and a choice of one key) replaced.
fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) if !CHOICES.contains(&key.as_str()) => {
                overlay(old, new);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// One sentence from a TOML error: the line, and what is wrong with it.
fn toml_sentence(text: &str, error: &toml::de::Error) -> String {
    let what = error.message().trim().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1);
            format!("line {line}: {what}")
        }
        None => what,
    }
}

/// The text of a preset.
fn preset_text(name: &str) -> Result<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| {
        let names: Vec<_> = PRESETS.iter().map(|(name, _)| *name).collect();
        Error::usage(format!("there is no preset `{name}`; --preset takes {}", names.join(", ")))
    })
}

/// A preset, and the text of a file over it; errors name `origin`.
fn layered(preset: Option<&str>, text: &str, origin: &Path) -> Result<Config> {
    let bad = |error: &toml::de::Error| Error::data(origin, toml_sentence(text, error));
    // The file alone first: an error in it then has a line.
    let alone: Config = toml::from_str(text).map_err(|e| bad(&e))?;
    let over: Table = toml::from_str(text).map_err(|e| bad(&e))?;
    let preset = preset.map(str::to_owned).or(alone.preset);
    let mut table = match &preset {
        Some(name) => toml::from_str(preset_text(name)?).map_err(|e| bad(&e))?,
        None => Table::new(),
    };
    let chooses_widths =
        |t: &Table, key: &str| t.get("model").and_then(|m| m.as_table()).is_some_and(|m| m.contains_key(key));
    let new_backbone = chooses_widths(&over, "backbone") && !chooses_widths(&over, "widths");
    let old_backbone: Config = table.clone().try_into().map_err(|e| bad(&e))?;
    overlay(&mut table, over);
    let mut config: Config = table.try_into().map_err(|e| bad(&e))?;
    if new_backbone && config.model.backbone != old_backbone.model.backbone {
        config.model.widths = config.model.backbone.default_widths();
    }
    config.preset = preset;
    Ok(config)
}

impl Config {
    /// A preset's settings.
    pub fn from_preset(name: &str) -> Result<Config> {
        layered(Some(name), preset_text(name)?, Path::new(name))
    }

    /// A file's settings over those of the preset that it names (`preset = "cifar-fs"`), or over the
    /// defaults. Not yet validated: flags may still come on top.
    pub fn from_file(path: &Path) -> Result<Config> {
        Config::from_layers(None, path)
    }

    /// As [`Config::from_file`], with `preset` in the place of the one that the file names.
    pub fn from_layers(preset: Option<&str>, path: &Path) -> Result<Config> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io(path, "cannot read the configuration (--config)", e))?;
        layered(preset, &text, path)
    }

    /// A configuration from TOML text; errors name `origin`.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Config> {
        layered(None, text, origin)
    }

    /// The whole configuration as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Internal(format!("the configuration does not serialise: {e}")))
    }

    /// The configuration as one line of JSON, as checkpoints keep it.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::Internal(format!("the configuration does not serialise: {e}")))
    }

    /// A configuration from [`Config::to_json`]; errors name `origin`.
    pub fn from_json(text: &str, origin: &Path) -> Result<Config> {
        serde_json::from_str(text)
            .map_err(|e| Error::data(origin, format!("its configuration cannot be understood: {e}")))
    }

    /// Rows of a training step: images x transforms.
    pub fn rows(&self) -> usize {
        self.optimiser.batch.saturating_mul(self.method.n_transforms())
    }

    /// The run folder: the setting, or `runs/<preset>`.
    pub fn out_folder(&self) -> PathBuf {
        match &self.run.out {
            Some(out) => out.clone(),
            None => Path::new("runs").join(self.preset.as_deref().unwrap_or("custom")),
        }
    }

    /// The keys, such as `optimiser.lr`, whose values differ from `other`'s.
    pub fn differences(&self, other: &Config) -> Result<Vec<&'static str>> {
        let value = |config: &Config| {
            serde_json::to_value(config)
                .map_err(|e| Error::Internal(format!("the configuration does not serialise: {e}")))
        };
        let (a, b) = (value(self)?, value(other)?);
        let at = |v: &serde_json::Value, key: &str| v.pointer(&format!("/{}", key.replace('.', "/"))).cloned();
        Ok(SETTINGS.iter().map(|(key, _)| *key).filter(|key| at(&a, key) != at(&b, key)).collect())
    }

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
        if let Some(out) = &self.run.out
            && out.as_os_str().is_empty()
        {
            return Err(Error::usage(format!("{} is empty (try runs/mine)", setting("run.out"))));
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
            number("data.std", data.std[channel], Range::above(0.0, 1000.0), 0.25)?;
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
        number("method.tau", method.tau, Range::above(0.0, 1e6), 1.0)?;
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
        number("distill.temperature", distill.temperature, Range::above(0.0, 1e6), 4.0)?;
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
            DecayAt::Epochs(epochs) => {
                if epochs.contains(&0) || !epochs.is_sorted_by(|a, b| a < b) {
                    return Err(Error::usage(format!(
                        "--decay-at-epochs (optimiser.decay_at) must be rising numbers from 1, got {epochs:?} \
                         (try 30,40,50)"
                    )));
                }
            }
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

/// The setting as people meet it: `--lr (optimiser.lr)`.
fn setting(key: &str) -> String {
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
    pub fn new(optimiser: &OptimiserConfig, n_images: usize) -> Result<Schedule> {
        let steps_per_epoch = n_images / optimiser.batch.max(1);
        if steps_per_epoch == 0 {
            return Err(Error::usage(format!(
                "{} {} is more than the {n_images} training images: take {n_images} or fewer, or more data",
                setting("optimiser.batch"),
                optimiser.batch
            )));
        }
        let too_long = || Error::usage("the run is longer than 4294967295 steps: take fewer epochs (--epochs)");
        let steps_per_epoch = u32::try_from(steps_per_epoch).map_err(|_| too_long())?;
        let total_steps = match optimiser.length {
            Length::Epochs(epochs) => epochs.checked_mul(steps_per_epoch).ok_or_else(too_long)?,
            Length::Steps(steps) => steps,
        };
        let decay_steps = match &optimiser.decay_at {
            DecayAt::Epochs(epochs) => epochs.iter().map(|epoch| epoch.saturating_mul(steps_per_epoch)).collect(),
            DecayAt::Fractions(shares) => {
                shares.iter().map(|share| (share * f64::from(total_steps)).round() as u32).collect()
            }
        };
        Ok(Schedule { steps_per_epoch, total_steps, decay_steps, lr: optimiser.lr, decay: optimiser.decay })
    }

    /// The learning rate of `step`, counted from 0.
    pub fn lr_at(&self, step: u32) -> f64 {
        let n_decays = self.decay_steps.iter().filter(|&&at| step >= at).count();
        self.lr * self.decay.powi(n_decays as i32)
    }

    /// The epoch of `step`, both counted from 0.
    pub fn epoch_of(&self, step: u32) -> u32 {
        step / self.steps_per_epoch
    }
}

/// What a training job tells its caller each time it has read the losses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Steps done, counted from 1.
    pub step: u32,
    /// Steps of the whole run.
    pub total_steps: u32,
    /// Epoch under way, counted from 1.
    pub epoch: u32,
    /// Learning rate of the step.
    pub lr: f64,
    /// The loss that is minimised.
    pub loss: f64,
    /// Its terms by short name, unweighted.
    pub terms: Vec<(&'static str, f64)>,
    /// Share of the rows whose class is right, 0 to 1.
    pub accuracy: Option<f64>,
    /// Images seen since the run began (not rows).
    pub images: u64,
}

/// The caller of a long job: is told of progress, and may ask the job to stop.
pub trait Progress {
    /// The losses were read.
    fn step(&mut self, report: &StepReport);

    /// Part `done` of `total` of a job without losses is finished (images embedded, episodes scored).
    fn advance(&mut self, what: &str, done: u64, total: u64);

    /// A sentence on what happens, for people.
    fn note(&mut self, sentence: &str);

    /// A sentence on something that is probably not what the user wants.
    fn warn(&mut self, sentence: &str);

    /// Whether the job is asked to finish its step, save, and return [`Error::Interrupted`].
    fn stop_requested(&self) -> bool;
}

/// A caller that wants to hear nothing and never stops the job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &StepReport) {}

    fn advance(&mut self, _: &str, _: u64, _: u64) {}

    fn note(&mut self, _: &str) {}

    fn warn(&mut self, _: &str) {}

    fn stop_requested(&self) -> bool {
        false
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

    #[test]
    fn every_leaf_of_the_configuration_is_a_setting_with_a_flag() {
        fn leaves(prefix: &str, value: &serde_json::Value, out: &mut Vec<String>) {
            match value {
                serde_json::Value::Object(map) if !CHOICES.iter().any(|choice| prefix.ends_with(choice)) => {
                    for (key, value) in map {
                        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        leaves(&path, value, out);
                    }
                }
                _ => out.push(prefix.to_owned()),
            }
        }
        let mut found = Vec::new();
        leaves("", &serde_json::to_value(Config::default()).unwrap(), &mut found);
        let mut listed: Vec<_> = SETTINGS.iter().map(|(key, _)| (*key).to_owned()).collect();
        found.sort();
        listed.sort();
        assert_eq!(found, listed);
    }

    #[test]
    fn transform_sets_parse_and_print() {
        for (text, n) in [("rot4", 4), ("crop4", 4), ("rot4xcrop4", 16), ("affine-8", 8), ("projective-64", 64)] {
            let set: TransformSet = text.parse().unwrap();
            assert_eq!((set.to_string().as_str(), set.n_transforms()), (text, n));
        }
        for text in ["", "rot", "affine", "affine-", "affine-1", "affine-65", "projective-x", "affine--2"] {
            assert!(text.parse::<TransformSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_lies_over_its_preset() {
        let config =
            from("preset = \"cifar-fs\"\n[optimiser]\nlength = { steps = 7 }\ndecay_at = { fractions = [0.5] }");
        let config = config.unwrap();
        assert_eq!(config.optimiser.length, Length::Steps(7));
        assert_eq!(config.optimiser.decay_at, DecayAt::Fractions(vec![0.5]));
        assert_eq!(config.optimiser.batch, 64);
        assert_eq!(config.data.side, Some(32));

        let conv4 = from("preset = \"omniglot\"\n[model]\nbackbone = \"conv4\"").unwrap();
        assert_eq!(conv4.model.widths, [64; 4], "a new backbone brings its own widths");
        let same = from("preset = \"omniglot\"\n[model]\nbackbone = \"resnet12\"").unwrap();
        assert_eq!(same.model.widths, [16, 32, 64, 128]);
        let rate = from("preset = \"mini-imagenet\"\n[model]\ndrop_block = { rate = 0.2 }").unwrap();
        assert_eq!(rate.model.drop_block.size, DropBlockSize::Fixed(5));
    }

    #[test]
    fn a_bad_file_gets_its_line() {
        for (text, needle) in [
            ("[optimiser]\nlrr = 1", "line 2: unknown field `lrr`"),
            ("[optimiser]\n\nlr = \"fast\"", "line 3: invalid type"),
            ("[model]\nbackbone = \"resnet18\"", "line 2: unknown variant `resnet18`"),
            ("[model]\nwidths = [1, 2]", "line 2"),
            ("[model.drop_block]\nsize = -1", "line 2"),
            ("[method]\ntransforms = \"rot5\"", "line 2: rot4, crop4"),
            ("[optimiser]\nlength = { epochs = 1, steps = 2 }", "line 2"),
            ("[optimiser", "line 1"),
            ("preset = \"cifar\"", "there is no preset `cifar`"),
        ] {
            let message = from(text).unwrap_err().to_string();
            assert!(message.contains(needle), "{text:?}: {message}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn values_out_of_range_get_a_sentence() {
        let cases: Vec<(&str, Box<dyn Fn(&mut Config)>)> = vec![
            ("--data (data.source)", Box::new(|c| c.data.source.clear())),
            ("--side (data.side)", Box::new(|c| c.data.side = Some(0))),
            ("--side (data.side)", Box::new(|c| c.data.side = Some(1025))),
            ("--side (data.side)", Box::new(|c| c.data.side = Some(15))),
            ("--crop-padding", Box::new(|c| (c.data.side, c.data.crop_padding) = (Some(32), Some(33)))),
            ("--mean", Box::new(|c| c.data.mean[1] = f64::NAN)),
            ("--std", Box::new(|c| c.data.std[2] = 0.0)),
            ("--split-seed", Box::new(|c| c.data.split_seed = u64::MAX)),
            ("--widths", Box::new(|c| c.model.widths[3] = 0)),
            ("--projection", Box::new(|c| c.model.projection = 0)),
            ("--dropout", Box::new(|c| c.model.dropout = 1.0)),
            ("--drop-block-rate", Box::new(|c| c.model.drop_block.rate = -0.1)),
            ("--drop-block-size", Box::new(|c| c.model.drop_block.size = DropBlockSize::Fixed(0))),
            ("--drop-block-ramp-steps", Box::new(|c| c.model.drop_block.ramp_steps = 0)),
            ("--transforms", Box::new(|c| c.method.transforms = TransformSet::Affine(1))),
            ("--gamma", Box::new(|c| c.method.gamma = f64::INFINITY)),
            ("--tau", Box::new(|c| c.method.tau = 0.0)),
            ("--negatives", Box::new(|c| c.method.negatives = 0)),
            ("--bank-momentum", Box::new(|c| c.method.bank_momentum = 1.5)),
            (
                "--no-invariance",
                Box::new(|c| {
                    (c.method.cross_entropy, c.method.equivariance, c.method.invariance) = (false, false, false);
                }),
            ),
            ("baseline", Box::new(|c| (c.method.kind, c.method.cross_entropy) = (Method::Baseline, false))),
            ("--generations", Box::new(|c| c.distill.generations = 0)),
            ("--distill-temperature", Box::new(|c| c.distill.temperature = -4.0)),
            ("--mse-feature", Box::new(|c| c.distill.mse_feature = -1.0)),
            ("--batch", Box::new(|c| c.optimiser.batch = 0)),
            ("--batch", Box::new(|c| c.optimiser.batch = 4097)),
            ("--batch", Box::new(|c| c.optimiser.batch = usize::MAX)),
            ("--epochs", Box::new(|c| c.optimiser.length = Length::Epochs(0))),
            ("--steps", Box::new(|c| c.optimiser.length = Length::Steps(0))),
            ("--lr", Box::new(|c| c.optimiser.lr = f64::NAN)),
            ("--lr", Box::new(|c| c.optimiser.lr = -0.05)),
            ("--lr", Box::new(|c| c.optimiser.lr = 0.0)),
            ("--momentum", Box::new(|c| c.optimiser.momentum = 1.0)),
            ("--weight-decay", Box::new(|c| c.optimiser.weight_decay = -1.0)),
            ("--decay (", Box::new(|c| c.optimiser.decay = 0.0)),
            ("--decay-at-epochs", Box::new(|c| c.optimiser.decay_at = DecayAt::Epochs(vec![60, 30]))),
            ("--decay-at-fractions", Box::new(|c| c.optimiser.decay_at = DecayAt::Fractions(vec![0.6, f64::NAN]))),
            ("--seed", Box::new(|c| c.run.seed = u64::MAX)),
            ("--out", Box::new(|c| c.run.out = Some(PathBuf::new()))),
            ("--log-every", Box::new(|c| c.run.log_every = 0)),
        ];
        for (i, (flag, spoil)) in cases.iter().enumerate() {
            let mut config = Config::from_preset("omniglot").unwrap();
            spoil(&mut config);
            match config.validate() {
                Err(error @ Error::Usage(_)) => {
                    assert!(error.to_string().contains(flag), "case {i}: {error}");
                    assert_eq!(error.exit_code(), 2);
                }
                other => panic!("case {i}, {flag}: {other:?}"),
            }
        }
    }

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
        assert!(Schedule::new(&optimiser, 15).unwrap_err().to_string().contains("15 training images"));
    }

    #[test]
    fn differences_name_the_keys() {
        let a = Config::from_preset("omniglot").unwrap();
        let mut b = a.clone();
        assert_eq!(a.differences(&b).unwrap(), Vec::<&str>::new());
        b.optimiser.lr = 0.1;
        b.model.drop_block.rate = 0.3;
        b.optimiser.length = Length::Epochs(3);
        assert_eq!(a.differences(&b).unwrap(), ["model.drop_block.rate", "optimiser.length", "optimiser.lr"]);
    }
}
