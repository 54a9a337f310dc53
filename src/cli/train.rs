//! `train`.

use std::path::{Path, PathBuf};

use super::args::number;
use super::report::{duration, percent, shell_word, table};
use super::settings::ConfigFlags;
use super::{Context, interrupt, plan, ranks};
use crate::Result;
use crate::jobs::Session;
use crate::jobs::plan::PlanOutcome;
use crate::jobs::ranks::follow;
use crate::jobs::score::meets;
use crate::jobs::train::{self, Begin, TrainOutcome, TrainRequest};

/// Train an embedding
///
/// Without anything the run is the demo. With --data and neither --preset nor --config a recipe chooses, by the pictures
/// and the device, every setting that no flag gives, and says each with its reason (--recipe auto). Otherwise a run is a
/// preset, under a TOML file (--config), under flags. Each setting below ends with its key in that file and its value in
/// the demo preset. The effective configuration, the checkpoint and the metrics are saved in the run folder. Ctrl-C
/// finishes the step, saves, and says how to resume. `mpirun -n 4 ieq-wgpu train` shares each batch among four devices, in
/// a program that was built with --features mpi.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Example:\n  ieq-wgpu train --preset omniglot --data omniglot28.zip --steps 400 --out runs/omniglot"
)]
pub struct Args {
    /// The configuration.
    #[command(flatten)]
    config: ConfigFlags,
    /// Continue the run in this folder
    ///
    /// Without a folder: the one that the other flags name. The run continues bit for bit as if it had never stopped.
    /// --data may name another path to the same data.
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, help_heading = "Run", conflicts_with = "overwrite")]
    resume: Option<Option<PathBuf>>,
    /// Flags of every training run.
    #[command(flatten)]
    run: RunFlags,
    /// Print the plan of a step, then train
    ///
    /// Every operation with its shape, slot and bytes, and the peak, on the device that trains. `ieq-wgpu plan` plans
    /// without a device.
    #[arg(long, help_heading = "Run", hide_short_help = true)]
    explain_plan: bool,
}

/// Flags of every command that trains.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunFlags {
    /// Replace the run that the folder holds
    #[arg(long, help_heading = "Run", hide_short_help = true)]
    pub overwrite: bool,
    /// Exit 1 if 1-shot accuracy ends below PCT percent
    ///
    /// 5-way 1-shot accuracy on the novel classes by logistic regression, scored after the last step (of the last
    /// generation).
    #[arg(long, value_name = "PCT", value_parser = number, help_heading = "Run", conflicts_with = "no_eval",
        hide_short_help = true)]
    pub min_acc: Option<f64>,
    /// Skip scoring the novel classes before and after
    ///
    /// A data set with fewer than 5 novel classes of 20 images is not scored either.
    #[arg(long, help_heading = "Run", hide_short_help = true)]
    pub no_eval: bool,
    /// Show the run on the whole terminal
    ///
    /// Curves of losses and accuracy, throughput, memory, time left and messages; q stops after the step and saves, as
    /// Ctrl-C does. The plain line stays the default.
    #[cfg(feature = "tui")]
    #[arg(long, help_heading = "Run", hide_short_help = true)]
    pub tui: bool,
}

fn request(args: &Args, open: impl FnOnce(&Path) -> Result<Begin>) -> Result<TrainRequest> {
    let flags = &args.config;
    let (config, given, out, begin) = match &args.resume {
        None => {
            let (config, given) = flags.wish()?;
            let out = config.out_folder();
            (config, Some(given), out, if args.run.overwrite { Begin::Overwrite } else { Begin::New })
        }
        Some(folder) => {
            let out = match folder {
                Some(folder) => folder.clone(),
                None => flags.resolve()?.out_folder(),
            };
            let begin = open(&out)?;
            let Some(stored) = begin.stored() else { return Err(crate::Error::Internal("nothing is resumed".into())) };
            let mut config = match flags.preset.is_some() || flags.config.is_some() {
                true => flags.wish()?.0,
                false => stored.config.as_given()?,
            };
            // Before the flags: one that names what was chosen, and says otherwise, is to be seen.
            config.keep_choices(&stored.config);
            config.keep_reasoned(&stored.config);
            flags.apply(&mut config)?;
            (config, None, out, begin)
        }
    };
    let resume_command = format!("ieq-wgpu train --resume {}", shell_word(&out));
    Ok(TrainRequest { config, given, out, begin, score: !args.run.no_eval, min_acc: args.run.min_acc, resume_command })
}

