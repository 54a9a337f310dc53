//! The rewrites of a recorded graph, in the only order in which they are done.
//!
//! 1. [`fuse`]: batch norms move into their readers, and gradients replace one another in place.
//! 2. [`store_half`]: the outputs of convolutions are stored in half precision.
//! 3. [`recompute`]: the cheapest kept outputs are computed again in the backward pass. Which are kept depends on 1.
//! 4. [`use_matrix`]: products get scales of their factors. What is computed again is computed so, too.
//! 5. [`use_winograd`]: convolutions that 4 left get workspace of their own.
//!
//! An executor and a memory plan take the graph as it is: whoever records a graph applies its passes.

use super::Graph;
use super::fuse::fuse;
use super::half_precision::store_half;
use super::matrix::{LEAST, use_matrix};
use super::recompute::{candidates, recompute};
use super::winograd::use_winograd;
use crate::ops::factors::Factors;
use crate::{Error, Result};

/// Which rewrites a graph gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Fuse batch norms into their readers and replace gradients in place.
    pub fuse: bool,
    /// Store the outputs of convolutions in half precision; the numbers change within its rounding.
    pub half: bool,
    /// The number of convolutions that are computed again in the backward pass instead of being kept.
    pub recompute: usize,
    /// Compute products of 32 rows, columns and terms or more on units that multiply matrices; the numbers change within the rounding of their
    /// factors. Kernels without a matrix unit in use do the same by ordinary arithmetic, which is slow.
    pub matrix: Option<Factors>,
    /// Compute convolutions that gain by it by Winograd's minimal filtering; the numbers change within rounding.
    pub winograd: bool,
}

impl Passes {
    /// Only what changes no number and costs nothing.
    pub const FUSE: Passes = Passes { fuse: true, half: false, recompute: 0, matrix: None, winograd: false };

    /// Rewrites a graph that was recorded, and differentiated where it is trained.
    ///
    /// # Errors
    /// [`Error::Argument`] when more convolutions are to be recomputed than the graph keeps; otherwise none that its
    /// operations did not have.
    pub fn apply(self, graph: &mut Graph) -> Result<()> {
        if self.fuse {
            fuse(graph);
        }
        if self.half {
            store_half(graph);
        }
        if self.recompute > 0 {
            let possible = candidates(graph);
            let again = possible.get(..self.recompute).ok_or_else(|| Error::Argument {
                what: "the number of recomputed convolutions",
                got: self.recompute.to_string(),
                wanted: format!("0 to {}, the number of convolutions whose outputs are kept", possible.len()),
            })?;
            recompute(graph, again);
        }
        if let Some(factors) = self.matrix {
            use_matrix(graph, factors, LEAST)?;
        }
        if self.winograd {
            use_winograd(graph)?;
        }
        Ok(())
    }
}
