//! What the host gives a pass besides its pixels and the step block: functions of (seed, step) and the batch.

use crate::ier::losses::NO_NEGATIVE;
use crate::ier::negatives::{BankHistory, negatives, negatives_among};
use crate::ier::spec::StepSpec;
use crate::ier::transforms::ViewSampler;

/// The rows of a pass: a part of a batch.
pub struct Rows {
    /// The slot in the pass whose image each row shows.
    pub slots: Vec<usize>,
    /// The transform that each row shows it under.
    pub transforms: Vec<u32>,
    /// The parameter words of the views.
    pub view_words: Vec<u32>,
}

impl Rows {
    /// Those of part `part` of the batch of `step`.
    pub fn new(spec: &StepSpec, sampler: &ViewSampler, step: u32, part: usize) -> Rows {
        let images = spec.images();
        let (first, slots) = (part * images, spec.slots().collect::<Vec<_>>());
        if !spec.drawn {
            return Rows {
                transforms: (0..slots.len()).map(|row| (row / images) as u32).collect(),
                view_words: sampler.parameters_of(step, first..first + images),
                slots,
            };
        }
        let count = spec.copies.saturating_sub(1);
        let drawn: Vec<_> = (0..spec.viewed).map(|slot| sampler.further(step, first + slot, count)).collect();
        let further = (0..count).flat_map(|set| drawn.iter().map(move |of_image| of_image[set] as u32));
        let transforms: Vec<u32> = std::iter::repeat_n(0, images).chain(further).collect();
        let shown = slots.iter().zip(&transforms);
        let view_words = shown.flat_map(|(&slot, &m)| sampler.under(step, first + slot, m as usize).words()).collect();
        Rows { slots, transforms, view_words }
    }

    /// What the class head is to say of each row, the pass's images having these classes of `classes`.
    pub fn labels(&self, spec: &StepSpec, of_images: &[u32]) -> Vec<u32> {
        let rotations = spec.class_rotations as u32;
        let classes = (spec.net.n_classes / spec.class_rotations.max(1)) as u32;
        let label = |(&slot, &m): (&usize, &u32)| of_images[slot] + classes * (m % rotations.max(1));
        self.slots.iter().zip(&self.transforms).map(label).collect()
    }

    /// Which images the views are made of, an entry for each set of parameter words of one view: `of_images` says which
    /// stored image each slot has.
    pub fn view_index(&self, spec: &StepSpec, of_images: impl Fn(usize) -> u32) -> Vec<u32> {
        let shown = if spec.drawn { self.slots.len() } else { spec.images() };
        self.slots[..shown].iter().map(|&slot| of_images(slot)).collect()
    }
}

/// The bank rows that a step contrasts with.
pub struct Negatives {
    /// As many rows as the step has places for.
    pub rows: Vec<u32>,
    /// Where only recent rows count: 0 for each of them, [`NO_NEGATIVE`] for a place that is left over.
    pub counted: Vec<f32>,
}

impl Negatives {
    /// Those of `step`, whose batch is `batch`; none of them is in it.
    pub fn new(spec: &StepSpec, seed: u64, step: u32, batch: &[u32], history: Option<&mut BankHistory>) -> Negatives {
        let Some(history) = history else {
            return Negatives {
                rows: negatives(seed, step, spec.bank_rows, batch, spec.negatives),
                counted: Vec::new(),
            };
        };
        let mut rows = negatives_among(seed, step, &history.recent(), batch, spec.negatives);
        let places = spec.negatives.max(1);
        let mut counted = vec![0.0; rows.len()];
        counted.resize(places, NO_NEGATIVE);
        rows.resize(places, 0);
        Negatives { rows, counted }
    }
}

/// Which rows of a pass count in the contrastive loss: of its images those that the bank knows, and all further views.
pub fn counted_rows(spec: &StepSpec, history: &BankHistory, images: &[u32]) -> Vec<f32> {
    let known = images.iter().map(|&image| if history.is_written(image) { 1.0 } else { 0.0 });
    known.chain(std::iter::repeat(1.0)).take(spec.rows()).collect()
}
