//! A Vulkan device that is only asked to compile, with the statistics of its pipelines.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::CString;
use std::time::Duration;

use ash::{khr, vk};
use naga::back::spv::{self, ZeroInitializeWorkgroupMemoryMode};
use naga::back::{PipelineConstants, pipeline_constants::process_overrides};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use naga::{AddressSpace, Module, ShaderStage};
use nix::time::{ClockId, clock_gettime};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How modules are translated, where that is not as the product does it.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// Workgroup memory is zeroed first.
    pub zeroed: bool,
    /// Indices, loops and divisions are checked when the program runs.
    pub checked: bool,
}

/// What compiling a pipeline took and gave.
pub struct Compiled {
    /// CPU time from the parsed module to SPIR-V.
    pub translating: Duration,
    /// CPU time of the driver.
    pub compiling: Duration,
    /// The driver's statistics by name.
    pub statistics: BTreeMap<String, u64>,
}

pub struct Compiler {
    /// What opened the driver's library: it stays open.
    _entry: ash::Entry,
    instance: ash::Instance,
    device: ash::Device,
    properties: khr::pipeline_executable_properties::Device,
}

/// CPU time of this process so far.
pub fn cpu_time() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?))
}

impl Compiler {
    /// The first device of the driver, with its matrix units where they are asked for.
    pub fn open(matrix: bool) -> Result<Self> {
        // SAFETY: the calls are in the order that Vulkan wants, with structures that outlive them.
        unsafe {
            let entry = ash::Entry::load()?;
            let app = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)?;
            let physical = *instance.enumerate_physical_devices()?.first().ok_or("there is no Vulkan device")?;
            let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
            let mut extensions = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut units = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(matrix);
            if matrix {
                extensions.push(khr::cooperative_matrix::NAME.as_ptr());
            }
            let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
            let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
            statistics = statistics.pipeline_executable_info(true);
            v12 = v12.vulkan_memory_model(true).vulkan_memory_model_device_scope(true).shader_float16(matrix);
            v13 = v13.subgroup_size_control(true);
            let mut description = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .push_next(&mut statistics)
                .push_next(&mut v12)
                .push_next(&mut v13);
            if matrix {
                description = description.push_next(&mut units);
            }
            let device = instance.create_device(physical, &description, None)?;
            let properties = khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Compiler { _entry: entry, instance, device, properties })
        }
    }

    /// Compiles an entry point as wgpu 30.0.1 would (`wgpu-hal/src/vulkan/{adapter,device}.rs`).
    pub fn compile(
        &self,
        (module, info): (&Module, &ModuleInfo),
        entry: &str,
        constants: &PipelineConstants,
        how: Translation,
    ) -> Result<Compiled> {
        let begun = cpu_time()?;
        let stage = ShaderStage::Compute;
        let (module, info) = process_overrides(module, info, Some((stage, entry)), constants)?;
        let index = if how.checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
        let options = spv::Options {
            lang_version: (1, 6),
            // The drivers have robustBufferAccess2.
            bounds_check_policies: BoundsCheckPolicies {
                index,
                buffer: BoundsCheckPolicy::Unchecked,
                image_load: BoundsCheckPolicy::Unchecked,
                binding_array: BoundsCheckPolicy::Unchecked,
            },
            zero_initialize_workgroup_memory: if how.zeroed {
                ZeroInitializeWorkgroupMemoryMode::Polyfill
            } else {
                ZeroInitializeWorkgroupMemoryMode::None
            },
            force_loop_bounding: how.checked,
            emit_int_div_checks: how.checked,
            ..Default::default()
        };
        let pipeline = spv::PipelineOptions { shader_stage: stage, entry_point: entry.to_owned() };
        let words = spv::write_vec(&module, &info, &options, Some(&pipeline))?;
        let translated = cpu_time()?;
        let statistics = self.statistics(&module, entry, &words)?;
        Ok(Compiled { translating: translated - begun, compiling: cpu_time()? - translated, statistics })
    }

    fn statistics(&self, module: &Module, entry: &str, words: &[u32]) -> Result<BTreeMap<String, u64>> {
        let globals = module.global_variables.iter().filter_map(|(_, global)| Some((global.space, global.binding?)));
        let mut bound = BTreeSet::new();
        let bindings: Vec<_> = globals
            .filter(|(_, binding)| binding.group == 0 && bound.insert(binding.binding))
            .map(|(space, binding)| {
                let buffer = match space {
                    AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                    _ => vk::DescriptorType::STORAGE_BUFFER,
                };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding.binding)
                    .descriptor_type(buffer)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let name = CString::new(entry)?;
        let device = &self.device;
        // SAFETY: every handle is of this device, is destroyed once and after its last use; what a structure points to
        // outlives the call.
        unsafe {
            let shader = device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [device.create_descriptor_set_layout(&set, None)?];
            let layout =
                device.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&sets), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(shader)
                .name(&name);
            let description = vk::ComputePipelineCreateInfo::default()
                .stage(stage)
                .layout(layout)
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR);
            let pipelines = device
                .create_compute_pipelines(vk::PipelineCache::null(), &[description], None)
                .map_err(|(_, error)| error)?;
            let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipelines[0]).executable_index(0);
            let listed = self.properties.get_pipeline_executable_statistics(&executable)?;
            device.destroy_pipeline(pipelines[0], None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
            device.destroy_shader_module(shader, None);
            let value = |s: &vk::PipelineExecutableStatisticKHR| match s.format {
                vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => s.value.f64 as u64,
                vk::PipelineExecutableStatisticFormatKHR::BOOL32 => s.value.b32.into(),
                _ => s.value.u64,
            };
            let pairs = listed.iter().map(|s| Ok((s.name_as_c_str()?.to_string_lossy().into_owned(), value(s))));
            pairs.collect()
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        // SAFETY: nothing of the device is in use any more.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}
