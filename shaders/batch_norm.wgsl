// Batch normalisation of x [batch, channels, size] (size = height x width, 1 for vectors) and the LeakyReLU behind it
// (slope 1: none, slope 0: ReLU):
//   u = (x - mean) scale + shift,  scale = gamma rstd,  shift = beta,  rstd = 1 / sqrt(var + eps),  var biased
//   y = u where u > 0, else slope u
//   du = dy where u > 0, else slope dy
//   dgamma = sum du xhat,  dbeta = sum du,  xhat = (x - mean) rstd
//   dx = scale (du - dbeta / count - xhat dgamma / count)      batch statistics (TRAIN)
//   dx = scale du                                              running statistics
// statistics [5, channels]: mean, rstd, var, scale, shift. Moments are mean and var alone. x may be stored in half precision
// (X_HALF).
//
// Means and variances are exact in the way f32 allows: the lanes of a channel take the mean of its chunk (some
// images), then the squares around that mean (two passes); chunks are joined with Chan's formula in
// order. E[x^2] - E[x]^2 would lose all digits where the mean is large.
//   partial_statistics, partial_gradients: as many lanes of a workgroup per channel and chunk as its planes fill
//   combine_statistics, combine_moments, combine_gradients, from_running, running: one invocation per channel
//   apply, backward, backward_in_place (y holds dy and gets dx): one invocation per unit of an image, over the images of a
//   chunk, so that it loads its channel's numbers once
//   ..._4: the same where a plane is made of units of four neighbouring elements; else a unit is one element. A software
//   adapter loads four neighbours in about twice the time of one.
#import common/half
#import common/index

struct Params {
    n: u32,             // items of a one-dimensional entry point
    batch: u32,
    channels: u32,
    size: u32,
    units: u32,         // of a plane
    chunks: u32,        // of a channel
    first_chunk: u32,   // where x begins, if it is a part of the batch
    chunk_images: u32,  // images of a chunk
    lane_bits: u32,     // a chunk of a channel is summed by 1 << lane_bits lanes: 1, 4, 16 or 64, of which none is idle
    epsilon: f32,
    momentum: f32,
    slope: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> gamma: array<f32>;
@group(0) @binding(4) var<storage, read> beta: array<f32>;
@group(0) @binding(5) var<storage, read> statistics: array<f32>;
@group(0) @binding(6) var<storage, read> partial: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> partial_out: array<vec2<f32>>;
@group(0) @binding(9) var<storage, read_write> dgamma: array<f32>;
@group(0) @binding(10) var<storage, read_write> dbeta: array<f32>;
@group(0) @binding(11) var<storage, read> running_mean_in: array<f32>;
@group(0) @binding(12) var<storage, read> running_var_in: array<f32>;
@group(0) @binding(13) var<storage, read_write> running_mean: array<f32>;
@group(0) @binding(14) var<storage, read_write> running_var: array<f32>;
@group(0) @binding(15) var<storage, read> x_as_vectors: array<vec4<f32>>;
@group(0) @binding(16) var<storage, read> dy_as_vectors: array<vec4<f32>>;
@group(0) @binding(17) var<storage, read_write> y_as_vectors: array<vec4<f32>>;

override TRAIN: bool = true;
override X_HALF: bool = false;

fn x_at(i: u32) -> f32 {
    if X_HALF { return half_of(x[i / 2u], i); }
    return bitcast<f32>(x[i]);
}

// Images of a chunk; the last one may be short.
fn images_of(chunk: u32) -> u32 {
    return min(params.chunk_images, params.batch - min(chunk * params.chunk_images, params.batch));
}

// Walks the units of one channel in the images of a chunk, its lanes side by side.
struct Walk {
    image: u32,
    at: u32,
}

fn walk_on(walk: Walk) -> Walk {
    // A plane has as many units as there are lanes, or more.
    let at = walk.at + (1u << params.lane_bits);
    let carry = u32(at >= params.units);
    return Walk(walk.image + carry, at - carry * params.units);
}

// What a lane sums. Lanes beyond the last chunk walk nowhere.
struct Part {
    channel: u32,
    lane: u32,      // among those of the channel
    slot: u32,      // of partial_out
    exists: bool,
    images: u32,
    first: Walk,
    last: u32,      // the image behind its last one
}

// Neighbouring lanes take neighbouring units, also of short planes: those of the next channel.
fn part_of(item: u32) -> Part {
    let lane = item & ((1u << params.lane_bits) - 1u);
    let sum = item >> params.lane_bits;
    let chunk = sum / params.channels;
    let channel = sum - chunk * params.channels;
    let images = images_of(chunk);
    let first = chunk * params.chunk_images;
    return Part(channel, lane, channel * params.chunks + params.first_chunk + chunk, images > 0u, max(images, 1u),
                Walk(first, lane), first + images);
}

fn unit_of(walk: Walk, channel: u32) -> u32 {
    return (walk.image * params.channels + channel) * params.units + walk.at;
}

// Units of a channel at four steps of a walk, and which of them there are: a round of a loop costs a software adapter
// more than what it adds up. Where there is none, the first stands for it.
struct Four {
    at: vec4<u32>,
    live: vec4<bool>,
    next: Walk,
}

fn four_of(walk: Walk, channel: u32, last: u32) -> Four {
    let second = walk_on(walk);
    let third = walk_on(second);
    let fourth = walk_on(third);
    let live = vec4<u32>(walk.image, second.image, third.image, fourth.image) < vec4<u32>(last);
    let first = unit_of(walk, channel);
    let at = vec4<u32>(first, unit_of(second, channel), unit_of(third, channel), unit_of(fourth, channel));
    return Four(select(vec4<u32>(first), at, live), live, walk_on(fourth));
}

fn four_x(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w));
}

