//! JPEG (ITU-T T.81) with 8 bits per sample: sequential and progressive, Huffman and arithmetic coding, every
//! sampling. The pixels are those of libjpeg's defaults, which Pillow uses.
//!
//! The `image` crate's decoder refuses or mistakes several of these kinds, fills a cut-off file with gray,
//! and cannot tell a cut-off file from one with data behind its end (motion photos).

mod arithmetic;
mod huffman;
mod planes;

use self::arithmetic::{Arithmetic, Conditioning};
use self::huffman::{Huffman, Table};
pub(super) use self::planes::{cmyk_to_rgb, ycc_to_rgb};
use super::{MAX_DECODE_BYTES, Refusal, check_size};
use image::RgbImage;

type Result<T> = std::result::Result<T, Refusal>;

/// Index in natural order of the coefficients in the file's zigzag order.
#[rustfmt::skip]
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// More scans than any encoder writes: each costs a pass over the whole picture.
const MAX_SCANS: usize = 500;

/// What a file's three or four components mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// As the file's own markers say.
    Marked,
    /// Red, green and blue (or cyan, magenta, yellow and black) as they are.
    Plain,
    /// Luminance and two colour differences.
    Ycc,
}

/// What one scan says of its blocks' coefficients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Sequential,
    DcFirst,
    DcRefine,
    AcFirst,
    AcRefine,
}

struct Scan {
    pass: Pass,
    /// First and last coefficient.
    start: usize,
    end: usize,
    /// Lower bits that are not yet said.
    low: u32,
}

struct Component {
    id: u8,
    h: usize,
    v: usize,
    quant_slot: usize,
    /// The table that held when its first scan began.
    quant: Option<[u16; 64]>,
    /// Samples that count.
    width: usize,
    height: usize,
    /// Blocks that a scan of this component alone has.
    blocks: (usize, usize),
    /// Samples from row to row; whole units.
    stride: usize,
    plane: Vec<u8>,
    /// Of a progressive picture, 64 coefficients per block.
    coefficients: Vec<i16>,
    /// Per coefficient the lower bits that are still missing, or `None` while nothing is known.
    missing: [Option<u32>; 64],
}

/// Decoded samples of the components, interleaved.
pub(super) struct Samples {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) channels: usize,
    pub(super) samples: Vec<u8>,
}

/// Decodes a whole file to RGB as Pillow's `convert("RGB")` does.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let picture = decode_samples(&[], bytes, Colour::Marked, (usize::MAX, usize::MAX))?;
    let pixels = match picture.channels {
        1 => picture.samples.iter().flat_map(|&y| [y; 3]).collect(),
        3 => picture.samples,
        // Adobe stores inks inverted, and so does every program since.
        _ => picture
            .samples
            .chunks_exact(4)
            .flat_map(|ink| cmyk_to_rgb([255 - ink[0], 255 - ink[1], 255 - ink[2], 255 - ink[3]]))
            .collect(),
    };
    RgbImage::from_raw(picture.width, picture.height, pixels).ok_or_else(|| Refusal::broken("its size is wrong"))
}

/// Decodes `bytes`, after the tables of another stream (a TIFF's), to one, three or four channels of at most
/// this width and height.
pub(super) fn decode_samples(tables: &[u8], bytes: &[u8], colour: Colour, largest: (usize, usize)) -> Result<Samples> {
    let mut decoder = Decoder { largest, ..Decoder::default() };
    decoder.huffman_tables(&huffman::STANDARD)?;
    if !tables.is_empty() {
        decoder.read(tables)?;
    }
    decoder.read(bytes)?;
    decoder.finish(colour)
}

#[derive(Default)]
struct Decoder {
    largest: (usize, usize),
    size: (usize, usize),
    components: Vec<Component>,
    /// The frame's largest sampling factors.
    most: (usize, usize),
    progressive: bool,
    arithmetic: bool,
    quant: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    conditioning: Conditioning,
    restart_interval: usize,
    n_scans: usize,
    jfif: bool,
    adobe: Option<u8>,
}

