//! Files of whole networks: training steps, distillation and evaluation mode, by the same code that trains.

use ieq_wgpu::fewshot::l2_normalise;
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::ier::negatives::BankHistory;
use ieq_wgpu::ier::spec::{StepInputs, StepSpec};
use ieq_wgpu::ier::step::{Step, record};
use ieq_wgpu::nn::{Drop, Entry, Heads, Mode, Net, NetSpec, Outputs};
use ieq_wgpu::ops::factors::Factors;
use ieq_wgpu::ops::health;
use ieq_wgpu::ops::step_block::StepBlock;
use ieq_wgpu::settings::{Backbone, DistillConfig, MethodConfig, OptimiserConfig};
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::matrix::use_matrix;
use ieq_wgpu::tape::passes::Passes;
use ieq_wgpu::tape::{Graph, Type, ValueId};
use ieq_wgpu::train::inputs::{Negatives, Rows, counted_rows};

use super::golden::{Golden, Report, compare};
use super::golden_cases::{Bench, say};
use super::golden_views;

/// The rate of the `lo` steps, as a share of the others'.
const LOW_RATE: f32 = 0.1;

/// Weight decay of the `wd` step: so large that a parameter left out of the decay shows.
const HUGE_DECAY: f64 = 0.5;

/// Compares the training steps of `golden`, with or without a teacher.
pub fn training<'g>(golden: &'g Golden, kernels: &mut Kernels) -> Report<'g> {
    let mut report = Report::new(golden);
    for outcome in [made_inputs(golden, kernels, &mut report), steps(golden, kernels, &mut report)] {
        if let Err(why) = outcome {
            report.fail("", &why);
        }
    }
    report.finish()
}

/// What the file gives as input and the engine can make itself: copies of the views, masks of DropBlock.
fn made_inputs(golden: &Golden, kernels: &mut Kernels, report: &mut Report) -> Result<(), String> {
    let mut bench = Bench { kernels, change: &|launch| launch };
    if golden.has("view0") {
        for (part, got) in golden_views::copies(golden, "", &mut bench)? {
            report.check(&part, &got);
        }
    }
    if golden.has("image") {
        report.check("x", &golden_views::drawn_rows(golden, &step_spec(golden)?, &mut bench)?);
    }
    for layer in 1..=4 {
        let case = format!("drop{layer}");
        if !golden.has(&format!("{case}.seed")) {
            continue;
        }
        for (part, got) in golden_views::drop_blocks(golden, &case, &mut bench)? {
            report.check(&format!("{case}.{part}"), &got);
            if part == "scale" {
                let want = drop_scale(golden, layer)?;
                let tolerance = golden.tolerance("drop_scale")?;
                if let Err(why) = compare(&got, &[want], tolerance) {
                    report.fail(&format!("drop_scale of layer {layer}"), &why);
                }
            }
        }
    }
    Ok(())
}

fn drop_scale(golden: &Golden, layer: usize) -> Result<f32, String> {
    let scales = golden.data("drop_scale")?;
    scales.get(layer - 1).copied().ok_or_else(|| format!("drop_scale has {} numbers, not 4", scales.len()))
}

/// The network whose state stands under `prefix`: its sizes are those of its tensors.
fn net_spec(golden: &Golden, prefix: &str) -> Result<NetSpec, String> {
    let outputs = |name: &str| -> Result<usize, String> {
        let shape = golden.shape(&format!("{prefix}{name}.weight"))?;
        shape.first().copied().ok_or_else(|| format!("{prefix}{name}.weight has no axis"))
    };
    let head = |name: &str| golden.has(&format!("{prefix}{name}.weight")).then(|| outputs(name)).transpose();
    let blocks = (1..).take_while(|block| golden.has(&format!("{prefix}layer{block}.0.conv1.weight")));
    let widths = blocks.map(|block| outputs(&format!("layer{block}.0.conv1"))).collect::<Result<Vec<_>, _>>()?;
    Ok(NetSpec {
        backbone: Backbone::Resnet12,
        widths,
        n_classes: outputs("classifier")?,
        n_transforms: head("eq_head.6")?,
        projection: head("inv_head.6")?,
    })
}

