//! Settings of a checkpoint that has none in its metadata, because another program saved it: what its tensors say, over a
//! file of settings beside it or those that a request gives.

use std::path::{Path, PathBuf};

use toml::Table;

use crate::data::GLYPH_SIDE;
use crate::files::run_folder::CONFIG_FILE;
use crate::settings::{Backbone, Config, Method, TransformSet, at};
use crate::train::checkpoint::{Checkpoint, Tensor};
use crate::train::features::classifier;
use crate::train::init::blocks;
use crate::train::record::net_spec;
use crate::train::state::{CLASSES_KEY, CONFIG_KEY, SIDE_KEY};
use crate::{Error, Result};

/// The weight of a head's last layer, `[outputs, inputs]`: its rows say how many classes, transforms or outputs there are.
const CLASSIFIER: &str = "classifier.weight";
const TRANSFORMS: &str = "eq_head.6.weight";
const PROJECTION: &str = "inv_head.6.weight";
/// What no tensor says, as keys of a file of settings.
const UNSEEN: [&str; 3] = ["data.side", "data.mean", "data.std"];

/// What the names and shapes of tensors say of a network.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Network {
    backbone: Backbone,
    widths: Vec<usize>,
    outputs: Option<usize>,
    transforms: Option<usize>,
    projection: Option<usize>,
}

impl Network {
    /// The network of these tensors; none where they have no blocks.
    pub(super) fn of(checkpoint: &Checkpoint) -> Option<Network> {
        let rows = |name: &str| checkpoint.tensors.get(name).and_then(|tensor| tensor.shape.first()).copied();
        let (backbone, widths) = blocks(checkpoint)?;
        let [outputs, transforms, projection] = [CLASSIFIER, TRANSFORMS, PROJECTION].map(rows);
        Some(Network { backbone, widths, outputs, transforms, projection })
    }

    /// In words: `a resnet12 of widths 64,160,320,640, 64 classes, 16 transforms`.
    pub(super) fn words(&self) -> String {
        let widths: Vec<_> = self.widths.iter().map(usize::to_string).collect();
        let heads =
            [(self.outputs, "classes"), (self.transforms, "transforms"), (self.projection, "invariant outputs")];
        let heads = heads.into_iter().filter_map(|(rows, what)| Some(format!(", {} {what}", rows?)));
        format!("a {} of widths {}{}", self.backbone, widths.join(","), heads.collect::<String>())
    }

    /// Lays what the tensors say over `config`, which stays as it is where it says the same.
    fn lay(&self, config: &mut Config) {
        config.model.backbone = self.backbone;
        config.model.widths.clone_from(&self.widths);
        let spec = net_spec(config, 2);
        if (spec.n_transforms, spec.projection) == (self.transforms, self.projection) {
            return;
        }
        let method = &mut config.method;
        method.phases.clear();
        method.views = None;
        if (self.transforms, self.projection) == (None, None) {
            method.kind = Method::Baseline;
            return;
        }
        method.kind = Method::Ier;
        method.equivariance = self.transforms.is_some();
        method.invariance = self.projection.is_some();
        method.weight_equivariance = method.weight_equivariance.filter(|&weight| weight != 0.0);
        method.weight_invariance = method.weight_invariance.filter(|&weight| weight != 0.0);
        if let Some(projection) = self.projection {
            config.model.projection = projection;
        }
        // Which transforms they are changes no embedding; a head of 16 is the method's own set.
        match self.transforms {
            Some(n) if n == method.n_transforms() => {}
            Some(16) => method.transforms = TransformSet::Rot4Crop4,
            Some(4) => method.transforms = TransformSet::Rot4,
            Some(n) => method.transforms = TransformSet::Affine(u32::try_from(n).unwrap_or(u32::MAX)),
            None => {}
        }
    }
}

/// The file of settings beside a checkpoint: `net.toml` for `net.pth`, else the `config.toml` of a run.
fn beside(file: &Path) -> Option<PathBuf> {
    [file.with_extension("toml"), file.with_file_name(CONFIG_FILE)].into_iter().find(|path| path.is_file())
}

/// The keys that no tensor says and that neither `layer` nor its preset sets; `config` is what they made.
pub fn unseen(config: &Config, layer: &Table) -> Vec<&'static str> {
    let is_there = |key: &str| match key {
        "data.side" => config.data.side.is_some(),
        key => config.preset.is_some() || at(layer, key).is_some(),
    };
    UNSEEN.into_iter().filter(|key| !is_there(key)).collect()
}

/// The settings that `path` holds, which must say what no tensor does.
fn read(path: &Path) -> Result<Config> {
    let mut config = Config::from_layers(None, path)?;
    let layer = Config::written_layer(path)?;
    if config.data.side.is_none() && config.data.is_glyphs() && at(&layer, "data.source").is_some() {
        config.data.side = Some(GLYPH_SIDE);
    }
    let missing = unseen(&config, &layer);
    if missing.is_empty() {
        return Ok(config);
    }
    let names: Vec<String> = missing.iter().map(|key| format!("`{}`", key.trim_start_matches("data."))).collect();
    Err(Error::data(
        path,
        format!(
            "it sets no {}, and the checkpoint does not say it: add {} under [data], as the run's images had it, or the \
             preset of the run (preset = \"cifar-fs\")",
            missing.join(", "),
            names.join(", ")
        ),
    ))
}

