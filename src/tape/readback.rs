//! Reads several values in one submission through a staging buffer that is made once.

use super::ValueId;
use super::exec::Executor;
use crate::Result;
use crate::gpu::Buffer;

/// Some values of an executor that are read together, again and again.
pub struct Readback {
    staging: Buffer,
    values: Vec<ValueId>,
}

impl Readback {
    /// Makes the staging buffer. They should be small: large tensors are read with [`Executor::read_async`], in pieces.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when it does not fit the device;
    /// [`Error::Argument`](crate::Error::Argument) when a value is none of the executor's.
    pub async fn new_async(executor: &Executor, values: &[ValueId]) -> Result<Self> {
        let mut bytes = 0;
        for &id in values {
            executor.check_id(id)?;
            bytes += executor.graph().value(id).ty.bytes();
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = executor.gpu().buffer_with_async("read-back", bytes, usage).await?;
        Ok(Readback { staging, values: values.to_vec() })
    }

    /// As [`Readback::new_async`]; blocks.
    ///
    /// # Errors
    /// As [`Readback::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(executor: &Executor, values: &[ValueId]) -> Result<Self> {
        pollster::block_on(Self::new_async(executor, values))
    }

    /// The words of all values, one value after the other, as the last submission left them; waits for it.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device failed.
    pub async fn read_async(&self, executor: &Executor) -> Result<Vec<u32>> {
        self.copy(executor)?;
        self.take_async(executor).await
    }

    /// Asks for the values as the last submission leaves them, which later submissions do not change; does not wait.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device failed.
    pub fn copy(&self, executor: &Executor) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let gpu = executor.gpu();
        let mut encoder = gpu.encoder();
        let mut end = 0;
        for &id in &self.values {
            let (buffer, offset) = executor.locate(id);
            let bytes = executor.graph().value(id).ty.bytes();
            encoder.copy_buffer_to_buffer(buffer, offset, &self.staging, end, bytes);
            end += bytes;
        }
        gpu.submit(encoder).map(drop)
    }

    /// The words that [`Readback::copy`] asked for; waits for them.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the device failed.
    pub async fn take_async(&self, executor: &Executor) -> Result<Vec<u32>> {
        let bytes: u64 = self.values.iter().map(|&id| executor.graph().value(id).ty.bytes()).sum();
        match bytes {
            0 => Ok(Vec::new()),
            _ => executor.gpu().read_staging_async(&self.staging, bytes as usize / 4).await,
        }
    }

    /// As [`Readback::read_async`]; blocks.
    ///
    /// # Errors
    /// As [`Readback::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, executor: &Executor) -> Result<Vec<u32>> {
        pollster::block_on(self.read_async(executor))
    }
}
