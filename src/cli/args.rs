//! The command line as words: flags and their help. No work and no judgement beyond spelling; ranges are
//! [`Config::validate`]'s business.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

pub use crate::fewshot::Classifier;
pub use crate::train::features::Layer;

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
const EPISODES: &str = "Episodes";
const SCORE: &str = "Scoring";
const OUTPUT: &str = "Output";
const PARTS: &str = "Parts";
const STEP: &str = "Step";
const EVERYWHERE: &str = "Everywhere";

/// Few-shot image embeddings, trained on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "ieq-wgpu",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
#[command(
    after_help = "Start here:\n  ieq-wgpu train                 a small run on embedded images, no files needed\n  \
    ieq-wgpu eval runs/demo        its accuracy on classes it has never seen\n\n\
    Exit: 0 done, 1 target missed or a number not finite, 2 bad input, 3 no usable GPU, 130 interrupted."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Adapter: number or part of the name
    ///
    /// As `ieq-wgpu devices` lists them; part of a name may be in any case. Also read from IEQ_ADAPTER.
    /// Default: the fastest kind there is, and a line on stderr says which.
    #[arg(long, global = true, value_name = "N|NAME", env = "IEQ_ADAPTER", hide_env = true, help_heading = EVERYWHERE)]
    pub adapter: Option<String>,
    /// One JSON document on stdout instead of text
    ///
    /// The document's fields are stable: new ones may come, none goes or changes its meaning.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// No progress and no notes; warnings and errors stay
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// -h: this screen; --help: all flags, defaults, an example
    #[arg(long, short, global = true, action = ArgAction::Help, help_heading = EVERYWHERE)]
    pub help: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List adapters with their limits and features
    Devices(DevicesArgs),
    /// Train an embedding
    ///
    /// A run is a preset, under a TOML file (--config), under flags; each setting below ends with its key in
    /// that file and its value in the demo preset. The effective configuration, the checkpoint and the metrics
    /// are saved in the run folder. Ctrl-C finishes the step, saves, and says how to resume.
    Train(Box<TrainArgs>),
    /// Train a student from a trained teacher
    ///
    /// The student starts from fresh weights and learns from its own losses and from the teacher's outputs on the
    /// same views. Its configuration is the teacher's, under --preset, --config and flags where given.
    Distill(Box<DistillArgs>),
    /// Score a checkpoint on few-shot episodes
    ///
    /// Each episode draws some classes, learns a classifier from a few embedded images of each, and scores it on
    /// others. The result is the mean over episodes with its 95 % interval.
    Eval(Box<EvalArgs>),
    /// Write the embeddings of images as .npy
    ///
    /// One row an image, in the order of the list that is written beside it.
    Embed(EmbedArgs),
    /// Show memory and operations of a configuration, without a GPU
    Plan(Box<PlanArgs>),
    /// Compare every shader with its CPU twin on this device
    ///
    /// Forward and backward, each against plain loops in double precision; exit 1 if one is off.
    Check(CheckArgs),
    /// Measure this device, every kernel and the training step
    ///
    /// First the device's own ceilings: multiply-adds, memory, launches. Then every kernel of the step, held against
    /// its CPU twin at the timed size and judged by the ceiling that binds it; then the step, its phases, and the
    /// training loop with its data. --kernels, --shapes and --step pick parts.
    Bench(BenchArgs),
}

/// Flags of `devices`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu devices --json")]
pub struct DevicesArgs {}

/// Flags of `train`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu train --preset omniglot --data omniglot28.zip --steps 400 --out runs/omniglot"
)]
pub struct TrainArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Continue the run in this folder
    ///
    /// Without a folder: the one that the other flags name. The run goes on bit for bit as if it had never
    /// stopped, so only what changes no number can change: --checkpoint-every, --log-every, --slice-ms,
    /// --recompute, --tune, --memory-budget and --on-device-lost.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, help_heading = RUN, conflicts_with = "overwrite")]
    pub resume: Option<Option<PathBuf>>,
    /// Replace the run that the folder holds
    #[arg(long, help_heading = RUN)]
    pub overwrite: bool,
    /// Exit 1 if 1-shot accuracy ends below PCT percent
    ///
    /// 5-way 1-shot accuracy on the novel classes by logistic regression, scored after the last step.
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = RUN, conflicts_with = "no_eval")]
    pub min_acc: Option<f64>,
    /// Skip scoring the novel classes before and after
    ///
    /// A data set with fewer than 5 novel classes of 20 images is not scored either.
    #[arg(long, help_heading = RUN)]
    pub no_eval: bool,
    /// Print the plan of a step, then train
    ///
    /// Every operation with its shape, slot and bytes, and the peak. `ieq-wgpu plan` prints the same
    /// without training.
    #[arg(long, help_heading = RUN)]
    pub explain_plan: bool,
}

