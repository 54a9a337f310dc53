//! Launches on a device: parameters and bindings checked against the shader, pipelines made once, the fastest
//! alternative chosen.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::buffer::Buffer;
use super::device::Gpu;
use super::launch::SUBGROUP;
pub use super::launch::{Alternative, KernelBudget, Launch, Scalar, WORKGROUP, fold, lanes_for};
use super::matrix_unit::MatrixUnit;
use super::shader::{self, Entry, Member, MemberType, Shader};
use super::tune::{self, Tuning};
use crate::error::Limit;
use crate::{Error, Result};

impl KernelBudget {
    /// What an opened device can do.
    pub fn of(gpu: &Gpu) -> Self {
        Self::of_adapter(gpu.info(), gpu.features(), gpu.limits())
    }
}

/// Packs `Params` by the shader's own reflection: every member must be given, once, with its type.
///
/// # Errors
/// [`Error::Internal`] when the launch and the shader disagree, [`Error::TooLarge`] for a size beyond a `u32`.
pub fn pack(shader: &Shader, label: &str, params: &[(&str, Scalar)]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; shader.params_bytes.next_multiple_of(16) as usize];
    for Member { name, kind, offset } in shader.members.iter() {
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
    if let Some((name, _)) = params.iter().find(|(n, _)| !shader.members.iter().any(|member| member.name == *n)) {
        return Err(Error::Internal(format!("{label}: params has no member {name}")));
    }
    Ok(bytes)
}

/// Checks that a launch names exactly the storage variables that the entry point uses.
///
/// # Errors
/// [`Error::Internal`] when the launch and the shader disagree.
pub fn check_bindings<B>(shader: &Shader, launch: &Launch<B>) -> Result<()> {
    let entry = entry_of(shader, launch)?;
    let mut given: Vec<&str> = launch.bindings.iter().map(|(n, _)| *n).collect();
    given.sort_unstable();
    let wanted: Vec<&str> = entry.storage.iter().map(|resource| resource.name.as_ref()).collect();
    if given != wanted {
        return Err(Error::Internal(format!("{} binds {wanted:?}, the launch gives {given:?}", launch.label())));
    }
    Ok(())
}

fn entry_of<'s, B>(shader: &'s Shader, launch: &Launch<B>) -> Result<&'s Entry> {
    shader.entry(launch.entry).ok_or_else(|| Error::Internal(format!("{} does not exist", launch.label())))
}

