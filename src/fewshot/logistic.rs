//! Multinomial logistic regression, the few-shot classifier of the field.
//!
//! Minimises `C * sum_i -log softmax(W x_i + b)[y_i] + ||W||^2 / 2`, the intercept unpenalised: the
//! objective of scikit-learn's `LogisticRegression(C)` with lbfgs (`docs/method.md`, section 5). Two classes keep
//! the full two-row form. The minimum is unique up to a constant added to `b`; the mean of `b` is 0 here.
//!
//! The optimum's rows of `W` lie in the span of the support rows (any part orthogonal to them costs
//! penalty and changes no logit). With fewer rows than features the fit therefore runs in an orthonormal
//! basis of that span: the same problem with 5 or 25 unknowns per class instead of 640.

use std::cell::Cell;

use argmin::core::{ArgminError, CostFunction, Error as ArgminFailure, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

use super::features::{Features, arg_max, check_labels};
use crate::{Error, Result};

/// The inverse penalty of the field's evaluation: scikit-learn's default.
pub const DEFAULT_C: f64 = 1.0;

/// The fit ends at this Euclidean norm of the gradient.
const GRADIENT_TARGET: f64 = 1e-8;
/// Where rounding keeps a search above the target, this much, times the loss' scale, is still a fit: the
/// objective is 1-strongly convex in W, so W is then that close to the optimum.
const GRADIENT_ACCEPTED: f64 = 1e-6;
/// How much of the gradient one stage leaves, see [`solve`].
const STAGE: f64 = 1e-4;
/// Stages before the fit is called a failure; 3 is usual.
const STAGES: usize = 12;
/// Iterations of one stage; 5 to 30 are usual.
const ITERATIONS: u64 = 1000;
/// Evaluations of one stage: ends a line search that stalls on rounding.
const EVALUATIONS: u32 = 3000;
/// Correction pairs that L-BFGS keeps.
const HISTORY: usize = 10;

/// A fitted multinomial logistic regression.
#[derive(Clone, Debug)]
pub struct LogisticRegression {
    weights: Vec<f64>,
    bias: Vec<f64>,
    dim: usize,
    gradient_norm: f64,
}

impl LogisticRegression {
    /// Fits `support` `[rows, dim]` with `labels` `[rows]` in `0..ways`, inverse penalty `c` > 0.
    ///
    /// # Errors
    /// [`Error::Shape`] when labels and rows do not fit together, [`Error::Argument`] when `c` is not positive,
    /// [`Error::NonFinite`] when a feature is not finite or the fit does not converge.
    pub fn fit(support: Features, labels: &[u32], ways: usize, c: f64) -> Result<Self> {
        Self::fit_in(support, labels, ways, c, support.rows() < support.dim())
    }

    /// The fit, in the basis of the support rows or in the features themselves.
    fn fit_in(support: Features, labels: &[u32], ways: usize, c: f64, use_span: bool) -> Result<Self> {
        support.check("logistic_regression", "support")?;
        check_labels("logistic_regression", labels, support.rows(), ways)?;
        let dim = support.dim();
        if !(c > 0.0 && c.is_finite()) {
            return Err(Error::Argument {
                what: "C of the logistic regression",
                got: c.to_string(),
                wanted: "a positive number such as 1".into(),
            });
        }
        let rows: Vec<f64> = support.data().iter().map(|&x| f64::from(x)).collect();
        if !use_span {
            let (weights, bias, gradient_norm) = solve(&rows, dim, labels, ways, c)?;
            return Ok(LogisticRegression { weights, bias, dim, gradient_norm });
        }
        let basis = span(&rows, dim);
        let rank = basis.len();
        let coordinates: Vec<f64> = rows.chunks_exact(dim).flat_map(|row| basis.iter().map(|q| dot(q, row))).collect();
        let (small, bias, gradient_norm) = solve(&coordinates, rank, labels, ways, c)?;
        let mut weights = vec![0.0; ways * dim];
        for (class, row) in weights.chunks_exact_mut(dim).enumerate() {
            for (direction, q) in basis.iter().enumerate() {
                add_scaled(row, small[class * rank + direction], q);
            }
        }
        Ok(LogisticRegression { weights, bias, dim, gradient_norm })
    }

    /// Weights, `[ways, dim]`, row-major.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Intercepts, `[ways]`, with mean 0.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// Features per row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Euclidean norm of the objective's gradient at the solution.
    pub fn gradient_norm(&self) -> f64 {
        self.gradient_norm
    }

    /// Logits `W x + b`, `[rows, ways]`, of `query` `[rows, dim]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the rows have another length than those of the support, [`Error::NonFinite`] when a
    /// feature is not finite.
    pub fn decision(&self, query: Features) -> Result<Vec<f64>> {
        query.check("logistic_regression", "query")?;
        query.check_dim("logistic_regression", self.dim)?;
        let mut logits = Vec::with_capacity(query.rows() * self.bias.len());
        let mut row = vec![0.0; self.dim];
        for query_row in query.iter() {
            row.iter_mut().zip(query_row).for_each(|(to, &from)| *to = f64::from(from));
            for (weight, bias) in self.weights.chunks_exact(self.dim).zip(&self.bias) {
                logits.push(dot(weight, &row) + bias);
            }
        }
        Ok(logits)
    }

    /// Class of every row of `query` `[rows, dim]`: the largest logit, the first of equals.
    ///
    /// # Errors
    /// As [`LogisticRegression::decision`].
    pub fn predict(&self, query: Features) -> Result<Vec<u32>> {
        Ok(self.decision(query)?.chunks_exact(self.bias.len()).map(arg_max).collect())
    }
}

/// Orthonormal rows that span the rows of `data` `[rows, dim]`: Gram-Schmidt, each row twice so that the
/// result is orthogonal to rounding; rows already in the span (copies, zeros) add nothing.
fn span(data: &[f64], dim: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for row in data.chunks_exact(dim) {
        let norm = dot(row, row).sqrt();
        let mut rest = row.to_vec();
        for _ in 0..2 {
            for q in &basis {
                let along = dot(q, &rest);
                add_scaled(&mut rest, -along, q);
            }
        }
        let left = dot(&rest, &rest).sqrt();
        if left > 1e-12 * norm {
            rest.iter_mut().for_each(|x| *x /= left);
            basis.push(rest);
        }
    }
    basis
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add_scaled(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}

/// The objective over `[ways * dim]` weights followed by `[ways]` intercepts.
struct Objective<'a> {
    rows: &'a [f64],
    dim: usize,
    labels: &'a [u32],
    ways: usize,
    c: f64,
}

impl Objective<'_> {
    /// Logits `[rows, ways]`; linear in `param`, so a change of it gives the change of the logits.
    fn logits(&self, param: &[f64]) -> Vec<f64> {
        let (weights, bias) = param.split_at(self.ways * self.dim);
        let classes = || (0..self.ways).map(|k| (&weights[k * self.dim..(k + 1) * self.dim], bias[k]));
        (0..self.labels.len())
            .flat_map(|i| {
                let row = &self.rows[i * self.dim..(i + 1) * self.dim];
                classes().map(move |(weight, bias)| dot(weight, row) + bias)
            })
            .collect()
    }

    /// Class probabilities `[rows, ways]` at `param`.
    fn probabilities(&self, param: &[f64]) -> Vec<f64> {
        let mut p = self.logits(param);
        for row in p.chunks_exact_mut(self.ways) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|x| *x = (*x - top).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
        p
    }

    fn gradient_at(&self, param: &[f64]) -> Vec<f64> {
        let mut gradient = param.to_vec();
        let (d_weights, d_bias) = gradient.split_at_mut(self.ways * self.dim);
        d_bias.fill(0.0);
        for (i, p) in self.probabilities(param).chunks_exact(self.ways).enumerate() {
            let row = &self.rows[i * self.dim..(i + 1) * self.dim];
            for (class, p) in p.iter().enumerate() {
                let slope = self.c * (p - f64::from(u8::from(class == self.labels[i] as usize)));
                add_scaled(&mut d_weights[class * self.dim..(class + 1) * self.dim], slope, row);
                d_bias[class] += slope;
            }
        }
        gradient
    }
}

