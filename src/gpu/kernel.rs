//! A launch (shader entry point, parameters, bindings, grid) and the pipelines behind it.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::Gpu;
use super::shader::{self, MemberType, Shader};
use super::tune;
use crate::{Error, Result};

/// Invocations of a workgroup in every one-dimensional kernel; passed to the shader as `WG`.
pub const WORKGROUP: u32 = 64;

/// The most workgroups along one axis that every adapter accepts.
const GRID_AXIS: u32 = 65_535;

/// One value of a kernel's `Params`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar {
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
}

impl Scalar {
    /// An unsigned integer: a size.
    pub fn size(self) -> Option<u32> {
        if let Scalar::U32(n) = self { Some(n) } else { None }
    }
}

impl From<u32> for Scalar {
    fn from(v: u32) -> Self {
        Scalar::U32(v)
    }
}
impl From<usize> for Scalar {
    /// Sizes are checked against 2^32 elements when the graph is built.
    fn from(v: usize) -> Self {
        Scalar::U32(v as u32)
    }
}
impl From<i32> for Scalar {
    fn from(v: i32) -> Self {
        Scalar::I32(v)
    }
}
impl From<f32> for Scalar {
    fn from(v: f32) -> Self {
        Scalar::F32(v)
    }
}

/// One dispatch: which kernel, over what, how large. `B` names a buffer: a graph value or a device buffer.
#[derive(Clone, Debug)]
pub struct Launch<B> {
    /// Stem of the WGSL file.
    pub shader: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Pipeline-overridable constants.
    pub constants: Vec<(&'static str, f64)>,
    /// Values of `Params`, by member name.
    pub params: Vec<(&'static str, Scalar)>,
    /// Storage bindings, by variable name.
    pub bindings: Vec<(&'static str, B)>,
    /// Workgroups per axis.
    pub groups: [u32; 3],
    /// Other ways to do the same, the preferred one first; a device that can run none of them runs `entry`.
    pub alternatives: Vec<Alternative>,
}

/// Another entry point of a launch's file, with the same parameters, constants and bindings.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// Entry point.
    pub entry: &'static str,
    /// Workgroups per axis.
    pub groups: [u32; 3],
    /// Least lanes of a subgroup with which it shares its loads; without subgroups it shares none.
    pub lanes: u32,
    /// Sums that an invocation keeps.
    pub sums: u32,
    /// Bytes of workgroup memory that it goes through; 0: none.
    pub memory: u32,
}

/// What decides among the alternatives of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Lanes that kernels may count on to share loads; 0 without subgroups.
    pub lanes: u32,
    /// Most sums that an invocation should keep.
    pub sums: u32,
    /// Bytes of workgroup memory.
    pub memory: u32,
    /// Whether workgroup memory is nearer than the caches.
    pub near_memory: bool,
}

impl Reach {
    /// What an adapter can do.
    pub fn of(gpu: &Gpu) -> Self {
        let subgroups = gpu.features.contains(wgpu::Features::SUBGROUP) && gpu.info.subgroup_min_size >= 4;
        let lanes = if subgroups { gpu.info.subgroup_min_size } else { 0 };
        let sums = match (gpu.info.device_type, lanes) {
            // What does not fit the registers spills to the nearest cache, which costs a software adapter little.
            (wgpu::DeviceType::Cpu, 8..) => 320,
            // One with narrower vectors (SwiftShader) takes minutes to compile more.
            (wgpu::DeviceType::Cpu, _) => 36,
            // Twice as many registers, as sums are added up in chains; a lane of a GPU has up to 255.
            _ => 72,
        };
        let memory = gpu.limits.max_compute_workgroup_storage_size;
        // A software adapter's workgroup memory is memory like any other.
        Reach { lanes, sums, memory, near_memory: !gpu.is_software() }
    }
}

impl<B> Launch<B> {
    /// A launch of `groups` workgroups of [`WORKGROUP`] invocations, folded over two axes.
    ///
    /// The shader recovers the linear group with `group_index` of `common/index.wgsl`.
    pub fn groups(shader: &'static str, entry: &'static str, groups: usize) -> Self {
        let constants = vec![("WG", f64::from(WORKGROUP))];
        let (params, bindings, alternatives) = (Vec::new(), Vec::new(), Vec::new());
        Launch { shader, entry, constants, params, bindings, groups: fold(groups), alternatives }
    }

