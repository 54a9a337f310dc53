//! Training by several processes that `mpirun` starts: the bits of one process that splits the batch into as many
//! micro-batches, also after a kill and with another number of ranks; whatever happens to one rank ends all of them, with
//! the last checkpoint intact and no process left behind. `tests/ranks.rs` has ranks that are threads, and more settings.

#![cfg(all(target_os = "linux", feature = "mpi"))]
#![allow(clippy::print_stderr, reason = "a test says where it killed")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/runs.rs"]
mod runs;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ieq_wgpu::data::{DataOptions, Split, load};
use ieq_wgpu::gpu::device::{Gpu, Options};
use ieq_wgpu::gpu::kernel::Kernels;
use ieq_wgpu::gpu::{AdapterChoice, adapter::ADAPTER_VARIABLE};
use ieq_wgpu::progress::{Progress, StepReport};
use ieq_wgpu::random::{Rng, Stream};
use ieq_wgpu::ranks::mpi;
use ieq_wgpu::settings::{Backbone, BatchStatistics, Config, Length, OnDeviceLost};
use ieq_wgpu::train::Trainer;
use ieq_wgpu::train::run::{follow_reopening, run_reopening};
use runs::{assert_same_run, checkpoint, metrics, steps_logged};

/// A run of seconds with everything in it that has state; a batch is four micro-batches.
const TINY: [&str; 20] = [
    "train",
    "--preset=demo",
    "--data=glyphs",
    "--backbone=conv4",
    "--widths=4,4,4,4",
    "--projection=8",
    "--transforms=rot4",
    "--negatives=32",
    "--bank-recent=40",
    "--batch=4",
    "--micro-batch=1",
    "--bn=micro",
    "--clip-norm=2",
    "--average=0.9",
    "--steps=30",
    "--checkpoint-every=5",
    "--log-every=1",
    "--no-eval",
    "--quiet",
    "--out",
];

/// Seed of the moments of death; another one may be given, to repeat a failure or to look for one.
const SEED_VARIABLE: &str = "IEQ_KILL_SEED";

/// Most that the end of all ranks may take once one has died.
const SOON: Duration = Duration::from_secs(30);

const PROGRAM: &str = env!("CARGO_BIN_EXE_ieq-wgpu");

fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn alone(words: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words).arg(folder);
    piped(command)
}

/// The program as `ranks` processes, which `shell` may limit before they begin.
fn mpirun(ranks: usize, words: &[&str], shell: &str) -> Command {
    let mut command = Command::new("mpirun");
    // In a container the user is root, and a machine may have fewer processors than ranks.
    command.args(["--allow-run-as-root", "--oversubscribe", "-q", "-n", &ranks.to_string()]);
    command.args(["sh", "-c", &format!("{shell} exec \"$0\" \"$@\""), PROGRAM]).args(words);
    command
}

fn among(ranks: usize, words: &[&str], folder: &Path, shell: &str) -> Command {
    let mut command = mpirun(ranks, words, shell);
    command.arg(folder);
    piped(command)
}

fn finish(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {stderr}");
    output
}

/// As [`finish`], of a run whose processes have just been killed: the system may need a moment to give their lock back.
fn finish_later(command: impl Fn() -> Command) -> Output {
    let begun = Instant::now();
    loop {
        let output = command().output().unwrap();
        if !String::from_utf8_lossy(&output.stderr).contains("another process is training") {
            assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
            return output;
        }
        assert!(begun.elapsed() < SOON, "a process that was killed keeps the lock of its folder");
    }
}

/// The processes of this program that have `folder` among their words, by rank.
fn ranks_of(folder: &Path) -> Vec<(usize, u32)> {
    let rank = |pid: u32| -> Option<(usize, u32)> {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = words.split(|byte| *byte == 0);
        let own = words.next()? == PROGRAM.as_bytes();
        let has = words.any(|word| word == folder.as_os_str().as_encoded_bytes());
        let about = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let name = b"OMPI_COMM_WORLD_RANK=";
        let rank = about.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(name))?;
        (own && has).then_some((std::str::from_utf8(rank).ok()?.parse().ok()?, pid))
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = all.filter_map(rank).collect();
    found.sort();
    found
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} $0")]).arg(pid.to_string()).status().unwrap();
    assert!(sent.success(), "{name} to {pid}");
}