fn step_spec(golden: &Golden) -> Result<StepSpec, String> {
    let number = |key: &str| golden.number(key);
    let rows = |name: &str| -> Result<usize, String> {
        golden.shape(name)?.first().copied().ok_or_else(|| format!("{name} is a scalar"))
    };
    let batch = rows("labels")?.max(1);
    let net = net_spec(golden, "init.")?;
    let distill = golden.has("teacher.classifier.weight").then(|| -> Result<DistillConfig, String> {
        let mut distill = DistillConfig::default();
        distill.temperature = number("T")?;
        distill.weight_loss = number("w_ce")?;
        distill.weight_distill = number("w_div")?;
        (distill.kl_class, distill.kl_transform) = (1.0, 1.0);
        (distill.mse_invariant, distill.mse_feature) = (1.0, 1.0);
        Ok(distill)
    });
    let mut method = MethodConfig::default();
    (method.gamma, method.tau, method.bank_momentum) = (number("gamma")?, number("tau")?, number("bank_rate")?);
    let given = |key: &str| golden.metadata.contains_key(key).then(|| number(key)).transpose();
    method.weight_class = given("weight_class")?.unwrap_or(method.weight_class);
    (method.weight_equivariance, method.weight_invariance) =
        (given("weight_equivariance")?, given("weight_invariance")?);
    method.bank_recent = given("bank_recent")?.map(|recent| recent as usize);
    // Further views of some of the images, or all transforms of each.
    let viewed = given("viewed")?.map_or(batch, |viewed| viewed as usize).max(1);
    let mut optimiser = OptimiserConfig::default();
    (optimiser.momentum, optimiser.weight_decay) = (number("momentum")?, number("weight_decay")?);
    Ok(StepSpec {
        net,
        batch,
        copies: rows("x")?.saturating_sub(batch) / viewed + 1,
        viewed,
        drawn: viewed < batch,
        class_rotations: given("class_rotations")?.map_or(1, |rotations| rotations as usize),
        parts: 1,
        exchanged: false,
        joined: false,
        bank_rows: rows("bank")?,
        negatives: given("negatives")?.map_or_else(|| rows("neg_idx"), |places| Ok(places as usize))?,
        method,
        optimiser,
        distill: distill.transpose()?,
    })
}

/// The trajectories of the file: at its rate, at a low one, and a step with a huge decay.
fn steps(golden: &Golden, kernels: &mut Kernels, report: &mut Report) -> Result<(), String> {
    let spec = step_spec(golden)?;
    let rate = golden.number("lr")? as f32;
    if golden.metadata.contains_key("variants") {
        return variants(golden, &spec, rate, kernels, report);
    }
    let run = Training::record(golden, &spec, kernels)?;
    run.trajectory(golden, rate, "s", "", report)?;
    let low = last_step(golden, "lo", "lo_");
    if low > 0 {
        run.trajectory(golden, LOW_RATE * rate, "lo", "lo_", report)?;
    }
    if golden.tensors.keys().any(|name| name.starts_with("wd.")) {
        let mut spec = spec;
        spec.optimiser.weight_decay = HUGE_DECAY;
        let run = Training::record(golden, &spec, kernels)?;
        run.start(golden)?;
        run.step(0, rate)?;
        run.check_state(golden, "wd.", report)?;
    }
    Ok(())
}

