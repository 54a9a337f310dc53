// An input of a convolution without NORMED: kernels that mostly run on software adapters have one pipeline for x as it is and
// for x to be normalised. There a pipeline takes long to compile, and a few products beside a load take no time. The batch
// norm of x as it is changes nothing, not even the sign of a zero. A file that imports this has `normed` among its parameters.
#import common/conv2d_input

fn channel_if_normed(c: u32) -> vec3<f32> {
    var channel = vec3<f32>(0.0, 1.0, -0.0);
    if params.normed != 0u {
        channel = vec3<f32>(statistics[c], statistics[3u * params.c_in + c], statistics[4u * params.c_in + c]);
    }
    return channel;
}

fn activated_in(row: u32, row_inside: bool, place: Place, channel: vec3<f32>) -> f32 {
    return select(0.0, activated(stored_at(row + place.at), channel), row_inside & place.inside);
}
