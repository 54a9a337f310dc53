//! Layers of settings: a preset, under a file, under flags; and, of a run, what was chosen for it under what was given.
//!
//! A layer is a TOML table of the same form as a file, laid over a [`Config`] row by row. No crate for layers does this: a
//! choice such as `length = { steps = 400 }` must replace the other form whole, another backbone brings its widths, and
//! errors in a file name its line.

use std::io::Read;
use std::path::{Path, PathBuf};

use toml::Table;

use super::row::{Chooser, Effect};
use super::table::{Config, Setting, setting, settings};
use crate::error::Change;
use crate::{Error, Result};

/// The presets by name, in the order they are listed to people; `demo` is the default of `train`.
pub const PRESETS: [(&str, &str); 6] = [
    ("demo", include_str!("../../assets/presets/demo.toml")),
    ("omniglot", include_str!("../../assets/presets/omniglot.toml")),
    ("cifar-fs", include_str!("../../assets/presets/cifar-fs.toml")),
    ("fc100", include_str!("../../assets/presets/fc100.toml")),
    ("mini-imagenet", include_str!("../../assets/presets/mini-imagenet.toml")),
    ("tiered-imagenet", include_str!("../../assets/presets/tiered-imagenet.toml")),
];

/// The preset of a run that names none.
pub const DEFAULT_PRESET: &str = "demo";

/// More than any file of settings has.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The text of a preset.
pub(super) fn preset_text(name: &str) -> Result<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| Error::Conflict {
        keys: vec!["preset"],
        why: format!("there is no preset `{name}`: choose one of {}", PRESETS.map(|(name, _)| name).join(", ")),
        changes: Vec::new(),
    })
}

/// One sentence from a TOML error: the line, and what is wrong with it.
fn toml_sentence(text: &str, error: &toml::de::Error) -> String {
    let what = error.message().trim().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1);
            format!("line {line}: {what}")
        }
        None => what,
    }
}

/// The text of a file as it stands there; errors name `origin`.
fn table(text: &str, origin: &Path) -> Result<Table> {
    toml::from_str(text).map_err(|error| Error::data(origin, toml_sentence(text, &error)))
}

/// A preset, and the text of a file over it; errors name `origin`.
fn layered(preset: Option<&str>, text: &str, origin: &Path) -> Result<Config> {
    let bad = |error: &toml::de::Error| Error::data(origin, toml_sentence(text, error));
    // The file alone first: an error in it then has a line.
    let alone: Config = toml::from_str(text).map_err(|e| bad(&e))?;
    let preset = preset.map(str::to_owned).or(alone.preset);
    let mut config = match &preset {
        Some(name) => toml::from_str(preset_text(name)?).map_err(|e| bad(&e))?,
        None => Config::default(),
    };
    config.lay(&table(text, origin)?)?;
    config.preset = preset;
    config.run.chosen = alone.run.chosen;
    config.run.reasons = alone.run.reasons;
    Ok(config)
}

/// The text of a file of settings.
fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|e| Error::io(path, "cannot read the configuration", e))?;
    if text.len() as u64 == MAX_FILE_BYTES {
        return Err(Error::data(path, "is too long for a configuration: name a TOML file of settings"));
    }
    Ok(text)
}

/// The value at a key such as `optimiser.lr` of a layer.
pub fn at<'t>(layer: &'t Table, key: &str) -> Option<&'t toml::Value> {
    let (section, rest) = match key.split_once('.') {
        Some(parts) => parts,
        None => return layer.get(key),
    };
    at(layer.get(section)?.as_table()?, rest)
}

/// Puts `value` at a key such as `optimiser.length.steps` of a layer.
pub fn put(layer: &mut Table, key: &str, value: toml::Value) {
    let Some((section, rest)) = key.split_once('.') else {
        layer.insert(key.to_owned(), value);
        return;
    };
    let inner = layer.entry(section).or_insert_with(|| toml::Value::Table(Table::new()));
    if let toml::Value::Table(inner) = inner {
        put(inner, rest, value);
    }
}

/// Takes the value at a key out of a layer.
pub fn remove(layer: &mut Table, key: &str) {
    match key.split_once('.') {
        None => drop(layer.remove(key)),
        Some((section, rest)) => {
            if let Some(toml::Value::Table(inner)) = layer.get_mut(section) {
                remove(inner, rest);
            }
        }
    }
}

/// Lays a layer over another: what both name is the upper one's.
pub fn merge(under: &mut Table, over: &Table) {
    for row in settings() {
        if let Some(value) = at(over, row.key) {
            remove(under, row.key);
            put(under, row.key, value.clone());
        }
    }
}

