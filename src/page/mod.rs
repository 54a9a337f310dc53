//! A page about a run: one HTML file with its styles, script and pictures in it, and nothing from the network.
//!
//! What it shows comes in as plain data ([`Page`]); nothing here reads a file or knows a device. All text is escaped
//! ([`html::escape`]), and a content security policy allows the page's own script and style by their hashes and nothing
//! else, so that a class may be called `<script>`.

pub mod chart;
pub mod html;
pub mod novel;

use image::RgbImage;
use image::imageops;
use serde_json::json;

use crate::Result;
use crate::data::sheet::png;
use chart::{COLOURS, Curve, figure};
use html::{allowed, data_address, escape, fill, json, number};
use novel::Novel;

const TEMPLATE: &str = include_str!("../../assets/report/page.html");
const STYLE: &str = include_str!("../../assets/report/report.css");
const SCRIPT: &str = include_str!("../../assets/report/report.js");

/// What a page of this program begins with: another file of the name is not touched.
pub const MARK: &str = "<meta name=\"generator\" content=\"ieq-wgpu ";

/// Thumbnails side by side in the picture that holds them all.
const ACROSS: usize = 20;

/// How a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Training,
    /// All its steps are done, or it ended itself.
    #[default]
    Finished,
    /// It was stopped, or failed.
    Stopped,
}

/// A number that matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tile {
    /// What it is.
    pub label: String,
    /// The number, with its unit.
    pub value: String,
    /// What belongs to it.
    pub note: String,
}

/// An accuracy in percent, with half of its 95 % interval where that is known.
pub type Percent = (f64, Option<f64>);

/// An accuracy before and after the training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accuracy {
    /// What was scored.
    pub label: String,
    /// Before.
    pub before: Option<Percent>,
    /// After.
    pub after: Percent,
    /// What guessing reaches, percent.
    pub chance: f64,
}

/// A setting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingRow {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Why it has this value, or what it is.
    pub reason: String,
    /// Whether it has another value than by default.
    pub changed: bool,
}

/// Views of an image as the network sees them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewsRow {
    /// The image's class and name.
    pub label: String,
    /// Thumbnail, caption, and whether the step shows it: the image itself first.
    pub views: Vec<(usize, String, bool)>,
}

/// What a page shows. What is empty is said to be missing, with the reason of [`Page::missing`].
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The run's name.
    pub title: String,
    /// The version of the program.
    pub version: String,
    /// How the run is, and a sentence on it.
    pub state: (State, String),
    /// Share of the steps that are done, 0 to 1.
    pub share: f64,
    /// The numbers that matter most.
    pub tiles: Vec<Tile>,
    /// What is probably not as it should be.
    pub warnings: Vec<String>,
    /// Values over steps.
    pub curves: Vec<Curve>,
    /// Scores on the novel classes.
    pub scores: Vec<Accuracy>,
    /// A sentence on what was scored.
    pub scored: String,
    /// What the network makes of novel classes.
    pub novel: Option<Novel>,
    /// Views as the network sees them.
    pub views: Vec<ViewsRow>,
    /// A sentence on the views.
    pub viewed: String,
    /// The settings, under headings.
    pub settings: Vec<(String, Vec<SettingRow>)>,
    /// Name and value of what is known of the device.
    pub device: Vec<(String, String)>,
    /// Bytes by purpose, with the sum and where it is reached.
    pub memory: (Vec<(String, u64)>, String),
    /// Name and value of where it all comes from.
    pub provenance: Vec<(String, String)>,
    /// Why a section is empty, by its name: `scores`, `novel`, `views`, `memory`.
    pub missing: Vec<(&'static str, String)>,
    /// All thumbnails, each a square of this side or smaller.
    pub thumbnails: (u32, Vec<RgbImage>),
}

