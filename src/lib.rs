//! Few-shot image embeddings trained on any GPU: hand-written WGSL kernels, a tiny tape, one static plan.
//!
//! A training step is recorded once as a graph ([`tape`]), planned once (buffers, pipelines, bind
//! groups) and replayed for every batch. `ARCHITECTURE.md` is the map; layers import downwards only:
//! [`cli`] → [`jobs`] → [`bench`](mod@bench) → [`train`], [`fewshot`], [`data`] → [`ier`] → [`nn`] → [`tape`] and [`ops`] →
//! [`gpu`] → [`settings`], [`random`], [`error`].

pub mod bench;
pub mod cli;
pub mod data;
pub mod error;
pub mod fewshot;
pub mod files;
pub mod gpu;
pub mod ier;
pub mod jobs;
pub mod nn;
pub mod ops;
pub mod progress;
pub mod random;
pub mod settings;
pub mod tape;
pub mod train;

pub use error::{Error, Result};
