//! What ARCHITECTURE.md says of imports, compared with the sources: they point downwards only, no two files import each
//! other however many stand between them, and the core has neither files nor threads nor a clock.
//!
//! A `mod.rs` and the files of its own folder may import each other: together they are one module.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules of the crate from below to above. Modules of one layer may import each other.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["files"],
    &["progress"],
    &["settings"],
    &["random"],
    &["ranks"],
    &["gpu"],
    &["tape", "ops"],
    &["nn"],
    &["ier"],
    &["data"],
    &["fewshot"],
    &["train"],
    &["bench"],
    &["page"],
    &["jobs"],
    &["cli"],
];

/// Modules that a web page has, too: it has no files, threads or clock of this kind.
const CORE: [&str; 6] = ["gpu", "ops", "tape", "nn", "ier", "fewshot"];
const OUTSIDE: [&str; 4] = ["std::fs", "std::thread", "Instant", "SystemTime"];

/// The crate's sources: file under `src/` to text without comments and without its tests.
type Sources = BTreeMap<String, String>;

/// Imports by file.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn read(folder: &Path, prefix: &str, found: &mut Sources) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            read(&path, &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.insert(name, code(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Without comments, and without the tests that end a file.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let text = text.split("#[cfg(test)]\n#[allow").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn sources() -> Sources {
    let mut found = Sources::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    found
}

/// The module that a file is, such as `tape::exec`; the crate's root is empty.
fn module_of(file: &str) -> String {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(path, "lib" | "main" | "mod") { String::new() } else { path.replace('/', "::") }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The paths of one tree of imports such as `a::{b, c::d as e}`, which `text` begins with: every path as its segments,
/// with the name that it is known by.
fn paths(text: &str, before: &[String], found: &mut Vec<(Vec<String>, String)>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let rest = rest.trim_start();
        at = text.len() - rest.len();
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].trim_start().starts_with('}') && at < text.len() {
                let used = paths(&text[at..], &path, found);
                at += used;
                let more = text[at..].trim_start();
                at = text.len() - more.len();
                if more.starts_with(',') {
                    at += 1;
                } else if !more.starts_with('}') {
                    return at;
                }
            }
            return (text.len() - text[at..].trim_start().len() + 1).min(text.len());
        }
        let word: String = rest.chars().take_while(|&c| is_word(c)).collect();
        if word.is_empty() {
            // A glob, or the end of what was a path.
            at += usize::from(rest.starts_with('*'));
            if path.len() > before.len() || rest.starts_with('*') {
                found.push((path.clone(), String::new()));
            }
            return at;
        }
        at += word.len();
        let own = word == "self" && !path.is_empty();
        if !own {
            path.push(word);
        }
        if let Some(more) = text[at..].strip_prefix("::") {
            at = text.len() - more.len();
            continue;
        }
        let mut name = path.last().cloned().unwrap_or_default();
        if let Some(alias) = text[at..].strip_prefix(" as ") {
            name = alias.chars().take_while(|&c| is_word(c)).collect();
            at += " as ".len() + name.len();
        }
        found.push((path, name));
        return at;
    }
}

struct Crate<'s> {
    sources: &'s Sources,
    modules: BTreeMap<String, &'s str>,
}

impl<'s> Crate<'s> {
    fn new(sources: &'s Sources) -> Self {
        let files = sources.keys().filter(|file| *file != "main.rs");
        Crate { sources, modules: files.map(|file| (module_of(file), file.as_str())).collect() }
    }

