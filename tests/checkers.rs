//! The checkers must fail on what they exist to find: a number that is not finite, swapped tensors, a wrong
//! length, a scaled gradient, a store past the end of a tensor.

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock};

use common::golden::{self, Golden, Report, Tolerance, compare, own_folder};
use common::{golden_cases, golden_models};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, Launch, Scalar, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops;
use ieq_wgpu::ops::check::{self, Case, Elements, Input, Outcome};
use ieq_wgpu::ops::elementwise::{Add, LeakyRelu, LeakyReluBackward, Scale};
use ieq_wgpu::ops::matmul::Matmul;
use ieq_wgpu::tape::ValueId;

const TOLERANCE: Tolerance = Tolerance { atol: 1e-5, rtol: Some(1e-5) };

fn wave(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
}

#[test]
fn equal_tensors_pass() {
    let want = wave(100, 0.0);
    compare(&want, &want, TOLERANCE).expect("a tensor equals itself");
    let near: Vec<f32> = want.iter().map(|x| x * (1.0 + 1e-6)).collect();
    compare(&near, &want, TOLERANCE).expect("rounding is allowed");
    compare(&[0.0; 4], &[0.0; 4], TOLERANCE).expect("zeros equal zeros");
    compare(&[], &[], TOLERANCE).expect("nothing equals nothing");
}

#[test]
fn numbers_that_are_not_finite_fail() {
    let want = wave(100, 0.0);
    let loose = Tolerance { atol: f64::INFINITY, rtol: None };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 50, 99] {
            let mut got = want.clone();
            got[place] = bad;
            for tolerance in [TOLERANCE, loose] {
                let message = compare(&got, &want, tolerance).unwrap_err();
                assert!(message.contains("not finite") && message.contains(&place.to_string()), "{message}");
            }
        }
    }
    let mut reference = want.clone();
    reference[3] = f32::NAN;
    compare(&want, &reference, TOLERANCE).expect_err("a reference that is not finite proves nothing");
}

#[test]
fn a_tolerance_that_is_nan_fails() {
    let want = wave(10, 0.0);
    compare(&want, &want, Tolerance { atol: f64::NAN, rtol: None }).expect_err("NaN allows nothing");
    compare(&want, &want, Tolerance { atol: 1.0, rtol: Some(f64::NAN) }).expect_err("NaN allows nothing");
}

#[test]
fn swapped_tensors_fail() {
    let (a, b) = (wave(100, 0.0), wave(100, 0.3));
    compare(&a, &b, TOLERANCE).expect_err("two tensors differ");
    compare(&b, &a, TOLERANCE).expect_err("two tensors differ");
}

#[test]
fn swapped_elements_fail() {
    let want = wave(100, 0.0);
    let mut got = want.clone();
    got.swap(17, 18);
    compare(&got, &want, TOLERANCE).expect_err("the order matters");
}

#[test]
fn a_shape_off_by_one_fails() {
    let want = wave(100, 0.0);
    for n in [0, 1, 99, 101] {
        compare(&wave(n, 0.0), &want, TOLERANCE).expect_err("a length is wrong");
    }
    compare(&[], &want, Tolerance { atol: f64::INFINITY, rtol: None }).expect_err("nothing is not something");
}

#[test]
fn a_scaled_gradient_fails() {
    let want = wave(100, 0.0);
    for factor in [0.0, -1.0, 0.5, 0.999, 1.001, 2.0] {
        let got: Vec<f32> = want.iter().map(|x| x * factor).collect();
        compare(&got, &want, TOLERANCE).expect_err("the gradient is scaled");
    }
    // Small everywhere: the absolute bound alone would let it pass.
    let small: Vec<f32> = want.iter().map(|x| x * 1e-7).collect();
    compare(&[0.0; 100], &small, TOLERANCE).expect_err("a vanished gradient is no small gradient");
    // One wrong element among many: the relative bound alone would let it pass.
    let mut large = vec![1.0; 1_000_000];
    let reference = large.clone();
    large[5] = 1.001;
    compare(&large, &reference, TOLERANCE).expect_err("one element is off");
}

