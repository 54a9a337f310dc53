//! A folder of shards: a file of embeddings per shard, and beside it what is to be known of it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Format, Reader};
use crate::data::LeftOut;
use crate::data::listing::file_name;
use crate::{Error, Result};

/// What [`ShardStats::kind`] says.
const KIND: &str = "ieq-wgpu.shard.1";
/// Files that are larger are no such; it is room for the names of a million files.
const MAX_BYTES: u64 = 256 << 20;
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
    /// By what it is known again: a hash of its length and of samples of it; of a folder of the names, sizes and times.
    pub stamp: String,
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
    /// Names of the classes that are said beside the pictures of a tar of samples, sorted bytewise; empty for other shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Of each row its place among them; none where none is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<Option<u32>>,
}

impl ShardStats {
    /// What [`ShardStats::kind`] is to say.
    pub fn kind() -> String {
        KIND.into()
    }

    /// The class of row `row` by name.
    pub fn class_of(&self, row: usize) -> Option<&str> {
        let class = (*self.class.get(row)?)? as usize;
        self.classes.get(class).map(String::as_str)
    }

    /// Reads such a file; none where there is none.
    ///
    /// # Errors
    /// [`Error::Data`] for a file that is none, [`Error::Io`] where it cannot be read.
    pub fn read(path: &Path) -> Result<Option<ShardStats>> {
        if !path.exists() {
            return Ok(None);
        }
        ShardStats::found(path)?.map(Some).ok_or_else(|| {
            Error::data(
                path,
                "is not what `embed` writes beside the embeddings of a shard: move it, or name another folder",
            )
        })
    }

    /// What a file says; none where it is something else, whatever its name.
    fn found(path: &Path) -> Result<Option<ShardStats>> {
        let failed = |e| Error::io(path, "cannot read what is known of a shard", e);
        if path.metadata().is_ok_and(|about| !about.is_file() || about.len() > MAX_BYTES) {
            return Ok(None);
        }
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed)?,
        };
        let stats: Option<ShardStats> = serde_json::from_slice(&bytes).ok();
        Ok(stats.filter(|stats| stats.kind == KIND))
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
        // Other programs name files so, too.
        let Some(stats) = ShardStats::found(&path)? else { continue };
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

/// The rows of shards, one after the other.
pub(super) struct Rows {
    columns: usize,
    left: std::vec::IntoIter<(PathBuf, ShardStats)>,
    open: Option<Open>,
}

/// A shard that is being read.
struct Open {
    reader: Reader,
    file: PathBuf,
    /// Rows that were read, and that there are to be.
    read: usize,
    rows: usize,
}

impl Rows {
    pub(super) fn new(shards: Vec<(PathBuf, ShardStats)>) -> Rows {
        Rows { columns: shards.first().map_or(0, |(_, stats)| stats.columns), left: shards.into_iter(), open: None }
    }
}

impl super::Rows for Rows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        loop {
            if let Some(Open { reader, file, read, rows }) = &mut self.open {
                if let Some(path) = reader.next(row)? {
                    *read += 1;
                    return Ok(Some(path));
                }
                if read != rows {
                    return Err(super::damaged(
                        file,
                        format!("it has {read} rows, and the file beside it says {rows}"),
                    ));
                }
            }
            self.open = None;
            let Some((file, ShardStats { format, rows, .. })) = self.left.next() else { return Ok(None) };
            let reader = Reader::open_as(&file, format)?;
            if rows > 0 && reader.columns() != self.columns {
                let (has, says) = (reader.columns(), self.columns);
                return Err(super::damaged(&file, format!("it has {has} columns, and the file beside it says {says}")));
            }
            self.open = Some(Open { reader, file, read: 0, rows });
        }
    }
}
