// $Q neighbouring vectors of the operand `packed`, which all lanes share: the first $Q lanes load one each, and broadcasts
// pass them on.
fn packed_$Q(first: u32, lane: u32) -> array<vec4<f32>, $Q> {
    let mine = packed[first + (lane & ${Q-1}u)];
    return array<vec4<f32>, $Q>(
#repeat q 0 $Q
        subgroupBroadcast(mine, $qu),
#end
    );
}