#[test]
fn an_outcome_that_is_not_a_number_fails() {
    let outcome =
        |error| Outcome { name: String::new(), error, tolerance: 1e-6, worst: String::new(), made: Vec::new() };
    assert!(outcome(0.0).passed() && outcome(1e-6).passed());
    for error in [1.1e-6, f64::INFINITY, f64::NAN, -f64::NAN] {
        assert!(!outcome(error).passed(), "{error} passed");
    }
    assert!(!Outcome { tolerance: f64::NAN, ..outcome(0.0) }.passed(), "a tolerance of NaN allows nothing");
}

// --------------------------------------------------------------------------------- the golden files

#[test]
fn the_golden_checker_fails_where_it_must() {
    let golden = Golden::open(&own_folder(), "evalcls.safetensors").unwrap();
    let name = golden.outputs().find(|name| name.ends_with(".W")).unwrap().to_owned();
    let good = golden.data(&name).unwrap().to_vec();
    golden.check(&name, &good).unwrap();
    let broken = |change: &dyn Fn(&mut Vec<f32>)| {
        let mut copy = good.clone();
        change(&mut copy);
        golden.check(&name, &copy).unwrap_err()
    };
    assert!(broken(&|v| v[3] = f32::NAN).contains("not finite"));
    assert!(broken(&|v| v[3] = f32::INFINITY).contains("not finite"));
    assert!(broken(&|v| v.fill(f32::NAN)).contains("not finite"));
    assert!(broken(&|v| v.truncate(5)).contains("5 numbers"));
    assert!(broken(&|v| v.clear()).contains("0 numbers"));
    assert!(broken(&|v| v[3] += 0.01).contains("at 3"));
    assert!(broken(&|v| v.iter_mut().for_each(|x| *x *= 1.01)).contains("rel L2"));
    assert!(broken(&|v| v.swap(0, 1)).contains("max abs err"));
    assert!(golden.check("absent.W", &good).is_err());
    assert!(Golden::open(&own_folder(), "absent.safetensors").is_err());
    // Each bound fails alone, and a tolerance that is NaN allows nothing.
    let check = |atol, rtol| compare(&[1.0, 1.001], &[1.0, 1.0], Tolerance { atol, rtol });
    assert!(check(0.01, Some(0.01)).is_ok() && check(0.01, None).is_ok());
    assert!(check(1e-4, Some(0.01)).is_err() && check(0.01, Some(1e-4)).is_err());
    assert!(check(f64::NAN, None).is_err() && check(0.01, Some(f64::NAN)).is_err());
    // A zero reference allows no relative error at all.
    assert!(compare(&[1e-9], &[0.0], Tolerance { atol: 1e-6, rtol: Some(1.0) }).is_err());
}

/// Without an entry the rule's strictest form or that of like-named tensors applies.
#[test]
fn a_tensor_without_an_entry_gets_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    let file = "evalcls.safetensors";
    std::fs::copy(own_folder().join(file), folder.path().join(file)).unwrap();
    assert!(Golden::open(folder.path(), file).unwrap_err().contains("tolerances.json"));
    std::fs::write(folder.path().join("tolerances.json"), "{}").unwrap();
    let bare = Golden::open(folder.path(), file).unwrap();
    let full = Golden::open(&own_folder(), file).unwrap();
    for name in full.outputs() {
        let tolerance = bare.tolerance(name).unwrap();
        assert_eq!(tolerance.rtol, Some(1e-6), "{name}");
        assert!(tolerance.atol <= full.tolerance(name).unwrap().atol.max(1e-7), "{name}");
    }
}

