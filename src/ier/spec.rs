//! What shapes a training step, and what the host gives it.

use crate::nn::NetSpec;
use crate::settings::{DistillConfig, MethodConfig, OptimiserConfig};
use crate::tape::{Graph, Type, ValueId};

/// Everything that shapes a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// The network that is trained.
    pub net: NetSpec,
    /// Images of a batch.
    pub batch: usize,
    /// Micro-batches that a batch is split into, each with forward and backward passes of its own.
    pub parts: usize,
    /// Transformed copies of each image.
    pub copies: usize,
    /// Rows of the memory bank: training images.
    pub bank_rows: usize,
    /// Contrastive negatives of a step.
    pub negatives: usize,
    /// The losses and their weights.
    pub method: MethodConfig,
    /// What the optimiser does.
    pub optimiser: OptimiserConfig,
    /// With a teacher, which has the same network: how much it counts.
    pub distill: Option<DistillConfig>,
}

impl StepSpec {
    /// Images of one forward pass: of the batch, or of a micro-batch. No parts count as one.
    pub fn images(&self) -> usize {
        self.batch / self.parts.max(1)
    }

    /// Rows of one forward pass.
    pub fn rows(&self) -> usize {
        self.images() * self.copies
    }
}

/// Values that the host writes before a step. `x` comes from the view generator or from the host.
#[derive(Clone, Debug)]
pub struct StepInputs {
    /// Transformed images [copies images, 3, s, s]; row m images + i is image i under transform m.
    pub x: ValueId,
    /// Class of each row.
    pub classes: ValueId,
    /// Transform of each row.
    pub transforms: ValueId,
    /// Training image of each batch slot: rows of the bank.
    pub index: ValueId,
    /// Bank rows that serve as negatives.
    pub negatives: ValueId,
    /// The step block.
    pub step: ValueId,
    /// The memory bank.
    pub bank: ValueId,
}

impl StepInputs {
    /// Declares the inputs in the graph; `x` was made before.
    pub fn declare(graph: &mut Graph, spec: &StepSpec, x: ValueId, step: ValueId, index: ValueId) -> Self {
        let rows = spec.rows();
        let width = spec.net.projection.unwrap_or(1);
        StepInputs {
            x,
            classes: graph.input("classes", Type::u32([rows])),
            transforms: graph.input("transforms", Type::u32([rows])),
            index,
            negatives: graph.input("negatives", Type::u32([spec.negatives.max(1)])),
            step,
            bank: graph.input("bank", Type::f32([spec.bank_rows, width])),
        }
    }
}
