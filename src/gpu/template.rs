//! The shaders' template language, for kernels that hold a tile of sums in registers: WGSL has neither generic
//! functions nor loops over variables.
//!
//! - `#import NAME`: the text of another file, once in a shader.
//! - `#import NAME KEY=VALUE ...`: the text of a template with its settings, as often as it is asked for.
//! - `#repeat V FROM TO` ... `#end`: the lines between, for V = FROM, ..., TO - 1; blocks may be nested.
//! - `$KEY`: a setting or a counter; `${4*q+1}`: sums, products and quotients of them and numbers.
//!
//! Shared with `build.rs`. The files are those of `shaders/`, or what a caller of the library gives.

use std::collections::{BTreeMap, BTreeSet};

use super::tables::Origins;

/// A mistake in a source, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// A source by the name that imports use.
pub struct Source<'s> {
    /// How errors name it.
    pub path: String,
    /// Its text.
    pub text: &'s str,
}

/// Assembles a shader from the sources that `find` finds by name: its text, and where each line comes from.
///
/// # Errors
/// A [`Fault`] for an unknown file or name, or a block that does not end.
pub fn assemble<'s>(name: &str, find: &dyn Fn(&str) -> Option<Source<'s>>) -> Result<(String, Origins), Fault> {
    let mut expansion =
        Expansion { find, seen: BTreeSet::new(), text: String::new(), files: Vec::new(), lines: Vec::new() };
    let nowhere = |message| Fault { file: name.to_owned(), line: 1, message };
    expansion.import(name, &nowhere)?;
    let files = expansion.files.into_iter().map(Into::into).collect::<Vec<_>>();
    Ok((expansion.text, Origins { files: files.into(), lines: expansion.lines.into() }))
}

type Settings = BTreeMap<String, String>;

struct Expansion<'a, 's> {
    find: &'a dyn Fn(&str) -> Option<Source<'s>>,
    seen: BTreeSet<String>,
    text: String,
    files: Vec<String>,
    lines: Vec<(u16, u32)>,
}

/// Some lines of a file: the file's position, and the number of the first of them.
#[derive(Clone, Copy)]
struct Block<'l> {
    file: u16,
    first: u32,
    lines: &'l [&'l str],
}

impl Expansion<'_, '_> {
    /// Appends the file that an `#import` names, with its settings. `fault` places a mistake at the import itself.
    fn import(&mut self, line: &str, fault: &dyn Fn(String) -> Fault) -> Result<(), Fault> {
        if !self.seen.insert(line.to_owned()) {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let source = (self.find)(name).ok_or_else(|| fault(format!("there is no shader {name:?}")))?;
        let mut settings = Settings::new();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| fault(format!("{word:?} is no KEY=VALUE")))?;
            settings.insert(key.to_owned(), value.to_owned());
        }
        let known = self.files.iter().position(|file| *file == source.path);
        let file = known.unwrap_or_else(|| {
            self.files.push(source.path);
            self.files.len() - 1
        });
        let file = u16::try_from(file).map_err(|_| fault("too many files are imported".into()))?;
        self.block(Block { file, first: 1, lines: &source.text.lines().collect::<Vec<_>>() }, &settings)
    }

    fn block(&mut self, block: Block, settings: &Settings) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(line) = block.lines.get(at) {
            let number = block.first + at as u32;
            let file = self.files[usize::from(block.file)].clone();
            let fault = |message: String| Fault { file: file.clone(), line: number, message };
            at += 1;
            if let Some(import) = line.strip_prefix("#import ") {
                self.import(import.trim(), &fault)?;
            } else if let Some(head) = line.strip_prefix("#repeat ") {
                let rest = &block.lines[at..];
                let length = block_length(rest).ok_or_else(|| fault(format!("{line:?} has no #end")))?;
                let head = substitute(head, settings).map_err(fault)?;
                let words: Vec<&str> = head.split_whitespace().collect();
                let [counter, from, to] = words[..] else {
                    return Err(fault(format!("{line:?} is no #repeat V FROM TO")));
                };
                let mut inner = settings.clone();
                for value in number_of(from).map_err(fault)?..number_of(to).map_err(fault)? {
                    inner.insert(counter.to_owned(), value.to_string());
                    self.block(Block { file: block.file, first: number + 1, lines: &rest[..length] }, &inner)?;
                }
                at += length + 1;
            } else {
                self.text.push_str(&substitute(line, settings).map_err(fault)?);
                self.text.push('\n');
                self.lines.push((block.file, number));
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

fn substitute(line: &str, settings: &Settings) -> Result<String, String> {
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
fn evaluate(expression: &str, settings: &Settings) -> Result<i64, String> {
    let factor = |word: &str| number_of(settings.get(word.trim()).map_or(word, String::as_str));
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

fn number_of(word: &str) -> Result<i64, String> {
    word.trim().parse().map_err(|_| format!("{word:?} is neither a number nor set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILE: &str = "fn $NAME() {\n#repeat q 0 $Q\n#repeat p 1 3\n s$q_$p = ${4*q+p-1}u * $Qu;\n#end\n#end\n}";

    fn expand(text: &str) -> Result<(String, Origins), Fault> {
        let find = |name: &str| {
            let text = match name {
                "main" => text,
                "plain" => "plain",
                "tile" => TILE,
                "broken" => "one\ntwo $unset",
                _ => return None,
            };
            Some(Source { path: format!("{name}.wgsl"), text })
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
        let (expanded, origins) = expand(text).expect("the template is right");
        assert_eq!(expanded, format!("plain\n{a}{b}"));
        assert_eq!(origins.lines.len(), expanded.lines().count());
        for (i, line) in expanded.lines().enumerate() {
            let place = match line {
                "plain" => ("plain.wgsl", 1),
                "}" => ("tile.wgsl", 7),
                _ if line.starts_with("fn ") => ("tile.wgsl", 1),
                _ => ("tile.wgsl", 4),
            };
            assert_eq!(origins.place(i as u32 + 1), place, "{line:?}");
        }
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
    fn mistakes_are_refused_where_they_are() {
        for (text, line) in [
            ("#import absent", 1),
            ("\n#import tile NAME=a", 2),
            ("#import tile NAME", 1),
            ("\n\n#repeat q 0 2", 3),
            ("$unset", 1),
            ("#repeat q 0 2\n\n$unset\n#end", 3),
            ("${q", 1),
            ("\n#repeat q 0\n#end", 2),
            ("#repeat q 0 n\n#end", 1),
        ] {
            let fault = expand(text).expect_err(text);
            let file = if text.contains("NAME=a") { ("tile.wgsl", 2) } else { ("main.wgsl", line) };
            assert_eq!((fault.file.as_str(), fault.line), file, "{text:?}: {}", fault.message);
        }
        let fault = expand("\n#import broken").expect_err("a name is not set");
        assert_eq!((fault.file.as_str(), fault.line), ("broken.wgsl", 2), "{}", fault.message);
    }
}
