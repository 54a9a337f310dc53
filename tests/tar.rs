//! Tar archives as other programs write them, gzipped or not, read as the same pictures, and archives that no program
//! writes, answered by a sentence. No GPU.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/damage.rs"]
mod damage;
#[path = "common/gzip.rs"]
mod gzip;
#[path = "common/says.rs"]
mod says;

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use gzip::gzip;
use ieq_wgpu::data::{DataOptions, Finder, ImageSet, Pictures, Split, load, load_unlabelled};
use ieq_wgpu::{Error, Result};
use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use says::says;
use tempfile::TempDir;

fn options() -> DataOptions {
    DataOptions::default()
}

/// The picture that `tests/data/make_tars.py` makes of a seed.
fn png(seed: u8) -> Vec<u8> {
    let picture = RgbImage::from_fn(4, 4, |x, y| Rgb([seed, 7 * x as u8, (5 * y + x) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn load_path(path: &Path, split: Split) -> Result<ImageSet> {
    load(path.to_str().unwrap(), split, &options())
}

/// The archives of `tests/data/tars.zip`, by name.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tars.zip");
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let (name, mut bytes) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        found.push((name, bytes));
    }
    found
}

fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Sets the sum of the header at `at`.
fn sign(bytes: &mut [u8], at: usize) {
    bytes[at + 148..at + 156].fill(b' ');
    let sum: u32 = bytes[at..at + 512].iter().map(|&byte| u32::from(byte)).sum();
    bytes[at + 148..at + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn every_program_s_tars_are_the_same_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, bytes) in fixtures().iter().filter(|(name, _)| name.starts_with("gnu") || name.starts_with("python")) {
        let path = write(&dir, name, bytes);
        let set = load_path(&path, Split::All).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(set.class_names, ["cat", "dog", "größe q"], "{name}");
        let of_last = match name.as_str() {
            "gnu_v7.tar" => 1,
            "gnu_ustar.tar" | "python_ustar.tar" => 2,
            _ => 3,
        };
        let mut reds: Vec<u32> = (0..set.len()).map(|i| set.image(i)[0] & 255).collect();
        reds[3..].sort_unstable();
        assert_eq!(reds, [1, 2, 11, 12, 13, 14][..3 + of_last], "{name}");
        assert_eq!(set.labels[..4], [0, 0, 1, 2]);

        let pictures = Pictures::open(std::slice::from_ref(&path), true).unwrap();
        assert_eq!((pictures.len(), pictures.name(0), pictures.origin(0)), (set.len(), "cat/1.png", path.as_path()));
        assert_eq!(pictures.stamp(0).0, pictures.read(0).unwrap().len() as u64);
        let mut finder = Finder::default();
        assert_eq!(finder.read(&path.join("dog/1.png")).unwrap(), pictures.read(2).unwrap());
        says(finder.read(&path.join("dog/7.png")), &["dog/7.png", "not in the archive any more"]);
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn links_devices_and_sparse_files_are_refused_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, bytes) in &fixtures() {
        let (whole, odd): (&[&str], &[(&str, &str)]) = match name.split_once('_').unwrap().0 {
            "sparse" => (&["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"], &[("dog/2.png", "without --sparse")]),
            "links" => (
                &["cat/1.png", "cat/2.png", "dog/1.png"],
                &[("cat/3.png", "--dereference"), ("dog/2.png", "--dereference"), ("dog/3.png", "no regular file")],
            ),
            _ => continue,
        };
        let path = write(&dir, name, bytes);
        // By name they are pictures.
        let pictures = Pictures::open(std::slice::from_ref(&path), true).unwrap();
        assert_eq!(pictures.len(), whole.len() + odd.len(), "{name}");
        for i in 0..pictures.len() {
            match odd.iter().find(|(odd, _)| *odd == pictures.name(i)) {
                Some((odd, why)) => says(pictures.read(i), &[name, odd, why]),
                None => assert!(whole.contains(&pictures.name(i)) && pictures.decode(i, &options()).is_ok(), "{name}"),
            }
        }
        says(load_path(&path, Split::All), &[name, odd[0].0, odd[0].1]);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn a_tar_of_split_folders_is_the_same_set_as_the_folders() {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for (s, split) in ["train", "val", "test"].into_iter().enumerate() {
        for class in 0..3 {
            for i in 0..2 {
                let (name, bytes) = (format!("{split}/class{class}/{i}.png"), png((100 * s + 10 * class + i) as u8));
                let file = dir.path().join("folder").join(&name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, &bytes).unwrap();
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, format!("./outer/{name}"), bytes.as_slice()).unwrap();
            }
        }
    }
    let path = write(&dir, "x.tar", &builder.into_inner().unwrap());
    for split in Split::ALL {
        let (tar, folder) = (load_path(&path, split).unwrap(), load_path(&dir.path().join("folder"), split).unwrap());
        assert_eq!((&tar.pixels, &tar.labels, &tar.class_names), (&folder.pixels, &folder.labels, &folder.class_names));
    }
    // By content, whatever the name.
    let renamed = write(&dir, "x.bin", &fs::read(&path).unwrap());
    assert_eq!(load_path(&renamed, Split::Val).unwrap().len(), 6);
    for name in ["x.tgz", "x.TAR.GZ", "gzipped.bin"] {
        let gzipped = write(&dir, name, &gzip(&fs::read(&path).unwrap()));
        for split in Split::ALL {
            let (set, tar) = (load_path(&gzipped, split).unwrap(), load_path(&path, split).unwrap());
            assert_eq!((&set.pixels, &set.labels, &set.names), (&tar.pixels, &tar.labels, &tar.names), "{name}");
        }
    }
}

// ---- gzipped ---------------------------------------------------------------------------------------

#[test]
fn every_program_s_tars_are_the_same_gzipped() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in fixtures() {
        let plain = Pictures::open(&[write(&dir, &name, &bytes)], false).unwrap();
        let packed = Pictures::open(&[write(&dir, &format!("{name}.gz"), &gzip(&bytes))], false).unwrap();
        assert_eq!(plain.len(), packed.len(), "{name}");
        // The last first: what is packed as a whole is read anywhere.
        for i in (0..plain.len()).rev() {
            assert_eq!((plain.name(i), plain.stamp(i).0), (packed.name(i), packed.stamp(i).0), "{name}");
            match (plain.read(i), packed.read(i)) {
                (Ok(one), Ok(other)) => assert!(one == other, "{name} {i}"),
                (Err(one), Err(other)) => {
                    let (one, other) = (one.to_string(), other.to_string());
                    assert_eq!(one, other.replace(&format!("{name}.gz"), &name));
                }
                (one, other) => panic!("{name} {i}: {} and {}", one.is_ok(), other.is_ok()),
            }
        }
    }
}

/// Far more than is unpacked between two points at which a reader can begin, and in an order that no tar has.
#[test]
fn large_gzipped_shards_are_the_same_data_set() {
    let dir = tempfile::tempdir().unwrap();
    let noise = |seed: u32| {
        let mut state = seed;
        let picture = RgbImage::from_fn(128, 128, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Rgb([(state >> 8) as u8, (state >> 16) as u8, (state >> 24) as u8])
        });
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Bmp).unwrap();
        bytes.into_inner()
    };
    for shard in 0..2_u32 {
        let files = (0..120).flat_map(|i| {
            // Names go up and down along the tar, classes take turns.
            let key = format!("{:03}", (i * 37) % 120);
            [(format!("{key}.cls"), (i % 7).to_string().into_bytes()), (format!("{key}.bmp"), noise(1000 * shard + i))]
        });
        let files: Vec<(String, Vec<u8>)> = files.collect();
        let tar = tar_of(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>());
        assert!(tar.len() > 5 << 20);
        write(&dir, &format!("train-{shard}.tar"), &tar);
        write(&dir, &format!("train-{shard}.tar.gz"), &gzip(&tar));
    }
    let of = |ending: &str| load_path(&dir.path().join(format!("train-{{0..1}}.{ending}")), Split::Train).unwrap();
    let (plain, packed) = (of("tar"), of("tar.gz"));
    assert_eq!((plain.len(), plain.n_classes()), (240, 7));
    assert!(plain.pixels == packed.pixels && plain.labels == packed.labels);
    assert_eq!(packed.names[0], plain.names[0].replace(".tar/", ".tar.gz/"));
    // A folder has each shard once.
    says(load_path(dir.path(), Split::Train), &["train-0.tar.gz: lies beside", "train-0.tar, packed", "keep one"]);
    (0..2).for_each(|shard| fs::remove_file(dir.path().join(format!("train-{shard}.tar"))).unwrap());
    assert!(load_path(dir.path(), Split::Train).unwrap().pixels == packed.pixels);
    let path = dir.path().join("train-0.tar.gz");
    let pictures = Pictures::open(std::slice::from_ref(&path), true).unwrap();
    assert_eq!((pictures.len(), pictures.path(7)), (120, path.join("007.bmp")));
    assert!(Finder::default().read(&path.join("007.bmp")).unwrap() == pictures.read(7).unwrap());
}

