//! A list of named files that can be read one by one: what a folder and a zip have in common.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The image formats that are read, for messages.
pub(super) const IMAGE_KINDS: &str = "png, jpg, webp, bmp, gif, tif, pnm, tga";
/// The largest compressed image that is read: far above any photograph, far below main memory.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 20;
/// Folders nest at most this deep.
const MAX_DEPTH: usize = 32;

/// Files below one origin, under relative names joined with `/`, sorted bytewise. Hidden files and
/// what desktops leave behind are not listed.
pub(super) trait Listing: Sync {
    /// The folder or archive.
    fn origin(&self) -> &Path;
    /// Relative names of the files.
    fn files(&self) -> &[String];
    /// Relative names of the folders, empty ones included.
    fn folders(&self) -> &[String];
    /// The content of one file.
    fn read(&self, file: usize) -> Result<Vec<u8>>;
    /// The full path of one file, for names and messages.
    fn locate(&self, file: usize) -> PathBuf {
        self.origin().join(&self.files()[file])
    }
}

/// The part after the last dot of the last component, in lower case.
pub(super) fn extension(name: &str) -> String {
    let file = name.rsplit(['/', std::path::MAIN_SEPARATOR]).next().unwrap_or(name);
    file.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default()
}

/// Whether the name says that the file is an image.
pub(super) fn is_image_name(name: &str) -> bool {
    matches!(
        extension(name).as_str(),
        "png"
            | "apng"
            | "jpg"
            | "jpeg"
            | "jpe"
            | "jif"
            | "jfif"
            | "webp"
            | "bmp"
            | "dib"
            | "gif"
            | "tif"
            | "tiff"
            | "pnm"
            | "ppm"
            | "pgm"
            | "pbm"
            | "pam"
            | "tga"
    )
}

/// Whether the file is an image; `false` for a note beside the images, an error for anything else.
pub(super) fn is_image_or_note(listing: &dyn Listing, file: usize) -> Result<bool> {
    let name = &listing.files()[file];
    if is_image_name(name) {
        return Ok(true);
    }
    if matches!(extension(name).as_str(), "txt" | "md" | "json" | "csv") {
        return Ok(false);
    }
    Err(Error::data(
        listing.locate(file),
        format!("lies among images but is not one ({IMAGE_KINDS} are read; .txt, .md, .json and .csv are ignored)"),
    ))
}

/// Whether one component of a path is hidden or left behind by a desktop.
pub(super) fn is_noise(component: &str) -> bool {
    component.starts_with('.') || matches!(component, "__MACOSX" | "Thumbs.db" | "desktop.ini")
}

/// The files below a folder. Links are followed, except into a folder that contains them.
pub(super) struct FolderListing {
    root: PathBuf,
    files: Vec<String>,
    paths: Vec<PathBuf>,
    folders: Vec<String>,
}

impl FolderListing {
    /// Lists `root` recursively.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        walk(root, "", &mut Vec::new(), &mut found, &mut folders)?;
        found.sort();
        folders.sort();
        let (files, paths) = found.into_iter().unzip();
        Ok(FolderListing { root: root.to_path_buf(), files, paths, folders })
    }
}

fn walk(
    folder: &Path,
    prefix: &str,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<(String, PathBuf)>,
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
            files.push((name, path));
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
    fn read(&self, file: usize) -> Result<Vec<u8>> {
        read_file(&self.paths[file])
    }
    fn locate(&self, file: usize) -> PathBuf {
        self.paths[file].clone()
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
    fn locate(&self, _: usize) -> PathBuf {
        self.path.clone()
    }
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
