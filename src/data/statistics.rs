//! What a set of images says about the settings that suit it: numbers measured over its pixels and classes.

use super::ImageSet;

/// Numbers of a training set.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Images.
    pub images: usize,
    /// Classes.
    pub classes: usize,
    /// Images of the smallest and of the largest class.
    pub per_class: (usize, usize),
    /// Side of the images, pixels.
    pub side: usize,
    /// The pictures' own shorter side, where it was looked at.
    pub original_side: Option<usize>,
    /// Mean of each channel, images in 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each channel over all pixels, images in 0..1.
    pub std: [f64; 3],
    /// Whether every pixel has equal channels.
    pub gray: bool,
    /// Share of the pixels that are about as bright as most of them are: within a sixteenth of the brightest.
    pub ground: f64,
}

impl Statistics {
    /// Measures all pixels. Sums are of whole numbers, so they are exact and the same everywhere.
    pub fn of(data: &ImageSet) -> Statistics {
        let (mut sums, mut squares, mut gray) = ([0_u64; 3], [0_u64; 3], true);
        let mut levels = [0_u64; 256];
        for word in &data.pixels {
            let [r, g, b, _] = word.to_le_bytes();
            gray &= r == g && g == b;
            levels[usize::from(g)] += 1;
            for (channel, value) in [r, g, b].into_iter().enumerate() {
                sums[channel] += u64::from(value);
                squares[channel] += u64::from(value) * u64::from(value);
            }
        }
        let n = data.pixels.len().max(1) as f64;
        let mean = sums.map(|sum| sum as f64 / n / 255.0);
        let of_squares = squares.map(|sum| sum as f64 / n / (255.0 * 255.0));
        let std = [0, 1, 2].map(|channel| (of_squares[channel] - mean[channel] * mean[channel]).max(0.0).sqrt());
        let most = (0..levels.len()).rev().max_by_key(|&level| levels[level]).unwrap_or(0);
        let near = &levels[most.saturating_sub(16)..(most + 17).min(levels.len())];
        let sizes: Vec<usize> = data.by_class().iter().map(Vec::len).collect();
        let ends = (sizes.iter().min().copied().unwrap_or(0), sizes.iter().max().copied().unwrap_or(0));
        Statistics {
            images: data.len(),
            classes: data.n_classes(),
            per_class: ends,
            side: data.side,
            original_side: data.original_side,
            mean,
            std,
            gray,
            ground: near.iter().sum::<u64>() as f64 / n,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_pixels() {
        let word = |r: u8, g: u8, b: u8| u32::from_le_bytes([r, g, b, 255]);
        let pixels = vec![word(0, 51, 255), word(255, 51, 0), word(0, 51, 0), word(255, 51, 255)];
        let names = vec!["a".into(), "b".into(), "c".into(), "d".into()];
        let set = ImageSet::new(1, pixels, vec![0, 1, 1, 1], vec!["x".into(), "y".into()], names).unwrap();
        let statistics = Statistics::of(&set);
        let near = |a: [f64; 3], b: [f64; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near(statistics.mean, [0.5, 0.2, 0.5]) && near(statistics.std, [0.5, 0.0, 0.5]), "{statistics:?}");
        assert_eq!((statistics.images, statistics.classes, statistics.per_class), (4, 2, (1, 3)));
        assert!(!statistics.gray && statistics.ground == 1.0, "all have the same green");
        let halves = ImageSet::new(
            1,
            vec![word(0, 0, 0), word(16, 16, 16), word(40, 40, 40), word(0, 0, 0)],
            vec![0, 1, 1, 1],
            vec!["x".into(), "y".into()],
            ["a", "b", "c", "d"].map(String::from).to_vec(),
        )
        .unwrap();
        assert_eq!(Statistics::of(&halves).ground, 0.75);
        let gray = ImageSet::new(1, vec![word(7, 7, 7)], Vec::new(), Vec::new(), vec!["a".into()]).unwrap();
        assert!(Statistics::of(&gray).gray);
    }
}
