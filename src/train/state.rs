//! The state of a run in a checkpoint: names of the tensors and of the metadata, and what guards a resumed run against
//! other data.

use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::checkpoint::{Checkpoint, TRAINING_PREFIX, TensorData};
use super::init::{self, numbers};
use crate::data::ImageSet;
use crate::nn::Entry;
use crate::settings::Config;
use crate::tape::exec::Executor;
use crate::{Error, Result};

/// Metadata key of the configuration, as JSON.
pub const CONFIG_KEY: &str = "config";
/// Metadata key of the number of finished steps.
pub const STEP_KEY: &str = "step";
/// Metadata key of the number of training classes.
pub const CLASSES_KEY: &str = "classes";
/// Metadata key of the number of training images.
pub const IMAGES_KEY: &str = "images";
/// Metadata key of the image side.
pub const SIDE_KEY: &str = "side";
/// Metadata key of the fingerprint of the training images and labels.
const DATA_KEY: &str = "data";
/// Metadata key of the fingerprint of the teacher's tensors; none without a teacher.
const TEACHER_KEY: &str = "teacher";

/// Metadata key of the fingerprint of the network that the run started from; none where it started from the seed.
const INIT_KEY: &str = "init";

/// The tensor that holds the memory bank.
pub(super) fn bank_name() -> String {
    format!("{TRAINING_PREFIX}bank")
}

/// The tensor that holds the momentum of a parameter.
pub(super) fn momentum_name(parameter: &Entry) -> String {
    format!("{TRAINING_PREFIX}momentum.{}", parameter.name)
}

/// Parameters or running statistics under the names that they have where the plain ones are those of their averages.
pub(super) fn trained_weights(entries: &[Entry]) -> Vec<Entry> {
    let renamed = |entry: &Entry| Entry { name: format!("{TRAINING_PREFIX}weights.{}", entry.name), ..entry.clone() };
    entries.iter().map(renamed).collect()
}

/// Marks a fingerprint made by XXH3. Those without a mark are from earlier versions.
const XXH3: &str = "xxh3:";

/// What a run was begun with, as metadata keys and fingerprints: a resumed one must find the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origins(Vec<(&'static str, String)>);

/// What is fingerprinted, by metadata key.
fn origins<'a>(data: &'a ImageSet, teacher: Option<&'a Checkpoint>) -> Vec<(&'static str, Vec<&'a [u32]>)> {
    let mut origins: Vec<(_, Vec<&[u32]>)> = vec![(DATA_KEY, vec![&data.labels, &data.pixels])];
    if let Some(weights) = teacher {
        let numbers = weights.tensors.values().filter_map(|tensor| match &tensor.data {
            TensorData::F32(numbers) => Some(bytemuck::cast_slice(numbers)),
            TensorData::I64(_) => None,
        });
        origins.push((TEACHER_KEY, numbers.collect()));
    }
    origins
}

impl Origins {
    /// Those of a run on these images with this teacher.
    pub(super) fn of(data: &ImageSet, teacher: Option<&Checkpoint>) -> Origins {
        Origins(origins(data, teacher).into_iter().map(|(key, parts)| (key, fingerprint(parts))).collect())
    }

    /// Notes the network that the run starts from.
    pub(super) fn begin_with(&mut self, init: &Checkpoint) {
        self.0.push((INIT_KEY, fingerprint(numbers(&init.tensors))));
    }

    /// Notes what a checkpoint that continues was begun with, where that is not at hand any more.
    pub(super) fn remember(&mut self, checkpoint: &Checkpoint) {
        if let (None, Some(print)) = (self.init(), checkpoint.metadata.get(INIT_KEY)) {
            self.0.push((INIT_KEY, print.clone()));
        }
    }

    fn init(&self) -> Option<&str> {
        self.0.iter().find(|(key, _)| *key == INIT_KEY).map(|(_, print)| print.as_str())
    }

    /// The entries of a checkpoint's metadata.
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, fingerprint)| (*key, fingerprint.as_str()))
    }

    /// Whether the checkpoint's run was begun with the same, of which `data` and `teacher` are.
    ///
    /// # Errors
    /// [`Error::Data`] when it was begun with something else.
    pub(super) fn check(
        &self,
        path: &Path,
        checkpoint: &Checkpoint,
        data: &ImageSet,
        teacher: Option<&Checkpoint>,
    ) -> Result<()> {
        init::check(path, checkpoint.metadata.get(INIT_KEY).map(String::as_str), self.init())?;
        for ((key, now), (_, parts)) in self.0.iter().zip(origins(data, teacher)) {
            let same = checkpoint.metadata.get(*key).is_some_and(|stored| match stored.starts_with(XXH3) {
                true => stored == now,
                false => *stored == earlier_fingerprint(&parts),
            });
            if !same {
                return Err(Error::data(
                    path,
                    format!("the run was begun with another {key}: give it the {key} that it had, or start a new run"),
                ));
            }
        }
        Ok(())
    }
}

