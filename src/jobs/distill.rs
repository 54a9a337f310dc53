//! `distill`: students of a trained teacher, each the teacher of the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::stored::Stored;
use super::train::{self, Begin, TrainOutcome, TrainRequest, check_resumable};
use super::{Session, percentage, same_path};
use crate::files::run_folder::{CHECKPOINT_FILE, Existing, check_free, checkpoint_file};
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::Teacher;
use crate::train::checkpoint::Checkpoint;
use crate::{Error, Result};

/// Generations of students.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillRequest {
    /// The students' settings; `run.out` has no effect.
    pub config: Config,
    /// The first teacher's checkpoint, or the run folder that holds it.
    pub teacher: PathBuf,
    /// The first teacher, where the caller has read it already.
    pub stored: Option<Stored>,
    /// The run folder: of the only generation, or with a folder `generation-N` for each of several.
    pub out: PathBuf,
    /// What happens to generations that the folder holds; with [`Existing::Resume`] finished ones stay, and the one
    /// that was stopped continues.
    pub existing: Existing,
    /// Whether the networks are scored on the novel classes before and after.
    pub score: bool,
    /// Accuracy that the first score of the last generation is to reach, percent.
    pub min_acc: Option<f64>,
    /// What the user is told continues the job when it is stopped.
    pub resume_command: String,
}

/// The students.
#[derive(Clone, Debug, Serialize)]
pub struct DistillOutcome {
    /// The first teacher's checkpoint.
    pub teacher: PathBuf,
    /// Each generation, the first one first.
    pub generations: Vec<TrainOutcome>,
}

/// The first student in the folder of an earlier call that has saved a checkpoint, if any.
///
/// # Errors
/// [`Error::Data`] when it cannot be read.
pub fn begun(out: &Path) -> Result<Option<Stored>> {
    let folders = [out.to_owned(), out.join("generation-1")];
    folders.iter().find(|folder| folder.join(CHECKPOINT_FILE).is_file()).map(|folder| Stored::open(folder)).transpose()
}

impl DistillRequest {
    /// The run folder of `generation`, counted from 1.
    pub fn folder(&self, generation: u32) -> PathBuf {
        match self.config.distill.generations {
            1 => self.out.clone(),
            _ => self.out.join(format!("generation-{generation}")),
        }
    }

    /// Validates the request: how each generation begins.
    fn begins(&self, progress: &mut dyn Progress) -> Result<Vec<Begin>> {
        percentage(self.min_acc)?;
        let teacher = checkpoint_file(&self.teacher)?;
        self.config.validate()?;
        let mut begins = Vec::new();
        for generation in 1..=self.config.distill.generations {
            let folder = self.folder(generation);
            let student = folder.join(CHECKPOINT_FILE);
            if same_path(&student, &teacher) {
                return Err(Error::data(folder, "this is the teacher's own folder: name another with `request.out`"));
            }
            begins.push(if self.existing == Existing::Resume && student.is_file() {
                let stored = Stored::open(&folder)?;
                check_resumable(&self.config_of(Some(&stored)), &stored, progress)?;
                Begin::Resume(Box::new(stored))
            } else {
                let existing = if self.existing == Existing::Replace { Existing::Replace } else { Existing::Refuse };
                check_free(&folder, existing)?;
                if existing == Existing::Replace { Begin::Overwrite } else { Begin::New }
            });
        }
        if self.existing == Existing::Resume && !begins.iter().any(|begin| matches!(begin, Begin::Resume(_))) {
            return Err(Error::data(
                &self.out,
                "there is no run to resume here: `request.out` names the folder of one that has saved a checkpoint",
            ));
        }
        Ok(begins)
    }

    /// The settings of a generation, which keeps what was chosen for it before.
    fn config_of(&self, stored: Option<&Stored>) -> Config {
        let mut config = self.config.clone();
        if let Some(stored) = stored {
            config.keep_choices(&stored.config);
        }
        config
    }
}

/// Trains the generations one after the other.
///
/// # Errors
/// As [`train::run`], and where a folder is the teacher's own.
pub fn run(request: &DistillRequest, session: &Session, progress: &mut dyn Progress) -> Result<DistillOutcome> {
    let mut outcomes = Vec::new();
    let begins = request.begins(progress)?;
    let Stored { file, checkpoint, .. } = request.stored.clone().map_or_else(|| Stored::open(&request.teacher), Ok)?;
    let mut teacher = Arc::new(Teacher { path: file.clone(), weights: checkpoint });
    for (begin, generation) in begins.into_iter().zip(1..) {
        progress.note(&format!("generation {generation}: the teacher is {}", teacher.path.display()));
        let one = TrainRequest {
            config: request.config_of(begin.stored()),
            given: None,
            out: request.folder(generation),
            begin,
            score: request.score,
            min_acc: request.min_acc,
            resume_command: request.resume_command.clone(),
        };
        let outcome = train::train(&one, Some(teacher.clone()), session, progress, None)?;
        if generation < request.config.distill.generations {
            let weights = Checkpoint::load(&outcome.checkpoint)?;
            teacher = Arc::new(Teacher { path: outcome.checkpoint.clone(), weights });
        }
        outcomes.push(outcome);
    }
    Ok(DistillOutcome { teacher: file, generations: outcomes })
}
