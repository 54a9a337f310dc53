//! The jobs of the product: a request goes in, an outcome comes out. Nothing here parses words, prints, reads an
//! environment variable or keeps state of the process; every job validates its request before it works.
//!
//! Messages name a setting by its key (`optimiser.batch`) and a member of a request as `request.out`, in backticks; the
//! command line turns both into flags.

pub mod ablate;
pub mod audit;
pub mod bench;
mod calibrate;
pub mod check;
pub mod compare;
pub mod convert;
mod copies;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod eval;
pub mod export;
mod extraction;
pub mod facts;
pub mod fit;
pub mod forecast;
mod init;
pub mod inspect;
pub mod link;
mod matrix;
pub mod model;
pub mod neighbors;
mod novel;
mod pace;
mod part;
pub mod plan;
mod portability;
pub mod predict;
pub mod ranks;
mod reference;
pub mod report;
mod rows;
pub mod score;
pub mod shards;
pub mod stored;
mod supply;
pub mod support_file;
mod survey;
mod table;
pub mod train;
mod tuning;
pub mod validate;
pub mod views;

use std::path::{Path, PathBuf};

use crate::data::sheet::is_sheet;
use crate::data::{DataOptions, ImageSet};
use crate::gpu::device::{Gpu, Options};
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::settings::{DataConfig, Matrix, Tune};
use crate::{Error, Result};

pub use stored::Stored;

/// What jobs share: how a device is opened, and where measured choices of kernels are kept.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The adapter and its limits.
    pub gpu: Options,
    /// Folder of the tuning cache; none: nothing is kept beyond the run folders.
    pub cache: Option<PathBuf>,
    /// The command line, for what is written of a run.
    pub command: Option<String>,
    /// The ranks that share a training run, where there are several.
    pub ranks: Option<Ranks>,
}

impl Session {
    /// Opens the device, takes over what was measured on it before, and measures more as `tune` says. Its matrix units are
    /// found where `matrix` asks for them.
    fn open(&self, tune: Tune, matrix: Matrix, progress: &mut dyn Progress) -> Result<Kernels> {
        // Each rank of a machine takes an adapter of its own, as far as there are some alike.
        let turn = self.ranks.as_ref().map_or(0, Ranks::rank_on_machine);
        let matrix_units = self.gpu.matrix_units || matrix != Matrix::Off;
        let mut kernels = Kernels::new(Gpu::open(&Options { turn, matrix_units, ..self.gpu.clone() })?);
        tuning::begin(&mut kernels, tune, self.cache.as_deref());
        progress.note(&format!("adapter: {}", kernels.gpu().describe()));
        match matrix::begin(&mut kernels, matrix, progress) {
            // A driver that fails at its units may do without them.
            Err(Error::Device(why) | Error::DeviceLost(why)) if matrix == Matrix::Auto => {
                progress.note(&format!("run.matrix = off: {why}"));
                return self.open(tune, Matrix::Off, progress);
            }
            other => other?,
        }
        Ok(kernels)
    }

    /// Opens a device for features alone: with the kernels that training chose on it, and without measuring more.
    fn open_for_features(&self, progress: &mut dyn Progress) -> Result<Kernels> {
        let mut kernels = self.open(Tune::Auto, Matrix::Off, progress)?;
        kernels.tuning_mut().measure = None;
        Ok(kernels)
    }
}

/// How a run's data is read; `side` overrides the setting.
fn data_options(data: &DataConfig, side: Option<usize>) -> DataOptions {
    DataOptions {
        side: side.or(data.side),
        side_most: None,
        split_seed: data.split_seed,
        split_file: data.split_file.clone(),
    }
}

/// How pictures are read that only decide which shipped network suits.
fn look_options() -> DataOptions {
    DataOptions { side: Some(32), ..DataOptions::default() }
}

/// `error`, with the way to a run's own data, which `key` sets, where it is that data which cannot be read.
fn moved(error: Error, source: &str, key: &str) -> Error {
    match error {
        Error::Io { path, what, source: why } if path.as_os_str() == source => {
            Error::io(path, format!("{what}; it is the run's data: `{key}` names where it is now"), why)
        }
        other => other,
    }
}

/// Passes on what is suspicious about the images.
fn warn_of(images: &ImageSet, progress: &mut dyn Progress) {
    images.warnings.iter().for_each(|warning| progress.warn(&warning.message));
}

/// Validates a number of a request.
fn within(what: &'static str, n: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&n) {
        return Ok(());
    }
    Err(Error::Argument { what, got: n.to_string(), wanted: format!("from {low} to {high}") })
}

/// Validates a target accuracy, percent.
fn percentage(target: Option<f64>) -> Result<()> {
    match target {
        Some(pct) if !(0.0..=100.0).contains(&pct) => Err(Error::Argument {
            what: "request.min_acc",
            got: pct.to_string(),
            wanted: "from 0 to 100 percent (try 60)".into(),
        }),
        _ => Ok(()),
    }
}

/// Validates a source of data that a request names.
fn source(data: &str) -> Result<()> {
    if data.is_empty() {
        return Err(Error::usage("`request.data` is empty (try glyphs, or a folder)"));
    }
    Ok(())
}

/// Validates the path of a file that is to be written, before the work that goes into it.
fn output_file(what: &str, path: &Path, example: &str) -> Result<()> {
    let ends_as_folder = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    if path.file_name().is_none() || ends_as_folder {
        let got = path.display();
        return Err(Error::usage(format!("`{what}` wants the name of a file, got `{got}` (try {example})")));
    }
    if path.exists() && !path.is_file() {
        return Err(Error::data(
            path,
            format!("this is a folder or a device, and `{what}` wants to write a file: name another (try {example})"),
        ));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => {
            Err(Error::data(folder, format!("there is no such folder to write `{what}` in: create it first")))
        }
        None => Ok(()),
    }
}

/// Validates the path of a contact sheet that is to be written.
fn sheet_file(what: &str, path: &Path, example: &str) -> Result<()> {
    own_file(what, path, example, "contact sheet of this program", is_sheet)
}

/// Validates the path of a file that is to be written, where a file that is not `noun` must not be replaced.
fn own_file(what: &str, path: &Path, example: &str, noun: &str, is_own: impl FnOnce(&Path) -> bool) -> Result<()> {
    output_file(what, path, example)?;
    if path.metadata().is_ok_and(|about| about.len() > 0) && !is_own(path) {
        return Err(Error::data(path, format!("this file is no {noun}, and `{what}` would replace it: name another")));
    }
    Ok(())
}

/// Refuses two outputs of a job in one file: the later would replace the earlier.
fn distinct(one: (&str, Option<&PathBuf>), other: (&str, Option<&PathBuf>)) -> Result<()> {
    match (one.1, other.1) {
        (Some(a), Some(b)) if same_path(a, b) => Err(Error::usage(format!(
            "`{}` and `{}` name the same file, {}: name two files",
            one.0,
            other.0,
            a.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether two paths lead to the same file or folder.
fn same_path(a: &Path, b: &Path) -> bool {
    // Of a path that is not there yet, the folder is.
    let whole = |path: &Path| -> Option<PathBuf> {
        let path = std::path::absolute(path).ok()?;
        path.canonicalize().ok().or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
    };
    whole(a).unwrap_or_else(|| a.into()) == whole(b).unwrap_or_else(|| b.into())
}
