//! The memory bank's host side: its first rows, and the negatives of a step.

use std::collections::VecDeque;

use rand_distr::{Distribution, StandardNormal};

use crate::random::{Rng, Stream};

/// The bank rows that a step contrasts with: min(`k`, rows outside the batch) distinct indices below `n`,
/// uniform without replacement, none of them in `batch`. A pure function of its arguments.
pub fn negatives(seed: u64, step: u32, n: usize, batch: &[u32], k: usize) -> Vec<u32> {
    let mut excluded: Vec<usize> = batch.iter().map(|&row| row as usize).filter(|&row| row < n).collect();
    excluded.sort_unstable();
    excluded.dedup();
    let left = n - excluded.len();
    // The number of rows of the pool before each excluded row: pool row j comes after as many excluded
    // rows as there are entries up to j.
    let before: Vec<usize> = excluded.iter().enumerate().map(|(i, row)| row - i).collect();
    let mut rng = Rng::new(seed, Stream::Negatives, step, 0);
    rand::seq::index::sample(&mut rng, left, k.min(left))
        .iter()
        .map(|j| (j + before.partition_point(|&b| b <= j)) as u32)
        .collect()
}

/// As [`negatives`], of the rows in `pool`, which are distinct; `k` of those outside the batch, or all.
pub fn negatives_among(seed: u64, step: u32, pool: &[u32], batch: &[u32], k: usize) -> Vec<u32> {
    let mut excluded = batch.to_vec();
    excluded.sort_unstable();
    let mut left: Vec<u32> = pool.iter().copied().filter(|row| excluded.binary_search(row).is_err()).collect();
    if left.len() <= k {
        return left;
    }
    let mut rng = Rng::new(seed, Stream::Negatives, step, 0);
    left = rand::seq::index::sample(&mut rng, left.len(), k).iter().map(|i| left[i]).collect();
    left
}

/// Which bank rows have been written, and when: a function of the batches so far.
#[derive(Clone, Debug)]
pub struct BankHistory {
    /// Number of the last write of each row, from 1; 0 for none.
    last_write: Vec<u64>,
    /// Rows and numbers of their writes, oldest first; some of them have been written again since.
    writes: VecDeque<(u32, u64)>,
    count: u64,
    recent: usize,
}

impl BankHistory {
    /// A bank of `rows` rows, none of them written; [`BankHistory::recent`] is to find `recent` of them.
    pub fn new(rows: usize, recent: usize) -> Self {
        BankHistory { last_write: vec![0; rows], writes: VecDeque::new(), count: 0, recent }
    }

    /// Notes that these rows are written, in this order. A row beyond the bank is left out.
    pub fn write(&mut self, batch: &[u32]) {
        for &row in batch {
            if let Some(last) = self.last_write.get_mut(row as usize) {
                self.count += 1;
                *last = self.count;
                self.writes.push_back((row, self.count));
            }
        }
    }

    /// Whether the row has been written.
    pub fn is_written(&self, row: u32) -> bool {
        self.last_write.get(row as usize).is_some_and(|&write| write > 0)
    }

    /// The most recently written rows, the last one first. Forgets those before them.
    pub fn recent(&mut self) -> Vec<u32> {
        let mut rows = Vec::new();
        let mut from = self.writes.len();
        while from > 0 && rows.len() < self.recent {
            from -= 1;
            let (row, write) = self.writes[from];
            if self.last_write[row as usize] == write {
                rows.push(row);
            }
        }
        self.writes.drain(..from);
        // Where fewer rows are written than wanted, all are looked at: those that were written again since do not count.
        if self.writes.len() > 2 * self.last_write.len() {
            let last_write = &self.last_write;
            self.writes.retain(|&(row, write)| last_write.get(row as usize) == Some(&write));
        }
        rows
    }
}

