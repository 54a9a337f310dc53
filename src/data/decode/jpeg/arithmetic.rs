//! Arithmetic-coded scans, sequential and progressive: ITU-T T.81, annexes D.2, F.2.4 and G.2.

use super::{Pass, Scan, ZIGZAG};
use crate::data::decode::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

/// T.81 table D.3: probability Qe, next state after the less and the more probable symbol, and
/// whether the former swaps the two. The last state keeps a probability of one half.
#[rustfmt::skip]
const STATES: [(u32, u8, u8, bool); 114] = [
    (0x5a1d, 1, 1, true), (0x2586, 14, 2, false), (0x1114, 16, 3, false), (0x080b, 18, 4, false),
    (0x03d8, 20, 5, false), (0x01da, 23, 6, false), (0x00e5, 25, 7, false), (0x006f, 28, 8, false),
    (0x0036, 30, 9, false), (0x001a, 33, 10, false), (0x000d, 35, 11, false), (0x0006, 9, 12, false),
    (0x0003, 10, 13, false), (0x0001, 12, 13, false), (0x5a7f, 15, 15, true), (0x3f25, 36, 16, false),
    (0x2cf2, 38, 17, false), (0x207c, 39, 18, false), (0x17b9, 40, 19, false), (0x1182, 42, 20, false),
    (0x0cef, 43, 21, false), (0x09a1, 45, 22, false), (0x072f, 46, 23, false), (0x055c, 48, 24, false),
    (0x0406, 49, 25, false), (0x0303, 51, 26, false), (0x0240, 52, 27, false), (0x01b1, 54, 28, false),
    (0x0144, 56, 29, false), (0x00f5, 57, 30, false), (0x00b7, 59, 31, false), (0x008a, 60, 32, false),
    (0x0068, 62, 33, false), (0x004e, 63, 34, false), (0x003b, 32, 35, false), (0x002c, 33, 9, false),
    (0x5ae1, 37, 37, true), (0x484c, 64, 38, false), (0x3a0d, 65, 39, false), (0x2ef1, 67, 40, false),
    (0x261f, 68, 41, false), (0x1f33, 69, 42, false), (0x19a8, 70, 43, false), (0x1518, 72, 44, false),
    (0x1177, 73, 45, false), (0x0e74, 74, 46, false), (0x0bfb, 75, 47, false), (0x09f8, 77, 48, false),
    (0x0861, 78, 49, false), (0x0706, 79, 50, false), (0x05cd, 48, 51, false), (0x04de, 50, 52, false),
    (0x040f, 50, 53, false), (0x0363, 51, 54, false), (0x02d4, 52, 55, false), (0x025c, 53, 56, false),
    (0x01f8, 54, 57, false), (0x01a4, 55, 58, false), (0x0160, 56, 59, false), (0x0125, 57, 60, false),
    (0x00f6, 58, 61, false), (0x00cb, 59, 62, false), (0x00ab, 61, 63, false), (0x008f, 61, 32, false),
    (0x5b12, 65, 65, true), (0x4d04, 80, 66, false), (0x412c, 81, 67, false), (0x37d8, 82, 68, false),
    (0x2fe8, 83, 69, false), (0x293c, 84, 70, false), (0x2379, 86, 71, false), (0x1edf, 87, 72, false),
    (0x1aa9, 87, 73, false), (0x174e, 72, 74, false), (0x1424, 72, 75, false), (0x119c, 74, 76, false),
    (0x0f6b, 74, 77, false), (0x0d51, 75, 78, false), (0x0bb6, 77, 79, false), (0x0a40, 77, 48, false),
    (0x5832, 80, 81, true), (0x4d1c, 88, 82, false), (0x438e, 89, 83, false), (0x3bdd, 90, 84, false),
    (0x34ee, 91, 85, false), (0x2eae, 92, 86, false), (0x299a, 93, 87, false), (0x2516, 86, 71, false),
    (0x5570, 88, 89, true), (0x4ca9, 95, 90, false), (0x44d9, 96, 91, false), (0x3e22, 97, 92, false),
    (0x3824, 99, 93, false), (0x32b4, 99, 94, false), (0x2e17, 93, 86, false), (0x56a8, 95, 96, true),
    (0x4f46, 101, 97, false), (0x47e5, 102, 98, false), (0x41cf, 103, 99, false), (0x3c3d, 104, 100, false),
    (0x375e, 99, 93, false), (0x5231, 105, 102, false), (0x4c0f, 106, 103, false), (0x4639, 107, 104, false),
    (0x415e, 103, 99, false), (0x5627, 105, 106, true), (0x50e7, 108, 107, false), (0x4b85, 109, 103, false),
    (0x5597, 110, 109, false), (0x504f, 111, 107, false), (0x5a10, 110, 111, true), (0x5522, 112, 109, false),
    (0x59eb, 112, 111, true), (0x5a1d, 113, 113, false),
];

