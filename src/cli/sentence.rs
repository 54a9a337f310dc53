//! Errors as sentences for the command line: keys of settings and members of requests become flags, and the ways out
//! are added. What a file or a name brings along cannot reach the terminal as anything but text.

use crate::Error;
use crate::error::Change;
use crate::settings::{Flag, setting};

/// One sentence that names the thing, what is wrong with it, and the way out.
pub fn sentence(error: &Error) -> String {
    let text = match error {
        Error::Setting { key, got, wanted, suggestion } => {
            let (own, others): (Vec<_>, Vec<_>) =
                suggestion.iter().partition(|change| matches!(change, Change::Set(of, _) if of == key));
            let values = own.iter().filter_map(|change| match change {
                Change::Set(_, value) => Some(value.as_str()),
                _ => None,
            });
            let values: Vec<_> = values.collect();
            let values = if values.is_empty() { String::new() } else { format!(" (try {})", values.join(" or ")) };
            format!("{} must be {wanted}, got {got}{values}{}", flag_and_key(key, None), ways_out(&others))
        }
        Error::Conflict { keys, why, changes } => {
            let changes: Vec<_> = changes.iter().collect();
            match keys.iter().any(|key| why.contains(key)) {
                true => format!("{why}{}", ways_out(&changes)),
                false => {
                    let keys: Vec<_> = keys.iter().map(|key| flag_and_key(key, None)).collect();
                    format!("{}: {why}{}", keys.join(", "), ways_out(&changes))
                }
            }
        }
        Error::Argument { what, got, wanted } => format!("{} must be {wanted}, got {got}", flag_and_key(what, None)),
        Error::TooLarge { changes, .. } | Error::OutOfMemory { changes, .. } if !changes.is_empty() => {
            // Their own words up to the changes, which are the last.
            let own = error.to_string();
            let keys: Vec<_> = changes.iter().map(ToString::to_string).collect();
            let plain = own.strip_suffix(&format!("; {}", keys.join(", or "))).unwrap_or(&own).to_owned();
            format!("{plain}{}", ways_out(&changes.iter().collect::<Vec<_>>()))
        }
        // The device does not know what it is used for.
        Error::TooLarge { .. } | Error::OutOfMemory { .. } => {
            format!("{error}; a smaller --batch, narrower --widths or --memory-budget with --bn micro needs less")
        }
        Error::Diverged { .. } => error.to_string().replace("optimiser.lr", "--lr"),
        Error::Internal(_) | Error::Shader { .. } => format!("{error}; please report it with the command line"),
        // A path is no key, whatever it is called.
        Error::Data { path, message } | Error::NoSplit { path, message } => {
            return format!("{}: {}", path.display(), named(message));
        }
        other => other.to_string(),
    };
    named(&text)
}

/// The process exit code: 1 target missed or a number not finite, 2 usage, data or I/O, 3 no usable adapter or device,
/// 101 a defect of the program, 130 interrupted.
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::TargetMissed(_) | Error::NonFinite(_) | Error::Diverged { .. } => 1,
        Error::NoAdapter(_)
        | Error::Device(_)
        | Error::DeviceLost(_)
        | Error::Ranks(_)
        | Error::TooLarge { .. }
        | Error::OutOfMemory { .. } => 3,
        Error::Internal(_) | Error::Shader { .. } => 101,
        Error::Interrupted(_) => 130,
        _ => 2,
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
    let with = |name: &str, value: Option<&str>| match value {
        Some(value) => format!("--{name} {value}"),
        None => format!("--{name}"),
    };
    if let Some(member) = key.strip_prefix("request.") {
        return Some(with(&member.replace('_', "-"), value));
    }
    let flag = flag_of(key, value)?;
    Some(with(flag.name, value.filter(|_| flag.constant.is_none())))
}

/// A setting as people meet it: `--lr (optimiser.lr)`, or with a value `--bn exact (run.batch_norm)`; `--ways` for the
/// member `request.ways`; anything else as it is.
fn flag_and_key(key: &str, value: Option<&str>) -> String {
    match word(key, value) {
        Some(word) if key.starts_with("request.") || word == format!("--{key}") => word,
        Some(word) => format!("{word} ({key})"),
        None => key.to_owned(),
    }
}

