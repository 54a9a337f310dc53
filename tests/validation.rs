//! A run that is validated: its training keeps its bits, the best network is kept beside the last one through a kill and
//! a resume, and patience ends a run for good. As a user does it: processes and files.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Stdio};

use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::metrics;
use serde_json::Value;

/// A run of a second or two.
const TINY: [&str; 15] = [
    "train",
    "--preset=demo",
    "--backbone=conv4",
    "--widths=4,4,4,8",
    "--projection=8",
    "--transforms=rot4",
    "--negatives=32",
    "--batch=4",
    "--steps=40",
    "--checkpoint-every=6",
    "--log-every=4",
    "--seed=3",
    "--no-eval",
    "--json",
    "--out",
];

/// Runs the words with the folder behind them: exit code, stdout, stderr.
fn ieq(words: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    let output = command.args(words).arg(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn done(words: &[&str], folder: &Path) -> (Value, String) {
    let (code, stdout, stderr) = ieq(words, folder);
    assert_eq!(code, Some(0), "{words:?}: {stderr}");
    (serde_json::from_str(&stdout).unwrap_or_default(), stderr)
}

fn with<'w>(more: &[&'w str]) -> Vec<&'w str> {
    let (out, words) = TINY.split_last().unwrap();
    [words, more, &[out]].concat()
}

fn load(folder: &Path, name: &str) -> Checkpoint {
    Checkpoint::load(folder.join(name)).unwrap()
}

const LAST: &str = "checkpoint.safetensors";
const BEST: &str = "best.safetensors";

#[test]
fn validation_changes_no_bit_of_the_training_and_the_best_survives_a_kill() {
    let folders = tempfile::tempdir().unwrap();
    let [plain, whole, killed] = ["plain", "whole", "killed"].map(|name| folders.path().join(name));
    done(&TINY, &plain);
    assert!(!plain.join(BEST).exists());
    let words = with(&["--validate-every=10"]);
    let (outcome, said) = done(&words, &whole);
    assert!(said.contains("validation after step 10: ") && said.contains("the best so far"), "{said}");
    assert_eq!(load(&plain, LAST).tensors, load(&whole, LAST).tensors);
    let scores: Vec<_> = metrics::read(&whole).unwrap().into_iter().filter_map(|line| line.validation).collect();
    assert_eq!(scores.iter().map(|score| score.step).collect::<Vec<_>>(), [10, 20, 30, 40]);
    let best = scores.iter().fold(scores[0], |a, &b| if b.mean_pct() > a.mean_pct() { b } else { a });
    assert_eq!(outcome["best"]["validation"]["step"], best.step);
    assert_eq!(load(&whole, BEST).metadata["step"], best.step.to_string());

    // Killed after a validation and before the checkpoint that holds it: it is made again.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    let mut child = child.args(&words).arg(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !killed.join(BEST).exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    done(&["train", "--no-eval", "--json", "--resume"], &killed);
    for name in [LAST, BEST] {
        assert!(std::fs::read(killed.join(name)).unwrap() == std::fs::read(whole.join(name)).unwrap(), "{name}");
    }

    // What takes a run folder takes the best.
    let (outcome, _) = done(&["eval", "--json", "--n-episodes=2"], &whole);
    assert!(outcome["checkpoint"].as_str().unwrap().ends_with(BEST), "{outcome}");
}

#[test]
fn patience_ends_a_run_that_gains_nothing_and_it_stays_ended() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Nothing moves at such a rate.
    let (outcome, said) = done(&with(&["--validate-every=4", "--patience=2", "--lr=0.000001"]), &run);
    assert_eq!(outcome["steps"], 12);
    assert!(outcome["ended"].as_str().unwrap().contains("2 validations in a row"), "{outcome}");
    assert!(said.contains("the run ended after step 12 of 40") && said.contains("run.patience"), "{said}");
    let before = std::fs::read(run.join(LAST)).unwrap();
    let (outcome, said) = done(&["train", "--no-eval", "--json", "--resume"], &run);
    assert!(outcome["steps"] == 12 && said.contains("the run ended after step 12 of 40"), "{outcome} {said}");
    assert!(std::fs::read(run.join(LAST)).unwrap() == before);
    let (outcome, _) = done(&["train", "--no-eval", "--json", "--patience=0", "--resume"], &run);
    assert_eq!((outcome["steps"].as_u64(), outcome["ended"].as_str()), (Some(40), None));
}
