//! Assembles and validates every shader, and writes its tables as Rust: the crate needs no parser for them.

use std::fmt::Write;
use std::path::{Path, PathBuf};

#[path = "src/gpu/reflect.rs"]
#[allow(dead_code, reason = "the crate uses the rest")]
mod reflect;
#[path = "src/gpu/tables.rs"]
#[allow(dead_code, reason = "the crate uses the rest")]
mod tables;
#[path = "src/gpu/template.rs"]
mod template;

use tables::Shader;
use template::Source;

/// The folder of the networks that the program ships.
const SHIPPED: &str = "assets/shipped";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for path in ["shaders", SHIPPED, "src/gpu/reflect.rs", "src/gpu/tables.rs", "src/gpu/template.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if let Err(message) = build() {
        println!("cargo::error={message}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("shaders");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let mut sources = Vec::new();
    collect(&root, &root, &mut sources)?;
    sources.sort();
    if variable("CARGO_CFG_TARGET_ARCH")? == "wasm32" {
        // Browsers have no matrix units and wgpu no subgroups in them, and a page is to be small. Where a variant for
        // subgroups is missing, the plain one runs.
        sources
            .retain(|(name, text)| !name.ends_with("_subgroup") && !text.contains("enable wgpu_cooperative_matrix;"));
    }
    let find = |wanted: &str| {
        let (name, text) = sources.iter().find(|(name, _)| name == wanted)?;
        Some(Source { path: format!("shaders/{name}.wgsl"), text })
    };
    let mut code = String::from("/// Every WGSL file.\npub const SOURCES: &[(&str, &str)] = &[\n");
    // The texts themselves and no paths: a target folder that moves with its checkout stays good.
    for (name, text) in &sources {
        writeln!(code, "    ({name:?}, {text:?}),").map_err(|e| e.to_string())?;
    }
    code.push_str("];\n\n/// The tables.\npub const SHADERS: &[Shader] = &[\n");
    let mut wrong = Vec::new();
    for (name, _) in sources.iter().filter(|(name, _)| !name.starts_with("common/")) {
        match reflect::reflect(name, &find) {
            Err(fault) => wrong.push(format!("{}:{}: {}", fault.file, fault.line, fault.message)),
            Ok(reflected) => code.push_str(&table(&reflected.shader)),
        }
    }
    code.push_str("];\n");
    if !wrong.is_empty() {
        return Err(wrong.join("\ncargo::error="));
    }
    write(&out.join("shaders.rs"), &code)?;
    write(&out.join("shipped.rs"), &shipped()?)
}

/// The networks that the program ships, as a list of names and bytes.
fn shipped() -> Result<String, String> {
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join(SHIPPED);
    let mut names = Vec::new();
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    let mut code = String::from("/// Every shipped network.\nconst NETWORKS: &[Network] = &[\n");
    for name in names {
        let file = format!("/{SHIPPED}/{name}.safetensors");
        let line = format!("    ({name:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {file:?}))),\n");
        code.push_str(&line);
    }
    code.push_str("];\n");
    Ok(code)
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|e| format!("{name}: {e}"))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The WGSL files below `folder`: path below `root` without extension, and text.
fn collect(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            collect(&path, root, found)?;
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            let name = path.with_extension("");
            let name = name.strip_prefix(root).map_err(|e| e.to_string())?.to_string_lossy().replace('\\', "/");
            found.push((name, std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?));
        }
    }
    Ok(())
}

/// A shader's tables as a Rust expression.
fn table(shader: &Shader) -> String {
    let list = |items: Vec<String>| format!("Borrowed(&[{}])", items.join(", "));
    let text = |text: &str| format!("Borrowed({text:?})");
    let entries = shader.entries.iter().map(|entry| {
        let extent = |extent: &tables::Extent| match extent {
            tables::Extent::Fixed(n) => format!("Extent::Fixed({n})"),
            tables::Extent::Constant(name) => format!("Extent::Constant({})", text(name)),
        };
        let storage = entry.storage.iter().map(|r| {
            format!("Resource {{ name: {}, binding: {}, writable: {} }}", text(&r.name), r.binding, r.writable)
        });
        format!(
            "Entry {{ name: {}, line: {}, workgroup: [{}], storage: {}, params: {:?}, constants: {} }}",
            text(&entry.name),
            entry.line,
            entry.workgroup.iter().map(extent).collect::<Vec<_>>().join(", "),
            list(storage.collect()),
            entry.params,
            list(entry.constants.iter().map(|name| text(name)).collect())
        )
    });
    let members = shader
        .members
        .iter()
        .map(|m| format!("Member {{ name: {}, kind: MemberType::{:?}, offset: {} }}", text(&m.name), m.kind, m.offset));
    format!(
        "    Shader {{\n        name: {},\n        text: {},\n        origins: Origins {{ \
         files: {}, lines: {} }},\n        constants: {},\n        entries: {},\n        members: {},\n        \
         params_bytes: {},\n    }},\n",
        text(&shader.name),
        text(&shader.text),
        list(shader.origins.files.iter().map(|file| text(file)).collect()),
        list(shader.origins.lines.iter().map(|(file, line)| format!("({file}, {line})")).collect()),
        list(shader.constants.iter().map(|name| text(name)).collect()),
        list(entries.collect()),
        list(members.collect()),
        shader.params_bytes
    )
}
