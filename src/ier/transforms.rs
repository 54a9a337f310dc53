//! The transform sets, and the random numbers of a batch's views: pure functions of (seed, step, slot, view).

use std::ops::Range;

pub use crate::settings::TransformSet;

use crate::ops::views::{Colour, PARAMETER_WORDS, ViewParameters};
use crate::random::{Rng, Stream};

impl TransformSet {
    /// The fixed warps of the set in unit coordinates (both axes 0..1, output to source): none for the
    /// sets of windows and rotations. They depend on the seed alone; the first is the identity.
    ///
    /// Affine: rotation within 45 degrees, scale 0.7 to 1.4 (the source's side per the output's), shear
    /// within 0.3, translation within 0.15 sides. Projective: every corner moves within 0.2 sides along
    /// either axis, which keeps the source a convex quadrilateral. Of 32 draws the one is taken whose
    /// corners are farthest from those of all warps before it, so that no two are alike.
    pub fn warps(self, seed: u64) -> Vec<[f64; 9]> {
        const IDENTITY: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        const CANDIDATES: u32 = 32;
        let draw: fn(&mut Rng) -> [f64; 9] = match self {
            TransformSet::Affine(_) => affine,
            TransformSet::Projective(_) => projective,
            TransformSet::Rot4 | TransformSet::Crop4 | TransformSet::Rot4Crop4 => return Vec::new(),
        };
        let mut warps = vec![IDENTITY];
        for i in 1..self.views() as u32 {
            let mut rng = Rng::new(seed, Stream::Warps, 0, i);
            let mut best = (f64::NEG_INFINITY, IDENTITY);
            for _ in 0..CANDIDATES {
                let warp = draw(&mut rng);
                let nearest = warps.iter().map(|other| distance(&warp, other)).fold(f64::INFINITY, f64::min);
                if nearest > best.0 {
                    best = (nearest, warp);
                }
            }
            warps.push(best.1);
        }
        warps
    }
}

/// What else happens to a view, at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Whether an image is cropped at random from its zero-padded self; all its views share the crop.
    pub crop: bool,
    /// The jitter's factors are uniform in [1 - jitter, 1 + jitter]; 0 leaves the colours exactly as they are.
    pub jitter: f32,
    /// Whether a view is flipped with probability 1/2.
    pub flip: bool,
}

impl Default for Augmentation {
    fn default() -> Self {
        Augmentation { crop: true, jitter: 0.4, flip: true }
    }
}

impl Augmentation {
    /// Nothing at random but the windows.
    pub const NONE: Augmentation = Augmentation { crop: false, jitter: 0.0, flip: false };
}

/// Makes the parameter words of every step of a run.
#[derive(Clone, Debug)]
pub struct ViewSampler {
    set: TransformSet,
    side: usize,
    padding: usize,
    seed: u64,
    stream: Stream,
    augmentation: Augmentation,
    warps: Vec<[f32; 9]>,
}

impl ViewSampler {
    /// For images of `side` pixels, padded by the `padding` of the operation.
    pub fn new(set: TransformSet, side: usize, padding: usize, seed: u64, augmentation: Augmentation) -> Self {
        let warps = set.warps(seed).iter().map(|warp| in_pixels(warp, side)).collect();
        ViewSampler { set, side, padding, seed, stream: Stream::Views, augmentation, warps }
    }

    /// Draws from another stream than the training's, as the augmented supports of an evaluation do.
    pub fn with_stream(mut self, stream: Stream) -> Self {
        self.stream = stream;
        self
    }

    /// The words for the slots 0..`batch` of a step: [views * batch, [`PARAMETER_WORDS`]], views outermost.
    ///
    /// A slot's words depend on (seed, step, slot) and not on the size of the batch.
    pub fn parameters(&self, step: u32, batch: usize) -> Vec<u32> {
        self.parameters_of(step, 0..batch)
    }

