// Entry point $NAME of matrix_body.wgsl by an adapter's ordinary arithmetic: an invocation computes 8 rows x 4 columns.

@compute @workgroup_size(128)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let tile = $NAME_tile(group_index(group, groups));
    let row = (local / 16u) * 8u;
    let column = (local % 16u) * 4u;
#repeat r 0 8
    var total$r = vec4<f32>(0.0);
    var sum$r = vec4<f32>(0.0);
    var low$r = vec4<f32>(0.0);
#end
    for (var stage = 0u; stage < tile.stages; stage++) {
        // Nobody still reads the stage before.
        workgroupBarrier();
        $NAME_stage(tile, stage, local);
        workgroupBarrier();
        for (var term = 0u; term < STAGE; term++) {
            let at = term * PITCH + column;
            let right4 = vec4<f32>(right_high[at], right_high[at + 1u], right_high[at + 2u], right_high[at + 3u]);
#repeat r 0 8
            sum$r = fma(vec4<f32>(left_high[term * PITCH + row + $ru]), right4, sum$r);
#end
            if SPLIT {
                let right4_low = vec4<f32>(right_low[at], right_low[at + 1u], right_low[at + 2u], right_low[at + 3u]);
#repeat r 0 8
                low$r = fma(vec4<f32>(left_high[term * PITCH + row + $ru]), right4_low, low$r);
                low$r = fma(vec4<f32>(left_low[term * PITCH + row + $ru]), right4, low$r);
#end
            }
        }
        if (stage + 1u) % CHAIN == 0u {
#repeat r 0 8
            total$r += sum$r;
            sum$r = vec4<f32>(0.0);
#end
        }
    }
#repeat r 0 8
    {
        let all = total$r + sum$r + low$r / LOW;
        $NAME_store(tile, row + $ru, column, all.xy);
        $NAME_store(tile, row + $ru, column + 2u, all.zw);
    }
#end
}
