//! The views of a batch: crop, warp, colour jitter, flip, normalise, rotate, all on the device.
//!
//! The random numbers come from the host as [`ViewParameters`], a few words for each view of each image:
//! the operation itself is a deterministic function that the twin repeats. There is no gradient.

use super::case::{Case, Elements, Input};
use super::{Cost, Host, Operand, Operation, shape};
use crate::gpu::Launch;
use crate::tape::{Type, ValueId};
use crate::{Error, Result};

/// Invocations of a workgroup: one workgroup makes a whole view.
const WORKGROUP: u32 = 256;

/// Words of [`ViewParameters`] in the operation's third input.
pub const PARAMETER_WORDS: usize = 20;

/// A step of the colour jitter; the number is its code in the parameter words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Colour {
    /// Leaves the pixels exactly as they are.
    Nothing = 0,
    /// f x
    Brightness = 1,
    /// f x + (1 - f) mean of the view's gray
    Contrast = 2,
    /// f x + (1 - f) gray
    Saturation = 3,
}

impl Colour {
    const ALL: [Colour; 4] = [Colour::Nothing, Colour::Brightness, Colour::Contrast, Colour::Saturation];
}

/// How one view of one image is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParameters {
    /// First row and column of the crop in the padded image, 0..=2 `padding`.
    pub crop: [u32; 2],
    /// Homography, by rows: from the centre of an output pixel (column + 1/2, row + 1/2) to the point in the
    /// crop in the same coordinates.
    pub map: [f32; 9],
    /// Least and greatest column, then row, that is sampled. The window's own pixels repeat its edge;
    /// [-1, side] fades to zero outside the crop.
    pub window: [f32; 4],
    /// Whether the columns of the view are reversed.
    pub flip: bool,
    /// Quarter turns counter-clockwise of the whole view, 0 to 3, before those that the operation adds.
    pub turns: u32,
    /// The colour operations in their order, each at most once.
    pub order: [Colour; 3],
    /// Factors of brightness, contrast and saturation.
    pub factors: [f32; 3],
}

impl ViewParameters {
    /// The image itself, nothing changed: `padding` is the operation's.
    pub fn identity(side: usize, padding: usize) -> Self {
        let last = side as f32 - 1.0;
        ViewParameters {
            crop: [padding as u32; 2],
            map: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            window: [0.0, last, 0.0, last],
            flip: false,
            turns: 0,
            order: [Colour::Nothing; 3],
            factors: [1.0; 3],
        }
    }

    /// Shows the `height` x `width` window of the crop with this first row and column, resized to the whole view.
    pub fn resized(mut self, side: usize, [top, left]: [usize; 2], [height, width]: [usize; 2]) -> Self {
        let (scale_x, scale_y) = (width as f32 / side as f32, height as f32 / side as f32);
        self.map = [scale_x, 0.0, left as f32, 0.0, scale_y, top as f32, 0.0, 0.0, 1.0];
        self.window = [left, left + width - 1, top, top + height - 1].map(|v| v as f32);
        self
    }

    /// Shows the crop through a homography, zero outside.
    pub fn warped(mut self, side: usize, map: [f32; 9]) -> Self {
        self.map = map;
        self.window = [-1.0, side as f32, -1.0, side as f32];
        self
    }

    /// Whether the map divides.
    fn projective(&self) -> bool {
        self.map[6..] != [0.0, 0.0, 1.0]
    }

    /// The words of the operation's third input: 0 crop row, 1 crop column, 2..=10 map, 11..=14 window, 15
    /// flags (1 flip, 2 projective, 4 and 8 the turns), 16 order (two bits each, the first lowest), 17..=19 factors. Reals are f32 bits.
    pub fn words(&self) -> [u32; PARAMETER_WORDS] {
        let mut words = [0; PARAMETER_WORDS];
        words[..2].copy_from_slice(&self.crop);
        let reals = self.map.iter().chain(&self.window).map(|v| v.to_bits());
        words[2..15].iter_mut().zip(reals).for_each(|(word, v)| *word = v);
        words[15] = u32::from(self.flip) | u32::from(self.projective()) << 1 | (self.turns & 3) << 2;
        words[16] = self.order.iter().rev().fold(0, |code, &colour| code << 2 | colour as u32);
        words[17..].copy_from_slice(&self.factors.map(f32::to_bits));
        words
    }

