//! From a few labelled pictures to answers about others: a class with probabilities, or "none of these".
//! `docs/method.md`, section 9, has the formulas and what they reach.
//!
//! ```
//! use ieq_wgpu::fewshot::{Features, reference::Reference, support::Support};
//!
//! let features = [1.0, 0.0, 0.1, 1.0];
//! let support = Support::new(Features::new(&features, 2)?, &[0, 1], 2, &Reference::typical(true))?;
//! let answer = support.answer(&[0.9, 0.1], None, Some(0.05))?;
//! assert_eq!(answer.class, Some(0));
//! assert!(answer.probabilities[0] > 0.99);
//! # Ok::<(), ieq_wgpu::Error>(())
//! ```

use statrs::function::erf::erf;

use super::features::{Features, l2_normalise};
use super::reference::{Reference, Spread, cosine, fisher, temperature};
use crate::{Error, Result};

/// What the reference counts beside the leave-one-out rows of the support: as if it were so many of them.
const PRIOR_ROWS: f64 = 20.0;
/// How far the temperature of the support may lie from that of the reference.
const TEMPERATURE_RANGE: f64 = 4.0;
/// A row lies no farther from the middle one than this, in deviations: a copy of another picture, or a wrong label,
/// decides nothing.
const MOST_DEVIATIONS: f64 = 3.0;

/// A support: its classes, and what was learned from it about probabilities and strangers.
#[derive(Clone, Debug)]
pub struct Support {
    dim: usize,
    rows: Vec<f32>,
    labels: Vec<usize>,
    /// Sums of the unit rows of each class, and their numbers.
    sums: Vec<Vec<f64>>,
    counts: Vec<usize>,
    temperature: f64,
    /// For each class: similarities of its own pictures, and of others, to its mean.
    own: Vec<Spread>,
    other: Vec<Spread>,
    left_out_once: usize,
}

/// What a support says about a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The class; none where the picture is like no class.
    pub class: Option<usize>,
    /// The class whose mean is nearest; none where every class has lost its only picture.
    pub nearest: Option<usize>,
    /// Cosine with that mean.
    pub similarity: f64,
    /// For each class, given that the picture is of one of them.
    pub probabilities: Vec<f64>,
}

/// The share of a normal distribution below `z` deviations.
fn below(z: f64) -> f64 {
    0.5 * (1.0 + erf(z / std::f64::consts::SQRT_2))
}

