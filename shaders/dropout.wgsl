// Dropout and DropBlock (Ghiasi, Lin, Le, "DropBlock", NeurIPS 2018).
//   bernoulli:     y_i = 1 where u_i < p, else 0
//   dropout:       y_i = a_i / p where u_i < p, else 0           (p: the probability to keep; scale = 1 / p)
//   block_keep:    y[row, col] = 0 where a seed lies in rows row-block+1..row, columns col-block+1..col, else 1
//   count_kept:    counts[g] = number of a_i != 0 seen by workgroup g
//   scale_kept:    y[0] = n / sum(counts), and 0 when nothing is kept
//   apply_mask:    y_i = a_i * b_i * factor[0]
// u_i is word i % 4 of philox(counter = [i / 4, layer, step.draw, stream], key = seed). For DropBlock p = gamma =
// step.drop_rate * scale, with scale = f^2 / (block^2 (f - block + 1)^2).
//   step: the step block
//   a: [n] x, dy, or a mask; in block_keep the seeds [planes, f-block+1, f-block+1]; in scale_kept unused
//   b: [n] mask; factor: [1]; counts: [groups]; y: [n], [planes, f, f] or [1]
// One invocation: bernoulli and dropout, the four elements of one Philox block; block_keep and apply_mask, one
// element; count_kept, every (groups * WG)-th element; scale_kept, one workgroup adds all counts. Counts are
// integers: exact in any order. The gradients of dropout and apply_mask are themselves, applied to dy.
#import common/index
#import common/philox
#import common/step_block

struct Params {
    n: u32,
    layer: u32,
    stream: u32,
    scheduled: u32, // 1: the probability is step.drop_rate * scale; 0: it is `probability`
    probability: f32,
    scale: f32,
    block: u32,
    side: u32,
    groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: StepBlock;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> factor: array<f32>;
@group(0) @binding(5) var<storage, read_write> counts: array<u32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> sh_counts: array<u32, 64>;

fn draw(block: u32) -> vec4<f32> {
    let bits = philox(vec4<u32>(block, params.layer, step.draw, params.stream), vec2<u32>(step.seed_low, step.seed_high));
    return vec4<f32>(unit_f32(bits.x), unit_f32(bits.y), unit_f32(bits.z), unit_f32(bits.w));
}

fn probability() -> f32 {
    if params.scheduled == 1u {
        return step.drop_rate * params.scale;
    }
    return params.probability;
}

@compute @workgroup_size(WG)
fn bernoulli(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let block = item_index(group, groups, local);
    if block < (params.n + 3u) / 4u {
        let u = draw(block);
        let p = probability();
        for (var k = 0u; k < 4u; k++) {
            let i = 4u * block + k;
            if i < params.n {
                y[i] = select(0.0, 1.0, u[k] < p);
            }
        }
    }
}

@compute @workgroup_size(WG)
fn dropout(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let block = item_index(group, groups, local);
    if block < (params.n + 3u) / 4u {
        let u = draw(block);
        for (var k = 0u; k < 4u; k++) {
            let i = 4u * block + k;
            if i < params.n {
                y[i] = select(0.0, a[i] * params.scale, u[k] < params.probability);
            }
        }
    }
}

@compute @workgroup_size(WG)
fn block_keep(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let corners = params.side - params.block + 1u;
        let col = i % params.side;
        let row = (i / params.side) % params.side;
        let plane = i / (params.side * params.side);
        var keep = 1.0;
        for (var down = 0u; down < params.block; down++) {
            for (var right = 0u; right < params.block; right++) {
                if row >= down && row - down < corners && col >= right && col - right < corners {
                    if a[(plane * corners + row - down) * corners + col - right] != 0.0 {
                        keep = 0.0;
                    }
                }
            }
        }
        y[i] = keep;
    }
}

// Sum of one count of each invocation, to the first; every invocation of the workgroup must come here.
fn workgroup_count(mine: u32, local: u32) -> u32 {
    sh_counts[local] = mine;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if local < half {
            sh_counts[local] += sh_counts[local + half];
        }
        workgroupBarrier();
    }
    return sh_counts[0];
}

@compute @workgroup_size(WG)
fn count_kept(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    var mine = 0u;
    for (var i = item_index(group, groups, local); i < params.n; i += params.groups * WG) {
        mine += select(0u, 1u, a[i] != 0.0);
    }
    let sum = workgroup_count(mine, local);
    if local == 0u {
        counts[group_index(group, groups)] = sum;
    }
}

@compute @workgroup_size(WG)
fn scale_kept(@builtin(local_invocation_index) local: u32) {
    var mine = 0u;
    for (var i = local; i < params.groups; i += WG) {
        mine += counts[i];
    }
    let sum = workgroup_count(mine, local);
    if local == 0u {
        y[0] = select(0.0, f32(params.n) / f32(max(sum, 1u)), sum > 0u);
    }
}

@compute @workgroup_size(WG)
fn apply_mask(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = a[i] * b[i] * factor[0];
    }
}
