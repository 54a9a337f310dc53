//! A run that was killed or interrupted and then resumed ends in the bits of one that never stopped; so does a
//! run that is started twice. All of it as a user does it: processes, signals and files.

#![cfg(unix)]
#![allow(clippy::print_stderr, reason = "a test says where it killed")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/runs.rs"]
mod runs;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ieq_wgpu::random::{Rng, Stream};
use runs::{assert_same_run, checkpoint, metrics, steps_logged};
use tempfile::TempDir;

/// A run of a second or two with everything in it that has state: momentum, running statistics, bank, order.
const TINY: [&str; 16] = [
    "train",
    "--preset=demo",
    "--data=glyphs",
    "--backbone=conv4",
    "--widths=4,4,4,4",
    "--projection=8",
    "--transforms=rot4",
    "--negatives=32",
    "--batch=4",
    "--steps=60",
    "--checkpoint-every=5",
    "--log-every=1",
    "--seed=3",
    "--no-eval",
    "--quiet",
    "--out",
];
/// Seed of the moments of death; another one may be given, to repeat a failure or to look for one.
const SEED_VARIABLE: &str = "IEQ_KILL_SEED";

fn ieq(words: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    command.args(words).arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {stderr}");
    output
}

/// The words of a run with some settings changed; `--out` stays last.
fn with<'w>(words: &[&'w str], changes: &[&'w str]) -> Vec<&'w str> {
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let kept = words.iter().filter(|word| !changes.iter().any(|change| key(change) == key(word)));
    let (mut words, out): (Vec<_>, Vec<_>) = kept.partition(|word| **word != "--out");
    words.extend(changes);
    words.extend(out);
    words
}

/// Waits until `ready`, or until the process has ended by itself.
fn wait_until(child: &mut Child, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the run does not get on");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A temporary file, as it stands in the folder while a checkpoint is being written.
fn writing(folder: &Path) -> bool {
    let hidden = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(".writing-"))
    };
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(hidden))
}

/// SIGKILL; whether the process was still there to be killed.
fn kill(mut child: Child) -> bool {
    child.kill().unwrap();
    child.wait().unwrap().signal() == Some(9)
}

fn rng(test: u32) -> Rng {
    let seed = std::env::var(SEED_VARIABLE).ok().map_or(1, |text| text.parse().unwrap());
    eprintln!("{SEED_VARIABLE}={seed}");
    Rng::new(seed, Stream::Order, 0, test)
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.next_bits() as usize % bound
}

/// Runs `words` in `folder`, and kills the run at a random moment after `steps` steps; whether it was still going.
fn run_and_kill(words: &[&str], folder: &Path, steps: usize, rng: &mut Rng) -> bool {
    let mut child = ieq(words, folder).spawn().unwrap();
    wait_until(&mut child, || steps_logged(folder) > 0);
    let begun = Instant::now();
    wait_until(&mut child, || steps_logged(folder) >= steps);
    // Anywhere in the two steps that follow.
    let step = begun.elapsed() / steps as u32;
    std::thread::sleep(2 * step * below(rng, 1000) as u32 / 1000);
    kill(child)
}

#[test]
fn a_killed_run_ends_in_the_bits_of_one_that_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    finish(ieq(&TINY, &whole));
    let mut rng = rng(0);
    let mut killed = 0;
    for attempt in 0..10 {
        let out = folder.path().join(format!("killed-{attempt}"));
        let steps = if attempt == 0 { 25 } else { 6 + below(&mut rng, 52) };
        let in_time = run_and_kill(&TINY, &out, steps, &mut rng);
        killed += usize::from(in_time);
        eprintln!("attempt {attempt}: killed after step {} of 60, in time: {in_time}", steps_logged(&out));
        finish(ieq(&["train", "--no-eval", "--quiet", "--resume"], &out));
        assert_same_run(&out, &whole, &format!("attempt {attempt}, killed after step {steps}"));
    }
    assert!(killed >= 5, "only {killed} of 10 runs were still going when they were to be killed");
}

