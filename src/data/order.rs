//! The order of the training images.

use rand::seq::SliceRandom;

use crate::random::{Rng, Stream};

/// The permutation of `0..n` for one epoch: a pure function of the seed and the epoch.
pub fn epoch_order(seed: u64, epoch: u32, n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut Rng::new(seed, Stream::Order, epoch, 0));
    order
}

#[cfg(test)]
mod tests {
    use super::epoch_order;

    #[test]
    fn an_epoch_is_a_permutation_of_its_own() {
        let mut first = epoch_order(1, 0, 100);
        assert_eq!(first, epoch_order(1, 0, 100));
        assert_ne!(first, epoch_order(1, 1, 100));
        assert_ne!(first, epoch_order(2, 0, 100));
        first.sort_unstable();
        assert!(first.iter().copied().eq(0..100));
        assert!(epoch_order(1, 0, 0).is_empty());
    }
}