/// The trajectories of a file with several settings of the optimiser, each with a name: its states are `{name}{step}.`, its
/// losses `{name}_loss.` and, where they are not the file's, its rates `{name}_lr`.
fn variants(
    golden: &Golden,
    spec: &StepSpec,
    rate: f32,
    kernels: &mut Kernels,
    report: &mut Report,
) -> Result<(), String> {
    let all = golden.settings("variants")?;
    for (name, options) in all.as_object().ok_or("the variants are no object")? {
        let mut spec = spec.clone();
        for (key, value) in options.as_object().ok_or("a variant is no object")? {
            let value = value.as_f64().ok_or("an option is no number")?;
            match key.as_str() {
                "nesterov" => spec.optimiser.nesterov = value == 1.0,
                "decay_norm" => spec.optimiser.decay_norm = value == 1.0,
                "clip_norm" => spec.optimiser.clip_norm = Some(value),
                "average" => spec.optimiser.average = value,
                "label_smoothing" => spec.method.label_smoothing = value,
                "schedule" => {}
                _ => return Err(format!("{name}: the option {key} is unknown")),
            }
        }
        let run = Training::record(golden, &spec, kernels)?;
        let last = last_step(golden, name, &format!("{name}_"));
        let own = format!("{name}_lr");
        let rates = if golden.has(&own) { golden.data(&own)?.to_vec() } else { vec![rate; last as usize] };
        run.trajectory_at(golden, &rates, name, &format!("{name}_"), report)?;
    }
    Ok(())
}

/// The last step of which the file has the state `{state}{step}.` or the losses `{losses}loss_step{step}.`.
fn last_step(golden: &Golden, state: &str, losses: &str) -> u32 {
    let losses = format!("{losses}loss_step");
    let number = |name: &str, start: &str| name.strip_prefix(start)?.split_once('.')?.0.parse::<u32>().ok();
    golden.tensors.keys().filter_map(|name| number(name, state).or_else(|| number(name, &losses))).max().unwrap_or(0)
}

/// A recorded step on a device.
struct Training {
    spec: StepSpec,
    executor: Executor,
    step: Step,
    masks: Vec<(ValueId, String)>,
}