    /// A launch of one invocation for each of `n` items.
    pub fn items(shader: &'static str, entry: &'static str, n: usize) -> Self {
        Self::groups(shader, entry, n.div_ceil(WORKGROUP as usize)).param("n", n)
    }

    /// Sets a member of `Params`.
    pub fn param(mut self, name: &'static str, value: impl Into<Scalar>) -> Self {
        self.params.push((name, value.into()));
        self
    }

    /// Changes a member of `Params` that was set.
    pub fn set(&mut self, name: &'static str, value: impl Into<Scalar>) {
        self.params.retain(|(other, _)| *other != name);
        self.params.push((name, value.into()));
    }

    /// Sets a pipeline-overridable constant.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Binds a buffer to a storage variable.
    pub fn bind(mut self, name: &'static str, buffer: B) -> Self {
        self.bindings.push((name, buffer));
        self
    }

    /// The same launch over other buffers.
    pub fn map<C>(&self, mut f: impl FnMut(&B) -> C) -> Launch<C> {
        Launch {
            shader: self.shader,
            entry: self.entry,
            constants: self.constants.clone(),
            params: self.params.clone(),
            bindings: self.bindings.iter().map(|(n, b)| (*n, f(b))).collect(),
            groups: self.groups,
            alternatives: self.alternatives.clone(),
        }
    }

    /// Another number of invocations in a workgroup than [`WORKGROUP`].
    pub fn set_workgroup(&mut self, lanes: u32) {
        self.constants.retain(|(name, _)| *name != "WG");
        self.constants.push(("WG", f64::from(lanes)));
    }

    /// What a device can run, the preferred one first: alternatives whose sums and workgroup memory suit it, or with `all`
    /// any whose loads its lanes can share and whose workgroup memory it has; then the launch itself.
    fn choices(&self, reach: Reach, all: bool) -> Vec<Launch<B>>
    where
        B: Clone,
    {
        let can = |a: &&Alternative| (reach.lanes == 0 || a.lanes <= reach.lanes) && a.memory <= reach.memory;
        let suits = |a: &&Alternative| all || (a.sums <= reach.sums && (a.memory == 0 || reach.near_memory));
        let alternatives = self.alternatives.iter().filter(can).filter(suits).map(|a| (a.entry, a.groups));
        let one = |(entry, groups)| Launch { entry, groups, alternatives: Vec::new(), ..self.clone() };
        alternatives.chain([(self.entry, self.groups)]).map(one).collect()
    }

    /// `file.entry`, as it appears in plans, labels and reports.
    pub fn label(&self) -> String {
        format!("{}.{}", self.shader, self.entry)
    }
}

/// Invocations of a workgroup, where workgroups stand side by side over so many items: the most that leave less than an
/// eighth of themselves idle, or else those that leave the fewest.
pub fn lanes_for(items: usize) -> usize {
    let sizes = [64, 32, 16, 8];
    let taken = |lanes: &usize| items.next_multiple_of(*lanes);
    let busy = sizes.into_iter().find(|lanes| 8 * taken(lanes) < 9 * items);
    busy.or_else(|| sizes.into_iter().min_by_key(taken)).unwrap_or(WORKGROUP as usize)
}

/// Folds a count of workgroups into two axes, each within the limit every adapter has.
pub fn fold(groups: usize) -> [u32; 3] {
    let groups = groups.max(1);
    let rows = groups.div_ceil(GRID_AXIS as usize);
    [groups.div_ceil(rows) as u32, rows as u32, 1]
}

/// Packs `Params` by the shader's own reflection: every member must be given, once, with its type.
///
/// # Errors
/// [`Error::Internal`] when the launch and the shader disagree.
pub fn pack(shader: &Shader, label: &str, params: &[(&str, Scalar)]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; shader.params_bytes.next_multiple_of(16) as usize];
    for (name, kind, offset) in &shader.members {
        let value = params.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let word = match (value, kind) {
            (Some(Scalar::U32(v)), MemberType::U32) => v.to_le_bytes(),
            (Some(Scalar::I32(v)), MemberType::I32) => v.to_le_bytes(),
            (Some(Scalar::F32(v)), MemberType::F32) => v.to_le_bytes(),
            (None, _) => return Err(Error::Internal(format!("{label}: params.{name} is not given"))),
            (Some(v), _) => return Err(Error::Internal(format!("{label}: params.{name} is {kind:?}, got {v:?}"))),
        };
        bytes[*offset as usize..*offset as usize + 4].copy_from_slice(&word);
    }
    if let Some((name, _)) = params.iter().find(|(n, _)| !shader.members.iter().any(|(m, _, _)| m == n)) {
        return Err(Error::Internal(format!("{label}: params has no member {name}")));
    }
    Ok(bytes)
}

