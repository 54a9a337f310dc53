// Pooling of x [planes, height, width] (planes = batch x channels).
//   max_2x2:       y = max over each 2 x 2 window of v; an odd last row or column is left out (floor)
//                  v = leaky_relu(u), u = x, or x + x2 (TWO: the end of a residual block)
//                  each of x, x2 may be given before its batch norm, with the statistics of that (NORMED, NORMED2),
//                  and stored in half precision (X_HALF, X2_HALF)
//   max_2x2_backward: du = dy at the window's first maximum in row-major order, times the slope where u <= 0;
//                  0 elsewhere
//   max_2x2_by_four, max_2x2_backward_by_four: the same where rows are whole vectors of four: two windows side by side
//   mean:          y = mean over the plane (global average pool)
//   mean_backward: dx = dy / (height width)
// max_2x2, max_2x2_backward: one invocation per window, or two windows (for the latter also the cut ones at the edge);
// mean: one invocation per plane; mean_backward: one per element.
#import common/finite
#import common/half
#import common/index

struct Params {
    n: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    slope: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> x2: array<u32>;
@group(0) @binding(3) var<storage, read> statistics: array<f32>;
@group(0) @binding(4) var<storage, read> statistics2: array<f32>;
@group(0) @binding(5) var<storage, read> dy: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;
@group(0) @binding(7) var<storage, read> x_as_vectors: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read> x2_as_vectors: array<vec4<u32>>;
@group(0) @binding(9) var<storage, read> dy_as_pairs: array<vec2<f32>>;
@group(0) @binding(10) var<storage, read_write> y_as_pairs: array<vec2<f32>>;
@group(0) @binding(11) var<storage, read_write> y_as_vectors: array<vec4<f32>>;

override TWO: bool = false;
override NORMED: bool = false;
override NORMED2: bool = false;
override X_HALF: bool = false;
override X2_HALF: bool = false;

// Batch norm of channel c of x, and of x2: mean, scale, shift. Rows of the statistics: mean, rstd, variance, scale, shift.
fn norm_of(c: u32) -> vec3<f32> {
    return vec3<f32>(statistics[c], statistics[3u * params.channels + c], statistics[4u * params.channels + c]);
}

fn norm2_of(c: u32) -> vec3<f32> {
    return vec3<f32>(statistics2[c], statistics2[3u * params.channels + c], statistics2[4u * params.channels + c]);
}

fn normalised(value: vec4<f32>, norm: vec3<f32>) -> vec4<f32> {
    return (value - norm.x) * norm.y + norm.z;
}

// u of four elements of a channel, as x and x2 have them.
fn sum_of(first: vec4<f32>, second: vec4<f32>, c: u32) -> vec4<f32> {
    var u = first;
    if NORMED { u = normalised(u, norm_of(c)); }
    if TWO {
        if NORMED2 { u += normalised(second, norm2_of(c)); } else { u += second; }
    }
    return u;
}

fn x_at(i: u32) -> f32 {
    if X_HALF { return half_of(x[i / 2u], i); }
    return bitcast<f32>(x[i]);
}

fn x2_at(i: u32) -> f32 {
    if X2_HALF { return half_of(x2[i / 2u], i); }
    return bitcast<f32>(x2[i]);
}

// Four neighbouring elements, the run-th four of the tensor.
fn x_run(run: u32) -> vec4<f32> {
    if X_HALF { return four_halves_of(x_as_vectors[run / 2u], run); }
    return bitcast<vec4<f32>>(x_as_vectors[run]);
}

fn x2_run(run: u32) -> vec4<f32> {
    if X2_HALF { return four_halves_of(x2_as_vectors[run / 2u], run); }
    return bitcast<vec4<f32>>(x2_as_vectors[run]);
}

fn activated(u: vec4<f32>) -> vec4<f32> {
    return select(params.slope * u, u, u > vec4<f32>(0.0));
}

// u of the window whose first element is `at`.
fn window_at(at: u32, plane: u32) -> vec4<f32> {
    let below = at + params.width;
    let first = vec4<f32>(x_at(at), x_at(at + 1u), x_at(below), x_at(below + 1u));
    var second = vec4<f32>(0.0);
    if TWO { second = vec4<f32>(x2_at(at), x2_at(at + 1u), x2_at(below), x2_at(below + 1u)); }
    return sum_of(first, second, plane % params.channels);
}

// u of four neighbouring elements.
fn run_at(run: u32, c: u32) -> vec4<f32> {
    var second = vec4<f32>(0.0);
    if TWO { second = x2_run(run); }
    return sum_of(x_run(run), second, c);
}

// Whether a value takes the place of the maximum so far. The first NaN wins and stays: it must not vanish.
fn wins(value: f32, best: f32) -> bool {
    return !is_nan(best) & (is_nan(value) | (value > best));
}

// Position of the first maximum.
fn first_maximum(v: vec4<f32>) -> u32 {
    var first = 0u;
    var best = v.x;
    if wins(v.y, best) { best = v.y; first = 1u; }
    if wins(v.z, best) { best = v.z; first = 2u; }
    if wins(v.w, best) { first = 3u; }
    return first;
}

@compute @workgroup_size(WG)
fn max_2x2(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.out_width;
        let plane = row / params.out_height;
        let at = (plane * params.height + (row - plane * params.out_height) * 2u) * params.width
            + (i - row * params.out_width) * 2u;
        let v = activated(window_at(at, plane));
        y[i] = v[first_maximum(v)];
    }
}