#[test]
fn damaged_gzip_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let tar = shard(&[("s/00", 1, "10"), ("s/01", 2, "9\n"), ("s/02", 3, "10")]);
    let good = gzip(&tar);
    let refused = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = write(&dir, name, bytes);
        says(load_path(&path, Split::All), &[&[name], words].concat());
        says(Pictures::open(&[path], true).map(|_| ()), &[&[name], words].concat());
    };
    let again = "copy or download it again";
    for cut in [3, 12, good.len() / 2, good.len() - 9, good.len() - 1] {
        refused("x.tar.gz", &good[..cut], &["is no whole gzip file (it ends early)", again]);
    }
    for (at, why) in
        [(2, "a way that no standard has"), (good.len() - 1, "its check sum"), (good.len() - 5, "its check sum")]
    {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        refused("x.tgz", &bytes, &["is no whole gzip file", why, again]);
    }
    // Whole as a gzip file, and no whole tar in it.
    refused("x.tar.gz", &gzip(&tar[..tar.len() - 1024]), &["is not a whole tar", "ends early", again]);
    refused("x.tar.gz", &gzip(&tar[..700]), &["is not a whole tar", "ends early", again]);
    let mut flipped = tar.clone();
    flipped[1024] ^= 1;
    refused("x.tar.gz", &gzip(&flipped), &["is not a whole tar", "byte 1024", "check sum"]);
    // Zeros without end.
    let mut bomb = tar[..512].to_vec();
    bomb[124..136].copy_from_slice(b"00777777777\0");
    sign(&mut bomb, 0);
    bomb.resize(80 << 20, 0);
    refused("x.tar.gz", &gzip(&bomb), &["unpacks to more than 200 times its size", "gunzip it"]);
}