impl Training {
    fn record(golden: &Golden, spec: &StepSpec, kernels: &mut Kernels) -> Result<Self, String> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32(golden.shape("x")?));
        let block = graph.input("step", StepBlock::ty());
        let index = graph.input("index", Type::u32([spec.batch]));
        let inputs = StepInputs::declare(&mut graph, spec, x, block, index);
        let mut masks = Vec::new();
        let drop = if golden.has("drop_scale") {
            let mut given = Vec::new();
            for layer in 1..=4 {
                let name = format!("drop{layer}.keep");
                let mask = graph.input(&name, Type::f32(golden.shape(&name)?));
                given.push((mask, drop_scale(golden, layer)?));
                masks.push((mask, name));
            }
            Drop::Given(given)
        } else {
            Drop::Off
        };
        let step = record(&mut graph, spec, inputs, &drop).map_err(say)?;
        let outputs = [Some(step.outputs), step.teacher_outputs];
        let outputs = outputs.iter().flatten().flat_map(named).map(|(_, id)| id);
        outputs.chain(step.maps.iter().copied()).for_each(|id| graph.keep(id));
        Passes::FUSE.apply(&mut graph).map_err(say)?;
        if kernels.matrix_unit().is_some() {
            use_matrix(&mut graph, Factors::F32x3, 1).map_err(say)?;
        }
        let executor = Executor::new(kernels, &mut Arenas::new(), graph).map_err(say)?;
        Ok(Training { spec: spec.clone(), executor, step, masks })
    }

    /// Writes the state before the first step and the inputs, which are the same in every step.
    fn start(&self, golden: &Golden) -> Result<(), String> {
        let (ex, step) = (&self.executor, &self.step);
        write_entries(ex, golden, "init.", step.parameters.iter().chain(&step.statistics))?;
        write_entries(ex, golden, "teacher.", &step.teacher)?;
        let zeros = |id: ValueId| vec![0_u32; ex.graph().value(id).ty.len()];
        for id in [step.flat.momentum, step.health] {
            ex.write(id, &zeros(id)).map_err(say)?;
        }
        for rates in &step.rates {
            ex.write(rates.value, &rates.table()).map_err(say)?;
        }
        let inputs = &step.inputs;
        let given = [(inputs.x, "x"), (inputs.bank, "bank")];
        let masks = self.masks.iter().map(|(id, name)| (*id, name.as_str()));
        for (id, name) in given.into_iter().chain(masks) {
            ex.write(id, golden.data(name)?).map_err(say)?;
        }
        let (slots, transforms) = (self.spec.slots().collect(), golden.indices("transform_ids")?);
        let rows = Rows { slots, transforms, view_words: Vec::new() };
        ex.write(inputs.classes, &rows.labels(&self.spec, &golden.indices("labels")?)).map_err(say)?;
        ex.write(inputs.transforms, &rows.transforms).map_err(say)?;
        ex.write(inputs.index, &golden.indices("idx")?).map_err(say)?;
        if self.history(golden)?.is_none() {
            ex.write(inputs.negatives, &golden.indices("neg_idx")?).map_err(say)?;
        }
        Ok(())
    }

    /// What has been written to the bank before the first step, where only recent rows count.
    fn history(&self, golden: &Golden) -> Result<Option<BankHistory>, String> {
        let Some(recent) = self.spec.method.bank_recent else { return Ok(None) };
        let mut history = BankHistory::new(self.spec.bank_rows, recent);
        history.write(&golden.indices("writes")?);
        Ok(Some(history))
    }

    /// Writes which bank rows and negatives count in a step, and notes what it writes to the bank.
    fn count(&self, golden: &Golden, number: u32, history: &mut BankHistory) -> Result<(), String> {
        let (ex, inputs, batch) = (&self.executor, &self.step.inputs, golden.indices("idx")?);
        let counted = inputs.counted.ok_or("the step counts all rows")?;
        ex.write(counted.rows, &counted_rows(&self.spec, history, &batch)).map_err(say)?;
        let negatives = Negatives::new(&self.spec, 1, number, &batch, Some(history));
        ex.write(inputs.negatives, &negatives.rows).map_err(say)?;
        ex.write(counted.negatives, &negatives.counted).map_err(say)?;
        history.write(&batch);
        Ok(())
    }

    fn step(&self, number: u32, rate: f32) -> Result<(), String> {
        self.executor.write(self.step.inputs.step, &StepBlock::new(number, 0, rate, 0.0).words()).map_err(say)?;
        self.executor.submit().map_err(say)?;
        let raised = self.read::<u32>(self.step.health)?;
        if raised == [0; health::WORDS] {
            Ok(())
        } else {
            Err(format!("step {number} raised the health bits {raised:?}"))
        }
    }

    fn read<T: bytemuck::Pod>(&self, id: ValueId) -> Result<Vec<T>, String> {
        self.executor.read(id).map_err(say)
    }

    /// All steps that the file knows: losses, states and, of the first step, what the network computed and the
    /// gradients.
    fn trajectory(
        &self,
        golden: &Golden,
        rate: f32,
        state: &str,
        losses: &str,
        report: &mut Report,
    ) -> Result<(), String> {
        let last = last_step(golden, state, losses).max(1);
        self.trajectory_at(golden, &vec![rate; last as usize], state, losses, report)
    }

    /// As [`Training::trajectory`], with the rate of every step.
    fn trajectory_at(
        &self,
        golden: &Golden,
        rates: &[f32],
        state: &str,
        losses: &str,
        report: &mut Report,
    ) -> Result<(), String> {
        self.start(golden)?;
        let mut history = self.history(golden)?;
        for (number, &rate) in (1..).zip(rates) {
            if let Some(history) = &mut history {
                self.count(golden, number, history)?;
            }
            self.step(number - 1, rate)?;
            let prefix = if number == 1 { format!("{losses}loss") } else { format!("{losses}loss_step{number}") };
            for (term, id) in &self.step.losses {
                report.check(&format!("{prefix}.{term}"), &self.read(*id)?);
            }
            self.check_state(golden, &format!("{state}{number}."), report)?;
            if number == 1 && losses.is_empty() {
                report.check("accuracy", &self.read(self.step.accuracy)?);
                self.check_first(report)?;
            }
        }
        Ok(())
    }

    fn check_first(&self, report: &mut Report) -> Result<(), String> {
        let step = &self.step;
        for (prefix, outputs) in [("out", Some(step.outputs)), ("tout", step.teacher_outputs)] {
            for (part, id) in outputs.iter().flat_map(named) {
                report.check(&format!("{prefix}.{part}"), &self.read(id)?);
            }
        }
        for (layer, &map) in step.maps.iter().enumerate() {
            report.check(&format!("map.layer{}", layer + 1), &self.read(map)?);
        }
        let gradients: Vec<f32> = self.read(step.flat.gradients)?;
        for entry in &step.parameters {
            // Gradients lie as their parameters do.
            let first = self.executor.locate(entry.value).1 as usize / 4;
            let n: usize = entry.shape.iter().product();
            report.check(&format!("grad.{}", entry.name), &gradients[first..first + n]);
        }
        Ok(())
    }

    fn check_state(&self, golden: &Golden, prefix: &str, report: &mut Report) -> Result<(), String> {
        let step = &self.step;
        for entry in step.parameters.iter().chain(&step.statistics) {
            let name = format!("{prefix}{}", entry.name);
            if golden.has(&name) {
                report.check(&name, &self.read(entry.value)?);
            }
        }
        for entry in &step.average {
            let name = format!("{prefix}average.{}", entry.name);
            if golden.has(&name) {
                report.check(&name, &self.read(entry.value)?);
            }
        }
        report.check(&format!("{prefix}bank"), &self.read(step.inputs.bank)?);
        Ok(())
    }
}