/// Trains and prints the result.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let session = Session { ranks: ranks::join()?, ..context.session.clone() };
    if session.ranks.as_ref().is_some_and(|ranks| !ranks.leads()) {
        // Rank 0 says when to stop.
        interrupt::install("", |_| {})?;
        return follow(&session);
    }
    let request = request(&args, Begin::resume)?;
    context.interruptible(interrupt::TRAINING)?;
    let anew = match &request.given {
        Some(given) => args.config.chosen_anew(&request.config, given)?,
        None => None,
    };
    let outcome = context.with_training(&args.run, |progress| {
        anew.iter().for_each(|sentence| progress.note(sentence));
        let mut print = |plan: &PlanOutcome| context.report.text(&plan::text(plan));
        let explain: Option<train::Explain> = if args.explain_plan { Some(&mut print) } else { None };
        train::run_explained(&request, &session, progress, explain)
    })?;
    context.report.result("train", &outcome, || text(&outcome))?;
    context.note(&next(&request.out));
    meets(request.min_acc, &outcome.trained)
}

/// What one can do with a run.
pub(super) fn next(run: &Path) -> String {
    let run = shell_word(run);
    format!(
        "next: `ieq-wgpu predict --model {run} --support DIR PICTURES` gives pictures the names of classes, `ieq-wgpu embed {run} \
         PICTURES` makes rows of numbers of them"
    )
}

/// A run's result for people.
pub(super) fn text(outcome: &TrainOutcome) -> String {
    let mut rows = Vec::new();
    for (i, after) in outcome.trained.iter().enumerate() {
        let before = outcome.untrained.get(i);
        if rows.is_empty() {
            let mut row = vec![format!("{}-way, novel classes", after.ways), "trained".into()];
            if before.is_some() {
                row.insert(1, if outcome.init.is_some() { "before" } else { "untrained" }.into());
                row.push("gain".into());
            }
            rows.push(row);
        }
        let mut row = vec![format!("{}-shot accuracy ({})", after.shots, after.classifier), percent(after)];
        if let Some(before) = before {
            row.insert(1, percent(before));
            row.push(format!("{:+.1}", after.accuracy_pct - before.accuracy_pct));
        }
        rows.push(row);
    }
    let whole = outcome.timing.map_or(String::new(), |timing| {
        format!(", {} of {} in all", duration(outcome.job_seconds), duration(timing.wanted_s))
    });
    let loss = outcome.loss.map_or(String::new(), |loss| format!(", loss {loss:.4}"));
    let (kept, ended) =
        (kept(outcome), outcome.ended.as_ref().map_or(String::new(), |why| format!("\nended early: {why}")));
    format!(
        "{}\n{} steps in {}{whole}{loss}, {:.1} images/s; saved {}{kept}{ended}",
        table(&rows),
        outcome.steps,
        duration(outcome.seconds),
        outcome.images_per_second,
        outcome.checkpoint.display()
    )
    .trim_start()
    .to_owned()
}

