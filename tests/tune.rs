//! Tuning: what is measured is kept, with the user and with the run, and changes no bit.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ieq_wgpu::data::{DataOptions, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::tune::{Measure, Tuning};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::ops::check;
use ieq_wgpu::settings::Config;
use ieq_wgpu::train::{Trainer, clock};

fn gpu() -> Arc<Gpu> {
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    Gpu::open(&Options { choice, ..Options::default() }).unwrap()
}

/// A software adapter with narrow vectors has one kernel for each launch that suits it.
fn has_a_choice(gpu: &Gpu) -> bool {
    gpu.info().device_type != wgpu::DeviceType::Cpu || gpu.info().subgroup_min_size >= 8
}

#[test]
fn every_choice_gives_the_same_bits() {
    let mut config = Config::from_preset("demo").unwrap();
    config.optimiser.batch = 4;
    let options = DataOptions { side: config.data.side, ..DataOptions::default() };
    let data = Arc::new(load("glyphs", Split::Train, &options).unwrap());
    let gpu = gpu();
    let tuned = RefCell::new(Tuning::default());
    let steps = || {
        let mut kernels = Kernels::new(gpu.clone());
        kernels.tuning_mut().clone_from(&tuned.borrow());
        let mut trainer = Trainer::new(kernels, &config, data.clone(), None).unwrap();
        for _ in 0..2 {
            trainer.submit().unwrap();
        }
        tuned.borrow_mut().clone_from(trainer.kernels().tuning());
        trainer.checkpoint().unwrap().tensors
    };
    let untuned = steps();
    assert!(tuned.borrow().chosen.is_empty(), "nothing was to be measured");
    tuned.borrow_mut().measure = Some(Measure { samples: 1, all: false, clock });
    assert!(steps() == untuned, "measuring left its traces");
    let chosen = tuned.borrow().chosen.clone();
    if !has_a_choice(&gpu) {
        assert!(chosen.is_empty(), "{chosen:?}");
        return;
    }
    assert!(chosen.keys().any(|site| site.starts_with("conv2d.") && site.contains(" c_in=32 ")), "{chosen:?}");
    // The plainest kernel everywhere, as if it had been the fastest.
    let plainest = |site: &str| if site.contains("backward_weight") { "backward_weight_4" } else { "forward_8x4" };
    let plain = chosen.keys().map(|site| (site.clone(), plainest(site).to_owned())).collect();
    tuned.borrow_mut().chosen = plain;
    assert!(steps() == untuned, "another kernel, other bits");
    assert_eq!(tuned.borrow().chosen.len(), chosen.len(), "what was chosen is not measured again");
    // And every other one, also those that this adapter would not choose.
    let launches = check::cases().into_iter().flat_map(|case| case.launches().unwrap());
    let entries: BTreeSet<_> = launches.flat_map(|launch| launch.alternatives).map(|other| other.entry).collect();
    assert!(entries.len() > 10, "{entries:?}");
    for entry in entries {
        let everywhere = chosen.keys().map(|site| (site.clone(), entry.to_owned())).collect();
        tuned.borrow_mut().chosen = everywhere;
        assert!(steps() == untuned, "{entry} gives other bits");
    }
}

/// A kernel that does next to nothing is the fastest, and wrong: it is not chosen where choices are verified, and is where
/// they are not, so it is the verification that sees it.
#[cfg(feature = "reflect")]
#[test]
fn a_wrong_kernel_is_never_chosen() {
    use ieq_wgpu::gpu::kernel::testing::KernelsExt;
    use ieq_wgpu::gpu::shader::SOURCES;
    let gpu = gpu();
    if !has_a_choice(&gpu) {
        return;
    }
    let mut config = Config::from_preset("demo").unwrap();
    config.optimiser.batch = 4;
    let options = DataOptions { side: config.data.side, ..DataOptions::default() };
    let data = Arc::new(load("glyphs", Split::Train, &options).unwrap());
    let steps = |kernels: Kernels| {
        let mut trainer = Trainer::new(kernels, &config, data.clone(), None).unwrap();
        trainer.submit().unwrap();
        (trainer.kernels().tuning().clone(), trainer.checkpoint().unwrap().tensors)
    };
    let (_, right) = steps(Kernels::new(gpu.clone()));
    // The widest kernel sums nothing.
    let (name, text, change) = ("common/conv2d_forward", "params.c_in); c++", "params.c_in) * u32($Q != 8); c++");
    let broken = || {
        let source = SOURCES.iter().find(|(file, _)| *file == name).unwrap().1;
        assert_eq!(source.matches(text).count(), 1);
        let mut kernels = Kernels::new(gpu.clone()).with_source(name, &source.replace(text, change)).unwrap();
        kernels.tuning_mut().measure = Some(Measure { samples: 3, all: true, clock });
        kernels
    };
    let is_broken = |tuning: &Tuning| tuning.chosen.values().any(|entry| entry == "forward_32x4");
    let (unverified, _) = steps(broken());
    assert!(is_broken(&unverified), "it is not fast enough to tempt: {:?}", unverified.chosen);
    let mut kernels = broken();
    kernels.verify_choices(check::verify);
    let (verified, tensors) = steps(kernels);
    assert!(!is_broken(&verified), "{:?}", verified.chosen);
    let refused: Vec<_> = verified.verified.iter().filter(|(_, right)| !**right).collect();
    assert!(!refused.is_empty() && refused.iter().all(|(kind, _)| kind.contains("forward_32x4")), "{refused:?}");
    assert!(tensors == right, "the numbers are those of right kernels");
}

/// Trains for some steps in `folder` with the cache in `folder`.
fn train(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"));
    command.current_dir(folder).env("IEQ_CACHE_DIR", folder.join("cache")).args(["train", "--no-eval", "--quiet"]);
    let output = command.args(words).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    stderr
}

#[test]
fn choices_are_kept_with_the_user_and_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let new = ["--batch", "4", "--steps", "2", "--checkpoint-every", "1"];
    let with = |more: &[&'static str]| [&new[..], more].concat();
    let file = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
    let cache = || {
        let files: Vec<_> = std::fs::read_dir(path.join("cache")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::read_to_string(&files[0]).unwrap()
    };
    train(path, &with(&["--tune", "off", "--out", "off"]));
    assert!(!path.join("cache").exists() && !path.join("off/tuning.toml").exists());
    train(path, &with(&["--tune", "quick", "--out", "quick"]));
    if !has_a_choice(&gpu()) {
        assert!(!path.join("cache").exists() && !path.join("quick/tuning.toml").exists());
        return;
    }
    let first = cache();
    assert!(first.contains("conv2d.forward") && first.contains("driver = "), "{first}");
    assert_eq!(file("quick/tuning.toml"), first);
    // A resumed run takes its own choices, whatever the cache says by then.
    let other =
        first.replace("\"forward_16x4\"", "\"forward_8x4\"").replace("\"backward_weight_8\"", "\"backward_weight_4\"");
    std::fs::write(path.join("quick/tuning.toml"), &other).unwrap();
    train(path, &["--resume", "quick"]);
    assert_eq!(file("quick/tuning.toml"), other);
    // A cache that cannot be written costs the next run its time, no more.
    std::fs::remove_dir_all(path.join("cache")).unwrap();
    std::fs::write(path.join("cache"), "a file").unwrap();
    train(path, &with(&["--tune", "quick", "--out", "uncached"]));
    assert!(path.join("uncached/tuning.toml").exists());
}
