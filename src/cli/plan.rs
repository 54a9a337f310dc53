//! `plan`.

use super::args::PlanArgs;
use super::engine::{self, PlanOutcome};
use super::report::{Report, bytes, table};
use super::within;
use crate::Result;
use crate::settings::Config;

/// A plan to make, with judged settings.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanJob {
    /// The settings.
    pub config: Config,
    /// Plan a step of distillation: teacher and student.
    pub distill: bool,
    /// Training classes and images; none: as the data has them.
    pub size: Option<(usize, usize)>,
}

impl PlanJob {
    /// Judges the flags.
    pub fn new(args: &PlanArgs) -> Result<PlanJob> {
        let mut config = args.config.resolve()?;
        args.distill_flags.apply(&mut config)?;
        config.validate()?;
        let size = match (args.classes, args.images) {
            (Some(classes), Some(images)) => {
                Some((within("classes", classes, 2, 1_000_000)?, within("images", images, 1, 100_000_000)?))
            }
            _ => None,
        };
        Ok(PlanJob { config, distill: args.distill, size })
    }
}

/// Plans and prints.
pub fn run(args: &PlanArgs, report: Report) -> Result<()> {
    let job = PlanJob::new(args)?;
    let outcome = engine::plan(&job)?;
    report.result("plan", &outcome, || plan_text(&outcome))
}

/// A plan for people.
pub fn plan_text(plan: &PlanOutcome) -> String {
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
        memory.push(vec![name.into(), n.to_string(), bytes(n)]);
    }
    let passes = if plan.parts > 1 { format!(" in {} passes", plan.parts) } else { String::new() };
    let choices: String = plan.choices.iter().map(|choice| format!("\n{choice}")).collect();
    format!(
        "{}\n\n{}\n\n{} operations, {} rows{passes}, {} parameters, {:.2} G multiply-adds a step, peak {} at operation {} ({}){choices}",
        table(&rows),
        table(&memory),
        plan.ops.len(),
        plan.rows,
        plan.parameters,
        plan.multiply_adds as f64 / 1e9,
        bytes(plan.peak_bytes),
        plan.peak_node,
        plan.memory.peak_operation
    )
}
