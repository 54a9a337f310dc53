//! Trains a network on images in memory and scores it on classes that it has not seen: no folder, no command line.
//!
//! `cargo run --release --example train_arrays`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;

use ieq_wgpu::data::{self, ImageSet};
use ieq_wgpu::fewshot::{Classifier, EpisodeSize, Features, score_episodes};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::progress::{Silent, StepReport};
use ieq_wgpu::random::{Rng, Stream};
use ieq_wgpu::settings::{Config, Length};
use ieq_wgpu::train::{Observer, Trainer, features::Layer};

const SIDE: usize = 16;

/// Tells of the losses. An observer also gets the checkpoints, and may stop the run.
struct Printed;

impl Observer for Printed {
    fn on_step(&mut self, report: &StepReport) -> ieq_wgpu::Result<()> {
        println!("step {} of {}: loss {:.3}", report.step, report.total_steps, report.loss);
        Ok(())
    }
}

fn main() -> ieq_wgpu::Result<()> {
    let (train, novel) = (Arc::new(waves(0, 12)?), waves(12, 6)?);
    let mut config = Config::from_preset("demo")?;
    config.model.widths = vec![8, 8, 16, 16];
    config.data.side = Some(SIDE);
    config.method.negatives = 64;
    config.optimiser.length = Length::Steps(60);
    config.run.log_every = 20;

    let gpu = Gpu::open(&Options::default())?;
    let mut trainer = Trainer::new(gpu, &config, train, None)?;
    trainer.train(&mut Printed)?;

    let extractor = trainer.extractor()?;
    let features = extractor.features(&novel, Layer::Feature, None, &mut Silent)?;
    let episodes = data::draw(&novel, 5, 1, 10, 100, 0)?;
    let episodes = episodes.iter().map(|episode| (&episode.support[..], &episode.query[..]));
    let features = Features::new(&features, features.len() / novel.len())?;
    let size = EpisodeSize { ways: 5, shots: 1, queries: 10 };
    let scores = score_episodes(features, episodes, size, &[Classifier::LogisticRegression])?;
    println!("5-way 1-shot accuracy on new classes: {}", scores[0].accuracy);
    Ok(())
}

/// 20 noisy images of each of `n` classes; a class is a wave of its own direction and length.
fn waves(first: usize, n: usize) -> ieq_wgpu::Result<ImageSet> {
    let (mut pixels, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for class in 0..n {
        for image in 0..20 {
            let mut rng = Rng::new(7, Stream::Glyphs, (first + class) as u32, image);
            let (angle, length) = (0.7 * (first + class) as f32, 3.0 + ((first + class) % 5) as f32);
            let phase = 6.3 * rng.unit();
            for i in 0..SIDE * SIDE {
                let along = (i % SIDE) as f32 * angle.cos() + (i / SIDE) as f32 * angle.sin();
                let value = 0.5 + 0.35 * (6.3 * along / length + phase).sin() + 0.3 * (rng.unit() - 0.5);
                let grey = (255.0 * value.clamp(0.0, 1.0)) as u32;
                pixels.push(grey | grey << 8 | grey << 16 | 0xff << 24);
            }
            labels.push(class as u32);
            names.push(format!("wave {}, image {image}", first + class));
        }
    }
    let classes = (first..first + n).map(|class| format!("wave {class}")).collect();
    ImageSet::new(SIDE, pixels, labels, classes, names)
}
