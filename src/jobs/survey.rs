//! What can be learnt of pictures and their embeddings, and what is probably wrong with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::rows::embed_each;
use crate::data::embeddings::{Reader, ShardStats};
use crate::data::{DataOptions, LeftOut, Look, Pictures, Places, ahead, split_of_shard};
use crate::fewshot::{Features, Nearest, Prototypes, l2_normalise};
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// Neighbours that are compared with a picture, and by which one without a class is an outlier.
const NEIGHBOURS: usize = 8;
/// Pictures whose neighbours are searched at once.
const QUERIES: usize = 4096;
/// Standard deviation of the gray levels below which a picture is blank.
const BLANK: f32 = 2.0;
/// Pictures that a measure relative to the set needs.
const ENOUGH: usize = 20;
/// How far from the middle of the set a picture is blurred or an outlier, in robust standard deviations.
const BLURRED_BEYOND: f64 = 4.0;
const OUTLIER_BEYOND: f64 = 5.0;
/// A blurred picture has at most this share of the sharpness in the middle of the set.
const BLURRED_SHARE: f64 = 0.25;

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
    pub(super) const ALL: [Kind; 8] = [
        Kind::Unreadable,
        Kind::Duplicate,
        Kind::NearDuplicate,
        Kind::Label,
        Kind::Outlier,
        Kind::Blurred,
        Kind::Tiny,
        Kind::Blank,
    ];

    /// Whether it is a matter of pixels, which embeddings do not tell.
    pub fn needs_pictures(self) -> bool {
        matches!(self, Kind::NearDuplicate | Kind::Blurred | Kind::Tiny | Kind::Blank)
    }

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

impl Finding {
    /// A file that cannot be read.
    fn unreadable(LeftOut { path, why: reason }: LeftOut) -> Finding {
        Finding { finding: Kind::Unreadable, path, reason, other: None, score: None }
    }
}