/// One stage of the search: the loss as its difference from the loss at the stage's start.
///
/// A line search compares losses. Near the optimum they agree to all digits of an f64 while the gradient
/// is still 1e-7. Their difference is computed from the change of the logits, each term as small as that
/// change, and keeps its digits.
struct Stage<'a> {
    objective: &'a Objective<'a>,
    start: &'a [f64],
    /// Class probabilities `[rows, ways]` at the start.
    start_p: Vec<f64>,
    evaluations: Cell<u32>,
}

impl<'a> Stage<'a> {
    fn new(objective: &'a Objective<'a>, start: &'a [f64]) -> Self {
        Stage { objective, start, start_p: objective.probabilities(start), evaluations: Cell::new(0) }
    }

    fn loss_change(&self, param: &[f64]) -> f64 {
        let Objective { dim, labels, ways, c, .. } = *self.objective;
        let change: Vec<f64> = param.iter().zip(self.start).map(|(x, x0)| x - x0).collect();
        // (|W|^2 - |W0|^2) / 2 = (W - W0) . (W + W0) / 2
        let weights = change.iter().zip(param.iter().zip(self.start)).take(ways * dim);
        let penalty: f64 = weights.map(|(d, (x, x0))| 0.5 * d * (x + x0)).sum();
        let moved = self.objective.logits(&change);
        let terms = moved.chunks_exact(ways).zip(self.start_p.chunks_exact(ways)).zip(labels);
        let entropy: f64 = terms
            .map(|((moved, p), &label)| {
                let (low, high) =
                    moved.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
                let pairs = p.iter().zip(moved);
                // log sum p exp(moved), either way; the second form neither overflows nor loses small moves.
                let log_sum = if low < -1.0 || high > 1.0 {
                    pairs.map(|(p, x)| p * (x - high).exp()).sum::<f64>().ln() + high
                } else {
                    pairs.map(|(p, x)| p * x.exp_m1()).sum::<f64>().ln_1p()
                };
                log_sum - moved[label as usize]
            })
            .sum();
        penalty + c * entropy
    }

