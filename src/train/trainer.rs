//! The training loop and its state.
//!
//! Everything random is a pure function of (seed, step), so the state of a run is: weights, momentum,
//! running statistics, bank, and the number of finished steps. The DropBlock counter, the position in
//! the data order and that of every random stream follow from the last.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Fitted, Room, fit};
use super::checkpoint::{Checkpoint, TRAINING_PREFIX, Tensor, TensorData};
use super::features::Extractor;
use super::memory::UPLOADS;
use super::metrics::{self, MetricsLog, Record};
use super::record::{DataShape, Recorded, judge, spec, training_step, views_of};
use crate::data::{ImageSet, epoch_order};
use crate::gpu::Gpu;
use crate::gpu::kernel::Kernels;
use crate::gpu::upload::UploadRing;
use crate::ier::negatives::{bank_init, negatives};
use crate::ier::step::{StepSpec, record_update};
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::nn::Entry;
use crate::ops::health;
use crate::ops::step_block::StepBlock;
use crate::ops::views::PARAMETER_WORDS;
use crate::progress::{Progress, StepReport};
use crate::settings::{CHECKPOINT_FILE, Config, OnDeviceLost, Schedule};
use crate::tape::exec::{Arenas, Executor};
use crate::{Error, Result};

/// Metadata key of the configuration, as JSON.
pub const CONFIG_KEY: &str = "config";
/// Metadata key of the number of finished steps.
pub const STEP_KEY: &str = "step";
/// Metadata key of the number of training classes.
pub const CLASSES_KEY: &str = "classes";
/// Metadata key of the number of training images.
pub const IMAGES_KEY: &str = "images";
/// Metadata key of the image side.
pub const SIDE_KEY: &str = "side";
/// Metadata key of the fingerprint of the training images and labels.
const DATA_KEY: &str = "data";
/// Metadata key of the fingerprint of the teacher's tensors; none without a teacher.
const TEACHER_KEY: &str = "teacher";

/// A run on a device.
pub struct Trainer<'d> {
    config: Config,
    fitted: Fitted,
    teacher: Option<(&'d Path, &'d Checkpoint)>,
    data: &'d ImageSet,
    schedule: Schedule,
    spec: StepSpec,
    sampler: ViewSampler,
    recorded: Recorded,
    executor: Executor,
    /// The optimiser, where the batch is split and the executor's graph is the step of a micro-batch.
    update: Option<Executor>,
    kernels: Kernels,
    arenas: Arenas,
    uploads: Option<UploadRing>,
    order: (u32, Vec<u32>),
    /// What the run was begun with, by metadata key: a resumed one must find the same.
    origins: Vec<(&'static str, String)>,
    step: u32,
    /// The step of the checkpoint in the run's folder.
    saved: Option<u32>,
}

/// Times that a lost device is opened again in one run: one that goes on failing will not be cured by it.
const REOPENINGS: u32 = 3;

/// Trains to the end of the run as [`Trainer::run`] does. Where `run.on_device_lost` says so, a lost device is opened
/// again with `reopen` and the run continues from its last checkpoint; `trainer` is on another device then.
///
/// # Errors
/// As [`Trainer::run`], and what `reopen` fails with.
pub fn run_reopening(
    trainer: &mut Trainer,
    reopen: &dyn Fn(&mut dyn Progress) -> Result<Arc<Gpu>>,
    folder: &Path,
    resume_command: &str,
    progress: &mut dyn Progress,
) -> Result<Finished> {
    let (start, first) = (Instant::now(), trainer.step);
    for opening in 1.. {
        let error = match trainer.run(folder, resume_command, progress) {
            Ok(finished) => {
                return Ok(Finished {
                    steps: trainer.step - first,
                    seconds: start.elapsed().as_secs_f64(),
                    ..finished
                });
            }
            Err(error) => error,
        };
        let resume = trainer.config.run.on_device_lost == OnDeviceLost::Resume;
        if !(matches!(error, Error::DeviceLost(_)) && resume && opening <= REOPENINGS) {
            return Err(error);
        }
        progress.warn(&format!("{error}; opening the device again ({opening} of {REOPENINGS})"));
        // A system that resets a device needs a moment.
        std::thread::sleep(Duration::from_millis(500) * opening);
        let mut again = Trainer::new(reopen(progress)?, &trainer.config, trainer.data, trainer.teacher)?;
        if trainer.saved.is_some() {
            let file = folder.join(CHECKPOINT_FILE);
            again.restore(&file, &Checkpoint::load(&file)?)?;
        }
        progress.note(&format!("continuing at step {} of {}", again.step, again.schedule.total_steps));
        *trainer = again;
    }
    Err(Error::Internal("a loop without an end has ended".into()))
}

