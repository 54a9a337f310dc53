//! Phases: settings that lie over those of `[method]` from a share of the run on.

use toml::Table;

use super::layers::put;
use super::table::{Config, MethodConfig, setting};
use super::{Method, Terms};
use crate::error::Change;
use crate::{Error, Result};

/// The settings of `[method]` that a phase may change. The others shape what outlives a step: the network, the bank, and
/// what has been written to it.
pub const PHASE_KEYS: [&str; 14] = [
    "scale",
    "views",
    "view_share",
    "weight_class",
    "weight_equivariance",
    "weight_invariance",
    "gamma",
    "tau",
    "negatives",
    "bank_momentum",
    "label_smoothing",
    "cross_entropy",
    "equivariance",
    "invariance",
];

/// Those of [`PHASE_KEYS`] that have an effect on `method.kind = baseline`, which has one loss and one view.
const BASELINE_KEYS: [&str; 2] = ["scale", "label_smoothing"];

/// The settings that a phase of this method may change, and a phase that would do, for a sentence about one that does not.
fn of_kind(kind: Method) -> (&'static [&'static str], &'static str) {
    match kind {
        Method::Ier => (&PHASE_KEYS, "0.5: views = 1, weight_invariance = 0.1"),
        Method::Baseline => (&BASELINE_KEYS, "0.5: scale = 1"),
    }
}

impl Config {
    /// The phases of the run: the share of it at which each begins, the first at 0, and the settings in effect then.
    /// Each lies over the one before. A phase's batch is the largest whose rows are no more than those of the first; its
    /// settings have no phases.
    ///
    /// # Errors
    /// [`Error::Setting`] for a phase that cannot be understood or used.
    pub fn phases(&self) -> Result<Vec<(f64, Config)>> {
        let mut first = self.clone();
        first.method.phases.clear();
        let mut phases = vec![(0.0, first)];
        let (_, example) = of_kind(self.method.kind);
        for text in &self.method.phases {
            let wrong = |wanted: String| Error::Setting {
                key: "method.phases",
                got: format!("`{text}`"),
                wanted,
                suggestion: vec![Change::Set("method.phases", example.into())],
            };
            let Some((before, so_far)) = phases.last() else { break };
            let (share, layer) = parsed(text, self.method.kind).map_err(wrong)?;
            if share <= *before {
                return Err(wrong(format!("later than the one before it, which begins at {before}")));
            }
            let mut config = so_far.clone();
            let usable = config.lay(&layer).and_then(|()| {
                let rows = self.method.rows_of(self.optimiser.batch);
                config.optimiser.batch = largest_batch(&config.method, rows);
                config.check_method()
            });
            usable.map_err(|error| wrong(format!("usable: {error}")))?;
            phases.push((share, config));
        }
        Ok(phases)
    }

    /// The loss terms of all phases together: what the network needs heads for.
    pub fn terms_of_all_phases(&self) -> Terms {
        let all = self.phases().unwrap_or_default();
        let terms = all.iter().map(|(_, config)| config.method.terms());
        terms.fold(self.method.terms(), |a, b| Terms {
            cross_entropy: a.cross_entropy || b.cross_entropy,
            equivariance: a.equivariance || b.equivariance,
            invariance: a.invariance || b.invariance,
        })
    }

    pub(super) fn check_phases(&self) -> Result<()> {
        if self.method.phases.is_empty() {
            return Ok(());
        }
        let phases = self.phases()?;
        let Some(images) = self.run.micro_batch else { return Ok(()) };
        let batches: Vec<usize> = phases.iter().map(|(_, config)| config.optimiser.batch).collect();
        if batches.iter().all(|batch| batch.is_multiple_of(images)) {
            return Ok(());
        }
        // Batch norm needs two rows.
        let suits = |n: usize| {
            phases.iter().all(|(_, phase)| phase.optimiser.batch.is_multiple_of(n) && phase.method.rows_of(n) > 1)
        };
        let common = (1..=images).rev().find(|&n| suits(n));
        let list = batches.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        Err(Error::Conflict {
            keys: vec!["run.micro_batch", "method.phases"],
            why: format!("run.micro_batch must divide the batch of each phase ({list}), got {images}"),
            changes: vec![match common {
                Some(common) => Change::Set("run.micro_batch", common.to_string()),
                None => Change::Unset("run.micro_batch"),
            }],
        })
    }
}

/// The most images that make no more than this many rows.
fn largest_batch(method: &MethodConfig, rows: usize) -> usize {
    (1..=rows).rev().find(|&images| method.rows_of(images) <= rows).unwrap_or(1)
}