#[test]
fn hostile_tars() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8], words: &[&str]| {
        let path = write(&dir, name, bytes);
        says(load_unlabelled(std::slice::from_ref(&path), &options()), &[&[name], words].concat());
        says(load_path(&path, Split::All), &[&[name], words].concat());
    };
    let good = tar_of(&[("a/1.png", png(1)), ("a/2.png", png(2)), ("b/1.png", png(3))]);
    assert_eq!(load_path(&write(&dir, "good.tar", &good), Split::All).unwrap().len(), 3);

    // Cut off within a header, within content, and between members.
    for cut in [600, 700, 1024, good.len() - 1024] {
        refused("cut.tar", &good[..cut], &["not a whole tar", "copy or download it again"]);
    }
    refused("cut.tar", &good[..513], &["not a whole tar", "again"]);
    // A lone block of zeros closes an archive, too.
    load_path(&write(&dir, "lone.tar", &good[..good.len() - 512]), Split::All).unwrap();

    let mut flipped = good.clone();
    flipped[1024] ^= 1;
    refused("flip.tar", &flipped, &["not a whole tar", "byte 1024", "check sum"]);
    for size in [
        &b"77777777777\0"[..],
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut large = good.clone();
        large[124..136].copy_from_slice(size);
        sign(&mut large, 0);
        refused("large.tar", &large, &["not a whole tar", "larger than what is left"]);
    }
    let mut number = good.clone();
    number[124..136].copy_from_slice(b"no number!!\0");
    sign(&mut number, 0);
    refused("number.tar", &number, &["not a whole tar", "not a number"]);

    refused(
        "twice.tar",
        &tar_of(&[("a/1.png", png(1)), ("./a/1.png", png(2))]),
        &["two files called a/1.png", "repack"],
    );
    refused("deep.tar", &tar_of(&[(&format!("{}1.png", "a/".repeat(40)), png(1))]), &["in 40 folders", "repack"]);
    refused("long.tar", &tar_of(&[(&format!("a/{}.png", "x".repeat(5000)), png(1))]), &["5006 bytes", "repack"]);
    refused("none.tar", &[0; 1024], &["none.tar"]);

    // Nothing leads out of the archive. The crate does not write such names.
    let mut up = good.clone();
    for (at, name) in [(0, &b"/../../etc/a/1.png"[..]), (1024, b"../../etc/a/2.png"), (2048, b"/etc/../b/1.png")] {
        up[at..at + name.len()].copy_from_slice(name);
        sign(&mut up, at);
    }
    let path = write(&dir, "up.tar", &up);
    let pictures = Pictures::open(std::slice::from_ref(&path), true).unwrap();
    let names: Vec<&str> = (0..3).map(|i| pictures.name(i)).collect();
    assert_eq!(names, ["etc/a/1.png", "etc/a/2.png", "etc/b/1.png"]);

    // A list of attributes that is too long, one that lies about its lengths, and one that never ends.
    let attributes = |said: u64, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_path("attributes").unwrap();
        header.set_size(said);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes.extend(&good);
        bytes
    };
    refused("many.tar", &attributes(1 << 30, b""), &["attributes of 1073741824 bytes"]);
    for content in [
        &b"9999 path=a\n"[..],
        b"no number",
        b"12 path=abc",
        b"0 path=a\n",
        b"12 path abc\n",
        b"18446744073709551615 a=b\n",
    ] {
        refused("lie.tar", &attributes(content.len() as u64, content), &["list of attributes cannot be read"]);
    }
    refused("size.tar", &attributes(10, b"10 size=x\n"), &["is no number"]);
    refused("size.tar", &attributes(29, b"29 size=18446744073709551615\n"), &["larger than what is left"]);
    // A value may hold line breaks, and what looks like another record.
    let content = b"29 comment=x\n16 path=b/9.png\n";
    let path = write(&dir, "breaks.tar", &attributes(content.len() as u64, content));
    assert!(Pictures::open(&[path], true).unwrap().name(0) == "a/1.png");
}