/// Flags of `distill`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu distill --teacher runs/omniglot --generations 2 --out runs/omniglot-distilled"
)]
pub struct DistillArgs {
    /// Checkpoint or run folder of the teacher
    #[arg(long, value_name = "CHECKPOINT", help_heading = DISTILL)]
    pub teacher: PathBuf,
    /// Weights and temperature.
    #[command(flatten)]
    pub distill: DistillFlags,
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Continue the run in the folder
    ///
    /// With the same --teacher and --out: finished generations stay, the one that was stopped goes on bit for bit.
    /// Only what changes no number can change: --checkpoint-every, --log-every, --slice-ms, --recompute, --tune,
    /// --memory-budget and --on-device-lost.
    #[arg(long, help_heading = RUN, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace the run that the folder holds
    #[arg(long, help_heading = RUN)]
    pub overwrite: bool,
    /// Exit 1 if 1-shot accuracy ends below PCT percent
    ///
    /// 5-way 1-shot accuracy of the last generation on the novel classes, by logistic regression.
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = RUN, conflicts_with = "no_eval", hide_short_help = true)]
    pub min_acc: Option<f64>,
    /// Skip scoring the novel classes before and after
    #[arg(long, help_heading = RUN, hide_short_help = true)]
    pub no_eval: bool,
}

/// Flags of `eval`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu eval runs/omniglot --shots 1,5 --classifier lr,centroid")]
pub struct EvalArgs {
    /// Checkpoint or run folder
    pub checkpoint: PathBuf,
    /// Images to score on: glyphs, or a path
    ///
    /// Default: the data that the checkpoint was trained with.
    #[arg(long, value_name = "SRC", help_heading = DATA)]
    pub data: Option<String>,
    /// Split whose classes the episodes use
    #[arg(long, value_name = "NAME", default_value = "novel", help_heading = DATA)]
    pub split: String,
    /// File that lists the split's classes, or none
    ///
    /// Default: that of the run, so that no class which it trained on counts as novel.
    #[arg(long, value_name = "FILE", help_heading = DATA)]
    pub split_file: Option<SplitFile>,
    /// Classes an episode
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count, help_heading = EPISODES)]
    pub ways: usize,
    /// Labelled images a class; a list gives a result each
    #[arg(long, value_name = "K,..", value_delimiter = ',', default_value = "1,5", value_parser = count,
        help_heading = EPISODES)]
    pub shots: Vec<usize>,
    /// Images to classify a class
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = count, help_heading = EPISODES)]
    pub queries: usize,
    /// Episodes for each number of shots
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = count, help_heading = EPISODES)]
    pub n_episodes: usize,
    /// Read the episodes from a .safetensors file
    ///
    /// Tensors `1shot`, `5shot` and so on, of [episodes, ways, shots + queries] indices into the split
    /// (classes and files sorted by name), support first.
    #[arg(long, value_name = "FILE", help_heading = EPISODES, conflicts_with_all = ["ways", "queries", "n_episodes", "seed"])]
    pub episodes: Option<PathBuf>,
    /// Score the official Omniglot 20-way one-shot runs
    ///
    /// The `oneshot` split of the same source: 20 runs, `class_labels.txt` in each.
    #[arg(long, help_heading = EPISODES,
        conflicts_with_all = ["split", "split_file", "ways", "shots", "queries", "n_episodes", "episodes", "seed",
            "support_copies"])]
    pub oneshot: bool,
    /// Seed of the episodes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed, help_heading = EPISODES)]
    pub seed: u64,
    /// Classifiers to score
    ///
    /// lr: multinomial logistic regression (L2, C = 1); cosine: nearest mean by cosine; centroid: nearest mean;
    /// nn: nearest neighbour.
    #[arg(long, value_name = "NAME,..", value_parser = choice::<Classifier>(Classifier::NAMES), value_delimiter = ',',
        default_value = "lr", help_heading = SCORE)]
    pub classifier: Vec<Classifier>,
    /// Copies of each support image, cropped and flipped
    ///
    /// 1 uses the images as they are; 5 is the authors' evaluation.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, help_heading = SCORE)]
    pub support_copies: usize,
    /// Score the initial network of the checkpoint's seed
    #[arg(long, help_heading = SCORE)]
    pub untrained: bool,
    /// Exit 1 if accuracy is below PCT percent
    ///
    /// The first result counts: the first number of shots with the first classifier.
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = SCORE)]
    pub min_acc: Option<f64>,
}

