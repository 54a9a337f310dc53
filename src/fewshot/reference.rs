//! How similar pictures of one class, and of different classes, are to a network: what the answers on a small support
//! rest on where the support itself says too little. `docs/method.md`, section 9, has the formulas.

use rand::seq::index::sample;
use serde::{Deserialize, Serialize};

use super::features::{Features, check_labels, l2_normalise};
use crate::Result;
use crate::random::{Rng, Stream};

/// Classes per episode, episodes, and the numbers of shots that are measured, where there are so many images.
const WAYS: usize = 5;
const EPISODES: u32 = 200;
const SHOTS: [usize; 4] = [1, 2, 5, 10];
/// Fewest images of a class that is measured.
pub const LEAST: usize = 3;
/// Trained-on classes lie closer together than new ones: their mean own similarity counts this much of itself. Measured
/// on Omniglot (0.91) and on the glyphs (0.90), and between that and nothing, so that neither error grows large.
const TRAINED_ON: f64 = 0.925;
/// Cosines beyond this have no finite inverse hyperbolic tangent worth the name.
const MOST: f64 = 0.9999;

/// A similarity on the scale on which it spreads evenly: the inverse hyperbolic tangent of a cosine (Fisher's z).
pub(super) fn fisher(cosine: f64) -> f64 {
    cosine.clamp(-MOST, MOST).atanh()
}

/// A normal distribution of similarities on Fisher's scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Spread {
        let n = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n;
        // Images that are all alike have a spread of rounding alone.
        Spread { mean, deviation: variance.sqrt().max(0.01) }
    }

    /// Where `z` lies in deviations from the mean.
    pub(super) fn standard(self, z: f64) -> f64 {
        (z - self.mean) / self.deviation
    }

    fn between(self, other: Spread, share: f64) -> Spread {
        let mix = |a: f64, b: f64| a + share * (b - a);
        Spread { mean: mix(self.mean, other.mean), deviation: mix(self.deviation, other.deviation) }
    }
}

/// Similarities to the mean of `shots` pictures of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByShots {
    /// Pictures per class.
    pub shots: usize,
    /// Of other pictures of the class.
    pub own: Spread,
    /// Of pictures of other classes.
    pub other: Spread,
    /// The temperature at which the softmax of the similarities is the best estimate of the probabilities.
    pub temperature: f64,
}

/// Where a [`Reference`] comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Classes that the network was not trained on.
    HeldOut,
    /// Classes that it was trained on, which lie closer together than new ones.
    TrainedOn,
    /// Other networks.
    Typical,
}

/// Similarities of a network, by the number of pictures per class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Whose pictures.
    pub source: Source,
    /// Classes that were measured.
    pub classes: usize,
    /// Their images.
    pub images: usize,
    /// By number of shots, the fewest first; at least one.
    pub by_shots: Vec<ByShots>,
}

impl Reference {
    /// What networks of this program have in the middle, for one that was not measured: on gray strokes, or on colour
    /// pictures, of which a picture says less about its class.
    pub fn typical(gray: bool) -> Reference {
        let one = |shots, own: (f64, f64), other: (f64, f64), temperature| ByShots {
            shots,
            own: Spread { mean: own.0, deviation: own.1 },
            other: Spread { mean: other.0, deviation: other.1 },
            temperature,
        };
        let by_shots = match gray {
            true => vec![
                one(1, (1.2, 0.28), (0.45, 0.22), 0.045),
                one(2, (1.33, 0.27), (0.47, 0.23), 0.034),
                one(5, (1.45, 0.27), (0.49, 0.23), 0.027),
                one(10, (1.5, 0.27), (0.5, 0.23), 0.025),
            ],
            false => vec![
                one(1, (0.65, 0.33), (0.4, 0.28), 0.25),
                one(2, (0.77, 0.31), (0.46, 0.27), 0.18),
                one(5, (0.87, 0.3), (0.51, 0.27), 0.14),
                one(10, (0.91, 0.29), (0.54, 0.27), 0.125),
            ],
        };
        Reference { source: Source::Typical, classes: 0, images: 0, by_shots }
    }

