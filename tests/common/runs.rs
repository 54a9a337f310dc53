//! Run folders that are to be the same.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

/// The bytes of a run's checkpoint.
pub fn checkpoint(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("checkpoint.safetensors")).unwrap()
}

/// The metric lines without the one field that may differ.
pub fn metrics(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        assert!(line.as_object_mut().unwrap().remove("images_per_second").is_some(), "{line}");
    }
    lines
}

/// Everything of the run in `got` that outlives it is as in `wanted`, and nothing else lies about.
pub fn assert_same_run(got: &Path, wanted: &Path, what: &str) {
    assert!(checkpoint(got) == checkpoint(wanted), "{what}: the checkpoints differ");
    assert_eq!(metrics(got), metrics(wanted), "{what}: the metrics differ");
    let mut names: Vec<_> = std::fs::read_dir(got).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let wanted = ["checkpoint.safetensors", "config.toml", "metrics.jsonl", "report.html", "report.json"];
    assert_eq!(names, wanted, "{what}");
}

/// Number of lines in a run's metric log.
pub fn steps_logged(folder: &Path) -> usize {
    std::fs::read(folder.join("metrics.jsonl")).map_or(0, |log| log.iter().filter(|&&byte| byte == b'\n').count())
}