/// Waits for a child that is to end soon: its exit code and what it said.
fn end_of(mut child: Child, folder: &Path, what: &str) -> (Option<i32>, String) {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < SOON, "{what}: mpirun does not end; {:?} are left", ranks_of(folder));
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{what}: all ended after {:.1} s", begun.elapsed().as_secs_f64());
    while !ranks_of(folder).is_empty() {
        assert!(begun.elapsed() < SOON, "{what}: {:?} are left", ranks_of(folder));
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until the run in `folder` has logged `steps` steps.
fn wait_for(child: &mut Child, folder: &Path, steps: usize) {
    let begun = Instant::now();
    while steps_logged(folder) < steps && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(180), "the run does not get on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rng(test: u32) -> Rng {
    let seed = std::env::var(SEED_VARIABLE).ok().map_or(1, |text| text.parse().unwrap());
    eprintln!("{SEED_VARIABLE}={seed}");
    Rng::new(seed, Stream::Order, 0, test)
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.next_bits() as usize % bound
}

const RESUME: [&str; 4] = ["train", "--no-eval", "--quiet", "--resume"];

/// The same run with this kind of batch norm.
fn tiny(batch_norm: &'static str) -> Vec<&'static str> {
    TINY.into_iter().map(|word| if word.starts_with("--bn=") { batch_norm } else { word }).collect()
}

#[test]
fn any_number_of_ranks_trains_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    for batch_norm in ["--bn=micro", "--bn=exact"] {
        let words = tiny(batch_norm);
        let whole = folder.path().join(batch_norm);
        finish(alone(&words, &whole));
        for ranks in [1, 2, 4] {
            let out = folder.path().join(format!("{ranks} ranks {batch_norm}"));
            finish(among(ranks, &words, &out, ""));
            assert_same_run(&out, &whole, &format!("{ranks} ranks, {batch_norm}"));
        }
        ends.push(checkpoint(&whole));
    }
    assert!(ends[0] != ends[1], "both kinds of batch norm are the same");
}

/// Kills a rank at random moments, and goes on with another number of ranks each time.
fn kill_and_resume(times: usize, batch_norm: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let tiny = tiny(batch_norm);
    finish(alone(&tiny, &whole));
    let mut rng = rng(0);
    let mut killed = 0;
    for attempt in 0..times {
        let out = folder.path().join(format!("killed-{attempt}"));
        let (ranks, steps) = ([2, 4][attempt % 2], 1 + below(&mut rng, 26));
        let mut child = among(ranks, &tiny, &out, "").spawn().unwrap();
        wait_for(&mut child, &out, steps);
        std::thread::sleep(Duration::from_millis(below(&mut rng, 60) as u64));
        let victim = below(&mut rng, ranks);
        let found = ranks_of(&out);
        let Some((_, pid)) = found.iter().find(|(rank, _)| *rank == victim).copied() else {
            assert_eq!(end_of(child, &out, "a run that was done").0, Some(0));
            continue;
        };
        signal(pid, "KILL");
        killed += 1;
        let what = format!("attempt {attempt}, rank {victim} of {ranks} killed after step {}", steps_logged(&out));
        let (code, words) = end_of(child, &out, &what);
        assert_ne!(code, Some(0), "{what}: {words}");
        let others = [1, 2, 4][below(&mut rng, 3)];
        let again = if out.join("checkpoint.safetensors").exists() { &RESUME[..] } else { &tiny };
        let words = if again == RESUME { again.to_vec() } else { [&["train", "--overwrite"], &again[1..]].concat() };
        finish_later(|| if others == 1 { alone(&words, &out) } else { among(others, &words, &out, "") });
        assert_same_run(&out, &whole, &format!("{what}, resumed by {others}"));
    }
    assert!(2 * killed >= times, "only {killed} of {times} runs were still going when a rank was to be killed");
}

#[test]
fn a_killed_rank_ends_all_and_the_run_goes_on_with_other_ranks() {
    kill_and_resume(3, "--bn=micro");
    kill_and_resume(2, "--bn=exact");
}

#[test]
#[ignore = "minutes: twenty deaths"]
fn twenty_killed_ranks_lose_nothing() {
    kill_and_resume(10, "--bn=micro");
    kill_and_resume(10, "--bn=exact");
}

/// Where nobody says how a batch is split, as many micro-batches as ranks are chosen, and kept with the run.
#[test]
fn ranks_choose_how_a_batch_is_split_and_a_single_process_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let left_out = ["--micro-batch=1", "--bn=micro"];
    let words: Vec<&str> = TINY.into_iter().filter(|word| !left_out.contains(word)).collect();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("stopped"));
    let loud: Vec<&str> = words.iter().copied().filter(|word| *word != "--quiet").collect();
    let said = String::from_utf8(finish(among(2, &loud, &whole, "")).stderr).unwrap();
    for sentence in [
        "run.micro_batch = 2: one of 2 micro-batches, which 2 ranks share",
        "run.batch_norm = micro: 2 ranks share a batch",
        "each rank computes 1 of the 2 micro-batches of 2 images",
        "2 ranks, each with llvmpipe",
    ] {
        // Rank 0 alone speaks.
        assert_eq!(said.matches(sentence.split(':').next_back().unwrap().trim()).count(), 1, "{sentence}: {said}");
    }
    // What is said of batch norm stays.
    let told = [&["train", "--bn=exact"], &loud[1..]].concat();
    let said = String::from_utf8(finish(among(2, &told, &folder.path().join("exact"), "")).stderr).unwrap();
    for (sentence, times) in [
        ("one of 2 micro-batches, which 2 ranks share", 1),
        ("batch norm uses the statistics of the whole batch (run.batch_norm = exact)", 1),
        ("2 ranks share a batch", 0),
    ] {
        assert_eq!(said.matches(sentence).count(), times, "{sentence}: {said}");
    }
    let mut child = among(2, &words, &out, "").spawn().unwrap();
    wait_for(&mut child, &out, 7);
    let Some((_, pid)) = ranks_of(&out).first().copied() else { panic!("the run was too fast") };
    signal(pid, "INT");
    let (code, words) = end_of(child, &out, "rank 0 interrupted");
    assert_eq!(code, Some(130), "{words}");
    assert_eq!(words.matches("interrupted: saved step").count(), 1, "{words}");
    finish(alone(&RESUME, &out));
    assert_same_run(&out, &whole, "interrupted, and resumed by one process");
    let output = among(3, &RESUME, &out, "").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert_eq!(words.matches("error: ").count(), 1, "{words}");
    assert!(
        words.contains("3 ranks cannot share out the 2 micro-batches") && words.contains("start 1 or 2"),
        "{words}"
    );
}

