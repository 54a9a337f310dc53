//! `augment.safetensors`, and the cases `copies` and DropBlock of other files: the view generator and DropBlock
//! on the device against PyTorch's numbers. What a case holds decides what is computed.

#![allow(clippy::print_stderr, reason = "a test reports its measured errors")]

use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::ops::dropout::{ApplyMask, DropBlockKeep, KeepScale, drop_blocks_at};
use ieq_wgpu::ops::elementwise::Fill;
use ieq_wgpu::ops::views::{Colour, PARAMETER_WORDS, ViewParameters, Views};
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Type};

use super::golden::Golden;

/// Compares every case of `golden` that is about views or DropBlock: number of comparisons and the failed
/// ones' messages.
pub fn evaluate(golden: &Golden, kernels: &mut Kernels) -> Result<(usize, Vec<String>), String> {
    let mut computed = Vec::new();
    for case in golden.cases() {
        let has = |part: &str| golden.has(&format!("{case}.{part}"));
        if has("x") && has("dy") && has("dx") && has("base") {
            computed.extend(augmented(golden, case, kernels)?);
        } else if has("x") && has("view0") {
            computed.push(copies(golden, case, kernels)?);
        } else if has("seed") && has("keep") {
            computed.extend(drop_blocks(golden, case, kernels)?);
        }
    }
    let mut failures = Vec::new();
    for (name, got) in &computed {
        let want = golden.data(name)?;
        let pairs = || got.iter().zip(want).map(|(&g, &w)| (f64::from(g), f64::from(w)));
        let worst = pairs().map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
        let off = pairs().map(|(g, w)| (g - w).powi(2)).sum::<f64>().sqrt();
        let size = pairs().map(|(_, w)| w * w).sum::<f64>().sqrt();
        eprintln!("{:24} {name:16} max abs {worst:.2e}, rel L2 {:.2e}", golden.file, off / size);
        failures.extend(golden.check(name, got).err());
    }
    Ok((computed.len(), failures))
}

type Computed = (String, Vec<f32>);

fn say(e: ieq_wgpu::Error) -> String {
    e.to_string()
}

/// Runs the operation on float images; slot b takes image b.
fn run_views(
    images: &[f32],
    shape: &[usize],
    op: Views,
    parameters: &[ViewParameters],
    kernels: &mut Kernels,
) -> Result<Vec<f32>, String> {
    let mut graph = Graph::new();
    let batch = shape[0];
    let pixels = graph.input("images", Type::u32(shape));
    let index = graph.input("index", Type::u32([batch]));
    let words = graph.input("parameters", Type::u32([parameters.len(), PARAMETER_WORDS]));
    let x = graph.one(op, &[pixels, index, words]).map_err(say)?;
    graph.keep(x);
    let executor = Executor::new(kernels, &mut Arenas::new(), graph).map_err(say)?;
    executor.write(pixels, images).map_err(say)?;
    executor.write(index, &(0..batch as u32).collect::<Vec<_>>()).map_err(say)?;
    let given: Vec<u32> = parameters.iter().flat_map(ViewParameters::words).collect();
    executor.write(words, &given).map_err(say)?;
    executor.submit();
    executor.read(x).map_err(say)
}

const RAW: Views = Views { views: 1, rotations: 1, padding: 0, float_images: true, mean: [0.0; 3], std: [1.0; 3] };

