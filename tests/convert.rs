//! Data sets written in every format and read back as the same classes, pictures and splits. No GPU.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;
#[path = "common/says.rs"]
mod says;

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use ieq_wgpu::Error;
use ieq_wgpu::data::convert::{Format, Written, convert};
use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::progress::{Progress, Silent};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use says::says;
use tempfile::TempDir;

fn options() -> DataOptions {
    DataOptions::default()
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(seed: u8) -> Vec<u8> {
    encode(RgbImage::from_fn(6, 6, |x, y| Rgb([seed, 9 * x as u8, 7 * y as u8])), ImageFormat::Png)
}

fn gray(seed: u8) -> Vec<u8> {
    encode(GrayImage::from_fn(6, 6, |x, y| Luma([seed.wrapping_add((9 * x + 40 * y) as u8)])), ImageFormat::Png)
}

fn write(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Class folders below split folders; classes are called by numbers where `numbers` says so.
fn tree(root: &Path, picture: fn(u8) -> Vec<u8>, numbers: bool) {
    for (s, (split, classes)) in [("train", 3), ("val", 2), ("test", 2)].into_iter().enumerate() {
        for class in 0..classes {
            for i in 0..3 {
                let name = if numbers { format!("{}", 3 * s + class) } else { format!("{split} {class}") };
                write(root, &format!("{split}/{name}/p{i}.png"), &picture((60 * s + 15 * class + 4 * i) as u8));
            }
        }
    }
}

/// The pictures of every class, in order.
fn content(set: &ImageSet) -> BTreeMap<String, Vec<Vec<u32>>> {
    let classes = set.by_class();
    let pictures = |class: &Vec<u32>| class.iter().map(|&i| set.image(i as usize).to_vec()).collect();
    set.class_names.iter().cloned().zip(classes.iter().map(pictures)).collect()
}

fn read(path: &Path, split: Split) -> BTreeMap<String, Vec<Vec<u32>>> {
    content(&load(path.to_str().unwrap(), split, &options()).unwrap_or_else(|error| panic!("{error}")))
}

fn written(source: &Path, format: Format, out: &Path) -> ieq_wgpu::Result<Vec<Written>> {
    convert(source.to_str().unwrap(), format, out, (&options(), 4), &mut Silent)
}

fn tmp() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Nothing of an unfinished conversion is left beside.
fn is_clean(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| !entry.unwrap().file_name().to_str().unwrap().starts_with(".writing-"))
}

#[test]
fn every_format_to_every_other_and_back() {
    let dir = tmp();
    let source = dir.path().join("source");
    // What all formats hold: gray pictures of classes that are called by numbers.
    tree(&source, gray, true);
    let expected: Vec<_> = Split::ALL.iter().map(|&split| read(&source, split)).collect();
    for one in Format::ALL {
        let first = dir.path().join(one.name());
        let splits = written(&source, one, &first).unwrap_or_else(|error| panic!("{}: {error}", one.name()));
        let counts: Vec<_> = splits.iter().map(|w| (w.split.unwrap(), w.classes, w.pictures)).collect();
        assert_eq!(counts, [("train", 3, 9), ("val", 2, 6), ("test", 2, 6)], "{}", one.name());
        for other in Format::ALL {
            let second = dir.path().join(format!("{}-{}", one.name(), other.name()));
            written(&first, other, &second).unwrap_or_else(|error| panic!("{}: {error}", second.display()));
            let back = dir.path().join(format!("{}-{}-back", one.name(), other.name()));
            written(&second, one, &back).unwrap_or_else(|error| panic!("{}: {error}", back.display()));
            for (split, expected) in Split::ALL.iter().zip(&expected) {
                for path in [&first, &second, &back] {
                    assert_eq!(read(path, *split), *expected, "{split} of {}", path.display());
                }
            }
        }
    }
    assert!(is_clean(dir.path()));
}

#[test]
fn data_without_splits_is_split_by_seed_as_before() {
    let dir = tmp();
    let source = dir.path().join("source");
    for class in 0..10 {
        (0..2).for_each(|i| write(&source, &format!("c{class}/{i}.png"), &png(20 * class + i)));
    }
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Idx) {
        let out = dir.path().join(format.name());
        let splits = written(&source, format, &out).unwrap();
        assert_eq!(splits, [Written { split: None, classes: 10, pictures: 20 }]);
        for split in [Split::Train, Split::Val, Split::Novel, Split::All] {
            assert_eq!(read(&out, split), read(&source, split), "{split} of {}", format.name());
        }
    }
    // Few classes without splits stay without; and a file splits any.
    let few = dir.path().join("few");
    (0..3).for_each(|class| write(&few, &format!("c{class}/1.png"), &png(class)));
    assert_eq!(written(&few, Format::Tar, &dir.path().join("few.tars")).unwrap()[0].split, None);
    write(dir.path(), "split.json", br#"{"train": ["c0", "c2"], "novel": ["c1"]}"#);
    let options = DataOptions { split_file: Some(dir.path().join("split.json")), ..options() };
    let out = dir.path().join("by_file");
    let splits = convert(few.to_str().unwrap(), Format::Folder, &out, (&options, 1), &mut Silent).unwrap();
    assert_eq!(splits.iter().map(|w| (w.split.unwrap(), w.classes)).collect::<Vec<_>>(), [("train", 2), ("test", 1)]);
    assert!(out.join("test/c1/1.png").is_file());
}

/// Classes that are numbers of one and of two digits: folders get names whose order is that of the numbers, so that the seed
/// splits them as before.
#[test]
fn numbers_keep_their_order() {
    let root = tmp();
    let at = |name: &str| root.path().join(name);
    for class in 0..12 {
        for i in 0..2 {
            write(&at("folders"), &format!("{class:02}/{i}.png"), &png(20 * class + i));
        }
    }
    written(&at("folders"), Format::Npz, &at("arrays")).unwrap();
    let splits = |path: &Path| {
        let pictures = |split| read(path, split).into_values().collect::<Vec<_>>();
        [Split::Train, Split::Val, Split::Novel].map(pictures)
    };
    for format in [Format::Folder, Format::Zip, Format::Tar, Format::Pickle] {
        let out = at(format.name());
        written(&at("arrays"), format, &out).unwrap();
        assert_eq!(splits(&out), splits(&at("folders")), "{}", format.name());
    }
    // The other way the order is another, which is said.
    for class in 0..12 {
        write(&at("odd"), &format!("{class}/0.png"), &png(20 * class));
    }
    let mut heard = Listener { warnings: Vec::new(), left: u32::MAX };
    convert(at("odd").to_str().unwrap(), Format::Tar, &at("odd-tar"), (&options(), 4), &mut heard).unwrap();
    assert!(
        heard.warnings.iter().any(|warning| warning.contains("a split by seed is another one")),
        "{:?}",
        heard.warnings
    );
    // Blanks around a class would be lost.
    write(&at("blank"), "train/a /0.png", &png(1));
    says(written(&at("blank"), Format::Tar, &at("blank-tar")), &["\"a \"", "without blanks around it"]);
}

#[test]
fn files_keep_their_bytes_and_names() {
    let dir = tmp();
    let source = dir.path().join("source");
    let files: [(&str, Vec<u8>); 6] = [
        (
            "train/größe q/a b.png",
            encode(
                DynamicImage::ImageLuma16(image::ImageBuffer::from_fn(6, 6, |x, y| Luma([(x * 9000 + y) as u16]))),
                ImageFormat::Png,
            ),
        ),
        ("train/größe q/b.gif", encode(RgbImage::from_pixel(6, 6, Rgb([1, 200, 3])), ImageFormat::Gif)),
        (
            "train/größe q/c.PNG",
            encode(
                image::RgbaImage::from_fn(6, 6, |x, y| image::Rgba([9, x as u8, 3, y as u8 * 40])),
                ImageFormat::Png,
            ),
        ),
        ("train/Größe q/d.tga", encode(RgbImage::from_pixel(6, 6, Rgb([7, 8, 9])), ImageFormat::Tga)),
        ("val/alphabet/character/1.jpg", encode(RgbImage::from_pixel(6, 6, Rgb([70, 80, 90])), ImageFormat::Jpeg)),
        ("val/alphabet/other%2F/2.bmp", png(3)),
    ];
    for (name, bytes) in &files {
        write(&source, name, bytes);
    }
    let mut last = source.clone();
    for (i, format) in [Format::Folder, Format::Zip, Format::Folder].into_iter().enumerate() {
        let out = dir.path().join(format!("{i}"));
        written(&last, format, &out).unwrap();
        for split in [Split::Train, Split::Val] {
            assert_eq!(read(&out, split), read(&source, split));
        }
        last = out;
    }
    for (name, bytes) in &files {
        assert_eq!(&fs::read(last.join(name)).unwrap(), bytes, "{name}");
    }
    // In shards the bytes stay, and the classes are text.
    let (shards, back) = (dir.path().join("shards"), dir.path().join("back"));
    written(&source, Format::Tar, &shards).unwrap();
    let names = |folder: &Path| {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&shards), ["train-000000.tar", "val-000000.tar"]);
    written(&shards, Format::Folder, &back).unwrap();
    for split in [Split::Train, Split::Val] {
        assert_eq!(read(&shards, split), read(&source, split));
        assert_eq!(read(&back, split), read(&source, split));
    }
    let again = dir.path().join("again");
    written(&source, Format::Tar, &again).unwrap();
    assert_eq!(fs::read(shards.join("train-000000.tar")).unwrap(), fs::read(again.join("train-000000.tar")).unwrap());
    // At most four pictures in each of these.
    let many = dir.path().join("many");
    (0..9).for_each(|i| write(&many, &format!("x/c{}/{i}.png", i % 2), &png(i)));
    written(&many, Format::Tar, &dir.path().join("fours")).unwrap();
    assert_eq!(names(&dir.path().join("fours")), ["data-000000.tar", "data-000001.tar", "data-000002.tar"]);
    assert_eq!(read(&dir.path().join("fours"), Split::All), read(&many, Split::All));
}