impl Config {
    /// A preset's settings.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is no such preset.
    pub fn from_preset(name: &str) -> Result<Config> {
        layered(Some(name), "", Path::new(name))
    }

    /// A file's settings as they stand in it, as a layer.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Data`] with the line when it is no TOML.
    pub fn written_layer(path: &Path) -> Result<Table> {
        table(&read(path)?, path)
    }

    /// What a file's settings say of their own, as a layer: without what a recipe or a time chose for the run that the
    /// file is of (`run.reasons`), which is chosen anew.
    ///
    /// # Errors
    /// Those of [`Config::from_layers`].
    pub fn read_layer(path: &Path) -> Result<Table> {
        let text = read(path)?;
        let mut layer = table(&text, path)?;
        let alone = layered(None, &text, path)?;
        alone.reasoned().for_each(|row| remove(&mut layer, row.key));
        for entry in &alone.run.chosen {
            let (row, value) = chosen(entry)?;
            remove(&mut layer, row.key);
            if let Some(value) = value {
                put(&mut layer, row.key, value);
            }
        }
        remove(&mut layer, "run.reasons");
        remove(&mut layer, "run.chosen");
        Ok(layer)
    }

    /// A file's settings over those of `preset`, of the preset that the file names (`preset = "cifar-fs"`), or over the
    /// defaults. Not yet validated: flags may still come on top.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Data`] with the line when it cannot be understood.
    pub fn from_layers(preset: Option<&str>, path: &Path) -> Result<Config> {
        layered(preset, &read(path)?, path)
    }

    /// A configuration from TOML text; errors name `origin`.
    ///
    /// # Errors
    /// [`Error::Data`] with the line when it cannot be understood.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Config> {
        layered(None, text, origin)
    }

    /// Lays a table of settings, of the form that a file has, over this configuration: each setting in it replaces the one
    /// here. Another backbone brings its widths where the layer has none.
    ///
    /// # Errors
    /// [`Error::Setting`] when a value has not the setting's type.
    pub fn lay(&mut self, layer: &Table) -> Result<()> {
        let backbone = self.model.backbone;
        for row in settings() {
            if let Some(value) = at(layer, row.key) {
                row.lay(self, value.clone())?;
            }
        }
        if self.model.backbone != backbone && at(layer, "model.widths").is_none() {
            self.model.widths = self.model.backbone.default_widths();
        }
        Ok(())
    }

    /// The settings as the user gave them: without what `run.memory_budget` or the device chose.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `run.chosen` lists what neither chooses.
    pub fn as_given(&self) -> Result<Config> {
        let (mut given, unset) = (self.clone(), Config::default());
        for entry in std::mem::take(&mut given.run.chosen) {
            let (row, value) = chosen(&entry)?;
            match value {
                Some(value) => row.lay(&mut given, value)?,
                None => (row.copy)(&mut given, &unset),
            }
        }
        Ok(given)
    }

    /// Notes in `run.chosen` which settings are not `given`'s, and what they were there.
    pub fn note_choices(&mut self, given: &Config) {
        let unset = Config::default();
        let rows = settings().filter(|row| row.chooser != Chooser::User && !(row.same)(self, given));
        let note = |row: &Setting| {
            let name = row.key.trim_start_matches("run.");
            match (row.get)(given).filter(|_| !(row.same)(given, &unset)) {
                Some(value) => format!("{name} = {value}"),
                None => name.to_owned(),
            }
        };
        self.run.chosen = rows.map(note).collect();
    }

    /// Keeps what a budget or a device chose for `stored`, the run that this one continues, where it decides the numbers
    /// and nothing else is given than was for that run.
    pub fn keep_choices(&mut self, stored: &Config) {
        let Ok(given) = stored.as_given() else { return };
        let mut kept = Vec::new();
        for entry in &stored.run.chosen {
            match chosen(entry) {
                Ok((row, _)) if row.effect == Effect::Numbers && (row.same)(self, &given) => {
                    (row.copy)(self, stored);
                    kept.push(entry.clone());
                }
                _ => {}
            }
        }
        if !kept.is_empty() {
            self.run.chosen = kept;
        }
    }

    /// The settings that a recipe or a time chose, as `run.reasons` says.
    pub fn reasoned(&self) -> impl Iterator<Item = &'static Setting> {
        self.run.reasons.iter().filter_map(|reason| setting(reason.split_once(':')?.0))
    }

    /// Takes over what a recipe or a time chose for `stored`, the run that this one continues, with the reasons.
    pub fn keep_reasoned(&mut self, stored: &Config) {
        stored.reasoned().for_each(|row| (row.copy)(self, stored));
        self.run.reasons = stored.run.reasons.clone();
    }

    /// The keys, such as `optimiser.lr`, whose values differ from `other`'s.
    pub fn differences(&self, other: &Config) -> Vec<&'static str> {
        settings().filter(|row| !(row.same)(self, other)).map(|row| row.key).collect()
    }

    /// The run folder: the setting, or `runs/` and the name of the preset, else that of the data without its ending. A
    /// place without a name, such as `.`, has that of the default preset.
    pub fn out_folder(&self) -> PathBuf {
        let named = Path::new(&self.data.source).file_stem().map_or(Some(DEFAULT_PRESET), |name| name.to_str());
        // Of a pattern of shards, what stands before its braces.
        let before = |name: &'_ str| {
            name.split_once('{').map_or(name.len(), |(name, _)| name.trim_end_matches(['-', '_']).len())
        };
        let named = named.map(|name| &name[..before(name)]);
        let of_data = named.filter(|name| !name.is_empty() && !self.data.is_glyphs());
        match &self.run.out {
            Some(out) => out.clone(),
            None => Path::new("runs").join(self.preset.as_deref().or(of_data).unwrap_or("custom")),
        }
    }
}

