//! Files of embeddings, read without a device: number types, and damage anywhere in a file or in a folder of shards.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/damage.rs"]
mod damage;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ieq_wgpu::Error;
use ieq_wgpu::data::LeftOut;
use ieq_wgpu::data::embeddings::{self, Format, Reader, Shard, ShardStats, Table, list_of, stats_beside};
use proptest::prelude::*;

const ROWS: usize = 5;
const COLUMNS: usize = 3;

/// Five rows of a shard, of which one more picture was left out.
struct Rows;

fn path(row: usize) -> String {
    format!("x.tar/a/{row}.png")
}

fn row(row: usize) -> [f32; COLUMNS] {
    [row as f32 + 0.5, -1.0, 1e-3 * row as f32]
}

impl Table for Rows {
    fn rows(&self) -> usize {
        ROWS
    }
    fn columns(&self) -> usize {
        COLUMNS
    }
    fn shard(&self) -> Option<Shard> {
        Some(Shard { origin: "x.tar".into(), left_out: vec![("x.tar/a/bad.png".into(), "is no picture".into())] })
    }
    fn paths(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        (0..ROWS).try_for_each(|i| each(&path(i)))
    }
    fn visit(&mut self, each: &mut dyn FnMut(&str, &[f32]) -> io::Result<()>) -> io::Result<()> {
        (0..ROWS).try_for_each(|i| each(&path(i), &row(i)))
    }
}

/// A shard's files in `folder`; of each its path and content.
fn written(folder: &Path, stem: &str, format: Format) -> Vec<(PathBuf, Vec<u8>)> {
    let out = folder.join(format!("{stem}.{format}"));
    let mut bytes = Vec::new();
    embeddings::write(format, &mut Rows, &[("layer", "feat".into())], &mut bytes).unwrap();
    let mut files = vec![(out.clone(), bytes)];
    if let Some(list) = list_of(format, &out) {
        files.push((list, (0..ROWS).map(|i| path(i) + "\n").collect::<String>().into_bytes()));
    }
    let stats = ShardStats {
        kind: ShardStats::kind(),
        program: "0.1.0".into(),
        adapter: "a device".into(),
        shard: "x.tar".into(),
        stamp: "0".repeat(32),
        embeddings: format!("{stem}.{format}"),
        format,
        checkpoint: "1".repeat(32),
        layer: "feat".into(),
        normalised: false,
        side: 16,
        columns: COLUMNS,
        rows: ROWS,
        left_out: vec![LeftOut { path: "x.tar/a/bad.png".into(), why: "is no picture".into() }],
        classes: vec!["cat".into(), "dog".into()],
        class: vec![Some(0), Some(1), None, Some(1), Some(0)],
    };
    files.push((stats_beside(folder, stem), serde_json::to_vec_pretty(&stats).unwrap()));
    files.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    files
}

/// All rows, or why not.
fn read(path: &Path) -> Result<Vec<(String, Vec<f32>)>, Error> {
    let mut reader = Reader::open(path)?;
    let (mut all, mut row) = (Vec::new(), Vec::new());
    while let Some(path) = reader.next(&mut row)? {
        all.push((path, row.clone()));
    }
    Ok(all)
}

fn formats() -> Vec<Format> {
    let all = Format::NAMES.iter().map(|name| name.parse().unwrap());
    all.filter(|format: &Format| format.is_built()).collect()
}

#[test]
fn every_format_of_a_shard_has_its_rows() {
    let wanted: Vec<_> = (0..ROWS).map(|i| (path(i), row(i).to_vec())).collect();
    for format in formats() {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), "x", format);
        written(folder.path(), "y", format);
        assert_eq!(read(&folder.path().join(format!("x.{format}"))).unwrap(), wanted, "{format}");
        assert_eq!(read(folder.path()).unwrap(), [wanted.clone(), wanted.clone()].concat(), "{format}");
    }
}

