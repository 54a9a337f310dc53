//! `bench`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use super::args::{choice, count, number};
use super::report::table;
use super::{Context, ranks};
use crate::Result;
use crate::bench::compare::Comparison;
use crate::bench::kernels::Check;
use crate::bench::{Ceilings, KernelResult, Options, Run, Spread, StepResult, cases};
use crate::jobs::Session;
use crate::jobs::bench::{self, BenchRequest};
use crate::jobs::link::{LinkOutcome, measure};
use crate::progress::Silent;
use crate::ranks::Ranks;
use crate::settings::{ByteSize, Config, Matrix, PRESETS, Tune, Winograd};

/// Preset whose step is measured unless another is named: the paper's network at 32 px.
const PRESET: &str = "cifar-fs";

const PARTS: &str = "Parts";
const STEP: &str = "Step";
const OUTPUT: &str = "Output";

/// Measure this device, every kernel and the training step
///
/// First the device's own ceilings: multiply-adds, memory, launches. Then every kernel of the step, compared with its CPU
/// twin at the timed size and with the ceiling that binds it; then the step, its phases, and the training loop with its
/// data. --kernels, --shapes and --step pick parts.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu bench --shapes conv:16x64x32x32:64:3 --samples 9 --json")]
pub struct Args {
    /// Only kernels whose name or shape contains TEXT
    ///
    /// Without the step, unless --step is given too. An empty TEXT means all.
    #[arg(long, value_name = "TEXT", help_heading = PARTS)]
    kernels: Option<String>,
    /// Kernels at conv:NxCxHxW:O:K or matmul:MxKxN instead
    ///
    /// conv: images x channels x height x width, output channels, side of the kernel and, after another colon, the
    /// stride; padded by half the kernel. matmul: rows x inner x columns. Each with its gradients.
    #[arg(long, value_name = "SHAPE,..", value_delimiter = ',', help_heading = PARTS)]
    shapes: Vec<String>,
    /// Only the whole step, its phases and the training loop
    #[arg(long, help_heading = PARTS)]
    step: bool,
    /// Only the link between the ranks of mpirun
    ///
    /// Latency and bandwidth of the all-reduces of a training step, and of the transfers between device and process. With
    /// --json the document that `plan --link` reads.
    #[arg(long, help_heading = PARTS, hide_short_help = true, conflicts_with_all = ["kernels", "shapes", "step",
        "check_only", "no_check", "preset", "side", "widths", "tune", "winograd", "matrix", "rows", "samples", "compare", "csv", "svg"])]
    link: bool,
    /// Compare the kernels with their twins and time nothing
    #[arg(long, help_heading = PARTS, conflicts_with_all = ["no_check", "compare", "svg"])]
    check_only: bool,
    /// Time without checking first
    #[arg(long, help_heading = PARTS, hide_short_help = true)]
    no_check: bool,
    /// Preset whose step is measured [default: cifar-fs]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS.map(|(name, _)| name)),
        help_heading = STEP, hide_possible_values = true)]
    preset: Option<String>,
    /// Image sides, pixels; one step each
    ///
    /// Without it: 32, and on a GPU 84 too.
    #[arg(long, value_name = "S,..", value_delimiter = ',', value_parser = count, help_heading = STEP)]
    side: Vec<usize>,
    /// Channels per block
    #[arg(long, value_name = "W,W,..", value_delimiter = ',', value_parser = count, help_heading = STEP,
        hide_short_help = true)]
    widths: Option<Vec<usize>>,
    /// Choice among kernels: auto, off, quick or full; see `train --help`
    #[arg(long, value_name = "EFFORT", value_parser = choice::<Tune>(Tune::NAMES), hide_possible_values = true,
        help_heading = STEP, hide_short_help = true)]
    tune: Option<Tune>,
    /// Winograd's convolution: auto, on or off; see `train --help`
    #[arg(long, value_name = "WHEN", value_parser = choice::<Winograd>(Winograd::NAMES), hide_possible_values = true,
        help_heading = STEP, hide_short_help = true)]
    winograd: Option<Winograd>,
    /// Products on matrix units: off, f16, f32x3 or auto; see `train --help`
    #[arg(long, value_name = "KIND", value_parser = choice::<Matrix>(Matrix::NAMES), hide_possible_values = true,
        help_heading = STEP, hide_short_help = true)]
    matrix: Option<Matrix>,
    /// Rows of a step: images times transforms, rounded up
    ///
    /// Without it: about half a second of the device's arithmetic, from 16 to 256.
    #[arg(long, value_name = "N", value_parser = count, help_heading = STEP, hide_short_help = true)]
    rows: Option<usize>,
    /// Samples per time; median, smallest and largest are shown
    ///
    /// Without it: 5, and 3 of a step that takes longer than a second.
    #[arg(long, value_name = "N", value_parser = count, help_heading = OUTPUT, hide_short_help = true)]
    samples: Option<usize>,
    /// Exit 1 where this run is slower than an earlier one
    ///
    /// FILE is what an earlier `bench --json` printed. A time has regressed if its median is slower by more than
    /// --threshold and the middle half of its samples lies above that of the earlier run.
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    compare: Option<PathBuf>,
    /// How much slower --compare lets a time be, percent
    #[arg(long, value_name = "PCT", default_value_t = 10.0, value_parser = number, help_heading = OUTPUT, hide_short_help = true)]
    threshold: f64,
    /// Table of the kernels to write
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    csv: Option<PathBuf>,
    /// Roofline picture to write
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    svg: Option<PathBuf>,
}