    /// What [`ViewParameters::words`] made.
    fn from_words(words: &[f64]) -> Self {
        let word = |i: usize| words[i] as u32;
        let real = |i: usize| f32::from_bits(word(i));
        ViewParameters {
            crop: [word(0), word(1)],
            map: std::array::from_fn(|i| real(2 + i)),
            window: std::array::from_fn(|i| real(11 + i)),
            flip: word(15) & 1 == 1,
            turns: word(15) >> 2 & 3,
            order: std::array::from_fn(|k| Colour::ALL[(word(16) >> (2 * k) & 3) as usize]),
            factors: std::array::from_fn(|i| real(17 + i)),
        }
    }
}

/// The words for `rows` images that are only normalised, as in evaluation.
pub fn identity_words(side: usize, padding: usize, rows: usize) -> Vec<u32> {
    ViewParameters::identity(side, padding).words().repeat(rows)
}

/// Pixels R, G, B of 8 bits each as a word of the operation's `images`.
pub fn pack_pixel([r, g, b]: [u8; 3]) -> u32 {
    u32::from_le_bytes([r, g, b, 255])
}

/// Inputs: images (`u32`: [N, S, S] packed pixels or the f32 bits of [N, 3, S, S]), the image of each slot
/// `[B]` (`u32`), parameters [views B, 20] (`u32`). Output: [views rotations B, 3, S, S], row m B + slot with
/// m = rotations view + rotation.
#[derive(Clone, Debug)]
pub struct Views {
    /// Views of an image.
    pub views: usize,
    /// 1, or 4: each view also turned by 90, 180 and 270 degrees counter-clockwise.
    pub rotations: usize,
    /// Zero pixels around the image that a crop may reach.
    pub padding: usize,
    /// Whether the images are f32 planes instead of packed pixels.
    pub float_images: bool,
    /// Channel means, on the scale of [0, 1].
    pub mean: [f32; 3],
    /// Channel deviations, on the scale of [0, 1].
    pub std: [f32; 3],
}

impl Views {
    /// Images as evaluation sees them: one view, nothing but normalised.
    pub fn plain(mean: [f32; 3], std: [f32; 3]) -> Self {
        Views { views: 1, rotations: 1, padding: 0, float_images: false, mean, std }
    }

