//! The brace notation for the names of many files, as webdataset and shells have it.

use crate::{Error, Result};

/// The most names that one pattern stands for, and the most bytes of all of them.
const MAX_NAMES: u64 = 10_000_000;
const MAX_BYTES: u64 = 4 << 30;
/// Braces nest at most this deep.
const MAX_DEPTH: usize = 16;

/// The names that `pattern` stands for, in order: `x-{000..099}.tar` is `x-000.tar` to `x-099.tar`, with the zeros in
/// front, `{0..9..3}` takes every third, `{a..c}` counts letters, `{a,b{0..9}}` lists. Several braces are counted as
/// digits of a number are, the last fastest. Patterns are joined by `::`, one after the other. A name without braces is
/// itself. As in webdataset (`expand_urls`), but for braces that are neither range nor list, which are refused.
///
/// # Errors
/// [`Error::Usage`] for braces that do not close or say nothing, and for more than ten million names.
pub fn braces(pattern: &str) -> Result<Vec<String>> {
    let wrong = |why: String| Error::usage(format!("the pattern {pattern:?} {why}"));
    let parsed = pattern.split("::").map(|one| match one {
        "" => Err("has nothing on one side of ::; name a file there".to_owned()),
        _ => Parser { text: one, at: 0 }.sequence(0),
    });
    let parsed = parsed.collect::<std::result::Result<Vec<Sequence>, String>>().map_err(wrong)?;
    let n = parsed.iter().fold(0, |n: u64, sequence| n.saturating_add(count(sequence)));
    // No number of a range has more than 20 digits.
    let longest = pattern.len() as u64 + 20 * pattern.matches('{').count() as u64;
    if n > MAX_NAMES || n.saturating_mul(longest) > MAX_BYTES.max(longest) {
        return Err(wrong(format!("stands for {n} names; give at most {MAX_NAMES} in one call")));
    }
    let mut names = Vec::with_capacity(n as usize);
    for sequence in &parsed {
        expand(sequence, String::new(), &mut |name| names.push(name));
    }
    Ok(names)
}

/// Whether `source` is such a pattern, and no name.
pub(super) fn is_pattern(source: &str) -> bool {
    source.contains("::") || source.contains('{')
}

/// What stands one behind the other.
type Sequence = Vec<Part>;

enum Part {
    Text(String),
    /// From, to, step, and how many digits are written at least.
    Numbers(u64, u64, u64, usize),
    Letters(u8, u8, u64),
    List(Vec<Sequence>),
}

/// How many names a sequence stands for.
fn count(sequence: &Sequence) -> u64 {
    sequence.iter().fold(1, |n: u64, part| {
        n.saturating_mul(match part {
            Part::Text(_) => 1,
            Part::Numbers(from, to, step, _) => (from.abs_diff(*to) / step).saturating_add(1),
            Part::Letters(from, to, step) => u64::from(from.abs_diff(*to)) / step + 1,
            Part::List(items) => items.iter().fold(0, |n: u64, item| n.saturating_add(count(item))),
        })
    })
}

/// Every number of a range.
fn steps(from: u64, to: u64, step: u64) -> impl Iterator<Item = u64> {
    (0..=from.abs_diff(to) / step).map(move |i| if from <= to { from + i * step } else { from - i * step })
}