/// How a loop over the remaining steps ended.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Last loss; none where no step was left to do and the log of those before is gone.
    pub loss: Option<f64>,
    /// Steps that this call did.
    pub steps: u32,
    /// Wall seconds of these steps.
    pub seconds: f64,
}

impl<'d> Trainer<'d> {
    /// Records, plans and allocates the step, and puts the initial state on the device.
    ///
    /// # Errors
    /// [`Error::Usage`] or [`Error::Shape`] when the configuration does not fit the data, [`Error::Device`] when
    /// the step does not fit the device, [`Error::Data`] when the teacher is another network.
    pub fn new(
        gpu: Arc<Gpu>,
        config: &Config,
        data: &'d ImageSet,
        teacher: Option<(&'d Path, &'d Checkpoint)>,
    ) -> Result<Self> {
        let shape = DataShape::of(data);
        let schedule = judge(config, shape)?;
        let fitted = fit(config, shape, teacher.is_some(), Room::of(&gpu))?;
        let config = &fitted.config;
        let spec = spec(config, shape, teacher.is_some());
        let (graph, recorded) = training_step(config, shape, teacher.is_some(), fitted.resident)?;
        let uploads = match fitted.resident {
            true => None,
            false => Some(UploadRing::new(&gpu, (4 * spec.images() * data.side * data.side) as u64, UPLOADS)?),
        };
        let mut kernels = Kernels::new(gpu);
        let mut arenas = Arenas::new();
        let mut executor = Executor::new(&mut kernels, &mut arenas, graph)?;
        super::slice(&mut executor, config);
        let update = match spec.parts {
            1 => None,
            _ => Some(Executor::new(&mut kernels, &mut arenas, record_update(&executor.graph, &spec)?)?),
        };
        let (set, ..) = views_of(config);
        let padding = config.data.crop_padding_for(shape.side);
        let sampler = ViewSampler::new(set, shape.side, padding, config.run.seed, Augmentation::default());
        let mut origins = vec![(DATA_KEY, fingerprint(data.labels.iter().chain(&data.pixels).copied()))];
        if let Some((_, weights)) = teacher {
            let numbers = weights.tensors.values().filter_map(|tensor| match &tensor.data {
                TensorData::F32(numbers) => Some(numbers),
                TensorData::I64(_) => None,
            });
            origins.push((TEACHER_KEY, fingerprint(numbers.flatten().map(|number| number.to_bits()))));
        }
        let trainer = Trainer {
            config: config.clone(),
            fitted,
            teacher,
            data,
            origins,
            schedule,
            spec,
            sampler,
            recorded,
            executor,
            update,
            kernels,
            arenas,
            uploads,
            order: (u32::MAX, Vec::new()),
            step: 0,
            saved: None,
        };
        trainer.initialise(teacher)?;
        Ok(trainer)
    }

    fn initialise(&self, teacher: Option<(&Path, &Checkpoint)>) -> Result<()> {
        let (ex, step, seed) = (&self.executor, &self.recorded.step, self.config.run.seed);
        for (position, entry) in step.parameters.iter().chain(&step.statistics).enumerate() {
            ex.write(entry.value, &entry.initial(seed, position))?;
        }
        if self.spec.net.projection.is_some() {
            let width = ex.graph.shape(step.inputs.bank)[1];
            ex.write(step.inputs.bank, &bank_init(seed, self.spec.bank_rows, width))?;
        }
        let rows =
            |f: &dyn Fn(usize) -> usize| -> Vec<u32> { (0..self.spec.rows()).map(|row| f(row) as u32).collect() };
        ex.write(step.inputs.transforms, &rows(&|row| row / self.spec.images()))?;
        if self.recorded.resident {
            ex.write(self.recorded.images, &self.data.pixels)?;
        } else {
            ex.write(self.recorded.view_index, &(0..self.spec.images() as u32).collect::<Vec<_>>())?;
        }
        if let Some((path, checkpoint)) = teacher {
            checkpoint.check_contains(path, &expected(&step.teacher))?;
            load(ex, &step.teacher, checkpoint)?;
        }
        Ok(())
    }