/// `text` with every key of a setting, every member of a request and every `key = value` as its flag, without backticks
/// around it. A key in parentheses follows its flag already.
pub fn named(text: &str) -> String {
    let of_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(of_key) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !of_key(c)).unwrap_or(from.len());
        let word = from[..end].trim_end_matches('.');
        out += before;
        rest = &from[word.len().max(1)..];
        let is_part = |c: char| c.is_alphanumeric() || "(/\\-".contains(c);
        let known = word.contains('.') && (word.starts_with("request.") || setting(word).is_some());
        if !known || out.ends_with(is_part) {
            out += &from[..word.len().max(1)];
            continue;
        }
        if out.ends_with('`')
            && let Some(after) = rest.strip_prefix('`')
        {
            out.pop();
            rest = after;
        }
        let value = rest.strip_prefix(" = ").map(|after| {
            let word = after.split(' ').next().unwrap_or_default();
            word.trim_end_matches([',', '.', ':', ';', ')', '`'])
        });
        out += &flag_and_key(word, value);
        rest = &rest[value.map_or(0, |value| " = ".len() + value.len())..];
    }
    out + rest
}

/// `; ` and the changes, of which one is enough; nothing where there are none.
fn ways_out(changes: &[&Change]) -> String {
    let flag = |key: &&'static str| word(key, None).unwrap_or_else(|| (*key).to_owned());
    let way = |change: &&Change| match change {
        Change::Set(key, value) => match word(key, Some(value)) {
            Some(word) => format!("add {word}"),
            None => format!("set {key} = {value}"),
        },
        Change::Lower(key) => format!("take a smaller {}", flag(key)),
        Change::Raise(key) => format!("take a larger {}", flag(key)),
        Change::Unset(key) => format!("leave {} out", flag(key)),
    };
    let ways: Vec<_> = changes.iter().map(way).collect();
    if ways.is_empty() { String::new() } else { format!("; {}", ways.join(", or ")) }
}

/// `text` as one line without anything that a terminal obeys: line feeds become spaces; control characters and marks
/// that turn the direction of text are written as escapes.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if out.ends_with(' ') => {}
            '\n' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_flags() {
        for (error, wanted) in [
            (
                Error::Setting {
                    key: "optimiser.lr",
                    got: "NaN".into(),
                    wanted: "above 0".into(),
                    suggestion: vec![Change::Set("optimiser.lr", "0.05".into())],
                },
                "--lr (optimiser.lr) must be above 0, got NaN (try 0.05)",
            ),
            (
                Error::Conflict {
                    keys: vec!["run.micro_batch"],
                    why: "it splits the batch".into(),
                    changes: vec![Change::Set("run.batch_norm", "micro".into()), Change::Unset("run.micro_batch")],
                },
                "--micro-batch (run.micro_batch): it splits the batch; add --bn micro, or leave --micro-batch out",
            ),
            (
                Error::OutOfMemory {
                    adapter: "llvmpipe".into(),
                    what: String::new(),
                    bytes: 0,
                    held: 7,
                    changes: vec![Change::Lower("optimiser.batch")],
                },
                "llvmpipe has no memory left beside 7 bytes in its buffers; take a smaller --batch",
            ),
            (
                Error::Argument { what: "request.n_episodes", got: "1".into(), wanted: "from 2 to 9".into() },
                "--n-episodes must be from 2 to 9, got 1",
            ),
            (
                Error::usage("name another with `request.out`, see `check` and `run.seed`"),
                "name another with --out, see `check` and --seed (run.seed)",
            ),
            (
                Error::usage("keys: optimiser.lr, --tau (method.tau), a/run.seed, run.log_every. End."),
                "keys: --lr (optimiser.lr), --tau (method.tau), a/run.seed, --log-every (run.log_every). End.",
            ),
            (Error::data("run.out", "no `data.side`"), "run.out: no --side (data.side)"),
            (
                Error::Conflict {
                    keys: vec!["run.batch_norm", "run.micro_batch"],
                    why: "run.micro_batch 4 and run.batch_norm = exact, or method.cross_entropy = false".into(),
                    changes: vec![
                        Change::Set("method.cross_entropy", "true".into()),
                        Change::Raise("optimiser.length.steps"),
                    ],
                },
                "--micro-batch (run.micro_batch) 4 and --bn exact (run.batch_norm), or --no-cross-entropy \
                 (method.cross_entropy); add --cross-entropy, or take a larger --steps",
            ),
            (Error::Internal("x".into()), "internal error: x; please report it with the command line"),
        ] {
            assert_eq!(sentence(&error), wanted);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let hostile = "a\u{1b}[31mred\u{7}\r\nb\u{9b}2J \u{202e}txt.exe, Stra\u{df}e \u{1f642}";
        let shown = "a\\u{1b}[31mred\\u{7}\\r b\\u{9b}2J \\u{202e}txt.exe, Stra\u{df}e \u{1f642}";
        assert_eq!(harmless(hostile), shown);
        let error = Error::data(std::path::Path::new("x.zip/\u{1b}]0;owned\u{7}.png"), "cannot be\n  read");
        assert_eq!(harmless(&sentence(&error)), "x.zip/\\u{1b}]0;owned\\u{7}.png: cannot be   read");
    }
}
