//! Tables that jobs write as CSV.

use std::path::Path;

use super::output_file;
use crate::{Error, Result};

/// Whether a table may be written to `file`: where there is one, it must be of these columns.
pub(super) fn table_file(what: &str, file: &Path, columns: &[&str]) -> Result<()> {
    output_file(what, file, "answers.csv")?;
    let own = || {
        let mut reader = csv::ReaderBuilder::new().from_path(file).ok()?;
        Some(reader.headers().ok()?.iter().take(columns.len()).eq(columns.iter().copied()))
    };
    if file.exists() && own() != Some(true) {
        return Err(Error::data(
            file,
            format!("this file is no such table, and `{what}` would replace it: name another"),
        ));
    }
    Ok(())
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
