// Entry point $NAME of conv2d for 3 x 3 kernels of stride 1: a workgroup of $L x $G invocations computes 4 x $Q x $G
// output channels of $L x $R runs, a run being four neighbouring pixels of a row. It goes through the input channels in
// stages of four, whose 36 terms join the total at once: the patch of the image that lies under its runs, with a border
// of zeros, and the weights of its channels are brought to workgroup memory.
// The patch has rows of `pitch` vectors of four pixels; two neighbouring vectors hold what the three taps of a kernel row
// need for a run. Memory has as many dimensions as there are counters: only counters that vary cost an instruction.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q*G}u;
const $NAME_ACROSS: u32 = ${4*L*R}u;
const $NAME_PATCH: u32 = $PATCHu;

var<workgroup> $NAME_x: array<array<vec4<f32>, $PATCH>, 4>;
var<workgroup> $NAME_w: array<array<array<array<vec4<f32>, $Q>, $G>, 9>, 4>;

@compute @workgroup_size(${L*G})
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let lane = local % $Lu;
    let own = local / $Lu;
    let linear = group_index(group, groups);
    // Neighbouring workgroups take the same pixels and other channels: the input is read from cache.
    let blocks = (params.c_out + ${4*Q*G-1}u) / ${4*Q*G}u;
    let block = linear % blocks;
    let runs = (params.w_out + 3u) / 4u;
    let pitch = runs + 1u;
    let total = params.batch * params.h_out * runs;
    // The last workgroups may have none.
    let wanted = (linear / blocks) * ${L*R}u;
    let first_run = min(wanted, total - 1u);
    let first_row = padded_row(first_run / runs);

#repeat r 0 $R
    let wanted$r = wanted + lane + ${L*r}u;
    let run$r = min(wanted$r, total - 1u);
    let row$r = run$r / runs;
    let base$r = (padded_row(row$r) - first_row) * pitch + run$r - row$r * runs;
#end

    // The vectors of the patch that this invocation brings, of one of the four channels.
    let brought = local / ${L*G/4}u;
    let last_row = padded_row(min(first_run + ${L*R-1}u, total - 1u) / runs);
    let used = (last_row - first_row + 3u) * pitch;
    let input_size = params.h_in * params.w_in;
    let last = params.c_in - 1u;
#repeat i 0 ${PATCH*4/L/G}
    let vector$i = local % ${L*G/4}u + ${L*G/4*i}u;
    let padded$i = first_row + vector$i / pitch;
    let image$i = padded$i / (params.h_out + 2u);
    let y$i = i32(padded$i - image$i * (params.h_out + 2u)) - params.pad_y;
    let x$i = i32(vector$i % pitch) * 4 - params.pad_x;
    let live$i = (vector$i < used) & (image$i < params.batch) & (y$i >= 0) & (y$i < i32(params.h_in));
    let at$i = min(image$i, params.batch - 1u) * params.c_in * input_size + u32(clamp(y$i, 0, i32(params.h_in) - 1)) * params.w_in;
#end

#repeat q 0 $Q
#repeat o 0 4
#repeat r 0 $R
    var s$q_$o_$r = vec4<f32>(0.0);
#end
#end
#end
    for (var first = 0u; first < params.c_in; first += 4u) {
        // Nobody still reads the stage before.
        workgroupBarrier();
        let c = first + brought;
        let channel = channel_of(min(c, last));
        let plane = min(c, last) * input_size;
#repeat i 0 ${PATCH*4/L/G}
        if vector$i < used {
            $NAME_x[brought][vector$i] = four_at(plane + at$i, live$i & (c <= last), x$i, channel);
        }
#end
#repeat i 0 ${36*Q/L+1}
        {
            let item = local + ${L*G*i}u;
            let term = item / ${Q*G}u;
            let vector = item % ${Q*G}u;
            if term < 36u {
                $NAME_w[term / 9u][term % 9u][vector / $Qu][vector % $Qu] = packed_at(first * 9u + term, block * ${Q*G}u + vector);
            }
        }
#end
        workgroupBarrier();
#repeat q 0 $Q
#repeat o 0 4
#repeat r 0 $R
        var t$q_$o_$r = vec4<f32>(0.0);
#end
#end
#end
        for (var g = 0u; g < 4u; g++) {
#repeat k 0 3
            {
#repeat r 0 $R
                let a$r = $NAME_x[g][base$r + $ku * pitch];
                let b$r = $NAME_x[g][base$r + $ku * pitch + 1u];
                let v0_$r = a$r;
                let v1_$r = vec4<f32>(a$r.yzw, b$r.x);
                let v2_$r = vec4<f32>(a$r.zw, b$r.xy);
#end
#repeat l 0 3
#repeat q 0 $Q
                {
                    let w = $NAME_w[g][${3*k+l}][own][$q];
#repeat r 0 $R
                    t$q_0_$r = fma(vec4<f32>(w.x), v$l_$r, t$q_0_$r);
                    t$q_1_$r = fma(vec4<f32>(w.y), v$l_$r, t$q_1_$r);
                    t$q_2_$r = fma(vec4<f32>(w.z), v$l_$r, t$q_2_$r);
                    t$q_3_$r = fma(vec4<f32>(w.w), v$l_$r, t$q_3_$r);
#end
                }
#end
#end
            }
#end
        }
#repeat q 0 $Q
#repeat o 0 4
#repeat r 0 $R
        s$q_$o_$r += t$q_$o_$r;
#end
#end
#end
    }
    let o = (block * $Gu + own) * ${4*Q}u;
#repeat r 0 $R
    {
        let image = row$r / params.h_out;
        let j = (run$r - row$r * runs) * 4u;
        let at = (image * params.c_out * params.h_out + row$r - image * params.h_out) * params.w_out + j;
        let live = wanted$r < total;
#repeat q 0 $Q
#repeat o 0 4
        store_four(o + ${4*q+o}u, at, j, live, s$q_$o_$r);
#end
#end
    }
#end
}
