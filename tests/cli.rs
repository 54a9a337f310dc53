//! The binary's words: help that fits a screen, sentences for bad input, exit codes. None of it needs a GPU.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 20] = [
    "devices",
    "train",
    "distill",
    "ablate",
    "eval",
    "embed",
    "export",
    "predict",
    "neighbors",
    "audit",
    "convert",
    "plan",
    "check",
    "bench",
    "views",
    "report",
    "inspect",
    "compare",
    "completions",
    "man",
];

/// Runs the binary with `words`, in `folder`, with nothing inherited that would change its words.
fn run_in(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"))
        .args(words)
        .current_dir(folder)
        .env_remove("IEQ_ADAPTER")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("COLUMNS")
        .output()
        .unwrap()
}

fn run(words: &[&str]) -> Output {
    run_in(&std::env::temp_dir(), words)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Lines and columns of a small terminal, and a line for the prompt.
const SCREEN: (usize, usize) = (25, 80);

#[test]
fn short_help_fits_a_screen_and_is_grouped_by_purpose() {
    for command in [""].into_iter().chain(COMMANDS) {
        let words: Vec<_> = command.split_whitespace().chain(["-h"]).collect();
        let output = run(&words);
        let help = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command}");
        // The list of commands has a line for each.
        let most = if command.is_empty() { COMMANDS.len() + 16 } else { SCREEN.0 };
        assert!(help.lines().count() <= most, "{command} -h has {} lines\n{help}", help.lines().count());
        for line in help.lines() {
            assert!(line.chars().count() <= SCREEN.1, "{command} -h: {line}");
        }
        assert!(!help.contains('\u{1b}'), "{command} -h has colour where no terminal is");
    }
    let help = text(&run(&["train", "-h"]).stdout);
    for heading in ["Data:", "Optimiser:", "Run:", "Everywhere:"] {
        assert!(help.lines().any(|line| line == heading), "{heading}\n{help}");
    }
}

/// Names that are not UTF-8 cannot be saved with the settings: which one is said.
#[cfg(unix)]
#[test]
fn words_that_are_no_text_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let out = std::ffi::OsStr::from_bytes(b"runs/b\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu")).args(["plan", "--out"]).arg(out).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: `runs/b\u{fffd}` is not UTF-8 text") && said.contains("rename"), "{said}");
}

/// A terminal of no columns, as some shells of CI claim it, is one of unknown width.
#[test]
fn help_is_not_wrapped_to_no_columns() {
    let output = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu")).args(["plan", "--help"]).env("COLUMNS", "0").output();
    let help = text(&output.unwrap().stdout);
    assert!(help.lines().next().unwrap().split(' ').count() > 5, "{help}");
}

#[test]
fn long_help_has_keys_defaults_and_an_example() {
    for command in COMMANDS {
        let help = text(&run(&[command, "--help"]).stdout);
        assert!(
            help.replace("Examples:", "Example:").contains(&format!("Example:\n  ieq-wgpu {command} ")),
            "{command}\n{help}"
        );
    }
    let help = text(&run(&["train", "--help"]).stdout);
    for needle in
        ["[optimiser.lr; demo: 0.05]", "[model.widths; demo: 8,16,32,64]", "tiered-imagenet", "--no-invariance"]
    {
        assert!(help.contains(needle), "{needle}\n{help}");
    }
}

/// The examples in the help are spelled as the flags are: none of them is a mistake of usage.
#[test]
fn examples_parse() {
    for command in COMMANDS {
        let help = text(&run(&[command, "--help"]).stdout);
        let example =
            help.lines().skip_while(|line| !["Example:", "Examples:"].contains(line)).nth(1).unwrap().trim().to_owned();
        let words: Vec<_> = example.split(' ').skip(1).take_while(|word| *word != ">").chain(["--help"]).collect();
        let output = run(&words);
        assert_eq!(output.status.code(), Some(0), "{example}: {}", text(&output.stderr));
    }
}

