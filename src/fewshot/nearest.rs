//! The rows most similar to others by cosine: every row is compared, on the device, a part of them at a time.
//!
//! The device computes similarities in f32. Whatever may be among the k largest within the error of its sums is computed
//! again in f64 on the host, so that what is found is what a plain search in f64 finds, in the same order, on any device.

use crate::gpu::kernel::Kernels;
use crate::ops::matmul::Matmul;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::{Graph, Type, ValueId};
use crate::{Error, Result};

/// Most bytes of one operand of a pass: an eighth of the smallest binding that WebGPU has.
const PASS_BYTES: usize = 16 << 20;
/// Most rows of a pass.
const PASS_ROWS: usize = 16_384;
/// Most queries of a pass: with as many rows the similarities have as many bytes as an operand.
const PASS_QUERIES: usize = 256;

/// What a search finds for a query: rows with their similarities, the most similar first.
pub type Neighbours = Vec<(usize, f32)>;

/// A search for the most similar rows, prepared on a device. A pass takes the same memory whatever the number of rows.
pub struct Nearest {
    executor: Executor,
    queries: ValueId,
    rows: ValueId,
    similarities: ValueId,
    columns: usize,
    /// Queries and rows of a pass.
    pass: (usize, usize),
}

/// Rows as they were given, with their lengths.
struct Rows<'a> {
    data: &'a [f32],
    lengths: Vec<f64>,
    columns: usize,
}

impl<'a> Rows<'a> {
    /// # Errors
    /// As [`Nearest::search_async`], for rows that are numbered from `first`.
    fn new(data: &'a [f32], columns: usize, what: &'static str, first: usize) -> Result<Self> {
        if !data.len().is_multiple_of(columns) {
            let n = data.len();
            return Err(Error::shape("nearest", format!("{n} numbers are no whole number of {what} of {columns}")));
        }
        let mut lengths = Vec::with_capacity(data.len() / columns);
        for (i, row) in data.chunks_exact(columns).enumerate() {
            let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            if !length.is_finite() {
                let i = first + i;
                return Err(Error::NonFinite(format!(
                    "nearest: row {i} of the {what} has a number that is not finite: embed its picture again, with a \
                     checkpoint from before the training diverged"
                )));
            }
            if length == 0.0 {
                return Err(Error::Argument {
                    what: "every row of a search by cosine",
                    got: format!("zeros alone in row {} of the {what}", first + i),
                    wanted: "of a length above 0: leave that row out".into(),
                });
            }
            lengths.push(length);
        }
        Ok(Rows { data, lengths, columns })
    }

    fn len(&self) -> usize {
        self.lengths.len()
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.columns..(i + 1) * self.columns]
    }

    /// Rows `range`, scaled to length 1, and behind them zeros up to `n` rows.
    fn units(&self, range: std::ops::Range<usize>, n: usize) -> Vec<f32> {
        let mut units = Vec::with_capacity(n * self.columns);
        for i in range {
            let length = self.lengths[i];
            units.extend(self.row(i).iter().map(|&x| (f64::from(x) / length) as f32));
        }
        units.resize(n * self.columns, 0.0);
        units
    }

    /// Cosine of row `i` and row `j` of `other`.
    fn cosine(&self, i: usize, other: &Rows, j: usize) -> f32 {
        let pairs = self.row(i).iter().zip(other.row(j));
        let product = pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        (product / (self.lengths[i] * other.lengths[j])) as f32
    }
}

impl Nearest {
    /// Prepares searches among rows of `columns` numbers for `queries` queries at a time; more take several passes over
    /// each part of the rows.
    ///
    /// # Errors
    /// [`Error::Argument`] where there are no columns or no queries; [`Error::Device`] and [`Error::TooLarge`] when the
    /// device refuses a buffer.
    pub async fn new_async(kernels: &mut Kernels, columns: usize, queries: usize) -> Result<Self> {
        if columns == 0 || queries == 0 {
            return Err(Error::Argument {
                what: "the columns and queries of a search",
                got: format!("{columns} and {queries}"),
                wanted: "at least 1 of each".into(),
            });
        }
        let fit = (PASS_BYTES / 4 / columns).max(1);
        let pass = (queries.min(PASS_QUERIES).min(fit), PASS_ROWS.min(fit));
        let mut graph = Graph::new();
        let queries = graph.in_arena("queries", "queries", Type::f32([pass.0, columns]), false);
        let rows = graph.in_arena("rows", "rows", Type::f32([pass.1, columns]), false);
        let similarities = graph.one(Matmul::new(false, true), &[queries, rows])?;
        graph.keep(similarities);
        let executor = Executor::new_async(kernels, &mut Arenas::new(), graph).await?;
        Ok(Nearest { executor, queries, rows, similarities, columns, pass })
    }

