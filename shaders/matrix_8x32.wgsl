// Products of factors in half precision by units that multiply 8 x 8 matrices, in subgroups of 32 lanes.
enable f16;
enable wgpu_cooperative_matrix;

alias Half = f16;

// Of each subgroup one matrix of finished sums.
var<workgroup> finished: array<f32, 256>;

#import common/matrix_body PITCH=72
#import common/matrix_units NAME=convolve SIDE=8 LANES=32 DOWN=4 ACROSS=4 BESIDE=2
#import common/matrix_units NAME=backward_weight SIDE=8 LANES=32 DOWN=4 ACROSS=4 BESIDE=2
#import common/matrix_units NAME=product SIDE=8 LANES=32 DOWN=4 ACROSS=4 BESIDE=2