    /// One view of `image` ([3][row][column], in [0, 1]) before normalisation, as in docs/method.md, Views.
    fn view(&self, image: &dyn Fn(usize, i64, i64) -> f64, side: usize, p: &ViewParameters) -> Vec<f64> {
        let s = side as i64;
        let inside = |v: i64| (0..s).contains(&v);
        // The zero-padded random crop.
        let mut crop = vec![0.0; 3 * side * side];
        for (i, pixel) in crop.iter_mut().enumerate() {
            let (channel, row, col) = (i / (side * side), (i / side % side) as i64, (i % side) as i64);
            let row = row + i64::from(p.crop[0]) - self.padding as i64;
            let col = col + i64::from(p.crop[1]) - self.padding as i64;
            if inside(row) && inside(col) {
                *pixel = image(channel, row, col);
            }
        }
        let at = |channel: usize, row: i64, col: i64| -> f64 {
            if inside(row) && inside(col) { crop[(channel * side + row as usize) * side + col as usize] } else { 0.0 }
        };
        // The warp.
        let m = p.map.map(f64::from);
        let [left, right, top, bottom] = p.window.map(f64::from);
        let mut view = vec![0.0; 3 * side * side];
        for (i, pixel) in view.iter_mut().enumerate() {
            let (channel, row, col) = (i / (side * side), (i / side % side) as f64 + 0.5, (i % side) as f64 + 0.5);
            let w = m[6] * col + m[7] * row + m[8];
            let u = ((m[0] * col + m[1] * row + m[2]) / w - 0.5).clamp(left, right);
            let v = ((m[3] * col + m[4] * row + m[5]) / w - 0.5).clamp(top, bottom);
            let (near_x, near_y) = (u.floor(), v.floor());
            for (y, weight_y) in [(near_y, near_y + 1.0 - v), (near_y + 1.0, v - near_y)] {
                for (x, weight_x) in [(near_x, near_x + 1.0 - u), (near_x + 1.0, u - near_x)] {
                    *pixel += weight_y * weight_x * at(channel, y.min(bottom) as i64, x.min(right) as i64);
                }
            }
        }
        // The jitter.
        let n = side * side;
        for &colour in &p.order {
            let gray: Vec<f64> =
                (0..n).map(|i| 0.2989 * view[i] + 0.587 * view[n + i] + 0.114 * view[2 * n + i]).collect();
            let mean_gray = gray.iter().sum::<f64>() / n as f64;
            let [brightness, contrast, saturation] = p.factors.map(f64::from);
            for (i, pixel) in view.iter_mut().enumerate() {
                let changed = match colour {
                    Colour::Nothing => continue,
                    Colour::Brightness => brightness * *pixel,
                    Colour::Contrast => contrast * *pixel + (1.0 - contrast) * mean_gray,
                    Colour::Saturation => saturation * *pixel + (1.0 - saturation) * gray[i % n],
                };
                *pixel = changed.clamp(0.0, 1.0);
            }
        }
        // The flip.
        if p.flip {
            view.chunks_mut(side).for_each(<[f64]>::reverse);
        }
        for _ in 0..p.turns {
            view = view.chunks(n).flat_map(|plane| turned(plane, side)).collect();
        }
        view
    }
}

/// A square plane turned by 90 degrees counter-clockwise: transposed, then its rows reversed.
fn turned(plane: &[f64], side: usize) -> Vec<f64> {
    let transposed: Vec<f64> = (0..side * side).map(|i| plane[i % side * side + i / side]).collect();
    transposed.chunks(side).rev().flatten().copied().collect()
}