/// What was learnt of the pictures.
pub(super) struct Survey {
    /// Of every picture.
    pub paths: Vec<PathBuf>,
    pub places: Places,
    /// Of every picture; none where it cannot be read, or was not looked at.
    looks: Vec<Option<Look>>,
    pub findings: Vec<Finding>,
    /// Unit rows of the pictures in `rowed`, `[rows, columns]`.
    rows: Vec<f32>,
    rowed: Vec<usize>,
    columns: usize,
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
    pub fn of(
        pictures: &Pictures,
        places: Places,
        extractor: &Extractor,
        options: &DataOptions,
        progress: &mut dyn Progress,
    ) -> Result<Survey> {
        let columns = extractor.width(Layer::Feature).unwrap_or(0).max(1);
        let (mut looks, mut rowed, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let mut findings: Vec<Finding> = pictures.left_out().iter().cloned().map(Finding::unreadable).collect();
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
                        findings.push(Finding::unreadable(LeftOut::of(error)?));
                    }
                }
                Ok(())
            },
        )?;
        let paths = (0..pictures.len()).map(|i| pictures.path(i)).collect();
        Survey { paths, places, looks, findings, rows, rowed, columns }.directed()
    }

    /// Takes the embeddings of shards as `embed` wrote them. The pictures are not looked at.
    ///
    /// # Errors
    /// [`Error::Data`] or [`Error::Io`] where they cannot be read.
    pub fn of_shards(shards: &[(PathBuf, ShardStats)], progress: &mut dyn Progress) -> Result<Survey> {
        let (mut paths, mut names, mut rows, mut findings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut said, mut splits) = (Vec::new(), Vec::new());
        let columns = shards.first().map_or(1, |(_, stats)| stats.columns).max(1);
        let has_samples = |stats: &ShardStats| !stats.class.is_empty();
        let mut row = Vec::new();
        for ((file, stats), done) in shards.iter().zip(1..) {
            progress.go_on()?;
            findings.extend(stats.left_out.iter().cloned().map(Finding::unreadable));
            let mut reader = Reader::of_shards(vec![(file.clone(), stats.clone())]);
            let split = split_of_shard(&stats.shard).filter(|_| has_samples(stats));
            let before = paths.len();
            while let Some(path) = reader.next(&mut row)? {
                rows.extend_from_slice(&row);
                let path = PathBuf::from(path);
                let name = path.strip_prefix(&stats.shard).unwrap_or(&path);
                // Folders of samples are no classes.
                let name = if has_samples(stats) { Path::new(name.file_name().unwrap_or_default()) } else { name };
                names.push(name.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"));
                said.push(stats.class_of(paths.len() - before).map(str::to_owned));
                splits.push(split);
                paths.push(path);
            }
            progress.advance("reading shard", done, shards.len() as u64);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut places = Places::of(&names).with_classes(&said);
        for (of_folder, of_shard) in places.split.iter_mut().zip(splits) {
            *of_folder = of_folder.or(of_shard);
        }
        let n = paths.len();
        Survey { paths, places, looks: vec![None; n], findings, rows, rowed: (0..n).collect(), columns }.directed()
    }

    /// With rows of length 1; those of zeros, which have no direction, are taken away.
    fn directed(mut self) -> Result<Survey> {
        if self.rowed.is_empty() {
            return Err(match self.findings.first() {
                Some(Finding { path, reason, .. }) => Error::data(path, reason.clone()),
                None => Error::usage("there are no pictures to look at"),
            });
        }
        l2_normalise(&mut self.rows, self.columns);
        let (mut kept, mut directed) = (Vec::new(), Vec::with_capacity(self.rows.len()));
        for (&i, row) in self.rowed.iter().zip(self.rows.chunks_exact(self.columns)) {
            if row.iter().any(|x| !x.is_finite()) {
                return Err(Error::NonFinite(format!(
                    "the embedding of {} is not finite: use a checkpoint from before the training diverged",
                    self.paths[i].display()
                )));
            }
            if row.iter().any(|&x| x != 0.0) {
                kept.push(i);
                directed.extend_from_slice(row);
            }
        }
        (self.rows, self.rowed) = (directed, kept);
        Ok(self)
    }

    /// Everything that is probably wrong; near duplicates are alike by `likeness`, and another label `ratio` times as likely.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the caller asks to stop; what the device refuses.
    pub fn judge(
        &mut self,
        kernels: &mut Kernels,
        side: usize,
        likeness: f64,
        ratio: f64,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let neighbours = nearest(kernels, &self.rows, self.columns, "neighbours of pictures", progress)?;
        if self.looks.iter().any(Option::is_some) {
            let outlines = self.outlines();
            let alike = nearest(kernels, &outlines.rows, outlines.columns, "copies of pictures", progress)?;
            self.of_single_pictures(side);
            self.duplicates();
            let rowed = self.rowed.clone();
            self.near_duplicates([(&neighbours, &rowed), (&alike, &outlines.of)], likeness, progress)?;
        } else {
            self.same_rows();
        }
        self.labels_and_outliers(&neighbours, ratio, progress)
    }

    /// The same embedding, each with the first of them: what is known of copies where no picture was looked at.
    fn same_rows(&mut self) {
        let mut first: HashMap<u128, usize> = HashMap::new();
        let rows = self.rowed.iter().zip(self.rows.chunks_exact(self.columns));
        let found: Vec<(usize, usize)> = rows
            .filter_map(|(&i, row)| {
                let first = *first.entry(xxh3_128(bytemuck::cast_slice(row))).or_insert(i);
                (first != i).then_some((i, first))
            })
            .collect();
        for (i, first) in found {
            let reason = format!("the same embedding{}", self.places_of(i, first));
            self.add(Kind::Duplicate, i, reason, Some(first), Some(1.0));
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.columns..(row + 1) * self.columns]
    }

    fn add(&mut self, finding: Kind, i: usize, reason: String, other: Option<usize>, score: Option<f64>) {
        let other = other.map(|other| self.paths[other].clone());
        self.findings.push(Finding { finding, path: self.paths[i].clone(), reason, other, score });
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