fn live_only(terms: vec4<f32>, live: vec4<bool>) -> vec4<f32> {
    return select(vec4<f32>(0.0), terms, live);
}

fn sum_of(terms: vec4<f32>) -> f32 {
    return (terms.x + terms.y) + (terms.z + terms.w);
}

var<workgroup> sh_sum: array<f32, WG>;
var<workgroup> sh_sums: array<vec2<f32>, WG>;

// Sum over the lanes of a channel, which all get, in one fixed order. All invocations of the workgroup must call it in uniform
// control flow, and once.
fn sum_of_lanes(value: f32, local: u32, lane: u32) -> f32 {
    sh_sum[local] = value;
    for (var quarter = (1u << params.lane_bits) / 4u; quarter > 0u; quarter /= 4u) {
        workgroupBarrier();
        if lane < quarter {
            sh_sum[local] = (sh_sum[local] + sh_sum[local + quarter])
                + (sh_sum[local + 2u * quarter] + sh_sum[local + 3u * quarter]);
        }
    }
    workgroupBarrier();
    return sh_sum[local - lane];
}

// As sum_of_lanes, of two sums, which the first lane alone gets.
fn sums_of_lanes(value: vec2<f32>, local: u32, lane: u32) -> vec2<f32> {
    sh_sums[local] = value;
    for (var quarter = (1u << params.lane_bits) / 4u; quarter > 0u; quarter /= 4u) {
        workgroupBarrier();
        if lane < quarter {
            sh_sums[local] = (sh_sums[local] + sh_sums[local + quarter])
                + (sh_sums[local + 2u * quarter] + sh_sums[local + 3u * quarter]);
        }
    }
    return sh_sums[local];
}

fn store_sums(part: Part, sums: vec2<f32>) {
    if part.lane == 0u && part.exists {
        partial_out[part.slot] = sums;
    }
}

// Mean and squares of a chunk from the squares around a mean and what rounding left of that mean.
fn store_moments(part: Part, mean: f32, sums: vec2<f32>) {
    let correction = sums.y / f32(part.images * params.size);
    store_sums(part, vec2<f32>(mean + correction, sums.x - correction * sums.y));
}

@compute @workgroup_size(WG)
fn partial_statistics(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let part = part_of(item_index(group, groups, local));
    var sum = vec4<f32>(0.0);
    var w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
        sum += live_only(four_x(four.at), four.live);
        w = four.next;
    }
    let mean = sum_of_lanes(sum_of(sum), local, part.lane) / f32(part.images * params.size);
    var squares = vec4<f32>(0.0);
    var residue = vec4<f32>(0.0);
    w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
        let d = live_only(four_x(four.at) - mean, four.live);
        squares += d * d;
        residue += d;
        w = four.next;
    }
    store_moments(part, mean, sums_of_lanes(vec2<f32>(sum_of(squares), sum_of(residue)), local, part.lane));
}

