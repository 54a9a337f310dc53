//! Settings that nobody gave, chosen from the pictures, the device and the length of the run, each with its reason. The
//! table of recipes by budget is here; ARCHITECTURE.md states it. Pure functions of numbers: no device, no clock.

use serde::Serialize;
use toml::{Table, Value};

use super::record::DataShape;
use crate::data::Statistics;
use crate::settings::{Backbone, Config, Length, LrSchedule, Method, PRESETS, Recipe, at, put, setting};
use crate::{Error, Result};

/// A setting that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Its key, of its form where it has several: `optimiser.length.steps`.
    pub key: &'static str,
    /// Its value, as a file holds it.
    pub value: Value,
    /// Why.
    pub reason: String,
}

impl Choice {
    /// Of `key`, because of `reason`.
    pub fn new(key: &'static str, value: impl Into<Value>, reason: impl Into<String>) -> Choice {
        Choice { key, value: value.into(), reason: reason.into() }
    }

    /// The value as a flag takes it.
    pub fn shown(&self) -> String {
        match &self.value {
            Value::Array(items) if items.windows(2).all(|pair| pair[0] == pair[1]) && self.key != "model.widths" => {
                items.first().map_or_else(|| "none".into(), ToString::to_string)
            }
            Value::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// `KEY = VALUE: REASON`.
impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}: {}", self.key, self.shown(), self.reason)
    }
}

/// A network for runs of `rows` rows (images x views that go through it) and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Fewest rows.
    pub rows: u64,
    /// Channels per block.
    pub widths: [usize; 4],
}

/// Networks by budget, the smallest budget first.
pub const TIERS: [Tier; 4] = [
    Tier { rows: 0, widths: [16, 32, 64, 128] },
    Tier { rows: 1_000_000, widths: [32, 64, 128, 256] },
    Tier { rows: 4_000_000, widths: [64, 128, 256, 512] },
    Tier { rows: 20_000_000, widths: [64, 160, 320, 640] },
];

/// Which pictures a line of a recipe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pictures {
    All,
    /// Strokes: [`is_ink`].
    Ink,
    /// All others.
    Photos,
}

/// A line of a recipe.
struct Line {
    pictures: Pictures,
    key: &'static str,
    /// The value as a file holds it.
    value: &'static str,
    reason: &'static str,
}

/// Progressive resizing, as `recipe = auto` uses it on pictures that are no strokes where the arithmetic is given and not
/// the number of steps.
struct Resizing {
    /// Share of the run, counted by arithmetic, that is spent on smaller pictures, which come first.
    share: f64,
    /// Their side, as a share of the full one.
    scale: f64,
    /// Smallest full side.
    side: usize,
}

const RESIZING: Resizing = Resizing { share: 0.5, scale: 0.625, side: 24 };

const fn line(pictures: Pictures, key: &'static str, value: &'static str, reason: &'static str) -> Line {
    Line { pictures, key, value, reason }
}

const SHORT: &str = "a short run fits its images too little, not too much";
const TURNED: &str = "a character that is turned is another character: four times the classes";
const LITTLE: &str = "on top of turned classes worth half a point at 25,600 rows of the glyphs";

/// What `recipe = auto` sets. The measurements behind it are in `benches/accuracy` and in ARCHITECTURE.md.
const AUTO: &[Line] = &[
    line(
        Pictures::Photos,
        "method.kind",
        "\"baseline\"",
        "cross-entropy alone: on photos nothing of the method was better at equal rows, measured up to 102,400 of them",
    ),
    line(Pictures::Ink, "data.flip", "false", "a character's mirror image is another character"),
    line(Pictures::Ink, "method.kind", "\"ier\"", "its three losses pay on strokes, scaled down as below"),
    line(Pictures::Ink, "method.transforms", "\"rot4\"", TURNED),
    line(Pictures::Ink, "method.joint_labels", "true", TURNED),
    line(
        Pictures::Ink,
        "method.views",
        "2",
        "every image plain and turned once; more views of fewer images teach less",
    ),
    line(Pictures::Ink, "method.weight_equivariance", "0.1", LITTLE),
    line(Pictures::Ink, "method.weight_invariance", "0.05", LITTLE),
    line(Pictures::Ink, "method.tau", "0.2", LITTLE),
    line(Pictures::Ink, "method.bank_recent", "1024", "what was written long ago is of a network that is no more"),
    line(Pictures::Ink, "method.bank_momentum", "0.5", "what was written long ago is of a network that is no more"),
    line(Pictures::All, "model.dropout", "0.0", SHORT),
    line(Pictures::All, "model.drop_block.rate", "0.0", SHORT),
    line(
        Pictures::All,
        "optimiser.schedule",
        "\"cosine\"",
        "the rate falls to zero with the end of the run, however long that is",
    ),
    line(Pictures::All, "optimiser.warmup", "0.1", "a high rate wants a tenth of the run to begin"),
    line(
        Pictures::All,
        "optimiser.nesterov",
        "true",
        "with warm-up and the higher rate worth one to two points at equal rows",
    ),
];

