//! Ranks that share out the micro-batches of each batch end in the bits of a process that computes them all, whatever their
//! number, also where the number changes on the way; a failure of one reaches all. Here they are threads; `tests/mpi.rs`
//! has processes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "a test reports what it saw")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::jobs::Session;
use ieq_wgpu::jobs::ranks::follow;
use ieq_wgpu::jobs::train::{self, Begin, TrainRequest};
use ieq_wgpu::progress::{Progress, StepReport};
use ieq_wgpu::ranks::{Ranks, local};
use ieq_wgpu::settings::{
    Activations, Backbone, BatchStatistics, ByteSize, Config, Length, Method, MethodConfig, OnDeviceLost, Winograd,
};
use ieq_wgpu::tape::recompute::candidates;
use ieq_wgpu::train::checkpoint::{Checkpoint, Tensor, TensorData};
use ieq_wgpu::train::memory::Memory;
use ieq_wgpu::train::record::{DataShape, training_step};
use ieq_wgpu::train::run::{follow_reopening, run_reopening};
use ieq_wgpu::train::{Observer, Trainer};
use ieq_wgpu::{Error, Result};

fn options() -> Options {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Options { choice, ..Options::default() }
}

fn gpu() -> Arc<Gpu> {
    Gpu::open(&options()).unwrap()
}

fn glyphs() -> Arc<ImageSet> {
    Arc::new(load("glyphs", Split::Train, &DataOptions { side: Some(28), ..DataOptions::default() }).unwrap())
}

/// Five steps of four micro-batches of two images each.
fn tiny(method: Method) -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    (config.model.backbone, config.model.widths) = (Backbone::Conv4, vec![4; 4]);
    config.model.projection = 8;
    config.method = MethodConfig::default();
    (config.method.kind, config.method.negatives) = (method, 32);
    config.method.transforms = "rot4".parse().unwrap();
    (config.optimiser.batch, config.optimiser.length) = (8, Length::Steps(5));
    (config.run.micro_batch, config.run.batch_norm) = (Some(2), BatchStatistics::Micro);
    (config.run.slice_ms, config.run.log_every, config.run.checkpoint_every) = (0, 1, 2);
    config.validate().unwrap();
    config
}

/// Everything that has state of its own, and a step of its own in the second half: recent rows of the bank, drawn views,
/// dropout and DropBlock, clipped gradients, averages of the weights, layers that are trained or not.
fn everything() -> Config {
    let mut config = tiny(Method::Ier);
    (config.model.backbone, config.model.widths) = (Backbone::Resnet12, vec![4, 4, 6, 6]);
    (config.model.dropout, config.model.drop_block.rate) = (0.1, 0.1);
    (config.method.joint_labels, config.method.bank_recent) = (true, Some(30));
    config.method.phases = vec!["0.5: views=2, invariance=false".into()];
    config.optimiser.clip_norm = Some(0.5);
    (config.optimiser.average, config.optimiser.decay_norm, config.optimiser.nesterov) = (0.9, false, true);
    config
}

/// What rank 0 is told.
#[derive(Default)]
struct Told {
    reports: Vec<StepReport>,
    checkpoints: Vec<(u32, Vec<u8>)>,
    /// The step after whose report the run is asked to stop; it does the next one.
    stop: Option<u32>,
    /// The step after which saving fails.
    full: Option<u32>,
}

impl Observer for Told {
    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        self.reports.push(report.clone());
        Ok(())
    }
    fn on_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let step = self.reports.last().unwrap().step;
        if self.full.is_some_and(|full| step >= full) {
            return Err(Error::usage("the disk is full"));
        }
        self.checkpoints.push((step, checkpoint.to_bytes()?));
        Ok(())
    }
    fn stop_requested(&self) -> bool {
        self.stop.is_some() && self.stop <= self.reports.last().map(|report| report.step)
    }
}

impl Told {
    /// The reports as text, with every bit.
    fn lines(&self) -> Vec<String> {
        self.reports.iter().map(|report| format!("{report:?}")).collect()
    }
}

