//! Products on units that multiply matrices of half precision (`run.matrix`). Where the adapter has such units they are
//! tested, else the kernels that compute the same by ordinary arithmetic.

#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a test reports its adapter and its measured errors")]

#[path = "common/program.rs"]
mod program;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, ImageSet, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::matrix_unit::MatrixUnit;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::Op;
use ieq_wgpu::ops::check::find_matrix_unit;
use ieq_wgpu::ops::clip::{ClipNorm, GlobalNorm};
use ieq_wgpu::ops::conv2d::{Algorithm, Conv2d, Conv2dBackwardInput, Conv2dBackwardWeight};
use ieq_wgpu::ops::elements::Elements;
use ieq_wgpu::ops::factors::Factors;
use ieq_wgpu::ops::matmul::Matmul;
use ieq_wgpu::ops::scale::Scale;
use ieq_wgpu::random::{Rng, Stream};
use ieq_wgpu::settings::{Activations, BatchStatistics, Config, Matrix};
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::matrix::use_matrix;
use ieq_wgpu::tape::{Graph, Type, ValueId, twin};
use ieq_wgpu::train::Trainer;
use ieq_wgpu::train::checkpoint::TensorData;

/// Kernels with a unit of the adapter, or the ordinary arithmetic that stands for one.
fn kernels() -> Kernels {
    kernels_with(None)
}

/// The same on a device whose bindings hold no more; the unit is tried without that limit.
fn kernels_with(max_binding: Option<u64>) -> Kernels {
    let open = |max_binding| {
        let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
        Kernels::new(Gpu::open(&Options { choice, matrix_units: true, max_binding, ..Options::default() }).unwrap())
    };
    let found = find_matrix_unit(&mut open(None)).unwrap();
    let mut kernels = open(max_binding);
    eprintln!("adapter: {}, {found:?}", kernels.gpu().describe());
    kernels.use_matrix_unit(Some(found.right.unwrap_or(MatrixUnit::SCALAR)));
    kernels
}

/// Normal numbers of one size, and a few that are a million times smaller.
fn numbers(n: usize, sd: f64, seed: u32) -> Vec<f64> {
    let mut rng = Rng::new(7, Stream::Order, seed, 0);
    let mut values = Elements::Normal(0.0, sd).make(n, &mut rng);
    values.iter_mut().step_by(17).for_each(|v| *v *= 1e-6);
    values.into_iter().map(|v| f64::from(v as f32)).collect()
}

/// An operation on two factors, in f32.
struct Product {
    op: Op,
    factors: [Vec<usize>; 2],
}

/// What a device makes of a product, and its largest error as a share of the largest element.
fn error(kernels: &mut Kernels, product: &Product, sizes: [f64; 2], factors: Option<Factors>) -> f64 {
    let mut graph = Graph::new();
    let ids: Vec<ValueId> = (0..2)
        .map(|i| graph.in_arena(&format!("factor {i}"), "factor", Type::f32(product.factors[i].clone()), false))
        .collect();
    let y = graph.one(product.op.clone(), &ids).unwrap();
    graph.keep(y);
    if let Some(factors) = factors {
        let before = graph.nodes().len();
        use_matrix(&mut graph, factors, 1).unwrap();
        assert_eq!(graph.nodes().len(), before + 2, "a scale for each factor");
    }
    let mut values: HashMap<ValueId, Vec<f64>> =
        ids.iter().zip(sizes).map(|(&id, sd)| (id, numbers(graph.value(id).ty.len(), sd, id.index() as u32))).collect();
    let executor = Executor::new(kernels, &mut Arenas::new(), graph.clone()).unwrap();
    ids.iter().for_each(|id| executor.write_f64(*id, &values[id]).unwrap());
    twin::run(&graph, &mut values).unwrap();
    executor.submit().unwrap();
    let (got, wanted) = (executor.read_f64(y).unwrap(), &values[&y]);
    let scale = wanted.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    assert!(scale > 0.0 && got.iter().all(|v| v.is_finite()), "{:?}", product.op);
    got.iter().zip(wanted).fold(0.0, |most, (a, b)| f64::max(most, (a - b).abs())) / scale
}

fn products() -> Vec<Product> {
    let algorithm = Algorithm::Direct;
    let (x, dy, weight) = (vec![4, 96, 10, 10], vec![4, 80, 10, 10], vec![80, 96, 3, 3]);
    let of_input = Conv2dBackwardInput { stride: 1, padding: 1, h: 10, w: 10, algorithm };
    let of_weight = Conv2dBackwardWeight { stride: 1, padding: 1, k_h: 3, k_w: 3, slope: None, algorithm };
    vec![
        Product { op: Conv2d::new(1, 1).into(), factors: [x.clone(), weight.clone()] },
        Product { op: of_input.into(), factors: [dy.clone(), weight] },
        Product { op: of_weight.into(), factors: [x, dy] },
        Product { op: Conv2d::new(1, 0).into(), factors: [vec![8, 320, 5, 5], vec![70, 320, 1, 1]] },
        Product { op: Matmul::new(false, true).into(), factors: [vec![130, 640], vec![67, 640]] },
    ]
}

