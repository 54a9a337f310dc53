//! `predict`.

use std::path::PathBuf;

use super::Context;
use super::args::number;
use super::report::{shell_word, table};
use crate::Result;
use crate::jobs::predict::{self, NONE, PredictOutcome, PredictRequest, UNKNOWN};

const SUPPORT: &str = "Support";
const OUTPUT: &str = "Output";

/// Name the classes of pictures from a few examples
///
/// The support has one or more pictures of each class. Every other picture gets the class whose mean is most similar to
/// it in the network's embedding, with the probability of each class. A picture that is similar to no class is none of
/// these. Nothing is trained, so a class more is a picture more.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ieq-wgpu predict --support classes/ photos/ --csv answers.csv\n  \
    ieq-wgpu predict --support classes/ --save classes.safetensors\n  \
    ieq-wgpu predict --model classes.safetensors --add cat=cat.png photos/ --copy-to sorted/")]
pub struct Args {
    /// Pictures: folders, zip and tar files, image files
    #[arg(value_name = "INPUT", required_unless_present = "save")]
    inputs: Vec<PathBuf>,
    /// Checkpoint, run or saved support
    ///
    /// A checkpoint, a run folder, a file that --save wrote, or a network that the program ships: `shipped` chooses by the
    /// pictures, `shipped:strokes` is for letters and signs, `shipped:pictures` for all others. A .pth of
    /// PyTorch's will do, too: `export --help` says how.
    #[arg(long, value_name = "MODEL", default_value = "shipped", help_heading = SUPPORT)]
    model: PathBuf,
    /// Folder, zip or tar with a folder per class
    ///
    /// One picture per class is enough; with two or more the program learns from them how alike they are.
    #[arg(long, short, value_name = "DIR", help_heading = SUPPORT)]
    support: Vec<PathBuf>,
    /// Picture, or folder, of a class; may be repeated
    ///
    /// Joins the support, or begins a new class of it.
    #[arg(long, value_name = "NAME=PICTURE", value_parser = named, help_heading = SUPPORT)]
    add: Vec<(String, PathBuf)>,
    /// Save the support and its network as one file
    ///
    /// --model then takes it in place of --support.
    #[arg(long, value_name = "FILE", help_heading = SUPPORT)]
    save: Option<PathBuf>,
    /// Share of false alarms, or off
    ///
    /// The share of the pictures of known classes that may be called none of these, up to 0.5. The threshold follows from how similar
    /// the pictures of held-out classes were to the network at the end of its training, and from leaving out each
    /// picture of the support once. A smaller share lets more strangers pass, and so do few pictures per class. off:
    /// every picture gets a class.
    #[arg(long, value_name = "RATE|off", default_value_t = Unknown(Some(UNKNOWN)), value_parser = unknown,
        help_heading = OUTPUT)]
    unknown: Unknown,
    /// Table: path, label, probability, each class
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    csv: Option<PathBuf>,
    /// Copy the pictures into a folder per class here
    ///
    /// The originals stay as they are, and no file is replaced: where another picture has the name, a number is added.
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    copy_to: Option<PathBuf>,
}

/// A share, or none.
#[derive(Clone, Copy, Debug)]
struct Unknown(Option<f64>);

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("off"),
        }
    }
}

fn unknown(text: &str) -> std::result::Result<Unknown, String> {
    if text == "off" {
        return Ok(Unknown(None));
    }
    number(text).map(|rate| Unknown(Some(rate))).map_err(|_| "a share such as 0.05, or off, is wanted".into())
}

fn named(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("NAME=PICTURE is wanted, such as cat=a.png".into()),
    }
}

/// Answers and says what was found.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let Args { inputs, model, support, add, save, unknown: Unknown(unknown), csv, copy_to } = args;
    let request = PredictRequest { model, support, add, inputs, unknown, save, csv, copy_to };
    context.interruptible("stopping; no picture is half copied")?;
    let outcome = context.with_progress(|progress| predict::run(&request, &context.session, progress))?;
    context.report.result("predict", &outcome, || text(&outcome))?;
    context.note(&next(&request, &outcome));
    outcome.complete()
}

fn text(outcome: &PredictOutcome) -> String {
    if outcome.answers.is_empty() {
        let pictures: usize = outcome.classes.iter().map(|class| class.pictures).sum();
        return format!("{} classes from {pictures} pictures", outcome.classes.len());
    }
    let head = ["path", "label", "probability", ""].map(str::to_owned).to_vec();
    let rows = outcome.answers.iter().map(|answer| {
        let mut others: Vec<(&f64, &str)> =
            answer.probabilities.iter().zip(outcome.classes.iter().map(|class| class.name.as_str())).collect();
        others.retain(|(_, name)| Some(*name) != answer.label.as_deref());
        others.sort_by(|a, b| b.0.total_cmp(a.0));
        let (label, probability, beside) = match &answer.label {
            Some(label) => {
                let second = others.first().filter(|(p, _)| **p >= 0.05);
                let beside = second.map(|(p, name)| format!("or {name} {:.1} %", 100.0 * **p)).unwrap_or_default();
                (label.clone(), format!("{:.1} %", 100.0 * answer.probability), beside)
            }
            None => (NONE.into(), "-".into(), format!("nearest {} ({:.2})", answer.nearest, answer.similarity)),
        };
        vec![answer.path.clone(), label, probability, beside]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// What one can do next.
fn next(request: &PredictRequest, outcome: &PredictOutcome) -> String {
    let mut lines = Vec::new();
    if let Some(rate) = outcome.unknown.filter(|_| !outcome.answers.is_empty()) {
        lines.push(format!(
            "about {:.0} % of the pictures of these classes are called {NONE}; pictures of other classes pass for one of \
             these more often, the fewer pictures a class has: --unknown moves the border",
            100.0 * rate
        ));
    }
    match (&outcome.saved, &request.save) {
        (Some(file), _) => lines.push(format!(
            "next: `ieq-wgpu predict --model {} PICTURES` answers with this support again",
            shell_word(file)
        )),
        (None, _) if request.copy_to.is_none() => {
            lines.push("next: --save FILE keeps the support, --copy-to DIR sorts copies, --csv FILE is a table".into());
        }
        (None, _) => lines.push("next: a folder in which copies lie is a support: move those that are wrong".into()),
    }
    lines.join("\n")
}
