//! Every setting of a run: its type, its default, its range, and the sentence for a value outside it.
//!
//! A configuration is a preset, under a TOML file, under flags; [`Config::validate`] judges the result
//! once, before any work. The effective configuration goes back to TOML or JSON, is saved with the run,
//! and loads to the same value. [`Progress`] is the other half of the contract between a job and its
//! caller: settings go in, [`StepReport`]s come out.

mod byte_size;
mod schedule;
mod transforms;
mod validate;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Table;

use crate::{Error, Result};

pub use crate::files::run_folder::{CHECKPOINT_FILE, CONFIG_FILE, METRICS_FILE};
pub use byte_size::ByteSize;
pub use schedule::Schedule;
pub use transforms::TransformSet;

/// The presets by name, in the order they are listed to people; `demo` is the default of `train`.
pub const PRESETS: [(&str, &str); 6] = [
    ("demo", include_str!("../../assets/presets/demo.toml")),
    ("omniglot", include_str!("../../assets/presets/omniglot.toml")),
    ("cifar-fs", include_str!("../../assets/presets/cifar-fs.toml")),
    ("fc100", include_str!("../../assets/presets/fc100.toml")),
    ("mini-imagenet", include_str!("../../assets/presets/mini-imagenet.toml")),
    ("tiered-imagenet", include_str!("../../assets/presets/tiered-imagenet.toml")),
];

/// More than any file of settings has.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The preset of a run that names none.
pub const DEFAULT_PRESET: &str = "demo";

/// The most rows (images x transforms) a step may hold.
pub const MAX_ROWS: usize = 65_536;

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
    ("optimiser.decay_at", &["decay-at-epochs", "decay-at-fractions", "decay-at-steps"]),
    ("optimiser.decay", &["decay"]),
    ("run.seed", &["seed"]),
    ("run.out", &["out"]),
    ("run.checkpoint_every", &["checkpoint-every"]),
    ("run.log_every", &["log-every"]),
    ("run.slice_ms", &["slice-ms"]),
    ("run.micro_batch", &["micro-batch"]),
    ("run.recompute", &["recompute"]),
    ("run.activations", &["activations"]),
    ("run.batch_norm", &["bn"]),
    ("run.winograd", &["winograd"]),
    ("run.tune", &["tune"]),
    ("run.memory_budget", &["memory-budget"]),
    ("run.on_device_lost", &["on-device-lost"]),
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
    /// After these many steps, however long the run.
    Steps(Vec<u32>),
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
    /// `{ epochs = [60] }`, `{ fractions = [0.6, 0.8] }` or `{ steps = [960, 1280] }`; an empty list keeps the rate.
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
    /// The longest that one submission may hold the device, milliseconds; 0 leaves a step in one piece.
    pub slice_ms: u32,
    /// Images of one forward and backward pass: the batch is split into such parts and their gradients are added;
    /// none: the batch is one pass.
    pub micro_batch: Option<usize>,
    /// Convolutions whose output the backward pass computes again instead of keeping it, the cheapest ones.
    pub recompute: usize,
    /// How the outputs of convolutions are stored until the backward pass.
    pub activations: Activations,
    /// What batch norm normalises with where the batch is split.
    pub batch_norm: BatchStatistics,
    /// Whether convolutions are computed by Winograd's minimal filtering where that gains.
    pub winograd: Winograd,
    /// How the fastest of several kernels for the same work is found.
    pub tune: Tune,
    /// The most that the run may hold on the device; what is needed to stay within it is chosen by itself.
    pub memory_budget: Option<ByteSize>,
    /// What to do when the device is lost.
    pub on_device_lost: OnDeviceLost,
    /// The settings of this table that `memory_budget` or the device chose, not the user; saved with the run.
    pub chosen: Vec<String>,
}

/// What to do when the device is lost: reset by the system, unplugged, or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDeviceLost {
    /// End with the command that resumes the run.
    Stop,
    /// Open the device again and continue from the last checkpoint, a bounded number of times.
    Resume,
}

named!(OnDeviceLost { Stop = "stop", Resume = "resume" });

/// How the fastest of several kernels for the same work is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tune {
    /// Quick on a GPU, off on a software adapter, whose order is known.
    Auto,
    /// By the kind of device alone.
    Off,
    /// By measuring those that suit the device, once for each size.
    Quick,
    /// By measuring all, thoroughly, whatever was chosen before.
    Full,
}

named!(Tune { Auto = "auto", Off = "off", Quick = "quick", Full = "full" });

/// How the outputs of convolutions are stored until the backward pass; all arithmetic is f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// As they are computed.
    F32,
    /// Rounded to half precision: half the memory, other numbers.
    F16,
}

named!(Activations { F32 = "f32", F16 = "f16" });

/// Whether 3 x 3 convolutions with many channels are computed by Winograd's minimal filtering, with less than half of
/// the multiplications; the numbers are others within rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Winograd {
    /// On a software adapter, where it was measured to gain; a run keeps what its first device made of it. A plan, which
    /// has no device, counts it as on: a little more memory.
    Auto,
    /// On every adapter.
    On,
    /// On none.
    Off,
}

