//! Device time of compute passes: by timestamps where the adapter has them, else by the wall clock.
//!
//! A profiled pass is a pass of its own, so its time is not that of the same work inside a larger pass.

use std::sync::Arc;

use super::device::Gpu;
use crate::Result;

/// Encodes the work of one pass.
pub type Encode<'a> = &'a dyn Fn(&mut wgpu::ComputePass);

/// Measures passes on one device.
pub struct Clock {
    gpu: Arc<Gpu>,
    /// Tells the time since some fixed moment.
    wall: super::tune::Clock,
    queries: Option<Queries>,
    doubted: bool,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    seconds_per_tick: f64,
}

/// The most passes that one submission times by timestamps; Metal allows few queries in a set.
const MAX_PASSES: usize = 16;

impl Clock {
    /// A clock by timestamps if `gpu` has them, else by `wall`, the time since some fixed moment.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when the device has no room for the queries.
    pub fn new(gpu: Arc<Gpu>, wall: super::tune::Clock) -> Result<Self> {
        let queries = match gpu.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            false => None,
            true => {
                let count = 2 * MAX_PASSES as u32;
                let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("passes"),
                    ty: wgpu::QueryType::Timestamp,
                    count,
                });
                let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
                let resolved = gpu.buffer_with("timestamps", 8 * u64::from(count), usage)?;
                let seconds_per_tick = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
                Some(Queries { set, resolved, seconds_per_tick })
            }
        };
        Ok(Clock { gpu, wall, queries, doubted: false })
    }

    /// What the times come from, for reports.
    pub fn source(&self) -> &'static str {
        match (&self.queries, self.doubted) {
            (Some(_), _) => "timestamps",
            (None, false) => "wall clock (the adapter has no timestamps)",
            (None, true) => "wall clock (the adapter's timestamps contradict it)",
        }
    }

    /// Runs the passes one after the other in one submission and returns the seconds of each.
    ///
    /// With the wall clock every pass is a submission of its own, whose round trip is in its time.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when the device failed.
    pub fn time(&mut self, passes: &[Encode]) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for some in passes.chunks(MAX_PASSES) {
            times.extend(match self.by_timestamps(some)? {
                Some(times) => times,
                None => some.iter().map(|pass| self.by_wall(*pass)).collect::<Result<Vec<_>>>()?,
            });
        }
        Ok(times)
    }

    fn by_timestamps(&mut self, passes: &[Encode]) -> Result<Option<Vec<f64>>> {
        let Some(queries) = &self.queries else { return Ok(None) };
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for (i, encode) in passes.iter().enumerate() {
            let first = 2 * i as u32;
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("timed"),
                timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                    query_set: &queries.set,
                    beginning_of_pass_write_index: Some(first),
                    end_of_pass_write_index: Some(first + 1),
                }),
            });
            encode(&mut pass);
        }
        encoder.resolve_query_set(&queries.set, 0..2 * passes.len() as u32, &queries.resolved, 0);
        let begun = (self.wall)();
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.wait()?;
        let wall = ((self.wall)() - begun).as_secs_f64();
        let ticks: Vec<u64> = self.gpu.read(&queries.resolved, 0, 2 * passes.len())?;
        let seconds = |pair: &[u64]| pair[1].wrapping_sub(pair[0]) as f64 * queries.seconds_per_tick;
        let times: Vec<f64> = ticks.chunks_exact(2).map(seconds).collect();
        // A driver that writes zeros, or at another rate than it says, is not to be believed.
        if times.iter().all(|&t| t > 0.0) && times.iter().sum::<f64>() <= 1.05 * wall + 1e-4 {
            return Ok(Some(times));
        }
        self.queries = None;
        self.doubted = true;
        Ok(None)
    }

    fn by_wall(&self, encode: Encode) -> Result<f64> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encode(&mut encoder.begin_compute_pass(&Default::default()));
        let commands = encoder.finish();
        let begun = (self.wall)();
        self.gpu.queue.submit([commands]);
        self.gpu.wait()?;
        Ok(((self.wall)() - begun).as_secs_f64())
    }
}
