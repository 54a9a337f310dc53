//! Memory and time on a device: what the plan says is what is allocated, and cutting a step into submissions
//! changes no number.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a test reports what it measured")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ieq_wgpu::Error;
use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ier::negatives::bank_init;
use ieq_wgpu::ier::spec::{StepInputs, StepSpec};
use ieq_wgpu::ier::step::{Step, record};
use ieq_wgpu::nn::Drop;
use ieq_wgpu::ops::Op;
use ieq_wgpu::ops::conv2d::{Algorithm, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
use ieq_wgpu::ops::elementwise::{Add, LeakyRelu};
use ieq_wgpu::ops::pool::MaxPool;
use ieq_wgpu::ops::step_block::StepBlock;
use ieq_wgpu::progress::{Progress, StepReport};
use ieq_wgpu::random::{Rng, Stream};
use ieq_wgpu::settings::{
    Activations, BatchStatistics, ByteSize, Config, Length, MethodConfig, OnDeviceLost, Winograd,
};
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::passes::Passes;
use ieq_wgpu::tape::{Graph, Type, ValueId};
use ieq_wgpu::train::Trainer;
use ieq_wgpu::train::budget::{Room, fit};
use ieq_wgpu::train::checkpoint::Checkpoint;
use ieq_wgpu::train::memory::Memory;
use ieq_wgpu::train::record::{DataShape, spec};
use ieq_wgpu::train::run::run_reopening;

fn gpu() -> Arc<Gpu> {
    gpu_with(None)
}

/// A device whose bindings hold no more.
fn gpu_with(max_binding: Option<u64>) -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, max_binding, ..Options::default() }).unwrap()
}

/// A small run with everything that draws random numbers.
fn small() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.method = MethodConfig::default();
    config.method.transforms = "crop4".parse().unwrap();
    config.model.widths = vec![8, 12, 16, 20];
    config.model.dropout = 0.1;
    config.model.drop_block.rate = 0.1;
    config.optimiser.batch = 8;
    config.run.slice_ms = 0;
    config
}

fn glyphs(config: &Config) -> Arc<ImageSet> {
    Arc::new(load("glyphs", Split::Train, &DataOptions { side: config.data.side, ..DataOptions::default() }).unwrap())
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
    let planned = fit(&config, shape(&data), false, Room::of(&Kernels::new(gpu.clone()))).unwrap().memory;
    let mut trainer = Trainer::new(gpu.clone(), &config, data.clone(), None).unwrap();
    let _extractor = trainer.extractor().unwrap();
    trainer.submit().unwrap();
    gpu.wait().unwrap();
    let Some(report) = gpu.device().generate_allocator_report() else {
        eprintln!("this backend reports no allocations");
        return;
    };
    let (planned, measured) = (planned.peak_bytes as f64, report.total_allocated_bytes as f64);
    eprintln!("planned {planned}, allocated {measured}");
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
        let mut trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
        let state = steps(&mut trainer, 4);
        assert_eq!(trainer.submissions(), 1);
        state
    };
    config.run.slice_ms = 1;
    let mut trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    let cut = steps(&mut trainer, 4);
    assert!(trainer.submissions() > 3, "{} submissions", trainer.submissions());
    assert!(same(&whole, &cut));
    eprintln!("{} submissions, longest {:?}", trainer.submissions(), trainer.over_target());
    assert!(trainer.over_target().is_none_or(|(_, time)| time > Duration::from_millis(1)));
}

/// The graph of a step or of a micro-batch, on a device, with images from the host and nothing dropped.
struct OnDevice {
    executor: Executor,
    step: Step,
}

