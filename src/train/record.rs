//! From a configuration to the graph of its training step. Needs no device: `plan` uses it, too.

use crate::data::ImageSet;
use crate::error::Change;
use crate::ier::spec::{StepInputs, StepSpec};
use crate::ier::step::{Step, record};
use crate::ier::transforms::{Augmentation, ViewSampler};
use crate::nn::{Drop, NetSpec};
use crate::ops::adaptive_pool::AdaptiveAveragePool;
use crate::ops::factors::Factors;
use crate::ops::step_block::StepBlock;
use crate::ops::views::{PARAMETER_WORDS, Views};
use crate::settings::{
    Activations, BatchStatistics, Config, DataConfig, Matrix, Method, Schedule, TransformSet, Winograd,
};
use crate::tape::passes::Passes;
use crate::tape::{Graph, Type, ValueId};
use crate::{Error, Result};

/// What the data decides about a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataShape {
    /// Side of the images.
    pub side: usize,
    /// Training classes.
    pub classes: usize,
    /// Training images.
    pub images: usize,
}

/// Staging buffers of streamed images: one that the host fills, and one for each pass that may be under way.
pub const UPLOADS: usize = 3;

/// The handles of a recorded training step with its views.
pub struct RecordedStep {
    /// Forward, losses and update.
    pub step: Step,
    /// Packed pixels: all training images, or the batch's.
    pub images: ValueId,
    /// Which of them each batch slot takes, or each row where views are drawn.
    pub view_index: ValueId,
    /// Parameters of the views.
    pub view_parameters: ValueId,
    /// Whether `images` holds the whole training set.
    pub resident: bool,
}

impl DataShape {
    /// That of a training set.
    pub fn of(data: &ImageSet) -> Self {
        DataShape { side: data.side, classes: data.n_classes(), images: data.len() }
    }
}

/// Validates settings and data together, before anything is recorded: the schedule of the run.
///
/// # Errors
/// [`Error::Conflict`], [`Error::Usage`] or [`Error::Data`] where no run can come of them.
pub fn validate(config: &Config, data: DataShape) -> Result<Schedule> {
    config.check_side(data.side)?;
    if data.classes < 2 {
        return Err(Error::data(
            &config.data.source,
            "the train split has one class, and a classifier needs two or more: add classes",
        ));
    }
    let schedule = config.schedule(data.side, data.images)?;
    let spec = spec(config, data, false);
    if spec.net.projection.is_some() && spec.negatives == 0 {
        return Err(Error::Conflict {
            keys: vec!["optimiser.batch"],
            why: format!(
                "the batch of {} is all {} training images, which leaves no negatives",
                spec.batch, data.images
            ),
            changes: vec![Change::Lower("optimiser.batch")],
        });
    }
    Ok(schedule)
}

/// The transforms in effect: the baseline has one, the whole image unturned.
pub fn views_of(config: &Config) -> (TransformSet, usize, usize) {
    let set = config.method.transforms;
    match config.method.kind {
        Method::Ier => (set, set.views(), set.rotations()),
        Method::Baseline => (TransformSet::Rot4, 1, 1),
    }
}

/// What else happens to a view at random.
pub fn augmentation(config: &Config) -> Augmentation {
    let DataConfig { flip, jitter, .. } = config.data;
    Augmentation { crop: true, jitter: jitter as f32, flip }
}

/// The operation that makes views of images of `side` pixels: `views` of each, with each of `rotations`.
pub fn views_operation(config: &Config, side: usize, views: usize, rotations: usize) -> Views {
    let DataConfig { mean, std, .. } = config.data;
    let padding = config.data.crop_padding_for(side);
    Views { views, rotations, padding, float_images: false, mean: mean.map(|v| v as f32), std: std.map(|v| v as f32) }
}

/// Records views of images of `side` pixels from their images, index and parameters, at the scale at which the network is
/// shown them.
///
/// # Errors
/// [`crate::Error::Shape`] when the inputs do not fit together.
pub fn record_views(
    graph: &mut Graph,
    config: &Config,
    side: usize,
    (views, rotations): (usize, usize),
    inputs: [ValueId; 3],
) -> Result<ValueId> {
    let x = graph.one(views_operation(config, side, views, rotations), &inputs)?;
    let scaled = config.method.network_side(side);
    if scaled < side { graph.one(AdaptiveAveragePool { side: scaled }, &[x]) } else { Ok(x) }
}

/// What draws the views of a run on images of `side` pixels.
pub fn view_sampler(config: &Config, side: usize) -> ViewSampler {
    let padding = config.data.crop_padding_for(side);
    ViewSampler::new(views_of(config).0, side, padding, config.run.seed, augmentation(config))
}

/// The network of a configuration for this many classes.
pub fn net_spec(config: &Config, classes: usize) -> NetSpec {
    let terms = config.terms_of_all_phases();
    let (_, views, rotations) = views_of(config);
    let outputs = classes.saturating_mul(config.method.class_rotations());
    NetSpec::new(&config.model, outputs, terms.equivariance.then_some(views * rotations), terms.invariance)
}