    /// The settings in effect and the memory they take.
    pub fn fitted(&self) -> &Fitted {
        &self.fitted
    }

    /// Finished steps.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Steps of the whole run.
    pub fn total_steps(&self) -> u32 {
        self.schedule.total_steps
    }

    /// The step on the device.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The run's device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        self.executor.gpu()
    }

    /// Submissions of a step, as things stand: see `run.slice_ms`.
    pub fn submissions(&self) -> usize {
        self.executor.submissions()
    }

    /// The longest dispatch of a step and its time, if it alone exceeds `run.slice_ms`.
    pub fn over_target(&self) -> Option<(String, Duration)> {
        self.executor.over_target()
    }

    /// A feature extractor over the network as it is being trained: it shares the weights on the device.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not fit the device.
    pub fn extractor(&mut self) -> Result<Extractor> {
        Extractor::shared(
            &mut self.kernels,
            &mut self.arenas,
            &self.config,
            &self.spec.net,
            self.data.side,
            self.spec.rows(),
        )
    }

    /// Training images of the batch slots at `step`.
    fn batch(&mut self, step: u32) -> Vec<u32> {
        let epoch = self.schedule.epoch_of(step);
        if self.order.0 != epoch {
            self.order = (epoch, epoch_order(self.config.run.seed, epoch, self.data.len()));
        }
        let first = (step % self.schedule.steps_per_epoch) as usize * self.spec.batch;
        self.order.1[first..first + self.spec.batch].to_vec()
    }

    /// Writes the inputs of the next step and submits it.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has failed.
    pub fn submit(&mut self) -> Result<wgpu::SubmissionIndex> {
        let (seed, step) = (self.config.run.seed, self.step);
        let batch = self.batch(step);
        let recorded = &self.recorded;
        let (ex, inputs) = (&self.executor, &recorded.step.inputs);
        if self.spec.net.projection.is_some() {
            let drawn = negatives(seed, step, self.spec.bank_rows, &batch, self.spec.negatives);
            ex.write(inputs.negatives, &drawn)?;
        }
        let views = self.sampler.parameters(step, self.spec.batch);
        let drop = 1.0 - self.config.model.drop_block.keep_at(step);
        let parts = self.spec.parts as u32;
        let mut submission = None;
        for (part, images) in (0..parts).zip(batch.chunks(self.spec.images())) {
            // Every micro-batch has dropout of its own: the device draws by this number.
            let draw = step.wrapping_mul(parts).wrapping_add(part);
            let block = StepBlock::new(draw, seed, self.schedule.lr_at(step) as f32, drop as f32).part(part);
            ex.write(inputs.step, &[block])?;
            ex.write(recorded.view_parameters, &part_of(&self.spec, &views, part as usize))?;
            let labels: Vec<u32> = images.iter().map(|&i| self.data.labels[i as usize]).collect();
            ex.write(inputs.classes, &labels.repeat(self.spec.copies))?;
            ex.write(inputs.index, images)?;
            match &mut self.uploads {
                None => ex.write(recorded.view_index, images)?,
                Some(ring) => {
                    let pixels = images.iter().map(|&i| self.data.image(i as usize));
                    ring.upload(ex.gpu(), ex.locate(recorded.images).0, pixels)?;
                }
            }
            submission = Some(ex.submit());
        }
        if let Some(update) = &self.update {
            submission = Some(update.submit());
        }
        self.step += 1;
        submission.ok_or_else(|| Error::Internal("a batch has no images".into()))
    }

    /// Reads the losses and the accuracy of the last step; waits for it.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the loss or a gradient was not finite, [`Error::Device`] when the device failed.
    pub fn read_metrics(&self) -> Result<(Vec<(&'static str, f64)>, f64)> {
        let (ex, step) = (&self.executor, &self.recorded.step);
        let bits = ex.read::<u32>(step.health)?[0];
        if bits != 0 {
            let what = match (bits >> health::LOSS & 1, bits >> health::GRADIENT & 1) {
                (0, _) => "a gradient",
                _ => "the loss",
            };
            return Err(Error::NonFinite(format!(
                "{what} was not finite at or before step {}: lower --lr (it is {}) and train again; a checkpoint from \
                 before is intact",
                self.step, self.config.optimiser.lr
            )));
        }
        let mut losses = Vec::new();
        for (name, value) in &step.losses {
            losses.push((*name, f64::from(ex.read::<f32>(*value)?[0])));
        }
        Ok((losses, f64::from(ex.read::<f32>(step.accuracy)?[0])))
    }

    /// Trains to the end of the run, saving checkpoints and metrics in `folder`; `resume_command` is what the user
    /// is told when the run is interrupted.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after saving when the caller asked to stop; [`Error::NonFinite`], [`Error::Io`] with the
    /// last checkpoint intact; [`Error::DeviceLost`], [`Error::Device`] with the same and the way to continue.
    pub fn run(&mut self, folder: &Path, resume_command: &str, progress: &mut dyn Progress) -> Result<Finished> {
        let result = self.run_steps(folder, resume_command, progress);
        let way_on = || {
            let held = match self.saved {
                Some(step) => format!(
                    "{} holds step {step} whole, and `{resume_command}` continues from it",
                    folder.join(CHECKPOINT_FILE).display()
                ),
                None => "no checkpoint had been saved, so the run starts anew".into(),
            };
            format!("step {} of {} was under way; {held}", self.step.max(1), self.schedule.total_steps)
        };
        result.map_err(|error| match error {
            Error::DeviceLost(what) => Error::DeviceLost(format!("{what}; {}", way_on())),
            Error::Device(what) => Error::Device(format!("{what}; {}", way_on())),
            other => other,
        })
    }

    fn run_steps(&mut self, folder: &Path, resume_command: &str, progress: &mut dyn Progress) -> Result<Finished> {
        let file = folder.join(CHECKPOINT_FILE);
        let first = self.step;
        let mut log = MetricsLog::open(folder, (first > 0).then_some(u64::from(first)))?;
        let (start, mut since) = (Instant::now(), (Instant::now(), first));
        let mut finished = Finished::default();
        if first == self.schedule.total_steps {
            // Nothing left to do: the last loss is the log's.
            let last = metrics::read(folder)?.pop();
            finished.loss = last.and_then(|record| record.losses.get("total").copied()).map(f64::from);
        }
        let mut in_flight = std::collections::VecDeque::new();
        let mut warned = false;
        while self.step < self.schedule.total_steps {
            in_flight.push_back(self.submit()?);
            // Two steps in flight keep the device busy; more would only queue up memory.
            if in_flight.len() > 2
                && let Some(oldest) = in_flight.pop_front()
            {
                self.executor.gpu().wait_for(oldest)?;
            }
            if !warned && let Some((dispatch, time)) = self.over_target() {
                warned = true;
                progress.warn(&format!(
                    "{dispatch} alone holds the device for {} ms, longer than --slice-ms {}: a smaller --batch or \
                     --micro-batch makes it shorter",
                    time.as_millis(),
                    self.config.run.slice_ms
                ));
            }
            let (done, total) = (self.step, self.schedule.total_steps);
            let stop = progress.stop_requested();
            let due = |every: u32| every > 0 && done % every == 0;
            if due(self.config.run.log_every) || done == total || stop {
                let (losses, accuracy) = self.read_metrics()?;
                let lr = self.schedule.lr_at(done - 1);
                let images = u64::from(done - since.1) * self.spec.batch as u64;
                let seconds = since.0.elapsed().as_secs_f64().max(1e-9);
                finished.loss = Some(losses[0].1);
                progress.step(&StepReport {
                    step: done,
                    total_steps: total,
                    epoch: self.schedule.epoch_of(done - 1),
                    lr,
                    loss: losses[0].1,
                    terms: losses[1..].to_vec(),
                    accuracy: Some(accuracy),
                    images: u64::from(done) * self.spec.batch as u64,
                });
                // The step of an interruption gets no line of its own: the log is that of an uninterrupted run.
                if due(self.config.run.log_every) || done == total {
                    log.write(&Record {
                        step: u64::from(done),
                        epoch: self.schedule.epoch_of(done - 1),
                        lr: lr as f32,
                        losses: losses.iter().map(|(name, value)| (name.to_string(), *value as f32)).collect(),
                        accuracy: accuracy as f32,
                        images_per_second: (images as f64 / seconds) as f32,
                    })?;
                }
                since = (Instant::now(), done);
            }
            if due(self.config.run.checkpoint_every) || done == total || stop {
                log.sync()?;
                self.checkpoint()?.save(&file)?;
                self.saved = Some(self.step);
            }
            if stop && done < total {
                return Err(Error::Interrupted(format!(
                    "saved step {done} of {total} in {}; `{resume_command}` continues",
                    file.display()
                )));
            }
        }
        finished.steps = self.step - first;
        finished.seconds = start.elapsed().as_secs_f64();
        Ok(finished)
    }

    /// The whole state as a checkpoint.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when the device has seen a loss or gradient that is not finite.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        self.read_metrics_if_stepped()?;
        let (ex, step) = (&self.executor, &self.recorded.step);
        let mut checkpoint = Checkpoint::default();
        for entry in step.parameters.iter().chain(&step.statistics) {
            let tensor = Tensor::f32(entry.shape.clone(), ex.read(entry.value)?);
            checkpoint.tensors.insert(entry.name.clone(), tensor);
        }
        let momentum: Vec<f32> = ex.read(step.flat[2])?;
        for entry in &step.parameters {
            let (_, offset) = ex.locate(entry.value);
            let first = offset as usize / 4;
            let n = entry.shape.iter().product::<usize>();
            let tensor = Tensor::f32(entry.shape.clone(), momentum[first..first + n].to_vec());
            checkpoint.tensors.insert(format!("{TRAINING_PREFIX}momentum.{}", entry.name), tensor);
        }
        if self.spec.net.projection.is_some() {
            let bank = step.inputs.bank;
            let tensor = Tensor::f32(ex.graph.shape(bank).to_vec(), ex.read(bank)?);
            checkpoint.tensors.insert(format!("{TRAINING_PREFIX}bank"), tensor);
        }
        let mut put = |key: &str, value: String| drop(checkpoint.metadata.insert(key.into(), value));
        put(CONFIG_KEY, self.config.to_json()?);
        put(STEP_KEY, self.step.to_string());
        put(CLASSES_KEY, self.spec.net.n_classes.to_string());
        put(IMAGES_KEY, self.spec.bank_rows.to_string());
        put(SIDE_KEY, self.data.side.to_string());
        self.origins.iter().for_each(|(key, print)| put(key, print.clone()));
        Ok(checkpoint)
    }

    fn read_metrics_if_stepped(&self) -> Result<()> {
        if self.step > 0 { self.read_metrics().map(drop) } else { Ok(()) }
    }

    /// Judges whether this run can go on from a checkpoint, before any work is done: the checkpoint's finished steps.
    ///
    /// # Errors
    /// [`Error::Data`] when the checkpoint belongs to another data set, teacher or length; [`Error::Usage`] when the
    /// memory budget would change the numbers.
    pub fn check(&self, path: &Path, checkpoint: &Checkpoint) -> Result<u32> {
        for (key, now) in
            [(CLASSES_KEY, self.spec.net.n_classes), (IMAGES_KEY, self.spec.bank_rows), (SIDE_KEY, self.data.side)]
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
        for (key, now) in &self.origins {
            if checkpoint.metadata.get(*key) != Some(now) {
                return Err(Error::data(
                    path,
                    format!("the run was begun with another {key}: give it the {key} that it had, or start a new run"),
                ));
            }
        }
        let stored = stored_config(path, checkpoint)?;
        if stored.run.activations != self.config.run.activations {
            return Err(Error::usage(format!(
                "{}: the run stores activations as {}, and to stay within --memory-budget (run.memory_budget) it would \
                 store them as {}, which gives other numbers: allow it the memory that it had",
                path.display(),
                stored.run.activations,
                self.config.run.activations
            )));
        }
        if stored.run.winograd != self.config.run.winograd {
            return Err(Error::usage(format!(
                "{}: the run has --winograd {}, which gives other numbers than {}: give the one that it had",
                path.display(),
                stored.run.winograd,
                self.config.run.winograd
            )));
        }
        let (then, now) = (stored.parts(), self.config.parts());
        if then != now {
            return Err(Error::usage(format!(
                "{}: the run does a batch in {then} passes, and to stay within --memory-budget (run.memory_budget) it \
                 would take {now}, which gives other numbers: allow it the memory that it had",
                path.display()
            )));
        }
        let done = number(path, checkpoint, STEP_KEY)?;
        if done > u64::from(self.schedule.total_steps) {
            return Err(Error::data(
                path,
                format!("it claims {done} steps of {}: use an earlier checkpoint", self.schedule.total_steps),
            ));
        }
        Ok(done as u32)
    }

    /// Continues from a checkpoint of the same configuration and data.
    ///
    /// # Errors
    /// As [`Trainer::check`], and [`Error::Data`] when the checkpoint belongs to another network.
    pub fn restore(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let done = self.check(path, checkpoint)?;
        let (ex, step) = (&self.executor, &self.recorded.step);
        let model = [step.parameters.clone(), step.statistics.clone()].concat();
        checkpoint.check_against(path, &expected(&model))?;
        let momentum: Vec<(String, Vec<usize>)> = step
            .parameters
            .iter()
            .map(|e| (format!("{TRAINING_PREFIX}momentum.{}", e.name), e.shape.clone()))
            .collect();
        checkpoint.check_contains(path, &momentum)?;
        load(ex, &model, checkpoint)?;
        let mut flat = vec![0.0_f32; ex.graph.value(step.flat[2]).ty.len()];
        for (entry, (name, _)) in step.parameters.iter().zip(&momentum) {
            let (_, offset) = ex.locate(entry.value);
            let data = floats(checkpoint, name)?;
            flat[offset as usize / 4..][..data.len()].copy_from_slice(data);
        }
        ex.write(step.flat[2], &flat)?;
        if self.spec.net.projection.is_some() {
            let bank = format!("{TRAINING_PREFIX}bank");
            checkpoint.check_contains(path, &[(bank.clone(), ex.graph.shape(step.inputs.bank).to_vec())])?;
            ex.write(step.inputs.bank, floats(checkpoint, &bank)?)?;
        }
        self.step = done;
        self.saved = Some(self.step);
        Ok(())
    }
}

