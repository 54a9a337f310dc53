//! `export`: the network of a checkpoint in the form of another program.

use std::path::PathBuf;

use serde::Serialize;

use super::stored::Stored;
pub use super::supply::unseen;
use super::{Session, model, output_file};
use crate::files::replace_file;
use crate::nn::NetSpec;
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::checkpoint::{Checkpoint, TRAINING_PREFIX, Tensor};
use crate::train::features::check;
use crate::train::onnx;
use crate::train::state::STEP_KEY;
use crate::{Error, Result};

/// What the name of a running mean ends with, beside which PyTorch has a counter of batches.
const MEAN: &str = ".running_mean";
/// That counter.
const COUNTER: &str = ".num_batches_tracked";
/// Metadata key of the network in a few words of JSON, for programs that build it.
const NETWORK_KEY: &str = "network";

/// A form of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Tensors with PyTorch's names, and metadata.
    Safetensors,
    /// A file of PyTorch's.
    Pth,
    /// The network up to its embedding, with the normalisation, as an ONNX model.
    Onnx,
}

impl Target {
    /// The names of the forms.
    pub const NAMES: &[&str] = &["safetensors", "pth", "onnx"];

    /// The name in requests, and the ending of files.
    pub fn name(self) -> &'static str {
        match self {
            Target::Safetensors => "safetensors",
            Target::Pth => "pth",
            Target::Onnx => "onnx",
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = [Target::Safetensors, Target::Pth, Target::Onnx].into_iter().find(|target| target.name() == text);
        found.ok_or_else(|| format!("one of {} is wanted, got `{text}`", Target::NAMES.join(", ")))
    }
}

/// A network to write.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportRequest {
    /// The network: see [`model::open`].
    pub checkpoint: PathBuf,
    /// Settings of a network that has none, as another program's.
    pub settings: Option<Config>,
    /// Its new form.
    pub to: Target,
    /// The file; none: `network.pth` and so on.
    pub out: Option<PathBuf>,
    /// Replace a file that is there.
    pub overwrite: bool,
}

/// A network in the words that a program needs to build it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct About {
    /// `resnet12` or `conv4`.
    pub backbone: String,
    /// Channels per block.
    pub widths: Vec<usize>,
    /// Rows of the classifier.
    pub classes: usize,
    /// Rows of the transform head, where there is one.
    pub transforms: Option<usize>,
    /// Rows of the invariance head, where there is one.
    pub projection: Option<usize>,
    /// Side of the images, pixels.
    pub side: usize,
    /// What is subtracted from each channel (R, G, B) of an image of 0 to 1.
    pub mean: [f64; 3],
    /// What it is divided by then.
    pub std: [f64; 3],
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportOutcome {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The file.
    pub out: PathBuf,
    /// Its form.
    pub to: Target,
    /// Its bytes.
    pub bytes: usize,
    /// The network.
    pub network: About,
}

impl About {
    fn of(config: &Config, net: &NetSpec, side: usize) -> About {
        About {
            backbone: net.backbone.to_string(),
            widths: net.widths.clone(),
            classes: net.n_classes,
            transforms: net.n_transforms,
            projection: net.projection,
            side,
            mean: config.data.mean,
            std: config.data.std,
        }
    }

    fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::Internal(error.to_string()))
    }
}

/// The network alone, with PyTorch's counters of batches and what is known of it.
fn network(checkpoint: &Checkpoint, about: &About) -> Result<Checkpoint> {
    let mut all = checkpoint.clone();
    all.tensors.retain(|name, _| !name.starts_with(TRAINING_PREFIX));
    let steps = all.metadata.get(STEP_KEY).and_then(|steps| steps.parse().ok()).unwrap_or(0);
    let counters: Vec<String> =
        all.tensors.keys().filter_map(|name| Some(format!("{}{COUNTER}", name.strip_suffix(MEAN)?))).collect();
    for name in counters {
        all.tensors.entry(name).or_insert_with(|| Tensor::i64(Vec::new(), vec![steps]));
    }
    all.metadata.insert(NETWORK_KEY.into(), about.to_json()?);
    Ok(all)
}

/// Opens the network that a request names.
fn open(request: &ExportRequest, progress: &mut dyn Progress) -> Result<Stored> {
    let unknown = || Err(Error::usage("name the network, as in shipped:strokes: no pictures choose it here"));
    match &request.settings {
        None => model::open(&request.checkpoint, &mut { unknown }, progress),
        Some(settings) => {
            let file = model::resolve(&request.checkpoint, &mut { unknown }, progress)?;
            Stored::with(model::read(&file)?, settings)
        }
    }
}

/// Writes a network.
///
/// # Errors
/// A checkpoint that cannot be read or used, and a file that is there or cannot be written.
pub fn run(request: &ExportRequest, _: &Session, progress: &mut dyn Progress) -> Result<ExportOutcome> {
    let out = request.out.clone().unwrap_or_else(|| format!("network.{}", request.to.name()).into());
    output_file("request.out", &out, &format!("network.{}", request.to.name()))?;
    if out.exists() && !request.overwrite {
        return Err(Error::data(
            &out,
            "this file is there already: replace it with `request.overwrite`, or name another with `request.out`",
        ));
    }
    let stored = open(request, progress)?;
    let (config, net, side) = check(&stored.file, &stored.checkpoint)?;
    let about = About::of(&config, &net, side);
    let bytes = match request.to {
        Target::Safetensors => network(&stored.checkpoint, &about)?.to_bytes(),
        Target::Pth => network(&stored.checkpoint, &about)?.to_pytorch(),
        Target::Onnx => {
            let input = (about.mean, about.std);
            onnx::model(&stored.checkpoint, &net, side, input, &[(NETWORK_KEY, &about.to_json()?)])
        }
    }?;
    replace_file(&out, "cannot write the network", &bytes)?;
    Ok(ExportOutcome { checkpoint: stored.file, out, to: request.to, bytes: bytes.len(), network: about })
}
