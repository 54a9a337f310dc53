//! `embed --shards`: many processes with a part each, killed at random, make the very files of one; what was made with
//! something else is refused, and `neighbors` and `audit` read the folder.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use ieq_wgpu::data::embeddings::{Reader, ShardStats};
use ieq_wgpu::random::{Rng, Stream};
use image::{ImageFormat, RgbImage};
use program::{command, document, fails, files, json, run, save, stderr, succeeds};

const MODEL: &str = "shipped:pictures";

/// A picture of one of four kinds of stripes.
fn picture(seed: u32) -> RgbImage {
    let kind = seed % 4;
    RgbImage::from_fn(20 + seed % 3, 20, |x, y| {
        let level = [x * 12, y * 12, (x + y) * 6, (x ^ y) * 8][kind as usize];
        image::Rgb([level as u8, (seed * 31) as u8, (level + seed * 7) as u8])
    })
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A tar of files.
fn tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut builder = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
}

/// `n` shards as webdataset has them, `web-000.tar` and so on: pictures with a class beside each, and in every fifth shard
/// a picture that cannot be read.
fn shards(folder: &Path, n: u32) {
    for shard in 0..n {
        let mut members = Vec::new();
        for i in 0..4 + shard % 5 {
            let key = format!("{shard:03}{i:02}");
            members.push((format!("{key}.cls"), (i % 4).to_string().into_bytes()));
            members.push((format!("{key}.png"), png(&picture(100 * shard + i))));
        }
        if shard % 5 == 2 {
            members.push((format!("{shard:03}bad.jpg"), b"no picture".to_vec()));
        }
        let path = folder.join(format!("web-{shard:03}.tar"));
        if !path.exists() {
            tar(&path, &members);
        }
    }
}

/// Names and contents of a folder's files.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(folder).into_iter().map(|(path, bytes)| (path.strip_prefix(folder).unwrap().to_owned(), bytes)).collect()
}

/// `n` shards embedded by `processes` at once, of which `kills` are killed at random and begun anew; then by one alone.
fn processes_with_kills_make_the_files_of_one(n: u32, processes: usize, kills: usize) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shards(folder, n);
    let words = |part: usize, out: &str| {
        format!("embed {MODEL} --shards web-{{000..{:03}}}.tar --part {part}/{processes} --out {out} --quiet", n - 1)
    };
    let spawn = |part: usize| -> Child {
        command(folder, &words(part, "many")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut random = Rng::new(7, Stream::Order, 0, 0);
    let mut running: Vec<Child> = (1..=processes).map(spawn).collect();
    let mut killed = 0;
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(u64::from(random.next_bits() % 700)));
        let which = random.next_bits() as usize % processes;
        // One that has ended is begun anew, too, and finds everything finished.
        let _ = running[which].kill();
        killed += usize::from(running[which].wait().unwrap().code().is_none());
        running[which] = spawn(which + 1);
    }
    assert!(killed > 0, "all processes had ended before they could be killed");
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let alone = format!("embed {MODEL} --shards web-{{000..{:03}}}.tar --out alone", n - 1);
    let outcome = json(folder, &alone);
    let rows: u32 = (0..n).map(|shard| 4 + shard % 5).sum();
    assert_eq!((outcome["rows"].as_u64(), outcome["embedded"].as_u64()), (Some(rows.into()), Some(n.into())));
    assert_eq!(outcome["left_out"].as_u64().unwrap(), u64::from((0..n).filter(|shard| shard % 5 == 2).count() as u32));
    let (many, alone) = (contents(&folder.join("many")), contents(&folder.join("alone")));
    assert_eq!(many.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>());
    assert_eq!(alone.len(), 3 * n as usize, "an array, a list and what is known of it per shard, and nothing else");
    for (name, bytes) in &alone {
        assert!(many[name] == *bytes, "{}", name.display());
    }
}

#[test]
fn three_processes_with_kills_make_the_files_of_one() {
    processes_with_kills_make_the_files_of_one(15, 3, 6);
}

