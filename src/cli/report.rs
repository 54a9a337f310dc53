//! The only place that writes to the terminal: results to stdout, progress and warnings to stderr.
//!
//! A reader that closes its end early (`| head`) is no error: what it did not want to read is dropped.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::interrupt;
use super::sentence::{exit_code, harmless, named, sentence};
use crate::jobs::score::Score;
use crate::progress::{Progress, StepReport};
use crate::{Error, Result};

/// How often a stream that is not a terminal gets a line.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Where a command's words go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Results as one JSON document instead of text.
    pub json: bool,
    /// No progress and no notes.
    pub quiet: bool,
}

/// A JSON document as stdout gets it: its name and version, then its fields.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: String,
    #[serde(flatten)]
    body: &'a T,
}

impl Report {
    /// Writes a result: `text` for people, or with `--json` the document `ieq-wgpu.<name>.1` with the fields
    /// of `body`.
    pub fn result<T: Serialize>(&self, name: &str, body: &T, text: impl FnOnce() -> String) -> Result<()> {
        let text = match self.json {
            true => serde_json::to_string_pretty(&Document { schema: format!("ieq-wgpu.{name}.1"), body })
                .map_err(|e| Error::Internal(format!("the {name} document does not serialise: {e}")))?,
            false => text(),
        };
        write_stdout(&text)
    }

    /// Writes a line of text for people, and nothing with `--json`.
    pub fn text(&self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { write_stdout(text) }
    }

    /// Writes a text that other programs read as it is.
    pub fn verbatim(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::io("stdout", "cannot write the result (is the disk full?)", e))
            }
            _ => Ok(()),
        }
    }

    /// Progress of one job.
    pub fn live(&self) -> Live {
        let terminal = !self.quiet && io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        Live { quiet: self.quiet, terminal, bar, meter: Meter::default(), begun: Instant::now(), last_line: None }
    }
}

/// Prints `error: ` and the sentence, and returns the exit code.
pub fn fail(error: &Error) -> u8 {
    let prefix = if matches!(error, Error::Interrupted(_)) { "interrupted" } else { "error" };
    write_stderr(&format!("{prefix}: {}", sentence(error)));
    exit_code(error)
}

/// Writes `text` and a line end to stdout.
fn write_stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let lines: Vec<String> = text.trim_end().split('\n').map(harmless).collect();
    match writeln!(stdout, "{}", lines.join("\n")).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("stdout", "cannot write the result (is the disk full?)", e))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr; there is nobody left to tell if that fails.
pub(super) fn write_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(line));
}

/// Progress on stderr: one live line on a terminal, a plain line now and then elsewhere.
#[derive(Debug)]
pub struct Live {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
    meter: Meter,
    begun: Instant,
    last_line: Option<Duration>,
}

impl Live {
    /// Takes the live line off the terminal.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    /// Shows the state: always on a terminal, at intervals and at the end elsewhere.
    fn show(&mut self, line: &str, done: u64, total: u64) {
        if self.quiet {
            return;
        }
        if self.terminal {
            if self.bar.length() != Some(total) {
                self.bar.set_length(total);
                if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                    self.bar.set_style(style);
                }
            }
            self.bar.set_position(done);
            self.bar.set_message(line.to_owned());
            return;
        }
        let now = self.begun.elapsed();
        if done == total || self.last_line.is_none_or(|last| now - last >= PLAIN_INTERVAL) {
            self.last_line = Some(now);
            write_stderr(line);
        }
    }
}

impl Progress for Live {
    fn step(&mut self, report: &StepReport) {
        self.meter.update(self.begun.elapsed(), report.step.into(), report.images);
        let line = step_line(report, &self.meter);
        self.show(&line, report.step.into(), report.total_steps.into());
    }

    fn advance(&mut self, what: &str, done: u64, total: u64) {
        self.show(&format!("{what} {done}/{total}"), done, total);
    }

    fn note(&mut self, sentence: &str) {
        if !self.quiet {
            self.bar.suspend(|| write_stderr(&named(sentence)));
        }
    }

    fn warn(&mut self, sentence: &str) {
        self.bar.suspend(|| write_stderr(&format!("warning: {}", named(sentence))));
    }

    fn stop_requested(&self) -> bool {
        interrupt::requested()
    }
}

/// Speed from the reports so far: recent ones count most.
#[derive(Debug, Default)]
struct Meter {
    last: Option<(Duration, u64, u64)>,
    seconds_per_step: Option<f64>,
    images_per_second: Option<f64>,
}

