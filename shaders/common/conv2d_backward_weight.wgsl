// Entry point $NAME of conv2d: one invocation computes 4 x $Q output channels x a block of 3 x 3 taps of one input
// channel, summed over the image rows of its split. The rows of `chain` are summed before they join the total.

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
    linear /= blocks;
    let across = (params.k_w + 2u) / 3u;
    let down = (params.k_h + 2u) / 3u;
    let l0 = (linear % across) * 3u;
    linear /= across;
    let k0 = (linear % down) * 3u;
    let split = linear / down;
    let wanted = column * WG + local;
    let live = (wanted < params.c_in) & (split < params.splits);
    let c = min(wanted, params.c_in - 1u);
    let channel = channel_if_normed(c);
#repeat k 0 3
#repeat l 0 3
#repeat q 0 $Q
    var s$k$l_$q = vec4<f32>(0.0);
#end
#end
#end
    let last_row = min((split + 1u) * params.split_rows, params.batch * params.h_out);
    let step = i32(STRIDE);
    let left = i32(l0) - params.pad_x;
    let bottom = i32(params.h_in) - 1;
    for (var first_row = split * params.split_rows; first_row < last_row; first_row += params.chain) {
#repeat k 0 3
#repeat l 0 3
#repeat q 0 $Q
        var t$k$l_$q = vec4<f32>(0.0);
#end
#end
#end
        for (var r = first_row; r < min(first_row + params.chain, last_row); r++) {
            let image = r / params.h_out;
            let row = r % params.h_out;
            let plane = (image * params.c_in + c) * params.h_in;
            let first = image * params.c_out * params.h_out * params.w_out + row * params.w_out;
            let up = i32(row * STRIDE + k0) - params.pad_y;
#repeat k 0 3
            let in$k = (up + $k >= 0) & (up + $k <= bottom);
            let row$k = (plane + u32(clamp(up + $k, 0, bottom))) * params.w_in;
            var x$k = vec3<f32>(0.0);
            if (STRIDE == 1u) & (TAP_COLUMNS > 1u) & (TAP_ROWS > $ku) {
                x$k = vec3<f32>(0.0, activated_at(row$k, in$k, left, channel),
                                activated_at(row$k, in$k, left + 1, channel));
            }
#end
            for (var j = 0u; j < params.w_out; j++) {
                let at = left + i32(j) * step;
#repeat k 0 3
                if TAP_ROWS > $ku {
                    if TAP_COLUMNS == 1u {
                        x$k.x = activated_at(row$k, in$k, at, channel);
                    } else if STRIDE == 1u {
                        x$k = vec3<f32>(x$k.yz, activated_at(row$k, in$k, at + 2, channel));
                    } else {
                        x$k = vec3<f32>(activated_at(row$k, in$k, at, channel),
                                        activated_at(row$k, in$k, at + 1, channel),
                                        activated_at(row$k, in$k, at + 2, channel));
                    }
                }
#end
                let g = upstream_$Q(first + j, block * ${4*Q}u, lane);
#repeat k 0 3
#repeat l 0 3
                if (TAP_ROWS > $ku) & (TAP_COLUMNS > $lu) {
#repeat q 0 $Q
                    t$k$l_$q = fma(g[$q], vec4<f32>(x$k[$l]), t$k$l_$q);
#end
                }
#end
#end
            }
        }
#repeat k 0 3
#repeat l 0 3
#repeat q 0 $Q
        s$k$l_$q += t$k$l_$q;
#end
#end
#end
    }
#repeat k 0 3
    if live & (TAP_ROWS > $ku) & (k0 + $ku < params.k_h) {
        let tap = ((params.first_split + split) * params.k_h + k0 + $ku) * params.k_w + l0;
        for (var l = 0u; l < min(TAP_COLUMNS, params.k_w - l0); l++) {
            let at = ((tap + l) * params.c_in + c) * params.packed_row + block * $Qu;
#repeat q 0 $Q
            packed_out[at + $qu] = select(select(s$k0_$q, s$k1_$q, l == 1u), s$k2_$q, l == 2u);
#end
        }
    }
#end
}
