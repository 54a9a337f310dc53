//! What can be said of a picture without a network: fingerprints, size, contrast, sharpness, and a small gray copy that
//! tells near copies.

use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Side of the small copy.
const SMALL: usize = 32;
/// A picture is measured with at most this many pixels on its shorter side.
const MEASURED: u32 = 512;
/// Pixels by which near copies may be shifted in the small copy.
const SHIFT: isize = 2;
/// The largest distance of the mean colours of near copies, as shares of red, green and blue.
const COLOUR: f32 = 0.06;

/// What was seen of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// A hash of the file.
    pub file: u128,
    /// A hash of width, height and pixels.
    pub pixels: u128,
    /// Width and height.
    pub size: (u32, u32),
    /// Standard deviation of the gray levels, 0 to 127.5.
    pub contrast: f32,
    /// Sharpness: the variance of the Laplacian over that of the gray levels; 0 without contrast.
    pub sharpness: f32,
    /// Shares of red, green and blue in the mean colour.
    colour: [f32; 3],
    /// The picture squeezed to 32 x 32 gray levels and smoothed by (1 2 1)/4 both ways.
    small: Vec<u8>,
}

fn mean_and_variance(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    (mean, values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / n)
}

/// Variance of the Laplacian of the inner pixels.
fn laplacian(gray: &GrayImage) -> f64 {
    let (width, height) = (gray.width() as usize, gray.height() as usize);
    if width < 3 || height < 3 {
        return 0.0;
    }
    let at = |x: usize, y: usize| f64::from(gray.as_raw()[y * width + x]);
    let values = (1..height - 1)
        .flat_map(|y| (1..width - 1).map(move |x| (x, y)))
        .map(|(x, y)| at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1) - 4.0 * at(x, y));
    mean_and_variance(values).1
}

/// Smoothed by (1 2 1)/4 both ways; the edge is repeated.
fn smoothed(small: &[u8]) -> Vec<u8> {
    let pass = |values: &[u16], step: usize, along: &dyn Fn(usize) -> usize| -> Vec<u16> {
        let taken = |i: usize| {
            let before = if along(i) == 0 { values[i] } else { values[i - step] };
            let after = if along(i) == SMALL - 1 { values[i] } else { values[i + step] };
            before + 2 * values[i] + after
        };
        (0..values.len()).map(taken).collect()
    };
    let values: Vec<u16> = small.iter().map(|&x| u16::from(x)).collect();
    let rows = pass(&values, 1, &|i| i % SMALL);
    let both = pass(&rows, SMALL, &|i| i / SMALL);
    both.into_iter().map(|x| ((x + 8) / 16) as u8).collect()
}

impl Look {
    /// Looks at a picture and the file that it came from.
    pub fn of(file: &[u8], picture: &RgbImage) -> Look {
        let mut pixels = Xxh3::new();
        pixels.update(&picture.width().to_le_bytes());
        pixels.update(&picture.height().to_le_bytes());
        pixels.update(picture.as_raw());
        let (width, height) = picture.dimensions();
        let gray = imageops::grayscale(picture);
        let small = imageops::resize(&gray, SMALL as u32, SMALL as u32, FilterType::Triangle);
        let shorter = width.min(height);
        let measured = if shorter > MEASURED {
            let scaled = |edge: u32| (u64::from(edge) * u64::from(MEASURED) / u64::from(shorter)) as u32;
            imageops::resize(&gray, scaled(width), scaled(height), FilterType::Triangle)
        } else {
            gray
        };
        let (_, variance) = mean_and_variance(measured.as_raw().iter().map(|&x| f64::from(x)));
        let sharpness = if variance > 0.0 { laplacian(&measured) / variance } else { 0.0 };
        let mut sums = [0u64; 3];
        for pixel in picture.pixels() {
            sums.iter_mut().zip(pixel.0).for_each(|(sum, x)| *sum += u64::from(x));
        }
        let all = sums.iter().sum::<u64>();
        Look {
            file: xxh3_128(file),
            pixels: pixels.digest128(),
            size: (width, height),
            contrast: variance.sqrt() as f32,
            sharpness: sharpness as f32,
            colour: sums.map(|sum| if all == 0 { 1.0 / 3.0 } else { (sum as f64 / all as f64) as f32 }),
            small: smoothed(small.as_raw()),
        }
    }

    /// 8 x 8 means of the small copy, less their mean: numbers whose cosine is large for near copies. None without contrast.
    pub fn outline(&self) -> Option<[f32; 64]> {
        const BLOCK: usize = SMALL / 8;
        let mut outline = [0.0; 64];
        for (at, &value) in self.small.iter().enumerate() {
            outline[at / SMALL / BLOCK * 8 + at % SMALL / BLOCK] += f32::from(value);
        }
        let mean = outline.iter().sum::<f32>() / 64.0;
        outline.iter_mut().for_each(|x| *x -= mean);
        outline.iter().any(|x| x.abs() > 1.0).then_some(outline)
    }

