// C[m,n] = sum_k A(m,k) B(k,n), each operand stored as it is or transposed: A(m,k) = a[m a_m + k a_k].
// One invocation computes 16 rows x 4 columns; the 16 values of A are shared by all lanes of a workgroup
// and come from a_quad (matmul.wgsl: each lane loads all; matmul_subgroup.wgsl: four lanes load and
// broadcast; eight in a_eight). Sums are f32 in the order of k.
//   product_by_four: the same sums for software adapters: 32 rows, four terms at a time, and four neighbouring elements of B
//     and of C by one load and store. A comes from a_eight, four terms of eight rows. Terms and columns are multiples of four.
//   add_row:     y[r,c] = x[r,c] + bias[c]
//   column_sum:  y[c] = sum_r x[r,c]
#import common/index
#import common/one_of

struct Params {
    n: u32,          // items of a one-dimensional entry point
    rows: u32,
    columns: u32,
    inner: u32,
    a_m: u32,
    a_k: u32,
    b_k: u32,
    b_n: u32,
    blocks: u32,     // ceil(rows / 16)
}

// The tiles, as ops/matmul.rs has them.
const product_DOWN: u32 = 16u;
const product_ACROSS: u32 = 4u;
const product_by_four_DOWN: u32 = 32u;
const product_by_four_ACROSS: u32 = 4u;
const product_tiled_DOWN: u32 = 32u;
const product_tiled_ACROSS: u32 = 32u;

