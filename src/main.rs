//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(unix)]
    outlive_large_files();
    ExitCode::from(ieq_wgpu::cli::run())
}

/// A file that grows beyond the system's limit (`ulimit -f`) is an error of its write, with a sentence, once the signal
/// that would end the process is held back: for all threads, which begin with this one's mask.
#[cfg(unix)]
fn outlive_large_files() {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Where that fails the signal stays what it is.
    let _ = signals.thread_block();
}
