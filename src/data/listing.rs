//! A list of named files that can be read one by one: what a folder and an archive have in common.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::settings::{CHECKPOINT_FILE, CONFIG_FILE, METRICS_FILE};
use crate::{Error, Result};

/// The image formats that are read, for messages.
pub(super) const IMAGE_KINDS: &str = "png, jpg, webp, bmp, gif, tif, pnm, tga";
/// The largest compressed image that is read: far above any photograph, far below main memory.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// Folders nest at most this deep.
pub(super) const MAX_DEPTH: usize = 32;

/// Files below one origin, under relative names joined with `/`, sorted bytewise. Hidden files, what desktops leave
/// behind, and run folders of this program are not listed.
pub(super) trait Listing: Sync {
    /// The folder or archive.
    fn origin(&self) -> &Path;
    /// Relative names of the files.
    fn files(&self) -> &[String];
    /// Relative names of the folders, empty ones included.
    fn folders(&self) -> &[String];
    /// Relative names of the run folders that are left out.
    fn runs(&self) -> &[String] {
        &[]
    }
    /// The content of one file.
    fn read(&self, file: usize) -> Result<Vec<u8>>;
    /// The first bytes of one file, [`HEAD_BYTES`] at most.
    fn head(&self, file: usize) -> Result<Vec<u8>>;
    /// The size of one file in bytes.
    fn size(&self, file: usize) -> u64;
    /// Where the content of one file lies: the number of an archive, and the place in it. Many files are read faster in this
    /// order from archives that are packed as a whole; elsewhere none is better.
    fn lies_at(&self, _file: usize) -> (usize, u64) {
        (0, 0)
    }
    /// The full path of one file, for names and messages.
    fn locate(&self, file: usize) -> PathBuf {
        self.origin().join(&self.files()[file])
    }
}

/// Enough of a file for the signature of an image.
pub(super) const HEAD_BYTES: u64 = 32;

/// The part after the last dot of the last component, in lower case.
pub(super) fn extension(name: &str) -> String {
    let file = name.rsplit(['/', std::path::MAIN_SEPARATOR]).next().unwrap_or(name);
    file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
}

/// The last component of a path.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the name says that the file is an image.
pub fn is_image_name(name: &str) -> bool {
    const IMAGES: [&str; 21] = [
        "png", "apng", "jpg", "jpeg", "jpe", "jif", "jfif", "pjpeg", "pjp", "webp", "bmp", "dib", "gif", "tif", "tiff",
        "pnm", "ppm", "pgm", "pbm", "pam", "tga",
    ];
    IMAGES.contains(&extension(name).as_str())
}

/// Whether the name says that the file is text or numbers, which may lie beside images.
fn is_note_name(name: &str) -> bool {
    const NOTES: [&str; 23] = [
        "txt",
        // The class of a webdataset's picture.
        "cls",
        "md",
        "json",
        "jsonl",
        "csv",
        "tsv",
        "xml",
        "yaml",
        "yml",
        "html",
        "log",
        "pdf",
        "py",
        "ipynb",
        "npy",
        "npz",
        "pkl",
        "pickle",
        "mat",
        "db",
        "safetensors",
        "parquet",
    ];
    // Of embeddings that are not finished.
    let name = name.strip_suffix(".part").unwrap_or(name);
    NOTES.contains(&extension(name).as_str())
}

/// Whether the file is an image, by its name, or by its content where the name says nothing.
pub(super) fn is_image(listing: &dyn Listing, file: usize) -> bool {
    let name = &listing.files()[file];
    is_image_name(name)
        || (!is_note_name(name) && listing.head(file).is_ok_and(|head| image::guess_format(&head).is_ok()))
}

/// Whether the file is an image; `false` for a note beside the images, an error for anything else.
pub(super) fn is_image_or_note(listing: &dyn Listing, file: usize) -> Result<bool> {
    let name = &listing.files()[file];
    if is_image(listing, file) {
        return Ok(true);
    }
    let is_text = |head: Vec<u8>| head.iter().all(|&byte| byte >= 0x20 || matches!(byte, b'\n' | b'\r' | b'\t'));
    if is_note_name(name) || (extension(name).is_empty() && listing.head(file).is_ok_and(is_text)) {
        return Ok(false);
    }
    Err(Error::data(
        listing.locate(file),
        format!(
            "lies among images but is not one ({IMAGE_KINDS} are read; text, tables and arrays are ignored); move it elsewhere"
        ),
    ))
}

/// Whether one component of a path is hidden or left behind by a desktop.
pub(super) fn is_noise(component: &str) -> bool {
    const NOISE: [&str; 9] = [
        "__macosx",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "icon\r",
        "@eadir",
        "$recycle.bin",
        "system volume information",
    ];
    // Windows keeps a stream beside a file, which other systems unpack as `Thumbs.db:encryptable`.
    let name = component.split_once(':').map_or(component, |(name, _)| name);
    component.starts_with('.') || NOISE.contains(&name.to_ascii_lowercase().as_str())
}

