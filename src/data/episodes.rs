//! Few-shot episodes: sampled, or read from a file.

use std::path::Path;

use rand::seq::index;
use safetensors::{Dtype, SafeTensors};

use super::{ImageSet, Split};
use crate::error::Change;
use crate::random::{Rng, Stream};
use crate::{Error, Result};

/// One N-way K-shot task: indices into an image set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The labelled images, `ways * shots`, class after class.
    pub support: Vec<u32>,
    /// The images to be classified, `ways * queries`, class after class.
    pub query: Vec<u32>,
    /// Number of classes.
    pub ways: usize,
    /// Support images per class.
    pub shots: usize,
    /// Query images per class.
    pub queries: usize,
}

/// Why episodes of this size cannot be drawn from `images`; none where they can.
pub fn shortage(images: &ImageSet, ways: usize, shots: usize, queries: usize) -> Option<String> {
    if ways < 2 || shots == 0 || queries == 0 {
        return Some(format!(
            "an episode needs at least 2 ways, 1 shot and 1 query, got {ways} ways, {shots} shots and {queries} queries"
        ));
    }
    if images.n_classes() < ways {
        let drawn = images.drawn_from.map_or_else(String::new, |all| {
            format!(" (the data has {all} classes, split 64 : 16 : 20 by seed; the split named all has every class)")
        });
        return Some(format!(
            "{ways}-way episodes need {ways} classes and the split has {}{drawn}",
            images.n_classes()
        ));
    }
    let per_class = shots.saturating_add(queries);
    let by_class = images.by_class();
    let (class, few) = images.class_names.iter().zip(&by_class).find(|(_, own)| own.len() < per_class)?;
    Some(format!(
        "{shots} shots and {queries} queries need {per_class} images per class and class {class} has {}",
        few.len()
    ))
}

/// The ways and queries of the largest episodes of `shots`, up to these, that every class has room for; none where there
/// is no room for two ways and a query.
pub fn room(images: &ImageSet, ways: usize, shots: usize, queries: usize) -> Option<(usize, usize)> {
    let by_class = images.by_class();
    let least = by_class.iter().map(Vec::len).min()?;
    let (ways, queries) = (by_class.len().min(ways), least.saturating_sub(shots).min(queries));
    (ways > 1 && queries > 0).then_some((ways, queries))
}

/// Draws the episodes 0 to `n`, each a pure function of the seed and its number. Classes and their images are drawn
/// without replacement.
///
/// # Errors
/// [`Error::Usage`] where there is a [`shortage`], [`Error::Conflict`] where all classes together would do.
pub fn draw(images: &ImageSet, ways: usize, shots: usize, queries: usize, n: usize, seed: u64) -> Result<Vec<Episode>> {
    if let Some(why) = shortage(images, ways, shots, queries) {
        let why = format!("{why}; lower the ways, shots or queries, or choose another split or other data");
        return Err(match images.drawn_from {
            Some(all) if all >= ways && images.n_classes() < ways => Error::Conflict {
                keys: vec!["split"],
                why,
                changes: vec![Change::Set("split", Split::All.to_string())],
            },
            _ => Error::usage(why),
        });
    }
    let count = u32::try_from(n).map_err(|_| Error::Argument {
        what: "the number of episodes",
        got: n.to_string(),
        wanted: "below 2^32".into(),
    })?;
    let by_class = images.by_class();
    Ok((0..count).map(|i| sample(&by_class, ways, shots, queries, seed, i)).collect())
}

/// Draws episode `i` from classes that suffice.
fn sample(by_class: &[Vec<u32>], ways: usize, shots: usize, queries: usize, seed: u64, i: u32) -> Episode {
    let rng = &mut Rng::new(seed, Stream::Episodes, i, 0);
    let (mut support, mut query) = (Vec::with_capacity(ways * shots), Vec::with_capacity(ways * queries));
    for class in index::sample(rng, by_class.len(), ways) {
        let images = &by_class[class];
        let drawn: Vec<u32> = index::sample(rng, images.len(), shots + queries).iter().map(|at| images[at]).collect();
        support.extend(&drawn[..shots]);
        query.extend(&drawn[shots..]);
    }
    Episode { support, query, ways, shots, queries }
}

