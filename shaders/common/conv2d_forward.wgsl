// Entry point $NAME of conv2d: one invocation computes 4 x $Q output channels x 4 x $P neighbouring pixels of a row.
// Of a kernel row it keeps a window of the inputs in registers and loads one new input per tap where the stride is 1.
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
    let runs = (params.w_out + ${4*P-1}u) / ${4*P}u;
    let live = i < params.batch * params.h_out * runs;
    let j = (i % runs) * ${4*P}u;
    let row = (i / runs) % params.h_out;
    let image = min(i / (runs * params.h_out), params.batch - 1u);
    var tap = block * $Qu;
#repeat q 0 $Q
#repeat p 0 $P
    var sx$q_$p = vec4<f32>(0.0);
    var sy$q_$p = vec4<f32>(0.0);
    var sz$q_$p = vec4<f32>(0.0);
    var sw$q_$p = vec4<f32>(0.0);
#end
#end
    let left = i32(j * STRIDE) - params.pad_x;
    let step = i32(STRIDE);
    for (var first = 0u; first < params.c_in; first += params.chain) {
#repeat q 0 $Q
#repeat p 0 $P
        var tx$q_$p = vec4<f32>(0.0);
        var ty$q_$p = vec4<f32>(0.0);
        var tz$q_$p = vec4<f32>(0.0);
        var tw$q_$p = vec4<f32>(0.0);
#end
#end
        for (var c = first; c < min(first + params.chain, params.c_in); c++) {
            let plane = (image * params.c_in + c) * params.h_in;
            let channel = channel_of(c);
            for (var k = 0u; k < params.k_h; k++) {
                let source = place_of(i32(row * STRIDE + k) - params.pad_y, params.h_in);
                let inside = source.inside;
                let start = (plane + source.at) * params.w_in;
                var w0 = vec4<f32>(0.0);
#repeat p 1 $P
                var w$p = vec4<f32>(0.0);
#end
                if STRIDE == 1u {
                    w0 = vec4<f32>(0.0, input_at(start, inside, left, channel),
                                   input_at(start, inside, left + 1, channel),
                                   input_at(start, inside, left + 2, channel));
#repeat p 1 $P
                    w$p = vec4<f32>(input_at(start, inside, left + ${4*p-1}, channel),
                                    input_at(start, inside, left + ${4*p}, channel),
                                    input_at(start, inside, left + ${4*p+1}, channel),
                                    input_at(start, inside, left + ${4*p+2}, channel));
#end
                }
                for (var l = 0u; l < params.k_w; l++) {
                    let at = left + i32(l);
                    if STRIDE == 1u {
#repeat p 1 $P
                        let x$p = w$p.x;
#end
                        let x$P = input_at(start, inside, at + ${4*P-1}, channel);
#repeat p 0 $P
                        w$p = vec4<f32>(w$p.yzw, x${p+1});
#end
                    } else {
#repeat p 0 $P
                        w$p = vec4<f32>(input_at(start, inside, at + ${4*p} * step, channel),
                                        input_at(start, inside, at + ${4*p+1} * step, channel),
                                        input_at(start, inside, at + ${4*p+2} * step, channel),
                                        input_at(start, inside, at + ${4*p+3} * step, channel));
#end
                    }
                    let f = packed_$Q(tap, lane);
                    tap += params.packed_row;
#repeat q 0 $Q
#repeat p 0 $P
                    tx$q_$p = fma(vec4<f32>(f[$q].x), w$p, tx$q_$p);
                    ty$q_$p = fma(vec4<f32>(f[$q].y), w$p, ty$q_$p);
                    tz$q_$p = fma(vec4<f32>(f[$q].z), w$p, tz$q_$p);
                    tw$q_$p = fma(vec4<f32>(f[$q].w), w$p, tw$q_$p);
#end
#end
                }
            }
        }
#repeat q 0 $Q
#repeat p 0 $P
        sx$q_$p += tx$q_$p;
        sy$q_$p += ty$q_$p;
        sz$q_$p += tz$q_$p;
        sw$q_$p += tw$q_$p;
#end
#end
    }
    let at = (image * params.c_out * params.h_out + row) * params.w_out + j;
#repeat q 0 ${Q/2}
    for (var o = block * ${4*Q}u + ${8*q}u; o < min(block * ${4*Q}u + ${8*q+8}u, params.c_out); o++) {
#repeat p 0 $P
        store_four(o, at + ${4*p}u, j + ${4*p}u, live,
                   one_of(o, sx${2*q}_$p, sy${2*q}_$p, sz${2*q}_$p, sw${2*q}_$p,
                          sx${2*q+1}_$p, sy${2*q+1}_$p, sz${2*q+1}_$p, sw${2*q+1}_$p));
#end
    }
#end
}
