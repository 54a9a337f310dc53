//! Ranks that are threads of one process: several devices in one program, and tests.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Link, Message, Ranks};
use crate::{Error, Result};

/// One of some threads that exchange bytes through channels. One that is dropped is a rank that has died.
struct Thread {
    rank: usize,
    /// To each rank, and from each.
    to: Vec<Mutex<Option<Sender<Message>>>>,
    from: Vec<Mutex<Receiver<Message>>>,
}

/// `size` ranks, each to be given to a thread of its own.
pub fn threads(size: usize) -> Vec<Ranks> {
    let mut senders: Vec<Vec<Mutex<Option<Sender<Message>>>>> = (0..size).map(|_| Vec::new()).collect();
    let mut receivers: Vec<Vec<Mutex<Receiver<Message>>>> = (0..size).map(|_| Vec::new()).collect();
    for to in &mut senders {
        for from in &mut receivers {
            let (sender, receiver) = channel();
            to.push(Mutex::new(Some(sender)));
            from.push(Mutex::new(receiver));
        }
    }
    let all = senders.into_iter().zip(receivers).enumerate();
    all.map(|(rank, (to, from))| Ranks::new(Arc::new(Thread { rank, to, from }))).collect()
}

impl Link for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, mark: u8, to: &[&[u8]]) -> Result<Vec<Message>> {
        let gone = |rank: usize| Error::Ranks(format!("rank {rank} is gone"));
        for (rank, (channel, bytes)) in self.to.iter().zip(to).enumerate() {
            let channel = channel.lock().unwrap_or_else(PoisonError::into_inner);
            let sent = channel.as_ref().map(|channel| channel.send((mark, bytes.to_vec())));
            sent.and_then(std::result::Result::ok).ok_or_else(|| gone(rank))?;
        }
        let take = |(rank, channel): (usize, &Mutex<Receiver<Message>>)| {
            channel.lock().unwrap_or_else(PoisonError::into_inner).recv().map_err(|_| gone(rank))
        };
        self.from.iter().enumerate().map(take).collect()
    }

    fn abort(&self, _: u8) {
        for channel in &self.to {
            channel.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn on_all<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = threads(size).into_iter().map(|ranks| scope.spawn(|| work(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn bytes_arrive_by_rank_and_rank_0_is_heard_by_all() {
        let got = on_all(3, |ranks| {
            let own = ranks.rank() as u8;
            let to: Vec<Vec<u8>> = (0..3).map(|other| vec![own; other]).collect();
            let to: Vec<&[u8]> = to.iter().map(Vec::as_slice).collect();
            (ranks.exchange(&to).unwrap(), ranks.all_gather(&[own]).unwrap(), ranks.broadcast(&[7 + own]).unwrap())
        });
        for (rank, (given, all, first)) in got.into_iter().enumerate() {
            assert_eq!(given, (0..3).map(|from| vec![from; rank]).collect::<Vec<_>>());
            assert_eq!((all, first), (vec![vec![0], vec![1], vec![2]], vec![7]));
        }
    }

    #[test]
    fn a_failure_is_known_to_all_and_a_rank_that_is_gone_is_named() {
        let got = on_all(3, |ranks| {
            let error = match ranks.rank() {
                0 => ranks.all_gather(&[]).unwrap_err(),
                1 => ranks.fail(Error::DeviceLost("unplugged".into())),
                _ => ranks.fail(Error::usage("no room")),
            };
            // All but the one that failed first have that one's failure, and no exchange is done on it.
            assert!(ranks.all_gather(&[]).is_err());
            ranks.recover();
            let gone = match ranks.rank() {
                2 => None,
                _ => {
                    // Until rank 2 is dropped.
                    let mut last = ranks.all_gather(&[]);
                    while last.is_ok() {
                        last = ranks.all_gather(&[]);
                    }
                    last.err()
                }
            };
            (error.to_string(), matches!(error, Error::DeviceLost(_)), gone.map(|error| error.to_string()))
        });
        let words = |rank: usize| (got[rank].0.as_str(), got[rank].1);
        assert_eq!([words(0), words(2)], [("rank 1: unplugged", true); 2]);
        assert_eq!(words(1), ("unplugged", true));
        assert!(got.iter().take(2).all(|(.., gone)| gone.as_ref().is_some_and(|words| words.contains("is gone"))));
    }
}
