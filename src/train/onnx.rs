//! The embedding network as an ONNX model, encoded by hand: a few of its messages, in protobuf's wire format.
//!
//! Input `images`: float32 [N, 3, side, side], RGB of 0 to 255; normalisation is part of the model. Output `features`:
//! float32 [N, d]. N is free.

use super::checkpoint::Checkpoint;
use super::state::floats;
use crate::nn::{NetSpec, SLOPE};
use crate::ops::batch_norm::EPSILON;
use crate::settings::Backbone;
use crate::{Error, Result};

/// The version of the operators that a model is written in.
pub const OPSET: u64 = 17;
/// The version of the format that came with it.
const IR_VERSION: u64 = 8;
/// What protobuf can hold.
const MAX_BYTES: usize = (1 << 31) - 1;

/// ONNX's code for float32.
const FLOAT: u64 = 1;
/// Codes of the types of attributes.
const ATTRIBUTE_FLOAT: u64 = 1;
const ATTRIBUTE_INTS: u64 = 7;

const INPUT: &str = "images";
const OUTPUT: &str = "features";

/// A message that grows, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn integer(mut self, field: u64, n: u64) -> Self {
        self.varint(field << 3);
        self.varint(n);
        self
    }

    fn integers(self, field: u64, all: &[usize]) -> Self {
        all.iter().fold(self, |message, &n| message.integer(field, n as u64))
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, inner: Message) -> Self {
        self.bytes(field, &inner.0)
    }
}

/// An attribute of a node.
enum Attribute {
    Float(&'static str, f32),
    Ints(&'static str, Vec<usize>),
}

/// The graph as it grows: nodes and constants.
struct Graph<'c> {
    checkpoint: &'c Checkpoint,
    message: Message,
    nodes: usize,
}

impl Graph<'_> {
    /// Appends a node; its output.
    fn node(&mut self, kind: &str, inputs: &[&str], attributes: &[Attribute]) -> String {
        self.nodes += 1;
        let output = format!("{}_{}", kind.to_ascii_lowercase(), self.nodes);
        self.named(kind, inputs, attributes, &output);
        output
    }

    fn named(&mut self, kind: &str, inputs: &[&str], attributes: &[Attribute], output: &str) {
        let node = inputs.iter().fold(Message::default(), |node, input| node.text(1, input));
        let mut node = node.text(2, output).text(3, output).text(4, kind);
        for attribute in attributes {
            node = node.message(
                5,
                match attribute {
                    Attribute::Float(name, value) => {
                        Message::default().text(1, name).float(2, *value).integer(20, ATTRIBUTE_FLOAT)
                    }
                    Attribute::Ints(name, values) => {
                        Message::default().text(1, name).integers(8, values).integer(20, ATTRIBUTE_INTS)
                    }
                },
            );
        }
        self.message = std::mem::take(&mut self.message).message(1, node);
    }

    /// Adds constant numbers of the name.
    fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Message::default().integers(1, shape).integer(2, FLOAT).text(8, name).bytes(9, &raw);
        self.message = std::mem::take(&mut self.message).message(5, tensor);
    }

    /// Adds a tensor of the network.
    fn tensor(&mut self, name: &str) -> Result<()> {
        let shape = self.checkpoint.tensors.get(name).map(|tensor| tensor.shape.clone()).unwrap_or_default();
        let values = floats(self.checkpoint, name)?;
        self.constant(name, &shape, values);
        Ok(())
    }

    fn conv(&mut self, name: &str, x: &str, kernel: usize) -> Result<String> {
        let weight = format!("{name}.weight");
        self.tensor(&weight)?;
        let attributes =
            [Attribute::Ints("kernel_shape", vec![kernel; 2]), Attribute::Ints("pads", vec![kernel / 2; 4])];
        Ok(self.node("Conv", &[x, &weight], &attributes))
    }

    fn batch_norm(&mut self, name: &str, x: &str) -> Result<String> {
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{name}.{part}"));
        parts.iter().try_for_each(|part| self.tensor(part))?;
        let [weight, bias, mean, var] = &parts;
        Ok(self.node("BatchNormalization", &[x, weight, bias, mean, var], &[Attribute::Float("epsilon", EPSILON)]))
    }

    fn leaky(&mut self, x: &str) -> String {
        self.node("LeakyRelu", &[x], &[Attribute::Float("alpha", SLOPE)])
    }

    fn max_pool(&mut self, x: &str) -> String {
        let two = || vec![2; 2];
        self.node("MaxPool", &[x], &[Attribute::Ints("kernel_shape", two()), Attribute::Ints("strides", two())])
    }

    /// Block `b` of ResNet-12.
    fn residual_block(&mut self, b: usize, x: &str) -> Result<String> {
        let name = |part: &str| format!("layer{b}.0.{part}");
        let mut h = x.to_owned();
        for i in 1..=3 {
            h = self.conv(&name(&format!("conv{i}")), &h, 3)?;
            h = self.batch_norm(&name(&format!("bn{i}")), &h)?;
            if i < 3 {
                h = self.leaky(&h);
            }
        }
        let shortcut = self.conv(&name("downsample.0"), x, 1)?;
        let shortcut = self.batch_norm(&name("downsample.1"), &shortcut)?;
        let sum = self.node("Add", &[&h, &shortcut], &[]);
        let sum = self.leaky(&sum);
        Ok(self.max_pool(&sum))
    }

    /// Block `b` of Conv4.
    fn plain_block(&mut self, b: usize, x: &str) -> Result<String> {
        let h = self.conv(&format!("layer{b}.0"), x, 3)?;
        let h = self.batch_norm(&format!("layer{b}.1"), &h)?;
        let h = self.node("Relu", &[&h], &[]);
        Ok(self.max_pool(&h))
    }
}

