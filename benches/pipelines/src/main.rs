//! Compiles every pipeline that a GPU would be given for a training step with the driver that is there, for GPUs that need
//! not be: what each costs at the start, and what the driver says about it. `README.md` has the steps.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use compiler::{Compiler, Result, Translation, cpu_time};
use ieq_wgpu::gpu::kernel::KernelBudget;
use ieq_wgpu::gpu::matrix_unit::MatrixUnit;
use ieq_wgpu::gpu::reflect::Reflected;
use ieq_wgpu::gpu::{Launch, adapter, device, shader, wgpu};
use ieq_wgpu::ops;
use ieq_wgpu::settings::{Config, Matrix, Winograd};
use ieq_wgpu::train::record::{DataShape, training_step};

mod compiler;

const USAGE: &str = "pipelines [--preset NAME] [--classes N] [--images N] [--side N] [--only PART] [--every] [--zeroed]
          [--unchecked] [--matrix KIND --unit SIDExLANES]

  --preset     whose training step; omniglot where it is not given
  --classes, --images, --side
               of the training set; 64, 38400, and what the preset says
  --only       pipelines whose name has this part
  --every      also what only `--tune full` would measure
  --zeroed     zero workgroup memory first, as the product does not
  --unchecked  leave out the checks of indices, loops and divisions
  --matrix     products on matrix units: f16 or f32x3
  --unit       which of the driver's units; 16x32 where it is not given

Prints CSV, and the sums on stderr. Exit code 1 where a ceiling is broken: 2 s a pipeline, 10 s all of them, no spills.";

/// Most CPU time of one pipeline, and of all of a step, in seconds.
const CEILINGS: (f64, f64) = (2.0, 10.0);

/// The columns, and what drivers call them: RADV, NVK, ANV.
const COLUMNS: [(&str, &[&str]); 9] = [
    ("registers", &["VGPRs", "Number of GPRs", "Max live registers"]),
    ("scalar_registers", &["SGPRs"]),
    ("spilled", &["Spilled VGPRs", "Spills to memory", "Spill Count"]),
    ("workgroup_memory", &["LDS size", "Workgroup Memory Size"]),
    ("subgroups_per_unit", &["Subgroups per SIMD", "Max warps/SM", "Dispatch width"]),
    ("latency", &["Latency", "Cycle Count"]),
    ("inverse_throughput", &["Inverse Throughput", "Static cycle count"]),
    ("instructions", &["Instructions", "Instruction count", "Instruction Count"]),
    ("code_size", &["Code size", "Code Size"]),
];

/// When a pipeline is compiled: with `--tune off` already, with `--tune quick`, or with `--tune full` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum When {
    Untuned,
    Quick,
    Full,
}

/// A pipeline: shader, entry point, constants as bits.
type Key = (String, &'static str, Vec<(&'static str, u64)>);

/// Every pipeline that a step needs on a device of this budget.
fn pipelines(config: &Config, data: DataShape, budget: KernelBudget) -> Result<BTreeMap<Key, When>> {
    let (graph, _) = training_step(config, data, false, true)?;
    let mut found: BTreeMap<Key, When> = BTreeMap::new();
    for launch in graph.nodes().iter().flat_map(|node| ops::launches(&graph, node)) {
        for when in [When::Untuned, When::Quick, When::Full] {
            let choices = launch.choices(budget, when == When::Full);
            let compiled = if when == When::Untuned { &choices[..1] } else { &choices[..] };
            for choice in compiled {
                let key = key(choice, budget)?;
                let first = found.entry(key).or_insert(when);
                *first = when.min(*first);
            }
        }
    }
    Ok(found)
}

fn key<B>(launch: &Launch<B>, budget: KernelBudget) -> Result<Key> {
    let variants = budget.variants(launch.shader);
    let shader = variants.iter().find_map(|name| shader::find(name)).ok_or("there is no such shader")?;
    let entry = shader.entry(launch.entry).ok_or("there is no such entry point")?;
    let used = launch.constants.iter().filter(|(name, _)| entry.has_constant(name));
    Ok((shader.name.clone().into_owned(), launch.entry, used.map(|(name, value)| (*name, value.to_bits())).collect()))
}

