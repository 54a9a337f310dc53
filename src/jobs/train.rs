//! `train`: one network in one run folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::fit::{Fit, Given, Run, Timing, described, load};
use super::pace::Pace;
use super::plan::{self, PlanOutcome};
use super::report::{Finished, RunReport};
use super::score::{Score, embed_and_score, novel_classes, score_run};
use super::stored::Stored;
use super::validate::{self, Best};
use super::{Session, init, moved, percentage, reference, same_path, tuning, warn_of};
use crate::data::Statistics;
use crate::files::run_folder::{self, CHECKPOINT_FILE, CONFIG_FILE, Existing};
use crate::progress::Progress;
use crate::ranks::Ranks;
use crate::settings::{ByteSize, Config, Matrix, Tune, may_change_on_resume, setting};
use crate::train::init::TakenOver;
use crate::train::recipe::{self, Choice};
use crate::train::record::{DataShape, validate};
use crate::train::run::run_reopening;
use crate::train::{Teacher, Trainer};
use crate::{Error, Result};

/// A training run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainRequest {
    /// The settings. `run.out` has no effect: equal runs in two folders have equal checkpoints.
    pub config: Config,
    /// What of the settings was given, so that the recipe and `run.time` may choose the rest; none: they are used as they
    /// are. Has no effect on a run that continues.
    pub given: Option<Given>,
    /// The run folder.
    pub out: PathBuf,
    /// What happens to a run that the folder holds.
    pub begin: Begin,
    /// Whether the network is scored on the novel classes before and after.
    pub score: bool,
    /// Accuracy that the first score of the trained network is to reach, percent: then there must be a score.
    pub min_acc: Option<f64>,
    /// What the user is told continues the run when it is stopped.
    pub resume_command: String,
}

/// How a run begins.
#[derive(Clone, Debug, PartialEq)]
pub enum Begin {
    /// In a folder without a run.
    New,
    /// In a folder whose run it replaces.
    Overwrite,
    /// At the folder's checkpoint.
    Resume(Box<Stored>),
}

impl Begin {
    /// Continues the run in `out`.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, or its checkpoint cannot be read.
    pub fn resume(out: &Path) -> Result<Begin> {
        if !out.join(CHECKPOINT_FILE).is_file() {
            return Err(Error::data(
                out,
                "there is no run to resume here: name the folder of one that has saved a checkpoint",
            ));
        }
        Ok(Begin::Resume(Box::new(Stored::open(&out.join(CHECKPOINT_FILE))?)))
    }

    fn existing(&self) -> Existing {
        match self {
            Begin::New => Existing::Refuse,
            Begin::Overwrite => Existing::Replace,
            Begin::Resume(_) => Existing::Resume,
        }
    }

    /// What is resumed, if anything.
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            Begin::Resume(stored) => Some(stored),
            _ => None,
        }
    }
}

/// A finished training run.
#[derive(Clone, Debug, Serialize)]
pub struct TrainOutcome {
    /// The final checkpoint.
    pub checkpoint: PathBuf,
    /// The settings that were chosen, each with its reason.
    pub chosen: Vec<Choice>,
    /// How the run was fitted into its time, where it has one.
    pub timing: Option<Timing>,
    /// Wall time of the whole job, seconds.
    pub job_seconds: f64,
    /// Steps that are done: all of the run, or fewer where it was ended.
    pub steps: u32,
    /// Why the run was ended before its last step, where it was.
    pub ended: Option<String>,
    /// The network that validated best, where the run was validated.
    pub best: Option<Best>,
    /// Last loss; none where no step was left to do and the run's metrics are gone.
    pub loss: Option<f64>,
    /// Wall time of this process's share of the steps, seconds.
    pub seconds: f64,
    /// Images per second over these steps.
    pub images_per_second: f64,
    /// What this call took over from `run.init`.
    pub init: Option<TakenOver>,
    /// Scores of the initial network on the novel classes, 1-shot by logistic regression first; empty where the
    /// run is not scored, and where it was resumed and had started from another network.
    pub untrained: Vec<Score>,
    /// Scores of the trained network, in the same order: of the best one, where the run was validated.
    pub trained: Vec<Score>,
    /// Scores of the last network, where that is not the best.
    pub last: Vec<Score>,
}

