//! The step block: the few words that change from step to step, which the host writes before each.
//!
//! [`StepBlock`] is its only layout. `shaders/common/step_block.wgsl` declares the same struct for the shaders that read
//! it (`sgd`, `dropout`, `accumulate`, `average`), and a test compares the two member by member.

use bytemuck::{Pod, Zeroable};

use super::case::{Elements, Input};
use super::{Host, shape};
use crate::Result;
use crate::tape::Type;

/// What a step is told by the host: a `u32` input of [`StepBlock::WORDS`] words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct StepBlock {
    /// Counter of the random masks: the step, or with micro-batches the number of the pass.
    pub draw: u32,
    /// Lower half of the run's seed.
    pub seed_low: u32,
    /// Upper half of the run's seed.
    pub seed_high: u32,
    /// Learning rate of the optimiser.
    pub learning_rate: f32,
    /// DropBlock's 1 - keep.
    pub drop_rate: f32,
    /// Number of the micro-batch in its step, from 0.
    pub part: u32,
    /// Number of the step in its run, from 0.
    pub step: u32,
    /// Free, 0.
    pub unused: u32,
}

impl StepBlock {
    /// Words of the block.
    pub const WORDS: usize = size_of::<StepBlock>() / size_of::<u32>();

    /// The block of a step that is one micro-batch.
    pub fn new(draw: u32, seed: u64, learning_rate: f32, drop_rate: f32) -> Self {
        StepBlock {
            draw,
            seed_low: seed as u32,
            seed_high: (seed >> 32) as u32,
            learning_rate,
            drop_rate,
            step: draw,
            ..StepBlock::default()
        }
    }

    /// The same block for micro-batch `part`, from 0.
    pub fn part(self, part: u32) -> Self {
        StepBlock { part, ..self }
    }

    /// The same block at step `step` of its run, where its masks are counted otherwise.
    pub fn at(self, step: u32) -> Self {
        StepBlock { step, ..self }
    }

    /// The run's seed.
    pub fn seed(&self) -> u64 {
        u64::from(self.seed_low) | u64::from(self.seed_high) << 32
    }

    /// The words as the device gets them.
    pub fn words(&self) -> [u32; Self::WORDS] {
        bytemuck::cast(*self)
    }

    /// The type of the input.
    pub fn ty() -> Type {
        Type::u32([Self::WORDS])
    }

    /// Fails unless an operation's input is a step block.
    pub(super) fn check(op: &'static str, ty: &Type) -> Result<()> {
        let [words] = shape::words(op, ty, "the step block")?;
        shape::same(op, "the step block", &[words], &[Self::WORDS])
    }

    /// The block as a twin gets it.
    pub(super) fn of(host: &Host) -> Self {
        let mut words = [0; Self::WORDS];
        words.iter_mut().zip(host.data).for_each(|(word, &value)| *word = value as u32);
        bytemuck::cast(words)
    }

    /// The block as the input of a case.
    pub(super) fn input(self) -> Input {
        Input::integers([Self::WORDS], Elements::Values(self.words().map(f64::from).to_vec()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::gpu::shader::{SOURCES, find};
    use naga::{Scalar, TypeInner};
    use std::mem::offset_of;

    /// The members as Rust lays them out.
    const MEMBERS: [(&str, Scalar, usize); 7] = [
        ("draw", Scalar::U32, offset_of!(StepBlock, draw)),
        ("seed_low", Scalar::U32, offset_of!(StepBlock, seed_low)),
        ("seed_high", Scalar::U32, offset_of!(StepBlock, seed_high)),
        ("learning_rate", Scalar::F32, offset_of!(StepBlock, learning_rate)),
        ("drop_rate", Scalar::F32, offset_of!(StepBlock, drop_rate)),
        ("part", Scalar::U32, offset_of!(StepBlock, part)),
        ("step", Scalar::U32, offset_of!(StepBlock, step)),
    ];

    /// Every shader that reads a step block has it as the struct that Rust has.
    #[test]
    fn shaders_lay_the_step_block_out_as_rust_does() {
        let mut readers = Vec::new();
        for (file, text) in SOURCES.iter().filter(|(file, _)| !file.starts_with("common/")) {
            let module = naga::front::wgsl::parse_str(&find(file).unwrap().text).unwrap();
            let block = |inner: &TypeInner| -> Option<Vec<(String, Scalar, usize)>> {
                let TypeInner::Struct { members, .. } = inner else { return None };
                let scalar =
                    |ty| if let TypeInner::Scalar(scalar) = module.types[ty].inner { Some(scalar) } else { None };
                members.iter().map(|m| Some((m.name.clone()?, scalar(m.ty)?, m.offset as usize))).collect()
            };
            for (_, variable) in module.global_variables.iter().filter(|(_, v)| v.binding.is_some()) {
                let (ty, name) = (&module.types[variable.ty], variable.name.as_deref().unwrap_or_default());
                if ty.name.as_deref() != Some("StepBlock") {
                    assert!(!name.starts_with("step"), "{file}: {name} is a step block of its own");
                    continue;
                }
                let members = block(&ty.inner).unwrap();
                let members: Vec<_> = members.iter().map(|(name, ty, at)| (name.as_str(), *ty, *at)).collect();
                assert_eq!(members[..MEMBERS.len()], MEMBERS, "{file}");
                assert_eq!(module.types[variable.ty].inner.size(module.to_ctx()) as usize, size_of::<StepBlock>());
                readers.push(*file);
            }
            assert_eq!(text.contains("#import common/step_block"), readers.last() == Some(file), "{file}");
        }
        assert_eq!(readers, ["accumulate", "average", "dropout", "sgd"]);
    }

    #[test]
    fn words_are_the_members_in_order() {
        let block = StepBlock::new(7, 1 << 40 | 3, 0.05, 0.1).part(2);
        assert_eq!(block.words(), [7, 3, 1 << 8, 0.05_f32.to_bits(), 0.1_f32.to_bits(), 2, 7, 0]);
        assert_eq!(block.at(5).words()[6], 5);
        assert_eq!(block.seed(), 1 << 40 | 3);
        let data = block.words().map(f64::from);
        assert_eq!(StepBlock::of(&Host { shape: &[StepBlock::WORDS], data: &data }), block);
    }
}