    /// As [`ViewSampler::parameters`], of some slots of a step.
    pub fn parameters_of(&self, step: u32, slots: Range<usize>) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.set.views() * slots.len() * PARAMETER_WORDS);
        for view in 0..self.set.views() {
            for slot in slots.clone() {
                words.extend(self.view(step, slot, view).words());
            }
        }
        words
    }

    /// The first `count` of the transforms other than the plain one in an order that is drawn for this step and slot.
    pub fn further(&self, step: u32, slot: usize, count: usize) -> Vec<usize> {
        let mut rng = Rng::new(self.seed, Stream::Transforms, step, slot as u32);
        let mut transforms: Vec<usize> = (1..self.set.n_transforms()).collect();
        let count = count.min(transforms.len());
        for i in 0..count {
            let left = transforms.len() - i;
            transforms.swap(i, i + below(&mut rng, left));
        }
        transforms.truncate(count);
        transforms
    }

    /// How the image in `slot` is shown under one transform: the view that the full set has, turned.
    pub fn under(&self, step: u32, slot: usize, transform: usize) -> ViewParameters {
        let rotations = self.set.rotations();
        let view = self.view(step, slot, transform / rotations);
        ViewParameters { turns: (transform % rotations) as u32, ..view }
    }

    /// How one view of the image in `slot` is made.
    pub fn view(&self, step: u32, slot: usize, view: usize) -> ViewParameters {
        let mut parameters = ViewParameters::identity(self.side, self.padding);
        // Item `slot` is the image's own, the next blocks of 2^16 items are its views'.
        let rng = |block: usize| Rng::new(self.seed, self.stream, step, (block << 16 | slot & 0xffff) as u32);
        if self.augmentation.crop {
            let mut rng = rng(0);
            parameters.crop = [(); 2].map(|()| below(&mut rng, 2 * self.padding + 1) as u32);
        }
        // Every draw is made whether it is used or not: an option changes nothing but itself.
        let mut rng = rng(1 + view);
        let long = (2 * self.side).div_ceil(3);
        let offsets = [(); 2].map(|()| below(&mut rng, (self.side - long).max(1)));
        let factors = [(); 3].map(|()| (1.0 + self.augmentation.jitter * (2.0 * rng.unit() - 1.0)).max(0.0));
        let order = ORDERS[below(&mut rng, ORDERS.len())];
        let flip = rng.unit() < 0.5;
        match self.set {
            TransformSet::Rot4 => {}
            TransformSet::Crop4 | TransformSet::Rot4Crop4 => {
                let [top, left] = offsets;
                parameters = match view {
                    1 => parameters.resized(self.side, [top, 0], [long, self.side]),
                    2 => parameters.resized(self.side, [0, left], [self.side, long]),
                    3 => parameters.resized(self.side, [top, left], [long, long]),
                    _ => parameters,
                };
            }
            // The identity keeps its edge pixels exactly: only true warps fade at the border.
            TransformSet::Affine(_) | TransformSet::Projective(_) => {
                if view > 0 {
                    parameters = parameters.warped(self.side, self.warps[view]);
                }
            }
        }
        if self.augmentation.jitter > 0.0 {
            parameters.order = order;
            parameters.factors = factors;
        }
        parameters.flip = self.augmentation.flip && flip;
        parameters
    }
}

const ORDERS: [[Colour; 3]; 6] = {
    use Colour::{Brightness as B, Contrast as C, Saturation as S};
    [[B, C, S], [B, S, C], [C, B, S], [C, S, B], [S, B, C], [S, C, B]]
};

/// Uniform in 0..n, from the upper half of a product.
fn below(rng: &mut Rng, n: usize) -> usize {
    ((u64::from(rng.next_bits()) * n as u64) >> 32) as usize
}

/// Uniform in [-reach, reach).
fn within(rng: &mut Rng, reach: f64) -> f64 {
    reach * (2.0 * f64::from(rng.unit()) - 1.0)
}

/// Rotation * shear * scale about the centre, then a translation, in unit coordinates.
fn affine(rng: &mut Rng) -> [f64; 9] {
    let (sin, cos) = within(rng, std::f64::consts::FRAC_PI_4).sin_cos();
    let scale = 0.7 * 2_f64.powf(f64::from(rng.unit()));
    let shear = within(rng, 0.3);
    let [a, b] = [scale * cos, scale * (cos * shear - sin)];
    let [c, d] = [scale * sin, scale * (sin * shear + cos)];
    let (x, y) = (0.5 + within(rng, 0.15), 0.5 + within(rng, 0.15));
    [a, b, x - 0.5 * (a + b), c, d, y - 0.5 * (c + d), 0.0, 0.0, 1.0]
}