/// Flags of `embed`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu embed runs/demo photos/ --out photos.npy")]
pub struct EmbedArgs {
    /// Checkpoint or run folder
    pub checkpoint: PathBuf,
    /// Images: folders, zip files, image files
    #[arg(value_name = "INPUT", required_unless_present = "data")]
    pub inputs: Vec<PathBuf>,
    /// Embed a data set's split instead of files
    #[arg(long, value_name = "SRC", conflicts_with = "inputs", help_heading = DATA)]
    pub data: Option<String>,
    /// Split of --data
    #[arg(long, value_name = "NAME", default_value = "novel", help_heading = DATA)]
    pub split: String,
    /// File that lists the split's classes, or none
    ///
    /// Default: that of the run.
    #[arg(long, value_name = "FILE", requires = "data", help_heading = DATA)]
    pub split_file: Option<SplitFile>,
    /// Array to write; the list goes beside it as .txt
    #[arg(long, short, value_name = "FILE", default_value = "embeddings.npy", help_heading = OUTPUT)]
    pub out: PathBuf,
    /// Which output of the network: the embedding, class logits, or (where trained) transform logits or the
    /// invariant embedding
    #[arg(long, value_parser = choice::<Layer>(Layer::NAMES), default_value_t = Layer::Feature, help_heading = OUTPUT)]
    pub layer: Layer,
    /// Scale every row to length 1
    #[arg(long, visible_alias = "normalize", help_heading = OUTPUT)]
    pub normalise: bool,
}

/// Flags of `plan`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu plan --preset mini-imagenet --classes 64 --images 38400 --batch 8")]
pub struct PlanArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigFlags,
    /// Weights and temperature.
    #[command(flatten)]
    pub distill_flags: DistillFlags,
    /// Plan a step of distillation: teacher and student
    #[arg(long, help_heading = DISTILL)]
    pub distill: bool,
    /// Training classes, where the data is not at hand
    #[arg(long, value_name = "N", value_parser = count, requires = "images", help_heading = DATA)]
    pub classes: Option<usize>,
    /// Training images, where the data is not at hand
    #[arg(long, value_name = "N", value_parser = count, requires = "classes", help_heading = DATA)]
    pub images: Option<usize>,
}

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu check --filter conv2d")]
pub struct CheckArgs {
    /// Only checks whose name contains TEXT
    #[arg(long, value_name = "TEXT", help_heading = RUN)]
    pub filter: Option<String>,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu bench --shapes conv:16x64x32x32:64:3 --samples 9 --json")]
pub struct BenchArgs {
    /// Only kernels whose name or shape contains TEXT
    ///
    /// Without the step, unless --step is given too. An empty TEXT means all.
    #[arg(long, value_name = "TEXT", help_heading = PARTS)]
    pub kernels: Option<String>,
    /// Kernels at your shapes instead: conv:NxCxHxW:O:K or matmul:MxKxN
    ///
    /// conv: images x channels x height x width, output channels, side of the kernel and, after another colon, the
    /// stride; padded by half the kernel. matmul: rows x inner x columns. Each with its gradients.
    #[arg(long, value_name = "SHAPE,..", value_delimiter = ',', help_heading = PARTS)]
    pub shapes: Vec<String>,
    /// Only the whole step, its phases and the training loop
    #[arg(long, help_heading = PARTS)]
    pub step: bool,
    /// Hold the kernels against their twins and time nothing
    #[arg(long, help_heading = PARTS, conflicts_with_all = ["no_check", "compare", "svg"])]
    pub check_only: bool,
    /// Time without checking first
    #[arg(long, help_heading = PARTS)]
    pub no_check: bool,
    /// Preset whose step is measured [default: cifar-fs]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS.map(|(name, _)| name)),
        help_heading = STEP, hide_possible_values = true)]
    pub preset: Option<String>,
    /// Image sides, pixels; a step each
    ///
    /// Without it: 32, and 84 as well where the adapter is no software.
    #[arg(long, value_name = "S,..", value_delimiter = ',', value_parser = count, help_heading = STEP)]
    pub side: Vec<usize>,
    /// Channels of the four blocks
    #[arg(long, value_name = "W,W,W,W", value_parser = widths, help_heading = STEP)]
    pub widths: Option<[usize; 4]>,
    /// Choice among kernels: auto, off, quick or full; see `train --help`
    #[arg(long, value_name = "EFFORT", value_parser = choice::<Tune>(Tune::NAMES), hide_possible_values = true)]
    pub tune: Option<Tune>,
    /// Winograd's convolution: auto, on or off; see `train --help`
    #[arg(long, value_name = "WHEN", value_parser = choice::<Winograd>(Winograd::NAMES), hide_possible_values = true)]
    pub winograd: Option<Winograd>,
    /// Rows of a step: images times transforms, rounded up
    ///
    /// Without it: about half a second of the device's arithmetic, from 16 to 256.
    #[arg(long, value_name = "N", value_parser = count, help_heading = STEP)]
    pub rows: Option<usize>,
    /// Measurements of each time; median, least and most are shown
    ///
    /// Without it: 5, and 3 of a step that takes longer than a second.
    #[arg(long, value_name = "N", value_parser = count, help_heading = RUN)]
    pub samples: Option<usize>,
    /// Exit 1 where this run is slower than an earlier one
    ///
    /// FILE is what an earlier `bench --json` printed. A time has regressed if its median is slower by more than
    /// --threshold and every sample is slower than all of the earlier run.
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    pub compare: Option<PathBuf>,
    /// How much slower --compare lets a time be, percent
    #[arg(long, value_name = "PCT", default_value_t = 10.0, value_parser = number, help_heading = RUN)]
    pub threshold: f64,
    /// Table of the kernels to write
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub csv: Option<PathBuf>,
    /// Roofline picture to write
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub svg: Option<PathBuf>,
}

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

