//! Files of cases: single operations, losses, updates, views and classifiers. A case is found by its tensors'
//! names; its own name says what computes it.

use ieq_wgpu::gpu::Launch;
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::ier::losses;
use ieq_wgpu::nn::SLOPE;
use ieq_wgpu::ops::adaptive_pool::AdaptiveAveragePool;
use ieq_wgpu::ops::average::MovingAverage;
use ieq_wgpu::ops::bank::BankUpdate;
use ieq_wgpu::ops::batch_norm::{BatchNorm, BatchNormGiven, BatchNormRunning, EPSILON, MOMENTUM};
use ieq_wgpu::ops::clip::{ClipNorm, GlobalNorm};
use ieq_wgpu::ops::contrast::RowNormalise;
use ieq_wgpu::ops::conv2d::Conv2d;
use ieq_wgpu::ops::elementwise::LeakyRelu;
use ieq_wgpu::ops::factors::Factors;
use ieq_wgpu::ops::health;
use ieq_wgpu::ops::matmul::linear;
use ieq_wgpu::ops::pool::{GlobalAveragePool, MaxPool};
use ieq_wgpu::ops::sgd::Sgd;
use ieq_wgpu::ops::step_block::StepBlock;
use ieq_wgpu::settings::{DecayAt, Length, OptimiserConfig, Schedule};
use ieq_wgpu::tape::backward::{backward, backward_from};
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::graph::BLOCK;
use ieq_wgpu::tape::matrix::use_matrix;
use ieq_wgpu::tape::{Graph, Type, ValueId};

use super::golden::{Golden, Report};
use super::{golden_classifiers, golden_views};

/// Where a case is computed.
pub struct Bench<'a> {
    /// Shaders and device.
    pub kernels: &'a mut Kernels,
    /// What is done to every launch; a test breaks one here on purpose.
    pub change: &'a dyn Fn(Launch<ValueId>) -> Launch<ValueId>,
}

impl Bench<'_> {
    /// Runs `graph` once on `given` and reads `outputs`. What is loaded from behind a tensor is NaN, and what is
    /// stored there an error.
    pub fn run(
        &mut self,
        graph: Graph,
        given: &[(ValueId, Vec<f64>)],
        outputs: &[ValueId],
    ) -> Result<Vec<Vec<f32>>, String> {
        let executor = self.executor(graph)?;
        for (id, data) in given {
            executor.write_f64(*id, data).map_err(say)?;
        }
        executor.submit().map_err(say)?;
        no_overrun(&executor)?;
        outputs.iter().map(|&id| executor.read(id).map_err(say)).collect()
    }

    /// Where the kernels have a matrix unit every product is computed by it, with factors in two parts.
    fn executor(&mut self, mut graph: Graph) -> Result<Executor, String> {
        if self.kernels.matrix_unit().is_some() {
            use_matrix(&mut graph, Factors::F32x3, 1).map_err(say)?;
        }
        Executor::with_canaries(self.kernels, &mut Arenas::new(), graph, self.change).map_err(say)
    }
}

fn no_overrun(executor: &Executor) -> Result<(), String> {
    match executor.overrun().map_err(say)?.first() {
        None => Ok(()),
        Some(&id) => Err(format!("something is written behind {}", executor.graph().value(id).name)),
    }
}

/// The computed tensors of a case, by the parts of their names after the case's.
pub type Computed = Result<Vec<(String, Vec<f32>)>, String>;

/// How a case is computed.
type Compute = fn(&Golden, &str, &mut Bench) -> Computed;

/// What computes the cases whose names start so.
const KINDS: [(&str, Compute); 20] = [
    ("conv", convolution),
    ("bn", batch_norm),
    ("act", activations),
    ("pool", max_pool),
    ("avgpool", average_pool),
    ("adaptive", adaptive_pool),
    ("linear", linear_layer),
    ("ce", cross_entropy),
    ("nce", nce),
    ("invloss", invariant_loss),
    ("kl", kl_divergence),
    ("mse", squared_error),
    ("sgd", sgd),
    ("clip", clip),
    ("average", average),
    ("schedule", schedule),
    ("bank", bank),
    ("copies", golden_views::copies),
    ("dropblock", golden_views::drop_blocks),
    ("l2n", normalise),
];

