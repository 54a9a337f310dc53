//! `views`.

use std::path::{Path, PathBuf};

use super::Context;
use super::args::count;
use super::report::shell_word;
use super::settings::ConfigFlags;
use crate::data::is_image_name;
use crate::files::run_folder::{CONFIG_FILE, is_run};
use crate::jobs::views::{self, ViewsRequest};
use crate::settings::Config;
use crate::{Error, Result};

const SHEET: &str = "Sheet";

/// Show pictures as the network sees them, on one sheet
///
/// Every transform of some pictures, with the crops, colours and mirrorings that are drawn at a step of the run, made by
/// the kernel that training uses. Without pictures and settings: those of the demo. A data set is shown with the settings
/// that `train --data` would choose for it, a run folder with those of its run; the flags below change them as they do
/// there. Where a step shows only some of the transforms (--views), those have a blue frame.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu views photos/ --out views.png\n  ieq-wgpu views a.jpg b.jpg \
                             --transforms affine-16 --out views.png")]
pub struct Args {
    /// A data set, a run folder, or pictures
    #[arg(value_name = "DATA|RUN|PICTURE")]
    inputs: Vec<PathBuf>,
    /// How many pictures of a data set
    #[arg(long, short, value_name = "N", value_parser = count, default_value_t = 8, help_heading = SHEET)]
    number: usize,
    /// Steps in a row that each is shown at
    ///
    /// Default: as many as it takes for eight views of each picture.
    #[arg(long, value_name = "N", value_parser = count, help_heading = SHEET)]
    draws: Option<usize>,
    /// First step, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = SHEET)]
    step: u32,
    /// The settings.
    #[command(flatten)]
    config: ConfigFlags,
}

/// The file that is written unless `--out` names another.
const OUT: &str = "views.png";

fn is_picture(path: &Path) -> bool {
    path.is_file() && is_image_name(&path.to_string_lossy())
}

fn request(args: Args) -> Result<ViewsRequest> {
    let Args { inputs, number, draws, step, config: mut flags } = args;
    if flags.name("data.source") && !inputs.is_empty() {
        return Err(Error::usage("`data.source` and an argument both name pictures: leave one of them out"));
    }
    let out = flags.take_out().unwrap_or_else(|| OUT.into());
    let (config, given, pictures) = match inputs.as_slice() {
        [run] if is_run(run) => {
            let mut config = Config::from_layers(None, &run.join(CONFIG_FILE))?;
            flags.apply(&mut config)?;
            (config, None, Vec::new())
        }
        [data] if !is_picture(data) => {
            flags.set_data(&data.display().to_string());
            let (config, given) = flags.wish()?;
            (config, Some(given), Vec::new())
        }
        [] => {
            let (config, given) = flags.wish()?;
            (config, Some(given), Vec::new())
        }
        pictures => {
            let mut config = flags.base(|| Ok(Config::default()))?;
            flags.apply(&mut config)?;
            (config, None, pictures.to_vec())
        }
    };
    Ok(ViewsRequest { config, given, pictures, out, number, draws, step })
}

/// Draws the sheet and says what is on it.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let request = request(args)?;
    let outcome = context.with_progress(|progress| {
        let outcome = views::run(&request, &context.session, progress)?;
        outcome.chosen.iter().for_each(|choice| progress.note(&choice.to_string()));
        Ok(outcome)
    })?;
    context.report.result("views", &outcome, || {
        format!(
            "{}: {} images of {2} x {2} pixels under {3} transforms ({4}), {5} steps each",
            shell_word(&outcome.sheet),
            outcome.images,
            outcome.side,
            outcome.transforms,
            outcome.set,
            outcome.draws
        )
    })
}
