// 2-D convolution, NCHW, and its two gradients.
//   forward           y[n,o,i,j]  = sum_{c,k,l} w[o,c,k,l] x[n,c, i s + k - p, j s + l - p]
//   backward_input    dx = the same sum over dy with the kernel mirrored and its two channel axes swapped,
//                     padding K-1-p, and dy spread out by the stride (DILATE)
//   backward_weight   dw[o,c,k,l] = sum_{n,i,j} dy[n,o,i,j] x[n,c, i s + k - p, j s + l - p]
// Terms outside the image are zero. Sums are f32 in a fixed order.
//
// pack / pack_mirrored: weights [o,c,k,l] -> `packed`, for each (input channel, k, l) a row of output channels,
//   four to a vector, padded with zeros to a multiple of 16.
// forward: one invocation computes 16 output channels x 4 neighbouring pixels of a row (16 vec4 sums); of a
//   kernel row it keeps a window of 4 inputs in registers and loads one new input a tap where the stride is 1.
// backward_weight: one invocation computes 8 output channels x a block of 3 x 3 taps of one input channel,
//   summed over the image rows of its split; `reduce` adds the splits in order.
// The values that all lanes of a workgroup share come from packed_quad and dy_pair, which differ between
// conv2d.wgsl (each lane loads all) and conv2d_subgroup.wgsl (four lanes load, the subgroup broadcasts).
#import common/index

struct Params {
    n: u32,            // items of a one-dimensional entry point
    batch: u32,
    c_in: u32,
    h_in: u32,
    w_in: u32,
    c_out: u32,
    h_out: u32,
    w_out: u32,
    k_h: u32,
    k_w: u32,
    pad_y: i32,        // zeros above and to the left; negative where backward_input crops
    pad_x: i32,
    blocks: u32,       // ceil(c_out / 16)
    half_blocks: u32,  // ceil(c_out / 8)
    splits: u32,       // backward_weight: parts of the batch x h_out rows
    split_rows: u32,   // rows of one split
    columns: u32,      // backward_weight: workgroups along the input channels
}

struct Quad {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

struct Pair {
    a: vec4<f32>,
    b: vec4<f32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> partial: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read_write> packed_out: array<vec4<f32>>;

override STRIDE: u32 = 1u;
override DILATE: u32 = 1u;

// Input channels whose terms are summed before they join the total: the rounding error of a sum grows with its length.
const CHAIN = 4u;

// ---------------------------------------------------------------------------------------------- packing

fn packed_weight(o: u32, c: u32, k: u32, l: u32) -> f32 {
    return select(0.0, weight[((min(o, params.c_out - 1u) * params.c_in + c) * params.k_h + k) * params.k_w + l],
                  o < params.c_out);
}

// The weight that carries output-side channel o of the backward convolution, i.e. input channel o of the forward one.
fn mirrored_weight(o: u32, c: u32, k: u32, l: u32) -> f32 {
    let at = ((c * params.c_out + min(o, params.c_out - 1u)) * params.k_h + (params.k_h - 1u - k)) * params.k_w;
    return select(0.0, weight[at + params.k_w - 1u - l], o < params.c_out);
}

@compute @workgroup_size(WG)
fn pack(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let quads = params.blocks * 4u;
        let o = (i % quads) * 4u;
        let tap = i / quads;
        let l = tap % params.k_w;
        let k = (tap / params.k_w) % params.k_h;
        let c = tap / (params.k_w * params.k_h);
        packed_out[i] = vec4<f32>(packed_weight(o, c, k, l), packed_weight(o + 1u, c, k, l),
                                  packed_weight(o + 2u, c, k, l), packed_weight(o + 3u, c, k, l));
    }
}

@compute @workgroup_size(WG)
fn pack_mirrored(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let quads = params.blocks * 4u;
        let o = (i % quads) * 4u;
        let tap = i / quads;
        let l = tap % params.k_w;
        let k = (tap / params.k_w) % params.k_h;
        let c = tap / (params.k_w * params.k_h);
        packed_out[i] = vec4<f32>(mirrored_weight(o, c, k, l), mirrored_weight(o + 1u, c, k, l),
                                  mirrored_weight(o + 2u, c, k, l), mirrored_weight(o + 3u, c, k, l));
    }
}

