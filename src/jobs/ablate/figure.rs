//! An ablation as one SVG picture: a panel for each number of shots, in it a line for each run.

use std::fmt::Write as _;

use super::AblateRow;

const PANEL: f64 = 300.0;
const LABELS: f64 = 120.0;
const ROW: f64 = 26.0;
const TOP: f64 = 50.0;

/// The picture: accuracy in percent with its 95 % interval. Without rows it has no panel.
pub(super) fn figure(rows: &[AblateRow]) -> String {
    let shots: Vec<usize> =
        rows.first().map_or_else(Vec::new, |row| row.scores.iter().map(|score| score.shots).collect());
    let width = LABELS + shots.len() as f64 * (PANEL + 40.0) + 20.0;
    let height = TOP + rows.len() as f64 * ROW + 40.0;
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='12'>\n\
         <rect width='100%' height='100%' fill='#fff'/>\n"
    );
    let middle = |i: usize| TOP + (i as f64 + 0.5) * ROW;
    for (i, row) in rows.iter().enumerate() {
        let (x, y) = (LABELS - 10.0, middle(i) + 4.0);
        let _ = writeln!(svg, "<text x='{x}' y='{y}' text-anchor='end'>{}</text>", row.variant);
    }
    for (panel, shots) in shots.iter().enumerate() {
        let left = LABELS + panel as f64 * (PANEL + 40.0);
        let of = |row: &AblateRow| {
            let score = row.scores.iter().find(|score| score.shots == *shots)?;
            Some((score.accuracy_pct, score.interval_pct.unwrap_or(0.0)))
        };
        let found: Vec<(usize, f64, f64)> =
            rows.iter().enumerate().filter_map(|(i, row)| of(row).map(|(mean, half)| (i, mean, half))).collect();
        let low = found.iter().map(|(_, mean, half)| mean - half).fold(f64::INFINITY, f64::min);
        let high = found.iter().map(|(_, mean, half)| mean + half).fold(0.0, f64::max);
        // Whole steps of 1, 2, 5, 10 or 20 percent, at most eight of them.
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| (high - low) / step <= 6.0).unwrap_or(20.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let x = |accuracy: f64| left + PANEL * (accuracy - low) / (high - low).max(step);
        let bottom = TOP + rows.len() as f64 * ROW;
        let _ = writeln!(svg, "<text x='{left}' y='{}' font-weight='bold'>{shots}-shot accuracy, %</text>", TOP - 18.0);
        let mut tick = low;
        while tick <= high + 1e-9 {
            let at = x(tick);
            let _ = writeln!(svg, "<line x1='{at:.1}' y1='{TOP}' x2='{at:.1}' y2='{bottom}' stroke='#ddd'/>");
            let _ =
                writeln!(svg, "<text x='{at:.1}' y='{}' text-anchor='middle' fill='#555'>{tick}</text>", bottom + 16.0);
            tick += step;
        }
        for (i, mean, half) in found {
            let (y, from, to, at) = (middle(i), x(mean - half), x(mean + half), x(mean));
            let _ = writeln!(
                svg,
                "<line x1='{from:.1}' y1='{y}' x2='{to:.1}' y2='{y}' stroke='#0072b2' stroke-width='2'/>"
            );
            let _ = writeln!(svg, "<circle cx='{at:.1}' cy='{y}' r='4' fill='#0072b2'/>");
        }
    }
    svg + "</svg>\n"
}
