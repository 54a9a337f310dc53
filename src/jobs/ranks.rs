//! A training run that several ranks share: what is chosen for it, and the ranks that follow the first.
//!
//! Rank 0 does the job: it reads the settings, the data and the run folder, reports, scores and saves. The others are given
//! the settings, the pictures and the state by it, and compute their share of each batch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::Session;
use super::fit::{Fit, Given};
use super::tuning::shaders;
use crate::data::ImageSet;
use crate::error::Change;
use crate::gpu::kernel::Kernels;
use crate::progress::{Progress, Silent};
use crate::ranks::Ranks;
use crate::settings::{BatchStatistics, Config, Matrix};
use crate::train::Trainer;
use crate::train::exchange::check_parts;
use crate::train::recipe::{self, Choice, is_given};
use crate::train::run::follow_reopening;
use crate::{Error, Result};

/// What the ranks need to know of a run before they have its pictures.
#[derive(Serialize, Deserialize)]
struct Setup {
    version: String,
    config: Config,
    side: usize,
    class_names: Vec<String>,
    names: Vec<String>,
}

/// Refuses micro-batches that `size` ranks cannot share.
///
/// # Errors
/// [`Error::Conflict`] with the numbers of ranks that could.
pub(super) fn check_split(config: &Config, size: usize) -> Result<()> {
    for (_, phase) in config.phases()? {
        check_parts(phase.parts(), phase.optimiser.batch / phase.parts(), size)?;
    }
    Ok(())
}

/// Refuses what `size` ranks do not do of a new run, as far as it is known before the data is read; `given` as in
/// [`split`].
///
/// # Errors
/// [`Error::Conflict`] with what they could do.
pub(super) fn check(config: &Config, given: Option<&Given>, size: usize) -> Result<()> {
    let none = Table::new();
    if config.run.time.is_some() {
        return Err(Error::Conflict {
            keys: vec!["run.time"],
            why: format!("run.time measures one device, and {size} ranks share this run"),
            changes: vec![Change::Unset("run.time"), Change::Set("optimiser.length.steps", "400".into())],
        });
    }
    if config.run.memory_budget.is_some() {
        return Err(Error::Conflict {
            keys: vec!["run.memory_budget"],
            why: format!("run.memory_budget counts what one process needs, and {size} ranks exchange more than that"),
            changes: vec![Change::Unset("run.memory_budget")],
        });
    }
    if config.run.matrix == Matrix::Auto {
        return Err(Error::Conflict {
            keys: vec!["run.matrix"],
            why: format!("run.matrix = auto goes by what a device measures, which may differ among {size} ranks"),
            changes: vec![Change::Set("run.matrix", "f32x3".into()), Change::Set("run.matrix", "off".into())],
        });
    }
    let layer = given.map_or(&none, |given| &given.layer);
    // Where the recipe is to choose the batch it is not known yet.
    let known = given.is_none_or(|given| !given.recipe) || is_given(layer, "optimiser.batch");
    match config.run.micro_batch.is_some() && known {
        true => check_split(config, size),
        false => Ok(()),
    }
}

/// Chooses how a new run is split, where nobody has said it: into as few micro-batches as the ranks can share, with
/// statistics of their own. Where there is no layer, settings that split the batch say both.
///
/// # Errors
/// [`Error::Conflict`] where the batch cannot be shared, with the numbers of ranks that could; what [`check`] refuses.
pub(super) fn split(config: &mut Config, given: Option<&Given>, size: usize, fit: &mut Fit) -> Result<()> {
    check(config, given, size)?;
    let none = Table::new();
    let layer = given.map_or(&none, |given| &given.layer);
    let says_statistics = is_given(layer, "run.batch_norm") || (given.is_none() && config.run.micro_batch.is_some());
    let exact = says_statistics && config.run.batch_norm == BatchStatistics::Exact;
    let mut choices = Vec::new();
    if !says_statistics {
        choices.push(Choice::new("run.batch_norm", "micro", format!("{size} ranks share a batch")));
    }
    if config.run.micro_batch.is_none() {
        let phases = config.phases()?;
        // The largest that divides every phase's batch into shares; statistics of their own need two rows.
        let suits = |images: &usize, ranks: usize| {
            phases.iter().all(|(_, phase)| {
                let batch = phase.optimiser.batch;
                batch.is_multiple_of(*images)
                    && (batch / images).is_multiple_of(ranks)
                    && (exact || phase.method.rows_of(*images) > 1)
            })
        };
        let largest = |ranks: usize| (1..=config.optimiser.batch / ranks.max(1)).rev().find(|n| suits(n, ranks));
        let Some(images) = largest(size) else {
            let others: Vec<String> = (2..=config.optimiser.batch.min(1024))
                .filter(|n| largest(*n).is_some())
                .map(|n| n.to_string())
                .collect();
            let ways = match others.is_empty() {
                true => String::from("another optimiser.batch can be"),
                false => format!("{} ranks can share it", others.join(" or ")),
            };
            return Err(Error::Conflict {
                keys: vec!["optimiser.batch"],
                why: format!("optimiser.batch = {} cannot be shared by {size} ranks: {ways}", config.optimiser.batch),
                changes: Vec::new(),
            });
        };
        let why = format!("one of {} micro-batches, which {size} ranks share", config.optimiser.batch / images);
        choices.push(Choice::new("run.micro_batch", images as i64, why));
    }
    fit.choices.extend(recipe::lay(config, layer, choices)?);
    config.validate()
}

