//! `predict`: from a few pictures of each class to the classes of others.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::rows::{Embedder, Row};
use super::support_file::{Labelled, is_support};
use super::table::{table_bytes, table_file};
use super::{Session, Stored, copies, data_options, distinct, look_options, model, own_file};
use crate::data::{self, ImageSet, LeftOut, Pictures};
use crate::fewshot::reference::{Reference, Source};
use crate::fewshot::{Features, Support};
use crate::files::replace_file;
use crate::progress::Progress;
use crate::train::features::Layer;
use crate::train::{Extractor, reference};
use crate::{Error, Result};

/// What a picture is called that is like no class, in tables and as a folder of copies.
pub const NONE: &str = "none of these";

/// The share of the pictures of known classes that may be called none of these, unless it is said.
pub const UNKNOWN: f64 = 0.05;

/// The first columns of a table of answers; one per class follows.
const COLUMNS: [&str; 3] = ["path", "label", "probability"];

/// Answers on pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictRequest {
    /// The network: see [`model::open`]. A support that was saved brings its classes along.
    pub model: PathBuf,
    /// Folders, zips or tars of a folder per class.
    pub support: Vec<PathBuf>,
    /// Further pictures of the support, each with its class.
    pub add: Vec<(String, PathBuf)>,
    /// The pictures to answer on: folders, zip and tar files and image files; none where the support alone is saved.
    pub inputs: Vec<PathBuf>,
    /// The share of the pictures of known classes that may be called none of these; none: every picture gets a class.
    pub unknown: Option<f64>,
    /// File for the support and its network.
    pub save: Option<PathBuf>,
    /// Table to write.
    pub csv: Option<PathBuf>,
    /// Folder for copies of the pictures, sorted by class.
    pub copy_to: Option<PathBuf>,
}

/// A class of the support.
#[derive(Clone, Debug, Serialize)]
pub struct SupportClass {
    /// Its name.
    pub name: String,
    /// Its pictures.
    pub pictures: usize,
    /// The similarity below which a picture that is nearest to it is none of these, where pictures may be.
    pub threshold: Option<f64>,
}

/// The answer on a picture.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// The picture.
    pub path: String,
    /// Its class; none where it is none of these.
    pub label: Option<String>,
    /// Probability of the nearest class, given that it is one of these, 0 to 1.
    pub probability: f64,
    /// The nearest class.
    pub nearest: String,
    /// Cosine with the mean of that class.
    pub similarity: f64,
    /// The probability of each class, in the order of the classes.
    pub probabilities: Vec<f64>,
    /// Its copy.
    pub copy: Option<PathBuf>,
}

/// Answers.
#[derive(Clone, Debug, Serialize)]
pub struct PredictOutcome {
    /// The network.
    pub model: PathBuf,
    /// The classes.
    pub classes: Vec<SupportClass>,
    /// The share of the pictures of known classes that may be called none of these.
    pub unknown: Option<f64>,
    /// What the probabilities and thresholds rest on beside the support.
    pub reference: Source,
    /// Answers in the order of the pictures.
    pub answers: Vec<Answered>,
    /// Files that could not be read.
    pub left_out: Vec<LeftOut>,
    /// The file with the support and its network.
    pub saved: Option<PathBuf>,
    /// The table.
    pub csv: Option<PathBuf>,
}

impl PredictOutcome {
    /// Fails where a file was left out.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are.
    pub fn complete(&self) -> Result<()> {
        match self.left_out.len() {
            0 => Ok(()),
            n => Err(Error::TargetMissed(format!(
                "{n} {} could not be read and {} no answer: replace them or take them away",
                if n == 1 { "file" } else { "files" },
                if n == 1 { "has" } else { "have" }
            ))),
        }
    }
}

