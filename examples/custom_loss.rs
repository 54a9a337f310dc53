//! A custom loss on the tape, with its own WGSL: a robust regression in the middle of the crate's operations.
//!
//! The loss is sqrt(1 + d^2) - 1 of every difference d, quadratic near 0 and linear far from it, so that an outlier does
//! not drag the fit away. An operation has a shape rule, an f64 twin, a gradient and launches, and
//! `ops::check` compares the WGSL with the twin as it does for the crate's own.
//!
//! `cargo run --release --example custom_loss`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use ieq_wgpu::Result;
use ieq_wgpu::gpu::Launch;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::shader::Shader;
use ieq_wgpu::ops::check::{self, Case, Input};
use ieq_wgpu::ops::elementwise::Add;
use ieq_wgpu::ops::matmul::Matmul;
use ieq_wgpu::ops::reduce::Mean;
use ieq_wgpu::ops::{Host, Operand, Operation, shape};
use ieq_wgpu::tape::backward::backward;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Node, Type, ValueId};

const SHADER: &str = "robust";

const WGSL: &str = "
#import common/index

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> d: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n { y[i] = sqrt(1.0 + d[i] * d[i]) - 1.0; }
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n { y[i] = dy[i] * d[i] / sqrt(1.0 + d[i] * d[i]); }
}
";

/// y = sqrt(1 + d^2) - 1.
#[derive(Debug)]
struct Robust;

impl Operation for Robust {
    fn name(&self) -> &'static str {
        "robust.forward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [d] = shape::exactly(self.name(), inputs, ["d"])?;
        shape::any_floats(self.name(), d, "d")?;
        Ok(vec![d.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().map(|d| (1.0 + d * d).sqrt() - 1.0).collect()]
    }
    fn backward(&self, graph: &mut Graph, node: &Node, upstream: &[Option<ValueId>]) -> Result<Vec<Option<ValueId>>> {
        let Some(dy) = upstream[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.one(RobustBackward, &[node.inputs[0], dy])?)])
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        vec![Launch::items(SHADER, "forward", inputs[0].len()).bind("d", inputs[0].id).bind("y", outputs[0].id)]
    }
}

/// Its gradient: dy d / sqrt(1 + d^2).
#[derive(Debug)]
struct RobustBackward;

impl Operation for RobustBackward {
    fn name(&self) -> &'static str {
        "robust.backward"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let [d, dy] = shape::exactly(self.name(), inputs, ["d", "dy"])?;
        shape::any_floats(self.name(), d, "d")?;
        shape::floats_as(self.name(), dy, "dy", &d.shape)?;
        Ok(vec![d.clone()])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let pairs = inputs[0].data.iter().zip(inputs[1].data);
        vec![pairs.map(|(d, dy)| dy * d / (1.0 + d * d).sqrt()).collect()]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let launch = Launch::items(SHADER, "backward", inputs[0].len());
        vec![launch.bind("d", inputs[0].id).bind("dy", inputs[1].id).bind("y", outputs[0].id)]
    }
}

fn main() -> Result<()> {
    let mut kernels = Kernels::new(Gpu::open(&Options::default())?);
    kernels.add(Shader::from_source(SHADER, WGSL)?)?;
    // The WGSL, forward and backward, agrees with the twin on this device.
    let case = Case::new("100 elements", Robust, vec![Input::normal([100])]);
    let outcome = check::run(&case, &mut kernels)?;
    println!("{}: error {:.1e}, allowed {:.1e}", outcome.name, outcome.error, outcome.tolerance);
    assert!(outcome.passed());

    // y = 3 a - 2 b, except for every tenth, which is far off.
    let rows = 50;
    let x: Vec<f32> = (0..2 * rows).map(|i| (i as f32 * 1.7).sin()).collect();
    let targets: Vec<f32> = x.chunks(2).map(|x| 3.0 * x[0] - 2.0 * x[1]).collect();
    let targets: Vec<f32> = targets.iter().enumerate().map(|(i, y)| if i % 10 == 0 { y + 20.0 } else { *y }).collect();

    let mut graph = Graph::new();
    let inputs = graph.input("x", Type::f32([rows, 2]));
    let wanted = graph.input("wanted", Type::f32([rows, 1]));
    let weights = graph.in_arena("weights", "weights", Type::f32([2, 1]), true);
    let made = graph.one(Matmul::new(false, false), &[inputs, weights])?;
    let difference = graph.one(Add { alpha: 1.0, beta: -1.0 }, &[made, wanted])?;
    let losses = graph.one(Robust, &[difference])?;
    let loss = graph.one(Mean, &[losses])?;
    let gradient = backward(&mut graph, loss)?[&weights];
    graph.keep(loss);
    graph.keep(gradient);

    let step = Executor::new(&mut kernels, &mut Arenas::new(), graph)?;
    step.write(inputs, &x)?;
    step.write(wanted, &targets)?;
    let mut w = [0.0_f32; 2];
    for i in 0..=100 {
        step.write(weights, &w)?;
        step.submit()?;
        if i % 25 == 0 {
            println!("step {i}: loss {:.4}, weights {:.3} {:.3}", step.read::<f32>(loss)?[0], w[0], w[1]);
        }
        let gradient = step.read::<f32>(gradient)?;
        w.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 2.0 * g);
    }
    assert!((w[0] - 3.0).abs() < 0.3 && (w[1] + 2.0).abs() < 0.3, "{w:?}");
    Ok(())
}