/// Rows per step of `recipe = auto`, and the learning rate for that many.
const AUTO_ROWS: (usize, f64) = (32, 0.1);
/// Fewest images per step where an image has many views.
const FEWEST: usize = 8;
/// Validations over a run.
pub const VALIDATIONS: u32 = 10;

/// Passes over the images beyond which a wider network is not chosen.
const MOST_PASSES: u64 = 1000;

/// The network for `rows` rows over `images` images.
pub fn tier(rows: u64, images: usize) -> &'static Tier {
    let counted = rows.min(MOST_PASSES.saturating_mul(images as u64));
    TIERS.iter().rev().find(|tier| tier.rows <= counted).unwrap_or(&TIERS[0])
}

/// The largest side that is chosen: `seconds` is the time of the run, where one is set.
pub fn side_most(software: bool, seconds: Option<f64>) -> usize {
    const NIGHT: f64 = 2.0 * 3600.0;
    match (software, seconds) {
        (true, Some(seconds)) if seconds >= NIGHT => 64,
        (true, _) => 32,
        (false, Some(seconds)) if seconds < 300.0 => 64,
        (false, _) => 84,
    }
}

/// Rows of a run that has neither length nor time, and why.
pub fn default_rows(images: usize, software: bool) -> (u64, String) {
    let (passes, least, most) = if software { (40, 25_600, 102_400) } else { (100, 102_400, 2_048_000) };
    let images = images as u64;
    let (wanted, few) = (passes * images, 200 * images);
    let device = if software { "a software adapter" } else { "a GPU" };
    let (rows, why) = match wanted {
        _ if few < least => (few, "200 passes over the few images".into()),
        n if n < least => (least, format!("few rows teach little, {} passes over the images", least / images.max(1))),
        n if n > most => {
            (most, format!("what {device} does in a short while, {:.1} passes", most as f64 / images as f64))
        }
        n => (n, format!("{passes} passes over the images")),
    };
    (rows, format!("{why}; run.time gives it the time you have"))
}

/// At most `most` images per step, and several steps per pass.
fn batch_for(most: usize, images: usize) -> usize {
    let quarter = (images / 4).max(images.saturating_sub(1).min(4)).max(1);
    if quarter >= most { most } else { 1 << quarter.ilog2() }
}