#[test]
fn damaged_tars_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let mut files = 0;
    for (name, whole) in
        fixtures().iter().filter(|(name, _)| ["python_pax.tar", "sparse_oldgnu.tar"].contains(&&**name))
    {
        let is_header = |block: usize| whole.get(512 * block + 257..512 * block + 262) == Some(b"ustar");
        // Headers, and what follows them: attributes, names, lists of parts.
        let blocks = (0..whole.len() / 512).filter(|&block| is_header(block) || is_header(block - 1));
        for at in blocks.flat_map(|block| (512 * block..512 * block + 512).step_by(7)) {
            for value in [0, b'7', b'/', 0xff, whole[at] ^ 1] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                // With the sum as it was, and as it then has to be.
                for signed in [false, true] {
                    if signed {
                        sign(&mut bytes, at / 512 * 512);
                    }
                    damage::write(&path, &bytes);
                    files += 1;
                    match Pictures::open(std::slice::from_ref(&path), false) {
                        Ok(pictures) => (0..pictures.len()).for_each(|i| drop(pictures.read(i))),
                        Err(Error::Data { path: named, message }) => {
                            assert!(named.starts_with(&path) && !message.contains('\n'), "{name} {at}: {message}");
                        }
                        Err(other) => panic!("{name} {at}: {other}"),
                    }
                }
            }
        }
    }
    assert!(files > 20_000, "{files}");
}

