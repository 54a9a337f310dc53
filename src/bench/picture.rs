//! A run as one SVG picture: the roofline with every kernel that multiplies, and beside it the memory traffic of
//! every kernel over what it touches.

use std::fmt::Write as _;

use super::{KernelResult, Run};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 70.0;

/// A diagram with two logarithmic axes at a place of the picture.
struct Panel {
    left: f64,
    x: (f64, f64),
    y: (f64, f64),
}

impl Panel {
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |v: f64, (low, high): (f64, f64)| ((v / low).ln() / (high / low).ln()).clamp(0.0, 1.0);
        (self.left + WIDTH * share(x, self.x), MARGIN + HEIGHT * (1.0 - share(y, self.y)))
    }

    fn frame(&self, svg: &mut String, title: &str, x_title: &str, y_title: &str) {
        let (left, top, bottom) = (self.left, MARGIN, MARGIN + HEIGHT);
        let _ = writeln!(svg, "<rect x='{left}' y='{top}' width='{WIDTH}' height='{HEIGHT}' class='frame'/>");
        text(svg, left, top - 14.0, "title", title);
        text(svg, left + WIDTH / 2.0, bottom + 40.0, "label middle", x_title);
        text(svg, left - 56.0, top - 14.0, "label", y_title);
        for (range, across) in [(self.x, true), (self.y, false)] {
            let mut tick = 10_f64.powf(range.0.log10().ceil());
            while tick <= range.1 * 1.000_001 {
                let (x, y) = if across { self.at(tick, self.y.0) } else { self.at(self.x.0, tick) };
                let (dx, dy) = if across { (0.0, -HEIGHT) } else { (WIDTH, 0.0) };
                line(svg, "grid", (x, y), (x + dx, y + dy));
                let (dx, dy, class) = if across { (0.0, 16.0, "tick middle") } else { (-6.0, 4.0, "tick end") };
                text(svg, x + dx, y + dy, class, &short(tick));
                tick *= 10.0;
            }
        }
    }
}

/// A number of any size in few letters.
fn short(v: f64) -> String {
    match v {
        v if v >= 1e9 => format!("{}G", v / 1e9),
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e3 => format!("{}k", v / 1e3),
        v => format!("{v}"),
    }
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let _ = writeln!(svg, "<text x='{x:.1}' y='{y:.1}' class='{class}'>{}</text>", escape(words));
}

fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = writeln!(svg, "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' class='{class}'/>");
}

/// Colours of the kinds of operations, by the file they are in.
const COLOURS: [&str; 12] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#999900", "#332288", "#882255",
    "#66ccaa", "#000000",
];

/// The powers of ten around the values, five decades at most: smaller values are drawn on the edge.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let sound = values.filter(|v| v.is_finite() && *v > 0.0);
    let (low, high) = (sound.clone().fold(f64::INFINITY, f64::min), sound.fold(0.0, f64::max));
    if high <= 0.0 {
        return (1.0, 10.0);
    }
    let end = (high * 1.000_001).log10().ceil();
    (10_f64.powf(low.log10().floor().max(end - 5.0)), 10_f64.powf(end))
}

