//! Which network a job works with: a checkpoint, a run folder, a support that `predict` saved, or one that the program
//! ships.

use std::path::{Path, PathBuf};

use super::stored::Stored;
use crate::data::{ImageSet, Statistics};
use crate::files::run_folder::checkpoint_file;
use crate::progress::Progress;
use crate::train::checkpoint::Checkpoint;
use crate::train::recipe::is_ink;
use crate::train::reference::holds_for;
use crate::{Error, Result};

/// The word for a network that the program ships. A folder of this name is `./shipped`.
pub const SHIPPED: &str = "shipped";

/// The shipped network for gray letters, signs and drawings, and that for all other pictures.
const STROKES: &str = "strokes";
const PICTURES: &str = "pictures";

/// A network that the program ships: its name, and the bytes of its checkpoint.
type Network = (&'static str, &'static [u8]);

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Pictures by which a shipped network is chosen; asked for only where it has to be.
pub type Look<'a> = &'a mut dyn FnMut() -> Result<ImageSet>;

/// The name of the shipped network that `model` means, empty where the pictures decide; none where it is a path.
fn shipped_name(model: &Path) -> Option<&str> {
    let word = model.to_str()?;
    if word == SHIPPED { Some("") } else { word.strip_prefix(SHIPPED)?.strip_prefix(':') }
}

/// The names of the shipped networks, as a sentence lists them.
fn names(networks: &[Network]) -> String {
    networks.iter().map(|(name, _)| format!("{SHIPPED}:{name}")).collect::<Vec<_>>().join(", ")
}

fn find(networks: &[Network], name: &str) -> Result<Network> {
    let found = networks.iter().find(|(own, _)| *own == name);
    found.copied().ok_or_else(|| {
        let what = format!("{SHIPPED}:{name}");
        Error::data(
            what,
            match networks {
                [] => "this build ships no networks: name a checkpoint or a run folder that `train` wrote".into(),
                _ => format!(
                    "this build ships no network of that name, but {}: name one of these, or a checkpoint or run folder",
                    names(networks)
                ),
            },
        )
    })
}

/// The name of the network that suits the pictures, and why.
fn chosen(networks: &[Network], pictures: &ImageSet) -> Result<(&'static str, String)> {
    let statistics = Statistics::of(pictures);
    let (name, why) = match (is_ink(&statistics), statistics.gray) {
        (true, _) => (STROKES, "these are strokes on an empty ground, as letters, signs and drawings are"),
        (false, true) => (PICTURES, "these are gray, and no strokes on an empty ground"),
        (false, false) => (PICTURES, "these are in colour"),
    };
    match find(networks, name) {
        Ok(_) => Ok((name, why.into())),
        Err(_) if networks.is_empty() => find(networks, name).map(|(name, _)| (name, String::new())),
        Err(_) => Err(Error::data(
            SHIPPED,
            format!(
                "this build ships no network for such pictures ({why}): name a checkpoint or a run folder, or take one \
                 of {} all the same",
                names(networks)
            ),
        )),
    }
}

/// The network that `model` means as a path or as `shipped:NAME`, chosen by the pictures where it is the word alone, and
/// said.
fn resolve_in(networks: &[Network], model: &Path, look: Look, progress: &mut dyn Progress) -> Result<PathBuf> {
    if shipped_name(model) != Some("") {
        return Ok(model.into());
    }
    if networks.is_empty() {
        find(networks, STROKES)?;
    }
    let (name, why) = chosen(networks, &look()?)?;
    progress.note(&format!("network: {SHIPPED}:{name}, since {why}"));
    Ok(format!("{SHIPPED}:{name}").into())
}

fn read_in(networks: &[Network], model: &Path) -> Result<(PathBuf, Checkpoint)> {
    match shipped_name(model) {
        Some(name) => Ok((model.into(), Checkpoint::from_bytes(model, find(networks, name)?.1)?)),
        None => {
            let file = checkpoint_file(model)?;
            let checkpoint = Checkpoint::load(&file)?;
            Ok((file, checkpoint))
        }
    }
}

/// `model` itself, or `shipped:NAME` where it is the word `shipped`: chosen by the pictures, and said.
///
/// # Errors
/// [`Error::Data`] where the program ships no network that suits, and the errors of `look`.
pub fn resolve(model: &Path, look: Look, progress: &mut dyn Progress) -> Result<PathBuf> {
    resolve_in(NETWORKS, model, look, progress)
}

