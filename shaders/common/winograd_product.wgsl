// Entry point $NAME of winograd: one invocation computes 4 x $Q rows of `packed` x 4 rows of `vectors` for one of the 16
// elements. The terms of a chain are summed before they join the total: the error of a sum grows with its length.
// A round takes $U terms: a software adapter stores a variable that a loop changes under a mask in every round.

// The tile, as `ops/conv2d/winograd.rs` has it.
const $NAME_DOWN: u32 = ${4*Q}u;
const $NAME_ACROSS: u32 = 4u;

@compute @workgroup_size(WG)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    // Neighbouring workgroups take the same element and rows of `vectors`: they are read from cache.
    let linear = group_index(group, groups);
    let blocks = (params.c_out + ${4*Q-1}u) / ${4*Q}u;
    let block = linear % blocks;
    let columns = (params.vector_row + WG - 1u) / WG;
    let column = ((linear / blocks) % columns) * WG + local;
    let element = linear / blocks / columns;
    let live = (column < params.vector_row) & (element < 16u);
    let known = min(column, params.vector_row - 1u);
    let row = min(element, 15u) * params.terms;
#repeat q 0 $Q
#repeat o 0 4
    var s$q_$o = vec4<f32>(0.0);
#end
#end
    for (var first = 0u; first < params.terms; first += params.chain) {
#repeat q 0 $Q
#repeat o 0 4
        var t$q_$o = vec4<f32>(0.0);
#end
#end
        let end = min(first + params.chain, params.terms);
        for (var term = first; term < end; term += $Uu) {
            // Terms past the last add zeros.
#repeat u 0 $U
            let term$u = min(term + $uu, end - 1u);
            let v$u = select(vec4<f32>(0.0), vectors[(row + term$u) * params.vector_row + known], term + $uu < end);
            let at$u = (row + term$u) * params.packed_row + block * $Qu;
#end
            // As many vectors as eight lanes load together, then by fours and twos: by fours alone product_80x4 takes a tenth
            // longer on llvmpipe.
#repeat h 0 ${Q/8}
#repeat u 0 $U
            let e$h_$u = packed_8(at$u + ${8*h}u, lane);
#end
#repeat q 0 8
#repeat o 0 4
#repeat u 0 $U
            t${8*h+q}_$o = fma(vec4<f32>(e$h_$u[$q][$o]), v$u, t${8*h+q}_$o);
#end
#end
#end
#end
#repeat h ${Q/8*2} ${Q/4}
#repeat u 0 $U
            let f$h_$u = packed_4(at$u + ${4*h}u, lane);
#end
#repeat q 0 4
#repeat o 0 4
#repeat u 0 $U
            t${4*h+q}_$o = fma(vec4<f32>(f$h_$u[$q][$o]), v$u, t${4*h+q}_$o);
#end
#end
#end
#end
#repeat h ${Q/4*2} ${Q/2}
#repeat u 0 $U
            let g$h_$u = packed_2(at$u + ${2*h}u, lane);
#end
#repeat q 0 2
#repeat o 0 4
#repeat u 0 $U
            t${2*h+q}_$o = fma(vec4<f32>(g$h_$u[$q][$o]), v$u, t${2*h+q}_$o);
#end
#end
#end
#end
        }
#repeat q 0 $Q
#repeat o 0 4
        s$q_$o += t$q_$o;
#end
#end
    }
    let first = min(element, 15u) * params.c_out * params.vector_row + known;
#repeat q 0 ${Q/2}
    for (var o = block * ${4*Q}u + ${8*q}u; o < min(block * ${4*Q}u + ${8*q+8}u, params.c_out); o++) {
        if live {
            let at = first + o * params.vector_row;
            var sum = one_of(o, s${2*q}_0, s${2*q}_1, s${2*q}_2, s${2*q}_3,
                             s${2*q+1}_0, s${2*q+1}_1, s${2*q+1}_2, s${2*q+1}_3);
            if params.add != 0u { sum += vectors_out[at]; }
            vectors_out[at] = sum;
        }
    }
#end
}
