//! From rows with classes to answers about other rows.

use ieq_wgpu::fewshot::{Features, Reference};
use serde::Serialize;
use wasm_bindgen::prelude::*;

use crate::{Answer, fault, json, of_engine};

/// Classes with their rows.
#[wasm_bindgen]
pub struct Support {
    learned: ieq_wgpu::fewshot::Support,
    width: usize,
}

#[derive(Serialize)]
struct Answered {
    class: Option<usize>,
    nearest: Option<usize>,
    similarity: f64,
    probabilities: Vec<f64>,
}

#[derive(Serialize)]
struct Confusions {
    counts: Vec<Vec<u32>>,
    none: Vec<u32>,
    right: u32,
    total: u32,
}

#[wasm_bindgen]
impl Support {
    /// Of `rows` `[pictures, width]` with `labels` below `classes`, every class with a row; `reference` as
    /// `Network.reference` gives it.
    #[wasm_bindgen(constructor)]
    pub fn new(rows: &[f32], width: usize, labels: &[u32], classes: usize, reference: &str) -> Answer<Support> {
        let reference: Reference = serde_json::from_str(reference).map_err(|e| fault("internal", &e.to_string()))?;
        let features = Features::new(rows, width).map_err(of_engine)?;
        let learned = ieq_wgpu::fewshot::Support::new(features, labels, classes, &reference).map_err(of_engine)?;
        Ok(Support { learned, width })
    }

    /// The answer on a row, as JSON; `unknown`: the share of the pictures of known classes that may be called none of
    /// these, 0 for never.
    pub fn answer(&self, row: &[f32], unknown: f64) -> Answer<String> {
        let found = self.learned.answer(row, None, Some(unknown).filter(|rate| *rate > 0.0)).map_err(of_engine)?;
        let ieq_wgpu::fewshot::support::Answer { class, nearest, similarity, probabilities } = found;
        json(&Answered { class, nearest, similarity, probabilities })
    }

    /// The rows of the support from `from` on, before `to`, answered by all others, as JSON: counts `[truth, answer]`, how
    /// many were none of these. A class of one picture has nothing left to answer by: such pictures are not counted.
    pub fn confusions(&self, rows: &[f32], labels: &[u32], unknown: f64, from: usize, to: usize) -> Answer<String> {
        let classes = self.learned.classes();
        let mut of_class = vec![0_u32; classes];
        labels.iter().for_each(|&label| of_class.iter_mut().skip(label as usize).take(1).for_each(|n| *n += 1));
        let (mut right, mut total) = (0, 0);
        let (mut counts, mut none) = (vec![vec![0; classes]; classes], vec![0; classes]);
        let unknown = Some(unknown).filter(|rate| *rate > 0.0);
        let all = rows.chunks_exact(self.width.max(1)).zip(labels).enumerate();
        for (i, (row, &label)) in all.take(to).skip(from) {
            let truth = label as usize;
            if of_class.get(truth).is_none_or(|&n| n < 2) {
                continue;
            }
            let found = self.learned.answer(row, Some(i), unknown).map_err(of_engine)?;
            total += 1;
            match found.class {
                None => none[truth] += 1,
                Some(class) => {
                    right += u32::from(class == truth);
                    counts[truth][class] += 1;
                }
            }
        }
        json(&Confusions { counts, none, right, total })
    }
}
