//! The command line. A file per command turns its flags into the request of a job ([`crate::jobs`]) and the job's
//! outcome into text. The table of commands is here; [`sentence`] has the words of errors; only [`report`] writes to
//! the terminal.

pub mod ablate;
pub mod args;
pub mod audit;
pub mod bench;
pub mod check;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod eval;
pub mod export;
pub mod inspect;
pub mod interrupt;
pub mod man;
pub mod neighbors;
pub mod page;
pub mod plan;
pub mod predict;
mod ranks;
pub mod report;
pub mod sentence;
pub mod settings;
pub mod train;
#[cfg(feature = "tui")]
pub mod tui;
pub mod views;

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::gpu::adapter::AdapterChoice;
use crate::gpu::device::Options;
use crate::jobs::Session;
use crate::progress::Progress;
use crate::{Error, Result};
use report::{Report, shell_word};

const EVERYWHERE: &str = "Everywhere";

const START: &str = "Start here:\n  ieq-wgpu train                 a small run on embedded images, no files needed\n  \
    ieq-wgpu eval runs/demo        its accuracy on classes it has never seen";

const EXIT: &str = "Exit: 0 done, 1 target missed, a number not finite or a file left out, 2 bad input, 3 no usable GPU, \
    130 interrupted.\n\n\
    `ieq-wgpu completions SHELL` prints completions for a shell, `ieq-wgpu man FOLDER` writes manual pages.";

/// Few-shot image embeddings, trained on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "ieq-wgpu",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = START,
    after_long_help = format!("{START}\n\n{EXIT}")
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Print version
    #[arg(long, short = 'V', action = ArgAction::Version, help_heading = EVERYWHERE)]
    pub version: Option<bool>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalArgs {
    /// Adapter: number or part of the name
    ///
    /// As `ieq-wgpu devices` lists them; part of a name may be in any case. Also read from IEQ_ADAPTER.
    /// Default: the fastest kind there is, and a line on stderr says which.
    #[arg(long, global = true, value_name = "N|NAME", env = "IEQ_ADAPTER", hide_env = true, help_heading = EVERYWHERE)]
    pub adapter: Option<String>,
    /// One JSON document on stdout instead of text
    ///
    /// The document's fields are stable: new ones may come, none goes or changes its meaning.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// No progress and no notes; warnings and errors stay
    #[arg(long, short, global = true, help_heading = EVERYWHERE)]
    pub quiet: bool,
    /// This screen; --help: all flags, and an example
    #[arg(long, short, global = true, action = ArgAction::Help, help_heading = EVERYWHERE)]
    pub help: Option<bool>,
}