impl OnDevice {
    fn new(spec: &StepSpec, side: usize) -> OnDevice {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([spec.rows(), 3, side, side]));
        let block = graph.input("step", StepBlock::ty());
        let index = graph.input("index", Type::u32([spec.images()]));
        let inputs = StepInputs::declare(&mut graph, spec, x, block, index);
        let step = record(&mut graph, spec, inputs, &Drop::Off).unwrap();
        Passes::FUSE.apply(&mut graph).unwrap();
        let executor = Executor::new(&mut Kernels::new(gpu()), &mut Arenas::new(), graph).unwrap();
        for (position, entry) in step.parameters.iter().chain(&step.statistics).enumerate() {
            executor.write(entry.value, &entry.initial(3, position)).unwrap();
        }
        let width = executor.graph().shape(step.inputs.bank)[1];
        executor.write(step.inputs.bank, &bank_init(5, spec.bank_rows, width)).unwrap();
        executor.write(step.inputs.negatives, &(20..20 + spec.negatives as u32).collect::<Vec<_>>()).unwrap();
        let transforms: Vec<u32> = (0..spec.rows()).map(|row| (row / spec.images()) as u32).collect();
        executor.write(step.inputs.transforms, &transforms).unwrap();
        OnDevice { executor, step }
    }

    /// Forward and backward over the images `index`; an image's pixels depend on its number alone.
    fn run(&self, spec: &StepSpec, part: u32, index: &[u32]) {
        let (ex, inputs) = (&self.executor, &self.step.inputs);
        let size: usize = ex.graph().shape(inputs.x)[1..].iter().product();
        let mut x = Vec::new();
        for row in 0..spec.rows() {
            let mut rng = Rng::new(9, Stream::Bank, (row / spec.images()) as u32, index[row % spec.images()]);
            x.extend((0..size).map(|_| rng.unit() - 0.5));
        }
        let block = StepBlock::new(part, 1, 0.0, 0.0).part(part).words();
        ex.write(inputs.x, &x).unwrap();
        ex.write(inputs.step, &block).unwrap();
        ex.write(inputs.index, index).unwrap();
        let classes: Vec<u32> = index.iter().map(|i| i % spec.net.n_classes as u32).collect();
        ex.write(inputs.classes, &classes.repeat(spec.copies)).unwrap();
        ex.submit().unwrap();
    }

    fn read(&self, id: ValueId) -> Vec<f32> {
        self.executor.read(id).unwrap()
    }
}

#[test]
fn micro_batches_add_up_to_the_mean_of_their_gradients_and_losses() {
    let mut config = small();
    config.method.negatives = 30;
    config.run.micro_batch = Some(4);
    config.run.batch_norm = BatchStatistics::Micro;
    let data = DataShape { side: 28, classes: 5, images: 60 };
    let split = spec(&config, data, false);
    assert_eq!((split.batch, split.parts, split.images()), (8, 2, 4));
    let alone = StepSpec { batch: 4, parts: 1, ..split.clone() };
    let (sum, halves) = (OnDevice::new(&split, data.side), [(); 2].map(|()| OnDevice::new(&alone, data.side)));
    let parts = [[0, 1, 2, 3], [4, 5, 6, 7]];
    for (part, index) in parts.iter().enumerate() {
        sum.run(&split, part as u32, index);
        halves[part].run(&alone, 0, index);
    }
    let compare = |what: &str, got: Vec<f32>, first: Vec<f32>, second: Vec<f32>| {
        let mean: Vec<f32> = first.iter().zip(&second).map(|(a, b)| 0.5 * (a + b)).collect();
        assert!(first != second, "{what}: the halves are different tasks");
        let scale = mean.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for (a, b) in got.iter().zip(&mean) {
            // One rounding of each half and one of their sum.
            assert!((a - b).abs() <= 3.0 * f32::EPSILON * scale, "{what}: {a} and {b}, largest {scale}");
        }
    };
    let gradients = |on: &OnDevice| on.read(on.step.flat.gradients);
    compare("gradients", gradients(&sum), gradients(&halves[0]), gradients(&halves[1]));
    for (i, (name, total)) in sum.step.losses.iter().enumerate() {
        let [a, b] = [0, 1].map(|half| halves[half].read(halves[half].step.losses[i].1));
        compare(name, sum.read(*total), a, b);
    }
    // The bank: each half has moved its own rows from where they were.
    let width = sum.executor.graph().shape(sum.step.inputs.bank)[1];
    let bank = |on: &OnDevice| on.read(on.step.inputs.bank);
    let (both, a, b) = (bank(&sum), bank(&halves[0]), bank(&halves[1]));
    assert_eq!(both[..4 * width], a[..4 * width]);
    assert_eq!(both[4 * width..], b[4 * width..]);
    assert_ne!(a, b);
}

