//! Settings that follow from the pictures, and runs that fit a time: folders of pictures as people have them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use ieq_wgpu::error::{Change, Error};
use ieq_wgpu::gpu::adapter::AdapterChoice;
use ieq_wgpu::gpu::device::Options;
use ieq_wgpu::jobs::fit::Given;
use ieq_wgpu::jobs::plan::{self, PlanOutcome, PlanRequest};
use ieq_wgpu::jobs::train::{self, Begin, TrainOutcome, TrainRequest};
use ieq_wgpu::jobs::{Session, Stored};
use ieq_wgpu::progress::{Progress, Silent, StepReport};
use ieq_wgpu::settings::{Config, Length, Method, Recipe, TimeSpan};

fn session(cache: Option<&Path>) -> Session {
    let choice = AdapterChoice::parse(std::env::var("IEQ_ADAPTER").ok().as_deref());
    Session { gpu: Options { choice, ..Options::default() }, cache: cache.map(Path::to_owned), ..Session::default() }
}

/// Pictures of a class: width, height, and colour at a place.
type Paint = fn(usize, usize, usize, usize) -> [u8; 3];

/// A folder of classes of binary pixmaps.
fn pictures(folder: &Path, classes: usize, images: usize, size: (usize, usize), paint: Paint) -> String {
    for class in 0..classes {
        let of_class = folder.join(format!("class{class:03}"));
        std::fs::create_dir_all(&of_class).unwrap();
        for image in 0..images {
            // Odd sizes: no two alike.
            let (width, height) = (size.0 + image % 3, size.1 + class % 2);
            let mut bytes = format!("P6\n{width} {height}\n255\n").into_bytes();
            for y in 0..height {
                bytes.extend((0..width).flat_map(|x| paint(class, image, x, y)));
            }
            std::fs::write(of_class.join(format!("{image:03}.ppm")), bytes).unwrap();
        }
    }
    folder.to_str().unwrap().to_owned()
}

fn colour(class: usize, image: usize, x: usize, y: usize) -> [u8; 3] {
    [(class * 40 + x * 3) as u8, (image * 30 + y * 5) as u8, ((x * y + class) % 200) as u8]
}

fn gray(class: usize, image: usize, x: usize, y: usize) -> [u8; 3] {
    [((class * 31 + image * 7 + x * 3 + y) % 256) as u8; 3]
}

/// Thin strokes on black.
fn ink(class: usize, image: usize, x: usize, y: usize) -> [u8; 3] {
    [if (x + image) % 16 == class % 16 || y == class { 255 } else { 0 }; 3]
}

/// A thing before a white wall.
fn white(class: usize, image: usize, x: usize, y: usize) -> [u8; 3] {
    if x / 8 == 1 && y / 8 == 1 { colour(class, image, x, y) } else { [255, 255, 254] }
}

/// The request of `--data DATA` with a layer of settings beside it.
fn wish(recipe: Recipe, data: &str, layer: &str) -> (Config, Given) {
    let mut layer: toml::Table = toml::from_str(layer).unwrap();
    ieq_wgpu::settings::put(&mut layer, "data.source", data.into());
    let mut config = Config::default();
    config.recipe = recipe;
    config.lay(&layer).unwrap();
    (config, Given { layer, recipe: true })
}

fn planned(recipe: Recipe, data: &str, layer: &str) -> Result<PlanOutcome, Error> {
    let (config, given) = wish(recipe, data, layer);
    let request = PlanRequest { config, given: Some(given), score: true, distill: false, size: None };
    plan::run(&request, &session(None), &mut Silent)
}