/// The 128-bit XXH3 hash of the parts, one after the other, as text.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u32]>) -> String {
    let mut hash = Xxh3::new();
    parts.into_iter().for_each(|part| hash.update(bytemuck::cast_slice(part)));
    format!("{XXH3}{:032x}", hash.digest128())
}

/// The hash of earlier versions, which is in their checkpoints: the multiplication of FNV-1a, by words.
fn earlier_fingerprint(parts: &[&[u32]]) -> String {
    let words = parts.iter().flat_map(|part| part.iter().copied());
    let print = words.fold(0xcbf2_9ce4_8422_2325_u64, |h, word| (h ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3));
    format!("{print:016x}")
}

/// Names and shapes of entries, as checkpoints check them.
pub fn expected(entries: &[Entry]) -> Vec<(String, Vec<usize>)> {
    entries.iter().map(|e| (e.name.clone(), e.shape.clone())).collect()
}

/// The numbers of a tensor that was checked to be there.
pub(super) fn floats<'c>(checkpoint: &'c Checkpoint, name: &str) -> Result<&'c [f32]> {
    match checkpoint.tensors.get(name).map(|t| &t.data) {
        Some(TensorData::F32(data)) => Ok(data),
        _ => Err(Error::Internal(format!("{name} was not checked"))),
    }
}

/// Writes the entries' tensors from a checkpoint that was checked to have them.
pub(super) async fn load(executor: &Executor, entries: &[Entry], checkpoint: &Checkpoint) -> Result<()> {
    for entry in entries {
        executor.write_async(entry.value, floats(checkpoint, &entry.name)?).await?;
    }
    Ok(())
}

/// A whole number in a checkpoint's metadata.
///
/// # Errors
/// [`Error::Data`] when it is missing: the file is not a checkpoint of this program.
pub fn number(path: &Path, checkpoint: &Checkpoint, key: &str) -> Result<u64> {
    checkpoint.metadata.get(key).and_then(|text| text.parse().ok()).ok_or_else(|| {
        Error::data(path, format!("its metadata has no number {key:?}: name a checkpoint that `ieq-wgpu train` wrote"))
    })
}

/// The image side in a checkpoint, in pixels.
///
/// # Errors
/// [`Error::Data`] when it is missing or no side that a network takes.
pub fn stored_side(path: &Path, checkpoint: &Checkpoint, config: &Config) -> Result<usize> {
    let side = usize::try_from(number(path, checkpoint, SIDE_KEY)?).unwrap_or(usize::MAX);
    let fits = config.check_side(side).map(|()| side);
    fits.map_err(|e| Error::data(path, format!("its image side cannot be used: {e}")))
}

/// The configuration in a checkpoint.
///
/// # Errors
/// [`Error::Data`] when it is missing, malformed or out of range.
pub fn stored_config(path: &Path, checkpoint: &Checkpoint) -> Result<Config> {
    let text = checkpoint.metadata.get(CONFIG_KEY).ok_or_else(|| {
        Error::data(path, "its metadata has no \"config\": name a checkpoint that `ieq-wgpu train` wrote")
    })?;
    let config = Config::from_json(text, path)?;
    config.validate().map_err(|e| Error::data(path, format!("its configuration cannot be used: {e}")))?;
    Ok(config)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_with_its_own_data_and_with_fingerprints_of_earlier_versions() {
        let data = |pixel: u32| ImageSet { side: 1, pixels: vec![7, pixel], labels: vec![0, 1], ..ImageSet::default() };
        let (own, other) = (data(8), data(9));
        let origins = Origins::of(&own, None);
        let mut checkpoint = Checkpoint::default();
        let check = |checkpoint: &Checkpoint| origins.check(Path::new("a"), checkpoint, &own, None);
        assert!(check(&checkpoint).unwrap_err().to_string().contains("begun with another data"));
        for (key, fingerprint) in origins.metadata() {
            assert!(fingerprint.starts_with(XXH3));
            checkpoint.metadata.insert(key.into(), fingerprint.into());
        }
        let earlier = Checkpoint {
            metadata: [(DATA_KEY.to_owned(), earlier_fingerprint(&[&[0, 1], &[7, 8]]))].into(),
            ..Checkpoint::default()
        };
        for checkpoint in [&checkpoint, &earlier] {
            check(checkpoint).unwrap();
            assert!(Origins::of(&other, None).check(Path::new("a"), checkpoint, &other, None).is_err());
            let teacher = Some(&earlier);
            assert!(Origins::of(&own, teacher).check(Path::new("a"), checkpoint, &own, teacher).is_err());
        }
    }

    /// Published with XXH3: <https://github.com/Cyan4973/xxHash>, 128 bits of an empty input.
    #[test]
    fn the_hash_is_xxh3() {
        assert_eq!(fingerprint([]), "xxh3:99aa06d3014798d86001c324468d497f");
    }
}
