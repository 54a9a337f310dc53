//! A shard and the files that are made of it: their names, whether they are finished, and what may be replaced.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::{Done, ShardsRequest};
use crate::data::embeddings::{Format, Reader, ShardStats, list_of, stats_beside};
use crate::data::{LeftOut, Pictures, Places, tar_stem};
use crate::jobs::part::{Begun, Part, Source};
use crate::{Error, Result};

/// Samples of an archive by which it is known again, and the bytes of each.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 4096;

/// A shard, and the files that are made of it.
pub(super) struct Target {
    pub shard: PathBuf,
    /// What their names begin with, and the part file is named by, whatever the format.
    pub base: PathBuf,
    /// The embeddings.
    pub out: PathBuf,
    /// What is known of them, written last.
    pub stats: PathBuf,
    format: Format,
}

/// What the names of a shard's files begin with.
pub(super) fn stem(shard: &Path) -> Result<String> {
    let name = shard.file_name().map(|name| name.to_string_lossy()).ok_or_else(|| {
        Error::data(shard, "this names no shard: give the path of an archive, as in shards/x-000000.tar")
    })?;
    Ok(tar_stem(&name).or_else(|| name.strip_suffix(".zip")).unwrap_or(&name).to_owned())
}

impl Target {
    pub fn new(shard: PathBuf, stem: &str, request: &ShardsRequest) -> Target {
        let ShardsRequest { out, format, .. } = request;
        let (base, stats) = (out.join(stem), stats_beside(out, stem));
        Target { shard, base, out: out.join(format!("{stem}.{format}")), stats, format: *format }
    }

    /// The pictures of the shard, which may be none.
    pub fn pictures(&self, strict: bool) -> Result<Pictures> {
        Pictures::open_any(std::slice::from_ref(&self.shard), strict)
    }

    /// By what the shard is known again: of an archive its length and samples of its content, wherever it lies; of a folder
    /// the names, sizes and times of its pictures.
    pub fn stamp(&self) -> Result<String> {
        let failed = |e| Error::io(&self.shard, "cannot read the shard", e);
        let about = self.shard.metadata().map_err(failed)?;
        if !about.is_file() {
            return Ok(Source::Files(self.pictures(false)?).fingerprint());
        }
        let bytes = about.len();
        let mut hash = Xxh3::new();
        hash.update(&bytes.to_le_bytes());
        let mut file = File::open(&self.shard).map_err(failed)?;
        for sample in 0..SAMPLES {
            let at = bytes.saturating_sub(SAMPLE_BYTES) / (SAMPLES - 1) * sample;
            let mut content = Vec::new();
            file.seek(SeekFrom::Start(at)).map_err(failed)?;
            (&mut file).take(SAMPLE_BYTES).read_to_end(&mut content).map_err(failed)?;
            hash.update(&content);
        }
        file.seek(SeekFrom::Start(bytes.saturating_sub(SAMPLE_BYTES))).map_err(failed)?;
        let mut end = Vec::new();
        file.take(SAMPLE_BYTES).read_to_end(&mut end).map_err(failed)?;
        hash.update(&end);
        Ok(format!("{:032x}", hash.digest128()))
    }

    /// What is known of the shard where it is finished.
    ///
    /// # Errors
    /// [`Error::Data`] where it was embedded in another way than this call would.
    pub fn finished(&self, request: &ShardsRequest, begun: &Begun) -> Result<Option<ShardStats>> {
        let Some(stats) = ShardStats::read(&self.stats)? else { return Ok(None) };
        let anew = "or name another `request.out`, or remove this file to have it embedded anew";
        let with = |what: &str| {
            Error::data(&self.stats, format!("this shard was embedded with another {what}: give that one, {anew}"))
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
        if begun.strict && !stats.left_out.is_empty() {
            let n = stats.left_out.len();
            return Err(Error::data(
                &self.stats,
                format!("{n} files were left out of this shard, which `request.strict` refuses: leave it out, {anew}"),
            ));
        }
        // The archive may be gone by now.
        if self.shard.exists() && stats.stamp != self.stamp()? {
            return Err(Error::data(
                &self.stats,
                format!(
                    "this is of another shard than {} is now, which was changed since or has the same name by chance: name \
                     another `request.out`, or remove this file to have that one embedded",
                    self.shard.display()
                ),
            ));
        }
        let files = [Some(self.out.clone()), self.list()];
        Ok(Some(stats).filter(|_| files.iter().flatten().all(|file| file.is_file())))
    }

    fn list(&self) -> Option<PathBuf> {
        list_of(self.format, &self.out)
    }

    /// Whether nothing is in the way but what this job has made.
    ///
    /// # Errors
    /// [`Error::Data`] for a file of the user's own.
    pub fn is_replaceable(&self) -> Result<()> {
        // What a call had made that was stopped at the very end, or whose word that it is finished was taken away.
        if self.stats.exists() || Part::is_there(&self.base) || Reader::open_as(&self.out, self.format).is_ok() {
            return Ok(());
        }
        match [Some(self.out.clone()), self.list()].into_iter().flatten().find(|file| file.exists()) {
            None => Ok(()),
            Some(file) => Err(Error::data(
                file,
                "this file holds no embeddings, or not all of them, and `request.out` would replace it: move it, or name \
                 another folder",
            )),
        }
    }

    /// What an error means that came while the shard was embedded: one about a file that was read is the shard's.
    ///
    /// # Errors
    /// Any other.
    pub fn failed(&self, error: Error) -> Result<Done> {
        let written = [Some(self.base.clone()), Some(self.out.clone()), Some(self.stats.clone()), self.list()];
        let is_of_shard = match &error {
            Error::Data { path, .. } | Error::Io { path, .. } => {
                path.starts_with(&self.shard) && !written.iter().flatten().any(|own| own == path)
            }
            _ => false,
        };
        if !is_of_shard {
            return Err(error);
        }
        let LeftOut { path, why } = LeftOut::of(error)?;
        let why = if path == self.shard { why } else { format!("{}: {why}", path.display()) };
        Ok(Done::Failed(LeftOut { path: self.shard.clone(), why }))
    }

    pub fn stats(&self, request: &ShardsRequest, begun: &Begun, part: &Part, stamp: String) -> ShardStats {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Begun { program, adapter, checkpoint, layer, normalise, side, columns, .. } = begun.clone();
        let places = part.classes().map(|said| Places::none(said.len()).with_classes(&said)).unwrap_or_default();
        ShardStats {
            kind: ShardStats::kind(),
            program,
            adapter,
            shard: self.shard.clone(),
            stamp,
            embeddings: name(&self.out),
            format: request.format,
            checkpoint,
            layer,
            normalised: normalise,
            side,
            columns,
            rows: part.rows,
            left_out: part.all_left_out(),
            classes: places.classes,
            class: places.class,
        }
    }
}
