//! `bench`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::args::BenchArgs;
use super::engine;
use super::report::{Report, bytes, table};
use super::{interrupt, output_file, within};
use crate::bench::compare::{self, Comparison};
use crate::bench::kernels::Check;
use crate::bench::{Ceilings, KernelResult, Options, Run, Spread, StepResult, cases, picture, table::csv};
use crate::files::replace_file;
use crate::progress::Progress;
use crate::settings::Config;
use crate::{Error, Result};

/// Preset whose step is measured unless another is named: the paper's network at 32 px.
const PRESET: &str = "cifar-fs";

/// What to measure and where to leave it, with judged settings.
#[derive(Clone, Debug)]
pub struct BenchJob {
    /// What is measured.
    pub options: Options,
    /// Where the kernels' table goes.
    pub csv: Option<PathBuf>,
    /// Where the picture goes.
    pub svg: Option<PathBuf>,
    /// An earlier run to hold this one against, and the threshold, percent.
    pub compare: Option<(Run, f64)>,
}

impl BenchJob {
    /// Judges the flags, and reads the earlier run.
    pub fn new(args: &BenchArgs) -> Result<BenchJob> {
        let mut config = Config::from_preset(args.preset.as_deref().unwrap_or(PRESET))?;
        if let Some(widths) = args.widths {
            config.model.widths = widths;
        }
        config.run.tune = args.tune.unwrap_or(config.run.tune);
        config.run.winograd = args.winograd.unwrap_or(config.run.winograd);
        config.validate()?;
        for &side in &args.side {
            config.check_side(side)?;
        }
        let rows = args.rows.map(|rows| within("rows", rows, 2, 65_536)).transpose()?;
        let shapes = cases::parse_shapes(&args.shapes)?;
        // Whoever names a part wants that part; whoever names none wants everything.
        let kernels = args.kernels.is_some() || !shapes.is_empty();
        let options = Options {
            config,
            sides: args.side.clone(),
            rows,
            kernels: kernels || !args.step,
            filter: args.kernels.clone().unwrap_or_default(),
            step: args.step || !kernels,
            shapes,
            samples: args.samples.map(|samples| within("samples", samples, 3, 1000)).transpose()?,
            check: !args.no_check,
            time: !args.check_only,
        };
        if options.check && !options.time && !options.kernels {
            return Err(Error::usage("--check-only checks kernels, and --step alone has none: leave one of them out"));
        }
        let threshold = args.threshold;
        if !(0.0..=1000.0).contains(&threshold) {
            return Err(Error::usage(format!("--threshold must be from 0 to 1000 percent, got {threshold} (try 10)")));
        }
        for (flag, path, example) in [("csv", &args.csv, "kernels.csv"), ("svg", &args.svg, "roofline.svg")] {
            path.as_deref().map_or(Ok(()), |path| output_file(flag, path, example))?;
        }
        let before = args.compare.as_deref().map(compare::read).transpose()?;
        let compare = before.map(|run| (run, threshold));
        Ok(BenchJob { options, csv: args.csv.clone(), svg: args.svg.clone(), compare })
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    run: &'a Run,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Comparison>,
}

/// Measures and prints; a kernel that is off or a regression makes the exit code 1.
pub fn run(args: &BenchArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = BenchJob::new(args)?;
    interrupt::install("stopping after this measurement; Ctrl-C again stops at once")?;
    let mut live = report.live();
    let run = engine::bench(&job, adapter, &mut live);
    live.finish();
    let run = run?;
    let comparison = match &job.compare {
        Some((before, threshold)) => Some(compare::compare(before, &run, *threshold)?),
        None => None,
    };
    if comparison.as_ref().is_some_and(|c| !c.same_device) {
        live.warn("--compare: the earlier run is of another adapter or driver");
    }
    let body = Body { run: &run, comparison: comparison.as_ref() };
    report.result("bench", &body, || text(&run, comparison.as_ref()))?;
    if let Some(path) = &job.csv {
        replace_file(path, "cannot write the table", &csv(&run)?)?;
    }
    if let Some(path) = &job.svg {
        let svg = picture::draw(&run).ok_or_else(|| Error::Internal("a run with times has no picture".into()))?;
        replace_file(path, "cannot write the picture", svg.as_bytes())?;
    }
    if run.failed() > 0 {
        return Err(Error::TargetMissed(format!(
            "{} of {} kernels are off on this device and were not timed: please report them with \
             `ieq-wgpu bench --check-only --json`",
            run.failed(),
            run.kernels.len()
        )));
    }
    match comparison {
        Some(c) if c.regressed > 0 => Err(Error::TargetMissed(format!(
            "{} of {} times are more than {} % slower than in the earlier run",
            c.regressed,
            c.changes.len(),
            c.threshold_pct
        ))),
        _ => Ok(()),
    }
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
        .map(|b| format!("{:.1} GB/s in {}", b.bytes_per_second / 1e9, bytes(b.working_set_bytes)));
    format!(
        "ceilings: {} ({}); memory {}; a launch {}, a round trip {}\n",
        rate(ceilings.flops_per_second),
        ceilings.flops_by,
        memory.collect::<Vec<_>>().join(", "),
        seconds(ceilings.launch_seconds),
        seconds(ceilings.round_trip_seconds)
    )
}

/// Operations a second in their unit.
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
    let head = ["kernel", "in step", "median", "spread", "speed", "share", "of", "twin", "shape"];
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
    let share = ceilings
        .map_or(String::new(), |c| format!(", {:.0} % of the arithmetic ceiling", 100.0 * speed / c.flops_per_second));
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