/// The run folders of this program among `files`: those with settings beside a checkpoint or metrics. What the data lies
/// in may itself be one.
pub(super) fn run_folders(files: &[String]) -> Vec<String> {
    let has = |folder: &str, name: &str| files.binary_search(&format!("{folder}/{name}")).is_ok();
    files
        .iter()
        .filter_map(|name| name.strip_suffix(CONFIG_FILE)?.strip_suffix('/'))
        .filter(|folder| has(folder, CHECKPOINT_FILE) || has(folder, METRICS_FILE))
        .map(str::to_owned)
        .collect()
}

/// Whether `name` is `folder` or below it.
pub(super) fn is_below(name: &str, folder: &str) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The files below a folder. Links are followed, except into a folder that contains them.
pub(super) struct FolderListing {
    root: PathBuf,
    files: Vec<String>,
    /// The paths of files whose names are no text: the others follow from the names, of which there may be many.
    odd: HashMap<usize, PathBuf>,
    folders: Vec<String>,
    runs: Vec<String>,
}

impl FolderListing {
    /// Lists `root` recursively.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        walk(root, "", &mut Vec::new(), &mut found, &mut folders)?;
        found.sort();
        folders.sort();
        let (mut files, paths): (Vec<String>, Vec<Option<PathBuf>>) = found.into_iter().unzip();
        let runs = run_folders(&files);
        let is_outside = |name: &String| !runs.iter().any(|run| is_below(name, run));
        let mut odd: HashMap<usize, PathBuf> = HashMap::new();
        let kept = files.iter().zip(paths).filter(|(name, _)| is_outside(name));
        odd.extend(kept.enumerate().filter_map(|(file, (_, path))| Some((file, path?))));
        files.retain(is_outside);
        folders.retain(is_outside);
        Ok(FolderListing { root: root.to_path_buf(), files, odd, folders, runs })
    }
}

fn walk(
    folder: &Path,
    prefix: &str,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<(String, Option<PathBuf>)>,
    folders: &mut Vec<String>,
) -> Result<()> {
    let failed = |source| Error::io(folder, "cannot list the folder", source);
    let real = folder.canonicalize().map_err(failed)?;
    if above.contains(&real) || above.len() >= MAX_DEPTH {
        return Err(Error::data(
            folder,
            format!("leads back to a folder above it, or lies more than {MAX_DEPTH} deep; remove the link"),
        ));
    }
    above.push(real);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let component = entry.file_name().to_string_lossy().into_owned();
        if is_noise(&component) {
            continue;
        }
        let name = if prefix.is_empty() { component } else { format!("{prefix}/{component}") };
        let metadata = std::fs::metadata(&path)
            .map_err(|source| Error::io(&path, "cannot be opened (remove it if it is a link to nowhere)", source))?;
        if metadata.is_dir() {
            walk(&path, &name, above, files, folders)?;
            folders.push(name);
        } else if metadata.is_file() {
            let odd = path.to_str().is_none();
            files.push((name, odd.then_some(path)));
        }
    }
    above.pop();
    Ok(())
}

impl Listing for FolderListing {
    fn origin(&self) -> &Path {
        &self.root
    }
    fn files(&self) -> &[String] {
        &self.files
    }
    fn folders(&self) -> &[String] {
        &self.folders
    }
    fn runs(&self) -> &[String] {
        &self.runs
    }
    fn read(&self, file: usize) -> Result<Vec<u8>> {
        read_file(&self.locate(file))
    }
    fn head(&self, file: usize) -> Result<Vec<u8>> {
        read_head(&self.locate(file))
    }
    fn size(&self, file: usize) -> u64 {
        size_of(&self.locate(file))
    }
    fn locate(&self, file: usize) -> PathBuf {
        let plain = || self.root.join(self.files[file].replace('/', std::path::MAIN_SEPARATOR_STR));
        self.odd.get(&file).cloned().unwrap_or_else(plain)
    }
}

/// A single image given by its path.
pub(super) struct OneFile {
    path: PathBuf,
    name: [String; 1],
}

impl OneFile {
    /// The listing that holds `path` alone.
    pub(super) fn new(path: &Path) -> Self {
        OneFile { path: path.to_path_buf(), name: [path.to_string_lossy().into_owned()] }
    }
}

impl Listing for OneFile {
    fn origin(&self) -> &Path {
        &self.path
    }
    fn files(&self) -> &[String] {
        &self.name
    }
    fn folders(&self) -> &[String] {
        &[]
    }
    fn read(&self, _: usize) -> Result<Vec<u8>> {
        read_file(&self.path)
    }
    fn head(&self, _: usize) -> Result<Vec<u8>> {
        read_head(&self.path)
    }
    fn size(&self, _: usize) -> u64 {
        size_of(&self.path)
    }
    fn locate(&self, _: usize) -> PathBuf {
        self.path.clone()
    }
}

fn size_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

fn read_head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, HEAD_BYTES), &mut head))
        .map_err(|source| Error::io(path, "cannot read the file", source))?;
    Ok(head)
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::io(path, "cannot read the file", source);
    let file = std::fs::File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut content = Vec::with_capacity(bytes.min(MAX_FILE_BYTES) as usize + 1);
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE_BYTES + 1), &mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::data(path, format!("has more than {} MiB; make the image smaller", MAX_FILE_BYTES >> 20)));
    }
    Ok(content)
}