/// `base`, the windows `v{n}` at rows `t{n}` and columns `l{n}`, and the jitter orders `jit{digits}`: one
/// execution with as many views.
fn augmented(golden: &Golden, case: &str, kernels: &mut Kernels) -> Result<Vec<Computed>, String> {
    let name = |part: &str| format!("{case}.{part}");
    let shape = golden.shape(&name("x"))?;
    let (batch, side) = (shape[0], shape[3]);
    let settings = golden.settings(case)?;
    let setting =
        |key: &str| settings[key].as_u64().map(|v| v as usize).ok_or_else(|| format!("{case} has no setting {key}"));
    let (padding, long) = (setting("pad")?, setting("c")?);
    let crops = [golden.indices(&name("dy"))?, golden.indices(&name("dx"))?];
    let factors = [golden.data(&name("fb"))?, golden.data(&name("fc"))?, golden.data(&name("fs"))?];
    let optional = |part: String| -> Result<Option<Vec<u32>>, String> {
        if golden.has(&part) { golden.indices(&part).map(Some) } else { Ok(None) }
    };
    let prefix = name("");
    let outputs: Vec<&str> = golden.outputs().filter_map(|full| full.strip_prefix(&prefix)).collect();
    let mut parameters = Vec::new();
    for output in &outputs {
        for slot in 0..batch {
            let base = ViewParameters {
                crop: [crops[0][slot], crops[1][slot]],
                factors: factors.map(|f| f[slot]),
                ..ViewParameters::identity(side, padding)
            };
            parameters.push(if *output == "base" {
                base
            } else if let Some(digits) = output.strip_prefix("jit") {
                let mut order = [Colour::Nothing; 3];
                for (place, digit) in order.iter_mut().zip(digits.chars()) {
                    *place = match digit {
                        '0' => Colour::Brightness,
                        '1' => Colour::Contrast,
                        '2' => Colour::Saturation,
                        _ => return Err(format!("{case}.{output} is of an unknown kind")),
                    };
                }
                ViewParameters { order, ..base }
            } else if let Some(number) = output.strip_prefix('v') {
                let (top, left) = (optional(name(&format!("t{number}")))?, optional(name(&format!("l{number}")))?);
                let extent = |offset: &Option<Vec<u32>>| if offset.is_some() { long } else { side };
                let start = |offset: &Option<Vec<u32>>| offset.as_ref().map_or(0, |o| o[slot] as usize);
                base.resized(side, [start(&top), start(&left)], [extent(&top), extent(&left)])
            } else {
                return Err(format!("{case}.{output} is of an unknown kind"));
            });
        }
    }
    let op = Views { views: outputs.len(), padding, ..RAW };
    let x = run_views(golden.data(&name("x"))?, shape, op, &parameters, kernels)?;
    Ok(outputs.iter().zip(x.chunks(x.len() / outputs.len())).map(|(part, got)| (name(part), got.to_vec())).collect())
}

/// The rotations of `view0`, then of `view1`, ...
fn copies(golden: &Golden, case: &str, kernels: &mut Kernels) -> Result<Computed, String> {
    let mut rows = Vec::new();
    for view in (0..).map(|v| format!("{case}.view{v}")).take_while(|v| golden.has(v)) {
        let shape = golden.shape(&view)?;
        let parameters = vec![ViewParameters::identity(shape[3], 0); shape[0]];
        rows.extend(run_views(golden.data(&view)?, shape, Views { rotations: 4, ..RAW }, &parameters, kernels)?);
    }
    Ok((format!("{case}.x"), rows))
}

/// From `seed`: `keep` and, where they are there, `mult`, and `y` and `gx` of `x` and `gy`.
fn drop_blocks(golden: &Golden, case: &str, kernels: &mut Kernels) -> Result<Vec<Computed>, String> {
    let name = |part: &str| format!("{case}.{part}");
    let (seed_shape, shape) = (golden.shape(&name("seed"))?, golden.shape(&name("keep"))?);
    let block = shape[3] - seed_shape[3] + 1;
    let mut graph = Graph::new();
    let seeds = graph.input("seeds", Type::f32(seed_shape));
    let keep = graph.one(DropBlockKeep { block }, &[seeds]).map_err(say)?;
    let scale = graph.one(KeepScale, &[keep]).map_err(say)?;
    let ones = graph.one(Fill { value: 1.0, ty: Type::f32(shape) }, &[]).map_err(say)?;
    let multiplier = graph.one(ApplyMask, &[ones, keep, scale]).map_err(say)?;
    let mut outputs = vec![("keep", keep), ("mult", multiplier)];
    let mut given = vec![(seeds, "seed")];
    if golden.has(&name("x")) && golden.has(&name("gy")) {
        let x = graph.in_arena("x", "x", Type::f32(shape), true);
        let gy = graph.input("gy", Type::f32(shape));
        let y = drop_blocks_at(&mut graph, x, seeds, block).map_err(say)?;
        let gradients = backward_from(&mut graph, &[(y, gy)]).map_err(say)?;
        outputs.extend([("y", y), ("gx", gradients[&x])]);
        given.extend([(x, "x"), (gy, "gy")]);
    }
    outputs.iter().for_each(|&(_, id)| graph.keep(id));
    let executor = Executor::new(kernels, &mut Arenas::new(), graph).map_err(say)?;
    for (id, part) in given {
        executor.write(id, golden.data(&name(part))?).map_err(say)?;
    }
    executor.submit();
    outputs.retain(|(part, _)| golden.has(&name(part)));
    outputs.into_iter().map(|(part, id)| Ok((name(part), executor.read(id).map_err(say)?))).collect()
}
