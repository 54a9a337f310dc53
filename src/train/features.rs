//! Features of images from a trained network in evaluation mode.

use std::collections::VecDeque;
use std::path::Path;

use super::checkpoint::Checkpoint;
use super::limit_submission_time;
use super::record::{evaluation_passes, net_spec, views_operation};
use super::state::{CLASSES_KEY, expected, load, number, stored_config, stored_side};
use crate::data::ImageSet;
use crate::gpu::clock::Clock;
use crate::gpu::kernel::Kernels;
use crate::ier::optimise::AVERAGE;
use crate::ier::transforms::ViewSampler;
use crate::nn::{Drop, Entry, Heads, Mode, Net, NetSpec, Outputs};
use crate::ops::views::{PARAMETER_WORDS, identity_words};
use crate::progress::Progress;
use crate::settings::Config;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::readback::Readback;
use crate::tape::{Graph, Type, ValueId};
use crate::{Error, Result};

/// The most images of one pass.
const BATCH: usize = 64;

/// An output of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The embedding.
    Feature,
    /// Class logits; only where the checkpoint has a classifier.
    Class,
    /// Transform logits; only where the network was trained with them.
    Transform,
    /// Invariant embedding; only where the network was trained with it.
    Invariant,
}

impl Layer {
    /// The names of the layers.
    pub const NAMES: &[&str] = &["feat", "class", "transform", "invariant"];

    /// The name in requests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Feature => "feat",
            Layer::Class => "class",
            Layer::Transform => "transform",
            Layer::Invariant => "invariant",
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Layer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [Layer::Feature, Layer::Class, Layer::Transform, Layer::Invariant];
        let found = all.into_iter().find(|layer| layer.name() == text);
        found.ok_or_else(|| format!("one of {} is wanted, got `{text}`", Layer::NAMES.join(", ")))
    }
}

/// The handles of the network in evaluation mode.
pub(super) struct Evaluation {
    images: ValueId,
    index: ValueId,
    parameters: ValueId,
    outputs: Outputs,
    entries: Vec<Entry>,
}

/// The network in evaluation mode on a device, made for batches of images.
pub struct Extractor {
    executor: Executor,
    recorded: Evaluation,
    batch: usize,
    side: usize,
    padding: usize,
    /// Whether there is a classifier.
    classifies: bool,
}

/// Passes of a network over batches that follow each other: the device has the next one while the last is read.
pub struct Batches<'e> {
    extractor: &'e Extractor,
    width: usize,
    /// Taken in turn.
    readbacks: [Readback; 2],
    begun: usize,
    /// Images of the passes that are not read yet, the oldest first.
    under_way: VecDeque<usize>,
}

impl Batches<'_> {
    /// Numbers per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Passes that were begun and not read.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Begins a pass over the images in `pixels`, RGBA8 words back to back, at most [`Extractor::batch`] of them. Does not
    /// wait for it. At most two passes are under way.
    ///
    /// # Errors
    /// [`Error::Argument`] for a part of an image, too many, or a third pass; [`Error::Device`] when the device fails.
    pub async fn begin_async(&mut self, mut pixels: Vec<u32>) -> Result<()> {
        let Extractor { executor, recorded, batch, side, .. } = self.extractor;
        let size = side * side;
        let n = pixels.len() / size.max(1);
        if pixels.len() != n * size || n > *batch {
            let wanted = format!("whole images of {side} x {side}, at most {batch}");
            return Err(Error::Argument { what: "the pixels of a pass", got: pixels.len().to_string(), wanted });
        }
        if self.under_way.len() == self.readbacks.len() {
            let (got, wanted) = ("a third".into(), "one of two: read the oldest first".into());
            return Err(Error::Argument { what: "a pass", got, wanted });
        }
        pixels.resize(batch * size, 0);
        executor.write_async(recorded.images, &pixels).await?;
        executor.submit_async().await?;
        self.readbacks[self.begun % self.readbacks.len()].copy(executor)?;
        self.begun += 1;
        self.under_way.push_back(n);
        Ok(())
    }

    /// The rows of the oldest pass under way, `[images, width]`; waits for it. Empty where there is none.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub async fn finish_async(&mut self) -> Result<Vec<f32>> {
        let oldest = self.begun - self.under_way.len();
        let Some(n) = self.under_way.pop_front() else { return Ok(Vec::new()) };
        let words = self.readbacks[oldest % self.readbacks.len()].take_async(&self.extractor.executor).await?;
        Ok(words[..n * self.width].iter().map(|&bits| f32::from_bits(bits)).collect())
    }

    /// As [`Batches::begin_async`]; blocks until the pass is submitted.
    ///
    /// # Errors
    /// As [`Batches::begin_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn begin(&mut self, pixels: Vec<u32>) -> Result<()> {
        pollster::block_on(self.begin_async(pixels))
    }

    /// As [`Batches::finish_async`]; blocks.
    ///
    /// # Errors
    /// As [`Batches::finish_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn finish(&mut self) -> Result<Vec<f32>> {
        pollster::block_on(self.finish_async())
    }
}

