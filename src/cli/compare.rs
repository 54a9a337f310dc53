//! `compare`.

use std::path::PathBuf;

use super::Context;
use super::report::{duration, percent, shell_word, table};
use crate::Result;
use crate::jobs::compare::{self, CompareOutcome, CompareRequest};

/// Compare runs: accuracy, speed, settings that differ
///
/// Accuracies are those on novel classes at the end of each run, with half of their 95 % intervals: two runs whose intervals
/// overlap may well be equally good.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu compare runs/a runs/b --svg runs.svg")]
pub struct Args {
    /// Run folders, two or more
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Draw losses and accuracies over the steps
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Compares and prints.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let request = CompareRequest { runs: args.runs, svg: args.svg };
    let outcome = context.with_progress(|progress| compare::run(&request, &context.session, progress))?;
    context.report.result("compare", &outcome, || text(&outcome))
}

fn text(outcome: &CompareOutcome) -> String {
    let mut scored: Vec<(usize, usize, &str)> = Vec::new();
    for score in outcome.runs.iter().flat_map(|run| &run.scores) {
        let kind = (score.ways, score.shots, score.classifier.as_str());
        if !scored.contains(&kind) {
            scored.push(kind);
        }
    }
    let mut head = vec!["run".to_owned()];
    head.extend(scored.iter().map(|(ways, shots, classifier)| format!("{ways}-way {shots}-shot ({classifier})")));
    head.extend(["best validation", "loss", "steps", "images/s", "time"].map(String::from));
    let mut rows = vec![head];
    for run in &outcome.runs {
        let mut row = vec![run.run.display().to_string()];
        for (ways, shots, classifier) in &scored {
            let own = |score: &&crate::jobs::score::Score| {
                (score.ways, score.shots, score.classifier.as_str()) == (*ways, *shots, *classifier)
            };
            row.push(run.scores.iter().find(own).map_or("-".into(), percent));
        }
        let best = |best: crate::train::validation::Validated| {
            format!("{:.1} ± {:.1} % (step {})", best.mean_pct(), best.interval_pct, best.step)
        };
        row.push(run.best.map_or("-".into(), best));
        row.push(run.loss.map_or("-".into(), |loss| format!("{loss:.4}")));
        row.push(run.steps.to_string());
        row.push(run.images_per_second.map_or("-".into(), |rate| format!("{rate:.1}")));
        row.push(run.seconds.map_or("-".into(), duration));
        rows.push(row);
    }
    let mut text = table(&rows);
    if outcome.differing.is_empty() {
        text += "\n\nall settings are the same";
    } else {
        let mut head = vec!["setting".to_owned()];
        head.extend(outcome.runs.iter().map(|run| run.run.display().to_string()));
        let mut rows = vec![head];
        for (key, values) in &outcome.differing {
            rows.push([std::slice::from_ref(key), values.as_slice()].concat());
        }
        text += &format!("\n\n{}", table(&rows));
    }
    if let Some(svg) = &outcome.svg {
        text += &format!("\n\ncurves in {}", shell_word(svg));
    }
    text
}
