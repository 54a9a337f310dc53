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
// Means and variances are exact in the way f32 allows: a workgroup takes the mean of its chunk (some images
// of one channel), then the squares around that mean (two passes); chunks are joined with Chan's formula in
// order. E[x^2] - E[x]^2 would lose all digits where the mean is large.
//   partial_statistics, partial_gradients: one workgroup per channel and chunk
//   combine_statistics, combine_moments, combine_gradients, from_running, running: one invocation per channel
//   apply, backward, backward_in_place (y holds dy and gets dx): one workgroup per run of 16 x WG elements
//   ..._by_channel: the same, one workgroup per channel and chunk, which loads the channel's numbers once
#import common/half
#import common/index
#import common/reduce

struct Params {
    n: u32,             // items of a one-dimensional entry point, or elements of x
    batch: u32,
    channels: u32,
    size: u32,
    chunks: u32,        // chunks of a channel in x
    first_chunk: u32,   // where x begins, of all_chunks, if it is a part
    all_chunks: u32,
    chunk_images: u32,  // images of a chunk
    step_plane: u32,    // WG / size: planes that WG elements span
    step_size: u32,     // WG % size
    step_channel: u32,  // step_plane % channels
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

// Walks the elements of one channel in the images of a chunk, WG lanes side by side.
struct Walk {
    image: u32,
    at: u32,
}

fn walk_from(chunk: u32, local: u32) -> Walk {
    return Walk(chunk * params.chunk_images + local / params.size, local % params.size);
}

// As walk_from, over chunk `linear` of all channels; `last` is the image behind its last one, 0 where there is no such
// chunk.
struct ChannelWalk {
    channel: u32,
    first: Walk,
    last: u32,
}

fn channel_walk(linear: u32, local: u32) -> ChannelWalk {
    let channel = min(linear / params.chunks, params.channels - 1u);
    let chunk = linear % params.chunks;
    let last = select(0u, chunk * params.chunk_images + images_of(chunk), linear < params.chunks * params.channels);
    return ChannelWalk(channel, walk_from(chunk, local), last);
}

fn element_of(walk: Walk, channel: u32) -> u32 {
    return (walk.image * params.channels + channel) * params.size + walk.at;
}

fn walk_on(walk: Walk) -> Walk {
    let at = walk.at + params.step_size;
    let carry = u32(at >= params.size);
    return Walk(walk.image + params.step_plane + carry, at - carry * params.size);
}

// Elements of a channel at four steps of a walk, and which of them there are: a round of a loop costs a software adapter
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
    let first = element_of(walk, channel);
    let at = vec4<u32>(first, element_of(second, channel), element_of(third, channel), element_of(fourth, channel));
    return Four(select(vec4<u32>(first), at, live), live, walk_on(fourth));
}

fn four_x(at: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(x_at(at.x), x_at(at.y), x_at(at.z), x_at(at.w));
}

// The sum and four terms, added in order; those that are not live are left out.
fn add_four(sum: f32, terms: vec4<f32>, live: vec4<bool>) -> f32 {
    let term = select(vec4<f32>(0.0), terms, live);
    return (((sum + term.x) + term.y) + term.z) + term.w;
}

