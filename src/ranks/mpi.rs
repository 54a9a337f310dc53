//! Ranks that are processes, started by `mpirun`, on one machine or several.
//!
//! One thread of each process does all that has to do with MPI: it exchanges what it is given, and meanwhile, and between
//! exchanges, sends every other rank a byte now and then. A rank that nothing is heard of for [`SILENCE`] is given up, and
//! all that can be reached are ended: MPI itself would wait for ever for a machine that is gone.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::mpi::Threading;
use ::mpi::environment::Universe;
use ::mpi::request::{Request, RequestCollection, StaticScope, multiple_scope};
use ::mpi::topology::{Process, SimpleCommunicator};
use ::mpi::traits::{Communicator, Destination, Source};

use super::{Link, Message, Ranks};
use crate::{Error, Result};

/// How often a rank tells the others that it is there.
const BEAT: Duration = Duration::from_secs(1);
/// How long nothing may be heard of a rank.
pub const SILENCE: Duration = Duration::from_secs(15);
/// How often the thread looks whether others have sent such a byte, while nothing is exchanged.
const IDLE: Duration = Duration::from_millis(50);
/// How long it looks for the end of an exchange without a pause, and the pause after that: the processor is the device's
/// where that is a program.
const EAGER: Duration = Duration::from_micros(100);
const PAUSE: Duration = Duration::from_micros(20);
/// After this it is no matter of microseconds: another rank scores or reads.
const LONG: Duration = Duration::from_millis(10);
const LONG_PAUSE: Duration = Duration::from_millis(1);
/// What [`Link::abort`] may take before the process ends by itself.
const FAREWELL: Duration = Duration::from_secs(3);

/// Tags: a mark and a length; bytes; a sign of life.
const HEAD: i32 = 1;
const BODY: i32 = 2;
const LIFE: i32 = 3;
const HEAD_BYTES: usize = 16;
/// Bytes of a message. Open MPI sends up to 64 KiB to another machine without asking first; its question and the answer to it
/// would wait behind the bytes that go the same way already, and so would the two directions of a link for each other.
const PIECE: usize = 60 << 10;

static SIGN: [u8; 1] = [0];

/// What the thread is asked for.
enum Job {
    Exchange { mark: u8, to: Vec<Vec<u8>>, reply: Sender<Result<Vec<Message>>> },
    Close(Sender<()>),
    Abort(u8),
}

struct Processes {
    rank: usize,
    size: usize,
    on_machine: usize,
    jobs: Mutex<Sender<Job>>,
}

/// Begins with MPI; once in a process. `say` is told why all ranks are ended, on the rank whose words reach the user, where
/// that is not another rank's failure. `code` is the exit code then.
///
/// # Errors
/// [`Error::Ranks`] where MPI does not begin.
pub fn begin(say: fn(&str), code: u8) -> Result<Ranks> {
    let (jobs, todo) = channel();
    let (tell, told) = channel();
    let thread = move || match ::mpi::initialize_with_threading(Threading::Funneled) {
        None => drop(tell.send(None)),
        Some((_, threading)) if threading < Threading::Funneled => drop(tell.send(None)),
        Some((universe, _)) => {
            let world = universe.world();
            let (rank, size) = (world.rank() as usize, world.size() as usize);
            let on_machine = world.split_shared(world.rank()).rank() as usize;
            let now = Instant::now();
            let (heard, sent) = (vec![now; size], (0..size).map(|_| None).collect());
            let mut own = Own { world, rank, heard, sent, beaten: now, say, code, closing: false };
            if tell.send(Some((rank, size, on_machine))).is_ok() {
                own.serve(&todo, universe);
            }
        }
    };
    let thread = std::thread::Builder::new().name("ranks".into()).spawn(thread);
    thread.map_err(|e| Error::Ranks(format!("no thread for MPI: {e}")))?;
    match told.recv() {
        Ok(Some((rank, size, on_machine))) => {
            Ok(Ranks::new(Arc::new(Processes { rank, size, on_machine, jobs: Mutex::new(jobs) })))
        }
        _ => Err(Error::Ranks("MPI did not begin, had begun before, or allows no thread but the first".into())),
    }
}