/// Whatever ends `mpirun` ends all ranks, and nothing that was saved is lost.
#[test]
fn what_ends_mpirun_ends_all_and_the_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    finish(alone(&TINY, &whole));
    for (name, others) in [("INT", 1), ("TERM", 4), ("KILL", 2)] {
        let out = folder.path().join(name);
        let mut child = among(2, &TINY, &out, "").spawn().unwrap();
        wait_for(&mut child, &out, 7);
        assert_eq!(ranks_of(&out).len(), 2, "the run was too fast");
        signal(child.id(), name);
        let (code, words) = end_of(child, &out, &format!("mpirun and SIG{name}"));
        assert_ne!(code, Some(0), "{words}");
        assert!(words.matches("error: ").count() <= 1, "{words}");
        finish_later(|| if others == 1 { alone(&RESUME, &out) } else { among(others, &RESUME, &out, "") });
        assert_same_run(&out, &whole, &format!("mpirun and SIG{name}, resumed by {others}"));
    }
}

/// A checkpoint that does not fit the system's limit on the size of files, in the place of a disk that fills.
#[test]
fn a_full_disk_of_rank_0_ends_all_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, out) = (folder.path().join("whole"), folder.path().join("full"));
    finish(alone(&TINY, &whole));
    let mut child = among(2, &TINY, &out, "").spawn().unwrap();
    wait_for(&mut child, &out, 7);
    signal(ranks_of(&out)[0].1, "INT");
    end_of(child, &out, "rank 0 interrupted");
    let before = checkpoint(&out);
    // Room for the metrics and not for a checkpoint.
    let child = among(2, &RESUME, &out, "[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] && ulimit -f 64;").spawn().unwrap();
    let (code, words) = end_of(child, &out, "a full disk");
    assert_ne!(code, Some(0), "{words}");
    assert_eq!(words.matches("error: ").count(), 1, "{words}");
    assert!(words.contains("cannot write"), "{words}");
    assert!(checkpoint(&out) == before, "the last checkpoint was touched");
    finish(among(4, &RESUME, &out, ""));
    assert_same_run(&out, &whole, "after a full disk");
}

