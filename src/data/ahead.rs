//! Work on many items in threads, ahead of whoever takes the results in order, in bounded memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::{Error, Result};

/// The most threads.
const MAX_WORKERS: usize = 16;

struct State<T> {
    /// The next item that a thread begins with.
    next: usize,
    /// The next item that is taken.
    taken: usize,
    /// Results from `taken` on, as far as they are there.
    done: VecDeque<Option<Result<T>>>,
    stop: bool,
}

struct Shared<T> {
    end: usize,
    ahead: usize,
    state: Mutex<State<T>>,
    /// There is room for a thread to begin with another item.
    room: Condvar,
    /// The result that is taken next is there.
    ready: Condvar,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each thread does until there is nothing left.
    fn work(&self, work: impl Fn(usize) -> Result<T>) {
        loop {
            let mut state = self.state();
            while !state.stop && state.next < self.end && state.next >= state.taken + self.ahead {
                state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop || state.next >= self.end {
                return;
            }
            let item = state.next;
            state.next += 1;
            drop(state);
            // A panic must not leave whoever waits for this item waiting.
            let result = catch_unwind(AssertUnwindSafe(|| work(item)))
                .unwrap_or_else(|_| Err(Error::Internal(format!("a worker panicked at item {item}"))));
            let mut state = self.state();
            let place = item - state.taken;
            while state.done.len() <= place {
                state.done.push_back(None);
            }
            state.done[place] = Some(result);
            drop(state);
            self.ready.notify_one();
        }
    }
}

/// Results in the order of their items, while threads work on the next ones.
pub struct Ahead<'s, T> {
    shared: &'s Shared<T>,
}

impl<T> Iterator for Ahead<'_, T> {
    type Item = Result<T>;

    /// The next result, or the error of the work on that item; none after the last. Waits for it.
    fn next(&mut self) -> Option<Result<T>> {
        let mut state = self.shared.state();
        if state.taken >= self.shared.end {
            return None;
        }
        loop {
            if let Some(Some(_)) = state.done.front() {
                state.taken += 1;
                let result = state.done.pop_front().flatten();
                drop(state);
                self.shared.room.notify_one();
                return result;
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Ahead<'_, T> {
    /// Whether the next `n` results, or as many as are left, can be taken without waiting.
    pub fn is_ready(&self, n: usize) -> bool {
        let state = self.shared.state();
        let n = n.min(self.shared.end - state.taken);
        state.done.len() >= n && state.done.iter().take(n).all(Option::is_some)
    }
}

/// Calls `consume` with the results of `work` on `items`, in order. Threads, as many as there are cores and 16 at most,
/// work up to `ahead` items ahead of it; they end when it returns.
///
/// # Errors
/// What `consume` returns.
pub fn in_order<T: Send, R>(
    items: Range<usize>,
    ahead: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
    consume: impl FnOnce(&mut Ahead<T>) -> Result<R>,
) -> Result<R> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS).min(items.len().max(1));
    let state = State { next: items.start, taken: items.start, done: VecDeque::new(), stop: false };
    let shared = Shared {
        end: items.end,
        // A thread that has nothing to do is of no use.
        ahead: ahead.max(workers + 1),
        state: Mutex::new(state),
        room: Condvar::new(),
        ready: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| shared.work(&work));
        }
        let result = catch_unwind(AssertUnwindSafe(|| consume(&mut Ahead { shared: &shared })));
        shared.state().stop = true;
        shared.room.notify_all();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_order_and_no_more_than_allowed_are_made() {
        let (made, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let most = AtomicUsize::new(0);
        let work = |i: usize| {
            let alive = made.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
            most.fetch_max(alive, Ordering::SeqCst);
            // Some take longer than the ones after them.
            std::thread::sleep(Duration::from_micros(if i.is_multiple_of(7) { 300 } else { 10 }));
            Ok(i)
        };
        let all = in_order(3..500, 32, work, |ahead| {
            let mut all = Vec::new();
            for result in ahead.by_ref() {
                taken.fetch_add(1, Ordering::SeqCst);
                all.push(result?);
            }
            assert!(ahead.is_ready(5) && ahead.next().is_none());
            Ok(all)
        });
        assert_eq!(all.unwrap(), (3..500).collect::<Vec<_>>());
        // One more may have been taken and not yet counted.
        assert!(most.load(Ordering::SeqCst) <= 33, "{most:?}");
        assert!(in_order(0..0, 4, Ok, |ahead| Ok(ahead.next().is_none())).unwrap());
    }

    #[test]
    fn errors_and_panics_come_in_their_place_and_nothing_hangs() {
        let work = |i: usize| match i {
            5 => Err(Error::usage("five")),
            6 => panic!("six"),
            _ => Ok(i),
        };
        in_order(0..1000, 8, work, |ahead| {
            for i in 0..5 {
                assert_eq!(ahead.next().unwrap().unwrap(), i);
            }
            assert!(ahead.next().unwrap().unwrap_err().to_string().contains("five"));
            assert!(ahead.next().unwrap().unwrap_err().to_string().contains("item 6"));
            // The rest is not taken.
            Ok(())
        })
        .unwrap();
    }
}
