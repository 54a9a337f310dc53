// Position among the active lanes of the subgroup; all lanes are active where it is called.
fn lane_rank() -> u32 {
    return subgroupExclusiveAdd(1u);
}
