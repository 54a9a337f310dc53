//! `report`: the page about a run, in its folder. Training writes it at its beginning, now and then, and at its end; the
//! command makes it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::calibrate::REPORT_SHARE;
use super::facts::{Facts, now, utc};
use super::fit::{described, load};
use super::novel::{Thumbnails, analyse};
use super::score::{Score, embed_and_score, novel_classes};
use super::stored::Stored;
use super::views::spread;
use super::{Session, output_file};
use crate::data::ImageSet;
use crate::files::replace_file;
use crate::files::run_folder::{CONFIG_FILE, REPORT_FILE, is_held, is_run};
use crate::gpu::kernel::Kernels;
use crate::page::chart::{Curve, Series};
use crate::page::novel::Novel;
use crate::page::{Accuracy, MARK, Page, SettingRow, State, Tile, ViewsRow, bytes_text};
use crate::progress::{Progress, StepReport};
use crate::settings::{Config, Schedule, TimeSpan, settings};
use crate::train::memory::Memory;
use crate::train::metrics::{self, Record};
use crate::train::record::{DataShape, views_of};
use crate::train::shown::shown;
use crate::train::state::STEP_KEY;
use crate::train::validation::Validated;
use crate::train::{Extractor, Trainer};
use crate::{Error, Result};

/// The least time between two writings while a run goes on.
const EVERY: Duration = Duration::from_secs(30);
/// Images whose views are shown.
const VIEWED: usize = 4;
/// The largest page, bytes.
const MOST_BYTES: usize = 2_000_000;
/// Characters of a name or a warning, and warnings, that a page shows.
const NAME: usize = 160;
const WARNINGS: usize = 20;

/// What a page shows in pictures.
#[derive(Debug, Default)]
struct Pictures {
    views: Vec<ViewsRow>,
    viewed: String,
    novel: Option<Novel>,
    thumbnails: Thumbnails,
    missing: Vec<(&'static str, String)>,
}

impl Pictures {
    /// Without any, for images of `side` pixels.
    fn new(side: usize) -> Pictures {
        Pictures { thumbnails: Thumbnails::new(side), ..Pictures::default() }
    }

    fn lack(&mut self, section: &'static str, why: impl ToString) {
        self.missing.retain(|(name, _)| *name != section);
        self.missing.push((section, why.to_string()));
    }

    /// Adds views of some training images as the run's first step shows them.
    fn show_views(&mut self, kernels: &mut Kernels, config: &Config, data: &ImageSet) {
        let few = spread(data, VIEWED);
        let (_, views, rotations) = views_of(config);
        let transforms = views * rotations;
        let draws = if transforms < 4 { 8 / transforms.max(1) } else { 1 };
        let all = match shown(kernels, config, &few, 0, draws as u32) {
            Ok(all) => all,
            Err(error) => return self.lack("views", format!("The views could not be made: {error}")),
        };
        for (image, views) in all.chunks(transforms * draws).enumerate() {
            let class = few.labels.get(image).and_then(|&label| few.class_names.get(label as usize));
            let mut row = ViewsRow {
                label: short(&format!("{}: {}", class.map_or("", String::as_str), few.names[image])),
                views: vec![(self.thumbnails.add(few.image(image), few.side), "the image".into(), true)],
            };
            for view in views {
                let caption = match draws {
                    1 => view.transform.to_string(),
                    _ => format!("step {}", view.step + 1),
                };
                row.views.push((self.thumbnails.add(&view.pixels, view.side), caption, view.in_step));
            }
            self.views.push(row);
        }
        let set = config.method.transforms;
        self.viewed = match transforms {
            1 => "Training images as the first steps show them: cropped, and their colours and sides changed at random, as \
                  the settings say. The baseline has one view of an image per step."
                .into(),
            n => format!(
                "Training images under the {n} transforms of {set}, as the first step shows them, with what is random about \
                 them; 0 is the plain one. Those with a blue frame are in the step, where it has only some."
            ),
        };
    }

