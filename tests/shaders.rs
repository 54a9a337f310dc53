//! Every shader, without a device: what the crate embeds is what the folder holds, it translates to every
//! back end, every launch of every case fits its entry point, WebGPU's default limits suffice, and no
//! invocation can leave before a barrier.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ieq_wgpu::gpu::Launch;
use ieq_wgpu::gpu::kernel::{check_bindings, pack};
use ieq_wgpu::gpu::matrix_unit::MatrixUnit;
use ieq_wgpu::gpu::reflect::Reflected;
use ieq_wgpu::gpu::shader::{self, SHADERS, SOURCES, reflect};
use ieq_wgpu::ops::check;
use ieq_wgpu::tape::ValueId;
use naga::back::{PipelineConstants, hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy, Layouter};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Block, Module, ShaderStage, Statement};

/// WebGPU's default limits on what a compute entry point may use.
const STORAGE_BUFFERS: usize = 8;
const WORKGROUP_BYTES: u32 = 16_384;
const INVOCATIONS: u32 = 256;
const GROUPS_PER_AXIS: u32 = 65_535;

/// What one block of parameters may take: the stride between two of them.
const PARAMS_BYTES: usize = 256;

/// Files that hold entry points.
fn kernels() -> impl Iterator<Item = &'static str> {
    SOURCES.iter().map(|(name, _)| *name).filter(|name| !name.starts_with("common/"))
}

/// What a file needs of a device, beyond what every device has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Needs {
    Nothing,
    Subgroups,
    MatrixUnits,
}

/// The kernel that a file is a variant of, and what it needs.
fn variant(file: &str) -> (&str, Needs) {
    let units = MatrixUnit::KNOWN.map(|MatrixUnit { side, lanes }| format!("_{side}x{lanes}"));
    if let Some(kernel) = units.iter().find_map(|unit| file.strip_suffix(unit.as_str())) {
        return (kernel, Needs::MatrixUnits);
    }
    file.strip_suffix("_subgroup").map_or((file, Needs::Nothing), |kernel| (kernel, Needs::Subgroups))
}

/// A kernel's files: the plain one, and those for subgroups and matrix units where there are any.
fn variants(name: &str) -> impl Iterator<Item = &'static str> {
    kernels().filter(move |file| variant(file).0 == name)
}

fn shaders() -> BTreeMap<&'static str, Reflected> {
    kernels().map(|name| (name, reflect(name, None).expect("the shader validates"))).collect()
}

type Constants = Vec<(&'static str, u64)>;

/// The launches of all cases, forward and backward, each with its alternatives.
fn launches() -> Vec<(String, Launch<ValueId>)> {
    let mut all = Vec::new();
    for case in check::cases() {
        for launch in case.launches().expect("the case's inputs fit its operation") {
            let others = launch.alternatives.iter().map(|other| Launch {
                entry: other.entry,
                groups: other.groups,
                alternatives: Vec::new(),
                ..launch.clone()
            });
            all.extend(others.chain([launch.clone()]).map(|launch| (case.name.clone(), launch)));
        }
    }
    all
}

/// Every entry point of every file with its default constants and with those that the cases give it.
fn pipelines(shaders: &BTreeMap<&'static str, Reflected>) -> BTreeSet<(&'static str, String, Constants)> {
    let mut all = BTreeSet::new();
    for (&file, Reflected { shader, .. }) in shaders {
        all.extend(shader.entries.iter().map(|entry| (file, entry.name.to_string(), Vec::new())));
    }
    for (_, launch) in launches() {
        for file in variants(launch.shader) {
            let given = launch
                .constants
                .iter()
                .filter(|(n, _)| shaders[file].shader.has_constant(n))
                .map(|(n, v)| (*n, v.to_bits()));
            all.insert((file, launch.entry.to_owned(), given.collect()));
        }
    }
    all
}

/// The module of one pipeline as a back end gets it: one entry point, every constant known.
fn specialise(shader: &Reflected, entry: &str, constants: &Constants) -> Result<(Module, ModuleInfo), String> {
    let values: PipelineConstants = constants.iter().map(|(n, v)| ((*n).to_owned(), f64::from_bits(*v))).collect();
    let stage = Some((ShaderStage::Compute, entry));
    let (module, info) = process_overrides(&shader.module, &shader.info, stage, &values).map_err(|e| e.to_string())?;
    Ok((module.into_owned(), info.into_owned()))
}

#[test]
fn the_embedded_sources_are_the_folder() {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).expect("the folder can be read") {
            let path: PathBuf = entry.expect("the folder can be read").path();
            if path.is_dir() {
                walk(&path, root, found);
                continue;
            }
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            let stem = name.strip_suffix(".wgsl").unwrap_or_else(|| panic!("shaders/{name} is no WGSL file"));
            let text = std::fs::read_to_string(&path).expect("the file can be read");
            found.insert(stem.to_owned(), text);
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    let embedded: BTreeMap<String, String> =
        SOURCES.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&embedded), names(&found), "the crate does not have what shaders/ holds");
    assert!(embedded == found, "the build is older than shaders/");
}

