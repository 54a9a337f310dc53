//! The checkpoint that a training run starts from.

use std::sync::Arc;

use super::stored::Stored;
use crate::error::Change;
use crate::files::run_folder::checkpoint_file;
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::Trainer;
use crate::train::checkpoint::Checkpoint;
use crate::train::init::{Init, TakenOver};
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
    let file = checkpoint_file(&path)?;
    let weights = Checkpoint::load(&file)?;
    let account = trainer.take_over(Arc::new(Init { path: file, weights }))?;
    account.lines().iter().for_each(|line| progress.note(line));
    Ok(Some(account))
}
