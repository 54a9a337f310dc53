//! One operation: compared with its twin at the timed size, then timed.

use serde::{Deserialize, Serialize};

use super::cases::{Case, Data};
use super::ceilings::{Bound, Ceilings};
use super::{Options, Spread, measure_async};
use crate::Result;
use crate::gpu::Launch;
use crate::gpu::kernel::Kernels;
use crate::gpu::profile::PassTimer;
use crate::ops::{Factors, Host};
use crate::tape::ValueId;
use crate::tape::exec::{Arenas, Executor};

/// One operation at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelResult {
    /// Name of the operation.
    pub name: String,
    /// Shapes of its inputs and of its result.
    pub shape: String,
    /// The first layer that has it.
    pub layer: String,
    /// Number of times that the step has it.
    pub count: usize,
    /// Floating-point operations of its products.
    pub flops: u64,
    /// Those that are executed for them; 0 in runs of earlier versions.
    #[serde(default)]
    pub executed: u64,
    /// How its products are computed: direct (out of registers), tiled (in workgroup memory), Winograd, matrix f16 or matrix
    /// f32x3. Empty where it has none.
    #[serde(default)]
    pub algorithm: String,
    /// The fewest bytes that it can move.
    pub bytes: u64,
    /// Dispatches.
    pub launches: usize,
    /// How it was compared with its twin, and the result.
    pub check: Check,
    /// Seconds; none where it was not timed.
    pub seconds: Option<Spread>,
    /// The ceiling that limits it.
    pub bound: Option<Bound>,
    /// The least time that this ceiling allows for what is executed, divided by the median time: 1 is perfect. None for
    /// products on matrix units, whose ceiling is not measured.
    pub share: Option<f64>,
}

/// A comparison with the twin, on the same buffers that are timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What of the outputs was compared.
    pub what: String,
    /// Whether anything was compared.
    pub made: bool,
    /// Largest difference, divided by the largest element of its tensor. None where nothing was compared, or where
    /// the difference is not a finite number; `made` and `passed` tell which.
    pub error: Option<f64>,
    /// What was allowed where the error was found.
    pub tolerance: f64,
    /// Whether all of it is within its tolerance.
    pub passed: bool,
}

impl Check {
    /// Whether a comparison was made and did not pass.
    pub fn failed(&self) -> bool {
        self.made && !self.passed
    }

    fn none(why: String) -> Self {
        Check { what: why, made: false, error: None, tolerance: 0.0, passed: false }
    }
}

/// Multiply-adds and elements that a twin computes per second, roughly.
const TWIN_PRODUCTS: f64 = 1.5e8;
const TWIN_ELEMENTS: f64 = 3e7;

/// A twin that takes longer than this, in seconds, is run on pieces of the result.
const WHOLE_SECONDS: f64 = 0.5;

/// A twin that takes longer than this, in seconds, and has no pieces is not run.
const MOST_SECONDS: f64 = 30.0;

/// Puts a case and its inputs on the device.
///
/// # Errors
/// [`crate::Error::Device`] when it does not fit.
pub async fn load_async(case: &Case, kernels: &mut Kernels) -> Result<(Executor, Vec<(ValueId, Data)>)> {
    let executor = Executor::new_async(kernels, &mut Arenas::new(), case.graph.clone()).await?;
    let data = case.data();
    for (id, data) in &data {
        match data {
            Data::F32(values) => executor.write_async(*id, values).await?,
            Data::U32(values) => executor.write_async(*id, values).await?,
        }
    }
    Ok((executor, data))
}

/// As [`load_async`]; blocks.
///
/// # Errors
/// As [`load_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn load(case: &Case, kernels: &mut Kernels) -> Result<(Executor, Vec<(ValueId, Data)>)> {
    pollster::block_on(load_async(case, kernels))
}

/// Checks and times one case.
///
/// # Errors
/// [`crate::Error::Device`] when the device refuses or fails.
pub async fn run_async(
    case: &Case,
    options: &Options,
    timer: &mut PassTimer,
    kernels: &mut Kernels,
    ceilings: Option<&Ceilings>,
) -> Result<KernelResult> {
    let (executor, data) = load_async(case, kernels).await?;
    let check = match options.check {
        true => check(case, &data, &executor).await?,
        false => Check::none("not asked for".into()),
    };
    let mut result = KernelResult {
        name: case.name.clone(),
        shape: case.shape.clone(),
        layer: case.layer.clone(),
        count: case.count,
        flops: case.cost.flops,
        executed: case.cost.executed,
        algorithm: algorithm(case, &executor).into(),
        bytes: case.cost.bytes,
        launches: executor.dispatches(),
        check,
        seconds: None,
        bound: None,
        share: None,
    };
    if let (Some(ceilings), false) = (ceilings, result.check.failed()) {
        let seconds = measure_async(timer, options.samples_of(0.0), &|pass| executor.encode(pass, 0..1)).await?;
        let (least, bound) = ceilings.least(result.executed, result.bytes, result.launches);
        result.seconds = Some(seconds);
        if case.op().operation().factors().is_none() {
            (result.bound, result.share) = (Some(bound), Some(least / seconds.median));
        }
    }
    Ok(result)
}

