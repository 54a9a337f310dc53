//! `bench`: what this device, every kernel and the training step reach.

use std::path::PathBuf;

use serde::Serialize;

use super::{Session, distinct, output_file, tuning, within};
use crate::bench::compare::{self, Comparison};
use crate::bench::{self, Options, Run, picture, table};
use crate::files::replace_file;
use crate::progress::Progress;
use crate::{Error, Result};

/// What to measure, and where to leave it.
#[derive(Clone, Debug)]
pub struct BenchRequest {
    /// What is measured.
    pub options: Options,
    /// Where the kernels' table goes, as comma-separated values.
    pub csv: Option<PathBuf>,
    /// Where the roofline picture goes.
    pub svg: Option<PathBuf>,
    /// The document of an earlier run to compare with.
    pub compare: Option<PathBuf>,
    /// How much slower the comparison lets a time be, percent.
    pub threshold: f64,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchOutcome {
    /// Everything.
    #[serde(flatten)]
    pub run: Run,
    /// The comparison with the earlier run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Why there is none, where the request names an earlier run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_comparable: Option<String>,
}

impl BenchRequest {
    fn validate(&self) -> Result<()> {
        let options = &self.options;
        options.config.validate()?;
        for &side in &options.sides {
            options.config.check_side(side)?;
        }
        options.rows.map_or(Ok(()), |rows| within("request.rows", rows, 2, 65_536))?;
        options.samples.map_or(Ok(()), |samples| within("request.samples", samples, 3, 1000))?;
        if options.check && !options.time && !options.kernels {
            return Err(Error::usage(
                "`request.check_only` checks kernels, and `request.step` alone has none: leave one of them out",
            ));
        }
        if !(0.0..=1000.0).contains(&self.threshold) {
            return Err(Error::Argument {
                what: "request.threshold",
                got: self.threshold.to_string(),
                wanted: "from 0 to 1000 percent".into(),
            });
        }
        let files = [("request.csv", &self.csv, "kernels.csv"), ("request.svg", &self.svg, "roofline.svg")];
        for (what, path, example) in files {
            path.as_deref().map_or(Ok(()), |path| output_file(what, path, example))?;
        }
        distinct(("request.csv", self.csv.as_ref()), ("request.svg", self.svg.as_ref()))
    }
}

/// Measures kernels and steps.
///
/// # Errors
/// Settings that cannot be used, an earlier run that cannot be read, and what the device refuses.
pub fn run(request: &BenchRequest, session: &Session, progress: &mut dyn Progress) -> Result<BenchOutcome> {
    request.validate()?;
    let before = request.compare.as_deref().map(compare::read).transpose()?;
    let mut kernels = session.open(request.options.config.run.tune, request.options.config.run.matrix, progress)?;
    let run = bench::run(&request.options, &mut kernels, progress)?;
    tuning::keep(&kernels, None, session.cache.as_deref(), &mut |text| progress.note(text))?;
    // What was measured is not lost to an earlier run of something else.
    let compared = before.map(|before| compare::compare(&before, &run, request.threshold)).transpose();
    let (comparison, not_comparable) = match compared {
        Ok(comparison) => (comparison, None),
        Err(error) => (None, Some(error.to_string())),
    };
    if comparison.as_ref().is_some_and(|c| !c.same_device) {
        progress.warn("the earlier run is of another adapter or driver");
    }
    Ok(BenchOutcome { run, comparison, not_comparable })
}

impl BenchOutcome {
    /// Writes the files that the request names.
    ///
    /// # Errors
    /// [`Error::Io`] when one cannot be written.
    pub fn write_files(&self, request: &BenchRequest) -> Result<()> {
        if let Some(path) = &request.csv {
            replace_file(path, "cannot write the table", &table::csv(&self.run)?)?;
        }
        if let Some(path) = &request.svg {
            let svg = picture::draw(&self.run);
            let svg = svg.ok_or_else(|| Error::usage("nothing was timed, so there is no picture to draw"))?;
            replace_file(path, "cannot write the picture", svg.as_bytes())?;
        }
        Ok(())
    }

    /// Whether every kernel is right and no time has regressed.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] where not, [`Error::Usage`] where the earlier run is of something else.
    pub fn passed(&self) -> Result<()> {
        if self.run.failed() > 0 {
            return Err(Error::TargetMissed(format!(
                "{} of {} kernels are off on this device and were not timed: please report them with \
                 `ieq-wgpu bench --check-only --json`",
                self.run.failed(),
                self.run.kernels.len()
            )));
        }
        if let Some(why) = &self.not_comparable {
            return Err(Error::usage(why));
        }
        match &self.comparison {
            Some(c) if c.regressed > 0 => Err(Error::TargetMissed(format!(
                "{} of {} times are more than {} % slower than in the earlier run",
                c.regressed,
                c.changes.len(),
                c.threshold_pct
            ))),
            _ => Ok(()),
        }
    }
}