impl Meter {
    fn update(&mut self, now: Duration, step: u64, images: u64) {
        if let Some((then, last_step, last_images)) = self.last
            && step > last_step
            && now > then
        {
            let seconds = (now - then).as_secs_f64();
            let blend = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| 0.8 * old + 0.2 * new));
            self.seconds_per_step = blend(self.seconds_per_step, seconds / (step - last_step) as f64);
            let seen = images.saturating_sub(last_images) as f64;
            self.images_per_second = blend(self.images_per_second, seen / seconds);
        }
        self.last = Some((now, step, images));
    }
}

/// The line of a training step.
fn step_line(report: &StepReport, meter: &Meter) -> String {
    let mut line =
        format!("epoch {} step {}/{} loss {:.4}", report.epoch, report.step, report.total_steps, report.loss);
    if let Some(accuracy) = report.accuracy {
        line += &format!(" acc {:.1}%", 100.0 * accuracy);
    }
    if let Some(rate) = meter.images_per_second {
        line += &format!(" {rate:.*} images/s", usize::from(rate < 10.0));
    }
    let steps_left = report.total_steps.saturating_sub(report.step);
    if let Some(seconds) = meter.seconds_per_step
        && steps_left > 0
    {
        let left = report.to_come * seconds;
        line += &format!(" ETA {}", duration(left));
    }
    // Last, so that a narrow terminal cuts these off and nothing else.
    if report.terms.len() > 1 {
        let terms: Vec<_> = report.terms.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        line += &format!(" ({})", terms.join(" "));
    }
    line
}

/// Seconds for people: `42 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// An accuracy with half of its 95 % interval.
pub fn percent(score: &Score) -> String {
    match score.interval_pct {
        Some(half) => format!("{:.1} ± {half:.1} %", score.accuracy_pct),
        None => format!("{:.1} % (spread unknown)", score.accuracy_pct),
    }
}

/// A path as a shell takes it.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if !cfg!(windows) && harmless(&text) != text {
        return escaped_word(&text);
    }
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c) || (cfg!(windows) && c == '\\');
    match (text.chars().all(plain) && !text.is_empty(), cfg!(windows)) {
        (true, _) => text,
        (false, true) => format!("\"{text}\""),
        (false, false) => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A word with what a terminal would obey as escapes, in the quotes that bash and zsh read them in.
fn escaped_word(text: &str) -> String {
    let mut out = String::from("$'");
    for c in text.chars() {
        match c {
            '\\' | '\'' => out.extend(['\\', c]),
            c if harmless(c.encode_utf8(&mut [0; 4])).starts_with(c) => out.push(c),
            c => out += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    out + "'"
}

/// Rows of words in columns as wide as their widest word, two spaces between.
pub fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|s| s.chars().count()).max();
    let widths: Vec<_> = (0..n_columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(word, &width)| format!("{word:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_loss_terms_accuracy_speed_and_time_left() {
        let mut report = StepReport {
            step: 10,
            total_steps: 110,
            epoch: 1,
            lr: 0.05,
            loss: 4.56789,
            terms: vec![("ce", 2.0), ("eq", 1.5), ("inv", 1.06789)],
            accuracy: Some(0.125),
            images: 160,
            to_come: 100.0,
        };
        let mut meter = Meter::default();
        meter.update(Duration::from_secs(5), 10, 160);
        assert_eq!(
            step_line(&report, &meter),
            "epoch 1 step 10/110 loss 4.5679 acc 12.5% (ce 2.000 eq 1.500 inv 1.068)"
        );
        meter.update(Duration::from_secs(15), 20, 320);
        (report.step, report.images, report.to_come) = (20, 320, 90.0);
        report.terms.truncate(1);
        assert_eq!(step_line(&report, &meter), "epoch 1 step 20/110 loss 4.5679 acc 12.5% 16 images/s ETA 1 min 30 s");
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_the_path_back() {
        for (path, word) in [
            ("runs/a-1", "runs/a-1"),
            ("", "''"),
            ("it's mine", "'it'\\''s mine'"),
            ("a\nb\u{1b}[1m'\\", "$'a\\u000ab\\u001b[1m\\'\\\\'"),
            ("\u{202e}x", "$'\\u202ex'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
            assert_eq!(harmless(word), word);
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!([0.4, 59.4, 61.0, 7620.0].map(duration), ["0 s", "59 s", "1 min 01 s", "2 h 07 min"]);
        assert_eq!(table(&[vec!["a".into(), "b".into()], vec!["long".into(), "".into()]]), "a     b\nlong");
    }
}
