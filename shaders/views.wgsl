// The views of a batch (docs/method.md, Views): crop, warp, colour jitter, flip, normalise, rotate.
//   base[row, col] = image[row + dy - margin, col + dx - margin], 0 outside the image and outside the crop
//   (u, v, w)      = map (col + 1/2, row + 1/2, 1);  (u, v) /= w where the map is projective
//   view[row, col] = base at (clamp(u - 1/2, left, right), clamp(v - 1/2, top, bottom)), bilinear
//   then in the view's order, each clamped to [0, 1], with gray = .2989 R + .587 G + .114 B:
//     brightness f x;  contrast f x + (1 - f) mean of gray over the view;  saturation f x + (1 - f) gray
//   x = (view - mean) / std, its columns reversed where the view is flipped; copy r is x turned by (r + the view's own
//   turns) * 90 degrees counter-clockwise.
// A clamp to [0, side - 1] or less repeats the edge of a window; one to [-1, side] fades to 0 outside the crop.
//   images: [N, side, side] words, R in the low byte; or with float_images 1, the f32 bits of [N, 3, side, side]
//   index: [batch] image of each slot;  parameters: [views * batch, 20], see `load_view`
//   x: [views * rotations * batch, 3, side, side], row (view * rotations + r) * batch + slot
// One workgroup makes the copies of one view of one slot: the mean of gray first, where the contrast changes
// (strided sums, then a tree: a fixed order), then the pixels, each written to every copy.
// Numeric care: where the identity is mapped every product is exact, so that an evaluated image is (x - mean) / std.
#import common/index

