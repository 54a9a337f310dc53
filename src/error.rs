//! The one error type of the crate. Errors are data: what is wrong, where, with which sizes and settings, and the
//! error below it where there is one.
//!
//! Settings are named by their keys (`optimiser.batch`), which is what a caller of the library sets. The command line
//! turns keys into flags and adds the way out (`cli::sentence`).

use std::path::{Path, PathBuf};

/// Result with the crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A change of a setting that avoids an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Give the setting with this key this value.
    Set(&'static str, String),
    /// Give it a smaller value.
    Lower(&'static str),
    /// Give it a larger value.
    Raise(&'static str),
    /// Leave it out.
    Unset(&'static str),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Set(key, value) => write!(f, "set {key} = {value}"),
            Change::Lower(key) => write!(f, "lower {key}"),
            Change::Raise(key) => write!(f, "raise {key}"),
            Change::Unset(key) => write!(f, "leave out {key}"),
        }
    }
}

/// What holds no more than [`Error::TooLarge`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// One buffer of the device, in bytes.
    Buffer,
    /// One binding of a shader, in bytes.
    Binding,
    /// The indices of a shader: elements of one tensor.
    Elements,
    /// The address space of the host: bytes or elements.
    Host,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Buffer => "bytes of a buffer",
            Limit::Binding => "bytes of a binding",
            Limit::Elements => "elements of a tensor",
            Limit::Host => "what the host can address",
        })
    }
}

fn list<T: std::fmt::Display>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// `; ` and the changes, of which one is enough; nothing where there are none.
fn or_list(changes: &[Change]) -> String {
    if changes.is_empty() { String::new() } else { format!("; {}", list(changes, ", or ")) }
}

/// The keys and `: `, or nothing where the text names one of them.
fn unless_named(keys: &[&str], text: &str) -> String {
    if keys.iter().any(|key| text.contains(key)) { String::new() } else { format!("{}: ", list(keys, ", ")) }
}

/// Everything that can go wrong for a reason outside the program's own code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting whose value cannot be used.
    #[error("{key} must be {wanted}, got {got}{}", or_list(suggestion))]
    Setting {
        /// The setting, by its key.
        key: &'static str,
        /// The value.
        got: String,
        /// What would be right, as in "at least 1".
        wanted: String,
        /// Values that would do.
        suggestion: Vec<Change>,
    },
    /// Settings that contradict each other, or the data.
    #[error("{}{why}{}", unless_named(keys, why), or_list(changes))]
    Conflict {
        /// The settings, by their keys.
        keys: Vec<&'static str>,
        /// What is wrong; it may name the settings by their keys, and values as in `run.batch_norm = exact`.
        why: String,
        /// Ways out, of which one is enough.
        changes: Vec<Change>,
    },
    /// An argument of a library call that cannot be used.
    #[error("{what} must be {wanted}, got {got}")]
    Argument {
        /// The argument.
        what: &'static str,
        /// What was given.
        got: String,
        /// What would be right.
        wanted: String,
    },
    /// A tensor that is larger than something can hold.
    #[error("{what}{} has {size} {}, and {holder} holds at most {limit}{}", at(scope), unit(*of), or_list(changes))]
    TooLarge {
        /// The tensor or buffer.
        what: String,
        /// The part of the step that it belongs to; empty where there is none.
        scope: String,
        /// Its size.
        size: u64,
        /// The largest that is possible.
        limit: u64,
        /// What the limit is of.
        of: Limit,
        /// What holds it: a binding of an adapter, say.
        holder: String,
        /// Ways out, of which one is enough.
        changes: Vec<Change>,
    },
    /// The device has no memory left.
    #[error("{adapter} has no memory left{} beside {held} bytes in its buffers{}", wanting(what, *bytes), or_list(changes))]
    OutOfMemory {
        /// The adapter.
        adapter: String,
        /// What was being made; empty where the device did not say.
        what: String,
        /// Its bytes; 0 where the device did not say.
        bytes: u64,
        /// Bytes of the buffers that are alive.
        held: u64,
        /// Ways out, of which one is enough.
        changes: Vec<Change>,
    },
    /// A WGSL source that is no valid shader, or that the driver refuses.
    #[error("{file}:{line}: {message}")]
    Shader {
        /// The source under `shaders/`, or the name that the caller gave.
        file: String,
        /// The line in it, counted from 1.
        line: u32,
        /// What is wrong.
        message: String,
    },
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
    /// Another rank has failed or cannot be reached.
    #[error("{0}")]
    Ranks(String),
    /// Training reached a number that is not finite.
    #[error("{what} was not finite at or before step {step}: lower optimiser.lr (it is {lr}) and train again{}", intact(*saved))]
    Diverged {
        /// What was not finite.
        what: &'static str,
        /// The step after which it was seen.
        step: u32,
        /// The learning rate that the run began with, `optimiser.lr`.
        lr: f64,
        /// The step of the run's last checkpoint, which is intact; none where there is none.
        saved: Option<u32>,
    },
    /// A number that is not finite where it cannot be used.
    #[error("{0}")]
    NonFinite(String),
    /// The work was done, but a stated target was missed: a least accuracy, or a check.
    #[error("{0}")]
    TargetMissed(String),
    /// The user interrupted; the message says what is saved.
    #[error("{0}")]
    Interrupted(String),
    /// A defect of this crate.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What is left of a run that diverged.
fn intact(saved: Option<u32>) -> String {
    saved.map_or_else(String::new, |step| format!("; the checkpoint of step {step} is intact"))
}

/// ` of SCOPE`, or nothing.
fn at(scope: &str) -> String {
    if scope.is_empty() { String::new() } else { format!(" of {scope}") }
}

fn unit(of: Limit) -> &'static str {
    if of == Limit::Elements { "elements" } else { "bytes" }
}

/// ` for WHAT (BYTES bytes)`, as far as it is known.
fn wanting(what: &str, bytes: u64) -> String {
    if what.is_empty() { String::new() } else { format!(" for {what} ({bytes} bytes)") }
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
