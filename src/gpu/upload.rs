//! Uploads that the device does not wait for: a ring of staging buffers that the host fills while the device works.

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::device::Gpu;
use crate::{Error, Result};

/// One staging buffer; mapped, or on its way to be.
struct Stage {
    buffer: wgpu::Buffer,
    /// Answers when the buffer is mapped again; none: it is.
    mapping: Option<Receiver<std::result::Result<(), wgpu::BufferAsyncError>>>,
    /// The submission that last read it.
    copied: Option<wgpu::SubmissionIndex>,
}

/// Staging buffers in turn. An upload waits only for the copy that used the same buffer a whole round ago.
pub struct UploadRing {
    stages: Vec<Stage>,
    next: usize,
}

impl UploadRing {
    /// `stages` buffers of `bytes` bytes.
    ///
    /// # Errors
    /// [`Error::Device`] when they do not fit the device.
    pub fn new(gpu: &Gpu, bytes: u64, stages: usize) -> Result<UploadRing> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let mut ring = UploadRing { stages: Vec::new(), next: 0 };
        for i in 0..stages {
            let buffer = gpu.buffer_with(&format!("upload {i}"), bytes, usage)?;
            let mut stage = Stage { buffer, mapping: None, copied: None };
            stage.map();
            ring.stages.push(stage);
        }
        Ok(ring)
    }

    /// Copies the concatenated `pieces` to the beginning of `target`, after what was submitted before and before what
    /// is submitted next.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed, [`Error::Internal`] when the pieces are larger than a buffer.
    pub fn upload<'p>(
        &mut self,
        gpu: &Gpu,
        target: &wgpu::Buffer,
        pieces: impl IntoIterator<Item = &'p [u32]>,
    ) -> Result<()> {
        let count = self.stages.len();
        let stage = &mut self.stages[self.next];
        self.next = (self.next + 1) % count;
        stage.wait(gpu)?;
        let mut end = 0;
        {
            let mut view = stage.buffer.slice(..).get_mapped_range_mut().map_err(|e| failed(gpu, &e))?;
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
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&stage.buffer, 0, target, 0, end as u64);
        stage.copied = Some(gpu.submit(encoder));
        stage.map();
        Ok(())
    }
}

impl Stage {
    /// Asks for the buffer to be mapped as soon as the device has read it.
    fn map(&mut self) {
        let (sender, receiver) = channel();
        self.buffer.slice(..).map_async(wgpu::MapMode::Write, move |result| drop(sender.send(result)));
        self.mapping = Some(receiver);
    }

    fn wait(&mut self, gpu: &Gpu) -> Result<()> {
        let Some(mapping) = self.mapping.take() else { return Ok(()) };
        let mut answer = mapping.try_recv();
        if matches!(answer, Err(TryRecvError::Empty)) {
            match self.copied.take() {
                Some(submission) => gpu.wait_for(submission)?,
                None => gpu.wait()?,
            }
            answer = mapping.try_recv();
        }
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(failed(gpu, &e)),
            Err(e) => Err(failed(gpu, &e)),
        }
    }
}

/// The device's own reason, if it has given one.
fn failed(gpu: &Gpu, reason: &dyn std::fmt::Display) -> Error {
    match gpu.check() {
        Err(error) => error,
        Ok(()) => Error::Device(format!("the device could not map memory for an upload ({reason})")),
    }
}
