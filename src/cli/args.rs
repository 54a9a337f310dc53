//! The command line as words: flags and their help. No work and no checks except spelling; ranges are
//! [`Config::validate`]'s business.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};

use super::settings::described;
pub use super::settings::{ConfigFlags, DistillFlags};

pub use crate::fewshot::Classifier;
pub use crate::train::features::Layer;

use crate::settings::{Config, DEFAULT_PRESET, PRESETS, Tune, Winograd};
use crate::{Error, Result};

const DATA: &str = "Data";
const DISTILL: &str = "Distillation";
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
    /// This screen; --help: all flags, defaults, an example
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
    /// One row per image, in the order of the list that is written beside it.
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
    /// Without a folder: the one that the other flags name. The run goes on bit for bit as if it had never stopped.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, help_heading = RUN, conflicts_with = "overwrite")]
    pub resume: Option<Option<PathBuf>>,
    /// Replace the run that the folder holds
    #[arg(long, help_heading = RUN)]
    pub overwrite: bool,
    /// Exit 1 if 1-shot accuracy ends below PCT percent
    ///
    /// 5-way 1-shot accuracy on the novel classes by logistic regression, scored after the last step.
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = RUN, conflicts_with = "no_eval", hide_short_help = true)]
    pub min_acc: Option<f64>,
    /// Skip scoring the novel classes before and after
    ///
    /// A data set with fewer than 5 novel classes of 20 images is not scored either.
    #[arg(long, help_heading = RUN, hide_short_help = true)]
    pub no_eval: bool,
    /// Print the plan of a step, then train
    ///
    /// Every operation with its shape, slot and bytes, and the peak. `ieq-wgpu plan` prints the same
    /// without training.
    #[arg(long, help_heading = RUN, hide_short_help = true)]
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
    /// Classes per episode
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count, help_heading = EPISODES)]
    pub ways: usize,
    /// Labelled images per class; a list gives a result each
    #[arg(long, value_name = "K,..", value_delimiter = ',', default_value = "1,5", value_parser = count,
        help_heading = EPISODES)]
    pub shots: Vec<usize>,
    /// Images to classify per class
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
    #[arg(long, value_name = "NAME,..", value_enum, value_delimiter = ',', default_value = "lr", help_heading = SCORE)]
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
    /// Which output of the network
    #[arg(long, value_enum, default_value_t = Layer::Feature, help_heading = OUTPUT)]
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
    /// Image sides, pixels; one step per side
    ///
    /// Without it: 32, and 84 as well where the adapter is no software.
    #[arg(long, value_name = "S,..", value_delimiter = ',', value_parser = count, help_heading = STEP)]
    pub side: Vec<usize>,
    /// Channels per block
    #[arg(long, value_name = "W,W,..", value_delimiter = ',', value_parser = count, help_heading = STEP)]
    pub widths: Option<Vec<usize>>,
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

/// A split file given in place of a run's own: `none` leaves the split to the data.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitFile(pub Option<PathBuf>);

impl FromStr for SplitFile {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(SplitFile((text != "none").then(|| text.into())))
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn count(text: &str) -> Parsed<usize> {
    text.parse().map_err(|_| "a whole number, 0 or more, is wanted".to_owned())
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

/// A parser of one of `names`; clap then suggests near ones.
fn choice<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// The command line with what the derive cannot say: defaults of the settings, taken from the demo preset, what a
/// resumed run may change, and numbers that may begin with a minus, so that they reach the sentence about their range.
pub fn command() -> Result<clap::Command> {
    let demo = Config::from_preset(DEFAULT_PRESET)?;
    let with_numbers = |arg: clap::Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    Ok(Cli::command().mut_subcommands(|command| match command.get_name() {
        "train" | "distill" | "plan" => command.mut_args(|arg| described(with_numbers(arg), &demo)),
        _ => command.mut_args(with_numbers),
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