// ---- webdataset's shards ---------------------------------------------------------------------------

/// A shard of samples `KEY.png` with `KEY.cls` beside, as (key, seed, class).
fn shard(samples: &[(&str, u8, &str)]) -> Vec<u8> {
    let files = samples.iter().flat_map(|(key, seed, class)| {
        [(format!("{key}.png"), png(*seed)), (format!("{key}.cls"), class.as_bytes().to_vec())]
    });
    let files: Vec<(String, Vec<u8>)> = files.collect();
    tar_of(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect::<Vec<_>>())
}

fn reds(set: &ImageSet) -> Vec<u32> {
    (0..set.len()).map(|i| set.image(i)[0] & 255).collect()
}

#[test]
fn shards_are_a_labelled_data_set() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "x-000.tar", &shard(&[("s/00", 1, "10"), ("s/01", 2, "9\n"), ("s/02", 3, "10")]));
    write(&dir, "x-001.tar", &shard(&[("s/00", 4, "9"), ("s/03", 5, "-1")]));
    let pattern = dir.path().join("x-{000..001}.tar");
    let set = load_path(&pattern, Split::All).unwrap();
    assert_eq!((set.class_names.join(" "), reds(&set)), ("-1 9 10".into(), vec![5, 2, 4, 1, 3]));
    assert_eq!(set.names[2], "x-001.tar/s/00.png");
    // A folder of them, both joined by ::, and one alone.
    let mut folder = load_path(dir.path(), Split::All).unwrap();
    assert_eq!((&folder.pixels, &folder.labels), (&set.pixels, &set.labels));
    let joined = format!("{0}/x-000.tar::{0}/x-001.tar", dir.path().display());
    folder = load(&joined, Split::All, &options()).unwrap();
    assert_eq!((&folder.pixels, &folder.names), (&set.pixels, &set.names));
    let one = load_path(&dir.path().join("x-000.tar"), Split::All).unwrap();
    assert_eq!(
        (one.class_names.join(" "), one.names[0].as_str(), reds(&one)),
        ("9 10".into(), "s/01.png", vec![2, 1, 3])
    );
    // Few classes are all trained on.
    says(load_path(&pattern, Split::Novel), &["3 classes without splits"]);

    for (pattern, words) in [
        ("x-{000..002}.tar", &["x-002.tar"][..]),
        ("x-{000-001}.tar", &["neither a range"]),
        ("x-{000,000}.tar", &["named twice"]),
    ] {
        says(load_path(&dir.path().join(pattern), Split::All), words);
    }
    write(&dir, "x-002.tar", b"no tar");
    says(load_path(&dir.path().join("x-{000..002}.tar"), Split::All), &["x-002.tar", "is no tar archive"]);
}

