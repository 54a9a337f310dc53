//! The whole terminal as a view of a run (`--tui`): curves, numbers, messages, and `q` to stop and save.
//!
//! The terminal is given back however the run ends: at its end, on an error, and before the words of a panic.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Wrap};
use ratatui::{DefaultTerminal, Frame};

use super::interrupt;
use super::report::{Meter, duration, write_stderr};
use super::sentence::{harmless, named};
use crate::page::bytes_text;
use crate::progress::{Progress, StepReport};
use crate::{Error, Result};

/// Least time between two pictures.
const EVERY: Duration = Duration::from_millis(100);
/// Most points of a curve; of more every second one goes.
const POINTS: usize = 600;
/// Messages that are kept.
const MESSAGES: usize = 200;
/// Colours of the curves, of the terminal's own sixteen, so that they suit its light or dark ground.
const COLOURS: [Color; 6] = [Color::Blue, Color::Yellow, Color::Green, Color::Magenta, Color::Cyan, Color::Red];

/// What is shown.
#[derive(Debug, Default)]
struct State {
    losses: BTreeMap<&'static str, Points>,
    accuracy: Points,
    throughput: Points,
    last: Option<StepReport>,
    /// What is going on where no step is.
    activity: Option<(String, u64, u64)>,
    memory: Option<u64>,
    messages: Vec<String>,
    stopping: bool,
}

/// The terminal, and what is shown on it.
#[derive(Debug)]
pub struct Tui {
    terminal: DefaultTerminal,
    state: State,
    meter: Meter,
    begun: Instant,
    drawn: Option<Instant>,
    stop: Cell<bool>,
}

impl Tui {
    /// Takes the terminal.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is none, [`Error::Io`] where it cannot be used.
    pub fn open() -> Result<Tui> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(Error::usage(
                "`request.tui` wants a terminal, and stdin or stdout is none: leave it out, and a plain line shows the \
                 progress",
            ));
        }
        let terminal = ratatui::try_init().map_err(|e| {
            ratatui::restore();
            Error::io("stdout", "cannot take the terminal for `request.tui`: leave it out", e)
        })?;
        let (meter, begun) = (Meter::default(), Instant::now());
        let mut tui = Tui { terminal, state: State::default(), meter, begun, drawn: None, stop: Cell::new(false) };
        tui.draw(true);
        Ok(tui)
    }

    /// Gives the terminal back, and says what was said meanwhile.
    pub fn close(self, quiet: bool) {
        let messages = self.state.messages.clone();
        drop(self);
        messages.iter().filter(|message| !quiet || message.starts_with("warning")).for_each(|line| write_stderr(line));
    }

    fn say(&mut self, sentence: String) {
        if self.state.messages.len() == MESSAGES {
            self.state.messages.remove(0);
        }
        self.state.messages.push(harmless(&sentence));
        self.draw(true);
    }

    fn draw(&mut self, now: bool) {
        if !now && self.drawn.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.state.stopping = self.stop.get() || interrupt::requested();
        let (state, meter, elapsed) = (&self.state, &self.meter, self.begun.elapsed());
        // A terminal that has gone away is noticed by the next write of the result.
        let _ = self.terminal.draw(|frame| show(frame, state, meter, elapsed));
    }

    /// Reads the keys that wait.
    fn read_keys(&self) {
        while event::poll(Duration::ZERO).unwrap_or(false) {
            if let Ok(Event::Key(key)) = event::read()
                && key.kind != KeyEventKind::Release
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if key.code == KeyCode::Char('q') || (control && key.code == KeyCode::Char('c')) {
                    self.stop.set(true);
                }
            }
        }
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// A curve of any length in few points: every so many are kept, evenly over all steps.
#[derive(Debug, Default)]
struct Points {
    kept: Vec<(f64, f64)>,
    /// Of how many points one is kept is two to this power.
    halvings: u32,
    seen: u64,
}

