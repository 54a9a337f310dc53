//! Pictures copied into a folder per class. The originals are read alone, and no file is replaced.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Most files of one name in a folder.
const MOST: usize = 100_000;

/// A class's name as that of a folder.
pub(super) fn folder_name(class: &str) -> String {
    let plain = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c };
    let name: String = class.chars().map(plain).collect();
    let name = name.trim().trim_matches('.');
    if name.is_empty() { "_".into() } else { name.into() }
}

/// `a.png`, `a (2).png`, `a (3).png` and so on.
fn numbered(name: &Path, n: usize) -> PathBuf {
    if n == 1 {
        return name.into();
    }
    let stem = name.file_stem().unwrap_or_default().to_string_lossy();
    let end = name.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    format!("{stem} ({n}){end}").into()
}

fn holds(file: &Path, bytes: &[u8]) -> bool {
    let same_size = file.metadata().is_ok_and(|about| about.is_file() && about.len() == bytes.len() as u64);
    let mut own = Vec::new();
    same_size && File::open(file).and_then(|mut file| file.read_to_end(&mut own)).is_ok() && own == bytes
}

/// Writes the bytes of a picture into `folder` of `root`, under its own name or with a number behind it where
/// another picture has that. Where the same picture is there already nothing is written. Returns its path there.
///
/// # Errors
/// What the system refuses.
pub(super) fn copy(name: &Path, bytes: &[u8], root: &Path, folder: &str) -> Result<PathBuf> {
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "cannot create the folder for copies", e))?;
    for n in 1..=MOST {
        let target = folder.join(numbered(name, n));
        match OpenOptions::new().write(true).create_new(true).open(&target) {
            Ok(mut file) => {
                let written = file.write_all(bytes).and_then(|()| file.sync_all());
                return written.map(|()| target.clone()).map_err(|e| {
                    let _ = std::fs::remove_file(&target);
                    Error::io(&target, "cannot write the copy", e)
                });
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                if holds(&target, bytes) {
                    return Ok(target);
                }
            }
            Err(e) => return Err(Error::io(&target, "cannot write the copy", e)),
        }
    }
    Err(Error::data(&folder, format!("holds {MOST} files named as {}: name another folder", name.display())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_replaced_and_nothing_is_there_twice() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sorted");
        let copy = |bytes: &str| super::copy(Path::new("x.png"), bytes.as_bytes(), &root, "cat").unwrap();
        for _ in 0..2 {
            assert_eq!(copy("1"), root.join("cat/x.png"));
            assert_eq!(copy("2"), root.join("cat/x (2).png"));
        }
        assert_eq!(std::fs::read(root.join("cat/x.png")).unwrap(), b"1");
        assert_eq!(std::fs::read(root.join("cat/x (2).png")).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(root.join("cat")).unwrap().count(), 2);
    }

    #[test]
    fn a_class_names_a_folder_in_the_root() {
        for (class, name) in
            [("cat", "cat"), ("a/b", "a_b"), ("../..", "_"), ("..", "_"), ("x: y?", "x_ y_"), ("", "_")]
        {
            assert_eq!(folder_name(class), name, "{class}");
            assert_eq!(Path::new(&folder_name(class)).components().count(), 1);
        }
    }
}
