//! `audit` on glyphs with planted faults: what is planted is found, and what is whole is left alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use program::{files, run, save, save_glyph, succeeds};
use tempfile::TempDir;

/// Six classes of twelve glyphs under `data`, and a network that was trained on other glyphs for a moment.
fn workplace() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        succeeds(
            folder.path(),
            "train --preset demo --no-eval --batch 32 --steps 100 --out run --quiet --validate-every 0",
        );
        for class in 0..6 {
            for n in 1..13 {
                save_glyph(&folder.path().join(format!("data/class{class}/{n:02}.png")), class, n - 1);
            }
        }
        folder
    });
    folder.path()
}

fn open(path: &Path) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

/// The findings of a kind: path and other path below `root`.
fn of_kind(outcome: &serde_json::Value, kind: &str, root: &str) -> BTreeSet<(String, String)> {
    let short = |value: &serde_json::Value| {
        value.as_str().unwrap_or("").replace('\\', "/").trim_start_matches(&format!("{root}/")).to_owned()
    };
    let findings = outcome["findings"].as_array().unwrap().iter().filter(|finding| finding["finding"] == kind);
    findings.map(|finding| (short(&finding["path"]), short(&finding["other"]))).collect()
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_all(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

#[test]
fn planted_faults_are_found_and_nothing_is_changed() {
    let root = workplace();
    let own = tempfile::tempdir().unwrap();
    let spoilt = own.path().join("spoilt");
    std::fs::create_dir(&spoilt).unwrap();
    copy_all(&root.join("data"), &spoilt);
    let at = |name: &str| spoilt.join(name);
    // Copies: the file, its pixels in another file, and four that are changed a little.
    std::fs::copy(at("class0/01.png"), at("class0/z-same.png")).unwrap();
    save(&at("class3/z-pixels.bmp"), &open(&at("class1/02.png")), ImageFormat::Bmp);
    let picture = open(&at("class2/03.png"));
    save(&at("class2/z-jpeg.jpg"), &picture, ImageFormat::Jpeg);
    let shifted = RgbImage::from_fn(28, 28, |x, y| *picture.get_pixel(x.saturating_sub(1), y));
    let picture = open(&at("class2/04.png"));
    save(&at("class2/z-shifted.png"), &shifted, ImageFormat::Png);
    save(&at("class2/z-large.png"), &imageops::resize(&picture, 42, 42, FilterType::CatmullRom), ImageFormat::Png);
    let darker = RgbImage::from_fn(28, 28, |x, y| Rgb(open_pixel(&at("class4/05.png"), x, y).map(|v| (v / 3) * 2 + 9)));
    save(&at("class5/z-dark.png"), &darker, ImageFormat::Png);
    // Bad pictures.
    std::fs::write(at("class0/z-broken.png"), "no picture").unwrap();
    save(
        &at("class1/z-tiny.png"),
        &imageops::resize(&open(&at("class1/05.png")), 9, 9, FilterType::Triangle),
        ImageFormat::Png,
    );
    save(&at("class1/z-blank.png"), &RgbImage::from_pixel(28, 28, Rgb([77, 77, 78])), ImageFormat::Png);
    save(&at("class4/z-blurred.png"), &imageops::blur(&open(&at("class4/07.png")), 3.0), ImageFormat::Png);
    // A picture in another class's folder.
    std::fs::rename(at("class5/09.png"), at("class0/z-wrong.png")).unwrap();

    let before = files(&spoilt);
    let words = format!("audit spoilt --model {} --json --csv a.csv --sheet a.png", root.join("run").display());
    let outcome: serde_json::Value = serde_json::from_slice(&succeeds(own.path(), &words).stdout).unwrap();
    assert!(before == files(&spoilt), "nothing is changed");
    let found = |kind: &str| of_kind(&outcome, kind, "spoilt");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!((outcome["pictures"].as_u64(), outcome["classes"].as_u64()), (Some(82), Some(6)));
    assert_eq!(found("unreadable"), [pair("class0/z-broken.png", "")].into());
    assert_eq!(
        found("duplicate"),
        [pair("class0/z-same.png", "class0/01.png"), pair("class3/z-pixels.bmp", "class1/02.png")].into()
    );
    assert_eq!(
        found("near-duplicate"),
        [
            pair("class2/z-jpeg.jpg", "class2/03.png"),
            pair("class2/z-large.png", "class2/04.png"),
            pair("class2/z-shifted.png", "class2/03.png"),
            pair("class5/z-dark.png", "class4/05.png"),
        ]
        .into()
    );
    assert_eq!(found("tiny"), [pair("class1/z-tiny.png", "")].into());
    assert_eq!(found("blank"), [pair("class1/z-blank.png", "")].into());
    assert!(found("blurred").contains(&pair("class4/z-blurred.png", "")), "{:?}", found("blurred"));
    let labels: BTreeSet<String> = found("label").into_iter().map(|(path, _)| path).collect();
    for wrong in ["class0/z-wrong.png", "class3/z-pixels.bmp"] {
        assert!(labels.contains(wrong), "{wrong}: {labels:?}");
    }
    assert!(labels.len() <= 6, "{labels:?}");
    let copy = outcome["findings"].as_array().unwrap().iter().find(|f| f["path"] == "spoilt/class5/z-dark.png");
    assert!(copy.unwrap()["reason"].as_str().unwrap().ends_with("in another class: class5 and class4"), "{copy:?}");

    // The table has the same, and the sheet is a picture.
    let mut reader = csv::Reader::from_path(own.path().join("a.csv")).unwrap();
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), ["finding", "path", "other", "score", "reason"]);
    assert_eq!(reader.records().count(), outcome["findings"].as_array().unwrap().len());
    assert!(open(&own.path().join("a.png")).width() > 300);
    // Again over its own results; for people; and with a code.
    let words = words.replace(" --json", " --fail-on-findings --only tiny,blank");
    let output = run(own.path(), &words);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        out.contains("found: 1 tiny, 1 blank") && out.contains("class1/z-tiny.png") && !out.contains("z-dark"),
        "{out}"
    );
    assert!(err.trim_end().ends_with("put right what is wrong, or leave --fail-on-findings out"), "{err}");
}

