//! Starting from another network: what is taken over is so to the bit, frozen blocks do not move, lower rates are lower by
//! their factor, a resumed run needs no file, and what does not fit is refused with the setting that would.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::settings::{Config, TransformSet};
use ieq_wgpu::train::checkpoint::{Checkpoint, TensorData};
use ieq_wgpu::train::init::Init;
use ieq_wgpu::train::{Teacher, Trainer};

fn config() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    (config.model.widths, config.model.projection) = (vec![4, 4, 8, 8], 4);
    (config.method.transforms, config.method.negatives) = (TransformSet::Rot4, 16);
    (config.optimiser.batch, config.run.seed) = (4, 5);
    config
}

fn trainer(config: &Config) -> Trainer {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, ..Options::default() }).unwrap();
    let data = load("glyphs", Split::Train, &DataOptions::default()).unwrap();
    Trainer::new(gpu, config, Arc::new(data), None::<Arc<Teacher>>).unwrap()
}

/// A trainer that starts from `init`, after `steps` steps.
fn trained(config: &Config, init: Option<&Init>, steps: usize) -> Trainer {
    let mut trainer = trainer(config);
    init.into_iter().for_each(|init| drop(trainer.take_over(Arc::new(init.clone())).unwrap()));
    (0..steps).for_each(|_| drop(trainer.step().unwrap()));
    trainer
}

fn floats<'c>(checkpoint: &'c Checkpoint, name: &str) -> &'c [f32] {
    match &checkpoint.tensors[name].data {
        TensorData::F32(numbers) => numbers,
        TensorData::I64(_) => panic!("{name}"),
    }
}

/// The names of the network's tensors that differ.
fn moved(a: &Checkpoint, b: &Checkpoint) -> Vec<String> {
    let network = a.tensors.iter().filter(|(name, _)| !name.starts_with("train."));
    network.filter(|(name, tensor)| b.tensors[*name] != **tensor).map(|(name, _)| name.clone()).collect()
}

/// A network that was trained for a moment, without metadata, as other software saves it.
fn other(config: &Config) -> Init {
    let mut weights = trained(config, None, 2).checkpoint().unwrap();
    weights.metadata.clear();
    weights.tensors.retain(|name, _| !name.starts_with("train."));
    Init { path: "other.safetensors".into(), weights }
}

#[test]
fn blocks_are_taken_over_to_the_bit_and_frozen_ones_do_not_move() {
    let mut config = config();
    let init = other(&config);
    config.run.seed = 6;
    config.model.dropout = 0.3;
    config.optimiser.freeze = 2;
    let start = trained(&config, Some(&init), 0).checkpoint().unwrap();
    assert_eq!(moved(&init.weights, &start), Vec::<String>::new(), "the same classes: the heads fit, too");
    config.optimiser.average = 0.9;
    let averaged = trained(&config, Some(&init), 0).checkpoint().unwrap();
    assert_eq!(moved(&init.weights, &averaged), Vec::<String>::new(), "the average starts there, too");
    config.optimiser.average = 0.0;
    let mut fewer = init.clone();
    fewer.weights.tensors.retain(|name, _| !name.starts_with("eq_head"));
    let mut one = trainer(&config);
    let drawn = one.checkpoint().unwrap();
    let account = one.take_over(Arc::new(fewer)).unwrap();
    assert_eq!(account.remade, ["eq_head"]);
    let begun = one.checkpoint().unwrap();
    assert!(moved(&init.weights, &begun).iter().all(|name| name.starts_with("eq_head")));
    assert!(
        moved(&drawn, &begun).iter().all(|name| !name.starts_with("eq_head")),
        "a new head is as the seed draws it"
    );

    let end = trained(&config, Some(&init), 3).checkpoint().unwrap();
    let moved = moved(&start, &end);
    assert!(!moved.iter().any(|name| name.starts_with("layer1") || name.starts_with("layer2")), "{moved:?}");
    for name in ["layer3.0.conv1.weight", "layer3.0.bn1.running_mean", "layer4.0.bn3.bias", "classifier.weight"] {
        assert!(moved.iter().any(|other| other == name), "{name} of {moved:?}");
    }
    // Nothing is computed for frozen blocks: neither gradients nor running statistics.
    let (frozen, whole) = (trainer(&config), trainer(&self::config()));
    let nodes = |trainer: &Trainer, scope: &str| {
        trainer.executor().graph().nodes().iter().filter(|node| node.scope == scope).count()
    };
    assert_eq!(nodes(&frozen, "layer1.0.conv2'"), 0);
    assert!(nodes(&whole, "layer1.0.conv2'") > 0 && nodes(&frozen, "layer3.0.conv1'") > 0);
}

