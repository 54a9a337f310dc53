//! Every term of the training loss: its name, its weight, and how it is computed.
//!
//! To add a loss: a row here, its weight in the settings, and its values in a golden file. The test below fails for a
//! weight that no row reads.

use super::losses::{
    Contrast, contrastive_loss, cross_entropy, kl_divergence, mean_squared_error, smoothed_cross_entropy,
};
use super::spec::{StepInputs, StepSpec};
use crate::Result;
use crate::nn::Outputs;
use crate::ops::bank::GatherRows;
use crate::settings::DistillConfig;
use crate::tape::{Graph, ValueId};

/// What a loss is computed from.
pub struct Given<'a> {
    /// The settings of the step.
    pub spec: &'a StepSpec,
    /// What the host gives.
    pub inputs: &'a StepInputs,
    /// What the network made of it.
    pub own: &'a Outputs,
    /// What the teacher made of it, in distillation.
    pub teacher: Option<&'a Outputs>,
}

/// The sum that a loss belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The network's own losses, weighted by `distill.weight_loss` where there is a teacher.
    Own,
    /// The differences from the teacher, weighted by `distill.weight_distill`.
    Distillation,
}

/// A term of the loss.
pub struct Loss {
    /// Short name, as logs have it.
    pub name: &'static str,
    /// The sum that it belongs to.
    pub side: Side,
    /// Its weight in that sum; 0 computes it for the log alone.
    pub weight: fn(&StepSpec) -> f32,
    /// Appends it: a scalar, shape `[1]`; none where the network has no such output.
    pub record: fn(&mut Graph, &Given) -> Result<Option<ValueId>>,
}

/// All of them, in the order of logs.
pub const LOSSES: [Loss; 7] = [
    Loss {
        name: "ce",
        side: Side::Own,
        weight: |spec| if spec.method.terms().cross_entropy { spec.method.weights()[0] as f32 } else { 0.0 },
        record: |graph, given| {
            let smoothing = given.spec.method.label_smoothing as f32;
            smoothed_cross_entropy(graph, given.own.class, given.inputs.classes, smoothing).map(Some)
        },
    },
    Loss {
        name: "eq",
        side: Side::Own,
        weight: |spec| spec.method.weights()[1] as f32,
        record: |graph, given| {
            given.own.transform.map(|q| cross_entropy(graph, q, given.inputs.transforms)).transpose()
        },
    },
    Loss { name: "inv", side: Side::Own, weight: |spec| spec.method.weights()[2] as f32, record: invariance },
    Loss {
        name: "kl_cls",
        side: Side::Distillation,
        weight: |spec| distill(spec, |d| d.kl_class),
        record: |graph, given| divergence(graph, given, |outputs| Some(outputs.class)),
    },
    Loss {
        name: "kl_eq",
        side: Side::Distillation,
        weight: |spec| distill(spec, |d| d.kl_transform),
        record: |graph, given| divergence(graph, given, |outputs| outputs.transform),
    },
    Loss {
        name: "mse_inv",
        side: Side::Distillation,
        weight: |spec| distill(spec, |d| d.mse_invariant),
        record: |graph, given| difference(graph, given, |outputs| outputs.invariant),
    },
    Loss {
        name: "mse_feat",
        side: Side::Distillation,
        weight: |spec| distill(spec, |d| d.mse_feature),
        record: |graph, given| difference(graph, given, |outputs| Some(outputs.feat)),
    },
];

fn distill(spec: &StepSpec, setting: fn(&DistillConfig) -> f64) -> f32 {
    spec.distill.as_ref().map_or(0.0, setting) as f32
}

fn invariance(graph: &mut Graph, given: &Given) -> Result<Option<ValueId>> {
    let (Some(z), inputs) = (given.own.invariant, given.inputs) else { return Ok(None) };
    let own = graph.one(GatherRows, &[inputs.bank, inputs.index])?;
    let negatives = graph.one(GatherRows, &[inputs.bank, inputs.negatives])?;
    let spec = given.spec;
    let contrast = Contrast { tau: spec.method.tau as f32, viewed: spec.viewed, counted: inputs.counted };
    contrastive_loss(graph, z, own, negatives, &contrast).map(Some)
}

