// 3 x 3 convolution of stride 1 and its gradients by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray 2016, Fast
// Algorithms for Convolutional Neural Networks): for every tile of 2 x 2 outputs, with the 4 x 4 inputs d under it,
//   y = A' [(G g G') * (B' d B)] A    dw = G' [sum over tiles (A dy A') * (B' d B)] G    * is element by element
// The 16 elements are independent, and each is a matrix product over the channels, or the tiles: 4 multiply-adds per
// output instead of 9. dx is the same sum over dy with the kernel mirrored and its two channel axes swapped.
//
// Operands of the products are laid out [element, term, row]: the weights or upstream gradients in `packed`, whose rows
// are output channels; the inputs in `vectors`, whose rows are tiles, for dw input channels. The images of a slice are
// convolved at a time: `first_image` is where it begins.
//
// pack:          `packed` of the weights [o,c,k,l]
// input:         `vectors` of x
// input_side_by_side: the same where rows are tiles and four of them lie side by side
// upstream:      `packed` of dy
// product_OxP:   winograd_product.wgsl, one invocation computes O rows of `packed` x P rows of `vectors`
// output:        y of the products
// output_by_four: the same where rows of y are whole vectors of four
// weight_gradient: dw of the products
// weight_gradient_by_four: the same where input channels are whole vectors of four
//
// What is read by `quad_at` is bound to `x` and `x_quads`, whatever it is: the weights for `pack`, dy for `upstream`. Some
// of it is read by single words where it is not whole vectors, so it is bound under two names.
#import common/four_of
#import common/index
#import common/one_of
#import common/conv2d_input_if_normed

