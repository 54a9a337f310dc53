// Linear indices over a grid that is folded over two axes (an axis holds at most 65,535 workgroups).

override WG: u32 = 64u;

// Linear index of this workgroup.
fn group_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// Linear index of this invocation in a one-dimensional launch.
fn item_index(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return group_index(group, groups) * WG + local;
}