struct Quad {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> b_as_vectors: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y_as_vectors: array<vec4<f32>>;

// A(m..m+3, k); rows past the last repeat it and are not stored.
fn a_four(m: u32, k: u32) -> vec4<f32> {
    let last = params.rows - 1u;
    let at = k * params.a_k;
    return vec4<f32>(a[min(m, last) * params.a_m + at], a[min(m + 1u, last) * params.a_m + at],
                     a[min(m + 2u, last) * params.a_m + at], a[min(m + 3u, last) * params.a_m + at]);
}

fn store_row(m: u32, n: u32, sum: vec4<f32>) {
    if m < params.rows {
        let first = m * params.columns + n;
        if n < params.columns { y[first] = sum.x; }
        if n + 1u < params.columns { y[first + 1u] = sum.y; }
        if n + 2u < params.columns { y[first + 2u] = sum.z; }
        if n + 3u < params.columns { y[first + 3u] = sum.w; }
    }
}

@compute @workgroup_size(WG)
fn product(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    let linear = group_index(group, groups);
    let m = (linear % params.blocks) * 16u;
    let n = ((linear / params.blocks) * WG + local) * 4u;
    let last = params.columns - 1u;
    let n0 = min(n, last) * params.b_n;
    let n1 = min(n + 1u, last) * params.b_n;
    let n2 = min(n + 2u, last) * params.b_n;
    let n3 = min(n + 3u, last) * params.b_n;
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
    for (var k = 0u; k < params.inner; k++) {
        let at = k * params.b_k;
        let right = vec4<f32>(b[at + n0], b[at + n1], b[at + n2], b[at + n3]);
        let q = a_quad(m, k, lane);
        s0 = fma(vec4<f32>(q.a.x), right, s0);
        s1 = fma(vec4<f32>(q.a.y), right, s1);
        s2 = fma(vec4<f32>(q.a.z), right, s2);
        s3 = fma(vec4<f32>(q.a.w), right, s3);
        s4 = fma(vec4<f32>(q.b.x), right, s4);
        s5 = fma(vec4<f32>(q.b.y), right, s5);
        s6 = fma(vec4<f32>(q.b.z), right, s6);
        s7 = fma(vec4<f32>(q.b.w), right, s7);
        s8 = fma(vec4<f32>(q.c.x), right, s8);
        s9 = fma(vec4<f32>(q.c.y), right, s9);
        s10 = fma(vec4<f32>(q.c.z), right, s10);
        s11 = fma(vec4<f32>(q.c.w), right, s11);
        s12 = fma(vec4<f32>(q.d.x), right, s12);
        s13 = fma(vec4<f32>(q.d.y), right, s13);
        s14 = fma(vec4<f32>(q.d.z), right, s14);
        s15 = fma(vec4<f32>(q.d.w), right, s15);
    }
    for (var row = m; row < min(m + 8u, params.rows); row++) {
        store_row(row, n, one_of(row, s0, s1, s2, s3, s4, s5, s6, s7));
    }
    for (var row = m + 8u; row < min(m + 16u, params.rows); row++) {
        store_row(row, n, one_of(row, s8, s9, s10, s11, s12, s13, s14, s15));
    }
}

// A(m, k..k+3); a row past the last repeats it and is not stored.
fn a_terms(m: u32, k: u32) -> vec4<f32> {
    let at = min(m, params.rows - 1u) * params.a_m + k * params.a_k;
    return vec4<f32>(a[at], a[at + params.a_k], a[at + 2u * params.a_k], a[at + 3u * params.a_k]);
}

@compute @workgroup_size(WG)
fn product_by_four(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    let linear = group_index(group, groups);
    let blocks = (params.rows + 31u) / 32u;
    let m = (linear % blocks) * 32u;
    let n = ((linear / blocks) * WG + local) * 4u;
    let known = min(n, params.columns - 4u);
    // Where B is stored transposed, a vector has four terms of a column, else four columns of a term.
    let transposed = params.b_k == 1u;
    let step = select(params.b_k, params.b_n, transposed) / 4u;
#repeat r 0 32
    var s$r = vec4<f32>(0.0);
#end
    for (var k = 0u; k < params.inner; k += 4u) {
        let at = select(k * params.b_k + known, known * params.b_n + k, transposed) / 4u;
#repeat u 0 4
        let b$u = b_as_vectors[at + $uu * step];
#end
#repeat u 0 4
        let right$u = select(b$u, vec4<f32>(b0[$u], b1[$u], b2[$u], b3[$u]), transposed);
#end
#repeat h 0 4
        let q$h = a_eight(m + ${8*h}u, k, lane);
#repeat r 0 8
#repeat u 0 4
        s${8*h+r} = fma(vec4<f32>(q$h[$r][$u]), right$u, s${8*h+r});
#end
#end
#end
    }
    if n < params.columns {
#repeat h 0 4
        for (var row = m + ${8*h}u; row < min(m + ${8*h+8}u, params.rows); row++) {
            y_as_vectors[(row * params.columns + n) / 4u] =
                one_of(row, s${8*h}, s${8*h+1}, s${8*h+2}, s${8*h+3}, s${8*h+4}, s${8*h+5}, s${8*h+6}, s${8*h+7});
        }
#end
    }
}

// As product, for devices whose workgroup memory is near: a workgroup computes 32 x 32 elements, of which an invocation
// has four; both operands are brought in stages of 32 terms, along the axis on which they are stored side by side.
var<workgroup> tile_a: array<array<array<array<f32, 17>, 2>, 4>, 8>;
var<workgroup> tile_b: array<array<array<array<f32, 17>, 2>, 4>, 8>;

@compute @workgroup_size(256)
fn product_tiled(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) local: u32) {
    let linear = group_index(group, groups);
    let blocks = (params.rows + 31u) / 32u;
    let m = (linear % blocks) * 32u;
    let n = (linear / blocks) * 32u;
    let down = local / 16u;
    let across = local % 16u;
    var s00 = 0.0;
    var s01 = 0.0;
    var s10 = 0.0;
    var s11 = 0.0;
    for (var first = 0u; first < params.inner; first += 32u) {
        // Nobody still reads the stage before.
        workgroupBarrier();
#repeat e 0 4
        {
            let one = (local + ${256*e}u) % 32u;
            let other = (local + ${256*e}u) / 32u;
            let a_term = select(other, one, params.a_k == 1u);
            let a_row = select(one, other, params.a_k == 1u);
            let b_term = select(other, one, params.b_k == 1u);
            let b_column = select(one, other, params.b_k == 1u);
            let a_inside = (m + a_row < params.rows) & (first + a_term < params.inner);
            let b_inside = (n + b_column < params.columns) & (first + b_term < params.inner);
            let a_at = select(0u, (m + a_row) * params.a_m + (first + a_term) * params.a_k, a_inside);
            let b_at = select(0u, (n + b_column) * params.b_n + (first + b_term) * params.b_k, b_inside);
            tile_a[a_term / 4u][a_term % 4u][a_row / 16u][a_row % 16u] = select(0.0, a[a_at], a_inside);
            tile_b[b_term / 4u][b_term % 4u][b_column / 16u][b_column % 16u] = select(0.0, b[b_at], b_inside);
        }
#end
        workgroupBarrier();
        for (var i = 0u; i < 8u; i++) {
#repeat u 0 4
            {
                let a0 = tile_a[i][$u][0][down];
                let a1 = tile_a[i][$u][1][down];
                let b0 = tile_b[i][$u][0][across];
                let b1 = tile_b[i][$u][1][across];
                s00 = fma(a0, b0, s00);
                s01 = fma(a0, b1, s01);
                s10 = fma(a1, b0, s10);
                s11 = fma(a1, b1, s11);
            }
#end
        }
    }
    store_one(m + down, n + across, s00);
    store_one(m + down, n + across + 16u, s01);
    store_one(m + down + 16u, n + across, s10);
    store_one(m + down + 16u, n + across + 16u, s11);
}

fn store_one(m: u32, n: u32, sum: f32) {
    if (m < params.rows) & (n < params.columns) {
        y[m * params.columns + n] = sum;
    }
}

@compute @workgroup_size(WG)
fn add_row(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = a[i] + b[i % params.columns];
    }
}

@compute @workgroup_size(WG)
fn column_sum(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        var sum = 0.0;
        for (var r = 0u; r < params.rows; r++) {
            sum += a[r * params.columns + i];
        }
        y[i] = sum;
    }
}
