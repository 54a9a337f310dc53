// 2-D convolution with subgroup broadcasts: of the 16 values that all lanes share, each of the first four
// lanes loads four, and broadcasts pass them on. Needs subgroups of at least four lanes, of any size.
#import common/conv2d_body
#import common/lane_rank

fn packed_quad(first: u32, lane: u32) -> Quad {
    let mine = packed[first + (lane & 3u)];
    return Quad(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
                subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u));
}

fn dy_quad(first: u32, o: u32, lane: u32) -> Quad {
    let mine = dy_four(first, o + (lane & 3u) * 4u);
    return Quad(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u),
                subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u));
}