    /// Refuses a search that does not end, and a point that is not finite.
    fn count(&self, param: &[f64]) -> std::result::Result<(), ArgminFailure> {
        self.evaluations.set(self.evaluations.get() + 1);
        let refuse = |text: &str| Err(ArgminError::ConditionViolated { text: text.to_owned() }.into());
        if self.evaluations.get() > EVALUATIONS {
            return refuse("too many evaluations");
        }
        if param.iter().any(|x| !x.is_finite()) {
            return refuse("the search left the numbers");
        }
        Ok(())
    }
}

impl CostFunction for &Stage<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, param: &Vec<f64>) -> std::result::Result<f64, ArgminFailure> {
        self.count(param)?;
        Ok(self.loss_change(param))
    }
}

impl Gradient for &Stage<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, param: &Vec<f64>) -> std::result::Result<Vec<f64>, ArgminFailure> {
        self.count(param)?;
        Ok(self.objective.gradient_at(param))
    }
}

/// Weights `[ways, dim]`, intercepts `[ways]` of mean 0 and the gradient norm at the minimum.
///
/// L-BFGS in stages: each starts at the best point so far, measures the loss from there and ends when the
/// gradient has shrunk by [`STAGE`]. A stage that stalls on rounding is no failure, the next one sees finer.
fn solve(rows: &[f64], dim: usize, labels: &[u32], ways: usize, c: f64) -> Result<(Vec<f64>, Vec<f64>, f64)> {
    let objective = Objective { rows, dim, labels, ways, c };
    let mut param = vec![0.0; ways * dim + ways];
    let gradient_norm = |param: &[f64]| {
        let gradient = objective.gradient_at(param);
        dot(&gradient, &gradient).sqrt()
    };
    let mut norm = gradient_norm(&param);
    for _ in 0..STAGES {
        if norm <= GRADIENT_TARGET {
            break;
        }
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), HISTORY)
            .with_tolerance_grad((norm * STAGE).max(GRADIENT_TARGET))
            .and_then(|solver| solver.with_tolerance_cost(0.0))
            .map_err(|e| Error::Internal(e.to_string()))?;
        let stage = Stage::new(&objective, &param);
        let result = Executor::new(&stage, solver)
            .configure(|state| state.param(param.clone()).max_iters(ITERATIONS))
            .ctrlc(false)
            .timer(false)
            .run();
        // The point of lowest loss: the last one may be the worse end of a failed line search.
        let best = result.ok().and_then(|mut result| result.state.take_best_param());
        let Some(best) = best else { break };
        param = best;
        norm = gradient_norm(&param);
    }
    // The gradient is a sum over rows weighted by C: rounding in it grows with both.
    let scale = (c * labels.len() as f64 / 100.0).max(1.0);
    let converged = norm <= GRADIENT_ACCEPTED * scale;
    if !converged {
        return Err(Error::NonFinite(format!(
            "the logistic regression over {} rows of {ways} classes did not converge, its gradient's norm stays at \
             {norm:.1e}; L2-normalise the features",
            labels.len()
        )));
    }
    let mut bias = param.split_off(ways * dim);
    let mean = bias.iter().sum::<f64>() / ways as f64;
    bias.iter_mut().for_each(|b| *b -= mean);
    Ok((param, bias, norm))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::features::l2_normalise;
    use super::*;
    use crate::random::{Rng, Stream};

    /// `ways * shots` class-major rows around one random centre per class, L2-normalised.
    fn clusters(seed: u64, ways: usize, shots: usize, dim: usize, noise: f32) -> (Vec<f32>, Vec<u32>) {
        let mut rng = Rng::new(seed, Stream::Episodes, 0, 0);
        let mut draw = || (0..4).map(|_| rng.unit()).sum::<f32>() - 2.0;
        let mut data = Vec::new();
        for _ in 0..ways {
            let centre: Vec<f32> = (0..dim).map(|_| draw()).collect();
            for _ in 0..shots {
                data.extend(centre.iter().map(|c| c + noise * draw()));
            }
        }
        l2_normalise(&mut data, dim);
        (data, (0..ways * shots).map(|i| (i / shots) as u32).collect())
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (data, labels) = clusters(1, 3, 4, 6, 1.0);
        let rows: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
        let objective = Objective { rows: &rows, dim: 6, labels: &labels, ways: 3, c: 2.5 };
        // Small and large moves from the start take different forms of the loss.
        for size in [0.01, 10.0] {
            let start: Vec<f64> = (0..21).map(|i| (f64::from(i) * 1.3).cos()).collect();
            let stage = Stage::new(&objective, &start);
            let mut param: Vec<f64> = (0..21).map(|i| start[i] + size * (i as f64 * 0.7).sin()).collect();
            let gradient = objective.gradient_at(&param);
            for i in 0..21 {
                let h = 1e-5;
                param[i] += h;
                let up = stage.loss_change(&param);
                param[i] -= 2.0 * h;
                let down = stage.loss_change(&param);
                param[i] += h;
                let slope = (up - down) / (2.0 * h);
                assert!((slope - gradient[i]).abs() <= 1e-7, "{size} {i}: {slope} {}", gradient[i]);
            }
            // The plain form of the loss agrees.
            let plain = |param: &[f64]| {
                let p = objective.probabilities(param);
                let entropy: f64 = labels.iter().enumerate().map(|(i, &y)| -p[i * 3 + y as usize].ln()).sum();
                0.5 * dot(&param[..18], &param[..18]) + 2.5 * entropy
            };
            let want = plain(&param) - plain(&start);
            assert!((stage.loss_change(&param) - want).abs() <= 1e-10 * want.abs().max(1.0));
        }
    }

    #[test]
    fn the_span_gives_the_full_solution() {
        for (ways, shots, dim) in [(5, 1, 64), (5, 5, 64), (2, 3, 16), (20, 1, 128)] {
            let (mut data, labels) = clusters(7, ways, shots, dim, 1.6);
            // A copied row: the basis has to drop it.
            if shots > 1 {
                data.copy_within(0..dim, dim);
            }
            // One that is nearly a copy: the basis has to keep it.
            if shots > 2 {
                data.copy_within(0..dim, 2 * dim);
                data[2 * dim] += 1e-3;
            }
            let support = Features::new(&data, dim).unwrap();
            let small = LogisticRegression::fit_in(support, &labels, ways, 1.0, true).unwrap();
            let full = LogisticRegression::fit_in(support, &labels, ways, 1.0, false).unwrap();
            for (a, b) in small.weights.iter().zip(&full.weights).chain(small.bias.iter().zip(&full.bias)) {
                assert!((a - b).abs() <= 1e-7, "{ways} {shots} {dim}: {a} {b}");
            }
        }
    }

    #[test]
    fn every_random_episode_converges() {
        let mut worst = 0.0_f64;
        for seed in 0..60 {
            for (ways, shots, dim) in [(5, 1, 128), (5, 5, 128), (2, 1, 8), (3, 30, 4), (20, 1, 64), (5, 25, 32)] {
                for c in [0.01, 1.0, 100.0] {
                    for noise in [0.0, 0.1, 2.0] {
                        let (data, labels) = clusters(seed, ways, shots, dim, noise);
                        let support = Features::new(&data, dim).unwrap();
                        let fit = LogisticRegression::fit(support, &labels, ways, c).unwrap();
                        worst = worst.max(fit.gradient_norm);
                        assert!(fit.bias.iter().sum::<f64>().abs() <= 1e-9);
                    }
                }
            }
        }
        // Every one reaches the target; the wider acceptance is for features that are not normalised.
        assert!(worst <= GRADIENT_TARGET, "{worst}");
    }

    #[test]
    fn features_of_any_scale_converge_or_say_why() {
        for scale in [1e-6_f32, 1e-2, 10.0, 100.0] {
            let (mut data, labels) = clusters(3, 5, 5, 64, 1.0);
            data.iter_mut().for_each(|x| *x *= scale);
            let support = Features::new(&data, 64).unwrap();
            let fit = LogisticRegression::fit(support, &labels, 5, 1.0).unwrap();
            assert!(fit.predict(support).unwrap() == labels, "{scale}");
        }
        // Zero rows carry no information: every class is equally likely.
        let zeros = vec![0.0; 10 * 4];
        let labels: Vec<u32> = (0..10).map(|i| i / 5).collect();
        let fit = LogisticRegression::fit(Features::new(&zeros, 4).unwrap(), &labels, 2, 1.0).unwrap();
        assert!(fit.bias.iter().all(|b| b.abs() <= 1e-9));
    }

    #[test]
    fn bad_input_is_refused_with_a_sentence() {
        let data = [1.0, 0.0, 0.0, 1.0];
        let support = Features::new(&data, 2).unwrap();
        let say = |r: Result<LogisticRegression>| r.unwrap_err().to_string();
        assert!(say(LogisticRegression::fit(support, &[0, 2], 2, 1.0)).contains("label"));
        assert!(say(LogisticRegression::fit(support, &[0, 0], 2, 1.0)).contains("class 1"));
        assert!(say(LogisticRegression::fit(support, &[0], 2, 1.0)).contains("1 labels"));
        assert!(say(LogisticRegression::fit(support, &[0, 1], 2, 0.0)).contains("positive"));
        assert!(say(LogisticRegression::fit(support, &[0, 1], 2, f64::NAN)).contains("positive"));
        let broken = [1.0, f32::NAN, 0.0, 1.0];
        let broken = Features::new(&broken, 2).unwrap();
        assert!(say(LogisticRegression::fit(broken, &[0, 1], 2, 1.0)).contains("not finite"));
        let fit = LogisticRegression::fit(support, &[0, 1], 2, 1.0).unwrap();
        let wide = Features::new(&data, 4).unwrap();
        assert!(fit.predict(wide).unwrap_err().to_string().contains("4 features"));
    }
}
