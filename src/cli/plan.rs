//! `plan`.

use std::path::PathBuf;

use super::Context;
use super::args::{count, number};
use super::report::{duration, table};
use super::sentence::named;
use super::settings::{ConfigFlags, DistillFlags};
use crate::Result;
use crate::jobs::link::{Shared, Sharing};
use crate::jobs::plan::{self, Forecast, PlanOutcome, PlanRequest, PlannedPhase};
use crate::settings::ByteSize;

/// Show memory and operations of a configuration, without a GPU
///
/// With --time also what a run of that time comes to: widths, steps, passes over the images, and the accuracy to expect.
/// That opens the device, to measure steps, unless they were measured before.
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
    /// Plan a run that N ranks share
    ///
    /// What a rank sends and receives in a step, and with --link and --images-per-second how long that takes and how many
    /// times as fast the run is.
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Run", hide_short_help = true, conflicts_with = "distill")]
    ranks: Option<usize>,
    /// The measured link between ranks: what `bench --link --json` printed
    #[arg(long, value_name = "FILE", help_heading = "Run", hide_short_help = true, requires = "ranks")]
    link: Option<PathBuf>,
    /// Images per second of one process, as its log has them
    #[arg(long, value_name = "X", value_parser = number, help_heading = "Run", hide_short_help = true, requires = "link")]
    images_per_second: Option<f64>,
}

/// Plans and prints.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let (mut config, given) = args.config.wish()?;
    args.distill_flags.apply(&mut config)?;
    let anew = args.config.chosen_anew(&config, &given)?;
    let (distill, size) = (args.distill, args.classes.zip(args.images));
    let request = PlanRequest { config, given: Some(given), score: true, distill, size };
    let (link, images_per_second) = (args.link, args.images_per_second);
    let sharing = args.ranks.map(|ranks| Sharing { ranks, link, images_per_second });
    let outcome = context.with_progress(|progress| {
        anew.iter().for_each(|sentence| progress.note(sentence));
        plan::run_among(&request, sharing.as_ref(), &context.session, progress)
    })?;
    context.report.result("plan", &outcome, || text(&outcome))
}

/// What a run with a time comes to, for people.
fn forecast_text(forecast: &Forecast, plan: &PlanOutcome) -> String {
    let widths: Vec<_> = plan.config.model.widths.iter().map(usize::to_string).collect();
    let timing = forecast.timing;
    let how = if timing.measured_now { "measured now" } else { "measured before, and kept" };
    let mut text = format!(
        "in {}: widths {}, {} steps of {} rows, {:.1} passes over the images, {} rows in all; {:.*} ms a step ({how}), \
         which leaves {} for reading, planning and scoring",
        duration(timing.wanted_s),
        widths.join(","),
        forecast.steps,
        plan.rows,
        forecast.epochs,
        forecast.rows,
        usize::from(timing.step_s < 0.1),
        1e3 * timing.step_s,
        duration(timing.wanted_s - timing.training_s)
    );
    text += &match &forecast.expected {
        Some(expected) => {
            let ((low, high), (low_5, high_5)) = (expected.one_shot, expected.five_shot);
            let trust = &expected.trust;
            format!("\nexpected: 5-way 1-shot {low:.0} to {high:.0} %, 5-shot {low_5:.0} to {high_5:.0} %, {trust}")
        }
        None => "\nexpected: unknown, no run with these losses was kept".into(),
    };
    text
}

/// What a run among several ranks comes to, for people.
fn shared_text(shared: &Shared) -> String {
    let mut text = format!(
        "{} ranks: each computes {} of the micro-batches, has {} more on its device, keeps the pictures ({}) in memory, and \
         sends and receives {} in a step",
        shared.ranks,
        shared.parts_per_rank,
        ByteSize(shared.exchange_bytes).rounded(),
        ByteSize(shared.pictures_bytes).rounded(),
        ByteSize(shared.sent_bytes).rounded()
    );
    if let Some(seconds) = shared.exchange_s {
        text += &format!(", which takes {:.1} ms", 1e3 * seconds);
    }
    if let Some(seconds) = shared.overlapped_s.filter(|seconds| *seconds > 0.0) {
        text += &format!(", {:.1} of them while it computes", 1e3 * seconds);
    }
    if let Some((step, times)) = shared.step_s.zip(shared.speed_up) {
        text += &format!("; a step takes {:.1} ms, {times:.2} times as fast as one process", 1e3 * step);
    }
    text
}

/// The phases of a planned run, a line each.
fn phases_text(plan: &PlanOutcome) -> String {
    let line = |phase: &PlannedPhase| {
        format!(
            "\nfrom step {} on: {} rows of {} pixels a side, {:.2} G multiply-adds per step",
            phase.from,
            phase.rows,
            phase.side,
            phase.multiply_adds as f64 / 1e9
        )
    };
    plan.phases.iter().map(line).collect()
}

/// A plan for people.
pub fn text(plan: &PlanOutcome) -> String {
    let mut rows = vec![["", "layer", "op", "shape", "slot", "bytes"].map(String::from).to_vec()];
    for (i, entry) in plan.ops.iter().enumerate() {
        let shape: Vec<_> = entry.shape.iter().map(usize::to_string).collect();
        rows.push(vec![
            i.to_string(),
            entry.scope.clone(),
            entry.algorithm.map_or_else(|| entry.op.clone(), |how| format!("{} ({how})", entry.op)),
            shape.join("x"),
            entry.slot.map_or_else(|| "kept".into(), |slot| slot.to_string()),
            entry.bytes.to_string(),
        ]);
    }
    let mut memory = vec![vec!["memory".to_string(), "bytes".into(), String::new()]];
    for (name, n) in plan.memory.classes().into_iter().chain([("peak", plan.peak_bytes)]) {
        memory.push(vec![name.into(), n.to_string(), ByteSize(n).rounded()]);
    }
    let passes = if plan.parts > 1 { format!(" in {} micro-batches", plan.parts) } else { String::new() };
    let executed = match plan.executed_multiply_adds {
        n if n == plan.multiply_adds => String::new(),
        n => format!(" (executed as {:.2} G)", n as f64 / 1e9),
    };
    let one = plan.phases.len() == 1 && plan.config.method.scale == 1.0;
    let phases = if one { String::new() } else { phases_text(plan) };
    let mut choices: String = plan.choices.iter().map(|choice| format!("\n{choice}")).collect();
    choices.extend(plan.chosen.iter().map(|choice| format!("\n{}", named(&choice.to_string()))));
    choices.extend(plan.shared.as_ref().map(|shared| format!("\n{}", shared_text(shared))));
    choices.extend(plan.forecast.as_ref().map(|forecast| format!("\n\n{}", forecast_text(forecast, plan))));
    format!(
        "{}\n\n{}\n\n{} operations, {} rows{passes}, {} parameters, {:.2} G multiply-adds per step{executed}, peak {} at \
         operation {} ({}){phases}{choices}",
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