    /// Correlation of the small copies at the shift, of up to two pixels each way, where it is largest: 1 for equal ones,
    /// whatever their brightness and contrast. 0 where the colours differ or there is no contrast.
    pub fn likeness(&self, other: &Look) -> f32 {
        if self.colour.iter().zip(other.colour).any(|(a, b)| (a - b).abs() > COLOUR) {
            return 0.0;
        }
        let shifts = (-SHIFT..=SHIFT).flat_map(|y| (-SHIFT..=SHIFT).map(move |x| (x, y)));
        shifts.map(|(x, y)| correlation(&self.small, &other.small, x, y)).fold(0.0, f64::max) as f32
    }
}

/// Correlation of two small copies where they overlap, the second shifted.
fn correlation(a: &[u8], b: &[u8], x: isize, y: isize) -> f64 {
    let range = |shift: isize| (shift.max(0) as usize, (SMALL as isize + shift.min(0)) as usize);
    let ((left, right), (top, bottom)) = (range(x), range(y));
    let (mut n, mut sum_a, mut sum_b, mut aa, mut bb, mut ab) = (0u32, 0u32, 0u32, 0u32, 0u32, 0u32);
    for row in top..bottom {
        let of_a = &a[row * SMALL + left..row * SMALL + right];
        let start = ((row as isize - y) * SMALL as isize + left as isize - x) as usize;
        for (&p, &q) in of_a.iter().zip(&b[start..start + of_a.len()]) {
            let (p, q) = (u32::from(p), u32::from(q));
            (sum_a, sum_b) = (sum_a + p, sum_b + q);
            (aa, bb, ab) = (aa + p * p, bb + q * q, ab + p * q);
        }
        n += of_a.len() as u32;
    }
    let [n, sum_a, sum_b, aa, bb, ab] = [n, sum_a, sum_b, aa, bb, ab].map(f64::from);
    let (of_a, of_b) = (aa - sum_a * sum_a / n, bb - sum_b * sum_b / n);
    if of_a <= 0.0 || of_b <= 0.0 { 0.0 } else { (ab - sum_a * sum_b / n) / (of_a * of_b).sqrt() }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn drawing(shift: u32, seed: u32) -> RgbImage {
        RgbImage::from_fn(40, 40, |x, y| {
            let (x, y) = (x + shift, y + 2 * shift);
            let on = (x * x + y * seed) % 97 < 20 || (x * (seed + 3)) % 31 < 4;
            Rgb([if on { 220 } else { 20 }; 3])
        })
    }

    #[test]
    fn copies_are_alike_and_other_pictures_are_not() {
        let of = |picture: &RgbImage| Look::of(b"file", picture);
        let one = drawing(0, 5);
        let bright = RgbImage::from_fn(40, 40, |x, y| Rgb(one.get_pixel(x, y).0.map(|v| v / 2 + 30)));
        let large = imageops::resize(&one, 90, 90, FilterType::CatmullRom);
        assert!(of(&one).likeness(&of(&one)) > 0.999_9);
        assert!(of(&one).likeness(&of(&bright)) > 0.99);
        assert!(of(&one).likeness(&of(&large)) > 0.98);
        assert!(of(&one).likeness(&of(&drawing(0, 11))) < 0.9);
        let cosine = |a: &RgbImage, b: &RgbImage| {
            let (a, b) = (of(a).outline().unwrap_or([0.0; 64]), of(b).outline().unwrap_or([0.0; 64]));
            let dot = |a: &[f32; 64], b: &[f32; 64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
        };
        assert!(cosine(&one, &large) > 0.99 && cosine(&one, &bright) > 0.99 && cosine(&one, &drawing(0, 11)) < 0.9);
        let red = RgbImage::from_fn(40, 40, |x, y| Rgb([one.get_pixel(x, y).0[0], 10, 10]));
        assert_eq!(of(&one).likeness(&of(&red)), 0.0, "another colour");
        let flat = RgbImage::from_pixel(40, 40, Rgb([9; 3]));
        assert_eq!((of(&flat).contrast, of(&flat).sharpness, of(&flat).likeness(&of(&one))), (0.0, 0.0, 0.0));
        assert_eq!(of(&flat).outline(), None);
        assert!(of(&one).pixels == of(&one.clone()).pixels && of(&one).pixels != of(&bright).pixels);
        let blurred = imageops::blur(&one, 2.0);
        assert!(of(&blurred).sharpness < of(&one).sharpness / 10.0);
        // The smallest and the longest.
        for (width, height) in [(1, 1), (1, 3000), (2000, 2)] {
            let look = of(&RgbImage::from_pixel(width, height, Rgb([1, 2, 3])));
            assert_eq!((look.size, look.sharpness), ((width, height), 0.0));
        }
    }

    #[test]
    fn a_correlation_is_that_of_the_overlap() {
        // b is a shifted by (1, -2): pixel (x, y) of a is pixel (x - 1, y + 2) of b.
        let value = |x: isize, y: isize| ((x * 37 + y * 91 + x * y * 7).rem_euclid(251)) as u8;
        let all = |f: &dyn Fn(isize, isize) -> u8| -> Vec<u8> {
            (0..SMALL as isize).flat_map(|y| (0..SMALL as isize).map(move |x| (x, y))).map(|(x, y)| f(x, y)).collect()
        };
        let (a, b) = (all(&value), all(&|x, y| value(x + 1, y - 2)));
        assert!((correlation(&a, &b, 1, -2) - 1.0).abs() < 1e-12);
        assert!(correlation(&a, &b, 0, 0) < 0.5);
    }
}
