//! Proves: an evaluated image is untouched except for its normalisation; dropout draws what it should, when it
//! should; the same step gives the same bits.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ier::transforms::{Augmentation, TransformSet, ViewSampler};
use ieq_wgpu::ops::dropout::{Bernoulli, Probability, apply_given_mask, drop_block, dropout};
use ieq_wgpu::ops::elementwise::Fill;
use ieq_wgpu::ops::step_block::StepBlock;
use ieq_wgpu::ops::views::{PARAMETER_WORDS, Views, identity_words, pack_pixel};
use ieq_wgpu::random::{Stream, philox};
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Type, ValueId};

fn kernels() -> Kernels {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, default_limits: true, ..Options::default() })
        .expect("a GPU test needs an adapter");
    Kernels::new(gpu)
}

/// A graph of one output, run at several step blocks.
fn run(build: impl Fn(&mut Graph, ValueId) -> ValueId, blocks: &[[u32; StepBlock::WORDS]]) -> Vec<Vec<f32>> {
    let mut graph = Graph::new();
    let step = graph.input("step", StepBlock::ty());
    let y = build(&mut graph, step);
    graph.keep(y);
    let executor = Executor::new(&mut kernels(), &mut Arenas::new(), graph).unwrap();
    let run = |block: &[u32; StepBlock::WORDS]| {
        executor.write(step, block).unwrap();
        executor.submit().unwrap();
        executor.read(y).unwrap()
    };
    blocks.iter().map(run).collect()
}

fn ones(graph: &mut Graph, shape: &[usize]) -> ValueId {
    graph.one(Fill { value: 1.0, ty: Type::f32(shape) }, &[]).unwrap()
}

fn kept(y: &[f32]) -> f64 {
    y.iter().filter(|&&v| v != 0.0).count() as f64 / y.len() as f64
}

#[test]
fn dropout_keeps_its_rate_and_its_steps_apart() {
    let n = 200_000;
    let at = |step, seed| StepBlock::new(step, seed, 0.0, 0.0).words();
    let by = |layer| {
        run(
            |graph, step| {
                let x = ones(graph, &[n]);
                dropout(graph, x, step, layer, 0.1).unwrap()
            },
            &[at(0, 1), at(1, 1), at(0, 2), at(0, 1 << 32 | 1), at(0, 1)],
        )
    };
    let (first, second) = (by(0), by(1));
    assert_eq!(first[0], first[4], "the same step gives the same mask");
    for y in &first {
        // Five standard deviations of the rate.
        assert!((kept(y) - 0.9).abs() < 5.0 * (0.09 / n as f64).sqrt(), "keeps {}", kept(y));
        assert!(y.iter().all(|&v| v == 0.0 || v == 1.0 / 0.9));
    }
    let masks = [&first[0], &first[1], &first[2], &first[3], &second[0]];
    for (i, a) in masks.iter().enumerate() {
        for b in &masks[..i] {
            let same = a.iter().zip(*b).filter(|(x, y)| x == y).count() as f64 / n as f64;
            assert!((same - 0.82).abs() < 0.01, "independent masks agree in 0.82 of the places, these in {same}");
        }
    }
    let stored = run(
        |graph, step| {
            let (probability, shape) = (Probability::Constant(0.9), vec![n]);
            let mask = graph.one(Bernoulli { layer: 0, stream: Stream::Dropout, probability, shape }, &[step]).unwrap();
            let x = ones(graph, &[n]);
            apply_given_mask(graph, x, mask, 1.0 / 0.9).unwrap()
        },
        &[at(0, 1)],
    );
    assert_eq!(stored[0], first[0], "the mask that is stored is the mask that is not");
}

#[test]
fn drop_block_keeps_its_rate_and_the_mean() {
    for (side, block) in [(8, 2), (21, 5), (10, 5), (4, 2)] {
        let shape = [32, 40, side, side];
        let drops = [0.0, 0.05, 0.1, 1.0];
        let build = |graph: &mut Graph, step| {
            let x = ones(graph, &shape);
            drop_block(graph, x, step, 3, block).unwrap()
        };
        let runs = run(build, &drops.map(|drop| StepBlock::new(9, 4, 0.0, drop).words()));
        for (y, drop) in runs.iter().zip(drops) {
            // gamma is made for squares that do not overlap and maps without borders: the rate is near, not equal.
            let rate = 1.0 - kept(y);
            if drop < 1.0 {
                assert!((rate - f64::from(drop)).abs() < 0.35 * f64::from(drop) + 1e-9, "{side}: drops {rate}");
                let mean = y.iter().map(|&v| f64::from(v)).sum::<f64>() / y.len() as f64;
                assert!((mean - 1.0).abs() < 1e-5, "{side}: the mean moves to {mean}");
            }
            assert!(y.iter().all(|v| v.is_finite()));
        }
        assert!(runs[0].iter().all(|&v| v == 1.0), "nothing is dropped at rate 0");
    }
}

