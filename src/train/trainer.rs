//! A run on a device: its state, one step at a time, and the loop over the rest of them. It writes no file;
//! `train::run` trains into a folder.
//!
//! Everything that may wait for the device is an `async` function. On native there is a blocking one beside it. The
//! future of a step that is dropped before its end leaves half a step on the device: go on from a checkpoint, with
//! [`Trainer::restore_async`].
//!
//! Everything random is a pure function of (seed, step), so the state of a run is: weights, momentum,
//! running statistics, their averages, bank, and the number of finished steps. The DropBlock counter, the position in
//! the data order and that of every random stream follow from the last.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::budget::{Fitted, Room, fit};
use super::checkpoint::{Checkpoint, Tensor};
use super::exchange::check_shares;
use super::features::Extractor;
use super::init::{Init, TakenOver, choose};
use super::inputs::{Negatives, Rows, counted_rows};
use super::joint::own_arenas;
use super::phases::Phases;
use super::record::{DataShape, UPLOADS, phase_spec, phase_step, validate, view_sampler};
use super::stage::Stage;
use super::state::{
    CLASSES_KEY, CONFIG_KEY, IMAGES_KEY, Origins, SIDE_KEY, STEP_KEY, bank_name, expected, floats, load, momentum_name,
    number, stored_config, trained_weights,
};
use super::validation::{VALIDATION_KEY, Validated, Validations, Validator, Watch};
use crate::data::{ImageSet, epoch_order};
use crate::error::Change;
use crate::gpu::adapter::describe;
use crate::gpu::clock::Clock;
use crate::gpu::kernel::Kernels;
use crate::gpu::upload::UploadRing;
use crate::gpu::{Gpu, Submission};
use crate::ier::negatives::{BankHistory, bank_init};
use crate::ier::optimise::{AVERAGE, GRADIENTS};
use crate::ier::step::PART;
use crate::ier::transforms::ViewSampler;
use crate::nn::{Entry, PARAMETERS, STATISTICS};
use crate::ops::health;
use crate::ops::step_block::StepBlock;
use crate::progress::StepReport;
use crate::ranks::Ranks;
use crate::settings::{Config, Matrix, Schedule};
use crate::tape::exec::{Arenas, Executor};
use crate::{Error, Result};

/// A trained network that a student is compared with.
#[derive(Clone, Debug)]
pub struct Teacher {
    /// Where it comes from, for messages.
    pub path: PathBuf,
    /// Its tensors: at least those of the student's network.
    pub weights: Checkpoint,
}

/// Who is told what a run does, and may stop it.
pub trait Observer {
    /// The losses of a step were read: every `run.log_every` steps, after the last one, and when the run is stopped.
    ///
    /// # Errors
    /// Its own, which end the run.
    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        let _ = report;
        Ok(())
    }

    /// The state after a step was read: every `run.checkpoint_every` steps, after the last one, and when the run is
    /// stopped. [`Trainer::restore_async`] takes it.
    ///
    /// # Errors
    /// Its own, which end the run.
    fn on_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// The network was scored on the validation classes, every `run.validate_every` steps and after the last one;
    /// `best`: it is the best so far, and [`Observer::on_best`] is given its checkpoint next.
    ///
    /// # Errors
    /// Its own, which end the run.
    fn on_validation(&mut self, score: &Validated, best: bool) -> Result<()> {
        let _ = (score, best);
        Ok(())
    }

    /// The state of the network that validated best so far.
    ///
    /// # Errors
    /// Its own, which end the run.
    fn on_best(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// One dispatch holds the device longer than `run.slice_ms`, which cannot be divided. Told once.
    fn on_long_dispatch(&mut self, dispatch: &str, time: Duration) {
        let _ = (dispatch, time);
    }

    /// Whether the run should stop after the step under way.
    fn stop_requested(&self) -> bool {
        false
    }
}

/// What rank 0 tells the others after a step: the run goes on.
const ON: u8 = 0;
/// It was stopped.
const STOPPED: u8 = 1;
/// It is over.
const OVER: u8 = 2;

/// An observer that wants to hear nothing and never stops the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// A run on a device.
pub struct Trainer {
    config: Config,
    fitted: Fitted,
    teacher: Option<Arc<Teacher>>,
    data: Arc<ImageSet>,
    schedule: Schedule,
    phases: Phases,
    /// The step of each phase. They share their arenas: any of them reads and writes the state.
    stages: Vec<Stage>,
    sampler: ViewSampler,
    kernels: Kernels,
    arenas: Arenas,
    /// Those of the micro-batches that are computed beside the first.
    beside: Vec<Arenas>,
    uploads: Option<UploadRing>,
    order: (u32, Vec<u32>),
    /// What has been written to the bank, where only recent rows count.
    history: Option<BankHistory>,
    clock: Option<Clock>,
    origins: Origins,
    steps_done: u32,
    /// The stage that the device is prepared for.
    entered: usize,
    init: Option<Arc<Init>>,
    watch: Watch,
    /// Who computes the micro-batches, where not this process alone.
    ranks: Option<Ranks>,
}

