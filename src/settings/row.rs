//! The columns of the table of settings.

use super::values::{End, Range, Read};

/// What a setting changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// What is computed: another value makes another run.
    Numbers,
    /// How much memory it takes, and time; the numbers stay the same.
    Memory,
    /// Neither: when something is said or saved, how the work is cut up, where results go.
    Neither,
}

/// Who may choose a setting that the user did not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chooser {
    /// Nobody else.
    User,
    /// What makes a run fit `run.memory_budget`.
    Budget,
    /// The first device that the run is done on.
    Device,
}

/// A flag of the command line that gives a setting a value.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Flag {
    /// Its name, without dashes.
    pub name: &'static str,
    /// Its name of one letter.
    pub short: Option<char>,
    /// What its value is called in the help; empty for a switch.
    pub value: &'static str,
    /// What a switch sets.
    pub constant: Option<bool>,
    /// The form of the setting that it gives, as in `{ steps = 400 }`; empty where there is one form.
    pub form: &'static str,
    /// The key of that form; empty where there is one form.
    pub form_key: &'static str,
    /// Help of its own, where the setting's is not enough.
    pub help: &'static str,
    /// Whether `-h` shows it, which fits on a screen.
    pub on_screen: bool,
    /// Whether no help shows it.
    pub hidden: bool,
    /// Which values it may have.
    pub range: Range,
    /// Values that would do, for a sentence about one that does not.
    pub examples: &'static [&'static str],
    pub(super) read: Option<Read>,
}

/// `--NAME VALUE`.
pub(super) const fn flag(name: &'static str, value: &'static str) -> Flag {
    Flag {
        name,
        short: None,
        value,
        constant: None,
        form: "",
        form_key: "",
        help: "",
        on_screen: false,
        hidden: false,
        range: Range::Any,
        examples: &[],
        read: None,
    }
}

/// `--NAME`, which sets `constant`.
pub(super) const fn switch(name: &'static str, constant: bool) -> Flag {
    Flag { constant: Some(constant), ..flag(name, "") }
}

impl Flag {
    pub(super) const fn short(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    pub(super) const fn on_screen(self) -> Flag {
        Flag { on_screen: true, ..self }
    }

    pub(super) const fn hidden(self) -> Flag {
        Flag { hidden: true, ..self }
    }

    pub(super) const fn help(self, help: &'static str) -> Flag {
        Flag { help, ..self }
    }

    /// The form `form`, whose key is `form_key` and whose words `read` understands.
    pub(super) const fn form(self, form: &'static str, form_key: &'static str, read: Read) -> Flag {
        Flag { form, form_key, read: Some(read), ..self }
    }

    pub(super) const fn range(self, range: Range, examples: &'static [&'static str]) -> Flag {
        Flag { range, examples, ..self }
    }

    /// Whole numbers, both ends included.
    pub(super) const fn whole(self, low: u64, high: u64, examples: &'static [&'static str]) -> Flag {
        self.range(Range::Whole(low, high), examples)
    }

    /// low <= x <= high.
    pub(super) const fn closed(self, low: f64, high: f64, examples: &'static [&'static str]) -> Flag {
        self.range(Range::Real(End::With(low), End::With(high)), examples)
    }

    /// low < x <= high.
    pub(super) const fn above(self, low: f64, high: f64, examples: &'static [&'static str]) -> Flag {
        self.range(Range::Real(End::Without(low), End::With(high)), examples)
    }

    /// low <= x < high.
    pub(super) const fn below(self, low: f64, high: f64, examples: &'static [&'static str]) -> Flag {
        self.range(Range::Real(End::With(low), End::Without(high)), examples)
    }
}
