// One of eight values that have variables of their own. A loop over them has one store where the text would have eight:
// software adapters compile a store longer than the sums before it, and an array of variables longest.
fn one_of(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
          e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>) -> vec4<f32> {
    let second = (i & 1u) != 0u;
    let low = select(select(a, b, second), select(c, d, second), (i & 2u) != 0u);
    let high = select(select(e, f, second), select(g, h, second), (i & 2u) != 0u);
    return select(low, high, (i & 4u) != 0u);
}