#[test]
fn the_tables_of_the_build_are_those_of_the_texts() {
    let names: Vec<&str> = SHADERS.iter().map(|shader| shader.name.as_ref()).collect();
    assert_eq!(names, kernels().collect::<Vec<_>>());
    for built in SHADERS {
        let read = reflect(&built.name, None).expect("the shader validates").shader;
        assert!(*built == read, "{}: built as {built:?}, reads as {read:?}", built.name);
        assert_eq!(built.text.lines().count(), built.origins.lines.len(), "{}: a line has no origin", built.name);
    }
}

/// A kind of unit without a file of its own would be given ordinary arithmetic.
#[test]
fn every_known_matrix_unit_has_its_kernels() {
    let files: BTreeSet<String> = kernels().map(str::to_owned).collect();
    for MatrixUnit { side, lanes } in MatrixUnit::KNOWN {
        assert!(files.contains(&format!("matrix_{side}x{lanes}")), "{side}x{lanes}");
    }
    assert_eq!(variants("matrix").count(), MatrixUnit::KNOWN.len() + 1);
}

#[test]
fn a_change_of_a_text_shows_in_its_tables() {
    let (name, text) = SOURCES.iter().find(|(name, _)| *name == "sgd").expect("there is an optimiser");
    let built = shader::find(name).expect("the shader is known");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{name} has no {from:?}");
        reflect(name, Some(&text.replacen(from, to, 1))).expect("the change is valid").shader
    };
    let entry = |shader: &shader::Shader| shader.entries[0].clone();
    let other = changed("struct Params {", "struct Params {\n    first: u32,");
    assert_ne!(other.members, built.members);
    assert_ne!(changed("@binding(1)", "@binding(9)").entries, built.entries);
    assert_ne!(entry(&changed("fn step(", "fn other(")).name, entry(built).name);
    assert_ne!(entry(&changed("@workgroup_size(WG)", "@workgroup_size(32)")).workgroup, entry(built).workgroup);
}

#[test]
fn every_common_file_is_imported() {
    let texts: Vec<&str> = SOURCES.iter().map(|(_, text)| *text).collect();
    for (name, _) in SOURCES.iter().filter(|(name, _)| name.starts_with("common/")) {
        // A template's settings follow its name.
        let imported = |line: &str| line.strip_prefix("#import ").and_then(|l| l.split(' ').next()) == Some(*name);
        assert!(texts.iter().any(|text| text.lines().any(imported)), "nothing imports {name}");
    }
}

