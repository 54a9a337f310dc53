// Rows of the memory bank: bank [rows, columns], index [count].
//   gather:  y[k] = x[index[k]]                        x: the bank, y [count, columns]
//   blend:   y[index[k]] = keep y[index[k]] + take x[k]  y: the bank, x [at least count, columns]
//   blend_or_replace:  the same with keep written[k], written [at least count] being 0 for a row that is replaced
// One invocation makes one element; n = count columns. The indices of blend are distinct. An index beyond
// the bank is skipped: gather gives zeros, blend changes nothing.
#import common/index

struct Params {
    n: u32,
    columns: u32,
    rows: u32,
    keep: f32,
    take: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> written: array<f32>;

@compute @workgroup_size(WG)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = index[i / params.columns];
        var value = 0.0;
        if row < params.rows {
            value = x[row * params.columns + i % params.columns];
        }
        y[i] = value;
    }
}

@compute @workgroup_size(WG)
fn blend(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = index[i / params.columns];
        if row < params.rows {
            let j = row * params.columns + i % params.columns;
            y[j] = params.keep * y[j] + params.take * x[i];
        }
    }
}

@compute @workgroup_size(WG)
fn blend_or_replace(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                    @builtin(local_invocation_index) local: u32) {
    let i = item_index(group, groups, local);
    if i < params.n {
        let row = index[i / params.columns];
        if row < params.rows {
            let j = row * params.columns + i % params.columns;
            let keep = params.keep * written[i / params.columns];
            y[j] = keep * y[j] + (1.0 - keep) * x[i];
        }
    }
}
