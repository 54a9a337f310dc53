//! `audit`: what is probably wrong with a folder of pictures. Nothing is changed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Serialize;

use super::rows::embed_each;
use super::table::{table_bytes, table_file};
use super::{Session, data_options, distinct, look_options, model, sheet_file};
use crate::data::sheet::{Cell, Sheet, colours};
use crate::data::{self, DataOptions, Look, Pictures, Places, ahead, decode_rgb};
use crate::fewshot::{Features, Nearest, Prototypes, l2_normalise};
use crate::files::replace_file;
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// Neighbours that are compared with a picture, and by which one without a class is an outlier.
const NEIGHBOURS: usize = 8;
/// Pictures whose neighbours are searched at once.
const QUERIES: usize = 4096;
/// Findings of a kind on a contact sheet.
const ON_SHEET: usize = 40;
/// Standard deviation of the gray levels below which a picture is blank.
const BLANK: f32 = 2.0;
/// Pictures that a measure relative to the set needs.
const ENOUGH: usize = 20;
/// How far from the middle of the set a picture is blurred or an outlier, in robust standard deviations.
const BLURRED_BEYOND: f64 = 4.0;
const OUTLIER_BEYOND: f64 = 5.0;
/// A blurred picture has at most this share of the sharpness in the middle of the set.
const BLURRED_SHARE: f64 = 0.25;

/// The least likeness of near duplicates, unless a request says another.
pub const LIKENESS: f64 = 0.985;
/// How many times as likely as the given label another has to be, unless a request says another.
pub const LABEL_RATIO: f64 = 20.0;

/// An audit.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRequest {
    /// A folder of class folders, with split folders above them or not, or of pictures; or a zip or tar of one.
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

/// What a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The file cannot be read as a picture.
    Unreadable,
    /// The same file, or the same pixels, is there twice.
    Duplicate,
    /// A picture is there twice with small changes.
    NearDuplicate,
    /// Another class is far more likely than the one that the picture is in.
    Label,
    /// The picture is far from all of its class, or from all others.
    Outlier,
    /// The picture is far less sharp than the others.
    Blurred,
    /// The picture is less than half as large as the network takes it.
    Tiny,
    /// The picture is all but one colour.
    Blank,
}

impl Kind {
    /// The names of the kinds.
    pub const NAMES: &[&str] =
        &["unreadable", "duplicate", "near-duplicate", "label", "outlier", "blurred", "tiny", "blank"];
    const ALL: [Kind; 8] = [
        Kind::Unreadable,
        Kind::Duplicate,
        Kind::NearDuplicate,
        Kind::Label,
        Kind::Outlier,
        Kind::Blurred,
        Kind::Tiny,
        Kind::Blank,
    ];

    /// The name in requests and reports.
    pub fn name(self) -> &'static str {
        Kind::NAMES[self as usize]
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("one of {} is wanted, got `{text}`", Kind::NAMES.join(", ")))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Something that is probably wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What.
    pub finding: Kind,
    /// The picture.
    pub path: PathBuf,
    /// Why, in words.
    pub reason: String,
    /// The picture that it is a copy of, or for a label the most similar one of the class that is likely.
    pub other: Option<PathBuf>,
    /// Likeness of a copy; probability of the given label; cosine of an outlier and its class; sharpness as a share of the
    /// middle one's; the shorter side; the standard deviation of gray levels.
    pub score: Option<f64>,
}

