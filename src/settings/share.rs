//! A run divided among a teacher and its students.

use super::choices::{DecayAt, Length};
use super::table::Config;
use crate::error::Change;
use crate::{Error, Result};

impl Config {
    /// The settings of a teacher that has `distill.teacher_share` of the length, and of each of its students, which share
    /// the rest. Both note the whole length, so that they can be divided again ([`Config::undivided`]). Where the rate
    /// falls at some steps or epochs, it falls at the same shares of each part.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is no share, or too little length to divide.
    pub fn divided(&self) -> Result<(Config, Config)> {
        let share = self.distill.teacher_share;
        let Some(share) = Some(share).filter(|share| *share > 0.0 && *share < 1.0) else {
            return Err(Error::usage(
                "there is no teacher: `request.teacher` names one, or distill.teacher_share trains one with this share of \
                 the steps (try 0.4)",
            ));
        };
        let (whole, form) = match self.optimiser.length {
            Length::Steps(n) => (n, Length::Steps as fn(u32) -> Length),
            Length::Epochs(n) => (n, Length::Epochs as fn(u32) -> Length),
        };
        let students = self.distill.generations.max(1);
        let teacher = ((share * f64::from(whole)).round() as u32).max(1);
        let student = whole.saturating_sub(teacher) / students;
        if student == 0 {
            return Err(Error::Conflict {
                keys: vec!["distill.teacher_share", "optimiser.length"],
                why: format!(
                    "optimiser.length of {whole} cannot be divided into a share of {share} for the teacher and the rest \
                     for {students} students: take more, counted in steps"
                ),
                changes: vec![Change::Lower("distill.teacher_share")],
            });
        }
        let part = |length: u32| {
            let mut part = self.clone();
            part.optimiser.length = form(length);
            part.optimiser.decay_at = self.decay_shares(whole);
            part.distill.whole = Some(self.optimiser.length);
            part
        };
        Ok((part(teacher), part(student)))
    }

    /// The settings that were [`divided`](Config::divided), from those of a part; others as they are.
    pub fn undivided(mut self) -> Config {
        if let Some(whole) = self.distill.whole.take() {
            self.optimiser.length = whole;
        }
        self
    }

    /// When the rate falls, as shares of a run of `whole` steps or epochs where it is said in these.
    fn decay_shares(&self, whole: u32) -> DecayAt {
        let at = match (&self.optimiser.decay_at, self.optimiser.length) {
            (DecayAt::Steps(at), Length::Steps(_)) | (DecayAt::Epochs(at), Length::Epochs(_)) => at,
            (other, _) => return other.clone(),
        };
        DecayAt::Fractions(at.iter().filter(|at| **at < whole).map(|at| f64::from(*at) / f64::from(whole)).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_divided_and_put_together_again() {
        let mut config = Config::from_preset("omniglot").unwrap();
        assert!(config.divided().unwrap_err().to_string().contains("distill.teacher_share"));
        (config.distill.teacher_share, config.optimiser.length) = (0.4, Length::Steps(1600));
        let (teacher, student) = config.divided().unwrap();
        assert_eq!((teacher.optimiser.length, student.optimiser.length), (Length::Steps(640), Length::Steps(960)));
        assert_eq!(teacher.optimiser.decay_at, DecayAt::Fractions(vec![0.6, 0.8]));
        let again = student.clone().undivided();
        assert_eq!(again.optimiser.length, Length::Steps(1600));
        assert_eq!(again.divided().unwrap(), (teacher, student));
        config.distill.generations = 2;
        assert_eq!(config.divided().unwrap().1.optimiser.length, Length::Steps(480));
        config.optimiser.length = Length::Epochs(2);
        assert!(config.divided().unwrap_err().to_string().contains("in steps"));
    }
}
