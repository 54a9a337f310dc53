//! `man`.

use std::path::PathBuf;

use serde::Serialize;

use super::report::shell_word;
use super::{Context, command};
use crate::files::replace_file;
use crate::{Error, Result};

/// Write manual pages into a folder
///
/// ieq-wgpu.1, and a page for each command: ieq-wgpu-train.1 and so on. An earlier version's are replaced.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  ieq-wgpu man ~/.local/share/man/man1")]
pub struct Args {
    /// Folder, which must be there
    folder: PathBuf,
}

#[derive(Serialize)]
struct Outcome {
    folder: PathBuf,
    pages: Vec<String>,
}

/// Writes the pages.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let folder = args.folder;
    if !folder.is_dir() {
        return Err(Error::data(folder, "there is no such folder to write manual pages in: create it first"));
    }
    let mut whole = command()?;
    whole.build();
    let mut pages = Vec::new();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in [whole.clone()].into_iter().chain(commands) {
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut page = Vec::new();
        let internal = |e: std::io::Error| Error::Internal(format!("a manual page cannot be made: {e}"));
        clap_mangen::Man::new(command).render(&mut page).map_err(internal)?;
        let file = format!("{name}.1");
        replace_file(&folder.join(&file), "cannot write a manual page", &page)?;
        pages.push(file);
    }
    let outcome = Outcome { folder, pages };
    context.report.result("man", &outcome, || {
        let folder = shell_word(&outcome.folder);
        format!("{} pages in {folder}; `man {folder}/ieq-wgpu.1` shows the first", outcome.pages.len())
    })
}