/// A row for each command: its module has its flags (`Args`), whose docs are its help, and `run`.
macro_rules! commands {
    ($($(#[$about:meta])? $command:ident $module:ident),* $(,)?) => {
        /// The commands.
        #[derive(Debug, Subcommand)]
        #[allow(missing_docs, reason = "the docs would take the place of the help in the command's module")]
        pub enum Command {
            $($(#[$about])? $command(Box<$module::Args>)),*
        }

        impl Command {
            /// Does the work of the command and prints its result.
            pub fn run(self, context: &Context) -> Result<()> {
                match self {
                    $(Command::$command(args) => $module::run(*args, context)),*
                }
            }
        }
    };
}

commands! {
    Devices devices,
    Train train,
    Distill distill,
    Ablate ablate,
    Eval eval,
    Embed embed,
    Export export,
    Predict predict,
    Neighbors neighbors,
    Audit audit,
    Convert convert,
    Plan plan,
    Check check,
    Bench bench,
    Views views,
    Report page,
    Inspect inspect,
    Compare compare,
    #[command(hide = true)]
    Completions completions,
    #[command(hide = true)]
    Man man,
}

/// Names the folder of the tuning cache in place of the user's.
const CACHE_VARIABLE: &str = "IEQ_CACHE_DIR";

/// Restricts the back ends; other programs with wgpu read it, too.
const BACKENDS_VARIABLE: &str = "WGPU_BACKEND";

fn backends() -> Option<wgpu::Backends> {
    std::env::var(BACKENDS_VARIABLE).ok().map(|names| wgpu::Backends::from_comma_list(&names))
}

/// Says which back ends were looked at, if the user restricted them.
fn name_backends(error: Error) -> Error {
    match (error, std::env::var(BACKENDS_VARIABLE)) {
        (Error::NoAdapter(what), Ok(names)) => Error::NoAdapter(format!(
            "{what}; {BACKENDS_VARIABLE}={names} allows no other back end: unset it to look at all"
        )),
        (error, _) => error,
    }
}

/// Columns of help where the terminal does not tell its own.
const UNKNOWN_WIDTH: usize = 100;

/// What every command works with.
#[derive(Debug)]
pub struct Context {
    report: Report,
    session: Session,
}

impl Context {
    fn new(global: &GlobalArgs) -> Context {
        let adapter = global.adapter.as_deref();
        let cache = match std::env::var_os(CACHE_VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => Some(PathBuf::from(folder)),
            None => dirs::cache_dir().map(|folder| folder.join("ieq-wgpu")),
        };
        Context {
            report: Report { json: global.json, quiet: global.quiet },
            session: Session {
                gpu: Options { choice: AdapterChoice::parse(adapter), backends: backends(), ..Options::default() },
                cache,
                command: Some(command_line()),
                ranks: None,
            },
        }
    }

    /// From here on Ctrl-C asks the job to stop, and says `sentence`.
    fn interruptible(&self, sentence: &'static str) -> Result<()> {
        interrupt::install(sentence, report::write_stderr)
    }

    /// Says a sentence or several lines to people.
    fn note(&self, text: &str) {
        let mut live = self.report.live();
        text.lines().for_each(|line| crate::progress::Progress::note(&mut live, line));
    }

    /// Does a job, showing its progress.
    fn with_progress<T>(&self, job: impl FnOnce(&mut dyn Progress) -> Result<T>) -> Result<T> {
        let mut live = self.report.live();
        let result = job(&mut live);
        live.finish();
        result
    }
}

impl Context {
    /// As `with_progress`, of a training, on the whole terminal where `flags` say so.
    fn with_training<T>(&self, flags: &train::RunFlags, job: impl FnOnce(&mut dyn Progress) -> Result<T>) -> Result<T> {
        #[cfg(feature = "tui")]
        if flags.tui {
            let mut tui = tui::Tui::open()?;
            let result = job(&mut tui);
            tui.close(self.report.quiet);
            return result;
        }
        let _ = flags;
        self.with_progress(job)
    }
}

/// The words that the program was called with, as a shell takes them.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| shell_word(Path::new(&word)));
    [String::from("ieq-wgpu")].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The command line with what the derive cannot say: defaults of the settings, taken from the demo preset, what a
/// resumed run may change, and numbers that may begin with a minus, so that they reach the sentence about their range.
fn command() -> Result<clap::Command> {
    // A student's length is not chosen.
    let command = Cli::command().mut_subcommand("distill", |command| {
        ["time", "rows"].into_iter().fold(command, |command, name| command.mut_arg(name, |arg| arg.hide(true)))
    });
    let command = settings::with_defaults(command)?;
    // Where others have their run folder.
    let sheet = |arg: clap::Arg| arg.value_name("FILE").help("PNG file to write [default: views.png]").long_help(None);
    Ok(command.mut_subcommand("views", |command| command.mut_arg("out", sheet)))
}

/// Runs the command line and returns the exit code: see [`sentence::exit_code`].
pub fn run() -> u8 {
    let command = match command() {
        Ok(command) => command,
        Err(error) => return report::fail(&error),
    };
    // A terminal of no columns is one of unknown width.
    let unknown = std::env::var("COLUMNS").is_ok_and(|columns| columns.parse() == Ok(0));
    let command = if unknown { command.term_width(UNKNOWN_WIDTH) } else { command };
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match parsed {
        Ok(cli) => cli.command.run(&Context::new(&cli.global)),
        Err(words) if words.kind() == ErrorKind::InvalidUtf8 => {
            let word = std::env::args_os().find(|word| word.to_str().is_none()).unwrap_or_default();
            return report::fail(&Error::usage(format!(
                "`{}` is not UTF-8 text, as settings are: rename the file or folder",
                word.display()
            )));
        }
        Err(words) => {
            // Help, version and mistakes in spelling; a reader that has gone away is no error.
            if !ranks::is_said_of_words() {
                let _ = words.print();
            }
            return u8::try_from(words.exit_code()).unwrap_or(2);
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            let code = match ranks::is_silent() {
                true => {
                    // Rank 0 is to have said it when the starter sees this process end, and ends the others.
                    std::thread::sleep(std::time::Duration::from_secs(1));
                    sentence::exit_code(&error)
                }
                false => report::fail(&name_backends(error)),
            };
            ranks::abort(code);
            code
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    pub fn parse(words: &[&str]) -> std::result::Result<Cli, clap::Error> {
        let matches = command().unwrap().try_get_matches_from([&["ieq-wgpu"], words].concat())?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn the_definition_is_consistent() {
        command().unwrap().debug_assert();
    }
}