impl PredictRequest {
    fn validate(&self) -> Result<()> {
        if let Some(rate) = self.unknown
            && !(rate > 0.0 && rate <= 0.5)
        {
            return Err(Error::Argument {
                what: "request.unknown",
                got: rate.to_string(),
                wanted: format!("a share above 0 and up to 0.5, or off (try {UNKNOWN})"),
            });
        }
        for path in self.support.iter().chain(self.add.iter().map(|(_, path)| path)).chain(&self.inputs) {
            if !path.exists() {
                return Err(Error::data(path, "there is no such file or folder"));
            }
        }
        if let Some((class, path)) = self.add.iter().find(|(class, _)| class.trim().is_empty()) {
            return Err(Error::usage(format!("`request.add` {class}={} has no name (try cat=a.png)", path.display())));
        }
        if self.inputs.is_empty() && self.save.is_none() {
            return Err(Error::usage("there is no picture to answer on: name some, or `request.save` a file"));
        }
        if let Some(file) = &self.save {
            own_file("request.save", file, "support.safetensors", "support", is_support)?;
        }
        if let Some(file) = &self.csv {
            table_file("request.csv", file, "answers.csv", &COLUMNS)?;
            distinct(("request.save", self.save.as_ref()), ("request.csv", Some(file)))?;
        }
        let Some(root) = &self.copy_to else { return Ok(()) };
        if root.exists() && !root.is_dir() {
            return Err(Error::data(root, "this is a file, and `request.copy_to` wants a folder: name another"));
        }
        // Of a folder that is not there yet the part that is.
        let whole = std::path::absolute(root).unwrap_or_else(|_| root.clone());
        let whole = whole.ancestors().find_map(|part| part.canonicalize().ok()).unwrap_or(whole);
        let above = |path: &&PathBuf| path.canonicalize().is_ok_and(|path| path.is_dir() && whole.starts_with(path));
        let added = self.add.iter().map(|(_, path)| path);
        match self.support.iter().chain(added).chain(&self.inputs).find(above) {
            Some(own) => Err(Error::data(
                root,
                format!("lies in {}, whose pictures are read: name a `request.copy_to` elsewhere", own.display()),
            )),
            None => Ok(()),
        }
    }

    /// Some of the pictures, for the choice of a shipped network.
    fn look(&self) -> Result<ImageSet> {
        let paths = match (self.support.is_empty(), self.add.is_empty()) {
            (false, _) => self.support.clone(),
            (true, false) => self.add.iter().map(|(_, path)| path.clone()).collect(),
            (true, true) => self.inputs.clone(),
        };
        data::sample_unlabelled(&paths, &look_options())
    }
}

/// For every picture below `root` the folder that it lies in, without what all have in common.
fn classes_below(root: &Path, pictures: &[String]) -> Result<Vec<String>> {
    let mut folders: Vec<Vec<String>> = Vec::new();
    for picture in pictures {
        let path = Path::new(picture);
        let below = path.strip_prefix(root).unwrap_or(path).parent().unwrap_or(Path::new(""));
        let parts = below.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        });
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() {
            return Err(Error::data(
                picture,
                "lies in no class folder: `request.support` wants a folder with a folder of pictures for each class",
            ));
        }
        folders.push(parts);
    }
    let first = folders.first().cloned().unwrap_or_default();
    let shared = |parts: &Vec<String>| first.iter().zip(parts).take_while(|(a, b)| a == b).count();
    let common = folders.iter().map(shared).min().unwrap_or(0);
    // A class keeps its own name.
    let common = folders.iter().map(|parts| common.min(parts.len() - 1)).min().unwrap_or(0);
    Ok(folders.into_iter().map(|parts| parts[common..].join("/")).collect())
}

