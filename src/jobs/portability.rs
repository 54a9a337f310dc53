//! Two extractions of the same pictures, compared row by row: whether another machine gives the same embeddings.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::data::embeddings::{Format, Reader};
use crate::{Error, Result};

/// How far two extractions are apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The earlier extraction.
    pub file: PathBuf,
    /// Rows of both.
    pub rows: usize,
    /// Rows without one of the same path in the earlier extraction.
    pub only_here: usize,
    /// Rows of the earlier extraction without one here.
    pub only_there: usize,
    /// The largest difference of two numbers.
    pub largest_difference: f64,
    /// The largest relative difference: that of a row is its largest difference over its largest number there.
    pub largest_relative: f64,
    /// The least cosine of two rows.
    pub least_cosine: f64,
    /// The path of the row with the largest relative difference.
    pub worst: String,
    /// The largest relative difference that is allowed.
    pub tolerance: f64,
}

impl Comparison {
    /// Fails where the difference is beyond the tolerance.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with both.
    pub fn within(&self) -> Result<()> {
        // NaN fails.
        if self.largest_relative <= self.tolerance {
            return Ok(());
        }
        Err(Error::TargetMissed(format!(
            "the embeddings differ from {} by {:.2e} relative at {}, beyond `request.tolerance` {:e}: take the same \
             checkpoint, layer and pictures, or look with `check` whether the device computes rightly",
            self.file.display(),
            self.largest_relative,
            self.worst,
            self.tolerance
        )))
    }
}

/// The folder that all paths have in common, with its slash; paths are compared with `/` between folders.
#[derive(Debug, Default)]
struct Common(Option<String>);

impl Common {
    fn add(&mut self, path: &str) {
        let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        let common = match &self.0 {
            None => folder.to_owned(),
            Some(common) => {
                let same = common.bytes().zip(folder.bytes()).take_while(|(a, b)| a == b).count();
                let same = common.as_bytes()[..same].iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
                common[..same].to_owned()
            }
        };
        self.0 = Some(common);
    }

    fn strip<'p>(&self, path: &'p str) -> &'p str {
        self.0.as_deref().and_then(|common| path.strip_prefix(common)).unwrap_or(path)
    }
}

fn plain(path: &str) -> String {
    path.replace('\\', "/")
}

/// Compares the rows of `here` with those of `there`, matched by path, or where the first path of neither is among those
/// of the other by path below the folder that all paths of each have in common, so that two machines may have the
/// pictures in different places. Rows in the same order are compared as streams; others wait in memory.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] for a file that cannot be read, other columns, or no row in common.
pub(super) fn compare(here: &Path, format: Format, there: &Path, tolerance: f64) -> Result<Comparison> {
    let open = || Ok::<_, Error>((Reader::open_as(here, format)?, Reader::open(there)?));
    let (mut own, mut other) = open()?;
    if own.columns() != other.columns() {
        let (here, columns) = (own.columns(), other.columns());
        return Err(Error::data(
            there,
            format!(
                "has {columns} numbers per row, and the embeddings here have {here}: take the same `request.layer` and checkpoint"
            ),
        ));
    }
    let mut row = Vec::new();
    let (mut own_folder, mut other_folder) = (Common::default(), Common::default());
    let (mut own_first, mut other_first) = (None, None);
    // Whether the first of one is among the others, as it is where one has some of the other's pictures.
    let mut by_whole_path = false;
    if let Some(path) = own.next(&mut row)? {
        let path = plain(&path);
        own_folder.add(&path);
        own_first = Some(path);
    }
    while let Some(path) = other.next(&mut row)? {
        let path = plain(&path);
        other_folder.add(&path);
        by_whole_path |= own_first.as_ref() == Some(&path);
        other_first.get_or_insert(path);
    }
    by_whole_path |= own_first == other_first;
    while let Some(path) = own.next(&mut row)? {
        let path = plain(&path);
        own_folder.add(&path);
        by_whole_path |= other_first.as_ref() == Some(&path);
    }
    if by_whole_path {
        (own_folder, other_folder) = Default::default();
    }

    (own, other) = open()?;
    let mut comparison = Comparison {
        file: there.to_owned(),
        rows: 0,
        only_here: 0,
        only_there: 0,
        largest_difference: 0.0,
        largest_relative: 0.0,
        least_cosine: 1.0,
        worst: String::new(),
        tolerance,
    };
    // Rows whose partners have not come yet.
    let (mut of_own, mut of_other): (HashMap<String, Vec<f32>>, HashMap<String, Vec<f32>>) = Default::default();
    loop {
        let a = own.next(&mut row)?.map(|path| own_folder.strip(&plain(&path)).to_owned());
        let a_row = row.clone();
        let b = other.next(&mut row)?.map(|path| other_folder.strip(&plain(&path)).to_owned());
        match (a, b) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => comparison.add(&a, &a_row, &row),
            (a, b) => {
                if let Some(a) = a {
                    match of_other.remove(&a) {
                        Some(partner) => comparison.add(&a, &a_row, &partner),
                        None => drop(of_own.insert(a, a_row)),
                    }
                }
                if let Some(b) = b {
                    match of_own.remove(&b) {
                        Some(partner) => comparison.add(&b, &partner, &row),
                        None => drop(of_other.insert(b, row.clone())),
                    }
                }
            }
        }
    }
    (comparison.only_here, comparison.only_there) = (of_own.len(), of_other.len());
    if comparison.rows == 0 {
        return Err(Error::data(
            there,
            "has no row whose path is one of the pictures here: name an extraction of the same pictures",
        ));
    }
    Ok(comparison)
}

