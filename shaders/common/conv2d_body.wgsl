// 2-D convolution, NCHW, and its two gradients.
//   forward           y[n,o,i,j]  = sum_{c,k,l} w[o,c,k,l] x[n,c, i s + k - p, j s + l - p]
//   backward_input    dx = the same sum over dy with the kernel mirrored and its two channel axes swapped,
//                     padding K-1-p, and dy spread out by the stride (DILATE)
//   backward_weight   dw[o,c,k,l] = sum_{n,i,j} dy[n,o,i,j] x[n,c, i s + k - p, j s + l - p]
// Terms outside the image are zero. Sums are f32 in a fixed order.
// Conditions are joined by `&`: `&&` makes a branch of each, over which some compilers (SwiftShader) take minutes.
//
// x may be given as z, the output of another convolution, with the statistics of its batch norm: it is then
//   x = leaky_relu((z - mean) scale + shift), computed where z is loaded (NORMED, or `normed` among the parameters).
// x and y may be stored in half precision, two to a word (X_HALF, Y_HALF); rows of y then have an even length.
//
// pack / pack_mirrored: weights [o,c,k,l] -> `packed`, for each (input channel, k, l) a row of output channels,
//   four to a vector, padded with zeros to packed_row vectors.
// forward_OxP: conv2d_forward.wgsl, one invocation computes O output channels x P neighbouring pixels of a row.
// backward_weight_O: conv2d_backward_weight.wgsl, one invocation computes O output channels x 3 x 3 taps of one input
//   channel over some image rows, a split; `reduce` adds the splits in order.
// forward_unrolled_OxP, forward_1x1_unrolled_OxP, backward_weight_unrolled_O, backward_weight_1x1_unrolled_OxC: the same sums
//   for software adapters, by conv2d_forward_unrolled.wgsl, conv2d_pointwise_unrolled.wgsl,
//   conv2d_backward_weight_unrolled.wgsl and conv2d_pointwise_weight_unrolled.wgsl.
// forward_3x3_..., forward_1x1_..., backward_weight_3x3_..., backward_weight_1x1_...: conv2d_forward_tiled.wgsl,
//   conv2d_pointwise_tiled.wgsl, conv2d_backward_weight_tiled.wgsl, conv2d_pointwise_weight_tiled.wgsl; the same sums,
//   by tiles that a workgroup shares in its memory.
// The values that all lanes of a workgroup share come from packed_N and upstream_N, which differ between
// conv2d.wgsl (each lane loads all) and conv2d_subgroup.wgsl (the lanes load a part each, the subgroup broadcasts).
#import common/four_of
#import common/index
#import common/one_of
#import common/conv2d_input_if_normed

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
    packed_row: u32,   // vectors of output channels in a row of packed weights or partial sums
    splits: u32,       // backward_weight: parts of the batch x h_out rows
    first_split: u32,  // backward_weight: where x and dy begin, if they are a part
    split_rows: u32,   // rows of one split
    chain: u32,        // input channels (forward) or image rows (backward_weight) whose sum joins the total at once
    normed: u32,       // whether x is normalised
    slope: f32,        // of the LeakyReLU of a normalised x; 1 for any other
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> partial: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<u32>;
@group(0) @binding(7) var<storage, read_write> packed_out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> statistics: array<f32>;
@group(0) @binding(9) var<storage, read> x_as_vectors: array<vec4<u32>>;
@group(0) @binding(10) var<storage, read> dy_as_vectors: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> y_as_pairs: array<vec2<u32>>;

override STRIDE: u32 = 1u;
override Y_HALF: bool = false;

// ---------------------------------------------------------------------------------------------- packing

// The index of a weight is found with few divisions: software adapters divide integers slowly.

fn weight_at(o: u32, at: u32) -> f32 {
    return select(0.0, weight[at], o < params.c_out);
}

