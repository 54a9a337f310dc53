//! Shards as webdataset has them: tar archives, gzipped or not, of samples, each a picture and its class in files of one name.
//!
//! A sample's name is that of its members up to the first dot of the last component; what follows is the ending. The
//! picture is known by its ending, the class is the text of `.cls`, or else `label` or `class` in `.json`. Shards that are
//! named after a split (`train-000000.tar`, `imagenet-val-000001.tar`, `test/0.tar`) are of that split.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::choose::{Chosen, choose};
use super::kind::{self, FileKind};
use super::labels::Label;
use super::listing::{self, FolderListing, Listing};
use super::selection::Selection;
use super::split::Split;
use super::tar_archive::{self, Archive, Member, TarListing};
use super::{DataOptions, Warning, WarningKind, image_folder, table, text};
use crate::{Error, Result};

/// The longest name of a class, in characters.
const MAX_CLASS: usize = 256;
/// The largest file that says a class.
const MAX_NOTE_BYTES: u64 = 1 << 20;

/// A member's sample and its ending: both sides of the first dot of the last component.
fn key(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name[base..].find('.')?;
    (dot > base).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Whether an archive holds samples and not class folders. Samples have a `.cls`; where there is none, they lie in no
/// folder, or in one beside a `.json` each.
pub(super) fn holds_samples(listing: &dyn Listing) -> bool {
    let files = listing.files();
    let has =
        |ending: &str| files.iter().any(|name| key(name).is_some_and(|(_, own)| own.eq_ignore_ascii_case(ending)));
    let pictures = files.iter().filter(|name| listing::is_image_name(name));
    let folders: BTreeSet<&str> = pictures.map(|name| name.rsplit_once('/').map_or("", |(folder, _)| folder)).collect();
    has("cls") || folders.contains("") || (folders.len() == 1 && has("json"))
}

/// The folder around both.
fn common<'a>(one: &'a Path, other: &Path) -> &'a Path {
    one.ancestors().find(|above| other.starts_with(above)).unwrap_or(Path::new(""))
}

/// The shards below a folder.
pub(super) fn find(folder: &FolderListing) -> Vec<(String, PathBuf)> {
    let tars = folder.files().iter().enumerate().filter(|(_, name)| tar_archive::stem(name).is_some());
    tars.map(|(file, name)| (name.clone(), folder.locate(file))).collect()
}

/// The pictures of samples. As a listing it has these alone, under `SHARD/MEMBER`.
pub(super) struct Shards {
    origin: PathBuf,
    archives: Vec<Archive>,
    /// Of each archive.
    splits: Vec<Option<Split>>,
    files: Vec<String>,
    /// Of each file its archive, its place there, and its class.
    places: Vec<(u32, Member, u32)>,
    classes: Vec<Label>,
    warnings: Vec<Warning>,
}

/// The members of one sample, by ending.
type Sample<'a> = Vec<(&'a str, usize)>;

