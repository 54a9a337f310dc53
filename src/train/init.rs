//! Starting from another network: which tensors of a checkpoint a run takes over, which it makes anew, and which find no
//! place in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkpoint::{Checkpoint, TRAINING_PREFIX, Tensor, TensorData};
use crate::error::Change;
use crate::nn::{Entry, in_backbone};
use crate::settings::{Backbone, ModelConfig};
use crate::{Error, Result};

/// A checkpoint that a run starts from.
#[derive(Clone, Debug)]
pub struct Init {
    /// Where it comes from, for messages.
    pub path: PathBuf,
    /// Its tensors; it needs no metadata.
    pub weights: Checkpoint,
}

/// What a run took over from a checkpoint, by the parts of a network: `layer1`, `classifier`, `eq_head`, `inv_head`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TakenOver {
    /// The checkpoint.
    pub from: PathBuf,
    /// Parts that the run starts with.
    pub taken: Vec<String>,
    /// Parts that the checkpoint lacks or has in another shape, each with the reason; they start as the seed says.
    pub remade: Vec<String>,
    /// What the checkpoint has and this network has not.
    pub left_out: Vec<String>,
}

impl TakenOver {
    /// A line per group for people.
    pub fn lines(&self) -> Vec<String> {
        let groups = [("taken over", &self.taken), ("made anew", &self.remade), ("left out", &self.left_out)];
        let lines = groups.into_iter().filter(|(_, parts)| !parts.is_empty());
        lines.map(|(what, parts)| format!("{what} from {}: {}", self.from.display(), parts.join(", "))).collect()
    }
}

/// The part of a network that a tensor belongs to.
fn part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// What a network of these tensors takes over: the names of the tensors, and the account. The blocks must fit; a head
/// that does not fit whole is made anew.
///
/// # Errors
/// [`Error::Conflict`] where the blocks are others, with the settings that would fit; [`Error::Data`] where the file holds
/// no such network.
pub(super) fn choose(init: &Init, entries: &[&Entry], model: &ModelConfig) -> Result<(BTreeSet<String>, TakenOver)> {
    let tensors = &init.weights.tensors;
    let fits = |entry: &Entry| tensors.get(&entry.name).is_some_and(|tensor| fits(tensor, entry));
    let mut account = TakenOver { from: init.path.clone(), ..TakenOver::default() };
    let mut names = BTreeSet::new();
    let mut parts: Vec<&str> = Vec::new();
    for entry in entries {
        if !parts.contains(&part(&entry.name)) {
            parts.push(part(&entry.name));
        }
    }
    for &one in &parts {
        let own: Vec<_> = entries.iter().filter(|entry| part(&entry.name) == one).collect();
        let misfit = own.iter().find(|entry| !fits(entry));
        match misfit {
            None => {
                names.extend(own.iter().map(|entry| entry.name.clone()));
                account.taken.push(one.to_owned());
            }
            Some(misfit) if in_backbone(one) => return Err(misfit_of_blocks(init, model, misfit)),
            Some(misfit) => account.remade.push(match tensors.get(&misfit.name) {
                None => one.to_owned(),
                Some(other) => {
                    format!("{one} ({} is {:?} there and {:?} here)", misfit.name, other.shape, misfit.shape)
                }
            }),
        }
    }
    if let Some(b) = (1..).find(|b| !parts.contains(&format!("layer{b}").as_str()))
        && let Some(more) = tensors.keys().find(|name| part(name) == format!("layer{b}"))
    {
        let shape = tensors.get(more).map(|tensor| tensor.shape.clone()).unwrap_or_default();
        return Err(other_blocks(init, model, &format!("it has {more} ({shape:?}) besides")));
    }
    let others = tensors.keys().map(|name| match name.starts_with(TRAINING_PREFIX) {
        true => "training state",
        false => part(name),
    });
    account.left_out =
        others.filter(|one| !parts.contains(one)).collect::<BTreeSet<_>>().into_iter().map(String::from).collect();
    Ok((names, account))
}

fn fits(tensor: &Tensor, entry: &Entry) -> bool {
    tensor.shape == entry.shape && matches!(tensor.data, TensorData::F32(_))
}

fn misfit_of_blocks(init: &Init, model: &ModelConfig, misfit: &Entry) -> Error {
    let there = match init.weights.tensors.get(&misfit.name) {
        None => format!("it has no {}", misfit.name),
        Some(other) => format!("{} is {:?} there and {:?} here", misfit.name, other.shape, misfit.shape),
    };
    other_blocks(init, model, &there)
}

/// The blocks are others: the settings that fit them, where the tensors say so.
fn other_blocks(init: &Init, model: &ModelConfig, why: &str) -> Error {
    let Some((backbone, widths)) = blocks(&init.weights) else {
        return Error::data(
            &init.path,
            format!("holds no blocks of a backbone under PyTorch's names (layer1.0.conv1.weight, ...): {why}"),
        );
    };
    let widths_there = widths.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut changes = Vec::new();
    if backbone != model.backbone {
        changes.push(Change::Set("model.backbone", backbone.to_string()));
    }
    if widths != model.widths {
        changes.push(Change::Set("model.widths", widths_there.clone()));
    }
    if changes.is_empty() {
        return Error::data(&init.path, format!("is not whole: {why}; copy it again or name another checkpoint"));
    }
    let here = model.widths.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    Error::Conflict {
        keys: vec!["run.init", "model.widths"],
        why: format!(
            "{}: the network there is a {backbone} of widths {widths_there}, and this run's a {} of widths {here}",
            init.path.display(),
            model.backbone
        ),
        changes,
    }
}

