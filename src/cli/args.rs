//! The flags of the settings, and how values of flags are read. Ranges are [`Config::validate`]'s business.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::settings::{
    Activations, Backbone, BatchStatistics, ByteSize, Config, DEFAULT_PRESET, DecayAt, DropBlockSize, Length, Method,
    OnDeviceLost, PRESETS, SETTINGS, TransformSet, Tune, Winograd,
};
use crate::{Error, Result};

const DATA: &str = "Data";
const MODEL: &str = "Model";
const METHOD: &str = "Method";
const DISTILL: &str = "Distillation";
const OPTIMISER: &str = "Optimiser";
const RUN: &str = "Run";

/// Every setting of [`Config`] but distillation's, each optional; what is given lies over the rest.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ConfigFlags {
    /// Settings to start from
    ///
    /// Without --preset and --config: demo, whatever the data. A --config file that names no preset starts from
    /// the published method's own numbers.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS.map(|(name, _)| name)),
        help_heading = DATA, hide_possible_values = true)]
    pub preset: Option<String>,
    /// TOML file of settings, over the preset
    ///
    /// The same keys as in the config.toml of any run folder. It may name its preset itself.
    #[arg(long, value_name = "FILE", help_heading = DATA)]
    pub config: Option<PathBuf>,
    /// glyphs (embedded), or a folder, zip, idx file or pickles
    #[arg(long, value_name = "SRC", help_heading = DATA)]
    pub data: Option<String>,
    /// Image side, pixels
    #[arg(long, value_name = "S", value_parser = count, help_heading = DATA)]
    pub side: Option<usize>,
    /// Zero padding before the random crop, pixels
    ///
    /// Where it is not set: an eighth of the side, at most 8.
    #[arg(long, value_name = "P", value_parser = count, help_heading = DATA, hide_short_help = true)]
    pub crop_padding: Option<usize>,
    /// Channel means, of images in 0..1; one number or three
    #[arg(long, value_name = "R,G,B", value_parser = triple, help_heading = DATA, hide_short_help = true)]
    pub mean: Option<[f64; 3]>,
    /// Channel deviations; one number or three
    #[arg(long, value_name = "R,G,B", value_parser = triple, help_heading = DATA, hide_short_help = true)]
    pub std: Option<[f64; 3]>,
    /// Seed of the class split where the data has none
    #[arg(long, value_name = "N", value_parser = seed, help_heading = DATA, hide_short_help = true)]
    pub split_seed: Option<u64>,
    /// File that lists the split's classes
    #[arg(long, value_name = "FILE", help_heading = DATA, hide_short_help = true)]
    pub split_file: Option<PathBuf>,

    /// resnet12 or conv4
    #[arg(long, value_name = "NAME", value_parser = choice::<Backbone>(Backbone::NAMES), help_heading = MODEL,
        hide_possible_values = true)]
    pub backbone: Option<Backbone>,
    /// Channels of the four blocks
    #[arg(long, value_name = "W,W,W,W", value_parser = widths, help_heading = MODEL)]
    pub widths: Option<[usize; 4]>,
    /// Outputs of the invariance head
    #[arg(long, value_name = "N", value_parser = count, help_heading = MODEL, hide_short_help = true)]
    pub projection: Option<usize>,
    /// Dropout probability after blocks 1 and 2
    #[arg(long, value_name = "P", value_parser = number, help_heading = MODEL, hide_short_help = true)]
    pub dropout: Option<f64>,
    /// Share dropped by DropBlock after blocks 3 and 4
    #[arg(long, value_name = "P", value_parser = number, help_heading = MODEL, hide_short_help = true)]
    pub drop_block_rate: Option<f64>,
    /// Side of DropBlock's squares, pixels of the feature map, or auto
    #[arg(long, value_name = "N|auto", help_heading = MODEL, hide_short_help = true)]
    pub drop_block_size: Option<DropBlockSize>,
    /// Steps over which DropBlock's share grows to its rate
    #[arg(long, value_name = "N", value_parser = count32, help_heading = MODEL, hide_short_help = true)]
    pub drop_block_ramp_steps: Option<u32>,

    /// ier (the full method) or baseline (cross-entropy only)
    #[arg(long, value_name = "NAME", value_parser = choice::<Method>(Method::NAMES), help_heading = METHOD,
        hide_possible_values = true)]
    pub method: Option<Method>,
    /// rot4, crop4, rot4xcrop4, affine-K or projective-K
    ///
    /// The transforms that every image is shown under: 4, 4, 16, and K from 2 to 64 fixed warps.
    #[arg(long, value_name = "SET", help_heading = METHOD)]
    pub transforms: Option<TransformSet>,
    /// Weight of the equivariance and invariance losses
    #[arg(long, value_name = "W", value_parser = number, help_heading = METHOD, hide_short_help = true)]
    pub gamma: Option<f64>,
    /// Temperature of the contrastive loss
    #[arg(long, value_name = "T", value_parser = number, help_heading = METHOD, hide_short_help = true)]
    pub tau: Option<f64>,
    /// Negatives drawn from the memory bank each step
    #[arg(long, value_name = "K", value_parser = count, help_heading = METHOD, hide_short_help = true)]
    pub negatives: Option<usize>,
    /// Share of a memory-bank row that an update keeps
    #[arg(long, value_name = "M", value_parser = number, help_heading = METHOD, hide_short_help = true)]
    pub bank_momentum: Option<f64>,
    /// Train without the class loss
    ///
    /// --cross-entropy switches it back on over a file that switches it off.
    #[arg(long, overrides_with = "cross_entropy", help_heading = METHOD, hide_short_help = true)]
    pub no_cross_entropy: bool,
    /// Opposite of --no-cross-entropy.
    #[arg(long, overrides_with = "no_cross_entropy", hide = true)]
    pub cross_entropy: bool,
    /// Train without the transform loss
    ///
    /// --equivariance switches it back on over a file that switches it off.
    #[arg(long, overrides_with = "equivariance", help_heading = METHOD, hide_short_help = true)]
    pub no_equivariance: bool,
    /// Opposite of --no-equivariance.
    #[arg(long, overrides_with = "no_equivariance", hide = true)]
    pub equivariance: bool,
    /// Train without the contrastive loss
    ///
    /// --invariance switches it back on over a file that switches it off.
    #[arg(long, overrides_with = "invariance", help_heading = METHOD, hide_short_help = true)]
    pub no_invariance: bool,
    /// Opposite of --no-invariance.
    #[arg(long, overrides_with = "no_invariance", hide = true)]
    pub invariance: bool,

    /// Images a step (rows: times the transforms)
    #[arg(long, value_name = "B", value_parser = count, help_heading = OPTIMISER)]
    pub batch: Option<usize>,
    /// Length in passes over the images
    #[arg(long, value_name = "N", value_parser = count32, help_heading = OPTIMISER, conflicts_with = "steps")]
    pub epochs: Option<u32>,
    /// Length in steps
    #[arg(long, value_name = "N", value_parser = count32, help_heading = OPTIMISER)]
    pub steps: Option<u32>,
    /// Learning rate
    #[arg(long, value_name = "R", value_parser = number, help_heading = OPTIMISER)]
    pub lr: Option<f64>,
    /// Momentum
    #[arg(long, value_name = "M", value_parser = number, help_heading = OPTIMISER, hide_short_help = true)]
    pub momentum: Option<f64>,
    /// Weight decay, on every parameter
    #[arg(long, value_name = "W", value_parser = number, help_heading = OPTIMISER, hide_short_help = true)]
    pub weight_decay: Option<f64>,
    /// Lower the rate after these epochs, or none
    #[arg(long, value_name = "N,..", value_parser = list::<u32>, help_heading = OPTIMISER, hide_short_help = true,
        conflicts_with_all = ["decay_at_fractions", "decay_at_steps"])]
    pub decay_at_epochs: Option<List<u32>>,
    /// Lower the rate after these shares of the run, or none
    #[arg(long, value_name = "F,..", value_parser = list::<f64>, help_heading = OPTIMISER, hide_short_help = true,
        conflicts_with = "decay_at_steps")]
    pub decay_at_fractions: Option<List<f64>>,
    /// Lower the rate after these steps, or none
    #[arg(long, value_name = "N,..", value_parser = list::<u32>, help_heading = OPTIMISER, hide_short_help = true)]
    pub decay_at_steps: Option<List<u32>>,
    /// Factor on the rate at each of these points
    #[arg(long, value_name = "F", value_parser = number, help_heading = OPTIMISER, hide_short_help = true)]
    pub decay: Option<f64>,

    /// Seed of every random choice
    #[arg(long, value_name = "N", value_parser = seed, help_heading = RUN)]
    pub seed: Option<u64>,
    /// Run folder
    ///
    /// Where it is not set: runs/ and the name of the preset.
    #[arg(long, short, value_name = "FOLDER", help_heading = RUN)]
    pub out: Option<PathBuf>,
    /// Steps between checkpoints; 0 for one at the end
    #[arg(long, value_name = "N", value_parser = count32, help_heading = RUN, hide_short_help = true)]
    pub checkpoint_every: Option<u32>,
    /// Steps between readings of the losses
    #[arg(long, value_name = "N", value_parser = count32, help_heading = RUN, hide_short_help = true)]
    pub log_every: Option<u32>,
    /// Longest time that one submission holds the device, ms
    ///
    /// A step is cut into submissions by measured time, so that a desktop stays responsive and no watchdog resets
    /// the device; the numbers stay the same. 0 leaves every step in one piece.
    #[arg(long, value_name = "MS", value_parser = count32, help_heading = RUN, hide_short_help = true)]
    pub slice_ms: Option<u32>,
    /// Images of one pass; the gradients of a batch's passes add up
    ///
    /// Splits the batch into micro-batches, which need less memory; it must divide --batch. The losses are means
    /// over the whole batch. Wants --bn micro.
    #[arg(long, value_name = "N", value_parser = count, help_heading = RUN, hide_short_help = true)]
    pub micro_batch: Option<usize>,
    /// Convolutions to compute again instead of keeping them
    ///
    /// The backward pass then recomputes the output of so many convolutions, those that are cheapest for their size
    /// first, which needs less memory and more time; the numbers stay the same.
    #[arg(long, value_name = "N", value_parser = count, help_heading = RUN, hide_short_help = true)]
    pub recompute: Option<usize>,
    /// Storage of the outputs of convolutions: f32 or f16
    ///
    /// f16 keeps them in half precision until the backward pass: half the memory, other numbers; all arithmetic
    /// stays f32. Maps with rows of an odd length stay f32, too.
    #[arg(long, value_name = "TYPE", value_parser = choice::<Activations>(Activations::NAMES),
        help_heading = RUN, hide_possible_values = true, hide_short_help = true)]
    pub activations: Option<Activations>,
    /// Batch norm of a split batch: exact or micro
    ///
    /// exact: statistics of the whole batch, so a batch is not split. micro: statistics of each micro-batch, as the
    /// replicas of the authors' runs on several GPUs have them; each moves the running statistics in turn.
    #[arg(long, value_name = "KIND", value_parser = choice::<BatchStatistics>(BatchStatistics::NAMES),
        help_heading = RUN, hide_possible_values = true, hide_short_help = true)]
    pub bn: Option<BatchStatistics>,
    /// Winograd's convolution: auto, on or off
    ///
    /// Computes 3 x 3 convolutions of 64 channels or more with less than half of the multiplications; the numbers are
    /// others within rounding. auto is on for a software adapter, where it was measured to gain, and off on a GPU; plan
    /// counts it as on, which takes a little more memory.
    #[arg(long, value_name = "WHEN", value_parser = choice::<Winograd>(Winograd::NAMES), help_heading = RUN,
        hide_possible_values = true, hide_short_help = true)]
    pub winograd: Option<Winograd>,
    /// Choice among kernels: auto, off, quick or full
    ///
    /// quick measures the kernels that suit the device once for each size, full measures all of them anew; what was
    /// chosen is kept in the user's cache (IEQ_CACHE_DIR names another folder) and with the run, which auto and quick
    /// resume with. off goes by the kind of device. auto is quick on a GPU and off on a software adapter.
    #[arg(long, value_name = "EFFORT", value_parser = choice::<Tune>(Tune::NAMES), help_heading = RUN,
        hide_possible_values = true, hide_short_help = true)]
    pub tune: Option<Tune>,
    /// Most memory on the device, such as 4GiB
    ///
    /// A run that needs more is made to fit: streamed images first, then recomputed convolutions, which change no
    /// number, then half-precision activations, then with --bn micro the largest micro-batches that fit. What was
    /// chosen, and its cost, is said and saved with the run.
    #[arg(long, value_name = "SIZE", help_heading = RUN)]
    pub memory_budget: Option<ByteSize>,
    /// Device lost: stop or resume
    ///
    /// stop: end with the command that resumes. resume: open the device again and continue from the last checkpoint,
    /// at most three times.
    #[arg(long, value_name = "WHAT", value_parser = choice::<OnDeviceLost>(OnDeviceLost::NAMES), help_heading = RUN,
        hide_possible_values = true, hide_short_help = true)]
    pub on_device_lost: Option<OnDeviceLost>,
}

