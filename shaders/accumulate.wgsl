// Sum of the shares of a step's micro-batches, in place: y = share x in the first, y + share x in the others.
//   x: [n]; y: [n]; step: the step block, which has the number of the micro-batch.
// One invocation makes one element. What y held before the first micro-batch does not matter, even NaN.
#import common/index
#import common/step_block

struct Params {
    n: u32,
    share: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step: StepBlock;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn accumulate(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
              @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        y[i] = select(y[i], 0.0, step.part == 0u) + params.share * x[i];
    }
}
