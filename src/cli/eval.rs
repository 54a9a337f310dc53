//! `eval`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Classifier, EvalArgs, SplitFile, checkpoint_file};
use super::engine::{self, EvalOutcome};
use super::report::{Report, table};
use super::{meets, percentage, within};
use crate::{Error, Result};

/// An evaluation with judged settings.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalJob {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// Source of the images; none: the checkpoint's own.
    pub data: Option<String>,
    /// The split's name.
    pub split: String,
    /// The split file in place of the run's own.
    pub split_file: Option<SplitFile>,
    /// Which episodes.
    pub episodes: Episodes,
    /// Classifiers, without repeats, in the order asked for.
    pub classifiers: Vec<Classifier>,
    /// Copies of each support image; 1 leaves them as they are.
    pub support_copies: usize,
    /// Score the initial network of the checkpoint's seed.
    pub untrained: bool,
}

/// Which episodes an evaluation is over.
#[derive(Clone, Debug, PartialEq)]
pub enum Episodes {
    /// Drawn by seed.
    Drawn {
        /// Classes an episode.
        ways: usize,
        /// Labelled images a class: a result each, without repeats.
        shots: Vec<usize>,
        /// Images to classify a class.
        queries: usize,
        /// Episodes for each number of shots.
        n_episodes: usize,
        /// Seed.
        seed: u64,
    },
    /// Read from a file.
    File {
        /// The .safetensors file.
        path: PathBuf,
        /// Which of its tensors, by number of shots.
        shots: Vec<usize>,
    },
    /// The official Omniglot 20-way one-shot runs of the `oneshot` split.
    OmniglotOneshot,
}

/// The items without repeats, in order.
fn distinct<T: PartialEq + Clone>(items: &[T]) -> Vec<T> {
    items.iter().enumerate().filter(|(i, item)| !items[..*i].contains(item)).map(|(_, item)| item.clone()).collect()
}

impl EvalJob {
    /// Judges the flags.
    pub fn new(args: &EvalArgs) -> Result<EvalJob> {
        percentage(args.min_acc)?;
        within("ways", args.ways, 2, 1000)?;
        for &shots in &args.shots {
            within("shots", shots, 1, 1000)?;
        }
        within("queries", args.queries, 1, 1000)?;
        within("n-episodes", args.n_episodes, 2, 1_000_000)?;
        within("support-copies", args.support_copies, 1, 100)?;
        if args.data.as_deref() == Some("") {
            return Err(Error::usage("--data is empty (try glyphs, or a folder)"));
        }
        let shots = distinct(&args.shots);
        let episodes = match &args.episodes {
            _ if args.oneshot => Episodes::OmniglotOneshot,
            Some(path) if !path.is_file() => {
                return Err(Error::data(path, "there is no such file: --episodes wants a .safetensors file"));
            }
            Some(path) => Episodes::File { path: path.clone(), shots },
            None => Episodes::Drawn {
                ways: args.ways,
                shots,
                queries: args.queries,
                n_episodes: args.n_episodes,
                seed: args.seed,
            },
        };
        Ok(EvalJob {
            checkpoint: checkpoint_file(&args.checkpoint)?,
            data: args.data.clone(),
            split: if args.oneshot { "oneshot".into() } else { args.split.clone() },
            split_file: args.split_file.clone(),
            episodes,
            classifiers: distinct(&args.classifier),
            support_copies: args.support_copies,
            untrained: args.untrained,
        })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    checkpoint: &'a Path,
    untrained: bool,
    seed: Option<u64>,
    support_copies: usize,
    #[serde(flatten)]
    outcome: &'a EvalOutcome,
}

/// Scores and prints the result.
pub fn run(args: &EvalArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = EvalJob::new(args)?;
    let mut live = report.live();
    let outcome = engine::eval(&job, adapter, &mut live);
    live.finish();
    let outcome = outcome?;
    let seed = match job.episodes {
        Episodes::Drawn { seed, .. } => Some(seed),
        _ => None,
    };
    let body = Body {
        checkpoint: &job.checkpoint,
        untrained: job.untrained,
        seed,
        support_copies: job.support_copies,
        outcome: &outcome,
    };
    report.result("eval", &body, || {
        let mut rows = Vec::new();
        for score in &outcome.scores {
            rows.push(vec![
                format!("{}-way {}-shot", score.ways, score.shots),
                score.classifier.clone(),
                format!("{:.1} ± {:.1} %", score.accuracy_pct, score.interval_pct),
                format!("{} episodes", score.episodes),
            ]);
        }
        let episodes = match &job.episodes {
            Episodes::Drawn { seed, .. } => format!("episodes of seed {seed}"),
            Episodes::File { path, .. } => format!("episodes of {}", path.display()),
            Episodes::OmniglotOneshot => "the official one-shot runs".into(),
        };
        format!(
            "{}{}: {} {}, {} classes, {} images; {episodes}; mean and 95 % interval\n{}",
            job.checkpoint.display(),
            if job.untrained { " (untrained)" } else { "" },
            outcome.data,
            outcome.split,
            outcome.classes,
            outcome.images,
            table(&rows)
        )
    })?;
    meets(args.min_acc, &outcome.scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_dropped_in_order() {
        assert_eq!(distinct(&[5, 1, 5, 1, 2]), [5, 1, 2]);
    }
}
