//! `distill`.

use std::path::{Path, PathBuf};

use super::report::shell_word;
use super::settings::{ConfigFlags, DistillFlags};
use super::train::{RunFlags, next, text};
use super::{Context, interrupt, ranks};
use crate::Result;
use crate::files::run_folder::{Existing, checkpoint_file};
use crate::jobs::Stored;
use crate::jobs::distill::{self, DistillRequest};
use crate::jobs::score::meets;
use crate::settings::Config;

/// Train a student from a trained teacher
///
/// The student starts from fresh weights and learns from its own losses and from the teacher's outputs on the
/// same views. Its configuration is the teacher's, under --preset, --config and flags where given. A teacher that
/// --teacher-share trains first has the settings that `train` would have with the same flags, its students the same.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu distill --teacher runs/omniglot --generations 2 --out runs/omniglot-distilled"
)]
pub struct Args {
    /// Checkpoint or run folder of the teacher
    ///
    /// Of a run folder the network that validated best, or else the last one. A .pth of PyTorch's will do, too:
    /// `export --help` says how. Without it --teacher-share trains a teacher first.
    #[arg(long, value_name = "CHECKPOINT", help_heading = "Distillation")]
    teacher: Option<PathBuf>,
    /// Weights and temperature.
    #[command(flatten)]
    pub(super) distill: DistillFlags,
    /// The configuration.
    #[command(flatten)]
    config: ConfigFlags,
    /// Continue the run in the folder
    ///
    /// With the same --teacher and --out: finished generations stay, the one that was stopped continues bit for bit.
    /// --data may name another path to the same data.
    #[arg(long, help_heading = "Run", conflicts_with = "overwrite", hide_short_help = true)]
    resume: bool,
    /// Flags of every training run.
    #[command(flatten)]
    run: RunFlags,
}

impl Args {
    /// The students' settings over those of `base`, where no preset or file is named. Of `chosen`, a run that continues,
    /// what a recipe chose is kept.
    fn over(&self, chosen: Option<&Config>, base: impl FnOnce() -> Result<Config>) -> Result<Config> {
        let mut config = self.config.base(base)?;
        if let Some(chosen) = chosen {
            config.keep_reasoned(chosen);
        }
        if self.config.preset.is_none() && self.config.config.is_none() {
            config.run.out = None;
        }
        self.config.apply(&mut config)?;
        self.distill.apply(&mut config)?;
        Ok(config)
    }

    /// `read` reads a checkpoint.
    fn request(&self, read: impl Fn(&Path) -> Result<Stored>) -> Result<DistillRequest> {
        let teacher = self.teacher.as_deref().map(checkpoint_file).transpose()?;
        let mut stored = None;
        let (mut config, mut given) = match &teacher {
            Some(teacher) => {
                let of_teacher = || Ok(distill::without_beginning(stored.insert(read(teacher)?).config.clone()));
                (self.over(None, of_teacher)?, None)
            }
            None => {
                let (mut config, given) = self.config.wish()?;
                self.distill.apply(&mut config)?;
                (config, Some(given))
            }
        };
        if config.run.rows.is_some() {
            return Err(crate::Error::usage(
                "`run.rows` is for train, and a student has a length in steps: leave it out, of the file of settings, \
                 too, and give optimiser.length.steps instead",
            ));
        }
        if config.run.time.is_some() {
            return Err(crate::Error::usage(
                "`run.time` is for train, and a student has a length in steps: leave it out, of the file of settings, \
                 too, and give optimiser.length.steps instead",
            ));
        }
        let out = config.run.out.clone().unwrap_or_else(|| {
            Path::new("runs").join(format!("{}-distilled", config.preset.as_deref().unwrap_or("custom")))
        });
        // A resumed run takes its settings from itself: the flags that it began with need not be repeated.
        if self.resume
            && let Some(student) = distill::begun(&out)?
        {
            let begun = student.config.undivided();
            let chosen = Some(&begun).filter(|_| self.teacher.is_none());
            (config, given) = (self.over(chosen, || Ok(begun.clone()))?, None);
        }
        let source = teacher.as_ref().map_or(String::new(), |teacher| format!(" --teacher {}", shell_word(teacher)));
        let folder = shell_word(&out);
        Ok(DistillRequest {
            config,
            given,
            teacher,
            stored,
            out,
            existing: match (self.resume, self.run.overwrite) {
                (true, _) => Existing::Resume,
                (false, true) => Existing::Replace,
                (false, false) => Existing::Refuse,
            },
            score: !self.run.no_eval,
            min_acc: self.run.min_acc,
            resume_command: format!("ieq-wgpu distill --resume{source} --out {folder}"),
        })
    }
}

