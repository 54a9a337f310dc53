//! Adapter, device, buffers, pipelines and timing. Knows nothing of neural networks.
//!
//! - [`adapter`]: which adapters there are, and the choice among them.
//! - [`device`]: the opened device, its transfers, its errors.
//! - [`buffer`]: buffers that count towards the memory in use.
//! - [`wait`]: answers of the device that come later.
//! - [`upload`]: a ring of staging buffers.
//! - [`template`]: how a shader's text is made from files.
//! - [`reflect`]: what the text says of itself, by naga.
//! - [`tables`]: the same as data, which `build.rs` writes for every file of `shaders/`.
//! - [`shader`]: those tables, and shaders of the caller.
//! - [`launch`]: one dispatch as data: entry point, parameters, bindings, grid, alternatives.
//! - [`matrix_unit`]: units that multiply matrices, as far as kernels know them.
//! - [`kernel`]: launches on a device, and the pipelines behind them.
//! - [`tune`]: which of a launch's alternatives is fastest here.
//! - [`profile`]: the time that passes take on the device.
//! - [`clock`]: the clock that a caller passes in.
//!
//! What has to wait for the device is an `async` function whose name ends in `_async`, and on native there is a blocking
//! one beside it: [`Gpu::read_async`] and [`Gpu::read`]. A future that waits polls the device on native, so it makes
//! progress under any executor.

pub mod adapter;
pub mod buffer;
pub mod clock;
pub mod device;
pub mod kernel;
pub mod launch;
pub mod matrix_unit;
pub mod profile;
#[cfg(feature = "reflect")]
pub mod reflect;
pub mod shader;
pub mod tables;
pub mod template;
pub mod tune;
pub mod upload;
pub mod wait;

pub use adapter::AdapterChoice;
pub use buffer::Buffer;
pub use device::Gpu;
pub use launch::{Launch, Scalar};
pub use wait::Submission;
/// The wgpu that signatures of this crate name.
pub use wgpu;
