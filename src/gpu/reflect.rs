//! Reads the tables of a shader from its text with naga, and validates it on the way. Shared with `build.rs`, so a
//! program needs it only for shaders of its own.

use std::collections::BTreeSet;

use naga::valid::{Capabilities, ValidationError};
use naga::{AddressSpace, Block, Expression, Function, Handle, Module, Statement, StorageAccess, TypeInner};

use super::tables::{Entry, Extent, Member, MemberType, Resource, Shader};
use super::template::{Fault, Source, assemble};

/// A shader's tables, and what they were read from.
pub struct Reflected {
    /// The tables.
    pub shader: Shader,
    /// The parsed module.
    pub module: naga::Module,
    /// The validator's findings.
    pub info: naga::valid::ModuleInfo,
}

/// What ends the name of a storage variable that is the buffer of the name before it, in vectors of four or pairs.
const OTHER_UNITS: [&str; 2] = ["_as_vectors", "_as_pairs"];

/// Assembles, parses, validates and reflects one shader. `find` finds it and what it imports by name.
///
/// # Errors
/// A [`Fault`] with file and line of the source.
pub fn reflect<'s>(name: &str, find: &dyn Fn(&str) -> Option<Source<'s>>) -> Result<Reflected, Fault> {
    let (text, origins) = assemble(name, find)?;
    let fault = |line: Option<u32>, message: String| {
        let (file, line) = origins.place(line.unwrap_or(1));
        Fault { file: file.to_owned(), line, message }
    };
    let line_of = |span: naga::Span| span.is_defined().then(|| span.location(&text).line_number);
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| {
        let labels: Vec<&str> = error.labels().map(|(_, label)| label).filter(|label| !label.is_empty()).collect();
        // The first label may have no place, as that of a type which the function's result gives.
        let line = error.labels().find_map(|(span, _)| line_of(span));
        fault(line, with_details(error.message(), &labels))
    })?;
    // What packs halves into words is no feature of an adapter: WGSL has it everywhere.
    let capabilities = Capabilities::SUBGROUP
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_FLOAT16
        | Capabilities::COOPERATIVE_MATRIX;
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| {
            // Where naga does not say the place, the function that it is in.
            let function = || match error.as_inner() {
                ValidationError::Function { handle, .. } => line_of(module.functions.get_span(*handle)),
                ValidationError::EntryPoint { name, .. } => line_of_entry(&text, name),
                _ => None,
            };
            let line = error.location(&text).map(|location| location.line_number).or_else(function);
            let mut causes = Vec::new();
            let mut cause = std::error::Error::source(error.as_inner());
            while let Some(inner) = cause {
                causes.push(inner.to_string());
                cause = inner.source();
            }
            let causes: Vec<&str> = causes.iter().map(String::as_str).collect();
            fault(line, with_details(&error.as_inner().to_string(), &causes))
        })?;

    let (mut members, mut params_bytes) = (Vec::new(), 0);
    let mut entries = Vec::new();
    for (index, point) in module.entry_points.iter().enumerate() {
        let uses = info.get_entry_point(index);
        let mut storage = Vec::new();
        let mut params = None;
        for (handle, variable) in module.global_variables.iter() {
            let Some(binding) = &variable.binding else { continue };
            if uses[handle].is_empty() {
                continue;
            }
            let line = line_of(module.global_variables.get_span(handle));
            let name = variable.name.clone().unwrap_or_default();
            match variable.space {
                AddressSpace::Uniform => {
                    params = Some(binding.binding);
                    let TypeInner::Struct { members: fields, span } = &module.types[variable.ty].inner else {
                        return Err(fault(line, format!("{name} is not a struct")));
                    };
                    params_bytes = *span;
                    members.clear();
                    for field in fields {
                        let kind = match module.types[field.ty].inner {
                            TypeInner::Scalar(naga::Scalar::U32) => MemberType::U32,
                            TypeInner::Scalar(naga::Scalar::I32) => MemberType::I32,
                            TypeInner::Scalar(naga::Scalar::F32) => MemberType::F32,
                            _ => return Err(fault(line, format!("{name}.{:?} is not a scalar", field.name))),
                        };
                        let name = field.name.clone().unwrap_or_default().into();
                        members.push(Member { name, kind, offset: field.offset });
                    }
                }
                AddressSpace::Storage { access } => {
                    let writable = access.contains(StorageAccess::STORE);
                    let buffer =
                        OTHER_UNITS.iter().find_map(|units| name.strip_suffix(units)).unwrap_or(&name).to_owned();
                    if storage.iter().any(|resource: &Resource| resource.name == buffer.as_str()) {
                        return Err(fault(
                            line,
                            format!("an entry point uses {buffer} in two units; one can be bound"),
                        ));
                    }
                    storage.push(Resource { name: buffer.into(), binding: binding.binding, writable });
                }
                _ => return Err(fault(line, format!("{name} is neither uniform nor storage"))),
            }
        }
        storage.sort_by(|a, b| a.name.cmp(&b.name));
        let mut workgroup = point.workgroup_size.map(Extent::Fixed);
        for (extent, constant) in workgroup.iter_mut().zip(point.workgroup_size_overrides.into_iter().flatten()) {
            let Some(expression) = constant else { continue };
            if let Expression::Override(handle) = module.global_expressions[expression] {
                *extent = Extent::Constant(module.overrides[handle].name.clone().unwrap_or_default().into());
            }
        }
        let line = line_of_entry(&text, &point.name).unwrap_or(1);
        let mut constants = BTreeSet::new();
        constants_of(&module, &point.function, &mut BTreeSet::new(), &mut constants);
        constants.extend(workgroup.iter().filter_map(|extent| match extent {
            Extent::Constant(name) => Some(name.clone().into_owned()),
            Extent::Fixed(_) => None,
        }));
        let constants = constants.into_iter().map(Into::into).collect::<Vec<_>>().into();
        let name = point.name.clone().into();
        entries.push(Entry { name, line, workgroup, storage: storage.into(), params, constants });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let constants: Vec<_> = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).map(Into::into).collect();
    let shader = Shader {
        name: name.to_owned().into(),
        text: text.clone().into(),
        origins: origins.clone(),
        constants: constants.into(),
        entries: entries.into(),
        members: members.into(),
        params_bytes,
    };
    Ok(Reflected { shader, module, info })
}

