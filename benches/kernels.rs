//! For developers: the kernels of one training step, each submission waited for, by divan.
//!
//!     cargo bench --bench kernels -- conv2d        the ResNet-12 of the demo, 64 rows at 32 px
//!     IEQ_BENCH=cifar-fs:16:84 cargo bench         another preset, rows and side
//!
//! `ieq-wgpu bench` measures the same cases with timestamps, checks them first and compares them with the device's
//! ceilings; this is for a quick look while a shader is being changed.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::sync::{Mutex, OnceLock};

use divan::Bencher;
use ieq_wgpu::bench::cases::{Case, Recording};
use ieq_wgpu::bench::kernels::load;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::settings::Config;

fn main() {
    divan::main();
}

/// The cases by name, most products first.
fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let words = std::env::var("IEQ_BENCH").unwrap_or_else(|_| "demo:64:32".into());
        let words: Vec<&str> = words.split(':').collect();
        let [preset, rows, side] = words[..] else { panic!("IEQ_BENCH is PRESET:ROWS:SIDE, such as cifar-fs:16:84") };
        let config = Config::from_preset(preset).unwrap();
        Recording::new(&config, side.parse().unwrap(), rows.parse().unwrap()).unwrap().cases().unwrap()
    })
}

fn kernels() -> &'static Mutex<Kernels> {
    static KERNELS: OnceLock<Mutex<Kernels>> = OnceLock::new();
    KERNELS.get_or_init(|| {
        let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
        Mutex::new(Kernels::new(Gpu::open(&Options { choice, ..Options::default() }).unwrap()))
    })
}

#[divan::bench(args = cases().iter().map(|case| format!("{} {}", case.name, case.shape)))]
fn kernel(bencher: Bencher, name: &str) {
    let case = cases().iter().find(|case| format!("{} {}", case.name, case.shape) == name).unwrap();
    let executor = load(case, &mut kernels().lock().unwrap()).unwrap().0;
    bencher.bench_local(|| executor.gpu().wait_for(&executor.submit().unwrap()).unwrap());
}
