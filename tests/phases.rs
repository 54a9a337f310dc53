//! A run whose views, batch and losses change on the way: it continues bit for bit from every step, takes the memory that
//! was planned, and computes what it says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a test reports what it measured")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ier::negatives::BankHistory;
use ieq_wgpu::ier::transforms::{Augmentation, ViewSampler};
use ieq_wgpu::settings::{BatchStatistics, ByteSize, Config, Length, Method, MethodConfig};
use ieq_wgpu::train::budget::{Room, fit};
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::inputs::{Negatives, Rows, counted_rows};
use ieq_wgpu::train::memory::Memory;
use ieq_wgpu::train::record::{DataShape, spec};
use ieq_wgpu::train::{Extractor, Teacher, Trainer};

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, ..Options::default() }).unwrap()
}

fn glyphs() -> Arc<ImageSet> {
    Arc::new(load("glyphs", Split::Train, &DataOptions { side: Some(28), ..DataOptions::default() }).unwrap())
}

fn shape(data: &ImageSet) -> DataShape {
    DataShape { side: data.side, classes: data.n_classes(), images: data.len() }
}

/// Ten steps: four views, from step 3 on two of every second image without a contrastive loss, from step 7 on the plain
/// image alone with it.
fn changing() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.widths = vec![8, 12, 16, 20];
    config.model.dropout = 0.1;
    config.model.drop_block.rate = 0.1;
    config.optimiser.batch = 8;
    config.optimiser.length = Length::Steps(10);
    config.run.slice_ms = 0;
    config.method = MethodConfig::default();
    config.method.transforms = "rot4".parse().unwrap();
    config.method.joint_labels = true;
    config.method.bank_recent = Some(30);
    config.method.weight_equivariance = Some(0.3);
    config.method.phases =
        vec!["0.3: views=2, view_share=0.5, invariance=false".into(), "0.7: views=1, invariance=true, tau=0.5".into()];
    // What looks at all gradients at once, and at each tensor by itself.
    config.optimiser.clip_norm = Some(2.0);
    config.optimiser.decay_norm = false;
    config.validate().unwrap();
    config
}

fn trainer(config: &Config, data: &Arc<ImageSet>) -> Trainer {
    Trainer::new(gpu(), config, data.clone(), None).unwrap()
}

fn steps(trainer: &mut Trainer, n: u32) -> Checkpoint {
    (0..n).for_each(|_| drop(trainer.submit().unwrap()));
    trainer.checkpoint().unwrap()
}

