//! Matrix units: found, compared with the twin and timed where a run asks for them.

use std::time::Duration;

use crate::error::Change;
use crate::gpu::adapter::describe;
use crate::gpu::kernel::Kernels;
use crate::gpu::matrix_unit::MatrixUnit;
use crate::ops::check::find_matrix_unit;
use crate::ops::conv2d::Conv2d;
use crate::ops::factors::Factors;
use crate::progress::Progress;
use crate::settings::Matrix;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::passes::Passes;
use crate::tape::{Graph, Type};
use crate::train::record::factors;
use crate::{Error, Result};

/// Where the tuning keeps whether units are faster on a device: `on` or `off`.
const SITE: &str = "run.matrix";

/// Lets `kernels` use a matrix unit of their device as `matrix` says. `auto` uses one that gives right numbers and is faster,
/// which is measured once where the tuning is kept.
///
/// # Errors
/// [`Error::Conflict`] where the device has none and the setting is not `auto`.
pub fn begin(kernels: &mut Kernels, matrix: Matrix, progress: &mut dyn Progress) -> Result<()> {
    let is_auto = matrix == Matrix::Auto;
    let known = kernels.tuning().chosen.get(SITE).map(|answer| answer == "on").filter(|_| is_auto);
    if matrix == Matrix::Off || known == Some(false) {
        return Ok(());
    }
    let Some(unit) = find(kernels, progress)? else {
        let why = match kernels.gpu().matrix_units() {
            [] => "has no matrix units that the engine can use (Vulkan with VK_KHR_cooperative_matrix, or Metal)",
            _ => "has matrix units, but none that gives right numbers",
        };
        let why = format!("{} {why}", describe(kernels.gpu().info()));
        if is_auto {
            progress.note(&format!("run.matrix = off: {why}"));
            return Ok(());
        }
        let changes = vec![Change::Set("run.matrix", "off".into())];
        return Err(Error::Conflict { keys: vec!["run.matrix"], why, changes });
    };
    if known == Some(true) {
        progress.note(&format!("matrix units of {unit}: right numbers, and measured before to be faster"));
        return Ok(());
    }
    let [plain, by_units] = [None, factors(matrix.resolved(true))].map(|factors| time(kernels, factors));
    let share = by_units?.as_secs_f64() / plain?.as_secs_f64();
    let found = format!("matrix units of {unit}: right numbers, a convolution in {share:.2} of its time in f32");
    let pays = share < 1.0;
    if is_auto {
        let tuning = kernels.tuning_mut();
        tuning.chosen.insert(SITE.into(), if pays { "on" } else { "off" }.into());
        tuning.measured.insert(SITE.into());
    }
    if is_auto && !pays {
        kernels.use_matrix_unit(None);
        progress.note(&format!("run.matrix = off: {found}"));
    } else {
        progress.note(&found);
    }
    Ok(())
}

/// Finds the unit of a device that is right, and says what is wrong with others.
pub(super) fn find(kernels: &mut Kernels, progress: &mut dyn Progress) -> Result<Option<MatrixUnit>> {
    let found = find_matrix_unit(kernels)?;
    found.wrong.iter().for_each(|wrong| progress.note(&format!("a matrix unit is not used: {wrong}")));
    Ok(found.right)
}

/// The shortest of a few times that a convolution of a middle block takes, many times in a row.
fn time(kernels: &mut Kernels, matrix: Option<Factors>) -> Result<Duration> {
    const RUNS: usize = 5;
    // A GPU needs more than one submission's worth of work to be measured; a software adapter is slow enough.
    let (images, times) = if kernels.gpu().is_software() { (4, 1) } else { (64, 8) };
    let mut graph = Graph::new();
    let x = graph.in_arena("x", "x", Type::f32([images, 160, 21, 21]), false);
    let weight = graph.in_arena("weight", "weight", Type::f32([160, 160, 3, 3]), false);
    for _ in 0..times {
        let y = graph.one(Conv2d::new(1, 1), &[x, weight])?;
        graph.keep(y);
    }
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