/// Fails where the settings want matrix units and the kernels use none.
///
/// # Errors
/// [`Error::Conflict`] with what a caller can do.
pub(crate) fn refuse_without_unit(config: &Config, kernels: &Kernels) -> Result<()> {
    if matches!(config.run.matrix, Matrix::Off | Matrix::Auto) || kernels.matrix_unit().is_some() {
        return Ok(());
    }
    let device = describe(kernels.gpu().info());
    Err(Error::Conflict {
        keys: vec!["run.matrix"],
        why: format!(
            "no matrix unit of {device} is in use: a caller of the library opens the device with `Options::matrix_units` and \
             lets its kernels use one by `ops::check::find_matrix_unit`"
        ),
        changes: vec![Change::Set("run.matrix", "off".into())],
    })
}

impl Trainer {
    /// Records, plans and allocates the step, and puts the initial state on the device. `kernels` is that device, or
    /// kernels on it, which choose among alternatives by their [`Tuning`](crate::gpu::tune::Tuning). Without a clock
    /// `run.slice_ms` has no effect: it divides a step by measured time.
    ///
    /// # Errors
    /// [`Error::Setting`], [`Error::Conflict`], [`Error::Usage`] or [`Error::Shape`] when the configuration is out of
    /// range or does not fit the data; [`Error::Conflict`], too, where `run.matrix` is on and the kernels use no matrix unit
    /// ([`crate::ops::check::find_matrix_unit`]); [`Error::Argument`] when the images are not whole or have no labels,
    /// [`Error::Device`] when the step does not fit the device, [`Error::Data`] when the teacher is another network.
    pub async fn new_async(
        kernels: impl Into<Kernels>,
        config: &Config,
        data: Arc<ImageSet>,
        teacher: Option<Arc<Teacher>>,
        clock: Option<Clock>,
    ) -> Result<Self> {
        Self::among_async(kernels, config, data, teacher, clock, None).await
    }

    /// As [`Trainer::new_async`], as one of `ranks` that share out the micro-batches of each batch: rank r of R computes
    /// the r-th R-th of them. All have the same settings, data and kind of device, and the bits are those of a process that
    /// computes all micro-batches. [`Trainer::share_async`] gives the others the state of rank 0.
    ///
    /// # Errors
    /// As [`Trainer::new_async`], and [`Error::Conflict`] where the ranks cannot share a batch out evenly.
    pub async fn among_async(
        kernels: impl Into<Kernels>,
        config: &Config,
        data: Arc<ImageSet>,
        teacher: Option<Arc<Teacher>>,
        clock: Option<Clock>,
        ranks: Option<Ranks>,
    ) -> Result<Self> {
        let mut kernels = kernels.into();
        let gpu = kernels.gpu().clone();
        config.validate()?;
        data.validate_labelled()?;
        let shape = DataShape::of(&data);
        let schedule = validate(config, shape)?;
        let room = Room { ranks: ranks.as_ref().map_or(1, Ranks::size), ..Room::of(&kernels) };
        let fitted = fit(config, shape, teacher.is_some(), room)?;
        let config = &fitted.config;
        refuse_without_unit(config, &kernels)?;
        let phases = Phases::new(config, shape)?;
        let mut steps = Vec::new();
        for phase in phases.all() {
            let mut spec = phase_spec(&phases.net, &phase.config, shape, teacher.is_some());
            if let Some(ranks) = &ranks {
                check_shares(&spec, ranks.size())?;
                spec.exchanged = true;
            }
            let (graph, recorded) = phase_step(&spec, &phase.config, shape, fitted.resident)?;
            steps.push((spec, graph, recorded));
        }
        let uploads = match fitted.resident {
            true => None,
            false => {
                let images = steps.iter().map(|(spec, ..)| spec.images() as u64).max().unwrap_or(0);
                Some(UploadRing::new_async(&gpu, 4 * images * (data.side * data.side) as u64, UPLOADS).await?)
            }
        };
        let mut arenas = Arenas::new();
        // An arena is as large as the phase wants it that wants most.
        for (name, bytes) in steps.iter().flat_map(|(_, graph, _)| graph.arenas()) {
            let most = steps.iter().filter_map(|(_, graph, _)| graph.arenas().get(name)).max().unwrap_or(bytes);
            arenas.ensure_async(&gpu, name, *most).await?;
        }
        let joined = || steps.iter().filter(|(spec, ..)| spec.is_joined());
        let own = joined().flat_map(|(_, graph, recorded)| own_arenas(graph, recorded)).collect();
        let most = joined().map(|(spec, ..)| spec.parts_of(ranks.as_ref().map_or(1, Ranks::size))).max().unwrap_or(1);
        let mut beside = Vec::new();
        for _ in 1..most {
            beside.push(arenas.beside_async(&gpu, &own).await?);
        }
        let mut stages = Vec::new();
        for step in steps {
            let arenas = (&mut arenas, beside.as_mut_slice());
            stages.push(Stage::new_async(&mut kernels, arenas, step, config, clock, ranks.as_ref()).await?);
        }
        let sampler = view_sampler(config, shape.side);
        let origins = Origins::of(&data, teacher.as_ref().map(|teacher| &teacher.weights));
        let recent = config.method.bank_recent.filter(|_| phases.net.projection.is_some());
        let history = recent.map(|recent| BankHistory::new(shape.images, recent));
        let trainer = Trainer {
            config: config.clone(),
            fitted,
            teacher,
            data,
            origins,
            schedule,
            phases,
            stages,
            sampler,
            kernels,
            arenas,
            beside,
            uploads,
            order: (u32::MAX, Vec::new()),
            history,
            clock,
            steps_done: 0,
            init: None,
            watch: Watch::default(),
            entered: 0,
            ranks,
        };
        trainer.initialise().await?;
        Ok(trainer)
    }

