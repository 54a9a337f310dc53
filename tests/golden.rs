//! The engine compared with PyTorch's and scikit-learn's numbers: every file of `tests/golden`, or of the folder that
//! `IEQ_GOLDEN_DIR` names. What is in a file is found by its tensors' names and its metadata; a tensor with a
//! tolerance that nothing computes is a failure.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "a test names its adapter and its measured errors")]

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::golden::{FOLDER_VARIABLE, Golden, Kind, Report, files, folder};
use common::golden_cases::{Bench, evaluate};
use common::golden_models;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::kernel::testing::KernelsExt;
use ieq_wgpu::gpu::matrix_unit::MatrixUnit;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check::find_matrix_unit;

fn open() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu =
        Gpu::open(&Options { choice, matrix_units: true, ..Options::default() }).expect("a GPU test needs an adapter");
    eprintln!("adapter: {}", gpu.describe());
    gpu
}

/// Evaluates all files of a kind, with each variant of the kernels: the last by matrix units with factors in two parts, or by
/// ordinary arithmetic where the adapter has none, within the same tolerances.
fn every_file(kind: Kind, evaluate: impl for<'g> Fn(&'g Golden, &mut Kernels) -> Report<'g>) {
    let gpu = open();
    let unit = find_matrix_unit(&mut Kernels::new(gpu.clone())).unwrap().right.unwrap_or(MatrixUnit::SCALAR);
    let folder = folder();
    let mut failures = Vec::new();
    let mut found = 0;
    for file in files(&folder).unwrap() {
        let golden = Golden::open(&folder, &file).unwrap();
        if golden.kind().unwrap() != kind {
            continue;
        }
        found += 1;
        let kernels = || Kernels::new(gpu.clone());
        let mut by_units = kernels();
        by_units.use_matrix_unit(Some(unit));
        let mut variants = vec![("subgroups", kernels()), ("plain", kernels().without_subgroups())];
        // Ordinary arithmetic takes minutes for a larger model.
        if unit != MatrixUnit::SCALAR || kind == Kind::Operations || file.contains("dropblock") {
            variants.push(("matrix", by_units));
        }
        for (variant, mut kernels) in variants {
            let started = Instant::now();
            let report = evaluate(&golden, &mut kernels);
            eprintln!("{report}; {variant} kernels, {:.1} s", started.elapsed().as_secs_f64());
            failures.extend(report.failures.iter().map(|failure| format!("{variant} kernels: {failure}")));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    let foreign = std::env::var_os(FOLDER_VARIABLE).is_some();
    assert!(found > 0 || foreign, "{} holds no file of the kind {kind:?}", folder.display());
    if found == 0 {
        eprintln!("{} holds no file of the kind {kind:?}", folder.display());
    }
}

fn cases<'g>(golden: &'g Golden, kernels: &mut Kernels) -> Report<'g> {
    evaluate(golden, &mut Bench { kernels, change: &|launch| launch })
}

#[test]
fn operations_equal_pytorch() {
    every_file(Kind::Operations, cases);
}

#[test]
fn views_equal_pytorch() {
    every_file(Kind::Views, cases);
}

#[test]
fn classifiers_equal_scikit_learn() {
    every_file(Kind::Classifiers, cases);
}

#[test]
fn training_equals_pytorch() {
    every_file(Kind::Training, golden_models::training);
}

#[test]
fn distillation_equals_pytorch() {
    every_file(Kind::Distillation, golden_models::training);
}

#[test]
fn embeddings_equal_pytorch() {
    every_file(Kind::Embedding, golden_models::embedding);
}

#[test]
fn the_folder_is_not_empty() {
    assert!(!files(&folder()).unwrap().is_empty(), "{} holds no golden file", folder().display());
}
