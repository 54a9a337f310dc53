//! Tables that jobs write as CSV.

use std::path::Path;

use super::own_file;
use crate::{Error, Result};

/// Whether a table may be written to `file`: where there is one, it must be of these columns.
pub(super) fn table_file(what: &str, file: &Path, example: &str, columns: &[&str]) -> Result<()> {
    own_file(what, file, example, "such table", |file| {
        let Ok(mut reader) = csv::Reader::from_path(file) else { return false };
        reader.headers().is_ok_and(|names| names.iter().take(columns.len()).eq(columns.iter().copied()))
    })
}

/// Encodes a table.
pub(super) fn table_bytes(rows: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>> {
    let internal = |e: String| Error::Internal(format!("the table cannot be encoded: {e}"));
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|e| internal(e.to_string()))?;
    }
    writer.into_inner().map_err(|e| internal(e.to_string()))
}
