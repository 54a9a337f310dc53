//! The planner on random graphs: no two values that are alive together share memory, every value fits, the
//! same graph gives the same plan, and `Plan::verify` refuses what breaks that.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, HashMap};

use ieq_wgpu::ops::elementwise::{Add, LeakyRelu, Scale};
use ieq_wgpu::ops::matmul::Matmul;
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::plan::Plan;
use ieq_wgpu::tape::{Graph, Storage, Type, ValueId};
use proptest::prelude::*;

/// One step of a recipe: which operation, and on which of the values made so far (modulo their number).
type Step = (u8, u16, u16);

/// Matrices of these sizes, then the steps; afterwards some values are kept and some moved into an arena.
fn build(sizes: &[[usize; 2]], steps: &[Step], kept: &[u16], persistent: &[u16], differentiate: bool) -> Graph {
    let mut graph = Graph::new();
    let mut values: Vec<ValueId> =
        sizes.iter().enumerate().map(|(i, &s)| graph.in_arena(&format!("x{i}"), "x", Type::f32(s), true)).collect();
    let inputs = values.len();
    for &(kind, a, b) in steps {
        let a = values[usize::from(a) % values.len()];
        let made = match kind % 4 {
            0 => graph.one(Scale { alpha: 0.5 }, &[a]),
            1 => graph.one(LeakyRelu { slope: 0.1 }, &[a]),
            2 => {
                let equal: Vec<ValueId> =
                    values.iter().copied().filter(|&v| graph.shape(v) == graph.shape(a)).collect();
                graph.one(Add { alpha: 1.0, beta: 2.0 }, &[a, equal[usize::from(b) % equal.len()]])
            }
            // Makes larger and smaller values than it reads.
            _ => {
                let fitting: Vec<ValueId> =
                    values.iter().copied().filter(|&v| graph.shape(v)[1] == graph.shape(a)[1]).collect();
                graph.one(Matmul::new(false, true), &[a, fitting[usize::from(b) % fitting.len()]])
            }
        };
        values.push(made.expect("the shapes fit"));
    }
    let last = *values.last().expect("there is an input");
    if differentiate && values.len() > inputs {
        let seed = graph.input("upstream", Type::f32(graph.shape(last)));
        backward_from(&mut graph, &[(last, seed)]).expect("the gradient can be recorded");
    }
    let made = &values[inputs..];
    for &k in kept.iter().filter(|_| !made.is_empty()) {
        graph.keep(made[usize::from(k) % made.len()]);
    }
    for &p in persistent.iter().filter(|_| !made.is_empty()) {
        let id = made[usize::from(p) % made.len()];
        if graph.value(id).storage == Storage::Transient {
            graph.persist(id, "persistent").unwrap();
        }
    }
    graph
}

fn graphs() -> impl Strategy<Value = Graph> {
    (
        prop::collection::vec(prop::sample::select(vec![[1, 1], [1, 3], [65, 3], [8, 3], [8, 40], [65, 40]]), 1..5),
        prop::collection::vec(any::<Step>(), 0..60),
        prop::collection::vec(any::<u16>(), 0..4),
        prop::collection::vec(any::<u16>(), 0..3),
        any::<bool>(),
    )
        .prop_map(|(sizes, steps, kept, persistent, d)| build(&sizes, &steps, &kept, &persistent, d))
}

/// The transient values whose contents matter while node `now` runs, found the slow way: those that exist by
/// then and that this node or a later one touches, or the host reads afterwards.
fn alive(graph: &Graph, now: usize) -> Vec<ValueId> {
    graph
        .ids()
        .filter(|id| graph.value(*id).storage == Storage::Transient)
        .filter(|id| {
            let touches = |n: usize| graph.nodes()[n].inputs.contains(id) || graph.nodes()[n].outputs.contains(id);
            let begun = (0..=now.min(graph.nodes().len() - 1)).any(touches);
            let needed = (now..graph.nodes().len()).any(touches) || graph.kept().contains(id);
            begun && needed
        })
        .collect()
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_plan_overlaps_and_every_value_fits(graph in graphs()) {
        let plan = Plan::new(&graph);
        prop_assert!(plan.verify(&graph).is_ok());
        let mut peak = 0;
        // One past the last node: what the host may still read.
        for now in 0..=graph.nodes().len() {
            if graph.nodes().is_empty() {
                break;
            }
            let mut holders: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
            let mut bytes = 0;
            for id in alive(&graph, now) {
                let (slot, begin) = (plan.slot_of[&id], plan.offset_of[&id]);
                let end = begin + graph.value(id).ty.bytes();
                prop_assert!(end <= plan.slot_bytes[slot], "{id:?} exceeds its slot");
                let others = holders.entry(slot).or_default();
                prop_assert!(others.iter().all(|&(a, b)| end <= a || b <= begin), "{id:?} overlaps at node {now}");
                others.push((begin, end));
                bytes += graph.value(id).ty.bytes();
            }
            // A device refuses a dispatch that reads and writes one buffer.
            if let Some(node) = graph.nodes().get(now) {
                let slots = |ids: &[ValueId]| -> Vec<usize> { ids.iter().filter_map(|i| plan.slot_of.get(i)).copied().collect() };
                let (read, written) = (slots(&node.inputs), slots(&node.outputs));
                for (i, slot) in written.iter().enumerate() {
                    prop_assert!(!read.contains(slot) && !written[i + 1..].contains(slot), "node {now}, slot {slot}");
                }
            }
            peak = peak.max(bytes);
        }
        prop_assert_eq!(plan.peak_live(&graph).0, peak);
        prop_assert!(peak <= plan.transient_bytes());
        let all: u64 = plan.slot_of.keys().map(|&id| graph.value(id).ty.bytes()).sum();
        prop_assert!(plan.transient_bytes() <= all, "the plan takes more than no plan at all");
    }

    #[test]
    fn the_same_graph_gives_the_same_plan(graph in graphs()) {
        // Hash maps iterate in another order in every instance: twice is enough to see it.
        let (a, b) = (Plan::new(&graph), Plan::new(&graph.clone()));
        prop_assert_eq!(&a.slot_of, &b.slot_of);
        prop_assert_eq!(&a.offset_of, &b.offset_of);
        prop_assert_eq!(&a.slot_bytes, &b.slot_bytes);
    }

    #[test]
    fn two_live_values_in_one_slot_are_refused(graph in graphs()) {
        let plan = Plan::new(&graph);
        for now in 0..graph.nodes().len() {
            let live = alive(&graph, now);
            if let [a, b, ..] = live[..] {
                let mut tampered = plan.clone();
                tampered.slot_of.insert(b, plan.slot_of[&a]);
                tampered.offset_of.insert(b, plan.offset_of[&a]);
                // Large enough for either: only the overlap is wrong.
                tampered.slot_bytes.iter_mut().for_each(|bytes| *bytes = 1 << 20);
                prop_assert!(tampered.verify(&graph).is_err(), "{a:?} and {b:?} share a slot unnoticed");
            }
        }
    }
}