    /// A path as it stands in `module`, from the root of the crate; none for paths into other crates.
    fn absolute(&self, module: &str, path: &[String]) -> Option<Vec<String>> {
        let mut here: Vec<String> = module.split("::").filter(|s| !s.is_empty()).map(String::from).collect();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" | "ieq_wgpu" => {
                here.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    here.pop();
                    rest = &rest[1..];
                }
            }
            // A module beside the others of this one.
            child => {
                let name = [here.clone(), vec![child.to_owned()]].concat().join("::");
                self.modules.get(&name)?;
            }
        }
        here.extend(rest.iter().cloned());
        Some(here)
    }

    /// The file that has what an absolute path names: where it was re-exported, the file that it comes from.
    fn file(&self, path: &[String], depth: usize) -> Option<&'s str> {
        let known = (0..=path.len()).rev().find(|&n| self.modules.contains_key(&path[..n].join("::")))?;
        let (module, rest) = (path[..known].join("::"), &path[known..]);
        let file = self.modules[&module];
        if let (Some(item), true) = (rest.first(), depth < 8) {
            for (path, name) in self.uses(file, true) {
                if name == *item
                    && let Some(path) = self.absolute(&module, &path)
                {
                    return self.file(&path, depth + 1);
                }
            }
        }
        Some(file)
    }

    /// What a file's `use` declarations name; with `public`, only what they export again.
    fn uses(&self, file: &str, public: bool) -> Vec<(Vec<String>, String)> {
        let text = &self.sources[file];
        let mut found = Vec::new();
        for (at, _) in text.match_indices("use ") {
            let line = text[..at].rsplit('\n').next().unwrap().trim_start();
            let declares = line.is_empty() || line.starts_with("pub");
            if declares && (!public || line.starts_with("pub")) {
                paths(&text[at + 4..], &[], &mut found);
            }
        }
        found
    }

    /// The files that `file` imports from.
    fn imports(&self, file: &str) -> BTreeSet<String> {
        let module = module_of(file);
        let text = &self.sources[file];
        let mut named: Vec<Vec<String>> = Vec::new();
        for (path, name) in self.uses(file, false) {
            let Some(path) = self.absolute(&module, &path) else { continue };
            // A module that was imported stands at the beginning of further paths.
            if self.modules.contains_key(&path.join("::")) && !name.is_empty() {
                let begin = format!("{name}::");
                for (at, _) in text.match_indices(&begin) {
                    if !text[..at].ends_with(|c: char| is_word(c) || c == ':') {
                        let mut found = Vec::new();
                        paths(&text[at + begin.len()..], &path, &mut found);
                        named.extend(found.into_iter().map(|(path, _)| path));
                    }
                }
            }
            named.push(path);
        }
        for begin in ["crate::", "super::"] {
            for (at, _) in text.match_indices(begin) {
                if !text[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '$') {
                    let mut found = Vec::new();
                    paths(&text[at..], &[], &mut found);
                    named.extend(found.into_iter().filter_map(|(path, _)| self.absolute(&module, &path)));
                }
            }
        }
        let files = named.iter().filter_map(|path| self.file(path, 0));
        files.filter(|other| *other != file).map(String::from).collect()
    }

    fn all_imports(&self) -> Imports {
        self.sources.keys().map(|file| (file.clone(), self.imports(file))).collect()
    }
}

/// Whether one of the two is the `mod.rs` of the other's folder, or of the folder above that.
fn one_module(a: &str, b: &str) -> bool {
    let own = |module: &str, file: &str| match module.strip_suffix("mod.rs") {
        Some(folder) => file.starts_with(folder),
        None => file.starts_with(&format!("{}/", module.trim_end_matches(".rs"))),
    };
    let root = |file: &str| matches!(file, "lib.rs" | "main.rs");
    root(a) || root(b) || own(a, b) || own(b, a)
}

/// The shortest circle of imports through each file that is in one, every circle once.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let next = |file: &str| {
        let from = file.to_owned();
        let all = imports.get(file).into_iter().flatten();
        all.filter(move |to| !one_module(&from, to))
    };
    let mut found: BTreeMap<BTreeSet<String>, Vec<String>> = BTreeMap::new();
    for start in imports.keys() {
        let mut reached: BTreeMap<&str, &str> = BTreeMap::new();
        let mut ways = std::collections::VecDeque::from([start.as_str()]);
        while let Some(file) = ways.pop_front() {
            for to in next(file) {
                if to == start {
                    let mut circle = vec![file.to_owned()];
                    while circle.last() != Some(start) {
                        circle.push(reached[circle.last().unwrap().as_str()].to_owned());
                    }
                    circle.reverse();
                    found.entry(circle.iter().cloned().collect()).or_insert(circle);
                    ways.clear();
                    break;
                }
                if !reached.contains_key(to.as_str()) {
                    reached.insert(to, file);
                    ways.push_back(to);
                }
            }
        }
    }
    found.into_values().collect()
}

