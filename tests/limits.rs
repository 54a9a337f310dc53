//! WebGPU's default limits suffice for the small model: the demo trains on a device opened with just those.

use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::settings::Config;
use ieq_wgpu::train::Trainer;

#[test]
fn the_demo_trains_within_webgpus_default_limits() {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, default_limits: true, ..Options::default() })
        .expect("a GPU test needs an adapter");
    assert_eq!(gpu.limits().max_storage_buffers_per_shader_stage, 8);
    assert_eq!(gpu.limits().max_storage_buffer_binding_size, 128 << 20);
    let config = Config::from_preset("demo").expect("the preset is embedded");
    let options = DataOptions { side: config.data.side, ..DataOptions::default() };
    let data = Arc::new(load("glyphs", Split::Train, &options).expect("the glyphs need no file"));
    let mut trainer = Trainer::new(gpu, &config, data.clone(), None).expect("the demo fits");
    let mut losses = Vec::new();
    for _ in 0..3 {
        trainer.submit().expect("a step runs");
        let (terms, accuracy) = trainer.read_metrics().expect("the losses are finite");
        assert!((0.0..=1.0).contains(&accuracy));
        losses.push(terms[0].1);
    }
    assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{losses:?}");
    assert!(losses.windows(2).all(|pair| pair[0] != pair[1]), "the weights move: {losses:?}");
}
