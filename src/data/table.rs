//! Tables of images and labels, as mini-ImageNet's `train.csv`, `val.csv` and `test.csv` are: one file per split, or one
//! for all with a column `split`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::split::Split;
use super::{listing, text};
use crate::{Error, Result};

/// Names of the column of image files.
const FILE_COLUMNS: [&str; 14] = [
    "filename",
    "file_name",
    "file",
    "filepath",
    "file_path",
    "image",
    "image_name",
    "image_path",
    "img",
    "img_path",
    "path",
    "name",
    "image_id",
    "id",
];
/// Names of the column of labels.
const LABEL_COLUMNS: [&str; 9] =
    ["label", "labels", "class", "class_name", "classname", "category", "target", "wnid", "species"];
/// Names of the column of splits.
const SPLIT_COLUMNS: [&str; 3] = ["split", "subset", "phase"];

/// The rows of one split.
pub(super) struct Table {
    /// The file, or the folder of several.
    pub(super) path: PathBuf,
    /// Names of image files and their labels; each name once.
    pub(super) rows: Vec<Row>,
    /// Rows that repeat an earlier one.
    pub(super) repeated: usize,
}

/// One image.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The name with `/` between its parts.
    pub(super) name: String,
    /// The class.
    pub(super) label: String,
    split: Option<Split>,
}

/// Whether a split file lists image files rather than classes.
pub(super) fn is_table(file: &Path) -> bool {
    matches!(listing::extension(&file.to_string_lossy()).as_str(), "csv" | "tsv")
}

/// The rows of `split`, from `file` or from its sibling that is named after the split.
///
/// # Errors
/// [`Error::NoSplit`] without such a sibling, [`Error::Data`] for a table that cannot be understood.
pub(super) fn read(file: &Path, split: Split) -> Result<Table> {
    let rows = read_file(file)?;
    if rows.iter().any(|row| row.split.is_some()) {
        let own: Vec<Row> = rows.into_iter().filter(|row| split == Split::All || row.split == Some(split)).collect();
        if own.is_empty() {
            return Err(Error::no_split(file, format!("has no row whose split is {split}; add some")));
        }
        return unique(file, own);
    }
    let Some((own, family)) = split_of(file) else {
        return Err(Error::data(
            file,
            "is a CSV split file without a split's name; call it train.csv, val.csv or test.csv, or add a column split",
        ));
    };
    if own == split {
        return unique(file, rows);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "cannot list the folder", source))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_table(path) && path.is_file())
        .filter(|path| {
            split_of(path).is_some_and(|(of, other)| other == family && (split == Split::All || of == split))
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [] => Err(Error::no_split(folder, format!("has no {split}.csv beside {}; add it", file.display()))),
        [path] => unique(path, read_file(path)?),
        all if split == Split::All => {
            let rows: Result<Vec<Vec<Row>>> = all.iter().map(|path| read_file(path)).collect();
            unique(folder, rows?.concat())
        }
        [first, second, ..] => Err(Error::data(
            folder,
            format!(
                "has two tables for the {split} split, {} and {}; keep one",
                listing::file_name(first),
                listing::file_name(second)
            ),
        )),
    }
}

/// The split that a table is named after, and what it is a split of.
fn split_of(path: &Path) -> Option<(Split, String)> {
    Split::of_stem(&path.file_stem()?.to_string_lossy())
}

/// Each image once; an image with two labels is refused.
fn unique(path: &Path, rows: Vec<Row>) -> Result<Table> {
    let mut labels: HashMap<String, String> = HashMap::with_capacity(rows.len());
    let mut own = Vec::with_capacity(rows.len());
    let mut repeated = 0;
    for row in rows {
        match labels.get(&row.name) {
            None => {
                labels.insert(row.name.clone(), row.label.clone());
                own.push(row);
            }
            Some(label) if *label == row.label => repeated += 1,
            Some(label) => {
                return Err(Error::data(
                    path,
                    format!(
                        "gives {:?} two labels, {label:?} and {:?}; an image has one class, remove a line",
                        row.name, row.label
                    ),
                ));
            }
        }
    }
    Ok(Table { path: path.to_path_buf(), rows: own, repeated })
}