/// Checks that a launch names exactly the storage variables that the entry point uses.
///
/// # Errors
/// [`Error::Internal`] when the launch and the shader disagree.
pub fn check_bindings<B>(shader: &Shader, launch: &Launch<B>) -> Result<()> {
    let entry = shader
        .entries
        .get(launch.entry)
        .ok_or_else(|| Error::Internal(format!("{} does not exist", launch.label())))?;
    let given: Vec<&str> = launch.bindings.iter().map(|(n, _)| *n).collect();
    let wanted: Vec<&str> = entry.storage.keys().map(String::as_str).collect();
    let mut sorted = given.clone();
    sorted.sort_unstable();
    if sorted != wanted {
        return Err(Error::Internal(format!("{} binds {wanted:?}, the launch gives {given:?}", launch.label())));
    }
    Ok(())
}

type PipelineKey = (&'static str, &'static str, Vec<(&'static str, u64)>);

/// Shaders and pipelines made so far on one device.
pub struct Kernels {
    gpu: Arc<Gpu>,
    reach: Reach,
    preferred: Option<&'static str>,
    other_source: Option<(&'static str, String)>,
    shaders: HashMap<&'static str, (Shader, wgpu::ShaderModule)>,
    pipelines: HashMap<PipelineKey, wgpu::ComputePipeline>,
}

/// A launch ready to be encoded any number of times.
pub struct Prepared {
    /// `file.entry`.
    pub label: String,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    groups: [u32; 3],
}

impl Prepared {
    /// Encodes the dispatch.
    pub fn encode(&self, pass: &mut wgpu::ComputePass) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.groups[0], self.groups[1], self.groups[2]);
    }
}

/// Part of a buffer, as bound by a launch.
#[derive(Clone)]
pub struct Region {
    /// The buffer.
    pub buffer: wgpu::Buffer,
    /// First byte; a multiple of the adapter's storage alignment.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Kernels {
    /// An empty cache for `gpu`. Kernels with a variant for subgroups use it where the device has
    /// subgroups of at least four lanes.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        let reach = Reach::of(&gpu);
        Kernels { gpu, reach, preferred: None, other_source: None, shaders: HashMap::new(), pipelines: HashMap::new() }
    }

    /// The same cache with the plain variant of every kernel.
    pub fn without_subgroups(mut self) -> Self {
        self.reach.lanes = 0;
        self
    }

    /// The same cache with this entry point wherever a launch has it to choose and the device can run it.
    pub fn preferring(mut self, entry: &'static str) -> Self {
        self.preferred = Some(entry);
        self
    }

    /// The same cache with another text for one WGSL file: a test breaks a shader to see its check fail.
    pub fn with_source(mut self, file: &'static str, text: String) -> Self {
        self.other_source = Some((file, text));
        self
    }

    /// The file behind a launch: `NAME_subgroup` where there is one and the device can run it.
    fn variant(&self, name: &'static str) -> &'static str {
        let wanted = shader::SOURCES.iter().map(|(n, _)| *n).find(|n| n.strip_suffix("_subgroup") == Some(name));
        if self.reach.lanes > 0 { wanted.unwrap_or(name) } else { name }
    }

    /// The device behind the cache.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    fn load(&mut self, name: &'static str) -> Result<()> {
        if !self.shaders.contains_key(name) {
            let other = self.other_source.as_ref().map(|(file, text)| (*file, text.as_str()));
            let shader = shader::reflect_with(name, other)?;
            let module = self.gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            });
            self.shaders.insert(name, (shader, module));
        }
        Ok(())
    }

    /// Makes everything a launch needs; its parameters go to `arena` at `arena_offset`.
    ///
    /// # Errors
    /// [`Error::Internal`] when launch and shader disagree; [`Error::Device`] when the device refuses.
    pub fn prepare(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, arena_offset: u64) -> Result<Prepared> {
        let launch = self.choose(launch, arena, arena_offset)?;
        self.make(&launch, arena, arena_offset)
    }

    /// The way to do a launch on this device: as tuning chose or chooses now, else the preferred one.
    fn choose(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, at: u64) -> Result<Launch<Region>> {
        let gpu = self.gpu.clone();
        let all = launch.choices(self.reach, true);
        if let Some(choice) = all.iter().find(|choice| self.preferred == Some(choice.entry)) {
            return Ok(choice.clone());
        }
        let site = tune::site(launch);
        let (known, measure) = gpu.tuning(|tuning| (tuning.chosen.get(&site).cloned(), tuning.measure));
        if let Some(choice) = known.and_then(|entry| all.iter().find(|choice| choice.entry == entry)) {
            return Ok(choice.clone());
        }
        let mut choices = launch.choices(self.reach, measure.is_some_and(|m| m.all));
        let Some(measure) = measure.filter(|_| choices.len() > 1) else { return Ok(choices.swap_remove(0)) };
        let prepared = choices.iter().map(|choice| self.make(choice, arena, at)).collect::<Result<Vec<_>>>()?;
        let fastest = tune::fastest(measure, prepared.len(), &mut |which, times| {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..times).for_each(|_| prepared[which].encode(&mut pass));
            drop(pass);
            let submission = gpu.submit(encoder);
            gpu.wait_for(submission)
        })?;
        let choice = choices.swap_remove(fastest);
        gpu.tuning(|tuning| {
            tuning.measured.insert(site.clone());
            tuning.chosen.insert(site, choice.entry.to_owned());
        });
        Ok(choice)
    }

    /// Makes the pipeline and the bind group of a launch as it is.
    fn make(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, arena_offset: u64) -> Result<Prepared> {
        let gpu = self.gpu.clone();
        let file = self.variant(launch.shader);
        self.load(file)?;
        let (shader, module) = &self.shaders[file];
        check_bindings(shader, launch)?;
        let params = pack(shader, &launch.label(), &launch.params)?;
        let entry = shader.entries[launch.entry].clone();
        let key: PipelineKey =
            (launch.shader, launch.entry, launch.constants.iter().map(|(n, v)| (*n, v.to_bits())).collect());
        let label = launch.label();
        let pipeline = match self.pipelines.get(&key) {
            Some(pipeline) => pipeline.clone(),
            None => {
                let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
                let used: Vec<(&str, f64)> = launch
                    .constants
                    .iter()
                    .filter(|(n, _)| shader.module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(n)))
                    .copied()
                    .collect();
                let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(&label),
                    layout: None,
                    module,
                    entry_point: Some(launch.entry),
                    compilation_options: wgpu::PipelineCompilationOptions {
                        constants: &used,
                        zero_initialize_workgroup_memory: false,
                    },
                    cache: None,
                });
                if let Some(error) = pollster::block_on(scope.pop()) {
                    return Err(Error::Device(format!("{label} does not compile on this adapter: {error}")));
                }
                self.pipelines.insert(key, pipeline.clone());
                pipeline
            }
        };
        let mut entries = Vec::new();
        if let Some(binding) = entry.params {
            gpu.write(arena, arena_offset, &params);
            entries.push(wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: arena,
                    offset: arena_offset,
                    size: std::num::NonZeroU64::new(params.len() as u64),
                }),
            });
        }
        for (name, region) in &launch.bindings {
            entries.push(wgpu::BindGroupEntry {
                binding: entry.storage[*name].binding,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &region.buffer,
                    offset: region.offset,
                    size: std::num::NonZeroU64::new(region.bytes),
                }),
            });
        }
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Device(format!("{label}: {error}")));
        }
        Ok(Prepared { label, pipeline, bind_group, groups: launch.groups })
    }
}
