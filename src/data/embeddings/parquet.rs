//! Parquet: a column `path`, and a column `embedding` of lists of floats, as pandas, polars and DuckDB read them.
//! Of a shard also `key`, and `error` where a picture has no embedding. Nothing is compressed: numbers of a network hardly become smaller.

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{Shard, Table, damaged, line};
use crate::{Error, Result};

const SCHEMA: &str = "message embeddings {
    required binary path (STRING);
    required group embedding (LIST) { repeated group list { required float element; } }
}";

/// That of a shard.
const SHARD_SCHEMA: &str = "message embeddings {
    required binary path (STRING);
    optional group embedding (LIST) { repeated group list { required float element; } }
    required binary key (STRING);
    optional binary error (STRING);
}";

/// Numbers of a row group, which is held in memory: 16 MiB.
const GROUP: usize = 4 << 20;

fn failed(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// The rows of a group that is being filled.
struct Group {
    rows: usize,
    columns: usize,
    shard: Option<Shard>,
    paths: Vec<ByteArray>,
    numbers: Vec<f32>,
}

impl Group {
    /// Writes the rows, or where there are none, of `left_out` path and reason.
    fn write<W: Write + Send>(
        &mut self,
        writer: &mut SerializedFileWriter<W>,
        left_out: &[(String, String)],
    ) -> parquet::errors::Result<()> {
        let missing = || ParquetError::General("the schema has more columns".into());
        let (with, without) = (self.paths.len(), left_out.len());
        self.paths.extend(left_out.iter().map(|(path, _)| ByteArray::from(path.as_str())));
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        column.typed::<ByteArrayType>().write_batch(&self.paths, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        // 0 begins a row. No number is missing, but the whole list of a picture that was left out.
        let mut repetition: Vec<i16> = (0..self.numbers.len()).map(|i| i16::from(i % self.columns != 0)).collect();
        let mut definition = vec![1 + i16::from(self.shard.is_some()); self.numbers.len()];
        repetition.resize(repetition.len() + without, 0);
        definition.resize(definition.len() + without, 0);
        column.typed::<FloatType>().write_batch(&self.numbers, Some(&definition), Some(&repetition))?;
        column.close()?;
        if let Some(shard) = &self.shard {
            let key = |path: &ByteArray| Ok(ByteArray::from(shard.key(path.as_utf8()?)));
            let keys = self.paths.iter().map(key).collect::<parquet::errors::Result<Vec<_>>>()?;
            let mut column = group.next_column()?.ok_or_else(missing)?;
            column.typed::<ByteArrayType>().write_batch(&keys, None, None)?;
            column.close()?;
            let why: Vec<ByteArray> = left_out.iter().map(|(_, why)| why.as_str().into()).collect();
            let definition = [vec![0; with], vec![1; without]].concat();
            let mut column = group.next_column()?.ok_or_else(missing)?;
            column.typed::<ByteArrayType>().write_batch(&why, Some(&definition), None)?;
            column.close()?;
        }
        group.close()?;
        self.paths.clear();
        self.numbers.clear();
        Ok(())
    }
}

pub(super) fn write(table: &mut dyn Table, out: &mut (dyn Write + Send)) -> io::Result<()> {
    let shard = table.shard();
    let schema = if shard.is_some() { SHARD_SCHEMA } else { SCHEMA };
    let schema = Arc::new(parse_message_type(schema).map_err(failed)?);
    let properties = WriterProperties::builder()
        .set_created_by(concat!("ieq-wgpu ", env!("CARGO_PKG_VERSION")).into())
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties)).map_err(failed)?;
    let columns = table.columns();
    let rows = (GROUP / columns.max(1)).max(1);
    let left_out = shard.as_ref().map(|shard| shard.left_out.clone()).unwrap_or_default();
    let mut group = Group { rows, columns, shard, paths: Vec::new(), numbers: Vec::new() };
    table.visit(&mut |path, row| {
        group.paths.push(path.into());
        group.numbers.extend_from_slice(row);
        if group.paths.len() == group.rows { group.write(&mut writer, &[]).map_err(failed) } else { Ok(()) }
    })?;
    if !group.paths.is_empty() {
        group.write(&mut writer, &[]).map_err(failed)?;
    }
    // They stand last.
    for left_out in left_out.chunks(rows) {
        group.write(&mut writer, left_out).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    Ok(())
}

/// A column of one row group, read a row at a time.
struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    definition: Vec<i16>,
    repetition: Vec<i16>,
}

impl<T: DataType> Column<T> {
    fn new(reader: ColumnReaderImpl<T>) -> Self {
        Column { reader, definition: Vec::new(), repetition: Vec::new() }
    }