fn without_head() -> Error {
    Error::usage("the network was trained without this head: choose another layer")
}

/// More classes than any data set has, and a classifier that no adapter holds.
const MAX_CLASSES: usize = 1_000_000;

/// Names of the tensors of the classifier begin so. Shipped networks have none: their classes are nobody else's.
const CLASSIFIER: &str = "classifier.";

/// Whether a checkpoint has a classifier.
fn classifies(checkpoint: &Checkpoint) -> bool {
    checkpoint.tensors.keys().any(|name| name.starts_with(CLASSIFIER))
}

/// The entries that a checkpoint has to have.
fn wanted(entries: &[Entry], checkpoint: &Checkpoint) -> Vec<Entry> {
    let all = classifies(checkpoint);
    entries.iter().filter(|entry| all || !entry.name.starts_with(CLASSIFIER)).cloned().collect()
}

/// The settings of a checkpoint, its network, and the side of its images. Where it has no classifier, the network has an
/// empty one of two classes.
fn described(path: &Path, checkpoint: &Checkpoint) -> Result<(Config, NetSpec, usize)> {
    let config = stored_config(path, checkpoint)?;
    let classes = match classifies(checkpoint) {
        true => number(path, checkpoint, CLASSES_KEY)? as usize,
        false => 2,
    };
    let side = stored_side(path, checkpoint, &config)?;
    if !(2..=MAX_CLASSES).contains(&classes) {
        return Err(Error::data(
            path,
            format!("it claims {classes} classes, and a network has 2 to {MAX_CLASSES}: copy the checkpoint again"),
        ));
    }
    let net = net_spec(&config, classes);
    Ok((config, net, side))
}

/// As an [`Extractor`] reads it, without a device: the settings of a checkpoint, its network, whose tensors are all there, and
/// the side of its images.
///
/// # Errors
/// As [`Extractor::open_async`].
pub fn check(path: &Path, checkpoint: &Checkpoint) -> Result<(Config, NetSpec, usize)> {
    let (config, net, side) = described(path, checkpoint)?;
    let (_, recorded) = evaluation(&config, &net, side, 1)?;
    checkpoint.check_against(path, &expected(&wanted(&recorded.entries, checkpoint)))?;
    Ok((config, net, side))
}

/// Names and shapes of the tensors of a classifier of two classes on this network.
///
/// # Errors
/// [`crate::Error::Shape`] when the images are too small for the network.
pub fn classifier(config: &Config, side: usize) -> Result<Vec<(String, Vec<usize>)>> {
    let (_, recorded) = evaluation(config, &net_spec(config, 2), side, 1)?;
    let entries = recorded.entries.into_iter().filter(|entry| entry.name.starts_with(CLASSIFIER));
    Ok(entries.map(|entry| (entry.name, entry.shape)).collect())
}

