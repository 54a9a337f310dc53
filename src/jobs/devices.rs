//! `devices`: the adapters of this machine.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Session;
use crate::Result;
use crate::gpu::adapter;
use crate::gpu::device::WANTED_FEATURES;
use crate::gpu::matrix_unit::matrix_units;

/// The adapters, in the order in which they are numbered.
#[derive(Clone, Debug, Serialize)]
pub struct DevicesOutcome {
    /// Each of them.
    pub adapters: Vec<DeviceEntry>,
}

/// An adapter of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceEntry {
    /// Its number, by which it can be chosen.
    pub index: usize,
    /// Its name; a part of it chooses it, too.
    pub name: String,
    /// vulkan, metal, dx12 or gl.
    pub backend: String,
    /// discrete, integrated, virtual, cpu or other.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Whether the session uses it.
    pub chosen: bool,
    /// Limits that decide what fits, by their WebGPU names.
    pub limits: BTreeMap<&'static str, u64>,
    /// Features that the engine can make use of, where the adapter has them. `matrix_16x16`: it lists units that multiply
    /// matrices of that size, which `--matrix` tries.
    pub features: Vec<String>,
}

/// Lists the adapters.
///
/// # Errors
/// [`crate::Error::NoAdapter`] when there is none, or none that the session asks for.
pub fn run(session: &Session) -> Result<DevicesOutcome> {
    let all = adapter::list(session.gpu.backends);
    let (chosen, _) = adapter::position(&all, &session.gpu.choice)?;
    let entries = all.into_iter().enumerate().map(|(index, listed)| {
        let limits = listed.adapter.limits();
        let features = listed.adapter.features();
        let wanted = features.iter_names().filter(|(_, feature)| WANTED_FEATURES.contains(*feature));
        let mut features: Vec<String> = wanted.map(|(name, _)| name.to_lowercase()).collect();
        features.extend(matrix_units(&listed.adapter).iter().map(|unit| format!("matrix_{0}x{0}", unit.side)));
        features.sort();
        features.dedup();
        DeviceEntry {
            index,
            name: listed.info.name.clone(),
            backend: format!("{:?}", listed.info.backend).to_lowercase(),
            kind: match listed.info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "cpu",
                wgpu::DeviceType::Other => "other",
            }
            .into(),
            driver: format!("{} {}", listed.info.driver, listed.info.driver_info).trim().to_owned(),
            chosen: index == chosen,
            limits: [
                ("maxBufferSize", limits.max_buffer_size),
                ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size),
                ("maxStorageBuffersPerShaderStage", u64::from(limits.max_storage_buffers_per_shader_stage)),
                ("maxComputeWorkgroupStorageSize", u64::from(limits.max_compute_workgroup_storage_size)),
                ("maxComputeInvocationsPerWorkgroup", u64::from(limits.max_compute_invocations_per_workgroup)),
                ("maxComputeWorkgroupsPerDimension", u64::from(limits.max_compute_workgroups_per_dimension)),
                ("minSubgroupSize", u64::from(listed.info.subgroup_min_size)),
                ("maxSubgroupSize", u64::from(listed.info.subgroup_max_size)),
            ]
            .into(),
            features,
        }
    });
    Ok(DevicesOutcome { adapters: entries.collect() })
}