/// The whole support: what was saved, the class folders, and single pictures.
fn gather(request: &PredictRequest, stored: &mut Stored, embedder: &mut Embedder) -> Result<Labelled> {
    let columns = embedder.extractor.width(Layer::Feature).unwrap_or(0);
    let mut support = stored.support.take().unwrap_or(Labelled { columns, ..Labelled::default() });
    if support.columns != columns {
        return Err(Error::data(
            &stored.file,
            format!("its support has {} columns, and its network {columns}: save it again", support.columns),
        ));
    }
    let mut again = 0;
    let mut add = |path: &Path, class: Option<&str>| {
        let pictures = Pictures::open(&[path.to_owned()], false)?;
        let paths: Vec<String> = (0..pictures.len()).map(|i| pictures.path(i).display().to_string()).collect();
        let classes = match class {
            Some(class) => vec![class.to_owned(); paths.len()],
            None => classes_below(path, &paths)?,
        };
        embedder.each(&pictures, |Row { picture: i, pixels, features }| {
            again += usize::from(!support.push(&classes[i], paths[i].clone(), pixels, features));
            Ok(())
        })
    };
    request.support.iter().try_for_each(|root| add(root, None))?;
    request.add.iter().try_for_each(|(class, path)| add(path, Some(class.trim())))?;
    if again > 0 {
        let are = if again == 1 { "picture of the support is" } else { "pictures of the support are" };
        embedder.progress.warn(&format!("{again} {are} there twice in a class, and counted once"));
    }
    if support.labels.is_empty() {
        return Err(Error::usage(
            "there is no support: `request.support` names a folder with a folder of pictures for each class, \
             `request.add` a class and a picture of it, and `request.model` may name a support that was saved",
        ));
    }
    if support.classes.iter().any(|class| class == NONE) {
        return Err(Error::usage(format!(
            "a class is called `{NONE}`, as pictures of no class are: rename its folder"
        )));
    }
    if support.classes.len() == 1 && request.unknown.is_none() {
        return Err(Error::usage(format!(
            "with the one class {} and without `request.unknown` there is one answer: give another class, or \
             `request.unknown` {UNKNOWN}",
            support.classes[0]
        )));
    }
    Ok(support)
}

/// What the probabilities rest on, and a note where the network says too little.
fn reference_of(stored: &Stored, look: model::Look, progress: &mut dyn Progress) -> Result<Reference> {
    let [r, g, b] = stored.config.data.mean;
    let typical = Reference::typical(r == g && g == b);
    match reference::of(&stored.file, &stored.checkpoint)? {
        Some(_) if !model::knows(&stored.file, look)? => {
            progress.note(
                "the shipped networks know drawings on an empty ground, and these pictures have none: probabilities and the \
                 threshold rest on the support and on what is usual, and a network that was trained on such pictures \
                 tells more apart",
            );
            Ok(typical)
        }
        Some(found) => Ok(found),
        None => {
            progress.note(
                "this checkpoint does not say how similar its pictures are, as those of earlier versions and of \
                 unfinished runs: probabilities and the threshold rest on the support and on what is usual; with one picture per class \
                 they are rough",
            );
            Ok(typical)
        }
    }
}