impl Points {
    fn push(&mut self, x: f64, y: f64) {
        let due = self.seen.is_multiple_of(1 << self.halvings);
        self.seen += 1;
        if !due {
            return;
        }
        self.kept.push((x, y));
        if self.kept.len() > POINTS {
            let mut position = 0;
            self.kept.retain(|_| {
                position += 1;
                position % 2 == 1
            });
            self.halvings += 1;
        }
    }
}

impl Progress for Tui {
    fn step(&mut self, report: &StepReport) {
        self.meter.update(self.begun.elapsed(), report.step.into(), report.images);
        let x = f64::from(report.step);
        for (name, value) in [("total", report.loss)].into_iter().chain(report.terms.iter().copied()) {
            if name != "grad_norm" {
                self.state.losses.entry(name).or_default().push(x, value);
            }
        }
        if let Some(accuracy) = report.accuracy {
            self.state.accuracy.push(x, 100.0 * accuracy);
        }
        if let Some(rate) = self.meter.images_per_second {
            self.state.throughput.push(x, rate);
        }
        self.state.last = Some(report.clone());
        self.state.activity = None;
        self.draw(report.step == report.total_steps);
    }

    fn advance(&mut self, what: &str, done: u64, total: u64) {
        self.state.activity = Some((what.to_owned(), done, total));
        self.read_keys();
        self.draw(done == total);
    }

    fn note(&mut self, sentence: &str) {
        self.say(named(sentence));
    }

    fn warn(&mut self, sentence: &str) {
        self.say(format!("warning: {}", named(sentence)));
    }

    fn memory(&mut self, bytes: u64) {
        self.state.memory = Some(bytes);
    }

    fn stop_requested(&self) -> bool {
        self.read_keys();
        self.stop.get() || interrupt::requested()
    }
}

/// Draws everything.
fn show(frame: &mut Frame, state: &State, meter: &Meter, elapsed: Duration) {
    let [top, charts, lower, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Fill(3), Constraint::Fill(2), Constraint::Length(1)])
            .areas(frame.area());
    progress(frame, top, state, meter);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
    let losses: Vec<(&str, &[(f64, f64)])> = {
        let mut all: Vec<_> = state.losses.iter().map(|(name, points)| (*name, points.kept.as_slice())).collect();
        all.sort_by_key(|(name, _)| (*name != "total", *name));
        all
    };
    curve(frame, left, " losses ", &losses, None);
    curve(frame, right, " accuracy of the step's rows, % ", &[("", &state.accuracy.kept)], Some((0.0, 100.0)));
    let [numbers, messages] = Layout::horizontal([Constraint::Length(34), Constraint::Fill(1)]).areas(lower);
    facts(frame, numbers, state, meter, elapsed);
    let height = usize::from(messages.height.saturating_sub(2));
    let lines: Vec<Line> = state
        .messages
        .iter()
        .rev()
        .take(height)
        .rev()
        .map(|text| {
            let line = Line::from(text.as_str());
            if text.starts_with("warning") { line.yellow() } else { line }
        })
        .collect();
    frame.render_widget(
        Paragraph::new(lines).wrap(Wrap { trim: true }).block(Block::bordered().title(" messages ")),
        messages,
    );
    let foot_text = match state.stopping {
        true => " stopping after this step, and saving".yellow(),
        false => " q or Ctrl-C: stop after this step and save".dim(),
    };
    frame.render_widget(foot_text, foot);
}

/// How far the run is.
fn progress(frame: &mut Frame, area: Rect, state: &State, meter: &Meter) {
    let (share, text) = match (&state.activity, &state.last) {
        (Some((what, done, total)), _) => (*done as f64 / (*total).max(1) as f64, format!("{what} {done}/{total}")),
        (None, Some(report)) => {
            let left = meter
                .seconds_per_step
                .map_or(String::new(), |seconds| format!(", {} left", duration(report.to_come * seconds)));
            let share = f64::from(report.step) / f64::from(report.total_steps.max(1));
            (share, format!("step {}/{}, epoch {}{left}", report.step, report.total_steps, report.epoch))
        }
        (None, None) => (0.0, "preparing".to_owned()),
    };
    let gauge = Gauge::default().block(Block::bordered().title(" ieq-wgpu ")).gauge_style(Style::new().blue());
    frame.render_widget(gauge.ratio(share.clamp(0.0, 1.0)).label(text), area);
}