// ---------------------------------------------------------------------------------------------- forward

// x[row + column] with zero outside the image; `column` counts in the spread-out input. The conditions are joined
// by `&`: each `&&` is a branch, and SwiftShader's compiler takes minutes over a loop with dozens of them.
fn input_at(row: u32, row_inside: bool, column: i32) -> f32 {
    let dilate = i32(DILATE);
    let j = column / dilate;
    let inside = row_inside & (column >= 0) & (j < i32(params.w_in)) & (column % dilate == 0);
    return select(0.0, x[row + u32(clamp(j, 0, i32(params.w_in) - 1))], inside);
}

fn store_four(o: u32, at: u32, j: u32, live: bool, sum: vec4<f32>) {
    if live && o < params.c_out {
        let first = at + o * params.h_out * params.w_out;
        y[first] = sum.x;
        if j + 1u < params.w_out { y[first + 1u] = sum.y; }
        if j + 2u < params.w_out { y[first + 2u] = sum.z; }
        if j + 3u < params.w_out { y[first + 3u] = sum.w; }
    }
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    let linear = group_index(group, groups);
    // Neighbouring workgroups take the same pixels and other channels: the input is read from cache.
    let block = linear % params.blocks;
    let i = (linear / params.blocks) * WG + local;
    let fours = (params.w_out + 3u) / 4u;
    let live = i < params.n;
    let j = (i % fours) * 4u;
    let row = (i / fours) % params.h_out;
    let image = min(i / (fours * params.h_out), params.batch - 1u);
    let quads = params.blocks * 4u;
    var tap = block * 4u;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    var s4 = vec4<f32>(0.0);
    var s5 = vec4<f32>(0.0);
    var s6 = vec4<f32>(0.0);
    var s7 = vec4<f32>(0.0);
    var s8 = vec4<f32>(0.0);
    var s9 = vec4<f32>(0.0);
    var s10 = vec4<f32>(0.0);
    var s11 = vec4<f32>(0.0);
    var s12 = vec4<f32>(0.0);
    var s13 = vec4<f32>(0.0);
    var s14 = vec4<f32>(0.0);
    var s15 = vec4<f32>(0.0);
    let left = i32(j * STRIDE) - params.pad_x;
    let step = i32(STRIDE);
    for (var first = 0u; first < params.c_in; first += CHAIN) {
        var t0 = vec4<f32>(0.0);
        var t1 = vec4<f32>(0.0);
        var t2 = vec4<f32>(0.0);
        var t3 = vec4<f32>(0.0);
        var t4 = vec4<f32>(0.0);
        var t5 = vec4<f32>(0.0);
        var t6 = vec4<f32>(0.0);
        var t7 = vec4<f32>(0.0);
        var t8 = vec4<f32>(0.0);
        var t9 = vec4<f32>(0.0);
        var t10 = vec4<f32>(0.0);
        var t11 = vec4<f32>(0.0);
        var t12 = vec4<f32>(0.0);
        var t13 = vec4<f32>(0.0);
        var t14 = vec4<f32>(0.0);
        var t15 = vec4<f32>(0.0);
        for (var c = first; c < min(first + CHAIN, params.c_in); c++) {
            let plane = (image * params.c_in + c) * params.h_in;
            for (var k = 0u; k < params.k_h; k++) {
                let up = i32(row * STRIDE + k) - params.pad_y;
                let source = up / i32(DILATE);
                let row_inside = (up >= 0) & (source < i32(params.h_in)) & (up % i32(DILATE) == 0);
                let start = (plane + u32(clamp(source, 0, i32(params.h_in) - 1))) * params.w_in;
                var window = vec4<f32>(0.0);
                if STRIDE == 1u {
                    window = vec4<f32>(0.0, input_at(start, row_inside, left), input_at(start, row_inside, left + 1),
                                       input_at(start, row_inside, left + 2));
                }
                for (var l = 0u; l < params.k_w; l++) {
                    let at = left + i32(l);
                    if STRIDE == 1u {
                        window = vec4<f32>(window.yzw, input_at(start, row_inside, at + 3));
                    } else {
                        window = vec4<f32>(input_at(start, row_inside, at), input_at(start, row_inside, at + step),
                                           input_at(start, row_inside, at + 2 * step),
                                           input_at(start, row_inside, at + 3 * step));
                    }
                    let q = packed_quad(tap, lane);
                    tap += quads;
                    t0 = fma(vec4<f32>(q.a.x), window, t0);
                    t1 = fma(vec4<f32>(q.a.y), window, t1);
                    t2 = fma(vec4<f32>(q.a.z), window, t2);
                    t3 = fma(vec4<f32>(q.a.w), window, t3);
                    t4 = fma(vec4<f32>(q.b.x), window, t4);
                    t5 = fma(vec4<f32>(q.b.y), window, t5);
                    t6 = fma(vec4<f32>(q.b.z), window, t6);
                    t7 = fma(vec4<f32>(q.b.w), window, t7);
                    t8 = fma(vec4<f32>(q.c.x), window, t8);
                    t9 = fma(vec4<f32>(q.c.y), window, t9);
                    t10 = fma(vec4<f32>(q.c.z), window, t10);
                    t11 = fma(vec4<f32>(q.c.w), window, t11);
                    t12 = fma(vec4<f32>(q.d.x), window, t12);
                    t13 = fma(vec4<f32>(q.d.y), window, t13);
                    t14 = fma(vec4<f32>(q.d.z), window, t14);
                    t15 = fma(vec4<f32>(q.d.w), window, t15);
                }
            }
        }
        s0 += t0;
        s1 += t1;
        s2 += t2;
        s3 += t3;
        s4 += t4;
        s5 += t5;
        s6 += t6;
        s7 += t7;
        s8 += t8;
        s9 += t9;
        s10 += t10;
        s11 += t11;
        s12 += t12;
        s13 += t13;
        s14 += t14;
        s15 += t15;
    }
    let o = block * 16u;
    let at = (image * params.c_out * params.h_out + row) * params.w_out + j;
    store_four(o + 0u, at, j, live, s0);
    store_four(o + 1u, at, j, live, s1);
    store_four(o + 2u, at, j, live, s2);
    store_four(o + 3u, at, j, live, s3);
    store_four(o + 4u, at, j, live, s4);
    store_four(o + 5u, at, j, live, s5);
    store_four(o + 6u, at, j, live, s6);
    store_four(o + 7u, at, j, live, s7);
    store_four(o + 8u, at, j, live, s8);
    store_four(o + 9u, at, j, live, s9);
    store_four(o + 10u, at, j, live, s10);
    store_four(o + 11u, at, j, live, s11);
    store_four(o + 12u, at, j, live, s12);
    store_four(o + 13u, at, j, live, s13);
    store_four(o + 14u, at, j, live, s14);
    store_four(o + 15u, at, j, live, s15);
}

