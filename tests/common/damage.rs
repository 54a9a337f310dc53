//! How damaged files are drawn: `PROPTEST_CASES` sets how many, and what failed once is drawn again first.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

/// A runner whose failures are kept in `corpus`, a file of `tests/regressions`, which belongs into the repository.
pub fn runner(corpus: &'static str) -> TestRunner {
    let kept = FileFailurePersistence::Direct(corpus);
    TestRunner::new(ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() })
}
