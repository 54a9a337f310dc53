// $Q neighbouring vectors of the operand `packed`, which all lanes share, without subgroup operations: every lane loads
// all of them.
fn packed_$Q(first: u32, lane: u32) -> array<vec4<f32>, $Q> {
    return array<vec4<f32>, $Q>(
#repeat q 0 $Q
        packed[first + $qu],
#end
    );
}
