//! How damaged files are drawn: `PROPTEST_CASES` sets how many, and what failed once is drawn again first.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::io;
use std::path::Path;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// A runner whose failures are kept in `corpus`, a file of `tests/regressions`, which belongs into the repository.
pub fn runner(corpus: &'static str) -> TestRunner {
    let kept = FileFailurePersistence::Direct(corpus);
    TestRunner::new(ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() })
}

/// Writes a file anew. Some file systems bring what replaces the content of a file to the disk at once, which takes longer
/// than all else.
pub fn write(path: &Path, bytes: &[u8]) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{}: {error}", path.display()),
        _ => fs::write(path, bytes).unwrap(),
    }
}
