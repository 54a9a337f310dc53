//! `embed --shards`: many archives of pictures to a file of embeddings each. A call keeps no state beside these files, so
//! that any number of processes, on any number of machines, can be given a part of the shards, stopped, and given it again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::extraction::{Extraction, Pace};
use super::part::{Begun, Earlier, Part, Source};
use super::{Session, data_options, look_options, model};
use crate::data::embeddings::{Format, LACKS_PARQUET, ShardStats, list_of, stats_beside};
use crate::data::{self, DataOptions, LeftOut, Pictures};
use crate::files::replace_alone;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

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
    /// Fails where a shard could not be read.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are, and the first.
    pub fn complete(&self) -> Result<()> {
        let Some(LeftOut { path, why }) = self.failed.first() else { return Ok(()) };
        Err(Error::TargetMissed(format!(
            "{} of {} shards could not be embedded, the first {}: {why}; put them right and give the same command again",
            self.failed.len(),
            self.shards,
            path.display()
        )))
    }
}

/// A shard, and the files that are made of it.
struct Target {
    shard: PathBuf,
    out: PathBuf,
    stats: PathBuf,
}

impl Target {
    fn new(shard: PathBuf, request: &ShardsRequest) -> Result<Target> {
        let is_archive = shard.extension().is_some_and(|ending| ending == "tar" || ending == "zip");
        let stem = if is_archive { shard.file_stem() } else { shard.file_name() };
        let stem = stem.map(|stem| stem.to_string_lossy().into_owned()).ok_or_else(|| {
            Error::data(&shard, "this names no shard: give the path of an archive, as in shards/x-000000.tar")
        })?;
        let out = request.out.join(format!("{stem}.{}", request.format));
        Ok(Target { out, stats: stats_beside(&request.out, &stem), shard })
    }

    /// Bytes of the shard, and when it was changed last; 0 for a folder, and where that is not known.
    fn stamp(&self) -> (u64, u64) {
        let Some(about) = self.shard.metadata().ok().filter(std::fs::Metadata::is_file) else { return (0, 0) };
        let since = about.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        (about.len(), since.map_or(0, |since| since.as_nanos() as u64))
    }

    /// What is known of the shard where it is finished.
    ///
    /// # Errors
    /// [`Error::Data`] where it was embedded in another way than this call would.
    fn finished(&self, request: &ShardsRequest, begun: &Begun) -> Result<Option<ShardStats>> {
        let Some(stats) = ShardStats::read(&self.stats)? else { return Ok(None) };
        let with = |what: &str| {
            Error::data(
                &self.stats,
                format!(
                    "this shard was embedded with another {what}: give that one, or name another `request.out`, or \
                     remove this file to have it embedded anew"
                ),
            )
        };
        if stats.checkpoint != begun.checkpoint || stats.side != begun.side {
            return Err(with("checkpoint"));
        }
        if stats.layer != begun.layer {
            return Err(with(&format!("`request.layer`, {}", stats.layer)));
        }
        if stats.normalised != begun.normalise {
            return Err(with("`request.normalise`"));
        }
        if stats.format != request.format {
            return Err(with(&format!("`request.format`, {}", stats.format)));
        }
        let stamp = self.stamp();
        // The archive may be gone by now.
        if stamp != (0, 0) && (stats.bytes, stats.changed) != stamp {
            return Err(Error::data(
                &self.stats,
                format!(
                    "{} was changed since it was embedded: remove this file to have it embedded anew",
                    self.shard.display()
                ),
            ));
        }
        let files = [Some(self.out.clone()), list_of(request.format, &self.out)];
        Ok(Some(stats).filter(|_| files.iter().flatten().all(|file| file.is_file())))
    }
}

impl ShardsRequest {
    /// The shards of this part.
    fn targets(&self) -> Result<Vec<Target>> {
        let mut of: HashMap<PathBuf, PathBuf> = HashMap::new();
        let (mut targets, mut number) = (Vec::new(), 0_usize);
        for pattern in &self.shards {
            for name in data::braces(pattern)? {
                let target = Target::new(name.into(), self)?;
                if let Some(other) = of.insert(target.stats.clone(), target.shard.clone()) {
                    return Err(Error::data(
                        &target.shard,
                        format!(
                            "its embeddings would have the name of those of {}: give each shard once, and shards of one \
                             name in calls with another `request.out`",
                            other.display()
                        ),
                    ));
                }
                if number % self.part.of + 1 == self.part.part {
                    targets.push(target);
                }
                number += 1;
            }
        }
        match number {
            0 => Err(Error::usage("no shards are given: name them with `request.shards`")),
            _ => Ok(targets),
        }
    }

    /// The first picture archive, by which a shipped network is chosen: the same for every part.
    fn first(&self) -> Result<Vec<PathBuf>> {
        let first = self.shards.first().map(|pattern| data::braces(pattern)).transpose()?.unwrap_or_default();
        Ok(first.into_iter().take(1).map(PathBuf::from).collect())
    }