/// The settings of distillation, each optional.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct DistillFlags {
    /// Students, each the teacher of the next
    #[arg(long, value_name = "N", value_parser = count32, help_heading = DISTILL)]
    pub generations: Option<u32>,
    /// Temperature of both divergences
    #[arg(long, value_name = "T", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub distill_temperature: Option<f64>,
    /// Weight of the student's own losses
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub weight_loss: Option<f64>,
    /// Weight of the sum of the four terms below
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub weight_distill: Option<f64>,
    /// Weight of the divergence between class outputs
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub kl_class: Option<f64>,
    /// Weight of the divergence between transform outputs
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub kl_transform: Option<f64>,
    /// Weight of the squared difference of the invariance head
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub mse_invariant: Option<f64>,
    /// Weight of the squared difference of embeddings
    #[arg(long, value_name = "W", value_parser = number, help_heading = DISTILL, hide_short_help = true)]
    pub mse_feature: Option<f64>,
}

impl ConfigFlags {
    /// The settings that `--preset` and `--config` name, else `fallback`'s; before the flags. What a memory budget
    /// chose for another run is left behind: it is chosen anew.
    pub fn base(&self, fallback: impl FnOnce() -> Result<Config>) -> Result<Config> {
        match (&self.preset, &self.config) {
            (preset, Some(file)) => Config::from_layers(preset.as_deref(), file),
            (Some(preset), None) => Config::from_preset(preset),
            (None, None) => fallback(),
        }?
        .as_given()
    }