/// Two parts of a factor hold 22 bits: the error is that of f32, of factors as small as gradients, too.
#[test]
fn factors_in_two_parts_err_no_more_than_twice_as_f32_does() {
    let mut kernels = kernels();
    for product in products() {
        for sizes in [[1.0, 1.0], [3.0, 1e-12], [1e-12, 0.02], [1e15, 1e-18]] {
            let plain = error(&mut kernels, &product, sizes, None);
            let parts = error(&mut kernels, &product, sizes, Some(Factors::F32x3));
            let half = error(&mut kernels, &product, sizes, Some(Factors::F16));
            eprintln!("{:?} {sizes:?}: f32 {plain:.1e}, f32x3 {parts:.1e}, f16 {half:.1e}", product.op);
            assert!(parts <= 2.0 * plain, "{:?} {sizes:?}: {parts:.1e}, f32 {plain:.1e}", product.op);
            assert!(half <= 2_f64.powi(-10) && half > 10.0 * plain, "{:?} {sizes:?}: {half:.1e}", product.op);
        }
    }
}

/// A demo that is wide enough for units.
fn wide(matrix: Matrix) -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.widths = vec![8, 32, 32, 40];
    config.optimiser.batch = 4;
    config.run.matrix = matrix;
    config
}

fn glyphs(config: &Config) -> Arc<ImageSet> {
    Arc::new(load("glyphs", Split::Train, &DataOptions { side: config.data.side, ..DataOptions::default() }).unwrap())
}

fn count<T: ieq_wgpu::ops::Operation>(trainer: &Trainer, is: impl Fn(&T) -> bool) -> usize {
    let nodes = trainer.executor().graph().nodes();
    nodes.iter().filter(|node| node.op.downcast_ref::<T>().is_some_and(&is)).count()
}

/// The same step on units and without: other roundings, the same numbers. What two operations read has one scale.
#[test]
fn a_step_on_units_agrees_with_one_without() {
    let kernels = kernels();
    let data = glyphs(&wide(Matrix::Off));
    let gradients = |matrix| {
        let mut trainer = Trainer::new(kernels.clone(), &wide(matrix), data.clone(), None).unwrap();
        trainer.submit().unwrap();
        let matrix = |algorithm: Algorithm| matches!(algorithm, Algorithm::Matrix(_));
        let forward = count(&trainer, |op: &Conv2d| matrix(op.algorithm));
        let input = count(&trainer, |op: &Conv2dBackwardInput| matrix(op.algorithm));
        let weight = count(&trainer, |op: &Conv2dBackwardWeight| matrix(op.algorithm));
        let scales = count(&trainer, |_: &Scale| true);
        ([forward, input, weight, scales], trainer.executor().read_arena("gradients").unwrap())
    };
    let (none, plain) = gradients(Matrix::Off);
    assert_eq!(none, [0; 4]);
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let size = norm(&mut plain.iter().copied());
    let mut errors = Vec::new();
    // Rounding by 2^-10 moves the largest of four or the sign of one element in a thousand to another, whose gradient is then
    // another altogether: 2^-5 by norm, and there are four such layers.
    for (matrix, allowed) in [(Matrix::F32x3, 1e-5), (Matrix::F16, 2_f64.powi(-4))] {
        let (counts, own) = gradients(matrix);
        let [forward, input, weight, scales] = counts;
        assert!(forward >= 8 && input == forward && weight == forward, "{counts:?}");
        // Each product has two factors; weights are read twice, and so are most maps and their gradients.
        assert!(scales < 4 * forward, "{counts:?}");
        let error = norm(&mut plain.iter().zip(&own).map(|(a, b)| a - b)) / size;
        assert!(own.len() == plain.len() && error <= allowed && error > 0.0, "{matrix}: off by {error}");
        errors.push(error);
    }
    eprintln!("gradients differ by {errors:?}");
    assert!(errors[1] > 4.0 * errors[0], "{errors:?}");
}

