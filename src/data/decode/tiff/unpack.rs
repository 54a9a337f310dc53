//! One strip or tile: decompressed, and its predictor undone.

use std::io::Read;

use super::Layout;
use crate::data::decode::{Refusal, jpeg};

type Result<T> = std::result::Result<T, Refusal>;

/// The `rows * layout.row_bytes` bytes of one chunk.
pub(super) fn unpack(layout: &Layout, packed: &[u8], rows: usize) -> Result<Vec<u8>> {
    let mut reversed = Vec::new();
    let packed = if layout.fill_order == 2 && layout.compression != 7 {
        reversed.extend(packed.iter().map(|byte| byte.reverse_bits()));
        &reversed
    } else {
        packed
    };
    let wanted = layout.chunk_bytes(rows);
    let mut bytes = Vec::new();
    match layout.compression {
        1 => bytes.extend_from_slice(packed.get(..wanted).ok_or_else(Refusal::early)?),
        5 => {
            bytes.resize(wanted, 0);
            lzw(packed, &mut bytes)?;
        }
        8 | 32_946 => {
            let read = flate2::read::ZlibDecoder::new(packed).take(wanted as u64).read_to_end(&mut bytes);
            if read.is_err() || bytes.len() < wanted {
                return Err(Refusal::broken("its compressed data is damaged or ends early"));
            }
        }
        32_773 => pack_bits(packed, wanted, &mut bytes)?,
        7 => return jpeg_chunk(layout, packed, rows),
        3 | 4 => return fax(layout, packed, rows),
        other => return Err(unknown_compression(other)),
    }
    if layout.predictor != 1 {
        for row in bytes.chunks_exact_mut(layout.row_bytes) {
            undo_predictor(layout, row)?;
        }
    }
    Ok(bytes)
}

fn unknown_compression(number: u64) -> Refusal {
    let name = match number {
        2 => "CCITT modified Huffman compression",
        6 => "old-style JPEG compression",
        34_712 | 33_003 | 33_005 => "JPEG 2000 compression",
        34_925 => "LZMA compression",
        50_000 => "Zstandard compression",
        50_001 => "WebP compression",
        50_002 => "JPEG XL compression",
        34_676 | 34_677 => "LogLuv colours",
        other => return Refusal::kind(&format!("is a TIFF with compression {other}, which is not read")),
    };
    Refusal::kind(&format!("is a TIFF with {name}, which is not read"))
}

fn lzw(packed: &[u8], out: &mut [u8]) -> Result<()> {
    // Files from before TIFF 6 have their bits the other way round.
    if packed.starts_with(&[0]) && packed.get(1).is_some_and(|byte| byte & 1 == 1) {
        return Err(Refusal::kind("is a TIFF with the old kind of LZW compression, which is not read"));
    }
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let step = decoder.decode_bytes(&packed[read..], &mut out[written..]);
        read += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(weezl::LzwStatus::Ok) if step.consumed_in + step.consumed_out > 0 => {}
            Ok(_) if written < out.len() => return Err(Refusal::early()),
            Ok(_) => {}
            Err(_) => return Err(Refusal::broken("its compressed data is damaged")),
        }
    }
    Ok(())
}

fn pack_bits(packed: &[u8], wanted: usize, bytes: &mut Vec<u8>) -> Result<()> {
    let mut pos = 0;
    while bytes.len() < wanted {
        let n = *packed.get(pos).ok_or_else(Refusal::early)? as i8;
        pos += 1;
        if n >= 0 {
            let end = pos + n as usize + 1;
            bytes.extend_from_slice(packed.get(pos..end).ok_or_else(Refusal::early)?);
            pos = end;
        } else if n != -128 {
            let byte = *packed.get(pos).ok_or_else(Refusal::early)?;
            bytes.resize(bytes.len() + usize::from(n.unsigned_abs()) + 1, byte);
            pos += 1;
        }
    }
    bytes.truncate(wanted);
    Ok(())
}

