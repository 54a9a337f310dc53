//! `neighbors`: the pictures most similar to one.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::predict::{check_directions, table_bytes, table_file};
use super::{Session, data_options, look_options, model, within};
use crate::data::{self, DataOptions, LeftOut};
use crate::fewshot::Nearest;
use crate::fewshot::nearest::Neighbours;
use crate::files::replace_file;
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::train::features::Layer;
use crate::{Error, Result};

/// Columns of a table of neighbours.
const COLUMNS: [&str; 3] = ["rank", "path", "similarity"];

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighborsRequest {
    /// The picture.
    pub picture: PathBuf,
    /// Where to search: an array that `embed` wrote, with its list beside it, or pictures.
    pub among: PathBuf,
    /// The network: see [`model::open`]; for an array that which embedded it.
    pub model: PathBuf,
    /// How many to find.
    pub k: usize,
    /// Table to write.
    pub csv: Option<PathBuf>,
}

/// A picture that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Neighbor {
    /// The picture.
    pub path: String,
    /// Its row among those that were searched.
    pub row: usize,
    /// Cosine of the embeddings.
    pub similarity: f32,
}

/// What a search found.
#[derive(Clone, Debug, Serialize)]
pub struct NeighborsOutcome {
    /// The network.
    pub model: PathBuf,
    /// The picture.
    pub picture: PathBuf,
    /// Rows that were searched.
    pub rows: usize,
    /// The most similar first.
    pub neighbors: Vec<Neighbor>,
    /// Files among the pictures that could not be read.
    pub left_out: Vec<LeftOut>,
    /// The table.
    pub csv: Option<PathBuf>,
}

impl NeighborsOutcome {
    /// Fails where a file was left out.
    ///
    /// # Errors
    /// [`Error::TargetMissed`] with how many there are.
    pub fn complete(&self) -> Result<()> {
        match self.left_out.len() {
            0 => Ok(()),
            n => Err(Error::TargetMissed(format!(
                "{n} of {} files could not be read and were not searched: replace them or take them away",
                n + self.rows
            ))),
        }
    }
}

/// Whether the path is that of an array rather than of pictures.
fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("npy"))
}

impl NeighborsRequest {
    fn validate(&self) -> Result<()> {
        within("request.k", self.k, 1, 1_000_000)?;
        if !self.picture.is_file() {
            let what = if self.picture.exists() { "this is no file" } else { "there is no such file" };
            return Err(Error::data(&self.picture, format!("{what}: name one picture")));
        }
        if !self.among.exists() {
            return Err(Error::data(
                &self.among,
                "there is no such file or folder: `request.in` wants an array that `embed` wrote (.npy), or a folder of \
                 pictures",
            ));
        }
        self.csv.as_ref().map_or(Ok(()), |file| table_file("request.csv", file, &COLUMNS))
    }
}

/// An array that `embed` wrote, read row by row.
struct Array {
    path: PathBuf,
    rows: usize,
    columns: usize,
}

impl Array {
    fn reader(path: &Path) -> Result<npyz::NpyFile<BufReader<File>>> {
        let file = File::open(path).map_err(|e| Error::io(path, "cannot read the embeddings", e))?;
        npyz::NpyFile::new(BufReader::with_capacity(1 << 20, file))
            .map_err(|e| Error::data(path, format!("is no whole .npy file ({e}): embed the pictures again")))
    }

    fn open(path: &Path) -> Result<Array> {
        let npy = Self::reader(path)?;
        let shape = npy.shape();
        let &[rows, columns] = shape else {
            return Err(Error::data(path, format!("has the shape {shape:?}, and embeddings are a row per picture")));
        };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        if npy.order() != npyz::Order::C || rows == 0 || columns == 0 {
            return Err(Error::data(path, "has no rows, or lies column by column: embed the pictures again"));
        }
        Ok(Array { path: path.into(), rows: size(rows), columns: size(columns) })
    }

    /// The rows in parts of `n`.
    fn parts<'a>(&'a self, n: usize, progress: &'a mut dyn Progress) -> Result<impl Iterator<Item = Result<Vec<f32>>>> {
        let broken = |why: String| Error::data(&self.path, format!("{why}: embed the pictures again"));
        let npy = Self::reader(&self.path)?;
        let numbers = npy.data::<f32>().map_err(|e| broken(format!("does not hold float32 numbers ({e})")))?;
        let mut numbers = numbers;
        let (mut done, total) = (0, self.rows);
        Ok(std::iter::from_fn(move || {
            let rows = n.min(total - done);
            if rows == 0 {
                return None;
            }
            let part: std::io::Result<Vec<f32>> = numbers.by_ref().take(rows * self.columns).collect();
            done += rows;
            progress.advance("searching", done as u64, total as u64);
            Some(progress.go_on().and_then(|()| match part {
                Ok(part) if part.len() == rows * self.columns => Ok(part),
                Ok(_) => Err(broken("ends before its last row".into())),
                Err(e) => Err(broken(format!("cannot be read ({e})"))),
            }))
        }))
    }

    /// The lines of the list beside the array that belong to `rows`.
    fn names(&self, rows: &[usize]) -> Result<Vec<String>> {
        let list = self.path.with_extension("txt");
        let io = |e| Error::io(&list, "cannot read the list of paths beside the embeddings", e);
        let places: HashMap<usize, usize> = rows.iter().enumerate().map(|(place, &row)| (row, place)).collect();
        let mut found = vec![String::new(); rows.len()];
        let mut lines = 0;
        for line in BufReader::new(File::open(&list).map_err(io)?).lines() {
            let line = line.map_err(io)?;
            if let Some(&place) = places.get(&lines) {
                found[place] = line;
            }
            lines += 1;
        }
        match lines == self.rows {
            true => Ok(found),
            false => Err(Error::data(
                &list,
                format!("has {lines} lines, and the array beside it {} rows: embed the pictures again", self.rows),
            )),
        }
    }
}

