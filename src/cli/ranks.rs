//! Whether the program was started as several ranks by `mpirun` or the like, and the way to the others.

use std::sync::OnceLock;

use crate::ranks::Ranks;
use crate::{Error, Result};

/// By which variables a starter of processes tells each the number of them and its own: Open MPI; MPICH, Intel MPI and
/// Slurm's PMI; Slurm's PMIx.
const STARTERS: [[&str; 2]; 3] = [
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"],
    ["PMI_SIZE", "PMI_RANK"],
    // What `srun --mpi=pmix` says, which has no number of its own for the size.
    ["SLURM_STEP_NUM_TASKS", "PMIX_RANK"],
];

/// The ranks of this process, once it has joined them.
static JOINED: OnceLock<Ranks> = OnceLock::new();

/// The number of this process and the number of all, where it was started as one of several.
fn started() -> Option<(usize, usize)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let mut found = STARTERS.iter().filter_map(|[size, rank]| Some((number(rank)?, number(size)?)));
    found.find(|(_, size)| *size > 1)
}

/// Whether another rank says the same.
static SAID: OnceLock<()> = OnceLock::new();

/// Whether another rank says the same of a command line that cannot be read: that of `train` is one for all.
pub(super) fn is_said_of_words() -> bool {
    started().is_some_and(|(rank, _)| rank > 0) && std::env::args_os().any(|word| word == "train")
}

/// Whether another rank speaks for this process, too: one that it has joined, or that refuses the same.
pub(super) fn is_silent() -> bool {
    SAID.get().is_some() || JOINED.get().is_some_and(|ranks| !ranks.leads())
}

/// The ranks that this process is one of, where it was started as one of several.
///
/// # Errors
/// [`Error::Usage`] where the program was built without MPI: each process would train the whole run.
pub(super) fn join() -> Result<Option<Ranks>> {
    let Some((_, size)) = started() else { return Ok(None) };
    #[cfg(feature = "mpi")]
    {
        let lost = super::sentence::exit_code(&Error::Ranks(String::new()));
        let ranks = crate::ranks::mpi::begin(|words| super::report::write_stderr(&format!("error: {words}")), lost)?;
        if ranks.size() != size {
            return Err(Error::usage(format!(
                "{size} processes were started, and MPI joins {}: start them with the mpirun of the MPI that this program \
                 was built with",
                ranks.size()
            )));
        }
        Ok(Some(JOINED.get_or_init(|| ranks).clone()))
    }
    #[cfg(not(feature = "mpi"))]
    Err(Error::usage(format!(
        "{size} processes were started to share a run, and this program was built without MPI: build it with `cargo install \
         --path . --features mpi`, or start one process"
    )))
}

/// Refuses to do `command`, which ranks do not share, once in each of several processes.
///
/// # Errors
/// [`Error::Usage`].
pub(super) fn refuse(command: &str) -> Result<()> {
    let Some((rank, size)) = started() else { return Ok(()) };
    if rank > 0 {
        SAID.get_or_init(|| ());
    }
    Err(Error::usage(format!(
        "{size} processes were started, and `{command}` is done by one: only `train` is shared by several"
    )))
}

/// Ends the other ranks where this process has joined them, with this exit code.
pub(super) fn abort(code: u8) {
    if let Some(ranks) = JOINED.get() {
        ranks.abort(code);
    }
}
