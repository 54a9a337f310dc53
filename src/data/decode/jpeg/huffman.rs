//! Huffman-coded scans, sequential and progressive: ITU-T T.81, annexes F.2.2 and G.2.

use super::{Pass, Scan, ZIGZAG};
use crate::data::decode::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

/// Codes of at most this many bits are found by one look-up.
const FAST_BITS: u32 = 9;

/// The tables of T.81 annex K.3, as a DHT segment. Frames of motion JPEG leave them out.
#[rustfmt::skip]
pub(super) const STANDARD: [u8; 416] = [
    0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6,
    7, 8, 9, 10, 11, 16, 0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125, 1, 2,
    3, 0, 4, 17, 5, 18, 33, 49, 65, 6, 19, 81, 97, 7, 34, 113, 20, 50, 129, 145, 161, 8, 35, 66,
    177, 193, 21, 82, 209, 240, 36, 51, 98, 114, 130, 9, 10, 22, 23, 24, 25, 26, 37, 38, 39, 40, 41, 42,
    52, 53, 54, 55, 56, 57, 58, 67, 68, 69, 70, 71, 72, 73, 74, 83, 84, 85, 86, 87, 88, 89, 90, 99,
    100, 101, 102, 103, 104, 105, 106, 115, 116, 117, 118, 119, 120, 121, 122, 131, 132, 133, 134, 135, 136, 137, 138, 146,
    147, 148, 149, 150, 151, 152, 153, 154, 162, 163, 164, 165, 166, 167, 168, 169, 170, 178, 179, 180, 181, 182, 183, 184,
    185, 186, 194, 195, 196, 197, 198, 199, 200, 201, 202, 210, 211, 212, 213, 214, 215, 216, 217, 218, 225, 226, 227, 228,
    229, 230, 231, 232, 233, 234, 241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 1, 0, 3, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 17, 0, 2,
    1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119, 0, 1, 2, 3, 17, 4, 5, 33, 49, 6,
    18, 65, 81, 7, 97, 113, 19, 34, 50, 129, 8, 20, 66, 145, 161, 177, 193, 9, 35, 51, 82, 240, 21, 98,
    114, 209, 10, 22, 36, 52, 225, 37, 241, 23, 24, 25, 26, 38, 39, 40, 41, 42, 53, 54, 55, 56, 57, 58,
    67, 68, 69, 70, 71, 72, 73, 74, 83, 84, 85, 86, 87, 88, 89, 90, 99, 100, 101, 102, 103, 104, 105, 106,
    115, 116, 117, 118, 119, 120, 121, 122, 130, 131, 132, 133, 134, 135, 136, 137, 138, 146, 147, 148, 149, 150, 151, 152,
    153, 154, 162, 163, 164, 165, 166, 167, 168, 169, 170, 178, 179, 180, 181, 182, 183, 184, 185, 186, 194, 195, 196, 197,
    198, 199, 200, 201, 202, 210, 211, 212, 213, 214, 215, 216, 217, 218, 226, 227, 228, 229, 230, 231, 232, 233, 234, 242,
    243, 244, 245, 246, 247, 248, 249, 250,
];

/// One Huffman table, as DHT defines it.
#[derive(Clone)]
pub(super) struct Table {
    /// For the next `FAST_BITS` bits: the code's length in the high byte (0: longer), its symbol in the low one.
    fast: Vec<u16>,
    /// The largest code of each length, or -1.
    last: [i32; 17],
    /// Index of a code's symbol less the code, per length.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// A table of `counts[i]` codes of `i + 1` bits with their symbols.
    pub(super) fn new(counts: &[u8], symbols: &[u8]) -> Result<Self> {
        let mut table =
            Table { fast: vec![0; 1 << FAST_BITS], last: [-1; 17], offset: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut index) = (0i32, 0i32);
        for (bits, &count) in (1u32..=16).zip(counts) {
            let count = i32::from(count);
            if code + count > 1 << bits {
                return Err(Refusal::broken("one of its Huffman tables has too many codes"));
            }
            table.offset[bits as usize] = index - code;
            if count > 0 {
                table.last[bits as usize] = code + count - 1;
            }
            if bits <= FAST_BITS {
                let width = 1usize << (FAST_BITS - bits);
                for i in 0..count {
                    let entry = (bits as u16) << 8 | u16::from(symbols[(index + i) as usize]);
                    let start = (code + i) as usize * width;
                    table.fast[start..start + width].fill(entry);
                }
            }
            index += count;
            code = (code + count) << 1;
        }
        Ok(table)
    }
}

