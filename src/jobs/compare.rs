//! `compare`: runs side by side, as a table and as curves.

use std::path::PathBuf;

use serde::Serialize;

use super::facts::Facts;
use super::score::Score;
use super::stored::Stored;
use super::{Session, output_file};
use crate::files::replace_file;
use crate::files::run_folder::{CHECKPOINT_FILE, CONFIG_FILE, is_run};
use crate::page::chart::{Curve, Series, drawing};
use crate::progress::Progress;
use crate::settings::{Config, setting};
use crate::train::metrics::{self, Record};
use crate::train::validation::Validated;
use crate::{Error, Result};

/// Most runs of a comparison.
const MOST: usize = 32;

/// Runs to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct CompareRequest {
    /// Run folders, two or more.
    pub runs: Vec<PathBuf>,
    /// The SVG file for their curves.
    pub svg: Option<PathBuf>,
}

/// A run of a comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Its folder.
    pub run: PathBuf,
    /// Its last logged step.
    pub steps: u64,
    /// Its last loss.
    pub loss: Option<f32>,
    /// Mean of the images per second.
    pub images_per_second: Option<f64>,
    /// Seconds of its steps, where they are known.
    pub seconds: Option<f64>,
    /// The best of its validations.
    pub best: Option<Validated>,
    /// Scores on novel classes, where it was scored.
    pub scores: Vec<Score>,
    /// The device, where it is known.
    pub device: Option<String>,
}

/// Runs side by side.
#[derive(Clone, Debug, Serialize)]
pub struct CompareOutcome {
    /// The runs, in the order given.
    pub runs: Vec<Compared>,
    /// Settings that differ: the key, and the value of each run.
    pub differing: Vec<(String, Vec<String>)>,
    /// The SVG file that was written.
    pub svg: Option<PathBuf>,
}

/// Compares runs.
///
/// # Errors
/// Folders that are no runs; files that cannot be read or written.
pub fn run(request: &CompareRequest, _: &Session, progress: &mut dyn Progress) -> Result<CompareOutcome> {
    if !(2..=MOST).contains(&request.runs.len()) {
        let n = request.runs.len();
        let are = if n == 1 { "folder is" } else { "folders are" };
        return Err(Error::usage(format!("{n} run {are} named, and a comparison is of several: name 2 to {MOST}")));
    }
    if let Some(svg) = &request.svg {
        output_file("request.svg", svg, "runs.svg")?;
    }
    if let Some(other) = request.runs.iter().find(|run| !is_run(run)) {
        return Err(Error::data(other, "this is no run folder: name ones that `train` wrote"));
    }
    let mut logs: Vec<Vec<Record>> = Vec::new();
    let (mut runs, mut configs) = (Vec::new(), Vec::new());
    for folder in &request.runs {
        let records = metrics::read(folder)?;
        let config = match Stored::open(&folder.join(CHECKPOINT_FILE)) {
            Ok(stored) => stored.config,
            Err(_) => Config::from_layers(None, &folder.join(CONFIG_FILE))?,
        };
        let facts = Facts::read(folder).unwrap_or_else(|error| {
            progress.warn(&error.to_string());
            None
        });
        let rates = records.iter().map(|record| f64::from(record.images_per_second));
        runs.push(Compared {
            run: folder.clone(),
            steps: records.last().map_or(0, |record| record.step),
            loss: records.last().and_then(|record| record.losses.get("total").copied()),
            images_per_second: (!records.is_empty()).then(|| rates.sum::<f64>() / records.len() as f64),
            seconds: facts.as_ref().map(|facts| facts.seconds).filter(|seconds| *seconds > 0.0),
            best: metrics::best(&records),
            scores: facts.as_ref().map(|facts| facts.trained.clone()).unwrap_or_default(),
            device: facts.map(|facts| facts.device).filter(|device| !device.is_empty()),
        });
        configs.push(config);
        logs.push(records);
    }
    let mut keys: Vec<&'static str> = Vec::new();
    for config in &configs[1..] {
        keys.extend(config.differences(&configs[0]).into_iter().filter(|key| !keys.contains(key)).collect::<Vec<_>>());
    }
    let differing = keys.into_iter().filter_map(|key| {
        let row = setting(key)?;
        Some((key.to_owned(), configs.iter().map(|config| row.shown(config)).collect()))
    });
    let differing = differing.collect();
    if let Some(svg) = &request.svg {
        replace_file(svg, "cannot write the curves", drawing(&curves(&request.runs, &logs)).as_bytes())?;
    }
    Ok(CompareOutcome { runs, differing, svg: request.svg.clone() })
}

/// The same curve of every run, one picture for each.
fn curves(folders: &[PathBuf], logs: &[Vec<Record>]) -> Vec<Curve> {
    let curve =
        |title: &str, unit: &str, of: &dyn Fn(&Record) -> Option<f64>, half: &dyn Fn(&Record) -> Option<f64>| {
            let series = folders.iter().zip(logs).map(|(folder, records)| Series {
                name: folder.display().to_string(),
                points: records.iter().filter_map(|record| Some((record.step as f64, of(record)?))).collect(),
                half: records.iter().filter_map(half).collect(),
            });
            Curve { title: title.into(), unit: unit.into(), series: series.collect(), bounds: None }
        };
    let none = |_: &Record| None;
    let score = |of: fn(&Validated) -> f64| move |record: &Record| record.validation.as_ref().map(of);
    vec![
        curve("Loss", "", &|record| record.losses.get("total").map(|loss| f64::from(*loss)), &none),
        curve("Training accuracy", " %", &|record| Some(100.0 * f64::from(record.accuracy)), &none),
        curve("Validation, 1-shot", " %", &score(|v| v.one_shot_pct), &none),
        curve("Validation, 5-shot", " %", &score(|v| v.five_shot_pct), &none),
        curve("Validation, mean of both", " %", &score(Validated::mean_pct), &score(|v| v.interval_pct)),
    ]
    .into_iter()
    .filter(|curve| curve.series.iter().any(|series| !series.points.is_empty()))
    .collect()
}