/// A value of float32 with the free axis N before `shape`.
fn value(name: &str, shape: &[usize]) -> Message {
    let axis = |n: &usize| Message::default().integer(1, *n as u64);
    let free = Message::default().message(1, Message::default().text(2, "N"));
    let shape = shape.iter().fold(free, |message, n| message.message(1, axis(n)));
    let tensor = Message::default().integer(1, FLOAT).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

/// The bytes of a model of the network up to its embedding, whose tensors `checkpoint` has, for images of `side` pixels
/// normalised by `mean` and `std` of each channel; `metadata` is added to it.
///
/// # Errors
/// [`Error::Internal`] where a tensor is missing; [`Error::Usage`] for more than 2 GiB.
pub fn model(
    checkpoint: &Checkpoint,
    net: &NetSpec,
    side: usize,
    (mean, std): ([f64; 3], [f64; 3]),
    metadata: &[(&str, &str)],
) -> Result<Vec<u8>> {
    let mut graph = Graph { checkpoint, message: Message::default(), nodes: 0 };
    let channels = [0, 1, 2];
    graph.constant("scale", &[3, 1, 1], &channels.map(|c| (1.0 / (255.0 * std[c])) as f32));
    graph.constant("shift", &[3, 1, 1], &channels.map(|c| (-mean[c] / std[c]) as f32));
    let x = graph.node("Mul", &[INPUT, "scale"], &[]);
    let mut h = graph.node("Add", &[&x, "shift"], &[]);
    for b in 1..=net.widths.len() {
        h = match net.backbone {
            Backbone::Resnet12 => graph.residual_block(b, &h)?,
            Backbone::Conv4 => graph.plain_block(b, &h)?,
        };
    }
    let last = net.widths.last().copied().unwrap_or_default();
    let columns = match net.backbone {
        Backbone::Resnet12 => {
            h = graph.node("GlobalAveragePool", &[&h], &[]);
            last
        }
        Backbone::Conv4 => last * (side >> net.widths.len()).pow(2),
    };
    graph.named("Flatten", &[&h], &[], OUTPUT);
    let Graph { message, .. } = graph;
    let graph =
        message.text(2, "embedding").message(11, value(INPUT, &[3, side, side])).message(12, value(OUTPUT, &[columns]));
    let mut model = Message::default()
        .integer(1, IR_VERSION)
        .text(2, "ieq-wgpu")
        .text(6, "images: RGB of 0 to 255, which the model normalises; features: their embeddings")
        .message(7, graph)
        .message(8, Message::default().text(1, "").integer(2, OPSET));
    for (key, value) in metadata {
        model = model.message(14, Message::default().text(1, key).text(2, value));
    }
    match model.0.len() {
        0..=MAX_BYTES => Ok(model.0),
        n => Err(Error::usage(format!(
            "the network has {n} bytes, and an ONNX model at most 2 GiB: `request.to` safetensors or pth holds it"
        ))),
    }
}
