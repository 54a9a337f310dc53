//! The jobs as a library caller meets them: requests are validated by the job, and nothing is printed or assumed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ieq_wgpu::Error;
use ieq_wgpu::bench::Options as BenchOptions;
use ieq_wgpu::data::embeddings::Format;
use ieq_wgpu::fewshot::Classifier;
use ieq_wgpu::gpu::adapter::AdapterChoice;
use ieq_wgpu::gpu::device::Options;
use ieq_wgpu::jobs::bench::{self, BenchRequest};
use ieq_wgpu::jobs::embed::{self, EmbedRequest, Input};
use ieq_wgpu::jobs::eval::{self, Episodes, EvalRequest, SplitFile};
use ieq_wgpu::jobs::plan::{self, PlanOutcome, PlanRequest};
use ieq_wgpu::jobs::shards::{self, PartOf, ShardsRequest};
use ieq_wgpu::jobs::train::{self, Begin, TrainRequest};
use ieq_wgpu::jobs::{Session, devices};
use ieq_wgpu::progress::Silent;
use ieq_wgpu::settings::{Backbone, Config, Length, Method};
use ieq_wgpu::train::features::Layer;

/// As the tests of the command line do: the adapter that the environment names.
fn session() -> Session {
    let choice = AdapterChoice::parse(std::env::var("IEQ_ADAPTER").ok().as_deref());
    Session { gpu: Options { choice, ..Options::default() }, ..Session::default() }
}

fn tiny() -> Config {
    let mut config = Config::from_preset("demo").unwrap();
    config.model.backbone = Backbone::Conv4;
    config.model.widths = vec![4; 4];
    config.method.kind = Method::Baseline;
    config.optimiser.batch = 4;
    config.optimiser.length = Length::Steps(1);
    config
}

fn eval_request() -> EvalRequest {
    EvalRequest {
        checkpoint: "absent".into(),
        data: None,
        split: "novel".into(),
        split_file: SplitFile::OfRun,
        episodes: Episodes::Drawn { ways: 5, shots: vec![1], queries: 15, n_episodes: 10, seed: 0 },
        classifiers: vec![Classifier::LogisticRegression],
        support_copies: 1,
        untrained: false,
        min_acc: None,
    }
}

fn drawn(ways: usize, shots: usize, queries: usize, n_episodes: usize) -> Episodes {
    Episodes::Drawn { ways, shots: vec![shots], queries, n_episodes, seed: 0 }
}

