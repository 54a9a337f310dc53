//! Every public entry of the library, given what it cannot use: an error that names the thing, never a panic, and never
//! silent nonsense.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, ImageSet, Split, draw, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::elementwise::{Add, Fill, Scale};
use ieq_wgpu::ops::health::HealthCheck;
use ieq_wgpu::ops::reduce::Mean;
use ieq_wgpu::progress::Silent;
use ieq_wgpu::settings::Config;
use ieq_wgpu::tape::backward::{backward, backward_from, place_gradients};
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::passes::Passes;
use ieq_wgpu::tape::readback::Readback;
use ieq_wgpu::tape::{Graph, Type, ValueId, twin};
use ieq_wgpu::train::checkpoint::{Checkpoint, Tensor};
use ieq_wgpu::train::features::Layer;
use ieq_wgpu::train::{Extractor, Teacher, Trainer};
use ieq_wgpu::{Error, Result};

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, ..Options::default() }).unwrap()
}

/// The sentence of an error that is not this library's own fault, and names every one of the words.
fn refused<T>(what: &str, result: Result<T>, words: &[&str]) {
    let Err(error) = result else { panic!("{what} is not refused") };
    let text = error.to_string();
    assert!(!matches!(error, Error::Internal(_)) && !text.contains('\n'), "{what}: {text}");
    for word in words {
        assert!(text.contains(word), "{what}: no {word:?} in {text}");
    }
}

/// A value that a small graph does not have.
fn foreign() -> ValueId {
    let mut large = Graph::new();
    (0..100).map(|i| large.input(&format!("v{i}"), Type::f32([1]))).last().unwrap()
}

#[test]
fn graphs_refuse_what_they_do_not_have_and_sizes_that_no_shader_counts() {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([2, 3]));
    let empty = graph.input("empty", Type::f32([0, usize::MAX, 2]));
    let huge = graph.input("huge", Type::f32([1 << 20, 16, 1 << 20, 1 << 20]));
    let many = graph.in_arena("huge", "many", Type::u32([usize::MAX]), false);
    let health = graph.input("health", Type::u32([4]));
    assert_eq!((graph.value(huge).ty.bytes(), graph.value(empty).ty.bytes()), (u64::MAX, 0));
    let half = Scale { alpha: 0.5 };
    refused("a value of another graph", graph.one(half.clone(), &[foreign()]), &["a value", "own"]);
    refused("an update of another graph's", graph.update(HealthCheck { bit: 0 }, &[x], &[foreign()]), &["own"]);
    refused("an empty input", graph.one(half.clone(), &[empty]), &["[0, ", "no elements"]);
    refused("an input that wraps", graph.one(half.clone(), &[huge]), &["exceeds 2^32 elements"]);
    refused("an input that wraps", graph.one(half.clone(), &[many]), &["exceeds 2^32 elements"]);
    let fill = Fill { value: 1.0, ty: Type::f32([1 << 15, 1 << 15]) };
    refused("an output of 2^30 elements", graph.one(fill, &[]), &["exceeds 2^30 elements", "smaller batch"]);
    refused("an update recorded as making", graph.apply(HealthCheck { bit: 0 }, &[x, health]), &["in place"]);
    refused("a making recorded as an update", graph.update(half, &[x], &[x]), &["makes new values"]);
    refused("keeping another graph's", graph.persist(foreign(), "kept"), &["own"]);
    refused("a loss that is no scalar", backward(&mut graph, x), &["must be [1]"]);
    refused("a loss of another graph", backward(&mut graph, foreign()), &["own"]);
    refused("a gradient of another shape", backward_from(&mut graph, &[(x, health)]), &["must be [2, 3]"]);
    let many = Passes { recompute: 3, ..Passes::FUSE };
    refused("recomputing what is not kept", many.apply(&mut graph), &["0 to 0"]);
    assert!(graph.nodes().is_empty(), "what is refused leaves nothing");
}

#[test]
fn a_gradient_may_be_shared_or_missing() {
    let mut graph = Graph::new();
    let [a, b, unused] = ["a", "b", "unused"].map(|name| graph.in_arena("weights", name, Type::f32([4]), true));
    let sum = graph.one(Add { alpha: 1.0, beta: 1.0 }, &[a, b]).unwrap();
    let loss = graph.one(Mean, &[sum]).unwrap();
    let gradients = backward(&mut graph, loss).unwrap();
    assert_eq!(gradients[&a], gradients[&b]);
    let placed = place_gradients(&mut graph, &gradients, "weights", "gradients").unwrap();
    assert_eq!(placed, [a, b]);
    assert!(!placed.contains(&unused));
    let executor = Executor::new(&mut Kernels::new(gpu()), &mut Arenas::new(), graph).unwrap();
    executor.write(a, &[1.0_f32; 4]).unwrap();
    executor.write(b, &[2.0_f32; 4]).unwrap();
    executor.submit().unwrap();
    let all = executor.read_arena("gradients").unwrap();
    for (at, want) in [(0, 0.25), (64, 0.25), (128, 0.0)] {
        assert_eq!(all[at..at + 4], [want; 4]);
    }
}

