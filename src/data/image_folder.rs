//! Class folders, on disk or in a zip: `split/class/*.png`, or `class/*.png` with a split by seed.
//!
//! A class is a folder that directly holds images; its name is the path below the split, so Omniglot's
//! `alphabet/character` works. Classes and images are sorted bytewise by name. A single folder around
//! everything is looked through, and a top folder `oneshot` is left to [`super::read_oneshot_runs`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use super::listing::{self, Listing};
use super::split::{self, Split};
use super::{DataOptions, ImageSet, decode};
use crate::{Error, Result};

/// Reads one split of the class folders in `listing`.
pub(super) fn load(listing: &dyn Listing, split: Split, options: &DataOptions) -> Result<ImageSet> {
    let layout = Layout::read(listing)?;
    let classes = match &options.split_file {
        Some(file) if split::is_csv(file) => layout.by_csv(split, file)?,
        Some(_) => layout.by_class(split, options)?,
        None if layout.has_splits => layout.by_folder(split)?,
        None => layout.by_class(split, options)?,
    };

    let mut set = ImageSet::default();
    let mut items = Vec::new();
    for (label, (class, files)) in classes.into_iter().enumerate() {
        set.class_names.push(class);
        for file in files {
            set.labels.push(label as u32);
            set.names.push(listing.files()[file].clone());
            items.push((listing, file));
        }
    }
    (set.side, set.pixels) = decode::decode_all(&items, options)?;
    Ok(set)
}

/// Class names and their files, in order.
type Classes = BTreeMap<String, Vec<usize>>;

/// Where the images lie.
struct Layout<'a> {
    listing: &'a dyn Listing,
    /// Length of the folder around everything, with its slash.
    prefix: usize,
    /// Whether the top folders are splits.
    has_splits: bool,
    /// The image files, in order.
    images: Vec<usize>,
}

impl<'a> Layout<'a> {
    fn read(listing: &'a dyn Listing) -> Result<Self> {
        let files = listing.files();
        let mut images: Vec<usize> = (0..files.len()).filter(|&i| listing::is_image_name(&files[i])).collect();
        let prefix = common_folder(images.iter().map(|&i| files[i].as_str()));
        images.retain(|&i| !files[i][prefix..].starts_with("oneshot/"));
        let top = |i: usize| files[i][prefix..].split('/').next().unwrap_or_default();
        let depth = |i: usize| files[i][prefix..].split('/').count();
        if !images.iter().any(|&i| depth(i) >= 2) {
            return Err(Error::data(
                listing.origin(),
                format!(
                    "holds no class folders with images ({}); give split/class/*.png or class/*.png",
                    listing::IMAGE_KINDS
                ),
            ));
        }
        let has_splits = images.iter().any(|&i| depth(i) >= 3 && Split::from_name(top(i)).is_some());
        if has_splits {
            images.retain(|&i| Split::from_name(top(i)).is_some());
        }
        let too_high = |i: usize| depth(i) < if has_splits { 3 } else { 2 };
        if let Some(&stray) = images.iter().find(|&&i| too_high(i)) {
            return Err(Error::data(listing.locate(stray), "lies outside the class folders; move it into one"));
        }
        let tops: BTreeSet<&str> = images.iter().map(|&i| top(i)).collect();
        if !has_splits && tops.iter().all(|top| Split::from_name(top).is_some()) {
            return Err(Error::data(
                listing.origin(),
                "has images directly in its split folders; put them into one folder per class, as train/class/*.png",
            ));
        }
        let mut seen = HashMap::new();
        for top in tops.iter().filter(|_| has_splits) {
            if let Some(split) = Split::from_name(top)
                && let Some(other) = seen.insert(split, *top)
            {
                return Err(Error::data(
                    listing.origin(),
                    format!("has two folders for the {split} split, {other}/ and {top}/; keep one"),
                ));
            }
        }
        Ok(Layout { listing, prefix, has_splits, images })
    }

