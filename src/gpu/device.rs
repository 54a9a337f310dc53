//! The opened device: buffers, transfers, and errors turned into sentences.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::adapter::{self, AdapterChoice};
use super::tune::Tuning;
use crate::{Error, Result};

/// The optional features that the engine uses where an adapter has them.
pub const WANTED_FEATURES: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::SUBGROUP);

/// What a device is opened with beyond the adapter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which adapter.
    pub choice: AdapterChoice,
    /// Request WebGPU's default limits instead of the adapter's own, as a browser would.
    pub default_limits: bool,
    /// The largest binding to request, where it is less than the limits above: a smaller adapter to test with.
    pub max_binding: Option<u64>,
}

/// An adapter's device and queue, with what went wrong on it.
pub struct Gpu {
    /// Name, backend, driver of the adapter.
    pub info: wgpu::AdapterInfo,
    /// Why this adapter was chosen.
    pub why: String,
    /// The device.
    pub device: wgpu::Device,
    /// Its only queue.
    pub queue: wgpu::Queue,
    /// The limits the device was opened with.
    pub limits: wgpu::Limits,
    /// The features the device was opened with.
    pub features: wgpu::Features,
    trouble: Arc<Mutex<Option<Trouble>>>,
    tuning: Mutex<Tuning>,
    asked: AtomicU64,
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

/// Transfers go in pieces of this many bytes: each takes as much again, outside every plan, while it is under way.
const PIECE: usize = 1 << 20;

/// The ways out when a step is too large.
pub(crate) const LESS: &str = "a smaller --batch, narrower --widths or --memory-budget with --bn micro needs less";

impl Gpu {
    /// Opens the chosen adapter with its real limits and the optional features the kernels can use.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when no adapter fits, [`Error::Device`] when it refuses to open.
    pub fn open(options: &Options) -> Result<Arc<Gpu>> {
        let (listed, why) = adapter::choose(&options.choice)?;
        let adapter = listed.adapter;
        let mut limits = if options.default_limits { wgpu::Limits::default() } else { adapter.limits() };
        if let Some(most) = options.max_binding {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ieq-wgpu"),
            required_features: adapter.features() & WANTED_FEATURES,
            required_limits: limits,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
            Error::Device(format!("{} did not open: {e}; try another adapter", adapter::describe(&listed.info)))
        })?;
        let trouble = Arc::new(Mutex::new(None));
        let note = |slot: &Arc<Mutex<Option<Trouble>>>, trouble: Trouble| {
            if let Ok(mut slot) = slot.lock() {
                // The first report is the cause; what follows are consequences.
                slot.get_or_insert(trouble);
            }
        };
        let slot = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            note(
                &slot,
                match error {
                    wgpu::Error::OutOfMemory { .. } => Trouble::Memory,
                    wgpu::Error::Validation { description, .. } => {
                        Trouble::Refused(format!("the device refused a command: {description}"))
                    }
                    wgpu::Error::Internal { description, .. } => {
                        Trouble::Refused(format!("the driver failed: {description}"))
                    }
                },
            );
        }));
        let slot = trouble.clone();
        device.set_device_lost_callback(move |reason, message| {
            let message = if message.is_empty() { format!("{reason:?}").to_lowercase() } else { message };
            note(&slot, Trouble::Lost(message));
        });
        let (limits, features) = (device.limits(), device.features());
        Ok(Arc::new(Gpu {
            info: listed.info,
            why,
            device,
            queue,
            limits,
            features,
            trouble,
            tuning: Mutex::default(),
            asked: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
        }))
    }

    /// Whether the adapter is a program on the CPU.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Reads or changes how kernels are chosen on this device.
    pub fn tuning<T>(&self, f: impl FnOnce(&mut Tuning) -> T) -> T {
        f(&mut self.tuning.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// One line: the adapter and why it was chosen.
    pub fn describe(&self) -> String {
        format!("{}, {}", adapter::describe(&self.info), self.why)
    }

    /// The first error the device has reported, if any.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Device`] with what happened and what to do.
    pub fn check(&self) -> Result<()> {
        let adapter = adapter::describe(&self.info);
        match self.trouble.lock().map(|t| t.clone()) {
            Ok(None) => Ok(()),
            Ok(Some(Trouble::Lost(why))) => {
                Err(Error::DeviceLost(format!("the device was lost ({why}): {adapter}, {}", self.usage())))
            }
            Ok(Some(Trouble::Memory)) => {
                Err(Error::Device(format!("the device is out of memory: {adapter}, {}; {LESS}", self.usage())))
            }
            Ok(Some(Trouble::Refused(text))) => Err(Error::Device(format!("{text} on {adapter}"))),
            Err(_) => Err(Error::Internal("the device's error slot is poisoned".into())),
        }
    }

    /// How much memory the buffers took so far, for errors.
    fn usage(&self) -> String {
        let mebibytes = self.asked.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
        format!("{mebibytes:.1} MiB in its buffers")
    }

    /// A zero-filled storage buffer of at least `bytes` (rounded up to 4).
    ///
    /// # Errors
    /// [`Error::Device`] when it exceeds a limit or the memory.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer_with(label, bytes, usage)
    }

    /// A buffer with explicit usages.
    ///
    /// # Errors
    /// As [`Gpu::buffer`].
    pub fn buffer_with(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let size = bytes.max(16).next_multiple_of(4);
        // What is larger than one binding may still be bound in slices.
        let limit = self.limits.max_buffer_size;
        if size > limit {
            return Err(Error::Device(format!(
                "{label} needs {size} bytes, and a buffer of {} holds at most {limit}; {LESS}",
                adapter::describe(&self.info)
            )));
        }
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        if pollster::block_on(memory.pop()).is_some() {
            return Err(Error::Device(format!(
                "{} has no memory left for {label} ({size} bytes) beside {}; {LESS}",
                adapter::describe(&self.info),
                self.usage()
            )));
        }
        self.asked.fetch_add(size, Ordering::Relaxed);
        Ok(buffer)
    }

    /// Submits what was encoded, after the writes so far.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.pending.store(0, Ordering::Relaxed);
        self.queue.submit([encoder.finish()])
    }

    /// Writes `data` at `offset` before the next submission.
    pub fn write<T: bytemuck::NoUninit>(&self, buffer: &wgpu::Buffer, offset: u64, data: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        for (piece, at) in bytes.chunks(PIECE).zip((offset..).step_by(PIECE)) {
            self.queue.write_buffer(buffer, at, piece);
            if self.pending.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() > PIECE {
                // Lets the copies end; a failure shows at the next check.
                self.submit(self.device.create_command_encoder(&Default::default()));
                drop(self.wait());
            }
        }
    }

    /// Waits for the queue and reads `count` elements at byte `offset`.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed in between.
    pub fn read<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, offset: u64, count: usize) -> Result<Vec<T>> {
        let mut data = Vec::with_capacity(count);
        let most = (PIECE / size_of::<T>()).max(1);
        while data.len() < count {
            let n = (count - data.len()).min(most);
            data.extend(self.read_piece::<T>(buffer, offset + (data.len() * size_of::<T>()) as u64, n)?);
        }
        Ok(data)
    }

    fn read_piece<T: bytemuck::Pod>(&self, buffer: &wgpu::Buffer, offset: u64, count: usize) -> Result<Vec<T>> {
        let bytes = (count * size_of::<T>()) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer_with("read-back", bytes, usage)?;
        self.asked.fetch_sub(staging.size(), Ordering::Relaxed);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, bytes.next_multiple_of(4));
        self.submit(encoder);
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |result| drop(sender.send(result)));
        self.wait()?;
        receiver
            .try_recv()
            .map_err(|e| Error::Device(format!("the device did not answer a read ({e})")))?
            .map_err(|e| Error::Device(format!("the device could not map memory ({e})")))?;
        let view = staging
            .slice(..)
            .get_mapped_range()
            .map_err(|e| Error::Device(format!("the device could not map memory ({e})")))?;
        Ok(bytemuck::pod_collect_to_vec(&view[..bytes as usize]))
    }

    /// Blocks until one submission is done.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        self.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })
    }

    /// Blocks until all submitted work is done.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub fn wait(&self) -> Result<()> {
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    fn poll(&self, until: wgpu::PollType) -> Result<()> {
        let outcome = self.device.poll(until);
        self.check()?;
        outcome.map(drop).map_err(|e| Error::Device(format!("waiting for the device failed: {e}")))
    }
}
