//! Multinomial logistic regression, the few-shot classifier of the field.
//!
//! Minimises `C * sum_i -log softmax(W x_i + b)[y_i] + ||W||^2 / 2`, the intercept unpenalised: the
//! objective of scikit-learn's `LogisticRegression(C)` with lbfgs (METHOD section 5). Two classes keep
//! the full two-row form. The minimum is unique up to a constant added to `b`; the mean of `b` is 0 here.
//!
//! The optimum's rows of `W` lie in the span of the support rows (any part orthogonal to them costs
//! penalty and changes no logit). With fewer rows than features the fit therefore runs in an orthonormal
//! basis of that span: the same problem with 5 or 25 unknowns a class in place of 640.

use std::cell::Cell;

use argmin::core::{ArgminError, CostFunction, Error as ArgminFailure, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

use super::classifier::{Features, check_labels};
use crate::{Error, Result};

/// The inverse penalty of the field's evaluation: scikit-learn's default.
pub const DEFAULT_C: f64 = 1.0;

/// L-BFGS stops at this Euclidean norm of the gradient.
const GRADIENT_TARGET: f64 = 1e-8;
/// A line search compares losses, and near the optimum their differences drown in rounding (relative
/// 1e-16 of the loss). It may stop above the target then; this much, times the loss' scale, is still a
/// fit: the objective is 1-strongly convex in W, so W is then that close to the optimum.
const GRADIENT_ACCEPTED: f64 = 1e-6;
/// Fresh starts from the best point, with an empty history, before the fit is called a failure.
const RESTARTS: usize = 5;
/// Iterations of one start; a fit takes 10 to 40.
const ITERATIONS: u64 = 1000;
/// Evaluations of one fit: bounds a line search that would never end.
const EVALUATIONS: u32 = 100_000;
/// Correction pairs that L-BFGS keeps.
const HISTORY: usize = 10;

/// A fitted multinomial logistic regression.
#[derive(Clone, Debug)]
pub struct LogisticRegression {
    /// Weights, `[ways, dim]`, row-major.
    pub weights: Vec<f64>,
    /// Intercepts, `[ways]`, mean 0.
    pub bias: Vec<f64>,
    /// Features per row.
    pub dim: usize,
    /// Euclidean norm of the objective's gradient at the solution.
    pub gradient_norm: f64,
}

impl LogisticRegression {
    /// Fits `support` `[rows, dim]` with `labels` `[rows]` in `0..ways`, inverse penalty `c` > 0.
    pub fn fit(support: Features, labels: &[u32], ways: usize, c: f64) -> Result<Self> {
        Self::fit_in(support, labels, ways, c, support.rows < support.dim)
    }

    /// The fit, in the basis of the support rows or in the features themselves.
    fn fit_in(support: Features, labels: &[u32], ways: usize, c: f64, use_span: bool) -> Result<Self> {
        support.check("logistic_regression", "support")?;
        check_labels("logistic_regression", labels, support.rows, ways)?;
        if !(c > 0.0 && c.is_finite()) {
            return Err(Error::usage(format!(
                "the logistic regression's C is {c}, it must be a positive number such as 1"
            )));
        }
        let rows: Vec<f64> = support.data.iter().map(|&x| f64::from(x)).collect();
        if !use_span {
            let (weights, bias, gradient_norm) = solve(&rows, support.dim, labels, ways, c)?;
            return Ok(LogisticRegression { weights, bias, dim: support.dim, gradient_norm });
        }
        let basis = span(&rows, support.dim);
        let rank = basis.len();
        let coordinates: Vec<f64> =
            rows.chunks_exact(support.dim).flat_map(|row| basis.iter().map(|q| dot(q, row))).collect();
        let (small, bias, gradient_norm) = solve(&coordinates, rank, labels, ways, c)?;
        let mut weights = vec![0.0; ways * support.dim];
        for (class, row) in weights.chunks_exact_mut(support.dim).enumerate() {
            for (direction, q) in basis.iter().enumerate() {
                add_scaled(row, small[class * rank + direction], q);
            }
        }
        Ok(LogisticRegression { weights, bias, dim: support.dim, gradient_norm })
    }

    /// Logits `W x + b`, `[rows, ways]`, of `query` `[rows, dim]`.
    pub fn decision(&self, query: Features) -> Result<Vec<f64>> {
        query.check("logistic_regression", "query")?;
        if query.dim != self.dim {
            return Err(Error::shape(
                "logistic_regression",
                format!(
                    "the query has {} features a row, the support had {}; embed both with one network",
                    query.dim, self.dim
                ),
            ));
        }
        let mut logits = Vec::with_capacity(query.rows * self.bias.len());
        let mut row = vec![0.0; self.dim];
        for query_row in query.data.chunks_exact(query.dim) {
            row.iter_mut().zip(query_row).for_each(|(to, &from)| *to = f64::from(from));
            for (weight, bias) in self.weights.chunks_exact(self.dim).zip(&self.bias) {
                logits.push(dot(weight, &row) + bias);
            }
        }
        Ok(logits)
    }

    /// Class of every row of `query` `[rows, dim]`: the largest logit, the first of equals.
    pub fn predict(&self, query: Features) -> Result<Vec<u32>> {
        Ok(self.decision(query)?.chunks_exact(self.bias.len()).map(super::classifier::arg_max).collect())
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
    evaluations: Cell<u32>,
}

impl Objective<'_> {
    /// The loss at `param`, its gradient written to `gradient`.
    fn evaluate(&self, param: &[f64], gradient: &mut [f64]) -> f64 {
        let (weights, bias) = param.split_at(self.ways * self.dim);
        let (d_weights, d_bias) = gradient.split_at_mut(self.ways * self.dim);
        d_weights.copy_from_slice(weights);
        d_bias.fill(0.0);
        let mut loss = 0.5 * dot(weights, weights);
        let mut p = vec![0.0; self.ways];
        for (i, &label) in self.labels.iter().enumerate() {
            let row = &self.rows[i * self.dim..(i + 1) * self.dim];
            for (class, logit) in p.iter_mut().enumerate() {
                *logit = dot(&weights[class * self.dim..(class + 1) * self.dim], row) + bias[class];
            }
            let at_label = p[label as usize];
            let top = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            p.iter_mut().for_each(|x| *x = (*x - top).exp());
            let sum: f64 = p.iter().sum();
            loss += self.c * (sum.ln() + top - at_label);
            for (class, x) in p.iter().enumerate() {
                let slope = self.c * (x / sum - f64::from(u8::from(class == label as usize)));
                add_scaled(&mut d_weights[class * self.dim..(class + 1) * self.dim], slope, row);
                d_bias[class] += slope;
            }
        }
        loss
    }

    /// As [`Self::evaluate`]; refuses a loss that is not finite and a search that does not end.
    fn guarded(&self, param: &[f64]) -> std::result::Result<(f64, Vec<f64>), ArgminFailure> {
        let refuse = |text: &str| ArgminError::ConditionViolated { text: text.to_owned() };
        self.evaluations.set(self.evaluations.get() + 1);
        if self.evaluations.get() > EVALUATIONS {
            return Err(refuse("too many evaluations").into());
        }
        let mut gradient = vec![0.0; param.len()];
        let loss = self.evaluate(param, &mut gradient);
        if loss.is_finite() { Ok((loss, gradient)) } else { Err(refuse("the loss is not finite").into()) }
    }
}

impl CostFunction for &Objective<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, param: &Vec<f64>) -> std::result::Result<f64, ArgminFailure> {
        Ok(self.guarded(param)?.0)
    }
}

