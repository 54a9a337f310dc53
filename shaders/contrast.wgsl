// The contrastive loss L_inv on rows x [rows, columns] (docs/method.md, Losses).
//   normalise:           norm[r] = ||x[r]||;  y[r] = x[r] / (norm[r] + epsilon)
//   normalise_backward:  with s = norm[r] + epsilon, u = x[r] / norm[r] (0 where norm is 0), w = u . dy[r]:
//                        y[r] = dy[r] / s - u w norm[r] / s^2 = (dy[r] - u w + u w epsilon / s) / s
//   anchors:             y[r] = bank[r] for r < batch, else x[(r - batch) mod viewed]
//   anchors_backward:    y[r] = sum_{m >= 0} dy[batch + m viewed + r] for r < viewed, else 0
//   first_rows:          y[i] = x[i], the first n elements
//   nce:                 p = a[r] . o[r];  loss[r] = -log( e^{p/tau} / (e^{p/tau} + sum_k e^{s[r,k]/tau} + 1e-6) )
//   nce_backward_vectors:  w = dloss[r] dloss/dp;  da[r] = w o[r];  dother[r] = w a[r]
//   nce_backward_scores:   y[r,k] = dloss[r] e^{s[r,k]/tau} / (tau (e^{p/tau} + sum_k e^{s[r,k]/tau} + 1e-6))
// normalise, normalise_backward and nce: one workgroup makes one row, n = rows; the others: one invocation
// makes one element, n = their number.
// nce takes m = max(p, s[r,k], tau ln 1e-6) out of every exponent, and takes it out before it divides by tau:
// the exponents that matter are small and exact for any tau. Its stats [rows, 3] are m, the sum of all
// exponentials, and the sum without the positive one (for 1 - softmax without cancellation).
// Rows: a, o [rows, columns], s [rows, negatives].
#import common/reduce
#import common/log1p

struct Params {
    n: u32,
    columns: u32,
    batch: u32,
    viewed: u32, // images that have further views: the first ones of the batch
    negatives: u32,
    epsilon: f32,
    inverse_tau: f32,
    floor_score: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> anchor: array<f32>;
@group(0) @binding(4) var<storage, read> other: array<f32>;
@group(0) @binding(5) var<storage, read> scores: array<f32>;
@group(0) @binding(6) var<storage, read> stats_in: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> stats: array<f32>;
@group(0) @binding(9) var<storage, read_write> dother: array<f32>;

@compute @workgroup_size(WG)
fn normalise(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let first = row * params.columns;
    var part = 0.0;
    for (var c = local; c < columns; c += WG) {
        part += x[first + c] * x[first + c];
    }
    let norm = sqrt(workgroup_sum(part, local));
    for (var c = local; c < columns; c += WG) {
        y[first + c] = x[first + c] / (norm + params.epsilon);
    }
    if local == 0u && live {
        stats[row] = norm;
    }
}

@compute @workgroup_size(WG)
fn normalise_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let first = row * params.columns;
    var norm = 0.0;
    if live {
        norm = stats_in[row];
    }
    // A row of zeros has no direction; dividing it by one keeps it zero.
    let divisor = select(norm, 1.0, norm == 0.0);
    var part = 0.0;
    for (var c = local; c < columns; c += WG) {
        part += x[first + c] / divisor * dy[first + c];
    }
    let along = workgroup_sum(part, local);
    let length = norm + params.epsilon;
    for (var c = local; c < columns; c += WG) {
        let part_along = x[first + c] / divisor * along;
        y[first + c] = (dy[first + c] - part_along + part_along * params.epsilon / length) / length;
    }
}

@compute @workgroup_size(WG)
fn anchors(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let block = params.batch * params.columns;
        if i < block {
            y[i] = anchor[i];
        } else {
            y[i] = x[(i - block) % (params.viewed * params.columns)];
        }
    }
}

@compute @workgroup_size(WG)
fn anchors_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let block = params.batch * params.columns;
        let views = params.viewed * params.columns;
        var total = 0.0;
        if i < views {
            for (var j = i + block; j < params.n; j += views) {
                total += dy[j];
            }
        }
        y[i] = total;
    }
}

@compute @workgroup_size(WG)
fn first_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = x[i];
    }
}

@compute @workgroup_size(WG)
fn nce(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
       @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let negatives = select(0u, params.negatives, live);
    let first = row * params.columns;
    let first_score = row * params.negatives;
    var part = 0.0;
    for (var c = local; c < columns; c += WG) {
        part += anchor[first + c] * other[first + c];
    }
    let positive = workgroup_sum(part, local);
    part = max(params.floor_score, positive);
    for (var k = local; k < negatives; k += WG) {
        part = max(part, scores[first_score + k]);
    }
    let largest = workgroup_max(part, local);
    part = 0.0;
    for (var k = local; k < negatives; k += WG) {
        part += exp((scores[first_score + k] - largest) * params.inverse_tau);
    }
    let rest = workgroup_sum(part, local) + exp((params.floor_score - largest) * params.inverse_tau);
    if local == 0u && live {
        let sum = rest + exp((positive - largest) * params.inverse_tau);
        if positive == largest {
            y[row] = log1p(rest);
        } else {
            y[row] = log(sum) + (largest - positive) * params.inverse_tau;
        }
        stats[3u * row] = largest;
        stats[3u * row + 1u] = sum;
        stats[3u * row + 2u] = rest;
    }
}

@compute @workgroup_size(WG)
fn nce_backward_vectors(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                        @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.columns;
        let rest_share = stats_in[3u * row + 2u] / stats_in[3u * row + 1u];
        let w = -dy[row] * rest_share * params.inverse_tau;
        y[i] = w * other[i];
        dother[i] = w * anchor[i];
    }
}

@compute @workgroup_size(WG)
fn nce_backward_scores(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.negatives;
        let share = exp((scores[i] - stats_in[3u * row]) * params.inverse_tau) / stats_in[3u * row + 1u];
        y[i] = dy[row] * share * params.inverse_tau;
    }
}
