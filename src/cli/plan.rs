//! `plan`.

use super::Context;
use super::args::count;
use super::report::table;
use super::settings::{ConfigFlags, DistillFlags};
use crate::Result;
use crate::jobs::plan::{self, PlanOutcome, PlanRequest};
use crate::settings::ByteSize;

/// Show memory and operations of a configuration, without a GPU
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu plan --preset mini-imagenet --classes 64 --images 38400 --batch 8")]
pub struct Args {
    /// The configuration.
    #[command(flatten)]
    pub(super) config: ConfigFlags,
    /// Weights and temperature.
    #[command(flatten)]
    distill_flags: DistillFlags,
    /// Plan a step of distillation: teacher and student
    #[arg(long, help_heading = "Run")]
    distill: bool,
    /// Training classes, where the data is not at hand
    #[arg(long, value_name = "N", value_parser = count, requires = "images", help_heading = "Data")]
    classes: Option<usize>,
    /// Training images, where the data is not at hand
    #[arg(long, value_name = "N", value_parser = count, requires = "classes", help_heading = "Data")]
    images: Option<usize>,
}

/// Plans and prints.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let mut config = args.config.resolve()?;
    args.distill_flags.apply(&mut config)?;
    let outcome = plan::run(&PlanRequest { config, distill: args.distill, size: args.classes.zip(args.images) })?;
    context.report.result("plan", &outcome, || text(&outcome))
}

/// A plan for people.
pub fn text(plan: &PlanOutcome) -> String {
    let mut rows = vec![["", "layer", "op", "shape", "slot", "bytes"].map(String::from).to_vec()];
    for (i, entry) in plan.ops.iter().enumerate() {
        let shape: Vec<_> = entry.shape.iter().map(usize::to_string).collect();
        rows.push(vec![
            i.to_string(),
            entry.scope.clone(),
            entry.op.clone(),
            shape.join("x"),
            entry.slot.map_or_else(|| "kept".into(), |slot| slot.to_string()),
            entry.bytes.to_string(),
        ]);
    }
    let mut memory = vec![vec!["memory".to_string(), "bytes".into(), String::new()]];
    for (name, n) in plan.memory.classes().into_iter().chain([("peak", plan.peak_bytes)]) {
        memory.push(vec![name.into(), n.to_string(), ByteSize(n).rounded()]);
    }
    let passes = if plan.parts > 1 { format!(" in {} passes", plan.parts) } else { String::new() };
    let choices: String = plan.choices.iter().map(|choice| format!("\n{choice}")).collect();
    format!(
        "{}\n\n{}\n\n{} operations, {} rows{passes}, {} parameters, {:.2} G multiply-adds per step, peak {} at operation \
         {} ({}){choices}",
        table(&rows),
        table(&memory),
        plan.ops.len(),
        plan.rows,
        plan.parameters,
        plan.multiply_adds as f64 / 1e9,
        ByteSize(plan.peak_bytes).rounded(),
        plan.peak_node,
        plan.memory.peak_operation
    )
}