/// The unit square to the quadrilateral of its displaced corners (Heckbert, "Fundamentals of Texture Mapping
/// and Image Warping", 1989, section 2.2.3).
fn projective(rng: &mut Rng) -> [f64; 9] {
    let [p0, p1, p2, p3] = CORNERS.map(|[x, y]| [x + within(rng, PROJECTIVE_REACH), y + within(rng, PROJECTIVE_REACH)]);
    let sum = [0, 1].map(|i| p0[i] - p1[i] + p2[i] - p3[i]);
    let (d1, d2) = ([0, 1].map(|i| p1[i] - p2[i]), [0, 1].map(|i| p3[i] - p2[i]));
    let denominator = d1[0] * d2[1] - d2[0] * d1[1];
    let g = (sum[0] * d2[1] - d2[0] * sum[1]) / denominator;
    let h = (d1[0] * sum[1] - sum[0] * d1[1]) / denominator;
    let row = |i: usize| [p1[i] - p0[i] + g * p1[i], p3[i] - p0[i] + h * p3[i], p0[i]];
    let ([a, b, c], [d, e, f]) = (row(0), row(1));
    [a, b, c, d, e, f, g, h, 1.0]
}

const PROJECTIVE_REACH: f64 = 0.2;

const CORNERS: [[f64; 2]; 4] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];

