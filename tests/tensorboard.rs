//! The events of a run, read by TensorBoard's own reader where Python has it: named by IEQ_TENSORBOARD_PYTHON, or `python3`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says why it does not run")]

use std::process::Command;

use ieq_wgpu::train::metrics::Record;
use ieq_wgpu::train::tensorboard::EventLog;

fn record(step: u64) -> Record {
    Record {
        step,
        epoch: 0,
        lr: 0.05,
        losses: [("total".to_owned(), step as f32), ("ce".to_owned(), 0.5)].into(),
        accuracy: 0.5,
        images_per_second: 10.0,
        validation: None,
    }
}

/// Prints `TAG STEP:VALUE ...`, a line for each tag.
const READ: &str = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
for tag in sorted(events.Tags()['scalars']):
    print(tag, *(f'{e.step}:{e.value:g}' for e in events.Scalars(tag)))
";

/// A run that got to step 6 with its checkpoint at 4, continued to 8: no step stands twice.
#[test]
fn tensorboard_reads_a_continued_run() {
    let python = std::env::var("IEQ_TENSORBOARD_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "ignored: {python} has no tensorboard (pip install tensorboard; IEQ_TENSORBOARD_PYTHON names another)"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (resumed, steps) in [(None, 1..=6), (Some(4), 5..=8)] {
        let mut log = EventLog::open(folder.path(), resumed).unwrap();
        steps.for_each(|step| log.write(&record(step)).unwrap());
    }
    let output = Command::new(&python).args(["-c", READ]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let all = |value: &str| (1..=8).map(|step| format!(" {step}:{value}")).collect::<String>();
    let rising: String = (1..=8).map(|step| format!(" {step}:{step}")).collect();
    assert_eq!(
        lines,
        [
            format!("accuracy/train{}", all("50")),
            format!("epoch{}", all("0")),
            format!("images_per_second{}", all("10")),
            format!("loss/ce{}", all("0.5")),
            format!("loss/total{rising}"),
            format!("lr{}", all("0.05")),
        ]
    );
}
