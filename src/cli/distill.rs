//! `distill`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{DistillArgs, checkpoint_file};
use super::engine::{self, TrainOutcome};
use super::report::Report;
use super::train::{OpenFolder, free_folder, open_folder, outcome_text, same_settings};
use super::{Scoring, interrupt, meets, percentage, same_path};
use crate::settings::{CHECKPOINT_FILE, Config};
use crate::{Error, Result};

/// Generations of students with judged settings.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillJob {
    /// The students' settings; `run.out` is always none.
    pub config: Config,
    /// The first teacher's checkpoint.
    pub teacher: PathBuf,
    /// The run folder: of the only generation, or with a folder `generation-N` for each of several.
    pub out: PathBuf,
    /// Continue the generation that the folder stopped in; those before it are done.
    pub resume: bool,
    /// The folder may hold a run, which this one replaces.
    pub overwrite: bool,
    /// Whether the novel classes are scored before and after.
    pub scoring: Scoring,
}

impl DistillJob {
    /// Judges the flags; `stored` reads the configuration of a checkpoint.
    pub fn new(args: &DistillArgs, stored: impl Fn(&Path) -> Result<Config>) -> Result<DistillJob> {
        percentage(args.min_acc)?;
        let teacher = checkpoint_file(&args.teacher)?;
        let resolve = |base: &Path| -> Result<Config> {
            let mut config = args.config.base(|| stored(base))?;
            if args.config.preset.is_none() && args.config.config.is_none() {
                config.run.out = None;
            }
            args.config.apply(&mut config)?;
            args.distill.apply(&mut config)?;
            config.validate()?;
            Ok(config)
        };
        let mut config = resolve(&teacher)?;
        let out = match config.run.out.take() {
            Some(out) => out,
            None => {
                let mut name = config.preset.clone().unwrap_or_else(|| "custom".into());
                name.push_str("-distilled");
                Path::new("runs").join(name)
            }
        };
        // A resumed run takes its settings from itself: the flags that it began with need not be repeated.
        let begun = [out.clone(), out.join("generation-1")].map(|folder| folder.join(CHECKPOINT_FILE));
        if args.resume
            && let Some(student) = begun.iter().find(|file| file.is_file())
        {
            config = resolve(student)?;
            config.run.out = None;
        }
        let scoring = Scoring::of(args.no_eval, args.min_acc);
        let mut job = DistillJob { config, teacher, out, resume: args.resume, overwrite: args.overwrite, scoring };
        let mut resumable = false;
        for generation in 1..=job.config.distill.generations {
            let folder = job.folder(generation);
            let student = folder.join(CHECKPOINT_FILE);
            if same_path(&student, &job.teacher) {
                return Err(Error::data(folder, "this is the teacher's own folder: name another with --out"));
            }
            if job.resume && student.is_file() {
                let stored = stored(&student)?;
                job.config.keep_choices(&stored);
                same_settings(&job.config, &stored, &folder)?;
                resumable = true;
            } else {
                free_folder(&folder, args.overwrite)?;
            }
        }
        if job.resume && !resumable {
            return Err(Error::data(
                &job.out,
                "there is no run to resume here: --out names the folder of one that has saved a checkpoint",
            ));
        }
        Ok(job)
    }

    /// The run folder of `generation`, counted from 1.
    pub fn folder(&self, generation: u32) -> PathBuf {
        match self.config.distill.generations {
            1 => self.out.clone(),
            _ => self.out.join(format!("generation-{generation}")),
        }
    }

    /// Creates the folder of `generation` and saves the configuration in it; a resumed job calls this for
    /// the generations that it begins or continues, with `resume` for the latter.
    /// `config`: the settings in effect.
    pub fn open_folder(&self, config: &Config, generation: u32, resume: bool) -> Result<OpenFolder> {
        open_folder(&self.folder(generation), config, resume, self.overwrite)
    }
}

#[derive(Serialize)]
struct Body<'a> {
    teacher: &'a Path,
    generations: &'a [TrainOutcome],
}

/// Trains the students and prints the result.
pub fn run(args: &DistillArgs, adapter: Option<&str>, report: Report) -> Result<()> {
    let job = DistillJob::new(args, engine::checkpoint_config)?;
    interrupt::install(interrupt::TRAINING)?;
    let mut live = report.live();
    let outcomes = engine::distill(&job, adapter, &mut live);
    live.finish();
    let outcomes = outcomes?;
    report.result("distill", &Body { teacher: &job.teacher, generations: &outcomes }, || {
        let several = outcomes.len() > 1;
        let texts = outcomes.iter().enumerate().map(|(i, outcome)| match several {
            true => format!("generation {}\n{}", i + 1, outcome_text(outcome)),
            false => outcome_text(outcome),
        });
        texts.collect::<Vec<_>>().join("\n\n")
    })?;
    meets(args.min_acc, outcomes.last().map(|outcome| outcome.trained.as_slice()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn job(words: &[&str], stored: &Config) -> Result<DistillJob> {
        use clap::FromArgMatches;
        let words = [&["ieq-wgpu", "distill", "--teacher"], words].concat();
        let matches = super::super::args::command()?.get_matches_from(words);
        match super::super::args::Cli::from_arg_matches(&matches).unwrap().command {
            super::super::args::Command::Distill(args) => DistillJob::new(&args, |_| Ok(stored.clone())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn students_take_the_teachers_settings_and_folders_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let teacher = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join(CHECKPOINT_FILE), "x").unwrap();
        let mut stored = Config::from_preset("omniglot").unwrap();
        stored.run.seed = 7;
        // What a budget chose for the teacher is not the student's.
        (stored.run.recompute, stored.run.chosen) = (3, vec!["recompute".into()]);

        let one = job(&[teacher], &stored).unwrap();
        assert_eq!((one.config.run.recompute, one.config.run.chosen.len()), (0, 0));
        assert_eq!((one.config.run.seed, one.folder(1)), (7, Path::new("runs/omniglot-distilled").into()));
        let out = folder.path().join("students");
        let two = job(&[teacher, "--generations", "2", "--out", out.to_str().unwrap()], &stored).unwrap();
        assert_eq!((two.folder(1), two.folder(2)), (out.join("generation-1"), out.join("generation-2")));
        assert_eq!(two.config.distill.generations, 2);
        assert!(job(&[teacher, "--out", teacher], &stored).unwrap_err().to_string().contains("teacher's own"));
    }

    #[test]
    fn a_stopped_generation_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CHECKPOINT_FILE), "x").unwrap();
        let teacher = folder.path().to_str().unwrap();
        let out = folder.path().join("students");
        let words = [teacher, "--generations", "2", "--out", out.to_str().unwrap()];
        let short = [teacher, "--resume", "--out", out.to_str().unwrap()];
        let mut stored = Config::from_preset("omniglot").unwrap();
        stored.distill.generations = 2;
        let resume = |more: &[&str], stored: &Config| job(&[&words[..], &["--resume"], more].concat(), stored);

        assert!(resume(&[], &stored).unwrap_err().to_string().contains("no run to resume"));
        let made = job(&words, &stored).unwrap();
        drop(made.open_folder(&made.config, 1, false).unwrap());
        std::fs::write(out.join("generation-1").join(CHECKPOINT_FILE), "x").unwrap();
        assert!(job(&words, &stored).unwrap_err().to_string().contains("holds a run"));
        assert!(resume(&[], &stored).unwrap().resume);
        assert_eq!(job(&short, &stored).unwrap().config.distill.generations, 2);
        assert!(resume(&["--mse-feature", "0"], &stored).unwrap_err().to_string().contains("distill.mse_feature"));
    }
}