/// Trains with these ranks from `begin`; what rank 0 was told, and how it ended on each rank.
fn train(
    config: &Config,
    data: &Arc<ImageSet>,
    ranks: Vec<Ranks>,
    begin: Option<&[u8]>,
    told: Told,
) -> (Told, Vec<Result<bool>>) {
    let run = |ranks: Ranks, told: Option<Told>| {
        let mut trainer = Trainer::among(gpu(), config, data.clone(), None, Some(ranks)).unwrap();
        if let (Some(bytes), true) = (begin, told.is_some()) {
            trainer.restore(Path::new("begin"), &Checkpoint::from_bytes("begin", bytes).unwrap()).unwrap();
        }
        trainer.share().unwrap();
        let mut told = told.unwrap_or_default();
        let result = trainer.train(&mut told);
        (told, result)
    };
    std::thread::scope(|scope| {
        let mut told = Some(told);
        let all: Vec<_> = ranks.into_iter().map(|ranks| (ranks, told.take())).collect();
        let threads: Vec<_> = all.into_iter().map(|(ranks, told)| scope.spawn(|| run(ranks, told))).collect();
        let mut ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let told = std::mem::take(&mut ends[0].0);
        assert!(ends.iter().skip(1).all(|(told, _)| told.reports.is_empty()), "another rank was told something");
        (told, ends.into_iter().map(|(_, end)| end).collect())
    })
}

/// The same by one process.
fn alone(config: &Config, data: &Arc<ImageSet>) -> Told {
    let mut told = Told::default();
    assert!(Trainer::new(gpu(), config, data.clone(), None).unwrap().train(&mut told).unwrap());
    told
}

fn assert_same(got: &Told, wanted: &Told, what: &str) {
    assert_eq!(got.lines(), wanted.lines(), "{what}: the reports differ");
    let steps = |told: &Told| told.checkpoints.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    assert_eq!(steps(got), steps(wanted), "{what}");
    let same = got.checkpoints.iter().zip(&wanted.checkpoints).all(|(got, wanted)| got == wanted);
    assert!(same, "{what}: the checkpoints differ");
}

/// Ends in the same bits alone and at 1, 2 and 4 ranks, also where step 2 is gone on from by another number of ranks.
fn assert_same_at_any_number(what: &str, config: &Config) {
    let data = glyphs();
    let whole = alone(config, &data);
    assert_eq!(whole.checkpoints.len(), 3);
    for size in [1, 2, 4] {
        let (told, ends) = train(config, &data, local::threads(size), None, Told::default());
        assert!(ends.iter().all(|end| matches!(end, Ok(true))), "{what}, {size} ranks: {ends:?}");
        assert_same(&told, &whole, &format!("{what}, {size} ranks"));
    }
    let begin = &whole.checkpoints[0].1;
    for size in [1, 4] {
        let (told, _) = train(config, &data, local::threads(size), Some(begin), Told::default());
        assert_eq!(told.lines(), whole.lines()[2..], "{what}, resumed by {size} ranks");
        assert!(told.checkpoints.last() == whole.checkpoints.last(), "{what}, resumed by {size} ranks");
    }
}

#[test]
fn any_number_of_ranks_ends_in_the_same_bits() {
    for (what, config) in
        [("cross-entropy", tiny(Method::Baseline)), ("the method", tiny(Method::Ier)), ("everything", everything())]
    {
        assert_same_at_any_number(what, &config);
    }
}

/// As [`everything`], with batch norm by the whole batch.
fn exact() -> Config {
    let mut config = everything();
    config.run.batch_norm = BatchStatistics::Exact;
    config.run.slice_ms = 1;
    config.validate().unwrap();
    config
}

#[test]
fn batch_norm_by_the_whole_batch_has_the_same_bits_at_any_number_of_ranks() {
    let mut plain = tiny(Method::Ier);
    plain.run.batch_norm = BatchStatistics::Exact;
    for (what, config) in [("the method", plain), ("everything", exact())] {
        assert_same_at_any_number(what, &config);
    }
}

