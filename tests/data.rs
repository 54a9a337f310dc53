//! Every data format written by the test itself and read back, and every kind of bad input answered
//! by a sentence that names the file and the way out. No GPU.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/damage.rs"]
mod damage;
#[path = "common/gzip.rs"]
mod gzip;
#[path = "common/says.rs"]
mod says;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use gzip::gzip;
use ieq_wgpu::data::{
    DataOptions, GLYPH_CLASSES, GLYPH_INSTANCES, GLYPH_SIDE, ImageSet, Split, WarningKind, draw, load, load_unlabelled,
    read_episodes, read_oneshot_runs,
};
use ieq_wgpu::{Error, Result};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use says::says;
use tempfile::TempDir;

fn options() -> DataOptions {
    DataOptions::default()
}

fn with_side(side: usize) -> DataOptions {
    DataOptions { side: Some(side), ..options() }
}

fn tmp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn rgb(width: u32, height: u32, seed: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([seed, (x * 7) as u8, (y * 5 + x) as u8]))
}

fn png(side: u32, seed: u8) -> Vec<u8> {
    encode(rgb(side, side, seed), ImageFormat::Png)
}

fn word(r: u8, g: u8, b: u8) -> u32 {
    u32::from_le_bytes([r, g, b, 255])
}

fn load_path(path: &Path, split: Split, options: &DataOptions) -> Result<ImageSet> {
    load(path.to_str().unwrap(), split, options)
}

#[track_caller]
fn check(set: &ImageSet, classes: &[&str], n: usize, side: usize) {
    assert_eq!(set.class_names, classes);
    assert_eq!((set.len(), set.labels.len(), set.side), (n, n, side));
    assert_eq!(set.pixels.len(), n * side * side);
    assert!(set.by_class().iter().all(|images| !images.is_empty()));
    assert_eq!(set.by_class().concat().len(), n);
}

/// `split/class/NN.png`; image pixels carry the seed `10 * class + i` in red.
fn folder_tree(root: &Path) {
    for (s, split) in ["train", "val", "novel"].into_iter().enumerate() {
        for class in 0..3 {
            for i in 0..2 {
                let seed = (100 * s + 10 * class + i) as u8;
                write(root, &format!("{split}/class{class}/{i:02}.png"), &png(6, seed));
            }
        }
    }
}

fn bmp(seed: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(4, 4, Rgb([seed, 2, 3])).write_to(&mut bytes, ImageFormat::Bmp).unwrap();
    bytes.into_inner()
}

