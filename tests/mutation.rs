//! The checks must see a broken shader: every entry point, and every function that entry points share, is
//! broken on purpose in one place, and a case that `ieq-wgpu check` runs must then fail.
//!
//! A new entry point needs a row in [`BREAKS`]; a test says so. The break is the first occurrence of a text
//! inside the function: take a mistake that one could make (a lost factor, a swapped operand, a row too few).

#![allow(clippy::print_stderr, reason = "a test reports its adapter and what it saw")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::kernel::testing::KernelsExt;
use ieq_wgpu::gpu::shader::SOURCES;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check::{self, Case};

/// File, function, text in it, what stands there instead, and which cases must see it (part of their names).
type Break = (&'static str, &'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const BREAKS: &[Break] = &[
    ("accumulate", "accumulate", "params.share *", "", "accumulate"),
    ("adaptive_pool", "window", "windows - 1u", "0u", "adaptive_pool.mean"),
    ("adaptive_pool", "mean", "(rows.y - rows.x) * ", "", "adaptive_pool.mean"),
    ("average", "average", "step_block.step != 0u", "step_block.step != 1u", "first step"),
    ("average", "average", "(now - y[i])", "now", "average"),
    ("bank", "gather", "row < params.rows", "row <= params.rows", "bank.gather"),
    ("bank", "blend", "params.take * x[i]", "params.keep * x[i]", "bank.blend"),
    ("bank", "blend_or_replace", "(1.0 - keep)", "params.take", "bank.blend"),
    ("batch_norm", "partial_statistics", "d * d", "d", "batch_norm.train"),
    ("batch_norm", "combined", "squares / count", "squares / (count - 1.0)", "batch_norm.train"),
    ("batch_norm", "combine_statistics", "both.x, both.y", "both.y, both.x", "batch_norm.train"),
    ("batch_norm", "combine_moments", "= both.x", "= both.y", "batch_norm.moments"),
    ("batch_norm", "four_of", "< vec4<u32>(last)", "<= vec4<u32>(last)", "batch_norm.train"),
    ("batch_norm", "four_x", "x_at(at.w)", "x_at(at.z)", "batch_norm.train"),
    ("batch_norm", "walk_on", "at >= params.units", "at > params.units", "batch_norm.train"),
    ("batch_norm", "part_of", "first + images", "first + params.chunk_images", "batch_norm.train"),
    ("batch_norm", "live_only", "select(vec4<f32>(0.0), terms, live)", "terms", "batch_norm.train"),
    ("batch_norm", "sum_of_lanes", "local - lane", "local", "batch_norm.train"),
    ("batch_norm", "sums_of_lanes", "quarter /= 4u", "quarter /= 16u", "batch_norm.train"),
    ("batch_norm", "partial_statistics_4", "d$k * d$k", "d$k", "batch_norm.train"),
    ("batch_norm", "from_running", "running_mean_in[c], running_var_in[c]", "running_var_in[c], running_mean_in[c]", "batch_norm.eval"),
    ("batch_norm", "running", "count / (count - 1.0)", "1.0", "batch_norm.running"),
    ("batch_norm", "activated", "u > vec4", "u < vec4", "batch_norm.train"),
    ("batch_norm", "column_of", "chunk * params.chunk_images * step", "chunk * step", "batch_norm.train"),
    ("batch_norm", "apply", "vec4<f32>(x_at(i))", "vec4<f32>(0.5 * x_at(i))", "batch_norm.train"),
    ("batch_norm", "apply_4", "activated(x_as_vectors[i]", "activated(0.5 * x_as_vectors[i]", "batch_norm.train"),
    ("batch_norm", "partial_gradients", "(value - numbers.mean) * numbers.rstd", "value - numbers.mean", "batch_norm.train"),
    ("batch_norm", "partial_gradients_4", "(value$k - numbers.mean) * numbers.rstd", "value$k - numbers.mean", "batch_norm.train"),
    ("batch_norm", "combine_gradients", "sums.y", "sums.x", "batch_norm.train"),
    ("batch_norm", "gradient", "means.y + ", "", "batch_norm.train"),
    ("batch_norm", "backward", "(dy[i]), vec4<f32>(x_at(i))", "(x_at(i)), vec4<f32>(dy[i])", "batch_norm.train"),
    ("batch_norm", "backward_4", "dy_as_vectors[i], x_as_vectors[i]", "x_as_vectors[i], dy_as_vectors[i]", "batch_norm.train"),
    ("batch_norm", "backward_in_place_4", "y_as_vectors[i], x_as_vectors[i]", "x_as_vectors[i], y_as_vectors[i]", "batch_norm.backward"),
    ("batch_norm", "backward_in_place", "(y[i]), vec4<f32>(x_at(i))", "(x_at(i)), vec4<f32>(y[i])", "batch_norm.backward"),
    ("clip", "norm", "params.root != 0u", "false", "clip.norm"),
    ("clip", "norm", "x[i] * x[i]", "abs(x[i])", "clip.norm"),
    ("clip", "scale", "x[0] + EPSILON", "x[0]", "clip.scale: a tiny norm"),
    ("clip", "scale", "share > 1.0", "share < 1.0", "clip.scale"),
    ("contrast", "normalise", "(norm + params.epsilon)", "norm", "contrast.normalise: a row of zeros"),
    ("contrast", "normalise_backward", "- part_along", "+ part_along", "contrast.normalise"),
    ("contrast", "anchors", "(i - block) %", "i %", "contrast.anchors"),
    ("contrast", "anchors_backward", "j = i + block", "j = i", "contrast.anchors"),
    ("contrast", "first_rows", "y[i] = x[i]", "y[i] = x[i + 1u]", "contrast.anchors"),
    ("contrast", "nce", "largest - positive", "positive - largest", "contrast.nce"),
    ("contrast", "nce_backward_vectors", "-dy[row]", "dy[row]", "contrast.nce"),
    ("contrast", "nce_backward_scores", "share * params.inverse_tau", "share", "contrast.nce"),
    ("conv2d", "upstream_1", "o + 2u", "o + 1u", "conv2d.forward"),
    ("conv2d_subgroup", "upstream_1", "(mine, 1u)", "(mine, 0u)", "conv2d.forward"),
    ("common/conv2d_body", "pack", "min(o + 3u", "min(o + 2u", "conv2d.forward"),
    ("common/conv2d_body", "pack_mirrored", "min(o + 3u", "min(o + 2u", "conv2d.forward"),
    ("common/conv2d_body", "store_four", "sum.zw", "sum.xy", "y in half precision"),
    ("common/half", "half_of", "pair.x, pair.y", "pair.y, pair.x", "in half precision"),
    ("common/conv2d_body", "input_at", "params.w_in", "params.w_in + 1u", "conv2d.forward"),
    ("common/conv2d_input", "channel_of", "4u * params.c_in", "3u * params.c_in", "conv2d.forward: normalised"),
    ("common/conv2d_input", "place_of", "position >= 0", "position > 0", "conv2d.forward"),
    ("common/conv2d_input", "stored_at", "half_of(x[i / 2u], i)", "half_of(x[i / 2u], i + 1u)", "in half precision"),
    ("common/conv2d_input", "activated", "+ channel.z", "", "conv2d.forward: normalised"),
    ("common/conv2d_input", "value_at", "value, inside)", "value, true)", "conv2d.forward"),
    ("common/conv2d_input_if_normed", "channel_if_normed", "4u * params.c_in", "3u * params.c_in", "conv2d.forward: normalised"),
    ("common/conv2d_input_if_normed", "activated_in", "row_inside & place.inside", "place.inside", "conv2d.forward"),
    ("common/conv2d_body", "activated_at", "params.w_in", "params.w_in + 1u", "conv2d.forward"),
    ("common/conv2d_forward", "$NAME", "w$p, tx$q_$p)", "w$p, ty$q_$p)", "conv2d.forward"),
    ("common/conv2d_backward_weight", "$NAME", "(row * STRIDE + k0)", "(row + k0)", "stride 2"),
    ("common/conv2d_body", "ten_of_x", "u32(first) & 3u", "u32(first) & 2u", "conv2d.forward"),
    ("common/conv2d_body", "ten_of_x", "run + 3", "run + 2", "conv2d.forward"),
    ("common/conv2d_forward_unrolled", "$NAME", "f${2*h+1} = array<vec4<f32>, 4>(pair$h[4]", "f${2*h+1} = array<vec4<f32>, 4>(pair$h[0]", "conv2d.forward"),
    ("common/conv2d_forward_unrolled", "$NAME", "v${r+k}_$l_$p, t$q", "v${r}_$l_$p, t$q", "conv2d.forward"),
    ("common/conv2d_forward_tiled", "$NAME", "+ $ku * pitch + 1u", "+ 1u", "conv2d.forward"),
    ("common/conv2d_pointwise_tiled", "$NAME", "c$u <= last", "c$u < last", "conv2d.forward"),
    ("common/conv2d_backward_weight_tiled", "$NAME", "base += 2u * pitch", "base += pitch", "conv2d.forward"),
    ("common/conv2d_backward_weight_unrolled", "$NAME", "before$k = here$k.w;", "", "conv2d.forward"),
    ("common/conv2d_backward_weight_unrolled", "$NAME", "(j + 1u < runs)", "true", "conv2d.forward"),
    ("common/conv2d_pointwise_unrolled", "$NAME", "c + $uu < end", "true", "conv2d.forward"),
    ("common/conv2d_pointwise_unrolled", "$NAME", "piece + $pu * pieces, runs - 1u", "piece, runs - 1u", "conv2d.forward"),
    ("common/conv2d_pointwise_weight_unrolled", "$NAME", "vec4<f32>(v$p[$u])", "vec4<f32>(v$p[0])", "conv2d.forward"),
    ("common/conv2d_pointwise_weight_unrolled", "$NAME", "if run == image_runs", "if false", "conv2d.forward"),
    ("common/conv2d_pointwise_weight_tiled", "$NAME", "first + pixel < end", "first + pixel < last_row", "conv2d.forward"),
    ("common/conv2d_body", "reduce", "split = 0u", "split = 1u", "conv2d.forward"),
    ("distill", "kl", "sum_t / sum_s", "sum_s / sum_t", "distill.kl"),
    ("distill", "divergence", "(0.5 -", "(0.4 -", "close logits"),
    ("distill", "kl_backward", "(q - p)", "(p - q)", "distill.kl"),
    ("distill", "square", "difference * difference", "difference", "distill.square"),
    ("distill", "square_backward", "2.0 *", "", "distill.square"),
    ("dropout", "bernoulli", "u[k] < p", "u[k] > p", "dropout.bernoulli"),
    ("dropout", "dropout", "a[i] * params.scale", "a[i]", "dropout.dropout"),
    ("dropout", "block_keep", "down < params.block", "down + 1u < params.block", "dropout.block_keep"),
    ("dropout", "count_kept", "a[i] != 0.0", "a[i] == 0.0", "dropout.scale_kept"),
    ("dropout", "scale_kept", "f32(params.n) / ", "1.0 / ", "dropout.scale_kept"),
    ("dropout", "apply_mask", "* factor[0]", "+ factor[0]", "dropout.apply_mask"),
    ("elementwise", "scale", "params.alpha * a[i]", "a[i]", "elementwise.scale"),
    ("elementwise", "add", "params.beta * b[i]", "params.alpha * b[i]", "elementwise.add: weighted"),
    ("elementwise", "fill", "params.alpha", "params.beta", "elementwise.fill"),
    ("elementwise", "leaky_relu", "a[i] > 0.0", "a[i] < 0.0", "elementwise.leaky_relu"),
    ("elementwise", "leaky_relu_backward", "a[i] > 0.0", "a[i] < 0.0", "elementwise.leaky_relu"),
    ("health", "inspect", "i < params.n", "i + 1u < params.n", "health.inspect"),
    ("matmul", "a_quad", "m + 12u", "m + 8u", "matmul.product"),
    ("matmul_subgroup", "a_quad", "(mine, 3u)", "(mine, 2u)", "matmul.product"),
    ("common/matmul_body", "product", "right, s15)", "right, s14)", "matmul.product"),
    ("matmul", "a_eight", "m + $ru", "m", "matmul.product: large"),
    ("matmul_subgroup", "a_eight", "lane & 7u", "lane & 3u", "matmul.product: large"),
    ("common/matmul_body", "a_terms", "at + 3u * params.a_k", "at", "matmul.product: large"),
    ("common/matmul_body", "product_by_four", "(b0[$u], b1[$u]", "(b0[$u], b0[$u]", "matmul.product: large"),
    ("common/matmul_body", "product_tiled", "s11 = fma(a1, b1", "s11 = fma(a1, b0", "matmul.product"),
    ("common/matmul_body", "add_row", "i % params.columns", "i / params.columns", "matmul.add_row"),
    ("common/matmul_body", "column_sum", "r = 0u", "r = 1u", "matmul.add_row"),
    ("common/matrix_body", "rounded", "& 0xffffe000u", "& 0xffff0000u", "F16, x"),
    ("common/matrix_body", "put_left", "(value - high)", "value", "F32x3"),
    ("common/matrix_body", "put_right", "(value - high)", "value", "F32x3"),
    ("common/matrix_body", "unscaled", "* right[1]", "", "F16, x"),
    ("common/matrix_body", "convolve_tile", "linear / blocks", "linear % blocks", "F16, x"),
    ("common/matrix_body", "convolve_stage", "i * STRIDE + k)", "i * STRIDE)", "F16, x"),
    ("common/matrix_body", "convolve_store", "pixel + 1u < params.batch * size", "false", "F16, x"),
    ("common/matrix_body", "pixel_at", "(image * params.c_out + o)", "o", "F16, x"),
    ("common/matrix_body", "backward_weight_tile", "of_split - split * taps", "0u", "F16, x"),
    ("common/matrix_body", "backward_weight_stage", "i * STRIDE + k)", "i * STRIDE)", "F16, x"),
    ("common/matrix_body", "backward_weight_store", "+ o + 1u", "+ o", "F16, x"),
    ("common/matrix_body", "product_tile", "params.inner + STAGE - 1u", "params.inner", "matmul.product: F16"),
    ("common/matrix_body", "product_stage", "params.b_k == 1u", "params.a_k == 1u", "matmul.product: F16"),
    ("common/matrix_body", "product_store", "n + 1u < params.columns", "false", "matmul.product: F16"),
    ("common/matrix_scalar", "$NAME", "right4_low, low$r", "right4, low$r", "F32x3"),
    ("common/matrix_scalar", "$NAME", "total$r += sum$r", "total$r = sum$r", "F16, x"),
    ("common/matrix_units", "$NAME", "(left_low$r, right$c", "(left$r, right$c", "F32x3"),
    ("common/matrix_units", "$NAME", "total$r_$c + sum$r_$c;", "sum$r_$c;", "F16, x"),
    ("common/matrix_units", "$NAME", "coopLoadT<coop_mat$SIDEx$SIDE<f16, B>>", "coopLoad<coop_mat$SIDEx$SIDE<f16, B>>", "matmul.product: F16"),
    ("common/half", "four_halves_of", "(run & 1u) == 1u", "false", "in half precision"),
    ("pool", "sum_of", "else { u += second; }", "else { u -= second; }", "pool.max: sum"),
    ("pool", "norm2_of", "statistics2[3u", "statistics2[2u", "pool.max: 2 images"),
    ("pool", "window_at", "x_at(below + 1u)", "x_at(below)", "pool.max"),
    ("pool", "x2_run", "x2_as_vectors[run / 2u], run", "x2_as_vectors[run / 2u], 0u", "in half precision"),
    ("pool", "wins", "value > best", "value < best", "pool.max"),
    ("pool", "max_2x2", "v[first_maximum(v)]", "v.x", "pool.max"),
    ("pool", "max_2x2_by_four", "below.zw", "below.xy", "pool.max"),
    ("pool", "gradient_of", "vec4<u32>(first)", "vec4<u32>(0u)", "pool.max"),
    ("pool", "max_2x2_backward", "if below {", "if false {", "pool.max"),
    ("pool", "max_2x2_backward_by_four", "left.zw, right.zw", "left.zw, right.xy", "pool.max"),
    ("pool", "max_2x2_backward_by_four", "row < params.out_height", "true", "pool.max_backward"),
    ("pool", "mean", " / f32(size)", "", "pool.mean"),
    ("pool", "mean_backward", " / f32(size)", "", "pool.mean"),
    ("reduce", "sum_chunks", "i < params.n", "true", "reduce.mean"),
    ("reduce", "broadcast", " / params.divisor", "", "reduce.mean"),
    ("scale", "largest", "abs(value_at", "(value_at", "scale.scale"),
    ("scale", "scale", "254u - of_scale", "253u - of_scale", "scale.scale"),
    ("sgd", "step", "g + factor_and_decay", "g - factor_and_decay", "sgd.step"),
    ("sgd", "step", "rates[i / VECTORS]", "rates[0]", "sgd.step"),
    ("sgd", "step", "d + params.momentum * v", "d + v", "sgd.step: Nesterov"),
    ("sgd", "step", "velocity[i] = select(old, v, finite)", "velocity[i] = v", "sgd.step: gradients that are not finite"),
    ("softmax_xent", "forward", "c != t", "true", "softmax_xent.forward"),
    ("softmax_xent", "forward", "(1.0 - params.smoothing) *", "", "softmax_xent.forward: smoothed"),
    ("softmax_xent", "backward", "-stats_in", "stats_in", "softmax_xent.forward"),
    ("softmax_xent", "backward", "share += params.smoothing", "share -= params.smoothing", "softmax_xent.forward: smoothed"),
    ("softmax_xent", "correct", "c < t", "c <= t", "softmax_xent.correct"),
    ("views", "base", "any(min(at, source)", "any(min(at, at)", "views.views"),
    ("views", "warped", "source - 0.5", "source", "views.views"),
    ("views", "jittered", "1.0 - view.factors.z", "1.0 + view.factors.z", "views.views"),
    ("views", "views", "last - out_column", "out_column", "views.views"),
    ("views", "views", "(r + turns) & 3u", "r", "views.views: 7x7, each turned"),
    ("common/finite", "is_finite", "!= 0x7f800000u", "!= 0x7f800001u", "health.inspect"),
    ("common/finite", "is_nan", "> 0x7f800000u", ">= 0x7f800000u", "softmax_xent.correct"),
    ("common/index", "group_index", "group.y * groups.x + ", "", "contrast.normalise: more rows"),
    ("common/index", "item_index", "* WG", "* (WG + 1u)", "elementwise.leaky_relu"),
    ("common/lane_rank", "lane_rank", "(1u)", "(2u)", "conv2d.forward"),
    ("common/log1p", "log1p", "z * q * series", "z * series", "softmax_xent.forward"),
    ("common/one_of", "one_of", "select(c, d, second)", "select(d, c, second)", "conv2d.forward"),
    ("common/packed", "packed_$Q", "first + $qu", "first", "conv2d.forward"),
    ("common/packed_subgroup", "packed_$Q", "mine, $qu", "mine, 0u", "conv2d.forward"),
    ("common/philox", "multiply_high", "carry >> 16u", "carry >> 17u", "dropout.bernoulli"),
    ("common/philox", "philox", "round < 10u", "round < 9u", "dropout.bernoulli"),
    ("common/philox", "unit_f32", "bits >> 8u", "bits >> 9u", "dropout.bernoulli"),
    ("common/reduce", "workgroup_sum", "half /= 2u", "half /= 4u", "softmax_xent.forward"),
    ("common/reduce", "workgroup_max", "half /= 2u", "half /= 4u", "softmax_xent.forward: logits to"),
    ("common/winograd_body", "pack", "h$k0 - h$k1", "h$k0 + h$k1", "by Winograd"),
    ("common/winograd_body", "input", "e$k2 - e$k1", "e$k1 - e$k2", "by Winograd"),
    ("common/winograd_body", "upstream", "e$k0 - e$k1", "e$k0 + e$k1", "by Winograd"),
    ("common/winograd_body", "outputs_of", "m$k1 - m$k2 - m$k3", "m$k1 - m$k2", "by Winograd"),
    ("common/winograd_body", "output", "index < end", "index < end - 1u", "by Winograd"),
    ("common/winograd_body", "store_two", "y[at + 1u] =", "y[at] =", "by Winograd"),
    ("common/winograd_body", "output_by_four", "next_tile(next_tile(tile))", "next_tile(tile)", "by Winograd"),
    ("common/winograd_body", "store_four", "params.w_out / 4u", "params.w_out / 2u", "by Winograd"),
    ("common/winograd_body", "gradients_of", "+ m$k3", "", "by Winograd"),
    ("common/winograd_body", "weight_gradient", "* 9u", "* 8u", "by Winograd"),
    ("common/winograd_body", "weight_gradient_by_four", "p[2].y", "p[1].y", "by Winograd"),
    ("common/winograd_body", "input_side_by_side", "s$k2 - s$k1", "s$k1 - s$k2", "by Winograd"),
    ("common/winograd_body", "input_side_by_side", "width > columns", "width >= columns", "by Winograd"),
    ("common/winograd_body", "input_side_by_side", "vec4<bool>(y$k.inside)", "vec4<bool>(true)", "by Winograd"),
    ("common/conv2d_input", "activated_four", "params.slope * y, y,", "y, y,", "normalised by Winograd"),
    ("common/winograd_body", "taps_of", "b.x, a.wzy", "b.x, a.xyz", "by Winograd"),
    ("common/winograd_body", "ten_at", "(i + 12u) / 4u", "(i + 8u) / 4u", "by Winograd"),
    ("common/winograd_body", "ten_at", "(i + 16u) / 8u", "(i + 8u) / 8u", "by Winograd"),
    ("common/winograd_body", "halves_of", "a.y, b, c.x", "a, b", "by Winograd"),
    ("common/four_of", "four_of", "a.w, b.xyz", "a.zw, b.xy", "by Winograd"),
    ("common/winograd_body", "quad_at", "x[min(at + 3u, last)]", "x[at]", "x 1x3x5x7"),
    ("common/winograd_body", "two_at", "(i & 2u) != 0u", "false", "by Winograd"),
    ("common/winograd_body", "next_tile", "params.h_out", "params.w_out + 2u", "by Winograd"),
    ("common/winograd_body", "two_at", "x[min(i + 1u, last)]", "x[min(i, last)]", "by Winograd"),
    ("common/winograd_body", "pick", "(r & 2u) != 0u", "false", "by Winograd"),
    ("common/winograd_body", "tile_of", "2u * (across", "(across", "by Winograd"),
    ("common/winograd_body", "tile_of", "+ params.first_image", "", "x 3x1x80x80"),
    ("common/winograd_product", "$NAME", "if params.add != 0u", "if false", "x 3x1x80x80"),
    ("common/winograd_product", "$NAME", "+= t$q_$o", "-= t$q_$o", "by Winograd"),
];

/// Cases beyond this size exist for the device's grid, not for the formula.
const LARGEST: usize = 100_000;

fn source(file: &str) -> &'static str {
    SOURCES.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("there is no shader {file}")).1
}