struct Params {
    n: u32,             // items
    batch: u32,         // images of the slice
    first_image: u32,
    c_in: u32,
    h_in: u32,
    w_in: u32,
    c_out: u32,
    h_out: u32,
    w_out: u32,
    pad_y: i32,         // zeros above and to the left; negative where dx crops
    pad_x: i32,
    tiles_y: u32,       // tiles of an image
    tiles_x: u32,
    packed_row: u32,    // vectors of four in a row of `packed`
    vector_row: u32,    // vectors of four in a row of `vectors`
    terms: u32,         // of a product
    chain: u32,         // terms that are summed before they join the total
    mirrored: u32,      // whether the weights are read mirrored and with their channel axes swapped: dx
    by_channel: u32,    // whether the rows of `vectors` are channels and its terms tiles: dw
    add: u32,           // whether a product is added to what is there
    normed: u32,        // whether x is normalised
    slope: f32,         // of the LeakyReLU of a normalised x; 1 for any other
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> x_quads: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> statistics: array<f32>;
@group(0) @binding(5) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<u32>;
@group(0) @binding(7) var<storage, read_write> vectors_out: array<vec4<f32>>;

// Whether x is whole vectors of four words.
override WHOLE: bool = false;
// Whether it is, of f32, with rows of an even length.
override EVEN: bool = false;
override Y_HALF: bool = false;

// A tile of the slice: its image, and its first output.
struct Tile {
    image: u32,
    row: u32,
    column: u32,
}

fn tile_of(tile: u32) -> Tile {
    let across = tile / params.tiles_x;
    let image = across / params.tiles_y;
    return Tile(min(image, params.batch - 1u) + params.first_image, 2u * (across - image * params.tiles_y),
                2u * (tile - across * params.tiles_x));
}

// The tile behind another.
fn next_tile(tile: Tile) -> Tile {
    let row_ends = tile.column + 2u >= params.w_out;
    let row = select(tile.row, tile.row + 2u, row_ends);
    let image_ends = row >= params.h_out;
    let image = select(tile.image, min(tile.image + 1u, params.first_image + params.batch - 1u), image_ends);
    return Tile(image, select(row, 0u, image_ends), select(tile.column + 2u, 0u, row_ends));
}

// ---------------------------------------------------------------------------------------------- loads by four

// A software adapter loads and stores lane by lane: four neighbouring words at a time cost it less than one by one. What is
// needed of a row is taken from the vectors that it lies in; what else they hold is not used.

// Words 4 i to 4 i + 3 of x; any where x has none.
fn quad_at(i: u32) -> vec4<u32> {
    if WHOLE { return x_quads[min(i, arrayLength(&x_quads) - 1u)]; }
    let last = arrayLength(&x) - 1u;
    let at = 4u * min(i, last / 4u);
    return vec4<u32>(x[at], x[min(at + 1u, last)], x[min(at + 2u, last)], x[min(at + 3u, last)]);
}

// Four halves from element i on, whose word is the first.
fn halves_of(words: vec3<u32>, i: u32) -> vec4<f32> {
    let a = unpack2x16float(words.x);
    let b = unpack2x16float(words.y);
    let c = unpack2x16float(words.z);
    return select(vec4<f32>(a, b), vec4<f32>(a.y, b, c.x), (i & 1u) != 0u);
}

// Elements i to i + 9 of x, and two more that are not used. Where some lie before x, i is what u32 makes of a number below
// zero.
fn ten_at(i: u32) -> array<vec4<f32>, 3> {
    if X_HALF {
        let first = (i / 2u) & 3u;
        let q = quad_at((i + 8u) / 8u);
        let a = four_of(quad_at(i / 8u), q, first);
        let b = four_of(q, quad_at((i + 16u) / 8u), first);
        return array<vec4<f32>, 3>(halves_of(a.xyz, i), halves_of(vec3<u32>(a.zw, b.x), i), halves_of(b.xyz, i));
    }
    let q = quad_at((i + 4u) / 4u);
    let r = quad_at((i + 8u) / 4u);
    let a = four_of(quad_at(i / 4u), q, i & 3u);
    let b = four_of(q, r, i & 3u);
    let c = four_of(r, quad_at((i + 12u) / 4u), i & 3u);
    return array<vec4<f32>, 3>(bitcast<vec4<f32>>(a), bitcast<vec4<f32>>(b), bitcast<vec4<f32>>(c));
}

// Elements i and i + 1 of x, which is f32; any where x has none. With EVEN i is even.
fn two_at(i: u32) -> vec2<f32> {
    if EVEN {
        let quad = bitcast<vec4<f32>>(quad_at(i / 4u));
        return select(quad.xy, quad.zw, (i & 2u) != 0u);
    }
    let last = arrayLength(&x) - 1u;
    return vec2<f32>(bitcast<f32>(x[min(i, last)]), bitcast<f32>(x[min(i + 1u, last)]));
}

// ---------------------------------------------------------------------------------------------- transforms

struct Taps {
    a: vec4<f32>,
    b: vec4<f32>,
    c: f32,
}

// The nine weights of an output and an input channel. Products with output channels beyond the last are never stored.
fn taps_of(o: u32, c: u32) -> Taps {
    let known = min(o, params.c_out - 1u);
    let mirrored = params.mirrored != 0u;
    let at = 9u * select(known * params.c_in + c, c * params.c_out + known, mirrored);
    let p = quad_at(at / 4u);
    let q = quad_at(at / 4u + 1u);
    let r = quad_at(at / 4u + 2u);
    let a = bitcast<vec4<f32>>(four_of(p, q, at & 3u));
    let b = bitcast<vec4<f32>>(four_of(q, r, at & 3u));
    let last = bitcast<f32>(four_of(r, r, at & 3u).x);
    if mirrored { return Taps(vec4<f32>(last, b.wzy), vec4<f32>(b.x, a.wzy), a.x); }
    return Taps(a, b, last);
}

@compute @workgroup_size(WG)
fn pack(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let c = i / params.packed_row;
        let o = (i - c * params.packed_row) * 4u;
#repeat r 0 4
        let w$r = taps_of(o + $ru, c);
#end
        let g00 = vec4<f32>(w0.a.x, w1.a.x, w2.a.x, w3.a.x);
        let g01 = vec4<f32>(w0.a.y, w1.a.y, w2.a.y, w3.a.y);
        let g02 = vec4<f32>(w0.a.z, w1.a.z, w2.a.z, w3.a.z);
        let g10 = vec4<f32>(w0.a.w, w1.a.w, w2.a.w, w3.a.w);
        let g11 = vec4<f32>(w0.b.x, w1.b.x, w2.b.x, w3.b.x);
        let g12 = vec4<f32>(w0.b.y, w1.b.y, w2.b.y, w3.b.y);
        let g20 = vec4<f32>(w0.b.z, w1.b.z, w2.b.z, w3.b.z);
        let g21 = vec4<f32>(w0.b.w, w1.b.w, w2.b.w, w3.b.w);
        let g22 = vec4<f32>(w0.c, w1.c, w2.c, w3.c);
#repeat l 0 3
        let h0$l = g0$l;
        let h1$l = 0.5 * (g0$l + g1$l + g2$l);
        let h2$l = 0.5 * (g0$l - g1$l + g2$l);
        let h3$l = g2$l;
#end
#repeat k 0 4
        vectors_out[${4*k}u * params.n + i] = h$k0;
        vectors_out[${4*k+1}u * params.n + i] = 0.5 * (h$k0 + h$k1 + h$k2);
        vectors_out[${4*k+2}u * params.n + i] = 0.5 * (h$k0 - h$k1 + h$k2);
        vectors_out[${4*k+3}u * params.n + i] = h$k2;
#end
    }
}

