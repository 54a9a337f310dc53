//! Words in, words out: [`args`] spells the flags, one file a command judges them and prints the result,
//! [`engine`] is where the work begins, [`report`] where every word leaves.

pub mod args;
pub mod bench;
pub mod check;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod engine;
pub mod eval;
pub mod interrupt;
pub mod plan;
pub mod report;
pub mod sentence;
pub mod settings;
pub mod train;
pub mod tuning;

use std::path::Path;

use clap::FromArgMatches;

use crate::{Error, Result};
use args::{Cli, Command};
use report::Report;

/// Runs the command line and returns the exit code: see [`Error::exit_code`].
pub fn run() -> u8 {
    let command = match args::command() {
        Ok(command) => command,
        Err(error) => return report::fail(&error),
    };
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match parsed {
        Ok(cli) => dispatch(cli),
        Err(words) => {
            // Help, version and mistakes in spelling; a reader that has gone away is no error.
            let _ = words.print();
            return u8::try_from(words.exit_code()).unwrap_or(2);
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => report::fail(&error),
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    let report = Report { json: cli.global.json, quiet: cli.global.quiet };
    let adapter = cli.global.adapter.as_deref().filter(|name| !name.is_empty());
    match cli.command {
        Command::Devices(_) => devices::run(adapter, report),
        Command::Train(args) => train::run(&args, adapter, report),
        Command::Distill(args) => distill::run(&args, adapter, report),
        Command::Eval(args) => eval::run(&args, adapter, report),
        Command::Embed(args) => embed::run(&args, adapter, report),
        Command::Plan(args) => plan::run(&args, report),
        Command::Check(args) => check::run(&args, adapter, report),
        Command::Bench(args) => bench::run(&args, adapter, report),
    }
}

/// Whether a training run is scored on the novel classes before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// It is not.
    Off,
    /// It is where the data has novel classes enough, and else says that it is not.
    WherePossible,
    /// It is, for a target is held against the score.
    Required,
}

impl Scoring {
    /// As `--no-eval` and `--min-acc` say.
    fn of(no_eval: bool, min_acc: Option<f64>) -> Scoring {
        match (no_eval, min_acc) {
            (true, _) => Scoring::Off,
            (false, None) => Scoring::WherePossible,
            (false, Some(_)) => Scoring::Required,
        }
    }
}

/// Judges a percentage given to `--min-acc`.
fn percentage(value: Option<f64>) -> Result<Option<f64>> {
    match value {
        Some(pct) if !(0.0..=100.0).contains(&pct) => {
            Err(Error::usage(format!("--min-acc must be from 0 to 100 percent, got {pct} (try 60)")))
        }
        other => Ok(other),
    }
}

/// Judges a number given to a flag that is no setting of a run.
fn within(flag: &str, n: usize, low: usize, high: usize) -> Result<usize> {
    if (low..=high).contains(&n) {
        return Ok(n);
    }
    Err(Error::usage(format!("--{flag} must be from {low} to {high}, got {n}")))
}

/// Whether two paths lead to the same file or folder.
fn same_path(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Judges the path of a file that `--flag` wants to be written, before the work that is to go in it.
fn output_file(flag: &str, path: &Path, example: &str) -> Result<()> {
    if path.file_name().is_none() {
        return Err(Error::usage(format!(
            "--{flag} wants the name of a file, got `{}` (try {example})",
            path.display()
        )));
    }
    if path.exists() && !path.is_file() {
        return Err(Error::data(
            path,
            format!("this is a folder or a device, and --{flag} wants to write a file: name another (try {example})"),
        ));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => {
            Err(Error::data(folder, format!("there is no such folder to write --{flag} in: create it first")))
        }
        None => Ok(()),
    }
}

/// The target of `--min-acc`, judged on a run's first score.
fn meets(target: Option<f64>, scores: &[engine::Score]) -> Result<()> {
    let Some(target) = target else { return Ok(()) };
    match scores.first() {
        Some(score) if score.accuracy_pct >= target => Ok(()),
        Some(score) => Err(Error::TargetMissed(format!(
            "{}-way {}-shot accuracy ({}) is {:.1} %, below --min-acc {target}",
            score.ways, score.shots, score.classifier, score.accuracy_pct
        ))),
        None => Err(Error::TargetMissed(format!("there is no score to hold against --min-acc {target}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_missed() {
        let score = |accuracy_pct| engine::Score {
            classifier: "lr".into(),
            ways: 5,
            shots: 1,
            queries: 15,
            episodes: 600,
            accuracy_pct,
            interval_pct: 0.8,
        };
        assert!(meets(Some(60.0), &[score(60.0)]).is_ok());
        assert!(meets(None, &[]).is_ok());
        for missed in [meets(Some(60.0), &[score(59.9)]), meets(Some(60.0), &[score(f64::NAN)]), meets(Some(1.0), &[])]
        {
            assert!(matches!(&missed, Err(e) if e.exit_code() == 1), "{missed:?}");
        }
        assert!(percentage(Some(f64::NAN)).is_err());
    }
}
