// Reductions over the invocations of a workgroup; the order of the additions is fixed.
// All invocations of the workgroup must call them. Needs common/index (WG, a power of two).

var<workgroup> sh_sum: array<vec2<f32>, WG>;

// Sums of both components over the workgroup, known to every invocation afterwards.
fn workgroup_sum2(value: vec2<f32>, local: u32) -> vec2<f32> {
    workgroupBarrier();
    sh_sum[local] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sh_sum[local] += sh_sum[local + half];
        }
    }
    workgroupBarrier();
    return sh_sum[0];
}
