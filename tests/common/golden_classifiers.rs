//! The few-shot classifiers compared with scikit-learn's converged solutions.

use ieq_wgpu::fewshot::{Classifier, Features, LogisticRegression};

use super::golden::Golden;
use super::golden_cases::{Bench, Computed, say};

/// Weights, logits and predictions for `query` from `support`. Runs on the host.
pub fn classifiers(golden: &Golden, case: &str, _: &mut Bench) -> Computed {
    let name = |part: &str| format!("{case}.{part}");
    let features = |part: &str| -> Result<Features<'_>, String> {
        match *golden.shape(&name(part))? {
            [_, dim] => Features::new(golden.data(&name(part))?, dim).map_err(say),
            ref other => Err(format!("{part} has shape {other:?} and is no matrix")),
        }
    };
    let (support, query) = (features("support")?, features("query")?);
    let labels = golden.indices(&name("support_y"))?;
    let ways = labels.iter().max().map_or(0, |&top| top as usize + 1);
    let as_f32 = |values: &[f64]| values.iter().map(|&x| x as f32).collect::<Vec<_>>();
    let as_index = |values: Vec<u32>| values.into_iter().map(|x| x as f32).collect::<Vec<_>>();

    let fit = LogisticRegression::fit(support, &labels, ways, 1.0).map_err(say)?;
    let by_lr = Classifier::LogisticRegression.predict(support, &labels, ways, query).map_err(say)?;
    let by_centroid = Classifier::NearestCentroid.predict(support, &labels, ways, query).map_err(say)?;
    let computed = [
        ("W", as_f32(fit.weights())),
        ("b", as_f32(fit.bias())),
        ("logits", as_f32(&fit.decision(query).map_err(say)?)),
        ("pred", as_index(by_lr)),
        ("pred_centroid", as_index(by_centroid)),
    ];
    Ok(computed.map(|(part, got)| (part.to_owned(), got)).into())
}
