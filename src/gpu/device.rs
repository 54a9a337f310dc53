//! The opened device: buffers, transfers, waits, and what went wrong on it.
//!
//! Everything that has to wait for the device is an `async` function. On native there is a blocking one beside it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::adapter::{self, AdapterChoice};
use super::buffer::{Buffer, Held};
use super::matrix_unit::{MATRIX_FEATURES, MatrixUnit, matrix_units};
use super::wait::{Answer, Submission};
use crate::error::Limit;
use crate::{Error, Result};

/// The optional features that the engine uses where an adapter has them.
pub const WANTED_FEATURES: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP);

/// What a device is opened with.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which adapter.
    pub choice: AdapterChoice,
    /// The back ends to look for adapters in. None: all, and OpenGL only where the others have no adapter.
    pub backends: Option<wgpu::Backends>,
    /// Request WebGPU's default limits instead of the adapter's own, as a browser would.
    pub default_limits: bool,
    /// The largest binding to request, where it is less than the limits above: a smaller adapter to test with.
    pub max_binding: Option<u64>,
    /// Which of the adapters that are as good as the chosen one, counted from it and around; 0: the chosen one.
    pub turn: usize,
    /// Open it with its matrix units, where it has any: an experimental feature of wgpu, and not in browsers.
    pub matrix_units: bool,
    /// The PCI number of the adapter's vendor, where the back end does not say it and the caller knows it, as in a browser:
    /// kernels are chosen by it.
    pub vendor: Option<u32>,
}

/// An adapter's device and queue, with what went wrong on it.
pub struct Gpu {
    info: wgpu::AdapterInfo,
    why: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    features: wgpu::Features,
    matrix_units: Vec<MatrixUnit>,
    trouble: Arc<Mutex<Option<Trouble>>>,
    held: Held,
    /// Bytes written since the last submission.
    pending: AtomicUsize,
}

/// What went wrong on a device.
#[derive(Clone, Debug)]
enum Trouble {
    /// There is no device any more.
    Lost(String),
    /// There is no memory left.
    Memory,
    /// Anything else.
    Refused(String),
}

/// wgpu's leave to use experimental features, which may have undefined behaviour: it is for whoever has read of them.
///
/// Used are only cooperative matrices, whose loads and stores stay within workgroup memory by constant sizes, and only after
/// their numbers were compared with the twin's on this device.
#[expect(unsafe_code, reason = "wgpu asks for it as an acknowledgement")]
fn with_experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: the constructor itself does nothing; see above for what is then used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Transfers go in pieces of this many bytes: each takes as much again, outside every plan, while it is under way.
const PIECE: usize = 1 << 20;

/// How long a device that refuses something may take to say why.
#[cfg(not(target_arch = "wasm32"))]
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

impl Gpu {
    /// Opens the chosen adapter with its real limits and the optional features that the kernels can use.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when no adapter fits, [`Error::Device`] when it refuses to open.
    pub async fn open_async(options: &Options) -> Result<Arc<Gpu>> {
        let (listed, why) = adapter::choose_async(&options.choice, options.backends, options.turn).await?;
        let adapter = listed.adapter;
        let mut limits = if options.default_limits { wgpu::Limits::default() } else { adapter.limits() };
        if let Some(most) = options.max_binding {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        }
        let matrix_units = if options.matrix_units { matrix_units(&adapter) } else { Vec::new() };
        let mut required_features = adapter.features() & WANTED_FEATURES;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if !matrix_units.is_empty() {
            required_features |= MATRIX_FEATURES;
            experimental_features = with_experimental_features();
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ieq-wgpu"),
            required_features,
            required_limits: limits,
            experimental_features,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|e| {
            Error::Device(format!("{} did not open: {e}; try another adapter", adapter::describe(&listed.info)))
        })?;
        let mut info = listed.info;
        if let (0, Some(vendor)) = (info.vendor, options.vendor) {
            info.vendor = vendor;
        }
        Ok(Self::new(info, why, device, queue, matrix_units))
    }

