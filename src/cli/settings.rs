//! The flags of settings, made from the table: what was given becomes a layer over preset and file.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::Table;

use crate::Result;
use crate::jobs::fit::{Given, LENGTHS, check_length};
use crate::settings::{
    Config, DEFAULT_PRESET, Flag, PRESETS, Recipe, Setting, at, flags_for_resume, merge, put, remove, settings,
};

/// The heading of distillation's settings, which not every command has.
const DISTILL: &str = "Distillation";

/// The flags of every setting except distillation's; what is given lies over the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFlags {
    /// The preset.
    pub preset: Option<String>,
    /// The file of settings.
    pub config: Option<PathBuf>,
    given: Table,
}

/// The flags of distillation's settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DistillFlags {
    given: Table,
}

impl ConfigFlags {
    /// The settings that `--preset` and `--config` name, else `fallback`'s; before the flags. What a memory budget
    /// chose for another run is left behind: it is chosen anew.
    ///
    /// # Errors
    /// Those of [`Config::from_layers`] and of `fallback`.
    pub fn base(&self, fallback: impl FnOnce() -> Result<Config>) -> Result<Config> {
        match (&self.preset, &self.config) {
            (preset, Some(file)) => Config::from_layers(preset.as_deref(), file),
            (Some(preset), None) => Config::from_preset(preset),
            (None, None) => fallback(),
        }?
        .as_given()
    }

    /// The whole configuration: preset, file, flags; where none of them names a preset or a file, the defaults for data
    /// or a recipe that is named, else the demo.
    ///
    /// # Errors
    /// Those of [`Config::from_layers`].
    pub fn resolve(&self) -> Result<Config> {
        self.wish().map(|(config, _)| config)
    }

    /// The whole configuration, and what of it was given, where a recipe and a time may choose the rest. A recipe is in
    /// force where a flag, or `recipe = "auto"` in a file, names it, and without a preset and a file where the flags name
    /// data of the user's own. Of a length and a time that are given in layers, that of the upper one counts.
    ///
    /// # Errors
    /// Those of [`Config::from_layers`]; [`crate::Error::Conflict`] where one layer names both a length and a time, or a
    /// flag has no effect.
    pub fn wish(&self) -> Result<(Config, Given)> {
        let flags = &self.given;
        check_length(flags)?;
        let mut layer = self.config.as_deref().map(Config::read_layer).transpose()?.unwrap_or_default();
        check_length(&layer)?;
        let named = |layer: &Table, key: &str| at(layer, key).is_some();
        // A flag that says the length counts, and not what the file says in another way.
        let over = LENGTHS.into_iter().find(|key| named(flags, key));
        LENGTHS.into_iter().filter(|key| over.is_some_and(|over| over != *key)).for_each(|key| remove(&mut layer, key));
        let bare = self.preset.is_none() && self.config.is_none();
        let auto = |layer: &Table| at(layer, "recipe").and_then(toml::Value::as_str) == Some("auto");
        // The embedded glyphs are the demo's own data.
        let own = at(flags, "data.source").and_then(toml::Value::as_str).is_some_and(|source| source != "glyphs");
        let asked = named(flags, "recipe") || auto(&layer) || (bare && own);
        let mut config = self.base(|| match asked {
            true => Ok(Config { recipe: Recipe::Auto, ..Config::default() }),
            false => Config::from_preset(DEFAULT_PRESET),
        })?;
        merge(&mut layer, flags);
        let recipe = asked && config.preset.is_none();
        if recipe {
            // What the recipe of another run chose is chosen anew.
            config = Config { recipe: config.recipe, ..Config::default() };
            config.lay(&layer)?;
            config.check_given(flags)?;
        } else {
            config.run.reasons.clear();
            self.apply(&mut config)?;
        }
        if over.is_some_and(|over| over != "run.time") {
            config.run.time = None;
        }
        if over.is_some_and(|over| over != "run.rows") {
            config.run.rows = None;
        }
        Ok((config, Given { layer, recipe }))
    }