@compute @workgroup_size(WG)
fn partial_statistics(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                      @builtin(local_invocation_index) local: u32) {
    let linear = group_index(group, groups);
    let channel = min(linear / params.chunks, params.channels - 1u);
    let chunk = linear % params.chunks;
    let images = images_of(chunk);
    let last = chunk * params.chunk_images + images;
    var sum = 0.0;
    var w = walk_from(chunk, local);
    while w.image < last {
        let four = four_of(w, channel, last);
        sum = add_four(sum, four_x(four.at), four.live);
        w = four.next;
    }
    let mean = workgroup_sum2(vec2<f32>(sum, 0.0), local).x / f32(max(images, 1u) * params.size);
    var squares = 0.0;
    var residue = 0.0;
    w = walk_from(chunk, local);
    while w.image < last {
        let four = four_of(w, channel, last);
        let d = four_x(four.at) - mean;
        squares = add_four(squares, d * d, four.live);
        residue = add_four(residue, d, four.live);
        w = four.next;
    }
    let both = workgroup_sum2(vec2<f32>(squares, residue), local);
    if local == 0u && linear < params.chunks * params.channels {
        // The residue is what rounding left of the mean.
        let correction = both.y / f32(max(images, 1u) * params.size);
        partial_out[channel * params.all_chunks + params.first_chunk + chunk] =
            vec2<f32>(mean + correction, both.x - correction * both.y);
    }
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

// u of an element of a channel.
fn normalised(value: f32, channel: Channel) -> f32 {
    return (value - channel.mean) * channel.scale + channel.shift;
}

// y of an element of a channel.
fn activated(value: f32, channel: Channel) -> f32 {
    let u = normalised(value, channel);
    return select(params.slope * u, u, u > 0.0);
}

// du of an element of a channel.
fn through_activation(upstream: f32, value: f32, channel: Channel) -> f32 {
    return select(params.slope * upstream, upstream, normalised(value, channel) > 0.0);
}

// Walks a run of 16 x WG elements in memory order, WG lanes side by side.
struct Run {
    i: u32,
    end: u32,
    at: u32,
    channel: u32,
}

fn run_from(group: u32, local: u32) -> Run {
    let start = group * (16u * WG) + local;
    let end = min(start + 16u * WG - local, params.n);
    return Run(start, end, start % params.size, (start / params.size) % params.channels);
}

fn run_on(run: Run) -> Run {
    var at = run.at + params.step_size;
    var channel = run.channel + params.step_channel;
    if at >= params.size {
        at -= params.size;
        channel += 1u;
    }
    if channel >= params.channels {
        channel -= params.channels;
    }
    return Run(run.i + WG, run.end, at, channel);
}

@compute @workgroup_size(WG)
fn apply(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    for (var r = run_from(group_index(group, groups), local); r.i < r.end; r = run_on(r)) {
        y[r.i] = activated(x_at(r.i), channel_of(r.channel));
    }
}

@compute @workgroup_size(WG)
fn apply_by_channel(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let walk = channel_walk(group_index(group, groups), local);
    let channel = channel_of(walk.channel);
    for (var w = walk.first; w.image < walk.last; w = walk_on(w)) {
        let i = element_of(w, walk.channel);
        y[i] = activated(x_at(i), channel);
    }
}

@compute @workgroup_size(WG)
fn partial_gradients(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    let linear = group_index(group, groups);
    let channel = min(linear / params.chunks, params.channels - 1u);
    let chunk = linear % params.chunks;
    let last = chunk * params.chunk_images + images_of(chunk);
    let numbers = channel_of(channel);
    var sums = vec2<f32>(0.0);
    var w = walk_from(chunk, local);
    while w.image < last {
        let four = four_of(w, channel, last);
        let value = four_x(four.at);
        let upstream = vec4<f32>(dy[four.at.x], dy[four.at.y], dy[four.at.z], dy[four.at.w]);
        let u = (value - numbers.mean) * numbers.scale + numbers.shift;
        let g = select(params.slope * upstream, upstream, u > vec4<f32>(0.0));
        sums = vec2<f32>(add_four(sums.x, g * ((value - numbers.mean) * numbers.rstd), four.live),
                         add_four(sums.y, g, four.live));
        w = four.next;
    }
    let total = workgroup_sum2(sums, local);
    if local == 0u && linear < params.chunks * params.channels {
        partial_out[channel * params.all_chunks + params.first_chunk + chunk] = total;
    }
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

// dx of an element of a channel from dy.
fn gradient(upstream: f32, value: f32, channel: Channel, means: vec2<f32>) -> f32 {
    var g = through_activation(upstream, value, channel);
    if TRAIN {
        g -= means.y + (value - channel.mean) * (channel.rstd * means.x);
    }
    return channel.scale * g;
}

@compute @workgroup_size(WG)
fn backward(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) local: u32) {
    for (var r = run_from(group_index(group, groups), local); r.i < r.end; r = run_on(r)) {
        y[r.i] = gradient(dy[r.i], x_at(r.i), channel_of(r.channel), means_of(r.channel));
    }
}

@compute @workgroup_size(WG)
fn backward_in_place(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                     @builtin(local_invocation_index) local: u32) {
    for (var r = run_from(group_index(group, groups), local); r.i < r.end; r = run_on(r)) {
        y[r.i] = gradient(y[r.i], x_at(r.i), channel_of(r.channel), means_of(r.channel));
    }
}

@compute @workgroup_size(WG)
fn backward_by_channel(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                       @builtin(local_invocation_index) local: u32) {
    let walk = channel_walk(group_index(group, groups), local);
    let channel = channel_of(walk.channel);
    let means = means_of(walk.channel);
    for (var w = walk.first; w.image < walk.last; w = walk_on(w)) {
        let i = element_of(w, walk.channel);
        y[i] = gradient(dy[i], x_at(i), channel, means);
    }
}

@compute @workgroup_size(WG)
fn backward_in_place_by_channel(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                                @builtin(local_invocation_index) local: u32) {
    let walk = channel_walk(group_index(group, groups), local);
    let channel = channel_of(walk.channel);
    let means = means_of(walk.channel);
    for (var w = walk.first; w.image < walk.last; w = walk_on(w)) {
        let i = element_of(w, walk.channel);
        y[i] = gradient(y[i], x_at(i), channel, means);
    }
}
