//! `ieq-wgpu bench` on a device, at sizes that take no time: the documents it writes, its comparison, its exit codes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use ieq_wgpu::bench::cases::{self, Shape};
use ieq_wgpu::bench::step;
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::settings::{Config, Winograd};
use ieq_wgpu::train::Trainer;
use serde_json::Value;

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ieq-wgpu")).arg("bench").args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const SMALL: &str = "conv:2x3x8x8:16:3,matmul:5x7x9";

/// One run, then what is compared with it: itself passes, a run that was ten thousand times faster does not.
#[test]
fn a_run_is_a_document_a_table_a_picture_and_a_yardstick() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (csv, svg, json) = (path("b.csv"), path("b.svg"), path("b.json"));
    let output = bench(&["--shapes", SMALL, "--samples", "3", "--json", "--csv", &csv, "--svg", &svg]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["schema"], "ieq-wgpu.bench.1");
    let positive = |v: &Value| v.as_f64().is_some_and(|v| v.is_finite() && v > 0.0);
    let ceilings = &run["ceilings"];
    assert!(positive(&ceilings["flops_per_second"]) && positive(&ceilings["launch_seconds"]), "{ceilings}");
    assert!(ceilings["bandwidth"].as_array().unwrap().iter().all(|b| positive(&b["bytes_per_second"])), "{ceilings}");
    let kernels = run["kernels"].as_array().unwrap();
    let names: Vec<&str> = kernels.iter().map(|k| k["name"].as_str().unwrap()).collect();
    for name in ["conv2d.forward", "conv2d.backward_input", "conv2d.backward_weight", "matmul.product"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for kernel in kernels {
        assert_eq!(kernel["check"]["passed"], true, "{kernel}");
        assert!(positive(&kernel["seconds"]["median"]) && positive(&kernel["share"]), "{kernel}");
        assert_eq!(kernel["seconds"]["samples"], 3);
    }
    // 2 x 2 images x 16 channels x 8 x 8 x 3 channels x 9 taps.
    assert_eq!(kernels[0]["flops"], 2 * 2 * 16 * 64 * 27);

    let rows = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(rows.lines().count(), 1 + kernels.len(), "{rows}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    well_formed(&picture);
    assert!(picture.matches("<circle").count() > kernels.len(), "every kernel has a dot");

    let scaled = |factor: f64| {
        let mut other = run.clone();
        for kernel in other["kernels"].as_array_mut().unwrap() {
            for key in ["median", "min", "max", "low", "high"] {
                let seconds = kernel["seconds"][key].as_f64().unwrap();
                kernel["seconds"][key] = (seconds * factor).into();
            }
        }
        std::fs::write(&json, other.to_string()).unwrap();
        bench(&["--shapes", SMALL, "--samples", "3", "--compare", &json, "--threshold", "900"])
    };
    // Factors beyond what a shared machine does to small kernels.
    let output = scaled(1e4);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("conv2d.forward"));
    let output = scaled(1e-4);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("slower than in the earlier run"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("REGRESSED"));
}

/// Every tag is closed by its own name: what an XML reader asks first.
fn well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '/', '>']).next().unwrap();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (false, false) => open.push(name),
            (false, true) => {}
        }
        assert!(!rest[..start].contains('&') || rest[..start].contains(';'), "{}", &rest[..start]);
        rest = &rest[end + 1..];
    }
    assert_eq!(open, [""; 0]);
}

/// The step with its phases and its loop, on a network small enough for a test.
#[test]
fn a_step_has_phases_and_a_rate() {
    let words = ["--step", "--widths", "4,4,4,4", "--rows", "16", "--side", "16", "--samples", "3", "--json"];
    let output = bench(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run["kernels"].as_array().unwrap().len(), 0);
    let step = &run["steps"][0];
    assert_eq!((step["rows"].as_u64(), step["side"].as_u64()), (Some(16), Some(16)));
    assert!(step["seconds"]["median"].as_f64().unwrap() > 0.0);
    assert!(step["images_per_second"]["median"].as_f64().unwrap() > 0.0);
    let phases: Vec<&str> = step["phases"].as_array().unwrap().iter().map(|p| p[0].as_str().unwrap()).collect();
    assert_eq!(phases, ["views", "forward", "losses", "backward", "optimiser"]);
    assert!(step["phases"].as_array().unwrap().iter().all(|p| p[1]["median"].as_f64().unwrap() > 0.0), "{step}");
}

