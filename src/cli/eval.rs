//! `eval`.

use std::path::PathBuf;

use super::Context;
use super::args::{choice, count, number, seed};
use super::report::{percent, table};
use crate::Result;
use crate::fewshot::Classifier;
use crate::jobs::eval::{self, Episodes, EvalOutcome, EvalRequest, SplitFile};
use crate::jobs::score::meets;

const DATA: &str = "Data";
const EPISODES: &str = "Episodes";
const SCORE: &str = "Scoring";
/// The word for the published episodes in place of a file.
const OFFICIAL: &str = "official";

/// Score a checkpoint on few-shot episodes
///
/// Each episode draws some classes, learns a classifier from a few embedded images of each, and scores it on
/// others. The result is the mean over episodes with its 95 % interval.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu eval runs/omniglot --shots 1,5 --classifier lr,centroid")]
pub struct Args {
    /// Checkpoint or run folder
    ///
    /// Of a run folder the network that validated best (best.safetensors), or else the last one. The path of its
    /// checkpoint.safetensors means the last one. `shipped` is the network of the program's own that suits the pictures,
    /// `shipped:strokes` that for letters and signs; --data then names what it is scored on. A .pth of
    /// PyTorch's will do, too: `export --help` says how.
    checkpoint: PathBuf,
    /// Images to score on: glyphs, or a path
    ///
    /// Default: the data that the checkpoint was trained with.
    #[arg(long, value_name = "SRC", help_heading = DATA)]
    data: Option<String>,
    /// Split whose classes the episodes use
    ///
    /// train, val or novel; all: every class, whatever its split.
    #[arg(long, value_name = "NAME", default_value = "novel", help_heading = DATA)]
    split: String,
    /// File that lists the split's classes, or none
    ///
    /// Default: that of the run, so that no class which it trained on counts as novel.
    #[arg(long, value_name = "FILE", help_heading = DATA, value_parser = split_file, hide_short_help = true)]
    split_file: Option<SplitFile>,
    /// Classes per episode
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count, help_heading = EPISODES)]
    ways: usize,
    /// Labelled images per class, or a list
    ///
    /// A list gives a result for each.
    #[arg(long, value_name = "K,..", value_delimiter = ',', default_value = "1,5", value_parser = count,
        help_heading = EPISODES)]
    shots: Vec<usize>,
    /// Images to classify per class
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = count, help_heading = EPISODES,
        hide_short_help = true)]
    queries: usize,
    /// Episodes for each number of shots
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = count, help_heading = EPISODES)]
    n_episodes: usize,
    /// The published 600 (official), or those in a file
    ///
    /// official: the very episodes on which the method's authors score (5-way, 15 queries of a class; NumPy's legacy
    /// generator, seeded with 0 to 599), of a split in the files that they use: test.pickle of CIFAR-FS and FC100,
    /// miniImageNet_category_split_test.pickle, or test_images.npz with test_labels.pkl of tieredImageNet.
    ///
    /// A .safetensors file: tensors `1shot`, `5shot` and so on, of [episodes, ways, shots + queries] indices into the split
    /// (classes and files sorted by name), support first.
    #[arg(long, value_name = "official|FILE", help_heading = EPISODES, hide_short_help = true,
        conflicts_with_all = ["ways", "queries", "n_episodes", "seed"])]
    episodes: Option<PathBuf>,
    /// Score the official Omniglot 20-way one-shot runs
    ///
    /// The `oneshot` split of the same source: 20 runs, `class_labels.txt` in each.
    #[arg(long, help_heading = EPISODES, hide_short_help = true,
        conflicts_with_all = ["split", "split_file", "ways", "shots", "queries", "n_episodes", "episodes", "seed",
            "support_copies"])]
    oneshot: bool,
    /// Seed of the episodes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed, help_heading = EPISODES,
        hide_short_help = true)]
    seed: u64,
    /// lr, cosine, centroid or nn
    ///
    /// lr: multinomial logistic regression (L2, C = 1); cosine: nearest mean by cosine; centroid: nearest mean;
    /// nn: nearest neighbour.
    #[arg(long, value_name = "NAME,..", value_parser = choice::<Classifier>(Classifier::NAMES), value_delimiter = ',',
        default_value = "lr", help_heading = SCORE, hide_possible_values = true)]
    classifier: Vec<Classifier>,
    /// Copies of each support image, cropped and flipped
    ///
    /// 1, the default, uses the images as they are; 5 adds four cropped and flipped copies of each. With --episodes official
    /// the default is 5, and all five are cropped, flipped and changed in colour, as by the method's authors. Which
    /// crops, flips and colours those had no seed of theirs says; here they follow from the run's seed.
    #[arg(long, value_name = "N", value_parser = count, help_heading = SCORE, hide_short_help = true)]
    support_copies: Option<usize>,
    /// Score the initial network of the checkpoint's seed
    #[arg(long, help_heading = SCORE, hide_short_help = true)]
    untrained: bool,
    /// Exit 1 if accuracy is below PCT percent
    ///
    /// The first result counts: the first number of shots with the first classifier.
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = SCORE)]
    min_acc: Option<f64>,
}

/// A split file in place of a run's own; `none` leaves the split to the data.
pub(super) fn split_file(text: &str) -> std::result::Result<SplitFile, std::convert::Infallible> {
    Ok(if text == "none" { SplitFile::None } else { SplitFile::File(text.into()) })
}

/// Scores and prints the result.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { ways, shots, queries, n_episodes, seed, .. } = args;
    let episodes = match args.episodes {
        _ if args.oneshot => Episodes::OmniglotOneshot,
        Some(path) if path.as_os_str() == OFFICIAL => Episodes::Official { shots },
        Some(path) => Episodes::File { path, shots },
        None => Episodes::Drawn { ways, shots, queries, n_episodes, seed },
    };
    let usual = if matches!(episodes, Episodes::Official { .. }) { 5 } else { 1 };
    let request = EvalRequest {
        checkpoint: args.checkpoint,
        data: args.data,
        split: args.split,
        split_file: args.split_file.unwrap_or_default(),
        episodes,
        classifiers: args.classifier,
        support_copies: args.support_copies.unwrap_or(usual),
        untrained: args.untrained,
        min_acc: args.min_acc,
    };
    let outcome = context.with_progress(|progress| eval::run(&request, &context.session, progress))?;
    context.report.result("eval", &outcome, || text(&outcome, &request.episodes))?;
    meets(request.min_acc, &outcome.scores)
}

fn text(outcome: &EvalOutcome, episodes: &Episodes) -> String {
    let mut rows = Vec::new();
    for score in &outcome.scores {
        rows.push(vec![
            format!("{}-way {}-shot", score.ways, score.shots),
            score.classifier.clone(),
            percent(score),
            format!("{} episodes", score.episodes),
        ]);
    }
    let episodes = match episodes {
        Episodes::Drawn { seed, .. } => format!("episodes of seed {seed}"),
        Episodes::File { path, .. } => format!("episodes of {}", path.display()),
        Episodes::Official { .. } => match outcome.support_copies {
            1 => "the authors' episodes".into(),
            n => format!("the authors' episodes, {n} augmented copies of each support image"),
        },
        Episodes::OmniglotOneshot => "the official one-shot runs".into(),
    };
    format!(
        "{}{}: {} {}, {} classes, {} images; {episodes}; mean and 95 % interval\n{}",
        outcome.checkpoint.display(),
        if outcome.untrained { " (untrained)" } else { "" },
        outcome.data,
        outcome.split,
        outcome.classes,
        outcome.images,
        table(&rows)
    )
}
