//! The step of a phase on a device: its executor, that of the optimiser where the batch is split, and what is read back.

use super::exchange::Exchange;
use super::limit_submission_time;
use super::record::RecordedStep;
use crate::Result;
use crate::gpu::clock::Clock;
use crate::gpu::kernel::Kernels;
use crate::ier::spec::StepSpec;
use crate::ier::step::record_update;
use crate::ranks::Ranks;
use crate::settings::Config;
use crate::tape::Graph;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::readback::Readback;

/// The step of a phase on a device.
pub(super) struct Stage {
    pub(super) spec: StepSpec,
    pub(super) recorded: RecordedStep,
    pub(super) executor: Executor,
    /// Health, losses and accuracy, in this order.
    pub(super) metrics: Readback,
    /// The optimiser, where the batch is split and the executor's graph is the step of a micro-batch.
    pub(super) update: Option<Executor>,
    /// What the ranks do with micro-batches that they share.
    pub(super) exchange: Option<Exchange>,
}

impl Stage {
    /// Puts a recorded step on the device of `kernels`.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when it does not fit the device.
    pub(super) async fn new_async(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        (spec, graph, recorded): (StepSpec, Graph, RecordedStep),
        config: &Config,
        clock: Option<Clock>,
        ranks: Option<&Ranks>,
    ) -> Result<Stage> {
        let mut executor = Executor::new_async(kernels, arenas, graph).await?;
        limit_submission_time(&mut executor, config, clock);
        let update = match spec.parts {
            1 => None,
            _ => {
                let graph = record_update(executor.graph(), &recorded.step, &spec)?;
                Some(Executor::new_async(kernels, arenas, graph).await?)
            }
        };
        let exchange = match ranks {
            Some(ranks) => Some(Exchange::new_async(kernels, arenas, &executor, (&spec, &recorded), ranks).await?),
            None => None,
        };
        let step = &recorded.step;
        let scalars: Vec<_> = [step.health].into_iter().chain(step.losses.iter().map(|(_, id)| *id)).collect();
        let metrics = Readback::new_async(&executor, &[scalars, vec![step.accuracy]].concat()).await?;
        Ok(Stage { spec, recorded, executor, metrics, update, exchange })
    }
}