type PipelineKey = (&'static str, &'static str, Vec<(&'static str, u64)>);

/// A shader and its module on the device.
type Loaded = (Cow<'static, Shader>, wgpu::ShaderModule);

/// Says whether the entry point of a launch gives right numbers on the device of these kernels, which run it wherever a
/// launch has it to choose.
pub type Verify = for<'k> fn(&'k mut Kernels, &'k Launch<Region>) -> Pin<Box<dyn Future<Output = Result<bool>> + 'k>>;

/// Shaders and pipelines made so far on one device, and how alternatives are chosen on it. A device stands for kernels
/// of which none has been made, and without measured choices.
#[derive(Clone)]
pub struct Kernels {
    gpu: Arc<Gpu>,
    budget: KernelBudget,
    tuning: Tuning,
    verify: Option<Verify>,
    preferred: Option<&'static str>,
    /// Shaders that are not the crate's own, or that stand for one of them, by name.
    added: HashMap<String, Shader>,
    loaded: HashMap<String, Loaded>,
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

impl From<Arc<Gpu>> for Kernels {
    fn from(gpu: Arc<Gpu>) -> Self {
        Kernels::new(gpu)
    }
}

impl Kernels {
    /// An empty cache for `gpu`. Kernels with a variant for subgroups use it where the device has
    /// subgroups of at least four lanes.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        let budget = KernelBudget::of(&gpu);
        let (added, loaded, pipelines) = (HashMap::new(), HashMap::new(), HashMap::new());
        Kernels { gpu, budget, tuning: Tuning::default(), verify: None, preferred: None, added, loaded, pipelines }
    }

    /// The matrix unit that kernels use from now on; none: none has been found right.
    pub fn matrix_unit(&self) -> Option<MatrixUnit> {
        self.budget.matrix_unit
    }

    /// Uses another matrix unit, or none: what was made for the one before is made anew.
    pub fn use_matrix_unit(&mut self, unit: Option<MatrixUnit>) {
        if self.budget.matrix_unit != unit {
            self.budget.matrix_unit = unit;
            (self.loaded, self.pipelines) = (HashMap::new(), HashMap::new());
        }
    }

    /// How alternatives are chosen, and what was chosen so far.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// To change how alternatives are chosen from now on.
    pub fn tuning_mut(&mut self) -> &mut Tuning {
        &mut self.tuning
    }

    /// What is measured to be the fastest is chosen only where `verify` says that its numbers are right.
    pub fn verify_choices(&mut self, verify: Verify) {
        self.verify = Some(verify);
    }

    /// Makes a shader of the caller known: launches name it by [`Shader::name`].
    ///
    /// # Errors
    /// [`Error::Argument`] when another shader has that name.
    pub fn add(&mut self, shader: Shader) -> Result<()> {
        let known = self.added.get(shader.name.as_ref());
        if known == Some(&shader) {
            return Ok(());
        }
        if known.is_some() || shader::find(&shader.name).is_some() {
            let wanted = "a name that no other shader has".into();
            return Err(Error::Argument { what: "the name of a shader", got: shader.name.into_owned(), wanted });
        }
        self.added.insert(shader.name.clone().into_owned(), shader);
        Ok(())
    }

    /// The shader behind a launch: its variant for subgroups where there is one and the device can run it.
    fn shader(&self, name: &str) -> Result<Cow<'static, Shader>> {
        let find = |name: &str| {
            let added = self.added.get(name).cloned().map(Cow::Owned);
            added.or_else(|| shader::find(name).map(Cow::Borrowed))
        };
        let found = self.budget.variants(name).iter().find_map(|name| find(name));
        found.ok_or_else(|| Error::Internal(format!("there is no shader {name}")))
    }

    /// What the device offers to a kernel.
    pub fn budget(&self) -> KernelBudget {
        self.budget
    }

    /// The device behind the cache.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Hands the text of a shader to the device.
    async fn load(&mut self, name: &str) -> Result<()> {
        if self.loaded.contains_key(name) {
            return Ok(());
        }
        let shader = self.shader(name)?;
        let (directive, text) = text_for_device(&shader);
        let scope = self.gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&shader.name),
            source: wgpu::ShaderSource::Wgsl(text),
        });
        let popped = scope.pop();
        if let Some(error) = popped.await {
            let info = module.get_compilation_info().await;
            let is_error = |m: &&wgpu::CompilationMessage| m.message_type == wgpu::CompilationMessageType::Error;
            let first = info.messages.iter().find(is_error);
            let line = first.and_then(|m| m.location).map_or(1, |location| location.line_number);
            let message = first.map_or_else(|| error.to_string(), |m| m.message.clone());
            return Err(shader.error(line.saturating_sub(directive), message));
        }
        self.loaded.insert(name.to_owned(), (shader, module));
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
        let known = self.tuning.chosen.get(&site);
        if let Some(choice) = known.and_then(|entry| all.iter().find(|choice| choice.entry == entry)) {
            return Ok(choice.clone());
        }
        let measure = self.tuning.measure;
        let mut choices = launch.choices(self.budget, measure.is_some_and(|m| m.all));
        let Some(measure) = measure.filter(|_| choices.len() > 1) else { return Ok(choices.swap_remove(0)) };
        let mut prepared = Vec::new();
        for choice in &choices {
            prepared.push(self.make(choice, arena, at).await?);
        }
        let by_speed = tune::by_speed(measure, prepared.len(), async |which: usize, times: usize| {
            let mut encoder = gpu.encoder();
            let mut pass = encoder.begin_compute_pass(&Default::default());
            (0..times).for_each(|_| prepared[which].encode(&mut pass));
            drop(pass);
            gpu.wait_for_async(&gpu.submit(encoder)?).await
        })
        .await?;
        for which in by_speed {
            if self.is_right(&choices[which]).await? {
                let choice = choices.swap_remove(which);
                self.tuning.measured.insert(site.clone());
                self.tuning.chosen.insert(site, choice.entry.to_owned());
                return Ok(choice);
            }
        }
        Err(Error::Device(format!("no kernel of {} gives right numbers on {}", launch.label(), gpu.describe())))
    }

    /// Whether the numbers of a choice are right, found out once for each pipeline.
    async fn is_right(&mut self, choice: &Launch<Region>) -> Result<bool> {
        let Some(verify) = self.verify else { return Ok(true) };
        let kind = tune::kind(choice);
        if let Some(&known) = self.tuning.verified.get(&kind) {
            return Ok(known);
        }
        // It has the pipelines that are made, and makes no choice of its own.
        let mut kernels = self.clone();
        (kernels.verify, kernels.preferred, kernels.tuning) = (None, Some(choice.entry), Tuning::default());
        let is_right = verify(&mut kernels, choice).await?;
        self.tuning.verified.insert(kind, is_right);
        Ok(is_right)
    }

    /// Makes the pipeline and the bind group of a launch as it is.
    async fn make(&mut self, launch: &Launch<Region>, arena: &wgpu::Buffer, arena_offset: u64) -> Result<Prepared> {
        let gpu = self.gpu.clone();
        self.load(launch.shader).await?;
        let (shader, _) = &self.loaded[launch.shader];
        check_bindings(shader, launch)?;
        let pipeline = self.pipeline(launch).await?;
        let (shader, _) = &self.loaded[launch.shader];
        let label = launch.label();
        let params = pack(shader, &label, &launch.params)?;
        let entry = entry_of(shader, launch)?;
        let mut entries = Vec::new();
        if let Some(binding) = entry.params {
            gpu.write_async(arena, arena_offset, &params).await?;
            entries.push(bound(binding, arena, arena_offset, params.len() as u64));
        }
        for (name, region) in &launch.bindings {
            let Some(resource) = entry.resource(name) else { continue };
            entries.push(bound(resource.binding, &region.buffer, region.offset, region.bytes));
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
    async fn pipeline(&mut self, launch: &Launch<Region>) -> Result<wgpu::ComputePipeline> {
        let (shader, module) = &self.loaded[launch.shader];
        // Pipelines that differ only in constants of other entry points are the same.
        let entry = entry_of(shader, launch)?;
        let used: Vec<(&'static str, f64)> =
            launch.constants.iter().filter(|(name, _)| entry.has_constant(name)).copied().collect();
        let key: PipelineKey = (launch.shader, launch.entry, used.iter().map(|(n, v)| (*n, v.to_bits())).collect());
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let label = launch.label();
        // What a driver cannot compile is an internal error.
        let internal = self.gpu.device().push_error_scope(wgpu::ErrorFilter::Internal);
        let scope = self.gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let pipeline = self.gpu.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: None,
            module,
            entry_point: Some(launch.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &used,
                // Every kernel writes what it reads there. Zeros would cost each workgroup its time, and AMD's driver
                // takes half a minute and more to compile them where wgpu stores them element by element.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        let (popped, internal) = (scope.pop(), internal.pop());
        let (popped, internal) = (popped.await, internal.await);
        if let Some(error) = popped.or(internal) {
            return Err(
                shader.error(entry.line, format!("{label} does not compile on {}: {error}", self.gpu.describe()))
            );
        }
        self.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

/// The text that the device gets, and the number of lines before the shader's own.
///
/// WGSL wants `enable subgroups;` where they are used, and browsers insist. naga does not know the directive, so the
/// files do not have it.
fn text_for_device(shader: &Shader) -> (u32, Cow<'static, str>) {
    if cfg!(target_arch = "wasm32") && shader.name.ends_with(SUBGROUP) {
        return (1, format!("enable subgroups;\n{}", shader.text).into());
    }
    (0, shader.text.clone())
}

/// Hooks for tests. No part of the API.
#[doc(hidden)]
pub mod testing {
    use super::Kernels;

    /// Kernels that do something else than a device would choose.
    pub trait KernelsExt: Sized {
        /// The plain variant of every kernel.
        fn without_subgroups(self) -> Self;
        /// This entry point wherever a launch has it to choose and the device can run it.
        fn preferring(self, entry: &'static str) -> Self;
        /// Another text for one WGSL file: a test breaks a shader to see its check fail.
        #[cfg(feature = "reflect")]
        fn with_source(self, file: &str, text: &str) -> crate::Result<Self>;
    }

    impl KernelsExt for Kernels {
        fn without_subgroups(mut self) -> Self {
            self.budget.lanes = 0;
            self
        }

        fn preferring(mut self, entry: &'static str) -> Self {
            self.preferred = Some(entry);
            self
        }

        #[cfg(feature = "reflect")]
        fn with_source(mut self, file: &str, text: &str) -> crate::Result<Self> {
            let path = format!("shaders/{file}.wgsl");
            let uses = |shader: &&super::Shader| shader.origins.files.iter().any(|name| *name == path);
            for shader in super::shader::SHADERS.iter().filter(uses) {
                let changed = super::shader::reflect_replacing(&shader.name, Some((file, text)))?.shader;
                self.added.insert(shader.name.clone().into_owned(), changed);
            }
            Ok(self)
        }
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
