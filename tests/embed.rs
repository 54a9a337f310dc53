//! `embed`: every format read back by the field's own reader, a call that is killed and gone on with, the comparison
//! with an earlier extraction, and what an extraction refuses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ieq_wgpu::data::embeddings::Reader;
use image::{ImageFormat, RgbImage};
use program::{document, fails, run, save, stderr};
use tempfile::TempDir;

/// Stands for a training run of two steps.
const TRAIN: &str = "train --recipe paper --no-eval --backbone conv4 --widths 4,4,4,4 --method baseline --batch 4 \
                     --steps 2 --side 16 --decay-at-fractions 0.6,0.8 --quiet";

fn with_train(words: &str) -> String {
    words.replace("TRAIN", TRAIN)
}

fn command(folder: &Path, words: &str) -> Command {
    program::command(folder, &with_train(words))
}

fn succeeds(folder: &Path, words: &str) -> Output {
    program::succeeds(folder, &with_train(words))
}

fn picture(path: &Path, side: u32, seed: u32) {
    let image = RgbImage::from_fn(side, side, |x, y| {
        image::Rgb([(x * 9 + seed) as u8, ((y * 5) ^ (seed >> 8)) as u8, (seed * 31 + x * y) as u8])
    });
    save(path, &image, ImageFormat::Png);
}

/// A folder with a trained network in `run`, and in `data` pictures of six classes of which one cannot be read.
fn workplace() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..24 {
            picture(&folder.path().join(format!("train/train/class{}/{i}.png", i % 6)), 16, 1000 + i);
        }
        succeeds(folder.path(), "TRAIN --data train --out run");
        // More than a batch, and a name that no format can take for granted.
        for i in 0..150 {
            picture(&folder.path().join(format!("data/class{}/{i:03}.png", i % 6)), 16 + i % 3, i);
        }
        picture(&folder.path().join("data/class0/a \"b\", c.png"), 16, 7);
        std::fs::write(folder.path().join("data/class3/bad.png"), "no picture").unwrap();
        folder
    });
    folder.path()
}

/// Paths and rows, as the crate's reader gives them.
fn rows(path: &Path) -> Vec<(String, Vec<f32>)> {
    let mut reader = Reader::open(path).unwrap();
    let (mut all, mut row) = (Vec::new(), Vec::new());
    while let Some(path) = reader.next(&mut row).unwrap() {
        assert_eq!(row.len(), reader.columns());
        all.push((path, row.clone()));
    }
    all
}

/// The array, which other formats are compared with: read by npyz.
fn array(folder: &Path, name: &str) -> Vec<(String, Vec<f32>)> {
    let npy = npyz::NpyFile::new(std::fs::File::open(folder.join(name)).unwrap()).unwrap();
    let columns = npy.shape()[1] as usize;
    let numbers: Vec<f32> = npy.into_vec().unwrap();
    let list = std::fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
    list.lines().map(str::to_owned).zip(numbers.chunks(columns).map(<[f32]>::to_vec)).collect()
}

