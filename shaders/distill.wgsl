// Distillation losses of a student s [rows, columns] towards a teacher t of the same shape.
//   kl:           p = softmax(t[r] / T), q = softmax(s[r] / T);  y[r] = T^2 sum_c p_c (log p_c - log q_c)
//   kl_backward:  y[r,c] = T (q_c - p_c) dy[r]
//   square:           y[i] = (s[i] - t[i])^2
//   square_backward:  y[i] = 2 (s[i] - t[i]) dy[i]
// kl: one workgroup makes one row, n = rows. The others: one invocation makes one element, n = their number.
// stats [rows, 4]: largest logit and sum of exponentials of the student, then of the teacher.
// The largest logit is taken out before the division by T, so the exponents are exact.
#import common/reduce

struct Params {
    n: u32,
    columns: u32,
    temperature: f32,
    inverse_temperature: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> student: array<f32>;
@group(0) @binding(2) var<storage, read> teacher: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> stats_in: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;

const LOWEST: f32 = -3.4e38;

// p d - p + q for d = log p - log q, all times the teacher's sum (ratio: of the sums). The terms that the plain sum of
// p d lacks add up to zero; with them each is >= 0, of second order where p and q are close, and so is its error. At a
// high temperature the plain sum has no digit left.
fn divergence(log_t: f32, log_s: f32, log_ratio: f32, ratio: f32) -> f32 {
    let d = log_t - log_s + log_ratio;
    if abs(d) < 0.5 {
        // d + exp(-d) - 1; the first term left out is below 2^-24 of the first.
        let tail = 1.0 / 120.0 - d * (1.0 / 720.0 - d * (1.0 / 5040.0 - d / 40320.0));
        return exp(log_t) * d * d * (0.5 - d * (1.0 / 6.0 - d * (1.0 / 24.0 - d * tail)));
    }
    return exp(log_t) * (d - 1.0) + exp(log_s) * ratio;
}

@compute @workgroup_size(WG)
fn kl(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
      @builtin(local_invocation_index) local: u32) {
    let row = group_index(group, groups);
    let live = row < params.n;
    let columns = select(0u, params.columns, live);
    let first = row * params.columns;
    var part_s = LOWEST;
    var part_t = LOWEST;
    for (var c = local; c < columns; c += WG) {
        part_s = max(part_s, student[first + c]);
        part_t = max(part_t, teacher[first + c]);
    }
    let max_s = workgroup_max(part_s, local);
    let max_t = workgroup_max(part_t, local);
    part_s = 0.0;
    part_t = 0.0;
    for (var c = local; c < columns; c += WG) {
        part_s += exp((student[first + c] - max_s) * params.inverse_temperature);
        part_t += exp((teacher[first + c] - max_t) * params.inverse_temperature);
    }
    let sum_s = workgroup_sum(part_s, local);
    let sum_t = workgroup_sum(part_t, local);
    let log_ratio = log(sum_s) - log(sum_t);
    part_t = 0.0;
    for (var c = local; c < columns; c += WG) {
        let log_s = (student[first + c] - max_s) * params.inverse_temperature;
        let log_t = (teacher[first + c] - max_t) * params.inverse_temperature;
        part_t += divergence(log_t, log_s, log_ratio, sum_t / sum_s);
    }
    let total = workgroup_sum(part_t, local);
    if local == 0u && live {
        y[row] = params.temperature * params.temperature * (total / sum_t);
        stats[4u * row] = max_s;
        stats[4u * row + 1u] = sum_s;
        stats[4u * row + 2u] = max_t;
        stats[4u * row + 3u] = sum_t;
    }
}

@compute @workgroup_size(WG)
fn kl_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
               @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = i / params.columns;
        let q = exp((student[i] - stats_in[4u * row]) * params.inverse_temperature) / stats_in[4u * row + 1u];
        let p = exp((teacher[i] - stats_in[4u * row + 2u]) * params.inverse_temperature) / stats_in[4u * row + 3u];
        y[i] = params.temperature * (q - p) * dy[row];
    }
}

@compute @workgroup_size(WG)
fn square(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let difference = student[i] - teacher[i];
        y[i] = difference * difference;
    }
}

@compute @workgroup_size(WG)
fn square_backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = 2.0 * (student[i] - teacher[i]) * dy[i];
    }
}