#[test]
fn executors_refuse_values_and_numbers_that_do_not_fit() {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([2, 3]));
    let unused = graph.one(Scale { alpha: 2.0 }, &[x]).unwrap();
    let words = graph.input("words", Type::u32([2]));
    graph.keep(foreign());
    let mut kernels = Kernels::new(gpu());
    let ex = Executor::new(&mut kernels, &mut Arenas::new(), graph).unwrap();
    refused("too few numbers", ex.write(x, &[1.0_f32; 5]), &["20 bytes", "24 bytes of x"]);
    refused("too many numbers", ex.write(x, &[1.0_f32; 7]), &["28 bytes", "24 bytes of x"]);
    refused("numbers of another graph's value", ex.write(foreign(), &[1.0_f32]), &["the value"]);
    refused("too few of the twin's numbers", ex.write_f64(words, &[1.0]), &["4 bytes"]);
    refused("the twin's numbers of another graph's value", ex.write_f64(foreign(), &[1.0]), &["the value"]);
    refused("reading another graph's value", ex.read::<f32>(foreign()), &["the value"]);
    refused("reading another graph's value", ex.read_f64(foreign()), &["the value"]);
    refused("reading numbers of another size", ex.read::<f64>(x), &["8 bytes", "F32"]);
    refused("reading bytes", ex.read::<u8>(x), &["1 bytes"]);
    refused("reading back another graph's value", Readback::new(&ex, &[x, foreign()]), &["the value"]);
    assert!(ex.read_arena("nowhere").is_err());
    assert!(ex.check_id(unused).is_ok());
    assert!(Readback::new(&ex, &[]).unwrap().read(&ex).unwrap().is_empty());
    let mut huge = Graph::new();
    let wide = huge.input("wide", Type::f32([u32::MAX as usize]));
    huge.one(Mean, &[wide]).unwrap();
    assert!(Executor::new(&mut kernels, &mut Arenas::new(), huge).is_err(), "16 GiB of input");
    let mut wrapped = Graph::new();
    wrapped.input("wrapped", Type::f32([usize::MAX, usize::MAX]));
    assert!(Executor::new(&mut kernels, &mut Arenas::new(), wrapped).is_err(), "more bytes than can be counted");
}

#[test]
fn twins_want_all_inputs() {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([2]));
    let y = graph.one(Scale { alpha: 2.0 }, &[x]).unwrap();
    graph.keep(y);
    assert!(twin::run(&graph, &mut HashMap::new()).unwrap_err().to_string().contains("x was not given"));
}

fn config() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.optimiser.batch = 4;
    config.method.negatives = 8;
    config
}

fn glyphs() -> ImageSet {
    load("glyphs", Split::Train, &DataOptions { side: Some(28), ..DataOptions::default() }).unwrap()
}

/// A set with something wrong in it.
fn with(change: impl FnOnce(&mut ImageSet)) -> Arc<ImageSet> {
    let mut data = glyphs();
    change(&mut data);
    Arc::new(data)
}

