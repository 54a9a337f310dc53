//! The moving average of the weights is what a network is scored, saved and exported by, and belongs to the state of a run.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::progress::Silent;
use ieq_wgpu::settings::{Backbone, BatchStatistics, Config, TransformSet};
use ieq_wgpu::train::Trainer;
use ieq_wgpu::train::checkpoint::{Checkpoint, TensorData};
use ieq_wgpu::train::features::{Extractor, Layer};
use ieq_wgpu::train::memory::Memory;
use ieq_wgpu::train::record::DataShape;

const DECAY: f64 = 0.75;
/// What the raw weights are called beside their average.
const RAW: &str = "train.weights.";

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, ..Options::default() }).unwrap()
}

/// A tiny run, in whole batches or in two parts.
fn config(parts: usize) -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.backbone = Backbone::Conv4;
    config.model.widths = vec![4; 4];
    config.method.transforms = TransformSet::Rot4;
    config.method.negatives = 16;
    (config.optimiser.batch, config.optimiser.average) = (4, DECAY);
    config.run.slice_ms = 0;
    if parts > 1 {
        (config.run.micro_batch, config.run.batch_norm) = (Some(4 / parts), BatchStatistics::Micro);
    }
    config
}

fn glyphs(split: Split) -> Arc<ImageSet> {
    Arc::new(load("glyphs", split, &DataOptions { side: Some(28), ..DataOptions::default() }).unwrap())
}

fn floats<'c>(checkpoint: &'c Checkpoint, name: &str) -> &'c [f32] {
    match &checkpoint.tensors[name].data {
        TensorData::F32(data) => data,
        TensorData::I64(_) => panic!("{name} holds whole numbers"),
    }
}

/// The names of the network's tensors.
fn network(checkpoint: &Checkpoint) -> Vec<String> {
    checkpoint.tensors.keys().filter_map(|name| name.strip_prefix(RAW)).map(str::to_owned).collect()
}

#[test]
fn a_checkpoint_holds_the_average_of_every_step_and_the_run_goes_on_from_both() {
    let data = glyphs(Split::Train);
    for parts in [1, 2] {
        let config = config(parts);
        let mut trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
        let mut wanted: Vec<Vec<f64>> = Vec::new();
        let mut last = trainer.checkpoint().unwrap();
        for step in 0..4 {
            trainer.submit().unwrap();
            last = trainer.checkpoint().unwrap();
            let now = network(&last).into_iter().map(|name| floats(&last, &format!("{RAW}{name}")).to_vec());
            let now = now.map(|raw| raw.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
            match step {
                0 => wanted = now.collect(),
                _ => wanted.iter_mut().zip(now).for_each(|(mean, now)| {
                    mean.iter_mut().zip(now).for_each(|(mean, x)| *mean = DECAY * *mean + (1.0 - DECAY) * x);
                }),
            }
            for (name, wanted) in network(&last).iter().zip(&wanted) {
                for (got, wanted) in floats(&last, name).iter().zip(wanted) {
                    let error = (f64::from(*got) - wanted).abs();
                    assert!(
                        error <= 1e-6 * (1.0 + wanted.abs()),
                        "{parts} parts, step {step}, {name}: {got}, {wanted}"
                    );
                }
            }
        }
        // The statistics, too; and after four steps none is the weights themselves.
        for name in network(&last).iter().filter(|name| name.ends_with("running_mean") || name.ends_with("0.0.weight"))
        {
            assert_ne!(floats(&last, name), floats(&last, &format!("{RAW}{name}")), "{name}");
        }
        let mut resumed = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
        resumed.restore(Path::new("last"), &last).unwrap();
        for trainer in [&mut trainer, &mut resumed] {
            trainer.submit().unwrap();
        }
        assert!(trainer.checkpoint().unwrap() == resumed.checkpoint().unwrap(), "{parts} parts");
        last.tensors.retain(|name, _| !name.starts_with(RAW));
        let error = resumed.restore(Path::new("last"), &last).unwrap_err().to_string();
        assert!(error.contains("missing train.weights."), "{error}");
    }
}

#[test]
fn what_is_scored_and_embedded_is_the_average() {
    let (data, novel) = (glyphs(Split::Train), glyphs(Split::Novel));
    let config = config(1);
    let mut trainer = Trainer::new(gpu(), &config, data, None).unwrap();
    let extractor = trainer.extractor().unwrap();
    let features = |extractor: &Extractor| extractor.features(&novel, Layer::Feature, None, &mut Silent).unwrap();
    let untrained = features(&extractor);
    for _ in 0..4 {
        trainer.submit().unwrap();
    }
    let (of_run, checkpoint) = (features(&extractor), trainer.checkpoint().unwrap());
    let path = Path::new("run");
    let stored = |checkpoint: &Checkpoint, untrained: bool| {
        features(&Extractor::open(gpu(), path, checkpoint, untrained).unwrap().0)
    };
    assert!(of_run == stored(&checkpoint, false), "a run is scored as its checkpoint is");
    assert!(untrained == stored(&checkpoint, true) && untrained != of_run);
    let mut raw = checkpoint.clone();
    for name in network(&checkpoint) {
        let tensor = checkpoint.tensors[&format!("{RAW}{name}")].clone();
        raw.tensors.insert(name, tensor);
    }
    assert!(of_run != stored(&raw, false), "the last weights are not their average");
}

#[test]
fn a_plan_counts_the_averages() {
    let data = DataShape { side: 28, classes: 64, images: 1280 };
    let with = |average: f64| {
        let mut config = config(1);
        config.optimiser.average = average;
        Memory::of(&config, data, false, true).unwrap()
    };
    let (without, with) = (with(0.0), with(DECAY));
    assert_eq!(with.weights, 2 * without.weights);
    assert!(with.peak_bytes >= without.peak_bytes + without.weights);
}