named!(Winograd { Auto = "auto", On = "on", Off = "off" });

impl Winograd {
    /// What `auto` is on such an adapter.
    pub fn resolved(self, software: bool) -> Self {
        match (self, software) {
            (Winograd::Auto, true) => Winograd::On,
            (Winograd::Auto, false) => Winograd::Off,
            (given, _) => given,
        }
    }
}

/// What batch norm normalises with where a batch is split into micro-batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchStatistics {
    /// The statistics of the whole batch: the same numbers as without splitting.
    Exact,
    /// The statistics of each micro-batch, as replicas on several GPUs have them.
    Micro,
}

named!(BatchStatistics { Exact = "exact", Micro = "micro" });

impl Default for RunConfig {
    fn default() -> Self {
        RunConfig {
            seed: 0,
            out: None,
            checkpoint_every: 200,
            log_every: 10,
            slice_ms: 100,
            micro_batch: None,
            recompute: 0,
            activations: Activations::F32,
            batch_norm: BatchStatistics::Exact,
            winograd: Winograd::Auto,
            tune: Tune::Auto,
            memory_budget: None,
            on_device_lost: OnDeviceLost::Stop,
            chosen: Vec::new(),
        }
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

    /// A file's settings over those of `preset`, of the preset that the file names (`preset = "cifar-fs"`), or over the
    /// defaults. Not yet validated: flags may still come on top.
    pub fn from_layers(preset: Option<&str>, path: &Path) -> Result<Config> {
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
            .map_err(|e| Error::io(path, "cannot read the configuration (--config)", e))?;
        if text.len() as u64 == MAX_FILE_BYTES {
            return Err(Error::data(path, "is too long for a configuration: name a TOML file of settings"));
        }
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

    /// Micro-batches of a step.
    pub fn parts(&self) -> usize {
        self.run.micro_batch.map_or(1, |images| self.optimiser.batch / images.max(1)).max(1)
    }

    /// The settings as the user gave them: without what `run.memory_budget` or the device chose.
    ///
    /// # Errors
    /// [`Error::Usage`] when `run.chosen` lists what neither chooses.
    pub fn as_given(&self) -> Result<Config> {
        let (mut given, unset) = (self.clone(), RunConfig::default());
        for name in std::mem::take(&mut given.run.chosen) {
            match name.as_str() {
                "micro_batch" => given.run.micro_batch = unset.micro_batch,
                "recompute" => given.run.recompute = unset.recompute,
                "activations" => given.run.activations = unset.activations,
                "winograd" => given.run.winograd = unset.winograd,
                _ => {
                    return Err(Error::usage(format!(
                        "run.chosen lists `{name}`, which neither a memory budget nor a device chooses: take it off the list"
                    )));
                }
            }
        }
        Ok(given)
    }

    /// Keeps what a budget or a device chose for `stored`, the run that this one continues, and decides its numbers.
    pub fn keep_choices(&mut self, stored: &Config) {
        let chosen = |name: &str| stored.run.chosen.iter().any(|chosen| chosen == name);
        let mut kept = Vec::new();
        if self.run.micro_batch.is_none() && chosen("micro_batch") {
            self.run.micro_batch = stored.run.micro_batch;
            kept.push("micro_batch".into());
        }
        if self.run.activations == Activations::F32 && chosen("activations") {
            self.run.activations = stored.run.activations;
            kept.push("activations".into());
        }
        if self.run.winograd == Winograd::Auto && chosen("winograd") {
            self.run.winograd = stored.run.winograd;
            kept.push("winograd".into());
        }
        if !kept.is_empty() {
            self.run.chosen = kept;
        }
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
        // Not the user's to set.
        found.retain(|key| key != "run.chosen");
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
    fn what_a_budget_chose_is_told_from_what_the_user_gave() {
        let mut given = Config::from_preset("omniglot").unwrap();
        given.run.memory_budget = Some(ByteSize(1 << 20));
        let mut fitted = given.clone();
        (fitted.run.micro_batch, fitted.run.recompute) = (Some(4), 3);
        assert_eq!(fitted.as_given().unwrap(), fitted, "what nobody chose is the user's");
        fitted.run.chosen = vec!["micro_batch".into(), "recompute".into()];
        assert_eq!(from(&fitted.to_toml().unwrap()).unwrap(), fitted);
        assert_eq!(fitted.as_given().unwrap(), given);
        let mut resumed = given.clone();
        resumed.keep_choices(&fitted);
        assert_eq!((resumed.run.micro_batch, resumed.run.recompute), (Some(4), 0));
        assert_eq!(resumed.as_given().unwrap(), given);
        fitted.run.chosen = vec!["seed".into()];
        assert!(fitted.as_given().unwrap_err().to_string().contains("run.chosen lists `seed`"));
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