/// A finished audit.
#[derive(Clone, Debug, Serialize)]
pub struct AuditOutcome {
    /// The checkpoint.
    pub model: PathBuf,
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

/// What was learnt of the pictures.
struct Survey {
    pictures: Pictures,
    places: Places,
    /// Of every picture; none where it cannot be read.
    looks: Vec<Option<Look>>,
    findings: Vec<Finding>,
    /// Unit rows of the pictures in `rowed`, `[rows, columns]`.
    rows: Vec<f32>,
    rowed: Vec<usize>,
    columns: usize,
}

/// Looks at all pictures and says what is probably wrong.
///
/// # Errors
/// A request, checkpoint or folder that cannot be used; files that cannot be written; what the device refuses.
pub fn run(request: &AuditRequest, session: &Session, progress: &mut dyn Progress) -> Result<AuditOutcome> {
    request.validate()?;
    let paths = [request.data.clone()];
    let stored = model::open(&request.model, &mut || data::sample_unlabelled(&paths, &look_options()), progress)?;
    let side = stored.side()?;
    let pictures = Pictures::open(&paths, false)?;
    let names: Vec<&str> = (0..pictures.len()).map(|i| pictures.name(i)).collect();
    let places = Places::of(&names);
    let n = pictures.len();
    progress.note(&match places.classes.len() {
        0 | 1 => format!("{n} pictures without classes: labels are not looked at"),
        classes => format!("{n} pictures of {classes} classes"),
    });
    let mut kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels.clone(), &stored.file, &stored.checkpoint, false)?;
    let options = data_options(&stored.config.data, Some(side));
    let mut survey = Survey::of(pictures, places, &extractor, &options, progress)?;
    drop(extractor);
    let neighbours = nearest(&mut kernels, &survey.rows, survey.columns, "neighbours of pictures", progress)?;
    let outlines = survey.outlines();
    let alike = nearest(&mut kernels, &outlines.rows, outlines.columns, "copies of pictures", progress)?;
    survey.of_single_pictures(side);
    survey.duplicates();
    let rowed = survey.rowed.clone();
    survey.near_duplicates([(&neighbours, &rowed), (&alike, &outlines.of)], request.likeness, progress)?;
    survey.labels_and_outliers(&neighbours, request.label_ratio, progress)?;

    let Survey { pictures, places, mut findings, .. } = survey;
    findings.retain(|finding| request.looks_for(finding.finding));
    let looked_for = Kind::ALL
        .into_iter()
        .filter(|&kind| request.looks_for(kind) && (kind != Kind::Label || places.classes.len() > 1));
    let of_kind = |kind: Kind| findings.iter().filter(|finding| finding.finding == kind).count();
    let outcome = AuditOutcome {
        model: stored.file,
        data: request.data.clone(),
        pictures: n,
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
        replace_file(path, "cannot write the contact sheet", &sheet(&outcome, &pictures)?)?;
    }
    Ok(outcome)
}

