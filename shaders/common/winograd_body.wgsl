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
// upstream:      `packed` of dy
// product_OxP:   winograd_product.wgsl, one invocation computes O rows of `packed` x P rows of `vectors`
// output:        y of the products
// weight_gradient: dw of the products
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
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> packed: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<f32>;
@group(0) @binding(5) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<u32>;
@group(0) @binding(7) var<storage, read_write> vectors_out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> statistics: array<f32>;
@group(0) @binding(9) var<storage, read> products: array<f32>;

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

// ---------------------------------------------------------------------------------------------- transforms

fn weight_at(o: u32, c: u32, tap: u32) -> f32 {
    let known = min(o, params.c_out - 1u);
    var at = (known * params.c_in + c) * 9u + tap;
    if params.mirrored != 0u { at = (c * params.c_out + known) * 9u + 8u - tap; }
    return select(0.0, weight[at], o < params.c_out);
}

@compute @workgroup_size(WG)
fn pack(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let c = i / params.packed_row;
        let o = (i - c * params.packed_row) * 4u;
#repeat l 0 3
#repeat k 0 3
        let g$k$l = vec4<f32>(weight_at(o, c, ${3*k+l}u), weight_at(o + 1u, c, ${3*k+l}u),
                              weight_at(o + 2u, c, ${3*k+l}u), weight_at(o + 3u, c, ${3*k+l}u));
#end
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
        // The elements of a row beyond the last tile or channel are computed and never read.
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

@compute @workgroup_size(WG)
fn upstream(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let term = i / (4u * params.packed_row);
        let o = i - term * 4u * params.packed_row;
        let tile = tile_of(term);
        let plane = tile.image * params.c_out + min(o, params.c_out - 1u);
#repeat k 0 2
        let row$k = (plane * params.h_out + min(tile.row + $ku, params.h_out - 1u)) * params.w_out;
#repeat l 0 2
        let inside$k$l = (o < params.c_out) & (tile.row + $ku < params.h_out) & (tile.column + $lu < params.w_out);
        let d$k$l = select(0.0, dy[row$k + min(tile.column + $lu, params.w_out - 1u)], inside$k$l);
#end
#end
#repeat l 0 2
        let e0$l = d0$l;
        let e1$l = d0$l + d1$l;
        let e2$l = d0$l - d1$l;
        let e3$l = -d1$l;
#end
#repeat k 0 4
        y[${4*k}u * params.n + i] = bitcast<u32>(e$k0);
        y[${4*k+1}u * params.n + i] = bitcast<u32>(e$k0 + e$k1);
        y[${4*k+2}u * params.n + i] = bitcast<u32>(e$k0 - e$k1);
        y[${4*k+3}u * params.n + i] = bitcast<u32>(-e$k1);
#end
    }
}

@compute @workgroup_size(WG)
fn output(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        // Channel by channel, as in the products; tiles beyond the last are not computed.
        let tiles = params.batch * params.tiles_y * params.tiles_x;
        let o = i / tiles;
        let index = i - o * tiles;
        let tile = tile_of(index);
        let row = 4u * params.vector_row;
        let first = o * row + index;
#repeat k 0 4
#repeat l 0 4
        let m$k$l = products[${4*k+l}u * params.c_out * row + first];
#end
        let a$k0 = m$k0 + m$k1 + m$k2;
        let a$k1 = m$k1 - m$k2 - m$k3;
#end
#repeat l 0 2
        let y0$l = a0$l + a1$l + a2$l;
        let y1$l = a1$l - a2$l - a3$l;
#end
        let at = ((tile.image * params.c_out + o) * params.h_out + tile.row) * params.w_out + tile.column;
        store_two(at, tile.column, y00, y01);
        if tile.row + 1u < params.h_out {
            store_two(at + params.w_out, tile.column, y10, y11);
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

@compute @workgroup_size(WG)
fn weight_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let o = i / params.c_in;
        let row = 4u * params.vector_row;
        let first = o * row + i - o * params.c_in;
#repeat k 0 4
#repeat l 0 4
        let m$k$l = products[${4*k+l}u * params.c_out * row + first];
#end
        let a$k0 = m$k0 + 0.5 * (m$k1 + m$k2);
        let a$k1 = 0.5 * (m$k1 - m$k2);
        let a$k2 = 0.5 * (m$k1 + m$k2) + m$k3;
#end
#repeat l 0 3
        y[i * 9u + $lu] = bitcast<u32>(a0$l + 0.5 * (a1$l + a2$l));
        y[i * 9u + ${3+l}u] = bitcast<u32>(0.5 * (a1$l - a2$l));
        y[i * 9u + ${6+l}u] = bitcast<u32>(0.5 * (a1$l + a2$l) + a3$l);
#end
    }
}

// ---------------------------------------------------------------------------------------------- products

#import common/winograd_product NAME=product_8x4 Q=2 U=1
#import common/winograd_product NAME=product_16x4 Q=4 U=1
#import common/winograd_product NAME=product_32x4 Q=8 U=2
#import common/winograd_product NAME=product_64x4 Q=16 U=2
#import common/winograd_product NAME=product_80x4 Q=20 U=2