impl Shards {
    /// Opens archives, each with its name below `origin`; a single one has none.
    pub(super) fn open(origin: &Path, shards: &[(String, PathBuf)]) -> Result<Shards> {
        let (mut found, mut known, mut classes) = (Vec::new(), HashMap::new(), Vec::new());
        let mut archives = Vec::new();
        let mut seen: HashMap<&str, &Path> = HashMap::new();
        let mut without = 0;
        for (number, (name, path)) in shards.iter().enumerate() {
            match seen.insert(tar_archive::stem(name).unwrap_or(name), path) {
                Some(twice) if twice == path => {
                    return Err(Error::data(path, "is named twice as a shard; name it once"));
                }
                Some(other) => {
                    let why = format!("lies beside {}, packed in another way; keep one of the two", other.display());
                    return Err(Error::data(path, why));
                }
                None => {}
            }
            if kind::of(path)? != FileKind::Tar {
                return Err(Error::data(path, "is no tar archive, as shards are; leave it out"));
            }
            let listing = TarListing::open(path, shards.len())?;
            for sample in samples(&listing) {
                let pictures = pictures(&listing, &sample)?;
                let Some(&first) = pictures.first() else {
                    without += 1;
                    continue;
                };
                let class = class(&listing, &sample, first)?;
                let class = *known.entry(class).or_insert_with_key(|class: &String| {
                    classes.push(class.clone());
                    classes.len() as u32 - 1
                });
                for picture in pictures {
                    let member = &listing.files()[picture];
                    let full = if name.is_empty() { member.clone() } else { format!("{name}/{member}") };
                    found.push((full, (number as u32, listing.member(picture), class)));
                }
            }
            archives.push(listing.archive().clone());
        }
        if found.is_empty() {
            let why = format!("holds no sample with a picture ({} are read)", listing::IMAGE_KINDS);
            return Err(Error::data(origin, why));
        }
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (files, places) = found.into_iter().unzip();
        let mut opened = Shards {
            origin: origin.to_path_buf(),
            splits: shards.iter().map(|(name, path)| split_of(name, path)).collect(),
            archives,
            files,
            places,
            classes: labels(classes),
            warnings: Vec::new(),
        };
        if without > 0 {
            opened.warn(format!("{without} samples without a picture are left out"));
        }
        opened.check_splits()?;
        Ok(opened)
    }

    fn warn(&mut self, message: String) {
        let message = format!("{}: {message}", self.origin.display());
        self.warnings.push(Warning { kind: WarningKind::LeftOut, message });
    }

    /// Opens archives, with names below the folder around them.
    pub(super) fn of_paths(paths: &[String]) -> Result<Shards> {
        let folders = paths.iter().map(|path| Path::new(path).parent().unwrap_or(Path::new("")));
        let origin = folders.reduce(common).unwrap_or(Path::new(""));
        let named = paths.iter().map(|path| {
            let below = Path::new(path).strip_prefix(origin).unwrap_or(Path::new(path));
            (below.to_string_lossy().replace(std::path::MAIN_SEPARATOR, "/"), PathBuf::from(path))
        });
        Shards::open(origin, &named.collect::<Vec<_>>())
    }

    /// All shards are of a split or none is; what is of none beside several splits is left out.
    fn check_splits(&mut self) -> Result<()> {
        let of = |split: bool| self.splits.iter().position(|own| own.is_some() == split);
        let (Some(named), Some(other)) = (of(true), of(false)) else { return Ok(()) };
        let named = self.archives[named].path.display();
        let other = self.archives[other].path.display();
        if self.splits.iter().flatten().collect::<BTreeSet<_>>().len() < 2 {
            return Err(Error::data(
                &self.origin,
                format!(
                    "has {named}, which is named after a split, beside {other}, which is not; rename one, or give those \
                     of one kind"
                ),
            ));
        }
        let n = self.splits.iter().filter(|split| split.is_none()).count();
        let message = format!("{n} shards such as {other} are left out, as their names say no split beside {named}");
        self.warn(message);
        Ok(())
    }

    /// The pictures of a split.
    pub(super) fn select(&self, split: Split, options: &DataOptions) -> Result<Selection> {
        if let Some(file) = options.split_file.as_ref().filter(|file| table::is_table(file)) {
            return image_folder::by_table(self, split, file);
        }
        let has_splits = self.splits.iter().any(Option::is_some);
        let by_shard = has_splits && options.split_file.is_none();
        let is_wanted = |own: Option<Split>| match split {
            Split::All => own.is_some() == has_splits,
            split => !by_shard || own == Some(split),
        };
        let mut classes: BTreeMap<&Label, Vec<usize>> = BTreeMap::new();
        for (file, &(archive, _, class)) in self.places.iter().enumerate() {
            if is_wanted(self.splits[archive as usize]) {
                classes.entry(&self.classes[class as usize]).or_default().push(file);
            }
        }
        let classes: Vec<(String, Vec<usize>)> =
            classes.into_iter().map(|(class, files)| (class.to_string(), files)).collect();
        let warnings = self.warnings.clone();
        if by_shard {
            if classes.is_empty() {
                let found: BTreeSet<String> = self.splits.iter().flatten().map(Split::to_string).collect();
                let found: Vec<String> = found.into_iter().collect();
                return Err(Error::no_split(
                    &self.origin,
                    format!(
                        "has no shard of the {split} split (it has {}); add one called {split}-000000.tar",
                        found.join(" and ")
                    ),
                ));
            }
            return Ok(Selection { classes, warnings, drawn_from: None });
        }
        let names: Vec<String> = classes.iter().map(|(class, _)| class.clone()).collect();
        let Chosen { keep, drawn_from } = choose(&self.origin, &names, split, options)?;
        let classes = classes.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(class, _)| class).collect();
        Ok(Selection { classes, warnings, drawn_from })
    }
}