#[test]
fn bad_words_are_refused_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (words, needle) in [
        (&["distill", "--teacher=nowhere", "--out"][..], "`distill` is done by one"),
        (
            &["train", "--preset=demo", "--batch=9", "--steps=3", "--out"],
            "cannot be shared by 2 ranks: 3 or 9 ranks can",
        ),
        // Before the data, which is not there.
        (
            &[
                "train",
                "--data=nowhere",
                "--preset=demo",
                "--batch=9",
                "--micro-batch=3",
                "--bn=micro",
                "--steps=3",
                "--out",
            ],
            "2 ranks cannot share out the 3 micro-batches",
        ),
        (&["train", "--preset=demo", "--time=5m", "--out"], "measures one device"),
        (&["train", "--nonsense", "--out"], "--nonsense"),
    ] {
        let child = among(2, words, &out, "").spawn().unwrap();
        let (code, said) = end_of(child, &out, words[1]);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        assert!(said.contains(needle), "{needle}: {said}");
        assert!(!out.exists(), "{words:?}");
    }
}

/// The link is measured once for all ranks, and `plan` goes by what was measured.
#[test]
fn a_measured_link_says_what_a_run_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let measured = finish(piped(mpirun(2, &["bench", "--link", "--json", "--quiet"], "")));
    let link: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert_eq!((link["schema"].as_str(), link["ranks"].as_u64()), (Some("ieq-wgpu.link.1"), Some(2)));
    let all = link["all_reduce"].as_array().unwrap();
    // Of a vector of n bytes a rank sends half, and half again.
    assert!(all.iter().all(|it| it["sent"] == it["bytes"] && it["seconds"].as_f64().unwrap() > 0.0), "{link}");
    let file = folder.path().join("link.json");
    std::fs::write(&file, &measured.stdout).unwrap();
    let words = ["plan", "--preset=demo", "--batch=32", "--quiet", "--json", "--images-per-second=100"];
    let plan = |ranks: &str, file: &Path| {
        let mut command = Command::new(PROGRAM);
        command.args(words).arg(format!("--ranks={ranks}")).arg("--link").arg(file);
        let document: serde_json::Value = serde_json::from_slice(&finish(piped(command)).stdout).unwrap();
        document["shared"].clone()
    };
    let (two, four) = (plan("2", &file), plan("4", &file));
    let number = |of: &serde_json::Value, key: &str| of[key].as_f64().unwrap_or_else(|| panic!("{key}: {of}"));
    assert_eq!((number(&two, "parts_per_rank"), number(&four, "parts_per_rank")), (1.0, 1.0));
    assert!(number(&four, "sent_bytes") > 1.4 * number(&two, "sent_bytes"), "{two} {four}");
    assert!((number(&two, "step_s") - number(&two, "exchange_s") - 0.16).abs() < 1e-9, "{two}");
    assert!((number(&two, "speed_up") - 0.32 / number(&two, "step_s")).abs() < 1e-9, "{two}");
    let output = Command::new(PROGRAM).args(["bench", "--link"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no link to measure"));
}

/// Where the ranks of [`processes_open_a_lost_device_again`] train, and which of them loses its device.
const FOLDER_VARIABLE: &str = "IEQ_RANKS_FOLDER";
const LOSER_VARIABLE: &str = "IEQ_RANKS_LOSER";

/// Says what it is told.
struct Loud;

impl Progress for Loud {
    fn step(&mut self, _: &StepReport) {}
    fn advance(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, sentence: &str) {
        eprintln!("{sentence}");
    }
    fn warn(&mut self, sentence: &str) {
        eprintln!("{sentence}");
    }
    fn stop_requested(&self) -> bool {
        false
    }
}

/// No program takes its own device away, so `mpirun` starts this test in the place of one. Some time after step 12 the rank that
/// is to lose its device does, whatever it is at.
#[test]
#[ignore = "a rank of another test"]
fn a_rank_whose_device_may_go() {
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from) else { return };
    let loser: Option<usize> = std::env::var(LOSER_VARIABLE).ok().and_then(|text| text.parse().ok());
    let ranks = mpi::begin(|words| eprintln!("error: {words}"), 1).unwrap();
    let mut config = Config::from_preset("demo").unwrap();
    (config.model.backbone, config.model.widths) = (Backbone::Conv4, vec![4; 4]);
    (config.optimiser.batch, config.optimiser.length) = (8, Length::Steps(60));
    (config.run.micro_batch, config.run.batch_norm) = (Some(2), BatchStatistics::Micro);
    (config.run.slice_ms, config.run.log_every, config.run.checkpoint_every) = (0, 1, 5);
    config.run.on_device_lost = OnDeviceLost::Resume;
    let choice = AdapterChoice::parse(std::env::var(ADAPTER_VARIABLE).ok().as_deref());
    let open = || Gpu::open(&Options { choice: choice.clone(), ..Options::default() });
    let data = load("glyphs", Split::Train, &DataOptions { side: Some(28), ..DataOptions::default() }).unwrap();
    let own = open().unwrap();
    let mut trainer = Trainer::among(own.clone(), &config, Arc::new(data), None, Some(ranks.clone())).unwrap();
    trainer.share().unwrap();
    if loser == Some(ranks.rank()) {
        let folder = folder.clone();
        std::thread::spawn(move || {
            while steps_logged(&folder) < 12 {
                std::thread::sleep(Duration::from_millis(1));
            }
            own.device().destroy();
        });
    }
    let reopen = || open().map(Kernels::new);
    match ranks.leads() {
        true => run_reopening(&mut trainer, &|_| reopen(), &folder, "resume", &mut Loud).map(drop).unwrap(),
        false => follow_reopening(&mut trainer, &reopen).unwrap(),
    }
    ranks.end().unwrap();
}

