// 2-D convolution with subgroup broadcasts: of the values that all lanes share, the first lanes load a part each,
// and broadcasts pass them on. Needs subgroups of at least four lanes; forward_32x4, the unrolled
// kernels except forward_1x1_unrolled_16x16, and backward_weight_16 need eight.
#import common/conv2d_body
#import common/lane_rank
#import common/packed_subgroup Q=2
#import common/packed_subgroup Q=4
#import common/packed_subgroup Q=8

fn upstream_1(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 1> {
    let mine = dy_two(first, o + (lane & 1u) * 2u);
    return array<vec4<f32>, 1>(vec4<f32>(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u)));
}

fn upstream_2(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 2> {
    let mine = dy_two(first, o + (lane & 3u) * 2u);
    return array<vec4<f32>, 2>(vec4<f32>(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u)),
                               vec4<f32>(subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)));
}

fn upstream_4(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 4> {
    let mine = dy_two(first, o + (lane & 7u) * 2u);
    return array<vec4<f32>, 4>(vec4<f32>(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u)),
                               vec4<f32>(subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)),
                               vec4<f32>(subgroupBroadcast(mine, 4u), subgroupBroadcast(mine, 5u)),
                               vec4<f32>(subgroupBroadcast(mine, 6u), subgroupBroadcast(mine, 7u)));
}

fn upstream_runs(first: u32, o: u32, size: u32, lane: u32) -> array<vec4<f32>, 8> {
    let mine = dy_as_vectors[first + min(o + (lane & 7u), params.c_out - 1u) * size];
    return array<vec4<f32>, 8>(
#repeat k 0 8
        subgroupBroadcast(mine, $ku),
#end
    );
}