@compute @workgroup_size(WG)
fn input(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        // The elements of a row beyond the last tile or channel are computed and never read. One row at a time: what four
        // channels need lies in different rows of x, and is not loaded faster by fours.
        let term = i / (4u * params.vector_row);
        let row = i - term * 4u * params.vector_row;
        let by_channel = params.by_channel != 0u;
        let c = min(select(term, row, by_channel), params.c_in - 1u);
        let tile = tile_of(select(row, term, by_channel));
        let channel = channel_if_normed(c);
        let up = i32(tile.row) - params.pad_y;
        let left = i32(tile.column) - params.pad_x;
        let plane = (tile.image * params.c_in + c) * params.h_in;
#repeat l 0 4
        let x$l = place_of(left + $l, params.w_in);
#end
#repeat k 0 4
        let y$k = place_of(up + $k, params.h_in);
#repeat l 0 4
        let d$k$l = activated_in((plane + y$k.at) * params.w_in, y$k.inside, x$l, channel);
#end
#end
#repeat l 0 4
        let e0$l = d0$l - d2$l;
        let e1$l = d1$l + d2$l;
        let e2$l = d2$l - d1$l;
        let e3$l = d1$l - d3$l;
#end
#repeat k 0 4
        y[${4*k}u * params.n + i] = bitcast<u32>(e$k0 - e$k2);
        y[${4*k+1}u * params.n + i] = bitcast<u32>(e$k1 + e$k2);
        y[${4*k+2}u * params.n + i] = bitcast<u32>(e$k2 - e$k1);
        y[${4*k+3}u * params.n + i] = bitcast<u32>(e$k1 - e$k3);
#end
    }
}

// Four tiles take ten columns of x.
@compute @workgroup_size(WG)
fn input_side_by_side(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let c = i / params.vector_row;
        let tile = tile_of(4u * (i - c * params.vector_row));
        let channel = channel_if_normed(c);
        let plane = (tile.image * params.c_in + c) * params.h_in;
        let up = i32(tile.row) - params.pad_y;
        let left = i32(tile.column) - params.pad_x;
        let columns = left + vec4<i32>(0, 1, 2, 3);
        let width = vec4<i32>(i32(params.w_in));
#repeat j 0 3
        let inside$j = (columns + ${4*j} >= vec4<i32>(0)) & (width > columns + ${4*j});
#end
#repeat k 0 4
        let y$k = place_of(up + $k, params.h_in);
        let x$k = ten_at((plane + y$k.at) * params.w_in + u32(left));
#repeat j 0 3
        let d$k$j = select(vec4<f32>(0.0), activated_four(x$k[$j], channel), inside$j & vec4<bool>(y$k.inside));
#end
#end
#repeat j 0 3
        let e0$j = d0$j - d2$j;
        let e1$j = d1$j + d2$j;
        let e2$j = d2$j - d1$j;
        let e3$j = d1$j - d3$j;
#end
#repeat k 0 4
        let s$k0 = vec4<f32>(e$k0.xz, e$k1.xz);
        let s$k1 = vec4<f32>(e$k0.yw, e$k1.yw);
        let s$k2 = vec4<f32>(e$k0.z, e$k1.xz, e$k2.x);
        let s$k3 = vec4<f32>(e$k0.w, e$k1.yw, e$k2.y);
        vectors_out[${4*k}u * params.n + i] = s$k0 - s$k2;
        vectors_out[${4*k+1}u * params.n + i] = s$k1 + s$k2;
        vectors_out[${4*k+2}u * params.n + i] = s$k2 - s$k1;
        vectors_out[${4*k+3}u * params.n + i] = s$k1 - s$k3;
#end
    }
}