@compute @workgroup_size(WG)
fn partial_statistics_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                        @builtin(local_invocation_index) local: u32) {
    let part = part_of(item_index(group, groups, local));
    var sum = vec4<f32>(0.0);
    var w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
#repeat k 0 4
        sum += live_only(x_as_vectors[four.at[$k]], vec4<bool>(four.live[$k]));
#end
        w = four.next;
    }
    let mean = sum_of_lanes(sum_of(sum), local, part.lane) / f32(part.images * params.size);
    var squares = vec4<f32>(0.0);
    var residue = vec4<f32>(0.0);
    w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
#repeat k 0 4
        let d$k = live_only(x_as_vectors[four.at[$k]] - mean, vec4<bool>(four.live[$k]));
        squares += d$k * d$k;
        residue += d$k;
#end
        w = four.next;
    }
    store_moments(part, mean, sums_of_lanes(vec2<f32>(sum_of(squares), sum_of(residue)), local, part.lane));
}

fn store_statistics(c: u32, mean: f32, variance: f32) {
    let rstd = 1.0 / sqrt(variance + params.epsilon);
    y[c] = mean;
    y[params.channels + c] = rstd;
    y[2u * params.channels + c] = variance;
    y[3u * params.channels + c] = rstd * gamma[c];
    y[4u * params.channels + c] = beta[c];
}

// Mean and variance of a channel.
fn combined(c: u32) -> vec2<f32> {
    var count = 0.0;
    var mean = 0.0;
    var squares = 0.0;
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let part = partial[c * params.chunks + chunk];
        let part_count = f32(images_of(chunk) * params.size);
        let total = count + part_count;
        let delta = part.x - mean;
        mean += delta * (part_count / total);
        squares += part.y + delta * delta * (count * part_count / total);
        count = total;
    }
    return vec2<f32>(mean, squares / count);
}

@compute @workgroup_size(WG)
fn combine_statistics(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let c = item_index(group, groups, local);
    if c < params.n {
        let both = combined(c);
        store_statistics(c, both.x, both.y);
    }
}

@compute @workgroup_size(WG)
fn combine_moments(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                   @builtin(local_invocation_index) local: u32) {
    let c = item_index(group, groups, local);
    if c < params.n {
        let both = combined(c);
        running_mean[c] = both.x;
        running_var[c] = both.y;
    }
}

// Statistics from a given mean and variance: the running ones, or those of a batch in parts.
@compute @workgroup_size(WG)
fn from_running(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let c = item_index(group, groups, local);
    if c < params.n {
        store_statistics(c, running_mean_in[c], running_var_in[c]);
    }
}

// running = (1 - momentum) running + momentum batch, with the unbiased variance.
@compute @workgroup_size(WG)
fn running(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let c = item_index(group, groups, local);
    if c < params.n {
        let count = f32(params.batch * params.size);
        let unbiased = statistics[2u * params.channels + c] * (count / (count - 1.0));
        running_mean[c] += params.momentum * (statistics[c] - running_mean[c]);
        running_var[c] += params.momentum * (unbiased - running_var[c]);
    }
}

// Statistics of a channel.
struct Channel {
    mean: f32,
    rstd: f32,
    scale: f32,
    shift: f32,
}

fn channel_of(c: u32) -> Channel {
    return Channel(statistics[c], statistics[params.channels + c], statistics[3u * params.channels + c],
                   statistics[4u * params.channels + c]);
}

// u of elements of a channel.
fn normalised(value: vec4<f32>, channel: Channel) -> vec4<f32> {
    return (value - channel.mean) * channel.scale + channel.shift;
}

// y of elements of a channel.
fn activated(value: vec4<f32>, channel: Channel) -> vec4<f32> {
    let u = normalised(value, channel);
    return select(params.slope * u, u, u > vec4<f32>(0.0));
}

// du of elements of a channel.
fn through_activation(upstream: vec4<f32>, value: vec4<f32>, channel: Channel) -> vec4<f32> {
    return select(params.slope * upstream, upstream, normalised(value, channel) > vec4<f32>(0.0));
}

// One unit of an image in the images of a chunk; none beyond the last one.
struct Column {
    channel: u32,
    first: u32,
    images: u32,
    step: u32,
}

