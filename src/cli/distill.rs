//! `distill`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{DistillArgs, checkpoint_file};
use super::engine::{self, TrainOutcome};
use super::report::Report;
use super::train::{free_folder, outcome_text};
use super::{interrupt, meets, percentage};
use crate::config::Config;
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
    /// The folder may hold a run, which this one replaces.
    pub overwrite: bool,
    /// Score the novel classes before and after.
    pub eval: bool,
}

impl DistillJob {
    /// Judges the flags; `stored` reads the configuration of a checkpoint.
    pub fn new(args: &DistillArgs, stored: impl FnOnce(&Path) -> Result<Config>) -> Result<DistillJob> {
        percentage(args.min_acc)?;
        let teacher = checkpoint_file(&args.teacher)?;
        let mut config = args.config.base(|| stored(&teacher))?;
        if args.config.preset.is_none() && args.config.config.is_none() {
            config.run.out = None;
        }
        args.config.apply(&mut config);
        args.distill.apply(&mut config);
        config.validate()?;
        let out = match config.run.out.take() {
            Some(out) => out,
            None => {
                let mut name = config.preset.clone().unwrap_or_else(|| "custom".into());
                name.push_str("-distilled");
                Path::new("runs").join(name)
            }
        };
        let job = DistillJob { config, teacher, out, overwrite: args.overwrite, eval: !args.no_eval };
        for generation in 1..=job.config.distill.generations {
            let folder = job.folder(generation);
            let student = folder.join(crate::config::CHECKPOINT_FILE);
            if let (Ok(a), Ok(b)) = (student.canonicalize(), job.teacher.canonicalize())
                && a == b
            {
                return Err(Error::data(folder, "this is the teacher's own folder: name another with --out"));
            }
            free_folder(&folder, args.overwrite)?;
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

    /// Creates the folder of `generation` and saves the configuration in it.
    pub fn open_folder(&self, generation: u32) -> Result<()> {
        super::train::open_folder(&self.folder(generation), &self.config)
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
    interrupt::install()?;
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