#[test]
fn a_lower_rate_moves_the_blocks_by_its_factor() {
    let mut config = config();
    let init = other(&config);
    (config.optimiser.momentum, config.optimiser.nesterov, config.optimiser.lr) = (0.0, false, 0.5);
    let start = trained(&config, Some(&init), 0).checkpoint().unwrap();
    let mut after = |rate: f64| {
        config.optimiser.backbone_rate = rate;
        trained(&config, Some(&init), 1).checkpoint().unwrap()
    };
    let [whole, half, none] = [1.0, 0.5, 0.0].map(&mut after);
    let way = |end: &Checkpoint, name: &str| -> f64 {
        let pairs = floats(&start, name).iter().zip(floats(end, name));
        pairs.map(|(a, b)| f64::from(b - a).abs()).sum()
    };
    for name in ["layer1.0.conv1.weight", "layer4.0.bn2.bias"] {
        let (all, part) = (way(&whole, name), way(&half, name));
        assert!(all > 0.0 && (part / all - 0.5).abs() < 1e-3, "{name}: {part} of {all}");
        assert_eq!(floats(&none, name), floats(&start, name));
    }
    assert_eq!(floats(&whole, "classifier.weight"), floats(&half, "classifier.weight"));
    assert!(way(&none, "layer1.0.bn1.running_mean") > 0.0);
}

#[test]
fn a_resumed_run_needs_no_file_and_refuses_another_one() {
    let mut config = config();
    let init = other(&config);
    (config.optimiser.freeze, config.optimiser.backbone_rate) = (1, 0.5);
    let wanted = trained(&config, Some(&init), 4).checkpoint().unwrap();
    let half = trained(&config, Some(&init), 2).checkpoint().unwrap();
    let mut resumed = trainer(&config);
    resumed.restore(Path::new("half"), &half).unwrap();
    (0..2).for_each(|_| drop(resumed.step().unwrap()));
    assert!(resumed.checkpoint().unwrap() == wanted);
    let mut foreign = init.clone();
    foreign.weights.tensors.get_mut("layer1.0.bn1.bias").unwrap().data = TensorData::F32(vec![0.25; 4]);
    let mut again = trained(&config, Some(&foreign), 0);
    let refusal = again.restore(Path::new("half"), &half).unwrap_err().to_string();
    assert!(refusal.contains("half: ") && refusal.contains("run.init"), "{refusal}");
    trained(&config, Some(&init), 0).restore(Path::new("half"), &half).unwrap();
}

#[test]
fn the_program_says_what_it_takes_over_and_what_would_fit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.safetensors");
    let init = other(&config());
    init.weights.save(&file).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
        command.args([
            "train",
            "--preset=demo",
            "--projection=4",
            "--transforms=rot4",
            "--batch=4",
            "--steps=2",
            "--no-eval",
        ]);
        command.arg("--init").arg(&file).arg("--out").arg(folder.path().join("run")).args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["--widths=4,4,8,16"]);
    assert!(code == Some(2) && said.contains("--widths 4,4,8,8"), "{said}");
    let (code, said) = run(&["--widths=4,4,8,8", "--freeze=5"]);
    assert!(code == Some(2) && said.contains("--freeze") && said.contains("at most 4"), "{said}");
    assert!(!folder.path().join("run").exists());
    let (code, said) = run(&["--widths=4,4,8,8", "--freeze=1", "--no-equivariance"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("taken over from") && said.contains("layer4, classifier, inv_head"), "{said}");
    assert!(said.contains("left out from") && said.contains("eq_head"), "{said}");
    // Resumed without the file.
    std::fs::remove_file(&file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    let output = command.args(["train", "--no-eval", "--resume"]).arg(folder.path().join("run")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    let output = command.args(["train", "--preset=demo", "--freeze=1", "--out"]).arg(folder.path().join("b")).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("--freeze") && said.contains("--init"), "{said}");
}
