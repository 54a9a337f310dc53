// Entry point $NAME of conv2d for 1 x 1 kernels: a workgroup of $L x $G invocations computes 4 x $Q x $G output
// channels x $L x $P pixels, taken in the order in which y stores them. It goes through the terms of the sums in stages
// of 36, as many as join the total at once: the inputs of all its pixels and the weights of all its channels are
// brought to workgroup memory, of which each invocation reads $P pixels and 4 x $Q channels for a term.
// Memory has as many dimensions as there are counters: only counters that vary cost an instruction.

// The tile, as `ops/conv2d/tiles.rs` has it.
const $NAME_DOWN: u32 = ${4*Q*G}u;
const $NAME_ACROSS: u32 = ${L*P}u;

var<workgroup> $NAME_x: array<array<array<array<f32, $L>, $P>, 9>, 4>;
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
    let first_pixel = (linear / blocks) * ${L*P}u;
    let size = params.h_out * params.w_out;
    let pixels = params.batch * size;

    let input_size = params.h_in * params.w_in;
    // The pixel whose inputs this invocation brings; where there are several for it, they share its channels.
    let p = own % $Pu;
    let slot = own / $Pu;
    let pixel = min(first_pixel + pixel_of(p, lane, $Lu), pixels - 1u);
    let image = pixel / size;
    let row = (pixel - image * size) / params.w_out;
    let column = pixel - image * size - row * params.w_out;
    let y = place_of(i32(row * STRIDE) - params.pad_y, params.h_in);
    let x = place_of(i32(column * STRIDE) - params.pad_x, params.w_in);
    let at = image * params.c_in * input_size + y.at * params.w_in + x.at;
    let inside = y.inside & x.inside;

#repeat q 0 $Q
#repeat p 0 $P
    var s$q_$p = vec4<f32>(0.0);
#end
#end
    let last = params.c_in - 1u;
    for (var first = 0u; first < params.c_in; first += 36u) {
        // Nobody still reads the stage before.
        workgroupBarrier();
#repeat e 0 ${4*P/G}
        {
            let g = slot + ${G/P*e}u;
#repeat u 0 9
            let c$u = first + g * 9u + $uu;
            let known$u = min(c$u, last);
            $NAME_x[g][$u][p][lane] = value_at(at + known$u * input_size, inside & (c$u <= last), channel_of(known$u));
#end
        }
#end
#repeat r 0 ${36*Q/L+1}
        {
            let item = local + ${L*G*r}u;
            let term = item / ${Q*G}u;
            let vector = item % ${Q*G}u;
            if term < 36u {
                $NAME_w[term / 9u][term % 9u][vector / $Qu][vector % $Qu] = packed_at(first + term, block * ${Q*G}u + vector);
            }
        }
#end
        workgroupBarrier();
#repeat q 0 $Q
#repeat p 0 $P
        var t$q_$p = vec4<f32>(0.0);
#end
#end
        for (var g = 0u; g < 4u; g++) {
#repeat u 0 9
            {
#repeat q 0 $Q
                let w$q = $NAME_w[g][$u][own][$q];
#end
#repeat p 0 $P
                let v$p = vec4<f32>($NAME_x[g][$u][$p][lane]);
#repeat q 0 $Q
                t$q_$p = fma(w$q, v$p, t$q_$p);
#end
#end
            }
#end
        }
#repeat q 0 $Q
#repeat p 0 $P
        s$q_$p += t$q_$p;
#end
#end
    }
    let channel = (block * $Gu + own) * ${4*Q}u;
#repeat p 0 ${P/2}
    {
        let at = first_pixel + pixel_of(${2*p}u, lane, $Lu);
        let next = first_pixel + pixel_of(${2*p+1}u, lane, $Lu);
#repeat q 0 $Q
        store_pixels(channel + ${4*q}u, at, next, s$q_${2*p}, s$q_${2*p+1});
#end
    }
#end
}