#[test]
fn one_micro_batch_is_the_whole_batch() {
    let mut config = small();
    let data = glyphs(&config);
    let whole = steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 2);
    config.run.micro_batch = Some(config.optimiser.batch);
    config.validate().unwrap();
    assert!(same(&whole, &steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 2)));
}

#[test]
fn a_split_batch_trains_with_less_memory_and_resumes_bit_for_bit() {
    let mut config = small();
    let data = glyphs(&config);
    let peak = |config: &Config| Memory::of(config, shape(&data), false, true).unwrap().kept_activations;
    let whole = peak(&config);
    config.run.micro_batch = Some(2);
    config.run.batch_norm = BatchStatistics::Micro;
    config.validate().unwrap();
    assert!(peak(&config) < whole / 2, "{} of {whole}", peak(&config));
    let mut trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    let half = steps(&mut trainer, 2);
    let (first, _) = trainer.read_metrics().unwrap();
    let straight = steps(&mut trainer, 2);
    let (losses, accuracy) = trainer.read_metrics().unwrap();
    assert!(losses.iter().all(|(_, loss)| loss.is_finite() && *loss > 0.0) && (0.0..=1.0).contains(&accuracy));
    assert!(losses != first && half.tensors != straight.tensors, "the weights move");
    let mut resumed = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    resumed.restore(Path::new("half"), &half).unwrap();
    assert!(same(&straight, &steps(&mut resumed, 2)));

    // A run in whole batches does not continue in parts, whatever the budget.
    config.run.micro_batch = None;
    let whole = steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 1);
    config.run.memory_budget = Some(ByteSize(Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes / 3));
    let mut tight = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    assert!(tight.fitted().config.run.micro_batch.is_some(), "{:?}", tight.fitted());
    let refusal = tight.restore(Path::new("whole"), &whole).unwrap_err().to_string();
    assert!(refusal.contains("whole: the run does a batch in 1 passes") && refusal.contains("allow it"), "{refusal}");
}

#[test]
fn a_budget_streams_the_images_and_changes_no_number() {
    let mut config = small();
    let data = glyphs(&config);
    let whole = steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 5);
    let needed = Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes;
    config.run.memory_budget = Some(ByteSize(needed));
    let mut trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    assert!(trainer.fitted().resident && trainer.fitted().choices.is_empty());
    config.run.memory_budget = Some(ByteSize(needed - 1));
    trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    assert!(!trainer.fitted().resident, "one byte less, and the images give way");
    assert!(trainer.fitted().choices[0].contains("streamed"), "{:?}", trainer.fitted().choices);
    assert!(same(&whole, &steps(&mut trainer, 5)));
    let planned = trainer.fitted().memory.peak_bytes as f64;
    if let Some(report) = trainer.gpu().device().generate_allocator_report() {
        let measured = report.total_allocated_bytes as f64;
        // The features that score the network are counted and not made here.
        assert!(measured <= 1.1 * planned && measured >= 0.8 * planned, "{measured} of {planned}");
    }
}

#[test]
fn recomputing_changes_no_bit_and_needs_less() {
    let mut config = small();
    let data = glyphs(&config);
    let kept = steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 4);
    let before = Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes;
    for (count, less) in [(2, 0.99), (9, 0.9), (16, 0.9)] {
        config.run.recompute = count;
        let memory = Memory::of(&config, shape(&data), false, true).unwrap().peak_bytes;
        assert!((memory as f64) < less * before as f64, "{count}: {memory} of {before}");
        assert!(same(&kept, &steps(&mut Trainer::new(gpu(), &config, data.clone(), None).unwrap(), 4)), "{count}");
    }
    config.run.recompute = 17;
    let refusal = Trainer::new(gpu(), &config, data.clone(), None).err().unwrap();
    assert!(
        ieq_wgpu::cli::sentence::exit_code(&refusal) == 2
            && refusal.to_string().contains("run.recompute must be 0 to 16"),
        "{refusal}"
    );
}

