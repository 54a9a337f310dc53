//! Memory and time on a device: what the plan says is what is allocated, and cutting a step into submissions
//! changes no number.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use ieq_wgpu::config::Config;
use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::train::Trainer;
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::memory::Memory;
use ieq_wgpu::train::record::DataShape;

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, default_limits: false }).unwrap()
}

/// A small run with everything that draws random numbers.
fn small() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.widths = [8, 12, 16, 20];
    config.model.dropout = 0.1;
    config.model.drop_block.rate = 0.1;
    config.optimiser.batch = 8;
    config.run.slice_ms = 0;
    config
}

fn glyphs(config: &Config) -> ImageSet {
    load("glyphs", Split::Train, &DataOptions { side: config.data.side, ..DataOptions::default() }).unwrap()
}

fn shape(data: &ImageSet) -> DataShape {
    DataShape { side: data.side, classes: data.n_classes(), images: data.len() }
}

fn steps(trainer: &mut Trainer, n: usize) -> Checkpoint {
    for _ in 0..n {
        trainer.submit().unwrap();
    }
    trainer.checkpoint().unwrap()
}

/// Whether two checkpoints hold the same bits, their configurations aside.
fn same(a: &Checkpoint, b: &Checkpoint) -> bool {
    a.tensors == b.tensors
}

#[test]
fn the_device_allocates_what_was_planned() {
    let config = Config::from_preset("demo").unwrap();
    let data = glyphs(&config);
    let gpu = gpu();
    let planned = Memory::of(&config, shape(&data), false, true).unwrap();
    let mut trainer = Trainer::new(gpu.clone(), &config, &data, None).unwrap();
    let _extractor = trainer.extractor().unwrap();
    trainer.submit().unwrap();
    gpu.wait().unwrap();
    let Some(report) = gpu.device.generate_allocator_report() else {
        eprintln!("this backend reports no allocations");
        return;
    };
    let (planned, measured) = (planned.peak_bytes as f64, report.total_allocated_bytes as f64);
    println!("planned {planned}, allocated {measured}");
    assert!((measured / planned - 1.0).abs() <= 0.1, "planned {planned}, allocated {measured}");
}

#[test]
fn the_classes_of_a_plan_add_up() {
    for (preset, images) in [("demo", 981), ("cifar-fs", 38_400), ("mini-imagenet", 38_400)] {
        let config = Config::from_preset(preset).unwrap();
        let data = DataShape { side: config.data.side.unwrap(), classes: 64, images };
        for distill in [false, true] {
            let memory = Memory::of(&config, data, distill, true).unwrap();
            assert_eq!(memory.classes().iter().map(|(_, bytes)| bytes).sum::<u64>(), memory.peak_bytes);
            assert_eq!(memory.gradients, memory.optimiser);
            assert!(memory.images as usize >= 4 * images * data.side * data.side);
            assert!(memory.kept_activations > memory.workspace, "{memory:?}");
            let once = Memory::of(&config, data, false, true).unwrap().weights - if distill { 0 } else { 1 };
            assert!(memory.weights > once, "{preset}: the teacher has weights, too");
        }
    }
}

#[test]
fn cutting_a_step_into_submissions_changes_no_number() {
    let mut config = small();
    let data = glyphs(&config);
    let whole = {
        let mut trainer = Trainer::new(gpu(), &config, &data, None).unwrap();
        let state = steps(&mut trainer, 4);
        assert_eq!(trainer.submissions(), 1);
        state
    };
    config.run.slice_ms = 1;
    let mut trainer = Trainer::new(gpu(), &config, &data, None).unwrap();
    let cut = steps(&mut trainer, 4);
    assert!(trainer.submissions() > 3, "{} submissions", trainer.submissions());
    assert!(same(&whole, &cut));
    println!("{} submissions, longest {:?}", trainer.submissions(), trainer.over_target());
    assert!(trainer.over_target().is_none_or(|(_, time)| time > Duration::from_millis(1)));
}