/// The pictures of the first findings of each kind, each copy and each label before what it is compared with.
fn sheet(outcome: &AuditOutcome, pictures: &Pictures) -> Result<Vec<u8>> {
    let numbers: HashMap<PathBuf, usize> = (0..pictures.len()).map(|i| (pictures.path(i), i)).collect();
    // One that cannot be read is a gray square.
    let cell = |path: &Path, caption: &str| {
        let file = numbers.get(path).and_then(|&i| pictures.read(i).ok());
        let picture = file.and_then(|file| decode_rgb(path, &file).ok());
        Cell::new(picture.unwrap_or_else(|| RgbImage::from_pixel(32, 32, image::Rgb([200; 3]))), caption)
    };
    let name =
        |path: &Path| numbers.get(path).map_or_else(|| path.display().to_string(), |&i| pictures.name(i).to_owned());
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

/// The middle of some numbers and their spread: the median, and the median distance from it scaled to a standard deviation.
fn middle(mut values: Vec<f64>) -> Option<(f64, f64)> {
    if values.len() < ENOUGH {
        return None;
    }
    let median = |values: &mut Vec<f64>| {
        let at = values.len() / 2;
        *values.select_nth_unstable_by(at, f64::total_cmp).1
    };
    let centre = median(&mut values);
    let mut distances: Vec<f64> = values.iter().map(|x| (x - centre).abs()).collect();
    Some((centre, 1.4826 * median(&mut distances)))
}

/// Rows found for each row: itself is none of them.
type Neighbours = Vec<Vec<(usize, f32)>>;

/// Outlines `[rows, columns]`, and the pictures that they are of.
struct Outlines {
    rows: Vec<f32>,
    columns: usize,
    of: Vec<usize>,
}

/// The rows most similar to each row.
fn nearest(
    kernels: &mut Kernels,
    rows: &[f32],
    columns: usize,
    what: &str,
    progress: &mut dyn Progress,
) -> Result<Neighbours> {
    let n = rows.len() / columns;
    let nearest = Nearest::new(kernels, columns, QUERIES)?;
    let mut all = Vec::with_capacity(n);
    for first in (0..n).step_by(QUERIES) {
        progress.go_on()?;
        let end = (first + QUERIES).min(n);
        let found = nearest.search(&rows[first * columns..end * columns], rows, NEIGHBOURS + 1)?;
        all.extend((first..end).zip(found).map(|(row, found)| {
            found.into_iter().filter(|(other, _)| *other != row).take(NEIGHBOURS).collect::<Vec<_>>()
        }));
        progress.advance(what, end as u64, n as u64);
    }
    Ok(all)
}

impl Survey {
    /// Looks at every picture and embeds it; threads decode ahead of the device.
    fn of(
        pictures: Pictures,
        places: Places,
        extractor: &Extractor,
        options: &DataOptions,
        progress: &mut dyn Progress,
    ) -> Result<Survey> {
        let columns = extractor.width(Layer::Feature).unwrap_or(0).max(1);
        let (mut looks, mut rowed, mut rows, mut findings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let refused =
            |path: PathBuf, reason| Finding { finding: Kind::Unreadable, path, reason, other: None, score: None };
        findings.extend(pictures.left_out().iter().map(|file| refused(file.path.clone(), file.why.clone())));
        embed_each(
            extractor,
            pictures.len(),
            |i| pictures.look(i, options),
            progress,
            |row, _| {
                match row {
                    Ok((look, row)) => {
                        rowed.push(looks.len());
                        looks.push(Some(look));
                        rows.extend_from_slice(row);
                    }
                    Err(error) => {
                        looks.push(None);
                        let file = data::LeftOut::of(error)?;
                        findings.push(refused(file.path, file.why));
                    }
                }
                Ok(())
            },
        )?;
        if rowed.is_empty()
            && let Some(Finding { path, reason, .. }) = findings.first()
        {
            return Err(Error::data(path, reason.clone()));
        }
        l2_normalise(&mut rows, columns);
        // A row of zeros has no direction.
        let (mut kept, mut directed) = (Vec::new(), Vec::new());
        for (&i, row) in rowed.iter().zip(rows.chunks_exact(columns)) {
            if row.iter().any(|&x| x != 0.0) {
                kept.push(i);
                directed.extend_from_slice(row);
            }
        }
        Ok(Survey { pictures, places, looks, findings, rows: directed, rowed: kept, columns })
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.columns..(row + 1) * self.columns]
    }

    fn add(&mut self, finding: Kind, i: usize, reason: String, other: Option<usize>, score: Option<f64>) {
        let other = other.map(|other| self.pictures.path(other));
        self.findings.push(Finding { finding, path: self.pictures.path(i), reason, other, score });
    }

    /// Of every picture with contrast the outline, by which copies are similar whatever a network makes of them.
    fn outlines(&self) -> Outlines {
        let seen = self.looks.iter().enumerate().filter_map(|(i, look)| Some((i, look.as_ref()?.outline()?)));
        let (of, rows): (Vec<usize>, Vec<[f32; 64]>) = seen.unzip();
        Outlines { rows: rows.concat(), columns: 64, of }
    }

    /// Tiny, blank and blurred pictures.
    fn of_single_pictures(&mut self, side: usize) {
        let looks = std::mem::take(&mut self.looks);
        let seen = || looks.iter().enumerate().filter_map(|(i, look)| Some((i, look.as_ref()?)));
        for (i, look) in seen() {
            let (width, height) = look.size;
            let shorter = width.min(height) as usize;
            if 2 * shorter < side {
                let reason = format!("{width} x {height}, and the network takes {side} x {side}");
                self.add(Kind::Tiny, i, reason, None, Some(shorter as f64));
            }
            if look.contrast < BLANK {
                let contrast = look.contrast;
                let reason = format!("all but one colour: gray levels deviate by {contrast:.2} of 255");
                self.add(Kind::Blank, i, reason, None, Some(f64::from(contrast)));
            }
        }
        // By orders of magnitude, as sharpness spreads over several.
        let sharp = || seen().filter(|(_, look)| look.contrast >= BLANK && look.sharpness > 0.0);
        let level = |look: &Look| f64::from(look.sharpness).ln();
        if let Some((centre, spread)) = middle(sharp().map(|(_, look)| level(look)).collect()) {
            let least = (centre - BLURRED_BEYOND * spread).min(centre + BLURRED_SHARE.ln());
            let mut blurred: Vec<(usize, f64)> =
                sharp().map(|(i, look)| (i, level(look))).filter(|(_, level)| *level < least).collect();
            blurred.sort_by(|a, b| a.1.total_cmp(&b.1));
            for (i, level) in blurred {
                let share = (level - centre).exp();
                let reason = format!("{:.1} % of the sharpness in the middle of the set", 100.0 * share);
                self.add(Kind::Blurred, i, reason, None, Some(share));
            }
        }
        self.looks = looks;
    }

    /// Where a copy lies, beside its original.
    fn places_of(&self, i: usize, other: usize) -> String {
        let class = |i: usize| self.places.class[i].map(|class| self.places.classes[class as usize].as_str());
        let mut words = String::new();
        if class(i) != class(other) {
            words +=
                &format!(", in another class: {} and {}", class(i).unwrap_or("none"), class(other).unwrap_or("none"));
        }
        if let (Some(own), Some(others)) = (self.places.split[i], self.places.split[other])
            && own != others
        {
            words += &format!(", in another split: {own} and {others}");
        }
        words
    }

    /// The same file or the same pixels, each with the first of them.
    fn duplicates(&mut self) {
        let looks = std::mem::take(&mut self.looks);
        let (mut files, mut pixels): (HashMap<u128, usize>, HashMap<u128, usize>) = Default::default();
        for (i, look) in looks.iter().enumerate() {
            let Some(look) = look else { continue };
            let (file, same) = (*files.entry(look.file).or_insert(i), *pixels.entry(look.pixels).or_insert(i));
            let (what, first) = if file != i { ("the same file", file) } else { ("the same pixels", same) };
            if first != i {
                let reason = format!("{what}{}", self.places_of(i, first));
                self.add(Kind::Duplicate, i, reason, Some(first), Some(1.0));
            }
        }
        self.looks = looks;
    }

    /// Pictures that are among the most similar ones, by the network or by outline, and alike pixel by pixel after a small
    /// shift. `found` has neighbours, by row, and the picture of each row.
    fn near_duplicates(
        &mut self,
        found: [(&Neighbours, &[usize]); 2],
        least: f64,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        // The earlier picture of a pair is the original.
        let mut pairs: Vec<Vec<usize>> = vec![Vec::new(); self.looks.len()];
        for (neighbours, of) in found {
            for (&i, found) in of.iter().zip(neighbours) {
                for other in found.iter().map(|(row, _)| of[*row]) {
                    pairs[i.max(other)].push(i.min(other));
                }
            }
        }
        pairs.iter_mut().for_each(|others| {
            others.sort_unstable();
            others.dedup();
        });
        let looks = &self.looks;
        let best = |i: usize| -> Result<Option<(usize, f32)>> {
            let Some(look) = &looks[i] else { return Ok(None) };
            let mut best: Option<(usize, f32)> = None;
            for &other in &pairs[i] {
                let Some(its) = &looks[other] else { continue };
                if its.pixels == look.pixels || its.file == look.file {
                    continue;
                }
                let likeness = look.likeness(its);
                if f64::from(likeness) >= least && best.is_none_or(|(_, most)| likeness > most) {
                    best = Some((other, likeness));
                }
            }
            Ok(best)
        };
        let mut found = ahead::in_order(0..pairs.len(), 1024, best, |all| {
            let mut found = Vec::new();
            for (i, best) in all.enumerate() {
                if i % 1024 == 0 {
                    progress.go_on()?;
                }
                found.extend(best?.map(|(other, likeness)| (i, other, likeness)));
            }
            Ok(found)
        })?;
        found.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.0.cmp(&b.0)));
        for (i, other, likeness) in found {
            let reason = format!("alike by {likeness:.3}{}", self.places_of(i, other));
            self.add(Kind::NearDuplicate, i, reason, Some(other), Some(f64::from(likeness)));
        }
        Ok(())
    }

    /// Labels that another is far more likely than, and pictures that are like none.
    fn labels_and_outliers(&mut self, neighbours: &Neighbours, ratio: f64, progress: &mut dyn Progress) -> Result<()> {
        let labels: Vec<Option<u32>> = self.rowed.iter().map(|&i| self.places.class[i]).collect();
        let has_classes = self.places.classes.len() > 1;
        let mut closeness: Vec<Option<f64>> = vec![None; labels.len()];
        let mut wrong = Vec::new();
        if has_classes && !self.rows.is_empty() {
            let prototypes =
                Prototypes::new(Features::new(&self.rows, self.columns)?, &labels, self.places.classes.len())?;
            let judge = |row: usize| Ok(labels[row].and_then(|label| prototypes.judge(self.row(row), label)));
            ahead::in_order(0..labels.len(), 1024, judge, |all| {
                for row in 0..labels.len() {
                    if row % 1024 == 0 {
                        progress.go_on()?;
                    }
                    let (Some(verdict), Some(label)) = (all.next().transpose()?.flatten(), labels[row]) else {
                        continue;
                    };
                    closeness[row] = Some(f64::from(verdict.cosine));
                    if verdict.likely != label && verdict.probability > ratio * verdict.given {
                        wrong.push((row, label, verdict));
                    }
                }
                Ok(())
            })?;
        } else {
            for (closeness, found) in closeness.iter_mut().zip(neighbours) {
                let n = found.len() as f64;
                *closeness = (n > 0.0).then(|| found.iter().map(|(_, cosine)| f64::from(*cosine)).sum::<f64>() / n);
            }
        }
        wrong.sort_by(|(a, _, of_a), (b, _, of_b)| of_a.given.total_cmp(&of_b.given).then(a.cmp(b)));
        for (row, label, verdict) in &wrong {
            let class = |class: u32| self.places.classes[class as usize].as_str();
            let reason = format!(
                "rather {} ({:.0} %) than {} ({:.1} %)",
                class(verdict.likely),
                100.0 * verdict.probability,
                class(*label),
                100.0 * verdict.given
            );
            let other =
                neighbours[*row].iter().map(|(other, _)| *other).find(|&other| labels[other] == Some(verdict.likely));
            self.add(Kind::Label, self.rowed[*row], reason, other.map(|other| self.rowed[other]), Some(verdict.given));
        }
        let mislabelled: std::collections::HashSet<usize> = wrong.iter().map(|(row, ..)| *row).collect();
        let Some((centre, spread)) = middle(closeness.iter().flatten().copied().collect()) else { return Ok(()) };
        let far = |(row, closeness): (usize, &Option<f64>)| Some((row, (*closeness)?));
        let mut outliers: Vec<(usize, f64)> = closeness.iter().enumerate().filter_map(far).collect();
        outliers.retain(|(row, cosine)| *cosine < centre - OUTLIER_BEYOND * spread && !mislabelled.contains(row));
        outliers.sort_by(|a, b| a.1.total_cmp(&b.1));
        for (row, cosine) in outliers {
            let of = if has_classes { "the others of its class" } else { "the pictures most similar to it" };
            let reason = format!("far from {of}: cosine {cosine:.2}, in the middle of the set {centre:.2}");
            self.add(Kind::Outlier, self.rowed[row], reason, None, Some(cosine));
        }
        Ok(())
    }
}
