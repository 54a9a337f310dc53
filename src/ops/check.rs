//! Compares every operation, forward and backward, with its f64 twin on a device, and the twins' gradients with finite
//! differences. The `check` command and the tests run the same cases.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

pub use super::case::{Case, Elements, Input};
pub use super::cases;
use super::matrix;
use crate::gpu::Launch;
use crate::gpu::kernel::{Kernels, Region};
use crate::gpu::matrix_unit::MatrixUnit;
use crate::tape::backward::backward_from;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::{Element, Graph, Node, Type, ValueId, twin};
use crate::{Error, Result};

impl Case {
    /// The graph of the case, forward and backward.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inputs do not fit.
    pub fn graph(&self) -> Result<Graph> {
        Ok(self.record()?.graph)
    }

    /// The launches of that graph.
    ///
    /// # Errors
    /// As [`Case::graph`].
    pub fn launches(&self) -> Result<Vec<Launch<ValueId>>> {
        let graph = self.graph()?;
        Ok(graph.nodes.iter().flat_map(|node| super::launches(&graph, node)).collect())
    }

    /// The graph of the case, forward and backward, and the host's values for it.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inputs do not fit.
    fn record(&self) -> Result<Recorded> {
        let mut graph = Graph::new();
        let mut values = HashMap::new();
        let ids: Vec<ValueId> = self
            .inputs
            .iter()
            .enumerate()
            .map(|(i, input)| {
                let name = format!("input {i}");
                let id = graph.in_arena(&name, name.clone(), input.ty.clone(), input.grad);
                values.insert(id, input.numbers(i));
                id
            })
            .collect();
        let operation = self.op.operation();
        if operation.in_place() {
            let types: Vec<Type> = self.inputs.iter().map(|i| i.ty.clone()).collect();
            let n = operation.outputs(&types)?.len();
            let (read, targets) = ids.split_at(ids.len() - n);
            graph.update(self.op.clone(), read, targets)?;
            return Ok(Recorded { graph, values, outputs: Vec::new(), ids, gradients: HashMap::new() });
        }
        let outputs = graph.apply(self.op.clone(), &ids)?;
        if self.half {
            graph.values[outputs[0].0 as usize].ty.element = Element::F16;
        }
        let mut gradients = HashMap::new();
        if self.inputs.iter().any(|i| i.grad) {
            // Only the first output carries a gradient: the others are saved statistics or workspace.
            let y = outputs[0];
            let dy = Input::normal(graph.shape(y).to_vec());
            let seed = graph.in_arena("upstream", "upstream", dy.ty.clone(), false);
            values.insert(seed, dy.numbers(99));
            gradients = backward_from(&mut graph, &[(y, seed)])?;
        }
        Ok(Recorded { graph, values, outputs, ids, gradients })
    }
}

struct Recorded {
    graph: Graph,
    values: HashMap<ValueId, Vec<f64>>,
    outputs: Vec<ValueId>,
    ids: Vec<ValueId>,
    gradients: HashMap<ValueId, ValueId>,
}

/// The worst relative error of one case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the case.
    pub name: String,
    /// Largest `|device - twin| / max |twin|` over all outputs of all nodes; NaN when anything is not finite,
    /// infinite when a kernel wrote past the end of a tensor.
    pub error: f64,
    /// What was allowed.
    pub tolerance: f64,
    /// The tensor with the largest error.
    pub worst: String,
    /// All numbers that were compared.
    pub made: Vec<f64>,
}

impl Outcome {
    /// Whether the error is within the tolerance. NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Whether `error` replaces `worst`: a NaN does, and is never replaced.
fn worse(error: f64, worst: f64) -> bool {
    !worst.is_nan() && (error.is_nan() || error > worst)
}

/// Runs a case on the device and compares everything that every node made with the twin, and the bytes
/// behind every tensor with the canaries that were there before.
///
/// # Errors
/// [`Error::Device`] when the device fails, [`Error::Shape`] when the case is malformed.
pub async fn run_async(case: &Case, kernels: &mut Kernels) -> Result<Outcome> {
    run_changed_async(case, kernels, &|launch| launch, None).await
}

/// As [`run_async`]; blocks.
///
/// # Errors
/// As [`run_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn run(case: &Case, kernels: &mut Kernels) -> Result<Outcome> {
    pollster::block_on(run_async(case, kernels))
}

/// As [`run`], with every launch changed first: a test breaks one to see that the outcome fails.
///
/// # Errors
/// As [`run`].
#[doc(hidden)]
#[cfg(not(target_arch = "wasm32"))]
pub fn run_changed(
    case: &Case,
    kernels: &mut Kernels,
    change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
) -> Result<Outcome> {
    pollster::block_on(run_changed_async(case, kernels, change, None))
}