#[test]
fn settings_follow_the_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let data =
        |name: &str, classes, images, size, paint| pictures(&folder.path().join(name), classes, images, size, paint);
    // Of n classes 64 % are trained on, rounded, and all where there are few.
    for (data, side, batch, mean) in [
        (data("odd", 10, 12, (41, 53), colour), 40, 16, None),
        (data("gray", 5, 20, (28, 28), gray), 28, 16, None),
        (data("three", 3, 12, (36, 40), colour), 32, 8, None),
        (data("many", 300, 2, (20, 18), colour), 16, 32, None),
        (data("one-each", 30, 1, (32, 32), colour), 32, 4, None),
        (data("giant", 4, 3, (700, 900), colour), 32, 1, None),
        (data("tiny", 6, 4, (5, 5), colour), 16, 4, None),
        (data("white", 6, 12, (64, 48), white), 32, 16, Some(0.75..1.0)),
        (data("ink", 6, 12, (28, 28), ink), 28, 16, Some(0.0..0.25)),
    ] {
        let side = if data.ends_with("odd") { 32 } else { side };
        let plan = planned(Recipe::Auto, &data, "").unwrap();
        let config = &plan.config;
        assert_eq!(config.data.side, Some(side), "{data}");
        assert!(config.optimiser.batch <= batch.max(4), "{data}: {}", config.optimiser.batch);
        let strokes = data.ends_with("ink");
        assert_eq!(config.method.kind, if strokes { Method::Ier } else { Method::Baseline }, "{data}");
        assert_eq!((config.data.flip, config.method.joint_labels), (!strokes, strokes), "{data}");
        assert!(matches!(config.optimiser.length, Length::Steps(1..)), "{data}");
        if let Some(range) = mean {
            assert!(range.contains(&config.data.mean[0]), "{data}: {:?}", config.data.mean);
        }
        if data.ends_with("gray") || data.ends_with("ink") {
            assert_eq!(config.data.mean[0], config.data.mean[2]);
        }
        for choice in &plan.chosen {
            assert!(config.run.reasons.iter().any(|reason| reason.starts_with(choice.key)), "{data}: {choice}");
        }
        assert!(plan.chosen.iter().any(|choice| choice.key == "data.mean"));
        let paper = planned(Recipe::Paper, &data, "").unwrap().config;
        assert_eq!((paper.data.mean, paper.data.std, paper.data.side), (config.data.mean, config.data.std, Some(side)));
        assert_eq!(paper.method, Config::default().method);
    }
    let odd = folder.path().join("odd");
    let given = planned(Recipe::Auto, odd.to_str().unwrap(), "[data]\nside = 20\n[optimiser]\nlr = 0.02").unwrap();
    assert_eq!((given.config.data.side, given.config.optimiser.lr), (Some(20), 0.02));
    assert!(given.chosen.iter().all(|choice| !["data.side", "optimiser.lr"].contains(&choice.key)));
    // One class to train on is none to tell apart.
    let one = pictures(&folder.path().join("one"), 1, 4, (16, 16), colour);
    let error = planned(Recipe::Auto, &one, "").map(|plan| plan.config.optimiser.batch);
    assert!(matches!(&error, Err(Error::Data { message, .. }) if message.contains("one class")), "{error:?}");
}

