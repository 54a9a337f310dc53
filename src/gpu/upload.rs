//! Uploads that the device does not wait for: a ring of staging buffers that the host fills while the device works.

use super::buffer::Buffer;
use super::device::{Gpu, Mapping};
use super::wait::Submission;
use crate::{Error, Result};

/// One staging buffer; mapped, or on its way to be.
struct Stage {
    buffer: Buffer,
    mapping: Mapping,
    /// The submission that last read it.
    copied: Option<Submission>,
}

/// Staging buffers in turn. An upload waits only for the copy that used the same buffer one round earlier.
pub struct UploadRing {
    stages: Vec<Stage>,
    next: usize,
}

impl UploadRing {
    /// `stages` buffers of `bytes` bytes.
    ///
    /// # Errors
    /// As [`Gpu::buffer_async`]; [`Error::Argument`] when `stages` is 0.
    pub async fn new_async(gpu: &Gpu, bytes: u64, stages: usize) -> Result<UploadRing> {
        if stages == 0 {
            return Err(Error::Argument { what: "stages", got: "0".into(), wanted: "at least 1".into() });
        }
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let mut ring = UploadRing { stages: Vec::new(), next: 0 };
        for i in 0..stages {
            let buffer = gpu.buffer_with_async(&format!("upload {i}"), bytes, usage).await?;
            let mapping = gpu.map(&buffer, wgpu::MapMode::Write);
            ring.stages.push(Stage { buffer, mapping, copied: None });
        }
        Ok(ring)
    }

    /// As [`UploadRing::new_async`]; blocks.
    ///
    /// # Errors
    /// As [`UploadRing::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(gpu: &Gpu, bytes: u64, stages: usize) -> Result<UploadRing> {
        pollster::block_on(Self::new_async(gpu, bytes, stages))
    }

    /// Copies the concatenated `pieces` to the beginning of `target`, after what was submitted before and before what
    /// is submitted next.
    ///
    /// # Errors
    /// As [`Gpu::check`] when the device failed, [`Error::Internal`] when the pieces are larger than a buffer.
    pub async fn upload_async<'p>(
        &mut self,
        gpu: &Gpu,
        target: &wgpu::Buffer,
        pieces: impl IntoIterator<Item = &'p [u32]>,
    ) -> Result<()> {
        let count = self.stages.len();
        let stage = &mut self.stages[self.next];
        self.next = (self.next + 1) % count;
        gpu.mapped(&stage.mapping, stage.copied.as_ref()).await?;
        let mut end = 0;
        {
            let mut view = stage.buffer.slice(..).get_mapped_range_mut().map_err(|e| gpu.not_mapped(&e))?;
            for piece in pieces {
                let bytes: &[u8] = bytemuck::cast_slice(piece);
                if end + bytes.len() > view.len() {
                    return Err(Error::Internal(format!("an upload is larger than its buffer of {}", view.len())));
                }
                view.slice(end..end + bytes.len()).copy_from_slice(bytes);
                end += bytes.len();
            }
        }
        stage.buffer.unmap();
        let mut encoder = gpu.encoder();
        encoder.copy_buffer_to_buffer(&stage.buffer, 0, target, 0, end as u64);
        stage.copied = Some(gpu.submit(encoder)?);
        stage.mapping = gpu.map(&stage.buffer, wgpu::MapMode::Write);
        Ok(())
    }

    /// As [`UploadRing::upload_async`]; blocks.
    ///
    /// # Errors
    /// As [`UploadRing::upload_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload<'p>(
        &mut self,
        gpu: &Gpu,
        target: &wgpu::Buffer,
        pieces: impl IntoIterator<Item = &'p [u32]>,
    ) -> Result<()> {
        pollster::block_on(self.upload_async(gpu, target, pieces))
    }
}
