//! The device of the browser.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use ieq_wgpu::gpu::Gpu;
use ieq_wgpu::gpu::device::Options;
use ieq_wgpu::gpu::kernel::Kernels;
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::{Answer, json, of_engine};

/// An opened device, with the pipelines that were made on it.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Engine {
    gpu: Arc<Gpu>,
    kernels: Rc<RefCell<Kernels>>,
}

#[derive(Serialize)]
struct About {
    name: String,
    backend: String,
    software: bool,
    features: Vec<String>,
    limits: serde_json::Map<String, serde_json::Value>,
}

impl Engine {
    /// Kernels with every pipeline that was made so far.
    pub(crate) fn kernels(&self) -> Kernels {
        self.kernels.borrow().clone()
    }

    /// Keeps pipelines for those who come later.
    pub(crate) fn keep(&self, kernels: Kernels) {
        *self.kernels.borrow_mut() = kernels;
    }
}

#[wasm_bindgen]
impl Engine {
    /// Opens the device that the browser offers; `vendor`: as its `GPUAdapterInfo` says.
    pub async fn open(vendor: String) -> Answer<Engine> {
        let known = [
            ("amd", 0x1002),
            ("apple", 0x106b),
            ("arm", 0x13b5),
            ("intel", 0x8086),
            ("nvidia", 0x10de),
            ("qualcomm", 0x5143),
        ];
        let vendor = known.into_iter().find(|(name, _)| vendor.eq_ignore_ascii_case(name)).map(|(_, number)| number);
        let gpu = Gpu::open_async(&Options { vendor, ..Options::default() }).await.map_err(of_engine)?;
        let kernels = Rc::new(RefCell::new(Kernels::new(gpu.clone())));
        Ok(Engine { gpu, kernels })
    }

    /// Name, limits and features, as JSON.
    pub fn about(&self) -> Answer<String> {
        let (info, limits) = (self.gpu.info(), self.gpu.limits());
        let limits = [
            ("maxBufferSize", limits.max_buffer_size),
            ("maxStorageBufferBindingSize", limits.max_storage_buffer_binding_size),
            ("maxStorageBuffersPerShaderStage", limits.max_storage_buffers_per_shader_stage.into()),
            ("maxComputeWorkgroupStorageSize", limits.max_compute_workgroup_storage_size.into()),
            ("maxComputeInvocationsPerWorkgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("maxComputeWorkgroupsPerDimension", limits.max_compute_workgroups_per_dimension.into()),
        ];
        let features = self.gpu.features().iter_names().map(|(name, _)| name.to_lowercase().replace('_', "-"));
        json(&About {
            name: info.name.clone(),
            backend: "WebGPU".into(),
            software: self.gpu.is_software(),
            features: features.collect(),
            limits: limits.into_iter().map(|(name, limit)| (name.to_owned(), limit.into())).collect(),
        })
    }

    /// Whether the device is a program on the CPU.
    pub fn software(&self) -> bool {
        self.gpu.is_software()
    }

    /// Fails where the device was lost, or has reported another error.
    pub fn check(&self) -> Answer<()> {
        self.gpu.check().map_err(of_engine)
    }

    /// Gives the device back, as a browser does that takes it away: for tests of what follows.
    pub fn lose(&self) {
        self.gpu.device().destroy();
    }
}
