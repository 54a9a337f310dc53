//! ier.
