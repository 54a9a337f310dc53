//! `train`.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::args::TrainArgs;
use super::engine::{self, TrainOutcome};
use super::plan::{PlanJob, plan_text};
use super::report::{self, Report};
use super::tuning::TUNING_FILE;
use super::{Scoring, interrupt, meets, percentage, same_path};
use crate::settings::{CHECKPOINT_FILE, CONFIG_FILE, Config, METRICS_FILE, may_change_on_resume};
use crate::{Error, Result};

/// A training run with judged settings.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainJob {
    /// The settings; `run.out` is always none, so that equal runs in two folders have equal checkpoints.
    pub config: Config,
    /// The run folder.
    pub out: PathBuf,
    /// Continue from the folder's checkpoint.
    pub resume: bool,
    /// The folder may hold a run, which this one replaces.
    pub overwrite: bool,
    /// Whether the novel classes are scored before and after.
    pub scoring: Scoring,
}

impl TrainJob {
    /// Judges the flags; `stored` reads the configuration of a checkpoint.
    pub fn new(args: &TrainArgs, stored: impl FnOnce(&Path) -> Result<Config>) -> Result<TrainJob> {
        percentage(args.min_acc)?;
        let flags = &args.config;
        let (mut config, out) = match &args.resume {
            None => {
                let config = flags.resolve()?;
                let out = config.out_folder();
                (config, out)
            }
            Some(folder) => {
                let out = match folder {
                    Some(folder) => folder.clone(),
                    None => flags.resolve()?.out_folder(),
                };
                let checkpoint = out.join(CHECKPOINT_FILE);
                if !checkpoint.is_file() {
                    return Err(Error::data(
                        &out,
                        "there is no run to resume here: name the folder of one that has saved a checkpoint",
                    ));
                }
                let stored = stored(&checkpoint)?;
                let mut config = flags.base(|| Ok(stored.clone()))?;
                // Before the flags: one that names what was chosen, and says otherwise, is to be seen.
                config.keep_choices(&stored);
                flags.apply(&mut config)?;
                if let Some(other) = config.run.out.as_deref().filter(|other| !same_path(other, &out)) {
                    return Err(Error::usage(format!(
                        "--resume goes on in {}, and --out (run.out) names {}: leave one of them out",
                        out.display(),
                        other.display()
                    )));
                }
                same_settings(&config, &stored, &out)?;
                (config, out)
            }
        };
        config.validate()?;
        config.run.out = None;
        if args.resume.is_none() {
            free_folder(&out, args.overwrite)?;
        }
        let (resume, overwrite) = (args.resume.is_some(), args.overwrite);
        Ok(TrainJob { config, out, resume, overwrite, scoring: Scoring::of(args.no_eval, args.min_acc) })
    }

    /// Creates the run folder and saves the configuration in it: to be called once data and device are
    /// known to be good, so that a run that cannot start leaves nothing behind.
    /// `config`: the settings in effect.
    pub fn open_folder(&self, config: &Config) -> Result<OpenFolder> {
        open_folder(&self.out, config, self.resume, self.overwrite)
    }
}

/// A run folder that this process writes to: as long as this lives, no other process can open it.
#[derive(Debug)]
#[must_use]
pub struct OpenFolder {
    // The folder itself, locked; none where the system or the file system has no such locks.
    _lock: Option<File>,
}

/// What temporary files begin with: of the configuration, and of checkpoints.
const TEMPORARY: [&str; 2] = [".config-", crate::files::TEMPORARY_PREFIX];

/// Creates a run folder and saves the configuration in it, whole or not at all. Unless the run is resumed, an
/// older one's checkpoint and metrics go first, so that nothing can be resumed by mistake. What a killed process
/// was writing goes, too.
pub(super) fn open_folder(out: &Path, config: &Config, resume: bool, overwrite: bool) -> Result<OpenFolder> {
    std::fs::create_dir_all(out)
        .map_err(|e| Error::io(out, "cannot create the run folder (--out names another)", e))?;
    let lock = File::open(out).ok();
    if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
        return Err(Error::data(
            out,
            "another process is training in this folder: wait for its end, or name another folder with --out",
        ));
    }
    if !resume {
        // Another run may have ended here since the flags were judged; none can while the folder is locked.
        free_folder(out, overwrite)?;
    }
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        if TEMPORARY.iter().any(|prefix| entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())) {
            // In nobody's way if it stays.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    if !resume {
        for name in [CHECKPOINT_FILE, METRICS_FILE, TUNING_FILE] {
            let old = out.join(name);
            match std::fs::remove_file(&old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(
                        old,
                        "cannot remove the run that this one replaces (--out names another)",
                        e,
                    ));
                }
                _ => {}
            }
        }
    }
    let path = out.join(CONFIG_FILE);
    let text = config.to_toml()?;
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(OpenFolder { _lock: lock });
    }
    let cannot = |e| Error::io(&path, "cannot save the configuration (--out names another folder)", e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY[0]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any other new file: readable as far as the user's umask allows.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(out).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)?;
    file.persist(&path).map_err(|e| cannot(e.error))?;
    Ok(OpenFolder { _lock: lock })
}