fn four_digits(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// What the pictures decide, whatever the budget. `config` has what was given.
pub fn from_pictures(recipe: Recipe, config: &Config, statistics: &Statistics) -> Vec<Choice> {
    let Statistics { images, side, .. } = *statistics;
    let mut choices = Vec::new();
    let why_side = match statistics.original_side {
        Some(own) if own == side => "the pictures' own".into(),
        Some(own) if own < side => format!("the least that four blocks can halve; the pictures have {own}"),
        Some(own) => {
            format!("the shorter side of the pictures is {own} in the middle, and a step at a larger side costs more")
        }
        None => "the images' own".into(),
    };
    choices.push(Choice::new("data.side", side as i64, why_side));
    let ground = match statistics.mean.iter().sum::<f64>() / 3.0 {
        mean if mean < 0.25 => ", mostly dark",
        mean if mean > 0.75 => ", mostly white",
        _ => "",
    };
    let channels = if statistics.gray { "gray" } else { "colour" };
    let measured = format!("measured on {images} training images ({channels}{ground})");
    let list = |of: [f64; 3], least: f64| of.map(|x| Value::Float(four_digits(x).max(least))).to_vec();
    choices.push(Choice::new("data.mean", list(statistics.mean, 0.0), measured.clone()));
    // Images of one colour have none, and a division by almost nothing makes noise of rounding.
    choices.push(Choice::new("data.std", list(statistics.std, 0.01), measured));
    if recipe == Recipe::Paper {
        let (fewer, choice) = batch(config.optimiser.batch, images);
        choices.extend(fewer.then_some(choice));
    }
    choices
}

/// Images per step, at most `most` and a quarter of the images, and whether those are fewer.
fn batch(most: usize, images: usize) -> (bool, Choice) {
    let batch = batch_for(most, images);
    let (fewer, why) = match batch < most {
        true => (true, format!("a quarter of the {images} training images, or less")),
        false => (false, "many small steps do more than few large ones at equal rows".into()),
    };
    (fewer, Choice::new("optimiser.batch", batch as i64, why))
}

/// Whether the pictures are strokes on an empty ground, as characters and drawings are: gray, and most pixels as bright as
/// the ground. What is turned or mirrored is often another character.
pub fn is_ink(statistics: &Statistics) -> bool {
    const GROUND: f64 = 0.6;
    statistics.gray && statistics.ground >= GROUND
}

/// What the recipe sets for a run on so many images, strokes or not. `config` has what was `given`, and what the pictures
/// decide.
///
/// # Errors
/// [`Error::Internal`] where a line of the table is no TOML; [`Error::Setting`] where it is no setting.
pub fn from_recipe(
    recipe: Recipe,
    config: &Config,
    given: &Table,
    (images, ink): (usize, bool),
) -> Result<Vec<Choice>> {
    if recipe == Recipe::Paper {
        return Ok(Vec::new());
    }
    let own = if ink { Pictures::Ink } else { Pictures::Photos };
    let mut choices: Vec<Choice> = Vec::new();
    for line in AUTO.iter().filter(|line| [Pictures::All, own].contains(&line.pictures)) {
        let table: Table = toml::from_str(&format!("it = {}", line.value))
            .map_err(|e| Error::Internal(format!("{}: {e}", line.key)))?;
        let value = table.get("it").cloned().ok_or_else(|| Error::Internal(line.key.into()))?;
        choices.push(Choice::new(line.key, value, line.reason));
    }
    // The method decides the rows of an image, and so the images of a step.
    let mut with = config.clone();
    lay(&mut with, given, choices.clone())?;
    // What was given wins: what it leaves no room for is not chosen.
    let (method, optimiser) = (&with.method, &with.optimiser);
    choices.retain(|choice| match choice.key {
        "method.kind" => true,
        key if key.starts_with("method.") && method.kind == Method::Baseline => false,
        "method.joint_labels" => method.transforms.rotations() > 1,
        "optimiser.warmup" => optimiser.schedule != LrSchedule::OneCycle,
        "optimiser.nesterov" => optimiser.momentum > 0.0,
        _ => true,
    });
    let (rows, rate) = AUTO_ROWS;
    let most = (rows / with.method.rows_of(1)).max(FEWEST.min(rows));
    if !is_given(given, "optimiser.batch") {
        let (_, choice) = batch(most, images);
        lay(&mut with, given, vec![choice.clone()])?;
        choices.push(choice);
    }
    let own = with.rows().min(rows);
    let why = match own < rows {
        true => format!("{rate} for {rows} rows a step, less in proportion to the rows"),
        false => format!("the best of those measured for {rows} rows a step with a rate that falls"),
    };
    choices.push(Choice::new("optimiser.lr", four_digits(rate * own as f64 / rows as f64), why));
    choices.extend(resizing(&with, given, ink));
    Ok(choices)
}

/// Smaller pictures for the first part of the run, or why not. None where that is given, or was not measured to help.
fn resizing(config: &Config, given: &Table, ink: bool) -> Vec<Choice> {
    let Resizing { share, scale, side: least } = RESIZING;
    let Some(side) = config.data.side.filter(|side| *side >= least) else { return Vec::new() };
    let own = ["method.scale", "method.phases"].into_iter().any(|key| is_given(given, key));
    let averaged = config.model.backbone == Backbone::Resnet12;
    if own || ink || !averaged || config.method.kind != Method::Baseline {
        return Vec::new();
    }
    if is_given(given, "optimiser.length") {
        let why = "the number of steps is given, and smaller pictures would make the run shorter, not better; where run.rows \
                   or run.time is given, a part of it goes to smaller pictures";
        return vec![Choice::new("method.scale", 1.0, why)];
    }
    let network = 1_usize.checked_shl(config.model.widths.len() as u32).unwrap_or(usize::MAX);
    let scale = scale.max(four_digits(network as f64 / side as f64));
    let mut with = config.clone();
    with.method.scale = scale.min(1.0);
    let seen = with.method.network_side(side);
    if seen == side {
        return Vec::new();
    }
    let why = format!(
        "{:.0} % of the arithmetic on pictures of {seen} pixels a side, more of them: at equal arithmetic worth about a point \
         on colour pictures",
        100.0 * share
    );
    vec![
        Choice::new("method.scale", scale, why),
        Choice::new(
            "method.phases",
            vec![format!("{share}: scale = 1")],
            format!("the rest at the full {side} pixels, which the network is used with"),
        ),
    ]
}

/// How often a run of so many steps is validated.
pub fn validation(steps: u32) -> Choice {
    let every = i64::from((steps / VALIDATIONS).max(1));
    let why = format!("{VALIDATIONS} times over the run; the best network is kept beside the last");
    Choice::new("run.validate_every", every, why)
}

/// The network of a tier.
pub fn widths(tier: &Tier, rows: u64) -> Choice {
    let widths: Vec<Value> = tier.widths.iter().map(|&width| Value::Integer(width as i64)).collect();
    let why = match tier.rows {
        0 => "wider ones were worse at equal time up to 100,000 rows, more were not measured",
        _ => "an estimate: nothing was measured at so many rows",
    };
    Choice::new("model.widths", widths, format!("for {rows} rows through the network; {why}"))
}

/// Why a run with `run.rows` has its length.
pub const RUN_ROWS: &str = "run.rows says so";

/// Network, length and validation of a run that has no time, laid over `config`, which has what was `given` and what the
/// recipe sets; returns what was chosen.
///
/// # Errors
/// As [`lay`].
pub fn auto_length(config: &mut Config, given: &Table, data: DataShape, software: bool) -> Result<Vec<Choice>> {
    // The method decides the rows of a step.
    let (rows, why) = match config.run.rows {
        Some(rows) => (rows, RUN_ROWS.to_owned()),
        None if is_given(given, "optimiser.length") => {
            (rows_of(config, data.side, steps_of(config, data.images)), String::new())
        }
        None => default_rows(data.images, software),
    };
    let network = vec![widths(tier(rows, data.images), rows)];
    let mut choices = lay(config, given, network)?;
    let length = vec![length(config, data, rows, &why)];
    choices.extend(lay(config, given, length)?);
    let steps = steps_of(config, data.images).min(u64::from(u32::MAX));
    choices.extend(lay(config, given, vec![validation(steps as u32)])?);
    Ok(choices)
}

/// The length of `rows` rows with the settings of `config`: a row of a smaller picture counts by its area.
pub fn length(config: &Config, DataShape { side, images, .. }: DataShape, rows: u64, why: &str) -> Choice {
    let steps = ((rows as f64 / config.full_rows(side).max(1e-9)) as u64).clamp(1, 1_000_000_000);
    let seen = steps as f64 * config.optimiser.batch as f64 / images.max(1) as f64;
    let passes = if seen < 10.0 { format!("{seen:.1}") } else { format!("{seen:.0}") };
    let reason = format!("{rows} rows, {}, so every image is seen {passes} times: {why}", per_step(config, side));
    Choice::new("optimiser.length.steps", steps as i64, reason)
}

fn per_step(config: &Config, side: usize) -> String {
    let rows = match config.method.views_per_image() {
        1 => format!("{} a step", config.rows()),
        views => format!("{} x {views} a step", config.optimiser.batch),
    };
    let full = config.full_rows(side);
    match full < 0.99 * config.rows() as f64 {
        true => format!("{rows} that count as {full:.1} of {side} pixels a side"),
        false => rows,
    }
}

/// Steps of the length that `config` has.
pub fn steps_of(config: &Config, images: usize) -> u64 {
    match config.optimiser.length {
        Length::Steps(steps) => u64::from(steps),
        Length::Epochs(epochs) => u64::from(epochs) * (images / config.optimiser.batch.max(1)) as u64,
    }
}

/// Rows of `steps` steps with the settings of `config`: one of a smaller picture counts by its area.
pub fn rows_of(config: &Config, side: usize, steps: u64) -> u64 {
    (steps as f64 * config.full_rows(side)).round() as u64
}

/// Whether the layer says what `key` is.
pub fn is_given(given: &Table, key: &str) -> bool {
    setting(key).is_some_and(|row| at(given, row.key).is_some())
}

/// Lays those choices over `config` that are not `given`, and notes their reasons; returns them. Another backbone keeps its
/// own widths.
///
/// # Errors
/// [`Error::Setting`] for a value of another type than its setting's.
pub fn lay(config: &mut Config, given: &Table, choices: Vec<Choice>) -> Result<Vec<Choice>> {
    let own_widths = is_given(given, "model.backbone");
    let kept = |choice: &Choice| !(is_given(given, choice.key) || own_widths && choice.key == "model.widths");
    let choices: Vec<Choice> = choices.into_iter().filter(kept).collect();
    let mut layer = Table::new();
    for choice in &choices {
        put(&mut layer, choice.key, choice.value.clone());
        config.run.reasons.push(format!("{}: {}", choice.key, choice.reason));
    }
    config.lay(&layer)?;
    Ok(choices)
}

/// Classes that a preset was made for.
const PRESET_CLASSES: [(&str, usize); 6] =
    [("demo", 64), ("omniglot", 136), ("cifar-fs", 64), ("fc100", 60), ("mini-imagenet", 64), ("tiered-imagenet", 351)];

/// Sentences on what of the data is not what the preset was made for.
pub fn mismatches(config: &Config, statistics: &Statistics) -> Vec<String> {
    let Some(name) = config.preset.as_deref().filter(|name| PRESETS.iter().any(|(known, _)| known == name)) else {
        return Vec::new();
    };
    let Ok(preset) = Config::from_preset(name) else { return Vec::new() };
    const REMEDY: &str = "without a preset the settings come from the pictures";
    let mut sentences = Vec::new();
    let list = |of: [f64; 3]| of.map(|x| format!("{x:.2}")).join(",");
    let same = (config.data.mean, config.data.std) == (preset.data.mean, preset.data.std);
    let far = (0..3).any(|c| {
        let ratio = statistics.std[c] / config.data.std[c];
        (statistics.mean[c] - config.data.mean[c]).abs() > 0.15 || !(0.6..=1.6).contains(&ratio)
    });
    if same && far {
        sentences.push(format!(
            "the preset {name} expects pictures of mean {} and deviation {}, and these have {} and {}: {REMEDY}, or set \
             data.mean and data.std",
            list(config.data.mean),
            list(config.data.std),
            list(statistics.mean),
            list(statistics.std)
        ));
    }
    let made_for = PRESET_CLASSES.iter().find(|(known, _)| *known == name).map(|(_, classes)| *classes);
    if let Some(classes) = made_for.filter(|classes| *classes != statistics.classes) {
        sentences.push(format!(
            "the preset {name} was made for {classes} training classes, and these are {}: {REMEDY}",
            statistics.classes
        ));
    }
    let own = statistics.original_side.unwrap_or(statistics.side);
    match preset.data.side {
        Some(side) if side != statistics.side => sentences.push(format!(
            "the preset {name} was made for pictures of {side} pixels a side, and these have {}: {REMEDY}",
            statistics.side
        )),
        Some(side) if own * 2 <= side => sentences.push(format!(
            "the preset {name} enlarges these pictures of {own} pixels a side to {side}, which costs time and adds \
             nothing: {REMEDY}, or set data.side"
        )),
        _ => {}
    }
    sentences
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const COLOUR: Statistics = Statistics {
        images: 9600,
        classes: 64,
        per_class: (150, 150),
        side: 32,
        original_side: Some(375),
        mean: [0.471_23, 0.45, 0.41],
        std: [0.27, 0.26, 0.28],
        gray: false,
        ground: 0.2,
    };

    /// The settings that a recipe makes of data, with a length by default.
    fn cooked(recipe: Recipe, statistics: &Statistics, given: &str) -> (Config, Vec<Choice>) {
        let given: Table = toml::from_str(given).unwrap();
        let mut config = Config { recipe, ..Config::default() };
        config.lay(&given).unwrap();
        let choices = from_pictures(recipe, &config, statistics);
        let mut all = lay(&mut config, &given, choices).unwrap();
        let choices = from_recipe(recipe, &config, &given, (statistics.images, is_ink(statistics))).unwrap();
        all.extend(lay(&mut config, &given, choices).unwrap());
        if recipe == Recipe::Auto {
            let (rows, why) = default_rows(statistics.images, true);
            let choices = vec![widths(tier(rows, statistics.images), rows)];
            all.extend(lay(&mut config, &given, choices).unwrap());
            let data = DataShape { side: statistics.side, classes: statistics.classes, images: statistics.images };
            let choices = vec![length(&config, data, rows, &why)];
            all.extend(lay(&mut config, &given, choices).unwrap());
        }
        config.validate().unwrap();
        config.check_side(statistics.side).unwrap();
        crate::settings::Schedule::new(&config.optimiser, statistics.images).unwrap();
        (config, all)
    }

    #[test]
    fn every_kind_of_data_gets_settings_that_can_be_used() {
        let gray = Statistics { gray: true, mean: [0.08; 3], std: [0.2; 3], side: 28, ground: 0.5, ..COLOUR };
        let ink = Statistics { ground: 0.85, ..gray };
        let white = Statistics { mean: [0.93; 3], std: [0.15; 3], ..COLOUR };
        let empty = Statistics { mean: [1.0; 3], std: [0.0; 3], ..COLOUR };
        let few_classes = Statistics { images: 36, classes: 3, per_class: (12, 12), ..COLOUR };
        let many_classes = Statistics { images: 300, classes: 300, per_class: (1, 1), ..COLOUR };
        let two = Statistics { images: 2, classes: 2, per_class: (1, 1), ..COLOUR };
        let tiny = Statistics { side: 16, original_side: Some(5), ..COLOUR };
        for (data, batch) in [
            (&COLOUR, 32),
            (&gray, 32),
            (&ink, 16),
            (&white, 32),
            (&empty, 32),
            (&few_classes, 8),
            (&many_classes, 32),
            (&two, 1),
            (&tiny, 32),
        ] {
            let (config, choices) = cooked(Recipe::Auto, data, "");
            assert_eq!(config.optimiser.batch, batch, "{data:?}");
            assert_eq!(config.data.side, Some(data.side));
            assert!(choices.iter().all(|choice| !choice.reason.is_empty() && setting(choice.key).is_some()));
            assert_eq!(choices.len(), config.run.reasons.len());
            assert_eq!(Config::from_toml(&config.to_toml().unwrap(), "x".as_ref()).unwrap(), config);
            let (paper, _) = cooked(Recipe::Paper, data, "");
            assert!(paper.optimiser.batch <= 64 && paper.optimiser.batch <= data.images, "{data:?}");
            assert_eq!(paper.method, Config::default().method);
            assert_eq!(paper.data.mean, config.data.mean);
        }
        let (config, choices) = cooked(Recipe::Auto, &gray, "");
        assert_eq!((config.data.mean, config.optimiser.lr), ([0.08; 3], 0.1));
        let mean = choices.iter().find(|choice| choice.key == "data.mean").unwrap();
        assert_eq!(mean.to_string(), "data.mean = 0.08: measured on 9600 training images (gray, mostly dark)");
        assert_eq!((config.method.kind, config.data.flip), (Method::Baseline, true), "gray photos are no strokes");
        let (turned, _) = cooked(Recipe::Auto, &ink, "");
        assert_eq!((turned.method.kind, turned.method.joint_labels, turned.data.flip), (Method::Ier, true, false));
        assert_eq!((turned.rows(), turned.optimiser.lr, turned.method.views), (32, 0.1, Some(2)));
        let (plain, _) = cooked(Recipe::Auto, &ink, "[method]\nkind = \"baseline\"");
        assert_eq!((plain.rows(), plain.optimiser.batch, plain.data.flip, plain.method.views), (32, 32, false, None));
        for given in [
            "[method]\ntransforms = \"crop4\"",
            "[method]\nviews = 4",
            "[optimiser]\nmomentum = 0.0",
            "[optimiser]\nschedule = \"one-cycle\"",
            "[optimiser]\nschedule = \"steps\"",
            "[optimiser]\nbatch = 1",
        ] {
            // Each is used as it is, and validated there.
            cooked(Recipe::Auto, &ink, given);
        }
        let (whole, _) = cooked(Recipe::Auto, &COLOUR, "[method]\nkind = \"ier\"");
        assert_eq!((whole.optimiser.batch, whole.method.views), (8, None));
        assert_eq!(cooked(Recipe::Auto, &few_classes, "").0.optimiser.lr, 0.025);
        assert_eq!(cooked(Recipe::Auto, &empty, "").0.data.std, [0.01; 3]);
    }

    #[test]
    fn half_of_the_arithmetic_is_spent_on_smaller_pictures() {
        let of = |statistics: &Statistics, given: &str| {
            let (config, choices) = cooked(Recipe::Auto, statistics, given);
            let reasons =
                choices.iter().filter(|choice| choice.key == "method.scale").map(|choice| choice.reason.clone());
            (config.method.scale, config.method.phases.clone(), reasons.collect::<Vec<_>>(), config)
        };
        let (scale, phases, reasons, config) = of(&COLOUR, "");
        assert_eq!((scale, phases), (0.625, vec!["0.5: scale = 1".to_owned()]));
        assert!(reasons[0].contains("50 % of the arithmetic on pictures of 20 pixels"), "{reasons:?}");
        let all = config.phases().unwrap();
        let steps = config.schedule(32, COLOUR.images).unwrap().phase_steps[1];
        let left = steps_of(&config, COLOUR.images) - u64::from(steps);
        let halves = [f64::from(steps) * all[0].1.full_rows(32), left as f64 * all[1].1.full_rows(32)];
        assert!((halves[0] / halves[1] - 1.0).abs() < 0.01, "{halves:?}");
        // As many rows as without, within a step of them.
        let (rows, _) = default_rows(COLOUR.images, true);
        let steps = steps_of(&config, COLOUR.images);
        assert!(rows.abs_diff(rows_of(&config, 32, steps)) <= 32 && steps > rows / 32);
        for (side, scale, seen) in [(24, 0.6667, 16), (28, 0.625, 18), (64, 0.625, 40)] {
            let (got, _, _, config) = of(&Statistics { side, ..COLOUR }, "");
            assert_eq!((got, config.method.network_side(side)), (scale, seen), "{side}");
        }
        // Where it was not measured to help, cannot be, or is given.
        let gray = Statistics { gray: true, ..COLOUR };
        assert_eq!(of(&gray, "").0, 0.625);
        let ink = Statistics { ground: 0.85, ..gray };
        for (data, given) in [
            (&ink, ""),
            (&Statistics { side: 23, ..COLOUR }, ""),
            (&COLOUR, "[model]\nbackbone = \"conv4\""),
            (&COLOUR, "[model]\nwidths = [8, 8, 8, 8, 8]"),
            (&COLOUR, "[method]\nkind = \"ier\""),
            (&COLOUR, "[method]\nscale = 1.0"),
            (&COLOUR, "[method]\nphases = [\"0.5: label_smoothing = 0.1\"]"),
        ] {
            let (scale, phases, reasons, _) = of(data, given);
            assert_eq!(
                (scale, phases.iter().any(|phase| phase.contains("scale")), reasons.len()),
                (1.0, false, 0),
                "{given}"
            );
        }
        let (scale, phases, reasons, _) = of(&COLOUR, "[optimiser]\nlength = { steps = 100 }");
        assert_eq!((scale, phases.len()), (1.0, 0));
        assert!(reasons[0].contains("shorter, not better"), "{reasons:?}");
    }

    #[test]
    fn what_is_given_stays_and_is_not_reported() {
        let given =
            "[data]\nmean = [0.5, 0.5, 0.5]\n[optimiser]\nbatch = 8\nlength = { epochs = 3 }\n[model]\nwidths = [4, 8]";
        let (config, choices) = cooked(Recipe::Auto, &COLOUR, given);
        assert_eq!((config.data.mean, config.optimiser.batch), ([0.5; 3], 8));
        assert_eq!((config.optimiser.length, config.model.widths.as_slice()), (Length::Epochs(3), &[4, 8][..]));
        assert_eq!(config.optimiser.lr, 0.025, "the rate goes with the batch");
        for key in ["data.mean", "optimiser.batch", "optimiser.length.steps", "model.widths"] {
            assert!(choices.iter().all(|choice| choice.key != key), "{key}");
        }
        let (conv4, _) = cooked(Recipe::Auto, &COLOUR, "[model]\nbackbone = \"conv4\"");
        assert_eq!(conv4.model.widths, [64; 4]);
    }

    #[test]
    fn budgets_grow_with_data_and_device() {
        for (images, software, rows) in [
            (12, true, 2400),
            (120, true, 24_000),
            (200, true, 25_600),
            (2720, true, 102_400),
            (1280, true, 51_200),
            (38_400, false, 2_048_000),
            (9600, false, 960_000),
        ] {
            let (got, why) = default_rows(images, software);
            assert_eq!(got, rows, "{images}, {software}: {why}");
        }
        assert_eq!(tier(25_600, 9600).widths, [16, 32, 64, 128]);
        assert_eq!(tier(2_048_000, 9600).widths, [32, 64, 128, 256]);
        assert_eq!(tier(u64::MAX, 1_000_000).widths, [64, 160, 320, 640]);
        assert_eq!(tier(u64::MAX, 100).widths, [16, 32, 64, 128], "a few images need no wide network");
        assert!(TIERS.is_sorted_by(|a, b| a.rows < b.rows && a.widths < b.widths));
        assert_eq!(side_most(true, None), 32);
        assert!(side_most(false, None) > side_most(true, Some(8.0 * 3600.0)));
        assert_eq!([1, 2, 5, 16, 100, 1000].map(|images| batch_for(32, images)), [1, 1, 4, 4, 16, 32]);
    }

    #[test]
    fn a_preset_on_other_data_says_so() {
        let cifar = Config::from_preset("cifar-fs").unwrap();
        let own = Statistics { original_side: Some(32), ..COLOUR };
        assert_eq!(mismatches(&cifar, &own), [""; 0]);
        let ink =
            Statistics { mean: [0.08; 3], std: [0.2; 3], classes: 136, side: 28, original_side: Some(28), ..COLOUR };
        let sentences = mismatches(&cifar, &ink);
        for (sentence, needle) in sentences.iter().zip(["0.51,0.49,0.44", "64 training classes", "32 pixels"]) {
            assert!(sentence.contains(needle) && sentence.contains("come from the pictures"), "{sentence}");
        }
        assert_eq!(sentences.len(), 3);
        let mini = Config::from_preset("mini-imagenet").unwrap();
        let small = Statistics { side: 84, ..own };
        assert!(mismatches(&mini, &small)[0].contains("enlarges"));
        let set = crate::data::Statistics { images: 1280, ..ink };
        let mut demo = Config::from_preset("demo").unwrap();
        (demo.data.mean, demo.data.std) = ([0.3; 3], [0.3; 3]);
        assert_eq!(mismatches(&demo, &set).len(), 1, "own means are no mistake of the preset's");
        let demo = Config::from_preset("demo").unwrap();
        #[cfg(feature = "formats")]
        {
            let glyphs = crate::data::load("glyphs", crate::data::Split::Train, &Default::default()).unwrap();
            assert_eq!(mismatches(&demo, &Statistics::of(&glyphs)), [""; 0]);
        }
        assert!(mismatches(&Config { preset: None, ..demo }, &set).is_empty());
    }
}
