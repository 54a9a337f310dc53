//! Every sentence with a way out, followed: the command fails with the advice, the advice is done, and it succeeds.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::path::Path;
use std::process::Output;

use ieq_wgpu::train::checkpoint::Checkpoint;
use image::{ImageFormat, RgbImage};
use program::{save, stderr};

/// Stands for a training run of two steps.
const TRAIN: &str = "train --no-eval --backbone conv4 --widths 4,4,4,4 --method baseline --batch 4 --steps 2 \
                     --checkpoint-every 1";

fn with_train(words: &str) -> String {
    words.replace("TRAIN", TRAIN)
}

fn run(folder: &Path, words: &str) -> Output {
    program::run(folder, &with_train(words))
}

fn fails(folder: &Path, words: &str, code: i32, advice: &[&str]) -> String {
    program::fails(folder, &with_train(words), code, advice)
}

fn succeeds(folder: &Path, words: &str) -> Output {
    program::succeeds(folder, &with_train(words))
}

fn picture(path: &Path, seed: u8) {
    let image = RgbImage::from_fn(28, 28, |x, y| image::Rgb([(x as u8 * 9) ^ seed, y as u8 * 5, seed]));
    save(path, &image, ImageFormat::Png);
}

/// Class folders of `images` images each.
fn classes(folder: &Path, classes: u8, images: u8) {
    for class in 0..classes {
        (0..images).for_each(|i| picture(&folder.join(format!("class{class}/{i}.png")), 16 * class + i));
    }
}

/// A folder with data of six classes and a finished run.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    classes(&folder.path().join("data/train"), 6, 4);
    succeeds(folder.path(), "TRAIN --data data --out run");
    folder
}

