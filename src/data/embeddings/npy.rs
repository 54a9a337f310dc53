//! NumPy arrays with a list of paths beside them. Written as float32; float16, as which others keep them, is read, too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};

use half::f16;
use npyz::{NpyFile, Order, WriterBuilder};

use super::{Table, damaged, line, list_beside};
use crate::{Error, Result};

pub(super) fn write(table: &mut dyn Table, out: &mut dyn Write) -> io::Result<()> {
    let shape = [table.rows() as u64, table.columns() as u64];
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(out).begin_nd()?;
    table.visit(&mut |_, row| writer.extend(row.iter().copied()))?;
    writer.finish()
}

/// The numbers of an array, row by row.
pub type Values = Box<dyn Iterator<Item = io::Result<f32>>>;

/// Opens an array.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] where it cannot be read.
pub fn open(path: &Path) -> Result<NpyFile<BufReader<File>>> {
    let file = File::open(path).map_err(|e| Error::io(path, "cannot read the embeddings", e))?;
    // The parser draws what it stopped at in further lines.
    NpyFile::new(BufReader::new(file)).map_err(|e| damaged(path, e.to_string().lines().next().unwrap_or_default()))
}

/// The numbers of an array; none where it holds neither float32 nor float16.
///
/// # Errors
/// [`Error::Data`] where columns lie one after the other.
pub fn values(path: &Path, array: NpyFile<BufReader<File>>) -> Result<Option<Values>> {
    let order = array.order();
    let values: Values = match array.try_data::<f16>() {
        Ok(halves) => Box::new(halves.map(|value| value.map(f32::from))),
        Err(array) => match array.try_data::<f32>() {
            Ok(values) => Box::new(values),
            Err(_) => return Ok(None),
        },
    };
    match order {
        Order::C => Ok(Some(values)),
        _ => Err(Error::data(path, "is stored column by column: save it with numpy.ascontiguousarray")),
    }
}

pub(super) struct Rows {
    array: PathBuf,
    list: PathBuf,
    values: Values,
    lines: Lines<BufReader<File>>,
    columns: usize,
    left: u64,
}

impl Rows {
    pub(super) fn open(array: &Path) -> Result<Rows> {
        let npy = open(array)?;
        let &[rows, columns] = npy.shape() else {
            let shape = npy.shape();
            return Err(Error::data(
                array,
                format!("holds an array of shape {shape:?}, and embeddings are rows x columns"),
            ));
        };
        let values = values(array, npy)?
            .ok_or_else(|| Error::data(array, "holds neither float32 nor float16: save it with astype(\"float32\")"))?;
        let list = list_beside(array);
        let what = "cannot read the list of paths, which lies beside an array";
        let lines = BufReader::new(File::open(&list).map_err(|e| Error::io(&list, what, e))?).lines();
        let columns = usize::try_from(columns).map_err(|e| damaged(array, e))?;
        Ok(Rows { array: array.to_owned(), list, values, lines, columns, left: rows })
    }
}

impl super::Rows for Rows {
    fn columns(&self) -> usize {
        self.columns
    }

    fn next(&mut self, row: &mut Vec<f32>) -> Result<Option<String>> {
        if self.left == 0 {
            return match self.lines.next() {
                None => Ok(None),
                Some(_) => Err(damaged(&self.list, "it has more lines than the array has rows")),
            };
        }
        self.left -= 1;
        row.clear();
        for _ in 0..self.columns {
            let value = self.values.next().unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
            row.push(value.map_err(|e| damaged(&self.array, e))?);
        }
        match self.lines.next() {
            Some(path) => Ok(Some(line(&path.map_err(|e| damaged(&self.list, e))?))),
            None => Err(damaged(&self.list, "it has fewer lines than the array has rows")),
        }
    }
}
