//! Networks from PyTorch's files and into them. `tests/pytorch/make.py` writes the files that are read here; what is written
//! here is read by PyTorch and onnxruntime where a Python with them is named (`pytorch` or `onnx` behind `--ignored` for one):
//!
//!     IEQ_PYTHON=python3 cargo test --release --test interchange -- --ignored

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/damage.rs"]
mod damage;
#[path = "common/program.rs"]
mod program;

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ieq_wgpu::data::{self, DataOptions, ImageSet, Split, official};
use ieq_wgpu::gpu::adapter::AdapterChoice;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::jobs::Stored;
use ieq_wgpu::progress::Silent;
use ieq_wgpu::settings::{Backbone, Config};
use ieq_wgpu::train::Extractor;
use ieq_wgpu::train::checkpoint::{Checkpoint, Tensor, TensorData};
use ieq_wgpu::train::features::Layer;
use ieq_wgpu::train::record::{DataShape, training_step};
use proptest::prelude::*;

/// The files with the network of `expected.safetensors`, those that hold it whole first.
const FILES: [&str; 6] = ["plain.pth", "authors.pth", "timm.pth", "lightning.pth", "views.pth", "other.pth"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pytorch").join(name)
}

fn floats(tensor: &Tensor) -> &[f32] {
    match &tensor.data {
        TensorData::F32(values) => values,
        TensorData::I64(_) => panic!("whole numbers"),
    }
}

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var("IEQ_ADAPTER").ok().as_deref());
    Gpu::open(&Options { choice, ..Options::default() }).unwrap()
}

fn expected() -> Checkpoint {
    Checkpoint::load(fixture("expected.safetensors")).unwrap()
}

/// The pictures of `expected.safetensors`.
fn pictures(expected: &Checkpoint) -> ImageSet {
    let tensor = &expected.tensors["pictures"];
    let (n, side) = (tensor.shape[0], tensor.shape[2]);
    let area = side * side;
    let value = |image: usize, channel: usize, at: usize| floats(tensor)[(3 * image + channel) * area + at] as u32;
    let word = |i: usize| {
        let (image, at) = (i / area, i % area);
        0xff00_0000 | value(image, 2, at) << 16 | value(image, 1, at) << 8 | value(image, 0, at)
    };
    let names = (0..n).map(|i| i.to_string()).collect();
    ImageSet::new(side, (0..n * area).map(word).collect(), vec![0; n], vec!["all".into()], names).unwrap()
}

/// Whether `got` is `wanted` to within 1e-4 of its largest number. NaN fails.
fn close(got: &[f32], wanted: &[f32]) -> bool {
    let scale = wanted.iter().fold(0_f32, |most, value| most.max(value.abs()));
    got.len() == wanted.len() && got.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 1e-4 * scale)
}

/// The largest difference, as a share of the largest number.
fn difference(got: &[f32], wanted: &[f32]) -> f32 {
    let scale = wanted.iter().fold(0_f32, |most, value| most.max(value.abs()));
    got.iter().zip(wanted).fold(0_f32, |most, (a, b)| most.max((a - b).abs())) / scale
}

fn stored(path: &Path) -> Stored {
    Stored::open_with(path, &Config::from_preset("cifar-fs").unwrap()).unwrap()
}

fn outputs(stored: &Stored, images: &ImageSet, layer: Layer) -> Vec<f32> {
    let (extractor, _) = Extractor::open(gpu(), &stored.file, &stored.checkpoint, false).unwrap();
    extractor.features(images, layer, None, &mut Silent).unwrap()
}