/// The function for a case: by what it holds, or by the letters that its name starts with.
fn compute(golden: &Golden, case: &str) -> Result<Compute, String> {
    let has = |part: &str| golden.has(&format!("{case}.{part}"));
    if has("support") {
        return Ok(golden_classifiers::classifiers);
    }
    if has("base") {
        return Ok(golden_views::augmented);
    }
    KINDS
        .into_iter()
        .find(|(start, _)| case.strip_prefix(start).is_some_and(|rest| !rest.starts_with(char::is_alphabetic)))
        .map(|(_, compute)| compute)
        .ok_or_else(|| {
            let known = KINDS.map(|(start, _)| start).join(", ");
            format!("the case is of an unknown kind; the name of a case starts with one of {known}")
        })
}

/// Compares every case of `golden`. A case without any tensor to compare is a failure.
pub fn evaluate<'g>(golden: &'g Golden, bench: &mut Bench) -> Report<'g> {
    let mut report = Report::new(golden);
    for case in golden.cases() {
        let before = report.compared();
        match compute(golden, case).and_then(|compute| compute(golden, case, bench)) {
            Ok(computed) => computed.iter().for_each(|(part, got)| report.check(&format!("{case}.{part}"), got)),
            Err(why) => report.fail(case, &why),
        }
        if report.compared() == before {
            report.fail(case, "nothing was compared");
        }
    }
    report.finish()
}

/// The engine's errors as the tests' sentences.
pub fn say(error: ieq_wgpu::Error) -> String {
    error.to_string()
}

/// A number of a case's metadata.
pub fn setting(golden: &Golden, case: &str, key: &str) -> Result<f64, String> {
    let value = golden.settings(case)?;
    value.get(key).and_then(|v| v.as_f64()).ok_or_else(|| format!("the case's metadata has no number {key}"))
}

/// A graph over a case's tensors.
struct Recorder<'a> {
    golden: &'a Golden,
    case: &'a str,
    graph: Graph,
    given: Vec<(ValueId, Vec<f64>)>,
    outputs: Vec<(String, ValueId)>,
}

impl<'a> Recorder<'a> {
    fn new(golden: &'a Golden, case: &'a str) -> Self {
        Recorder { golden, case, graph: Graph::new(), given: Vec::new(), outputs: Vec::new() }
    }

    fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.case)
    }

    fn setting(&self, key: &str) -> Result<f32, String> {
        Ok(setting(self.golden, self.case, key)? as f32)
    }

    fn setting_or(&self, key: &str, otherwise: f32) -> f32 {
        self.setting(key).unwrap_or(otherwise)
    }

    fn size(&self, key: &str) -> Result<usize, String> {
        Ok(setting(self.golden, self.case, key)? as usize)
    }

    /// The tensor `part` as a value; with a gradient where the file has one to compare.
    fn input(&mut self, part: &str) -> Result<ValueId, String> {
        self.input_with(part, self.golden.has(&self.name(&format!("g{part}"))))
    }

    fn input_with(&mut self, part: &str, gradient: bool) -> Result<ValueId, String> {
        let tensor = self.golden.get(&self.name(part))?;
        let id = self.graph.in_arena(part, part, Type::f32(tensor.shape.clone()), gradient);
        self.given.push((id, tensor.data.iter().map(|&v| f64::from(v)).collect()));
        Ok(id)
    }

    fn indices(&mut self, part: &str) -> Result<ValueId, String> {
        let indices = self.golden.indices(&self.name(part))?;
        let id = self.graph.in_arena(part, part, Type::u32([indices.len()]), false);
        self.given.push((id, indices.into_iter().map(f64::from).collect()));
        Ok(id)
    }

    fn output(&mut self, part: &str, id: ValueId) {
        self.outputs.push((part.to_owned(), id));
    }

    /// The gradients of y for the upstream gradient `gy`: `g{part}` of those inputs that want one.
    fn output_gradients(&mut self, y: ValueId, gy: ValueId, inputs: &[(&str, ValueId)]) -> Result<(), String> {
        let gradients = backward_from(&mut self.graph, &[(y, gy)]).map_err(say)?;
        for (part, id) in inputs {
            if let Some(&gradient) = gradients.get(id) {
                self.output(&format!("g{part}"), gradient);
            }
        }
        Ok(())
    }

    /// Takes `y` and, where there is a `gy`, the gradients.
    fn layer(mut self, y: ValueId, inputs: &[(&str, ValueId)], bench: &mut Bench) -> Computed {
        self.output("y", y);
        if self.golden.has(&self.name("gy")) {
            let gy = self.input("gy")?;
            self.output_gradients(y, gy, inputs)?;
        }
        self.run(bench)
    }

    /// Takes `loss` and the gradients of those `inputs` that the file has.
    fn loss(mut self, loss: ValueId, inputs: &[(&str, ValueId)], bench: &mut Bench) -> Computed {
        self.output("loss", loss);
        let gradients = backward(&mut self.graph, loss).map_err(say)?;
        for (part, id) in inputs {
            if let Some(&gradient) = gradients.get(id) {
                self.output(&format!("g{part}"), gradient);
            }
        }
        self.run(bench)
    }

    fn run(self, bench: &mut Bench) -> Computed {
        let (parts, ids): (Vec<String>, Vec<ValueId>) = self.outputs.into_iter().unzip();
        Ok(parts.into_iter().zip(bench.run(self.graph, &self.given, &ids)?).collect())
    }
}

fn convolution(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (x, w) = (r.input("x")?, r.input("w")?);
    let op = Conv2d::new(r.size("stride")?, r.size("pad")?);
    let y = r.graph.one(op, &[x, w]).map_err(say)?;
    r.layer(y, &[("x", x), ("w", w)], bench)
}

fn batch_norm(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    for (key, ours) in [("eps", EPSILON), ("momentum", MOMENTUM)] {
        let theirs = r.setting(key)?;
        if theirs != ours {
            return Err(format!("its {key} is {theirs}, the engine's is {ours} and no setting"));
        }
    }
    let (x, gamma, beta) = (r.input("x")?, r.input("gamma")?, r.input("beta")?);
    let (mean, var) = (r.input("rm")?, r.input("rv")?);
    // With the statistics before the step: recorded before they move.
    let evaluated = r
        .graph
        .one(BatchNormGiven { slope: 1.0, apply: true, joined: false }, &[x, gamma, beta, mean, var])
        .map_err(say)?;
    let made = r.graph.apply(BatchNorm { slope: 1.0, apply: true }, &[x, gamma, beta]).map_err(say)?;
    let count = r.graph.value(x).ty.len() / r.graph.shape(x)[1];
    r.graph.update(BatchNormRunning { count }, &[made[1]], &[mean, var]).map_err(say)?;
    for (part, id) in [("y_eval", evaluated), ("rm_after", mean), ("rv_after", var)] {
        r.output(part, id);
    }
    r.layer(made[0], &[("x", x), ("gamma", gamma), ("beta", beta)], bench)
}

fn activations(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (x, gy) = (r.input_with("x", true)?, r.input("gy")?);
    for (part, slope) in [("leaky", SLOPE), ("relu", 0.0)] {
        let y = r.graph.one(LeakyRelu { slope }, &[x]).map_err(say)?;
        let gradients = backward_from(&mut r.graph, &[(y, gy)]).map_err(say)?;
        r.output(&format!("{part}_y"), y);
        r.output(&format!("{part}_gx"), gradients[&x]);
    }
    r.run(bench)
}