#[test]
fn a_run_continues_bit_for_bit_from_every_step_of_every_phase() {
    let (config, data) = (changing(), glyphs());
    let mut whole = trainer(&config, &data);
    let batches: Vec<usize> = whole.phases().all().iter().map(|phase| phase.config.optimiser.batch).collect();
    // 32 rows.
    assert_eq!(batches, [8, 21, 32]);
    let mut states = vec![whole.checkpoint().unwrap()];
    let mut names = Vec::new();
    for _ in 0..10 {
        let report = whole.step().unwrap();
        names.push(report.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        states.push(whole.checkpoint().unwrap());
    }
    let of = |step: usize| names[step].iter().filter(|name| **name != "grad_norm").copied().collect::<Vec<_>>();
    assert_eq!([of(2), of(3), of(7)], [vec!["ce", "eq", "inv"], vec!["ce", "eq"], vec!["ce", "inv"]]);
    assert_eq!(whole.report().unwrap().images, 3 * 8 + 4 * 21 + 3 * 32);
    for (done, state) in states.iter().enumerate() {
        let mut resumed = trainer(&config, &data);
        resumed.restore(Path::new("state"), state).unwrap();
        let end = steps(&mut resumed, 10 - done as u32);
        assert!(end.tensors == states[10].tensors, "resumed after step {done}");
    }
    // What a phase does not compute stays as it is, its momentum and running statistics, too.
    let moved = |from: usize, to: usize, part: &str| {
        let (a, b) = (&states[from].tensors, &states[to].tensors);
        let named = a.keys().filter(|name| name.contains(part)).collect::<Vec<_>>();
        assert!(!named.is_empty());
        named.iter().filter(|name| a[**name] != b[**name]).count()
    };
    for part in ["inv_head", "train.bank"] {
        assert!(moved(0, 3, part) > 0 && moved(3, 7, part) == 0 && moved(7, 10, part) > 0, "{part}");
    }
    assert!(moved(0, 7, "eq_head") > 0 && moved(7, 10, "eq_head") == 0);
    assert!(moved(3, 7, "classifier") > 0 && moved(7, 10, "classifier") > 0);
    let classifier = &states[10].tensors["classifier.weight"];
    assert_eq!(classifier.shape[0], 4 * data.n_classes(), "a class for each rotation");
    // A network of the same run: its classes are the data's.
    let (extractor, _) = Extractor::open(gpu(), Path::new("state"), &states[10], false).unwrap();
    assert_eq!(extractor.width(ieq_wgpu::train::features::Layer::Class), Some(4 * data.n_classes()));
}

#[test]
fn streamed_images_and_a_teacher_change_with_the_phases() {
    let (mut config, data) = (changing(), glyphs());
    let whole = steps(&mut trainer(&config, &data), 10);
    let needed = Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes;
    config.run.memory_budget = Some(ByteSize(needed - 1));
    let mut streamed = trainer(&config, &data);
    assert!(!streamed.fitted().resident);
    assert!(steps(&mut streamed, 10).tensors == whole.tensors, "streamed images");
    config.run.memory_budget = None;
    let teacher = Arc::new(Teacher { path: "teacher".into(), weights: whole });
    let mut student = Trainer::new(gpu(), &config, data.clone(), Some(teacher.clone())).unwrap();
    let mut names = Vec::new();
    for _ in 0..10 {
        let report = student.step().unwrap();
        assert!(report.loss.is_finite());
        names.push(report.terms.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
    assert!(names[0].contains(&"kl_eq") && names[0].contains(&"mse_inv"));
    assert!(names[4].contains(&"kl_eq") && !names[4].contains(&"mse_inv") && !names[9].contains(&"kl_eq"));
    config.method.joint_labels = false;
    let error = Trainer::new(gpu(), &config, data, Some(teacher)).err().unwrap().to_string();
    assert!(error.contains("classifier.weight"), "{error}");
}

#[test]
fn micro_batches_have_their_own_further_views_and_resume() {
    let (mut config, data) = (changing(), glyphs());
    config.run.batch_norm = BatchStatistics::Micro;
    config.optimiser.average = 0.9;
    config.run.micro_batch = Some(4);
    assert!(config.validate().unwrap_err().to_string().contains("each phase (8, 21, 32), got 4"));
    config.method.phases[0] = "0.3: views=2, invariance=false".into();
    config.validate().unwrap();
    let mut run = trainer(&config, &data);
    let early = steps(&mut run, 2);
    let (losses, _) = run.read_metrics().unwrap();
    assert!(losses.iter().all(|(_, loss)| loss.is_finite()), "{losses:?}");
    let end = steps(&mut run, 8);
    let mut resumed = trainer(&config, &data);
    resumed.restore(Path::new("early"), &early).unwrap();
    assert!(steps(&mut resumed, 8).tensors == end.tensors);
    // A budget takes only micro-batches that divide the batch of every phase.
    config.run.micro_batch = None;
    config.method.phases[0] = "0.3: views=2, view_share=0.5, invariance=false".into();
    config.run.memory_budget = Some(ByteSize(Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes / 3));
    match fit(&config, shape(&data), false, Room::LARGE) {
        Ok(fitted) => fitted.config.validate().unwrap(),
        Err(error) => assert!(error.to_string().contains("MiB"), "{error}"),
    }
}

#[test]
fn the_device_allocates_what_the_largest_phase_needs() {
    let (config, data, gpu) = (changing(), glyphs(), gpu());
    let planned = fit(&config, shape(&data), false, Room::of(&Kernels::new(gpu.clone()))).unwrap().memory;
    assert_eq!(planned.classes().iter().map(|(_, bytes)| bytes).sum::<u64>(), planned.peak_bytes);
    let mut trainer = Trainer::new(gpu.clone(), &config, data, None).unwrap();
    let _extractor = trainer.extractor().unwrap();
    steps(&mut trainer, 10);
    let Some(report) = gpu.device().generate_allocator_report() else {
        eprintln!("this backend reports no allocations");
        return;
    };
    let (planned, measured) = (planned.peak_bytes as f64, report.total_allocated_bytes as f64);
    eprintln!("planned {planned}, allocated {measured}");
    assert!((measured / planned - 1.0).abs() <= 0.1, "planned {planned}, allocated {measured}");
}

/// The parts of the batch that are shown plain alone, and images that are shown plain only, are not computed further.
#[test]
fn rows_that_are_not_needed_are_not_computed() {
    let data = DataShape { side: 28, classes: 8, images: 200 };
    let mut config = changing();
    config.method.phases.clear();
    let kept = |config: &Config| Memory::of(config, data, false, true).unwrap().kept_activations as f64;
    let all = kept(&config);
    config.method.views = Some(1);
    assert!(kept(&config) < 0.3 * all, "{} of {all}", kept(&config));
    (config.method.views, config.method.view_share) = (Some(3), 0.25);
    assert_eq!(config.rows(), 8 + 2 * 2);
    assert!(kept(&config) < 0.45 * all, "{} of {all}", kept(&config));
}

/// What the host draws for a step, next to the step itself.
#[test]
fn the_host_takes_little_of_a_step() {
    let (mut config, data) = (changing(), glyphs());
    config.method.phases.clear();
    config.method.transforms = "rot4xcrop4".parse().unwrap();
    (config.method.views, config.method.view_share) = (Some(3), 0.5);
    config.method.bank_recent = Some(1024);
    config.optimiser.batch = 32;
    let mut run = trainer(&config, &data);
    steps(&mut run, 2);
    let begun = Instant::now();
    steps(&mut run, 3);
    let step = begun.elapsed().as_secs_f64() / 3.0;
    let spec = spec(&config, shape(&data), false);
    let sampler = ViewSampler::new(config.method.transforms, 28, 3, 1, Augmentation::default());
    let mut history = BankHistory::new(data.len(), 1024);
    history.write(&(0..data.len() as u32).collect::<Vec<_>>());
    let batch: Vec<u32> = (0..32).map(|i| i * 37).collect();
    let begun = Instant::now();
    for number in 0..20 {
        let rows = Rows::new(&spec, &sampler, number, 0);
        let negatives = Negatives::new(&spec, 1, number, &batch, Some(&mut history));
        let counted = counted_rows(&spec, &history, &batch);
        assert_eq!((rows.labels(&spec, &batch).len(), counted.len()), (spec.rows(), spec.rows()));
        assert_eq!((rows.view_index(&spec, |slot| slot as u32).len(), negatives.rows.len()), (spec.rows(), 1024));
        history.write(&batch);
    }
    let host = begun.elapsed().as_secs_f64() / 20.0;
    eprintln!("{:.3} ms of {:.1} ms, {:.2} % of a step", 1e3 * host, 1e3 * step, 100.0 * host / step);
    assert!(host < 0.05 * step, "{host} s of {step} s");
}

/// What is left of the method where images are only shown plain and nothing is contrasted: the baseline, to the bit.
#[test]
fn one_view_and_no_contrast_is_the_baseline() {
    let (mut config, data) = (changing(), glyphs());
    config.method = MethodConfig::default();
    config.method.kind = Method::Baseline;
    let baseline = steps(&mut trainer(&config, &data), 3);
    config.method.kind = Method::Ier;
    (config.method.views, config.method.weight_invariance) = (Some(1), Some(0.0));
    assert!(steps(&mut trainer(&config, &data), 3).tensors == baseline.tensors);
}

/// Twelve steps of cross-entropy: a quarter of the arithmetic at 16 of 28 pixels, a quarter at 21, and half at the full side,
/// which are 5, 3 and 4 steps.
fn growing() -> Config {
    let mut config = changing();
    config.optimiser.length = Length::Steps(12);
    config.method = MethodConfig::default();
    (config.method.kind, config.method.scale) = (Method::Baseline, 0.5715);
    config.method.phases = vec!["0.25: scale=0.75, label_smoothing=0.1".into(), "0.5: scale=1".into()];
    config.validate().unwrap();
    config
}

#[test]
fn pictures_that_grow_continue_bit_for_bit() {
    let (mut config, data) = (growing(), glyphs());
    let mut whole = trainer(&config, &data);
    let sides: Vec<usize> =
        whole.phases().all().iter().map(|phase| phase.config.method.network_side(data.side)).collect();
    assert_eq!(sides, [16, 21, 28]);
    assert_eq!(whole.phases().all().iter().map(|phase| phase.from).collect::<Vec<_>>(), [0, 5, 8]);
    assert_eq!(whole.schedule().phase_steps, [0, 5, 8]);
    let mut states = vec![whole.checkpoint().unwrap()];
    let mut to_come = Vec::new();
    for _ in 0..12 {
        to_come.push(whole.step().unwrap().to_come);
        states.push(whole.checkpoint().unwrap());
    }
    // By area: 9 / 16 of a full step for the middle ones.
    assert!((to_come[7] - 4.0 * 16.0 / 9.0).abs() < 1e-9, "{to_come:?}");
    assert_eq!(to_come[8..], [3.0, 2.0, 1.0, 0.0]);
    for done in [0, 4, 5, 6, 8, 9, 11] {
        let mut resumed = trainer(&config, &data);
        resumed.restore(Path::new("state"), &states[done]).unwrap();
        let end = steps(&mut resumed, 12 - done as u32);
        assert!(end.tensors == states[12].tensors, "resumed after step {done}");
    }
    // Within a budget: streamed images, the same bits.
    let needed = Memory::of(&config, shape(&data), false, true).unwrap();
    assert_eq!(needed.peak_phase, 2, "the full side takes most");
    config.run.memory_budget = Some(ByteSize(needed.peak_bytes - 1));
    let mut streamed = trainer(&config, &data);
    assert!(!streamed.fitted().resident);
    assert!(steps(&mut streamed, 12).tensors == states[12].tensors, "streamed images");
    // By micro-batches, resumed where the side changes.
    config.run.memory_budget = None;
    (config.run.batch_norm, config.run.micro_batch) = (BatchStatistics::Micro, Some(4));
    let mut split = trainer(&config, &data);
    let early = steps(&mut split, 8);
    let end = steps(&mut split, 4);
    let mut resumed = trainer(&config, &data);
    resumed.restore(Path::new("early"), &early).unwrap();
    assert!(steps(&mut resumed, 4).tensors == end.tensors, "micro-batches");
}

#[test]
fn the_device_allocates_what_the_largest_side_needs() {
    let (config, data, gpu) = (growing(), glyphs(), gpu());
    let planned = fit(&config, shape(&data), false, Room::of(&Kernels::new(gpu.clone()))).unwrap().memory;
    let mut alone = config.clone();
    (alone.method.scale, alone.method.phases) = (1.0, Vec::new());
    let full = Memory::of(&alone, shape(&data), false, true).unwrap();
    assert_eq!(planned.kept_activations, full.kept_activations);
    let mut trainer = Trainer::new(gpu.clone(), &config, data, None).unwrap();
    let _extractor = trainer.extractor().unwrap();
    steps(&mut trainer, 12);
    let Some(report) = gpu.device().generate_allocator_report() else {
        eprintln!("this backend reports no allocations");
        return;
    };
    let (planned, measured) = (planned.peak_bytes as f64, report.total_allocated_bytes as f64);
    eprintln!("planned {planned}, allocated {measured}");
    assert!((measured / planned - 1.0).abs() <= 0.1, "planned {planned}, allocated {measured}");
}

/// Pictures of squares of two by two equal pixels at half of the side are the pictures of those, to the bit; and a scale
/// of 1 is none.
#[test]
fn a_smaller_side_is_what_averaging_makes_of_the_pictures() {
    let (mut config, data) = (growing(), glyphs());
    config.method.phases.clear();
    (config.data.side, config.data.crop_padding) = (None, Some(0));
    (config.data.flip, config.data.jitter) = (false, 0.0);
    config.model.drop_block.size = ieq_wgpu::settings::DropBlockSize::Fixed(2);
    config.method.scale = 1.0;
    let own = steps(&mut trainer(&config, &data), 3);
    let mut large = (*data).clone();
    let side = data.side;
    large.side = 2 * side;
    large.pixels = (0..data.len())
        .flat_map(|i| {
            let image = data.image(i);
            (0..4 * side * side).map(move |at| image[at / (2 * side) / 2 * side + at % (2 * side) / 2])
        })
        .collect();
    config.method.scale = 0.5;
    let halved = steps(&mut trainer(&config, &Arc::new(large)), 3);
    assert!(halved.tensors == own.tensors);
}

#[test]
fn a_side_that_the_network_cannot_take_is_refused() {
    let data = shape(&glyphs());
    let refused = |change: fn(&mut Config)| {
        let mut config = growing();
        change(&mut config);
        config.validate().and_then(|()| ieq_wgpu::train::record::validate(&config, data)).unwrap_err().to_string()
    };
    let text = refused(|config| config.method.scale = 0.5);
    for needle in ["method.scale", "at least 16 pixels a side", "0.5, which is 14 pixels", "set method.scale = 0.572"] {
        assert!(text.contains(needle), "{needle}: {text}");
    }
    let text = refused(|config| config.method.phases[0] = "0.25: scale=0.3".into());
    for needle in ["method.phases", "at least 16 pixels a side", "0.3, which is 8 pixels"] {
        assert!(text.contains(needle), "{needle}: {text}");
    }
    let text = refused(|config| {
        config.model.backbone = ieq_wgpu::settings::Backbone::Conv4;
        config.method.scale = 0.75;
        config.model.widths = vec![8; 3];
    });
    assert!(text.contains("conv4 flattens it") && text.contains("set method.scale = 1"), "{text}");
    // 26 of 28 pixels have a last map of as many.
    let mut config = growing();
    config.model.backbone = ieq_wgpu::settings::Backbone::Conv4;
    (config.method.scale, config.method.phases) = (0.93, Vec::new());
    ieq_wgpu::train::record::validate(&config, data).unwrap();
}
