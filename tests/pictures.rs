//! Picture files of every kind compared with what Pillow sees in them: `ImageOps.exif_transpose`, then
//! `convert("RGB")`.
//!
//! `pictures/make.py` wrote the files and the expected pixels; where the program differs from Pillow on purpose
//! (16-bit gray, for one), it says why. Everything is compared exactly except where `expected.json` has a tolerance.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ieq_wgpu::data::decode_rgb;

/// One file's expected picture.
#[derive(serde::Deserialize)]
struct Expected {
    width: u32,
    height: u32,
    /// Where its pixels start in `expected.rgb.zlib`.
    at: usize,
    /// Allowed mean and largest absolute difference.
    mean: f64,
    most: u8,
}

/// Files that are refused, and words of the sentence.
const REFUSED: &[(&str, &[&str])] = &[
    ("12-bit.jpg", &["is a JPEG with 12 bits per sample", "save it again as PNG"]),
    ("64-bit.tif", &["64-bit unsigned samples", "save it again as PNG"]),
    ("cut-arithmetic.jpg", &["the file ends early", "replace it or remove it"]),
    ("cut-ended.jpg", &["the file ends early", "replace it or remove it"]),
    ("cut-plain.pgm", &["the file ends early"]),
    ("cut-progressive.jpg", &["the file ends early"]),
    ("cut-rle.tga", &["the file ends early"]),
    ("cut-row.png", &["cannot be decoded", "replace it or remove it"]),
    ("cut.bmp", &["cannot be decoded", "replace it or remove it"]),
    ("cut.gif", &["the file ends early"]),
    ("cut.jpg", &["the file ends early"]),
    ("cut.png", &["cannot be decoded", "replace it or remove it"]),
    ("cut.ppm", &["the file ends early"]),
    ("cut.tga", &["the file ends early"]),
    ("cut.tif", &["the file ends early"]),
    ("cut.webp", &["cannot be decoded", "replace it or remove it"]),
    ("damaged.png", &["cannot be decoded", "replace it or remove it"]),
    ("empty.png", &["cannot be decoded", "none of the formats"]),
    ("flat.jpg", &["it has no pixels"]),
    ("float-0-1.tif", &["values lie from 0", "0 to 255 is read", "save it again as PNG"]),
    ("heic.jpg", &["is a HEIC picture", "save it again as PNG"]),
    ("header-only.jpg", &["the file ends early"]),
    ("huge.jpg", &["is too large (65535 x 65535)", "shrink it first"]),
    ("huge.tif", &["is too large (60000 x 60000)", "shrink it first"]),
    ("int-65535.tif", &["values lie from", "0 to 255 is read", "save it again as PNG"]),
    ("lab.tif", &["L*a*b*", "save it again as PNG"]),
    ("lossless.jpg", &["is a lossless JPEG", "save it again as PNG"]),
    ("no-pixels.png", &["cannot be decoded"]),
    ("old-jpeg.tif", &["old-style JPEG compression", "save it again as PNG"]),
    ("short-lzw.tif", &["the file ends early"]),
    ("short-strip.tif", &["the file ends early"]),
    ("text", &["is not an image", "png, jpg"]),
    ("text.jpg", &["cannot be decoded", "none of the formats"]),
    ("zstd.tif", &["Zstandard compression", "save it again as PNG"]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures")
}

fn expected() -> (BTreeMap<String, Expected>, Vec<u8>) {
    let index = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let packed = std::fs::read(folder().join("expected.rgb.zlib")).unwrap();
    let mut pixels = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut pixels).unwrap();
    (serde_json::from_str(&index).unwrap(), pixels)
}

/// What is wrong with the decoded picture of one file, if anything.
fn compare(name: &str, expected: &Expected, pixels: &[u8]) -> Result<(), String> {
    let path = folder().join("files").join(name);
    let picture = decode_rgb(&path, &std::fs::read(&path).unwrap()).map_err(|error| error.to_string())?;
    if picture.dimensions() != (expected.width, expected.height) {
        return Err(format!("{:?} for {} x {}", picture.dimensions(), expected.width, expected.height));
    }
    let differences: Vec<u8> =
        picture.as_raw().iter().zip(&pixels[expected.at..]).map(|(a, b)| a.abs_diff(*b)).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    let most = differences.iter().copied().max().unwrap_or(0);
    if mean > expected.mean || most > expected.most { Err(format!("off by {mean:.2}, at most {most}")) } else { Ok(()) }
}

#[test]
fn pictures_are_what_pillow_sees() {
    let (index, pixels) = expected();
    let wrong: Vec<String> = index
        .iter()
        .filter_map(|(name, expected)| Some(format!("{name}: {}", compare(name, expected, &pixels).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), index.len(), wrong.join("\n"));
}

#[test]
fn the_comparison_can_fail() {
    let (index, mut pixels) = expected();
    let rgb = &index["rgb.png"];
    assert!(compare("rgb.png", rgb, &pixels).is_ok());
    pixels[rgb.at + 100] ^= 1;
    assert!(compare("rgb.png", rgb, &pixels).is_err());
    // A picture that is not turned is not the expected one.
    assert!(compare("exif-1.png", &index["exif-3.png"], &pixels).is_err());
}

#[test]
fn every_file_is_expected_or_refused() {
    let (index, _) = expected();
    for entry in std::fs::read_dir(folder().join("files")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_refused = REFUSED.iter().any(|(refused, _)| *refused == name);
        assert!(is_refused != index.contains_key(&name), "{name}");
    }
}

#[test]
fn a_wrong_checksum_is_called_that() {
    let mut bytes = std::fs::read(folder().join("files/wrong-adler.png")).unwrap();
    // The last byte of the checksum of IHDR: 8 of the signature, 8 of the chunk's head, 13 of its content, 4.
    bytes[32] ^= 1;
    let error = decode_rgb(Path::new("x.png"), &bytes).unwrap_err().to_string();
    assert!(error.contains("cannot be decoded") && error.contains("one of its checksums is wrong"), "{error}");
}

#[test]
fn what_is_not_read_is_refused_in_one_sentence() {
    for (name, words) in REFUSED {
        let path = folder().join("files").join(name);
        let sentence = match decode_rgb(&path, &std::fs::read(&path).unwrap()) {
            Ok(_) => panic!("{name} is read"),
            Err(error) => error.to_string(),
        };
        assert!(!sentence.contains('\n'), "{name}: {sentence}");
        for word in *words {
            assert!(sentence.contains(word), "{name}: {sentence}");
        }
    }
}

/// Every cut and many damaged bytes of every file: an answer, right or wrong, and no panic inside.
#[test]
fn damaged_files_do_no_harm() {
    let check = |path: &Path, bytes: &[u8], how: &str| {
        if let Err(error) = decode_rgb(path, bytes) {
            assert!(!error.to_string().contains("confuses the decoder"), "{}, {how}", path.display());
        }
    };
    for entry in std::fs::read_dir(folder().join("files")).unwrap() {
        let path = entry.unwrap().path();
        let whole = std::fs::read(&path).unwrap();
        let step = (whole.len() / 60).max(1);
        for at in (0..whole.len()).step_by(step) {
            check(&path, &whole[..at], &format!("cut at {at}"));
            for damage in [0xff, 0x01, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= damage;
                check(&path, &damaged, &format!("byte {at} ^ {damage}"));
            }
        }
    }
}