/// Lines over the steps.
fn curve(frame: &mut Frame, area: Rect, title: &str, series: &[(&str, &[(f64, f64)])], bounds: Option<(f64, f64)>) {
    let all = || series.iter().flat_map(|(_, points)| points.iter()).filter(|(_, y)| y.is_finite());
    let fold = |of: fn(&(f64, f64)) -> f64, with: fn(f64, f64) -> f64| all().map(of).reduce(with);
    let x = (fold(|p| p.0, f64::min).unwrap_or(0.0), fold(|p| p.0, f64::max).unwrap_or(1.0));
    let y = bounds.unwrap_or_else(|| {
        let (low, high) = (fold(|p| p.1, f64::min).unwrap_or(0.0).min(0.0), fold(|p| p.1, f64::max).unwrap_or(1.0));
        (low, if high > low { 1.05 * high } else { low + 1.0 })
    });
    let sets = series.iter().enumerate().map(|(i, (name, points))| {
        Dataset::default()
            .name(*name)
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::new().fg(COLOURS[i % COLOURS.len()]))
            .data(points)
    });
    let ends = |(low, high): (f64, f64), places: usize| [format!("{low:.places$}"), format!("{high:.places$}")];
    let chart = Chart::new(sets.collect())
        .block(Block::bordered().title(title.to_owned()))
        .hidden_legend_constraints((Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)))
        .x_axis(Axis::default().bounds([x.0, x.1.max(x.0 + 1.0)]).labels(ends(x, 0)).style(Style::new().dim()))
        .y_axis(
            Axis::default()
                .bounds([y.0, y.1])
                .labels(ends(y, if y.1 < 20.0 { 2 } else { 0 }))
                .style(Style::new().dim()),
        );
    frame.render_widget(chart, area);
}

/// The numbers of the last step.
fn facts(frame: &mut Frame, area: Rect, state: &State, meter: &Meter, elapsed: Duration) {
    let mut lines = Vec::new();
    let mut add = |name: &str, value: String| lines.push(Line::from(format!("{name:<14}{value}")));
    if let Some(report) = &state.last {
        add("loss", format!("{:.4}", report.loss));
        if let Some(accuracy) = report.accuracy {
            add("accuracy", format!("{:.1} %", 100.0 * accuracy));
        }
        add("rate", format!("{:.6}", report.lr));
        if let Some(rate) = meter.images_per_second {
            add("throughput", format!("{rate:.1} images/s"));
        }
        if let Some(seconds) = meter.seconds_per_step {
            add("time left", duration(report.to_come * seconds));
        }
    }
    add("elapsed", duration(elapsed.as_secs_f64()));
    if let Some(bytes) = state.memory {
        add("memory", bytes_text(bytes));
    }
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" numbers ")), area);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    #[test]
    fn every_size_of_terminal_is_drawn() {
        let mut state = State::default();
        let report = StepReport {
            step: 60,
            total_steps: 150,
            epoch: 2,
            lr: 0.05,
            loss: 2.5,
            terms: vec![("ce", 2.0)],
            accuracy: Some(0.5),
            images: 480,
            to_come: 90.0,
        };
        for step in 0..2000 {
            state.losses.entry("total").or_default().push(f64::from(step), f64::NAN);
            state.accuracy.push(f64::from(step), 50.0);
        }
        assert!(state.accuracy.kept.len() <= POINTS && state.accuracy.kept[0].0 < 1.5);
        state.last = Some(report);
        state.memory = Some(10 << 20);
        state.messages = vec!["warning: a".into(), "b".into()];
        for (width, height) in [(100, 30), (40, 12), (10, 4), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| show(frame, &state, &Meter::default(), Duration::from_secs(61))).unwrap();
            if width == 100 {
                let text = terminal.backend().to_string();
                for word in ["step 60/150, epoch 2", "losses", "50.0 %", "10 MiB", "warning: a", "stop after this step"]
                {
                    assert!(text.contains(word), "{word}\n{text}");
                }
            }
        }
    }
}