#[test]
fn half_precision_halves_what_is_kept_and_changes_the_numbers_little() {
    let mut config = small();
    config.model.dropout = 0.0;
    config.model.drop_block.rate = 0.0;
    let data = glyphs(&config);
    let kept = |config: &Config| Memory::of(config, shape(&data), false, true).unwrap().kept_activations as f64;
    let losses = |config: &Config| {
        let mut trainer = Trainer::new(gpu(), config, data.clone(), None).unwrap();
        // Of the first step: later ones part further, as any two roundings do.
        steps(&mut trainer, 1);
        let losses = trainer.read_metrics().unwrap().0;
        (losses, steps(&mut trainer, 3))
    };
    let (exact, whole) = (losses(&config), kept(&config));
    config.run.activations = Activations::F16;
    let (half, less) = (losses(&config), kept(&config));
    // Maps of 28, 14 and 7 pixels per side: the last stay f32, and so does what pooling makes.
    assert!((0.5..0.65).contains(&(less / whole)), "{less} of {whole}");
    assert!(!same(&exact.1, &half.1), "nothing was rounded");
    for ((name, a), (_, b)) in exact.0.iter().zip(&half.0) {
        assert!((a - b).abs() <= 0.005 * a.abs(), "{name}: {a} {b}");
    }
    // What is recomputed is rounded alike.
    config.run.recompute = 12;
    assert!(same(&half.1, &losses(&config).1));
}

/// What the device chose is the run's own: another run asks its own device, and the same goes on with it.
#[test]
fn winograd_is_chosen_by_the_device_and_kept_with_the_run() {
    let config = Config::from_preset("cifar-fs").unwrap();
    let data = DataShape { side: 32, classes: 64, images: 38_400 };
    let on = |config: &Config, software| {
        let room = Room { software, ..Room::LARGE };
        fit(config, data, false, room).unwrap().config
    };
    let (slow, fast) = (on(&config, true), on(&config, false));
    assert_eq!((slow.run.winograd, fast.run.winograd), (Winograd::On, Winograd::Off));
    assert!(slow.run.chosen == ["winograd"] && fast.run.chosen == ["winograd"]);
    assert_eq!(slow.as_given().unwrap(), config);
    // Resumed on another device, with the preset on the line or without.
    assert_eq!(on(&slow, false).run.winograd, Winograd::On);
    let mut again = config.clone();
    again.keep_choices(&slow);
    assert_eq!(again, slow);
    // What was given is nobody's to choose.
    let mut given = config;
    given.run.winograd = Winograd::Off;
    assert!(on(&given, true) == given);
}

/// The same step by Winograd and without: other roundings, the same numbers.
#[test]
fn a_step_by_winograd_agrees_with_one_without() {
    let mut config = Config::from_preset("demo").unwrap();
    config.optimiser.batch = 4;
    config.model.widths = vec![8, 16, 64, 64];
    let data = glyphs(&config);
    let gpu = gpu();
    let mut gradients = |winograd| {
        config.run.winograd = winograd;
        let mut trainer = Trainer::new(gpu.clone(), &config, data.clone(), None).unwrap();
        let by_winograd = |op: &Op| {
            op.downcast_ref().is_some_and(|op: &Conv2d| op.algorithm == Algorithm::Winograd)
                || op.downcast_ref().is_some_and(|op: &Conv2dBackwardInput| op.algorithm == Algorithm::Winograd)
                || op.downcast_ref().is_some_and(|op: &Conv2dBackwardWeight| op.algorithm == Algorithm::Winograd)
        };
        let count = trainer.executor().graph().nodes().iter().filter(|node| by_winograd(&node.op)).count();
        trainer.submit().unwrap();
        (count, trainer.executor().read_arena("gradients").unwrap())
    };
    let ((none, direct), (some, fast)) = (gradients(Winograd::Off), gradients(Winograd::On));
    assert!(none == 0 && some >= 9, "{some} convolutions and gradients");
    let scale = direct.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let worst = direct.iter().zip(&fast).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(direct.len() == fast.len() && worst <= 1e-5 * scale && worst > 0.0, "off by {worst} of {scale}");
}