/// Reads fixed episodes: the tensor `{shots}shot` of shape `[episodes, ways, shots + queries]`, support
/// first, in a safetensors file; whole numbers of any type, each below `n_images` and once in an episode.
pub fn read_episodes(path: &Path, shots: usize, n_images: usize) -> Result<Vec<Episode>> {
    let bytes = std::fs::read(path).map_err(|source| Error::io(path, "cannot read the episodes", source))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::data(path, format!("is not a safetensors file ({error}); give one with episodes")))?;
    let name = format!("{shots}shot");
    let Ok(tensor) = file.tensor(&name) else {
        let mut names: Vec<&str> = file.names();
        names.sort_unstable();
        return Err(Error::data(
            path,
            format!(
                "has no tensor {name} (it has {}); choose other shots or a file of episodes",
                super::image_set::few(&names)
            ),
        ));
    };
    let (ways, per_class) = match *tensor.shape() {
        [n, ways, per_class] if n >= 2 && ways >= 2 && shots > 0 && per_class > shots => (ways, per_class),
        ref shape => {
            return Err(Error::data(
                path,
                format!(
                    "{name} has shape {shape:?}; it must be [episodes, ways, {shots} + queries] with 2 episodes and 2 ways or more"
                ),
            ));
        }
    };
    let indices = whole_numbers(tensor.dtype(), tensor.data()).ok_or_else(|| {
        Error::data(path, format!("{name} has type {:?}; use int32, int64 or float32", tensor.dtype()))
    })?;
    let mut checked = Vec::with_capacity(indices.len());
    for (at, index) in indices.into_iter().enumerate() {
        let valid = index.fract() == 0.0 && index >= 0.0 && index < n_images as f64;
        if !valid {
            return Err(Error::data(
                path,
                format!(
                    "{name}, episode {}: {index} is not the index of one of the {n_images} images; choose the split the episodes were made for",
                    at / (ways * per_class)
                ),
            ));
        }
        checked.push(index as u32);
    }
    // An image that is support and query at once answers itself.
    for (i, indices) in checked.chunks(ways * per_class).enumerate() {
        let mut sorted = indices.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::data(
                path,
                format!("{name}, episode {i}: image {} is there twice; draw images without replacement", twice[0]),
            ));
        }
    }
    let episode = |indices: &[u32]| Episode {
        support: indices.chunks(per_class).flat_map(|class| &class[..shots]).copied().collect(),
        query: indices.chunks(per_class).flat_map(|class| &class[shots..]).copied().collect(),
        ways,
        shots,
        queries: per_class - shots,
    };
    Ok(checked.chunks(ways * per_class).map(episode).collect())
}

/// The values as f64, which is exact for every index.
fn whole_numbers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    macro_rules! read {
        ($type:ty) => {{
            let (values, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
            Some(values.iter().map(|&bytes| <$type>::from_le_bytes(bytes) as f64).collect())
        }};
    }
    match dtype {
        Dtype::U8 => read!(u8),
        Dtype::I8 => read!(i8),
        Dtype::U16 => read!(u16),
        Dtype::I16 => read!(i16),
        Dtype::U32 => read!(u32),
        Dtype::I32 => read!(i32),
        Dtype::U64 => read!(u64),
        Dtype::I64 => read!(i64),
        Dtype::F32 => read!(f32),
        Dtype::F64 => read!(f64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Image i belongs to class i % n.
    fn classes(n: usize, images: usize) -> ImageSet {
        ImageSet {
            labels: (0..n * images).map(|i| (i % n) as u32).collect(),
            class_names: (0..n).map(|class| format!("cat {class}")).collect(),
            names: vec![String::new(); n * images],
            ..ImageSet::default()
        }
    }

    #[test]
    fn episodes_are_drawn_without_replacement() {
        let images = classes(7, 20);
        let episodes = draw(&images, 5, 5, 15, 11, 3).expect("enough images");
        let episode = &episodes[9];
        assert_eq!((episode.support.len(), episode.query.len()), (25, 75));
        let all: BTreeSet<u32> = episode.support.iter().chain(&episode.query).copied().collect();
        assert_eq!(all.len(), 100);
        for way in 0..5 {
            let class = episode.support[way * 5] % 7;
            assert!(episode.support[way * 5..][..5].iter().all(|i| i % 7 == class));
            assert!(episode.query[way * 15..][..15].iter().all(|i| i % 7 == class));
        }
        assert_eq!(draw(&images, 5, 5, 15, 10, 3).ok().as_deref(), Some(&episodes[..10]));
        assert_ne!(&episodes[10], episode);
    }

    #[test]
    fn too_little_data_is_a_sentence() {
        let says = |(n, each): (usize, usize), ways: usize, shots: usize, words: &str| {
            let result = draw(&classes(n, each), ways, shots, 15, 2, 0);
            assert!(result.is_err_and(|error| error.to_string().contains(words)), "{words}");
        };
        says((4, 20), 5, 1, "need 5 classes and the split has 4; lower the ways");
        says((5, 15), 5, 1, "need 16 images per class and class cat 0 has 15");
        says((5, 15), 1, 1, "at least 2 ways");
        says((5, 15), 5, usize::MAX, "lower the ways, shots or queries");
        assert_eq!(shortage(&classes(5, 16), 5, 1, 15), None);
    }
}
