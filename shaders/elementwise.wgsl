// Elementwise operations over n floats.
//   scale:       y = alpha a
//   add:         y = alpha a + beta b
//   fill:        y = alpha
//   leaky_relu:  y = a where a > 0, else alpha a                 (derivative at 0: alpha; ReLU is alpha = 0)
//   leaky_relu_backward: y = b where a > 0, else alpha b         (a: the forward input, b: the upstream gradient)
// One invocation computes one element.
#import common/index

struct Params {
    n: u32,
    alpha: f32,
    beta: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn scale(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = params.alpha * a[i];
    }
}

@compute @workgroup_size(WG)
fn add(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = params.alpha * a[i] + params.beta * b[i];
    }
}

@compute @workgroup_size(WG)
fn fill(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = params.alpha;
    }
}

@compute @workgroup_size(WG)
fn leaky_relu(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = select(params.alpha * a[i], a[i], a[i] > 0.0);
    }
}

@compute @workgroup_size(WG)
fn leaky_relu_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = select(params.alpha * b[i], b[i], a[i] > 0.0);
    }
}
