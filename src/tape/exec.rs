//! Puts a planned graph on a device and replays it. The only code inside the training loop that meets wgpu.
//!
//! Everything that may wait for the device is an `async` function. On native there is a blocking one beside it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use half::f16;

use super::graph::Join;
use super::plan::{Plan, pooled};
use super::submissions::SubmissionCuts;
use super::{Element, Graph, Node, Storage, ValueId};
use crate::gpu::clock::Clock;
use crate::gpu::kernel::{Kernels, Prepared, Region};
use crate::gpu::{Buffer, Gpu, Launch, Submission};
use crate::ops::rows::{RowRange, row_ranges};
use crate::{Error, Result};

/// Persistent buffers by arena name; graphs that name the same arena share it.
///
/// The slots are shared, too: what is in them is lost when another graph of the same arenas is executed.
#[derive(Default)]
pub struct Arenas {
    buffers: BTreeMap<String, Buffer>,
    slots: Vec<Buffer>,
}

impl Arenas {
    /// No arenas yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer of an arena, made (and zero-filled) at its first use.
    ///
    /// # Errors
    /// [`Error::Device`] when it does not fit the device; [`Error::Internal`] when two graphs disagree on its size.
    pub async fn ensure_async(&mut self, gpu: &Gpu, name: &str, bytes: u64) -> Result<Buffer> {
        let bytes = bytes.clamp(16, u64::MAX - 3).next_multiple_of(4);
        if let Some(buffer) = self.buffers.get(name) {
            if buffer.size() < bytes {
                return Err(Error::Internal(format!("arena {name} has {} bytes, {bytes} wanted", buffer.size())));
            }
            return Ok(buffer.clone());
        }
        let buffer = gpu.buffer_async(name, bytes).await?;
        self.buffers.insert(name.to_string(), buffer.clone());
        Ok(buffer)
    }

    /// As [`Arenas::ensure_async`]; blocks.
    ///
    /// # Errors
    /// As [`Arenas::ensure_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn ensure(&mut self, gpu: &Gpu, name: &str, bytes: u64) -> Result<Buffer> {
        pollster::block_on(self.ensure_async(gpu, name, bytes))
    }

    /// A buffer for each slot of a graph: those that other graphs have, where they are large enough, or new ones.
    async fn slots(&mut self, gpu: &Gpu, wanted: &[u64]) -> Result<Vec<Buffer>> {
        let existing: Vec<u64> = self.slots.iter().map(|buffer| buffer.size()).collect();
        let places = pooled(&existing, wanted);
        let mut taken = Vec::new();
        for (&bytes, &place) in wanted.iter().zip(&places) {
            if place == self.slots.len() {
                self.slots.push(gpu.buffer_async(&format!("activations (slot {place})"), bytes).await?);
            }
            taken.push(self.slots[place].clone());
        }
        Ok(taken)
    }

    /// Arenas that share all buffers with these, except for slots and the arenas of these names, which are new and of the same
    /// sizes: for a second execution of a graph beside the first.
    ///
    /// # Errors
    /// [`Error::Device`] when the device has no memory left.
    pub async fn beside_async(&self, gpu: &Gpu, own: &BTreeSet<String>) -> Result<Self> {
        let mut buffers = self.buffers.clone();
        for (name, buffer) in buffers.iter_mut().filter(|(name, _)| own.contains(*name)) {
            *buffer = gpu.buffer_async(name, buffer.size()).await?;
        }
        Ok(Arenas { buffers, slots: Vec::new() })
    }

    /// Fills an arena, where there is one of this name, with zeros: after what was submitted before and before what is
    /// submitted next.
    ///
    /// # Errors
    /// As [`Gpu::submit`].
    pub fn clear(&self, gpu: &Gpu, name: &str) -> Result<()> {
        let Some(buffer) = self.buffers.get(name) else { return Ok(()) };
        let mut encoder = gpu.encoder();
        encoder.clear_buffer(buffer, 0, None);
        gpu.submit(encoder).map(drop)
    }

    /// The buffer of an arena.
    ///
    /// # Errors
    /// [`Error::Internal`] when there is no such arena.
    pub fn get(&self, name: &str) -> Result<&Buffer> {
        self.buffers.get(name).ok_or_else(|| Error::Internal(format!("there is no arena {name}")))
    }
}