#[test]
fn a_run_on_units_goes_on_bit_for_bit() {
    let kernels = kernels();
    let config = wide(Matrix::F32x3);
    let data = glyphs(&config);
    let start = || Trainer::new(kernels.clone(), &config, data.clone(), None).unwrap();
    let steps = |trainer: &mut Trainer, n: usize| {
        (0..n).for_each(|_| drop(trainer.submit().unwrap()));
        trainer.checkpoint().unwrap()
    };
    let mut whole = start();
    let half = steps(&mut whole, 2);
    let end = steps(&mut whole, 2);
    let mut resumed = start();
    resumed.restore(Path::new("half"), &half).unwrap();
    assert!(steps(&mut resumed, 2).tensors == end.tensors);
    // Another arithmetic is another run.
    let mut other = Trainer::new(kernels.clone(), &wide(Matrix::Off), data.clone(), None).unwrap();
    let error = other.restore(Path::new("half"), &half).unwrap_err().to_string();
    assert!(error.contains("run.matrix") && error.contains("f32x3"), "{error}");
}

/// A device decides what `auto` is; what it cannot do is refused before anything is computed.
#[test]
fn what_a_device_cannot_do_is_a_sentence() {
    let mut kernels = kernels();
    let data = glyphs(&wide(Matrix::Off));
    let auto = Trainer::new(kernels.clone(), &wide(Matrix::Auto), data.clone(), None).unwrap();
    assert_eq!(auto.fitted().config.run.matrix, Matrix::F32x3);
    kernels.use_matrix_unit(None);
    let auto = Trainer::new(kernels.clone(), &wide(Matrix::Auto), data.clone(), None).unwrap();
    assert_eq!(auto.fitted().config.run.matrix, Matrix::Off);
    for matrix in [Matrix::F16, Matrix::F32x3] {
        let error = Trainer::new(kernels.clone(), &wide(matrix), data.clone(), None).err().unwrap().to_string();
        assert!(error.contains("no matrix unit") && error.contains("run.matrix"), "{error}");
    }
}

/// A value that changes between two products has two scales, under whatever name it is written; one that stays has one.
#[test]
fn a_factor_that_changes_is_scaled_anew() {
    let mut graph = Graph::new();
    let x = graph.in_arena("x", "x", Type::f32([64, 64]), false);
    let w = graph.in_arena("weights", "w", Type::f32([64, 64]), false);
    let whole = graph.whole_arena("weights");
    let first = graph.one(Matmul::new(false, false), &[x, w]).unwrap();
    let norm = graph.one(GlobalNorm, &[whole]).unwrap();
    graph.update(ClipNorm { most: 1e-3 }, &[norm], &[whole]).unwrap();
    let second = graph.one(Matmul::new(false, true), &[x, w]).unwrap();
    let third = graph.one(Matmul::new(true, false), &[x, w]).unwrap();
    [first, second, third].iter().for_each(|&id| graph.keep(id));
    use_matrix(&mut graph, Factors::F32x3, 1).unwrap();
    let scales = graph.nodes().iter().filter(|node| node.op.downcast_ref::<Scale>().is_some());
    assert_eq!(scales.map(|node| node.inputs[0]).collect::<Vec<_>>(), [x, w, w]);
    let mut values = HashMap::from([(x, numbers(64 * 64, 1.0, 1)), (w, numbers(64 * 64, 50.0, 2))]);
    let executor = Executor::new(&mut kernels(), &mut Arenas::new(), graph.clone()).unwrap();
    [x, w].iter().for_each(|id| executor.write_f64(*id, &values[id]).unwrap());
    executor.submit().unwrap();
    // The twin knows a value by one name alone.
    let size = values[&w].iter().map(|v| v * v).sum::<f64>().sqrt();
    values.get_mut(&w).unwrap().iter_mut().for_each(|v| *v *= 1e-3 / size);
    for (id, transposed) in [(second, [false, true]), (third, [true, false])] {
        let mut alone = Graph::new();
        let [a, b] = ["a", "b"].map(|name| alone.in_arena(name, name, Type::f32([64, 64]), false));
        let y = alone.one(Matmul::new(transposed[0], transposed[1]), &[a, b]).unwrap();
        let mut wanted = HashMap::from([(a, values[&x].clone()), (b, values[&w].clone())]);
        twin::run(&alone, &mut wanted).unwrap();
        let (got, wanted) = (executor.read_f64(id).unwrap(), &wanted[&y]);
        let scale = wanted.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
        assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 2e-6 * scale), "{transposed:?}");
    }
}

/// What makes a step another one.
type Change = fn(&mut Config);

