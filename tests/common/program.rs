//! The program as a user calls it, in a folder of its own, and the pictures that it is given.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use ieq_wgpu::data::{self, DataOptions, ImageSet, Split};
use image::{ImageFormat, Rgb, RgbImage};

/// The program with words of a command line.
pub fn command(folder: &Path, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    command
        .args(words.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .env("XDG_RUNTIME_DIR", folder)
        .env("IEQ_CACHE_DIR", folder.join("cache"));
    command
}

pub fn run(folder: &Path, words: &str) -> Output {
    command(folder, words).output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn succeeds(folder: &Path, words: &str) -> Output {
    let output = run(folder, words);
    assert_eq!(output.status.code(), Some(0), "{words}: {}", stderr(&output));
    output
}

/// The command fails with this code, and its last line has all of `needles`; that line.
pub fn fails(folder: &Path, words: &str, code: i32, needles: &[&str]) -> String {
    let output = run(folder, words);
    let last = stderr(&output).trim_end().lines().last().unwrap_or_default().to_owned();
    assert_eq!(output.status.code(), Some(code), "{words}: {last}");
    for needle in needles {
        assert!(last.contains(needle), "{words}: nothing of `{needle}` in {last}");
    }
    last
}

/// What the command prints with `--json`.
pub fn json(folder: &Path, words: &str) -> serde_json::Value {
    document(&succeeds(folder, &format!("{words} --json")))
}

pub fn document(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

pub fn save(path: &Path, picture: &RgbImage, format: ImageFormat) {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes.into_inner()).unwrap();
}

/// Picture `instance` of a class of the glyphs that no network is trained on, as a file.
pub fn save_glyph(path: &Path, class: usize, instance: usize) {
    static NOVEL: OnceLock<ImageSet> = OnceLock::new();
    let novel = NOVEL.get_or_init(|| data::load("glyphs", Split::Novel, &DataOptions::default()).unwrap());
    let words = novel.image(novel.by_class()[class][instance] as usize);
    let side = novel.side as u32;
    let pixel = |x: u32, y: u32| {
        let [r, g, b, _] = words[(y * side + x) as usize].to_le_bytes();
        Rgb([r, g, b])
    };
    save(path, &RgbImage::from_fn(side, side, pixel), ImageFormat::Png);
}

/// All files below a folder, without what the program keeps for itself.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("cache") {
            continue;
        }
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}