/// Every golden file opens, agrees with itself and has tolerances that follow the rule.
#[test]
fn every_golden_file_is_read() {
    let files = golden::files(&own_folder()).unwrap();
    assert!(files.contains(&"evalcls.safetensors".to_owned()));
    for file in files {
        let golden = Golden::open(&own_folder(), &file).unwrap();
        assert!(golden.outputs().next().is_some(), "{file} has no tolerances");
        for name in golden.outputs() {
            golden.check(name, golden.data(name).unwrap()).unwrap();
        }
        for case in golden.cases() {
            golden.settings(case).unwrap();
        }
        for (name, listed, by_rule) in golden::listed_and_rule(&golden) {
            // The list is rounded to two digits; a whole-model group's worst tensor may raise the others.
            let (l, r) = (listed.rtol.unwrap(), by_rule.rtol.unwrap());
            assert!(l >= 0.94 * r && listed.atol >= 0.94 * by_rule.atol, "{file} {name} {listed:?} {by_rule:?}");
            if !file.starts_with("model") && !file.starts_with("distill") {
                assert!(l <= 1.06 * r && listed.atol <= 1.06 * by_rule.atol, "{file} {name} {listed:?} {by_rule:?}");
            }
        }
        // Without its own entry a tensor gets at least the floor and a finite tolerance.
        for name in golden.tensors.keys() {
            let tolerance = golden.tolerance(name).unwrap();
            assert!(tolerance.atol >= 1e-7 && tolerance.atol.is_finite(), "{file} {name}");
        }
    }
}

/// A tensor without an entry in its own file follows those of files named alike.
#[test]
fn a_file_without_entries_follows_its_like() {
    let folder = tempfile::tempdir().unwrap();
    let file = "model_other.safetensors";
    std::fs::copy(own_folder().join("model_dropblock.safetensors"), folder.path().join(file)).unwrap();
    std::fs::copy(own_folder().join("tolerances.json"), folder.path().join("tolerances.json")).unwrap();
    let other = Golden::open(folder.path(), file).unwrap();
    assert_eq!(other.outputs().count(), 0);
    let floor = Tolerance { atol: 0.0, rtol: Some(1e-5) };
    assert!(other.tolerance("grad.classifier.weight").unwrap().rtol > floor.rtol);
}

#[test]
fn what_nothing_computes_fails() {
    let golden = Golden::open(&own_folder(), "ops.safetensors").unwrap();
    let report = Report::new(&golden).finish();
    assert_eq!(report.failures.len(), golden.outputs().count() + 1, "every output, and that there was none");
    assert!(report.failures[0].contains("nothing computes it"), "{}", report.failures[0]);
}

/// The cases of `golden`, with every launch changed.
fn run_cases<'g>(golden: &'g Golden, change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>) -> Report<'g> {
    golden_cases::evaluate(golden, &mut golden_cases::Bench { kernels: &mut kernels(), change })
}

#[test]
fn a_case_of_an_unknown_kind_fails() {
    let mut golden = Golden::open(&own_folder(), "ops.safetensors").unwrap();
    golden.tensors.retain(|name, _| name.starts_with("mse."));
    let mse = std::mem::take(&mut golden.tensors);
    golden.tensors = mse.into_iter().map(|(name, tensor)| (name.replace("mse", "mystery"), tensor)).collect();
    let failures = run_cases(&golden, &|launch| launch).failures.join("\n");
    assert!(failures.contains("mystery: the case is of an unknown kind"), "{failures}");
    assert!(failures.contains("mystery: nothing was compared"), "{failures}");
}

/// Moves the first element of every reference out of its tolerance.
fn spoil(golden: &mut Golden) -> usize {
    let outputs: Vec<String> = golden.outputs().map(str::to_owned).collect();
    for name in &outputs {
        let atol = golden.tolerance(name).expect("an output has a tolerance").atol as f32;
        if let Some(tensor) = golden.tensors.get_mut(name) {
            tensor.data[0] += 3.0 * atol;
        }
    }
    outputs.len()
}

#[test]
fn every_golden_comparison_can_fail() {
    for file in ["ops.safetensors", "augment.safetensors", "evalcls.safetensors"] {
        let mut golden = Golden::open(&own_folder(), file).unwrap();
        let spoiled = spoil(&mut golden);
        assert_eq!(run_cases(&golden, &|launch| launch).failures.len(), spoiled, "{file}");
    }
    let mut golden = Golden::open(&own_folder(), "model_dropblock.safetensors").unwrap();
    let spoiled = spoil(&mut golden);
    assert_eq!(golden_models::training(&golden, &mut kernels()).failures.len(), spoiled);
    let mut golden = Golden::open(&own_folder(), "embed.safetensors").unwrap();
    let spoiled = spoil(&mut golden);
    assert_eq!(golden_models::embedding(&golden, &mut kernels()).failures.len(), spoiled);
}

