// Cross-entropy of logits x [rows, columns] with targets t [rows], and whether the largest logit is right.
//   forward:   m = max_c x[r,c];  w = sum_{c != t} exp(x[r,c] - m);  s = w + exp(x[r,t] - m)
//              loss[r] = log s + (1 - e) (m - x[r,t]) + e / columns sum_c (m - x[r,c])
//   backward:  dx[r,c] = (exp(x[r,c] - m) / s - e / columns) dloss[r] for c != t
//              dx[r,t] = (e - e / columns - w / s) dloss[r]
//   correct:   y[r] = 1 where x[r,t] is the first of the largest logits of its row and no logit is NaN, else 0
// forward and correct: one workgroup makes one row, n = rows. backward: one invocation makes one element,
// n = rows columns.
// stats [rows, 3] holds m, s and w and is all that backward needs. Keeping m and s apart instead of their
// log-sum-exp m + log s loses no digits where the logits are large (m = 1e4 has 1e-3 between neighbours);
// w spares 1 - softmax, which loses them where the row is right with confidence.
// e is the smoothing: the share of the target that is spread over all columns.
// A target beyond the columns makes the loss infinite, which the health check sees.
#import common/reduce
#import common/finite
#import common/log1p

struct Params {
    n: u32,
    columns: u32,
    smoothing: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read> dloss: array<f32>;
@group(0) @binding(4) var<storage, read> stats_in: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;

const LOWEST: f32 = -3.4e38;

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let first = row * params.columns;
    var part = LOWEST;
    for (var c = local; c < columns; c += WG) {
        part = max(part, x[first + c]);
    }
    let largest = workgroup_max(part, local);
    var t = 0u;
    if live {
        t = targets[row];
    }
    part = 0.0;
    for (var c = local; c < columns; c += WG) {
        if c != t {
            part += exp(x[first + c] - largest);
        }
    }
    let wrong = workgroup_sum(part, local);
    part = 0.0;
    for (var c = local; c < select(0u, columns, params.smoothing > 0.0); c += WG) {
        part += largest - x[first + c];
    }
    let all_below = workgroup_sum(part, local);
    if local == 0u && live {
        // Infinite for a target beyond the columns, which is 1 or more.
        var below = 3.0e38 * (1.0 + f32(t));
        if t < columns {
            below = largest - x[first + t];
        }
        let sum = wrong + exp(-below);
        if below == 0.0 {
            y[row] = log1p(wrong);
        } else {
            y[row] = log(sum) + below;
        }
        if params.smoothing > 0.0 {
            let spread = params.smoothing / f32(params.columns) * all_below;
            if below == 0.0 {
                y[row] = log1p(wrong) + spread;
            } else {
                y[row] = log(sum) + (1.0 - params.smoothing) * below + spread;
            }
        }
        stats[3u * row] = largest;
        stats[3u * row + 1u] = sum;
        stats[3u * row + 2u] = wrong;
    }
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.columns;
        var share = -stats_in[3u * row + 2u];
        if targets[row] != i % params.columns {
            share = exp(x[i] - stats_in[3u * row]);
        }
        share = share / stats_in[3u * row + 1u];
        if params.smoothing > 0.0 {
            share -= params.smoothing / f32(params.columns);
            if targets[row] == i % params.columns {
                share += params.smoothing;
            }
        }
        y[i] = share * dloss[row];
    }
}

@compute @workgroup_size(WG)
fn correct(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let first = row * params.columns;
    var t = 0u;
    var right = 0.0;
    if live {
        t = targets[row];
        if t < columns {
            right = x[first + t];
        }
    }
    // Counts the logits because of which the target is not the largest.
    var part = 0.0;
    for (var c = local; c < columns; c += WG) {
        let v = x[first + c];
        if is_nan(v) || v > right || (v == right && c < t) {
            part += 1.0;
        }
    }
    let against = workgroup_sum(part, local);
    if local == 0u && live {
        y[row] = select(0.0, 1.0, against == 0.0 && t < columns);
    }
}
