// Raises `mask` in health[0] when any of the n elements of x is not finite.
// One invocation tests one element.
#import common/index
#import common/finite

struct Params {
    n: u32,
    mask: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> health: array<atomic<u32>>;

@compute @workgroup_size(WG)
fn inspect(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n && !is_finite(x[i]) {
        atomicOr(&health[0], params.mask);
    }
}
