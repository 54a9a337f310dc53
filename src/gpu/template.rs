//! The shaders' template language, for kernels that hold a tile of sums in registers: WGSL has neither generic
//! functions nor loops over variables.
//!
//! - `#import NAME`: the text of another file, once in a shader.
//! - `#import NAME KEY=VALUE ...`: the text of a template with its settings, as often as it is asked for.
//! - `#repeat V FROM TO` ... `#end`: the lines between, for V = FROM, ..., TO - 1; blocks may be nested.
//! - `$KEY`: a setting or a counter; `${4*q+1}`: sums, products and quotients of them and numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, Result};

/// Assembles a shader from files that `source` finds by name.
///
/// # Errors
/// [`Error::Internal`] for an unknown file or name, or a block that does not end.
pub fn assemble<'s>(name: &str, source: &dyn Fn(&str) -> Option<&'s str>) -> Result<String> {
    let mut expansion = Expansion { source, seen: BTreeSet::new(), out: String::new() };
    expansion.import(name).map_err(|message| Error::Internal(format!("shader {name}: {message}")))?;
    Ok(expansion.out)
}

type Settings = BTreeMap<String, String>;

struct Expansion<'a, 's> {
    source: &'a dyn Fn(&str) -> Option<&'s str>,
    seen: BTreeSet<String>,
    out: String,
}

impl Expansion<'_, '_> {
    fn import(&mut self, line: &str) -> std::result::Result<(), String> {
        if !self.seen.insert(line.to_owned()) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let text = (self.source)(name).ok_or_else(|| format!("there is no shader {name:?}"))?;
        let mut settings = Settings::new();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is no KEY=VALUE"))?;
            settings.insert(key.to_owned(), value.to_owned());
        }
        self.lines(&text.lines().collect::<Vec<_>>(), &settings)
    }

    fn lines(&mut self, lines: &[&str], settings: &Settings) -> std::result::Result<(), String> {
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            if let Some(import) = line.strip_prefix("#import ") {
                self.import(import.trim())?;
            } else if let Some(head) = line.strip_prefix("#repeat ") {
                let end = at + block_length(&lines[at..]).ok_or_else(|| format!("{line:?} has no #end"))?;
                let head = substitute(head, settings)?;
                let words: Vec<&str> = head.split_whitespace().collect();
                let [counter, from, to] = words[..] else { return Err(format!("{line:?} is no #repeat V FROM TO")) };
                let mut inner = settings.clone();
                for value in number(from)?..number(to)? {
                    inner.insert(counter.to_owned(), value.to_string());
                    self.lines(&lines[at..end], &inner)?;
                }
                at = end + 1;
            } else {
                self.out.push_str(&substitute(line, settings)?);
                self.out.push('\n');
            }
        }
        Ok(())
    }
}

/// Lines before the `#end` of the block that begins here.
fn block_length(lines: &[&str]) -> Option<usize> {
    let mut depth = 1;
    lines.iter().position(|line| {
        depth += i32::from(line.starts_with("#repeat ")) - i32::from(*line == "#end");
        depth == 0
    })
}

fn substitute(line: &str, settings: &Settings) -> std::result::Result<String, String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            let (expression, after) = after.split_once('}').ok_or_else(|| format!("{line:?} lacks a }}"))?;
            out.push_str(&evaluate(expression, settings)?.to_string());
            rest = after;
        } else {
            let longest = settings.iter().filter(|(key, _)| rest.starts_with(*key)).max_by_key(|(key, _)| key.len());
            let (key, value) = longest.ok_or_else(|| format!("{line:?} uses a name that is not set"))?;
            out.push_str(value);
            rest = &rest[key.len()..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// A sum of products and quotients of numbers and settings, such as `4*q-1`; from left to right, a quotient towards zero.
fn evaluate(expression: &str, settings: &Settings) -> std::result::Result<i64, String> {
    let factor = |word: &str| number(settings.get(word.trim()).map_or(word, String::as_str));
    let product = |term: &str| {
        // Every factor but the first follows its sign.
        let signs = std::iter::once("*").chain(term.matches(['*', '/']));
        signs.zip(term.split(['*', '/'])).try_fold(1_i64, |result, (sign, word)| match (sign, factor(word)?) {
            ("*", value) => Ok(result * value),
            (_, value) => result.checked_div(value).ok_or_else(|| format!("{term:?} divides by zero")),
        })
    };
    expression.split('+').map(|term| term.split('-').map(product).reduce(|a, b| Ok(a? - b?)).unwrap_or(Ok(0))).sum()
}

fn number(word: &str) -> std::result::Result<i64, String> {
    word.trim().parse().map_err(|_| format!("{word:?} is neither a number nor set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &'static str) -> Result<String> {
        let find = move |name: &str| match name {
            "main" => Some(text),
            "plain" => Some("plain"),
            "tile" => Some("fn $NAME() {\n#repeat q 0 $Q\n#repeat p 1 3\n s$q_$p = ${4*q+p-1}u * $Qu;\n#end\n#end\n}"),
            _ => None,
        };
        assemble("main", &find)
    }

    #[test]
    fn files_blocks_and_names_are_replaced() {
        let text =
            "#import plain\n#import plain\n#import tile NAME=a Q=2\n#import tile NAME=b Q=1\n#repeat k 0 0\nno\n#end";
        let tile = |name: &str, lines: &str| format!("fn {name}() {{\n{lines}}}\n");
        let a = tile("a", " s0_1 = 0u * 2u;\n s0_2 = 1u * 2u;\n s1_1 = 4u * 2u;\n s1_2 = 5u * 2u;\n");
        let b = tile("b", " s0_1 = 0u * 1u;\n s0_2 = 1u * 1u;\n");
        assert_eq!(expand(text).ok(), Some(format!("plain\n{a}{b}")));
    }

    #[test]
    fn products_and_quotients_go_from_left_to_right() {
        let settings = Settings::from([("G".into(), "8".into()), ("e".into(), "9".into())]);
        for (expression, value) in [("G/2*e/16", 2), ("G/2*e/16*16", 32), ("G/2*e-G/2*e/16*16", 4), ("31/G+1", 4)] {
            assert_eq!(evaluate(expression, &settings), Ok(value), "{expression}");
        }
        assert!(evaluate("G/0", &settings).is_err());
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["#import absent", "#import tile NAME=a", "#repeat q 0 2", "$unset", "${q", "#repeat q 0\n#end"] {
            assert!(expand(text).is_err(), "{text}");
        }
    }
}