/// A map smaller than the block: the largest block that fits. All dropped: zeros, not NaN.
#[test]
fn drop_block_fits_small_maps() {
    for side in [1, 3] {
        let build = |graph: &mut Graph, step| {
            let x = ones(graph, &[4, 50, side, side]);
            drop_block(graph, x, step, 3, 5).unwrap()
        };
        let runs = run(build, &[0.1, 1.0].map(|drop| StepBlock::new(2, 4, 0.0, drop).words()));
        assert!((0.8..1.0).contains(&kept(&runs[0])), "keeps {}", kept(&runs[0]));
        for map in runs[0].chunks(side * side) {
            assert!(map.iter().all(|v| *v == map[0]), "a map goes whole");
        }
        assert!(runs[1].iter().all(|&v| v == 0.0));
    }
}

fn photographs(n: usize, side: usize) -> Vec<u32> {
    (0..n * side * side)
        .map(|i| philox([i as u32, 0, 0, 0], [1, 2])[0].to_le_bytes())
        .map(|[r, g, b, _]| pack_pixel([r, g, b]))
        .collect()
}

fn make_views(op: Views, images: &[u32], side: usize, index: &[u32], words: &[u32]) -> Vec<f32> {
    let mut graph = Graph::new();
    let pixels = graph.input("images", Type::u32([images.len() / (side * side), side, side]));
    let slots = graph.input("index", Type::u32([index.len()]));
    let parameters = graph.input("parameters", Type::u32([words.len() / PARAMETER_WORDS, PARAMETER_WORDS]));
    let x = graph.one(op, &[pixels, slots, parameters]).unwrap();
    graph.keep(x);
    let executor = Executor::new(&mut kernels(), &mut Arenas::new(), graph).unwrap();
    executor.write(pixels, images).unwrap();
    executor.write(slots, index).unwrap();
    executor.write(parameters, words).unwrap();
    let mut runs: Vec<Vec<f32>> = (0..2)
        .map(|_| {
            executor.submit().unwrap();
            executor.read(x).unwrap()
        })
        .collect();
    assert_eq!(runs[0], runs[1], "the same words give the same bits");
    runs.remove(0)
}

#[test]
fn an_evaluated_image_is_only_normalised() {
    let (side, index) = (32, [3, 0, 3, 1]);
    let images = photographs(4, side);
    let (mean, std) = ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]);
    let x = make_views(Views::plain(mean, std), &images, side, &index, &identity_words(side, 0, index.len()));
    for (i, got) in x.iter().enumerate() {
        let (slot, channel, pixel) = (i / (3 * side * side), i / (side * side) % 3, i % (side * side));
        let byte = images[index[slot] as usize * side * side + pixel].to_le_bytes()[channel];
        let want = (f32::from(byte) / 255.0 - mean[channel]) / std[channel];
        // WGSL lets a division err by 2.5 units in the last place.
        assert!((got - want).abs() <= 1e-6, "{i}: {got}, {want}");
    }
}

/// A row that is made alone, its rotation among its parameters, is the row that the full set has: the same bits.
#[test]
fn a_drawn_view_is_that_of_the_full_set() {
    let (side, padding, index) = (28, 3, [2, 1, 0, 4]);
    let images = photographs(5, side);
    let size = 3 * side * side;
    for set in ["rot4", "crop4", "rot4xcrop4", "affine-5"] {
        let set: TransformSet = set.parse().unwrap();
        let sampler = ViewSampler::new(set, side, padding, 11, Augmentation::default());
        let op =
            |views, rotations| Views { views, rotations, padding, float_images: false, mean: [0.5; 3], std: [0.25; 3] };
        let words = sampler.parameters(6, index.len());
        let full = make_views(op(set.views(), set.rotations()), &images, side, &index, &words);
        let rows: Vec<(usize, usize)> = (0..index.len())
            .flat_map(|slot| [0].into_iter().chain(sampler.further(6, slot, 3)).map(move |transform| (slot, transform)))
            .collect();
        let shown: Vec<u32> = rows.iter().map(|&(slot, _)| index[slot]).collect();
        let words: Vec<u32> = rows.iter().flat_map(|&(slot, m)| sampler.under(6, slot, m).words()).collect();
        let drawn = make_views(op(1, 1), &images, side, &shown, &words);
        for (row, &(slot, transform)) in drawn.chunks(size).zip(&rows) {
            let first = (transform * index.len() + slot) * size;
            assert!(row == &full[first..first + size], "{set}: slot {slot} under {transform}");
        }
    }
}

#[test]
fn every_set_makes_finite_views() {
    let (side, padding, index) = (28, 3, [2, 1, 0, 4, 4]);
    let images = photographs(5, side);
    for set in ["rot4", "crop4", "rot4xcrop4", "affine-5", "projective-6"] {
        let set: TransformSet = set.parse().unwrap();
        let sampler = ViewSampler::new(set, side, padding, 11, Augmentation::default());
        let op = Views {
            views: set.views(),
            rotations: set.rotations(),
            padding,
            float_images: false,
            mean: [0.5; 3],
            std: [0.25; 3],
        };
        let x = make_views(op, &images, side, &index, &sampler.parameters(3, index.len()));
        assert_eq!(x.len(), set.n_transforms() * index.len() * 3 * side * side);
        assert!(x.iter().all(|v| (-2.0..=2.0).contains(v)), "{set}");
        let row = 3 * side * side;
        for m in 1..set.n_transforms() {
            assert_ne!(x[..row], x[m * index.len() * row..][..row], "{set}: transform {m} is the first");
        }
    }
}