    /// Measures episodes of `features` `[rows, dim]` with `labels` `[rows]` of at least two classes in `0..classes`;
    /// none where the smallest class has fewer than [`LEAST`] rows. `source` says whether the network was trained on
    /// these classes.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when labels and rows do not fit together, [`crate::Error::NonFinite`] when a feature is not
    /// finite.
    pub fn measure(features: Features, labels: &[u32], classes: usize, source: Source) -> Result<Option<Reference>> {
        features.check("reference", "measured")?;
        check_labels("reference", labels, features.rows(), classes)?;
        let dim = features.dim();
        let mut units = features.data().to_vec();
        l2_normalise(&mut units, dim);
        let units = Features::new(&units, dim)?;
        let mut members = vec![Vec::new(); classes];
        labels.iter().enumerate().for_each(|(row, &label)| members[label as usize].push(row));
        let least = members.iter().map(Vec::len).min().unwrap_or(0);
        if least < LEAST {
            return Ok(None);
        }
        let rows: Vec<&[f32]> = units.iter().collect();
        let fits = SHOTS.into_iter().filter(|shots| shots + 2 <= least);
        let measured = fits.map(|shots| measure(&rows, &members, shots));
        Ok(Some(Reference { source, classes, images: labels.len(), by_shots: measured.collect() }))
    }

    /// The similarities to the mean of `shots` pictures, between those that were measured in proportion to 1 / shots.
    pub fn at(&self, shots: usize) -> ByShots {
        let shots = shots.max(1);
        let behind = self.by_shots.iter().position(|one| one.shots >= shots);
        let found = match behind {
            Some(0) => self.by_shots[0],
            Some(i) => {
                let (a, b) = (self.by_shots[i - 1], self.by_shots[i]);
                let inverse = |n: usize| 1.0 / n as f64;
                let share = (inverse(a.shots) - inverse(shots)) / (inverse(a.shots) - inverse(b.shots));
                ByShots {
                    shots,
                    own: a.own.between(b.own, share),
                    other: a.other.between(b.other, share),
                    temperature: a.temperature + share * (b.temperature - a.temperature),
                }
            }
            None => match self.by_shots.last() {
                Some(last) => *last,
                None => return Reference::typical(true).at(shots),
            },
        };
        let mean = match self.source {
            Source::TrainedOn => TRAINED_ON * found.own.mean,
            Source::HeldOut | Source::Typical => found.own.mean,
        };
        ByShots { shots, own: Spread { mean, ..found.own }, ..found }
    }
}

/// Four digits: the last bits of a logarithm differ between systems.
fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

fn measure(rows: &[&[f32]], members: &[Vec<usize>], shots: usize) -> ByShots {
    let ways = WAYS.min(members.len());
    let (mut own, mut other, mut similarities, mut truth) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for episode in 0..EPISODES {
        let mut rng = Rng::new(0, Stream::Episodes, episode, shots as u32);
        let classes = sample(&mut rng, members.len(), ways).into_vec();
        let drawn: Vec<Vec<usize>> = classes
            .iter()
            .map(|&class| {
                let all = &members[class];
                let queries = (all.len() - shots).min(shots.max(5));
                sample(&mut rng, all.len(), shots + queries).into_iter().map(|i| all[i]).collect()
            })
            .collect();
        let means: Vec<Vec<f64>> =
            drawn.iter().map(|drawn| direction(drawn[..shots].iter().map(|&row| rows[row]))).collect();
        for (class, drawn) in drawn.iter().enumerate() {
            for &row in &drawn[shots..] {
                for (of, mean) in means.iter().enumerate() {
                    let cosine = cosine(mean, rows[row]);
                    similarities.push(cosine);
                    if of == class { &mut own } else { &mut other }.push(fisher(cosine));
                }
                truth.push(class);
            }
        }
    }
    let round = |spread: Spread| Spread { mean: rounded(spread.mean), deviation: rounded(spread.deviation) };
    let temperature = rounded(temperature(&similarities, &truth, ways, (0.005, 1.0)));
    ByShots { shots, own: round(Spread::of(&own)), other: round(Spread::of(&other)), temperature }
}

/// The mean of unit rows, scaled to length 1; zeros where it has none.
pub(super) fn direction<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<f64> {
    let mut sum = Vec::new();
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|x| *x /= length);
    }
    sum
}

