//! A stranger's first hour, command by command: six pictures get their names without any training; then a folder of
//! pictures becomes a network of one's own, and answers, rows, neighbours, an audit and a page come from it. Every command
//! says something within moments, and ends with what one can do next.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "it says how long the commands took")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use program::{command, files, save_glyph};

/// A person waits two seconds for the first line; a machine that tests on all cores at once is given more.
const FIRST_LINE: Duration = Duration::from_secs(10);

/// Runs a command that succeeds and ends with advice that has the words `next`.
fn does(folder: &Path, words: &str, next: &str) {
    let begun = Instant::now();
    let mut child = command(folder, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    let first = begun.elapsed();
    stderr.read_to_string(&mut said).unwrap();
    let (status, printed) = (child.wait().unwrap(), stdout.join().unwrap());
    println!(
        "{:5.2} s to the first line, {:6.1} s in all: {words}",
        first.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    assert!(status.success(), "{words}: {said}");
    assert!(first < FIRST_LINE, "{words}: {first:?} to the first line");
    let last: Vec<&str> = said.lines().rev().take(3).chain(printed.lines().rev().take(3)).collect();
    assert!(last.iter().any(|line| line.contains(next)), "{words}: {last:#?}");
}

#[test]
fn a_strangers_hour() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (class, name) in ["one", "three", "two"].into_iter().enumerate() {
        save_glyph(&root.join(format!("six/{name}/a.png")), class, 0);
        save_glyph(&root.join(format!("new/{name}.png")), class, 1);
    }
    for class in 0..10 {
        (0..12).for_each(|i| save_glyph(&root.join(format!("own/class{class}/{i:02}.png")), class, i));
    }
    let before = files(root);
    // Six pictures, and no training.
    does(root, "predict --support six new", "next: --save");
    // A network of one's own.
    does(
        root,
        "train --data own --out run --steps 30 --widths 8,8,16,16 --batch 16",
        "next: `ieq-wgpu predict --model run",
    );
    does(
        root,
        "predict --model run --support six new --save six.safetensors",
        "next: `ieq-wgpu predict --model six.safetensors",
    );
    does(root, "predict --model six.safetensors --add four=own/class4 new --csv answers.csv", "next: --save FILE");
    does(root, "embed run own --out own.npy", "next: `ieq-wgpu neighbors PICTURE --in own.npy --model run");
    does(
        root,
        "neighbors new/one.png --in own.npy --model run --sheet near.png",
        "next: `ieq-wgpu predict --model run --support DIR",
    );
    does(root, "audit own --model run --csv audit.csv --sheet audit.png", "`ieq-wgpu train --data own`");
    does(root, "report run", "next: open it in a browser");
    for made in ["run/report.html", "six.safetensors", "answers.csv", "own.npy", "near.png", "audit.csv"] {
        assert!(root.join(made).is_file(), "{made}");
    }
    let after = files(root);
    assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "a picture of the stranger was touched");
}