/// Rows are arithmetic: with smaller pictures for a part of the run there are more steps, and as many rows.
#[test]
fn rows_give_the_length_and_count_by_area() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(&folder.path().join("pictures"), 6, 8, (28, 28), colour);
    let plan = planned(Recipe::Auto, &data, "[run]\nrows = 6400").unwrap();
    let rows = plan.config.rows() as f64;
    assert_eq!(
        (plan.config.method.scale, plan.config.method.phases.as_slice()),
        (0.625, &["0.5: scale = 1".into()][..])
    );
    assert_eq!(plan.phases.iter().map(|phase| phase.side).collect::<Vec<_>>(), [18, 28]);
    let Length::Steps(steps) = plan.config.optimiser.length else { panic!("no steps") };
    assert!((f64::from(steps) * plan.full_rows - 6400.0).abs() <= rows && f64::from(steps) > 6400.0 / rows);
    // As the graphs have it: half of the multiply-adds, up to the edges that pooling leaves out.
    let small = f64::from(plan.phases[1].from - 1) * plan.phases[0].multiply_adds as f64;
    let large = f64::from(steps + 1 - plan.phases[1].from) * plan.phases[1].multiply_adds as f64;
    assert!((0.8..1.25).contains(&(small / large)), "{small}, {large}");
    let reason = plan.chosen.iter().find(|choice| choice.key == "optimiser.length.steps").unwrap().reason.clone();
    assert!(
        reason.contains("6400 rows") && reason.contains("of 28 pixels a side") && reason.contains("run.rows"),
        "{reason}"
    );
    // A preset, too; its falls of the rate stay where they are in the run.
    let mut layer: toml::Table = toml::from_str("[run]\nrows = 6400").unwrap();
    ieq_wgpu::settings::put(&mut layer, "data.source", data.as_str().into());
    let mut config = Config::from_preset("cifar-fs").unwrap();
    config.lay(&layer).unwrap();
    config.optimiser.batch = 4;
    let given = Some(Given { layer, recipe: false });
    let request = PlanRequest { config, given, score: false, distill: false, size: None };
    let plan = plan::run(&request, &session(None), &mut Silent).unwrap();
    assert_eq!((plan.config.optimiser.length, plan.full_rows), (Length::Steps(100), 64.0));
    assert_eq!(plan.config.optimiser.decay_at, ieq_wgpu::settings::DecayAt::Fractions(vec![0.9231]));
    // Steps that are given are kept, and said to be why.
    let plan = planned(Recipe::Auto, &data, "[optimiser]\nlength = { steps = 9 }").unwrap();
    assert_eq!((plan.config.method.scale, plan.phases.len()), (1.0, 1));
    let scale = plan.chosen.iter().find(|choice| choice.key == "method.scale").unwrap();
    assert!(scale.reason.contains("the number of steps is given"), "{scale}");
}

/// Collects what is said.
#[derive(Default)]
struct Said(Vec<String>);

impl Progress for Said {
    fn step(&mut self, _: &StepReport) {}
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, sentence: &str) {
        self.0.push(sentence.to_owned());
    }
    fn warn(&mut self, sentence: &str) {
        self.0.push(format!("warning: {sentence}"));
    }
    fn stop_requested(&self) -> bool {
        false
    }
}

fn trained(
    wish: (Config, Given),
    out: &Path,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<TrainOutcome, Error> {
    let request = TrainRequest {
        config: wish.0,
        given: Some(wish.1),
        out: out.to_owned(),
        begin: Begin::New,
        score: false,
        min_acc: None,
        resume_command: String::new(),
    };
    train::run(&request, &session(cache), progress)
}

/// Few classes, few pictures of a class, classes of any size: what there is room for is trained and scored, and what is
/// not is said.
#[test]
fn few_classes_and_few_pictures_are_trained_on_and_scored_as_far_as_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut number = 0;
    let mut run = |data: &str| {
        number += 1;
        let out = folder.path().join(format!("run{number}"));
        let (mut config, given) = wish(Recipe::Auto, data, &format!("{SMALL}[optimiser]\nsteps = 1\n"));
        config.run.validate_every = 1;
        let request = TrainRequest {
            config,
            given: Some(given),
            out,
            begin: Begin::New,
            score: true,
            min_acc: None,
            resume_command: String::new(),
        };
        let mut said = Said::default();
        let outcome = train::run(&request, &session(None), &mut said).unwrap();
        let sizes: Vec<_> = outcome.trained.iter().map(|score| (score.ways, score.shots, score.queries)).collect();
        (sizes, said.0.join("\n"))
    };
    // Too few to keep some apart.
    for classes in [2, 3, 7] {
        let data = pictures(&folder.path().join(format!("few{classes}")), classes, 6, (16, 16), colour);
        let (sizes, said) = run(&data);
        assert!(sizes.is_empty() && said.contains(&format!("of {classes} classes,")), "{said}");
        assert!(said.contains("too few to keep some apart as novel: all of them are trained on"), "{said}");
    }
    // Of ten classes two are novel; twelve pictures have room for seven queries beside five shots.
    let data = pictures(&folder.path().join("ten"), 10, 12, (16, 16), colour);
    let (sizes, said) = run(&data);
    assert_eq!(sizes, [(2, 1, 11), (2, 5, 7)], "{said}");
    assert!(said.contains("2 of 2 novel classes have room for 2-way 1-shot with 11 queries"), "{said}");
    // Small classes are left out where others suffice.
    let data = folder.path().join("uneven");
    pictures(&data, 24, 20, (16, 16), colour);
    for class in (0..24).step_by(3) {
        for image in 3..20 {
            std::fs::remove_file(data.join(format!("class{class:03}/{image:03}.ppm"))).unwrap();
        }
    }
    let (sizes, said) = run(data.to_str().unwrap());
    assert!(sizes.iter().all(|size| (2..5).contains(&size.0)) && sizes[1].2 == 15, "{sizes:?} {said}");
    assert!(said.contains(" of 5 novel classes have room for"), "{said}");
}