#[test]
fn imports_point_downwards_only() {
    let sources = sources();
    let depth = |file: &str| {
        let module = file.trim_end_matches(".rs").split('/').next().unwrap();
        LAYERS.iter().position(|layer| layer.contains(&module))
    };
    let mut wrong = Vec::new();
    for (file, imports) in Crate::new(&sources).all_imports() {
        if matches!(file.as_str(), "lib.rs" | "main.rs") {
            continue;
        }
        let own = depth(&file).unwrap_or_else(|| panic!("src/{file} is in no layer of tests/layers.rs"));
        let above = imports.iter().filter(|other| depth(other).is_some_and(|other| other > own));
        wrong.extend(above.map(|other| format!("src/{file} imports from src/{other}, which is above it")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_has_no_files_threads_or_clock() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        if CORE.iter().any(|module| file.starts_with(&format!("{module}/"))) {
            let lines = text.lines().filter(|line| OUTSIDE.iter().any(|name| line.contains(name)));
            wrong.extend(lines.map(|line| format!("src/{file}: {}", line.trim())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_import_in_a_circle() {
    let sources = sources();
    let imports = Crate::new(&sources).all_imports();
    let told: Vec<String> = circles(&imports).iter().map(|circle| circle.join(" -> ")).collect();
    assert!(told.is_empty(), "these files import in a circle:\n{}", told.join("\n"));
}

/// Planted circles of each kind are found, and what is no circle is not.
#[test]
fn a_planted_circle_is_found() {
    let of = |files: &[(&str, &str)]| {
        let sources: Sources = files.iter().map(|(file, text)| (file.to_string(), code(text))).collect();
        circles(&Crate::new(&sources).all_imports()).len()
    };
    let root = ("lib.rs", "pub mod a;\npub mod b;\npub use a::x::X;");
    let a = ("a/mod.rs", "pub mod x;\npub mod y;\npub use x::{X, Z as W};\nuse super::b;");
    // Straight down, through a re-export, and between a module and its own folder.
    assert_eq!(of(&[root, a, ("a/x.rs", "use super::y::Y;"), ("a/y.rs", "// use super::x::X;"), ("b.rs", "")]), 0);
    assert_eq!(of(&[root, a, ("a/x.rs", "use super::W;\nuse crate::a;"), ("a/y.rs", "use super::{X};")]), 0);
    for (x, y, b) in [
        ("use super::y::Y;", "use super::x::X;", ""),
        ("use super::y::Y;", "fn f() { crate::a::x::g() }", ""),
        ("fn f() { super::y::g(crate::X) }", "fn f() {\n    use crate::a::x::g;\n    g()\n}", ""),
        ("use super::{\n    y::{self, Y},\n};", "use super::{X, q};", ""),
        ("use crate::b::B;", "", "use crate::X;"),
        ("use crate::b::B;", "", "use crate::{Error, a::W};"),
        ("use crate::b::B;", "use super::x as x;", "use crate::a::y::{Y as Why};"),
        ("use crate::b;", "", "use crate::a;\nfn f(_: a::x::Q) {}"),
    ] {
        let text = of(&[
            root,
            ("a/mod.rs", "pub mod x;\npub mod y;\npub use x::{X, Z as W};"),
            ("a/x.rs", x),
            ("a/y.rs", y),
            ("b.rs", b),
        ]);
        assert_eq!(text, 1, "{x} | {y} | {b}");
    }
    let test = "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}";
    assert_eq!(of(&[root, ("a/mod.rs", "pub mod x;"), ("a/x.rs", test), ("b.rs", "use crate::a::x::X;")]), 0);
}
