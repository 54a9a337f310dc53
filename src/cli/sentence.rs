//! Errors as sentences for the command line: keys of settings become flags, and the way out is added.

use crate::Error;
use crate::error::Change;
use crate::settings::{Flag, setting};

/// One sentence that names the thing, what is wrong with it, and the way out.
pub fn sentence(error: &Error) -> String {
    match error {
        Error::Setting { key, got, wanted, suggestion } => {
            let (own, others): (Vec<_>, Vec<_>) =
                suggestion.iter().partition(|change| matches!(change, Change::Set(of, _) if of == key));
            let values: Vec<_> = own.iter().filter_map(|change| value_of(change)).collect();
            let values = if values.is_empty() { String::new() } else { format!(" (try {})", values.join(" or ")) };
            format!("{} must be {wanted}, got {got}{values}{}", named(key, None), ways_out(&others))
        }
        Error::Conflict { keys, why, changes } => {
            let text = in_flags(why);
            let changes: Vec<_> = changes.iter().collect();
            match keys.iter().any(|key| why.contains(key)) {
                true => format!("{text}{}", ways_out(&changes)),
                false => {
                    let keys: Vec<_> = keys.iter().map(|key| named(key, None)).collect();
                    format!("{}: {text}{}", keys.join(", "), ways_out(&changes))
                }
            }
        }
        other => other.to_string(),
    }
}

fn value_of(change: &Change) -> Option<&str> {
    match change {
        Change::Set(_, value) => Some(value),
        _ => None,
    }
}

/// The flag that gives the setting `value`, or its usual one.
fn flag_of(key: &str, value: Option<&str>) -> Option<&'static Flag> {
    let flags = setting(key)?.flags;
    let form = flags.iter().find(|flag| flag.form_key == key);
    let switch = || flags.iter().find(|flag| flag.constant.is_some_and(|it| Some(it.to_string().as_str()) == value));
    form.or_else(switch).or(flags.first())
}

/// The flag as it is written with `value`.
fn word(key: &str, value: Option<&str>) -> Option<String> {
    let flag = flag_of(key, value)?;
    Some(match value.filter(|_| flag.constant.is_none()) {
        Some(value) => format!("--{} {value}", flag.name),
        None => format!("--{}", flag.name),
    })
}

/// A setting as people meet it: `--lr (optimiser.lr)`, or with a value `--bn exact (run.batch_norm)`.
fn named(key: &str, value: Option<&str>) -> String {
    match word(key, value) {
        Some(word) if word == format!("--{key}") => word,
        Some(word) => format!("{word} ({key})"),
        None => key.to_owned(),
    }
}

/// The text with every key of a setting, and every `key = value`, as a flag.
fn in_flags(text: &str) -> String {
    let mut out = Vec::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let key = word.trim_end_matches([',', '.', ':', ';', ')']);
        if !key.contains('.') || setting(key).is_none() {
            out.push(word.to_owned());
            continue;
        }
        let mut rest = words.clone();
        match (word == key && rest.next() == Some("="), rest.next()) {
            (true, Some(value)) => {
                words = rest;
                let bare = value.trim_end_matches([',', ':', ';']);
                out.push(format!("{}{}", named(key, Some(bare)), &value[bare.len()..]));
            }
            _ => out.push(format!("{}{}", named(key, None), &word[key.len()..])),
        }
    }
    out.join(" ")
}

/// `; ` and the changes, of which one is enough; nothing where there are none.
fn ways_out(changes: &[&Change]) -> String {
    let flag = |key: &&'static str| word(key, None).unwrap_or_else(|| (*key).to_owned());
    let way = |change: &&Change| match change {
        Change::Set(key, value) => match word(key, Some(value)) {
            Some(word) => format!("add {word}"),
            None => format!("set {key} = {value}"),
        },
        Change::Lower(key) => format!("lower {}", flag(key)),
        Change::Raise(key) => format!("raise {}", flag(key)),
        Change::Unset(key) => format!("leave out {}", flag(key)),
    };
    let ways: Vec<_> = changes.iter().map(way).collect();
    if ways.is_empty() { String::new() } else { format!("; {}", ways.join(", or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_flags() {
        let setting =
            |key, suggestion| Error::Setting { key, got: "0".into(), wanted: "from 1 to 9".into(), suggestion };
        assert_eq!(
            sentence(&setting("optimiser.batch", vec![Change::Set("optimiser.batch", "4".into())])),
            "--batch (optimiser.batch) must be from 1 to 9, got 0 (try 4)"
        );
        assert_eq!(
            sentence(&setting("optimiser.length.steps", vec![Change::Raise("optimiser.lr")])),
            "--steps (optimiser.length.steps) must be from 1 to 9, got 0; raise --lr"
        );
        let conflict = Error::Conflict {
            keys: vec!["run.batch_norm", "run.micro_batch"],
            why: "run.micro_batch 4 and run.batch_norm = exact, or method.cross_entropy = false, or e.g. optimiser.lr."
                .into(),
            changes: vec![Change::Set("method.cross_entropy", "true".into()), Change::Unset("run.micro_batch")],
        };
        assert_eq!(
            sentence(&conflict),
            "--micro-batch (run.micro_batch) 4 and --bn exact (run.batch_norm), or --no-cross-entropy \
             (method.cross_entropy), or e.g. --lr (optimiser.lr).; add --cross-entropy, or leave out --micro-batch"
        );
        let bare = Error::Conflict { keys: vec!["run.seed"], why: "nothing".into(), changes: vec![] };
        assert_eq!(sentence(&bare), "--seed (run.seed): nothing");
    }
}