/// Gives the other ranks the settings and the pictures of the run.
///
/// # Errors
/// As [`Ranks::exchange`].
pub(super) fn lead(ranks: &Ranks, config: &Config, data: &ImageSet) -> Result<()> {
    let setup = Setup {
        version: env!("CARGO_PKG_VERSION").into(),
        config: config.clone(),
        side: data.side,
        class_names: data.class_names.clone(),
        names: data.names.clone(),
    };
    let text = serde_json::to_vec(&setup).map_err(|e| Error::Internal(format!("settings do not serialise: {e}")))?;
    ranks.broadcast(&text)?;
    ranks.broadcast(bytemuck::cast_slice(&data.labels))?;
    ranks.broadcast(bytemuck::cast_slice(&data.pixels)).map(drop)
}

/// What [`lead`] gives.
fn led(ranks: &Ranks) -> Result<(Config, ImageSet)> {
    let text = ranks.broadcast(&[])?;
    let labels = ranks.broadcast(&[])?;
    let pixels = ranks.broadcast(&[])?;
    let setup: Setup = serde_json::from_slice(&text).map_err(|e| {
        Error::Ranks(format!("rank 0 is another version of the program ({e}): start one on all machines"))
    })?;
    if setup.version != env!("CARGO_PKG_VERSION") {
        return Err(Error::Ranks(format!(
            "this is version {}, and rank 0 is {}: start one version on all machines",
            env!("CARGO_PKG_VERSION"),
            setup.version
        )));
    }
    let words = |bytes: &[u8]| -> Vec<u32> { bytemuck::pod_collect_to_vec(bytes) };
    let data = ImageSet::new(setup.side, words(&pixels), words(&labels), setup.class_names, setup.names)?;
    Ok((setup.config, data))
}

/// Whether all ranks have an adapter of one kind, without which their bits would not be those of one; a sentence on what
/// each has.
///
/// # Errors
/// [`Error::Ranks`] where they differ.
pub(super) fn compare(ranks: &Ranks, kernels: &Kernels) -> Result<String> {
    let info = kernels.gpu().info();
    let unit = kernels.matrix_unit().map_or(String::new(), |unit| format!(" with matrix units of {unit}"));
    let own = [shaders(), crate::gpu::adapter::describe(info) + &unit].join("\n");
    let all = ranks.all_gather(own.as_bytes())?;
    let all: Vec<String> = all.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let (builds, all): (Vec<&str>, Vec<&str>) =
        all.iter().map(|text| text.split_once('\n').unwrap_or(("", text))).unzip();
    if let Some(other) = builds.iter().position(|build| *build != builds[0]) {
        return Err(Error::Ranks(format!(
            "rank 0 and rank {other} are of different builds of the program, with other shaders: start one on all machines"
        )));
    }
    match all.iter().position(|name| *name != all[0]) {
        None => Ok(format!("{} ranks, each with {}", all.len(), all[0])),
        Some(other) => Err(Error::Ranks(format!(
            "rank 0 has {} and rank {other} has {}, which give other numbers: give all ranks adapters and drivers of one \
             kind (--adapter)",
            all[0], all[other]
        ))),
    }
}

/// Ends the other ranks with rank 0's failure, and returns it. Where one cannot be reached none is waited for.
pub(super) fn leave(ranks: &Ranks, error: Error) -> Error {
    let error = ranks.fail(error);
    if !matches!(error, Error::Ranks(_)) {
        // They wait for this last call, so that rank 0 says what has failed before any process ends.
        let _ = ranks.end();
    }
    error
}

/// Computes this rank's share of the run that rank 0 does, until that is over.
///
/// # Errors
/// What ended the run on any rank, as all ranks have it, to be told by rank 0; [`Error::Ranks`] when rank 0 cannot be
/// reached.
pub fn follow(session: &Session) -> Result<()> {
    let Some(ranks) = session.ranks.as_ref().filter(|ranks| !ranks.leads()) else {
        return Err(Error::Argument { what: "the session's rank", got: "0".into(), wanted: "1 or more".into() });
    };
    share(session, ranks).and_then(|()| ranks.end()).map_err(|error| {
        let error = ranks.fail(error);
        // Rank 0 has said it when it makes this last call.
        let _ = ranks.end();
        error
    })
}

fn share(session: &Session, ranks: &Ranks) -> Result<()> {
    let (config, data) = led(ranks)?;
    let open = || session.open(config.run.tune, config.run.matrix, &mut Silent);
    let kernels = open()?;
    compare(ranks, &kernels)?;
    let mut trainer = Trainer::among(kernels, &config, Arc::new(data), None, Some(ranks.clone()))?;
    trainer.share()?;
    follow_reopening(&mut trainer, &open)
}

/// Says how a run is shared.
pub(super) fn note(trainer: &Trainer, adapters: &str, progress: &mut dyn Progress) {
    let config = &trainer.fitted().config;
    let (batch, parts) = (config.optimiser.batch, config.parts());
    let Some(ranks) = trainer.ranks() else { return };
    progress.note(adapters);
    let statistics = match config.run.batch_norm {
        BatchStatistics::Exact => "the whole batch",
        BatchStatistics::Micro => "a micro-batch",
    };
    progress.note(&format!(
        "each rank computes {} of the {parts} micro-batches of {} images; batch norm uses the statistics of {statistics} \
         (run.batch_norm = {})",
        parts / ranks.size(),
        batch / parts,
        config.run.batch_norm
    ));
}
