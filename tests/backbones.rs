//! Backbones of any number of blocks train: each block halves the image, and everything else follows from the list of
//! widths.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ier::negatives::bank_init;
use ieq_wgpu::ier::spec::{StepInputs, StepSpec};
use ieq_wgpu::ier::step::{Step, record};
use ieq_wgpu::nn::{Drop, NetSpec};
use ieq_wgpu::ops::step_block::StepBlock;
use ieq_wgpu::settings::{Backbone, MethodConfig, OptimiserConfig};
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::passes::Passes;
use ieq_wgpu::tape::{Graph, Type};

const SIDE: usize = 32;

/// A step on the baseline's terms, or on all of them with two copies of each image.
fn spec(backbone: Backbone, widths: &[usize], cross_entropy: bool) -> StepSpec {
    let net = NetSpec { backbone, widths: widths.to_vec(), n_classes: 3, n_transforms: Some(2), projection: Some(4) };
    let mut method = MethodConfig::default();
    method.cross_entropy = cross_entropy;
    let mut optimiser = OptimiserConfig::default();
    (optimiser.momentum, optimiser.weight_decay) = (0.9, 0.1);
    StepSpec {
        net,
        batch: 2,
        parts: 1,
        exchanged: false,
        joined: false,
        copies: 2,
        viewed: 2,
        drawn: false,
        class_rotations: 1,
        bank_rows: 9,
        negatives: 3,
        method,
        optimiser,
        distill: None,
    }
}

/// The losses and the parameters before and after a step.
fn step(kernels: &mut Kernels, spec: &StepSpec) -> (Step, Graph, Vec<f32>, [Vec<f32>; 2]) {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([spec.rows(), 3, SIDE, SIDE]));
    let block = graph.input("step", StepBlock::ty());
    let index = graph.input("index", Type::u32([spec.images()]));
    let inputs = StepInputs::declare(&mut graph, spec, x, block, index);
    let drop = Drop::Random { step: block, dropout: 0.2, block: 2 };
    let step = record(&mut graph, spec, inputs, &drop).unwrap();
    Passes::FUSE.apply(&mut graph).unwrap();
    let ex = Executor::new(kernels, &mut Arenas::new(), graph).unwrap();
    for (position, entry) in step.parameters.iter().chain(&step.statistics).enumerate() {
        ex.write(entry.value, &entry.initial(3, position)).unwrap();
    }
    step.rates.iter().for_each(|rates| ex.write(rates.value, &rates.table()).unwrap());
    let inputs = &step.inputs;
    ex.write(inputs.bank, &bank_init(5, spec.bank_rows, 4)).unwrap();
    ex.write(inputs.negatives, &[4_u32, 5, 6]).unwrap();
    ex.write(inputs.transforms, &[0_u32, 0, 1, 1]).unwrap();
    ex.write(inputs.classes, &[0_u32, 2, 0, 2]).unwrap();
    ex.write(inputs.index, &[1_u32, 3]).unwrap();
    let pixels: Vec<f32> = (0..spec.rows() * 3 * SIDE * SIDE).map(|i| (i as f32 * 0.7).sin()).collect();
    ex.write(inputs.x, &pixels).unwrap();
    ex.write(inputs.step, &StepBlock::new(0, 1, 0.05, 0.1).words()).unwrap();
    let before = ex.read(step.flat.parameters).unwrap();
    ex.submit().unwrap();
    let losses = step.losses.iter().map(|(_, id)| ex.read::<f32>(*id).unwrap()[0]).collect();
    assert_eq!(ex.read::<u32>(step.health).unwrap()[0], 0, "the device saw only finite numbers");
    let after = ex.read(step.flat.parameters).unwrap();
    let graph = ex.graph().clone();
    (step, graph, losses, [before, after])
}

fn kernels() -> Kernels {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Kernels::new(Gpu::open(&Options { choice, ..Options::default() }).unwrap())
}

#[test]
fn a_backbone_has_as_many_blocks_as_widths() {
    let mut kernels = kernels();
    for backbone in [Backbone::Resnet12, Backbone::Conv4] {
        for widths in [&[4, 6][..], &[4, 6, 8], &[4, 4, 6, 6, 8]] {
            let (step, graph, losses, [before, after]) = step(&mut kernels, &spec(backbone, widths, true));
            assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{backbone:?} {widths:?}: {losses:?}");
            for (b, (&width, &map)) in widths.iter().zip(&step.maps).enumerate() {
                assert_eq!(graph.shape(map)[1..], [width, SIDE >> (b + 1), SIDE >> (b + 1)]);
                assert!(step.parameters.iter().any(|entry| entry.name.starts_with(&format!("layer{}.", b + 1))));
            }
            assert_eq!(step.maps.len(), widths.len());
            assert!(!step.parameters.iter().any(|e| e.name.starts_with(&format!("layer{}.", widths.len() + 1))));
            // Dropout in the first half of the blocks, DropBlock in the rest.
            let count = |name: &str| graph.nodes().iter().filter(|n| n.op.operation().name() == name).count();
            assert_eq!(count("dropout.block_keep"), widths.len() - widths.len() / 2, "{widths:?}");
            let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            assert!(moved * 5 > before.len(), "{moved} of {} parameters and their padding moved", before.len());
        }
    }
    let none = spec(Backbone::Conv4, &[], true);
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32([none.rows(), 3, SIDE, SIDE]));
    let block = graph.input("step", StepBlock::ty());
    let index = graph.input("index", Type::u32([none.images()]));
    let inputs = StepInputs::declare(&mut graph, &none, x, block, index);
    assert!(record(&mut graph, &none, inputs, &Drop::Off).unwrap_err().to_string().contains("at least one block"));
}

/// As PyTorch's SGD, which leaves out what has no gradient.
#[test]
fn what_has_no_gradient_does_not_decay() {
    let mut kernels = kernels();
    for cross_entropy in [true, false] {
        let (step, graph, _, [before, after]) = step(&mut kernels, &spec(Backbone::Conv4, &[4, 6], cross_entropy));
        let updates = graph.nodes().iter().filter(|node| node.op.operation().name() == "sgd.step").count();
        assert_eq!(updates, if cross_entropy { 1 } else { 2 }, "one dispatch where all parameters are trained");
        for entry in &step.parameters {
            let first = match &graph.value(entry.value).storage {
                ieq_wgpu::tape::Storage::Arena { offset, .. } => *offset as usize / 4,
                ieq_wgpu::tape::Storage::Transient => unreachable!(),
            };
            let range = first..first + entry.shape.iter().product::<usize>();
            let stays = entry.name.starts_with("classifier") && !cross_entropy;
            // Biases in front of a batch norm have gradients of 0 and start at 0 or not.
            if stays {
                assert_eq!(before[range.clone()], after[range], "{}", entry.name);
            } else if entry.name.ends_with("weight") {
                assert_ne!(before[range.clone()], after[range], "{}", entry.name);
            }
        }
    }
}