// ---------------------------------------------------------------------------------------------- backward_weight

// dy of the output channels o, o+1 at one pixel; `first` is channel 0 of the image at that pixel.
fn dy_two(first: u32, o: u32) -> vec2<f32> {
    let plane = params.h_out * params.w_out;
    // Channels past the last repeat it; their sums are not stored.
    let last = params.c_out - 1u;
    return vec2<f32>(dy[first + min(o, last) * plane], dy[first + min(o + 1u, last) * plane]);
}

// Partial sums are laid out [split, k, l, c, o], o padded to a multiple of 8: whole vectors, no tails.
fn store_tap(block: u32, c: u32, k: u32, l: u32, split: u32, live: bool, pair: Pair) {
    if live && k < params.k_h && l < params.k_w {
        let tap = (split * params.k_h + k) * params.k_w + l;
        let at = ((tap * params.c_in + c) * params.half_blocks + block) * 2u;
        packed_out[at] = pair.a;
        packed_out[at + 1u] = pair.b;
    }
}

// Taps of the block that the kernel has; a 1 x 1 kernel computes one of nine.
override TAP_ROWS: u32 = 3u;
override TAP_COLUMNS: u32 = 3u;

@compute @workgroup_size(WG)
fn backward_weight(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    var linear = group_index(group, groups);
    let column = linear % params.columns;
    linear /= params.columns;
    let block = linear % params.half_blocks;
    linear /= params.half_blocks;
    let across = (params.k_w + 2u) / 3u;
    let down = (params.k_h + 2u) / 3u;
    let l0 = (linear % across) * 3u;
    linear /= across;
    let k0 = (linear % down) * 3u;
    let split = linear / down;
    let wanted = column * WG + local;
    let live = wanted < params.c_in && split < params.splits;
    let c = min(wanted, params.c_in - 1u);
    var s00a = vec4<f32>(0.0);
    var s00b = vec4<f32>(0.0);
    var s01a = vec4<f32>(0.0);
    var s01b = vec4<f32>(0.0);
    var s02a = vec4<f32>(0.0);
    var s02b = vec4<f32>(0.0);
    var s10a = vec4<f32>(0.0);
    var s10b = vec4<f32>(0.0);
    var s11a = vec4<f32>(0.0);
    var s11b = vec4<f32>(0.0);
    var s12a = vec4<f32>(0.0);
    var s12b = vec4<f32>(0.0);
    var s20a = vec4<f32>(0.0);
    var s20b = vec4<f32>(0.0);
    var s21a = vec4<f32>(0.0);
    var s21b = vec4<f32>(0.0);
    var s22a = vec4<f32>(0.0);
    var s22b = vec4<f32>(0.0);
    let rows = params.batch * params.h_out;
    let last_row = min((split + 1u) * params.split_rows, rows);
    let step = i32(STRIDE);
    for (var r = split * params.split_rows; r < last_row; r++) {
        let image = r / params.h_out;
        let row = r % params.h_out;
        let plane = (image * params.c_in + c) * params.h_in;
        let first = image * params.c_out * params.h_out * params.w_out + row * params.w_out;
        let up = i32(row * STRIDE + k0) - params.pad_y;
        let left = i32(l0) - params.pad_x;
        let bottom = i32(params.h_in) - 1;
        let in0 = (up >= 0) & (up <= bottom);
        let in1 = (up >= -1) & (up < bottom);
        let in2 = (up >= -2) & (up + 1 < bottom);
        let row0 = (plane + u32(clamp(up, 0, bottom))) * params.w_in;
        let row1 = (plane + u32(clamp(up + 1, 0, bottom))) * params.w_in;
        let row2 = (plane + u32(clamp(up + 2, 0, bottom))) * params.w_in;
        var x0 = vec3<f32>(0.0);
        var x1 = vec3<f32>(0.0);
        var x2 = vec3<f32>(0.0);
        if STRIDE == 1u && TAP_COLUMNS > 1u {
            x0 = vec3<f32>(0.0, input_at(row0, in0, left), input_at(row0, in0, left + 1));
            if TAP_ROWS > 1u {
                x1 = vec3<f32>(0.0, input_at(row1, in1, left), input_at(row1, in1, left + 1));
                x2 = vec3<f32>(0.0, input_at(row2, in2, left), input_at(row2, in2, left + 1));
            }
        }
        for (var j = 0u; j < params.w_out; j++) {
            let at = left + i32(j) * step;
            if TAP_COLUMNS == 1u {
                x0.x = input_at(row0, in0, at);
                if TAP_ROWS > 1u {
                    x1.x = input_at(row1, in1, at);
                    x2.x = input_at(row2, in2, at);
                }
            } else if STRIDE == 1u {
                x0 = vec3<f32>(x0.yz, input_at(row0, in0, at + 2));
                if TAP_ROWS > 1u {
                    x1 = vec3<f32>(x1.yz, input_at(row1, in1, at + 2));
                    x2 = vec3<f32>(x2.yz, input_at(row2, in2, at + 2));
                }
            } else {
                x0 = vec3<f32>(input_at(row0, in0, at), input_at(row0, in0, at + 1), input_at(row0, in0, at + 2));
                if TAP_ROWS > 1u {
                    x1 = vec3<f32>(input_at(row1, in1, at), input_at(row1, in1, at + 1), input_at(row1, in1, at + 2));
                    x2 = vec3<f32>(input_at(row2, in2, at), input_at(row2, in2, at + 1), input_at(row2, in2, at + 2));
                }
            }
            let pair = dy_pair(first + j, block * 8u, lane);
            s00a = fma(pair.a, vec4<f32>(x0.x), s00a);
            s00b = fma(pair.b, vec4<f32>(x0.x), s00b);
            if TAP_COLUMNS > 1u {
                s01a = fma(pair.a, vec4<f32>(x0.y), s01a);
                s01b = fma(pair.b, vec4<f32>(x0.y), s01b);
            }
            if TAP_COLUMNS > 1u {
                s02a = fma(pair.a, vec4<f32>(x0.z), s02a);
                s02b = fma(pair.b, vec4<f32>(x0.z), s02b);
            }
            if TAP_ROWS > 1u {
                s10a = fma(pair.a, vec4<f32>(x1.x), s10a);
                s10b = fma(pair.b, vec4<f32>(x1.x), s10b);
            }
            if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
                s11a = fma(pair.a, vec4<f32>(x1.y), s11a);
                s11b = fma(pair.b, vec4<f32>(x1.y), s11b);
            }
            if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
                s12a = fma(pair.a, vec4<f32>(x1.z), s12a);
                s12b = fma(pair.b, vec4<f32>(x1.z), s12b);
            }
            if TAP_ROWS > 1u {
                s20a = fma(pair.a, vec4<f32>(x2.x), s20a);
                s20b = fma(pair.b, vec4<f32>(x2.x), s20b);
            }
            if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
                s21a = fma(pair.a, vec4<f32>(x2.y), s21a);
                s21b = fma(pair.b, vec4<f32>(x2.y), s21b);
            }
            if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
                s22a = fma(pair.a, vec4<f32>(x2.z), s22a);
                s22b = fma(pair.b, vec4<f32>(x2.z), s22b);
            }
        }
    }
    store_tap(block, c, k0 + 0u, l0 + 0u, split, live, Pair(s00a, s00b));
    if TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 0u, l0 + 1u, split, live, Pair(s01a, s01b));
    }
    if TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 0u, l0 + 2u, split, live, Pair(s02a, s02b));
    }
    if TAP_ROWS > 1u {
        store_tap(block, c, k0 + 1u, l0 + 0u, split, live, Pair(s10a, s10b));
    }
    if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 1u, l0 + 1u, split, live, Pair(s11a, s11b));
    }
    if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 1u, l0 + 2u, split, live, Pair(s12a, s12b));
    }
    if TAP_ROWS > 1u {
        store_tap(block, c, k0 + 2u, l0 + 0u, split, live, Pair(s20a, s20b));
    }
    if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 2u, l0 + 1u, split, live, Pair(s21a, s21b));
    }
    if TAP_ROWS > 1u && TAP_COLUMNS > 1u {
        store_tap(block, c, k0 + 2u, l0 + 2u, split, live, Pair(s22a, s22b));
    }
}

// dw = sum of the splits, in order.
@compute @workgroup_size(WG)
fn reduce(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let taps = params.k_h * params.k_w;
        let tap = i % taps;
        let c = (i / taps) % params.c_in;
        let o = i / (taps * params.c_in);
        let channels = params.half_blocks * 8u;
        let first = (tap * params.c_in + c) * channels + o;
        var sum = 0.0;
        for (var split = 0u; split < params.splits; split++) {
            sum += partial[split * taps * params.c_in * channels + first];
        }
        y[i] = sum;
    }
}
