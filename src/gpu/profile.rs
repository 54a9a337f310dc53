//! Device time of compute passes: by timestamps where the adapter has them, else by the wall clock.
//!
//! A timed pass is a pass of its own, so its time is not that of the same work inside a larger pass.

use std::sync::Arc;

use super::buffer::Buffer;
use super::clock::Clock;
use super::device::Gpu;
use crate::Result;

/// Encodes the work of one pass.
pub type Encode<'a> = &'a dyn Fn(&mut wgpu::ComputePass);

/// Times passes on one device.
pub struct PassTimer {
    gpu: Arc<Gpu>,
    wall: Clock,
    queries: Option<Queries>,
    trust: Trust,
}

struct Queries {
    set: wgpu::QuerySet,
    resolved: Buffer,
    seconds_per_tick: f64,
}

/// Whether an adapter's timestamps can be believed, by what it has reported so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// This number of submissions in a row without a tick.
    Silent(u32),
    /// The timestamps contradict the wall clock, or never tick.
    Lost,
}

/// Submissions in a row that may pass between two ticks of a coarse clock.
const SILENCE: u32 = 8;

/// What a set of times tells about an adapter's timestamps, and whether the times themselves can be used.
fn weigh(trust: Trust, times: &[f64], wall: f64) -> (Trust, bool) {
    let Trust::Silent(silent) = trust else { return (Trust::Lost, false) };
    let sum: f64 = times.iter().sum();
    // A driver whose clock has another rate than it says.
    if !(sum <= 1.05 * wall + 1e-4) {
        return (Trust::Lost, false);
    }
    match (sum > 0.0, silent + 1) {
        // A pass may be shorter than a tick.
        (true, _) => (Trust::Silent(0), true),
        (false, SILENCE..) => (Trust::Lost, false),
        (false, silent) => (Trust::Silent(silent), false),
    }
}

/// The most passes that one submission times by timestamps; Metal allows few queries in a set.
const MAX_PASSES: usize = 16;

impl PassTimer {
    /// A timer by timestamps if `gpu` has them, else by `wall`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] when the device has no room for the queries.
    pub async fn new_async(gpu: Arc<Gpu>, wall: Clock) -> Result<Self> {
        let mut queries = None;
        if gpu.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            let count = 2 * MAX_PASSES as u32;
            let set = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("passes"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
            let resolved = gpu.buffer_with_async("timestamps", 8 * u64::from(count), usage).await?;
            let seconds_per_tick = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
            queries = Some(Queries { set, resolved, seconds_per_tick });
        }
        Ok(PassTimer { gpu, wall, queries, trust: Trust::Silent(0) })
    }

    /// As [`PassTimer::new_async`]; blocks.
    ///
    /// # Errors
    /// As [`PassTimer::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(gpu: Arc<Gpu>, wall: Clock) -> Result<Self> {
        pollster::block_on(Self::new_async(gpu, wall))
    }

    /// The wall clock.
    pub fn clock(&self) -> Clock {
        self.wall
    }

    /// Where the times come from, for reports.
    pub fn source(&self) -> &'static str {
        match (&self.queries, self.trust) {
            (Some(_), Trust::Silent(_)) => "timestamps",
            (None, _) => "wall clock (the adapter has no timestamps)",
            (Some(_), Trust::Lost) => "wall clock (the adapter's timestamps contradict it)",
        }
    }

    /// Runs the passes one after the other in one submission and returns the seconds of each.
    ///
    /// With the wall clock every pass is a submission of its own, whose round trip is in its time.
    ///
    /// # Errors
    /// As [`Gpu::check`] when the device failed.
    pub async fn time_async(&mut self, passes: &[Encode<'_>]) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for some in passes.chunks(MAX_PASSES) {
            match self.by_timestamps(some).await? {
                Some(measured) => times.extend(measured),
                None => {
                    for pass in some {
                        times.push(self.by_wall(*pass).await?);
                    }
                }
            }
        }
        Ok(times)
    }

    /// As [`PassTimer::time_async`]; blocks.
    ///
    /// # Errors
    /// As [`PassTimer::time_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn time(&mut self, passes: &[Encode<'_>]) -> Result<Vec<f64>> {
        pollster::block_on(self.time_async(passes))
    }

    async fn by_timestamps(&mut self, passes: &[Encode<'_>]) -> Result<Option<Vec<f64>>> {
        let (Some(queries), Trust::Silent(_)) = (&self.queries, self.trust) else { return Ok(None) };
        let mut encoder = self.gpu.encoder();
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
        let submission = self.gpu.submit(encoder)?;
        self.gpu.wait_for_async(&submission).await?;
        let wall = (self.wall)().saturating_sub(begun).as_secs_f64();
        let ticks: Vec<u64> = self.gpu.read_async(&queries.resolved, 0, 2 * passes.len()).await?;
        let seconds = |pair: &[u64]| pair[1].wrapping_sub(pair[0]) as f64 * queries.seconds_per_tick;
        let times: Vec<f64> = ticks.chunks_exact(2).map(seconds).collect();
        let (trust, usable) = weigh(self.trust, &times, wall);
        self.trust = trust;
        Ok(usable.then_some(times))
    }

    async fn by_wall(&self, encode: Encode<'_>) -> Result<f64> {
        let mut encoder = self.gpu.encoder();
        encode(&mut encoder.begin_compute_pass(&Default::default()));
        let begun = (self.wall)();
        let submission = self.gpu.submit(encoder)?;
        self.gpu.wait_for_async(&submission).await?;
        Ok((self.wall)().saturating_sub(begun).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_shorter_than_a_tick_costs_no_trust() {
        let fresh = Trust::Silent(0);
        assert_eq!(weigh(fresh, &[1e-3, 0.0], 2e-3), (fresh, true));
        assert_eq!(weigh(fresh, &[0.0], 2e-3), (Trust::Silent(1), false), "this time by the wall clock");
        assert_eq!(weigh(Trust::Silent(3), &[1e-6], 2e-3), (fresh, true));
        assert_eq!(weigh(fresh, &[1.0], 2e-3), (Trust::Lost, false), "longer than the wall clock says");
        assert_eq!(weigh(fresh, &[f64::NAN], 2e-3), (Trust::Lost, false));
        let all_silent = (0..SILENCE).fold(fresh, |trust, _| weigh(trust, &[0.0], 1.0).0);
        assert_eq!(all_silent, Trust::Lost, "a driver that writes zeros");
    }
}