/// One row more is found: the picture itself may be among them.
fn more(k: usize) -> usize {
    k.saturating_add(1)
}

/// Without the picture itself.
fn without(picture: &Path, found: Neighbours, names: Vec<String>, k: usize) -> Vec<Neighbor> {
    let own = picture.canonicalize().ok();
    let is_other = |path: &String| Path::new(path).canonicalize().ok().is_none_or(|path| Some(path) != own);
    let neighbors = found.into_iter().zip(names).filter(|(_, path)| is_other(path));
    neighbors.take(k).map(|((row, similarity), path)| Neighbor { path, row, similarity }).collect()
}

/// Searches.
///
/// # Errors
/// A request, network or pictures that cannot be used; a table that cannot be written; what the device refuses.
pub fn run(request: &NeighborsRequest, session: &Session, progress: &mut dyn Progress) -> Result<NeighborsOutcome> {
    request.validate()?;
    let array = if is_array(&request.among) { Some(Array::open(&request.among)?) } else { None };
    let picture = std::slice::from_ref(&request.picture);
    let look = &mut || {
        let paths = if array.is_some() { picture } else { std::slice::from_ref(&request.among) };
        data::sample_unlabelled(paths, &look_options())
    };
    let stored = model::open(&request.model, look, progress)?;
    let options = data_options(&stored.config.data, Some(stored.side()?));
    let image = data::load_unlabelled(picture, &options)?;
    let mut kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels.clone(), &stored.file, &stored.checkpoint, false)?;
    let query = extractor.features(&image, Layer::Feature, None, progress)?;
    check_directions(&image, &query)?;
    let columns = query.len();
    let (neighbors, rows, left_out) = match array {
        Some(array) => {
            if array.columns != columns {
                return Err(Error::data(
                    &array.path,
                    format!(
                        "has {} columns, and {} makes {columns}: name the network that embedded it with \
                         `request.model`",
                        array.columns,
                        stored.file.display()
                    ),
                ));
            }
            let nearest = Nearest::new(&mut kernels, columns, 1)?;
            let parts = array.parts(nearest.rows_per_pass(), progress)?;
            let found = nearest.search_parts(&query, parts, more(request.k))?.remove(0);
            let rows: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
            let names = array.names(&rows)?;
            (without(&request.picture, found, names, request.k), array.rows, Vec::new())
        }
        None => among_pictures(request, &options, &extractor, &mut kernels, &query, progress)?,
    };
    if let Some(file) = &request.csv {
        let head = COLUMNS.map(str::to_owned).to_vec();
        let rows = neighbors.iter().zip(1_usize..);
        let rows = rows.map(|(one, rank)| vec![rank.to_string(), one.path.clone(), format!("{:.6}", one.similarity)]);
        replace_file(file, "cannot write the table", &table_bytes(std::iter::once(head).chain(rows))?)?;
    }
    let (picture, csv) = (request.picture.clone(), request.csv.clone());
    Ok(NeighborsOutcome { model: stored.file, picture, rows, neighbors, left_out, csv })
}

/// Embeds the pictures to search among, and searches.
fn among_pictures(
    request: &NeighborsRequest,
    options: &DataOptions,
    extractor: &Extractor,
    kernels: &mut Kernels,
    query: &[f32],
    progress: &mut dyn Progress,
) -> Result<(Vec<Neighbor>, usize, Vec<LeftOut>)> {
    let (images, left_out) = data::load_readable(std::slice::from_ref(&request.among), options)?;
    left_out.iter().for_each(|file| progress.warn(&format!("left out {}: {}", file.path.display(), file.why)));
    let features = extractor.features(&images, Layer::Feature, None, progress)?;
    check_directions(&images, &features)?;
    let nearest = Nearest::new(kernels, query.len(), 1)?;
    let found = nearest.search(query, &features, more(request.k))?.remove(0);
    let names = found.iter().map(|(row, _)| images.names[*row].clone()).collect();
    Ok((without(&request.picture, found, names, request.k), images.len(), left_out))
}