    /// Adds what the network makes of the novel classes.
    fn look_at(&mut self, novel: &ImageSet, features: &[f32]) {
        let width = features.len() / novel.len().max(1);
        match analyse(novel, features, width, &mut self.thumbnails) {
            Ok(found) => self.novel = Some(found),
            Err(error) => self.lack("novel", format!("The embeddings could not be looked at: {error}")),
        }
    }
}

/// A name or a sentence that is not too long for a page.
fn short(text: &str) -> String {
    match text.chars().count() > NAME {
        true => text.chars().take(NAME - 3).chain("...".chars()).collect(),
        false => text.into(),
    }
}

/// The curves of a metric log.
fn curves(records: &[Record]) -> Vec<Curve> {
    if records.is_empty() {
        return Vec::new();
    }
    let series = |name: &str, of: &dyn Fn(&Record) -> Option<f32>| Series {
        name: name.into(),
        points: records.iter().filter_map(|record| Some((record.step as f64, f64::from(of(record)?)))).collect(),
        half: Vec::new(),
    };
    let curve = |title: &str, unit: &str, series: Vec<Series>| Curve {
        title: title.into(),
        unit: unit.into(),
        series: series.into_iter().filter(|series| !series.points.is_empty()).collect(),
        bounds: None,
    };
    let mut names: Vec<&str> = Vec::new();
    for name in records.iter().flat_map(|record| record.losses.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (*name != "total", *name));
    let of_name = |name: &&str| series(name, &|record| record.losses.get(*name).copied());
    let losses = names.iter().filter(|name| **name != "grad_norm").map(of_name).collect();
    // The interval is that of the mean of both accuracies.
    let validated = |name: &str, of: &dyn Fn(&Validated) -> f64, with_interval: bool| {
        let found = records.iter().filter_map(|record| record.validation.as_ref());
        Series {
            name: name.into(),
            points: found.clone().map(|score| (f64::from(score.step), of(score))).collect(),
            half: if with_interval { found.map(|score| score.interval_pct).collect() } else { Vec::new() },
        }
    };
    let accuracy = vec![
        series("training rows", &|record| Some(100.0 * record.accuracy)),
        validated("validation, 1-shot", &|score| score.one_shot_pct, false),
        validated("validation, 5-shot", &|score| score.five_shot_pct, false),
        validated("validation, mean of both", &Validated::mean_pct, true),
    ];
    let mut curves = vec![
        curve("Losses", "", losses),
        Curve { bounds: Some((0.0, 100.0)), ..curve("Accuracy", " %", accuracy) },
        curve("Learning rate", "", vec![series("learning rate", &|record| Some(record.lr))]),
        curve("Images per second", "", vec![series("images per second", &|record| Some(record.images_per_second))]),
    ];
    if names.contains(&"grad_norm") {
        curves.push(curve("Norm of the gradients", "", vec![of_name(&"grad_norm")]));
    }
    curves
}

/// Scores before and after, in the order of the scores after.
fn accuracies(facts: &Facts) -> Vec<Accuracy> {
    let percent = |score: &Score| (score.accuracy_pct, score.interval_pct);
    let label = |score: &Score| format!("{}-way {}-shot ({})", score.ways, score.shots, score.classifier);
    let of = |(i, score): (usize, &Score)| Accuracy {
        label: label(score),
        before: facts.untrained.get(i).map(percent),
        after: percent(score),
        chance: 100.0 / score.ways.max(1) as f64,
    };
    let last = facts.last.iter().map(|score| Accuracy {
        label: format!("{}, last", label(score)),
        before: None,
        after: percent(score),
        chance: 100.0 / score.ways.max(1) as f64,
    });
    facts.trained.iter().enumerate().map(of).chain(last).collect()
}

/// The settings under their headings.
fn setting_rows(config: &Config) -> Vec<(String, Vec<SettingRow>)> {
    let unset = Config::default();
    let differing = config.differences(&unset);
    let mut groups: Vec<(String, Vec<SettingRow>)> = Vec::new();
    for setting in settings() {
        let reason = config.run.reasons.iter().find_map(|reason| {
            let (key, why) = reason.split_once(':')?;
            let own = key == setting.key || key.strip_prefix(setting.key).is_some_and(|rest| rest.starts_with('.'));
            own.then(|| why.trim().to_owned())
        });
        let what = setting.flags.first().map_or(String::new(), |flag| setting.short_help(flag));
        let row = SettingRow {
            key: setting.key.into(),
            value: short(&setting.shown(config)),
            reason: short(&reason.unwrap_or(what)),
            changed: differing.contains(&setting.key),
        };
        match groups.last_mut().filter(|(heading, _)| heading == setting.heading) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((setting.heading.into(), vec![row])),
        }
    }
    groups
}