struct Params {
    batch: u32,
    views: u32,
    rotations: u32,
    side: u32,
    margin: u32, // zero pixels around an image that a crop may reach
    float_images: u32,
    mean_r: f32,
    mean_g: f32,
    mean_b: f32,
    std_r: f32,
    std_g: f32,
    std_b: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> images: array<u32>;
@group(0) @binding(2) var<storage, read> index: array<u32>;
@group(0) @binding(3) var<storage, read> parameters: array<u32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;

const WORDS: u32 = 20u;
const FLIP: u32 = 1u;
const PROJECTIVE: u32 = 2u;
const TURNS: u32 = 2u; // the first of the two bits of the turns
const BRIGHTNESS: u32 = 1u;
const CONTRAST: u32 = 2u;
const SATURATION: u32 = 3u;

var<workgroup> sh_gray: array<f32, 256>;

struct View {
    image: u32,
    corner: vec2<i32>, // of the crop in the image: column, row
    map_u: vec3<f32>,
    map_v: vec3<f32>,
    map_w: vec3<f32>,
    low: vec2<f32>, // left, top
    high: vec2<f32>, // right, bottom
    flags: u32,
    order: u32, // three fields of two bits, the first operation lowest; 0 is none
    factors: vec3<f32>, // of brightness, contrast, saturation
}

fn real(word: u32) -> f32 {
    return bitcast<f32>(parameters[word]);
}

// 0 dy, 1 dx, 2..10 map by rows, 11 left, 12 right, 13 top, 14 bottom, 15 flags, 16 order, 17..19 factors.
fn load_view(row: u32) -> View {
    let p = row * WORDS;
    let margin = i32(params.margin);
    var view: View;
    view.image = index[row % params.batch];
    view.corner = vec2<i32>(i32(parameters[p + 1u]) - margin, i32(parameters[p]) - margin);
    view.map_u = vec3<f32>(real(p + 2u), real(p + 3u), real(p + 4u));
    view.map_v = vec3<f32>(real(p + 5u), real(p + 6u), real(p + 7u));
    view.map_w = vec3<f32>(real(p + 8u), real(p + 9u), real(p + 10u));
    view.low = vec2<f32>(real(p + 11u), real(p + 13u));
    view.high = vec2<f32>(real(p + 12u), real(p + 14u));
    view.flags = parameters[p + 15u];
    view.order = parameters[p + 16u];
    view.factors = vec3<f32>(real(p + 17u), real(p + 18u), real(p + 19u));
    return view;
}

// Pixel (column, row) of the crop, in [0, 1].
fn base(view: View, at: vec2<i32>) -> vec3<f32> {
    let side = i32(params.side);
    let source = at + view.corner;
    if any(min(at, source) < vec2<i32>(0)) || any(max(at, source) >= vec2<i32>(side)) {
        return vec3<f32>(0.0);
    }
    let pixel = u32(source.y * side + source.x);
    let pixels = params.side * params.side;
    if params.float_images == 1u {
        let first = 3u * view.image * pixels + pixel;
        return vec3<f32>(
            bitcast<f32>(images[first]),
            bitcast<f32>(images[first + pixels]),
            bitcast<f32>(images[first + 2u * pixels]),
        );
    }
    let word = images[view.image * pixels + pixel];
    return vec3<f32>(f32(word & 255u), f32((word >> 8u) & 255u), f32((word >> 16u) & 255u)) / 255.0;
}

// The view at output pixel (column, row), before the jitter.
fn warped(view: View, column: u32, row: u32) -> vec3<f32> {
    let at = vec3<f32>(f32(column) + 0.5, f32(row) + 0.5, 1.0);
    var source = vec2<f32>(dot(view.map_u, at), dot(view.map_v, at));
    if (view.flags & PROJECTIVE) != 0u {
        source /= dot(view.map_w, at);
    }
    source = clamp(source - 0.5, view.low, view.high);
    let near = floor(source);
    let far = min(near + 1.0, view.high);
    let weight = source - near;
    let a = vec2<i32>(near);
    let b = vec2<i32>(far);
    let upper = base(view, a) * (1.0 - weight.x) + base(view, vec2<i32>(b.x, a.y)) * weight.x;
    let lower = base(view, vec2<i32>(a.x, b.y)) * (1.0 - weight.x) + base(view, b) * weight.x;
    return upper * (1.0 - weight.y) + lower * weight.y;
}

fn gray(c: vec3<f32>) -> f32 {
    return dot(c, vec3<f32>(0.2989, 0.587, 0.114));
}

fn operation(view: View, k: u32) -> u32 {
    return (view.order >> (2u * k)) & 3u;
}

fn has_contrast(view: View) -> bool {
    return operation(view, 0u) == CONTRAST || operation(view, 1u) == CONTRAST || operation(view, 2u) == CONTRAST;
}

// The colour operations in the view's order; those before the contrast only, when that is where to stop.
fn jittered(view: View, colour: vec3<f32>, mean_gray: f32, stop_at_contrast: bool) -> vec3<f32> {
    var c = colour;
    for (var k = 0u; k < 3u; k++) {
        let what = operation(view, k);
        if what == CONTRAST && stop_at_contrast {
            return c;
        }
        if what == BRIGHTNESS {
            c = c * view.factors.x;
        } else if what == CONTRAST {
            c = view.factors.y * c + (1.0 - view.factors.y) * mean_gray;
        } else if what == SATURATION {
            c = view.factors.z * c + (1.0 - view.factors.z) * gray(c);
        }
        if what != 0u {
            c = clamp(c, vec3<f32>(0.0), vec3<f32>(1.0));
        }
    }
    return c;
}

@compute @workgroup_size(WG)
fn views(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let inside = row < params.views * params.batch;
    let view = load_view(select(0u, row, inside));
    let all_pixels = params.side * params.side;
    let pixels = select(0u, all_pixels, inside);

    var sum = 0.0;
    for (var i = local; i < select(0u, pixels, has_contrast(view)); i += WG) {
        sum += gray(jittered(view, warped(view, i % params.side, i / params.side), 0.0, true));
    }
    sh_gray[local] = sum;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if local < half {
            sh_gray[local] += sh_gray[local + half];
        }
        workgroupBarrier();
    }
    let mean_gray = sh_gray[0] / f32(all_pixels);

    let mean = vec3<f32>(params.mean_r, params.mean_g, params.mean_b);
    let deviation = vec3<f32>(params.std_r, params.std_g, params.std_b);
    let last = params.side - 1u;
    for (var i = local; i < pixels; i += WG) {
        let out_row = i / params.side;
        let column = i % params.side;
        let c = (jittered(view, warped(view, column, out_row), mean_gray, false) - mean) / deviation;
        let out_column = select(column, last - column, (view.flags & FLIP) != 0u);
        for (var r = 0u; r < params.rotations; r++) {
            let turns = view.flags >> TURNS;
            let quarters = (r + turns) & 3u;
            var to = vec2<u32>(out_column, out_row);
            if quarters == 1u {
                to = vec2<u32>(out_row, last - out_column);
            } else if quarters == 2u {
                to = vec2<u32>(last - out_column, last - out_row);
            } else if quarters == 3u {
                to = vec2<u32>(last - out_row, out_column);
            }
            let copy = (row / params.batch * params.rotations + r) * params.batch + row % params.batch;
            let first = 3u * copy * all_pixels + to.y * params.side + to.x;
            x[first] = c.x;
            x[first + all_pixels] = c.y;
            x[first + 2u * all_pixels] = c.z;
        }
    }
}