/// The words of a failure, its code, the advice, and words that follow it.
type Case = (&'static str, i32, &'static [&'static str], &'static str);

const AGAIN: &str = "train --no-eval --resume run";

/// Advice that is other words on the command line.
const WORDS: &[Case] = &[
    ("TRAIN --data data --out run", 2, &["--resume", "--overwrite", "--out"], "TRAIN --data data --out run --resume"),
    ("TRAIN --data data --out run", 2, &["replace it with --overwrite"], "TRAIN --data data --out run --overwrite"),
    ("TRAIN --data data --out run", 2, &["name another with --out"], "TRAIN --data data --out run2"),
    ("TRAIN --data data --out run --lr nan", 2, &["--lr", "try 0.05"], "TRAIN --data data --out run3 --lr 0.05"),
    ("train --resume run --lr 0.2", 2, &["optimiser.lr", "leave them out"], "train --no-eval --resume run"),
    ("train --resume run --out run9", 2, &["leave one of them out"], "train --no-eval --resume run"),
    ("train --resume absent", 2, &["name the folder of one that has saved"], "train --no-eval --resume run"),
    ("plan --micro-batch 4", 2, &["add --bn micro"], "plan --micro-batch 4 --bn micro"),
    ("plan --micro-batch 4", 2, &["leave --micro-batch out"], "plan"),
    ("plan --views 9 --transforms rot4", 2, &["try 4"], "plan --views 4 --transforms rot4"),
    ("plan --joint-labels --transforms crop4", 2, &["add --transforms rot4"], "plan --joint-labels --transforms rot4"),
    ("plan --joint-labels --transforms crop4", 2, &["--no-joint-labels"], "plan --transforms crop4 --no-joint-labels"),
    (
        "plan --micro-batch 4 --bn micro --phases 0.5:views=3",
        2,
        &["--micro-batch 2"],
        "plan --micro-batch 2 --bn micro --phases 0.5:views=3",
    ),
    ("plan --scale 0.3", 2, &["try 0.572"], "plan --scale 0.572"),
    ("plan --schedule cosine --decay-at-steps 3", 2, &["leave --decay-at-steps out"], "plan --schedule cosine"),
    ("plan --schedule one-cycle --warmup 0.1", 2, &["add --warmup 0"], "plan --schedule one-cycle --warmup 0"),
    ("plan --nesterov --momentum 0", 2, &["add --no-nesterov"], "plan --nesterov --momentum 0 --no-nesterov"),
    ("plan --nesterov --momentum 0", 2, &["take a larger --momentum"], "plan --nesterov --momentum 0.5"),
    (
        "plan --data data --batch 400 --method baseline",
        2,
        &["take 24 or fewer"],
        "plan --data data --batch 24 --method baseline",
    ),
    ("plan --classes 5", 2, &["--images"], "plan --classes 5 --images 100"),
    ("plan --preset cifarfs", 2, &["'cifar-fs'"], "plan --preset cifar-fs --classes 64 --images 38400"),
    ("plan --data absent", 2, &["glyphs"], "plan --data glyphs"),
    ("devices --adapter 99", 3, &["there are: 0:"], "devices --adapter 0"),
    ("devices --adapter abacus", 3, &["there are: 0:"], "devices --adapter 0"),
    ("TRAIN --data data --out note/x", 2, &["--out wants a folder"], "TRAIN --data data --out run4"),
    ("TRAIN --data data --out run5 --min-acc 50", 2, &["--no-eval"], "TRAIN --data data --out run5"),
    ("eval run --data glyphs --ways 1", 2, &["from 2 to 1000"], "eval run --data glyphs --ways 2 --n-episodes 2"),
    (
        "eval run --data glyphs --ways 900 --n-episodes 2",
        2,
        &["lower the ways"],
        "eval run --data glyphs --ways 5 --n-episodes 2",
    ),
    (
        "eval run --data glyphs --split nonsense --n-episodes 2",
        2,
        &["choose train, val or novel"],
        "eval run --data glyphs --split val --n-episodes 2",
    ),
    ("embed run data --layer transform", 2, &["choose another --layer"], "embed run data --layer class"),
    ("embed run data --out x.txt", 2, &["end it in .npy"], "embed run data --out x.npy"),
    ("embed run data --out data", 2, &["try embeddings.npy"], "embed run data --out embeddings.npy"),
    ("embed run data --out x.npy/", 2, &["try embeddings.npy"], "embed run data --out x.npy"),
    ("embed run data --split-file none", 2, &["cannot be used with '--split-file"], "embed run data --out none.npy"),
    (
        "embed run data --split train",
        2,
        &["cannot be used with '--split"],
        "embed run --data data --split train --out train.npy",
    ),
    ("train --no-eval --resume run --steps 9", 2, &["changes --steps (optimiser.length.steps): leave them out"], AGAIN),
    ("train --no-eval --resume run --preset omniglot", 2, &["changes --preset, "], AGAIN),
    (
        "plan --classes 5 --images 99999999",
        2,
        &["--images must be from 1 to 16777215, got 99999999"],
        "plan --classes 5 --images 16777215",
    ),
    ("bench --shapes conv", 2, &["--shapes must be conv:NxCxHxW"], "bench --shapes matmul:8x8x8 --samples 3"),
    (
        "bench --csv a.x --svg a.x",
        2,
        &["name the same file"],
        "bench --shapes matmul:8x8x8 --samples 3 --csv a.x --svg b.x",
    ),
    ("embed run", 2, &["--help"], "embed run --help"),
];

#[test]
fn other_words_help_as_they_say() {
    let folder = workplace();
    std::fs::write(folder.path().join("note"), "").unwrap();
    for (words, code, advice, cure) in WORDS {
        let output = run(folder.path(), words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(*code), "{words}: {said}");
        for needle in *advice {
            assert!(said.contains(needle), "{words}: nothing of `{needle}` in {said}");
        }
        succeeds(folder.path(), cure);
    }
}

/// A budget that is too small names settings that fit: they do.
#[test]
fn a_budget_names_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let said = fails(folder.path(), "plan --memory-budget 6MiB", 2, &["would fit in", "--bn micro", "--micro-batch"]);
    let number = |before: &str| -> f64 {
        let rest = said.split(before).last().unwrap().trim_start();
        rest.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap().parse().unwrap()
    };
    let least = "plan --memory-budget 1B";
    let text = fails(folder.path(), least, 2, &["--widths (model.widths)", "--side (data.side) would need less"]);
    let needed = text.split("give it ").nth(1).unwrap().split(" MiB").next().unwrap();
    succeeds(folder.path(), &format!("plan --memory-budget {needed}MiB"));
    let (images, mebibytes) = (number("--micro-batch"), number("would fit in"));
    let budget = mebibytes.ceil();
    succeeds(folder.path(), &format!("plan --bn micro --micro-batch {images} --memory-budget {budget}MiB"));
}

