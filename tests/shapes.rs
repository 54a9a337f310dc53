//! Every operation refuses what it cannot compute with: another number of inputs, other elements, other axes, a size of
//! 0 or one that no shader can index. An error, never a panic, whoever calls the shape rule.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ieq_wgpu::Error;
use ieq_wgpu::ops::batch_norm::{BatchNorm, BatchNormRunning};
use ieq_wgpu::ops::check;
use ieq_wgpu::ops::conv2d::{Algorithm, Conv2d, Conv2dBackwardInput};
use ieq_wgpu::ops::elementwise::{Fill, Reshape};
use ieq_wgpu::ops::pool::GlobalAveragePoolBackward;
use ieq_wgpu::ops::reduce::MeanBackward;
use ieq_wgpu::ops::views::Views;
use ieq_wgpu::ops::{Op, dropout};
use ieq_wgpu::tape::{Element, Graph, Type};

/// Every operation that a case has, forward or backward, with inputs that fit it, under its name and number of inputs.
fn operations() -> BTreeMap<(&'static str, usize), (Op, Vec<Type>)> {
    let mut found = BTreeMap::new();
    for case in check::cases() {
        let graph = case.graph().unwrap();
        for node in graph.nodes() {
            let operation = node.op.operation();
            let targets: &[_] = if operation.in_place() { &node.outputs } else { &[] };
            let types: Vec<Type> = node.inputs.iter().chain(targets).map(|&id| graph.value(id).ty.clone()).collect();
            found.entry((operation.name(), types.len())).or_insert_with(|| (node.op.clone(), types));
        }
    }
    found
}

/// The operations that the sources in a folder implement.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(names(&path));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let named = text.lines().filter_map(|line| line.strip_prefix("impl Operation for ")?.strip_suffix(" {"));
            found.extend(named.map(String::from));
        }
    }
    found
}

/// Fails unless the operation refuses the inputs, by itself and in a graph.
fn refused(op: &Op, inputs: &[Type], what: &str) {
    let name = op.operation().name();
    let own = catch_unwind(AssertUnwindSafe(|| op.operation().outputs(inputs)));
    let whole = catch_unwind(AssertUnwindSafe(|| op.outputs(inputs)));
    for (rule, result) in [("its shape rule", own), ("Op::outputs", whole)] {
        match result {
            Ok(Err(Error::Shape { op, message })) => {
                assert!(op == name && !message.is_empty(), "{name}: {op}: {message}")
            }
            Ok(Err(other)) => panic!("{name}, {what}: {rule} gives {other:?}"),
            Ok(Ok(types)) => panic!("{name}, {what}: {rule} makes {types:?} of {inputs:?}"),
            Err(_) => panic!("{name}, {what}: {rule} panics on {inputs:?}"),
        }
    }
}

#[test]
fn every_operation_refuses_inputs_that_do_not_fit() {
    let operations = operations();
    let names = names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops"));
    assert!(names.len() > 40, "the sources implement {names:?}");
    for name in names {
        let named = |(op, _): &(Op, Vec<Type>)| format!("{op:?}").split([' ', '(']).next() == Some(&name);
        assert!(operations.values().any(named), "{name} has no case");
    }
    for (op, inputs) in operations.values() {
        op.outputs(inputs).unwrap();
        op.operation().outputs(inputs).unwrap();
        // A second image may be pooled or not.
        let optional = usize::from(op.operation().name().starts_with("pool.max"));
        for n in 0..inputs.len() - optional {
            refused(op, &inputs[..n], "inputs are missing");
        }
        refused(op, &[inputs.as_slice(), &[Type::f32([1])], &[Type::u32([8])]].concat(), "there are more inputs");
        for at in 0..inputs.len() {
            let with = |change: &dyn Fn(&mut Type)| {
                let mut inputs = inputs.clone();
                change(&mut inputs[at]);
                inputs
            };
            let other = if inputs[at].element == Element::U32 { Element::F32 } else { Element::U32 };
            refused(op, &with(&|ty| ty.element = other), "another element");
            for axis in 0..inputs[at].shape.len() {
                refused(op, &with(&|ty| ty.shape[axis] = 0), "a size of 0");
                refused(op, &with(&|ty| ty.shape[axis] = usize::MAX), "a size beyond all");
            }
            refused(op, &with(&|ty| ty.shape.clear()), "no axes");
            refused(op, &with(&|ty| ty.shape = vec![0]), "nothing");
        }
        // Other axes: elementwise operations of one input take any.
        let of_any_shape =
            ["elementwise", "dropout.scale_kept", "dropout.dropout", "reduce.mean", "health.inspect", "clip.norm"];
        if !of_any_shape.iter().any(|name| op.operation().name().starts_with(name)) {
            // So does the target of a clip, whose other input is the norm, and what is scaled as it is.
            let any = |at: usize| match op.operation().name() {
                "clip.scale" => at == 1,
                "scale.scale" => inputs.len() == 1,
                _ => false,
            };
            for at in (0..inputs.len()).filter(|at| !any(*at)) {
                let mut inputs = inputs.clone();
                inputs[at].shape.push(1);
                refused(op, &inputs, "an axis more");
            }
        }
    }
}