#[test]
fn a_request_is_validated_before_any_work() {
    let eval = |change: &dyn Fn(&mut EvalRequest)| {
        let mut request = eval_request();
        change(&mut request);
        eval::run(&request, &session(), &mut Silent).map(drop)
    };
    let bench = |change: &dyn Fn(&mut BenchRequest)| {
        let options = BenchOptions {
            config: tiny(),
            sides: Vec::new(),
            rows: None,
            shapes: Vec::new(),
            kernels: true,
            filter: String::new(),
            step: true,
            samples: None,
            check: true,
            time: true,
        };
        let mut request = BenchRequest { options, csv: None, svg: None, compare: None, threshold: 10.0 };
        change(&mut request);
        bench::run(&request, &session(), &mut Silent).map(drop)
    };
    let plan = |size| {
        let request = PlanRequest { config: tiny(), given: None, score: true, distill: false, size };
        plan::run(&request, &session(), &mut Silent).map(drop)
    };
    let train = |min_acc, lr: f64| {
        let mut config = tiny();
        config.optimiser.lr = lr;
        let (out, resume_command) = ("absent/run".into(), String::new());
        let request =
            TrainRequest { config, given: None, out, begin: Begin::New, score: false, min_acc, resume_command };
        train::run(&request, &session(), &mut Silent).map(drop)
    };
    let embed = |out: &str| {
        let request = EmbedRequest {
            checkpoint: "absent".into(),
            input: Input::Paths(vec!["src".into()]),
            out: out.into(),
            format: None,
            layer: Layer::Feature,
            normalise: false,
            strict: false,
            resume: false,
            compare: None,
            tolerance: 1e-4,
        };
        embed::run(&request, &session(), &mut Silent).map(drop)
    };
    let shards = |shards: &[&str], part: usize, of: usize, out: &str| {
        let request = ShardsRequest {
            checkpoint: "absent".into(),
            shards: shards.iter().map(|&shard| shard.to_owned()).collect(),
            part: PartOf { part, of },
            out: out.into(),
            format: Format::Npy,
            layer: Layer::Feature,
            normalise: false,
            strict: false,
        };
        shards::run(&request, &session(), &mut Silent).map(drop)
    };
    for (result, needle) in [
        (shards(&["src"], 0, 0, "absent"), "request.part must be 1/1 or more parts, got 0/0"),
        (shards(&["src"], 3, 2, "absent"), "request.part must be from 1/2 to 2/2, got 3/2"),
        (shards(&["src"], 1, 1, ""), "`request.out` is empty"),
        (shards(&[], 1, 1, "absent"), "no shards are given"),
        (shards(&["src", "src/"], 1, 1, "absent"), "give each shard once"),
        (shards(&["absent-{0..9}.tar"], 1, 1, "absent"), "there is no such archive"),
        (eval(&|r| r.episodes = drawn(1, 1, 1, 2)), "request.ways must be from 2 to 1000, got 1"),
        (eval(&|r| r.episodes = drawn(5, 0, 1, 2)), "request.shots must be"),
        (eval(&|r| r.episodes = drawn(5, 1, usize::MAX, 2)), "request.queries must be"),
        (eval(&|r| r.episodes = drawn(5, 1, 1, 0)), "request.n_episodes must be"),
        (eval(&|r| r.support_copies = 0), "request.support_copies must be"),
        (eval(&|r| r.min_acc = Some(f64::NAN)), "request.min_acc must be"),
        (eval(&|r| r.data = Some(String::new())), "`request.data` is empty"),
        (eval(&|_| ()), "absent: there is no such file"),
        (bench(&|r| r.options.rows = Some(0)), "request.rows must be"),
        (bench(&|r| r.options.samples = Some(usize::MAX)), "request.samples must be"),
        (bench(&|r| r.options.sides = vec![1]), "data.side"),
        (bench(&|r| r.threshold = f64::NAN), "request.threshold must be"),
        (bench(&|r| r.csv = Some("absent/x.csv".into())), "absent: there is no such folder"),
        (plan(Some((1, 100))), "request.classes must be"),
        (plan(Some((5, usize::MAX))), "request.images must be"),
        (train(Some(101.0), 0.1), "request.min_acc must be"),
        (train(None, f64::NAN), "optimiser.lr"),
        (embed(".."), "`request.out` wants the name of a file"),
        (embed("absent/x.npy"), "absent: there is no such folder"),
        (embed("x.txt"), "is also the name of the list"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(needle), "`{needle}` is wanted: {error}");
    }
}

/// The plan that is explained is that of the device which trains, not of one that is imagined.
#[test]
fn the_plan_explained_is_the_one_that_trains() {
    let folder = tempfile::tempdir().unwrap();
    let mut narrow = session();
    // Too narrow for the training set, wide enough for every tensor: the images are streamed.
    narrow.gpu.max_binding = Some(2 << 20);
    let request = TrainRequest {
        config: tiny(),
        given: None,
        out: folder.path().join("run"),
        begin: Begin::New,
        score: false,
        min_acc: None,
        resume_command: String::new(),
    };
    let mut explained: Vec<PlanOutcome> = Vec::new();
    let mut explain = |plan: &PlanOutcome| {
        assert!(!request.out.exists(), "before the first step");
        explained.push(plan.clone());
        Ok(())
    };
    train::run_explained(&request, &narrow, &mut Silent, Some(&mut explain)).unwrap();
    let plan = PlanRequest { config: tiny(), given: None, score: true, distill: false, size: None };
    let imagined = plan::run(&plan, &session(), &mut Silent).unwrap();
    assert!(imagined.resident && !explained[0].resident);
    assert_ne!(imagined.peak_bytes, explained[0].peak_bytes);
    // An error of whoever is shown the plan ends the job before it has left anything.
    let out = folder.path().join("other");
    let request = TrainRequest { out: out.clone(), ..request };
    let stopped = train::run_explained(&request, &narrow, &mut Silent, Some(&mut |_| Err(Error::usage("enough"))));
    assert!(stopped.unwrap_err().to_string().contains("enough") && !out.exists());
}

#[test]
fn devices_know_the_chosen_one() {
    let outcome = devices::run(&session()).unwrap();
    assert_eq!(outcome.adapters.iter().filter(|adapter| adapter.chosen).count(), 1);
}
