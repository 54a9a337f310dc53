//! The checkers must fail on what they exist to find: a number that is not finite, swapped tensors, a wrong
//! length, a scaled gradient, a store past the end of a tensor.

#[allow(dead_code, reason = "only the comparison is tested here")]
#[path = "common/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock};

use golden::{Tolerance, compare};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, Launch, Scalar, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops;
use ieq_wgpu::ops::check::{self, Case, Fill, Input, Outcome};
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
    let outcome = |error| Outcome { name: String::new(), error, tolerance: 1e-6, worst: String::new() };
    assert!(outcome(0.0).passed() && outcome(1e-6).passed());
    for error in [1.1e-6, f64::INFINITY, f64::NAN, -f64::NAN] {
        assert!(!outcome(error).passed(), "{error} passed");
    }
    assert!(!Outcome { tolerance: f64::NAN, ..outcome(0.0) }.passed(), "a tolerance of NaN allows nothing");
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
        Matmul { trans_a: false, trans_b: false },
        vec![Input::normal([3, 5]), Input::constant([5, 7], Fill::Normal(0.0, 1.0))],
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
    let inputs = vec![Input::normal([100]), Input::constant([100], Fill::Uniform(-1.0, 1.0))];
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
const HARMLESS: [(&str, &str); 3] = [
    ("bank", "blend"),         // the index behind the end is no row of the bank, and is skipped as such
    ("conv2d", "forward"),     // an item behind the end computes an item of the last image once more
    ("dropout", "count_kept"), // NaN behind the end compares as not unequal to zero
];

#[test]
fn every_kernel_that_counts_to_n_is_caught_counting_further() {
    let counts =
        |launch: &Launch<ValueId>| launch.params.iter().any(|p| matches!(p, ("n", Scalar::U32(n)) if n % 64 != 0));
    let mut caught: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for case in check::cases() {
        let graph = case.graph().expect("the case's inputs fit its operation");
        let launches: Vec<_> = graph.nodes.iter().flat_map(|node| ops::launches(&graph, node)).collect();
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
