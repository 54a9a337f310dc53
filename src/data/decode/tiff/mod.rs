//! TIFF: strips and tiles, 1 to 64 bits, gray, RGB, palette, CMYK and YCbCr, of several pictures the first.
//!
//! Integers of up to 16 bits are scaled to 8. Wider integers, signed ones and floats have no agreed white;
//! they are taken as 0 to 255, as Pillow does, and refused where they do not lie there.

mod directory;
mod unpack;

use self::directory::Directory;
use super::{MAX_DECODE_BYTES, Refusal, check_size, jpeg};
use image::RgbImage;

type Result<T> = std::result::Result<T, Refusal>;

/// More samples per pixel than this are refused.
const MAX_CHANNELS: u64 = 64;

/// What the tags say of the chunks.
struct Layout<'a> {
    width: usize,
    height: usize,
    /// Width and height of a strip or tile.
    chunk: (usize, usize),
    /// Bits of one sample.
    bits: usize,
    /// 1 unsigned, 2 signed, 3 float.
    format: u64,
    /// Samples of a pixel that lie in one chunk, and in the whole picture.
    channels: usize,
    all_channels: usize,
    row_bytes: usize,
    compression: u64,
    photometric: u64,
    predictor: u64,
    fill_order: u64,
    fax_options: u64,
    /// Horizontal and vertical subsampling of uncompressed colour differences.
    subsampling: (usize, usize),
    big_endian: bool,
    jpeg_tables: &'a [u8],
}

/// Samples of the whole picture, interleaved.
enum Samples {
    /// Scaled to 8 bits, or indices.
    Bytes(Vec<u8>),
    /// As they are.
    Numbers(Vec<f32>),
}

/// Decodes the first picture to RGB; alpha is dropped, after associated alpha has been divided out.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let directory = Directory::read(bytes)?;
    let layout = Layout::read(&directory)?;
    let samples = read_chunks(&directory, &layout)?;
    let samples = match samples {
        Samples::Bytes(samples) => samples,
        Samples::Numbers(numbers) => to_bytes(&numbers)?,
    };
    let colour = Colour::read(&directory, &layout)?;
    let pixels = samples.chunks_exact(layout.all_channels).flat_map(|pixel| colour.rgb(pixel)).collect();
    RgbImage::from_raw(layout.width as u32, layout.height as u32, pixels).ok_or_else(Refusal::early)
}

