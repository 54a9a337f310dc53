//! `ablate`.

use std::path::Path;

use super::report::{percent, shell_word, table};
use super::settings::ConfigFlags;
use super::{Context, interrupt, ranks};
use crate::Result;
use crate::jobs::ablate::{self, AblateOutcome, AblateRequest, VARIANTS};

/// Train the method with parts left out, and compare
///
/// The same run again and again, of which each leaves out losses, is taught by the whole one, or has other transforms; then
/// a table, a CSV file and a figure of their accuracies. All flags of train are those of every run: --epochs and --steps
/// give each as many steps, --rows as much arithmetic, --time as much time. The same command goes on after Ctrl-C, and
/// repeats no run that is finished.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu ablate --steps 200 --variants none,both,affine-4,affine-8 --out runs/ablation"
)]
pub struct Args {
    /// The configuration.
    #[command(flatten)]
    config: ConfigFlags,
    /// Runs of the table: none, invariance, rot4...
    ///
    /// Default: none,invariance,equivariance,both,distilled, in this order.
    ///
    /// none: the class loss alone, under the same transforms. invariance, equivariance: the class loss and that one. both:
    /// the whole method. distilled: a student of both. The name of a set of transforms, such as rot4 or affine-8: the whole
    /// method under those.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_values_t = VARIANTS.map(String::from),
        help_heading = "Run", hide_default_value = true)]
    variants: Vec<String>,
}

/// Trains what is not finished, and prints the table.
pub fn run(args: Args, context: &Context) -> Result<()> {
    ranks::refuse("ablate")?;
    let (config, given) = args.config.wish()?;
    let out = config.run.out.clone().unwrap_or_else(|| Path::new("runs").join("ablation"));
    let resume_command = format!("the same command with --out {}", shell_word(&out));
    let request = AblateRequest { config, given, variants: args.variants, out, resume_command };
    context.interruptible(interrupt::TRAINING)?;
    let outcome = context.with_progress(|progress| ablate::run(&request, &context.session, progress))?;
    context.report.result("ablate", &outcome, || text(&outcome))?;
    context.note("next: a network of the table answers with `ieq-wgpu eval FOLDER`, its folder beside the table");
    Ok(())
}

fn text(outcome: &AblateOutcome) -> String {
    let mut rows = Vec::new();
    if let Some(first) = outcome.rows.first() {
        let shots = first.scores.iter().map(|score| format!("{}-shot accuracy", score.shots));
        rows.push(["variant", "transforms", "steps"].map(String::from).into_iter().chain(shots).collect::<Vec<_>>());
    }
    for row in &outcome.rows {
        let words = [row.variant.clone(), row.transforms.to_string(), row.steps.to_string()];
        rows.push(words.into_iter().chain(row.scores.iter().map(percent)).collect());
    }
    format!(
        "{}\ntable in {}, numbers in {}, figure in {}",
        table(&rows),
        outcome.table.display(),
        outcome.csv.display(),
        outcome.figure.display()
    )
}