impl Gradient for &Objective<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, param: &Vec<f64>) -> std::result::Result<Vec<f64>, ArgminFailure> {
        Ok(self.guarded(param)?.1)
    }
}

/// Weights `[ways, dim]`, intercepts `[ways]` of mean 0 and the gradient norm at the minimum.
fn solve(rows: &[f64], dim: usize, labels: &[u32], ways: usize, c: f64) -> Result<(Vec<f64>, Vec<f64>, f64)> {
    let objective = Objective { rows, dim, labels, ways, c, evaluations: Cell::new(0) };
    let failed = |why: String| {
        Error::NonFinite(format!(
            "the logistic regression over {} rows of {ways} classes did not converge: {why}; L2-normalise the features",
            labels.len()
        ))
    };
    let mut param = vec![0.0; ways * dim + ways];
    let mut gradient = vec![0.0; param.len()];
    // The gradient is a sum over rows weighted by C: rounding in it grows with both.
    let scale = (c * labels.len() as f64 / 100.0).max(1.0);
    let mut norm = f64::NAN;
    for _ in 0..=RESTARTS {
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), HISTORY)
            .with_tolerance_grad(GRADIENT_TARGET)
            .and_then(|s| s.with_tolerance_cost(0.0))
            .map_err(|e| Error::Internal(e.to_string()))?;
        let result = Executor::new(&objective, solver)
            .configure(|state| state.param(param.clone()).max_iters(ITERATIONS))
            .ctrlc(false)
            .timer(false)
            .run();
        match result {
            Ok(result) => {
                // A failed line search leaves no current point, and the last step may be a worse one.
                if let Some(best) = result.state().get_best_param() {
                    param.clone_from(best);
                }
            }
            Err(error) => return Err(failed(error.to_string())),
        }
        objective.evaluate(&param, &mut gradient);
        norm = dot(&gradient, &gradient).sqrt();
        if norm <= GRADIENT_TARGET * scale {
            break;
        }
    }
    if !(norm <= GRADIENT_ACCEPTED * scale) {
        return Err(failed(format!("the gradient's norm stays at {norm:.1e}")));
    }
    let mut bias = param.split_off(ways * dim);
    let mean = bias.iter().sum::<f64>() / ways as f64;
    bias.iter_mut().for_each(|b| *b -= mean);
    Ok((param, bias, norm))
}

