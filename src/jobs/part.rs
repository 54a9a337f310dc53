//! The rows of an extraction that are finished, in a file beside the output that grows batch by batch, and the output that
//! is written from it.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::Stored;
use crate::data::embeddings::{self, Format, Shard, Table};
use crate::data::{DataOptions, ImageSet, LeftOut, Pictures};
use crate::files::journal::{Journal, Unusable};
use crate::files::replace_alone;
use crate::train::features::Layer;
use crate::{Error, Result};

const CANNOT_WRITE: &str = "cannot write the embeddings";
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

    pub fn words(&self, i: usize, options: &DataOptions) -> Result<Vec<u32>> {
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
    /// What a call does that takes `layer` of the network of `stored`; of which pictures, [`Begun::with`] says.
    ///
    /// # Errors
    /// [`Error::Usage`] where the network has no such layer.
    pub fn new(
        stored: &Stored,
        adapter: String,
        columns: Option<usize>,
        layer: Layer,
        normalise: bool,
        strict: bool,
    ) -> Result<Begun> {
        let columns = columns
            .ok_or_else(|| Error::usage("the network was trained without this head: choose another `request.layer`"))?;
        Ok(Begun {
            program: env!("CARGO_PKG_VERSION").into(),
            adapter,
            checkpoint: stored.fingerprint()?,
            pictures: 0,
            inputs: String::new(),
            layer: layer.name().into(),
            normalise,
            strict,
            side: stored.side()?,
            columns,
        })
    }

    /// The same, of the pictures in `source`.
    pub fn with(&self, source: &Source) -> Begun {
        Begun { pictures: source.len(), inputs: source.fingerprint(), ..self.clone() }
    }

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

/// What a call does with a part file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Earlier {
    /// It refuses.
    Refuse,
    /// It goes on with it, and refuses one that was begun with something else.
    GoOn,
    /// It goes on with it where that was begun with the same, and else begins anew.
    GoOnOrBegin,
}

/// Rows that are finished, in a file that grows batch by batch.
pub(super) struct Part<'s> {
    path: PathBuf,
    journal: Journal,
    pub source: &'s Source,
    pub columns: usize,
    /// Pictures that are done with, from the first on.
    pub done: usize,
    /// Rows among them.
    pub rows: usize,
    /// Pictures among them that could not be read, and why.
    pub left_out: Vec<(usize, String)>,
    /// The shard that the pictures are of, where the output is to say so.
    shard: Option<PathBuf>,
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
fn part_beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

impl<'s> Part<'s> {
    /// Begins a part file beside `out`, or goes on with the one that is there, as `earlier` says. None where another
    /// process writes it.
    ///
    /// # Errors
    /// [`Error::Data`] where there is one and it is not to be gone on with, or was begun with something else;
    /// [`Error::Io`] where it cannot be written.
    pub fn open(out: &Path, begun: &Begun, source: &'s Source, earlier: Earlier) -> Result<Option<Part<'s>>> {
        let path = part_beside(out);
        if path.exists() && earlier == Earlier::Refuse {
            return Err(Error::data(
                &path,
                "this is what an earlier call had done when it was stopped: go on with `request.resume`, or remove the \
                 file to begin anew",
            ));
        }
        let mut tries = 0;
        let journal = loop {
            let journal = if path.exists() { Journal::open(&path) } else { Journal::create(&path) };
            match journal {
                Ok(journal) => break journal,
                Err(Unusable::Busy) => return Ok(None),
                // Another process has made or removed it in this moment.
                Err(Unusable::Io(e))
                    if tries < 100 && matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) =>
                {
                    tries += 1;
                }
                Err(Unusable::Foreign) => {
                    return Err(Error::data(
                        &path,
                        "this is no part file of `embed`: move it, or name another `request.out`",
                    ));
                }
                Err(Unusable::Io(e)) => return Err(Error::io(out, CANNOT_WRITE, e)),
            }
        };
        let columns = begun.columns;
        let mut part = Part { path, journal, source, columns, done: 0, rows: 0, left_out: Vec::new(), shard: None };
        if let Err(unlike) = part.read(begun) {
            if earlier != Earlier::GoOnOrBegin {
                return Err(unlike);
            }
            part.journal.clear().map_err(|e| Error::io(out, CANNOT_WRITE, e))?;
        }
        // A process that was killed before its first record has left nothing.
        if part.journal.records() == 0 {
            let bytes = serde_json::to_vec(begun).map_err(|e| Error::Internal(e.to_string()))?;
            if let Err(e) = part.journal.append(&bytes) {
                part.discard();
                return Err(Error::io(out, CANNOT_WRITE, e));
            }
        }
        Ok(Some(part))
    }

    /// What an [`open`](Part::open) of none means to a call that wants this very output.
    pub fn busy(out: &Path) -> Error {
        Error::data(
            part_beside(out),
            "another process is writing this file: wait for its end, or name another `request.out`",
        )
    }

