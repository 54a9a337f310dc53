// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011), the same function as `random::philox` on the host:
// 128 counter bits and 64 key bits to 128 random bits.

// Upper 32 bits of a * b, from four products of 16-bit halves (WGSL has no 64-bit integers).
fn multiply_high(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let low = a_low * b_low;
    let cross = a_low * b_high;
    let crossed = a_high * b_low;
    let carry = (low >> 16u) + (cross & 0xffffu) + (crossed & 0xffffu);
    return a_high * b_high + (cross >> 16u) + (crossed >> 16u) + (carry >> 16u);
}

fn philox(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        if round > 0u {
            k += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
        }
        c = vec4<u32>(
            multiply_high(0xCD9E8D57u, c.z) ^ c.y ^ k.x,
            0xCD9E8D57u * c.z,
            multiply_high(0xD2511F53u, c.x) ^ c.w ^ k.y,
            0xD2511F53u * c.x,
        );
    }
    return c;
}

// Uniform in [0, 1) from the upper 24 bits; exact, and equal to `random::unit_f32`.
fn unit_f32(bits: u32) -> f32 {
    return f32(bits >> 8u) * (1.0 / 16777216.0);
}