impl Operation for Views {
    fn name(&self) -> &'static str {
        "views.views"
    }
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>> {
        let fail = |message: String| Err(Error::shape("views.views", message));
        let [images, index, parameters] = shape::exactly(self.name(), inputs, ["images", "index", "parameters"])?;
        // A shader's index has 32 bits: `words` refuses larger images.
        let (side, width) = if self.float_images {
            let [_, channels, side, width] = shape::words(self.name(), images, "the images")?;
            if channels != 3 {
                return fail(format!("images of floats must have 3 channels, they have {channels}"));
            }
            (side, width)
        } else {
            let [_, side, width] = shape::words(self.name(), images, "the images")?;
            (side, width)
        };
        if side != width {
            return fail(format!("images must be square, they are {side}x{width}"));
        }
        if self.views == 0 || ![1, 4].contains(&self.rotations) {
            return fail(format!("wants views and 1 or 4 rotations, got {} and {}", self.views, self.rotations));
        }
        let [batch] = shape::words(self.name(), index, "the index")?;
        let given = shape::words::<2>(self.name(), parameters, "the parameters")?;
        // With their rotations they are counted in 32 bits.
        let Some(rows) = self.views.checked_mul(batch).filter(|&rows| rows < 1 << 30) else {
            return fail(format!("{} views of {batch} images are too many", self.views));
        };
        shape::same(self.name(), "the parameters", &given, &[rows, PARAMETER_WORDS])?;
        Ok(vec![Type::f32([self.views * self.rotations * batch, 3, side, side])])
    }
    fn twin(&self, inputs: &[Host]) -> Vec<Vec<f64>> {
        let [images, index, parameters] = inputs else { return Vec::new() };
        let side = images.shape[images.shape.len() - 1];
        let (n, batch) = (side * side, index.data.len());
        let mut x = vec![0.0; self.views * self.rotations * batch * 3 * n];
        for (row, words) in parameters.data.chunks(PARAMETER_WORDS).enumerate() {
            let (view, slot) = (row / batch, row % batch);
            let image = |channel: usize, row: i64, col: i64| -> f64 {
                let (i, pixel) = (index.data[slot] as usize, row as usize * side + col as usize);
                if self.float_images {
                    f64::from(f32::from_bits(images.data[(3 * i + channel) * n + pixel] as u32))
                } else {
                    f64::from((images.data[i * n + pixel] as u32).to_le_bytes()[channel]) / 255.0
                }
            };
            let planes = self.view(&image, side, &ViewParameters::from_words(words));
            for (channel, plane) in planes.chunks(n).enumerate() {
                let (mean, std) = (f64::from(self.mean[channel]), f64::from(self.std[channel]));
                let mut plane: Vec<f64> = plane.iter().map(|v| (v - mean) / std).collect();
                for rotation in 0..self.rotations {
                    let copy = (view * self.rotations + rotation) * batch + slot;
                    x[(3 * copy + channel) * n..][..n].copy_from_slice(&plane);
                    plane = turned(&plane, side);
                }
            }
        }
        vec![x]
    }
    fn launches(&self, inputs: &[Operand], outputs: &[Operand]) -> Vec<Launch<ValueId>> {
        let batch = inputs[1].len();
        let mut launch = Launch::groups("views", "views", self.views * batch);
        launch.constants = vec![("WG", f64::from(WORKGROUP))];
        let [mean, std] = [self.mean, self.std];
        vec![
            launch
                .param("batch", batch)
                .param("views", self.views)
                .param("rotations", self.rotations)
                .param("side", outputs[0].shape[3])
                .param("margin", self.padding)
                .param("float_images", u32::from(self.float_images))
                .param("mean_r", mean[0])
                .param("mean_g", mean[1])
                .param("mean_b", mean[2])
                .param("std_r", std[0])
                .param("std_g", std[1])
                .param("std_b", std[2])
                .bind("images", inputs[0].id)
                .bind("index", inputs[1].id)
                .bind("parameters", inputs[2].id)
                .bind("x", outputs[0].id),
        ]
    }
    fn cost(&self, inputs: &[Operand], outputs: &[Operand]) -> Cost {
        // Of all images only the batch's.
        let image: u64 = inputs[0].shape[1..].iter().map(|&size| size as u64).product();
        let read = Cost { bytes: 4 * inputs[1].len() as u64 * image, ..Cost::default() };
        read.and_moving(&inputs[1..]).and_moving(outputs)
    }
}