/// Adds the names of the constants that a function and those that it calls use.
fn constants_of(
    module: &Module,
    function: &Function,
    seen: &mut BTreeSet<Handle<Function>>,
    names: &mut BTreeSet<String>,
) {
    names.extend(function.expressions.iter().filter_map(|(_, expression)| match expression {
        Expression::Override(handle) => module.overrides[*handle].name.clone(),
        _ => None,
    }));
    let mut called = Vec::new();
    calls_of(&function.body, &mut called);
    for handle in called {
        if seen.insert(handle) {
            constants_of(module, &module.functions[handle], seen, names);
        }
    }
}

/// Adds the functions that a block calls.
fn calls_of(block: &Block, called: &mut Vec<Handle<Function>>) {
    for statement in block {
        match statement {
            Statement::Call { function, .. } => called.push(*function),
            Statement::Block(inner) => calls_of(inner, called),
            Statement::If { accept, reject, .. } => [accept, reject].iter().for_each(|inner| calls_of(inner, called)),
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| calls_of(&case.body, called)),
            Statement::Loop { body, continuing, .. } => {
                [body, continuing].iter().for_each(|inner| calls_of(inner, called));
            }
            _ => {}
        }
    }
}

/// Whether a line declares the function `name`.
fn declares(line: &str, name: &str) -> bool {
    let after = line.split_once("fn ").and_then(|(_, rest)| rest.trim_start().strip_prefix(name));
    after.is_some_and(|rest| rest.trim_start().starts_with('('))
}

/// The line, counted from 1, that declares the function `name`.
fn line_of_entry(text: &str, name: &str) -> Option<u32> {
    text.lines().position(|line| declares(line, name)).map(|at| at as u32 + 1)
}

/// A message and what it says about the places and causes.
fn with_details(message: &str, details: &[&str]) -> String {
    let mut parts = vec![message];
    parts.extend(details.iter().filter(|detail| !message.contains(**detail)));
    parts.join(": ")
}