const SMALL: &str = "[model]\nbackbone = \"conv4\"\nwidths = [4, 4, 4, 4]\n";

#[test]
fn what_was_chosen_is_said_saved_and_kept_on_resume() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(&folder.path().join("pictures"), 8, 8, (30, 25), colour);
    let (out, mut said) = (folder.path().join("run"), Said::default());
    let layer = format!("{SMALL}[optimiser]\nlength = {{ steps = 3 }}");
    let outcome = trained(wish(Recipe::Auto, &data, &layer), &out, None, &mut said).unwrap();
    let mean = outcome.chosen.iter().find(|choice| choice.key == "data.mean").unwrap();
    assert!(said.0.contains(&mean.to_string()) && mean.reason.contains("measured on 40 training images (colour"));
    assert!(said.0.iter().any(|sentence| sentence.contains("5 of the 8 classes, drawn by data.split_seed")));
    let stored = Stored::open(&out).unwrap().config;
    assert_eq!((stored.recipe, stored.data.side), (Recipe::Auto, Some(24)));
    assert_eq!(Config::from_layers(None, &out.join("config.toml")).unwrap(), stored);
    assert!(stored.run.reasons.iter().any(|reason| reason.starts_with("data.mean: measured on 40")));
    // Given settings are nobody's choice.
    assert!(outcome.chosen.iter().all(|choice| !["model.widths", "optimiser.length.steps"].contains(&choice.key)));
    let request = TrainRequest {
        config: stored,
        given: None,
        out: out.clone(),
        begin: Begin::resume(&out).unwrap(),
        score: false,
        min_acc: None,
        resume_command: String::new(),
    };
    let before = std::fs::read(out.join("checkpoint.safetensors")).unwrap();
    train::run(&request, &session(None), &mut Silent).unwrap();
    assert_eq!(before, std::fs::read(out.join("checkpoint.safetensors")).unwrap());
}

/// The first run measures; from the second on the same command makes the same bits, and `plan` knows them beforehand.
#[test]
fn a_time_gives_the_same_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(&folder.path().join("pictures"), 6, 8, (16, 16), colour);
    let cache = folder.path().join("cache");
    let timed = || wish(Recipe::Auto, &data, &format!("{SMALL}[run]\ntime = \"8s\""));
    let run = |name: &str| {
        let out = folder.path().join(name);
        let outcome = trained(timed(), &out, Some(&cache), &mut Silent).unwrap();
        (outcome, std::fs::read(out.join("checkpoint.safetensors")).unwrap(), Stored::open(&out).unwrap().config)
    };
    let (first, _, config) = run("first");
    assert!(first.timing.unwrap().measured_now && first.steps > 0);
    assert_eq!(config.run.time.map(|time| time.0), Some(8));
    assert!(matches!(config.optimiser.length, Length::Steps(steps) if steps == first.steps));
    let (second, bits, _) = run("second");
    assert!(!second.timing.unwrap().measured_now);
    let (third, same, _) = run("third");
    assert_eq!(second.steps, third.steps);
    assert!(bits == same, "the same command, other bits");
    let (config, given) = timed();
    let request = PlanRequest { config, given: Some(given), score: false, distill: false, size: None };
    let plan = plan::run(&request, &session(Some(&cache)), &mut Silent).unwrap();
    let forecast = plan.forecast.unwrap();
    assert_eq!(forecast.steps, second.steps);
    assert!(!forecast.timing.measured_now && forecast.expected.is_some());
}

