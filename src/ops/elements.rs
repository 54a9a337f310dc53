//! Elements for cases and benchmarks.

use rand_distr::{Distribution, StandardNormal};

use crate::random::Rng;

/// How the elements of a tensor are made.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Normal with this mean and standard deviation.
    Normal(f64, f64),
    /// Uniform in this interval.
    Uniform(f64, f64),
    /// Integers in 0..bound.
    Below(u32),
    /// 1 with this probability, else 0.
    Mask(f64),
    /// A random permutation of n distinct values in [-0.5, 0.5): no ties, no kinks nearby.
    Permutation,
    /// These elements.
    Values(Vec<f64>),
}

impl Elements {
    /// `n` elements of this kind; [`Elements::Values`] are given as they are, however many there are.
    pub fn make(&self, n: usize, rng: &mut Rng) -> Vec<f64> {
        match self {
            Elements::Normal(mean, sd) => {
                (0..n).map(|_| mean + sd * Distribution::<f64>::sample(&StandardNormal, rng)).collect()
            }
            Elements::Uniform(low, high) => (0..n).map(|_| low + (high - low) * f64::from(rng.unit())).collect(),
            Elements::Below(bound) => (0..n).map(|_| f64::from(rng.next_bits() % bound.max(&1))).collect(),
            Elements::Mask(p) => (0..n).map(|_| f64::from(u8::from(f64::from(rng.unit()) < *p))).collect(),
            Elements::Permutation => {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by_cached_key(|_| rng.next_bits());
                order.into_iter().map(|v| (v as f64 + 0.25) / n as f64 - 0.5).collect()
            }
            Elements::Values(values) => values.clone(),
        }
    }
}