#[test]
fn every_way_to_save_a_network_holds_its_weights() {
    let expected = expected();
    let weights = |name: &String| name.strip_prefix("weights/").map(str::to_owned);
    for file in FILES {
        let read = Checkpoint::load(fixture(file)).unwrap();
        let mut compared = 0;
        for (name, tensor) in &expected.tensors {
            let Some(own) = weights(name).filter(|own| file != "other.pth" || !own.contains("_head")) else { continue };
            let found = read.tensors.get(&own).unwrap_or_else(|| panic!("{file} has no {own}"));
            assert_eq!(found.shape, tensor.shape, "{file}: {own}");
            for (a, b) in floats(found).iter().zip(floats(tensor)) {
                let same = if file == "timm.pth" { *a == half::bf16::from_f32(*b).to_f32() } else { a == b };
                assert!(same, "{file}: {own} has {a}, not {b}");
            }
            compared += 1;
        }
        let others = read.tensors.keys().filter(|name| !name.ends_with("num_batches_tracked")).count();
        assert_eq!(others, compared, "{file} has more than the network: {:?}", read.tensors.keys());
    }
}

#[test]
fn embeddings_are_those_of_pytorch() {
    let expected = expected();
    let images = pictures(&expected);
    for file in ["plain.pth", "authors.pth", "other.pth"] {
        let stored = stored(&fixture(file));
        for (layer, name) in [(Layer::Feature, "features"), (Layer::Class, "logits")] {
            let got = outputs(&stored, &images, layer);
            assert!(close(&got, floats(&expected.tensors[name])), "{file}: {name} are {got:?}");
        }
    }
}

// ---- the program ----------------------------------------------------------------------------------

fn succeeds(folder: &Path, words: &str) -> String {
    String::from_utf8(program::succeeds(folder, words).stdout).unwrap()
}

fn fails(folder: &Path, words: &str, needles: &[&str]) {
    program::fails(folder, words, 2, needles);
}

/// Class folders of a split.
fn pictures_of(root: &Path, split: &str, classes: usize, each: u32) {
    for class in 0..classes {
        for i in 0..each {
            let picture =
                image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([40 * class as u8, (x * i) as u8, y as u8]));
            let path = root.join(format!("data/{split}/{split}{class}/{i}.png"));
            program::save(&path, &picture, image::ImageFormat::Png);
        }
    }
}

/// Wherever a checkpoint is read, a file of PyTorch's is, once its settings are known.
#[test]
fn commands_take_files_of_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::copy(fixture("authors.pth"), root.join("net.pth")).unwrap();
    // As many training classes as the network has: a student learns from all of its outputs.
    pictures_of(root, "novel", 6, 4);
    pictures_of(root, "train", 5, 4);
    let looked = succeeds(root, "inspect net.pth");
    assert!(looked.contains("a resnet12 of widths 2,2,4,4, 5 classes, 4 transforms, 6 invariant outputs"), "{looked}");
    let needles = ["no \"config\"", "resnet12 of widths 2,2,4,4", "--to safetensors --preset cifar-fs"];
    fails(root, "embed net.pth data", &needles);
    let needles = ["net.toml: it sets no --mean (data.mean), --std (data.std)"];
    std::fs::write(root.join("net.toml"), "[data]\nside = 32\n").unwrap();
    fails(root, "embed net.pth data", &needles);
    std::fs::write(root.join("net.toml"), "preset = \"cifar-fs\"\n").unwrap();
    succeeds(root, "embed net.pth data/novel --out all.npy");
    let scored = succeeds(root, "eval net.pth --data data --shots 1 --queries 2 --n-episodes 5 --ways 3");
    assert!(scored.contains("net.pth"), "{scored}");
    succeeds(root, "predict --model net.pth --support data/novel data/novel/novel0/0.png");
    succeeds(root, "neighbors data/novel/novel0/0.png --in data/novel --model net.pth");
    succeeds(root, "audit data/novel --model net.pth");
    // `train` takes the blocks over and needs no settings of theirs.
    std::fs::remove_file(root.join("net.toml")).unwrap();
    let words = "train --data data --recipe paper --backbone resnet12 --widths 2,2,4,4 --projection 6 --transforms rot4 \
                 --side 32 --negatives 4 --batch 4 --steps 2 --decay-at-fractions 0.5 --no-eval --init net.pth --out run";
    succeeds(root, words);
    std::fs::write(root.join("net.toml"), "preset = \"cifar-fs\"\n").unwrap();
    let words = "distill --teacher net.pth --data data --batch 4 --steps 2 --decay-at-fractions 0.5 --no-eval --negatives 4 \
                 --out student";
    succeeds(root, words);
}