/// The network in evaluation mode, over one batch of images: no more than `rows`, what a training step has room for.
///
/// # Errors
/// [`crate::Error::Shape`] when the images are too small for the network.
pub(super) fn evaluation(config: &Config, net: &NetSpec, side: usize, rows: usize) -> Result<(Graph, Evaluation)> {
    let batch = rows.min(BATCH);
    let mut graph = Graph::new();
    let input = |graph: &mut Graph, name: &str, shape: Vec<usize>| {
        graph.in_arena(&format!("evaluation {name}"), name, Type::u32(shape), false)
    };
    let images = input(&mut graph, "images", vec![batch, side, side]);
    let index = input(&mut graph, "view index", vec![batch]);
    let parameters = input(&mut graph, "view parameters", vec![batch, PARAMETER_WORDS]);
    let x = graph.one(views_operation(config, side, 1, 1), &[images, index, parameters])?;
    // A run with an average of its weights is scored by that.
    let weights = if config.optimiser.average > 0.0 { AVERAGE } else { "" };
    let mut network = Net::new(&mut graph, weights, Mode::Eval);
    let (outputs, _) = network.forward(x, net, Heads::ALL, &Drop::Off)?;
    let entries = [network.parameters, network.statistics].concat();
    for output in [Some(outputs.feat), Some(outputs.class), outputs.transform, outputs.invariant] {
        output.into_iter().for_each(|o| graph.keep(o));
    }
    evaluation_passes(config).apply(&mut graph)?;
    Ok((graph, Evaluation { images, index, parameters, outputs, entries }))
}

impl Extractor {
    /// Shares the arenas `parameters` and `statistics`, or those of their averages, with a network that is being trained.
    pub(super) async fn shared(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        config: &Config,
        net: &NetSpec,
        side: usize,
        rows: usize,
        clock: Option<Clock>,
    ) -> Result<Self> {
        let (graph, recorded) = evaluation(config, net, side, rows)?;
        let batch = graph.shape(recorded.index)[0];
        let mut executor = Executor::new_async(kernels, arenas, graph).await?;
        limit_submission_time(&mut executor, config, clock);
        executor.write_async(recorded.index, &(0..batch as u32).collect::<Vec<_>>()).await?;
        Ok(Extractor { executor, recorded, batch, side, padding: config.data.crop_padding_for(side), classifies: true })
    }

    /// The network of a checkpoint, or with `untrained` the one its run began with. `kernels` is a device, or kernels
    /// on it. Without a clock `run.slice_ms` has no effect: it divides a pass by measured time.
    ///
    /// # Errors
    /// [`crate::Error::Data`] when the file is not a checkpoint or does not fit its own configuration.
    pub async fn open_async(
        kernels: impl Into<Kernels>,
        path: &Path,
        checkpoint: &Checkpoint,
        untrained: bool,
        clock: Option<Clock>,
    ) -> Result<(Self, Config)> {
        Self::open_batch_async(kernels, path, checkpoint, untrained, clock, BATCH).await
    }

    /// As [`Extractor::open_async`], for passes of `batch` images, at most 64: a pass costs as much whatever part of it is
    /// wanted, and a caller who wants one image waits least for a batch of 1.
    ///
    /// # Errors
    /// As [`Extractor::open_async`].
    pub async fn open_batch_async(
        kernels: impl Into<Kernels>,
        path: &Path,
        checkpoint: &Checkpoint,
        untrained: bool,
        clock: Option<Clock>,
        batch: usize,
    ) -> Result<(Self, Config)> {
        let mut kernels = kernels.into();
        let (mut config, net, side) = described(path, checkpoint)?;
        // What the run's device chose is its own.
        config.run.winograd = config.as_given()?.run.winograd.resolved(kernels.gpu().is_software());
        let mut extractor =
            Self::shared(&mut kernels, &mut Arenas::new(), &config, &net, side, batch.max(1), clock).await?;
        extractor.classifies = classifies(checkpoint);
        let entries = wanted(&extractor.recorded.entries, checkpoint);
        checkpoint.check_against(path, &expected(&entries))?;
        if untrained {
            for (position, entry) in extractor.recorded.entries.iter().enumerate() {
                extractor.executor.write_async(entry.value, &entry.initial(config.run.seed, position)).await?;
            }
        } else {
            load(&extractor.executor, &entries, checkpoint).await?;
        }
        Ok((extractor, config))
    }

