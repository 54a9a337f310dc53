//! Embedding of many pictures in bounded memory: threads decode ahead of the device, and finished rows go to a part file
//! that a later call can go on with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::rows::{ahead_of, warn_of_one};
use crate::data::ahead::{self, Ahead};
use crate::data::embeddings::Table;
use crate::data::{DataOptions, ImageSet, LeftOut, Pictures};
use crate::fewshot::l2_normalise;
use crate::files::journal::{Journal, Unusable};
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::{Batches, Layer};
use crate::{Error, Result};

/// What lists everything that is left out.
pub(super) const LIST: &str = "the file beside the embeddings";
/// A pass that is read within this time had ended before.
const ENDED: Duration = Duration::from_micros(200);
/// A part file that is smaller is not worth its place when a disk is full.
const WORTH_KEEPING: u64 = 1 << 20;

/// What is embedded.
pub(super) enum Source {
    /// Files, which are read when their turn comes.
    Files(Pictures),
    /// A split of a data set, in memory.
    Set(ImageSet),
}

impl Source {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        match self {
            Source::Files(pictures) => pictures.len(),
            Source::Set(images) => images.len(),
        }
    }

    /// The path or name of a picture.
    pub fn path(&self, i: usize) -> String {
        match self {
            Source::Files(pictures) => pictures.path(i).display().to_string(),
            Source::Set(images) => images.names[i].clone(),
        }
    }

    /// Files that are no pictures.
    pub fn left_out(&self) -> &[LeftOut] {
        match self {
            Source::Files(pictures) => pictures.left_out(),
            Source::Set(_) => &[],
        }
    }

    /// A hash of what the pictures are: of files their names, sizes and times of change.
    pub fn fingerprint(&self) -> String {
        let mut hash = Xxh3::new();
        for i in 0..self.len() {
            hash.update(self.path(i).as_bytes());
            hash.update(&[0]);
            if let Source::Files(pictures) = self {
                let (size, changed) = pictures.stamp(i);
                hash.update(&size.to_le_bytes());
                hash.update(&changed.to_le_bytes());
            }
        }
        if let Source::Set(images) = self {
            hash.update(bytemuck::cast_slice(&images.pixels));
        }
        format!("{:032x}", hash.digest128())
    }

    fn words(&self, i: usize, options: &DataOptions) -> Result<Vec<u32>> {
        match self {
            Source::Files(pictures) => pictures.words(i, options),
            Source::Set(images) => Ok(images.image(i).to_vec()),
        }
    }
}

/// What a part file was begun with. Another call goes on with it only where all of it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub program: String,
    pub adapter: String,
    pub checkpoint: String,
    pub pictures: usize,
    pub inputs: String,
    pub layer: String,
    pub normalise: bool,
    pub strict: bool,
    pub side: usize,
    pub columns: usize,
}

impl Begun {
    /// How the part file was begun where this call is another, as in "with another checkpoint"; none where they agree.
    fn unlike(&self, earlier: &Begun) -> Option<String> {
        let Begun { program, adapter, pictures, layer, normalise, strict, .. } = earlier;
        let with = |given: bool| if given { "with" } else { "without" };
        if self.program != *program {
            return Some(format!("by version {program} of this program"));
        }
        if self.checkpoint != earlier.checkpoint || self.side != earlier.side {
            return Some("with another checkpoint".into());
        }
        if self.layer != *layer {
            return Some(format!("with another `request.layer`, {layer}"));
        }
        if self.normalise != *normalise {
            return Some(format!("{} `request.normalise`", with(*normalise)));
        }
        if self.strict != *strict {
            return Some(format!("{} `request.strict`", with(*strict)));
        }
        if self.pictures != *pictures {
            return Some(format!("with other pictures, {pictures} of them and now {}", self.pictures));
        }
        if self.inputs != earlier.inputs {
            return Some("with other pictures: some were renamed or changed since".into());
        }
        if self.adapter != *adapter {
            return Some(format!("on another adapter, {adapter}"));
        }
        (self != earlier).then(|| "with something else".into())
    }
}

/// Rows that are finished, in a file that grows batch by batch.
pub(super) struct Part<'s> {
    path: PathBuf,
    journal: Journal,
    source: &'s Source,
    columns: usize,
    /// Pictures that are done with, from the first on.
    pub done: usize,
    /// Rows among them.
    pub rows: usize,
    /// Pictures among them that could not be read, and why.
    left_out: Vec<(usize, String)>,
}

