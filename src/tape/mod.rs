//! Record once ([`graph`], [`backward`]), rewrite ([`passes`]: [`fuse`], [`half_precision`], [`recompute`], [`matrix`], [`winograd`]), plan
//! once ([`plan`]), replay ([`exec`]).
//!
//! [`twin`] runs the same graph on the CPU in f64.

pub mod backward;
pub mod exec;
pub mod fuse;
pub mod graph;
pub mod half_precision;
pub mod matrix;
pub mod passes;
pub mod plan;
pub mod readback;
pub mod recompute;
pub mod submissions;
pub mod twin;
pub mod value;
pub mod winograd;

pub use graph::{Graph, Node};
pub use value::{Element, Storage, Type, Value, ValueId};
