// Winograd's convolution with subgroup broadcasts: of the values that all lanes share, the first lanes load a part each,
// and broadcasts pass them on. Needs subgroups of at least four lanes; product_32x4 and wider ones need eight.
#import common/winograd_body
#import common/lane_rank
#import common/packed_subgroup Q=2
#import common/packed_subgroup Q=4
#import common/packed_subgroup Q=8