/// `run.on_device_lost = resume` across processes, whichever loses its device: all open theirs again, and end in the bits of a
/// run that lost none.
#[test]
fn processes_open_a_lost_device_again() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let train = |name: &str, loser: &str| {
        let out = folder.path().join(name);
        std::fs::create_dir(&out).unwrap();
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-q", "-n", "2"]).arg(&own);
        command.args(["--exact", "a_rank_whose_device_may_go", "--ignored", "--nocapture"]);
        command.env(FOLDER_VARIABLE, &out).env(LOSER_VARIABLE, loser);
        let said = String::from_utf8(finish(piped(command)).stderr).unwrap();
        (out, said)
    };
    let (whole, said) = train("whole", "none");
    assert!(!said.contains("opening the device again"), "{said}");
    for loser in ["0", "1"] {
        let (out, said) = train(loser, loser);
        assert_eq!(said.matches("opening the device again (1 of 3)").count(), 1, "{loser}: {said}");
        assert_eq!(said.contains("rank 1: "), loser == "1", "{loser}: {said}");
        assert!(!said.contains("continuing at step 0 ") && said.contains("continuing at step "), "{loser}: {said}");
        assert!(checkpoint(&out) == checkpoint(&whole), "{loser}: the checkpoints differ");
        assert_eq!(metrics(&out), metrics(&whole), "{loser}");
    }
}