impl Decoder {
    /// Reads markers and scans up to the end marker.
    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let mut pos = 2;
        loop {
            let Some((marker, after)) = next_marker(bytes, pos) else {
                // A missing end marker costs nothing where all coefficients are there.
                let whole = self.components.iter().all(|c| c.missing.iter().all(|&bits| bits == Some(0)));
                return if whole && !self.components.is_empty() { Ok(()) } else { Err(Refusal::early()) };
            };
            pos = after;
            match marker {
                0xd9 => return Ok(()),
                0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let length = bytes.get(pos..pos + 2).ok_or_else(Refusal::early)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let segment = bytes.get(pos + 2..pos + length.max(2)).ok_or_else(Refusal::early)?;
            pos += length.max(2);
            match marker {
                0xc4 => self.huffman_tables(segment)?,
                0xcc => self.conditioning(segment)?,
                0xdb => self.quantisation(segment)?,
                0xc0..=0xc2 | 0xc9 | 0xca => self.frame(marker, segment)?,
                0xc3 | 0xcb => return Err(Refusal::kind("is a lossless JPEG, which is not read")),
                0xc5..=0xc7 | 0xcd..=0xcf => return Err(Refusal::kind("is a hierarchical JPEG, which is not read")),
                0xdd => self.restart_interval = usize::from(u16_at(segment, 0)?),
                0xe0 => self.jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= 14,
                0xee if segment.starts_with(b"Adobe") && segment.len() >= 12 => self.adobe = Some(segment[11]),
                0xda => pos = self.scan(segment, bytes, pos)?,
                _ => {}
            }
        }
    }

