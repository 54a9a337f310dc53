//! Curves over the steps of a run, as SVG that says what is in it without a script.

use serde_json::{Value, json};

use super::html::{escape, number};

/// Most points of a series; more are averaged in groups.
const POINTS: usize = 400;
/// The drawing, and the box of the axes in it: left, right, top, bottom.
const SIZE: (f64, f64) = (380.0, 216.0);
const BOX: [f64; 4] = [46.0, 372.0, 10.0, 188.0];
/// Colours that the style has.
pub const COLOURS: usize = 8;

/// Values over steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Step and value, in the order of steps.
    pub points: Vec<(f64, f64)>,
    /// Half the width of an interval around every point; empty where there is none.
    pub half: Vec<f64>,
}

/// Series with the same unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// What is shown.
    pub title: String,
    /// What follows a value, as in ` %`.
    pub unit: String,
    /// The values.
    pub series: Vec<Series>,
    /// Bounds that the axis keeps to, where it has any.
    pub bounds: Option<(f64, f64)>,
}

impl Series {
    /// With at most [`POINTS`] points: means of groups of neighbours.
    fn thinned(&self) -> Series {
        let group = self.points.len().div_ceil(POINTS).max(1);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let points = self.points.chunks(group).map(|points| {
            let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
            (x.last().copied().unwrap_or(0.0), mean(&y))
        });
        Series { name: self.name.clone(), points: points.collect(), half: self.half.chunks(group).map(mean).collect() }
    }
}

/// The step of an axis from `low` to `high` with about `wanted` marks.
fn tick(low: f64, high: f64, wanted: f64) -> f64 {
    let raw = ((high - low) / wanted).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(10.0 * power)
}

/// Ends of an axis around these values, at marks.
fn ends(values: impl Iterator<Item = f64>, bounds: Option<(f64, f64)>) -> (f64, f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if high - low < 1e-9 * high.abs().max(1e-9) {
        (low, high) = (low - 0.5 * low.abs().max(1e-6), high + 0.5 * high.abs().max(1e-6));
    }
    // Close to zero it begins there.
    if low > 0.0 && low < 0.5 * high {
        low = 0.0;
    }
    let step = tick(low, high, 4.0);
    (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    if let Some((least, most)) = bounds {
        (low, high) = (low.max(least), high.min(most));
    }
    (low, high, step)
}

/// The marks from `low` to `high`.
fn marks(low: f64, high: f64, step: f64) -> impl Iterator<Item = f64> {
    let first = (low / step).ceil();
    let n = (((high / step) - first + 1e-6).floor().max(0.0) as usize).min(20);
    // A zero that rounding has made negative would be shown with its sign.
    (0..=n).map(move |i| (first + i as f64) * step).map(move |mark| if mark.abs() < 1e-9 * step { 0.0 } else { mark })
}

/// A mark for people.
fn label(value: f64) -> String {
    match value.abs() {
        1e6.. => format!("{}M", number(value / 1e6)),
        1e4.. => format!("{}k", number(value / 1e3)),
        _ => number(value),
    }
}

/// What a drawing needs besides its lines: colours on white.
const ALONE: &str = "text{font:11px system-ui,sans-serif;fill:#5b666c}.title{font-size:13px;font-weight:600}.grid{stroke:#e3e6e7}\
    .axis{stroke:#c5cacc}.cursor{visibility:hidden}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.band{stroke:none;opacity:.16}\
    .paper{fill:#fff}.s0{stroke:#0b62a4;fill:#0b62a4}.s1{stroke:#c2570c;fill:#c2570c}.s2{stroke:#17805c;fill:#17805c}\
    .s3{stroke:#8d3f8f;fill:#8d3f8f}.s4{stroke:#8a6d00;fill:#8a6d00}.s5{stroke:#3f7f93;fill:#3f7f93}.s6{stroke:#a8324a;fill:#a8324a}\
    .s7{stroke:#5f6b72;fill:#5f6b72}.line{fill:none}.key{stroke:none}.band{stroke:none}";

/// Curves as one SVG file, two side by side, under the names of their series.
pub fn drawing(curves: &[Curve]) -> String {
    let names: Vec<&str> =
        curves.first().map_or(Vec::new(), |curve| curve.series.iter().map(|s| s.name.as_str()).collect());
    let (across, row, legend) = (2.min(curves.len().max(1)), SIZE.1 + 30.0, 18.0 * names.len() as f64 + 12.0);
    let (width, height) = (SIZE.0 * across as f64, legend + row * curves.len().div_ceil(across) as f64);
    let keys: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let y = 18.0 * (i as f64 + 1.0);
            format!(
                "<rect class=\"key s{}\" x=\"12\" y=\"{:.1}\" width=\"12\" height=\"5\"/><text x=\"30\" y=\"{y:.1}\">{}</text>",
                i % COLOURS,
                y - 7.0,
                escape(name)
            )
        })
        .collect();
    let parts: String = curves
        .iter()
        .enumerate()
        .map(|(i, curve)| {
            let (x, y) = (SIZE.0 * (i % across) as f64, legend + row * (i / across) as f64);
            let (inner, _) = lines(curve);
            format!(
                "<g transform=\"translate({x:.1} {y:.1})\"><text class=\"title\" x=\"12\" y=\"14\">{}{}</text><g transform=\"translate(0 22)\">{inner}</g></g>",
                escape(&curve.title),
                escape(&if curve.unit.is_empty() { String::new() } else { format!(",{}", curve.unit) })
            )
        })
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\"><style>{ALONE}</style>\
         <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>{keys}{parts}</svg>\n"
    )
}