/// Seconds for people.
fn span(seconds: f64) -> String {
    TimeSpan(seconds.round().max(1.0) as u64).to_string()
}

/// The numbers that matter most.
fn tiles(facts: &Facts, records: &[Record]) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut add = |label: &str, value: String, note: String| tiles.push(Tile { label: label.into(), value, note });
    for (i, score) in facts.trained.iter().enumerate() {
        let half = score.interval_pct.map_or(String::new(), |half| format!("± {half:.1}"));
        let before =
            facts.untrained.get(i).map_or(String::new(), |score| format!(", before {:.1} %", score.accuracy_pct));
        add(
            &format!("{}-way {}-shot", score.ways, score.shots),
            format!("{:.1} %", score.accuracy_pct),
            format!("{half}{before}"),
        );
    }
    if let Some(best) = &facts.best {
        add(
            "Best in validation",
            format!("{:.1} %", best.mean_pct()),
            format!("± {:.1}, mean of 1 and 5 shots, step {}", best.interval_pct, best.step),
        );
    }
    if let Some((record, loss)) = records.last().and_then(|record| Some((record, record.losses.get("total")?))) {
        add("Loss", format!("{loss:.4}"), format!("after step {}", record.step));
        let mean = records.iter().map(|record| f64::from(record.images_per_second)).sum::<f64>() / records.len() as f64;
        add("Throughput", format!("{mean:.1}"), "images per second".into());
    }
    add("Steps", facts.steps.to_string(), format!("of {}", facts.total_steps));
    if facts.seconds > 0.0 {
        add("Time", span(facts.seconds), "for these steps".into());
    }
    let peak: u64 = facts.memory.iter().map(|(_, bytes)| bytes).sum();
    if peak > 0 {
        add("Memory", bytes_text(peak), "on the device, at the most".into());
    }
    tiles
}

