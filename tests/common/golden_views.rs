//! The view generator and DropBlock on the device compared with PyTorch's numbers. What a case holds decides what is
//! computed.

use ieq_wgpu::ier::spec::StepSpec;
use ieq_wgpu::ops::dropout::{ApplyMask, DropBlockKeep, KeepScale, drop_blocks_at};
use ieq_wgpu::ops::elementwise::Fill;
use ieq_wgpu::ops::views::{Colour, PARAMETER_WORDS, ViewParameters, Views};
use ieq_wgpu::tape::backward::backward_from;
use ieq_wgpu::tape::{Graph, Type, ValueId};

use super::golden::Golden;
use super::golden_cases::{Bench, Computed, say, setting};

/// Runs the operation on float images; `index` says which image each slot takes.
fn run_views(
    images: &[f32],
    shape: &[usize],
    index: &[usize],
    op: Views,
    parameters: &[ViewParameters],
    bench: &mut Bench,
) -> Result<Vec<f32>, String> {
    let mut graph = Graph::new();
    let pixels = graph.input("images", Type::u32(shape));
    let taken = graph.input("index", Type::u32([index.len()]));
    let words = graph.input("parameters", Type::u32([parameters.len(), PARAMETER_WORDS]));
    let x = graph.one(op, &[pixels, taken, words]).map_err(say)?;
    let given = [
        (pixels, images.iter().map(|v| f64::from(v.to_bits())).collect()),
        (taken, index.iter().map(|&image| image as f64).collect()),
        (words, parameters.iter().flat_map(ViewParameters::words).map(f64::from).collect()),
    ];
    Ok(bench.run(graph, &given, &[x])?.remove(0))
}

const RAW: Views = Views { views: 1, rotations: 1, padding: 0, float_images: true, mean: [0.0; 3], std: [1.0; 3] };

/// `base`, the windows `v{n}` at rows `t{n}` and columns `l{n}`, and the jitter orders `jit{digits}`: one
/// execution with as many views.
pub fn augmented(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let name = |part: &str| format!("{case}.{part}");
    let shape = golden.shape(&name("x"))?;
    let &[batch, _, _, side] = shape else { return Err(format!("x has shape {shape:?} and is no batch of images")) };
    let (padding, long) = (setting(golden, case, "pad")? as usize, setting(golden, case, "c")? as usize);
    let crops = [golden.indices(&name("dy"))?, golden.indices(&name("dx"))?];
    let factors = [golden.data(&name("fb"))?, golden.data(&name("fc"))?, golden.data(&name("fs"))?];
    let optional = |part: String| -> Result<Option<Vec<u32>>, String> {
        if golden.has(&part) { golden.indices(&part).map(Some) } else { Ok(None) }
    };
    let prefix = name("");
    let is_output = |part: &&str| {
        let digits = |start: &str| part.strip_prefix(start).is_some_and(|rest| rest.parse::<u32>().is_ok());
        *part == "base" || digits("v") || digits("jit")
    };
    let outputs: Vec<&str> =
        golden.tensors.keys().filter_map(|full| full.strip_prefix(&prefix)).filter(is_output).collect();
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
                        _ => return Err(format!("{output} is no order of brightness 0, contrast 1, saturation 2")),
                    };
                }
                ViewParameters { order, ..base }
            } else {
                let number = output.trim_start_matches('v');
                let (top, left) = (optional(name(&format!("t{number}")))?, optional(name(&format!("l{number}")))?);
                let extent = |offset: &Option<Vec<u32>>| if offset.is_some() { long } else { side };
                let start = |offset: &Option<Vec<u32>>| offset.as_ref().map_or(0, |o| o[slot] as usize);
                base.resized(side, [start(&top), start(&left)], [extent(&top), extent(&left)])
            });
        }
    }
    let op = Views { views: outputs.len(), padding, ..RAW };
    let all: Vec<usize> = (0..batch).collect();
    let x = run_views(golden.data(&name("x"))?, shape, &all, op, &parameters, bench)?;
    Ok(outputs
        .iter()
        .zip(x.chunks(x.len() / outputs.len()))
        .map(|(part, got)| (part.to_string(), got.to_vec()))
        .collect())
}

