// Entry point $NAME of conv2d for 3 x 3 kernels of stride 1: a workgroup of 16 x $G invocations computes 4 x $Q x $G output
// channels x 9 taps of 16 input channels, summed over the image rows of its split. It goes through them in stages of eight
// runs of four neighbouring pixels at most: the upstream gradients of its output channels and, of its input channels, the
// patch of the image that lies under the runs, with a border of zeros, are brought to workgroup memory.
// The rows of `chain` are summed before they join the total. The last element of each row of memory is unused: with it,
// the invocations that bring neighbouring pixels write to different banks.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q*G}u;
const $NAME_ACROSS: u32 = 16u;

var<workgroup> $NAME_x: array<array<vec4<f32>, 17>, 32>;
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
    let columns = (params.c_in + 15u) / 16u;
    let first_channel = (linear % columns) * 16u;
    let split = linear / columns;
    let size = params.h_out * params.w_out;
    let input_size = params.h_in * params.w_in;
    let last_input = params.c_in - 1u;
    // Runs of a row, and those of them that are in a stage.
    let runs = (params.w_out + 3u) / 4u;
    let width = min(runs, 8u);
    let pitch = width + 1u;

    // Of a stage this invocation brings one pixel or vector of some channels.
    let brought = local % 32u;
    let slot = local / 32u;
    let brought_run = brought / 4u;
    let patch_row = brought / pitch;
    let patch_column = brought - patch_row * pitch;

#repeat q 0 $Q
#repeat p 0 9
    var s$q_$p = vec4<f32>(0.0);
#end
#end
    let last_row = min((split + 1u) * params.split_rows, params.batch * params.h_out);
    for (var first_row = split * params.split_rows; first_row < last_row; first_row += params.chain) {
#repeat q 0 $Q
#repeat p 0 9
        var t$q_$p = vec4<f32>(0.0);
#end
#end
        let rows = min(params.chain, last_row - first_row);
        let first_padded = padded_row(first_row);
        let patch_rows = padded_row(first_row + rows - 1u) - first_padded + 3u;
        for (var first_run = 0u; first_run < runs; first_run += 8u) {
            let stage_width = min(width, runs - first_run);
            // Nobody still reads the stage before.
            workgroupBarrier();
            {
                let padded = first_padded + patch_row;
                let image = padded / (params.h_out + 2u);
                let y = i32(padded - image * (params.h_out + 2u)) - params.pad_y;
                let live = (patch_row < patch_rows) & (y >= 0) & (y < i32(params.h_in)) & (image < params.batch);
                let at = min(image, params.batch - 1u) * params.c_in * input_size
                       + u32(clamp(y, 0, i32(params.h_in) - 1)) * params.w_in;
                let left = i32(first_run + patch_column) * 4 - params.pad_x;
#repeat e 0 ${32/G}
                {
                    let c = first_channel + slot + ${G/2*e}u;
                    let known = min(c, last_input);
                    $NAME_x[brought][slot + ${G/2*e}u] = four_at(at + known * input_size, live & (c <= last_input), left, channel_of(known));
                }
#end
            }
            {
                let row_of = brought_run / stage_width;
                let j = (first_run + brought_run - row_of * stage_width) * 4u + brought % 4u;
                let row = min(first_row + row_of, last_row - 1u);
                let image = row / params.h_out;
                let live = (row_of < rows) & (j < params.w_out);
                let upstream = image * params.c_out * size + (row - image * params.h_out) * params.w_out + min(j, params.w_out - 1u);
#repeat e 0 ${2*Q}
                {
                    let vector = slot + ${G/2*e}u;
                    let o = (block * ${Q*G}u + vector) * 4u;
                    let value = vec4<f32>(dy_two(upstream, o), dy_two(upstream, o + 2u));
                    $NAME_g[brought_run][brought % 4u][vector % $Qu][vector / $Qu] = select(vec4<f32>(0.0), value, live);
                }
#end
            }
            workgroupBarrier();
            // Where the run lies in the patch: rows of one image follow each other, the next image begins two further.
            var base = 0u;
            var in_row = 0u;
            var left_rows = params.h_out - first_row % params.h_out;
            for (var i = 0u; i < rows * stage_width; i++) {
#repeat u 0 4
#repeat q 0 $Q
                let g$u_$q = $NAME_g[i][$u][$q][own];
#end
#end
#repeat k 0 3
                {
                    let a = $NAME_x[base + $ku * pitch][lane];
                    let b = $NAME_x[base + $ku * pitch + 1u][lane];
                    let v0 = a.x;
                    let v1 = a.y;
                    let v2 = a.z;
                    let v3 = a.w;
                    let v4 = b.x;
                    let v5 = b.y;
#repeat u 0 4
#repeat l 0 3
#repeat q 0 $Q
                    t$q_${3*k+l} = fma(g$u_$q, vec4<f32>(v${u+l}), t$q_${3*k+l});
#end
#end
#end
                }
#end
                base += 1u;
                in_row += 1u;
                if in_row == stage_width {
                    in_row = 0u;
                    left_rows -= 1u;
                    base += pitch - stage_width;
                    if left_rows == 0u {
                        left_rows = params.h_out;
                        base += 2u * pitch;
                    }
                }
            }
        }
#repeat q 0 $Q
#repeat p 0 9
        s$q_$p += t$q_$p;
#end
#end
    }
    let vector = (block * $Gu + own) * $Qu;
    let c = first_channel + lane;
    if (c < params.c_in) & (split < params.splits) {
#repeat p 0 9
        {
            let at = (((params.first_split + split) * 9u + $pu) * params.c_in + c) * params.packed_row + vector;
#repeat q 0 $Q
            if vector + $qu < params.packed_row { packed_out[at + $qu] = s$q_$p; }
#end
        }
#end
    }
}
