//! The names of an archive's members, as every archive lists them.

use std::collections::BTreeSet;
use std::path::Path;

use super::listing::{self, MAX_DEPTH, is_below, is_noise};
use crate::{Error, Result};

/// The longest name of a member in bytes: what systems take as a path.
const MAX_NAME_BYTES: usize = 4096;

/// Files, each with its place in the archive, and folders, both as a [`super::listing::Listing`] has them.
pub(super) struct Index<P> {
    pub files: Vec<String>,
    /// Of each file.
    pub places: Vec<P>,
    pub folders: Vec<String>,
    pub runs: Vec<String>,
}

/// Members as they are met.
pub(super) struct Members<P> {
    found: Vec<(String, P)>,
    folders: BTreeSet<String>,
}

impl<P> Members<P> {
    pub(super) fn new() -> Self {
        Members { found: Vec::new(), folders: BTreeSet::new() }
    }

    /// Adds one member of the archive at `path`: a file with its place, or a folder. Nothing of a name leads out of the
    /// archive: a root and steps upwards are left away.
    pub(super) fn add(&mut self, path: &Path, name: &str, place: Option<P>) -> Result<()> {
        let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
        if parts.is_empty() || parts.iter().any(|part| is_noise(part)) {
            return Ok(());
        }
        if name.len() > MAX_NAME_BYTES || parts.len() > MAX_DEPTH {
            return Err(Error::data(
                path,
                format!(
                    "has a file of a name of {} bytes in {} folders, and takes {MAX_NAME_BYTES} and {MAX_DEPTH} at \
                     most; repack it with shorter names",
                    name.len(),
                    parts.len() - 1
                ),
            ));
        }
        for depth in 1..parts.len() + usize::from(place.is_none()) {
            let folder = parts[..depth].join("/");
            if !self.folders.contains(&folder) {
                self.folders.insert(folder);
            }
        }
        if let Some(place) = place {
            self.found.push((parts.join("/"), place));
        }
        Ok(())
    }

    /// The members sorted bytewise by name, without the run folders of this program.
    ///
    /// # Errors
    /// [`Error::Data`] where two have one name.
    pub(super) fn index(self, path: &Path) -> Result<Index<P>> {
        let Members { mut found, mut folders } = self;
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some(twice) = found.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::data(path, format!("has two files called {}; repack it with one", twice[0].0)));
        }
        let (mut files, mut places): (Vec<String>, Vec<P>) = found.into_iter().unzip();
        let runs = listing::run_folders(&files);
        if !runs.is_empty() {
            let is_outside = |name: &String| !runs.iter().any(|run| is_below(name, run));
            let kept = files.into_iter().zip(places).filter(|(name, _)| is_outside(name));
            (files, places) = kept.unzip();
            folders.retain(is_outside);
        }
        Ok(Index { files, places, folders: folders.into_iter().collect(), runs })
    }
}