/// The picture of a run; none where it has no times.
pub fn draw(run: &Run) -> Option<String> {
    let ceilings = run.ceilings.as_ref()?;
    let timed: Vec<(&KernelResult, f64)> =
        run.kernels.iter().filter_map(|k| Some((k, k.seconds?.median))).filter(|(_, t)| *t > 0.0).collect();
    let mut kinds: Vec<&str> = timed.iter().map(|(k, _)| kind(&k.name)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let total: f64 = timed.iter().map(|(k, t)| k.count as f64 * t).sum();
    let dot = |svg: &mut String, (x, y): (f64, f64), kernel: &KernelResult, seconds: f64| {
        let colour = COLOURS[kinds.iter().position(|k| *k == kind(&kernel.name)).unwrap_or(0) % COLOURS.len()];
        // The area is the kernel's part of the step.
        let radius = 3.0 + 30.0 * (kernel.count as f64 * seconds / total).sqrt();
        let share = kernel.share.map_or(String::new(), |s| format!(", {:.0} % of its ceiling", 100.0 * s));
        let words = format!("{} {}: {:.3} ms{share}", kernel.name, kernel.shape, 1e3 * seconds);
        let _ = writeln!(
            svg,
            "<circle cx='{x:.1}' cy='{y:.1}' r='{radius:.1}' fill='{colour}' class='dot'><title>{}</title></circle>",
            escape(&words)
        );
    };
    let (width, height) = (2.0 * WIDTH + 3.0 * MARGIN, HEIGHT + 2.0 * MARGIN + 60.0);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' font-family='sans-serif'>\n\
         <style>.frame{{fill:none;stroke:#888}}.grid{{stroke:#8884;stroke-width:.5}}.roof{{stroke:#222;stroke-width:2}}\
         .cache{{stroke:#222;stroke-dasharray:5 4}}.title{{font-size:15px;font-weight:bold}}.label,.key{{font-size:12px}}\
         .tick{{font-size:11px}}.middle{{text-anchor:middle}}.end{{text-anchor:end}}.dot{{fill-opacity:.55;stroke:#222}}\
         </style>\n<rect width='100%' height='100%' fill='#fff'/>\n"
    );
    let heading = format!("{} ({}), times by {}", run.device.name, run.device.driver, run.clock);
    text(&mut svg, MARGIN, 26.0, "label", &heading);

    // The roofline.
    let peak = ceilings.flops_per_second / 1e9;
    let products: Vec<_> = timed.iter().filter(|(k, _)| k.flops > 0).copied().collect();
    let point = |(k, t): &(&KernelResult, f64)| (k.flops as f64 / k.bytes.max(1) as f64, k.flops as f64 / t / 1e9);
    let panel = Panel {
        left: MARGIN,
        x: decades(products.iter().map(|p| point(p).0).chain([0.1, 1000.0])),
        y: decades(products.iter().map(|p| point(p).1).chain([peak])),
    };
    panel.frame(&mut svg, "Products", "operations per byte", "GFLOP/s");
    for (i, memory) in ceilings.bandwidth.iter().enumerate() {
        let rate = memory.bytes_per_second / 1e9;
        let ridge = peak / rate;
        let low = panel.x.0.max(panel.y.0 / rate);
        let class = if i + 1 == ceilings.bandwidth.len() { "roof" } else { "cache" };
        line(&mut svg, class, panel.at(low, rate * low), panel.at(ridge, peak));
        if class == "roof" {
            line(&mut svg, "roof", panel.at(ridge, peak), panel.at(panel.x.1, peak));
        }
    }
    for (kernel, seconds) in &products {
        let (x, y) = point(&(*kernel, *seconds));
        dot(&mut svg, panel.at(x, y), kernel, *seconds);
    }

    // Traffic over what is touched.
    let moved = |(k, t): &(&KernelResult, f64)| (k.bytes as f64, k.bytes as f64 / t / 1e9);
    let sizes = ceilings.bandwidth.iter().map(|b| b.working_set_bytes as f64);
    let rates = ceilings.bandwidth.iter().map(|b| b.bytes_per_second / 1e9);
    let panel = Panel {
        left: 2.0 * MARGIN + WIDTH,
        x: decades(timed.iter().map(|p| moved(p).0).chain(sizes.clone())),
        y: decades(timed.iter().map(|p| moved(p).1).chain(rates.clone())),
    };
    panel.frame(&mut svg, "All kernels", "bytes touched", "GB/s");
    let mut from = panel.x.0;
    for (size, rate) in sizes.zip(rates) {
        line(&mut svg, "roof", panel.at(from, rate), panel.at(size, rate));
        from = size;
    }
    for (kernel, seconds) in &timed {
        let (x, y) = moved(&(*kernel, *seconds));
        dot(&mut svg, panel.at(x, y), kernel, *seconds);
    }
    let mut x = MARGIN;
    for (kind, colour) in kinds.iter().zip(COLOURS.iter().cycle()) {
        let y = height - 24.0;
        let _ = writeln!(svg, "<circle cx='{x:.1}' cy='{:.1}' r='5' fill='{colour}' class='dot'/>", y - 4.0);
        text(&mut svg, x + 9.0, y, "key", kind);
        x += 28.0 + 7.0 * kind.len() as f64;
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The file that an operation is in.
fn kind(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