/// Everything that an optimiser can have, with state of its own or that depends on the step.
const OPTIMISER: [&str; 7] = [
    "--nesterov",
    "--schedule=cosine",
    "--warmup=0.1",
    "--clip-norm=2",
    "--average=0.9",
    "--no-decay-norm",
    "--label-smoothing=0.1",
];

#[test]
fn a_killed_run_with_every_option_of_the_optimiser_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = rng(4);
    for (what, more) in [("batches", &[][..]), ("micro-batches", &["--micro-batch=2", "--bn=micro"])] {
        let words = with(&TINY, &[&OPTIMISER[..], more].concat());
        let whole = folder.path().join(format!("whole {what}"));
        finish(ieq(&words, &whole));
        assert!(metrics(&whole)[0]["losses"]["grad_norm"].as_f64().unwrap() > 0.0);
        for attempt in 0..3 {
            let out = folder.path().join(format!("killed {what} {attempt}"));
            let steps = 6 + below(&mut rng, 40);
            let in_time = run_and_kill(&words, &out, steps, &mut rng);
            eprintln!("{what}: killed after step {} of 60, in time: {in_time}", steps_logged(&out));
            finish(ieq(&["train", "--no-eval", "--quiet", "--resume"], &out));
            assert_same_run(&out, &whole, &format!("{what}, killed after step {steps}"));
        }
    }
}

/// A checkpoint after every step, and death while one is being written, again and again in the same run.
#[test]
fn a_run_killed_while_it_saves_keeps_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let words = with(&TINY, &["--checkpoint-every=1", "--steps=30"]);
    let (whole, out) = (folder.path().join("whole"), folder.path().join("killed"));
    finish(ieq(&words, &whole));
    let mut rng = rng(1);
    let mut halves = 0;
    for attempt in 0..6 {
        let words = if attempt == 0 { &words } else { &vec!["train", "--no-eval", "--quiet", "--resume"] };
        let from = steps_logged(&out);
        let mut child = ieq(words, &out).spawn().unwrap();
        let wanted = from + 2 + below(&mut rng, 3);
        wait_until(&mut child, || steps_logged(&out) >= wanted);
        // Looked for without a pause: the file is there for a few milliseconds of each step.
        let begun = Instant::now();
        while !writing(&out) && begun.elapsed() < Duration::from_secs(5) && child.try_wait().unwrap().is_none() {}
        kill(child);
        halves += usize::from(writing(&out));
        eprintln!("attempt {attempt}: killed after step {}, half a file left: {}", steps_logged(&out), writing(&out));
        ieq_wgpu::train::checkpoint::Checkpoint::load(out.join("checkpoint.safetensors")).unwrap();
    }
    eprintln!("{halves} of 6 died in the middle of a file");
    finish(ieq(&["train", "--no-eval", "--quiet", "--resume"], &out));
    assert_same_run(&out, &whole, "killed while saving");
}