/// A run of dispatches of an executor, up to values that all parts of a batch have in common:
/// [`Operation::joined`](crate::ops::Operation::joined).
#[derive(Clone, Debug)]
pub struct Segment {
    dispatches: Range<usize>,
    /// The values that are then joined with those of the other parts; none at the end of the graph.
    pub values: Vec<ValueId>,
    /// How they are joined.
    pub join: Option<Join>,
}

/// A graph on a device: pipelines, bind groups and parameters are made; a step only encodes them.
pub struct Executor {
    gpu: Arc<Gpu>,
    graph: Graph,
    plan: Plan,
    dispatches: Vec<Prepared>,
    /// Where in `dispatches` the launches of each node end.
    ends: Vec<usize>,
    arenas: BTreeMap<String, Buffer>,
    slots: Vec<Buffer>,
    guarded: Vec<ValueId>,
    cuts: RefCell<SubmissionCuts>,
}

/// Bytes of canaries behind a value.
const CANARY_BYTES: u64 = 256;

/// Parameters of a launch are at multiples of this many bytes (WebGPU's uniform offset alignment).
const PARAMS_STRIDE: u64 = 256;

/// Bytes of the parameters of all launches of a graph.
pub fn params_bytes(graph: &Graph) -> u64 {
    PARAMS_STRIDE * graph.nodes.iter().map(|node| crate::ops::launches(graph, node).len() as u64).sum::<u64>()
}

impl Executor {
    /// Allocates the slots and the missing arenas of `graph` and prepares every launch. The graph is executed as it
    /// is; [`Passes`](super::passes::Passes) rewrites one.
    ///
    /// # Errors
    /// [`Error::Device`] when the device refuses a buffer or a pipeline.
    pub async fn new_async(kernels: &mut Kernels, arenas: &mut Arenas, graph: Graph) -> Result<Self> {
        let plan = Plan::new(&graph);
        Self::build(kernels, arenas, graph, plan, Vec::new(), &|launch| launch).await
    }

