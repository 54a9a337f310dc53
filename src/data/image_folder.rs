//! Class folders, on disk or in an archive: `split/class/*.png`, or `class/*.png` with a split by seed.
//!
//! A class is the outermost folder that directly holds images, with all that is below it; its name is the path below the
//! split, so Omniglot's `alphabet/character` works. Classes and images are sorted bytewise by name. A single folder
//! around everything is looked through, and a top folder `oneshot` is left to [`super::read_oneshot_runs`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::choose::{Chosen, choose};
use super::image_set::few;
use super::listing::{self, Listing};
use super::selection::Selection;
use super::split::Split;
use super::{DataOptions, Warning, WarningKind, table, tar_archive};
use crate::{Error, Result};

/// The images of one split of the class folders in `listing`.
pub(super) fn select(listing: &dyn Listing, split: Split, options: &DataOptions) -> Result<Selection> {
    match &options.split_file {
        Some(file) if table::is_table(file) => by_table(listing, split, file),
        Some(_) => Layout::read(listing)?.by_class(split, options),
        None => {
            let layout = Layout::read(listing)?;
            if layout.has_splits && split != Split::All {
                layout.by_folder(split)
            } else {
                layout.by_class(split, options)
            }
        }
    }
}

/// Images by file name and classes by label, from a table. Names may be given from any folder above the images.
pub(super) fn by_table(listing: &dyn Listing, split: Split, file: &Path) -> Result<Selection> {
    let table = table::read(file, split)?;
    let origin = listing.origin();
    let above = origin.canonicalize().unwrap_or_else(|_| origin.to_path_buf()).to_string_lossy().replace('\\', "/");
    let mut by_base: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, name) in listing.files().iter().enumerate().filter(|&(i, _)| listing::is_image(listing, i)) {
        let base = name.rsplit('/').next().unwrap_or(name);
        by_base.entry(base).or_default().push(i);
        // Tables of ids leave the extension out.
        if let Some((stem, _)) = base.rsplit_once('.') {
            by_base.entry(stem).or_default().push(i);
        }
    }
    let has_stem = |path: &str, name: &str| {
        path == name || path.rsplit_once('.').is_some_and(|(stem, extension)| stem == name && !extension.contains('/'))
    };
    let is_named = |i: usize, name: &str| {
        let full = format!("{above}/{}", listing.files()[i]);
        let ends = |full: &str| {
            full.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || name.starts_with('/'))
        };
        ends(&full) || full.rsplit_once('.').is_some_and(|(stem, extension)| !extension.contains('/') && ends(stem))
    };
    let mut classes: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut label_of: HashMap<usize, String> = HashMap::new();
    for row in table.rows {
        let base = row.name.rsplit('/').next().unwrap_or(&row.name);
        let candidates = by_base.get(base).map(Vec::as_slice).unwrap_or_default();
        let found: Vec<usize> = candidates.iter().copied().filter(|&i| is_named(i, &row.name)).collect();
        let exact = found.iter().copied().find(|&i| has_stem(&listing.files()[i], &row.name));
        let image = match (exact, found.as_slice()) {
            (Some(image), _) if row.name.contains('/') || found.len() == 1 => image,
            (_, &[image]) => image,
            (_, []) => {
                return Err(Error::data(
                    &table.path,
                    format!(
                        "lists {:?}, which is not in {}; correct the name or remove the line",
                        row.name,
                        origin.display()
                    ),
                ));
            }
            _ => {
                return Err(Error::data(
                    &table.path,
                    format!("{:?} is the name of several images; give its path", row.name),
                ));
            }
        };
        if let Some(other) = label_of.insert(image, row.label.clone()).filter(|other| *other != row.label) {
            return Err(Error::data(
                &table.path,
                format!(
                    "gives {} two labels, {other:?} and {:?}; an image has one class, remove a line",
                    listing.files()[image],
                    row.label
                ),
            ));
        }
        classes.entry(row.label).or_default().insert(image);
    }
    let mut selection = Selection {
        classes: classes.into_iter().map(|(class, files)| (class, files.into_iter().collect())).collect(),
        ..Selection::default()
    };
    if table.repeated > 0 {
        selection.warnings.push(Warning {
            kind: WarningKind::Duplicates,
            message: format!(
                "{}: {} lines list an image twice; each is taken once",
                table.path.display(),
                table.repeated
            ),
        });
    }
    Ok(selection)
}

