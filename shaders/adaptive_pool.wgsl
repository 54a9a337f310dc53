// Adaptive average pooling of x [planes, height, width] (planes = batch x channels) to y [planes, out_height, out_width]:
//   y[i, j] = mean of x over the rows floor(i height / out_height) .. ceil((i + 1) height / out_height), the end not
//             included, and the columns likewise
// The windows of neighbours overlap by a row where the sizes do not divide. One invocation per element of y, which adds
// its window row by row.
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
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// First place of window `i` of `windows` over `size` places, and the one behind its last.
fn window(i: u32, size: u32, windows: u32) -> vec2<u32> {
    return vec2<u32>(i * size / windows, ((i + 1u) * size + windows - 1u) / windows);
}

@compute @workgroup_size(WG)
fn mean(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let line = i / params.out_width;
        let plane = line / params.out_height;
        let rows = window(line - plane * params.out_height, params.height, params.out_height);
        let columns = window(i - line * params.out_width, params.width, params.out_width);
        var sum = 0.0;
        for (var row = rows.x; row < rows.y; row++) {
            for (var column = columns.x; column < columns.y; column++) {
                sum += x[(plane * params.height + row) * params.width + column];
            }
        }
        y[i] = sum / f32((rows.y - rows.x) * (columns.y - columns.x));
    }
}
