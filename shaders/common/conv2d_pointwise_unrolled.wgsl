// Entry point $NAME of conv2d for 1 x 1 kernels of stride 1 without padding, over images whose pixels are a multiple of
// four: one invocation computes 4 x $Q output channels x $P runs, a run being four neighbouring pixels of an image.
// This is for software adapters, as conv2d_forward_unrolled.wgsl is: a run is one load, and a round takes two terms. Whether x is
// normalised is a constant here: its statistics would be loaded for every term, and shortcuts read x as it is.
// The terms of `chain` input channels are summed before they join the total: the error of a sum grows with its length.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q}u;
const $NAME_ACROSS: u32 = ${4*P}u;

@compute @workgroup_size(WG)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    let linear = group_index(group, groups);
    // Neighbouring workgroups take the same pixels and other channels: the input is read from cache.
    let blocks = (params.c_out + ${4*Q-1}u) / ${4*Q}u;
    let block = linear % blocks;
    let i = (linear / blocks) * WG + local;
    // Runs of an image; the invocation has every `pieces`-th of them.
    let runs = params.h_out * params.w_out / 4u;
    let pieces = (runs + ${P-1}u) / $Pu;
    let image = min(i / pieces, params.batch - 1u);
    let piece = i % pieces;
#repeat p 0 $P
    let run$p = min(piece + $pu * pieces, runs - 1u);
#end
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 $P
    var s$q_$o_$p = vec4<f32>(0.0);
#end
#end
#end
    for (var first = 0u; first < params.c_in; first += params.chain) {
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 $P
        var t$q_$o_$p = vec4<f32>(0.0);
#end
#end
#end
        let end = min(first + params.chain, params.c_in);
        for (var c = first; c < end; c += 2u) {
            // A term past the last adds zeros.
#repeat u 0 2
            let c$u = min(c + $uu, end - 1u);
            let channel$u = channel_of(c$u);
            let plane$u = (image * params.c_in + c$u) * runs;
#repeat p 0 $P
            let v$u_$p = select(vec4<f32>(0.0), run_of_x(plane$u + run$p, channel$u), c + $uu < end);
#end
            let f$u = packed_$Q(c$u * params.packed_row + block * $Qu, lane);
#end
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 $P
#repeat u 0 2
            t$q_$o_$p = fma(vec4<f32>(f$u[$q][$o]), v$u_$p, t$q_$o_$p);
#end
#end
#end
#end
        }
#repeat q 0 $Q
#repeat o 0 4
#repeat p 0 $P
        s$q_$o_$p += t$q_$o_$p;
#end
#end
#end
    }
#repeat q 0 ${Q/2}
    for (var o = block * ${4*Q}u + ${8*q}u; o < min(block * ${4*Q}u + ${8*q+8}u, params.c_out); o++) {
        let plane = (image * params.c_out + o) * runs;
#repeat p 0 $P
        if (i < params.batch * pieces) & (piece + $pu * pieces < runs) {
            store_run(plane + run$p, one_of(o, s${2*q}_0_$p, s${2*q}_1_$p, s${2*q}_2_$p, s${2*q}_3_$p,
                                            s${2*q+1}_0_$p, s${2*q+1}_1_$p, s${2*q+1}_2_$p, s${2*q+1}_3_$p));
        }
#end
    }
#end
}
