//! Safetensors files, written and read as streams: the crate's own functions hold all tensors in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Read, Seek, SeekFrom, Take, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Table, damaged, line};
use crate::{Error, Result};

const EMBEDDINGS: &str = "embeddings";
const PATHS: &str = "paths";
/// The largest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in the header.
#[derive(Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

#[derive(Serialize)]
struct Header<'a> {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<&'a str, &'a str>,
    embeddings: Entry,
    paths: Entry,
}

pub(super) fn write(table: &mut dyn Table, about: &[(&str, String)], out: &mut dyn Write) -> io::Result<()> {
    let mut text = 0;
    table.paths(&mut |path| {
        text += line(path).len() as u64 + 1;
        Ok(())
    })?;
    let (rows, columns) = (table.rows() as u64, table.columns() as u64);
    let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "the rows are more than a file can hold");
    let numbers = rows.checked_mul(columns).and_then(|n| n.checked_mul(4)).ok_or_else(too_large)?;
    let end = numbers.checked_add(text).ok_or_else(too_large)?;
    let header = Header {
        metadata: about.iter().map(|(key, value)| (*key, value.as_str())).collect(),
        embeddings: Entry { dtype: "F32".into(), shape: vec![rows, columns], data_offsets: [0, numbers] },
        paths: Entry { dtype: "U8".into(), shape: vec![text], data_offsets: [numbers, end] },
    };
    let mut header = serde_json::to_vec(&header)?;
    // The tensors begin at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    table.visit(&mut |_, row| row.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())))?;
    table.paths(&mut |path| writeln!(out, "{}", line(path)))
}

pub(super) struct Rows {
    path: PathBuf,
    numbers: BufReader<Take<File>>,
    lines: Lines<BufReader<Take<File>>>,
    columns: usize,
    left: u64,
    bytes: Vec<u8>,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Rows> {
        let io = |e| Error::io(path, "cannot read the embeddings", e);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|e| damaged(path, e))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER || length + 8 > size {
            return Err(damaged(path, "its header is longer than the file"));
        }
        let mut header = Vec::new();
        (&mut file).take(length).read_to_end(&mut header).map_err(io)?;
        let header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|e| damaged(path, e))?;
        let entry = |name: &str| -> Result<Entry> {
            let value = header.get(name).cloned().ok_or_else(|| {
                let why = format!("has no tensor {name}, as `embed` writes it: name a file of embeddings");
                Error::data(path, why)
            })?;
            let entry: Entry = serde_json::from_value(value).map_err(|e| damaged(path, e))?;
            let [begin, end] = entry.data_offsets;
            match begin <= end && (8 + length).checked_add(end).is_some_and(|end| end <= size) {
                true => Ok(entry),
                false => Err(damaged(path, format!("the tensor {name} ends behind the file"))),
            }
        };
        let (embeddings, paths) = (entry(EMBEDDINGS)?, entry(PATHS)?);
        let &[rows, columns] = embeddings.shape.as_slice() else {
            return Err(damaged(path, "embeddings are rows x columns"));
        };
        let bytes = embeddings.data_offsets[1] - embeddings.data_offsets[0];
        if embeddings.dtype != "F32" || rows.checked_mul(columns).and_then(|n| n.checked_mul(4)) != Some(bytes) {
            return Err(damaged(path, "embeddings are F32 and as many as their shape says"));
        }
        if paths.dtype != "U8" {
            return Err(damaged(path, "paths are U8"));
        }
        let part = |entry: &Entry| -> Result<BufReader<Take<File>>> {
            let mut file = File::open(path).map_err(io)?;
            let [begin, end] = entry.data_offsets;
            file.seek(SeekFrom::Start(8 + length + begin)).map_err(io)?;
            Ok(BufReader::new(file.take(end - begin)))
        };
        let columns = usize::try_from(columns).map_err(|e| damaged(path, e))?;
        let (numbers, lines) = (part(&embeddings)?, part(&paths)?.lines());
        Ok(Rows { path: path.to_owned(), numbers, lines, columns, left: rows, bytes: Vec::new() })
    }
}

impl super::Rows for Rows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        // What the header promises is there: the file's size was compared with it.
        self.bytes.resize(4 * self.columns, 0);
        self.numbers.read_exact(&mut self.bytes).map_err(|e| damaged(&self.path, e))?;
        row.clear();
        row.extend(self.bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        match self.lines.next() {
            Some(path) => Ok(Some(path.map_err(|e| damaged(&self.path, e))?)),
            None => Err(damaged(&self.path, "it has fewer paths than rows")),
        }
    }
}
