//! The very episodes that the method's authors score on: those of NumPy's legacy generator with the episode's number as its
//! seed, drawn in the order of their code.

use super::ImageSet;
use super::episodes::{Episode, shortage};
use crate::{Error, Result};

/// Words of the generator's state.
const N: usize = 624;
/// How far apart the words are that are mixed.
const M: usize = 397;

/// MT19937 (Matsumoto, Nishimura 1998), seeded as `numpy.random.seed` does with one number.
struct Mt19937 {
    state: [u32; N],
    at: usize,
}

impl Mt19937 {
    fn new(seed: u32) -> Mt19937 {
        let mut state = [seed; N];
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { state, at: N }
    }

    fn next(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number from 0 to `most`, as NumPy's legacy shuffle draws it: bits until one is not too large.
    fn up_to(&mut self, most: u32) -> u32 {
        let mask = u32::MAX.checked_shr(most.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next() & mask;
            if value <= most {
                return value;
            }
        }
    }

    /// `numpy.random.choice(items, n, replace=False)`: the first of a shuffled list.
    fn choice<T: Copy>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut order: Vec<T> = items.to_vec();
        for i in (1..order.len()).rev() {
            order.swap(i, self.up_to(i as u32) as usize);
        }
        order.truncate(n);
        order
    }
}

/// The first `n` episodes of the method's authors' evaluation. Classes stand in the order in which their first images do, and
/// images in that of the data.
///
/// # Errors
/// [`Error::Usage`] where there is a [`shortage`].
pub fn official(images: &ImageSet, ways: usize, shots: usize, queries: usize, n: u32) -> Result<Vec<Episode>> {
    if let Some(why) = shortage(images, ways, shots, queries) {
        return Err(Error::usage(format!("{why}; choose fewer shots, or another split or other data")));
    }
    let mut by_class = images.by_class();
    by_class.sort_by_key(|own| own.first().copied());
    Ok((0..n).map(|seed| episode(&by_class, ways, shots, queries, seed)).collect())
}

/// Of classes that suffice.
fn episode(by_class: &[Vec<u32>], ways: usize, shots: usize, queries: usize, seed: u32) -> Episode {
    let rng = &mut Mt19937::new(seed);
    let (mut support, mut query) = (Vec::with_capacity(ways * shots), Vec::with_capacity(ways * queries));
    let classes: Vec<usize> = (0..by_class.len()).collect();
    for class in rng.choice(&classes, ways) {
        let images = &by_class[class];
        let drawn = rng.choice(images, shots);
        let others: Vec<u32> = images.iter().copied().filter(|image| !drawn.contains(image)).collect();
        query.extend(rng.choice(&others, queries));
        support.extend(drawn);
    }
    Episode { support, query, ways, shots, queries }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.seed(5489); numpy.random.randint(0, 2**32, 3, dtype=numpy.uint32)`, which are MT19937's first published
    /// numbers.
    #[test]
    fn the_generator_is_mt19937() {
        let mut rng = Mt19937::new(5489);
        assert_eq!([rng.next(), rng.next(), rng.next()], [3_499_211_612, 581_869_302, 3_890_346_734]);
        assert!((3..1000).all(|_| rng.next() > 0));
        // The 10,000th, which the C++ standard names.
        let mut rng = Mt19937::new(5489);
        assert_eq!((0..10_000).map(|_| rng.next()).last(), Some(4_123_659_995));
        assert_eq!(rng.up_to(0), 0);
    }
}
