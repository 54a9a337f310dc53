//! From a few pictures to answers, as a stranger meets it: a fresh folder, six pictures, one command.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;

use ieq_wgpu::fewshot::reference::Source;
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::reference;
use image::{ImageFormat, Rgb, RgbImage};
use program::{document, files, save, save_glyph, stderr};
use tempfile::TempDir;

/// Words with the network in place of RUN.
fn with_run(words: &str) -> String {
    words.replace("RUN", network().to_str().unwrap())
}

fn run(folder: &Path, words: &str) -> Output {
    program::run(folder, &with_run(words))
}

fn succeeds(folder: &Path, words: &str) {
    program::succeeds(folder, &with_run(words));
}

fn json(folder: &Path, words: &str) -> serde_json::Value {
    program::json(folder, &with_run(words))
}

/// A network that was trained for a moment.
fn network() -> &'static Path {
    static RUN: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        program::succeeds(folder.path(), "train --preset demo --steps 40 --no-eval --out run");
        let path = folder.path().join("run");
        (folder, path)
    });
    path
}

/// Three classes with a picture each, and three pictures more.
fn six() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (class, name) in ["one", "three", "two"].into_iter().enumerate() {
        save_glyph(&folder.path().join(format!("classes/{name}/a.png")), class, 0);
        save_glyph(&folder.path().join(format!("new/{name}.png")), class, 1);
    }
    folder
}

#[test]
fn six_pictures_are_enough() {
    let folder = six();
    let root = folder.path();
    let before = (files(&root.join("classes")), files(&root.join("new")));
    let output = run(root, "predict --model RUN --support classes new");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() == 4 && text.starts_with("path"), "{text}");
    assert!(said.contains("--save FILE keeps the support") && said.contains("are called none of these"), "{said}");
    assert!(!said.contains("does not say how similar"), "the run has noted its similarities: {said}");
    let answers = json(root, "predict --model RUN --support classes new --unknown off --csv a.csv --copy-to sorted");
    assert_eq!(answers["schema"], "ieq-wgpu.predict.1");
    let names: Vec<&str> = answers["classes"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "three", "two"]);
    for answer in answers["answers"].as_array().unwrap() {
        let each: Vec<f64> = answer["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
        let label = names.iter().position(|name| Some(*name) == answer["label"].as_str()).unwrap();
        assert!((each.iter().sum::<f64>() - 1.0).abs() < 1e-9 && each.iter().all(|&p| p <= each[label]), "{answer}");
        assert_eq!(answer["probability"].as_f64().unwrap(), each[label]);
        // The copy is the picture, in the folder of its class.
        let copy = root.join(answer["copy"].as_str().unwrap());
        assert_eq!(copy.parent().unwrap(), root.join("sorted").join(names[label]));
        assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(root.join(answer["path"].as_str().unwrap())).unwrap());
    }
    let table = std::fs::read_to_string(root.join("a.csv")).unwrap();
    assert!(table.starts_with("path,label,probability,one,three,two\n") && table.lines().count() == 4, "{table}");
    // The same again changes nothing: no copy twice, the table is replaced by itself.
    let sorted = files(&root.join("sorted"));
    succeeds(root, "predict --model RUN --support classes new --unknown off --csv a.csv --copy-to sorted");
    assert_eq!((files(&root.join("sorted")), std::fs::read_to_string(root.join("a.csv")).unwrap()), (sorted, table));
    assert_eq!((files(&root.join("classes")), files(&root.join("new"))), before, "no original is touched");
}

#[test]
fn a_support_is_kept_and_grows_by_a_picture() {
    let folder = six();
    let root = folder.path();
    let whole = json(root, "predict --model RUN --support classes new --save kept.safetensors");
    let again = json(root, "predict --model kept.safetensors new");
    assert_eq!(whole["answers"], again["answers"]);
    assert_eq!(whole["classes"], again["classes"]);
    save_glyph(&root.join("four/b.png"), 3, 0);
    save_glyph(&root.join("new/four.png"), 3, 1);
    let more = json(root, "predict --model kept.safetensors --add four=four/b.png new --save more.safetensors");
    assert_eq!(more["classes"].as_array().unwrap().len(), 4);
    assert_eq!(more["answers"].as_array().unwrap().len(), 4);
    // Another picture of a class that is there.
    let same = json(root, "predict --model more.safetensors --add one=four/b.png new");
    assert_eq!((same["classes"].as_array().unwrap().len(), &same["classes"][0]["pictures"]), (4, &2.into()));
    // From single pictures alone, and from a zip-less nothing at all.
    let alone = json(root, "predict --model RUN --add a=new/one.png --add b=new/two.png new/three.png");
    assert_eq!(alone["classes"].as_array().unwrap().len(), 2);
    // It is a network, too.
    succeeds(root, "embed kept.safetensors new --out kept.npy");
    succeeds(root, "embed RUN new --out run.npy");
    assert_eq!(std::fs::read(root.join("kept.npy")).unwrap(), std::fs::read(root.join("run.npy")).unwrap());
}