/// One record: the number of pictures done, what was left out since the record before, and the rows since then.
struct Record<'b> {
    done: usize,
    left_out: Vec<(usize, String)>,
    rows: &'b [u8],
}

impl<'b> Record<'b> {
    fn write(done: usize, left_out: &[(usize, String)], rows: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((done as u64).to_le_bytes());
        bytes.extend((left_out.len() as u64).to_le_bytes());
        for (item, why) in left_out {
            bytes.extend((*item as u64).to_le_bytes());
            bytes.extend((why.len() as u64).to_le_bytes());
            bytes.extend(why.as_bytes());
        }
        rows.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
        bytes
    }

    fn read(mut bytes: &'b [u8]) -> Option<Record<'b>> {
        let number = |bytes: &mut &'b [u8]| -> Option<usize> {
            let (first, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            usize::try_from(u64::from_le_bytes(*first)).ok()
        };
        let (done, n) = (number(&mut bytes)?, number(&mut bytes)?);
        let mut left_out = Vec::new();
        for _ in 0..n {
            let (item, length) = (number(&mut bytes)?, number(&mut bytes)?);
            let (why, rest) = bytes.split_at_checked(length)?;
            left_out.push((item, String::from_utf8_lossy(why).into_owned()));
            bytes = rest;
        }
        Some(Record { done, left_out, rows: bytes })
    }
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record of the part file cannot be understood")
}

/// The part file of an output.
pub(super) fn part_beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

impl<'s> Part<'s> {
    /// Begins a part file beside `out`, or with `resume` goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::Data`] where there is one and it is not to be gone on with, or was begun with something else;
    /// [`Error::Io`] where it cannot be written.
    pub fn open(out: &Path, begun: &Begun, source: &'s Source, resume: bool) -> Result<Part<'s>> {
        let path = part_beside(out);
        let is_there = path.exists();
        if is_there && !resume {
            return Err(Error::data(
                &path,
                "this is what an earlier call had done when it was stopped: go on with `request.resume`, or remove the \
                 file to begin anew",
            ));
        }
        let journal = if is_there { Journal::open(&path) } else { Journal::create(&path) };
        let journal = journal.map_err(|unusable| match unusable {
            Unusable::Foreign => {
                Error::data(&path, "this is no part file of `embed`: move it, or name another `request.out`")
            }
            Unusable::Busy => Error::data(
                &path,
                "another process is writing this file: wait for its end, or name another `request.out`",
            ),
            Unusable::Io(e) => Error::io(out, "cannot write the embeddings", e),
        })?;
        let columns = begun.columns;
        let mut part = Part { path, journal, source, columns, done: 0, rows: 0, left_out: Vec::new() };
        // A process that was killed before its first record has left nothing.
        if part.journal.records() == 0 {
            let bytes = serde_json::to_vec(begun).map_err(|e| Error::Internal(e.to_string()))?;
            if let Err(e) = part.journal.append(&bytes) {
                part.discard();
                return Err(Error::io(out, "cannot write the embeddings", e));
            }
            return Ok(part);
        }
        part.read(begun)?;
        Ok(part)
    }

    /// Takes over what the file has.
    fn read(&mut self, begun: &Begun) -> Result<()> {
        let mut earlier: Option<Begun> = None;
        let (mut done, mut rows, mut left_out) = (0, 0, Vec::new());
        let row = 4 * self.columns;
        let read = self.journal.visit(&mut |bytes| {
            if earlier.is_none() {
                earlier = Some(serde_json::from_slice(bytes)?);
                return Ok(());
            }
            // Whether it is the same call is looked at below; until then nothing is allocated by what it says.
            let record = Record::read(bytes).ok_or_else(unreadable)?;
            done = record.done;
            rows += record.rows.len() / row;
            left_out.extend(record.left_out);
            Ok(())
        });
        let unlike = earlier.as_ref().and_then(|earlier| begun.unlike(earlier));
        if let Some(how) = unlike {
            return Err(Error::data(
                &self.path,
                format!("was begun {how}: give what it was begun with, or remove the file to begin anew"),
            ));
        }
        let broken = || Error::data(&self.path, "is no part file that can be gone on with: remove it to begin anew");
        read.map_err(|_| broken())?;
        if done > self.source.len() || rows + left_out.len() != done {
            return Err(broken());
        }
        (self.done, self.rows, self.left_out) = (done, rows, left_out);
        Ok(())
    }

    /// Adds the rows of the pictures up to `done`, without those that are left out.
    fn add(&mut self, done: usize, left_out: Vec<(usize, String)>, rows: &[f32]) -> io::Result<()> {
        self.journal.append(&Record::write(done, &left_out, rows))?;
        self.done = done;
        self.rows += rows.len() / self.columns;
        self.left_out.extend(left_out);
        Ok(())
    }

    /// Everything among the inputs that has no row.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let of_item =
            |(item, why): &(usize, String)| LeftOut { path: self.source.path(*item).into(), why: why.clone() };
        self.source.left_out().iter().cloned().chain(self.left_out.iter().map(of_item)).collect()
    }

