//! What a network makes of classes that it has not seen: their confusion, a map of their embeddings, neighbours.

use serde_json::{Value, json};

use super::chart::COLOURS;
use super::html::escape;

/// Side of the map, in its own units.
const MAP: f64 = 560.0;

/// An image on the map.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Place, both in 0..=1.
    pub at: [f64; 2],
    /// Its class, a position in [`Novel::on_map`].
    pub class: usize,
    /// Position of its thumbnail.
    pub thumbnail: usize,
    /// The image's name.
    pub name: String,
    /// The class whose mean is nearest, a position in [`Novel::classes`].
    pub nearest: usize,
}

/// An image with those that are most like it.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    /// Position of its thumbnail.
    pub thumbnail: usize,
    /// Its class and name.
    pub label: (String, String),
    /// Thumbnail, cosine, class, and whether that is its own; the most similar first.
    pub found: Vec<(usize, f64, String, bool)>,
}

/// Two classes that are taken for each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The class, and what its images are taken for.
    pub classes: (String, String),
    /// A thumbnail of each.
    pub thumbnails: (usize, usize),
    /// Share of its images, 0 to 1.
    pub share: f64,
}

/// What is known of novel classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Novel {
    /// A sentence on the images, and on how they were chosen.
    pub about: String,
    /// All classes that were looked at.
    pub classes: Vec<String>,
    /// Share of the images whose own class mean, without them, is nearest: 0 to 1.
    pub accuracy: f64,
    /// The classes of the matrix, positions in `classes`.
    pub in_matrix: Vec<usize>,
    /// Images of each class of the matrix by the class whose mean is nearest, shares of the class: rows and columns as
    /// `in_matrix`; what went to other classes is missing.
    pub matrix: Vec<Vec<f64>>,
    /// The most confused classes.
    pub pairs: Vec<Pair>,
    /// The classes on the map, positions in `classes`.
    pub on_map: Vec<usize>,
    /// The images on the map.
    pub points: Vec<Point>,
    /// Shares of the variance along both axes.
    pub explained: [f64; 2],
    /// A few images with their neighbours.
    pub near: Vec<Near>,
}

/// A thumbnail, which the style has at this position.
pub fn thumbnail(position: usize, frame: &str, alt: &str) -> String {
    format!(
        "<span class=\"frame {frame}\"><span class=\"th t{position}\" role=\"img\" aria-label=\"{0}\" title=\"{0}\"></span></span>",
        escape(alt)
    )
}

/// The matrix of confusions and the pairs that are confused most.
pub fn confusion(novel: &Novel) -> String {
    let name = |class: &usize| novel.classes.get(*class).map_or("", String::as_str);
    let mut out = format!(
        "<p class=\"lead\">{} Each image goes to the class whose mean, without the image itself, is nearest among {}: \
         right for {:.1} %; chance is {:.1} %.</p>",
        escape(&novel.about),
        novel.classes.len(),
        100.0 * novel.accuracy,
        100.0 / novel.classes.len().max(1) as f64
    );
    let columns: String = (1..=novel.in_matrix.len()).map(|n| format!("<th scope=\"col\">{n}</th>")).collect();
    let rows: String = novel
        .in_matrix
        .iter()
        .zip(&novel.matrix)
        .enumerate()
        .map(|(i, (class, shares))| {
            let cells: String = shares
                .iter()
                .enumerate()
                .map(|(j, share)| {
                    let level = ((share * 9.0).ceil() as usize).min(9);
                    let kind = if i == j { 'g' } else { 'b' };
                    let shown = if *share >= 0.005 { format!("{:.0}", 100.0 * share) } else { String::new() };
                    let said = novel.in_matrix.get(j).map_or("", name);
                    let title = escape(&format!("{} taken for {said}: {:.0} %", name(class), 100.0 * share));
                    format!("<td class=\"{kind}{level}\" title=\"{title}\">{shown}</td>")
                })
                .collect();
            format!("<tr><th scope=\"row\" title=\"{0}\">{0} {1}</th>{cells}</tr>", escape(name(class)), i + 1)
        })
        .collect();
    let which = match novel.in_matrix.len() < novel.classes.len() {
        true => format!("{} of the {} classes; ", novel.in_matrix.len(), novel.classes.len()),
        false => String::new(),
    };
    out.push_str(&format!("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion of the novel classes\"><table class=\"confusion\">\
         <caption class=\"vh\">Rows: the class; columns: the nearest class mean; percent of the row's images</caption>\
         <thead><tr><th></th>{columns}</tr></thead><tbody>{rows}</tbody></table></div>\
         <p class=\"missing\">{which}rows are the true class, columns the nearest class mean, numbers percent of the row.</p>"
    ));
    if !novel.pairs.is_empty() {
        let pairs: String = novel
            .pairs
            .iter()
            .map(|pair| {
                let (a, b) = &pair.classes;
                format!(
                    "<li>{}{}<span>{} taken for {}: {:.0} %</span></li>",
                    thumbnail(pair.thumbnails.0, "query", a),
                    thumbnail(pair.thumbnails.1, "bad", b),
                    escape(a),
                    escape(b),
                    100.0 * pair.share
                )
            })
            .collect();
        out += &format!("<h3>Confused most</h3><ul class=\"pairs\">{pairs}</ul>");
    }
    out
}

