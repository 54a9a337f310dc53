//! Answers of the device that come later.
//!
//! wgpu answers through callbacks. In a browser the event loop calls them. On native somebody has to poll the device:
//! the future that waits does, for at most a millisecond at a time, so that it neither spins nor holds up the caller's
//! executor for long.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
#[cfg(not(target_arch = "wasm32"))]
use std::time::Duration;

#[cfg(not(target_arch = "wasm32"))]
use crate::Error;
use crate::Result;

/// The longest that one poll of a future waits for the device on native.
#[cfg(not(target_arch = "wasm32"))]
const PATIENCE: Duration = Duration::from_millis(1);

/// Polls after which a device that has finished its work but gave no answer is an error. Another thread may be about
/// to call the callback.
#[cfg(not(target_arch = "wasm32"))]
const IDLE_POLLS: u32 = 1000;

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    wakers: Vec<Waker>,
}

/// A value that a callback of wgpu delivers. Clones are the same answer.
#[derive(Debug)]
pub(super) struct Answer<T>(Arc<Mutex<State<T>>>);

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Answer(self.0.clone())
    }
}

impl<T: Clone> Answer<T> {
    /// No answer yet.
    pub fn new() -> Self {
        Answer(Arc::new(Mutex::new(State { value: None, wakers: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers the value and wakes whoever waits for it.
    pub fn give(&self, value: T) {
        let wakers = {
            let mut state = self.state();
            state.value = Some(value);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The value, if it has been delivered.
    pub fn get(&self) -> Option<T> {
        self.state().value.clone()
    }

    /// Waits for the value. On native `device` is polled until `submission`, or the latest one, is done.
    ///
    /// # Errors
    /// [`Error::Device`] when the device cannot be waited for or does not answer.
    pub async fn wait(&self, device: &wgpu::Device, submission: Option<&wgpu::SubmissionIndex>) -> Result<T> {
        let mut idle = 0;
        poll_fn(|context| {
            if let Some(value) = self.get() {
                return Poll::Ready(Ok(value));
            }
            match self.proceed(device, submission, &mut idle) {
                Err(error) => return Poll::Ready(Err(error)),
                // Nobody else polls the device: this future has to be polled again.
                Ok(true) => context.waker().wake_by_ref(),
                Ok(false) => self.state().wakers.push(context.waker().clone()),
            }
            // The callback may have been called meanwhile.
            self.get().map_or(Poll::Pending, |value| Poll::Ready(Ok(value)))
        })
        .await
    }

    /// Lets the device make progress. Whether the future must be polled again without a callback.
    #[cfg(not(target_arch = "wasm32"))]
    fn proceed(
        &self,
        device: &wgpu::Device,
        submission: Option<&wgpu::SubmissionIndex>,
        idle: &mut u32,
    ) -> Result<bool> {
        let wait = wgpu::PollType::Wait { submission_index: submission.cloned(), timeout: Some(PATIENCE) };
        match device.poll(wait) {
            Err(wgpu::PollError::Timeout) => *idle = 0,
            Err(error) => return Err(Error::Device(format!("waiting for the device failed: {error}"))),
            Ok(_) if *idle == IDLE_POLLS => return Err(Error::Device("the device did not answer".into())),
            Ok(_) => *idle += 1,
        }
        Ok(true)
    }

    #[cfg(target_arch = "wasm32")]
    fn proceed(&self, _: &wgpu::Device, _: Option<&wgpu::SubmissionIndex>, _: &mut u32) -> Result<bool> {
        Ok(false)
    }
}

/// Work that was handed to the device, to wait for.
#[derive(Clone, Debug)]
pub struct Submission {
    pub(super) index: wgpu::SubmissionIndex,
    pub(super) done: Answer<()>,
}
