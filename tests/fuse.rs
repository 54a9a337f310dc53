//! Fusion and recomputation on random graphs: the rewritten graph computes what the recorded one did, forward and
//! backward, whatever else reads the values it would leave out; fusing a second time changes nothing.

use std::collections::{BTreeMap, HashMap};

use ieq_wgpu::ops::batch_norm::{BatchNorm, BatchNormGiven};
use ieq_wgpu::ops::conv2d::Conv2d;
use ieq_wgpu::ops::elementwise::{Add, Scale};
use ieq_wgpu::ops::pool::MaxPool;
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::fuse::fuse;
use ieq_wgpu::tape::half_precision::store_half;
use ieq_wgpu::tape::plan::Plan;
use ieq_wgpu::tape::recompute::{candidates, recompute};
use ieq_wgpu::tape::{Element, Graph, Type, ValueId, twin};
use proptest::prelude::*;

const CHANNELS: usize = 3;

/// One step of a recipe: which operation, and on which of the values made so far (modulo their number).
type Step = (u8, u16, u16);

/// A network of the steps over images [2, 3, 8, 6], and its gradient; the values that a reader of the graph wants.
fn build(steps: &[Step], kept: &[u16]) -> (Graph, Vec<ValueId>) {
    let mut graph = Graph::new();
    let parameter = |graph: &mut Graph, shape: &[usize]| {
        let name = format!("p{}", graph.values().len());
        graph.in_arena("parameters", name, Type::f32(shape), true)
    };
    let mut values = vec![graph.in_arena("x", "x", Type::f32([2, CHANNELS, 8, 6]), true)];
    for &(kind, a, b) in steps {
        let a = values[values.len() - 1 - usize::from(a) % values.len().min(3)];
        let slope = [1.0, 0.0, 0.1][usize::from(b) % 3];
        let equal: Vec<ValueId> = values.iter().copied().filter(|&v| graph.shape(v) == graph.shape(a)).collect();
        let other = equal[usize::from(b) % equal.len()];
        let small = graph.shape(a)[2] < 2 || graph.shape(a)[3] < 2;
        let made = match kind % 8 {
            0 | 1 => {
                let (kernel, stride) = [(3, 1), (1, 1), (3, 2)][usize::from(b) % 3];
                let weight = parameter(&mut graph, &[CHANNELS, CHANNELS, kernel, kernel]);
                graph.one(Conv2d::new(stride, kernel / 2), &[a, weight])
            }
            2..=4 => {
                let affine = [(); 2].map(|()| parameter(&mut graph, &[CHANNELS]));
                if b % 5 == 0 {
                    let [mean, var] = [(); 2].map(|()| graph.in_arena("statistics", "s", Type::f32([CHANNELS]), false));
                    let inputs = [a, affine[0], affine[1], mean, var];
                    graph.one(BatchNormGiven { slope, apply: true, joined: false }, &inputs)
                } else {
                    graph.one(BatchNorm { slope, apply: true }, &[a, affine[0], affine[1]])
                }
            }
            5 if !small => graph.one(MaxPool::new(slope), &[a]),
            6 if !small => graph.one(MaxPool::new(slope), &[a, other]),
            7 => graph.one(Add { alpha: 1.0, beta: 0.5 }, &[a, other]),
            _ => graph.one(Scale { alpha: 0.5 }, &[a]),
        };
        values.push(made.expect("the shapes fit"));
    }
    let last = values[values.len() - 1];
    let seed = graph.input("upstream", Type::f32(graph.shape(last)));
    let gradients = backward_from(&mut graph, &[(last, seed)]).expect("the gradient can be recorded");
    let mut wanted: Vec<ValueId> = kept.iter().map(|&k| values[usize::from(k) % values.len()]).collect();
    wanted.push(last);
    // Of a value with a consumer the gradient is a value of its own; of all parameters it is wanted.
    let parameters: BTreeMap<_, _> = gradients
        .into_iter()
        .filter(|(of, _)| graph.value(*of).storage != ieq_wgpu::tape::Storage::Transient)
        .collect();
    wanted.extend(parameters.into_values());
    wanted.retain(|&id| graph.value(id).storage == ieq_wgpu::tape::Storage::Transient);
    wanted.iter().for_each(|&id| graph.keep(id));
    (graph, wanted)
}

/// Numbers that look random, the same for the same value; variances are positive.
fn computed(graph: &Graph) -> HashMap<ValueId, Vec<f64>> {
    let mut values: HashMap<ValueId, Vec<f64>> = HashMap::new();
    for id in twin::inputs(graph) {
        let positive = graph.value(id).name == "s";
        let number = |i: usize| {
            let v = ((i as f64 + 1.0) * 12.9898 + id.index() as f64 * 78.233).sin() * 43758.5453;
            let v = 2.0 * (v - v.floor()) - 1.0;
            if positive { v.abs() + 0.5 } else { v }
        };
        values.insert(id, (0..graph.value(id).ty.len()).map(number).collect());
    }
    twin::run(graph, &mut values).expect("the twins run");
    values
}