/// How the products of a case are computed on this device; empty where it has none.
fn algorithm(case: &Case, executor: &Executor) -> &'static str {
    if case.cost.flops == 0 {
        return "";
    }
    let in_memory = |launch: &Launch<ValueId>| {
        let tiled = launch.alternatives.iter().filter(|way| way.memory > 0);
        tiled
            .map(|way| format!("{}.{}", launch.shader, way.entry))
            .any(|label| executor.labels().any(|own| own == label))
    };
    let node = &case.graph.nodes[0];
    let tiled = || crate::ops::launches(&case.graph, node).iter().any(in_memory);
    node.op.operation().algorithm().unwrap_or_else(|| if tiled() { "tiled" } else { "direct" })
}

/// A tensor in the twin's numbers.
struct Tensor {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Tensor {
    /// Position `at` of an axis, which is kept with size 1.
    fn cut(&self, axis: usize, at: usize) -> Tensor {
        let size = self.shape[axis];
        let inner: usize = self.shape[axis + 1..].iter().product();
        let data = self.data.chunks(inner).skip(at).step_by(size).flatten().copied().collect();
        let mut shape = self.shape.clone();
        shape[axis] = 1;
        Tensor { shape, data }
    }
}

/// Runs the case once and compares its outputs with the twin's: all of them, or the first and last piece where the
/// twin would take long.
async fn check(case: &Case, data: &[(ValueId, Data)], executor: &Executor) -> Result<Check> {
    let node = &case.graph.nodes[0];
    let operation = node.op.operation();
    executor.submit_async().await?;
    let tensor = |id: &ValueId, data: Vec<f64>| Tensor { shape: case.graph.shape(*id).to_vec(), data };
    let given = |id: &ValueId| data.iter().find(|(given, _)| given == id).map_or(Vec::new(), |(_, d)| d.to_f64());
    let targets = if operation.in_place() { node.outputs.as_slice() } else { &[] };
    let inputs: Vec<Tensor> = node.inputs.iter().chain(targets).map(|id| tensor(id, given(id))).collect();
    let seconds = case.cost.flops as f64 / 2.0 / TWIN_PRODUCTS + case.cost.bytes as f64 / 4.0 / TWIN_ELEMENTS;
    let twin = |inputs: &[Tensor]| {
        let hosts: Vec<Host> = inputs.iter().map(|t| Host { shape: &t.shape, data: &t.data }).collect();
        operation.twin(&hosts)
    };
    let mut check = Check { what: String::new(), made: true, error: Some(0.0), tolerance: 0.0, passed: true };
    let longest = inputs.iter().map(|t| t.data.len()).max().unwrap_or(1);
    // The twin has the factors as they are.
    let rounded = 2.0 * operation.factors().map_or(0.0, Factors::rounding);
    let mut compare = |output: &Tensor, wanted: &[f64], n: usize| {
        let products = case.cost.flops as usize / 2 / n.max(1);
        compare(&mut check, &output.data, wanted, rounded + tolerance(products.max(longest / n.max(1))));
    };
    let read = async |id: &ValueId| -> Result<Tensor> { Ok(tensor(id, executor.read_f64_async(*id).await?)) };
    match operation.pieces() {
        Some(pieces) if seconds > WHOLE_SECONDS => {
            let mut outputs = Vec::new();
            for id in node.outputs.iter().take(pieces.outputs.len()) {
                outputs.push(read(id).await?);
            }
            let count = outputs[0].shape[pieces.outputs[0]];
            for at in [0, count - 1] {
                let axes = inputs.iter().zip(pieces.inputs);
                let cut: Vec<Tensor> = axes
                    .map(|(input, axis)| match axis {
                        Some(axis) => input.cut(*axis, at),
                        None => Tensor { shape: input.shape.clone(), data: input.data.clone() },
                    })
                    .collect();
                for ((output, axis), wanted) in outputs.iter().zip(pieces.outputs).zip(twin(&cut)) {
                    compare(&output.cut(*axis, at), &wanted, output.data.len());
                }
            }
            check.what = format!("first and last of {count} (axis {})", pieces.outputs[0]);
        }
        None if seconds > MOST_SECONDS => {
            return Ok(Check::none(format!("the twin would take {seconds:.0} s, and it has no pieces")));
        }
        _ => {
            for (id, wanted) in node.outputs.iter().zip(twin(&inputs)) {
                compare(&read(id).await?, &wanted, wanted.len());
            }
            check.what = "all".into();
        }
    }
    Ok(check)
}

/// The error of a sum of n terms in f32 is about sqrt(n) 2^-24 of its terms' size; that of exponentials, roots and
/// divisions of single elements a few 1e-6.
fn tolerance(terms: usize) -> f64 {
    1e-5 + 4.0 * (terms as f64).sqrt() / f64::from(1 << 24)
}

fn compare(check: &mut Check, got: &[f64], wanted: &[f64], tolerance: f64) {
    let scale = wanted.iter().fold(1e-30_f64, |most, v| most.max(v.abs()));
    let mut worst = if got.len() == wanted.len() { 0.0_f64 } else { f64::NAN };
    for (g, w) in got.iter().zip(wanted) {
        let error = (g - w).abs() / scale;
        if error.is_nan() || error > worst {
            worst = error;
        }
        if worst.is_nan() {
            break;
        }
    }
    if !(worst <= tolerance) {
        check.passed = false;
    }
    let relative = |error: Option<f64>, tolerance: f64| error.map_or(f64::INFINITY, |e| e / tolerance);
    if check.tolerance == 0.0
        || relative(Some(worst), tolerance) > relative(check.error, check.tolerance)
        || worst.is_nan()
    {
        check.error = worst.is_finite().then_some(worst);
        check.tolerance = tolerance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Check {
        Check { what: String::new(), made: true, error: Some(0.0), tolerance: 0.0, passed: true }
    }

    #[test]
    fn a_comparison_fails_on_errors_nan_and_lengths() {
        let mut check = fresh();
        compare(&mut check, &[1.0, 2.0], &[1.0, 2.000001], 1e-5);
        assert!(check.passed && !check.failed());
        for (got, wanted) in
            [(vec![1.0, 2.1], vec![1.0, 2.0]), (vec![f64::NAN], vec![1.0]), (vec![1.0], vec![1.0, 1.0])]
        {
            let mut check = fresh();
            compare(&mut check, &got, &wanted, 1e-5);
            assert!(check.failed(), "{got:?} {wanted:?}");
        }
    }

    #[test]
    fn a_cut_is_a_position_of_an_axis() {
        let tensor = Tensor { shape: vec![2, 3, 2], data: (0..12).map(f64::from).collect() };
        assert_eq!(tensor.cut(0, 1).data, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(tensor.cut(1, 2).data, [4.0, 5.0, 10.0, 11.0]);
        assert_eq!(tensor.cut(2, 0).shape, [2, 3, 1]);
    }

    /// An operation that convolves or multiplies says so: its speed, and the plan's count, follow from it.
    #[test]
    fn convolutions_and_products_count_their_arithmetic() {
        for case in crate::ops::check::cases() {
            let graph = case.graph().expect("the case is well formed");
            for node in &graph.nodes {
                let name = node.op.operation().name();
                if name.starts_with("conv2d.") || name == "matmul.product" {
                    assert!(crate::ops::cost(&graph, node).flops > 0, "{name} has no `cost` of its own");
                    assert!(node.op.operation().pieces().is_some(), "{name} has no `pieces`");
                }
            }
        }
    }

    /// What an operation declares as its pieces holds for its twin, for every case of every operation.
    #[test]
    fn pieces_of_a_twin_are_pieces_of_its_result() {
        let mut seen = std::collections::BTreeSet::new();
        for case in crate::ops::check::cases() {
            let graph = case.graph().expect("the case is well formed");
            for node in graph.nodes.iter().filter(|node| node.op.operation().pieces().is_some()) {
                let operation = node.op.operation();
                let Some(pieces) = operation.pieces() else { continue };
                let inputs: Vec<Tensor> = node
                    .inputs
                    .iter()
                    .map(|&id| {
                        let n = graph.value(id).ty.len();
                        let data = (0..n).map(|i| ((i * 37 + id.0 as usize * 11) % 101) as f64 - 50.0).collect();
                        Tensor { shape: graph.shape(id).to_vec(), data }
                    })
                    .collect();
                if inputs.iter().any(|t| t.data.len() > 20_000) {
                    continue;
                }
                let twin = |inputs: &[Tensor]| {
                    operation.twin(&inputs.iter().map(|t| Host { shape: &t.shape, data: &t.data }).collect::<Vec<_>>())
                };
                for ((id, axis), whole) in node.outputs.iter().zip(pieces.outputs).zip(twin(&inputs)) {
                    let whole = Tensor { shape: graph.shape(*id).to_vec(), data: whole };
                    let at = whole.shape[*axis] - 1;
                    let cut = |(t, axis): (&Tensor, &Option<usize>)| match axis {
                        Some(axis) => t.cut(*axis, at),
                        None => Tensor { shape: t.shape.clone(), data: t.data.clone() },
                    };
                    let part: Vec<Tensor> = inputs.iter().zip(pieces.inputs).map(cut).collect();
                    assert_eq!(twin(&part)[0], whole.cut(*axis, at).data, "{}", case.name);
                    seen.insert(operation.name());
                }
            }
        }
        assert!(seen.contains("conv2d.forward") && seen.contains("conv2d.backward_weight"), "{seen:?}");
    }
}