/// Backbone and widths of a checkpoint's blocks, by names and shapes; none where it has no such blocks.
pub fn blocks(weights: &Checkpoint) -> Option<(Backbone, Vec<usize>)> {
    let kinds = [(Backbone::Resnet12, "0.conv1.weight"), (Backbone::Conv4, "0.weight")];
    let channels = |name: String| weights.tensors.get(&name).and_then(|tensor| tensor.shape.first()).copied();
    let found = kinds.map(|(kind, first)| (kind, (1..).map_while(|b| channels(format!("layer{b}.{first}"))).collect()));
    found.into_iter().find(|(_, widths): &(_, Vec<usize>)| !widths.is_empty())
}

/// The fingerprinted numbers of a checkpoint's network: without training state, in the order of names.
pub(super) fn numbers(tensors: &BTreeMap<String, Tensor>) -> Vec<&[u32]> {
    let network = tensors.iter().filter(|(name, _)| !name.starts_with(TRAINING_PREFIX));
    let floats = network.filter_map(|(_, tensor)| match &tensor.data {
        TensorData::F32(numbers) => Some(bytemuck::cast_slice(numbers)),
        TensorData::I64(_) => None,
    });
    floats.collect()
}

/// Refuses what the run was not begun with, `path` being the checkpoint's that continues.
pub(super) fn check(path: &Path, then: Option<&str>, now: Option<&str>) -> Result<()> {
    match now {
        Some(now) if then != Some(now) => Err(Error::data(
            path,
            "the run was not begun with this `run.init`: leave it out, a resumed run needs none, or start a new run",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::settings::Config;
    use crate::train::record::{DataShape, training_step};

    fn entries(config: &Config, classes: usize) -> Vec<Entry> {
        let shape = DataShape { side: 28, classes, images: 64 };
        let (_, recorded) = training_step(config, shape, false, true).unwrap();
        [recorded.step.parameters, recorded.step.statistics].concat()
    }

    fn init(config: &Config, classes: usize) -> Init {
        let tensors = entries(config, classes).into_iter().map(|entry| {
            let n = entry.shape.iter().product();
            (entry.name, Tensor::f32(entry.shape, vec![0.5; n]))
        });
        let weights = Checkpoint { tensors: tensors.collect(), ..Checkpoint::default() };
        Init { path: "there.safetensors".into(), weights }
    }

    #[test]
    fn blocks_are_taken_over_and_heads_that_do_not_fit_are_made_anew() {
        let config = Config::from_preset("demo").unwrap();
        let own = entries(&config, 5);
        let own: Vec<&Entry> = own.iter().collect();
        let mut other = init(&config, 7);
        other.weights.tensors.insert("train.bank".into(), Tensor::f32([1], vec![0.0]));
        other.weights.tensors.insert("decoder.weight".into(), Tensor::f32([1], vec![0.0]));
        let (names, account) = choose(&other, &own, &config.model).unwrap();
        assert_eq!(account.taken, ["layer1", "layer2", "layer3", "layer4", "eq_head", "inv_head"]);
        assert_eq!(account.remade, ["classifier (classifier.weight is [28, 64] there and [20, 64] here)"]);
        assert_eq!(account.left_out, ["decoder", "training state"]);
        assert_eq!(account.lines().len(), 3);
        assert!(names.contains("layer1.0.bn1.running_var") && !names.contains("classifier.bias"));
        let same = choose(&init(&config, 5), &own, &config.model).unwrap();
        assert!(same.1.remade.is_empty() && same.0.len() == own.len());
    }

    #[test]
    fn other_blocks_are_refused_with_the_settings_that_fit() {
        let config = Config::from_preset("demo").unwrap();
        let own = entries(&config, 5);
        let own: Vec<&Entry> = own.iter().collect();
        for (spoil, words) in [
            ((|c: &mut Config| c.model.widths = vec![8, 16, 32, 48]) as fn(&mut Config), "model.widths = 8,16,32,48"),
            (|c| c.model.widths = vec![8, 16, 32], "model.widths = 8,16,32"),
            (|c| (c.model.widths, c.data.side) = (vec![4; 4], Some(28)), "model.widths = 4,4,4,4"),
            (|c| c.model.backbone = Backbone::Conv4, "model.backbone = conv4"),
        ] {
            let mut other = config.clone();
            spoil(&mut other);
            let error = choose(&init(&other, 5), &own, &config.model).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let mut five = config.clone();
        (five.model.widths, five.data.side) = (vec![8, 16, 32, 64, 8], Some(32));
        let shape = DataShape { side: 32, classes: 5, images: 64 };
        let (_, recorded) = training_step(&five, shape, false, true).unwrap();
        let mut more = init(&config, 5);
        for entry in recorded.step.parameters.iter().filter(|entry| entry.name.starts_with("layer5")) {
            let n = entry.shape.iter().product();
            more.weights.tensors.insert(entry.name.clone(), Tensor::f32(entry.shape.clone(), vec![0.0; n]));
        }
        let error = choose(&more, &own, &config.model).unwrap_err().to_string();
        assert!(error.contains("model.widths = 8,16,32,64,8"), "{error}");
        let mut torn = init(&config, 5);
        torn.weights.tensors.remove("layer2.0.bn1.weight");
        assert!(choose(&torn, &own, &config.model).unwrap_err().to_string().contains("is not whole"));
        let empty = Init { path: "a".into(), weights: Checkpoint::default() };
        assert!(choose(&empty, &own, &config.model).unwrap_err().to_string().contains("no blocks"));
    }
}
