//! `completions`.

use clap_complete::Shell;
use serde::Serialize;

use super::{Context, command};
use crate::{Error, Result};

/// Print completions for a shell
///
/// Put what is printed where the shell looks for completions: bash ~/.local/share/bash-completion/completions/ieq-wgpu, zsh a
/// file _ieq-wgpu in a folder of $fpath, fish ~/.config/fish/completions/ieq-wgpu.fish.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu completions bash > ~/.local/share/bash-completion/completions/ieq-wgpu"
)]
pub struct Args {
    /// bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

#[derive(Serialize)]
struct Outcome {
    shell: String,
    script: String,
}

/// Prints the script.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command()?, "ieq-wgpu", &mut script);
    let script = String::from_utf8(script).map_err(|e| Error::Internal(e.to_string()))?;
    let outcome = Outcome { shell: args.shell.to_string(), script };
    match context.report.json {
        true => context.report.result("completions", &outcome, String::new),
        false => context.report.verbatim(&outcome.script),
    }
}
