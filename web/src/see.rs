//! Names of pictures, and rows for people to look at.

use ieq_wgpu::data::Places;
use ieq_wgpu::fewshot::projection::principal;
use ieq_wgpu::fewshot::{Features, l2_normalise};
use wasm_bindgen::prelude::*;

use crate::{Answer, json, of_engine};

/// For each name of a picture, with its folders, the class that they say, or null, as JSON. A folder that is named like a split
/// and directly holds pictures is a class here.
#[wasm_bindgen]
pub fn folder_classes(names: Vec<String>) -> Answer<String> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let places = Places::of(&names);
    let class = |(name, class): (&&str, Option<u32>)| match class {
        Some(class) => places.classes.get(class as usize).cloned(),
        None => Some(name.rsplit('/').nth(1)?.to_owned()),
    };
    json(&names.iter().zip(places.class.iter().copied()).map(class).collect::<Vec<_>>())
}

/// The two coordinates of each row along its principal components, and behind them the shares of the variance that both
/// carry. It takes `rows^2` numbers of memory: give it at most a few thousand.
#[wasm_bindgen]
pub fn projection(rows: &[f32], width: usize) -> Answer<Vec<f64>> {
    let found = principal(Features::new(rows, width).map_err(of_engine)?);
    Ok(found.coordinates.into_iter().chain([found.explained]).flatten().collect())
}

/// The `k` rows most similar to `query`, best first: pairs of the row's number and its cosine.
#[wasm_bindgen]
pub fn nearest(query: &[f32], rows: &[f32], k: usize) -> Vec<f64> {
    let mut rows = rows.to_vec();
    let mut query = query.to_vec();
    l2_normalise(&mut rows, query.len());
    let width = query.len();
    l2_normalise(&mut query, width);
    let cosine = |row: &[f32]| row.iter().zip(&query).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let mut found: Vec<(usize, f64)> = rows.chunks_exact(width.max(1)).map(cosine).enumerate().collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.into_iter().take(k).flat_map(|(row, cosine)| [row as f64, cosine]).collect()
}