fn request(args: Args) -> Result<BenchRequest> {
    let mut config = Config::from_preset(args.preset.as_deref().unwrap_or(PRESET))?;
    config.model.widths = args.widths.unwrap_or(config.model.widths);
    config.run.tune = args.tune.unwrap_or(config.run.tune);
    config.run.winograd = args.winograd.unwrap_or(config.run.winograd);
    config.run.matrix = args.matrix.unwrap_or(config.run.matrix);
    let shapes = cases::parse_shapes(&args.shapes)?;
    // Without a named part, everything is measured.
    let kernels = args.kernels.is_some() || !shapes.is_empty();
    let options = Options {
        config,
        sides: args.side,
        rows: args.rows,
        kernels: kernels || !args.step,
        filter: args.kernels.unwrap_or_default(),
        step: args.step || !kernels,
        shapes,
        samples: args.samples,
        check: !args.no_check,
        time: !args.check_only,
    };
    Ok(BenchRequest { options, csv: args.csv, svg: args.svg, compare: args.compare, threshold: args.threshold })
}

/// Measures and prints; a kernel that is off or a regression makes the exit code 1.
pub fn run(args: Args, context: &Context) -> Result<()> {
    if args.link {
        return link(context);
    }
    let request = request(args)?;
    context.interruptible("stopping after this measurement; Ctrl-C again stops at once")?;
    let outcome = context.with_progress(|progress| bench::run(&request, &context.session, progress))?;
    context.report.result("bench", &outcome, || text(&outcome.run, outcome.comparison.as_ref()))?;
    outcome.write_files(&request)?;
    outcome.passed()
}

/// Measures the link between ranks; rank 0 prints.
fn link(context: &Context) -> Result<()> {
    let session = Session { ranks: ranks::join()?, ..context.session.clone() };
    if let Some(ranks) = session.ranks.as_ref().filter(|ranks| !ranks.leads()) {
        if let Err(error) = measure(&session, &mut Silent) {
            // Rank 0 says it, and ends all.
            ranks.fail(error);
        }
        return ranks.end();
    }
    let outcome = context.with_progress(|progress| measure(&session, progress))?;
    context.report.result("link", &outcome, || link_text(&outcome))?;
    session.ranks.as_ref().map_or(Ok(()), Ranks::end)
}

/// A measured link for people.
fn link_text(outcome: &LinkOutcome) -> String {
    let mut rows = vec![["all-reduce, bytes", "sent by each rank", "ms", "MB/s"].map(String::from).to_vec()];
    for it in &outcome.all_reduce {
        let speed = it.sent as f64 / it.seconds.max(1e-9) / 1e6;
        rows.push(vec![
            it.bytes.to_string(),
            it.sent.to_string(),
            format!("{:.2}", 1e3 * it.seconds),
            format!("{speed:.0}"),
        ]);
    }
    let [read, write] = outcome.device_bytes_per_second.map(|speed| speed / 1e6);
    format!(
        "{} ranks, {:.3} ms for an exchange of nothing, {:.0} MB/s out of a rank and as much into it; device: {read:.0} MB/s \
         read, {write:.0} MB/s written\n{}",
        outcome.ranks,
        1e3 * outcome.latency_s,
        outcome.bytes_per_second / 1e6,
        table(&rows)
    )
}

/// A run for people.
fn text(run: &Run, comparison: Option<&Comparison>) -> String {
    let mut out = format!("{} ({}, {})\n", run.device.name, run.device.backend, run.device.driver);
    if let Some(ceilings) = &run.ceilings {
        out += &ceilings_text(ceilings);
        let _ = writeln!(out, "kernels timed by {}; steps by the wall clock", run.clock);
    }
    if !run.kernels.is_empty() {
        let _ = write!(out, "\n{}\n", kernels_table(&run.kernels));
        let whole = run.kernels.iter().filter(|k| k.check.made && k.check.what == "all").count();
        let made = run.kernels.iter().filter(|k| k.check.made).count();
        let _ = writeln!(
            out,
            "{} kernels; {} agree with their CPU twins at this size ({whole} in all elements, {} in pieces), {} are \
             off, {} were not checked",
            run.kernels.len(),
            made - run.failed(),
            made - whole,
            run.failed(),
            run.kernels.len() - made
        );
    }
    for step in &run.steps {
        let _ = write!(out, "\n{}\n", step_text(step, run.ceilings.as_ref()));
    }
    if let Some(comparison) = comparison {
        let mut rows = vec![["", "slower", "before", "now", "what"].map(String::from).to_vec()];
        for change in &comparison.changes {
            rows.push(vec![
                if change.regressed { "REGRESSED" } else { "ok" }.into(),
                format!("{:+.1} %", change.slower_pct),
                seconds(change.before),
                seconds(change.now),
                change.what.clone(),
            ]);
        }
        let _ = write!(out, "\n{}\n", table(&rows));
    }
    out
}

