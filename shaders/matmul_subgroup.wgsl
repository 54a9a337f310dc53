// Matrix product with subgroup broadcasts: each of the first four lanes loads four of the 16 values that
// all lanes share. Needs subgroups of at least four lanes, of any size; product_by_four
// needs eight: each loads four terms of a row.
#import common/matmul_body
#import common/lane_rank

fn a_quad(m: u32, k: u32, lane: u32) -> Quad {
    let mine = a_four(m + (lane & 3u) * 4u, k);
    return Quad(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
                subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u));
}

fn a_eight(m: u32, k: u32, lane: u32) -> array<vec4<f32>, 8> {
    let mine = a_terms(m + (lane & 7u), k);
    return array<vec4<f32>, 8>(
#repeat r 0 8
        subgroupBroadcast(mine, $ru),
#end
    );
}
