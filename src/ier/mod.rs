//! The method, built from operations: views and their transforms, losses, memory bank, distillation.

pub mod losses;
pub mod negatives;
pub mod optimise;
pub mod spec;
pub mod step;
pub mod terms;
pub mod transforms;
