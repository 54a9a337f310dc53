//! The method, built from operations: views and their transforms, losses, memory bank, distillation.

pub mod transforms;
