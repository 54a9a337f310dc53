//! The losses, the memory bank, the optimiser and row normalisation of `ops.safetensors` on a device.

use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::ier::losses;
use ieq_wgpu::ops::bank::BankUpdate;
use ieq_wgpu::ops::contrast::RowNormalise;
use ieq_wgpu::ops::dropout::{STEP_WORDS, step_block};
use ieq_wgpu::ops::health;
use ieq_wgpu::ops::sgd::Sgd;
use ieq_wgpu::tape::backward::backward;
use ieq_wgpu::tape::exec::{Arenas, Executor};
use ieq_wgpu::tape::{Graph, Type, ValueId};

use super::golden::Golden;

/// How a case is computed: its tensors by their full names.
type Compute = fn(&Golden, &str, &mut Kernels) -> Result<Vec<(String, Vec<f32>)>, String>;

/// What computes the cases whose names start so.
const KINDS: [(&str, Compute); 8] = [
    ("ce", cross_entropy),
    ("nce", nce),
    ("invloss", invariant_loss),
    ("kl", kl_divergence),
    ("mse", squared_error),
    ("sgd", sgd),
    ("bank", bank),
    ("l2n", normalise),
];

/// The function for a case of this file, by the letters that its name starts with.
fn kind(case: &str) -> Option<Compute> {
    KINDS
        .into_iter()
        .find(|(start, _)| case.strip_prefix(start).is_some_and(|rest| !rest.starts_with(char::is_alphabetic)))
        .map(|(_, compute)| compute)
}

/// Whether `case` is one of those that [`evaluate`] computes.
pub fn knows(case: &str) -> bool {
    kind(case).is_some()
}

/// Compares every case of `golden` that this file knows: number of comparisons and the failed ones' messages.
///
/// A case without any tensor to compare is a failure.
pub fn evaluate(golden: &Golden, kernels: &mut Kernels) -> Result<(usize, Vec<String>), String> {
    // A case's name may hold dots (`nce_tau0.1`), a tensor's part does not.
    let cases: std::collections::BTreeSet<&str> =
        golden.tensors.keys().filter_map(|name| name.rsplit_once('.')).map(|(case, _)| case).collect();
    let (mut count, mut failures) = (0, Vec::new());
    for case in cases {
        let Some(compute) = kind(case) else { continue };
        let before = count;
        for (name, got) in compute(golden, case, kernels).map_err(|e| format!("{case}: {e}"))? {
            if golden.has(&name) {
                count += 1;
                failures.extend(golden.check(&name, &got).err());
            }
        }
        if count == before {
            failures.push(format!("{} {case}: nothing was compared", golden.file));
        }
    }
    Ok((count, failures))
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
        let value = self.golden.settings(self.case)?;
        value.get(key).and_then(|v| v.as_f64()).map(|v| v as f32).ok_or_else(|| format!("no setting {key}"))
    }

    /// The tensor `part` as a value; with a gradient where the file has one to compare.
    fn input(&mut self, part: &str) -> Result<ValueId, String> {
        let tensor = self.golden.get(&self.name(part))?;
        let wanted = self.golden.has(&self.name(&format!("g{part}")));
        let id = self.graph.in_arena(part, part, Type::f32(tensor.shape.clone()), wanted);
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
        self.graph.keep(id);
        self.outputs.push((self.name(part), id));
    }

    /// Takes `loss` and the gradients of those `inputs` that the file has.
    fn loss(mut self, loss: ValueId, inputs: &[(&str, ValueId)], kernels: &mut Kernels) -> Computed {
        self.output("loss", loss);
        let gradients = backward(&mut self.graph, loss).map_err(say)?;
        for &(part, id) in inputs {
            if let Some(&gradient) = gradients.get(&id) {
                self.output(&format!("g{part}"), gradient);
            }
        }
        self.run(kernels)
    }

    fn run(self, kernels: &mut Kernels) -> Computed {
        let executor = Executor::new(kernels, &mut Arenas::new(), self.graph).map_err(say)?;
        for (id, data) in &self.given {
            executor.write_f64(*id, data).map_err(say)?;
        }
        executor.submit();
        self.outputs.into_iter().map(|(name, id)| Ok((name, executor.read(id).map_err(say)?))).collect()
    }
}

