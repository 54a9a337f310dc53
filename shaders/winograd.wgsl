// Winograd's convolution without subgroup operations: every lane loads its own copy of the shared operand.
#import common/winograd_body
#import common/packed Q=2
#import common/packed Q=4
#import common/packed Q=8

fn lane_rank() -> u32 {
    return 0u;
}