#[test]
fn every_format_has_the_same_rows_and_is_read_by_its_own_reader() {
    let folder = workplace();
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let embed = |name: &str| {
        let output = run(folder, &format!("embed run data --json --out {}", at(name).display()));
        assert_eq!(output.status.code(), Some(1), "a picture is left out: {}", stderr(&output));
        document(&output)
    };
    let outcome = embed("x.npy");
    let wanted = array(out.path(), "x.npy");
    assert_eq!((wanted.len(), outcome["rows"].as_u64(), outcome["format"].as_str()), (151, Some(151), Some("npy")));
    assert_eq!(wanted[0].0, "data/class0/000.png");
    assert_eq!(rows(&at("x.npy")), wanted);
    let left_out = std::fs::read_to_string(at("x.npy.left-out.txt")).unwrap();
    assert!(left_out.starts_with("data/class3/bad.png\tcannot be decoded") && left_out.lines().count() == 1);
    assert!(outcome["left_out_list"].as_str().unwrap().ends_with("x.npy.left-out.txt"));
    let idle = outcome["pace"]["device_idle"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&idle) && outcome["pace"]["pictures"] == 152, "{}", outcome["pace"]);

    assert!(embed("x.safetensors")["list"].is_null());
    let bytes = std::fs::read(at("x.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let embeddings = tensors.tensor("embeddings").unwrap();
    assert_eq!(embeddings.shape(), [151, wanted[0].1.len()]);
    assert_eq!(embeddings.dtype(), safetensors::Dtype::F32);
    let numbers: Vec<u8> = wanted.iter().flat_map(|(_, row)| row.iter().flat_map(|x| x.to_le_bytes())).collect();
    assert!(embeddings.data() == numbers);
    let paths = std::str::from_utf8(tensors.tensor("paths").unwrap().data()).unwrap();
    assert!(paths.lines().eq(wanted.iter().map(|(path, _)| path.as_str())));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["layer"], "feat");
    assert_eq!(rows(&at("x.safetensors")), wanted);

    embed("x.csv");
    let mut reader = csv::Reader::from_path(at("x.csv")).unwrap();
    assert_eq!(reader.headers().unwrap().iter().take(2).collect::<Vec<_>>(), ["path", "e0"]);
    let read: Vec<(String, Vec<f32>)> = reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(read, wanted);
    assert_eq!(rows(&at("x.csv")), wanted);

    embed("x.jsonl");
    let text = std::fs::read_to_string(at("x.jsonl")).unwrap();
    let read = text.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let numbers = value["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
        (value["path"].as_str().unwrap().to_owned(), numbers.collect::<Vec<_>>())
    });
    assert!(read.eq(wanted.iter().cloned()));
    assert_eq!(rows(&at("x.jsonl")), wanted);

    #[cfg(feature = "parquet")]
    {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        use parquet::record::RowAccessor;
        embed("x.parquet");
        let reader = SerializedFileReader::new(std::fs::File::open(at("x.parquet")).unwrap()).unwrap();
        let read = reader.get_row_iter(None).unwrap().map(|row| {
            let row = row.unwrap();
            let list = row.get_list(1).unwrap();
            let numbers = list.elements().iter().map(|field| match field {
                parquet::record::Field::Float(x) => *x,
                other => panic!("{other}"),
            });
            (row.get_string(0).unwrap().clone(), numbers.collect::<Vec<_>>())
        });
        assert!(read.eq(wanted.iter().cloned()));
        assert_eq!(rows(&at("x.parquet")), wanted);
    }
    // The format may be given; another ending is an array, as ever.
    let words = format!("embed run data/class0 --quiet --format csv --out {}", at("y.dat").display());
    succeeds(folder, &words);
    assert!(std::fs::read_to_string(at("y.dat")).unwrap().starts_with("path,e0,"));
    succeeds(folder, &format!("embed run data/class0 --out {}", at("z.dat").display()));
    assert!(std::fs::read(at("z.dat")).unwrap().starts_with(b"\x93NUMPY") && at("z.txt").exists());
    // No part file is left, and the list of what is left out goes with the next call that leaves nothing out.
    succeeds(folder, &format!("embed run data/class0 --out {}", at("x.npy").display()));
    let names: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{names:?}");
    assert!(!at("x.npy.left-out.txt").exists());
}