/// The rotations of `view0`, then of `view1`, ... In a file without cases the case is empty.
pub fn copies(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let prefix = if case.is_empty() { String::new() } else { format!("{case}.") };
    let mut rows = Vec::new();
    for view in (0..).map(|v| format!("{prefix}view{v}")).take_while(|v| golden.has(v)) {
        let shape = golden.shape(&view)?;
        let &[batch, _, _, side] = shape else { return Err(format!("{view} has shape {shape:?}")) };
        let parameters = vec![ViewParameters::identity(side, 0); batch];
        let (all, op): (Vec<usize>, _) = ((0..batch).collect(), Views { rotations: 4, ..RAW });
        rows.extend(run_views(golden.data(&view)?, shape, &all, op, &parameters, bench)?);
    }
    Ok(vec![("x".to_owned(), rows)])
}

/// The rows of `image` that a step shows, each turned as `transform_ids` says.
pub fn drawn_rows(golden: &Golden, spec: &StepSpec, bench: &mut Bench) -> Result<Vec<f32>, String> {
    let shape = golden.shape("image")?;
    let &[_, _, _, side] = shape else { return Err(format!("image has shape {shape:?}")) };
    let slots: Vec<usize> = spec.slots().collect();
    let turned = |turns| ViewParameters { turns, ..ViewParameters::identity(side, 0) };
    let parameters: Vec<_> = golden.indices("transform_ids")?.into_iter().map(turned).collect();
    run_views(golden.data("image")?, shape, &slots, RAW, &parameters, bench)
}

/// From `seed`: `keep`, its `mult`iplier and `scale` and, where they are there, `y` and `gx` of `x` and `gy`.
pub fn drop_blocks(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let name = |part: &str| format!("{case}.{part}");
    let (seed_shape, shape) = (golden.shape(&name("seed"))?, golden.shape(&name("keep"))?);
    let (&[.., corners], &[.., side]) = (seed_shape, shape) else {
        return Err(format!("seed has shape {seed_shape:?}, keep {shape:?}"));
    };
    let block = (side + 1).checked_sub(corners).ok_or("there are more seeds than cells")?;
    let mut graph = Graph::new();
    let seeds = graph.input("seeds", Type::f32(seed_shape));
    let keep = graph.one(DropBlockKeep { block }, &[seeds]).map_err(say)?;
    let scale = graph.one(KeepScale, &[keep]).map_err(say)?;
    let ones = graph.one(Fill { value: 1.0, ty: Type::f32(shape) }, &[]).map_err(say)?;
    let multiplier = graph.one(ApplyMask, &[ones, keep, scale]).map_err(say)?;
    let mut outputs = vec![("keep", keep), ("scale", scale), ("mult", multiplier)];
    let mut given = vec![(seeds, "seed")];
    if golden.has(&name("x")) && golden.has(&name("gy")) {
        let x = graph.in_arena("x", "x", Type::f32(shape), true);
        let gy = graph.input("gy", Type::f32(shape));
        let y = drop_blocks_at(&mut graph, x, seeds, block).map_err(say)?;
        let gradients = backward_from(&mut graph, &[(y, gy)]).map_err(say)?;
        outputs.extend([("y", y), ("gx", gradients[&x])]);
        given.extend([(x, "x"), (gy, "gy")]);
    }
    let numbers = |part: &str| -> Result<Vec<f64>, String> {
        Ok(golden.data(&name(part))?.iter().map(|&v| f64::from(v)).collect())
    };
    let given = given.into_iter().map(|(id, part)| Ok((id, numbers(part)?))).collect::<Result<Vec<_>, String>>()?;
    let (parts, ids): (Vec<&str>, Vec<ValueId>) = outputs.into_iter().unzip();
    let computed = bench.run(graph, &given, &ids)?;
    Ok(parts.into_iter().map(str::to_owned).zip(computed).collect())
}