/// Remembers warnings, and stops after some pictures.
struct Listener {
    warnings: Vec<String>,
    left: u32,
}

impl Progress for Listener {
    fn step(&mut self, _: &ieq_wgpu::progress::StepReport) {}
    fn advance(&mut self, _: &str, _: u64, _: u64) {
        self.left = self.left.saturating_sub(1);
    }
    fn note(&mut self, _: &str) {}
    fn warn(&mut self, sentence: &str) {
        self.warnings.push(sentence.to_owned());
    }
    fn stop_requested(&self) -> bool {
        self.left == 0
    }
}

fn tar_of(samples: &[(&str, u8)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for (i, (class, seed)) in samples.iter().enumerate() {
        add(format!("{i}.png"), &png(*seed));
        add(format!("{i}.cls"), class.as_bytes());
    }
    builder.into_inner().unwrap()
}

#[test]
fn classes_that_are_no_folders_get_other_names_or_a_sentence() {
    let dir = tmp();
    let shard = |name: &str, classes: &[&str]| {
        let samples: Vec<(&str, u8)> = classes.iter().copied().zip(0..).collect();
        write(dir.path(), name, &tar_of(&samples));
        dir.path().join(name)
    };
    let odd = ["a", "a/b", "..", ".hidden", "Thumbs.db", "con", "A", "x:y?"];
    let source = shard("odd.tar", &odd);
    for format in [Format::Folder, Format::Zip] {
        let out = dir.path().join(format.name());
        let mut listener = Listener { warnings: Vec::new(), left: u32::MAX };
        convert(source.to_str().unwrap(), format, &out, (&options(), 9), &mut listener).unwrap();
        let read = read(&out, Split::All);
        assert_eq!(
            read.keys().collect::<Vec<_>>(),
            ["%2E%2E", "%2Ehidden", "%Thumbs.db", "%con", "A", "a", "a%2Fb", "x%3Ay%3F"]
        );
        assert_eq!(listener.warnings.len(), 1, "{:?}", listener.warnings);
        assert!(listener.warnings[0].contains("6 classes are folders of other names"), "{:?}", listener.warnings);
    }
    // Names that are too long for a folder, of which two begin alike.
    let long = ["a", "b"].map(|last| "ü".repeat(200) + last);
    let long = shard("long.tar", &[&long[0], &long[1]]);
    for format in [Format::Folder, Format::Zip] {
        let out = dir.path().join(format!("long-{}", format.name()));
        written(&long, format, &out).unwrap();
        let classes = read(&out, Split::All);
        assert!(classes.len() == 2 && classes.keys().all(|class| class.len() <= 200 && class.starts_with("üü")));
    }
    for format in [Format::Tar, Format::Npz, Format::Pickle] {
        let out = dir.path().join(format.name());
        written(&source, format, &out).unwrap();
        assert_eq!(read(&out, Split::All), read(&source, Split::All), "{}", format.name());
    }
    for (name, classes) in [("split.tar", &["train", "val"][..]), ("same.tar", &["a/b", "a%2Fb", "a"])] {
        let source = shard(name, classes);
        says(
            written(&source, Format::Folder, &dir.path().join("refused")),
            &["class folders do not suit", "tar or npz"],
        );
    }
    says(written(&source, Format::Idx, &dir.path().join("refused")), &["has colour", "npz"]);
    assert!(!dir.path().join("refused").exists() && is_clean(dir.path()));
}

#[test]
fn sizes_places_and_what_stops_it() {
    let dir = tmp();
    let source = dir.path().join("source");
    tree(&source, png, false);
    write(&source, "val/val 0/p9.png", &encode(RgbImage::from_pixel(8, 5, Rgb([1, 2, 3])), ImageFormat::Png));
    let out = dir.path().join("out");
    for format in [Format::Npz, Format::Pickle] {
        says(written(&source, format, &out), &["p9.png", "set the side"]);
    }
    let sided = DataOptions { side: Some(4), ..options() };
    for format in Format::ALL.into_iter().filter(|format| *format != Format::Idx) {
        let out = dir.path().join(format!("side-{}", format.name()));
        convert(source.to_str().unwrap(), format, &out, (&sided, 9), &mut Silent).unwrap();
        let expected = content(&load(source.to_str().unwrap(), Split::Val, &sided).unwrap());
        assert_eq!(read(&out, Split::Val), expected, "{}", format.name());
    }
    // Never inside of the source, nor over something.
    says(written(&source, Format::Zip, &source.join("x/y.zip")), &["y.zip", "lies inside"]);
    assert!(!source.join("x").exists());
    says(written(&source, Format::Zip, &source), &["source", "is not empty"]);
    fs::write(&out, b"something").unwrap();
    says(written(&source, Format::Zip, &out), &["out", "is not empty"]);
    assert_eq!(fs::read(&out).unwrap(), b"something");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    written(&source, Format::Folder, &empty).unwrap();
    assert_eq!(read(&empty, Split::Train), read(&source, Split::Train));
    // What is stopped leaves nothing.
    for format in Format::ALL {
        let mut listener = Listener { warnings: Vec::new(), left: 3 };
        let stopped = dir.path().join("stopped");
        let made = convert(source.to_str().unwrap(), format, &stopped, (&sided, 9), &mut listener);
        assert!(matches!(made, Err(Error::Interrupted(_) | Error::Data { .. })), "{made:?}");
        assert!(!stopped.exists() && is_clean(dir.path()));
    }
    // Glyphs are gray, and too many for the bytes of idx's labels only above 256 classes.
    let glyphs: PathBuf = dir.path().join("glyphs");
    convert("glyphs", Format::Idx, &glyphs, (&options(), 1), &mut Silent).unwrap();
    let train = load("glyphs", Split::Train, &options()).unwrap();
    let read_back = load(glyphs.to_str().unwrap(), Split::Train, &options()).unwrap();
    assert_eq!((read_back.pixels, read_back.labels), (train.pixels, train.labels));
}

/// The files below a folder, by path.
fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    found
}