@compute @workgroup_size(WG)
fn max_2x2_by_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let runs = params.width / 4u;
        let row = i / runs;
        let plane = row / params.out_height;
        let run = (plane * params.height + (row - plane * params.out_height) * 2u) * runs + i - row * runs;
        let c = plane % params.channels;
        let above = activated(run_at(run, c));
        let below = activated(run_at(run + runs, c));
        let left = vec4<f32>(above.xy, below.xy);
        let right = vec4<f32>(above.zw, below.zw);
        y_as_pairs[i] = vec2<f32>(left[first_maximum(left)], right[first_maximum(right)]);
    }
}

// du of a window with these u.
fn gradient_of(u: vec4<f32>, upstream: f32) -> vec4<f32> {
    let first = first_maximum(activated(u));
    return select(vec4<f32>(0.0), select(vec4<f32>(params.slope * upstream), vec4<f32>(upstream), u > vec4<f32>(0.0)),
                  vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(first));
}

@compute @workgroup_size(WG)
fn max_2x2_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let across = (params.width + 1u) / 2u;
        let down = (params.height + 1u) / 2u;
        let line = i / across;
        let plane = line / down;
        let row = line - plane * down;
        let column = i - line * across;
        let at = (plane * params.height + row * 2u) * params.width + column * 2u;
        var g = vec4<f32>(0.0);
        if row < params.out_height && column < params.out_width {
            g = gradient_of(window_at(at, plane), dy[(plane * params.out_height + row) * params.out_width + column]);
        }
        let right = column * 2u + 1u < params.width;
        let below = row * 2u + 1u < params.height;
        y[at] = g.x;
        if right { y[at + 1u] = g.y; }
        if below { y[at + params.width] = g.z; }
        if right && below { y[at + params.width + 1u] = g.w; }
    }
}

@compute @workgroup_size(WG)
fn max_2x2_backward_by_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let runs = params.width / 4u;
        let down = (params.height + 1u) / 2u;
        let line = i / runs;
        let plane = line / down;
        let row = line - plane * down;
        let column = i - line * runs;
        let run = (plane * params.height + row * 2u) * runs + column;
        if row < params.out_height {
            let c = plane % params.channels;
            let above = run_at(run, c);
            let below = run_at(run + runs, c);
            let upstream = dy_as_pairs[(plane * params.out_height + row) * runs + column];
            let left = gradient_of(vec4<f32>(above.xy, below.xy), upstream.x);
            let right = gradient_of(vec4<f32>(above.zw, below.zw), upstream.y);
            y_as_vectors[run] = vec4<f32>(left.xy, right.xy);
            y_as_vectors[run + runs] = vec4<f32>(left.zw, right.zw);
        } else {
            y_as_vectors[run] = vec4<f32>(0.0);
        }
    }
}

@compute @workgroup_size(WG)
fn mean(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let size = params.height * params.width;
        var sum = 0.0;
        for (var s = 0u; s < size; s++) {
            sum += bitcast<f32>(x[i * size + s]);
        }
        y[i] = sum / f32(size);
    }
}

@compute @workgroup_size(WG)
fn mean_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let size = params.height * params.width;
        y[i] = dy[i / size] / f32(size);
    }
}