#[test]
fn a_budget_chooses_the_mildest_that_fits_and_refuses_with_numbers() {
    let mut config = Config::from_preset("cifar-fs").unwrap();
    config.run.winograd = Winograd::Off;
    let data = DataShape { side: 32, classes: 64, images: 38_400 };
    let fit = |config: &Config| fit(config, data, false, Room::LARGE);
    let all = fit(&config).unwrap().memory;
    let set = |config: &mut Config, bytes: u64| config.run.memory_budget = Some(ByteSize(bytes));

    set(&mut config, all.peak_bytes);
    assert_eq!(fit(&config).unwrap().choices, Vec::<String>::new());
    // The images alone: no number changes.
    set(&mut config, all.peak_bytes - 100_000_000);
    let streamed = fit(&config).unwrap();
    assert!(!streamed.resident && streamed.config == config && streamed.choices.len() == 1, "{streamed:?}");
    // More: convolutions are computed again, as few as suffice, and the images come back if they can.
    set(&mut config, all.peak_bytes * 9 / 10);
    let again = fit(&config).unwrap();
    assert!(again.config.run.recompute > 0 && again.memory.peak_bytes <= all.peak_bytes * 9 / 10, "{again:?}");
    let mut fewer = again.config.clone();
    fewer.run.memory_budget = None;
    fewer.run.recompute -= 1;
    let streamed = Memory::of(&fewer, data, false, false).unwrap();
    assert!(streamed.peak_bytes > all.peak_bytes * 9 / 10, "one less suffices");
    assert!(again.choices.iter().any(|choice| choice.contains("the numbers stay the same")), "{:?}", again.choices);
    // More: half precision, the first that changes numbers.
    set(&mut config, all.peak_bytes / 2);
    let half = fit(&config).unwrap();
    assert_eq!(half.config.run.activations, Activations::F16);
    assert!(
        half.memory.peak_bytes <= all.peak_bytes / 2
            && half.choices.iter().any(|c| c.contains("run.activations = f16"))
    );
    // A run that goes on keeps it, and takes back what changes no number.
    let mut roomy = half.config.clone();
    set(&mut roomy, all.peak_bytes);
    assert_eq!(fit(&roomy).unwrap().config.run.chosen, ["activations"]);
    // As little as it takes, in half precision with as much recomputed as pays: no less would do.
    let mut least = config.clone();
    least.run.activations = Activations::F16;
    let every = (0..=16).map(|count| {
        (least.run.recompute, least.run.memory_budget) = (count, None);
        Memory::of(&least, data, false, false).unwrap().peak_bytes
    });
    let least = every.min().unwrap();
    set(&mut config, least);
    assert_eq!(fit(&config).unwrap().memory.peak_bytes, least);
    // More: not with exact statistics, and the refusal names what would fit.
    set(&mut config, all.peak_bytes * 2 / 5);
    let refusal = fit(&config).unwrap_err();
    assert_eq!(ieq_wgpu::cli::sentence::exit_code(&refusal), 2);
    for part in
        ["run.memory_budget", "a step needs", "MiB", "run.batch_norm = micro with run.micro_batch = 32 would fit"]
    {
        assert!(refusal.to_string().contains(part), "{part}: {refusal}");
    }
    // With those of micro-batches the largest that fit; what is not needed then is taken back.
    config.run.batch_norm = BatchStatistics::Micro;
    let split = fit(&config).unwrap();
    assert!(split.config.run.micro_batch == Some(32), "{:?}", split.choices);
    assert_eq!(split.config.run.activations, Activations::F32);
    assert!(split.memory.peak_bytes <= all.peak_bytes * 2 / 5);
    assert!(split.choices.iter().any(|choice| choice.contains("run.micro_batch = 32")), "{:?}", split.choices);
    // What was chosen is said beside what was given: fitting it again changes nothing.
    assert_eq!(split.config.run.chosen, ["micro_batch", "recompute"]);
    assert_eq!(fit(&split.config).unwrap().config, split.config);
    // With more room a new run has larger micro-batches, and one that goes on those that it had.
    let mut roomy = split.config.clone();
    set(&mut roomy, all.peak_bytes);
    assert_eq!(fit(&roomy.as_given().unwrap()).unwrap().config.run.micro_batch, None);
    let resumed = fit(&roomy).unwrap().config.run;
    assert_eq!((resumed.micro_batch, resumed.recompute), (Some(32), 0));
    assert_eq!(resumed.chosen, ["micro_batch"]);
    // With less room it is refused, for smaller ones would change its numbers; a new run has those.
    set(&mut roomy, all.peak_bytes / 5);
    let refusal = fit(&roomy).unwrap_err().to_string();
    assert!(refusal.contains("goes on with the micro-batches of 32"), "{refusal}");
    let smaller = fit(&roomy.as_given().unwrap()).unwrap().config.run.micro_batch;
    assert!(smaller.is_some_and(|images| images < 32), "{smaller:?}");
    // Where the user gave micro-batches that are too large, smaller ones are the way out before smaller batches.
    roomy.run.chosen.clear();
    let refusal = fit(&roomy).unwrap_err().to_string();
    assert!(refusal.contains(&format!(": run.micro_batch = {} would fit", smaller.unwrap())), "{refusal}");
    set(&mut config, 1 << 20);
    let refusal = fit(&config).unwrap_err().to_string();
    assert!(refusal.contains("weights") && refusal.contains("model.widths"), "{refusal}");
}