@compute @workgroup_size(WG)
fn pack(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        // A row is an input channel and a tap, as in the weights of one output channel.
        let row = i / params.packed_row;
        let o = (i - row * params.packed_row) * 4u;
        let rows = params.c_in * params.k_h * params.k_w;
        let last = params.c_out - 1u;
        packed_out[i] = vec4<f32>(weight_at(o, min(o, last) * rows + row),
                                  weight_at(o + 1u, min(o + 1u, last) * rows + row),
                                  weight_at(o + 2u, min(o + 2u, last) * rows + row),
                                  weight_at(o + 3u, min(o + 3u, last) * rows + row));
    }
}

// Output channel o of the backward convolution is input channel o of the forward one.
@compute @workgroup_size(WG)
fn pack_mirrored(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.packed_row;
        let o = (i - row * params.packed_row) * 4u;
        let taps = params.k_h * params.k_w;
        let c = row / taps;
        let tap = taps - 1u - (row - c * taps);
        let first = c * params.c_out;
        let last = params.c_out - 1u;
        packed_out[i] = vec4<f32>(weight_at(o, (first + min(o, last)) * taps + tap),
                                  weight_at(o + 1u, (first + min(o + 1u, last)) * taps + tap),
                                  weight_at(o + 2u, (first + min(o + 2u, last)) * taps + tap),
                                  weight_at(o + 3u, (first + min(o + 3u, last)) * taps + tap));
    }
}

// ---------------------------------------------------------------------------------------------- forward

// x at a column of the row that begins at `row`.
fn input_at(row: u32, row_inside: bool, column: i32, channel: vec3<f32>) -> f32 {
    let place = place_of(column, params.w_in);
    return value_at(row + place.at, row_inside & place.inside, channel);
}

// The same at four neighbouring columns.
fn four_at(row: u32, inside: bool, column: i32, channel: vec3<f32>) -> vec4<f32> {
    return vec4<f32>(input_at(row, inside, column, channel), input_at(row, inside, column + 1, channel),
                     input_at(row, inside, column + 2, channel), input_at(row, inside, column + 3, channel));
}

fn activated_at(row: u32, row_inside: bool, column: i32, channel: vec3<f32>) -> f32 {
    return activated_in(row, row_inside, place_of(column, params.w_in), channel);
}

// Index of an output row, counted over all images, where every image has two rows more: those of its border.
fn padded_row(row: u32) -> u32 {
    return row + 2u * (row / params.h_out);
}

fn store_four(o: u32, at: u32, j: u32, live: bool, sum: vec4<f32>) {
    if live & (o < params.c_out) & (j < params.w_out) {
        let first = at + o * params.h_out * params.w_out;
        if Y_HALF {
            y[first / 2u] = pack2x16float(sum.xy);
            if j + 2u < params.w_out { y[first / 2u + 1u] = pack2x16float(sum.zw); }
        } else {
            y[first] = bitcast<u32>(sum.x);
            if j + 1u < params.w_out { y[first + 1u] = bitcast<u32>(sum.y); }
            if j + 2u < params.w_out { y[first + 2u] = bitcast<u32>(sum.z); }
            if j + 3u < params.w_out { y[first + 3u] = bitcast<u32>(sum.w); }
        }
    }
}

// Four neighbouring elements of x, the run-th of its runs. In half precision two runs share a vector.
fn stored_run(run: u32) -> vec4<f32> {
    if X_HALF { return four_halves_of(x_as_vectors[run / 2u], run); }
    return bitcast<vec4<f32>>(x_as_vectors[run]);
}

fn run_words(run: i32, last: i32) -> vec4<u32> {
    return bitcast<vec4<u32>>(stored_run(u32(clamp(run, 0, last))));
}