#[test]
fn ctrl_c_saves_says_how_to_go_on_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Neither a checkpoint nor a line of the log falls on the step of the interruption, and the folder needs quotes.
    let words = with(&TINY, &["--checkpoint-every=0", "--log-every=7"]);
    let (whole, out) = (folder.path().join("whole"), folder.path().join("it's stopped"));
    finish(ieq(&words, &whole));
    let mut child = ieq(&words, &out).spawn().unwrap();
    wait_until(&mut child, || steps_logged(&out) >= 2);
    let sent = Command::new("sh").args(["-c", "kill -INT $0"]).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(output.stdout.is_empty(), "a run that did not end has no result");
    let command = stderr.split('`').nth(1).unwrap_or_else(|| panic!("no command in {stderr}")).to_owned();
    assert!(command.starts_with("ieq-wgpu train --resume "), "{stderr}");

    // What it says is what a user types: the shell takes it as it is.
    let binary = Path::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    let path = std::env::join_paths([binary.parent().unwrap(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{command} --no-eval --quiet")).env("PATH", path);
    finish(shell);
    assert_same_run(&out, &whole, "interrupted");
}

/// What is left to do after the last step, and before the first, is given up at once.
#[test]
fn ctrl_c_while_scoring_says_what_is_saved() {
    use std::io::BufRead;
    let folder = tempfile::tempdir().unwrap();
    let words: Vec<&str> =
        with(&TINY, &["--steps=5"]).into_iter().filter(|w| !["--no-eval", "--quiet"].contains(w)).collect();
    for (what, saved, sentence) in [
        ("untrained", false, "no step was done, and nothing was written to"),
        ("trained", true, "all 5 steps are done and saved in"),
    ] {
        let out = folder.path().join(what);
        let mut child = ieq(&words, &out).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let scoring = format!("scoring the {what} network");
        assert!(lines.any(|line| line.unwrap().starts_with(&scoring)), "{scoring}");
        let sent = Command::new("sh").args(["-c", "kill -INT $0"]).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        let last = lines.map(Result::unwrap).last().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{last}");
        assert!(output.stdout.is_empty() && last.starts_with("interrupted: ") && last.contains(sentence), "{last}");
        assert_eq!((out.exists(), out.join("checkpoint.safetensors").exists()), (saved, saved), "{what}");
        assert_eq!(last.contains("train --resume"), saved, "{last}");
    }
}

/// A budget that would cut the run's whole batches in two is refused before the network is scored.
#[test]
fn what_cannot_be_resumed_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    finish(ieq(&with(&TINY, &["--steps=5", "--bn=micro"]), &out));
    let before = checkpoint(&out);
    let output = ieq(&["train", "--memory-budget=400KiB", "--resume"], &out).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("does a batch in 1 passes") && stderr.contains("allow it the memory"), "{stderr}");
    assert!(!stderr.contains("scoring") && checkpoint(&out) == before, "{stderr}");
}

#[test]
fn a_killed_distillation_is_resumed_in_its_generation() {
    let folder = tempfile::tempdir().unwrap();
    let teacher = folder.path().join("teacher");
    finish(ieq(&with(&TINY, &["--steps=10"]), &teacher));
    let source = format!("--teacher={}", teacher.display());
    let distill: Vec<&str> = vec!["distill", &source, "--generations=2", "--steps=30", "--no-eval", "--quiet", "--out"];
    // As Ctrl-C says it: the settings are the run's.
    let resume = ["distill", &source, "--resume", "--no-eval", "--quiet", "--out"];
    let whole = folder.path().join("whole");
    finish(ieq(&distill, &whole));
    let generations = |out: &Path| -> [PathBuf; 2] { [1, 2].map(|i| out.join(format!("generation-{i}"))) };
    let mut rng = rng(2);
    for (attempt, generation) in [0, 1].into_iter().enumerate() {
        let out = folder.path().join(format!("killed-{attempt}"));
        let inside = generations(&out)[generation].clone();
        let steps = 6 + below(&mut rng, 20);
        let mut child = ieq(&distill, &out).spawn().unwrap();
        wait_until(&mut child, || steps_logged(&inside) >= steps);
        let in_time = kill(child);
        eprintln!("generation {} killed after step {steps}, in time: {in_time}", generation + 1);
        finish(ieq(&resume, &out));
        for (got, wanted) in generations(&out).iter().zip(&generations(&whole)) {
            assert_same_run(got, wanted, &format!("killed in generation {}", generation + 1));
        }
    }
}

/// One command trains the teacher and its student; one command goes on, wherever it was stopped.
#[test]
fn a_teacher_and_its_student_are_resumed_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut words = with(&TINY, &["--teacher-share=0.4"]);
    words[0] = "distill";
    let whole = folder.path().join("whole");
    finish(ieq(&words, &whole));
    let parts = |out: &Path| ["teacher", "generation-1"].map(|name| out.join(name));
    assert_eq!(parts(&whole).map(|part| steps_logged(&part)), [24, 36]);
    let mut rng = rng(4);
    for part in [0, 1] {
        let out = folder.path().join(format!("killed-{part}"));
        let inside = parts(&out)[part].clone();
        let steps = 8 + below(&mut rng, 12);
        let mut child = ieq(&words, &out).spawn().unwrap();
        wait_until(&mut child, || steps_logged(&inside) >= steps);
        eprintln!("killed after step {steps} of part {part}, in time: {}", kill(child));
        finish(ieq(&["distill", "--resume", "--no-eval", "--quiet", "--out"], &out));
        for (got, wanted) in parts(&out).iter().zip(&parts(&whole)) {
            assert_same_run(got, wanted, &format!("killed in part {part}"));
        }
    }
}

