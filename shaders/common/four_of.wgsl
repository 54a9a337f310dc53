// Four of eight words, from number `first` on, which is 3 at most.
fn four_of(a: vec4<u32>, b: vec4<u32>, first: u32) -> vec4<u32> {
    let odd = (first & 1u) != 0u;
    let low = select(a, vec4<u32>(a.yzw, b.x), odd);
    let high = select(vec4<u32>(a.zw, b.xy), vec4<u32>(a.w, b.xyz), odd);
    return select(low, high, (first & 2u) != 0u);
}
