// Sums and maxima of floats over the invocations of a workgroup. WG is a power of two.
// The tree has one fixed order, so the result has the same bits on every run. All invocations of the
// workgroup must call them, in uniform control flow, and all get the result.
#import common/index

var<workgroup> sh_reduce: array<f32, WG>;

// Sum over the workgroup.
fn workgroup_sum(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    sh_reduce[local] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sh_reduce[local] += sh_reduce[local + half];
        }
    }
    workgroupBarrier();
    return sh_reduce[0];
}

// Largest value of the workgroup; NaN does not count.
fn workgroup_max(value: f32, local: u32) -> f32 {
    workgroupBarrier();
    sh_reduce[local] = value;
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sh_reduce[local] = max(sh_reduce[local], sh_reduce[local + half]);
        }
    }
    workgroupBarrier();
    return sh_reduce[0];
}
