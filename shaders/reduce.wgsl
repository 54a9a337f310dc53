// Mean of a tensor, and the gradient of it.
//   sum_chunks:  y[g] = sum_{k < WG ITEMS} x[g WG ITEMS + k] / divisor
//   broadcast:   y[i] = x[0] / divisor
// sum_chunks: x [n], y [ceil(n / (WG ITEMS))]; launched again on its own result until one element is
// left, with divisor 1 before the last time and the count of all elements then: a tree of sums, whose
// rounding error grows with the logarithm of n. One workgroup makes one element; its invocations add
// ITEMS elements each.
// broadcast: x [1], y [n]. One invocation writes one element.
#import common/reduce

struct Params {
    n: u32,
    divisor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// Elements that one invocation adds.
override ITEMS: u32 = 16u;

@compute @workgroup_size(WG)
fn sum_chunks(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let g = group_index(group, groups);
    let first = g * WG * ITEMS;
    var part = 0.0;
    for (var k = 0u; k < ITEMS; k++) {
        let i = first + k * WG + local;
        if i < params.n {
            part += x[i];
        }
    }
    let total = workgroup_sum(part, local);
    if local == 0u && first < params.n {
        y[g] = total / params.divisor;
    }
}

@compute @workgroup_size(WG)
fn broadcast(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = x[0] / params.divisor;
    }
}