/// A split file given in place of a run's own: `none` leaves the split to the data.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitFile(pub Option<PathBuf>);

impl FromStr for SplitFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(SplitFile((text != "none").then(|| text.into())))
    }
}

/// A list given as one word, `none` for the empty one.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

type Parsed<T> = std::result::Result<T, String>;

fn count(text: &str) -> Parsed<usize> {
    text.parse().map_err(|_| "a whole number, 0 or more, is wanted".to_owned())
}

fn count32(text: &str) -> Parsed<u32> {
    text.parse().map_err(|_| "a whole number from 0 to 4294967295 is wanted".to_owned())
}

fn seed(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(seed) if seed <= i64::MAX as u64 => Ok(seed),
        _ => Err(format!("a whole number from 0 to {} is wanted", i64::MAX)),
    }
}

fn number(text: &str) -> Parsed<f64> {
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

fn widths(text: &str) -> Parsed<[usize; 4]> {
    let wanted = || "four whole numbers with commas between them are wanted, such as 16,32,64,128".to_owned();
    list::<usize>(text).map_err(|_| wanted())?.0.try_into().map_err(|_| wanted())
}

/// A parser of one of `names`; clap then suggests near ones.
fn choice<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// The command line with what the derive cannot say: defaults of the settings, taken from the demo preset,
/// and numbers that may begin with a minus, so that they reach the sentence about their range.
pub fn command() -> Result<clap::Command> {
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
    Ok(Cli::command().mut_subcommands(|command| match command.get_name() {
        "train" | "distill" | "plan" => command.mut_args(with_default),
        _ => command.mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        }),
    }))
}

/// The checkpoint that `path` names: a file, or the one inside a run folder.
pub fn checkpoint_file(path: &Path) -> Result<PathBuf> {
    let file = if path.is_dir() { path.join(crate::settings::CHECKPOINT_FILE) } else { path.to_owned() };
    if file.is_file() {
        return Ok(file);
    }
    let message = match path.is_dir() {
        true => "this folder holds no checkpoint: name a run folder that `train` wrote, or a .safetensors file",
        false => "there is no such file: name a checkpoint (.safetensors) or a run folder that `train` wrote",
    };
    Err(Error::data(path, message))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> std::result::Result<Cli, clap::Error> {
        use clap::FromArgMatches;
        let matches = command().unwrap().try_get_matches_from([&["ieq-wgpu"], words].concat())?;
        Cli::from_arg_matches(&matches)
    }

    fn config(words: &[&str]) -> Config {
        match parse(&[&["train"], words].concat()).unwrap().command {
            Command::Train(args) => args.config.resolve().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        command().unwrap().debug_assert();
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

    #[test]
    fn resume_takes_a_folder_or_none() {
        for (words, want) in [
            (&["train"][..], None),
            (&["train", "--resume"], Some(None)),
            (&["train", "--resume", "runs/a"], Some(Some("runs/a"))),
            (&["train", "--resume", "--quiet"], Some(None)),
        ] {
            let Command::Train(args) = parse(words).unwrap().command else { panic!("not train") };
            assert_eq!(args.resume, want.map(|folder| folder.map(PathBuf::from)), "{words:?}");
        }
    }
}