/// Cases for `check` and the tests.
pub fn cases() -> Vec<Case> {
    use Colour::{Brightness as B, Contrast as C, Nothing as N, Saturation as S};
    const IMAGES: usize = 5;
    let words =
        |count: usize, word: &dyn Fn(usize) -> u32| Elements::Values((0..count).map(|i| f64::from(word(i))).collect());
    let noise = |i: usize| crate::random::philox([i as u32, 0, 0, 0], [7, 7])[0];
    let case = |what: String, side: usize, batch: usize, views: Views, parameters: Vec<ViewParameters>| {
        let images = if views.float_images {
            let unit = |i: usize| crate::random::unit_f32(noise(i)).to_bits();
            Input::integers([IMAGES, 3, side, side], words(IMAGES * 3 * side * side, &unit))
        } else {
            Input::integers([IMAGES, side, side], words(IMAGES * side * side, &noise))
        };
        let index = Input::integers([batch], words(batch, &|i| (3 * i as u32 + 1) % IMAGES as u32));
        let given: Vec<u32> = parameters.iter().flat_map(ViewParameters::words).collect();
        let parameters = Input::integers([parameters.len(), PARAMETER_WORDS], words(given.len(), &|i| given[i]));
        // A coordinate near `side` errs by side 2^-24 or so, and moves the value by as much of the contrast.
        Case::new(what, views, vec![images, index, parameters]).tolerance(1e-5)
    };
    let plain = Views::plain([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]);
    let raw = Views { padding: 2, mean: [0.0; 3], std: [1.0; 3], ..plain.clone() };
    let identity = |side| ViewParameters::identity(side, 0);
    let mut cases = Vec::new();
    for side in [1, 7, 12, 28] {
        cases.push(case(format!("{side}x{side}, as in evaluation"), side, 3, plain.clone(), vec![identity(side); 3]));
        let turned = Views { rotations: 4, float_images: true, ..plain.clone() };
        let what = format!("{side}x{side}, turned and flipped");
        let flipped = ViewParameters { flip: true, ..identity(side) };
        cases.push(case(what, side, 2, turned.clone(), vec![identity(side), flipped]));
        let each: Vec<_> = (0..4).map(|turns| ViewParameters { turns, flip: turns == 2, ..identity(side) }).collect();
        let single = Views { rotations: 1, ..turned.clone() };
        cases.push(case(format!("{side}x{side}, each turned"), side, 4, single, each.clone()));
        cases.push(case(format!("{side}x{side}, each turned, four times"), side, 4, turned, each));
    }
    let orders =
        [[N, N, N], [B, N, N], [N, C, N], [N, N, S], [B, C, S], [B, S, C], [C, B, S], [C, S, B], [S, B, C], [S, C, B]];
    for (k, order) in orders.into_iter().enumerate() {
        let side = if k % 2 == 0 { 7 } else { 12 };
        let parameters = |factors| ViewParameters { crop: [4, 1], order, factors, ..identity(side) };
        let all = vec![parameters([1.4, 0.6, 1.3]), parameters([0.7, 1.35, 0.6])];
        let float_images = k % 3 == 0;
        cases.push(case(format!("{order:?}"), side, 2, Views { float_images, ..raw.clone() }, all));
    }
    for (side, rotations) in [(7, 4), (12, 1), (33, 4)] {
        let (c, r) = (2 * side / 3 + 1, side - 2 * side / 3 - 2);
        let base = |k: u32| ViewParameters { crop: [k % 5, (3 * k + 2) % 5], flip: k % 2 == 1, ..identity(side) };
        let windows = vec![
            base(0),
            base(1),
            base(2).resized(side, [r, 0], [c, side]),
            base(3).resized(side, [0, 0], [c, side]),
            base(4).resized(side, [0, 0], [side, c]),
            base(5).resized(side, [0, r], [side, c]),
            base(6).resized(side, [r, 1], [c, c]),
            ViewParameters { order: [C, S, B], factors: [1.2, 0.8, 0.7], ..base(7).resized(side, [0, r], [c, c]) },
        ];
        let views = Views { views: 4, rotations, ..raw.clone() };
        cases.push(case(format!("{side}x{side}, windows, {rotations} rotations"), side, 2, views, windows));
        let s = side as f32;
        let warps = vec![
            base(1).warped(side, [0.8, 0.3, -0.1 * s, -0.4, 0.9, 0.2 * s, 0.0, 0.0, 1.0]),
            base(2).warped(side, [2.0, 0.0, -0.5 * s, 0.0, 2.0, -0.5 * s, 0.0, 0.0, 1.0]),
            base(3).warped(side, [1.1, 0.1, 0.1 * s, 0.2, 0.8, 0.0, 0.2 / s, -0.1 / s, 1.0]),
            base(4).warped(side, [0.9, 0.2, -1.7, -0.2, 1.3, 0.4, -0.3 / s, 0.2 / s, 0.9]),
            base(5).warped(side, [1.0, 0.0, 3.0 * s, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]),
            ViewParameters {
                order: [B, S, C],
                factors: [0.9, 1.4, 1.1],
                ..base(6).warped(side, [-1.0, 0.2, s, 0.1, -0.7, 0.8 * s, 0.1 / s, 0.1 / s, 1.0])
            },
        ];
        let views = Views { views: 3, rotations, float_images: true, ..raw.clone() };
        cases.push(case(format!("{side}x{side}, warps, {rotations} rotations"), side, 2, views, warps));
    }
    cases
}
