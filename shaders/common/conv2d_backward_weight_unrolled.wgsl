// Entry point $NAME of conv2d for 3 x 3 kernels of stride 1 and padding 1, over images whose rows are a multiple of four
// pixels: one invocation computes 4 x $Q output channels x 9 taps of one input channel, summed over the image rows of its
// split. This is for software adapters, as conv2d_forward_unrolled.wgsl is: four neighbouring pixels are one load, and a
// round takes them at once. The rows of `chain` are summed before they join the total.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q}u;
const $NAME_ACROSS: u32 = 1u;

@compute @workgroup_size(WG)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    var linear = group_index(group, groups);
    let columns = (params.c_in + WG - 1u) / WG;
    let column = linear % columns;
    linear /= columns;
    let blocks = (params.c_out + ${4*Q-1}u) / ${4*Q}u;
    let block = linear % blocks;
    let split = linear / blocks;
    let wanted = column * WG + local;
    let c = min(wanted, params.c_in - 1u);
    let channel = channel_if_normed(c);
    let runs = params.w_out / 4u;
#repeat p 0 9
#repeat q 0 $Q
    var s$p_$q = vec4<f32>(0.0);
#end
#end
    let last_row = min((split + 1u) * params.split_rows, params.batch * params.h_out);
    for (var first_row = split * params.split_rows; first_row < last_row; first_row += params.chain) {
#repeat p 0 9
#repeat q 0 $Q
        var t$p_$q = vec4<f32>(0.0);
#end
#end
        for (var r = first_row; r < min(first_row + params.chain, last_row); r++) {
            let image = r / params.h_out;
            let row = r - image * params.h_out;
            let plane = (image * params.c_in + c) * params.h_in;
            let upstream = (image * params.c_out * params.h_out + row) * runs;
            // Of each row under the run: the pixel before it, its four pixels, and those of the next.
#repeat k 0 3
            let y$k = i32(row) + ${k} - 1;
            let inside$k = (y$k >= 0) & (y$k < i32(params.h_in));
            let start$k = (plane + u32(clamp(y$k, 0, i32(params.h_in) - 1))) * runs;
            var before$k = 0.0;
            var here$k = run_if(start$k, inside$k, channel);
#end
            for (var j = 0u; j < runs; j++) {
#repeat h 0 ${Q/2}
                let g$h = upstream_runs(upstream + j, block * ${4*Q}u + ${8*h}u, params.h_out * runs, lane);
#end
#repeat h 0 ${Q/2}
#repeat q 0 2
#repeat u 0 4
                let d${2*h+q}_$u = vec4<f32>(g$h[${4*q}][$u], g$h[${4*q+1}][$u], g$h[${4*q+2}][$u], g$h[${4*q+3}][$u]);
#end
#end
#end
                let next = min(j + 1u, runs - 1u);
#repeat k 0 3
                {
                    let after = run_if(start$k + next, inside$k & (j + 1u < runs), channel);
                    let x0 = before$k;
                    let x1 = here$k.x;
                    let x2 = here$k.y;
                    let x3 = here$k.z;
                    let x4 = here$k.w;
                    let x5 = after.x;
#repeat l 0 3
#repeat q 0 $Q
#repeat u 0 4
                    t${3*k+l}_$q = fma(d$q_$u, vec4<f32>(x${u+l}), t${3*k+l}_$q);
#end
#end
#end
                    before$k = here$k.w;
                    here$k = after;
                }
#end
            }
        }
#repeat p 0 9
#repeat q 0 $Q
        s$p_$q += t$p_$q;
#end
#end
    }
    if (wanted < params.c_in) & (split < params.splits) {
        let tap = (params.first_split + split) * 9u;
#repeat k 0 3
        for (var l = 0u; l < 3u; l++) {
            let at = ((tap + ${3*k}u + l) * params.c_in + c) * params.packed_row + block * $Qu;
#repeat q 0 $Q
            packed_out[at + $qu] = select(select(s${3*k}_$q, s${3*k+1}_$q, l == 1u), s${3*k+2}_$q, l == 2u);
#end
        }
#end
    }
}