fn zip_of(files: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let method = if deflate { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

// ---- class folders ---------------------------------------------------------------------------------

#[test]
fn split_folders_keep_order_and_pixels() {
    let dir = tmp();
    folder_tree(dir.path());
    write(dir.path(), "train/class1/notes.txt", b"ignored");
    write(dir.path(), "train/class1/.DS_Store", b"ignored");
    write(dir.path(), "README", b"ignored: not in a class folder");
    let set = load_path(dir.path(), Split::Val, &options()).unwrap();
    check(&set, &["class0", "class1", "class2"], 6, 6);
    assert_eq!(set.labels, [0, 0, 1, 1, 2, 2]);
    assert_eq!(set.names[3], "val/class1/01.png");
    assert_eq!(set.image(3)[6 + 2], word(111, 14, 7));
    load_path(dir.path(), Split::Train, &options()).unwrap();

    // A folder around it all, inside a zip, stored and deflated, is the same set.
    for deflate in [false, true] {
        let mut files = Vec::new();
        for (i, name) in set.names.iter().enumerate().rev() {
            files.push((format!("outer/{name}"), png(6, (100 + 10 * (i / 2) + i % 2) as u8)));
        }
        files.push(("outer/train/a/x.png".into(), png(6, 0)));
        files.push(("outer/oneshot/run01/test/x.png".into(), b"never read".to_vec()));
        files.push(("__MACOSX/outer/val/class0/._00.png".into(), b"never read".to_vec()));
        let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        let path = write(dir.path(), "set.zip", &zip_of(&files, deflate));
        let zipped = load_path(&path, Split::Val, &options()).unwrap();
        assert_eq!((&zipped.pixels, &zipped.labels), (&set.pixels, &set.labels));
        says(
            load_path(&path, Split::Novel, &options()),
            &["set.zip", "no folder for the novel split", "train and val"],
        );
    }
}

#[test]
fn nested_alphabets_are_classes_of_their_own() {
    let dir = tmp();
    for alphabet in ["Greek", "Latin"] {
        for character in ["character01", "character02"] {
            for background in ["images_background", "images_evaluation"] {
                write(dir.path(), &format!("{background}/{alphabet}/{character}/1.png"), &png(5, 1));
            }
        }
    }
    let set = load_path(dir.path(), Split::Train, &options()).unwrap();
    check(&set, &["Greek/character01", "Greek/character02", "Latin/character01", "Latin/character02"], 4, 5);
}

#[test]
fn flat_folders_are_split_by_seed_or_by_file() {
    let dir = tmp();
    for class in 0..10 {
        write(dir.path(), &format!("c{class}/a.png"), &png(4, class));
        write(dir.path(), &format!("c{class}/b.png"), &png(4, class));
    }
    let mut names = Vec::new();
    for (split, n) in Split::ALL.into_iter().zip([6, 2, 2]) {
        let set = load_path(dir.path(), split, &options()).unwrap();
        assert_eq!((set.n_classes(), set.len()), (n, 2 * n));
        assert_eq!(set, load_path(dir.path(), split, &options()).unwrap());
        names.extend(set.class_names);
    }
    names.sort();
    assert_eq!(names, (0..10).map(|class| format!("c{class}")).collect::<Vec<_>>());
    let other = DataOptions { split_seed: 1, ..options() };
    let train = |options| load_path(dir.path(), Split::Train, options).unwrap().class_names;
    assert_ne!(train(&options()), train(&other));

    let other = tmp();
    let with_file = |name: &str, text: &str| DataOptions {
        split_file: Some(write(other.path(), name, text.as_bytes())),
        ..options()
    };
    let by_file = with_file("s.json", r#"{"base": ["c9", "c1"], "val": ["c2"], "test": ["c3"]}"#);
    let set = load_path(dir.path(), Split::Train, &by_file).unwrap();
    check(&set, &["c1", "c9"], 4, 4);
    for (text, word) in [
        (r#"{"train": ["c77"]}"#, "no such class"),
        (r#"{"train": ["c1"], "val": ["c1"]}"#, "twice"),
        (r#"{"trian": ["c1"]}"#, "unknown key"),
        (r#"{"val": ["c1"]}"#, "no classes for the train split"),
        (r#"["c1"]"#, "not a JSON object"),
    ] {
        says(load_path(dir.path(), Split::Train, &with_file("bad.json", text)), &["bad.json", word]);
    }

    // A split file also rules over split folders; classes of one name are one class.
    let tree = tmp();
    folder_tree(tree.path());
    let by_file = with_file("s.json", r#"{"train": ["class0"], "novel": ["class1", "class2"]}"#);
    check(&load_path(tree.path(), Split::Novel, &by_file).unwrap(), &["class1", "class2"], 12, 6);

    // mini-ImageNet's CSV files: images by name, classes by label.
    write(other.path(), "val.csv", b"filename,label\nc1/a.png,n2\nc2/b.png,n1\n");
    let by_csv = with_file("train.csv", "filename,label\r\nc4/a.png,n3\r\nc5/a.png,n3\r\n");
    check(&load_path(dir.path(), Split::Train, &by_csv).unwrap(), &["n3"], 2, 4);
    check(&load_path(dir.path(), Split::Val, &by_csv).unwrap(), &["n1", "n2"], 2, 4);
    says(load_path(dir.path(), Split::Novel, &by_csv), &["no novel.csv", "add it"]);
    let ambiguous = with_file("train.csv", "filename,label\na.png,n3\n");
    says(load_path(dir.path(), Split::Train, &ambiguous), &["train.csv", "several images", "give its path"]);
    says(load_path(dir.path(), Split::Train, &with_file("train.csv", "a,b\n")), &["train.csv", "filename,label"]);
}

#[test]
fn sizes_and_kinds_of_pixels() {
    let dir = tmp();
    let class = dir.path().join("train/c");
    write(&class, "a.png", &encode(RgbaImage::from_pixel(4, 4, Rgba([9, 8, 7, 0])), ImageFormat::Png));
    write(&class, "b.png", &encode(image::GrayImage::from_pixel(4, 4, image::Luma([77])), ImageFormat::Png));
    let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_pixel(4, 4, image::Luma([0xabab]));
    write(&class, "c.png", &encode(deep, ImageFormat::Png));
    write(&class, "d.bmp", &encode(RgbImage::from_pixel(4, 4, Rgb([1, 2, 3])), ImageFormat::Bmp));
    write(&class, "e.tga", &encode(RgbImage::from_pixel(4, 4, Rgb([4, 5, 6])), ImageFormat::Tga));
    let set = load_path(dir.path(), Split::Train, &options()).unwrap();
    let first: Vec<u32> = (0..5).map(|i| set.image(i)[0]).collect();
    // Alpha is dropped, not composited.
    assert_eq!(first, [word(9, 8, 7), word(77, 77, 77), word(0xab, 0xab, 0xab), word(1, 2, 3), word(4, 5, 6)]);

    // Other sizes need a side; 1 x 1 and long ones are fine with one.
    write(&class, "f.png", &encode(RgbImage::from_pixel(1, 1, Rgb([5, 5, 5])), ImageFormat::Png));
    says(load_path(dir.path(), Split::Train, &options()), &["f.png", "1 x 1", "4 x 4", "set the side"]);
    let set = load_path(dir.path(), Split::Train, &with_side(4)).unwrap();
    assert_eq!(set.image(0)[0], word(9, 8, 7));
    assert!(set.image(5).iter().all(|&pixel| pixel == word(5, 5, 5)));
    let bars = RgbImage::from_fn(12, 4, |x, _| Rgb([(x / 4 * 100) as u8; 3]));
    write(&class, "g.png", &encode(bars, ImageFormat::Png));
    let cropped = load_path(dir.path(), Split::Train, &with_side(4)).unwrap();
    assert!(cropped.image(6).iter().all(|&pixel| pixel == word(100, 100, 100)));

    let alone = tmp();
    write(alone.path(), "train/c/long.png", &encode(rgb(8, 4, 0), ImageFormat::Png));
    says(load_path(alone.path(), Split::Train, &options()), &["long.png", "8 x 4", "not square", "set the side"]);
    for side in [0, 100_000] {
        says(load_path(alone.path(), Split::Train, &with_side(side)), &["side", "try 84"]);
    }
}

#[test]
fn bad_class_folders() {
    let bad = |files: &[(&str, Vec<u8>)], words: &[&str]| {
        let dir = tmp();
        folder_tree(dir.path());
        for (name, bytes) in files {
            write(dir.path(), name, bytes);
        }
        says(load_path(dir.path(), Split::Train, &options()), words);
    };
    let whole = png(6, 1);
    bad(&[("train/class1/cut.png", whole[..whole.len() / 2].to_vec())], &["cut.png", "replace it or remove it"]);
    let jpeg = encode(rgb(64, 64, 1), ImageFormat::Jpeg);
    bad(&[("train/class1/cut.jpg", jpeg[..jpeg.len() / 2].to_vec())], &["cut.jpg", "ends early"]);
    let bmp = encode(rgb(64, 64, 1), ImageFormat::Bmp);
    bad(&[("train/class1/cut.bmp", bmp[..bmp.len() / 2].to_vec())], &["cut.bmp", "replace it or remove it"]);
    let gif = encode(rgb(64, 64, 1), ImageFormat::Gif);
    bad(&[("train/class1/cut.gif", gif[..gif.len() / 2].to_vec())], &["cut.gif", "replace it or remove it"]);
    bad(&[("train/class1/empty.png", Vec::new())], &["empty.png"]);
    bad(&[("train/class1/text.png", b"hello".to_vec())], &["text.png"]);
    bad(&[("train/class1/a.heic", b"hello".to_vec())], &["a.heic", "png"]);
    bad(&[("train/stray.png", png(6, 1))], &["stray.png", "outside the class folders"]);
    bad(&[("base/c/a.png", png(6, 1))], &["two folders for the train split", "keep one"]);
    // 20,000 pixels wide, said by a header alone.
    let wide = |width: u32, height: u32| {
        let mut header = whole.clone();
        header[16..20].copy_from_slice(&width.to_be_bytes());
        header[20..24].copy_from_slice(&height.to_be_bytes());
        let mut sum = flate2::Crc::new();
        sum.update(&header[12..29]);
        header[29..33].copy_from_slice(&sum.sum().to_be_bytes());
        header
    };
    bad(&[("train/class1/wide.png", wide(20_000, 1))], &["wide.png", "too large", "16384"]);
    bad(&[("train/class1/huge.png", wide(16_000, 16_000))], &["huge.png", "too large", "16000 x 16000"]);

    let dir = tmp();
    folder_tree(dir.path());
    fs::create_dir_all(dir.path().join("train/class9")).unwrap();
    says(load_path(dir.path(), Split::Train, &options()), &["class9", "without images", "remove it"]);
    load_path(dir.path(), Split::Val, &options()).unwrap();

    let dir = tmp();
    says(load_path(dir.path(), Split::Train, &options()), &["no class folders", "class/*.png"]);
    write(dir.path(), "only/a.png", &png(4, 0));
    check(&load_path(dir.path(), Split::Train, &options()).unwrap(), &["only"], 1, 4);
    says(load_path(dir.path(), Split::Novel, &options()), &["1 class without splits", "from 8 on the seed splits"]);
    let dir = tmp();
    for split in ["train", "val", "test"] {
        write(dir.path(), &format!("{split}/a.png"), &png(4, 0));
    }
    says(load_path(dir.path(), Split::Train, &options()), &["directly in its split folders", "train/class/*.png"]);
    says(load_path(&dir.path().join("nowhere"), Split::Train, &options()), &["nowhere", "glyphs"]);
    says(load_path(&dir.path().join("val/a.png"), Split::Train, &options()), &["a.png", "one image", "folder"]);
    let other = write(dir.path(), "x.bin", b"what is this");
    says(load_path(&other, Split::Train, &options()), &["x.bin", "neither a zip"]);
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_back_is_refused() {
    let dir = tmp();
    folder_tree(dir.path());
    std::os::unix::fs::symlink(dir.path(), dir.path().join("train/loop")).unwrap();
    says(load_path(dir.path(), Split::Train, &options()), &["loop", "remove the link"]);
}

#[test]
fn hostile_zips() {
    let dir = tmp();
    // 64 MiB of zeros in some 64 KiB.
    let bomb = zip_of(&[("train/c/bomb.png", vec![0; 64 << 20]), ("train/c/a.png", png(5, 0))], true);
    assert!(bomb.len() < 1 << 20);
    let path = write(dir.path(), "bomb.zip", &bomb);
    says(load_path(&path, Split::Train, &options()), &["bomb.zip", "bomb.png", "200 times"]);
    // The same with a header that lies about the size.
    let mut liar = bomb.clone();
    let size = (64u32 << 20).to_le_bytes();
    for at in 0..liar.len() - 4 {
        if liar[at..at + 4] == size {
            liar[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
        }
    }
    let path = write(dir.path(), "liar.zip", &liar);
    says(load_path(&path, Split::Train, &options()), &["liar.zip", "bomb.png"]);

    let good = zip_of(&[("../../etc/train/c/a.png", png(4, 0)), ("../../etc/train/c/b.png", png(4, 1))], false);
    let path = write(dir.path(), "up.zip", &good);
    check(&load_path(&path, Split::Train, &options()).unwrap(), &["c"], 2, 4);
    let path = write(dir.path(), "cut.zip", &good[..good.len() / 2]);
    says(load_path(&path, Split::Train, &options()), &["cut.zip", "not a whole zip", "again"]);
    let mut flipped = good;
    let at = flipped.windows(4).position(|bytes| bytes == b"IDAT").unwrap();
    flipped[at + 6] ^= 1;
    let path = write(dir.path(), "flip.zip", &flipped);
    says(load_path(&path, Split::Train, &options()), &["flip.zip", "a.png", "again"]);
}

// ---- pickles ---------------------------------------------------------------------------------------

/// Writes opcodes of the pickle machine.
#[derive(Default)]
struct Pickler(Vec<u8>);

impl Pickler {
    fn op(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, text: &str) -> Self {
        self.op(b"X").op(&(text.len() as u32).to_le_bytes()).op(text.as_bytes())
    }
    /// Python 2's str.
    fn old_text(self, text: &str) -> Self {
        self.op(&[b'U', text.len() as u8]).op(text.as_bytes())
    }
    fn int(self, number: i32) -> Self {
        self.op(b"J").op(&number.to_le_bytes())
    }
    fn global(self, module: &str, name: &str) -> Self {
        self.op(format!("c{module}\n{name}\n").as_bytes())
    }
    fn dtype(self, code: &str, order: &str) -> Self {
        self.global("numpy", "dtype")
            .text(code)
            .int(0)
            .int(1)
            .op(b"\x87R(")
            .int(3)
            .text(order)
            .op(b"NNN")
            .int(-1)
            .int(-1)
            .int(0)
            .op(b"tb")
    }
    fn shape(self, shape: &[usize]) -> Self {
        shape.iter().fold(self.op(b"("), |p, &n| p.int(n as i32)).op(b"t")
    }
    /// An array in `values`' way of writing bytes.
    fn array(self, core: &str, shape: &[usize], code: &str, fortran: bool, values: impl Fn(Self) -> Self) -> Self {
        let p =
            self.global(&format!("{core}.multiarray"), "_reconstruct").global("numpy", "ndarray").int(0).op(b"\x85");
        let p = p.old_text("b").op(b"\x87R(").int(1).shape(shape).dtype(code, "|").op(if fortran {
            b"\x88"
        } else {
            b"\x89"
        });
        values(p).op(b"tb")
    }
    fn list(self, numbers: &[i32]) -> Self {
        numbers.iter().fold(self.op(b"]("), |p, &n| p.int(n)).op(b"e")
    }
    fn dict(items: impl FnOnce(Self) -> Self) -> Vec<u8> {
        items(Pickler::default().op(b"\x80\x02}(")).op(b"u.").0
    }
}

const SHAPE: [usize; 4] = [6, 4, 4, 3];
const LABELS: [i32; 6] = [30, 7, 7, 30, 500, 7];

fn pixels_of_shape() -> Vec<u8> {
    (0..SHAPE.iter().product::<usize>()).map(|i| (i * 37 % 256) as u8).collect()
}

fn blob(p: Pickler, bytes: &[u8]) -> Pickler {
    p.op(b"T").op(&(bytes.len() as u32).to_le_bytes()).op(bytes)
}

fn latin1(p: Pickler, bytes: &[u8]) -> Pickler {
    let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
    p.global("_codecs", "encode").text(&text).text("latin1").op(b"\x86R")
}

/// A set as CIFAR-FS has it.
fn standard() -> Vec<u8> {
    Pickler::dict(|p| {
        p.text("data")
            .array("numpy.core", &SHAPE, "u1", false, |p| blob(p, &pixels_of_shape()))
            .text("labels")
            .list(&LABELS)
    })
}

#[test]
fn every_dialect_of_pickle_is_the_same_set() {
    let pixels = pixels_of_shape();
    let columns: Vec<u8> = {
        // The same values with the first axis fastest.
        let [n, h, w, c] = SHAPE;
        let mut out = Vec::new();
        for l in 0..c {
            for k in 0..w {
                for j in 0..h {
                    for i in 0..n {
                        out.push(pixels[((i * h + j) * w + k) * c + l]);
                    }
                }
            }
        }
        out
    };
    let planes: Vec<u8> = {
        let [n, h, w, c] = SHAPE;
        (0..n * c * h * w)
            .map(|at| {
                let (i, l, j) = (at / (c * h * w), at / (h * w) % c, at % (h * w));
                pixels[(i * h * w + j) * c + l]
            })
            .collect()
    };
    let labels = |p: Pickler| p.text("labels").list(&LABELS);
    let long = |numbers: &[i32]| numbers.iter().flat_map(|&n| i64::from(n).to_le_bytes()).collect::<Vec<u8>>();
    let repr: String = pixels.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let numbers: String = LABELS.iter().map(|n| format!("I{n}\na")).collect();
    let dialects: Vec<(&str, Vec<u8>)> = vec![
        ("python 2, protocol 2", Pickler::dict(|p| {
            labels(p.old_text("data").array("numpy.core", &SHAPE, "u1", false, |p| blob(p, &pixels)))
        })),
        ("python 3, protocol 2", Pickler::dict(|p| {
            labels(p.text("data").array("numpy._core", &SHAPE, "u1", false, |p| latin1(p, &pixels)))
        })),
        ("bytes as keys, long labels, an extra key", Pickler::dict(|p| {
            let p = p.op(b"C\x04data").array("numpy.core", &SHAPE, "u1", false, |p| blob(p, &pixels));
            let p = LABELS.iter().fold(p.op(b"C\x06labels]("), |p, n| p.op(b"\x8a\x03").op(&n.to_le_bytes()[..3])).op(b"e");
            p.text("names").op(b"}(").int(7).text("cat").op(b"u")
        })),
        ("Fortran order", Pickler::dict(|p| {
            labels(p.text("data").array("numpy.core", &SHAPE, "u1", true, |p| blob(p, &columns)))
        })),
        ("channels first", Pickler::dict(|p| {
            labels(p.text("data").array("numpy.core", &[6, 3, 4, 4], "u1", false, |p| blob(p, &planes)))
        })),
        ("labels as an array", Pickler::dict(|p| {
            let p = p.text("data").array("numpy.core", &SHAPE, "u1", false, |p| blob(p, &pixels));
            p.text("labels").array("numpy.core", &[6], "i8", false, |p| blob(p, &long(&LABELS)))
        })),
        ("labels as NumPy scalars", Pickler::dict(|p| {
            let p = p.text("data").array("numpy.core", &SHAPE, "u1", false, |p| blob(p, &pixels)).text("labels").op(b"](");
            LABELS.iter().fold(p, |p, &n| {
                blob(p.global("numpy.core.multiarray", "scalar").dtype("i8", "<"), &long(&[n])).op(b"\x86R")
            }).op(b"e")
        })),
        ("protocol 0", format!(
            "(dp0\nS'data'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n(I1\n(I6\nI4\nI4\nI3\ntp8\ncnumpy\ndtype\np9\n(S'u1'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'|'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS'{repr}'\np15\ntp16\nbsS'labels'\np17\n(lp18\n{numbers}s."
        ).into_bytes()),
        ("protocol 5, in band", {
            let p = Pickler::default().op(b"\x80\x05\x95\0\0\0\0\0\0\0\0}\x94(\x8c\x04data\x94");
            let p = p.op(b"\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(");
            let p = p.op(b"\x96").op(&(pixels.len() as u64).to_le_bytes()).op(&pixels).op(b"\x94");
            let p = p.op(b"\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0t\x94b");
            let p = p.op(b"(K\x06K\x04K\x04K\x03t\x94\x8c\x01C\x94t\x94R\x94\x8c\x06labels\x94]\x94(");
            LABELS.iter().fold(p, |p, &n| p.op(b"M").op(&(n as u16).to_le_bytes())).op(b"eu.").0
        }),
    ];
    for (dialect, bytes) in dialects {
        let dir = tmp();
        let path = write(dir.path(), "CIFAR_FS_val.pickle", &bytes);
        for source in [path.as_path(), dir.path()] {
            let set = load_path(source, Split::Val, &options()).unwrap_or_else(|error| panic!("{dialect}: {error}"));
            check(&set, &["7", "30", "500"], 6, 4);
            assert_eq!(set.labels, [1, 0, 0, 1, 2, 0], "{dialect}");
            assert_eq!(set.names[5], "CIFAR_FS_val.pickle#5");
            let expected: Vec<u32> = pixels.chunks(3).map(|rgb| word(rgb[0], rgb[1], rgb[2])).collect();
            assert_eq!(set.pixels, expected, "{dialect}");
        }
    }
}

#[test]
fn a_folder_has_one_pickle_per_split() {
    let dir = tmp();
    let prefix = "miniImageNet_category_split_";
    for name in ["train_phase_train", "train_phase_val", "train_phase_test", "val"] {
        write(dir.path(), &format!("{prefix}{name}.pickle"), &standard());
    }
    let set = load_path(dir.path(), Split::Train, &with_side(2)).unwrap();
    assert!(set.names[0].contains("train_phase_train"));
    assert_eq!((set.side, set.pixels.len()), (2, 24));
    load_path(dir.path(), Split::Val, &options()).unwrap();
    says(load_path(dir.path(), Split::Novel, &options()), &["no file for the novel split", "split_val.pickle"]);
    let val = dir.path().join(format!("{prefix}val.pickle"));
    says(load_path(&val, Split::Train, &options()), &["val split by its name", "give the folder"]);
    write(dir.path(), "other_val.pickle", &standard());
    says(load_path(dir.path(), Split::Val, &options()), &["two files for the val split", "keep one"]);
    // A file that is named after no split is split by class, and few classes are all trained on.
    let all = write(dir.path(), "all.pickle", &standard());
    assert_eq!(load_path(&all, Split::Train, &options()).unwrap().n_classes(), 3);
    says(load_path(&all, Split::Val, &options()), &["3 classes without splits", "as val"]);
    let split_file = Some(write(dir.path(), "split.json", br#"{"train": [7, "500"], "novel": [30]}"#));
    let set = load_path(&all, Split::Train, &DataOptions { split_file, ..options() }).unwrap();
    check(&set, &["7", "500"], 4, 4);
}

#[test]
fn hostile_pickles() {
    let bad = |bytes: Vec<u8>, words: &[&str]| {
        let dir = tmp();
        let path = write(dir.path(), "train.pickle", &bytes);
        says(load_path(&path, Split::Train, &options()), &[&["train.pickle"], words].concat());
    };
    let p = || Pickler::default().op(b"\x80\x02");
    bad(
        p().global("os", "system").text("true").op(b"\x85R.").0,
        &["refers to os.system; only NumPy arrays, lists and dicts"],
    );
    bad(p().op(b"\x8c\x05posix\x8c\x06system\x93.").0, &["posix.system"]);
    bad(p().op(b"(S'true'\nios\nsystem\n.").0, &["os.system"]);
    bad(p().global("numpy", "load\u{1b}[2J").0, &["numpy.load\\u{1b}"]);
    bad(p().op(b"T\xff\xff\xff\xff").0, &["cut off or damaged", "again"]);
    bad(p().op(b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff").0, &["cut off or damaged"]);
    bad(p().op(b"X\x05\0\0\0ab").0, &["cut off or damaged"]);
    let whole = standard();
    for cut in [2, 10, whole.len() / 2, whole.len() - 1] {
        bad(whole[..cut].to_vec(), &["again"]);
    }
    // Nesting and cycles cost no stack, memo and value bombs no memory.
    bad(p().op(b"]").op(&b"\x85".repeat(3_000_000)).op(b".").0, &["a tuple, not a dict"]);
    bad(p().op(&b"(".repeat(3_000_000)).op(b".").0, &["again"]);
    bad(p().op(b"]q\0h\0a.").0, &["a list, not a dict"]);
    bad(p().op(b"}q\0X\x04\0\0\0datah\0sX\x06\0\0\0labelsh\0s.").0, &["\"data\" is a dict, not a NumPy array"]);
    let doubling = (1..60u8).fold(p().op(b"](q\0"), |p, i| p.op(&[b'h', i - 1, b'h', i - 1, 0x86, b'q', i]));
    bad(doubling.op(b"t.").0, &["a tuple, not a dict"]);
    bad(p().op(b"]r\xff\xff\xff\xff.").0, &["a list, not a dict"]);
    bad(p().op(&b"N".repeat((1 << 24) + 1)).op(b".").0, &["more than 16777216 values"]);
    bad(p().op(b"N").op(&b"2".repeat((1 << 24) + 1)).op(b".").0, &["more than 16777216 values"]);
    bad(p().op(b"h\x05.").0, &["memo 5"]);
    bad(p().op(b"R.").0, &["takes a value that is not there"]);
    bad(p().op(b"NNR.").0, &["calls None"]);
    bad(p().op(b"Q.").0, &["0x51 at byte 2", "pickle.dump"]);
    bad(b"\x80\x09.".to_vec(), &["protocol 9", "save it again"]);
    bad(Vec::new(), &["cut off"]);

    let data = |shape: &'static [usize], code: &'static str, n: usize, labels: &'static [i32]| {
        Pickler::dict(|p| {
            p.text("data").array("numpy.core", shape, code, false, |p| blob(p, &vec![0; n])).text("labels").list(labels)
        })
    };
    bad(data(&[2, 4, 4, 3], "u1", 95, &[1, 2]), &["shape [2, 4, 4, 3] but has 95 bytes"]);
    bad(data(&[65_536, 65_536, 65_536, 65_536], "u1", 95, &[1, 2]), &["has 95 bytes"]);
    bad(data(&[2, 4, 4, 3], "u1", 96, &[1, 2, 3]), &["2 images but 3 labels"]);
    bad(data(&[2, 4, 4, 3], "f4", 384, &[1, 2]), &["type f4", "uint8"]);
    bad(data(&[2, 4, 4, 3], "O8", 768, &[1, 2]), &[r#"type "O8""#]);
    bad(data(&[2, 48], "u1", 96, &[1, 2]), &["shape [2, 48]", "N x S x S x 3"]);
    bad(data(&[0, 4, 4, 3], "u1", 0, &[]), &["there must be images"]);
    bad(data(&[2, 4, 8, 3], "u1", 192, &[1, 2]), &["8 x 4, not square", "set the side"]);
    bad(Pickler::dict(|p| p.text("labels").list(&[1])), &["no key \"data\"", "labels"]);
    bad(Pickler::dict(|p| p.text("data").text("x").text("labels").list(&[1])), &["a str, not a NumPy array"]);
    bad(
        Pickler::dict(|p| {
            p.text("data")
                .array("numpy.core", &[1, 2, 2, 3], "u1", false, |p| blob(p, &[0; 12]))
                .text("labels")
                .op(b"]Na")
        }),
        &["None among its integers"],
    );
}

/// Damage at every byte ends in a set or in a sentence, never in a panic.
#[test]
fn damaged_pickles_never_panic() {
    let dir = tmp();
    let whole = standard();
    let path = dir.path().join("train.pickle");
    for at in 0..whole.len() {
        if at > 120 && at + 220 < whole.len() {
            continue;
        }
        for value in [0, b'(', b'R', b'b', b'e', b'.', 0x85, 0xff, whole[at] ^ 1] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            damage::write(&path, &bytes);
            if let Err(error) = load_path(&path, Split::Train, &options()) {
                assert!(error.to_string().contains("train.pickle"));
            }
        }
    }
}

/// Bytes changed anywhere in a pickle, an archive of arrays, a zip of pictures, or images or labels in idx files, and files
/// that end early: a set or a sentence, never a panic. `PROPTEST_CASES` sets how many there are of each.
#[test]
fn damaged_files_are_answered() {
    let dir = tmp();
    let arrays =
        [("images.npy", npy("|u1", "(6, 4, 4, 3)", &pixels_of_shape())), ("labels.npy", npy("|u1", "(6,)", &[1; 6]))];
    let pictures: [(&str, Vec<u8>); 2] = [("a/1.bmp", bmp(1)), ("b/1.bmp", bmp(2))];
    let images = idx(&[6, 4, 4], &pixels_of_shape()[..96]);
    let labels = idx(&[6], &[1, 1, 2, 2, 3, 3]);
    for name in ["x", "y", "z"] {
        write(dir.path(), &format!("{name}-images-idx3-ubyte"), &images);
        write(dir.path(), &format!("{name}-labels-idx1-ubyte"), &labels);
    }
    fs::remove_file(dir.path().join("z-images-idx3-ubyte")).unwrap();
    // What is damaged, and of which data set it is.
    for (name, opened, whole) in [
        ("x.pickle", "x.pickle", standard()),
        ("x.npz", "x.npz", zip_of(&arrays, false)),
        ("deflated.npz", "deflated.npz", zip_of(&arrays, true)),
        ("x.zip", "x.zip", zip_of(&pictures, false)),
        ("x.npy", "x.npy", npy("|u1", "(6, 4, 4, 3)", &pixels_of_shape())),
        ("x-images-idx3-ubyte", "x-images-idx3-ubyte", images.clone()),
        ("y-labels-idx1-ubyte", "y-images-idx3-ubyte", labels),
        ("z-images-idx3-ubyte.gz", "z-images-idx3-ubyte.gz", gzip(&images)),
    ] {
        let (path, opened) = (dir.path().join(name), dir.path().join(opened));
        let mut runner = damage::runner(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions/data.txt"));
        let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..5);
        let run = runner.run(&(changes, 0..whole.len() * 4), |(changes, cut)| {
            let mut bytes = whole.clone();
            changes.into_iter().for_each(|(at, value)| bytes[at] = value);
            bytes.truncate(cut.max(1));
            damage::write(&path, &bytes);
            // Names of files may be anything: they are escaped where they are shown.
            let said = load_path(&opened, Split::All, &options()).err().map_or(String::new(), |error| match error {
                Error::Data { path, message } if !message.contains('\n') => path.display().to_string(),
                other => format!("in several lines, or not for the file: {other}"),
            });
            let is_named = said.starts_with(&*path.to_string_lossy()) || said.starts_with(&*opened.to_string_lossy());
            prop_assert!(said.is_empty() || is_named, "{}: {}", name, said);
            Ok(())
        });
        run.unwrap();
    }
}

// ---- npz and idx -----------------------------------------------------------------------------------

fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\0".to_vec();
    out.extend((header.len() as u16).to_le_bytes());
    out.extend(header.as_bytes());
    out.extend(bytes);
    out
}

#[test]
fn npz_with_labels_beside_or_inside() {
    let dir = tmp();
    let pixels = pixels_of_shape();
    let labels = Pickler::dict(|p| p.text("labels").list(&LABELS));
    write(dir.path(), "test_images.npz", &zip_of(&[("images.npy", npy("|u1", "(6, 4, 4, 3)", &pixels))], true));
    says(load_path(dir.path(), Split::Novel, &options()), &["test_images.npz", "_labels.pkl"]);
    write(dir.path(), "test_labels.pkl", &labels);
    let set = load_path(dir.path(), Split::Novel, &options()).unwrap();
    check(&set, &["7", "30", "500"], 6, 4);
    assert_eq!(set.image(0)[1], word(pixels[3], pixels[4], pixels[5]));

    let big_endian: Vec<u8> = LABELS.iter().flat_map(|&n| i64::from(n).to_be_bytes()).collect();
    let inside =
        |images: Vec<u8>| zip_of(&[("data.npy", images), ("labels.npy", npy(">i8", "(6,)", &big_endian))], false);
    let path = write(dir.path(), "one/pool.npz", &inside(npy("|u1", "(6, 4, 4, 3)", &pixels)));
    assert_eq!(load_path(&path, Split::Train, &options()).unwrap().n_classes(), 3);
    for (array, word) in [
        (npy("|u1", "(6, 4, 4, 3)", &pixels[..100]), "wants 288"),
        (npy("<f4", "(6, 4, 4, 3)", &pixels), "uint8"),
        (npy("|u1", "(99999999999, 4, 4, 3)", &pixels), "99999999999"),
        (npy("|u1", "(6, 4, 4, 3)", &[&pixels[..], b"x"].concat()), "more bytes"),
        (npy("|u1", &"(".repeat(3000), &pixels), "save it again"),
        (npy("|u1", "(9999999999, 9999999999)", &pixels), "save it again"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff".to_vec(), "header is malformed"),
        (b"\x93NUM".to_vec(), "not a whole .npy"),
    ] {
        let path = write(dir.path(), "bad/pool.npz", &inside(array));
        says(load_path(&path, Split::Train, &options()), &["pool.npz", word]);
    }
}

fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, dims.len() as u8];
    out.extend(dims.iter().flat_map(|n| n.to_be_bytes()));
    out.extend(bytes);
    out
}

#[test]
fn idx_files_are_pooled_and_split_by_class() {
    let dir = tmp();
    let labels: Vec<u8> = (0..20).map(|i| i % 10).collect();
    let gray: Vec<u8> = (0..20 * 9).map(|i| i as u8).collect();
    for (part, zipped) in [("train", true), ("t10k", false)] {
        for (name, bytes) in [("images-idx3", idx(&[20, 3, 3], &gray)), ("labels-idx1", idx(&[20], &labels))] {
            let name = format!("{part}-{name}-ubyte");
            if zipped {
                write(dir.path(), &format!("{name}.gz"), &gzip(&bytes));
            } else {
                write(dir.path(), &name, &bytes);
            }
        }
    }
    let mut n = 0;
    for (split, classes) in Split::ALL.into_iter().zip([6, 2, 2]) {
        let set = load_path(dir.path(), split, &options()).unwrap();
        assert_eq!((set.n_classes(), set.side), (classes, 3));
        assert!(set.by_class().iter().all(|images| images.len() == 4));
        n += set.len();
        let first: usize = set.names[0].rsplit('#').next().unwrap().parse().unwrap();
        assert_eq!(set.image(0)[8], word(gray[first * 9 + 8], gray[first * 9 + 8], gray[first * 9 + 8]));
    }
    assert_eq!(n, 40);
    let one = load_path(&dir.path().join("train-images-idx3-ubyte.gz"), Split::Train, &options()).unwrap();
    assert_eq!(one.len(), 12);

    let says_bad = |name: &str, bytes: &[u8], words: &[&str]| {
        let bad = tmp();
        write(bad.path(), "a-images-idx3-ubyte", &idx(&[20, 3, 3], &gray));
        write(bad.path(), "a-labels-idx1-ubyte", &idx(&[20], &labels));
        write(bad.path(), name, bytes);
        says(load_path(bad.path(), Split::Train, &options()), words);
    };
    let images = "a-images-idx3-ubyte";
    says_bad(images, &idx(&[20, 3, 3], &gray[..100]), &["ends early", "of 20 images", "again"]);
    says_bad(images, &idx(&[21, 3, 3], &gray), &[images, "21 images but its labels file 20"]);
    says_bad(images, &idx(&[20, 3, 4], &gray), &["4 x 3, not square"]);
    says_bad(images, &[0, 0, 13, 3], &[images, "type 13"]);
    says_bad(images, &idx(&[u32::MAX, u32::MAX, u32::MAX], &gray), &[images]);
    says_bad("a-labels-idx1-ubyte", &idx(&[20], &labels[..7]), &["a-labels", "7 of 20 labels"]);
    says_bad("a-labels-idx1-ubyte", &gzip(&idx(&[20], &labels))[..12], &["a-labels", "ends early"]);
    says_bad("b-images-idx3-ubyte", &idx(&[20, 3, 3], &gray), &["b-images", "no labels", "b-labels-idx1-ubyte.gz"]);
}

// ---- what others write -----------------------------------------------------------------------------

#[test]
fn pickles_and_npz_of_numpy_1_and_2() {
    let pixels: Vec<u32> =
        (0..24).map(|i| [0, 1, 2].map(|c| ((3 * i + c) * 37 % 256) as u8)).map(|[r, g, b]| word(r, g, b)).collect();
    for version in ["numpy1", "numpy2"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{version}.zip"));
        let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
        assert!(archive.len() > 40);
        for i in 0..archive.len() {
            let mut entry = archive.by_index(i).unwrap();
            let (name, mut bytes) = (entry.name().unwrap().into_owned(), Vec::new());
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            let dir = tmp();
            let path = write(dir.path(), &name, &bytes);
            let set = load_path(&path, Split::All, &options()).unwrap_or_else(|error| panic!("{version} {error}"));
            let classes = if name.starts_with("names") { ["n007", "n030", "n500"] } else { ["7", "30", "500"] };
            assert_eq!(
                (&set.class_names[..], &set.labels[..]),
                (&classes.map(String::from)[..], &[1, 0, 0, 1, 2, 0][..]),
                "{version} {name}"
            );
            assert_eq!(set.pixels, pixels, "{version} {name}");
        }
    }
}

#[track_caller]
fn warns(set: &ImageSet, kinds: &[WarningKind]) {
    let found: Vec<WarningKind> = set.warnings.iter().map(|warning| warning.kind).collect();
    assert_eq!(found, kinds, "{:?}", set.warnings);
}

#[test]
fn what_is_in_two_splits_or_twice_is_said() {
    use WarningKind::{Contradictions, Duplicates, LeftOut, SharedClasses, SharedPictures};
    let dir = tmp();
    for class in 0..3 {
        for (i, split) in ["Training", "TEST", "valid"].into_iter().enumerate() {
            write(dir.path(), &format!("{split}/c{class}/a.png"), &png(6, 10 * class + i as u8));
        }
    }
    warns(&load_path(dir.path(), Split::Train, &options()).unwrap(), &[]);
    let novel = load_path(dir.path(), Split::Novel, &options()).unwrap();
    warns(&novel, &[SharedClasses]);
    assert!(novel.is_trained_on() && novel.warnings[0].message.contains("3 of the 3 classes"));
    write(dir.path(), "TEST/other/b.png", &png(6, 0));
    warns(&load_path(dir.path(), Split::Novel, &options()).unwrap(), &[SharedClasses, SharedPictures]);
    write(dir.path(), "more/c1/b.png", &png(6, 77));
    warns(&load_path(dir.path(), Split::Train, &options()).unwrap(), &[LeftOut]);
    write(dir.path(), "Training/c1/b.png", &png(6, 10));
    write(dir.path(), "Training/c2/b.png", &png(6, 10));
    warns(&load_path(dir.path(), Split::Train, &options()).unwrap(), &[LeftOut, Duplicates, Contradictions]);
    // Upper and lower case make no other class.
    let cased = tmp();
    write(cased.path(), "train/Cat/a.png", &png(6, 1));
    write(cased.path(), "test/cat/a.png", &png(6, 2));
    warns(&load_path(cased.path(), Split::Novel, &options()).unwrap(), &[SharedClasses]);
    // Every class, whatever its split; of one name one class.
    check(&load_path(dir.path(), Split::All, &options()).unwrap(), &["c0", "c1", "c2", "other"], 12, 6);

    // One file per split: numbers may mean other classes in each, pictures never.
    let dir = tmp();
    write(dir.path(), "x_train.pickle", &standard());
    write(dir.path(), "x_test.pickle", &standard());
    let novel = load_path(dir.path(), Split::Novel, &options()).unwrap();
    warns(&novel, &[WarningKind::Ambiguous, SharedPictures]);
    assert_eq!(load_path(dir.path(), Split::All, &options()).unwrap().n_classes(), 6);
    write(dir.path(), "y_val.pickle", &standard());
    says(load_path(dir.path(), Split::Novel, &options()), &["several data sets", "y_val.pickle", "folder of its own"]);
    fs::remove_file(dir.path().join("y_val.pickle")).unwrap();
    // Two kinds of data sets in one folder, and the way out.
    write(dir.path(), "train/c/a.png", &png(4, 1));
    says(load_path(dir.path(), Split::Train, &options()), &["two data sets", "x_test.pickle", "train/c/a.png"]);
    fs::create_dir(dir.path().join("own")).unwrap();
    fs::rename(dir.path().join("train"), dir.path().join("own/train")).unwrap();
    check(&load_path(&dir.path().join("own"), Split::Train, &options()).unwrap(), &["c"], 1, 4);
}

#[test]
fn structure_decides_what_is_a_split() {
    let dir = tmp();
    for class in ["car", "train", "test", "bus"] {
        write(dir.path(), &format!("{class}/a.png"), &png(4, class.len() as u8));
        write(dir.path(), &format!("{class}/more/b.png"), &png(4, 9 + class.len() as u8));
    }
    let set = load_path(dir.path(), Split::All, &options());
    // Two split words beside others, each with classes: those are splits, and their direct images are astray.
    says(set, &["outside the class folders"]);
    fs::remove_dir_all(dir.path().join("test")).unwrap();
    let set = load_path(dir.path(), Split::All, &options()).unwrap();
    check(&set, &["bus", "car", "train"], 6, 4);
    fs::remove_file(dir.path().join("train/a.png")).unwrap();
    says(load_path(dir.path(), Split::Train, &options()), &["train/", "bus/", "rename"]);
    fs::rename(dir.path().join("train"), dir.path().join("railway")).unwrap();
    check(&load_path(dir.path(), Split::All, &options()).unwrap(), &["bus", "car", "railway/more"], 5, 4);
    // Folders whose names hold split words are no classes.
    let dir = tmp();
    for (top, class) in [("cars_train", "a"), ("cars_train", "b"), ("cars_test", "c"), ("cars_test", "d")] {
        write(dir.path(), &format!("{top}/{class}/a.png"), &png(4, class.as_bytes()[0]));
    }
    says(load_path(dir.path(), Split::Train, &options()), &["cars_test/, cars_train/", "call them train/"]);
    for (old, new) in [("cars_train", "train"), ("cars_test", "test")] {
        fs::rename(dir.path().join(old), dir.path().join(new)).unwrap();
    }
    check(&load_path(dir.path(), Split::Train, &options()).unwrap(), &["a", "b"], 2, 4);
    // A split word around splits.
    let dir = tmp();
    folder_tree(&dir.path().join("data/test"));
    check(&load_path(dir.path(), Split::Val, &options()).unwrap(), &["class0", "class1", "class2"], 6, 6);
}

#[test]
fn runs_and_leftovers_are_no_classes() {
    let dir = tmp();
    for class in 0..3 {
        write(dir.path(), &format!("c{class}/a.jfif"), &encode(rgb(4, 4, 90 * class), ImageFormat::Jpeg));
        write(dir.path(), &format!("c{class}/b"), &png(4, class));
        for name in
            ["Thumbs.db", "Thumbs.db:encryptable", "Desktop.ini", "ehthumbs.db", "Icon\r", "._b", "e.npy", "README"]
        {
            write(dir.path(), &format!("c{class}/{name}"), b"left");
        }
    }
    write(dir.path(), "runs/demo/config.toml", b"");
    write(dir.path(), "runs/demo/metrics.jsonl", b"");
    write(dir.path(), "runs/demo/preview/a.png", &png(4, 0));
    let set = load_path(dir.path(), Split::All, &options()).unwrap();
    check(&set, &["c0", "c1", "c2"], 6, 4);
    warns(&set, &[WarningKind::LeftOut]);
    assert!(set.warnings[0].message.contains("demo"));
}

#[test]
fn tables_as_spreadsheets_write_them() {
    let dir = tmp();
    for (i, name) in ["images/a, b.png", "images/c.png", "images/d.png"].into_iter().enumerate() {
        write(dir.path(), name, &png(4, i as u8));
    }
    let train = |text: &[u8]| DataOptions { split_file: Some(write(dir.path(), "t/train.csv", text)), ..options() };
    for source in [dir.path().to_path_buf(), dir.path().join("images")] {
        for text in [
            "filename,label\r\n\"a, b.png\",\"x, y\"\r\nc.png,x/y\r\nd.png,x/y\r\n",
            "\u{feff}label;filename\n\"x, y\";\"a, b.png\"\nx/y;images\\c.png\nx/y;.\\images\\d.png\n",
            "image_id\tclass\na, b\tx, y\nc\tx/y\nd\tx/y\n",
            "images/c.png,x/y\nimages/d.png,x/y\n\"images/a, b.png\",\"x, y\"\n",
            "sep=;\nfilename;label;split\na, b.png;x, y;train\nc.png;x/y;Training\nd.png;x/y;base\n",
        ] {
            check(&load_path(&source, Split::Train, &train(text.as_bytes())).unwrap(), &["x, y", "x/y"], 3, 4);
        }
    }
    let wide: Vec<u8> = "\u{feff}filename,label\nc.png,k\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    check(&load_path(dir.path(), Split::Train, &train(&wide)).unwrap(), &["k"], 1, 4);
    let load_train = |text: &str| load_path(dir.path(), Split::Train, &train(text.as_bytes()));
    says(load_train("filename,label\nc.png,k\nimages/c.png,l\n"), &["train.csv", "two labels", "remove a line"]);
    says(load_train("filename,label\na, b.png,k\n"), &["line 2", "put quotes"]);
    says(load_train("filename,label\nother/c.png,k\n"), &["other/c.png", "remove the line"]);
    warns(&load_train("filename,label\nc.png,k\nc.png,k\n").unwrap(), &[WarningKind::Duplicates]);
    write(dir.path(), "t/test.csv", b"filename,label\nc.png,k\nd.png,m\n");
    let both = train(b"filename,label\nc.png,k\n");
    let novel = load_path(dir.path(), Split::Novel, &both).unwrap();
    warns(&novel, &[WarningKind::SharedClasses, WarningKind::SharedPictures]);
    check(&load_path(dir.path(), Split::All, &both).unwrap(), &["k", "m"], 2, 4);

    let json = DataOptions {
        split_file: Some(write(dir.path(), "s.json", b"\xef\xbb\xbf{\"train\": [\"c1\"]}")),
        ..options()
    };
    let tree = tmp();
    (0..3).for_each(|c| drop(write(tree.path(), &format!("c{c}/a.png"), &png(4, c))));
    check(&load_path(tree.path(), Split::Train, &json).unwrap(), &["c1"], 1, 4);
}

#[test]
fn arrays_with_parts_of_their_own() {
    let dir = tmp();
    let pixels = pixels_of_shape();
    let images = npy("|u1", "(6, 4, 4, 3)", &pixels);
    let bytes = |labels: [u8; 6]| npy("|u1", "(6, 1)", &labels);
    let set = |train: [u8; 6], test: [u8; 6]| {
        zip_of(
            &[
                ("train_images.npy", images.clone()),
                ("train_labels.npy", bytes(train)),
                ("test_images.npy", images.clone()),
                ("test_labels.npy", bytes(test)),
            ],
            true,
        )
    };
    // The same classes, as MedMNIST has them: pooled, and split by class.
    let path = write(dir.path(), "pool.npz", &set([0, 1, 2, 0, 1, 2], [2, 1, 0, 0, 1, 2]));
    let all = load_path(&path, Split::All, &options()).unwrap();
    check(&all, &["0", "1", "2"], 12, 4);
    assert_eq!(load_path(&path, Split::Train, &options()).unwrap().len(), 12);
    // Classes of their own: splits.
    let path = write(dir.path(), "own.npz", &set([0, 1, 2, 0, 1, 2], [7, 8, 9, 7, 8, 9]));
    let novel = load_path(&path, Split::Novel, &options()).unwrap();
    check(&novel, &["7", "8", "9"], 6, 4);
    warns(&novel, &[WarningKind::SharedPictures]);
    says(load_path(&path, Split::Val, &options()), &["nothing for the val split", "train and novel"]);
    // Neither: which labels are the same class cannot be known.
    let path = write(dir.path(), "mixed.npz", &set([0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]));
    says(load_path(&path, Split::Train, &options()), &["equal labels", "label of its own"]);

    write(dir.path(), "npy/x_train.npy", &images);
    says(load_path(&dir.path().join("npy"), Split::Train, &options()), &["no labels beside it"]);
    write(dir.path(), "npy/y_train.npy", &bytes([0, 1, 2, 0, 1, 2]));
    check(&load_path(&dir.path().join("npy"), Split::Train, &options()).unwrap(), &["0", "1", "2"], 6, 4);
    write(dir.path(), "npy/train.npz", &zip_of(&[("images.npy", images.clone()), ("labels.npy", bytes([0; 6]))], true));
    says(load_path(&dir.path().join("npy"), Split::Train, &options()), &["two files for the train split", "keep one"]);
}

#[test]
fn idx_files_beside_their_gzipped_copies_and_of_several_sets() {
    let dir = tmp();
    let gray: Vec<u8> = (0..6 * 9).map(|i| i as u8).collect();
    let (images, labels) = (idx(&[6, 3, 3], &gray), idx(&[6], &[0, 1, 2, 0, 1, 2]));
    for (name, bytes) in [("train-images.idx3-ubyte", &images), ("train-labels.idx1-ubyte", &labels)] {
        write(dir.path(), name, bytes);
        write(dir.path(), &format!("{name}.gz"), &gzip(bytes));
    }
    check(&load_path(dir.path(), Split::All, &options()).unwrap(), &["0", "1", "2"], 6, 3);
    // The same files under the name that others give them, and other files under that name.
    write(dir.path(), "train-images-idx3-ubyte.gz", &gzip(&images));
    write(dir.path(), "train-labels-idx1-ubyte.gz", &gzip(&labels));
    check(&load_path(dir.path(), Split::All, &options()).unwrap(), &["0", "1", "2"], 6, 3);
    write(dir.path(), "train-images-idx3-ubyte.gz", &gzip(&idx(&[6, 3, 3], &[7; 54])));
    says(load_path(dir.path(), Split::All, &options()), &["is not the same as train-images", "keep one"]);
    fs::remove_file(dir.path().join("train-images-idx3-ubyte.gz")).unwrap();
    fs::remove_file(dir.path().join("train-labels-idx1-ubyte.gz")).unwrap();
    write(dir.path(), "train-images.idx3-ubyte.gz", &gzip(&labels));
    check(&load_path(dir.path(), Split::All, &options()).unwrap(), &["0", "1", "2"], 6, 3);
    write(dir.path(), "letters-images-idx3-ubyte", &images);
    write(dir.path(), "letters-labels-idx1-ubyte", &labels);
    says(load_path(dir.path(), Split::All, &options()), &["several data sets", "letters", "give the file"]);
    check(
        &load_path(&dir.path().join("letters-images-idx3-ubyte"), Split::All, &options()).unwrap(),
        &["0", "1", "2"],
        6,
        3,
    );
}

#[test]
fn other_archives_are_called_by_their_names() {
    let dir = tmp();
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let says_of = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = write(dir.path(), name, bytes);
        says(load_path(&path, Split::Train, &options()), words);
    };
    says_of("x.tar.gz", &gzip(&tar), &["is not a whole tar", "download it again"]);
    says_of("x.tar", &tar, &["is not a whole tar", "download it again"]);
    says_of("x.h5", b"\x89HDF\r\n\x1a\n", &["an HDF5 file", "numpy.savez"]);
    says_of("x.png.gz", &gzip(&png(4, 0)), &["a gzipped image", "gunzip"]);
    // A zip by another method, and repacked as its message says.
    let mut bzip2 = zip_of(&[("a/x.png", png(4, 0)), ("b/x.png", png(4, 1)), ("c/x.png", png(4, 2))], false);
    for at in 0..bzip2.len() - 12 {
        let method = match bzip2[at..at + 4] {
            [b'P', b'K', 3, 4] => at + 8,
            [b'P', b'K', 1, 2] => at + 10,
            _ => continue,
        };
        bzip2[method] = 12;
    }
    says_of("x.zip", &bzip2, &["x.zip", "zip method bzip2", "repack it with the deflate or stored method"]);
    let path = write(
        dir.path(),
        "y.zip",
        &zip_of(&[("a/x.png", png(4, 0)), ("b/x.png", png(4, 1)), ("c/x.png", png(4, 2))], true),
    );
    check(&load_path(&path, Split::All, &options()).unwrap(), &["a", "b", "c"], 3, 4);
}

#[test]
fn a_split_by_seed_that_is_too_small_names_the_way_out() {
    let dir = tmp();
    for class in 0..10 {
        (0..20).for_each(|i| drop(write(dir.path(), &format!("c{class}/{i}.png"), &png(4, 20 * class + i))));
    }
    let novel = load_path(dir.path(), Split::Novel, &options()).unwrap();
    says(draw(&novel, 5, 1, 15, 2, 0), &["the split has 2", "10 classes", "by seed", "set split = all"]);
    let all = load_path(dir.path(), "all".parse().unwrap(), &options()).unwrap();
    assert_eq!(draw(&all, 5, 1, 15, 2, 0).unwrap().len(), 2);
}

#[test]
fn image_sets_are_validated() {
    let names = || vec!["a".to_owned(), "b".to_owned()];
    let classes = || vec!["c".to_owned()];
    assert!(ImageSet::new(2, vec![0; 8], vec![0, 0], classes(), names()).is_ok());
    assert!(ImageSet::new(2, vec![0; 8], Vec::new(), Vec::new(), names()).is_ok());
    says(ImageSet::new(2, vec![0; 7], vec![0, 0], classes(), names()), &["pixels", "7"]);
    says(ImageSet::new(0, Vec::new(), vec![0, 0], classes(), names()), &["pixels"]);
    says(ImageSet::new(usize::MAX, vec![0; 8], vec![0, 0], classes(), names()), &["pixels"]);
    says(ImageSet::new(2, vec![0; 8], vec![0], classes(), names()), &["number of labels"]);
    says(ImageSet::new(2, vec![0; 8], vec![0, 1], classes(), names()), &["every label", "number of classes, 1"]);
}

// ---- glyphs, unlabelled images, episodes ----------------------------------------------------------

#[test]
fn glyphs_are_deterministic_and_their_classes_disjoint() {
    let sets: Vec<ImageSet> = Split::ALL.iter().map(|&split| load("glyphs", split, &options()).unwrap()).collect();
    for (set, classes) in sets.iter().zip(GLYPH_CLASSES) {
        assert_eq!((set.side, set.n_classes(), set.len()), (GLYPH_SIDE, classes, classes * GLYPH_INSTANCES));
        // Ink and paper in every image.
        for i in 0..set.len() {
            let ink = set.image(i).iter().filter(|&&pixel| pixel & 255 > 127).count();
            assert!((12..400).contains(&ink), "{} has {ink} inked pixels", set.names[i]);
        }
    }
    let mut names: Vec<&String> = sets.iter().flat_map(|set| &set.class_names).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), GLYPH_CLASSES.iter().sum::<usize>());
    assert_eq!(load("glyphs", Split::Val, &options()).unwrap(), sets[1]);
    assert_ne!(load("glyphs", Split::Val, &DataOptions { split_seed: 5, ..options() }).unwrap(), sets[1]);
    assert_eq!(load("glyphs", Split::Val, &with_side(17)).unwrap().side, 17);
    assert!(read_oneshot_runs("glyphs", &options()).unwrap().is_none());
}

#[test]
fn unlabelled_images_from_everywhere() {
    let dir = tmp();
    write(dir.path(), "folder/b/2.png", &png(4, 2));
    write(dir.path(), "folder/a.png", &png(4, 1));
    write(dir.path(), "folder/notes.txt", b"ignored");
    let zip = write(dir.path(), "set.zip", &zip_of(&[("y.png", png(4, 4)), ("x.png", png(4, 3))], true));
    let one = write(dir.path(), "one.jpg", &encode(RgbImage::from_pixel(4, 4, Rgb([9, 9, 9])), ImageFormat::Jpeg));
    let set = load_unlabelled(&[one, zip, dir.path().join("folder")], &options()).unwrap();
    let reds: Vec<u32> = (0..5).map(|i| set.image(i)[0] & 255).collect();
    assert_eq!(reds[1..], [3, 4, 1, 2]);
    assert!(set.names[1].ends_with("set.zip/x.png") && set.labels.is_empty() && set.n_classes() == 0);

    let text = write(dir.path(), "text.png", b"no image");
    says(load_unlabelled(&[text], &options()), &["text.png"]);
    let pickle = write(dir.path(), "train.pickle", &standard());
    says(load_unlabelled(&[pickle], &options()), &["train.pickle", "holds arrays"]);
    says(load_unlabelled(&[], &options()), &["no images given"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    says(load_unlabelled(&[dir.path().join("empty")], &options()), &["empty", "no image"]);
}

#[test]
fn fixed_episodes() {
    let dir = tmp();
    let store = |name: &str, shape: Vec<usize>, dtype: safetensors::Dtype, bytes: Vec<u8>| {
        let view = safetensors::tensor::TensorView::new(dtype, shape, &bytes).unwrap();
        let bytes = safetensors::serialize([(name, view)], None).unwrap();
        write(dir.path(), "episodes.safetensors", &bytes)
    };
    let indices: Vec<i64> = (0..2 * 2 * 3).collect();
    let as_i64: Vec<u8> = indices.iter().flat_map(|i| i.to_le_bytes()).collect();
    let as_f32: Vec<u8> = indices.iter().flat_map(|&i| (i as f32).to_le_bytes()).collect();
    for (dtype, bytes) in [(safetensors::Dtype::I64, as_i64), (safetensors::Dtype::F32, as_f32)] {
        let path = store("1shot", vec![2, 2, 3], dtype, bytes);
        let episodes = read_episodes(&path, 1, 12).unwrap();
        assert_eq!((episodes.len(), episodes[1].ways, episodes[1].queries), (2, 2, 2));
        assert_eq!((&episodes[1].support[..], &episodes[1].query[..]), (&[6, 9][..], &[7, 8, 10, 11][..]));
        says(read_episodes(&path, 1, 11), &["episodes.safetensors", "episode 1: 11", "11 images"]);
        says(read_episodes(&path, 5, 12), &["no tensor 5shot (it has 1shot)"]);
    }
    let twice: Vec<u8> = [0, 1, 2, 3, 4, 5, 6, 4].iter().flat_map(|i: &i64| i.to_le_bytes()).collect();
    let path = store("1shot", vec![2, 2, 2], safetensors::Dtype::I64, twice);
    says(read_episodes(&path, 1, 12), &["1shot, episode 1: image 4 is there twice", "without replacement"]);
    let nan: Vec<u8> =
        [0.0, 1.0, f32::NAN, 3.0, 4.0, 5.0, 6.0, 7.0].iter().flat_map(|i: &f32| i.to_le_bytes()).collect();
    let path = store("1shot", vec![2, 2, 2], safetensors::Dtype::F32, nan.clone());
    says(read_episodes(&path, 1, 12), &["NaN is not the index"]);
    for shape in [vec![2, 4], vec![1, 2, 4]] {
        let said = format!("shape {shape:?}");
        let path = store("1shot", shape, safetensors::Dtype::F32, nan.clone());
        says(read_episodes(&path, 1, 12), &[&said]);
    }
    let path = write(dir.path(), "bad.safetensors", b"not one");
    says(read_episodes(&path, 1, 12), &["bad.safetensors", "not a safetensors file"]);
}

#[test]
fn oneshot_runs_from_folder_and_zip() {
    let dir = tmp();
    let labels = "run01/test/item01.png run01/training/class02.png\nrun01/test/item02.png run01/training/class01.png\n";
    let mut files = vec![("oneshot/run01/class_labels.txt", labels.as_bytes().to_vec())];
    for (i, name) in ["test/item01", "test/item02", "training/class01", "training/class02"].into_iter().enumerate() {
        files.push((Box::leak(format!("oneshot/run01/{name}.png").into_boxed_str()), png(4, i as u8)));
    }
    for (name, bytes) in &files {
        write(&dir.path().join("folder"), name, bytes);
    }
    let zip = write(dir.path(), "runs.zip", &zip_of(&files, true));
    for source in [dir.path().join("folder"), zip] {
        let runs = read_oneshot_runs(source.to_str().unwrap(), &options()).unwrap().unwrap();
        assert_eq!((runs.len(), runs[0].name.as_str()), (1, "run01"));
        assert_eq!((&runs[0].answer[..], &runs[0].test.labels[..]), (&[1, 0][..], &[1, 0][..]));
        assert_eq!((runs[0].train.image(1)[0] & 255, runs[0].test.image(1)[0] & 255), (3, 1));
    }
    let folder = dir.path().join("folder");
    let source = folder.to_str().unwrap();
    write(&folder, "oneshot/run01/class_labels.txt", labels.split_once('\n').unwrap().0.as_bytes());
    says(read_oneshot_runs(source, &options()), &["class_labels.txt", "no line for", "item02.png"]);
    write(&folder, "oneshot/run01/class_labels.txt", b"run01/test/item01.png run01/training/class09.png");
    says(read_oneshot_runs(source, &options()), &["class_labels.txt", "line 1"]);
    fs::remove_dir_all(folder.join("oneshot")).unwrap();
    assert!(read_oneshot_runs(source, &options()).unwrap().is_none());
}