/// The larger of two; what is not a number stays.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

impl Comparison {
    fn add(&mut self, path: &str, here: &[f32], there: &[f32]) {
        let (mut difference, mut size) = (0.0_f64, 0.0_f64);
        let (mut product, mut lengths) = (0.0, [0.0, 0.0]);
        for (&a, &b) in here.iter().zip(there) {
            let (a, b) = (f64::from(a), f64::from(b));
            difference = larger(difference, (a - b).abs());
            size = larger(size, b.abs());
            product += a * b;
            lengths[0] += a * a;
            lengths[1] += b * b;
        }
        let relative = if difference == 0.0 { 0.0 } else { difference / size };
        let same = difference == 0.0 && lengths[0] == 0.0;
        let cosine = if same { 1.0 } else { product / (lengths[0] * lengths[1]).sqrt() };
        self.rows += 1;
        let largest = larger(self.largest_relative, relative);
        if self.worst.is_empty() || largest.to_bits() != self.largest_relative.to_bits() {
            self.worst = path.to_owned();
        }
        self.largest_relative = largest;
        self.largest_difference = larger(self.largest_difference, difference);
        self.least_cosine = -larger(-self.least_cosine, -cosine);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn csv(folder: &Path, name: &str, rows: &[(&str, [f32; 2])]) -> PathBuf {
        let path = folder.join(name);
        let rows: String = rows.iter().map(|(path, [a, b])| format!("{path},{a},{b}\n")).collect();
        std::fs::write(&path, format!("path,e0,e1\n{rows}")).unwrap();
        path
    }

    #[test]
    fn rows_are_matched_by_path_and_differences_are_the_largest() {
        let folder = tempfile::tempdir().unwrap();
        let here = csv(folder.path(), "a.csv", &[("p/a/1", [3.0, 4.0]), ("p/a/2", [1.0, 0.0]), ("p/b/1", [0.0, 2.0])]);
        let say = |rows: &[(&str, [f32; 2])]| {
            let there = csv(folder.path(), "b.csv", rows);
            compare(&here, Format::Csv, &there, 1e-4)
        };
        let same = say(&[("p/a/1", [3.0, 4.0]), ("p/a/2", [1.0, 0.0]), ("p/b/1", [0.0, 2.0])]).unwrap();
        assert_eq!((same.rows, same.largest_difference, same.least_cosine), (3, 0.0, 1.0));
        same.within().unwrap();
        // Another order, another place, a row less and one more.
        let moved =
            say(&[("C:\\x\\b\\1", [0.0, 2.0]), ("C:\\x\\a\\1", [3.0, 4.5]), ("C:\\x\\c\\9", [9.0, 9.0])]).unwrap();
        assert_eq!((moved.rows, moved.only_here, moved.only_there), (2, 1, 1));
        assert_eq!((moved.largest_difference, moved.worst.as_str()), (0.5, "a/1"));
        assert!((moved.largest_relative - 0.5 / 4.5).abs() < 1e-12);
        assert!((moved.least_cosine - 27.0 / (5.0 * 29.25_f64.sqrt())).abs() < 1e-12);
        assert!(moved.within().unwrap_err().to_string().contains("at a/1, beyond"));
        // What is not a number is beyond any tolerance.
        let nan = say(&[("p/a/1", [f32::NAN, 4.0]), ("p/a/2", [1.0, 0.0])]).unwrap();
        assert!(nan.within().is_err() && nan.largest_relative.is_nan() && nan.worst == "p/a/1");
        assert!(say(&[("q", [0.0, 0.0])]).unwrap_err().to_string().contains("has no row whose path"));
    }
}