/// Takes the device away after some reports, once for each number in `at`.
struct Vandal {
    gpu: Arc<Mutex<Arc<Gpu>>>,
    at: Vec<u32>,
    said: Vec<String>,
}

impl Progress for Vandal {
    fn step(&mut self, report: &StepReport) {
        if self.at.first() == Some(&report.step) {
            self.at.remove(0);
            self.gpu.lock().unwrap().device().destroy();
        }
    }
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, sentence: &str) {
        self.said.push(sentence.into());
    }
    fn warn(&mut self, sentence: &str) {
        self.said.push(sentence.into());
    }
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Trains ten steps with a checkpoint every fourth, losing the device after the steps `at`.
fn train_losing(config: &Config, at: &[u32]) -> (ieq_wgpu::Result<()>, Vec<String>, Option<Checkpoint>) {
    let folder = tempfile::tempdir().unwrap();
    let data = glyphs(config);
    let current = Arc::new(Mutex::new(gpu()));
    let mut vandal = Vandal { gpu: current.clone(), at: at.to_vec(), said: Vec::new() };
    let mut trainer = Trainer::new(current.lock().unwrap().clone(), config, data.clone(), None).unwrap();
    let reopen = |_: &mut dyn Progress| {
        let fresh = gpu();
        *current.lock().unwrap() = fresh.clone();
        Ok(Kernels::new(fresh))
    };
    let result = run_reopening(&mut trainer, &reopen, folder.path(), "ieq-wgpu train --resume here", &mut vandal);
    let file = folder.path().join("checkpoint.safetensors");
    (result.map(drop), vandal.said, file.exists().then(|| Checkpoint::load(&file).unwrap()))
}

