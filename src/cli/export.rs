//! `export`.

use std::path::PathBuf;

use super::Context;
use super::args::{choice, count, number};
use super::report::shell_word;
use crate::error::Change;
use crate::jobs::export::{self, ExportOutcome, ExportRequest, Target};
use crate::settings::{ByteSize, Config, put};
use crate::{Error, Result};

const SETTINGS: &str = "Settings of a network that has none";

/// Write a network for PyTorch or as ONNX
///
/// safetensors, pth: the weights with PyTorch's names, without the state of the training, for
/// load_state_dict(strict=True); the class is examples/resnet12.py of the sources, which builds the network from what the
/// file says of it (backbone, widths, heads, side, mean, std). A .pth is {"model": state dict, "metadata": {..}}, for
/// torch.load(.., weights_only=True).
///
/// Input of the network: RGB, (pixels / 255 - mean) / std per channel.
///
/// onnx: the network up to its embedding, normalisation included. Input `images`: float32 [N, 3, side, side], RGB of 0 to
/// 255; output `features`: float32 [N, columns]. Any N; opset 17.
///
/// From PyTorch: a checkpoint may be a .pth wherever one is named. What its tensors do not say (side, mean and std of the
/// images) is given here once, or by a file of settings beside it, net.toml for net.pth: preset = "cifar-fs".
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ieq-wgpu export runs/demo --to pth --out demo.pth\n  \
    ieq-wgpu export resnet12.pth --preset mini-imagenet --to safetensors --out resnet12.safetensors\n  \
    ieq-wgpu export runs/demo --to onnx --out demo.onnx")]
pub struct Args {
    /// Checkpoint (.safetensors, .pth) or run folder
    ///
    /// Of a run folder the network that validated best (best.safetensors), or else the last one. `shipped:strokes` and
    /// `shipped:pictures` are networks of the program's own.
    checkpoint: PathBuf,
    /// safetensors, pth or onnx
    #[arg(long, value_name = "NAME", value_parser = choice::<Target>(Target::NAMES), hide_possible_values = true)]
    to: Target,
    /// File to write [default: network.NAME]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
    /// Preset with the images' side, mean and std
    #[arg(long, value_name = "NAME", help_heading = SETTINGS)]
    preset: Option<String>,
    /// File of settings
    #[arg(long, value_name = "FILE", help_heading = SETTINGS)]
    config: Option<PathBuf>,
    /// Image side, pixels
    #[arg(long, value_name = "S", value_parser = count, help_heading = SETTINGS)]
    side: Option<usize>,
    /// Mean per channel, 0 to 1
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', value_parser = number, help_heading = SETTINGS)]
    mean: Vec<f64>,
    /// Standard deviation per channel
    #[arg(long, value_name = "R,G,B", value_delimiter = ',', value_parser = number, help_heading = SETTINGS)]
    std: Vec<f64>,
}

impl Args {
    /// The settings that the flags give, where they give any.
    fn settings(&self) -> Result<Option<Config>> {
        let mut layer = self.config.as_ref().map_or(Ok(toml::Table::new()), |file| Config::written_layer(file))?;
        if let Some(side) = self.side {
            put(&mut layer, "data.side", toml::Value::Integer(side as i64));
        }
        for (key, values) in [("data.mean", &self.mean), ("data.std", &self.std)] {
            match values.as_slice() {
                [] => {}
                // One number is for all channels.
                [one] => put(&mut layer, key, vec![*one; 3].into()),
                all => put(&mut layer, key, all.to_vec().into()),
            }
        }
        let mut config = match (&self.preset, &self.config) {
            (preset, Some(file)) => Config::from_layers(preset.as_deref(), file)?,
            (Some(preset), None) => Config::from_preset(preset)?,
            (None, None) if layer.is_empty() => return Ok(None),
            (None, None) => Config::default(),
        };
        config.lay(&layer)?;
        let missing = export::unseen(&config, &layer);
        if !missing.is_empty() {
            return Err(Error::Conflict {
                keys: missing,
                why: "no tensor says it, and it is not given".into(),
                changes: vec![Change::Set("preset", "cifar-fs".into())],
            });
        }
        config.validate()?;
        Ok(Some(config))
    }
}

/// Writes and says what.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let settings = args.settings()?;
    let Args { checkpoint, to, out, overwrite, .. } = args;
    let request = ExportRequest { checkpoint, settings, to, out, overwrite };
    let outcome = context.with_progress(|progress| export::run(&request, &context.session, progress))?;
    context.report.result("export", &outcome, || text(&outcome))?;
    let file = shell_word(&outcome.out);
    context.note(&match outcome.to {
        Target::Onnx => {
            let file = outcome.out.display().to_string();
            format!("next: onnxruntime.InferenceSession({file:?}).run(None, {{\"images\": pixels}})")
        }
        _ => format!("next: `python examples/resnet12.py {file} PICTURE` of the sources embeds a picture in PyTorch"),
    });
    Ok(())
}

fn text(outcome: &ExportOutcome) -> String {
    let ExportOutcome { out, network, bytes, .. } = outcome;
    let widths: Vec<_> = network.widths.iter().map(usize::to_string).collect();
    let list = |values: [f64; 3]| values.map(|value| value.to_string()).join(",");
    format!(
        "{}: {}, widths {}, {}; input: RGB, {side} x {side} pixels, {}(pixels / 255 - mean) / std with mean {} and std {}",
        out.display(),
        network.backbone,
        widths.join(","),
        ByteSize(*bytes as u64).rounded(),
        if outcome.to == Target::Onnx { "of 0 to 255; it takes " } else { "" },
        list(network.mean),
        list(network.std),
        side = network.side
    )
}
