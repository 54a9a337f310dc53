//! What the device can do at best: multiply-adds, memory, launches. Measured by small shaders; the best of a few forms and
//! of all samples counts, since whatever else the machine does only slows it down.

use serde::{Deserialize, Serialize};

use super::{Spread, measure_async};
use crate::gpu::kernel::{Kernels, Prepared, Region, WORKGROUP};
use crate::gpu::profile::PassTimer;
use crate::gpu::{Buffer, Launch};
use crate::{Error, Result};

const SHADER: &str = "ceilings";

/// The device's own limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Floating-point operations per second; a multiply-add counts as two.
    pub flops_per_second: f64,
    /// The form of the shader that reached it.
    pub flops_by: String,
    /// Memory traffic by the size of the working set, smallest first.
    pub bandwidth: Vec<Bandwidth>,
    /// Seconds per launch that does nothing, among others in one pass.
    pub launch_seconds: f64,
    /// Seconds from submitting such a launch to knowing that it is done.
    pub round_trip_seconds: f64,
}

/// Memory traffic over a working set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes that are read or written again and again.
    pub working_set_bytes: u64,
    /// Bytes read and written per second.
    pub bytes_per_second: f64,
    /// The form of the shader that reached it.
    pub by: String,
}

/// What limits a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Multiply-adds.
    Arithmetic,
    /// Memory traffic.
    Memory,
    /// The cost of its launches.
    Launch,
}

impl Bound {
    /// Its word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Arithmetic => "arithmetic",
            Bound::Memory => "memory",
            Bound::Launch => "launch",
        }
    }
}

impl Ceilings {
    /// Bytes per second over a working set of this size: those measured on the next larger one.
    pub fn bandwidth_at(&self, bytes: u64) -> f64 {
        let at = self.bandwidth.iter().find(|b| b.working_set_bytes >= bytes).or(self.bandwidth.last());
        at.map_or(f64::NAN, |b| b.bytes_per_second)
    }

    /// The fewest seconds that this work takes on this device, and the ceiling that decides it.
    pub fn least(&self, flops: u64, bytes: u64, launches: usize) -> (f64, Bound) {
        let times = [
            (flops as f64 / self.flops_per_second, Bound::Arithmetic),
            (bytes as f64 / self.bandwidth_at(bytes), Bound::Memory),
            (launches as f64 * self.launch_seconds, Bound::Launch),
        ];
        times.into_iter().fold((0.0, Bound::Launch), |most, next| if next.0 > most.0 { next } else { most })
    }
}

/// The buffers and pipelines of the small shaders.
struct Bench<'k> {
    kernels: &'k mut Kernels,
    params: Buffer,
    x: Buffer,
    y: Buffer,
}

impl Bench<'_> {
    /// `vectors` of both buffers are bound.
    async fn prepare(&mut self, launch: Launch<()>, reads: bool, vectors: u64) -> Result<Prepared> {
        let region = |buffer: &Buffer| Region { buffer: buffer.clone(), offset: 0, bytes: 16 * vectors };
        let mut launch = launch.map(|()| region(&self.y)).bind("y", region(&self.y));
        if reads {
            launch = launch.bind("x", region(&self.x));
        }
        self.kernels.prepare_async(&launch, &self.params, 0).await
    }
}

fn launch(entry: &'static str, n: u64, groups: u64, rounds: u32) -> Launch<()> {
    Launch::groups(SHADER, entry, groups as usize)
        .param("n", n as u32)
        .param("rounds", rounds)
        .param("factor", 0.5_f32)
        .param("addend", 0.25_f32)
}

/// Working sets: in a core's cache, in the last cache of many devices, beyond it.
const WORKING_SETS: [u64; 4] = [1 << 19, 1 << 22, 1 << 25, 1 << 28];

