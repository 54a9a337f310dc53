//! Buffers that count towards the memory in use while they live.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the buffers of one device that are alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<AtomicU64>);

impl Held {
    /// Bytes at this moment.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// `raw`, counted from now until its last clone is dropped.
    pub fn count(&self, raw: wgpu::Buffer) -> Buffer {
        self.0.fetch_add(raw.size(), Ordering::Relaxed);
        let share = Share { bytes: raw.size(), held: self.0.clone() };
        Buffer { raw, _share: Arc::new(share) }
    }
}

/// What one buffer adds to [`Held`].
#[derive(Debug)]
struct Share {
    bytes: u64,
    held: Arc<AtomicU64>,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A buffer of a [`Gpu`](super::Gpu). Clones are the same buffer, which is freed with the last of them.
#[derive(Clone, Debug)]
pub struct Buffer {
    raw: wgpu::Buffer,
    _share: Arc<Share>,
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.raw
    }
}
