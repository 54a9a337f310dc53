//! Files that the program writes: their replacement in one step, files that grow by records, and the run folder.

#[cfg(feature = "files")]
pub mod journal;
#[cfg(feature = "files")]
pub mod replace;
pub mod run_folder;
#[cfg(feature = "files")]
pub mod workplace;

#[cfg(feature = "files")]
pub use replace::{replace_alone, replace_file, replace_with};
#[cfg(feature = "files")]
pub use workplace::Workplace;

/// What the name of a file begins with as long as it is not whole.
pub const TEMPORARY_PREFIX: &str = ".writing-";

/// Writes nothing: this build lacks the feature `files`.
///
/// # Errors
/// [`crate::Error::Io`], always.
#[cfg(not(feature = "files"))]
pub fn replace_file(path: &std::path::Path, what: &str, _: &[u8]) -> crate::Result<()> {
    let missing = std::io::Error::new(std::io::ErrorKind::Unsupported, "this build lacks the feature `files`");
    Err(crate::Error::io(path, what, missing))
}