#[test]
fn a_broken_launch_fails_its_golden_case() {
    let golden = Golden::open(&own_folder(), "ops.safetensors").unwrap();
    let one_less = |value| if let Scalar::U32(n) = value { Scalar::U32(n - 1) } else { value };
    let larger = |value| if let Scalar::F32(a) = value { Scalar::F32(a * 1.001) } else { value };
    for (entry, param, case) in [
        ("backward_weight_4", "w_out", "conv0.gw"),
        ("product", "inner", "linear0.y"),
        ("leaky_relu_backward", "n", "act.leaky_gx"),
    ] {
        let report = run_cases(&golden, &|launch| with_param(&launch, entry, param, one_less));
        assert!(report.failures.iter().any(|f| f.contains(case)), "{entry}: {}", report.failures.join("\n"));
    }
    for (entry, param, case) in [("running", "momentum", "bn2d_a.rv_after"), ("blend", "keep", "bank.after")] {
        let report = run_cases(&golden, &|launch| with_param(&launch, entry, param, larger));
        assert!(report.failures.iter().any(|f| f.contains(case)), "{entry}: {}", report.failures.join("\n"));
    }
}

#[test]
fn a_step_with_another_setting_fails_its_golden_file() {
    for (key, value, tensor) in [
        ("tau", "1.01", "loss.inv"),
        ("gamma", "0.99", "loss.total"),
        ("bank_rate", "0.98", "s1.bank"),
        ("lr", "0.06", "s1.classifier.weight"),
    ] {
        let mut golden = Golden::open(&own_folder(), "model_dropblock.safetensors").unwrap();
        golden.metadata.insert(key.to_owned(), value.to_owned());
        let report = golden_models::training(&golden, &mut kernels());
        assert!(report.failures.iter().any(|f| f.contains(tensor)), "{key}: {}", report.failures.join("\n"));
    }
}

// ------------------------------------------------------------------------------------ on the device

/// One device for all tests of this file, one at a time.
fn kernels() -> MutexGuard<'static, Kernels> {
    static KERNELS: OnceLock<Mutex<Kernels>> = OnceLock::new();
    let open = || {
        let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
        let gpu = Gpu::open(&Options { choice, ..Options::default() }).expect("a GPU test needs an adapter");
        Mutex::new(Kernels::new(gpu))
    };
    KERNELS.get_or_init(open).lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_changed(case: &Case, change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>) -> Outcome {
    check::run_changed(case, &mut kernels(), change).expect("the device runs the case")
}

/// Gives the parameter `name` of the launches of `entry` another value.
fn with_param(launch: &Launch<ValueId>, entry: &str, name: &str, f: impl Fn(Scalar) -> Scalar) -> Launch<ValueId> {
    let mut launch = launch.clone();
    if launch.entry == entry {
        launch.params.iter_mut().filter(|(n, _)| *n == name).for_each(|(_, v)| *v = f(*v));
    }
    launch
}

fn one_more(value: Scalar) -> Scalar {
    match value {
        Scalar::U32(n) => Scalar::U32(n + 1),
        other => other,
    }
}

/// 100 elements in 128 invocations: some have nothing to do.
fn elementwise() -> Vec<(Case, &'static str)> {
    let two = || vec![Input::normal([100]), Input::normal([100])];
    vec![
        (Case::new("canary", Scale { alpha: 1.0 }, vec![Input::normal([100])]), "scale"),
        (Case::new("canary", Add { alpha: 1.0, beta: 1.0 }, two()), "add"),
        (Case::new("canary", LeakyRelu { slope: 0.0 }, vec![Input::normal([100])]), "leaky_relu"),
        (Case::new("canary", LeakyRelu { slope: 0.1 }, vec![Input::normal([100])]), "leaky_relu_backward"),
    ]
}

#[test]
fn an_unchanged_launch_passes() {
    for (case, _) in elementwise() {
        let outcome = run_changed(&case, &|launch| launch);
        assert!(outcome.passed(), "{}: {} off by {:.1e}", outcome.name, outcome.worst, outcome.error);
    }
}

