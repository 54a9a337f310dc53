//! A folder of shards: a file of embeddings per shard, and beside it what is to be known of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Format, Reader};
use crate::data::LeftOut;
use crate::data::listing::file_name;
use crate::{Error, Result};

/// What [`ShardStats::kind`] says.
const KIND: &str = "ieq-wgpu.shard.1";
/// How the names of such files end.
const ENDING: &str = ".stats.json";

/// What lies beside the embeddings of a shard, and is written last: where it is, the shard is finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStats {
    /// What this file is.
    pub kind: String,
    /// Version of the program.
    pub program: String,
    /// The adapter.
    pub adapter: String,
    /// The shard, as it was given.
    pub shard: PathBuf,
    /// Its bytes, and when it was changed last in nanoseconds since 1970; 0 for a folder.
    pub bytes: u64,
    pub changed: u64,
    /// Name of the file of embeddings, which lies beside this.
    pub embeddings: String,
    /// Format of that file.
    pub format: Format,
    /// Hash of the checkpoint, XXH3 of 128 bits.
    pub checkpoint: String,
    /// The output of the network that was taken.
    pub layer: String,
    /// Whether rows have length 1.
    pub normalised: bool,
    /// Side of the pictures as the network takes them, pixels.
    pub side: usize,
    /// Numbers per row.
    pub columns: usize,
    /// Rows: pictures that could be read.
    pub rows: usize,
    /// Files that could not.
    pub left_out: Vec<LeftOut>,
}

impl ShardStats {
    /// What [`ShardStats::kind`] is to say.
    pub fn kind() -> String {
        KIND.into()
    }

    /// Reads such a file; none where there is none.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is none, [`Error::Io`] where it cannot be read.
    pub fn read(path: &Path) -> Result<Option<ShardStats>> {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(path, "cannot read what is known of a shard", e))?,
        };
        let stats: Option<ShardStats> = serde_json::from_slice(&bytes).ok();
        match stats.filter(|stats| stats.kind == KIND) {
            Some(stats) => Ok(Some(stats)),
            None => Err(Error::data(
                path,
                "is not what `embed` writes beside the embeddings of a shard: move it, or remove it to have that shard \
                 embedded anew",
            )),
        }
    }
}

/// What is to be known of a shard whose embeddings are `stem` and an ending in `folder`.
pub fn stats_beside(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}{ENDING}"))
}

/// The finished shards in a folder, by the names of their files; none where it is no folder of shards.
///
/// # Errors
/// [`Error::Data`] where they are not of one kind; [`Error::Io`] where the folder cannot be read.
pub fn shards_in(folder: &Path) -> Result<Vec<(PathBuf, ShardStats)>> {
    let failed = |e| Error::io(folder, "cannot list the folder", e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        names.extend(name.to_str().filter(|name| name.ends_with(ENDING)).map(str::to_owned));
    }
    names.sort();
    let mut shards: Vec<(PathBuf, ShardStats)> = Vec::new();
    for name in names {
        let path = folder.join(&name);
        let Some(stats) = ShardStats::read(&path)? else { continue };
        // Nothing outside the folder is opened, whatever the file says.
        if file_name(Path::new(&stats.embeddings)) != stats.embeddings {
            return Err(Error::data(path, "names a file of embeddings in another folder: remove it"));
        }
        if let Some((_, first)) = shards.first()
            && (&first.checkpoint, &first.layer, first.normalised, first.columns)
                != (&stats.checkpoint, &stats.layer, stats.normalised, stats.columns)
        {
            return Err(Error::data(
                path,
                format!(
                    "is of another checkpoint, layer or scale than {}: keep shards of one kind in a folder",
                    first.embeddings
                ),
            ));
        }
        shards.push((folder.join(&stats.embeddings), stats));
    }
    Ok(shards)
}

/// The rows of all shards in a folder.
pub(super) struct Rows {
    columns: usize,
    left: std::vec::IntoIter<(PathBuf, ShardStats)>,
    open: Option<Reader>,
}

impl Rows {
    pub(super) fn open(folder: &Path) -> Result<Rows> {
        let shards = shards_in(folder)?;
        let Some((_, first)) = shards.first() else {
            return Err(Error::data(
                folder,
                "holds no embeddings of shards, as `embed` writes them with `request.shards`",
            ));
        };
        Ok(Rows { columns: first.columns, left: shards.into_iter(), open: None })
    }
}

impl super::Rows for Rows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        loop {
            if let Some(reader) = &mut self.open
                && let Some(path) = reader.next(row)?
            {
                return Ok(Some(path));
            }
            self.open = None;
            let Some((file, stats)) = self.left.next() else { return Ok(None) };
            if stats.rows == 0 {
                continue;
            }
            let reader = Reader::open_as(&file, stats.format)?;
            if reader.columns() != self.columns {
                let (has, says) = (reader.columns(), self.columns);
                return Err(super::damaged(&file, format!("it has {has} columns, and the file beside it says {says}")));
            }
            self.open = Some(reader);
        }
    }
}
