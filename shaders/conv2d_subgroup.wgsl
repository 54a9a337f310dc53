// 2-D convolution with subgroup broadcasts: of the values that all lanes share, each of the first four
// lanes loads a quarter, and broadcasts pass them on. Needs subgroups of at least four lanes, of any size.
#import common/conv2d_body
#import common/lane_rank

fn packed_quad(first: u32, lane: u32) -> Quad {
    let mine = packed[first + (lane & 3u)];
    return Quad(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
                subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u));
}

fn dy_pair(first: u32, o: u32, lane: u32) -> Pair {
    let mine = dy_two(first, o + (lane & 3u) * 2u);
    return Pair(vec4<f32>(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u)),
                vec4<f32>(subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)));
}
