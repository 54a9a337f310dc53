// 2-D convolution without subgroup operations: every lane loads its own copy of the shared operand.
#import common/conv2d_body

fn lane_rank() -> u32 {
    return 0u;
}

fn packed_quad(first: u32, lane: u32) -> Quad {
    return Quad(packed[first], packed[first + 1u], packed[first + 2u], packed[first + 3u]);
}

fn dy_pair(first: u32, o: u32, lane: u32) -> Pair {
    return Pair(vec4<f32>(dy_two(first, o), dy_two(first, o + 2u)),
                vec4<f32>(dy_two(first, o + 4u), dy_two(first, o + 6u)));
}
