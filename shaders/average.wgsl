// Moving average of weights, in place: y = x in the first step of a run, y + take (x - y) in the others.
//   x: [n]; y: [n]; step_block: the step block, which has the number of the step.
// One invocation makes one element. What y held before the first step does not matter.
#import common/index
#import common/step_block

struct Params {
    n: u32,
    take: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> step_block: StepBlock;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn average(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        var now = x[i];
        if step_block.step != 0u {
            now = y[i] + params.take * (now - y[i]);
        }
        y[i] = now;
    }
}