    /// A sentence on the values in the file that do not count for a new run of `config`: those that a recipe or a time chose
    /// for the run that the file is of, which are chosen anew. None where there are none, or flags give them all.
    ///
    /// # Errors
    /// Those of [`Config::from_layers`].
    pub fn chosen_anew(&self, config: &Config, given: &Given) -> Result<Option<String>> {
        let Some(file) = &self.config else { return Ok(None) };
        let timed = config.run.time.is_some() || config.run.rows.is_some();
        let of_file = Config::from_layers(None, file)?;
        let anew = of_file.reasoned().filter(|row| given.recipe || (timed && row.key == "optimiser.length"));
        let keys: Vec<_> = anew.map(|row| row.key).filter(|key| !self.name(key)).collect();
        Ok((!keys.is_empty()).then(|| {
            format!(
                "{}: a recipe or a time chose {} for the run of this file, and they are chosen anew; a flag gives one a \
                 value, and so does the file once its line under run.reasons is gone",
                file.display(),
                keys.join(", ")
            )
        }))
    }

    /// Lays the flags that were given over `config`, where each of them must have an effect.
    ///
    /// # Errors
    /// Those of [`Config::lay`] and [`Config::check_given`].
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        config.lay(&self.given)?;
        config.check_given(&self.given)
    }

    /// Lays a source of data that an argument names over the rest, as its flag would.
    pub fn set_data(&mut self, source: &str) {
        put(&mut self.given, "data.source", source.into());
    }

    /// The file or folder that `--out` names, for a command that writes something else than a run there.
    pub fn take_out(&mut self) -> Option<PathBuf> {
        let out = at(&self.given, "run.out")?.as_str().map(PathBuf::from);
        remove(&mut self.given, "run.out");
        out
    }

    /// Whether a flag gives the setting a value.
    pub fn name(&self, key: &str) -> bool {
        at(&self.given, key).is_some()
    }
}

impl DistillFlags {
    /// Lays the flags that were given over `config`.
    ///
    /// # Errors
    /// Those of [`Config::lay`].
    pub fn apply(&self, config: &mut Config) -> Result<()> {
        config.lay(&self.given)
    }
}

fn general() -> impl Iterator<Item = &'static Setting> {
    settings().filter(|setting| setting.heading != DISTILL)
}

fn distilling() -> impl Iterator<Item = &'static Setting> {
    settings().filter(|setting| setting.heading == DISTILL)
}

/// The argument of a flag.
fn arg(setting: &Setting, flag: &Flag) -> Arg {
    let mut arg = Arg::new(flag.name)
        .long(flag.name)
        .help(setting.short_help(flag))
        .help_heading(setting.heading)
        .hide(flag.hidden)
        .hide_short_help(!flag.on_screen)
        .hide_possible_values(true);
    if let Some(short) = flag.short {
        arg = arg.short(short);
    }
    let others = setting.flags.iter().map(|other| other.name).filter(|other| *other != flag.name);
    if flag.constant.is_some() {
        return arg.action(ArgAction::SetTrue).overrides_with_all(others);
    }
    let arg = arg.value_name(flag.value).conflicts_with_all(others);
    let names: Vec<&str> = match setting.key {
        "preset" => PRESETS.iter().map(|(name, _)| *name).collect(),
        _ => setting.names.to_vec(),
    };
    match names.is_empty() {
        true => arg.value_parser(setting.reader(flag)),
        // clap then suggests near ones.
        false => arg.value_parser(PossibleValuesParser::new(names).map(toml::Value::String)),
    }
}

fn args(settings: impl Iterator<Item = &'static Setting>) -> impl Iterator<Item = Arg> {
    settings.flat_map(|setting| setting.flags.iter().map(move |flag| arg(setting, flag)))
}