/// Reads one scan's entropy-coded data.
pub(super) struct Huffman<'a> {
    data: &'a [u8],
    pos: usize,
    /// The next bits, the newest lowest.
    bits: u64,
    n_bits: u32,
    /// How many zero bits were added behind the data's end.
    padding: u32,
    dc: [Option<&'a Table>; 4],
    ac: [Option<&'a Table>; 4],
    last_dc: [i32; 4],
    /// Blocks without further coefficients in this band.
    end_of_band: u32,
}

impl<'a> Huffman<'a> {
    /// A reader that starts at `pos`; the tables are those of the scan's components.
    pub(super) fn new(data: &'a [u8], pos: usize, dc: [Option<&'a Table>; 4], ac: [Option<&'a Table>; 4]) -> Self {
        Huffman { data, pos, bits: 0, n_bits: 0, padding: 0, dc, ac, last_dc: [0; 4], end_of_band: 0 }
    }

    /// Where the next marker may be looked for.
    pub(super) fn position(&self) -> usize {
        self.pos
    }

    /// Starts again behind a restart marker.
    pub(super) fn restart(&mut self, pos: usize) {
        (self.pos, self.bits, self.n_bits, self.padding) = (pos, 0, 0, 0);
        (self.last_dc, self.end_of_band) = ([0; 4], 0);
    }

    fn refill(&mut self) {
        // Four bytes at once where none of them is special.
        if self.n_bits <= 32
            && let Some(&bytes) = self.data.get(self.pos..).and_then(|rest| rest.first_chunk::<4>())
            && !bytes.contains(&0xff)
        {
            self.bits = self.bits << 32 | u64::from(u32::from_be_bytes(bytes));
            self.n_bits += 32;
            self.pos += 4;
            return;
        }
        while self.n_bits <= 48 {
            let byte = match (self.data.get(self.pos), self.data.get(self.pos + 1)) {
                (Some(0xff), Some(0)) => {
                    self.pos += 2;
                    0xff
                }
                // A fill byte.
                (Some(0xff), Some(0xff)) => {
                    self.pos += 1;
                    continue;
                }
                // A marker, or the end of the file.
                (Some(0xff), _) | (None, _) => {
                    self.padding += 8;
                    0
                }
                (Some(&byte), _) => {
                    self.pos += 1;
                    byte
                }
            };
            self.bits = self.bits << 8 | u64::from(byte);
            self.n_bits += 8;
        }
    }

    /// The next `n <= 16` bits; `symbol` has made sure that they are there.
    #[inline]
    fn take(&mut self, n: u32) -> u32 {
        if self.n_bits < n {
            self.refill();
        }
        self.n_bits -= n;
        (self.bits >> self.n_bits) as u32 & ((1 << n) - 1)
    }

    fn bit(&mut self) -> bool {
        self.take(1) == 1
    }

    /// The next `n` bits as a signed value, T.81 figure F.12.
    #[inline]
    fn value(&mut self, n: u32) -> i32 {
        let value = self.take(n) as i32;
        if n > 0 && value < 1 << (n - 1) { value - (1 << n) + 1 } else { value }
    }

    #[inline]
    fn symbol(&mut self, table: Option<&'a Table>) -> Result<u32> {
        let table = table.ok_or_else(|| Refusal::broken("one of its Huffman tables is missing"))?;
        if self.n_bits < 32 {
            self.refill();
        }
        let next = (self.bits >> (self.n_bits - 16)) as u32 & 0xffff;
        let fast = table.fast[(next >> (16 - FAST_BITS)) as usize];
        if fast != 0 {
            self.n_bits -= u32::from(fast >> 8);
            return Ok(u32::from(fast & 0xff));
        }
        for bits in FAST_BITS + 1..=16 {
            let code = (next >> (16 - bits)) as i32;
            if code <= table.last[bits as usize] {
                self.n_bits -= bits;
                let index = code + table.offset[bits as usize];
                return usize::try_from(index)
                    .ok()
                    .and_then(|index| table.symbols.get(index))
                    .map(|&symbol| u32::from(symbol))
                    .ok_or_else(damaged);
            }
        }
        Err(if self.n_bits < self.padding + 16 { Refusal::early() } else { damaged() })
    }

    /// Decodes one block of the scan's component `slot`; `block` is in natural order.
    pub(super) fn block(&mut self, scan: &Scan, slot: usize, block: &mut [i16; 64]) -> Result<()> {
        match scan.pass {
            Pass::Sequential => {
                self.dc(slot, 0, block)?;
                self.ac_first(slot, 1, 63, 0, block)?;
                self.end_of_band = 0;
            }
            Pass::DcFirst => self.dc(slot, scan.low, block)?,
            Pass::DcRefine => {
                if self.bit() {
                    block[0] |= 1 << scan.low;
                }
            }
            Pass::AcFirst => self.ac_first(slot, scan.start, scan.end, scan.low, block)?,
            Pass::AcRefine => self.ac_refine(slot, scan, block)?,
        }
        if self.n_bits < self.padding { Err(Refusal::early()) } else { Ok(()) }
    }

    fn dc(&mut self, slot: usize, low: u32, block: &mut [i16; 64]) -> Result<()> {
        let n = self.symbol(self.dc[slot])?;
        if n > 15 {
            return Err(damaged());
        }
        self.last_dc[slot] = self.last_dc[slot].wrapping_add(self.value(n));
        block[0] = (self.last_dc[slot] << low) as i16;
        Ok(())
    }

    fn ac_first(&mut self, slot: usize, start: usize, end: usize, low: u32, block: &mut [i16; 64]) -> Result<()> {
        if self.end_of_band > 0 {
            self.end_of_band -= 1;
            return Ok(());
        }
        let table = self.ac[slot];
        let mut k = start;
        while k <= end {
            let symbol = self.symbol(table)?;
            let (run, n) = (symbol >> 4, symbol & 15);
            if n == 0 {
                if run < 15 {
                    self.end_of_band = (1 << run) - 1 + self.take(run);
                    break;
                }
                k += 16;
                continue;
            }
            k += run as usize;
            let at = *ZIGZAG.get(k).ok_or_else(damaged)?;
            block[at] = (self.value(n) << low) as i16;
            k += 1;
        }
        Ok(())
    }

    fn ac_refine(&mut self, slot: usize, scan: &Scan, block: &mut [i16; 64]) -> Result<()> {
        let step = 1i16 << scan.low;
        let table = self.ac[slot];
        let mut k = scan.start;
        if self.end_of_band == 0 {
            while k <= scan.end {
                let symbol = self.symbol(table)?;
                let (mut run, n) = (symbol >> 4, symbol & 15);
                let mut new = 0;
                if n != 0 {
                    new = if self.bit() { step } else { -step };
                } else if run < 15 {
                    self.end_of_band = (1 << run) + self.take(run);
                    break;
                }
                while k <= scan.end {
                    if block[ZIGZAG[k]] != 0 {
                        self.refine(step, &mut block[ZIGZAG[k]]);
                    } else if run == 0 {
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                if new != 0 {
                    block[*ZIGZAG.get(k).ok_or_else(damaged)?] = new;
                }
                k += 1;
            }
        }
        if self.end_of_band > 0 {
            while k <= scan.end {
                if block[ZIGZAG[k]] != 0 {
                    self.refine(step, &mut block[ZIGZAG[k]]);
                }
                k += 1;
            }
            self.end_of_band -= 1;
        }
        Ok(())
    }

    /// Reads one more bit of a coefficient that is known to be nonzero.
    fn refine(&mut self, step: i16, coefficient: &mut i16) {
        if self.bit() && *coefficient & step == 0 {
            *coefficient = coefficient.wrapping_add(if *coefficient < 0 { -step } else { step });
        }
    }
}

fn damaged() -> Refusal {
    Refusal::broken("its compressed data is damaged")
}
