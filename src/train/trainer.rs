//! The training loop and its state.
//!
//! Everything random is a pure function of (seed, step), so the state of a run is: weights, momentum,
//! running statistics, bank, and the number of finished steps. The DropBlock counter, the position in
//! the data order and that of every random stream follow from the last.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::{Checkpoint, TRAINING_PREFIX, Tensor};
use super::features::Extractor;
use super::metrics::{MetricsLog, Record};
use super::record::{DataShape, Recorded, spec, training_step, views_of};
use crate::config::{Config, Progress, Schedule, StepReport};
use crate::data::{ImageSet, epoch_order};
use crate::gpu::Gpu;
use crate::gpu::kernel::Kernels;
use crate::ier::negatives::{bank_init, negatives};
use crate::ier::step::StepSpec;
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::nn::Entry;
use crate::ops::dropout::step_block;
use crate::ops::health;
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

/// A run on a device.
pub struct Trainer<'d> {
    config: Config,
    data: &'d ImageSet,
    schedule: Schedule,
    spec: StepSpec,
    sampler: ViewSampler,
    recorded: Recorded,
    executor: Executor,
    kernels: Kernels,
    arenas: Arenas,
    order: (u32, Vec<u32>),
    step: u32,
}

/// How a loop over the remaining steps ended.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// Last loss.
    pub loss: f64,
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
        teacher: Option<(&Path, &Checkpoint)>,
    ) -> Result<Self> {
        let shape = DataShape { side: data.side, classes: data.n_classes(), images: data.len() };
        config.check_side(shape.side)?;
        let schedule = Schedule::new(&config.optimiser, shape.images)?;
        let spec = spec(config, shape, teacher.is_some());
        if spec.net.projection.is_some() && spec.negatives == 0 {
            return Err(Error::usage(format!(
                "the batch of {} is all {} training images, which leaves no negatives: use a smaller --batch",
                spec.batch, shape.images
            )));
        }
        let room = gpu.limits.max_storage_buffer_binding_size.min(gpu.limits.max_buffer_size);
        let resident = 4 * data.pixels.len() as u64 <= room;
        let (graph, recorded) = training_step(config, shape, teacher.is_some(), resident)?;
        let mut kernels = Kernels::new(gpu);
        let mut arenas = Arenas::new();
        let executor = Executor::new(&mut kernels, &mut arenas, graph)?;
        let (set, ..) = views_of(config);
        let padding = config.data.crop_padding_for(shape.side);
        let sampler = ViewSampler::new(set, shape.side, padding, config.run.seed, Augmentation::default());
        let trainer = Trainer {
            config: config.clone(),
            data,
            schedule,
            spec,
            sampler,
            recorded,
            executor,
            kernels,
            arenas,
            order: (u32::MAX, Vec::new()),
            step: 0,
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
        let rows = |f: &dyn Fn(usize) -> usize| -> Vec<u32> {
            (0..self.spec.batch * self.spec.copies).map(|row| f(row) as u32).collect()
        };
        ex.write(step.inputs.transforms, &rows(&|row| row / self.spec.batch))?;
        if self.recorded.resident {
            ex.write(self.recorded.images, &self.data.pixels)?;
        } else {
            ex.write(self.recorded.view_index, &(0..self.spec.batch as u32).collect::<Vec<_>>())?;
        }
        if let Some((path, checkpoint)) = teacher {
            checkpoint.check_contains(path, &expected(&step.teacher))?;
            load(ex, &step.teacher, checkpoint)?;
        }
        Ok(())
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

    /// A feature extractor over the network as it is being trained: it shares the weights on the device.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not fit the device.
    pub fn extractor(&mut self) -> Result<Extractor> {
        Extractor::shared(&mut self.kernels, &mut self.arenas, &self.config, &self.spec.net, self.data.side)
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
        let drop = 1.0 - self.config.model.drop_block.keep_at(step);
        ex.write(inputs.step, &step_block(step, seed, self.schedule.lr_at(step) as f32, drop as f32))?;
        ex.write(recorded.view_parameters, &self.view_words(step))?;
        let labels: Vec<u32> = batch.iter().map(|&i| self.data.labels[i as usize]).collect();
        ex.write(inputs.classes, &labels.repeat(self.spec.copies))?;
        ex.write(inputs.index, &batch)?;
        if self.spec.net.projection.is_some() {
            let drawn = negatives(seed, step, self.spec.bank_rows, &batch, self.spec.negatives);
            ex.write(inputs.negatives, &drawn)?;
        }
        if recorded.resident {
            ex.write(recorded.view_index, &batch)?;
        } else {
            ex.write(recorded.images, &self.data.subset(&batch).pixels)?;
        }
        let submission = ex.submit();
        self.step += 1;
        Ok(submission)
    }

    fn view_words(&self, step: u32) -> Vec<u32> {
        let (_, views, _) = views_of(&self.config);
        let words = self.sampler.parameters(step, self.spec.batch);
        let wanted = views * self.spec.batch * crate::ops::views::PARAMETER_WORDS;
        words[..wanted].to_vec()
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
                "{what} was not finite at or before step {}; the last checkpoint is intact: lower --lr (it is {}) and \
                 train again",
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
    /// [`Error::Interrupted`] after saving when the caller asked to stop; [`Error::NonFinite`], [`Error::Device`],
    /// [`Error::Io`] with the last checkpoint intact.
    pub fn run(&mut self, folder: &Path, resume_command: &str, progress: &mut dyn Progress) -> Result<Finished> {
        let file = folder.join(crate::config::CHECKPOINT_FILE);
        let first = self.step;
        let mut log = MetricsLog::open(folder, (first > 0).then_some(u64::from(first)))?;
        let (start, mut since) = (Instant::now(), (Instant::now(), first));
        let mut finished = Finished::default();
        let mut in_flight = std::collections::VecDeque::new();
        while self.step < self.schedule.total_steps {
            in_flight.push_back(self.submit()?);
            // Two steps in flight keep the device busy; more would only queue up memory.
            if in_flight.len() > 2
                && let Some(oldest) = in_flight.pop_front()
            {
                self.executor.gpu().wait_for(oldest)?;
            }
            let (done, total) = (self.step, self.schedule.total_steps);
            let stop = progress.stop_requested();
            let due = |every: u32| every > 0 && done % every == 0;
            if due(self.config.run.log_every) || done == total || stop {
                let (losses, accuracy) = self.read_metrics()?;
                let lr = self.schedule.lr_at(done - 1);
                let images = u64::from(done - since.1) * self.spec.batch as u64;
                let seconds = since.0.elapsed().as_secs_f64().max(1e-9);
                finished.loss = losses[0].1;
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
                log.write(&Record {
                    step: u64::from(done),
                    epoch: self.schedule.epoch_of(done - 1),
                    lr: lr as f32,
                    losses: losses.iter().map(|(name, value)| (name.to_string(), *value as f32)).collect(),
                    accuracy: accuracy as f32,
                    images_per_second: (images as f64 / seconds) as f32,
                    other: Default::default(),
                })?;
                since = (Instant::now(), done);
            }
            if due(self.config.run.checkpoint_every) || done == total || stop {
                log.sync()?;
                self.checkpoint()?.save(&file)?;
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
        Ok(checkpoint)
    }

    fn read_metrics_if_stepped(&self) -> Result<()> {
        if self.step > 0 { self.read_metrics().map(drop) } else { Ok(()) }
    }

    /// Continues from a checkpoint of the same configuration and data.
    ///
    /// # Errors
    /// [`Error::Data`] when the checkpoint belongs to another network or data set.
    pub fn restore(&mut self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let (ex, step) = (&self.executor, &self.recorded.step);
        for (key, now) in
            [(CLASSES_KEY, self.spec.net.n_classes), (IMAGES_KEY, self.spec.bank_rows), (SIDE_KEY, self.data.side)]
        {
            let then = number(path, checkpoint, key)?;
            if then != now as u64 {
                return Err(Error::data(
                    path,
                    format!("the run had {then} {key}, the data has {now}: give the --data of the run"),
                ));
            }
        }
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
        self.step = number(path, checkpoint, STEP_KEY)? as u32;
        Ok(())
    }
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
        Some(super::checkpoint::TensorData::F32(data)) => Ok(data),
        _ => Err(Error::Internal(format!("{name} was not checked"))),
    }
}

/// A whole number in a checkpoint's metadata.
///
/// # Errors
/// [`Error::Data`] when it is missing: the file is not a checkpoint of this program.
pub fn number(path: &Path, checkpoint: &Checkpoint, key: &str) -> Result<u64> {
    checkpoint.metadata.get(key).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::data(path, format!("its metadata has no {key:?}: it was not written by `ieq-wgpu train`"))
    })
}

/// The configuration in a checkpoint.
///
/// # Errors
/// [`Error::Data`] when it is missing or malformed.
pub fn stored_config(path: &Path, checkpoint: &Checkpoint) -> Result<Config> {
    let text = checkpoint
        .metadata
        .get(CONFIG_KEY)
        .ok_or_else(|| Error::data(path, "its metadata has no \"config\": it was not written by `ieq-wgpu train`"))?;
    Config::from_json(text, path)
}
