//! What `predict` reaches on classes that a network has not seen: accuracy, calibration error, false alarms and misses of
//! "none of these". Not a test of the crate but of a checkpoint, so it runs only when it is asked for:
//!
//!     IEQ_MODEL=runs/omniglot IEQ_DATA=omniglot28.zip \
//!         cargo test --release --test answers_measured -- --ignored --nocapture
//!
//! An episode has as many classes again whose pictures are strangers. `IEQ_REFERENCE=typical` leaves out what the
//! checkpoint says of its similarities; `measured` measures them as a run does at its end, for checkpoints without them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and this one prints a table")]

use std::path::Path;

use ieq_wgpu::data::{self, DataOptions, ImageSet, Split};
use ieq_wgpu::fewshot::reference::{Reference, Source};
use ieq_wgpu::fewshot::{Features, MeanInterval, Support};
use ieq_wgpu::gpu::adapter::AdapterChoice;
use ieq_wgpu::gpu::{Gpu, device::Options};
use ieq_wgpu::jobs::Stored;
use ieq_wgpu::progress::Silent;
use ieq_wgpu::train::features::Layer;
use ieq_wgpu::train::{Extractor, reference};

const BINS: usize = 15;
const QUERIES: usize = 10;
const EPISODES: usize = 400;

/// Up to 20 classes with up to 12 images each, as a run measures them.
fn measured(extractor: &Extractor, images: &ImageSet, source: Source) -> Reference {
    let by_class = images.by_class();
    let n = by_class.len().min(20);
    let mut few = ImageSet { side: images.side, ..ImageSet::default() };
    for label in 0..n {
        few.class_names.push(label.to_string());
        for &image in by_class[label * by_class.len() / n].iter().take(12) {
            few.labels.push(label as u32);
            few.names.push(String::new());
            few.pixels.extend_from_slice(images.image(image as usize));
        }
    }
    let features = extractor.features(&few, Layer::Feature, None, &mut Silent).unwrap();
    let features = Features::new(&features, features.len() / few.len()).unwrap();
    Reference::measure(features, &few.labels, n, source).unwrap().unwrap()
}

#[test]
#[ignore = "it measures a checkpoint"]
fn what_predict_reaches() {
    let model = std::env::var("IEQ_MODEL").expect("IEQ_MODEL names a checkpoint or a run folder");
    let stored = Stored::open(Path::new(&model)).unwrap();
    let source = std::env::var("IEQ_DATA").unwrap_or(stored.config.data.source.clone());
    let options = DataOptions { side: Some(stored.side().unwrap()), ..DataOptions::default() };
    let choice = AdapterChoice::parse(std::env::var("IEQ_ADAPTER").ok().as_deref());
    let gpu = Gpu::open(&Options { choice, ..Options::default() }).unwrap();
    let (extractor, _) = Extractor::open(gpu, &stored.file, &stored.checkpoint, false).unwrap();
    let gray = stored.config.data.mean.windows(2).all(|pair| pair[0] == pair[1]);
    let kept = reference::of(&stored.file, &stored.checkpoint).unwrap();
    let reference = match std::env::var("IEQ_REFERENCE").as_deref() {
        Ok("typical") => Reference::typical(gray),
        Ok("measured") => match data::load(&source, Split::Val, &options) {
            Ok(val) => measured(&extractor, &val, Source::HeldOut),
            Err(_) => measured(&extractor, &data::load(&source, Split::Train, &options).unwrap(), Source::TrainedOn),
        },
        _ => kept.unwrap_or_else(|| Reference::typical(gray)),
    };
    println!("{source}, {model}\n{reference:?}");
    let novel = data::load(&source, Split::Novel, &options).unwrap();
    let features = extractor.features(&novel, Layer::Feature, None, &mut Silent).unwrap();
    let features = Features::new(&features, features.len() / novel.len()).unwrap();
    println!("ways shots  accuracy           ECE    rate: false alarms, strangers that pass");
    for ways in [2, 5, 20] {
        for shots in [1, 2, 5] {
            if 2 * ways <= novel.n_classes() {
                measure(features, &novel, ways, shots, &reference);
            }
        }
    }
}

fn measure(features: Features, novel: &ImageSet, ways: usize, shots: usize, reference: &Reference) {
    const RATES: [f64; 3] = [0.01, 0.05, 0.2];
    let episodes = data::draw(novel, 2 * ways, shots, QUERIES, EPISODES, 0).unwrap();
    let mut accuracies = Vec::new();
    // By probability: pictures, sum of probabilities, right ones.
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    let (mut alarms, mut misses) = ([0.0; 3], [0.0; 3]);
    for episode in &episodes {
        let rows = |of: &[u32]| -> Vec<f32> {
            of.iter().flat_map(|&image| features.row(image as usize).unwrap().to_vec()).collect()
        };
        let support = rows(&episode.support[..ways * shots]);
        let labels: Vec<u32> = (0..ways * shots).map(|i| (i / shots) as u32).collect();
        let support = Support::new(Features::new(&support, features.dim()).unwrap(), &labels, ways, reference).unwrap();
        let mut right = 0.0;
        for (i, &image) in episode.query.iter().enumerate() {
            let answer = support.answer(features.row(image as usize).unwrap(), None, None).unwrap();
            let (class, nearest) = (i / QUERIES, answer.nearest.unwrap());
            for (r, rate) in RATES.into_iter().enumerate() {
                let none = answer.similarity < support.threshold(nearest, rate);
                match class < ways {
                    true => alarms[r] += f64::from(u8::from(none)),
                    false => misses[r] += f64::from(u8::from(!none)),
                }
            }
            if class < ways {
                let (p, is_right) = (answer.probabilities[nearest], f64::from(u8::from(nearest == class)));
                let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
                *bin = (bin.0 + 1.0, bin.1 + p, bin.2 + is_right);
                right += is_right;
            }
        }
        accuracies.push(right / (ways * QUERIES) as f64);
    }
    let n = (EPISODES * ways * QUERIES) as f64;
    let error: f64 = bins.iter().map(|(_, p, right)| (p - right).abs() / n).sum();
    let accuracy = MeanInterval::of(&accuracies).unwrap();
    let each = RATES.iter().enumerate().map(|(r, rate)| {
        let percent = |x: f64| 100.0 * x;
        format!("{:.0} %: {:.1}, {:.1}", percent(*rate), percent(alarms[r] / n), percent(misses[r] / n))
    });
    let each: Vec<String> = each.collect();
    println!(
        "{ways:4} {shots:5}  {:.2} +- {:.2} %  {:4.2} %  {}",
        100.0 * accuracy.mean,
        100.0 * accuracy.half_width.unwrap_or(0.0),
        100.0 * error,
        each.join("   ")
    );
}