fn open_pixel(path: &Path, x: u32, y: u32) -> [u8; 3] {
    open(path).get_pixel(x, y).0
}

#[test]
fn zips_splits_and_pictures_without_classes_are_taken() {
    let root = workplace();
    let own = tempfile::tempdir().unwrap();
    let run = root.join("run").display().to_string();
    let audit = |words: &str| -> (serde_json::Value, String) {
        let output = succeeds(own.path(), &format!("audit {words} --model {run} --json"));
        (serde_json::from_slice(&output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // Without classes labels are not looked at, and that is said.
    for class in 0..3 {
        for i in 1..9 {
            let to = own.path().join(format!("flat/{class}-{i}.png"));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(root.join(format!("data/class{class}/0{i}.png")), to).unwrap();
        }
    }
    std::fs::copy(own.path().join("flat/1-1.png"), own.path().join("flat/9-9.png")).unwrap();
    let (outcome, said) = audit("flat");
    assert!(said.contains("25 pictures without classes: labels are not looked at"), "{said}");
    assert_eq!((outcome["classes"].as_u64(), of_kind(&outcome, "duplicate", "flat").len()), (Some(0), 1));
    assert!(!outcome["counts"].as_array().unwrap().iter().any(|count| count[0] == "label"));
    // Splits in a zip: a copy from one split to another.
    let mut zip = zip::ZipWriter::new(std::fs::File::create(own.path().join("set.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (class, split) in [(0, "train"), (1, "train"), (2, "novel"), (3, "novel")] {
        for i in 1..6 {
            zip.start_file(format!("set/{split}/class{class}/{i}.png"), options).unwrap();
            zip.write_all(&std::fs::read(root.join(format!("data/class{class}/0{i}.png"))).unwrap()).unwrap();
        }
    }
    zip.start_file("set/novel/class3/copy.png", options).unwrap();
    zip.write_all(&std::fs::read(root.join("data/class0/02.png")).unwrap()).unwrap();
    zip.finish().unwrap();
    let (outcome, _) = audit("set.zip");
    assert_eq!((outcome["pictures"].as_u64(), outcome["classes"].as_u64()), (Some(21), Some(4)));
    let copy = &outcome["findings"].as_array().unwrap()[0];
    // Files of a zip are in the order of their names: the split novel comes first.
    assert_eq!((&copy["finding"], &copy["path"]), (&"duplicate".into(), &"set.zip/set/train/class0/2.png".into()));
    assert!(copy["reason"].as_str().unwrap().ends_with("in another split: train and novel"), "{copy}");
    // One picture, and pictures that are all blank.
    save(&own.path().join("blank/a/1.png"), &RgbImage::from_pixel(28, 28, Rgb([0; 3])), ImageFormat::Png);
    assert_eq!(audit("flat/0-1.png").0["findings"], serde_json::json!([]));
    assert_eq!(of_kind(&audit("blank").0, "blank", "blank").len(), 1);
}