    fn quantisation(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let bytes = if head >> 4 == 0 { 1 } else { 2 };
            let values = rest.get(..64 * bytes).ok_or_else(Refusal::early)?;
            let slot = self.quant.get_mut(usize::from(head & 15)).ok_or_else(bad_header)?;
            let mut table = [0; 64];
            for (value, &at) in values.chunks_exact(bytes).zip(&ZIGZAG) {
                table[at] = value.iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
            }
            *slot = Some(table);
            segment = &rest[64 * bytes..];
        }
        Ok(())
    }

    fn huffman_tables(&mut self, mut segment: &[u8]) -> Result<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let counts = rest.get(..16).ok_or_else(Refusal::early)?;
            let n: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(16..16 + n).ok_or_else(Refusal::early)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15)).ok_or_else(bad_header)? = Some(Table::new(counts, symbols)?);
            segment = &rest[16 + n..];
        }
        Ok(())
    }

    fn conditioning(&mut self, segment: &[u8]) -> Result<()> {
        for pair in segment.chunks_exact(2) {
            let slot = usize::from(pair[0] & 15);
            if slot > 3 {
                return Err(bad_header());
            }
            match pair[0] >> 4 {
                0 => self.conditioning.dc[slot] = (pair[1] & 15, pair[1] >> 4),
                _ => self.conditioning.ac[slot] = pair[1],
            }
        }
        Ok(())
    }

    fn frame(&mut self, marker: u8, segment: &[u8]) -> Result<()> {
        if !self.components.is_empty() {
            return Err(Refusal::kind("holds two JPEG frames in one picture, which is not read"));
        }
        self.progressive = matches!(marker, 0xc2 | 0xca);
        self.arithmetic = marker >= 0xc9;
        let bits = *segment.first().ok_or_else(Refusal::early)?;
        if bits != 8 {
            return Err(Refusal::kind(&format!("is a JPEG with {bits} bits per sample, and 8 are read")));
        }
        let (height, width) = (usize::from(u16_at(segment, 1)?), usize::from(u16_at(segment, 3)?));
        check_size(width as u32, height as u32)?;
        if width > self.largest.0 || height > self.largest.1 {
            return Err(bad_header());
        }
        let entries = segment.get(6..).ok_or_else(Refusal::early)?;
        let n = usize::from(segment[5]);
        if !matches!(n, 1 | 3 | 4) {
            return Err(Refusal::kind(&format!("is a JPEG with {n} components, and 1, 3 and 4 are read")));
        }
        let entries: Vec<&[u8]> = entries.chunks_exact(3).take(n).collect();
        let factors = |entry: &&[u8]| (usize::from(entry[1] >> 4), usize::from(entry[1] & 15));
        if entries.len() < n || !entries.iter().map(factors).all(|(h, v)| (1..=4).contains(&h) && (1..=4).contains(&v))
        {
            return Err(bad_header());
        }
        let most_h = entries.iter().map(|entry| factors(entry).0).max().unwrap_or(1);
        let most_v = entries.iter().map(|entry| factors(entry).1).max().unwrap_or(1);
        let units = (width.div_ceil(8 * most_h), height.div_ceil(8 * most_v));
        let samples: usize = entries.iter().map(factors).map(|(h, v)| units.0 * h * 8 * units.1 * v * 8).sum();
        let bytes_per_sample = if self.progressive { 3 } else { 1 };
        if (samples * bytes_per_sample) as u64 > MAX_DECODE_BYTES {
            return Err(Refusal::TooLarge(width as u32, height as u32));
        }
        (self.size, self.most) = ((width, height), (most_h, most_v));
        for entry in entries {
            let (h, v) = factors(&entry);
            let (width, height) = ((width * h).div_ceil(most_h), (height * v).div_ceil(most_v));
            let stride = units.0 * h * 8;
            let n_samples = stride * units.1 * v * 8;
            self.components.push(Component {
                id: entry[0],
                h,
                v,
                quant_slot: usize::from(entry[2]),
                quant: None,
                width,
                height,
                blocks: (width.div_ceil(8), height.div_ceil(8)),
                stride,
                plane: vec![0; n_samples],
                coefficients: if self.progressive { vec![0; n_samples] } else { Vec::new() },
                missing: [None; 64],
            });
        }
        Ok(())
    }

    /// Decodes one scan whose header is `segment` and whose data starts at `pos`; where it ends.
    fn scan(&mut self, segment: &[u8], bytes: &[u8], pos: usize) -> Result<usize> {
        self.n_scans += 1;
        if self.n_scans > MAX_SCANS {
            return Err(Refusal::broken("it has more scans than any encoder writes"));
        }
        let n = usize::from(*segment.first().ok_or_else(Refusal::early)?);
        let header = segment.get(1..n * 2 + 4).ok_or_else(Refusal::early)?;
        let mut chosen = Vec::with_capacity(n);
        let (mut dc_slots, mut ac_slots) = ([0; 4], [0; 4]);
        for (slot, pair) in header[..n * 2].chunks_exact(2).enumerate() {
            let at = self.components.iter().position(|c| c.id == pair[0]).ok_or_else(bad_header)?;
            let (dc, ac) = (usize::from(pair[1] >> 4), usize::from(pair[1] & 15));
            if chosen.contains(&at) || dc > 3 || ac > 3 {
                return Err(bad_header());
            }
            chosen.push(at);
            (dc_slots[slot], ac_slots[slot]) = (dc, ac);
        }
        let scan = self.describe(&header[n * 2..], n)?;
        for &at in &chosen {
            let component = &mut self.components[at];
            if component.quant.is_none() {
                let table = self.quant.get(component.quant_slot).copied().flatten();
                component.quant = Some(table.ok_or_else(|| Refusal::broken("a quantisation table is missing"))?);
            }
            component.missing[scan.start..=scan.end].fill(Some(scan.low));
        }
        let (dc, ac) = (dc_slots.map(|i| self.dc[i].as_ref()), ac_slots.map(|i| self.ac[i].as_ref()));
        let mut coder = if self.arithmetic {
            let tables = std::array::from_fn(|slot| (dc_slots[slot], ac_slots[slot]));
            Coder::Arithmetic(Box::new(Arithmetic::new(bytes, pos, self.conditioning, tables)))
        } else {
            Coder::Huffman(Box::new(Huffman::new(bytes, pos, dc, ac)))
        };

        // A scan of one component has one block per unit; others have h times v of each component.
        let single = chosen.len() == 1;
        let (across, down) = if single {
            self.components[chosen[0]].blocks
        } else {
            (self.size.0.div_ceil(8 * self.most.0), self.size.1.div_ceil(8 * self.most.1))
        };
        let mut until_restart = self.restart_interval;
        let mut next_restart = 0xd0;
        for unit_y in 0..down {
            for unit_x in 0..across {
                if self.restart_interval > 0 && until_restart == 0 {
                    match next_marker(bytes, coder.position()) {
                        Some((marker, after)) if marker == next_restart => coder.restart(after),
                        None => return Err(Refusal::early()),
                        Some(_) => return Err(Refusal::broken("a restart marker is missing")),
                    }
                    next_restart = 0xd0 | (next_restart + 1) & 7;
                    until_restart = self.restart_interval;
                }
                until_restart = until_restart.wrapping_sub(1);
                for (slot, &at) in chosen.iter().enumerate() {
                    let component = &mut self.components[at];
                    let (h, v) = if single { (1, 1) } else { (component.h, component.v) };
                    for y in unit_y * v..unit_y * v + v {
                        for x in unit_x * h..unit_x * h + h {
                            component.block(x, y, |block| coder.block(&scan, slot, block))?;
                        }
                    }
                }
            }
        }
        Ok(coder.position())
    }

    /// The kind of scan that the last three bytes of its header say.
    fn describe(&self, header: &[u8], n: usize) -> Result<Scan> {
        let &[start, end, approximation, ..] = header else { return Err(Refusal::early()) };
        if self.components.is_empty() || n == 0 {
            return Err(bad_header());
        }
        if !self.progressive {
            return Ok(Scan { pass: Pass::Sequential, start: 0, end: 63, low: 0 });
        }
        let (high, low) = (approximation >> 4, approximation & 15);
        let (start, end) = (usize::from(start), usize::from(end));
        let band_is_valid = if start == 0 { end == 0 } else { start <= end && end < 64 && n == 1 };
        if !band_is_valid || low > 13 || (high != 0 && high != low + 1) {
            return Err(bad_header());
        }
        let pass = match (start, high) {
            (0, 0) => Pass::DcFirst,
            (0, _) => Pass::DcRefine,
            (_, 0) => Pass::AcFirst,
            _ => Pass::AcRefine,
        };
        Ok(Scan { pass, start, end, low: u32::from(low) })
    }

    /// Turns the components into interleaved samples.
    fn finish(mut self, colour: Colour) -> Result<Samples> {
        let (width, height) = self.size;
        let channels = self.components.len();
        if channels == 0 || self.components.iter().any(|component| component.missing[0].is_none()) {
            return Err(Refusal::early());
        }
        for component in &mut self.components {
            component.transform();
        }
        let ycc = match (channels, colour) {
            (1, _) | (_, Colour::Plain) => false,
            (_, Colour::Ycc) => true,
            (4, Colour::Marked) => self.adobe == Some(2),
            (_, Colour::Marked) => {
                let named_rgb = self.components.iter().map(|c| c.id).eq(*b"RGB");
                self.jfif || self.adobe.map_or(!named_rgb, |transform| transform != 0)
            }
        };
        let mut samples = vec![0; width * height * channels];
        let mut rows = vec![vec![0; width]; channels];
        let mut sums = Vec::new();
        for (y, out) in samples.chunks_exact_mut(width * channels).enumerate() {
            for (component, row) in self.components.iter().zip(&mut rows) {
                planes::upsample_row(component, self.most, y, row, &mut sums);
            }
            interleave(&rows, ycc, out);
        }
        Ok(Samples { width: width as u32, height: height as u32, channels, samples })
    }
}