/// An output of the network and the teacher's, where both have it.
fn pair(given: &Given, output: fn(&Outputs) -> Option<ValueId>) -> Option<(ValueId, ValueId)> {
    output(given.own).zip(given.teacher.and_then(output))
}

fn divergence(graph: &mut Graph, given: &Given, output: fn(&Outputs) -> Option<ValueId>) -> Result<Option<ValueId>> {
    let temperature = distill(given.spec, |d| d.temperature);
    pair(given, output).map(|(own, teacher)| kl_divergence(graph, own, teacher, temperature)).transpose()
}

fn difference(graph: &mut Graph, given: &Given, output: fn(&Outputs) -> Option<ValueId>) -> Result<Option<ValueId>> {
    pair(given, output).map(|(own, teacher)| mean_squared_error(graph, own, teacher)).transpose()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::step::record;
    use super::*;
    use crate::nn::{Drop, NetSpec};
    use crate::ops::step_block::StepBlock;
    use crate::settings::{Backbone, Config, MethodConfig, OptimiserConfig};
    use crate::tape::Type;

    /// The recorded step of a small network with a teacher, as text, and the names of its losses.
    fn recorded(method: MethodConfig, distill: DistillConfig) -> (String, Vec<&'static str>) {
        let net = NetSpec {
            backbone: Backbone::Conv4,
            widths: vec![2; 2],
            n_classes: 3,
            n_transforms: Some(2),
            projection: Some(4),
        };
        let spec = StepSpec {
            exchanged: false,
            joined: false,
            net,
            batch: 2,
            parts: 1,
            copies: 2,
            viewed: 2,
            drawn: false,
            class_rotations: 1,
            bank_rows: 9,
            negatives: 3,
            method,
            optimiser: OptimiserConfig::default(),
            distill: Some(distill),
        };
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([spec.rows(), 3, 8, 8]));
        let step = graph.input("step", StepBlock::ty());
        let index = graph.input("index", Type::u32([spec.batch]));
        let inputs = StepInputs::declare(&mut graph, &spec, x, step, index);
        let step = record(&mut graph, &spec, inputs, &Drop::Off).unwrap();
        (format!("{:?}", graph.nodes()), step.losses.iter().map(|(name, _)| *name).collect())
    }

    #[test]
    fn every_loss_is_recorded_once_and_every_weight_is_read() {
        let config = Config::default();
        let (whole, names) = recorded(config.method.clone(), config.distill.clone());
        let wanted: Vec<_> = ["total"].into_iter().chain(LOSSES.iter().map(|loss| loss.name)).collect();
        assert_eq!(names, wanted);
        let (mut method, mut distill) = (serde_json::json!(config.method), serde_json::json!(config.distill));
        // Those that the recorded step does not have in it: how many students there are, how many negatives, which images
        // get further views, and how large the views are.
        let elsewhere = ["generations", "teacher_share", "negatives", "view_share", "scale"];
        let mut changed = 0;
        for which in 0..2 {
            let keys: Vec<String> = [&method, &distill][which].as_object().unwrap().keys().cloned().collect();
            for key in keys.iter().filter(|key| !elsewhere.contains(&key.as_str())) {
                let section = [&mut method, &mut distill].into_iter().nth(which).unwrap();
                if !section[key].is_number() {
                    continue;
                }
                let before = std::mem::replace(&mut section[key], serde_json::json!(0.125));
                let now = recorded(
                    serde_json::from_value(method.clone()).unwrap(),
                    serde_json::from_value(distill.clone()).unwrap(),
                );
                assert_ne!(now.0, whole, "no loss reads {key}");
                [&mut method, &mut distill].into_iter().nth(which).unwrap()[key] = before;
                changed += 1;
            }
        }
        assert!(changed >= 10, "{changed} settings");
    }
}
