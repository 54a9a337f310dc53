//! Files of embeddings: a row of numbers per picture, with its path, in the formats of the field.
//!
//! Both ways are streams, so that a file may be larger than memory: [`write()`] takes rows from a [`Table`], [`Reader`]
//! gives them one after the other.

pub(crate) mod npy;
#[cfg(feature = "parquet")]
mod parquet;
mod shards;
mod tensors;
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::listing;
use crate::{Error, Result};

pub use shards::{ShardStats, shards_in, stats_beside};

/// The format of a file of embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A NumPy array, float32 `[rows, columns]`, and a list beside it: one path per line.
    Npy,
    /// The tensors `embeddings`, float32 `[rows, columns]`, and `paths`, the bytes of a list with one path per line.
    Safetensors,
    /// A table with the columns path, e0, e1, ...
    Csv,
    /// A JSON object per line: `path` and `embedding`.
    Jsonl,
    /// A Parquet file with the columns `path` and `embedding`, a list of floats; of a shard also `key` and `error`, and a
    /// row without an embedding for each picture that could not be read. With the feature `parquet`.
    Parquet,
}

impl Format {
    /// The names of the formats, which are also the endings of their files.
    pub const NAMES: &[&str] = &["npy", "safetensors", "csv", "jsonl", "parquet"];

    /// The name in requests and reports.
    pub fn name(self) -> &'static str {
        match self {
            Format::Npy => "npy",
            Format::Safetensors => "safetensors",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }

    /// The format that a file's ending names.
    pub fn of_ending(path: &Path) -> Option<Format> {
        listing::extension(&path.to_string_lossy()).parse().ok()
    }

    /// Whether this build writes and reads it.
    pub fn is_built(self) -> bool {
        self != Format::Parquet || cfg!(feature = "parquet")
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [Format::Npy, Format::Safetensors, Format::Csv, Format::Jsonl, Format::Parquet];
        let found = all.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("one of {} is wanted, got `{text}`", Format::NAMES.join(", ")))
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a file says of a shard beyond its rows.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The path of the shard, with which those of its pictures begin.
    pub origin: String,
    /// Path of each picture that has no row, and why.
    pub left_out: Vec<(String, String)>,
}

impl Shard {
    /// The key of a picture, as webdataset has it: its name in the shard up to the first dot behind the last folder.
    pub fn key<'p>(&self, path: &'p str) -> &'p str {
        let name = path.strip_prefix(self.origin.as_str()).unwrap_or(path).trim_start_matches(['/', '\\']);
        let last = name.rfind(['/', '\\']).map_or(0, |at| at + 1);
        // A dot in front begins a name.
        name[last..].char_indices().skip(1).find(|(_, c)| *c == '.').map_or(name, |(at, _)| &name[..last + at])
    }
}

/// Rows that are written.
pub trait Table {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Numbers per row.
    fn columns(&self) -> usize;
    /// The shard that the rows are of, where the file is to say so.
    fn shard(&self) -> Option<Shard> {
        None
    }
    /// Calls `each` with the path of every row, in order.
    ///
    /// # Errors
    /// What `each` returns.
    fn paths(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()>;
    /// Calls `each` with the path and the numbers of every row, in order.
    ///
    /// # Errors
    /// What `each` returns, and where a row cannot be read.
    fn visit(&mut self, each: &mut dyn FnMut(&str, &[f32]) -> io::Result<()>) -> io::Result<()>;
}

/// Writes all rows. The bytes are a function of the rows and `about`, which is what a file of tensors says of itself.
///
/// # Errors
/// Where `out` cannot be written, a row cannot be read, a number is not finite where JSON is wanted, or the build lacks
/// the format.
pub fn write(
    format: Format,
    table: &mut dyn Table,
    about: &[(&str, String)],
    out: &mut (dyn Write + Send),
) -> io::Result<()> {
    match format {
        Format::Npy => npy::write(table, out),
        Format::Safetensors => tensors::write(table, about, out),
        Format::Csv => text::write_csv(table, out),
        Format::Jsonl => text::write_jsonl(table, out),
        #[cfg(feature = "parquet")]
        Format::Parquet => parquet::write(table, out),
        #[cfg(not(feature = "parquet"))]
        Format::Parquet => Err(io::Error::new(io::ErrorKind::Unsupported, "this build lacks the feature `parquet`")),
    }
}

/// The list of paths that goes beside `out`; none where the format has the paths itself.
pub fn list_of(format: Format, out: &Path) -> Option<PathBuf> {
    (format == Format::Npy).then(|| list_beside(out))
}

/// The list that lies beside an array.
pub fn list_beside(array: &Path) -> PathBuf {
    array.with_extension("txt")
}

/// A path as one line, whatever is in it.
pub fn line(path: &str) -> String {
    path.replace('\n', "\\n").replace('\r', "\\r")
}

/// Gives the rows of a file of embeddings.
trait Rows {
    fn columns(&self) -> usize;
    /// Replaces `row` by the next row, and gives its path; none after the last.
    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>>;
}

/// The rows of a file of embeddings, one after the other.
pub struct Reader {
    rows: Box<dyn Rows>,
}

impl Reader {
    /// Opens a file whose ending names its format, or a folder of shards, whose rows follow each other by the names of
    /// the files.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where it is no such file or folder, or damaged.
    pub fn open(path: &Path) -> Result<Reader> {
        if path.is_dir() {
            return match shards_in(path)? {
                none if none.is_empty() => {
                    Err(Error::data(path, "holds no embeddings of shards, as `embed` writes them"))
                }
                shards => Ok(Reader::of_shards(shards)),
            };
        }
        let format = Format::of_ending(path).ok_or_else(|| {
            let endings: Vec<_> = Format::NAMES.iter().map(|name| format!(".{name}")).collect();
            Error::data(path, format!("its ending names no format of embeddings: give one of {}", endings.join(", ")))
        })?;
        Reader::open_as(path, format)
    }

    /// The rows of shards that [`shards_in`] found, one after the other.
    pub fn of_shards(shards: Vec<(PathBuf, ShardStats)>) -> Reader {
        Reader { rows: Box::new(shards::Rows::new(shards)) }
    }

    /// As [`Reader::open`], whatever the ending.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_as(path: &Path, format: Format) -> Result<Reader> {
        Ok(Reader {
            rows: match format {
                Format::Npy => Box::new(npy::Rows::open(path)?),
                Format::Safetensors => Box::new(tensors::Rows::open(path)?),
                Format::Csv => Box::new(text::CsvRows::open(path)?),
                Format::Jsonl => Box::new(text::JsonRows::open(path)?),
                #[cfg(feature = "parquet")]
                Format::Parquet => Box::new(parquet::Rows::open(path)?),
                #[cfg(not(feature = "parquet"))]
                Format::Parquet => return Err(Error::data(path, LACKS_PARQUET)),
            },
        })
    }

    /// Numbers per row.
    pub fn columns(&self) -> usize {
        self.rows.columns()
    }

    /// Replaces `row` by the next row, [`Reader::columns`] numbers, and gives its path as a [`line()`]; none after the
    /// last.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where the file is damaged.
    pub fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        self.rows.next(row)
    }
}

/// What a build without Parquet says.
pub const LACKS_PARQUET: &str = "this build does not know Parquet: build it with `--features parquet`, or take \
                                 .safetensors, .npy, .csv or .jsonl";

/// A file that is damaged.
fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::data(path, format!("is no whole file of embeddings ({why}): copy it again, or name another"))
}
