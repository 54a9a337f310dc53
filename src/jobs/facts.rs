//! What is known of a run beyond its settings, metrics and checkpoint: `report.json` in its folder, from which its page is
//! made again and runs are compared.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::score::Score;
use crate::files::replace_file;
use crate::files::run_folder::FACTS_FILE;
use crate::train::validation::Validated;
use crate::{Error, Result};

/// The name and version of the document.
const SCHEMA: &str = "ieq-wgpu.run.1";

/// What is known of a run. Everything may be missing: other versions know other things.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Name and version of the document.
    pub schema: String,
    /// Version of the program that wrote it.
    pub version: String,
    /// The command lines that began and continued the run.
    pub commands: Vec<String>,
    /// When the run began and when this was written, seconds since 1970.
    pub began: u64,
    /// See `began`.
    pub written: u64,
    /// Seconds that its steps took.
    pub seconds: f64,
    /// `training`, `finished` or `stopped`.
    pub state: String,
    /// Why it stopped, or ended before its last step.
    pub why: Option<String>,
    /// Finished steps.
    pub steps: u32,
    /// Steps of the whole run.
    pub total_steps: u32,
    /// The device.
    pub device: String,
    /// Bytes on the device by purpose.
    pub memory: Vec<(String, u64)>,
    /// The operation at which they are most.
    pub memory_peak: String,
    /// What was chosen so that it fits the memory or the device.
    pub fitted: Vec<String>,
    /// A sentence on the training images.
    pub data: String,
    /// The fingerprint of its data, and of a teacher and of a network that it began with.
    pub fingerprints: Vec<(String, String)>,
    /// Side of the images in pixels, training classes and training images.
    pub shape: (usize, usize, usize),
    /// Novel classes and images that it was scored on.
    pub novel: Option<(usize, usize)>,
    /// Scores before the training.
    pub untrained: Vec<Score>,
    /// Scores of the network that is kept.
    pub trained: Vec<Score>,
    /// Scores of the last network, where another is kept.
    pub last: Vec<Score>,
    /// The network that validated best.
    pub best: Option<Validated>,
    /// What is probably not as it should be.
    pub warnings: Vec<String>,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time as people write it, in UTC: the civil calendar from days since 1970, after Howard Hinnant.
pub fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", of_day / 3600, of_day % 3600 / 60)
}

impl Facts {
    /// Of a run that begins or goes on now.
    pub(super) fn begin() -> Facts {
        Facts {
            schema: SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            began: now(),
            state: "training".into(),
            ..Facts::default()
        }
    }

    /// Those in a run's folder; none where there are none.
    ///
    /// # Errors
    /// [`Error::Data`] where the file is not one of this program, or is damaged.
    pub fn read(folder: &Path) -> Result<Option<Facts>> {
        let path = folder.join(FACTS_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, "cannot read what is known of the run", error)),
        };
        let other =
            |why: String| Error::data(&path, format!("is not what this program writes of a run ({why}): move it away"));
        let facts: Facts = serde_json::from_str(&text).map_err(|e| other(e.to_string()))?;
        match facts.schema == SCHEMA {
            true => Ok(Some(facts)),
            false => Err(other(format!("its schema is `{}`", facts.schema))),
        }
    }

    /// Puts them into a run's folder.
    ///
    /// # Errors
    /// [`Error::Io`] where that fails.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        replace_file(&folder.join(FACTS_FILE), "cannot write what is known of the run", text.as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(utc(1_795_867_140), "2026-11-28 11:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn what_is_written_is_read_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Facts::read(folder.path()).unwrap(), None);
        let facts = Facts { steps: 7, warnings: vec!["<b>".into()], ..Facts::begin() };
        facts.write(folder.path()).unwrap();
        assert_eq!(Facts::read(folder.path()).unwrap(), Some(facts));
        for text in ["{}", "nonsense", "{\"schema\": \"other\"}"] {
            std::fs::write(folder.path().join(FACTS_FILE), text).unwrap();
            assert!(Facts::read(folder.path()).unwrap_err().to_string().contains("move it away"), "{text}");
        }
    }
}