/// The deep network with every random stream: DropBlock, dropout, crops, warps, negatives, order.
#[test]
fn a_seed_decides_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    let words = with(
        &TINY,
        &["--backbone=resnet12", "--transforms=affine-4", "--no-joint-labels", "--steps=40", "--log-every=10"],
    );
    let run = |name: &str, changes: &[&str]| -> PathBuf {
        let out = folder.path().join(name);
        finish(ieq(&with(&words, changes), &out));
        out
    };
    let (first, second, other) = (run("a", &[]), run("b", &[]), run("c", &["--seed=4"]));
    assert_same_run(&second, &first, "the same seed");
    assert_ne!(metrics(&first), metrics(&other), "another seed trains as this one");
    assert!(checkpoint(&first) != checkpoint(&other), "another seed ends in the same checkpoint");
    // Resumed at its end a run stays as it is.
    let again = finish(ieq(&["train", "--no-eval", "--json", "--resume"], &first));
    assert_same_run(&first, &second, "resumed when done");
    let document: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    let last = &metrics(&first)[3]["losses"]["total"];
    assert_eq!(document["loss"].as_f64().unwrap() as f32, last.as_f64().unwrap() as f32, "{document}");
    // Without its log it has no loss to tell, and tells none.
    std::fs::remove_file(first.join("metrics.jsonl")).unwrap();
    let again = finish(ieq(&["train", "--no-eval", "--quiet", "--resume"], &first));
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(text.starts_with("40 steps in ") && !text.contains("loss") && !text.contains("NaN"), "{text}");
}

/// Views, batch, losses and their weights change twice on the way, negatives are the recently written rows, and labels
/// are joint: a run that is killed around the switches ends in the same bits.
#[test]
fn a_run_killed_around_a_change_of_phase_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let phases = "--phases=0.3: views=2, view_share=0.5, weight_invariance=0.1; 0.6: views=1, invariance=false";
    let changes =
        [phases, "--views=3", "--bank-recent=40", "--joint-labels", "--weight-equivariance=0.2", "--steps=30"];
    let words = with(&TINY, &[&changes[..], &["--checkpoint-every=1"]].concat());
    let whole = folder.path().join("whole");
    finish(ieq(&words, &whole));
    let lines = metrics(&whole);
    let has = |step: usize, name: &str| lines[step - 1]["losses"].get(name).is_some();
    assert!(has(9, "inv") && has(10, "eq") && has(18, "inv") && !has(19, "inv") && !has(19, "eq"));
    let epochs: Vec<_> = lines.iter().map(|line| line["epoch"].as_u64().unwrap()).collect();
    assert!(epochs.is_sorted() && epochs[9] > epochs[7] && epochs[18] > epochs[16], "{epochs:?}");
    let mut rng = rng(3);
    for (attempt, steps) in [8, 9, 17, 18, 24].into_iter().enumerate() {
        let out = folder.path().join(format!("killed-{attempt}"));
        let in_time = run_and_kill(&words, &out, steps, &mut rng);
        eprintln!("killed after step {} of 30, in time: {in_time}", steps_logged(&out));
        finish(ieq(&["train", "--no-eval", "--quiet", "--resume"], &out));
        assert_same_run(&out, &whole, &format!("killed after step {steps}"));
    }
}

/// A second run in a folder where one is going would mix two logs and two states.
#[test]
fn two_runs_do_not_share_a_folder() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("shared"));
    finish(ieq(&TINY, &whole));
    let mut child = ieq(&TINY, &out).spawn().unwrap();
    wait_until(&mut child, || steps_logged(&out) >= 10);
    for second in [&["train", "--no-eval", "--quiet", "--resume"][..], &with(&TINY, &["--overwrite"])] {
        let output = ieq(second, &out).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if child.try_wait().unwrap().is_some() {
            eprintln!("the first run was done before the second began");
            break;
        }
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("another process is training in this folder"), "{stderr}");
    }
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    assert_same_run(&out, &whole, "beside a second one");
}