    /// Replaces `values` by those of the next row; whether there is one. A row whose value is missing has none.
    fn next(&mut self, values: &mut Vec<T::T>) -> parquet::errors::Result<bool> {
        values.clear();
        self.definition.clear();
        self.repetition.clear();
        let (definition, repetition) = (Some(&mut self.definition), Some(&mut self.repetition));
        Ok(self.reader.read_records(1, definition, repetition, values)?.0 == 1)
    }

    /// Whether the value of the row that was read is missing: it is defined at no level.
    fn is_missing(&self) -> bool {
        self.definition == [0]
    }
}

/// Whether a column of a row group lies in a file of `bytes` bytes, which its reader takes for granted.
fn check(column: &ColumnChunkMetaData, bytes: u64) -> std::result::Result<(), &'static str> {
    let begin = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let begin = u64::try_from(begin).ok();
    let end = begin.zip(u64::try_from(column.compressed_size()).ok()).and_then(|(begin, size)| begin.checked_add(size));
    if end.is_none_or(|end| end > bytes) { Err("a column lies outside of it") } else { Ok(()) }
}

pub(super) struct Rows {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// The places of path and embedding among the file's columns.
    places: (usize, usize),
    /// Whether pictures without an embedding are among the rows.
    is_shard: bool,
    next_group: usize,
    group: Option<(Column<ByteArrayType>, Column<FloatType>)>,
    first: Option<(String, Vec<f32>)>,
    columns: usize,
}

/// The reader of hostile files may still have a panic in it: none.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Option<Result<T>> {
    catch_unwind(AssertUnwindSafe(read)).ok()
}

fn confused<T>(path: &Path) -> Result<T> {
    Err(damaged(path, "its content confuses the reader"))
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Rows> {
        guarded(|| Rows::unguarded(path)).unwrap_or_else(|| confused(path))
    }

    fn unguarded(path: &Path) -> Result<Rows> {
        let file = File::open(path).map_err(|e| Error::io(path, "cannot read the embeddings", e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path, "cannot read the embeddings", e))?.len();
        let file = SerializedFileReader::new(file).map_err(|e| damaged(path, e))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let place = |name: &str| {
            let own = |i: &usize| schema.column(*i).path().parts().first().is_some_and(|part| part == name);
            (0..schema.num_columns()).find(own).ok_or_else(|| {
                Error::data(path, format!("has no column {name}, as `embed` writes it: name a file of embeddings"))
            })
        };
        let places = (place("path")?, place("embedding")?);
        for group in file.metadata().row_groups() {
            for place in [places.0, places.1] {
                check(group.column(place), bytes).map_err(|why| damaged(path, why))?;
            }
        }
        let is_shard = place("error").is_ok();
        let mut rows =
            Rows { path: path.to_owned(), file, places, is_shard, next_group: 0, group: None, first: None, columns: 0 };
        rows.first = rows.read()?;
        rows.columns = rows.first.as_ref().map_or(0, |(_, row)| row.len());
        Ok(rows)
    }

    fn read(&mut self) -> Result<Option<(String, Vec<f32>)>> {
        let path = self.path.clone();
        let failed = |e: ParquetError| damaged(&path, e);
        loop {
            if let Some((names, numbers)) = &mut self.group {
                let (mut name, mut row) = (Vec::new(), Vec::new());
                if names.next(&mut name).map_err(failed)? {
                    let found = numbers.next(&mut row).map_err(failed)?;
                    if found && row.is_empty() && self.is_shard && numbers.is_missing() {
                        // A picture that could not be read.
                        continue;
                    }
                    let name = name.first().and_then(|name| name.as_utf8().ok()).filter(|_| found);
                    let name = name.ok_or_else(|| damaged(&path, "a row has no path or no embedding"))?;
                    return Ok(Some((name.to_owned(), row)));
                }
            }
            if self.next_group == self.file.num_row_groups() {
                return Ok(None);
            }
            let group = self.file.get_row_group(self.next_group).map_err(failed)?;
            let name = group.get_column_reader(self.places.0).map_err(failed)?;
            let numbers = group.get_column_reader(self.places.1).map_err(failed)?;
            let (ColumnReader::ByteArrayColumnReader(names), ColumnReader::FloatColumnReader(numbers)) =
                (name, numbers)
            else {
                return Err(damaged(&path, "paths are text and embeddings lists of floats"));
            };
            self.group = Some((Column::new(names), Column::new(numbers)));
            self.next_group += 1;
        }
    }
}

impl super::Rows for Rows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        let next = match self.first.take() {
            Some(first) => Some(first),
            None => guarded(|| self.read()).unwrap_or_else(|| confused(&self.path))?,
        };
        let Some((path, numbers)) = next else { return Ok(None) };
        if numbers.len() != self.columns {
            let (n, columns) = (numbers.len(), self.columns);
            return Err(damaged(&self.path, format!("a row has {n} numbers, and the first has {columns}")));
        }
        *row = numbers;
        Ok(Some(line(&path)))
    }
}