async fn run_changed_async(
    case: &Case,
    kernels: &mut Kernels,
    change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
    // Compare only what is made by nodes that may run at this shader and entry point.
    only: Option<(&str, &str)>,
) -> Result<Outcome> {
    let Recorded { graph, mut values, .. } = case.record()?;
    let given: Vec<(ValueId, Vec<f64>)> = values.iter().map(|(k, v)| (*k, v.clone())).collect();
    twin::run(&graph, &mut values)?;
    let is_compared = |node: &&Node| {
        only.is_none_or(|(shader, entry)| super::launches(&graph, node).iter().any(|own| may_run(own, shader, entry)))
    };
    let mut made: Vec<ValueId> = graph.nodes.iter().filter(is_compared).flat_map(|n| n.outputs.clone()).collect();
    made.retain(|id| values.contains_key(id));
    let executor = Executor::with_canaries_async(kernels, &mut Arenas::new(), graph, change).await?;
    for (id, data) in &given {
        executor.write_f64_async(*id, data).await?;
    }
    executor.submit_async().await?;
    let (name, tolerance) = (case.name.clone(), case.tolerance);
    let mut outcome = Outcome { name, error: 0.0, tolerance, worst: String::new(), made: Vec::new() };
    if let Some(&id) = executor.overrun_async().await?.first() {
        outcome.error = f64::INFINITY;
        outcome.worst = format!("what follows {}", executor.graph().value(id).name);
    }
    for id in made {
        let (got, wanted) = (executor.read_f64_async(id).await?, &values[&id]);
        let scale = wanted.iter().fold(1e-30_f64, |m, v| m.max(v.abs()));
        for (g, w) in got.iter().zip(wanted) {
            let error = (g - w).abs() / scale;
            if worse(error, outcome.error) {
                outcome.error = error;
                outcome.worst = executor.graph().value(id).name.clone();
            }
        }
        outcome.made.extend(got);
    }
    Ok(outcome)
}

/// Whether a launch may run at an entry point.
fn may_run(launch: &Launch<ValueId>, shader: &str, entry: &str) -> bool {
    let mut entries = launch.alternatives.iter().map(|other| other.entry).chain([launch.entry]);
    launch.shader == shader && entries.any(|own| own == entry)
}

/// The most cases by which an entry point is verified.
const VERIFIED_BY: usize = 2;

