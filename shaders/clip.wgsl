// Clipping of gradients by their Euclidean norm over all tensors.
//   norm:   y[g] = sum_{k < WG ITEMS} x[g WG ITEMS + k], of the squares of x with square, and the root of it with root
//   scale:  y[i] = y[i] min(1, most / (norm[0] + EPSILON))
// norm: x [n], y [ceil(n / (WG ITEMS))]; launched again on its own result until one element is left, with square the
// first time and root the last: a tree of sums. One workgroup makes one element; its invocations add ITEMS elements each.
// scale: y [n] in place. One invocation makes one element. A norm that is NaN makes all NaN.
#import common/reduce

struct Params {
    n: u32,
    square: u32,
    root: u32,
    most: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// Elements that one invocation adds.
override ITEMS: u32 = 16u;

// That of torch.nn.utils.clip_grad_norm_.
const EPSILON: f32 = 1e-6;

@compute @workgroup_size(WG)
fn norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let g = group_index(group, groups);
    let first = g * WG * ITEMS;
    var part = 0.0;
    for (var k = 0u; k < ITEMS; k++) {
        let i = first + k * WG + local;
        if i < params.n {
            part += select(x[i], x[i] * x[i], params.square != 0u);
        }
    }
    let total = workgroup_sum(part, local);
    if local == 0u && first < params.n {
        y[g] = select(total, sqrt(total), params.root != 0u);
    }
}

@compute @workgroup_size(WG)
fn scale(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let share = params.most / (x[0] + EPSILON);
        y[i] = y[i] * select(share, 1.0, share > 1.0);
    }
}