/// The state that estimates one half for ever.
const EVEN: u8 = 113;

/// How the two kinds of statistics are conditioned, per table, as DAC defines it.
#[derive(Clone, Copy)]
pub(super) struct Conditioning {
    /// Bounds of small DC differences, as powers of two.
    pub(super) dc: [(u8, u8); 4],
    /// The last coefficient of the low AC band.
    pub(super) ac: [u8; 4],
}

impl Default for Conditioning {
    fn default() -> Self {
        Conditioning { dc: [(0, 1); 4], ac: [5; 4] }
    }
}

/// Reads one scan's entropy-coded data. A statistics bin is its state, with the more probable symbol as
/// its highest bit.
pub(super) struct Arithmetic<'a> {
    data: &'a [u8],
    pos: usize,
    code: i64,
    interval: i64,
    /// Bits left of the byte read last; negative while the first two are missing.
    shift: i32,
    conditioning: Conditioning,
    /// The tables of the scan's components.
    tables: [(usize, usize); 4],
    dc_bins: [[u8; 64]; 4],
    ac_bins: [[u8; 256]; 4],
    last_dc: [i32; 4],
    dc_context: [usize; 4],
}

impl<'a> Arithmetic<'a> {
    /// A reader that starts at `pos`, for components with these DC and AC tables.
    pub(super) fn new(data: &'a [u8], pos: usize, conditioning: Conditioning, tables: [(usize, usize); 4]) -> Self {
        Arithmetic {
            data,
            pos,
            code: 0,
            interval: 0,
            shift: -16,
            conditioning,
            tables,
            dc_bins: [[0; 64]; 4],
            ac_bins: [[0; 256]; 4],
            last_dc: [0; 4],
            dc_context: [0; 4],
        }
    }

    /// Where the next marker may be looked for.
    pub(super) fn position(&self) -> usize {
        self.pos
    }

    /// Starts again behind a restart marker.
    pub(super) fn restart(&mut self, pos: usize) {
        *self = Arithmetic::new(self.data, pos, self.conditioning, self.tables);
    }

    /// The next byte; zeros behind a marker, as the coder leaves trailing zeros out.
    fn byte(&mut self) -> Result<i64> {
        loop {
            match (self.data.get(self.pos), self.data.get(self.pos + 1)) {
                (Some(0xff), Some(0)) => {
                    self.pos += 2;
                    return Ok(0xff);
                }
                (Some(0xff), Some(0xff)) => self.pos += 1,
                (Some(0xff), Some(_)) => return Ok(0),
                (None, _) | (Some(0xff), None) => return Err(Refusal::early()),
                (Some(&byte), _) => {
                    self.pos += 1;
                    return Ok(i64::from(byte));
                }
            }
        }
    }

    /// Decodes one binary decision, T.81 figures D.16 to D.20.
    fn decide(&mut self, bin: &mut u8) -> Result<bool> {
        while self.interval < 0x8000 {
            self.shift -= 1;
            if self.shift < 0 {
                self.code = self.code << 8 | self.byte()?;
                self.shift += 8;
                if self.shift < 0 {
                    self.shift += 1;
                    if self.shift == 0 {
                        self.interval = 0x8000;
                    }
                }
            }
            self.interval <<= 1;
        }
        let more_probable = *bin & 0x80;
        let (qe, after_less, after_more, swap) = STATES[usize::from(*bin & 0x7f).min(113)];
        let qe = i64::from(qe);
        self.interval -= qe;
        let split = self.interval << self.shift;
        let upper = self.code >= split;
        // The smaller part is the less probable symbol's, whichever side it lies on.
        let less = if upper { self.interval >= qe } else { self.interval < 0x8000 && self.interval < qe };
        let adapts = upper || self.interval < 0x8000;
        if upper {
            self.code -= split;
            self.interval = qe;
        }
        if less {
            *bin = after_less | (more_probable ^ if swap { 0x80 } else { 0 });
        } else if adapts {
            *bin = after_more | more_probable;
        }
        Ok((more_probable != 0) ^ less)
    }

    fn even(&mut self) -> Result<bool> {
        self.decide(&mut { EVEN })
    }

    fn dc_bin(&mut self, slot: usize, bin: usize) -> Result<bool> {
        let table = self.tables[slot].0;
        let mut state = self.dc_bins[table][bin];
        let decision = self.decide(&mut state)?;
        self.dc_bins[table][bin] = state;
        Ok(decision)
    }

    fn ac_bin(&mut self, slot: usize, bin: usize) -> Result<bool> {
        let table = self.tables[slot].1;
        let mut state = self.ac_bins[table][bin];
        let decision = self.decide(&mut state)?;
        self.ac_bins[table][bin] = state;
        Ok(decision)
    }

