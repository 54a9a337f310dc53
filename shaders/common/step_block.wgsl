// What the host writes before every step: `StepBlock` of ops/step_block.rs, member by member.
struct StepBlock {
    draw: u32,          // counter of the random masks
    seed_low: u32,
    seed_high: u32,
    learning_rate: f32,
    drop_rate: f32,     // DropBlock's 1 - keep
    part: u32,          // number of the micro-batch in its step, from 0
    step: u32,          // number of the step in its run, from 0
    unused_0: u32,
}
