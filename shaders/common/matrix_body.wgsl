// Products of matrices whose factors are rounded to half precision, for units that multiply such matrices, with sums in f32.
//   convolve          y[n,o,i,j] = sum_{k,l,c} w[o,c,k,l] x[n,c, i s + k - p, j s + l - p], forward or mirrored, as in
//                     conv2d_body.wgsl, from the weights that `conv2d.pack` or `conv2d.pack_mirrored` packed
//   backward_weight   the splits' sums of dw[o,c,k,l], which `conv2d.reduce` adds
//   product           y[m,n] = sum_k a(m,k) b(k,n), as in matmul_body.wgsl
// Each factor is multiplied by a power of two, `left` or `right`, with which its largest element is just below 2^15, and
// the sum by their inverses (scale.wgsl). With SPLIT a factor is two halves, v = high + low / 2^11, and three of the four
// products are summed, those with a low half by themselves: 22 bits of each factor count instead of 11.
// The terms of CHAIN stages are summed before they join the total.
//
// A workgroup of 128 invocations computes TILE x TILE elements, in stages of STAGE terms: both factors are scaled, rounded
// and brought to workgroup memory, [term][row or column]. What multiplies them there differs: matrix_units.wgsl (a file per
// kind of unit), matrix_scalar.wgsl (any adapter; for tests). An entry point NAME is made of
//   NAME_tile    which elements the workgroup computes, and how many stages they have
//   NAME_stage   brings a stage
//   NAME_store   stores two neighbouring elements of a row
#import common/index
#import common/conv2d_input

