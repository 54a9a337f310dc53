//! `distill`: students of a trained teacher, each the teacher of the next. The teacher is given, or trained first with a
//! share of the steps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::fit::Given;
use super::stored::Stored;
use super::train::{self, Begin, TrainOutcome, TrainRequest, check_resumable};
use super::{Session, percentage, same_path};
use crate::error::Change;
use crate::files::run_folder::{CHECKPOINT_FILE, Existing, check_free, checkpoint_file};
use crate::progress::Progress;
use crate::settings::Config;
use crate::train::Teacher;
use crate::train::checkpoint::Checkpoint;
use crate::train::recipe::is_given;
use crate::{Error, Result};

/// Generations of students.
#[derive(Clone, Debug, PartialEq)]
pub struct DistillRequest {
    /// The students' settings, and those of a teacher that is trained first; `run.out` has no effect.
    pub config: Config,
    /// What of the settings was given, so that the recipe may choose the rest for a teacher that is trained here; its
    /// students then have what it has. None: they are used as they are.
    pub given: Option<Given>,
    /// The first teacher's checkpoint, or the run folder that holds it. None: it is trained in the folder `teacher`, with
    /// `distill.teacher_share` of the steps, and the students share the rest.
    pub teacher: Option<PathBuf>,
    /// The first teacher, where the caller has read it already.
    pub stored: Option<Stored>,
    /// The run folder: of the only generation of a given teacher, or with a folder `generation-N` for each.
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
    /// The first teacher's training, where it was trained here.
    pub trained_teacher: Option<TrainOutcome>,
    /// Each generation, the first one first.
    pub generations: Vec<TrainOutcome>,
}

/// The folder of a teacher that is trained here.
const TEACHER: &str = "teacher";

/// The first network in the folder of an earlier call that has saved a checkpoint, if any.
///
/// # Errors
/// [`Error::Data`] when it cannot be read.
pub fn begun(out: &Path) -> Result<Option<Stored>> {
    let folders = [out.to_owned(), out.join(TEACHER), out.join("generation-1")];
    let mut files = folders.iter().map(|folder| folder.join(CHECKPOINT_FILE));
    files.find(|file| file.is_file()).map(|file| Stored::open(&file)).transpose()
}

/// A teacher's settings for a student: without what the teacher started from, and what chose its length.
pub fn without_beginning(mut config: Config) -> Config {
    let unset = Config::default();
    (config.run.init, config.run.time, config.run.rows) = (None, None, None);
    (config.distill.teacher_share, config.distill.whole) = (unset.distill.teacher_share, None);
    (config.optimiser.freeze, config.optimiser.backbone_rate) = (unset.optimiser.freeze, unset.optimiser.backbone_rate);
    config
}

/// A network that the job trains.
struct Stage {
    folder: PathBuf,
    config: Config,
    begin: Begin,
}

impl DistillRequest {
    /// The run folder of `generation`, counted from 1.
    pub fn folder(&self, generation: u32) -> PathBuf {
        match (self.config.distill.generations, &self.teacher) {
            (1, Some(_)) => self.out.clone(),
            _ => self.out.join(format!("generation-{generation}")),
        }
    }

    /// What was given, where a recipe chooses the rest for a teacher that is trained here.
    fn recipe(&self) -> Option<&Given> {
        self.given.as_ref().filter(|given| given.recipe && self.teacher.is_none())
    }