fn ceilings_text(ceilings: &Ceilings) -> String {
    let memory = ceilings
        .bandwidth
        .iter()
        .map(|b| format!("{:.1} GB/s in {}", b.bytes_per_second / 1e9, ByteSize(b.working_set_bytes).rounded()));
    format!(
        "ceilings: {} ({}); memory {}; a launch {}, a round trip {}\n",
        rate(ceilings.flops_per_second),
        ceilings.flops_by,
        memory.collect::<Vec<_>>().join(", "),
        seconds(ceilings.launch_seconds),
        seconds(ceilings.round_trip_seconds)
    )
}

/// Operations per second in their unit.
fn rate(flops_per_second: f64) -> String {
    match flops_per_second {
        f if f >= 1e12 => format!("{:.2} TFLOP/s", f / 1e12),
        f => format!("{:.1} GFLOP/s", f / 1e9),
    }
}

/// A time in its unit.
fn seconds(t: f64) -> String {
    match t {
        t if t >= 1.0 => format!("{t:.2} s"),
        t if t >= 1e-3 => format!("{:.2} ms", 1e3 * t),
        t => format!("{:.1} us", 1e6 * t),
    }
}

/// Median, and least to most.
fn spread(s: &Spread) -> [String; 2] {
    [seconds(s.median), format!("{} to {}", seconds(s.min), seconds(s.max))]
}

/// The kernels that take most of the step first.
fn kernels_table(kernels: &[KernelResult]) -> String {
    let head = ["kernel", "in step", "by", "median", "spread", "speed", "share", "of", "twin", "shape"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let mut order: Vec<&KernelResult> = kernels.iter().collect();
    let cost = |k: &KernelResult| k.seconds.map_or(0.0, |s| -(k.count as f64) * s.median);
    order.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    for k in order {
        let [median, range] = k.seconds.as_ref().map_or_else(Default::default, spread);
        let speed = k.seconds.map_or(String::new(), |s| match k.flops {
            0 => format!("{:.2} GB/s", k.bytes as f64 / s.median / 1e9),
            flops => rate(flops as f64 / s.median),
        });
        rows.push(vec![
            k.name.clone(),
            format!("{}x", k.count),
            k.algorithm.clone(),
            median,
            range,
            speed,
            k.share.map_or(String::new(), |s| format!("{:.0} %", 100.0 * s)),
            k.bound.map_or("", |b| b.name()).into(),
            check_text(&k.check),
            k.shape.clone(),
        ]);
    }
    table(&rows)
}

fn check_text(check: &Check) -> String {
    let how = if check.what == "all" { "" } else { " part" };
    match (check.made, check.passed, check.error) {
        (false, ..) => "unchecked".into(),
        (true, true, Some(error)) => format!("ok {error:.0e}{how}"),
        (true, _, Some(error)) => format!("FAILED {error:.0e} > {:.0e}{how}", check.tolerance),
        (true, _, None) => format!("FAILED not finite{how}"),
    }
}

fn step_text(step: &StepResult, ceilings: Option<&Ceilings>) -> String {
    let widths: Vec<String> = step.widths.iter().map(usize::to_string).collect();
    let speed = step.flops as f64 / step.seconds.median;
    // Of what is executed: Winograd's algorithm has fewer products than the sums that it computes.
    let executed = if step.executed == 0 { step.flops } else { step.executed } as f64 / step.seconds.median;
    let share = |c: &Ceilings| {
        let percent = 100.0 * executed / c.flops_per_second;
        let which = if step.executed == step.flops { "" } else { " by what is executed" };
        format!(", {percent:.0} % of the arithmetic ceiling{which}")
    };
    let share = ceilings.filter(|_| !step.on_matrix_units).map_or(String::new(), share);
    let mut rows = Vec::new();
    for (name, time) in
        [("whole step", &step.seconds)].into_iter().chain(step.phases.iter().map(|(n, s)| (n.as_str(), s)))
    {
        let [median, range] = spread(time);
        let label = if name == "whole step" { name.to_owned() } else { format!("  {name}") };
        rows.push(vec![label, median, range]);
    }
    let images = &step.images_per_second;
    format!(
        "step of {}: widths {}, {} px, {} rows (batch {}), {} launches; {}{share}\n{}\ntraining loop with its data: \
         {:.2} images/s ({:.2} to {:.2}), {:.1} rows/s\n(phases are timed in passes of their own and do not add up to \
         the step)",
        step.preset,
        widths.join(","),
        step.side,
        step.rows,
        step.images,
        step.launches,
        rate(speed),
        table(&rows),
        images.median,
        images.min,
        images.max,
        images.median * step.rows as f64 / step.images as f64,
    )
}