impl Processes {
    fn ask(&self, job: Job) -> Result<()> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.send(job).map_err(|_| Error::Ranks("MPI has ended in this process".into()))
    }
}

impl Link for Processes {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn rank_on_machine(&self) -> usize {
        self.on_machine
    }

    fn exchange(&self, mark: u8, to: &[&[u8]]) -> Result<Vec<Message>> {
        let (reply, answer) = channel();
        self.ask(Job::Exchange { mark, to: to.iter().map(|bytes| bytes.to_vec()).collect(), reply })?;
        answer.recv().unwrap_or_else(|_| Err(Error::Ranks("MPI has ended in this process".into())))
    }

    fn close(&self) {
        let (reply, answer) = channel();
        if self.ask(Job::Close(reply)).is_ok() {
            let _ = answer.recv();
        }
    }

    fn abort(&self, code: u8) {
        if self.ask(Job::Abort(code)).is_ok() {
            std::thread::sleep(2 * FAREWELL);
        }
    }
}

/// What the thread works with.
struct Own {
    world: SimpleCommunicator,
    rank: usize,
    /// When each rank was last heard of.
    heard: Vec<Instant>,
    /// The sign of life that is under way to each.
    sent: Vec<Option<Request<'static, [u8], StaticScope>>>,
    beaten: Instant,
    say: fn(&str),
    code: u8,
    /// Whether ranks may leave.
    closing: bool,
}

impl Own {
    fn serve(&mut self, todo: &Receiver<Job>, universe: Universe) {
        loop {
            match todo.recv_timeout(IDLE) {
                Ok(Job::Exchange { mark, to, reply }) => drop(reply.send(self.exchange(mark, &to))),
                Ok(Job::Close(reply)) => {
                    // Signs of life that nobody has taken yet: all ranks are in step here, and take them.
                    self.closing = true;
                    let begun = Instant::now();
                    while self.sent.iter().any(Option::is_some) {
                        self.live();
                        std::thread::sleep(PAUSE);
                        if begun.elapsed() > SILENCE {
                            self.abort(self.code);
                        }
                    }
                    drop(universe);
                    let _ = reply.send(());
                    return;
                }
                Ok(Job::Abort(code)) => self.abort(code),
                Err(RecvTimeoutError::Timeout) => self.live(),
                // The process ends without a word: MPI ends the others.
                Err(RecvTimeoutError::Disconnected) => {
                    std::mem::forget(universe);
                    self.sent.drain(..).flatten().for_each(std::mem::forget);
                    return;
                }
            }
        }
    }