impl TrainOutcome {
    /// The checkpoint of the network that `trained` is of.
    pub fn kept(&self) -> &Path {
        self.best.as_ref().map_or(&self.checkpoint, |best| &best.checkpoint)
    }
}

/// Trains, and scores the novel classes before and after where the request says so.
///
/// # Errors
/// Settings or data that cannot be used; a folder that holds another run; what the device refuses; a run that was
/// stopped, with what is saved of it.
pub fn run(request: &TrainRequest, session: &Session, progress: &mut dyn Progress) -> Result<TrainOutcome> {
    run_explained(request, session, progress, None)
}

/// Who is shown a plan.
pub type Explain<'a> = &'a mut dyn FnMut(&PlanOutcome) -> Result<()>;

/// As [`run`]; `explain` is given the plan of a step on the device that trains before the first step.
///
/// # Errors
/// As [`run`], and those of `explain`.
pub fn run_explained(
    request: &TrainRequest,
    session: &Session,
    progress: &mut dyn Progress,
    explain: Option<Explain>,
) -> Result<TrainOutcome> {
    let ranks = session.ranks.as_ref().map_or(1, Ranks::size);
    let result = check(request, ranks, progress).and_then(|()| train(request, None, session, progress, explain));
    result.map_err(|error| match &session.ranks {
        Some(ranks) => super::ranks::leave(ranks, error),
        None => error,
    })
}

/// Refuses a request before any work.
fn check(request: &TrainRequest, ranks: usize, progress: &mut dyn Progress) -> Result<()> {
    percentage(request.min_acc)?;
    request.config.validate()?;
    if let Some(given) = &request.given {
        given.check(&request.config, ranks)?;
    }
    if let (Some(other), Begin::Resume(_)) = (&request.config.run.out, &request.begin)
        && !same_path(other, &request.out)
    {
        return Err(Error::usage(format!(
            "`request.resume` goes on in {}, and `run.out` names {}: leave one of them out",
            request.out.display(),
            other.display()
        )));
    }
    run_folder::check_free(&request.out, request.begin.existing())?;
    if let Some(stored) = request.begin.stored() {
        check_resumable(&request.config, stored, progress)?;
    }
    Ok(())
}

/// Refuses to continue `stored` with settings that change its numbers, and where its folder's configuration was edited.
pub(super) fn check_resumable(config: &Config, stored: &Stored, progress: &mut dyn Progress) -> Result<()> {
    let changed = decisive(config.differences(&stored.config));
    if !changed.is_empty() {
        let changed: Vec<_> = changed.into_iter().map(|key| in_the_form_of(config, key)).collect();
        return Err(other_settings(stored, &changed.join(", ")));
    }
    let file = stored.file.with_file_name(CONFIG_FILE);
    if !file.is_file() {
        return Ok(());
    }
    let edited = Config::from_layers(None, &file).map_err(|error| match error {
        Error::Data { path, message } => {
            Error::data(path, format!("{message}; correct it or delete it: the settings are in the checkpoint, too"))
        }
        other => other,
    })?;
    let edited = edited.differences(&stored.config);
    let changed = decisive(edited.clone());
    if !changed.is_empty() {
        return Err(Error::data(
            file,
            format!(
                "it differs from the checkpoint in {}, and a run continues with the settings of its checkpoint: change \
                 it back, or start a new run from it with `request.config` and `request.out`",
                changed.join(", ")
            ),
        ));
    }
    // A path as the run was begun with is as good as another one to the same data.
    let unused: Vec<_> = edited.into_iter().filter(|key| !PATHS.contains(key)).collect();
    if !unused.is_empty() {
        progress.warn(&format!(
            "{} differs from the checkpoint, whose settings count: {}; flags change them",
            file.display(),
            unused.join(", ")
        ));
    }
    Ok(())
}