/// The mark of a class: its shape and colour.
fn mark(class: usize, [x, y]: [f64; 2], size: f64, more: &str) -> String {
    let colour = class % COLOURS;
    let class_name = format!("class=\"pt s{colour}\"");
    match class / COLOURS {
        0 => format!("<circle {class_name} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size:.1}\">{more}</circle>"),
        1 => {
            let (left, top, edge) = (x - 0.9 * size, y - 0.9 * size, 1.8 * size);
            format!(
                "<rect {class_name} x=\"{left:.1}\" y=\"{top:.1}\" width=\"{edge:.1}\" height=\"{edge:.1}\">{more}</rect>"
            )
        }
        _ => {
            let (half, up, down) = (1.15 * size, 1.25 * size, 0.85 * size);
            format!(
                "<polygon {class_name} points=\"{:.1},{:.1} {:.1},{:.1} {:.1},{:.1}\">{more}</polygon>",
                x,
                y - up,
                x + half,
                y + down,
                x - half,
                y + down
            )
        }
    }
}

/// The map of embeddings, with what a script needs to show thumbnails.
pub fn map(novel: &Novel) -> (String, Value) {
    let names: Vec<&str> =
        novel.on_map.iter().map(|&class| novel.classes.get(class).map_or("", String::as_str)).collect();
    let place = |at: [f64; 2]| [16.0 + at[0] * (MAP - 32.0), 16.0 + (1.0 - at[1]) * (0.75 * MAP - 32.0)];
    let points: String = novel
        .points
        .iter()
        .map(|point| {
            let title = format!("{}: {}", names.get(point.class).unwrap_or(&""), point.name);
            mark(point.class, place(point.at), 6.0, &format!("<title>{}</title>", escape(&title)))
        })
        .collect();
    let legend: String = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let key = format!("<svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">{}</svg>", mark(i, [7.0, 7.0], 5.0, ""));
            let key = key.replace("class=\"pt ", "class=\"");
            format!(
                "<li><button type=\"button\" data-label=\"{i}\" aria-pressed=\"false\">{key}{}</button></li>",
                escape(name)
            )
        })
        .collect();
    let (width, height) = (MAP, 0.75 * MAP);
    let svg = format!(
        "<p class=\"lead\">Principal components of the embeddings of {} images of {} novel classes, scaled to length 1: \
         {:.0} % and {:.0} % of their variance. Point at an image, tap it, or walk through them with the arrow keys; a \
         class in the list shows itself alone.</p>\
         <div class=\"map\"><svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" tabindex=\"0\" \
         aria-label=\"Map of the embeddings of {} novel classes\"><g>{points}</g></svg>\
         <div><div class=\"picked\" aria-live=\"polite\"><p class=\"reason\">No image is picked.</p></div>\
         <ul class=\"legend\">{legend}</ul></div></div>",
        novel.points.len(),
        names.len(),
        100.0 * novel.explained[0],
        100.0 * novel.explained[1],
        names.len()
    );
    let data = json!({
        "classes": names,
        "all": novel.classes,
        "points": novel.points.iter().map(|point| {
            let [x, y] = place(point.at);
            let right = novel.on_map.get(point.class) == Some(&point.nearest);
            json!([x, y, point.class, point.thumbnail, point.name, point.nearest, right])
        }).collect::<Vec<_>>(),
    });
    (svg, data)
}

/// A few images with those most like them.
pub fn neighbours(novel: &Novel) -> String {
    let items: String = novel
        .near
        .iter()
        .map(|near| {
            let (class, name) = &near.label;
            let found: String = near
                .found
                .iter()
                .map(|(position, cosine, of, own)| {
                    let frame = if *own { "good" } else { "bad" };
                    format!("<li>{}<br>{:.3}</li>", thumbnail(*position, frame, of), cosine)
                })
                .collect();
            let query = thumbnail(near.thumbnail, "query", class);
            format!(
                "<li><p><strong>{}</strong> <span class=\"reason\">{}</span></p><ul class=\"strip\"><li>{query}<br>the image</li>{found}</ul></li>",
                escape(class),
                escape(name)
            )
        })
        .collect();
    format!(
        "<p class=\"lead\">The most similar of the other images by the cosine of their embeddings. A blue frame is the same \
         class, an orange one another.</p><ul class=\"near\">{items}</ul>"
    )
}