/// A batch in four parts with batch norm by all of it makes the step of the batch in one piece: gradients, running statistics
/// and losses are alike within rounding, which those of micro-batches with their own statistics are not.
#[test]
fn batch_norm_by_the_whole_batch_is_that_of_the_batch_in_one_piece() {
    let data = glyphs();
    for (what, mut config) in [("cross-entropy", tiny(Method::Baseline)), ("the method", tiny(Method::Ier))] {
        (config.model.backbone, config.model.widths) = (Backbone::Resnet12, vec![4, 4, 6, 6]);
        (config.model.dropout, config.model.drop_block.rate) = (0.0, 0.0);
        config.optimiser.length = Length::Steps(2);
        let mut end = |micro_batch: Option<usize>, batch_norm: BatchStatistics| {
            (config.run.micro_batch, config.run.batch_norm) = (micro_batch, batch_norm);
            let told = alone(&config, &data);
            let tensors = Checkpoint::from_bytes("end", &told.checkpoints[0].1).unwrap().tensors;
            (told.reports[1].terms.clone(), tensors)
        };
        let (losses, whole) = end(None, BatchStatistics::Exact);
        let numbers = |tensor: &Tensor| match &tensor.data {
            TensorData::F32(values) => values.clone(),
            TensorData::I64(_) => Vec::new(),
        };
        let far = |other: &BTreeMap<String, Tensor>| {
            let mut most = 0.0_f32;
            for (name, tensor) in &whole {
                let (a, b) = (numbers(tensor), numbers(&other[name]));
                let scale = a.iter().fold(1e-3_f32, |most, value| most.max(value.abs()));
                most = a.iter().zip(&b).fold(most, |most, (a, b)| most.max((a - b).abs() / scale));
            }
            most
        };
        let (parts, in_parts) = end(Some(2), BatchStatistics::Exact);
        let (_, micro) = end(Some(2), BatchStatistics::Micro);
        let (exact, other) = (far(&in_parts), far(&micro));
        eprintln!("{what}: {exact} in parts, {other} by micro-batches; losses {losses:?} and {parts:?}");
        assert!(exact < 1e-3 && other > 1e-2, "{what}: {exact} in parts, {other} by micro-batches");
        for ((name, a), (_, b)) in losses.iter().zip(&parts) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{what}: {name} {a} and {b}");
        }
    }
}

/// Beside frozen blocks, half precision, Winograd and convolutions that are computed again; as many of these can be as in one
/// piece, and a run of the other kind does not go on.
#[test]
fn batch_norm_by_the_whole_batch_goes_with_the_other_settings() {
    let (mut config, data) = (exact(), glyphs());
    config.optimiser.freeze = 1;
    config.run.activations = Activations::F16;
    config.run.winograd = Winograd::On;
    config.run.recompute = 9;
    config.validate().unwrap();
    let whole = alone(&config, &data);
    for size in [2, 4] {
        let (told, ends) = train(&config, &data, local::threads(size), None, Told::default());
        assert!(ends.iter().all(|end| matches!(end, Ok(true))), "{size} ranks: {ends:?}");
        assert_same(&told, &whole, &format!("{size} ranks"));
    }
    // As many convolutions can be computed again as in one piece.
    let shape = DataShape { side: data.side, classes: data.n_classes(), images: data.len() };
    let candidates = |micro_batch: Option<usize>| {
        let mut config = exact();
        config.run.micro_batch = micro_batch;
        candidates(&training_step(&config, shape, false, true).unwrap().0).len()
    };
    assert_eq!(candidates(Some(2)), candidates(None));
    // A run of the one kind does not go on as one of the other.
    let begin = Checkpoint::from_bytes("begin", &whole.checkpoints[0].1).unwrap();
    let mut other = config.clone();
    other.run.batch_norm = BatchStatistics::Micro;
    let mut trainer = Trainer::new(gpu(), &other, data, None).unwrap();
    let refusal = trainer.restore(Path::new("begin"), &begin).unwrap_err().to_string();
    assert!(refusal.contains("the run has run.batch_norm = exact"), "{refusal}");
}