#[test]
#[ignore = "takes minutes: 1,000 shards, 8 processes, 60 kills"]
fn eight_processes_with_kills_make_the_files_of_one() {
    processes_with_kills_make_the_files_of_one(1000, 8, 60);
}

/// Whatever a process had made when it was killed, the next one makes of it what one makes that was not; and two at once.
#[test]
fn every_state_that_a_killed_process_leaves_is_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shards(folder, 3);
    let words = format!("embed {MODEL} --shards web-002.tar --out out --quiet");
    succeeds(folder, &words);
    let whole = contents(&folder.join("out"));
    assert_eq!(whole.len(), 3);
    let at = |name: &str| folder.join("out").join(name);
    let put = |names: &[&str]| {
        for name in names {
            std::fs::write(at(name), &whole[Path::new(name)]).unwrap();
        }
    };
    let (array, list, stats) = ("web-002.npy", "web-002.txt", "web-002.stats.json");
    let begun = |bytes: &[u8]| std::fs::write(at("web-002.part"), bytes).unwrap();
    let states: [(&str, &dyn Fn()); 9] = [
        ("nothing", &|| ()),
        ("an empty part file", &|| begun(b"")),
        ("a part file's first bytes", &|| begun(b"IEQ")),
        ("a part file, nothing in it", &|| begun(b"IEQPART1")),
        ("a part file and the array", &|| (begun(b"IEQPART1"), put(&[array])).1),
        ("a part file, array and list", &|| (begun(b"IEQPART1"), put(&[array, list])).1),
        ("a part file and all", &|| (begun(b"IEQPART1"), put(&[array, list, stats])).1),
        ("array and list", &|| put(&[array, list])),
        ("all but the list", &|| put(&[array, stats])),
    ];
    for (what, make) in states {
        std::fs::remove_dir_all(at("")).unwrap();
        std::fs::create_dir(at("")).unwrap();
        make();
        succeeds(folder, &words);
        assert!(contents(&folder.join("out")) == whole, "{what}");
    }
    // Four processes on the very same shards. One that leaves a shard to another says so, and has to be asked again.
    let words = format!("embed {MODEL} --shards web-{{000..002}}.tar --out same --quiet");
    let spawn = |_| command(folder, &words).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    for child in (0..4).map(spawn).collect::<Vec<_>>() {
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        match output.status.code() {
            Some(0) => {}
            Some(1) => assert!(said.contains("are left to another process that is embedding them"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
    }
    succeeds(folder, &words);
    succeeds(folder, &words.replace("same", "alone"));
    assert!(contents(&folder.join("same")) == contents(&folder.join("alone")));
}

fn rows(path: &Path) -> Vec<(String, Vec<f32>)> {
    let mut reader = Reader::open(path).unwrap();
    let (mut all, mut row) = (Vec::new(), Vec::new());
    while let Some(path) = reader.next(&mut row).unwrap() {
        all.push((path, row.clone()));
    }
    all
}

#[test]
fn a_shard_has_the_rows_of_its_pictures_and_a_bad_one_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shards(folder, 4);
    let cut = std::fs::read(folder.join("web-001.tar")).unwrap();
    std::fs::write(folder.join("web-001.tar"), &cut[..1000]).unwrap();
    std::fs::remove_file(folder.join("web-003.tar")).unwrap();
    let words = format!("embed {MODEL} --shards web-{{000..003}}.tar --out out --json");
    let output = run(folder, &words);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("2 of 4 shards could not be embedded, the first web-001.tar: "),
        "{}",
        stderr(&output)
    );
    let outcome = document(&output);
    assert_eq!((outcome["embedded"].as_u64(), outcome["failed"].as_array().unwrap().len()), (Some(2), 2));
    for shard in ["web-000", "web-002"] {
        let alone = run(folder, &format!("embed {MODEL} {shard}.tar --out {shard}.npy"));
        assert_eq!(alone.status.code(), Some(i32::from(shard == "web-002")), "{}", stderr(&alone));
        assert_eq!(rows(&folder.join(format!("out/{shard}.npy"))), rows(&folder.join(format!("{shard}.npy"))));
    }
    let stats = ShardStats::read(&folder.join("out/web-002.stats.json")).unwrap().unwrap();
    assert_eq!((stats.rows, stats.left_out.len(), stats.embeddings.as_str()), (6, 1, "web-002.npy"));
    assert!(stats.left_out[0].path.ends_with("web-002.tar/002bad.jpg"), "{stats:?}");

    // Put right, the same command does what is left.
    std::fs::write(folder.join("web-001.tar"), &cut).unwrap();
    std::fs::copy(folder.join("web-000.tar"), folder.join("web-003.tar")).unwrap();
    let outcome = json(folder, &words.replace(" --json", ""));
    assert_eq!((outcome["embedded"].as_u64(), outcome["finished_before"].as_u64()), (Some(2), Some(2)));
    assert_eq!(rows(&folder.join("out")).len(), 4 + 5 + 6 + 4);

    // A file that is gone is made again, and other folders and formats are shards, too.
    std::fs::remove_file(folder.join("out/web-002.txt")).unwrap();
    assert_eq!(json(folder, &words.replace(" --json", ""))["embedded"], 1);
    save(&folder.join("plain/a.png"), &picture(1), ImageFormat::Png);
    succeeds(
        folder,
        &format!("embed {MODEL} --shards plain web-{{000,003}}.tar --out as-csv --format csv --normalise"),
    );
    let all = rows(&folder.join("as-csv"));
    assert_eq!(all.len(), 9);
    assert!(all.iter().all(|(_, row)| (row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4));
    // A gzipped shard has the rows of the shard.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&std::fs::read(folder.join("web-000.tar")).unwrap()).unwrap();
    let packed = packed.finish().unwrap();
    std::fs::write(folder.join("web-000.tar.gz"), &packed).unwrap();
    succeeds(folder, &format!("embed {MODEL} --shards web-{{000..000}}.tar.gz --out packed"));
    let of = |folder: PathBuf| rows(&folder).into_iter().map(|(_, row)| row).collect::<Vec<_>>();
    assert_eq!(of(folder.join("packed/web-000.npy")), of(folder.join("out/web-000.npy")));
    assert_eq!(rows(&folder.join("packed"))[0].0, "web-000.tar.gz/00000.png");
    std::fs::write(folder.join("web-000.tar.gz"), &packed[..packed.len() - 5]).unwrap();
    let output = run(folder, &format!("embed {MODEL} --shards web-000.tar.gz --out cut"));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("web-000.tar.gz: is no whole gzip file (it ends early)"), "{}", stderr(&output));

    // More parts than shards: some have nothing to do.
    let outcome = json(folder, &format!("embed {MODEL} --shards web-000.tar --part 3/4 --out out"));
    assert_eq!((outcome["shards"].as_u64(), outcome["rows"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shards(folder, 2);
    let words = |more: &str| format!("embed {MODEL} --shards web-{{000..001}}.tar --out out {more}");
    succeeds(folder, &words(""));
    let before = contents(&folder.join("out"));
    let other = words("").replace(MODEL, "shipped:strokes");
    fails(folder, &other, 2, &["out/web-000.stats.json: ", "another checkpoint", "or remove this file"]);
    fails(folder, &words("--layer class"), 2, &["layer"]);
    fails(folder, &words("--normalise"), 2, &["embedded with another --normalise"]);
    fails(folder, &words("--format csv"), 2, &["embedded with another --format, npy"]);
    let longer: Vec<(String, Vec<u8>)> = (0..9).map(|i| (format!("{i}.png"), png(&picture(i)))).collect();
    let tar_of_two = std::fs::read(folder.join("web-001.tar")).unwrap();
    tar(&folder.join("web-001.tar"), &longer);
    fails(
        folder,
        &words(""),
        2,
        &["out/web-001.stats.json: this is of another shard", "changed since", "remove this file"],
    );
    std::fs::write(folder.join("web-001.tar"), tar_of_two).unwrap();
    std::fs::write(folder.join("file"), "a diary").unwrap();
    for (words, needles) in [
        (words("--part 0/2"), &["parts count from 1: the first of 2 is 1/2"][..]),
        (words("--part 3/2"), &["the last of 2 parts is 2/2, got 3/2"]),
        (words("--part 1"), &["as in 1/8"]),
        (words("--part 1/0"), &["at least 1 part"]),
        (words("--resume"), &["--resume"]),
        (words("").replace("--out out", ""), &["--out"]),
        (words("").replace("--out out", "--out file"), &["file: this is a file, and --out is a folder here"]),
        (words("").replace("{000..001}", "{000..}"), &["{000..}"]),
        (words("").replace("{000..001}.tar", "000.tar web-000.tar"), &["give each shard once"]),
        ("embed shipped --part 1/2 web-000.tar".into(), &["--shards"]),
    ] {
        let output = run(folder, &words);
        assert_eq!(output.status.code(), Some(2), "{words}: {}", stderr(&output));
        for needle in needles {
            assert!(stderr(&output).contains(needle), "{words}: nothing of `{needle}` in {}", stderr(&output));
        }
    }
    assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"a diary");
    // A file of the user's own under the name of a result.
    std::fs::create_dir(folder.join("own")).unwrap();
    std::fs::write(folder.join("own/web-000.npy"), "a diary").unwrap();
    fails(folder, &words("").replace("--out out", "--out own"), 2, &["own/web-000.npy: ", "move it"]);
    std::fs::write(folder.join("own/web-000.stats.json"), "{}").unwrap();
    fails(folder, &words("").replace("--out out", "--out own"), 2, &["own/web-000.stats.json: ", "move it"]);
    assert_eq!(std::fs::read(folder.join("own/web-000.npy")).unwrap(), b"a diary");
    std::fs::create_dir(folder.join("list")).unwrap();
    std::fs::write(folder.join("list/web-000.txt"), "a diary").unwrap();
    fails(folder, &words("").replace("--out out", "--out list"), 2, &["list/web-000.txt: ", "move it"]);
    assert_eq!(std::fs::read(folder.join("list/web-000.txt")).unwrap(), b"a diary");
    assert!(contents(&folder.join("out")) == before);
    // The way out that is named: without its stats a shard is embedded anew.
    std::fs::remove_file(folder.join("out/web-001.stats.json")).unwrap();
    assert_eq!(json(folder, &words(""))["embedded"], 1);
    assert!(contents(&folder.join("out")) == before);
    // A folder of the same name is another shard, and so is one whose pictures were changed.
    save(&folder.join("a/cats/0.png"), &picture(1), ImageFormat::Png);
    save(&folder.join("b/cats/0.png"), &picture(2), ImageFormat::Png);
    let cats = |of: &str| format!("embed {MODEL} --shards {of}/cats --out cats");
    succeeds(folder, &cats("a"));
    assert_eq!(json(folder, &cats("a"))["finished_before"], 1);
    fails(folder, &cats("b"), 2, &["cats/cats.stats.json: this is of another shard"]);
    save(&folder.join("a/cats/1.png"), &picture(3), ImageFormat::Png);
    fails(folder, &cats("a"), 2, &["cats/cats.stats.json: this is of another shard"]);
    // Nothing but notes is a shard of no rows.
    tar(&folder.join("notes.tar"), &[("0.json".into(), b"{}".to_vec())]);
    let outcome = json(folder, &format!("embed {MODEL} --shards notes.tar a/cats --out none"));
    assert_eq!((outcome["embedded"].as_u64(), outcome["rows"].as_u64()), (Some(2), Some(2)));
    assert_eq!(rows(&folder.join("none")).len(), 2);
    fails(folder, &format!("embed {MODEL} --shards none-{{0..9}}.tar --out gone"), 2, &["none-0.tar: ", "no such"]);
    assert!(!folder.join("gone").exists());
    // With --strict a picture that cannot be read stops its shard, and no other.
    shards(folder, 3);
    let strict = format!("embed {MODEL} --shards web-{{000..002}}.tar --out strict --strict");
    fails(folder, &strict, 1, &["1 of 3 shards could not be embedded", "002bad.jpg"]);
    assert_eq!(contents(&folder.join("strict")).len(), 6);
    succeeds(folder, &strict.replace(" --strict", ""));
    fails(folder, &strict, 2, &["web-002.stats.json: 1 files were left out of this shard, which --strict refuses"]);
    // A file of another program that is named like ours is no reason to refuse a folder of pictures.
    std::fs::write(folder.join("a/cats/mine.stats.json"), "{}").unwrap();
    succeeds(folder, "audit a/cats");
}

#[test]
fn neighbors_and_audit_read_a_folder_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Class folders in two shards; one picture lies in both, under another class.
    for shard in 0..2_u32 {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for i in 0..24 {
            let seed = 1000 * shard + 4 * (i / 2) + i % 2;
            members.push((format!("kind{}/{i:02}.png", i % 2), png(&picture(seed))));
        }
        members.push((format!("kind{shard}/same.png"), png(&picture(4000))));
        members.push(("kind1/bad.png".to_owned(), b"no picture".to_vec()));
        tar(&folder.join(format!("s{shard}.tar")), &members);
    }
    save(&folder.join("query.png"), &picture(1004), ImageFormat::Png);
    succeeds(folder, &format!("embed {MODEL} --shards s{{0..1}}.tar --out out"));
    let words = format!("neighbors query.png --in out --model {MODEL} -k 3 --sheet near.png");
    let found = json(folder, &words);
    assert_eq!((found["rows"].as_u64(), found["embedded"].as_bool()), (Some(50), Some(true)));
    assert_eq!(found["neighbors"][0]["path"], "s1.tar/kind0/02.png");
    assert!(found["neighbors"][0]["similarity"].as_f64().unwrap() > 0.99999);
    fails(folder, &words.replace(MODEL, "shipped:strokes"), 2, &["out: ", "name the network that embedded it"]);

    let found = json(folder, "audit out --csv audit.csv --sheet audit.png");
    assert_eq!((found["pictures"].as_u64(), found["classes"].as_u64()), (Some(52), Some(2)));
    assert!(found["model"].is_null());
    let of = |kind: &str| {
        let all = found["findings"].as_array().unwrap().iter();
        all.filter(|finding| finding["finding"] == kind).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("unreadable").len(), 2);
    let copies = of("duplicate");
    let copy = copies.iter().find(|copy| copy["path"] == "s1.tar/kind1/same.png").unwrap();
    assert_eq!(copy["other"], "s0.tar/kind0/same.png");
    assert!(copy["reason"].as_str().unwrap().contains("in another class: kind1 and kind0"), "{copy}");
    assert!(found["counts"].as_array().unwrap().iter().all(|count| count[0] != "blurred"));
    fails(folder, "audit out --only label,blurred", 2, &["out: ", "do not tell what is blurred"]);
    fails(folder, "audit out --model shipped:strokes", 2, &["embedded by another network", "leave --model out"]);
    succeeds(folder, &format!("audit out --model {MODEL} --only duplicate"));

    // Shards of two kinds in one folder, and a damaged file.
    succeeds(folder, "embed shipped:strokes --shards s0.tar --out other");
    std::fs::rename(folder.join("other/s0.stats.json"), folder.join("out/t0.stats.json")).unwrap();
    fails(folder, "audit out", 2, &["out/t0.stats.json: ", "shards of one kind"]);
    std::fs::remove_file(folder.join("out/t0.stats.json")).unwrap();
    let array = std::fs::read(folder.join("out/s1.npy")).unwrap();
    std::fs::write(folder.join("out/s1.npy"), &array[..array.len() - 9]).unwrap();
    fails(folder, "audit out", 2, &["s1.npy"]);
    fails(folder, &words, 2, &["s1.npy"]);
}

/// Labels of samples are judged as those of class folders are, and shards named after splits are of them.
#[test]
fn audit_judges_the_labels_of_samples() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The folder around all is no class. A label is wrong, two pictures are in both splits, and one sample has no class.
    for (name, seeds) in [("train-0", 0..60_u32), ("val-0", 58..100)] {
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for seed in seeds {
            let key = format!("s/{seed:03}");
            let class = if seed == 7 { 0 } else { seed % 4 };
            if seed != 9 {
                members.push((format!("{key}.json"), format!(r#"{{"label": "kind {class}"}}"#).into_bytes()));
            }
            members.push((format!("{key}.png"), png(&picture(seed))));
        }
        members.push(("s/bad.png".to_owned(), b"no picture".to_vec()));
        tar(&folder.join(format!("{name}.tar")), &members);
    }
    succeeds(folder, &format!("embed {MODEL} --shards {{train,val}}-0.tar --out out"));
    let stats = ShardStats::read(&folder.join("out/train-0.stats.json")).unwrap().unwrap();
    assert_eq!((stats.classes.join(","), stats.class.len()), ("kind 0,kind 1,kind 2,kind 3".into(), 60));
    let of = |row: usize| stats.class_of(row);
    assert_eq!(
        (of(0), of(6), of(7), of(9), of(59), of(60)),
        (Some("kind 0"), Some("kind 2"), Some("kind 0"), None, Some("kind 3"), None)
    );
    for (data, pictures) in [("out", 104), ("train-0.tar", 61)] {
        let found = json(folder, &format!("audit {data} --model {MODEL} --only label,duplicate"));
        assert_eq!((found["classes"].as_u64(), found["pictures"].as_u64()), (Some(4), Some(pictures)), "{data}");
        let of = |kind: &str| {
            let all = found["findings"].as_array().unwrap().iter().filter(|finding| finding["finding"] == kind);
            all.map(|finding| (finding["path"].as_str().unwrap(), finding["reason"].as_str().unwrap()))
                .collect::<Vec<_>>()
        };
        let labels = of("label");
        assert!(
            labels.iter().any(|(path, why)| *path == "train-0.tar/s/007.png" && why.contains("rather kind 3")),
            "{labels:?}"
        );
        assert!(labels.len() <= 2, "{labels:?}");
        let copies = of("duplicate");
        assert_eq!(copies.len(), if data == "out" { 2 } else { 0 }, "{copies:?}");
        assert!(
            copies.iter().all(|(_, why)| why.ends_with("the same embedding, in another split: val and train")),
            "{copies:?}"
        );
    }
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_has_keys_and_errors() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shards(folder, 3);
    succeeds(folder, &format!("embed {MODEL} --shards web-{{000..002}}.tar --out out --format parquet"));
    let file = std::fs::File::open(folder.join("out/web-002.parquet")).unwrap();
    let all: Vec<_> =
        SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(all.len(), 7);
    let keys: Vec<&str> = all.iter().map(|row| row.get_string(2).unwrap().as_str()).collect();
    assert_eq!(keys, ["00200", "00201", "00202", "00203", "00204", "00205", "002bad"]);
    assert!(all[..6].iter().all(|row| row.get_list(1).unwrap().elements().len() > 100 && row.get_string(3).is_err()));
    assert!(all[6].get_list(1).is_err() && all[6].get_string(3).unwrap().contains("cannot be decoded"));
    assert_eq!(rows(&folder.join("out")).len(), 4 + 5 + 6);
    let alone = run(folder, &format!("embed {MODEL} web-002.tar --out web-002.npy"));
    assert_eq!(alone.status.code(), Some(1), "{}", stderr(&alone));
    assert_eq!(rows(&folder.join("out/web-002.parquet")), rows(&folder.join("web-002.npy")));
}