    /// The whole configuration: preset (else the demo), file, flags.
    pub fn resolve(&self) -> Result<Config> {
        let mut config = self.base(|| Config::from_preset(DEFAULT_PRESET))?;
        self.apply(&mut config);
        Ok(config)
    }

    /// Lays the flags that were given over `config`.
    pub fn apply(&self, config: &mut Config) {
        let Config { data, model, method, optimiser, run, .. } = config;
        set(&mut data.source, &self.data);
        set_some(&mut data.side, &self.side);
        set_some(&mut data.crop_padding, &self.crop_padding);
        set(&mut data.mean, &self.mean);
        set(&mut data.std, &self.std);
        set(&mut data.split_seed, &self.split_seed);
        set_some(&mut data.split_file, &self.split_file);
        if let Some(backbone) = self.backbone
            && backbone != model.backbone
        {
            model.backbone = backbone;
            model.widths = backbone.default_widths();
        }
        set(&mut model.widths, &self.widths);
        set(&mut model.projection, &self.projection);
        set(&mut model.dropout, &self.dropout);
        set(&mut model.drop_block.rate, &self.drop_block_rate);
        set(&mut model.drop_block.size, &self.drop_block_size);
        set(&mut model.drop_block.ramp_steps, &self.drop_block_ramp_steps);
        set(&mut method.kind, &self.method);
        set(&mut method.transforms, &self.transforms);
        set(&mut method.gamma, &self.gamma);
        set(&mut method.tau, &self.tau);
        set(&mut method.negatives, &self.negatives);
        set(&mut method.bank_momentum, &self.bank_momentum);
        method.cross_entropy = (method.cross_entropy || self.cross_entropy) && !self.no_cross_entropy;
        method.equivariance = (method.equivariance || self.equivariance) && !self.no_equivariance;
        method.invariance = (method.invariance || self.invariance) && !self.no_invariance;
        set(&mut optimiser.batch, &self.batch);
        set(&mut optimiser.length, &self.epochs.map(Length::Epochs).or(self.steps.map(Length::Steps)));
        set(&mut optimiser.lr, &self.lr);
        set(&mut optimiser.momentum, &self.momentum);
        set(&mut optimiser.weight_decay, &self.weight_decay);
        set(&mut optimiser.decay_at, &self.decay_at_epochs.as_ref().map(|list| DecayAt::Epochs(list.0.clone())));
        set(&mut optimiser.decay_at, &self.decay_at_fractions.as_ref().map(|list| DecayAt::Fractions(list.0.clone())));
        set(&mut optimiser.decay_at, &self.decay_at_steps.as_ref().map(|list| DecayAt::Steps(list.0.clone())));
        set(&mut optimiser.decay, &self.decay);
        set(&mut run.seed, &self.seed);
        set_some(&mut run.out, &self.out);
        set(&mut run.checkpoint_every, &self.checkpoint_every);
        set(&mut run.log_every, &self.log_every);
        set(&mut run.slice_ms, &self.slice_ms);
        set_some(&mut run.micro_batch, &self.micro_batch);
        set(&mut run.recompute, &self.recompute);
        set(&mut run.activations, &self.activations);
        set(&mut run.batch_norm, &self.bn);
        set(&mut run.winograd, &self.winograd);
        set(&mut run.tune, &self.tune);
        set_some(&mut run.memory_budget, &self.memory_budget);
        set(&mut run.on_device_lost, &self.on_device_lost);
    }
}