/// The page of a run.
fn page(folder: &Path, config: &Config, facts: &Facts, records: &[Record], pictures: &Pictures) -> Page {
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let title = name.file_name().map_or_else(|| name.display().to_string(), |name| name.display().to_string());
    let done = format!("step {} of {}", facts.steps, facts.total_steps);
    let why = facts.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let state = match facts.state.as_str() {
        "training" => (State::Training, format!("training, {done}, as of {}", utc(facts.written))),
        "finished" if facts.steps < facts.total_steps => (State::Finished, format!("ended after {done}{why}")),
        "finished" => (State::Finished, format!("finished: {} steps", facts.steps)),
        _ => (State::Stopped, format!("stopped at {done}{why}")),
    };
    let list = |rows: Vec<(&str, String)>| -> Vec<(String, String)> {
        let given = rows.into_iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let unknown = "not known: the run is of an earlier version";
    let or_unknown = |text: &str| if text.is_empty() { unknown.to_owned() } else { text.to_owned() };
    let mut device = vec![("device", or_unknown(&facts.device))];
    device.extend(facts.fitted.iter().map(|text| ("chosen for it", text.clone())));
    let (side, classes, images) = facts.shape;
    let mut provenance = vec![
        ("program", format!("ieq-wgpu {}", or_unknown(&facts.version))),
        ("run folder", folder.display().to_string()),
        ("began", if facts.began > 0 { utc(facts.began) } else { unknown.into() }),
        ("written", utc(facts.written)),
        ("data", facts.data.clone()),
        ("training images", format!("{images} of {classes} classes, {side} x {side} pixels")),
        ("novel images", facts.novel.map_or(String::new(), |(classes, n)| format!("{n} of {classes} classes"))),
        ("seed", format!("{} (run.seed), {} (data.split_seed)", config.run.seed, config.data.split_seed)),
    ];
    provenance.extend(
        facts
            .commands
            .iter()
            .enumerate()
            .map(|(i, command)| (if i == 0 { "command" } else { "continued by" }, command.clone())),
    );
    let mut provenance = list(provenance);
    provenance
        .extend(facts.fingerprints.iter().map(|(key, print)| (format!("fingerprint of the {key}"), print.clone())));
    let scored = match facts.novel {
        Some((classes, images)) => format!(
            "Means over episodes with their 95 % intervals, on {images} images of {classes} classes of the novel split; the \
             dashed line is chance. Gray: before the training; blue: after it."
        ),
        None => "Means over episodes with their 95 % intervals; the dashed line is chance.".into(),
    };
    Page {
        title,
        version: env!("CARGO_PKG_VERSION").into(),
        state,
        share: f64::from(facts.steps) / f64::from(facts.total_steps.max(1)),
        tiles: tiles(facts, records),
        warnings: facts.warnings.iter().take(WARNINGS).map(|text| short(text)).collect(),
        curves: curves(records),
        scores: accuracies(facts),
        scored,
        novel: pictures.novel.clone(),
        views: pictures.views.clone(),
        viewed: pictures.viewed.clone(),
        settings: setting_rows(config),
        device: list(device),
        memory: (
            facts.memory.clone(),
            match facts.memory_peak.as_str() {
                "" => String::new(),
                peak => {
                    format!("{} at the most, in {peak}.", bytes_text(facts.memory.iter().map(|(_, bytes)| bytes).sum()))
                }
            },
        ),
        provenance,
        missing: pictures.missing.clone(),
        thumbnails: (pictures.thumbnails.side, pictures.thumbnails.pictures.clone()),
    }
}

/// Writes a page, whole or not at all; without its pictures where it would be too large.
fn write_page(path: &Path, mut page: Page) -> Result<usize> {
    if !is_ours(path) {
        return Err(Error::data(path, "this file is no report of this program, and stays: move it away"));
    }
    let mut html = page.render()?;
    if html.len() > MOST_BYTES {
        let why = "The pictures are left out: with them the page would have more than 2 MB.";
        (page.novel, page.views, page.thumbnails) = (None, Vec::new(), (1, Vec::new()));
        page.missing = vec![("novel", why.into()), ("views", why.into())];
        html = page.render()?;
    }
    replace_file(path, "cannot write the report", html.as_bytes())?;
    Ok(html.len())
}

/// Whether there is no such file, or one that this program wrote.
fn is_ours(path: &Path) -> bool {
    use std::io::Read;
    let Ok(file) = std::fs::File::open(path) else { return true };
    let mut head = Vec::new();
    file.take(1024).read_to_end(&mut head).is_ok_and(|_| String::from_utf8_lossy(&head).contains(MARK))
}

/// The report of a run that goes on. Whatever fails about it is a warning and ends no run.
pub(super) struct RunReport {
    folder: PathBuf,
    config: Config,
    facts: Facts,
    pictures: Pictures,
    /// Seconds of earlier processes, and when this one began.
    before: f64,
    begun: Instant,
    /// When it was written last, and how long that took.
    written: Option<(Instant, Duration)>,
    /// Whether it cannot be written, which was said.
    off: bool,
}

impl RunReport {
    /// Of a run that is about to begin or to go on in `folder`; writes the first page.
    pub fn begin(
        folder: &Path,
        trainer: &Trainer,
        data: &ImageSet,
        scored: (Option<&ImageSet>, &[Score]),
        resumed: bool,
        session: &Session,
        progress: &mut dyn Progress,
    ) -> RunReport {
        // A file that is not this program's stays as it is.
        let read = Facts::read(folder);
        let off = read.is_err();
        let earlier = match read {
            Ok(facts) => facts.filter(|_| resumed),
            Err(error) => {
                progress.warn(&format!("the run goes on without a report: {error}"));
                None
            }
        };
        let (novel, untrained) = scored;
        let fitted = trainer.fitted();
        let config = fitted.config.clone();
        let mut facts = earlier.unwrap_or_else(Facts::begin);
        facts.state = "training".into();
        facts.why = None;
        facts.version = env!("CARGO_PKG_VERSION").into();
        facts.commands.extend(session.command.clone());
        facts.steps = trainer.steps_done();
        facts.total_steps = trainer.total_steps();
        facts.device = trainer.gpu().describe();
        facts.memory = fitted.memory.classes().map(|(name, bytes)| (name.to_owned(), bytes)).to_vec();
        facts.memory_peak = fitted.memory.peak_operation.clone();
        facts.fitted = fitted.choices.clone();
        facts.data = described(&config.data.source, data);
        facts.fingerprints = trainer.origins().map(|(key, print)| (key.to_owned(), print.to_owned())).collect();
        facts.shape = (data.side, data.n_classes(), data.len());
        facts.novel = novel.map(|novel| (novel.n_classes(), novel.len()));
        if !untrained.is_empty() {
            facts.untrained = untrained.to_vec();
        }
        let sets = [Some(data), novel].into_iter().flatten();
        facts.warnings = sets.flat_map(|set| &set.warnings).map(|warning| warning.message.clone()).collect();
        let mut pictures = Pictures::new(data.side);
        pictures.show_views(&mut trainer.kernels().clone(), &config, data);
        for section in ["scores", "novel"] {
            pictures.lack(section, "The run is still training: this comes with its end.");
        }
        let mut report = RunReport {
            folder: folder.to_owned(),
            config,
            before: facts.seconds,
            facts,
            pictures,
            begun: Instant::now(),
            written: None,
            off,
        };
        report.write(progress);
        report.begun = Instant::now();
        report
    }

    /// Writes the page and what is known of the run.
    fn write(&mut self, progress: &mut dyn Progress) {
        if self.off {
            return;
        }
        let begun = Instant::now();
        self.facts.written = now();
        let written = metrics::read(&self.folder).and_then(|records| {
            let page = page(&self.folder, &self.config, &self.facts, &records, &self.pictures);
            write_page(&self.folder.join(REPORT_FILE), page)?;
            self.facts.write(&self.folder)
        });
        if let Err(error) = written {
            self.off = true;
            progress.warn(&format!("the run goes on without a report: {error}"));
        }
        self.written = Some((Instant::now(), begun.elapsed()));
    }

    /// Passes on what a run tells, and refreshes the page now and then.
    pub fn watch<'a>(&'a mut self, progress: &'a mut dyn Progress) -> Watched<'a> {
        Watched { report: self, progress }
    }

    /// The run has stopped before its end.
    pub fn stopped(&mut self, steps: u32, error: &Error, progress: &mut dyn Progress) {
        self.facts.state = "stopped".into();
        self.facts.steps = steps;
        self.facts.seconds = self.before + self.begun.elapsed().as_secs_f64();
        self.facts.why = Some(match error {
            Error::Interrupted(_) => "it was interrupted, and can be resumed".into(),
            error => error.to_string(),
        });
        for section in ["scores", "novel"] {
            self.pictures.lack(section, "The run was stopped before its end, at which this is computed.");
        }
        self.write(progress);
    }

    /// The run is over: its scores, and the features of the novel classes where it was scored.
    pub fn finish(&mut self, facts: Finished, progress: &mut dyn Progress) {
        let Finished { steps, seconds, ended, best, trained, last, novel } = facts;
        self.facts.state = "finished".into();
        (self.facts.steps, self.facts.seconds) = (steps, self.before + seconds);
        (self.facts.why, self.facts.best) = (ended, best);
        (self.facts.trained, self.facts.last) = (trained, last);
        self.pictures.missing.retain(|(name, _)| *name == "views");
        match novel {
            Some((novel, features)) => self.pictures.look_at(novel, &features),
            None => {
                let command = format!("`report {}`", self.folder.display());
                for section in ["scores", "novel"] {
                    let why =
                        format!("The run was not scored on novel classes. {command} does it where the data has some.");
                    self.pictures.lack(section, why);
                }
            }
        }
        self.write(progress);
        if !self.off {
            progress.note(&format!("report: {} (open it in a browser)", self.folder.join(REPORT_FILE).display()));
        }
    }
}

/// What is known at the end of a run.
pub(super) struct Finished<'a> {
    pub steps: u32,
    pub seconds: f64,
    pub ended: Option<String>,
    pub best: Option<Validated>,
    pub trained: Vec<Score>,
    pub last: Vec<Score>,
    /// The novel images and the features that the kept network has of them.
    pub novel: Option<(&'a ImageSet, Vec<f32>)>,
}

/// Passes on what a run tells, and refreshes its page.
pub(super) struct Watched<'a> {
    report: &'a mut RunReport,
    progress: &'a mut dyn Progress,
}