impl Support {
    /// Learns from `features` `[rows, dim]` with `labels` `[rows]` in `0..classes`; every class has a row.
    ///
    /// # Errors
    /// [`Error::Shape`] when labels and rows do not fit together; [`Error::NonFinite`] when a feature is not finite;
    /// [`Error::Argument`] for a row of zeros, which is like nothing.
    pub fn new(features: Features, labels: &[u32], classes: usize, reference: &Reference) -> Result<Support> {
        features.check("support", "support")?;
        let (dim, n) = (features.dim(), features.rows());
        let mut counts = vec![0; classes];
        for &label in labels {
            match counts.get_mut(label as usize) {
                Some(count) => *count += 1,
                None => return Err(Error::shape("support", format!("label {label} is not below {classes} classes"))),
            }
        }
        if labels.len() != n {
            return Err(Error::shape("support", format!("{} labels for {n} rows; give one per row", labels.len())));
        }
        if let Some(class) = counts.iter().position(|&count| count == 0) {
            return Err(Error::shape("support", format!("class {class} of {classes} has no row; give it one")));
        }
        let mut rows = features.data().to_vec();
        l2_normalise(&mut rows, dim);
        let mut sums = vec![vec![0.0; dim]; classes];
        for ((i, row), &label) in rows.chunks_exact(dim).enumerate().zip(labels) {
            if row.iter().all(|&x| x == 0.0) {
                return Err(no_direction(&format!("support row {i}")));
            }
            sums[label as usize].iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        let at: Vec<_> = counts.iter().map(|&count| reference.at(count)).collect();
        let mean_shots = (n as f64 / classes as f64).round() as usize;
        let mut support = Support {
            dim,
            rows,
            labels: labels.iter().map(|&label| label as usize).collect(),
            sums,
            own: at.iter().map(|at| at.own).collect(),
            other: at.iter().map(|at| at.other).collect(),
            temperature: reference.at(mean_shots).temperature,
            counts,
            left_out_once: 0,
        };
        support.learn(reference, mean_shots);
        Ok(support)
    }

    /// Adapts temperature and spreads to what leaving out one row at a time shows.
    fn learn(&mut self, reference: &Reference, mean_shots: usize) {
        let ways = self.counts.len();
        let (mut own, mut similarities, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &class) in self.labels.iter().enumerate().filter(|(_, class)| self.counts[**class] > 1) {
            let found = self.similarities(self.row(row), Some(row));
            own.push(reference.at(self.counts[class] - 1).own.standard(fisher(found[class])));
            similarities.extend(found);
            truth.push(class);
        }
        self.left_out_once = own.len();
        if let Some(shift) = Shift::of(own) {
            self.own.iter_mut().for_each(|spread| *spread = shift.apply(*spread));
        }
        if ways > 1 && !truth.is_empty() {
            let (left, all) = (reference.at(mean_shots.saturating_sub(1)).temperature, self.temperature);
            let found = temperature(&similarities, &truth, ways, (left / TEMPERATURE_RANGE, left * TEMPERATURE_RANGE));
            let n = truth.len() as f64;
            self.temperature = all * ((found / left).ln() * n / (n + PRIOR_ROWS)).exp();
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.counts.len()
    }

    /// The temperature of the probabilities: softmax of the cosines divided by it.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Rows of classes with two or more, which were left out one at a time.
    pub fn left_out_once(&self) -> usize {
        self.left_out_once
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.rows[row * self.dim..(row + 1) * self.dim]
    }

    /// Cosines of a unit row with the mean of each class, without support row `without`; minus infinity where that leaves
    /// a class nothing.
    fn similarities(&self, unit: &[f32], without: Option<usize>) -> Vec<f64> {
        let of = |class: usize| {
            let sum = &self.sums[class];
            match without.filter(|&row| self.labels[row] == class) {
                Some(_) if self.counts[class] == 1 => f64::NEG_INFINITY,
                Some(row) => {
                    let rest: Vec<f64> = sum.iter().zip(self.row(row)).map(|(sum, &x)| sum - f64::from(x)).collect();
                    cosine(&rest, unit) / length(&rest)
                }
                None => cosine(sum, unit) / length(sum),
            }
        };
        (0..self.classes()).map(of).collect()
    }

    /// The cosine below which a picture that is nearest to `class` counts as none of these, so that it happens to a share
    /// `rate` of the pictures of known classes.
    pub fn threshold(&self, class: usize, rate: f64) -> f64 {
        let (own, other) = (self.own[class], self.other[class]);
        let others = self.classes() as i32 - 1;
        let alarms = |z: f64| below(own.standard(z)) * below(other.standard(z)).powi(others);
        let (mut low, mut high) = (-8.0, 8.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            match alarms(middle) > rate {
                true => high = middle,
                false => low = middle,
            }
        }
        low.tanh()
    }

    /// The answer on `features` `[dim]` of a picture. It is not its own support where it is the support's row `own`. With
    /// `unknown`, the share of the pictures of known classes for which that may be wrong, it may be none of these.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has another length, [`Error::NonFinite`] when it is not finite, [`Error::Argument`] when
    /// it is all zeros.
    pub fn answer(&self, features: &[f32], own: Option<usize>, unknown: Option<f64>) -> Result<Answer> {
        let query = Features::new(features, features.len())?;
        query.check("support", "query")?;
        query.check_dim("support", self.dim)?;
        let mut unit = features.to_vec();
        l2_normalise(&mut unit, self.dim);
        if unit.iter().all(|&x| x == 0.0) {
            return Err(no_direction("the picture's row"));
        }
        let similarities = self.similarities(&unit, own.filter(|&row| row < self.labels.len()));
        let mut nearest = None;
        for (class, &similarity) in similarities.iter().enumerate() {
            if similarity > nearest.map_or(f64::NEG_INFINITY, |nearest: usize| similarities[nearest]) {
                nearest = Some(class);
            }
        }
        let Some(best) = nearest else {
            return Ok(Answer { class: None, nearest, similarity: 0.0, probabilities: vec![0.0; self.classes()] });
        };
        let most = similarities[best];
        let weights: Vec<f64> = similarities.iter().map(|s| ((s - most) / self.temperature).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let is_known = unknown.is_none_or(|rate| most >= self.threshold(best, rate));
        Ok(Answer {
            class: nearest.filter(|_| is_known),
            nearest,
            similarity: most,
            probabilities: weights.into_iter().map(|weight| weight / sum).collect(),
        })
    }
}

fn length(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE)
}

fn no_direction(what: &str) -> Error {
    Error::Argument {
        what: "every row of a support and its queries",
        got: format!("zeros alone in {what}"),
        wanted: "of a length above 0: leave that picture out".into(),
    }
}

/// How the values of a support lie beside those of the reference, which count for [`PRIOR_ROWS`] rows.
struct Shift {
    mean: f64,
    deviation: f64,
}

impl Shift {
    /// Of values in deviations of the reference; none where there are none.
    fn of(mut values: Vec<f64>) -> Option<Shift> {
        values.sort_by(f64::total_cmp);
        let middle = *values.get(values.len() / 2)?;
        let n = values.len() as f64;
        values.iter_mut().for_each(|z| *z = z.clamp(middle - MOST_DEVIATIONS, middle + MOST_DEVIATIONS));
        let mean = values.iter().sum::<f64>() / (n + PRIOR_ROWS);
        let variance = (values.iter().map(|z| (z - mean).powi(2)).sum::<f64>() + PRIOR_ROWS) / (n + PRIOR_ROWS);
        Some(Shift { mean, deviation: variance.sqrt() })
    }

    fn apply(&self, spread: Spread) -> Spread {
        Spread { mean: spread.mean + spread.deviation * self.mean, deviation: spread.deviation * self.deviation }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::fewshot::Classifier;
    use crate::random::{Rng, Stream};
    use rand::seq::index::sample;

    /// A world of classes: rows around their centres, which lie around a common one.
    struct World {
        rows: Vec<Vec<f32>>,
        each: usize,
    }

    const DIM: usize = 32;

    impl World {
        fn new(seed: u64, classes: usize, each: usize, noise: f32) -> World {
            let mut rng = Rng::new(seed, Stream::Episodes, 0, 0);
            let mut normal = || (0..DIM).map(|_| (0..6).map(|_| rng.unit() - 0.5).sum::<f32>()).collect::<Vec<_>>();
            let common = normal();
            let mut rows = Vec::new();
            for _ in 0..classes {
                let centre = normal();
                for _ in 0..each {
                    let own = normal();
                    rows.push((0..DIM).map(|i| 0.7 * common[i] + centre[i] + noise * own[i]).collect());
                }
            }
            World { rows, each }
        }

        fn reference(&self, source: super::super::reference::Source) -> Reference {
            let labels: Vec<u32> = (0..self.rows.len()).map(|i| (i / self.each) as u32).collect();
            let all = self.rows.concat();
            let features = Features::new(&all, DIM).unwrap();
            Reference::measure(features, &labels, self.rows.len() / self.each, source).unwrap().unwrap()
        }
    }

    /// Share of right answers, mean probability of the answer, false alarms, and strangers that pass.
    fn measure(world: &World, reference: &Reference, ways: usize, shots: usize, rate: f64) -> [f64; 4] {
        let classes = world.rows.len() / world.each;
        let (mut right, mut sure, mut alarms, mut passed, mut n, mut strangers) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
        for episode in 0..60 {
            let mut rng = Rng::new(5, Stream::Episodes, episode, 1);
            let drawn = sample(&mut rng, classes, 2 * ways).into_vec();
            let rows = |class: usize| &world.rows[class * world.each..(class + 1) * world.each];
            let support: Vec<f32> = drawn[..ways].iter().flat_map(|&class| rows(class)[..shots].concat()).collect();
            let labels: Vec<u32> = (0..ways * shots).map(|i| (i / shots) as u32).collect();
            let support = Support::new(Features::new(&support, DIM).unwrap(), &labels, ways, reference).unwrap();
            for (of, &class) in drawn.iter().enumerate() {
                for row in &rows(class)[shots..] {
                    let answer = support.answer(row, None, Some(rate)).unwrap();
                    let nearest = answer.nearest.unwrap();
                    if of < ways {
                        n += 1.0;
                        right += f64::from(u8::from(nearest == of));
                        sure += answer.probabilities[nearest];
                        alarms += f64::from(u8::from(answer.class.is_none()));
                    } else {
                        strangers += 1.0;
                        passed += f64::from(u8::from(answer.class.is_some()));
                    }
                    assert!((answer.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                }
            }
        }
        [right / n, sure / n, alarms / n, passed / strangers]
    }

    #[test]
    fn probabilities_and_false_alarms_are_what_they_say() {
        use super::super::reference::Source;
        let reference = World::new(1, 40, 20, 0.9).reference(Source::HeldOut);
        let world = World::new(2, 60, 20, 0.9);
        for (ways, shots) in [(2, 1), (5, 1), (5, 2), (5, 5), (20, 1), (20, 5)] {
            for rate in [0.05, 0.2] {
                let [right, sure, alarms, passed] = measure(&world, &reference, ways, shots, rate);
                let what = format!("{ways} {shots} {rate}: {right} {sure} {alarms} {passed}");
                assert!((right - sure).abs() < 0.05, "{what}");
                assert!(alarms > 0.3 * rate && alarms < 1.8 * rate, "{what}");
                assert!(passed < 0.9, "{what}");
            }
        }
        // A network whose own classes are much closer: the support itself says that these are not.
        let other = World::new(1, 40, 20, 0.6).reference(Source::HeldOut);
        let [_, _, wrong, _] = measure(&world, &other, 5, 1, 0.05);
        let [_, _, better, _] = measure(&world, &other, 5, 10, 0.05);
        assert!(better < 0.6 * wrong, "{wrong} {better}");
    }

    #[test]
    fn the_nearest_mean_is_that_of_the_classifier() {
        let world = World::new(3, 5, 9, 1.2);
        let support: Vec<f32> = (0..5).flat_map(|class| world.rows[class * 9..class * 9 + 4].concat()).collect();
        let query: Vec<f32> = (0..5).flat_map(|class| world.rows[class * 9 + 4..class * 9 + 9].concat()).collect();
        let (mut unit, mut query_unit) = (support.clone(), query.clone());
        l2_normalise(&mut unit, DIM);
        l2_normalise(&mut query_unit, DIM);
        let labels: Vec<u32> = (0..20).map(|i| i / 4).collect();
        let features = |data| Features::new(data, DIM).unwrap();
        let wanted = Classifier::Cosine.predict(features(&unit), &labels, 5, features(&query_unit)).unwrap();
        let answers = Support::new(features(&support), &labels, 5, &Reference::typical(true)).unwrap();
        for (row, wanted) in query.chunks(DIM).zip(wanted) {
            assert_eq!(answers.answer(row, None, None).unwrap().class, Some(wanted as usize));
        }
        assert_eq!((answers.left_out_once(), answers.classes()), (20, 5));
    }

    #[test]
    fn a_picture_is_not_its_own_support() {
        let rows = [1.0, 0.0, 0.0, 1.0, 0.1, 1.0];
        let support = Support::new(Features::new(&rows, 2).unwrap(), &[0, 1, 1], 2, &Reference::typical(true)).unwrap();
        let itself = support.answer(&rows[..2], None, None).unwrap();
        assert_eq!((itself.class, itself.similarity), (Some(0), 1.0));
        // Its class has no other picture.
        let alone = support.answer(&rows[..2], Some(0), None).unwrap();
        assert_eq!((alone.class, alone.probabilities[0]), (Some(1), 0.0));
        let other = support.answer(&rows[2..4], Some(1), None).unwrap();
        assert!(other.class == Some(1) && other.similarity < 1.0, "{other:?}");
        let one = Support::new(Features::new(&rows[..2], 2).unwrap(), &[0], 1, &Reference::typical(true)).unwrap();
        let none = one.answer(&rows[..2], Some(0), Some(0.05)).unwrap();
        assert_eq!((none.class, none.nearest), (None, None));
        assert_eq!(one.answer(&[0.0, 1.0], None, Some(0.05)).unwrap().class, None);
        assert_eq!(one.answer(&[1.0, 0.1], None, Some(0.05)).unwrap().class, Some(0));
        assert_eq!(one.answer(&[0.0, 1.0], None, None).unwrap().class, Some(0));
    }

    #[test]
    fn a_rarer_alarm_is_a_lower_border() {
        let rows = [1.0, 0.0, 0.0, 1.0];
        let support = Support::new(Features::new(&rows, 2).unwrap(), &[0, 1], 2, &Reference::typical(true)).unwrap();
        let rates = [0.001, 0.01, 0.05, 0.2, 0.5];
        let borders = rates.map(|rate| support.threshold(0, rate));
        assert!(borders.windows(2).all(|pair| pair[0] < pair[1]), "{borders:?}");
    }

    #[test]
    fn bad_input_is_refused_with_a_sentence() {
        let rows = [1.0, 0.0, 0.0, 1.0];
        let typical = Reference::typical(true);
        let say = |rows: &[f32], labels: &[u32], classes| {
            Support::new(Features::new(rows, 2).unwrap(), labels, classes, &typical).unwrap_err().to_string()
        };
        assert!(say(&rows, &[0, 2], 2).contains("label 2"));
        assert!(say(&rows, &[0, 0], 2).contains("class 1"));
        assert!(say(&rows, &[0], 1).contains("1 labels"));
        assert!(say(&[1.0, f32::NAN], &[0], 1).contains("not finite"));
        assert!(say(&[1.0, 0.0, 0.0, 0.0], &[0, 0], 1).contains("support row 1"));
        let support = Support::new(Features::new(&rows, 2).unwrap(), &[0, 1], 2, &typical).unwrap();
        let say = |row: &[f32]| support.answer(row, None, None).unwrap_err().to_string();
        assert!(say(&[]).contains("no whole number"));
        assert!(say(&[1.0]).contains("1 features"));
        assert!(say(&[f32::INFINITY, 0.0]).contains("not finite"));
        assert!(say(&[0.0, 0.0]).contains("above 0"));
    }
}