impl DistillFlags {
    /// Lays the flags that were given over `config`.
    pub fn apply(&self, config: &mut Config) {
        let distill = &mut config.distill;
        set(&mut distill.generations, &self.generations);
        set(&mut distill.temperature, &self.distill_temperature);
        set(&mut distill.weight_loss, &self.weight_loss);
        set(&mut distill.weight_distill, &self.weight_distill);
        set(&mut distill.kl_class, &self.kl_class);
        set(&mut distill.kl_transform, &self.kl_transform);
        set(&mut distill.mse_invariant, &self.mse_invariant);
        set(&mut distill.mse_feature, &self.mse_feature);
    }
}

fn set<T: Clone>(to: &mut T, from: &Option<T>) {
    if let Some(value) = from {
        *to = value.clone();
    }
}

fn set_some<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
    if from.is_some() {
        to.clone_from(from);
    }
}

/// A list given as one word, `none` for the empty one.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

type Parsed<T> = std::result::Result<T, String>;

pub(super) fn count(text: &str) -> Parsed<usize> {
    text.parse().map_err(|_| "a whole number, 0 or more, is wanted".to_owned())
}

fn count32(text: &str) -> Parsed<u32> {
    text.parse().map_err(|_| "a whole number from 0 to 4294967295 is wanted".to_owned())
}

