//! Launches on a device: parameters and bindings checked against the shader, pipelines made once, the fastest
//! alternative chosen.

use std::collections::HashMap;
use std::sync::Arc;

use super::buffer::Buffer;
use super::device::Gpu;
pub use super::launch::{Alternative, KernelBudget, Launch, Scalar, WORKGROUP, fold, lanes_for};
use super::shader::{self, MemberType, Shader};
use super::tune;
use crate::error::Limit;
use crate::{Error, Result};

impl KernelBudget {
    /// What an adapter can do.
    pub fn of(gpu: &Gpu) -> Self {
        let info = gpu.info();
        let subgroups = gpu.features().contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size >= 4;
        let lanes = if subgroups { info.subgroup_min_size } else { 0 };
        let accumulators = match (info.device_type, lanes) {
            // What does not fit the registers spills to the nearest cache, which costs a software adapter little.
            (wgpu::DeviceType::Cpu, 8..) => 320,
            // One with narrower vectors (SwiftShader) takes minutes to compile more.
            (wgpu::DeviceType::Cpu, _) => 36,
            // Twice as many registers, as sums are added up in chains; a lane of a GPU has up to 255.
            _ => 72,
        };
        let memory = gpu.limits().max_compute_workgroup_storage_size;
        // A software adapter's workgroup memory is memory like any other.
        KernelBudget { lanes, accumulators, memory, fast_memory: !gpu.is_software() }
    }
}

