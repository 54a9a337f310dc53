// Pooling of x [planes, height, width] (planes = batch x channels).
//   max:           y = max over each 2 x 2 window; an odd last row or column is left out (floor)
//   max_backward:  dx = dy at the window's first maximum in row-major order, 0 elsewhere
//   mean:          y = mean over the plane (global average pool)
//   mean_backward: dx = dy / (height width)
// max, max_backward: one invocation a window (for max_backward also the cut ones at the edge);
// mean: one invocation a plane; mean_backward: one invocation an element.
#import common/index

struct Params {
    n: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn max_2x2(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.out_width;
        let plane = row / params.out_height;
        let at = (plane * params.height + (row - plane * params.out_height) * 2u) * params.width
            + (i - row * params.out_width) * 2u;
        var best = x[at];
        let second = x[at + 1u];
        let third = x[at + params.width];
        let fourth = x[at + params.width + 1u];
        // `!(a <= b)` rather than max: a NaN must win, not vanish.
        if !(second <= best) { best = second; }
        if !(third <= best) { best = third; }
        if !(fourth <= best) { best = fourth; }
        y[i] = best;
    }
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
        let whole = row < params.out_height && column < params.out_width;
        var first = 0u;
        var g = 0.0;
        if whole {
            g = dy[(plane * params.out_height + row) * params.out_width + column];
            var best = x[at];
            let second = x[at + 1u];
            let third = x[at + params.width];
            let fourth = x[at + params.width + 1u];
            if !(second <= best) { best = second; first = 1u; }
            if !(third <= best) { best = third; first = 2u; }
            if !(fourth <= best) { best = fourth; first = 3u; }
        }
        let right = column * 2u + 1u < params.width;
        let below = row * 2u + 1u < params.height;
        y[at] = select(0.0, g, first == 0u);
        if right { y[at + 1u] = select(0.0, g, first == 1u); }
        if below { y[at + params.width] = select(0.0, g, first == 2u); }
        if right && below { y[at + params.width + 1u] = select(0.0, g, first == 3u); }
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
            sum += x[i * size + s];
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