pub(super) fn seed(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(seed) if seed <= i64::MAX as u64 => Ok(seed),
        _ => Err(format!("a whole number from 0 to {} is wanted", i64::MAX)),
    }
}

pub(super) fn number(text: &str) -> Parsed<f64> {
    text.parse().map_err(|_| "a number, such as 0.05 or 5e-4, is wanted".to_owned())
}

fn list<T: FromStr>(text: &str) -> Parsed<List<T>> {
    if text == "none" {
        return Ok(List(Vec::new()));
    }
    let items: std::result::Result<Vec<T>, _> = text.split(',').map(|item| item.trim().parse()).collect();
    items.map(List).map_err(|_| "numbers with commas between them, or none, are wanted".to_owned())
}

fn triple(text: &str) -> Parsed<[f64; 3]> {
    let wanted = || "one number, or three with commas between them, is wanted".to_owned();
    match list::<f64>(text).map_err(|_| wanted())?.0[..] {
        [all] => Ok([all; 3]),
        [r, g, b] => Ok([r, g, b]),
        _ => Err(wanted()),
    }
}

pub(super) fn widths(text: &str) -> Parsed<[usize; 4]> {
    let wanted = || "four whole numbers with commas between them are wanted, such as 16,32,64,128".to_owned();
    list::<usize>(text).map_err(|_| wanted())?.0.try_into().map_err(|_| wanted())
}

