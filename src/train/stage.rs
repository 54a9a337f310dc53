//! The step of a phase on a device: its executor, that of the optimiser where the batch is split, and what is read back.

use super::exchange::Exchange;
use super::joint::Joint;
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
    /// The executors of the further micro-batches that this process computes beside the first, where it computes them at once.
    pub(super) beside: Vec<Executor>,
    /// How it does.
    pub(super) joint: Option<Joint>,
    /// The optimiser, where the batch is split and the executor's graph is the step of a micro-batch.
    pub(super) update: Option<Executor>,
    /// What the ranks do with micro-batches that they share.
    pub(super) exchange: Option<Exchange>,
}

impl Stage {
    /// Puts a recorded step on the device of `kernels`. `beside` are the arenas of further micro-batches that are computed at
    /// once.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when it does not fit the device.
    pub(super) async fn new_async(
        kernels: &mut Kernels,
        (arenas, beside): (&mut Arenas, &mut [Arenas]),
        (spec, graph, recorded): (StepSpec, Graph, RecordedStep),
        config: &Config,
        clock: Option<Clock>,
        ranks: Option<&Ranks>,
    ) -> Result<Stage> {
        let mut executor = Executor::new_async(kernels, arenas, graph).await?;
        limit_submission_time(&mut executor, config, clock);
        let (mut others, mut joint) = (Vec::new(), None);
        if spec.is_joined() {
            let more = spec.parts_of(ranks.map_or(1, Ranks::size)) - 1;
            for arenas in beside.iter_mut().take(more) {
                let mut other = Executor::new_async(kernels, arenas, executor.graph().clone()).await?;
                limit_submission_time(&mut other, config, clock);
                others.push(other);
            }
            joint = Some(Joint::new_async(&[&executor].into_iter().chain(&others).collect::<Vec<_>>()).await?);
        }
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
        Ok(Stage { spec, recorded, executor, beside: others, joint, metrics, update, exchange })
    }

    /// The executor of each micro-batch that is computed at once, or the one.
    pub(super) fn executors(&self) -> Vec<&Executor> {
        [&self.executor].into_iter().chain(&self.beside).collect()
    }
}