    /// Validates the request: the teacher where it is trained here, and then the students, each with its beginning.
    fn stages(&self, progress: &mut dyn Progress) -> Result<Vec<Stage>> {
        percentage(self.min_acc)?;
        let teacher = self.teacher.as_deref().map(checkpoint_file).transpose()?;
        self.config.validate()?;
        self.given.as_ref().map_or(Ok(()), |given| given.check_statistics(&self.config))?;
        if teacher.is_some() && self.config.distill.teacher_share > 0.0 {
            return Err(Error::Conflict {
                keys: vec!["distill.teacher_share"],
                why: "`request.teacher` names a teacher, and distill.teacher_share trains one".into(),
                changes: vec![Change::Unset("distill.teacher_share")],
            });
        }
        if let Some(given) = self.recipe()
            && !is_given(&given.layer, "optimiser.length")
        {
            return Err(Error::Conflict {
                keys: vec!["distill.teacher_share"],
                why: "the recipe chooses no length that a teacher and its students share: say how many steps there are in \
                      all"
                    .into(),
                changes: vec![Change::Set("optimiser.length.steps", "4000".into())],
            });
        }
        let (first, student) = match &teacher {
            Some(_) => (None, self.config.clone()),
            None => {
                let (first, student) = self.config.divided()?;
                (Some((self.out.join(TEACHER), first)), student)
            }
        };
        let students = (1..=self.config.distill.generations).map(|n| (self.folder(n), student.clone()));
        let mut stages = Vec::new();
        for (folder, mut config) in first.into_iter().chain(students) {
            let saved = folder.join(CHECKPOINT_FILE);
            if teacher.as_ref().and_then(|teacher| teacher.parent()).is_some_and(|own| same_path(own, &folder)) {
                return Err(Error::data(folder, "this is the teacher's own folder: name another with `request.out`"));
            }
            let begin = if self.existing == Existing::Resume && saved.is_file() {
                let stored = Stored::open(&saved)?;
                // What was chosen for it before is kept.
                config.keep_choices(&stored.config);
                check_resumable(&config, &stored, progress)?;
                Begin::Resume(Box::new(stored))
            } else {
                let existing = if self.existing == Existing::Replace { Existing::Replace } else { Existing::Refuse };
                check_free(&folder, existing)?;
                if existing == Existing::Replace { Begin::Overwrite } else { Begin::New }
            };
            stages.push(Stage { folder, config, begin });
        }
        if self.existing == Existing::Resume && !stages.iter().any(|stage| matches!(stage.begin, Begin::Resume(_))) {
            return Err(Error::data(
                &self.out,
                "there is no run to resume here: `request.out` names the folder of one that has saved a checkpoint",
            ));
        }
        Ok(stages)
    }

    /// Trains one network; `given`: what a recipe may not choose for it.
    fn train(
        &self,
        stage: Stage,
        given: Option<&Given>,
        teacher: Option<Arc<Teacher>>,
        session: &Session,
        progress: &mut dyn Progress,
    ) -> Result<TrainOutcome> {
        let Stage { folder, config, begin } = stage;
        let one = TrainRequest {
            config,
            given: given.cloned(),
            out: folder,
            begin,
            score: self.score,
            min_acc: self.min_acc,
            resume_command: self.resume_command.clone(),
        };
        train::train(&one, teacher, session, progress, None)
    }
}

/// The network of a checkpoint as a teacher.
fn teacher(path: PathBuf) -> Result<Arc<Teacher>> {
    let weights = Checkpoint::load(&path)?;
    Ok(Arc::new(Teacher { path, weights }))
}

/// Trains the generations one after the other.
///
/// # Errors
/// As [`train::run`], and where a folder is the teacher's own.
pub fn run(request: &DistillRequest, session: &Session, progress: &mut dyn Progress) -> Result<DistillOutcome> {
    let mut stages = request.stages(progress)?;
    let (mut first, trained_teacher) = match &request.teacher {
        Some(path) => {
            let Stored { file, checkpoint, .. } = request.stored.clone().map_or_else(|| Stored::open(path), Ok)?;
            (Arc::new(Teacher { path: file, weights: checkpoint }), None)
        }
        None => {
            progress.note("training the teacher");
            let outcome = request.train(stages.remove(0), request.recipe(), None, session, progress)?;
            if request.recipe().is_some() {
                // What was chosen for the teacher is its students'.
                let (_, student) = Stored::open(&outcome.checkpoint)?.config.as_given()?.undivided().divided()?;
                stages.iter_mut().for_each(|stage| stage.config = student.clone());
            }
            (teacher(outcome.kept().to_owned())?, Some(outcome))
        }
    };
    let path = first.path.clone();
    let mut generations: Vec<TrainOutcome> = Vec::new();
    for (stage, generation) in stages.into_iter().zip(1..) {
        if let Some(last) = generations.last() {
            first = teacher(last.kept().to_owned())?;
        }
        progress.note(&format!("generation {generation}: the teacher is {}", first.path.display()));
        generations.push(request.train(stage, None, Some(first.clone()), session, progress)?);
    }
    Ok(DistillOutcome { teacher: path, trained_teacher, generations })
}