#[test]
fn trainers_refuse_settings_images_and_teachers_that_cannot_be_used() {
    let gpu = gpu();
    let new = |config: &Config, data: &Arc<ImageSet>| Trainer::new(gpu.clone(), config, data.clone(), None);
    let data = with(|_| ());
    type Row<T> = (&'static str, fn(&mut T), &'static str);
    let settings: [Row<Config>; 6] = [
        ("a batch of 0", |c| c.optimiser.batch = 0, "batch"),
        ("a batch of more images than there are", |c| c.optimiser.batch = 100_000, "batch"),
        ("a temperature of 0", |c| c.method.tau = 0.0, "tau"),
        ("a rate that is no number", |c| c.optimiser.lr = f64::NAN, "lr"),
        ("micro-batches that do not divide", |c| c.run.micro_batch = Some(3), "micro"),
        ("recomputing more than there is", |c| c.run.recompute = 1000, "run.recompute must be 0 to"),
    ];
    for (what, change, word) in settings {
        let mut config = config();
        change(&mut config);
        refused(what, new(&config, &data), &[word]);
    }
    let sets: [Row<ImageSet>; 6] = [
        ("no labels", |d| d.labels.clear(), "labels"),
        ("neither labels nor classes", |d| (d.labels, d.class_names) = (Vec::new(), Vec::new()), "labels"),
        ("a label too many", |d| d.labels.push(0), "labels"),
        ("a label without a class", |d| d.labels[7] = 64, "label"),
        ("too few pixels", |d| d.pixels.truncate(9), "pixels"),
        ("no images", |d| *d = ImageSet::default(), ""),
    ];
    for (what, change, word) in sets {
        refused(what, new(&config(), &with(change)), &[word]);
    }
    let teacher = Arc::new(Teacher { path: "teacher".into(), weights: Checkpoint::default() });
    let taught = Trainer::new(gpu.clone(), &config(), data.clone(), Some(teacher));
    refused("an empty teacher", taught, &["teacher: does not fit the network", "missing"]);

    let mut trainer = new(&config(), &data).unwrap();
    refused("a report before the first step", trainer.report(), &["finished steps", "got 0"]);
    let report = trainer.step().unwrap();
    assert_eq!((report.step, report.epoch), (1, 1));
    assert!(report.loss.is_finite() && report.terms.len() == 3);
    let whole = trainer.checkpoint().unwrap();
    refused("an empty checkpoint", trainer.restore(Path::new("a"), &Checkpoint::default()), &["a: ", "metadata"]);
    for (key, value, word) in [
        ("step", "-1", "step"),
        ("step", "99999999999", "claims 99999999999 steps"),
        ("side", "29", "pixels"),
        ("data", "0", "another data"),
        ("config", "{", "a: "),
    ] {
        let mut other = whole.clone();
        other.metadata.insert(key.into(), value.into());
        refused(key, trainer.restore(Path::new("a"), &other), &[word]);
    }
    for name in ["layer1.0.conv1.weight", "train.bank", "train.momentum.classifier.bias"] {
        let mut other = whole.clone();
        other.tensors.insert(name.into(), Tensor::f32([1], vec![0.0]));
        refused(name, trainer.restore(Path::new("a"), &other), &["does not fit the network", name]);
        other.tensors.remove(name);
        refused(name, trainer.restore(Path::new("a"), &other), &["missing", name]);
    }
    trainer.restore(Path::new("a"), &whole).unwrap();
    assert_eq!(trainer.checkpoint().unwrap(), whole);

    let (extractor, _) = Extractor::open(gpu.clone(), Path::new("a"), &whole, false).unwrap();
    let features = |images: &ImageSet| extractor.features(images, Layer::Feature, None, &mut Silent);
    let larger = ImageSet { side: 32, pixels: vec![0; 1024], names: vec!["x".into()], ..ImageSet::default() };
    refused("images of another side", features(&larger), &["side", "32", "28"]);
    refused("images without their pixels", features(&ImageSet { side: 28, ..larger }), &["pixels"]);
    assert!(features(&ImageSet { side: 28, ..ImageSet::default() }).unwrap().is_empty());
    let mut odd = whole;
    odd.metadata.insert("classes".into(), "1".into());
    refused("one class", Extractor::open(gpu, Path::new("a"), &odd, false), &["claims 1 classes"]);
}

#[test]
fn checkpoints_and_episodes_refuse_what_is_not_theirs() {
    for (bytes, word) in
        [(&b""[..], "empty"), (b"PK\x03\x04", "zip"), (&[9; 40], "not a safetensors"), (&[0; 3], "a: ")]
    {
        refused("bytes", Checkpoint::from_bytes("a", bytes), &["a: ", word]);
    }
    let mut checkpoint = Checkpoint::default();
    checkpoint.tensors.insert("w".into(), Tensor::f32([2], vec![1.0, f32::NAN]));
    refused("a number that is not finite", checkpoint.to_bytes(), &["w is not finite at element 1"]);
    checkpoint.tensors.insert("w".into(), Tensor::f32([usize::MAX, 2], vec![1.0]));
    assert!(checkpoint.to_bytes().is_err(), "a shape that wraps");
    checkpoint.tensors.insert("w".into(), Tensor::f32([1], vec![1.0]));
    assert_eq!(Checkpoint::from_bytes("a", &checkpoint.to_bytes().unwrap()).unwrap(), checkpoint);

    let data = glyphs();
    for (what, ways, shots, queries) in
        [("more classes than there are", 65, 1, 1), ("more images than a class has", 5, 20, 1), ("no class", 0, 1, 1)]
    {
        refused(what, draw(&data, ways, shots, queries, 1, 0), &[]);
    }
}
