//! cli.

/// Runs the command line and returns the exit code.
pub fn run() -> u8 {
    0
}