    fn validate(&self) -> Result<()> {
        if !self.format.is_built() {
            return Err(Error::data(&self.out, LACKS_PARQUET));
        }
        if self.part.part == 0 || self.part.part > self.part.of {
            let PartOf { part, of } = self.part;
            let wanted = format!("from 1/{of} to {of}/{of}");
            return Err(Error::Argument { what: "request.part", got: format!("{part}/{of}"), wanted });
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

/// Embeds the shards of a part that are not finished.
///
/// # Errors
/// A request or checkpoint that cannot be used; files that cannot be written, or are not this job's; what the device
/// refuses. Shards that cannot be read are in the outcome.
pub fn run(request: &ShardsRequest, session: &Session, progress: &mut dyn Progress) -> Result<ShardsOutcome> {
    request.validate()?;
    let targets = request.targets()?;
    let mut look = || data::sample_unlabelled(&request.first()?, &look_options());
    let stored = model::open(&request.checkpoint, &mut look, progress)?;
    let kernels = session.open_for_features(progress)?;
    let adapter = kernels.gpu().describe();
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let begun =
        Begun::new(&stored, adapter, extractor.width(request.layer), request.layer, request.normalise, request.strict)?;
    // What cannot be gone on with is said now, not after hours.
    for target in &targets {
        target.finished(request, &begun)?;
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
    let work = Work { request, extractor, options, begun };
    for (number, target) in targets.iter().enumerate() {
        let done = number - outcome.failed.len() - outcome.elsewhere.len();
        if progress.stop_requested() {
            return Err(interrupted(done, targets.len()));
        }
        match work.embed(target, &mut outcome, progress) {
            Ok(()) => {}
            // The words of one shard would not say how to go on with all.
            Err(Error::Interrupted(_)) => return Err(interrupted(done, targets.len())),
            Err(error) => return Err(error),
        }
    }
    Ok(outcome)
}

fn interrupted(done: usize, of: usize) -> Error {
    Error::Interrupted(format!("{done} of {of} shards are finished: the same command goes on with the others"))
}

impl Work<'_> {
    /// Embeds one shard, unless it is finished or another process has it.
    fn embed(&self, target: &Target, outcome: &mut ShardsOutcome, progress: &mut dyn Progress) -> Result<()> {
        let Work { request, begun, .. } = self;
        let mut count = |stats: &ShardStats| {
            outcome.rows += stats.rows;
            outcome.left_out += stats.left_out.len();
        };
        if let Some(stats) = target.finished(request, begun)? {
            count(&stats);
            outcome.finished_before += 1;
            Part::sweep(&target.out);
            return Ok(());
        }
        let shard = target.shard.display();
        let source = match Pictures::open(std::slice::from_ref(&target.shard), request.strict) {
            Ok(pictures) => Source::Files(pictures),
            Err(error) => return fail(target, error, outcome, progress),
        };
        if target.out.exists() && !target.stats.exists() && !Part::is_there(&target.out) {
            return Err(Error::data(
                &target.out,
                "this file is not known to be of a shard, and `request.out` would replace it: move it, or name another \
                 folder",
            ));
        }
        let begun = begun.with(&source);
        let Some(mut part) = Part::open(&target.out, &begun, &source, Earlier::GoOnOrBegin)? else {
            progress.note(&format!("{shard}: another process is embedding it"));
            outcome.elsewhere.push(target.shard.clone());
            return Ok(());
        };
        // Another process may have finished it in this moment.
        if let Some(stats) = target.finished(request, &begun)? {
            part.discard();
            count(&stats);
            outcome.finished_before += 1;
            return Ok(());
        }
        let extraction = Extraction {
            extractor: &self.extractor,
            layer: request.layer,
            normalise: request.normalise,
            strict: request.strict,
            options: &self.options,
            out: &target.out,
            list: LIST,
        };
        let written = extraction.run(&mut part, progress).and_then(|pace| {
            part.write(&target.out, request.format, &begun, Some(&target.shard))?;
            let stats = target.stats(request, &begun, &part)?;
            let bytes = serde_json::to_vec_pretty(&stats).map_err(|e| Error::Internal(e.to_string()))?;
            replace_alone(&target.stats, "cannot write what is known of a shard", |file| {
                std::io::Write::write_all(file, &bytes)
            })?;
            Ok((pace, stats))
        });
        match written {
            Ok((pace, stats)) => {
                part.discard();
                count(&stats);
                outcome.embedded += 1;
                outcome.pace = outcome.pace.and(&pace);
                Ok(())
            }
            Err(error) => {
                part.leave(&error, request.strict);
                fail(target, error, outcome, progress)
            }
        }
    }
}

/// Notes that a shard could not be read, for which there is an error about a file in it; other errors end the job.
fn fail(target: &Target, error: Error, outcome: &mut ShardsOutcome, progress: &mut dyn Progress) -> Result<()> {
    let about = match &error {
        // What is written may lie in a folder that is a shard.
        Error::Data { path, .. } | Error::Io { path, .. } => {
            path.starts_with(&target.shard) && path.parent() != target.out.parent()
        }
        _ => false,
    };
    if !about {
        return Err(error);
    }
    let LeftOut { path, why } = LeftOut::of(error)?;
    let why = if path == target.shard { why } else { format!("{}: {why}", path.display()) };
    progress.warn(&format!("left out {}: {why}", target.shard.display()));
    outcome.failed.push(LeftOut { path: target.shard.clone(), why });
    Ok(())
}

impl Target {
    fn stats(&self, request: &ShardsRequest, begun: &Begun, part: &Part) -> Result<ShardStats> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (bytes, changed) = self.stamp();
        let Begun { program, adapter, checkpoint, layer, normalise, side, columns, .. } = begun.clone();
        Ok(ShardStats {
            kind: ShardStats::kind(),
            program,
            adapter,
            shard: self.shard.clone(),
            bytes,
            changed,
            embeddings: name(&self.out),
            format: request.format,
            checkpoint,
            layer,
            normalised: normalise,
            side,
            columns,
            rows: part.rows,
            left_out: part.all_left_out(),
        })
    }
}