fn max_pool(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let y = r.graph.one(MaxPool::new(1.0), &[x]).map_err(say)?;
    r.layer(y, &[("x", x)], bench)
}

fn average_pool(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let y = r.graph.one(GlobalAveragePool, &[x]).map_err(say)?;
    r.layer(y, &[("x", x)], bench)
}

fn adaptive_pool(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let side = r.size("side")?;
    let y = r.graph.one(AdaptiveAveragePool { side }, &[x]).map_err(say)?;
    r.layer(y, &[("x", x)], bench)
}

fn linear_layer(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (x, w, b) = (r.input("x")?, r.input("w")?, r.input("b")?);
    let y = linear(&mut r.graph, x, w, b).map_err(say)?;
    r.layer(y, &[("x", x), ("w", w), ("b", b)], bench)
}

fn cross_entropy(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (x, targets) = (r.input("x")?, r.indices("y")?);
    let smoothing = r.setting_or("smoothing", 0.0);
    let loss = losses::smoothed_cross_entropy(&mut r.graph, x, targets, smoothing).map_err(say)?;
    r.loss(loss, &[("x", x)], bench)
}

fn nce(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (anchor, other, neg) = (r.input("anchor")?, r.input("other")?, r.input("neg")?);
    let tau = r.setting("tau")?;
    let loss = losses::nce(&mut r.graph, anchor, other, neg, tau).map_err(say)?;
    r.loss(loss, &[("anchor", anchor), ("other", other), ("neg", neg)], bench)
}

fn invariant_loss(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (z, bank_rows, neg) = (r.input("z")?, r.input("bank_rows")?, r.input("neg")?);
    let viewed = golden.shape(&format!("{case}.bank_rows"))?[0];
    let contrast = losses::Contrast { tau: r.setting("tau")?, viewed, counted: None };
    let loss = losses::contrastive_loss(&mut r.graph, z, bank_rows, neg, &contrast).map_err(say)?;
    r.loss(loss, &[("z", z)], bench)
}

fn kl_divergence(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (s, t) = (r.input("s")?, r.input("t")?);
    let temperature = r.setting("T")?;
    let loss = losses::kl_divergence(&mut r.graph, s, t, temperature).map_err(say)?;
    r.loss(loss, &[("s", s)], bench)
}

fn squared_error(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (s, t) = (r.input("s")?, r.input("t")?);
    let loss = losses::mean_squared_error(&mut r.graph, s, t).map_err(say)?;
    r.loss(loss, &[("s", s)], bench)
}

/// As many steps as there are gradients `g0`, `g1`, ...
fn sgd(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let name = |part: &str| format!("{case}.{part}");
    // As in a step, the vectors are rows of blocks; the last one is filled up with zeros.
    let n = golden.data(&name("p"))?.len();
    let blocks = n.div_ceil(BLOCK);
    let padded = |part: &str| -> Result<Vec<f32>, String> {
        let mut data = golden.data(&name(part))?.to_vec();
        data.resize(blocks * BLOCK, 0.0);
        Ok(data)
    };
    let vector = |graph: &mut Graph, part: &str| graph.input(part, Type::f32([blocks, BLOCK]));
    let [p, gradient, velocity] = ["p", "gradient", "momentum"].map(|part| vector(&mut r.graph, part));
    let rates = r.graph.input("rates", Type::f32([blocks, 2]));
    let block = r.graph.input("step", StepBlock::ty());
    let state = r.graph.input("health", Type::u32([health::WORDS]));
    let op = Sgd { momentum: r.setting("momentum")?, nesterov: r.setting_or("nesterov", 0.0) == 1.0 };
    r.graph.update(op, &[gradient, rates, block], &[p, velocity, state]).map_err(say)?;
    let rate = r.setting("lr")?;
    let executor = bench.executor(r.graph.clone())?;
    executor.write(p, &padded("p")?).map_err(say)?;
    executor.write(rates, &[1.0, r.setting("weight_decay")?].repeat(blocks)).map_err(say)?;
    let mut computed = Vec::new();
    for step in (0..).take_while(|step| golden.has(&r.name(&format!("g{step}")))) {
        executor.write(gradient, &padded(&format!("g{step}"))?).map_err(say)?;
        executor.write(block, &StepBlock::new(step, 0, rate, 0.0).words()).map_err(say)?;
        executor.submit().map_err(say)?;
        for (letter, id) in [("p", p), ("v", velocity)] {
            let mut got: Vec<f32> = executor.read(id).map_err(say)?;
            got.truncate(n);
            computed.push((format!("{letter}{}", step + 1), got));
        }
    }
    if executor.read::<u32>(state).map_err(say)? != [0; health::WORDS] {
        return Err("a health bit was raised".to_owned());
    }
    no_overrun(&executor)?;
    Ok(computed)
}

