//! What tuning chose, kept between runs: for each adapter in the session's cache folder, and with each run in its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::replace_file;
use crate::files::run_folder::TUNING_FILE;
use crate::gpu::kernel::Kernels;
use crate::gpu::shader;
use crate::gpu::tune::Measure;
use crate::ops::check;
use crate::settings::Tune;
use crate::{Error, Result};

/// What measurements are valid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    adapter: String,
    driver: String,
    /// A number that differs where the shaders differ.
    shaders: String,
}

/// A number that differs where the shaders of two builds differ.
pub fn shaders() -> String {
    let bytes = shader::SOURCES.iter().flat_map(|(name, text)| name.bytes().chain(text.bytes()));
    let words: Vec<u32> = bytes.map(u32::from).collect();
    crate::train::state::fingerprint([words.as_slice()])
}

impl Machine {
    /// The adapter of `kernels` with its driver.
    pub fn of(kernels: &Kernels) -> Machine {
        let gpu = kernels.gpu();
        Machine {
            adapter: format!("{} ({:?})", gpu.info().name, gpu.info().backend),
            driver: format!("{} {}", gpu.info().driver, gpu.info().driver_info).trim().to_owned(),
            shaders: shaders(),
        }
    }

    /// The file `WHAT-ADAPTER.toml` in the cache folder.
    pub fn file(&self, folder: &Path, what: &str) -> PathBuf {
        // `NAME (BACKEND)` as NAME-BACKEND.
        let name = match self.adapter.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")) {
            Some((name, backend)) => format!("{name}-{backend}"),
            None => self.adapter.clone(),
        };
        let plain = name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        folder.join(format!("{what}-{plain}.toml"))
    }
}

/// Choices and what they are valid for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    adapter: String,
    driver: String,
    /// A number that differs where the shaders differ.
    shaders: String,
    /// Entry point by launch.
    chosen: BTreeMap<String, String>,
}

impl Kept {
    fn of(kernels: &Kernels) -> Kept {
        let Machine { adapter, driver, shaders } = Machine::of(kernels);
        Kept { adapter, driver, shaders, chosen: kernels.tuning().chosen.clone() }
    }

    /// Whether both are of the same adapter, driver and shaders.
    fn fits(&self, other: &Kept) -> bool {
        (&self.adapter, &self.driver, &self.shaders) == (&other.adapter, &other.driver, &other.shaders)
    }

    /// The choices of a file that are valid for `kernels`; none where it is missing or of something else.
    fn read(path: &Path, kernels: &Kernels) -> BTreeMap<String, String> {
        let kept = std::fs::read_to_string(path).ok().and_then(|text| toml::from_str::<Kept>(&text).ok());
        kept.filter(|kept| kept.fits(&Kept::of(kernels))).map(|kept| kept.chosen).unwrap_or_default()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|e| Error::Internal(format!("tuning: {e}")))?;
        replace_file(path, "cannot keep what tuning chose", text.as_bytes())
    }
}

/// Takes over what was chosen before on this device, and measures the rest as `tune` says.
pub fn begin(kernels: &mut Kernels, tune: Tune, cache: Option<&Path>) {
    let clock = crate::train::clock;
    let effort = match tune {
        Tune::Auto if kernels.gpu().is_software() => Tune::Off,
        Tune::Auto => Tune::Quick,
        other => other,
    };
    // A full search does not trust a quick one.
    let cached = cache.filter(|_| effort == Tune::Quick);
    let cached = cached.map(|folder| Kept::read(&Machine::of(kernels).file(folder, "tuning"), kernels));
    kernels.verify_choices(check::verify);
    let tuning = kernels.tuning_mut();
    tuning.chosen = cached.unwrap_or_default();
    tuning.measure = match effort {
        Tune::Quick => Some(Measure { samples: 2, all: false, clock }),
        Tune::Full => Some(Measure { samples: 7, all: true, clock }),
        _ => None,
    };
}

/// Takes over what the run in `folder` chose: it goes on with the same kernels.
pub fn take(kernels: &mut Kernels, folder: &Path) {
    let chosen = Kept::read(&folder.join(TUNING_FILE), kernels);
    kernels.tuning_mut().chosen.extend(chosen);
}

/// Keeps what was chosen for later runs and with the run in `run`. A cache that cannot be written is a note: the next
/// run measures again.
///
/// # Errors
/// [`Error::Io`] when the run's folder cannot be written.
pub fn keep(kernels: &Kernels, run: Option<&Path>, cache: Option<&Path>, note: &mut dyn FnMut(&str)) -> Result<()> {
    let tuning = kernels.tuning();
    for (kind, _) in tuning.verified.iter().filter(|(_, is_right)| !**is_right) {
        let device = kernels.gpu().describe();
        note(&format!(
            "{kind} gives wrong numbers on {device} and is not used: please report it with what `check` says"
        ));
    }
    if tuning.chosen.is_empty() {
        return Ok(());
    }
    let kept = Kept::of(kernels);
    if let Some(run) = run {
        kept.write(&run.join(TUNING_FILE))?;
    }
    // What a run brought along does not replace what the cache has learnt since.
    if !tuning.measured.is_empty()
        && let Some(folder) = cache
    {
        let file = Machine::of(kernels).file(folder, "tuning");
        let mut all = kept;
        all.chosen.retain(|site, _| tuning.measured.contains(site));
        for (site, entry) in Kept::read(&file, kernels) {
            all.chosen.entry(site).or_insert(entry);
        }
        let made = std::fs::create_dir_all(folder).map_err(|e| Error::io(&file, "cannot keep what tuning chose", e));
        if let Err(error) = made.and_then(|()| all.write(&file)) {
            note(&format!("{error}; the next run will measure again"));
        }
    }
    Ok(())
}