/// The share and the layer of `SHARE: key = value, key = value`; the error says what is wanted.
fn parsed(text: &str, kind: Method) -> std::result::Result<(f64, Table), String> {
    let (keys, example) = of_kind(kind);
    let form = || format!("of the form SHARE: key = value, key = value (as in `{example}`)");
    let (share, rest) = text.split_once(':').ok_or_else(form)?;
    let share: f64 = share.trim().parse().map_err(|_| form())?;
    if !(share > 0.0 && share < 1.0) {
        return Err("one whose share of the run is above 0 and below 1".into());
    }
    let mut layer = Table::new();
    for entry in rest.split(',') {
        let (name, word) = entry.split_once('=').ok_or_else(form)?;
        let (name, word) = (name.trim(), word.trim());
        let key = format!("method.{}", name.strip_prefix("method.").unwrap_or(name));
        let row = setting(&key).filter(|row| keys.contains(&row.key.trim_start_matches("method.")));
        let (row, flag) = row.and_then(|row| Some((row, row.flags.first()?))).ok_or_else(|| {
            let of = match kind {
                Method::Baseline if PHASE_KEYS.contains(&name) => {
                    " of method.kind = baseline, which has one loss and one view"
                }
                _ => "",
            };
            format!("about settings that may change during a run{of} ({}), not {name}", keys.join(", "))
        })?;
        let value = row.reader(flag)(word)
            .map_err(|wanted| format!("one with a value for {name}, where {wanted}, not {word}"))?;
        put(&mut layer, row.key, value);
    }
    Ok((share, layer))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::settings::TransformSet;

    fn with(phases: &[&str]) -> Config {
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { transforms: TransformSet::Crop4, ..MethodConfig::default() };
        config.method.phases = phases.iter().map(|text| (*text).to_owned()).collect();
        config
    }

    #[test]
    fn a_phase_lies_over_the_one_before_and_keeps_the_rows() {
        let config = with(&["0.25: views=2, view_share = 0.5", "0.5: invariance=false, gamma=0.5", "0.75: views = 1"]);
        config.validate().unwrap();
        let phases = config.phases().unwrap();
        let shares: Vec<f64> = phases.iter().map(|(share, _)| *share).collect();
        assert_eq!(shares, [0.0, 0.25, 0.5, 0.75]);
        // 16 images under 4 transforms are 64 rows.
        let batches: Vec<usize> = phases.iter().map(|(_, config)| config.optimiser.batch).collect();
        assert_eq!(batches, [16, 42, 42, 64]);
        for (_, phase) in &phases {
            assert!(phase.rows() <= config.rows() && phase.method.phases.is_empty());
        }
        let last = &phases[3].1.method;
        assert_eq!((last.gamma, last.views, last.view_share, last.invariance), (0.5, Some(1), 0.5, false));
        assert!(!last.terms().equivariance && config.terms_of_all_phases() == config.method.terms());
        let later = with(&["0.5: invariance = true"]);
        let base = Config { method: MethodConfig { invariance: false, ..later.method.clone() }, ..later };
        assert!(!base.method.terms().invariance && base.terms_of_all_phases().invariance);
    }

    #[test]
    fn what_cannot_be_a_phase_gets_a_sentence() {
        for (phases, needle) in [
            (&["half: views=1"][..], "SHARE: key = value"),
            (&["0.5 views=1"], "SHARE: key = value"),
            (&["0.5: views"], "SHARE: key = value"),
            (&["0.5:"], "SHARE: key = value"),
            (&["0: views=1"], "above 0 and below 1"),
            (&["1: views=1"], "above 0 and below 1"),
            (&["nan: views=1"], "above 0 and below 1"),
            (&["0.5: views=1", "0.5: views=2"], "begins at 0.5"),
            (&["0.5: kind=baseline"], "not kind"),
            (&["0.5: transforms=rot4"], "not transforms"),
            (&["0.5: joint_labels=true"], "not joint_labels"),
            (&["0.5: bank_recent=9"], "not bank_recent"),
            (&["0.5: phases=9"], "not phases"),
            (&["0.5: views=two"], "a value for views"),
            (&["0.5: tau=0"], "method.tau must be"),
            (&["0.5: views=5"], "method.views must be"),
            (&["0.5: views=1, weight_class=0, invariance=false"], "every loss term is off"),
        ] {
            let text = with(phases).validate().unwrap_err().to_string();
            assert!(text.contains("method.phases") && text.contains(needle), "{phases:?}: {text}");
        }
        let mut config = with(&["0.5: views=2"]);
        config.run.batch_norm = crate::settings::BatchStatistics::Micro;
        config.run.micro_batch = Some(16);
        config.validate().unwrap();
        config.method.phases = vec!["0.5: views=3".into()];
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains("each phase (16, 21), got 16") && text.contains("run.micro_batch = 1"), "{text}");
    }

    #[test]
    fn the_baseline_may_change_what_it_has() {
        let mut config = with(&["0.5: scale = 1, label_smoothing = 0.1"]);
        (config.method.kind, config.method.scale) = (Method::Baseline, 0.625);
        config.validate().unwrap();
        let phases = config.phases().unwrap();
        let all: Vec<_> = phases.iter().map(|(_, phase)| (phase.method.scale, phase.optimiser.batch)).collect();
        assert_eq!(all, [(0.625, 16), (1.0, 16)]);
        for (phase, needle) in [
            (
                "0.5: views = 1",
                "method.kind = baseline, which has one loss and one view (scale, label_smoothing), not views",
            ),
            ("0.5: transforms = rot4", "during a run (scale, label_smoothing), not transforms"),
            ("0.5: scale = 0", "method.scale must be above 0 and at most 1"),
            ("0.5: scale = 0.5", "method.phases must be one whose scale shows the network at least 16 pixels a side"),
        ] {
            config.method.phases = vec![phase.into()];
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(needle) && text.contains("0.5: scale = 1"), "{phase}: {text}");
        }
    }
}