// Ten neighbouring elements of x from `first` on, and two more that are not used; `last` is the last run of x. What lies before
// or behind x has the value of some element.
fn ten_of_x(first: i32, last: i32) -> array<vec4<f32>, 3> {
    let run = first >> 2u;
    let b = run_words(run + 1, last);
    let c = run_words(run + 2, last);
    let begin = u32(first) & 3u;
    return array<vec4<f32>, 3>(bitcast<vec4<f32>>(four_of(run_words(run, last), b, begin)),
                               bitcast<vec4<f32>>(four_of(b, c, begin)),
                               bitcast<vec4<f32>>(four_of(c, run_words(run + 3, last), begin)));
}

#import common/conv2d_forward NAME=forward_8x4 Q=2 P=1
#import common/conv2d_forward NAME=forward_16x4 Q=4 P=1
#import common/conv2d_forward NAME=forward_16x8 Q=4 P=2
#import common/conv2d_forward NAME=forward_32x4 Q=8 P=1
#import common/conv2d_forward_unrolled NAME=forward_unrolled_16x16 Q=4 R=2
#import common/conv2d_forward_unrolled NAME=forward_unrolled_32x8 Q=8 R=1

// A vector of the packed weights: output channels `vector` of an input channel and tap, zero beyond the last.
fn packed_at(tap: u32, vector: u32) -> vec4<f32> {
    let inside = (vector < params.packed_row) & (tap < params.c_in * params.k_h * params.k_w);
    return select(vec4<f32>(0.0), packed[select(0u, tap * params.packed_row + vector, inside)], inside);
}

// The pixel of a tile that lane `lane` of `lanes` takes as its p-th: neighbouring lanes, neighbouring pixels; where two
// share a word of y, one lane takes both.
fn pixel_of(p: u32, lane: u32, lanes: u32) -> u32 {
    if Y_HALF { return (p - p % 2u) * lanes + 2u * lane + p % 2u; }
    return p * lanes + lane;
}

// Where y has channel o of a pixel, counted over all images.
fn output_at(o: u32, pixel: u32) -> u32 {
    let size = params.h_out * params.w_out;
    let image = pixel / size;
    return (image * params.c_out + o) * size + pixel - image * size;
}

// Four output channels of two pixels.
fn store_pixels(o: u32, pixel: u32, next: u32, sum: vec4<f32>, next_sum: vec4<f32>) {
    let size = params.h_out * params.w_out;
    let pixels = params.batch * size;
    let at = output_at(o, pixel);
    if Y_HALF {
        if (pixel < pixels) & (o < params.c_out) { y[at / 2u] = pack2x16float(vec2<f32>(sum.x, next_sum.x)); }
        if (pixel < pixels) & (o + 1u < params.c_out) { y[(at + size) / 2u] = pack2x16float(vec2<f32>(sum.y, next_sum.y)); }
        if (pixel < pixels) & (o + 2u < params.c_out) { y[(at + 2u * size) / 2u] = pack2x16float(vec2<f32>(sum.z, next_sum.z)); }
        if (pixel < pixels) & (o + 3u < params.c_out) { y[(at + 3u * size) / 2u] = pack2x16float(vec2<f32>(sum.w, next_sum.w)); }
    } else {
        store_pixel(o, pixel, sum);
        store_pixel(o, next, next_sum);
    }
}

fn store_pixel(o: u32, pixel: u32, sum: vec4<f32>) {
    let size = params.h_out * params.w_out;
    if pixel < params.batch * size {
        let at = output_at(o, pixel);
        if o < params.c_out { y[at] = bitcast<u32>(sum.x); }
        if o + 1u < params.c_out { y[at + size] = bitcast<u32>(sum.y); }
        if o + 2u < params.c_out { y[at + 2u * size] = bitcast<u32>(sum.z); }
        if o + 3u < params.c_out { y[at + 3u * size] = bitcast<u32>(sum.w); }
    }
}

