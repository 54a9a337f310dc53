// Products of factors in half precision by ordinary arithmetic: the reference for what matrix units do, on any adapter.
alias Half = f32;

#import common/matrix_body PITCH=64
#import common/matrix_scalar NAME=convolve
#import common/matrix_scalar NAME=backward_weight
#import common/matrix_scalar NAME=product
