//! Every operation on the device compared with its f64 twin, and every gradient with finite differences.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a test reports its adapter and its measured errors")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::kernel::testing::KernelsExt;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check::{self, Case};

fn open(default_limits: bool) -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu =
        Gpu::open(&Options { choice, default_limits, ..Options::default() }).expect("a GPU test needs an adapter");
    eprintln!("adapter: {}", gpu.describe());
    gpu
}

/// Runs the cases; the bits that each made, by its name.
fn all_cases(cases: &[Case], mut kernels: Kernels) -> BTreeMap<String, Vec<u64>> {
    let mut made = BTreeMap::new();
    let filter = std::env::var("IEQ_CASE").unwrap_or_default();
    let mut failures = Vec::new();
    for case in cases.iter().filter(|c| c.name.contains(&filter)) {
        match check::run(case, &mut kernels) {
            Ok(outcome) if outcome.passed() => {
                eprintln!("ok   {:9.2e} {}", outcome.error, outcome.name);
                made.insert(outcome.name, outcome.made.iter().map(|value| value.to_bits()).collect());
            }
            Ok(outcome) => failures.push(format!(
                "{}: {} is off by {:.2e}, allowed {:.2e}",
                outcome.name, outcome.worst, outcome.error, outcome.tolerance
            )),
            Err(error) => failures.push(format!("{}: {error}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
    made
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    all_cases(&check::cases(), Kernels::new(open(false)));
}

/// Tuning may choose any of them, and this adapter prefers only one. All give the same bits.
#[test]
fn every_alternative_agrees_with_the_twin() {
    let gpu = open(false);
    let wanted = std::env::var("IEQ_ENTRY").unwrap_or_default();
    let mut cases: BTreeMap<&'static str, Vec<Case>> = BTreeMap::new();
    let mut memory = BTreeMap::new();
    for case in check::cases() {
        let others: Vec<_> = case.launches().unwrap().into_iter().flat_map(|launch| launch.alternatives).collect();
        memory.extend(others.iter().map(|other| (other.entry, other.memory)));
        let entries: BTreeSet<_> = others.iter().map(|other| other.entry).collect();
        entries.into_iter().for_each(|entry| cases.entry(entry).or_default().push(case.clone()));
    }
    assert!(cases.len() > 4, "{:?}", cases.keys());
    let preferred = all_cases(&check::cases(), Kernels::new(gpu.clone()));
    for (entry, cases) in cases.iter().filter(|(entry, _)| entry.contains(&wanted)) {
        if memory[entry] > gpu.limits().max_compute_workgroup_storage_size {
            eprintln!("{entry} is left out: this adapter lacks the workgroup memory");
            continue;
        }
        eprintln!("{entry}: {} cases", cases.len());
        let made = all_cases(cases, Kernels::new(gpu.clone()).preferring(entry));
        let differing: Vec<_> = made.iter().filter(|(name, bits)| preferred.get(*name) != Some(bits)).collect();
        let names: Vec<_> = differing.iter().map(|(name, _)| name).collect();
        assert!(names.is_empty(), "{entry} gives other bits: {names:?}");
    }
}

/// What a browser would run: no optional feature is used, no limit raised.
#[test]
fn every_plain_kernel_agrees_with_its_twin_within_the_default_limits() {
    all_cases(&check::cases(), Kernels::new(open(true)).without_subgroups());
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