#[test]
fn every_entry_point_translates_to_every_back_end() {
    let mut failures = Vec::new();
    let mut shaders = BTreeMap::new();
    for name in kernels() {
        match reflect(name, None) {
            Ok(reflected) if reflected.shader.entries.is_empty() => failures.push(format!("{name} has no entry point")),
            Ok(reflected) => drop(shaders.insert(name, reflected)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    assert!(failures.is_empty(), "{} shaders do not validate:\n{}", failures.len(), failures.join("\n"));
    for (file, entry, constants) in pipelines(&shaders) {
        let place = || {
            let constants: Vec<String> = constants.iter().map(|(n, v)| format!("{n}={}", f64::from_bits(*v))).collect();
            format!("{file}.{entry} [{}]", constants.join(" "))
        };
        let (module, info) = match specialise(&shaders[file], &entry, &constants) {
            Ok(both) => both,
            Err(error) => {
                failures.push(format!("{}: constants: {error}", place()));
                continue;
            }
        };
        let needs = variant(file).1;
        if needs == Needs::Nothing {
            // A plain file runs on a device without any optional feature.
            let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
            let plain = Validator::new(ValidationFlags::all(), core).validate(&module);
            failures.extend(plain.err().map(|e| format!("{}: needs a feature: {e:?}", place())));
        }
        let results = [("SPIR-V", to_spirv as Translate), ("MSL", to_msl as Translate), ("HLSL", to_hlsl as Translate)];
        // DX12 has no matrix units for wgpu.
        let reached = if needs == Needs::MatrixUnits { 2 } else { 3 };
        for (back_end, translate) in results.into_iter().take(reached) {
            match translate(&module, &info, &entry, needs) {
                Ok(0) => failures.push(format!("{}: {back_end}: the translation is empty", place())),
                Ok(_) => {}
                Err(error) => failures.push(format!("{}: {back_end}: {error}", place())),
            }
        }
    }
    assert!(failures.is_empty(), "{} translations failed:\n{}", failures.len(), failures.join("\n"));
}

type Translate = fn(&Module, &ModuleInfo, &str, Needs) -> Result<usize, String>;

/// The device's drivers get bounds checks; so do these.
const CHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Restrict,
    buffer: BoundsCheckPolicy::Restrict,
    image_load: BoundsCheckPolicy::Restrict,
    binding_array: BoundsCheckPolicy::Unchecked,
};

/// Vulkan 1.0 has SPIR-V 1.0; subgroups came with Vulkan 1.1 and SPIR-V 1.3, and matrix units need SPIR-V 1.6.
fn to_spirv(module: &Module, info: &ModuleInfo, entry: &str, needs: Needs) -> Result<usize, String> {
    let lang_version = match needs {
        Needs::Nothing => (1, 0),
        Needs::Subgroups => (1, 3),
        Needs::MatrixUnits => (1, 6),
    };
    let options = spv::Options { lang_version, bounds_check_policies: CHECKED, ..Default::default() };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
    let words = spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    Ok(words.len())
}

/// Metal 2.0 is macOS 10.13; subgroups need Metal 2.1, and matrix units 2.3.
fn to_msl(module: &Module, info: &ModuleInfo, entry: &str, needs: Needs) -> Result<usize, String> {
    let lang_version = match needs {
        Needs::Nothing => (2, 0),
        Needs::Subgroups => (2, 1),
        Needs::MatrixUnits => (2, 3),
    };
    let options = msl::Options { lang_version, bounds_check_policies: CHECKED, ..Default::default() };
    let entry_point = Some((ShaderStage::Compute, entry.to_owned()));
    let pipeline = msl::PipelineOptions { entry_point, ..Default::default() };
    let (text, translated) = msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    translated.entry_point_names.into_iter().next().ok_or("there is no entry point")?.map_err(|e| e.to_string())?;
    Ok(text.len())
}

/// Shader model 5.1 is the least that DX12 has; subgroups need 6.0.
fn to_hlsl(module: &Module, info: &ModuleInfo, entry: &str, needs: Needs) -> Result<usize, String> {
    let shader_model = if needs == Needs::Subgroups { hlsl::ShaderModel::V6_0 } else { hlsl::ShaderModel::V5_1 };
    let options = hlsl::Options { shader_model, ..Default::default() };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_owned())) };
    let mut text = String::new();
    let translated =
        hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
    translated.entry_point_names.into_iter().next().ok_or("there is no entry point")?.map_err(|e| e.to_string())?;
    Ok(text.len())
}

