//! What is known of a shader without a parser: its text, where each line of it comes from, its entry points and its
//! parameters. Shared with `build.rs`, which writes these tables for every file of `shaders/`.

use std::borrow::Cow;

type Text = Cow<'static, str>;
type List<T> = Cow<'static, [T]>;

/// Where the lines of an assembled text come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// The files.
    pub files: List<Text>,
    /// Of each line of the text: the position of its file in `files`, and its line there, counted from 1.
    pub lines: List<(u16, u32)>,
}

impl Origins {
    /// File and line of a line of the assembled text, which is counted from 1. A line beyond the text is its last.
    pub fn place(&self, line: u32) -> (&str, u32) {
        let last = self.lines.len().saturating_sub(1);
        let at = (line as usize).saturating_sub(1).min(last);
        let (file, line) = self.lines.get(at).copied().unwrap_or((0, 1));
        (self.files.get(usize::from(file)).map_or("", |file| file.as_ref()), line)
    }
}

/// Scalar type of a member of `Params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberType {
    /// `u32`
    U32,
    /// `i32`
    I32,
    /// `f32`
    F32,
}

/// A member of `Params`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Text,
    /// Its type.
    pub kind: MemberType,
    /// Its first byte.
    pub offset: u32,
}

/// A storage buffer that an entry point uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The variable's name, without `_as_vectors` or `_as_pairs` at its end: `x_as_vectors` is the buffer `x`.
    pub name: Text,
    /// `@binding` number.
    pub binding: u32,
    /// Whether the shader may write it.
    pub writable: bool,
}

/// Invocations of a workgroup along one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A number.
    Fixed(u32),
    /// The value of a pipeline-overridable constant.
    Constant(Text),
}

/// What an entry point needs to be launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Text,
    /// Its line in the assembled text, counted from 1.
    pub line: u32,
    /// Invocations of a workgroup along x, y and z.
    pub workgroup: [Extent; 3],
    /// Storage bindings, sorted by name.
    pub storage: List<Resource>,
    /// Binding number of the uniform `params`, when used.
    pub params: Option<u32>,
    /// Names of the pipeline-overridable constants that it uses, sorted: pipelines that differ in others are the same.
    pub constants: List<Text>,
}

impl Entry {
    /// A storage binding by the variable's name.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.storage.iter().find(|resource| resource.name == name)
    }

    /// Whether it uses a pipeline-overridable constant of that name.
    pub fn has_constant(&self, name: &str) -> bool {
        self.constants.iter().any(|constant| constant == name)
    }
}

/// An assembled shader and what its text says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shader {
    /// The file's path in `shaders/` without extension, or the name that the caller gave.
    pub name: Text,
    /// The assembled WGSL.
    pub text: Text,
    /// Where its lines come from.
    pub origins: Origins,
    /// Names of the pipeline-overridable constants.
    pub constants: List<Text>,
    /// Entry points, sorted by name.
    pub entries: List<Entry>,
    /// Members of `Params`.
    pub members: List<Member>,
    /// Bytes of `Params`.
    pub params_bytes: u32,
}

impl Shader {
    /// An entry point by name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Whether it has a pipeline-overridable constant of that name.
    pub fn has_constant(&self, name: &str) -> bool {
        self.constants.iter().any(|constant| constant == name)
    }
}