    /// As [`Gpu::open_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::open_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn open(options: &Options) -> Result<Arc<Gpu>> {
        pollster::block_on(Self::open_async(options))
    }

    /// Shares the device of an application.
    ///
    /// WebGPU's default limits suffice. Larger ones help: `max_buffer_size` and `max_storage_buffer_binding_size` for
    /// large batches, `max_compute_workgroup_storage_size` for the fastest kernels of a GPU. Of the features,
    /// [`WANTED_FEATURES`] are used where the device was opened with them.
    ///
    /// The device reports its loss, and every error that no error scope of the application catches, here from now on:
    /// see [`Gpu::check`].
    pub fn from_device(info: wgpu::AdapterInfo, device: wgpu::Device, queue: wgpu::Queue) -> Arc<Gpu> {
        Self::new(info, "shared by the application".into(), device, queue, Vec::new())
    }

    fn new(
        info: wgpu::AdapterInfo,
        why: String,
        device: wgpu::Device,
        queue: wgpu::Queue,
        matrix_units: Vec<MatrixUnit>,
    ) -> Arc<Gpu> {
        let (limits, features) = (device.limits(), device.features());
        let trouble = watch(&device);
        let (held, pending) = (Held::default(), AtomicUsize::new(0));
        Arc::new(Gpu { info, why, device, queue, limits, features, matrix_units, trouble, held, pending })
    }

    /// Name, backend, driver of the adapter.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.info
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its only queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// The limits the device was opened with.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// The features the device was opened with.
    pub fn features(&self) -> wgpu::Features {
        self.features
    }

    /// The kinds of matrix unit that the device was opened with and may have: which of them gives right numbers is tried.
    pub fn matrix_units(&self) -> &[MatrixUnit] {
        &self.matrix_units
    }

    /// Whether the adapter is a program on the CPU.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// One line: the adapter and why it was chosen.
    pub fn describe(&self) -> String {
        format!("{}, {}", adapter::describe(&self.info), self.why)
    }

    /// The first error that the device has reported, if any.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] or [`Error::Device`] with what happened.
    pub fn check(&self) -> Result<()> {
        let trouble = self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let Some(trouble) = trouble else { return Ok(()) };
        let adapter = adapter::describe(&self.info);
        Err(match trouble {
            Trouble::Lost(why) => {
                let mebibytes = self.held.bytes() as f64 / f64::from(1 << 20);
                Error::DeviceLost(format!("the device was lost ({why}): {adapter}, {mebibytes:.1} MiB in its buffers"))
            }
            Trouble::Memory => self.out_of_memory("", 0),
            Trouble::Refused(text) => Error::Device(format!("{text} on {adapter}")),
        })
    }

    fn out_of_memory(&self, what: &str, bytes: u64) -> Error {
        Error::OutOfMemory {
            adapter: adapter::describe(&self.info),
            what: what.to_owned(),
            bytes,
            held: self.held.bytes(),
            changes: Vec::new(),
        }
    }

    /// A zero-filled storage buffer of at least `bytes` (rounded up to 4).
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it exceeds a limit, [`Error::OutOfMemory`] when it does not fit the memory.
    pub async fn buffer_async(&self, label: &str, bytes: u64) -> Result<Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer_with_async(label, bytes, usage).await
    }

    /// As [`Gpu::buffer_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::buffer_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer> {
        pollster::block_on(self.buffer_async(label, bytes))
    }

    /// A buffer with explicit usages.
    ///
    /// # Errors
    /// As [`Gpu::buffer_async`].
    pub async fn buffer_with_async(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        // What is larger than one binding may still be bound in slices.
        let limit = self.limits.max_buffer_size;
        let size =
            bytes.max(16).checked_next_multiple_of(4).filter(|&size| size <= limit).ok_or_else(|| Error::TooLarge {
                what: label.to_owned(),
                scope: String::new(),
                size: bytes,
                limit,
                of: Limit::Buffer,
                holder: format!("a buffer of {}", adapter::describe(&self.info)),
                changes: Vec::new(),
            })?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        // The scope belongs to this thread: it is popped before anything is awaited.
        let popped = memory.pop();
        if popped.await.is_some() {
            return Err(self.out_of_memory(label, size));
        }
        Ok(self.held.count(buffer))
    }

    /// As [`Gpu::buffer_with_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::buffer_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn buffer_with(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        pollster::block_on(self.buffer_with_async(label, bytes, usage))
    }

    /// An encoder for commands to [`Gpu::submit`].
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&Default::default())
    }

    /// Submits what was encoded, after the writes so far.
    ///
    /// # Errors
    /// As [`Gpu::check`], as far as is known at once: the work itself may fail later.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<Submission> {
        self.pending.store(0, Ordering::Relaxed);
        let index = self.queue.submit([encoder.finish()]);
        let done = Answer::new();
        let notify = done.clone();
        self.queue.on_submitted_work_done(move || notify.give(()));
        self.check()?;
        Ok(Submission { index, done })
    }

    /// Writes `data` at byte `offset` before the next submission. Waits now and then for earlier copies to end, so
    /// that little memory is taken beside the buffer.
    ///
    /// # Errors
    /// As [`Gpu::wait_async`].
    pub async fn write_async<T: bytemuck::NoUninit>(
        &self,
        buffer: &wgpu::Buffer,
        offset: u64,
        data: &[T],
    ) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        for (piece, at) in bytes.chunks(PIECE).zip((offset..).step_by(PIECE)) {
            self.queue.write_buffer(buffer, at, piece);
            if self.pending.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > PIECE {
                self.wait_for_async(&self.submit(self.encoder())?).await?;
            }
        }
        Ok(())
    }

    /// As [`Gpu::write_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::write_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &wgpu::Buffer, offset: u64, data: &[T]) -> Result<()> {
        pollster::block_on(self.write_async(buffer, offset, data))
    }

    /// Waits for the queue and reads `count` elements at byte `offset`.
    ///
    /// # Errors
    /// As [`Gpu::check`], when the device failed in between.
    pub async fn read_async<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        offset: u64,
        count: usize,
    ) -> Result<Vec<T>> {
        let mut data = Vec::with_capacity(count);
        let most = (PIECE / size_of::<T>()).max(1);
        while data.len() < count {
            let n = (count - data.len()).min(most);
            let bytes = n as u64 * size_of::<T>() as u64;
            let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
            let staging = self.buffer_with_async("read-back", bytes, usage).await?;
            let mut encoder = self.encoder();
            let from = offset + data.len() as u64 * size_of::<T>() as u64;
            encoder.copy_buffer_to_buffer(buffer, from, &staging, 0, bytes.next_multiple_of(4));
            self.submit(encoder)?;
            data.extend(self.read_staging_async::<T>(&staging, n).await?);
        }
        Ok(data)
    }

    /// As [`Gpu::read_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, offset: u64, count: usize) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(buffer, offset, count))
    }

    /// Maps a staging buffer (`MAP_READ`), after what was submitted, and reads its first `count` elements.
    ///
    /// # Errors
    /// As [`Gpu::read_async`].
    pub async fn read_staging_async<T: bytemuck::Pod>(&self, staging: &wgpu::Buffer, count: usize) -> Result<Vec<T>> {
        /// Also a read that is dropped before its end leaves the buffer to be used again.
        struct Unmap<'b>(&'b wgpu::Buffer);
        impl Drop for Unmap<'_> {
            fn drop(&mut self) {
                self.0.unmap();
            }
        }
        let bytes = count as u64 * size_of::<T>() as u64;
        let mapped = self.map(staging, wgpu::MapMode::Read);
        let _unmap = Unmap(staging);
        self.mapped(&mapped, None).await?;
        let view = staging.slice(..).get_mapped_range().map_err(|e| self.not_mapped(&e))?;
        Ok(bytemuck::pod_collect_to_vec(&view[..bytes as usize]))
    }

    /// As [`Gpu::read_staging_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_staging<T: bytemuck::Pod>(&self, staging: &wgpu::Buffer, count: usize) -> Result<Vec<T>> {
        pollster::block_on(self.read_staging_async(staging, count))
    }

    /// Asks for a whole buffer to be mapped as soon as the device has done with it.
    pub(super) fn map(&self, buffer: &wgpu::Buffer, mode: wgpu::MapMode) -> Mapping {
        let answer = Answer::new();
        let notify = answer.clone();
        buffer.slice(..).map_async(mode, move |result| notify.give(result));
        answer
    }

    /// Waits until a buffer is mapped. `after` is the submission that last used it; none: the latest.
    pub(super) async fn mapped(&self, mapping: &Mapping, after: Option<&Submission>) -> Result<()> {
        let answer = mapping.wait(&self.device, after.map(|submission| &submission.index)).await;
        self.check()?;
        answer?.map_err(|e| self.not_mapped(&e))
    }

    /// The device's own reason, if it has given one.
    pub(super) fn not_mapped(&self, reason: &dyn std::fmt::Display) -> Error {
        // A lost device refuses a mapping at once, and says that it is lost when it is polled and has ended what it did.
        #[cfg(not(target_arch = "wasm32"))]
        let _ = self.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(LAST_WORDS) });
        match self.check() {
            Err(error) => error,
            Ok(()) => Error::Device(format!("the device could not map memory ({reason})")),
        }
    }

    /// Waits until one submission is done.
    ///
    /// # Errors
    /// As [`Gpu::check`], when the device failed.
    pub async fn wait_for_async(&self, submission: &Submission) -> Result<()> {
        let done = submission.done.wait(&self.device, Some(&submission.index)).await;
        self.check()?;
        done
    }

    /// As [`Gpu::wait_for_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::wait_for_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_for(&self, submission: &Submission) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: Some(submission.index.clone()), timeout: None })
    }

    /// Waits until all submitted work is done.
    ///
    /// # Errors
    /// As [`Gpu::check`], when the device failed.
    pub async fn wait_async(&self) -> Result<()> {
        let done = Answer::new();
        let notify = done.clone();
        self.queue.on_submitted_work_done(move || notify.give(()));
        let done = done.wait(&self.device, None).await;
        self.check()?;
        done
    }

    /// As [`Gpu::wait_async`]; blocks.
    ///
    /// # Errors
    /// As [`Gpu::wait_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn poll(&self, until: wgpu::PollType) -> Result<()> {
        let outcome = self.device.poll(until);
        self.check()?;
        outcome.map(drop).map_err(|e| Error::Device(format!("waiting for the device failed: {e}")))
    }
}

/// The answer to a request to map a buffer.
pub(super) type Mapping = Answer<std::result::Result<(), wgpu::BufferAsyncError>>;

/// Collects what a device reports from now on. The first report is the cause; what follows are consequences.
fn watch(device: &wgpu::Device) -> Arc<Mutex<Option<Trouble>>> {
    let trouble = Arc::new(Mutex::new(None));
    let note = |slot: &Mutex<Option<Trouble>>, trouble: Trouble| {
        slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(trouble);
    };
    let slot = trouble.clone();
    device.on_uncaptured_error(Arc::new(move |error| {
        let trouble = match error {
            wgpu::Error::OutOfMemory { .. } => Trouble::Memory,
            wgpu::Error::Validation { description, .. } => {
                Trouble::Refused(format!("the device refused a command: {description}"))
            }
            wgpu::Error::Internal { description, .. } => Trouble::Refused(format!("the driver failed: {description}")),
        };
        note(&slot, trouble);
    }));
    let slot = trouble.clone();
    device.set_device_lost_callback(move |reason, message| {
        let message = if message.is_empty() { format!("{reason:?}").to_lowercase() } else { message };
        note(&slot, Trouble::Lost(message));
    });
    trouble
}
