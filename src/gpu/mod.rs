//! Adapter, device, buffers, pipelines and timing. Knows nothing of neural networks.
//!
//! - [`adapter`]: which adapters there are, and the choice among them.
//! - [`device`]: the opened device, its buffers, its errors.
//! - [`shader`]: the WGSL files, their imports and their reflection (no device needed).
//! - [`template`]: how a shader's text is made from files.
//! - [`tune`]: which of a launch's alternatives is fastest here.
//! - [`upload`]: a ring of staging buffers.
//! - [`kernel`]: a launch (shader entry point, parameters, bindings, grid) and the pipelines behind it.
//! - [`profile`]: the time that passes take on the device.

pub mod adapter;
pub mod device;
pub mod kernel;
pub mod profile;
pub mod shader;
pub mod template;
pub mod tune;
pub mod upload;

pub use adapter::AdapterChoice;
pub use device::Gpu;
pub use kernel::{Launch, Scalar};