/// Puts settings, classes and side into a checkpoint's metadata: what its tensors say, over `given` or, where nothing is
/// given, over the file of settings beside `file`. A network without a classifier, as encoders are published, gets one
/// of two classes that is all zeros: its embedding needs none.
///
/// # Errors
/// [`Error::Data`] where there is no such file, or something is missing from it or from the tensors.
pub(super) fn supply(file: &Path, checkpoint: &mut Checkpoint, given: Option<&Config>) -> Result<()> {
    let network = Network::of(checkpoint);
    let mut config = match (given, beside(file)) {
        (Some(given), _) => given.clone(),
        (None, Some(path)) => read(&path)?,
        (None, None) => {
            let words = network.map_or_else(String::new, |network| {
                format!(
                    "; its tensors are {}, and do not say side, mean and std of its images: `ieq-wgpu export FILE --to \
                     safetensors --preset cifar-fs --out new.safetensors` takes them from a preset, or from --side, --mean \
                     and --std",
                    network.words()
                )
            });
            return Err(Error::data(
                file,
                format!(
                    "its metadata has no \"config\", and no config.toml lies beside it: put that of the run there, or name a \
                     checkpoint that `ieq-wgpu train` wrote{words}"
                ),
            ));
        }
    };
    let Some(network) = network else {
        let first: Vec<&str> = checkpoint.tensors.keys().take(3).map(String::as_str).collect();
        return Err(Error::data(
            file,
            format!(
                "its tensors are no ResNet-12 or Conv4 (layer1.0.conv1.weight and so on): it has {}, ...: name another",
                first.join(", ")
            ),
        ));
    };
    network.lay(&mut config);
    let Some(side) = config.data.side else {
        return Err(Error::data(file, "does not say the side of its images: give it by data.side, or by a preset"));
    };
    // Nothing in the tensors says that classes are rotated ones.
    config.method.joint_labels = false;
    let classes = network.outputs.unwrap_or(2);
    if network.outputs.is_none() {
        for (name, shape) in classifier(&config, side)? {
            let zeros = vec![0.0; shape.iter().product()];
            checkpoint.tensors.insert(name, Tensor::f32(shape, zeros));
        }
    }
    let mut put = |key: &str, value: String| drop(checkpoint.metadata.insert(key.into(), value));
    put(CONFIG_KEY, config.to_json()?);
    put(CLASSES_KEY, classes.to_string());
    put(SIDE_KEY, side.to_string());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::train::state::{stored_config, stored_side};

    fn network(heads: &[(&str, usize)]) -> Checkpoint {
        let mut checkpoint = Checkpoint::default();
        let mut put = |name: String, shape: &[usize]| {
            let tensor = Tensor::f32(shape, vec![0.0; shape.iter().product()]);
            checkpoint.tensors.insert(name, tensor);
        };
        for (b, width) in [(1, 4), (2, 4), (3, 8), (4, 8)] {
            put(format!("layer{b}.0.conv1.weight"), &[width, 1, 1, 1]);
        }
        heads.iter().for_each(|(name, rows)| put(format!("{name}.weight"), &[*rows, 8]));
        checkpoint
    }

    #[test]
    fn tensors_say_all_but_what_the_images_were() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("net.pth");
        let all = [("classifier", 7), ("eq_head.6", 16), ("inv_head.6", 5)];
        let say = |text: &str| {
            std::fs::write(folder.path().join("net.toml"), text).unwrap();
            supply(&file, &mut network(&all), None)
        };
        let none = supply(&file, &mut network(&all), None).unwrap_err().to_string();
        assert!(none.contains("widths 4,4,8,8, 7 classes, 16 transforms, 5 invariant outputs"), "{none}");
        assert!(none.contains("put that of the run there") && none.contains("export FILE"), "{none}");
        let side = say("[data]\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]").unwrap_err().to_string();
        assert!(side.contains("net.toml: it sets no data.side") && side.contains("add `side` under [data]"), "{side}");
        let mean = say("[data]\nside = 32").unwrap_err().to_string();
        assert!(mean.contains("no data.mean, data.std") && mean.contains("add `mean`, `std`"), "{mean}");
        say("[data]\nside = 32\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]").unwrap();
        say("preset = \"cifar-fs\"").unwrap();
    }

    #[test]
    fn heads_say_the_method() {
        let preset = Config::from_preset("mini-imagenet").unwrap();
        for (heads, transforms, projection) in [
            (&[("classifier", 64)][..], None, None),
            (&[("classifier", 64), ("eq_head.6", 4)], Some(4), None),
            (&[("classifier", 64), ("eq_head.6", 9)], Some(9), None),
            (&[("classifier", 64), ("inv_head.6", 64)], None, Some(64)),
            (&[("classifier", 64), ("eq_head.6", 16), ("inv_head.6", 32)], Some(16), Some(32)),
        ] {
            let mut checkpoint = network(heads);
            supply(Path::new("net.pth"), &mut checkpoint, Some(&preset)).unwrap();
            let config = stored_config(Path::new("net.pth"), &checkpoint).unwrap();
            let spec = net_spec(&config, 64);
            assert_eq!((spec.n_transforms, spec.projection), (transforms, projection), "{heads:?}");
            assert_eq!((spec.widths.as_slice(), spec.n_classes), (&[4, 4, 8, 8][..], 64));
            assert_eq!(stored_side(Path::new("net.pth"), &checkpoint, &config).unwrap(), 84);
        }
        let mut headless = network(&[]);
        supply(Path::new("net.pth"), &mut headless, Some(&preset)).unwrap();
        assert_eq!(headless.tensors[CLASSIFIER].shape, [2, 8]);
        let mut other = Checkpoint::default();
        other.tensors.insert("blocks.0.weight".into(), Tensor::f32([1], vec![0.0]));
        let other = supply(Path::new("net.pth"), &mut other, Some(&preset)).unwrap_err().to_string();
        assert!(other.contains("no ResNet-12 or Conv4") && other.contains("blocks.0.weight"), "{other}");
    }
}
