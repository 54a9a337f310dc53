//! Matrix units: found, compared with the twin and timed where a run asks for them.

use std::time::Duration;

use crate::error::Change;
use crate::gpu::kernel::Kernels;
use crate::ops::check::find_matrix_unit;
use crate::ops::conv2d::Conv2d;
use crate::ops::factors::Factors;
use crate::progress::Progress;
use crate::settings::Matrix;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::passes::Passes;
use crate::tape::{Graph, Type};
use crate::{Error, Result};

/// Lets `kernels` use a matrix unit of their device as `matrix` says. `auto` uses one that gives right numbers and is faster.
///
/// # Errors
/// [`Error::Conflict`] where the device has none and the setting is not `auto`.
pub fn begin(kernels: &mut Kernels, matrix: Matrix, progress: &mut dyn Progress) -> Result<()> {
    if matrix == Matrix::Off {
        return Ok(());
    }
    let found = find_matrix_unit(kernels)?;
    found.wrong.iter().for_each(|wrong| progress.note(&format!("a matrix unit is not used: {wrong}")));
    let Some(unit) = found.right else {
        let why = match found.wrong.as_slice() {
            [] => "has no matrix units that the engine can use (Vulkan with VK_KHR_cooperative_matrix, or Metal)",
            _ => "has matrix units, but none that gives right numbers",
        };
        let why = format!("{} {why}", kernels.gpu().describe());
        if matrix == Matrix::Auto {
            progress.note(&format!("run.matrix = off: {why}"));
            return Ok(());
        }
        let changes = vec![Change::Set("run.matrix", "off".into())];
        return Err(Error::Conflict { keys: vec!["run.matrix"], why, changes });
    };
    let factors = if matrix == Matrix::F16 { Factors::F16 } else { Factors::F32x3 };
    let [plain, by_units] = [None, Some(factors)].map(|factors| time(kernels, factors));
    let share = by_units?.as_secs_f64() / plain?.as_secs_f64();
    let found = format!("matrix units of {unit}: right numbers, a convolution in {share:.2} of its time in f32");
    if matrix == Matrix::Auto && share >= 1.0 {
        kernels.use_matrix_unit(None);
        progress.note(&format!("run.matrix = off: {found}"));
    } else {
        progress.note(&found);
    }
    Ok(())
}

/// The shortest of a few times that a convolution of a middle block takes.
fn time(kernels: &mut Kernels, matrix: Option<Factors>) -> Result<Duration> {
    const RUNS: usize = 5;
    let mut graph = Graph::new();
    let x = graph.in_arena("x", "x", Type::f32([16, 160, 21, 21]), false);
    let weight = graph.in_arena("weight", "weight", Type::f32([160, 160, 3, 3]), false);
    let y = graph.one(Conv2d::new(1, 1), &[x, weight])?;
    graph.keep(y);
    Passes { matrix, ..Passes::FUSE }.apply(&mut graph)?;
    let executor = Executor::new(kernels, &mut Arenas::new(), graph)?;
    let mut least = Duration::MAX;
    // The first execution may compile.
    for run in 0..=RUNS {
        let begun = crate::train::clock();
        let submission = executor.submit()?;
        executor.gpu().wait_for(&submission)?;
        if run > 0 {
            least = least.min(crate::train::clock().saturating_sub(begun));
        }
    }
    Ok(least)
}