// ---- official episodes ----------------------------------------------------------------------------

/// `tests/pytorch/make_episodes.py` draws them with NumPy.
#[test]
fn official_episodes_are_those_of_numpy() {
    let file = Checkpoint::load(fixture("episodes.safetensors")).unwrap();
    let numbers = |name: &str| match &file.tensors[name].data {
        TensorData::I64(values) => values.iter().map(|&value| value as u32).collect::<Vec<_>>(),
        TensorData::F32(_) => panic!("real numbers"),
    };
    let labels = numbers("labels");
    let n = labels.len();
    let classes = (0..7).map(|class| class.to_string()).collect();
    let names = (0..n).map(|i| i.to_string()).collect();
    let images = ImageSet::new(1, vec![0; n], labels, classes, names).unwrap();
    // The same set as a pickle, whose labels are neither sorted nor contiguous.
    let pickle = fixture("mixed_test.pickle");
    let mixed = data::load(pickle.to_str().unwrap(), Split::Novel, &DataOptions::default()).unwrap();
    assert!((0..n).all(|i| mixed.image(i)[0] & 255 == i as u32));
    assert_ne!(mixed.labels, images.labels);
    let episodes = |images: &ImageSet, shots, count| official(images, 5, shots, 15, count).unwrap();
    for (name, shots, first, count) in [("1shot", 1, 0, 40), ("5shot", 5, 0, 40), ("last", 1, 599, 600)] {
        assert_eq!(episodes(&images, shots, count), episodes(&mixed, shots, count), "{name}");
        let wanted = numbers(name);
        let episodes = episodes(&mixed, shots, count);
        let per_class = shots + 15;
        assert_eq!(wanted.len(), (count as usize - first) * 5 * per_class);
        for (episode, wanted) in episodes[first..].iter().zip(wanted.chunks(5 * per_class)) {
            for (way, wanted) in wanted.chunks(per_class).enumerate() {
                assert_eq!(episode.support[way * shots..][..shots], wanted[..shots], "{name}");
                assert_eq!(episode.query[way * 15..][..15], wanted[shots..], "{name}");
            }
        }
    }
    let few = official(&images, 5, 10, 15, 1).unwrap_err().to_string();
    assert!(few.contains("need 25 images per class and class 0 has 23"), "{few}");
}

#[test]
fn a_checkpoint_is_scored_on_official_episodes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::copy(fixture("plain.pth"), root.join("net.pth")).unwrap();
    std::fs::write(root.join("net.toml"), "preset = \"cifar-fs\"\n").unwrap();
    pictures_of(root, "novel", 6, 20);
    let words = "eval net.pth --data data --episodes official --support-copies 1 --classifier cosine";
    let said = String::from_utf8(program::run(root, words).stderr).unwrap();
    assert!(said.contains("warning: these are episodes drawn as the authors draw theirs, and not the same"), "{said}");
    let plain = succeeds(root, words);
    assert!(plain.contains("the authors' episodes;") && plain.contains("5-way 5-shot"), "{plain}");
    assert!(plain.contains("600 episodes"), "{plain}");
    let copies = succeeds(root, "eval net.pth --data data --episodes official --shots 1 --classifier cosine");
    assert!(copies.contains("5 augmented copies of each support image"), "{copies}");
    fails(root, "eval net.pth --data data --episodes official --shots 9", &["9 shots and 15 queries", "fewer shots"]);
    pictures_of(&root.join("other"), "many", 16, 20);
    let drawn = "eval net.pth --data other/data/many --split train --episodes official --shots 1";
    fails(root, drawn, &["drawn from 16 by seed", "without --episodes"]);
    fails(root, "eval net.pth --data data --episodes absent", &["absent: there is no such file"]);
}

// ---- hostile files --------------------------------------------------------------------------------

fn zip(files: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn stored_zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    zip(files, zip::CompressionMethod::Stored)
}