/// Convolutions read what stores activations; nothing else takes half precision.
#[test]
fn half_precision_is_refused_where_it_cannot_be_read() {
    for (op, inputs) in operations().values() {
        for at in 0..inputs.len() {
            if inputs[at].element == Element::U32 || op.operation().rewrites().reads_half(at) {
                continue;
            }
            let mut inputs = inputs.clone();
            inputs[at].element = Element::F16;
            refused(op, &inputs, "half precision");
        }
    }
}

/// What an operation itself says of its sizes.
#[test]
fn settings_of_operations_that_make_no_tensor_are_refused() {
    let image = |shape: [usize; 4]| Type::f32(shape);
    let x = || image([1, 1, 4, 4]);
    let weight = || image([1, 1, 3, 3]);
    let huge = usize::MAX / 2;
    let cases: Vec<(Op, Vec<Type>)> = vec![
        (Conv2d::new(0, 1).into(), vec![x(), weight()]),
        (Conv2d::new(1, huge).into(), vec![x(), weight()]),
        (Conv2d::new(1, 1 << 20).into(), vec![x(), weight()]),
        (Conv2d::new(1, 0).into(), vec![x(), image([1, 1, 5, 5])]),
        (Conv2d { algorithm: Algorithm::Winograd, ..Conv2d::new(2, 1) }.into(), vec![x(), weight()]),
        (
            Conv2dBackwardInput { stride: 1, padding: 1, h: 0, w: 4, algorithm: Algorithm::Direct }.into(),
            vec![x(), weight()],
        ),
        (
            Conv2dBackwardInput { stride: 1, padding: 1, h: huge, w: huge, algorithm: Algorithm::Direct }.into(),
            vec![x(), weight()],
        ),
        (BatchNorm { slope: 1.0, apply: true }.into(), vec![Type::f32([1, 3]), Type::f32([3]), Type::f32([3])]),
        (BatchNormRunning { count: 1 }.into(), vec![Type::f32([5, 3]), Type::f32([3]), Type::f32([3])]),
        (dropout::DropBlockKeep { block: huge }.into(), vec![x()]),
        (
            Views { views: huge, ..Views::plain([0.0; 3], [1.0; 3]) }.into(),
            vec![Type::u32([2, 4, 4]), Type::u32([2]), Type::u32([2, 20])],
        ),
    ];
    for (op, inputs) in cases {
        refused(&op, &inputs, &format!("{op:?}"));
    }
    // Sizes that only the graph's check sees, as the rule computes nothing with them.
    for (op, inputs) in [
        (Op::from(MeanBackward { shape: vec![huge, huge] }), vec![Type::f32([1])]),
        (MeanBackward { shape: vec![0] }.into(), vec![Type::f32([1])]),
        (Reshape { shape: vec![huge, huge] }.into(), vec![Type::f32([4])]),
        (Fill { value: 1.0, ty: Type::f32([]) }.into(), vec![]),
        (GlobalAveragePoolBackward { h: 0, w: 3 }.into(), vec![Type::f32([2, 2])]),
    ] {
        assert!(matches!(op.outputs(&inputs), Err(Error::Shape { .. })), "{op:?}");
        let mut graph = Graph::new();
        let ids: Vec<_> = inputs.iter().map(|ty| graph.input("x", ty.clone())).collect();
        assert!(graph.apply(op, &ids).is_err() && graph.nodes().is_empty());
    }
}