@compute @workgroup_size(WG)
fn upstream(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let term = i / params.packed_row;
        let o = 4u * (i - term * params.packed_row);
        let tile = tile_of(term);
        let below = tile.row + 1u < params.h_out;
        let beside = tile.column + 1u < params.w_out;
        let image = tile.image * params.c_out;
#repeat r 0 4
        let at$r = ((image + min(o + $ru, params.c_out - 1u)) * params.h_out + tile.row) * params.w_out + tile.column;
        let a$r = two_at(at$r);
        let b$r = two_at(at$r + params.w_out);
#end
        let zero = vec4<f32>(0.0);
        let d00 = vec4<f32>(a0.x, a1.x, a2.x, a3.x);
        let d01 = select(zero, vec4<f32>(a0.y, a1.y, a2.y, a3.y), beside);
        let d10 = select(zero, vec4<f32>(b0.x, b1.x, b2.x, b3.x), below);
        let d11 = select(zero, vec4<f32>(b0.y, b1.y, b2.y, b3.y), below & beside);
#repeat l 0 2
        let e0$l = d0$l;
        let e1$l = d0$l + d1$l;
        let e2$l = d0$l - d1$l;
        let e3$l = -d1$l;
#end
#repeat k 0 4
        vectors_out[${4*k}u * params.n + i] = e$k0;
        vectors_out[${4*k+1}u * params.n + i] = e$k0 + e$k1;
        vectors_out[${4*k+2}u * params.n + i] = e$k0 - e$k1;
        vectors_out[${4*k+3}u * params.n + i] = -e$k1;
#end
    }
}

struct Outputs {
    y00: vec4<f32>,
    y01: vec4<f32>,
    y10: vec4<f32>,
    y11: vec4<f32>,
}

// The outputs of four tiles: those of item i.
fn outputs_of(i: u32) -> Outputs {
#repeat k 0 4
#repeat l 0 4
    let m$k$l = vectors[${4*k+l}u * params.n + i];
#end
    let a$k0 = m$k0 + m$k1 + m$k2;
    let a$k1 = m$k1 - m$k2 - m$k3;
#end
    return Outputs(
        a00 + a10 + a20,
        a01 + a11 + a21,
        a10 - a20 - a30,
        a11 - a21 - a31,
    );
}

// One of four.
fn pick(v: vec4<f32>, r: u32) -> f32 {
    let odd = (r & 1u) != 0u;
    return select(select(v.x, v.y, odd), select(v.z, v.w, odd), (r & 2u) != 0u);
}

@compute @workgroup_size(WG)
fn output(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        // Channel by channel, as in the products; tiles beyond the last are not computed.
        let o = i / params.vector_row;
        let first = 4u * (i - o * params.vector_row);
        var tile = tile_of(first);
        let v = outputs_of(i);
        let end = min(first + 4u, params.batch * params.tiles_y * params.tiles_x);
        for (var index = first; index < end; index++) {
            let at = ((tile.image * params.c_out + o) * params.h_out + tile.row) * params.w_out + tile.column;
            store_two(at, tile.column, pick(v.y00, index), pick(v.y01, index));
            if tile.row + 1u < params.h_out {
                store_two(at + params.w_out, tile.column, pick(v.y10, index), pick(v.y11, index));
            }
            tile = next_tile(tile);
        }
    }
}

fn store_two(at: u32, column: u32, left: f32, right: f32) {
    if Y_HALF {
        y[at / 2u] = pack2x16float(vec2<f32>(left, right));
    } else {
        y[at] = bitcast<u32>(left);
        if column + 1u < params.w_out { y[at + 1u] = bitcast<u32>(right); }
    }
}

