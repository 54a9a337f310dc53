//! Ranks: processes, or threads of one, that work on one run and exchange bytes. Words and numbering are MPI's.
//!
//! A [`Link`] carries the bytes: [`local`] between threads, `mpi` between processes (feature `mpi`). [`Ranks`] is what a
//! run sees of it. All ranks make the same calls in the same order; one that fails says so in place of the bytes that it
//! was to give ([`Ranks::fail`]), so that all learn of it at the same call and none waits for ever.

pub mod local;
#[cfg(feature = "mpi")]
pub mod mpi;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// What stands before the bytes of a rank: they are what was to be given.
const WHOLE: u8 = 0;
/// What makes an error of a sentence.
type Make = fn(String) -> Error;

/// Other marks: the rank has failed, the bytes are a sentence, and this is the kind of failure, so that every rank ends as
/// the one that failed.
const KINDS: [(u8, Make); 8] = [
    (1, Error::Ranks),
    (2, Error::DeviceLost),
    (3, Error::Device),
    (4, Error::NonFinite),
    (5, Error::Interrupted),
    (6, Error::Internal),
    (7, Error::TargetMissed),
    (8, Error::Usage),
];

/// The mark of a failure, and its sentence.
fn told(error: &Error) -> (u8, String) {
    let mark = match error {
        Error::Ranks(_) => 1,
        Error::DeviceLost(_) => 2,
        Error::Device(_) | Error::NoAdapter(_) | Error::OutOfMemory { .. } | Error::TooLarge { .. } => 3,
        Error::NonFinite(_) | Error::Diverged { .. } => 4,
        Error::Interrupted(_) => 5,
        Error::Internal(words) => return (6, words.clone()),
        Error::Shader { .. } => 6,
        Error::TargetMissed(_) => 7,
        _ => 8,
    };
    (mark, error.to_string())
}

/// Bytes of a block of [`Ranks::broadcast`].
const BLOCK: usize = 32 << 20;

/// What one rank gave another: a mark and bytes.
pub type Message = (u8, Vec<u8>);

/// A way to exchange bytes between ranks.
pub trait Link: Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// The number of this rank among those of its machine, from 0.
    fn rank_on_machine(&self) -> usize {
        0
    }

    /// Gives each rank the bytes at its number, this one, too, all with `mark`; returns what each gave this one. All ranks
    /// call it together.
    ///
    /// # Errors
    /// [`Error::Ranks`] when a rank cannot be reached.
    fn exchange(&self, mark: u8, to: &[&[u8]]) -> Result<Vec<Message>>;

    /// Leaves in good order, once all ranks do. Nothing is exchanged any more.
    fn close(&self) {}

    /// Ends all ranks, their processes with this exit code where they have processes of their own.
    fn abort(&self, code: u8);
}

/// The ranks of a run, as one of them sees them.
#[derive(Clone)]
pub struct Ranks {
    link: Arc<dyn Link>,
    /// Whether a failure was told or heard of: the calls of the ranks are no longer in step.
    failed: Arc<AtomicBool>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Ranks {
    /// The ranks that `link` joins.
    pub fn new(link: Arc<dyn Link>) -> Self {
        Ranks { link, failed: Arc::default() }
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.link.rank()
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.link.size().max(1)
    }

    /// The number of this rank among those of its machine, from 0.
    pub fn rank_on_machine(&self) -> usize {
        self.link.rank_on_machine()
    }

    /// Whether this is rank 0, which reads, reports, scores and saves.
    pub fn leads(&self) -> bool {
        self.rank() == 0
    }

    /// Gives each rank the bytes at its number; returns what each gave this one. All ranks call it together, as they do
    /// with all that is built on it.
    ///
    /// # Errors
    /// Where a rank has failed an error of the same kind with its words; [`Error::Ranks`] when one cannot be reached.
    pub fn exchange(&self, to: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        if self.failed.load(Ordering::SeqCst) {
            return Err(Error::Ranks("an exchange after a rank has failed".into()));
        }
        let given = self.link.exchange(WHOLE, to).inspect_err(|_| self.failed.store(true, Ordering::SeqCst))?;
        match failure(&given) {
            Some((_, error)) => {
                self.failed.store(true, Ordering::SeqCst);
                Err(error)
            }
            None => Ok(given.into_iter().map(|(_, bytes)| bytes).collect()),
        }
    }

    /// Gives all ranks these bytes; returns what each gave, by rank.
    ///
    /// # Errors
    /// As [`Ranks::exchange`].
    pub fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.exchange(&vec![bytes; self.size()])
    }

    /// The bytes of rank 0; what the others give does not matter. Many bytes go in blocks: a link may hold a block once per
    /// rank.
    ///
    /// # Errors
    /// As [`Ranks::exchange`].
    pub fn broadcast(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let bytes = if self.leads() { bytes } else { &[] };
        let of_first =
            |given: Vec<Vec<u8>>| given.into_iter().next().ok_or_else(|| Error::Internal("there is no rank 0".into()));
        let mut blocks = bytes.chunks(BLOCK);
        // The first with the number of all bytes in front.
        let first = [&(bytes.len() as u64).to_le_bytes(), blocks.next().unwrap_or(&[])].concat();
        let mut whole = of_first(self.all_gather(&first)?)?;
        let Some((length, _)) = whole.split_first_chunk::<8>() else {
            return Err(Error::Internal("rank 0 does not say how much it gives".into()));
        };
        let length = u64::from_le_bytes(*length);
        whole.drain(..8);
        while (whole.len() as u64) < length {
            let before = whole.len();
            whole.extend(of_first(self.all_gather(blocks.next().unwrap_or(&[]))?)?);
            if whole.len() == before {
                return Err(Error::Internal("rank 0 gives less than it said".into()));
            }
        }
        Ok(whole)
    }

    /// Tells the other ranks that this one has failed, at the exchange that they come to next, which returns the failure
    /// there. Returns the failure that all ranks then know: this one's, or that of another that failed at the same time.
    /// Where a failure is known already it stays that.
    pub fn fail(&self, error: Error) -> Error {
        if self.failed.swap(true, Ordering::SeqCst) {
            return error;
        }
        let (mark, sentence) = told(&error);
        match self.link.exchange(mark, &vec![sentence.as_bytes(); self.size()]).map(|given| failure(&given)) {
            Ok(Some((rank, other))) if rank != self.rank() => other,
            // Where they cannot be reached they learn of it by that.
            _ => error,
        }
    }

    /// After a failure that all ranks know of and have recovered from.
    pub fn recover(&self) {
        self.failed.store(false, Ordering::SeqCst);
    }

    /// Waits for the last call of rank 0, and leaves. After a failure the end comes with [`Ranks::abort`].
    ///
    /// # Errors
    /// As [`Ranks::exchange`].
    pub fn end(&self) -> Result<()> {
        self.recover();
        self.broadcast(&[])?;
        self.link.close();
        Ok(())
    }

    /// Ends all ranks, their processes with this exit code where they have processes of their own.
    pub fn abort(&self, code: u8) {
        self.link.abort(code);
    }
}

/// The first rank that has failed, and how.
fn failure(given: &[Message]) -> Option<(usize, Error)> {
    let (rank, (mark, bytes)) = given.iter().enumerate().find(|(_, (mark, _))| *mark != WHOLE)?;
    let words = String::from_utf8_lossy(bytes);
    let sentence = if rank == 0 { words.into_owned() } else { format!("rank {rank}: {words}") };
    let make = KINDS.iter().find(|(kind, _)| kind == mark).map_or(Error::Ranks as Make, |(_, make)| *make);
    Some((rank, make(sentence)))
}
