//! The one error type of the house, and what the process exits with for each kind.

use std::path::{Path, PathBuf};

/// Result with the crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong for a reason outside the program's own code.
///
/// Every message is one sentence that names the thing, what is wrong with it, and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, flag or argument that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Shapes that do not fit together; raised while a graph is built.
    #[error("{op}: {message}")]
    Shape {
        /// The operation that refused its inputs.
        op: &'static str,
        /// What it wanted, what it got, and which setting decides it.
        message: String,
    },
    /// Data or a checkpoint that cannot be understood.
    #[error("{}: {message}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it and what would be right.
        message: String,
    },
    /// A data set without the split that is wanted.
    #[error("{}: {message}", path.display())]
    NoSplit {
        /// The file or folder that lacks it.
        path: PathBuf,
        /// What it has and how the split is added.
        message: String,
    },
    /// The operating system refused an operation on a file.
    #[error("{}: {what}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, e.g. "cannot write the checkpoint".
        what: String,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// No adapter, or none that fits the request.
    #[error("{0}")]
    NoAdapter(String),
    /// The device refused: out of memory, over a limit.
    #[error("{0}")]
    Device(String),
    /// The device is gone: reset by the system, unplugged, or taken away.
    #[error("{0}")]
    DeviceLost(String),
    /// Training produced a number that is not finite.
    #[error("{0}")]
    NonFinite(String),
    /// The work was done but a stated target was missed (`--min-acc`, `check`).
    #[error("{0}")]
    TargetMissed(String),
    /// The user interrupted; the message says what is saved.
    #[error("{0}")]
    Interrupted(String),
    /// A defect of this program; the message asks for a report.
    #[error("internal error: {0}; please report it with the command line")]
    Internal(String),
}

/// The way out of what the operating system refuses, where its own words do not say it.
fn remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind as Kind;
    match error.kind() {
        Kind::PermissionDenied => "; allow it, or name another path",
        Kind::ReadOnlyFilesystem => "; name a path that can be written",
        Kind::StorageFull | Kind::QuotaExceeded => "; make room, or name a path on another disk",
        Kind::FileTooLarge => "; raise the limit on the size of files (ulimit -f), or name another disk",
        Kind::NotADirectory => "; a part of the path is a file: name another",
        Kind::NotFound => "; look at the path",
        _ => "",
    }
}

impl Error {
    /// The process exit code: 1 target missed or non-finite, 2 usage, data or I/O, 3 no usable
    /// adapter or device, 101 a defect of the program, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::TargetMissed(_) | Error::NonFinite(_) => 1,
            Error::Usage(_) | Error::Shape { .. } | Error::Data { .. } | Error::NoSplit { .. } | Error::Io { .. } => 2,
            Error::NoAdapter(_) | Error::Device(_) | Error::DeviceLost(_) => 3,
            Error::Internal(_) => 101,
            Error::Interrupted(_) => 130,
        }
    }

    /// A [`Error::Usage`] from a sentence.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// A [`Error::Shape`] raised by `op`.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Self {
        Error::Shape { op, message: message.into() }
    }

    /// A [`Error::Data`] about `path`.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Data { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// A [`Error::NoSplit`] about `path`.
    pub fn no_split(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::NoSplit { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// A [`Error::Io`] about `path`.
    pub fn io(path: impl AsRef<Path>, what: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { path: path.as_ref().to_path_buf(), what: what.into(), source }
    }
}