/// Axes and lines of a curve, with its thinned series and the ends of the axis of steps.
fn lines(curve: &Curve) -> (String, (Vec<Series>, f64, f64)) {
    let series: Vec<Series> = curve.series.iter().map(Series::thinned).collect();
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let with_bands = series.iter().flat_map(|series| {
        series.points.iter().enumerate().flat_map(|(i, &(_, y))| {
            let half = series.half.get(i).copied().unwrap_or(0.0);
            [y - half, y + half]
        })
    });
    let (y0, y1, y_step) = ends(with_bands, curve.bounds);
    let x1 = all().map(|(x, _)| x).fold(0.0, f64::max);
    let x0 = all().map(|(x, _)| x).fold(x1, f64::min);
    let x0 = if x0 <= 0.2 * x1 { 0.0 } else { x0 };
    let [left, right, top, bottom] = BOX;
    let px = |x: f64| left + (x - x0) / (x1 - x0).max(1e-9) * (right - left);
    let py = |y: f64| (bottom - (y - y0) / (y1 - y0).max(1e-12) * (bottom - top)).clamp(top, bottom);

    let mut svg = String::new();
    let mut put = |text: std::fmt::Arguments| svg.push_str(&text.to_string());
    for mark in marks(y0, y1, y_step) {
        let y = py(mark);
        put(format_args!("<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"));
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            label(mark)
        ));
    }
    for mark in marks(x0, x1, tick(x0, x1, 5.0)) {
        let text = label(mark);
        let anchor = if mark >= x1 - 0.02 * (x1 - x0) { "end" } else { "middle" };
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>",
            px(mark),
            bottom + 17.0
        ));
    }
    put(format_args!("<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"));
    // Later ones lie on top: the first, which matters most, is drawn last.
    for (i, series) in series.iter().enumerate().rev() {
        let colour = i % COLOURS;
        if !series.half.is_empty() {
            let up = series.points.iter().zip(&series.half).map(|(&(x, y), half)| (x, y + half));
            let down = series.points.iter().zip(&series.half).rev().map(|(&(x, y), half)| (x, y - half));
            let corners: String = up.chain(down).map(|(x, y)| format!("{:.1},{:.1} ", px(x), py(y))).collect();
            put(format_args!("<polygon class=\"band s{colour}\" points=\"{}\"/>", corners.trim_end()));
        }
        let points: String = series.points.iter().map(|&(x, y)| format!("{:.1},{:.1} ", px(x), py(y))).collect();
        put(format_args!("<polyline class=\"line s{colour}\" points=\"{}\"/>", points.trim_end()));
        if series.points.len() <= 12 {
            for &(x, y) in &series.points {
                put(format_args!("<circle class=\"s{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.6\"/>", px(x), py(y)));
            }
        }
    }
    put(format_args!("<line class=\"cursor\" y1=\"{top}\" y2=\"{bottom}\" x1=\"{left}\" x2=\"{left}\"/>"));
    (svg, (series, x0, x1))
}