impl Component {
    /// Lets `fill` decode the block at `(x, y)`; a sequential one becomes samples at once.
    fn block(&mut self, x: usize, y: usize, fill: impl FnOnce(&mut [i16; 64]) -> Result<()>) -> Result<()> {
        if self.coefficients.is_empty() {
            let mut block = [0; 64];
            fill(&mut block)?;
            if let Some(quant) = &self.quant {
                let start = y * 8 * self.stride + x * 8;
                planes::inverse_dct(&block, quant, &mut self.plane[start..], self.stride);
            }
            return Ok(());
        }
        let start = (y * (self.stride / 8) + x) * 64;
        let (blocks, _) = self.coefficients[start..].as_chunks_mut();
        blocks.first_mut().map_or(Ok(()), fill)
    }

    /// Makes a progressive component's samples.
    fn transform(&mut self) {
        let (blocks, _) = self.coefficients.as_chunks();
        let Some(quant) = &self.quant else { return };
        let across = self.stride / 8;
        for (i, block) in blocks.iter().enumerate() {
            let start = i / across * 8 * self.stride + i % across * 8;
            planes::inverse_dct(block, quant, &mut self.plane[start..], self.stride);
        }
        self.coefficients = Vec::new();
    }
}

/// Writes one row of every component pixel by pixel, in RGB or CMYK where it is YCbCr or YCCK.
fn interleave(rows: &[Vec<u8>], ycc: bool, out: &mut [u8]) {
    match (rows, ycc) {
        ([y, cb, cr], true) => {
            for (((out, &y), &cb), &cr) in out.as_chunks_mut().0.iter_mut().zip(y).zip(cb).zip(cr) {
                *out = ycc_to_rgb(y, cb, cr);
            }
        }
        ([y, cb, cr, k], true) => {
            for ((((out, &y), &cb), &cr), &k) in out.as_chunks_mut().0.iter_mut().zip(y).zip(cb).zip(cr).zip(k) {
                // Inks are the complement of red, green and blue.
                let [c, m, y] = ycc_to_rgb(y, cb, cr).map(|c| 255 - c);
                *out = [c, m, y, k];
            }
        }
        _ => {
            for (x, out) in out.chunks_exact_mut(rows.len()).enumerate() {
                for (out, row) in out.iter_mut().zip(rows) {
                    *out = row[x];
                }
            }
        }
    }
}