impl Page {
    /// The HTML document.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] where the thumbnails cannot be encoded.
    pub fn render(&self) -> Result<String> {
        let charts: Vec<_> = self.curves.iter().enumerate().map(|(i, curve)| figure(curve, i)).collect();
        let (map, map_data) = self.novel.as_ref().map(novel::map).unwrap_or_default();
        let progress = match charts.is_empty() {
            true => self.missing_text("curves", "There are no metrics yet."),
            false => format!(
                "<p class=\"lead\">Over the steps of the run. Point at a curve, or walk along it with the arrow keys, to read its values.</p>\
                 <div class=\"charts\">{}</div>",
                charts.iter().map(|(figure, _)| figure.as_str()).collect::<String>()
            ),
        };
        let none = "It was not computed for this page.";
        let of_novel = |make: &dyn Fn(&Novel) -> String| match &self.novel {
            Some(novel) => make(novel),
            None => self.missing_text("novel", none),
        };
        let mut sections = vec![
            ("overview", "Overview", self.overview()),
            ("curves", "Training", progress),
            ("accuracy", "Accuracy on novel classes", self.accuracy()),
            ("confusion", "Confusion", of_novel(&novel::confusion)),
            ("map", "Map of embeddings", of_novel(&|_| map.clone())),
            ("neighbours", "Neighbours", of_novel(&novel::neighbours)),
            ("views", "Views", self.views()),
            ("settings", "Settings", self.settings()),
            ("memory", "Device and memory", self.memory()),
            ("provenance", "Provenance", facts(&self.provenance)),
        ];
        if self.novel.is_none() {
            // Said once.
            sections.retain(|(id, ..)| !matches!(*id, "map" | "neighbours"));
            sections
                .iter_mut()
                .filter(|(id, ..)| *id == "confusion")
                .for_each(|(_, title, _)| *title = "Novel classes");
        }
        let nav: String =
            sections.iter().map(|(id, title, _)| format!("<li><a href=\"#{id}\">{title}</a></li>")).collect();
        let body: String = sections
            .iter()
            .map(|(id, title, content)| format!("<section id=\"{id}\" aria-labelledby=\"h-{id}\"><h2 id=\"h-{id}\">{title}</h2>{content}</section>\n"))
            .collect();
        let style = fill(STYLE, &[("levels", &levels())]) + &self.thumbnail_style()?;
        let policy = format!(
            "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
            allowed(&style),
            allowed(SCRIPT)
        );
        let data = json(&json!({
            "charts": charts.iter().map(|(_, data)| data).collect::<Vec<_>>(),
            "map": map_data,
        }));
        let (state, class) = match self.state.0 {
            State::Training => ("", "training"),
            State::Finished => ("", "finished"),
            State::Stopped => ("", "stopped"),
        };
        let running = if self.state.0 == State::Training { " data-running" } else { state };
        let share = format!("{:.1}", 100.0 * self.share.clamp(0.0, 1.0));
        let footer =
            escape(&format!("Written by ieq-wgpu {}. One file: nothing is loaded from the network.", self.version));
        Ok(fill(
            TEMPLATE,
            &[
                ("title", &escape(&self.title)),
                ("version", &escape(&self.version)),
                ("policy", &policy),
                ("style", &style),
                ("running", running),
                ("state-class", class),
                ("state", &escape(&self.state.1)),
                ("share", &share),
                ("nav", &nav),
                ("sections", &body),
                ("footer", &footer),
                ("data", &data),
                ("script", SCRIPT),
            ],
        ))
    }

    /// A sentence on why a section is empty.
    fn missing_text(&self, section: &str, otherwise: &str) -> String {
        let why = self.missing.iter().find(|(name, _)| *name == section).map_or(otherwise, |(_, why)| why.as_str());
        format!("<p class=\"missing\">{}</p>", escape(why))
    }

    fn overview(&self) -> String {
        let tiles: String = self
            .tiles
            .iter()
            .map(|tile| {
                format!(
                    "<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>",
                    escape(&tile.label),
                    escape(&tile.value),
                    escape(&tile.note)
                )
            })
            .collect();
        let warnings: String =
            self.warnings.iter().map(|text| format!("<p class=\"warn\">{}</p>", escape(text))).collect();
        format!("<dl class=\"tiles\">{tiles}</dl>{warnings}")
    }