    /// As [`Nearest::new_async`]; blocks.
    ///
    /// # Errors
    /// As [`Nearest::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(kernels: &mut Kernels, columns: usize, queries: usize) -> Result<Self> {
        pollster::block_on(Self::new_async(kernels, columns, queries))
    }

    /// Rows that the device takes at once: parts of this many suit [`Nearest::search_parts_async`].
    pub fn rows_per_pass(&self) -> usize {
        self.pass.1
    }

    /// For every query `[queries, columns]` the `k` rows of `rows` `[rows, columns]` whose cosine with it is largest, or
    /// all of them where there are fewer: (row, cosine), sorted by (cosine down, row up). A cosine is computed in f64
    /// from the numbers as they are given, and rounded to f32 before it is compared, so equal ones are shown as equal.
    ///
    /// # Errors
    /// [`Error::Shape`] for a part of a row; [`Error::NonFinite`] for a number that is not finite and [`Error::Argument`]
    /// for a row of zeros, which has no direction, or `k` of 0; [`Error::Device`] when the device fails.
    pub async fn search_async(&self, queries: &[f32], rows: &[f32], k: usize) -> Result<Vec<Neighbours>> {
        self.search_parts_async(queries, [Ok(rows)], k).await
    }

    /// As [`Nearest::search_async`]; blocks.
    ///
    /// # Errors
    /// As [`Nearest::search_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn search(&self, queries: &[f32], rows: &[f32], k: usize) -> Result<Vec<Neighbours>> {
        pollster::block_on(self.search_async(queries, rows, k))
    }

    /// As [`Nearest::search_async`], among rows that come in parts of any number of whole rows, counted through.
    ///
    /// # Errors
    /// As [`Nearest::search_async`], and the first error among the parts.
    pub async fn search_parts_async<P: AsRef<[f32]>>(
        &self,
        queries: &[f32],
        parts: impl IntoIterator<Item = Result<P>>,
        k: usize,
    ) -> Result<Vec<Neighbours>> {
        if k == 0 {
            let (got, wanted) = ("0".into(), "at least 1".into());
            return Err(Error::Argument { what: "the number of rows to find", got, wanted });
        }
        let queries = Rows::new(queries, self.columns, "queries", 0)?;
        let mut found = vec![Vec::new(); queries.len()];
        let full = self.pass.1 * self.columns;
        let (mut waiting, mut first) = (Vec::with_capacity(full), 0);
        for part in parts {
            let part = part?;
            let mut part = part.as_ref();
            if !part.len().is_multiple_of(self.columns) {
                Rows::new(part, self.columns, "rows", first)?;
            }
            while !part.is_empty() {
                let (taken, rest) = part.split_at(part.len().min(full - waiting.len()));
                waiting.extend_from_slice(taken);
                part = rest;
                if waiting.len() == full {
                    self.pass(&queries, &waiting, first, k, &mut found).await?;
                    first += self.pass.1;
                    waiting.clear();
                }
            }
        }
        if !waiting.is_empty() {
            self.pass(&queries, &waiting, first, k, &mut found).await?;
        }
        Ok(found)
    }

    /// As [`Nearest::search_parts_async`]; blocks.
    ///
    /// # Errors
    /// As [`Nearest::search_parts_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn search_parts<P: AsRef<[f32]>>(
        &self,
        queries: &[f32],
        parts: impl IntoIterator<Item = Result<P>>,
        k: usize,
    ) -> Result<Vec<Neighbours>> {
        pollster::block_on(self.search_parts_async(queries, parts, k))
    }

    /// Joins the rows of one pass, which are numbered from `first`, to what was found before.
    async fn pass(
        &self,
        queries: &Rows<'_>,
        data: &[f32],
        first: usize,
        k: usize,
        found: &mut [Neighbours],
    ) -> Result<()> {
        let rows = Rows::new(data, self.columns, "rows", first)?;
        let (batch, most) = self.pass;
        self.executor.write_async(self.rows, &rows.units(0..rows.len(), most)).await?;
        for begin in (0..queries.len()).step_by(batch) {
            let end = (begin + batch).min(queries.len());
            self.executor.write_async(self.queries, &queries.units(begin..end, batch)).await?;
            self.executor.submit_async().await?;
            let similarities: Vec<f32> = self.executor.read_async(self.similarities).await?;
            for (query, similarities) in (begin..end).zip(similarities.chunks_exact(most)) {
                let similarities = &similarities[..rows.len()];
                let least = self.least(similarities, &found[query], k)?;
                let near = similarities.iter().enumerate().filter(|(_, similarity)| **similarity >= least);
                let near: Vec<(usize, f32)> =
                    near.map(|(row, _)| (first + row, queries.cosine(query, &rows, row))).collect();
                let found = &mut found[query];
                found.extend(near);
                found.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                found.truncate(k);
            }
        }
        Ok(())
    }

    /// The least similarity by the device with which a row may still be among the k most similar.
    fn least(&self, similarities: &[f32], found: &Neighbours, k: usize) -> Result<f32> {
        if similarities.iter().any(|similarity| similarity.is_nan()) {
            return Err(Error::NonFinite("nearest: the device computed a similarity that is not a number".into()));
        }
        // A sum of n products of unit rows is off by n times half the spacing of f32 below 1; scaling a row and rounding
        // the result add a few.
        let error = (self.columns + 8) as f32 * f32::EPSILON / 2.0;
        let before = (found.len() == k).then(|| found[k - 1].1 - error);
        // Both the k-th and a row behind it may be off.
        let here = (similarities.len() > k).then(|| {
            let mut sorted = similarities.to_vec();
            *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1 - 2.0 * error
        });
        Ok(before.unwrap_or(f32::NEG_INFINITY).max(here.unwrap_or(f32::NEG_INFINITY)))
    }
}
