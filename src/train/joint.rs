//! The parts of a batch that are computed at once: batch norm by the whole batch, though it is computed in several parts
//! (`run.batch_norm = exact`).
//!
//! Every part goes as far as its next statistics; those of all parts are joined on the host, and every part goes on with
//! what they come to. So all parts of a process are on the device together. Ranks give each other the statistics of theirs.

use std::collections::BTreeSet;

use super::record::RecordedStep;
use crate::ier::step::PART;
use crate::ranks::Ranks;
use crate::tape::exec::{Executor, Segment};
use crate::tape::readback::Readback;
use crate::tape::{Graph, Storage};
use crate::{Error, Result};

/// The arenas of which each part has its own: what the host gives it, and what it makes. Parts share all others.
pub(super) fn own_arenas(graph: &Graph, recorded: &RecordedStep) -> BTreeSet<String> {
    let inputs = &recorded.step.inputs;
    let given = [inputs.step, inputs.classes, inputs.transforms, inputs.index];
    let views = [recorded.view_index, recorded.view_parameters];
    let counted = inputs.counted.map(|counted| counted.rows);
    let streamed = (!recorded.resident).then_some(recorded.images);
    let given = given.into_iter().chain(views).chain(counted).chain(streamed);
    let given = given.filter_map(|id| match &graph.value(id).storage {
        Storage::Arena { arena, .. } => Some(arena.clone()),
        Storage::Transient => None,
    });
    given.chain(graph.arenas().keys().filter(|arena| arena.starts_with(PART)).cloned()).collect()
}

/// How the parts of a step are computed at once.
pub(super) struct Joint {
    /// What is computed in one go, and of each part of this process what it makes there for all.
    segments: Vec<(Segment, Vec<Readback>)>,
}

impl Joint {
    /// That of the parts whose executors these are, each of the same graph.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has no memory left.
    pub(super) async fn new_async(parts: &[&Executor]) -> Result<Joint> {
        let mut segments = Vec::new();
        for segment in parts.first().map(|part| part.segments()).unwrap_or_default() {
            let mut made = Vec::new();
            for part in parts.iter().filter(|_| segment.join.is_some()) {
                made.push(Readback::new_async(part, &segment.values).await?);
            }
            segments.push((segment, made));
        }
        Ok(Joint { segments })
    }

    /// Computes these parts, whose inputs were written before.
    ///
    /// # Errors
    /// As [`Ranks::exchange`]; [`Error::Device`] when the device failed.
    pub(super) async fn compute_async(&self, parts: &[&Executor], ranks: Option<&Ranks>) -> Result<()> {
        for (segment, readbacks) in &self.segments {
            for (i, part) in parts.iter().enumerate() {
                part.submit_segment_async(segment).await?;
                readbacks.get(i).map_or(Ok(()), |readback| readback.copy(part))?;
            }
            let Some(join) = segment.join else { continue };
            let mut own: Vec<u32> = Vec::new();
            for (part, readback) in parts.iter().zip(readbacks) {
                own.extend(readback.take_async(part).await?);
            }
            let all = match ranks {
                Some(ranks) => ranks.all_gather(bytemuck::cast_slice(&own))?.concat(),
                None => bytemuck::cast_slice(&own).to_vec(),
            };
            let ranks = ranks.map_or(1, Ranks::size);
            if all.len() != ranks * size_of_val(own.as_slice()) {
                return Err(Error::Ranks(
                    "the ranks do not compute the same step: start all of them with one command".into(),
                ));
            }
            let all: Vec<f32> = bytemuck::pod_collect_to_vec(&all);
            let of_parts: Vec<&[f32]> = all.chunks((own.len() / parts.len().max(1)).max(1)).collect();
            let common = join(&of_parts);
            for part in parts {
                let mut rest = common.as_slice();
                for &id in &segment.values {
                    let (value, others) = rest.split_at(part.graph().value(id).ty.len().min(rest.len()));
                    part.write_async(id, value).await?;
                    rest = others;
                }
            }
        }
        Ok(())
    }
}
