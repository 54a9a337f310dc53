// Entry point $NAME of matrix_body.wgsl by units that multiply $SIDE x $SIDE matrices, held by subgroups of $LANES lanes: a
// subgroup computes $DOWN x $ACROSS of them. The workgroup has SUBGROUPS / $BESIDE rows of subgroups, $BESIDE in each.
// An adapter whose subgroups have another number of lanes gives wrong numbers, so each is tried before it is used.

@compute @workgroup_size(128)
fn $NAME(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let tile = $NAME_tile(group_index(group, groups));
    let subgroup = local / $LANESu;
    let lane = local % $LANESu;
    let row = (subgroup / $BESIDEu) * ${SIDE*DOWN}u;
    let column = (subgroup % $BESIDEu) * ${SIDE*ACROSS}u;
    let pitch = PITCH;
#repeat r 0 $DOWN
#repeat c 0 $ACROSS
    var total$r_$c = coop_mat$SIDEx$SIDE<f32, C>();
    var sum$r_$c = coop_mat$SIDEx$SIDE<f32, C>();
    var low$r_$c = coop_mat$SIDEx$SIDE<f32, C>();
#end
#end
    for (var stage = 0u; stage < tile.stages; stage++) {
        // Nobody still reads the stage before.
        workgroupBarrier();
        $NAME_stage(tile, stage, local);
        workgroupBarrier();
#repeat k 0 ${16/SIDE}
        {
            let left_at = ${SIDE*k}u * PITCH + row;
            let right_at = ${SIDE*k}u * PITCH + column;
#repeat r 0 $DOWN
            let left$r_at = left_at + ${SIDE*r}u;
            let left$r = coopLoad<coop_mat$SIDEx$SIDE<f16, A>>(&left_high[left$r_at], pitch);
#end
#repeat c 0 $ACROSS
            let right$c_at = right_at + ${SIDE*c}u;
            let right$c = coopLoadT<coop_mat$SIDEx$SIDE<f16, B>>(&right_high[right$c_at], pitch);
#end
#repeat r 0 $DOWN
#repeat c 0 $ACROSS
            sum$r_$c = coopMultiplyAdd(left$r, right$c, sum$r_$c);
#end
#end
            if SPLIT {
#repeat c 0 $ACROSS
                let right_low$c = coopLoadT<coop_mat$SIDEx$SIDE<f16, B>>(&right_low[right$c_at], pitch);
#end
#repeat r 0 $DOWN
                let left_low$r = coopLoad<coop_mat$SIDEx$SIDE<f16, A>>(&left_low[left$r_at], pitch);
#repeat c 0 $ACROSS
                low$r_$c = coopMultiplyAdd(left$r, right_low$c, low$r_$c);
                low$r_$c = coopMultiplyAdd(left_low$r, right$c, low$r_$c);
#end
#end
            }
        }
#end
        if (stage + 1u) % CHAIN == 0u {
#repeat r 0 $DOWN
#repeat c 0 $ACROSS
            total$r_$c = total$r_$c + sum$r_$c;
            sum$r_$c = coop_mat$SIDEx$SIDE<f32, C>();
#end
#end
        }
    }
    // Through workgroup memory: a matrix does not say which lane has which element.
    let own = subgroup * ${SIDE*SIDE}u;
    let side = $SIDEu;
    let share = 1.0 / LOW;
#repeat r 0 $DOWN
#repeat c 0 $ACROSS
    {
        workgroupBarrier();
        let all = total$r_$c + sum$r_$c + low$r_$c * share;
        coopStoreT(all, &finished[own], side);
        workgroupBarrier();
#repeat e 0 ${SIDE*SIDE/LANES/2}
        {
            let pair = 2u * lane + ${2*LANES*e}u;
            let sum = vec2<f32>(finished[own + pair], finished[own + pair + 1u]);
            $NAME_store(tile, row + ${SIDE*r}u + pair / $SIDEu, column + ${SIDE*c}u + pair % $SIDEu, sum);
        }
#end
    }
#end
#end
}
