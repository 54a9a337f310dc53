// Products of factors in half precision by units that multiply 8 x 8 matrices, in subgroups of 8 lanes.
enable f16;
enable wgpu_cooperative_matrix;

alias Half = f16;

// Of each subgroup one matrix of finished sums.
var<workgroup> finished: array<f32, 1024>;

#import common/matrix_body PITCH=72
#import common/matrix_units NAME=convolve SIDE=8 LANES=8 DOWN=2 ACROSS=2 BESIDE=4
#import common/matrix_units NAME=backward_weight SIDE=8 LANES=8 DOWN=2 ACROSS=2 BESIDE=4
#import common/matrix_units NAME=product SIDE=8 LANES=8 DOWN=2 ACROSS=2 BESIDE=4