impl<'a> Layout<'a> {
    fn read(directory: &Directory<'a>) -> Result<Self> {
        let (width, height) = (directory.value(256, 0)?, directory.value(257, 0)?);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        check_size(narrow(width), narrow(height))?;
        let (width, height) = (width as usize, height as usize);
        let samples_per_pixel = directory.value(277, 1)?;
        if samples_per_pixel == 0 || samples_per_pixel > MAX_CHANNELS {
            return Err(Refusal::kind(&format!("is a TIFF with {samples_per_pixel} samples per pixel")));
        }
        let bits = directory.list(258)?;
        let format = directory.list(339)?;
        if bits.windows(2).any(|pair| pair[0] != pair[1]) || format.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Refusal::kind("is a TIFF whose channels have different depths, which is not read"));
        }
        let bits = bits.first().copied().unwrap_or(1);
        let format = match format.first() {
            None | Some(4) => 1,
            Some(&format) => format,
        };
        let is_known = match format {
            1 => (1..=16).contains(&bits) || bits == 32,
            2 => matches!(bits, 8 | 16 | 32),
            3 => matches!(bits, 16 | 32 | 64),
            _ => false,
        };
        if !is_known {
            let name = ["", "unsigned", "signed", "float"].get(format as usize).copied().unwrap_or("complex");
            return Err(Refusal::kind(&format!("is a TIFF with {bits}-bit {name} samples, which is not read")));
        }
        let all_channels = samples_per_pixel as usize;
        let planar = directory.value(284, 1)? == 2 && all_channels > 1;
        let channels = if planar { 1 } else { all_channels };
        let tile = (directory.value(322, 0)?, directory.value(323, 0)?);
        let is_tiled = tile.0 > 0 && tile.1 > 0;
        let chunk = if is_tiled {
            check_size(narrow(tile.0), narrow(tile.1))?;
            (tile.0 as usize, tile.1 as usize)
        } else {
            (width, directory.value(278, u64::from(u32::MAX))?.clamp(1, height as u64) as usize)
        };
        let compression = directory.value(259, 1)?;
        let photometric = directory.value(262, if all_channels >= 3 { 2 } else { 1 })?;
        let subsampling = match directory.list(530)?[..] {
            _ if photometric != 6 || compression == 7 => (1, 1),
            [h, v, ..] => (h as usize, v as usize),
            _ => (2, 2),
        };
        let layout = Layout {
            width,
            height,
            chunk,
            bits: bits as usize,
            format,
            channels,
            all_channels,
            row_bytes: (chunk.0 * channels * bits as usize).div_ceil(8),
            compression,
            photometric,
            predictor: directory.value(317, 1)?.max(1),
            fill_order: directory.value(266, 1)?,
            fax_options: directory.value(292, 0)?,
            subsampling,
            big_endian: directory.big_endian,
            jpeg_tables: directory.raw(347),
        };
        let is_subsampled = subsampling != (1, 1);
        if is_subsampled
            && (planar
                || bits != 8
                || all_channels != 3
                || ![1, 2, 4].contains(&subsampling.0)
                || ![1, 2, 4].contains(&subsampling.1))
        {
            return Err(Refusal::kind("is a TIFF with an unusual subsampling of its colours, which is not read"));
        }
        // Whole tiles, and four bytes per sample where samples are kept as numbers.
        let samples = (width as u64).max(chunk.0 as u64) * (height as u64).max(chunk.1 as u64) * samples_per_pixel;
        if samples * if layout.keeps_numbers() { 4 } else { 1 } > MAX_DECODE_BYTES {
            return Err(Refusal::TooLarge(width as u32, height as u32));
        }
        Ok(layout)
    }

    fn keeps_numbers(&self) -> bool {
        self.format != 1 || self.bits > 16
    }

    /// Bytes of a chunk of `rows` rows.
    fn chunk_bytes(&self, rows: usize) -> usize {
        let (h, v) = self.subsampling;
        if (h, v) == (1, 1) { rows * self.row_bytes } else { self.chunk.0.div_ceil(h) * rows.div_ceil(v) * (h * v + 2) }
    }
}

fn read_chunks(directory: &Directory, layout: &Layout) -> Result<Samples> {
    let is_tiled = directory.value(322, 0)? > 0 && directory.value(323, 0)? > 0;
    let (offset_tag, count_tag) = if is_tiled { (324, 325) } else { (273, 279) };
    let (offsets, counts) = (directory.list(offset_tag)?, directory.list(count_tag)?);
    let (across, down) = (layout.width.div_ceil(layout.chunk.0), layout.height.div_ceil(layout.chunk.1));
    let n_planes = layout.all_channels / layout.channels;
    if offsets.len() < across * down * n_planes {
        return Err(Refusal::early());
    }
    let n = layout.width * layout.height * layout.all_channels;
    let mut samples = if layout.keeps_numbers() { Samples::Numbers(vec![0.0; n]) } else { Samples::Bytes(vec![0; n]) };
    for (i, &offset) in offsets.iter().take(across * down * n_planes).enumerate() {
        let (plane, tile) = (i / (across * down), i % (across * down));
        let (left, top) = (tile % across * layout.chunk.0, tile / across * layout.chunk.1);
        let seen = (layout.chunk.0.min(layout.width - left), layout.chunk.1.min(layout.height - top));
        let rows = if is_tiled { layout.chunk.1 } else { seen.1 };
        let rest = usize::try_from(offset).ok().and_then(|offset| directory.bytes.get(offset..));
        let rest = rest.ok_or_else(Refusal::early)?;
        // A missing or wrong count is no harm where the data says its own end.
        let count = counts.get(i).map_or(rest.len(), |&count| (count as usize).min(rest.len()));
        let mut bytes = unpack::unpack(layout, &rest[..count], rows)?;
        if layout.subsampling != (1, 1) {
            bytes = spread_colours(layout, &bytes, rows);
        }
        for y in 0..seen.1 {
            let row = &bytes[y * layout.row_bytes..(y + 1) * layout.row_bytes];
            let start = ((top + y) * layout.width + left) * layout.all_channels + plane;
            let values = 0..seen.0 * layout.channels;
            let step = n_planes;
            match &mut samples {
                Samples::Bytes(out) if layout.bits == 8 && step == 1 => {
                    out[start..start + values.len()].copy_from_slice(&row[..values.len()]);
                }
                Samples::Bytes(out) => values.for_each(|x| out[start + x * step] = layout.byte(row, x)),
                Samples::Numbers(out) => values.for_each(|x| out[start + x * step] = layout.number(row, x)),
            }
        }
    }
    Ok(samples)
}

