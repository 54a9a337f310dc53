//! What shapes a training step, and what the host gives it.

use super::losses::Counted;
use crate::nn::{Heads, NetSpec};
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
    /// Whether other ranks compute some of the micro-batches: then a pass leaves what it made for them to have.
    pub exchanged: bool,
    /// Whether batch norm has the statistics of the whole batch where it is split: then all micro-batches are computed at
    /// once.
    pub joined: bool,
    /// Views of an image, the plain one among them.
    pub copies: usize,
    /// Images of a pass that get more than the plain view: the first ones.
    pub viewed: usize,
    /// Whether the further views are drawn anew for each image and step; else they are all transforms, in order.
    pub drawn: bool,
    /// Rotations that the class head tells apart: transform m is rotation m mod this many. 1: classes alone.
    pub class_rotations: usize,
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

    /// Whether all micro-batches are computed at once, with the statistics of the whole batch.
    pub fn is_joined(&self) -> bool {
        self.joined && self.parts > 1
    }

    /// The micro-batches that each of `ranks` computes.
    pub fn parts_of(&self, ranks: usize) -> usize {
        (self.parts / ranks.max(1)).max(1)
    }

    /// The heads that the losses need, of those that the network has.
    pub fn heads(&self) -> Heads {
        let terms = self.method.terms();
        Heads { transform: terms.equivariance, invariant: terms.invariance }
    }

    /// Rows of one forward pass: its images plain, then one set after the other of further views.
    pub fn rows(&self) -> usize {
        self.images() + self.copies.saturating_sub(1) * self.viewed
    }

    /// The image, by its slot in the pass, that each row shows.
    pub fn slots(&self) -> impl Iterator<Item = usize> + use<> {
        let (images, viewed) = (self.images(), self.viewed.max(1));
        (0..self.rows()).map(move |row| row.checked_sub(images).map_or(row, |further| further % viewed))
    }
}

/// Values that the host writes before a step. `x` comes from the view generator or from the host.
#[derive(Clone, Debug)]
pub struct StepInputs {
    /// Views [rows, 3, s, s]: the images plain, then further views of the first of them, see [`StepSpec::slots`].
    pub x: ValueId,
    /// Class of each row; with joint labels class + classes * rotation.
    pub classes: ValueId,
    /// Transform of each row.
    pub transforms: ValueId,
    /// Training image of each batch slot: rows of the bank.
    pub index: ValueId,
    /// Bank rows that serve as negatives.
    pub negatives: ValueId,
    /// Where only recently written bank rows count: which rows of the pass and which negatives do.
    pub counted: Option<Counted>,
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
        let negatives = spec.negatives.max(1);
        let counted = spec.method.bank_recent.map(|_| Counted {
            rows: graph.input("counted rows", Type::f32([rows])),
            negatives: graph.input("counted negatives", Type::f32([negatives])),
        });
        StepInputs {
            x,
            classes: graph.input("classes", Type::u32([rows])),
            transforms: graph.input("transforms", Type::u32([rows])),
            index,
            negatives: graph.input("negatives", Type::u32([negatives])),
            counted,
            step,
            bank: graph.input("bank", Type::f32([spec.bank_rows, width])),
        }
    }
}