/// Gives `then` every name that begins with `before` and goes on as `sequence` says.
fn expand(sequence: &[Part], before: String, then: &mut dyn FnMut(String)) {
    let Some((part, rest)) = sequence.split_first() else { return then(before) };
    match part {
        Part::Text(text) => expand(rest, before + text, then),
        &Part::Numbers(from, to, step, digits) => {
            steps(from, to, step).for_each(|number| expand(rest, format!("{before}{number:0digits$}"), then));
        }
        &Part::Letters(from, to, step) => {
            let letters = steps(from.into(), to.into(), step);
            letters.for_each(|letter| expand(rest, format!("{before}{}", letter as u8 as char), then));
        }
        Part::List(items) => {
            for item in items {
                expand(item, before.clone(), &mut |name| expand(rest, name, then));
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    /// Up to the end of the text, or, inside of braces, up to a comma or the brace that closes them.
    fn sequence(&mut self, depth: usize) -> std::result::Result<Sequence, String> {
        let mut sequence = Sequence::new();
        let mut text = String::new();
        while let Some(next) = self.peek() {
            match next {
                ',' | '}' if depth > 0 => break,
                '}' => return Err("closes a brace that was not opened; write {000..099} or {a,b}".into()),
                '{' if depth == MAX_DEPTH => return Err(format!("nests braces more than {MAX_DEPTH} deep")),
                '{' => {
                    if !text.is_empty() {
                        sequence.push(Part::Text(std::mem::take(&mut text)));
                    }
                    sequence.push(self.brace(depth)?);
                }
                other => {
                    text.push(other);
                    self.at += other.len_utf8();
                }
            }
        }
        if !text.is_empty() {
            sequence.push(Part::Text(text));
        }
        Ok(sequence)
    }

    fn brace(&mut self, depth: usize) -> std::result::Result<Part, String> {
        let start = self.at;
        let mut items = Vec::new();
        loop {
            // Over the brace or the comma.
            self.at += 1;
            items.push(self.sequence(depth + 1)?);
            match self.peek() {
                Some(',') => {}
                Some(_) => break,
                None => return Err("opens a brace that is not closed; write {000..099} or {a,b}".into()),
            }
        }
        self.at += 1;
        if items.len() > 1 {
            return Ok(Part::List(items));
        }
        let inner = &self.text[start + 1..self.at - 1];
        range(inner).ok_or_else(|| {
            let hint = if inner.contains('-') { "; a range has two dots" } else { "" };
            format!("has {{{inner}}}, which is neither a range such as {{000..099}} nor a list such as {{a,b}}{hint}")
        })
    }
}

/// `FROM..TO` or `FROM..TO..STEP`, of numbers or of letters.
fn range(inner: &str) -> Option<Part> {
    let mut words = inner.split("..");
    let (from, to) = (words.next()?, words.next()?);
    let number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse::<u64>().ok())?;
    let step = words.next().map_or(Some(1), number).filter(|&step| step > 0)?;
    if words.next().is_some() {
        return None;
    }
    if let (Some(first), Some(last)) = (number(from), number(to)) {
        let is_padded = [from, to].iter().any(|word| word.len() > 1 && word.starts_with('0'));
        let digits = if is_padded { from.len().max(to.len()) } else { 0 };
        return (digits <= 20).then_some(Part::Numbers(first, last, step, digits));
    }
    match (from.as_bytes(), to.as_bytes()) {
        (&[from], &[to]) if from.is_ascii_alphabetic() && to.is_ascii_alphabetic() => {
            (from.is_ascii_lowercase() == to.is_ascii_lowercase()).then_some(Part::Letters(from, to, step))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_the_names_that_webdataset_makes_of_them() {
        for (pattern, names) in [
            ("x.tar", "x.tar"),
            ("x-{000..003}.tar", "x-000.tar x-001.tar x-002.tar x-003.tar"),
            ("{8..11}", "8 9 10 11"),
            ("{08..11}", "08 09 10 11"),
            ("{9..010}", "009 010"),
            ("{3..1}", "3 2 1"),
            ("{0..7..3}", "0 3 6"),
            ("{7..0..3}", "7 4 1"),
            ("{a..c}{1,2}", "a1 a2 b1 b2 c1 c2"),
            ("{train,val-{0..1}}.tar::y", "train.tar val-0.tar val-1.tar y"),
            ("p{,x}", "p px"),
            ("a,b", "a,b"),
            ("\u{e4}{1..2}\u{df}", "\u{e4}1\u{df} \u{e4}2\u{df}"),
            ("{18446744073709551614..18446744073709551615}", "18446744073709551614 18446744073709551615"),
        ] {
            let made = braces(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(made.join(" "), names, "{pattern}");
        }
        assert_eq!(braces("{0000000..9999999}").expect("as many as there may be").len(), 10_000_000);
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for (pattern, why) in [
            ("x-{000..099.tar", "not closed"),
            ("x-000}.tar", "not opened"),
            ("x-{000-099}.tar", "{000-099}, which is neither"),
            ("{}", "neither"),
            ("{a}", "neither"),
            ("{1..}", "neither"),
            ("{1..2..0}", "neither"),
            ("{a..C}", "neither"),
            ("{1..18446744073709551616}", "neither"),
            ("{0..10000000}", "at most 10000000"),
            ("{0..18446744073709551615}{0..18446744073709551615}", "at most 10000000"),
            ("a::", "one side of ::"),
            ("", "one side of ::"),
            (&"{".repeat(100_000), "deep"),
            (&format!("{}{{0..9999999}}", "x".repeat(10_000)), "at most"),
        ] {
            let error = braces(pattern).expect_err(pattern).to_string();
            assert!(error.contains(why), "{pattern:.40}: {error:.200}");
        }
    }
}