/// Refuses to resume the run in `out`, whose settings are `stored`, with others.
pub(super) fn same_settings(config: &Config, stored: &Config, out: &Path) -> Result<()> {
    let mut changed = config.differences(stored);
    changed.retain(|key| !may_change_on_resume(key));
    if changed.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--resume goes on with the settings of {}, and these flags change {}: leave them out, or start a new run with \
         --out",
        out.display(),
        changed.join(", ")
    )))
}

/// Refuses a folder that holds a run, unless that may be replaced, and a path that is no folder.
pub(super) fn free_folder(out: &Path, overwrite: bool) -> Result<()> {
    if let Some(file) = out.ancestors().find(|path| path.exists()).filter(|path| !path.is_dir()) {
        return Err(Error::data(file, "this is a file, and --out wants a folder"));
    }
    if !overwrite && out.join(CHECKPOINT_FILE).exists() {
        return Err(Error::data(
            out,
            "this folder holds a run: continue it with --resume, replace it with --overwrite, or name another with --out",
        ));
    }
    Ok(())
}

/// Trains and prints the result.
pub fn run(args: &TrainArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = TrainJob::new(args, engine::checkpoint_config)?;
    interrupt::install(interrupt::TRAINING)?;
    if args.explain_plan {
        let plan = engine::plan(&PlanJob { config: job.config.clone(), distill: false, size: None })?;
        report.text(&plan_text(&plan))?;
    }
    let mut live = report.live();
    let outcome = engine::train(&job, adapter, &mut live);
    live.finish();
    let outcome = outcome?;
    report.result("train", &outcome, || outcome_text(&outcome))?;
    meets(args.min_acc, &outcome.trained)
}