/// Killed at random moments, a call leaves nothing at its place that is not whole, and the next removes what it had begun.
#[test]
fn a_killed_call_leaves_no_half_of_a_data_set() {
    let dir = tmp();
    for class in 0..6 {
        (0..50).for_each(|i| {
            write(&dir.path().join("source"), &format!("class {class}/{i:02}.png"), &png(40 * class + i))
        });
    }
    let begun = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".writing-")).count()
    };
    for format in ["folder", "zip", "tar", "npz"] {
        let at = dir.path().join(format);
        fs::create_dir(&at).unwrap();
        let words = |out: &str| format!("convert source --to {format} --side 64 --out {format}/{out}");
        let started = std::time::Instant::now();
        program::succeeds(dir.path(), &words("expected"));
        let whole = started.elapsed();
        let content = |out: &str| match at.join(out).is_file() {
            true => BTreeMap::from([(PathBuf::new(), fs::read(at.join(out)).unwrap())]),
            false => files_below(&at.join(out)),
        };
        let expected = content("expected");
        let mut killed = 0;
        for i in 0..12 {
            let mut child = program::command(dir.path(), &words("out"))
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // Moments that are spread over the whole of a call, and not in order.
            std::thread::sleep(whole.mul_f64(f64::from(i * 5 % 12) / 12.0 + 0.03));
            child.kill().unwrap();
            killed += u32::from(child.wait().unwrap().code().is_none());
            assert!(begun(&at) <= 1, "{format}: each call removes what those before had begun");
            if at.join("out").exists() {
                assert!(content("out") == expected, "{format}: what is there is whole");
                let _ = fs::remove_dir_all(at.join("out")).or_else(|_| fs::remove_file(at.join("out")));
            }
        }
        assert!(killed > 3, "{format}: {killed} calls were killed");
        program::succeeds(dir.path(), &words("out"));
        assert!(content("out") == expected, "{format}");
        assert_eq!(begun(&at), 0, "{format}");
    }
}

/// What a live process is writing is left to it.
#[test]
fn two_calls_do_not_write_one_place() {
    let dir = tmp();
    write(&dir.path().join("source"), "a/1.png", &png(1));
    write(&dir.path().join("source"), "b/1.png", &png(2));
    let out = dir.path().join("out");
    let held = ieq_wgpu::files::Workplace::open(&out).unwrap();
    fs::write(held.whole(), b"begun").unwrap();
    says(written(&dir.path().join("source"), Format::Folder, &out), &["out", "another process", "wait for its end"]);
    assert_eq!(fs::read(held.whole()).unwrap(), b"begun");
    drop(held);
    written(&dir.path().join("source"), Format::Folder, &out).unwrap();
    assert!(out.join("a/1.png").is_file() && is_clean(dir.path()));
}
