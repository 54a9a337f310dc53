// What a device can do at best, measured by `bench`. No operation uses these.
//   multiply_add_N: N independent chains of vec4 a = a factor + addend, 8 links per round: the arithmetic ceiling.
//                   How many chains fill a device differs: latency wants many, registers want few.
//   copy:           y = x, ITEMS vec4 per invocation: memory read and written.
//   total:          y = the sum of ITEMS vec4 of x: memory read, almost nothing written.
//   touch:          y[0] += 1 by one workgroup: what a launch costs that does nothing.
// The chains converge to addend / (1 - factor): no overflow, no denormal numbers.
#import common/index

struct Params {
    n: u32,
    rounds: u32,
    factor: f32,
    addend: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

// Vectors that one invocation of copy and total reads.
override ITEMS: u32 = 4u;

// The built-in fma instead of a product and a sum: one instruction on some devices, a call on others.
override FUSED: bool = false;

fn link(a: vec4<f32>) -> vec4<f32> {
    let factor = vec4<f32>(params.factor);
    let addend = vec4<f32>(params.addend);
    if FUSED {
        return fma(a, factor, addend);
    }
    return a * factor + addend;
}

fn links(a: vec4<f32>) -> vec4<f32> {
    return link(link(link(link(link(link(link(link(a))))))));
}

fn start(local: u32, chain: f32) -> vec4<f32> {
    return vec4<f32>(f32(local), f32(local) + 0.25, f32(local) + 0.5, f32(local) + 0.75) + chain;
}

@compute @workgroup_size(WG)
fn multiply_add_1(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    var a = start(local, 1.0);
    for (var round = 0u; round < params.rounds; round += 1u) {
        a = links(a);
    }
    if i < params.n {
        y[i] = a;
    }
}

@compute @workgroup_size(WG)
fn multiply_add_2(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    var a = start(local, 1.0);
    var b = start(local, 2.0);
    for (var round = 0u; round < params.rounds; round += 1u) {
        a = links(a);
        b = links(b);
    }
    if i < params.n {
        y[i] = a + b;
    }
}

@compute @workgroup_size(WG)
fn multiply_add_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    var a = start(local, 1.0);
    var b = start(local, 2.0);
    var c = start(local, 3.0);
    var d = start(local, 4.0);
    for (var round = 0u; round < params.rounds; round += 1u) {
        a = links(a);
        b = links(b);
        c = links(c);
        d = links(d);
    }
    if i < params.n {
        y[i] = a + b + c + d;
    }
}

@compute @workgroup_size(WG)
fn copy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let first = group_index(group, groups) * WG * ITEMS + local;
    for (var k = 0u; k < ITEMS; k += 1u) {
        let i = first + k * WG;
        if i < params.n {
            y[i] = x[i];
        }
    }
}

@compute @workgroup_size(WG)
fn total(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let first = group_index(group, groups) * WG * ITEMS + local;
    var sum = vec4<f32>();
    for (var k = 0u; k < ITEMS; k += 1u) {
        let i = first + k * WG;
        if i < params.n {
            sum += x[i];
        }
    }
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = sum;
    }
}

@compute @workgroup_size(WG)
fn touch(@builtin(local_invocation_index) local: u32) {
    if local < params.n {
        y[local] += 1.0;
    }
}