/// A run's result for people.
pub(super) fn outcome_text(outcome: &TrainOutcome) -> String {
    let mut rows = Vec::new();
    for (before, after) in outcome.untrained.iter().zip(&outcome.trained) {
        if rows.is_empty() {
            let title = format!("{}-way, novel classes", after.ways);
            rows.push(vec![title, "untrained".into(), "trained".into(), "gain".into()]);
        }
        rows.push(vec![
            format!("{}-shot accuracy ({})", after.shots, after.classifier),
            format!("{:.1} ± {:.1} %", before.accuracy_pct, before.interval_pct),
            format!("{:.1} ± {:.1} %", after.accuracy_pct, after.interval_pct),
            format!("{:+.1}", after.accuracy_pct - before.accuracy_pct),
        ]);
    }
    let loss = outcome.loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
    format!(
        "{}\n{} steps in {}{loss}, {:.1} images/s; saved {}",
        report::table(&rows),
        outcome.steps,
        report::duration(outcome.seconds),
        outcome.images_per_second,
        outcome.checkpoint.display()
    )
    .trim_start()
    .to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::engine::Score;
    use super::*;
    use crate::settings::{BatchStatistics, ByteSize, Length, Winograd};

    fn job(words: &[&str], stored: Option<Config>) -> Result<TrainJob> {
        use clap::FromArgMatches;
        let matches = super::super::args::command().unwrap().get_matches_from([&["ieq-wgpu", "train"], words].concat());
        match super::super::args::Cli::from_arg_matches(&matches).unwrap().command {
            super::super::args::Command::Train(args) => TrainJob::new(&args, |_| Ok(stored.unwrap())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_folder_with_a_run_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        assert!(!job(&["--out", out], None).unwrap().resume);
        std::fs::write(folder.path().join(CHECKPOINT_FILE), "x").unwrap();
        let refusal = job(&["--out", out], None).unwrap_err();
        assert!(refusal.to_string().contains("--resume"), "{refusal}");
        assert_eq!(refusal.exit_code(), 2);
        assert!(job(&["--out", out, "--overwrite"], None).unwrap().overwrite);
    }

    #[test]
    fn resuming_keeps_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        assert!(job(&["--resume", out], None).unwrap_err().to_string().contains("no run to resume"));
        std::fs::write(folder.path().join(CHECKPOINT_FILE), "x").unwrap();
        let mut stored = Config::from_preset("demo").unwrap();
        stored.optimiser.length = Length::Steps(60);

        let resumed = job(&["--resume", out], Some(stored.clone())).unwrap();
        assert!(resumed.resume && resumed.config == stored && resumed.out == folder.path());
        // The flags of the first run may stay on the line.
        let resumed = job(&["--steps", "60", "--out", out, "--resume"], Some(stored.clone())).unwrap();
        assert_eq!(resumed.config, stored);
        let resumed = job(&["--resume", out, "--log-every", "1"], Some(stored.clone())).unwrap();
        assert_eq!(resumed.config.run.log_every, 1);
        let refusal = job(&["--resume", out, "--lr", "0.1", "--steps", "70"], Some(stored.clone())).unwrap_err();
        assert!(refusal.to_string().contains("optimiser.length, optimiser.lr"), "{refusal}");

        let refusal = job(&["--resume", out, "--out", "elsewhere"], Some(stored.clone())).unwrap_err();
        assert!(refusal.to_string().contains("--out (run.out) names elsewhere"), "{refusal}");
        assert!(job(&["--resume", out, "--out", &format!("{out}/.")], Some(stored.clone())).is_ok());

        // What the device chose stays, also where the preset is on the line.
        (stored.run.winograd, stored.run.chosen) = (Winograd::On, vec!["winograd".into()]);
        let resumed = job(&["--preset", "demo", "--steps", "60", "--resume", out], Some(stored.clone())).unwrap();
        assert_eq!(resumed.config, stored);

        // Another budget is allowed: the micro-batches stay, what changes no number is chosen anew.
        let run = &mut stored.run;
        (run.memory_budget, run.batch_norm) = (Some(ByteSize(1 << 30)), BatchStatistics::Micro);
        (run.micro_batch, run.recompute, run.chosen) = (Some(4), 2, vec!["micro_batch".into(), "recompute".into()]);
        let resumed = job(&["--resume", out, "--memory-budget", "8GiB"], Some(stored.clone())).unwrap().config.run;
        assert_eq!((resumed.micro_batch, resumed.recompute), (Some(4), 0));
        assert_eq!(resumed.chosen, ["micro_batch"]);
        let refusal = job(&["--resume", out, "--micro-batch", "8"], Some(stored)).unwrap_err();
        assert!(refusal.to_string().contains("run.micro_batch"), "{refusal}");
    }

    #[test]
    fn the_folder_is_opened_whole() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/b");
        let job = job(&["--out", out.to_str().unwrap(), "--lr", "0.01"], None).unwrap();
        assert!(!out.exists(), "judging the flags writes nothing");
        drop(job.open_folder(&job.config).unwrap());
        assert_eq!(Config::from_layers(None, &out.join(CONFIG_FILE)).unwrap(), job.config);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);

        std::fs::write(out.join(CHECKPOINT_FILE), "old").unwrap();
        std::fs::write(out.join(METRICS_FILE), "old").unwrap();
        std::fs::write(out.join(".writing-x"), "half of a checkpoint").unwrap();
        drop(TrainJob { resume: true, ..job.clone() }.open_folder(&job.config).unwrap());
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
        let refusal = job.open_folder(&job.config).unwrap_err().to_string();
        assert!(refusal.contains("holds a run"), "a run that came after the flags were judged: {refusal}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3, "it is left as it is");
        let job = TrainJob { overwrite: true, ..job };
        let open = job.open_folder(&job.config).unwrap();
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "an older run's files go");
        #[cfg(unix)]
        assert!(job.open_folder(&job.config).unwrap_err().to_string().contains("another process"));
        drop(open);
    }

    #[test]
    fn a_result_reads_well() {
        let score = |shots, accuracy_pct| Score {
            classifier: "lr".into(),
            ways: 5,
            shots,
            queries: 15,
            episodes: 600,
            accuracy_pct,
            interval_pct: 0.84,
        };
        let outcome = TrainOutcome {
            checkpoint: "runs/demo/checkpoint.safetensors".into(),
            steps: 150,
            loss: Some(3.21),
            seconds: 185.0,
            images_per_second: 12.97,
            untrained: vec![score(1, 46.9), score(5, 64.7)],
            trained: vec![score(1, 69.2), score(5, 84.0)],
        };
        assert_eq!(
            outcome_text(&outcome),
            "5-way, novel classes  untrained     trained       gain\n\
             1-shot accuracy (lr)  46.9 ± 0.8 %  69.2 ± 0.8 %  +22.3\n\
             5-shot accuracy (lr)  64.7 ± 0.8 %  84.0 ± 0.8 %  +19.3\n\
             150 steps in 3 min 05 s, loss 3.2100, 13.0 images/s; saved runs/demo/checkpoint.safetensors"
        );
    }
}