fn integer(n: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &n.to_le_bytes()].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    [&b"("[..], &items.iter().flat_map(|&n| integer(n)).collect::<Vec<_>>(), b"t"].concat()
}

/// A dict of one tensor `w` in storage `0` of so many f32.
fn pickled(length: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
    bytes.extend(b"X\x01\0\0\x000X\x03\0\0\0cpu");
    bytes.extend([integer(length), b"tQ".to_vec(), integer(offset), tuple(shape), tuple(strides)].concat());
    bytes.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::load(&path).unwrap_err().to_string()
}

#[test]
fn a_tensor_is_read_by_offset_and_strides() {
    let numbers: Vec<u8> = (0..8).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let read = |offset, shape: &[i64], strides: &[i64]| {
        let bytes = stored_zip(&[("a/data.pkl", &pickled(8, offset, shape, strides)), ("a/data/0", &numbers)]);
        floats(&Checkpoint::from_pytorch("x", &bytes).unwrap().tensors["w"]).to_vec()
    };
    assert_eq!(read(1, &[2, 3], &[1, 2]), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    assert_eq!(read(7, &[], &[]), [7.0]);
    assert_eq!(read(2, &[3], &[0]), [2.0; 3]);
    assert_eq!(read(0, &[1, 2], &[i64::MAX, 1]), [0.0, 1.0]);
    assert!(read(0, &[0, 5], &[5, 1]).is_empty());
    let mut big = numbers.clone();
    big.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    let bytes = [("a/data.pkl", &pickled(8, 0, &[8], &[1])[..]), ("a/data/0", &big), ("a/byteorder", b"big")];
    let read = Checkpoint::from_pytorch("x", &stored_zip(&bytes)).unwrap();
    assert_eq!(floats(&read.tensors["w"])[7], 7.0);
}

#[test]
fn hostile_files_are_refused_in_a_sentence() {
    let with = |pickle: &[u8]| stored_zip(&[("a/data.pkl", pickle), ("a/data/0", &[0; 32])]);
    for (bytes, words) in [
        (with(&pickled(8, 0, &[9], &[1])), "reaches beyond its 8 numbers"),
        (with(&pickled(8, 8, &[1], &[1])), "reaches beyond"),
        (with(&pickled(8, 0, &[2, 2], &[i64::MAX, i64::MAX])), "reaches beyond"),
        (with(&pickled(i64::MAX, i64::MAX, &[2], &[1])), "reaches beyond"),
        (with(&pickled(8, 0, &[1 << 40], &[0])), "larger than the file"),
        (with(&pickled(8, 0, &[1 << 40, 1 << 40, 1 << 40], &[0, 0, 0])), "larger than the file"),
        (with(&pickled(8, 0, &[-1], &[1])), "is of a kind that is not read"),
        (with(&pickled(8, 0, &[2, 2], &[1])), "is of a kind that is not read"),
        (with(b"cos\nsystem\n(X\x05\0\0\0touchtR."), "refers to os.system, which weights do not need"),
        (with(b"c__builtin__\neval\n(X\x01\0\0\0xtR."), "refers to __builtin__.eval"),
        (with(b"(ios\nsystem\n."), "os.system"),
        (with(b"\x80\x02}X\x01\0\0\0aX\x01\0\0\0bQs."), "in an unusual way"),
        (with(b"\x80\x02]."), "holds a list without tensors"),
        (with(b"\x80\x02}"), "cut off"),
        (stored_zip(&[("a/data.pkl", &pickled(8, 0, &[8], &[1]))]), "no a/data/0"),
        (stored_zip(&[("a/data.pkl", b"N."), ("b/data.pkl", b"N.")]), "two files data.pkl"),
        (stored_zip(&[("a/data.pkl", b"N."), ("a/constants.pkl", b"N.")]), "TorchScript"),
        (stored_zip(&[("a/0.png", b"")]), "has no data.pkl"),
        (zip(&[("a/data.pkl", &[0; 1 << 20])], zip::CompressionMethod::Deflated), "packed by another program"),
        (std::fs::read(fixture("module.pth")).unwrap(), "torch.save(model.state_dict(), ..)"),
    ] {
        let said = refusal(&bytes);
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let infinite: Vec<u8> = f32::INFINITY.to_le_bytes().to_vec();
    let said = refusal(&stored_zip(&[("data.pkl", &pickled(1, 0, &[1], &[1])), ("data/0", &infinite)]));
    assert!(said.contains("tensor w is not finite"), "{said}");
}

/// Every damaged byte, and every length, is refused or read; nothing panics.
#[test]
fn damaged_files_never_panic() {
    for file in ["authors.pth", "views.pth"] {
        let whole = std::fs::read(fixture(file)).unwrap();
        for length in (0..whole.len()).step_by(97) {
            let _ = Checkpoint::from_pytorch(file, &whole[..length]);
        }
        // PROPTEST_CASES sets another number.
        let mut runner = damage::runner(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/regressions/pth.txt"));
        let changes = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..5);
        let run = runner.run(&changes, |changes| {
            let mut bytes = whole.clone();
            changes.iter().for_each(|&(at, value)| bytes[at] = value);
            if let Ok(read) = Checkpoint::from_pytorch(file, &bytes) {
                for tensor in read.tensors.values() {
                    prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
                }
            }
            Ok(())
        });
        run.unwrap();
    }
    // The pickle alone, so that the checksum of the zip does not hide it.
    let whole = pickled(8, 0, &[2, 4], &[4, 1]);
    for at in 0..whole.len() {
        for value in 0..=255 {
            let mut pickle = whole.clone();
            pickle[at] = value;
            let _ = Checkpoint::from_pytorch("x", &stored_zip(&[("data.pkl", &pickle), ("data/0", &[0; 32])]));
        }
    }
}

// ---- export ---------------------------------------------------------------------------------------

/// What is written is what was read, in either form, with settings, and nothing is replaced unasked.
#[test]
fn exports_hold_the_network_and_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::copy(fixture("plain.pth"), root.join("net.pth")).unwrap();
    fails(root, "export net.pth --to pth", &["no \"config\"", "--side, --mean and --std"]);
    fails(root, "export net.pth --to pth --side 32", &["--mean (data.mean)", "no tensor says it", "add --preset"]);
    let said = succeeds(root, "export net.pth --to safetensors --out a.safetensors --preset cifar-fs");
    assert!(
        said.contains("a.safetensors: resnet12, widths 2,2,4,4") && said.contains("mean 0.5071,0.4867,0.4408"),
        "{said}"
    );
    fails(root, "export net.pth --to pth --out a.safetensors", &["is there already", "--overwrite", "--out"]);
    fails(root, "export a.safetensors --to pth --preset fc100", &["settings of its own", "leave them out"]);
    fails(root, "export a.safetensors --to pth --out absent/x.pth", &["absent: there is no such folder"]);
    succeeds(root, "export a.safetensors --to pth --out b.pth");
    succeeds(root, "export b.pth --to safetensors --out c.safetensors");
    succeeds(root, "export b.pth --to pth --out b.pth --overwrite");
    succeeds(root, "export c.safetensors --to pth --out d.pth");
    let bytes = |name: &str| std::fs::read(root.join(name)).unwrap();
    assert!(bytes("a.safetensors") == bytes("c.safetensors") && bytes("b.pth") == bytes("d.pth"));
    let words = "--side 32 --mean 0.5071,0.4867,0.4408 --std 0.2675,0.2565,0.2761";
    succeeds(root, &format!("export net.pth --to safetensors --out e.safetensors {words}"));
    let [a, b, e] = ["a.safetensors", "b.pth", "e.safetensors"].map(|name| Stored::open(&root.join(name)).unwrap());
    assert!(a.checkpoint == b.checkpoint && a.checkpoint.tensors == e.checkpoint.tensors);
    assert_eq!(e.checkpoint.metadata["network"], a.checkpoint.metadata["network"]);
    let about: serde_json::Value = serde_json::from_str(&a.checkpoint.metadata["network"]).unwrap();
    assert_eq!(about["transforms"], 4);
    let expected = expected();
    let got = outputs(&b, &pictures(&expected), Layer::Feature);
    assert!(close(&got, floats(&expected.tensors["features"])), "{got:?}");
    // The state of a training stays behind, and a counter stands beside each running mean.
    let mut run = a.checkpoint.clone();
    run.tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
    run.tensors.insert("train.bank".into(), Tensor::f32([2], vec![0.0; 2]));
    run.metadata.insert("step".into(), "41".into());
    run.save(root.join("run.safetensors")).unwrap();
    succeeds(root, "export run.safetensors --to pth --out f.pth");
    let read = Checkpoint::load(root.join("f.pth")).unwrap();
    assert_eq!(read.tensors["layer1.0.bn1.num_batches_tracked"], Tensor::i64([], vec![41]));
    assert!(read.tensors.keys().eq(a.checkpoint.tensors.keys()));
}

/// Runs Python with torch, where the environment names one.
fn python(script: &str, folder: &Path) -> String {
    let python =
        std::env::var("IEQ_PYTHON").expect("IEQ_PYTHON names a Python with torch, numpy, safetensors, onnxruntime");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut command = Command::new(python);
    let output = command.args(["-c", script]).env("PYTHONPATH", examples).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The bytes are those of `plain.onnx`, which `tests/pytorch/check_onnx.py` compares with PyTorch's embeddings.
#[test]
fn an_onnx_model_is_the_one_that_was_checked() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::copy(fixture("plain.pth"), root.join("net.pth")).unwrap();
    let said = succeeds(root, "export net.pth --to onnx --preset cifar-fs");
    assert!(said.contains("network.onnx: resnet12, widths 2,2,4,4") && said.contains("of 0 to 255"), "{said}");
    fails(root, "export net.pth --to onnx --preset cifar-fs", &["network.onnx: this file is there already"]);
    let made = std::fs::read(root.join("network.onnx")).unwrap();
    assert!(made == std::fs::read(fixture("plain.onnx")).unwrap(), "check it anew by tests/pytorch/check_onnx.py");
}

/// A network of full width whose running statistics are not those that it starts with.
fn wide(backbone: Backbone, side: usize) -> Checkpoint {
    let mut config = Config::from_preset(if side == 32 { "cifar-fs" } else { "mini-imagenet" }).unwrap();
    (config.model.backbone, config.model.widths) = (backbone, backbone.default_widths());
    let shape = DataShape { side, classes: 64, images: 640 };
    let (_, recorded) = training_step(&config, shape, false, true).unwrap();
    let entries = [recorded.step.parameters, recorded.step.statistics].concat();
    let tensors = entries.iter().enumerate().map(|(position, entry)| {
        let mut values = entry.initial(3, position);
        if entry.name.contains("running") || entry.name.contains("bn") {
            values.iter_mut().enumerate().for_each(|(i, value)| *value += 0.3 * ((i * 7 + position) as f32).sin());
        }
        (entry.name.clone(), Tensor::f32(entry.shape.clone(), values))
    });
    let metadata = [("config", config.to_json().unwrap()), ("classes", "64".into()), ("side", side.to_string())];
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Checkpoint { tensors: tensors.collect(), metadata }
}

/// onnxruntime embeds the same at full width, in batches of any size.
#[test]
#[ignore = "needs a Python with onnx and onnxruntime: IEQ_PYTHON"]
#[allow(clippy::print_stdout, reason = "figures are for people")]
fn onnxruntime_embeds_the_same_at_full_width() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (backbone, side) in [(Backbone::Resnet12, 32), (Backbone::Resnet12, 84), (Backbone::Conv4, 84)] {
        let area = side * side;
        let words: Vec<u32> = (0..5 * area).map(|i| (i as u32).wrapping_mul(2_654_435_761) >> 8 | 0xff << 24).collect();
        let planes = (0..5).flat_map(|image| (0..3).flat_map(move |c| (0..area).map(move |at| (image, c, at))));
        let bytes: Vec<u8> = planes.map(|(image, c, at)| (words[image * area + at] >> (8 * c)) as u8).collect();
        std::fs::write(root.join("pixels"), bytes).unwrap();
        wide(backbone, side).save(root.join("net.safetensors")).unwrap();
        succeeds(root, "export net.safetensors --to onnx --out net.onnx --overwrite");
        let script = format!(
            "import numpy, onnx, onnxruntime\nonnx.checker.check_model('net.onnx', full_check=True)\n\
             pixels = numpy.fromfile('pixels', 'uint8').reshape(5, 3, {side}, {side}).astype('float32')\n\
             run = lambda x: onnxruntime.InferenceSession('net.onnx').run(None, {{'images': x}})[0]\n\
             numpy.concatenate([run(pixels[:2]), run(pixels[2:])]).tofile('features')"
        );
        python(&script, root);
        let wanted: Vec<f32> = std::fs::read(root.join("features"))
            .unwrap()
            .as_chunks::<4>()
            .0
            .iter()
            .copied()
            .map(f32::from_le_bytes)
            .collect();
        let names = (0..5).map(|i| i.to_string()).collect();
        let images = ImageSet::new(side, words, vec![0; 5], vec!["all".into()], names).unwrap();
        let got = outputs(&Stored::open(&root.join("net.safetensors")).unwrap(), &images, Layer::Feature);
        println!(
            "ONNX by onnxruntime, {backbone}, {side} pixels: largest difference {:.1e} of the largest number",
            difference(&got, &wanted)
        );
        assert!(close(&got, &wanted), "{backbone}, {side} pixels");
    }
}

