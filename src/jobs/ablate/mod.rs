//! `ablate`: the same run with losses left out and other transforms, one after the other, and a table of them.

mod figure;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use self::figure::figure;
use super::distill::{self, DistillRequest, without_beginning};
use super::fit::Given;
use super::score::Score;
use super::train::{self, Begin, TrainOutcome, TrainRequest};
use super::{Session, Stored};
use crate::files::replace_file;
use crate::files::run_folder::{CHECKPOINT_FILE, Existing};
use crate::progress::Progress;
use crate::settings::{Config, TransformSet, put};
use crate::{Error, Result};

/// The published ablations.
pub const VARIANTS: [&str; 5] = ["none", "invariance", "equivariance", "both", "distilled"];

/// The network that [`Variant::Distilled`] has for its teacher.
const BOTH: &str = "both";

/// Files that the folder gets beside the run folders.
const TABLE: &str = "table.md";
const CSV: &str = "ablation.csv";
const FIGURE: &str = "ablation.svg";

/// What a run of the table has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Variant {
    /// The class loss, and of transform and contrastive loss those that are on.
    Losses { equivariance: bool, invariance: bool },
    /// The student of the network with both.
    Distilled,
    /// Both under another set of transforms.
    Transforms(TransformSet),
}

impl Variant {
    /// The settings that it changes.
    fn layer(self) -> toml::Table {
        let (equivariance, invariance) = match self {
            Variant::Losses { equivariance, invariance } => (equivariance, invariance),
            _ => (true, true),
        };
        let mut layer = toml::Table::new();
        put(&mut layer, "method.kind", "ier".into());
        put(&mut layer, "method.equivariance", equivariance.into());
        put(&mut layer, "method.invariance", invariance.into());
        if let Variant::Transforms(set) = self {
            put(&mut layer, "method.transforms", set.to_string().into());
            if set.rotations() == 1 {
                // They tell rotations apart.
                put(&mut layer, "method.joint_labels", false.into());
            }
        }
        layer
    }
}

impl FromStr for Variant {
    type Err = Error;

    fn from_str(name: &str) -> Result<Variant> {
        let losses = |equivariance, invariance| Ok(Variant::Losses { equivariance, invariance });
        match name {
            "none" => losses(false, false),
            "invariance" => losses(false, true),
            "equivariance" => losses(true, false),
            BOTH => losses(true, true),
            "distilled" => Ok(Variant::Distilled),
            other => other.parse().map(Variant::Transforms).map_err(|_| {
                Error::usage(format!(
                    "`request.variants` has `{other}`, and a variant is one of {} or a set of transforms such as rot4 or \
                     affine-8",
                    VARIANTS.join(", ")
                ))
            }),
        }
    }
}

/// An ablation to make, or to go on with.
#[derive(Clone, Debug)]
pub struct AblateRequest {
    /// The settings of every run; each variant changes the losses or the transforms of the method.
    pub config: Config,
    /// As [`TrainRequest::given`].
    pub given: Given,
    /// The names of the runs, in the order of the table: those of [`VARIANTS`], and sets of transforms.
    pub variants: Vec<String>,
    /// The folder of the run folders, the table and the figure.
    pub out: PathBuf,
    /// What the user is told goes on when the job is stopped.
    pub resume_command: String,
}

/// A finished run of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AblateRow {
    /// Its name.
    pub variant: String,
    /// Transforms of an image.
    pub transforms: usize,
    /// Steps.
    pub steps: u32,
    /// Wall time of its training, seconds.
    pub seconds: f64,
    /// Scores on the novel classes, 1-shot by logistic regression first; empty where there are too few classes or images.
    pub scores: Vec<Score>,
}

/// What is kept of a run beside its folder: what was asked for, and what came of it once it is finished.
#[derive(Serialize, Deserialize)]
struct Kept {
    asked: String,
    row: Option<AblateRow>,
}

/// A finished ablation.
#[derive(Clone, Debug, Serialize)]
pub struct AblateOutcome {
    /// The runs in the order that was asked for.
    pub rows: Vec<AblateRow>,
    /// The table.
    pub table: PathBuf,
    /// The same as a CSV file.
    pub csv: PathBuf,
    /// The figure (SVG).
    pub figure: PathBuf,
}

