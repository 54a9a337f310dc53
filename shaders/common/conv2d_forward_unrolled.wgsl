// Entry point $NAME of conv2d for 3 x 3 kernels of stride 1: one invocation computes 4 x $Q output channels x $R rows of
// eight neighbouring pixels. Of an input channel it loads all that its tile needs, and all nine taps of the weights, before the
// sums: each sum then takes its nine terms at once. x is whole vectors, and packed_row is $Q or a multiple of it.
// This is for software adapters. There a load costs as much as twenty products, a variable that a loop changes is stored
// under a mask in every round, and what does not fit the registers is in the nearest cache.
// The terms of `chain` input channels are summed before they join the total: the error of a sum grows with its length.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q}u;
const $NAME_ACROSS: u32 = ${8*R}u;
const $NAME_ROWS: u32 = $Ru;

@compute @workgroup_size(WG)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    let linear = group_index(group, groups);
    // Neighbouring workgroups take the same pixels and other channels: the input is read from cache.
    let blocks = (params.c_out + ${4*Q-1}u) / ${4*Q}u;
    let block = linear % blocks;
    let i = (linear / blocks) * WG + local;
    let runs = (params.w_out + 7u) / 8u;
    let down = (params.h_out + ${R-1}u) / $Ru;
    let live = i < params.batch * down * runs;
    let j = (i % runs) * 8u;
    let row = (i / runs) % down * $Ru;
    let image = min(i / (runs * down), params.batch - 1u);
    var tap = block * $Qu;
#repeat r 0 $R
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 2
    var s$q_$o_$r_$p = vec4<f32>(0.0);
#end
#end
#end
#end
    let left = i32(j) - params.pad_x;
    let up = i32(row) - params.pad_y;
    let last = i32(params.batch * params.c_in * params.h_in * params.w_in / 4u) - 1;
#repeat m 0 3
    let column$m = vec4<i32>(left) + vec4<i32>(${4*m}, ${4*m+1}, ${4*m+2}, ${4*m+3});
    let inside$m = (column$m >= vec4<i32>(0)) & (column$m < vec4<i32>(i32(params.w_in)));
#end
    for (var first = 0u; first < params.c_in; first += params.chain) {
#repeat r 0 $R
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 2
        var t$q_$o_$r_$p = vec4<f32>(0.0);
#end
#end
#end
#end
        for (var c = first; c < min(first + params.chain, params.c_in); c++) {
            let plane = (image * params.c_in + c) * params.h_in;
            let channel = channel_if_normed(c);
#repeat k 0 ${R+2}
            let source$k = place_of(up + $k, params.h_in);
            let ten$k = ten_of_x(i32((plane + source$k.at) * params.w_in) + left, last);
#repeat m 0 3
            let four$k_$m = select(vec4<f32>(0.0), activated_four(ten$k[$m], channel), inside$m & vec4<bool>(source$k.inside));
#repeat u 0 4
            let x$k_${4*m+u} = four$k_$m[$u];
#end
#end
#repeat p 0 2
#repeat l 0 3
            let v$k_$l_$p = vec4<f32>(x$k_${4*p+l}, x$k_${4*p+l+1}, x$k_${4*p+l+2}, x$k_${4*p+l+3});
#end
#end
#end
            // Eight vectors are as many as eight lanes load together: with four to a row, two rows.
#repeat h 0 ${8/Q*4-4}
            let pair$h = packed_8(tap + ${8*h}u, lane);
            let f${2*h} = array<vec4<f32>, 4>(pair$h[0], pair$h[1], pair$h[2], pair$h[3]);
            let f${2*h+1} = array<vec4<f32>, 4>(pair$h[4], pair$h[5], pair$h[6], pair$h[7]);
#end
#repeat l ${64/Q-8} 9
            let f$l = packed_$Q(tap + $lu * params.packed_row, lane);
#end
            tap += 9u * params.packed_row;
#repeat q 0 $Q
#repeat o 0 4
#repeat k 0 3
#repeat l 0 3
            let w$q_$o_$k_$l = vec4<f32>(f${3*k+l}[$q][$o]);
#end
#end
#repeat r 0 $R
#repeat p 0 2
#repeat k 0 3
#repeat l 0 3
            t$q_$o_$r_$p = fma(w$q_$o_$k_$l, v${r+k}_$l_$p, t$q_$o_$r_$p);
#end
#end
#end
#end
#end
#end
        }
#repeat r 0 $R
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 2
        s$q_$o_$r_$p += t$q_$o_$r_$p;
#end
#end
#end
#end
    }
    let at = (image * params.c_out * params.h_out + row) * params.w_out + j;
#repeat q 0 ${Q/2}
    for (var o = block * ${4*Q}u + ${8*q}u; o < min(block * ${4*Q}u + ${8*q+8}u, params.c_out); o++) {
#repeat r 0 $R
#repeat p 0 2
        store_four(o, at + $ru * params.w_out + ${4*p}u, j + ${4*p}u, live & (row + $ru < params.h_out),
                   one_of(o, s${2*q}_0_$r_$p, s${2*q}_1_$r_$p, s${2*q}_2_$r_$p, s${2*q}_3_$r_$p,
                          s${2*q+1}_0_$r_$p, s${2*q+1}_1_$r_$p, s${2*q+1}_2_$r_$p, s${2*q+1}_3_$r_$p));
#end
#end
    }
#end
}