impl Progress for Watched<'_> {
    fn step(&mut self, report: &StepReport) {
        self.progress.step(report);
        let due = self.report.written.is_none_or(|(at, cost)| at.elapsed() >= EVERY.max(cost * REPORT_SHARE));
        if due && report.step < report.total_steps {
            self.report.facts.steps = report.step;
            self.report.facts.seconds = self.report.before + self.report.begun.elapsed().as_secs_f64();
            self.report.write(self.progress);
        }
    }

    fn advance(&mut self, what: &str, done: u64, total: u64) {
        self.progress.advance(what, done, total);
    }

    fn memory(&mut self, bytes: u64) {
        self.progress.memory(bytes);
    }

    fn note(&mut self, sentence: &str) {
        self.progress.note(sentence);
    }

    fn warn(&mut self, sentence: &str) {
        if self.report.facts.warnings.len() < WARNINGS {
            self.report.facts.warnings.push(sentence.to_owned());
        }
        self.progress.warn(sentence);
    }

    fn stop_requested(&self) -> bool {
        self.progress.stop_requested()
    }
}

/// A report to make again.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportRequest {
    /// The run folder.
    pub run: PathBuf,
    /// The page to write; none: `report.html` in the run folder.
    pub out: Option<PathBuf>,
    /// Whether only what lies in the folder is shown: no data is read and no device opened.
    pub files_only: bool,
}