fn jpeg_chunk(layout: &Layout, packed: &[u8], rows: usize) -> Result<Vec<u8>> {
    let colour = if layout.photometric == 6 { jpeg::Colour::Ycc } else { jpeg::Colour::Plain };
    // A unit more than the chunk, as encoders may round up.
    let largest = (layout.chunk.0 + 32, layout.chunk.1 + 32);
    let chunk = jpeg::decode_samples(layout.jpeg_tables, packed, colour, largest)?;
    if chunk.channels != layout.channels || layout.bits != 8 {
        return Err(Refusal::broken("its JPEG data has another number of channels than its tags say"));
    }
    let mut bytes = vec![0; rows * layout.row_bytes];
    let from = chunk.width as usize * chunk.channels;
    for (out, row) in bytes.chunks_exact_mut(layout.row_bytes).zip(chunk.samples.chunks_exact(from)) {
        let n = out.len().min(from);
        out[..n].copy_from_slice(&row[..n]);
    }
    if (chunk.height as usize) < rows || from < layout.row_bytes {
        return Err(Refusal::early());
    }
    Ok(bytes)
}

/// Bilevel fax: group 3 without references between rows, and group 4. Set bits are black.
fn fax(layout: &Layout, packed: &[u8], rows: usize) -> Result<Vec<u8>> {
    let (width, height) = (layout.chunk.0, rows);
    if layout.bits != 1 || layout.channels != 1 {
        return Err(Refusal::broken("fax compression is for one bit per pixel"));
    }
    if layout.compression == 3 && layout.fax_options & 1 != 0 {
        return Err(Refusal::kind("is a TIFF with two-dimensional group 3 fax compression, which is not read"));
    }
    let (Ok(width16), Ok(height16)) = (u16::try_from(width), u16::try_from(height)) else {
        return Err(Refusal::early());
    };
    let mut bytes = Vec::with_capacity(rows * layout.row_bytes);
    let add = |changes: &[u16]| {
        if bytes.len() >= rows * layout.row_bytes {
            return;
        }
        let mut row = vec![0u8; layout.row_bytes];
        for (x, colour) in fax::decoder::pels(changes, width16).enumerate() {
            if colour == fax::Color::Black {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
        bytes.extend(row);
    };
    let input = packed.iter().copied();
    // Group 3 need not have an end mark: whether all rows are there decides.
    match layout.compression {
        4 => fax::decoder::decode_g4(input, width16, Some(height16), add).unwrap_or(()),
        // The last row counts once an end of line follows it.
        _ => fax::decoder::decode_g3(input.chain([0, 1, 0, 1]), add).unwrap_or(()),
    }
    if bytes.len() < rows * layout.row_bytes { Err(Refusal::early()) } else { Ok(bytes) }
}

/// Sums the differences along one row.
fn undo_predictor(layout: &Layout, row: &mut [u8]) -> Result<()> {
    let (channels, bytes) = (layout.channels, layout.bits / 8);
    match (layout.predictor, layout.bits) {
        (2, 8 | 16 | 32 | 64) => {
            for at in (channels * bytes..row.len()).step_by(bytes) {
                let mut carry = 0;
                // From the lowest byte up.
                for i in 0..bytes {
                    let i = if layout.big_endian { bytes - 1 - i } else { i };
                    let sum = u16::from(row[at + i]) + u16::from(row[at + i - channels * bytes]) + carry;
                    row[at + i] = sum as u8;
                    carry = sum >> 8;
                }
            }
        }
        (3, 16 | 32 | 64) if layout.format == 3 => {
            for at in channels..row.len() {
                row[at] = row[at].wrapping_add(row[at - channels]);
            }
            // The highest bytes of all samples come first.
            let planes = row.to_vec();
            let n = row.len() / bytes;
            for (i, sample) in row.chunks_exact_mut(bytes).enumerate() {
                for (j, byte) in sample.iter_mut().enumerate() {
                    let plane = if layout.big_endian { j } else { bytes - 1 - j };
                    *byte = planes[plane * n + i];
                }
            }
        }
        (predictor, bits) => {
            return Err(Refusal::kind(&format!(
                "is a TIFF with predictor {predictor} on {bits} bits, which is not read"
            )));
        }
    }
    Ok(())
}
