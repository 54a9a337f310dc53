//! Every operation on the device against its f64 twin, and every gradient against finite differences.

#![allow(clippy::print_stderr, reason = "a test reports its adapter and its measured errors")]

use std::sync::Arc;

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check;

fn open(default_limits: bool) -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu =
        Gpu::open(&Options { choice, default_limits, ..Options::default() }).expect("a GPU test needs an adapter");
    eprintln!("adapter: {}", gpu.describe());
    gpu
}

fn all_cases(mut kernels: Kernels) {
    let filter = std::env::var("IEQ_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in check::cases().iter().filter(|c| c.name.contains(&filter)) {
        match check::run(case, &mut kernels) {
            Ok(outcome) if outcome.passed() => eprintln!("ok   {:9.2e} {}", outcome.error, outcome.name),
            Ok(outcome) => failures.push(format!(
                "{}: {} is off by {:.2e}, allowed {:.2e}",
                outcome.name, outcome.worst, outcome.error, outcome.tolerance
            )),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    all_cases(Kernels::new(open(false)));
}

/// What a browser would run: no optional feature is used, no limit raised.
#[test]
fn every_plain_kernel_agrees_with_its_twin_within_the_default_limits() {
    all_cases(Kernels::new(open(true)).without_subgroups());
}

#[test]
fn every_gradient_agrees_with_finite_differences() {
    let mut failures = Vec::new();
    let filter = std::env::var("IEQ_CASE").unwrap_or_default();
    for case in check::cases().iter().filter(|c| c.name.contains(&filter)) {
        // Cases beyond this size exist for the device's grid, not for the formula.
        if case.inputs.iter().any(|i| i.ty.len() > 100_000) {
            continue;
        }
        match check::finite_differences(case) {
            Ok(error) if error <= 1e-5 => {}
            Ok(error) => failures.push(format!("{}: off by {error:.2e}", case.name)),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}