/// Where the images lie.
struct Layout<'a> {
    listing: &'a dyn Listing,
    /// Length of the folder around everything, with its slash.
    prefix: usize,
    /// Whether the top folders are splits.
    has_splits: bool,
    /// The image files, in order.
    images: Vec<usize>,
    /// Folders that directly hold images.
    holding: HashSet<&'a str>,
    warnings: Vec<Warning>,
}

impl<'a> Layout<'a> {
    fn read(listing: &'a dyn Listing) -> Result<Self> {
        let files = listing.files();
        let mut images: Vec<usize> = (0..files.len()).filter(|&i| listing::is_image(listing, i)).collect();
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
        let below: Vec<usize> = images.iter().copied().filter(|&i| depth(i) >= 2).collect();
        let tops: BTreeSet<&str> = below.iter().map(|&i| top(i)).collect();
        let nested: BTreeSet<&str> = below.iter().filter(|&&i| depth(i) >= 3).map(|&i| top(i)).collect();
        let direct: BTreeSet<&str> = below.iter().filter(|&&i| depth(i) == 2).map(|&i| top(i)).collect();
        let splits: Vec<&str> = nested.iter().copied().filter(|top| Split::from_name(top).is_some()).collect();
        let others: Vec<&str> = tops.iter().copied().filter(|top| Split::from_name(top).is_none()).collect();
        let distinct: BTreeSet<Split> = splits.iter().filter_map(|top| Split::from_name(top)).collect();
        let mut warnings: Vec<Warning> = shards_beside(listing).into_iter().collect();
        // A class may be called `train`: beside other classes, one folder that is named like a split is none.
        let has_splits = match (splits.as_slice(), others.as_slice()) {
            ([], _) => {
                refuse_resembling(listing, &nested, direct.is_empty())?;
                false
            }
            (_, []) => true,
            _ if distinct.len() >= 2 => {
                warnings.push(Warning {
                    kind: WarningKind::LeftOut,
                    message: format!(
                        "{}: {} is left out, as it belongs to no split beside {}",
                        listing.origin().display(),
                        others.iter().map(|other| format!("{other}/")).collect::<Vec<_>>().join(", "),
                        splits.iter().map(|split| format!("{split}/")).collect::<Vec<_>>().join(", ")
                    ),
                });
                true
            }
            ([split, ..], _) if direct.contains(split) => false,
            ([split, ..], [other, ..]) => {
                return Err(Error::data(
                    listing.origin(),
                    format!(
                        "has {split}/, which is named like a split, beside {other}/, which is not; rename {split}/ if \
                         it is a class, or move {other}/ elsewhere if it is none"
                    ),
                ));
            }
        };
        if has_splits {
            images.retain(|&i| Split::from_name(top(i)).is_some());
        }
        let too_high = |i: usize| depth(i) < if has_splits { 3 } else { 2 };
        if let Some(&stray) = images.iter().find(|&&i| too_high(i)) {
            return Err(Error::data(listing.locate(stray), "lies outside the class folders; move it into one"));
        }
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
        let holding = images.iter().filter_map(|&i| Some(files[i][prefix..].rsplit_once('/')?.0)).collect();
        Ok(Layout { listing, prefix, has_splits, images, holding, warnings })
    }

