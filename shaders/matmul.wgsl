// Matrix product without subgroup operations: every lane loads its own copy of the shared operand.
#import common/matmul_body

fn lane_rank() -> u32 {
    return 0u;
}

fn a_quad(m: u32, k: u32, lane: u32) -> Quad {
    return Quad(a_four(m, k), a_four(m + 4u, k), a_four(m + 8u, k), a_four(m + 12u, k));
}

fn a_eight(m: u32, k: u32, lane: u32) -> array<vec4<f32>, 8> {
    return array<vec4<f32>, 8>(
#repeat r 0 8
        a_terms(m + $ru, k),
#end
    );
}