/// What the plan says is on a device is what is: all micro-batches of a rank at once.
#[test]
fn micro_batches_that_are_computed_at_once_count_in_the_memory() {
    let (mut config, data) = (exact(), glyphs());
    config.model.widths = vec![16, 24, 32, 32];
    let shape = DataShape { side: data.side, classes: data.n_classes(), images: data.len() };
    let memory = |ranks: usize| Memory::among(&config, shape, false, true, ranks).unwrap();
    let trainer = Trainer::new(gpu(), &config, data.clone(), None).unwrap();
    assert_eq!(trainer.fitted().memory, memory(1));
    assert!(
        trainer.fitted().choices.iter().any(|choice| choice.contains("4 micro-batches are on the device at once")),
        "no sentence"
    );
    if let Some(report) = trainer.gpu().device().generate_allocator_report() {
        let (measured, planned) = (report.total_allocated_bytes as f64, memory(1).peak_bytes as f64);
        // The features that score the network are counted and not made here.
        assert!(measured <= 1.1 * planned && measured >= 0.8 * planned, "{measured} of {planned}");
    }
    assert_eq!(memory(4).kept_activations * 4, memory(1).kept_activations);
    let ranks = local::threads(4).remove(0);
    let one = Trainer::among(gpu(), &config, data.clone(), None, Some(ranks)).unwrap();
    assert_eq!(one.fitted().memory, memory(4));
    assert!(one.fitted().choices.is_empty(), "{:?}", one.fitted().choices);
}

#[test]
fn streamed_images_and_recomputed_convolutions_change_no_bit() {
    for mut config in [everything(), exact()] {
        let data = glyphs();
        let whole = alone(&config, &data);
        let shape = DataShape { side: data.side, classes: data.n_classes(), images: data.len() };
        config.run.memory_budget = Some(ByteSize(Memory::of(&config, shape, false, false).unwrap().peak_bytes - 1));
        // Less than what streaming alone comes to.
        let ranks = local::threads(1).remove(0);
        let fitted = Trainer::among(gpu(), &config, data.clone(), None, Some(ranks)).unwrap().fitted().clone();
        assert!(!fitted.resident && fitted.config.run.recompute > 0, "{:?}", fitted.choices);
        let (told, _) = train(&config, &data, local::threads(2), None, Told::default());
        assert_eq!(told.lines(), whole.lines());
        let tensors = |told: &Told| Checkpoint::from_bytes("end", &told.checkpoints.last().unwrap().1).unwrap().tensors;
        assert!(tensors(&told) == tensors(&whole));
    }
}

#[test]
fn all_ranks_stop_at_the_step_at_which_rank_0_is_asked_to() {
    let (config, data) = (tiny(Method::Ier), glyphs());
    let whole = alone(&config, &data);
    let (told, ends) = train(&config, &data, local::threads(2), None, Told { stop: Some(2), ..Told::default() });
    assert!(ends.iter().all(|end| matches!(end, Ok(false))), "{ends:?}");
    assert_eq!(told.lines(), whole.lines()[..3]);
    let (step, begin) = told.checkpoints.last().unwrap();
    assert_eq!(*step, 3);
    let (told, _) = train(&config, &data, local::threads(4), Some(begin), Told::default());
    assert_eq!(told.lines(), whole.lines()[3..]);
    assert!(told.checkpoints.last() == whole.checkpoints.last());
}

#[test]
fn a_failure_of_rank_0_ends_all_ranks() {
    let (config, data) = (tiny(Method::Baseline), glyphs());
    let (told, ends) = train(&config, &data, local::threads(4), None, Told { full: Some(4), ..Told::default() });
    assert!(matches!(&ends[0], Err(Error::Usage(words)) if words == "the disk is full"), "{ends:?}");
    for end in &ends[1..] {
        assert!(matches!(end, Err(Error::Usage(words)) if words == "the disk is full"), "{end:?}");
    }
    // What was saved before is whole.
    let (step, begin) = told.checkpoints.last().unwrap();
    assert_eq!(*step, 2);
    assert!(*begin == alone(&config, &data).checkpoints[0].1);
}