/// A line on the network that validated best, where the run was validated.
fn kept(outcome: &TrainOutcome) -> String {
    let Some(best) = &outcome.best else { return String::new() };
    let (score, file) = (best.validation, best.checkpoint.display());
    let last = outcome.last.iter().map(|score| format!("{}-shot {}", score.shots, percent(score)));
    let last = match outcome.last.is_empty() {
        true => String::new(),
        false => format!("; the last network has {}", last.collect::<Vec<_>>().join(", ")),
    };
    format!(
        "\nbest in validation: step {} with {:.1} % 1-shot, {:.1} % 5-shot, saved {file}{last}",
        score.step, score.one_shot_pct, score.five_shot_pct
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::{Command, tests::parse};
    use super::*;
    use crate::jobs::Stored;
    use crate::jobs::score::Score;
    use crate::settings::{Config, DecayAt, Length};
    use crate::train::checkpoint::Checkpoint;

    #[test]
    fn resume_takes_a_folder_or_none() {
        for (words, want) in [
            (&["train"][..], None),
            (&["train", "--resume"], Some(None)),
            (&["train", "--resume", "runs/a"], Some(Some("runs/a"))),
            (&["train", "--resume", "--quiet"], Some(None)),
        ] {
            let Command::Train(args) = parse(words).unwrap().command else { panic!("not train") };
            assert_eq!(args.resume, want.map(|folder| folder.map(PathBuf::from)), "{words:?}");
        }
    }

    /// The flags of the first run may stay on the line of a resumed one.
    #[test]
    fn a_resumed_run_lies_over_its_own_settings() {
        let mut stored = Config::from_preset("demo").unwrap();
        stored.optimiser.lr = 0.3;
        let request = |words: &[&str]| {
            let words = [&["train", "--resume", "runs/a"], words].concat();
            let Command::Train(args) = parse(&words).unwrap().command else { panic!("not train") };
            let begin = Begin::Resume(Box::new(Stored {
                file: "runs/a/checkpoint.safetensors".into(),
                checkpoint: Checkpoint::default(),
                config: stored.clone(),
                support: None,
            }));
            request(&args, |_| Ok(begin)).unwrap()
        };
        assert_eq!(request(&[]).config, stored);
        assert_eq!(request(&["--log-every", "1"]).config.run.log_every, 1);
        assert_eq!(request(&["--preset", "demo"]).config.optimiser.lr, 0.05, "a preset that is named counts");
        assert_eq!(request(&[]).resume_command, "ieq-wgpu train --resume runs/a");
    }

    /// What a recipe or a time chose for the run is its own, whatever preset or file the flags of the first run name.
    #[test]
    fn a_resumed_run_keeps_what_was_chosen_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("auto.toml");
        std::fs::write(&file, "recipe = \"auto\"\n[data]\nsource = \"photos\"\n[run]\nvalidate_every = 3").unwrap();
        let file = file.to_str().unwrap();
        let timed = folder.path().join("timed.toml");
        std::fs::write(&timed, "preset = \"demo\"\n[run]\ntime = \"5m\"").unwrap();
        let timed = timed.to_str().unwrap();
        for words in [
            &["--preset", "demo", "--time", "5m"][..],
            &["--preset", "cifar-fs", "--data", "photos", "--time", "5m"],
            &["--config", file],
            &["--config", file, "--batch", "12", "--time", "1h"],
            &["--config", timed, "--steps", "9"],
            &["--data", "photos", "--lr", "0.3"],
        ] {
            let request = |more: &[&str], begin: Option<&Config>| {
                let words = [&["train"], words, more].concat();
                let Command::Train(args) = parse(&words).unwrap().command else { panic!("not train") };
                super::request(&args, |_| {
                    Ok(Begin::Resume(Box::new(Stored {
                        file: "runs/a/checkpoint.safetensors".into(),
                        checkpoint: Checkpoint::default(),
                        config: begin.unwrap().clone(),
                        support: None,
                    })))
                })
                .unwrap()
            };
            let first = request(&[], None);
            let mut stored = first.config;
            let reason = |stored: &mut Config, key: &str| stored.run.reasons.push(format!("{key}: because"));
            if first.given.unwrap().recipe {
                (stored.data.mean, stored.model.widths) = ([0.3; 3], vec![16, 32, 64, 128]);
                ["data.mean", "model.widths"].into_iter().for_each(|key| reason(&mut stored, key));
            }
            if stored.run.time.is_some() {
                (stored.optimiser.length, stored.optimiser.decay_at) =
                    (Length::Steps(321), DecayAt::Fractions(vec![0.9]));
                reason(&mut stored, "optimiser.length.steps");
                reason(&mut stored, "optimiser.decay_at.fractions");
            }
            assert_eq!(request(&["--resume", "runs/a"], Some(&stored)).config, stored, "{words:?}");
            let other = request(&["--resume", "runs/a", "--tau", "0.77"], Some(&stored)).config;
            assert_eq!(other.differences(&stored), ["method.tau"], "{words:?}");
        }
    }

    #[test]
    fn a_result_reads_well() {
        let score = |shots, accuracy_pct, interval_pct| Score {
            classifier: "lr".into(),
            ways: 5,
            shots,
            queries: 15,
            episodes: 600,
            accuracy_pct,
            interval_pct,
        };
        let mut outcome = TrainOutcome {
            checkpoint: "runs/demo/checkpoint.safetensors".into(),
            chosen: Vec::new(),
            timing: None,
            job_seconds: 190.0,
            steps: 150,
            ended: None,
            best: None,
            init: None,
            loss: Some(3.21),
            seconds: 185.0,
            images_per_second: 12.97,
            untrained: vec![score(1, 46.9, Some(0.84)), score(5, 64.7, Some(0.84))],
            trained: vec![score(1, 69.2, Some(0.84)), score(5, 84.0, None)],
            last: Vec::new(),
        };
        assert_eq!(
            text(&outcome),
            "5-way, novel classes  untrained     trained                  gain\n\
             1-shot accuracy (lr)  46.9 ± 0.8 %  69.2 ± 0.8 %             +22.3\n\
             5-shot accuracy (lr)  64.7 ± 0.8 %  84.0 % (spread unknown)  +19.3\n\
             150 steps in 3 min 05 s, loss 3.2100, 13.0 images/s; saved runs/demo/checkpoint.safetensors"
        );
        // As after a resumed run that started from another network.
        outcome.untrained.clear();
        assert!(text(&outcome).starts_with(
            "5-way, novel classes  trained\n\
             1-shot accuracy (lr)  69.2 ± 0.8 %\n\
             5-shot accuracy (lr)  84.0 % (spread unknown)\n"
        ));
    }
}