/// A report that was made.
#[derive(Clone, Debug, Serialize)]
pub struct ReportOutcome {
    /// The page.
    pub report: PathBuf,
    /// Its size in bytes.
    pub bytes: usize,
    /// What is missing on it, and why: section and sentence.
    pub missing: Vec<(String, String)>,
}

/// Makes the page of a run again, also of an earlier version's run; what is missing is said on the page.
///
/// # Errors
/// A folder that holds no run; a file that cannot be written.
pub fn run(request: &ReportRequest, session: &Session, progress: &mut dyn Progress) -> Result<ReportOutcome> {
    let folder = &request.run;
    if !is_run(folder) {
        return Err(Error::data(folder, "this is no run folder: name one that `train` wrote"));
    }
    if let Some(out) = &request.out {
        output_file("request.out", out, "report.html")?;
    }
    let path = request.out.clone().unwrap_or_else(|| folder.join(REPORT_FILE));
    if !is_ours(&path) {
        return Err(Error::data(&path, "this file is no report of this program: name another with `request.out`"));
    }
    let mut warnings = Vec::new();
    let stored = Stored::open(folder).map_err(|error| warnings.push(error.to_string())).ok();
    let config = match &stored {
        Some(stored) => stored.config.clone(),
        None => Config::from_layers(None, &folder.join(CONFIG_FILE))?,
    };
    let records = metrics::read(folder).unwrap_or_else(|error| {
        warnings.push(error.to_string());
        Vec::new()
    });
    let mut facts = Facts::read(folder).unwrap_or_else(|error| {
        warnings.push(error.to_string());
        None
    });
    let known = facts.is_some();
    let mut facts = facts.take().unwrap_or_else(|| Facts { state: "stopped".into(), ..Facts::default() });
    facts.written = now();
    let step = stored.as_ref().and_then(|stored| stored.checkpoint.metadata.get(STEP_KEY)?.parse().ok());
    if facts.state == "training" && !is_held(folder) {
        (facts.state, facts.why) = ("stopped".into(), Some("no process is training in this folder".into()));
        facts.steps = step.unwrap_or(facts.steps);
    }
    if !known {
        facts.steps = step.or(records.last().map(|record| record.step as u32)).unwrap_or(0);
    }
    let mut pictures = Pictures::new(config.data.side.unwrap_or(32));
    let mut device = None;
    if request.files_only {
        for section in ["scores", "novel", "views"] {
            pictures.lack(section, "It was left out: this page was made from the files of the folder alone.");
        }
    } else {
        device = Some(complete(&mut facts, &mut pictures, &config, stored.as_ref(), session, progress)?);
    }
    if facts.total_steps == 0 {
        let images = match facts.shape.2 {
            0 => config.optimiser.batch,
            images => images,
        };
        facts.total_steps =
            Schedule::new(&config.optimiser, images).map_or(facts.steps, |schedule| schedule.total_steps);
    }
    if !known && facts.steps >= facts.total_steps {
        facts.state = "finished".into();
    }
    if let (false, Some(device)) = (known, device.flatten()) {
        facts.device = format!("{} (on which this page was made)", device);
    }
    warnings.iter().for_each(|warning| progress.warn(warning));
    facts.warnings.extend(warnings);
    if facts.trained.is_empty() && !pictures.missing.iter().any(|(name, _)| *name == "scores") {
        pictures.lack("scores", "The run has no scores.");
    }
    let page = page(folder, &config, &facts, &records, &pictures);
    let missing = page.missing.iter().map(|(name, why)| ((*name).to_owned(), why.clone())).collect();
    let bytes = write_page(&path, page)?;
    Ok(ReportOutcome { report: path, bytes, missing })
}