    /// The path below the folder around everything.
    fn name(&self, file: usize) -> &'a str {
        &self.listing.files()[file][self.prefix..]
    }

    /// The class of an image: its folder, below the split.
    fn class(&self, file: usize) -> &'a str {
        let name = self.name(file);
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        if self.has_splits { folder.split_once('/').map_or("", |(_, class)| class) } else { folder }
    }

    /// The split folder an image lies in.
    fn split(&self, file: usize) -> Option<Split> {
        self.name(file).split('/').next().and_then(Split::from_name)
    }

    fn by_folder(&self, split: Split) -> Result<Classes> {
        self.check_folders(|top| Split::from_name(top) == Some(split))?;
        let mut classes = Classes::new();
        for &file in self.images.iter().filter(|&&file| self.split(file) == Some(split)) {
            classes.entry(self.class(file).to_string()).or_default().push(file);
        }
        if classes.is_empty() {
            let found: BTreeSet<String> =
                self.images.iter().filter_map(|&file| self.split(file)).map(|split| split.to_string()).collect();
            let found: Vec<String> = found.into_iter().collect();
            return Err(Error::no_split(
                self.listing.origin(),
                format!(
                    "has no folder for the {split} split (it has {}); add {split}/class/*.png",
                    found.join(" and ")
                ),
            ));
        }
        Ok(classes)
    }

    /// All classes, those of one name in different split folders together, chosen by file or seed.
    fn by_class(&self, split: Split, options: &DataOptions) -> Result<Classes> {
        self.check_folders(|top| if self.has_splits { Split::from_name(top).is_some() } else { top != "oneshot" })?;
        let mut all = Classes::new();
        for &file in &self.images {
            all.entry(self.class(file).to_string()).or_default().push(file);
        }
        let names: Vec<String> = all.keys().cloned().collect();
        let chosen = split::choose(self.listing.origin(), &names, split, options)?;
        Ok(all.into_iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(class, _)| class).collect())
    }

    /// Images by file name and classes by label, from a CSV.
    fn by_csv(&self, split: Split, file: &std::path::Path) -> Result<Classes> {
        let (csv, rows) = split::read_csv(file, split)?;
        let mut by_name: HashMap<&str, Option<usize>> = HashMap::new();
        for &image in &self.images {
            let name = self.name(image);
            by_name.insert(name, Some(image));
            // A bare file name is enough while only one image has it.
            if let Some((_, base)) = name.rsplit_once('/') {
                by_name.entry(base).and_modify(|known| *known = None).or_insert(Some(image));
            }
        }
        let mut classes: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for (name, label) in rows {
            let image = match by_name.get(name.as_str()) {
                Some(Some(image)) => *image,
                Some(None) => {
                    return Err(Error::data(&csv, format!("{name:?} is the name of several images; give its path")));
                }
                None => {
                    return Err(Error::data(
                        &csv,
                        format!("lists {name:?}, which is not in {}; remove the line", self.listing.origin().display()),
                    ));
                }
            };
            classes.entry(label).or_default().insert(image);
        }
        Ok(classes.into_iter().map(|(class, files)| (class, files.into_iter().collect())).collect())
    }

    /// Every folder below the top folders in question must lead to images, and hold nothing else but notes.
    fn check_folders(&self, in_question: impl Fn(&str) -> bool) -> Result<()> {
        let origin = self.listing.origin();
        let mut holding = HashSet::new();
        let mut leading = HashSet::new();
        for &file in &self.images {
            let mut folder = self.name(file).rsplit_once('/').map_or("", |(folder, _)| folder);
            if !holding.insert(folder) {
                continue;
            }
            while leading.insert(folder) {
                folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
            }
        }
        let outer = &self.listing.files()[self.images[0]][..self.prefix];
        for folder in self.listing.folders() {
            let Some(inner) = folder.strip_prefix(outer) else { continue };
            let top = inner.split('/').next().unwrap_or_default();
            if in_question(top) && !leading.contains(inner) {
                let path: PathBuf = origin.join(folder);
                return Err(Error::data(
                    path,
                    format!("is a class folder without images ({}); add some or remove it", listing::IMAGE_KINDS),
                ));
            }
        }
        for (file, name) in self.listing.files().iter().enumerate() {
            let Some(inner) = name.strip_prefix(outer) else { continue };
            let Some((folder, _)) = inner.rsplit_once('/') else { continue };
            if holding.contains(folder) && in_question(inner.split('/').next().unwrap_or_default()) {
                listing::is_image_or_note(self.listing, file)?;
            }
        }
        Ok(())
    }
}

/// Length of the folders (with their slashes) that hold everything and are neither split nor class.
fn common_folder<'a>(names: impl Iterator<Item = &'a str> + Clone) -> usize {
    let mut prefix = 0;
    loop {
        let mut inner = names.clone().map(|name| &name[prefix..]);
        let Some((top, _)) = inner.next().and_then(|name| name.split_once('/')) else { return prefix };
        let whole = Split::from_name(top).is_none()
            && names.clone().all(|name| {
                name[prefix..]
                    .strip_prefix(top)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|rest| rest.contains('/'))
            });
        if !whole {
            return prefix;
        }
        prefix += top.len() + 1;
    }
}