pub(super) fn cosine(mean: &[f64], row: &[f32]) -> f64 {
    mean.iter().zip(row).map(|(a, &b)| a * f64::from(b)).sum()
}

/// The temperature within `range` at which the softmax of `similarities` `[rows, ways]` over it gives the `truth` `[rows]`
/// the largest likelihood: by golden section over its logarithm. A similarity of minus infinity is that of a class that
/// does not count.
pub(super) fn temperature(similarities: &[f64], truth: &[usize], ways: usize, range: (f64, f64)) -> f64 {
    let loss = |logarithm: f64| {
        let scale = (-logarithm).exp();
        let rows = similarities.chunks_exact(ways).zip(truth);
        rows.map(|(row, &truth)| {
            let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|s| (scale * (s - most)).exp()).sum();
            sum.ln() - scale * (row[truth] - most)
        })
        .sum::<f64>()
    };
    let golden = 0.5 * (5.0_f64.sqrt() - 1.0);
    let (mut low, mut high) = (range.0.ln(), range.1.ln());
    while high - low > 1e-3 {
        let step = golden * (high - low);
        match loss(high - step) <= loss(low + step) {
            true => high = low + step,
            false => low = high - step,
        }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_reference_lies_between_what_was_measured() {
        let typical = Reference::typical(true);
        assert_eq!(typical.at(1), typical.by_shots[0]);
        assert_eq!(typical.at(0), typical.by_shots[0]);
        assert_eq!(typical.at(5).own, typical.by_shots[2].own);
        assert_eq!(typical.at(500).own, typical.by_shots[3].own);
        let three = typical.at(3);
        let (two, five) = (typical.at(2), typical.at(5));
        assert!(two.own.mean < three.own.mean && three.own.mean < five.own.mean);
        assert!(two.temperature > three.temperature && three.temperature > five.temperature);
        let trained = Reference { source: Source::TrainedOn, ..typical.clone() };
        assert!(trained.at(1).own.mean < typical.at(1).own.mean);
        assert_eq!(trained.at(1).other, typical.at(1).other);
        let text = serde_json::to_string(&trained).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), trained);
    }

    /// Similarities whose odds are known: of rows at s and 0 the first is right as often as a softmax at 0.1 says.
    #[test]
    fn a_temperature_is_found_again() {
        let mut rng = Rng::new(1, Stream::Episodes, 0, 0);
        let (mut similarities, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            let s = 0.3 * f64::from(rng.unit());
            similarities.extend([s, 0.0]);
            truth.push(usize::from(f64::from(rng.unit()) > 1.0 / (1.0 + (-s / 0.1).exp())));
        }
        let found = temperature(&similarities, &truth, 2, (0.005, 1.0));
        assert!((found / 0.1).ln().abs() < 0.08, "{found}");
        // Where every row is right the smallest is the best.
        assert!(temperature(&[1.0, 0.0], &[0], 2, (0.02, 1.0)) < 0.021);
    }

    #[test]
    fn similarities_are_those_of_the_classes() {
        // Two classes at right angles, all of whose rows are alike but for a little.
        let rows: Vec<f32> = (0..12).flat_map(|i| if i < 6 { [1.0, 0.01 * i as f32] } else { [0.0, 1.0] }).collect();
        let labels: Vec<u32> = (0..12).map(|i| i / 6).collect();
        let features = Features::new(&rows, 2).unwrap();
        let found = Reference::measure(features, &labels, 2, Source::HeldOut).unwrap().unwrap();
        assert_eq!(found.by_shots.iter().map(|one| one.shots).collect::<Vec<_>>(), [1, 2]);
        assert!(found.at(1).own.mean > 3.0 && found.at(1).other.mean < 0.1, "{found:?}");
        assert_eq!(Reference::measure(features, &labels, 2, Source::HeldOut).unwrap().unwrap(), found);
        let few = Features::new(&rows[..8], 2).unwrap();
        assert!(Reference::measure(few, &[0, 0, 1, 1], 2, Source::HeldOut).unwrap().is_none());
        assert!(Reference::measure(few, &[0, 0, 1], 2, Source::HeldOut).is_err());
        assert!(Reference::measure(few, &[0, 0, 0, 0], 1, Source::HeldOut).is_err());
    }
}