#[test]
fn a_picture_of_the_support_is_not_its_own() {
    let folder = six();
    let root = folder.path();
    save_glyph(&root.join("classes/one/b.png"), 0, 2);
    save_glyph(&root.join("copy.png"), 0, 0);
    let output = run(root, "predict --model RUN --support classes classes/one copy.png --unknown off --json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("warning: 3 of the pictures, classes/one/a.png the first, are in the support"));
    let answers: serde_json::Value = document(&output);
    for answer in answers["answers"].as_array().unwrap() {
        assert!(answer["similarity"].as_f64().unwrap() < 0.999_999, "{answer}");
    }
}

/// The shipped networks know drawings; what they say of their similarities does not hold for photos.
#[test]
fn of_photos_the_shipped_networks_know_less() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (i, name) in ["all/a/1.png", "all/b/1.png", "new/1.png"].into_iter().enumerate() {
        let shade = |x: u32, y: u32| Rgb([(9 * x + 5 * y) as u8, (7 * x + 90 * i as u32) as u8, (x * y) as u8]);
        save(&root.join(name), &RgbImage::from_fn(40, 30, shade), ImageFormat::Png);
    }
    let words = "predict --model shipped --support all new --save kept.safetensors";
    let output = program::succeeds(root, &format!("{words} --json"));
    assert!(stderr(&output).contains("know drawings on an empty ground"), "{}", stderr(&output));
    let whole = document(&output);
    assert_eq!(whole["reference"], "typical");
    // The support remembers.
    let again = json(root, "predict --model kept.safetensors new");
    assert_eq!((&again["reference"], &again["answers"]), (&whole["reference"], &whole["answers"]));
    let drawings = six();
    assert_ne!(json(drawings.path(), "predict --model shipped --support classes new")["reference"], "typical");
}

#[test]
fn what_cannot_be_read_is_left_out_and_said() {
    let folder = six();
    let root = folder.path();
    std::fs::write(root.join("new/bad.png"), "no picture").unwrap();
    std::fs::write(root.join("classes/two/bad.png"), "no picture").unwrap();
    let output = run(root, "predict --model RUN --support classes new --json");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 files could not be read and have no answer"), "{}", stderr(&output));
    let answers: serde_json::Value = document(&output);
    assert_eq!(answers["answers"].as_array().unwrap().len(), 3);
    assert_eq!(answers["left_out"].as_array().unwrap().len(), 2);
}

#[test]
fn neighbours_are_the_same_from_an_array_and_from_pictures() {
    let folder = six();
    let root = folder.path();
    let from_pictures = json(root, "neighbors new/one.png --in . --model RUN -k 3 --csv near.csv --sheet near.png");
    assert!(image::open(root.join("near.png")).unwrap().width() > 100);
    std::fs::remove_file(root.join("near.png")).unwrap();
    assert_eq!(from_pictures["rows"], 6);
    for end in ["npy", "safetensors", "csv"] {
        succeeds(root, &format!("embed RUN classes new --out all.{end}"));
    }
    for end in ["safetensors", "csv"] {
        let same = json(root, &format!("neighbors new/one.png --in all.{end} --model RUN -k 3"));
        for (a, b) in same["neighbors"].as_array().unwrap().iter().zip(from_pictures["neighbors"].as_array().unwrap()) {
            assert_eq!((&a["row"], &a["similarity"]), (&b["row"], &b["similarity"]));
        }
    }
    std::fs::remove_file(root.join("all.csv")).unwrap();
    succeeds(root, "embed RUN . --out all.npy");
    let from_array = json(root, "neighbors new/one.png --in all.npy --model RUN -k 3");
    assert_eq!(from_pictures["neighbors"], from_array["neighbors"]);
    let found = from_array["neighbors"].as_array().unwrap();
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|one| !one["path"].as_str().unwrap().ends_with("new/one.png")), "{found:?}");
    let falls = |pair: &[serde_json::Value]| pair[0]["similarity"].as_f64() >= pair[1]["similarity"].as_f64();
    assert!(found.windows(2).all(falls), "{found:?}");
    let table = std::fs::read_to_string(root.join("near.csv")).unwrap();
    assert!(table.starts_with("rank,path,similarity\n1,") && table.lines().count() == 4, "{table}");
    // Fewer are there than are asked for.
    assert_eq!(json(root, "neighbors new/one.png --in all.npy --model RUN")["neighbors"].as_array().unwrap().len(), 5);
    std::fs::write(root.join("all.txt"), "one line\n").unwrap();
    let output = run(root, "neighbors new/one.png --in all.npy --model RUN");
    assert!(output.status.code() == Some(2) && stderr(&output).contains("all."), "{}", stderr(&output));
}

/// A run notes how similar the pictures of its validation classes are.
#[test]
fn a_run_notes_its_similarities() {
    let file = network().join("checkpoint.safetensors");
    let checkpoint = Checkpoint::load(&file).unwrap();
    let found = reference::of(&file, &checkpoint).unwrap().unwrap();
    let one = found.at(1);
    assert!(one.own.mean > one.other.mean && one.temperature > 0.0, "{found:?}");
    assert!(found.source != Source::Typical && found.images > 0, "{found:?}");
}
