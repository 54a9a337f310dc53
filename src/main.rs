//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(unix)]
    outlive_large_files();
    #[cfg(target_os = "linux")]
    quiet_wayland();
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

/// Where there is no session (a container, a cron job), Wayland's library complains on stderr whenever Mesa's Vulkan
/// layer asks it for the screen, in words that read like an error of this program. It is silent where
/// `XDG_RUNTIME_DIR` names a folder, even one that does not exist.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the environment is changed before any other thread begins")]
fn quiet_wayland() {
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: this is the first thing that the process does; no other thread can read the environment.
        unsafe { std::env::set_var(VARIABLE, "/nonexistent") };
    }
}
