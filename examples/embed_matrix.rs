//! Images to a matrix of embeddings, one row per image, by the network of a checkpoint.
//!
//! `cargo run --release --example embed_matrix [CHECKPOINT]`; without one, a few steps of training make it.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::PathBuf;
use std::sync::Arc;

use ieq_wgpu::data::ImageSet;
use ieq_wgpu::fewshot::l2_normalise;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::progress::Silent;
use ieq_wgpu::random::{Rng, Stream};
use ieq_wgpu::settings::Config;
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::{Extractor, Trainer, features::Layer};

fn main() -> ieq_wgpu::Result<()> {
    let gpu = Gpu::open(&Options::default())?;
    // The bytes of a checkpoint are all that an extractor needs: they may come from anywhere.
    let path = PathBuf::from(std::env::args().nth(1).unwrap_or("fresh.safetensors".into()));
    let checkpoint = match std::env::args().len() {
        1 => fresh(gpu.clone())?,
        _ => Checkpoint::load(&path)?,
    };
    let (extractor, _) = Extractor::open(gpu, &path, &checkpoint, false)?;

    let images = noise(extractor.side(), 6, 2)?;
    let mut matrix = extractor.features(&images, Layer::Feature, None, &mut Silent)?;
    let width = matrix.len() / images.len();
    l2_normalise(&mut matrix, width);
    println!("{} images, {width} numbers each; cosines between them:", images.len());
    for a in matrix.chunks_exact(width) {
        let cosine = |b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        println!("{}", matrix.chunks_exact(width).map(|b| format!("{:6.3}", cosine(b))).collect::<String>());
    }
    Ok(())
}

/// A checkpoint after three steps on noise.
fn fresh(gpu: Arc<Gpu>) -> ieq_wgpu::Result<Checkpoint> {
    let mut config = Config::from_preset("demo")?;
    config.data.side = Some(16);
    config.model.widths = vec![8, 8, 16, 16];
    config.method.negatives = 16;
    let mut trainer = Trainer::new(gpu, &config, Arc::new(noise(16, 40, 4)?), None)?;
    for _ in 0..3 {
        trainer.step()?;
    }
    let bytes = trainer.checkpoint()?.to_bytes()?;
    Checkpoint::from_bytes("fresh.safetensors", &bytes)
}

/// `n` images of noise in `classes` classes of their own brightness.
fn noise(side: usize, n: usize, classes: usize) -> ieq_wgpu::Result<ImageSet> {
    let mut rng = Rng::new(1, Stream::Glyphs, 0, 0);
    let mut pixels = Vec::new();
    for image in 0..n {
        let brightness = 80 * (image % classes) as u32 % 240;
        pixels.extend((0..side * side).map(|_| ((brightness + (rng.next_bits() >> 28)) * 0x01_0101) | (0xff << 24)));
    }
    let labels = (0..n).map(|image| (image % classes) as u32).collect();
    let class_names = (0..classes).map(|class| format!("class {class}")).collect();
    ImageSet::new(side, pixels, labels, class_names, (0..n).map(|image| format!("image {image}")).collect())
}
