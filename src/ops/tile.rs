//! Tiles: how much of its result a kernel computes at a time. WGSL makes them, Rust counts workgroups by them.
//!
//! A shader declares the tile of an entry point as constants, `ENTRY_DOWN` and `ENTRY_ACROSS`; a test compares them with the
//! tables in Rust, and the sums that an invocation keeps with its share of the tile.

use crate::gpu::kernel::Alternative;

/// What one invocation computes, or one workgroup where it goes through workgroup memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Entry point.
    pub(super) entry: &'static str,
    /// Rows of the result: output channels, or rows of a matrix.
    pub(super) down: usize,
    /// Columns of the result: pixels, input channels, or columns of a matrix.
    pub(super) across: usize,
    /// Least lanes of a subgroup with which it shares its loads.
    pub(super) lanes: u32,
    /// Running sums of an invocation.
    pub(super) accumulators: u32,
    /// Bytes of workgroup memory; 0: none.
    pub(super) memory: u32,
}

impl Tile {
    /// The entry point as an alternative of a launch.
    pub(super) fn alternative(&self, groups: [u32; 3]) -> Alternative {
        let Tile { entry, lanes, accumulators, memory, .. } = *self;
        Alternative { entry, groups, lanes, accumulators, memory }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
pub(super) mod tests {
    use super::*;
    use crate::gpu::shader::find;
    use naga::{Expression, Literal, Module};

    /// The number that a module declares under a name.
    pub(in crate::ops) fn constant(module: &Module, name: &str) -> Option<usize> {
        let (_, found) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
        match module.global_expressions[found.init] {
            Expression::Literal(Literal::U32(value)) => Some(value as usize),
            _ => None,
        }
    }

    /// Every tile is what its entry point says, and every entry point that says something has a tile. `products`: terms
    /// of the result for each place of the tile, such as the taps of a kernel.
    pub(in crate::ops) fn agree(shader: &str, tiles: &[(Tile, usize)]) {
        let module = naga::front::wgsl::parse_str(&find(shader).unwrap().text).unwrap();
        for (tile, products) in tiles {
            let entry = tile.entry;
            let point = module.entry_points.iter().find(|point| point.name == entry).unwrap();
            let [down, across] = ["DOWN", "ACROSS"].map(|axis| constant(&module, &format!("{entry}_{axis}")));
            assert_eq!((down, across), (Some(tile.down), Some(tile.across)), "{shader}.{entry}");
            let sharing = if tile.memory > 0 { point.workgroup_size[0] as usize } else { 1 };
            assert_eq!(
                tile.accumulators as usize * sharing,
                tile.down * tile.across * products,
                "{shader}.{entry}: sums"
            );
        }
        let named = module.constants.iter().filter_map(|(_, c)| c.name.as_deref()?.strip_suffix("_DOWN"));
        for entry in named {
            assert!(tiles.iter().any(|(tile, _)| tile.entry == entry), "{shader}.{entry} has no tile");
        }
    }
}