    /// Removes the file.
    pub fn discard(self) {
        // Harmless if it stays: the next call says what it is.
        let _ = self.journal.remove();
    }

    /// Keeps the file where that is of use after `error`, and says how to go on.
    pub fn leave(self, error: &Error, strict: bool, progress: &mut dyn Progress) {
        let worthless = match error {
            Error::Io { .. } => self.journal.bytes() < WORTH_KEEPING,
            // The picture has to be replaced, and then the inputs are others.
            Error::Data { .. } => strict,
            _ => false,
        };
        if self.rows == 0 || worthless {
            return self.discard();
        }
        if !matches!(error, Error::Interrupted(_)) {
            let (rows, path) = (self.rows, self.path.display());
            progress.note(&format!("{rows} rows are kept in {path}: `request.resume` goes on behind them"));
        }
    }

    fn paths_of(&self, from: usize, to: usize, left_out: &[(usize, String)]) -> impl Iterator<Item = String> {
        let mut gone = left_out.iter().map(|(item, _)| *item).peekable();
        (from..to).filter(move |item| gone.next_if_eq(item).is_none()).map(|item| self.source.path(item))
    }
}

impl Table for Part<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn columns(&self) -> usize {
        self.columns
    }

    fn paths(&self, each: &mut dyn FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        self.paths_of(0, self.done, &self.left_out).try_for_each(|path| each(&path))
    }

    fn visit(&mut self, each: &mut dyn FnMut(&str, &[f32]) -> io::Result<()>) -> io::Result<()> {
        let (mut first, mut done) = (true, 0);
        let mut row = Vec::with_capacity(self.columns);
        let (source, columns) = (self.source, self.columns);
        self.journal.visit(&mut |bytes| {
            if std::mem::take(&mut first) {
                return Ok(());
            }
            let record = Record::read(bytes).ok_or_else(unreadable)?;
            let mut gone = record.left_out.iter().map(|(item, _)| *item).peekable();
            let items = (done..record.done).filter(|item| gone.next_if_eq(item).is_none());
            for (item, bytes) in items.zip(record.rows.chunks_exact(4 * columns)) {
                row.clear();
                row.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                each(&source.path(item), &row)?;
            }
            done = record.done;
            Ok(())
        })
    }
}

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

/// What an extraction works with.
pub(super) struct Extraction<'e> {
    pub extractor: &'e Extractor,
    pub layer: Layer,
    pub normalise: bool,
    pub strict: bool,
    pub options: &'e DataOptions,
    pub out: &'e Path,
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
                progress.advance("embedding", part.done as u64, n as u64);
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
                Some(Err(error)) if self.strict => return Err(error),
                Some(Err(error)) => {
                    let LeftOut { path, why } = LeftOut::of(error)?;
                    let before = part.source.left_out().len() + part.left_out.len() + left_out.len();
                    warn_of_one(before, &LeftOut { path, why: why.clone() }, LIST, progress);
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let left_out = vec![(3, "is äöü".to_owned()), (5, String::new())];
        let bytes = Record::write(9, &left_out, &[1.5, -2.0]);
        let record = Record::read(&bytes).unwrap();
        assert_eq!((record.done, record.left_out, record.rows.len()), (9, left_out, 8));
        for cut in 0..bytes.len() - 8 {
            assert!(Record::read(&bytes[..cut]).is_none(), "{cut}");
        }
        // What a hostile file claims is not allocated.
        let huge = [9u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
        assert!(Record::read(&huge).is_none());
    }
}
