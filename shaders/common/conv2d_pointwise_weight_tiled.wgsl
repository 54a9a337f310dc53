// Entry point $NAME of conv2d for 1 x 1 kernels: a workgroup of 16 x $G invocations computes 4 x $Q x $G output channels
// x $C input channels, summed over the image rows of its split. It goes through the pixels in stages of 32 at
// most: the upstream gradients of all its output channels and the inputs are brought to workgroup memory,
// of which each invocation reads 4 x $Q output and every sixteenth input channel for a pixel.
// The rows of `chain` are summed before they join the total. The last element of each row of memory is unused: with it,
// the invocations that bring neighbouring pixels write to different banks.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q*G}u;
const $NAME_ACROSS: u32 = $Cu;

var<workgroup> $NAME_x: array<array<array<array<f32, 17>, ${C/16}>, 4>, 8>;
var<workgroup> $NAME_g: array<array<array<array<vec4<f32>, ${G+1}>, $Q>, 4>, 8>;

@compute @workgroup_size(${16*G})
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = local % 16u;
    let own = local / 16u;
    var linear = group_index(group, groups);
    let blocks = (params.c_out + ${4*Q*G-1}u) / ${4*Q*G}u;
    let block = linear % blocks;
    linear /= blocks;
    let columns = (params.c_in + ${C-1}u) / $Cu;
    let first_channel = (linear % columns) * $Cu;
    let split = linear / columns;
    let size = params.h_out * params.w_out;
    let input_size = params.h_in * params.w_in;
    let last_input = params.c_in - 1u;

    // The pixel of a stage that this invocation brings, and which channels of it.
    let pixel = local % 32u;
    let slot = local / 32u;

#repeat q 0 $Q
#repeat p 0 ${C/16}
    var s$q_$p = vec4<f32>(0.0);
#end
#end
    let last_row = min((split + 1u) * params.split_rows, params.batch * params.h_out);
    for (var first_row = split * params.split_rows; first_row < last_row; first_row += params.chain) {
#repeat q 0 $Q
#repeat p 0 ${C/16}
        var t$q_$p = vec4<f32>(0.0);
#end
#end
        let end = min(first_row + params.chain, last_row) * params.w_out;
        for (var first = first_row * params.w_out; first < end; first += 32u) {
            let at = min(first + pixel, end - 1u);
            let live = first + pixel < end;
            let image = at / size;
            let row = (at - image * size) / params.w_out;
            let column = at - image * size - row * params.w_out;
            let y = place_of(i32(row * STRIDE) - params.pad_y, params.h_in);
            let x = place_of(i32(column * STRIDE) - params.pad_x, params.w_in);
            let input = image * params.c_in * input_size + y.at * params.w_in + x.at;
            // Nobody still reads the stage before.
            workgroupBarrier();
#repeat e 0 ${2*C/G}
            {
                let c = first_channel + slot + ${G/2*e}u;
                let known = min(c, last_input);
                let inside = live & (c <= last_input) & y.inside & x.inside;
                $NAME_x[pixel / 4u][pixel % 4u][${G/2*e/16}][slot + ${G/2*e-G/2*e/16*16}u] = value_at(input + known * input_size, inside, channel_of(known));
            }
#end
            let upstream = image * params.c_out * size + at - image * size;
#repeat e 0 ${2*Q}
            {
                let vector = slot + ${G/2*e}u;
                let o = (block * ${Q*G}u + vector) * 4u;
                let value = vec4<f32>(dy_two(upstream, o), dy_two(upstream, o + 2u));
                $NAME_g[pixel / 4u][pixel % 4u][vector % $Qu][vector / $Qu] = select(vec4<f32>(0.0), value, live);
            }
#end
            workgroupBarrier();
            let quads = min((end - first + 3u) / 4u, 8u);
            for (var i = 0u; i < quads; i++) {
#repeat u 0 4
                {
#repeat q 0 $Q
                    let g$q = $NAME_g[i][$u][$q][own];
#end
#repeat p 0 ${C/16}
                    let v$p = vec4<f32>($NAME_x[i][$u][$p][lane]);
#repeat q 0 $Q
                    t$q_$p = fma(g$q, v$p, t$q_$p);
#end
#end
                }
#end
            }
        }
#repeat q 0 $Q
#repeat p 0 ${C/16}
        s$q_$p += t$q_$p;
#end
#end
    }
    let vector = block * ${Q*G}u + own * $Qu;
#repeat p 0 ${C/16}
    {
        let c = first_channel + lane + ${16*p}u;
        let at = ((params.first_split + split) * params.c_in + c) * params.packed_row + vector;
        if (c < params.c_in) & (split < params.splits) {
#repeat q 0 $Q
            if vector + $qu < params.packed_row { packed_out[at + $qu] = s$q_$p; }
#end
        }
    }
#end
}