/// Embeds until some rows are in the part file, and kills the process.
fn kill_in_the_middle(folder: &Path, words: &str, part: &Path) -> u64 {
    let mut child = command(folder, words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let size = || part.metadata().map_or(0, |about| about.len());
    while size() < 4000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(begun.elapsed() < Duration::from_secs(120), "no rows came");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    size()
}

#[test]
fn a_killed_call_goes_on_without_computing_or_doubling_a_row() {
    let folder = workplace();
    let own = tempfile::tempdir().unwrap();
    let many = own.path().join("many");
    for i in 0..3000 {
        picture(&many.join(format!("{:02}/{i:04}.png", i % 10)), 16, i);
    }
    for i in [5, 700, 2900] {
        std::fs::write(many.join(format!("{:02}/{i:04}.png", i % 10)), "no picture").unwrap();
    }
    let at = |name: &str| own.path().join(name);
    let words = |name: &str| format!("embed {} many --json --out {name}", folder.join("run").display());
    let whole = run(own.path(), &words("whole.safetensors"));
    assert_eq!(whole.status.code(), Some(1), "{}", stderr(&whole));
    assert_eq!(document(&whole)["rows"], 2997);

    let part = at("x.safetensors.part");
    kill_in_the_middle(own.path(), &words("x.safetensors"), &part);
    assert!(!at("x.safetensors").exists(), "the output is whole or not there");
    // What it was begun with has to be the same, and another call does not take it away.
    let before = std::fs::read(&part).unwrap();
    fails(own.path(), &words("x.safetensors"), 2, &["x.safetensors.part: ", "--resume", "or remove the file"]);
    let resume = |more: &str| format!("{} --resume {more}", words("x.safetensors"));
    fails(own.path(), &resume("--normalise"), 2, &["was begun without --normalise", "remove the file to begin anew"]);
    fails(own.path(), &resume("--layer class"), 2, &["was begun with another --layer, feat"]);
    fails(own.path(), &resume("--strict"), 2, &["was begun without --strict"]);
    picture(&many.join("00/9999.png"), 16, 9999);
    fails(own.path(), &resume(""), 2, &["was begun with other pictures, 3000 of them and now 3001"]);
    std::fs::rename(many.join("00/9999.png"), own.path().join("aside.png")).unwrap();
    let stamp = many.join("09/2999.png");
    let time = stamp.metadata().unwrap().modified().unwrap();
    std::fs::File::options().write(true).open(&stamp).unwrap().set_modified(time + Duration::from_secs(9)).unwrap();
    fails(own.path(), &resume(""), 2, &["was begun with other pictures: some were renamed or changed since"]);
    std::fs::File::options().write(true).open(&stamp).unwrap().set_modified(time).unwrap();
    let other = resume("").replace(&folder.join("run").display().to_string(), "other.safetensors");
    let mut checkpoint =
        ieq_wgpu::train::checkpoint::Checkpoint::load(folder.join("run/checkpoint.safetensors")).unwrap();
    checkpoint.metadata.insert("note".into(), "another file".into());
    checkpoint.save(at("other.safetensors")).unwrap();
    fails(own.path(), &other, 2, &["was begun with another checkpoint"]);
    assert!(std::fs::read(&part).unwrap() == before, "none of these has changed the part file");

    // Cut off in the middle of a record, as when the power fails.
    std::fs::write(&part, &before[..before.len() - 7]).unwrap();
    let output = run(own.path(), &resume(""));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let outcome = document(&output);
    let resumed = outcome["resumed"].as_u64().unwrap();
    assert!(resumed > 0 && outcome["pace"]["pictures"].as_u64().unwrap() + resumed <= 3000, "{outcome}");
    assert_eq!(outcome["left_out"].as_array().unwrap().len(), 3);
    assert!(!part.exists());
    assert!(std::fs::read(at("x.safetensors")).unwrap() == std::fs::read(at("whole.safetensors")).unwrap());
    let list = |name: &str| std::fs::read_to_string(at(&format!("{name}.left-out.txt"))).unwrap();
    assert_eq!(list("x.safetensors"), list("whole.safetensors"));

    // Killed twice, in another format.
    succeeds_with_one(own.path(), &words("whole.npy"));
    let part = at("y.npy.part");
    kill_in_the_middle(own.path(), &words("y.npy"), &part);
    let before = part.metadata().unwrap().len();
    let mut child = command(own.path(), &format!("{} --resume", words("y.npy")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while part.metadata().map_or(u64::MAX, |about| about.len()) <= before {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    succeeds_with_one(own.path(), &format!("{} --resume", words("y.npy")));
    for ending in ["npy", "txt"] {
        let read = |name: &str| std::fs::read(at(&format!("{name}.{ending}"))).unwrap();
        assert!(read("y") == read("whole"), "{ending}");
    }
    // Nothing to go on with is no mistake.
    succeeds(own.path(), &format!("embed {} aside.png --resume --out z.npy", folder.join("run").display()));
}

fn succeeds_with_one(folder: &Path, words: &str) {
    let output = run(folder, words);
    assert_eq!(output.status.code(), Some(1), "{words}: {}", stderr(&output));
}

#[test]
fn an_earlier_extraction_is_compared_by_path() {
    let folder = workplace();
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name).display().to_string();
    succeeds(folder, &format!("embed run data/class0 data/class1 --out {}", at("a.csv")));
    // Other order, a class less, another format: the same rows.
    let words = format!("embed run data/class1 --out {} --compare {} --json", at("b.npy"), at("a.csv"));
    let comparison = document(&succeeds(folder, &words))["comparison"].clone();
    assert_eq!(comparison["rows"], 25);
    assert_eq!((&comparison["only_here"], &comparison["only_there"]), (&0.into(), &26.into()));
    assert_eq!((comparison["largest_relative"].as_f64(), comparison["tolerance"].as_f64()), (Some(0.0), Some(1e-4)));
    // The pictures of another machine lie elsewhere.
    let text = std::fs::read_to_string(at("a.csv")).unwrap().replace("data/", "C:\\photos\\");
    std::fs::write(at("moved.csv"), &text).unwrap();
    let words = format!("embed run data/class0 data/class1 --out {} --compare {} --json", at("c.npy"), at("moved.csv"));
    assert_eq!(document(&succeeds(folder, &words))["comparison"]["rows"], 51);
    // A number that differs is found.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines[9].rfind(',').unwrap();
    lines[9].replace_range(last.., ",12345");
    std::fs::write(at("wrong.csv"), lines.join("\n")).unwrap();
    let words = words.replace("moved", "wrong");
    fails(folder, &words, 1, &["wrong.csv by", "beyond --tolerance 1e-4", "class0"]);
    succeeds(folder, &format!("{words} --tolerance 1"));
    // Another layer has other columns; other pictures have no row in common.
    let words = format!("embed run data/class0 --layer class --out {} --compare {}", at("d.npy"), at("a.csv"));
    fails(folder, &words, 2, &["a.csv: has", "take the same --layer"]);
    let words = format!("embed run train/train/class0/0.png --out {} --compare {}", at("e.npy"), at("a.csv"));
    fails(folder, &words, 2, &["a.csv: has no row whose path"]);
    fails(folder, &format!("embed run data/class0 --out {0} --compare {0}", at("a.csv")), 2, &["--out would replace"]);
}

#[test]
fn files_of_the_user_are_not_replaced_and_results_may_lie_among_pictures() {
    let folder = workplace();
    let own = tempfile::tempdir().unwrap();
    for i in 0..3 {
        picture(&own.path().join(format!("{i}.png")), 16, i);
    }
    let run = folder.join("run").display().to_string();
    for name in ["labels.csv", "notes.jsonl", "weights.safetensors"] {
        let path: PathBuf = own.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(b"my own work\n").unwrap();
        fails(
            own.path(),
            &format!("embed {run} 0.png --out {name}"),
            2,
            &[name, "holds no embeddings", "name another --out"],
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"my own work\n");
        std::fs::remove_file(path).unwrap();
    }
    let words = format!("embed {run} 0.png --out {run}/checkpoint.safetensors");
    fails(own.path(), &words, 2, &["checkpoint.safetensors", "holds no embeddings"]);
    std::fs::write(own.path().join("x.npy.part"), "a diary").unwrap();
    fails(own.path(), &format!("embed {run} 0.png --out x.npy --resume"), 2, &["x.npy.part: this is no part file"]);
    std::fs::remove_file(own.path().join("x.npy.part")).unwrap();
    for name in ["x.npy", "x.csv", "x.jsonl", "x.safetensors"] {
        for _ in 0..2 {
            let output = succeeds(own.path(), &format!("embed {run} . --json --out {name}"));
            assert_eq!(document(&output)["rows"], 3, "{name}");
        }
    }
    #[cfg(not(feature = "parquet"))]
    fails(own.path(), &format!("embed {run} . --out x.parquet"), 2, &["x.parquet: this build does not know Parquet"]);
}