/// Measures the ceilings.
///
/// # Errors
/// [`Error::Device`] when the device refuses or fails.
pub async fn find_async(timer: &mut PassTimer, kernels: &mut Kernels, samples: usize) -> Result<Ceilings> {
    let gpu = kernels.gpu().clone();
    let limit = gpu.limits().max_storage_buffer_binding_size.min(gpu.limits().max_buffer_size);
    let half = (WORKING_SETS[WORKING_SETS.len() - 1] / 2).min(limit) / 16 * 16;
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let mut bench = Bench {
        params: gpu.buffer_with_async("params of the ceilings", 256, usage).await?,
        x: gpu.buffer_async("memory read", half).await?,
        y: gpu.buffer_async("memory written", half).await?,
        kernels,
    };
    let wg = u64::from(WORKGROUP);

    // Arithmetic: more workgroups until they keep the device busy for a while; a large one needs many.
    let (mut groups, rounds) = (16, 128);
    loop {
        let prepared = bench.prepare(launch("multiply_add_1", groups * wg, groups, rounds), false, groups * wg).await?;
        let once = async |timer: &mut PassTimer| {
            Ok::<f64, Error>(timer.time_async(&[&|pass| prepared.encode(pass)]).await?[0])
        };
        once(timer).await?;
        if once(timer).await? > 2e-3 || groups >= 8192 {
            break;
        }
        groups *= 4;
    }
    let mut best = (0.0, String::new());
    for (entry, chains) in [("multiply_add_1", 1), ("multiply_add_2", 2), ("multiply_add_4", 4)] {
        for fused in [false, true] {
            let launch = launch(entry, groups * wg, groups, rounds).constant("FUSED", u32::from(fused));
            let prepared = bench.prepare(launch, false, groups * wg).await?;
            let time = measure_async(timer, samples, &|pass| prepared.encode(pass)).await?;
            // Eight links of four lanes, two operations each.
            let flops = (groups * wg * u64::from(rounds) * chains * 8 * 4 * 2) as f64;
            if flops / time.min > best.0 {
                best = (flops / time.min, format!("{entry}{}", if fused { ", fma" } else { "" }));
            }
        }
    }

    let mut bandwidth = Vec::new();
    for set in WORKING_SETS {
        if set / 2 > half {
            continue;
        }
        let vectors = set / 2 / 16;
        let mut best = Bandwidth { working_set_bytes: set, bytes_per_second: 0.0, by: String::new() };
        for (entry, items) in [("copy", 1), ("copy", 4), ("total", 16)] {
            // A sum touches one buffer only: give it as much to read as a copy touches, where it fits.
            let n = if entry == "total" && set <= half { 2 * vectors } else { vectors };
            let launch = launch(entry, n, n.div_ceil(wg * items), 0).constant("ITEMS", items as u32);
            let prepared = bench.prepare(launch, true, n).await?;
            let time = measure_async(timer, samples, &|pass| prepared.encode(pass)).await?;
            let bytes = 16 * if entry == "total" { n + n / items } else { 2 * n };
            let rate = bytes as f64 / time.min;
            if rate > best.bytes_per_second {
                (best.bytes_per_second, best.by) = (rate, format!("{entry} of {items} vec4"));
            }
        }
        bandwidth.push(best);
    }

    let prepared = bench.prepare(launch("touch", 1, 1, 0), false, 1).await?;
    let launch_seconds = measure_async(timer, samples, &|pass| prepared.encode(pass)).await?.min;
    let mut trips = Vec::new();
    for _ in 0..samples.max(5) {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        prepared.encode(&mut encoder.begin_compute_pass(&Default::default()));
        let begun = (timer.clock())();
        let submission = gpu.submit(encoder)?;
        gpu.wait_for_async(&submission).await?;
        trips.push(((timer.clock())() - begun).as_secs_f64());
    }
    let (flops_per_second, flops_by) = best;
    let round_trip_seconds = Spread::of(trips).min;
    let ceilings = Ceilings { flops_per_second, flops_by, bandwidth, launch_seconds, round_trip_seconds };
    let sound = |v: f64| v.is_finite() && v > 0.0;
    if !sound(flops_per_second) || !ceilings.bandwidth.iter().all(|b| sound(b.bytes_per_second)) {
        return Err(Error::Device(format!("the clock of {} cannot be used: it measured {ceilings:?}", gpu.describe())));
    }
    Ok(ceilings)
}