/// Whatever fails on one rank, all end as it does.
#[test]
fn a_failure_keeps_its_kind_on_all_ranks() {
    let kinds: [fn() -> Error; 6] = [
        || Error::usage("no such file"),
        || Error::NonFinite("a loss".into()),
        || Error::Device("refused".into()),
        || Error::Internal("a defect".into()),
        || Error::Interrupted("stopped".into()),
        || Error::DeviceLost("unplugged".into()),
    ];
    for (failing, make) in kinds.into_iter().enumerate().map(|(i, make)| (i % 2, make)) {
        let end = |ranks: Ranks| match ranks.rank() == failing {
            true => ranks.fail(make()),
            false => ranks.all_gather(&[]).unwrap_err(),
        };
        let ends: Vec<Error> = std::thread::scope(|scope| {
            let threads: Vec<_> = local::threads(2).into_iter().map(|ranks| scope.spawn(|| end(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (rank, error) in ends.iter().enumerate() {
            assert_eq!(std::mem::discriminant(error), std::mem::discriminant(&make()), "{error:?}");
            let named = rank != failing && failing != 0;
            let internal = if matches!(error, Error::Internal(_)) { "internal error: " } else { "" };
            let words = make().to_string();
            let words = words.strip_prefix(internal).unwrap();
            let from = if named { "rank 1: " } else { "" };
            assert_eq!(error.to_string(), format!("{internal}{from}{words}"));
        }
    }
}

/// Asks to stop once so many steps are done.
struct Stops {
    after: Option<u32>,
}

impl Progress for Stops {
    fn step(&mut self, report: &StepReport) {
        if self.after == Some(report.step) {
            self.after = Some(0);
        }
    }
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, _: &str) {}
    fn warn(&mut self, _: &str) {}
    fn stop_requested(&self) -> bool {
        self.after == Some(0)
    }
}

/// Rank 0's job fails before its first step, or after the last one: the others follow it to the end.
#[test]
fn a_job_that_fails_anywhere_leaves_no_rank_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let request = |out: &str, change: &dyn Fn(&mut TrainRequest)| {
        let config = tiny(Method::Baseline);
        let (out, resume_command) = (folder.path().join(out), String::new());
        let mut request =
            TrainRequest { config, given: None, out, begin: Begin::New, score: true, min_acc: None, resume_command };
        change(&mut request);
        request
    };
    let cases = [
        ("no data", request("a", &|request| request.config.data.source = "absent".into()), false),
        ("a wrong request", request("b", &|request| request.min_acc = Some(101.0)), false),
        ("an uneven split", request("c", &|request| request.config.run.micro_batch = Some(8)), false),
        ("stopped while it is scored", request("d", &|_| {}), true),
    ];
    for (what, request, stops) in cases {
        let ends: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = local::threads(2)
                .into_iter()
                .map(|ranks| {
                    let request = &request;
                    scope.spawn(move || {
                        let session = Session { gpu: options(), ranks: Some(ranks.clone()), ..Session::default() };
                        match ranks.leads() {
                            true => train::run(request, &session, &mut Stops { after: stops.then_some(5) }).map(drop),
                            false => follow(&session),
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sentences: Vec<String> =
            ends.iter().map(|end: &Result<()>| end.as_ref().unwrap_err().to_string()).collect();
        assert_eq!(sentences[0], sentences[1], "{what}");
    }
}

/// One rank's device goes away in the middle of the run: all ranks learn of it at the same step, and go on together from
/// what rank 0 has saved.
#[test]
fn a_lost_device_is_one_for_all_ranks() {
    lose_a_device(&everything());
    lose_a_device(&exact());
}

fn lose_a_device(config: &Config) {
    let data = glyphs();
    let whole = alone(config, &data);
    let run = |ranks: Ranks| {
        let mut trainer = Trainer::among(gpu(), config, data.clone(), None, Some(ranks.clone())).unwrap();
        trainer.share().unwrap();
        let (gone, mut told) = (trainer.gpu().clone(), Told::default());
        let error = match ranks.rank() {
            1 => {
                for _ in 0..3 {
                    trainer.submit().unwrap();
                    ranks.broadcast(&[]).unwrap();
                }
                gone.device().destroy();
                trainer.train(&mut told).unwrap_err()
            }
            _ => trainer.train(&mut told).unwrap_err(),
        };
        ranks.recover();
        let mut again = trainer.on_device(gpu()).unwrap();
        if let Some((_, bytes)) = told.checkpoints.last() {
            again.restore(Path::new("saved"), &Checkpoint::from_bytes("saved", bytes).unwrap()).unwrap();
        }
        again.share().unwrap();
        let from = again.steps_done();
        assert!(again.train(&mut told).unwrap());
        (error, from, told)
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = local::threads(2).into_iter().map(|ranks| scope.spawn(|| run(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (rank, (error, from, _)) in ends.iter().enumerate() {
        let named = error.to_string().starts_with("rank 1: ");
        assert!(matches!(error, Error::DeviceLost(_)) && named == (rank == 0), "{error:?}");
        assert_eq!(*from, 2);
    }
    let told = &ends[0].2;
    assert_eq!(told.lines()[told.lines().len() - 3..], whole.lines()[2..]);
    assert!(told.checkpoints.last() == whole.checkpoints.last());
}

/// Takes a device away after a step.
struct Vandal {
    gpu: Arc<Gpu>,
    after: u32,
    said: Vec<String>,
}

impl Progress for Vandal {
    fn step(&mut self, report: &StepReport) {
        if report.step == self.after {
            self.gpu.device().destroy();
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

/// `run.on_device_lost = resume` opens the devices of all ranks again, whichever lost its own, before the first checkpoint
/// and after one; without it the run ends with the loss on all.
#[test]
fn ranks_open_lost_devices_again() {
    let (mut config, data) = (everything(), glyphs());
    let whole = alone(&config, &data);
    let end = &whole.checkpoints.last().unwrap().1;
    let lose = |config: &Config, loser: usize, after: u32| {
        let folder = tempfile::tempdir().unwrap();
        let devices = [gpu(), gpu()];
        let said = std::thread::scope(|scope| {
            let mut threads: Vec<_> = Vec::new();
            for ranks in local::threads(2) {
                let (devices, data, folder) = (&devices, data.clone(), folder.path());
                threads.push(scope.spawn(move || {
                    let own = devices[ranks.rank()].clone();
                    let leads = ranks.leads();
                    let mut trainer = Trainer::among(own, config, data, None, Some(ranks)).unwrap();
                    trainer.share().unwrap();
                    if !leads {
                        return (follow_reopening(&mut trainer, &|| Ok(Kernels::new(gpu()))), Vec::new());
                    }
                    let mut vandal = Vandal { gpu: devices[loser].clone(), after, said: Vec::new() };
                    let reopen = |_: &mut dyn Progress| Ok(Kernels::new(gpu()));
                    let result = run_reopening(&mut trainer, &reopen, folder, "resume", &mut vandal);
                    (result.map(drop), vandal.said)
                }));
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let file = folder.path().join("checkpoint.safetensors");
        (said, file.exists().then(|| Checkpoint::load(&file).unwrap()))
    };
    let (ends, left) = lose(&config, 1, 3);
    assert!(ends.iter().all(|(end, _)| matches!(end, Err(Error::DeviceLost(_)))), "{ends:?}");
    assert_eq!(left.unwrap().metadata["step"], "2");
    config.run.on_device_lost = OnDeviceLost::Resume;
    for (loser, after, from) in [(0, 1, 0), (1, 1, 0), (0, 3, 2), (1, 3, 2)] {
        let (ends, left) = lose(&config, loser, after);
        let what = format!("rank {loser} after step {after}");
        assert!(ends.iter().all(|(end, _)| end.is_ok()), "{what}: {ends:?}");
        let said = &ends[0].1;
        for part in ["opening the device again (1 of 3)", &format!("continuing at step {from} of 5")] {
            assert!(said.iter().any(|sentence| sentence.contains(part)), "{what}: {part}: {said:?}");
        }
        assert!(left.unwrap().tensors == Checkpoint::from_bytes("end", end).unwrap().tensors, "{what}");
    }
}

#[test]
fn ranks_that_cannot_share_evenly_are_told_which_could() {
    let (config, data) = (tiny(Method::Baseline), glyphs());
    let ranks = local::threads(3).remove(0);
    let error = Trainer::among(gpu(), &config, data.clone(), None, Some(ranks)).err().unwrap().to_string();
    assert!(error.contains("3 ranks cannot share out the 4 micro-batches"), "{error}");
    assert!(error.contains("start 1 or 2 or 4 ranks"), "{error}");
}
