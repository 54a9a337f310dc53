//! A run folder: the names of its files, its lock, and how it is opened.
//!
//! Messages name what a request sets in backticks (`request.out`); the command line turns that into its flag.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::{TEMPORARY_PREFIX, replace_file};
use crate::{Error, Result};

/// Name of the checkpoint inside a run folder.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// Name of the checkpoint that validated best, inside the folder of a run with validation.
pub const BEST_FILE: &str = "best.safetensors";

/// Name of the effective configuration inside a run folder.
pub const CONFIG_FILE: &str = "config.toml";

/// Name of the metrics, one JSON object per line, inside a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// Name of the kernels that tuning chose, inside a run folder.
pub const TUNING_FILE: &str = "tuning.toml";

/// What the names of the events for TensorBoard begin with, inside a run folder.
pub const EVENTS_PREFIX: &str = "events.out.tfevents.";

/// What they end with where this program wrote them.
pub const EVENTS_SUFFIX: &str = ".ieq-wgpu";

/// Name of the page about a run, inside a run folder.
pub const REPORT_FILE: &str = "report.html";

/// Name of what is known of a run besides its other files, inside a run folder.
pub const FACTS_FILE: &str = "report.json";

/// What happens to a run that the folder holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is kept, and the new run is refused.
    Refuse,
    /// The new run replaces it.
    Replace,
    /// It continues.
    Resume,
}

/// A run folder that this process writes to: as long as this lives, no other process can open it.
#[derive(Debug)]
#[must_use]
pub struct OpenFolder {
    // The folder itself, locked; none where the system or the file system has no such locks.
    _lock: Option<File>,
}

/// The checkpoint that `path` names for use: a file, or the one inside a run folder that validated best, where the run
/// has validation; else its last one.
///
/// # Errors
/// [`Error::Data`] where there is none.
pub fn checkpoint_file(path: &Path) -> Result<PathBuf> {
    let files = match path.is_dir() {
        true => vec![path.join(BEST_FILE), path.join(CHECKPOINT_FILE)],
        false => vec![path.to_owned()],
    };
    if let Some(file) = files.into_iter().find(|file| file.is_file()) {
        return Ok(file);
    }
    let message = match path.is_dir() {
        true => "this folder holds no checkpoint: name a run folder that `train` wrote, or a .safetensors or .pth file",
        false => "there is no such file: name a checkpoint (.safetensors, .pth) or a run folder that `train` wrote",
    };
    Err(Error::data(path, message))
}

/// Whether a training run wrote to this folder, also where it was stopped before its first checkpoint.
pub fn is_run(folder: &Path) -> bool {
    let holds = |name: &str| folder.join(name).is_file();
    holds(CONFIG_FILE) && (holds(CHECKPOINT_FILE) || holds(METRICS_FILE))
}

/// Whether a process is training in this folder, as far as the system can tell.
pub fn is_held(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Refuses a path that is no folder, and unless it may be replaced a folder that holds a run.
///
/// # Errors
/// [`Error::Data`] with the ways out.
pub fn check_free(out: &Path, existing: Existing) -> Result<()> {
    if let Some(file) = out.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
        return Err(Error::data(file, "this is a file, and `request.out` wants a folder"));
    }
    if existing == Existing::Refuse && out.join(CHECKPOINT_FILE).exists() {
        return Err(Error::data(
            out,
            "this folder holds a run: continue it with `request.resume`, replace it with `request.overwrite`, or name \
             another with `request.out`",
        ));
    }
    Ok(())
}

/// Creates a run folder, locks it, and saves the configuration in it, whole or not at all. Unless the run is resumed,
/// an older one's files go first, so that nothing can be resumed by mistake. What a killed process was writing goes,
/// too. To be called once data and device are known to be good, so that a run that cannot start leaves nothing behind.
///
/// # Errors
/// [`Error::Data`] where another process holds the folder or a run is in the way; [`Error::Io`] where the folder cannot
/// be written.
pub fn open(out: &Path, config: &str, existing: Existing) -> Result<OpenFolder> {
    std::fs::create_dir_all(out)
        .map_err(|e| Error::io(out, "cannot create the run folder (`request.out` names another)", e))?;
    let lock = File::open(out).ok();
    if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
        return Err(Error::data(
            out,
            "another process is training in this folder: wait for its end, or name another folder with `request.out`",
        ));
    }
    if existing != Existing::Resume {
        // Another run may have ended here since the request was validated; none can while the folder is locked.
        check_free(out, existing)?;
    }
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
            // Harmless if it stays.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    if existing != Existing::Resume {
        let names = std::fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.file_name());
        // Another program's may lie there, too.
        let events = names.filter(|name| {
            let name = name.as_encoded_bytes();
            name.starts_with(EVENTS_PREFIX.as_bytes()) && name.ends_with(EVENTS_SUFFIX.as_bytes())
        });
        let own = [CHECKPOINT_FILE, BEST_FILE, METRICS_FILE, TUNING_FILE].map(Into::into);
        for name in own.into_iter().chain(events) {
            let old = out.join(name);
            match std::fs::remove_file(&old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let what = "cannot remove the run that this one replaces (`request.out` names another)";
                    return Err(Error::io(old, what, e));
                }
                _ => {}
            }
        }
    }
    let path = out.join(CONFIG_FILE);
    if !std::fs::read_to_string(&path).is_ok_and(|old| old == config) {
        let what = "cannot save the configuration (`request.out` names another folder)";
        replace_file(&path, what, config.as_bytes())?;
    }
    Ok(OpenFolder { _lock: lock })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_opened_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let count = || std::fs::read_dir(&out).unwrap().count();
        drop(open(&out, "lr = 1\n", Existing::Refuse).unwrap());
        assert_eq!(std::fs::read(out.join(CONFIG_FILE)).unwrap(), b"lr = 1\n");
        assert_eq!(count(), 1);
        assert!(!is_run(&out));

        std::fs::write(out.join(CHECKPOINT_FILE), "old").unwrap();
        std::fs::write(out.join(METRICS_FILE), "old").unwrap();
        std::fs::write(out.join(".writing-x"), "half of a checkpoint").unwrap();
        drop(open(&out, "lr = 1\n", Existing::Resume).unwrap());
        assert_eq!(count(), 3);
        assert!(is_run(&out));
        let refusal = open(&out, "lr = 2\n", Existing::Refuse).unwrap_err().to_string();
        assert!(refusal.contains("holds a run"), "a run that came after the request was validated: {refusal}");
        assert_eq!(count(), 3, "it is left as it is");
        let held = open(&out, "lr = 2\n", Existing::Replace).unwrap();
        assert_eq!(count(), 1, "an older run's files go");
        #[cfg(unix)]
        assert!(open(&out, "", Existing::Replace).unwrap_err().to_string().contains("another process"));
        drop(held);
    }
}
