//! `audit`.

use std::path::PathBuf;

use super::Context;
use super::args::{choice, number};
use super::report::{shell_word, table};
use crate::Result;
use crate::jobs::audit::{self, AuditOutcome, AuditRequest, Finding, Kind, LABEL_RATIO, LIKENESS};
use crate::jobs::model::SHIPPED;

const CHECKS: &str = "What to look for";
const OUTPUT: &str = "Output";

/// Findings of a kind that the terminal shows.
const SHOWN: usize = 20;

/// Find wrong labels, copies and bad pictures in a folder
///
/// Nothing is changed or deleted. Found are: files that cannot be read; the same file or the same pixels twice; near
/// duplicates, also across classes and splits, which are among the 8 most similar pictures, by the network or at 8 x 8, and
/// alike pixel by pixel after a shift of up to two of 32; labels that another is far more likely than; outliers, far from all of their
/// class; pictures that are blurred (variance of the Laplacian), tiny (less than half of what the network takes) or blank.
///
/// A label is judged as in confident learning (cleanlab), by probabilities that were computed without it: a softmax of
/// cosines to the mean directions of the classes, its own class's without the picture. The label is the class folder, or in
/// a tar of webdataset's samples what .cls or .json says; without either labels are not looked at.
///
/// Exit: 0 done, whatever was found; with --fail-on-findings 1 where something was.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu audit photos/ --model runs/demo --csv audit.csv --sheet audit.png")]
pub struct Args {
    /// Class folders, split folders of these, pictures, or a zip or tar
    ///
    /// Also a folder of shards that `embed --shards` wrote: of embeddings alone unreadable files, copies with the
    /// same embedding, wrong labels and outliers are told.
    data: PathBuf,
    /// Checkpoint, run folder, or shipped
    ///
    /// The network; a checkpoint is a .safetensors or .pth file. shipped: one that comes with the program, chosen by the pictures.
    #[arg(long, value_name = "PATH", default_value = SHIPPED)]
    model: PathBuf,
    /// Only these findings, a list
    ///
    /// unreadable, duplicate, near-duplicate, label, outlier, blurred, tiny, blank.
    #[arg(long, value_name = "NAME,..", value_parser = choice::<Kind>(Kind::NAMES), value_delimiter = ',',
        help_heading = CHECKS, hide_possible_values = true)]
    only: Vec<Kind>,
    /// Least likeness of near duplicates
    ///
    /// From 0.5 to 1: the correlation of their gray levels at 32 x 32, smoothed, at the best shift.
    #[arg(long, value_name = "F", default_value_t = LIKENESS, value_parser = number, help_heading = CHECKS)]
    likeness: f64,
    /// Times that another label must be likelier
    ///
    /// How many times as likely as the given label. Lower finds more wrong labels, and more that are right.
    #[arg(long, value_name = "F", default_value_t = LABEL_RATIO, value_parser = number, help_heading = CHECKS)]
    label_ratio: f64,
    /// Write all findings as a table
    ///
    /// Columns: finding, path, other, score, reason.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    csv: Option<PathBuf>,
    /// Write a contact sheet (PNG) of what was found
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    sheet: Option<PathBuf>,
    /// Exit 1 where something was found
    #[arg(long, help_heading = OUTPUT)]
    fail_on_findings: bool,
}

/// Looks, and says what was found.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { data, model, only, likeness, label_ratio, csv, sheet, fail_on_findings } = args;
    let request = AuditRequest { data, model, only, likeness, label_ratio, csv, sheet, fail_on_findings };
    let outcome = context.with_progress(|progress| audit::run(&request, &context.session, progress))?;
    context.report.result("audit", &outcome, || text(&outcome))?;
    context.note(&next(&request, &outcome));
    if request.fail_on_findings { outcome.clean() } else { Ok(()) }
}

fn text(outcome: &AuditOutcome) -> String {
    let AuditOutcome { pictures, classes, findings, .. } = outcome;
    let counts: Vec<_> = outcome.counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let of = if *classes > 1 { format!(" of {classes} classes") } else { String::new() };
    let mut lines = vec![format!("{}: {pictures} pictures{of}; found: {}", outcome.data.display(), counts.join(", "))];
    let mut rows = Vec::new();
    for (kind, n) in &outcome.counts {
        let own = findings.iter().filter(|finding| finding.finding == *kind);
        rows.extend(own.take(SHOWN).map(row));
        if *n > SHOWN {
            rows.push(vec![kind.to_string(), format!("and {} more", n - SHOWN)]);
        }
    }
    lines.push(table(&rows));
    let made = [("all of them in", &outcome.csv), ("pictures in", &outcome.sheet)];
    let made = made.iter().filter_map(|(what, path)| Some(format!("{what} {}", path.as_ref()?.display())));
    lines.extend(made);
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

fn next(request: &AuditRequest, outcome: &AuditOutcome) -> String {
    let data = shell_word(&outcome.data);
    let model = shell_word(&request.model);
    if outcome.model.is_none() {
        return match outcome.findings.is_empty() {
            true => format!("next: `ieq-wgpu neighbors PICTURE --in {data}` finds the pictures most similar to one"),
            false => {
                "next: put right what is wrong with the pictures, then `ieq-wgpu embed --shards` embeds their shards \
                      anew"
                    .into()
            }
        };
    }
    match (outcome.findings.is_empty(), &outcome.csv) {
        (true, _) => format!("next: `ieq-wgpu train --data {data}`"),
        (false, None) => format!(
            "next: all findings as a table and as pictures with `ieq-wgpu audit {data} --model {model} --csv audit.csv --sheet audit.png`, and what else this call was given"
        ),
        (false, Some(_)) => format!("next: put right what is wrong, then `ieq-wgpu train --data {data}`"),
    }
}

fn row(finding: &Finding) -> Vec<String> {
    let other = finding.other.as_ref().map(|other| format!("see {}", other.display())).unwrap_or_default();
    vec![finding.finding.to_string(), finding.path.display().to_string(), finding.reason.clone(), other]
}