/// Adds what data and device are needed for; the device where it could be opened.
fn complete(
    facts: &mut Facts,
    pictures: &mut Pictures,
    config: &Config,
    stored: Option<&Stored>,
    session: &Session,
    progress: &mut dyn Progress,
) -> Result<Option<String>> {
    let mut config = config.clone();
    if let Some(side) = stored.and_then(|stored| stored.side().ok()) {
        config.data.side = Some(side);
    }
    let data = load(&config, None, true).map_err(|error| {
        pictures.lack("views", format!("The data of the run cannot be read: {error}"));
        pictures.lack("novel", format!("The data of the run cannot be read: {error}"));
    });
    let Ok(data) = data.map(Arc::new) else { return Ok(None) };
    pictures.thumbnails = Thumbnails::new(data.side);
    facts.shape = (data.side, data.n_classes(), data.len());
    if facts.data.is_empty() {
        facts.data = described(&config.data.source, &data);
    }
    if facts.memory.is_empty()
        && let Ok(memory) = Memory::of(&config, DataShape::of(&data), false, true)
    {
        facts.memory = memory.classes().map(|(name, bytes)| (name.to_owned(), bytes)).to_vec();
        facts.memory_peak = format!("{} (computed for this page)", memory.peak_operation);
    }
    let mut kernels = match session.open_for_features(progress) {
        Ok(kernels) => kernels,
        Err(error) => {
            for section in ["views", "novel"] {
                pictures.lack(section, format!("There is no device to compute it on: {error}"));
            }
            return Ok(None);
        }
    };
    let device = kernels.gpu().describe();
    pictures.show_views(&mut kernels, &config, &data);
    let Some(stored) = stored else {
        pictures.lack("novel", "The run has saved no network that can be read.");
        return Ok(Some(device));
    };
    if facts.fingerprints.is_empty() {
        let print = |key: &str| Some((key.to_owned(), stored.checkpoint.metadata.get(key)?.clone()));
        facts.fingerprints = ["data", "teacher", "init"].into_iter().filter_map(print).collect();
    }
    let novel = match novel_classes(&config, data.side, false, progress) {
        Ok(Some(novel)) => novel,
        Ok(None) => {
            pictures.lack("novel", "The data has no novel classes, or too few images of them, to look at.");
            return Ok(Some(device));
        }
        Err(error) => {
            pictures.lack("novel", format!("The novel classes cannot be read: {error}"));
            return Ok(Some(device));
        }
    };
    facts.novel = Some((novel.n_classes(), novel.len()));
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let (scores, features) = embed_and_score(&extractor, &novel, facts.trained.is_empty(), progress)?;
    if facts.trained.is_empty() {
        facts.trained = scores;
    }
    pictures.look_at(&novel, &features);
    Ok(Some(device))
}