impl Layout<'_> {
    /// Sample `x` of a row, scaled to 8 bits; an index as it is.
    fn byte(&self, row: &[u8], x: usize) -> u8 {
        let value = match self.bits {
            8 => u32::from(row[x]),
            16 => u32::from(self.pair(row, x)),
            bits => (x * bits..(x + 1) * bits)
                .fold(0, |value, bit| value << 1 | u32::from(row[bit / 8] >> (7 - bit % 8) & 1)),
        };
        let largest = (1u32 << self.bits) - 1;
        if self.photometric == 3 { value.min(255) as u8 } else { ((value * 255 + largest / 2) / largest) as u8 }
    }

    fn pair(&self, row: &[u8], x: usize) -> u16 {
        let bytes = [row[2 * x], row[2 * x + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    /// Sample `x` of a row as it is.
    fn number(&self, row: &[u8], x: usize) -> f32 {
        let n = self.bits / 8;
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(&row[x * n..(x + 1) * n]);
        if self.big_endian {
            bytes[..n].reverse();
        }
        let four = [bytes[0], bytes[1], bytes[2], bytes[3]];
        match (self.format, n) {
            (3, 2) => half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
            (3, 4) => f32::from_le_bytes(four),
            (3, _) => f64::from_le_bytes(bytes) as f32,
            (2, 1) => f32::from(bytes[0] as i8),
            (2, 2) => f32::from(i16::from_le_bytes([bytes[0], bytes[1]])),
            (2, _) => i32::from_le_bytes(four) as f32,
            _ => u32::from_le_bytes(four) as f32,
        }
    }
}

/// Gives every pixel of uncompressed, subsampled YCbCr its own colour differences.
fn spread_colours(layout: &Layout, bytes: &[u8], rows: usize) -> Vec<u8> {
    let (h, v) = layout.subsampling;
    let across = layout.chunk.0.div_ceil(h);
    let mut out = vec![0; rows * layout.row_bytes];
    for (y, row) in out.chunks_exact_mut(layout.row_bytes).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let unit = &bytes[(y / v * across + x / h) * (h * v + 2)..][..h * v + 2];
            pixel.copy_from_slice(&[unit[y % v * h + x % h], unit[h * v], unit[h * v + 1]]);
        }
    }
    out
}