/// Where the data lies, and the network that the run started from: another place is fine as long as it holds the same.
const PATHS: [&str; 3] = ["data.source", "data.split_file", "run.init"];

/// Those of `keys` that decide a run's numbers. Of files their fingerprint counts, not their path.
fn decisive(mut keys: Vec<&'static str>) -> Vec<&'static str> {
    keys.retain(|key| !may_change_on_resume(key) && !PATHS.contains(key));
    keys
}

/// A setting as it is set in `config`: a length in steps is not one in epochs.
fn in_the_form_of(config: &Config, key: &'static str) -> &'static str {
    if key == "preset" {
        return "`request.preset`";
    }
    let Some(row) = setting(key) else { return key };
    let shown = row.shown(config);
    let form = row.flags.iter().find(|flag| !flag.form.is_empty() && shown.split(' ').next() == Some(flag.form));
    form.map_or(key, |flag| flag.form_key)
}

fn other_settings(stored: &Stored, what: &str) -> Error {
    Error::usage(format!(
        "`request.resume` goes on with the settings of {}, and this call changes {what}: leave them out, or start a new \
         run with `request.out`",
        stored.folder().display(),
    ))
}

/// What config.toml is to hold: of a resumed run its own text, with comments and order, where it means the same.
fn config_text(config: &Config, folder: &Path, resumed: bool) -> Result<String> {
    let file = folder.join(CONFIG_FILE);
    let same = resumed && Config::from_layers(None, &file).is_ok_and(|own| own == *config);
    match std::fs::read_to_string(&file) {
        Ok(text) if same => Ok(text),
        _ => config.to_toml(),
    }
}

/// The interruption of a run's scoring, with what is saved of the run.
fn interrupted(error: Error, saved: impl FnOnce() -> String) -> Error {
    match error {
        Error::Interrupted(_) => Error::Interrupted(saved()),
        other => other,
    }
}

/// Trains one network, a student where there is a teacher; the request was validated.
pub(super) fn train(
    request: &TrainRequest,
    teacher: Option<Arc<Teacher>>,
    session: &Session,
    progress: &mut dyn Progress,
    explain: Option<Explain>,
) -> Result<TrainOutcome> {
    let started = Instant::now();
    let (folder, begun) = (&request.out, request.begin.stored());
    let mut config = request.config.clone();
    config.run.out = None;
    init::check(&config)?;
    let ranks = session.ranks.as_ref();
    if ranks.is_some() && teacher.is_some() {
        return Err(Error::usage("several ranks train a network without a teacher: start one process"));
    }
    // A run that continues was fitted when it began.
    let given = request.given.as_ref().filter(|_| begun.is_none());
    match (ranks, begun) {
        (Some(ranks), None) => super::ranks::check(&config, given, ranks.size())?,
        (Some(ranks), Some(_)) => super::ranks::check_split(&config, ranks.size())?,
        (None, _) => {}
    }
    let mut fit = Fit::default();
    init::resolve(&mut config, progress)?;
    let given = init::given(&mut config, given, &mut fit.choices)?;
    let given = given.as_ref();
    let asked = config.run.matrix;
    let open_with = |goes_on: bool, matrix: Matrix, progress: &mut dyn Progress| {
        let mut kernels = session.open(request.config.run.tune, matrix, progress).map_err(|error| match error {
            // Without units the run would have other numbers: no setting is a remedy.
            Error::Conflict { keys, why, .. } if begun.is_some() && keys == ["run.matrix"] => Error::usage(format!(
                "{why}, and the run was begun with run.matrix = {matrix}: resume on a device that has such units, or start a \
                 new run with `request.out`"
            )),
            other => other,
        })?;
        if goes_on && matches!(request.config.run.tune, Tune::Auto | Tune::Quick) {
            tuning::take(&mut kernels, folder);
        }
        Ok(kernels)
    };
    let open = |goes_on: bool, progress: &mut dyn Progress| open_with(goes_on, asked, progress);
    let mut kernels = match given.filter(|given| given.needs_device(&config)) {
        Some(_) => Some(open(false, progress)?),
        None => None,
    };
    let software = kernels.as_ref().is_some_and(|kernels| kernels.gpu().is_software());
    let source = config.data.source.clone();
    let data = load(&config, given, software).map_err(|error| match begun {
        Some(_) => moved(error, &source, "data.source"),
        None => error,
    })?;
    let data = Arc::new(data);
    let run = given.map(|given| Run { given, data: &data, novel: None, validation: None, begun: started });
    if let Some(run) = &run {
        run.settings(&mut config, software, &mut fit)?;
    }
    if let Some(ranks) = ranks.filter(|_| begun.is_none()) {
        super::ranks::split(&mut config, given, ranks.size(), &mut fit)?;
    }
    let shape = DataShape::of(&data);
    // Data at another place must be the run's all the same.
    let moved = begun.filter(|stored| stored.config.data.source != *source);
    let other_data = |error: Error| match (moved, error) {
        (
            Some(stored),
            error @ (Error::Data { .. }
            | Error::Usage(_)
            | Error::Shape { .. }
            | Error::Setting { .. }
            | Error::Conflict { .. }),
        ) => other_settings(stored, &format!("data.source to other data ({error})")),
        (_, error) => error,
    };
    validate(&config, shape).map_err(other_data)?;
    warn_of(&data, progress);
    let novel = match request.score {
        true => novel_classes(&config, data.side, request.min_acc.is_some(), progress)?,
        false => None,
    };
    progress.note(&described(&source, &data));
    if config.preset.is_some() && begun.is_none() && teacher.is_none() {
        recipe::mismatches(&config, &Statistics::of(&data)).iter().for_each(|sentence| progress.warn(sentence));
    }
    let mut validation = None;
    if let (Some(run), Some(kernels)) = (run, kernels.as_mut()) {
        if config.run.time.is_some() {
            validation = Some(validate::classes(&config, shape.side)?);
        }
        let images = validation.as_ref().and_then(|classes| classes.as_ref().ok()).map(|(images, _)| images);
        let run = Run { novel: novel.as_ref(), validation: images, ..run };
        run.time(&mut config, kernels, session.cache.as_deref(), &mut fit, progress)?;
        // Together they must pass what each passed alone.
        config.validate()?;
        validate(&config, shape)?;
    }
    fit.choices.iter().for_each(|choice| progress.note(&choice.to_string()));
    let config = &config;
    let distill = teacher.is_some();
    let kernels = match kernels {
        Some(kernels) => kernels,
        None => open(begun.is_some(), progress)?,
    };
    let mut shared = String::new();
    if let Some(ranks) = ranks {
        super::ranks::lead(ranks, config, &data)?;
        shared = super::ranks::compare(ranks, &kernels)?;
    }
    let mut trainer = Trainer::among(kernels, config, data.clone(), teacher, ranks.cloned())?;
    super::ranks::note(&trainer, &shared, progress);
    let taken_over = init::begin(&mut trainer, begun, progress)?;
    if let Some(stored) = begun {
        trainer.check(&stored.file, &stored.checkpoint).map_err(other_data)?;
    }
    validate::begin(&mut trainer, shape.side, validation, progress)?;
    let fitted = trainer.fitted();
    let peak = ByteSize(fitted.memory.peak_bytes).rounded();
    progress.memory(fitted.memory.peak_bytes);
    progress.note(&format!("memory: {peak} at the most, in {}", fitted.memory.peak_operation));
    fitted.choices.iter().for_each(|choice| progress.note(choice));
    if let Some(explain) = explain {
        explain(&plan::outcome(fitted, shape, distill)?)?;
    }
    let file = folder.join(CHECKPOINT_FILE);
    let command = &request.resume_command;
    // What a run began with is not there any more where it goes on without `run.init`.
    let gone = begun.is_some() && config.run.init.is_some() && taken_over.is_none();
    let scored = match fit.untrained.take() {
        Some(scores) => Ok(scores),
        None if gone => Ok(Vec::new()),
        None => score_run(&mut trainer, novel.as_ref(), "untrained", progress).map(|(scores, _)| scores),
    };
    let untrained = scored.map_err(|error| {
        interrupted(error, || match begun {
            Some(_) => format!("{} stays as it was; `{command}` continues", file.display()),
            None => format!("no step was done, and nothing was written to {}", folder.display()),
        })
    })?;
    if let Some(stored) = begun {
        trainer.restore(&stored.file, &stored.checkpoint)?;
        progress.note(&format!("continuing at step {} of {}", trainer.steps_done(), trainer.total_steps()));
    }
    trainer.share()?;
    let settings = config_text(&trainer.fitted().config, folder, begun.is_some())?;
    let _open = run_folder::open(folder, &settings, request.begin.existing())?;
    tuning::keep(trainer.kernels(), Some(folder), session.cache.as_deref(), &mut |text| progress.note(text))?;
    // What the first device made of the setting stays.
    let decided = trainer.fitted().config.run.matrix;
    let reopen = &|progress: &mut dyn Progress| open_with(true, decided, progress);
    let expected = fit.timing.map(|timing| (timing.step_s, fit.phase_s.as_slice()));
    let scored = (novel.as_ref(), untrained.as_slice());
    let mut report = RunReport::begin(folder, &trainer, &data, scored, begun.is_some(), session, progress);
    let mut watched = report.watch(progress);
    let finished = match given.filter(|_| !fit.choices.is_empty()) {
        Some(_) => {
            let mut pace = Pace::new(&mut watched, trainer.phases(), expected, trainer.total_steps());
            run_reopening(&mut trainer, reopen, folder, command, &mut pace)
        }
        None => run_reopening(&mut trainer, reopen, folder, command, &mut watched),
    };
    let finished = finished.inspect_err(|error| report.stopped(trainer.steps_done(), error, progress))?;
    let unscored = |steps: u32| {
        let saved = format!("all {steps} steps are done and saved in {}; `{command}` scores them", file.display());
        move |error| interrupted(error, || saved)
    };
    let steps = trainer.steps_done();
    let (best, mut last) = (validate::best(&trainer, folder), Vec::new());
    let mut score = |progress: &mut dyn Progress| {
        let (trained, features) =
            score_run(&mut trainer, novel.as_ref(), "trained", progress).map_err(unscored(steps))?;
        let (Some(best), Some(novel)) = (best.as_ref().filter(|best| best.validation.step != steps), &novel) else {
            return Ok((trained, features));
        };
        progress.note(&format!("scoring the network after step {}, which validated best", best.validation.step));
        let network = validate::network(&trainer, best)?;
        last = trained;
        embed_and_score(&network, novel, true, progress).map_err(unscored(steps))
    };
    let scored = score(progress);
    let (trained, features) = scored.inspect_err(|error| report.stopped(steps, error, progress))?;
    if let Err(error) = reference::note(&mut trainer, &data, &file, best.as_ref()) {
        progress.warn(&format!(
            "the network is saved, and how similar its pictures are was not measured ({error}): answers of `predict` rest \
             on what is usual"
        ));
    }
    let known = Finished {
        steps,
        seconds: finished.seconds,
        ended: trainer.validations().ended.clone(),
        best: best.as_ref().map(|best| best.validation),
        trained: trained.clone(),
        last: last.clone(),
        novel: novel.as_ref().map(|novel| (novel, features)),
    };
    report.finish(known, progress);
    if let Some(ranks) = ranks {
        ranks.end()?;
    }
    Ok(TrainOutcome {
        checkpoint: file.clone(),
        chosen: fit.choices,
        timing: fit.timing,
        job_seconds: started.elapsed().as_secs_f64(),
        steps,
        ended: trainer.validations().ended.clone(),
        init: taken_over,
        best,
        loss: finished.loss,
        seconds: finished.seconds,
        images_per_second: f64::from(finished.steps) * config.optimiser.batch as f64 / finished.seconds.max(1e-9),
        untrained,
        trained,
        last,
    })
}