fn column_of(item: u32) -> Column {
    let step = params.channels * params.units;
    let chunk = item / step;
    let at = item - chunk * step;
    return Column(at / params.units, chunk * params.chunk_images * step + at, images_of(chunk), step);
}

@compute @workgroup_size(WG)
fn apply(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y[i] = activated(vec4<f32>(x_at(i)), channel).x;
        i += column.step;
    }
}

@compute @workgroup_size(WG)
fn apply_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y_as_vectors[i] = activated(x_as_vectors[i], channel);
        i += column.step;
    }
}

@compute @workgroup_size(WG)
fn partial_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let part = part_of(item_index(group, groups, local));
    let numbers = channel_of(part.channel);
    var gamma_sum = vec4<f32>(0.0);
    var beta_sum = vec4<f32>(0.0);
    var w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
        let value = four_x(four.at);
        let upstream = vec4<f32>(dy[four.at.x], dy[four.at.y], dy[four.at.z], dy[four.at.w]);
        let g = through_activation(upstream, value, numbers);
        gamma_sum += live_only(g * ((value - numbers.mean) * numbers.rstd), four.live);
        beta_sum += live_only(g, four.live);
        w = four.next;
    }
    store_sums(part, sums_of_lanes(vec2<f32>(sum_of(gamma_sum), sum_of(beta_sum)), local, part.lane));
}

@compute @workgroup_size(WG)
fn partial_gradients_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let part = part_of(item_index(group, groups, local));
    let numbers = channel_of(part.channel);
    var gamma_sum = vec4<f32>(0.0);
    var beta_sum = vec4<f32>(0.0);
    var w = part.first;
    while w.image < part.last {
        let four = four_of(w, part.channel, part.last);
#repeat k 0 4
        let value$k = x_as_vectors[four.at[$k]];
        let g$k = through_activation(dy_as_vectors[four.at[$k]], value$k, numbers);
        gamma_sum += live_only(g$k * ((value$k - numbers.mean) * numbers.rstd), vec4<bool>(four.live[$k]));
        beta_sum += live_only(g$k, vec4<bool>(four.live[$k]));
#end
        w = four.next;
    }
    store_sums(part, sums_of_lanes(vec2<f32>(sum_of(gamma_sum), sum_of(beta_sum)), local, part.lane));
}

@compute @workgroup_size(WG)
fn combine_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let c = item_index(group, groups, local);
    if c < params.n {
        var sums = vec2<f32>(0.0);
        for (var chunk = 0u; chunk < params.chunks; chunk++) {
            sums += partial[c * params.chunks + chunk];
        }
        dgamma[c] = sums.x;
        dbeta[c] = sums.y;
        // The same sums as means, for backward: it may not bind the gradients, which live in one buffer.
        partial_out[c] = sums / f32(params.batch * params.size);
    }
}

// The means of dgamma and dbeta of a channel, with batch statistics.
fn means_of(c: u32) -> vec2<f32> {
    if TRAIN { return partial[c]; }
    return vec2<f32>(0.0);
}

// dx of elements of a channel from dy.
fn gradient(upstream: vec4<f32>, value: vec4<f32>, channel: Channel, means: vec2<f32>) -> vec4<f32> {
    var g = through_activation(upstream, value, channel);
    if TRAIN {
        g -= means.y + (value - channel.mean) * (channel.rstd * means.x);
    }
    return channel.scale * g;
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    let means = means_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y[i] = gradient(vec4<f32>(dy[i]), vec4<f32>(x_at(i)), channel, means).x;
        i += column.step;
    }
}

@compute @workgroup_size(WG)
fn backward_in_place(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    let means = means_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y[i] = gradient(vec4<f32>(y[i]), vec4<f32>(x_at(i)), channel, means).x;
        i += column.step;
    }
}

@compute @workgroup_size(WG)
fn backward_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    let means = means_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y_as_vectors[i] = gradient(dy_as_vectors[i], x_as_vectors[i], channel, means);
        i += column.step;
    }
}

@compute @workgroup_size(WG)
fn backward_in_place_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let column = column_of(item_index(group, groups, local));
    let channel = channel_of(column.channel);
    let means = means_of(column.channel);
    var i = column.first;
    for (var image = 0u; image < column.images; image++) {
        y_as_vectors[i] = gradient(y_as_vectors[i], x_as_vectors[i], channel, means);
        i += column.step;
    }
}
