// 2-D convolution without subgroup operations: every lane loads its own copy of the shared operand.
#import common/conv2d_body

fn lane_rank() -> u32 {
    return 0u;
}

fn packed_quad(first: u32, lane: u32) -> Quad {
    return Quad(packed[first], packed[first + 1u], packed[first + 2u], packed[first + 3u]);
}

fn dy_quad(first: u32, o: u32, lane: u32) -> Quad {
    return Quad(dy_four(first, o), dy_four(first, o + 4u), dy_four(first, o + 8u), dy_four(first, o + 12u));
}