// Two tiles lie side by side in a vector of y, so tiles are even in number.
@compute @workgroup_size(WG)
fn output_by_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let o = i / params.vector_row;
        let first = 4u * (i - o * params.vector_row);
        let tile = tile_of(first);
        let v = outputs_of(i);
        store_four(o, tile, vec4<f32>(v.y00.x, v.y01.x, v.y00.y, v.y01.y), vec4<f32>(v.y10.x, v.y11.x, v.y10.y, v.y11.y));
        if first + 2u < params.batch * params.tiles_y * params.tiles_x {
            store_four(o, next_tile(next_tile(tile)), vec4<f32>(v.y00.z, v.y01.z, v.y00.w, v.y01.w),
                       vec4<f32>(v.y10.z, v.y11.z, v.y10.w, v.y11.w));
        }
    }
}

fn store_four(o: u32, tile: Tile, above: vec4<f32>, below: vec4<f32>) {
    let at = (((tile.image * params.c_out + o) * params.h_out + tile.row) * params.w_out + tile.column) / 4u;
    vectors_out[at] = above;
    if tile.row + 1u < params.h_out { vectors_out[at + params.w_out / 4u] = below; }
}

struct Gradients {
    w0: array<vec4<f32>, 3>,
    w1: array<vec4<f32>, 3>,
    w2: array<vec4<f32>, 3>,
}

// The gradients of the weights of an output channel and four input channels: those of item i.
fn gradients_of(i: u32) -> Gradients {
#repeat k 0 4
#repeat l 0 4
    let m$k$l = vectors[${4*k+l}u * params.n + i];
#end
    let a$k0 = m$k0 + 0.5 * (m$k1 + m$k2);
    let a$k1 = 0.5 * (m$k1 - m$k2);
    let a$k2 = 0.5 * (m$k1 + m$k2) + m$k3;
#end
    return Gradients(
        array<vec4<f32>, 3>(a00 + 0.5 * (a10 + a20), a01 + 0.5 * (a11 + a21), a02 + 0.5 * (a12 + a22)),
        array<vec4<f32>, 3>(0.5 * (a10 - a20), 0.5 * (a11 - a21), 0.5 * (a12 - a22)),
        array<vec4<f32>, 3>(0.5 * (a10 + a20) + a30, 0.5 * (a11 + a21) + a31, 0.5 * (a12 + a22) + a32),
    );
}

@compute @workgroup_size(WG)
fn weight_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let o = i / params.vector_row;
        let first = 4u * (i - o * params.vector_row);
        let v = gradients_of(i);
        for (var c = first; c < min(first + 4u, params.c_in); c++) {
            let at = (o * params.c_in + c) * 9u;
#repeat k 0 3
#repeat l 0 3
            y[at + ${3*k+l}u] = bitcast<u32>(pick(v.w$k[$l], c));
#end
#end
        }
    }
}

// The gradients of four input channels are nine vectors.
@compute @workgroup_size(WG)
fn weight_gradient_by_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let v = gradients_of(i);
        let p = v.w0;
        let q = v.w1;
        let r = v.w2;
        vectors_out[9u * i] = vec4<f32>(p[0].x, p[1].x, p[2].x, q[0].x);
        vectors_out[9u * i + 1u] = vec4<f32>(q[1].x, q[2].x, r[0].x, r[1].x);
        vectors_out[9u * i + 2u] = vec4<f32>(r[2].x, p[0].y, p[1].y, p[2].y);
        vectors_out[9u * i + 3u] = vec4<f32>(q[0].y, q[1].y, q[2].y, r[0].y);
        vectors_out[9u * i + 4u] = vec4<f32>(r[1].y, r[2].y, p[0].z, p[1].z);
        vectors_out[9u * i + 5u] = vec4<f32>(p[2].z, q[0].z, q[1].z, q[2].z);
        vectors_out[9u * i + 6u] = vec4<f32>(r[0].z, r[1].z, r[2].z, p[0].w);
        vectors_out[9u * i + 7u] = vec4<f32>(p[1].w, p[2].w, q[0].w, q[1].w);
        vectors_out[9u * i + 8u] = vec4<f32>(q[2].w, r[0].w, r[1].w, r[2].w);
    }
}

// ---------------------------------------------------------------------------------------------- products

#import common/winograd_product NAME=product_8x4 Q=2 U=1
#import common/winograd_product NAME=product_16x4 Q=4 U=1
#import common/winograd_product NAME=product_32x4 Q=8 U=2
#import common/winograd_product NAME=product_64x4 Q=16 U=2
#import common/winograd_product NAME=product_80x4 Q=20 U=2