#[test]
fn no_words_show_the_help_and_version_is_said() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("Start here:"));
    let output = run(&["--version"]);
    assert_eq!(text(&output.stdout).trim(), concat!("ieq-wgpu ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn near_misses_are_suggested() {
    for (words, suggestion) in [
        (&["trian"][..], "'train'"),
        (&["train", "--lrr", "1"], "'--lr'"),
        (&["train", "--transform", "rot4"], "'--transforms'"),
        (&["train", "--no-invarianc"], "'--no-invariance'"),
        (&["train", "--preset", "cifarfs"], "'cifar-fs'"),
        (&["train", "--backbone", "resnet18"], "'resnet12'"),
        (&["train", "--method", "basline"], "'baseline'"),
        (&["eval", "x", "--classifier", "cosin"], "'cosine'"),
        (&["embed", "x", "y", "--layer", "feats"], "'feat'"),
    ] {
        let output = run(words);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(message.contains("tip: a similar") && message.contains(suggestion), "{words:?}: {message}");
    }
}

/// Each value is refused with exit code 2, a message that names the flag or file, and nothing on stdout
/// or on the disk.
#[test]
fn bad_values_get_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("typo.toml", "[optimiser]\nbatch = 4\nlrr = 0.1\n");
    write("range.toml", "preset = \"demo\"\n[optimiser]\nlr = nan\n");
    write("preset.toml", "preset = \"imagenet\"\n");
    write("binary.toml", "\u{0}\u{1}");
    write("file", "");
    std::fs::create_dir_all(folder.path().join("empty")).unwrap();
    std::fs::create_dir_all(folder.path().join("taken")).unwrap();
    write("taken/checkpoint.safetensors", "");
    write("ck.safetensors", "");
    let before = names(folder.path());

    let cases: &[(&[&str], &str)] = &[
        (&["train", "--lr", "nan"], "--lr (optimiser.lr) must be above 0"),
        (&["train", "--lr", "-0.1"], "--lr (optimiser.lr) must be above 0"),
        (&["train", "--lr", "inf"], "--lr"),
        (&["train", "--lr", "fast"], "--lr"),
        (&["train", "--lr", ""], "--lr"),
        (&["train", "--momentum", "1"], "--momentum"),
        (&["train", "--weight-decay", "-1"], "--weight-decay"),
        (&["train", "--batch", "0"], "--batch"),
        (&["train", "--batch", "-1"], "--batch"),
        (&["train", "--batch", "1.5"], "--batch"),
        (&["train", "--batch", "99999999999999999999"], "--batch"),
        (&["train", "--preset", "omniglot", "--batch", "5000"], "80000 rows per step"),
        (&["train", "--batch", "18446744073709551615"], "--batch"),
        (&["train", "--steps", "0"], "--steps"),
        (&["train", "--epochs", "0"], "--epochs"),
        (&["train", "--epochs", "1", "--steps", "2"], "--steps"),
        (&["train", "--decay-at-epochs", "60,30"], "--decay-at-epochs"),
        (&["train", "--decay-at-fractions", "0.5,1.5"], "--decay-at-fractions"),
        (&["train", "--decay-at-fractions", "a"], "--decay-at-fractions"),
        (&["train", "--decay", "0"], "--decay (optimiser.decay)"),
        (&["train", "--side", "0"], "--side"),
        (&["train", "--side", "8"], "--side (data.side) must be at least 16"),
        (&["train", "--side", "20000"], "--side"),
        (&["train", "--crop-padding", "29"], "--crop-padding"),
        (&["train", "--mean", "1,2"], "--mean"),
        (&["train", "--mean", "123.7,116.3,103.5"], "try 0.4851,0.4561,0.4059"),
        (&["train", "--mean", "-1"], "--mean (data.mean) must be at least 0"),
        (&["train", "--std", "58.4"], "--std (data.std) must be that of images in 0..1"),
        (&["train", "--std", "0"], "--std"),
        (&["train", "--widths", "16,,32"], "--widths"),
        (&["train", "--widths", "8,8,8,8,8"], "--side (data.side) must be at least 32"),
        (&["train", "--widths", "1,1,1,1,1,1,1,1,1"], "--widths"),
        (&["train", "--widths", "16,32,64,0"], "--widths"),
        (&["train", "--widths", "16,32,64,1000000"], "--widths"),
        (&["train", "--projection", "0"], "--projection"),
        (&["train", "--dropout", "1"], "--dropout"),
        (&["train", "--drop-block-rate", "nan"], "--drop-block-rate"),
        (&["train", "--drop-block-size", "0"], "--drop-block-size"),
        (&["train", "--transforms", "affine-1"], "--transforms"),
        (&["train", "--transforms", "rot8"], "--transforms"),
        (&["train", "--tau", "0"], "--tau"),
        (&["train", "--gamma", "-1"], "--gamma"),
        (&["train", "--negatives", "0"], "--negatives"),
        (&["train", "--bank-momentum", "2"], "--bank-momentum"),
        (&["train", "--no-cross-entropy", "--no-equivariance", "--no-invariance"], "every loss term is off"),
        (&["train", "--method", "baseline", "--no-cross-entropy"], "--method baseline"),
        (&["train", "--seed", "-1"], "--seed"),
        (&["train", "--seed", "18446744073709551615"], "--seed"),
        (&["train", "--data", ""], "--data"),
        (&["train", "--out", ""], "--out"),
        (&["train", "--log-every", "0"], "--log-every"),
        (&["train", "--slice-ms", "-1"], "--slice-ms"),
        (&["train", "--micro-batch", "3", "--bn", "micro"], "must divide the batch of 16, got 3"),
        (&["train", "--micro-batch", "4"], "add --bn micro"),
        (&["train", "--bn", "both"], "--bn"),
        (&["train", "--memory-budget", "4 apples"], "--memory-budget"),
        (&["train", "--memory-budget", "0"], "--memory-budget"),
        (&["plan", "--memory-budget", "1MiB"], "a step needs"),
        (&["train", "--on-device-lost", "cry"], "--on-device-lost"),
        (&["train", "--min-acc", "101"], "--min-acc"),
        (&["train", "--min-acc", "60", "--no-eval"], "--no-eval"),
        (&["train", "--out", "file"], "file: this is a file"),
        (&["train", "--out", "taken"], "taken: this folder holds a run"),
        (&["train", "--out", "file/run"], "file: this is a file"),
        (
            &["distill", "--teacher", "taken", "--preset", "demo", "--resume", "--out", "empty"],
            "empty: there is no run",
        ),
        (&["train", "--resume", "empty"], "empty: there is no run to resume"),
        (&["train", "--resume", "--overwrite"], "--overwrite"),
        (&["train", "--config", "absent.toml"], "absent.toml: cannot read"),
        (&["train", "--config", "empty"], "empty: cannot read"),
        (&["train", "--config", "typo.toml"], "typo.toml: line 3: unknown field `lrr`"),
        (&["train", "--config", "range.toml"], "--lr (optimiser.lr)"),
        (&["train", "--config", "preset.toml"], "there is no preset `imagenet`"),
        (&["train", "--config", "binary.toml"], "binary.toml: line 1"),
        (&["distill"], "--teacher"),
        (&["distill", "--teacher", "absent"], "absent: there is no such file"),
        (&["distill", "--teacher", "empty"], "empty: this folder holds no checkpoint"),
        (&["distill", "--teacher", "taken", "--preset", "demo", "--out", "taken"], "taken: this is the teacher's own"),
        (&["distill", "--teacher", "taken", "--preset", "demo", "--generations", "0"], "--generations"),
        (&["distill", "--teacher", "taken", "--preset", "demo", "--distill-temperature", "0"], "--distill-temperature"),
        (&["eval"], "<CHECKPOINT>"),
        (&["eval", "absent"], "absent: there is no such file"),
        (&["eval", "taken", "--ways", "1"], "--ways"),
        (&["eval", "taken", "--shots", "0"], "--shots"),
        (&["eval", "taken", "--shots", "1,,5"], "--shots"),
        (&["eval", "taken", "--queries", "0"], "--queries"),
        (&["eval", "taken", "--n-episodes", "1"], "--n-episodes"),
        (&["eval", "taken", "--support-copies", "0"], "--support-copies"),
        (&["eval", "taken", "--episodes", "absent"], "absent: there is no such file: --episodes"),
        (&["eval", "taken", "--episodes", "ck.safetensors", "--ways", "5"], "--ways"),
        (&["eval", "taken", "--oneshot", "--split", "val"], "--split"),
        (&["eval", "taken", "--oneshot", "--support-copies", "5"], "--support-copies"),
        (&["eval", "taken", "--min-acc", "nan"], "--min-acc"),
        (&["embed", "taken"], "INPUT"),
        (&["audit"], "DATA"),
        (&["audit", ".", "--only", "labels"], "'label'"),
        (&["embed", "taken", "absent.png"], "absent.png: there is no such file"),
        (&["embed", "taken", "file", "--data", "glyphs"], "--data"),
        (&["embed", "taken", "file", "--out", "absent/x.npy"], "absent: there is no such folder"),
        (&["embed", "taken", "file", "--out", "empty"], "--out"),
        (&["embed", "taken", "file", "--out", "x.txt"], "--out"),
        (&["plan", "--classes", "5"], "--images"),
        (&["plan", "--classes", "1", "--images", "100"], "--classes"),
        (&["plan", "--lr", "nan"], "--lr"),
    ];
    let mut wrong = Vec::new();
    for (words, needle) in cases {
        let output = run_in(folder.path(), words);
        let message = text(&output.stderr);
        let ok = output.status.code() == Some(2)
            && message.starts_with("error: ")
            && message.contains(needle)
            && output.stdout.is_empty();
        if !ok {
            wrong.push(format!("{words:?} wants `{needle}`, exit {:?}: {message}", output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(names(folder.path()), before, "a refusal writes nothing");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The flags of every command may stand before and after its name.
#[test]
fn flags_of_every_command_are_taken_everywhere() {
    for command in COMMANDS {
        for words in [
            &[command, "--json", "--quiet", "--adapter", "0", "-h"][..],
            &["--json", "-q", "--adapter", "llvmpipe", command, "-h"],
        ] {
            assert_eq!(run(words).status.code(), Some(0), "{words:?}");
        }
    }
}

/// A reader that goes away early (`| head`) is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"))
        .args(["train", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), "");
}

/// A program without MPI that `mpirun` starts all the same would train the whole run in each process.
#[cfg(not(feature = "mpi"))]
#[test]
fn several_processes_do_not_train_copies_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    for (variables, rank) in [(["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"], 0), (["PMI_SIZE", "PMI_RANK"], 1)] {
        let output = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"))
            .args(["train", "--out", "run"])
            .envs([(variables[0], "2"), (variables[1], rank.to_string().as_str())])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        // Each speaks for its own build.
        assert!(stderr.contains("built without MPI") && stderr.contains("--features mpi"), "{stderr}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    // What several processes do not share one of them says; other commands are each process's own.
    for (words, speaks) in
        [(&["distill", "--teacher", "x"][..], false), (&["embed", "x", "y"], true), (&["--help"], true)]
    {
        let output = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"))
            .args(words)
            .envs([("SLURM_STEP_NUM_TASKS", "2"), ("PMIX_RANK", "1")])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert_eq!(!said.is_empty(), speaks, "{words:?}: {}", text(&said));
    }
}