/// Beside each other in one slot two values do not overlap, but an operation that reads one and writes the other
/// would bind the slot's buffer both ways.
#[test]
fn an_operation_that_reads_and_writes_one_slot_is_refused() {
    let graph = chain();
    let mut plan = Plan::new(&graph);
    let [a, b] = [graph.nodes()[1].inputs[0], graph.nodes()[1].outputs[0]];
    plan.slot_of.insert(b, plan.slot_of[&a]);
    plan.offset_of.insert(b, 512);
    plan.slot_bytes.iter_mut().for_each(|bytes| *bytes = 1 << 20);
    assert!(plan.verify(&graph).unwrap_err().to_string().contains("share a slot"));
}

#[test]
fn small_values_lie_side_by_side_where_a_large_one_was() {
    // A large value, made and read once; then two small ones that are alive together, read by nodes of their own.
    let mut graph = Graph::new();
    let [x, y] = [[4096, 1], [64, 1]].map(|shape| graph.in_arena(&format!("{shape:?}"), "x", Type::f32(shape), false));
    let half = |graph: &mut Graph, id| graph.one(Scale { alpha: 0.5 }, &[id]).expect("any shape");
    let large = half(&mut graph, x);
    let read = half(&mut graph, large);
    graph.persist(read, "out").unwrap();
    let [a, b] = [(); 2].map(|()| half(&mut graph, y));
    for id in [a, b] {
        let read = half(&mut graph, id);
        graph.persist(read, "out").unwrap();
    }
    let plan = Plan::new(&graph);
    plan.verify(&graph).expect("the plan is sound");
    assert_eq!(plan.slot_bytes, [4 * 4096]);
    assert_ne!(plan.offset_of[&a], plan.offset_of[&b]);
    let apart = Plan::apart(&graph);
    apart.verify(&graph).expect("the plan is sound");
    assert_eq!(apart.slot_bytes, [4 * 4096, 4 * 64]);
}

fn chain() -> Graph {
    build(&[[10, 10]], &[(0, 0, 0), (1, 1, 0), (2, 2, 1), (0, 3, 0)], &[], &[], false)
}

#[test]
fn a_chain_alternates_between_few_slots() {
    let graph = build(&[[10, 10]], &(0..40).map(|i| (i as u8 % 2, i, 0)).collect::<Vec<_>>(), &[], &[], false);
    let plan = Plan::new(&graph);
    assert_eq!(plan.slot_bytes, [400, 400], "a chain needs the value that is read and the one that is made");
}

#[test]
fn a_slot_that_is_too_small_is_refused() {
    let graph = chain();
    let mut plan = Plan::new(&graph);
    plan.slot_bytes[0] -= 4;
    assert!(plan.verify(&graph).unwrap_err().to_string().contains("does not fit"));
}

#[test]
fn a_value_without_a_slot_is_refused() {
    let graph = chain();
    let mut plan = Plan::new(&graph);
    let id = *plan.slot_of.keys().min().expect("the chain has values");
    plan.slot_of.remove(&id);
    assert!(plan.verify(&graph).unwrap_err().to_string().contains("no slot"));
}

#[test]
fn a_plan_with_false_lifetimes_is_refused() {
    let graph = chain();
    let mut plan = Plan::new(&graph);
    for life in plan.lifetime.values_mut() {
        life.1 = life.0;
    }
    plan.slot_of.values_mut().for_each(|slot| *slot = 0);
    assert!(plan.verify(&graph).unwrap_err().to_string().contains("share a slot"));
}

#[test]
fn a_plan_for_another_graph_is_refused() {
    let (graph, other) = (chain(), build(&[[10, 10]], &[(0, 0, 0)], &[], &[], false));
    assert!(Plan::new(&other).verify(&graph).is_err());
}

#[test]
fn a_kept_value_outlives_the_step() {
    let steps: Vec<Step> = (0..10).map(|i| (0, i, 0)).collect();
    let graph = build(&[[8, 1]], &steps, &[0], &[], false);
    let plan = Plan::new(&graph);
    let first = graph.nodes()[0].outputs[0];
    let sharing: HashMap<_, _> = plan.slot_of.iter().filter(|(_, s)| **s == plan.slot_of[&first]).collect();
    assert_eq!(sharing.len(), 1, "nothing may overwrite a kept value");
}