/// Compares what the entry point of `launch` makes with the twin, by cases in which a launch may run at it: those with the
/// constants of `launch`, whose pipeline `kernels` have by now, or where there are none, others. Of a case only that counts
/// which such a launch made, for others may be wrong. What no case has, as a shader of the caller's own, counts as right.
/// It is a [`Verify`](crate::gpu::kernel::Verify).
///
/// # Errors
/// As [`run_async`].
pub fn verify<'k>(
    kernels: &'k mut Kernels,
    launch: &'k Launch<Region>,
) -> Pin<Box<dyn Future<Output = Result<bool>> + 'k>> {
    Box::pin(async move {
        let (mut alike, mut others) = (Vec::new(), Vec::new());
        for case in cases() {
            let launches = case.launches()?;
            let Some(own) = launches.iter().find(|own| may_run(own, launch.shader, launch.entry)) else { continue };
            let choices = own.choices(kernels.budget(), true);
            if choices.iter().any(|own| own.entry == launch.entry && own.constants == launch.constants) {
                alike.push(case)
            } else {
                others.push(case)
            }
            if alike.len() == VERIFIED_BY {
                break;
            }
        }
        let found = if alike.is_empty() { others } else { alike };
        for case in found.iter().take(VERIFIED_BY) {
            let only = Some((launch.shader, launch.entry));
            if !run_changed_async(case, kernels, &|launch| launch, only).await?.passed() {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// The least elements of the first input of a case by which a matrix unit is tried: more than one tile.
const TRIED_ELEMENTS: usize = 4096;

/// What was found out about a device's matrix units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixUnits {
    /// The unit that is right, and now in use.
    pub right: Option<MatrixUnit>,
    /// What is wrong with those that were tried before it, a sentence each.
    pub wrong: Vec<String>,
}

/// Finds the first of the device's matrix units whose numbers are right, and lets `kernels` use it: products, whose factors do
/// not commute, and convolutions with their gradients, each compared with the twin, and each twice with the same bits.
///
/// # Errors
/// [`Error::DeviceLost`] and the like, where the device fails altogether.
pub async fn find_matrix_unit_async(kernels: &mut Kernels) -> Result<MatrixUnits> {
    let of_units = |case: &Case| case.launches().is_ok_and(|all| all.iter().any(|own| own.shader == matrix::SHADER));
    let mut tried = cases();
    tried.retain(|case| case.inputs.first().is_some_and(|x| x.ty.len() >= TRIED_ELEMENTS) && of_units(case));
    let mut found = MatrixUnits::default();
    for unit in kernels.gpu().clone().matrix_units() {
        kernels.use_matrix_unit(Some(*unit));
        let mut wrong = None;
        for case in &tried {
            match fault_of(case, kernels).await {
                Ok(None) => {}
                Ok(fault) => {
                    wrong = fault;
                    break;
                }
                Err(error) => {
                    // Nobody goes on with a unit that was not tried.
                    kernels.use_matrix_unit(None);
                    return Err(error);
                }
            }
        }
        match wrong {
            Some(wrong) => found.wrong.push(format!("{unit}: {wrong}")),
            None => {
                found.right = Some(*unit);
                return Ok(found);
            }
        }
    }
    kernels.use_matrix_unit(None);
    Ok(found)
}

/// As [`find_matrix_unit_async`]; blocks.
///
/// # Errors
/// As [`find_matrix_unit_async`].
#[cfg(not(target_arch = "wasm32"))]
pub fn find_matrix_unit(kernels: &mut Kernels) -> Result<MatrixUnits> {
    pollster::block_on(find_matrix_unit_async(kernels))
}

/// What is wrong with a case that is run twice: that it does not compile, wrong numbers, or other bits the second time.
async fn fault_of(case: &Case, kernels: &mut Kernels) -> Result<Option<String>> {
    let mut bits: Option<Vec<u64>> = None;
    for _ in 0..2 {
        let outcome = match run_async(case, kernels).await {
            Ok(outcome) => outcome,
            Err(error @ (Error::Device(_) | Error::Shader { .. })) => {
                kernels.gpu().check()?;
                return Ok(Some(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        if !outcome.passed() {
            let Outcome { name, error, tolerance, .. } = outcome;
            return Ok(Some(format!("{name} is off by {error:.1e}, allowed {tolerance:.1e}")));
        }
        let own = outcome.made.iter().map(|value| value.to_bits()).collect();
        if bits.is_some_and(|before| before != own) {
            return Ok(Some(format!("{} gives other bits the second time", case.name)));
        }
        bits = Some(own);
    }
    Ok(None)
}

/// Compares the twin's gradients with central differences of the twin's forward pass; returns the worst
/// relative error over a sample of elements of every input with a gradient.
///
/// # Errors
/// [`Error::Shape`] when the case is malformed.
pub fn finite_differences(case: &Case) -> Result<f64> {
    const STEP: f64 = 1e-5;
    let Recorded { graph, mut values, outputs, ids, gradients } = case.record()?;
    if gradients.is_empty() {
        return Ok(0.0);
    }
    let given = values.clone();
    twin::run(&graph, &mut values)?;
    let seed = Input::normal(graph.shape(outputs[0]).to_vec()).numbers(99);
    let objective = |changed: ValueId, data: Vec<f64>| -> Result<f64> {
        let mut forward = graph.clone();
        forward.nodes.truncate(1);
        let mut inputs = given.clone();
        inputs.insert(changed, data);
        twin::run(&forward, &mut inputs)?;
        Ok(inputs[&outputs[0]].iter().zip(&seed).map(|(y, dy)| y * dy).sum())
    };
    let mut worst = 0.0_f64;
    for (input, &id) in case.inputs.iter().zip(&ids) {
        if !input.grad {
            continue;
        }
        let Some(gradient) = gradients.get(&id).map(|g| &values[g]) else {
            return Err(Error::Internal(format!("{}: no gradient for an input that wants one", case.name)));
        };
        let scale = gradient.iter().fold(1e-12_f64, |m, v| m.max(v.abs()));
        let n = input.ty.len();
        let stride = (n / 24).max(1);
        for i in (0..n).step_by(stride) {
            let mut moved = given[&id].clone();
            moved[i] += STEP;
            let up = objective(id, moved.clone())?;
            moved[i] -= 2.0 * STEP;
            let down = objective(id, moved)?;
            let error = ((up - down) / (2.0 * STEP) - gradient[i]).abs() / scale;
            if worse(error, worst) {
                worst = error;
            }
        }
    }
    Ok(worst)
}
