//! The tags of a TIFF's first picture: both byte orders, classic and big TIFF.

use std::collections::BTreeMap;

use crate::data::decode::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

/// More values of one tag than this are refused.
const MAX_VALUES: usize = 1 << 22;

/// Tags by number; values are read when they are asked for.
pub(super) struct Directory<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) big_endian: bool,
    /// Kind, count and where the values lie.
    entries: BTreeMap<u16, (u16, usize, usize)>,
}

impl<'a> Directory<'a> {
    /// Reads the first directory.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut directory = Directory { bytes, big_endian: bytes.starts_with(b"MM"), entries: BTreeMap::new() };
        // A big TIFF has wider counts and offsets.
        let wide = directory.number(2, 2)? == 43;
        let (start, count_bytes, offset_bytes) =
            if wide { (directory.number(8, 8)?, 8, 8) } else { (directory.number(4, 4)?, 2, 4) };
        let start = usize::try_from(start).map_err(|_| Refusal::early())?;
        let n = directory.number(start, count_bytes)?.min(bytes.len() as u64) as usize;
        for i in 0..n {
            let entry = start + count_bytes + i * (4 + 2 * offset_bytes);
            let (tag, kind) = (directory.number(entry, 2)? as u16, directory.number(entry + 2, 2)? as u16);
            let count = usize::try_from(directory.number(entry + 4, offset_bytes)?).map_err(|_| Refusal::early())?;
            let inside = entry + 4 + offset_bytes;
            let fits = count.checked_mul(width(kind)).is_some_and(|bytes| bytes <= offset_bytes);
            let at = if fits { inside } else { directory.number(inside, offset_bytes)? as usize };
            directory.entries.entry(tag).or_insert((kind, count, at));
        }
        Ok(directory)
    }

    /// The unsigned number in `n` bytes at `at`.
    fn number(&self, at: usize, n: usize) -> Result<u64> {
        let bytes = at.checked_add(n).and_then(|end| self.bytes.get(at..end)).ok_or_else(Refusal::early)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Ok(if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    /// All values of a tag as unsigned numbers; empty where it is missing.
    pub(super) fn list(&self, tag: u16) -> Result<Vec<u64>> {
        let Some(&(kind, count, at)) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let step = width(kind);
        let fits = count.checked_mul(step).and_then(|n| n.checked_add(at)).is_some_and(|end| end <= self.bytes.len());
        if !fits {
            return Err(Refusal::early());
        }
        if count > MAX_VALUES {
            return Err(Refusal::broken("one of its tags has too many values"));
        }
        (0..count).map(|i| self.number(at + i * step, step)).collect()
    }

    /// The values of a tag of fractions.
    pub(super) fn fractions(&self, tag: u16) -> Result<Vec<f64>> {
        let Some(&(_, count, at)) = self.entries.get(&tag) else { return Ok(Vec::new()) };
        let fraction = |i: usize| Ok(self.number(at + i * 8, 4)? as f64 / self.number(at + i * 8 + 4, 4)? as f64);
        (0..count.min(16)).map(fraction).collect()
    }

    /// The first value of a tag, or `default`.
    pub(super) fn value(&self, tag: u16, default: u64) -> Result<u64> {
        Ok(self.list(tag)?.first().copied().unwrap_or(default))
    }

    /// The bytes of a tag.
    pub(super) fn raw(&self, tag: u16) -> &'a [u8] {
        let Some(&(kind, count, at)) = self.entries.get(&tag) else { return &[] };
        let end = count.checked_mul(width(kind)).and_then(|n| n.checked_add(at));
        end.and_then(|end| self.bytes.get(at..end)).unwrap_or(&[])
    }
}

/// Bytes of one value.
fn width(kind: u16) -> usize {
    match kind {
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 1,
    }
}
