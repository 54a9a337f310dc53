//! `audit`: what is probably wrong with a folder of pictures. Nothing is changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Serialize;

use super::shards::features_in;
use super::survey::Survey;
use super::table::{table_bytes, table_file};
use super::{Session, data_options, distinct, look_options, model, sheet_file};
use crate::data::embeddings::ShardStats;
use crate::data::sheet::{Cell, Sheet, colours};
use crate::data::{self, Finder, Pictures, Places, decode_rgb};
use crate::files::replace_file;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::{Error, Result};

pub use super::survey::{Finding, Kind};

/// Findings of a kind on a contact sheet.
const ON_SHEET: usize = 40;

/// The least likeness of near duplicates, unless a request says another.
pub const LIKENESS: f64 = 0.985;
/// How many times as likely as the given label another has to be, unless a request says another.
pub const LABEL_RATIO: f64 = 20.0;

/// An audit.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRequest {
    /// A folder of class folders, with split folders above them or not, or of pictures; a zip or a tar of one; or
    /// a folder of shards that `embed` wrote.
    pub data: PathBuf,
    /// The network: a checkpoint, a run folder, or `shipped`.
    pub model: PathBuf,
    /// What to look for; empty: everything.
    pub only: Vec<Kind>,
    /// The least likeness of near duplicates, 0 to 1.
    pub likeness: f64,
    /// How many times as likely as the given label another has to be, above 1.
    pub label_ratio: f64,
    /// A table to write: finding, path, other path, score, reason.
    pub csv: Option<PathBuf>,
    /// A contact sheet to write, PNG: each finding beside what it is compared with.
    pub sheet: Option<PathBuf>,
    /// Fail where there are findings.
    pub fail_on_findings: bool,
}

/// A finished audit.
#[derive(Clone, Debug, Serialize)]
pub struct AuditOutcome {
    /// The checkpoint; none where the pictures had been embedded before.
    pub model: Option<PathBuf>,
    /// Where the pictures are.
    pub data: PathBuf,
    /// Pictures that were looked at, unreadable ones among them.
    pub pictures: usize,
    /// Their classes; 0 where there are no class folders.
    pub classes: usize,
    /// Findings of each kind that was looked for, in the order of the kinds.
    pub counts: Vec<(Kind, usize)>,
    /// All findings, by kind, the worst first.
    pub findings: Vec<Finding>,
    /// The table that was written.
    pub csv: Option<PathBuf>,
    /// The contact sheet that was written; none where there is nothing to show.
    pub sheet: Option<PathBuf>,
}

impl AuditOutcome {
    /// Fails where there are findings.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are.
    pub fn clean(&self) -> Result<()> {
        match self.findings.len() {
            0 => Ok(()),
            n => Err(Error::TargetMissed(format!(
                "{n} findings in {}: put right what is wrong, or leave `request.fail_on_findings` out",
                self.data.display()
            ))),
        }
    }
}

impl AuditRequest {
    fn looks_for(&self, kind: Kind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    fn validate(&self) -> Result<()> {
        let wrong =
            |what, got: f64, wanted: &str| Err(Error::Argument { what, got: got.to_string(), wanted: wanted.into() });
        if !(0.5..=1.0).contains(&self.likeness) {
            return wrong("request.likeness", self.likeness, "from 0.5 to 1 (try 0.985)");
        }
        if !(self.label_ratio > 1.0) {
            return wrong("request.label_ratio", self.label_ratio, "above 1 (try 20)");
        }
        if !self.data.exists() {
            return Err(Error::data(&self.data, "there is no such folder, zip or tar of pictures to look at"));
        }
        if let Some(csv) = &self.csv {
            table_file("request.csv", csv, "audit.csv", &COLUMNS)?;
        }
        if let Some(sheet) = &self.sheet {
            sheet_file("request.sheet", sheet, "audit.png")?;
            distinct(("request.csv", self.csv.as_ref()), ("request.sheet", Some(sheet)))?;
        }
        Ok(())
    }
}

/// Columns of a table of findings.
const COLUMNS: [&str; 5] = ["finding", "path", "other", "score", "reason"];

/// Looks at all pictures and says what is probably wrong.
///
/// # Errors
/// A request, checkpoint or folder that cannot be used; files that cannot be written; what the device refuses.
pub fn run(request: &AuditRequest, session: &Session, progress: &mut dyn Progress) -> Result<AuditOutcome> {
    request.validate()?;
    let shards = if request.data.is_dir() { features_in(&request.data)? } else { Vec::new() };
    let (model, survey, pictures) = match shards.as_slice() {
        [] => {
            let (model, survey, pictures) = of_pictures(request, session, progress)?;
            (Some(model), survey, Some(pictures))
        }
        shards => (None, of_shards(request, shards, session, progress)?, None),
    };
    let Survey { paths, places, mut findings, .. } = survey;
    // The pictures of shards are those that have a row.
    let unreadable =
        if pictures.is_none() { findings.iter().filter(|one| one.finding == Kind::Unreadable).count() } else { 0 };
    findings.retain(|finding| request.looks_for(finding.finding));
    let looked_for = Kind::ALL.into_iter().filter(|&kind| {
        request.looks_for(kind)
            && (kind != Kind::Label || places.classes.len() > 1)
            && (pictures.is_some() || !kind.needs_pictures())
    });
    let of_kind = |kind: Kind| findings.iter().filter(|finding| finding.finding == kind).count();
    let outcome = AuditOutcome {
        model,
        data: request.data.clone(),
        pictures: paths.len() + unreadable,
        classes: places.classes.len(),
        counts: looked_for.map(|kind| (kind, of_kind(kind))).collect(),
        csv: request.csv.clone(),
        sheet: request.sheet.clone().filter(|_| !findings.is_empty()),
        findings,
    };
    if let Some(csv) = &request.csv {
        replace_file(csv, "cannot write the table", &table(&outcome.findings)?)?;
    }
    if let Some(path) = &outcome.sheet {
        replace_file(path, "cannot write the contact sheet", &sheet(&outcome, pictures.as_ref())?)?;
    }
    Ok(outcome)
}

/// Says what is looked at.
fn note_of(n: usize, places: &Places, progress: &mut dyn Progress) {
    progress.note(&match places.classes.len() {
        0 | 1 => format!("{n} pictures without classes: labels are not looked at"),
        classes => format!("{n} pictures of {classes} classes"),
    });
}

/// Looks at pictures; the network, what was learnt, and they.
fn of_pictures(
    request: &AuditRequest,
    session: &Session,
    progress: &mut dyn Progress,
) -> Result<(PathBuf, Survey, Pictures)> {
    let paths = [request.data.clone()];
    let stored = model::open(&request.model, &mut || data::sample_unlabelled(&paths, &look_options()), progress)?;
    let side = stored.side()?;
    let pictures = Pictures::open(&paths, false)?;
    let names: Vec<&str> = (0..pictures.len()).map(|i| pictures.name(i)).collect();
    let places = match pictures.classes() {
        // Folders of samples are no classes.
        Some(said) => Places::none(names.len()).with_classes(&said),
        None => Places::of(&names),
    };
    note_of(pictures.len(), &places, progress);
    let mut kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels.clone(), &stored.file, &stored.checkpoint, false)?;
    let options = data_options(&stored.config.data, Some(side));
    let mut survey = Survey::of(&pictures, places, &extractor, &options, progress)?;
    drop(extractor);
    survey.judge(&mut kernels, side, request.likeness, request.label_ratio, progress)?;
    Ok((stored.file, survey, pictures))
}