/// Bytes changed anywhere in a file of embeddings, in the list beside it or in what is known of its shard, and files that
/// end early: rows or a sentence about one of these files, never a panic. `PROPTEST_CASES` sets how many there are of each
/// format.
#[test]
fn damaged_files_are_answered() {
    for format in formats() {
        let folder = tempfile::tempdir().unwrap();
        let files = written(folder.path(), "x", format);
        written(folder.path(), "y", format);
        let alone = &files[0].0;
        let mut runner = damage::runner(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions/embeddings.txt"));
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5);
        // Which of the files, what is changed in it, and where it ends, mostly where it did.
        let run = runner.run(&(0..files.len(), changes, 0_usize..400), |(file, changes, cut)| {
            let (file, whole) = &files[file];
            let mut bytes = whole.clone();
            changes.into_iter().for_each(|(at, value)| bytes[at.index(whole.len())] = value);
            bytes.truncate(if cut < 100 { whole.len() * cut / 100 } else { whole.len() });
            damage::write(file, &bytes);
            for source in [alone, folder.path()] {
                let said = match read(source) {
                    Ok(rows) => {
                        prop_assert!(rows.len() <= 2 * ROWS + 1, "{}: {} rows", format, rows.len());
                        continue;
                    }
                    Err(Error::Data { path, message }) if !message.contains('\n') => path.display().to_string(),
                    // What is known of a shard may name a file that is not there.
                    Err(Error::Io { path, what, .. }) if !what.contains('\n') => path.display().to_string(),
                    Err(other) => format!("in several lines, or not for the file: {other}"),
                };
                prop_assert!(Path::new(&said).starts_with(folder.path()), "{}: {}", format, said);
            }
            damage::write(file, whole);
            Ok(())
        });
        run.unwrap();
    }
}

/// A NumPy array of rows of the given type and order, by hand, with its list.
fn array(folder: &Path, name: &str, descr: &str, fortran: bool, bytes: &[u8]) -> PathBuf {
    let order = if fortran { "True" } else { "False" };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({ROWS}, {COLUMNS}), }}");
    header.extend(std::iter::repeat_n(' ', (118 - header.len() % 64) % 64));
    header.push('\n');
    let head = [&b"\x93NUMPY\x01\0"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    let array = folder.join(name);
    fs::write(&array, [&head, bytes].concat()).unwrap();
    fs::write(list_of(Format::Npy, &array).unwrap(), (0..ROWS).map(|i| path(i) + "\n").collect::<String>()).unwrap();
    array
}

#[test]
fn arrays_of_half_precision_are_read_and_others_refused() {
    let folder = tempfile::tempdir().unwrap();
    // Exact in half precision, its smallest and largest numbers among them.
    let numbers: Vec<f32> = (0..15)
        .map(|i| [65504.0, 5.960_464_5e-8, -0.0, 0.5, -3.25][i % 5] * (1 - 2 * (i as i32 / 10)) as f32)
        .collect();
    let halves: Vec<half::f16> = numbers.iter().map(|&x| half::f16::from_f32(x)).collect();
    let wanted: Vec<u32> = numbers.iter().map(|x| x.to_bits()).collect();
    let little: Vec<u8> = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
    let big: Vec<u8> = halves.iter().flat_map(|x| x.to_be_bytes()).collect();
    for (name, descr, bytes) in [("little.npy", "<f2", &little), ("big.npy", ">f2", &big)] {
        let rows = read(&array(folder.path(), name, descr, false, bytes)).unwrap();
        let bits: Vec<u32> = rows.iter().flat_map(|(_, row)| row.iter().map(|x| x.to_bits())).collect();
        assert_eq!((bits, rows[4].0.as_str()), (wanted.clone(), "x.tar/a/4.png"), "{name}");
    }
    let doubles: Vec<u8> = numbers.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    let says = |path: &Path, words: &str| {
        let said = read(path).unwrap_err().to_string();
        assert!(said.starts_with(&*path.to_string_lossy()) && said.contains(words), "{said}");
    };
    says(&array(folder.path(), "x.npy", "<f8", false, &doubles), "neither float32 nor float16: save it with astype");
    says(
        &array(folder.path(), "x.npy", "<f2", true, &little),
        "column by column: save it with numpy.ascontiguousarray",
    );
    says(&array(folder.path(), "x.npy", "<f2", false, &little[..29]), "is no whole file of embeddings");
}
