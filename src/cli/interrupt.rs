//! Ctrl-C: the first asks the job to finish its step and save, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use super::report;
use crate::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// From here on the first Ctrl-C (or SIGTERM) sets [`requested`] and the second exits with 130.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        report::write_stderr("\nfinishing the step, then saving; Ctrl-C again stops at once and loses the steps since the last checkpoint");
    })
    .map_err(|e| Error::Internal(format!("the Ctrl-C handler cannot be set: {e}")))
}

/// Whether the user has asked for an end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
