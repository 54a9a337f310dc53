//! The WGSL files: import of common code and reflection of entry points. Needs no device.

use std::collections::BTreeMap;

use naga::valid::Capabilities;
use naga::{AddressSpace, StorageAccess, TypeInner};

use super::template;
use crate::{Error, Result};

macro_rules! shaders {
    ($($name:literal),* $(,)?) => {
        /// Every WGSL file of the house by its path in `shaders/` without extension.
        pub const SOURCES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../shaders/", $name, ".wgsl")))),*];
    };
}

shaders![
    "common/conv2d_backward_weight",
    "common/conv2d_backward_weight_tiled",
    "common/conv2d_body",
    "common/conv2d_forward",
    "common/conv2d_forward_tiled",
    "common/conv2d_pointwise_tiled",
    "common/conv2d_pointwise_weight_tiled",
    "common/conv2d_input",
    "common/finite",
    "common/half",
    "common/index",
    "common/lane_rank",
    "common/log1p",
    "common/matmul_body",
    "common/packed",
    "common/packed_subgroup",
    "common/philox",
    "common/reduce",
    "common/step_block",
    "common/winograd_body",
    "common/winograd_product",
    "accumulate",
    "bank",
    "batch_norm",
    "ceilings",
    "contrast",
    "conv2d",
    "conv2d_subgroup",
    "distill",
    "dropout",
    "elementwise",
    "health",
    "matmul",
    "matmul_subgroup",
    "pool",
    "reduce",
    "sgd",
    "softmax_xent",
    "views",
    "winograd",
    "winograd_subgroup",
];

/// The text of a shader, its templates expanded ([`template`]).
///
/// # Errors
/// [`Error::Internal`] for an unknown name.
pub fn assemble(name: &str) -> Result<String> {
    assemble_with(name, None)
}

/// As [`assemble`], with another text for one file.
fn assemble_with(name: &str, other: Option<(&str, &str)>) -> Result<String> {
    let source =
        |name: &str| other.into_iter().chain(SOURCES.iter().copied()).find(|(n, _)| *n == name).map(|(_, s)| s);
    template::assemble(name, &source)
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

/// A resource that an entry point uses.
#[derive(Clone, Debug)]
pub struct Resource {
    /// `@binding` number.
    pub binding: u32,
    /// Whether the shader may write it.
    pub writable: bool,
}

/// What an entry point needs to be launched.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Storage bindings by the variable's name.
    pub storage: BTreeMap<String, Resource>,
    /// Binding number of the uniform `params`, when used.
    pub params: Option<u32>,
}

/// A parsed and validated shader.
pub struct Shader {
    /// The assembled WGSL.
    pub source: String,
    /// The parsed module.
    pub module: naga::Module,
    /// The validator's findings.
    pub info: naga::valid::ModuleInfo,
    /// Entry points by name.
    pub entries: BTreeMap<String, Entry>,
    /// Members of `Params`: name, type, byte offset.
    pub members: Vec<(String, MemberType, u32)>,
    /// Bytes of `Params`.
    pub params_bytes: u32,
}

/// Parses, validates and reflects one shader.
///
/// # Errors
/// [`Error::Internal`]: a shader of the house that does not validate is a defect.
pub fn reflect(name: &str) -> Result<Shader> {
    reflect_with(name, None)
}

/// As [`reflect`], with another text for one file.
///
/// # Errors
/// As [`reflect`].
pub(super) fn reflect_with(name: &str, other: Option<(&str, &str)>) -> Result<Shader> {
    let source = assemble_with(name, other)?;
    let fail = |what: String| Error::Internal(format!("shader {name}: {what}"));
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| fail(e.emit_to_string(&source)))?;
    // What packs halves into words is no feature of an adapter: WGSL has it everywhere.
    let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| fail(e.emit_to_string(&source)))?;
    let mut entries = BTreeMap::new();
    let (mut members, mut params_bytes) = (Vec::new(), 0);
    for (index, point) in module.entry_points.iter().enumerate() {
        let uses = info.get_entry_point(index);
        let mut entry = Entry::default();
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            if uses[handle].is_empty() {
                continue;
            }
            let variable_name = variable.name.clone().unwrap_or_default();
            match variable.space {
                AddressSpace::Uniform => {
                    entry.params = Some(binding.binding);
                    let TypeInner::Struct { members: fields, span } = &module.types[variable.ty].inner else {
                        return Err(fail("params is not a struct".into()));
                    };
                    params_bytes = *span;
                    members = fields
                        .iter()
                        .map(|field| {
                            let kind = match module.types[field.ty].inner {
                                TypeInner::Scalar(naga::Scalar::U32) => MemberType::U32,
                                TypeInner::Scalar(naga::Scalar::I32) => MemberType::I32,
                                TypeInner::Scalar(naga::Scalar::F32) => MemberType::F32,
                                _ => return Err(fail(format!("params.{:?} is not a scalar", field.name))),
                            };
                            Ok((field.name.clone().unwrap_or_default(), kind, field.offset))
                        })
                        .collect::<Result<_>>()?;
                }
                AddressSpace::Storage { access } => {
                    let writable = access.contains(StorageAccess::STORE);
                    entry.storage.insert(variable_name, Resource { binding: binding.binding, writable });
                }
                _ => return Err(fail(format!("{variable_name} is neither uniform nor storage"))),
            }
        }
        entries.insert(point.name.clone(), entry);
    }
    Ok(Shader { source, module, info, entries, members, params_bytes })
}
