// Entry point $NAME of conv2d for 1 x 1 kernels of stride 1 without padding, over images whose rows are a multiple of four
// pixels: one invocation computes 4 x $Q output channels x $C input channels, summed over the image rows of its split.
// This is for software adapters, as conv2d_forward_unrolled.wgsl is: four neighbouring pixels are one load, and a round
// takes them at once. The rows of `chain` are summed before they join the total.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q}u;
const $NAME_ACROSS: u32 = $Cu;

@compute @workgroup_size(WG)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = lane_rank();
    var linear = group_index(group, groups);
    let columns = (params.c_in + $Cu * WG - 1u) / ($Cu * WG);
    let column = linear % columns;
    linear /= columns;
    let blocks = (params.c_out + ${4*Q-1}u) / ${4*Q}u;
    let block = linear % blocks;
    let split = linear / blocks;
    let row_runs = params.w_out / 4u;
    let image_runs = params.h_out * row_runs;
#repeat p 0 $C
    let wanted$p = (column * $Cu + $pu) * WG + local;
    let c$p = min(wanted$p, params.c_in - 1u);
    let channel$p = channel_of(c$p);
#end
#repeat q 0 $Q
#repeat p 0 $C
    var s$q_$p = vec4<f32>(0.0);
#end
#end
    let last_row = min((split + 1u) * params.split_rows, params.batch * params.h_out);
    for (var first_row = split * params.split_rows; first_row < last_row; first_row += params.chain) {
#repeat q 0 $Q
#repeat p 0 $C
        var t$q_$p = vec4<f32>(0.0);
#end
#end
        let runs = (min(first_row + params.chain, last_row) - first_row) * row_runs;
        var image = first_row / params.h_out;
        var run = (first_row - image * params.h_out) * row_runs;
        for (var i = 0u; i < runs; i++) {
#repeat p 0 $C
            let v$p = run_of_x((image * params.c_in + c$p) * image_runs + run, channel$p);
#end
#repeat h 0 ${Q/2}
            let g$h = upstream_runs(image * params.c_out * image_runs + run, block * ${4*Q}u + ${8*h}u, image_runs, lane);
#end
#repeat h 0 ${Q/2}
#repeat q 0 2
#repeat u 0 4
            let d${2*h+q}_$u = vec4<f32>(g$h[${4*q}][$u], g$h[${4*q+1}][$u], g$h[${4*q+2}][$u], g$h[${4*q+3}][$u]);
#repeat p 0 $C
            t${2*h+q}_$p = fma(d${2*h+q}_$u, vec4<f32>(v$p[$u]), t${2*h+q}_$p);
#end
#end
#end
#end
            run++;
            if run == image_runs {
                run = 0u;
                image++;
            }
        }
#repeat q 0 $Q
#repeat p 0 $C
        s$q_$p += t$q_$p;
#end
#end
    }
#repeat p 0 $C
    if (wanted$p < params.c_in) & (split < params.splits) {
        let at = ((params.first_split + split) * params.c_in + c$p) * params.packed_row;
#repeat q 0 ${Q/8}
        for (var vector = block * $Qu + ${8*q}u; vector < min(block * $Qu + ${8*q+8}u, params.packed_row); vector++) {
            packed_out[at + vector] = one_of(vector, s${8*q}_$p, s${8*q+1}_$p, s${8*q+2}_$p, s${8*q+3}_$p,
                                             s${8*q+4}_$p, s${8*q+5}_$p, s${8*q+6}_$p, s${8*q+7}_$p);
        }
#end
    }
#end
}