/// Looks at embeddings of shards.
fn of_shards(
    request: &AuditRequest,
    shards: &[(PathBuf, ShardStats)],
    session: &Session,
    progress: &mut dyn Progress,
) -> Result<Survey> {
    if let Some(kind) = request.only.iter().find(|kind| kind.needs_pictures()) {
        return Err(Error::data(
            &request.data,
            format!(
                "holds embeddings, which do not tell what is {kind}: give the pictures, or leave it out of `request.only`"
            ),
        ));
    }
    if request.model != Path::new(model::SHIPPED)
        && let Some((_, stats)) = shards.first()
    {
        let none = &mut || Err(Error::usage("name a checkpoint with `request.model`"));
        let stored = model::open(&request.model, none, progress)?;
        if stored.fingerprint()? != stats.checkpoint {
            let (data, file) = (&request.data, stored.file.display());
            return Err(Error::data(
                data,
                format!("was embedded by another network than {file}: leave `request.model` out"),
            ));
        }
    }
    let mut survey = Survey::of_shards(shards, progress)?;
    note_of(survey.paths.len(), &survey.places, progress);
    progress.note("embeddings alone: near duplicates and blurred, tiny and blank pictures are not looked for");
    let mut kernels = session.open_for_features(progress)?;
    survey.judge(&mut kernels, 0, request.likeness, request.label_ratio, progress)?;
    Ok(survey)
}

/// The pictures of the first findings of each kind, each copy and each label before what it is compared with.
fn sheet(outcome: &AuditOutcome, pictures: Option<&Pictures>) -> Result<Vec<u8>> {
    let numbers: HashMap<PathBuf, (&Pictures, usize)> =
        pictures.into_iter().flat_map(|all| (0..all.len()).map(move |i| (all.path(i), (all, i)))).collect();
    let mut finder = Finder::default();
    // One that cannot be read is a gray square.
    let mut cell = |path: &Path, caption: &str| {
        let file = match numbers.get(path) {
            Some((pictures, i)) => pictures.read(*i),
            None => finder.read(path),
        };
        let picture = file.and_then(|file| decode_rgb(path, &file)).ok();
        Cell::new(picture.unwrap_or_else(|| RgbImage::from_pixel(32, 32, image::Rgb([200; 3]))), caption)
    };
    let name = |path: &Path| {
        let known = numbers.get(path).map(|(pictures, i)| pictures.name(*i).to_owned());
        known.unwrap_or_else(|| path.display().to_string())
    };
    // An even number, so that pairs stay together.
    let mut sheet = Sheet::new().columns(8);
    for (kind, n) in outcome.counts.iter().filter(|(_, n)| *n > 0) {
        let shown = (*n).min(ON_SHEET);
        let more = if shown < *n { format!(", the first {shown} of {n}") } else { format!(", {n}") };
        sheet.section(format!("{kind}{more}"));
        for finding in outcome.findings.iter().filter(|finding| finding.finding == *kind).take(ON_SHEET) {
            let caption = format!("{}\n{}", name(&finding.path), finding.reason);
            sheet.push(cell(&finding.path, &caption).framed(colours::BAD));
            if let Some(other) = &finding.other {
                sheet.push(cell(other, &name(other)).framed(colours::PLAIN));
            }
        }
    }
    sheet.to_png()
}

fn table(findings: &[Finding]) -> Result<Vec<u8>> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let rows = findings.iter().map(|Finding { finding, path, reason, other, score }| {
        let other = other.as_deref().map(text).unwrap_or_default();
        let score = score.map(|score| score.to_string()).unwrap_or_default();
        vec![finding.name().to_owned(), text(path), other, score, reason.clone()]
    });
    table_bytes(std::iter::once(COLUMNS.map(str::to_owned).to_vec()).chain(rows))
}
