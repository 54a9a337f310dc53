// 2-D convolution without subgroup operations: every lane loads its own copy of the shared operand.
#import common/conv2d_body
#import common/packed Q=2
#import common/packed Q=4
#import common/packed Q=8

fn lane_rank() -> u32 {
    return 0u;
}

fn upstream_1(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 1> {
    return array<vec4<f32>, 1>(vec4<f32>(dy_two(first, o), dy_two(first, o + 2u)));
}

fn upstream_2(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 2> {
    return array<vec4<f32>, 2>(vec4<f32>(dy_two(first, o), dy_two(first, o + 2u)),
                               vec4<f32>(dy_two(first, o + 4u), dy_two(first, o + 6u)));
}

fn upstream_4(first: u32, o: u32, lane: u32) -> array<vec4<f32>, 4> {
    return array<vec4<f32>, 4>(vec4<f32>(dy_two(first, o), dy_two(first, o + 2u)),
                               vec4<f32>(dy_two(first, o + 4u), dy_two(first, o + 6u)),
                               vec4<f32>(dy_two(first, o + 8u), dy_two(first, o + 10u)),
                               vec4<f32>(dy_two(first, o + 12u), dy_two(first, o + 14u)));
}

fn upstream_runs(first: u32, o: u32, size: u32, lane: u32) -> array<vec4<f32>, 8> {
    let last = params.c_out - 1u;
    return array<vec4<f32>, 8>(
#repeat k 0 8
        dy_as_vectors[first + min(o + $ku, last) * size],
#end
    );
}