#[test]
fn every_launch_of_every_case_fits_its_entry_point() {
    let shaders = shaders();
    let mut failures = BTreeSet::new();
    for (case, launch) in launches() {
        let label = launch.label();
        if launch.groups.iter().any(|&g| g == 0 || g > GROUPS_PER_AXIS) {
            failures.insert(format!("{case}: {label} has a grid of {:?}", launch.groups));
        }
        for (name, value) in &launch.bindings {
            let twice = launch.bindings.iter().filter(|(_, other)| other == value).count() > 1;
            let entry = shader::find(launch.shader).and_then(|shader| shader.entry(launch.entry));
            let resource = entry.and_then(|entry| entry.resource(name)).expect("the entry point has the binding");
            if twice && resource.writable {
                failures.insert(format!("{case}: {label} writes {name} and binds it once more"));
            }
        }
        for file in variants(launch.shader) {
            let shader = &shaders[file].shader;
            failures.extend(check_bindings(shader, &launch).err().map(|e| format!("{case}: {file}: {e}")));
            match pack(shader, &label, &launch.params) {
                Ok(bytes) if bytes.len() <= PARAMS_BYTES => {}
                Ok(bytes) => drop(failures.insert(format!("{file}: Params has {} bytes", bytes.len()))),
                Err(error) => drop(failures.insert(format!("{case}: {file}: {error}"))),
            }
            for (name, _) in launch.constants.iter().filter(|(name, _)| *name != "WG") {
                if !shader.has_constant(name) {
                    failures.insert(format!("{case}: {file} has no constant {name}"));
                }
            }
        }
    }
    let failures: Vec<String> = failures.into_iter().collect();
    assert!(failures.is_empty(), "{} launches do not fit:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn only_the_constants_that_an_entry_point_names_change_it() {
    let shaders = shaders();
    let words = |shader: &Reflected, entry: &str, constants: &Constants| {
        let (module, info) = specialise(shader, entry, constants).expect("the constants fit");
        let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
        spv::write_vec(&module, &info, &spv::Options::default(), Some(&pipeline)).expect("it translates")
    };
    let mut fewer = 0;
    for (file, entry, constants) in pipelines(&shaders) {
        let table = shaders[file].shader.entry(&entry).expect("the entry point exists");
        let used: Constants = constants.iter().filter(|(name, _)| table.has_constant(name)).copied().collect();
        if used != constants {
            fewer += 1;
            assert!(
                words(&shaders[file], &entry, &constants) == words(&shaders[file], &entry, &used),
                "{file}.{entry} uses more of {constants:?} than {used:?}"
            );
        }
    }
    assert!(fewer > 0, "no entry point leaves a constant of its file unused");
}

#[test]
fn every_entry_point_has_a_case() {
    let launched: BTreeSet<(&str, &str)> = launches().iter().map(|(_, l)| (l.shader, l.entry)).collect();
    let mut missing = Vec::new();
    // The ceilings belong to `bench`, which launches all of them; no operation does.
    for (file, Reflected { shader, .. }) in shaders().into_iter().filter(|(file, _)| *file != "ceilings") {
        let kernel = variant(file).0;
        let entries = shader.entries.iter().map(|entry| entry.name.as_ref());
        missing.extend(entries.filter(|e| !launched.contains(&(kernel, e))).map(|e| format!("{file}.{e}")));
    }
    assert!(missing.is_empty(), "no case of ops::check::cases() launches {}", missing.join(", "));
}

#[test]
fn default_limits_suffice() {
    let shaders = shaders();
    let mut failures = Vec::new();
    // An alternative that needs more workgroup memory says how much, and runs where there is as much.
    let cases = check::cases();
    let launches = cases.iter().flat_map(|case| case.launches().expect("the case's inputs fit its operation"));
    let declared: BTreeMap<(String, String), u32> = launches
        .flat_map(|l| l.alternatives.into_iter().map(move |a| ((l.shader.to_owned(), a.entry.to_owned()), a.memory)))
        .collect();
    for (file, entry, constants) in pipelines(&shaders) {
        let place = format!("{file}.{entry} {constants:?}");
        let buffers = shaders[file].shader.entry(&entry).expect("the entry point is known").storage.len();
        if buffers > STORAGE_BUFFERS {
            failures.push(format!("{place}: {buffers} storage buffers"));
        }
        let (module, info) = specialise(&shaders[file], &entry, &constants).expect("its constants are known");
        let [x, y, z] = module.entry_points[0].workgroup_size;
        if x * y * z > INVOCATIONS || z > 64 {
            failures.push(format!("{place}: a workgroup of {x} x {y} x {z}"));
        }
        let mut layouts = Layouter::default();
        layouts.update(module.to_ctx()).expect("a valid module has layouts");
        let uses = info.get_entry_point(0);
        let bytes: u32 = module
            .global_variables
            .iter()
            .filter(|(handle, v)| v.space == AddressSpace::WorkGroup && !uses[*handle].is_empty())
            .map(|(_, v)| layouts[v.ty].size.next_multiple_of(16))
            .sum();
        let kernel = variant(file).0;
        let declared = declared.get(&(kernel.to_owned(), entry)).copied().unwrap_or(0);
        if bytes != declared && (declared > 0 || bytes > WORKGROUP_BYTES) {
            failures.push(format!("{place}: {bytes} bytes of workgroup memory, {declared} declared"));
        }
    }
    assert!(failures.is_empty(), "{} pipelines exceed the limits:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_file_enables_an_extension() {
    // Halves and matrices of them are extensions of the language.
    for name in kernels().filter(|file| variant(file).1 != Needs::MatrixUnits) {
        let shader = shader::find(name).expect("the shader is known");
        for line in shader.text.lines().map(str::trim) {
            let directive = ["enable ", "requires ", "diagnostic"].iter().any(|word| line.starts_with(word));
            assert!(!directive, "{name}: {line:?}");
        }
    }
}

/// Whether a block reaches a workgroup barrier, directly or through a call.
fn reaches_barrier(module: &Module, block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::ControlBarrier(_) | Statement::WorkGroupUniformLoad { .. } => true,
        Statement::Call { function, .. } => reaches_barrier(module, &module.functions[*function].body),
        Statement::Block(inner) => reaches_barrier(module, inner),
        Statement::If { accept, reject, .. } => reaches_barrier(module, accept) || reaches_barrier(module, reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| reaches_barrier(module, &case.body)),
        Statement::Loop { body, continuing, .. } => {
            reaches_barrier(module, body) || reaches_barrier(module, continuing)
        }
        _ => false,
    })
}

