//! Words in, words out: a file per command turns its flags into the request of a job ([`crate::jobs`]) and the job's
//! outcome into text; [`args`] has the table of commands, [`sentence`] the words of errors, [`report`] is where every
//! word leaves.

pub mod args;
pub mod bench;
pub mod check;
pub mod devices;
pub mod distill;
pub mod embed;
pub mod eval;
pub mod interrupt;
pub mod plan;
pub mod report;
pub mod sentence;
pub mod train;

use std::path::PathBuf;

use clap::FromArgMatches;

use crate::Result;
use crate::gpu::adapter::AdapterChoice;
use crate::gpu::device::Options;
use crate::jobs::Session;
use crate::progress::Progress;
use args::{Cli, GlobalArgs};
use report::Report;

/// Names the folder of the tuning cache in place of the user's.
const CACHE_VARIABLE: &str = "IEQ_CACHE_DIR";

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
            session: Session { gpu: Options { choice: AdapterChoice::parse(adapter), ..Options::default() }, cache },
        }
    }

    /// Does a job, showing its progress.
    fn with_progress<T>(&self, job: impl FnOnce(&mut dyn Progress) -> Result<T>) -> Result<T> {
        let mut live = self.report.live();
        let result = job(&mut live);
        live.finish();
        result
    }
}

/// Runs the command line and returns the exit code: see [`sentence::exit_code`].
pub fn run() -> u8 {
    let command = match args::command() {
        Ok(command) => command,
        Err(error) => return report::fail(&error),
    };
    // A terminal of no columns is one of unknown width.
    let unknown = std::env::var("COLUMNS").is_ok_and(|columns| columns.parse() == Ok(0));
    let command = if unknown { command.term_width(UNKNOWN_WIDTH) } else { command };
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match parsed {
        Ok(cli) => cli.command.run(&Context::new(&cli.global)),
        Err(words) => {
            // Help, version and mistakes in spelling; a reader that has gone away is no error.
            let _ = words.print();
            return u8::try_from(words.exit_code()).unwrap_or(2);
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => report::fail(&error),
    }
}