/// Trains each variant that is not finished, and writes table and figure after each.
///
/// # Errors
/// [`Error::Usage`] for an unknown variant, or a student without its teacher; [`Error::Data`] where the folder holds other
/// files, or runs of other settings; as [`train::run`].
pub fn run(request: &AblateRequest, session: &Session, progress: &mut dyn Progress) -> Result<AblateOutcome> {
    let variants = request.variants.iter().map(|name| name.parse()).collect::<Result<Vec<Variant>>>()?;
    for (i, name) in request.variants.iter().enumerate() {
        if request.variants[..i].contains(name) {
            return Err(Error::usage(format!("`request.variants` has {name} twice")));
        }
    }
    let teacher = request.variants.iter().position(|name| name == BOTH);
    if let Some(student) = variants.iter().position(|variant| *variant == Variant::Distilled)
        && teacher.is_none_or(|teacher| teacher > student)
    {
        return Err(Error::usage(format!(
            "the variant distilled is a student of the network of {BOTH}: name {BOTH} before it in `request.variants`"
        )));
    }
    if request.variants.is_empty() {
        return Err(Error::usage(format!("`request.variants` is empty: name some of {}", VARIANTS.join(", "))));
    }
    request.given.check(&request.config, 1)?;
    check_folder(&request.out)?;
    let runs: Vec<Run> =
        request.variants.iter().zip(variants).map(|(n, v)| Run::new(request, n, v)).collect::<Result<_>>()?;
    // All of them can be read before the first is trained.
    let kept = runs.iter().map(Run::kept).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (run, row) in runs.iter().zip(kept) {
        let row = match row {
            Some(row) => {
                progress.note(&format!("{}: finished before, in {}", run.name, run.folder.display()));
                row
            }
            None => {
                progress.note(&format!("{}: training in {}", run.name, run.folder.display()));
                run.train(request, session, progress)?
            }
        };
        rows.push(row);
        write(&request.out, &rows)?;
    }
    let at = |name: &str| request.out.join(name);
    Ok(AblateOutcome { rows, table: at(TABLE), csv: at(CSV), figure: at(FIGURE) })
}

/// Refuses a folder whose files are not an ablation's.
fn check_folder(out: &Path) -> Result<()> {
    if out.is_file() {
        return Err(Error::data(out, "this is a file, and `request.out` wants a folder"));
    }
    let Ok(mut entries) = std::fs::read_dir(out) else { return Ok(()) };
    if entries.next().is_none() || out.join(CSV).is_file() {
        return Ok(());
    }
    Err(Error::data(
        out,
        "holds files that are no ablation's, and the runs would lie among them: name another folder with `request.out`",
    ))
}

/// A run of the table.
struct Run {
    name: String,
    variant: Variant,
    config: Config,
    given: Given,
    folder: PathBuf,
    /// What was asked for and what came of it.
    file: PathBuf,
}

impl Run {
    fn new(request: &AblateRequest, name: &str, variant: Variant) -> Result<Run> {
        let (mut config, mut given) = (request.config.clone(), request.given.clone());
        let layer = variant.layer();
        config.lay(&layer)?;
        config.run.out = None;
        config.validate()?;
        crate::settings::merge(&mut given.layer, &layer);
        let (folder, file) = (request.out.join(name), request.out.join(format!("{name}.json")));
        Ok(Run { name: name.to_owned(), variant, config, given, folder, file })
    }

    /// The settings that were asked for, as text.
    fn asked(&self) -> Result<String> {
        self.config.to_json()
    }

    /// The row of the run where it is finished.
    fn kept(&self) -> Result<Option<AblateRow>> {
        let Ok(text) = std::fs::read_to_string(&self.file) else { return Ok(None) };
        let kept: Kept = serde_json::from_str(&text)
            .map_err(|e| Error::data(&self.file, format!("is not what `ablate` keeps of a run ({e}): remove it")))?;
        if kept.asked != self.asked()? {
            return Err(Error::data(
                &self.file,
                "the run was begun with other settings: give the same ones, or name another folder with `request.out`",
            ));
        }
        Ok(kept.row)
    }

    fn keep(&self, row: Option<AblateRow>) -> Result<()> {
        let kept = Kept { asked: self.asked()?, row };
        let text =
            serde_json::to_string(&kept).map_err(|e| Error::Internal(format!("a row does not serialise: {e}")))?;
        replace_file(&self.file, "cannot keep the row", text.as_bytes())
    }

    /// Trains it, or goes on with it.
    fn train(&self, request: &AblateRequest, session: &Session, progress: &mut dyn Progress) -> Result<AblateRow> {
        std::fs::create_dir_all(&request.out).map_err(|e| Error::io(&request.out, "cannot make the folder", e))?;
        if !request.out.join(CSV).is_file() {
            // From here on the folder is known for an ablation's.
            write(&request.out, &[])?;
        }
        self.keep(None)?;
        let outcome = match self.variant {
            Variant::Distilled => self.distil(request, session, progress)?,
            _ => {
                let begun = self.folder.join(CHECKPOINT_FILE).is_file();
                let begin = if begun { Begin::resume(&self.folder)? } else { Begin::New };
                let config = match begin.stored() {
                    None => self.config.clone(),
                    Some(stored) => {
                        let mut config = stored.config.as_given()?;
                        config.keep_choices(&stored.config);
                        config.keep_reasoned(&stored.config);
                        config
                    }
                };
                let one = TrainRequest {
                    config,
                    given: Some(self.given.clone()).filter(|_| !begun),
                    out: self.folder.clone(),
                    begin,
                    score: true,
                    min_acc: None,
                    resume_command: request.resume_command.clone(),
                };
                train::run(&one, session, progress)?
            }
        };
        let config = Stored::open(&outcome.checkpoint)?.config;
        let row = AblateRow {
            variant: self.name.clone(),
            transforms: config.method.n_transforms(),
            steps: outcome.steps,
            seconds: outcome.seconds,
            scores: outcome.trained,
        };
        self.keep(Some(row.clone()))?;
        Ok(row)
    }