type Computed = Result<Vec<(String, Vec<f32>)>, String>;

fn say(error: ieq_wgpu::Error) -> String {
    error.to_string()
}

fn cross_entropy(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (x, targets) = (r.input("x")?, r.indices("y")?);
    let loss = losses::cross_entropy(&mut r.graph, x, targets).map_err(say)?;
    r.loss(loss, &[("x", x)], kernels)
}

fn nce(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (anchor, other, neg) = (r.input("anchor")?, r.input("other")?, r.input("neg")?);
    let tau = r.setting("tau")?;
    let loss = losses::nce(&mut r.graph, anchor, other, neg, tau).map_err(say)?;
    r.loss(loss, &[("anchor", anchor), ("other", other), ("neg", neg)], kernels)
}

fn invariant_loss(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (z, bank_rows, neg) = (r.input("z")?, r.input("bank_rows")?, r.input("neg")?);
    let tau = r.setting("tau")?;
    let loss = losses::contrastive_loss(&mut r.graph, z, bank_rows, neg, tau).map_err(say)?;
    r.loss(loss, &[("z", z)], kernels)
}

fn kl_divergence(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (s, t) = (r.input("s")?, r.input("t")?);
    let temperature = r.setting("T")?;
    let loss = losses::kl_divergence(&mut r.graph, s, t, temperature).map_err(say)?;
    r.loss(loss, &[("s", s)], kernels)
}

fn squared_error(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (s, t) = (r.input("s")?, r.input("t")?);
    let loss = losses::mean_squared_error(&mut r.graph, s, t).map_err(say)?;
    r.loss(loss, &[("s", s)], kernels)
}

/// As many steps as there are gradients `g0`, `g1`, ...
fn sgd(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let p = r.input("p")?;
    let ty = r.graph.value(p).ty.clone();
    let gradient = r.graph.input("gradient", ty.clone());
    let velocity = r.graph.input("momentum", ty);
    let block = r.graph.input("step", Type::u32([STEP_WORDS]));
    let state = r.graph.input("health", Type::u32([health::WORDS]));
    let op = Sgd { momentum: r.setting("momentum")?, weight_decay: r.setting("weight_decay")? };
    r.graph.update(op, &[gradient, block], &[p, velocity, state]).map_err(say)?;
    let rate = r.setting("lr")?;
    let executor = Executor::new(kernels, &mut Arenas::new(), r.graph.clone()).map_err(say)?;
    executor.write_f64(p, &r.given[0].1).map_err(say)?;
    let mut computed = Vec::new();
    for step in 0.. {
        let part = r.name(&format!("g{step}"));
        if !golden.has(&part) {
            break;
        }
        executor.write(gradient, golden.data(&part)?).map_err(say)?;
        executor.write(block, &step_block(step, 0, rate, 0.0)).map_err(say)?;
        executor.submit();
        for (letter, id) in [("p", p), ("v", velocity)] {
            computed.push((r.name(&format!("{letter}{}", step + 1)), executor.read(id).map_err(say)?));
        }
    }
    if executor.read::<u32>(state).map_err(say)? != [0; health::WORDS] {
        return Err("a health bit was raised".to_owned());
    }
    Ok(computed)
}

fn bank(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let (table, index, rows) = (r.input("bank")?, r.indices("idx")?, r.input("v0")?);
    let op = BankUpdate { momentum: r.setting("rate")? };
    r.graph.update(op, &[index, rows], &[table]).map_err(say)?;
    r.output("after", table);
    r.run(kernels)
}

fn normalise(golden: &Golden, case: &str, kernels: &mut Kernels) -> Computed {
    let mut r = Recorder::new(golden, case);
    let x = r.input("x")?;
    let y = r.graph.one(RowNormalise { epsilon: 0.0 }, &[x]).map_err(say)?;
    r.output("y", y);
    r.run(kernels)
}
