//! Ctrl-C: the first asks the job to finish its step and save, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// What [`install`] is told where a run is trained.
pub const TRAINING: &str = "stopping, and saving the step that is under way; Ctrl-C again stops at once and loses the \
                            steps since the last checkpoint";

/// From here on the first Ctrl-C (or SIGTERM) sets [`requested`] and `say`s `sentence`, and the second exits with 130.
pub fn install(sentence: &'static str, say: fn(&str)) -> Result<()> {
    ctrlc::set_handler(move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        // After the ^C that a terminal shows.
        say("");
        say(sentence);
    })
    .map_err(|e| Error::Internal(format!("the Ctrl-C handler cannot be set: {e}")))
}

/// Whether the user has asked for an end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