fn text(graph: &Graph) -> String {
    format!("{:?}", graph.nodes())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_fused_graph_computes_the_same(
        steps in prop::collection::vec(any::<Step>(), 1..14),
        kept in prop::collection::vec(any::<u16>(), 0..3),
    ) {
        let (graph, wanted) = build(&steps, &kept);
        let mut fused = graph.clone();
        fuse(&mut fused);
        let (before, after) = (computed(&graph), computed(&fused));
        // What the host gave is still there, too.
        for id in wanted.into_iter().chain(twin::inputs(&graph)) {
            let (b, a) = (&before[&id], &after[&id]);
            let scale = b.iter().fold(1e-12_f64, |m, v| m.max(v.abs()));
            let worst = b.iter().zip(a).map(|(b, a)| (b - a).abs()).fold(0.0, f64::max);
            prop_assert!(a.len() == b.len() && worst <= 1e-9 * scale, "{}: {worst} of {scale}", graph.value(id).name);
        }
        let mut again = fused.clone();
        let possible = candidates(&again);
        recompute(&mut again, &possible[possible.len() / 2..]);
        let repeated = computed(&again);
        let all = graph.ids().filter(|id| after.contains_key(id));
        for id in all.filter(|id| repeated.contains_key(id)) {
            prop_assert_eq!(&after[&id], &repeated[&id], "recomputed: {}", &graph.value(id).name);
        }
        let recomputed = text(&again);
        fuse(&mut again);
        prop_assert_eq!(recomputed, text(&again));
        let once = text(&fused);
        fuse(&mut fused);
        prop_assert_eq!(once, text(&fused));
    }
}

/// A stack of convolutions with batch norm, pooled at the end: no output of a batch norm is stored.
#[test]
fn a_block_keeps_the_outputs_of_its_convolutions_only() {
    let (conv, leaky_norm, norm, pool) = ((0, 0, 0), (2, 0, 2), (2, 0, 3), (5, 0, 2));
    let steps = [conv, leaky_norm, conv, leaky_norm, conv, norm, pool];
    let (mut graph, _) = build(&steps, &[]);
    let making_y =
        |graph: &Graph| graph.nodes().iter().filter(|n| n.op.operation().rewrites().as_norm().is_some()).count();
    assert_eq!(making_y(&graph), 3);
    fuse(&mut graph);
    assert_eq!(making_y(&graph), 0, "a batch norm still makes y");
}

/// What is recomputed is not kept: the least arithmetic first, in a chain where one makes the other.
#[test]
fn recomputed_convolutions_are_not_kept() {
    let (conv, norm, pool) = ((0, 0, 0), (2, 0, 2), (5, 0, 2));
    let (mut graph, _) = build(&[conv, norm, (0, 0, 1), norm, conv, norm, conv, (2, 0, 3), pool], &[]);
    fuse(&mut graph);
    let nodes = candidates(&graph);
    let names: Vec<_> = nodes.iter().map(|&at| graph.shape(graph.nodes()[at].inputs[1])[2]).collect();
    assert_eq!(names, [1, 3, 3, 3], "sides of their kernels");
    let kept = |graph: &Graph| Plan::new(graph).live_at(graph, graph.backward_at().unwrap() - 1).kept;
    let mut all = graph.clone();
    recompute(&mut all, &nodes);
    assert_eq!(all.nodes().len(), graph.nodes().len() + 4);
    let map = 4 * 2 * 3 * 8 * 6;
    assert!(kept(&graph) - kept(&all) == 4 * map, "{} {}", kept(&graph), kept(&all));
}

/// In half precision are only convolutions' results of even width whose every reader can read that.
#[test]
fn only_what_all_readers_can_read_is_stored_in_half_precision() {
    let (conv, norm, pool, add) = ((0, 0, 0), (2, 0, 2), (5, 0, 2), (7, 0, 0));
    // 8 x 6, pooled to 4 x 3: the convolution behind it has rows of odd length.
    for (steps, kept, halves) in [
        (vec![conv, norm, conv, (2, 0, 3), pool, conv, norm], vec![], 2),
        (vec![conv, norm, conv, (2, 0, 3), pool, conv, norm], vec![1], 1),
        (vec![conv, add, norm, pool], vec![], 0),
    ] {
        let (mut graph, _) = build(&steps, &kept);
        fuse(&mut graph);
        store_half(&mut graph);
        let half = graph.values().iter().filter(|value| value.ty.element == Element::F16);
        assert_eq!(half.count(), halves, "{steps:?}, kept {kept:?}");
    }
}