#[test]
fn a_store_past_the_end_fails() {
    for (case, entry) in elementwise() {
        let outcome = run_changed(&case, &|launch| with_param(&launch, entry, "n", one_more));
        assert!(!outcome.passed(), "{entry} wrote element 101 of 100 unnoticed");
        assert!(outcome.worst.contains("what follows"), "{entry}: {}", outcome.worst);
    }
}

#[test]
fn a_load_from_past_the_end_fails() {
    let case = Case::new(
        "canary",
        Matmul::new(false, false),
        vec![Input::normal([3, 5]), Input::constant([5, 7], Elements::Normal(0.0, 1.0))],
    );
    let outcome = run_changed(&case, &|launch| with_param(&launch, "product", "inner", one_more));
    assert!(!outcome.passed(), "the sum has a term more than the matrices have columns");
    assert!(outcome.error.is_nan(), "behind a tensor stands NaN, the error is {}", outcome.error);
}

#[test]
fn a_missing_tail_fails() {
    for (case, entry) in elementwise() {
        let outcome = run_changed(&case, &|launch| {
            with_param(&launch, entry, "n", |value| if let Scalar::U32(n) = value { Scalar::U32(n - 1) } else { value })
        });
        assert!(!outcome.passed(), "{entry} left the last element out unnoticed");
    }
}

#[test]
fn a_scaled_gradient_on_the_device_fails() {
    let case = Case::new("scaled", Add { alpha: 0.5, beta: 0.25 }, vec![Input::normal([100]), Input::normal([100])]);
    // `scale` runs in the backward pass only.
    let outcome = run_changed(&case, &|launch| {
        with_param(&launch, "scale", "alpha", |v| if let Scalar::F32(a) = v { Scalar::F32(a * 1.001) } else { v })
    });
    assert!(!outcome.passed(), "a gradient that is 0.1 % too large passed");
}

#[test]
fn swapped_inputs_on_the_device_fail() {
    let inputs = vec![Input::normal([100]), Input::constant([100], Elements::Uniform(-1.0, 1.0))];
    let case = Case::new("swapped", LeakyReluBackward { slope: 0.1 }, inputs);
    let outcome = run_changed(&case, &|launch| {
        let mut launch = launch;
        if let [(_, a), (_, b), ..] = &mut launch.bindings[..] {
            std::mem::swap(a, b);
        }
        launch
    });
    assert!(!outcome.passed(), "the kernel got its inputs the other way round unnoticed");
}

/// Kernels that one item too many does not harm, and why.
const HARMLESS: [(&str, &str); 4] = [
    ("bank", "blend"),            // the index behind the end is no row of the bank, and is skipped as such
    ("bank", "blend_or_replace"), // the same
    ("conv2d", "forward"),        // an item behind the end computes an item of the last image once more
    ("dropout", "count_kept"),    // NaN behind the end compares as not unequal to zero
];

#[test]
fn every_kernel_that_counts_to_n_is_caught_counting_further() {
    let counts =
        |launch: &Launch<ValueId>| launch.params.iter().any(|p| matches!(p, ("n", Scalar::U32(n)) if n % 64 != 0));
    let mut caught: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for case in check::cases() {
        let graph = case.graph().expect("the case's inputs fit its operation");
        let launches: Vec<_> = graph.nodes().iter().flat_map(|node| ops::launches(&graph, node)).collect();
        for launch in launches.iter().filter(|l| counts(l)) {
            let (shader, entry) = (launch.shader, launch.entry);
            let seen = caught.entry((shader, entry)).or_insert(false);
            if *seen {
                continue;
            }
            let outcome = run_changed(&case, &|l| {
                if (l.shader, l.entry) != (shader, entry) {
                    return l;
                }
                // A kernel with a workgroup for each item needs one more to get there.
                let mut further = with_param(&l, entry, "n", one_more);
                further.groups[0] += 1;
                further
            });
            *seen = !outcome.passed();
        }
    }
    let missed = caught.iter().filter(|(kernel, seen)| !**seen && !HARMLESS.contains(kernel));
    let missed: Vec<String> = missed.map(|((shader, entry), _)| format!("{shader}.{entry}")).collect();
    assert!(caught.len() > HARMLESS.len(), "no kernel was tried");
    assert!(missed.is_empty(), "one item too many goes unnoticed in {}", missed.join(", "));
}