/// Trains the students and prints the result.
pub fn run(args: Args, context: &Context) -> Result<()> {
    ranks::refuse("distill")?;
    let request = args.request(Stored::open)?;
    context.interruptible(interrupt::TRAINING)?;
    let outcome = context.with_training(&args.run, |progress| distill::run(&request, &context.session, progress))?;
    let generations = &outcome.generations;
    let teacher_was_given = outcome.trained_teacher.is_none();
    context.report.result("distill", &outcome, || {
        let first = outcome.trained_teacher.iter().map(|outcome| format!("teacher\n{}", text(outcome)));
        let texts = generations.iter().enumerate().map(|(i, outcome)| match generations.len() {
            1 if teacher_was_given => text(outcome),
            _ => format!("generation {}\n{}", i + 1, text(outcome)),
        });
        first.chain(texts).collect::<Vec<_>>().join("\n\n")
    })?;
    if let Some(run) = generations.last().and_then(|last| last.checkpoint.parent()) {
        context.note(&next(run));
    }
    meets(request.min_acc, generations.last().map(|outcome| outcome.trained.as_slice()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::{Command, tests::parse};
    use super::*;
    use crate::train::checkpoint::Checkpoint;

    #[test]
    fn students_take_the_teachers_settings_and_folders_of_their_own() {
        let mut config = Config::from_preset("omniglot").unwrap();
        config.run.seed = 7;
        // What a budget chose for the teacher is not the student's.
        (config.run.recompute, config.run.chosen) = (3, vec!["recompute".into()]);
        let folder = tempfile::tempdir().unwrap();
        let teacher = folder.path().join("a.safetensors");
        std::fs::write(&teacher, "x").unwrap();
        let request = |words: &[&str]| {
            let words = [&["distill", "--teacher", teacher.to_str().unwrap()], words].concat();
            let Command::Distill(args) = parse(&words).unwrap().command else { panic!("not distill") };
            let stored = |file: &Path| {
                Ok(Stored {
                    file: file.into(),
                    checkpoint: Checkpoint::default(),
                    config: config.clone(),
                    support: None,
                })
            };
            args.request(stored).unwrap()
        };
        let one = request(&[]);
        assert_eq!((one.config.run.recompute, one.config.run.chosen.len()), (0, 0));
        assert_eq!((one.config.run.seed, one.folder(1)), (7, Path::new("runs/omniglot-distilled").into()));
        let two = request(&["--generations", "2", "--out", "b"]);
        assert_eq!((two.folder(1), two.folder(2)), ("b/generation-1".into(), "b/generation-2".into()));
        assert_eq!(two.config.distill.generations, 2);
    }

    /// A time is refused wherever it is said; without a teacher, data alone puts a recipe in force, as in `train`.
    #[test]
    fn a_teacher_that_is_trained_first_has_the_settings_of_train() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("timed.toml");
        std::fs::write(&file, "preset = \"demo\"\n[run]\ntime = \"5m\"").unwrap();
        let request = |words: &[&str]| {
            let words = [&["distill", "--teacher-share", "0.4"], words].concat();
            let Command::Distill(args) = parse(&words).unwrap().command else { panic!("not distill") };
            args.request(|_| panic!("there is no teacher"))
        };
        let refusal = request(&["--rows", "500"]).unwrap_err().to_string();
        assert!(refusal.contains("run.rows") && refusal.contains("optimiser.length.steps"), "{refusal}");
        for words in [&["--config", file.to_str().unwrap()][..], &["--time", "5m"]] {
            let refusal = request(words).unwrap_err().to_string();
            assert!(refusal.contains("run.time") && refusal.contains("optimiser.length.steps"), "{refusal}");
        }
        let demo = request(&["--steps", "9"]).unwrap();
        assert_eq!((demo.config.preset.as_deref(), demo.given.unwrap().recipe), (Some("demo"), false));
        let own = request(&["--data", "photos", "--steps", "9"]).unwrap();
        assert_eq!((own.config.preset, own.config.distill.teacher_share), (None, 0.4));
        assert!(own.given.unwrap().recipe);
    }
}
