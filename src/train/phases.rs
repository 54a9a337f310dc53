//! The phases of a run as its data decides them: from which step on each is in effect, with which batch, and where it is
//! in the order of the images. Needs no device.

use super::record::{DataShape, net_spec};
use crate::Result;
use crate::nn::NetSpec;
use crate::settings::Config;

/// A part of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its settings, without further phases.
    pub config: Config,
    /// Its first step, counted from 0.
    pub from: u32,
    /// Steps of one pass over the images.
    pub steps_per_epoch: u32,
    /// The number of its first pass over the images, counted from 0 over the whole run.
    pub first_epoch: u32,
    /// Images that the phases before it have shown.
    images_before: u64,
    /// Rows of a step, a smaller one counted by its area: what its time goes by.
    pub work: f64,
}

/// The phases of a run, one at least; all of them train the same network.
#[derive(Clone, Debug, PartialEq)]
pub struct Phases {
    phases: Vec<Phase>,
    /// The network, with the heads that any phase needs.
    pub net: NetSpec,
}

impl Phases {
    /// Those of a run over such data. A phase of no step is left out.
    ///
    /// # Errors
    /// As [`Config::schedule`].
    pub fn new(config: &Config, data: DataShape) -> Result<Phases> {
        let net = net_spec(config, data.classes);
        let mut all = config.phases()?;
        let (total, begins) = match all.len() {
            1 => (u32::MAX, vec![0]),
            _ => {
                let schedule = config.schedule(data.side, data.images)?;
                (schedule.total_steps, schedule.phase_steps)
            }
        };
        // Not the whole data, of which no negatives would be left.
        let most = data.images.saturating_sub(usize::from(net.projection.is_some())).max(1);
        for (_, config) in all.iter_mut().skip(1) {
            let unit = config.run.micro_batch.unwrap_or(1).max(1);
            config.optimiser.batch = (config.optimiser.batch.min(most) / unit * unit).max(1);
        }
        let mut phases: Vec<Phase> = Vec::new();
        for (i, (_, config)) in all.into_iter().enumerate() {
            let (from, end) = (begins[i], begins.get(i + 1).copied().unwrap_or(total));
            if from >= end {
                continue;
            }
            let steps_per_epoch = u32::try_from(data.images / config.optimiser.batch.max(1)).unwrap_or(u32::MAX).max(1);
            let (first_epoch, images_before) = phases.last().map_or((0, 0), |last| {
                let steps = from - last.from;
                let images = u64::from(steps) * last.config.optimiser.batch as u64;
                // A pass that was begun is over.
                (last.first_epoch + steps.div_ceil(last.steps_per_epoch), last.images_before + images)
            });
            let work = config.full_rows(data.side);
            phases.push(Phase { config, from, steps_per_epoch, first_epoch, images_before, work });
        }
        Ok(Phases { phases, net })
    }

    /// The phases in their order.
    pub fn all(&self) -> &[Phase] {
        &self.phases
    }

    /// The number of the phase that `step` belongs to; both count from 0.
    pub fn number_at(&self, step: u32) -> usize {
        self.phases.iter().rposition(|phase| phase.from <= step).unwrap_or(0)
    }

    /// The pass over the images that `step` belongs to, and the first image of its batch in the order of that pass; all
    /// count from 0.
    pub fn position_of(&self, step: u32) -> (u32, usize) {
        let phase = &self.phases[self.number_at(step)];
        let steps = step.saturating_sub(phase.from);
        let first = (steps % phase.steps_per_epoch) as usize * phase.config.optimiser.batch;
        (phase.first_epoch + steps / phase.steps_per_epoch, first)
    }

    /// The work of the steps from `first` on up to `end`, which is not among them, where a step of each phase is as much as
    /// `work` says, in the order of the phases.
    pub fn work_between(&self, first: u32, end: u32, work: impl IntoIterator<Item = f64>) -> f64 {
        let ends = self.phases.iter().skip(1).map(|phase| phase.from).chain([u32::MAX]);
        let steps = self.phases.iter().zip(ends).map(|(phase, to)| to.min(end).saturating_sub(phase.from.max(first)));
        steps.zip(work).map(|(steps, work)| f64::from(steps) * work).sum()
    }

    /// The steps after the first `done` of `total`, counted in steps that take as long as the last one that is done.
    pub fn to_come(&self, done: u32, total: u32) -> f64 {
        let own = self.phases[self.number_at(done.saturating_sub(1))].work;
        self.work_between(done, total, self.phases.iter().map(|phase| phase.work / own))
    }