/// Whether a block can return with statements of its function still ahead: `last` says that nothing follows it.
/// A branch at the end of a function returns there in any case.
fn returns_early(block: &Block, last: bool) -> bool {
    let end = block.len();
    block.iter().enumerate().any(|(i, statement)| {
        let last = last && i + 1 == end;
        match statement {
            Statement::Return { .. } => !last,
            Statement::Block(inner) => returns_early(inner, last),
            Statement::If { accept, reject, .. } => returns_early(accept, last) || returns_early(reject, last),
            Statement::Switch { cases, .. } => cases.iter().any(|case| returns_early(&case.body, last)),
            Statement::Loop { body, continuing, .. } => returns_early(body, false) || returns_early(continuing, false),
            _ => false,
        }
    })
}

/// Whether a branch reaches a barrier that the invocations of the other branch do not.
fn barrier_in_branch(module: &Module, block: &Block) -> bool {
    block.iter().any(|statement| match statement {
        Statement::If { accept, reject, .. } => reaches_barrier(module, accept) || reaches_barrier(module, reject),
        Statement::Switch { cases, .. } => cases.iter().any(|case| reaches_barrier(module, &case.body)),
        Statement::Block(inner) => barrier_in_branch(module, inner),
        Statement::Loop { body, continuing, .. } => {
            barrier_in_branch(module, body) || barrier_in_branch(module, continuing)
        }
        _ => false,
    })
}

/// What is wrong with the barriers of a module's functions.
fn barrier_faults(module: &Module) -> Vec<String> {
    let functions = module.functions.iter().map(|(_, f)| (f.name.clone().unwrap_or_default(), f));
    let entries = module.entry_points.iter().map(|e| (e.name.clone(), &e.function));
    let mut faults = Vec::new();
    for (name, function) in functions.chain(entries) {
        if !reaches_barrier(module, &function.body) {
            continue;
        }
        if returns_early(&function.body, true) {
            faults.push(format!("{name} returns early and has a barrier"));
        }
        if barrier_in_branch(module, &function.body) {
            faults.push(format!("{name} has a barrier inside a branch"));
        }
    }
    faults
}

#[test]
fn no_invocation_leaves_before_a_barrier() {
    let mut failures = Vec::new();
    for (file, reflected) in shaders() {
        failures.extend(barrier_faults(&reflected.module).into_iter().map(|fault| format!("{file}: {fault}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_barrier_lint_sees_what_it_should() {
    let faults = |body: &str| {
        let text = format!(
            "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
             fn meet() {{ workgroupBarrier(); }}
             @compute @workgroup_size(64) fn entry(@builtin(local_invocation_index) i: u32) {{ {body} }}"
        );
        barrier_faults(&naga::front::wgsl::parse_str(&text).expect("the text parses")).len()
    };
    assert_eq!(faults("if i >= 3u { return; } workgroupBarrier(); y[i] = 1.0;"), 1);
    assert_eq!(faults("if i >= 3u { return; } meet();"), 1);
    assert_eq!(faults("for (var k = 0u; k < i; k++) { if k > 5u { return; } } meet();"), 1);
    assert_eq!(faults("meet(); if i < 3u { return; } y[i] = 1.0;"), 1);
    assert_eq!(faults("if i < 3u { meet(); }"), 1);
    assert_eq!(faults("if i < 3u { return; } else { meet(); }"), 1);
    assert_eq!(faults("meet(); if i < 3u { y[i] = 1.0; }"), 0);
    assert_eq!(faults("for (var k = 0u; k < 4u; k++) { meet(); } y[i] = 1.0;"), 0);
    assert_eq!(faults("if i >= 3u { return; } y[i] = 1.0;"), 0);
}