/// Packs `Params` by the shader's own reflection: every member must be given, once, with its type.
///
/// # Errors
/// [`Error::Internal`] when the launch and the shader disagree, [`Error::TooLarge`] for a size beyond a `u32`.
pub fn pack(shader: &Shader, label: &str, params: &[(&str, Scalar)]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; shader.params_bytes.next_multiple_of(16) as usize];
    for (name, kind, offset) in &shader.members {
        let value = params.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let word = match (value, kind) {
            (Some(Scalar::U32(v)), MemberType::U32) => v.to_le_bytes(),
            (Some(Scalar::I32(v)), MemberType::I32) => v.to_le_bytes(),
            (Some(Scalar::F32(v)), MemberType::F32) => v.to_le_bytes(),
            (Some(Scalar::TooLarge(size)), _) => {
                return Err(Error::TooLarge {
                    what: format!("params.{name} of {label}"),
                    scope: String::new(),
                    size,
                    limit: u32::MAX.into(),
                    of: Limit::Elements,
                    holder: "a shader".into(),
                    changes: Vec::new(),
                });
            }
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
    budget: KernelBudget,
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
    pub buffer: Buffer,
    /// First byte; a multiple of the adapter's storage alignment.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Kernels {
    /// An empty cache for `gpu`. Kernels with a variant for subgroups use it where the device has
    /// subgroups of at least four lanes.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        let budget = KernelBudget::of(&gpu);
        Kernels { gpu, budget, preferred: None, other_source: None, shaders: HashMap::new(), pipelines: HashMap::new() }
    }

    /// The same cache with the plain variant of every kernel.
    pub fn without_subgroups(mut self) -> Self {
        self.budget.lanes = 0;
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
        if self.budget.lanes > 0 { wanted.unwrap_or(name) } else { name }
    }

    /// The device behind the cache.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    fn load(&mut self, name: &'static str) -> Result<()> {
        if !self.shaders.contains_key(name) {
            let other = self.other_source.as_ref().map(|(file, text)| (*file, text.as_str()));
            let shader = shader::reflect_with(name, other)?;
            let module = self.gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(name),
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            });
            self.shaders.insert(name, (shader, module));
        }
        Ok(())
    }

    /// Makes everything that a launch needs. Its parameters are written to `arena` at byte `arena_offset`.
    ///
    /// # Errors
    /// [`Error::Internal`] when launch and shader disagree; [`Error::Device`] when the device refuses.
    pub async fn prepare_async(
        &mut self,
        launch: &Launch<Region>,
        arena: &wgpu::Buffer,
        arena_offset: u64,
    ) -> Result<Prepared> {
        let launch = self.choose(launch, arena, arena_offset).await?;
        self.make(&launch, arena, arena_offset).await
    }

    /// As [`Kernels::prepare_async`]; blocks.
    ///
    /// # Errors
    /// As [`Kernels::prepare_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, arena_offset: u64) -> Result<Prepared> {
        pollster::block_on(self.prepare_async(launch, arena, arena_offset))
    }

    /// The way to do a launch on this device: the preferred one, else as tuning chose or chooses now.
    async fn choose(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, at: u64) -> Result<Launch<Region>> {
        let gpu = self.gpu.clone();
        let all = launch.choices(self.budget, true);
        if let Some(choice) = all.iter().find(|choice| self.preferred == Some(choice.entry)) {
            return Ok(choice.clone());
        }
        let site = tune::site(launch);
        let (known, measure) = gpu.tuning(|tuning| (tuning.chosen.get(&site).cloned(), tuning.measure));
        if let Some(choice) = known.and_then(|entry| all.iter().find(|choice| choice.entry == entry)) {
            return Ok(choice.clone());
        }
        let mut choices = launch.choices(self.budget, measure.is_some_and(|m| m.all));
        let Some(measure) = measure.filter(|_| choices.len() > 1) else { return Ok(choices.swap_remove(0)) };
        let mut prepared = Vec::new();
        for choice in &choices {
            prepared.push(self.make(choice, arena, at).await?);
        }
        let fastest = tune::fastest(measure, prepared.len(), async |which: usize, times: usize| {
            let mut encoder = gpu.encoder();
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..times).for_each(|_| prepared[which].encode(&mut pass));
            drop(pass);
            gpu.wait_for_async(&gpu.submit(encoder)?).await
        })
        .await?;
        let choice = choices.swap_remove(fastest);
        gpu.tuning(|tuning| {
            tuning.measured.insert(site.clone());
            tuning.chosen.insert(site, choice.entry.to_owned());
        });
        Ok(choice)
    }

    /// Makes the pipeline and the bind group of a launch as it is.
    async fn make(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, arena_offset: u64) -> Result<Prepared> {
        let gpu = self.gpu.clone();
        let file = self.variant(launch.shader);
        self.load(file)?;
        let pipeline = self.pipeline(file, launch).await?;
        let (shader, _) = &self.shaders[file];
        check_bindings(shader, launch)?;
        let label = launch.label();
        let params = pack(shader, &label, &launch.params)?;
        let entry = &shader.entries[launch.entry];
        let mut entries = Vec::new();
        if let Some(binding) = entry.params {
            gpu.write_async(arena, arena_offset, &params).await?;
            entries.push(bound(binding, arena, arena_offset, params.len() as u64));
        }
        for (name, region) in &launch.bindings {
            entries.push(bound(entry.storage[*name].binding, &region.buffer, region.offset, region.bytes));
        }
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let bind_group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let popped = scope.pop();
        if let Some(error) = popped.await {
            return Err(Error::Device(format!("{label}: {error}")));
        }
        Ok(Prepared { label, pipeline, bind_group, groups: launch.groups })
    }

    /// The pipeline of a launch, made at its first use.
    async fn pipeline(&mut self, file: &'static str, launch: &Launch<Region>) -> Result<wgpu::ComputePipeline> {
        let key: PipelineKey =
            (launch.shader, launch.entry, launch.constants.iter().map(|(n, v)| (*n, v.to_bits())).collect());
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let (shader, module) = &self.shaders[file];
        let label = launch.label();
        let known = |name: &str| shader.module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(name));
        let used: Vec<(&str, f64)> = launch.constants.iter().filter(|(name, _)| known(name)).copied().collect();
        let scope = self.gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let pipeline = self.gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
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
        let popped = scope.pop();
        if let Some(error) = popped.await {
            return Err(Error::Device(format!("{label} does not compile on this adapter: {error}")));
        }
        self.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

/// Part of a buffer at a binding.
fn bound(binding: u32, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindGroupEntry<'_> {
    let size = std::num::NonZeroU64::new(bytes);
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size }),
    }
}