fn run() -> Result<bool> {
    let mut words = std::env::args().skip(1);
    let (mut preset, mut every, mut how) = ("omniglot".to_owned(), false, Translation { zeroed: false, checked: true });
    let (mut only, mut matrix, mut unit) = (String::new(), Matrix::Off, MatrixUnit { side: 16, lanes: 32 });
    let mut data = DataShape { side: 0, classes: 64, images: 38_400 };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--preset" => preset = value()?,
            "--classes" => data.classes = value()?.parse()?,
            "--images" => data.images = value()?.parse()?,
            "--side" => data.side = value()?.parse()?,
            "--only" => only = value()?,
            "--every" => every = true,
            "--zeroed" => how.zeroed = true,
            "--unchecked" => how.checked = false,
            "--matrix" => matrix = value()?.parse()?,
            "--unit" => {
                let text = value()?;
                let (side, lanes) = text.split_once('x').ok_or("a unit is SIDExLANES")?;
                unit = MatrixUnit { side: side.parse()?, lanes: lanes.parse()? };
            }
            _ => return Err(USAGE.into()),
        }
    }
    let mut config = Config::from_preset(&preset)?;
    // `auto` on a GPU.
    config.run.winograd = Winograd::Off;
    config.run.matrix = matrix;
    if data.side == 0 {
        data.side = config.data.side.ok_or("the preset has no side: give --side")?;
    }

    let listed = adapter::list(Some(wgpu::Backends::VULKAN));
    let gpu = listed.first().ok_or("there is no Vulkan adapter")?;
    let features = gpu.adapter.features() & device::WANTED_FEATURES;
    let mut budget = KernelBudget::of_adapter(&gpu.info, features, &gpu.adapter.limits());
    budget.matrix_unit = (matrix != Matrix::Off).then_some(unit);
    let mut found = pipelines(&config, data, budget)?;
    found.retain(|(name, entry, _), _| format!("{name}.{entry}").contains(&only));
    let compiler = Compiler::open(matrix != Matrix::Off)?;

    let names: BTreeSet<&str> = found.keys().map(|(shader, ..)| shader.as_str()).collect();
    let begun = cpu_time()?;
    let modules: BTreeMap<&str, Reflected> =
        names.into_iter().map(|name| Ok((name, shader::reflect(name, None)?))).collect::<Result<_>>()?;
    let parsing = (cpu_time()? - begun).as_secs_f64();

    let columns = COLUMNS.map(|(name, _)| name).join(",");
    println!("device,preset,pipeline,constants,when,translating_s,compiling_s,{columns}");
    let (mut longest, mut spilling) = (0.0_f64, Vec::new());
    let mut sums: BTreeMap<When, (usize, f64)> = BTreeMap::new();
    for ((name, entry, constants), when) in found.iter().filter(|(_, when)| every || **when < When::Full) {
        let module = &modules[name.as_str()];
        let values = constants.iter().map(|(name, bits)| ((*name).to_owned(), f64::from_bits(*bits))).collect();
        let compiled = compiler.compile((&module.module, &module.info), entry, &values, how)?;
        let column = |names: &[&str]| names.iter().find_map(|name| compiled.statistics.get(*name));
        let text = COLUMNS.map(|(_, names)| column(names).map_or(String::new(), u64::to_string)).join(",");
        let listed: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let [translating, compiling] = [compiled.translating, compiled.compiling].map(|time| time.as_secs_f64());
        let (device, constants) = (&gpu.info.name, sorted(listed));
        println!("{device},{preset},{name}.{entry},{constants},{when:?},{translating:.4},{compiling:.4},{text}");
        if *when < When::Full {
            longest = longest.max(translating + compiling);
            if column(COLUMNS[2].1).is_some_and(|&spilled| spilled > 0) {
                spilling.push(format!("{name}.{entry}"));
            }
        }
        for sum in [When::Untuned, When::Quick, When::Full].into_iter().filter(|sum| when <= sum) {
            let (count, seconds) = sums.entry(sum).or_default();
            *count += 1;
            *seconds += translating + compiling;
        }
    }
    let sum = |when: When| sums.get(&when).copied().unwrap_or_default();
    let ((untuned, untuned_s), (quick, quick_s)) = (sum(When::Untuned), sum(When::Quick));
    // A pipeline with several constants may spill several times.
    spilling.sort();
    spilling.dedup();
    eprintln!(
        "{} {preset}: {untuned} pipelines in {untuned_s:.2} s, with what quick tuning tries {quick} in {quick_s:.2} s; the \
         longest {longest:.2} s; their {} shaders read in {parsing:.2} s; spilling: {spilling:?}",
        gpu.info.name,
        modules.len()
    );
    if every {
        eprintln!("with what full tuning tries {} in {:.2} s", sum(When::Full).0, sum(When::Full).1);
    }
    Ok(longest <= CEILINGS.0 && quick_s + parsing <= CEILINGS.1 && spilling.is_empty())
}

fn sorted(mut words: Vec<String>) -> String {
    words.sort();
    words.join(" ")
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