/// Data that moved: the way to it is said, and other data is told from it.
#[test]
fn a_run_finds_its_data_again() {
    let folder = workplace();
    std::fs::rename(folder.path().join("data"), folder.path().join("moved")).unwrap();
    fails(
        folder.path(),
        "train --no-eval --resume run",
        2,
        &["data: cannot read the data", "--data (data.source) names where it is now"],
    );
    succeeds(folder.path(), "train --no-eval --resume run --data moved");
    let score = "eval run --ways 2 --shots 1 --queries 2 --n-episodes 2 --split train";
    fails(folder.path(), score, 2, &["data: cannot read the data", "--data names where it is now"]);
    succeeds(folder.path(), &format!("{score} --data moved"));
    picture(&folder.path().join("moved/train/class2/1.png"), 200);
    fails(
        folder.path(),
        "train --no-eval --resume run --data ./moved",
        2,
        &["data.source", "begun with another data", "leave them out"],
    );
}

/// What was edited in a run's folder is neither used nor undone in silence.
#[test]
fn an_edited_configuration_is_said() {
    let folder = workplace();
    let file = folder.path().join("run/config.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let edited = before.replace("lr = 0.0125", "lr = 0.5");
    assert_ne!(before, edited);
    std::fs::write(&file, &edited).unwrap();
    fails(
        folder.path(),
        "train --no-eval --resume run",
        2,
        &["run/config.toml: ", "optimiser.lr", "change it back", "--config and --out"],
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), edited);
    // The recipe chose the rate, so another run's is chosen anew, which is said; what helps is said, too, and does.
    let from = |config: &str, out: &str| {
        let output = succeeds(folder.path(), &format!("train --no-eval --config {config} --out {out}"));
        let text = std::fs::read_to_string(folder.path().join(out).join("config.toml")).unwrap();
        (stderr(&output), text.contains("lr = 0.5"))
    };
    let (said, kept) = from("run/config.toml", "other");
    assert!(said.contains("--lr (optimiser.lr)") && said.contains("are chosen anew") && !kept, "{said}");
    assert!(from("run/config.toml --lr 0.5", "by-flag").1);
    let mut own: toml::Table = toml::from_str(&edited).unwrap();
    let reasons = own["run"]["reasons"].as_array_mut().unwrap();
    reasons.retain(|reason| !reason.as_str().unwrap().starts_with("optimiser.lr:"));
    std::fs::write(folder.path().join("own.toml"), own.to_string()).unwrap();
    assert!(from("own.toml", "by-file").1);
    std::fs::write(&file, &before).unwrap();
    succeeds(folder.path(), "train --no-eval --resume run");
    // A note of one's own stays.
    let noted = format!("# the second try\n{before}");
    std::fs::write(&file, &noted).unwrap();
    succeeds(folder.path(), "train --no-eval --resume run");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), noted);
    std::fs::write(&file, format!("{before}[[[")).unwrap();
    fails(folder.path(), "train --no-eval --resume run", 2, &["run/config.toml: line ", "correct it or delete it"]);
    std::fs::remove_file(&file).unwrap();
    succeeds(folder.path(), "train --no-eval --resume run");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    // What changes no number is not refused, and not passed over in silence either.
    std::fs::write(&file, before.replace("log_every = 10", "log_every = 7")).unwrap();
    let said = stderr(&succeeds(folder.path(), "train --no-eval --resume run"));
    assert!(said.contains("warning: run/config.toml differs") && said.contains("run.log_every"), "{said}");
    // The numbers are not those of another path to the data.
    std::fs::write(&file, before.replace("source = \"data\"", "source = \"./data\"")).unwrap();
    succeeds(folder.path(), "train --no-eval --resume run");
}

