// Products of factors in half precision by units that multiply 16 x 16 matrices, in subgroups of 32 lanes.
enable f16;
enable wgpu_cooperative_matrix;

alias Half = f16;

// Of each subgroup one matrix of finished sums.
var<workgroup> finished: array<f32, 1024>;

#import common/matrix_body PITCH=72
#import common/matrix_units NAME=convolve SIDE=16 LANES=32 DOWN=2 ACROSS=2 BESIDE=2
#import common/matrix_units NAME=backward_weight SIDE=16 LANES=32 DOWN=2 ACROSS=2 BESIDE=2
#import common/matrix_units NAME=product SIDE=16 LANES=32 DOWN=2 ACROSS=2 BESIDE=2