/// The members of every sample, in the order in which they are read fastest.
fn samples(listing: &dyn Listing) -> Vec<Sample<'_>> {
    let names = listing.files();
    // Sorted names of one sample need not stand together: `a.d/` comes between `a.cls` and `a.png`.
    let mut samples: BTreeMap<&str, Sample> = BTreeMap::new();
    for (member, name) in names.iter().enumerate() {
        if let Some((key, ending)) = key(name) {
            samples.entry(key).or_default().push((ending, member));
        }
    }
    let mut samples: Vec<Sample> = samples.into_values().collect();
    samples.sort_by_key(|sample| sample.first().map(|(_, member)| listing.lies_at(*member)));
    samples
}

/// The class of each file that is a picture of a sample, where one is said as it is to be; none where the archive holds class
/// folders.
pub(super) fn classes(listing: &dyn Listing) -> Option<HashMap<usize, String>> {
    let of = |sample: Sample| {
        let pictures = pictures(listing, &sample).ok()?;
        let class = said(listing, &sample).ok().flatten()?;
        Some(pictures.into_iter().map(move |picture| (picture, class.clone())))
    };
    holds_samples(listing).then(|| samples(listing).into_iter().filter_map(of).flatten().collect())
}

/// The split that the name of a shard says.
#[cfg(feature = "jobs")]
pub(crate) fn split_of_shard(shard: &Path) -> Option<Split> {
    split_of("", shard)
}

/// Whether endings differ by a number alone: `0.png` and `1.png`, `img1.jpg` and `img2.jpg`.
fn are_numbered(endings: &[(&str, usize)]) -> bool {
    let before = |ending: &str| {
        let stem = ending.rsplit_once('.')?.0;
        let before = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        (before.len() < stem.len()).then(|| before.to_owned())
    };
    let first = endings.first().and_then(|(ending, _)| before(ending));
    first.is_some() && endings.iter().all(|(ending, _)| before(ending) == first)
}

/// The pictures of a sample. One whose ending has no further dot is preferred: `1.jpg` to `1.mask.png`. Of several such that
/// are numbered each is a picture of the class.
fn pictures(listing: &dyn Listing, sample: &Sample) -> Result<Vec<usize>> {
    let pictures = sample.iter().filter(|(ending, _)| listing::is_image_name(&format!(".{ending}")));
    let (plain, further): (Vec<_>, Vec<_>) = pictures.partition(|(ending, _)| !ending.contains('.'));
    match if plain.is_empty() { &further[..] } else { &plain[..] } {
        [] => Ok(Vec::new()),
        [(_, one)] => Ok(vec![*one]),
        several if are_numbered(several) => Ok(several.iter().map(|(_, picture)| *picture).collect()),
        [(_, one), (other, _), ..] => Err(Error::data(
            listing.locate(*one),
            format!(
                "is not the only picture of its sample: there is .{other}, too; keep one of them, or number them (.0.png, \
                 .1.png) where all show the class"
            ),
        )),
    }
}