    fn other(&self, rank: usize) -> Process<'_> {
        self.world.process_at_rank(rank as i32)
    }

    /// Says that this rank is there, and hears of the others.
    fn live(&mut self) {
        let now = Instant::now();
        let beat = !self.closing && now.duration_since(self.beaten) >= BEAT;
        if beat {
            // A process that was stopped has not listened.
            if now.duration_since(self.beaten) > SILENCE / 2 {
                self.heard.fill(now);
            }
            self.beaten = now;
        }
        for rank in (0..self.heard.len()).filter(|&rank| rank != self.rank) {
            let under_way = self.sent[rank].take().and_then(|request| request.test().err());
            self.sent[rank] = match under_way {
                None if beat => Some(self.other(rank).immediate_send_with_tag(StaticScope, &SIGN[..], LIFE)),
                same => same,
            };
            let mut sign = [0_u8];
            while self.other(rank).immediate_probe_with_tag(LIFE).is_some() {
                self.other(rank).receive_into_with_tag(&mut sign[..], LIFE);
                self.heard[rank] = now;
            }
        }
        let silent = (0..self.heard.len()).find(|&rank| rank != self.rank && self.heard[rank] + SILENCE < now);
        if let Some(rank) = silent.filter(|_| !self.closing) {
            // Words of the others reach the user by way of rank 0's machine, if at all.
            if self.rank == 0 || rank == 0 {
                (self.say)(&format!(
                    "nothing was heard of rank {rank} for {} s, so all ranks end: look at its machine and at the network; \
                     `--resume` continues from the last checkpoint",
                    SILENCE.as_secs()
                ));
            } else {
                // Rank 0 sees the same in this moment, and is to have said it before all end.
                std::thread::sleep(FAREWELL);
            }
            self.abort(self.code);
        }
    }

    fn abort(&self, code: u8) -> ! {
        // Where MPI cannot reach what it needs for that, this process ends all the same.
        let end = move || {
            std::thread::sleep(FAREWELL);
            std::process::exit(code.into());
        };
        if std::thread::Builder::new().spawn(end).is_err() {
            std::process::exit(code.into());
        }
        self.world.abort(code.into())
    }

    /// See [`Link::exchange`].
    fn exchange(&mut self, mark: u8, to: &[Vec<u8>]) -> Result<Vec<Message>> {
        let size = self.heard.len();
        if to.len() != size {
            return Err(Error::Internal(format!("{} messages for {size} ranks", to.len())));
        }
        let head = |bytes: &Vec<u8>| [u64::from(mark).to_le_bytes(), (bytes.len() as u64).to_le_bytes()].concat();
        let heads: Vec<Vec<u8>> = to.iter().map(head).collect();
        let given = self.swap(&heads, vec![HEAD_BYTES; size], HEAD)?;
        let number = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let lengths = given.iter().map(|head| usize::try_from(number(head, 8)).unwrap_or(0)).collect();
        let bodies = self.swap(to, lengths, BODY)?;
        Ok(given.iter().map(|head| number(head, 0) as u8).zip(bodies).collect())
    }

    /// Gives each rank the bytes at its number, and returns what each gave this one, of known lengths.
    fn swap(&mut self, to: &[Vec<u8>], lengths: Vec<usize>, tag: i32) -> Result<Vec<Vec<u8>>> {
        let mut from: Vec<Vec<u8>> = lengths.into_iter().map(|bytes| vec![0; bytes]).collect();
        let own = self.rank;
        from[own].clone_from(&to[own]);
        let world = SimpleCommunicator::world();
        multiple_scope(2 * to.len(), |scope, requests: &mut RequestCollection<[u8]>| {
            let others = |rank: &usize| *rank != own;
            // Of each request that receives, the rank that it hears of.
            let mut of = Vec::new();
            for (rank, bytes) in from.iter_mut().enumerate().filter(|(rank, _)| others(rank)) {
                for piece in bytes.chunks_mut(PIECE) {
                    let other = world.process_at_rank(rank as i32);
                    requests.add(other.immediate_receive_into_with_tag(scope, piece, tag));
                    of.push(rank);
                }
            }
            // Not all at the same rank first.
            for rank in (1..to.len()).map(|next| (own + next) % to.len()) {
                for piece in to[rank].chunks(PIECE) {
                    requests.add(world.process_at_rank(rank as i32).immediate_send_with_tag(scope, piece, tag));
                }
            }
            let begun = Instant::now();
            while requests.incomplete() > 0 {
                if let Some((which, ..)) = requests.test_any() {
                    if let Some(&rank) = of.get(which) {
                        self.heard[rank] = Instant::now();
                    }
                    continue;
                }
                let waited = begun.elapsed();
                if waited < EAGER {
                    std::thread::yield_now();
                } else {
                    self.live();
                    std::thread::sleep(if waited < LONG { PAUSE } else { LONG_PAUSE });
                }
            }
        });
        Ok(from)
    }
}
