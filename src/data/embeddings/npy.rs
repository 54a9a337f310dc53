//! NumPy arrays with a list of paths beside them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};

use npyz::{NpyFile, NpyReader, WriterBuilder};

use super::{Table, damaged, line, list_beside};
use crate::{Error, Result};

pub(super) fn write(table: &mut dyn Table, out: &mut dyn Write) -> io::Result<()> {
    let shape = [table.rows() as u64, table.columns() as u64];
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(out).begin_nd()?;
    table.visit(&mut |_, row| writer.extend(row.iter().copied()))?;
    writer.finish()
}

pub(super) struct Rows {
    array: PathBuf,
    list: PathBuf,
    values: NpyReader<f32, BufReader<File>>,
    lines: Lines<BufReader<File>>,
    columns: usize,
    left: u64,
}

impl Rows {
    pub(super) fn open(array: &Path) -> Result<Rows> {
        let io = |path: &Path, what: &str, e| Error::io(path, what, e);
        let file = File::open(array).map_err(|e| io(array, "cannot read the embeddings", e))?;
        let npy = NpyFile::new(BufReader::new(file)).map_err(|e| damaged(array, e))?;
        let &[rows, columns] = npy.shape() else {
            let shape = npy.shape();
            return Err(Error::data(
                array,
                format!("holds an array of shape {shape:?}, and embeddings are rows x columns"),
            ));
        };
        let values = npy.data::<f32>().map_err(|e| {
            Error::data(array, format!("does not hold float32 ({e}): save it with astype(\"float32\")"))
        })?;
        let list = list_beside(array);
        let what = "cannot read the list of paths, which lies beside an array";
        let lines = BufReader::new(File::open(&list).map_err(|e| io(&list, what, e))?).lines();
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
