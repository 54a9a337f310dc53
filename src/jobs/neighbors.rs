//! `neighbors`: the pictures most similar to one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use image::RgbImage;
use serde::Serialize;

use super::rows::{Embedder, Row};
use super::shards::features_in;
use super::table::{table_bytes, table_file};
use super::{Session, data_options, distinct, look_options, model, sheet_file, within};
use crate::data::embeddings::{Format, Reader, ShardStats};
use crate::data::sheet::{Cell, Sheet, colours};
use crate::data::{self, Finder, LeftOut, Pictures};
use crate::fewshot::Nearest;
use crate::fewshot::nearest::Neighbours;
use crate::files::replace_file;
use crate::gpu::kernel::Kernels;
use crate::progress::Progress;
use crate::train::Extractor;
use crate::{Error, Result};

/// Columns of a table of neighbours.
const COLUMNS: [&str; 3] = ["rank", "path", "similarity"];

/// A search.
#[derive(Clone, Debug, PartialEq)]
pub struct NeighborsRequest {
    /// The picture.
    pub picture: PathBuf,
    /// Where to search: a file or a folder of shards that `embed` wrote, or pictures.
    pub among: PathBuf,
    /// The network: see [`model::open`]; for a file that which embedded it.
    pub model: PathBuf,
    /// How many to find.
    pub k: usize,
    /// Table to write.
    pub csv: Option<PathBuf>,
    /// Contact sheet to write, PNG.
    pub sheet: Option<PathBuf>,
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
    /// Whether these had been embedded before.
    pub embedded: bool,
    /// The most similar first.
    pub neighbors: Vec<Neighbor>,
    /// Files among the pictures that could not be read.
    pub left_out: Vec<LeftOut>,
    /// The table.
    pub csv: Option<PathBuf>,
    /// The contact sheet.
    pub sheet: Option<PathBuf>,
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
                "there is no such file or folder: `request.in` wants what `embed` wrote, or a folder of pictures",
            ));
        }
        if let Some(sheet) = &self.sheet {
            sheet_file("request.sheet", sheet, "near.png")?;
            distinct(("request.csv", self.csv.as_ref()), ("request.sheet", Some(sheet)))?;
        }
        self.csv.as_ref().map_or(Ok(()), |file| table_file("request.csv", file, "near.csv", &COLUMNS))
    }

    /// The embeddings to search among; none where it is pictures.
    fn embeddings(&self) -> Result<Option<Embeddings>> {
        let path = self.among.as_path();
        if !path.is_dir() {
            return Ok(Format::of_ending(path).map(|_| Embeddings::File(path.into())));
        }
        let shards = features_in(path)?;
        Ok(if shards.is_empty() { None } else { Some(Embeddings::Shards(shards)) })
    }
}

/// Rows that were embedded before. Shards are listed once: more of them may be finished while they are searched.
enum Embeddings {
    File(PathBuf),
    Shards(Vec<(PathBuf, ShardStats)>),
}

impl Embeddings {
    fn open(&self) -> Result<Reader> {
        match self {
            Embeddings::File(file) => Reader::open(file),
            Embeddings::Shards(shards) => Ok(Reader::of_shards(shards.clone())),
        }
    }

    /// The hash of the checkpoint that made them, where that is known.
    fn checkpoint(&self) -> Option<&str> {
        match self {
            Embeddings::File(_) => None,
            Embeddings::Shards(shards) => shards.first().map(|(_, stats)| stats.checkpoint.as_str()),
        }
    }
}

/// The rows of a file of embeddings in parts of at most `most`, counted, and `progress` asked whether to go on.
struct Parts<'a> {
    reader: Reader,
    most: usize,
    rows: &'a mut usize,
    progress: &'a mut dyn Progress,
}

impl Iterator for Parts<'_> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Result<Vec<f32>>> {
        let (mut part, mut row, mut rows) = (Vec::new(), Vec::new(), 0);
        while rows < self.most {
            match self.reader.next(&mut row) {
                Ok(Some(_)) => part.extend_from_slice(&row),
                Ok(None) => break,
                Err(error) => return Some(Err(error)),
            }
            rows += 1;
        }
        *self.rows += rows;
        let done = *self.rows as u64;
        if rows > 0 {
            self.progress.advance("searching row", done, done);
        }
        (rows > 0).then(|| self.progress.go_on().map(|()| part))
    }
}