/// At full width, both ways: PyTorch loads what is written, strictly, and embeds the same.
#[test]
#[ignore = "needs a Python with PyTorch: IEQ_PYTHON"]
#[allow(clippy::print_stdout, reason = "figures are for people")]
fn pytorch_embeds_the_same_at_full_width() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for side in [32, 84] {
        let preset = if side == 32 { "cifar-fs" } else { "mini-imagenet" };
        let script = format!(
            "import torch\nfrom safetensors.torch import save_file\nfrom resnet12 import Network\ntorch.manual_seed({side})\n\
             net = Network(dict(backbone='resnet12', widths=[64, 160, 320, 640], classes=64, transforms=16, projection=64,\n\
             \x20   side={side}, mean=[.5] * 3, std=[.25] * 3))\n\
             net.train()(torch.randn(16, 3, {side}, {side}))\n\
             torch.save({{'epoch': 65, 'model': {{'module.' + k: v for k, v in net.state_dict().items()}}}}, 'net.pth')\n\
             save_file({{'pictures': torch.randint(0, 256, (4, 3, {side}, {side})).float()}}, 'pictures.safetensors')"
        );
        python(&script, root);
        succeeds(root, &format!("export net.pth --to safetensors --out net.safetensors --overwrite --preset {preset}"));
        succeeds(root, "export net.safetensors --to pth --out back.pth --overwrite");
        let script = "import torch\nfrom safetensors.torch import load_file, save_file\nfrom resnet12 import load\n\
             x = load_file('pictures.safetensors')['pictures']\n\
             a, b = load('back.pth'), load('net.safetensors')\nwas = torch.load('net.pth')['model']\n\
             assert all(torch.equal(was['module.' + k], v) for k, v in a.state_dict().items())\n\
             assert torch.equal(a.embed(x), b.embed(x))\nsave_file({'features': a.embed(x)}, 'features.safetensors')";
        python(script, root);
        let images = pictures(&Checkpoint::load(root.join("pictures.safetensors")).unwrap());
        let features = Checkpoint::load(root.join("features.safetensors")).unwrap();
        let wanted = floats(&features.tensors["features"]).to_vec();
        for name in ["net.safetensors", "back.pth"] {
            let got = outputs(&Stored::open(&root.join(name)).unwrap(), &images, Layer::Feature);
            println!(
                "weights by PyTorch, {name}, {side} pixels: largest difference {:.1e} of the largest number",
                difference(&got, &wanted)
            );
            assert!(close(&got, &wanted), "{name}, {side} pixels");
        }
    }
}