/// The view parameters of a micro-batch, views outermost: the views are what they are without splitting.
fn part_of(spec: &StepSpec, words: &[u32], part: usize) -> Vec<u32> {
    let size = spec.images() * PARAMETER_WORDS;
    words.chunks(spec.batch * PARAMETER_WORDS).flat_map(|view| &view[part * size..][..size]).copied().collect()
}

/// Names and shapes of entries, as checkpoints check them.
pub fn expected(entries: &[Entry]) -> Vec<(String, Vec<usize>)> {
    entries.iter().map(|e| (e.name.clone(), e.shape.clone())).collect()
}

/// Writes the entries' tensors from a checkpoint that was checked to have them.
pub(super) fn load(executor: &Executor, entries: &[Entry], checkpoint: &Checkpoint) -> Result<()> {
    for entry in entries {
        executor.write(entry.value, floats(checkpoint, &entry.name)?)?;
    }
    Ok(())
}

fn floats<'c>(checkpoint: &'c Checkpoint, name: &str) -> Result<&'c [f32]> {
    match checkpoint.tensors.get(name).map(|t| &t.data) {
        Some(TensorData::F32(data)) => Ok(data),
        _ => Err(Error::Internal(format!("{name} was not checked"))),
    }
}

/// A number that differs where the words differ, but for an accident of 2^-64: FNV-1a over words.
pub fn fingerprint(words: impl Iterator<Item = u32>) -> String {
    let print = words.fold(0xcbf2_9ce4_8422_2325_u64, |h, word| (h ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3));
    format!("{print:016x}")
}