/// The outputs that a network has, by their names in the files.
fn named(outputs: &Outputs) -> impl Iterator<Item = (&'static str, ValueId)> {
    let all = [
        ("feat", Some(outputs.feat)),
        ("cls", Some(outputs.class)),
        ("eq", outputs.transform),
        ("inv", outputs.invariant),
    ];
    all.into_iter().filter_map(|(name, id)| Some((name, id?)))
}

fn write_entries<'e>(
    executor: &Executor,
    golden: &Golden,
    prefix: &str,
    entries: impl IntoIterator<Item = &'e Entry>,
) -> Result<(), String> {
    for entry in entries {
        executor.write(entry.value, golden.data(&format!("{prefix}{}", entry.name))?).map_err(say)?;
    }
    Ok(())
}

/// Compares the outputs in evaluation mode of every input `x{name}`: `feat{name}`, `cls{name}`, `featn{name}`, ...
pub fn embedding<'g>(golden: &'g Golden, kernels: &mut Kernels) -> Report<'g> {
    let mut report = Report::new(golden);
    for name in golden.tensors.keys().filter_map(|name| name.strip_prefix('x')) {
        if let Err(why) = embed(golden, name, kernels, &mut report) {
            report.fail(&format!("x{name}"), &why);
        }
    }
    report.finish()
}

fn embed(golden: &Golden, name: &str, kernels: &mut Kernels, report: &mut Report) -> Result<(), String> {
    let mut graph = Graph::new();
    let x = graph.input("x", Type::f32(golden.shape(&format!("x{name}"))?));
    let mut net = Net::new(&mut graph, "", Mode::Eval);
    let (outputs, _) = net.forward(x, &net_spec(golden, "state.")?, Heads::ALL, &Drop::Off).map_err(say)?;
    let entries = [net.parameters, net.statistics].concat();
    named(&outputs).for_each(|(_, id)| graph.keep(id));
    Passes::FUSE.apply(&mut graph).map_err(say)?;
    let executor = Executor::new(kernels, &mut Arenas::new(), graph).map_err(say)?;
    write_entries(&executor, golden, "state.", &entries)?;
    executor.write(x, golden.data(&format!("x{name}"))?).map_err(say)?;
    executor.submit().map_err(say)?;
    for (part, id) in named(&outputs) {
        let mut got: Vec<f32> = executor.read(id).map_err(say)?;
        report.check(&format!("{part}{name}"), &got);
        if part == "feat" {
            l2_normalise(&mut got, executor.graph().shape(id)[1]);
            report.check(&format!("featn{name}"), &got);
        }
    }
    Ok(())
}