/// A parser of one of `names`; clap then suggests near ones.
pub(super) fn choice<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// `command` with what the derive cannot say: defaults of the settings, taken from the demo preset, and numbers that may
/// begin with a minus, so that they reach the sentence about their range.
pub(super) fn with_defaults(command: clap::Command) -> Result<clap::Command> {
    let demo = serde_json::to_value(Config::from_preset(DEFAULT_PRESET)?)
        .map_err(|e| Error::Internal(format!("the demo preset does not serialise: {e}")))?;
    let with_default = |arg: clap::Arg| -> clap::Arg {
        let arg = match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        };
        let Some((key, _)) = SETTINGS.iter().find(|(_, flags)| flags.contains(&arg.get_long().unwrap_or("-"))) else {
            return arg;
        };
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        if *key == "preset" {
            return arg.long_help(format!("{help}\n\n[one of {}]", PRESETS.map(|(name, _)| name).join(", ")));
        }
        let value = match demo.pointer(&format!("/{}", key.replace('.', "/"))) {
            None | Some(serde_json::Value::Null) => "not set".to_owned(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(value) => value.to_string().replace(['{', '}', '[', ']', '"'], "").replace(':', " "),
        };
        arg.long_help(format!("{help}\n\n[{key}; demo: {value}]"))
    };
    Ok(command.mut_subcommands(|command| match command.get_name() {
        "train" | "distill" | "plan" => command.mut_args(with_default),
        _ => command.mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        }),
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::{Command, command, tests::parse};
    use super::*;

    fn config(words: &[&str]) -> Config {
        match parse(&[&["plan"], words].concat()).unwrap().command {
            Command::Plan(args) => args.config.resolve().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Every setting has its flags on `plan`, which carries all of them, and each says its key and default.
    #[test]
    fn every_setting_is_a_flag() {
        let command = command().unwrap();
        let plan = command.find_subcommand("plan").unwrap();
        for (key, flags) in SETTINGS {
            for flag in flags.iter().filter(|flag| **flag != "preset") {
                let arg = plan.get_arguments().find(|arg| arg.get_long() == Some(flag));
                let help = arg.unwrap_or_else(|| panic!("--{flag}")).get_long_help().unwrap().to_string();
                assert!(help.contains(&format!("[{key}; demo: ")), "--{flag}: {help}");
            }
        }
    }

    /// A flag for every setting at a value of its own: each must reach its own key and no other.
    #[test]
    fn every_flag_reaches_its_own_setting() {
        let base = config(&[]);
        for (flag, value, key) in [
            ("--data", "photos", "data.source"),
            ("--side", "30", "data.side"),
            ("--crop-padding", "1", "data.crop_padding"),
            ("--mean", "0.5", "data.mean"),
            ("--std", "0.1,0.2,0.3", "data.std"),
            ("--split-seed", "9", "data.split_seed"),
            ("--split-file", "split.txt", "data.split_file"),
            ("--widths", "1,2,3,4", "model.widths"),
            ("--projection", "9", "model.projection"),
            ("--dropout", "0.3", "model.dropout"),
            ("--drop-block-rate", "0.3", "model.drop_block.rate"),
            ("--drop-block-size", "3", "model.drop_block.size"),
            ("--drop-block-ramp-steps", "3", "model.drop_block.ramp_steps"),
            ("--method", "baseline", "method.kind"),
            ("--transforms", "affine-8", "method.transforms"),
            ("--gamma", "0.3", "method.gamma"),
            ("--tau", "0.3", "method.tau"),
            ("--negatives", "3", "method.negatives"),
            ("--bank-momentum", "0.3", "method.bank_momentum"),
            ("--batch", "3", "optimiser.batch"),
            ("--epochs", "3", "optimiser.length"),
            ("--steps", "3", "optimiser.length"),
            ("--lr", "0.3", "optimiser.lr"),
            ("--momentum", "0.3", "optimiser.momentum"),
            ("--weight-decay", "0.3", "optimiser.weight_decay"),
            ("--decay-at-epochs", "3,4", "optimiser.decay_at"),
            ("--decay-at-fractions", "0.3", "optimiser.decay_at"),
            ("--decay-at-steps", "3,4", "optimiser.decay_at"),
            ("--decay", "0.3", "optimiser.decay"),
            ("--seed", "3", "run.seed"),
            ("--out", "there", "run.out"),
            ("--checkpoint-every", "3", "run.checkpoint_every"),
            ("--log-every", "3", "run.log_every"),
            ("--slice-ms", "3", "run.slice_ms"),
            ("--micro-batch", "3", "run.micro_batch"),
            ("--recompute", "3", "run.recompute"),
            ("--activations", "f16", "run.activations"),
            ("--bn", "micro", "run.batch_norm"),
            ("--winograd", "off", "run.winograd"),
            ("--tune", "full", "run.tune"),
            ("--memory-budget", "4GiB", "run.memory_budget"),
            ("--on-device-lost", "resume", "run.on_device_lost"),
        ] {
            assert_eq!(config(&[flag, value]).differences(&base).unwrap(), [key], "{flag}");
        }
        for (flag, key) in [
            ("--no-cross-entropy", "method.cross_entropy"),
            ("--no-equivariance", "method.equivariance"),
            ("--no-invariance", "method.invariance"),
        ] {
            assert_eq!(config(&[flag]).differences(&base).unwrap(), [key], "{flag}");
            let back = flag.replace("--no-", "--");
            assert_eq!(config(&[flag, &back]).differences(&base).unwrap(), [""; 0], "{flag} {back}");
        }
        let conv4 = config(&["--backbone", "conv4"]);
        assert_eq!(conv4.differences(&base).unwrap(), ["model.backbone", "model.widths"]);
        assert_eq!(config(&["--decay-at-epochs", "none"]).optimiser.decay_at, DecayAt::Epochs(vec![]));
    }

    #[test]
    fn distillation_flags_reach_their_settings() {
        for (flag, key) in [
            ("--generations", "distill.generations"),
            ("--distill-temperature", "distill.temperature"),
            ("--weight-loss", "distill.weight_loss"),
            ("--weight-distill", "distill.weight_distill"),
            ("--kl-class", "distill.kl_class"),
            ("--kl-transform", "distill.kl_transform"),
            ("--mse-invariant", "distill.mse_invariant"),
            ("--mse-feature", "distill.mse_feature"),
        ] {
            let Command::Distill(args) = parse(&["distill", "--teacher", "t", flag, "7"]).unwrap().command else {
                panic!("not distill");
            };
            let mut config = Config::default();
            args.distill.apply(&mut config);
            assert_eq!(config.differences(&Config::default()).unwrap(), [key], "{flag}");
        }
    }
}