/// Weights that PyTorch saved again have lost their settings: the run's config.toml beside them has them.
#[test]
fn weights_without_settings_take_them_from_the_folder() {
    let folder = workplace();
    let root = folder.path();
    let mut weights = Checkpoint::load(root.join("run/checkpoint.safetensors")).unwrap();
    weights.metadata.clear();
    weights.tensors.retain(|name, _| !name.starts_with("train."));
    std::fs::create_dir(root.join("saved")).unwrap();
    weights.save(root.join("saved/checkpoint.safetensors")).unwrap();
    fails(root, "embed saved data", 2, &["no \"config\"", "config.toml", "put that of the run there"]);
    // Where the settings leave the side to the images it has to be added.
    let text = std::fs::read_to_string(root.join("run/config.toml")).unwrap();
    let text = text.replace("preset = \"demo\"\n", "").replace("side = 28\n", "");
    std::fs::write(root.join("saved/config.toml"), &text).unwrap();
    fails(root, "embed saved data", 2, &["saved/config.toml: ", "add `side` under [data]"]);
    std::fs::write(root.join("saved/config.toml"), text.replace("[data]\n", "[data]\nside = 28\n")).unwrap();
    succeeds(root, "embed saved data --out saved.npy");
    succeeds(root, "embed run data --out run.npy");
    assert!(std::fs::read(root.join("saved.npy")).unwrap() == std::fs::read(root.join("run.npy")).unwrap());
    // So have those that PyTorch saved by its own means.
    let bytes = Checkpoint::load(root.join("saved/checkpoint.safetensors")).unwrap().to_pytorch().unwrap();
    std::fs::write(root.join("saved/x.pth"), bytes).unwrap();
    succeeds(root, "embed saved/x.pth data --out saved.npy");
    assert!(std::fs::read(root.join("saved.npy")).unwrap() == std::fs::read(root.join("run.npy")).unwrap());
}

/// One bad picture among good ones is left out and said; `--strict` refuses, and without it all is well.
#[test]
fn a_bad_picture_is_left_out_and_said() {
    let folder = workplace();
    let bad = folder.path().join("data/train/class1/bad\u{1b}[31m.png");
    std::fs::write(&bad, "no picture").unwrap();
    let output = run(folder.path(), "embed run data --out all.npy");
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("warning: left out data/train/class1/bad\\u{1b}[31m.png: "), "{said}");
    assert!(said.trim_end().ends_with("replace them or take them away") && !said.contains('\u{1b}'), "{said}");
    assert_eq!(std::fs::read_to_string(folder.path().join("all.txt")).unwrap().lines().count(), 24);
    let output = run(folder.path(), "embed run data --out all.npy --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((document["rows"].as_u64(), document["left_out"].as_array().unwrap().len()), (Some(24), 1));
    fails(folder.path(), "embed run data --out strict.npy --strict", 2, &["bad\\u{1b}[31m.png: ", "remove it"]);
    assert!(!folder.path().join("strict.npy").exists());
    std::fs::remove_file(&bad).unwrap();
    let all = std::fs::read(folder.path().join("all.npy")).unwrap();
    succeeds(folder.path(), "embed run data --out all.npy --strict");
    assert!(std::fs::read(folder.path().join("all.npy")).unwrap() == all, "the rows of the good ones are the same");
    // Nothing but bad ones is no result.
    std::fs::create_dir(folder.path().join("bad")).unwrap();
    std::fs::write(folder.path().join("bad/x.png"), "no picture").unwrap();
    fails(folder.path(), "embed run bad", 2, &["bad/x.png: cannot be decoded"]);
}

/// What a run and a call leave in the folder of the pictures does not disturb the next.
#[test]
fn results_may_lie_among_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    classes(folder.path(), 6, 4);
    succeeds(folder.path(), "TRAIN --preset demo --data .");
    succeeds(folder.path(), "train --no-eval --resume runs/demo");
    succeeds(folder.path(), "TRAIN --preset demo --data . --out runs/two");
    succeeds(folder.path(), "eval runs/demo --ways 2 --shots 1 --queries 2 --n-episodes 2 --split train");
    for _ in 0..2 {
        succeeds(folder.path(), "embed runs/demo class0 --out class0/all.npy");
    }
}

/// A folder of new classes without splits: all of them can be scored.
#[test]
fn all_classes_of_a_folder_can_be_scored() {
    let folder = workplace();
    classes(&folder.path().join("own"), 10, 6);
    let words = "eval run --data own --shots 1 --queries 4 --n-episodes 2";
    fails(folder.path(), words, 2, &["--split: ", "10 classes, split 64 : 16 : 20 by seed", "add --split all"]);
    let output = succeeds(folder.path(), &format!("{words} --split all"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("own all, 10 classes, 60 images"));
}
