// Reductions over a workgroup: the only ones in the house. WG must be a power of two.
//
// The tree has one fixed order, so the result has the same bits on every run. Every invocation must
// call them, in uniform control flow, and every invocation gets the result.
#import common/index

var<workgroup> sh_reduce: array<f32, WG>;

// Sum of `value` over the workgroup.
fn wg_sum(value: f32, local: u32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        if local < stride {
            sh_reduce[local] = sh_reduce[local] + sh_reduce[local + stride];
        }
        workgroupBarrier();
    }
    let total = sh_reduce[0];
    // The next reduction writes what slower invocations still read here.
    workgroupBarrier();
    return total;
}

// Largest `value` of the workgroup; NaN does not count.
fn wg_max(value: f32, local: u32) -> f32 {
    sh_reduce[local] = value;
    workgroupBarrier();
    for (var stride = WG / 2u; stride > 0u; stride = stride / 2u) {
        if local < stride {
            sh_reduce[local] = max(sh_reduce[local], sh_reduce[local + stride]);
        }
        workgroupBarrier();
    }
    let largest = sh_reduce[0];
    workgroupBarrier();
    return largest;
}
