//! What ARCHITECTURE.md says of imports, held against the sources: they point downwards only, and the core has neither
//! files nor threads nor a clock.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

/// The rooms from above to below; those of one layer know each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["jobs"],
    &["bench"],
    &["train"],
    &["fewshot"],
    &["data"],
    &["ier"],
    &["nn"],
    &["tape", "ops"],
    &["gpu"],
    &["settings"],
    &["progress"],
    &["files"],
    &["random"],
    &["error"],
];
const CORE: [&str; 5] = ["gpu", "ops", "tape", "nn", "ier"];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_path_buf());
    }
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        sources(&entry.unwrap().path(), found);
    }
}

#[test]
fn imports_point_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (depth, layer) in LAYERS.iter().enumerate() {
        for room in *layer {
            let mut files = Vec::new();
            sources(&root.join(room), &mut files);
            sources(&root.join(format!("{room}.rs")), &mut files);
            assert!(!files.is_empty(), "there is no room {room}");
            for file in files {
                let text = std::fs::read_to_string(&file).unwrap();
                for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    let above = LAYERS[..depth].concat();
                    let climbs = above.iter().any(|name| {
                        let word = format!("crate::{name}");
                        let mut ends = line.match_indices(&word).map(|(at, _)| at + word.len());
                        ends.any(|end| !line[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                    });
                    let outside = ["std::fs", "std::thread", "Instant", "SystemTime"];
                    let reaches = CORE.contains(room) && outside.iter().any(|name| line.contains(name));
                    if climbs || reaches {
                        wrong.push(format!("{}: {}", file.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