    /// The path below the folder around everything.
    fn name(&self, file: usize) -> &'a str {
        &self.listing.files()[file][self.prefix..]
    }

    /// The class of an image: the outermost folder above it that directly holds images, below the split.
    fn class(&self, file: usize) -> &'a str {
        let name = self.name(file);
        let ends = name.match_indices('/').map(|(end, _)| &name[..end]);
        let folder = ends.into_iter().find(|folder| self.holding.contains(folder)).unwrap_or_default();
        if self.has_splits { folder.split_once('/').map_or("", |(_, class)| class) } else { folder }
    }

    /// The split folder an image lies in.
    fn split(&self, file: usize) -> Option<Split> {
        self.name(file).split('/').next().and_then(Split::from_name)
    }

    fn by_folder(self, split: Split) -> Result<Selection> {
        self.check_folders(|top| Split::from_name(top) == Some(split))?;
        let mut classes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
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
        Ok(Selection { classes: classes.into_iter().collect(), warnings: self.warnings, drawn_from: None })
    }

    /// All classes, those of one name in different split folders together, chosen by file or seed.
    fn by_class(self, split: Split, options: &DataOptions) -> Result<Selection> {
        self.check_folders(|top| if self.has_splits { Split::from_name(top).is_some() } else { top != "oneshot" })?;
        let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for &file in &self.images {
            all.entry(self.class(file).to_string()).or_default().push(file);
        }
        let names: Vec<String> = all.keys().cloned().collect();
        let Chosen { keep, drawn_from } = choose(self.listing.origin(), &names, split, options)?;
        let classes = all.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(class, _)| class).collect();
        Ok(Selection { classes, warnings: self.warnings, drawn_from })
    }

    /// Every folder below the top folders in question must lead to images, and hold nothing else except notes.
    fn check_folders(&self, in_question: impl Fn(&str) -> bool) -> Result<()> {
        let origin = self.listing.origin();
        let mut leading = HashSet::new();
        for &holding in &self.holding {
            let mut folder = holding;
            while leading.insert(folder) {
                folder = folder.rsplit_once('/').map_or("", |(above, _)| above);
            }
        }
        let outer = &self.listing.files()[self.images[0]][..self.prefix];
        for folder in self.listing.folders() {
            let Some(inner) = folder.strip_prefix(outer) else { continue };
            let top = inner.split('/').next().unwrap_or_default();
            let holds_runs = || self.listing.runs().iter().any(|run| listing::is_below(run, folder));
            let in_class = || inner.match_indices('/').any(|(end, _)| self.holding.contains(&inner[..end]));
            if in_question(top) && !leading.contains(inner) && !holds_runs() && !in_class() {
                let path: PathBuf = origin.join(folder);
                return Err(Error::data(
                    path,
                    format!(
                        "is a class folder without images ({}); add some, or, if it is no class, move it elsewhere or \
                         remove it",
                        listing::IMAGE_KINDS
                    ),
                ));
            }
        }
        for (file, name) in self.listing.files().iter().enumerate() {
            let Some(inner) = name.strip_prefix(outer) else { continue };
            let Some((folder, _)) = inner.rsplit_once('/') else { continue };
            if self.holding.contains(folder) && in_question(inner.split('/').next().unwrap_or_default()) {
                listing::is_image_or_note(self.listing, file)?;
            }
        }
        Ok(())
    }
}

/// Says what is not read: a folder is one data set, and these may be what it was unpacked from.
fn shards_beside(listing: &dyn Listing) -> Option<Warning> {
    let is_tar = |name: &&String| tar_archive::stem(name).is_some();
    let mut tars = listing.files().iter().filter(is_tar);
    let first = tars.next()?;
    let message = format!(
        "{}: {} tar archives such as {first} beside class folders are not read; give them alone to read them instead",
        listing.origin().display(),
        1 + tars.count()
    );
    Some(Warning { kind: WarningKind::LeftOut, message })
}

/// Refuses `cars_train/class/` beside `cars_test/class/`: as classes, those of the test split would be trained on.
fn refuse_resembling(listing: &dyn Listing, tops: &BTreeSet<&str>, all_nested: bool) -> Result<()> {
    let splits: BTreeSet<Option<Split>> = tops.iter().map(|top| Split::resembled(top)).collect();
    if !all_nested || splits.len() < 2 || splits.contains(&None) {
        return Ok(());
    }
    let names: Vec<String> = tops.iter().map(|top| format!("{top}/")).collect();
    Err(Error::data(
        listing.origin(),
        format!(
            "has the folders {}, whose names resemble splits; call them train/, val/ and test/ if they are, or else \
             rename them",
            few(&names.iter().collect::<Vec<_>>())
        ),
    ))
}

/// Length of the folders (with their slashes) that hold everything and are neither split nor class.
fn common_folder<'a>(names: impl Iterator<Item = &'a str> + Clone) -> usize {
    let mut prefix = 0;
    loop {
        let mut inner = names.clone().map(|name| &name[prefix..]);
        let Some((top, _)) = inner.next().and_then(|name| name.split_once('/')) else { return prefix };
        let below = |name: &'a str| name[prefix..].strip_prefix(top)?.strip_prefix('/');
        let around = names.clone().all(|name| below(name).is_some_and(|rest| rest.contains('/')));
        // A folder `test` around train/, val/ and test/ is no split.
        let splits_below = || {
            let mut found = BTreeSet::new();
            let all = names.clone().all(|name| {
                let rest = below(name).unwrap_or_default();
                let split = rest.split_once('/').and_then(|(top, _)| Split::from_name(top));
                found.extend(split);
                split.is_some() && rest.split('/').count() >= 3
            });
            all && found.len() >= 2
        };
        if !around || (Split::from_name(top).is_some() && !splits_below()) {
            return prefix;
        }
        prefix += top.len() + 1;
    }
}
