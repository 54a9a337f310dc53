//! What the losses do where numbers are not ordinary: NaN, labels out of range, rows of zeros, a tiny
//! temperature.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ier::losses::{self, Contrast};
use ieq_wgpu::ops::health::{self, HealthCheck};
use ieq_wgpu::ops::softmax_xent::CrossEntropy;
use ieq_wgpu::tape::backward::backward;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Type};

fn kernels() -> Kernels {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Kernels::new(
        Gpu::open(&Options { choice, default_limits: true, ..Options::default() })
            .expect("a GPU test needs an adapter"),
    )
}

/// The health bits after a cross-entropy of two rows of three.
fn health_of(kernels: &mut Kernels, logits: [f32; 6], targets: [u32; 2]) -> u32 {
    let mut graph = Graph::new();
    let x = graph.input("logits", Type::f32([2, 3]));
    let t = graph.input("targets", Type::u32([2]));
    let state = graph.input("health", Type::u32([health::WORDS]));
    let loss = losses::cross_entropy(&mut graph, x, t).unwrap();
    graph.update(HealthCheck { bit: health::LOSS }, &[loss], &[state]).unwrap();
    let executor = Executor::new(kernels, &mut Arenas::new(), graph).unwrap();
    executor.write(x, &logits).unwrap();
    executor.write(t, &targets).unwrap();
    executor.submit().unwrap();
    executor.read::<u32>(state).unwrap()[0]
}

#[test]
fn a_bad_logit_or_label_raises_the_loss_bit() {
    let mut kernels = kernels();
    let raised = 1 << health::LOSS;
    assert_eq!(health_of(&mut kernels, [1.0, 2.0, 3.0, -1e4, 1e4, 0.0], [0, 2]), 0);
    for odd in [f32::NAN, f32::INFINITY] {
        for place in 0..6 {
            let mut logits = [0.5; 6];
            logits[place] = odd;
            assert_eq!(health_of(&mut kernels, logits, [0, 2]), raised, "{odd} at {place}");
        }
    }
    for label in [3, 4, 1000, u32::MAX] {
        assert_eq!(health_of(&mut kernels, [0.5; 6], [0, label]), raised, "label {label}");
    }
}

/// A single class has no target but 0; 1 is beyond the columns as any other is.
#[test]
fn a_label_beyond_a_single_column_is_an_infinite_loss() {
    let mut graph = Graph::new();
    let x = graph.input("logits", Type::f32([3, 1]));
    let t = graph.input("targets", Type::u32([3]));
    let loss = graph.one(CrossEntropy::default(), &[x, t]).unwrap();
    graph.keep(loss);
    let executor = Executor::new(&mut kernels(), &mut Arenas::new(), graph).unwrap();
    executor.write(x, &[0.5_f32; 3]).unwrap();
    executor.write(t, &[0_u32, 1, 2]).unwrap();
    executor.submit().unwrap();
    assert_eq!(executor.read::<f32>(loss).unwrap(), [0.0, f32::INFINITY, f32::INFINITY]);
}

/// All views of four images.
fn contrast_of(tau: f32) -> Contrast {
    Contrast { tau, viewed: 4, counted: None }
}

/// Loss and gradient of four images under two transforms, all embeddings `z` and all others `other`.
fn contrast(kernels: &mut Kernels, z: f32, other: f32, tau: f32) -> (f32, Vec<f32>) {
    let mut graph = Graph::new();
    let rows = graph.in_arena("z", "z", Type::f32([8, 16]), true);
    let bank = graph.input("bank", Type::f32([4, 16]));
    let negatives = graph.input("negatives", Type::f32([100, 16]));
    let loss = losses::contrastive_loss(&mut graph, rows, bank, negatives, &contrast_of(tau)).unwrap();
    let gradient = backward(&mut graph, loss).unwrap()[&rows];
    graph.keep(loss);
    graph.keep(gradient);
    let executor = Executor::new(kernels, &mut Arenas::new(), graph).unwrap();
    executor.write(rows, &[z; 8 * 16]).unwrap();
    executor.write(bank, &[other; 4 * 16]).unwrap();
    executor.write(negatives, &[other; 100 * 16]).unwrap();
    executor.submit().unwrap();
    (executor.read(loss).unwrap()[0], executor.read(gradient).unwrap())
}

#[test]
fn the_contrastive_loss_is_finite_where_it_collapses() {
    let mut kernels = kernels();
    for tau in [1.0, 0.07, 0.01, 1e-3] {
        for (z, other) in [(0.0, 1.0), (1.0, 1.0), (1.0, -1.0), (0.0, 0.0), (1e-20, 1.0)] {
            let (loss, gradient) = contrast(&mut kernels, z, other, tau);
            assert!(loss.is_finite(), "loss {loss} for z {z}, others {other}, tau {tau}");
            assert!(gradient.iter().all(|g| g.is_finite()), "gradient for z {z}, others {other}, tau {tau}");
        }
        // All alike: one positive among a hundred equal negatives. Dividing by tau enlarges the rounding of
        // the products, 2^-24.
        let (loss, _) = contrast(&mut kernels, 1.0, 1.0, tau);
        assert!((loss - 101_f32.ln()).abs() < 1e-6 + 5e-7 / tau, "{loss} at tau {tau}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused_with_a_sentence() {
    let mut graph = Graph::new();
    let logits = graph.input("logits", Type::f32([4, 3]));
    let floats = graph.input("floats", Type::f32([4]));
    let few = graph.input("few", Type::u32([3]));
    let z = graph.input("z", Type::f32([9, 3]));
    let messages = [
        losses::cross_entropy(&mut graph, logits, floats),
        losses::cross_entropy(&mut graph, logits, few),
        losses::contrastive_loss(&mut graph, z, logits, logits, &contrast_of(1.0)),
        losses::contrastive_loss(&mut graph, logits, logits, logits, &contrast_of(0.0)),
        losses::kl_divergence(&mut graph, logits, z, 4.0),
        losses::kl_divergence(&mut graph, logits, logits, f32::NAN),
        losses::mean_squared_error(&mut graph, logits, floats),
    ]
    .map(|outcome| outcome.unwrap_err().to_string());
    for (message, wanted) in messages.iter().zip([
        "the targets must hold u32, not f32",
        "the list of targets has shape [3], it must be [4]",
        "9 embeddings are not a whole number of batches of 4",
        "the temperature must be > 0, got 0",
        "the teacher has shape [9, 3], it must be [4, 3]",
        "the temperature must be > 0, got NaN",
        "the teacher has shape [4], it must be [4, 3]",
    ]) {
        assert!(message.contains(wanted), "{message:?} does not say {wanted:?}");
    }
}