    /// As [`Extractor::open_async`], with the system's clock; blocks.
    ///
    /// # Errors
    /// As [`Extractor::open_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(
        kernels: impl Into<Kernels>,
        path: &Path,
        checkpoint: &Checkpoint,
        untrained: bool,
    ) -> Result<(Self, Config)> {
        pollster::block_on(Self::open_async(kernels, path, checkpoint, untrained, Some(super::clock)))
    }

    /// Side of the images it takes.
    pub fn side(&self) -> usize {
        self.side
    }

    /// The most images of one pass.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Passes over batches of images that follow each other, without augmentation.
    ///
    /// # Errors
    /// [`Error::Usage`] when the network lacks the layer; [`Error::Device`] when the device fails.
    pub async fn batches_async(&self, layer: Layer) -> Result<Batches<'_>> {
        let value = self.value(layer).ok_or_else(without_head)?;
        let words = identity_words(self.side, self.padding, self.batch);
        self.executor.write_async(self.recorded.parameters, &words).await?;
        let readbacks = [
            Readback::new_async(&self.executor, &[value]).await?,
            Readback::new_async(&self.executor, &[value]).await?,
        ];
        let width = self.executor.graph().shape(value)[1];
        Ok(Batches { extractor: self, width, readbacks, begun: 0, under_way: VecDeque::new() })
    }

    /// As [`Extractor::batches_async`]; blocks.
    ///
    /// # Errors
    /// As [`Extractor::batches_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn batches(&self, layer: Layer) -> Result<Batches<'_>> {
        pollster::block_on(self.batches_async(layer))
    }

    /// Columns of an output, if the network has it.
    pub fn width(&self, layer: Layer) -> Option<usize> {
        self.value(layer).map(|v| self.executor.graph().shape(v)[1])
    }

    fn value(&self, layer: Layer) -> Option<ValueId> {
        match layer {
            Layer::Feature => Some(self.recorded.outputs.feat),
            Layer::Class => self.classifies.then_some(self.recorded.outputs.class),
            Layer::Transform => self.recorded.outputs.transform,
            Layer::Invariant => self.recorded.outputs.invariant,
        }
    }

    /// The output of every image, `[images, width]` row-major. The images have the [`side`](Extractor::side) of the
    /// network; they need no labels.
    ///
    /// With a sampler the images are augmented (crop, flip) as copy number `copy`.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails; [`Error::Usage`] when the network lacks the layer; [`Error::Argument`]
    /// when the images have another side, or not all their pixels; [`Error::Interrupted`] when the caller asks to stop.
    pub async fn features_async(
        &self,
        images: &ImageSet,
        layer: Layer,
        augmented: Option<(&ViewSampler, u32)>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<f32>> {
        let value = self.value(layer).ok_or_else(without_head)?;
        images.validate()?;
        if images.side != self.side {
            return Err(Error::Argument {
                what: "the side of the images",
                got: images.side.to_string(),
                wanted: format!("{}, the side that the network was trained on", self.side),
            });
        }
        let width = self.executor.graph().shape(value)[1];
        let size = self.side * self.side;
        let mut features = Vec::with_capacity(images.len() * width);
        if augmented.is_none() {
            let words = identity_words(self.side, self.padding, self.batch);
            self.executor.write_async(self.recorded.parameters, &words).await?;
        }
        for first in (0..images.len()).step_by(self.batch) {
            progress.go_on()?;
            let n = (images.len() - first).min(self.batch);
            let mut pixels = images.pixels[first * size..(first + n) * size].to_vec();
            pixels.resize(self.batch * size, 0);
            self.executor.write_async(self.recorded.images, &pixels).await?;
            if let Some((sampler, copy)) = augmented {
                // Each pass draws from its own counter, so a copy does not repeat over the passes.
                let pass = copy.wrapping_mul(1 << 16).wrapping_add((first / self.batch) as u32);
                self.executor.write_async(self.recorded.parameters, &sampler.parameters(pass, self.batch)).await?;
            }
            self.executor.submit_async().await?;
            let rows: Vec<f32> = self.executor.read_async(value).await?;
            features.extend_from_slice(&rows[..n * width]);
            progress.advance("embedding", (first + n) as u64, images.len() as u64);
        }
        Ok(features)
    }

    /// As [`Extractor::features_async`]; blocks.
    ///
    /// # Errors
    /// As [`Extractor::features_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn features(
        &self,
        images: &ImageSet,
        layer: Layer,
        augmented: Option<(&ViewSampler, u32)>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<f32>> {
        pollster::block_on(self.features_async(images, layer, augmented, progress))
    }
}