    /// The student of the network with both losses, which has its settings.
    fn distil(&self, request: &AblateRequest, session: &Session, progress: &mut dyn Progress) -> Result<TrainOutcome> {
        let teacher = request.out.join(BOTH);
        let stored = Stored::open(&teacher)?;
        let mut config = without_beginning(stored.config.as_given()?);
        config.distill.generations = 1;
        let begun = self.folder.join(CHECKPOINT_FILE).is_file();
        let one = DistillRequest {
            config,
            given: None,
            teacher: Some(teacher),
            stored: Some(stored),
            out: self.folder.clone(),
            existing: if begun { Existing::Resume } else { Existing::Refuse },
            score: true,
            min_acc: None,
            resume_command: request.resume_command.clone(),
        };
        let mut outcome = distill::run(&one, session, progress)?;
        outcome.generations.pop().ok_or_else(|| Error::Internal("a student is missing".into()))
    }
}

/// Writes the table, the CSV file and the figure of the finished runs.
fn write(out: &Path, rows: &[AblateRow]) -> Result<()> {
    let shots: Vec<usize> =
        rows.first().map_or_else(Vec::new, |row| row.scores.iter().map(|score| score.shots).collect());
    let cell = |row: &AblateRow, shots: usize| row.scores.iter().find(|score| score.shots == shots).cloned();
    let head: String = shots.iter().map(|shots| format!(" {shots}-shot |")).collect();
    let mut table =
        format!("| variant | transforms | steps |{head} seconds |\n|---|---|---|{}---|\n", "---|".repeat(shots.len()));
    let columns: String = shots.iter().map(|shots| format!(",{shots}_shot_pct,{shots}_shot_interval_pct")).collect();
    let mut csv = format!("variant,transforms,steps{columns},seconds\n");
    for row in rows {
        table += &format!("| {} | {} | {} |", row.variant, row.transforms, row.steps);
        csv += &format!("{},{},{}", row.variant, row.transforms, row.steps);
        for score in shots.iter().map(|shots| cell(row, *shots)) {
            let interval = score.as_ref().and_then(|score| score.interval_pct);
            let number = |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.3}"));
            csv += &format!(",{},{}", number(score.as_ref().map(|score| score.accuracy_pct)), number(interval));
            table += &match score {
                Some(score) => match interval {
                    Some(half) => format!(" {:.1} ± {half:.1} |", score.accuracy_pct),
                    None => format!(" {:.1} |", score.accuracy_pct),
                },
                None => " |".to_owned(),
            };
        }
        table += &format!(" {:.0} |\n", row.seconds);
        csv += &format!(",{:.1}\n", row.seconds);
    }
    table += "\nAccuracy in percent on the novel classes by logistic regression; ±: half of the 95 % interval over episodes.\n";
    for (name, text) in [(TABLE, &table), (CSV, &csv), (FIGURE, &figure(rows))] {
        replace_file(&out.join(name), "cannot write the ablation", text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_variant_changes_the_losses_or_the_transforms() {
        let method = |name: &str| {
            let mut config = Config::from_preset("demo").unwrap();
            config.lay(&name.parse::<Variant>().unwrap().layer()).unwrap();
            config.validate().unwrap_or_else(|error| panic!("{name}: {error}"));
            let terms = config.method.terms();
            (terms.equivariance, terms.invariance, config.method.n_transforms())
        };
        assert_eq!(
            ["none", "invariance", "equivariance"].map(|name| (method(name).0, method(name).1)),
            [(false, false), (false, true), (true, false)]
        );
        assert_eq!(method("affine-8"), (true, true, 8));
        assert!("neither".parse::<Variant>().unwrap_err().to_string().contains("none, invariance, equivariance, both"));
    }

    #[test]
    fn table_and_figure_are_of_what_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let score = |shots, accuracy_pct| Score {
            classifier: "logistic-regression".into(),
            ways: 5,
            shots,
            queries: 15,
            episodes: 600,
            accuracy_pct,
            interval_pct: Some(0.5),
        };
        let row = |variant: &str, accuracy: f64| AblateRow {
            variant: variant.into(),
            transforms: 4,
            steps: 9,
            seconds: 1.25,
            scores: vec![score(1, accuracy), score(5, accuracy + 9.0)],
        };
        write(folder.path(), &[row("none", 50.0), row("both", 60.25)]).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read(TABLE).contains("| both | 4 | 9 | 60.2 ± 0.5 | 69.2 ± 0.5 | 1 |"), "{}", read(TABLE));
        assert_eq!(read(CSV).lines().nth(1).unwrap(), "none,4,9,50.000,0.500,59.000,0.500,1.2");
        let svg = read(FIGURE);
        assert!(svg.starts_with("<svg") && svg.contains(">both<") && svg.matches("<circle").count() == 4, "{svg}");
        check_folder(folder.path()).unwrap();
        std::fs::remove_file(folder.path().join(CSV)).unwrap();
        assert!(check_folder(folder.path()).unwrap_err().to_string().contains("name another folder"));
    }
}