#import common/conv2d_forward_tiled NAME=forward_3x3_64x128 Q=2 R=1 L=32 G=8 PATCH=192
#import common/conv2d_forward_tiled NAME=forward_3x3_32x256 Q=2 R=2 L=32 G=4 PATCH=192
#import common/conv2d_forward_tiled NAME=forward_3x3_32x128 Q=2 R=1 L=32 G=4 PATCH=160
#import common/conv2d_pointwise_tiled NAME=forward_1x1_32x128 Q=2 P=4 L=32 G=4

fn run_of_x(run: u32, channel: vec3<f32>) -> vec4<f32> {
    let value = stored_run(run);
    if !NORMED { return value; }
    return activated_four(value, channel);
}

// Four neighbouring elements of y, the run-th of its runs.
fn store_run(run: u32, value: vec4<f32>) {
    if Y_HALF {
        y_as_pairs[run] = vec2<u32>(pack2x16float(value.xy), pack2x16float(value.zw));
    } else {
        y_as_pairs[2u * run] = bitcast<vec2<u32>>(value.xy);
        y_as_pairs[2u * run + 1u] = bitcast<vec2<u32>>(value.zw);
    }
}

#import common/conv2d_pointwise_unrolled NAME=forward_1x1_unrolled_16x16 Q=4 P=4
#import common/conv2d_pointwise_unrolled NAME=forward_1x1_unrolled_32x8 Q=8 P=2

// ---------------------------------------------------------------------------------------------- backward_weight

// dy of the output channels o, o+1 at one pixel; `first` is channel 0 of the image at that pixel.
fn dy_two(first: u32, o: u32) -> vec2<f32> {
    let plane = params.h_out * params.w_out;
    // Channels past the last repeat it; their sums are not stored.
    let last = params.c_out - 1u;
    return vec2<f32>(dy[first + min(o, last) * plane], dy[first + min(o + 1u, last) * plane]);
}

// Taps of the block that the kernel has; a 1 x 1 kernel computes one of nine.
override TAP_ROWS: u32 = 3u;
override TAP_COLUMNS: u32 = 3u;

// Partial sums are laid out [split, k, l, c, o], o padded to packed_row vectors: no tails.
#import common/conv2d_backward_weight NAME=backward_weight_4 Q=1
#import common/conv2d_backward_weight NAME=backward_weight_8 Q=2
#import common/conv2d_backward_weight NAME=backward_weight_16 Q=4

// A run of x with batch norm and LeakyReLU as the parameters say, zero outside the image.
fn run_if(run: u32, inside: bool, channel: vec3<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), activated_four(stored_run(run), channel), inside);
}

#import common/conv2d_backward_weight_unrolled NAME=backward_weight_unrolled_16 Q=4

#import common/conv2d_backward_weight_tiled NAME=backward_weight_3x3_64x16 Q=1 G=16
#import common/conv2d_backward_weight_tiled NAME=backward_weight_3x3_32x16 Q=1 G=8
#import common/conv2d_pointwise_weight_tiled NAME=backward_weight_1x1_32x80 C=80 Q=1 G=8
#import common/conv2d_pointwise_weight_unrolled NAME=backward_weight_1x1_unrolled_32x4 Q=8 C=4

// dw = sum of the splits, in order. Lanes side by side take neighbouring output channels, and an invocation takes a row of
// the kernel: what it stores is then side by side, too.
@compute @workgroup_size(WG)
fn reduce(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let pair = i / params.c_out;
        let o = i - pair * params.c_out;
        let c = pair / params.k_h;
        let k = pair - c * params.k_h;
        let channels = params.packed_row * 4u;
        let plane = params.c_in * channels;
        let size = params.k_h * params.k_w * plane;
        let first = (o * params.c_in + c) * params.k_h + k;
        for (var l = 0u; l < params.k_w; l++) {
            var at = (k * params.k_w + l) * plane + c * channels + o;
            var sum = 0.0;
            for (var split = 0u; split < params.splits; split++) {
                sum += partial[at];
                at += size;
            }
            y[first * params.k_w + l] = bitcast<u32>(sum);
        }
    }
}
