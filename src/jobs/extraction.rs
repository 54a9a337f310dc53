//! Embedding of many pictures in bounded memory: threads decode ahead of the device, and finished rows go to a part file
//! that a later call can go on with.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::part::Part;
use super::rows::{ahead_of, warn_of_one};
use crate::data::ahead::{self, Ahead};
use crate::data::{DataOptions, LeftOut};
use crate::fewshot::l2_normalise;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::{Batches, Layer};
use crate::{Error, Result};

/// A pass that is read within this time had ended before.
const ENDED: Duration = Duration::from_micros(200);

/// How fast pictures were embedded, and whether decoding kept up.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Pace {
    /// Pictures of this call; without those of the call that it went on with.
    pub pictures: usize,
    /// Seconds from the first picture to the last row.
    pub seconds: f64,
    /// Share of that time in which the device may have had nothing to do, 0 to 1; it was no more.
    pub device_idle: f64,
}

impl Pace {
    /// Both, one after the other.
    pub fn and(&self, other: &Pace) -> Pace {
        let seconds = self.seconds + other.seconds;
        let idle = self.device_idle * self.seconds + other.device_idle * other.seconds;
        let device_idle = if seconds > 0.0 { idle / seconds } else { 0.0 };
        Pace { pictures: self.pictures + other.pictures, seconds, device_idle }
    }

    /// Pictures per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.pictures as f64 / self.seconds } else { 0.0 }
    }
}

/// Times while the device may have had nothing to do. Some drivers compute while work is submitted, others after that.
struct Idle {
    total: Duration,
    /// When the device was last known to have work.
    known: Instant,
    /// From then until the last pass was begun.
    gap: Duration,
}

impl Idle {
    /// A pass is about to be begun; `alone`: there is no other under way.
    fn before_pass(&mut self, alone: bool) {
        self.gap = self.known.elapsed();
        if alone {
            self.total += self.gap;
        }
    }

    /// A pass was submitted.
    fn submitted(&mut self) {
        self.known = Instant::now();
    }

    /// A pass was read, after a wait from `asked` on; `followed`: another is under way.
    fn read(&mut self, asked: Instant, followed: bool) {
        if asked.elapsed() >= ENDED {
            self.known = Instant::now();
        } else if followed {
            // It had ended, at any moment before the next was begun.
            self.total += self.gap;
        }
    }
}

/// A batch on its way: the pictures up to `done`, without those that are left out.
struct Batch {
    done: usize,
    left_out: Vec<(usize, String)>,
    /// Whether there is anything for the device.
    has_rows: bool,
}

/// Whether an error is none of the file's own.
fn is_of_system(error: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error, Error::Io { source, .. } if !matches!(source.kind(), NotFound | PermissionDenied))
}

/// What an extraction works with.
pub(super) struct Extraction<'e> {
    pub extractor: &'e Extractor,
    pub layer: Layer,
    pub normalise: bool,
    pub strict: bool,
    pub options: &'e DataOptions,
    pub out: &'e Path,
    /// What lists everything that is left out.
    pub list: &'e str,
    /// What is said of the progress.
    pub what: &'e str,
    /// Fail where the system cannot read a file that is there and may be read: the next call may. Else the picture is left
    /// out.
    pub fail_on_io: bool,
}

impl Extraction<'_> {
    /// Embeds the pictures that `part` does not have yet.
    ///
    /// # Errors
    /// With `strict` the first picture that cannot be read; [`Error::Io`] when the part file cannot be written,
    /// [`Error::Interrupted`] when the caller asks to stop, and what the device refuses.
    pub fn run(&self, part: &mut Part, progress: &mut dyn Progress) -> Result<Pace> {
        let source = part.source;
        let (first, n) = (part.done, source.len());
        let begun = Instant::now();
        let mut idle = Idle { total: Duration::ZERO, known: begun, gap: Duration::ZERO };
        let words = |i| source.words(i, self.options);
        ahead::in_order(first..n, ahead_of(self.extractor), words, |pixels| {
            let mut batches = self.extractor.batches(self.layer)?;
            // The device works on `last` while the pictures of the next batch are awaited.
            let mut last: Option<Batch> = None;
            let mut next = first;
            while next < n || last.is_some() {
                if progress.stop_requested() {
                    return Err(Error::Interrupted(format!(
                        "{} of {n} pictures are embedded: `request.resume` goes on behind them",
                        part.done
                    )));
                }
                if last.is_some() && (next == n || !pixels.is_ready(self.extractor.batch())) {
                    self.finish(&mut batches, last.take(), &mut idle, part)?;
                } else {
                    let batch = self.begin(&mut batches, pixels, next, &mut idle, part, progress)?;
                    next = batch.done;
                    if let Some(last) = last.replace(batch) {
                        self.finish(&mut batches, Some(last), &mut idle, part)?;
                    }
                }
                progress.advance(self.what, part.done as u64, n as u64);
            }
            Ok(())
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        let device_idle = if seconds > 0.0 { (idle.total.as_secs_f64() / seconds).min(1.0) } else { 0.0 };
        Ok(Pace { pictures: n - first, seconds, device_idle })
    }

    /// Takes the pictures of the next batch and gives them to the device.
    fn begin(
        &self,
        batches: &mut Batches,
        pixels: &mut Ahead<Vec<u32>>,
        first: usize,
        idle: &mut Idle,
        part: &Part,
        progress: &mut dyn Progress,
    ) -> Result<Batch> {
        let done = (first + self.extractor.batch()).min(part.source.len());
        let (mut left_out, mut all) = (Vec::new(), Vec::new());
        for item in first..done {
            match pixels.next() {
                Some(Ok(words)) => all.extend(words),
                Some(Err(error)) if self.strict || (self.fail_on_io && is_of_system(&error)) => return Err(error),
                Some(Err(error)) => {
                    let LeftOut { path, why } = LeftOut::of(error)?;
                    let before = part.source.left_out().len() + part.left_out.len() + left_out.len();
                    warn_of_one(before, &LeftOut { path, why: why.clone() }, self.list, progress);
                    left_out.push((item, why));
                }
                None => return Err(Error::Internal("there are fewer pictures than there were".into())),
            }
        }
        let has_rows = !all.is_empty();
        if has_rows {
            idle.before_pass(batches.under_way() == 0);
            batches.begin(all)?;
            idle.submitted();
        }
        Ok(Batch { done, left_out, has_rows })
    }

    /// Reads the rows of a batch and keeps them.
    fn finish(&self, batches: &mut Batches, batch: Option<Batch>, idle: &mut Idle, part: &mut Part) -> Result<()> {
        let Some(batch) = batch else { return Ok(()) };
        let mut rows = Vec::new();
        if batch.has_rows {
            let asked = Instant::now();
            rows = batches.finish()?;
            idle.read(asked, batches.under_way() > 0);
        }
        if self.normalise {
            l2_normalise(&mut rows, part.columns);
        }
        let written = part.add(batch.done, batch.left_out, &rows);
        written.map_err(|e| Error::io(self.out, "cannot write the embeddings", e))
    }
}