/// The tensors of a network that was [resolved](resolve), and where they come from.
///
/// # Errors
/// [`Error::Data`] or [`Error::Io`] where there is none.
pub fn read(model: &Path) -> Result<(PathBuf, Checkpoint)> {
    read_in(NETWORKS, model)
}

/// Whether what a network says of its similarities holds for pictures of this kind, of which `look` gives some.
///
/// # Errors
/// The errors of `look`.
pub(super) fn knows(model: &Path, look: Look) -> Result<bool> {
    Ok(shipped_name(model).is_none() || holds_for(&Statistics::of(&look()?)))
}

/// The network that `model` means: a checkpoint, a run folder (of which the network that validated best, or else the last),
/// a support that `predict` saved, `shipped:NAME`, or the word `shipped`, for which `look` is asked for pictures.
///
/// # Errors
/// As [`resolve`] and [`Stored::open`].
pub fn open(model: &Path, look: Look, progress: &mut dyn Progress) -> Result<Stored> {
    let model = resolve(model, look, progress)?;
    match shipped_name(&model) {
        Some(_) => {
            let mut stored = Stored::of(read(&model)?)?;
            // A file of the machine that it was trained on.
            stored.config.data.split_file = None;
            Ok(stored)
        }
        None => Stored::open(&model),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use crate::settings::Config;
    use crate::train::checkpoint::Tensor;
    use crate::train::state::CONFIG_KEY;

    fn tiny(seed: f32) -> &'static [u8] {
        let tensors = [("layer1.0.weight".to_owned(), Tensor::f32([1, 1, 1, 1], vec![seed]))].into();
        let metadata = [(CONFIG_KEY.to_owned(), Config::default().to_json().unwrap())].into();
        Checkpoint { tensors, metadata }.to_bytes().unwrap().leak()
    }

    fn pictures(word: u32) -> ImageSet {
        ImageSet::new(1, vec![word], Vec::new(), Vec::new(), vec!["a".into()]).unwrap()
    }

    #[test]
    fn the_pictures_choose() {
        let both: &[Network] = &[(STROKES, tiny(1.0)), (PICTURES, tiny(2.0))];
        for (word, name) in [(0xff00_0000, "shipped:strokes"), (0xff00_00ff, "shipped:pictures")] {
            let found = resolve_in(both, SHIPPED.as_ref(), &mut || Ok(pictures(word)), &mut Silent).unwrap();
            assert_eq!(found, Path::new(name));
            let (from, checkpoint) = read_in(both, &found).unwrap();
            assert_eq!((from.as_path(), checkpoint.tensors.len()), (Path::new(name), 1));
        }
        let unasked: Look = &mut || panic!("a name needs no pictures");
        let found = resolve_in(both, "shipped:pictures".as_ref(), unasked, &mut Silent).unwrap();
        assert_eq!(read_in(both, &found).unwrap().1, Checkpoint::from_bytes("second", both[1].1).unwrap());
        let path = resolve_in(both, "./shipped".as_ref(), &mut || panic!("a path"), &mut Silent).unwrap();
        assert_eq!(path, Path::new("./shipped"));
    }

    #[test]
    fn what_is_not_shipped_is_said_with_what_is() {
        let mut look = || Ok(pictures(0xff00_00ff));
        let mut say = |networks: &[Network], model: &str| {
            let found = resolve_in(networks, model.as_ref(), &mut look, &mut Silent);
            found.and_then(|model| read_in(networks, &model)).unwrap_err().to_string()
        };
        let one: &[Network] = &[(STROKES, tiny(1.0))];
        for model in ["shipped", "shipped:strokes", "shipped:other"] {
            assert!(say(&[], model).contains("ships no networks: name a checkpoint or a run folder"), "{model}");
        }
        assert!(say(one, "shipped:other").contains("shipped:strokes"));
        let text = say(one, "shipped");
        assert!(text.contains("in colour") && text.contains("shipped:strokes all the same"), "{text}");
    }

    /// What the program carries is small and whole.
    #[test]
    fn shipped_networks_open() {
        assert!(NETWORKS.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 5_000_000);
        for (name, _) in NETWORKS {
            assert!([STROKES, PICTURES].contains(name), "{name}");
            let stored = Stored::of(read(format!("{SHIPPED}:{name}").as_ref()).unwrap()).unwrap();
            assert!(stored.side().unwrap() >= 16);
        }
    }
}
