//! What the ranks of a run exchange in a step, where each computes some of its micro-batches, and how it is put together:
//! by the operations, in the order and with the step blocks of a process that computes them all, so that the bits are the
//! same. Every rank sums a piece of the gradients of all micro-batches, and is given the sums of the other pieces.

use super::record::RecordedStep;
use crate::gpu::Buffer;
use crate::gpu::kernel::Kernels;
use crate::ier::optimise::GRADIENTS;
use crate::ier::spec::StepSpec;
use crate::ier::step::{EMBEDDINGS, PART, record_join, record_sum};
use crate::nn::STATISTICS;
use crate::ranks::Ranks;
use crate::tape::exec::{Arenas, Executor};
use crate::tape::{Graph, ValueId};
use crate::{Error, Result};

/// What a micro-batch makes for all ranks, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchanged {
    /// Its gradients.
    pub gradients: u64,
    /// Statistics, embeddings and scalars.
    pub rest: u64,
    /// Statistics and sums that all ranks join within the step: see [`crate::ops::Operation::joined`].
    pub joined: u64,
    /// How often in a step they do; no bytes.
    pub joins: u64,
}

impl Exchanged {
    /// That of a step recorded for ranks.
    pub fn of(graph: &Graph, spec: &StepSpec) -> Exchanged {
        let (gradients, small) = made(graph, spec);
        let mut exchanged =
            Exchanged { gradients, rest: small.iter().map(|(_, bytes)| bytes).sum(), joined: 0, joins: 0 };
        for node in graph.nodes() {
            let Some(joined) = node.op.operation().joined() else { continue };
            exchanged.joined += node.outputs[joined.outputs].iter().map(|&id| graph.value(id).ty.bytes()).sum::<u64>();
            exchanged.joins += 1;
        }
        exchanged
    }

    /// Bytes of the piece of the gradients that each of `ranks` sums.
    pub fn piece(&self, ranks: usize) -> u64 {
        piece_bytes(self.gradients, ranks)
    }

    /// Bytes that a rank sends in a step in which it computes `parts` micro-batches.
    pub fn sent(&self, parts: usize, ranks: usize) -> u64 {
        let piece = self.piece(ranks);
        (ranks as u64).saturating_sub(1) * (parts as u64 * (piece + self.rest + self.joined) + piece)
    }

    /// Bytes on a rank's device that a single process does not have there.
    pub fn held(&self, ranks: usize) -> u64 {
        2 * self.piece(ranks) + self.rest + (self.gradients + self.rest)
    }
}

/// Bytes of the piece of so many bytes of gradients that each of `ranks` sums.
fn piece_bytes(gradients: u64, ranks: usize) -> u64 {
    4 * (gradients / 4).div_ceil(ranks.max(1) as u64)
}

/// The bytes of a micro-batch's gradients, and the arenas of what else it makes, with the bytes of them that matter.
fn made(graph: &Graph, spec: &StepSpec) -> (u64, Vec<(String, u64)>) {
    let (mut gradients, mut small) = (0, Vec::new());
    for (arena, &bytes) in graph.arenas().iter().filter(|(arena, _)| arena.starts_with(PART)) {
        match arena.strip_prefix(PART) {
            Some(GRADIENTS) => gradients = bytes,
            // All ranks have the same.
            Some(STATISTICS) if spec.is_joined() => {}
            // Of all rows those of the plain images go to the bank.
            Some(EMBEDDINGS) => {
                let width = spec.net.projection.unwrap_or(1);
                small.push((arena.clone(), (4 * spec.images() * width) as u64));
            }
            _ => small.push((arena.clone(), bytes)),
        }
    }
    (gradients, small)
}

/// Refuses a number of ranks that cannot share the micro-batches of a step out evenly.
///
/// # Errors
/// [`Error::Conflict`] with those that can.
pub fn check_shares(spec: &StepSpec, ranks: usize) -> Result<()> {
    check_parts(spec.parts, spec.images(), ranks)
}

/// As [`check_shares`], of `parts` micro-batches of `images` images.
///
/// # Errors
/// As [`check_shares`].
pub fn check_parts(parts: usize, images: usize, ranks: usize) -> Result<()> {
    if parts > 1 && parts.is_multiple_of(ranks) {
        return Ok(());
    }
    if parts <= 1 {
        return Err(Error::Conflict {
            keys: vec!["run.micro_batch"],
            why: format!(
                "this run does a batch in one piece, which {ranks} ranks cannot share (run.micro_batch): start one process"
            ),
            changes: Vec::new(),
        });
    }
    let list: Vec<String> = (1..=parts).filter(|n| parts.is_multiple_of(*n)).map(|n| n.to_string()).collect();
    Err(Error::Conflict {
        keys: vec!["run.micro_batch"],
        why: format!(
            "{ranks} ranks cannot share out the {parts} micro-batches of a step evenly (run.micro_batch = {images}): start {} ranks",
            list.join(" or "),
        ),
        changes: Vec::new(),
    })
}