fn mapped(m: &[f64; 9], [x, y]: [f64; 2]) -> [f64; 2] {
    let w = m[6] * x + m[7] * y + m[8];
    [(m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w]
}

/// Root mean square distance of the corners under two warps, in sides.
fn distance(a: &[f64; 9], b: &[f64; 9]) -> f64 {
    let squares = CORNERS.map(|corner| {
        let (p, q) = (mapped(a, corner), mapped(b, corner));
        (p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2)
    });
    (squares.iter().sum::<f64>() / 4.0).sqrt()
}

/// A warp of unit coordinates as one of pixel coordinates.
fn in_pixels(m: &[f64; 9], side: usize) -> [f32; 9] {
    let s = side as f64;
    [m[0], m[1], m[2] * s, m[3], m[4], m[5] * s, m[6] / s, m[7] / s, m[8]].map(|v| v as f32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words of one step.
    fn parameters(
        set: TransformSet,
        side: usize,
        padding: usize,
        seed: u64,
        step: u32,
        batch: usize,
        augmentation: Augmentation,
    ) -> Vec<u32> {
        ViewSampler::new(set, side, padding, seed, augmentation).parameters(step, batch)
    }

    const SETS: [TransformSet; 6] = [
        TransformSet::Rot4,
        TransformSet::Crop4,
        TransformSet::Rot4Crop4,
        TransformSet::Affine(16),
        TransformSet::Projective(8),
        TransformSet::Projective(64),
    ];

    #[test]
    fn parameters_are_a_pure_function() {
        for set in SETS {
            let draw = |seed, step, batch| parameters(set, 32, 4, seed, step, batch, Augmentation::default());
            let base = draw(1, 5, 6);
            assert_eq!(base.len(), set.views() * 6 * PARAMETER_WORDS);
            assert_eq!(base, draw(1, 5, 6));
            assert_ne!(base, draw(1, 6, 6));
            assert_ne!(base, draw(2, 5, 6));
            // A slot does not feel how many others there are.
            let (slots, row) = (draw(1, 5, 3), 3 * PARAMETER_WORDS);
            for view in 0..set.views() {
                assert_eq!(slots[view * row..][..row], base[view * 2 * row..][..row]);
            }
        }
    }

    #[test]
    fn everything_occurs_and_evenly() {
        const STEPS: u32 = 500;
        const BATCH: usize = 16;
        for (side, padding) in [(32, 4), (28, 3), (84, 8)] {
            let sampler = ViewSampler::new(TransformSet::Rot4Crop4, side, padding, 9, Augmentation::default());
            let places = 2 * padding + 1;
            let long = (2 * side).div_ceil(3);
            let (mut crops, mut flips, mut tops) = (vec![0; places * places], 0, vec![0; side - long]);
            let mut orders = [0; 6];
            let mut mean_factor = 0.0;
            for step in 0..STEPS {
                for slot in 0..BATCH {
                    let views: Vec<_> = (0..4).map(|view| sampler.view(step, slot, view)).collect();
                    assert!(views.iter().all(|v| v.crop == views[0].crop), "the views of an image share its crop");
                    crops[views[0].crop[0] as usize * places + views[0].crop[1] as usize] += 1;
                    tops[views[1].window[2] as usize] += 1;
                    for (view, [height, width]) in views.iter().zip([[side; 2], [long, side], [side, long], [long; 2]])
                    {
                        let [left, right, top, bottom] = view.window.map(|v| v as usize);
                        assert_eq!([bottom - top + 1, right - left + 1], [height, width]);
                        assert!(bottom < side && right < side);
                        assert!(height == side || top < side - long, "offsets end before side - long");
                        assert!(view.factors.iter().all(|f| (0.6..=1.4).contains(f)));
                        mean_factor += f64::from(view.factors[1]);
                        flips += usize::from(view.flip);
                        orders[ORDERS.iter().position(|o| *o == view.order).expect("an order")] += 1;
                    }
                }
            }
            let images = (STEPS as usize * BATCH) as f64;
            // Five standard deviations of a count.
            let even = |counts: &[usize], total: f64| {
                let expected = total / counts.len() as f64;
                for &count in counts {
                    assert!((count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{count}, expected {expected}");
                }
            };
            even(&crops, images);
            even(&tops, images);
            even(&orders, 4.0 * images);
            even(&[flips, 4 * images as usize - flips], 4.0 * images);
            assert!((mean_factor / (4.0 * images) - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn options_change_only_themselves() {
        let draw = |augmentation| ViewSampler::new(TransformSet::Crop4, 32, 4, 3, augmentation).view(7, 2, 3);
        let all = draw(Augmentation::default());
        let none = draw(Augmentation::NONE);
        assert_eq!((all.map, all.window), (none.map, none.window));
        assert_eq!((none.crop, none.flip, none.order), ([4, 4], false, [Colour::Nothing; 3]));
        assert_eq!(draw(Augmentation { crop: false, ..Augmentation::default() }).factors, all.factors);
        let plain = ViewSampler::new(TransformSet::Rot4, 32, 0, 3, Augmentation::NONE).parameters(0, 5);
        assert_eq!(plain, crate::ops::views::identity_words(32, 0, 5));
    }

    #[test]
    fn further_transforms_are_distinct_even_and_a_pure_function() {
        for set in SETS {
            let sampler = ViewSampler::new(set, 32, 4, 7, Augmentation::default());
            let all = set.n_transforms();
            let mut counts = vec![0_usize; all];
            for step in 0..2000 {
                let drawn = sampler.further(step, 3, 2);
                assert_eq!(drawn, sampler.further(step, 3, 5)[..2], "fewer are the first of more");
                assert!(drawn.len() == 2 && drawn[0] != drawn[1] && !drawn.contains(&0));
                drawn.iter().for_each(|&transform| counts[transform] += 1);
            }
            let expected = 4000.0 / (all - 1) as f64;
            for &count in &counts[1..] {
                assert!((count as f64 - expected).abs() < 5.0 * expected.sqrt(), "{set}: {counts:?}");
            }
            let mut whole = sampler.further(0, 0, all);
            whole.sort_unstable();
            assert!(whole.into_iter().eq(1..all));
            let view = sampler.under(4, 9, all - 1);
            let wanted = sampler.view(4, 9, set.views() - 1);
            assert_eq!(view, ViewParameters { turns: set.rotations() as u32 - 1, ..wanted });
        }
    }

    #[test]
    fn warps_are_fixed_distinct_and_moderate() {
        for set in [TransformSet::Affine(16), TransformSet::Projective(16), TransformSet::Affine(2)] {
            let warps = set.warps(1);
            assert_eq!(warps.len(), set.views());
            assert_eq!(warps, set.warps(1));
            assert_ne!(warps, set.warps(2));
            for (i, a) in warps.iter().enumerate() {
                for b in &warps[..i] {
                    assert!(distance(a, b) > 0.08, "{set}: two warps are {} apart", distance(a, b));
                }
                for corner in CORNERS {
                    let [x, y] = mapped(a, corner);
                    assert!((-1.0..2.0).contains(&x) && (-1.0..2.0).contains(&y), "{set}: {corner:?} to {x}, {y}");
                }
            }
            let bits = |step| parameters(set, 28, 3, 1, step, 2, Augmentation::NONE);
            assert_eq!(bits(0), bits(99), "the warps are the run's, not the step's");
        }
        let projective = TransformSet::Projective(16).warps(1);
        assert!(projective[1..].iter().any(|m| m[6] != 0.0));
        for m in &projective {
            for (corner, moved) in CORNERS.iter().zip(CORNERS.map(|c| mapped(m, c))) {
                for axis in 0..2 {
                    assert!((moved[axis] - corner[axis]).abs() <= PROJECTIVE_REACH + 1e-12);
                }
            }
        }
    }

    #[test]
    fn slots_and_views_never_share_draws() {
        let sampler = ViewSampler::new(TransformSet::Affine(16), 32, 4, 1, Augmentation::default());
        let mut seen = BTreeSet::new();
        for view in 0..16 {
            for slot in 0..64 {
                assert!(seen.insert(sampler.view(0, slot, view).factors.map(f32::to_bits)));
            }
        }
    }
}