#[test]
fn a_lost_device_leaves_the_checkpoint_and_says_how_to_go_on() {
    let mut config = small();
    config.optimiser.length = Length::Steps(10);
    (config.run.checkpoint_every, config.run.log_every) = (4, 1);
    let (whole, _, straight) = train_losing(&config, &[]);
    whole.unwrap();
    let straight = straight.unwrap();

    let (result, _, left) = train_losing(&config, &[6]);
    let error = result.unwrap_err();
    assert!(matches!(error, Error::DeviceLost(_)) && ieq_wgpu::cli::sentence::exit_code(&error) == 3, "{error:?}");
    for part in ["the device was lost", "MiB in its buffers", "of 10 was under way", "holds step 4 whole"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert!(error.to_string().contains("`ieq-wgpu train --resume here` continues"), "{error}");
    assert_eq!(left.unwrap().metadata["step"], "4");

    let (result, _, left) = train_losing(&config, &[2]);
    assert!(result.unwrap_err().to_string().contains("no checkpoint had been saved"));
    assert!(left.is_none());

    // Once before the first checkpoint and once after it; the run ends with the bits of one that lost nothing.
    config.run.on_device_lost = OnDeviceLost::Resume;
    let (result, said, resumed) = train_losing(&config, &[2, 6]);
    result.unwrap();
    assert!(same(&straight, &resumed.unwrap()), "{said:?}");
    for part in ["opening the device again (1 of 3)", "continuing at step 0", "(2 of 3)", "continuing at step 4"] {
        assert!(said.iter().any(|sentence| sentence.contains(part)), "{part}: {said:?}");
    }

    let (result, _, left) = train_losing(&config, &[6, 6, 6, 6]);
    assert!(matches!(result.unwrap_err(), Error::DeviceLost(_)), "a device that is lost again and again is let go");
    assert_eq!(left.unwrap().metadata["step"], "4");
}

/// Convolutions and what stands between them on a device whose bindings are smaller than the tensors: the same bits
/// as with large ones.
#[test]
fn tensors_larger_than_a_binding_are_computed_in_slices() {
    const ROWS: usize = 37;
    let run = |max_binding: Option<u64>| -> (usize, Vec<Vec<f32>>) {
        let small = gpu_with(max_binding);
        let mut graph = Graph::new();
        let x = graph.in_arena("x", "x", Type::f32([ROWS, 3, 12, 12]), true);
        let w = graph.in_arena("w", "w", Type::f32([8, 3, 3, 3]), false);
        let v = graph.in_arena("v", "v", Type::f32([16, 8, 1, 1]), false);
        let dy = graph.in_arena("dy", "dy", Type::f32([ROWS, 16, 6, 6]), false);
        let a = graph.one(Conv2d::new(1, 1), &[x, w]).unwrap();
        let b = graph.one(LeakyRelu { slope: 0.1 }, &[a]).unwrap();
        let c = graph.one(Conv2d::new(1, 0), &[b, v]).unwrap();
        let d = graph.one(Add { alpha: 0.5, beta: 0.25 }, &[c, c]).unwrap();
        let y = graph.one(MaxPool::new(1.0), &[d]).unwrap();
        let dx = backward_from(&mut graph, &[(y, dy)]).unwrap()[&x];
        let seen = [a, c, y, dx];
        seen.iter().for_each(|&id| graph.keep(id));
        Passes::FUSE.apply(&mut graph).unwrap();
        let executor = Executor::new(&mut Kernels::new(small), &mut Arenas::new(), graph).unwrap();
        for (i, id) in [x, w, v, dy].into_iter().enumerate() {
            let mut rng = Rng::new(4, Stream::Bank, 0, i as u32);
            let n = executor.graph().value(id).ty.len();
            executor.write(id, &(0..n).map(|_| rng.unit() - 0.5).collect::<Vec<f32>>()).unwrap();
        }
        executor.submit().unwrap();
        (executor.dispatches(), seen.map(|id| executor.read(id).unwrap()).to_vec())
    };
    let (few, whole) = run(None);
    // The largest tensor has 340,992 bytes; the convolutions' weights fit.
    let (many, cut) = run(Some(64 << 10));
    assert!(many > 2 * few, "{many} dispatches, {few} without a limit");
    assert!(whole == cut && whole.iter().all(|t| t.iter().any(|v| *v != 0.0)));
}

/// A whole training step on a device whose bindings are smaller than the first block's tensors: sums over the batch, of
/// batch norm and of weight gradients, are made in parts. The same bits.
#[test]
fn a_step_trains_in_bindings_smaller_than_its_tensors() {
    let mut config = small();
    config.optimiser.batch = 16;
    let data = glyphs(&config);
    for activations in [Activations::F32, Activations::F16] {
        config.run.activations = activations;
        let whole = steps(&mut Trainer::new(gpu_with(None), &config, data.clone(), None).unwrap(), 3);
        // The first block has maps of 64 x 8 x 28 x 28, and gradients of that size.
        let map = 4 * 64 * 8 * 28 * 28;
        let mut small = Trainer::new(gpu_with(Some(map * 3 / 5)), &config, data.clone(), None).unwrap();
        assert!(same(&whole, &steps(&mut small, 3)), "{activations}");
    }
}