fn clip(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let norm = r.graph.one(GlobalNorm, &[x]).map_err(say)?;
    let most = r.setting("max_norm")?;
    r.graph.update(ClipNorm { most }, &[norm], &[x]).map_err(say)?;
    r.output("norm", norm);
    r.output("y", x);
    r.run(bench)
}

/// As many steps as there are values `x0`, `x1`, ...
fn average(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x0")?;
    let ty = r.graph.value(x).ty.clone();
    let (mean, block) = (r.graph.input("average", ty), r.graph.input("step", StepBlock::ty()));
    let take = (1.0 - setting(golden, case, "decay")?) as f32;
    r.graph.update(MovingAverage { take }, &[x, block], &[mean]).map_err(say)?;
    let executor = bench.executor(r.graph.clone())?;
    let mut computed = Vec::new();
    for step in (0..).take_while(|step| golden.has(&r.name(&format!("x{step}")))) {
        executor.write(x, golden.data(&r.name(&format!("x{step}")))?).map_err(say)?;
        executor.write(block, &StepBlock::new(step, 0, 0.0, 0.0).words()).map_err(say)?;
        executor.submit().map_err(say)?;
        computed.push((format!("y{}", step + 1), executor.read(mean).map_err(say)?));
    }
    no_overrun(&executor)?;
    Ok(computed)
}

/// The learning rate of every step; no device.
fn schedule(golden: &Golden, case: &str, _: &mut Bench) -> Computed {
    let settings = golden.settings(case)?;
    let number = |key: &str| setting(golden, case, key);
    let mut optimiser = OptimiserConfig::default();
    optimiser.batch = 1;
    optimiser.schedule = settings["schedule"].as_str().ok_or("no schedule")?.parse()?;
    (optimiser.lr, optimiser.warmup) = (number("lr")?, number("warmup")?);
    let steps = number("steps")? as u32;
    optimiser.length = Length::Steps(steps);
    let at = settings["decay_at"].as_array().ok_or("no decay_at")?;
    optimiser.decay_at = DecayAt::Steps(at.iter().filter_map(|step| step.as_u64()).map(|step| step as u32).collect());
    let schedule = Schedule::new(&optimiser, 100).map_err(say)?;
    Ok(vec![("lr".to_owned(), (0..steps).map(|step| schedule.lr_at(step) as f32).collect())])
}

fn bank(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (table, index, rows) = (r.input("bank")?, r.indices("idx")?, r.input("v0")?);
    let op = BankUpdate { momentum: r.setting("rate")? };
    r.graph.update(op, &[index, rows], &[table]).map_err(say)?;
    r.output("after", table);
    r.run(bench)
}

fn normalise(golden: &Golden, case: &str, bench: &mut Bench) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let y = r.graph.one(RowNormalise { epsilon: 0.0 }, &[x]).map_err(say)?;
    r.layer(y, &[], bench)
}