/// The exchange of a stage.
pub(super) struct Exchange {
    /// Joins what one micro-batch made to the state and the sums, but for the gradients.
    join: Executor,
    /// Adds the piece of the gradients of one micro-batch to its sum.
    sum: Executor,
    part_piece: ValueId,
    piece: ValueId,
    /// The arenas of what a micro-batch made besides gradients, with the bytes of them that matter.
    small: Vec<(String, u64)>,
    /// Bytes of the gradients of a micro-batch.
    gradients: u64,
    /// Where it is read back: the gradients, then the rest.
    staging: Buffer,
}

impl Exchange {
    /// Prepares the exchange of a step, recorded as `recorded` for `executor`, between `ranks`.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not fit the device.
    pub(super) async fn new_async(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        executor: &Executor,
        (spec, recorded): (&StepSpec, &RecordedStep),
        ranks: &Ranks,
    ) -> Result<Exchange> {
        let graph = executor.graph();
        let (gradients, small) = made(graph, spec);
        let piece = piece_bytes(gradients, ranks.size());
        let (sum, part_piece, piece) = record_sum(spec, (piece / 4).max(1) as usize)?;
        let join = record_join(graph, &recorded.step, spec)?;
        let join = Executor::new_async(kernels, arenas, join).await?;
        let sum = Executor::new_async(kernels, arenas, sum).await?;
        let bytes = gradients + small.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = executor.gpu().buffer_with_async("read-back of a micro-batch", bytes, usage).await?;
        Ok(Exchange { join, sum, part_piece, piece, small, gradients, staging })
    }

    /// Asks for what the micro-batch that was submitted last makes; waits for nothing.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub(super) fn copy(&self, arenas: &Arenas) -> Result<()> {
        let gpu = self.join.gpu();
        let mut encoder = gpu.encoder();
        let gradients = (format!("{PART}{GRADIENTS}"), self.gradients);
        let mut end = 0;
        for (arena, bytes) in [&gradients].into_iter().chain(&self.small) {
            encoder.copy_buffer_to_buffer(arenas.get(arena)?, 0, &self.staging, end, *bytes);
            end += bytes;
        }
        gpu.submit(encoder).map(drop)
    }

    /// Waits for what [`Exchange::copy`] asked for, and gives it to the other ranks; returns what a micro-batch of each made, by
    /// rank.
    ///
    /// # Errors
    /// As [`Ranks::exchange`]; [`Error::Device`] when the device failed.
    pub(super) async fn gather_async(&self, ranks: &Ranks) -> Result<Vec<Made>> {
        let words = (self.staging.size() / 4) as usize;
        let own: Vec<u32> = self.join.gpu().read_staging_async(&self.staging, words).await?;
        let (flat, rest) = own.split_at((self.gradients / 4) as usize);
        let piece = self.piece_elements();
        let message = |rank: usize| {
            let cut = flat.len().min(rank * piece)..flat.len().min((rank + 1) * piece);
            let mut words = Vec::with_capacity(piece + rest.len());
            words.extend(&flat[cut]);
            words.resize(piece, 0);
            words.extend(rest);
            words
        };
        let messages: Vec<Vec<u32>> = (0..ranks.size()).map(message).collect();
        let bytes: Vec<&[u8]> = messages.iter().map(|words| bytemuck::cast_slice(words)).collect();
        let made = |(rank, bytes): (usize, Vec<u8>)| {
            if bytes.len() != 4 * (piece + rest.len()) {
                return Err(Error::Ranks(format!(
                    "rank {rank} computes another step: start all ranks with one command"
                )));
            }
            Ok(Made { words: bytemuck::pod_collect_to_vec(&bytes), piece })
        };
        ranks.exchange(&bytes)?.into_iter().enumerate().map(made).collect()
    }

    fn piece_elements(&self) -> usize {
        self.sum.graph().value(self.piece).ty.len()
    }

    /// Joins what a micro-batch made to the sums and the state. Its step block, indices and the like were written before.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub(super) async fn join_async(&self, arenas: &Arenas, made: &Made) -> Result<()> {
        let (piece, mut rest) = made.words.split_at(made.piece);
        for (arena, bytes) in &self.small {
            let (own, others) = rest.split_at((bytes / 4) as usize);
            self.join.gpu().write_async(arenas.get(arena)?, 0, own).await?;
            rest = others;
        }
        self.sum.write_async(self.part_piece, piece).await?;
        self.join.submit_async().await?;
        self.sum.submit_async().await.map(drop)
    }

    /// Gives the other ranks the sum of this one's piece of the gradients, and puts all pieces into their arena.
    ///
    /// # Errors
    /// As [`Ranks::exchange`]; [`Error::Device`] when the device failed.
    pub(super) async fn finish_async(&self, ranks: &Ranks, arenas: &Arenas) -> Result<()> {
        let own: Vec<u32> = self.sum.gpu().read_async(self.sum.locate(self.piece).0, 0, self.piece_elements()).await?;
        let sums = ranks.all_gather(bytemuck::cast_slice(&own))?.concat();
        let gradients = arenas.get(GRADIENTS)?;
        let sums =
            sums.get(..self.gradients as usize).ok_or_else(|| Error::Internal("gradients are missing".into()))?;
        self.sum.gpu().write_async(gradients, 0, sums).await
    }
}

/// What one micro-batch made.
pub(super) struct Made {
    /// The piece of its gradients that this rank sums, then the rest.
    words: Vec<u32>,
    piece: usize,
}
