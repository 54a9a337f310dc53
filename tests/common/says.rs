//! What a refusal says.

/// The error is one line and contains each of `words`.
#[track_caller]
pub fn says<T>(result: ieq_wgpu::Result<T>, words: &[&str]) {
    let error = result.err().expect("must fail").to_string();
    assert!(!error.contains('\n'), "{error}");
    for word in words {
        assert!(error.contains(word), "no {word:?} in: {error}");
    }
}