fn read_file(path: &Path) -> Result<Vec<Row>> {
    let text = text::read(path, "split file")?;
    // Spreadsheets write `sep=;` as a first line.
    let (named, body) = match text.strip_prefix("sep=").and_then(|rest| rest.split_once('\n')) {
        Some((separator, body)) => (separator.trim_end_matches('\r').bytes().next(), body),
        None => (None, text.as_str()),
    };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(named.unwrap_or_else(|| separator(path, body)))
        .from_reader(body.as_bytes());
    let records = reader.records().collect::<std::result::Result<Vec<_>, _>>();
    let mut records = records
        .map_err(|error| Error::data(path, format!("is not a table ({error}); correct the line")))?
        .into_iter()
        .filter(|record| record.iter().any(|cell| !cell.is_empty()))
        .peekable();

    let header: Vec<String> =
        records.peek().map(|row| row.iter().map(str::to_ascii_lowercase).collect()).unwrap_or_default();
    let column = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|cell| cell == name));
    let (name_at, label_at) = match (column(&FILE_COLUMNS), column(&LABEL_COLUMNS)) {
        (Some(name), Some(label)) => {
            records.next();
            (name, label)
        }
        // Without a header: which of two columns is a file is seen from its name.
        (None, None) if header.len() == 2 && listing::is_image_name(&header[0]) => (0, 1),
        (None, None) if header.len() == 2 && listing::is_image_name(&header[1]) => (1, 0),
        (name, _) => {
            let missing = if name.is_some() { "label" } else { "filename" };
            return Err(Error::data(path, format!("has no column {missing:?}; its first line must be filename,label")));
        }
    };
    let split_at = column(&SPLIT_COLUMNS);

    let mut rows = Vec::new();
    for record in records {
        let line = record.position().map_or(0, |position| position.line()) + u64::from(named.is_some());
        let (Some(name), Some(label)) =
            (record.get(name_at).filter(|cell| !cell.is_empty()), record.get(label_at).filter(|cell| !cell.is_empty()))
        else {
            return Err(Error::data(path, format!("line {line} has no file name or no label; complete it")));
        };
        if record.iter().skip(header.len()).any(|cell| !cell.is_empty()) {
            return Err(Error::data(
                path,
                format!(
                    "line {line} has {} cells, the first line {}; put quotes around a cell that contains the separator",
                    record.len(),
                    header.len()
                ),
            ));
        }
        let split = match split_at.map(|at| record.get(at).unwrap_or_default()) {
            None => None,
            Some(word) => Some(Split::from_name(word).ok_or_else(|| {
                Error::data(path, format!("line {line} has the unknown split {word:?}; write train, val or novel"))
            })?),
        };
        rows.push(Row { name: portable(name), label: label.to_owned(), split });
    }
    if rows.is_empty() {
        return Err(Error::data(path, "lists no images; add lines filename,label"));
    }
    Ok(rows)
}

/// The separator: what the first line has most of, outside quotes.
fn separator(path: &Path, text: &str) -> u8 {
    if listing::extension(&path.to_string_lossy()) == "tsv" {
        return b'\t';
    }
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut quoted = false;
    let mut counts = [(0, b'\t'), (0, b';'), (0, b',')];
    for byte in first.bytes() {
        quoted ^= byte == b'"';
        counts.iter_mut().filter(|(_, separator)| !quoted && *separator == byte).for_each(|(n, _)| *n += 1);
    }
    // Of equals the last: the comma.
    counts.iter().max_by_key(|(n, _)| *n).map_or(b',', |&(_, separator)| separator)
}

/// A name with `/` between its parts, and without `./` before it.
fn portable(name: &str) -> String {
    let name = name.replace('\\', "/");
    name.trim_start_matches("./").to_owned()
}