#[test]
fn shards_named_after_splits_are_of_them() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "set-train-0.tar", &shard(&[("0", 1, "cat"), ("1", 2, "dog")]));
    write(&dir, "set-train-1.tar", &shard(&[("0", 3, "cat")]));
    write(&dir, "set-val-0.tar", &shard(&[("0", 4, "Cat"), ("1", 1, "owl")]));
    let train = load_path(dir.path(), Split::Train).unwrap();
    assert_eq!((train.class_names.join(" "), reds(&train)), ("cat dog".into(), vec![1, 3, 2]));
    let val = load_path(dir.path(), Split::Val).unwrap();
    assert_eq!((val.class_names.join(" "), val.warnings.len()), ("Cat owl".into(), 2));
    assert!(val.warnings[0].message.contains("(Cat)") && val.warnings[1].message.contains("set-train-0.tar/0.png"));
    says(load_path(dir.path(), Split::Novel), &["no shard of the novel split", "train and val", "novel-000000.tar"]);
    assert_eq!(load_path(dir.path(), Split::All).unwrap().class_names.join(" "), "Cat cat dog owl");
    says(load_path(&dir.path().join("set-val-0.tar"), Split::Train), &["no shard of the train split", "(it has val)"]);

    write(&dir, "set-more.tar", &shard(&[("0", 9, "emu")]));
    let val = load_path(dir.path(), Split::Val).unwrap();
    assert!(val.warnings.iter().any(|warning| warning.message.contains("set-more.tar are left out")));
    says(load_path(&dir.path().join("{set-more,set-val-0}.tar"), Split::Val), &["named after a split", "rename one"]);

    // Shards beside class folders are not read, which is said.
    let beside = tempfile::tempdir().unwrap();
    for class in ["x", "y"] {
        fs::create_dir(beside.path().join(class)).unwrap();
        write(&beside, &format!("{class}/1.png"), &png(1));
    }
    write(&beside, "train-000.tar", &shard(&[("0", 1, "cat")]));
    let set = load_path(beside.path(), Split::All).unwrap();
    assert_eq!(set.class_names, ["x", "y"]);
    let said = |warning: &ieq_wgpu::data::Warning| warning.message.contains("1 tar archives such as train-000.tar");
    assert!(set.warnings.iter().any(said), "{:?}", set.warnings);

    // By folder, by a file of classes, and by a table of pictures.
    let other = tempfile::tempdir().unwrap();
    for (name, split) in [("train", "a"), ("test", "b")] {
        fs::create_dir(other.path().join(name)).unwrap();
        write(&other, &format!("{name}/000.tar"), &shard(&[("0", 1, split), ("1", 2, split)]));
    }
    assert_eq!(load_path(other.path(), Split::Novel).unwrap().class_names, ["b"]);
    for (file, text) in
        [("s.json", r#"{"train": ["b"], "novel": ["a"]}"#), ("test.csv", "filename,label\ntest/000.tar/1.png,x\n")]
    {
        let split_file = Some(write(&other, file, text.as_bytes()));
        let set = load(other.path().to_str().unwrap(), Split::Novel, &DataOptions { split_file, ..options() }).unwrap();
        assert_eq!(reds(&set), if file == "s.json" { vec![1, 2] } else { vec![2] }, "{file}");
    }
}

#[test]
fn classes_from_json_and_samples_without() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, files: &[(&str, Vec<u8>)]| load_path(&write(&dir, name, &tar_of(files)), Split::All);
    let json = |text: &str| text.as_bytes().to_vec();
    let set = of(
        "json.tar",
        &[
            ("00/1.jpg.png", png(9)),
            ("00/1.png", png(1)),
            ("00/1.json", json(r#"{"label": "sea lion", "class": 3}"#)),
            ("00/2.PNG", png(2)),
            ("00/2.json", json(r#"{"class": 7}"#)),
            ("00/3.json", json("{}")),
            ("00/no", json("dot")),
        ],
    )
    .unwrap();
    assert_eq!((set.class_names.join(","), reds(&set)), ("7,sea lion".into(), vec![2, 1]));
    assert!(set.warnings[0].message.contains("1 samples without a picture"));
    for (name, files, words) in [
        (
            "a.tar",
            &[("1.png", png(1)), ("1.txt", json("a caption"))][..],
            &["1.png", "has no class", "`embed` needs none"][..],
        ),
        ("a.tar", &[("1.png", png(1)), ("1.json", json(r#"{"caption": 1}"#))], &["1.png", "has no class"]),
        ("a.tar", &[("1.png", png(1)), ("1.json", json(r#"{"label": [1]}"#))], &["1.json", "neither text nor"]),
        ("a.tar", &[("1.png", png(1)), ("1.json", json("[1]"))], &["1.json", "no object of JSON"]),
        ("a.tar", &[("1.png", png(1)), ("1.cls", json(""))], &["1.cls", "says no class"]),
        ("a.tar", &[("1.png", png(1)), ("1.cls", json("a\nb"))], &["1.cls", "one line"]),
        ("a.tar", &[("1.png", png(1)), ("1.cls", vec![0xff, 0xfe, 0xff])], &["1.cls", "UTF-8"]),
        ("a.tar", &[("1.png", png(1)), ("1.cls", vec![b'1'; 2 << 20])], &["1.cls", "1 MiB"]),
        (
            "a.tar",
            &[("1.png", png(1)), ("1.tga", png(1)), ("1.cls", json("1"))],
            &["1.png", "not the only picture", ".tga"],
        ),
        ("a.tar", &[("1.cls", json("1"))], &["a.tar", "no sample with a picture"]),
    ] {
        says(of(name, files), words);
    }
    // Where others have a .cls, folders are no remedy.
    let files = [("1.png", png(1)), ("1.cls", json("1")), ("b/2.png", png(2))];
    says(of("mixed.tar", &files), &["b/2.png", "has no class", "as other pictures of this tar have"]);
    // Several pictures of a sample: numbered ones are all of its class; one without a number is the picture.
    let files = [
        ("a.0.png", png(1)),
        ("a.1.png", png(2)),
        ("a.cls", json("7")),
        ("b.img1.png", png(3)),
        ("b.img2.png", png(4)),
        ("b.cls", json("8")),
        ("c.png", png(5)),
        ("c.1.png", png(6)),
        ("c.cls", json("8")),
    ];
    let set = of("several.tar", &files).unwrap();
    assert_eq!((set.class_names.join(","), reds(&set)), ("7,8".into(), vec![1, 2, 3, 4, 5]));
    let files = [("a.image.png", png(1)), ("a.mask.png", png(2)), ("a.cls", json("7"))];
    says(of("mask.tar", &files), &["a.image.png", "not the only picture", ".mask.png", "number them"]);
    // By name another sample's folder stands between the members of one.
    let set =
        of("between.tar", &[("a.cls", json("x")), ("a.d/b.cls", json("y")), ("a.d/b.png", png(2)), ("a.png", png(1))]);
    assert_eq!(reds(&set.unwrap()), [1, 2]);
    // Class folders with notes beside the pictures stay class folders.
    let set = of("f.tar", &[("a/1.png", png(1)), ("a/1.json", json("{}")), ("b/1.png", png(2))]).unwrap();
    assert_eq!(set.class_names, ["a", "b"]);
}

/// `PROPTEST_CASES` sets how many damaged copies of each archive there are.
#[test]
fn damaged_bytes_anywhere_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let shards = shard(&[("s/00", 1, "10"), ("s/01", 2, "9\n"), ("s/02", 3, "10")]);
    let gzipped = ("gzipped shards".to_owned(), gzip(&shards));
    let shards = [("shards".to_owned(), shards), gzipped];
    let small = fixtures().into_iter().filter(|(_, bytes)| bytes.len() < 30_000).chain(shards);
    for (name, whole) in small {
        let mut runner = damage::runner(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions/tar.txt"));
        let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..5);
        let run = runner.run(&(changes, any::<bool>(), 0..whole.len() * 4), |(changes, signed, cut)| {
            let mut bytes = whole.clone();
            for (at, value) in changes {
                bytes[at] = value;
                if signed && !name.starts_with("gzipped") {
                    sign(&mut bytes, at / 512 * 512);
                }
            }
            bytes.truncate(cut.max(1));
            damage::write(&path, &bytes);
            for error in [load_path(&path, Split::All).err(), Pictures::open(std::slice::from_ref(&path), true).err()] {
                let error = error.map_or(String::new(), |error| error.to_string());
                prop_assert!(error.is_empty() || error.contains("x.tar"), "{}: {}", name, error);
            }
            Ok(())
        });
        run.unwrap();
    }
}
