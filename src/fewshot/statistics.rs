//! Mean and 95 % interval over episodes.

use std::fmt;

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{Error, Result};

/// A mean with its 95 % confidence interval (`docs/method.md`, section 5): the 0.975 quantile of Student's t at
/// n - 1 degrees of freedom, times s / sqrt(n) with s the sample standard deviation (divisor n - 1).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct MeanInterval {
    /// Arithmetic mean, in the unit of the values.
    pub mean: f64,
    /// Half the width of the interval, in the unit of the values; `None` for a single value, whose
    /// spread is unknown.
    pub half_width: Option<f64>,
    /// Number of values.
    pub n: usize,
}

impl MeanInterval {
    /// The interval of `values`: at least one, all finite.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are none, [`Error::NonFinite`] when one is not finite.
    pub fn of(values: &[f64]) -> Result<Self> {
        let n = values.len();
        if n == 0 {
            return Err(Error::Argument {
                what: "the values of a mean",
                got: "no episodes".into(),
                wanted: "those of at least one episode".into(),
            });
        }
        if let Some(i) = values.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite(format!("the score of episode {i} is not finite")));
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Ok(MeanInterval { mean, half_width: None, n });
        }
        let freedom = (n - 1) as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / freedom;
        let t = StudentsT::new(0.0, 1.0, freedom).map_err(|e| Error::Internal(e.to_string()))?.inverse_cdf(0.975);
        Ok(MeanInterval { mean, half_width: Some(t * (variance / n as f64).sqrt()), n })
    }
}

/// Values that are accuracies in 0..1 print in percent: `91.23 +- 0.61 % (600 episodes)`.
impl fmt::Display for MeanInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.half_width {
            Some(half) => write!(f, "{:.2} +- {:.2} % ({} episodes)", 100.0 * self.mean, 100.0 * half, self.n),
            None => write!(f, "{:.2} % (1 episode)", 100.0 * self.mean),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// t quantiles from printed tables: 12.7062 (1), 2.7764 (4), 2.2622 (9), 1.9639 (599).
    #[test]
    fn the_quantile_is_that_of_the_tables() {
        for (n, t) in [(2, 12.7062), (5, 2.7764), (10, 2.2622), (600, 1.9639)] {
            // Alternating 0 and 1 around an exact mean, s known in closed form.
            let values: Vec<f64> = (0..n).map(|i| f64::from(i % 2)).collect();
            let mean = f64::from(n / 2) / f64::from(n);
            let s = (f64::from(n) * mean * (1.0 - mean) / f64::from(n - 1)).sqrt();
            let got = MeanInterval::of(&values).unwrap();
            let want = t * s / f64::from(n).sqrt();
            assert!((got.half_width.unwrap() - want).abs() <= 5e-5 * want, "{n}: {got:?} {want}");
            assert!((got.mean - mean).abs() <= 1e-15);
        }
    }

    #[test]
    fn the_edges_are_handled() {
        let one = MeanInterval::of(&[0.5]).unwrap();
        assert_eq!((one.mean, one.half_width, one.n), (0.5, None, 1));
        assert_eq!(one.to_string(), "50.00 % (1 episode)");
        assert_eq!(MeanInterval::of(&[0.25; 3]).unwrap().half_width, Some(0.0));
        assert_eq!(MeanInterval::of(&[0.25; 3]).unwrap().to_string(), "25.00 +- 0.00 % (3 episodes)");
        assert!(MeanInterval::of(&[]).is_err());
        assert!(MeanInterval::of(&[0.0, f64::NAN]).is_err());
    }
}