/// The functions of a file, each with whether it is an entry point.
fn functions(text: &str) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut entry = false;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("fn ") {
            found.push((rest.split('(').next().unwrap(), entry));
        }
        entry = line.starts_with("@compute");
    }
    found
}

/// Where the text of a function stands in its file.
fn place(text: &str, function: &str) -> Option<Range<usize>> {
    let start = text.find(&format!("fn {function}("))?;
    Some(start..start + text[start..].find("\n}")?)
}

/// The text of the file with its break.
fn broken(&(file, function, from, to, _): &Break) -> String {
    let text = source(file);
    let place = place(text, function).unwrap_or_else(|| panic!("{file}.wgsl has no function {function}"));
    let at = text[place.clone()].find(from).unwrap_or_else(|| panic!("{file}.{function} does not hold {from:?}"));
    let at = place.start + at;
    [&text[..at], to, &text[at + from.len()..]].concat()
}

/// Every entry point has a break, so has every function of the files that exist to be imported, and every file.
#[test]
fn every_entry_point_is_broken_once() {
    let listed: BTreeSet<(&str, &str)> = BREAKS.iter().map(|b| (b.0, b.1)).collect();
    let mut missing = Vec::new();
    // The shaders that measure a device's ceilings are no operation, and no case holds them.
    for (file, text) in SOURCES.iter().filter(|(file, _)| *file != "ceilings") {
        let functions = functions(text);
        // A struct alone computes nothing; `ops::step_block` compares it with Rust's, member by member.
        if functions.is_empty() && *file == "common/step_block" {
            continue;
        }
        let shared = file.starts_with("common/") && !functions.iter().any(|(_, entry)| *entry);
        // A file of imports has nothing of its own but how many lanes share their loads.
        let imports = !file.starts_with("common/") && functions.iter().all(|(name, _)| *name == "lane_rank");
        for (name, entry) in functions {
            if (entry || shared) && !listed.contains(&(*file, name)) {
                missing.push(format!("{file}.{name}"));
            }
        }
        if !imports && !listed.iter().any(|(name, _)| name == file) {
            missing.push(format!("{file} (any function)"));
        }
    }
    assert!(missing.is_empty(), "BREAKS has no row for {}", missing.join(", "));
    for row in BREAKS {
        assert_ne!(broken(row), source(row.0), "{row:?} changes nothing");
    }
}

