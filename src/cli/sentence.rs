//! Errors as sentences for the command line: keys of settings and members of requests become flags, and the ways out
//! are added. What a file or a name brings along cannot reach the terminal as anything but text.

use crate::settings::SETTINGS;
use crate::{Error, error::Change};

/// One sentence that names the thing, what is wrong with it, and the way out.
pub fn sentence(error: &Error) -> String {
    let text = match error {
        Error::Setting { key, got, wanted, suggestion } => {
            format!("{} must be {wanted}, got {got}{}", flag_and_key(key), ways_out(suggestion, Some(key)))
        }
        Error::Conflict { keys, why, changes } => {
            let keys: Vec<_> = keys.iter().map(|key| flag_and_key(key)).collect();
            format!("{}: {why}{}", keys.join(", "), ways_out(changes, None))
        }
        Error::Argument { what, got, wanted } => {
            format!("{} must be {wanted}, got {got}", flag_and_key(what))
        }
        Error::TooLarge { changes, .. } | Error::OutOfMemory { changes, .. } if !changes.is_empty() => {
            // Their own words up to the changes, which are the last.
            let own = error.to_string();
            let keys: Vec<_> = changes.iter().map(ToString::to_string).collect();
            let plain = own.strip_suffix(&format!("; {}", keys.join(", or "))).unwrap_or(&own).to_owned();
            format!("{plain}{}", ways_out(changes, None))
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
        | Error::TooLarge { .. }
        | Error::OutOfMemory { .. } => 3,
        Error::Internal(_) | Error::Shader { .. } => 101,
        Error::Interrupted(_) => 130,
        _ => 2,
    }
}

/// The flags that set the setting with this key.
fn flags(key: &str) -> Option<&'static [&'static str]> {
    SETTINGS.iter().find(|(known, _)| *known == key).map(|(_, flags)| *flags)
}

/// `--lr (optimiser.lr)` for the key of a setting, `--ways` for the member `request.ways`; anything else as it is.
fn flag_and_key(key: &str) -> String {
    if let Some(member) = key.strip_prefix("request.") {
        return format!("--{}", member.replace('_', "-"));
    }
    match flags(key) {
        Some(flags) => format!("--{} ({key})", flags.join(" or --")),
        None => key.to_owned(),
    }
}

/// `text` with every key of a setting and member of a request as its flag; backticks around it go. A key in parentheses
/// follows its flag already.
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
        let known = word.contains('.') && (word.starts_with("request.") || flags(word).is_some());
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
        out += &flag_and_key(word);
    }
    out + rest
}

/// ` (try 0.05)` where the setting itself gets another value, else `; add --bn micro, or take a smaller --batch`.
fn ways_out(changes: &[Change], own: Option<&str>) -> String {
    if let ([Change::Set(key, value)], Some(own)) = (changes, own)
        && *key == own
    {
        return format!(" (try {value})");
    }
    let ways: Vec<String> = changes.iter().map(way_out).collect();
    if ways.is_empty() { String::new() } else { format!("; {}", ways.join(", or ")) }
}

fn way_out(change: &Change) -> String {
    let flag = |key: &str| match key.strip_prefix("request.") {
        Some(member) => format!("--{}", member.replace('_', "-")),
        None => flags(key).map_or_else(|| key.to_owned(), |flags| format!("--{}", flags.join(" or --"))),
    };
    match change {
        // A switch has no value.
        Change::Set(key, value) if flag(key).starts_with("--no-") => match value.as_str() {
            "true" => format!("leave {} out", flag(key)),
            _ => format!("add {}", flag(key)),
        },
        Change::Set(key, value) => format!("add {} {value}", flag(key)),
        Change::Lower(key) => format!("take a smaller {}", flag(key)),
        Change::Raise(key) => format!("take a larger {}", flag(key)),
        Change::Unset(key) => format!("leave {} out", flag(key)),
    }
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