struct Params {
    batch: u32,
    c_in: u32,
    h_in: u32,
    w_in: u32,
    c_out: u32,
    h_out: u32,
    w_out: u32,
    k_h: u32,
    k_w: u32,
    pad_y: i32,        // zeros above and to the left; negative where the mirrored convolution crops
    pad_x: i32,
    packed_row: u32,   // vectors of output channels in a row of packed weights or partial sums
    splits: u32,       // backward_weight: parts of the batch x h_out rows
    first_split: u32,  // backward_weight: where x and dy begin, if they are a part
    split_rows: u32,   // rows of one split
    slope: f32,        // of the LeakyReLU of a normalised x
    rows: u32,         // product
    columns: u32,
    inner: u32,
    a_m: u32,
    a_k: u32,
    b_k: u32,
    b_n: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> statistics: array<f32>;
@group(0) @binding(5) var<storage, read> a: array<f32>;
@group(0) @binding(6) var<storage, read> b: array<f32>;
@group(0) @binding(7) var<storage, read> left: array<f32>;
@group(0) @binding(8) var<storage, read> right: array<f32>;
@group(0) @binding(9) var<storage, read_write> y: array<u32>;
@group(0) @binding(10) var<storage, read_write> partial_out: array<f32>;

override STRIDE: u32 = 1u;
override Y_HALF: bool = false;
override SPLIT: bool = false;
override CHAIN: u32 = 2u;

// As ops/matrix.rs has them.
const TILE: u32 = 64u;
const STAGE: u32 = 16u;

// Elements between two terms: a tile, and for units as much again as keeps neighbouring terms in different banks, at
// multiples of 16 bytes.
const PITCH: u32 = $PITCHu;

// What a low half is multiplied by: the bits of a high half.
const LOW: f32 = 2048.0;

var<workgroup> left_high: array<Half, ${16*PITCH}>;
var<workgroup> left_low: array<Half, ${16*PITCH}>;
var<workgroup> right_high: array<Half, ${16*PITCH}>;
var<workgroup> right_low: array<Half, ${16*PITCH}>;

// The nearest number of 11 bits, of two as near the even one: on every device the same, where WGSL's conversions may give
// either neighbour, and compilers may leave out a conversion to f16 and back. NaN and infinity stay.
fn rounded(value: f32) -> f32 {
    let bits = bitcast<u32>(value);
    let nearest = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
    return select(nearest, value, (bits & 0x7f800000u) == 0x7f800000u);
}

// Stores an element of the left factor, row `at` of the tile.
fn put_left(term: u32, at: u32, value: f32) {
    let high = rounded(value);
    left_high[term * PITCH + at] = Half(high);
    if SPLIT { left_low[term * PITCH + at] = Half(rounded((value - high) * LOW)); }
}

// Stores an element of the right factor, column `at` of the tile.
fn put_right(term: u32, at: u32, value: f32) {
    let high = rounded(value);
    right_high[term * PITCH + at] = Half(high);
    if SPLIT { right_low[term * PITCH + at] = Half(rounded((value - high) * LOW)); }
}

// A sum without the scales of its factors. One after the other: their product may be beyond f32.
fn unscaled(sum: vec2<f32>) -> vec2<f32> {
    return sum * left[1] * right[1];
}

// The elements of a workgroup.
struct Tile {
    row: u32,     // the first row
    column: u32,  // the first column
    stages: u32,
    tap: u32,     // backward_weight: the element of the kernel
    split: u32,
}

// ---------------------------------------------------------------------------------------------- convolve

// Rows are output channels, columns pixels, counted over all images. The terms go tap by tap, a stage is some channels.

fn convolve_tile(linear: u32) -> Tile {
    // Neighbouring workgroups take the same pixels and other channels: the input is read from cache.
    let blocks = (params.c_out + TILE - 1u) / TILE;
    let stages = params.k_h * params.k_w * ((params.c_in + STAGE - 1u) / STAGE);
    return Tile((linear % blocks) * TILE, (linear / blocks) * TILE, stages, 0u, 0u);
}

fn convolve_stage(tile: Tile, stage: u32, local: u32) {
    let blocks = (params.c_in + STAGE - 1u) / STAGE;
    let tap = stage / blocks;
    let first = (stage - tap * blocks) * STAGE;
    let taps = params.k_h * params.k_w;
#repeat e 0 2
    {
        let term = local / 16u + ${8*e}u;
        let vector = local % 16u;
        let c = first + term;
        let at = tile.row / 4u + vector;
        let inside = (c < params.c_in) & (at < params.packed_row);
        let values = select(vec4<f32>(0.0), packed[select(0u, (c * taps + tap) * params.packed_row + at, inside)], inside) * left[0];
        put_left(term, 4u * vector, values.x);
        put_left(term, 4u * vector + 1u, values.y);
        put_left(term, 4u * vector + 2u, values.z);
        put_left(term, 4u * vector + 3u, values.w);
    }
#end
    let size = params.h_out * params.w_out;
    let pixel = tile.column + local % TILE;
    let image = min(pixel / size, params.batch - 1u);
    let place = pixel - image * size;
    let i = place / params.w_out;
    let j = place - i * params.w_out;
    let k = tap / params.k_w;
    let row = place_of(i32(i * STRIDE + k) - params.pad_y, params.h_in);
    let column = place_of(i32(j * STRIDE + tap - k * params.k_w) - params.pad_x, params.w_in);
    let plane = params.h_in * params.w_in;
    let at = image * params.c_in * plane + row.at * params.w_in + column.at;
    let inside = row.inside & column.inside & (pixel < params.batch * size);
#repeat e 0 8
    {
        let term = local / TILE + ${2*e}u;
        let c = min(first + term, params.c_in - 1u);
        let value = value_at(at + c * plane, inside & (first + term < params.c_in), channel_of(c));
        put_right(term, local % TILE, value * right[0]);
    }
#end
}

fn convolve_store(tile: Tile, row: u32, column: u32, sum: vec2<f32>) {
    let values = unscaled(sum);
    let o = tile.row + row;
    let pixel = tile.column + column;
    let size = params.h_out * params.w_out;
    if (o < params.c_out) & (pixel < params.batch * size) {
        let at = pixel_at(o, pixel);
        if Y_HALF {
            y[at / 2u] = pack2x16float(values);
        } else {
            y[at] = bitcast<u32>(values.x);
            if pixel + 1u < params.batch * size { y[pixel_at(o, pixel + 1u)] = bitcast<u32>(values.y); }
        }
    }
}

// Where y has channel o of a pixel, counted over all images.
fn pixel_at(o: u32, pixel: u32) -> u32 {
    let size = params.h_out * params.w_out;
    let image = pixel / size;
    return (image * params.c_out + o) * size + pixel - image * size;
}

// ---------------------------------------------------------------------------------------------- backward_weight

// Rows are input channels and columns output channels, of one tap of the kernel; the terms are the pixels of a split.

fn backward_weight_tile(linear: u32) -> Tile {
    let rows = (params.c_in + TILE - 1u) / TILE;
    let columns = (params.c_out + TILE - 1u) / TILE;
    let taps = params.k_h * params.k_w;
    let row = linear % rows;
    let column = (linear / rows) % columns;
    let of_split = linear / (rows * columns);
    let split = of_split / taps;
    let first_row = split * params.split_rows;
    let last_row = min(first_row + params.split_rows, params.batch * params.h_out);
    // A workgroup beyond the last split has none.
    let pixels = select(0u, (last_row - first_row) * params.w_out, split < params.splits);
    return Tile(row * TILE, column * TILE, (pixels + STAGE - 1u) / STAGE, of_split - split * taps, split);
}

fn backward_weight_stage(tile: Tile, stage: u32, local: u32) {
    let size = params.h_out * params.w_out;
    let term = local % STAGE;
    let first_row = tile.split * params.split_rows;
    let last_row = min(first_row + params.split_rows, params.batch * params.h_out);
    let pixel = first_row * params.w_out + stage * STAGE + term;
    let live = pixel < last_row * params.w_out;
    let known = min(pixel, last_row * params.w_out - 1u);
    let image = known / size;
    let place = known - image * size;
    let i = place / params.w_out;
    let j = place - i * params.w_out;
    let k = tile.tap / params.k_w;
    let row = place_of(i32(i * STRIDE + k) - params.pad_y, params.h_in);
    let column = place_of(i32(j * STRIDE + tile.tap - k * params.k_w) - params.pad_x, params.w_in);
    let plane = params.h_in * params.w_in;
    let at = image * params.c_in * plane + row.at * params.w_in + column.at;
    let inside = row.inside & column.inside;
#repeat e 0 8
    {
        let own = local / STAGE + ${8*e}u;
        let c = min(tile.row + own, params.c_in - 1u);
        let value = value_at(at + c * plane, inside & (tile.row + own < params.c_in), channel_of(c));
        put_left(term, own, value * left[0]);
        let o = min(tile.column + own, params.c_out - 1u);
        let upstream = dy[(image * params.c_out + o) * size + place];
        put_right(term, own, select(0.0, upstream * right[0], live & (tile.column + own < params.c_out)));
    }
#end
}

fn backward_weight_store(tile: Tile, row: u32, column: u32, sum: vec2<f32>) {
    let values = unscaled(sum);
    let c = tile.row + row;
    let o = tile.column + column;
    if (c < params.c_in) & (o < params.c_out) & (tile.split < params.splits) {
        let taps = params.k_h * params.k_w;
        let first = ((params.first_split + tile.split) * taps + tile.tap) * params.c_in + c;
        // Rows of partial sums are padded to whole vectors.
        partial_out[first * params.packed_row * 4u + o] = values.x;
        partial_out[first * params.packed_row * 4u + o + 1u] = values.y;
    }
}

// ---------------------------------------------------------------------------------------------- product

fn product_tile(linear: u32) -> Tile {
    let blocks = (params.rows + TILE - 1u) / TILE;
    return Tile((linear % blocks) * TILE, (linear / blocks) * TILE, (params.inner + STAGE - 1u) / STAGE, 0u, 0u);
}

fn product_stage(tile: Tile, stage: u32, local: u32) {
    let first = stage * STAGE;
#repeat e 0 8
    {
        // Each factor along the axis on which it is stored side by side.
        let item = local + ${128*e}u;
        let a_term = select(item / TILE, item % STAGE, params.a_k == 1u);
        let a_row = select(item % TILE, item / STAGE, params.a_k == 1u);
        let b_term = select(item / TILE, item % STAGE, params.b_k == 1u);
        let b_column = select(item % TILE, item / STAGE, params.b_k == 1u);
        let a_inside = (tile.row + a_row < params.rows) & (first + a_term < params.inner);
        let b_inside = (tile.column + b_column < params.columns) & (first + b_term < params.inner);
        let a_at = select(0u, (tile.row + a_row) * params.a_m + (first + a_term) * params.a_k, a_inside);
        let b_at = select(0u, (tile.column + b_column) * params.b_n + (first + b_term) * params.b_k, b_inside);
        put_left(a_term, a_row, select(0.0, a[a_at] * left[0], a_inside));
        put_right(b_term, b_column, select(0.0, b[b_at] * right[0], b_inside));
    }
#end
}

fn product_store(tile: Tile, row: u32, column: u32, sum: vec2<f32>) {
    let values = unscaled(sum);
    let m = tile.row + row;
    let n = tile.column + column;
    if (m < params.rows) & (n < params.columns) {
        y[m * params.columns + n] = bitcast<u32>(values.x);
        if n + 1u < params.columns { y[m * params.columns + n + 1u] = bitcast<u32>(values.y); }
    }
}
