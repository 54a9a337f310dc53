//! Counter-based random numbers: every draw is a pure function of (seed, stream, counter).
//!
//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011);
//! `shaders/common/philox.wgsl` is the same function on the device. A resumed run needs no generator
//! state: the step number is the counter.

use std::convert::Infallible;

/// The purpose of a draw: separates the streams of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Crops, windows, jitter and flips of the training views.
    Views = 1,
    /// Dropout keep masks.
    Dropout = 2,
    /// DropBlock seeds.
    DropBlock = 3,
    /// Contrastive negatives.
    Negatives = 4,
    /// Order of the training images in an epoch.
    Order = 5,
    /// Initial weights.
    Weights = 6,
    /// Initial memory bank.
    Bank = 7,
    /// Few-shot episodes.
    Episodes = 8,
    /// The embedded glyph data set.
    Glyphs = 9,
    /// Splits made by seed.
    Split = 10,
    /// The fixed warps of the affine and projective transform sets.
    Warps = 11,
    /// Support augmentation in the evaluation.
    Support = 12,
    /// The transforms that an image is shown under, where they are not all of the set.
    Transforms = 13,
}

/// One Philox4x32-10 block: 128 counter bits and 64 key bits to 128 random bits.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const M0: u64 = 0xD251_1F53;
    const M1: u64 = 0xCD9E_8D57;
    let (mut c, mut k) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        let (p0, p1) = (M0 * u64::from(c[0]), M1 * u64::from(c[2]));
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

/// Uniform in [0, 1) from the upper 24 bits; the same arithmetic as on the device.
pub fn unit_f32(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A sequence of draws for one (seed, stream, step, item): a view over the counter space, cheap to make.
///

#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Rng {
    /// The sequence that belongs to (`seed`, `stream`, `step`, `item`).
    pub fn new(seed: u64, stream: Stream, step: u32, item: u32) -> Self {
        Rng { key: [seed as u32, (seed >> 32) as u32], counter: [0, item, step, stream as u32], block: [0; 4], used: 4 }
    }

    /// The next 32 random bits.
    pub fn next_bits(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        unit_f32(self.next_bits())
    }
}

/// Gives `rand`'s samplers, shuffles and distributions to the sequence.
impl rand::TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.next_bits())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.next_bits()) | u64::from(self.next_bits()) << 32)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_bits().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the Random123 distribution.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_sequence_depends_on_every_coordinate() {
        let draw = |seed, stream, step, item| Rng::new(seed, stream, step, item).next_bits();
        let base = draw(1, Stream::Views, 2, 3);
        for other in [
            draw(2, Stream::Views, 2, 3),
            draw(1 << 32, Stream::Views, 2, 3),
            draw(1, Stream::Order, 2, 3),
            draw(1, Stream::Views, 3, 3),
            draw(1, Stream::Views, 2, 4),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, draw(1, Stream::Views, 2, 3));
    }
}
