//! The page about a run: whole, bounded, and safe whatever the data's names are; made again for older runs.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/program.rs"]
mod program;

use std::path::Path;

use image::{Rgb, RgbImage};
use program::run;

const TRAIN: &str = "train --recipe paper --backbone conv4 --widths 4,4,4,4 --projection 8 --transforms rot4 --side 16 \
                     --negatives 4 --batch 4 --steps 4 --log-every 1 --tensorboard --decay-at-fractions 0.6,0.8 --out run \
                     --data data";

/// Class folders whose names are markup.
fn data(folder: &Path) {
    for (split, classes) in [("train", 4), ("novel", 5)] {
        for class in 0..classes {
            let name = format!("<script>alert({class})&\"'<img src=x onerror=alert(1)>");
            let of_class = folder.join("data").join(split).join(name.replace(' ', "_") + split);
            std::fs::create_dir_all(&of_class).unwrap();
            for i in 0..8 {
                let shade = |x: u32, y: u32| Rgb([(60 * class + 5 * x) as u8, (9 * i + y) as u8, (x * y) as u8]);
                RgbImage::from_fn(16, 16, shade).save(of_class.join(format!("{i}<b>.png"))).unwrap();
            }
        }
    }
}

fn checked(folder: &Path) -> String {
    let page = std::fs::read_to_string(folder.join("run/report.html")).unwrap();
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert!(
        !page.contains("<script>alert") && !page.contains("<img") && !page.contains("<b>.png"),
        "markup of the data"
    );
    assert!(!page.contains("{{"), "a name of the template is left");
    assert_eq!(page.matches("<script").count(), 2, "the data, and the page's own script");
    for outside in ["http:", "https:", "src=", "@import", "<link"] {
        // A class may have such a word in its name, escaped.
        assert!(!page.replace("_src=x_onerror", "").contains(outside), "{outside}");
    }
    assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
    page
}

#[test]
fn a_page_is_whole_and_what_names_bring_along_stays_text() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    data(root);
    let output = run(root, TRAIN);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("report: run/report.html"), "{said}");
    let page = checked(root);
    for wanted in [
        "finished: 4 steps",
        "&lt;script&gt;alert(0)",
        "Confusion",
        "Map of embeddings",
        "Neighbours",
        "5-way 1-shot (lr)",
        "data-chart=\"0\"",
        "ieq-wgpu train --recipe paper",
        "fingerprint of the data",
        "optimiser.batch",
        "kept activations",
        "the image",
    ] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let events = std::fs::read_dir(root.join("run"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);

    // Without what later versions write beside it, as an older run has it.
    for name in ["report.html", "report.json"] {
        std::fs::remove_file(root.join("run").join(name)).unwrap();
    }
    let output = run(root, "report run --json");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let page = checked(root);
    for wanted in ["finished: 4 steps", "not known: the run is of an earlier version", "Confusion", "5-way 1-shot (lr)"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    // The data is gone: what is missing is said.
    std::fs::rename(root.join("data"), root.join("elsewhere")).unwrap();
    let output = run(root, "report run");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(checked(root).contains("The data of the run cannot be read"));
    assert_eq!(run(root, "report run --files-only").status.code(), Some(0));
    assert!(checked(root).contains("made from the files of the folder alone"));

    // A file of the user's stays, and a run goes on without its page.
    std::fs::rename(root.join("elsewhere"), root.join("data")).unwrap();
    std::fs::write(root.join("run/report.html"), "mine").unwrap();
    let output = run(root, &format!("{TRAIN} --overwrite --no-eval"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: the run goes on without a report") && said.contains("move it away"), "{said}");
    assert_eq!(std::fs::read(root.join("run/report.html")).unwrap(), b"mine");

    // The other commands that look at runs.
    for (words, wanted) in [
        ("inspect run", "the run was not validated"),
        ("inspect data", "there is no val split"),
        ("compare run run --svg runs.svg", "all settings are the same"),
        ("views run --out views.png", "under 4 transforms"),
    ] {
        let output = run(root, words);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{words}: {text}");
        assert!(text.contains(wanted), "{words}: {text}");
    }
    let svg = std::fs::read_to_string(root.join("runs.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns") && svg.contains("Loss"));
    assert!(image::open(root.join("views.png")).unwrap().width() > 200);
}
