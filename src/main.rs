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
/// layer asks it for the screen. It is silent where `XDG_RUNTIME_DIR` names a folder, if only one that is not there.
/// The variable of a running process cannot be set safely, so the process begins once more with it; where that
/// fails, the complaint is all that comes of it.
#[cfg(target_os = "linux")]
fn quiet_wayland() {
    use std::os::unix::process::CommandExt;
    const VARIABLE: &str = "XDG_RUNTIME_DIR";
    let mut words = std::env::args_os();
    if std::env::var_os(VARIABLE).is_none()
        && let (Some(name), Ok(program)) = (words.next(), std::env::current_exe())
    {
        let _ = std::process::Command::new(program).arg0(name).args(words).env(VARIABLE, "/nonexistent").exec();
    }
}
