//! What accuracy a run may be expected to reach: the range of the runs that were kept (`assets/accuracy.csv`).

use serde::Serialize;

use crate::settings::{Config, Method};

/// Runs that were made: data set, gray or colour, recipe, rows through the network, and 5-way accuracies on novel classes
/// by logistic regression, percent.
const RUNS: &str = include_str!("../../assets/accuracy.csv");

/// A run of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptRun {
    /// Its data set.
    pub data: String,
    /// `gray` or `colour`.
    pub kind: String,
    /// `auto`, `ce` (cross-entropy with the schedule of auto) or `paper`.
    pub recipe: String,
    /// Rows.
    pub rows: u64,
    /// 1-shot accuracy, percent.
    pub one_shot: f64,
    /// 5-shot accuracy, percent.
    pub five_shot: f64,
}

/// A range of accuracies, and how far to trust it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Expected {
    /// 5-way 1-shot, lowest and highest, percent.
    pub one_shot: (f64, f64),
    /// 5-way 5-shot.
    pub five_shot: (f64, f64),
    /// The runs it is the range of.
    pub runs: Vec<KeptRun>,
    /// How far to trust it.
    pub trust: String,
}

fn kept_runs(text: &str) -> impl Iterator<Item = KeptRun> + '_ {
    text.lines().skip(1).filter_map(|line| {
        let mut cells = line.split(',').map(str::trim);
        Some(KeptRun {
            data: cells.next()?.to_owned(),
            kind: cells.next()?.to_owned(),
            recipe: cells.next()?.to_owned(),
            rows: cells.next()?.parse().ok()?,
            one_shot: cells.next()?.parse().ok()?,
            five_shot: cells.next()?.parse().ok()?,
        })
    })
}

/// What runs of as many rows have reached on pictures of the kind; none where there was no run of the recipe.
pub(super) fn expected(config: &Config, gray: bool, rows: u64) -> Option<Expected> {
    let kind = if gray { "gray" } else { "colour" };
    // Losses count, not what chose them: on colour pictures the recipe auto is cross-entropy alone.
    let alone = |run: &KeptRun| run.recipe == "ce" || run.recipe == "auto" && run.kind == "colour";
    let of_losses = |run: &KeptRun| match (config.method.kind, config.method.joint_labels) {
        (Method::Baseline, _) => alone(run),
        (Method::Ier, true) => run.recipe == "auto" && !alone(run),
        (Method::Ier, false) => run.recipe == "paper",
    };
    let of_recipe: Vec<KeptRun> = kept_runs(RUNS).filter(of_losses).collect();
    let same_kind = of_recipe.iter().any(|run| run.kind == kind);
    let of_kind: Vec<KeptRun> = of_recipe.into_iter().filter(|run| !same_kind || run.kind == kind).collect();
    let factor = |run: &KeptRun| (run.rows.max(1) as f64 / rows.max(1) as f64).ln().abs();
    // Those of about as many rows, else those of the nearest number.
    let nearest = of_kind.iter().map(factor).fold(f64::INFINITY, f64::min);
    let within = nearest.max(2.1_f64.ln());
    let runs: Vec<KeptRun> = of_kind.into_iter().filter(|run| factor(run) <= within).collect();
    let range = |of: fn(&KeptRun) -> f64| {
        runs.iter().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    if runs.is_empty() {
        return None;
    }
    let mut sets: Vec<&str> = runs.iter().map(|run| run.data.as_str()).collect();
    sets.sort_unstable();
    sets.dedup();
    let (n, of) = (runs.len(), sets.join(", "));
    let alike = if same_kind { format!("{kind} pictures") } else { "other pictures than these".into() };
    let far = match nearest > 2.1_f64.ln() {
        true => " None had about as many rows: more rows than theirs give more than this, fewer less.",
        false => "",
    };
    let s = if n == 1 { "" } else { "s" };
    let trust = format!(
        "the range of {n} kept run{s} on {alike} ({of}). How far apart the classes are decides more than the recipe: trust \
         it as an order of magnitude, and the score at the end.{far}"
    );
    Some(Expected { one_shot: range(|run| run.one_shot), five_shot: range(|run| run.five_shot), runs, trust })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_run() {
        assert_eq!(kept_runs(RUNS).count(), RUNS.lines().count() - 1);
        for run in kept_runs(RUNS) {
            assert!(run.one_shot < run.five_shot && run.five_shot <= 100.0 && run.one_shot > 20.0, "{run:?}");
            assert!(["gray", "colour"].contains(&run.kind.as_str()), "{run:?}");
            assert!(["auto", "ce", "paper"].contains(&run.recipe.as_str()) && run.rows > 0, "{run:?}");
        }
    }

    #[test]
    fn the_range_is_of_runs_alike() {
        let mut config = Config::default();
        config.method.kind = Method::Baseline;
        let colour = expected(&config, false, 50_000).unwrap();
        assert!(colour.runs.iter().all(|run| run.kind == "colour" && ["auto", "ce"].contains(&run.recipe.as_str())));
        assert!(colour.one_shot.0 < colour.one_shot.1 && !colour.trust.contains("None had"), "{colour:?}");
        let far = expected(&config, false, 1_000_000_000).unwrap();
        assert!(!far.runs.is_empty() && far.trust.contains("None had"), "{far:?}");
        config.method.kind = Method::Ier;
        config.method.joint_labels = true;
        let strokes = expected(&config, true, 100_000).unwrap();
        assert!(strokes.one_shot.0 > 90.0 && strokes.runs.iter().all(|run| run.recipe == "auto"), "{strokes:?}");
        config.method.joint_labels = false;
        assert!(expected(&config, true, 100_000).unwrap().runs.iter().all(|run| run.recipe == "paper"));
    }
}