/// A whole number in a checkpoint's metadata.
///
/// # Errors
/// [`Error::Data`] when it is missing: the file is not a checkpoint of this program.
pub fn number(path: &Path, checkpoint: &Checkpoint, key: &str) -> Result<u64> {
    checkpoint.metadata.get(key).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::data(path, format!("its metadata has no number {key:?}: name a checkpoint that `ieq-wgpu train` wrote"))
    })
}

/// The image side in a checkpoint.
///
/// # Errors
/// [`Error::Data`] when it is missing or no side that a network takes.
pub fn stored_side(path: &Path, checkpoint: &Checkpoint, config: &Config) -> Result<usize> {
    let side = number(path, checkpoint, SIDE_KEY)? as usize;
    let fits = config.check_side(side).map(|()| side);
    fits.map_err(|e| Error::data(path, format!("its image side cannot be used: {e}")))
}

/// The configuration in a checkpoint.
///
/// # Errors
/// [`Error::Data`] when it is missing, malformed or out of range.
pub fn stored_config(path: &Path, checkpoint: &Checkpoint) -> Result<Config> {
    let text = checkpoint.metadata.get(CONFIG_KEY).ok_or_else(|| {
        Error::data(path, "its metadata has no \"config\": name a checkpoint that `ieq-wgpu train` wrote")
    })?;
    let config = Config::from_json(text, path)?;
    config.validate().map_err(|e| Error::data(path, format!("its configuration cannot be used: {e}")))?;
    Ok(config)
}