/// The figure, with what a script needs to read values off it; `position`: of the chart on its page.
pub fn figure(curve: &Curve, position: usize) -> (String, Value) {
    let (svg, (series, x0, x1)) = lines(curve);
    let [left, right, ..] = BOX;

    let says: Vec<String> = series
        .iter()
        .filter_map(|series| {
            let (first, last) = (series.points.first()?, series.points.last()?);
            let unit = &curve.unit;
            Some(format!("{} from {}{unit} to {}{unit}", series.name, number(first.1), number(last.1)))
        })
        .collect();
    let summary = escape(&format!("{} over the steps up to {}: {}", curve.title, number(x1), says.join(", ")));
    let legend: String = match series.len() {
        0 | 1 => String::new(),
        _ => series
            .iter()
            .enumerate()
            .map(|(i, series)| {
                let last = series.points.last().map_or(String::new(), |(_, y)| format!(" {}{}", number(*y), curve.unit));
                let key = format!(
                    "<svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"s{}\" y=\"3\" width=\"10\" height=\"4\" rx=\"2\"/></svg>",
                    i % COLOURS
                );
                format!("<li>{key}{}{}</li>", escape(&series.name), escape(&last))
            })
            .collect(),
    };
    let figure = format!(
        "<figure><figcaption><span>{}</span><output class=\"read\"></output></figcaption>\
         <svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{summary}\" tabindex=\"0\" data-chart=\"{position}\">{svg}</svg>\
         <ul class=\"legend\">{legend}</ul></figure>",
        escape(&curve.title),
        SIZE.0,
        SIZE.1
    );
    let rounded = |value: f64| (value * 1e5).round() / 1e5;
    let data = json!({
        "unit": curve.unit,
        "x": [x0, x1],
        "box": [left, right],
        "series": series.iter().map(|series| json!({
            "name": series.name,
            "points": series.points.iter().map(|&(x, y)| json!([x, rounded(y)])).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    (figure, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: Vec<(f64, f64)>) -> Curve {
        let half = vec![1.0; points.len()];
        let series =
            vec![Series { name: "<b>".into(), points, half }, Series { name: "ce".into(), ..Series::default() }];
        Curve { title: "Loss & more".into(), unit: " %".into(), series, bounds: None }
    }

    #[test]
    fn a_figure_holds_whatever_it_is_given() {
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.0, 0.0), (1.0, 0.0)],
            vec![(10.0, -3.0), (20.0, 1e9), (30.0, f64::NAN)],
            (0..10_000).map(|i| (f64::from(i), f64::from(i).sin())).collect(),
        ] {
            let (figure, data) = figure(&curve(points), 0);
            assert!(figure.contains("Loss &amp; more") && figure.contains("&lt;b&gt;") && !figure.contains("<b>"));
            assert!(data["series"][0]["points"].as_array().is_some_and(|points| points.len() <= POINTS));
            assert!(figure.len() < 30_000, "{}", figure.len());
        }
    }

    #[test]
    fn marks_are_round() {
        let all = |low, high| marks(low, high, tick(low, high, 4.0)).collect::<Vec<_>>();
        assert_eq!(all(0.0, 100.0), [0.0, 50.0, 100.0]);
        assert_eq!(all(0.0, 4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ends([3.0, 3.9].into_iter(), None), (3.0, 4.0, 0.5));
        assert_eq!(ends([20.0, 99.0].into_iter(), Some((0.0, 100.0))), (0.0, 100.0, 50.0));
    }
}
