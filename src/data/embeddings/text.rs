//! Tables of text: CSV, and a JSON object per line. A number is written with the digits that give the same float32 back.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Table, damaged, line};
use crate::{Error, Result};

const PATH: &str = "path";

/// The shortest digits that give the same number back, without a row of zeros.
fn digits(x: f32) -> String {
    let size = x.abs();
    if size == 0.0 || !x.is_finite() || (1e-4..1e7).contains(&size) { x.to_string() } else { format!("{x:e}") }
}

pub(super) fn write_csv(table: &mut dyn Table, out: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let names = (0..table.columns()).map(|i| format!("e{i}"));
    writer.write_record([PATH.to_owned()].into_iter().chain(names))?;
    table.visit(&mut |path, row| {
        writer.write_field(path)?;
        for &x in row {
            writer.write_field(digits(x))?;
        }
        Ok(writer.write_record(None::<&[u8]>)?)
    })?;
    writer.flush()
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    embedding: &'a [f32],
}

pub(super) fn write_jsonl(table: &mut dyn Table, out: &mut dyn Write) -> io::Result<()> {
    table.visit(&mut |path, row| {
        if row.iter().any(|x| !x.is_finite()) {
            let why =
                format!("the embedding of {} has a number that is not finite, which JSON does not have", line(path));
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        serde_json::to_writer(&mut *out, &Line { path, embedding: row })?;
        out.write_all(b"\n")
    })
}

pub(super) struct CsvRows {
    path: PathBuf,
    reader: csv::Reader<File>,
    record: csv::StringRecord,
    columns: usize,
}

impl CsvRows {
    pub(super) fn open(path: &Path) -> Result<CsvRows> {
        let file = File::open(path).map_err(|e| Error::io(path, "cannot read the embeddings", e))?;
        let mut reader = csv::Reader::from_reader(file);
        let names = reader.headers().map_err(|e| damaged(path, e))?;
        let numbered = names.iter().skip(1).enumerate().all(|(i, name)| name == format!("e{i}"));
        if names.get(0) != Some(PATH) || names.len() < 2 || !numbered {
            return Err(Error::data(path, "is no table of embeddings: its columns are path, e0, e1, ..."));
        }
        let columns = names.len() - 1;
        Ok(CsvRows { path: path.to_owned(), reader, record: csv::StringRecord::new(), columns })
    }
}

impl super::Rows for CsvRows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        if !self.reader.read_record(&mut self.record).map_err(|e| damaged(&self.path, e))? {
            return Ok(None);
        }
        row.clear();
        for field in self.record.iter().skip(1) {
            row.push(field.parse().map_err(|_| {
                // It may be anything.
                let shown: String = field.chars().take(20).flat_map(char::escape_debug).collect();
                damaged(&self.path, format!("`{shown}` is no number"))
            })?);
        }
        Ok(self.record.get(0).map(line))
    }
}

#[derive(Deserialize)]
struct OwnedLine {
    path: String,
    embedding: Vec<f32>,
}

pub(super) struct JsonRows {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    first: Option<OwnedLine>,
    columns: usize,
}

impl JsonRows {
    pub(super) fn open(path: &Path) -> Result<JsonRows> {
        let file = File::open(path).map_err(|e| Error::io(path, "cannot read the embeddings", e))?;
        let mut rows = JsonRows { path: path.to_owned(), lines: BufReader::new(file).lines(), first: None, columns: 0 };
        rows.first = rows.line()?;
        rows.columns = rows.first.as_ref().map_or(0, |first| first.embedding.len());
        Ok(rows)
    }

    fn line(&mut self) -> Result<Option<OwnedLine>> {
        let Some(text) = self.lines.next() else { return Ok(None) };
        let text = text.map_err(|e| damaged(&self.path, e))?;
        let line: OwnedLine = serde_json::from_str(&text).map_err(|e| damaged(&self.path, e))?;
        Ok(Some(line))
    }
}

impl super::Rows for JsonRows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => self.line()?,
        };
        let Some(next) = next else { return Ok(None) };
        if next.embedding.len() != self.columns {
            let (n, columns) = (next.embedding.len(), self.columns);
            return Err(damaged(&self.path, format!("a row has {n} numbers, and the first has {columns}")));
        }
        *row = next.embedding;
        Ok(Some(line(&next.path)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn digits_give_the_same_number_back() {
        let odd = [0.0, -0.0, 1.0, -1.5, 0.1, 1e-30, f32::MIN_POSITIVE, f32::MAX, 16_777_216.0, 1e-45, 123_456.79];
        for x in odd {
            assert_eq!(digits(x).parse::<f32>().unwrap().to_bits(), x.to_bits(), "{}", digits(x));
            assert!(digits(x).len() <= 15, "{}", digits(x));
        }
    }
}