fn open() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let options = Options { choice, matrix_units: true, ..Options::default() };
    let gpu = Gpu::open(&options).expect("a GPU test needs an adapter");
    eprintln!("adapter: {}", gpu.describe());
    gpu
}

/// The entry point that runs `function` of `file`: itself, or the first that a template makes.
fn entry_of(file: &str, function: &'static str) -> &'static str {
    let import = format!("#import {file} NAME=");
    let made = SOURCES.iter().flat_map(|(_, text)| text.lines()).find_map(|line| line.strip_prefix(import.as_str()));
    match function {
        "$NAME" => made.and_then(|rest| rest.split(' ').next()).unwrap_or(function),
        // One product alone uses each.
        "a_quad" => "product",
        "a_eight" | "a_terms" => "product_by_four",
        "ten_of_x" => "forward_unrolled_16x16",
        _ => function,
    }
}

/// Kernels that prefer `entry`, which may be one that this adapter would not choose. Where a file has a variant for
/// subgroups, its own functions run without them only.
fn kernels_for(gpu: &Arc<Gpu>, file: &str, entry: &'static str) -> Kernels {
    let kernels = Kernels::new(gpu.clone()).preferring(entry);
    let other = format!("{file}_subgroup");
    if SOURCES.iter().any(|(name, _)| *name == other) { kernels.without_subgroups() } else { kernels }
}

#[test]
fn every_break_turns_a_case_red() {
    let gpu = open();
    let unit = check::find_matrix_unit(&mut Kernels::new(gpu.clone())).unwrap().right;
    let subgroups = gpu.features().contains(wgpu::Features::SUBGROUP) && gpu.info().subgroup_min_size >= 4;
    let mut cases = check::cases();
    let launches = cases.iter().flat_map(|case| case.launches().unwrap());
    let lanes: BTreeMap<_, _> = launches.flat_map(|l| l.alternatives).map(|other| (other.entry, other.lanes)).collect();
    let size = |case: &Case| case.inputs.iter().map(|input| input.ty.len()).sum::<usize>();
    cases.retain(|case| size(case) <= LARGEST);
    // Small ones first: the first red one ends the search.
    cases.sort_by_key(size);
    let mut whole: [(Kernels, BTreeSet<&str>); 2] = [
        (Kernels::new(gpu.clone()), BTreeSet::new()),
        (Kernels::new(gpu.clone()).without_subgroups(), BTreeSet::new()),
    ];
    let mut failures = Vec::new();
    for row in BREAKS {
        let &(file, function, from, to, filter) = row;
        let what = format!("{file}.{function} with {to:?} for {from:?}");
        if !subgroups && (file.ends_with("_subgroup") || file == "common/lane_rank") {
            eprintln!("left out: {what}: this adapter has no subgroups of four lanes");
            continue;
        }
        if unit.is_none() && file == "common/matrix_units" {
            eprintln!("left out: {what}: this adapter has no matrix units");
            continue;
        }
        let entry = entry_of(file, function);
        let wanted = lanes.get(entry).copied().unwrap_or(0);
        let plain = SOURCES.iter().any(|(name, _)| name.strip_suffix("_subgroup") == Some(file));
        if subgroups && !plain && wanted > gpu.info().subgroup_min_size {
            eprintln!("left out: {what}: this adapter has no subgroups of {wanted} lanes");
            continue;
        }
        let mut kernels = kernels_for(&gpu, file, entry).with_source(file, &broken(row)).unwrap();
        if file == "common/matrix_units" {
            kernels.use_matrix_unit(unit);
        }
        let (unbroken, green) = &mut whole[usize::from(plain)];
        let mut red = None;
        for case in cases.iter().filter(|case| case.name.contains(filter)) {
            if !green.contains(case.name.as_str()) {
                match check::run(case, unbroken) {
                    Ok(outcome) if outcome.passed() => drop(green.insert(&case.name)),
                    other => failures.push(format!("without a break, {}: {other:?}", case.name)),
                }
            }
            // A break that does not compile is no break: it must run and give wrong numbers.
            match check::run(case, &mut kernels) {
                Ok(outcome) if outcome.passed() => {}
                Ok(outcome) => {
                    red = Some(outcome);
                    break;
                }
                Err(error) => {
                    failures.push(format!("{what}: {error}"));
                    break;
                }
            }
        }
        match red {
            Some(outcome) => {
                eprintln!("red: {what}: {} off by {:.1e} in {}", outcome.worst, outcome.error, outcome.name)
            }
            None => failures.push(format!("{what}: no case of {filter:?} went red")),
        }
    }
    assert!(failures.is_empty(), "{} breaks were not seen:\n{}", failures.len(), failures.join("\n"));
}