/// Numbers from 0 to 255 as bytes, cut off as Pillow does.
fn to_bytes(numbers: &[f32]) -> Result<Vec<u8>> {
    let (least, most) = numbers.iter().fold((f32::MAX, f32::MIN), |(least, most), &x| (least.min(x), most.max(x)));
    if numbers.iter().any(|x| !x.is_finite()) {
        return Err(Refusal::kind("is a TIFF with values that are not finite; save it with 8 bits"));
    }
    let is_fraction = most <= 1.0 && numbers.iter().any(|x| x.fract() != 0.0);
    if is_fraction || least < -0.5 || most >= 256.0 {
        return Err(Refusal::kind(&format!(
            "is a TIFF whose values lie from {least} to {most}, and of floats, signed and 32-bit integers 0 to 255 is read"
        )));
    }
    Ok(numbers.iter().map(|&x| x.clamp(0.0, 255.0) as u8).collect())
}

/// From the samples of one pixel to RGB.
enum Colour {
    Gray { invert: bool, associated: bool },
    Rgb { associated: bool },
    Palette(Vec<[u8; 3]>),
    Cmyk,
    Ycc,
}

impl Colour {
    fn read(directory: &Directory, layout: &Layout) -> Result<Self> {
        let n = layout.all_channels;
        let n_colours = match layout.photometric {
            2 | 6 => 3,
            5 => 4,
            _ => 1,
        };
        if n < n_colours {
            return Err(Refusal::broken("it has fewer channels than its colours need"));
        }
        let associated = n > n_colours && directory.value(338, 0)? == 1;
        Ok(match layout.photometric {
            0 | 1 => Colour::Gray { invert: layout.photometric == 0, associated },
            2 => Colour::Rgb { associated },
            3 => {
                if layout.bits > 8 || layout.keeps_numbers() {
                    return Err(Refusal::kind("is a TIFF with a palette of more than 256 colours, which is not read"));
                }
                let map = directory.list(320)?;
                let n = map.len() / 3;
                // Some writers give values of 8 bits where 16 belong.
                let shift = if map.iter().any(|&value| value > 255) { 8 } else { 0 };
                let at = |i: usize| (map[i] >> shift) as u8;
                Colour::Palette((0..n).map(|i| [at(i), at(n + i), at(2 * n + i)]).collect())
            }
            5 => Colour::Cmyk,
            6 if layout.compression == 7 => Colour::Rgb { associated: false },
            6 => {
                let usual = |tag, usual: &[f64]| -> Result<bool> {
                    let given = directory.fractions(tag)?;
                    Ok(given.is_empty() || given.iter().zip(usual).all(|(a, b)| (a - b).abs() < 0.01))
                };
                if !usual(529, &[0.299, 0.587, 0.114])? || !usual(532, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0])? {
                    return Err(Refusal::kind("is a TIFF with an unusual kind of YCbCr colours, which is not read"));
                }
                Colour::Ycc
            }
            8..=10 => return Err(Refusal::kind("is a TIFF in L*a*b* colours, which is not read")),
            other => return Err(Refusal::kind(&format!("is a TIFF with colours of kind {other}, which is not read"))),
        })
    }

    fn rgb(&self, pixel: &[u8]) -> [u8; 3] {
        match self {
            Colour::Gray { invert, associated } => {
                let y = if *associated { divide(pixel[0], pixel[1]) } else { pixel[0] };
                [if *invert { 255 - y } else { y }; 3]
            }
            Colour::Rgb { associated: false } => [pixel[0], pixel[1], pixel[2]],
            Colour::Rgb { associated: true } => [0, 1, 2].map(|i| divide(pixel[i], pixel[3])),
            Colour::Palette(colours) => colours.get(usize::from(pixel[0])).copied().unwrap_or_default(),
            Colour::Cmyk => jpeg::cmyk_to_rgb([pixel[0], pixel[1], pixel[2], pixel[3]]),
            Colour::Ycc => jpeg::ycc_to_rgb(pixel[0], pixel[1], pixel[2]),
        }
    }
}

/// Undoes the multiplication with alpha, as Pillow does.
fn divide(colour: u8, alpha: u8) -> u8 {
    if alpha == 0 { colour } else { (u32::from(colour) * 255 / u32::from(alpha)).min(255) as u8 }
}