    /// As [`Trainer::among_async`], with the system's clock; blocks.
    ///
    /// # Errors
    /// As [`Trainer::among_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn among(
        kernels: impl Into<Kernels>,
        config: &Config,
        data: Arc<ImageSet>,
        teacher: Option<Arc<Teacher>>,
        ranks: Option<Ranks>,
    ) -> Result<Self> {
        pollster::block_on(Self::among_async(kernels, config, data, teacher, Some(super::clock), ranks))
    }

    /// As [`Trainer::new_async`], with the system's clock; blocks.
    ///
    /// # Errors
    /// As [`Trainer::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(
        kernels: impl Into<Kernels>,
        config: &Config,
        data: Arc<ImageSet>,
        teacher: Option<Arc<Teacher>>,
    ) -> Result<Self> {
        pollster::block_on(Self::new_async(kernels, config, data, teacher, Some(super::clock)))
    }

    /// A trainer of the same run on another device, at its first step.
    ///
    /// # Errors
    /// As [`Trainer::new_async`].
    pub async fn on_device_async(&self, kernels: impl Into<Kernels>) -> Result<Self> {
        let (data, teacher, ranks) = (self.data.clone(), self.teacher.clone(), self.ranks.clone());
        let mut again = Trainer::among_async(kernels, &self.config, data, teacher, self.clock, ranks).await?;
        if let Some(init) = &self.init {
            again.take_over_async(init.clone()).await?;
        }
        if let Some(validator) = &self.watch.validator {
            again.validate_on_async(validator.images.clone()).await?;
        }
        Ok(again)
    }

    /// As [`Trainer::on_device_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn on_device(&self, kernels: impl Into<Kernels>) -> Result<Self> {
        pollster::block_on(self.on_device_async(kernels))
    }

    async fn initialise(&self) -> Result<()> {
        let stage = self.first();
        let (ex, step, seed) = (&stage.executor, &stage.recorded.step, self.config.run.seed);
        for (position, entry) in step.parameters.iter().chain(&step.statistics).enumerate() {
            let initial = entry.initial(seed, position);
            ex.write_async(entry.value, &initial).await?;
            // The network is scored before the first step, too.
            if let Some(average) = step.average.get(position) {
                ex.write_async(average.value, &initial).await?;
            }
        }
        for rates in &step.rates {
            ex.write_async(rates.value, &rates.table()).await?;
        }
        if self.phases.net.projection.is_some() {
            let width = ex.graph().shape(step.inputs.bank)[1];
            ex.write_async(step.inputs.bank, &bank_init(seed, self.data.len(), width)).await?;
        }
        if stage.recorded.resident {
            ex.write_async(stage.recorded.images, &self.data.pixels).await?;
        }
        if let Some(teacher) = &self.teacher {
            teacher.weights.check_contains(&teacher.path, &expected(&step.teacher))?;
            load(ex, &step.teacher, &teacher.weights).await?;
        }
        Ok(())
    }

    /// The step of the first phase: any of them reads and writes the state.
    fn first(&self) -> &Stage {
        &self.stages[0]
    }

    /// The step that was done last, or before any the first.
    fn last(&self) -> &Stage {
        &self.stages[self.phases.number_at(self.steps_done.saturating_sub(1))]
    }

    /// What the run was begun with, as a checkpoint's metadata has it: fingerprints of the data, and of a teacher and
    /// another network where there are.
    pub fn origins(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.origins.metadata()
    }

    /// The settings in effect and the memory they take.
    pub fn fitted(&self) -> &Fitted {
        &self.fitted
    }

    /// Finished steps.
    pub fn steps_done(&self) -> u32 {
        self.steps_done
    }

    /// The number of steps and their learning rates.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u32 {
        self.schedule.total_steps
    }

    /// Where the run's phases begin, and where each step is in the order of the images.
    pub fn phases(&self) -> &Phases {
        &self.phases
    }

    /// The step on the device: that of the phase of the last step.
    pub fn executor(&self) -> &Executor {
        &self.last().executor
    }

    /// The run's device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.first().executor.gpu()
    }

    /// The kernels of the step, with what was chosen for it.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Whether the next step is measured dispatch by dispatch, which takes longer than one that is not: see `run.slice_ms`.
    pub fn is_measuring(&self) -> bool {
        self.last().executors().iter().any(|executor| executor.is_measuring())
    }

    /// Submissions of a step, as things stand, or of one of its micro-batches: see `run.slice_ms`.
    pub fn submissions(&self) -> usize {
        self.last().executor.submissions()
    }

    /// The longest dispatch of a step and its time, if it alone exceeds `run.slice_ms`.
    pub fn over_target(&self) -> Option<(String, Duration)> {
        self.last().executor.over_target()
    }

    /// A feature extractor over the network as it is being trained: it shares the weights on the device.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not fit the device.
    pub async fn extractor_async(&mut self) -> Result<Extractor> {
        let (config, net, side, rows) = (&self.config, &self.phases.net, self.data.side, self.stages[0].spec.rows());
        Extractor::shared(&mut self.kernels, &mut self.arenas, config, net, side, rows, self.clock).await
    }

    /// As [`Trainer::extractor_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::extractor_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn extractor(&mut self) -> Result<Extractor> {
        pollster::block_on(self.extractor_async())
    }

    /// The images that the run is validated on, where it is.
    pub fn validation_images(&self) -> Option<&Arc<ImageSet>> {
        self.watch.validator.as_ref().map(|validator| &validator.images)
    }

    /// Starts from another network, before the first step: the blocks are taken over, and each head that fits.
    ///
    /// # Errors
    /// [`Error::Conflict`] where its blocks are others than this run's, [`Error::Data`] where it has none.
    pub async fn take_over_async(&mut self, init: Arc<Init>) -> Result<TakenOver> {
        let stage = self.first();
        let step = &stage.recorded.step;
        let entries: Vec<&Entry> = step.parameters.iter().chain(&step.statistics).collect();
        let (names, account) = choose(&init, &entries, &self.config.model)?;
        // The average, too: the network is scored by it before the first step.
        let all = entries.into_iter().chain(&step.average);
        for entry in all.filter(|entry| names.contains(&entry.name)) {
            stage.executor.write_async(entry.value, floats(&init.weights, &entry.name)?).await?;
        }
        self.origins.begin_with(&init.weights);
        self.init = Some(init);
        Ok(account)
    }

    /// As [`Trainer::take_over_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::take_over_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn take_over(&mut self, init: Arc<Init>) -> Result<TakenOver> {
        pollster::block_on(self.take_over_async(init))
    }

    /// Scores the network every `run.validate_every` steps on these images, which
    /// [`chosen`](super::validation::chosen) made; `run.patience` then may end the run before its last step.
    ///
    /// # Errors
    /// [`Error::Usage`] when there are too few images for episodes; as [`Trainer::extractor_async`].
    pub async fn validate_on_async(&mut self, images: Arc<ImageSet>) -> Result<()> {
        let extractor = self.extractor_async().await?;
        self.watch.validator = Some(Validator::new(images, extractor)?);
        Ok(())
    }

    /// As [`Trainer::validate_on_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::validate_on_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn validate_on(&mut self, images: Arc<ImageSet>) -> Result<()> {
        pollster::block_on(self.validate_on_async(images))
    }

    /// Scores the network as it is on the images of [`Trainer::validate_on_async`], where there are some. The run does
    /// not change by it.
    ///
    /// # Errors
    /// What the device refuses.
    pub async fn validated_async(&self) -> Result<Option<Validated>> {
        match &self.watch.validator {
            Some(validator) => validator.score(self.steps_done).await.map(Some),
            None => Ok(None),
        }
    }

    /// As [`Trainer::validated_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::validated_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn validated(&self) -> Result<Option<Validated>> {
        pollster::block_on(self.validated_async())
    }

    /// What validation has found so far.
    pub fn validations(&self) -> &Validations {
        &self.watch.found
    }

    /// Whether the run is over: all its steps are done, or it was ended before.
    pub fn is_over(&self) -> bool {
        self.steps_done >= self.schedule.total_steps || self.watch.found.ended.is_some()
    }

    /// Training images of the batch slots at `step`.
    fn batch(&mut self, step: u32) -> Vec<u32> {
        let (epoch, first) = self.phases.position_of(step);
        if self.order.0 != epoch {
            self.order = (epoch, epoch_order(self.config.run.seed, epoch, self.data.len()));
        }
        self.order.1[first..first + self.stages[self.phases.number_at(step)].spec.batch].to_vec()
    }

    /// Prepares the device for the steps of a stage: what it trains has rates, and what it does not has no gradient.
    async fn enter(&mut self, number: usize) -> Result<()> {
        if self.entered != number {
            let stage = &self.stages[number];
            for rates in &stage.recorded.step.rates {
                stage.executor.write_async(rates.value, &rates.table()).await?;
            }
            self.arenas.clear(stage.executor.gpu(), GRADIENTS)?;
            for arenas in [&self.arenas].into_iter().chain(&self.beside) {
                arenas.clear(stage.executor.gpu(), &format!("{PART}{GRADIENTS}"))?;
            }
            self.entered = number;
        }
        Ok(())
    }

    /// Notes what the batches of some steps write to the bank, where that matters later.
    fn note_writes(&mut self, steps: Range<u32>) {
        for step in steps {
            if self.history.is_some() && self.stages[self.phases.number_at(step)].spec.heads().invariant {
                let batch = self.batch(step);
                self.history.iter_mut().for_each(|history| history.write(&batch));
            }
        }
    }

    /// Does the next step, waits for it, and reads its losses. After the last step of the run it trains on at the last
    /// learning rate.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the loss or a gradient was not finite, [`Error::Device`] when the device failed.
    pub async fn step_async(&mut self) -> Result<StepReport> {
        self.submit_async().await?;
        self.report_async().await
    }

    /// As [`Trainer::step_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::step_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn step(&mut self) -> Result<StepReport> {
        pollster::block_on(self.step_async())
    }

    /// Writes the inputs of the next step and submits it. For steps whose losses are not wanted: the device works on
    /// while the host prepares the next one.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has failed.
    pub async fn submit_async(&mut self) -> Result<Submission> {
        let (seed, step) = (self.config.run.seed, self.steps_done);
        let batch = self.batch(step);
        let number = self.phases.number_at(step);
        self.enter(number).await?;
        let stage = &self.stages[number];
        let (spec, recorded, ex) = (&stage.spec, &stage.recorded, &stage.executor);
        let inputs = &recorded.step.inputs;
        if spec.heads().invariant {
            let drawn = Negatives::new(spec, seed, step, &batch, self.history.as_mut());
            ex.write_async(inputs.negatives, &drawn.rows).await?;
            if let Some(counted) = inputs.counted {
                ex.write_async(counted.negatives, &drawn.counted).await?;
            }
        }
        let drop = 1.0 - self.config.model.drop_block.keep_at(step);
        let most_parts = self.stages.iter().map(|stage| stage.spec.parts as u32).max().unwrap_or(1);
        let mut submission = None;
        let shares: Vec<(u32, &[u32])> = (0..).zip(batch.chunks(spec.images())).collect();
        let (rank, size) = self.ranks.as_ref().map_or((0, 1), |ranks| (ranks.rank(), ranks.size()));
        let each = spec.parts_of(size);
        let own = rank * each..(rank + 1) * each;
        let block = |part: u32| {
            // Every micro-batch has dropout of its own: the device draws by this number.
            let draw = step.wrapping_mul(most_parts).wrapping_add(part);
            StepBlock::new(draw, seed, self.schedule.lr_at(step) as f32, drop as f32).part(part).at(step)
        };
        // What all ranks made: the first micro-batch of each, the second of each ...
        let mut made = Vec::new();
        let mut copied = false;
        let executors = stage.executors();
        for (i, &(part, images)) in shares.get(own).unwrap_or_default().iter().enumerate() {
            let ex = executors.get(i).copied().unwrap_or(ex);
            ex.write_async(inputs.step, &[block(part)]).await?;
            let rows = Rows::new(spec, &self.sampler, step, part as usize);
            ex.write_async(recorded.view_parameters, &rows.view_words).await?;
            let labels: Vec<u32> = images.iter().map(|&i| self.data.labels[i as usize]).collect();
            ex.write_async(inputs.classes, &rows.labels(spec, &labels)).await?;
            ex.write_async(inputs.transforms, &rows.transforms).await?;
            ex.write_async(inputs.index, images).await?;
            if let (Some(counted), Some(history)) = (inputs.counted, &self.history) {
                ex.write_async(counted.rows, &counted_rows(spec, history, images)).await?;
            }
            // The graph has the whole training set or the pass's images.
            let stored = |slot: usize| if recorded.resident { images[slot] } else { slot as u32 };
            ex.write_async(recorded.view_index, &rows.view_index(spec, stored)).await?;
            match &mut self.uploads {
                None => {}
                Some(ring) => {
                    let pixels = images.iter().map(|&i| self.data.image(i as usize));
                    ring.upload_async(ex.gpu(), ex.locate(recorded.images).0, pixels).await?;
                }
            }
            if stage.joint.is_some() {
                continue;
            }
            submission = Some(ex.submit_async().await?);
            if let (Some(exchange), Some(ranks)) = (&stage.exchange, &self.ranks) {
                // The one before is exchanged while the device computes this one.
                if copied {
                    made.push(exchange.gather_async(ranks).await?);
                }
                exchange.copy(&self.arenas)?;
                copied = true;
            }
        }
        if let Some(joint) = &stage.joint {
            joint.compute_async(&executors, self.ranks.as_ref()).await?;
        }
        if let (Some(exchange), Some(ranks)) = (&stage.exchange, &self.ranks) {
            match stage.joint {
                None => made.push(exchange.gather_async(ranks).await?),
                Some(_) => {
                    for arenas in [&self.arenas].into_iter().chain(&self.beside).take(each) {
                        exchange.copy(arenas)?;
                        made.push(exchange.gather_async(ranks).await?);
                    }
                }
            }
            for &(part, images) in &shares {
                let made = &made[part as usize % each][part as usize / each];
                ex.write_async(inputs.step, &[block(part)]).await?;
                ex.write_async(inputs.index, images).await?;
                if let (Some(counted), Some(history)) = (inputs.counted, &self.history) {
                    ex.write_async(counted.rows, &counted_rows(spec, history, images)).await?;
                }
                exchange.join_async(&self.arenas, made).await?;
            }
            exchange.finish_async(ranks, &self.arenas).await?;
        }
        if let Some(update) = &stage.update {
            submission = Some(update.submit_async().await?);
        }
        self.note_writes(step..step + 1);
        self.steps_done += 1;
        submission.ok_or_else(|| Error::Internal("a batch has no images".into()))
    }

    /// As [`Trainer::submit_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::submit_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn submit(&mut self) -> Result<Submission> {
        pollster::block_on(self.submit_async())
    }

    /// Reads the losses of the last step; waits for it.
    ///
    /// # Errors
    /// As [`Trainer::step_async`], and [`Error::Argument`] before the first step.
    pub async fn report_async(&self) -> Result<StepReport> {
        let Some(last) = self.steps_done.checked_sub(1) else {
            return Err(Error::Argument {
                what: "the number of finished steps",
                got: "0".into(),
                wanted: "at least 1: before the first step there are no losses".into(),
            });
        };
        let (losses, accuracy) = self.read_metrics_async().await?;
        let Some((loss, terms)) = losses.split_first() else {
            return Err(Error::Internal("a step has no loss".into()));
        };
        Ok(StepReport {
            step: self.steps_done,
            total_steps: self.schedule.total_steps,
            epoch: self.phases.position_of(last).0 + 1,
            lr: self.schedule.lr_at(last),
            loss: loss.1,
            terms: terms.to_vec(),
            accuracy: Some(accuracy),
            images: self.phases.images_of(self.steps_done),
            to_come: self.phases.to_come(self.steps_done, self.schedule.total_steps),
        })
    }

    /// As [`Trainer::report_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::report_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn report(&self) -> Result<StepReport> {
        pollster::block_on(self.report_async())
    }

    /// Reads the losses, total first, and the accuracy of the last step; waits for it.
    ///
    /// # Errors
    /// As [`Trainer::step_async`].
    pub async fn read_metrics_async(&self) -> Result<(Vec<(&'static str, f64)>, f64)> {
        let stage = self.last();
        let words = stage.metrics.read_async(&stage.executor).await?;
        let (Some((&bits, words)), Some(accuracy)) = (words.split_first(), words.last()) else {
            return Err(Error::Internal("a step has no losses".into()));
        };
        if bits != 0 {
            let what = match (bits >> health::LOSS & 1, bits >> health::GRADIENT & 1) {
                (0, _) => "a gradient",
                _ => "the loss",
            };
            return Err(Error::Diverged { what, step: self.steps_done, lr: self.config.optimiser.lr, saved: None });
        }
        let number = |word: &u32| f64::from(f32::from_bits(*word));
        // The first words are the health value's.
        let losses = words[health::WORDS - 1..].iter().map(number);
        let losses = stage.recorded.step.losses.iter().zip(losses).map(|((name, _), loss)| (*name, loss));
        Ok((losses.collect(), number(accuracy)))
    }

    /// As [`Trainer::read_metrics_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::step_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_metrics(&self) -> Result<(Vec<(&'static str, f64)>, f64)> {
        pollster::block_on(self.read_metrics_async())
    }

    /// Trains to the end of the run, and tells `observer`. Returns whether the run is over: not where the observer
    /// asked to stop.
    ///
    /// # Errors
    /// As [`Trainer::step_async`], and the observer's.
    pub async fn train_async(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let result = self.train_on_async(observer).await;
        match &self.ranks {
            Some(ranks) => result.map_err(|error| ranks.fail(error)),
            None => result,
        }
    }

    async fn train_on_async(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let total = self.schedule.total_steps;
        let mut in_flight = VecDeque::new();
        let mut told = false;
        while !self.is_over() {
            in_flight.push_back(self.submit_async().await?);
            // Two steps in flight keep the device busy; more would only queue up memory.
            if in_flight.len() > 2
                && let Some(oldest) = in_flight.pop_front()
            {
                self.gpu().wait_for_async(&oldest).await?;
            }
            if let Some(ranks) = self.ranks.clone().filter(|ranks| !ranks.leads()) {
                // Rank 0 reports, scores and saves.
                match ranks.broadcast(&[])?.first() {
                    Some(&STOPPED) => return Ok(false),
                    Some(&OVER) => return Ok(true),
                    _ => continue,
                }
            }
            if !told && let Some((dispatch, time)) = self.over_target() {
                told = true;
                observer.on_long_dispatch(&dispatch, time);
            }
            let done = self.steps_done;
            let validated = self.watch.is_due(self.config.run.validate_every, done, total);
            if validated {
                let (_, accuracy) = self.read_metrics_async().await?;
                let (score, best) = self.watch.validate(done, accuracy, self.config.run.patience).await?;
                observer.on_validation(&score, best)?;
                if best {
                    observer.on_best(&self.checkpoint_async().await?)?;
                }
            }
            let last = self.is_over() || observer.stop_requested();
            let due = |every: u32| last || (every > 0 && done.is_multiple_of(every));
            if validated || due(self.config.run.log_every) {
                observer.on_step(&self.report_async().await?)?;
            }
            if due(self.config.run.checkpoint_every) {
                observer.on_checkpoint(&self.checkpoint_async().await?)?;
            }
            if let Some(ranks) = &self.ranks {
                let word = match (last, self.is_over()) {
                    (false, _) => ON,
                    (true, false) => STOPPED,
                    (true, true) => OVER,
                };
                ranks.broadcast(&[word])?;
            }
            if last {
                return Ok(self.is_over());
            }
        }
        Ok(true)
    }

    /// As [`Trainer::train_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::train_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        pollster::block_on(self.train_async(observer))
    }

    /// Gives the other ranks the state of rank 0's trainer: what a checkpoint of it holds. All ranks call it together,
    /// before the first step and after a device was lost. Does nothing where there are no others.
    ///
    /// # Errors
    /// As [`Trainer::restore_async`], and [`Error::Ranks`] when a rank cannot be reached.
    pub async fn share_async(&mut self) -> Result<()> {
        let Some(ranks) = self.ranks.clone() else { return Ok(()) };
        if ranks.leads() {
            return ranks.broadcast(&self.checkpoint_async().await?.to_bytes()?).map(drop);
        }
        let (bytes, from) = (ranks.broadcast(&[])?, Path::new("rank 0"));
        self.restore_async(from, &Checkpoint::from_bytes(from, &bytes)?).await
    }

    /// As [`Trainer::share_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::share_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn share(&mut self) -> Result<()> {
        pollster::block_on(self.share_async())
    }

    /// The ranks that share the run, where there are several.
    pub fn ranks(&self) -> Option<&Ranks> {
        self.ranks.as_ref()
    }

    /// The whole state as a checkpoint.
    ///
    /// # Errors
    /// [`Error::Diverged`] when the device has seen a loss or gradient that is not finite.
    pub async fn checkpoint_async(&self) -> Result<Checkpoint> {
        if self.steps_done > 0 {
            self.read_metrics_async().await?;
        }
        let (ex, step) = (&self.first().executor, &self.first().recorded.step);
        let mut checkpoint = Checkpoint::default();
        let mut put = |name: String, entry: &Entry, all: &[f32]| -> Result<()> {
            let (_, offset) = ex.locate(entry.value);
            let first = offset as usize / 4;
            let data = all.get(first..first + entry.shape.iter().product::<usize>());
            let data = data.ok_or_else(|| Error::Internal(format!("{name} lies outside its arena")))?;
            checkpoint.tensors.insert(name, Tensor::f32(entry.shape.clone(), data.to_vec()));
            Ok(())
        };
        // One read for each arena, not for each tensor.
        let mut plain = "";
        if !step.average.is_empty() {
            plain = AVERAGE;
            for (arena, entries) in [(PARAMETERS, &step.parameters), (STATISTICS, &step.statistics)] {
                let all = ex.read_arena_async(arena).await?;
                trained_weights(entries).iter().try_for_each(|entry| put(entry.name.clone(), entry, &all))?;
            }
        }
        for (arena, entries) in [(PARAMETERS, &step.parameters), (STATISTICS, &step.statistics)] {
            let all = ex.read_arena_async(&format!("{plain}{arena}")).await?;
            entries.iter().try_for_each(|entry| put(entry.name.clone(), entry, &all))?;
        }
        let momentum: Vec<f32> = ex.read_async(step.flat.momentum).await?;
        step.parameters.iter().try_for_each(|entry| put(momentum_name(entry), entry, &momentum))?;
        if self.phases.net.projection.is_some() {
            let bank = step.inputs.bank;
            let tensor = Tensor::f32(ex.graph().shape(bank).to_vec(), ex.read_async(bank).await?);
            checkpoint.tensors.insert(bank_name(), tensor);
        }
        let mut put = |key: &str, value: String| drop(checkpoint.metadata.insert(key.into(), value));
        put(CONFIG_KEY, self.config.to_json()?);
        put(STEP_KEY, self.steps_done.to_string());
        put(CLASSES_KEY, self.data.n_classes().to_string());
        put(IMAGES_KEY, self.data.len().to_string());
        put(SIDE_KEY, self.data.side.to_string());
        if self.watch.found.best.is_some() {
            put(VALIDATION_KEY, self.watch.found.to_json()?);
        }
        self.origins.metadata().for_each(|(key, print)| put(key, print.to_owned()));
        Ok(checkpoint)
    }

    /// As [`Trainer::checkpoint_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::checkpoint_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        pollster::block_on(self.checkpoint_async())
    }

    /// Checks whether this run can continue from a checkpoint, before any work is done: the checkpoint's finished steps.
    /// `path` is for messages.
    ///
    /// # Errors
    /// [`Error::Data`] when the checkpoint belongs to another data set, teacher or length; [`Error::Conflict`] when the
    /// memory budget or the device would change the numbers.
    pub fn check(&self, path: &Path, checkpoint: &Checkpoint) -> Result<u32> {
        for (key, now) in
            [(CLASSES_KEY, self.data.n_classes()), (IMAGES_KEY, self.data.len()), (SIDE_KEY, self.data.side)]
        {
            let then = number(path, checkpoint, key)?;
            if then != now as u64 {
                return Err(Error::data(
                    path,
                    match key {
                        SIDE_KEY => format!(
                            "the run's images had {then} pixels a side, these have {now}: give the data of the run"
                        ),
                        _ => format!("the run had {then} {key}, the data has {now}: give the data of the run"),
                    },
                ));
            }
        }
        let teacher = self.teacher.as_ref().map(|teacher| &teacher.weights);
        self.origins.check(path, checkpoint, &self.data, teacher)?;
        let stored = stored_config(path, checkpoint)?;
        let budget = |why: String| Error::Conflict {
            keys: vec!["run.memory_budget"],
            why: format!("{}: {why}, which gives other numbers: allow it the memory that it had", path.display()),
            changes: vec![Change::Raise("run.memory_budget")],
        };
        if stored.run.activations != self.config.run.activations {
            return Err(budget(format!(
                "the run stores activations as {}, and to stay within the budget it would store them as {}",
                stored.run.activations, self.config.run.activations
            )));
        }
        let (then, now) = (&stored.run, &self.config.run);
        for (key, name, then, now) in [
            ("run.winograd", "winograd", then.winograd.to_string(), now.winograd.to_string()),
            ("run.matrix", "matrix", then.matrix.to_string(), now.matrix.to_string()),
        ] {
            if then != now {
                let why = format!("the run has {name} {then}, which gives other numbers than {now}");
                return Err(Error::Conflict {
                    keys: vec![key],
                    why: format!("{}: {why}", path.display()),
                    changes: vec![Change::Set(key, then)],
                });
            }
        }
        let (then, now) = (stored.parts(), self.config.parts());
        if then != now {
            return Err(budget(format!(
                "the run does a batch in {then} passes, and to stay within the budget it would take {now}"
            )));
        }
        if now > 1 && stored.run.batch_norm != self.config.run.batch_norm {
            return Err(Error::Conflict {
                keys: vec!["run.batch_norm"],
                why: format!(
                    "{}: the run has run.batch_norm = {}, which gives other numbers than {}",
                    path.display(),
                    stored.run.batch_norm,
                    self.config.run.batch_norm
                ),
                changes: vec![Change::Set("run.batch_norm", stored.run.batch_norm.to_string())],
            });
        }
        let done = number(path, checkpoint, STEP_KEY)?;
        match u32::try_from(done) {
            Ok(done) if done <= self.schedule.total_steps => Ok(done),
            _ => Err(Error::data(
                path,
                format!("it claims {done} steps of {}: use an earlier checkpoint", self.schedule.total_steps),
            )),
        }
    }

    /// Continues from a checkpoint of the same configuration and data. `path` is for messages.
    ///
    /// # Errors
    /// As [`Trainer::check`], and [`Error::Data`] when the checkpoint belongs to another network.
    pub async fn restore_async(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let done = self.check(path, checkpoint)?;
        let (ex, step) = (&self.first().executor, &self.first().recorded.step);
        let model = [step.parameters.clone(), step.statistics.clone()].concat();
        checkpoint.check_against(path, &expected(&model))?;
        let momentum: Vec<(String, Vec<usize>)> =
            step.parameters.iter().map(|entry| (momentum_name(entry), entry.shape.clone())).collect();
        checkpoint.check_contains(path, &momentum)?;
        if self.phases.net.projection.is_some() {
            let bank = (bank_name(), ex.graph().shape(step.inputs.bank).to_vec());
            checkpoint.check_contains(path, std::slice::from_ref(&bank))?;
            ex.write_async(step.inputs.bank, floats(checkpoint, &bank.0)?).await?;
        }
        if step.average.is_empty() {
            load(ex, &model, checkpoint).await?;
        } else {
            let trained = trained_weights(&model);
            checkpoint.check_contains(path, &expected(&trained))?;
            load(ex, &trained, checkpoint).await?;
            load(ex, &step.average, checkpoint).await?;
        }
        let mut flat = vec![0.0_f32; ex.graph().value(step.flat.momentum).ty.len()];
        for (entry, (name, _)) in step.parameters.iter().zip(&momentum) {
            let (_, offset) = ex.locate(entry.value);
            let data = floats(checkpoint, name)?;
            flat[offset as usize / 4..][..data.len()].copy_from_slice(data);
        }
        ex.write_async(step.flat.momentum, &flat).await?;
        self.origins.remember(checkpoint);
        self.watch.found = Validations::of(path, checkpoint)?;
        if self.config.run.patience == 0 {
            // The user may want the rest of a run that was ended.
            self.watch.found.ended = None;
        }
        if let Some(history) = &mut self.history {
            *history = BankHistory::new(self.data.len(), self.config.method.bank_recent.unwrap_or(0));
        }
        self.note_writes(0..done);
        self.steps_done = done;
        Ok(())
    }

    /// As [`Trainer::restore_async`]; blocks.
    ///
    /// # Errors
    /// As [`Trainer::restore_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn restore(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        pollster::block_on(self.restore_async(path, checkpoint))
    }
}
