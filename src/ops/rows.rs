//! Operations that can be computed a few rows at a time, for tensors larger than one binding.
//!
//! Where every row of the outputs comes from the same row of some inputs and from the whole of the others
//! ([`Operation::by_rows`](super::Operation::by_rows)), the node's own launches are made over fewer rows, with the bindings
//! moved along: no kernel knows of it. What sums over rows does so in parts ([`super::PartialSums`]): the launches of the
//! parts are made for some parts at a time, and then those that join them. No number changes.

use std::ops::Range;

use super::Operand;
use crate::error::{Change, Limit};
use crate::gpu::Launch;
use crate::tape::graph::ARENA_ALIGNMENT;
use crate::tape::{Graph, Node, ValueId};
use crate::{Error, Result};

/// The operands of a node that go along with its rows.
fn moving(node: &Node) -> Vec<ValueId> {
    let Some(rows) = node.op.operation().by_rows(node.inputs.len()) else { return Vec::new() };
    let pairs = node.inputs.iter().zip(rows.inputs).chain(node.outputs.iter().zip(rows.outputs));
    pairs.filter(|(_, moves)| **moves).map(|(id, _)| *id).collect()
}

/// Which launches of a node a range of rows has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Launches {
    /// All of them, over its rows.
    #[default]
    All,
    /// The sums of the parts in its rows.
    Parts,
    /// Those that join the parts' sums.
    Joining,
}

/// Some rows of a node, or all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowRange {
    rows: Option<Range<usize>>,
    moving: Vec<ValueId>,
    launches: Launches,
}

impl RowRange {
    /// The bytes of a value that these rows bind, relative to the value's first.
    pub fn bytes(&self, graph: &Graph, id: ValueId) -> Range<u64> {
        let ty = &graph.value(id).ty;
        match &self.rows {
            Some(rows) if self.moving.contains(&id) => {
                let row = ty.bytes() / ty.shape[0] as u64;
                rows.start as u64 * row..rows.end as u64 * row
            }
            _ => 0..ty.bytes(),
        }
    }

    /// The launches over these rows.
    pub fn launches(&self, graph: &Graph, node: &Node) -> Vec<Launch<ValueId>> {
        let rows = self.rows.clone().unwrap_or_default();
        let shape = |id: ValueId| {
            let mut shape = graph.shape(id).to_vec();
            // Parts are counted in the whole.
            let cut = self.launches == Launches::All && self.moving.contains(&id);
            if cut && self.rows.is_some() {
                shape[0] = rows.len();
            }
            (id, shape, graph.value(id).ty.element)
        };
        let [inputs, outputs] =
            [&node.inputs, &node.outputs].map(|ids| ids.iter().map(|&id| shape(id)).collect::<Vec<_>>());
        let [inputs, outputs] = [&inputs, &outputs]
            .map(|l| l.iter().map(|(id, shape, e)| Operand { id: *id, shape, element: *e }).collect::<Vec<Operand>>());
        let operation = node.op.operation();
        match self.launches {
            Launches::All => operation.launches(&inputs, &outputs),
            Launches::Parts => {
                operation.partial_sums().map(|sums| sums.part_launches(&inputs, &outputs, rows)).unwrap_or_default()
            }
            Launches::Joining => {
                operation.partial_sums().map(|sums| sums.joining_launches(&inputs, &outputs)).unwrap_or_default()
            }
        }
    }
}