/// Answers on pictures.
///
/// # Errors
/// A request, network or pictures that cannot be used; files that cannot be written; what the device refuses.
pub fn run(request: &PredictRequest, session: &Session, progress: &mut dyn Progress) -> Result<PredictOutcome> {
    request.validate()?;
    // Twice at most, and decoded once.
    let mut seen: Option<ImageSet> = None;
    let mut look = || match &seen {
        Some(images) => Ok(images.clone()),
        None => Ok(seen.insert(request.look()?).clone()),
    };
    let mut stored = model::open(&request.model, &mut look, progress)?;
    let options = data_options(&stored.config.data, Some(stored.side()?));
    let reference = reference_of(&stored, &mut look, progress)?;
    let kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels, &stored.file, &stored.checkpoint, false)?;
    let mut embedder = Embedder { extractor, options, left_out: Vec::new(), progress };
    let support = gather(request, &mut stored, &mut embedder)?;
    let pictures = match request.inputs.as_slice() {
        [] => None,
        inputs => Some(Pictures::open(inputs, false)?),
    };
    let features = Features::new(&support.features, support.columns)?;
    let learned = Support::new(features, &support.labels, support.classes.len(), &reference)?;
    if let Some(file) = &request.save {
        let mut saved = support.with_network(&stored.checkpoint)?;
        reference::put(&reference, &mut saved)?;
        replace_file(file, "cannot write the support", &saved.to_bytes()?)?;
    }
    // The picture of each answer.
    let mut of = Vec::new();
    let mut answers = Vec::new();
    if let Some(pictures) = &pictures {
        let mut in_support = Vec::new();
        let rows: HashMap<u128, usize> =
            (0..support.pixels.len()).rev().map(|row| (support.pixels[row], row)).collect();
        embedder.each(pictures, |Row { picture, pixels, features }| {
            let path = pictures.path(picture).display().to_string();
            let own = rows.get(&pixels).copied();
            in_support.extend(own.map(|_| path.clone()));
            let found = learned.answer(features, own, request.unknown)?;
            let name = |class: usize| support.classes[class].clone();
            of.push(picture);
            answers.push(Answered {
                path,
                label: found.class.map(name),
                probability: found.nearest.map_or(0.0, |nearest| found.probabilities[nearest]),
                nearest: found.nearest.map_or_else(|| NONE.into(), name),
                similarity: found.similarity,
                probabilities: found.probabilities,
                copy: None,
            });
            Ok(())
        })?;
        if let Some(first) = in_support.first() {
            embedder.progress.warn(&format!(
                "{} of the pictures, {first} the first, {} in the support, too: each is answered by the others alone",
                in_support.len(),
                if in_support.len() == 1 { "is" } else { "are" }
            ));
        }
    }
    let count = |class: usize| support.labels.iter().filter(|&&label| label as usize == class).count();
    let class = |(class, name): (usize, &String)| SupportClass {
        name: name.clone(),
        pictures: count(class),
        threshold: request.unknown.map(|rate| learned.threshold(class, rate)),
    };
    let mut outcome = PredictOutcome {
        model: stored.file.clone(),
        classes: support.classes.iter().enumerate().map(class).collect(),
        unknown: request.unknown,
        reference: reference.source,
        answers,
        left_out: embedder.left_out,
        saved: request.save.clone(),
        csv: request.csv.clone(),
    };
    write_table(request, &outcome)?;
    if let (Some(root), Some(pictures)) = (&request.copy_to, &pictures) {
        for (answer, picture) in outcome.answers.iter_mut().zip(of) {
            progress.go_on()?;
            let folder = answer.label.as_deref().map_or_else(|| NONE.into(), copies::folder_name);
            let name = pictures.path(picture);
            let name = Path::new(name.file_name().unwrap_or(name.as_os_str()));
            answer.copy = Some(copies::copy(name, &pictures.read(picture)?, root, &folder)?);
        }
    }
    Ok(outcome)
}

fn write_table(request: &PredictRequest, outcome: &PredictOutcome) -> Result<()> {
    let Some(file) = &request.csv else { return Ok(()) };
    let names = outcome.classes.iter().map(|class| class.name.clone());
    let head = COLUMNS.iter().map(ToString::to_string).chain(names).collect();
    let rows = outcome.answers.iter().map(|answer| {
        let (label, probability) = match &answer.label {
            Some(label) => (label.clone(), format!("{:.4}", answer.probability)),
            None => (NONE.into(), String::new()),
        };
        let each = answer.probabilities.iter().map(|p| format!("{p:.4}"));
        [answer.path.clone(), label, probability].into_iter().chain(each).collect()
    });
    replace_file(file, "cannot write the table", &table_bytes(std::iter::once(head).chain(rows))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_folders_without_what_all_share() {
        let below = |pictures: &[&str]| {
            let pictures: Vec<String> = pictures.iter().map(ToString::to_string).collect();
            classes_below(Path::new("s"), &pictures)
        };
        assert_eq!(below(&["s/a/1.png", "s/b/1.png", "s/a/2.png"]).unwrap(), ["a", "b", "a"]);
        assert_eq!(below(&["s/x/a/1.png", "s/x/b/1.png"]).unwrap(), ["a", "b"]);
        assert_eq!(below(&["s/x/a/1.png", "s/y/a/1.png"]).unwrap(), ["x/a", "y/a"]);
        assert_eq!(below(&["s/x/a/1.png", "s/x/a/2.png"]).unwrap(), ["a", "a"]);
        assert_eq!(below(&["s/a/1.png", "s/a/deeper/1.png"]).unwrap(), ["a", "a/deeper"]);
        assert!(below(&["s/a/1.png", "s/1.png"]).unwrap_err().to_string().contains("no class folder"));
    }
}