/// What was given on the command line, in the form that a file has.
fn given(settings: impl Iterator<Item = &'static Setting>, matches: &ArgMatches) -> Table {
    let mut layer = Table::new();
    for (setting, flag) in settings.flat_map(|setting| setting.flags.iter().map(move |flag| (setting, flag))) {
        if matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let value = match flag.constant {
            Some(constant) => Some(toml::Value::Boolean(constant)),
            None => matches.get_one::<toml::Value>(flag.name).cloned(),
        };
        let key = if flag.form_key.is_empty() { setting.key } else { flag.form_key };
        if let Some(value) = value {
            put(&mut layer, key, value);
        }
    }
    layer
}

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file of settings, over the preset")
            .long_help(
                "TOML file of settings, over the preset\n\nThe same keys as in the config.toml of any run folder. It may \
                 name its preset itself. What a recipe or a time chose for that run, as run.reasons there says, is chosen anew.",
            )
            .help_heading("Data");
        let mut args = args(general());
        command.args(args.next()).arg(file).args(args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let given = given(general(), matches);
        let preset = given.get("preset").and_then(toml::Value::as_str).map(str::to_owned);
        Ok(ConfigFlags { preset, config: matches.get_one::<PathBuf>("config").cloned(), given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for DistillFlags {
    fn augment_args(command: Command) -> Command {
        command.args(args(distilling()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DistillFlags {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(DistillFlags { given: given(distilling(), matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `command` with what the derive cannot say: numbers may begin with a minus, so that they reach the sentence about their
/// range; settings have their value in the demo preset, and `--resume` what a resumed run may change.
pub(super) fn with_defaults(command: Command) -> Result<Command> {
    let demo = Config::from_preset(DEFAULT_PRESET)?;
    let with_minus = |arg: Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    Ok(command.mut_subcommands(|command| match command.get_name() {
        name @ ("train" | "distill" | "ablate" | "plan" | "views") => {
            let less = less_used(name);
            command.mut_args(|arg| {
                let off = arg.get_long().is_some_and(|long| less.contains(&long));
                let arg = if off { arg.hide_short_help(true) } else { arg };
                described(with_minus(arg), &demo)
            })
        }
        _ => command.mut_args(with_minus),
    }))
}

/// Flags that a command has less use for than `train`: its one screen of help leaves them out.
fn less_used(command: &str) -> &'static [&'static str] {
    match command {
        // Settings are the teacher's.
        "distill" => &["preset", "config"],
        // Memory and operations do not depend on them.
        "plan" => &["epochs", "steps", "out", "generations"],
        // Nor do views on how long they are trained with, and by how much.
        "views" => &["epochs", "steps", "time", "generations", "lr", "min-acc", "batch", "memory-budget"],
        _ => &[],
    }
}

/// The argument with its long help: of a setting with its key and its value in `demo`, of `--resume` with what a resumed
/// run may change.
fn described(arg: Arg, demo: &Config) -> Arg {
    let long = arg.get_long().unwrap_or_default().to_owned();
    if long == "resume" {
        let flags: Vec<_> = flags_for_resume().map(|flag| format!("--{flag}")).collect();
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        return arg.long_help(format!(
            "{help} Only what changes no number may change: {}, and the path of the same data (--data).",
            flags.join(", ")
        ));
    }
    let row = settings().find_map(|setting| Some((setting, setting.flags.iter().find(|flag| flag.name == long)?)));
    let Some((setting, flag)) = row else { return arg };
    let note = match setting.key {
        "preset" => format!("one of {}", PRESETS.map(|(name, _)| name).join(", ")),
        key => format!("{key}; demo: {}", setting.shown(demo)),
    };
    arg.long_help(format!("{}\n\n[{note}]", setting.long_help(flag)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::tests::parse;
    use super::super::{Command, command};
    use super::*;
    use crate::settings::DecayAt;

    fn config(words: &[&str]) -> Config {
        match parse(&[&["plan"], words].concat()).unwrap().command {
            Command::Plan(args) => args.config.resolve().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Every setting has its flags on `plan`, which carries all of them, and each says its key and default.
    #[test]
    fn every_setting_is_a_flag() {
        let command = command().unwrap();
        let plan = command.find_subcommand("plan").unwrap();
        for row in settings().filter(|row| row.key != "preset") {
            for flag in row.flags {
                let arg = plan.get_arguments().find(|arg| arg.get_long() == Some(flag.name));
                let help = arg.unwrap_or_else(|| panic!("--{}", flag.name)).get_long_help().unwrap().to_string();
                assert!(help.contains(&format!("[{}; demo: ", row.key)), "--{}: {help}", flag.name);
            }
        }
    }

    /// A flag for every setting at a value of its own: each must reach its own key and no other.
    #[test]
    fn every_flag_reaches_its_own_setting() {
        let config = |words: &[&str]| config(&[&["--preset", "demo"], words].concat());
        let base = config(&[]);
        for (flag, value, key) in [
            ("--data", "photos", "data.source"),
            ("--side", "30", "data.side"),
            ("--crop-padding", "1", "data.crop_padding"),
            ("--mean", "0.5", "data.mean"),
            ("--std", "0.1,0.2,0.3", "data.std"),
            ("--split-seed", "9", "data.split_seed"),
            ("--split-file", "split.txt", "data.split_file"),
            ("--widths", "1,2,3,4", "model.widths"),
            ("--projection", "9", "model.projection"),
            ("--dropout", "0.3", "model.dropout"),
            ("--drop-block-rate", "0.3", "model.drop_block.rate"),
            ("--drop-block-size", "3", "model.drop_block.size"),
            ("--drop-block-ramp-steps", "3", "model.drop_block.ramp_steps"),
            ("--method", "baseline", "method.kind"),
            ("--transforms", "affine-8", "method.transforms"),
            ("--gamma", "0.3", "method.gamma"),
            ("--tau", "0.3", "method.tau"),
            ("--negatives", "3", "method.negatives"),
            ("--bank-momentum", "0.3", "method.bank_momentum"),
            ("--label-smoothing", "0.3", "method.label_smoothing"),
            ("--batch", "3", "optimiser.batch"),
            ("--epochs", "3", "optimiser.length"),
            ("--steps", "3", "optimiser.length"),
            ("--lr", "0.3", "optimiser.lr"),
            ("--schedule", "steps", "optimiser.schedule"),
            ("--warmup", "0.3", "optimiser.warmup"),
            ("--clip-norm", "0.3", "optimiser.clip_norm"),
            ("--average", "0.3", "optimiser.average"),
            ("--momentum", "0.3", "optimiser.momentum"),
            ("--weight-decay", "0.3", "optimiser.weight_decay"),
            ("--seed", "3", "run.seed"),
            ("--time", "20m", "run.time"),
            ("--out", "there", "run.out"),
            ("--checkpoint-every", "3", "run.checkpoint_every"),
            ("--log-every", "3", "run.log_every"),
            ("--slice-ms", "3", "run.slice_ms"),
            ("--micro-batch", "3", "run.micro_batch"),
            ("--recompute", "3", "run.recompute"),
            ("--activations", "f16", "run.activations"),
            ("--bn", "micro", "run.batch_norm"),
            ("--winograd", "off", "run.winograd"),
            ("--tune", "full", "run.tune"),
            ("--memory-budget", "4GiB", "run.memory_budget"),
            ("--on-device-lost", "resume", "run.on_device_lost"),
        ] {
            assert_eq!(config(&[flag, value]).differences(&base), [key], "{flag}");
        }
        for (flag, key) in [
            ("--no-cross-entropy", "method.cross_entropy"),
            ("--no-equivariance", "method.equivariance"),
            ("--no-invariance", "method.invariance"),
            ("--no-decay-norm", "optimiser.decay_norm"),
        ] {
            assert_eq!(config(&[flag]).differences(&base), [key], "{flag}");
            let back = flag.replace("--no-", "--");
            assert_eq!(config(&[flag, &back]).differences(&base), [""; 0], "{flag} {back}");
        }
        assert_eq!(config(&["--no-nesterov"]).differences(&base), ["optimiser.nesterov"]);
        assert_eq!(config(&["--no-nesterov", "--nesterov"]).differences(&base), [""; 0]);
        // A cosine has no points of decay.
        let steps = config(&["--schedule", "steps"]);
        for (flag, value, key) in [
            ("--decay-at-epochs", "3,4", "optimiser.decay_at"),
            ("--decay-at-fractions", "0.3", "optimiser.decay_at"),
            ("--decay-at-steps", "3,4", "optimiser.decay_at"),
            ("--decay", "0.3", "optimiser.decay"),
        ] {
            assert_eq!(config(&["--schedule", "steps", flag, value]).differences(&steps), [key], "{flag}");
        }
        let conv4 = config(&["--backbone", "conv4"]);
        assert_eq!(conv4.differences(&base), ["model.backbone", "model.widths"]);
        assert_eq!(
            config(&["--schedule", "steps", "--decay-at-epochs", "none"]).optimiser.decay_at,
            DecayAt::Epochs(vec![])
        );
    }

    fn wish(words: &[&str]) -> Result<(Config, Given)> {
        match parse(&[&["plan"], words].concat()).unwrap().command {
            Command::Plan(args) => args.config.wish(),
            other => panic!("{other:?}"),
        }
    }

    /// Which words put a recipe in force.
    #[test]
    fn a_recipe_takes_the_place_of_the_demo() {
        use Recipe::{Auto, Paper};
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let plain = file("plain.toml", "[optimiser]\nbatch = 7\nlength = { steps = 9 }");
        let auto = file("auto.toml", "recipe = \"auto\"\n[optimiser]\nbatch = 7");
        // As the run folder of a recipe has it.
        let reasons =
            "[run]\ntime = \"5m\"\nreasons = [\"optimiser.batch: few images\", \"optimiser.length.steps: in time\"]";
        let of_run = file(
            "run.toml",
            &format!("recipe = \"auto\"\n[optimiser]\nlr = 0.3\nbatch = 7\nlength = {{ steps = 9 }}\n{reasons}"),
        );
        for (words, recipe, in_force, preset) in [
            (&[][..], Paper, false, Some("demo")),
            (&["--steps", "3"], Paper, false, Some("demo")),
            (&["--data", "photos"], Auto, true, None),
            (&["--data", "photos", "--recipe", "paper"], Paper, true, None),
            (&["--recipe", "auto"], Auto, true, None),
            (&["--preset", "demo", "--data", "photos"], Paper, false, Some("demo")),
            (&["--preset", "demo", "--recipe", "paper"], Paper, false, Some("demo")),
            (&["--config", &plain, "--data", "photos"], Paper, false, None),
            (&["--config", &plain, "--recipe", "auto"], Auto, true, None),
            (&["--config", &auto], Auto, true, None),
            (&["--config", &of_run], Auto, true, None),
        ] {
            let (config, given) = wish(words).unwrap();
            let got = (config.recipe, given.recipe, config.preset.as_deref());
            assert_eq!(got, (recipe, in_force, preset), "{words:?}");
        }
        for preset in [&["--preset", "demo"][..], &["--data", "photos"]] {
            let idle = wish(&[preset, &["--schedule", "cosine", "--decay-at-epochs", "5"]].concat()).unwrap_err();
            assert!(idle.to_string().contains("has no effect"), "{idle}");
        }
        let (config, given) = wish(&["--config", &of_run]).unwrap();
        assert!(at(&given.layer, "optimiser.batch").is_none() && at(&given.layer, "optimiser.length").is_none());
        assert_eq!((config.optimiser.lr, config.run.time.map(|time| time.0)), (0.3, Some(300)));
        let anew = |words: &[&str]| {
            let Command::Plan(args) = parse(&[&["plan"], words].concat()).unwrap().command else { panic!("not plan") };
            let (config, given) = args.config.wish().unwrap();
            args.config.chosen_anew(&config, &given).unwrap()
        };
        assert!(anew(&["--config", &of_run]).unwrap().contains("chose optimiser.batch, optimiser.length for"));
        assert!(anew(&["--config", &of_run, "--steps", "9"]).unwrap().contains("chose optimiser.batch for"));
        assert_eq!(anew(&["--config", &of_run, "--steps", "9", "--batch", "3"]), None);
        assert_eq!(anew(&["--config", &auto]).or(anew(&["--preset", "demo"])), None);
        let both = wish(&["--preset", "demo", "--recipe", "auto"]).unwrap().0;
        assert!(both.validate().unwrap_err().to_string().contains("has its own settings"));
        // The upper layer's length or time counts; one layer has one of them.
        let timed = file("timed.toml", "[run]\ntime = \"5m\"");
        assert_eq!(wish(&["--config", &timed, "--steps", "3"]).unwrap().0.run.time, None);
        let (config, given) = wish(&["--config", &plain, "--time", "90s"]).unwrap();
        assert!(config.run.time.is_some() && at(&given.layer, "optimiser.length").is_none());
        assert!(wish(&["--time", "5m", "--steps", "3"]).is_err() && wish(&["--time", "5m", "--epochs", "3"]).is_err());
    }

    #[test]
    fn distillation_flags_reach_their_settings() {
        for (flag, key) in [
            ("--generations", "distill.generations"),
            ("--distill-temperature", "distill.temperature"),
            ("--weight-loss", "distill.weight_loss"),
            ("--weight-distill", "distill.weight_distill"),
            ("--kl-class", "distill.kl_class"),
            ("--kl-transform", "distill.kl_transform"),
            ("--mse-invariant", "distill.mse_invariant"),
            ("--mse-feature", "distill.mse_feature"),
        ] {
            let Command::Distill(args) = parse(&["distill", "--teacher", "t", flag, "7"]).unwrap().command else {
                panic!("not distill");
            };
            let mut config = Config::default();
            args.distill.apply(&mut config).unwrap();
            assert_eq!(config.differences(&Config::default()), [key], "{flag}");
        }
    }

    /// The help of `--resume` says what the table says, in both commands.
    #[test]
    fn resume_lists_what_may_change() {
        let command = command().unwrap();
        for name in ["train", "distill"] {
            let arguments = command.find_subcommand(name).unwrap().get_arguments();
            let arg = arguments.into_iter().find(|arg| arg.get_long() == Some("resume")).unwrap();
            let help = arg.get_long_help().unwrap().to_string();
            for flag in flags_for_resume() {
                assert!(help.contains(&format!("--{flag}")), "{name}, {flag}: {help}");
            }
            assert!(!help.contains("--lr") && !help.contains(".."), "{help}");
        }
    }
}