    /// Images that the first `steps` steps show.
    pub fn images_of(&self, steps: u32) -> u64 {
        let Some(last) = steps.checked_sub(1) else { return 0 };
        let phase = &self.phases[self.number_at(last)];
        phase.images_before + u64::from(steps.saturating_sub(phase.from)) * phase.config.optimiser.batch as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::settings::{Length, Method, MethodConfig, TransformSet};

    const DATA: DataShape = DataShape { side: 28, classes: 8, images: 100 };

    fn phases(texts: &[&str], steps: u32) -> Phases {
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { transforms: TransformSet::Crop4, ..MethodConfig::default() };
        config.optimiser.length = Length::Steps(steps);
        config.method.phases = texts.iter().map(|text| (*text).to_owned()).collect();
        Phases::new(&config, DATA).unwrap()
    }

    #[test]
    fn a_run_without_phases_is_one() {
        let one = phases(&[], 40);
        assert_eq!(one.all().len(), 1);
        assert_eq!([0, 5, 6, 1000].map(|step| one.position_of(step)), [(0, 0), (0, 80), (1, 0), (166, 64)]);
        assert_eq!((one.images_of(0), one.images_of(7), one.number_at(u32::MAX)), (0, 112, 0));
    }

    #[test]
    fn a_phase_begins_a_new_pass_with_its_own_batch() {
        // Batches of 16, 32 and 64; 6, 3 and 1 steps of a pass.
        let three = phases(&["0.2: views = 2", "0.7: views = 1"], 40);
        let of = |f: fn(&Phase) -> u32| three.all().iter().map(f).collect::<Vec<_>>();
        assert_eq!(of(|phase| phase.config.optimiser.batch as u32), [16, 32, 64]);
        assert_eq!(of(|phase| phase.from), [0, 8, 28]);
        // Eight steps are two passes, of which the second was begun; twenty are seven.
        assert_eq!(of(|phase| phase.first_epoch), [0, 2, 9]);
        assert_eq!(
            [7, 8, 10, 11, 27, 28, 29].map(|step| three.position_of(step)),
            [(1, 16), (2, 0), (2, 64), (3, 0), (8, 32), (9, 0), (10, 0)]
        );
        assert_eq!([8, 9, 28, 29].map(|steps| three.images_of(steps)), [128, 160, 128 + 640, 128 + 640 + 64]);
        assert_eq!([7, 8, 27, 28, 99].map(|step| three.number_at(step)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn a_step_takes_as_long_as_its_rows_and_their_size() {
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { kind: Method::Baseline, scale: 0.5, ..MethodConfig::default() };
        config.method.phases = vec!["0.5: scale = 1".into()];
        config.optimiser.length = Length::Steps(100);
        let two = Phases::new(&config, DATA).unwrap();
        // Half of the arithmetic each.
        assert_eq!(two.all().iter().map(|phase| (phase.from, phase.work)).collect::<Vec<_>>(), [(0, 4.0), (80, 16.0)]);
        assert_eq!([0, 30, 80, 81, 100].map(|done| two.to_come(done, 100)), [160.0, 130.0, 80.0, 19.0, 0.0]);
        assert_eq!(two.work_between(70, 90, [0.5, 2.0]), 25.0);
        assert!((config.full_rows(28) - (80.0 * 4.0 + 20.0 * 16.0) / 100.0).abs() < 1e-9);
        // A pass begins anew, with the same batch: 100 images are 6 batches.
        assert_eq!([79, 80].map(|step| two.position_of(step)), [(13, 16), (14, 0)]);
    }

    #[test]
    fn a_phase_of_no_step_is_left_out_and_a_batch_leaves_negatives() {
        let short = phases(&["0.1: views = 3", "0.2: views = 2", "0.99: views = 1"], 3);
        assert_eq!(short.all().iter().map(|phase| phase.from).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(short.all()[1].config.method.views, Some(2));
        let mut config = Config::from_preset("demo").unwrap();
        config.method = MethodConfig { transforms: TransformSet::Crop4, ..MethodConfig::default() };
        config.method.phases = vec!["0.5: views = 1".into()];
        let few = Phases::new(&config, DataShape { images: 40, ..DATA }).unwrap();
        assert_eq!(few.all()[1].config.optimiser.batch, 39);
        assert_eq!(few.net.n_transforms, Some(4));
    }
}
