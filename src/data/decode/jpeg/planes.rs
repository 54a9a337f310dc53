//! From coefficients to samples to rows of full width, to the bit as libjpeg's default does it: the slow
//! integer inverse DCT, triangle ("fancy") upsampling by two, repetition by other factors.

use std::num::Wrapping;

use super::Component;

/// Fixed-point bits of the inverse DCT's constants, and extra ones between its two passes.
const CONST_BITS: usize = 13;
const PASS_BITS: usize = 2;

/// Dequantises one block in natural order and writes its inverse DCT to `out`, 8 rows `stride` apart.
///
/// After Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications"
/// (ICASSP 1989). Sums wrap, as damaged files exceed every range.
pub(super) fn inverse_dct(block: &[i16; 64], quant: &[u16; 64], out: &mut [u8], stride: usize) {
    let mut work = [Wrapping(0i32); 64];
    for x in 0..8 {
        let column: [Wrapping<i32>; 8] =
            std::array::from_fn(|y| Wrapping(i32::from(block[y * 8 + x])) * Wrapping(i32::from(quant[y * 8 + x])));
        if column[1..].iter().all(|c| c.0 == 0) {
            (0..8).for_each(|y| work[y * 8 + x] = column[0] << PASS_BITS);
            continue;
        }
        for (y, value) in eight(column, CONST_BITS - PASS_BITS).into_iter().enumerate() {
            work[y * 8 + x] = value;
        }
    }
    for (y, row) in work.chunks_exact(8).enumerate() {
        let row: [Wrapping<i32>; 8] = std::array::from_fn(|x| row[x]);
        let shift = CONST_BITS + PASS_BITS + 3;
        // Without further coefficients all eight are the mean.
        let values = if row[1..].iter().all(|c| c.0 == 0) {
            [((row[0] << CONST_BITS) + Wrapping(1 << (shift - 1))) >> shift; 8]
        } else {
            eight(row, shift)
        };
        for (out, value) in out[y * stride..y * stride + 8].iter_mut().zip(values) {
            *out = (value + Wrapping(128)).0.clamp(0, 255) as u8;
        }
    }
}

/// One-dimensional inverse DCT of eight values, rounded to `shift` bits fewer.
fn eight(v: [Wrapping<i32>; 8], shift: usize) -> [Wrapping<i32>; 8] {
    const fn fix(x: f64) -> Wrapping<i32> {
        Wrapping((x * (1 << CONST_BITS) as f64 + 0.5) as i32)
    }
    let z = (v[2] + v[6]) * fix(0.541196100);
    let even2 = z - v[6] * fix(1.847759065);
    let even3 = z + v[2] * fix(0.765366865);
    let even0 = (v[0] + v[4]) << CONST_BITS;
    let even1 = (v[0] - v[4]) << CONST_BITS;
    let even = [even0 + even3, even1 + even2, even1 - even2, even0 - even3];

    let [z1, z2, z3, z4] = [v[7] + v[1], v[5] + v[3], v[7] + v[3], v[5] + v[1]];
    let z5 = (z3 + z4) * fix(1.175875602);
    let [z1, z2] = [-(z1 * fix(0.899976223)), -(z2 * fix(2.562915447))];
    let [z3, z4] = [z5 - z3 * fix(1.961570560), z5 - z4 * fix(0.390180644)];
    let odd = [
        v[1] * fix(1.501321110) + z1 + z4,
        v[3] * fix(3.072711026) + z2 + z3,
        v[5] * fix(2.053119869) + z2 + z4,
        v[7] * fix(0.298631336) + z1 + z3,
    ];
    let half = Wrapping(1 << (shift - 1));
    std::array::from_fn(|i| {
        let sum = if i < 4 { even[i] + odd[i] } else { even[7 - i] - odd[7 - i] };
        (sum + half) >> shift
    })
}

/// Writes row `y` of the component at the picture's full size; `most` are the frame's largest factors.
pub(super) fn upsample_row(component: &Component, most: (usize, usize), y: usize, out: &mut [u8], sums: &mut Vec<i32>) {
    let row = |y: usize| &component.plane[y * component.stride..][..component.width];
    let (h, v) = (component.h, component.v);
    let twice = (2 * h == most.0, 2 * v == most.1);
    let source = y * v / most.1;
    // The nearer source row counts three times, the further one once.
    let neighbour = if y.is_multiple_of(2) { source.saturating_sub(1) } else { (source + 1).min(component.height - 1) };
    let wide = component.width > 2;
    match (twice, h == most.0, v == most.1) {
        (_, true, true) => out.copy_from_slice(&row(source)[..out.len()]),
        ((_, true), true, _) => {
            let bias = if y.is_multiple_of(2) { 1 } else { 2 };
            for ((out, &near), &far) in out.iter_mut().zip(row(source)).zip(row(neighbour)) {
                *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
            }
        }
        ((true, _), _, true) if wide => {
            let near = row(source);
            let at = |i: usize| u16::from(near[i.min(near.len() - 1)]);
            for (x, out) in out.iter_mut().enumerate() {
                let i = x / 2;
                *out = match x % 2 {
                    0 => (3 * at(i) + at(i.saturating_sub(1)) + 1) >> 2,
                    _ => (3 * at(i) + at(i + 1) + 2) >> 2,
                } as u8;
            }
        }
        ((true, true), _, _) if wide => {
            sums.clear();
            let pairs = row(source).iter().zip(row(neighbour));
            sums.extend(pairs.map(|(&near, &far)| 3 * i32::from(near) + i32::from(far)));
            // The outermost ones are their own neighbours.
            let (first, last) = (sums[0], sums[sums.len() - 1]);
            let before = std::iter::once(&first).chain(&*sums);
            let after = sums[1..].iter().chain(std::iter::once(&last));
            for (((out, &sum), &before), &after) in out.chunks_mut(2).zip(&*sums).zip(before).zip(after) {
                let pair = [(3 * sum + before + 8) >> 4, (3 * sum + after + 7) >> 4];
                out.iter_mut().zip(pair).for_each(|(out, value)| *out = value as u8);
            }
        }
        _ => {
            let near = row(source);
            for (x, out) in out.iter_mut().enumerate() {
                *out = near[x * h / most.0];
            }
        }
    }
}

/// Red, green and blue of JFIF's full-range YCbCr (ITU-R BT.601), in libjpeg's 16-bit fixed point.
pub(in crate::data::decode) fn ycc_to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let r = y + ((91_881 * cr + HALF) >> 16);
    let g = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
    let b = y + ((116_130 * cb + HALF) >> 16);
    [r, g, b].map(|c| c.clamp(0, 255) as u8)
}

/// Red, green and blue of cyan, magenta, yellow and black, as Pillow converts them.
pub(in crate::data::decode) fn cmyk_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)) as u8
    })
}
