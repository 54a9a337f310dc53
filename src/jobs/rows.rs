//! Rows of pictures, of which few are in memory at a time: threads decode ahead of the device, and the caller is given
//! one row after the other.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_128;

use crate::data::{DataOptions, LeftOut, Pictures, ahead};
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// Batches that threads decode ahead of the device.
const BATCHES_AHEAD: usize = 4;
/// The most bytes of decoded pictures that wait for the device.
const BYTES_AHEAD: usize = 256 << 20;
/// Pictures that are left out with a warning each; of the rest it is said where they are listed.
const WARNINGS: usize = 20;

/// Pictures that threads may decode ahead of the device.
pub(super) fn ahead_of(extractor: &Extractor) -> usize {
    let bytes = 4 * extractor.side() * extractor.side();
    (extractor.batch() * BATCHES_AHEAD).min(BYTES_AHEAD / bytes.max(1)).max(1)
}

/// Says that a picture is left out, unless many were `before`; `list` is where all of them are.
pub(super) fn warn_of_one(before: usize, file: &LeftOut, list: &str, progress: &mut dyn Progress) {
    match before {
        0..WARNINGS => progress.warn(&format!("left out {}: {}", file.path.display(), file.why)),
        WARNINGS => progress.warn(&format!("more pictures are left out; {list} lists them all")),
        _ => {}
    }
}

/// Embeds `n` pictures: `read` gives the pixels of one as [`Pictures::words`] does, and what else is to be known of it;
/// `each` is called in the order of the pictures with that and the row, or with why it could not be read.
///
/// # Errors
/// The first error of `each`; [`Error::NonFinite`] for a row that is not finite; [`Error::Interrupted`] when the caller
/// asks to stop; what the device refuses.
pub(super) fn embed_each<T: Send>(
    extractor: &Extractor,
    n: usize,
    read: impl Fn(usize) -> Result<(T, Vec<u32>)> + Sync,
    progress: &mut dyn Progress,
    mut each: impl FnMut(Result<(T, &[f32])>, &mut dyn Progress) -> Result<()>,
) -> Result<()> {
    ahead::in_order(0..n, ahead_of(extractor), read, |ready| {
        let mut batches = extractor.batches(Layer::Feature)?;
        let columns = batches.width().max(1);
        let mut waiting = VecDeque::new();
        let mut done = 0;
        loop {
            progress.go_on()?;
            let mut words = Vec::new();
            let take = |read: Result<(T, Vec<u32>)>| {
                read.map(|(own, pixels)| {
                    words.extend(pixels);
                    own
                })
            };
            let batch: Vec<Result<T>> = ready.by_ref().take(extractor.batch()).map(take).collect();
            if !words.is_empty() {
                batches.begin(words)?;
            }
            let is_last = batch.is_empty();
            waiting.push_back(batch);
            // The device has this batch while threads decode and the one before is read.
            while waiting.len() > usize::from(!is_last) {
                let batch = waiting.pop_front().unwrap_or_default();
                let rows = if batch.iter().any(Result::is_ok) { batches.finish()? } else { Vec::new() };
                if rows.iter().any(|x| !x.is_finite()) {
                    return Err(Error::NonFinite(
                        "an embedding is not finite: use a checkpoint from before the training diverged".into(),
                    ));
                }
                done += batch.len();
                let mut rows = rows.chunks_exact(columns);
                for own in batch {
                    let lost = || Error::Internal("a pass has fewer rows than pictures".into());
                    let row = own.and_then(|own| Ok((own, rows.next().ok_or_else(lost)?)));
                    each(row, progress)?;
                }
                progress.advance("embedding", done as u64, n as u64);
            }
            if is_last {
                return Ok(());
            }
        }
    })
}

/// An embedded picture.
pub(super) struct Row<'r> {
    /// Its place among the pictures.
    pub picture: usize,
    /// A hash of its pixels as the network sees them.
    pub pixels: u128,
    /// Its embedding.
    pub features: &'r [f32],
}

/// A network that embeds pictures, and what was left out so far.
pub(super) struct Embedder<'a> {
    pub extractor: Extractor,
    pub options: DataOptions,
    pub left_out: Vec<LeftOut>,
    pub progress: &'a mut dyn Progress,
}

impl Embedder<'_> {
    /// Gives `each` the rows of pictures in their order. What cannot be read is left out, and said.
    ///
    /// # Errors
    /// As [`embed_each`]; [`Error::Data`] where no picture can be read, or where the network makes zeros alone of one.
    pub fn each(&mut self, pictures: &Pictures, mut each: impl FnMut(Row) -> Result<()>) -> Result<()> {
        let Embedder { extractor, options, left_out, progress } = self;
        let mut leave_out = |file: LeftOut, progress: &mut dyn Progress| {
            warn_of_one(left_out.len(), &file, "`request.json`", progress);
            left_out.push(file);
        };
        pictures.left_out().iter().for_each(|file| leave_out(file.clone(), *progress));
        let read = |i: usize| {
            let words = pictures.words(i, options)?;
            Ok((xxh3_128(bytemuck::cast_slice(&words)), words))
        };
        let (mut picture, mut first, mut rows) = (0, None, 0_usize);
        embed_each(extractor, pictures.len(), read, *progress, |row, progress| {
            match row {
                Ok((pixels, features)) => {
                    if features.iter().all(|&x| x == 0.0) {
                        return Err(Error::data(
                            pictures.path(picture),
                            "the network makes zeros alone of this picture, so it is like no other: take it away, or \
                             name another network with `request.model`",
                        ));
                    }
                    each(Row { picture, pixels, features })?;
                    rows += 1;
                }
                Err(error) if pictures.len() == 1 => return Err(error),
                Err(error) => {
                    let file = LeftOut::of(error)?;
                    first.get_or_insert_with(|| file.clone());
                    leave_out(file, progress);
                }
            }
            picture += 1;
            Ok(())
        })?;
        match first {
            Some(LeftOut { path, why }) if rows == 0 => Err(Error::data(path, why)),
            _ => Ok(()),
        }
    }
}
