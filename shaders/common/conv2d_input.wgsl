// What a convolution reads: an element of x, or of the batch norm and LeakyReLU behind it. A file that imports this
// binds `x` and `statistics` and has `c_in` and `slope` among its parameters.
#import common/half

override DILATE: u32 = 1u;
override NORMED: bool = false;
override X_HALF: bool = false;

// Where an index counted in the spread-out input lies on an axis of x.
struct Place {
    at: u32,
    inside: bool,
}

fn place_of(position: i32, size: u32) -> Place {
    let at = position / i32(DILATE);
    let inside = (position >= 0) & (at < i32(size)) & (position % i32(DILATE) == 0);
    return Place(u32(clamp(at, 0, i32(size) - 1)), inside);
}

// Batch norm of one input channel: mean, scale, shift.
fn channel_of(c: u32) -> vec3<f32> {
    if !NORMED {
        return vec3<f32>(0.0, 1.0, 0.0);
    }
    // Rows of the statistics: mean, rstd, variance, scale, shift.
    return vec3<f32>(statistics[c], statistics[3u * params.c_in + c], statistics[4u * params.c_in + c]);
}

fn stored_at(i: u32) -> f32 {
    var value = 0.0;
    if X_HALF { value = half_of(x[i / 2u], i); } else { value = bitcast<f32>(x[i]); }
    return value;
}

fn activated(value: f32, channel: vec3<f32>) -> f32 {
    let y = (value - channel.x) * channel.y + channel.z;
    return select(params.slope * y, y, y > 0.0);
}

fn activated_four(value: vec4<f32>, channel: vec3<f32>) -> vec4<f32> {
    let y = (value - channel.x) * channel.y + channel.z;
    return select(params.slope * y, y, y > vec4<f32>(0.0));
}

// x[i], zero outside the image.
fn value_at(i: u32, inside: bool, channel: vec3<f32>) -> f32 {
    var value = stored_at(i);
    if NORMED { value = activated(value, channel); }
    return select(0.0, value, inside);
}
