//! The WGSL files and their tables, which `build.rs` makes, and the shaders of a caller.

pub use super::tables::{Entry, Extent, Member, MemberType, Origins, Resource, Shader};
use super::template::Fault;
use crate::Error;

/// What `build.rs` writes.
mod built {
    use std::borrow::Cow::Borrowed;

    use super::{Entry, Extent, Member, MemberType, Origins, Resource, Shader};

    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}

/// Every WGSL file of the crate: its path in `shaders/` without extension, and its text.
pub const SOURCES: &[(&str, &str)] = built::SOURCES;

/// The tables of every file that has entry points, as they were when the crate was built.
pub const SHADERS: &[Shader] = built::SHADERS;

/// A shader of the crate by its name in [`SOURCES`].
pub fn find(name: &str) -> Option<&'static Shader> {
    SHADERS.iter().find(|shader| shader.name == name)
}

impl From<Fault> for Error {
    fn from(Fault { file, line, message }: Fault) -> Self {
        Error::Shader { file, line, message }
    }
}

impl Shader {
    /// An error at a line of the assembled text, counted from 1.
    pub fn error(&self, line: u32, message: String) -> Error {
        let (file, line) = self.origins.place(line);
        Error::Shader { file: file.to_owned(), line, message }
    }

    /// Assembles, validates and reflects a shader of the caller. It may import the files of [`SOURCES`], and errors call
    /// it `name`.
    ///
    /// # Errors
    /// [`Error::Shader`] with the line that is wrong.
    #[cfg(feature = "reflect")]
    pub fn from_source(name: &str, text: &str) -> crate::Result<Shader> {
        Ok(reflect(name, Some(text))?.shader)
    }
}

/// Assembles, validates and reflects a shader of the crate, or the caller's `text` under that name, as `build.rs` does.
///
/// # Errors
/// [`Error::Shader`] with file and line.
#[cfg(feature = "reflect")]
pub fn reflect(name: &str, text: Option<&str>) -> crate::Result<super::reflect::Reflected> {
    reflect_replacing(name, text.map(|text| (name, text)))
}

/// As [`reflect`] of a shader of the crate, with another text for one of its files.
///
/// # Errors
/// As [`reflect`].
#[cfg(feature = "reflect")]
pub(super) fn reflect_replacing(name: &str, other: Option<(&str, &str)>) -> crate::Result<super::reflect::Reflected> {
    let find = |wanted: &str| {
        let known = SOURCES.iter().find(|(name, _)| *name == wanted);
        let text = other.filter(|(name, _)| *name == wanted).or(known.copied())?.1;
        let path = known.map_or_else(|| wanted.to_owned(), |(name, _)| format!("shaders/{name}.wgsl"));
        Some(super::template::Source { path, text })
    };
    Ok(super::reflect::reflect(name, &find)?)
}