/// The first bank: `n` random rows of length one in `d` dimensions, row-major.
pub fn bank_init(seed: u64, n: usize, d: usize) -> Vec<f32> {
    let mut bank = Vec::with_capacity(n * d);
    for row in 0..n {
        let mut rng = Rng::new(seed, Stream::Bank, 0, row as u32);
        let values: Vec<f64> = (0..d).map(|_| StandardNormal.sample(&mut rng)).collect();
        let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt() + 1e-6;
        bank.extend(values.iter().map(|v| (v / norm) as f32));
    }
    bank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_are_distinct_and_outside_the_batch() {
        for (n, batch, k) in [
            (10, vec![0, 9, 4], 7),
            (10, vec![3, 2, 3], 100),
            (1000, (100..164).collect(), 50),
            (450_000, (0..64).map(|i| i * 7_000).collect(), 6400),
            (5, vec![0, 1, 2, 3, 4], 3),
            (6, vec![], 6),
        ] {
            let mut drawn = negatives(3, 8, n, &batch, k);
            assert_eq!(drawn, negatives(3, 8, n, &batch, k));
            let distinct: std::collections::HashSet<u32> = batch.iter().copied().collect();
            assert_eq!(drawn.len(), k.min(n - distinct.len()));
            drawn.sort_unstable();
            assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(drawn.iter().all(|row| !distinct.contains(row) && (*row as usize) < n));
        }
    }

    #[test]
    fn every_row_outside_the_batch_is_equally_likely() {
        let mut counts = [0_u32; 12];
        for step in 0..6000 {
            for row in negatives(1, step, 12, &[2, 7, 11], 3) {
                counts[row as usize] += 1;
            }
        }
        for (row, &count) in counts.iter().enumerate() {
            // Expected 2000 with a standard deviation of 37.
            let wanted = if [2, 7, 11].contains(&row) { count == 0 } else { count.abs_diff(2000) < 180 };
            assert!(wanted, "{counts:?}");
        }
    }

    #[test]
    fn a_bank_knows_its_recent_rows() {
        let mut history = BankHistory::new(50, 12);
        let mut writes: Vec<u32> = Vec::new();
        assert!(history.recent().is_empty());
        for step in 0..200_u32 {
            let batch: Vec<u32> = (0..5).map(|i| (step * 7 + i * i * 3) % 40).collect();
            history.write(&batch);
            writes.extend(&batch);
            let mut wanted: Vec<u32> = Vec::new();
            for &row in writes.iter().rev() {
                if !wanted.contains(&row) && wanted.len() < 12 {
                    wanted.push(row);
                }
            }
            if step % 3 == 0 {
                assert_eq!(history.recent(), wanted);
                let next = [wanted[0], 49, wanted[3]];
                for k in [1, 4, 100] {
                    let drawn = negatives_among(1, step, &wanted, &next, k);
                    assert_eq!(drawn, negatives_among(1, step, &wanted, &next, k));
                    assert_eq!(drawn.len(), k.min(wanted.len() - 2));
                    assert!(drawn.iter().all(|row| wanted.contains(row) && !next.contains(row)));
                }
            }
            assert!((0..50).all(|row| history.is_written(row) == writes.contains(&row)));
        }
    }

    /// A bank with fewer rows than are wanted: nothing is too old, and the list stays short all the same.
    #[test]
    fn the_list_of_writes_stays_bounded() {
        let mut history = BankHistory::new(20, 1024);
        let mut writes: Vec<u32> = Vec::new();
        for step in 0..500_u32 {
            let batch = [step % 20, step * 3 % 20, step * 7 % 20];
            history.write(&batch);
            writes.extend(batch);
            let mut wanted: Vec<u32> = Vec::new();
            for &row in writes.iter().rev() {
                if !wanted.contains(&row) {
                    wanted.push(row);
                }
            }
            assert_eq!(history.recent(), wanted);
            assert!(history.writes.len() <= 40, "{} after step {step}", history.writes.len());
        }
    }

    #[test]
    fn bank_rows_have_length_one_and_differ() {
        let bank = bank_init(5, 50, 64);
        for row in bank.chunks(64) {
            let norm: f32 = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-5);
        }
        assert_ne!(bank[..64], bank[64..128]);
        assert_eq!(bank[..640], bank_init(5, 10, 64)[..]);
    }
}
