//! An operation from outside the crate: y = x * x with its gradient, twin and WGSL, in a graph beside the crate's own, and
//! compared with its twin on the device as those are.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use ieq_wgpu::Result;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::shader::Shader;
use ieq_wgpu::gpu::{AdapterChoice, Launch, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check::{self, Case, Input};
use ieq_wgpu::ops::reduce::Mean;
use ieq_wgpu::ops::{Host, Operand, Operation, shape};
use ieq_wgpu::tape::backward::backward;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Node, Type, ValueId};

const SHADER: &str = "square";

const WGSL: &str = "
#import common/index

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n { y[i] = x[i] * x[i]; }
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n { y[i] = 2.0 * x[i] * dy[i]; }
}
";

/// y = x * x.
#[derive(Debug)]
struct Square;

impl Operation for Square {
    fn name(&self) -> &'static str {
        "square.forward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x] = shape::exactly(self.name(), inputs, ["x"])?;
        shape::any_floats(self.name(), x, "x")?;
        Ok(vec![x.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().map(|x| x * x).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.one(SquareBackward, &[node.inputs[0], dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![Launch::items(SHADER, "forward", inputs[0].len()).bind("x", inputs[0].id).bind("y", outputs[0].id)]
    }
}

/// dx = 2 x dy.
#[derive(Debug)]
struct SquareBackward;

impl Operation for SquareBackward {
    fn name(&self) -> &'static str {
        "square.backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [x, dy] = shape::exactly(self.name(), inputs, ["x", "dy"])?;
        shape::any_floats(self.name(), x, "x")?;
        shape::floats_as(self.name(), dy, "dy", &x.shape)?;
        Ok(vec![x.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(x, dy)| 2.0 * x * dy).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let launch = Launch::items(SHADER, "backward", inputs[0].len());
        vec![launch.bind("x", inputs[0].id).bind("dy", inputs[1].id).bind("y", outputs[0].id)]
    }
}

fn with_square(gpu: Arc<Gpu>, wgsl: &str) -> Kernels {
    let mut kernels = Kernels::new(gpu);
    kernels.add(Shader::from_source(SHADER, wgsl).unwrap()).unwrap();
    kernels
}

fn kernels() -> Kernels {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, ..Options::default() }).expect("a GPU test needs an adapter");
    with_square(gpu, WGSL)
}

#[test]
fn an_operation_from_outside_agrees_with_its_twin_and_finite_differences() {
    let mut kernels = kernels();
    for n in [1, 63, 64, 65, 997] {
        let case = Case::new(format!("{n} elements"), Square, vec![Input::normal([n])]);
        let outcome = check::run(&case, &mut kernels).unwrap();
        assert!(outcome.passed(), "{}: {} is off by {:.1e}", outcome.name, outcome.worst, outcome.error);
        assert!(check::finite_differences(&case).unwrap() <= 1e-5);
    }
    // A broken one is seen.
    let mut broken = with_square(kernels.gpu().clone(), &WGSL.replace("2.0 *", "1.9 *"));
    let case = Case::new("broken", Square, vec![Input::normal([65])]);
    assert!(!check::run(&case, &mut broken).unwrap().passed());
}

#[test]
fn an_operation_from_outside_is_a_loss_among_the_others() {
    let mut graph = Graph::new();
    let x = graph.in_arena("x", "x", Type::f32([4]), true);
    let squares = graph.one(Square, &[x]).unwrap();
    let loss = graph.one(Mean, &[squares]).unwrap();
    let dx = backward(&mut graph, loss).unwrap()[&x];
    graph.keep(loss);
    graph.keep(dx);
    let executor = Executor::new(&mut kernels(), &mut Arenas::new(), graph).unwrap();
    executor.write(x, &[1.0_f32, -2.0, 3.0, 0.5]).unwrap();
    executor.submit().unwrap();
    assert_eq!(executor.read::<f32>(loss).unwrap(), [3.5625]);
    assert_eq!(executor.read::<f32>(dx).unwrap(), [0.5, -1.0, 1.5, 0.25]);
}