/// The two ways of coding coefficients.
enum Coder<'a> {
    Huffman(Box<Huffman<'a>>),
    Arithmetic(Box<Arithmetic<'a>>),
}

impl Coder<'_> {
    fn block(&mut self, scan: &Scan, slot: usize, block: &mut [i16; 64]) -> Result<()> {
        match self {
            Coder::Huffman(coder) => coder.block(scan, slot, block),
            Coder::Arithmetic(coder) => coder.block(scan, slot, block),
        }
    }
    fn restart(&mut self, pos: usize) {
        match self {
            Coder::Huffman(coder) => coder.restart(pos),
            Coder::Arithmetic(coder) => coder.restart(pos),
        }
    }
    fn position(&self) -> usize {
        match self {
            Coder::Huffman(coder) => coder.position(),
            Coder::Arithmetic(coder) => coder.position(),
        }
    }
}

/// The next marker's second byte from `pos` on, and where it ends; bytes between markers are passed over.
fn next_marker(bytes: &[u8], pos: usize) -> Option<(u8, usize)> {
    let found = bytes.get(pos..)?.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
    Some((bytes[pos + found + 1], pos + found + 2))
}

/// The segments before the first scan: marker and content.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut pos = 2;
    std::iter::from_fn(move || {
        let (marker, after) = next_marker(bytes, pos)?;
        let length = usize::from(u16_at(bytes, after).ok()?);
        if matches!(marker, 0xda | 0xd9) || length < 2 {
            return None;
        }
        pos = after + length;
        Some((marker, bytes.get(after + 2..pos)?))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    let pair = bytes.get(at..at + 2).ok_or_else(Refusal::early)?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn bad_header() -> Refusal {
    Refusal::broken("its headers are damaged")
}