/// The class that is said beside the pictures of a sample.
fn said(listing: &dyn Listing, sample: &Sample) -> Result<Option<String>> {
    let member = |wanted: &str| sample.iter().find(|(ending, _)| ending.eq_ignore_ascii_case(wanted));
    let note = |member: usize| {
        let path = listing.locate(member);
        if listing.size(member) > MAX_NOTE_BYTES {
            return Err(Error::data(&path, "has more than 1 MiB, as no class has; correct it"));
        }
        Ok((text::decode(&path, &listing.read(member)?)?, path))
    };
    if let Some(&(_, cls)) = member("cls") {
        let (text, path) = note(cls)?;
        return checked(&path, text.trim()).map(Some);
    }
    if let Some(&(_, json)) = member("json") {
        let (text, path) = note(json)?;
        let wrong = |why: &str| Error::data(&path, format!("{why}; correct it, or say the class in a .cls beside it"));
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|_| wrong("is no object of JSON"))?;
        match object.get("label").or_else(|| object.get("class")) {
            Some(serde_json::Value::String(class)) => return checked(&path, class.trim()).map(Some),
            Some(serde_json::Value::Number(class)) if !class.is_f64() => return Ok(Some(class.to_string())),
            Some(_) => return Err(wrong("has a class that is neither text nor a whole number")),
            None => {}
        }
    }
    Ok(None)
}

/// The class of a sample.
fn class(listing: &dyn Listing, sample: &Sample, picture: usize) -> Result<String> {
    if let Some(class) = said(listing, sample)? {
        return Ok(class);
    }
    let is_cls = |name: &String| key(name).is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("cls"));
    // Folders say no classes where a .cls does.
    let remedy = match listing.files().iter().any(is_cls) {
        true => "add one, as other pictures of this tar have, or remove the picture (`embed` needs no class)",
        false => "add one (`embed` needs none), or put the pictures into a folder per class",
    };
    let why = format!("has no class: neither a .cls beside it nor a label or class in a .json; {remedy}");
    Err(Error::data(listing.locate(picture), why))
}

/// A name of a class: one line of text.
pub(super) fn checked(path: &Path, class: &str) -> Result<String> {
    if class.is_empty() || class.chars().count() > MAX_CLASS || class.chars().any(char::is_control) {
        let wanted = format!("a number or one line of text of at most {MAX_CLASS} characters");
        return Err(Error::data(path, format!("says no class: that is {wanted}; correct it")));
    }
    Ok(class.to_owned())
}

/// Classes as labels: where all are whole numbers they are sorted as such.
fn labels(classes: Vec<String>) -> Vec<Label> {
    let number = |class: &String| class.parse::<i64>().ok().filter(|number| number.to_string() == *class);
    match classes.iter().map(number).collect::<Option<Vec<i64>>>() {
        Some(numbers) => numbers.into_iter().map(Label::Number).collect(),
        None => classes.into_iter().map(Label::Name).collect(),
    }
}

/// The split that a shard is named after: by its folders, or else a word of its name.
fn split_of(name: &str, path: &Path) -> Option<Split> {
    let file = listing::file_name(path);
    let other = || file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
    let stem = tar_archive::stem(&file).unwrap_or_else(other);
    let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').find_map(Split::from_name).or_else(|| Split::resembled(stem))
}

impl Listing for Shards {
    fn origin(&self) -> &Path {
        &self.origin
    }
    fn files(&self) -> &[String] {
        &self.files
    }
    fn folders(&self) -> &[String] {
        &[]
    }
    fn size(&self, file: usize) -> u64 {
        self.places[file].1.bytes
    }
    fn lies_at(&self, file: usize) -> (usize, u64) {
        let (archive, member, _) = &self.places[file];
        (*archive as usize, member.lies_at(&self.archives[*archive as usize]))
    }
    fn head(&self, file: usize) -> Result<Vec<u8>> {
        let (archive, member, _) = &self.places[file];
        member.head(&self.archives[*archive as usize], &self.locate(file))
    }
    fn read(&self, file: usize) -> Result<Vec<u8>> {
        let (archive, member, _) = &self.places[file];
        member.read(&self.archives[*archive as usize], &self.locate(file))
    }
}