    /// Decodes one block of the scan's component `slot`; `block` is in natural order.
    pub(super) fn block(&mut self, scan: &Scan, slot: usize, block: &mut [i16; 64]) -> Result<()> {
        match scan.pass {
            Pass::Sequential => {
                self.dc(slot, 0, block)?;
                self.ac_first(slot, 1, 63, 0, block)
            }
            Pass::DcFirst => self.dc(slot, scan.low, block),
            Pass::DcRefine => {
                if self.even()? {
                    block[0] |= 1 << scan.low;
                }
                Ok(())
            }
            Pass::AcFirst => self.ac_first(slot, scan.start, scan.end, scan.low, block),
            Pass::AcRefine => self.ac_refine(slot, scan, block),
        }
    }

    /// T.81, F.1.4.4.1: a difference, conditioned on the one before it.
    fn dc(&mut self, slot: usize, low: u32, block: &mut [i16; 64]) -> Result<()> {
        let context = self.dc_context[slot];
        self.dc_context[slot] = 0;
        if self.dc_bin(slot, context)? {
            let negative = self.dc_bin(slot, context + 1)?;
            let mut bin = context + 2 + usize::from(negative);
            let mut magnitude = 0;
            if self.dc_bin(slot, bin)? {
                (magnitude, bin) = (1, 20);
                while self.dc_bin(slot, bin)? {
                    magnitude = double(magnitude)?;
                    bin += 1;
                }
            }
            let (lower, upper) = self.conditioning.dc[self.tables[slot].0];
            let sign = if negative { 4 } else { 0 };
            if magnitude > (1 << upper) >> 1 {
                self.dc_context[slot] = 12 + sign;
            } else if magnitude >= (1 << lower) >> 1 {
                self.dc_context[slot] = 4 + sign;
            }
            let mut value = magnitude;
            let mut bit = magnitude >> 1;
            while bit != 0 {
                if self.dc_bin(slot, bin + 14)? {
                    value |= bit;
                }
                bit >>= 1;
            }
            let value = if negative { -value - 1 } else { value + 1 };
            self.last_dc[slot] = self.last_dc[slot].wrapping_add(value);
        }
        block[0] = (self.last_dc[slot] << low) as i16;
        Ok(())
    }

    /// T.81, F.1.4.4.2.
    fn ac_first(&mut self, slot: usize, start: usize, end: usize, low: u32, block: &mut [i16; 64]) -> Result<()> {
        let mut k = start;
        while k <= end {
            if self.ac_bin(slot, 3 * (k - 1))? {
                break;
            }
            while !self.ac_bin(slot, 3 * (k - 1) + 1)? {
                k += 1;
                if k > end {
                    return Err(damaged());
                }
            }
            let negative = self.even()?;
            let mut bin = 3 * (k - 1) + 2;
            let mut magnitude = 0;
            if self.ac_bin(slot, bin)? {
                magnitude = 1;
                if self.ac_bin(slot, bin)? {
                    magnitude = 2;
                    bin = if k <= usize::from(self.conditioning.ac[self.tables[slot].1]) { 189 } else { 217 };
                    while self.ac_bin(slot, bin)? {
                        magnitude = double(magnitude)?;
                        bin += 1;
                    }
                }
            }
            let mut value = magnitude;
            let mut bit = magnitude >> 1;
            while bit != 0 {
                if self.ac_bin(slot, bin + 14)? {
                    value |= bit;
                }
                bit >>= 1;
            }
            let value = if negative { -value - 1 } else { value + 1 };
            block[ZIGZAG[k]] = (value << low) as i16;
            k += 1;
        }
        Ok(())
    }

    /// T.81, G.1.3.3.
    fn ac_refine(&mut self, slot: usize, scan: &Scan, block: &mut [i16; 64]) -> Result<()> {
        let step = 1i16 << scan.low;
        let known = (1..=scan.end).rev().find(|&k| block[ZIGZAG[k]] != 0).unwrap_or(0);
        let mut k = scan.start;
        while k <= scan.end {
            if k > known && self.ac_bin(slot, 3 * (k - 1))? {
                break;
            }
            loop {
                let coefficient = block[ZIGZAG[k]];
                if coefficient != 0 {
                    if self.ac_bin(slot, 3 * (k - 1) + 2)? {
                        block[ZIGZAG[k]] = coefficient.wrapping_add(if coefficient < 0 { -step } else { step });
                    }
                    break;
                }
                if self.ac_bin(slot, 3 * (k - 1) + 1)? {
                    block[ZIGZAG[k]] = if self.even()? { -step } else { step };
                    break;
                }
                k += 1;
                if k > scan.end {
                    return Err(damaged());
                }
            }
            k += 1;
        }
        Ok(())
    }
}

fn double(magnitude: i32) -> Result<i32> {
    if magnitude >= 0x4000 { Err(damaged()) } else { Ok(magnitude * 2) }
}

fn damaged() -> Refusal {
    Refusal::broken("its compressed data is damaged")
}