    /// As [`Executor::new_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(kernels: &mut Kernels, arenas: &mut Arenas, graph: Graph) -> Result<Self> {
        pollster::block_on(Self::new_async(kernels, arenas, graph))
    }

    /// The graph that is executed.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its memory layout.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// As [`Executor::new_async`], for checks: keeps every value, binds 256 bytes more than a value has and
    /// fills them with canaries. A load from behind a value yields NaN; a store to it is found by
    /// [`Executor::overrun_async`]. `change` sees every launch first, so that tests can break one on purpose.
    ///
    /// Only a value that is the last of its arena has canaries; behind others lies the next value.
    ///
    /// # Errors
    /// As [`Executor::new_async`].
    pub async fn with_canaries_async(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        graph: Graph,
        change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
    ) -> Result<Self> {
        let all = || (0..graph.values.len() as u32).map(ValueId);
        let behind = |id: ValueId| match &graph.value(id).storage {
            Storage::Transient => true,
            Storage::Arena { arena, offset } => all().filter(|&other| other != id).all(|other| {
                let value = graph.value(other);
                !matches!(&value.storage, Storage::Arena { arena: a, offset: o }
                    if a == arena && o + value.ty.bytes() > *offset)
            }),
        };
        let used: BTreeSet<ValueId> =
            graph.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs)).copied().collect();
        let guarded = used.into_iter().filter(|&id| behind(id)).collect();
        // What lives until the end shares its slot with nothing: behind it lies nothing, and it can be read.
        let mut all_kept = graph.clone();
        all_kept.kept = all().filter(|&id| graph.value(id).storage == Storage::Transient).collect();
        let plan = Plan::apart(&all_kept);
        let executor = Self::build(kernels, arenas, graph, plan, guarded, change).await?;
        for &id in &executor.guarded {
            let (buffer, end) = executor.end(id);
            executor.gpu.write_async(buffer, end, &executor.canaries(id)).await?;
        }
        Ok(executor)
    }

    /// As [`Executor::with_canaries_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::new_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_canaries(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        graph: Graph,
        change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
    ) -> Result<Self> {
        pollster::block_on(Self::with_canaries_async(kernels, arenas, graph, change))
    }

    async fn build(
        kernels: &mut Kernels,
        arenas: &mut Arenas,
        graph: Graph,
        plan: Plan,
        guarded: Vec<ValueId>,
        change: &dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
    ) -> Result<Self> {
        let gpu = kernels.gpu().clone();
        let surplus = if guarded.is_empty() { 0 } else { CANARY_BYTES };
        plan.verify(&graph)?;
        let wanted: Vec<u64> = plan.slot_bytes.iter().map(|bytes| bytes + surplus).collect();
        let slots = arenas.slots(&gpu, &wanted).await?;
        let mut own = BTreeMap::new();
        for (name, &bytes) in &graph.arenas {
            own.insert(name.clone(), arenas.ensure_async(&gpu, name, bytes.saturating_add(surplus)).await?);
        }
        let region = |id: &ValueId, rows: &RowRange| -> Region {
            let canaries = if guarded.contains(id) { surplus } else { 0 };
            let part = rows.bytes(&graph, *id);
            let bytes = (part.end - part.start).max(4) + canaries;
            let (buffer, first) = match &graph.value(*id).storage {
                Storage::Arena { arena, offset } => (own[arena].clone(), *offset),
                Storage::Transient => (slots[plan.slot_of[id]].clone(), plan.offset_of[id]),
            };
            Region { buffer, offset: first + part.start, bytes }
        };
        // Canaries are for small tensors: nothing is cut there.
        let most = if guarded.is_empty() { gpu.limits().max_storage_buffer_binding_size } else { u64::MAX };
        let mut launches: Vec<Launch<Region>> = Vec::new();
        let mut ends = Vec::new();
        for node in &graph.nodes {
            for rows in row_ranges(&graph, node, most)? {
                let over_rows = rows.launches(&graph, node).into_iter();
                launches.extend(over_rows.map(|launch| change(launch).map(|id| region(id, &rows))));
            }
            ends.push(launches.len());
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let params = gpu.buffer_with_async("params", PARAMS_STRIDE * launches.len() as u64, usage).await?;
        let mut dispatches = Vec::new();
        for (launch, offset) in launches.iter().zip((0..).step_by(PARAMS_STRIDE as usize)) {
            dispatches.push(kernels.prepare_async(launch, &params, offset).await?);
        }
        gpu.check()?;
        let cuts = RefCell::new(SubmissionCuts::whole(dispatches.len()));
        Ok(Executor { gpu, graph, plan, dispatches, ends, arenas: own, slots, guarded, cuts })
    }

    /// Where the bytes behind a value begin.
    fn end(&self, id: ValueId) -> (&Buffer, u64) {
        let (buffer, offset) = self.locate(id);
        (buffer, offset + self.graph.value(id).ty.bytes())
    }

    /// What stands behind a value. Every value has its own bits: a stray copy of another's canary shows.
    fn canaries(&self, id: ValueId) -> Vec<u32> {
        let in_place = |node: &Node| node.op.operation().in_place() && node.outputs.contains(&id);
        // NaN, which no factor of zero hides. It would survive a sum, so a value that is updated in place has
        // a large number instead, which does not.
        let bits = if self.graph.nodes.iter().any(in_place) { 0x7149_f2ca } else { 0x7fc0_dead };
        vec![bits ^ id.0; CANARY_BYTES as usize / 4]
    }

    /// The values behind whose end something was written, of those that have canaries.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed.
    pub async fn overrun_async(&self) -> Result<Vec<ValueId>> {
        let mut found = Vec::new();
        for &id in &self.guarded {
            let (buffer, end) = self.end(id);
            if self.gpu.read_async::<u32>(buffer, end, CANARY_BYTES as usize / 4).await? != self.canaries(id) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// As [`Executor::overrun_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::overrun_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn overrun(&self) -> Result<Vec<ValueId>> {
        pollster::block_on(self.overrun_async())
    }

    /// From now on no submission holds the device longer than `target`, as measured by `clock`, where a single dispatch
    /// does not.
    ///
    /// The next executions are measured dispatch by dispatch; those after them are cut accordingly. The numbers are
    /// the same either way: the device does the same dispatches in the same order.
    pub fn limit_submission_time(&mut self, target: Duration, clock: Clock) {
        self.cuts = RefCell::new(SubmissionCuts::measured(self.dispatches.len(), target, clock));
    }

    /// Whether the next execution is measured dispatch by dispatch, which takes longer than one that is not.
    pub fn is_measuring(&self) -> bool {
        self.cuts.borrow().measuring().is_some()
    }

    /// Encodes and submits one execution of the graph; returns its last submission. Waits for the device only while
    /// dispatches are measured: see [`Executor::limit_submission_time`].
    ///
    /// # Errors
    /// As [`Gpu::submit`]; the work itself may fail later, which the next wait or read tells.
    pub async fn submit_async(&self) -> Result<Submission> {
        self.submit_dispatches_async(0..self.dispatches.len()).await
    }

    /// The runs of dispatches of which an execution consists, in order; one where the graph joins nothing.
    pub fn segments(&self) -> Vec<Segment> {
        let (mut segments, mut begin) = (Vec::new(), 0);
        for (node, &end) in self.graph.nodes.iter().zip(&self.ends) {
            if let Some(joined) = node.op.operation().joined() {
                let values = node.outputs[joined.outputs].to_vec();
                segments.push(Segment { dispatches: begin..end, values, join: Some(joined.join) });
                begin = end;
            }
        }
        segments.push(Segment { dispatches: begin..self.dispatches.len(), values: Vec::new(), join: None });
        segments
    }

    /// As [`Executor::submit_async`], of one segment. All segments in order are an execution.
    ///
    /// # Errors
    /// As [`Executor::submit_async`].
    pub async fn submit_segment_async(&self, segment: &Segment) -> Result<Submission> {
        self.submit_dispatches_async(segment.dispatches.clone()).await
    }

    async fn submit_dispatches_async(&self, dispatches: Range<usize>) -> Result<Submission> {
        let measuring = self.cuts.borrow().measuring();
        if let Some(clock) = measuring {
            // What was submitted before must not count.
            self.gpu.wait_async().await?;
            let (first, mut times) = (dispatches.start, Vec::new());
            for i in dispatches {
                let begun = clock();
                let submission = self.submit_range(i..i + 1)?;
                self.gpu.wait_for_async(&submission).await?;
                times.push(clock().saturating_sub(begun));
            }
            self.cuts.borrow_mut().note(first, times);
            return self.submit_range(0..0);
        }
        let mut last = None;
        for range in self.cuts.borrow().ranges() {
            let range = range.start.max(dispatches.start)..range.end.min(dispatches.end);
            if !range.is_empty() {
                last = Some(self.submit_range(range)?);
            }
        }
        last.map_or_else(|| self.submit_range(0..0), Ok)
    }

    /// As [`Executor::submit_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::submit_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn submit(&self) -> Result<Submission> {
        pollster::block_on(self.submit_async())
    }

    fn submit_range(&self, range: Range<usize>) -> Result<Submission> {
        let mut encoder = self.gpu.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in &self.dispatches[range] {
                dispatch.encode(&mut pass);
            }
        }
        self.gpu.submit(encoder)
    }

    /// Submissions of one execution, as things stand.
    pub fn submissions(&self) -> usize {
        self.cuts.borrow().ranges().len()
    }

    /// The dispatch that took longest when it was measured, if it alone exceeds the target of
    /// [`Executor::limit_submission_time`].
    pub fn over_target(&self) -> Option<(String, Duration)> {
        self.cuts.borrow().over_target().map(|(i, time)| (self.dispatches[i].label.clone(), time))
    }

    /// Encodes some of the nodes.
    pub fn encode(&self, pass: &mut wgpu::ComputePass, nodes: Range<usize>) {
        let end = |nodes: usize| if nodes == 0 { 0 } else { self.ends[nodes - 1] };
        for dispatch in &self.dispatches[end(nodes.start)..end(nodes.end)] {
            dispatch.encode(pass);
        }
    }

    /// Where a value lives on the device: buffer and first byte. For a value that [`Executor::check_id`] accepts.
    pub fn locate(&self, id: ValueId) -> (&Buffer, u64) {
        match &self.graph.value(id).storage {
            Storage::Arena { arena, offset } => (&self.arenas[arena], *offset),
            Storage::Transient => (&self.slots[self.plan.slot_of[&id]], self.plan.offset_of[&id]),
        }
    }

    /// Writes a value before the next submission.
    ///
    /// # Errors
    /// [`Error::Argument`] when the length is not the value's, or the value none of the graph's; [`Error::Device`] when
    /// the device failed.
    pub async fn write_async<T: bytemuck::NoUninit>(&self, id: ValueId, data: &[T]) -> Result<()> {
        self.check_id(id)?;
        let value = self.graph.value(id);
        if size_of_val(data) as u64 != value.ty.bytes() {
            return Err(Error::Argument {
                what: "the data of a value",
                got: format!("{} bytes", size_of_val(data)),
                wanted: format!("the {} bytes of {} {:?}", value.ty.bytes(), value.name, value.ty.shape),
            });
        }
        let (buffer, offset) = self.locate(id);
        self.gpu.write_async(buffer, offset, data).await
    }

    /// As [`Executor::write_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::write_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn write<T: bytemuck::NoUninit>(&self, id: ValueId, data: &[T]) -> Result<()> {
        pollster::block_on(self.write_async(id, data))
    }

    /// Reads a value after waiting for the device. A transient one must have been kept.
    ///
    /// # Errors
    /// [`Error::Device`] when the device failed; [`Error::Argument`] when the value is none of the graph's or `T` has
    /// another size than its elements.
    pub async fn read_async<T: bytemuck::Pod>(&self, id: ValueId) -> Result<Vec<T>> {
        self.check_id(id)?;
        let ty = &self.graph.value(id).ty;
        if size_of::<T>() as u64 != ty.element.bytes() {
            return Err(Error::Argument {
                what: "the number type of a read",
                got: format!("{} bytes", size_of::<T>()),
                wanted: format!("the {} bytes of {:?}", ty.element.bytes(), ty.element),
            });
        }
        let (buffer, offset) = self.locate(id);
        self.gpu.read_async(buffer, offset, ty.len()).await
    }

    /// As [`Executor::read_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: bytemuck::Pod>(&self, id: ValueId) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(id))
    }

    /// Reads a whole arena as floats, after waiting for the device: the values in it are at their offsets.
    ///
    /// # Errors
    /// [`Error::Internal`] when the graph has no such arena, [`Error::Device`] when the device failed.
    pub async fn read_arena_async(&self, name: &str) -> Result<Vec<f32>> {
        let bytes = self.graph.arenas.get(name).copied();
        let (Some(buffer), Some(bytes)) = (self.arenas.get(name), bytes) else {
            return Err(Error::Internal(format!("there is no arena {name}")));
        };
        self.gpu.read_async(buffer, 0, (bytes / 4) as usize).await
    }

    /// As [`Executor::read_arena_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::read_arena_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_arena(&self, name: &str) -> Result<Vec<f32>> {
        pollster::block_on(self.read_arena_async(name))
    }

    /// Fails unless the id is that of a value which has a place on the device.
    ///
    /// # Errors
    /// [`Error::Argument`] when it is not.
    pub fn check_id(&self, id: ValueId) -> Result<()> {
        let placed = self.graph.values.get(id.0 as usize).is_some_and(|value| match &value.storage {
            Storage::Arena { arena, .. } => self.arenas.contains_key(arena),
            Storage::Transient => self.plan.slot_of.contains_key(&id),
        });
        if placed {
            return Ok(());
        }
        Err(Error::Argument {
            what: "the value",
            got: format!("number {}", id.0),
            wanted: "one that the executor's graph makes or reads".into(),
        })
    }

    /// Writes a value from the twin's numbers.
    ///
    /// # Errors
    /// As [`Executor::write_async`].
    pub async fn write_f64_async(&self, id: ValueId, data: &[f64]) -> Result<()> {
        self.check_id(id)?;
        match self.graph.value(id).ty.element {
            Element::F32 => self.write_async(id, &data.iter().map(|&v| v as f32).collect::<Vec<_>>()).await,
            Element::F16 => self.write_async(id, &data.iter().map(|&v| f16::from_f64(v)).collect::<Vec<_>>()).await,
            Element::U32 => self.write_async(id, &data.iter().map(|&v| v as u32).collect::<Vec<_>>()).await,
        }
    }

    /// As [`Executor::write_f64_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::write_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn write_f64(&self, id: ValueId, data: &[f64]) -> Result<()> {
        pollster::block_on(self.write_f64_async(id, data))
    }

    /// Reads a value as the twin's numbers.
    ///
    /// # Errors
    /// As [`Executor::read_async`].
    pub async fn read_f64_async(&self, id: ValueId) -> Result<Vec<f64>> {
        self.check_id(id)?;
        Ok(match self.graph.value(id).ty.element {
            Element::F32 => self.read_async::<f32>(id).await?.into_iter().map(f64::from).collect(),
            Element::F16 => self.read_async::<f16>(id).await?.into_iter().map(f64::from).collect(),
            Element::U32 => self.read_async::<u32>(id).await?.into_iter().map(f64::from).collect(),
        })
    }

    /// As [`Executor::read_f64_async`]; blocks.
    ///
    /// # Errors
    /// As [`Executor::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_f64(&self, id: ValueId) -> Result<Vec<f64>> {
        pollster::block_on(self.read_f64_async(id))
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Shader and entry point of each dispatch, `file.entry`.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.dispatches.iter().map(|dispatch| dispatch.label.as_str())
    }

    /// Number of dispatches in one execution.
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }
}