    /// Takes over what the file has.
    fn read(&mut self, begun: &Begun) -> Result<()> {
        let mut earlier: Option<Begun> = None;
        let (mut done, mut rows, mut left_out) = (0, 0, Vec::new());
        let row = 4 * self.columns.max(1);
        let read = self.journal.visit(&mut |bytes| {
            if earlier.is_none() {
                earlier = Some(serde_json::from_slice(bytes)?);
                return Ok(());
            }
            // Whether it is the same call is looked at below; until then nothing is allocated by what it says.
            let record = Record::read(bytes).ok_or_else(unreadable)?;
            let items = done..record.done;
            let rises = record.left_out.iter().map(|(item, _)| item).is_sorted();
            if !rises || !record.left_out.iter().all(|(item, _)| items.contains(item)) {
                return Err(unreadable());
            }
            done = record.done;
            rows += record.rows.len() / row;
            left_out.extend(record.left_out);
            Ok(())
        });
        if let Some(how) = earlier.and_then(|earlier| begun.unlike(&earlier)) {
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
    pub fn add(&mut self, done: usize, left_out: Vec<(usize, String)>, rows: &[f32]) -> io::Result<()> {
        self.journal.append(&Record::write(done, &left_out, rows))?;
        self.done = done;
        self.rows += rows.len() / self.columns;
        self.left_out.extend(left_out);
        Ok(())
    }

    /// Everything among the inputs that has no row.
    pub fn all_left_out(&self) -> Vec<LeftOut> {
        let of_item =
            |(item, why): &(usize, String)| LeftOut { path: self.source.path(*item).into(), why: why.clone() };
        self.source.left_out().iter().cloned().chain(self.left_out.iter().map(of_item)).collect()
    }

    /// The class of each row, as [`Pictures::classes`] has them.
    pub fn classes(&self) -> Option<Vec<Option<String>>> {
        let Source::Files(pictures) = self.source else { return None };
        let left_out: HashSet<usize> = self.left_out.iter().map(|(item, _)| *item).collect();
        let classes = pictures.classes()?.into_iter().enumerate();
        Some(classes.filter(|(item, _)| !left_out.contains(item)).map(|(_, class)| class).collect())
    }

    /// Writes the rows to `out`, and beside an array the list of their paths. `shard`: what the file is to say of a shard.
    ///
    /// # Errors
    /// [`Error::Io`] where that fails: then neither file is there.
    pub fn write(&mut self, out: &Path, format: Format, begun: &Begun, shard: Option<&Path>) -> Result<()> {
        let about = [
            ("checkpoint", begun.checkpoint.clone()),
            ("format", "ieq-wgpu.embeddings.1".to_owned()),
            ("layer", begun.layer.clone()),
            ("normalised", begun.normalise.to_string()),
        ];
        self.shard = shard.map(Path::to_owned);
        // Only this process writes beside the part file, so what one that was killed had begun is written over.
        replace_alone(out, CANNOT_WRITE, |file| {
            let mut buffered = BufWriter::with_capacity(1 << 20, file);
            embeddings::write(format, self, &about, &mut buffered)?;
            buffered.flush()
        })?;
        let Some(list) = embeddings::list_of(format, out) else { return Ok(()) };
        let written = replace_alone(&list, "cannot write the list of paths", |file| {
            let mut buffered = BufWriter::new(file);
            self.paths(&mut |path| writeln!(buffered, "{}", embeddings::line(path)))?;
            buffered.flush()
        });
        written.inspect_err(|_| {
            // Neither is of use without the other, and an older list is that of another array.
            for half in [out, &list] {
                let _ = std::fs::remove_file(half);
            }
        })
    }

    /// Removes the file.
    pub fn discard(self) {
        // Harmless if it stays: the next call says what it is.
        let _ = self.journal.remove();
    }

    /// Keeps the file where that is of use after `error`: then it is said how to go on.
    pub fn leave(self, error: &Error, strict: bool) -> Option<String> {
        let worthless = match error {
            Error::Io { .. } => self.journal.bytes() < WORTH_KEEPING,
            // The picture has to be replaced, and then the inputs are others.
            Error::Data { .. } => strict,
            _ => false,
        };
        if self.rows == 0 || worthless {
            self.discard();
            return None;
        }
        let (rows, path) = (self.rows, self.path.display());
        // An interruption says it itself.
        (!matches!(error, Error::Interrupted(_)))
            .then(|| format!("{rows} rows are kept in {path}: `request.resume` goes on behind them"))
    }

    /// Whether there is a part file of `out`.
    pub fn is_there(out: &Path) -> bool {
        part_beside(out).exists()
    }

    /// Removes what a process left that was killed when `out` was finished.
    pub fn sweep(out: &Path) {
        if Part::is_there(out)
            && let Ok(journal) = Journal::open(&part_beside(out))
        {
            let _ = journal.remove();
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

    fn shard(&self) -> Option<Shard> {
        let origin = self.shard.as_ref()?.display().to_string();
        let all = self.all_left_out().into_iter();
        Some(Shard { origin, left_out: all.map(|file| (file.path.display().to_string(), file.why)).collect() })
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
