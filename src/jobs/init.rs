//! The checkpoint that a training run starts from.

use std::sync::Arc;

use super::fit::Given;
use super::stored::Stored;
use super::{data_options, look_options, model};
use crate::data::{self, DataOptions, Split};
use crate::error::Change;
use crate::progress::Progress;
use crate::settings::{Config, put};
use crate::train::Trainer;
use crate::train::init::{Init, TakenOver, blocks};
use crate::train::recipe::{self, Choice, is_given};
use crate::{Error, Result};

/// Refuses settings that want a checkpoint to start from, and name none.
pub(super) fn check(config: &Config) -> Result<()> {
    let optimiser = &config.optimiser;
    let wants =
        [("optimiser.freeze", optimiser.freeze != 0), ("optimiser.backbone_rate", optimiser.backbone_rate != 1.0)];
    match wants.into_iter().find(|(_, set)| *set && config.run.init.is_none()) {
        None => Ok(()),
        Some((key, _)) => Err(Error::Conflict {
            keys: vec![key, "run.init"],
            why: format!("{key} is for blocks that were trained before, and there is no run.init that has them"),
            changes: vec![Change::Unset(key), Change::Set("run.init", "runs/other".into())],
        }),
    }
}

/// Where `run.init` is the word `shipped`, the network that suits the pictures takes its place.
///
/// # Errors
/// As [`model::resolve`].
pub(super) fn resolve(config: &mut Config, progress: &mut dyn Progress) -> Result<()> {
    let Some(path) = &config.run.init else { return Ok(()) };
    let options = DataOptions { side: look_options().side, ..data_options(&config.data, None) };
    let look = &mut || data::load(&config.data.source, Split::Train, &options);
    config.run.init = Some(model::resolve(path, look, progress)?);
    Ok(())
}

/// Where a recipe is in force and the network is not given, it is that of `run.init`, whose blocks are taken over: lays it
/// over `config`, and returns what then counts as given, with the choices.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] when there is no checkpoint that can be read.
fn network(config: &mut Config, given: &Given) -> Result<Option<(Given, Vec<Choice>)>> {
    let Some(path) = config.run.init.as_deref().filter(|_| given.recipe) else { return Ok(None) };
    let has = |key| is_given(&given.layer, key);
    // Without blocks the file is refused when they are taken over, and so are other widths or another backbone.
    let Some((backbone, widths)) = blocks(&model::read(path)?.1) else { return Ok(None) };
    if has("model.widths") || (has("model.backbone") && config.model.backbone != backbone) {
        return Ok(None);
    }
    let widths: Vec<toml::Value> = widths.into_iter().map(|width| toml::Value::Integer(width as i64)).collect();
    let choices = [
        Choice::new("model.backbone", backbone.to_string(), "that of run.init"),
        Choice::new("model.widths", widths, "those of run.init"),
    ];
    let choices = choices.into_iter().filter(|choice| !has(choice.key)).collect();
    let choices = recipe::lay(config, &toml::Table::new(), choices)?;
    let mut with = given.clone();
    choices.iter().for_each(|choice| put(&mut with.layer, choice.key, choice.value.clone()));
    Ok(Some((with, choices)))
}

/// What counts as given once the network of `run.init` is chosen, where it is; the choices join `choices`.
///
/// # Errors
/// As [`network`].
pub(super) fn given(config: &mut Config, given: Option<&Given>, choices: &mut Vec<Choice>) -> Result<Option<Given>> {
    let Some(own) = given else { return Ok(None) };
    Ok(Some(match network(config, own)? {
        Some((with, chosen)) => {
            choices.extend(chosen);
            with
        }
        None => own.clone(),
    }))
}

/// Gives the trainer the tensors of `run.init`. A run that goes on needs them no more; where it is given another path,
/// that must hold the same.
pub(super) fn begin(
    trainer: &mut Trainer,
    begun: Option<&Stored>,
    progress: &mut dyn Progress,
) -> Result<Option<TakenOver>> {
    let Some(path) = trainer.fitted().config.run.init.clone() else { return Ok(None) };
    if begun.is_some_and(|stored| stored.config.run.init.as_ref() == Some(&path)) {
        return Ok(None);
    }
    let (file, weights) = model::read(&path)?;
    let account = trainer.take_over(Arc::new(Init { path: file, weights }))?;
    account.lines().iter().for_each(|line| progress.note(line));
    Ok(Some(account))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::settings::{Backbone, Recipe, at};
    use crate::train::checkpoint::{Checkpoint, Tensor};

    #[test]
    fn a_recipe_takes_the_network_of_init() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other.safetensors");
        let tensors = (1..=4).map(|b| (format!("layer{b}.0.weight"), Tensor::f32([b, 1, 1, 1], vec![0.0; b])));
        Checkpoint { tensors: tensors.collect(), ..Checkpoint::default() }.save(&file).unwrap();
        let mut config = Config { recipe: Recipe::Auto, ..Config::default() };
        config.run.init = Some(file);
        let layer = |text: &str| Given { layer: toml::from_str(text).unwrap(), recipe: true };
        let mut one = config.clone();
        let (with, choices) = network(&mut one, &layer("")).unwrap().unwrap();
        assert_eq!((one.model.backbone, one.model.widths.as_slice()), (Backbone::Conv4, &[1, 2, 3, 4][..]));
        assert_eq!(one.run.reasons, ["model.backbone: that of run.init", "model.widths: those of run.init"]);
        assert!(choices.len() == 2 && at(&with.layer, "model.widths").is_some());
        // Given by hand, it is not chosen, and what does not fit is said when it is taken over.
        for (text, chosen) in
            [("backbone = \"resnet12\"", 0), ("widths = [4, 4, 4, 4]", 0), ("backbone = \"conv4\"", 1)]
        {
            let given = layer(&format!("[model]\n{text}"));
            let mut one = config.clone();
            one.lay(&given.layer).unwrap();
            let found = network(&mut one, &given).unwrap().map_or(0, |(_, choices)| choices.len());
            assert_eq!(found, chosen, "{text}");
        }
        let preset = Given { recipe: false, ..Given::default() };
        assert!(network(&mut config, &preset).unwrap().is_none());
    }
}
