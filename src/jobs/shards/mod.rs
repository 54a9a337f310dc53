//! `embed --shards`: many archives of pictures to a file of embeddings each. A call keeps no state beside these files, so
//! that any number of processes, on any number of machines, can be given a part of the shards, stopped, and given it again.

mod target;

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::target::{Target, stem};
use super::extraction::{Extraction, Pace};
use super::part::{Begun, Earlier, Part, Source};
use super::rows::warn_of_one;
use super::{Session, data_options, look_options, model};
use crate::data::embeddings::{Format, LACKS_PARQUET, ShardStats, shards_in};
use crate::data::{self, DataOptions, ImageSet, LeftOut};
use crate::files::replace_alone;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// The shards in a folder of features, as `neighbors` and `audit` compare them; none where it is no folder of shards.
///
/// # Errors
/// As [`shards_in`], and [`Error::Data`] where they are of another layer.
pub(super) fn features_in(folder: &Path) -> Result<Vec<(PathBuf, ShardStats)>> {
    let shards = shards_in(folder)?;
    match shards.first() {
        Some((_, stats)) if stats.layer != Layer::Feature.name() => Err(Error::data(
            folder,
            format!("holds the layer {} of a network, and features are compared: embed the shards anew", stats.layer),
        )),
        _ => Ok(shards),
    }
}

/// What lists the pictures of a shard that are left out.
const LIST: &str = "the .stats.json of the shard";

/// One of several calls that share the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartOf {
    /// Which, from 1.
    pub part: usize,
    /// How many there are.
    pub of: usize,
}

impl std::str::FromStr for PartOf {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wanted = || format!("a part and the number of parts, as in 1/8, are wanted, got `{text}`");
        let (part, of) = text.split_once('/').ok_or_else(wanted)?;
        let part = PartOf { part: part.parse().map_err(|_| wanted())?, of: of.parse().map_err(|_| wanted())? };
        match part {
            PartOf { of: 0, .. } => Err("there is at least 1 part, as in 1/1".into()),
            PartOf { part: 0, of } => Err(format!("parts count from 1: the first of {of} is 1/{of}")),
            PartOf { part, of } if part > of => Err(format!("the last of {of} parts is {of}/{of}, got {part}/{of}")),
            part => Ok(part),
        }
    }
}

/// A job over shards.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardsRequest {
    /// The checkpoint, or the run folder that holds it.
    pub checkpoint: PathBuf,
    /// The shards: paths of archives or folders, or patterns of them as [`data::braces`] reads them.
    pub shards: Vec<String>,
    /// Which of the shards this call embeds: every `of`-th from the `part`-th on.
    pub part: PartOf,
    /// The folder to write to, which is made where there is none.
    pub out: PathBuf,
    /// Format of the files.
    pub format: Format,
    /// Which output of the network.
    pub layer: Layer,
    /// Scale every row to length 1.
    pub normalise: bool,
    /// Refuse a shard where one file cannot be read; else it is left out.
    pub strict: bool,
}

/// What became of the shards.
#[derive(Clone, Debug, Serialize)]
pub struct ShardsOutcome {
    /// The checkpoint file.
    pub checkpoint: PathBuf,
    /// The folder.
    pub out: PathBuf,
    /// Format of the files.
    pub format: Format,
    /// Which of the shards were this call's.
    pub part: PartOf,
    /// Number of shards of this part.
    pub shards: usize,
    /// Those that were embedded now.
    pub embedded: usize,
    /// Those that were finished before.
    pub finished_before: usize,
    /// Those that another process is working on.
    pub elsewhere: Vec<PathBuf>,
    /// Those that could not be read, and why.
    pub failed: Vec<LeftOut>,
    /// Rows of all that are finished.
    pub rows: usize,
    /// Numbers per row.
    pub columns: usize,
    /// Pictures of these that could not be read; each is listed beside its shard's embeddings.
    pub left_out: usize,
    /// Pictures of this call, its seconds, and the share of them in which the device may have waited.
    pub pace: Pace,
}

impl ShardsOutcome {
    /// Fails where a shard of this part is not finished.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are, and the first.
    pub fn complete(&self) -> Result<()> {
        if let Some(LeftOut { path, why }) = self.failed.first() {
            return Err(Error::TargetMissed(format!(
                "{} of {} shards could not be embedded, the first {}: {why}; put them right and give the same command \
                 again",
                self.failed.len(),
                self.shards,
                path.display()
            )));
        }
        let Some(first) = self.elsewhere.first() else { return Ok(()) };
        Err(Error::TargetMissed(format!(
            "{} of {} shards are left to another process that is embedding them, the first {}: give the same command again \
             to be sure that they are finished",
            self.elsewhere.len(),
            self.shards,
            first.display()
        )))
    }
}