/// Where a step takes longer than the whole time: the cache says so, whatever machine this is.
#[test]
fn a_time_that_cannot_be_kept_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(&folder.path().join("pictures"), 6, 8, (16, 16), colour);
    let (out, cache) = (folder.path().join("run"), folder.path().join("cache"));
    let timed = |time: &str| wish(Recipe::Auto, &data, &format!("{SMALL}[run]\ntime = \"{time}\""));
    let (config, given) = timed("1h");
    let request = PlanRequest { config, given: Some(given), score: true, distill: false, size: None };
    plan::run(&request, &session(Some(&cache)), &mut Silent).unwrap();
    let mut files = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().contains("calibration")).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let slow = |line: &str| if line.starts_with("step_s = ") { "step_s = 70.0".to_owned() } else { line.to_owned() };
    std::fs::write(&file, text.lines().map(slow).collect::<Vec<_>>().join("\n")).unwrap();
    let error = trained(timed("9s"), &out, Some(&cache), &mut Silent).unwrap_err();
    let Error::Conflict { keys, changes, .. } = &error else { panic!("{error}") };
    assert_eq!(keys, &["run.time"]);
    assert!(error.to_string().contains("run.time = 9s is too short") && !out.exists(), "{error}");
    // The remedy is a time that one step fits into.
    let [Change::Set("run.time", time)] = changes.as_slice() else { panic!("{changes:?}") };
    assert!(time.parse::<TimeSpan>().unwrap().seconds() > 70.0, "{time}");
    let both = format!("{SMALL}[run]\ntime = \"1h\"\n[optimiser]\nlength = {{ epochs = 2 }}");
    let error = trained(wish(Recipe::Auto, &data, &both), &out, None, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("optimiser.length.epochs says it"), "{error}");
}

/// A preset keeps its settings, its time chooses the length, and the rate falls at the same shares of it.
#[test]
fn a_preset_on_other_data_warns_and_may_have_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = pictures(&folder.path().join("pictures"), 6, 20, (16, 16), white);
    let mut layer: toml::Table = toml::from_str(&format!(
        "[data]\nside = 16\n{SMALL}[optimiser]\nbatch = 4\n[run]\ntime = \"6s\"\n[method]\ntransforms = \"rot4\"\nnegatives = 8"
    ))
    .unwrap();
    ieq_wgpu::settings::put(&mut layer, "data.source", data.into());
    let mut config = Config::from_preset("cifar-fs").unwrap();
    config.lay(&layer).unwrap();
    let (out, mut said) = (folder.path().join("run"), Said::default());
    let outcome = trained((config, Given { layer, recipe: false }), &out, None, &mut said).unwrap();
    for needle in ["expects pictures of mean 0.51,0.49,0.44", "64 training classes", "32 pixels a side"] {
        let found =
            said.0.iter().filter(|sentence| sentence.contains(needle) && sentence.starts_with("warning: ")).count();
        assert_eq!(found, 1, "{needle}: {:?}", said.0);
    }
    let keys: Vec<_> = outcome.chosen.iter().map(|choice| choice.key).collect();
    assert_eq!(keys, ["optimiser.decay_at.fractions", "optimiser.length.steps"]);
    let stored = Stored::open(&out).unwrap().config;
    assert_eq!(stored.optimiser.decay_at, ieq_wgpu::settings::DecayAt::Fractions(vec![0.9231]));
}