/// Every kernel of a step agrees with its twin when it is alone.
#[test]
fn the_kernels_of_a_step_are_right() {
    let words = ["--check-only", "--kernels", "", "--widths", "4,5,6,7", "--rows", "16", "--side", "20", "--json"];
    let output = bench(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kernels = run["kernels"].as_array().unwrap();
    assert!(kernels.len() > 50, "{} kernels", kernels.len());
    assert!(kernels.iter().all(|k| k["check"]["made"] == true && k["seconds"].is_null()));
}

#[test]
fn what_cannot_be_done_is_said_in_a_sentence() {
    let missing = Path::new("no-such-run.json").display().to_string();
    for (words, sentence) in [
        (
            &["--shapes", "conv:1x2"][..],
            "conv:NxCxHxW:OUTPUTS:KERNEL[:STRIDE] or matmul:ROWSxINNERxCOLUMNS, got conv:1x2",
        ),
        (&["--csv", "no-such-folder/b.csv"], "no-such-folder: there is no such folder to write --csv in"),
        (&["--svg", "src"], "src: this is a folder or a device, and --svg wants to write a file"),
        (&["--samples", "1"], "--samples must be from 3 to 1000, got 1"),
        (&["--threshold", "-1"], "--threshold must be from 0 to 1000 percent, got -1"),
        (&["--rows", "0"], "--rows must be from 2 to 65536, got 0"),
        (&["--compare", &missing], "no-such-run.json: cannot read the earlier run"),
        (&["--compare", "Cargo.toml"], "give the JSON document that `bench` printed"),
        (&["--check-only", "--step"], "--check-only checks kernels"),
        (&["--check-only", "--kernels", "nothing"], "no kernel of the step has `nothing` in its name"),
    ] {
        let output = bench(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(sentence), "{words:?}: {}", text(&output.stderr));
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_ends_it() {
    use std::io::BufRead;
    let mut child = Command::new(env!("CARGO_BIN_EXE_ieq-wgpu"))
        .args(["bench", "--kernels", "", "--rows", "16", "--check-only"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("kernel 1/")), "the first kernel is told of");
    let sent = Command::new("sh").args(["-c", "kill -INT $0"]).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:?}");
    assert_eq!(rest.last().unwrap(), "interrupted: stopped before the end, so there is no result");
    assert!(output.stdout.is_empty());
}

/// Sizes whose products no tensor has, whatever of them wraps in 32 or 64 bits: a sentence, and no panic.
#[test]
fn shapes_larger_than_a_tensor_are_refused() {
    for shape in [
        "conv:1048576x16x1048576x1048576:16:1",
        "conv:1048576x1048576x1048576x1048576:1048576:1048576",
        "conv:1048576x1048576x1048576x1048576:1048576:1048576:1048576",
        "conv:1x1x1048576x1048576:1:3",
        "conv:65536x65536x1x1:65536:1",
        "conv:4096x4096x8x8:4096:3",
        "conv:1x1x1x1:1:1048576",
        "conv:1x65536x1x1:65536:1",
        "conv:1024x1x32x32:1048576:1",
        "matmul:1048576x1048576x1",
        "matmul:1x1048576x1048576",
        "matmul:1048576x1x1048576",
        "matmul:65536x65536x65536",
    ] {
        let parsed: Shape = shape.parse().unwrap();
        for winograd in [Winograd::Off, Winograd::On] {
            let mut config = Config::from_preset("demo").unwrap();
            config.run.winograd = winograd;
            let error = parsed.cases(&config).unwrap_err();
            assert!(matches!(&error, ieq_wgpu::Error::Shape { .. }), "{shape}: {error:?}");
            assert!(error.to_string().contains("elements; give smaller sizes"), "{shape}: {error}");
        }
        assert!(cases::parse_shapes(&[shape.to_owned()]).is_err());
    }
    for shape in ["conv:1x1x4x4:1:7", "conv:2x3x5x5:4:2:9", "conv:1x1x1x1:1:1", "matmul:1x1x1"] {
        let mut config = Config::from_preset("demo").unwrap();
        config.run.winograd = Winograd::On;
        assert!(!shape.parse::<Shape>().unwrap().cases(&config).unwrap().is_empty(), "{shape}");
    }
    for shape in ["conv:0x1x1x1:1:1", "conv:1x1x1x1:1:1:0", "matmul:1x-1x1", "conv:18446744073709551617x1x1x1:1:1"] {
        assert!(shape.parse::<Shape>().is_err(), "{shape}");
    }
    let output = bench(&["--shapes", "conv:1048576x16x1048576x1048576:16:1", "--tune", "off"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

/// A step is timed when its executor no longer waits after each dispatch to time it: a sample before that is refused.
#[test]
fn no_sample_of_a_step_is_a_measuring_execution() {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.widths = vec![4; 4];
    assert!(config.run.slice_ms > 0, "the default limits submissions, or this test shows nothing");
    let recording = cases::Recording::new(&config, 16, 16).unwrap();
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let gpu = Gpu::open(&Options { choice, ..Options::default() }).unwrap();
    let data = Arc::new(step::noise(&recording));
    let mut trainer = Trainer::new(gpu, &recording.config, data, None).unwrap();
    trainer.submit().unwrap();
    assert!(trainer.executor().is_measuring());
    let clock = ieq_wgpu::train::clock;
    let sample = |executor| pollster::block_on(step::sample_async(executor, clock));
    assert!(matches!(sample(trainer.executor()), Err(ieq_wgpu::Error::Internal(_))));
    pollster::block_on(step::warm_up_async(trainer.executor(), clock)).unwrap();
    assert!(!trainer.executor().is_measuring());
    sample(trainer.executor()).unwrap();
}