impl ShardsRequest {
    /// The shards of this part.
    fn targets(&self) -> Result<Vec<Target>> {
        let mut of: HashMap<String, PathBuf> = HashMap::new();
        let (mut targets, mut number) = (Vec::new(), 0_usize);
        for name in self.names() {
            let shard = PathBuf::from(name?);
            let stem = stem(&shard)?;
            if number % self.part.of + 1 == self.part.part {
                targets.push(Target::new(shard.clone(), &stem, self));
            }
            number += 1;
            if let Some(other) = of.insert(stem, shard.clone()) {
                return Err(Error::data(
                    &shard,
                    format!(
                        "its embeddings would have the name of those of {}: give each shard once, and shards of one \
                         name in calls with another `request.out`",
                        other.display()
                    ),
                ));
            }
        }
        if number == 0 {
            return Err(Error::usage("no shards are given: name them with `request.shards`"));
        }
        if let Some(first) = targets.first()
            && !targets.iter().any(|target| target.shard.exists())
        {
            return Err(Error::data(
                &first.shard,
                "there is no such archive or folder, and none of the other shards of this part: look at the pattern",
            ));
        }
        Ok(targets)
    }

    /// All shards, of whatever part.
    fn names(&self) -> impl Iterator<Item = Result<String>> {
        self.shards.iter().flat_map(|pattern| match data::braces(pattern) {
            Ok(names) => names.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// Pictures by which a shipped network is chosen: of the first shard that has any, the same for every part.
    fn look(&self) -> Result<ImageSet> {
        let mut first = None;
        for name in self.names() {
            match data::sample_unlabelled(&[name?.into()], &look_options()) {
                Ok(pictures) => return Ok(pictures),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| Error::usage("no shards are given: name them with `request.shards`")))
    }

    fn validate(&self) -> Result<()> {
        if !self.format.is_built() {
            return Err(Error::data(&self.out, LACKS_PARQUET));
        }
        if self.part.part == 0 || self.part.part > self.part.of {
            let PartOf { part, of } = self.part;
            let wanted = if of == 0 { "1/1 or more parts".to_owned() } else { format!("from 1/{of} to {of}/{of}") };
            return Err(Error::Argument { what: "request.part", got: format!("{part}/{of}"), wanted });
        }
        if self.out.as_os_str().is_empty() {
            return Err(Error::usage("`request.out` is empty: name the folder to write to (try embedded)"));
        }
        if self.out.exists() && !self.out.is_dir() {
            return Err(Error::data(&self.out, "this is a file, and `request.out` is a folder here: name another"));
        }
        Ok(())
    }
}

/// What the shards of a call have in common.
struct Work<'w> {
    request: &'w ShardsRequest,
    extractor: Extractor,
    options: DataOptions,
    begun: Begun,
}

/// What became of one shard.
enum Done {
    Embedded(ShardStats, Pace),
    FinishedBefore(ShardStats),
    /// Another process is working on it.
    Elsewhere,
    /// It cannot be read.
    Failed(LeftOut),
}

/// Embeds the shards of a part that are not finished.
///
/// # Errors
/// A request or checkpoint that cannot be used; files that cannot be written, or are not this job's; what the device
/// refuses. Shards that cannot be read are in the outcome.
pub fn run(request: &ShardsRequest, session: &Session, progress: &mut dyn Progress) -> Result<ShardsOutcome> {
    request.validate()?;
    let targets = request.targets()?;
    let stored = model::open(&request.checkpoint, &mut || request.look(), progress)?;
    let kernels = session.open_for_features(progress)?;
    let adapter = kernels.gpu().describe();
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let ShardsRequest { layer, normalise, strict, .. } = *request;
    let begun = Begun::new(&stored, adapter, extractor.width(layer), layer, normalise, strict)?;
    // What cannot be gone on with is said now, not after hours.
    let (mut finished, mut left) = (Vec::new(), Vec::new());
    for target in &targets {
        match target.finished(request, &begun)? {
            Some(stats) => finished.push((target, stats)),
            None => {
                target.is_replaceable()?;
                left.push(target);
            }
        }
    }
    std::fs::create_dir_all(&request.out).map_err(|e| Error::io(&request.out, "cannot create the folder", e))?;
    let options = data_options(&stored.config.data, Some(stored.side()?));
    let mut outcome = ShardsOutcome {
        checkpoint: stored.file,
        out: request.out.clone(),
        format: request.format,
        part: request.part,
        shards: targets.len(),
        embedded: 0,
        finished_before: 0,
        elsewhere: Vec::new(),
        failed: Vec::new(),
        rows: 0,
        columns: begun.columns,
        left_out: 0,
        pace: Pace::default(),
    };
    for (target, stats) in finished {
        Part::sweep(&target.base);
        outcome.finished_before += 1;
        outcome.count(&stats);
    }
    let work = Work { request, extractor, options, begun };
    let mut elsewhere = Vec::new();
    for (number, target) in (1..).zip(&left) {
        if !work.embed(target, &format!("{number}/{}", left.len()), &mut outcome, progress)? {
            let shard = target.shard.display();
            progress.note(&format!("{shard}: another process is embedding it; it is looked at again at the end"));
            elsewhere.push(*target);
        }
    }
    // A process that had one of these may have been killed since.
    for target in elsewhere {
        if !work.embed(target, "once more", &mut outcome, progress)? {
            outcome.elsewhere.push(target.shard.clone());
        }
    }
    Ok(outcome)
}

impl Work<'_> {
    /// Embeds a shard that is `place` among them, and counts what became of it; `false`: another process has it.
    fn embed(
        &self,
        target: &Target,
        place: &str,
        outcome: &mut ShardsOutcome,
        progress: &mut dyn Progress,
    ) -> Result<bool> {
        let interrupted = |outcome: &ShardsOutcome| {
            let (done, of) = (outcome.embedded + outcome.finished_before, outcome.shards);
            Error::Interrupted(format!("{done} of {of} shards are finished: the same command goes on with the others"))
        };
        if progress.stop_requested() {
            return Err(interrupted(outcome));
        }
        let done = self.embed_one(target, place, progress).map_err(|error| match error {
            // The words of one shard would not say how to go on with all.
            Error::Interrupted(_) => interrupted(outcome),
            other => other,
        })?;
        match done {
            Done::Elsewhere => return Ok(false),
            Done::Failed(file) => {
                progress.warn(&format!("left out {}: {}", file.path.display(), file.why));
                outcome.failed.push(file);
            }
            Done::FinishedBefore(stats) => {
                outcome.finished_before += 1;
                outcome.count(&stats);
            }
            Done::Embedded(stats, pace) => {
                outcome.embedded += 1;
                outcome.pace = outcome.pace.and(&pace);
                outcome.count(&stats);
            }
        }
        Ok(true)
    }

    fn embed_one(&self, target: &Target, place: &str, progress: &mut dyn Progress) -> Result<Done> {
        let Work { request, begun, .. } = self;
        // Before it is read: what is changed meanwhile is not taken for what was embedded.
        let opened = target.stamp().and_then(|stamp| Ok((stamp, target.pictures(request.strict)?)));
        let (stamp, pictures) = match opened {
            Ok(opened) => opened,
            Err(error) => return target.failed(error),
        };
        let source = Source::Files(pictures);
        let begun = begun.with(&source);
        let Some(mut part) = Part::open(&target.base, &begun, &source, Earlier::GoOnOrBegin)? else {
            return Ok(Done::Elsewhere);
        };
        // Another process may have finished it meanwhile; with the part file in hand none can begin.
        if let Some(stats) = target.finished(request, &begun)? {
            part.discard();
            return Ok(Done::FinishedBefore(stats));
        }
        if part.rows == 0
            && let Err(error) = target.is_replaceable()
        {
            part.discard();
            return Err(error);
        }
        let first = source.left_out().iter().enumerate();
        first.for_each(|(before, file)| warn_of_one(before, file, LIST, progress));
        let extraction = Extraction {
            extractor: &self.extractor,
            layer: request.layer,
            normalise: request.normalise,
            strict: request.strict,
            options: &self.options,
            out: &target.base,
            list: LIST,
            what: &format!("embedding {} ({place}), picture", target.shard.display()),
            fail_on_io: true,
        };
        let written = extraction.run(&mut part, progress).and_then(|pace| {
            if target.stamp()? != stamp {
                let why = "was changed while it was embedded: give the same command again";
                return Err(Error::data(&target.shard, why));
            }
            part.write(&target.out, request.format, &begun, Some(&target.shard))?;
            let stats = target.stats(request, &begun, &part, stamp);
            let bytes = serde_json::to_vec_pretty(&stats).map_err(|e| Error::Internal(e.to_string()))?;
            replace_alone(&target.stats, "cannot write what is known of a shard", |file| file.write_all(&bytes))?;
            Ok((pace, stats))
        });
        match written {
            Ok((pace, stats)) => {
                part.discard();
                Ok(Done::Embedded(stats, pace))
            }
            Err(error) => {
                part.leave(&error, request.strict);
                target.failed(error)
            }
        }
    }
}

impl ShardsOutcome {
    fn count(&mut self, stats: &ShardStats) {
        self.rows += stats.rows;
        self.left_out += stats.left_out.len();
    }
}