/// What a step may have besides: each agrees with the same step without units, whose gradients are kept for it.
#[test]
fn units_go_with_everything_that_a_step_has() {
    let kernels = kernels();
    let data = glyphs(&wide(Matrix::Off));
    let changes: [(&str, Change); 4] = [
        ("half precision", |config| config.run.activations = Activations::F16),
        ("computed again", |config| config.run.recompute = 6),
        ("micro-batches", |config| {
            (config.run.micro_batch, config.run.batch_norm) = (Some(2), BatchStatistics::Micro);
        }),
        ("the statistics of all micro-batches", |config| config.run.micro_batch = Some(2)),
    ];
    for (what, change) in changes {
        let gradients = |matrix| {
            let mut config = wide(matrix);
            change(&mut config);
            let mut trainer = Trainer::new(kernels.clone(), &config, data.clone(), None).unwrap();
            assert!(matrix == Matrix::Off || count(&trainer, |_: &Scale| true) > 8, "{what}");
            trainer.submit().unwrap();
            trainer.checkpoint().unwrap().tensors
        };
        let (plain, own) = (gradients(Matrix::Off), gradients(Matrix::F32x3));
        let (mut off, mut size) = (0.0, 0.0);
        for (name, tensor) in plain.iter().filter(|(name, _)| name.contains("momentum.")) {
            let (TensorData::F32(plain), TensorData::F32(own)) = (&tensor.data, &own[name].data) else { continue };
            for (a, b) in plain.iter().zip(own) {
                (off, size) = (off + f64::from(a - b).powi(2), size + f64::from(*a).powi(2));
            }
        }
        let error = (off / size).sqrt();
        eprintln!("{what}: {error:.1e}");
        // Halves that round to another neighbour differ by 2^-11, each.
        let allowed = if what == "half precision" { 1e-2 } else { 1e-5 };
        assert!(size > 0.0 && error <= allowed, "{what}: {error:.1e}");
    }
}

/// Scales, and sums of weight gradients, are made in parts where a tensor is larger than a binding: the same bits.
#[test]
fn products_of_tensors_larger_than_a_binding_are_computed_in_slices() {
    let run = |max_binding: Option<u64>| {
        let mut kernels = kernels_with(max_binding);
        let mut graph = Graph::new();
        let x = graph.in_arena("x", "x", Type::f32([64, 3, 8, 8]), true);
        let w = graph.in_arena("w", "w", Type::f32([8, 3, 3, 3]), true);
        let dy = graph.in_arena("dy", "dy", Type::f32([64, 8, 8, 8]), false);
        let y = graph.one(Conv2d::new(1, 1), &[x, w]).unwrap();
        let gradients = backward_from(&mut graph, &[(y, dy)]).unwrap();
        let seen = [y, gradients[&x], gradients[&w]];
        seen.iter().for_each(|&id| graph.keep(id));
        use_matrix(&mut graph, Factors::F32x3, 1).unwrap();
        let executor = Executor::new(&mut kernels, &mut Arenas::new(), graph).unwrap();
        for id in [x, w, dy] {
            executor.write_f64(id, &numbers(executor.graph().value(id).ty.len(), 1.0, id.index() as u32)).unwrap();
        }
        executor.submit().unwrap();
        (executor.dispatches(), seen.map(|id| executor.read::<f32>(id).unwrap()))
    };
    let (few, whole) = run(None);
    // y has 131,072 bytes.
    let (many, cut) = run(Some(40 << 10));
    assert!(many > few + 4, "{many} dispatches, {few} without a limit");
    assert!(whole == cut && whole.iter().all(|t| t.iter().any(|v| *v != 0.0)));
}

/// The program says what the device lacks, and the way out is one.
#[test]
fn the_program_says_what_a_device_lacks() {
    let lacks = kernels().matrix_unit() == Some(MatrixUnit::SCALAR);
    let folder = tempfile::tempdir().unwrap();
    let train =
        "train --no-eval --preset demo --widths 4,4,4,4 --method baseline --batch 4 --steps 1 --overwrite --out run";
    let auto = program::succeeds(folder.path(), &format!("{train} --matrix auto"));
    assert!(
        program::stderr(&auto).contains("--matrix off (run.matrix)")
            || program::stderr(&auto).contains("matrix units of")
    );
    if lacks {
        let advice = ["--matrix (run.matrix)", "has no matrix units", "--matrix off"];
        program::fails(folder.path(), &format!("{train} --matrix f16"), 2, &advice);
        program::succeeds(folder.path(), &format!("{train} --matrix off"));
        let bench = "bench --shapes matmul:64x64x64 --check-only";
        program::fails(folder.path(), &format!("{bench} --matrix f32x3"), 2, &advice);
    } else {
        program::succeeds(folder.path(), &format!("{train} --matrix f16"));
        let bench = program::succeeds(folder.path(), "bench --shapes matmul:64x64x64 --check-only --matrix f32x3");
        assert!(String::from_utf8_lossy(&bench.stdout).contains("matrix f32x3"));
    }
}