/// The paths of `rows` of embeddings.
fn names(mut reader: Reader, rows: &[usize]) -> Result<Vec<String>> {
    let places: HashMap<usize, usize> = rows.iter().enumerate().map(|(place, &row)| (row, place)).collect();
    let mut found = vec![String::new(); rows.len()];
    let (mut row, last) = (Vec::new(), rows.iter().max().copied().unwrap_or(0));
    for number in 0..=last {
        let path = reader.next(&mut row)?.unwrap_or_default();
        if let Some(&place) = places.get(&number) {
            found[place] = path;
        }
    }
    Ok(found)
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
    let embeddings = request.embeddings()?;
    let embedded = embeddings.is_some();
    let picture = std::slice::from_ref(&request.picture);
    let look = &mut || {
        let paths = if embedded { picture } else { std::slice::from_ref(&request.among) };
        data::sample_unlabelled(paths, &look_options())
    };
    let stored = model::open(&request.model, look, progress)?;
    let options = data_options(&stored.config.data, Some(stored.side()?));
    let mut kernels = session.open_for_features(progress)?;
    let (extractor, _) = Extractor::open(kernels.clone(), &stored.file, &stored.checkpoint, false)?;
    let mut embedder = Embedder { extractor, options, left_out: Vec::new(), progress };
    let mut query = Vec::new();
    let pictures = Pictures::open(picture, true)?;
    if pictures.len() != 1 {
        return Err(Error::data(&request.picture, format!("holds {} pictures: name one picture", pictures.len())));
    }
    embedder.each(&pictures, |row| {
        query.extend_from_slice(row.features);
        Ok(())
    })?;
    let columns = query.len();
    let (neighbors, rows) = match embeddings {
        Some(embeddings) => {
            let reader = embeddings.open()?;
            let unlike = match embeddings.checkpoint() {
                _ if reader.columns() != columns => {
                    Some(format!("has {} columns, and {} makes {columns}", reader.columns(), stored.file.display()))
                }
                Some(checkpoint) if checkpoint != stored.fingerprint()? => {
                    Some(format!("was embedded by another network than {}", stored.file.display()))
                }
                _ => None,
            };
            if let Some(unlike) = unlike {
                return Err(Error::data(
                    &request.among,
                    format!("{unlike}: name the network that embedded it with `request.model`"),
                ));
            }
            let nearest = Nearest::new(&mut kernels, columns, 1)?;
            let mut rows = 0;
            let progress = &mut *embedder.progress;
            let parts = Parts { reader, most: nearest.rows_per_pass(), rows: &mut rows, progress };
            let found = nearest.search_parts(&query, parts, more(request.k))?.remove(0);
            let of: Vec<usize> = found.iter().map(|(row, _)| *row).collect();
            (without(&request.picture, found, names(embeddings.open()?, &of)?, request.k), rows)
        }
        None => among_pictures(request, &mut embedder, &mut kernels, &query)?,
    };
    if let Some(file) = &request.csv {
        let head = COLUMNS.map(str::to_owned).to_vec();
        let rows = neighbors.iter().zip(1_usize..);
        let rows = rows.map(|(one, rank)| vec![rank.to_string(), one.path.clone(), format!("{:.6}", one.similarity)]);
        replace_file(file, "cannot write the table", &table_bytes(std::iter::once(head).chain(rows))?)?;
    }
    if let Some(file) = &request.sheet {
        replace_file(file, "cannot write the contact sheet", &sheet(&request.picture, &neighbors)?)?;
    }
    let (picture, csv, sheet) = (request.picture.clone(), request.csv.clone(), request.sheet.clone());
    let left_out = embedder.left_out;
    Ok(NeighborsOutcome { model: stored.file, picture, rows, embedded, neighbors, left_out, csv, sheet })
}

/// Embeds the pictures to search among, and searches.
fn among_pictures(
    request: &NeighborsRequest,
    embedder: &mut Embedder,
    kernels: &mut Kernels,
    query: &[f32],
) -> Result<(Vec<Neighbor>, usize)> {
    let pictures = Pictures::open(std::slice::from_ref(&request.among), false)?;
    let (mut of, mut rows) = (Vec::new(), Vec::new());
    embedder.each(&pictures, |Row { picture, features, .. }| {
        of.push(picture);
        rows.extend_from_slice(features);
        Ok(())
    })?;
    let nearest = Nearest::new(kernels, query.len(), 1)?;
    let found = nearest.search(query, &rows, more(request.k))?.remove(0);
    let names = found.iter().map(|(row, _)| pictures.path(of[*row]).display().to_string()).collect();
    Ok((without(&request.picture, found, names, request.k), of.len()))
}

/// The picture, and those that are like it; gray where a file is gone.
fn sheet(picture: &Path, neighbors: &[Neighbor]) -> Result<Vec<u8>> {
    let mut finder = Finder::default();
    let mut read = |path: &Path| finder.read(path).and_then(|bytes| data::decode_rgb(path, &bytes));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut sheet = Sheet::new();
    sheet.push(Cell::new(read(picture)?, name(picture)).framed(colours::GOOD));
    for one in neighbors {
        let path = Path::new(&one.path);
        let shown = read(path).unwrap_or_else(|_| RgbImage::from_pixel(32, 32, image::Rgb([200; 3])));
        sheet.push(Cell::new(shown, format!("{:.3} {}", one.similarity, name(path))));
    }
    sheet.to_png()
}
