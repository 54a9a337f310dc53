// The power of two by which a factor is multiplied before it is rounded to half precision (matrix_body.wgsl).
//   largest:  part[p] = max |x| over the part_size elements of part p
//   scale:    y[0] = 2^e with max |x| 2^e in [2^14, 2^15), y[1] = 2^-e; both are normal numbers. For zeros e = 126.
// x may be given as z with the statistics of its batch norm (conv2d_input.wgsl). A NaN does not count: the product keeps it.
// One workgroup makes one element of part, and one both of y.
#import common/reduce
#import common/conv2d_input

struct Params {
    elements: u32,    // of x
    part_size: u32,
    parts: u32,
    first_part: u32,  // largest: where x begins, if it is a part
    c_in: u32,
    plane: u32,       // elements of a channel of one image
    slope: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> part: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn largest(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let p = group_index(group, groups);
    let first = p * params.part_size;
    let last = min(first + params.part_size, params.elements);
    var most = 0.0;
    for (var i = first + local; i < last; i += WG) {
        most = max(most, abs(value_at(i, true, channel_of((i / params.plane) % params.c_in))));
    }
    let whole = workgroup_max(most, local);
    if local == 0u && p < params.parts {
        y[params.first_part + p] = whole;
    }
}

@compute @workgroup_size(WG)
fn scale(@builtin(local_invocation_index) local: u32) {
    var most = 0.0;
    for (var p = local; p < params.parts; p += WG) {
        most = max(most, part[p]);
    }
    let exponent = (bitcast<u32>(workgroup_max(most, local)) >> 23u) & 0xffu;
    if local == 0u {
        let of_scale = clamp(268u - exponent, 1u, 253u);
        y[0] = bitcast<f32>(of_scale << 23u);
        y[1] = bitcast<f32>((254u - of_scale) << 23u);
    }
}