impl Setting {
    fn lay(&self, config: &mut Config, value: toml::Value) -> Result<()> {
        let got = value.to_string();
        (self.set)(config, value).map_err(|e| Error::Setting {
            key: self.key,
            got,
            wanted: format!("of another type ({})", e.message().trim().replace('\n', ", ")),
            suggestion: Vec::new(),
        })
    }
}

/// An entry of `run.chosen`: the setting, and what the user gave where that is not the default.
fn chosen(entry: &str) -> Result<(&'static Setting, Option<toml::Value>)> {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (entry, None),
    };
    let wrong = || Error::Conflict {
        keys: vec!["run.chosen"],
        why: format!("run.chosen lists `{entry}`, which neither a memory budget nor a device chooses"),
        changes: vec![Change::Unset("run.chosen")],
    };
    let row = setting(&format!("run.{name}")).filter(|row| row.chooser != Chooser::User).ok_or_else(wrong)?;
    let value = match value {
        Some(text) => {
            let table: Table = toml::from_str(&format!("value = {text}")).map_err(|_| wrong())?;
            Some(table.get("value").cloned().ok_or_else(wrong)?)
        }
        None => None,
    };
    Ok((row, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::{BatchStatistics, ByteSize, DecayAt, DropBlockSize, Length, Winograd};
    use super::*;

    fn from(text: &str) -> Result<Config> {
        Config::from_toml(text, Path::new("test.toml"))
    }

    #[test]
    fn a_file_lies_over_its_preset() {
        let config =
            from("preset = \"cifar-fs\"\n[optimiser]\nlength = { steps = 7 }\ndecay_at = { fractions = [0.5] }");
        let config = config.unwrap();
        assert_eq!(config.optimiser.length, Length::Steps(7));
        assert_eq!(config.optimiser.decay_at, DecayAt::Fractions(vec![0.5]));
        assert_eq!(config.optimiser.batch, 64);
        assert_eq!(config.data.side, Some(32));

        let conv4 = from("preset = \"omniglot\"\n[model]\nbackbone = \"conv4\"").unwrap();
        assert_eq!(conv4.model.widths, [64; 4], "a new backbone brings its own widths");
        let same = from("preset = \"omniglot\"\n[model]\nbackbone = \"resnet12\"").unwrap();
        assert_eq!(same.model.widths, [16, 32, 64, 128]);
        let rate = from("preset = \"mini-imagenet\"\n[model]\ndrop_block = { rate = 0.2 }").unwrap();
        assert_eq!(rate.model.drop_block.size, DropBlockSize::Fixed(5));
    }

    #[test]
    fn a_bad_file_gets_its_line() {
        for (text, needle) in [
            ("[optimiser]\nlrr = 1", "line 2: unknown field `lrr`"),
            ("[optimiser]\n\nlr = \"fast\"", "line 3: invalid type"),
            ("[model]\nbackbone = \"resnet18\"", "line 2: unknown variant `resnet18`"),
            ("[model]\nwidths = [1, -2]", "line 2"),
            ("[model.drop_block]\nsize = -1", "line 2"),
            ("[method]\ntransforms = \"rot5\"", "line 2: rot4, crop4"),
            ("[optimiser]\nlength = { epochs = 1, steps = 2 }", "line 2"),
            ("[optimiser", "line 1"),
            ("preset = \"cifar\"", "there is no preset `cifar`"),
        ] {
            let message = from(text).unwrap_err().to_string();
            assert!(message.contains(needle), "{text:?}: {message}");
            assert!(!message.contains('\n'), "{message:?}");
        }
    }

    #[test]
    fn what_a_budget_chose_is_told_from_what_the_user_gave() {
        let mut given = Config::from_preset("omniglot").unwrap();
        given.run.memory_budget = Some(ByteSize(1 << 20));
        let mut fitted = given.clone();
        (fitted.run.micro_batch, fitted.run.recompute) = (Some(4), 3);
        assert_eq!(fitted.as_given().unwrap(), fitted, "what nobody chose is the user's");
        fitted.run.chosen = vec!["micro_batch".into(), "recompute".into()];
        assert_eq!(from(&fitted.to_toml().unwrap()).unwrap(), fitted);
        assert_eq!(fitted.as_given().unwrap(), given);
        let mut resumed = given.clone();
        resumed.keep_choices(&fitted);
        assert_eq!((resumed.run.micro_batch, resumed.run.recompute), (Some(4), 0));
        assert_eq!(resumed.as_given().unwrap(), given);
        fitted.run.chosen = vec!["seed".into()];
        assert!(fitted.as_given().unwrap_err().to_string().contains("run.chosen lists `seed`"));
    }

    #[test]
    fn differences_name_the_keys() {
        let a = Config::from_preset("omniglot").unwrap();
        let mut b = a.clone();
        assert_eq!(a.differences(&b), Vec::<&str>::new());
        b.optimiser.lr = 0.1;
        b.model.drop_block.rate = 0.3;
        b.optimiser.length = Length::Epochs(3);
        assert_eq!(a.differences(&b), ["model.drop_block.rate", "optimiser.length", "optimiser.lr"]);
    }

    #[test]
    fn what_the_user_gave_comes_back_when_a_budget_chose_more() {
        let mut given = Config::from_preset("omniglot").unwrap();
        given.run.memory_budget = Some(ByteSize(1 << 20));
        given.run.recompute = 2;
        let mut fitted = given.clone();
        (fitted.run.micro_batch, fitted.run.recompute) = (Some(4), 5);
        fitted.note_choices(&given);
        assert_eq!(fitted.run.chosen, ["micro_batch", "recompute = 2"]);
        assert_eq!(from(&fitted.to_toml().unwrap()).unwrap(), fitted);
        assert_eq!(fitted.as_given().unwrap(), given);
        for wrong in ["recompute = ", "recompute = two", "recompute = -1", "batch_norm", "= 1", ""] {
            fitted.run.chosen = vec![wrong.into()];
            assert!(fitted.as_given().is_err(), "{wrong}");
        }
    }

    /// A device's answer to `winograd = "auto"` and a budget's micro-batches decide the numbers: a resumed run keeps them,
    /// whatever the device and the budget are now.
    #[test]
    fn a_resumed_run_keeps_what_decides_its_numbers() {
        let mut given = Config::from_preset("demo").unwrap();
        given.run.batch_norm = BatchStatistics::Micro;
        for micro_batch in [None, Some(8)] {
            given.run.micro_batch = micro_batch;
            let mut stored = given.clone();
            (stored.run.winograd, stored.run.micro_batch) = (Winograd::On, Some(4));
            stored.note_choices(&given);
            let mut resumed = stored.as_given().unwrap();
            resumed.keep_choices(&stored);
            assert_eq!(resumed, stored);
            // Another wish is the user's, and seen as a change.
            let mut other = stored.as_given().unwrap();
            other.run.winograd = Winograd::Off;
            other.keep_choices(&stored);
            assert_eq!(other.differences(&stored), ["run.winograd"]);
        }
    }

    #[test]
    fn a_layer_replaces_what_it_names_and_nothing_else() {
        let mut config = Config::from_preset("mini-imagenet").unwrap();
        let before = config.clone();
        config.lay(&Table::new()).unwrap();
        assert_eq!(config, before);
        let mut layer = Table::new();
        put(&mut layer, "optimiser.length.steps", 7.into());
        put(&mut layer, "model.drop_block.rate", 0.2.into());
        config.lay(&layer).unwrap();
        assert_eq!(config.differences(&before), ["model.drop_block.rate", "optimiser.length"]);
        let mut wrong = Table::new();
        put(&mut wrong, "optimiser.lr", "fast".into());
        let error = config.lay(&wrong).unwrap_err();
        assert!(matches!(&error, Error::Setting { key: "optimiser.lr", .. }), "{error}");
    }
}