#[cfg(test)]
mod tests {
    use super::super::classifier::l2_normalise;
    use super::*;
    use crate::random::{Rng, Stream};

    /// `ways * shots` class-major rows around one random centre a class, L2-normalised.
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
        let objective =
            Objective { rows: &rows, dim: 6, labels: &labels, ways: 3, c: 2.5, evaluations: Cell::new(0) };
        let mut param: Vec<f64> = (0..21).map(|i| (f64::from(i) * 0.7).sin()).collect();
        let (mut gradient, mut scratch) = (vec![0.0; 21], vec![0.0; 21]);
        objective.evaluate(&param, &mut gradient);
        for i in 0..21 {
            let h = 1e-5;
            param[i] += h;
            let up = objective.evaluate(&param, &mut scratch);
            param[i] -= 2.0 * h;
            let down = objective.evaluate(&param, &mut scratch);
            param[i] += h;
            let slope = (up - down) / (2.0 * h);
            assert!((slope - gradient[i]).abs() <= 1e-8, "{i}: {slope} {}", gradient[i]);
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
            let support = Features { rows: ways * shots, dim, data: &data };
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
                        let support = Features { rows: ways * shots, dim, data: &data };
                        let fit = LogisticRegression::fit(support, &labels, ways, c).unwrap();
                        worst = worst.max(fit.gradient_norm);
                        assert!(fit.bias.iter().sum::<f64>().abs() <= 1e-9);
                    }
                }
            }
        }
        assert!(worst <= 1e-6, "{worst}");
    }

    #[test]
    fn features_of_any_scale_converge_or_say_why() {
        for scale in [1e-6_f32, 1e-2, 10.0, 100.0] {
            let (mut data, labels) = clusters(3, 5, 5, 64, 1.0);
            data.iter_mut().for_each(|x| *x *= scale);
            let support = Features { rows: 25, dim: 64, data: &data };
            let fit = LogisticRegression::fit(support, &labels, 5, 1.0).unwrap();
            assert!(fit.predict(support).unwrap() == labels, "{scale}");
        }
        // Zero rows carry no information: every class is equally likely.
        let zeros = vec![0.0; 10 * 4];
        let labels: Vec<u32> = (0..10).map(|i| i / 5).collect();
        let fit =
            LogisticRegression::fit(Features { rows: 10, dim: 4, data: &zeros }, &labels, 2, 1.0).unwrap();
        assert!(fit.bias.iter().all(|b| b.abs() <= 1e-9));
    }

    #[test]
    fn bad_input_is_refused_with_a_sentence() {
        let data = [1.0, 0.0, 0.0, 1.0];
        let support = Features { rows: 2, dim: 2, data: &data };
        let say = |r: Result<LogisticRegression>| r.unwrap_err().to_string();
        assert!(say(LogisticRegression::fit(support, &[0, 2], 2, 1.0)).contains("label"));
        assert!(say(LogisticRegression::fit(support, &[0, 0], 2, 1.0)).contains("class 1"));
        assert!(say(LogisticRegression::fit(support, &[0], 2, 1.0)).contains("1 labels"));
        assert!(say(LogisticRegression::fit(support, &[0, 1], 2, 0.0)).contains("positive"));
        assert!(say(LogisticRegression::fit(support, &[0, 1], 2, f64::NAN)).contains("positive"));
        let broken = [1.0, f32::NAN, 0.0, 1.0];
        let broken = Features { rows: 2, dim: 2, data: &broken };
        assert!(say(LogisticRegression::fit(broken, &[0, 1], 2, 1.0)).contains("not finite"));
        let fit = LogisticRegression::fit(support, &[0, 1], 2, 1.0).unwrap();
        let wide = Features { rows: 1, dim: 4, data: &data };
        assert!(fit.predict(wide).unwrap_err().to_string().contains("4 features"));
    }
}
