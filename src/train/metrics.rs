//! The metric log of a run: `metrics.jsonl`, one JSON object per line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::validation::Validated;
use crate::{Error, Result};

/// Name of the log in a run's folder.
pub const FILE_NAME: &str = "metrics.jsonl";

/// One line of the log.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// Finished training steps.
    pub step: u64,
    /// Finished epochs.
    pub epoch: u32,
    /// Learning rate of the last step.
    pub lr: f32,
    /// Each loss term of the step, by name.
    pub losses: BTreeMap<String, f32>,
    /// Share of the step's rows whose class was right, in 0..1.
    pub accuracy: f32,
    /// Images (before views) per second of wall time since the last record. The one field that differs
    /// between two runs of one seed.
    pub images_per_second: f32,
    /// The score on the validation classes, where there was one after this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validated>,
}

impl Record {
    /// JSON has no NaN, and serde_json would write `null` in its place.
    fn check_finite(&self) -> Result<()> {
        let own = [("lr", &self.lr), ("accuracy", &self.accuracy), ("images_per_second", &self.images_per_second)];
        let named = self.losses.iter().map(|(name, value)| (name.as_str(), value));
        match own.into_iter().chain(named).find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(Error::NonFinite(format!(
                "{name} is {value} at step {}; lower the learning rate and resume from the last checkpoint",
                self.step
            ))),
        }
    }
}

/// The open log; records are appended in increasing step order.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
    last_step: Option<u64>,
}

impl MetricsLog {
    /// Opens `folder/metrics.jsonl` for a run that continues after `resumed_step` finished steps; `None`
    /// starts the log anew. Records of later steps, which the resumed run writes again, and a last line
    /// that a crash cut short are removed, so that the log equals that of an uninterrupted run.
    pub fn open(folder: &Path, resumed_step: Option<u64>) -> Result<Self> {
        let path = folder.join(FILE_NAME);
        let io = |what: &str| {
            let (path, what) = (path.clone(), what.to_owned());
            move |source| Error::io(path, what, source)
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("cannot open the metric log"))?;
        let (mut keep, mut last_step) = (0, None);
        if let Some(resumed_step) = resumed_step {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(io("cannot read the metric log"))?;
            (keep, last_step) = kept(&path, &bytes, resumed_step)?;
        }
        file.set_len(keep).map_err(io("cannot shorten the metric log"))?;
        file.seek(SeekFrom::Start(keep)).map_err(io("cannot extend the metric log"))?;
        Ok(MetricsLog { file, path, last_step })
    }

    /// Appends one record; the line is with the system when this returns.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        record.check_finite()?;
        if self.last_step.is_some_and(|last| record.step <= last) {
            return Err(Error::Internal(format!("metrics of step {} come after a later step's", record.step)));
        }
        let mut line = serde_json::to_vec(record).map_err(|e| Error::Internal(e.to_string()))?;
        line.push(b'\n');
        // One write for the line: a reader that follows the file sees whole lines.
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, "cannot extend the metric log", e))?;
        self.last_step = Some(record.step);
        Ok(())
    }

    /// Brings the log to the disk; call it before a checkpoint, which must never be ahead of its log.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, "cannot bring the metric log to the disk", e))
    }
}

/// All records of `folder/metrics.jsonl`; none if there is no log yet. A last line without its line
/// break, which a running or crashed writer leaves, is skipped.
pub fn read(folder: &Path) -> Result<Vec<Record>> {
    let path = folder.join(FILE_NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path, "cannot read the metric log", error)),
    };
    whole_lines(&bytes)
        .enumerate()
        .map(|(i, line)| serde_json::from_slice(line).map_err(|e| bad_line(&path, i, &e)))
        .collect()
}

/// The best validation of a log, by the mean of its accuracies; the earliest of equals.
pub fn best(records: &[Record]) -> Option<Validated> {
    let scores = records.iter().rev().filter_map(|record| record.validation);
    scores.max_by(|a, b| a.mean_pct().total_cmp(&b.mean_pct()))
}

/// The lines that end with a line break, each with it.
fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"))
}

/// Bytes to keep and the last step in them.
fn kept(path: &Path, bytes: &[u8], resumed_step: u64) -> Result<(u64, Option<u64>)> {
    /// The one field that decides.
    #[derive(serde::Deserialize)]
    struct Step {
        step: u64,
    }
    let (mut keep, mut last_step) = (0, None);
    for (i, line) in whole_lines(bytes).enumerate() {
        let Step { step } = serde_json::from_slice(line).map_err(|e| bad_line(path, i, &e))?;
        if step > resumed_step {
            break;
        }
        keep += line.len() as u64;
        last_step = Some(step);
    }
    Ok((keep, last_step))
}

fn bad_line(path: &Path, index: usize, error: &serde_json::Error) -> Error {
    Error::data(path, format!("line {} is not a metric record ({error}); move the file away", index + 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record {
            step,
            epoch: (step / 10) as u32,
            lr: 0.05,
            losses: [("ce".to_owned(), 1.0 / (step + 1) as f32), ("inv".to_owned(), 0.1)].into(),
            accuracy: 0.5,
            images_per_second: 123.0,
            validation: None,
        }
    }

    fn write(folder: &Path, resumed: Option<u64>, steps: impl IntoIterator<Item = u64>) {
        let mut log = MetricsLog::open(folder, resumed).unwrap();
        steps.into_iter().for_each(|step| log.write(&record(step)).unwrap());
        log.sync().unwrap();
    }

    #[test]
    fn a_resumed_log_equals_an_uninterrupted_one() {
        let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(whole.path(), None, 1..=20);
        let want = std::fs::read(whole.path().join(FILE_NAME)).unwrap();
        assert_eq!(read(whole.path()).unwrap(), (1..=20).map(record).collect::<Vec<_>>());

        // The run got to step 13 with its last checkpoint at 8, and the crash cut line 14 short.
        write(cut.path(), None, 1..=13);
        let path = cut.path().join(FILE_NAME);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":14,\"ep").unwrap();
        assert_eq!(read(cut.path()).unwrap().len(), 13);
        write(cut.path(), Some(8), 9..=20);
        assert_eq!(std::fs::read(&path).unwrap(), want);

        // Resumed at the end: only the broken line goes.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"st").unwrap();
        write(cut.path(), Some(20), []);
        assert_eq!(std::fs::read(&path).unwrap(), want);

        // A new run in the old folder starts an empty log; so does a resume at step 0.
        write(cut.path(), Some(0), []);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        write(cut.path(), None, 1..=3);
        write(cut.path(), None, []);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn bad_records_and_logs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path(), None).unwrap();
        let mut bad = record(1);
        bad.losses.insert("inv".to_owned(), f32::NAN);
        assert!(log.write(&bad).unwrap_err().to_string().contains("inv is NaN at step 1"));
        log.write(&record(2)).unwrap();
        assert!(log.write(&record(2)).is_err());
        std::fs::write(folder.path().join(FILE_NAME), "{\"step\":1}\nnonsense\n{\"step\":3}\n").unwrap();
        let error = MetricsLog::open(folder.path(), Some(3)).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(MetricsLog::open(&folder.path().join("absent"), None).is_err());
        assert!(read(&folder.path().join("absent")).unwrap().is_empty());
    }
}