/// The step of a configuration.
pub fn spec(config: &Config, data: DataShape, distill: bool) -> StepSpec {
    phase_spec(&net_spec(config, data.classes), config, data, distill)
}

/// The step of a phase with this configuration of a run that trains `net`.
pub fn phase_spec(net: &NetSpec, config: &Config, data: DataShape, distill: bool) -> StepSpec {
    let (method, batch, parts) = (&config.method, config.optimiser.batch, config.parts());
    let (copies, viewed) = (method.views_per_image(), method.viewed_of(batch / parts));
    let negatives = method.negatives.min(method.bank_recent.unwrap_or(usize::MAX));
    StepSpec {
        net: net.clone(),
        batch,
        parts,
        exchanged: false,
        joined: config.run.batch_norm == BatchStatistics::Exact,
        copies,
        viewed,
        drawn: copies < method.n_transforms() || (copies > 1 && viewed < batch / parts),
        class_rotations: method.class_rotations(),
        bank_rows: data.images,
        negatives: negatives.min(data.images.saturating_sub(batch)),
        method: config.method.clone(),
        optimiser: config.optimiser.clone(),
        distill: distill.then(|| config.distill.clone()),
    }
}

/// How `run.matrix` rounds factors; not at all while it is off or no device has decided.
pub fn factors(matrix: Matrix) -> Option<Factors> {
    match matrix {
        Matrix::Off | Matrix::Auto => None,
        Matrix::F16 => Some(Factors::F16),
        Matrix::F32x3 => Some(Factors::F32x3),
    }
}

/// The rewrites of a training step. Winograd only where `run.winograd` is on, and matrix units only where `run.matrix` names
/// factors: no device has decided while they are `auto`.
pub fn training_passes(config: &Config) -> Passes {
    Passes {
        half: config.run.activations == Activations::F16,
        recompute: config.run.recompute,
        matrix: factors(config.run.matrix),
        ..evaluation_passes(config)
    }
}

/// The rewrites of a network in evaluation mode, which keeps nothing for a backward pass and rounds no factor: embeddings are
/// the same wherever the run was trained.
pub fn evaluation_passes(config: &Config) -> Passes {
    Passes { winograd: config.run.winograd == Winograd::On, ..Passes::FUSE }
}

/// Records views, forward pass, losses, backward pass and update, and applies [`training_passes`]. `resident`: the
/// graph's input holds the whole training set, not only the batch. Where the batch is split it is the step of a
/// micro-batch.
///
/// # Errors
/// [`crate::Error::Shape`] or [`crate::Error::Usage`] when the configuration does not fit the data.
pub fn training_step(config: &Config, data: DataShape, distill: bool, resident: bool) -> Result<(Graph, RecordedStep)> {
    phase_step(&spec(config, data, distill), config, data, resident)
}

/// As [`training_step`], of the phase with this configuration whose step is `spec`.
///
/// # Errors
/// As [`training_step`].
pub fn phase_step(spec: &StepSpec, config: &Config, data: DataShape, resident: bool) -> Result<(Graph, RecordedStep)> {
    // Where views are drawn each row has parameters of its own, its rotation among them.
    let (_, views, rotations) = if spec.drawn { (config.method.transforms, 1, 1) } else { views_of(config) };
    let mut graph = Graph::new();
    let batch = spec.images();
    let shown = if spec.drawn { spec.rows() } else { batch };
    let stored = if resident { data.images } else { batch };
    let images = graph.input("images", Type::u32([stored, data.side, data.side]));
    let view_index = graph.input("view index", Type::u32([shown]));
    let view_parameters = graph.input("view parameters", Type::u32([views * shown, PARAMETER_WORDS]));
    let step = graph.input("step", StepBlock::ty());
    let index = graph.input("index", Type::u32([batch]));
    graph.set_scope("views");
    let x = record_views(&mut graph, config, data.side, (views, rotations), [images, view_index, view_parameters])?;
    let side = config.method.network_side(data.side);
    let inputs = StepInputs::declare(&mut graph, spec, x, step, index);
    let model = &config.model;
    let block = if model.drop_block.rate > 0.0 { model.drop_block.size.for_side(side) } else { 0 };
    let drop = match (model.dropout, block) {
        (0.0, 0) => Drop::Off,
        (dropout, block) => Drop::Random { step, dropout: dropout as f32, block },
    };
    let step = record(&mut graph, spec, inputs, &drop)?;
    training_passes(config).apply(&mut graph).map_err(|error| match error {
        Error::Argument { got, wanted, .. } => {
            Error::Setting { key: "run.recompute", got, wanted, suggestion: vec![Change::Lower("run.recompute")] }
        }
        other => other,
    })?;
    Ok((graph, RecordedStep { step, images, view_index, view_parameters, resident }))
}