    /// Accuracies with their intervals, before and after.
    fn accuracy(&self) -> String {
        if self.scores.is_empty() {
            return self.missing_text("scores", "The run was not scored on novel classes.");
        }
        let (width, row, left, right) = (640.0, 30.0, 150.0, 620.0);
        let height = row * self.scores.len() as f64 + 30.0;
        // Tens around all that is shown, so that intervals can be seen.
        let all =
            || self.scores.iter().flat_map(|score| score.before.into_iter().chain([score.after, (score.chance, None)]));
        let low = all().map(|(pct, half)| pct - half.unwrap_or(0.0)).fold(100.0, f64::min).max(0.0);
        let high = all().map(|(pct, half)| pct + half.unwrap_or(0.0)).fold(0.0, f64::max).min(100.0);
        let (low, high) = ((low / 10.0).floor() * 10.0, ((high / 10.0).ceil() * 10.0).max(low + 10.0));
        let x = |pct: f64| left + (pct.clamp(low, high) - low) / (high - low) * (right - left);
        let mut svg = String::new();
        for mark in (0..=10).map(|tens| 10.0 * f64::from(tens)).filter(|mark| (low..=high).contains(mark)) {
            let at = x(mark);
            svg.push_str(&format!(
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark} %</text>",
                height - 26.0,
                height - 8.0
            ));
        }
        for (i, score) in self.scores.iter().enumerate() {
            let y = row * (i as f64 + 0.5) + 4.0;
            svg.push_str(&format!("<text x=\"0\" y=\"{:.1}\">{}</text>", y + 4.0, escape(&score.label)));
            let chance = x(score.chance);
            svg.push_str(&format!(
                "<line class=\"cursor chance\" x1=\"{chance:.1}\" x2=\"{chance:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y - 11.0,
                y + 11.0
            ));
            let both = score.before.iter().map(|before| (before, "s7")).chain([(&score.after, "s0")]);
            for ((pct, half), colour) in both {
                let (from, to) = (x(pct - half.unwrap_or(0.0)), x(pct + half.unwrap_or(0.0)));
                let (above, below) = (y - 6.0, y + 6.0);
                svg.push_str(&format!(
                    "<path class=\"{colour}\" stroke-width=\"1.6\" d=\"M{from:.1} {y:.1}H{to:.1}M{from:.1} {above:.1}V{below:.1}M{to:.1} {above:.1}V{below:.1}\"/><circle class=\"{colour}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"3\"/>",
                    x(*pct)
                ));
            }
        }
        let shown = |(pct, half): &Percent| match half {
            Some(half) => format!("{pct:.1} ± {half:.1} %"),
            None => format!("{pct:.1} %"),
        };
        let with_before = self.scores.iter().any(|score| score.before.is_some());
        let rows: String = self
            .scores
            .iter()
            .map(|score| {
                let before = score.before.as_ref().map_or(String::new(), shown);
                let gain = score.before.map_or(String::new(), |before| format!("{:+.1}", score.after.0 - before.0));
                let cells = match with_before {
                    true => format!(
                        "<td class=\"n\">{before}</td><td class=\"n\">{}</td><td class=\"n\">{gain}</td>",
                        shown(&score.after)
                    ),
                    false => format!("<td class=\"n\">{}</td>", shown(&score.after)),
                };
                format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&score.label))
            })
            .collect();
        let heads = match with_before {
            true => "<th class=\"n\">before</th><th class=\"n\">trained</th><th class=\"n\">gain</th>",
            false => "<th class=\"n\">trained</th>",
        };
        format!(
            "<p class=\"lead\">{}</p><svg class=\"wide\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Accuracies with their intervals, as in the table\">{svg}</svg>\
             <div class=\"scroll\"><table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>",
            escape(&self.scored)
        )
    }

    fn views(&self) -> String {
        if self.views.is_empty() {
            return self.missing_text("views", "They were not made for this page.");
        }
        let some_left_out = self.views.iter().flat_map(|row| &row.views).any(|(.., shown)| !shown);
        let rows: String = self
            .views
            .iter()
            .map(|row| {
                let views: String = row
                    .views
                    .iter()
                    .enumerate()
                    .map(|(i, (position, caption, shown))| {
                        let frame = match (i, some_left_out && *shown) {
                            (0, _) => "query",
                            (_, true) => "step",
                            _ => "",
                        };
                        format!("<li>{}<br>{}</li>", novel::thumbnail(*position, frame, caption), escape(caption))
                    })
                    .collect();
                format!("<li><p>{}</p><ul class=\"strip\">{views}</ul></li>", escape(&row.label))
            })
            .collect();
        format!("<p class=\"lead\">{}</p><ul class=\"rows\">{rows}</ul>", escape(&self.viewed))
    }

    fn settings(&self) -> String {
        let row = |row: &SettingRow| {
            let class = if row.changed { " class=\"changed\"" } else { "" };
            format!(
                "<tr><th scope=\"row\" class=\"mono\">{}</th><td{class}>{}</td><td class=\"reason\">{}</td></tr>",
                escape(&row.key),
                escape(&row.value),
                escape(&row.reason)
            )
        };
        let table = |rows: String| {
            format!(
                "<table class=\"settings\"><thead><tr><th>setting</th><th>value</th><th>why, or what it is</th></tr></thead><tbody>{rows}</tbody></table>"
            )
        };
        let all = || self.settings.iter().flat_map(|(_, rows)| rows);
        let changed: String = all().filter(|row| row.changed).map(row).collect();
        let groups: String = self
            .settings
            .iter()
            .map(|(heading, rows)| format!("<h3>{}</h3>{}", escape(heading), table(rows.iter().map(row).collect())))
            .collect();
        let first = match changed.is_empty() {
            true => "<p class=\"missing\">All settings have their default values.</p>".to_owned(),
            false => format!("<p class=\"lead\">Those that differ from the defaults.</p>{}", table(changed)),
        };
        format!("{first}<details><summary>All {} settings</summary>{groups}</details>", all().count())
    }

    /// What the device is, and a bar of its memory by purpose.
    fn memory(&self) -> String {
        let (classes, about) = &self.memory;
        let device = facts(&self.device);
        let total: u64 = classes.iter().map(|(_, bytes)| bytes).sum();
        if total == 0 {
            return device + &self.missing_text("memory", "The memory of this run is not known.");
        }
        let (mut bar, mut at) = (String::new(), 0.0);
        let mut rows = String::new();
        for (i, (name, bytes)) in classes.iter().enumerate().filter(|(_, (_, bytes))| *bytes > 0) {
            let share = 100.0 * *bytes as f64 / total as f64;
            let colour = i % COLOURS;
            let name = escape(name);
            bar.push_str(&format!("<rect class=\"s{colour}\" stroke=\"none\" x=\"{at:.3}\" width=\"{share:.3}\" height=\"10\"><title>{name}: {share:.1} %</title></rect>"
            ));
            rows.push_str(&format!("<tr><th scope=\"row\"><svg class=\"key\" viewBox=\"0 0 10 10\" width=\"10\" height=\"10\" aria-hidden=\"true\"><rect class=\"s{colour}\" width=\"10\" height=\"10\" rx=\"2\"/></svg> {name}</th><td class=\"n\">{}</td><td class=\"n\">{share:.1} %</td></tr>",
                bytes_text(*bytes)
            ));
            at += share;
        }
        format!(
            "{device}<h3>Memory on the device by purpose</h3><p class=\"lead\">{}</p><div class=\"bar\" aria-hidden=\"true\"><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\">{bar}</svg></div>\
             <table><tbody>{rows}</tbody></table>",
            escape(about)
        )
    }

    /// The rules that show each thumbnail out of one picture.
    fn thumbnail_style(&self) -> Result<String> {
        let (side, thumbnails) = &self.thumbnails;
        if thumbnails.is_empty() {
            return Ok(String::new());
        }
        let side = (*side).clamp(1, 256);
        let rows = thumbnails.len().div_ceil(ACROSS) as u32;
        let mut atlas = RgbImage::new(ACROSS as u32 * side, rows * side);
        // A picture that is shown two or three times as large has its pixels kept.
        let shown = side * (48 / side).clamp(1, 3);
        let mut style = String::new();
        for (i, thumbnail) in thumbnails.iter().enumerate() {
            let (x, y) = ((i % ACROSS) as u32, (i / ACROSS) as u32);
            imageops::replace(&mut atlas, thumbnail, i64::from(x * side), i64::from(y * side));
            style.push_str(&format!(".t{i}{{background-position:-{}px -{}px}}", x * shown, y * shown));
        }
        let zoom = (168 / shown).max(1);
        let (width, height, box_side) = (ACROSS as u32 * shown, rows * shown, zoom * shown);
        let picture = data_address(&png(&atlas)?);
        Ok(format!(
            ".th{{width:{shown}px;height:{shown}px;background-image:url({picture});background-size:{width}px {height}px}}\
             .zoomed{{transform:scale({zoom})}}.zoombox{{width:{box_side}px;height:{box_side}px;box-sizing:content-box}}{style}"
        ))
    }
}

/// Names and values.
fn facts(rows: &[(String, String)]) -> String {
    let rows: String =
        rows.iter().map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(value))).collect();
    format!("<dl class=\"facts\">{rows}</dl>")
}

/// The shades of the matrix.
fn levels() -> String {
    let shade = |kind: char, colour: &str| -> String {
        (1..=9)
            .map(|level| {
                let ink = if level >= 6 { "color:var(--card);" } else { "" };
                let share = 8 + level * 10;
                format!(".confusion td.{kind}{level}{{{ink}background:color-mix(in srgb,var(--{colour}) {share}%,var(--grid))}}\n")
            })
            .collect()
    };
    shade('g', "good") + &shade('b', "bad")
}

/// Bytes for people.
pub fn bytes_text(bytes: u64) -> String {
    let (value, unit) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (bytes as f64 / 1024.0, "KiB"),
        1_048_576..1_073_741_824 => (bytes as f64 / 1_048_576.0, "MiB"),
        _ => (bytes as f64 / 1_073_741_824.0, "GiB"),
    };
    format!("{} {unit}", number(value))
}
