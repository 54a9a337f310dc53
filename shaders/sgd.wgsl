// Stochastic gradient descent with momentum and weight decay, in PyTorch's form, over flat vectors [blocks, BLOCK]:
//   d = g + decay p;  v = mu v + d;  p = p - rate factor v;  with nesterov p = p - rate factor (d + mu v)
// One invocation updates four neighbouring elements. The rate is the step block's learning rate; rates [blocks] has the factor on
// it and the decay of each block, which is of one tensor.
// Where g is not finite, p and v stay as they are and health_mask is raised in health[0].
// Padding between tensors is 0 in all three vectors and stays 0.
#import common/index
#import common/finite
#import common/step_block

struct Params {
    n: u32,            // vectors of four
    momentum: f32,
    nesterov: u32,
    health_mask: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradient: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> rates: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> step_block: StepBlock;
@group(0) @binding(4) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> velocity: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> health: array<atomic<u32>>;

// Vectors that share a row of the rates: a fourth of BLOCK of tape/graph.rs.
const VECTORS: u32 = 16u;

@compute @workgroup_size(WG)
fn step(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let g = gradient[i];
        let p = parameter[i];
        let old = velocity[i];
        let factor_and_decay = rates[i / VECTORS];
        let d = g + factor_and_decay.y * p;
        let v = params.momentum * old + d;
        var along = v;
        if params.nesterov != 0u {
            along = d + params.momentum * v;
        }
        let finite = vec4<bool>(is_finite(g.x), is_finite(g.y), is_finite(g.z), is_finite(g.w));
        velocity[i] = select(old, v, finite);
        parameter[i] = select(p, p - step_block.learning_rate * factor_and_decay.x * along, finite);
        if !all(finite) {
            atomicOr(&health[0], params.health_mask);
        }
    }
}