/// The ranges of rows of a node that keep every binding within `most` bytes: one with everything where that suffices.
///
/// # Errors
/// [`Error::TooLarge`] naming the tensor, where the operation cannot be cut.
pub fn row_ranges(graph: &Graph, node: &Node, most: u64) -> Result<Vec<RowRange>> {
    let moving = moving(node);
    let bytes = |id: ValueId| graph.value(id).ty.bytes();
    let too_large = |id: &&ValueId| bytes(**id) > most;
    let Some(&largest) = node.inputs.iter().chain(&node.outputs).filter(too_large).max_by_key(|id| bytes(**id)) else {
        return Ok(vec![RowRange::default()]);
    };
    let refused = |how: &str| Error::TooLarge {
        what: format!("{} ({} {how})", graph.value(largest).name, node.op.operation().name()),
        scope: if node.scope.is_empty() { "the step".into() } else { node.scope.clone() },
        size: bytes(largest),
        limit: most,
        of: Limit::Binding,
        holder: "a binding of this device".into(),
        changes: vec![Change::Lower("optimiser.batch"), Change::Lower("model.widths")],
    };
    const WHOLE: &str = "cannot be cut by rows";
    if node.inputs.iter().chain(&node.outputs).filter(too_large).any(|id| !moving.contains(id)) {
        return Err(refused(WHOLE));
    }
    let rows = graph.shape(largest)[0];
    if moving.iter().any(|&id| graph.shape(id).first() != Some(&rows)) {
        return Err(refused(WHOLE));
    }
    let inputs: Vec<Operand> = node.inputs.iter().map(|&id| super::operand(graph, id)).collect();
    let parts = node.op.operation().partial_sums().map(|sums| sums.rows_per_part(&inputs));
    let (mut unit, mut most_rows) = (parts.unwrap_or(1) as u64, rows as u64);
    for &id in &moving {
        let row = bytes(id) / rows as u64;
        // A range begins where a binding may: with multiples of `unit` rows every operand's offset is aligned.
        let own = ARENA_ALIGNMENT / gcd(row, ARENA_ALIGNMENT);
        unit = unit / gcd(unit, own) * own;
        most_rows = most_rows.min(most / row);
    }
    let step = (most_rows / unit * unit) as usize;
    if step == 0 {
        return Err(refused(&format!("can be cut into no less than {unit} rows")));
    }
    let ranges = (0..rows).step_by(step).map(|first| first..(first + step).min(rows));
    let launches = if parts.is_some() { Launches::Parts } else { Launches::All };
    let mut all: Vec<RowRange> =
        ranges.map(|range| RowRange { rows: Some(range), moving: moving.clone(), launches }).collect();
    all.extend(parts.map(|_| RowRange { launches: Launches::Joining, ..RowRange::default() }));
    Ok(all)
}

/// Greatest common divisor.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::ops::conv2d::Conv2d;
    use crate::ops::reduce::Mean;
    use crate::tape::Type;

    #[test]
    fn ranges_cover_the_rows_at_offsets_that_bind() {
        let mut graph = Graph::new();
        // 12 bytes per row of x and 20 of y: only multiples of 64 rows begin at multiples of 256 bytes in both.
        let x = graph.in_arena("x", "x", Type::f32([1000, 3, 1, 1]), false);
        let w = graph.in_arena("w", "w", Type::f32([5, 3, 1, 1]), false);
        let y = graph.one(Conv2d::new(1, 0), &[x, w]).unwrap();
        let node = graph.nodes[0].clone();
        assert_eq!(row_ranges(&graph, &node, 20_000).unwrap(), [RowRange::default()]);
        let cut = row_ranges(&graph, &node, 6000).unwrap();
        assert_eq!(cut.len(), 4);
        let mut end = [0, 0];
        for range in &cut {
            for (end, id) in end.iter_mut().zip([x, y]) {
                let bytes = range.bytes(&graph, id);
                assert!(bytes.start == *end && bytes.start % 256 == 0 && bytes.end - bytes.start <= 6000);
                *end = bytes.end;
            }
            assert_eq!(range.bytes(&graph, w), 0..60);
        }
        assert_eq!(end, [12_000, 20_000]);
        assert!(row_ranges(&graph, &node, 1000).unwrap_err().to_string().contains("20000 bytes"));
        graph.one(Mean, &[y]).unwrap();
        let refusal = row_ranges(&graph, &graph.nodes[1].clone(), 6000).unwrap_err().to_string();
        assert!(refusal.contains("reduce.mean cannot be cut") && refusal.contains("6000"), "{refusal}");
    }
}
