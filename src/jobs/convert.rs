//! `convert`: a data set in another format.

use std::path::PathBuf;

use serde::Serialize;

use super::{Session, source};
pub use crate::data::convert::{Format, Written};
use crate::data::{DataOptions, convert};
use crate::progress::Progress;
use crate::{Error, Result};

/// Pictures of a shard, where nothing else is asked for: as img2dataset has it.
pub const SHARD_SIZE: usize = 10_000;

/// A data set to write.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvertRequest {
    /// What is read, as `data.source`.
    pub data: String,
    /// What it is written as.
    pub to: Format,
    /// The zip or folder to write.
    pub out: PathBuf,
    /// Side of the pictures in pixels; none: their own.
    pub side: Option<usize>,
    /// The file that splits the classes; none: as the data is split.
    pub split_file: Option<PathBuf>,
    /// Pictures of a shard.
    pub shard_size: usize,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct ConvertOutcome {
    /// What was read.
    pub data: String,
    /// What was written.
    pub out: PathBuf,
    /// Its format.
    pub to: Format,
    /// Its splits.
    pub splits: Vec<Written>,
}

/// Writes a data set in another format.
///
/// # Errors
/// Data that cannot be read, a place that is taken, and what the format cannot hold.
pub fn run(request: &ConvertRequest, _: &Session, progress: &mut dyn Progress) -> Result<ConvertOutcome> {
    source(&request.data)?;
    if request.shard_size == 0 {
        let (what, wanted) = ("request.shard_size", "at least 1 (try 10000)".into());
        return Err(Error::Argument { what, got: "0".into(), wanted });
    }
    if request.out.file_name().is_none() {
        return Err(Error::usage("`request.out` wants the name of a zip or a folder to write"));
    }
    let options = DataOptions { side: request.side, split_file: request.split_file.clone(), ..DataOptions::default() };
    let reading = (&options, request.shard_size);
    let written = convert::convert(&request.data, request.to, &request.out, reading, progress);
    let splits = written.map_err(|error| match error {
        Error::Data { path, message } => Error::data(path, message.replace("set the side", "set `request.side`")),
        other => other,
    })?;
    Ok(ConvertOutcome { data: request.data.clone(), out: request.out.clone(), to: request.to, splits })
}
